"""Sliced Wasserstein distance: of images by scale, and of points.

Images: a Laplacian pyramid; from each of its levels random 7x7 patches of each
image, normalised by the mean and standard deviation of each channel over the
set; the Wasserstein-1 distances of their projections on random directions,
averaged and multiplied by 1000. Low scales tell of layout, the finest of
texture and noise.

Points: the mean Wasserstein-1 distance over random directions.

Reference: Karras et al. 2018, arXiv:1710.10196, section 5: 128 patches of an
image, 4 times 128 directions, levels down to 16 pixels; Rabin et al. 2011 for
slicing. Differences: levels go down to 14 pixels, for 28x28 images to have two;
sets of differing sizes are compared as well.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from numpy.typing import ArrayLike, NDArray

from gan_jax.metrics import arrays, blocks, transport
from gan_jax.metrics.base import Checks, Example, Metric

PATCH = 7
PATCHES = 128  # of an image
DIRECTIONS = 512
TOGETHER = 64  # directions projected on at a time
COARSEST = 14
BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)

Images = Float[Array, 'n height width channels']


def _blur(x: Images, axis: int) -> Images:
  """Binomial filter along an axis, mirrored at the borders."""
  widths = [(2, 2) if i == axis else (0, 0) for i in range(x.ndim)]
  padded = jnp.pad(x, widths, mode='reflect')
  size = x.shape[axis]
  shifted = [
    jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(5)
  ]
  return jnp.asarray(sum(w * s for w, s in zip(BINOMIAL, shifted, strict=True)))


def _halve(x: Images) -> Float[Array, 'n half_height half_width channels']:
  """Blurred, every other pixel."""
  return _blur(_blur(x, 1), 2)[:, ::2, ::2]


def _double(
  x: Float[Array, 'n half_height half_width channels'], height: int, width: int
) -> Float[Array, 'n {height} {width} channels']:
  """Zeros between pixels, blurred, four times as bright."""
  n, _, _, c = x.shape
  wide = jnp.zeros((n, height, width, c), x.dtype).at[:, ::2, ::2].set(x)
  return 4 * _blur(_blur(wide, 1), 2)


def sides(height: int, width: int) -> list[int]:
  """Heights of the levels of the pyramid, the finest first."""
  heights = [height]
  while -(-min(height, width) // 2) >= COARSEST:
    height, width = -(-height // 2), -(-width // 2)
    heights.append(height)
  return heights


@jax.jit
def _pyramid(
  images: UInt8[Array, 'n height width channels'],
) -> list[Float[Array, 'n _ _ channels']]:
  """Laplacian pyramid of images, the finest level first."""
  x, levels = images.astype(jnp.float32), []
  for _ in sides(*x.shape[1:3])[1:]:
    smaller = _halve(x)
    levels.append(x - _double(smaller, *x.shape[1:3]))
    x = smaller
  return [*levels, x]


def _pyramids(x: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
  """The levels of all images, in blocks of one shape."""
  pyramids = []
  for block in blocks.split(x, min(256, blocks.rows_for(len(x)))):
    pyramids.append([np.asarray(y)[: block.filled] for y in _pyramid(block.x)])
  return [np.concatenate(level) for level in zip(*pyramids, strict=True)]


def _draw_patches(
  level: NDArray[np.float32], count: int, rng: np.random.Generator, name: str
) -> NDArray[np.float32]:
  """Random patches of one level, normalised, (n count, 49 channels)."""
  n, height, width, channels = level.shape
  top = rng.integers(0, height - PATCH + 1, n * count)[:, None, None]
  left = rng.integers(0, width - PATCH + 1, n * count)[:, None, None]
  image = np.repeat(np.arange(n), count)[:, None, None]
  side = np.arange(PATCH)
  x = level[image, top + side[None, :, None], left + side[None, None, :]]
  mean = x.mean(axis=(0, 1, 2), dtype=np.float64)
  square = np.einsum('nyxc,nyxc->c', x, x, dtype=np.float64)
  std = np.sqrt(np.maximum(square * channels / x.size - mean**2, 0))
  if not (std > 1e-3).all():  # of 255
    raise arrays.fault(
      name,
      level,
      f'has a channel without detail at {height}x{width} pixels: the sliced'
      ' Wasserstein distance divides by its standard deviation; constant images'
      ' cannot be compared so',
    )
  x -= mean.astype(np.float32)
  x /= std.astype(np.float32)
  return x.reshape(n * count, -1)


def sliced_distance(
  x: NDArray[np.floating],
  y: NDArray[np.floating],
  rng: np.random.Generator,
  count: int,
) -> float:
  """Mean Wasserstein-1 distance along `count` random directions."""
  total = 0.0
  for start in range(0, count, TOGETHER):
    chunk = min(TOGETHER, count - start)
    d = transport.draw_directions(rng, chunk, x.shape[1])
    total += float(transport.distances_on_lines(x @ d, y @ d).sum())
  return total / count


def swd(
  real: ArrayLike,
  fake: ArrayLike,
  *,
  seed: int = 0,
  patches: int = PATCHES,
  directions: int = DIRECTIONS,
) -> dict[str, float]:
  """Sliced Wasserstein distance of images, times 1000.

  The patches of a level are held at once: 4 n patches 49 channels bytes a side,
  0.75 GB for 10,000 colour images. Take fewer patches of more images.

  Args:
    real: uint8 images (n, height, width, channels) of 7 pixels a side or more,
      at least 2.
    fake: of the same shape, at least 2.
    seed: of the patches and directions.
    patches: of each image at each level.
    directions: projected on.

  Returns:
    swd: the mean over levels, 0 at best; swd_SIDE: that of each level, by its
    height in pixels.

  Raises:
    ArgumentError: unless they are uint8 images of one shape, large enough and
      with detail.

  >>> real = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), np.uint8)
  >>> swd(real, real)
  {'swd': 0.0, 'swd_8': 0.0}
  """
  a, b = arrays.as_images('real', real, 2), arrays.as_images('fake', fake, 2)
  if a.shape[1:] != b.shape[1:]:
    remedy = f'images of {a.shape[1:]}, and `fake` of {b.shape[1:]}'
    raise arrays.fault('real', a, f'{remedy}; give one shape')
  if min(a.shape[1:3]) < PATCH:
    raise arrays.fault('real', a, f'give images of {PATCH}x{PATCH} or more')
  rng = np.random.default_rng(seed)
  levels = {}
  for x, y in zip(_pyramids(a), _pyramids(b), strict=True):
    # One seed for both: what differs is the images.
    at = int(rng.integers(2**32))
    u = _draw_patches(x, patches, np.random.default_rng(at), 'real')
    v = _draw_patches(y, patches, np.random.default_rng(at), 'fake')
    distance = sliced_distance(u, v, rng, directions)
    levels[f'swd_{x.shape[1]}'] = 1000 * distance
  return {'swd': float(np.mean([*levels.values()])), **levels}


def swd_points(
  real: ArrayLike,
  fake: ArrayLike,
  *,
  seed: int = 0,
  directions: int = DIRECTIONS,
) -> dict[str, float]:
  """Sliced Wasserstein distance of points; in 1-D the distance itself.

  Args:
    real: points (n, dim), at least 2.
    fake: points (m, dim), at least 2.
    seed: of the directions.
    directions: projected on.

  Returns:
    swd_points: 0 at best, in the points' unit.

  Raises:
    ArgumentError: unless they are two tables of finite numbers of one width.

  >>> swd_points([[0.0], [1.0]], [[0.5], [1.5]])
  {'swd_points': 0.5}
  """
  a, b = arrays.as_tables(real, fake, 2)
  rng = np.random.default_rng(seed)
  count = directions if a.shape[1] > 1 else 1
  return {'swd_points': sliced_distance(a, b, rng, count)}


def _image_examples() -> tuple[Example, ...]:
  """Patches are normalised: brightness and contrast do not show."""
  x = np.random.default_rng(0).integers(0, 100, (8, 28, 28, 1), np.uint8)
  scores = {'swd': 0, 'swd_28': 0, 'swd_14': 0}
  return (Example(x * np.uint8(2), scores, x),)


def _point_examples() -> tuple[Example, ...]:
  """On a line: the mean distance of what is sorted; scaled in the plane."""
  x = np.array([[0.0], [4.0], [1.0]])
  y = np.array([[7.0], [1.0], [1.0]])
  return (Example(y, {'swd_points': (1 + 0 + 3) / 3}, x),)


SWD = Metric(
  'swd',
  swd,
  {'swd': 'lower', 'swd_*': 'lower'},
  sees='images',
  checks=Checks(
    _image_examples,
    best=0.0,
    by_place=True,
    options={'patches': 8, 'directions': 32},
  ),
)
SWD_POINTS = Metric(
  'swd_points',
  swd_points,
  {'swd_points': 'lower'},
  sees='points',
  checks=Checks(_point_examples, best=0.0, options={'directions': 32}),
)
