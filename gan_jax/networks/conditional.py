"""Labels for networks that know none: an embedding joined to their input.

Any architecture becomes conditional so. Reference: Mirza & Osindero 2014,
arXiv:1411.1784, section 3.2.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.networks.layers import Dense, normal

WIDTH = 32  # of an embedding that joins noise or a point


class Generator(nn.Module):
  """Noise and an embedding of the class -> a generator."""

  inner: nn.Module
  classes: int

  @nn.compact
  def __call__(self, z: Any, train: bool, label: Any = None) -> Any:
    """(n, latent_dim), (n,) -> samples."""
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
  def __call__(self, x: Any, train: bool, label: Any = None) -> Any:
    """(n, *shape), (n,) -> (n,) logits."""
    place = x.shape[1:-1] or ()
    width = 1 if place else WIDTH
    pixels = 1
    for side in place:
      pixels *= side
    embed = Dense(pixels * width, use_bias=False, kernel_init=normal(1.0))
    e = embed(jax.nn.one_hot(label, self.classes))
    e = e.reshape(x.shape[0], *place, width)
    return self.inner(jnp.concatenate([x, e], axis=-1), train)
