"""Every architecture by the same rules, and the known ones by their papers."""

import functools
import math

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gan_jax import networks
from gan_jax.networks import (
  ARCHITECTURES,
  LATENTS,
  NORMS,
  NetworkError,
  layers,
)
from gan_jax.networks.conv import conv, conv_transpose
from gan_jax.state import count_parameters

# (shape, bounded) of samples; an architecture must take at least one of them.
SAMPLES = [((1,), False), ((2,), False), ((8, 8, 1), True), ((16, 16, 3), True)]
FIXED_WIDTH = {'goodfellow2014', 'dirac'}
CLASSES = 5  # as no other axis has

# Compilation is what these tests cost.
quick = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


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


@functools.cache
def first_sample(name):
  """The first of the samples that an architecture takes."""
  return next(c.values[1:] for c in cases() if c.values[0] == name)


EVERY = pytest.mark.parametrize(('name', 'shape', 'bounded'), list(cases()))


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


@EVERY
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_shapes_and_types(name, shape, bounded, dtype):
  nets = built(name, shape, bounded, dtype=dtype)
  for train in (False, True):
    x, logits, g, d, *moved = outputs(nets, train)
    assert x.shape == (6, *shape)
    assert logits.shape == (6,)
    found = jax.tree.leaves((x, logits, g, d, moved))
    assert {p.dtype for p in found} == {jnp.dtype('float32')}
    assert moved == [g[1], d[1]]


@EVERY
@pytest.mark.parametrize('packing', [2, 3])
def test_a_pack_is_judged_as_one(name, shape, bounded, packing):
  alone = outputs(built(name, shape, bounded), True)
  _, logits, g, d, *_ = outputs(
    built(name, shape, bounded, packing=packing), True
  )
  assert logits.shape == (6,)
  assert g == alone[2]
  inputs = [
    p
    for p, q in zip(*map(jax.tree.leaves, (d, alone[3])), strict=True)
    if p.shape != q.shape
  ]
  # Only what meets the samples grows: in resnet also a shortcut.
  assert len(inputs) == {'dirac': 0, 'resnet': 2}.get(name, 1)


@pytest.mark.parametrize('name', sorted(ARCHITECTURES))
def test_jit_is_eager_and_order_does_not_matter(name):
  shape, bounded = first_sample(name)
  nets = built(name, shape, bounded)
  g, d, z = started(name, shape, bounded)

  def whole(z):
    x, _ = nets.generator.apply(*g, z, train=False)
    return x, nets.discriminator.apply(*d, x, train=False)[0]

  for eager, jitted in zip(whole(z), jax.jit(whole)(z), strict=True):
    np.testing.assert_allclose(eager, jitted, rtol=1e-4, atol=1e-5)
  for there, back in zip(whole(z), whole(z[::-1]), strict=True):
    np.testing.assert_allclose(there, back[::-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(
      name,
      marks=[pytest.mark.slow]
      if name in ('sndcgan', 'resnet', 'r3gan')
      else [],
    )
    for name in sorted(ARCHITECTURES)
  ],
)
def test_vmap_over_members_is_a_loop_and_one_program(name):
  """A population's pass: G, D and the slope, over parameters of their own."""
  shape, bounded = first_sample(name)
  nets = built(name, shape, bounded)
  members = [
    jax.tree.map(
      lambda x, s=s: x * s, (drawn(nets.generator), drawn(nets.discriminator))
    )
    for s in (1.0, 0.9)
  ]
  z = nets.sample_latent(jax.random.key(0), 3)

  def whole(member):
    (g, g_stats), (d, d_stats) = member

    def value(g):
      x, _ = nets.generator.apply(g, g_stats, z, train=False)
      return nets.discriminator.apply(d, d_stats, x, train=False)[0].sum()

    return jax.value_and_grad(value)(g)

  one = quick(whole)
  alone = [one(member) for member in members]
  assert one._cache_size() == 1
  stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), *members)
  together = quick(jax.vmap(whole))(stacked)
  for i, each in enumerate(alone):
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(each)):
      size = float(jnp.abs(b).max())
      np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-4 * size)


@EVERY
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_and_in_range_at_large_inputs(name, shape, bounded, dtype):
  nets = built(name, shape, bounded, dtype=dtype)
  g, d, z = started(name, shape, bounded)
  size = 1.0 if bounded else 1e4
  far = size * jnp.sign(jax.random.normal(jax.random.key(3), (6, *shape)))

  @quick
  def both(z, far):
    x, _ = nets.generator.apply(*g, z, train=False)
    return x, nets.discriminator.apply(*d, far, train=False)[0]

  x, logits = both(1e4 * z, far)
  assert jnp.isfinite(x).all() and jnp.isfinite(logits).all()
  assert not bounded or bool((jnp.abs(x) <= 1).all())


@EVERY
def test_running_statistics_move_in_training_only(name, shape, bounded):
  nets = built(name, shape, bounded)
  g, d, z = started(name, shape, bounded)
  inputs = z, jax.random.normal(jax.random.key(2), (6, *shape))
  pair = nets.generator, nets.discriminator
  for net, (params, stats), x in zip(pair, (g, d), inputs, strict=True):
    for train in (False, True):
      _, moved = quick(net.apply, static_argnames='train')(
        params, stats, x, train=train, key=jax.random.key(1)
      )
      if train and stats:
        assert not same(moved, stats)
      else:
        assert same(moved, stats)


def norm_cases():
  for name in sorted(ARCHITECTURES):
    for flag in ('norm_g', 'norm_d'):
      for norm in NORMS:
        try:
          built(name, *first_sample(name), **{flag: norm})
        except NetworkError as error:
          assert f'--{flag}={norm}' in str(error)
          continue
        yield pytest.param(name, flag, norm, id=f'{name}-{flag}-{norm}')


def paths(tree):
  return list(flax.traverse_util.flatten_dict(dict(tree)))


def kernels(params):
  return {path[:-1] for path in paths(params) if path[-1] == 'kernel'}


NORM_CASES = list(norm_cases())


@pytest.mark.parametrize(('name', 'flag', 'norm'), NORM_CASES)
def test_every_norm_that_is_taken(name, flag, norm):
  shape, bounded = first_sample(name)
  nets = built(name, shape, bounded, **{flag: norm})
  x, logits, g, d, *moved = outputs(nets, True)
  assert x.shape == (6, *shape) and logits.shape == (6,)
  assert moved == [g[1], d[1]]
  params, stats = g if flag == 'norm_g' else d
  kept = {'spectral': {'u'}, 'batch': {'mean', 'var'}}.get(norm, set())
  assert {path[-1] for path in paths(stats)} == kept
  if norm == 'spectral':
    assert {path[:-1] for path in paths(stats)} == kernels(params)
  scaled = {path[:-1] for path in paths(params) if path[-1] == 'scale'}
  assert bool(scaled) == (norm not in ('spectral', 'none'))
  plain_biases = {p[:-1] for p in paths(params) if p[-1] == 'bias'} - scaled
  if name not in ('mlp', 'resnet'):  # a bias before each scale would be lost
    assert len(plain_biases) == len(kernels(params)) - len(scaled)


def test_norms_are_taken_where_the_paper_has_some():
  taken = {case.values for case in NORM_CASES}
  for name in ('mlp', 'dcgan', 'infogan', 'sndcgan', 'resnet'):
    for flag in ('norm_g', 'norm_d'):
      assert {n for m, f, n in taken if (m, f) == (name, flag)} == set(NORMS)
  assert {n for m, _, n in taken if m == 'pacgan'} == {'batch', 'none'}


@pytest.mark.parametrize(
  ('name', 'norm_g', 'norm_d'),
  [
    ('infogan', 'instance', 'spectral'),
    ('dcgan', 'spectral', 'layer'),
    ('mlp', 'group', 'batch'),
    ('resnet', 'batch', 'layer'),
  ],
)
def test_a_step_reaches_every_parameter(name, norm_g, norm_d):
  shape, bounded = (8, 8, 1), True
  nets = built(name, shape, bounded, norm_g=norm_g, norm_d=norm_d)
  (g, g_stats), (d, d_stats) = drawn(nets.generator), drawn(nets.discriminator)
  z = nets.sample_latent(jax.random.key(0), 6)

  @quick
  @functools.partial(jax.grad, argnums=(0, 1))
  def slope(g, d):
    x, _ = nets.generator.apply(g, g_stats, z, train=True)
    logits, _ = nets.discriminator.apply(d, d_stats, x, train=True)
    return jax.nn.softplus(-logits).mean()

  for path, leaf in jax.tree.leaves_with_path(slope(g, d)):
    assert jnp.isfinite(leaf).all(), path
    assert leaf.any(), path


def conditional_cases():
  for name in sorted(ARCHITECTURES):
    for conditioning in ('projection', 'embedding'):
      kind = dict(conditioning=conditioning, classes=CLASSES)
      try:
        built(name, *first_sample(name), **kind)
      except NetworkError as error:
        assert name == 'dirac' and '--conditioning=' in str(error)
        continue
      yield pytest.param(name, kind, id=f'{name}-{conditioning}')


@pytest.mark.parametrize(('name', 'kind'), list(conditional_cases()))
def test_labels_are_heeded(name, kind):
  """One class moves its own embedding only; another gives another output."""
  shape, bounded = first_sample(name)
  if name in ('sndcgan', 'resnet'):  # a spectral norm is of all embeddings
    kind = {**kind, 'norm_d': 'batch'}
  nets = built(name, shape, bounded, **kind)
  labels = [jnp.full(6, c, jnp.int32) for c in (1, 3)]
  keys = jax.random.split(jax.random.key(0))
  for net, x in (
    (nets.generator, nets.sample_latent(keys[0], 6)),
    (nets.discriminator, jax.random.normal(keys[1], (6, *shape))),
  ):
    params, stats = drawn(net)

    @quick
    @functools.partial(jax.value_and_grad, has_aux=True)
    def total(params, label, net=net, stats=stats, x=x):
      y, _ = net.apply(params, stats, x, train=False, label=label)
      return jnp.square(y - 0.3).sum(), y

    (_, one), grad = total(params, labels[0])
    (_, three), _ = total(params, labels[1])
    assert not np.allclose(one, three, rtol=1e-3)
    of_classes = [g for g in jax.tree.leaves(grad) if g.shape[0] == CLASSES]
    assert of_classes
    for g in of_classes:
      assert g[1].any()
      assert not np.delete(g, 1, axis=0).any()


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
    ('infogan', (10, 10, 1), {}, 'a multiple of 4, not 10x10'),
    ('infogan', (4, 4, 1), {}, 'from 8 to 128'),
    ('sndcgan', (8, 8, 1), {}, 'from 16 to 128'),
    ('sndcgan', (2,), {}, '--network=mlp for densities'),
    ('pacgan', (8, 8, 1), {}, 'not images; use --network=dcgan'),
    ('pacgan', (2,), {'norm_g': 'layer'}, '--norm_g=layer.*batch or none'),
    ('pacgan', (2,), {'norm_d': 'batch'}, '--norm_d=batch'),
    ('unrolled', (2,), {'norm_d': 'spectral'}, '--norm_d=spectral'),
    ('dirac', (2,), {}, 'one dimension, not 2; use --dataset=delta'),
    ('dirac', (1,), {'width': 3}, '--width=3'),
    (
      'dirac',
      (1,),
      {'conditioning': 'embedding', 'classes': 3},
      '--conditioning=embedding: --network=dirac heeds no labels',
    ),
    (
      'mlp',
      (2,),
      {'conditioning': 'embedding', 'classes': 3, 'packing': 2},
      '--packing=2',
    ),
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
  g, d = shapes_of(nets.generator)[0], shapes_of(nets.discriminator)[0]
  assert (count_parameters(g), count_parameters(d)) == counts
  assert (nets.latent_dim, nets.latent) == latent


@pytest.mark.parametrize('side', [16, 20, 28, 30, 32, 48, 128])
def test_sndcgan_takes_any_side(side):
  nets = built('sndcgan', (side, side, 3), True)
  x, logits, *_ = outputs(nets, True, n=2)
  assert x.shape == (2, side, side, 3) and logits.shape == (2,)


@pytest.mark.parametrize(
  ('name', 'shape'),
  [('infogan', (8, 8, 1)), ('sndcgan', (16, 16, 3)), ('pacgan', (2,))],
)
def test_weights_start_normal_of_deviation_002(name, shape):
  (g, _), (d, _), _ = started(name, shape, len(shape) == 3)
  for path, leaf in jax.tree.leaves_with_path((g, d)):
    kind = path[-1].key
    if kind == 'bias':
      assert not leaf.any(), path
      continue
    mean = 0.0 if kind == 'kernel' else 1.0
    std = 0.0 if (name, kind) == ('pacgan', 'scale') else 0.02
    wide = np.float64(leaf)
    error = 5 * std / math.sqrt(wide.size)
    assert abs(wide.mean() - mean) <= error, path
    assert abs(wide.std() - std) <= error, path


def test_unrolled_starts_orthogonal():
  (g, _), (d, _), _ = start(networks.build('unrolled', (2,), bounded=False))
  for path, leaf in jax.tree.leaves_with_path((g, d)):
    if path[-1].key == 'bias':
      assert not leaf.any()
      continue
    values = np.linalg.svd(np.float64(leaf), compute_uv=False)
    np.testing.assert_allclose(values, 0.8, rtol=1e-5)


def dense(h, layer):
  return h @ np.float64(layer['kernel']) + np.float64(layer.get('bias', 0.0))


def test_pacgan_and_unrolled_against_numpy():
  for name, packing in (('pacgan', 2), ('unrolled', 1)):
    nets = networks.build(name, (2,), bounded=False, packing=packing)
    (g, g_stats), (d, d_stats), z = start(nets)
    x = np.random.default_rng(0).normal(size=(3, 2 * packing))
    h = np.float64(z)
    for i in range({'pacgan': 4, 'unrolled': 2}[name]):
      h = dense(h, g[f'Dense_{i}'])
      if name == 'pacgan':
        h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-4)
      h = np.maximum(h, 0)
    made, moved = nets.generator.apply(g, g_stats, z, train=True)
    last = g[f'Dense_{4 if name == "pacgan" else 2}']
    np.testing.assert_allclose(made, dense(h, last), rtol=1e-3, atol=1e-5)
    if name == 'pacgan':
      first = dense(np.float64(z), g['Dense_0'])
      found = moved['BatchNorm_0']['var']
      expected = 0.95 + 0.05 * first.var(0)
      np.testing.assert_allclose(found, expected, rtol=1e-5)
      h = x
      for i in range(3):
        h = dense(h, d[f'Dense_{i}']).reshape(3, 200, 5).max(-1)
      logits = dense(h, d['Dense_3'])[:, 0]
    else:
      h = np.maximum(dense(x / 4, d['Dense_0']), 0)
      logits = dense(h, d['Dense_1'])[:, 0]
    found, _ = nets.discriminator.apply(d, d_stats, jnp.float32(x), train=False)
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ('name', 'strides', 'slope'),
  [('infogan', (2, 2), 0.2), ('sndcgan', (1, 2, 1, 2, 1, 2, 1), 0.1)],
)
def test_image_discriminators_against_plain_convolutions(name, strides, slope):
  """The layers' order, strides and slopes, and the range of their pixels."""
  nets = built(name, (16, 16, 3), True, norm_d='none')
  params, stats = drawn(nets.discriminator)
  x = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3), minval=-1.0)
  h = (x + 1) / 2 if name == 'infogan' else x
  for i, stride in enumerate(strides):
    layer = params[f'Conv_{i}']
    h = plain(h, layer['kernel'], stride, (1, 1)) + layer['bias'].reshape(
      1, 1, 1, -1
    )
    h = jnp.where(h > 0, h, slope * h)
  h = np.float64(h.reshape(2, -1))
  if name == 'infogan':
    h = dense(h, params['Dense_0'])
    h = np.where(h > 0, h, slope * h)
  logits = dense(h, params[f'Dense_{int(name == "infogan")}'])[:, 0]
  found, _ = nets.discriminator.apply(params, stats, x, train=False)
  np.testing.assert_allclose(found, logits, rtol=1e-3)


def test_dirac_turns_about_its_equilibrium():
  """The field's eigenvalues at (0, 0): i/2 and -i/2 (Mescheder et al. 2018)."""
  nets = networks.build('dirac', (1,), bounded=False)
  z = jnp.zeros((4, 1))

  def judged(theta, psi, x=None):
    if x is None:
      x, _ = nets.generator.apply({'theta': theta}, {}, z, train=True)
    return nets.discriminator.apply({'psi': psi}, {}, x, train=True)[0]

  def field(at):
    def value(theta, psi):  # D climbs, G descends
      real, fake = judged(theta, psi, jnp.zeros((4, 1))), judged(theta, psi)
      return -jnp.mean(jax.nn.softplus(-real) + jax.nn.softplus(fake))

    d_theta, d_psi = jax.grad(value, (0, 1))(at[0], at[1])
    return jnp.stack([-d_theta, d_psi])

  found = np.linalg.eigvals(np.asarray(jax.jacrev(field)(jnp.zeros(2))))
  np.testing.assert_allclose(np.sort_complex(found), [-0.5j, 0.5j], atol=1e-6)


def test_dirac_is_one_point_and_judges_a_packs_mean():
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


@pytest.mark.parametrize(
  ('norm', 'shape', 'groups'),
  [
    ('layer', (6, 3, 3, 8), 1),
    ('layer', (6, 8), 1),
    ('instance', (6, 3, 3, 8), 8),
    ('group', (6, 3, 3, 64), 32),
    ('group', (6, 3, 3, 48), 16),  # as many as divide the channels
    ('group', (6, 64), 32),
  ],
)
@pytest.mark.parametrize('classes', [0, CLASSES])
def test_norms_of_one_example_against_numpy(norm, shape, groups, classes):
  rng = np.random.default_rng(0)
  x, label = rng.normal(3, 2, shape), np.arange(6) % 3 if classes else None
  layer, c = NORMS[norm](classes), shape[-1]
  affine = (classes, c) if classes else (c,)
  scale, bias = rng.normal(size=affine), rng.normal(size=affine)
  parts = x.reshape(6, -1, groups, c // groups)
  mean, var = (
    parts.mean((1, 3), keepdims=True),
    parts.var((1, 3), keepdims=True),
  )
  expected = ((parts - mean) / np.sqrt(var + 1e-5)).reshape(shape)
  ones = (1,) * (len(shape) - 2)
  if classes:
    scale, bias = (p[label].reshape(6, *ones, c) for p in (scale, bias))
    expected = expected * scale + bias
  else:
    expected = expected * scale + bias
  start = layer.init(jax.random.key(0), jnp.float32(x), True, label)['params']
  assert start['scale'].shape == affine and bool((start['scale'] == 1).all())
  rng = np.random.default_rng(0)  # the same once more, as parameters
  rng.normal(3, 2, shape)
  params = {k: jnp.float32(rng.normal(size=affine)) for k in ('scale', 'bias')}
  for train in (False, True):
    found = layer.apply({'params': params}, jnp.float32(x), train, label)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_instance_norm_leaves_features_without_a_place():
  x = jax.random.normal(jax.random.key(0), (4, 8))
  layer = NORMS['instance'](0)
  found = layer.apply(layer.init(jax.random.key(1), x, True), x, True)
  np.testing.assert_array_equal(found, x)


def test_conditional_batch_norm_scales_by_the_class():
  x = jax.random.normal(jax.random.key(0), (6, 3, 3, 4))
  label = jnp.array([0, 2, 1, 2, 0, 1])
  layer = NORMS['batch'](3)
  variables = layer.init(jax.random.key(1), x, False, label)
  rng = np.random.default_rng(0)
  scale, bias = rng.normal(size=(2, 3, 4))
  params = {'scale': jnp.float32(scale), 'bias': jnp.float32(bias)}
  found, _ = layer.apply(
    {**variables, 'params': params}, x, True, label, mutable=['batch_stats']
  )
  wide = np.float64(x)
  wide = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-5)
  each = (np.asarray(label), None, None)
  expected = wide * scale[each] + bias[each]
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def impulses(layer):
  """Inputs to which a layer's answers, in rows, are its kernel's rows."""
  if isinstance(layer, layers.Dense):
    return jnp.eye(12)
  at = [(4, 4), (4, 5), (5, 4), (5, 5)] if layer.stride == 2 else [(4, 4)]
  x = np.zeros((len(at), 6, 10, 10, 6), np.float32)
  for i, (row, column) in enumerate(at):
    x[i, np.arange(6), row, column, np.arange(6)] = 1
  return jnp.asarray(x.reshape(-1, 10, 10, 6))


class Upwards(layers.ConvTranspose):
  stride = 1  # every tap answers one impulse


@pytest.mark.parametrize(
  'layer',
  [
    layers.Dense(9, spectral=True),
    layers.Conv(7, spectral=True),
    layers.Conv(7, 3, 1, spectral=True),
    Upwards(7, 20, spectral=True),
  ],
  ids=['dense', 'conv-4-2', 'conv-3-1', 'transpose'],
)
def test_spectral_kernels_are_of_norm_one(layer):
  """By the layer's answers to impulses and NumPy's singular values."""
  x = impulses(layer)
  variables = layer.init(jax.random.key(0), x)
  params, stats = variables['params'], variables['batch_stats']

  @quick
  def trained(stats):
    def once(stats, _):
      _, moved = layer.apply(
        {'params': params, 'batch_stats': stats}, x, True, mutable='batch_stats'
      )
      return moved['batch_stats'], None

    return jax.lax.scan(once, stats, None, 200)[0]

  def largest(stats):
    y = layer.apply({'params': params, 'batch_stats': stats}, x, False)
    rows = np.float64(y).reshape(-1, y.shape[-1])
    return np.linalg.svd(rows, compute_uv=False)[0]

  moved = trained(stats)
  assert not same(moved, stats)
  np.testing.assert_allclose(largest(moved), 1, atol=1e-3)
  assert abs(largest(stats) - 1) < 0.3  # ten steps are taken at the start
  # What the norm is divided out of has no slope along itself.
  variables = {'params': params, 'batch_stats': moved}

  def loss(params):
    y = layer.apply({**variables, 'params': params}, x, False)
    return jnp.sum(jnp.sin(3 * y))

  slope = quick(jax.grad(loss))(params)['kernel']
  along = jnp.vdot(slope, params['kernel'])
  size = jnp.linalg.norm(slope.ravel()) * jnp.linalg.norm(
    params['kernel'].ravel()
  )
  assert abs(float(along / size)) < 1e-4


def test_every_kernel_of_a_spectral_discriminator_is_of_norm_one():
  shape = (16, 16, 3)
  nets = built('sndcgan', shape, True)
  _, (params, stats), _ = started('sndcgan', shape, True)
  x = jax.random.normal(jax.random.key(0), (1, *shape))

  @quick
  def trained(stats):
    def once(stats, _):
      return nets.discriminator.apply(params, stats, x, train=True)[1], None

    return jax.lax.scan(once, stats, None, 300)[0]

  moved = trained(stats)
  for name, layer in params.items():
    w = np.float64(layer['kernel']).reshape(-1, layer['kernel'].shape[-1])
    v = w @ np.float64(moved[name]['u'])
    sigma = np.linalg.norm(w.T @ (v / np.linalg.norm(v)))
    value = np.linalg.svd(w, compute_uv=False)[0]
    np.testing.assert_allclose(value / sigma, 1, atol=1e-3, err_msg=name)


def test_forward_mode_does_not_pass_a_convolution():
  x, w = jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1))
  with pytest.raises(TypeError, match='forward-mode'):
    jax.jvp(lambda x: conv(x, w, 1, (1, 1)), (x,), (x,))


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


def test_maxout_and_its_slope_against_numpy():
  """One piece of each unit has the slope, whatever is compiled together."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4, 15)).astype(np.float32)
  x[0, :5] = 1.0  # a tie: the first
  w = jnp.float32(rng.normal(size=(15, 15)))

  @quick
  def both(x):
    return jax.value_and_grad(
      lambda x: layers.maxout(x, 5).sum() + layers.maxout(x @ w, 5).sum()
    )(x)

  _, slope = both(jnp.asarray(x))
  parts, onward = x.reshape(4, 3, 5), (x @ np.asarray(w)).reshape(4, 3, 5)
  np.testing.assert_array_equal(layers.maxout(jnp.asarray(x), 5), parts.max(-1))
  first, second = (
    (p.argmax(-1)[..., None] == np.arange(5)).reshape(4, 15)
    for p in (parts, onward)
  )
  np.testing.assert_allclose(slope, first + second @ np.asarray(w).T, rtol=1e-4)
