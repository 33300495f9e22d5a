"""Every architecture by the same rules, and the known ones by their papers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gan_jax import networks
from gan_jax.networks import ARCHITECTURES, LATENTS, NetworkError, layers
from gan_jax.networks.conv import conv, conv_transpose
from gan_jax.state import count_parameters

# (shape, bounded) of samples; an architecture must take at least one of them.
SAMPLES = [((1,), False), ((2,), False), ((8, 8, 1), True), ((12, 12, 3), True)]
FIXED_WIDTH = {'goodfellow2014'}


def built(name, shape, bounded, **kwargs):
  width = 0 if name in FIXED_WIDTH else 4
  return networks.build(name, shape, bounded=bounded, width=width, **kwargs)


def cases():
  for name in sorted(ARCHITECTURES):
    taken = 0
    for shape, bounded in SAMPLES:
      try:
        built(name, shape, bounded)
      except NetworkError:
        continue
      taken += 1
      yield pytest.param(name, shape, bounded, id=f'{name}-{shape}')
    assert taken, f'{name} takes none of {SAMPLES}'


EVERY = pytest.mark.parametrize(('name', 'shape', 'bounded'), list(cases()))


def start(nets, n=6):
  keys = jax.random.split(jax.random.key(0), 3)
  z = nets.sample_latent(keys[2], n)
  return nets.generator.init(keys[0]), nets.discriminator.init(keys[1]), z


def same(a, b):
  return all(
    bool((x == y).all())
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


@EVERY
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_shapes_types_and_range(name, shape, bounded, dtype):
  nets = built(name, shape, bounded, dtype=dtype)
  g, d, z = start(nets)
  key = jax.random.key(1)
  for train in (False, True):
    x, _ = nets.generator.apply(*g, z, train=train, key=key)
    logits, _ = nets.discriminator.apply(*d, x, train=train, key=key)
    assert x.shape == (6, *shape)
    assert logits.shape == (6,)
    assert x.dtype == logits.dtype == jnp.float32
    assert not bounded or bool((jnp.abs(x) <= 1).all())
  assert {p.dtype for p in jax.tree.leaves((g, d))} == {jnp.dtype('float32')}


@EVERY
def test_jit_is_eager_and_order_does_not_matter(name, shape, bounded):
  nets = built(name, shape, bounded)
  g, d, z = start(nets)

  def whole(z):
    x, _ = nets.generator.apply(*g, z, train=False)
    return x, nets.discriminator.apply(*d, x, train=False)[0]

  for eager, jitted in zip(whole(z), jax.jit(whole)(z), strict=True):
    np.testing.assert_allclose(eager, jitted, rtol=1e-4, atol=1e-5)
  for there, back in zip(whole(z), whole(z[::-1]), strict=True):
    np.testing.assert_allclose(there, back[::-1], rtol=1e-4, atol=1e-5)


@EVERY
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_at_large_inputs(name, shape, bounded, dtype):
  nets = built(name, shape, bounded, dtype=dtype)
  g, d, z = start(nets)
  x, _ = nets.generator.apply(*g, 1e4 * z, train=False)
  size = 1.0 if bounded else 1e4
  far = size * jnp.sign(jax.random.normal(jax.random.key(3), (6, *shape)))
  logits, _ = nets.discriminator.apply(*d, far, train=False)
  assert jnp.isfinite(x).all() and jnp.isfinite(logits).all()


@EVERY
def test_running_statistics_move_in_training_only(name, shape, bounded):
  nets = built(name, shape, bounded)
  (g_params, g_stats), (d_params, d_stats), z = start(nets)
  key = jax.random.key(1)
  x, still = nets.generator.apply(g_params, g_stats, z, train=False)
  assert same(still, g_stats)
  _, moved = nets.generator.apply(g_params, g_stats, z, train=True, key=key)
  assert not g_stats or not same(moved, g_stats)
  _, still = nets.discriminator.apply(d_params, d_stats, x, train=False)
  assert same(still, d_stats)
  _, moved = nets.discriminator.apply(
    d_params, d_stats, x, train=True, key=jax.random.key(2)
  )
  assert not d_stats or not same(moved, d_stats)


@pytest.mark.parametrize('name', sorted(LATENTS))
def test_latents_are_of_their_distribution(name):
  nets = built('mlp', (2,), False, latent=name, latent_dim=3)
  z = np.asarray(nets.sample_latent(jax.random.key(0), 20_000))
  assert z.shape == (20_000, 3) and nets.latent == name
  half_width = {'uniform': 1.0, 'uniform_sqrt3': math.sqrt(3)}.get(name)
  std = 1.0 if half_width is None else half_width / math.sqrt(3)
  np.testing.assert_allclose(z.mean(0), 0, atol=0.04)
  np.testing.assert_allclose(z.std(0), std, rtol=0.03)
  if half_width:
    assert np.abs(z).max() <= half_width
  else:
    assert np.abs(z).max() > 3


@pytest.mark.parametrize(
  ('name', 'shape', 'kwargs', 'told'),
  [
    ('mpl', (2,), {}, '--network=mpl: use mlp'),
    ('mlp', (2,), {'latent': 'norml'}, '--latent=norml: use normal'),
    ('dcgan', (2,), {}, '--network=mlp for densities'),
    ('dcgan', (8, 12, 1), {}, 'not 8x12; set --image_size'),
    ('dcgan', (4, 4, 1), {}, 'from 8 to 128'),
    ('dcgan', (256, 256, 3), {}, 'from 8 to 128'),
    ('dcgan', (8, 8, 1), {'depth': 2}, '--depth=2'),
    ('goodfellow2014', (2,), {}, '--network=mlp'),
    ('goodfellow2014', (8, 8, 1), {'width': 9}, '--width=9'),
  ],
)
def test_what_cannot_be_built_is_named(name, shape, kwargs, told):
  with pytest.raises(NetworkError, match=told):
    networks.build(name, shape, bounded=len(shape) == 3, **kwargs)


def shapes_of(net):
  return jax.eval_shape(net.init, jax.random.key(0))


def test_goodfellow2014_is_the_papers():
  nets = networks.build('goodfellow2014', (28, 28, 1), bounded=True)
  g, _ = nets.generator.init(jax.random.key(0))
  d, _ = nets.discriminator.init(jax.random.key(1))
  assert count_parameters(g) == (
    100 * 1200 + 1200 + 1200 * 1200 + 1200 + 1200 * 784 + 784
  )
  assert count_parameters(d) == (
    784 * 1200 + 1200 + 240 * 1200 + 1200 + 240 + 1
  )
  assert (nets.latent_dim, nets.latent) == (100, 'uniform_sqrt3')
  for params, bound in ((g, 0.05), (d, 0.005)):
    for layer in params.values():
      largest = float(jnp.abs(layer['kernel']).max())
      assert 0.98 * bound < largest <= bound
      np.testing.assert_allclose(
        layer['kernel'].std(), bound / math.sqrt(3), rtol=0.1
      )
      assert not layer['bias'].any()


def test_maxout_against_numpy():
  nets = networks.build('goodfellow2014', (4, 4, 1), bounded=True)
  params, stats = nets.discriminator.init(jax.random.key(0))
  x = np.random.default_rng(0).uniform(-1, 1, (3, 4, 4, 1))
  h = (x.reshape(3, -1) + 1) / 2
  for i in range(2):
    layer = params[f'Dense_{i}']
    h = h @ np.float64(layer['kernel']) + np.float64(layer['bias'])
    h = h.reshape(3, 240, 5).max(-1)
  expected = h @ np.float64(params['Dense_2']['kernel'])[:, 0]
  found, _ = nets.discriminator.apply(
    params, stats, jnp.asarray(x, jnp.float32), train=False
  )
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_dropout_draws_from_the_key_and_keeps_the_mean():
  nets = networks.build('goodfellow2014', (8, 8, 1), bounded=True)
  d = nets.discriminator.init(jax.random.key(0))
  x = jnp.ones((1, 8, 8, 1))

  def logit(key):
    return nets.discriminator.apply(*d, x, train=True, key=key)[0][0]

  draws = jax.vmap(logit)(jax.random.split(jax.random.key(1), 512))
  assert len(set(np.asarray(draws).tolist())) > 500
  still, _ = nets.discriminator.apply(*d, x, train=False)
  # The maximum of maxout is not linear: near, not equal.
  assert abs(float(draws.mean()) - float(still[0])) < 4 * float(draws.std())
  with pytest.raises(Exception, match='dropout'):
    nets.discriminator.apply(*d, x, train=True)


@pytest.mark.parametrize('side', [8, 12, 16, 28, 30, 32, 48, 64, 100, 128])
def test_dcgan_takes_any_side(side):
  nets = networks.build('dcgan', (side, side, 3), bounded=True, width=4)

  def whole(key):
    keys = jax.random.split(key, 3)
    z = nets.sample_latent(keys[2], 2)
    x, _ = nets.generator.apply(*nets.generator.init(keys[0]), z, train=True)
    d = nets.discriminator.init(keys[1])
    return x, nets.discriminator.apply(*d, x, train=True)[0]

  x, logits = jax.eval_shape(whole, jax.random.key(0))
  assert x.shape == (2, side, side, 3)
  assert logits.shape == (2,)


def test_dcgan_has_the_papers_channels_and_initialisation():
  nets = networks.build('dcgan', (64, 64, 3), bounded=True)
  d, _ = shapes_of(nets.discriminator)
  assert [d[f'Conv_{i}']['kernel'].shape[3] for i in range(4)] == [
    64,
    128,
    256,
    512,
  ]
  g, _ = shapes_of(nets.generator)
  assert g['Dense_0']['kernel'].shape == (100, 4 * 4 * 512)
  assert 'bias' not in d['Conv_1'] and 'bias' in d['Conv_0']
  assert 'BatchNorm_3' not in d and 'BatchNorm_2' in d
  small = networks.build('dcgan', (16, 16, 3), bounded=True)
  params, _ = small.discriminator.init(jax.random.key(0))
  np.testing.assert_allclose(params['Conv_1']['kernel'].std(), 0.02, rtol=0.02)


def test_mlp_obeys_width_and_depth():
  nets = networks.build('mlp', (2,), bounded=False, width=7, depth=5)
  d, _ = shapes_of(nets.discriminator)
  assert sorted(d) == [f'Dense_{i}' for i in range(6)]
  assert d['Dense_3']['kernel'].shape == (7, 7)


def norm_of(x):
  layer = layers.BatchNorm()
  variables = layer.init(jax.random.key(0), x, train=False)
  return layer, variables


def test_batch_norm_against_numpy():
  x = jnp.asarray(np.random.default_rng(0).normal(3, 2, (16, 4, 4, 5)))
  x = x.astype(jnp.float32)
  layer, variables = norm_of(x)
  y, moved = layer.apply(variables, x, train=True, mutable=['batch_stats'])
  wide = np.asarray(x, np.float64)
  mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
  scale = np.float64(variables['params']['scale'])
  expected = (wide - mean) / np.sqrt(var + 1e-5) * scale
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  found = moved['batch_stats']
  np.testing.assert_allclose(found['mean'], 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(found['var'], 0.9 + 0.1 * var, rtol=1e-5)
  y = layer.apply({**variables, **moved}, x, train=False)
  expected = (wide - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-5) * scale
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_batch_norm_sees_the_whole_batch_over_devices():
  x = jax.random.normal(jax.random.key(1), (16, 4)) + jnp.arange(16.0)[:, None]
  layer, variables = norm_of(x)
  apply = jax.jit(
    lambda x: layer.apply(variables, x, train=True, mutable=['batch_stats'])
  )
  mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ('data',))
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  for one, four in zip(
    jax.tree.leaves(apply(x)),
    jax.tree.leaves(apply(jax.device_put(x, rows))),
    strict=True,
  ):
    np.testing.assert_allclose(one, four, rtol=1e-5, atol=1e-5)


def plain(x, w, stride, padding):
  return lax.conv_general_dilated(
    x,
    w,
    (stride, stride),
    (padding, padding),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


# (side, kernel, stride, padding)
CONVOLUTIONS = [
  (8, 4, 2, (1, 1)),
  (7, 4, 2, (1, 2)),
  (9, 3, 1, (1, 1)),
  (9, 5, 2, (2, 2)),
  (8, 1, 1, (0, 0)),
  (8, 3, 2, (0, 1)),
  (9, 4, 3, (1, 1)),
  (8, 1, 2, (0, 0)),
]


@pytest.mark.parametrize('case', CONVOLUTIONS)
def test_convolution_gradients_twice(case):
  """First and second derivatives are those of autodiff."""
  side, size, stride, padding = case
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, side, side, 3)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(size, size, 3, 4)), jnp.float32)

  def first(f):
    def loss(x, w):
      return jnp.mean(jnp.sin(f(x, w, stride, padding)))

    return jax.grad(loss, (0, 1))

  def second(f):
    def penalty(x, w):
      return sum(jnp.sum(jnp.cos(3 * g)) for g in first(f)(x, w))

    return jax.grad(penalty, (0, 1))

  for order in (first, second):
    for ours, theirs in zip(
      jax.jit(order(conv))(x, w), jax.jit(order(plain))(x, w), strict=True
    ):
      np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize('size', [8, 7])
def test_transpose_is_the_transpose(size):
  """<conv(x), y> = <x, conv_transpose(y)>, and its own gradients."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, size, size, 3)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(4, 4, 3, 5)), jnp.float32)
  padding = (1, 2 * 3 + 4 - 1 - size)
  y = jnp.asarray(rng.normal(size=(2, 4, 4, 5)), jnp.float32)
  there = jnp.vdot(conv(x, w, 2, padding), y)
  back = conv_transpose(y, w, 2, padding, (size, size))
  np.testing.assert_allclose(there, jnp.vdot(x, back), rtol=1e-4)
  dy, dw = jax.grad(
    lambda y, w: jnp.vdot(x, conv_transpose(y, w, 2, padding, (size, size))),
    (0, 1),
  )(y, w)
  np.testing.assert_allclose(dy, plain(x, w, 2, padding), rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(
    dw,
    jax.grad(lambda w: jnp.vdot(plain(x, w, 2, padding), y))(w),
    rtol=1e-3,
    atol=1e-3,
  )


def test_gradients_are_canonical_convolutions():
  """No layout and no dilated input that CPU kernels are slow at."""
  x, w = jnp.ones((2, 8, 8, 3)), jnp.ones((4, 4, 3, 5))

  def text(f):
    grad = jax.grad(lambda x, w: f(x, w, 2, (1, 1)).sum() ** 2, (0, 1))
    return jax.jit(grad).lower(x, w).as_text()

  canonical = 'dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]'
  ours = [s for s in text(conv).splitlines() if 'stablehlo.convolution' in s]
  assert len(ours) >= 6
  for line in ours:
    assert canonical in line
    assert 'lhs_dilate = [2' not in line
  assert 'lhs_dilate = [2' in text(plain)  # what autodiff would have asked for
