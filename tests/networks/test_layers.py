"""Norms, spectral kernels, convolutions and maxout, against NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets import CLASSES, built, drawn, plain, quick, same

from gan_jax.networks import (
  NORMS,
  layers,
  resnet,
)
from gan_jax.networks.conv import conv, conv_transpose
from gan_jax.runtime import sharding


def norm_of(x):
  layer = layers.BatchNorm()
  variables = layer.init(jax.random.key(0), x, train=False)
  draws = np.random.default_rng(1).normal(size=(2, x.shape[-1]))
  params = dict(zip(('scale', 'bias'), jnp.float32(draws)))
  return layer, {**variables, 'params': params}


def test_batch_norm_against_numpy():
  x = jnp.asarray(np.random.default_rng(0).normal(3, 2, (16, 4, 4, 5)))
  x = x.astype(jnp.float32)
  layer, variables = norm_of(x)
  y, moved = layer.apply(variables, x, train=True, mutable=['batch_stats'])
  wide = np.asarray(x, np.float64)
  mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
  scale, bias = (np.float64(variables['params'][k]) for k in ('scale', 'bias'))
  expected = (wide - mean) / np.sqrt(var + 1e-5) * scale + bias
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  found = moved['batch_stats']
  np.testing.assert_allclose(found['mean'], 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(found['var'], 0.9 + 0.1 * var, rtol=1e-5)
  y = layer.apply({**variables, **moved}, x, train=False)
  expected = (wide - 0.1 * mean) / np.sqrt(0.9 + 0.1 * var + 1e-5) * scale
  expected += bias
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def in_64_bits():
  jax.config.update('jax_enable_x64', True)
  yield
  jax.config.update('jax_enable_x64', False)


@pytest.mark.parametrize('each', [False, True], ids=['channel', 'example'])
@pytest.mark.parametrize('shape', [(6, 3), (6, 2, 2, 3)], ids=str)
def test_batch_norm_has_the_derivatives_of_its_formula(shape, each, in_64_bits):
  """First and second, of all that it returns, in all that it takes."""

  def formula(x, scale, bias):
    axes = tuple(range(x.ndim - 1))
    mean, var = x.mean(axes), x.var(axes)
    broad = [jnp.broadcast_to(v, x.shape) for v in (mean, var, scale, bias)]
    y = (x - broad[0]) / jnp.sqrt(broad[1] + 1e-5) * broad[2] + broad[3]
    return y, mean, var

  def own(x, scale, bias):
    return layers.batch_normalise(x, scale, bias, jnp.full(3, 2.5), 1e-5)

  rows = (6, *(1,) * (len(shape) - 2), 3) if each else (3,)
  draw = np.random.default_rng(0).normal
  given = draw(3, 2, shape), draw(size=rows), draw(size=rows)
  given = tuple(map(jnp.asarray, given))
  weights = [draw(size=s) for s in (shape, (3,), (3,))]

  def derivatives(f):
    def loss(*given):
      outputs = zip(weights, f(*given), strict=True)
      return sum(jnp.sum(w * jnp.sin(v)) for w, v in outputs)

    def twice(*given):
      slopes = jax.grad(loss, (0, 1, 2))(*given)
      return sum(jnp.sum(jnp.square(v)) for v in slopes), slopes

    return jax.grad(twice, (0, 1, 2), has_aux=True)(*given), f(*given)

  for a, b in zip(
    *map(jax.tree.leaves, map(derivatives, (own, formula))), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_batch_norm_of_features_far_from_the_running_mean():
  """A tenth off in the variance would be a mean of 1,000 deviations."""
  x = 30 + jax.random.normal(jax.random.key(0), (4096, 4))
  _, _, var = layers.batch_normalise(
    x, jnp.ones(4), jnp.zeros(4), jnp.zeros(4), 1e-5
  )
  np.testing.assert_allclose(var, np.float64(x).var(0), rtol=1e-3)


def test_narrow_gradients_are_added_in_float32_over_devices():
  """256 + 1 is 256 in bfloat16, and 256 + 3 is 260."""
  mesh = sharding.make_mesh()
  x = jnp.float32([256, 1, 1, 1])[: mesh.size].astype(jnp.bfloat16)

  def gradients(x):
    image, w = x.reshape(-1, 1, 1, 1), jnp.ones((1, 1, 1, 1))
    return (
      jax.grad(lambda w: conv(image, w, 1, (0, 0)).sum())(w),
      jax.grad(lambda w: layers.narrow_product(x[:, None], w).sum())(w[0, 0]),
    )

  with sharding.splitting_over(mesh):
    found = jax.jit(gradients)(jax.device_put(x, sharding.row_sharding(mesh)))
  for gradient in found:
    assert gradient.dtype == jnp.float32 and gradient.item() == 259


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
  x, label = rng.normal(3, 2, shape), np.arange(6) % 3
  layer, c = NORMS[norm](classes), shape[-1]
  affine = (classes, c) if classes else (c,)
  scale, bias = rng.normal(size=affine), rng.normal(size=affine)
  params = {'scale': jnp.float32(scale), 'bias': jnp.float32(bias)}
  parts = x.reshape(6, -1, groups, c // groups)
  mean, var = (
    parts.mean((1, 3), keepdims=True),
    parts.var((1, 3), keepdims=True),
  )
  expected = ((parts - mean) / np.sqrt(var + 1e-5)).reshape(shape)
  if classes:
    ones = (1,) * (len(shape) - 2)
    scale, bias = (p[label].reshape(6, *ones, c) for p in (scale, bias))
  expected = expected * scale + bias

  @quick
  def outputs(params, x, label):
    label = label if classes else None
    start = layer.init(jax.random.key(0), x, True, label)['params']
    return start['scale'], [
      layer.apply({'params': params}, x, train, label)
      for train in (False, True)
    ]

  start, found = outputs(params, jnp.float32(x), label)
  assert start.shape == affine and bool((start == 1).all())
  for y in found:
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


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
  shorter = jax.tree.map(lambda u: 0.5 * u, moved)  # as averaging makes it
  np.testing.assert_allclose(largest(shorter), 1, atol=1e-3)
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


@pytest.mark.parametrize(
  'layer',
  [
    layers.Dense(9, spectral=True),
    layers.Conv(7, spectral=True),
    layers.ConvTranspose(7, 16, spectral=True),
    resnet.UpConv(7, spectral=True),
    resnet.ConvPool(7, spectral=True),
  ],
  ids=lambda layer: type(layer).__name__,
)
def test_spectral_slope_holds_u_and_v_fixed(layer):
  """(dL/dW' - <dL/dW', W'> v u') / sigma, W' = W / sigma, far from converged.

  Reference: Miyato et al. 2018, arXiv:1802.05957, equations 10 to 12.
  """
  rng = np.random.default_rng(0)
  places = () if isinstance(layer, layers.Dense) else (8, 8)
  x = jnp.float32(rng.normal(size=(3, *places, 6)))
  kernel = jax.eval_shape(layer.init, jax.random.key(0), x)['params']['kernel']
  w = rng.normal(size=kernel.shape)
  turned = isinstance(layer, layers.ConvTranspose)  # outputs not last

  def matrix(w):
    w = np.float64(w)
    return (w.swapaxes(2, 3) if turned else w).reshape(-1, layer.features)

  u = rng.normal(size=layer.features)
  v = matrix(w) @ u
  v /= np.linalg.norm(v)
  u_next = matrix(w).T @ v
  sigma = np.linalg.norm(u_next)
  u_next /= sigma

  def slope(layer, w, stats):
    @quick
    @jax.grad
    def of(w):
      params = {'kernel': w, 'bias': jnp.zeros(layer.features)}
      variables = {'params': params, 'batch_stats': stats}
      y, _ = layer.apply(variables, x, True, mutable='batch_stats')
      return jnp.sin(3 * y).sum()

    return matrix(of(jnp.float32(w)))

  inner = slope(layer.clone(spectral=False), w / sigma, {})
  along = (inner * matrix(w)).sum() / sigma
  expected = (inner - along * np.outer(v, u_next)) / sigma
  found = slope(layer, w, {'u': jnp.float32(u)})
  error = 1e-4 * np.abs(expected).max()
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=error)


def test_a_spectral_head_heeds_no_length_of_its_kernels():
  """Nor of the embedding that it projects on."""

  class Head(nn.Module):
    @nn.compact
    def __call__(self, h, label):
      return layers.head(h, label, 5, spectral=True)

  h = jnp.float32(np.random.default_rng(0).normal(size=(6, 3)))
  label = jnp.arange(6) % 5
  made = Head().init(jax.random.key(0), h, label)
  assert len(made['params']) == len(made['batch_stats']) == 2
  kernels = {
    name: layer | {'kernel': 3 * layer['kernel']}
    for name, layer in made['params'].items()
  }
  longer = Head().apply({**made, 'params': kernels}, h, label)
  np.testing.assert_allclose(longer, Head().apply(made, h, label), rtol=1e-5)


def test_every_kernel_of_a_spectral_discriminator_is_of_norm_one():
  nets = built('sndcgan', (16, 16, 3))
  params, stats = drawn(nets.discriminator)
  x = jnp.zeros((1, 16, 16, 3))

  @quick
  def trained(params, stats):
    def once(_, stats):
      return nets.discriminator.apply(params, stats, x, train=True)[1]

    return jax.lax.fori_loop(0, 300, once, stats)

  moved = trained(params, stats)['batch_stats']
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

  slopes = quick(
    lambda x, w: [
      (order(conv)(x, w), order(plain)(x, w)) for order in (first, second)
    ]
  )(x, w)
  for ours, theirs in slopes:
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize('size', [8, 7])
def test_transpose_is_the_transpose(size):
  """<conv(x), y> = <x, conv_transpose(y)>, and its own gradients."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, size, size, 3)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(4, 4, 3, 5)), jnp.float32)
  padding = (1, 2 * 3 + 4 - 1 - size)
  y = jnp.asarray(rng.normal(size=(2, 4, 4, 5)), jnp.float32)

  def transposed(y, w):
    return jnp.vdot(x, conv_transpose(y, w, 2, padding, (size, size)))

  def product(f, w):
    return jnp.vdot(f(x, w, 2, padding), y)

  @quick
  def both(y, w):
    return (
      (transposed(y, w), product(conv, w)),
      (jax.grad(transposed)(y, w), plain(x, w, 2, padding)),
      (jax.grad(transposed, 1)(y, w), jax.grad(product, 1)(plain, w)),
    )

  values, *slopes = both(y, w)
  np.testing.assert_allclose(*values, rtol=1e-4)
  for one, other in slopes:
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_gradients_are_canonical_convolutions():
  """No layout and no dilated input that CPU kernels are slow at."""
  x, w = jnp.ones((2, 8, 8, 5)), jnp.ones((4, 4, 5, 7))

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
  x[0, ::3] = 1.0  # a tie: the first
  w = jnp.float32(rng.normal(size=(15, 15)))

  @quick
  def both(x):
    return jax.value_and_grad(
      lambda x: layers.maxout(x, 5).sum() + layers.maxout(x @ w, 5).sum()
    )(x)

  _, slope = both(jnp.asarray(x))
  parts, onward = x.reshape(4, 5, 3), (x @ np.asarray(w)).reshape(4, 5, 3)
  np.testing.assert_array_equal(layers.maxout(jnp.asarray(x), 5), parts.max(1))
  first, second = (
    (p.argmax(1)[:, None] == np.arange(5)[:, None]).reshape(4, 15)
    for p in (parts, onward)
  )
  np.testing.assert_allclose(slope, first + second @ np.asarray(w).T, rtol=1e-4)


def test_maxout_hides_nothing():
  """A piece that is no number is its unit's value, first or last."""
  x = np.zeros((3, 6), np.float32)
  x[0, 0] = x[1, 2] = x[2, 5] = np.nan
  found = layers.maxout(jnp.asarray(x), 3)
  expected = [[np.nan, 0], [np.nan, 0], [0, np.nan]]
  np.testing.assert_array_equal(found, expected)
