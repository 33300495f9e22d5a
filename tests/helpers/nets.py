"""Networks small enough to test, and what to start them from."""

import functools
import math

import jax
import numpy as np
from jax import lax

from gan_jax import networks

CLASSES = 5  # as no other axis has

# Compilation is what these tests cost.
quick = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


def built(name, shape, bounded=None, **kwargs):
  """Networks of an architecture at the least width, for images or points."""
  bounded = len(shape) == 3 if bounded is None else bounded
  width = 4 if networks.ARCHITECTURES[name].width else 0
  kwargs = {'width': width} | kwargs
  return networks.build(name, shape, bounded=bounded, **kwargs)


def noise(nets, key, n):
  """Latent draws (n, latent_dim)."""
  draw = lambda key: nets.latent(key, (nets.latent_dim,))
  return jax.vmap(draw)(jax.random.split(key, n))


def start(nets, n=6):
  """Initialised G and D, and noise, as one program."""

  @quick
  def begin(key):
    key_g, key_d, key_z = jax.random.split(key, 3)
    g, d = nets.generator.init(key_g), nets.discriminator.init(key_d)
    return g, d, noise(nets, key_z, n)

  return begin(jax.random.key(0))


def drawn(net):
  """Parameters and statistics that no initialiser was compiled for."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key == 'var':
      return np.ones(leaf.shape, np.float32)
    x = rng.normal(size=leaf.shape)
    if path[-1].key == 'kernel':  # neither fades nor dies at a width of 4
      return np.float32(x * math.sqrt(2 / math.prod(leaf.shape[:-1])))
    return np.float32(0.1 * x + (path[-1].key == 'scale'))

  return jax.tree.map_with_path(draw, shapes_of(net))


def same(a, b):
  return all(
    bool((x == y).all())
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def shapes_of(net):
  return jax.eval_shape(net.init, jax.random.key(0))


def sizes_of(net):
  """Number of its parameters."""
  return sum(
    math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes_of(net)[0])
  )


def plain(x, w, stride, padding):
  return lax.conv_general_dilated(
    x,
    w,
    (stride, stride),
    (padding, padding),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
