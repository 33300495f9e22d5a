"""Scores of a run's checkpoints: afterwards, and while they appear."""

import dataclasses
import shutil
import threading
import time

import jax
import numpy as np
import PIL.Image
import pytest
from helpers import small
from helpers.saved_run import rows, write_run

from gan_jax import data, metrics
from gan_jax.evaluation import references
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.scorer import EvaluationOptions
from gan_jax.metrics import Metric
from gan_jax.runtime.errors import ArgumentError, Error
from gan_jax.training import (
  restore,
  run_evaluator,
  score_checkpoints,
  workdir,
)

# Orbax's reading threads outlive its event loop when a file is damaged.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)
ASKED = EvaluationOptions(metrics='modes,fid', samples=64, devices=1)


@pytest.fixture(scope='module', autouse=True)
def programs(tmp_path_factory):
  """Each test opens its networks anew: they are compiled once."""
  names = (
    'jax_compilation_cache_dir',
    'jax_persistent_cache_min_compile_time_secs',
  )
  before = [getattr(jax.config, name) for name in names]
  jax.config.update(names[0], str(tmp_path_factory.mktemp('xla')))
  jax.config.update(names[1], 0)
  yield
  for name, value in zip(names, before):
    jax.config.update(name, value)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  return write_run(tmp_path_factory.mktemp('runs') / 'ring')


@pytest.fixture
def run(saved, tmp_path):
  return shutil.copytree(saved, tmp_path / 'run')


def evaluate(run, options=ASKED, step=None, every=False, **how):
  return score_checkpoints.evaluate_run(str(run), options, step, every, **how)


def test_every_checkpoint_is_scored_and_none_twice(run, monkeypatch, capsys):
  evaluate(run, every=True)
  assert [row['step'] for row in rows(run)] == [4, 8, 12]
  assert len({row['fid'] for row in rows(run)}) == 3
  assert all(row['protocol']['ema'] for row in rows(run))
  content = (run / 'metrics.jsonl').read_bytes()

  def never(*args, **kwargs):
    raise AssertionError('scored again')

  with monkeypatch.context() as patch:
    patch.setattr(Evaluator, 'score_batches', never)
    evaluate(run, every=True)
    evaluate(run, step=8)
  assert (run / 'metrics.jsonl').read_bytes() == content
  assert 'scored before' in capsys.readouterr().out
  # Another protocol is another score: more samples, the live G, a seed.
  for change in ({'samples': 65}, {'ema': False}, {'seed': 1}):
    evaluate(run, dataclasses.replace(ASKED, **change))
  assert len(rows(run)) == 6 and len({r['key'] for r in rows(run)}) == 4


def test_the_same_command_gives_the_same_digits(run, saved, tmp_path):
  other = shutil.copytree(saved, tmp_path / 'other')
  (one,), (two,) = evaluate(run), evaluate(other)
  assert one['by_evaluation_seed'] == two['by_evaluation_seed']
  assert one['key'] == two['key'] and one['model'] == two['model']


def test_a_step_without_a_checkpoint(run):
  with pytest.raises(ArgumentError, match='`step=5`.*there are: 4, 8, 12'):
    evaluate(run, step=5)


def test_a_deleted_and_a_damaged_checkpoint_are_skipped(
  run, monkeypatch, capsys
):
  original = restore.open_run

  def deleting(workdir, step=None):
    if step == 4:  # as the run does that writes there
      shutil.rmtree(run / 'checkpoints' / '000000004')
    return original(workdir, step)

  files = (run / 'checkpoints' / '000000008').rglob('*')
  largest = max(
    (p for p in files if p.is_file()), key=lambda p: p.stat().st_size
  )
  largest.write_bytes(b'\0' * largest.stat().st_size)
  monkeypatch.setattr(restore, 'open_run', deleting)
  evaluate(run, every=True, poll=0.01)
  assert [row['step'] for row in rows(run)] == [12]
  err = capsys.readouterr().err
  assert 'checkpoint 4 was deleted meanwhile; skipped' in err
  assert 'warning: checkpoint 8: ' in err and err.count('skipped') == 2
  # Reading changed nothing: the damaged one is still where it was.
  assert restore.saved_steps(run) == [8, 12]


def test_a_checkpoint_that_cannot_be_read_is_tried_again(run, monkeypatch):
  original, calls = restore.open_run, []

  def failing(workdir, step=None):
    calls.append(step)
    if calls.count(8) <= 2 and step == 8:
      raise FileNotFoundError('gone for a moment')
    return original(workdir, step)

  monkeypatch.setattr(restore, 'open_run', failing)
  evaluate(run, every=True, poll=0.01)
  assert [row['step'] for row in rows(run)] == [4, 8, 12]


def test_a_run_is_followed_to_its_end(saved, tmp_path):
  """Checkpoints appear, then the run says that it is done."""
  run = tmp_path / 'run'

  def train():
    time.sleep(0.1)
    shutil.copytree(saved, run, ignore=shutil.ignore_patterns('0*', 'run.json'))
    for name in ('000000004', '000000008', '000000012'):
      time.sleep(0.1)
      part = tmp_path / name
      shutil.copytree(saved / 'checkpoints' / name, part)
      part.rename(run / 'checkpoints' / name)
    shutil.copy(saved / 'run.json', run / 'run.json')

  writer = threading.Thread(target=train)
  writer.start()
  scored = score_checkpoints.follow(str(run), ASKED, 60.0, poll=0.02)
  writer.join()
  assert [row['step'] for row in scored] == [4, 8, 12]
  assert rows(run) == scored
  before = (run / 'metrics.jsonl').read_bytes()
  score_checkpoints.follow(str(run), ASKED, 60.0)  # returns at once
  assert (run / 'metrics.jsonl').read_bytes() == before


def test_a_follower_gives_up_in_time(run):
  workdir.RunFile(run).update(outcome='running')
  with pytest.raises(Error, match='no new checkpoint.*follow_timeout'):
    score_checkpoints.follow(str(run), ASKED, 0.1, poll=0.02)
  assert len(rows(run)) == 3


# From Python.


def test_a_run_is_scored_as_an_object(run):
  opened = restore.open_run(run)
  scores = opened.score(['fid', 'modes'], samples=64, seeds=2)
  (row,) = evaluate(run, dataclasses.replace(ASKED, eval_seeds=2))
  assert scores == {name: row[name] for name in scores}
  assert (
    not opened.workdir.joinpath('metrics.jsonl').read_text().count('\n') > 1
  )
  spread = Metric(
    'spread',
    lambda real, fake, *, seed: {'spread': float(fake.std())},
    {'spread': 'higher'},
    sees='points',
    reads_real=False,
  )
  assert opened.score([spread], samples=50)['spread'] > 0
  with pytest.raises(ArgumentError, match='`sampels=5`: no such option'):
    opened.score(['fid'], sampels=5)
  with pytest.raises(ArgumentError, match='`ema=True`: this run kept no'):
    write = dataclasses.replace(
      opened, state={k: x for k, x in opened.state.items() if 'ema/' not in k}
    )
    write.score(['fid'], samples=64, ema=True)


# Images: the 2014 protocol, and nearest neighbours.


@pytest.fixture(scope='module')
def digit_run(tmp_path_factory, digits_root):
  path = tmp_path_factory.mktemp('runs') / 'digits'
  return write_run(
    path,
    (2,),
    dataset='digits[:1500]',
    data_dir=str(digits_root),
    ema_halflife_kimg=0.0,
    metrics='ms_ssim',
  )


def test_parzen_by_the_protocol(digit_run, tmp_path, digits):
  path = shutil.copytree(digit_run, tmp_path / 'run')
  options = EvaluationOptions(
    metrics='parzen', against='digits[1600:]', samples=100, devices=1
  )
  (row,) = evaluate(path, options)
  protocol = row['protocol']
  assert protocol['validation'] == 'digits[1500:1797]'
  assert protocol['validation_samples'] == 297
  assert protocol['real_samples'] == 100
  assert protocol['reference'] == 'digits[1600:]' and protocol['ema'] is False
  fake = (restore.open_run(path).sample(100) + 1) * 127.5
  expected = metrics.parzen(
    references.read_samples(data.load('digits[1600:]'), 100),
    np.clip(np.rint(fake), 0, 255).astype(np.uint8),
    validation=data.load('digits[1500:1797]').array(),
  )
  assert row['parzen'] == pytest.approx(expected['parzen'], rel=1e-4)
  assert row['parzen_sigma'] == expected['parzen_sigma']


def test_samples_are_shown_beside_what_is_nearest(digit_run, run, tmp_path):
  path = shutil.copytree(digit_run, tmp_path / 'digits')
  options = EvaluationOptions(samples=20, devices=1, neighbours=4)
  (row,) = evaluate(path, options)  # by the run's own metric
  assert [*row['primary']] == ['ms_ssim']
  with PIL.Image.open(path / 'neighbours_000000002.png') as picture:
    wide, high = picture.size
  assert wide / high == (6 * 9 - 1) / (4 * 9 - 1)
  with pytest.raises(ArgumentError, match='`neighbours=4`: is for images'):
    evaluate(run, dataclasses.replace(ASKED, neighbours=4))


def test_parzen_without_held_out_images_is_refused(digit_run, tmp_path):
  def make(dataset='digits[:1500]', **changes):
    config = dataclasses.replace(
      small.digits(), dataset=dataset, workdir=str(tmp_path)
    )
    options = EvaluationOptions(devices=1, **changes)
    return run_evaluator.make_run_evaluator(config, options, None)

  with pytest.raises(ArgumentError, match='ask for it alone'):
    make(metrics='parzen,swd')
  with pytest.raises(ArgumentError, match='`validation=`.*50000'):
    make('ring', metrics='parzen')
  with pytest.raises(ArgumentError, match='names a split.*name a set'):
    make('digits[train][:1000]', metrics='parzen')


def test_a_set_is_no_path_whatever_it_looks_like(monkeypatch, tmp_path):
  (tmp_path / 'a' / 'b').mkdir(parents=True)
  monkeypatch.chdir(tmp_path)

  def load(name, **options):
    return data.SampleSet(
      name, (8, 8, 1), np.zeros((3, 8, 8, 1), np.uint8), 'mark'
    )

  monkeypatch.setattr(data, 'load', load)
  config = dataclasses.replace(small.digits(), dataset='a/b')
  options = EvaluationOptions(metrics='ms_ssim', devices=1)
  evaluator = run_evaluator.make_run_evaluator(config, options, None)
  assert evaluator.dataset.name == 'a/b'


def test_data_that_was_given_from_python_must_be_given_again(digits):
  config = dataclasses.replace(small.digits(), dataset='python:data')
  options = EvaluationOptions(metrics='ms_ssim', samples=20, devices=1)
  with pytest.raises(ArgumentError, match='`against=`: this run was given'):
    run_evaluator.make_run_evaluator(config, options, None)
  evaluator = run_evaluator.make_run_evaluator(
    config, options, None, dataset=digits
  )
  assert evaluator.dataset is digits


def test_the_generator_that_was_exported_scores_the_same(run):
  (row,) = evaluate(run)
  opened = restore.open_run(run)
  exported = restore.export_generator(opened.networks)
  (run / restore.GENERATOR).write_bytes(exported)
  workdir.RunFile(run).update(
    references={'networks': restore.GENERATOR}, generator={'classes': 0}
  )
  (other,) = evaluate(run)
  assert other['by_evaluation_seed']['fid'] == pytest.approx(
    row['by_evaluation_seed']['fid'], rel=1e-4
  )


class Followed:
  """A run as a follower sees it: what it says at each look, by a script."""

  def __init__(self, monkeypatch, looks, outcome='done'):
    self.looks, self.outcome, self.opened, self.now = looks, outcome, [], 0.0
    monkeypatch.setattr(restore, 'outcome', lambda _: self.says())
    monkeypatch.setattr(restore, 'saved_steps', lambda _: self.saved())
    monkeypatch.setattr(score_checkpoints, '_open', self.open)
    monkeypatch.setattr(score_checkpoints.time, 'monotonic', lambda: self.now)
    monkeypatch.setattr(score_checkpoints.time, 'sleep', self.sleep)

  def says(self):
    return 'running' if len(self.looks) > 1 else self.outcome

  def saved(self):
    return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

  def open(self, workdir, step, poll):
    self.opened.append(step)

  def sleep(self, seconds):
    self.now += seconds


@pytest.mark.parametrize('outcome', ['done', 'diverged'])
def test_the_last_checkpoint_is_scored_though_the_run_ends_meanwhile(
  outcome, monkeypatch
):
  """It is saved, and the run says that it is done, between two looks."""
  run = Followed(monkeypatch, [[4], [4], [4, 8]], outcome)
  score_checkpoints.follow('run', ASKED, 60.0)
  assert run.opened == [4, 8]


def test_a_follower_waits_from_the_last_checkpoint_on(monkeypatch):
  looks = [[4 * (i // 10)] for i in range(60)]  # one every twenty seconds
  run = Followed(monkeypatch, looks)
  score_checkpoints.follow('run', ASKED, 30.0)
  assert run.opened == [0, 4, 8, 12, 16, 20]
  run = Followed(monkeypatch, [[4]], 'running')
  with pytest.raises(Error, match='no new checkpoint in 30s'):
    score_checkpoints.follow('run', ASKED, 30.0)
  assert 30 < run.now < 40


def test_what_is_asked_for_comes_before_what_the_run_says(digits):
  config = dataclasses.replace(
    small.digits(metrics='fid', features='classifier'), dataset='digits'
  )
  options = EvaluationOptions(samples=20, devices=1)
  for name in ('fid', 'kid'):
    asked = dataclasses.replace(options, features='pixels', metrics=name)
    evaluator = run_evaluator.make_run_evaluator(
      config, asked, None, dataset=digits
    )
    assert evaluator.features.name == 'pixels'
    assert [m.name for m in evaluator.metrics] == [name]
