"""Every architecture by the same rules, and what is said of broken ones."""

import functools
import math

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets import built, drawn, noise, quick, shapes_of
from helpers.untyped import message

from gan_jax import networks
from gan_jax.networks import (
  ARCHITECTURES,
  LATENTS,
  Architecture,
  Design,
  Net,
)
from gan_jax.testing.networks import check_networks

HEAVY = {'dcgan', 'infogan', 'r3gan', 'resnet', 'sndcgan'}  # to compile


@pytest.mark.parametrize('name', sorted({*ARCHITECTURES} - HEAVY))
def test_every_architecture_conforms(name):
  check_networks(ARCHITECTURES[name], members=name == 'mlp')


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted({*ARCHITECTURES} - {'mlp'}))
def test_every_architecture_conforms_when_all_of_it_is_run(name):
  check_networks(ARCHITECTURES[name])


class G(nn.Module):
  """A generator with one fault."""

  out: int
  width: int = 4
  fault: str = ''

  @nn.compact
  def __call__(self, z, train, label=None):
    far = jnp.exp(z[:, :1])
    z = nn.tanh(nn.Dense(4 if self.fault == 'width' else self.width)(z))
    if self.fault == 'batch':
      z = z - z.mean(0, keepdims=True)
    if self.fault == 'statistics':
      mean = self.variable('batch_stats', 'mean', jnp.zeros, (z.shape[-1],))
      z = z + mean.value[None]
    if self.fault == 'dead':
      self.param('dead', nn.initializers.ones, ())
    if self.fault == 'impure':
      z = z * np.random.default_rng().uniform()
    x = nn.Dense(self.out)(z)
    return x * far if self.fault == 'far' else x


class D(nn.Module):
  """Likewise."""

  width: int = 4
  norm: str = 'none'
  fault: str = ''

  @nn.compact
  def __call__(self, x, train, label=None):
    x = nn.Dense(self.width)(x.reshape(len(x), -1))
    if self.norm == 'layer' and self.fault != 'norm':
      x = nn.LayerNorm()(x)
    logits = nn.Dense(1)(nn.tanh(x))
    return logits if self.fault == 'shape' else logits[:, 0]


def faulty(fault, **declared):
  def design(ask):
    if fault == 'raises' and ask.shape != (2,):
      raise KeyError(ask.shape)
    width = ask.width or 4
    return Design(
      G(math.prod(ask.shape), width, fault)
      if len(ask.shape) == 1
      else Images(ask.shape),
      D(width, ask.norm_d or 'none', fault),
      latent_dim=3,
      latent='normal',
    )

  declared = dict(samples=((2,),), width=True, labels=False) | declared
  return Architecture(design, **declared)


class Images(nn.Module):
  shape: tuple

  @nn.compact
  def __call__(self, z, train, label=None):
    return nn.Dense(math.prod(self.shape))(z).reshape(-1, *self.shape)


@pytest.mark.parametrize(
  ('fault', 'declared', 'told'),
  [
    (
      '',
      {'samples': ()},
      'names no samples that it could be tested with; give',
    ),
    ('', {'norms_d': ('leyer',)}, "norms_d names what is no norm: ['leyer']"),
    (
      '',
      {'samples': ((8, 8, 1),), 'width': False},
      'makes images outside of [-1, 1]',
    ),
    (
      'width',
      {},
      "takes ['width'], but its generator is the same with {'width': 4} and"
      " {'width': 8}",
    ),
    (
      '',
      {'depth': True},
      "takes ['depth'], but its generator is the same with {'depth': 1} and"
      " {'depth': 3}",
    ),
    (
      'norm',
      {'norms_d': ('layer', 'none')},
      "takes ['norm_d'], but its discriminator is the same with"
      " {'norm_d': 'none'} and {'norm_d': 'layer'}",
    ),
    (
      'shape',
      {},
      '`discriminator=D`: its logits are (n, 1): squeeze them to (n,)',
    ),
    ('raises', {}, 'raises KeyError for samples of (1,)'),
    ('batch', {}, 'outside of training, what it returns for a sample depends'),
    ('dead', {}, "['dead'] of its generator has no effect on any output"),
    ('statistics', {}, 'its generator has statistics, and training moves none'),
    ('impure', {}, 'is another function when it is traced again'),
    ('far', {}, 'is not finite at noise or samples of 1e4'),
    (
      '',
      {'labels': True},
      'its discriminator returns the same for two classes; let it depend on'
      ' `label`, or declare `labels=False`',
    ),
  ],
)
def test_what_an_architecture_lacks_is_said(fault, declared, told):
  architecture = faulty(fault, **declared)
  said = message(check_networks, architecture, error=AssertionError)
  assert said.startswith('the architecture') and told in said


def test_what_is_no_architecture_is_said():
  said = message(check_networks, faulty, error=AssertionError)
  assert said == (
    'the architecture: is a function; give'
    ' `Architecture(design, samples=((8, 8, 1),))`'
  )


def test_an_architecture_without_faults_conforms():
  check_networks(faulty(''))


def test_networks_of_ones_own_are_checked_too():
  def apply(params, stats, x, *, train, key=None, label=None):
    del train, key, label
    return jnp.tanh(x @ params), {'seen': stats['seen'] + 1}

  def init(key):
    return jax.random.normal(key, (2, 2)), {'seen': jnp.zeros(())}

  def judge(params, x):
    return jnp.tanh(x @ params).sum(1)

  good = networks.from_functions(
    (lambda key: init(key)[0], lambda params, z: jnp.tanh(z @ params)),
    (lambda key: init(key)[0], judge),
    latent_dim=2,
    sample_shape=(2,),
  )
  check_networks(good)
  bad = good._replace(generator=Net(init, apply))
  assert message(check_networks, bad, error=AssertionError) == (
    'networks: its generator moves its statistics outside of training'
  )


def norm_cases():
  """Architectures and norms that they take in both networks, or in one."""
  for name, architecture in ARCHITECTURES.items():
    norms = {'g': architecture.norms_g, 'd': architecture.norms_d}
    for norm in sorted({*norms['g'], *norms['d']}):
      yield name, norm, ''.join(p for p in norms if norm in norms[p])


def paths(tree):
  return list(flax.traverse_util.flatten_dict(dict(tree)))


def kernels(params):
  return {path[:-1] for path in paths(params) if path[-1] == 'kernel'}


@pytest.mark.parametrize(('name', 'norm', 'players'), list(norm_cases()))
def test_norms_have_what_their_papers_say(name, norm, players):
  shape = ARCHITECTURES[name].samples[0]
  nets = built(name, shape, **{f'norm_{player}': norm for player in players})
  for player in players:
    net = {'g': nets.generator, 'd': nets.discriminator}[player]
    params, stats = shapes_of(net)
    names = {'spectral': {'u'}, 'batch': {'mean', 'var'}}.get(norm, set())
    assert {path[-1] for path in paths(stats)} == names
    if norm == 'spectral':
      assert {path[1:-1] for path in paths(stats)} == kernels(params)
    scaled = {path[:-1] for path in paths(params) if path[-1] == 'scale'}
    assert bool(scaled) == (norm not in ('spectral', 'none'))
    biases = {p[:-1] for p in paths(params) if p[-1] == 'bias'} - scaled
    if name not in ('mlp', 'resnet'):  # a bias before each scale would be lost
      assert len(biases) == len(kernels(params)) - len(scaled)


@pytest.mark.parametrize(
  ('name', 'norm_g', 'norm_d'),
  [
    ('dcgan', 'spectral', 'layer'),
    ('mlp', 'group', 'batch'),
    pytest.param('infogan', 'instance', 'spectral', marks=pytest.mark.slow),
    pytest.param('resnet', 'batch', 'layer', marks=pytest.mark.slow),
  ],
)
def test_an_update_reaches_every_parameter(name, norm_g, norm_d):
  nets = built(name, (8, 8, 1), norm_g=norm_g, norm_d=norm_d)

  @quick
  @functools.partial(jax.grad, argnums=(0, 1))
  def slope(g, d, g_stats, d_stats):
    z = noise(nets, jax.random.key(0), 6)
    x, _ = nets.generator.apply(g, g_stats, z, train=True)
    logits, _ = nets.discriminator.apply(d, d_stats, x, train=True)
    return jax.nn.softplus(-logits).mean()

  (g, g_stats), (d, d_stats) = drawn(nets.generator), drawn(nets.discriminator)
  for path, leaf in jax.tree.leaves_with_path(slope(g, d, g_stats, d_stats)):
    assert np.isfinite(leaf).all(), path
    assert np.any(leaf), path


@pytest.mark.parametrize('name', sorted(LATENTS))
def test_latents_are_of_their_distribution(name):
  nets = built('mlp', (2,), latent=name, latent_dim=3)
  z = np.asarray(quick(lambda key: noise(nets, key, 20_000))(jax.random.key(0)))
  assert z.shape == (20_000, 3)
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
    ('mpl', (2,), {}, '`network=mpl`: use mlp'),
    ('mlp', (2,), {'latent': 'norml'}, '`latent=norml`: use normal'),
    (
      'dcgan',
      (2,),
      {},
      '`network=dcgan`: makes images, not samples of shape (2,); use'
      ' `network=mlp` for densities',
    ),
    (
      'dcgan',
      (8, 12, 1),
      {},
      '`network=dcgan`: makes square images of a side from 8 to 128, not 8x12;'
      ' set `image_size=...`, or use `network=mlp`',
    ),
    ('dcgan', (4, 4, 1), {}, 'a side from 8 to 128, not 4x4'),
    ('dcgan', (256, 256, 3), {}, 'a side from 8 to 128, not 256x256'),
    (
      'dcgan',
      (8, 8, 1),
      {'depth': 2},
      '`depth=2`: the depth of `network=dcgan` is fixed; leave it out',
    ),
    (
      'goodfellow2014',
      (2,),
      {},
      '`network=goodfellow2014`: makes bounded samples (images); use'
      ' `network=mlp` for densities',
    ),
    ('goodfellow2014', (8, 8, 1), {'width': 9}, '`width=9`: the width of'),
    ('infogan', (10, 10, 1), {}, 'from 8 to 128, a multiple of 4, not 10x10'),
    ('infogan', (4, 4, 1), {}, 'from 8 to 128'),
    ('sndcgan', (8, 8, 1), {}, 'from 16 to 128'),
    ('sndcgan', (2,), {}, 'use `network=mlp` for densities'),
    (
      'resnet',
      (24, 24, 3),
      {},
      'of a side of 8, 16, 28, 32, 48, 64, 128, not 24',
    ),
    ('resnet', (32, 32, 3), {'depth': 3}, '`depth=3`: the depth of'),
    ('r3gan', (30, 30, 3), {}, 'halves to one of 4 to 7 pixels, not 30; set'),
    ('r3gan', (32, 32, 3), {'norm_d': 'spectral'}, '`norm_d=spectral`: the'),
    (
      'r3gan',
      (32, 32, 3),
      {'width': 20},
      '`width=20`: `network=r3gan` has groups of 8 channels; use a multiple of'
      ' it, or less',
    ),
    (
      'pacgan',
      (8, 8, 1),
      {},
      '`network=pacgan`: makes points, not images; use `network=dcgan`, or a'
      ' density as `dataset=...`',
    ),
    (
      'pacgan',
      (2,),
      {'norm_g': 'layer'},
      '`norm_g=layer`: `network=pacgan` takes batch or none',
    ),
    ('pacgan', (2,), {'norm_d': 'batch'}, '`norm_d=batch`: the norm_d of'),
    ('unrolled', (2,), {'norm_d': 'spectral'}, '`norm_d=spectral`: the norm_d'),
    (
      'dirac',
      (2,),
      {},
      '`network=dirac`: makes samples of one dimension, not 2; use'
      ' `dataset=delta`, or `network=mlp`',
    ),
    ('dirac', (1,), {'width': 3}, '`width=3`: the width of `network=dirac` is'),
    (
      'dirac',
      (1,),
      {'conditioning': 'embedding', 'classes': 3},
      '`conditioning=embedding`: `network=dirac` takes no labels; use'
      ' `conditioning=none`, or another network',
    ),
    (
      'mlp',
      (2,),
      {'conditioning': 'embedding', 'classes': 3, 'packing': 2},
      '`packing=2`: the samples of a pack would have labels of their own; use'
      ' `packing=1` or `conditioning=none`',
    ),
  ],
)
def test_what_cannot_be_built_is_named(name, shape, kwargs, told):
  bounded = len(shape) == 3
  assert told in message(networks.build, name, shape, bounded=bounded, **kwargs)


def test_mlp_has_its_width_and_depth():
  nets = networks.build('mlp', (2,), bounded=False, width=7, depth=5)
  d, _ = shapes_of(nets.discriminator)
  assert sorted(d) == [f'Dense_{i}' for i in range(6)]
  assert d['Dense_3']['kernel'].shape == (7, 7)


@pytest.mark.parametrize(
  ('name', 'shape'), [('mlp', (2,)), ('dcgan', (8, 8, 1))]
)
def test_a_computation_in_float64_stays_there(name, shape):
  """With parameters that are wide too; nothing is computed."""
  nets = built(name, shape, dtype=jnp.float64, norm_g='batch', norm_d='layer')

  def outputs(key):
    wide = lambda net, key: jax.tree.map(
      lambda leaf: leaf.astype(jnp.float64), net.init(key)
    )
    key_g, key_d = jax.random.split(key)
    g, d = wide(nets.generator, key_g), wide(nets.discriminator, key_d)
    z = jnp.zeros((3, nets.latent_dim))
    x, g_stats = nets.generator.apply(*g, z, train=True)
    return x, g_stats, nets.discriminator.apply(*d, x, train=True)

  jax.config.update('jax_enable_x64', True)
  try:
    found = jax.eval_shape(outputs, jax.random.key(0))
  finally:
    jax.config.update('jax_enable_x64', False)
  assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {
    np.dtype('float64')
  }
