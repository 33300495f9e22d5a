"""Distances of generated points from a density that is known.

Jensen-Shannon divergence: the line or plane is cut into cells of a mode's
deviation, and the part of the samples in each is held against the exact mass of
the density in it; what lies outside the extent is one more cell. Differences
within a cell are not seen, which lowers the score. Chance raises it: samples of
the truth itself do not score 0 but about (cells with mass - 1) / 8n, and what
such a set scores is returned beside it.

Wasserstein-1: in 1-D exactly, from the samples' and the true distribution
function. In 2-D by exact optimal transport between as many samples of each,
1000 at the most; again beside what a set of true samples scores.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.spatial.distance
import scipy.special
from jaxtyping import Float
from numpy.typing import NDArray

from gan_jax.metrics import arrays

CELLS = (64, 512)  # on an axis: at the least and at the most
FINE = 8192  # intervals of a true distribution function
NODES, WEIGHTS = np.polynomial.legendre.leggauss(4)
EVALUATED = 1 << 16  # points of a log-density at a time
TRANSPORTED = 1000
_KEPT: dict[tuple[str, float, float, int], NDArray[np.float64]] = {}


def _probabilities(truth: Any, x: NDArray[np.float64]) -> NDArray[np.float64]:
  """The density at points (n, dim), in blocks of one shape."""
  log_prob = jax.jit(truth.log_prob)
  size = min(EVALUATED, len(x))
  found = []
  for start in range(0, len(x), size):
    part = x[start : start + size]
    padded = np.zeros((size, x.shape[1]), np.float32)
    padded[: len(part)] = part
    found.append(np.asarray(log_prob(jnp.asarray(padded)))[: len(part)])
  return np.exp(np.concatenate(found).astype(np.float64))


def masses(
  truth: Any, low: float, high: float, cells: int
) -> NDArray[np.float64]:
  """Mass of a density in each of `cells`^dim equal cells.

  By four Gauss-Legendre nodes along each axis of a cell. Masses of a density
  with a fingerprint are kept: evaluation asks for them again and again.
  """
  known = getattr(truth, 'fingerprint', ''), low, high, cells
  if known not in _KEPT:
    found = _integrated(truth, low, high, cells)
    if not known[0]:
      return found
    _KEPT[known] = found
  return _KEPT[known]


def _integrated(
  truth: Any, low: float, high: float, cells: int
) -> NDArray[np.float64]:
  width = (high - low) / cells
  left = low + width * np.arange(cells)
  axis = (left[:, None] + width * (1 + NODES)[None, :] / 2).ravel()
  weights = np.tile(WEIGHTS * width / 2, cells)
  mesh = np.meshgrid(*[axis] * truth.dim, indexing='ij')
  at = np.stack([m.ravel() for m in mesh], axis=-1)
  found = _probabilities(truth, at).reshape([axis.size] * truth.dim)
  for i in range(truth.dim):
    shape = [1] * truth.dim
    shape[i] = axis.size
    found = found * weights.reshape(shape)
  folded = found.reshape([cells, len(NODES)] * truth.dim)
  total = folded.sum(axis=tuple(range(1, 2 * truth.dim, 2)))
  # Halved, the least numbers there are would be 0 and their logarithm infinite.
  return np.where(total > 1e-200, total, 0)


def _cells(truth: Any) -> int:
  low, high = truth.extent
  deviation = truth.mode_std or (high - low) / CELLS[0]
  return int(np.clip(math.ceil((high - low) / deviation), *CELLS))


def _shares(x: NDArray[Any], truth: Any, cells: int) -> NDArray[np.float64]:
  """Part of the points in each cell, those outside of all last."""
  low, high = truth.extent
  at = np.floor((x - low) * (cells / (high - low)))
  inside = ((at >= 0) & (at < cells)).all(axis=1)
  index = at[inside].astype(np.int64)
  flat = np.ravel_multi_index(tuple(index.T), (cells,) * truth.dim)
  counts = np.bincount(flat, minlength=cells**truth.dim)
  return np.append(counts, np.count_nonzero(~inside)) / len(x)


def jensen_shannon(
  p: Float[np.ndarray, ' cells'], q: Float[np.ndarray, ' cells']
) -> float:
  """`KL(p || m) / 2 + KL(q || m) / 2`, m their mean: 0 to log 2, in nats."""
  m = (p + q) / 2
  both = scipy.special.rel_entr(p, m).sum() + scipy.special.rel_entr(q, m).sum()
  return float(both / 2)


def wasserstein_1d(x: Float[np.ndarray, ' n'], truth: Any) -> float:
  """`int |F_n(t) - F(t)| dt` of samples and a density on a line.

  F is taken as linear between 8192 points.
  """
  low, high = truth.extent
  # The extent is that of a picture: of a density's tails it may leave a little.
  low, high = low - (high - low) / 2, high + (high - low) / 2
  grid = np.linspace(low, high, FINE + 1)
  cumulated = np.concatenate([[0], np.cumsum(masses(truth, low, high, FINE))])
  cumulated /= cumulated[-1]
  t = np.sort(np.concatenate([grid, x]))
  true = np.interp(t, grid, cumulated)
  # F_n between neighbouring points, and its distance from F at either end.
  steps = np.searchsorted(np.sort(x), t[:-1], side='right') / len(x)
  a, b = true[:-1] - steps, true[1:] - steps
  size = np.abs(a) + np.abs(b)
  crossing = (a * b < 0) & (size > 0)
  mean = np.where(
    crossing, (a**2 + b**2) / (2 * np.where(size > 0, size, 1)), size / 2
  )
  return float((mean * np.diff(t)).sum())


def wasserstein_2d(
  x: Float[np.ndarray, 'n dim'], y: Float[np.ndarray, 'n dim']
) -> float:
  """Exact Wasserstein-1 distance of two equally large sets of points."""
  cost = scipy.spatial.distance.cdist(x, y)
  return float(cost[scipy.optimize.linear_sum_assignment(cost)].mean())


def _drawn(truth: Any, seed: int, name: int, n: int) -> NDArray[Any]:
  """`n` samples of the truth, of their own for each name."""
  key = jax.random.fold_in(jax.random.key(seed), name)
  return np.asarray(truth.sample(key, n))


def density(
  real: Any, fake: Any, *, seed: int = 0, truth: Any
) -> dict[str, float]:
  """Jensen-Shannon divergence and Wasserstein-1 distance from a density.

  Args:
    real: not read: the density is known.
    fake: points (n, dim), at least 2.
    seed: of the samples of the truth, and of those that are transported.
    truth: with `dim` 1 or 2, `log_prob`, `sample`, `extent` and `mode_std`.

  Returns:
    jsd: of the cells' masses, in nats, at most log 2.
    jsd_floor: that of as many true samples.
    wasserstein1: in the points' unit.
    wasserstein1_floor: that of as many true samples.
    wasserstein1_samples: how many were transported.

  Raises:
    ValueError: if `fake` is no table of finite points of the truth's dimension,
      or the truth is no density of one or two dimensions.
  """
  del real
  x = arrays.vectors('fake', fake, 2)
  if truth.dim not in (1, 2) or truth.mode_std == 0:
    raise arrays.SetupError(
      f'{truth.name} is no density over 1 or 2 dimensions: compare samples'
      ' (swd_points)'
    )
  if x.shape[1] != truth.dim:
    raise ValueError(
      f'fake has {x.shape[1]} dimensions and {truth.name} {truth.dim}'
    )
  cells = _cells(truth)
  low, high = truth.extent
  mass = masses(truth, low, high, cells).ravel()
  mass = np.append(mass, max(0.0, 1 - mass.sum()))
  like = _drawn(truth, seed, 0, len(x))
  if truth.dim == 1:
    used = len(x)
    apart = wasserstein_1d(x[:, 0], truth)
    floor = wasserstein_1d(like[:, 0], truth)
  else:
    used = min(TRANSPORTED, len(x))
    chosen = np.random.default_rng(seed).permutation(len(x))[:used]
    true = _drawn(truth, seed, 1, used)
    apart = wasserstein_2d(x[chosen], true)
    floor = wasserstein_2d(like[:used], true)
  return {
    'jsd': jensen_shannon(mass, _shares(x, truth, cells)),
    'jsd_floor': jensen_shannon(mass, _shares(like, truth, cells)),
    'wasserstein1': apart,
    'wasserstein1_floor': floor,
    'wasserstein1_samples': float(used),
  }
