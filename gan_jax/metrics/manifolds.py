"""Precision, recall, density and coverage: are samples good, are all there?

Around each sample of a set lies a ball that reaches to its k-th nearest
neighbour in that set. Precision: the part of the fakes in some ball of a real
sample; recall: the part of the real samples in some ball of a fake. Density:
in how many real balls a fake lies, over k; coverage: the part of the real
samples whose ball has a fake in it.

Precision and recall take balls as closed, density and coverage as open, each as
their authors do; it matters for sets with equal distances only. Every decision
is that of differences in float64, however far some samples lie from the others.

Reference: Kynkäänniemi et al. 2019, arXiv:1904.06991, equations 1 and 2, k = 3;
Naeem et al. 2020, arXiv:2002.09797, equations 2 and 3, k = 5.
"""

import functools
from typing import NamedTuple

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
Floats = Array | NDArray[np.float64]


class _Radii(NamedTuple):
  """Squared radii of the balls around samples.

  Attributes:
    real_pr: of the real balls, for precision.
    real_dc: of the real balls, for density and coverage.
    fake_pr: of the fake balls, for recall.
  """

  real_pr: Floats
  real_dc: Floats
  fake_pr: Floats


@jax.jit
def _compare_blocks(
  a: Float[Array, 'rows dim'],
  b: Float[Array, 'columns dim'],
  centre: Float64[Array, '1 dim'],
  radii: _Radii,
  valid: Bool[Array, 'rows columns'],
) -> tuple[Array, ...]:
  """What one block of pairs, real (rows) and fake (columns), adds.

  Args:
    a: real samples.
    b: fakes.
    centre: that both are moved to.
    radii: around them.
    valid: which pairs are of no padding.

  Returns:
    Whether each fake is in a real ball, whether each real sample is in a fake
    one, whether each real ball has a fake, and how many times one has: of pairs
    that are farther from a border than rounding moves them; and which are not.
  """
  squares = blocks.squared_distances(a, b, centre)
  bounds = blocks.rounding_bounds(a, b, centre)
  real_pr, real_dc = radii.real_pr[:, None], radii.real_dc[:, None]
  fake_pr = radii.fake_pr[None, :]
  gaps = [jnp.abs(squares - r) for r in (real_pr, real_dc, fake_pr)]
  unsure = valid & (functools.reduce(jnp.minimum, gaps) <= bounds)
  sure = valid & ~unsure
  inside = sure & (squares < real_dc)
  return (
    jnp.any(sure & (squares <= real_pr), axis=0),
    jnp.any(sure & (squares <= fake_pr), axis=1),
    jnp.any(inside, axis=1),
    jnp.sum(inside),
    unsure,
  )


class _Tally:
  """What has been seen of all pairs so far."""

  def __init__(
    self, real: NDArray[np.floating], fake: NDArray[np.floating], radii: _Radii
  ) -> None:
    self.real, self.fake, self.radii = real, fake, radii
    self.precise = np.zeros(len(fake), bool)
    self.recalled = np.zeros(len(real), bool)
    self.covered = np.zeros(len(real), bool)
    self.count = 0

  def add(self, a: blocks.Block, b: blocks.Block, centre: Array) -> None:
    """A block of real samples and one of fakes."""
    real_pr, real_dc = (_pad(r, a) for r in self.radii[:2])
    radii = _Radii(real_pr, real_dc, _pad(self.radii.fake_pr, b))
    across = np.arange(len(a.x))
    valid = (across < a.filled)[:, None] & (across < b.filled)[None, :]
    *sums, unsure = _compare_blocks(a.x, b.x, centre, radii, valid)
    precise, recalled, covered, count = (np.asarray(v) for v in sums)
    self.precise[b.rows] |= precise[: b.filled]
    self.recalled[a.rows] |= recalled[: a.filled]
    self.covered[a.rows] |= covered[: a.filled]
    self.count += int(count)
    i, j = np.nonzero(np.asarray(unsure))
    self._add_pairs(i + a.start, j + b.start)

  def _add_pairs(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> None:
    """Pairs near a border, by their differences."""
    squares = blocks.exact_squares(self.real, self.fake, i, j)
    inside = squares < self.radii.real_dc[i]
    self.precise[j[squares <= self.radii.real_pr[i]]] = True
    self.recalled[i[squares <= self.radii.fake_pr[j]]] = True
    self.covered[i[inside]] = True
    self.count += int(inside.sum())


def _squared_radii(
  x: NDArray[np.floating], *ks: int
) -> list[NDArray[np.float64]]:
  """Squared distance of each sample to its k-th neighbour, for each k."""
  _, squares = blocks.nearest(x, x, max(ks), itself=False)
  return [squares[:, k - 1] for k in ks]


def _pad(x: Floats, block: blocks.Block) -> NDArray[np.float64]:
  padded = np.zeros(block.x.shape[0])
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
  tally = _Tally(reals, fakes, _Radii(real_pr, real_dc, fake_pr))
  rows = blocks.rows_for(len(reals), len(fakes))
  with blocks.x64():
    centre = jnp.asarray(blocks.centre_of(reals))
    for a, b in blocks.pairs(
      blocks.split(reals, rows), blocks.split(fakes, rows)
    ):
      tally.add(a, b, centre)
  return {
    'precision': float(tally.precise.mean()),
    'recall': float(tally.recalled.mean()),
    'density': tally.count / (k_dc * len(fakes)),
    'coverage': float(tally.covered.mean()),
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
  version='2',
  checks=Checks(_examples, best=1.0),
)
