"""Fully connected G and D for samples of any shape, densities above all."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.networks.architecture import Architecture, Design, Request
from gan_jax.networks.base import Label, wide
from gan_jax.networks.layers import NORMS, Dense, has_scale, head, normal


def _hidden(
  module: 'Generator | Discriminator',
  x: Float[Array, 'n features'],
  train: bool,
  label: Label,
) -> Float[Array, 'n width']:
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
  def __call__(
    self, z: Float[Array, 'n latent_dim'], train: bool, label: Label = None
  ) -> Float[Array, 'n *shape']:
    """Samples."""
    h = _hidden(self, z, train, label)
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

  conditional = False  # the head sees the classes

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n *shape'], train: bool, label: Label = None
  ) -> Float[Array, 'n']:
    """Logits."""
    h = x.reshape(x.shape[0], -1)
    h = _hidden(self, h, train, label)
    return head(
      h,
      label,
      self.classes,
      train=train,
      spectral=self.norm == 'spectral',
      kernel_init=normal(math.sqrt(1 / self.width)),
      dtype=self.dtype,
    )


def design(ask: Request) -> Design:
  """Fully connected, for any samples; two hidden layers of 128."""
  width, depth = ask.width or 128, ask.depth or 2
  norm_g, norm_d = ask.norm_g or 'none', ask.norm_d or 'none'
  return Design(
    Generator(
      ask.shape, ask.bounded, width, depth, norm_g, ask.classes, ask.dtype
    ),
    Discriminator(width, depth, norm_d, ask.classes, ask.dtype),
    latent_dim=8 if len(ask.shape) == 1 else 64,
    latent='normal',
    conditional=has_scale(norm_g),
  )


ARCHITECTURE = Architecture(
  design,
  samples=((2,), (8, 8, 1)),
  width=True,
  depth=True,
  norms_g=tuple(NORMS),
  norms_d=tuple(NORMS),
)
