"""The residual families: their papers' numbers, and the fused layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import layers64 as np64
from helpers.nets import built, noise, quick, sizes_of
from jax import lax

from gan_jax import networks
from gan_jax.networks import r3gan, resnet


@pytest.mark.parametrize(
  ('name', 'sides'),
  [
    ('dcgan', [8, 30, 128]),
    ('sndcgan', [16, 30, 128]),
    ('resnet', [28, 48, 64, 128]),  # others elsewhere
    ('r3gan', [8, 14, 128]),
  ],
)
def test_sides(name, sides):
  for side in sides:
    shape = (side, side, 3)
    nets = built(name, shape)

    def whole(key, nets=nets, shape=shape):
      keys = jax.random.split(key, 3)
      z = noise(nets, keys[2], 2)
      x, _ = nets.generator.apply(*nets.generator.init(keys[0]), z, train=True)
      return x, nets.discriminator.init(keys[1])  # of samples of the shape

    assert jax.eval_shape(whole, jax.random.key(0))[0].shape == (2, *shape)


def conv3(inputs, outputs):
  return 9 * inputs * outputs + outputs


def conv1(inputs, outputs):
  return inputs * outputs + outputs


def test_resnet_of_32_pixels_is_the_papers():
  """Table 4: G of 256 channels, D of 128; biases before a norm left out."""
  nets = networks.build('resnet', (32, 32, 3), bounded=True)
  norm = 2 * 256
  block = 9 * 256**2 + conv3(256, 256) + conv1(256, 256) + 2 * norm
  g = (128 * 4096 + 4096) + 3 * block + norm + conv3(256, 3)
  assert sizes_of(nets.generator) == g
  first = conv3(3, 128) + conv3(128, 128) + conv1(3, 128)
  second = 2 * conv3(128, 128) + conv1(128, 128)
  d = first + second + 2 * 2 * conv3(128, 128) + 128
  assert sizes_of(nets.discriminator) == d
  assert (nets.latent_dim, nets.latent) == (128, networks.LATENTS['normal'])


def test_r3gan_of_width_768_is_the_papers_for_cifar10():
  nets = networks.build('r3gan', (32, 32, 3), bounded=True)
  wide, groups = 2 * 768, 96
  grouped = 9 * wide * (wide // groups)
  block = 2 * 768 * wide + grouped + 2 * wide
  g = 16 * 768 + 64 * 768 + 8 * block + 768 * 3
  assert sizes_of(nets.generator) == g
  d = 3 * 768 + 8 * block + 16 * 768 + 768
  assert sizes_of(nets.discriminator) == d
  assert nets.latent_dim == 64


def plain3(x, w):
  return lax.conv_general_dilated(
    x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


@pytest.mark.parametrize('layer', [resnet.UpConv, resnet.ConvPool])
def test_fused_layers_are_the_two_steps(layer):
  """With their gradients; the kernel is that of the 3x3 convolution."""
  x = jax.random.normal(jax.random.key(0), (2, 8, 8, 5))
  module = layer(7)
  params = module.init(jax.random.key(1), x)['params']
  params = {**params, 'bias': jnp.arange(7.0)}

  def apart(params, x):
    if layer is resnet.UpConv:
      y = plain3(resnet.doubled(x), params['kernel'])
      return y + params['bias'].reshape(1, 1, 1, -1)
    y = plain3(x, params['kernel']) + params['bias'].reshape(1, 1, 1, -1)
    return resnet.pooled(y)

  def fused(params, x):
    return module.apply({'params': params}, x)

  def slope(f):
    return jax.grad(lambda p, x: jnp.sum(jnp.sin(f(p, x))), (0, 1))

  assert params['kernel'].shape == (3, 3, 5, 7)
  one, other = quick(
    lambda params, x: [
      (f(params, x), slope(f)(params, x)) for f in (fused, apart)
    ]
  )(params, x)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-4)
  np.testing.assert_allclose(one[0], other[0], atol=1e-5)


def test_resnet_starts_as_glorot_says():
  w = resnet.glorot(np.sqrt(2))(jax.random.key(0), (3, 3, 64, 64))
  bound = np.sqrt(2) * np.sqrt(6 / (9 * 128))
  assert 0.99 * bound < float(jnp.abs(w).max()) <= bound
  np.testing.assert_allclose(w.std(), bound / np.sqrt(3), rtol=0.02)


@pytest.mark.parametrize('groups', [1, 2, 4])
def test_grouped_convolution_is_the_grouped_convolution(groups):
  """With first and second derivatives."""
  x = jax.random.normal(jax.random.key(0), (2, 5, 5, 8))
  module = r3gan.GroupedConv(groups, 0.3)
  params = module.init(jax.random.key(1), x)

  def ours(w, x):
    return module.apply({'params': {'kernel': w}}, x)

  def theirs(w, x):
    return lax.conv_general_dilated(
      x,
      w,
      (1, 1),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups,
    )

  def first(f):
    return jax.grad(lambda w, x: jnp.sum(jnp.sin(f(w, x))), (0, 1))

  def second(f):
    def penalty(w, x):
      return sum(jnp.sum(jnp.square(g)) for g in first(f)(w, x))

    return jax.grad(penalty, (0, 1))

  w = params['params']['kernel']
  forward, *slopes = quick(
    lambda w, x: [
      (order(ours)(w, x), order(theirs)(w, x))
      for order in (lambda f: f, first, second)
    ]
  )(w, x)
  np.testing.assert_allclose(*forward, atol=1e-5)
  for one, other in slopes:
    for a, b in zip(one, other, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_resampling_against_numpy():
  """The filter of R3GAN's code, and by hand: symmetric, zeros outside."""
  x = np.random.default_rng(0).normal(size=(1, 8, 10, 2))
  x[0, 1:5, :, 0] = np.arange(1, 11)
  up, down = quick(lambda x: (r3gan.doubled(x), r3gan.halved(x)))(
    jnp.float32(x)
  )
  np.testing.assert_allclose(up, np64.upsampled(x), atol=1e-5)
  np.testing.assert_allclose(down, np64.downsampled(x), atol=1e-5)
  rising = [0.75, 1.25, 1.75, 2.25, 2.75, 3.25]
  np.testing.assert_allclose(up[0, 6, :6, 0], rising, rtol=1e-6)
  np.testing.assert_allclose(up[0, 6, -3:, 0], [9.25, 9.75, 7.5], rtol=1e-6)
  pairs = [1.5, 3.5, 5.5, 7.5, 8.125]
  np.testing.assert_allclose(down[0, 1, :, 0], pairs, rtol=1e-6)


def std_in_r3gans_code(name, shape, player):
  """Of a parameter of the networks for 8 pixels and 5 classes, of width 64."""
  gain = np.sqrt(2 / 1.04) * 4 ** (-1 / 4)  # leaky ReLU, two stages of two
  if name == 'basis':
    return {'g': 1, 'd': 1 / 4}[player]
  return {
    (3, 3, 16, 128): gain / np.sqrt(9 * 16),
    (1, 1, 64, 128): gain / 8,
    (1, 1, 128, 64): 0,
    (1, 1, 3, 64): 1 / np.sqrt(3),
    (1, 1, 64, 3): 1 / 8,
    (5, 64): {'g': 1 / np.sqrt(5), 'd': 1 / np.sqrt(5 * 64)}[player],
    (64 + 64, 64): 1 / np.sqrt(128),
    (64, 64): 1 / 8,
    (128,): 0,
  }[shape]


def test_r3gan_starts_as_its_code_says():
  nets = networks.build(
    'r3gan',
    (8, 8, 3),
    bounded=True,
    width=64,
    conditioning='projection',
    classes=5,
  )

  @quick
  def begin(key):
    one, two = jax.random.split(key)
    return nets.generator.init(one)[0], nets.discriminator.init(two)[0]

  for player, params in zip('gd', begin(jax.random.key(0))):
    for path, leaf in jax.tree.leaves_with_path(params):
      std = std_in_r3gans_code(path[-1].key, leaf.shape, player)
      error = 5 * std / np.sqrt(leaf.size)
      wide = np.float64(leaf)
      assert abs(wide.mean()) <= error and abs(wide.std() - std) <= error, path


def test_r3gan_starts_as_its_map_and_is_clipped_outside_of_training():
  """At the start G is its map, resampled: no block adds to it yet."""
  nets = networks.build('r3gan', (8, 8, 3), bounded=True, width=16)

  @quick
  def outputs(key):
    key_g, key_z = jax.random.split(key)
    g, z = nets.generator.init(key_g), noise(nets, key_z, 2)
    trained, _ = nets.generator.apply(*g, z, train=True)
    return g[0], z, trained, nets.generator.apply(*g, 100 * z, train=False)[0]

  params, z, x, clipped = outputs(jax.random.key(0))
  leaves = {p.shape: np.float64(p) for p in jax.tree.leaves(params)}
  h = leaves[4, 4, 16][None] * (z @ leaves[64, 16])[:, None, None, :]
  expected = np64.upsampled(h) @ leaves[1, 1, 16, 3][0, 0]
  np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-5)
  assert np.abs(100 * expected).max() > 1
  wild = np.clip(100 * expected, -1, 1)
  np.testing.assert_allclose(clipped, wild, rtol=1e-4, atol=1e-3)
