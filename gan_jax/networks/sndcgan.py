"""The standard CNN of spectral normalisation, for square images.

For width 64, G: 512 maps of an eighth of the side, 256, 128 and 64 of twice
each, a 3x3 convolution to the image. D: 64, 128 and 256 maps, twice each, the
second time of half the side, then 512, a logit. Sides that 8 does not divide
are halved rounding up: 28, 14, 7, 4.

The strided layers of D keep their channels, as in the paper's table. The
first author's `chainer-gan-lib` and `google/compare_gan` double them there (64,
128, 128, 256, 256, 512, 512): the FIDs published from those two are of a D with
more parameters. The weights from N(0, .02), and the normalisation of G's first
layer before it becomes maps, are of these two; the table tells neither.

Reference: Miyato et al. 2018, arXiv:1802.05957, table 3.
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
  halved,
  has_scale,
  head,
)


def sides(size: int) -> list[int]:
  """The sides of the feature maps, the image's own first.

  >>> sides(32), sides(28)
  ([32, 16, 8, 4], [28, 14, 7, 4])
  """
  found = [size]
  for _ in range(3):
    found.append(halved(found[-1]))
  return found


class Generator(nn.Module):
  """Noise -> an eighth of the side -> doubled thrice -> an image."""

  shape: tuple[int, ...]
  width: int
  norm: str = 'batch'
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Any, train: bool, label: Any = None) -> Any:
    """(n, latent_dim) -> (n, size, size, channels) in [-1, 1]."""
    *larger, smallest = sides(self.shape[0])
    channels = 8 * self.width
    kind: Any = dict(
      use_bias=not has_scale(self.norm),
      spectral=self.norm == 'spectral',
      dtype=self.dtype,
    )
    h = Dense(smallest**2 * channels, **kind)(z, train)
    h = nn.relu(NORMS[self.norm](self.classes)(h, train, label))
    h = h.reshape(-1, smallest, smallest, channels)
    for size in reversed(larger):
      channels //= 2
      h = ConvTranspose(channels, size, **kind)(h, train)
      h = nn.relu(NORMS[self.norm](self.classes)(h, train, label))
    kind['use_bias'] = True
    x = Conv(self.shape[2], size=3, stride=1, **kind)(h, train)
    return jnp.tanh(wide(x))


class Discriminator(nn.Module):
  """An image -> halved thrice -> a logit."""

  width: int
  norm: str = 'spectral'
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Any, train: bool, label: Any = None) -> Any:
    """(n, size, size, channels) -> (n,) logits."""
    kind: Any = dict(spectral=self.norm == 'spectral', dtype=self.dtype)
    h = nn.leaky_relu(Conv(self.width, size=3, stride=1, **kind)(x, train), 0.1)
    kind['use_bias'] = not has_scale(self.norm)
    for factor, size, stride in (
      (1, 4, 2),
      (2, 3, 1),
      (2, 4, 2),
      (4, 3, 1),
      (4, 4, 2),
      (8, 3, 1),
    ):
      h = Conv(factor * self.width, size, stride, **kind)(h, train)
      h = nn.leaky_relu(NORMS[self.norm](0)(h, train, None), 0.1)
    kind['use_bias'] = True
    h = h.reshape(h.shape[0], -1)
    return head(h, label, self.classes, train=train, **kind)
