"""A population: many runs of one game, seeds and numbers apart, as one program.

Member i is the run that the trainer would make of its key, its hyper-parameters
and its data alone. A member whose losses or gradients are not finite is frozen
where it was before that step, and the others go on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key
from numpy.typing import NDArray

from gan_jax.game.game import Logs
from gan_jax.game.state import Node, State, all_finite, count_parameters
from gan_jax.game.streams import check_seed
from gan_jax.game.trainer import Trainer
from gan_jax.runtime import multihost
from gan_jax.runtime.errors import ArgumentError

PyTree = Any
MemberLogs = dict[str, Float[Array, ' members']]
# How a device goes through its members: `vmap` one step of all of them at a
# time, `map` all steps of one member after another.
LAYOUTS = ('vmap', 'map')
# On CPU a step that multiplies more than this keeps a core busy by itself, and
# vmap no longer pays: see experiments/speed/population.
VMAP_MOST = 2**19
# And what a block of members multiplies at a time there, so that it fits into
# the cache: experiments/speed/population/members.py.
BLOCK_WORK = 2**21


class PopulationState(Node):
  """All that training changes; arrays have a leading axis of members.

  Attributes:
    members: the members' states. Their `step` is one for all of them, without
      that axis: what depends on it alone (lazy penalties) stays a branch.
    alive: (members,) whether a member is still trained.
    diverged: (members,) int32, the step whose losses or gradients were not
      finite, counted from 1; 0 for those that have not diverged. The state is
      that of the step before.
  """

  members: State
  alive: Any
  diverged: Any


def _axes(state: State) -> Any:
  """Which axis of each leaf of a state is that of the members."""
  axes: State = jax.tree.map(lambda _: 0, state)
  return axes.replace(step=None)


def _update(
  trainer: Trainer, members: PopulationState, batch: PyTree
) -> tuple[PopulationState, Logs]:
  """One member after one more step, or frozen where it was."""
  state, logs = trainer.step(members.members, batch)
  finite = all_finite(logs)
  ok = members.alive & finite
  died = members.alive & ~finite
  now = _where(ok, state, members.members)
  diverged = jnp.where(died, members.members.step + 1, members.diverged)
  return PopulationState(now, ok, diverged), logs


def _where(ok: Any, new: State, old: State) -> State:
  """`new` where ok; the root key never changes, and the step always does."""
  bare = dict(key=None, step=None)
  chosen = jax.tree.map(
    lambda a, b: jnp.where(ok, a, b), new.replace(**bare), old.replace(**bare)
  )
  return chosen.replace(key=old.key, step=new.step)


def step_members(
  trainer: Trainer, now: PopulationState, batch: PyTree, *, shared: bool = False
) -> tuple[PopulationState, MemberLogs]:
  """One step of all members at once; logs (members,).

  Args:
    trainer: of the game.
    now: before the step.
    batch: a step's, with an axis of members before it unless it is shared.
    shared: whether all members are shown one batch.
  """
  axes = PopulationState(_axes(now.members), 0, 0)
  step: Any = jax.vmap(
    lambda now, batch: _update(trainer, now, batch),
    in_axes=(axes, None if shared else 0),
    out_axes=(axes, 0),
  )
  moved: tuple[PopulationState, MemberLogs] = step(now, batch)
  return moved


def _check_vary(
  trainer: Trainer,
  members: int,
  vary: Mapping[str, Sequence[float] | NDArray[Any]],
) -> dict[str, NDArray[np.float32]]:
  paths = trainer.hyperparameters()
  checked = {}
  for path, values in vary.items():
    if path not in paths:
      raise ArgumentError(
        'vary',
        path,
        f'no such hyper-parameter; there are {", ".join(paths)}',
      )
    numbers = np.asarray(values, np.float32)
    if numbers.shape != (members,):
      raise ArgumentError(
        'vary',
        path,
        f'give one number for each of {members} members, not {numbers.shape}',
      )
    for number in numbers:
      trainer.at({path: float(number)})  # which checks itself
    checked[path] = numbers
  return checked


class Population:
  """Many runs of one game as one program: see `population`.

  Attributes:
    trainer: of the game.
    seeds: of the members.
    vary: hyper-parameters by path, one value a member.
    layout: `vmap` or `map`.
  """

  def __init__(
    self,
    trainer: Trainer,
    seeds: Sequence[int],
    vary: Mapping[str, Sequence[float] | NDArray[Any]] | None = None,
    *,
    layout: Literal['auto', 'vmap', 'map'] = 'auto',
  ) -> None:
    """See `population`."""
    if not isinstance(trainer, Trainer):
      raise ArgumentError('trainer', type(trainer).__name__, 'give a `Trainer`')
    self.trainer = trainer
    self.seeds = tuple(int(seed) for seed in seeds)
    if not self.seeds:
      raise ArgumentError('seeds', seeds, 'give one or more')
    for seed in self.seeds:
      check_seed('seeds', seed)
    if layout not in ('auto', *LAYOUTS):
      raise ArgumentError('layout', layout, 'use auto, vmap or map')
    self.vary = _check_vary(trainer, len(self.seeds), vary or {})
    self._layout = layout

  def __len__(self) -> int:
    """How many members there are."""
    return len(self.seeds)

  @property
  def layout(self) -> str:
    """How members are gone through by `step`, chosen for batches of 64."""
    if self._layout != 'auto':
      return self._layout
    shapes = jax.eval_shape(self.trainer.init, jax.random.key(0))
    platform = jax.default_backend()
    return choose_layout((shapes.g.params, shapes.d.params), 64, platform)

  def init(self) -> PopulationState:
    """All members before their first step."""
    keys = jax.vmap(jax.random.key)(np.asarray(self.seeds, np.uint32))
    return init_members(self.trainer, keys, self.vary)

  def step(
    self, state: PopulationState, batch: Any, *, shared: bool = True
  ) -> tuple[PopulationState, MemberLogs]:
    """One step of every member: pure; jit, scan and donate it.

    Args:
      state: before it.
      batch: as `Trainer.step` takes it; with an axis of members before it
        unless all of them are shown one (`shared`).
      shared: see `batch`.

    Returns:
      The state after it, and logs (members,) by name.
    """
    if self.layout == 'vmap':
      return step_members(self.trainer, state, batch, shared=shared)
    whole = state.members.replace(step=None)

    def one(member: Any) -> Any:
      bare, alive, diverged, own = member
      now = bare.replace(step=state.members.step)
      moved, logs = _update(
        self.trainer,
        PopulationState(now, alive, diverged),
        batch if shared else own,
      )
      return moved.replace(members=moved.members.replace(step=None)), logs

    own = None if shared else batch
    moved, logs = jax.lax.map(one, (whole, state.alive, state.diverged, own))
    after = moved.members.replace(step=state.members.step + 1)
    return moved.replace(members=after), logs

  def member(self, state: PopulationState, i: int) -> State:
    """The state of one member, as its run alone would have it."""
    return member(state, i)


def population(
  trainer: Trainer,
  seeds: Sequence[int],
  vary: Mapping[str, Sequence[float] | NDArray[Any]] | None = None,
  *,
  layout: Literal['auto', 'vmap', 'map'] = 'auto',
) -> Population:
  """Many runs of one game, as one compiled program.

  Args:
    trainer: of the game.
    seeds: of the members.
    vary: hyper-parameters by path (`objective.temperature`), one value for
      each member.
    layout: `vmap` (all members at once), `map` (one after another), or auto:
      what measured fastest for such networks on such a device.

  Raises:
    ArgumentError: for an unknown path, or another number of values.
  """
  return Population(trainer, seeds, vary, layout=layout)


def init_members(
  trainer: Trainer, keys: Key[Array, ' members'], vary: Mapping[str, Any]
) -> PopulationState:
  """All members before their first step, from their keys and numbers.

  Raises:
    ArgumentError: for keys of another generator than threefry, of which vmap
      would draw other numbers than a run alone.
  """
  if jax.random.key_impl(keys) != 'threefry2x32':
    raise ArgumentError(
      'jax_default_prng_impl',
      jax.random.key_impl(keys),
      'a population draws the numbers of its runs alone with threefry2x32 only',
    )
  state = jax.vmap(trainer.init)(keys, dict(vary))
  count = keys.shape[0]
  return PopulationState(
    state.replace(step=jnp.int32(0)),
    jnp.ones(count, bool),
    jnp.zeros(count, jnp.int32),
  )


def member(state: PopulationState, i: int) -> State:
  """The state of one member, as its run alone would have it."""
  own = select_members(state.members.replace(step=None), i)
  last = jnp.asarray(state.diverged)[i]
  step = jnp.where(last > 0, last - 1, state.members.step).astype(jnp.int32)
  return own.replace(step=step)


def choose_layout(params: PyTree, batch_size: int, platform: str) -> str:
  """The layout that measured fastest for such nets on such a device.

  A function of its arguments and not of a clock: layouts round differently,
  and a run must be the same when it is made again.
  """
  if platform != 'cpu':
    return 'vmap'
  convolutional = any(x.ndim > 2 for x in jax.tree.leaves(params))
  work = count_parameters(params) * batch_size
  return 'map' if convolutional or work > VMAP_MOST else 'vmap'


def choose_block(
  params: PyTree, batch_size: int, platform: str, members: int
) -> int:
  """How many members of a device vmap goes through at a time.

  On CPU the divisor of `members` that is nearest to what the cache has room
  for, and at least half of it; all of them where there is none, and elsewhere.

  >>> import numpy as np
  >>> choose_block(np.zeros(2048), 64, 'cpu', 96)
  16
  >>> choose_block(np.zeros(2048), 64, 'cpu', 97)
  97
  """
  if platform != 'cpu':
    return members
  most = BLOCK_WORK / max(1, count_parameters(params) * batch_size)
  sizes = [n for n in range(1, members + 1) if members % n == 0]
  near = [n for n in sizes if most / 2 <= n <= 2 * most]
  if members <= most or not near:
    return members
  return min(near, key=lambda n: abs(math.log(n / most)))


def select_members(tree: PyTree, where: Any) -> PyTree:
  """The same members of every array, which are left as they are."""

  def take(x: Any) -> Any:
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x = jax.random.clone(x)  # looking at a key is no use of it
    return x[where]

  return jax.tree.map(take, tree)


# The compiled loop of a population over devices.


class Progress(Node):
  """A population in a compiled loop, with the sums of its logs.

  Attributes:
    now: the population.
    sums: each log, summed over `counted` steps, (members,).
    counted: (members,) int32, steps since the sums were last at zero.
  """

  now: PopulationState
  sums: dict[str, Any]
  counted: Any


_AXIS = ('members',)
_SPLIT = PartitionSpec('members')
_WHOLE = PartitionSpec()


def make_mesh(members: int, devices: Sequence[Any] | None = None) -> Mesh:
  """The devices that a population is laid over, no more than its members."""
  every = list(multihost.devices() if devices is None else devices)
  return Mesh(np.asarray(every[: max(1, min(members, len(every)))]), _AXIS)


def padded_count(members: int, mesh: Mesh) -> int:
  """Member count padded to a multiple of the device count."""
  return -(-members // mesh.size) * mesh.size


def specs(progress: Progress) -> Progress:
  """Partition of every leaf: members over the devices, the step on all."""
  split = jax.tree.map(lambda _: _SPLIT, progress)
  state = split.now.members.replace(step=_WHOLE)
  return split.replace(now=split.now.replace(members=state))


def shardings(progress: Progress, mesh: Mesh) -> Progress:
  """Shardings of every leaf."""
  return jax.tree.map(
    lambda spec: NamedSharding(mesh, spec),
    specs(progress),
    is_leaf=lambda x: isinstance(x, PartitionSpec),
  )


def split(mesh: Mesh) -> NamedSharding:
  """Members over the devices."""
  return NamedSharding(mesh, _SPLIT)


def whole(mesh: Mesh) -> NamedSharding:
  """On every device."""
  return NamedSharding(mesh, _WHOLE)


def put(tree: PyTree, placement: PyTree) -> PyTree:
  """Arrays laid over the devices by shardings, as copies."""
  copy = jax.jit(lambda t: jax.tree.map(jnp.copy, t), out_shardings=placement)
  return copy(tree)


def _steps(
  progress: Progress, step: Callable[..., Any], count: Int[Array, '']
) -> Progress:
  """`count` steps, or as many as there is somebody alive for.

  A member's logs are added where it has made a step; all as one array, which is
  a kernel for all of them.
  """
  names = sorted(progress.sums)

  def more(carry: Any) -> Any:
    i, now, _, _ = carry
    return (i < count) & jnp.any(now.alive)

  def body(carry: Any) -> Any:
    i, now, totals, counted = carry
    now, logs = step(now, i)
    rows = jnp.stack([logs[name] for name in names])
    totals += jnp.where(now.alive, rows, 0.0)
    return i + 1, now, totals, counted + now.alive

  totals = jnp.stack([progress.sums[name] for name in names])
  start = jnp.int32(0), progress.now, totals, progress.counted
  _, now, totals, counted = jax.lax.while_loop(more, body, start)
  return Progress(now, dict(zip(names, totals, strict=True)), counted)


def make_advance(
  trainer: Trainer,
  batch_of: Callable[[PyTree, PyTree, State], PyTree],
  layout: str,
  mesh: Mesh,
  like: Progress,
  block: int = 0,
) -> Callable[..., Progress]:
  """The function that is compiled: `count` steps of every member.

  `(progress, constants, chunk, count) -> progress`; `chunk`, which has an axis
  of steps behind it, has an axis of members, `constants` are shared. No device
  waits for another. The step counts on when nobody is alive.

  Args:
    trainer: of the game.
    batch_of: `(constants, item, state) -> batch` of one member's step.
    layout: one of `LAYOUTS`.
    mesh: the devices.
    like: a population's shapes.
    block: of members that vmap goes through at a time, a divisor of those of
      a device; 0: all of them.
  """

  def vmapped(progress: Progress, constants: Any, chunk: Any, n: Any) -> Any:
    axes = PopulationState(_axes(progress.now.members), 0, 0)

    def one(now: PopulationState, item: Any) -> Any:
      batch = batch_of(constants, item, now.members)
      return _update(trainer, now, batch)

    step = jax.vmap(one, in_axes=(axes, 0), out_axes=(axes, 0))
    return _steps(progress, lambda now, i: step(now, _item(chunk, i, 1)), n)

  def mapped(progress: Progress, constants: Any, chunk: Any, n: Any) -> Any:
    start = progress.now.members.step

    def alone(own: Any) -> Progress:
      progress, chunk = own
      progress = _with_step(progress, start)

      def step(now: PopulationState, i: Any) -> Any:
        batch = batch_of(constants, _item(chunk, i, 0), now.members)
        return _update(trainer, now, batch)

      return _without_step(_steps(progress, step, n))

    moved = jax.lax.map(alone, (_without_step(progress), chunk))
    return _with_step(moved, start)

  def blocked(progress: Progress, constants: Any, chunk: Any, n: Any) -> Any:
    start, count = progress.now.members.step, progress.now.alive.shape[0]
    if block in (0, count):
      return vmapped(progress, constants, chunk, n)

    def together(own: Any) -> Progress:
      progress, chunk = own
      return _without_step(
        vmapped(_with_step(progress, start), constants, chunk, n)
      )

    own = (_without_step(progress), chunk)
    own = jax.tree.map(lambda x: x.reshape(-1, block, *x.shape[1:]), own)
    moved = jax.lax.map(together, own)
    moved = jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), moved)
    return _with_step(moved, start)

  def advance(progress: Progress, constants: Any, chunk: Any, n: Any) -> Any:
    start = progress.now.members.step
    inner = blocked if layout == 'vmap' else mapped
    return _with_step(inner(progress, constants, chunk, n), start + n)

  where = specs(like)
  return jax.shard_map(
    advance,
    mesh=mesh,
    in_specs=(where, _WHOLE, _SPLIT, _WHOLE),
    out_specs=where,
    check_vma=False,
  )


def _without_step(progress: Progress) -> Progress:
  return _with_step(progress, None)


def _with_step(progress: Progress, step: Any) -> Progress:
  members = progress.now.members.replace(step=step)
  return progress.replace(now=progress.now.replace(members=members))


def _item(chunk: PyTree, i: Any, axis: int) -> PyTree:
  """One step of a chunk whose axis of steps is this one."""
  return jax.tree.map(
    lambda x: jax.lax.dynamic_index_in_dim(x, i, axis, keepdims=False), chunk
  )


def mark_diverged(now: PopulationState) -> PopulationState:
  """Ends members whose state is not finite although their losses were.

  An optimizer's second moment may overflow without a loss that tells of it;
  looked for at every row of the log.
  """
  bare = now.members.replace(key=None, step=None)
  finite = jax.vmap(all_finite)(bare)
  died = now.alive & ~finite
  return now.replace(
    alive=now.alive & finite,
    diverged=jnp.where(died, now.members.step, now.diverged),
  )


def reset_sums(progress: Progress) -> Progress:
  """With its sums at zero."""
  sums, counted = jax.tree.map(
    jnp.zeros_like, (progress.sums, progress.counted)
  )
  return progress.replace(sums=sums, counted=counted)


def mean_logs(progress: Progress) -> MemberLogs:
  """Each log's mean since the sums were last at zero; NaN without a step."""
  return {k: x / progress.counted for k, x in progress.sums.items()}
