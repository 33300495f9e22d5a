"""The known architectures by their papers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets import built, drawn, quick, shapes_of, sizes_of, start

from gan_jax import networks
from gan_jax.networks import ARCHITECTURES, LATENTS


def test_goodfellow2014_is_the_papers():
  nets = networks.build('goodfellow2014', (28, 28, 1), bounded=True)
  assert sizes_of(nets.generator) == (
    100 * 1200 + 1200 + 1200 * 1200 + 1200 + 1200 * 784 + 784
  )
  assert sizes_of(nets.discriminator) == (
    784 * 1200 + 1200 + 240 * 1200 + 1200 + 240 + 1
  )
  assert (nets.latent_dim, nets.latent) == (100, LATENTS['uniform_sqrt3'])
  (g, _), (d, _), _ = start(nets)
  for params, bound in ((g, 0.05), (d, 0.005)):
    for layer in params.values():
      largest = float(jnp.abs(layer['kernel']).max())
      assert 0.98 * bound < largest <= bound
      np.testing.assert_allclose(
        layer['kernel'].std(), bound / math.sqrt(3), rtol=0.1
      )
      assert not layer['bias'].any()


def test_goodfellow2014_starts_at_the_mean_of_the_data():
  """As `init_sigmoid_bias_from_marginals` of its code but for the clip."""
  shape = (3, 2, 1)
  mean = np.linspace(-1, 1, 6).reshape(shape)
  nets = networks.build(
    'goodfellow2014', shape, bounded=True, mean=lambda: mean
  )
  (g, stats), _, _ = start(nets)
  *first, last = g.values()
  assert not any(layer['bias'].any() for layer in first)
  kept = np.clip((mean.ravel() + 1) / 2, 1e-5, 1 - 1e-5)
  np.testing.assert_allclose(
    last['bias'], np.log(kept / (1 - kept)), rtol=1e-3, atol=1e-6
  )
  still = nets.generator.apply(g, stats, jnp.zeros((1, 100)), train=True)[0]
  np.testing.assert_allclose(still[0], mean, atol=3e-5)


def test_dropout_draws_from_the_key_and_keeps_the_mean():
  nets = networks.build('goodfellow2014', (8, 8, 1), bounded=True)
  x = jnp.ones((1, 8, 8, 1))

  @quick
  def logits(key):
    d = nets.discriminator.init(key)
    draw = lambda key: nets.discriminator.apply(*d, x, train=True, key=key)[0]
    keys = jax.random.split(jax.random.key(1), 512)
    still, _ = nets.discriminator.apply(*d, x, train=False)
    return jax.vmap(draw)(keys)[:, 0], still

  draws, still = logits(jax.random.key(0))
  assert len(set(np.asarray(draws).tolist())) > 500
  # The maximum of maxout is not linear: near, not equal.
  assert abs(float(draws.mean()) - float(still[0])) < 4 * float(draws.std())
  with pytest.raises(Exception, match='dropout'):
    nets.discriminator.apply(*drawn(nets.discriminator), x, train=True)


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
  params, _ = quick(small.discriminator.init)(jax.random.key(0))
  np.testing.assert_allclose(params['Conv_1']['kernel'].std(), 0.02, rtol=0.02)


# The layers as the papers state them, biases only where no norm loses them.
INFOGAN = (
  (64 * 1024 + 2 * 1024)
  + (1024 * 128 * 7 * 7 + 2 * 128 * 7 * 7)
  + (4 * 4 * 128 * 64 + 2 * 64)
  + (4 * 4 * 64 * 1 + 1),
  (4 * 4 * 1 * 64 + 64)
  + (4 * 4 * 64 * 128 + 2 * 128)
  + (128 * 7 * 7 * 1024 + 2 * 1024)
  + (1024 + 1),
)

SNDCGAN = (
  (128 * 4 * 4 * 512 + 2 * 4 * 4 * 512)
  + (4 * 4 * 512 * 256 + 2 * 256)
  + (4 * 4 * 256 * 128 + 2 * 128)
  + (4 * 4 * 128 * 64 + 2 * 64)
  + (3 * 3 * 64 * 3 + 3),
  (3 * 3 * 3 * 64 + 64)
  + (4 * 4 * 64 * 64 + 64)
  + (3 * 3 * 64 * 128 + 128)
  + (4 * 4 * 128 * 128 + 128)
  + (3 * 3 * 128 * 256 + 256)
  + (4 * 4 * 256 * 256 + 256)
  + (3 * 3 * 256 * 512 + 512)
  + (4 * 4 * 512 + 1),
)

PACGAN = (  # of packs of two points
  (2 * 400 + 3 * 400 * 400) + 4 * 2 * 400 + (400 * 2 + 2),
  (2 * 2 * 200 * 5 + 200 * 5) + 2 * (200 * 200 * 5 + 200 * 5) + (200 + 1),
)

UNROLLED = (
  (256 * 128 + 128) + (128 * 128 + 128) + (128 * 2 + 2),
  (2 * 128 + 128) + (128 + 1),
)


@pytest.mark.parametrize(
  ('name', 'shape', 'packing', 'counts', 'latent'),
  [
    ('infogan', (28, 28, 1), 1, INFOGAN, (64, 'uniform')),
    ('sndcgan', (32, 32, 3), 1, SNDCGAN, (128, 'normal')),
    ('pacgan', (2,), 2, PACGAN, (2, 'normal')),
    ('unrolled', (2,), 1, UNROLLED, (256, 'normal')),
    ('dirac', (1,), 1, (1, 1), (1, 'normal')),
  ],
)
def test_parameters_are_the_papers(name, shape, packing, counts, latent):
  bounded = len(shape) == 3
  nets = networks.build(name, shape, bounded=bounded, packing=packing)
  assert (sizes_of(nets.generator), sizes_of(nets.discriminator)) == counts
  latent_dim, distribution = latent
  assert nets.latent_dim == latent_dim
  assert nets.latent == LATENTS[distribution]


@pytest.mark.parametrize(
  'name', ['dcgan', 'infogan', 'sndcgan', 'resnet', 'pacgan']
)
def test_weights_start_as_the_papers_code_says(name):
  """Kernels from N(0, .02), scales at 1; DCGAN's from N(1, .02)."""
  norm_d = (
    'none' if name in ('sndcgan', 'resnet') else ''
  )  # to be compiled soon
  nets = built(name, ARCHITECTURES[name].samples[0], norm_d=norm_d)
  (g, _), (d, _), _ = start(nets)
  scales = 0
  for path, leaf in jax.tree.leaves_with_path((g, d)):
    kind = path[-1].key
    scales += kind == 'scale'
    if kind == 'bias':
      assert not leaf.any(), path
    elif kind == 'scale' and name != 'dcgan':
      assert (leaf == 1).all(), path
    elif name != 'resnet':  # whose kernels start as Glorot's
      wide, mean = np.float64(leaf), float(kind == 'scale')
      error = 5 * 0.02 / math.sqrt(wide.size)
      assert abs(wide.mean() - mean) <= error, path
      # However few the draws, they are not all alike.
      assert abs(wide.std() - 0.02) <= min(error, 0.018), path
  assert scales


def test_unrolled_starts_orthogonal():
  (g, _), (d, _), _ = start(built('unrolled', (2,)))
  for path, leaf in jax.tree.leaves_with_path((g, d)):
    if path[-1].key == 'bias':
      assert not leaf.any()
      continue
    values = np.linalg.svd(np.float64(leaf), compute_uv=False)
    np.testing.assert_allclose(values, 0.8, rtol=1e-5)


def dense(h, layer):
  return h @ np.float64(layer['kernel']) + np.float64(layer.get('bias', 0.0))


@pytest.mark.parametrize(('name', 'packing'), [('pacgan', 2), ('unrolled', 1)])
def test_networks_of_points_against_numpy(name, packing):
  nets = built(name, (2,), packing=packing)
  (g, g_stats), (d, d_stats) = drawn(nets.generator), drawn(nets.discriminator)
  rng = np.random.default_rng(0)
  z = rng.normal(size=(6, nets.latent_dim))
  x = rng.normal(size=(3, 2 * packing))

  @quick
  def outputs(g, d, z, x):
    logits, _ = nets.discriminator.apply(*d, x, train=False)
    return *nets.generator.apply(*g, z, train=True), logits

  made, moved, found = outputs(
    (g, g_stats), (d, d_stats), jnp.float32(z), jnp.float32(x)
  )
  h = z
  for i in range({'pacgan': 4, 'unrolled': 2}[name]):
    h = dense(h, g[f'Dense_{i}'])
    if name == 'pacgan':
      norm = g[f'BatchNorm_{i}']
      h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-4)
      h = h * norm['scale'] + norm['bias']
    h = np.maximum(h, 0)
  last = g[f'Dense_{4 if name == "pacgan" else 2}']
  np.testing.assert_allclose(made, dense(h, last), rtol=1e-3, atol=1e-5)
  if name == 'pacgan':
    first = dense(z, g['Dense_0'])
    variance = moved['batch_stats']['BatchNorm_0']['var']
    expected = 0.95 + 0.05 * first.var(0)
    np.testing.assert_allclose(variance, expected, rtol=1e-5)
    h = x
    for i in range(3):
      h = dense(h, d[f'Dense_{i}']).reshape(3, 5, -1).max(1)
    logits = dense(h, d['Dense_3'])[:, 0]
  else:
    h = np.maximum(dense(x / 4, d['Dense_0']), 0)
    logits = dense(h, d['Dense_1'])[:, 0]
  np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-6)


def test_dirac_turns_about_its_equilibrium():
  """The field's eigenvalues at (0, 0): i/2 and -i/2 (Mescheder et al. 2018)."""
  nets = networks.build('dirac', (1,), bounded=False)
  z = jnp.zeros((4, 1))

  def logits(theta, psi, x=None):
    if x is None:
      x, _ = nets.generator.apply({'theta': theta}, {}, z, train=True)
    return nets.discriminator.apply({'psi': psi}, {}, x, train=True)[0]

  def field(at):
    def value(theta, psi):  # D climbs, G descends
      real, fake = logits(theta, psi, jnp.zeros((4, 1))), logits(theta, psi)
      return -jnp.mean(jax.nn.softplus(-real) + jax.nn.softplus(fake))

    d_theta, d_psi = jax.grad(value, (0, 1))(at[0], at[1])
    return jnp.stack([-d_theta, d_psi])

  found = np.linalg.eigvals(np.asarray(quick(jax.jacrev(field))(jnp.zeros(2))))
  np.testing.assert_allclose(np.sort_complex(found), [-0.5j, 0.5j], atol=1e-6)


def test_dirac_is_one_point_and_sees_a_packs_mean():
  nets = networks.build('dirac', (1,), bounded=False, packing=3)
  (theta, _), (psi, _), z = start(nets)
  assert theta == {'theta': 1.0} and psi == {'psi': 1.0}
  x, _ = nets.generator.apply({'theta': jnp.float32(0.7)}, {}, z, train=True)
  np.testing.assert_array_equal(x, np.full((6, 1), np.float32(0.7)))
  packs = jnp.arange(6.0).reshape(2, 3)
  found, _ = nets.discriminator.apply(
    {'psi': jnp.float32(2)}, {}, packs, train=True
  )
  np.testing.assert_allclose(found, [2.0, 8.0])
