"""Pairs of networks: a generator and a discriminator that share nothing.

Linen modules live in this folder only. Everything above sees a `Net`: an
initialiser and an application that are pure functions of pytrees. Which there
are is said in `designs.py`.
"""

import difflib
import math
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax.networks import conditional as _conditional
from gan_jax.networks.base import Net as Net
from gan_jax.networks.base import Networks as Networks
from gan_jax.networks.base import Params as Params
from gan_jax.networks.base import Stats as Stats
from gan_jax.networks.designs import ARCHITECTURES as ARCHITECTURES
from gan_jax.networks.designs import Design, Request
from gan_jax.networks.layers import NORMS
from gan_jax.runtime.errors import ArgumentError


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
  'projection': 'D projects on an embedding; the scales of G are of the class,'
  ' or without scales an embedding joins its noise',
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
  mean: Callable[[], Any] | None = None,
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
    mean: finds the mean of the data, of `shape`, for architectures whose G
      starts there (goodfellow2014); None where it is not known.

  Raises:
    ArgumentError: for what the architecture does not take.
  """
  _check_words(
    network=(name, ARCHITECTURES),
    latent=(latent, {'', *LATENTS}),
    norm_g=(norm_g, {'', *NORMS}),
    norm_d=(norm_d, {'', *NORMS}),
    conditioning=(conditioning, CONDITIONINGS),
  )
  classes = 0 if conditioning == 'none' else classes
  if classes and packing > 1:
    raise ArgumentError(
      'packing',
      packing,
      'the samples of a pack would have labels of their own; use `packing=1`'
      ' or `conditioning=none`',
    )
  projected = classes if conditioning == 'projection' else 0
  design = ARCHITECTURES[name](
    Request(
      shape, bounded, width, depth, dtype, norm_g, norm_d, projected, mean
    )
  )
  if classes and not design.labels:
    raise ArgumentError(
      'conditioning',
      conditioning,
      f'`network={name}` takes no labels; use `conditioning=none`, or another'
      ' network',
    )
  generator, discriminator = _conditioned(design, classes, projected)
  dim = latent_dim or design.latent_dim
  return Networks(
    pure(generator, (dim,), classes),
    pure(discriminator, packed_shape(shape, packing), classes),
    latent_dim=dim,
    sample_shape=shape,
    latent=LATENTS[latent or design.latent],
    classes=classes,
  )


def _check_words(**arguments: tuple[str, Collection[str]]) -> None:
  """Raises on words that are none of those that their arguments take.

  Raises:
    ArgumentError: with the closest ones.
  """
  for argument, (word, words) in arguments.items():
    if word not in words:
      close = difflib.get_close_matches(word, words, n=2) or sorted(words)
      raise ArgumentError(argument, word, f'use {" or ".join(close)}')


def _conditioned(
  design: Design, classes: int, projected: int
) -> tuple[nn.Module, nn.Module]:
  """G and D of a design, made to heed labels where they do not by themselves.

  Args:
    design: of the pair.
    classes: of the labels, 0 for none.
    projected: the same where D projects on an embedding of them, else 0.
  """
  generator, discriminator = design.generator, design.discriminator
  if classes and not (projected and design.conditional):
    generator = _conditional.Generator(generator, classes)
  if classes and not projected:
    discriminator = _conditional.Discriminator(discriminator, classes)
  return generator, discriminator
