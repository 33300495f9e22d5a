"""Whole ablations: trained, scored, stopped, continued and known again."""

import json
import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.ablations import SoftHinge, plan, rows

import gan_jax as gj
from gan_jax.ablation import runner
from gan_jax.ablation.api import plan_components
from gan_jax.ablation.population_run import make_population_run
from gan_jax.config import app
from gan_jax.config.schema import Config
from gan_jax.training.train import prepare_process

# One program of two cells, one of which diverges.
VARY = {'lr_g+lr_d': [1e-3, 1e15]}
POINTS = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
OPTIONS = dict(
  steps=12,
  metrics=['swd_points'],
  width=8,
  depth=1,
  batch_size=8,
  log_every=4,
  checkpoint_every=6,
  eval_every=5,
  eval_samples=64,
  devices=2,
)


def ablate(path, **changes):
  options = dict(OPTIONS, objective=SoftHinge, data=POINTS) | changes
  return gj.ablate(path, vary=VARY, seeds=2, **options)


@pytest.fixture(scope='module')
def calm(programs, tmp_path_factory):
  """An ablation that nobody disturbed, scored at two steps before the last."""
  prepare_process(Config(compilation_cache=programs))
  path = tmp_path_factory.mktemp('whole') / 'a'
  return path, ablate(path)


def test_what_an_ablation_leaves(calm):
  path, table = calm
  done, wild = table.rows[:2], table.rows[2:]
  for row in done:
    assert (row['outcome'], row['step']) == ('done', 12)
    assert np.isfinite(row['swd_points'])
  assert done[0]['swd_points'] != done[1]['swd_points']
  for row in wild:
    assert row['outcome'] == 'diverged' and row['step'] < 12
    assert np.isnan(row['swd_points'])
  assert [r['rank'] for r in table.ranking] == [1, None]
  found = json.loads((path / 'plan.json').read_text())
  assert (found['primary'], found['better']) == ('swd_points', 'lower')
  assert found['protocol']['samples'] == 64 and found['protocol']['ema']
  with np.load(path / 'programs/000/stats.npz') as stats:
    assert stats['step'].tolist() == [4, 8, 12]
    assert stats['d/loss'].shape == stats['alive'].shape == (3, 4)
    assert stats['alive'].all(0).tolist() == [True, True, False, False]


def test_every_run_is_scored_at_every_step_that_was_asked_for(calm):
  path, _ = calm
  found = rows(path, 'scores.csv')
  assert [(r['cell'], r['seed'], r['step']) for r in found] == [
    ('0', seed, step) for seed in '01' for step in ('5', '10', '12')
  ]
  last = [row | {'outcome': 'done'} for row in found[2::3]]
  assert last == [row for row in rows(path) if row['outcome'] == 'done']


def test_stopped_and_continued_gives_the_same_results(calm, tmp_path):
  """By a signal between two checkpoints."""
  path, table = calm

  def stopped(*args):
    run = make_population_run(*args)
    after = run.after_dispatch

    def dispatched(seconds):
      after(seconds)
      if run.step > 6:
        os.kill(os.getpid(), signal.SIGTERM)

    run.after_dispatch = dispatched
    return run

  ours = tmp_path / 'a'
  given = OPTIONS | {'objective': SoftHinge, 'workdir': str(ours)}
  asked = plan_components(given, POINTS, None, VARY, seeds=2)
  assert runner.ablate(asked, make_run=stopped) == app.SAVED
  assert not (ours / 'results.csv').exists()
  assert str(ablate(ours)) == str(table)
  for name in ('results.csv', 'scores.csv'):
    assert (ours / name).read_bytes() == (path / name).read_bytes()


def test_an_ablation_is_known_by_its_steps(calm):
  class Colder(SoftHinge):
    def g_loss(self, real, fake):
      return -2 * jnp.mean(fake)

  Colder.__name__ = 'SoftHinge'  # the same by name, another by its step
  path, _ = calm
  with pytest.raises(gj.IdentityError, match='the step is another one'):
    ablate(path, objective=Colder)
  with pytest.raises(gj.IdentityError, match='data: .* there, .* now'):
    ablate(path, data=POINTS + 1)
  with pytest.raises(gj.IdentityError, match='seed: 0 there, 1 now'):
    ablate(path, seed=1)


@pytest.mark.slow
def test_an_interim_score_is_that_of_a_run_that_ends_there(tmp_path):
  """And the whole of it by names, as the command has it."""
  long, short = tmp_path / 'long', tmp_path / 'short'
  words = ('objective=minimax,hinge', 'lr_g+lr_d=1e-3,1e-2')
  asked = plan(long, *words, eval_every=5, report=True)
  assert runner.ablate(asked) == app.DONE
  assert runner.ablate(plan(short, *words, steps=5)) == app.DONE
  assert not (short / 'scores.csv').exists()
  assert len(rows(short)) == 8
  scored = {
    (r['label'], r['seed'], r['step']): r for r in rows(long, 'scores.csv')
  }
  for row in rows(short):
    other = scored[row['label'], row['seed'], '5']
    assert row['high_quality'] == other['high_quality'] != ''
    assert row['forward_kl'] == other['forward_kl']
  assert (long / 'programs/001/samples/member_0003.png').is_file()
  text = (long / 'report.html').read_text()
  assert '<h3>modes</h3>' in text and 'samples of hinge' in text
