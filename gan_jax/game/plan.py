"""The static half of a train step, and the state that it starts from."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from gan_jax.game.losses import Game
from gan_jax.game.optimizers import OPTIMIZERS, rate_factor
from gan_jax.game.state import Anchors, Average, GANState, Hyper, Player

Scalar = Float[Array, '']
# (item of the data feed, key) -> real samples, or (samples, classes); identity
# when the batch is already what D should see.
Decode = Callable[[Any, Key[Array, '']], Any]

# Schedules in which both players move at once, one move each in a step, with
# the real batches that each takes.
TOGETHER: dict[str, int] = {
  'simultaneous': 1,
  'optimistic': 1,
  'extragradient': 2,
  'consensus': 1,
}


def _as_is(item: Any, key: Key[Array, '']) -> Any:
  del key
  return item


@dataclasses.dataclass(frozen=True)
class Plan:
  """The static half of a step; a change of any of these compiles anew.

  Attributes:
    game: networks and objective.
    batch_size: samples of each kind in one move.
    steps: of the whole run (learning-rate schedules, moving momentum).
    schedule: a key of `SCHEDULES`.
    d_steps: D's moves in a step.
    g_steps: G's moves in a step.
    reuse_noise: whether all moves of a step draw the same noise.
    reuse_real: whether all moves of a step are shown the same real batch.
    unroll_steps: D's moves that G looks ahead (`unrolled`).
    penalty_every: steps from one application of D's penalties to the next,
      each then that much heavier (lazy regularization).
    optimizer_g: a key of `OPTIMIZERS`, for G.
    optimizer_d: a key of `OPTIMIZERS`, for D.
    beta1_final_g: whether G's first decay moves to `Hyper.beta1_final_g`.
    beta1_final_d: whether D's first decay moves to `Hyper.beta1_final_d`.
    clip_g: whether G's gradient is clipped to the norm `Hyper.clip_g`.
    clip_d: whether D's gradient is clipped to the norm `Hyper.clip_d`.
    lr_schedule: a key of `optimizers.DECAYS`.
    lr_warmup: steps of linear warm-up.
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
  g_steps: int = 1
  reuse_noise: bool = False
  reuse_real: bool = False
  unroll_steps: int = 5
  penalty_every: int = 1
  optimizer_g: str = 'adam'
  optimizer_d: str = 'adam'
  beta1_final_g: bool = False
  beta1_final_d: bool = False
  clip_g: bool = False
  clip_d: bool = False
  lr_schedule: str = 'constant'
  lr_warmup: int = 0
  lr_final: float = 1.0
  instance_noise: bool = False
  average: bool = False
  decode: Decode = _as_is

  def optimizers(
    self, hyper: Hyper, step: Int[Array, ''] | int = 0
  ) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """G's and D's gradient transformations at these numbers, at a step."""
    beta1_g, beta1_d = hyper.beta1_g, hyper.beta1_d
    if self.beta1_final_g or self.beta1_final_d:
      done = jnp.clip(step / max(self.steps, 1), 0.0, 1.0)
      if self.beta1_final_g:
        beta1_g = beta1_g + done * (hyper.beta1_final_g - beta1_g)
      if self.beta1_final_d:
        beta1_d = beta1_d + done * (hyper.beta1_final_d - beta1_d)
    g = OPTIMIZERS[self.optimizer_g](beta1_g, hyper.beta2_g)
    d = OPTIMIZERS[self.optimizer_d](beta1_d, hyper.beta2_d)
    if self.clip_g:
      g = optax.chain(optax.clip_by_global_norm(hyper.clip_g), g)
    if self.clip_d:
      d = optax.chain(optax.clip_by_global_norm(hyper.clip_d), d)
    if self.schedule == 'optimistic':
      # 2 u_t - u_(t-1) of whatever u the optimizer makes; with Adam it is
      # Daskalakis et al.'s optimistic Adam.
      g = optax.chain(g, optax.scale_by_optimistic_gradient())
      d = optax.chain(d, optax.scale_by_optimistic_gradient())
    return g, d

  @property
  def real_batches(self) -> int:
    """Batches of real samples that one step takes."""
    if self.reuse_real:
      return 1
    if self.schedule in TOGETHER:
      return TOGETHER[self.schedule]
    relativistic = self.game.objective.relativistic
    return self.d_steps + (self.g_steps if relativistic else 0)

  @property
  def images_a_step(self) -> int:
    """Real images that D moves by in a step, however often it has seen them.

    As the field counts (StyleGAN, EDM): a batch for each of D's moves, both of
    extragradient's among them. What G's moves look at (relativistic games, the
    look ahead of unrolled ones) does not count.
    """
    moves = 2 if self.schedule == 'extragradient' else self.d_steps
    return self.batch_size * moves

  def rate_factor(self, step: Int[Array, '']) -> Scalar:
    """Factor on both learning rates at a step."""
    factor: Scalar = rate_factor(
      step,
      schedule=self.lr_schedule,
      steps=self.steps,
      warmup=self.lr_warmup,
      final=self.lr_final,
    )
    return factor

  def images_shown(self, step: Int[Array, '']) -> Scalar:
    """Real images that D was shown by a step (`images_a_step` in each)."""
    return step.astype(jnp.float32) * self.images_a_step

  def noise_std(self, hyper: Hyper, step: Int[Array, '']) -> Scalar | None:
    """Deviation of the instance noise at a step: linear to 0, or constant."""
    if not self.instance_noise:
      return None
    kimg = jnp.asarray(hyper.instance_noise_kimg, jnp.float32)
    done = self.images_shown(step) / (1000 * jnp.maximum(kimg, 1e-9))
    left = jnp.where(kimg > 0, jnp.clip(1 - done, 0.0, 1.0), 1.0)
    return hyper.instance_noise * left


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
    anchors=Anchors(jnp.float32(0), jnp.float32(0))
    if plan.game.has('lecam')
    else None,
  )
