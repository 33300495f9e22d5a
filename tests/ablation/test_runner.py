"""Whole ablations: results, crashes, kills and what is said of them."""

import dataclasses
import json
import re
import shutil
from unittest import mock

import numpy as np
import pytest
from helpers.ablations import GRID, TOY, rows
from helpers.ablations import request as asked

from gan_jax.ablation import folder, progress, results, runner, verdict
from gan_jax.ablation import plan as ablation_plan
from gan_jax.ablation.scorers import Judges
from gan_jax.config import app as doors
from gan_jax.config.schema import ConfigError
from gan_jax.runtime import checkpoint
from gan_jax.training import loop, population_loop

PLACE = {}


@pytest.fixture(scope='module', autouse=True)
def _programs_kept(tmp_path_factory):
  PLACE['xla'] = str(tmp_path_factory.mktemp('xla'))
  loop.setup(dataclasses.replace(TOY, compilation_cache=PLACE['xla']))


def request(path, *vary, **changes):
  return asked(path, *vary, compilation_cache=PLACE['xla'], **changes)


@pytest.fixture(scope='module')
def calm(tmp_path_factory):
  """An ablation that nobody disturbed: two programs of two cells."""
  path = tmp_path_factory.mktemp('calm') / 'a'
  assert runner.ablate(request(path, *GRID)) == doors.DONE
  return path


def reopened(calm, path, *programs):
  """A copy of it, in which programs are trained and not yet scored."""
  shutil.copytree(calm, path)
  (path / 'results.csv').unlink()
  for number in programs:
    (path / f'programs/{number:03d}/results.json').unlink()
  return path


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
  monkeypatch.setattr(population_loop.Cohort, '__init__', None)  # would raise
  assert runner.ablate(request(calm, *GRID)) == doors.DONE
  assert (calm / 'results.csv').read_bytes() == before


@pytest.mark.parametrize('text', ['{"runs": [', '[]', '{}'])
def test_damaged_results_are_made_again(text, calm, tmp_path):
  path = tmp_path / 'a'
  shutil.copytree(calm, path)
  damaged = path / 'programs/001/results.json'
  damaged.write_text(text)
  assert runner.ablate(request(path, *GRID)) == doors.DONE
  assert damaged.read_text() == (calm / 'programs/001/results.json').read_text()
  same = (calm / 'results.csv').read_bytes()
  assert (path / 'results.csv').read_bytes() == same


@pytest.mark.parametrize(
  'changes, line',
  [
    (dict(seeds=3), '--seeds: 2 there, 3 now'),
    (dict(beta1_g=0.1), '`beta1_g`: 0.5 there, 0.1 now'),
    (dict(steps=13), '`steps`: 12 there, 13 now'),
    (dict(eval_samples=65), '--eval_samples: 64 there, 65 now'),
    (dict(weights='other.npz'), '--weights:  there, other.npz now'),
    (
      dict(vary=GRID[:1]),
      f'--vary: {GRID[0]} {GRID[1]} there, {GRID[0]} now',
    ),
  ],
)
def test_another_plan_is_refused_with_the_difference(calm, changes, line):
  vary = changes.pop('vary', GRID)
  with pytest.raises(ConfigError, match=re.escape(line)):
    runner.ablate(request(calm, *vary, **changes))


def test_cadences_may_change(calm):
  assert runner.ablate(request(calm, *GRID, log_every=3)) == doors.DONE


def test_two_at_once_are_refused(calm):
  with folder.held(calm):
    with pytest.raises(ConfigError, match='another ablation is running there'):
      runner.ablate(request(calm, *GRID))
    with pytest.raises(ConfigError, match='another ablation is running there'):
      runner.ablate(request(calm, *GRID, only='1/2'))


def test_parts_of_a_cluster_make_the_same_results(calm, tmp_path):
  path = reopened(calm, tmp_path / 'a', 0, 1)
  assert runner.ablate(request(path, *GRID, only='2/2')) == doors.DONE
  assert not (path / 'results.csv').exists()
  with folder.held(path, shared=True):  # as by another task
    with folder.held(path / 'programs/001'):
      assert runner.ablate(request(path, *GRID, only='1/2')) == doors.DONE
      with pytest.raises(ConfigError, match='another ablation'):
        runner.ablate(request(path, *GRID, only='2/2'))
  plan = ablation_plan.make_plan(request(path, *GRID))
  assert runner.collected(plan) == doors.DONE
  assert (path / 'results.csv').read_bytes() == (
    calm / 'results.csv'
  ).read_bytes()


def test_stopped_and_resumed_gives_the_same_results(
  calm, tmp_path, monkeypatch
):
  """A signal in the first program, a kill in the second."""
  path = tmp_path / 'a'
  real = population_loop.Cohort.run

  def stopped(self, ear, *told):
    return real(self, ear, lambda *now: setattr(ear, 'heard', 'SIGTERM'))

  with monkeypatch.context() as patch:
    patch.setattr(population_loop.Cohort, 'run', stopped)
    assert runner.ablate(request(path, *GRID)) == doors.SAVED
  assert not (path / 'programs/000/results.json').exists()

  def killed(self, ear, *told):
    def now(step, took):
      if 'hinge' in self.config.objective and step > 6:
        raise KeyboardInterrupt

    return real(self, ear, now)

  with monkeypatch.context() as patch:
    patch.setattr(population_loop.Cohort, 'run', killed)
    with pytest.raises(KeyboardInterrupt):
      runner.ablate(request(path, *GRID))
  assert len(rows(path)) == 4  # what has ended can be looked at
  assert runner.ablate(request(path, *GRID)) == doors.DONE
  assert (path / 'results.csv').read_bytes() == (
    calm / 'results.csv'
  ).read_bytes()


def test_a_cell_that_diverges_leaves_the_others(tmp_path):
  path = tmp_path / 'a'
  wanted = request(path, 'objective=minimax', 'lr_g+lr_d=1e-3,1e15')
  assert runner.ablate(wanted) == doors.DONE
  outcomes = [row['outcome'] for row in rows(path)]
  assert outcomes == ['done'] * 2 + ['diverged'] * 2
  _, calm, wild, _ = rows(path)
  assert calm['modes'] != '' and wild['modes'] == ''
  assert int(wild['step']) < 12


def test_a_plan_is_told_with_its_time_and_nothing_is_written(tmp_path, capsys):
  wanted = request(tmp_path / 'a', *GRID)
  assert runner.ablate(wanted, dry_run=True) == doors.DONE
  told = capsys.readouterr().out
  assert '8 runs: 4 cells of 2 seeds, in 2 programs of 12 steps' in told
  assert 'objective: minimax, hinge' in told
  assert re.search(r'about \d+s for 2 programs left, scores not', told)
  assert not (tmp_path / 'a').exists()


@pytest.mark.parametrize('before, left', [(0, '4m07s'), (500, '3m00s')])
def test_time_left_is_of_the_steps_of_this_call(
  before, left, monkeypatch, capsys
):
  """Two programs of 1,000 steps of .1 s, which take a third more."""
  clock = iter([0.0, 20.0, 20.0])
  time = mock.Mock(monotonic=lambda: next(clock))
  monkeypatch.setattr(progress, 'time', time)
  plan = mock.Mock(ablation_plan.Plan, programs=[0, 1])
  overall = progress.Overall(plan, {0: 100.0, 1: 100.0})
  run = mock.Mock(population_loop.Cohort, step=before, members=2)
  run.config = dataclasses.replace(TOY, steps=1000)
  run.outcomes.return_value = []
  overall.begun(0, run)
  run.step += 150
  overall.moved(0, run)
  assert f', {left} left' in capsys.readouterr().err


def test_a_plan_that_crashes_writes_nothing_either(
  tmp_path, monkeypatch, capsys
):
  def crashing(*args):
    raise RuntimeError('out of memory')

  monkeypatch.setattr(population_loop.Cohort, '__init__', crashing)
  wanted = request(tmp_path / 'a', *GRID)
  assert runner.ablate(wanted, dry_run=True) == doors.ERROR
  told = capsys.readouterr()
  assert 'program 2 crashed: RuntimeError: out of memory' in told.err
  assert 'in 2 programs of 12 steps' in told.out
  assert not (tmp_path / 'a').exists()


def test_the_direction_is_that_of_the_primary_itself(calm):
  wanted = request(calm, *GRID, primary='reverse_kl')
  assert runner.ablate(wanted) == doors.DONE
  plan = json.loads((calm / 'plan.json').read_text())
  assert (plan['primary'], plan['better']) == ('reverse_kl', 'lower')
  assert runner.ablate(request(calm, *GRID)) == doors.DONE
  plan = json.loads((calm / 'plan.json').read_text())
  assert (plan['primary'], plan['better']) == ('modes', 'higher')


def test_published_values_may_come_later(calm, tmp_path):
  path, source = tmp_path / 'a', tmp_path / 'published.json'
  shutil.copytree(calm, path)
  source.write_text('{"source": "table 1", "rows": {"hinge": [1, null]}}')
  wanted = request(path, *GRID, published=str(source))
  for again in (wanted, request(path, *GRID)):  # and stay
    assert runner.ablate(again) == doors.DONE
    told = json.loads((path / 'plan.json').read_text())
    assert told['published'] == {
      'source': 'table 1',
      'rows': {'hinge': [1.0, None]},
    }


def test_columns_are_the_declared_ones_whatever_ended_first(calm, tmp_path):
  shutil.copytree(calm, tmp_path / 'a')
  path = tmp_path / 'a/programs/000/results.json'
  result = json.loads(path.read_text())
  for run in result['runs']:
    run |= {'scores': {'reverse_kl': float('nan')}}
  path.write_text(json.dumps(result))
  plan = ablation_plan.make_plan(request(tmp_path / 'a', *GRID))
  folder.collect(plan)
  assert list(rows(tmp_path / 'a')[0]) == list(rows(calm)[0])
  told = json.loads((tmp_path / 'a/plan.json').read_text())
  assert (
    told['metrics'] == json.loads((calm / 'plan.json').read_text())['metrics']
  )


# Scoring.


def test_a_member_that_cannot_be_scored_costs_no_other_one(
  calm, tmp_path, monkeypatch, capsys
):
  """Its faults are its own, whoever they are told to; the others are kept."""
  real, path = Judges.scores, reopened(calm, tmp_path / 'a', 0)
  faults = {0: RuntimeError('out of memory'), 3: ConfigError('--x: no sense')}
  seen = []

  def faulty(self, config, *generator):
    seen.append(config.seed)
    if (fault := faults.get(len(seen) - 1)) is not None:
      raise fault
    return real(self, config, *generator)

  monkeypatch.setattr(Judges, 'scores', faulty)
  assert runner.ablate(request(path, *GRID)) == doors.ERROR
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
  real, seen = Judges.scores, []
  path = reopened(calm, tmp_path / 'a', 0)

  def killed(self, config, *generator):
    if len(seen) == 3:
      raise KeyboardInterrupt
    seen.append(config)
    return real(self, config, *generator)

  with monkeypatch.context() as patch:
    patch.setattr(Judges, 'scores', killed)
    with pytest.raises(KeyboardInterrupt):
      runner.ablate(request(path, *GRID))

  def counted(self, config, *generator):
    seen.append(config)
    return real(self, config, *generator)

  monkeypatch.setattr(Judges, 'scores', counted)
  assert runner.ablate(request(path, *GRID)) == doors.DONE
  assert len(seen) == 4
  assert (path / 'results.csv').read_bytes() == (
    calm / 'results.csv'
  ).read_bytes()
  assert not list(path.glob('programs/*/scores.json'))


@pytest.mark.parametrize('where', ['__init__', 'run'])
@pytest.mark.parametrize(
  'error, told',
  [
    (ConfigError('--minimax: not today'), '--minimax: not today'),
    (RuntimeError('out of memory'), 'RuntimeError: out of memory'),
  ],
)
def test_a_program_that_crashes_leaves_the_others_and_is_tried_again(
  where, error, told, calm, tmp_path, monkeypatch, capsys
):
  """When it is made or when it runs; a message to the user is a crash too."""

  def crashing(*args):
    raise error

  path = reopened(calm, tmp_path / 'a', 0)
  with monkeypatch.context() as patch:
    patch.setattr(population_loop.Cohort, where, crashing)
    assert runner.ablate(request(path, *GRID)) == doors.ERROR
  assert [row['outcome'] for row in rows(path)] == ['failed'] * 4 + ['done'] * 4
  assert rows(path)[0]['step'] == '' and rows(path)[4:] == rows(calm)[4:]
  said = capsys.readouterr()
  assert f'lr_g+lr_d=0.01): {told}\nThe traceback is in' in said.err
  assert 'Failed before the end: 4 of 8 runs' in said.out
  assert 'crashing' in (path / 'programs/000/crash.txt').read_text()
  assert runner.ablate(request(path, *GRID)) == doors.DONE
  assert rows(path) == rows(calm)
  assert not (path / 'programs/000/crash.txt').exists()


def test_a_full_disk_is_of_all_programs(calm, tmp_path, monkeypatch):
  def full(*args):
    raise checkpoint.NotSaved('could not write')

  monkeypatch.setattr(population_loop.Cohort, 'run', full)
  path = reopened(calm, tmp_path / 'a', 0, 1)
  with pytest.raises(checkpoint.NotSaved):
    runner.ablate(request(path, *GRID))
  assert not (path / 'programs/000/results.json').exists()


def test_the_last_words_are_the_verdict_of_the_report(calm, tmp_path, capsys):
  """On a finished folder too, with a report or without."""
  path = tmp_path / 'a'
  shutil.copytree(calm, path)
  assert runner.ablate(request(path, *GRID, report=True)) == doors.DONE
  told = capsys.readouterr().out
  read = results.read(path)
  assert told.endswith(
    f'\n{verdict.spoken(read)}\n\nreport: {path}/report.html\n'
    f'results: {path}/results.csv\n'
  )
  head, rest = verdict.verdict(read)
  assert f'<strong>{head}</strong>' in (path / 'report.html').read_text()
  assert (
    f'{head}{rest}'.split()
    == told.split('\n\n')[2].split()[: len(f'{head}{rest}'.split())]
  )
  assert runner.ablate(request(path, *GRID)) == doors.DONE
  assert verdict.spoken(read) in capsys.readouterr().out
