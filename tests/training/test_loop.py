"""The host loop: what is saved when, what a signal ends, what is counted.

What it trains is a number that is counted up.
"""

import contextlib
import copy
import dataclasses
import time

import jax
import numpy as np
import pytest
from helpers import small

from gan_jax.runtime import preemption, rescue, small_checkpoint
from gan_jax.runtime.errors import CheckpointError, IdentityError
from gan_jax.training import goodput, run_loop, setup, writers
from gan_jax.training.dispatch import Pace
from gan_jax.training.loop import HostLoop


@pytest.fixture(scope='module')
def parts():
  return setup.build(small.ring(steps=12))


class Counter(HostLoop):
  """Counts steps, writes every fifth of them, saves as it is told."""

  def __init__(self, parts, folder, save_at=(), fails_at=99):
    self.written, self.listeners, self.compiled = [], [], 0
    self.save_at, self.fails_at = save_at, fails_at
    self.at_step = lambda step: None
    super().__init__(parts, folder, keep=9)

  def template(self):
    return {'n': np.zeros(2)}

  fresh = template

  def place(self, saved):
    return saved

  def meta(self):
    return {}

  def accept(self, meta):
    pass

  def compile(self):
    self.compiled += 1
    time.sleep(0.1)

  @property
  def pace(self):
    pace = Pace({'x': np.zeros(2)})
    pace.wanted = 2.0
    return pace

  def advance(self, count):
    self.listeners.append(self.listener.raise_at_once)
    self.state = {'n': self.state['n'] + count}
    self.at_step(self.step + count)
    return count, self.step + count < self.fails_at

  def cadences(self):
    return (5,)

  def at_boundary(self):
    if self.is_due(5):
      self.written.append(self.step)
    if self.step in self.save_at:
      self.save()


@pytest.fixture
def counter(parts, tmp_path):
  loops = []

  def counter(*args, of=parts, **options):
    loops.append(Counter(of, tmp_path, *args, **options))
    return loops[-1]

  yield counter
  for loop in loops:
    loop.close()


def signalled(step):
  """A listener, and what lets it receive a signal at a step."""
  listener = preemption.Listener()

  def at_step(now):
    if now >= step:
      listener.received = 'SIGTERM'

  return listener, at_step


def test_it_stops_where_it_is_and_says_so_when_it_is_saved(
  counter, monkeypatch
):
  """Not before: what is told is what the next call finds."""
  read_back = small_checkpoint.read_back

  def slowly(*args):
    time.sleep(0.3)
    read_back(*args)

  monkeypatch.setattr(small_checkpoint, 'read_back', slowly)
  loop = counter()
  listener, loop.at_step = signalled(4)
  assert loop.run(listener) == 'saved'
  assert loop.step == 4 and loop.checkpoints.steps() == [4]
  # A step has its end, though the signal be of the kind that interrupts.
  assert loop.listeners == [False, False] and loop.written == []


def test_no_step_is_made_after_a_signal(counter):
  loop = counter()
  listener, _ = signalled(0)
  listener.received = 'SIGTERM'
  assert loop.run(listener) == 'saved'
  assert loop.step == 0 and loop.checkpoints.steps() == [0]


def test_a_moment_is_saved_once(counter, monkeypatch):
  loop, saved = counter(save_at=(5, 12)), []
  save = loop.checkpoints.save
  monkeypatch.setattr(
    loop.checkpoints, 'save', lambda *args: [saved.append(args[0]), save(*args)]
  )
  assert loop.run(preemption.Listener()) == 'done'
  assert saved == [5, 12] and loop.written == [5, 10, 12]


def test_what_a_step_costs_is_counted_over_all_calls(counter):
  """Compilation apart; wall time and that of all cores."""
  loop = counter()
  listener, loop.at_step = signalled(5)
  loop.run(listener)
  assert loop.compiled == 1 and loop.compile_sec >= 0.1
  assert 0 < loop.train_sec < 0.1
  later = counter()
  assert later.step == 5 and later.state['n'].tolist() == [5, 5]
  assert later.train_sec == loop.train_sec and later.cpu_sec == loop.cpu_sec
  assert later.run(preemption.Listener()) == 'done'
  assert later.train_sec > loop.train_sec


def test_what_diverged_is_neither_written_nor_saved(counter):
  loop = counter(save_at=(5, 10), fails_at=10)
  assert loop.run(preemption.Listener()) == 'diverged'
  loop.checkpoints.wait()
  assert loop.written == [5] and loop.checkpoints.steps() == [5]


def test_other_data_is_not_gone_on_with(parts, counter):
  loop = counter()
  listener, loop.at_step = signalled(2)
  loop.run(listener)
  feed = copy.copy(parts.feed)
  feed.fingerprint = 'of other data'
  with pytest.raises(IdentityError, match='its data was another'):
    counter(of=dataclasses.replace(parts, feed=feed))


def test_the_log_is_closed_where_checkpoints_cannot_be(tmp_path):
  """Its last rows are written, whatever else fails."""
  loop, closed = object.__new__(run_loop.RunLoop), []

  class Failing:
    def close(self):
      raise CheckpointError('no room')

  class Closed:
    def close(self):
      closed.append(1)

  loop.progress = writers.Progress(0, 1, False)
  loop.checkpoints, loop.log = Failing(), Closed()
  with pytest.raises(CheckpointError, match='no room'):
    loop.close()
  assert closed


# When a run is saved and scored.


class Bare(run_loop.RunLoop):
  """A run that trains nothing, and notes what it would do."""

  def __init__(self, scorer=None, step=6, **changes):
    self.config = small.ring(
      metrics='fid', log_every=5, sample_every=100, **changes
    )
    self.step, self.scorer, self.done = step, scorer, []
    self.state, self._unscored, self.compile_sec = None, False, 0.0
    self._program_bytes, self.facts = 0, {}
    self.progress = self.log = self.run_file = self
    self.listener, self.ledger = preemption.Listener(), goodput.Ledger()

  def note(self, *words):
    self.done.append(' '.join(map(str, words)))

  def save(self):
    self.note('save')

  def say(self, text):
    self.note('say', text)

  def show(self, scores, step):
    self.note('show', scores['fid'], step)

  def update(self, **facts):
    if 'best' in facts:
      self.note('best', facts['best'])

  def write_row(self):
    self.note('row')

  def write_samples(self):
    self.note('samples')


def test_a_state_that_was_saved_alone_is_gone_on_from(counter, tmp_path):
  loop = counter(save_at=[5])
  loop.config = dataclasses.replace(loop.config, steps=5)
  assert loop.run(preemption.Listener()) == 'done'
  alone = rescue.hold(9, {'n': np.full(2, 9.0)}, loop._full_meta())
  rescue.write(tmp_path, alone)
  later = counter()
  assert later.step == 9 and later.state['n'][0] == 9
  later.run(preemption.Listener())
  assert later.step == 12 and not (tmp_path / 'rescue').exists()
  assert counter().step == 12


def test_a_line_a_minute_and_no_more():
  run = Bare(step=6)
  run.totals, run.spread = run_loop.Totals(), goodput.Spread()
  run.trained_sec = run.waited = 0.0
  run.moved, run.minute = lambda step: None, run.note
  run._minute = time.monotonic() - 30
  run.after_dispatch(0.1)
  assert not run.done
  run._minute = time.monotonic() - 61
  for _ in range(3):
    run.after_dispatch(0.1)
  (line,) = run.done
  assert line.startswith('step 6/') and 'goodput' in line


class Score:
  """A scorer, by what it has scored before."""

  def __init__(self, is_new=True, is_scored=False):
    self.is_new, self.is_scored = is_new, is_scored

  def __call__(self, state, step):
    return {'fid': 2.0}, 'fid 2', self.is_new

  def resume(self, state, step):
    return self.is_scored

  def best_of_all(self):
    return 'of all'

  def best(self, steps):
    return 'of those that are left'


@pytest.mark.parametrize(
  ('changes', 'done'),
  [
    (dict(eval_every=3), ['save', 'say step 6  fid 2']),
    (dict(eval_every=3, checkpoint_every=5), ['say step 6  fid 2']),
    (
      dict(eval_every=3, checkpoint_every=5, keep_best='fid'),
      ['save', 'say step 6  fid 2', 'best of all'],
    ),
    (dict(eval_every=5), ['save']),
    (
      dict(eval_every=5, steps=6),
      ['row', 'samples', 'save', 'say step 6  fid 2'],
    ),
  ],
)
def test_a_moment_is_saved_before_it_is_scored(changes, done):
  """A score may fail, or be ended by a signal; the best must exist."""
  loop = Bare(Score(is_new=False), **changes)
  loop.at_boundary()
  assert loop.done == done
  assert not loop._unscored


def test_a_score_is_shown_once():
  for is_new in (True, False):
    loop = Bare(Score(is_new))
    loop.evaluate()
    assert ('show 2.0 6' in loop.done) == is_new


@pytest.mark.parametrize('is_scored', [False, True])
@pytest.mark.parametrize('every', [3, 4])
def test_what_was_saved_and_not_scored_is_scored_by_the_next_call(
  every, is_scored
):
  loop = Bare(Score(is_scored=is_scored), eval_every=every)
  loop.at_start()
  scored = 'say step 6  fid 2' in loop.done
  assert scored == (every == 3 and not is_scored)
  assert 'samples' not in loop.done


def test_a_run_whose_last_score_was_ended_is_not_over():
  class Ended(Score):
    def __call__(self, state, step):
      loop.listener.received = 'SIGTERM'
      raise preemption.Stopped('SIGTERM')

  loop = Bare(Ended(), steps=6)
  loop.listener.raise_at_once = False
  loop.at_boundary()
  assert loop.done[-1] == 'save' and not loop.is_over


def test_a_dispatch_by_itself_is_compiled_before_the_clock_starts(counter):
  loop = counter()
  assert loop.dispatch(2) == (2, True)
  assert loop.compile_sec >= 0.1 > loop.train_sec > 0


@pytest.mark.parametrize('steps, traces', [(12, 1), (4, 0)])
def test_the_third_dispatch_is_traced_where_it_is_asked_for(
  steps, traces, parts, tmp_path, monkeypatch, capsys
):
  traced = []

  @contextlib.contextmanager
  def trace(folder, **how):
    traced.append((folder, len(loop.listeners), how))
    yield

  monkeypatch.setattr(jax.profiler, 'trace', trace)
  config = dataclasses.replace(parts.config, profile=True, steps=steps)
  loop = Counter(dataclasses.replace(parts, config=config), tmp_path)
  loop.run(preemption.Listener())
  loop.close()
  where = str(tmp_path / 'profile')
  assert traced == [(where, 2, {'create_perfetto_trace': True})] * traces
  assert ('nothing was traced' in capsys.readouterr().err) == (not traces)
