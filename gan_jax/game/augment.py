"""Augmentations that gradients pass through, for all that D sees.

DiffAugment lays the same kind of transformation on real and on generated
samples, in both updates, so that D cannot learn a small set by heart and G is
not taught the transformation. Each example has a draw of its own.

Images are (n, height, width, channels) in [-1, 1]. To add an augmentation,
derive a class from `Augmentation` and give it an entry in `AUGMENTATIONS`; the
flag and the tests find it there (the tests are
`gan_jax.testing.check_augmentation`).

Reference: Zhao et al. 2020, arXiv:2006.10738.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.game.component import Component

Images = Float[Array, 'n h w c']


class Augmentation(Component):
  """A random transformation of images; float fields are hyper-parameters."""

  def apply(self, x: Images, key: Key[Array, '']) -> Images:
    """Transforms images in [-1, 1], each by a draw of its own."""
    raise NotImplementedError


def _each(key: Key[Array, ''], x: Array, low: float, high: float) -> Array:
  """U(low, high), one for each example, (n, 1, 1, 1)."""
  draw = jax.random.uniform(key, (x.shape[0],), x.dtype, low, high)
  return draw.reshape(-1, 1, 1, 1)


class Color(Augmentation):
  """Brightness, then saturation, then contrast.

  Adds U(-1/2, 1/2); scales what is apart from each pixel's mean over the
  channels by U(0, 2), then what is apart from the image's mean by U(1/2, 3/2).
  """

  def apply(self, x: Images, key: Key[Array, '']) -> Images:
    """Transforms images in [-1, 1], each by a draw of its own."""
    key_brightness, key_saturation, key_contrast = jax.random.split(key, 3)
    x = x + _each(key_brightness, x, -0.5, 0.5)
    grey = x.mean(axis=3, keepdims=True)
    x = grey + (x - grey) * _each(key_saturation, x, 0.0, 2.0)
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    return mean + (x - mean) * _each(key_contrast, x, 0.5, 1.5)


def _pixels(length: float) -> int:
  """A length in whole pixels, halves up, as in the authors' code.

  Python's `round` takes halves to the even neighbour: 2 of 20 / 8 for 3.
  """
  return int(length + 0.5)


def _shifts(key: Key[Array, ''], n: int, side: int) -> Array:
  """Matrices (n, side, side) that shift by up to an eighth of the side.

  To whole pixels: 4 of 28, 3 of 20.

  A product with one is fast with its gradients, of any order and mode, where a
  gather's would be a scatter. Zeros come in from outside.
  """
  most = _pixels(side / 8)
  by = jax.random.randint(key, (n, 1, 1), -most, most + 1)
  at = jnp.arange(side)
  return (at[None, :, None] - at[None, None, :] == by).astype(jnp.float32)


class Translation(Augmentation):
  """Shifts rows and columns by up to an eighth, zeros outside."""

  def apply(self, x: Images, key: Key[Array, '']) -> Images:
    """Transforms images in [-1, 1], each by a draw of its own."""
    key_rows, key_columns = jax.random.split(key)
    n, h, w, _ = x.shape
    rows = _shifts(key_rows, n, h).astype(x.dtype)
    columns = _shifts(key_columns, n, w).astype(x.dtype)
    return jnp.einsum('nij,nkl,njlc->nikc', rows, columns, x)


class Cutout(Augmentation):
  """A square of half the side, anywhere, partly outside too, becomes 0."""

  def apply(self, x: Images, key: Key[Array, '']) -> Images:
    """Transforms images in [-1, 1], each by a draw of its own."""
    n, h, w, _ = x.shape
    inside = []
    for key_axis, side in zip(jax.random.split(key), (h, w), strict=True):
      size = _pixels(side / 2)
      centre = jax.random.randint(key_axis, (n, 1), 0, side + 1 - size % 2)
      away = jnp.arange(side)[None] - centre + size // 2
      inside.append((away >= 0) & (away < size))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return jnp.where(hole[..., None], jnp.zeros((), x.dtype), x)


class Flip(Augmentation):
  """Left to right, with even odds."""

  def apply(self, x: Images, key: Key[Array, '']) -> Images:
    """Transforms images in [-1, 1], each by a draw of its own."""
    which = jax.random.bernoulli(key, shape=(x.shape[0], 1, 1, 1))
    return jnp.where(which, x[:, :, ::-1], x)


AUGMENTATIONS: dict[str, type[Augmentation]] = {
  'color': Color,
  'translation': Translation,
  'cutout': Cutout,
  'flip': Flip,
}

color = Color
translation = Translation
cutout = Cutout
flip = Flip


def consistency_view(x: Images, key: Key[Array, '']) -> Images:
  """What consistency regularization asks the same of: flipped and shifted.

  Reference: Zhang et al. 2020, arXiv:1910.12027, section 3.1.
  """
  key_flip, key_shift = jax.random.split(key)
  return Translation().apply(Flip().apply(x, key_flip), key_shift)
