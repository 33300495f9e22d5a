"""Update schedules: how the two moves of a game are played, step after step.

A train step is a pure function `(state, hyper, batch) -> (state, metrics)`; it
knows nothing of flags, files or devices. A schedule is one function and one
entry of `SCHEDULES`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from gan_jax import game as game_lib
from gan_jax.game import Game, Metrics
from gan_jax.optimizers import OPTIMIZERS, rate_factor
from gan_jax.state import Average, GANState, Hyper, Player, norm

PyTree = Any
Scalar = Float[Array, '']
# (item of the data feed, key) -> real samples; identity when the batch is
# already what D should see.
Decode = Callable[[Any, Key[Array, '']], Float[Array, 'batch *shape']]
TrainStep = Callable[[GANState, Hyper, Any], tuple[GANState, Metrics]]


def _as_is(item: Any, key: Key[Array, '']) -> Any:
  del key
  return item


@dataclasses.dataclass(frozen=True)
class Plan:
  """The static half of a step; a change of any of these compiles anew.

  Attributes:
    game: networks and objective.
    batch_size: samples of each kind in one move.
    steps: generator updates of the whole run (learning-rate schedules).
    schedule: a key of `SCHEDULES`.
    d_steps: D's moves for each of G's.
    optimizer_g: a key of `OPTIMIZERS`, for G.
    optimizer_d: a key of `OPTIMIZERS`, for D.
    clip_g: whether G's gradient is clipped to the norm `Hyper.clip_g`.
    clip_d: whether D's gradient is clipped to the norm `Hyper.clip_d`.
    lr_schedule: a key of `optimizers.DECAYS`.
    lr_warmup: generator updates of linear warm-up.
    lr_final: the learning rates' factor at the end.
    instance_noise: whether `Hyper.instance_noise` is added to D's inputs.
    average: whether an exponential moving average of G is kept.
    decode: turns an item of the data feed into real samples.
  """

  game: Game
  batch_size: int
  steps: int = 1
  schedule: str = 'alternating'
  d_steps: int = 1
  optimizer_g: str = 'adam'
  optimizer_d: str = 'adam'
  clip_g: bool = False
  clip_d: bool = False
  lr_schedule: str = 'constant'
  lr_warmup: int = 0
  lr_final: float = 1.0
  instance_noise: bool = False
  average: bool = False
  decode: Decode = _as_is

  def optimizers(
    self, hyper: Hyper
  ) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """G's and D's gradient transformations at these numbers."""
    g = OPTIMIZERS[self.optimizer_g](hyper.beta1_g, hyper.beta2_g)
    d = OPTIMIZERS[self.optimizer_d](hyper.beta1_d, hyper.beta2_d)
    if self.clip_g:
      g = optax.chain(optax.clip_by_global_norm(hyper.clip_g), g)
    if self.clip_d:
      d = optax.chain(optax.clip_by_global_norm(hyper.clip_d), d)
    return g, d

  def rate_factor(self, step: Int[Array, '']) -> Scalar:
    """Factor on both learning rates at a generator update."""
    factor: Scalar = rate_factor(
      step,
      schedule=self.lr_schedule,
      steps=self.steps,
      warmup=self.lr_warmup,
      final=self.lr_final,
    )
    return factor


def init_state(key: Key[Array, ''], plan: Plan, hyper: Hyper) -> GANState:
  """A fresh game: both networks initialised, both optax states empty."""
  key_g, key_d, root = jax.random.split(key, 3)
  opt_g, opt_d = plan.optimizers(hyper)
  g_params, g_stats = plan.game.networks.generator.init(key_g)
  d_params, d_stats = plan.game.networks.discriminator.init(key_d)
  average = None
  if plan.average:
    # A copy: a donated state must not hold one buffer twice.
    average = Average(
      jax.tree.map(jnp.copy, g_params), jax.tree.map(jnp.copy, g_stats)
    )
  return GANState(
    step=jnp.int32(0),
    key=root,
    g=Player(g_params, g_stats, opt_g.init(g_params)),
    d=Player(d_params, d_stats, opt_d.init(d_params)),
    ema=average,
  )


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


def _images_shown(plan: Plan, step: Int[Array, '']) -> Scalar:
  return step.astype(jnp.float32) * (plan.batch_size * plan.d_steps)


def _noise_std(plan: Plan, hyper: Hyper, step: Int[Array, '']) -> Scalar | None:
  """Deviation of the instance noise at a step: linear to 0, or constant."""
  if not plan.instance_noise:
    return None
  kimg = jnp.asarray(hyper.instance_noise_kimg, jnp.float32)
  done = _images_shown(plan, step) / (1000 * jnp.maximum(kimg, 1e-9))
  left = jnp.where(kimg > 0, jnp.clip(1 - done, 0.0, 1.0), 1.0)
  return hyper.instance_noise * left


def _averaged(plan: Plan, hyper: Hyper, state: GANState) -> GANState:
  """Moves the average of G by one step of its half-life.

  The half-life is never more than a twentieth of what has been shown, so that
  the average leaves the initialisation behind early on (Karras et al. 2022,
  arXiv:2206.00364, EDM's `ema_rampup_ratio`).
  """
  if state.ema is None:
    return state
  shown = _images_shown(plan, state.step + 1)
  half_life = jnp.minimum(hyper.ema_halflife_kimg * 1000.0, shown / 20)
  decay = 0.5 ** (plan.batch_size * plan.d_steps / half_life)

  def mix(average: Any, live: Any) -> Any:
    return live + decay * (average - live)

  ema = Average(
    jax.tree.map(mix, state.ema.params, state.g.params),
    jax.tree.map(mix, state.ema.stats, state.g.stats),
  )
  return state.replace(ema=ema)


def _d_gradient(
  plan: Plan, state: GANState, hyper: Hyper, real: Any, key: Any
) -> tuple[PyTree, PyTree, Metrics]:
  loss = jax.grad(game_lib.discriminator_loss, has_aux=True)
  std = _noise_std(plan, hyper, state.step)
  grads, (stats, metrics) = loss(
    state.d.params, state, plan.game, real, key, hyper, std
  )
  metrics['d/grad_norm'] = norm(grads)
  return grads, stats, metrics


def _g_gradient(
  plan: Plan, state: GANState, hyper: Hyper, key: Any
) -> tuple[PyTree, PyTree, Metrics]:
  loss = jax.grad(game_lib.generator_loss, has_aux=True)
  std = _noise_std(plan, hyper, state.step)
  grads, (stats, metrics) = loss(
    state.g.params, state, plan.game, plan.batch_size, key, std
  )
  metrics['g/grad_norm'] = norm(grads)
  return grads, stats, metrics


def alternating(
  plan: Plan, state: GANState, hyper: Hyper, batch: Any, key: Any
) -> tuple[GANState, Metrics]:
  """`d_steps` moves of D, then one of G against the D that they made.

  Every move draws its noise anew. Reference: Goodfellow et al. 2014,
  arXiv:1406.2661, algorithm 1.
  """
  opt_g, opt_d = plan.optimizers(hyper)
  factor = plan.rate_factor(state.step)
  key_d, key_g = jax.random.split(key)

  def d_move(player: Player, turn: Any) -> tuple[Player, Metrics]:
    item, key_turn = turn
    key_data, key_loss = jax.random.split(key_turn)
    real = plan.game.shard(plan.decode(item, key_data))
    now = state.replace(d=player)
    grads, stats, metrics = _d_gradient(plan, now, hyper, real, key_loss)
    player = _move(player, grads, stats, opt_d, factor * hyper.lr_d)
    return player, metrics

  turns = (batch, jax.random.split(key_d, plan.d_steps))
  if plan.d_steps == 1:
    d, metrics = d_move(state.d, jax.tree.map(lambda x: x[0], turns))
  else:
    d, all_metrics = jax.lax.scan(d_move, state.d, turns)
    metrics = jax.tree.map(lambda m: m[-1], all_metrics)
  state = state.replace(d=d)
  grads, stats, g_metrics = _g_gradient(plan, state, hyper, key_g)
  g = _move(state.g, grads, stats, opt_g, factor * hyper.lr_g)
  return state.replace(g=g), metrics | g_metrics


def simultaneous(
  plan: Plan, state: GANState, hyper: Hyper, batch: Any, key: Any
) -> tuple[GANState, Metrics]:
  """Both gradients at one point, from one forward pass, then both moves.

  Both losses get the same key, hence the same samples: XLA computes G's and
  D's forward pass once. What the code of the 2014 paper did.
  """
  opt_g, opt_d = plan.optimizers(hyper)
  factor = plan.rate_factor(state.step)
  key_data, key_loss = jax.random.split(key)
  item = jax.tree.map(lambda x: x[0], batch)
  real = plan.game.shard(plan.decode(item, key_data))
  # The same key on purpose; a clone tells the key-reuse checker so.
  again = jax.random.clone(key_loss)
  d_grads, d_stats, d_metrics = _d_gradient(plan, state, hyper, real, key_loss)
  g_grads, g_stats, g_metrics = _g_gradient(plan, state, hyper, again)
  state = state.replace(
    d=_move(state.d, d_grads, d_stats, opt_d, factor * hyper.lr_d),
    g=_move(state.g, g_grads, g_stats, opt_g, factor * hyper.lr_g),
  )
  return state, d_metrics | g_metrics


SCHEDULES: dict[str, Callable[..., tuple[GANState, Metrics]]] = {
  'alternating': alternating,
  'simultaneous': simultaneous,
}


def make_train_step(plan: Plan) -> TrainStep:
  """The step of a plan: `(state, hyper, batch) -> (state, metrics)`, pure.

  `batch` has a leading axis of `d_steps`. Metrics are those of the last move
  of D and of G's move.

  Raises:
    ValueError: if the schedule has no use for `d_steps` moves of D.
  """
  if plan.d_steps < 1:
    raise ValueError(f'd_steps={plan.d_steps}: must be at least 1')
  if plan.schedule == 'simultaneous' and plan.d_steps != 1:
    raise ValueError(
      f'd_steps={plan.d_steps}: both players move at once under the'
      ' simultaneous schedule; use d_steps=1 or the alternating schedule'
    )

  def train_step(
    state: GANState, hyper: Hyper, batch: Any
  ) -> tuple[GANState, Metrics]:
    key = jax.random.fold_in(jax.random.clone(state.key), state.step)
    moved, metrics = SCHEDULES[plan.schedule](plan, state, hyper, batch, key)
    moved = _averaged(plan, hyper, moved)
    return moved.replace(step=state.step + 1), metrics

  return train_step
