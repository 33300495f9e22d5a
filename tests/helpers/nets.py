"""Networks small enough to test, and what to start them from."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gan_jax import networks

FIXED_WIDTH = {'goodfellow2014', 'dirac'}

CLASSES = 5  # as no other axis has

# Compilation is what these tests cost.
quick = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


def built(name, shape, bounded, **kwargs):
  width = 0 if name in FIXED_WIDTH else 4
  return networks.build(name, shape, bounded=bounded, width=width, **kwargs)


def start(nets, n=6):
  @quick
  def begin(key):
    keys = jax.random.split(key, 3)
    z = nets.sample_latent(keys[2], n)
    return nets.generator.init(keys[0]), nets.discriminator.init(keys[1]), z

  return begin(jax.random.key(0))


@functools.cache
def started(name, shape, bounded):
  """Parameters are float32 whatever the precision: one start serves both."""
  return start(built(name, shape, bounded))


def drawn(net):
  """Parameters and statistics that no initialiser was compiled for."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key == 'var':
      return jnp.ones(leaf.shape)
    x = rng.normal(size=leaf.shape)
    if path[-1].key == 'kernel':  # neither fades nor dies at a width of 4
      return jnp.float32(x * math.sqrt(2 / math.prod(leaf.shape[:-1])))
    return jnp.float32(0.1 * x + (path[-1].key == 'scale'))

  params, stats = jax.eval_shape(net.init, jax.random.key(0))
  return jax.tree.map_with_path(draw, params), jax.tree.map_with_path(
    draw, stats
  )


def same(a, b):
  return all(
    bool((x == y).all())
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def outputs(nets, train, n=6):
  """Shapes of all that the networks give, by evaluation of shapes alone."""

  def whole(key):
    g, d = nets.generator.init(key), nets.discriminator.init(key)
    z = nets.sample_latent(key, n)
    label = jnp.zeros(n, jnp.int32) if nets.classes else None
    kind = dict(train=train, key=key, label=label)
    x, g_stats = nets.generator.apply(*g, z, **kind)
    packed = jnp.concatenate([x] * nets.packing, axis=-1)
    logits, d_stats = nets.discriminator.apply(*d, packed, **kind)
    return x, logits, g, d, g_stats, d_stats

  with jax.debug_key_reuse(False):
    return jax.eval_shape(whole, jax.random.key(0))


def shapes_of(net):
  return jax.eval_shape(net.init, jax.random.key(0))


def plain(x, w, stride, padding):
  return lax.conv_general_dilated(
    x,
    w,
    (stride, stride),
    (padding, padding),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
