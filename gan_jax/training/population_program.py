"""The compiled program of a population: its members, laid over devices."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from gan_jax.config import resolve, schema
from gan_jax.config.schema import Config
from gan_jax.game import population
from gan_jax.game.population import Progress
from gan_jax.runtime.errors import ArgumentError
from gan_jax.training.setup import Setup

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of a population.

  Attributes:
    seed: of it.
    hyper: its hyper-parameters by path, where they are not the trainer's.
  """

  seed: int
  hyper: Mapping[str, float] = dataclasses.field(default_factory=dict)


def members_of(configs: Sequence[Config]) -> list[Member]:
  """The members that configurations of one compiled program stand for.

  Raises:
    ArgumentError: if there is none, or if two differ in what is compiled.
  """
  if not configs:
    raise ArgumentError('configs', '[]', 'give a population one or more')
  if len({schema.static(config.validate()) for config in configs}) > 1:
    raise ArgumentError(
      'configs',
      f'{len(configs)} of them',
      'members of a population may differ in seed and hyper-parameters only;'
      ' train those that differ in more in a population of their own',
    )
  return [Member(c.seed, resolve.hyper(c)) for c in configs]


class PopulationProgram:
  """What a population compiles, by its set-up, its members and its devices.

  Attributes:
    setup: of one run, on one device.
    members: its runs.
    mesh: the devices, each of which has whole members.
    room: members that there is room for: as many on each device.
    layout: `vmap` or `map`.
    block: of members that vmap goes through at a time.
  """

  def __init__(
    self,
    setup: Setup,
    members: Sequence[Member],
    devices: Sequence[Any],
    layout: str = 'auto',
  ) -> None:
    """Lays members over devices; the layout auto is by both."""
    self.setup, self.members = setup, tuple(members)
    self.mesh: Mesh = population.make_mesh(len(members), devices)
    self.room = population.padded_count(len(members), self.mesh)
    self.layout = layout
    players = (setup.shapes.g.params, setup.shapes.d.params)
    platform = self.mesh.devices.flat[0].platform
    batch, own = setup.config.batch_size, self.room // self.mesh.size
    if layout == 'auto':
      self.layout = population.choose_layout(players, batch, platform)
    self.block = population.choose_block(players, batch, platform, own)

  def places(self) -> list[Member]:
    """Members in the rooms of the devices; the first one in those left."""
    left = self.room - len(self.members)
    return [*self.members, *[self.members[0]] * left]

  @functools.cached_property
  def vary(self) -> dict[str, NDArray[np.float32]]:
    """The hyper-parameters of each place by path."""
    defaults = self.setup.trainer.hyperparameters()
    paths = sorted({path for m in self.members for path in m.hyper})
    return {
      path: np.asarray(
        [m.hyper.get(path, defaults[path]) for m in self.places()], np.float32
      )
      for path in paths
    }

  def init(self, seeds: Any, vary: Any, names: Sequence[str]) -> Progress:
    """All members before their first step; traced."""
    keys = jax.vmap(jax.random.key)(seeds)
    now = population.init_members(self.setup.trainer, keys, vary)
    count = seeds.shape[0]
    zeros = {name: np.zeros(count, np.float32) for name in names}
    return Progress(now, zeros, np.zeros(count, np.int32))

  @functools.cached_property
  def names(self) -> list[str]:
    """Of the logs of a step."""
    item = jax.tree.map(lambda x: x[0], self.setup.feed.chunk(0, 1))

    def logs(state: Any, constants: Any, item: Any) -> Any:
      batch = self.setup.batch_of(constants, item, state)
      return self.setup.step(state, batch)[1]

    constants = self.setup.feed.constant_shapes
    return sorted(jax.eval_shape(logs, self.setup.shapes, constants, item))

  def shapes(self, count: int) -> Progress:
    """Shapes and types of the state of so many members."""
    vary = {path: np.zeros(count, np.float32) for path in self.vary}
    seeds = np.zeros(count, np.int32)
    shapes: Progress = jax.eval_shape(
      lambda seeds, vary: self.init(seeds, vary, self.names), seeds, vary
    )
    return shapes

  @functools.cached_property
  def shardings(self) -> Progress:
    """Where each leaf of the state is."""
    return population.shardings(self.shapes(self.room), self.mesh)

  def alive(self) -> NDArray[np.bool_]:
    """Which places are those of a member."""
    return np.arange(self.room) < len(self.members)

  def lower(self, state: Any, constants: PyTree, chunk: PyTree) -> Any:
    """The program, lowered: some steps of all members, the state donated.

    Args:
      state: before; arrays, or shapes with their shardings, as the others.
      constants: of the feed.
      chunk: of the data of one dispatch, of each place.
    """
    advance = population.make_advance(
      self.setup.trainer,
      self.setup.batch_of,
      self.layout,
      self.mesh,
      state,
      self.block,
    )
    jitted = jax.jit(advance, donate_argnums=0)
    return jitted.lower(state, constants, chunk, np.int32(0))


__all__ = ['Member', 'PopulationProgram', 'members_of']
