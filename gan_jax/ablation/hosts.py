"""An ablation over the processes of one job: the first leads, others follow.

Each program's members are laid over the devices of all of them. The first
process is the engine: it plans, scores and writes. The others make, train and
close the same populations when it says so.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, cast

from gan_jax.ablation.plan import AblationPlan
from gan_jax.ablation.population_run import MakeRun, PopulationRun
from gan_jax.ablation.scoring import is_of_the_job
from gan_jax.config import app
from gan_jax.runtime import multihost, preemption

_NEXT, _END = 'next', 'end'


def _tell(*words: Any) -> None:
  multihost.tell_others(json.dumps(words))


class _Ended(BaseException):
  """The first process is done; holds the exit code."""


class LeadingRun:
  """A `PopulationRun` that the other processes train as well.

  What it is to do, they are told first.
  """

  def __init__(self, run: PopulationRun, number: int) -> None:
    """Wraps what this process has of program `number`."""
    self._run, self._number = run, number

  def __getattr__(self, name: str) -> Any:
    return getattr(self._run, name)

  def _together(self, name: str, *args: Any) -> Any:
    _tell(name, self._number, *args)
    return getattr(self._run, name)(*args)

  def calibrate(self, seconds: float) -> float:
    """In all processes."""
    took: float = self._together('calibrate', seconds)
    return took

  def run(
    self,
    listener: preemption.Listener,
    moved: Callable[[int, float], None] | None = None,
    reached: Callable[[], None] | None = None,
  ) -> str:
    """In all processes; the others wait while this one is in `reached`."""

    def leading() -> None:
      if reached is not None:
        reached()
      _tell(_NEXT)

    _tell('run', self._number)
    return self._run.run(listener, moved, leading)

  def outcomes(self) -> list[tuple[str, int]]:
    """Of all members."""
    found: list[tuple[str, int]] = self._together('outcomes')
    return found

  def generators(self) -> list[tuple[Any, Any]]:
    """Of all members."""
    found: list[tuple[Any, Any]] = self._together('generators')
    return found

  def write_samples(self) -> None:
    """Of all members, by this process."""
    self._together('write_samples')

  def close(self) -> None:
    """In all processes."""
    self._together('close')


def leading(make_run: MakeRun) -> MakeRun:
  """The same, for the first process of a job."""

  def make(
    plan: AblationPlan, number: int, folder: pathlib.Path
  ) -> PopulationRun:
    _tell('make', number, str(folder))
    run = LeadingRun(make_run(plan, number, folder), number)
    return cast(PopulationRun, run)

  return make


@dataclasses.dataclass
class Ending:
  """How the first process ends: its exit code."""

  code: int = app.ERROR


@contextlib.contextmanager
def ending(joined: bool) -> Iterator[Ending]:
  """Within, the first process leads; the others end with it, as it does.

  Args:
    joined: whether there are others.
  """
  ends = Ending()
  try:
    yield ends
  except preemption.Stopped:
    ends.code = app.SAVED
    raise
  finally:
    if joined:
      _tell(_END, ends.code)


def follow(
  plan: AblationPlan, listener: preemption.Listener, make_run: MakeRun
) -> int:
  """Does what the first process says, in another; its exit code.

  What fails here fails there as well, and is recorded there; what concerns this
  process alone ends it.
  """
  runs: dict[int, PopulationRun] = {}

  def obey(word: str, number: int, *args: Any) -> None:
    if word == 'make':
      runs[number] = make_run(plan, number, pathlib.Path(args[0]))
    elif word == 'run':
      runs[number].run(listener, None, serve)
    elif word == 'close':
      runs.pop(number).close()
    else:
      getattr(runs[number], word)(*args)

  def serve() -> None:
    """Until it is told to go on with what it is in."""
    while True:
      word, *args = json.loads(multihost.tell_others(None))
      if word == _NEXT:
        return
      if word == _END:
        raise _Ended(args[0])
      try:
        obey(word, *args)
      except Exception as error:
        if is_of_the_job(error):
          raise

  try:
    serve()
  except _Ended as ended:
    return int(ended.args[0])
  finally:
    for run in runs.values():
      run.close()
  raise AssertionError('told to go on with nothing')
