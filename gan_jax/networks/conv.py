"""Convolutions whose gradients are convolutions in the canonical layout.

Autodiff of a strided convolution asks XLA for convolutions in other dimension
orders and with dilated inputs. On CPU these miss the fast kernels: inside
`lax.scan`, where updates run, they are some forty times slower. Here the
forward pass and both gradients are written as NHWC/HWIO convolutions (or one
for each phase of the stride), three functions that are each other's gradients,
so that gradient penalties differentiate them again. Forward-mode
differentiation (`jax.jvp`) does not pass through them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# (batch, height, width, channels); x and y differ in all but the first.
Images = Float[Array, 'batch _ _ _']
# (height, width, in, out)
Kernel = Float[Array, '_ _ _ _']

_ORDER = ('NHWC', 'HWIO', 'NHWC')
# (low, high) padding of both spatial axes.
Padding = tuple[int, int]


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
    dimension_numbers=_ORDER,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x: Images, w: Kernel, stride: int, padding: Padding) -> Images:
  """Cross-correlation of images with a kernel.

  Args:
    x: (batch, height, width, in).
    w: (height, width, in, out).
    stride: of both axes.
    padding: zeros before and after, on both axes.
  """
  return _convolve(x, w, stride, padding, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_transpose(
  y: Images, w: Kernel, stride: int, padding: Padding, size: tuple[int, int]
) -> Images:
  """The transpose of `conv` in its images: from (.., out) to (.., in).

  One small convolution for each phase of the stride, interleaved.

  Args:
    y: (batch, height, width, out), as `conv` would return.
    w: the kernel of that `conv`, (height, width, in, out).
    stride: of that `conv`.
    padding: of that `conv`, such that it makes `y`'s size of `size`.
    size: (height, width) of the images that this returns.
  """
  phases = [
    [_phase(y, w, stride, padding, size, (i, j)) for j in range(stride)]
    for i in range(stride)
  ]
  if stride == 1:
    return phases[0][0]
  rows = [jnp.stack(row, axis=3) for row in phases]
  x = jnp.stack(rows, axis=2)
  n, h, _, w_, _, c = x.shape
  whole = x.reshape(n, h * stride, w_ * stride, c)
  return whole[:, : size[0], : size[1]]


def _phase(
  y: Any,
  w: Any,
  stride: int,
  padding: Padding,
  size: tuple[int, int],
  phase: tuple[int, int],
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_kernel(
  x: Images, y: Images, stride: int, padding: Padding, size: tuple[int, int]
) -> Kernel:
  """The transpose of `conv` in its kernel: (height, width, in, out).

  A convolution with the batch as channels and `y` as a dilated kernel.

  Args:
    x: the images of that `conv`.
    y: (batch, height, width, out), as it would return.
    stride: of that `conv`.
    padding: of that `conv`.
    size: (height, width) of the kernel that this returns.
  """
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


def _conv_fwd(x: Any, w: Any, stride: int, padding: Padding) -> Any:
  return conv(x, w, stride, padding), (x, w)


def _conv_bwd(stride: int, padding: Padding, saved: Any, dy: Any) -> Any:
  x, w = saved
  return (
    conv_transpose(dy, w, stride, padding, x.shape[1:3]),
    conv_kernel(x, dy, stride, padding, w.shape[:2]),
  )


def _transpose_fwd(
  y: Any, w: Any, stride: int, padding: Padding, size: Any
) -> Any:
  return conv_transpose(y, w, stride, padding, size), (y, w)


def _transpose_bwd(
  stride: int, padding: Padding, size: Any, saved: Any, dx: Any
) -> Any:
  del size
  y, w = saved
  return (
    conv(dx, w, stride, padding),
    conv_kernel(dx, y, stride, padding, w.shape[:2]),
  )


def _kernel_fwd(
  x: Any, y: Any, stride: int, padding: Padding, size: Any
) -> Any:
  return conv_kernel(x, y, stride, padding, size), (x, y)


def _kernel_bwd(
  stride: int, padding: Padding, size: Any, saved: Any, dw: Any
) -> Any:
  del size
  x, y = saved
  return (
    conv_transpose(y, dw, stride, padding, x.shape[1:3]),
    conv(x, dw, stride, padding),
  )


conv.defvjp(_conv_fwd, _conv_bwd)
conv_transpose.defvjp(_transpose_fwd, _transpose_bwd)
conv_kernel.defvjp(_kernel_fwd, _kernel_bwd)
