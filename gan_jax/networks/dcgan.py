"""DCGAN for square images of any side from 8 to 128.

The sides are halved, rounding up, until at most 7 and at least twice; the
channels double meanwhile. For 64 pixels and the default width of 64 both
networks have 64, 128, 256 and 512 channels, as in most code since; the
generator of the paper's figure 1 has twice as many (1024 to 128: `width=128`).
Kernels are 4 x 4, where the paper's are 5 x 5: of stride 2, every place of the
output is then reached by as many weights. Weights are from N(0, .02), the
scales of batch normalisation from N(1, .02).

Reference: Radford et al. 2016, arXiv:1511.06434, sections 3 and 4, and its code
(`Newmu/dcgan_code`) for the scales.
"""

import functools
from collections.abc import Callable
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
  BatchNorm,
  Conv,
  ConvTranspose,
  Dense,
  halved,
  has_scale,
  head,
  leaky_relu,
  normal,
)

# Its authors' code draws the scales of batch normalisation as well.
_NORMS: dict[str, Callable[[int], Any]] = {
  **NORMS,
  'batch': lambda classes: BatchNorm(
    classes=classes, scale_init=normal(0.02, mean=1.0)
  ),
}


def sides(size: int) -> list[int]:
  """The sides of the feature maps, the image's own first.

  >>> sides(28), sides(32), sides(8)
  ([28, 14, 7], [32, 16, 8, 4], [8, 4, 2])
  """
  sizes = [size]
  while sizes[-1] > 7 or len(sizes) < 3:
    sizes.append(halved(sizes[-1]))
  return sizes


class Generator(nn.Module):
  """Noise -> the smallest feature map -> doubled to the image."""

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
    channels = self.width * 2 ** (len(larger) - 1)
    spectral, dtype = self.norm == 'spectral', self.dtype
    dense = functools.partial(Dense, spectral=spectral, dtype=dtype)
    up = functools.partial(ConvTranspose, spectral=spectral, dtype=dtype)
    bias = not has_scale(self.norm)  # which the normalisation would remove
    h = dense(smallest**2 * channels, bias)(z, train)
    h = h.reshape(-1, smallest, smallest, channels)
    h = nn.relu(_NORMS[self.norm](self.classes)(h, train, label))
    for size in reversed(larger[1:]):
      channels //= 2
      h = up(channels, size, bias)(h, train)
      h = nn.relu(_NORMS[self.norm](self.classes)(h, train, label))
    x = up(self.shape[2], self.shape[0])(h, train)
    return jnp.tanh(wide(x))


class Discriminator(nn.Module):
  """An image -> halved to the smallest feature map -> a logit."""

  shape: tuple[int, ...]
  width: int
  norm: str = 'batch'
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
    depth = len(sides(self.shape[0])) - 1
    spectral, dtype = self.norm == 'spectral', self.dtype
    conv = functools.partial(Conv, spectral=spectral, dtype=dtype)
    h = leaky_relu(conv(self.width)(x, train))
    for i in range(1, depth):
      h = conv(self.width * 2**i, use_bias=not has_scale(self.norm))(h, train)
      h = leaky_relu(_NORMS[self.norm](0)(h, train, None))
    return head(
      h.reshape(h.shape[0], -1),
      label,
      self.classes,
      train=train,
      spectral=spectral,
      dtype=dtype,
    )


def design(ask: Request) -> Design:
  """DCGAN, of width 64."""
  check_square(ask, 8, 128)
  width = ask.width or 64
  norm_g, norm_d = ask.norm_g or 'batch', ask.norm_d or 'batch'
  return Design(
    Generator(ask.shape, width, norm_g, ask.classes, ask.dtype),
    Discriminator(ask.shape, width, norm_d, ask.classes, ask.dtype),
    latent_dim=100,
    latent='uniform',
    conditional=has_scale(norm_g),
  )


ARCHITECTURE = Architecture(
  design,
  samples=((8, 8, 1), (12, 12, 3)),
  width=True,
  norms_g=tuple(NORMS),
  norms_d=tuple(NORMS),
)
