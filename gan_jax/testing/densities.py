"""Conformance of densities: each is held against what it says of itself."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from numpy.typing import NDArray

from gan_jax.data.densities import Density

_SAMPLES = 20_000
_SIGMA = 5.0  # how far from its expectation an estimate may lie
_UNLIKELY = 1e-4  # p-value of a statistic
_BLOCK = 4096  # points that the log-density is compiled for
_PARTS = {
  'fingerprint': 'a hash of its numbers, by which a run knows its data',
  'reference': 'its log-density once more, in NumPy and float64, (n, dim) ->'
  ' (n,)',
}


def check_density(density: Density) -> None:
  """Checks that a density is what it says, and that a program can use it.

  Its samples follow its log-density, which integrates to one and agrees with
  its `reference`; its modes are equally likely, of `mode_std` and where they
  are said to be; jit and vmap change nothing.

  Raises:
    AssertionError: saying in words what is missing or wrong.
  """
  check = _Check(density)
  check.parts()
  check.sampling()
  check.log_density()
  if density.mode_std == 0:
    check.point_mass()
  else:
    check.distribution()
    if density.modes is not None:
      check.modes()


class _Check:
  """The checks of one density, and what they compute together."""

  def __init__(self, density: Density) -> None:
    self.density = density
    self._draw = jax.jit(density.sample, static_argnums=1)
    self._log_prob = jax.jit(density.log_prob)

  def require(self, truth: Any, text: str) -> None:
    if not np.all(truth):
      raise AssertionError(f'{self.density.name}: {text}')

  @functools.cached_property
  def samples(self) -> NDArray[np.float32]:
    return np.asarray(self._draw(jax.random.key(0), _SAMPLES))

  def log_prob(self, x: NDArray[np.generic]) -> NDArray[np.float64]:
    """The log-density of any number of points, compiled once."""
    blocks = np.array_split(np.float32(x), range(_BLOCK, len(x), _BLOCK))
    padded = [np.pad(b, ((0, _BLOCK - len(b)), (0, 0))) for b in blocks]
    values = [np.asarray(self._log_prob(b), np.float64) for b in padded]
    return np.concatenate(values)[: len(x)]

  def parts(self) -> None:
    d = self.density
    for part, what in _PARTS.items():
      self.require(getattr(d, part), f'has no `{part}`; give it {what}')
    self.require(d.dim in (1, 2), f'has {d.dim} dimensions; use 1 or 2')
    self.require(d.extent[0] < d.extent[1], f'`extent` {d.extent} is empty')
    if d.modes is None:
      return
    modes, (low, high) = np.asarray(d.modes), d.extent
    self.require(
      modes.ndim == 2 and modes.shape[1] == d.dim,
      f'`modes` is of shape {modes.shape}; use (k, {d.dim})',
    )
    self.require((low < modes) & (modes < high), 'a mode is out of `extent`')
    self.require(
      d.mode_std is not None,
      'has `modes` without `mode_std`; give the standard deviation of each mode'
      ' along each axis, or 0 for point masses',
    )

  def sampling(self) -> None:
    d, x = self.density, self.samples
    self.require(
      x.shape == (_SAMPLES, d.dim) and x.dtype == np.float32,
      f'`sample(key, {_SAMPLES})` is {x.dtype}{x.shape}; return float32'
      f' ({_SAMPLES}, {d.dim})',
    )
    self.require(np.isfinite(x), '`sample` returns NaN or infinity')
    eager = d.sample(jax.random.key(0), 64)
    jitted, other = (self._draw(jax.random.key(k), 64) for k in (0, 1))
    again = self._draw(jax.random.key(0), 64)
    self.require(again == jitted, '`sample` is no function of its key')
    self.require(
      _near(eager, jitted, 1e-5, 1e-6), '`sample` is another under jit'
    )
    if d.mode_std != 0:
      self.require(
        not np.isin(other[:, 0], jitted[:, 0]).any(),
        '`sample` returns samples of one key for another',
      )

  def log_density(self) -> None:
    d, x = self.density, self.samples[:64]
    values = d.log_prob(jnp.asarray(x))
    self.require(
      values.shape == (64,) and values.dtype == np.float32,
      f'`log_prob` of 64 samples is {values.dtype}{values.shape}; return'
      ' float32 (64,)',
    )
    self.require(
      _near(values, self.log_prob(x), 1e-5, 1e-5),
      '`log_prob` is another under jit',
    )
    batched = jax.vmap(d.log_prob)(jnp.asarray(x).reshape(2, 32, d.dim))
    self.require(
      _near(np.ravel(batched), values, 1e-5, 1e-5),
      '`log_prob` is another under vmap',
    )
    self._against_reference()

  def _against_reference(self) -> None:
    d = self.density
    assert d.reference is not None  # `parts`
    rng = np.random.default_rng(0)
    sets: dict[str, NDArray[Any]] = {
      'of its samples': self.samples[:500],
      'all over its extent': rng.uniform(*d.extent, (500, d.dim)),
      'far away': np.linspace([-1e4] * d.dim, [1e4] * d.dim, 64),
    }
    for where, points in sets.items():
      x: NDArray[Any] = np.asarray(points, np.float32).astype(np.float64)
      values, expected = self.log_prob(x), np.asarray(d.reference(x))
      self.require(
        expected.shape == values.shape,
        f'`reference` of {x.shape} is {expected.shape}; return ({len(x)},)',
      )
      other = ~np.isclose(values, expected, rtol=2e-5, atol=2e-4)
      at = other.argmax()
      self.require(
        not other.any(),
        f'`log_prob` and `reference` differ at points {where}: {values[at]:.7g}'
        f' and {expected[at]:.7g} at {x[at].tolist()}',
      )

  def point_mass(self) -> None:
    drawn = {tuple(x) for x in self.samples.tolist()}
    modes = np.asarray(self.density.modes, np.float32).tolist()
    self.require(
      drawn == set(map(tuple, modes)),
      '`sample` returns other points than `modes`',
    )

  def distribution(self) -> None:
    """Mass, histogram and entropy of samples are those of the log-density."""
    (low, high), log_p = self.density.extent, self._on_grid()
    p = np.exp(log_p) * ((high - low) / len(log_p)) ** self.density.dim
    self._mass(p.sum())
    self._histogram(p)
    self._entropy(p, np.where(np.isfinite(log_p), log_p, 0.0))

  def _mass(self, mass: float) -> None:
    low, high = self.density.extent
    self.require(mass > 0.99, f'`extent` shows {mass:.1%} of it; widen it')
    inside = ((low < self.samples) & (self.samples < high)).all(axis=1).mean()
    error = 2e-4 + _SIGMA * np.sqrt(max(mass * (1 - mass), 0) / _SAMPLES)
    self.require(
      abs(mass - inside) < error,
      f'`log_prob` has a mass of {mass:.4f} in `extent`, where {inside:.4f} of'
      ' the samples are',
    )

  def _histogram(self, p: NDArray[np.float64]) -> None:
    dim, cells = self.density.dim, self._cells
    shape = [cells, len(p) // cells] * dim
    expected = p.reshape(shape).sum(tuple(range(1, 2 * dim, 2))) * _SAMPLES
    edges = np.linspace(*self.density.extent, cells + 1)
    counts, _ = np.histogramdd(self.samples, [edges] * dim)
    self.require(_fits(counts, expected), 'samples do not follow `log_prob`')

  def _entropy(
    self, p: NDArray[np.float64], log_p: NDArray[np.float64]
  ) -> None:
    """What a coarse histogram does not see: the width of narrow modes."""
    entropy, square = -(p * log_p).sum(), (p * log_p**2).sum()
    error = _SIGMA * np.sqrt(max(square - entropy**2, 0) / _SAMPLES) + 2e-3
    mean = -self.log_prob(self.samples).mean()
    self.require(
      abs(mean - entropy) < error,
      f'its samples have a mean -log p of {mean:.4f}, and its entropy is'
      f' {entropy:.4f}: they are narrower or wider than `log_prob` says',
    )

  @property
  def _cells(self) -> int:
    """Cells of the histogram along an axis."""
    return 40 if self.density.dim == 1 else 10

  def _on_grid(self) -> NDArray[np.float64]:
    """The log-density at midpoints over the extent, finer than the modes."""
    d = self.density
    width = (d.extent[1] - d.extent[0]) / self._cells
    fine = int(np.ceil(width / (0.5 * (d.mode_std or width / 40))))
    edges = np.linspace(*d.extent, self._cells * fine + 1)
    axes = [(edges[1:] + edges[:-1]) / 2] * d.dim
    points = np.stack(np.meshgrid(*axes, indexing='ij'), -1)
    values = self.log_prob(points.reshape(-1, d.dim))
    return values.reshape(points.shape[:-1])

  def modes(self) -> None:
    d, x = self.density, self.samples
    modes, std = np.asarray(d.modes, np.float64), float(d.mode_std or 0)
    away = np.linalg.norm(x[:, None] - modes, axis=-1)
    nearest = away.argmin(1)
    self.require(
      away.min(1).max() < 6 * std, 'a sample is far from each of `modes`'
    )
    hits = np.bincount(nearest, minlength=len(modes))
    self.require(
      len(modes) == 1 or scipy.stats.chisquare(hits).pvalue > _UNLIKELY,
      '`modes` are not equally likely',
    )
    noise = (x - modes[nearest]) / std
    self.require(
      abs(noise.std(axis=0) - 1) < 0.02 + _SIGMA / np.sqrt(2 * _SAMPLES),
      f'its modes are {noise.std():.2f} times as wide as `mode_std`',
    )
    # A key that is used twice shows as a correlation.
    columns = noise if len(modes) == 1 else np.column_stack([noise, nearest])
    modes_seen = np.atleast_2d(np.corrcoef(columns.T))
    self.require(
      abs(modes_seen - np.eye(len(modes_seen))) < _SIGMA / np.sqrt(_SAMPLES),
      'the noise of its samples depends on the mode, or one axis on another',
    )


def _near(a: Any, b: Any, rtol: float, atol: float) -> bool:
  return np.allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


def _fits(counts: NDArray[Any], expected: NDArray[np.float64]) -> bool:
  """Whether a histogram is of these expectations, by Pearson's chi-square."""
  often = expected >= 5
  observed = np.append(counts[often], _SAMPLES - counts[often].sum())
  wanted = np.append(expected[often], _SAMPLES - expected[often].sum())
  keep = wanted > 1  # what lies elsewhere may be next to nothing
  excess = np.square(observed - wanted)[keep] / wanted[keep]
  rare = observed[~keep].sum() <= 10
  likely = scipy.stats.chi2.sf(excess.sum(), keep.sum() - 1) > _UNLIKELY
  return bool(rare and likely)
