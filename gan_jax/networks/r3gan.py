"""R3GAN's networks (config E): residual, without any normalisation.

Stages of two blocks (1x1, grouped 3x3 and 1x1 convolutions, the last of which
starts at 0, so that a block starts as the identity), resampled between them by
1, 3, 3, 1 along both axes. G starts from a learned map that the noise scales
channel by channel; D ends in one that weighs its features. For squares whose
side halves to one of 4 to 7 pixels, from 8 to 128. With width 768 and 32 pixels
it is the paper's network for CIFAR-10, of four stages of 96 groups.

G's output is linear, as in the paper: D sees it as it is, and outside of
training it is clipped to [-1, 1], the range of images.

Reference: Huang et al. 2025, arXiv:2501.05441, section 3 and appendix, and its
code (`brownvc/R3GAN`).
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.networks.architecture import (
  Architecture,
  Design,
  Request,
  check_square,
)
from gan_jax.networks.base import Label, wide
from gan_jax.networks.conv_grouped import conv_grouped
from gan_jax.networks.layers import Conv, Dense, biased, leaky_relu, normal
from gan_jax.runtime.errors import ArgumentError

Images = Float[Array, 'n _ _ _']

# GROUP: channels between two blocks for each group within one.
BLOCKS, EXPANSION, GROUP, LATENT = 2, 2, 8, 64
_GAIN = math.sqrt(2 / (1 + 0.2**2))  # of leaky ReLU


def stages(size: int) -> list[int]:
  """Sides of the stages, the smallest first.

  >>> stages(32), stages(28)
  ([4, 8, 16, 32], [7, 14, 28])
  """
  sides = [size]
  while sides[0] > 7:
    sides.insert(0, sides[0] // 2)
  return sides


def doubled(x: Images) -> Images:
  """`(x[i-1] + 3 x[i]) / 4`, `(3 x[i] + x[i+1]) / 4`; both axes, 0 outside."""
  for axis in (1, 2):
    before, after = _shifted(x, axis, 1), _shifted(x, axis, -1)
    pair = jnp.stack([before + 3 * x, 3 * x + after], axis=axis + 1) / 4
    shape = (*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
    x = pair.reshape(shape)
  return x


def halved(x: Images) -> Images:
  """Weights 1/8, 3/8, 3/8, 1/8 about each pair; both axes, 0 outside."""
  for axis in (1, 2):
    pairs = x.reshape(
      *x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :]
    )
    even, odd = (
      jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1)
    )
    before, after = _shifted(odd, axis, 1), _shifted(even, axis, -1)
    x = (before + 3 * (even + odd) + after) / 8
  return x


def _shifted(x: Images, axis: int, by: int) -> Images:
  """Shifted by one pixel along an axis, on or back (`by` 1, -1), 0 outside."""
  pads = [(0, 0)] * x.ndim
  pads[axis] = (1, 0) if by > 0 else (0, 1)
  first = 0 if by > 0 else 1
  return jax.lax.slice_in_dim(
    jnp.pad(x, pads), first, first + x.shape[axis], axis=axis
  )


class GroupedConv(nn.Module):
  """3x3 convolution within groups of channels, without bias."""

  groups: int
  std: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Images) -> Images:
    """Convolves the images; their shape stays."""
    c = x.shape[-1]
    kernel = self.param(
      'kernel', normal(self.std), (3, 3, c // self.groups, c), jnp.float32
    )
    return conv_grouped(x.astype(self.dtype), kernel, self.groups)


def _block(x: Images, depth: int, dtype: Any) -> Images:
  """A residual block; to be called within a compact module.

  Args:
    x: features.
    depth: blocks of the whole network, for the fix-up initialisation (Zhang et
      al. 2019, arXiv:1901.09321): of three layers the first two are scaled by
      depth^(-1/4), the last starts at 0.
    dtype: of the computation.
  """
  c = x.shape[-1]
  inner, groups = EXPANSION * c, max(1, c // GROUP)
  gain = _GAIN * depth ** (-1 / 4)
  conv1 = functools.partial(Conv, size=1, stride=1, use_bias=False, dtype=dtype)
  h = conv1(inner, kernel_init=normal(gain / math.sqrt(c)))(x)
  h = leaky_relu(_Bias(inner)(h))
  std = gain / math.sqrt(9 * inner / groups)
  h = GroupedConv(groups, std, dtype=dtype)(h)
  h = leaky_relu(_Bias(inner)(h))
  return x + conv1(c, kernel_init=nn.initializers.zeros)(h)


class _Bias(nn.Module):
  features: int
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: Images) -> Images:
    return biased(self, x)


class Generator(nn.Module):
  """Noise -> a learned map scaled by it -> stages -> an image."""

  shape: tuple[int, ...]
  width: int
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, z: Float[Array, 'n latent_dim'], train: bool, label: Label = None
  ) -> Float[Array, 'n height width channels']:
    """Images, in [-1, 1] outside of training."""
    sides = stages(self.shape[0])
    if self.classes:
      std = 1 / math.sqrt(self.classes)
      embed = Dense(LATENT, use_bias=False, kernel_init=normal(std))
      e = embed(jax.nn.one_hot(label, self.classes))
      z = jnp.concatenate([z, e], axis=-1)
    shape = (sides[0], sides[0], self.width)
    basis = self.param('basis', normal(1.0), shape, jnp.float32)
    init = normal(1 / math.sqrt(z.shape[-1]))
    scale = Dense(self.width, use_bias=False, kernel_init=init)(z)
    h = basis[None] * scale[:, None, None, :]
    depth = BLOCKS * len(sides)
    for i, _ in enumerate(sides):
      h = doubled(h) if i else h
      for _ in range(BLOCKS):
        h = _block(h, depth, self.dtype)
    init = normal(1 / math.sqrt(self.width))
    out = Conv(self.shape[2], 1, 1, False, init, dtype=self.dtype)
    x = wide(out(h))
    return x if train else jnp.clip(x, -1, 1)


class Discriminator(nn.Module):
  """An image -> stages -> weighed by learned maps -> a logit."""

  shape: tuple[int, ...]
  width: int
  classes: int = 0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'n height width channels'],
    train: bool,
    label: Label = None,
  ) -> Float[Array, 'n']:
    """Logits."""
    del train
    sides = stages(self.shape[0])
    init = normal(1 / math.sqrt(x.shape[-1]))
    h = Conv(self.width, 1, 1, False, init, dtype=self.dtype)(x)
    depth = BLOCKS * len(sides)
    for i, _ in enumerate(sides):
      for _ in range(BLOCKS):
        h = _block(h, depth, self.dtype)
      h = halved(h) if i < len(sides) - 1 else h
    shape = (sides[0], sides[0], self.width)
    basis = self.param('basis', normal(1 / sides[0]), shape, jnp.float32)
    h = jnp.sum(wide(h) * basis[None], axis=(1, 2))
    init = normal(1 / math.sqrt(self.width))
    if not self.classes:
      return Dense(1, use_bias=False, kernel_init=init)(h)[:, 0]
    h = Dense(self.width, use_bias=False, kernel_init=init)(h)
    std = 1 / math.sqrt(self.classes * self.width)
    embed = Dense(self.width, use_bias=False, kernel_init=normal(std))
    return jnp.sum(h * embed(jax.nn.one_hot(label, self.classes)), axis=-1)


def design(ask: Request) -> Design:
  """R3GAN's networks; width 768 (its CIFAR-10's, slow without a GPU)."""
  check_square(ask, 8, 128)
  side, width = ask.shape[0], ask.width or 768
  first = stages(side)[0]
  if first < 4 or side not in (first * 2**i for i in range(1, 6)):
    raise ArgumentError(
      'network',
      ask.name,
      'makes images of a side that halves to one of 4 to 7 pixels, not'
      f' {side}; set `image_size=32`, say',
    )
  if width > GROUP and width % GROUP:
    raise ArgumentError(
      'width',
      width,
      f'`network={ask.name}` has groups of {GROUP} channels; use a multiple of'
      ' it, or less',
    )
  return Design(
    Generator(ask.shape, width, ask.classes, ask.dtype),
    Discriminator(ask.shape, width, ask.classes, ask.dtype),
    latent_dim=LATENT,
    latent='normal',
    conditional=True,
  )


ARCHITECTURE = Architecture(design, samples=((8, 8, 1),), width=True)
