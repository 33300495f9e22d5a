"""Goodput: what share of the time that a run was allocated went into training.

Every second of the process is spent on one thing alone, and the parts sum to
the whole. It is added up over all restarts of the run, in `run.json`, at every
checkpoint and once a minute: what a killed process did after that is not known.
What was trained and lost, for no checkpoint held it, is a part of its own.
"""

import contextlib
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gan_jax.runtime.progress import format_duration

PARTS = (
  'train',  # steps that the run has kept
  'lost',  # steps that were made again after a restart
  'compile',
  'data',
  'checkpoint',
  'evaluation',
  'start',  # from the start of the first process to its compilation
  'restart',  # the same of every later process
  'other',  # logs, samples, reports
)


def process_age() -> float:
  """Seconds that this process has lived; 0 where nobody says."""
  try:
    stat = pathlib.Path('/proc/self/stat').read_text()
    ticks = float(stat.rpartition(')')[2].split()[19])
    return max(
      0.0,
      time.clock_gettime(time.CLOCK_BOOTTIME)
      - ticks / os.sysconf('SC_CLK_TCK'),
    )
  except (OSError, ValueError, IndexError, AttributeError):
    return 0.0


class Ledger:
  """Seconds by what they were spent on.

  >>> ledger = Ledger(clock=iter([0.0, 1.0, 3.0, 4.0]).__next__)
  >>> with ledger.spend('train'):  # from 1 to 3
  ...   pass
  >>> seconds = ledger.seconds()
  >>> seconds['start'], seconds['train']
  (2.0, 2.0)
  """

  def __init__(
    self,
    before: Mapping[str, Any] | None = None,
    *,
    age: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
  ) -> None:
    """Begins to count.

    Args:
      before: `facts()` of the processes before this one, as far as they wrote
        it down; None for the first.
      age: seconds that are behind this process already.
      clock: in seconds.
    """
    kept = dict((before or {}).get('seconds', {}))
    self._seconds = {part: float(kept.get(part, 0.0)) for part in PARTS}
    self.attempts = int((before or {}).get('attempts', 0)) + 1
    self._clock, self._last = clock, clock() - age
    self._stack = ['restart' if before else 'start']

  def _mark(self) -> None:
    now = self._clock()
    self._seconds[self._stack[-1]] += now - self._last
    self._last = now

  @contextlib.contextmanager
  def spend(self, part: str) -> Iterator[None]:
    """Within, time is spent on a part; a part within that is apart."""
    self._mark()
    self._stack.append(part)
    try:
      yield
    finally:
      self._mark()
      self._stack.pop()

  def started(self) -> None:
    """From now on what is spent on nothing else is other."""
    self._mark()
    self._stack[0] = 'other'

  def kept(self, train: float) -> None:
    """A checkpoint is gone on from, which holds so many seconds of training."""
    lost = max(0.0, self._seconds['train'] - train)
    self._seconds['lost'] += lost
    self._seconds['train'] = max(train, self._seconds['train'] - lost)

  @property
  def train(self) -> float:
    """Seconds of training that are kept so far."""
    return self._seconds['train']

  def seconds(self) -> dict[str, float]:
    """Of each part until now, over all attempts."""
    self._mark()
    return dict(self._seconds)

  def facts(self) -> dict[str, Any]:
    """As `run.json` has it."""
    seconds = self.seconds()
    allocated = sum(seconds.values())
    return {
      'goodput': round(seconds['train'] / allocated, 4) if allocated else 0.0,
      'allocated_sec': round(allocated, 3),
      'attempts': self.attempts,
      'seconds': {part: round(s, 3) for part, s in seconds.items()},
    }


_RATIO = math.log(1.02)  # between two bins: what is told is within 1%


class Spread:
  """Seconds of a step, of which only how often they came is kept.

  >>> spread = Spread()
  >>> spread.add(0.1, 80)
  >>> spread.add(0.5, 20)
  >>> [round(spread.quantile(q), 1) for q in (0.1, 0.5, 0.9)]
  [0.1, 0.1, 0.5]
  """

  def __init__(self) -> None:
    """Nothing has come."""
    self._counts: dict[int, int] = {}

  def add(self, seconds: float, steps: int) -> None:
    """Some steps of so many seconds each."""
    index = round(math.log(max(seconds, 1e-9)) / _RATIO)
    self._counts[index] = self._counts.get(index, 0) + steps

  def quantile(self, q: float) -> float:
    """Seconds of a step that a share `q` of the steps did not exceed."""
    left = q * sum(self._counts.values())
    for index, count in sorted(self._counts.items()):
      left -= count
      if left <= 0:
        return math.exp(index * _RATIO)
    return 0.0

  def facts(self) -> dict[str, float]:
    """As `run.json` has it."""
    quantiles = {'p10': 0.1, 'median': 0.5, 'p90': 0.9, 'most': 1.0}
    return {k: float(f'{self.quantile(q):.3g}') for k, q in quantiles.items()}


def format_minute(
  step: int, steps: int, spread: Spread, facts: Mapping[str, Any]
) -> str:
  """The line of a minute, for who follows the output of a job.

  >>> spread = Spread()
  >>> spread.add(0.25, 10)
  >>> format_minute(30, 120, spread, {'goodput': 0.815})
  'step 30/120 (25%)  0.25 s a step (0.25 to 0.25)  goodput 82%  23s left'
  """
  low, middle, high = (f'{spread.quantile(q):.2g}' for q in (0.1, 0.5, 0.9))
  left = format_duration((steps - step) * spread.quantile(0.5))
  return (
    f'step {step}/{steps} ({step / steps:.0%})  {middle} s a step'
    f' ({low} to {high})  goodput {facts["goodput"]:.0%}  {left} left'
  )
