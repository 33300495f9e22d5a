"""Features that need no training: the pixels, and fixed random networks."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.features.base import Features, Request, make_features
from gan_jax.features.errors import FeatureFlagError
from gan_jax.networks.conv import conv

_WIDTHS = (32, 64)
_DIM = 128


def _flat(x: Any) -> Any:
  """Images in [0, 1], or points as they are, as rows."""
  scale = 255.0 if x.dtype == jnp.uint8 else 1.0
  return (x.astype(jnp.float32) / scale).reshape(x.shape[0], -1)


def make_pixels(request: Request) -> Features:
  """The pixels in [0, 1] in a row; points as they are."""
  _no_weights(request)
  if request.options:
    raise FeatureFlagError(
      f'--features={request.spec}: pixels have no options; use pixels'
    )

  def see(weights: Any, x: Any, wanted: Sequence[str]) -> dict[str, Any]:
    del weights
    return {name: _flat(x) for name in wanted}

  shape = request.image_shape
  dim = math.prod(shape)
  return make_features('pixels', dim, see, {}, {'shape': list(shape)}, shape)


def make_random(request: Request) -> Features:
  """A network with fixed random weights: `random-DIM`, 128 by default.

  Of images: two 4x4 convolutions of stride 2 and a dense layer, rectified. Of
  points: one dense layer, rectified. They tell distributions apart without
  having learnt anything; scores are comparable at one dimension and shape.

  Raises:
    FeatureFlagError: if the dimension is no positive number.
  """
  _no_weights(request)
  dim, shape = _dim(request), request.image_shape
  weights = _draw(shape, dim)
  protocol = {'draw': 'numpy PCG64, seed 0, normal', 'shape': list(shape)}

  def see(weights: Any, x: Any, wanted: Sequence[str]) -> dict[str, Any]:
    h = x
    if len(shape) == 3:
      h = x.astype(jnp.float32) / 127.5 - 1
      for i in range(len(_WIDTHS)):
        h = jax.nn.relu(conv(h, weights[f'conv_{i}'], 2, (1, 2)))
    h = _flat(h) @ weights['dense'] + weights['bias'][None]
    return {name: jax.nn.relu(h) for name in wanted}

  return make_features(f'random-{dim}', dim, see, weights, protocol, shape)


def _dim(request: Request) -> int:
  words = request.options or (str(_DIM),)
  if len(words) > 1 or not words[0].isdecimal() or int(words[0]) < 1:
    raise FeatureFlagError(
      f'--features={request.spec}: write random-DIM with one positive number'
    )
  return int(words[0])


def _draw(shape: tuple[int, ...], dim: int) -> dict[str, Any]:
  """Weights that keep the variance through rectification (He et al. 2015)."""
  rng = np.random.Generator(np.random.PCG64(0))

  def normal(*size: int) -> Any:
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


def _no_weights(request: Request) -> None:
  if request.weights:
    raise FeatureFlagError(
      f'--weights={request.weights}: {request.spec} takes none; leave it out'
    )
