"""Every architecture by the same rules."""

import functools
import math

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets import (
  CLASSES,
  built,
  drawn,
  outputs,
  quick,
  same,
  shapes_of,
  started,
)

from gan_jax import networks
from gan_jax.networks import (
  ARCHITECTURES,
  LATENTS,
  NORMS,
  NetworkError,
)

# (shape, bounded) of samples; an architecture must take at least one of them.
SAMPLES = [((1,), False), ((2,), False), ((8, 8, 1), True), ((16, 16, 3), True)]


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

  compiled = jax.jit(whole)
  there = compiled(z)
  for eager, jitted in zip(whole(z), there, strict=True):
    np.testing.assert_allclose(eager, jitted, rtol=1e-4, atol=1e-5)
  for one, back in zip(there, compiled(z[::-1]), strict=True):
    np.testing.assert_allclose(one, back[::-1], rtol=1e-4, atol=1e-5)


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

    def moved(stats, x, net=net, params=params):
      key = jax.random.key(1)
      return [
        net.apply(params, stats, x, train=train, key=jax.random.clone(key))[1]
        for train in (False, True)
      ]

    if not stats:  # nothing is made of nothing, and no program for it
      assert jax.eval_shape(moved, stats, x) == [{}, {}]
      continue
    still, trained = quick(moved)(stats, x)
    assert same(still, stats) and not same(trained, stats)


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


def test_mlp_obeys_width_and_depth():
  nets = networks.build('mlp', (2,), bounded=False, width=7, depth=5)
  d, _ = shapes_of(nets.discriminator)
  assert sorted(d) == [f'Dense_{i}' for i in range(6)]
  assert d['Dense_3']['kernel'].shape == (7, 7)
