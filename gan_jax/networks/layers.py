"""What the architectures are built of: layers, initialisers, normalisation."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.networks.conv import conv, conv_transpose

Init = Callable[..., Any]


def normal(std: float, mean: float = 0.0) -> Init:
  """N(mean, std), drawn in one dimension and reshaped.

  The bits are those of the shaped draw; drawing many dimensions at once takes
  XLA seconds to compile on CPU.
  """

  def init(key: Any, shape: Any, dtype: Any = jnp.float32) -> Any:
    size = 1
    for n in shape:
      size *= n
    return (mean + std * jax.random.normal(key, (size,), dtype)).reshape(shape)

  return init


def uniform(bound: float) -> Init:
  """U(-bound, bound), drawn in one dimension and reshaped."""

  def init(key: Any, shape: Any, dtype: Any = jnp.float32) -> Any:
    size = 1
    for n in shape:
      size *= n
    draw = jax.random.uniform(key, (size,), dtype, -bound, bound)
    return draw.reshape(shape)

  return init


def leaky_relu(x: Any) -> Any:
  """Leaky ReLU of slope 0.2 below 0 (Radford et al. 2016)."""
  return nn.leaky_relu(x, 0.2)


def halved(size: int) -> int:
  """Side after one convolution of stride 2: the half, rounded up."""
  return -(-size // 2)


class Conv(nn.Module):
  """4x4 convolution of stride 2 that halves the sides, rounding up."""

  features: int
  use_bias: bool = True
  kernel_init: Init = normal(0.02)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n h w c']
  ) -> Float[Array, 'n h2 w2 features']:
    """Halves the images."""
    shape = (4, 4, x.shape[-1], self.features)
    w = self.param('kernel', self.kernel_init, shape, jnp.float32)
    out = halved(x.shape[1])
    padding = (1, 2 * (out - 1) + 4 - 1 - x.shape[1])
    y = conv(x.astype(self.dtype), w.astype(self.dtype), 2, padding)
    return _biased(self, y)


class ConvTranspose(nn.Module):
  """4x4 transposed convolution of stride 2, to a side of `size`."""

  features: int
  size: int
  use_bias: bool = True
  kernel_init: Init = normal(0.02)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, y: Float[Array, 'n h w c']
  ) -> Float[Array, 'n h2 w2 features']:
    """Doubles the images, less a pixel where the size is odd."""
    shape = (4, 4, self.features, y.shape[-1])
    w = self.param('kernel', self.kernel_init, shape, jnp.float32)
    padding = (1, 2 * (y.shape[1] - 1) + 4 - 1 - self.size)
    size = (self.size, self.size)
    x = conv_transpose(
      y.astype(self.dtype), w.astype(self.dtype), 2, padding, size
    )
    return _biased(self, x)


def _biased(layer: Any, x: Any) -> Any:
  if not layer.use_bias:
    return x
  shape = (layer.features,)
  bias = layer.param('bias', nn.initializers.zeros, shape, jnp.float32)
  return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last, applied as `x a + c`.

  Statistics are float32 and of the whole batch, over all devices. The running
  ones move by a tenth a step: a GAN's layers never settle, so a long memory
  would normalise by networks that are gone.

  Reference: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithms 1 and 2.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  scale_init: Init = normal(0.02, mean=1.0)

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n ... c'], train: bool
  ) -> Float[Array, 'n ... c']:
    """Normalises by the batch when training, else by the running statistics."""
    shape = (x.shape[-1],)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    scale = self.param('scale', self.scale_init, shape, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, shape, jnp.float32)
    if train:
      axes = tuple(range(x.ndim - 1))
      wide = x.astype(jnp.float32)
      m = wide.mean(axes)
      centred = wide - m.reshape((1,) * (x.ndim - 1) + (-1,))
      v = jnp.square(centred).mean(axes)
      if not self.is_initializing():
        mean.value += (1 - self.momentum) * (m - mean.value)
        var.value += (1 - self.momentum) * (v - var.value)
    else:
      m, v = mean.value, var.value
    a = scale * jax.lax.rsqrt(v + self.epsilon)
    c = bias - m * a
    a, c = (t.reshape((1,) * (x.ndim - 1) + (-1,)) for t in (a, c))
    return x * a.astype(x.dtype) + c.astype(x.dtype)
