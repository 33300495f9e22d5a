"""Schedules: in what order the two players of a game are updated.

A schedule is a transform of the same two losses (`game.py`), which it is handed
as `Updates`. To add one, derive a class from `Schedule` and give it an entry in
`SCHEDULES`; the flag and the tests find it there (the tests are
`gan_jax.testing.check_schedule`).
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from gan_jax.game.component import Component, static
from gan_jax.game.game import Aux, Batch, Draw, Logs
from gan_jax.game.objectives import Objective
from gan_jax.game.state import State, norm
from gan_jax.game.streams import stream
from gan_jax.networks.base import Params, Stats
from gan_jax.runtime.errors import ArgumentError

PyTree = Any
Scalar = Float[Array, '']
RngKey = Key[Array, '']
# (params, state, real, key, *, drawn, frozen, penalties) -> (loss, Aux)
Loss = Callable[..., tuple[Scalar, Aux]]


class Gradient(NamedTuple):
  """A player's gradient of its own loss, and what else its update moves."""

  grads: PyTree
  stats: Stats
  memory: dict[str, PyTree]
  logs: Logs


class Updates(NamedTuple):
  """The two losses as pure functions, and the updates that follow them.

  Attributes:
    d_loss: `(d_params, state, real, key, *, drawn=None, frozen=True,
      penalties=True) -> (loss, Aux)`.
    g_loss: `(g_params, ...)` likewise.
    apply_d: `(state, gradient) -> state`: D's optimizer, then the projections
      of its parameters.
    apply_g: likewise of G.
    draw: `(real, key) -> Draw`: what both losses draw from this key.
    accumulate: parts of a batch, whose gradients are taken one after another
      and averaged.
  """

  d_loss: Loss
  g_loss: Loss
  apply_d: Callable[[State, Gradient], State]
  apply_g: Callable[[State, Gradient], State]
  draw: Callable[[Batch, RngKey], Draw]
  accumulate: int = 1

  def d_gradient(
    self, state: State, real: Batch, key: RngKey, **how: Any
  ) -> Gradient:
    """D's gradient at a state, and what else its update moves."""
    return self._accumulated(self._of_d, state, real, key, how)['d']

  def g_gradient(
    self, state: State, real: Batch, key: RngKey, **how: Any
  ) -> Gradient:
    """G's gradient at a state, and what else its update moves."""
    return self._accumulated(self._of_g, state, real, key, how)['g']

  def _of_d(
    self, state: State, real: Batch, key: RngKey, how: dict[str, Any]
  ) -> dict[str, Gradient]:
    params = state.d.params
    return {'d': _gradient('d', self.d_loss, params, state, real, key, how)}

  def _of_g(
    self, state: State, real: Batch, key: RngKey, how: dict[str, Any]
  ) -> dict[str, Gradient]:
    params = state.g.params
    return {'g': _gradient('g', self.g_loss, params, state, real, key, how)}

  def _of_both(
    self, state: State, real: Batch, key: RngKey, how: dict[str, Any]
  ) -> dict[str, Gradient]:
    to_d = self._of_d(state, real, key, how)
    # What D's update has moved of a memory, G's goes on from.
    state = _moved(state, to_d)
    return to_d | self._of_g(state, real, key, how)

  def _accumulated(
    self,
    gradients: Callable[..., dict[str, Gradient]],
    state: State,
    real: Batch,
    key: RngKey,
    how: dict[str, Any],
  ) -> dict[str, Gradient]:
    """Gradients of a batch: those of its parts, one after another, averaged.

    All parts see the same parameters; running statistics and memories move
    with each. The noise is that of the whole batch, split as its samples are.
    """
    if self.accumulate == 1:
      return gradients(state, real, key, how)
    how = dict(how)
    drawn = how.pop('drawn', None) or self.draw(real, key)
    parts = jax.tree.map(self._split, (real, drawn))
    numbers = jnp.arange(self.accumulate)

    def of_part(state: State, part: Any, i: Any) -> dict[str, Gradient]:
      real, drawn = part
      return gradients(
        state, real, stream(key, 'part', i), how | {'drawn': drawn}
      )

    def add(carry: Any, item: Any) -> tuple[Any, None]:
      moving, sums = carry
      now = _with(state, moving)
      found = of_part(now, *item)
      after = _moved(now, found, stats=True)
      shares = {k: (x.grads, x.logs) for k, x in found.items()}
      return (_moving(after), jax.tree.map(jnp.add, sums, shares)), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(lambda: of_part(state, first, 0))
    zeros = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype),
      {k: (x.grads, x.logs) for k, x in shapes.items()},
    )
    (moving, sums), _ = jax.lax.scan(
      add, (_moving(state), zeros), (parts, numbers)
    )
    after = _with(state, moving)
    means = jax.tree.map(lambda x: x / self.accumulate, sums)
    return {
      k: Gradient(
        grads,
        getattr(after, k).stats,
        after.memory,
        logs | {f'{k}/grad_norm': norm(grads)},
      )
      for k, (grads, logs) in means.items()
    }

  def _split(self, x: Array) -> Array:
    """(n, ...) -> (parts, n / parts, ...), each of rows of every device."""
    rows = x.reshape(-1, self.accumulate, *x.shape[1:])
    return jnp.moveaxis(rows, 1, 0)

  def both(
    self, state: State, real: Batch, key: RngKey
  ) -> tuple[Gradient, Gradient]:
    """D's and G's gradient at one point, from one forward pass.

    Both losses get the same key and the same samples: XLA computes G's pass
    once, and D's unless it draws (dropout, augmentation, instance noise) or
    learns from the real samples before (spectral normalisation).
    """
    how = dict(drawn=self.draw(real, key))
    found = self._accumulated(self._of_both, state, real, key, how)
    return found['d'], found['g']

  def apply_both(
    self, state: State, gradients: tuple[Gradient, Gradient]
  ) -> tuple[State, Logs]:
    """Both updates, of gradients that were taken before."""
    to_d, to_g = gradients
    state = self.apply_g(self.apply_d(state, to_d), to_g)
    return state, to_d.logs | to_g.logs

  def field(
    self,
    g_params: Params,
    d_params: Params,
    state: State,
    real: Batch,
    key: RngKey,
    **how: Any,
  ) -> tuple[Params, Params]:
    """Each player's gradient of its own loss, as a function of both players.

    Nothing is frozen: the result may be differentiated by either (consensus
    optimization, the game's Jacobian).

    Returns:
      G's and D's gradient.
    """
    now = state.replace(
      g=state.g.replace(params=g_params), d=state.d.replace(params=d_params)
    )
    how = how | dict(drawn=self.draw(real, key), frozen=False)
    to_g = jax.grad(self.g_loss, has_aux=True)(g_params, now, real, key, **how)
    to_d = jax.grad(self.d_loss, has_aux=True)(d_params, now, real, key, **how)
    return to_g[0], to_d[0]


def _gradient(
  player: str,
  loss: Loss,
  params: Params,
  state: State,
  real: Batch,
  key: RngKey,
  how: dict[str, Any],
) -> Gradient:
  grads, aux = jax.grad(loss, has_aux=True)(params, state, real, key, **how)
  logs = aux.logs | {f'{player}/grad_norm': norm(grads)}
  return Gradient(grads, aux.stats, aux.memory, logs)


def _moved(
  state: State, found: dict[str, Gradient], stats: bool = False
) -> State:
  """A state with the memories, and statistics, that gradients have moved."""
  memory = state.memory
  for player, gradient in found.items():
    moved = {k: v for k, v in gradient.memory.items() if k in memory}
    memory = memory | moved
    if stats:
      now = getattr(state, player).replace(stats=gradient.stats)
      state = state.replace(**{player: now})
  return state.replace(memory=memory)


def _moving(state: State) -> Any:
  """What moves while gradients are accumulated."""
  return state.g.stats, state.d.stats, state.memory


def _with(state: State, moving: Any) -> State:
  g, d, memory = moving
  return state.replace(
    g=state.g.replace(stats=g), d=state.d.replace(stats=d), memory=memory
  )


def half_square(*gradients: PyTree) -> Scalar:
  """`|v|^2 / 2` of a vector field, smooth where it is 0."""
  squares = [jnp.sum(jnp.square(x)) for x in jax.tree.leaves(gradients)]
  return jnp.sum(jnp.stack(squares)) / 2


class Schedule(Component):
  """The order of the players' updates in one step of a game.

  Attributes:
    accumulates: whether all that it needs of a batch are the gradients that
      `Updates` take, so that `accumulate` may split it.
  """

  accumulates: ClassVar[bool] = False

  def real_batches(self, objective: Objective) -> int:
    """Batches of real samples that one step takes."""
    raise NotImplementedError

  def d_updates(self) -> int:
    """Updates of D in a step, each of which shows it a batch of real samples.

    As the field counts images (StyleGAN, EDM): a batch for each of D's updates,
    however often it has seen them. What G's updates look at (relativistic
    games, the look ahead of unrolled ones) does not count.
    """
    return 1

  def update(
    self, u: Updates, state: State, reals: Batch, key: RngKey
  ) -> tuple[State, Logs]:
    """One step: all updates of both players.

    Args:
      u: the losses and the updates that follow them.
      state: before the step.
      reals: real samples (k, n, ...), k of `real_batches`.
      key: of this step; each draw is to be from a stream of it.

    Returns:
      The state after it, and the logs of the last update of each player.
    """
    raise NotImplementedError

  def wrap(
    self, optimizer: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    """A player's optimizer under this schedule."""
    return optimizer


def _at(reals: Batch, i: Any) -> Batch:
  return jax.tree.map(lambda x: x[i], reals)


def _repeat(
  update: Callable[[State, Any], tuple[State, Logs]], state: State, count: int
) -> tuple[State, Logs]:
  """Some updates of one player, by their numbers; the logs of the last.

  A loop, so that what is compiled does not grow with their number.
  """
  if count == 1:
    return update(state, 0)
  # Without the root key, which no update needs and every one would carry.
  bare, logs = jax.lax.scan(update, state.replace(key=None), jnp.arange(count))
  return bare.replace(key=state.key), jax.tree.map(lambda x: x[-1], logs)


class Alternating(Schedule):
  """`d_steps` updates of D, then `g_steps` of G against the D that they made.

  Attributes:
    d_steps: D's updates in a step.
    g_steps: G's updates in a step.
    reuse_noise: one draw of noise for all updates of a step.
    reuse_real: one real batch for all updates of a step.

  Reference: Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1.
  """

  accumulates: ClassVar[bool] = True
  d_steps: int = static(1)
  g_steps: int = static(1)
  reuse_noise: bool = static(False)
  reuse_real: bool = static(False)

  def check(self) -> None:
    """Refuses fewer than one update of a player."""
    for name in ('d_steps', 'g_steps'):
      count = getattr(self, name)
      if not isinstance(count, int) or count < 1:
        raise ArgumentError(name, count, 'use a whole number of 1 or more')

  def real_batches(self, objective: Objective) -> int:
    """One for each update that looks at real samples."""
    if self.reuse_real:
      return 1
    return self.d_steps + (self.g_steps if objective.relativistic else 0)

  def d_updates(self) -> int:
    """`d_steps`."""
    return self.d_steps

  def g_gradient(
    self, u: Updates, state: State, real: Batch, key: RngKey
  ) -> Gradient:
    """G's gradient of one of its updates."""
    return u.g_gradient(state, real, key)

  def _key(self, key: RngKey, player: str, i: Any) -> RngKey:
    """Of the i-th update of a player."""
    if self.reuse_noise:
      return stream(key, 'update')
    return stream(key, player, i)

  def _updates(self, u: Updates, reals: Batch, key: RngKey) -> list[Any]:
    """All updates of D, and all of G, as functions of the state."""
    last = reals.x.shape[0] - 1

    def one_d(state: State, i: Any) -> tuple[State, Logs]:
      real = _at(reals, i if last else 0)
      gradient = u.d_gradient(state, real, self._key(key, 'd', i))
      return u.apply_d(state, gradient), gradient.logs

    def one_g(state: State, i: Any) -> tuple[State, Logs]:
      own = last >= self.d_steps  # relativistic: G is shown some of its own
      real = _at(reals, self.d_steps + i if own else last)
      gradient = self.g_gradient(u, state, real, self._key(key, 'g', i))
      return u.apply_g(state, gradient), gradient.logs

    return [
      lambda state: _repeat(one_d, state, self.d_steps),
      lambda state: _repeat(one_g, state, self.g_steps),
    ]

  def update(
    self, u: Updates, state: State, reals: Batch, key: RngKey
  ) -> tuple[State, Logs]:
    """All updates of D, then all of G."""
    logs: Logs = {}
    for updates in self._updates(u, reals, key):
      state, own_logs = updates(state)
      logs |= own_logs
    return state, logs


class AlternatingGFirst(Alternating):
  """The same, with G's updates before D's."""

  def _updates(self, u: Updates, reals: Batch, key: RngKey) -> list[Any]:
    return super()._updates(u, reals, key)[::-1]


class Unrolled(Alternating):
  """Alternating, with a G that looks `unroll_steps` updates of D ahead.

  G's gradient is taken against the D that would come of some more updates of D
  and flows through them. They are D's own (its optimizer, its rate), on one
  real batch and with noise of their own (unless it is reused), and are then
  forgotten.

  Attributes:
    unroll_steps: D's updates that G looks ahead.

  Reference: Metz et al. 2017, arXiv:1611.02163, equations 7 to 10.
  """

  accumulates: ClassVar[bool] = False
  unroll_steps: int = static(5)

  def check(self) -> None:
    """Refuses to look less than one update ahead."""
    super().check()
    if self.unroll_steps < 1:
      raise ArgumentError('unroll_steps', self.unroll_steps, 'use 1 or more')

  def g_gradient(
    self, u: Updates, state: State, real: Batch, key: RngKey
  ) -> Gradient:
    """G's gradient through the updates of D that it looks ahead."""
    if self.reuse_noise:
      key_loss = jax.random.clone(key)
    else:
      key_loss = stream(key, 'loss')

    def key_ahead(i: Any) -> RngKey:
      return (
        jax.random.clone(key) if self.reuse_noise else stream(key, 'ahead', i)
      )

    keys = jax.random.clone(jax.vmap(key_ahead)(jnp.arange(self.unroll_steps)))

    def loss(
      g_params: Params, state: State, real: Batch, key: RngKey
    ) -> tuple[Scalar, Aux]:
      now = state.replace(g=state.g.replace(params=g_params), key=None)

      def ahead(now: State, key: RngKey) -> tuple[State, None]:
        # A clone: the key-reuse checker takes the way back for a second use.
        key = jax.random.clone(key)
        gradient = u.d_gradient(now, real, key, frozen=False)
        after = u.apply_d(now, gradient)
        return now.replace(d=after.d), None

      now, _ = jax.lax.scan(ahead, now, keys)
      return u.g_loss(g_params, now, real, key, frozen=False)

    return _gradient('g', loss, state.g.params, state, real, key_loss, {})


class Simultaneous(Schedule):
  """Both gradients at one point, then both updates.

  What the code of the 2014 paper did.
  """

  accumulates: ClassVar[bool] = True

  def real_batches(self, objective: Objective) -> int:
    """One, which both players are shown."""
    return 1

  def update(
    self, u: Updates, state: State, reals: Batch, key: RngKey
  ) -> tuple[State, Logs]:
    """Both gradients, then both updates."""
    gradients = u.both(state, _at(reals, 0), stream(key, 'both'))
    return u.apply_both(state, gradients)


class Optimistic(Simultaneous):
  """Simultaneous updates, each twice the last less the one before.

  `2 u_t - u_(t-1)` of whatever update u the optimizer makes; with Adam it is
  Daskalakis et al.'s optimistic Adam.

  Reference: Daskalakis et al. 2018, arXiv:1711.00141, equation 8, algorithm 1.
  """

  def wrap(
    self, optimizer: optax.GradientTransformation
  ) -> optax.GradientTransformation:
    """The optimizer, then twice its update less the one before."""
    return optax.chain(optimizer, optax.scale_by_optimistic_gradient())


class Extragradient(Schedule):
  """Updates both players by the gradients found an update ahead.

  The optimizers' states go through both updates (Gidel et al.'s ExtraAdam).
  Noise and real batch of the second are fresh, unless reused.

  Attributes:
    reuse_noise: one draw of noise for both updates.
    reuse_real: one real batch for both updates.

  Reference: Gidel et al. 2019, arXiv:1802.10551, algorithms 1 and 4.
  """

  accumulates: ClassVar[bool] = True
  reuse_noise: bool = static(False)
  reuse_real: bool = static(False)

  def real_batches(self, objective: Objective) -> int:
    """One for each of the two updates."""
    return 1 if self.reuse_real else 2

  def d_updates(self) -> int:
    """Both, of which each shows D a batch."""
    return 2

  def update(
    self, u: Updates, state: State, reals: Batch, key: RngKey
  ) -> tuple[State, Logs]:
    """To the point ahead, and from here by the gradients there."""
    key_first = stream(key, 'both', 0)
    key_second = key_first if self.reuse_noise else stream(key, 'both', 1)
    first = u.both(state, _at(reals, 0), key_first)
    ahead, _ = u.apply_both(state, first)
    ahead = ahead.replace(memory=state.memory)  # which moves once in a step
    real = _at(reals, reals.x.shape[0] - 1)
    second = u.both(ahead, real, jax.random.clone(key_second))
    back = ahead.replace(
      g=ahead.g.replace(params=state.g.params),
      d=ahead.d.replace(params=state.d.params),
    )
    return u.apply_both(back, second)


class Consensus(Simultaneous):
  """Simultaneous updates that also descend the length of the vector field.

  To each player's gradient comes `weight` times that of `|v|^2 / 2`, v the
  gradients of both (penalties apart).

  Attributes:
    weight: of the field's length.

  Reference: Mescheder et al. 2017, arXiv:1705.10461, algorithm 2.
  """

  accumulates: ClassVar[bool] = False
  weight: float = 0.1

  def check(self) -> None:
    """Refuses a negative weight."""
    if self.weight < 0:
      raise ArgumentError('weight', self.weight, 'use 0 or more')

  def update(
    self, u: Updates, state: State, reals: Batch, key: RngKey
  ) -> tuple[State, Logs]:
    """Both gradients with the pull of the field's length, both updates."""
    real, key = _at(reals, 0), stream(key, 'both')
    to_d, to_g = u.both(state, real, key)

    def length(g_params: Params, d_params: Params) -> Scalar:
      v = u.field(g_params, d_params, state, real, key, penalties=False)
      return half_square(*v)

    size, pulls = jax.value_and_grad(length, (0, 1))(
      state.g.params, state.d.params
    )

    def pulled(gradient: Gradient, pull: PyTree) -> Gradient:
      weight = jnp.asarray(self.weight)
      grads = jax.tree.map(lambda g, p: g + weight * p, gradient.grads, pull)
      return gradient._replace(grads=grads)

    gradients = pulled(to_d, pulls[1]), pulled(to_g, pulls[0])
    state, logs = u.apply_both(state, gradients)
    return state, logs | {'game/half_square': size}


SCHEDULES: dict[str, type[Schedule]] = {
  'alternating': Alternating,
  'alternating_g_first': AlternatingGFirst,
  'simultaneous': Simultaneous,
  'optimistic': Optimistic,
  'extragradient': Extragradient,
  'consensus': Consensus,
  'unrolled': Unrolled,
}
alternating = Alternating
alternating_g_first = AlternatingGFirst
simultaneous = Simultaneous
optimistic = Optimistic
extragradient = Extragradient
consensus = Consensus
unrolled = Unrolled
