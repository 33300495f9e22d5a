"""Scores of a run while it trains, and the checkpoint that is best by them."""

import dataclasses
import json
import math
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import small
from helpers.saved_run import rows
from helpers.untyped import unchecked

import gan_jax as gj
from gan_jax.config import app
from gan_jax.config.schema import ConfigError
from gan_jax.evaluation.score_file import ScoreFile, find_best
from gan_jax.evaluation.scorer import EvaluationOptions, hash_protocol
from gan_jax.metrics import METRICS, Metric
from gan_jax.runtime import checkpoint, small_checkpoint
from gan_jax.runtime.errors import ArgumentError
from gan_jax.training import restore, score_checkpoints
from gan_jax.training.scoring import TrainingScorer
from gan_jax.training.train import train_config

# Orbax's reading threads outlive its event loop when a file is damaged.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)

TOY = small.ring(log_every=6, sample_every=12, checkpoint_every=5)
SCORED = dataclasses.replace(
  TOY, metrics='fid', eval_every=3, eval_samples=64, keep_checkpoints=9
)


@pytest.fixture(scope='module')
def at(programs):
  """The configuration of a run in a folder."""

  def at(path, config=SCORED, **changes):
    changes = {'compilation_cache': programs, **changes}
    return dataclasses.replace(config, workdir=str(path), **changes)

  return at


def final(path):
  run = restore.open_run(path)
  return run.step, checkpoint.digest(run.state)


@pytest.fixture(scope='module')
def scored(tmp_path_factory, at):
  path = tmp_path_factory.mktemp('scored') / 'run'
  assert train_config(at(path, report=True)) == app.DONE
  return path


class Scripted:
  """The metric `fid`, with values by a script in the place of real ones.

  A value that is an exception is raised, and a function is called first.
  """

  def __init__(self, monkeypatch, values):
    self.values, self.calls = [*values], 0
    metric = METRICS['fid']._replace(compute=self)
    monkeypatch.setitem(METRICS, 'fid', metric)

  def __call__(self, real, fake, *, seed):
    value = self.values[self.calls]
    self.calls += 1
    if isinstance(value, BaseException):
      raise value
    if callable(value):
      value = value()
    return {'fid': value, 'fid_samples_per_dim': 1.0}


def test_scores_change_nothing_but_their_file(scored, at, tmp_path):
  plain = tmp_path / 'plain'
  assert train_config(at(plain, TOY)) == app.DONE
  assert final(scored) == final(plain)
  assert [row['step'] for row in rows(scored)] == [3, 6, 9, 12]
  # The command finds what the trainer scored.
  options = EvaluationOptions(samples=64, devices=1)
  (row,) = score_checkpoints.evaluate_run(str(scored), options)
  assert row == rows(scored)[-1] and len(rows(scored)) == 4
  page = (scored / 'report.html').read_text()
  assert 'id="scores"' in page and '<h3>fid</h3>' in page
  events = b''.join(p.read_bytes() for p in (scored / 'tensorboard').iterdir())
  assert events.count(b'\x0a\x03fid') == 4
  # A run that was done is scored when that is asked for, in its final state.
  changes = {'metrics': 'fid', 'eval_samples': 64}
  assert train_config(at(plain, TOY, **changes)) == app.DONE
  assert [row['step'] for row in rows(plain)] == [12]
  assert rows(plain)[0]['model'] == row['model']
  # Once: run again it adds nothing to what TensorBoard shows.
  files = {p: p.read_bytes() for p in (plain / 'tensorboard').iterdir()}
  assert train_config(at(plain, TOY, **changes)) == app.DONE
  again = {p: p.read_bytes() for p in (plain / 'tensorboard').iterdir()}
  assert again == files and len(rows(plain)) == 1


class Killed(BaseException):
  """As a kill ends a process: nothing hears of it."""


@pytest.mark.parametrize(
  'every, call, saved',
  [(5, 3, [5]), pytest.param(6, 2, [6], marks=pytest.mark.slow)],
)
def test_killed_and_resumed_loses_and_doubles_no_row(
  every, call, saved, scored, at, tmp_path, monkeypatch
):
  """Killed while it is scored: between checkpoints, and at one just saved."""
  config = at(tmp_path / 'run', checkpoint_every=every)
  fid, calls = METRICS['fid'], []

  def compute(real, fake, *, seed):
    calls.append(seed)
    if len(calls) == call:
      raise Killed
    return fid.compute(real, fake, seed=seed)

  with monkeypatch.context() as patch:
    patch.setitem(METRICS, 'fid', fid._replace(compute=compute))
    with pytest.raises(Killed):
      train_config(config)
  done = [3, 6, 9, 12][: call - 1]
  assert [row['step'] for row in rows(config.workdir)] == done
  assert restore.saved_steps(config.workdir) == saved
  assert train_config(config) == app.DONE
  assert [row['step'] for row in rows(config.workdir)] == [3, 6, 9, 12]
  for a, b in zip(rows(scored), rows(config.workdir)):
    assert a['by_evaluation_seed'] == b['by_evaluation_seed']
    assert a['model'] == b['model']
  assert final(config.workdir) == final(scored)


NAN = math.nan


@pytest.mark.parametrize(
  'values, better, kept',
  [
    ([5.0, 1.0, NAN, NAN], 'lower', [2, 4]),
    ([NAN, NAN, NAN, NAN], 'lower', [4]),
    ([float('-inf'), 2.0, None, 4.0], 'lower', [2, 4]),
    ([1.0, 2.0, 3.0, float('inf')], 'higher', [3, 4]),
    ([4.0, 3.0, 2.0, 1.0], 'lower', [4]),
  ],
)
@pytest.mark.parametrize('most', [0, small_checkpoint.MOST_BYTES])
def test_the_best_checkpoint_stays(
  most, values, better, kept, tmp_path, monkeypatch
):
  monkeypatch.setattr(small_checkpoint, 'MOST_BYTES', most)
  table = []

  def best(steps):
    row = find_best([r for r in table if r['step'] in steps], 'fid', better)
    return None if row is None else row['step']

  checkpoints = checkpoint.Checkpoints(tmp_path, 1, best=best)
  for i, value in enumerate(values):
    table.append({'step': i + 1, 'fid': value, 'primary': {}})
    checkpoints.save(i + 1, {'x': np.zeros(2)}, {})
    checkpoints.wait()
  assert checkpoints.steps() == kept
  checkpoints.close()


def test_the_best_of_a_run_is_kept_and_reported(
  scored, at, tmp_path, monkeypatch, capsys
):
  """Not that of an earlier run in the folder, nor a draw without a score.

  The earlier run's rows are of the same protocol, and of steps yet to come.
  """
  key, bests = rows(scored)[0]['key'], []
  table = ScoreFile(tmp_path / 'run' / 'metrics.jsonl')

  def write_old():
    old = {'primary': {'fid': 'fid'}, 'model': 'old', 'fid': -9.0, 'key': key}
    for step in (3, 6, 9, 12):
      table.add({**old, 'step': step})
    return 4.0

  def note_best():
    facts = json.loads((tmp_path / 'run' / 'run.json').read_text())
    bests.append(facts['best'])
    return 3.0

  collapsed = ValueError('fake has collapsed')
  Scripted(monkeypatch, [write_old, 2.0, note_best, collapsed])
  changes = {'keep_checkpoints': 1, 'checkpoint_every': 100}
  config = at(tmp_path / 'run', keep_best='fid', **changes)
  assert train_config(config) == app.DONE
  assert restore.saved_steps(config.workdir) == [6, 12]
  best = json.loads((tmp_path / 'run' / 'run.json').read_text())['best']
  assert best == {'step': 6, 'score': 'fid', 'value': 2.0}
  assert bests == [best]
  own = [row for row in table.rows() if row['model'] != 'old']
  assert [row['fid'] for row in own] == [4.0, 2.0, 3.0, None]
  assert own[-1]['unscored'] == {'fid': 'fake has collapsed'}
  err = capsys.readouterr().err
  assert 'warning: step 12: fid is not finite: fake has collapsed' in err


@pytest.mark.slow
def test_the_best_checkpoint_outlives_a_restart(at, tmp_path, monkeypatch):
  def stop():
    os.kill(os.getpid(), signal.SIGTERM)
    return NAN

  # What the signal ended is scored again after the restart.
  Scripted(monkeypatch, [1.0, stop, NAN, 3.0, 2.0])
  config = at(
    tmp_path, keep_best='fid', keep_checkpoints=1, checkpoint_every=100
  )
  assert train_config(config) == app.SAVED
  assert restore.saved_steps(tmp_path) == [3, 6]
  assert train_config(config) == app.DONE
  assert restore.saved_steps(tmp_path) == [3, 12]


def test_no_best_by_a_score_without_a_direction(at, tmp_path):
  changes = {'metrics': 'c2st', 'keep_best': 'c2st'}
  with pytest.raises(ArgumentError, match='keep_best=c2st.*use another'):
    train_config(at(tmp_path / 'run', **changes))


BAD_OPTIONS = {
  'unknown': ({'metrics': 'fidd'}, '`metrics=fidd`: fidd: did you mean fid'),
  'no metrics': (
    {'eval_every': 5, 'metrics': ''},
    '`eval_every=5`: has no effect',
  ),
  'best of none': ({'keep_best': 'kid'}, '`keep_best=kid`: is none of'),
}


@pytest.mark.parametrize('case', sorted(BAD_OPTIONS))
def test_options_of_no_use(case, at, tmp_path):
  changes, message = BAD_OPTIONS[case]
  with pytest.raises(ConfigError, match=message):
    at(tmp_path, **changes).validate()


def test_what_cannot_be_scored_is_said_before_training(at, tmp_path):
  config = at(tmp_path / 'run', metrics='ms_ssim')
  with pytest.raises(ArgumentError, match='ring has points'):
    train_config(config)
  assert not (tmp_path / 'run' / 'checkpoints').exists()


def test_a_metric_of_ones_own_scores_a_run_from_python(at, tmp_path, programs):
  """It is handed in, by itself and beside names; the best goes by it."""

  def spread(real, fake, *, seed):
    return {'spread': float(fake.std())}

  own = Metric('spread', spread, {'spread': 'higher'}, sees='points')
  run = gj.train(
    tmp_path / 'run',
    data='ring',
    steps=4,
    batch_size=8,
    width=8,
    depth=1,
    eval_every=2,
    eval_samples=16,
    metrics=[own, 'fid'],
    keep_best='spread',
    devices=1,
    compilation_cache=programs,
  )
  table = rows(run.workdir)
  assert [row['step'] for row in table] == [2, 4]
  assert table[0]['protocol']['metrics'] == {'spread': '1', 'fid': '1'}
  best = max(table, key=lambda row: row['spread'])['step']
  facts = json.loads((run.workdir / 'run.json').read_text())
  assert facts['best']['step'] == best
  scores = run.score([own], samples=16)
  assert scores == pytest.approx({'spread': table[-1]['spread']}, rel=1e-6)
  with pytest.raises(ArgumentError, match='python:spread'):
    score_checkpoints.evaluate_run(
      str(run.workdir), EvaluationOptions(samples=16, devices=1)
    )


class Known:
  """What is known of scores: rows of a file, whether this moment has one."""

  def __init__(self, path):
    self.evaluator = SimpleNamespace(metrics=[METRICS['fid']])
    self.file, self.scored, self.asked = ScoreFile(path), True, []

  def generator_protocol(self, ema):
    return {'samples': 64, 'ema': ema}

  def is_scored(self, step, params, stats, ema):
    self.asked.append((step, params, ema))
    return self.scored


def test_the_best_is_of_this_run_by_this_protocol(tmp_path):
  """Not of what an earlier run in the folder reached, nor of other samples."""
  known = Known(tmp_path / 'metrics.jsonl')
  key = hash_protocol(known.generator_protocol(True))
  for step, own, value in (
    (3, key, 3.0),
    (6, key, 2.0),
    (6, 'other', 0.1),
    (9, key, 1.0),
  ):
    row = {'step': step, 'key': own, 'model': '', 'primary': {'fid': 'fid'}}
    known.file.add({**row, 'fid': value})
  live, average = (SimpleNamespace(params=x, stats={}) for x in 'la')
  state = SimpleNamespace(g=live, ema=average)
  with unchecked():
    scorer = TrainingScorer(known, ema=True, keep_best='fid')
    assert scorer.best_of_all() is None  # before any
    assert scorer.resume(state, 6)
    assert scorer.best_of_all() == {'step': 6, 'score': 'fid', 'value': 2.0}
    assert scorer.best([3]) == 3 and scorer.best([9]) is None
    known.scored = False  # the row of step 6 is another state's
    assert not scorer.resume(state, 6)
    assert scorer.best([3, 6, 9]) == 3
    live_scorer = TrainingScorer(known, ema=False, keep_best='fid')
    live_scorer.resume(state, 6)
  assert known.asked == [(6, 'a', True), (6, 'a', True), (6, 'l', False)]
