"""Messages of an ablation while it runs: its plan, and how far it is."""

import sys
import time

from gan_jax.ablation.grid import format_value
from gan_jax.ablation.plan import AblationPlan
from gan_jax.ablation.population_run import PopulationRun
from gan_jax.config import app
from gan_jax.runtime import terminal
from gan_jax.runtime.progress import format_duration

_EVERY = 20.0  # seconds from one line of progress to the next


def say(text: str) -> None:
  """Prints a message for the person who waits, apart from the results."""
  terminal.tell(app.as_flags(text), sys.stderr)


def _count(count: int, what: str) -> str:
  return f'{count} {what}{"s" if count != 1 else ""}'


def describe_plan(plan: AblationPlan) -> str:
  """The plan as a person reads it."""
  lines = [
    f'{_count(plan.runs, "run")}: {_count(len(plan.cells), "cell")} of'
    f' {_count(plan.options.seeds, "seed")}, in'
    f' {_count(len(plan.programs), "compiled program")} of'
    f' {_count(plan.base.steps, "step")}'
  ]
  for axis in plan.axes:
    columns = [map(format_value, column) for column in axis.columns.values()]
    points = ['/'.join(point) for point in zip(*columns, strict=True)]
    lines.append(f'  {axis.name}: {", ".join(points)}')
  finished = sum(map(plan.is_finished, range(len(plan.programs))))
  if finished:
    lines.append(f'{_count(finished, "compiled program")} finished before')
  return '\n'.join(lines)


def describe_time(seconds: dict[int, float]) -> str:
  """The estimated time of the programs that are left, in words."""
  if not seconds:
    return 'nothing is left to train'
  return (
    f'about {format_duration(sum(seconds.values()))} for'
    f' {_count(len(seconds), "compiled program")}, scores not counted'
  )


class Progress:
  """How far an ablation is, in seconds of the estimate."""

  def __init__(self, plan: AblationPlan, seconds: dict[int, float]) -> None:
    """`seconds`: estimated, of the programs that are left."""
    self._plan, self._left = plan, dict(seconds)
    self._total = sum(seconds.values()) or 1.0
    self._before = 0.0  # of steps of an earlier call, which took none of ours
    self._started = self._printed = time.monotonic()

  def _is_due(self, last: bool = False) -> bool:
    """Whether a line is due; then the next one is not for a while."""
    now = time.monotonic()
    if not last and now - self._printed < _EVERY:
      return False
    self._printed = now
    return True

  def start_program(self, number: int, run: PopulationRun) -> None:
    """Notes the step at which a program begins or continues."""
    share = run.step / self._steps(number)
    self._before += self._left.get(number, 0.0) * share

  def _steps(self, number: int) -> int:
    return self._plan.programs[number][0].config.steps

  def report_step(
    self, number: int, run: PopulationRun, last: bool = False
  ) -> None:
    """Says at which step a program is, from time to time."""
    if not self._is_due(last):
      return
    steps = self._steps(number)
    rest = self._left.get(number, 0.0) * (1 - run.step / steps)
    later = sum(s for n, s in self._left.items() if n != number)
    done = self._total - rest - later
    spent = time.monotonic() - self._started
    # The estimate, until the clock knows better.
    measured = done - self._before
    pace = spent / measured if measured > 0.05 * self._total else 1.0
    outcomes = run.outcomes()
    diverged = sum(outcome == 'diverged' for outcome, _ in outcomes)
    say(
      f'program {number + 1}/{len(self._plan.programs)}, step'
      f' {run.step}/{steps} of {len(outcomes)} runs, {diverged} diverged;'
      f' {done / self._total:.0%} of the whole,'
      f' {format_duration(pace * (rest + later))} left'
    )

  def report_scored(self, number: int, count: int) -> None:
    """Says how many runs of a program have been scored, from time to time."""
    if self._is_due():
      programs = self._plan.programs
      say(
        f'program {number + 1}/{len(programs)}, {count} of'
        f' {len(programs[number])} runs scored'
      )

  def finish_program(self, number: int) -> None:
    """Notes that a program needs no more time."""
    self._left[number] = 0.0
