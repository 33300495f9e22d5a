"""Distances of generated points from a density that is known.

Jensen-Shannon divergence: the line or plane is cut into cells of a mode's
standard deviation, and the part of the samples in each is held against the
exact mass of the density in it; what lies outside the extent is one more cell.
Differences within a cell are not seen, which lowers the score. Chance raises
it: samples of the truth itself do not score 0 but about (cells with mass - 1) /
8n, and what such a set scores is returned beside it.

Wasserstein-1: in 1-D exactly, from the samples' and the true distribution
function. In 2-D by exact optimal transport between as many samples of each,
1000 at the most; again beside what a set of true samples scores.
"""

import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.spatial.distance
import scipy.special
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from gan_jax.metrics import arrays
from gan_jax.metrics.base import Checks, Example, Metric, Truth, of_fake
from gan_jax.runtime.errors import ArgumentError

CELLS = (64, 512)  # on an axis: at the least and at the most
FINE = 8192  # intervals of a true distribution function
NODES, WEIGHTS = np.polynomial.legendre.leggauss(4)
EVALUATED = 1 << 16  # points of a log-density at a time
TRANSPORTED = 1000
_MASSES: dict[tuple[str, float, float, int], NDArray[np.float64]] = {}


def _evaluate(truth: Truth, x: NDArray[np.float64]) -> NDArray[np.float64]:
  """The density at points (n, dim), in blocks of one shape."""
  log_prob = jax.jit(truth.log_prob)
  size = min(EVALUATED, len(x))
  values = []
  for start in range(0, len(x), size):
    rows = x[start : start + size]
    padded = np.zeros((size, x.shape[1]), np.float32)
    padded[: len(rows)] = rows
    values.append(np.asarray(log_prob(jnp.asarray(padded)))[: len(rows)])
  return np.exp(np.concatenate(values).astype(np.float64))


def cell_masses(
  truth: Truth, low: float, high: float, cells: int
) -> NDArray[np.float64]:
  """Mass of a density in each of `cells`^dim equal cells.

  By four Gauss-Legendre nodes along each axis of a cell. Masses of a density
  with a fingerprint are remembered: evaluation asks for them again and again.
  """
  key = truth.fingerprint, low, high, cells
  if key not in _MASSES:
    masses = _integrate(truth, low, high, cells)
    if not truth.fingerprint:
      return masses
    _MASSES[key] = masses
  return _MASSES[key]


def _integrate(
  truth: Truth, low: float, high: float, cells: int
) -> NDArray[np.float64]:
  width = (high - low) / cells
  left = low + width * np.arange(cells)
  axis = (left[:, None] + width * (1 + NODES)[None, :] / 2).ravel()
  weights = np.tile(WEIGHTS * width / 2, cells)
  mesh = np.meshgrid(*[axis] * truth.dim, indexing='ij')
  at = np.stack([m.ravel() for m in mesh], axis=-1)
  mass = _evaluate(truth, at).reshape([axis.size] * truth.dim)
  for i in range(truth.dim):
    shape = [1] * truth.dim
    shape[i] = axis.size
    mass = mass * weights.reshape(shape)
  folded = mass.reshape([cells, len(NODES)] * truth.dim)
  total = folded.sum(axis=tuple(range(1, 2 * truth.dim, 2)))
  # Halved, the least numbers there are would be 0 and their logarithm infinite.
  return np.where(total > 1e-200, total, 0)


def count_cells(truth: Truth) -> int:
  """Cells on an axis, each as wide as a mode's standard deviation."""
  low, high = truth.extent
  std = truth.mode_std or (high - low) / CELLS[0]
  return int(np.clip(math.ceil((high - low) / std), *CELLS))


def _shares(
  x: NDArray[np.floating], truth: Truth, cells: int
) -> NDArray[np.float64]:
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


def wasserstein_1d(x: Float[np.ndarray, ' n'], truth: Truth) -> float:
  """`int |F_n(t) - F(t)| dt` of samples and a density on a line.

  F is taken as linear between 8192 points.
  """
  low, high = truth.extent
  # The extent is that of a picture: of a density's tails it may leave a little.
  low, high = low - (high - low) / 2, high + (high - low) / 2
  grid = np.linspace(low, high, FINE + 1)
  cumulated = np.concatenate(
    [[0], np.cumsum(cell_masses(truth, low, high, FINE))]
  )
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


def _draw(truth: Truth, seed: int, stream: int, n: int) -> NDArray[np.floating]:
  """`n` samples of the truth, of their own for each stream."""
  key = jax.random.fold_in(jax.random.key(seed), stream)
  return np.asarray(jax.jit(truth.sample, static_argnums=1)(key, n))


def density(
  fake: ArrayLike, *, truth: Truth, seed: int = 0
) -> dict[str, float]:
  """Jensen-Shannon divergence and Wasserstein-1 distance from a density.

  Args:
    fake: points (n, dim), at least 2.
    truth: with `dim` 1 or 2, `log_prob`, `sample`, `extent` and `mode_std`.
    seed: of the samples of the truth, and of those that are transported.

  Returns:
    jsd: of the cells' masses, in nats, at most log 2.
    jsd_floor: that of as many true samples.
    wasserstein1: in the points' unit.
    wasserstein1_floor: that of as many true samples.
    wasserstein1_samples: how many were transported.

  Raises:
    ArgumentError: unless `fake` is a table of finite points of the truth's
      dimension, and the truth a density over one or two dimensions.

  >>> from gan_jax import data
  >>> truth = data.load('gaussian_1d')  # N(4, 1.25)
  >>> scores = density(np.full((9, 1), 1004.0), truth=truth)
  >>> round(scores['jsd'], 3), round(scores['wasserstein1'])
  (0.693, 1000)
  """
  x = arrays.as_table('fake', fake, 2)
  if truth.dim not in (1, 2) or truth.mode_std == 0:
    remedy = 'is no density over 1 or 2 dimensions; compare samples, by '
    raise ArgumentError('truth', truth.name, f'{remedy}swd_points')
  if x.shape[1] != truth.dim:
    remedy = f'has {x.shape[1]} dimensions and {truth.name} {truth.dim}'
    raise arrays.fault('fake', x, remedy)
  cells = count_cells(truth)
  low, high = truth.extent
  mass = cell_masses(truth, low, high, cells).ravel()
  mass = np.append(mass, max(0.0, 1 - mass.sum()))
  like = _draw(truth, seed, 0, len(x))
  if truth.dim == 1:
    used = len(x)
    distance = wasserstein_1d(x[:, 0], truth)
    floor = wasserstein_1d(like[:, 0], truth)
  else:
    used = min(TRANSPORTED, len(x))
    rows = np.random.default_rng(seed).permutation(len(x))[:used]
    true = _draw(truth, seed, 1, used)
    distance = wasserstein_2d(x[rows], true)
    floor = wasserstein_2d(like[:used], true)
  return {
    'jsd': jensen_shannon(mass, _shares(x, truth, cells)),
    'jsd_floor': jensen_shannon(mass, _shares(like, truth, cells)),
    'wasserstein1': distance,
    'wasserstein1_floor': floor,
    'wasserstein1_samples': float(used),
  }


def _examples() -> tuple[Example, ...]:
  """Uniform on [0, 1]: half of it covered, and nothing of it."""
  truth = types.SimpleNamespace(
    name='uniform',
    dim=1,
    extent=(0.0, 1.0),
    modes=None,
    mode_std=None,
    fingerprint='uniform on [0, 1)',
    sample=lambda key, n: jax.random.uniform(key, (n, 1)),
    log_prob=lambda x: jnp.where((x >= 0) & (x < 1), 0.0, -jnp.inf)[:, 0],
  )
  needs = {'truth': truth}
  half = (np.arange(6400)[:, None] + 0.5) / 12800
  jsd = (math.log(4 / 3) + math.log(2 / 3) / 2 + math.log(2) / 2) / 2
  scores = {'jsd': jsd, 'wasserstein1': 0.25, 'wasserstein1_samples': 6400}
  outside = {'jsd': math.log(2), 'wasserstein1': 10.0}
  return (
    Example(half, scores, needs=needs),
    Example(half * 2 + 10, outside, needs=needs),
  )


DENSITY = Metric(
  'density',
  of_fake(density),
  {
    'jsd': 'lower',
    'jsd_floor': '',
    'wasserstein1': 'lower',
    'wasserstein1_floor': '',
    'wasserstein1_samples': '',
  },
  sees='points',
  needs=('truth',),
  reads_real=False,
  checks=Checks(_examples),
)
