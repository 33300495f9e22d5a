"""PacGAN's networks for points, as its code builds them.

G: 2 normal numbers, four layers of 400 ReLU units with batch normalisation, a
point. D: three maxout layers of 200 units of 5 pieces, a logit, of as many
samples as are packed. Weights from N(0, .02), biases 0. The running statistics
move by a twentieth a step; theirs average the standard deviation, ours the
variance. The code has dropout for D but builds its graphs without.

References: Lin et al. 2018, arXiv:1712.04086, section 4.1; `fjxmlzn/PacGAN`
(2DGrid_GAN&PacGAN/pacgan_task.py) for the layers, which the paper takes from
Dumoulin et al. 2017, arXiv:1606.00704; `mila-iqia/blocks` (bricks/bn.py) for
the normalisation.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.networks.architecture import (
  Architecture,
  Design,
  Request,
  check_points,
)
from gan_jax.networks.base import Label, wide
from gan_jax.networks.layers import BatchNorm, Dense, has_scale, head, maxout

PIECES = 5


class Generator(nn.Module):
  """Noise -> four times 400 -> a point."""

  shape: tuple[int, ...]
  width: int = 400
  norm: str = 'batch'
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, z: Float[Array, 'n latent_dim'], train: bool, label: Label = None
  ) -> Float[Array, 'n dim']:
    """Points."""
    h = z
    for _ in range(4):
      # The normalisation would remove a bias.
      h = Dense(self.width, self.norm == 'none', dtype=self.dtype)(h)
      if self.norm == 'batch':
        norm = BatchNorm(self.classes, 0.95, 1e-4)
        h = norm(h, train, label)
      h = nn.relu(h)
    x = Dense(math.prod(self.shape), dtype=self.dtype)(h)
    return wide(x).reshape(-1, *self.shape)


class Discriminator(nn.Module):
  """Packed points -> three times maxout 200x5 -> a logit."""

  width: int = 200
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n packed_dim'], train: bool, label: Label = None
  ) -> Float[Array, 'n']:
    """Logits."""
    del train
    h = x
    for _ in range(3):
      h = Dense(self.width * PIECES, dtype=self.dtype)(h)
      h = maxout(h, PIECES)
    return head(h, label, self.classes, dtype=self.dtype)


def design(ask: Request) -> Design:
  """PacGAN's networks for points: width 200 in D, twice that in G."""
  check_points(ask)
  width, norm_g = ask.width or 200, ask.norm_g or 'batch'
  return Design(
    Generator(ask.shape, 2 * width, norm_g, ask.classes, ask.dtype),
    Discriminator(width, ask.classes, ask.dtype),
    latent_dim=2,
    latent='normal',
    conditional=has_scale(norm_g),
  )


ARCHITECTURE = Architecture(
  design, samples=((2,),), width=True, norms_g=('batch', 'none')
)
