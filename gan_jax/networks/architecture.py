"""What an architecture is: how its pair is built, and what it takes.

To add one, write a file with its two modules, a function from a `Request` to a
`Design`, and an `Architecture` that declares what it takes; name it in
`designs.ARCHITECTURES`, or as a plug-in. The option and the conformance tests
find it there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from gan_jax.runtime.errors import ArgumentError


class Design(NamedTuple):
  """A pair that was built, and the noise that it is meant for.

  Attributes:
    generator: called as `(z, train, label)`.
    discriminator: called as `(x, train, label)`.
    latent_dim: dimensions of the noise.
    latent: distribution of the noise, a key of `LATENTS`.
    conditional: whether G itself depends on the labels, when there are classes;
      otherwise an embedding of them joins its noise.
  """

  generator: nn.Module
  discriminator: nn.Module
  latent_dim: int
  latent: str
  conditional: bool = False


class Request(NamedTuple):
  """What is to be built; 0 or '' stands for the architecture's own choice.

  Attributes:
    name: of the architecture, for messages.
    shape: of one sample.
    bounded: whether samples lie in [-1, 1].
    width: base width.
    depth: hidden layers.
    dtype: of the computation.
    norm_g: a key of `NORMS`.
    norm_d: a key of `NORMS`.
    classes: of the labels that D projects on and G normalises by; 0 for none.
    mean: returns the mean of the data, of `shape`; None where it is unknown.
  """

  name: str
  shape: tuple[int, ...]
  bounded: bool
  width: int = 0
  depth: int = 0
  dtype: Any = jnp.float32
  norm_g: str = ''
  norm_d: str = ''
  classes: int = 0
  mean: Callable[[], Any] | None = None


class Architecture(NamedTuple):
  """A family of networks.

  An option that is not declared here is refused, one that is has to have an
  effect: the conformance tests compare networks that differ in it.

  Attributes:
    design: builds the pair; raises an `ArgumentError` for samples that it does
      not make.
    samples: shapes that the conformance tests build it for, the cheapest first:
      (height, width, channels) of images in [-1, 1], or (dim,) of points.
    width: whether its base width can be set.
    depth: whether its number of hidden layers can be set.
    norms_g: norms that G can have, keys of `NORMS`; none: its norm is fixed.
    norms_d: likewise of D.
    labels: whether the pair can be conditioned on labels.
  """

  design: Callable[[Request], Design]
  samples: tuple[tuple[int, ...], ...] = ()
  width: bool = False
  depth: bool = False
  norms_g: tuple[str, ...] = ()
  norms_d: tuple[str, ...] = ()
  labels: bool = True


def check_options(architecture: Architecture, ask: Request) -> None:
  """Raises on an option that the architecture does not take.

  Raises:
    ArgumentError: that names it.
  """
  for option in ('width', 'depth'):
    value = getattr(ask, option)
    if value and not getattr(architecture, option):
      raise ArgumentError(option, value, _fixed(option, ask))
  for option, norms in (
    ('norm_g', architecture.norms_g),
    ('norm_d', architecture.norms_d),
  ):
    value = getattr(ask, option)
    if value and value not in norms:
      takes = f'`network={ask.name}` takes {" or ".join(norms)}'
      raise ArgumentError(
        option, value, takes if norms else _fixed(option, ask)
      )


def _fixed(option: str, ask: Request) -> str:
  return f'the {option} of `network={ask.name}` is fixed; leave it out'


def check_points(ask: Request) -> None:
  """Raises on samples that are no points.

  Raises:
    ArgumentError: with the remedy.
  """
  if len(ask.shape) != 1:
    raise ArgumentError(
      'network',
      ask.name,
      'makes points, not images; use `network=dcgan`, or a density as'
      ' `dataset=...`',
    )


def check_square(ask: Request, low: int, high: int, multiple: int = 1) -> None:
  """Raises on samples that are no square images of a side in a range.

  Raises:
    ArgumentError: with the remedy.
  """
  if len(ask.shape) != 3:
    raise ArgumentError(
      'network',
      ask.name,
      f'makes images, not samples of shape {ask.shape}; use `network=mlp` for'
      ' densities',
    )
  height, width, _ = ask.shape
  if height != width or not low <= height <= high or height % multiple:
    kind = f', a multiple of {multiple}' if multiple > 1 else ''
    raise ArgumentError(
      'network',
      ask.name,
      f'makes square images of a side from {low} to {high}{kind}, not'
      f' {height}x{width}; set `image_size=...`, or use `network=mlp`',
    )
