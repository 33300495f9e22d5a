"""Scores of an ablation: names, protocol, and the evaluators behind them."""

import jax
import numpy as np
import pytest
from helpers.ablations import plan

from gan_jax import data
from gan_jax.ablation.scoring import EvaluatorScorer
from gan_jax.runtime.errors import Error
from gan_jax.training.setup import data_spec


def scorer(path, *vary, **changes):
  return EvaluatorScorer(plan(path, *vary, seeds=1, **changes))


def score_new(scorer, cell=0):
  """Scores of a generator that has not been trained."""
  plan = scorer._plan
  spec = plan.specs[cell]
  networks = spec.networks(data_spec(plan.load_dataset(spec.config)))
  return scorer.score(cell, *networks.generator.init(jax.random.key(0)))


def test_scores_bear_their_features_in_the_table_too(tmp_path, digits):
  own = scorer(tmp_path, metrics='fid,swd', dataset='digits', features='pixels')
  declared = own.score_directions()
  assert [n for n in declared if n.startswith('fid')] == [
    'fid@pixels',
    'fid_samples_per_dim@pixels',
  ]
  assert declared['swd'] == declared['fid@pixels'] == 'lower'
  scores = score_new(own)['scores']
  known = [n for n in declared if not n.endswith('*')]
  assert set(known) <= set(scores)
  for name in scores.keys() - set(known):
    assert name.startswith('swd_') and 'swd_*' in declared


@pytest.mark.parametrize('axis', ['accumulate=1,7', 'packing=1,3'])
def test_a_batch_that_does_not_split_is_refused_before_a_cell_is_trained(
  tmp_path, axis
):
  name = axis.partition('=')[0]
  with pytest.raises(Error, match=f'cell 1 .*{name}'):
    scorer(tmp_path, axis, network='mlp').check_cells()


def test_several_draws_have_a_mean_and_a_spread(tmp_path):
  one, two = (
    scorer(tmp_path, metrics='swd_points', eval_seeds=n) for n in (1, 2)
  )
  single, several = score_new(one), score_new(two)
  assert single['evaluation_std'] == {}
  first = single['scores']['swd_points']
  mean = several['scores']['swd_points']
  std = several['evaluation_std']['swd_points']
  # Of two values, n - 1: half their difference, times the root of two.
  assert std == pytest.approx(abs(mean - first) * np.sqrt(2)) and std > 0
  assert one.protocol_hash(0) != two.protocol_hash(0)


def test_parzen_is_planned_as_it_is_evaluated(tmp_path, monkeypatch, digits):
  real = data.load
  held = {'digits[test]': 'digits[1500:]'}  # digits have no test split
  monkeypatch.setattr(
    data, 'load', lambda name, **how: real(held.get(name, name), **how)
  )
  few = dict(metrics='parzen', dataset='digits[:1000]')
  own = scorer(tmp_path, **few)
  assert next(iter(own.score_directions().items())) == ('parzen', 'higher')
  protocol = own.protocol()
  assert protocol['reference'] in ('digits[test]', 'digits[1500:]')
  assert protocol['validation'].startswith('digits[1000:')
  scores = score_new(own)['scores']
  assert np.isfinite(scores['parzen']) and [*scores] == [
    *own.score_directions()
  ]
  whole = scorer(tmp_path, **few | {'dataset': 'digits'})
  with pytest.raises(Error, match='cell 0 .*`validation=`: parzen'):
    whole.check_cells()


def test_the_protocol_says_what_varies_between_cells(tmp_path):
  own = scorer(
    tmp_path, 'dataset=ring,grid', 'ema_halflife_kimg=0,0.1', 'lr_g=1e-3,1e-2'
  )
  protocol = own.protocol()
  assert protocol['samples'] == 64
  assert protocol['ema'] == {
    'varies, ema_halflife_kimg=0.0': False,
    'varies, ema_halflife_kimg=0.1': True,
  }
  assert set(protocol['reference']) == {
    'varies, dataset=ring',
    'varies, dataset=grid',
  }
