"""f-divergences as games of D's output, from their convex conjugates.

What `objectives.py` makes the losses of an f-GAN of.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

softplus = jax.nn.softplus


def _same(v: Any) -> Any:
  return v


_STEEPEST = 30.0


def _exp(t: Any) -> Any:
  """`e^t`, gone on along its tangent beyond 30; finite, and convex as before.

  Density ratios of 10^13 are out of reach of any batch; a logit that strays
  there would end the run by one overflow.
  """
  inside = jnp.exp(jnp.minimum(t, _STEEPEST))
  return jnp.where(
    t < _STEEPEST, inside, math.exp(_STEEPEST) * (1 + t - _STEEPEST)
  )


class Divergence(NamedTuple):
  """An f-divergence `E_q[f(p / q)]` as a game of D's output v.

  D's move ascends `E_p[T(v)] - E_q[f*(T(v))]`, which is the divergence at the
  best D, where `T(v) = f'(p / q)`; G descends `-E_q[f*(T(v))]`. D's loss is 0
  at the equilibrium. `real` is the slope per output on real samples in D's
  move; G's on generated samples is D's, negated.

  name              | f(u)            | T(v)      | f*(T(v))       | real
  KL                | u log u         | v         | e^(v-1)        | -1
  reverse KL        | -log u          | -e^-v     | v - 1          | -e^-v
  Pearson           | (u - 1)^2       | v         | v^2 / 4 + v    | -1
  Neyman            | (1 - u)^2 / u   | 1 - e^-v  | 2 - 2 e^(-v/2) | -e^-v
  squared Hellinger | (sqrt u - 1)^2  | 1 - e^-v  | e^v - 1        | -e^-v

  Jensen-Shannon: f = u log u - (u + 1) log((u + 1) / 2), T = log 2 -
  softplus(-v), f* = softplus(v) - log 2, and on real samples s(v) - 1, s the
  sigmoid. The slope on generated samples is that of f*(T(v)): e^(v-1), 1,
  v/2 + 1, e^(-v/2), e^v and s(v).

  Attributes:
    activation: `v -> T`, onto the domain of `f*`.
    conjugate: `v -> f*(T(v))`, simplified.
    equilibrium: D's output where p = q, and G's loss there, `-f'(1)`.
    log_ratio: `log p/q` that an output says.
    f: of the ratio p/q, in float64 NumPy.

  Reference: Nowozin et al. 2016, arXiv:1606.00709, equation 6 and table 6.
  """

  activation: Callable[[Any], Any]
  conjugate: Callable[[Any], Any]
  equilibrium: tuple[float, float]
  log_ratio: Callable[[Any], Any]
  f: Callable[[Any], Any]


KL = Divergence(
  activation=_same,
  conjugate=lambda v: _exp(v - 1),
  equilibrium=(1.0, -1.0),
  log_ratio=lambda v: v - 1,
  f=lambda u: u * np.log(u),
)
REVERSE_KL = Divergence(
  activation=lambda v: -_exp(-v),
  conjugate=lambda v: v - 1,
  equilibrium=(0.0, 1.0),
  log_ratio=_same,
  f=lambda u: -np.log(u),
)
PEARSON = Divergence(
  activation=_same,
  conjugate=lambda v: jnp.square(v) / 4 + v,
  equilibrium=(0.0, 0.0),
  log_ratio=lambda v: jnp.log(jnp.maximum(1 + v / 2, 1e-4)),
  f=lambda u: (u - 1) ** 2,
)
NEYMAN = Divergence(
  activation=lambda v: 1 - _exp(-v),
  conjugate=lambda v: 2 - 2 * _exp(-v / 2),
  equilibrium=(0.0, 0.0),
  log_ratio=lambda v: v / 2,
  f=lambda u: (1 - u) ** 2 / u,
)
HELLINGER = Divergence(
  activation=lambda v: 1 - _exp(-v),
  conjugate=lambda v: _exp(v) - 1,
  equilibrium=(0.0, 0.0),
  log_ratio=lambda v: 2 * v,
  f=lambda u: (np.sqrt(u) - 1) ** 2,
)
JENSEN_SHANNON = Divergence(
  activation=lambda v: math.log(2) - softplus(-v),
  conjugate=lambda v: softplus(v) - math.log(2),
  equilibrium=(0.0, 0.0),
  log_ratio=_same,
  f=lambda u: u * np.log(u) - (u + 1) * np.log((u + 1) / 2),
)
