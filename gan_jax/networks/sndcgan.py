"""The standard CNN of spectral normalisation, for square images.

For width 64, G: 512 maps of an eighth of the side, 256, 128 and 64 of twice
each, a 3x3 convolution to the image. D: 64, 128 and 256 maps, twice each, the
second time of half the side, then 512, a logit. Sides that 8 does not divide
are halved rounding up: 28, 14, 7, 4.

The strided layers of D keep their channels, as in the paper's table. The
first author's `chainer-gan-lib` and `google/compare_gan` double them there (64,
128, 128, 256, 256, 512, 512): the FIDs published from those two are of a D with
more parameters. The weights from N(0, .02), and the normalisation of G's first
layer before it becomes maps, are of these two; the table states neither.

Reference: Miyato et al. 2018, arXiv:1802.05957, table 3.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.networks.architecture import (
  Architecture,
  Design,
  Request,
  check_square,
)
from gan_jax.networks.base import Label, wide
from gan_jax.networks.layers import (
  NORMS,
  Conv,
  ConvTranspose,
  Dense,
  halved,
  has_scale,
  head,
)


def sides(size: int) -> list[int]:
  """The sides of the feature maps, the image's own first.

  >>> sides(32), sides(28)
  ([32, 16, 8, 4], [28, 14, 7, 4])
  """
  sizes = [size]
  for _ in range(3):
    sizes.append(halved(sizes[-1]))
  return sizes


class Generator(nn.Module):
  """Noise -> an eighth of the side -> doubled thrice -> an image."""

  shape: tuple[int, ...]
  width: int
  norm: str = 'batch'
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, z: Float[Array, 'n latent_dim'], train: bool, label: Label = None
  ) -> Float[Array, 'n height width channels']:
    """Images in [-1, 1]."""
    *larger, smallest = sides(self.shape[0])
    channels = 8 * self.width
    spectral, dtype = self.norm == 'spectral', self.dtype
    dense = functools.partial(Dense, spectral=spectral, dtype=dtype)
    up = functools.partial(ConvTranspose, spectral=spectral, dtype=dtype)
    conv = functools.partial(Conv, spectral=spectral, dtype=dtype)
    bias = not has_scale(self.norm)
    h = dense(smallest**2 * channels, bias)(z, train)
    h = nn.relu(NORMS[self.norm](self.classes)(h, train, label))
    h = h.reshape(-1, smallest, smallest, channels)
    for size in reversed(larger):
      channels //= 2
      h = up(channels, size, bias)(h, train)
      h = nn.relu(NORMS[self.norm](self.classes)(h, train, label))
    x = conv(self.shape[2], size=3, stride=1)(h, train)
    return jnp.tanh(wide(x))


class Discriminator(nn.Module):
  """An image -> halved thrice -> a logit."""

  width: int
  norm: str = 'spectral'
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'n height width channels'],
    train: bool,
    label: Label = None,
  ) -> Float[Array, 'n']:
    """Logits."""
    spectral, dtype = self.norm == 'spectral', self.dtype
    conv = functools.partial(Conv, spectral=spectral, dtype=dtype)
    bias = not has_scale(self.norm)
    h = nn.leaky_relu(conv(self.width, size=3, stride=1)(x, train), 0.1)
    for factor, size, stride in (
      (1, 4, 2),
      (2, 3, 1),
      (2, 4, 2),
      (4, 3, 1),
      (4, 4, 2),
      (8, 3, 1),
    ):
      h = conv(factor * self.width, size, stride, bias)(h, train)
      h = nn.leaky_relu(NORMS[self.norm](0)(h, train, None), 0.1)
    return head(
      h.reshape(h.shape[0], -1),
      label,
      self.classes,
      train=train,
      spectral=spectral,
      dtype=dtype,
    )


def design(ask: Request) -> Design:
  """SN-DCGAN, of width 64."""
  check_square(ask, 16, 128)
  width = ask.width or 64
  norm_g, norm_d = ask.norm_g or 'batch', ask.norm_d or 'spectral'
  return Design(
    Generator(ask.shape, width, norm_g, ask.classes, ask.dtype),
    Discriminator(width, norm_d, ask.classes, ask.dtype),
    latent_dim=128,
    latent='normal',
    conditional=has_scale(norm_g),
  )


ARCHITECTURE = Architecture(
  design,
  samples=((16, 16, 3),),
  width=True,
  norms_g=tuple(NORMS),
  norms_d=tuple(NORMS),
)
