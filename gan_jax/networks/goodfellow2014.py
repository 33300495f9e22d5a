"""The MNIST networks of the 2014 paper, for bounded samples of any shape.

G: 100 uniform numbers, two layers of 1200 ReLU units, a sigmoid that starts at
the mean of the data where that is known (at 1e-5 from 0 and 1 at the nearest;
their code: 1e-7). D: two maxout layers of 240 units of 5 pieces, a logit;
dropout keeps 0.8 of the input and 0.5 of the hidden units. Their pixels are in
[0, 1]; ours are in [-1, 1] and are mapped at both borders.

Reference: Goodfellow et al. 2014, arXiv:1406.2661, section 5, and its code
(`mnist.yaml`) for what the paper leaves open.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gan_jax.networks.architecture import Architecture, Design, Request
from gan_jax.networks.base import Label, wide
from gan_jax.networks.layers import Dense, Init, head, maxout, uniform
from gan_jax.runtime.errors import ArgumentError

PIECES = 5


def _bias_at(mean: Callable[[], Any] | None) -> Init:
  """The bias at which the sigmoid is the mean of the data; 0 if unknown."""
  if mean is None:
    return nn.initializers.zeros

  def init(*_: Any) -> Any:
    unit = np.clip((np.ravel(mean()) + 1) / 2, 1e-5, 1 - 1e-5)
    return jnp.asarray(np.log(unit / (1 - unit)), jnp.float32)

  return init


class Generator(nn.Module):
  """Noise -> 1200 -> 1200 -> a sample."""

  shape: tuple[int, ...]
  width: int = 1200
  dtype: Any = jnp.float32
  mean: Callable[[], Any] | None = None

  @nn.compact
  def __call__(
    self, z: Float[Array, 'n latent_dim'], train: bool, label: Label = None
  ) -> Float[Array, 'n *shape']:
    """Samples in [-1, 1]."""
    del train, label
    h = z
    for _ in range(2):
      h = nn.relu(
        Dense(self.width, kernel_init=uniform(0.05), dtype=self.dtype)(h)
      )
    pixels = math.prod(self.shape)
    x = Dense(
      pixels,
      kernel_init=uniform(0.05),
      bias_init=_bias_at(self.mean),
      dtype=self.dtype,
    )(h)
    return (2 * nn.sigmoid(wide(x)) - 1).reshape(-1, *self.shape)


class Discriminator(nn.Module):
  """A sample -> maxout 240x5 -> maxout 240x5 -> a logit, with dropout."""

  width: int = 240
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n *shape'], train: bool, label: Label = None
  ) -> Float[Array, 'n']:
    """Logits of samples in [-1, 1]."""
    h = (x.reshape(x.shape[0], -1) + 1) / 2
    for rate in (0.2, 0.5):
      h = nn.Dropout(rate, deterministic=not train)(h)
      h = Dense(
        self.width * PIECES, kernel_init=uniform(0.005), dtype=self.dtype
      )(h)
      h = maxout(h, PIECES)
    h = nn.Dropout(0.5, deterministic=not train)(h)
    init = uniform(0.005)
    return head(h, label, self.classes, kernel_init=init, dtype=self.dtype)


def design(ask: Request) -> Design:
  """The MNIST networks of the 2014 paper, for bounded samples."""
  if not ask.bounded:
    raise ArgumentError(
      'network',
      ask.name,
      'makes bounded samples (images); use `network=mlp` for densities',
    )
  return Design(
    Generator(ask.shape, dtype=ask.dtype, mean=ask.mean),
    Discriminator(classes=ask.classes, dtype=ask.dtype),
    latent_dim=100,
    latent='uniform_sqrt3',
  )


ARCHITECTURE = Architecture(design, samples=((8, 8, 1),))
