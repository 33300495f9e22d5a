"""Schedules: in what order the two moves of a game are played.

Transforms of the same two losses (`game.py`). One is a function `(plan, state,
hyper, batch, key) -> (state, metrics)` and an entry of `SCHEDULES`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from gan_jax.game import losses as game_lib
from gan_jax.game.losses import Batch, Metrics
from gan_jax.game.plan import Plan
from gan_jax.game.regularizers import LECAM_DECAY
from gan_jax.game.state import Anchors, GANState, Hyper, Player, norm

PyTree = Any
_SALT = 0x4EA1  # sets the real batches of G's moves apart from its noise
Scalar = Float[Array, '']


def _move(
  player: Player,
  grads: PyTree,
  stats: PyTree,
  optimizer: optax.GradientTransformation,
  rate: Scalar,
) -> Player:
  """One update of one player: descend its own loss."""
  updates, opt_state = optimizer.update(grads, player.opt_state, player.params)
  updates = jax.tree.map(lambda u: -rate * u, updates)
  params = optax.apply_updates(player.params, updates)
  return Player(params, stats, opt_state)


def _penalty_factor(plan: Plan, step: Int[Array, '']) -> Any:
  """Applies D's penalties every so many steps, so many times as heavy.

  The mean of D's gradient is thus what it is without. StyleGAN2 also multiplies
  the learning rate by c = k / (k + 1) and takes the betas to the power c: there
  a penalty is a step of the optimizer by itself, of which k steps have k + 1.
  Here it joins the loss of its step, so that there are no more steps than
  before, and nothing to correct.

  Reference: Karras et al. 2020 (StyleGAN2), arXiv:1912.04958, appendix B.
  """
  every = plan.penalty_every
  if every == 1:
    return None

  def factor(compute: Callable[[], Metrics]) -> Metrics:
    def due() -> Metrics:
      return jax.tree.map(lambda x: every * x, compute())

    shapes = jax.eval_shape(compute)
    none = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    found: Metrics = jax.lax.cond(step % every == 0, due, lambda: none)
    return found

  return factor


def d_gradient(
  plan: Plan,
  state: GANState,
  hyper: Hyper,
  real: Any,
  key: Any,
  drawn: game_lib.Drawn | None = None,
) -> tuple[PyTree, PyTree, Metrics]:
  """D's gradient, its moved statistics and its metrics."""
  loss = jax.grad(game_lib.discriminator_loss, has_aux=True)
  grads, (stats, metrics) = loss(
    state.d.params,
    state,
    plan.game,
    real,
    key,
    hyper,
    plan.noise_std(hyper, state.step),
    drawn=drawn,
    penalty_factor=_penalty_factor(plan, state.step),
  )
  metrics['d/grad_norm'] = norm(grads)
  return grads, stats, metrics


def g_gradient(
  plan: Plan,
  state: GANState,
  hyper: Hyper,
  real: Any,
  key: Any,
  drawn: game_lib.Drawn | None = None,
) -> tuple[PyTree, PyTree, Metrics]:
  """G's gradient, its moved statistics and its metrics."""
  loss = jax.grad(game_lib.generator_loss, has_aux=True)
  std = plan.noise_std(hyper, state.step)
  grads, (stats, metrics) = loss(
    state.g.params, state, plan.game, real, key, hyper, std, drawn=drawn
  )
  metrics['g/grad_norm'] = norm(grads)
  return grads, stats, metrics


def _g_gradient_ahead(
  plan: Plan, state: GANState, hyper: Hyper, real: Any, key: Any
) -> tuple[PyTree, PyTree, Metrics]:
  """G's gradient against the D that would come of some more moves of D.

  It flows through those moves. They are D's own (its optimizer, its rate), on
  one real batch and with noise of their own (unless it is reused), and are then
  forgotten.

  Reference: Metz et al. 2017, arXiv:1611.02163, equations 7 to 10.
  """
  std = plan.noise_std(hyper, state.step)
  rate = plan.rate_factor(state.step) * hyper.lr_d
  _, opt_d = plan.optimizers(hyper, state.step)
  through: Any = dict(frozen=lambda x: x)
  # With the penalties of this step's own turn, if they are lazy.
  factor = _penalty_factor(plan, state.step)
  ahead_as: Any = through | dict(penalty_factor=factor)
  if plan.reuse_noise:
    same = [jax.random.clone(key) for _ in range(plan.unroll_steps)]
    keys, key_loss = jax.random.clone(jnp.stack(same)), jax.random.clone(key)
  else:
    key_ahead, key_loss = jax.random.split(key)
    keys = jax.random.split(key_ahead, plan.unroll_steps)

  def loss(g_params: Any) -> Any:
    now = state.replace(g=state.g.replace(params=g_params))

    def ahead(d: Player, key: Any) -> tuple[Player, None]:
      # A clone: the key-reuse checker takes the way back for a second use.
      key = jax.random.clone(key)
      grads, (stats, _) = jax.grad(game_lib.discriminator_loss, has_aux=True)(
        d.params, now.replace(d=d), plan.game, real, key, hyper, std, **ahead_as
      )
      return _clipped(plan, hyper, _move(d, grads, stats, opt_d, rate)), None

    d, _ = jax.lax.scan(ahead, state.d, keys)
    return game_lib.generator_loss(
      g_params,
      now.replace(d=d),
      plan.game,
      real,
      key_loss,
      hyper,
      std,
      **through,
    )

  grads, (stats, metrics) = jax.grad(loss, has_aux=True)(state.g.params)
  metrics['g/grad_norm'] = norm(grads)
  return grads, stats, metrics


def _clipped(plan: Plan, hyper: Hyper, player: Player) -> Player:
  """D within the bounds that the game lays on its parameters."""
  params = player.params
  for term in plan.game.regularizers:
    project = term.entry.project
    if project is not None:
      params = project(params, hyper.penalties[term.key])
  return player.replace(params=params)


def _moved_d(
  plan: Plan, hyper: Hyper, state: GANState, gradient: Any
) -> tuple[GANState, Metrics]:
  """D's move, and all that goes with it."""
  grads, stats, metrics = gradient
  _, optimizer = plan.optimizers(hyper, state.step)
  rate = plan.rate_factor(state.step) * hyper.lr_d
  d = _clipped(plan, hyper, _move(state.d, grads, stats, optimizer, rate))
  anchors = state.anchors
  if anchors is not None:
    real, fake = metrics['d/logit_real'], metrics['d/logit_fake']
    anchors = Anchors(
      real=real + LECAM_DECAY * (anchors.real - real),
      fake=fake + LECAM_DECAY * (anchors.fake - fake),
    )
  return state.replace(d=d, anchors=anchors), metrics


def _moved_g(
  plan: Plan, hyper: Hyper, state: GANState, gradient: Any
) -> tuple[GANState, Metrics]:
  """G's move."""
  grads, stats, metrics = gradient
  optimizer, _ = plan.optimizers(hyper, state.step)
  rate = plan.rate_factor(state.step) * hyper.lr_g
  g = _move(state.g, grads, stats, optimizer, rate)
  return state.replace(g=g), metrics


def real_batch(plan: Plan, item: Any, key: Any) -> Batch:
  """Real samples of an item of the data, where the devices want them."""
  found = plan.decode(item, key)
  batch = Batch(*found) if isinstance(found, tuple) else Batch(found)
  label = None if batch.label is None else plan.game.shard(batch.label)
  return Batch(plan.game.shard(batch.x), label)


def _at(tree: Any, i: Any) -> Any:
  return jax.tree.map(lambda x: x[i], tree)


def _turns(
  move: Callable[[GANState, Any], tuple[GANState, Metrics]],
  state: GANState,
  turns: list[Any],
) -> tuple[GANState, Metrics]:
  """Some moves of one player; the metrics are those of the last."""
  if len(turns) == 1:
    return move(state, turns[0])
  reals = jax.tree.map(lambda *x: jnp.stack(x), *[real for real, _ in turns])
  # Cloned, for the key-reuse checker takes stacking for a use.
  keys = jax.random.clone(jnp.stack([key for _, key in turns]))
  # Without the root key, which no move needs and every one would carry.
  bare, metrics = jax.lax.scan(move, state.replace(key=None), (reals, keys))
  return bare.replace(key=state.key), _at(metrics, -1)


def _in_turn(
  plan: Plan,
  state: GANState,
  hyper: Hyper,
  batch: Any,
  key: Any,
  *,
  g_first: bool = False,
  g_gradient: Any = g_gradient,
) -> tuple[GANState, Metrics]:
  """All moves of D, then all moves of G, or the other way round."""
  key_d, key_g = jax.random.split(key)
  turns = [
    tuple(jax.random.split(k)) for k in jax.random.split(key_d, plan.d_steps)
  ]
  keys_d = [k for _, k in turns]
  keys_g = [key_g]
  if plan.g_steps > 1:
    keys_g = list(jax.random.split(key_g, plan.g_steps))
  keys_real = [k for k, _ in turns] + [
    jax.random.fold_in(jax.random.clone(k), _SALT) for k in keys_g
  ]
  if plan.reuse_noise:
    one = keys_d[0]
    keys_d = [jax.random.clone(one) for _ in keys_d]
    keys_g = [jax.random.clone(one) for _ in keys_g]
  last = plan.real_batches - 1
  reals = [
    real_batch(plan, _at(batch, i), keys_real[i]) for i in range(last + 1)
  ]
  turns_d = [(reals[min(i, last)], k) for i, k in enumerate(keys_d)]
  turns_g = [
    (reals[min(plan.d_steps + i, last)], k) for i, k in enumerate(keys_g)
  ]

  def d_move(state: GANState, turn: Any) -> tuple[GANState, Metrics]:
    gradient = d_gradient(plan, state, hyper, *turn)
    return _moved_d(plan, hyper, state, gradient)

  def g_move(state: GANState, turn: Any) -> tuple[GANState, Metrics]:
    gradient = g_gradient(plan, state, hyper, *turn)
    return _moved_g(plan, hyper, state, gradient)

  order = [(d_move, turns_d), (g_move, turns_g)]
  metrics: Metrics = {}
  for move, turns in reversed(order) if g_first else order:
    state, found = _turns(move, state, turns)
    metrics |= found
  return state, metrics


def alternating(
  plan: Plan, state: GANState, hyper: Hyper, batch: Any, key: Any
) -> tuple[GANState, Metrics]:
  """`d_steps` moves of D, then `g_steps` of G against the D that they made.

  Every move draws its noise anew, unless `reuse_noise`. Reference: Goodfellow
  et al. 2014, arXiv:1406.2661, algorithm 1.
  """
  return _in_turn(plan, state, hyper, batch, key)


def alternating_g_first(
  plan: Plan, state: GANState, hyper: Hyper, batch: Any, key: Any
) -> tuple[GANState, Metrics]:
  """The same, with G's moves before D's."""
  return _in_turn(plan, state, hyper, batch, key, g_first=True)


def unrolled(
  plan: Plan, state: GANState, hyper: Hyper, batch: Any, key: Any
) -> tuple[GANState, Metrics]:
  """Alternating, with a G that looks `unroll_steps` moves of D ahead.

  Reference: Metz et al. 2017, arXiv:1611.02163.
  """
  return _in_turn(plan, state, hyper, batch, key, g_gradient=_g_gradient_ahead)


def _both_gradients(
  plan: Plan, state: GANState, hyper: Hyper, real: Any, key: Any
) -> tuple[Any, Any]:
  """D's and G's gradient at one point, from one forward pass.

  Both losses get the same key and the same samples: XLA computes G's pass once,
  and D's unless it draws (dropout, augmentation, instance noise) or learns from
  the real samples before (spectral normalisation).
  """
  again = jax.random.clone(key)  # tells the key-reuse checker: on purpose
  drawn = game_lib.draw(plan.game, plan.batch_size, jax.random.clone(key))
  to_d = d_gradient(plan, state, hyper, real, key, drawn)
  return to_d, g_gradient(plan, state, hyper, real, again, drawn)


def _both_moved(
  plan: Plan, hyper: Hyper, state: GANState, gradients: tuple[Any, Any]
) -> tuple[GANState, Metrics]:
  state, d_metrics = _moved_d(plan, hyper, state, gradients[0])
  state, g_metrics = _moved_g(plan, hyper, state, gradients[1])
  return state, d_metrics | g_metrics


def simultaneous(
  plan: Plan, state: GANState, hyper: Hyper, batch: Any, key: Any
) -> tuple[GANState, Metrics]:
  """Both gradients at one point, then both moves.

  What the code of the 2014 paper did. Under `optimistic`, which is this with
  other optimizers (`Plan.optimizers`), each move is twice the last less the one
  before: Daskalakis et al. 2018, arXiv:1711.00141, equation 8 and algorithm 1.
  """
  key_data, key_loss = jax.random.split(key)
  real = real_batch(plan, _at(batch, 0), key_data)
  gradients = _both_gradients(plan, state, hyper, real, key_loss)
  return _both_moved(plan, hyper, state, gradients)


def extragradient(
  plan: Plan, state: GANState, hyper: Hyper, batch: Any, key: Any
) -> tuple[GANState, Metrics]:
  """Moves both players by the gradients found a move ahead.

  The optimizers' states go through both moves (Gidel et al.'s ExtraAdam).
  Noise and real batch of the second are fresh, unless reused.

  Reference: Gidel et al. 2019, arXiv:1802.10551, algorithms 1 and 4.
  """
  key_a, key_b = jax.random.split(key)
  key_data, key_loss = jax.random.split(key_a)
  real = real_batch(plan, _at(batch, 0), key_data)
  first = _both_gradients(plan, state, hyper, real, key_loss)
  ahead, _ = _both_moved(plan, hyper, state, first)
  key_data, key_other = jax.random.split(key_b)
  if not plan.reuse_real:
    real = real_batch(plan, _at(batch, 1), key_data)
  if plan.reuse_noise:
    key_other = jax.random.clone(key_loss)
  second = _both_gradients(plan, ahead, hyper, real, key_other)
  back = ahead.replace(
    g=ahead.g.replace(params=state.g.params),
    d=ahead.d.replace(params=state.d.params),
    anchors=state.anchors,
  )
  return _both_moved(plan, hyper, back, second)


def consensus(
  plan: Plan, state: GANState, hyper: Hyper, batch: Any, key: Any
) -> tuple[GANState, Metrics]:
  """Simultaneous moves that also descend the length of the vector field.

  To each player's gradient comes `Hyper.consensus` times that of `|v|^2 / 2`,
  v the gradients of both (penalties apart).

  Reference: Mescheder et al. 2017, arXiv:1705.10461, algorithm 2.
  """
  key_data, key_loss = jax.random.split(key)
  real = real_batch(plan, _at(batch, 0), key_data)
  again = jax.random.clone(key_loss)
  gradients = _both_gradients(plan, state, hyper, real, key_loss)
  plain = plan.game._replace(regularizers=())
  std = plan.noise_std(hyper, state.step)

  def length(g_params: Any, d_params: Any) -> Scalar:
    v = game_lib.vector_field(
      g_params, d_params, state, plain, real, again, hyper, std
    )
    return game_lib.half_square(*v)

  size, (to_g, to_d) = jax.value_and_grad(length, (0, 1))(
    state.g.params, state.d.params
  )

  def pulled(gradient: Any, pull: Any) -> Any:
    grads, stats, metrics = gradient
    weight = jnp.asarray(hyper.consensus)
    grads = jax.tree.map(lambda g, p: g + weight * p, grads, pull)
    return grads, stats, metrics

  state, metrics = _both_moved(
    plan, hyper, state, (pulled(gradients[0], to_d), pulled(gradients[1], to_g))
  )
  return state, metrics | {'game/half_square': size}


SCHEDULES: dict[str, Callable[..., tuple[GANState, Metrics]]] = {
  'alternating': alternating,
  'alternating_g_first': alternating_g_first,
  'simultaneous': simultaneous,
  'optimistic': simultaneous,
  'extragradient': extragradient,
  'consensus': consensus,
  'unrolled': unrolled,
}
