"""Precision, recall, density and coverage: are samples good, are all there?

Around each sample of a set lies a ball that reaches to its k-th nearest
neighbour in that set. Precision: the part of the fakes in some ball of a real
sample; recall: the part of the real samples in some ball of a fake. Density:
in how many real balls a fake lies, over k; coverage: the part of the real
samples whose ball has a fake in it.

Precision and recall take balls as closed, density and coverage as open, each as
their authors do; it matters for sets with equal distances only.

Reference: Kynkäänniemi et al. 2019, arXiv:1904.06991, equations 1 and 2, k = 3;
Naeem et al. 2020, arXiv:2002.09797, equations 2 and 3, k = 5.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64
from numpy.typing import ArrayLike, NDArray

from gan_jax.metrics import arrays, blocks
from gan_jax.metrics.base import Checks, Example, Metric
from gan_jax.runtime.errors import ArgumentError

K_PR = 3
K_DC = 5


@jax.jit
def _compare_blocks(
  a: Float[Array, 'rows dim'],
  b: Float[Array, 'columns dim'],
  centre: Float64[Array, '1 dim'],
  slack: Float[Array, ''],
  radii: tuple[Float64[Array, 'rows 1'], ...],
  radius: Float64[Array, '1 columns'],
  valid: Bool[Array, 'rows columns'],
) -> tuple[Array, ...]:
  """What one block of pairs, real (rows) and fake (columns), adds.

  Args:
    a: real samples.
    b: fakes.
    centre: that both are moved to.
    slack: squared distances closer than this are equal.
    radii: squared, of the real balls for precision and for density.
    radius: squared, of the fake balls for recall.
    valid: which pairs are of no padding.

  Returns:
    Whether each fake is in a real ball, whether each real sample is in a fake
    one, whether each real ball has a fake, and how many times one has.
  """
  squares = blocks.squared_distances(a, b, centre)
  real_pr, real_dc = radii
  precise = jnp.any((squares <= real_pr + slack) & valid, axis=0)
  recalled = jnp.any((squares <= radius + slack) & valid, axis=1)
  inside = (squares + slack < real_dc) & valid
  return precise, recalled, jnp.any(inside, axis=1), jnp.sum(inside)


def _squared_radii(
  x: NDArray[np.floating], *ks: int
) -> list[NDArray[np.float64]]:
  """Squared distance of each sample to its k-th neighbour, for each k."""
  _, distances = blocks.nearest(x, x, max(ks), itself=False)
  return [np.square(distances[:, k - 1]) for k in ks]


def _pad(x: NDArray[np.floating], block: blocks.Block) -> NDArray[np.floating]:
  padded = np.zeros(block.x.shape[0], x.dtype)
  padded[: block.filled] = x[block.rows]
  return padded


def prdc(
  real: ArrayLike,
  fake: ArrayLike,
  *,
  seed: int = 0,
  k_pr: int = K_PR,
  k_dc: int = K_DC,
) -> dict[str, float]:
  """Precision, recall, density and coverage of features.

  They depend on the numbers of samples: compare those of equal numbers.

  Args:
    real: features (n, dim), more than k.
    fake: features (m, dim), more than k.
    seed: not read: nothing is drawn.
    k_pr: neighbours that a ball of precision and recall reaches to.
    k_dc: of density and coverage.

  Returns:
    precision, recall, coverage: in [0, 1]; density: 1 for like sets, and no
    bound above.

  Raises:
    ArgumentError: unless they are two tables of finite numbers of one width,
      and enough; if all real samples are the same.

  >>> real = np.random.default_rng(0).normal(size=(100, 4))
  >>> prdc(real, real[:50] / 10)['recall']
  0.0
  """
  del seed
  for name, k in (('k_pr', k_pr), ('k_dc', k_dc)):
    if k < 1:
      raise ArgumentError(name, k, 'use 1 or more')
  reals, fakes = arrays.as_tables(real, fake, max(k_pr, k_dc) + 1)
  if (reals == reals[0]).all():
    raise arrays.fault('real', reals, 'all samples are the same one')
  real_pr, real_dc = _squared_radii(reals, k_pr, k_dc)
  fake_pr, _ = _squared_radii(fakes, k_pr, k_dc)  # compiled once for both
  precise, recalled = np.zeros(len(fakes), bool), np.zeros(len(reals), bool)
  covered, count = np.zeros(len(reals), bool), 0
  rows = blocks.rows_for(len(reals), len(fakes))
  across = np.arange(rows)
  with blocks.x64():
    centre = blocks.centre_of(reals)
    slack = np.float64(blocks.slack_of(centre, reals, fakes))
    for a, b in blocks.pairs(
      blocks.split(reals, rows), blocks.split(fakes, rows)
    ):
      radii = _pad(real_pr, a)[:, None], _pad(real_dc, a)[:, None]
      radius = _pad(fake_pr, b)[None, :]
      valid = (across < a.filled)[:, None] & (across < b.filled)[None, :]
      p, r, c, inside = _compare_blocks(
        a.x, b.x, centre, slack, radii, radius, valid
      )
      precise[b.rows] |= np.asarray(p)[: b.filled]
      recalled[a.rows] |= np.asarray(r)[: a.filled]
      covered[a.rows] |= np.asarray(c)[: a.filled]
      count += int(inside)
  return {
    'precision': float(precise.mean()),
    'recall': float(recalled.mean()),
    'density': count / (k_dc * len(fakes)),
    'coverage': float(covered.mean()),
  }


def _examples() -> tuple[Example, ...]:
  """On a line, where distances are counted by hand.

  Real balls reach 1 (2 at the ends) for precision, 3 to 5 for density. Those of
  the far fakes reach to 3.3 and hold 4 real samples, those of the near ones 1.
  """
  real = np.arange(8.0)[:, None]
  fake = np.array([[3.0], [3.1], [3.2], [3.3], [100.0], [100.1]])
  scores = {
    'precision': 4 / 6,
    'recall': 5 / 8,
    'density': 32 / 30,
    'coverage': 1,
  }
  return (Example(fake, scores, real, options={'k_pr': 2, 'k_dc': 5}),)


PRDC = Metric(
  'prdc',
  prdc,
  {
    'precision': 'higher',
    'recall': 'higher',
    'density': 'higher',
    'coverage': 'higher',
  },
  sees='features',
  minimum=max(K_PR, K_DC) + 1,
  checks=Checks(_examples, best=1.0),
)
