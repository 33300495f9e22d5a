"""The networks on which unrolling was shown, for points.

G: 256 normal numbers, two layers of 128 ReLU units, a point. D: its input
scaled down by 4, one layer of 128 ReLU units, a logit. Weights are orthogonal
times 0.8, biases 0. All of this is of the paper's appendix, which does not say
how wide D's layer is: 128 as in the authors' notebook (`poolio/unrolled_gan`),
whose networks are otherwise others (tanh, two layers in D, gain 1.4, no
scaling), as it says itself.

The factor of 4 suits a ring of radius 2, theirs; for a ring of radius 1 it
makes D slower, not another.

Reference: Metz et al. 2017, arXiv:1611.02163, appendix A.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gan_jax.networks.base import wide
from gan_jax.networks.layers import Dense, head

orthogonal = nn.initializers.orthogonal(0.8)


class Generator(nn.Module):
  """Noise -> two times 128 -> a point."""

  shape: tuple[int, ...]
  width: int = 128
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Any, train: bool, label: Any = None) -> Any:
    """(n, latent_dim) -> (n, *shape)."""
    del train, label
    kind: Any = dict(kernel_init=orthogonal, dtype=self.dtype)
    h = z
    for _ in range(2):
      h = nn.relu(Dense(self.width, **kind)(h))
    x = Dense(math.prod(self.shape), **kind)(h)
    return wide(x).reshape(-1, *self.shape)


class Discriminator(nn.Module):
  """A quarter of a point -> 128 -> a logit."""

  width: int = 128
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Any, train: bool, label: Any = None) -> Any:
    """(n, dim) -> (n,) logits."""
    del train
    kind: Any = dict(kernel_init=orthogonal, dtype=self.dtype)
    h = nn.relu(Dense(self.width, **kind)(x / 4))
    return head(h, label, self.classes, **kind)
