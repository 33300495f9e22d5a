"""InfoGAN's networks without its codes, on which Lucic et al. compared GANs.

For width 64, G: 1024, 128 maps of a quarter of the side, 64 of a half, the
image. D: 64 maps of a half, 128 of a quarter, 1024, a logit. Leaky ReLU of
slope 0.2 in both, weights from N(0, .02), batch normalisation but at D's first
layer and both last ones. Theirs has biases before a normalisation as well,
which loses them. Their pixels are in [0, 1]; ours are in [-1, 1] and are mapped
at both borders.

References: Chen et al. 2016, arXiv:1606.03657, table 1; Lucic et al. 2018,
arXiv:1711.10337, appendix; `google/compare_gan` (architectures/infogan.py) for
what the papers leave open: leaky ReLU in G too, its slope, and normalisation of
each of the 128 maps' places before they become maps.
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
  has_scale,
  head,
  leaky_relu,
)


class Generator(nn.Module):
  """Noise -> 1024 -> a quarter of the side -> a half -> an image."""

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
    size, _, channels = self.shape
    quarter = size // 4
    spectral, dtype = self.norm == 'spectral', self.dtype
    dense = functools.partial(Dense, spectral=spectral, dtype=dtype)
    up = functools.partial(ConvTranspose, spectral=spectral, dtype=dtype)
    bias = not has_scale(self.norm)
    h = z
    for features in (16 * self.width, 2 * self.width * quarter**2):
      h = dense(features, bias)(h, train)
      h = leaky_relu(NORMS[self.norm](self.classes)(h, train, label))
    h = h.reshape(-1, quarter, quarter, 2 * self.width)
    h = up(self.width, size // 2, bias)(h, train)
    h = leaky_relu(NORMS[self.norm](self.classes)(h, train, label))
    x = up(channels, size)(h, train)
    return 2 * nn.sigmoid(wide(x)) - 1


class Discriminator(nn.Module):
  """An image -> a half of the side -> a quarter -> 1024 -> a logit."""

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
    """Logits of images in [-1, 1]."""
    spectral, dtype = self.norm == 'spectral', self.dtype
    conv = functools.partial(Conv, spectral=spectral, dtype=dtype)
    dense = functools.partial(Dense, spectral=spectral, dtype=dtype)
    bias = not has_scale(self.norm)
    h = leaky_relu(conv(self.width)((x + 1) / 2, train))
    h = conv(2 * self.width, use_bias=bias)(h, train)
    h = leaky_relu(NORMS[self.norm](0)(h, train, None))
    h = dense(16 * self.width, bias)(h.reshape(h.shape[0], -1), train)
    h = leaky_relu(NORMS[self.norm](0)(h, train, None))
    return head(
      h, label, self.classes, train=train, spectral=spectral, dtype=dtype
    )


def design(ask: Request) -> Design:
  """InfoGAN as in Lucic et al., of width 64."""
  check_square(ask, 8, 128, multiple=4)
  width = ask.width or 64
  norm_g, norm_d = ask.norm_g or 'batch', ask.norm_d or 'batch'
  return Design(
    Generator(ask.shape, width, norm_g, ask.classes, ask.dtype),
    Discriminator(width, norm_d, ask.classes, ask.dtype),
    latent_dim=64,
    latent='uniform',
    conditional=has_scale(norm_g),
  )


ARCHITECTURE = Architecture(
  design,
  samples=((8, 8, 1),),
  width=True,
  norms_g=tuple(NORMS),
  norms_d=tuple(NORMS),
)
