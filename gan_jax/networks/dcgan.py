"""DCGAN for square images of any side from 8 to 128.

The sides are halved, rounding up, until at most 7 and at least twice; the
channels double meanwhile. For 64 pixels and width 64 both networks have the
channels of the paper's figure 1: 64, 128, 256, 512.

Reference: Radford et al. 2016, arXiv:1511.06434, sections 3 and 4.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gan_jax.networks.layers import (
  BatchNorm,
  Conv,
  ConvTranspose,
  halved,
  leaky_relu,
  normal,
)


def sides(size: int) -> list[int]:
  """The sides of the feature maps, the image's own first.

  >>> sides(28), sides(32), sides(8)
  ([28, 14, 7], [32, 16, 8, 4], [8, 4, 2])
  """
  found = [size]
  while found[-1] > 7 or len(found) < 3:
    found.append(halved(found[-1]))
  return found


class Generator(nn.Module):
  """Noise -> the smallest feature map -> doubled to the image."""

  shape: tuple[int, ...]
  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Any, train: bool) -> Any:
    """(n, latent_dim) -> (n, size, size, channels) in [-1, 1]."""
    *larger, smallest = sides(self.shape[0])
    depth = len(larger)
    channels = self.width * 2 ** (depth - 1)
    # A convolution's bias is lost in the batch normalisation after it.
    h = nn.Dense(
      smallest**2 * channels,
      use_bias=False,
      kernel_init=normal(0.02),
      dtype=self.dtype,
    )(z)
    h = h.reshape(-1, smallest, smallest, channels)
    h = nn.relu(BatchNorm()(h, train))
    for size in reversed(larger[1:]):
      channels //= 2
      h = ConvTranspose(channels, size, use_bias=False, dtype=self.dtype)(h)
      h = nn.relu(BatchNorm()(h, train))
    x = ConvTranspose(self.shape[2], self.shape[0], dtype=self.dtype)(h)
    return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module):
  """An image -> halved to the smallest feature map -> a logit."""

  shape: tuple[int, ...]
  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    """(n, size, size, channels) -> (n,) logits."""
    depth = len(sides(self.shape[0])) - 1
    h = leaky_relu(Conv(self.width, dtype=self.dtype)(x))
    for i in range(1, depth):
      h = Conv(self.width * 2**i, use_bias=False, dtype=self.dtype)(h)
      h = leaky_relu(BatchNorm()(h, train))
    h = h.reshape(h.shape[0], -1)
    logit = nn.Dense(1, kernel_init=normal(0.02), dtype=self.dtype)(h)
    return logit[:, 0].astype(jnp.float32)
