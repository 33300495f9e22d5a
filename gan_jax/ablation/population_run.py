"""The training of one program's runs, as the engine of an ablation sees it.

`training/` does the work; whatever else trains members, such as a test, does as
well.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from gan_jax.ablation.plan import AblationPlan
from gan_jax.config import app
from gan_jax.runtime import preemption


@runtime_checkable
class PopulationRun(Protocol):
  """Members in training, from the newest checkpoint of their folder on.

  Attributes:
    step: steps done.
    compile_sec: seconds of compilation; `train_sec` and `cpu_sec` of training,
      in wall time and of all cores.
  """

  step: int
  compile_sec: float
  train_sec: float
  cpu_sec: float

  @property
  def layout(self) -> str:
    """`vmap` or `map`."""

  def calibrate(self, seconds: float) -> float:
    """Compiles the program; seconds of one step, measured on a copy.

    Args:
      seconds: to measure for.
    """

  def run(
    self,
    listener: preemption.Listener,
    moved: Callable[[int, float], None] | None = None,
    reached: Callable[[], None] | None = None,
  ) -> str:
    """Trains to the end or a signal; `done` or `saved`.

    Args:
      listener: looked at between dispatches.
      moved: called after each dispatch.
      reached: called at the start and at the multiples of each cadence.
    """

  def outcomes(self) -> list[tuple[str, int]]:
    """Of each member `done` or `diverged`, and the step of it."""

  def generators(self) -> list[tuple[Any, Any]]:
    """Parameters and statistics of each member's generator, on the host."""

  def write_samples(self) -> None:
    """Writes a picture of each member's samples."""

  def close(self) -> None:
    """Ends the background threads."""


MakeRun = Callable[[AblationPlan, int, pathlib.Path], PopulationRun]


def members_of_program(plan: AblationPlan, number: int) -> list[Any]:
  """The runs of one program, as `training/` knows them."""
  from gan_jax.training.population_program import Member

  return [
    Member(m.seed, plan.specs[m.cell].hyperparameters())
    for m in plan.programs[number]
  ]


def make_population_run(
  plan: AblationPlan, number: int, folder: pathlib.Path
) -> PopulationRun:
  """Restores or initialises the runs of one program in its folder."""
  from gan_jax.training.population_loop import PopulationLoop

  spec = plan.spec_of(number)
  return PopulationLoop(
    spec.config,
    members_of_program(plan, number),
    folder,
    plan.options.layout,
    objects=spec.objects,
    dataset=plan.load_dataset(spec.config),
    trainer=spec.trainer,
  )


def identify_programs(plan: AblationPlan) -> list[dict[str, Any]]:
  """The identity of each program; empty where names say all of them.

  What components do has no name that can be compared: their steps are traced.
  """
  if all(spec.named for spec in plan.specs):
    return []
  from gan_jax.training import identity, setup

  identities: list[dict[str, Any]] = []
  keys: list[Any] = []
  for number in range(len(plan.programs)):
    spec = plan.spec_of(number)
    keys.append(spec.program_key())
    first = keys.index(keys[-1])
    if first < number:  # a part of the same program
      identities.append(identities[first])
      continue
    parts = setup.build(
      spec.config,
      spec.objects,
      dataset=plan.load_dataset(spec.config),
      trainer=spec.trainer,
      given=plan.given,
      devices=1,
    )
    identities.append(identity.identify(parts))
  return identities


def check_identities(
  plan: AblationPlan,
  recorded: Sequence[Mapping[str, Any]],
  identities: Sequence[Mapping[str, Any]],
) -> None:
  """Raises if a program is another than the one that was begun.

  Raises:
    IdentityError: a line for each difference.
  """
  from gan_jax.training import identity

  for number, pair in enumerate(zip(recorded, identities, strict=False)):
    place = f'`workdir={plan.folder}`, program {number + 1}'
    warning = identity.check(place, *map(dict, pair))
    if warning:
      app.warn(warning)
