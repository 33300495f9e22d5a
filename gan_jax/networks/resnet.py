"""SNGAN's residual networks, for squares of 8, 16, 28, 32, 48, 64 or 128.

Nearest upsampling and the 3x3 convolution after it are one transposed 4x4
convolution of stride 2, a 3x3 convolution and the 2x2 mean after it one 4x4
convolution of stride 2: the kernels' taps are sums of the 3x3's, which stay
the parameters. The 1x1 shortcuts act on the smaller side. For 32 pixels
and width 128, and for the others and width 64, the channels are the papers';
sides of 8, 16 and 28 have those of 32. Up to 32 pixels D's last layer has no
bias.

References: Miyato et al. 2018, arXiv:1802.05957, tables 4 to 6; Miyato & Koyama
2018, arXiv:1802.05637, and its code (`pfnet-research/sngan_projection`) for 64
pixels, the initialisation, that bias, and G's last normalisation, which is not
conditional.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.networks.architecture import (
  Architecture,
  Design,
  Request,
  check_square,
)
from gan_jax.networks.base import Label, wide
from gan_jax.networks.conv import conv, conv_transpose
from gan_jax.networks.layers import (
  NORMS,
  Conv,
  Dense,
  Init,
  biased,
  has_scale,
  head,
  spectral_normalised,
)
from gan_jax.runtime.errors import ArgumentError

Images = Float[Array, 'n _ _ _']


class Plan(NamedTuple):
  """Channels, in widths.

  Attributes:
    start: side of G's first feature map.
    first: its channels.
    up: of G's blocks, each of which doubles the side.
    down: of D's blocks that halve it.
    flat: of D's blocks after them.
  """

  start: int
  first: int
  up: tuple[int, ...]
  down: tuple[int, ...]
  flat: tuple[int, ...]


PLANS: dict[int, Plan] = {
  8: Plan(4, 2, (2,), (1, 1), (1, 1)),
  16: Plan(4, 2, (2, 2), (1, 1), (1, 1)),
  28: Plan(7, 2, (2, 2), (1, 1), (1, 1)),
  32: Plan(4, 2, (2, 2, 2), (1, 1), (1, 1)),
  48: Plan(6, 8, (4, 2, 1), (1, 2, 4, 8), (16,)),
  64: Plan(4, 16, (8, 4, 2, 1), (1, 2, 4, 8, 16), ()),
  128: Plan(4, 16, (16, 8, 4, 2, 1), (1, 2, 4, 8, 16), (16,)),
}


def glorot(gain: float = 1.0) -> Init:
  """U(-b, b), b = gain sqrt(6 / (inputs + outputs)), drawn in one dimension."""

  def init(
    key: Key[Array, ''], shape: Sequence[int], dtype: Any = jnp.float32
  ) -> Array:
    taps = math.prod(shape[:-2])
    bound = gain * math.sqrt(6 / (taps * (shape[-2] + shape[-1])))
    size = math.prod(shape)
    return jax.random.uniform(key, (size,), dtype, -bound, bound).reshape(shape)

  return init


_RESIDUAL, _PLAIN = math.sqrt(2), 1.0


def widened(w: Float[Array, '3 3 i o']) -> Float[Array, '4 4 i o']:
  """A 3x3 kernel plus itself shifted by a pixel, along both axes: 4x4."""
  rows = jnp.pad(w, ((0, 1), (0, 0), (0, 0), (0, 0)))
  rows += jnp.pad(w, ((1, 0), (0, 0), (0, 0), (0, 0)))
  wide = jnp.pad(rows, ((0, 0), (0, 1), (0, 0), (0, 0)))
  return wide + jnp.pad(rows, ((0, 0), (1, 0), (0, 0), (0, 0)))


class _Resampled(nn.Module):
  """Base of the two fused convolutions: a 3x3 kernel and a bias."""

  features: int
  use_bias: bool = True
  spectral: bool = False
  dtype: Any = jnp.float32

  def _kernel(self, x: Images, train: bool) -> Float[Array, '3 3 i o']:
    shape = (3, 3, x.shape[-1], self.features)
    w = self.param('kernel', glorot(_RESIDUAL), shape, jnp.float32)
    return spectral_normalised(self, w, train) if self.spectral else w


class UpConv(_Resampled):
  """Each pixel doubled along both axes, then a 3x3 convolution."""

  @nn.compact
  def __call__(self, x: Images, train: bool = False) -> Images:
    """(n, h, w, c) -> (n, 2h, 2w, features)."""
    w = widened(self._kernel(x, train))[::-1, ::-1].swapaxes(2, 3)
    size = (2 * x.shape[1], 2 * x.shape[2])
    y = conv_transpose(x.astype(self.dtype), w, 2, (1, 1), size)
    return biased(self, y)


class ConvPool(_Resampled):
  """A 3x3 convolution, then the mean of each 2x2 pixels."""

  @nn.compact
  def __call__(self, x: Images, train: bool = False) -> Images:
    """(n, 2h, 2w, c) -> (n, h, w, features)."""
    w = widened(self._kernel(x, train)) / 4
    y = conv(x.astype(self.dtype), w, 2, (1, 1))
    return biased(self, y)


def doubled(x: Images) -> Images:
  """Each pixel doubled along both axes."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def pooled(x: Images) -> Images:
  """The mean of each 2x2 pixels."""
  n, h, w, c = x.shape
  return x.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4))


class Generator(nn.Module):
  """Noise -> a small feature map -> blocks that double it -> an image."""

  shape: tuple[int, ...]
  width: int
  norm: str = 'batch'
  classes: int = 0
  dtype: Any = jnp.float32

  def _of_kind(self, layer: Callable[..., nn.Module]) -> Callable[..., Any]:
    """A layer in this network's precision, of spectral norm 1 if asked."""
    spectral = self.norm == 'spectral'
    return functools.partial(layer, spectral=spectral, dtype=self.dtype)

  def _block(
    self, x: Images, features: int, train: bool, label: Label
  ) -> Images:
    norm = NORMS[self.norm]
    up, conv = self._of_kind(UpConv), self._of_kind(Conv)
    h = nn.relu(norm(self.classes)(x, train, label))
    h = up(features, use_bias=not has_scale(self.norm))(h, train)
    h = nn.relu(norm(self.classes)(h, train, label))
    h = conv(features, 3, 1, kernel_init=glorot(_RESIDUAL))(h, train)
    short = conv(features, 1, 1, kernel_init=glorot(_PLAIN))(x, train)
    return h + doubled(short)

  @nn.compact
  def __call__(
    self, z: Float[Array, 'n latent_dim'], train: bool, label: Label = None
  ) -> Float[Array, 'n height width channels']:
    """Images in [-1, 1]."""
    plan = PLANS[self.shape[0]]
    plain, channels = glorot(_PLAIN), plan.first * self.width
    dense = self._of_kind(Dense)
    h = dense(plan.start**2 * channels, kernel_init=plain)(z, train)
    h = h.reshape(-1, plan.start, plan.start, channels)
    for factor in plan.up:
      h = self._block(h, factor * self.width, train, label)
    h = nn.relu(NORMS[self.norm](0)(h, train, None))
    x = self._of_kind(Conv)(self.shape[2], 3, 1, kernel_init=plain)(h, train)
    return jnp.tanh(wide(x))


class Discriminator(nn.Module):
  """An image -> blocks that halve it -> the sum over places -> a logit."""

  shape: tuple[int, ...]
  width: int
  norm: str = 'spectral'
  classes: int = 0
  dtype: Any = jnp.float32

  def _of_kind(self, layer: Callable[..., nn.Module]) -> Callable[..., Any]:
    """A layer in this network's precision, of spectral norm 1 if asked."""
    spectral = self.norm == 'spectral'
    return functools.partial(layer, spectral=spectral, dtype=self.dtype)

  def _block(self, x: Images, features: int, train: bool, place: int) -> Images:
    """A residual block; `place` 0 is the first, -1 one that keeps the side."""
    norm = NORMS[self.norm]
    conv, pool = self._of_kind(Conv), self._of_kind(ConvPool)
    residual = functools.partial(conv, kernel_init=glorot(_RESIDUAL))
    h, hidden = x, features
    if place:
      h, hidden = nn.relu(norm(0)(h, train, None)), x.shape[-1]
    h = residual(hidden, 3, 1, use_bias=not has_scale(self.norm))(h, train)
    h = nn.relu(norm(0)(h, train, None))
    if place < 0:
      h = residual(features, 3, 1)(h, train)
      if features == x.shape[-1]:
        return h + x
    else:
      h, x = pool(features)(h, train), pooled(x)
    short = conv(features, 1, 1, kernel_init=glorot(_PLAIN))
    return h + short(x, train)

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'n height width channels'],
    train: bool,
    label: Label = None,
  ) -> Float[Array, 'n']:
    """Logits."""
    plan, h = PLANS[self.shape[0]], x
    for place, factor in enumerate(plan.down):
      h = self._block(h, factor * self.width, train, place)
    for factor in plan.flat:
      h = self._block(h, factor * self.width, train, -1)
    h = nn.relu(NORMS[self.norm](0)(h, train, None)).sum((1, 2))
    return head(
      h,
      label,
      self.classes,
      train=train,
      spectral=self.norm == 'spectral',
      kernel_init=glorot(_PLAIN),
      use_bias=self.shape[0] > 32,
      dtype=self.dtype,
    )


def design(ask: Request) -> Design:
  """SNGAN's residual networks; width 128 up to 32 pixels, 64 beyond."""
  check_square(ask, 8, 128)
  side = ask.shape[0]
  if side not in PLANS:
    sides = ', '.join(map(str, PLANS))
    raise ArgumentError(
      'network',
      ask.name,
      f'makes images of a side of {sides}, not {side}; set `image_size=...`',
    )
  width = ask.width or (128 if side <= 32 else 64)
  norm_g, norm_d = ask.norm_g or 'batch', ask.norm_d or 'spectral'
  return Design(
    Generator(ask.shape, width, norm_g, ask.classes, ask.dtype),
    Discriminator(ask.shape, width, norm_d, ask.classes, ask.dtype),
    latent_dim=128,
    latent='normal',
    conditional=has_scale(norm_g),
  )


ARCHITECTURE = Architecture(
  design,
  samples=((8, 8, 1),),
  width=True,
  norms_g=tuple(NORMS),
  norms_d=tuple(NORMS),
)
