"""Densities of known truth, sampled on the device.

Each says what it is: its log-density, its modes, and where to look at it. What
a GAN learnt can then be held against the truth rather than against a picture.
To add one, write a function here and give it an entry in `DENSITIES` below;
`gan_jax.testing.check_density` holds every entry against what it says of
itself.
"""

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from numpy.typing import NDArray

from gan_jax.runtime import places
from gan_jax.runtime.errors import ArgumentError

Points = Float[Array, 'n dim']
Reference = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclasses.dataclass(frozen=True)
class Density:
  """A density over 1 or 2 dimensions.

  Attributes:
    name: its key in `DENSITIES`, or density:FILE.
    dim: dimensions of a sample.
    sample: `(key, n) -> (n, dim)`, float32.
    log_prob: `(n, dim) -> (n,)`, in nats; -inf where the density is 0.
    extent: (low, high) of both axes of a picture of it.
    modes: (k, dim) centres of its modes, which are equally likely, or None
      where it has no separate ones.
    mode_std: standard deviation of each mode along each axis, or None; 0 where
      all samples of a mode are the same, and `log_prob` serves for drawing
      only.
    fingerprint: what the run's identity says of the data.
    reference: `log_prob` once more, in NumPy and float64, (n, dim) -> (n,):
      what the tests hold `log_prob` and `sample` against.
  """

  name: str
  dim: int
  sample: Callable[[Key[Array, ''], int], Points]
  log_prob: Callable[[Points], Float[Array, ' n']]
  extent: tuple[float, float]
  modes: NDArray[np.generic] | None = None
  mode_std: float | None = None
  fingerprint: str = ''
  reference: Reference | None = None

  bounded = False
  size = None
  classes = ()

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of one sample."""
    return (self.dim,)


def _mixture(
  name: str, modes: NDArray[np.generic], std: float, extent: tuple[float, float]
) -> Density:
  """Equally likely normal modes of one standard deviation."""
  centres = np.asarray(modes, np.float32)
  count, dim = modes.shape

  def sample(key: Key[Array, ''], n: int) -> Points:
    key_mode, key_noise = jax.random.split(key)
    which = jax.random.randint(key_mode, (n,), 0, count)
    noise = jax.random.normal(key_noise, (n * dim,)).reshape(n, dim)
    return jnp.asarray(centres)[which] + std * noise

  def log_prob(x: Points) -> Float[Array, ' n']:
    away = (x[:, None, :] - centres[None, :, :]) / std
    per_mode = -0.5 * jnp.sum(jnp.square(away), axis=-1)
    scale = dim * math.log(std * math.sqrt(2 * math.pi)) + math.log(count)
    return jax.nn.logsumexp(per_mode, axis=1) - scale

  def reference(x: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy import stats

    per_mode = stats.norm.logpdf(x[:, None], np.float64(modes), std).sum(
      axis=-1
    )
    return np.logaddexp.reduce(per_mode - np.log(count), axis=1)

  # Rounded: the last bits of a cosine differ from one machine to another.
  rounded = np.round(modes.astype(float), 6) + 0.0  # no -0.0
  facts = f'{name} {rounded.tolist()} {std}'
  return Density(
    name,
    dim,
    sample,
    log_prob,
    extent,
    modes,
    std,
    hashlib.sha256(facts.encode()).hexdigest(),
    reference,
  )


def gaussian_1d() -> Density:
  """N(4, 1.25), apart from the noise that G starts from.

  G must learn a shift and a scale, as in figure 1 of the 2014 paper.
  """
  return _mixture('gaussian_1d', np.array([[4.0]]), 1.25, (-1.0, 9.0))


def mixture_1d() -> Density:
  """Three normal modes at -3, 0 and 3, of standard deviation 0.5."""
  modes = np.array([[-3.0], [0.0], [3.0]])
  return _mixture('mixture_1d', modes, 0.5, (-5.5, 5.5))


def ring() -> Density:
  """Eight modes of standard deviation .01 on the unit circle.

  Reference: Lin et al. 2018 (PacGAN), arXiv:1712.04086, section 4.1.
  """
  angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
  modes = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
  return _mixture('ring', modes, 0.01, (-1.6, 1.6))


def grid() -> Density:
  """25 modes of standard deviation .05 at {-4, -2, 0, 2, 4} squared.

  Reference: Lin et al. 2018 (PacGAN), arXiv:1712.04086, section 4.1.
  """
  axis = np.arange(-4.0, 5.0, 2.0)
  modes = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
  return _mixture('grid', modes, 0.05, (-5.5, 5.5))


def spiral() -> Density:
  """Two turns of a spiral out to radius 2, of standard deviation .05 around it.

  The angle is uniform. The density is that of a very fine mixture along the
  curve, from which it is also sampled.
  """
  turns, std, fine = 2.0, 0.05, 1024
  angle = 2 * np.pi * turns * (np.arange(fine) + 0.5) / fine
  radius = angle / np.pi / turns
  curve = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
  mixture = _mixture('spiral', curve, std, (-2.6, 2.6))
  return dataclasses.replace(mixture, modes=None)


def delta() -> Density:
  """All samples at 0, exactly: the data of Dirac-GAN.

  Its log-density, which no function is, is for drawing only that of N(0, .02).

  Reference: Mescheder et al. 2018, arXiv:1801.04406, definition 2.1.
  """
  drawn = _mixture('delta', np.zeros((1, 1)), 0.02, (-2.0, 2.0))

  def sample(key: Key[Array, ''], n: int) -> Points:
    del key
    return jnp.zeros((n, 1))

  return dataclasses.replace(drawn, sample=sample, mode_std=0.0)


def _read_table(path: pathlib.Path, name: str) -> NDArray[np.float64]:
  """Two columns of numbers, x and p(x), with spaces or commas between."""
  try:
    lines = path.read_text(encoding='utf-8').replace(',', ' ').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise ArgumentError(
      'dataset',
      name,
      f'cannot be read ({error}); name a text file of two columns, x and p(x)',
    ) from error
  rows = []
  for number, line in enumerate(lines, 1):
    words = line.partition('#')[0].split()
    try:
      if words:
        x, p = map(float, words)
        rows.append((x, p))
    except ValueError as error:
      raise ArgumentError(
        'dataset',
        name,
        f'line {number} is {line!r}; write two numbers, x and p(x)',
      ) from error
  return np.array(rows, np.float64).reshape(-1, 2)


def _check_table(x: NDArray[Any], p: NDArray[Any], name: str) -> None:
  """Refuses what is no density."""
  problem = ''
  if len(x) < 2:
    problem = f'has {len(x)} points; give at least two'
  elif not np.isfinite(p).all() or not (np.abs(x) < 1e30).all():
    problem = 'has a number that is not finite, or an x beyond 1e30; remove it'
  elif (np.diff(np.float32(x)) <= 0).any():
    at = x[np.argmax(np.diff(np.float32(x)) <= 0) + 1]
    problem = f'x={at:g} is not above the x before it; sort them, each once'
  elif (p < 0).any():
    problem = f'p({x[np.argmax(p < 0)]:g}) is negative; use 0 or more'
  elif not p.any():
    problem = 'p is 0 everywhere; use a positive p(x) somewhere'
  if problem:
    raise ArgumentError('dataset', name, problem)


def from_file(path: str) -> Density:
  """Any density over one dimension, of a file: `density:FILE`.

  The file is text: two columns, x and p(x), with spaces or a comma between; x
  rises, `#` starts a comment. p is linear between the points, 0 outside of
  them (`log_prob` is -inf there) and is scaled to integrate to 1, so a curve of
  any height will do. Samples are its own, by the inverse of its distribution
  function.

  Raises:
    ArgumentError: if there is no such file, or it holds no density.
  """
  name = f'density:{path}'
  table = _read_table(places.resolved('dataset', path, name), name)
  _check_table(table[:, 0], table[:, 1], name)
  at, p = table.T
  p = p / p.max()
  p = p / np.trapezoid(p, at)
  mass = np.diff(at) * (p[:-1] + p[1:]) / 2
  # Of each piece: where it starts, how far it goes, the share of its left end
  # in the sum of both ends; a piece without mass is never drawn.
  left, width = jnp.float32(at[:-1]), jnp.float32(np.diff(at))
  ends = p[:-1] + p[1:]
  share = jnp.float32(np.where(ends > 0, p[:-1] / np.where(ends, ends, 1), 0.5))
  below = np.cumsum(mass) / mass.sum()
  below[below == below[-1]] = 1.0
  cumulative = jnp.float32(below)
  knots, heights = jnp.float32(at), jnp.float32(p)

  def sample(key: Key[Array, ''], n: int) -> Points:
    key_piece, key_place = jax.random.split(key)
    u = jax.random.uniform(key_piece, (n,))
    piece = jnp.searchsorted(cumulative, u, side='right')
    # Within a piece, 2 a s + (1 - 2 a) s^2 = v, solved for s so that nothing
    # cancels; v is never 0, where a = 0 would make it 0 / 0.
    v = 1 - jax.random.uniform(key_place, (n,))
    a = share[piece]
    s = v / (a + jnp.sqrt(jnp.square(a) + (1 - 2 * a) * v))
    return (left[piece] + s * width[piece])[:, None]

  def log_prob(x: Points) -> Float[Array, ' n']:
    return jnp.log(jnp.interp(x[:, 0], knots, heights, left=0, right=0))

  def reference(x: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide='ignore'):
      return np.log(np.interp(x[:, 0], at, p, left=0, right=0))

  margin = 0.15 * (at[-1] - at[0])
  extent = (float(at[0] - margin), float(at[-1] + margin))
  return Density(
    name,
    1,
    sample,
    log_prob,
    extent,
    fingerprint=hashlib.sha256(b'linear' + table.tobytes()).hexdigest(),
    reference=reference,
  )


DENSITIES: dict[str, Callable[[], Density]] = {
  'gaussian_1d': gaussian_1d,
  'mixture_1d': mixture_1d,
  'ring': ring,
  'grid': grid,
  'spiral': spiral,
  'delta': delta,
}
