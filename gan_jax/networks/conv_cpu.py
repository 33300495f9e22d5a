"""Convolutions and both their transposes as XLA's CPU back end is fast at them.

Autodiff of a strided convolution asks XLA for convolutions in other dimension
orders and with dilated inputs. On CPU these miss the fast kernels: inside
`lax.scan`, where updates run, they are some forty times slower. Here everything
is a matrix product or a convolution in the canonical order (NHWC, HWIO). Which,
is a rule of shapes (`_is_pointwise`, `_is_minimal`, `_is_narrow`), measured in
`experiments/speed/convolutions`:

- kernels of one pixel: a matrix product;
- 4x4 of stride 2 between many channels: minimal filtering, 9 products for 16;
- transposes to few channels: one product, whose taps are added up;
- all others: a convolution for each phase of the stride, and for the kernel one
  with the batch as channels.

Reference: Winograd 1980, Arithmetic Complexity of Computations; Lavin & Gray
2016, arXiv:1509.09308, for two axes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Padding = tuple[int, int]
Size = tuple[int, int]

NARROW = 4  # channels that a transpose adds the taps of
# Minimal filtering pays from so many channels on one side and on the other, and
# while the images at the nine points fit into the last cache.
WIDE, WIDER = 64, 128
CACHE = 24 * 2**20


# The rule.


def _is_pointwise(size: Size, stride: int, padding: Padding) -> bool:
  return size == (1, 1) and stride == 1 and padding == (0, 0)


def _is_minimal(
  x: tuple[int, ...], w: tuple[int, ...], stride: int, dtype: Any
) -> bool:
  """Of the shapes of images and kernel."""
  itemsize = jnp.dtype(dtype).itemsize
  return (
    w[:2] == (4, 4)
    and stride == 2
    and min(w[2:]) >= WIDE
    and max(w[2:]) >= WIDER
    and math.prod(x) * 9 // 4 * itemsize <= CACHE
    and itemsize >= 4  # sums of pixels are rounded
  )


def _is_narrow(size: Size, stride: int, channels: int) -> bool:
  whole = all(k % stride == 0 for k in size)
  return stride > 1 and whole and channels <= NARROW


def conv(x: Any, w: Any, stride: int, padding: Padding) -> Any:
  """`gan_jax.networks.conv.conv`, as are the two below."""
  if _is_pointwise(w.shape[:2], stride, padding):
    return _product(x, w[0, 0], 3, 0)
  if _is_minimal(x.shape, w.shape, stride, x.dtype):
    return _minimal(x, w, padding)
  return _convolve(x, w, stride, padding, padding)


def conv_transpose(
  y: Any, w: Any, stride: int, padding: Padding, size: Size
) -> Any:
  """The transpose of `conv` in its images."""
  x_shape = (y.shape[0], *size, w.shape[2])
  if _is_pointwise(w.shape[:2], stride, padding):
    return _product(y, w[0, 0], 3, 1)
  if _is_minimal(x_shape, w.shape, stride, y.dtype):
    return _minimal_transpose(y, w, padding, size)
  if _is_narrow(w.shape[:2], stride, w.shape[2]):
    return _added_taps(y, w, stride, padding, size)
  return _phases(y, w, stride, padding, size)


def conv_kernel(
  x: Any, y: Any, stride: int, padding: Padding, size: Size
) -> Any:
  """The transpose of `conv` in its kernel."""
  channels = (x.shape[3], y.shape[3])
  if _is_pointwise(size, stride, padding):
    rows, columns = x.reshape(-1, channels[0]), y.reshape(-1, channels[1])
    return _kernel_product(rows, columns)[None, None]
  if _is_minimal(x.shape, (*size, *channels), stride, x.dtype):
    return _minimal_kernel(x, y, padding)
  return _batch_as_channels(x, y, stride, padding, size)


# Matrix products.


def _product(x: Any, w: Any, axis: int, w_axis: int) -> Any:
  """Of one axis of each."""
  return lax.dot_general(x, w, (((axis,), (w_axis,)), ((), ())))


def _kernel_product(x: Any, y: Any) -> Any:
  """`x' y` of (rows, in) and (rows, out), rows being many.

  As the transpose of `y' x`, which is a third faster; the barrier keeps the
  compiler from putting one in the place of the other.
  """
  return lax.optimization_barrier(_product(y, x, 0, 0)).T


# Convolutions in the canonical order.


def _convolve(
  x: Any,
  w: Any,
  stride: int,
  rows: Padding,
  columns: Padding,
  dilation: int = 1,
) -> Any:
  return lax.conv_general_dilated(
    x,
    w,
    (stride, stride),
    (rows, columns),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def _phases(y: Any, w: Any, stride: int, padding: Padding, size: Size) -> Any:
  """One small convolution for each phase of the stride, interleaved."""
  phases = [
    [_phase(y, w, stride, padding, size, (i, j)) for j in range(stride)]
    for i in range(stride)
  ]
  return _cut(_interleaved(phases), size)


def _interleaved(phases: Sequence[Sequence[Any]]) -> Any:
  """Pixel (stride i + a, stride j + b) of the whole is (i, j) of phase a, b."""
  stride = len(phases)
  if stride == 1:
    return phases[0][0]
  n, h, w, c = phases[0][0].shape
  rows = [
    lax.concatenate(row, 3).reshape(n, h, stride * w * c) for row in phases
  ]
  return lax.concatenate(rows, 2).reshape(n, stride * h, stride * w, c)


def _cut(x: Any, size: Size) -> Any:
  """Its first rows and columns."""
  if x.shape[1:3] == size:
    return x
  return lax.slice(x, (0, 0, 0, 0), (x.shape[0], *size, x.shape[3]))


def _phase(
  y: Any, w: Any, stride: int, padding: Padding, size: Size, phase: Size
) -> Any:
  """Pixels (stride i + phase) of the transpose.

  Pixel `stride i + a` gets taps t with `stride j + t = stride i + a + low`:
  those of t = (a + low) mod stride, at j = i + (a + low) // stride - m.
  """
  pads, taps = [], []
  for axis, a in enumerate(phase):
    first, shift = (a + padding[0]) % stride, (a + padding[0]) // stride
    phase_taps = range(first, w.shape[axis], stride)
    out = -(-size[axis] // stride)  # every phase is as long as the longest
    low = len(phase_taps) - 1 - shift
    taps.append(slice(first, None, stride))
    pads.append((low, out + len(phase_taps) - 1 - low - y.shape[1 + axis]))
  flipped = w[taps[0], taps[1]][::-1, ::-1].swapaxes(2, 3)
  if 0 in flipped.shape:  # a kernel smaller than its stride skips pixels
    n, (h, v) = y.shape[0], (-(-s // stride) for s in size)
    return jnp.zeros((n, h, v, w.shape[2]), y.dtype)
  return _convolve(y, flipped, 1, pads[0], pads[1])


def _batch_as_channels(
  x: Any, y: Any, stride: int, padding: Padding, size: Size
) -> Any:
  """The kernel's gradient, `y` being a dilated kernel itself."""
  low = padding[0]
  pads = []
  for axis in (0, 1):
    reach = stride * (y.shape[1 + axis] - 1) + 1
    high = size[axis] - 1 + reach - low - x.shape[1 + axis]
    pads.append((low, high))
  w = _convolve(
    x.transpose(3, 1, 2, 0),
    y.transpose(1, 2, 0, 3),
    1,
    pads[0],
    pads[1],
    dilation=stride,
  )
  return w.transpose(1, 2, 0, 3)


# Few channels.


def _added_taps(
  y: Any, w: Any, stride: int, padding: Padding, size: Size
) -> Any:
  """One product with all taps, (n, h, w, taps, taps, in), added up by phase."""
  n, h, v, f = y.shape
  z = _product(y, w.reshape(-1, f), 3, 1).reshape(n, h, v, *w.shape[:3])

  def phase(z: Any, axis: int, taps_axis: int, a: int) -> Any:
    """Along one axis; see `_phase`."""
    first, shift = (a + padding[0]) % stride, (a + padding[0]) // stride
    out, total = -(-size[axis - 1] // stride), 0
    for m, tap in enumerate(range(first, w.shape[axis - 1], stride)):
      part = lax.index_in_dim(z, tap, taps_axis, keepdims=False)
      total += _window(part, axis, shift - m, out)
    return total

  rows = [phase(z, 1, 3, a) for a in range(stride)]
  phases = [[phase(row, 2, 3, b) for b in range(stride)] for row in rows]
  return _cut(_interleaved(phases), size)


def _window(x: Any, axis: int, start: int, length: int) -> Any:
  """Entries from `start` on along an axis, 0 outside of it."""
  pads = [(0, 0, 0)] * x.ndim
  pads[axis] = (-start, start + length - x.shape[axis], 0)
  return lax.pad(x, jnp.zeros((), x.dtype), pads)


# Minimal filtering of 4x4 kernels of stride 2, F(2x2, 2x2). Blocks of 2x2
# pixels are channels of one pixel, so that a kernel has 2x2 taps; each tile of
# 2x2 outputs then takes 3x3 products where 4x4 are in it. Along one axis, of
# blocks d, taps g, products m:
#
#   m = (d0 - d1) g0, d1 (g0 + g1), (d1 - d2) g1;  y = m0 + m1, m1 - m2.

_Matrix = tuple[tuple[int, ...], ...]
_BLOCKS: _Matrix = ((1, -1, 0), (0, 1, 0), (0, 1, -1))
_TAPS: _Matrix = ((1, 0), (1, 1), (0, 1))
_OUTPUTS: _Matrix = ((1, 1, 0), (0, 1, -1))
_POINTS = len(_TAPS)


def _transposed(matrix: _Matrix) -> _Matrix:
  return tuple(zip(*matrix, strict=True))


def _combined(matrix: _Matrix, parts: Sequence[Any]) -> list[Any]:
  """A matrix of -1, 0 and 1 times a vector of arrays.

  In operations of lax, which are traced in a fraction of the time that NumPy's
  take.
  """
  rows = []
  for row in matrix:
    terms = [(k, p) for k, p in zip(row, parts, strict=True) if k]
    (sign, total), *others = sorted(terms, key=lambda term: -term[0])
    total = total if sign > 0 else lax.neg(total)
    for sign, part in others:
      total = (lax.add if sign > 0 else lax.sub)(total, part)
    rows.append(total)
  return rows


def _combined_twice(
  matrix: _Matrix, parts: Sequence[Any], split: Callable[[Any], Sequence[Any]]
) -> list[list[Any]]:
  """Rows combined, then the columns that each is split into."""
  return [_combined(matrix, split(row)) for row in _combined(matrix, parts)]


def _halves(x: Any, axis: int) -> list[Any]:
  """Both entries along an axis of two."""
  return [lax.index_in_dim(x, i, axis, keepdims=False) for i in range(2)]


def _tiles(y_size: Size) -> Size:
  """How many tiles of 2x2 outputs there are, the last perhaps half empty."""
  return -(-y_size[0] // 2), -(-y_size[1] // 2)


def _of_images(
  x: Any, padding: Padding, tiles: Size, *, by_transposing: bool = False
) -> list[Any]:
  """Images at the nine points: (tiles, 4 in) each.

  Blocks are put together by concatenation, which is faster than a transpose,
  whose own transpose is faster than that of a concatenation.
  """
  n, h, w, c = x.shape
  low, (rows, columns) = padding[0], tiles
  pads = [
    (low, 4 * count + 2 - low - side, 0)
    for count, side in zip(tiles, (h, w), strict=True)
  ]
  x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
  x = x.reshape(n, 2 * rows + 1, 2, 2 * columns + 1, 2 * c)
  if by_transposing:
    x = x.transpose(0, 1, 3, 2, 4)
    blocks = x.reshape(n, 2 * rows + 1, 2 * columns + 1, 4 * c)
  else:
    blocks = lax.concatenate(_halves(x, 2), 3)

  def split(x: Any, axis: int) -> list[Any]:
    end = x.shape[axis] - 2
    return [lax.slice_in_dim(x, i, end + i, 2, axis) for i in range(3)]

  points = _combined_twice(_BLOCKS, split(blocks, 1), lambda x: split(x, 2))
  return [p.reshape(n * rows * columns, 4 * c) for row in points for p in row]


def _of_kernel(w: Any) -> list[Any]:
  """A kernel at the nine points: (4 in, out) each."""
  _, _, c, f = w.shape
  w = w.reshape(2, 2, 2, 2, c, f)
  points = _combined_twice(_TAPS, _halves(w, 0), lambda row: _halves(row, 1))
  return [p.reshape(4 * c, f) for row in points for p in row]


def _of_outputs(y: Any, tiles: Size) -> list[Any]:
  """Outputs at the nine points, as their gradients are: (tiles, out) each."""
  n, h, w, f = y.shape
  rows, columns = tiles
  if (h, w) != (2 * rows, 2 * columns):
    y = jnp.pad(y, ((0, 0), (0, 2 * rows - h), (0, 2 * columns - w), (0, 0)))
  y = y.reshape(n, rows, 2, columns, 2 * f)
  points = _combined_twice(
    _transposed(_OUTPUTS),
    _halves(y, 2),
    lambda row: [lax.slice_in_dim(row, i, i + f, axis=3) for i in (0, f)],
  )
  return [p.reshape(n * rows * columns, f) for row in points for p in row]


def _squared(points: Sequence[Any]) -> list[Sequence[Any]]:
  """Nine arrays as three rows."""
  return [points[i : i + _POINTS] for i in range(0, len(points), _POINTS)]


def _columns_combined(matrix: _Matrix, points: Sequence[Any]) -> list[Any]:
  """The columns of nine arrays combined, then the rows: rows of results."""
  rows = [_combined(matrix, row) for row in _squared(points)]
  columns = [_combined(matrix, column) for column in zip(*rows, strict=True)]
  return [list(row) for row in zip(*columns, strict=True)]


def _output_size(x_size: Size, padding: Padding) -> Size:
  height, width = ((s + sum(padding) - 4) // 2 + 1 for s in x_size)
  return height, width


def _minimal(x: Any, w: Any, padding: Padding) -> Any:
  n, f = x.shape[0], w.shape[3]
  size = _output_size(x.shape[1:3], padding)
  tiles = _tiles(size)
  products = [
    _product(a, b, 1, 0)
    for a, b in zip(_of_images(x, padding, tiles), _of_kernel(w), strict=True)
  ]
  products = [p.reshape(n, *tiles, f) for p in products]
  return _cut(_interleaved(_columns_combined(_OUTPUTS, products)), size)


def _minimal_transpose(y: Any, w: Any, padding: Padding, size: Size) -> Any:
  tiles = _tiles(y.shape[1:3])
  products = [
    _product(a, b, 1, 1)
    for a, b in zip(_of_outputs(y, tiles), _of_kernel(w), strict=True)
  ]
  x = jax.ShapeDtypeStruct((y.shape[0], *size, w.shape[2]), y.dtype)
  transpose = jax.linear_transpose(
    lambda x: _of_images(x, padding, tiles, by_transposing=True), x
  )
  return transpose(products)[0]


def _minimal_kernel(x: Any, y: Any, padding: Padding) -> Any:
  tiles, (c, f) = _tiles(y.shape[1:3]), (x.shape[3], y.shape[3])
  products = [
    _kernel_product(a, b).reshape(2, 2, c, f)
    for a, b in zip(
      _of_images(x, padding, tiles), _of_outputs(y, tiles), strict=True
    )
  ]
  rows = _columns_combined(_transposed(_TAPS), products)
  w = jnp.stack([jnp.stack(row, axis=1) for row in rows])
  return w.reshape(4, 4, c, f)
