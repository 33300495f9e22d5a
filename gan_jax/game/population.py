"""A population: many runs of one game, seeds and numbers apart, as one program.

Member i is the run that `step.py` would make of its key, its numbers and its
data alone; what all members share, and what is therefore compiled once, is the
plan. A member whose losses or gradients are not finite is frozen where it was
before that step, and the others go on.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int, Key

from gan_jax.game.plan import Plan, init_state
from gan_jax.game.state import GANState, Hyper, all_finite, count_parameters
from gan_jax.game.step import TrainStep

PyTree = Any
# How a device goes through its members: `vmap` one step of all of them at a
# time, `map` all steps of one member after another.
LAYOUTS = ('vmap', 'map')
# On CPU a step that multiplies more than this keeps a core busy by itself, and
# vmap no longer pays: see experiments/speed/population.
VMAP_MOST = 2**19


class Population(flax.struct.PyTreeNode):
  """All that training changes; every array has a leading axis of members.

  Attributes:
    state: the members' games.
    alive: (members,) whether a member is still trained.
    diverged: (members,) int32, the step whose losses or gradients were not
      finite, counted from 1; 0 for those that have not diverged. The state is
      that of the step before.
    sums: each metric, summed over `counted` steps.
    counted: (members,) int32, steps since the sums were last at zero.
  """

  state: GANState
  alive: Any
  diverged: Any
  sums: dict[str, Any]
  counted: Any


_AXIS = ('members',)
_SPLIT = PartitionSpec('members')
_WHOLE = PartitionSpec()


def stacked(hypers: Sequence[Hyper]) -> Hyper:
  """The numbers of each member as arrays (members,)."""
  return jax.tree.map(lambda *x: np.asarray(x, np.float32), *hypers)


def make_mesh(members: int, devices: Sequence[Any] | None = None) -> Mesh:
  """The devices that a population is laid over, no more than its members."""
  there = list(jax.devices() if devices is None else devices)
  return Mesh(np.asarray(there[: max(1, min(members, len(there)))]), _AXIS)


def padded(members: int, mesh: Mesh) -> int:
  """Members with those that fill up the last device; they never live."""
  return -(-members // mesh.size) * mesh.size


def split(mesh: Mesh) -> NamedSharding:
  """Members over the devices."""
  return NamedSharding(mesh, _SPLIT)


def put(tree: PyTree, mesh: Mesh) -> PyTree:
  """Arrays (members, ...) split over the devices, as copies."""
  copy = jax.jit(lambda t: jax.tree.map(jnp.copy, t), out_shardings=split(mesh))
  return copy(tree)


def put_whole(tree: PyTree, mesh: Mesh) -> PyTree:
  """What all members share, on every device."""
  return jax.device_put(tree, NamedSharding(mesh, _WHOLE))


def suits(plan: Plan, params: PyTree, platform: str) -> str:
  """The layout that measured fastest for such nets on such a device.

  A function of its arguments and not of a clock: layouts round differently,
  and a run must be the same when it is made again.
  """
  if platform != 'cpu':
    return 'vmap'
  convolutional = any(x.ndim > 2 for x in jax.tree.leaves(params))
  work = count_parameters(params) * plan.batch_size
  return 'map' if convolutional or work > VMAP_MOST else 'vmap'


def make_init(plan: Plan, names: Sequence[str]) -> Callable[..., Population]:
  """`(keys, hyper, alive) -> Population`, of a plan with these metrics."""

  def init(
    keys: Key[Array, ' members'], hyper: Hyper, alive: Bool[Array, ' members']
  ) -> Population:
    count = alive.shape[0]
    state = jax.vmap(lambda key, hyper: init_state(key, plan, hyper))(
      keys, hyper
    )
    return Population(
      state=state,
      alive=alive,
      diverged=jnp.zeros(count, jnp.int32),
      sums={name: jnp.zeros(count) for name in names},
      counted=jnp.zeros(count, jnp.int32),
    )

  return init


def _chosen(ok: Any, new: GANState, old: GANState) -> GANState:
  """`new` where ok; the root key never changes."""
  kept = jax.tree.map(
    lambda a, b: jnp.where(ok, a, b),
    new.replace(key=None),
    old.replace(key=None),
  )
  return kept.replace(key=old.key)


def _moved(
  step: TrainStep, member: Population, hyper: Hyper, item: PyTree
) -> Population:
  """One member after one more step, or frozen where it was."""
  state, metrics = step(member.state, hyper, item)
  finite = all_finite(metrics)
  ok = member.alive & finite
  died = member.alive & ~finite
  sums = {
    name: total + jnp.where(ok, metrics[name], 0.0)
    for name, total in member.sums.items()
  }
  return Population(
    state=_chosen(ok, state, member.state),
    alive=ok,
    diverged=jnp.where(died, member.state.step + 1, member.diverged),
    sums=sums,
    counted=member.counted + ok,
  )


def _steps(
  move: Callable[..., Population],
  population: Population,
  hyper: Hyper,
  item: Callable[[Any], PyTree],
  count: Int[Array, ''],
) -> Population:
  """`count` steps, or as many as there is somebody alive for."""

  def more(carry: Any) -> Any:
    i, population = carry
    return (i < count) & jnp.any(population.alive)

  def body(carry: Any) -> Any:
    i, population = carry
    return i + 1, move(population, hyper, item(i))

  return jax.lax.while_loop(more, body, (jnp.int32(0), population))[1]


def make_advance(
  step_of: Callable[[PyTree], TrainStep], layout: str, mesh: Mesh
) -> Callable[..., Population]:
  """The function that is compiled: `count` steps of every member.

  `(population, hyper, constants, chunk, count) -> population`; `hyper` and
  `chunk`, which has an axis of steps behind it, have an axis of members,
  `constants` are shared. No device waits for another.

  Args:
    step_of: the train step, given the constants of the data feed.
    layout: one of `LAYOUTS`.
    mesh: the devices.
  """

  def vmapped(
    population: Any, hyper: Any, step: Any, chunk: Any, n: Any
  ) -> Any:
    move = jax.vmap(lambda *member: _moved(step, *member))
    return _steps(move, population, hyper, lambda i: _at(chunk, i, 1), n)

  def mapped(population: Any, hyper: Any, step: Any, chunk: Any, n: Any) -> Any:
    def alone(member: Any) -> Population:
      population, hyper, chunk = member
      move = lambda *now: _moved(step, *now)  # noqa: E731
      return _steps(move, population, hyper, lambda i: _at(chunk, i, 0), n)

    return jax.lax.map(alone, (population, hyper, chunk))

  def advance(
    population: Population,
    hyper: Hyper,
    constants: PyTree,
    chunk: PyTree,
    n: Any,
  ) -> Population:
    step = step_of(constants)
    inner = vmapped if layout == 'vmap' else mapped
    return inner(population, hyper, step, chunk, n)

  return jax.shard_map(
    advance,
    mesh=mesh,
    in_specs=(_SPLIT, _SPLIT, _WHOLE, _SPLIT, _WHOLE),
    out_specs=_SPLIT,
    check_vma=False,
  )


def _at(chunk: PyTree, i: Any, axis: int) -> PyTree:
  """One step of a chunk whose axis of steps is this one."""
  return jax.tree.map(
    lambda x: jax.lax.dynamic_index_in_dim(x, i, axis, keepdims=False), chunk
  )


def settled(population: Population) -> Population:
  """Members whose state is not finite although their losses were, ended too.

  An optimizer's second moment may overflow without a loss that tells of it;
  looked for at every row of the log.
  """
  whole = jax.vmap(all_finite)(population.state.replace(key=None))
  died = population.alive & ~whole
  return population.replace(
    alive=population.alive & whole,
    diverged=jnp.where(died, population.state.step, population.diverged),
  )


def emptied(population: Population) -> Population:
  """With its sums at zero."""
  zero = jax.tree.map(jnp.zeros_like, (population.sums, population.counted))
  return population.replace(sums=zero[0], counted=zero[1])


def taken(tree: PyTree, where: Any) -> PyTree:
  """The same members of every array, which are left as they are."""

  def take(x: Any) -> Any:
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x = jax.random.clone(x)  # looking at a key is no use of it
    return x[where]

  return jax.tree.map(take, tree)
