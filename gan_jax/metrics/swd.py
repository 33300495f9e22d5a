"""Sliced Wasserstein distance: of images by scale, and of points.

Images: a Laplacian pyramid; from each of its levels random 7x7 patches of each
image, normalised by the mean and deviation of each channel over the set; the
Wasserstein-1 distances of their projections on random directions, averaged and
multiplied by 1000. Low scales tell of layout, the finest of texture and noise.

Points: the mean Wasserstein-1 distance over random directions.

Reference: Karras et al. 2018, arXiv:1710.10196, section 5: 128 patches of an
image, 4 times 128 directions, levels down to 16 pixels; Rabin et al. 2011 for
slicing. Differences: levels go down to 14 pixels, for 28x28 images to have two;
sets of differing sizes are compared as well.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from gan_jax.metrics import arrays, blocks, transport

PATCH = 7
PATCHES = 128  # of an image
DIRECTIONS = 512
TOGETHER = 64  # directions projected on at a time
COARSEST = 14
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)

Images = Float[Array, 'n height width channels']


def _blur(x: Any, axis: int) -> Any:
  """Binomial filter along an axis, mirrored at the borders."""
  widths = [(2, 2) if i == axis else (0, 0) for i in range(x.ndim)]
  padded = jnp.pad(x, widths, mode='reflect')
  size = x.shape[axis]
  shifted = [
    jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(5)
  ]
  return sum(w * s for w, s in zip(BINOMIAL, shifted, strict=True))


def _down(x: Images) -> Float[Array, 'n half_height half_width channels']:
  """Blurred, every other pixel."""
  return _blur(_blur(x, 1), 2)[:, ::2, ::2]


def _up(
  x: Float[Array, 'n half_height half_width channels'], height: int, width: int
) -> Float[Array, 'n {height} {width} channels']:
  """Zeros between pixels, blurred, four times as bright."""
  n, _, _, c = x.shape
  wide = jnp.zeros((n, height, width, c), x.dtype).at[:, ::2, ::2].set(x)
  return 4 * _blur(_blur(wide, 1), 2)


def sides(height: int, width: int) -> list[int]:
  """Heights of the levels of the pyramid, the finest first."""
  found = [height]
  while -(-min(height, width) // 2) >= COARSEST:
    height, width = -(-height // 2), -(-width // 2)
    found.append(height)
  return found


@jax.jit
def _pyramid(x: Any) -> list[Images]:
  """Laplacian pyramid of images, the finest level first."""
  x = x.astype(jnp.float32)
  found = []
  for _ in sides(*x.shape[1:3])[1:]:
    smaller = _down(x)
    found.append(x - _up(smaller, *x.shape[1:3]))
    x = smaller
  return [*found, x]


def _pyramids(x: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
  """The levels of all images, in blocks of one shape."""
  parts = []
  for block in blocks.split(x, min(256, blocks.rows_for(len(x)))):
    parts.append([np.asarray(y)[: block.filled] for y in _pyramid(block.x)])
  return [np.concatenate(level) for level in zip(*parts, strict=True)]


def _patches(
  level: NDArray[np.float32], count: int, rng: np.random.Generator, name: str
) -> NDArray[np.float32]:
  """Random patches of one level, normalised, (n count, 49 channels)."""
  n, height, width, channels = level.shape
  top = rng.integers(0, height - PATCH + 1, n * count)[:, None, None]
  left = rng.integers(0, width - PATCH + 1, n * count)[:, None, None]
  which = np.repeat(np.arange(n), count)[:, None, None]
  side = np.arange(PATCH)
  found = level[which, top + side[None, :, None], left + side[None, None, :]]
  mean = found.mean(axis=(0, 1, 2), dtype=np.float64)
  square = np.einsum('nyxc,nyxc->c', found, found, dtype=np.float64)
  std = np.sqrt(np.maximum(square * channels / found.size - mean**2, 0))
  if not (std > 1e-3).all():  # of 255
    raise arrays.fault(
      name,
      f'{name} has a channel without detail at {height}x{width} pixels: the'
      ' sliced Wasserstein distance divides by its deviation; constant images'
      ' cannot be compared so',
    )
  found -= mean.astype(np.float32)
  found /= std.astype(np.float32)
  return found.reshape(n * count, -1)


def sliced(
  x: NDArray[Any], y: NDArray[Any], rng: np.random.Generator, count: int
) -> float:
  """Mean Wasserstein-1 distance along `count` random directions."""
  total = 0.0
  for start in range(0, count, TOGETHER):
    d = transport.directions(rng, min(TOGETHER, count - start), x.shape[1])
    total += float(transport.on_a_line(x @ d, y @ d).sum())
  return total / count


def swd(
  real: Any,
  fake: Any,
  *,
  seed: int = 0,
  patches: int = PATCHES,
  directions: int = DIRECTIONS,
) -> dict[str, float]:
  """Sliced Wasserstein distance of images, times 1000.

  The patches of a level are held at once: 4 n patches 49 channels bytes a side,
  0.75 GB for 10,000 colour images. Take fewer patches of more images.

  Args:
    real: uint8 images of 7 pixels a side or more, at least 2.
    fake: of the same shape, at least 2.
    seed: of the patches and directions.
    patches: of each image at each level.
    directions: projected on.

  Returns:
    swd: the mean over levels, 0 at best; swd_SIDE: that of each level, by its
    height.

  Raises:
    ValueError: if they are not uint8 images of one shape, too small, or without
      detail.
  """
  real, fake = arrays.images('real', real, 2), arrays.images('fake', fake, 2)
  if real.shape[1:] != fake.shape[1:]:
    raise arrays.SetupError(
      f'real images are {real.shape[1:]} and fake ones {fake.shape[1:]}: give'
      ' one shape'
    )
  if min(real.shape[1:3]) < PATCH:
    raise arrays.SetupError(
      f'images of {real.shape[1:3]} pixels: give 7x7 or more'
    )
  rng = np.random.default_rng(seed)
  found = {}
  for a, b in zip(_pyramids(real), _pyramids(fake), strict=True):
    # One seed for both: what differs is the images.
    at = int(rng.integers(2**32))
    x = _patches(a, patches, np.random.default_rng(at), 'real')
    y = _patches(b, patches, np.random.default_rng(at), 'fake')
    found[f'swd_{a.shape[1]}'] = 1000 * sliced(x, y, rng, directions)
  return {'swd': float(np.mean([*found.values()])), **found}


def swd_points(
  real: Any, fake: Any, *, seed: int = 0, directions: int = DIRECTIONS
) -> dict[str, float]:
  """Sliced Wasserstein distance of points; in 1-D the distance itself.

  Args:
    real: (n, dim), at least 2.
    fake: (m, dim), at least 2.
    seed: of the directions.
    directions: projected on.

  Returns:
    swd_points: 0 at best, in the points' unit.

  Raises:
    ValueError: if they are not two tables of finite numbers of one width.
  """
  real, fake = arrays.two_sets(real, fake, 2)
  rng = np.random.default_rng(seed)
  count = directions if real.shape[1] > 1 else 1
  return {'swd_points': sliced(real, fake, rng, count)}
