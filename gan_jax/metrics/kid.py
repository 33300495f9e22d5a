"""Kernel Inception Distance: an unbiased squared MMD between features.

`k(x, y) = (x.y / dim + 1)^3`;
`E[k(x, x')] + E[k(y, y')] - 2 E[k(x, y)]`, without the pairs of a sample with
itself. Its expectation does not depend on the number of samples, which that of
the Fréchet distance does; it can fall below 0 where the sets are alike.

Reference: Bińkowski et al. 2018, arXiv:1801.01401, section 4.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from gan_jax.metrics import arrays, blocks

SUBSETS = 100
SUBSET_SIZE = 1000


def _kernel(x: Any, y: Any) -> Float64[Array, 'm m']:
  dots = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
  return (dots / x.shape[1] + 1) ** 3


@jax.jit
def _mmd2(x: Any, y: Any) -> Float64[Array, '']:
  """Unbiased squared MMD of two sets of m samples."""
  x, y = x.astype(jnp.float64), y.astype(jnp.float64)
  m = x.shape[0]
  xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
  within = xx.sum() - jnp.trace(xx) + yy.sum() - jnp.trace(yy)
  return within / (m * (m - 1)) - 2 * xy.mean()


def _size(given: int, n: int, m: int) -> int:
  """Samples of a subset: so few that subsets differ, unless told."""
  if not given:
    return min(SUBSET_SIZE, n // 2, m // 2)
  if not 2 <= given <= min(n, m):
    raise ValueError(
      f'subset_size={given} of {n} real and {m} fake samples: use 2 to'
      f' {min(n, m)}'
    )
  return given


def kid(
  real: Any,
  fake: Any,
  *,
  seed: int = 0,
  subsets: int = SUBSETS,
  subset_size: int = 0,
) -> dict[str, float]:
  """Mean over random subsets of both sides, with their deviation.

  Args:
    real: features (n, dim), at least 4.
    fake: features (m, dim), at least 4.
    seed: of the choice of subsets, which are drawn without replacement.
    subsets: how many.
    subset_size: samples of each side in one; 0 for 1000, and not more than half
      of a side: subsets that are all the same have no deviation.

  Returns:
    kid: about 0 at best.
    kid_std: deviation over subsets, which share samples: divided by the root of
      their number it would be too small an error.
    kid_subset_size: samples in a subset.

  Raises:
    ValueError: if they are not two tables of finite numbers of one width, or a
      subset is larger than a side.
  """
  real, fake = arrays.two_sets(real, fake, 4)
  size = _size(subset_size, len(real), len(fake))
  rng = np.random.default_rng(seed)
  found = []
  with blocks.x64():
    for _ in range(subsets):
      x = real[rng.choice(len(real), size, replace=False)]
      y = fake[rng.choice(len(fake), size, replace=False)]
      found.append(float(_mmd2(x, y)))
  return {
    'kid': float(np.mean(found)),
    'kid_std': float(np.std(found)),
    'kid_subset_size': float(size),
  }
