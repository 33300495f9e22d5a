"""Densities of known truth, sampled on the device.

Each says what it is: its log-density, its modes, and where to look at it. What
a GAN learnt can then be held against the truth rather than against a picture.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from numpy.typing import NDArray

Points = Float[Array, 'n dim']


@dataclasses.dataclass(frozen=True)
class Density:
  """A density over 1 or 2 dimensions.

  Attributes:
    name: its key in `DATASETS`.
    dim: dimensions of a sample.
    sample: `(key, n) -> (n, dim)`, float32.
    log_prob: `(n, dim) -> (n,)`, in nats.
    extent: (low, high) of both axes of a picture of it.
    modes: (k, dim) centres of its modes, or None where it has no separate ones.
    mode_std: deviation of each mode along each axis, or None; 0 where all
      samples of a mode are the same, and `log_prob` serves for drawing only.
    fingerprint: what the run's identity says of the data.
  """

  name: str
  dim: int
  sample: Callable[[Key[Array, ''], int], Points]
  log_prob: Callable[[Points], Float[Array, ' n']]
  extent: tuple[float, float]
  modes: NDArray[np.generic] | None = None
  mode_std: float | None = None
  fingerprint: str = ''

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
  """Equal normal modes of one deviation."""
  centres = jnp.asarray(modes, jnp.float32)
  count, dim = modes.shape

  def sample(key: Key[Array, ''], n: int) -> Points:
    key_mode, key_noise = jax.random.split(key)
    which = jax.random.randint(key_mode, (n,), 0, count)
    noise = jax.random.normal(key_noise, (n * dim,)).reshape(n, dim)
    return centres[which] + std * noise

  def log_prob(x: Points) -> Float[Array, ' n']:
    away = (x[:, None, :] - centres[None, :, :]) / std
    each = -0.5 * jnp.sum(jnp.square(away), axis=-1)
    scale = dim * math.log(std * math.sqrt(2 * math.pi)) + math.log(count)
    return jax.nn.logsumexp(each, axis=1) - scale

  # Rounded: the last bits of a cosine differ from one machine to another.
  rounded = np.round(modes.astype(float), 6) + 0.0  # no -0.0
  told = f'{name} {rounded.tolist()} {std}'
  mark = hashlib.sha256(told.encode()).hexdigest()
  return Density(name, dim, sample, log_prob, extent, modes, std, mark)


def gaussian_1d() -> Density:
  """N(4, 1.25), apart from the noise that G starts from.

  G must learn a shift and a scale, as in figure 1 of the 2014 paper.
  """
  return _mixture('gaussian_1d', np.array([[4.0]]), 1.25, (-1.0, 9.0))


def mixture_1d() -> Density:
  """Three normal modes at -3, 0 and 3, of deviation 0.5."""
  modes = np.array([[-3.0], [0.0], [3.0]])
  return _mixture('mixture_1d', modes, 0.5, (-5.5, 5.5))


def ring() -> Density:
  """Eight modes of deviation .01 on the unit circle.

  Reference: Lin et al. 2018 (PacGAN), arXiv:1712.04086, section 4.1.
  """
  angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
  modes = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
  return _mixture('ring', modes, 0.01, (-1.6, 1.6))


def grid() -> Density:
  """25 modes of deviation .05 at {-4, -2, 0, 2, 4} squared.

  Reference: Lin et al. 2018 (PacGAN), arXiv:1712.04086, section 4.1.
  """
  axis = np.arange(-4.0, 5.0, 2.0)
  modes = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
  return _mixture('grid', modes, 0.05, (-5.5, 5.5))


def spiral() -> Density:
  """Two turns of a spiral out to radius 2, blurred by deviation .05.

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
