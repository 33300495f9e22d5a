"""Features that need no training: the pixels, and fixed random networks."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num
from numpy.typing import NDArray

from gan_jax.features.base import Features, Spec, Weights, make_features
from gan_jax.networks.conv import conv
from gan_jax.runtime.errors import ArgumentError

_WIDTHS = (32, 64)
_DIM = 128


def _flatten(x: Num[Array, 'n ...']) -> Float[Array, 'n dim']:
  """Images in [0, 1], or points as they are, as rows."""
  scale = 255.0 if x.dtype == jnp.uint8 else 1.0
  return (x.astype(jnp.float32) / scale).reshape(x.shape[0], -1)


def _pixels(
  weights: Weights, x: Num[Array, 'n ...'], outputs: Sequence[str]
) -> dict[str, Array]:
  del weights
  return {name: _flatten(x) for name in outputs}


def make_raw(sample_shape: tuple[int, ...]) -> Features:
  """Samples as they are, in a row: what metrics see of points."""
  dim = math.prod(sample_shape)
  return make_features('points', dim, _pixels, {}, {}, sample_shape)


def make_pixels(spec: Spec) -> Features:
  """The pixels in [0, 1] in a row; points as they are."""
  _check_no_weights(spec)
  if spec.options:
    raise ArgumentError('features', spec.text, 'has no options; use pixels')
  shape = spec.sample_shape
  protocol = {'shape': list(shape)}
  return make_features('pixels', math.prod(shape), _pixels, {}, protocol, shape)


def _random(
  weights: Weights, x: Num[Array, 'n ...'], outputs: Sequence[str]
) -> dict[str, Array]:
  if x.ndim == 4:
    x = x.astype(jnp.float32) / 127.5 - 1
    for i in range(len(_WIDTHS)):
      x = jax.nn.relu(conv(x, weights[f'conv_{i}'], 2, (1, 2)))
  x = _flatten(x) @ weights['dense'] + weights['bias'][None]
  return {name: jax.nn.relu(x) for name in outputs}


def make_random(spec: Spec) -> Features:
  """A network with fixed random weights: `random-DIM`, 128 by default.

  Of images: two 4x4 convolutions of stride 2 and a dense layer, rectified. Of
  points: one dense layer, rectified. They tell distributions apart without
  having learnt anything; scores are comparable at one dimension and shape.

  Raises:
    ArgumentError: if the dimension is no positive number.
  """
  _check_no_weights(spec)
  dim, shape = _dimension(spec), spec.sample_shape
  protocol = {'draw': 'numpy PCG64, seed 0, normal', 'shape': list(shape)}
  weights = draw_weights(shape, dim)
  return make_features(f'random-{dim}', dim, _random, weights, protocol, shape)


def _dimension(spec: Spec) -> int:
  words = spec.options or (str(_DIM),)
  if len(words) > 1 or not words[0].isdecimal() or int(words[0]) < 1:
    remedy = 'write random-DIM with one positive number'
    raise ArgumentError('features', spec.text, remedy)
  return int(words[0])


def draw_weights(
  shape: tuple[int, ...], dim: int
) -> dict[str, NDArray[np.float32]]:
  """Weights that keep the variance through rectification (He et al. 2015)."""
  rng = np.random.Generator(np.random.PCG64(0))

  def normal(*size: int) -> NDArray[np.float32]:
    std = math.sqrt(2 / math.prod(size[:-1]))
    return (std * rng.standard_normal(size)).astype(np.float32)

  weights, size = {}, math.prod(shape)
  if len(shape) == 3:
    h, w, c = shape
    for i, width in enumerate(_WIDTHS):
      weights[f'conv_{i}'] = normal(4, 4, c, width)
      h, w, c = (h - 1) // 2 + 1, (w - 1) // 2 + 1, width
    size = h * w * c
  bias = (0.5 * rng.standard_normal(dim)).astype(np.float32)
  return {**weights, 'dense': normal(size, dim), 'bias': bias}


def _check_no_weights(spec: Spec) -> None:
  if spec.weights:
    remedy = f'`features={spec.text}` takes none; leave it out'
    raise ArgumentError('weights', spec.weights, remedy)
