"""Fréchet distance between two sets of features; FID of Inception's 2048.

`d^2 = |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))`

With any factors `S = F F'` the trace of the root is the sum of the singular
values of `F1' F2`: no square root of a matrix, nothing that a singular
covariance can spoil, and no imaginary parts to be thrown away.

Fewer samples than dimensions leave a covariance singular. The distance of the
two sample covariances is still exact, but it is far above that of the
distributions, and falls as samples are added; `describe_bias` says so, and
`fid` returns `fid_samples_per_dim` beside the score.

Reference: Heusel et al. 2017, arXiv:1706.08500, equation 6; Dowson & Landau
1982 for the distance.
"""

import dataclasses

import numpy as np
import scipy.linalg
from jaxtyping import Float64
from numpy.typing import ArrayLike, NDArray

from gan_jax.metrics import arrays
from gan_jax.metrics.base import Checks, Example, Metric

Factor = NDArray[np.float64]  # (dim, rank)
ROWS = 4096  # features turned into float64 at a time


@dataclasses.dataclass(frozen=True)
class Moments:
  """Count, mean and scatter of a stream of features, in float64.

  Batches are centred on their own mean before they are multiplied, and merged
  by the formula of Chan et al. 1983: however the stream was cut, the moments
  agree to 1e-12 relative to their largest entry.

  Attributes:
    count: features seen.
    mean: (dim,).
    scatter: (dim, dim), the sum of `(x - mean)(x - mean)'`.
  """

  count: int
  mean: NDArray[np.float64]
  scatter: NDArray[np.float64]

  @classmethod
  def of(cls, x: ArrayLike) -> 'Moments':
    """Moments of features (n, dim), one or more.

    Raises:
      ArgumentError: unless they are a table of finite numbers.
    """
    table = arrays.as_table('x', x)
    dim = table.shape[1]
    moments = cls(0, np.zeros(dim), np.zeros((dim, dim)))
    for start in range(0, len(table), ROWS):
      rows = table[start : start + ROWS].astype(np.float64)
      mean = rows.mean(axis=0)
      rows -= mean
      moments = moments.merge(cls(len(rows), mean, rows.T @ rows))
    return moments

  def merge(self, other: 'Moments') -> 'Moments':
    """Moments of both streams.

    Raises:
      ArgumentError: if their dimensions differ.
    """
    _check_dimensions(self, other)
    count = self.count + other.count
    if not (self.count and other.count):
      return self if self.count else other
    gap = other.mean - self.mean
    weight = self.count * other.count / count
    return Moments(
      count,
      self.mean + gap * (other.count / count),
      self.scatter + other.scatter + weight * np.outer(gap, gap),
    )

  @property
  def covariance(self) -> NDArray[np.float64]:
    """Unbiased, (dim, dim).

    Raises:
      ValueError: of fewer than two features.
    """
    if self.count < 2:
      raise ValueError(f'covariance of {self.count} features: give at least 2')
    return self.scatter / (self.count - 1)


def _check_dimensions(one: Moments, other: Moments) -> None:
  if one.mean.shape != other.mean.shape:
    remedy = (
      f'has {other.mean.size} dimensions, and they are compared with'
      f' {one.mean.size}; use moments of one feature network'
    )
    raise arrays.fault('other', other.mean, remedy)


def factorize(
  covariance: Float64[np.ndarray, 'dim dim'],
) -> Float64[np.ndarray, 'dim rank']:
  """F, (dim, rank), with `F F'` the covariance, whether singular or not."""
  try:
    return np.linalg.cholesky(covariance)
  except np.linalg.LinAlgError:
    values, vectors = np.linalg.eigh(covariance)
    # What rounding leaves of a zero eigenvalue is no direction of the data.
    large = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, large] * np.sqrt(values[large])


def root_trace(
  factor1: Float64[np.ndarray, 'dim rank1'],
  factor2: Float64[np.ndarray, 'dim rank2'],
) -> float:
  """`Tr (S1 S2)^(1/2)`: the sum of the singular values of `F1' F2`."""
  cross = factor1.T @ factor2
  if 0 in cross.shape:
    return 0.0
  return float(scipy.linalg.svdvals(cross, check_finite=False).sum())


def _distance(
  mean1: NDArray[np.float64], mean2: NDArray[np.float64], f1: Factor, f2: Factor
) -> float:
  means = float(np.square(mean1 - mean2).sum())
  spread = float(np.square(f1).sum() + np.square(f2).sum())
  # Of equal sets rounding leaves +-1e-12 or so; a distance is not below 0.
  return max(means + spread - 2 * root_trace(f1, f2), 0.0)


def frechet_distance(one: Moments, other: Moments) -> float:
  """Squared Fréchet distance of two normal distributions, at least 0.

  Raises:
    ArgumentError: of differing dimensions.
    ValueError: of fewer than two features.

  >>> normal = Moments(101, np.zeros(2), 100 * np.eye(2))
  >>> moved = Moments(101, np.array([3.0, 4.0]), 100 * np.eye(2))
  >>> frechet_distance(normal, moved)
  25.0
  """
  _check_dimensions(one, other)
  return _distance(
    one.mean,
    other.mean,
    factorize(one.covariance),
    factorize(other.covariance),
  )


def describe_bias(count: int, dim: int) -> str:
  """The warning about a distance from so few samples; '' of enough."""
  if count > dim:
    return ''
  return (
    f'Fréchet distance in {dim} dimensions from {count} samples: the covariance'
    ' is singular and the distance far too large; compare it only with one of'
    f' as many samples, or give more than {dim}'
  )


def _mean_and_factor(
  x: NDArray[np.floating],
) -> tuple[NDArray[np.float64], Factor]:
  """Mean and a factor of the covariance: the samples themselves if few."""
  if len(x) > x.shape[1]:
    moments = Moments.of(x)
    return moments.mean, factorize(moments.covariance)
  mean = x.mean(axis=0, dtype=np.float64)
  return mean, (x - mean).T / np.sqrt(len(x) - 1)


def fid(real: ArrayLike, fake: ArrayLike, *, seed: int = 0) -> dict[str, float]:
  """Fréchet distance of features; FID if they are Inception's 2048.

  Args:
    real: features (n, dim), at least 2.
    fake: features (m, dim), at least 2.
    seed: not read: nothing is drawn.

  Returns:
    fid: the distance, 0 at best.
    fid_samples_per_dim: the smaller number of samples over the dimensions; at 1
      and below the distance is dominated by its bias (`describe_bias`).

  Raises:
    ArgumentError: unless they are two tables of finite numbers of one width.

  >>> real = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
  >>> round(fid(real, real + [3.0, 4.0])['fid'], 6)
  25.0
  """
  del seed
  a, b = arrays.as_tables(real, fake, 2)
  (mean1, f1), (mean2, f2) = _mean_and_factor(a), _mean_and_factor(b)
  return {
    'fid': _distance(mean1, mean2, f1, f2),
    'fid_samples_per_dim': min(len(a), len(b)) / a.shape[1],
  }


def _examples() -> tuple[Example, ...]:
  """Variances a and b along each axis: `sum (a^(1/2) - b^(1/2))^2`."""
  corners = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1.0]]) * np.sqrt(3 / 4)
  real, fake = corners * [2, 3], corners * [1, 5] + [3, 4]
  scores = {'fid': 25 + 1 + 4, 'fid_samples_per_dim': 2}
  return (Example(fake, scores, real),)


FID = Metric(
  'fid',
  fid,
  {'fid': 'lower', 'fid_samples_per_dim': ''},
  sees='features',
  checks=Checks(_examples, best=0.0),
)
