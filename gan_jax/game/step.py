"""The train step: a pure function `(state, hyper, batch) -> (state, metrics)`.

It knows nothing of flags, files or devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gan_jax.game.losses import Metrics
from gan_jax.game.plan import TOGETHER, Plan, init_state
from gan_jax.game.schedules import SCHEDULES
from gan_jax.game.state import Average, GANState, Hyper

TrainStep = Callable[[GANState, Hyper, Any], tuple[GANState, Metrics]]


def _averaged(plan: Plan, hyper: Hyper, state: GANState) -> GANState:
  """Moves the average of G by one step of its half-life.

  The half-life is never more than a twentieth of what has been shown, so that
  the average leaves the initialisation behind early on (Karras et al. 2022,
  arXiv:2206.00364, EDM's `ema_rampup_ratio`).
  """
  if state.ema is None:
    return state
  shown = plan.images_shown(state.step + 1)
  half_life = jnp.minimum(hyper.ema_halflife_kimg * 1000.0, shown / 20)
  decay = 0.5 ** (plan.images_a_step / half_life)

  def mix(average: Any, live: Any) -> Any:
    return live + decay * (average - live)

  ema = Average(
    jax.tree.map(mix, state.ema.params, state.g.params),
    jax.tree.map(mix, state.ema.stats, state.g.stats),
  )
  return state.replace(ema=ema)


def check(plan: Plan) -> None:
  """Refuses numbers that the schedule has no use for.

  Raises:
    ValueError: naming the number and the remedy.
  """
  for name in ('d_steps', 'g_steps'):
    count = getattr(plan, name)
    if count < 1:
      raise ValueError(f'{name}={count}: must be at least 1')
    if plan.schedule in TOGETHER and count != 1:
      raise ValueError(
        f'{name}={count}: both players move at once under the {plan.schedule}'
        f' schedule; use {name}=1 or the alternating schedule'
      )
  if plan.batch_size % plan.game.networks.packing:
    raise ValueError(
      f'batch_size={plan.batch_size}: is no multiple of'
      f' packing={plan.game.networks.packing}'
    )


def make_train_step(plan: Plan) -> TrainStep:
  """The step of a plan: `(state, hyper, batch) -> (state, metrics)`, pure.

  `batch` has a leading axis of `plan.real_batches`. Metrics are those of the
  last move of D and of the last of G.

  Raises:
    ValueError: if the schedule has no use for the plan's numbers.
  """
  check(plan)

  def train_step(
    state: GANState, hyper: Hyper, batch: Any
  ) -> tuple[GANState, Metrics]:
    key = jax.random.fold_in(jax.random.clone(state.key), state.step)
    moved, metrics = SCHEDULES[plan.schedule](plan, state, hyper, batch, key)
    moved = _averaged(plan, hyper, moved)
    return moved.replace(step=state.step + 1), metrics

  return train_step


__all__ = ['Plan', 'TrainStep', 'check', 'init_state', 'make_train_step']
