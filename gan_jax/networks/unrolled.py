"""The networks on which unrolling was shown, for points.

G: 256 normal numbers, two layers of 128 ReLU units, a point. D: its input
scaled down by 4, one layer of 128 ReLU units, a logit. Weights are orthogonal
times 0.8, biases 0. All of this is of the paper's appendix, which does not say
how wide D's layer is: 128 as in the authors' notebook (`poolio/unrolled_gan`),
whose networks are otherwise others (tanh, two layers in D, gain 1.4, no
scaling), as it says itself.

The factor of 4 suits a ring of radius 2, theirs; for a ring of radius 1 it
makes D learn more slowly, no less.

Reference: Metz et al. 2017, arXiv:1611.02163, appendix A.
"""

import functools
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
from gan_jax.networks.layers import Dense, head

orthogonal = nn.initializers.orthogonal(0.8)


class Generator(nn.Module):
  """Noise -> two times 128 -> a point."""

  shape: tuple[int, ...]
  width: int = 128
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, z: Float[Array, 'n latent_dim'], train: bool, label: Label = None
  ) -> Float[Array, 'n dim']:
    """Points."""
    del train, label
    dense = functools.partial(Dense, kernel_init=orthogonal, dtype=self.dtype)
    h = z
    for _ in range(2):
      h = nn.relu(dense(self.width)(h))
    x = dense(math.prod(self.shape))(h)
    return wide(x).reshape(-1, *self.shape)


class Discriminator(nn.Module):
  """A quarter of a point -> 128 -> a logit."""

  width: int = 128
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n packed_dim'], train: bool, label: Label = None
  ) -> Float[Array, 'n']:
    """Logits."""
    del train
    hidden = Dense(self.width, kernel_init=orthogonal, dtype=self.dtype)
    return head(
      nn.relu(hidden(x / 4)),
      label,
      self.classes,
      kernel_init=orthogonal,
      dtype=self.dtype,
    )


def design(ask: Request) -> Design:
  """The networks of unrolled GANs for points, of width 128."""
  check_points(ask)
  width = ask.width or 128
  return Design(
    Generator(ask.shape, width, ask.dtype),
    Discriminator(width, ask.classes, ask.dtype),
    latent_dim=256,
    latent='normal',
  )


ARCHITECTURE = Architecture(design, samples=((2,),), width=True)
