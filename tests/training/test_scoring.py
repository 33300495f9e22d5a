"""Scores of a run while it trains, and the checkpoint that is best by them."""

import dataclasses
import json
import os
import signal

import numpy as np
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
from gan_jax.config.schema import ConfigError
from gan_jax.evaluation import evaluator
from gan_jax.evaluation import scores as scores_lib
from gan_jax.evaluation.evaluator import EvaluationError
from gan_jax.evaluation.scorer import Request
from gan_jax.evaluation.scores import Scores
from gan_jax.runtime import checkpoint
from gan_jax.training import loop, setup

# Orbax's reading threads outlive its event loop when a file is damaged.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)

SCORED = dataclasses.replace(
  TOY, metrics='fid', eval_every=3, eval_samples=64, checkpoint_every=5
)


def final(path):
  run = setup.open_run(path)
  return run.step, checkpoint.digest(checkpoint.to_host(run.state))


@pytest.fixture(scope='module')
def scored(tmp_path_factory):
  path = tmp_path_factory.mktemp('scored') / 'run'
  assert loop.train(at(path, SCORED, report=True)) == doors.DONE
  return path


def test_scores_change_nothing_but_their_file(trained, scored):
  assert final(scored) == final(trained)
  assert [row['step'] for row in rows(scored)] == [3, 6, 9, 12]
  # The command finds what the trainer scored.
  (row,) = evaluate(scored, Request(samples=64, devices=1))
  assert row == rows(scored)[-1] and len(rows(scored)) == 4
  page = (scored / 'report.html').read_text()
  assert 'id="scores"' in page and '<h3>fid</h3>' in page
  events = b''.join(p.read_bytes() for p in (scored / 'tensorboard').iterdir())
  assert events.count(b'\x0a\x03fid') == 4


def test_the_final_state_is_scored_without_a_cadence(tmp_path):
  loop.train(at(tmp_path, SCORED, eval_every=0))
  assert [row['step'] for row in rows(tmp_path)] == [12]


def test_a_run_that_was_done_is_scored_when_asked_for(run):
  config = at(run, metrics='fid', eval_samples=64)
  assert loop.train(config) == doors.DONE
  assert [row['step'] for row in rows(run)] == [12]


def test_killed_and_resumed_loses_and_doubles_no_row(
  scored, tmp_path, monkeypatch
):
  whole, parted = scored, tmp_path / 'parted'
  original, calls = loop.Trainer.evaluate, []

  class Killed(Exception):
    pass

  def killed(trainer):
    original(trainer)
    calls.append(trainer.step)
    if len(calls) == 3:  # scored at 9, and the last checkpoint is of 5
      raise Killed

  with monkeypatch.context() as patch:
    patch.setattr(loop.Trainer, 'evaluate', killed)
    with pytest.raises(Killed):
      loop.train(at(parted, SCORED))
  assert [row['step'] for row in rows(parted)] == [3, 6, 9]
  assert setup.saved_steps(parted) == [5]
  assert loop.train(at(parted, SCORED)) == doors.DONE
  assert [row['step'] for row in rows(parted)] == [3, 6, 9, 12]
  for a, b in zip(rows(whole), rows(parted)):
    assert a['by_evaluation_seed'] == b['by_evaluation_seed']
    assert a['model'] == b['model']
  assert final(parted) == final(whole)


def test_killed_at_a_checkpoint_that_was_not_scored_yet(
  scored, tmp_path, monkeypatch
):
  """It is saved before it is scored; the restart from there scores it."""
  config = at(tmp_path, SCORED, checkpoint_every=6)
  original = loop.Trainer.evaluate

  def killed(trainer):
    if trainer.step == 6:
      raise KeyboardInterrupt
    original(trainer)

  with monkeypatch.context() as patch:
    patch.setattr(loop.Trainer, 'evaluate', killed)
    with pytest.raises(KeyboardInterrupt):
      loop.train(config)
  assert setup.saved_steps(tmp_path) == [6]
  assert loop.train(config) == doors.DONE
  assert [row['step'] for row in rows(tmp_path)] == [3, 6, 9, 12]
  assert rows(tmp_path)[1]['model'] == rows(scored)[1]['model']


def test_the_best_of_an_earlier_run_in_the_folder_is_not_the_best(
  tmp_path, monkeypatch
):
  Scripted(monkeypatch, [4.0, 3.0, 2.0, 1.0])
  config = at(tmp_path, SCORED, keep_best='fid', keep_checkpoints=1)
  first, original = [], loop.Trainer.evaluate
  old = {'primary': {'fid': 'fid'}, 'model': 'old', 'fid': -9.0}

  def evaluate(trainer):
    if not first:
      for step in (3, 6, 9, 12):
        row = {**old, 'key': trainer.examiner._key, 'step': step}
        trainer.examiner._judge.scores.add(row)
    first.append(trainer.step)
    original(trainer)
    best = json.loads((tmp_path / 'run.json').read_text())['best']
    assert best['step'] == trainer.step and best['value'] > 0

  monkeypatch.setattr(loop.Trainer, 'evaluate', evaluate)
  assert loop.train(config) == doors.DONE
  assert first == [3, 6, 9, 12]


def test_a_damaged_line_is_left_out_and_said_once(tmp_path, capsys):
  table = Scores(tmp_path / 'metrics.jsonl')
  row = {'step': 1, 'key': 'k', 'model': 'm', 'primary': {}}
  table.add(row)
  with open(table.path, 'ab') as file:
    file.write(b'{"step": 2, "key"\n\xff\n7\n{}\n')
  table.add({**row, 'step': 3})
  assert [found['step'] for found in table.rows()] == [1, 3]
  err = capsys.readouterr().err
  assert err.count(': damaged (') == 4 and 'line 2: damaged' in err


class Scripted:
  """Scores by step, in the place of real ones."""

  def __init__(self, monkeypatch, by_step):
    self.values = iter(by_step)
    monkeypatch.setattr(
      evaluator.Evaluator, 'score', lambda *a, **k: {'fid': next(self.values)}
    )


NAN = float('nan')


@pytest.mark.parametrize(
  'values, better, kept',
  [
    ([5.0, 1.0, 3.0, 4.0], 'lower', [2, 4]),
    ([5.0, 1.0, NAN, NAN], 'lower', [2, 4]),
    ([NAN, 2.0, 1.0, NAN], 'lower', [3, 4]),
    ([NAN, NAN, NAN, NAN], 'lower', [4]),
    ([float('-inf'), 2.0, None, 4.0], 'lower', [2, 4]),
    ([1.0, 2.0, 3.0, float('inf')], 'higher', [3, 4]),
    ([4.0, 3.0, 2.0, 1.0], 'lower', [4]),
  ],
)
def test_the_best_checkpoint_stays(values, better, kept, tmp_path):
  found = []

  def best(steps):
    there = [row for row in found if row['step'] in steps]
    row = scores_lib.best(there, 'fid', better)
    return None if row is None else row['step']

  checkpoints = checkpoint.Checkpoints(tmp_path, 1, best=best)
  for i, value in enumerate(values):
    found.append({'step': i + 1, 'fid': value, 'primary': {}})
    checkpoints.save(i + 1, {'x': np.zeros(2)}, {})
    checkpoints.wait()
  assert checkpoints.steps() == kept
  checkpoints.close()


def test_the_best_of_a_run_is_kept_and_told(tmp_path, monkeypatch):
  Scripted(monkeypatch, [NAN, 2.0, 3.0, NAN])
  config = at(
    tmp_path, SCORED, keep_best='fid', keep_checkpoints=1, checkpoint_every=100
  )
  assert loop.train(config) == doors.DONE
  assert setup.saved_steps(tmp_path) == [6, 12]
  told = json.loads((tmp_path / 'run.json').read_text())['best']
  assert told == {'step': 6, 'score': 'fid', 'value': 2.0}
  assert [row['fid'] for row in rows(tmp_path)] == [None, 2.0, 3.0, None]


@pytest.mark.slow
def test_the_best_checkpoint_outlives_a_restart(tmp_path, monkeypatch):
  Scripted(monkeypatch, [1.0, NAN, 3.0, 2.0])
  config = at(
    tmp_path, SCORED, keep_best='fid', keep_checkpoints=1, checkpoint_every=100
  )
  original = loop.Dispatch.__call__

  def stopping(dispatch, state, step, count):
    if step >= 6:
      os.kill(os.getpid(), signal.SIGTERM)
    return original(dispatch, state, step, count)

  with monkeypatch.context() as patch:
    patch.setattr(loop.Dispatch, '__call__', stopping)
    assert loop.train(config) == doors.SAVED
  assert 3 in setup.saved_steps(tmp_path)
  assert loop.train(config) == doors.DONE
  assert setup.saved_steps(tmp_path) == [3, 12]


def test_no_best_by_a_score_without_a_direction(tmp_path):
  how = {'dataset': 'digits', 'metrics': 'ms_ssim', 'keep_best': 'ms_ssim'}
  with pytest.raises(ConfigError, match='keep_best=ms_ssim.*use another'):
    loop.train(at(tmp_path / 'run', **how))


def test_a_draw_that_has_no_score_ends_neither_command_nor_training(
  tmp_path, monkeypatch, capsys
):
  original, calls = evaluator.METRICS['fid'].compute, []

  def compute(real, fake, *, seed=0):
    calls.append(seed)
    if len(calls) == 2:
      raise ValueError('fake has collapsed')
    return original(real, fake, seed=seed)

  broken = evaluator.KNOWN['fid']._replace(compute=compute)
  monkeypatch.setitem(evaluator.KNOWN, 'fid', broken)
  config = at(tmp_path / 'run', SCORED, eval_seeds=2)
  assert loop.train(config) == doors.DONE
  first, second, *_ = rows(tmp_path / 'run')
  assert first['fid'] is None and first['by_evaluation_seed']['fid'][1] is None
  assert first['unscored'] == {'fid': 'fake has collapsed'}
  assert second['fid'] is not None and 'unscored' not in second
  assert (
    'warning: step 3: fid is not finite: fake has' in capsys.readouterr().err
  )
  calls.clear()
  found = evaluate(
    tmp_path / 'run',
    dataclasses.replace(ASKED, samples=70, eval_seeds=2),
    every=True,
  )
  assert not found[0]['fid'] > 0 and found[1]['fid'] > 0


def test_the_rule_that_orbax_is_given():
  rule = checkpoint._Kept(2, lambda steps: min(steps))

  class Info:
    def __init__(self, step):
      self.step = step

  steps = [Info(n) for n in (1, 2, 3, 4)]
  assert rule.should_preserve(steps) == [True, False, True, True]


BAD_FLAGS = {
  'unknown': ({'metrics': 'fidd'}, '--metrics=fidd: fidd: did you mean fid'),
  'no metrics': ({'eval_every': 5}, '--eval_every=5: has no effect'),
  'best of none': (
    {'metrics': 'fid', 'keep_best': 'kid'},
    '--keep_best=kid: is none of',
  ),
}


@pytest.mark.parametrize('case', sorted(BAD_FLAGS))
def test_flags_of_no_use(case, tmp_path):
  changes, said = BAD_FLAGS[case]
  with pytest.raises(ConfigError, match=said):
    at(tmp_path, **changes).validate()


def test_what_cannot_be_scored_is_told_before_training(tmp_path):
  config = at(tmp_path / 'run', metrics='ms_ssim')
  with pytest.raises(EvaluationError, match='ring is a density'):
    loop.train(config)
  assert not (tmp_path / 'run' / 'checkpoints').exists()
