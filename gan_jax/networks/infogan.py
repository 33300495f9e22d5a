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

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gan_jax.networks.base import wide
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
  def __call__(self, z: Any, train: bool, label: Any = None) -> Any:
    """(n, latent_dim) -> (n, size, size, channels) in [-1, 1]."""
    size, _, channels = self.shape
    quarter = size // 4
    kind: Any = dict(
      use_bias=not has_scale(self.norm),
      spectral=self.norm == 'spectral',
      dtype=self.dtype,
    )
    h = z
    for features in (16 * self.width, 2 * self.width * quarter**2):
      h = Dense(features, **kind)(h, train)
      h = leaky_relu(NORMS[self.norm](self.classes)(h, train, label))
    h = h.reshape(-1, quarter, quarter, 2 * self.width)
    h = ConvTranspose(self.width, size // 2, **kind)(h, train)
    h = leaky_relu(NORMS[self.norm](self.classes)(h, train, label))
    kind['use_bias'] = True
    x = ConvTranspose(channels, size, **kind)(h, train)
    return 2 * nn.sigmoid(wide(x)) - 1


class Discriminator(nn.Module):
  """An image -> a half of the side -> a quarter -> 1024 -> a logit."""

  width: int
  norm: str = 'batch'
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Any, train: bool, label: Any = None) -> Any:
    """(n, size, size, channels) in [-1, 1] -> (n,) logits."""
    kind: Any = dict(spectral=self.norm == 'spectral', dtype=self.dtype)
    h = leaky_relu(Conv(self.width, **kind)((x + 1) / 2, train))
    kind['use_bias'] = not has_scale(self.norm)
    h = Conv(2 * self.width, **kind)(h, train)
    h = leaky_relu(NORMS[self.norm](0)(h, train, None))
    h = Dense(16 * self.width, **kind)(h.reshape(h.shape[0], -1), train)
    h = leaky_relu(NORMS[self.norm](0)(h, train, None))
    kind['use_bias'] = True
    return head(h, label, self.classes, train=train, **kind)
