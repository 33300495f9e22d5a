"""Pairs of networks: a generator and a discriminator that share nothing.

Linen modules live in this folder only. Everything above sees a `Net`: an
initialiser and an application that are pure functions of pytrees. To add an
architecture, write a builder and give it an entry in `ARCHITECTURES`; the flag
and the conformance tests pick it up.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.networks import conditional as _conditional
from gan_jax.networks import dcgan as _dcgan
from gan_jax.networks import dirac as _dirac
from gan_jax.networks import goodfellow2014 as _goodfellow2014
from gan_jax.networks import infogan as _infogan
from gan_jax.networks import mlp as _mlp
from gan_jax.networks import pacgan as _pacgan
from gan_jax.networks import r3gan as _r3gan
from gan_jax.networks import resnet as _resnet
from gan_jax.networks import sndcgan as _sndcgan
from gan_jax.networks import unrolled as _unrolled
from gan_jax.networks.layers import NORMS, has_scale

Params = Mapping[str, Any]
Stats = Mapping[str, Any]


class NetworkError(ValueError):
  """No such network for these samples; the message names the flag."""

  exit_code = 2


class Net(NamedTuple):
  """One network as two pure functions.

  Attributes:
    init: `key -> (params, stats)`; stats is empty without running statistics.
    apply: `(params, stats, x, *, train, key=None, label=None) -> (output,
      stats)`. With `train` the batch's statistics are used and the running
      ones move, and dropout draws from `key`; without, neither. `label` are
      the classes (n,) int32 of networks that have some.
  """

  init: Callable[[Key[Array, '']], tuple[Params, Stats]]
  apply: Callable[..., tuple[Any, Stats]]


class Networks(NamedTuple):
  """A generator, a discriminator, and the noise that the former starts from.

  Attributes:
    generator: (n, latent_dim) -> (n, *shape), float32.
    discriminator: (n, *shape) -> (n,) logits, float32; with packing, of
      samples packed along their last axis.
    latent_dim: dimensions of the noise.
    latent: its distribution, a key of `LATENTS`.
    sample_latent: `(key, n) -> (n, latent_dim)`, float32.
    packing: samples that D judges together.
    classes: classes that both are conditioned on, 0 for none.
  """

  generator: Net
  discriminator: Net
  latent_dim: int
  latent: str
  sample_latent: Callable[[Key[Array, ''], int], Float[Array, 'n latent_dim']]
  packing: int = 1
  classes: int = 0


class Design(NamedTuple):
  """What a builder returns: linen modules, and the noise they are meant for.

  Attributes:
    generator: called as `(z, train, label)`.
    discriminator: called as `(x, train, label)`.
    latent_dim: dimensions of the noise.
    latent: its distribution, a key of `LATENTS`.
    conditional: whether G itself heeds the labels, when classes are asked for.
    labels: whether the two can be conditioned on labels at all.
  """

  generator: nn.Module
  discriminator: nn.Module
  latent_dim: int
  latent: str
  conditional: bool = False
  labels: bool = True


class Request(NamedTuple):
  """What a builder is asked for; 0 or '' is the architecture's own choice.

  Attributes:
    shape: of one sample that G makes.
    bounded: whether samples lie in [-1, 1].
    width: base width.
    depth: hidden layers.
    dtype: of the computation.
    norm_g: a key of `NORMS`.
    norm_d: a key of `NORMS`.
    classes: of the labels that D projects on and G normalises by; 0 for none.
  """

  shape: tuple[int, ...]
  bounded: bool
  width: int = 0
  depth: int = 0
  dtype: Any = jnp.float32
  norm_g: str = ''
  norm_d: str = ''
  classes: int = 0


def mlp(ask: Request) -> Design:
  """Fully connected, for any samples; two hidden layers of 128."""
  width, depth = ask.width or 128, ask.depth or 2
  return Design(
    _mlp.Generator(
      ask.shape,
      ask.bounded,
      width,
      depth,
      ask.norm_g or 'none',
      ask.classes,
      ask.dtype,
    ),
    _mlp.Discriminator(
      width, depth, ask.norm_d or 'none', ask.classes, ask.dtype
    ),
    latent_dim=8 if len(ask.shape) == 1 else 64,
    latent='normal',
    conditional=has_scale(ask.norm_g or 'none'),
  )


def goodfellow2014(ask: Request) -> Design:
  """The MNIST networks of the 2014 paper, for bounded samples."""
  if not ask.bounded:
    raise NetworkError(
      '--network=goodfellow2014: makes bounded samples (images); use'
      ' --network=mlp for densities'
    )
  _fixed(
    'goodfellow2014',
    width=ask.width,
    depth=ask.depth,
    norm_g=ask.norm_g,
    norm_d=ask.norm_d,
  )
  return Design(
    _goodfellow2014.Generator(ask.shape, dtype=ask.dtype),
    _goodfellow2014.Discriminator(classes=ask.classes, dtype=ask.dtype),
    latent_dim=100,
    latent='uniform_sqrt3',
  )


def dcgan(ask: Request) -> Design:
  """DCGAN, for square images of a side from 8 to 128; width 64."""
  _square('dcgan', ask.shape, 8, 128)
  _fixed('dcgan', depth=ask.depth)
  base = ask.width or 64
  norm_g, norm_d = ask.norm_g or 'batch', ask.norm_d or 'batch'
  return Design(
    _dcgan.Generator(ask.shape, base, norm_g, ask.classes, ask.dtype),
    _dcgan.Discriminator(ask.shape, base, norm_d, ask.classes, ask.dtype),
    latent_dim=100,
    latent='uniform',
    conditional=has_scale(norm_g),
  )


def infogan(ask: Request) -> Design:
  """InfoGAN as in Lucic et al., for square images of a side in fours; 64."""
  _square('infogan', ask.shape, 8, 128, multiple=4)
  _fixed('infogan', depth=ask.depth)
  base = ask.width or 64
  norm_g, norm_d = ask.norm_g or 'batch', ask.norm_d or 'batch'
  return Design(
    _infogan.Generator(ask.shape, base, norm_g, ask.classes, ask.dtype),
    _infogan.Discriminator(base, norm_d, ask.classes, ask.dtype),
    latent_dim=64,
    latent='uniform',
    conditional=has_scale(norm_g),
  )


def sndcgan(ask: Request) -> Design:
  """SN-DCGAN, for square images of a side from 16 to 128; width 64."""
  _square('sndcgan', ask.shape, 16, 128)
  _fixed('sndcgan', depth=ask.depth)
  base = ask.width or 64
  norm_g, norm_d = ask.norm_g or 'batch', ask.norm_d or 'spectral'
  return Design(
    _sndcgan.Generator(ask.shape, base, norm_g, ask.classes, ask.dtype),
    _sndcgan.Discriminator(base, norm_d, ask.classes, ask.dtype),
    latent_dim=128,
    latent='normal',
    conditional=has_scale(norm_g),
  )


def resnet(ask: Request) -> Design:
  """SNGAN's residual networks; width 128 up to 32 pixels, 64 beyond."""
  _square('resnet', ask.shape, 8, 128)
  _fixed('resnet', depth=ask.depth)
  side = ask.shape[0]
  if side not in _resnet.PLANS:
    sides = ', '.join(map(str, _resnet.PLANS))
    raise NetworkError(
      f'--network=resnet: makes images of a side of {sides}, not {side}; set'
      ' --image_size'
    )
  width = ask.width or (128 if side <= 32 else 64)
  norm_g, norm_d = ask.norm_g or 'batch', ask.norm_d or 'spectral'
  return Design(
    _resnet.Generator(ask.shape, width, norm_g, ask.classes, ask.dtype),
    _resnet.Discriminator(ask.shape, width, norm_d, ask.classes, ask.dtype),
    latent_dim=128,
    latent='normal',
    conditional=has_scale(norm_g),
  )


def r3gan(ask: Request) -> Design:
  """R3GAN's networks; width 768 (its CIFAR-10's, slow without a GPU)."""
  _square('r3gan', ask.shape, 8, 128)
  _fixed('r3gan', depth=ask.depth, norm_g=ask.norm_g, norm_d=ask.norm_d)
  side, width = ask.shape[0], ask.width or 768
  first = _r3gan.stages(side)[0]
  if (
    first not in (4, 5, 6, 7)
    or side % first
    or side // first & (side // first - 1)
  ):
    raise NetworkError(
      f'--network=r3gan: makes images of a side that halves to one of 4 to 7'
      f' pixels, not {side}; set --image_size, to 32 say'
    )
  if width > _r3gan.GROUP and width % _r3gan.GROUP:
    raise NetworkError(
      f'--width={width}: --network=r3gan has groups of {_r3gan.GROUP}'
      ' channels; use a multiple of it, or less'
    )
  return Design(
    _r3gan.Generator(ask.shape, width, ask.classes, ask.dtype),
    _r3gan.Discriminator(ask.shape, width, ask.classes, ask.dtype),
    latent_dim=_r3gan.LATENT,
    latent='normal',
    conditional=True,
  )


def pacgan(ask: Request) -> Design:
  """PacGAN's networks for points: width 200 in D, twice that in G."""
  _points('pacgan', ask.shape)
  _fixed('pacgan', depth=ask.depth, norm_d=ask.norm_d)
  width, norm_g = ask.width or 200, ask.norm_g or 'batch'
  if norm_g not in ('batch', 'none'):
    raise NetworkError(
      f'--norm_g={norm_g}: --network=pacgan takes batch or none'
    )
  return Design(
    _pacgan.Generator(ask.shape, 2 * width, norm_g, ask.classes, ask.dtype),
    _pacgan.Discriminator(width, ask.classes, ask.dtype),
    latent_dim=2,
    latent='normal',
    conditional=has_scale(norm_g),
  )


def unrolled(ask: Request) -> Design:
  """The networks of unrolled GANs for points; width 128."""
  _points('unrolled', ask.shape)
  _fixed('unrolled', depth=ask.depth, norm_g=ask.norm_g, norm_d=ask.norm_d)
  width = ask.width or 128
  return Design(
    _unrolled.Generator(ask.shape, width, ask.dtype),
    _unrolled.Discriminator(width, ask.classes, ask.dtype),
    latent_dim=256,
    latent='normal',
  )


def dirac(ask: Request) -> Design:
  """Dirac-GAN: one parameter each, for densities of one dimension."""
  _points('dirac', ask.shape)
  if ask.shape != (1,):
    raise NetworkError(
      f'--network=dirac: makes samples of one dimension, not {ask.shape[0]};'
      ' use --dataset=delta, or --network=mlp'
    )
  _fixed(
    'dirac',
    width=ask.width,
    depth=ask.depth,
    norm_g=ask.norm_g,
    norm_d=ask.norm_d,
  )
  return Design(
    _dirac.Generator(ask.dtype),
    _dirac.Discriminator(ask.dtype),
    latent_dim=1,
    latent='normal',
    labels=False,
  )


def _points(network: str, shape: tuple[int, ...]) -> None:
  if len(shape) != 1:
    raise NetworkError(
      f'--network={network}: makes points, not images; use --network=dcgan, or'
      ' a density as --dataset'
    )


def _square(
  network: str, shape: tuple[int, ...], low: int, high: int, multiple: int = 1
) -> None:
  if len(shape) != 3:
    raise NetworkError(
      f'--network={network}: makes images, not samples of shape {shape}; use'
      ' --network=mlp for densities'
    )
  height, width, _ = shape
  if height != width or not low <= height <= high or height % multiple:
    kind = f', a multiple of {multiple}' if multiple > 1 else ''
    raise NetworkError(
      f'--network={network}: makes square images of a side from {low} to'
      f' {high}{kind}, not {height}x{width}; set --image_size, or use'
      ' --network=mlp'
    )


def _fixed(network: str, **values: int | str) -> None:
  for name, value in values.items():
    if value:
      raise NetworkError(
        f'--{name}={value}: the {name} of --network={network} is fixed; leave'
        ' the flag out'
      )


ARCHITECTURES: dict[str, Callable[[Request], Design]] = {
  'mlp': mlp,
  'goodfellow2014': goodfellow2014,
  'dcgan': dcgan,
  'infogan': infogan,
  'sndcgan': sndcgan,
  'resnet': resnet,
  'r3gan': r3gan,
  'pacgan': pacgan,
  'unrolled': unrolled,
  'dirac': dirac,
}


def _normal(key: Any, shape: tuple[int, ...]) -> Any:
  return jax.random.normal(key, shape)


def _uniform(key: Any, shape: tuple[int, ...]) -> Any:
  return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _uniform_sqrt3(key: Any, shape: tuple[int, ...]) -> Any:
  side = math.sqrt(3)  # unit variance, as in the 2014 code
  return jax.random.uniform(key, shape, minval=-side, maxval=side)


LATENTS: dict[str, Callable[[Any, tuple[int, ...]], Any]] = {
  'normal': _normal,
  'uniform': _uniform,
  'uniform_sqrt3': _uniform_sqrt3,
}


def pure(module: nn.Module, shape: tuple[int, ...], classes: int = 0) -> Net:
  """A linen module, called as `module(x, train, label)`, as pure functions.

  Args:
    module: with collections `params` and, at most, `batch_stats`.
    shape: of one input, without the batch.
    classes: of the labels that it is given; 0 for none.
  """

  def init(key: Any) -> tuple[Params, Stats]:
    x = jnp.zeros((2, *shape))
    label = jnp.zeros(2, jnp.int32) if classes else None
    variables = module.init({'params': key}, x, False, label)
    return variables['params'], variables.get('batch_stats', {})

  def apply(
    params: Params,
    stats: Stats,
    x: Any,
    *,
    train: bool,
    key: Any = None,
    label: Any = None,
  ) -> tuple[Any, Stats]:
    variables = {'params': params}
    if stats:
      variables['batch_stats'] = stats
    rngs = None if key is None or not train else {'dropout': key}
    if not train or not stats:
      return module.apply(variables, x, train, label, rngs=rngs), stats
    y, moved = module.apply(
      variables, x, train, label, rngs=rngs, mutable=['batch_stats']
    )
    return y, moved['batch_stats']

  return Net(init, apply)


# How G and D are told the class. Each takes a request, and whether each of the
# two heeds labels by itself then follows from the design.
CONDITIONINGS: dict[str, str] = {
  'none': 'not at all',
  'projection': 'D projects on an embedding, G normalises by the class',
  'embedding': 'an embedding joins the inputs of both',
}


def packed_shape(shape: tuple[int, ...], packing: int) -> tuple[int, ...]:
  """Shape of `packing` samples joined along their last axis.

  Reference: Lin et al. 2018 (PacGAN), arXiv:1712.04086, section 3.
  """
  return (*shape[:-1], shape[-1] * packing)


def build(
  name: str,
  shape: tuple[int, ...],
  *,
  bounded: bool,
  width: int = 0,
  depth: int = 0,
  latent_dim: int = 0,
  latent: str = '',
  norm_g: str = '',
  norm_d: str = '',
  packing: int = 1,
  conditioning: str = 'none',
  classes: int = 0,
  dtype: Any = jnp.float32,
) -> Networks:
  """G and D of an architecture for samples of a shape.

  Args:
    name: a key of `ARCHITECTURES`.
    shape: of one sample: (height, width, channels), or (dim,) of a density.
    bounded: whether samples lie in [-1, 1].
    width: base width, 0 for the architecture's own.
    depth: hidden layers where variable, 0 for the architecture's own.
    latent_dim: dimensions of the noise, 0 for the architecture's own.
    latent: a key of `LATENTS`, empty for the architecture's own.
    norm_g: a key of `NORMS`, empty for the architecture's own.
    norm_d: likewise.
    packing: samples that D judges together.
    conditioning: a key of `CONDITIONINGS`.
    classes: of the labels; read unless conditioning is none.
    dtype: of the computation; parameters, logits and samples are float32.

  Raises:
    NetworkError: naming the flag, the value and the remedy.
  """
  for flag, word, words in (
    ('network', name, ARCHITECTURES),
    ('latent', latent, {'', *LATENTS}),
    ('norm_g', norm_g, {'', *NORMS}),
    ('norm_d', norm_d, {'', *NORMS}),
    ('conditioning', conditioning, CONDITIONINGS),
  ):
    if word not in words:
      close = difflib.get_close_matches(word, words, n=2) or sorted(words)
      raise NetworkError(f'--{flag}={word}: use {" or ".join(close)}')
  classes = 0 if conditioning == 'none' else classes
  if classes and packing > 1:
    raise NetworkError(
      f'--packing={packing}: the samples of a pack would have labels of their'
      ' own; use --packing=1 or --conditioning=none'
    )
  projected = classes if conditioning == 'projection' else 0
  design = ARCHITECTURES[name](
    Request(
      shape, bounded, width, depth, dtype, norm_g, norm_d, classes=projected
    )
  )
  if classes and not design.labels:
    raise NetworkError(
      f'--conditioning={conditioning}: --network={name} heeds no labels; use'
      ' --conditioning=none, or another network'
    )
  dim = latent_dim or design.latent_dim
  latent = latent or design.latent
  draw = LATENTS[latent]
  generator, discriminator = design.generator, design.discriminator
  if classes and not (projected and design.conditional):
    generator = _conditional.Generator(generator, classes)
  if classes and not projected:
    discriminator = _conditional.Discriminator(discriminator, classes)
  return Networks(
    pure(generator, (dim,), classes),
    pure(discriminator, packed_shape(shape, packing), classes),
    dim,
    latent,
    lambda key, n: draw(key, (n, dim)),
    packing,
    classes,
  )
