"""Resizing as the feature networks of published scores have it.

Every rule here is linear and separable, so it is one matrix for the rows and
one for the columns: exact, differentiable, and the same on every device.
`jax.image.resize` is none of the three.

The same samples differ by up to 2 in FID between these rules, so a score names
its own. Reference: Parmar et al. 2022, arXiv:2104.11222.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def _bilinear(places: NDArray[np.float64], size: int) -> Matrix:
  """Weights of the two pixels on either side of each place."""
  low = np.clip(np.floor(places).astype(int), 0, size - 1)
  high = np.minimum(low + 1, size - 1)
  part = np.clip(places - low, 0, 1)
  matrix = np.zeros((len(places), size))
  row = np.arange(len(places))
  np.add.at(matrix, (row, low), 1 - part)
  np.add.at(matrix, (row, high), part)
  return matrix


def tensorflow(size: int, out: int) -> Matrix:
  """Bilinear of TensorFlow 1: pixel i is read at `i size / out`.

  No half-pixel centres (the picture moves up and left) and no antialiasing.
  """
  return _bilinear(np.arange(out) * size / out, size)


def pytorch(size: int, out: int) -> Matrix:
  """Bilinear with half-pixel centres, at `(i + 1/2) size / out - 1/2`.

  No antialiasing: what pytorch-fid has in place of the graph's rule.
  """
  places = (np.arange(out) + 0.5) * size / out - 0.5
  return _bilinear(np.maximum(places, 0), size)


def clean(size: int, out: int) -> Matrix:
  """Pillow's bicubic (a = -1/2), antialiased: that of clean-fid.

  The kernel is stretched by the scale where the picture shrinks, cut at the
  edges and normalised to a sum of 1.
  """
  scale = size / out
  stretch = max(scale, 1.0)
  matrix = np.zeros((out, size))
  for i in range(out):
    centre = (i + 0.5) * scale
    first = max(int(centre - 2 * stretch + 0.5), 0)
    last = min(int(centre + 2 * stretch + 0.5), size)
    at = (np.arange(first, last) - centre + 0.5) / stretch
    weights = _cubic(np.abs(at))
    matrix[i, first:last] = weights / math.fsum(weights)
  return matrix


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
  near = (1.5 * x - 2.5) * x * x + 1
  far = ((-0.5 * x + 2.5) * x - 4) * x + 2
  return np.where(x < 1, near, np.where(x < 2, far, 0))


# Each takes the size of an axis and the size wanted, and gives (out, size).
RESIZERS: dict[str, Callable[[int, int], Matrix]] = {
  'tensorflow': tensorflow,
  'pytorch': pytorch,
  'clean': clean,
}


def resize(
  images: Num[Array, 'n h w c'], size: int, rule: str
) -> Float[Array, 'n size size c']:
  """Images at `size` x `size`, float32, in the range they had.

  Args:
    images: (n, height, width, channels).
    size: of both sides.
    rule: a key of `RESIZERS`.
  """
  make_matrix = RESIZERS[rule]
  x = images.astype(jnp.float32)
  for axis in (2, 1):  # columns first, as Pillow does
    if x.shape[axis] != size:
      matrix = make_matrix(x.shape[axis], size).astype(np.float32)
      x = _along(x, jnp.asarray(matrix), axis)
  return x


def _along(
  x: Float[Array, 'n h w c'], matrix: Float[Array, 'out size'], axis: int
) -> Float[Array, 'n _ _ c']:
  high = jax.lax.Precision.HIGHEST  # an accelerator would round to bfloat16
  rule = 'ow,nhwc->nhoc' if axis == 2 else 'oh,nhwc->nowc'
  return jnp.einsum(rule, matrix, x, precision=high)
