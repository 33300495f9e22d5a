"""Optax gradient transformations by name, without their learning rate.

The rate is applied by the schedules (`schedules.py`), as a function of the
number of steps, so that both players see one clock whatever `d_steps` and
`g_steps` are; so is a `beta1` that moves (`Plan.optimizers`). Adam and its kin
then correct their bias as if it had been the present one all along.
All take the decays `beta1` and `beta2` as traced numbers.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

_EPS_ROOT = 1e-30
Decay = float | Float[Array, '']


def adam(beta1: Decay, beta2: Decay) -> optax.GradientTransformation:
  """Adam. Reference: Kingma & Ba 2015, arXiv:1412.6980."""
  # Next to nothing under the root, for those who differentiate an update where
  # the gradient is 0 (unrolled D).
  return optax.scale_by_adam(b1=beta1, b2=beta2, eps_root=_EPS_ROOT)


def nadam(beta1: Decay, beta2: Decay) -> optax.GradientTransformation:
  """Adam with Nesterov momentum. Reference: Dozat 2016, ICLR workshop."""
  return optax.scale_by_adam(
    b1=beta1, b2=beta2, eps_root=_EPS_ROOT, nesterov=True
  )


def amsgrad(beta1: Decay, beta2: Decay) -> optax.GradientTransformation:
  """AMSGrad. Reference: Reddi et al. 2018, arXiv:1904.09237."""
  return optax.scale_by_amsgrad(b1=beta1, b2=beta2, eps_root=_EPS_ROOT)


def adabelief(beta1: Decay, beta2: Decay) -> optax.GradientTransformation:
  """AdaBelief. Reference: Zhuang et al. 2020, arXiv:2010.07468."""
  return optax.scale_by_belief(b1=beta1, b2=beta2)


def lion(beta1: Decay, beta2: Decay) -> optax.GradientTransformation:
  """Lion. Reference: Chen et al. 2023, arXiv:2302.06675."""
  return optax.scale_by_lion(b1=beta1, b2=beta2)


def rmsprop(beta1: Decay, beta2: Decay) -> optax.GradientTransformation:
  """RMSProp with decay `beta2` and, after it, momentum `beta1`."""
  return optax.chain(
    optax.scale_by_rms(decay=beta2),
    optax.trace(decay=beta1),
  )


def sgd(beta1: Decay, beta2: Decay) -> optax.GradientTransformation:
  """Gradient descent with momentum `beta1`; `beta2` is not used."""
  del beta2
  return optax.trace(decay=beta1)


OPTIMIZERS: dict[
  str, Callable[[Decay, Decay], optax.GradientTransformation]
] = {
  'adam': adam,
  'sgd': sgd,
  'rmsprop': rmsprop,
  'nadam': nadam,
  'amsgrad': amsgrad,
  'adabelief': adabelief,
  'lion': lion,
}


def _cosine(t: Any) -> Any:
  return 0.5 * (1 + jnp.cos(jnp.pi * t))


def _linear(t: Any) -> Any:
  return 1 - t


# Each maps the fraction of the run done to a weight that falls from 1 to 0.
DECAYS: dict[str, Callable[[Any], Any]] = {
  'constant': jnp.ones_like,
  'linear': _linear,
  'cosine': _cosine,
  'exponential': _linear,  # of the logarithm; see `rate_factor`
}


def rate_factor(
  step: Any, *, schedule: str, steps: int, warmup: int, final: float
) -> Any:
  """Factor on the learning rates at a step.

  Rises linearly, from `1 / warmup` to 1 over `warmup` steps, then falls from 1
  to `final` by the schedule; `exponential` falls geometrically (the 2014 code's
  division of the rate by a constant every batch).

  Args:
    step: steps done.
    schedule: a key of `DECAYS`.
    steps: of the whole run.
    warmup: steps of linear warm-up, 0 for none.
    final: the factor at the end of the run, in (0, 1] for `exponential`.
  """
  step = jnp.asarray(step, jnp.float32)
  done = jnp.clip((step - warmup) / max(steps - warmup, 1), 0.0, 1.0)
  weight = DECAYS[schedule](done)
  if schedule == 'exponential':
    factor = final ** (1 - weight)
  else:
    factor = final + (1 - final) * weight
  if warmup:
    factor *= jnp.minimum((step + 1) / warmup, 1.0)
  return factor
