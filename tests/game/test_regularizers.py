"""Every regularizer by the same rules; penalties of functions known whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets import drawn

from gan_jax import networks
from gan_jax.game import regularizers
from gan_jax.game.regularizers import REGULARIZERS, GView, Term, View

SLOPE = np.array([0.6, -0.8, 1.2])  # of the linear critic; its norm is 1.562
NORM2 = float((SLOPE**2).sum())


def terms():
  """Every penalty on D at each of its places."""
  for name, entry in sorted(REGULARIZERS.items()):
    if entry.on_d:
      for place in entry.places:
        yield Term(name, place if len(entry.places) > 1 else '')


D_TERMS = pytest.mark.parametrize('term', list(terms()), ids=lambda t: t.key)


def linear(x, label=None, weights=tuple(SLOPE)):
  return x.reshape(x.shape[0], -1) @ jnp.asarray(weights, jnp.float32)


def quadratic(x, label=None):
  """`|x|^2 / 2`, whose gradient is x."""
  return jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim))) / 2


def view_of(critic=linear, n=16, seed=0, shape=(3,), dtype=jnp.float32, **more):
  rng = np.random.default_rng(seed)
  real, fake, other = (
    jnp.asarray(rng.normal(size=(n, *shape)), dtype) for _ in range(3)
  )
  made = dict(
    critic=critic,
    critic_fake=critic,
    real=real,
    fake=fake,
    real_label=None,
    fake_label=None,
    real_logits=critic(real),
    fake_logits=critic(fake),
    params={'kernel': jnp.eye(3) * 2, 'bias': jnp.ones(3)},
    key=jax.random.key(seed),
    transform=lambda x, key: x[:, ::-1],
    neighbours=lambda key: other,
    anchors=(jnp.float32(0.3), jnp.float32(-0.2)),
  )
  return View(**(made | more))


def again(view):
  """The same view, its key unused so far."""
  return view._replace(key=jax.random.clone(view.key))


def test_every_entry_is_of_one_kind():
  for name, entry in REGULARIZERS.items():
    kinds = [entry.on_d, entry.on_g, entry.project]
    assert sum(k is not None for k in kinds) == 1, name
    assert entry.weight > 0, name
    assert (entry.on_d or entry.on_g or entry.project).__doc__, name
    assert 'Reference' in (entry.on_d or entry.on_g or entry.project).__doc__


# What a name alone stands for: R1 and R2's gamma (Mescheder et al. 2018), the
# lambda of WGAN-GP and DRAGAN, c of WGAN, and those of the papers of each.
WEIGHTS = {
  'r1': 10,
  'r2': 10,
  'zero_centred': 10,
  'wgan_gp': 10,
  'wgan_gp_one_sided': 10,
  'dragan': 10,
  'clip': 0.01,
  'lecam': 0.3,
  'cr': 10,
  'bcr': 10,
  'zcr': 5,
  'zcr_g': 0.5,
  'orthogonal': 1e-4,
  'orthogonal_g': 1e-4,
}


def test_default_weights_are_those_of_the_papers():
  assert {name: e.weight for name, e in REGULARIZERS.items()} == WEIGHTS
  assert regularizers.ZCR_STD == 0.05
  assert regularizers.LECAM_DECAY == 0.99


# Penalty on D of the linear critic `w x`: its slope is w everywhere.
LINEAR = {
  'r1': NORM2 / 2,
  'r2': NORM2 / 2,
  'zero_centred': NORM2,
  'wgan_gp': (np.sqrt(NORM2) - 1) ** 2,
  'wgan_gp_one_sided': (np.sqrt(NORM2) - 1) ** 2,
  'dragan': (np.sqrt(NORM2) - 1) ** 2,
}


@D_TERMS
def test_gradient_penalties_of_a_known_slope(term):
  if term.name not in LINEAR:
    pytest.skip('looks at no slope')
  view = view_of()
  np.testing.assert_allclose(term.on_d(view), LINEAR[term.name], rtol=1e-5)


def test_one_sided_leaves_gentle_slopes_alone():
  gentle = functools.partial(
    linear, weights=jnp.array([0.3, 0.0, 0.0], jnp.float32)
  )
  view = view_of(gentle)
  assert float(Term('wgan_gp_one_sided').on_d(view)) == 0.0
  np.testing.assert_allclose(Term('wgan_gp').on_d(again(view)), 0.49, rtol=1e-5)


def test_slopes_on_interpolates_against_float64():
  """A critic whose slope is where it is: `|x|^2 / 2`, of slope x."""
  view = view_of(quadratic)
  u = np.float64(jax.random.uniform(jax.random.clone(view.key), (16,)))[:, None]
  at = u * np.float64(view.real) + (1 - u) * np.float64(view.fake)
  norms = np.sqrt((at**2).sum(1))
  expected = {
    'zero_centred': norms**2,
    'wgan_gp': (norms - 1) ** 2,
    'wgan_gp_one_sided': np.maximum(norms - 1, 0) ** 2,
  }
  for name, each in expected.items():
    found = Term(name).on_d(again(view))
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
    Term('dragan').on_d(view), ((norms - 1) ** 2).mean(), rtol=1e-5
  )


@pytest.mark.parametrize('place', ['real', 'fake'])
def test_places_are_where_the_slope_is_looked_at(place):
  view = view_of(quadratic)
  at = np.float64(getattr(view, place))
  norms = np.sqrt((at**2).sum(1))
  name = 'r1' if place == 'real' else 'r2'
  np.testing.assert_allclose(
    Term(name).on_d(view), (norms**2).mean() / 2, rtol=1e-5
  )
  np.testing.assert_allclose(
    Term('wgan_gp', place).on_d(again(view)),
    ((norms - 1) ** 2).mean(),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    Term('zero_centred', place).on_d(again(view)),
    (norms**2).mean(),
    rtol=1e-5,
  )


def test_interpolates_have_one_coefficient_an_example():
  """Points are on the segments between pairs: one u solves all coordinates."""
  view = view_of(linear)
  u = jax.random.uniform(jax.random.clone(view.key), (16,))
  points = u[:, None] * view.real + (1 - u)[:, None] * view.fake
  found, _ = regularizers._at(again(view), 'interpolates')
  np.testing.assert_allclose(found, points, rtol=1e-6)
  solved = (found - view.fake) / (view.real - view.fake)
  np.testing.assert_allclose(solved, jnp.tile(u[:, None], 3), rtol=1e-2)
  assert len(np.unique(np.asarray(u))) == 16


def test_dragan_looks_near_real_samples():
  """a, a number an example in [0, 1); d up to half the batch's deviation."""
  far = []

  def critic(x, label=None):
    jax.debug.callback(lambda v: far.append(np.asarray(v)), x)
    return quadratic(x)

  view = view_of(quadratic, n=512)
  Term('dragan').on_d(view._replace(critic=critic))
  away = far[-1] - np.asarray(view.real)
  limit = float(np.asarray(view.real).std()) / 2
  assert away.min() >= -1e-6 and away.max() <= limit + 1e-6
  assert away.max() > 0.8 * limit


@D_TERMS
def test_invariant_to_the_batch_size(term):
  """The trap: a norm over the whole batch would grow with it."""
  view = view_of(n=8)
  tiled = dict(
    real=jnp.tile(view.real, (4, 1)),
    fake=jnp.tile(view.fake, (4, 1)),
    real_logits=jnp.tile(view.real_logits, 4),
    fake_logits=jnp.tile(view.fake_logits, 4),
    neighbours=lambda key: jnp.tile(view.neighbours(key), (4, 1)),
  )
  once = term.on_d(view)
  more = term.on_d(again(view)._replace(**tiled))
  np.testing.assert_allclose(once, more, rtol=1e-5)


def test_a_norm_over_the_batch_would_be_seen(monkeypatch):
  """The test above fails when the trap is put in."""

  def whole_batch(critic, x, label=None):
    slope = jax.grad(lambda x: jnp.sum(critic(x, label)))(x)
    return jnp.sum(jnp.square(slope)).reshape(1)

  monkeypatch.setattr(regularizers, 'squared_norms', whole_batch)
  with pytest.raises(AssertionError):
    test_invariant_to_the_batch_size(Term('r1'))


@D_TERMS
def test_order_of_the_batch_does_not_matter(term, monkeypatch):
  # One draw for all examples, which otherwise have one each.
  monkeypatch.setattr(
    jax.random, 'uniform', lambda key, shape: jnp.full(shape, 0.3)
  )
  view = view_of(quadratic)
  turned = dict(
    real=view.real[::-1],
    fake=view.fake[::-1],
    real_logits=view.real_logits[::-1],
    fake_logits=view.fake_logits[::-1],
    neighbours=lambda key: view.neighbours(key)[::-1],
  )
  np.testing.assert_allclose(
    term.on_d(view), term.on_d(again(view)._replace(**turned)), rtol=1e-5
  )


@D_TERMS
def test_jit_is_eager_and_vmap_is_a_loop(term):
  def penalty(real):
    view = view_of(quadratic)
    return term.on_d(view._replace(real=real, real_logits=quadratic(real)))

  reals = jnp.stack([view_of(seed=s).real for s in (1, 2)])
  eager = [penalty(real) for real in reals]
  np.testing.assert_allclose(
    [jax.jit(penalty)(real) for real in reals], eager, rtol=1e-5, atol=1e-9
  )
  np.testing.assert_allclose(
    jax.vmap(penalty)(reals), eager, rtol=1e-5, atol=1e-9
  )


@D_TERMS
@pytest.mark.parametrize('size', [0.0, 1e4])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_with_its_slope_at_flat_and_steep_critics(term, size, dtype):
  def penalty(w):
    # As a network of that precision does: logits are float32.
    critic = lambda x, label=None: (x.astype(dtype) @ w).astype(jnp.float32)
    return term.on_d(view_of(critic))

  value, slope = jax.value_and_grad(penalty)(jnp.full(3, size, dtype))
  assert jnp.isfinite(value) and jnp.isfinite(slope).all()


G_TERMS = pytest.mark.parametrize(
  'name', [name for name, e in sorted(REGULARIZERS.items()) if e.on_g]
)


def g_view(fake, w, n=16):
  near = view_of(n=n).real
  return GView(fake, {'kernel': w}, jax.random.key(0), lambda key: near)


@G_TERMS
def test_penalties_on_g_by_the_same_rules(name):
  """jit = eager, vmap = a loop, no order, no batch size, finite far out."""

  def penalty(fake, w):
    return REGULARIZERS[name].on_g(g_view(fake, w))

  fakes = jnp.stack([view_of(seed=s).fake for s in (1, 2)])
  w = jax.random.normal(jax.random.key(0), (2, 3, 5))
  eager = [penalty(*x) for x in zip(fakes, w, strict=True)]
  compiled = jax.jit(penalty)
  jitted = [compiled(*x) for x in zip(fakes, w, strict=True)]
  np.testing.assert_allclose(jitted, eager, rtol=1e-5)
  assert compiled._cache_size() == 1
  np.testing.assert_allclose(jax.vmap(penalty)(fakes, w), eager, rtol=1e-5)

  view = g_view(fakes[0], w[0])
  near = view.neighbours(None)
  for turn in (lambda x: x[::-1], lambda x: jnp.tile(x, (4, 1))):
    turned = view._replace(
      fake=turn(view.fake),
      key=jax.random.clone(view.key),
      neighbours=lambda key, turn=turn: turn(near),
    )
    np.testing.assert_allclose(
      REGULARIZERS[name].on_g(turned), eager[0], rtol=1e-5
    )
  for dtype in (jnp.float32, jnp.bfloat16):
    far = jnp.full((16, 3), 1e4, dtype).at[::2].multiply(-1)
    value, slopes = jax.value_and_grad(penalty, (0, 1))(
      far, jnp.full((3, 5), 1e4, dtype)
    )
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(x).all() for x in slopes)


@D_TERMS
def test_one_program_serves_all_samples(term):
  @jax.jit
  def penalty(real, key):
    view = view_of(quadratic)._replace(key=key)
    return term.on_d(view._replace(real=real, real_logits=quadratic(real)))

  for seed in (1, 2):
    penalty(view_of(seed=seed).real, jax.random.key(seed))
  assert penalty._cache_size() == 1


def test_lecam_against_numpy():
  view = view_of()
  real, fake = np.float64(view.real_logits), np.float64(view.fake_logits)
  expected = ((real + 0.2) ** 2).mean() + ((fake - 0.3) ** 2).mean()
  np.testing.assert_allclose(Term('lecam').on_d(view), expected, rtol=1e-5)


def test_consistency_against_numpy():
  view = view_of()
  real, fake = np.float64(view.real), np.float64(view.fake)
  near = np.float64(view.neighbours(None))
  on_real = (((real - real[:, ::-1]) @ SLOPE) ** 2).mean()
  on_fake = (((fake - fake[:, ::-1]) @ SLOPE) ** 2).mean()
  beside = (((fake - near) @ SLOPE) ** 2).mean()
  for name, expected in [
    ('cr', on_real),
    ('bcr', on_real + on_fake),
    ('zcr', beside),
  ]:
    found = Term(name).on_d(again(view))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_consistency_draws_a_transformation_for_each_kind():
  keys = []

  def transform(x, key):
    keys.append(jax.random.key_data(jax.random.clone(key)).tolist())
    return x

  Term('bcr').on_d(view_of(transform=transform))
  assert len(keys) == 2 and keys[0] != keys[1]


def test_zcr_of_g_against_numpy():
  view = view_of()
  near = view.neighbours(None)
  g_view = GView(view.fake, {}, view.key, lambda key: near)
  away = np.float64(near) - np.float64(view.fake)
  np.testing.assert_allclose(
    REGULARIZERS['zcr_g'].on_g(g_view), -(away**2).sum(1).mean(), rtol=1e-5
  )


@pytest.mark.parametrize('shape', [(5, 3), (3, 5), (2, 2, 3, 4)])
def test_orthogonal_against_numpy(shape):
  w = np.random.default_rng(0).normal(size=shape)
  params = {'kernel': jnp.asarray(w, jnp.float32), 'bias': jnp.ones(3)}
  flat = w.reshape(-1, shape[-1])
  gram = min((flat.T @ flat, flat @ flat.T), key=len)
  eye = np.eye(len(gram))
  np.testing.assert_allclose(
    Term('orthogonal').on_d(view_of(params=params)),
    ((gram - eye) ** 2).sum(),
    rtol=1e-4,
  )
  g_view = GView(jnp.zeros((1, 3)), params, jax.random.key(0), None)
  np.testing.assert_allclose(
    REGULARIZERS['orthogonal_g'].on_g(g_view),
    ((gram * (1 - eye)) ** 2).sum(),
    rtol=1e-4,
  )
  q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 4)))
  params = {'kernel': jnp.asarray(q, jnp.float32)}
  penalty = Term('orthogonal').on_d(view_of(params=params))
  np.testing.assert_allclose(penalty, 0, atol=1e-10)


@pytest.mark.parametrize('name', ['orthogonal', 'orthogonal_g'])
def test_kernels_alone_are_orthogonal_whatever_their_layout(name):
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
  expected = 0.0
  for w in matrices:
    gram = w.T @ w if len(w) >= len(w.T) else w @ w.T
    eye = np.eye(len(gram))
    off = gram - eye if name == 'orthogonal' else gram * (1 - eye)
    expected += (off**2).sum()
  if name == 'orthogonal':
    found = Term(name).on_d(view_of(params=params))
  else:
    view = GView(jnp.zeros((1, 3)), params, jax.random.key(0), None)
    found = REGULARIZERS[name].on_g(view)
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_clip_is_a_projection():
  params = {'kernel': jnp.array([[-2.0, 0.005], [0.02, 1.0]])}
  clipped = REGULARIZERS['clip'].project(params, 0.01)['kernel']
  np.testing.assert_allclose(clipped, [[-0.01, 0.005], [0.01, 0.01]])
  # Of any bound in one program, member by member, whatever the precision.
  w = jnp.array([-1e4, -0.3, 0.0, 0.3, 1e4])
  bounds = jnp.array([0.1, 1.0])
  project = jax.jit(jax.vmap(REGULARIZERS['clip'].project, (None, 0)))
  for dtype in (jnp.float32, jnp.bfloat16):
    found = project({'kernel': w.astype(dtype)}, bounds.astype(dtype))['kernel']
    expected = np.stack([np.clip(w, -b, b) for b in (0.1, 1.0)])
    np.testing.assert_allclose(np.float64(found), expected, rtol=5e-3)
