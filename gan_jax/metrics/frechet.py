"""Fréchet distance between two sets of features (FID on Inception's).

`d^2 = |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))`

With any factors `S = F F'` the trace of the root is the sum of the singular
values of `F1' F2`: no square root of a matrix, nothing that a singular
covariance can spoil, and no imaginary parts to be thrown away.

Fewer samples than dimensions leave a covariance singular. The distance of the
two sample covariances is still exact, but it is far above that of the
distributions, and falls as samples are added; `caution` says so, and `fid`
returns `fid_samples_per_dim` beside the score.

Reference: Heusel et al. 2017, arXiv:1706.08500, equation 6; Dowson & Landau
1982 for the distance.
"""

import dataclasses
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float64
from numpy.typing import NDArray

from gan_jax.metrics import arrays

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
  def of(cls, x: Any) -> 'Moments':
    """Moments of features (n, dim), one or more.

    Raises:
      ValueError: if they are not a table of finite numbers.
    """
    x = arrays.vectors('x', x)
    found = cls(0, np.zeros(x.shape[1]), np.zeros((x.shape[1],) * 2))
    for start in range(0, len(x), ROWS):
      part = x[start : start + ROWS].astype(np.float64)
      mean = part.mean(axis=0)
      part -= mean
      found = found.merge(cls(len(part), mean, part.T @ part))
    return found

  def merge(self, other: 'Moments') -> 'Moments':
    """Moments of both streams.

    Raises:
      ValueError: if their dimensions differ.
    """
    if self.mean.shape != other.mean.shape:
      raise ValueError(
        f'moments of {self.mean.size} and of {other.mean.size} dimensions:'
        ' merge those of one feature network'
      )
    count = self.count + other.count
    if not (self.count and other.count):
      return self if self.count else other
    away = other.mean - self.mean
    weight = self.count * other.count / count
    return Moments(
      count,
      self.mean + away * (other.count / count),
      self.scatter + other.scatter + weight * np.outer(away, away),
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


def factor(
  covariance: Float64[np.ndarray, 'dim dim'],
) -> Float64[np.ndarray, 'dim rank']:
  """F, (dim, rank), with `F F'` the covariance, whether singular or not."""
  try:
    return np.linalg.cholesky(covariance)
  except np.linalg.LinAlgError:
    values, vectors = np.linalg.eigh(covariance)
    # What rounding leaves of a zero eigenvalue is no direction of the data.
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def root_trace(
  factor1: Float64[np.ndarray, 'dim rank1'],
  factor2: Float64[np.ndarray, 'dim rank2'],
) -> float:
  """`Tr (S1 S2)^(1/2)`: the sum of the singular values of `F1' F2`."""
  cross = factor1.T @ factor2
  if 0 in cross.shape:
    return 0.0
  return float(scipy.linalg.svdvals(cross, check_finite=False).sum())


def _distance(mean1: Any, mean2: Any, f1: Factor, f2: Factor) -> float:
  apart = float(np.square(mean1 - mean2).sum())
  spread = float(np.square(f1).sum() + np.square(f2).sum())
  # Of equal sets rounding leaves +-1e-12 or so; a distance is not below 0.
  return max(apart + spread - 2 * root_trace(f1, f2), 0.0)


def frechet_distance(m1: Moments, m2: Moments) -> float:
  """Squared Fréchet distance of two normal distributions, at least 0.

  Raises:
    ValueError: of fewer than two features, or of differing dimensions.
  """
  if m1.mean.shape != m2.mean.shape:
    raise ValueError(
      f'moments of {m1.mean.size} and of {m2.mean.size} dimensions: compare'
      ' those of one feature network'
    )
  return _distance(
    m1.mean, m2.mean, factor(m1.covariance), factor(m2.covariance)
  )


def caution(count: int, dim: int) -> str:
  """What is to be said of a distance from so few samples; '' of enough."""
  if count > dim:
    return ''
  return (
    f'Fréchet distance in {dim} dimensions from {count} samples: the covariance'
    ' is singular and the distance far too large; compare it only with one of'
    f' as many samples, or give more than {dim}'
  )


def _centred(x: NDArray[Any]) -> tuple[NDArray[np.float64], Factor]:
  """Mean and a factor of the covariance: the samples themselves if few."""
  if len(x) > x.shape[1]:
    moments = Moments.of(x)
    return moments.mean, factor(moments.covariance)
  mean = x.mean(axis=0, dtype=np.float64)
  return mean, (x - mean).T / np.sqrt(len(x) - 1)


def fid(real: Any, fake: Any, *, seed: int = 0) -> dict[str, float]:
  """Fréchet distance of features; FID if they are Inception's 2048.

  Args:
    real: (n, dim), at least 2.
    fake: (m, dim), at least 2.
    seed: not read: nothing is drawn.

  Returns:
    fid: the distance, 0 at best.
    fid_samples_per_dim: the smaller number of samples over the dimensions; at 1
      and below the distance is dominated by its bias (`caution`).

  Raises:
    ValueError: if they are not two tables of finite numbers of one width.
  """
  del seed
  real, fake = arrays.two_sets(real, fake, 2)
  (mean1, f1), (mean2, f2) = _centred(real), _centred(fake)
  return {
    'fid': _distance(mean1, mean2, f1, f2),
    'fid_samples_per_dim': min(len(real), len(fake)) / real.shape[1],
  }
