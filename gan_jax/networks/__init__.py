"""Pairs of networks: a generator and a discriminator that share nothing.

Everything else sees `Networks`: an initialiser and an application of each that
are pure functions of pytrees. `build` makes those of an architecture by name
(`designs.ARCHITECTURES`); `from_linen`, `from_nnx`, `from_equinox`,
`from_haiku` and `from_functions` take one's own.
"""

import difflib
import math
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from gan_jax.networks import conditional as _conditional
from gan_jax.networks.adapters import from_equinox as from_equinox
from gan_jax.networks.adapters import from_functions as from_functions
from gan_jax.networks.adapters import from_haiku as from_haiku
from gan_jax.networks.adapters import from_linen as from_linen
from gan_jax.networks.adapters import from_nnx as from_nnx
from gan_jax.networks.architecture import Architecture as Architecture
from gan_jax.networks.architecture import Design as Design
from gan_jax.networks.architecture import Request as Request
from gan_jax.networks.architecture import check_options
from gan_jax.networks.base import Latent
from gan_jax.networks.base import Net as Net
from gan_jax.networks.base import Networks as Networks
from gan_jax.networks.base import Params as Params
from gan_jax.networks.base import Stats as Stats
from gan_jax.networks.checks import check_networks as check_networks
from gan_jax.networks.checks import trust
from gan_jax.networks.designs import ARCHITECTURES as ARCHITECTURES
from gan_jax.networks.layers import NORMS
from gan_jax.runtime.errors import ArgumentError


def _uniform(key: Key[Array, ''], shape: tuple[int, ...]) -> Array:
  return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _uniform_sqrt3(key: Key[Array, ''], shape: tuple[int, ...]) -> Array:
  side = math.sqrt(3)  # unit variance, as in the 2014 code
  return jax.random.uniform(key, shape, minval=-side, maxval=side)


LATENTS: dict[str, Latent] = {
  'normal': jax.random.normal,
  'uniform': _uniform,
  'uniform_sqrt3': _uniform_sqrt3,
}


# How G and D depend on the labels.
CONDITIONINGS: dict[str, str] = {
  'none': 'not at all',
  'projection': 'D projects on an embedding; the scales of G are of the class,'
  ' or without scales an embedding joins its noise',
  'embedding': 'an embedding joins the inputs of both',
}


def build(
  name: str | Architecture,
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
    name: a key of `ARCHITECTURES`, or an architecture itself.
    shape: of one sample: (height, width, channels), or (dim,) of a density.
    bounded: whether samples lie in [-1, 1].
    width: base width, 0 for the architecture's own.
    depth: hidden layers where variable, 0 for the architecture's own.
    latent_dim: dimensions of the noise, 0 for the architecture's own.
    latent: a key of `LATENTS`, empty for the architecture's own.
    norm_g: a key of `NORMS`, empty for the architecture's own.
    norm_d: likewise.
    packing: samples that D sees at once, joined along the last axis.
    conditioning: a key of `CONDITIONINGS`.
    classes: of the labels; unused where conditioning is none.
    dtype: of the computation; parameters, logits and samples are float32.
    mean: returns the mean of the data, of `shape`, for architectures whose G
      starts there (goodfellow2014); None where it is unknown.

  Raises:
    ArgumentError: for what the architecture does not take.
  """
  _check_words(
    latent=(latent, {'', *LATENTS}),
    norm_g=(norm_g, {'', *NORMS}),
    norm_d=(norm_d, {'', *NORMS}),
    conditioning=(conditioning, CONDITIONINGS),
  )
  is_own = not isinstance(name, Architecture)
  if isinstance(name, Architecture):
    architecture, name = name, name.design.__name__
  else:
    _check_words(network=(name, ARCHITECTURES))
    architecture = ARCHITECTURES[name]
  classes = 0 if conditioning == 'none' else classes
  if classes and packing > 1:
    raise ArgumentError(
      'packing',
      packing,
      'the samples of a pack would have labels of their own; use `packing=1`'
      ' or `conditioning=none`',
    )
  if classes and not architecture.labels:
    raise ArgumentError(
      'conditioning',
      conditioning,
      f'`network={name}` takes no labels; use `conditioning=none`, or another'
      ' network',
    )
  projected = classes if conditioning == 'projection' else 0
  ask = Request(
    name, shape, bounded, width, depth, dtype, norm_g, norm_d, projected, mean
  )
  check_options(architecture, ask)
  design = architecture.design(ask)
  generator, discriminator = _conditioned(design, classes, projected)
  networks = from_linen(
    generator,
    discriminator,
    latent_dim=latent_dim or design.latent_dim,
    sample_shape=shape,
    latent=LATENTS[latent or design.latent],
    classes=classes,
    packing=packing,
  )
  return trust(networks, packing) if is_own else networks


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
  """G and D of a design, each with an embedding if not conditional by itself.

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
