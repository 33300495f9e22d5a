"""Games small enough to test components in: two layers, written out."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from gan_jax.networks.base import Net, Networks

LATENT, HIDDEN = 3, 4
POINTS, IMAGES = (2,), (8, 8, 2)


def _layer(rng: np.random.Generator, inputs: int, outputs: int) -> Any:
  kernel = 2 * rng.normal(size=(inputs, outputs)) / math.sqrt(inputs)
  return {
    'kernel': jnp.float32(kernel),
    'bias': jnp.float32(0.3 * rng.normal(size=outputs)),
  }


def _dense(layer: Any, x: Any) -> Any:
  dtype = x.dtype
  return x @ layer['kernel'].astype(dtype) + layer['bias'].astype(dtype)[None]


def _two_layers(
  sizes: tuple[int, int], shape: tuple[int, ...], seed: int, dtype: Any
) -> Net:
  """Two layers with a leaky ReLU between them; of one output, no last axis."""

  def init(key: Key[Array, '']) -> tuple[Any, Any]:
    noise = jax.random.normal(key, ())  # so that seeds differ
    rng = np.random.default_rng(seed)
    layers = (_layer(rng, sizes[0], HIDDEN), _layer(rng, HIDDEN, sizes[1]))
    params = dict(zip(('first', 'second'), layers, strict=True))
    return jax.tree.map(lambda w: w * (1 + 0.1 * noise), params), {}

  def apply(
    params: Any,
    stats: Any,
    x: Any,
    *,
    train: bool,
    key: Key[Array, ''] | None = None,
    label: Any = None,
  ) -> tuple[Any, Any]:
    del train, key, label
    h = _dense(params['first'], x.reshape(len(x), -1).astype(dtype))
    y = _dense(params['second'], jnp.where(h > 0, h, 0.2 * h))
    return y.reshape(len(x), *shape).astype(jnp.float32), stats

  return Net(init, apply)


@functools.cache
def networks(
  sample_shape: tuple[int, ...] = POINTS, dtype: Any = jnp.float32
) -> Networks:
  """A pair of two layers each, for points or for images."""
  size = math.prod(sample_shape)
  return Networks(
    _two_layers((LATENT, size), sample_shape, 1, dtype),
    _two_layers((size, 1), (), 2, dtype),
    LATENT,
    sample_shape,
  )


@functools.cache
def parabolas() -> Networks:
  """`G(z) = a z + b` and `D(x) = c x^2 + w x`, quick to compile."""

  def generate(params: Any, stats: Any, z: Any, **how: Any) -> tuple[Any, Any]:
    del how
    return z * params['a'][None] + params['b'][None], stats

  def discriminate(
    params: Any, stats: Any, x: Any, **how: Any
  ) -> tuple[Any, Any]:
    del how
    return jnp.square(x) @ params['c'] + x @ params['w'], stats

  def start(names: str, key: Key[Array, '']) -> tuple[Any, Any]:
    draws = 0.5 + 0.3 * jax.random.normal(key, (len(names), *POINTS))
    return dict(zip(names, draws, strict=True)), {}

  g, d = (
    Net(jax.jit(functools.partial(start, names)), apply)
    for names, apply in (('ab', generate), ('cw', discriminate))
  )
  return Networks(g, d, POINTS[0], POINTS)
