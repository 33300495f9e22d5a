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

from gan_jax.networks import dcgan as _dcgan
from gan_jax.networks import goodfellow2014 as _goodfellow2014
from gan_jax.networks import mlp as _mlp

Params = Mapping[str, Any]
Stats = Mapping[str, Any]


class NetworkError(ValueError):
  """No such network for these samples; the message names the flag."""

  exit_code = 2


class Net(NamedTuple):
  """One network as two pure functions.

  Attributes:
    init: `key -> (params, stats)`; stats is empty without running statistics.
    apply: `(params, stats, x, *, train, key=None) -> (output, stats)`. With
      `train` the batch's statistics are used and the running ones move, and
      dropout draws from `key`; without, neither.
  """

  init: Callable[[Key[Array, '']], tuple[Params, Stats]]
  apply: Callable[..., tuple[Any, Stats]]


class Networks(NamedTuple):
  """A generator, a discriminator, and the noise that the former starts from.

  Attributes:
    generator: (n, latent_dim) -> (n, *shape), float32.
    discriminator: (n, *shape) -> (n,) logits, float32.
    latent_dim: dimensions of the noise.
    latent: its distribution, a key of `LATENTS`.
    sample_latent: `(key, n) -> (n, latent_dim)`, float32.
  """

  generator: Net
  discriminator: Net
  latent_dim: int
  latent: str
  sample_latent: Callable[[Key[Array, ''], int], Float[Array, 'n latent_dim']]


class Design(NamedTuple):
  """What a builder returns: linen modules, and the noise they are meant for."""

  generator: nn.Module
  discriminator: nn.Module
  latent_dim: int
  latent: str


class Request(NamedTuple):
  """What a builder is asked for; 0 is the architecture's own choice."""

  shape: tuple[int, ...]
  bounded: bool
  width: int
  depth: int
  dtype: Any


def mlp(ask: Request) -> Design:
  """Fully connected, for any samples; two hidden layers of 128."""
  width, depth = ask.width or 128, ask.depth or 2
  return Design(
    _mlp.Generator(ask.shape, ask.bounded, width, depth, ask.dtype),
    _mlp.Discriminator(width, depth, ask.dtype),
    latent_dim=8 if len(ask.shape) == 1 else 64,
    latent='normal',
  )


def goodfellow2014(ask: Request) -> Design:
  """The MNIST networks of the 2014 paper, for bounded samples."""
  if not ask.bounded:
    raise NetworkError(
      '--network=goodfellow2014: makes bounded samples (images); use'
      ' --network=mlp for densities'
    )
  _fixed('goodfellow2014', width=ask.width, depth=ask.depth)
  return Design(
    _goodfellow2014.Generator(ask.shape, dtype=ask.dtype),
    _goodfellow2014.Discriminator(dtype=ask.dtype),
    latent_dim=100,
    latent='uniform_sqrt3',
  )


def dcgan(ask: Request) -> Design:
  """DCGAN, for square images of a side from 8 to 128; width 64."""
  if len(ask.shape) != 3:
    raise NetworkError(
      f'--network=dcgan: makes images, not samples of shape {ask.shape}; use'
      ' --network=mlp for densities'
    )
  height, width, _ = ask.shape
  if height != width or not 8 <= height <= 128:
    raise NetworkError(
      f'--network=dcgan: makes square images of a side from 8 to 128, not'
      f' {height}x{width}; set --image_size, or use --network=mlp'
    )
  _fixed('dcgan', depth=ask.depth)
  base = ask.width or 64
  return Design(
    _dcgan.Generator(ask.shape, base, ask.dtype),
    _dcgan.Discriminator(ask.shape, base, ask.dtype),
    latent_dim=100,
    latent='uniform',
  )


def _fixed(network: str, **numbers: int) -> None:
  for name, number in numbers.items():
    if number:
      raise NetworkError(
        f'--{name}={number}: the {name} of --network={network} is fixed; leave'
        ' the flag out'
      )


ARCHITECTURES: dict[str, Callable[[Request], Design]] = {
  'mlp': mlp,
  'goodfellow2014': goodfellow2014,
  'dcgan': dcgan,
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


def pure(module: nn.Module, shape: tuple[int, ...]) -> Net:
  """A linen module, called as `module(x, train)`, as pure functions.

  Args:
    module: with collections `params` and, at most, `batch_stats`.
    shape: of one input, without the batch.
  """

  def init(key: Any) -> tuple[Params, Stats]:
    x = jnp.zeros((2, *shape))
    variables = module.init({'params': key}, x, train=False)
    return variables['params'], variables.get('batch_stats', {})

  def apply(
    params: Params, stats: Stats, x: Any, *, train: bool, key: Any = None
  ) -> tuple[Any, Stats]:
    variables = {'params': params}
    if stats:
      variables['batch_stats'] = stats
    rngs = None if key is None or not train else {'dropout': key}
    if not train or not stats:
      return module.apply(variables, x, train=train, rngs=rngs), stats
    y, moved = module.apply(
      variables, x, train=train, rngs=rngs, mutable=['batch_stats']
    )
    return y, moved['batch_stats']

  return Net(init, apply)


def build(
  name: str,
  shape: tuple[int, ...],
  *,
  bounded: bool,
  width: int = 0,
  depth: int = 0,
  latent_dim: int = 0,
  latent: str = '',
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
    dtype: of the computation; parameters, logits and samples are float32.

  Raises:
    NetworkError: naming the flag, the value and the remedy.
  """
  for flag, word, words in (
    ('network', name, ARCHITECTURES),
    ('latent', latent, {'', *LATENTS}),
  ):
    if word not in words:
      close = difflib.get_close_matches(word, words, n=2) or sorted(words)
      raise NetworkError(f'--{flag}={word}: use {" or ".join(close)}')
  design = ARCHITECTURES[name](Request(shape, bounded, width, depth, dtype))
  dim = latent_dim or design.latent_dim
  latent = latent or design.latent
  draw = LATENTS[latent]
  return Networks(
    pure(design.generator, (dim,)),
    pure(design.discriminator, shape),
    dim,
    latent,
    lambda key, n: draw(key, (n, dim)),
  )
