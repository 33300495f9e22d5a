"""Every regularizer by the same rules; penalties of functions known whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets import drawn

from gan_jax import networks, testing
from gan_jax.game.augment import consistency_view
from gan_jax.game.regularizers import (
  REGULARIZERS,
  ZCR_STD,
  Anchors,
  DView,
  GView,
  Lecam,
)

SLOPE = np.array([0.6, -0.8, 1.2])  # of the linear critic; its norm is 1.562
NORM2 = float((SLOPE**2).sum())
WEIGHTS = np.array([[1.0, -0.5, 0.3], [0.2, 0.7, -1.1]])  # of the linear G


@pytest.mark.parametrize('name', sorted(REGULARIZERS))
def test_keeps_all_promises(name):
  assert testing.check_regularizer(REGULARIZERS[name]) == []
  assert REGULARIZERS[name]().name == name
  assert 'Reference' in REGULARIZERS[name].__doc__


# What a name alone stands for: R1 and R2's gamma (Mescheder et al. 2018), the
# lambda of WGAN-GP and DRAGAN, c of WGAN, and those of the papers of each.
DEFAULTS = {
  'r1': 10,
  'r2': 10,
  'zero_centred': 10,
  'wgan_gp': 10,
  'wgan_gp_one_sided': 10,
  'dragan': 10,
  'lecam': 0.3,
  'cr': 10,
  'bcr': 10,
  'zcr': 5,
  'zcr_g': 0.5,
  'orthogonal': 1e-4,
  'orthogonal_g': 1e-4,
}


@pytest.mark.parametrize('name', DEFAULTS)
def test_default_weights_are_those_of_the_papers(name):
  regularizer = REGULARIZERS[name]()
  assert regularizer.weight == DEFAULTS[name]
  assert regularizer.lazy == 1  # no paper's default


def test_other_numbers_are_those_of_the_papers():
  assert REGULARIZERS['clip']().bound == 0.01
  assert ZCR_STD == 0.05 and Lecam.DECAY == 0.99


def linear(x, label=None, weights=tuple(SLOPE)):
  return x.reshape(x.shape[0], -1) @ jnp.asarray(weights, jnp.float32)


def quadratic(x, label=None):
  """`|x|^2 / 2`, whose gradient is x."""
  return jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim))) / 2


def generate(z):
  return z @ jnp.asarray(WEIGHTS, jnp.float32)


def view_of(critic=linear, n=16, seed=0, shape=(3,), **more):
  rng = np.random.default_rng(seed)
  real = jnp.float32(rng.normal(size=(n, *shape)))
  z = jnp.float32(rng.normal(size=(n, 2)))
  fake = generate(z)
  if shape != (3,):
    fake = jnp.float32(rng.normal(size=(n, *shape)))
  made = dict(
    critic=critic,
    critic_fake=critic,
    real=real,
    real_logits=critic(real),
    real_heads={},
    real_label=None,
    fake=fake,
    fake_logits=critic(fake),
    fake_heads={},
    fake_label=None,
    z=z,
    generate=generate,
    params={'kernel': jnp.eye(3) * 2, 'bias': jnp.ones(3)},
    memory=(),
    key=jax.random.key(seed),
    step=jnp.int32(0),
  )
  return DView(**(made | more))


def g_view(**fields):
  """What a penalty on G sees of the same samples."""
  seen = view_of()._asdict() | fields
  return GView(**{name: seen[name] for name in GView._fields})


def again(view):
  """The same view, its key unused so far."""
  return view._replace(key=jax.random.clone(view.key))


def on_d(name, view, **fields):
  return REGULARIZERS[name](**fields).on_d(again(view))


@pytest.mark.parametrize(
  'name, fields',
  [(name, {}) for name in sorted(REGULARIZERS)]
  + [('wgan_gp', {'place': 'real'}), ('wgan_gp', {'place': 'fake'})],
)
def test_samples_go_with_their_own_classes(name, fields):
  """Real ones to the critic of real ones; of interpolates, the real class."""
  kind = REGULARIZERS[name](**fields)
  if 'd' not in kind.acts_on:
    return
  place = getattr(kind, 'place', '') or getattr(kind, 'usual', '')
  asked, labels = [], {'real': jnp.arange(16), 'fake': 100 + jnp.arange(16)}

  def critic(which):
    def judge(x, label=None):
      if label is not None:
        asked.append((which, 'real' if label[0] == 0 else 'fake'))
      return linear(x[..., 0, 0, :] if x.ndim == 4 else x)

    return judge

  shape = (4, 4, 3) if kind.images else (3,)
  view = view_of(critic('real'), shape=shape)._replace(
    critic_fake=critic('fake'),
    real_label=labels['real'],
    fake_label=labels['fake'],
    memory=kind.init_memory(),
  )
  kind.on_d(again(view))
  expected = {
    'cr': {('real', 'real')},
    'bcr': {('real', 'real'), ('fake', 'fake')},
    'zcr': {('fake', 'fake')},
  }.get(name, {('real', 'fake' if place == 'fake' else 'real')})
  assert set(asked) == (
    expected if place or name in ('cr', 'bcr', 'zcr') else set()
  )


@pytest.mark.parametrize(
  'name', ['r1', 'r2', 'zero_centred', 'cr', 'bcr', 'zcr', 'zcr_g']
)
def test_both_sides_of_a_difference_are_moved(name):
  """Of a player w times as large w^2 as much, and its slope by w is twice it.

  So it is not where one side stands still, or where a norm is no square.
  """
  kind = REGULARIZERS[name]()
  shape = (4, 4, 3) if kind.images else (3,)

  def penalty(w):
    if name == 'zcr_g':
      make = lambda z: w * generate(z)
      return kind.on_g(again(g_view(generate=make, fake=make(view_of().z))))
    return kind.on_d(
      again(view_of(lambda x, _=None: w * quadratic(x), shape=shape))
    )

  value, slope = jax.value_and_grad(penalty)(1.0)
  assert abs(value) > 0
  np.testing.assert_allclose(slope, 2 * value, rtol=1e-4)


# Penalty on D of the linear critic `w x`: its slope is w everywhere.
LINEAR = {
  'r1': NORM2 / 2,
  'r2': NORM2 / 2,
  'zero_centred': NORM2,
  'wgan_gp': (np.sqrt(NORM2) - 1) ** 2,
  'wgan_gp_one_sided': (np.sqrt(NORM2) - 1) ** 2,
  'dragan': (np.sqrt(NORM2) - 1) ** 2,
}


@pytest.mark.parametrize('name', LINEAR)
def test_gradient_penalties_of_a_known_slope(name):
  kind, view = REGULARIZERS[name], view_of()
  for place in ('', *kind.places):
    found = on_d(name, view, place=place)
    np.testing.assert_allclose(found, LINEAR[name], rtol=1e-5)


def test_one_sided_leaves_gentle_slopes_alone():
  gentle = functools.partial(linear, weights=(0.3, 0.0, 0.0))
  view = view_of(gentle)
  assert float(on_d('wgan_gp_one_sided', view)) == 0.0
  np.testing.assert_allclose(on_d('wgan_gp', view), 0.49, rtol=1e-5)


def test_slopes_on_interpolates_against_float64():
  """A critic whose slope is where it is; one coefficient for each pair."""
  view = view_of(quadratic)
  u = np.float64(jax.random.uniform(jax.random.clone(view.key), (16,)))[:, None]
  assert len(np.unique(u)) == 16
  at = u * np.float64(view.real) + (1 - u) * np.float64(view.fake)
  norms = np.sqrt((at**2).sum(1))
  expected = {
    'zero_centred': norms**2,
    'wgan_gp': (norms - 1) ** 2,
    'wgan_gp_one_sided': np.maximum(norms - 1, 0) ** 2,
  }
  for name, each in expected.items():
    found = on_d(name, view)
    np.testing.assert_allclose(found, each.mean(), rtol=1e-5, err_msg=name)


def test_dragan_against_float64():
  """One number an example for how far, one a number of it for where to."""
  view = view_of(quadratic)
  key_a, key_d = jax.random.split(jax.random.clone(view.key))
  x = np.float64(view.real)
  a = np.float64(jax.random.uniform(key_a, (16,)))[:, None]
  d = np.float64(jax.random.uniform(key_d, (48,))).reshape(16, 3)
  norms = np.sqrt(((x + a * d * x.std() / 2) ** 2).sum(1))
  np.testing.assert_allclose(
    on_d('dragan', view), ((norms - 1) ** 2).mean(), rtol=1e-5
  )


@pytest.mark.parametrize('place', ['real', 'fake'])
def test_places_are_where_the_slope_is_looked_at(place):
  view = view_of(quadratic)
  at = np.float64(getattr(view, place))
  norms = np.sqrt((at**2).sum(1))
  name = 'r1' if place == 'real' else 'r2'
  for found, each in (
    (on_d(name, view), norms**2 / 2),
    (on_d('wgan_gp', view, place=place), (norms - 1) ** 2),
    (on_d('zero_centred', view, place=place), norms**2),
  ):
    np.testing.assert_allclose(found, each.mean(), rtol=1e-5)


def test_another_place_is_in_the_name():
  for place, name in (
    ('real', 'wgan_gp@real'),
    ('interpolates', 'wgan_gp'),
    ('', 'wgan_gp'),
  ):
    assert REGULARIZERS['wgan_gp'](place=place).name == name


def test_dragan_looks_near_real_samples():
  """a, a number an example in [0, 1); d up to half the batch's deviation."""
  far = []

  def critic(x, label=None):
    jax.debug.callback(lambda v: far.append(np.asarray(v)), x)
    return quadratic(x)

  view = view_of(quadratic, n=512)
  on_d('dragan', view._replace(critic=critic))
  away = far[-1] - np.asarray(view.real)
  limit = float(np.asarray(view.real).std()) / 2
  assert away.min() >= -1e-6 and away.max() <= limit + 1e-6
  assert away.max() > 0.8 * limit


def test_lecam_against_numpy():
  memory = Anchors(jnp.float32(0.3), jnp.float32(-0.2))
  view = view_of(memory=memory)
  real, fake = np.float64(view.real_logits), np.float64(view.fake_logits)
  expected = ((real + 0.2) ** 2).mean() + ((fake - 0.3) ** 2).mean()
  np.testing.assert_allclose(on_d('lecam', view), expected, rtol=1e-5)
  moved = Lecam().next_memory(memory, view)
  np.testing.assert_allclose(
    moved,
    [0.99 * 0.3 + 0.01 * real.mean(), 0.99 * -0.2 + 0.01 * fake.mean()],
    rtol=1e-5,
  )


def test_consistency_against_numpy():
  """A flip and a shift, of other draws for each kind of samples."""
  slope = np.random.default_rng(5).normal(size=128)
  critic = functools.partial(linear, weights=slope)
  view = view_of(critic, shape=(8, 8, 2))

  def away(x, key):
    return np.float64(consistency_view(x, key) - x).reshape(16, -1) @ slope

  on_real = away(view.real, jax.random.clone(view.key))
  found = on_d('cr', view)
  np.testing.assert_allclose(found, (on_real**2).mean(), rtol=1e-4)
  key_real, key_fake = jax.random.split(jax.random.clone(view.key))
  squares = away(view.real, key_real) ** 2 + away(view.fake, key_fake) ** 2
  np.testing.assert_allclose(on_d('bcr', view), squares.mean(), rtol=1e-4)


def test_zcr_against_numpy():
  """Of D and of G, for noise a little beside that of the samples."""
  view = view_of()
  noise = jax.random.normal(jax.random.clone(view.key), (32,)).reshape(16, 2)
  away = 0.05 * np.float64(noise) @ WEIGHTS
  found = on_d('zcr', view)
  np.testing.assert_allclose(found, ((away @ SLOPE) ** 2).mean(), rtol=1e-3)
  found = REGULARIZERS['zcr_g']().on_g(g_view(key=jax.random.clone(view.key)))
  np.testing.assert_allclose(found, -(away**2).sum(1).mean(), rtol=1e-3)


def orthogonal(params):
  """What both of them make of some parameters, D's and G's."""
  return (
    on_d('orthogonal', view_of(params=params)),
    REGULARIZERS['orthogonal_g']().on_g(g_view(params=params)),
  )


@pytest.mark.parametrize('shape', [(5, 3), (3, 5), (2, 2, 3, 4)])
def test_orthogonal_against_numpy(shape):
  w = np.random.default_rng(0).normal(size=shape)
  params = {'kernel': jnp.asarray(w, jnp.float32), 'bias': jnp.ones(3)}
  flat = w.reshape(-1, shape[-1])
  gram = min((flat.T @ flat, flat @ flat.T), key=len)
  eye = np.eye(len(gram))
  expected = ((gram - eye) ** 2).sum(), ((gram * (1 - eye)) ** 2).sum()
  np.testing.assert_allclose(orthogonal(params), expected, rtol=1e-4)


def test_orthogonal_kernels_are_left_alone():
  q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 4)))
  found = orthogonal({'kernel': jnp.asarray(q, jnp.float32)})
  np.testing.assert_allclose(found, 0, atol=1e-10)


def test_kernels_alone_are_orthogonal_whatever_their_layout():
  """Of a conditional DCGAN's G, each kernel as (inputs, outputs) by hand."""
  nets = networks.build(
    'dcgan',
    (8, 8, 3),
    bounded=True,
    width=4,
    latent_dim=5,
    conditioning='projection',
    classes=6,
  )
  params, _ = drawn(nets.generator)
  assert params['BatchNorm_0']['scale'].ndim == 2  # a class's own, no kernels
  matrices = []
  for layer, arrays in params.items():
    if 'kernel' in arrays:
      w = np.float64(arrays['kernel'])
      if layer.startswith('ConvTranspose'):  # (taps, taps, outputs, inputs)
        w = np.moveaxis(w, 2, 3)
      matrices.append(w.reshape(-1, w.shape[-1]))
  assert len(matrices) == 3
  expected = np.zeros(2)
  for w in matrices:
    gram = w.T @ w if len(w) >= len(w.T) else w @ w.T
    eye = np.eye(len(gram))
    expected += ((gram - eye) ** 2).sum(), ((gram * (1 - eye)) ** 2).sum()
  np.testing.assert_allclose(orthogonal(params), expected, rtol=1e-4)


def test_clip_is_a_projection():
  """Of any bound in one program, member by member, whatever the precision."""
  clip = REGULARIZERS['clip']
  params = {'kernel': jnp.array([[-2.0, 0.005], [0.02, 1.0]])}
  clipped = clip().project_d(params)['kernel']
  np.testing.assert_allclose(clipped, [[-0.01, 0.005], [0.01, 0.01]])
  w = jnp.array([-1e4, -0.3, 0.0, 0.3, 1e4])
  project = jax.jit(
    jax.vmap(
      lambda bound, params: clip(bound=bound).project_d(params), (0, None)
    )
  )
  for dtype in (jnp.float32, jnp.bfloat16):
    bounds = jnp.array([0.1, 1.0], dtype)
    found = project(bounds, {'kernel': w.astype(dtype)})['kernel']
    expected = np.stack([np.clip(w, -b, b) for b in (0.1, 1.0)])
    np.testing.assert_allclose(np.float64(found), expected, rtol=5e-3)
