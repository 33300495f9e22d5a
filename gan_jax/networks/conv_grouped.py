"""3x3 convolutions within groups of channels, by back end, as in `conv`.

Three functions that are each other's gradients. On GPU and TPU they are XLA's
grouped convolution and what autodiff makes of it; on CPU, where its gradients
miss the fast kernels, a matrix product of patches for each group.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gan_jax.networks.base import wide
from gan_jax.runtime.sharding import sum_rows

Images = Float[Array, 'batch height width channels']
Kernel = Float[Array, '3 3 channels_per_group channels']
Form = Callable[[Array, Array, int], Array]


def product(x: Array, w: Array, groups: int) -> Array:
  """`conv_grouped` as one matrix product of patches for each group."""
  n, height, width, c = x.shape
  size = c // groups
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  patches = jnp.stack(
    [
      padded[:, i : i + height, j : j + width]
      for i in range(3)
      for j in range(3)
    ],
    axis=3,
  ).reshape(n * height * width, 9, groups, size)
  taps = w.reshape(9, size, groups, size)
  return jnp.einsum('ptgc,tcgd->pgd', patches, taps).reshape(x.shape)


def plain(x: Array, w: Array, groups: int) -> Array:
  """`conv_grouped` as XLA has it."""
  return lax.conv_general_dilated(
    x,
    w,
    (1, 1),
    ((1, 1), (1, 1)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def _in_images(form: Form, y: Array, w: Array, groups: int) -> Array:
  """Its transpose in the images, which are of the shape of `y`."""
  return jax.linear_transpose(lambda x: form(x, w, groups), y)(y)[0]


def _in_kernel(form: Form, x: Array, y: Array, groups: int) -> Array:
  """Its transpose in the kernel."""
  c = x.shape[-1]
  w = jax.ShapeDtypeStruct((3, 3, c // groups, c), x.dtype)
  return jax.linear_transpose(lambda w: form(x, w, groups), w)(y)[0]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _chosen(a: Array, b: Array, of: Callable[..., Array], groups: int) -> Array:
  return lax.platform_dependent(
    a,
    b,
    cpu=lambda a, b: of(product, a, b, groups),
    default=lambda a, b: of(plain, a, b, groups),
  )


def _forward(form: Form, x: Array, w: Array, groups: int) -> Array:
  return form(x, w, groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_grouped(x: Images, w: Kernel, groups: int) -> Images:
  """Cross-correlation of images with a kernel for each group.

  Args:
    x: (batch, height, width, channels); the size stays, zeros are outside.
    w: (3, 3, channels / groups, channels); computed in `x`'s precision, its
      gradient in float32 or more, added up over devices in that.
    groups: of channels; each is computed from itself alone.
  """
  return _chosen(x, w.astype(x.dtype), _forward, groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _transpose(y: Images, w: Kernel, groups: int) -> Images:
  return _chosen(y, w.astype(y.dtype), _in_images, groups)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel(x: Images, y: Images, groups: int) -> Kernel:
  def of_rows(x: Array, y: Array) -> Array:
    return wide(_chosen(x, y, _in_kernel, groups))

  return sum_rows(of_rows, x, y)


def _saved(f: Any) -> Any:
  return lambda a, b, groups: (f(a, b, groups), (a, b))


conv_grouped.defvjp(
  _saved(conv_grouped),
  lambda groups, xw, dy: (
    _transpose(dy, xw[1], groups),
    _kernel(xw[0], dy, groups).astype(xw[1].dtype),
  ),
)
_transpose.defvjp(
  _saved(_transpose),
  lambda groups, yw, dx: (
    conv_grouped(dx, yw[1], groups),
    _kernel(dx, yw[0], groups).astype(yw[1].dtype),
  ),
)
_kernel.defvjp(
  _saved(_kernel),
  lambda groups, xy, dw: (
    _transpose(xy[1], dw, groups),
    conv_grouped(xy[0], dw, groups),
  ),
)


__all__ = ['conv_grouped', 'plain', 'product']
