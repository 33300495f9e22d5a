"""Plans of ablations: what is refused, what ranks, how scores are called."""

import dataclasses
import re

import numpy as np
import pytest
from gan_jax.ablation.scorers import Judges
from helpers.ablations import request

from gan_jax import data
from gan_jax.ablation import plan, runner
from gan_jax.config.schema import ConfigError
from gan_jax.training import population_loop, setup


@pytest.mark.parametrize(
  'vary, changes, message',
  [
    (
      ('objective=minimax,hinge',),
      dict(label_smoothing=0.1),
      r'cell 1 .*hinge',
    ),
    (('regularizer=;r1@fake:1',), {}, 'cell 1 '),
    (('dataset=ring,no_such',), {}, 'no_such'),
    (('schedule=alternating,simultaneous', 'd_steps=1,2'), {}, 'cell 3 '),
    (('lr_g=1e-3',), dict(seeds=0), '--seeds=0: use 1 or more'),
    (('lr_g=1e-3',), dict(only='3/2'), '--only=3/2: write K/N'),
    (('lr_g=1e-3',), dict(multihost=True), '--multihost=true'),
    (('lr_g=1e-3',), dict(dynamics_every=5), '--dynamics_every=5: has no'),
    (('lr_g=1e-3',), dict(keep_best='modes'), '--keep_best=modes: has no'),
    (('lr_g=1e-3',), dict(metrics='fidd'), 'fidd: did you mean fid'),
    (
      ('lr_g=1e-3',),
      dict(features='pixel-3'),
      '--features=pixel-3: did you mean pixels',
    ),
    (('lr_g=1e-3',), dict(published='/no.json'), 'cannot be read'),
    (('lr_g=1e-3',), dict(metrics='ms_ssim'), '--metrics=ms_ssim'),
    (
      ('lr_g=1e-3',),
      dict(metrics='', dataset='digits'),
      '--metrics=: say what',
    ),
  ],
)
def test_a_plan_of_no_use_is_refused(vary, changes, message, tmp_path):
  with pytest.raises(ValueError, match=message) as caught:
    runner.ablate(request(tmp_path / 'a', *vary, **changes))
  assert caught.value.exit_code == 2
  assert not (tmp_path / 'a' / 'plan.json').exists()


@pytest.mark.parametrize(
  'told', ['[]', '{"rows": {}}', '{"source": "x", "rows": {"hinge": 3}}', 'x']
)
def test_published_values_that_are_none_are_refused(told, tmp_path):
  path = tmp_path / 'published.json'
  path.write_text(told)
  wanted = request(tmp_path / 'a', published=str(path))
  with pytest.raises(ConfigError, match='give a JSON file {"source"'):
    plan.make_plan(wanted)


def test_no_folder_is_refused():
  with pytest.raises(ConfigError, match='--workdir=: name the folder'):
    runner.ablate(request(''))


def test_the_folder_of_something_else_is_refused(tmp_path):
  (tmp_path / 'config.flags').touch()
  with pytest.raises(ConfigError, match='holds no ablation'):
    runner.ablate(request(tmp_path))


@pytest.mark.parametrize('text', ['[]', '{"base": ', '{}'])
def test_a_damaged_plan_is_named(text, tmp_path):
  (tmp_path / 'plan.json').write_text(text)
  with pytest.raises(ConfigError, match='plan.json cannot be read'):
    runner.ablate(request(tmp_path))


@pytest.mark.parametrize(
  'metrics, primary, better, message',
  [
    ('modes', 'nonsense', '', '--primary=nonsense: is none of the scores'),
    ('modes', 'high_qualit', 'lower', 'use one of modes, high_quality'),
    ('modes,c2st', 'c2st', '', '--primary=c2st: neither low nor high'),
    ('c2st', '', '', '--better=lower or --better=higher'),
  ],
)
def test_what_cannot_rank_is_refused_before_anything_is_trained(
  metrics, primary, better, message, tmp_path, monkeypatch
):
  monkeypatch.setattr(population_loop.Cohort, '__init__', None)  # would raise
  wanted = request(
    tmp_path / 'a', primary=primary, better=better, metrics=metrics
  )
  for dry in (True, False):
    with pytest.raises(ConfigError, match=re.escape(message)):
      runner.ablate(wanted, dry_run=dry)
  assert not (tmp_path / 'a' / 'plan.json').exists()


def test_a_score_is_found_with_and_without_its_features():
  scores = {'swd': 'lower', 'swd_*': 'lower', 'fid@classifier-x': 'lower'}
  for given, found in (
    ('', 'swd'),
    ('fid', 'fid@classifier-x'),
    ('fid@classifier-x', 'fid@classifier-x'),
    ('swd_16', 'swd_16'),
  ):
    wanted = request('a', primary=given)
    assert plan.ranking(wanted, scores) == (found, 'lower')
  for given in ('fid@inception-768', 'fi', 'fid@'):
    with pytest.raises(ConfigError, match='is none of the scores'):
      plan.ranking(request('a', primary=given), scores)


def judged(path, *vary, seeds=1, **changes):
  wanted = request(path, *vary, seeds=seeds, **changes)
  return Judges(plan.make_plan(wanted))


def test_scores_bear_their_features_in_the_table_too(tmp_path):
  judges = judged(
    tmp_path, metrics='fid,swd', dataset='digits', features='pixels', width=16
  )
  declared = judges.declared()
  assert [n for n in declared if n.startswith('fid')] == [
    'fid@pixels',
    'fid_samples_per_dim@pixels',
  ]
  assert declared['swd'] == declared['fid@pixels'] == 'lower'
  config = judges._plan.programs[0][0].config
  g = setup.build(dataclasses.replace(config, devices=1)).init().g
  assert [*judges.scores(config, g.params, g.stats)['scores']] == [*declared]


def test_parzen_is_planned_as_it_is_evaluated(tmp_path, monkeypatch):
  real = data.load
  held = {'digits[test]': 'digits[1500:]'}  # digits have no test split
  monkeypatch.setattr(
    data, 'load', lambda name, **how: real(held.get(name, name), **how)
  )
  few = dict(metrics='parzen', dataset='digits[:1000]', width=16)
  judges = judged(tmp_path, **few)
  assert next(iter(judges.declared().items())) == ('parzen', 'higher')
  protocol = judges.protocol()
  assert protocol['reference'] in ('digits[test]', 'digits[1500:]')
  assert protocol['validation'].startswith('digits[1000:')
  config = judges._plan.programs[0][0].config
  g = setup.build(dataclasses.replace(config, devices=1)).init().g
  scores = judges.scores(config, g.params, g.stats)['scores']
  assert np.isfinite(scores['parzen']) and [*scores] == [*judges.declared()]
  with pytest.raises(ConfigError, match='--validation=: parzen'):
    judged(tmp_path, **few | {'dataset': 'digits'}).check()


def test_the_protocol_says_what_varies_between_cells(tmp_path):
  judges = judged(
    tmp_path, 'dataset=ring,grid', 'ema_halflife_kimg=0,0.1', 'lr_g=1e-3,1e-2'
  )
  protocol = judges.protocol()
  assert protocol['samples'] == 64
  assert protocol['ema'] == {
    'varies, ema_halflife_kimg=0.0': False,
    'varies, ema_halflife_kimg=0.1': True,
  }
  assert set(protocol['reference']) == {
    'varies, dataset=ring',
    'varies, dataset=grid',
  }
