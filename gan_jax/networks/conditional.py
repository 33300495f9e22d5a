"""Labels for unconditional networks: an embedding joined to their input.

Any architecture becomes conditional so. Reference: Mirza & Osindero 2014,
arXiv:1411.1784, section 3.2.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.networks.base import Label
from gan_jax.networks.layers import Dense, normal

WIDTH = 32  # of an embedding that joins noise or a point


class Generator(nn.Module):
  """Noise and an embedding of the class -> a generator."""

  inner: nn.Module
  classes: int

  @nn.compact
  def __call__(
    self, z: Float[Array, 'n latent_dim'], train: bool, label: Label = None
  ) -> Float[Array, 'n *shape']:
    """Samples of the classes."""
    embed = Dense(WIDTH, use_bias=False, kernel_init=normal(1.0))
    e = embed(jax.nn.one_hot(label, self.classes))
    return self.inner(jnp.concatenate([z, e], axis=-1), train)


class Discriminator(nn.Module):
  """A sample and an embedding of its class -> a discriminator.

  To an image the embedding is one more channel.
  """

  inner: nn.Module
  classes: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n *shape'], train: bool, label: Label = None
  ) -> Float[Array, 'n']:
    """Logits."""
    sides = x.shape[1:-1]
    width = 1 if sides else WIDTH
    size = math.prod(sides) * width
    embed = Dense(size, use_bias=False, kernel_init=normal(1.0))
    e = embed(jax.nn.one_hot(label, self.classes))
    e = e.reshape(x.shape[0], *sides, width)
    return self.inner(jnp.concatenate([x, e], axis=-1), train)
