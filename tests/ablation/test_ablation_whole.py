"""Whole ablations: trained, scored, stopped and continued."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
from helpers.ablations import TOY, plan, rows

from gan_jax.ablation import runner
from gan_jax.ablation.population_run import make_population_run
from gan_jax.config import app
from gan_jax.training.train import prepare_process

# One program of two cells, one of which diverges.
GRID = 'lr_g+lr_d=1e-3,1e15'


@pytest.fixture(scope='module')
def calm(programs, tmp_path_factory):
  """An ablation that nobody disturbed, scored at two steps before the last."""
  prepare_process(dataclasses.replace(TOY, compilation_cache=programs))
  path = tmp_path_factory.mktemp('whole') / 'a'
  asked = plan(path, GRID, eval_every=5)
  assert runner.ablate(asked) == app.DONE
  return path


def test_what_an_ablation_leaves(calm):
  table = rows(calm)
  assert [r['outcome'] for r in table] == ['done'] * 2 + ['diverged'] * 2
  for row in table:
    if row['outcome'] == 'done':
      assert row['step'] == '12' and 0 <= float(row['high_quality']) <= 1
    else:
      assert int(row['step']) < 12 and row['modes'] == ''
  found = json.loads((calm / 'plan.json').read_text())
  assert (found['primary'], found['better']) == ('modes', 'higher')
  assert found['metrics'][:2] == ['modes', 'high_quality']
  assert found['protocol']['samples'] == 64 and found['protocol']['ema']
  with np.load(calm / 'programs/000/stats.npz') as stats:
    assert stats['step'].tolist() == [4, 8, 12]
    assert stats['d/loss'].shape == stats['alive'].shape == (3, 4)
    assert stats['alive'].all(0).tolist() == [True, True, False, False]
  assert (calm / 'programs/000/samples/member_0003.png').is_file()


def test_every_run_is_scored_at_every_step_that_was_asked_for(calm):
  found = rows(calm, 'scores.csv')
  assert [(r['cell'], r['seed'], r['step']) for r in found] == [
    ('0', seed, step) for seed in '01' for step in ('5', '10', '12')
  ]
  last = [row | {'outcome': 'done'} for row in found[2::3]]
  assert last == [row for row in rows(calm) if row['outcome'] == 'done']


def test_stopped_and_continued_gives_the_same_results(calm, tmp_path):
  """By a signal between two checkpoints."""
  path = tmp_path / 'a'
  asked = plan(path, GRID, eval_every=5)

  def stopped(*args):
    run = make_population_run(*args)
    after = run.after_dispatch

    def dispatched(seconds):
      after(seconds)
      if run.step > 6:
        os.kill(os.getpid(), signal.SIGTERM)

    run.after_dispatch = dispatched
    return run

  assert runner.ablate(asked, make_run=stopped) == app.SAVED
  assert not (path / 'results.csv').exists()
  assert runner.ablate(asked) == app.DONE
  for name in ('results.csv', 'scores.csv'):
    assert (path / name).read_bytes() == (calm / name).read_bytes()


@pytest.mark.slow
def test_an_interim_score_is_that_of_a_run_that_ends_there(calm, tmp_path):
  path = tmp_path / 'short'
  assert runner.ablate(plan(path, 'lr_g+lr_d=1e-3', steps=5)) == 0
  assert not (path / 'scores.csv').exists()
  scored = {
    (r['label'], r['seed'], r['step']): r for r in rows(calm, 'scores.csv')
  }
  for row in rows(path):
    other = scored[row['label'], row['seed'], '5']
    assert row['high_quality'] == other['high_quality'] != ''
    assert row['forward_kl'] == other['forward_kl']
