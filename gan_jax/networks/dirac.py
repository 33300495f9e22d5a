"""Dirac-GAN: one parameter each, to watch the dynamics of training alone.

G is at `theta` whatever the noise, D is `psi x`, and the data are all at 0
(`dataset=delta`). The equilibrium is (0, 0); the gradient field turns about
it, with eigenvalues i/2 and -i/2, and so does not lead there. Both start at 1.

Reference: Mescheder et al. 2018, arXiv:1801.04406, section 2, definition 2.1.
"""

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
from gan_jax.runtime.errors import ArgumentError


class Generator(nn.Module):
  """Any noise -> `theta`."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, z: Float[Array, 'n latent_dim'], train: bool, label: Label = None
  ) -> Float[Array, 'n 1']:
    """The same point for each sample."""
    del train, label
    theta = self.param('theta', nn.initializers.ones, (), jnp.float32)
    return wide(jnp.full((z.shape[0], 1), theta.astype(self.dtype)))


class Discriminator(nn.Module):
  """A point -> `psi x`; of a pack, `psi` times its mean."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n packing'], train: bool, label: Label = None
  ) -> Float[Array, 'n']:
    """Logits."""
    del train, label
    psi = self.param('psi', nn.initializers.ones, (), jnp.float32)
    return wide(psi.astype(self.dtype) * x.astype(self.dtype).mean(axis=-1))


def design(ask: Request) -> Design:
  """Dirac-GAN, for densities of one dimension."""
  check_points(ask)
  if ask.shape != (1,):
    raise ArgumentError(
      'network',
      ask.name,
      f'makes samples of one dimension, not {ask.shape[0]}; use'
      ' `dataset=delta`, or `network=mlp`',
    )
  return Design(
    Generator(ask.dtype),
    Discriminator(ask.dtype),
    latent_dim=1,
    latent='normal',
  )


ARCHITECTURE = Architecture(design, samples=((1,),), labels=False)
