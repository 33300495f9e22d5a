"""Convolutions, each in the form that its back end computes fastest.

Three functions that are each other's gradients: `conv`, its transpose in the
images and its transpose in the kernel. On GPU and TPU they are what autodiff
makes of XLA's convolution; on CPU they are the forms of `conv_cpu`. The choice
is made when a program is lowered, for the platform it is lowered for. Gradient
penalties differentiate them again; forward-mode differentiation (`jax.jvp`)
does not pass through them.
"""

import functools
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Float

from gan_jax.networks import conv_cpu
from gan_jax.networks.base import wide
from gan_jax.runtime.sharding import sum_rows

# (batch, height, width, channels); x and y differ in all but the first.
Images = Float[Array, 'batch _ _ _']
# (height, width, in, out)
Kernel = Float[Array, '_ _ _ _']
# (low, high) padding of both spatial axes.
Padding = tuple[int, int]


def plain(x: Any, w: Any, stride: int, padding: Padding) -> Any:
  """`conv` as XLA has it, differentiated by JAX: what tests compare with."""
  return lax.conv_general_dilated(
    x,
    w,
    (stride, stride),
    (padding, padding),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def plain_transpose(
  y: Any, w: Any, stride: int, padding: Padding, size: tuple[int, int]
) -> Any:
  """`conv_transpose` as autodiff makes it of `plain`."""
  x = jax.ShapeDtypeStruct((y.shape[0], *size, w.shape[2]), y.dtype)
  transpose = jax.linear_transpose(lambda x: plain(x, w, stride, padding), x)
  return transpose(y)[0]


def plain_kernel(
  x: Any, y: Any, stride: int, padding: Padding, size: tuple[int, int]
) -> Any:
  """`conv_kernel` as autodiff makes it of `plain`."""
  w = jax.ShapeDtypeStruct((*size, x.shape[3], y.shape[3]), y.dtype)
  transpose = jax.linear_transpose(lambda w: plain(x, w, stride, padding), w)
  return transpose(y)[0]


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _chosen(a: Any, b: Any, cpu: Any, other: Any, how: tuple[Any, ...]) -> Any:
  """Traced once for each shape, however often a step asks for it."""
  return lax.platform_dependent(
    a,
    b,
    cpu=lambda a, b: cpu(a, b, *how),
    default=lambda a, b: other(a, b, *how),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x: Images, w: Kernel, stride: int, padding: Padding) -> Images:
  """Cross-correlation of images with a kernel.

  Args:
    x: (batch, height, width, in).
    w: (height, width, in, out); computed in `x`'s precision, its gradient in
      float32 or more.
    stride: of both axes.
    padding: zeros before and after, on both axes.
  """
  w = w.astype(x.dtype)
  return _chosen(x, w, conv_cpu.conv, plain, (stride, padding))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_transpose(
  y: Images, w: Kernel, stride: int, padding: Padding, size: tuple[int, int]
) -> Images:
  """The transpose of `conv` in its images: from (.., out) to (.., in).

  Args:
    y: (batch, height, width, out), as `conv` would return.
    w: the kernel of that `conv`, (height, width, in, out).
    stride: of that `conv`.
    padding: of that `conv`, such that it makes `y`'s size of `size`.
    size: (height, width) of the images that this returns.
  """
  w = w.astype(y.dtype)
  return _chosen(
    y, w, conv_cpu.conv_transpose, plain_transpose, (stride, padding, size)
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_kernel(
  x: Images, y: Images, stride: int, padding: Padding, size: tuple[int, int]
) -> Kernel:
  """The transpose of `conv` in its kernel: (height, width, in, out).

  In float32, or more, in which what several devices have of it is added up.

  Args:
    x: the images of that `conv`.
    y: (batch, height, width, out), as it would return.
    stride: of that `conv`.
    padding: of that `conv`.
    size: (height, width) of the kernel that this returns.
  """
  how = stride, padding, size

  def of_rows(x: Any, y: Any) -> Any:
    return wide(_chosen(x, y, conv_cpu.conv_kernel, plain_kernel, how))

  return sum_rows(of_rows, x, y)


def _conv_fwd(x: Any, w: Any, stride: int, padding: Padding) -> Any:
  return conv(x, w, stride, padding), (x, w)


def _conv_bwd(stride: int, padding: Padding, saved: Any, dy: Any) -> Any:
  x, w = saved
  return (
    conv_transpose(dy, w, stride, padding, x.shape[1:3]),
    conv_kernel(x, dy, stride, padding, w.shape[:2]).astype(w.dtype),
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
    conv_kernel(dx, y, stride, padding, w.shape[:2]).astype(w.dtype),
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
