"""What is said of an ablation while it runs: the plan, and how far it is."""

import sys
import time

from gan_jax.ablation.plan import Plan
from gan_jax.runtime.progress import format_duration
from gan_jax.training.population_loop import Cohort

_EVERY = 20.0  # seconds from one line of progress to the next


def say(text: str) -> None:
  """A line for the person who waits, apart from the results."""
  print(text, file=sys.stderr, flush=True)


class Overall:
  """How far the whole is, in seconds of the estimate."""

  def __init__(self, plan: Plan, each: dict[int, float]) -> None:
    """`each`: estimated seconds of the programs that are left."""
    self._plan, self._left = plan, dict(each)
    self._total = sum(each.values()) or 1.0
    self._before = 0.0  # of steps of an earlier call, which took none of ours
    self._started = self._told = time.monotonic()

  def _due(self, last: bool = False) -> bool:
    """Whether a line is due; then the next one is not for a while."""
    now = time.monotonic()
    if not last and now - self._told < _EVERY:
      return False
    self._told = now
    return True

  def begun(self, number: int, cohort: Cohort) -> None:
    """A program begins, or goes on at the step that it was left at."""
    share = cohort.step / cohort.config.steps
    self._before += self._left.get(number, 0.0) * share

  def moved(self, number: int, cohort: Cohort, last: bool = False) -> None:
    """Says where a program is, from time to time."""
    if not self._due(last):
      return
    steps = cohort.config.steps
    part = self._left.get(number, 0.0) * (1 - cohort.step / steps)
    later = sum(s for n, s in self._left.items() if n != number)
    done = self._total - part - later
    spent = time.monotonic() - self._started
    # The estimate, until the clock knows better.
    known = done - self._before
    pace = spent / known if known > 0.05 * self._total else 1.0
    ended = sum(kind == 'diverged' for kind, _ in cohort.outcomes())
    left = format_duration(pace * (part + later))
    say(
      f'program {number + 1}/{len(self._plan.programs)}, step'
      f' {cohort.step}/{steps} of {cohort.members} runs, {ended} diverged;'
      f' {done / self._total:.0%} of the whole, {left} left'
    )

  def scored(self, number: int, count: int, members: int) -> None:
    """Says how many of its runs have been scored, from time to time."""
    if self._due():
      say(
        f'program {number + 1}/{len(self._plan.programs)}, {count} of'
        f' {members} runs scored'
      )

  def finished(self, number: int) -> None:
    """A program is done with."""
    self._left[number] = 0.0


def _programs(count: int) -> str:
  return f'{count} program{"s" if count != 1 else ""}'


def describe(plan: Plan, each: dict[int, float]) -> str:
  """The plan as a person reads it; `each`: seconds of the programs left."""
  lines = [
    f'{plan.runs} runs: {len(plan.cells)} cells of {plan.request.seeds} seeds,'
    f' in {_programs(len(plan.programs))} of {plan.base.steps} steps'
  ]
  for axis in plan.axes:
    values = ', '.join(
      '/'.join(map(str, v)) if len(set(v)) > 1 else str(v[0])
      for v in axis.values
    )
    lines.append(f'  {axis.name}: {values}')
  finished = sum(map(plan.finished, range(len(plan.programs))))
  if finished:
    lines.append(f'{_programs(finished)} finished before')
  if each:
    lines.append(
      f'about {format_duration(sum(each.values()))} for'
      f' {_programs(len(each))} left, scores not counted'
    )
  return '\n'.join(lines)
