"""What the architectures are built of: layers, initialisers, normalisation."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.networks.base import Label, wide
from gan_jax.networks.conv import conv, conv_transpose
from gan_jax.runtime import sharding

Init = Callable[..., Any]  # (key, shape, dtype) -> array
Features = Float[Array, 'n ... c']


def normal(std: float, mean: float = 0.0) -> Init:
  """N(mean, std), drawn in one dimension and reshaped.

  The bits are those of the shaped draw; drawing many dimensions at once takes
  XLA seconds to compile on CPU.
  """

  def init(
    key: Key[Array, ''], shape: Sequence[int], dtype: Any = jnp.float32
  ) -> Array:
    draw = jax.random.normal(key, (math.prod(shape),), dtype)
    return (mean + std * draw).reshape(shape)

  return init


def uniform(bound: float) -> Init:
  """U(-bound, bound), drawn in one dimension and reshaped."""

  def init(
    key: Key[Array, ''], shape: Sequence[int], dtype: Any = jnp.float32
  ) -> Array:
    size = math.prod(shape)
    draw = jax.random.uniform(key, (size,), dtype, -bound, bound)
    return draw.reshape(shape)

  return init


def leaky_relu(x: Features) -> Features:
  """Leaky ReLU of slope 0.2 below 0 (Radford et al. 2016)."""
  return nn.leaky_relu(x, 0.2)


def maxout(x: Float[Array, 'n wide'], pieces: int) -> Float[Array, 'n units']:
  """The greatest of each unit's pieces: unit j's are j, units + j, ...

  Its slope goes to the first greatest piece; NaN stays NaN. Whole pieces are
  compared, so that the compiler can vectorise over units:
  twelve times as fast on CPU as pieces that lie side by side.

  Reference: Goodfellow et al. 2013, arXiv:1302.4389, section 2.
  """
  greatest, *others = jnp.split(x, pieces, axis=-1)
  for piece in others:
    greatest = jnp.where((piece > greatest) | (piece != piece), piece, greatest)
  return greatest


def halved(size: int) -> int:
  """Side after one convolution of stride 2: half of it, rounded up."""
  return -(-size // 2)


def spectral_normalised(
  layer: nn.Module, w: Float[Array, '... features'], train: bool
) -> Float[Array, '... features']:
  """A kernel divided by the current estimate of its largest singular value.

  One step of power iteration each time the layer is trained, on the kernel as
  a matrix (inputs and taps, outputs). Its vector `u` is a running statistic,
  which moves in D's own update alone.

  Reference: Miyato et al. 2018, arXiv:1802.05957, algorithm 1.
  """
  flat = w.reshape(-1, w.shape[-1])
  fixed = jax.lax.stop_gradient(flat)

  def start() -> Array:
    u = normal(1.0)(layer.make_rng('params'), (w.shape[-1],))
    # A loop: unrolled, the kernels of a D take XLA seconds to compile.
    return jax.lax.fori_loop(
      0, _SPECTRAL_START, lambda _, u: _unit(fixed.T @ _unit(fixed @ u)), u
    )

  u = layer.variable('batch_stats', 'u', start)
  v = _unit(fixed @ u.value)
  if train:
    along = fixed.T @ v
    length = jnp.linalg.norm(along)
    current = along / (length + _TINY)
    value = length * length / (length + _TINY)  # v W current, by its making
    if not layer.is_initializing():
      u.value = current
  else:
    current = _unit(u.value)  # an average of unit vectors is shorter than one
    value = v @ (fixed @ current)
  return w / _bilinear(flat, v, current, value)


_SPECTRAL_START = 10  # steps of power iteration at initialisation
_TINY = 1e-12


def _unit(x: Float[Array, 'c']) -> Float[Array, 'c']:
  return x / (jnp.linalg.norm(x) + _TINY)


@jax.custom_vjp
def _bilinear(
  w: Float[Array, 'i o'],
  left: Float[Array, 'i'],
  right: Float[Array, 'o'],
  value: Float[Array, ''],
) -> Float[Array, '']:
  """`left w right`, known to be `value`; its slope is in `w` alone."""
  del w, left, right
  return value


_bilinear.defvjp(
  lambda w, left, right, value: (value, (left, right)),
  lambda sides, slope: (
    slope * jnp.outer(*sides),
    *map(jnp.zeros_like, sides),
    jnp.zeros_like(slope),
  ),
)


@jax.custom_vjp
def narrow_product(
  x: Float[Array, '*n i'], w: Float[Array, 'i o']
) -> Float[Array, '*n o']:
  """`x @ w` in the precision of `x`, the gradient of a wider `w` in its own."""
  return x @ w.astype(x.dtype)


@jax.custom_vjp
def _outer(
  x: Float[Array, '*n i'], y: Float[Array, '*n o']
) -> Float[Array, 'i o']:
  """The gradient of `narrow_product` in its matrix."""
  rows = tuple(range(x.ndim - 1))

  def of_rows(x: Any, y: Any) -> Any:
    return wide(jax.lax.dot_general(x, y, ((rows, rows), ((), ()))))

  return sharding.sum_rows(of_rows, x, y)


narrow_product.defvjp(
  lambda x, w: (narrow_product(x, w), (x, w)),
  lambda xw, dy: (
    narrow_product(dy, xw[1].T),
    _outer(xw[0], dy).astype(xw[1].dtype),
  ),
)
_outer.defvjp(
  lambda x, y: (_outer(x, y), (x, y)),
  lambda xy, dw: (narrow_product(xy[1], dw.T), narrow_product(xy[0], dw)),
)


class Dense(nn.Module):
  """An affine map of the last axis; its kernel of spectral norm 1 if asked."""

  features: int
  use_bias: bool = True
  kernel_init: Init = normal(0.02)
  spectral: bool = False
  dtype: Any = jnp.float32
  bias_init: Init = nn.initializers.zeros

  @nn.compact
  def __call__(
    self, x: Float[Array, '*n c'], train: bool = False
  ) -> Float[Array, '*n features']:
    """Maps `x`."""
    shape = (x.shape[-1], self.features)
    w = self.param('kernel', self.kernel_init, shape, jnp.float32)
    if self.spectral:
      w = spectral_normalised(self, w, train)
    x = x.astype(self.dtype)
    y = x @ w if x.dtype == w.dtype else narrow_product(x, w)
    return biased(self, y, self.bias_init)


class Conv(nn.Module):
  """Convolution to `1 / stride` of the side, rounded up; 4x4 and 2 at first."""

  features: int
  size: int = 4
  stride: int = 2
  use_bias: bool = True
  kernel_init: Init = normal(0.02)
  spectral: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n h w c'], train: bool = False
  ) -> Float[Array, 'n h2 w2 features']:
    """Convolves the images."""
    shape = (self.size, self.size, x.shape[-1], self.features)
    w = self.param('kernel', self.kernel_init, shape, jnp.float32)
    if self.spectral:
      w = spectral_normalised(self, w, train)
    low = (self.size - 1) // 2
    reach = self.stride * (-(-x.shape[1] // self.stride) - 1) + self.size
    padding = (low, reach - low - x.shape[1])
    y = conv(x.astype(self.dtype), w, self.stride, padding)
    return biased(self, y)


class ConvTranspose(nn.Module):
  """4x4 transposed convolution of stride 2, to a side of `size`."""

  features: int
  size: int
  use_bias: bool = True
  kernel_init: Init = normal(0.02)
  spectral: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, y: Float[Array, 'n h w c'], train: bool = False
  ) -> Float[Array, 'n h2 w2 features']:
    """Doubles the images, less a pixel where the size is odd."""
    shape = (4, 4, self.features, y.shape[-1])
    w = self.param('kernel', self.kernel_init, shape, jnp.float32)
    if self.spectral:  # outputs last, as in every other kernel
      w = spectral_normalised(self, w.swapaxes(2, 3), train).swapaxes(2, 3)
    padding = (1, 2 * (y.shape[1] - 1) + 4 - 1 - self.size)
    size = (self.size, self.size)
    x = conv_transpose(y.astype(self.dtype), w, 2, padding, size)
    return biased(self, x)


def biased(
  layer: Any, x: Features, init: Init = nn.initializers.zeros
) -> Features:
  """Features plus the bias of a compact module that has `use_bias`, if set."""
  if not layer.use_bias:
    return x
  bias = layer.param('bias', init, (layer.features,), jnp.float32)
  return (wide(x) + bias.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


def _affine(
  layer: nn.Module, x: Features, classes: int, scale_init: Init, label: Label
) -> tuple[Array, Array]:
  """Scale and bias of the channels, of each example's class if there are any.

  (c,), or (n, 1, ..., c). They reach x's shape by `jnp.broadcast_to` alone: if
  they were reshaped on the way, XLA would write a pass that is differentiated
  and one that is not in two ways, and compute both (`schedules.simultaneous`).

  Conditional normalisation: Dumoulin et al. 2017, arXiv:1610.07629.
  """
  c = x.shape[-1]
  shape = (classes, c) if classes else (c,)
  scale = layer.param('scale', scale_init, shape, jnp.float32)
  bias = layer.param('bias', nn.initializers.zeros, shape, jnp.float32)
  if not classes:
    return scale, bias
  rows = (x.shape[0], *(1,) * (x.ndim - 2), c)
  return scale[label].reshape(rows), bias[label].reshape(rows)


def sum_both(
  u: Float[Array, '...'], v: Float[Array, '...'], axes: tuple[int, ...]
) -> tuple[Float[Array, '...'], Float[Array, '...']]:
  """The sums of two arrays of one shape over the same axes.

  In one kernel on a GPU, where launches count; elsewhere that is slower. Where
  a batch is split over devices, XLA joins the two all-reduces.
  """
  return _sum_both(u, v, axes, u.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _sum_both(
  u: Any, v: Any, axes: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[Any, Any]:
  def apart(u: Any, v: Any) -> Any:
    return u.sum(axes), v.sum(axes)

  def together(u: Any, v: Any) -> Any:
    zero = jnp.zeros((), u.dtype)
    return tuple(jax.lax.reduce((u, v), (zero, zero), _add_both, axes))

  if sharding.is_splitting():  # what is summed jointly would be gathered
    return apart(u, v)
  first, second = jax.lax.platform_dependent(u, v, cuda=together, default=apart)
  return first, second


def _add_both(a: Any, b: Any) -> Any:
  return a[0] + b[0], a[1] + b[1]


def _both_bwd(
  axes: tuple[int, ...], shape: tuple[int, ...], saved: Any, sums: Any
) -> Any:
  kept = [i for i in range(len(shape)) if i not in axes]
  return tuple(jax.lax.broadcast_in_dim(x, shape, kept) for x in sums)


_sum_both.defvjp(lambda *how: (_sum_both(*how), ()), _both_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def batch_normalise(
  x: Float[Array, 'n ... c'],
  scale: Float[Array, '...'],
  bias: Float[Array, '...'],
  about: Float[Array, 'c'],
  epsilon: float,
) -> tuple[Float[Array, 'n ... c'], Float[Array, 'c'], Float[Array, 'c']]:
  """Features normalised over all axes but the last, their mean and variance.

  The sums of `x - about` and of its squares need one pass, and one all-reduce
  where the batch is split over devices; so do the two sums of the gradient,
  from which all three gradients follow. Both are made of what can be
  differentiated again.

  Args:
    x: features.
    scale: (c,), or (n, 1, ..., c): one for each example.
    bias: likewise.
    about: near the mean, (c,); the nearer, the less of the variance is rounded
      away (a relative `((mean - about) / std)^2` of float32's 6e-8). The result
      depends on it in nothing else.
    epsilon: added to the variance.

  Reference: Chan, Golub & LeVeque 1983, The American Statistician 37(3), the
  shifted one-pass algorithm.
  """
  axes, n = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
  off = wide(x) - jnp.broadcast_to(about, x.shape)
  first, second = (v / n for v in sum_both(off, jnp.square(off), axes))
  mean, var = about + first, jnp.maximum(second - jnp.square(first), 0)
  return _rescale(x, scale, bias, mean, var, epsilon), mean, var


def _rescale(
  x: Any, scale: Any, bias: Any, mean: Any, var: Any, epsilon: float
) -> Any:
  """Features normalised by statistics of their channels, as `x a + c`."""
  a = scale * jnp.broadcast_to(jax.lax.rsqrt(var + epsilon), scale.shape)
  c = bias - jnp.broadcast_to(mean, scale.shape) * a
  a, c = (jnp.broadcast_to(v.astype(x.dtype), x.shape) for v in (a, c))
  return x * a + c


def _batch_fwd(
  x: Any, scale: Any, bias: Any, about: Any, epsilon: float
) -> Any:
  y, mean, var = batch_normalise(x, scale, bias, about, epsilon)
  return (y, mean, var), (x, scale, mean, var)


def _batch_bwd(epsilon: float, saved: Any, cotangents: Any) -> Any:
  """Gradients of features, scale and bias; none of what is summed about."""
  x, scale, mean, var = saved
  dy, dmean, dvar = cotangents
  n, places = x.size // x.shape[-1], tuple(range(1, x.ndim - 1))
  by_example = scale.ndim > 1
  axes, rest = (places, (0, *places)) if by_example else ((0, *places), ())
  dy, y = wide(dy), wide(x)
  off = y - jnp.broadcast_to(mean, x.shape)
  dbias, slope = (v.reshape(scale.shape) for v in sum_both(dy, dy * off, axes))
  # dx = a dy + b x + c, with numbers that each channel has.
  inverse = jax.lax.rsqrt(var + epsilon)
  spread = jnp.broadcast_to(inverse, scale.shape)
  total, along = ((scale * v).sum(rest) for v in (dbias, slope))
  b = (2 * dvar - inverse**3 * along) / n
  c = (dmean - inverse * total) / n - b * mean
  a, b, c = (jnp.broadcast_to(v, x.shape) for v in (scale * spread, b, c))
  dx = a * dy + b * y + c
  return dx.astype(x.dtype), slope * spread, dbias, jnp.zeros_like(mean)


batch_normalise.defvjp(_batch_fwd, _batch_bwd)


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last, applied as `x a + c`.

  Statistics are float32 and of the whole batch, over all devices. The running
  ones move by a tenth an update: a GAN's layers never settle, so a long memory
  would normalise by networks of the past.

  The running variance is the mean of the batches' own, which divide by their
  size n, as in Flax and TensorFlow. The paper's algorithm 2 and PyTorch have
  n / (n - 1) times as much: of a batch of 64 at 4 x 4 places a thousandth more.

  Reference: Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1.
  """

  classes: int = 0
  momentum: float = 0.9
  epsilon: float = 1e-5
  scale_init: Init = nn.initializers.ones

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n ... c'], train: bool, label: Label = None
  ) -> Float[Array, 'n ... c']:
    """Normalises by the batch when training, else by the running statistics."""
    shape = (x.shape[-1],)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    var = self.variable('batch_stats', 'var', jnp.ones, shape)
    scale, bias = _affine(self, x, self.classes, self.scale_init, label)
    if train:
      y, m, v = batch_normalise(x, scale, bias, mean.value, self.epsilon)
      if not self.is_initializing():
        mean.value += (1 - self.momentum) * (m - mean.value)
        var.value += (1 - self.momentum) * (v - var.value)
      return y
    return _rescale(x, scale, bias, mean.value, var.value, self.epsilon)


class GroupNorm(nn.Module):
  """Normalises each example over its places and a group of its channels.

  One group is layer normalisation (Ba et al. 2016, arXiv:1607.06450), a group
  a channel instance normalisation (Ulyanov et al. 2016, arXiv:1607.08022),
  which leaves features without places, (n, c), as they are.

  Attributes:
    groups: at most; as many as divide the channels. 0: one a channel.

  Reference: Wu & He 2018, arXiv:1803.08494.
  """

  groups: int = 32
  classes: int = 0
  epsilon: float = 1e-5

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n ... c'], train: bool, label: Label = None
  ) -> Float[Array, 'n ... c']:
    """Normalises, the same whether training or not."""
    del train
    n, c = x.shape[0], x.shape[-1]
    scale, bias = _affine(self, x, self.classes, nn.initializers.ones, label)
    groups = math.gcd(self.groups, c) if self.groups else c
    y = wide(x)
    if groups < c or x.ndim > 2:
      parts = y.reshape(n, -1, groups, c // groups)

      def spread(v: Float[Array, 'n groups']) -> Array:
        return jax.lax.broadcast_in_dim(v, parts.shape, (0, 2))

      centred = parts - spread(parts.mean((1, 3)))
      v = jnp.square(centred).mean((1, 3))
      y = (centred * spread(jax.lax.rsqrt(v + self.epsilon))).reshape(x.shape)
    scale, bias = (jnp.broadcast_to(v, x.shape) for v in (scale, bias))
    return (y * scale + bias).astype(x.dtype)


def _plain(x: Features, train: bool, label: Label = None) -> Features:
  del train, label
  return x


# Functions of the number of classes that have scales and biases of their own (0
# for none), which return `(x, train, label) -> x`. `spectral` normalises the
# kernels instead.
NORMS: dict[str, Callable[[int], Any]] = {
  'batch': lambda classes: BatchNorm(classes=classes),
  'layer': lambda classes: GroupNorm(1, classes),
  'instance': lambda classes: GroupNorm(0, classes),
  'group': lambda classes: GroupNorm(32, classes),
  'spectral': lambda classes: _plain,
  'none': lambda classes: _plain,
}


def has_scale(norm: str) -> bool:
  """Whether a norm has scales, which a class may set; and so a bias."""
  return norm not in ('spectral', 'none')


def head(
  h: Float[Array, 'n c'],
  label: Label,
  classes: int,
  *,
  train: bool = False,
  spectral: bool = False,
  kernel_init: Init | None = None,
  use_bias: bool = True,
  dtype: Any = jnp.float32,
) -> Float[Array, 'n']:
  """The logits of features; to be called within a compact module.

  With classes the projection discriminator: `w h + <e(label), h>`.

  Reference: Miyato & Koyama 2018, arXiv:1802.05637, equation 3.
  """
  kernel_init = kernel_init or normal(0.02)
  dense = Dense(1, use_bias, kernel_init, spectral, dtype)
  logit = wide(dense(h, train)[:, 0])
  if classes:
    embed = Dense(h.shape[-1], False, kernel_init, spectral, dtype)
    e = embed(jax.nn.one_hot(label, classes), train)
    logit += jnp.sum(wide(e * h), axis=-1)
  return logit
