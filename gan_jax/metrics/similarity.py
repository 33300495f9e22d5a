"""Multi-scale structural similarity of random pairs of fakes: diversity.

`prod_j cs_j^(w_j) l_M^(w_M)`: contrast and structure at every scale, luminance
at the coarsest, in windows of 11x11 pixels with Gaussian weights of standard
deviation 1.5; scales by averaging 2x2 pixels. 1 for a generator that makes one
image.

The five scales of the paper need 176 pixels a side. Smaller images have as many
as leave windows room, the first weights scaled to the sum of the five; images
below 11 pixels have one window of their own size.

Reference: Wang et al. 2003, "Multiscale structural similarity for image quality
assessment", equation 7; Odena et al. 2017, arXiv:1610.09585, section 4.2, for
pairs of generated images.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, UInt8
from numpy.typing import ArrayLike, NDArray

from gan_jax.metrics import arrays, blocks
from gan_jax.metrics.base import Checks, Example, Metric, of_fake

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, STD = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
PAIRS = 1000
TOGETHER = 64  # pairs compared at a time

Images = Float64[Array, 'n height width channels']


def scales(height: int, width: int) -> int:
  """How many of the five scales images of this size have."""
  count, side = 1, min(height, width) // 2
  while count < len(WEIGHTS) and side >= WINDOW:
    count, side = count + 1, side // 2
  return count


def _windows(size: int, window: int) -> NDArray[np.float64]:
  """A matrix that takes the weighted mean of each window along an axis."""
  offset = np.arange(window) - (window - 1) / 2
  weights = np.exp(-(offset**2) / (2 * STD**2))
  matrix = np.zeros((size - window + 1, size))
  for i in range(len(matrix)):
    matrix[i, i : i + window] = weights / weights.sum()
  return matrix


def _ssim(
  x: Images, y: Images
) -> tuple[Float64[Array, 'n channels'], Float64[Array, 'n channels']]:
  """SSIM and its contrast-structure part."""
  _, height, width, _ = x.shape
  window = min(WINDOW, height, width)
  rows, columns = _windows(height, window), _windows(width, window)

  def mean(v: Images) -> Float64[Array, 'n _ _ channels']:
    return jnp.einsum('ah,bw,nhwc->nabc', rows, columns, v, precision='highest')

  mx, my = mean(x), mean(y)
  vx, vy, xy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
  contrast = (2 * xy + C2) / (vx + vy + C2)
  luminance = (2 * mx * my + C1) / (mx**2 + my**2 + C1)
  return (luminance * contrast).mean((1, 2)), contrast.mean((1, 2))


def _halve(x: Images) -> Float64[Array, 'n _ _ channels']:
  """Means of 2x2 pixels; an odd last row or column is left out."""
  n, height, width, c = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  return x.reshape(n, height // 2, 2, width // 2, 2, c).mean((2, 4))


@functools.partial(jax.jit, static_argnums=2)
def _ms_ssim(
  a: UInt8[Array, 'n height width channels'],
  b: UInt8[Array, 'n height width channels'],
  count: int,
) -> Float64[Array, ' n']:
  """MS-SSIM of pairs of images, the mean over channels."""
  x, y = a.astype(jnp.float64), b.astype(jnp.float64)
  weights = np.array(WEIGHTS[:count]) * (sum(WEIGHTS) / sum(WEIGHTS[:count]))
  product = jnp.ones((x.shape[0], x.shape[3]))
  for i, weight in enumerate(weights):
    whole, contrast = _ssim(x, y)
    last = i == count - 1
    # Where structures are opposed there is no real power of their similarity.
    product *= jnp.maximum(whole if last else contrast, 0) ** weight
    x, y = _halve(x), _halve(y)
  return product.mean(1)


def pair_similarity(
  x: NDArray[np.uint8], y: NDArray[np.uint8]
) -> NDArray[np.float64]:
  """MS-SSIM of each image of `x` with that of `y`, (pairs,)."""
  rows = min(TOGETHER, blocks.rows_for(len(x)))
  count = scales(*x.shape[1:3])
  with blocks.x64():
    values = [
      np.asarray(_ms_ssim(a.x, b.x, count))[: a.filled]
      for a, b in zip(blocks.split(x, rows), blocks.split(y, rows), strict=True)
    ]
  return np.concatenate(values)


def ms_ssim(
  fake: ArrayLike, *, seed: int = 0, pairs: int = PAIRS
) -> dict[str, float]:
  """Mean similarity of random pairs of generated images.

  It says nothing of quality: hold it against that of the data, which this gives
  when it is handed real images.

  Args:
    fake: uint8 images (n, height, width, channels), at least 2.
    seed: of the pairs.
    pairs: of two different images.

  Returns:
    ms_ssim: the mean over pairs, the more diverse the lower, 1 where all images
    are the same.
    ms_ssim_scales: how many scales the images have room for.

  Raises:
    ArgumentError: if they are not uint8 images, or fewer than 2.

  >>> same = np.full((5, 8, 8, 1), 100, np.uint8)
  >>> round(ms_ssim(same, pairs=3)['ms_ssim'], 9)
  1.0
  """
  x = arrays.as_images('fake', fake, 2)
  rng = np.random.default_rng(seed)
  first = rng.integers(len(x), size=pairs)
  second = (first + rng.integers(1, len(x), size=pairs)) % len(x)
  return {
    'ms_ssim': float(pair_similarity(x[first], x[second]).mean()),
    'ms_ssim_scales': float(scales(*x.shape[1:3])),
  }


def _examples() -> tuple[Example, ...]:
  """Two grey images: luminance alone, `(2 a b + C1) / (a^2 + b^2 + C1)`."""
  x = np.full((2, 8, 8, 1), 100, np.uint8)
  x[1] = 50
  luminance = (2 * 100 * 50 + C1) / (100**2 + 50**2 + C1)
  scores = {'ms_ssim': luminance ** sum(WEIGHTS), 'ms_ssim_scales': 1}
  return (Example(x, scores),)


# The best is what the data have, not the end of the scale.
MS_SSIM = Metric(
  'ms_ssim',
  of_fake(ms_ssim),
  {'ms_ssim': '', 'ms_ssim_scales': ''},
  sees='images',
  reads_real=False,
  checks=Checks(_examples, by_place=True, options={'pairs': 64}),
)
