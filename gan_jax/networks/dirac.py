"""Dirac-GAN: one parameter each, to watch the dynamics of training alone.

G is at `theta` whatever the noise, D is `psi x`, and the data are all at 0
(`--dataset=delta`). The equilibrium is (0, 0); the gradient field turns about
it, with eigenvalues i/2 and -i/2, and so does not lead there. Both start at 1.

Reference: Mescheder et al. 2018, arXiv:1801.04406, section 2, definition 2.1.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gan_jax.networks.base import wide


class Generator(nn.Module):
  """Any noise -> `theta`."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Any, train: bool, label: Any = None) -> Any:
    """(n, latent_dim) -> (n, 1), all the same."""
    del train, label
    theta = self.param('theta', nn.initializers.ones, (), jnp.float32)
    x = jnp.full((z.shape[0], 1), theta.astype(self.dtype))
    return wide(x)


class Discriminator(nn.Module):
  """A point -> `psi x`; of a pack, `psi` times its mean."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Any, train: bool, label: Any = None) -> Any:
    """(n, packing) -> (n,) logits."""
    del train, label
    psi = self.param('psi', nn.initializers.ones, (), jnp.float32)
    logit = psi.astype(self.dtype) * x.astype(self.dtype).mean(axis=-1)
    return wide(logit)
