"""Multi-scale structural similarity of random pairs of fakes: diversity.

`prod_j cs_j^(w_j) l_M^(w_M)`: contrast and structure at every scale, luminance
at the coarsest, in windows of 11x11 pixels with Gaussian weights of deviation
1.5; scales by averaging 2x2 pixels. 1 for a generator that makes one image.

The five scales of the paper need 176 pixels a side. Smaller images have as many
as leave windows room, the first weights scaled to the sum of the five; images
below 11 pixels have one window of their own size.

Reference: Wang et al. 2003, "Multiscale structural similarity for image quality
assessment", equation 7; Odena et al. 2017, arXiv:1610.09585, section 4.2, for
pairs of generated images.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64
from numpy.typing import NDArray

from gan_jax.metrics import arrays, blocks

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, DEVIATION = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
PAIRS = 1000
TOGETHER = 64  # pairs compared at a time


def scales(height: int, width: int) -> int:
  """How many of the five scales images of this size have."""
  count, side = 1, min(height, width) // 2
  while count < len(WEIGHTS) and side >= WINDOW:
    count, side = count + 1, side // 2
  return count


def _windows(size: int, window: int) -> NDArray[np.float64]:
  """A matrix that takes the weighted mean of each window along an axis."""
  away = np.arange(window) - (window - 1) / 2
  weights = np.exp(-(away**2) / (2 * DEVIATION**2))
  found = np.zeros((size - window + 1, size))
  for i in range(len(found)):
    found[i, i : i + window] = weights / weights.sum()
  return found


def _similarity(x: Any, y: Any) -> tuple[Any, Any]:
  """SSIM and its contrast-structure part, each (pairs, channels)."""
  _, height, width, _ = x.shape
  window = min(WINDOW, height, width)
  rows, columns = _windows(height, window), _windows(width, window)

  def mean(v: Any) -> Any:
    return jnp.einsum('ah,bw,nhwc->nabc', rows, columns, v, precision='highest')

  mx, my = mean(x), mean(y)
  vx, vy, xy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
  contrast = (2 * xy + C2) / (vx + vy + C2)
  luminance = (2 * mx * my + C1) / (mx**2 + my**2 + C1)
  return (luminance * contrast).mean((1, 2)), contrast.mean((1, 2))


def _halved(x: Any) -> Any:
  """Means of 2x2 pixels; an odd last row or column is left out."""
  n, height, width, c = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  return x.reshape(n, height // 2, 2, width // 2, 2, c).mean((2, 4))


@functools.partial(jax.jit, static_argnums=2)
def _ms_ssim(x: Any, y: Any, count: int) -> Float64[Array, ' pairs']:
  """MS-SSIM of pairs of images, the mean over channels."""
  x, y = x.astype(jnp.float64), y.astype(jnp.float64)
  weights = np.array(WEIGHTS[:count]) * (sum(WEIGHTS) / sum(WEIGHTS[:count]))
  product = 1.0
  for i, weight in enumerate(weights):
    whole, contrast = _similarity(x, y)
    last = i == count - 1
    # Where structures are opposed there is no real power of their similarity.
    product *= jnp.maximum(whole if last else contrast, 0) ** weight
    x, y = _halved(x), _halved(y)
  return jnp.asarray(product).mean(1)


def similarity(
  x: NDArray[np.uint8], y: NDArray[np.uint8]
) -> NDArray[np.float64]:
  """MS-SSIM of each image of `x` with that of `y`, (pairs,)."""
  rows = min(TOGETHER, blocks.rows_for(len(x)))
  count = scales(*x.shape[1:3])
  with blocks.x64():
    found = [
      np.asarray(_ms_ssim(a.x, b.x, count))[: a.filled]
      for a, b in zip(blocks.split(x, rows), blocks.split(y, rows), strict=True)
    ]
  return np.concatenate(found)


def ms_ssim(
  real: Any, fake: Any, *, seed: int = 0, pairs: int = PAIRS
) -> dict[str, float]:
  """Mean similarity of random pairs of generated images.

  It says nothing of quality: hold it against that of the data, which this gives
  when it is handed real images as `fake`.

  Args:
    real: not read.
    fake: uint8 images, at least 2.
    seed: of the pairs.
    pairs: of two different images.

  Returns:
    ms_ssim: the mean over pairs, the more diverse the lower, 1 where all images
    are the same.
    ms_ssim_scales: how many scales the images have room for.

  Raises:
    ValueError: if they are not uint8 images, or fewer than 2.
  """
  del real
  fake = arrays.images('fake', fake, 2)
  rng = np.random.default_rng(seed)
  first = rng.integers(len(fake), size=pairs)
  second = (first + rng.integers(1, len(fake), size=pairs)) % len(fake)
  return {
    'ms_ssim': float(similarity(fake[first], fake[second]).mean()),
    'ms_ssim_scales': float(scales(*fake.shape[1:3])),
  }
