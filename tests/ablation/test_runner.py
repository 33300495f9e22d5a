"""The engine of an ablation: results, crashes, kills and signals.

What trains is arithmetic here (`FakeRun`); whole ablations are in
test_ablation_whole.py.
"""

import itertools
import json
import os
import re
import shutil
import signal
from unittest import mock

import jax
import pytest
from helpers import pictures
from helpers.ablations import (
  GRID,
  FakeRun,
  FakeScorer,
  options,
  plan,
  rows,
  run_fake,
)

from gan_jax.ablation import folder, progress, runner
from gan_jax.ablation.api import read_table
from gan_jax.ablation.plan import make_plan
from gan_jax.ablation.results import read_results
from gan_jax.ablation.verdict import format_for_terminal, state_verdict
from gan_jax.config import app
from gan_jax.runtime import checkpoint, records
from gan_jax.runtime.errors import ArgumentError, Error, IdentityError


@pytest.fixture(scope='module')
def calm(tmp_path_factory):
  """An ablation that nobody disturbed: two programs of two cells."""
  path = tmp_path_factory.mktemp('calm') / 'a'
  assert run_fake(plan(path, *GRID)) == app.DONE
  return path


def test_what_is_in_a_folder_is_said_once(tmp_path, capsys):
  """Before anything is trained, as a run says it."""
  pictures.save(tmp_path / 'images' / 'cat' / 'a.png', pictures.RANDOM)
  pictures.save(tmp_path / 'images' / 'dog' / 'b.png', pictures.RANDOM)
  (tmp_path / 'images' / 'c.txt').touch()

  class Scorer(FakeScorer):
    def __init__(self, plan):
      super().__init__(plan)
      self.check_cells = lambda: [
        plan.load_dataset(c.config) for c in plan.specs
      ]

  name = f'folder:{tmp_path / "images"}'
  options = dict(dataset=name, network='dcgan', image_size=8, metrics='swd')
  own = plan(tmp_path / 'a', data_dir=str(tmp_path / 'root'), **options)
  assert run_fake(own, make_scorer=Scorer) == app.DONE
  said = capsys.readouterr().err
  lines = [
    f'data: {name}, 2 images of 8x8x3 in 2 classes',
    '  files: 2 .png; 2 RGB; 2 60x60',
    '  classes: 1 cat, 1 dog',
    '  left out: 1 .txt file',
  ]
  assert said.count('\n'.join(lines)) == 1
  assert said.index(lines[0]) < said.index('program 1/')


def no_run(*args):
  raise AssertionError('a program is run again')


def reopened(calm, path, *programs):
  """A copy of it, in which programs are trained and not yet scored."""
  shutil.copytree(calm, path)
  (path / 'results.csv').unlink()
  for number in programs:
    (path / f'programs/{number:03d}/results.json').unlink()
  return path


def same_results(a, b):
  return (a / 'results.csv').read_bytes() == (b / 'results.csv').read_bytes()


def test_what_an_ablation_leaves(calm):
  table = rows(calm)
  assert [(r['cell'], r['seed']) for r in table] == [
    (str(c), str(s)) for c in range(4) for s in range(2)
  ]
  first = table[2]
  assert first['label'] == 'objective=minimax, lr_g+lr_d=0.01'
  assert (first['objective'], first['lr_g+lr_d']) == ('minimax', '0.01')
  # Scores are those of the cell, seed and step that they stand beside.
  for row in table:
    total = float(row['lr_g+lr_d']) + int(row['cell']) + int(row['seed']) + 12
    assert float(row['modes']) == pytest.approx(total)
    assert (row['outcome'], row['step']) == ('done', '12')
  found = json.loads((calm / 'plan.json').read_text())
  assert (found['primary'], found['better']) == ('modes', 'higher')
  assert found['seeds'] == [0, 1]
  assert [c['label'] for c in found['cells']] == [
    r['label'] for r in table[::2]
  ]
  members = json.loads((calm / 'programs/001/members.json').read_text())
  assert [(m['cell'], m['seed']) for m in members] == [
    (2, 0),
    (2, 1),
    (3, 0),
    (3, 1),
  ]
  run = json.loads((calm / 'programs/001/run.json').read_text())
  assert (run['outcome'], run['members'], run['step']) == ('done', 4, 12)
  assert run['finished'] >= run['started']


def test_what_is_finished_is_not_run_again(calm):
  before = (calm / 'results.csv').read_bytes()
  (calm / 'results.csv').unlink()
  assert run_fake(plan(calm, *GRID), no_run) == app.DONE
  assert (calm / 'results.csv').read_bytes() == before


@pytest.mark.parametrize('text', ['{"runs": [', '[]', '{}'])
def test_damaged_results_are_made_again(text, calm, tmp_path):
  path = tmp_path / 'a'
  shutil.copytree(calm, path)
  damaged = path / 'programs/001/results.json'
  damaged.write_text(text)
  assert run_fake(plan(path, *GRID)) == app.DONE
  assert damaged.read_text() == (calm / 'programs/001/results.json').read_text()
  assert same_results(path, calm)


# What is damaged beside results that are whole.


def test_a_damaged_plan_is_written_again_from_its_copy(calm, tmp_path, capsys):
  for i, content in enumerate([b'', b'null', None, 'flip']):
    path = tmp_path / str(i)
    shutil.copytree(calm, path)
    file = path / 'plan.json'
    good = file.read_bytes()
    file.unlink()
    if content is not None:
      file.write_bytes(good.replace(b'lr_g', b'lr_h') if i == 3 else content)
    assert run_fake(plan(path, *GRID), no_run) == app.DONE
    said = capsys.readouterr().err
    assert said.count(f'{file} is damaged or gone, and written again') == 1
    assert records.parse(file.read_bytes()) == records.parse(good)
    assert same_results(path, calm)
    with pytest.raises(Error, match='seeds: 2 there, 3 now'):
      run_fake(plan(path, *GRID, seeds=3), no_run)


def test_a_plan_that_is_damaged_twice_is_named(calm, tmp_path):
  path = tmp_path / 'a'
  shutil.copytree(calm, path)
  for file in (path / 'plan.json', path / 'programs' / 'plan.json'):
    file.write_text(file.read_text()[:-9])
  with pytest.raises(ArgumentError, match='cannot be read.*nor a copy of it'):
    run_fake(plan(path, *GRID), no_run)


def test_facts_of_a_program_that_are_damaged_do_not_end_it(
  calm, tmp_path, capsys
):
  path = reopened(calm, tmp_path / 'a', 0, 1)
  program = path / 'programs' / '000'
  (program / 'run.json').write_text('null')
  (program / 'members.json').write_text('[{')
  (program / 'final_scores.json').write_text('7')
  assert run_fake(plan(path, *GRID)) == app.DONE
  said = capsys.readouterr().err
  assert f'{program / "run.json"} is damaged' in said
  assert f'{program / "final_scores.json"} is damaged' in said
  assert same_results(path, calm)
  for name in ('members.json', 'results.json'):
    there = calm / 'programs' / '000' / name
    assert (program / name).read_bytes() == there.read_bytes()


def test_members_of_a_finished_program_are_written_again(calm, tmp_path):
  path = tmp_path / 'a'
  shutil.copytree(calm, path)
  file = path / 'programs' / '001' / 'members.json'
  good = file.read_bytes()
  file.write_bytes(good[:-9])
  assert run_fake(plan(path, *GRID), no_run) == app.DONE
  assert file.read_bytes() == good


def test_a_score_that_was_changed_is_taken_again(calm, tmp_path):
  """A digit of it, so that the file reads as well as before."""
  path = tmp_path / 'a'
  shutil.copytree(calm, path)
  file = path / 'programs' / '001' / 'results.json'
  good = file.read_text()
  file.write_text(good.replace('"modes": 1', '"modes": 9'))
  assert file.read_text() != good
  assert run_fake(plan(path, *GRID)) == app.DONE
  assert file.read_text() == good and same_results(path, calm)


@pytest.mark.parametrize(
  'changes, line',
  [
    (dict(seeds=3), 'seeds: 2 there, 3 now'),
    (dict(beta1_g=0.1), 'beta1_g: 0.5 there, 0.1 now'),
    (dict(steps=13), 'steps: 12 there, 13 now'),
    (dict(eval_samples=65), 'eval_samples: 64 there, 65 now'),
    (dict(weights='other.npz'), 'weights:  there, other.npz now'),
    (dict(eval_seeds=2), 'eval_seeds: 1 there, 2 now'),
    (dict(features='pixels'), 'features:  there, pixels now'),
    (dict(metrics='modes,c2st'), 'metrics: modes there, modes,c2st now'),
    (dict(layout='map'), 'layout: auto there, map now'),
    (
      dict(vary=GRID[:1]),
      f'vary: {GRID[0]} {GRID[1]} there, {GRID[0]} now',
    ),
  ],
)
def test_another_plan_is_refused_with_the_difference(calm, changes, line):
  before = (calm / 'plan.json').read_bytes()
  vary = changes.pop('vary', GRID)
  with pytest.raises(Error, match=f'\n  {re.escape(line)}\n') as caught:
    run_fake(plan(calm, *vary, **changes), no_run)
  assert caught.value.exit_code == app.REFUSED
  assert (calm / 'plan.json').read_bytes() == before


def test_another_search_seed_is_refused_with_the_difference(tmp_path):
  words = ('lr_g=uniform(1e-4,1e-3,2)',)
  assert run_fake(plan(tmp_path / 'a', *words)) == app.DONE
  with pytest.raises(IdentityError, match='search_seed: 0 there, 1 now'):
    run_fake(plan(tmp_path / 'a', *words, search_seed=1), no_run)


def test_other_settings_of_jax_are_refused(calm):
  before = (calm / 'plan.json').read_bytes()
  with jax.default_matmul_precision('bfloat16'):
    with pytest.raises(IdentityError, match='None there, bfloat16 now') as e:
      run_fake(plan(calm, *GRID), no_run)
  assert 'settings of that ablation' in str(e.value)
  assert (calm / 'plan.json').read_bytes() == before


def test_cadences_may_change(calm):
  changed = dict(log_every=3, checkpoint_every=2, eval_every=4, devices=1)
  assert run_fake(plan(calm, *GRID, **changed), no_run) == app.DONE


def test_what_was_not_begun_cannot_be_collected(tmp_path):
  with pytest.raises(ArgumentError, match='there is no ablation to collect'):
    runner.collect(plan(tmp_path / 'a', *GRID))


def test_two_at_once_are_refused(calm):
  for only in ('', '1/2'):
    with folder.lock_folder(calm):
      with pytest.raises(ArgumentError, match='another ablation is running'):
        run_fake(plan(calm, *GRID, only=only))


def test_parts_of_a_cluster_make_the_same_results(calm, tmp_path, capsys):
  path = reopened(calm, tmp_path / 'a', 0, 1)
  assert run_fake(plan(path, *GRID, only='2/2')) == app.DONE
  assert not (path / 'results.csv').exists()
  assert not (path / 'programs/000/results.json').exists()
  with folder.lock_folder(path, shared=True):  # as by another task
    with folder.lock_folder(path / 'programs/001'):
      assert run_fake(plan(path, *GRID, only='1/2')) == app.DONE
      with pytest.raises(ArgumentError, match='another ablation'):
        run_fake(plan(path, *GRID, only='2/2'))
  capsys.readouterr()
  assert runner.collect(plan(path, *GRID)) == app.DONE
  assert '8 of 8 runs ended: 8 done' in capsys.readouterr().out
  assert same_results(path, calm)


def test_every_program_is_in_one_part():
  words = ('objective=minimax,hinge,wasserstein', 'd_steps=1,2')
  parts = [
    plan('a', *words, only=f'{k}/4').chosen_programs() for k in range(1, 5)
  ]
  assert parts == [[0, 4], [1, 5], [2], [3]]
  assert plan('a', *words).chosen_programs() == list(range(6))


def test_stopped_and_resumed_gives_the_same_results(calm, tmp_path, capsys):
  """A signal in the first program, a kill in the second."""
  path = tmp_path / 'a'

  class Stopped(FakeRun):
    def run(self, listener, moved, reached):
      def step_done(step, seconds):
        moved(step, seconds)
        if step == 4:
          os.kill(os.getpid(), signal.SIGTERM)

      return super().run(listener, step_done, reached)

  assert run_fake(plan(path, *GRID), Stopped) == app.SAVED
  assert 'run the same command again to continue' in capsys.readouterr().err
  assert not (path / 'programs/000/results.json').exists()
  run = json.loads((path / 'programs/000/run.json').read_text())
  assert (run['outcome'], run['step']) == ('saved', 4)

  class Killed(FakeRun):
    def run(self, listener, moved, reached):
      def step_done(step, seconds):
        if self.members[0].cell == 2 and step > 6:
          raise KeyboardInterrupt

      return super().run(listener, step_done, reached)

  with pytest.raises(KeyboardInterrupt):
    run_fake(plan(path, *GRID), Killed)
  assert len(rows(path)) == 4  # what has ended can be looked at
  assert run_fake(plan(path, *GRID)) == app.DONE
  assert same_results(path, calm)
  later = json.loads((path / 'programs/000/run.json').read_text())
  assert later['started'] == run['started']


def test_a_signal_while_nothing_is_saved_ends_it(tmp_path, capsys):
  class Slow(FakeRun):
    def calibrate(self, seconds):
      os.kill(os.getpid(), signal.SIGTERM)

  assert run_fake(plan(tmp_path / 'a', *GRID), Slow) == app.SAVED
  assert 'stopped by SIGTERM; run the same' in capsys.readouterr().err


def test_a_cell_that_diverges_leaves_the_others(tmp_path):
  path = tmp_path / 'a'
  asked = plan(path, 'objective=minimax', 'lr_g+lr_d=1e-3,1e15')
  assert run_fake(asked) == app.DONE
  outcomes = [(row['outcome'], row['step']) for row in rows(path)]
  assert outcomes == [('done', '12')] * 2 + [('diverged', '3')] * 2
  _, calm, wild, _ = rows(path)
  assert calm['modes'] != '' and wild['modes'] == ''


# What is said.


def test_the_plan_is_printed_before_anything_is_made(tmp_path, capsys):
  said = []

  def make(*args):
    said.append(capsys.readouterr().err)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    run_fake(plan(tmp_path / 'a', *GRID), make_scorer=make)
  (told,) = said
  assert '8 runs: 4 cells of 2 seeds, in 2 compiled programs of 12' in told
  assert '  objective: minimax, hinge\n  lr_g+lr_d: 0.001, 0.01' in told
  with pytest.raises(KeyboardInterrupt):
    run_fake(plan(tmp_path / 'a', *GRID), make)
  assert '8 runs' in said[1] and 'about' not in said[1]  # no time before it


def test_a_dry_run_prints_plan_and_time_and_writes_nothing(tmp_path, capsys):
  assert run_fake(plan(tmp_path / 'a', *GRID), dry_run=True) == app.DONE
  told = capsys.readouterr().out
  assert '8 runs: 4 cells of 2 seeds, in 2 compiled programs of 12' in told
  # .4 s a step of four members, .5 s to compile, of both programs.
  assert 'about 11s for 2 compiled programs, scores not counted' in told
  assert not (tmp_path / 'a').exists()


def test_a_dry_run_that_crashes_writes_nothing_either(tmp_path, capsys):
  def crashing(*args):
    raise RuntimeError('out of memory')

  asked = plan(tmp_path / 'a', *GRID)
  assert run_fake(asked, crashing, dry_run=True) == app.ERROR
  told = capsys.readouterr()
  assert 'program 2 crashed: RuntimeError: out of memory' in told.err
  assert 'in 2 compiled programs of 12 steps' in told.out
  assert not (tmp_path / 'a').exists()


@pytest.mark.parametrize('before, left', [(0, '4m07s'), (500, '3m00s')])
def test_time_left_is_of_the_steps_of_this_call(
  before, left, monkeypatch, capsys, tmp_path
):
  """Two programs of 1,000 steps of .1 s, which take a third more."""
  clock = iter([0.0, 20.0, 20.0])
  time = mock.Mock(monotonic=lambda: next(clock))
  monkeypatch.setattr(progress, 'time', time)
  asked = plan('a', *GRID, steps=1000)
  overall = progress.Progress(asked, {0: 100.0, 1: 100.0})
  run = FakeRun(asked, 0, tmp_path)
  run.step = before
  overall.start_program(0, run)
  run.step += 150
  overall.report_step(0, run)
  assert f', {left} left' in capsys.readouterr().err


def test_progress_is_not_printed_at_every_step(monkeypatch, capsys, tmp_path):
  clock = iter([0.0, 19.0, 21.0, 40.0, 42.0])
  time = mock.Mock(monotonic=lambda: next(clock))
  monkeypatch.setattr(progress, 'time', time)
  asked = plan('a', *GRID, steps=1000)
  overall = progress.Progress(asked, {})
  lines = []
  for count in (1, 2, 3, 4):
    overall.report_scored(0, count)
    lines.append(capsys.readouterr().err)
  assert lines == [
    '',
    'program 1/2, 2 of 4 runs scored\n',
    '',
    'program 1/2, 4 of 4 runs scored\n',
  ]


@pytest.mark.parametrize(
  'words, count', [(GRID, 1), (('width=8,16', 'lr_g=1e-3,1e-2'), 2)]
)
def test_a_kind_of_step_is_measured_once(words, count, tmp_path, capsys):
  measured = []

  class Measured(FakeRun):
    def calibrate(self, seconds):
      measured.append(self)
      return super().calibrate(seconds)

  asked = plan(tmp_path / 'a', *words)
  assert run_fake(asked, Measured, dry_run=True) == app.DONE
  assert len(measured) == count
  assert 'about 11s for 2 compiled programs' in capsys.readouterr().out


def test_a_program_says_how_far_it_is_when_it_ends(tmp_path, capsys):
  asked = plan(tmp_path / 'a', 'objective=minimax', 'lr_g+lr_d=1e-3,1e15')
  run_fake(asked)
  said = capsys.readouterr().err
  assert 'program 1/1, step 12/12 of 4 runs, 2 diverged; 100% of the' in said


def test_the_direction_is_that_of_the_primary_itself(calm):
  for name, better in (('reverse_kl', 'lower'), ('', 'higher')):
    assert run_fake(plan(calm, *GRID, primary=name), no_run) == app.DONE
    found = json.loads((calm / 'plan.json').read_text())
    assert (found['primary'], found['better']) == (name or 'modes', better)


def test_published_values_may_come_later(calm, tmp_path):
  path, source = tmp_path / 'a', tmp_path / 'published.json'
  shutil.copytree(calm, path)
  source.write_text('{"source": "table 1", "rows": {"hinge": [1, null]}}')
  for published in (str(source), ''):  # and stay
    assert run_fake(plan(path, *GRID, published=published)) == app.DONE
    found = json.loads((path / 'plan.json').read_text())
    assert found['published'] == {
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
  folder.collect_results(plan(tmp_path / 'a', *GRID))
  assert list(rows(tmp_path / 'a')[0]) == list(rows(calm)[0])
  before, after = (
    json.loads((where / 'plan.json').read_text())['metrics']
    for where in (calm, tmp_path / 'a')
  )
  assert after == before == ['modes', 'reverse_kl']


def test_the_last_words_are_the_verdict_of_the_report(calm, tmp_path, capsys):
  """On a finished folder too, with a report or without."""
  path = tmp_path / 'a'
  shutil.copytree(calm, path)
  assert run_fake(plan(path, *GRID, report=True), no_run) == app.DONE
  told = capsys.readouterr().out
  results = read_results(path)
  assert told.endswith(
    f'\n{format_for_terminal(results)}\n\nreport: {path}/report.html\n'
    f'results: {path}/results.csv\n'
  )
  head, rest = state_verdict(results)
  assert f'<strong>{head}</strong>' in (path / 'report.html').read_text()
  assert (
    f'{head}{rest}'.replace('\xa0', ' ').split()[:9]
    == (told.split('\n\n')[2].split()[:9])
  )
  assert run_fake(plan(path, *GRID), no_run) == app.DONE
  assert format_for_terminal(results) in capsys.readouterr().out


# Scoring.


class Counting(FakeScorer):
  """A scorer that is killed before the n-th score, and counts its scores."""

  count, killed_at = 0, None

  def score(self, *args):
    if type(self).count == self.killed_at:
      raise KeyboardInterrupt
    type(self).count += 1
    return super().score(*args)


def counting(killed_at=None, protocol='one'):
  kind = type('Counting', (Counting,), dict(count=0, killed_at=killed_at))
  return kind, lambda plan: kind(plan, protocol)


def test_a_member_that_cannot_be_scored_costs_no_other_one(
  calm, tmp_path, capsys
):
  """Its faults are its own, whoever they are for; the others are kept."""
  path = reopened(calm, tmp_path / 'a', 0)
  faults = {0: RuntimeError('out of memory'), 3: ArgumentError('x', 1, 'no')}
  calls = itertools.count()

  class Faulty(FakeScorer):
    def score(self, *args):
      if (fault := faults.get(next(calls))) is not None:
        raise fault
      return super().score(*args)

  assert run_fake(plan(path, *GRID), make_scorer=Faulty) == app.ERROR
  found, whole = rows(path), rows(calm)
  assert list(found[0]) == list(whole[0])
  for i, (row, other) in enumerate(zip(found, whole, strict=True)):
    if i in faults:
      assert row['outcome'] == 'done' and row['modes'] == 'nan'
    else:
      assert row == other
  said = capsys.readouterr().err
  assert 'lr_g+lr_d=0.001, seed 0 could not be scored: RuntimeError' in said
  assert '2 runs of program 1 could not be scored' in said
  result = json.loads((path / 'programs/000/results.json').read_text())
  assert result['runs'][3]['unscored'] == '`x=1`: no'


def test_a_kill_while_scoring_costs_one_score(calm, tmp_path):
  path = reopened(calm, tmp_path / 'a', 0)
  kind, make = counting(killed_at=3)
  with pytest.raises(KeyboardInterrupt):
    run_fake(plan(path, *GRID), make_scorer=make)
  kind.killed_at = None
  assert run_fake(plan(path, *GRID), make_scorer=make) == app.DONE
  assert kind.count == 4
  assert same_results(path, calm)
  assert not list(path.glob('programs/*/final_scores.json'))


def test_scores_of_another_protocol_are_not_taken(calm, tmp_path):
  path = reopened(calm, tmp_path / 'a', 0)
  _, make = counting(killed_at=3)
  with pytest.raises(KeyboardInterrupt):
    run_fake(plan(path, *GRID), make_scorer=make)
  kind, make = counting(protocol='another')
  assert run_fake(plan(path, *GRID), make_scorer=make) == app.DONE
  assert kind.count == 4


def test_a_kill_between_two_interim_scores_loses_none_of_them(tmp_path):
  words, often = 'lr_g=1e-3,1e-2', dict(eval_every=5)
  calm, path = tmp_path / 'calm', tmp_path / 'a'
  kind, make = counting()
  assert run_fake(plan(calm, words, **often), make_scorer=make) == app.DONE
  assert kind.count == 3 * 4
  kind, make = counting(killed_at=6)  # two of four at step 10
  with pytest.raises(KeyboardInterrupt):
    run_fake(plan(path, words, **often), make_scorer=make)
  runner.collect(plan(path, words, **often))  # of runs that have not ended
  assert [r['step'] for r in rows(path, 'scores.csv')] == ['5', '10'] * 2 + [
    '5',
    '5',
  ]
  kind.killed_at = None
  assert run_fake(plan(path, words, **often), make_scorer=make) == app.DONE
  assert kind.count == 3 * 4
  assert same_results(path, calm)
  table = (path / 'scores.csv').read_bytes()
  assert table == (calm / 'scores.csv').read_bytes()
  assert [
    (r['cell'], r['seed'], r['step']) for r in rows(path, 'scores.csv')
  ] == [
    (cell, seed, step)
    for cell in '01'
    for seed in '01'
    for step in ('5', '10', '12')
  ]
  last = rows(path, 'scores.csv')[2::3]
  assert [row | {'outcome': 'done'} for row in last] == rows(path)


def test_a_run_that_diverged_is_not_scored_any_more(tmp_path):
  path = tmp_path / 'a'
  asked = plan(path, 'lr_g=1e-3,1e15', eval_every=5)
  kind, make = counting()
  assert run_fake(asked, make_scorer=make) == app.DONE
  assert kind.count == 3 * 2
  assert {row['cell'] for row in rows(path, 'scores.csv')} == {'0'}


# Crashes.


def crash_in(where, error):
  """A maker of runs that fails for the first program when it is made or run."""

  def make(plan, number, folder):
    if number == 0 and where == 'made':
      raise error
    run = FakeRun(plan, number, folder)
    if number == 0:
      run.run = mock.Mock(side_effect=error)
    return run

  return make


@pytest.mark.parametrize('where', ['made', 'run'])
@pytest.mark.parametrize(
  'error, told',
  [
    (ArgumentError('minimax', 1, 'not today'), '`minimax=1`: not today'),
    (RuntimeError('too hot'), 'RuntimeError: too hot'),
    (
      RuntimeError('RESOURCE_EXHAUSTED: allocating 3221225472 bytes'),
      'out of memory, 3.00 GiB were asked for at once, cpu has',
    ),
  ],
)
def test_a_program_that_crashes_leaves_the_others_and_is_tried_again(
  where, error, told, calm, tmp_path, capsys
):
  """When it is made or when it runs; a message to the user is a crash too."""
  path = reopened(calm, tmp_path / 'a', 0)
  asked = plan(path, *GRID)
  assert run_fake(asked, crash_in(where, error)) == app.ERROR
  assert [row['outcome'] for row in rows(path)] == ['failed'] * 4 + ['done'] * 4
  assert rows(path)[0]['step'] == '' and rows(path)[4:] == rows(calm)[4:]
  said = capsys.readouterr()
  assert f'lr_g+lr_d=0.01): {told}' in said.err
  assert '\nThe traceback is in' in said.err
  assert 'Failed before the end: 4 of 8 runs' in said.out
  crash = (path / 'programs/000/crash.txt').read_text()
  assert crash.startswith('Traceback') and str(error) in crash
  assert run_fake(asked) == app.DONE
  assert rows(path) == rows(calm)
  assert not (path / 'programs/000/crash.txt').exists()


def test_a_part_that_crashes_says_so(calm, tmp_path):
  path = reopened(calm, tmp_path / 'a', 0, 1)
  make = crash_in('run', RuntimeError('out of memory'))
  assert run_fake(plan(path, *GRID, only='1/2'), make) == app.ERROR
  assert run_fake(plan(path, *GRID, only='2/2'), make) == app.DONE


@pytest.mark.parametrize('error', [checkpoint.NotSaved('no'), OSError('full')])
def test_a_full_disk_concerns_all_programs(error, calm, tmp_path):
  path = reopened(calm, tmp_path / 'a', 0, 1)
  with pytest.raises(checkpoint.CheckpointError):
    run_fake(plan(path, *GRID), crash_in('run', error))
  assert not (path / 'programs/000/results.json').exists()


def test_runs_are_closed_however_they_end(calm, tmp_path):
  made = []

  def make(*args):
    made.append(FakeRun(*args))
    if len(made) == 2:
      made[1].run = mock.Mock(side_effect=RuntimeError('out of memory'))
    return made[-1]

  run_fake(plan(tmp_path / 'a', *GRID), make)
  assert len(made) == 2 and all(run.closed for run in made)


def test_a_plan_of_other_options_is_made_of_them_alone(tmp_path):
  asked = options(tmp_path, *GRID)
  assert make_plan(asked).base.metrics == 'modes'


def test_results_are_in_the_order_of_cells_not_of_programs(tmp_path):
  """The first axis is one of numbers: its cells are of several programs."""
  path = tmp_path / 'a'
  asked = plan(path, 'lr_g=1e-3,1e-2', 'objective=minimax,hinge')
  assert run_fake(asked) == app.DONE
  assert [[m.cell for m in p[::2]] for p in asked.programs] == [[0, 2], [1, 3]]
  assert [(r['cell'], r['seed']) for r in rows(path)] == [
    (str(c), str(s)) for c in range(4) for s in range(2)
  ]


def test_scores_are_kept_until_the_results_are_there(
  calm, tmp_path, monkeypatch
):
  """A kill between the two costs no score."""
  path = reopened(calm, tmp_path / 'a', 0)
  write = records.write

  def killed(place, *args):
    if place.name == 'results.json':
      raise KeyboardInterrupt
    write(place, *args)

  kind, make = counting()
  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(records, 'write', killed)
    run_fake(plan(path, *GRID), make_scorer=make)
  assert run_fake(plan(path, *GRID), make_scorer=make) == app.DONE
  assert kind.count == 4 and same_results(path, calm)


def test_what_could_not_be_scored_is_scored_by_the_next_call(
  calm, tmp_path, capsys
):
  """As it is told to: its results are removed, its scores kept."""
  path = reopened(calm, tmp_path / 'a', 0)

  class Faulty(FakeScorer):
    def score(self, cell, params, stats):
      if cell == 1 and not params['w'][2]:  # seed 0
        raise RuntimeError('out of memory')
      return super().score(cell, params, stats)

  class Killed(Faulty):
    def score(self, cell, params, stats):
      if cell == 1 and params['w'][2]:
        raise KeyboardInterrupt
      return super().score(cell, params, stats)

  with pytest.raises(KeyboardInterrupt):
    run_fake(plan(path, *GRID), make_scorer=Killed)
  assert run_fake(plan(path, *GRID)) == app.DONE
  assert same_results(path, calm)


def test_the_last_step_is_scored_once(tmp_path):
  """Though evaluations in training fall on it."""
  kind, make = counting()
  asked = plan(tmp_path / 'a', 'lr_g=1e-3,1e-2', eval_every=4)
  assert run_fake(asked, make_scorer=make) == app.DONE
  assert kind.count == 3 * 4
  steps = [row['step'] for row in rows(tmp_path / 'a', 'scores.csv')]
  assert steps == ['4', '8', '12'] * 4


def test_a_disk_that_does_not_answer_is_no_score(calm, tmp_path):
  """It concerns all members: the ablation ends, and nothing is recorded."""
  path = reopened(calm, tmp_path / 'a', 0)

  class Faulty(FakeScorer):
    def score(self, *args):
      raise OSError(5, 'Input/output error')

  with pytest.raises(checkpoint.NotSaved, match='Input/output error'):
    run_fake(plan(path, *GRID), make_scorer=Faulty)
  assert not (path / 'programs/000/results.json').exists()


def test_a_crash_in_a_calibration_leaves_nothing_open(tmp_path):
  made = []

  class Faulty(FakeRun):
    def calibrate(self, seconds):
      made.append(self)
      raise RuntimeError('out of memory')

  assert run_fake(plan(tmp_path / 'a', 'lr_g=1e-3,1e-2'), Faulty) == app.ERROR
  assert made and all(run.closed for run in made)


def test_a_part_has_a_table_of_what_has_ended_and_writes_none(tmp_path):
  """Another part may be writing: the whole is collected at the end."""
  path = tmp_path / 'a'
  asked = plan(path, *GRID, only='1/2', report=True)
  assert run_fake(asked) == app.DONE
  table = read_table(asked)
  assert [row['cell'] for row in table.rows] == [0, 0, 1, 1]
  assert not [*path.glob('results.csv'), *path.glob('report.html')]
  assert len(read_table(plan(path, *GRID, report=True)).rows) == 4
  assert (path / 'results.csv').exists() and (path / 'report.html').exists()
