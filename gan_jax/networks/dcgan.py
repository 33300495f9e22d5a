"""DCGAN for square images of any side from 8 to 128.

The sides are halved, rounding up, until at most 7 and at least twice; the
channels double meanwhile. For 64 pixels and width 64 both networks have the
channels of the paper's figure 1: 64, 128, 256, 512. Weights are from N(0, .02),
the scales of batch normalisation from N(1, .02).

Reference: Radford et al. 2016, arXiv:1511.06434, sections 3 and 4, and its code
(`Newmu/dcgan_code`) for the scales.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gan_jax.networks.base import wide
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
  found = [size]
  while found[-1] > 7 or len(found) < 3:
    found.append(halved(found[-1]))
  return found


class Generator(nn.Module):
  """Noise -> the smallest feature map -> doubled to the image."""

  shape: tuple[int, ...]
  width: int
  norm: str = 'batch'
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Any, train: bool, label: Any = None) -> Any:
    """(n, latent_dim) -> (n, size, size, channels) in [-1, 1]."""
    *larger, smallest = sides(self.shape[0])
    channels = self.width * 2 ** (len(larger) - 1)
    # A bias is lost in the normalisation after it.
    kind: Any = dict(
      use_bias=not has_scale(self.norm),
      spectral=self.norm == 'spectral',
      dtype=self.dtype,
    )
    h = Dense(smallest**2 * channels, **kind)(z, train)
    h = h.reshape(-1, smallest, smallest, channels)
    h = nn.relu(_NORMS[self.norm](self.classes)(h, train, label))
    for size in reversed(larger[1:]):
      channels //= 2
      h = ConvTranspose(channels, size, **kind)(h, train)
      h = nn.relu(_NORMS[self.norm](self.classes)(h, train, label))
    kind['use_bias'] = True
    x = ConvTranspose(self.shape[2], self.shape[0], **kind)(h, train)
    return jnp.tanh(wide(x))


class Discriminator(nn.Module):
  """An image -> halved to the smallest feature map -> a logit."""

  shape: tuple[int, ...]
  width: int
  norm: str = 'batch'
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Any, train: bool, label: Any = None) -> Any:
    """(n, size, size, channels) -> (n,) logits."""
    depth = len(sides(self.shape[0])) - 1
    kind: Any = dict(spectral=self.norm == 'spectral', dtype=self.dtype)
    h = leaky_relu(Conv(self.width, **kind)(x, train))
    kind['use_bias'] = not has_scale(self.norm)
    for i in range(1, depth):
      h = Conv(self.width * 2**i, **kind)(h, train)
      h = leaky_relu(_NORMS[self.norm](0)(h, train, None))
    h = h.reshape(h.shape[0], -1)
    kind['use_bias'] = True
    return head(h, label, self.classes, train=train, **kind)
