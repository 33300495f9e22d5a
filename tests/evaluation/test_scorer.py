"""Scores of runs: after, while and beside them; never twice, never lost."""

import dataclasses
import json
import shutil
import threading
import time

import numpy as np
import PIL.Image
import pytest
from helpers.scored_run import (  # noqa: F401
  ASKED,
  TOY,
  at,
  evaluate,
  folders,
  rows,
  run_fixture,
  trained_fixture,
)

from gan_jax.config import app as doors
from gan_jax.config.schema import Config, ConfigError
from gan_jax.data import SampleSet
from gan_jax.evaluation import evaluator, scorer, sources
from gan_jax.evaluation import scores as scores_lib
from gan_jax.evaluation.evaluator import EvaluationError
from gan_jax.evaluation.scorer import Request
from gan_jax.evaluation.scores import Scores
from gan_jax.training import loop, setup

# Orbax's reading threads outlive its event loop when a file is damaged.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


def test_a_row_has_scores_and_the_whole_protocol(run):
  (row,) = evaluate(run, dataclasses.replace(ASKED, eval_seeds=3))
  assert rows(run) == [row]
  assert row['step'] == 12
  by_seed = row['by_evaluation_seed']['fid']
  assert len(by_seed) == 3 and len(set(by_seed)) == 3
  assert row['fid'] == pytest.approx(np.mean(by_seed))
  assert row['fid/evaluation_std'] == pytest.approx(np.std(by_seed, ddof=1))
  told = row['protocol']
  assert told['evaluation_seeds'] == [0, 1, 2] and told['ema'] is True
  assert told['samples'] == told['real_samples'] == 64
  assert told['reference'] == 'ring' and told['reference_fingerprint']
  assert row['versions']['jax'] and row['devices']


def test_the_same_command_gives_the_same_digits(run, trained, tmp_path):
  other = shutil.copytree(trained, tmp_path / 'other')
  (one,), (two,) = evaluate(run), evaluate(other)
  assert one['by_evaluation_seed'] == two['by_evaluation_seed']
  assert one['key'] == two['key'] and one['model'] == two['model']


def test_nothing_is_scored_twice(run, monkeypatch, capsys):
  evaluate(run, every=True)
  steps = [row['step'] for row in rows(run)]
  assert steps == [4, 8, 12]
  content = (run / 'metrics.jsonl').read_bytes()

  def never(*args, **kwargs):
    raise AssertionError('scored again')

  with monkeypatch.context() as patch:
    patch.setattr(evaluator.Evaluator, 'score', never)
    evaluate(run, every=True)
    evaluate(run, step=8)
  assert (run / 'metrics.jsonl').read_bytes() == content
  assert 'scored before' in capsys.readouterr().out
  # Another protocol is another score: more samples, the live G, a seed.
  for change in ({'samples': 65}, {'ema': False}, {'seed': 1}):
    evaluate(run, dataclasses.replace(ASKED, **change))
  assert len(rows(run)) == 6 and len({r['key'] for r in rows(run)}) == 4


def test_a_cut_line_is_mended_and_its_score_taken_again(run):
  evaluate(run, step=4)
  evaluate(run, step=8)
  path = run / 'metrics.jsonl'
  path.write_bytes(path.read_bytes()[:-20])
  evaluate(run, step=8)
  assert [row['step'] for row in rows(run)] == [4, 8]


def test_two_writers_leave_one_row(tmp_path):
  row = {'step': 1, 'key': 'k', 'model': 'm', 'primary': {}, 'x': 1.0}
  threads = [
    threading.Thread(target=Scores(tmp_path / 'm.jsonl').add, args=(row,))
    for _ in range(8)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert Scores(tmp_path / 'm.jsonl').rows() == [row]


def test_what_is_not_finite_is_null_and_never_the_best():
  values = [3.0, float('nan'), None, 2.0, float('inf'), 2.0]
  found = [
    {'step': i, 'fid': x, 'primary': {'fid': 'fid'}}
    for i, x in enumerate(values)
  ]
  assert scores_lib.best(found, 'fid', 'lower')['step'] == 3
  assert scores_lib.best(found, 'fid', 'higher')['step'] == 0
  assert scores_lib.best(found[1:3], 'fid', 'lower') is None
  text = json.dumps(scores_lib.finite({'a': [1.0, float('nan')]}))
  assert text == '{"a": [1.0, null]}'


def test_a_step_that_is_not_there(run):
  with pytest.raises(ConfigError, match='--step=5.*there are: 4, 8, 12'):
    evaluate(run, step=5)


def test_a_deleted_and_a_damaged_checkpoint_are_skipped(
  run, monkeypatch, capsys
):
  original = setup.open_run

  def deleting(workdir, step=None):
    if step == 4:  # as the run does that writes there
      shutil.rmtree(run / 'checkpoints' / '000000004')
    return original(workdir, step)

  files = (run / 'checkpoints' / '000000008').rglob('*')
  largest = max(
    (p for p in files if p.is_file()), key=lambda p: p.stat().st_size
  )
  largest.write_bytes(b'\0' * largest.stat().st_size)
  monkeypatch.setattr(setup, 'open_run', deleting)
  evaluate(run, every=True)
  assert [row['step'] for row in rows(run)] == [12]
  said = capsys.readouterr().err
  assert 'checkpoint 4 was deleted meanwhile; skipped' in said
  assert 'warning: checkpoint 8: ' in said and said.count('skipped') == 2
  # Reading changed nothing: the damaged one is still where it was.
  assert setup.saved_steps(run) == [8, 12]


@pytest.mark.parametrize('times', [1, 2, 3])
def test_a_checkpoint_that_cannot_be_read_is_tried_again(
  times, run, monkeypatch, capsys
):
  monkeypatch.setattr(scorer, '_POLL', 0.01)
  original, calls = setup.open_run, []

  def failing(workdir, step=None):
    calls.append(step)
    if calls.count(8) <= times and step == 8:
      raise FileNotFoundError('gone for a moment')
    return original(workdir, step)

  monkeypatch.setattr(setup, 'open_run', failing)
  evaluate(run, every=True)
  skipped = times == 3
  assert [row['step'] for row in rows(run)] == (
    [4, 12] if skipped else [4, 8, 12]
  )
  assert ('gone for a moment; skipped' in capsys.readouterr().err) == skipped


def test_a_run_is_followed_to_its_end(trained, tmp_path, monkeypatch):
  """Checkpoints appear, one goes again, then the run says that it is done."""
  monkeypatch.setattr(scorer, '_POLL', 0.05)
  run = tmp_path / 'run'

  def trains():
    time.sleep(0.2)
    shutil.copytree(
      trained, run, ignore=shutil.ignore_patterns('0*', 'run.json')
    )
    for name in ('000000004', '000000008', '000000012'):
      time.sleep(0.3)
      part = tmp_path / name
      shutil.copytree(trained / 'checkpoints' / name, part)
      part.rename(run / 'checkpoints' / name)
    shutil.copy(trained / 'run.json', run / 'run.json')

  writer = threading.Thread(target=trains)
  writer.start()
  found = scorer.follow(str(run), ASKED, 60.0)
  writer.join()
  assert [row['step'] for row in found] == [4, 8, 12]
  assert rows(run) == found
  before = (run / 'metrics.jsonl').read_bytes()
  scorer.follow(str(run), ASKED, 60.0)  # returns at once
  assert (run / 'metrics.jsonl').read_bytes() == before


def test_a_follower_gives_up_in_time(run, monkeypatch):
  monkeypatch.setattr(scorer, '_POLL', 0.05)
  facts = json.loads((run / 'run.json').read_text())
  (run / 'run.json').write_text(json.dumps({**facts, 'outcome': 'running'}))
  with pytest.raises(doors.Failure, match='no new checkpoint.*follow_timeout'):
    scorer.follow(str(run), ASKED, 0.2)
  assert len(rows(run)) == 3


# Images and arrays


def save(path, x):
  path.mkdir()
  for i, image in enumerate(x):
    PIL.Image.fromarray(image.squeeze()).save(path / f'{i:03d}.png')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  root = tmp_path_factory.mktemp('pictures')
  x = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
  save(root / 'folder', x)
  np.savez(root / 'x.npz', samples=x)
  np.savez(root / 'two.npz', a=x, b=x)
  np.savez(root / 'floats.npz', samples=x / 255)
  np.savez(root / 'points.npz', samples=x.reshape(20, -1)[:, :2] / 255)
  save(root / 'same', x[[0] * 5])
  (root / 'empty').mkdir()
  for name, third in ('sizes', x[0, :7, :7]), ('kinds', x[:3, ..., 0].T):
    save(root / name, x[:2])
    PIL.Image.fromarray(third.squeeze()).save(root / name / 'c.png')
  (root / 'bad.npz').write_bytes(b'PK\3\4 nothing')
  return root


PIXELS = Request(metrics='fid', features='pixels', against='digits', devices=1)


def images(pictures, name, out, **changes):
  request = dataclasses.replace(PIXELS, **changes)
  where = str(pictures / name) if (pictures / name).exists() else name
  return scorer.evaluate_images(request, where, out)


def test_a_folder_and_an_array_are_the_same_images(pictures, tmp_path):
  out = tmp_path / 'metrics.jsonl'
  one = images(pictures, 'folder', out)
  two = images(pictures, 'x.npz', out)
  assert one['model'] == two['model']
  assert one['fid@pixels'] == two['fid@pixels'] > 0
  assert 'fid' not in one  # FID is of Inception's 2048 alone
  assert images(pictures, 'x.npz', out) == two
  found = Scores(out).rows()
  assert len(found) == 2 and found[0]['step'] is None
  # Against itself, as a folder and as an array.
  for name in ('x.npz', 'folder'):
    row = images(pictures, 'x.npz', out, against=str(pictures / name))
    assert row['fid@pixels'] == pytest.approx(0, abs=1e-6)


def test_a_part_of_a_set_against_the_rest(tmp_path):
  row = scorer.evaluate_images(
    dataclasses.replace(PIXELS, against='digits[900:]', samples=400),
    'digits[:900]',
    tmp_path / 'm.jsonl',
  )
  assert row['protocol']['reference'] == 'digits[900:]'
  assert 0 < row['fid@pixels'] < 5


BAD = {
  'too few': ('x.npz', {'samples': 21}, '--samples=21: .* has 20'),
  'no folder': ('no/where', {}, '--images=no/where: no such folder'),
  'no file': ('nowhere.npz', {}, '--images=nowhere.npz: no such file'),
  'no archive': ('bad.npz', {}, 'bad.npz: cannot be read'),
  'two arrays': ('two.npz', {}, 'has arrays a, b'),
  'floats': ('floats.npz', {}, 'floats.npz: .*give uint8'),
  'points': ('points.npz', {}, 'samples of shape'),
  'constant': ('same', {}, 'all 5 samples are the same'),
  'empty': ('empty', {}, '^--images=.*/empty: no image files there'),
  'sizes': (
    'sizes',
    {},
    '^--images=.*2 sizes, .*; resize and crop them to one',
  ),
  'kinds': (
    'kinds',
    {},
    '^--images=.*2 grey and 1 colour .*; convert them all',
  ),
  'no set': ('x.npz', {'against': 'digts'}, '^--against=digts: .*digits'),
  'no reference': ('x.npz', {'against': ''}, '--against=: name'),
  'a density': ('x.npz', {'against': 'ring'}, 'shape|density'),
  'no metrics': ('x.npz', {'metrics': ''}, '--metrics=: name some of'),
  'seeds': ('x.npz', {'eval_seeds': 0}, '--eval_seeds=0: use 1'),
}


@pytest.mark.parametrize('case', sorted(BAD))
def test_bad_images_are_refused(case, pictures, tmp_path):
  name, changes, said = BAD[case]
  with pytest.raises(ValueError, match=said) as caught:
    images(pictures, name, tmp_path / 'm.jsonl', **changes)
  assert caught.value.exit_code in (1, 2)
  assert not (tmp_path / 'm.jsonl').exists()


# The 2014 protocol

DIGITS = dataclasses.replace(TOY, dataset='digits[:1500]')


def test_parzen_by_the_protocol(tmp_path):
  from gan_jax import data, metrics
  from gan_jax.evaluation import references

  parts = setup.build(at(tmp_path, DIGITS, ema_halflife_kimg=0.0))
  assert parts.feed.size == 1500
  request = Request(
    metrics='parzen', against='digits[1600:]', samples=100, devices=1
  )
  judge = scorer.judge_of(parts.config, request, parts.networks)
  state = parts.init()
  row, _ = judge.generator(0, state.g.params, state.g.stats, False)
  told = row['protocol']
  assert told['validation'] == 'digits[1500:1797]'
  assert told['validation_samples'] == 297 and told['real_samples'] == 100
  assert told['reference'] == 'digits[1600:]' and told['ema'] is False
  seen, _ = judge.evaluator.draw(state.g.params, state.g.stats)
  wanted = metrics.parzen.parzen(
    seen['images'] / 255,
    data.load('digits[1500:1797]').array() / 255,
    references.pixels(data.load('digits[1600:]'), 100) / 255,
  )
  assert row['parzen'] == pytest.approx(wanted['parzen'], rel=1e-5)
  assert row['parzen_sigma'] == wanted['parzen_sigma']


def test_parzen_of_images_needs_its_validation_set(tmp_path):
  def ask(out, **how):
    request = Request(
      against='digits[1400:]', real_samples=50, samples=60, devices=1, **how
    )
    return scorer.evaluate_images(request, 'digits[:1000]', tmp_path / out)

  with pytest.raises(EvaluationError, match='--validation=: name the set'):
    ask('no', metrics='parzen')
  with pytest.raises(EvaluationError, match='only parzen reads it'):
    ask('no', metrics='swd', validation='digits[1000:1100]')
  row = ask('yes', metrics='parzen', validation='digits[1000:1100]')
  assert np.isfinite(row['parzen'])
  assert row['protocol']['validation'] == 'digits[1000:1100]'


def test_parzen_of_a_named_split_asks_for_its_validation_set():
  config = Config(dataset='digits[train][:1000]')
  with pytest.raises(EvaluationError, match='names a split.*name a set'):
    scorer._held_out(config, 1797)


def test_a_density_of_a_file_and_a_runs_own_dataset_are_no_folders(
  tmp_path, monkeypatch
):
  def load(name, **how):
    return SampleSet(name, (8, 8, 1), np.zeros((3, 8, 8, 1), np.uint8), 'mark')

  monkeypatch.setattr(sources.data, 'load', load)
  for name in ('density:some/points.npz', 'density:some/points.csv'):
    assert sources.source(name, 'against', '').name == name
  with pytest.raises(EvaluationError, match='--against=a/b: no such folder'):
    sources.source('a/b', 'against', '')
  (tmp_path / 'a' / 'b').mkdir(parents=True)
  monkeypatch.chdir(tmp_path)
  assert sources.source('a/b', 'against', '').name == 'folder:a/b'
  _, found, _ = scorer.of_run(Config(dataset='a/b'), Request(metrics='fid'))
  assert found.name == 'a/b'


def test_samples_are_shown_beside_what_is_nearest(run, tmp_path):
  config = at(tmp_path / 'digits', dataset='digits', steps=2)
  assert loop.train(config) == doors.DONE
  asked = Request(metrics='ms_ssim', samples=20, devices=1, neighbours=4)
  evaluate(tmp_path / 'digits', asked)
  path = tmp_path / 'digits' / 'neighbours_000000002.png'
  with PIL.Image.open(path) as picture:
    wide, high = picture.size
  assert wide / high == (6 * 9 - 1) / (4 * 9 - 1)
  with pytest.raises(EvaluationError, match='--neighbours=4: is for images'):
    evaluate(run, dataclasses.replace(ASKED, neighbours=4))


def test_a_distance_of_few_samples_is_told(tmp_path, capsys):
  request = Request(
    metrics='fid', features='pixels', against='digits', samples=60, devices=1
  )
  scorer.evaluate_images(request, 'digits[:100]', tmp_path / 'x')
  assert capsys.readouterr().err.count('64 dimensions from 60 samples') == 1
  more = dataclasses.replace(request, samples=70)
  scorer.evaluate_images(more, 'digits[:100]', tmp_path / 'x')
  assert 'dimensions' not in capsys.readouterr().err


def test_parzen_without_held_out_images_is_refused(run):
  with pytest.raises(EvaluationError, match='ask for it alone'):
    evaluate(run, Request(metrics='parzen,swd', devices=1))
  with pytest.raises(EvaluationError, match=r'--validation=.*50000'):
    evaluate(run, Request(metrics='parzen', devices=1))
