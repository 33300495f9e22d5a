"""Fully connected G and D for samples of any shape, densities above all."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gan_jax.networks.layers import normal


def _stack(x: Any, width: int, depth: int, dtype: Any) -> Any:
  # Smooth, as are the densities: D's slope is all that G sees of them, and
  # that of a piecewise linear D jumps.
  for _ in range(depth):
    scale = normal(math.sqrt(2 / x.shape[-1]))
    x = nn.silu(nn.Dense(width, kernel_init=scale, dtype=dtype)(x))
  return x


class Generator(nn.Module):
  """Noise -> `depth` hidden layers of `width` SiLU units -> a sample."""

  shape: tuple[int, ...]
  bounded: bool
  width: int
  depth: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z: Any, train: bool) -> Any:
    """(n, latent_dim) -> (n, *shape)."""
    del train
    h = _stack(z, self.width, self.depth, self.dtype)
    init = normal(math.sqrt(1 / self.width))
    x = nn.Dense(math.prod(self.shape), kernel_init=init, dtype=self.dtype)(h)
    x = x.astype(jnp.float32).reshape(-1, *self.shape)
    return jnp.tanh(x) if self.bounded else x


class Discriminator(nn.Module):
  """A sample -> `depth` hidden layers of `width` SiLU units -> a logit."""

  width: int
  depth: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    """(n, *shape) -> (n,) logits."""
    del train
    h = x.reshape(x.shape[0], -1)
    h = _stack(h, self.width, self.depth, self.dtype)
    init = normal(math.sqrt(1 / self.width))
    logit = nn.Dense(1, kernel_init=init, dtype=self.dtype)(h)
    return logit[:, 0].astype(jnp.float32)
