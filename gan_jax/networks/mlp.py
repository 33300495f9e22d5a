"""Fully connected G and D for samples of any shape, densities above all."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gan_jax.networks.base import wide
from gan_jax.networks.layers import NORMS, Dense, head, normal


def _stack(module: Any, x: Any, train: bool, label: Any) -> Any:
  # Smooth, as are the densities: D's slope is all that G sees of them, and
  # that of a piecewise linear D jumps.
  spectral = module.norm == 'spectral'
  for _ in range(module.depth):
    scale = normal(math.sqrt(2 / x.shape[-1]))
    dense = Dense(
      module.width, kernel_init=scale, spectral=spectral, dtype=module.dtype
    )
    norm = NORMS[module.norm](module.classes if module.conditional else 0)
    x = nn.silu(norm(dense(x, train), train, label))
  return x


class Generator(nn.Module):
  """Noise -> `depth` hidden layers of `width` SiLU units -> a sample."""

  shape: tuple[int, ...]
  bounded: bool
  width: int
  depth: int
  norm: str = 'none'
  classes: int = 0
  dtype: Any = jnp.float32

  conditional = True

  @nn.compact
  def __call__(self, z: Any, train: bool, label: Any = None) -> Any:
    """(n, latent_dim) -> (n, *shape)."""
    h = _stack(self, z, train, label)
    out = Dense(
      math.prod(self.shape),
      kernel_init=normal(math.sqrt(1 / self.width)),
      spectral=self.norm == 'spectral',
      dtype=self.dtype,
    )
    x = wide(out(h, train)).reshape(-1, *self.shape)
    return jnp.tanh(x) if self.bounded else x


class Discriminator(nn.Module):
  """A sample -> `depth` hidden layers of `width` SiLU units -> a logit."""

  width: int
  depth: int
  norm: str = 'none'
  classes: int = 0
  dtype: Any = jnp.float32

  conditional = False  # its classes meet it at the head

  @nn.compact
  def __call__(self, x: Any, train: bool, label: Any = None) -> Any:
    """(n, *shape) -> (n,) logits."""
    h = x.reshape(x.shape[0], -1)
    h = _stack(self, h, train, label)
    return head(
      h,
      label,
      self.classes,
      train=train,
      spectral=self.norm == 'spectral',
      kernel_init=normal(math.sqrt(1 / self.width)),
      dtype=self.dtype,
    )
