"""Architectures: what each is, with its paper's numbers, for any samples.

To add one, write its two modules, a builder here that says what it takes, and
an entry in `ARCHITECTURES`; the flag and the conformance tests pick it up.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

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
from gan_jax.networks.layers import has_scale
from gan_jax.runtime.errors import ArgumentError


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
    mean: finds the mean of the data, of `shape`; None where it is not known.
  """

  shape: tuple[int, ...]
  bounded: bool
  width: int = 0
  depth: int = 0
  dtype: Any = jnp.float32
  norm_g: str = ''
  norm_d: str = ''
  classes: int = 0
  mean: Callable[[], Any] | None = None


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
    raise ArgumentError(
      'network',
      'goodfellow2014',
      'makes bounded samples (images); use `network=mlp` for densities',
    )
  _fixed(
    'goodfellow2014',
    width=ask.width,
    depth=ask.depth,
    norm_g=ask.norm_g,
    norm_d=ask.norm_d,
  )
  return Design(
    _goodfellow2014.Generator(ask.shape, dtype=ask.dtype, mean=ask.mean),
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
    raise ArgumentError(
      'network',
      'resnet',
      f'makes images of a side of {sides}, not {side}; set `image_size=...`',
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
    raise ArgumentError(
      'network',
      'r3gan',
      'makes images of a side that halves to one of 4 to 7 pixels, not'
      f' {side}; set `image_size=32`, say',
    )
  if width > _r3gan.GROUP and width % _r3gan.GROUP:
    raise ArgumentError(
      'width',
      width,
      f'`network=r3gan` has groups of {_r3gan.GROUP} channels; use a multiple'
      ' of it, or less',
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
    raise ArgumentError(
      'norm_g', norm_g, '`network=pacgan` takes batch or none'
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
    raise ArgumentError(
      'network',
      'dirac',
      f'makes samples of one dimension, not {ask.shape[0]}; use'
      ' `dataset=delta`, or `network=mlp`',
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
    raise ArgumentError(
      'network',
      network,
      'makes points, not images; use `network=dcgan`, or a density as'
      ' `dataset=...`',
    )


def _square(
  network: str, shape: tuple[int, ...], low: int, high: int, multiple: int = 1
) -> None:
  if len(shape) != 3:
    raise ArgumentError(
      'network',
      network,
      f'makes images, not samples of shape {shape}; use `network=mlp` for'
      ' densities',
    )
  height, width, _ = shape
  if height != width or not low <= height <= high or height % multiple:
    kind = f', a multiple of {multiple}' if multiple > 1 else ''
    raise ArgumentError(
      'network',
      network,
      f'makes square images of a side from {low} to {high}{kind}, not'
      f' {height}x{width}; set `image_size=...`, or use `network=mlp`',
    )


def _fixed(network: str, **values: int | str) -> None:
  for name, value in values.items():
    if value:
      raise ArgumentError(
        name, value, f'the {name} of `network={network}` is fixed; leave it out'
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
