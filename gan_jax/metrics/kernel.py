"""Kernel Inception Distance: an unbiased squared MMD between features.

`k(x, y) = (x.y / dim + 1)^3`;
`E[k(x, x')] + E[k(y, y')] - 2 E[k(x, y)]`, without the pairs of a sample with
itself. Its expectation does not depend on the number of samples, which that of
the Fréchet distance does; it can fall below 0 where the sets are alike.

Reference: Bińkowski et al. 2018, arXiv:1801.01401, section 4.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64
from numpy.typing import ArrayLike

from gan_jax.metrics import arrays, blocks
from gan_jax.metrics.base import Checks, Example, Metric
from gan_jax.runtime.errors import ArgumentError

SUBSETS = 100
SUBSET_SIZE = 1000


def _kernel(
  x: Float64[Array, 'm dim'], y: Float64[Array, 'm dim']
) -> Float64[Array, 'm m']:
  dots = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
  return (dots / x.shape[1] + 1) ** 3


@jax.jit
def _squared_mmd(
  x: Float[Array, 'm dim'], y: Float[Array, 'm dim']
) -> Float64[Array, '']:
  """Unbiased squared MMD of two sets of m samples."""
  x, y = x.astype(jnp.float64), y.astype(jnp.float64)
  m = x.shape[0]
  xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
  # A trace taken from the sum would leave no digits beside one large sample.
  others = ~jnp.eye(m, dtype=bool)
  within = jnp.sum(xx, where=others) + jnp.sum(yy, where=others)
  return within / (m * (m - 1)) - 2 * xy.mean()


def _choose_size(subset_size: int, n: int, m: int) -> int:
  """Samples of a subset: so few that subsets differ, unless it is given."""
  if not subset_size:
    return min(SUBSET_SIZE, n // 2, m // 2)
  if not 2 <= subset_size <= min(n, m):
    remedy = f'of {n} real and {m} generated samples; use 2 to {min(n, m)}'
    raise ArgumentError('subset_size', subset_size, remedy)
  return subset_size


def kid(
  real: ArrayLike,
  fake: ArrayLike,
  *,
  seed: int = 0,
  subsets: int = SUBSETS,
  subset_size: int = 0,
) -> dict[str, float]:
  """Kernel Inception Distance: mean over random subsets, and their std.

  Args:
    real: features (n, dim), at least 4.
    fake: features (m, dim), at least 4.
    seed: of the choice of subsets, which are drawn without replacement.
    subsets: how many.
    subset_size: samples of each side in one; 0 for 1000, and not more than half
      of a side: subsets that are all the same have no spread.

  Returns:
    kid: about 0 at best.
    kid_std: standard deviation over subsets, which share samples: divided by
      the root of their number it would be too small an error.
    kid_subset_size: samples in a subset.

  Raises:
    ArgumentError: unless they are two tables of finite numbers of one width;
      for a subset that is larger than a side.

  >>> real = np.random.default_rng(0).normal(size=(200, 4))
  >>> kid(real, real + 3, subsets=10)['kid'] > 10
  True
  """
  a, b = arrays.as_tables(real, fake, 4)
  size = _choose_size(subset_size, len(a), len(b))
  rng = np.random.default_rng(seed)
  distances = []
  with blocks.x64():
    for _ in range(subsets):
      x = a[rng.choice(len(a), size, replace=False)]
      y = b[rng.choice(len(b), size, replace=False)]
      distances.append(float(_squared_mmd(x, y)))
  return {
    'kid': float(np.mean(distances)),
    'kid_std': float(np.std(distances)),
    'kid_subset_size': float(size),
  }


def describe_noise(scores: Mapping[str, float]) -> str:
  """The remark on a distance that its own spread swallows; '' of others."""
  value, std = scores['kid'], scores['kid_std']
  if not abs(value) < std:
    return ''
  return (
    f'kid {value:.3g} cannot be told from 0: subsets of'
    f' {scores["kid_subset_size"]:.0f} samples vary by {std:.3g} (standard'
    ' deviation); give more samples to tell'
  )


def _examples() -> tuple[Example, ...]:
  """Sets of one point each: `(a^2 + 1)^3 + (b^2 + 1)^3 - 2 (a b + 1)^3`."""
  real, fake = np.full((4, 3), 2.0), np.full((4, 3), 1.0)
  scores = {'kid': 125 + 8 - 2 * 27, 'kid_std': 0, 'kid_subset_size': 2}
  return (Example(fake, scores, real, options={'subsets': 2}),)


KID = Metric(
  'kid',
  kid,
  {'kid': 'lower', 'kid_std': '', 'kid_subset_size': ''},
  sees='features',
  minimum=4,
  version='2',
  remark=describe_noise,
  checks=Checks(_examples, by_place=True, options={'subsets': 5}),
)
