"""Ablations: words to cells, programs to results, refusals, crashes, kills."""

import csv
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gan_jax import (
  ablation,
  ablation_plan,
  checkpoint,
  cohort,
  data,
  doors,
  loop,
  objectives,
  runs,
  variations,
)
from gan_jax.ablation_judges import Judges
from gan_jax.ablation_plan import Request
from gan_jax.config import Config, ConfigError
from gan_jax.variations import axis, cells

ROOT = pathlib.Path(__file__).parents[1]
TOY = Config(
  dataset='ring',
  network='mlp',
  width=8,
  depth=1,
  batch_size=8,
  steps=12,
  log_every=4,
  checkpoint_every=6,
  eval_samples=64,
  metrics='modes',
  devices=2,
  report=False,
)
PLACE = {}


@pytest.fixture(scope='module', autouse=True)
def _programs_kept(tmp_path_factory):
  PLACE['xla'] = str(tmp_path_factory.mktemp('xla'))
  loop.setup(dataclasses.replace(TOY, compilation_cache=PLACE['xla']))


def request(path, *vary, seeds=2, only='', **changes):
  base = dataclasses.replace(
    TOY, workdir=str(path), compilation_cache=PLACE['xla'], **changes
  )
  return Request(base, vary or ('lr_g=1e-3,1e-2',), seeds, only=only)


def rows(path):
  with open(pathlib.Path(path) / 'results.csv', newline='') as file:
    return list(csv.DictReader(file))


# Words.


@pytest.mark.parametrize(
  'word, values',
  [
    ('objective=minimax,hinge', [('minimax',), ('hinge',)]),
    ('lr_g+lr_d=1e-4,2e-4', [(1e-4, 1e-4), (2e-4, 2e-4)]),
    ('lr_g+lr_d=1e-4/4e-4,1e-3/1e-3', [(1e-4, 4e-4), (1e-3, 1e-3)]),
    ('regularizer=;r1:10,r2:10', [('',), ('r1:10,r2:10',)]),
    ('flip=true,false', [(True,), (False,)]),
    ('--d_steps=1,2', [(1,), (2,)]),
    (
      'objective+regularizer=minimax/;wasserstein/clip:0.01',
      [('minimax', ''), ('wasserstein', 'clip:0.01')],
    ),
  ],
)
def test_an_axis_from_its_word(word, values):
  found = axis(word)
  assert list(found.values) == values
  assert found.name == word.partition('=')[0].removeprefix('--')


@pytest.mark.parametrize(
  'word, message',
  [
    ('lrd=1', 'lrd: did you mean lr_d'),
    ('objective=minmax', '--objective=minmax: did you mean minimax'),
    ('lr_d=-1,2', '--lr_d=-1.0: use more than 0'),
    ('beta1_g=0.5,1', '--beta1_g=1.0: use less than 1'),
    ('lr_d=fast', "lr_d='fast' is not a number"),
    ('d_steps=1.5', "d_steps='1.5' is not a whole number"),
    ('flip=maybe', 'is not true or false'),
    ('lr_d', 'write --vary=FLAG=VALUE'),
    ('lr_d=', 'write --vary=FLAG=VALUE'),
    ('seed=1,2', '--seeds'),
    ('workdir=a,b', '--workdir says where'),
    ('lr_d=1e-4,1e-4', '0.0001 is there twice'),
    ('lr_d+lr_d=1,2', 'one flag is there twice'),
    ('lr_g+lr_d=1/2/3', 'give one value for all of lr_g+lr_d, or 2'),
    ('lr_d=loguniform(0,1,3)', 'write loguniform(low,high,count)'),
    ('lr_d=uniform(2,1,3)', 'write uniform(low,high,count)'),
    ('lr_d=uniform(-2,1,9)', 'use more than 0'),
    ('d_steps=uniform(1,4,2)', '--d_steps takes no fractions'),
    ('lr_g+lr_d=uniform(1,2,3)/1', 'all need a range'),
  ],
)
def test_a_word_of_no_use_is_refused(word, message):
  with pytest.raises(ConfigError, match=re.escape(message)):
    axis(word)


def test_a_flag_is_varied_once():
  with pytest.raises(ConfigError, match='--vary=lr_d: is varied twice'):
    variations.axes(['lr_d=1,2', 'lr_g+lr_d=1,2'])


def test_a_range_is_drawn_from_the_search_seed_alone():
  word = 'lr_d=loguniform(1e-5,1e-1,400)'
  drawn = np.array(axis(word, 3).values)[:, 0]
  assert drawn.tolist() == [v for (v,) in axis(word, 3).values]
  assert (drawn >= 1e-5).all() and (drawn <= 1e-1).all()
  assert abs((drawn < 1e-3).mean() - 0.5) < 0.1  # uniform in the logarithm
  assert drawn.tolist() != [v for (v,) in axis(word, 4).values]
  even = np.array(axis('beta1_d=uniform(0.2,0.8,400)', 3).values)[:, 0]
  assert abs(even.mean() - 0.5) < 0.03
  both = axis('lr_g+lr_d=loguniform(1e-5,1e-1,3)').values
  assert all(g == d for g, d in both)
  apart = axis('lr_g+lr_d=uniform(1,2,3)/uniform(1,2,3)').values
  assert all(g != d for g, d in apart)


def test_cells_are_the_cross_product():
  found = cells([axis('objective=minimax,hinge'), axis('lr_g+lr_d=1e-4,2e-4')])
  assert [c.label for c in found] == [
    'objective=minimax, lr_g+lr_d=0.0001',
    'objective=minimax, lr_g+lr_d=0.0002',
    'objective=hinge, lr_g+lr_d=0.0001',
    'objective=hinge, lr_g+lr_d=0.0002',
  ]
  assert found[2].values == {'objective': 'hinge', 'lr_g': 1e-4, 'lr_d': 1e-4}
  assert found[2].told == {'objective': 'hinge', 'lr_g+lr_d': 1e-4}
  apart = cells([axis('lr_g+lr_d=1e-4/1e-4,1e-4/2e-4')])
  assert apart[0].told == {'lr_g': 1e-4, 'lr_d': 1e-4}
  assert apart[0].label == 'lr_g=0.0001, lr_d=0.0001'
  assert [c.label for c in cells([])] == ['base']


def test_runs_are_grouped_by_what_is_compiled():
  words = [
    'objective=minimax,hinge',
    'regularizer=;r1:1;r1:9',
    'lr_g=1e-4,1e-3',
  ]
  grid = cells(variations.axes(words))
  runs = variations.members(TOY, grid, range(3))
  assert len(runs) == 2 * 3 * 2 * 3
  # Without a penalty, with one of any weight; of either objective.
  assert [len(p) for p in variations.programs(runs)] == [6, 12, 6, 12]


# Refusals.


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
    (('lr_g=1e-3',), dict(metrics='fidd'), 'fidd: did you mean fid'),
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
    ablation.ablate(request(tmp_path / 'a', *vary, **changes))
  assert caught.value.exit_code == 2
  assert not (tmp_path / 'a' / 'plan.json').exists()


def test_no_folder_is_refused():
  with pytest.raises(ConfigError, match='--workdir=: name the folder'):
    ablation.ablate(request(''))


def test_the_folder_of_something_else_is_refused(tmp_path):
  (tmp_path / 'config.flags').touch()
  with pytest.raises(ConfigError, match='holds no ablation'):
    ablation.ablate(request(tmp_path))


# Whole ablations.


@pytest.fixture(scope='module')
def calm(tmp_path_factory):
  """An ablation that nobody disturbed: two programs of two cells."""
  path = tmp_path_factory.mktemp('calm') / 'a'
  assert ablation.ablate(request(path, *GRID)) == doors.DONE
  return path


GRID = ('objective=minimax,hinge', 'lr_g+lr_d=1e-3,1e-2')


def test_what_an_ablation_leaves(calm):
  table = rows(calm)
  assert [(r['cell'], r['seed']) for r in table] == [
    (str(c), str(s)) for c in range(4) for s in range(2)
  ]
  first = table[2]
  assert first['label'] == 'objective=minimax, lr_g+lr_d=0.01'
  assert (first['objective'], first['lr_g+lr_d']) == ('minimax', '0.01')
  assert {r['outcome'] for r in table} == {'done'}
  assert {r['step'] for r in table} == {'12'}
  assert all(0 <= float(r['high_quality']) <= 1 for r in table)
  plan = json.loads((calm / 'plan.json').read_text())
  assert plan['primary'] == 'modes' and plan['better'] == 'higher'
  assert plan['metrics'][:2] == ['modes', 'high_quality']
  assert plan['seeds'] == [0, 1]
  assert plan['protocol']['samples'] == 64 and plan['protocol']['ema']
  assert [c['label'] for c in plan['cells']] == [r['label'] for r in table[::2]]
  members = json.loads((calm / 'programs/001/members.json').read_text())
  assert [(m['cell'], m['seed']) for m in members] == [
    (2, 0),
    (2, 1),
    (3, 0),
    (3, 1),
  ]
  with np.load(calm / 'programs/001/stats.npz') as stats:
    assert stats['step'].tolist() == [4, 8, 12]
    assert stats['d/loss'].shape == stats['alive'].shape == (3, 4)
  assert (calm / 'programs/001/samples/member_0003.png').is_file()


def test_what_is_finished_is_not_run_again(calm, monkeypatch):
  before = (calm / 'results.csv').read_bytes()
  (calm / 'results.csv').unlink()
  monkeypatch.setattr(cohort.Cohort, '__init__', None)  # would raise
  assert ablation.ablate(request(calm, *GRID)) == doors.DONE
  assert (calm / 'results.csv').read_bytes() == before


@pytest.mark.parametrize(
  'changes, line',
  [
    (dict(seeds=3), '--seeds: 2 there, 3 now'),
    (dict(beta1_g=0.1), '--beta1_g: 0.5 there, 0.1 now'),
    (dict(steps=13), '--steps: 12 there, 13 now'),
    (dict(eval_samples=65), '--eval_samples: 64 there, 65 now'),
    (dict(weights='other.npz'), '--weights:  there, other.npz now'),
    (dict(vary=GRID[:1]), '--vary: '),
  ],
)
def test_another_plan_is_refused_with_the_difference(calm, changes, line):
  vary = changes.pop('vary', GRID)
  with pytest.raises(ConfigError, match=re.escape(line)):
    ablation.ablate(request(calm, *vary, **changes))


def test_cadences_may_change(calm):
  assert ablation.ablate(request(calm, *GRID, log_every=3)) == doors.DONE


def test_two_at_once_are_refused(calm):
  with ablation_plan.held(calm):
    with pytest.raises(ConfigError, match='another ablation is running there'):
      ablation.ablate(request(calm, *GRID))
    with pytest.raises(ConfigError, match='another ablation is running there'):
      ablation.ablate(request(calm, *GRID, only='1/2'))


def test_parts_of_a_cluster_make_the_same_results(calm, tmp_path):
  path = tmp_path / 'a'
  assert ablation.ablate(request(path, *GRID, only='2/2')) == doors.DONE
  assert not (path / 'results.csv').exists()
  with ablation_plan.held(path, shared=True):  # as by another task
    with ablation_plan.held(path / 'programs/001'):
      assert ablation.ablate(request(path, *GRID, only='1/2')) == doors.DONE
      with pytest.raises(ConfigError, match='another ablation'):
        ablation.ablate(request(path, *GRID, only='2/2'))
  plan = ablation_plan.make_plan(request(path, *GRID))
  assert ablation.collected(plan) == doors.DONE
  assert (path / 'results.csv').read_bytes() == (
    calm / 'results.csv'
  ).read_bytes()


def test_stopped_and_resumed_gives_the_same_results(
  calm, tmp_path, monkeypatch
):
  """A signal in the first program, a kill in the second."""
  path = tmp_path / 'a'
  real = cohort.Cohort.run

  def stopped(self, ear, moved=None):
    return real(self, ear, lambda *now: setattr(ear, 'heard', 'SIGTERM'))

  with monkeypatch.context() as patch:
    patch.setattr(cohort.Cohort, 'run', stopped)
    assert ablation.ablate(request(path, *GRID)) == doors.SAVED
  assert not (path / 'programs/000/results.json').exists()

  def killed(self, ear, moved=None):
    def now(step, took):
      if 'hinge' in self.config.objective and step > 6:
        raise KeyboardInterrupt

    return real(self, ear, now)

  with monkeypatch.context() as patch:
    patch.setattr(cohort.Cohort, 'run', killed)
    with pytest.raises(KeyboardInterrupt):
      ablation.ablate(request(path, *GRID))
  assert len(rows(path)) == 4  # what has ended can be looked at
  assert ablation.ablate(request(path, *GRID)) == doors.DONE
  assert (path / 'results.csv').read_bytes() == (
    calm / 'results.csv'
  ).read_bytes()


def test_a_cell_that_crashes_and_one_that_diverges(tmp_path, monkeypatch):
  """Both are told of, the others finish, and what crashed is tried again."""

  def crashing(*args):
    raise RuntimeError('out of memory, say')

  broken = objectives.OBJECTIVES['hinge']._replace(d_loss=crashing)
  grid = ('objective=hinge,least_squares', 'lr_g+lr_d=1e-3,1e15')
  with monkeypatch.context() as patch:
    patch.setitem(objectives.OBJECTIVES, 'hinge', broken)
    assert ablation.ablate(request(tmp_path / 'a', *grid)) == doors.ERROR
  table = rows(tmp_path / 'a')
  assert [r['outcome'] for r in table] == ['failed'] * 4 + ['done'] * 2 + [
    'diverged'
  ] * 2
  assert table[0]['step'] == '' and int(table[-1]['step']) < 12
  assert table[-1]['modes'] == '' and table[4]['modes'] != ''
  result = json.loads((tmp_path / 'a/programs/000/results.json').read_text())
  assert result['message'] == 'RuntimeError: out of memory, say'
  assert 'crashing' in (tmp_path / 'a/programs/000/crash.txt').read_text()
  assert ablation.ablate(request(tmp_path / 'a', *grid)) == doors.DONE
  assert [r['outcome'] for r in rows(tmp_path / 'a')][:4] == [
    'done',
    'done',
    'diverged',
    'diverged',
  ]


def test_a_plan_is_told_with_its_time_and_nothing_is_written(tmp_path, capsys):
  wanted = request(tmp_path / 'a', *GRID)
  assert ablation.ablate(wanted, dry_run=True) == doors.DONE
  told = capsys.readouterr().out
  assert '8 runs: 4 cells of 2 seeds, in 2 programs of 12 steps' in told
  assert 'objective: minimax, hinge' in told
  assert re.search(r'about \d+s for the 2 programs left', told)
  assert not (tmp_path / 'a').exists()


# Names of scores.


def ranked(path, *vary, primary='', better='', **changes):
  wanted = request(path, *vary, **changes)
  return dataclasses.replace(wanted, primary=primary, better=better)


def test_the_direction_is_that_of_the_primary_itself(calm):
  wanted = ranked(calm, *GRID, primary='reverse_kl')
  assert ablation.ablate(wanted) == doors.DONE
  plan = json.loads((calm / 'plan.json').read_text())
  assert (plan['primary'], plan['better']) == ('reverse_kl', 'lower')
  assert ablation.ablate(request(calm, *GRID)) == doors.DONE
  plan = json.loads((calm / 'plan.json').read_text())
  assert (plan['primary'], plan['better']) == ('modes', 'higher')


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
  monkeypatch.setattr(cohort.Cohort, '__init__', None)  # would raise
  wanted = ranked(
    tmp_path / 'a', primary=primary, better=better, metrics=metrics
  )
  for dry in (True, False):
    with pytest.raises(ConfigError, match=re.escape(message)):
      ablation.ablate(wanted, dry_run=dry)
  assert not (tmp_path / 'a' / 'plan.json').exists()


def test_a_score_is_found_with_and_without_its_features():
  scores = {'swd': 'lower', 'swd_*': 'lower', 'fid@classifier-x': 'lower'}
  for given, found in (
    ('', 'swd'),
    ('fid', 'fid@classifier-x'),
    ('fid@classifier-x', 'fid@classifier-x'),
    ('swd_16', 'swd_16'),
  ):
    wanted = ranked('a', primary=given)
    assert ablation_plan.ranking(wanted, scores) == (found, 'lower')
  for given in ('fid@inception-768', 'fi', 'fid@'):
    with pytest.raises(ConfigError, match='is none of the scores'):
      ablation_plan.ranking(ranked('a', primary=given), scores)


def test_columns_are_the_declared_ones_whatever_ended_first(calm, tmp_path):
  shutil.copytree(calm, tmp_path / 'a')
  path = tmp_path / 'a/programs/000/results.json'
  result = json.loads(path.read_text())
  for run in result['runs']:
    run |= {'scores': {'reverse_kl': float('nan')}}
  path.write_text(json.dumps(result))
  plan = ablation_plan.make_plan(request(tmp_path / 'a', *GRID))
  ablation_plan.collect(plan)
  assert list(rows(tmp_path / 'a')[0]) == list(rows(calm)[0])
  told = json.loads((tmp_path / 'a/plan.json').read_text())
  assert (
    told['metrics'] == json.loads((calm / 'plan.json').read_text())['metrics']
  )


def judged(path, *vary, seeds=1, **changes):
  wanted = request(path, *vary, seeds=seeds, **changes)
  return Judges(ablation_plan.make_plan(wanted))


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
  g = runs.build(dataclasses.replace(config, devices=1)).init().g
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
  g = runs.build(dataclasses.replace(config, devices=1)).init().g
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


# Scoring.


def test_a_member_that_cannot_be_scored_costs_no_other_one(
  calm, tmp_path, monkeypatch, capsys
):
  """Its faults are its own, whoever they are told to; the others are kept."""
  real, path = Judges.scores, tmp_path / 'a'
  faults = {0: RuntimeError('out of memory'), 3: ConfigError('--x: no sense')}
  seen = []

  def faulty(self, config, *generator):
    seen.append(config.seed)
    if (fault := faults.get(len(seen) - 1)) is not None:
      raise fault
    return real(self, config, *generator)

  monkeypatch.setattr(Judges, 'scores', faulty)
  assert ablation.ablate(request(path, *GRID)) == doors.ERROR
  told, whole = rows(path), rows(calm)
  assert list(told[0]) == list(whole[0])
  for i, (row, other) in enumerate(zip(told, whole, strict=True)):
    if i in faults:
      assert row['outcome'] == 'done' and row['modes'] == 'nan'
    else:
      assert row == other
  said = capsys.readouterr().err
  assert 'lr_g+lr_d=0.001, seed 0 could not be scored: RuntimeError' in said
  assert '2 runs of program 1 could not be scored' in said
  result = json.loads((path / 'programs/000/results.json').read_text())
  assert result['runs'][3]['unscored'] == '--x: no sense'


def test_a_kill_while_scoring_costs_one_score(calm, tmp_path, monkeypatch):
  real, path, seen = Judges.scores, tmp_path / 'a', []

  def killed(self, config, *generator):
    if len(seen) == 3:
      raise KeyboardInterrupt
    seen.append(config)
    return real(self, config, *generator)

  with monkeypatch.context() as patch:
    patch.setattr(Judges, 'scores', killed)
    with pytest.raises(KeyboardInterrupt):
      ablation.ablate(request(path, *GRID))

  def counted(self, config, *generator):
    seen.append(config)
    return real(self, config, *generator)

  monkeypatch.setattr(Judges, 'scores', counted)
  assert ablation.ablate(request(path, *GRID)) == doors.DONE
  assert len(seen) == 8
  assert (path / 'results.csv').read_bytes() == (
    calm / 'results.csv'
  ).read_bytes()
  assert not list(path.glob('programs/*/scores.json'))


def test_a_program_that_is_refused_leaves_the_others(
  calm, tmp_path, monkeypatch
):
  """A message to the user is of that program too; a full disk is of all."""
  real = cohort.Cohort.run

  def refused(self, ear, moved=None):
    if self.config.objective == 'minimax':
      raise error
    return real(self, ear, moved)

  monkeypatch.setattr(cohort.Cohort, 'run', refused)
  error = ConfigError('--minimax: not today')
  assert ablation.ablate(request(tmp_path / 'a', *GRID)) == doors.ERROR
  outcomes = [row['outcome'] for row in rows(tmp_path / 'a')]
  assert outcomes == ['failed'] * 4 + ['done'] * 4
  assert rows(tmp_path / 'a')[4:] == rows(calm)[4:]
  error = checkpoint.NotSaved('could not write')
  with pytest.raises(checkpoint.NotSaved):
    ablation.ablate(request(tmp_path / 'a', *GRID))


# The command, killed.


def command(path, *words):
  return [
    sys.executable,
    '-m',
    'gan_jax.ablate',
    f'--workdir={path}',
    '--dataset=ring',
    '--network=mlp',
    '--width=16',
    '--batch_size=16',
    '--steps=1500',
    '--log_every=100',
    '--checkpoint_every=100',
    '--eval_samples=500',
    '--noreport',
    '--vary=objective=minimax,hinge',
    '--vary=lr_g+lr_d=1e-3,1e-2',
    '--seeds=3',
    f'--compilation_cache={PLACE["xla"]}',
    *words,
  ]


ENVIRONMENT = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}


def test_the_command_refuses_without_jax():
  for words, said in (
    (['--vary=lrd=1'], 'did you mean lr_d'),
    (['--seeds=0'], '--seeds=0: use 1 or more'),
    (['--layout=fast'], '--layout=fast: use auto, vmap or map'),
  ):
    done = subprocess.run(
      [sys.executable, '-X', 'importtime', *command('/nowhere/a', *words)[1:]],
      env=ENVIRONMENT,
      capture_output=True,
      text=True,
      cwd=ROOT,
    )
    assert done.returncode == 2, done.stderr[-500:]
    assert said in done.stderr
    assert ' jax\n' not in done.stderr


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
  """SIGKILL, six times over the whole of it; then the same table."""
  calm, harried = tmp_path / 'calm', tmp_path / 'harried'

  def run(path, **how):
    return subprocess.run(
      command(path), env=ENVIRONMENT, capture_output=True, cwd=ROOT, **how
    )

  run(tmp_path / 'warm')  # compiles
  started = time.monotonic()
  assert run(calm).returncode == doors.DONE
  takes = time.monotonic() - started
  rng, killed = random.Random(0), 0
  for i in range(6):
    process = subprocess.Popen(
      command(harried),
      env=ENVIRONMENT,
      cwd=ROOT,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    time.sleep(takes * (i + rng.random()) / 6)
    process.kill()
    killed += process.wait() == -signal.SIGKILL
  assert killed >= 3
  assert run(harried).returncode == doors.DONE
  assert (harried / 'results.csv').read_bytes() == (
    calm / 'results.csv'
  ).read_bytes()


@pytest.mark.slow
def test_a_signal_saves_and_says_run_me_again(tmp_path):
  words = command(tmp_path / 'a', '--steps=100000000')
  process = subprocess.Popen(
    words, env=ENVIRONMENT, cwd=ROOT, stderr=subprocess.PIPE, text=True
  )
  assert process.stderr is not None
  for line in process.stderr:
    if line.startswith('about '):
      break
  time.sleep(1)
  process.send_signal(signal.SIGTERM)
  _, said = process.communicate(timeout=60)
  assert process.returncode == doors.SAVED
  assert 'run the same command again' in said
  assert list((tmp_path / 'a/programs/000/checkpoints').glob('0*'))
