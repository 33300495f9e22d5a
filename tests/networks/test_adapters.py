"""Networks of four frameworks and of plain functions, under the same game.

A bias that a batch normalisation removes has no slope but for rounding: there
is none here, neither before one, nor at the end of G, whose samples D's
normalises.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.nets import quick
from helpers.untyped import message

from gan_jax import networks
from gan_jax.networks import Net, Networks, check_networks

SIZES = dict(latent_dim=3, sample_shape=(2,))
WIDTH = 5


class LinenG(nn.Module):
  @nn.compact
  def __call__(self, z, train):
    z = nn.Dense(WIDTH, use_bias=False)(z)
    z = nn.BatchNorm(use_running_average=not train)(z)
    return nn.Dense(2, use_bias=False)(nn.relu(z))


class LinenD(nn.Module):
  @nn.compact
  def __call__(self, x, *, training):
    x = nn.Dense(WIDTH, use_bias=False)(x)
    x = nn.BatchNorm(use_running_average=not training)(x)
    x = nn.Dropout(0.5, deterministic=not training)(nn.softplus(x))
    return nn.Dense(1)(x)[:, 0]


def linen_pair():
  return networks.from_linen(LinenG(), LinenD(), **SIZES)


class NnxG(nnx.Module):
  def __init__(self, rngs):
    self.first = nnx.Linear(3, WIDTH, use_bias=False, rngs=rngs)
    self.norm = nnx.BatchNorm(WIDTH, rngs=rngs)
    self.last = nnx.Linear(WIDTH, 2, use_bias=False, rngs=rngs)

  def __call__(self, z):
    return self.last(nnx.relu(self.norm(self.first(z))))


class NnxD(nnx.Module):
  def __init__(self, *, rngs):
    self.first = nnx.Linear(2, WIDTH, use_bias=False, rngs=rngs)
    self.norm = nnx.BatchNorm(WIDTH, rngs=rngs)
    self.drop = nnx.Dropout(0.5, rngs=rngs)
    self.last = nnx.Linear(WIDTH, 1, rngs=rngs)

  def __call__(self, x):
    x = self.drop(nnx.softplus(self.norm(self.first(x))))
    return self.last(x)[:, 0]


def nnx_pair():
  return networks.from_nnx(NnxG, NnxD, **SIZES)


def equinox_pair():
  eqx = pytest.importorskip('equinox')

  class G(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    last: eqx.nn.Linear

    def __init__(self, key):
      keys = jax.random.split(key)
      self.first = eqx.nn.Linear(3, WIDTH, False, key=keys[0])
      self.norm = eqx.nn.BatchNorm(WIDTH, 'batch', mode='batch')
      self.last = eqx.nn.Linear(WIDTH, 2, False, key=keys[1])

    def __call__(self, z, state):
      z, state = self.norm(self.first(z), state)
      return self.last(jax.nn.relu(z)), state

  class D(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    last: eqx.nn.Linear
    shift: jax.Array  # of whole numbers: no parameter

    def __init__(self, *, key):
      keys = jax.random.split(key)
      self.first = eqx.nn.Linear(2, WIDTH, False, key=keys[0])
      self.norm = eqx.nn.BatchNorm(WIDTH, 'batch', mode='batch')
      self.drop = eqx.nn.Dropout(0.5)
      self.last = eqx.nn.Linear(WIDTH, 'scalar', key=keys[1])
      self.shift = jnp.arange(WIDTH)

    def __call__(self, x, state, *, key):
      x, state = self.norm(self.first(x) + self.shift, state)
      return self.last(self.drop(jax.nn.softplus(x), key=key)), state

  return networks.from_equinox(G, D, **SIZES)


def haiku_pair():
  hk = pytest.importorskip('haiku')

  def norm(x, is_training):
    return hk.BatchNorm(True, True, 0.9)(x, is_training)

  def g(z, is_training):
    z = norm(hk.Linear(WIDTH, with_bias=False)(z), is_training)
    return hk.Linear(2, with_bias=False)(jax.nn.relu(z))

  def d(x, is_training):
    x = jax.nn.softplus(norm(hk.Linear(WIDTH, with_bias=False)(x), is_training))
    x = hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x
    return hk.Linear(1)(x)[:, 0]

  pair = map(hk.transform_with_state, (g, d))
  return networks.from_haiku(*pair, **SIZES)


def function_pair():
  def init(sizes, key):
    keys = jax.random.split(key)
    return [
      0.5 * jax.random.normal(k, (m, n))
      for k, m, n in zip(keys, sizes, sizes[1:])
    ]

  def g(params, z):
    return jax.nn.relu(z @ params[0]) @ params[1]

  def d(params, x, key, deterministic):
    h = jax.nn.softplus(x @ params[0])
    if not deterministic:
      h = jnp.where(jax.random.bernoulli(key, 0.5, h.shape), 2 * h, 0)
    return (h @ params[1])[:, 0]

  return networks.from_functions(
    (functools.partial(init, (3, WIDTH, 2)), g),
    (functools.partial(init, (2, WIDTH, 1)), d),
    **SIZES,
  )


PAIRS = {
  'linen': linen_pair,
  'nnx': nnx_pair,
  'equinox': equinox_pair,
  'haiku': haiku_pair,
  'functions': function_pair,
}
EVERY = pytest.mark.parametrize('name', sorted(PAIRS))


def play(nets, key, updates=5, n=8):
  """Updates of D, with the slope of its real logits penalised, and of G."""
  key_g, key_d, key_real, key = jax.random.split(key, 4)
  g, d = nets.generator.init(key_g), nets.discriminator.init(key_d)
  real = 1 + jax.random.normal(key_real, (n, 2))

  def samples(g, key):
    key_z, key = jax.random.split(key)
    z = jax.vmap(lambda k: nets.latent(k, (nets.latent_dim,)))(
      jax.random.split(key_z, n)
    )
    return nets.generator.apply(*g, z, train=True, key=key)

  def d_loss(params, stats, fake, key):
    key, key_fake = jax.random.split(key)

    def logits(real):
      out = nets.discriminator.apply(params, stats, real, train=True, key=key)
      return out[0].sum(), out

    slope, (on_real, moved) = jax.grad(logits, has_aux=True)(real)
    on_fake, moved = nets.discriminator.apply(
      params, moved, fake, train=True, key=key_fake
    )
    loss = jax.nn.softplus(-on_real) + jax.nn.softplus(on_fake)
    return loss.mean() + jnp.square(slope).sum() / n, moved

  def g_loss(params, stats, d, key):
    key, key_d = jax.random.split(key)
    fake, moved = samples((params, stats), key)
    on_fake, _ = nets.discriminator.apply(*d, fake, train=True, key=key_d)
    return jax.nn.softplus(-on_fake).mean(), moved

  def descend(params, grads):
    return jax.tree.map(lambda p, g: p - 0.02 * g, params, grads)

  def update(carry, step):
    g, d = carry
    key_d, key_g, key_z = jax.random.split(jax.random.fold_in(key, step), 3)
    fake, _ = samples(g, key_z)
    grads, stats = jax.grad(d_loss, has_aux=True)(*d, fake, key_d)
    d = descend(d[0], grads), stats
    grads, stats = jax.grad(g_loss, has_aux=True)(*g, d, key_g)
    return ((descend(g[0], grads), stats), d), None

  start = g, d
  end, _ = jax.lax.scan(update, start, jnp.arange(updates))
  z = jnp.ones((n, nets.latent_dim))
  x, _ = nets.generator.apply(*end[0], z, train=False)
  logits, _ = nets.discriminator.apply(*end[1], x, train=False)
  return start, end, x, logits


@EVERY
def test_a_member_is_its_run_alone(name):
  """Two reverse modes through D, vmapped over seeds, in a scan."""
  nets = PAIRS[name]()
  check_networks(nets)
  keys = jax.random.split(jax.random.key(0), 8)
  members = quick(jax.vmap(functools.partial(play, nets)))(
    jax.random.clone(keys)
  )
  alone = quick(functools.partial(play, nets))(keys[3])
  for (path, a), b in zip(
    jax.tree.leaves_with_path(members), jax.tree.leaves(alone), strict=True
  ):
    np.testing.assert_allclose(a[3], b, atol=2e-7, rtol=1e-6, err_msg=str(path))
  start, end = alone[:2]
  for (path, a), b in zip(
    jax.tree.leaves_with_path(start), jax.tree.leaves(end), strict=True
  ):
    assert jnp.isfinite(b).all(), path
    assert 'constants' in str(path) or bool((a != b).any()), path
  of_seeds = jax.tree.leaves(members[0][0][0])  # G's parameters at the start
  assert any(bool((leaf[0] != leaf[1]).any()) for leaf in of_seeds)


@EVERY
def test_outside_of_training_nothing_moves_and_nothing_is_drawn(name):
  nets = PAIRS[name]()
  for net, size in ((nets.generator, 3), (nets.discriminator, 2)):
    params, stats = quick(net.init)(jax.random.key(0))
    leaves = jax.tree.leaves((params, stats))
    assert not any(leaf.weak_type for leaf in leaves)
    x = jnp.ones((4, size))
    keys = None, jax.random.key(1)
    if name == 'functions':  # one names its key, and draws from none
      keys = jax.random.key(2), jax.random.key(1)
    one, still = net.apply(params, stats, x, train=False, key=keys[0])
    other, _ = net.apply(params, stats, x, train=False, key=keys[1])
    assert still is stats
    np.testing.assert_array_equal(one, other)


def test_a_call_receives_what_it_names():
  seen = []

  def init(key):
    return jax.random.normal(key, (3,))

  def g(params, z, training, inference, label, key, other=3):
    seen.append((training, inference, label.shape, key.shape, other))
    return z[:, :2] * params[0]

  def d(params, x, **others):
    seen.append(others)
    return x @ params[:2]

  nets = networks.from_functions((init, g), (init, d), classes=4, **SIZES)
  check_networks(nets)
  g_calls, d_calls = seen[::2], seen[1::2]
  assert g_calls == [(t, not t, (8,), (), 3) for t in (True, False)]
  assert d_calls == [{}, {}]


@pytest.mark.parametrize('framework', ['linen', 'nnx', 'haiku', 'functions'])
def test_call_covers_other_signatures(framework):
  """`x` is not first, and a required argument is none that is known."""
  from_framework = getattr(networks, f'from_{framework}')
  if framework == 'linen':

    class Net(nn.Module):
      out: int

      @nn.compact
      def __call__(self, scale, x):
        return scale * nn.Dense(self.out)(x)

    g, d = Net(2), Net(1)
  elif framework == 'nnx':

    class Net(nnx.Module):
      def __init__(self, sizes, rngs):
        self.dense = nnx.Linear(*sizes, rngs=rngs)

      def __call__(self, scale, x):
        return scale * self.dense(x)

    g = lambda rngs: Net((3, 2), rngs)
    d = lambda rngs: Net((2, 1), rngs=rngs)
  elif framework == 'haiku':
    hk = pytest.importorskip('haiku')

    def net(out, scale, x):
      return scale * hk.Linear(out)(x)

    g, d = (hk.transform(functools.partial(net, out)) for out in (2, 1))
  else:
    g, d = (
      (lambda key, s=s: jnp.ones(s), lambda w, scale, x: scale * x @ w)
      for s in ((3, 2), (2, 1))
    )

  def call(module, x, *, train):
    output = module(2.0 if train else 1.0, x)
    return output[:, 0] if output.shape[1] == 1 else output

  nets = from_framework(g, d, call=call, **SIZES)
  check_networks(nets)
  params, stats = nets.discriminator.init(jax.random.key(0))
  one, two = (
    nets.discriminator.apply(params, stats, jnp.ones((4, 2)), train=train)[0]
    for train in (False, True)
  )
  np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


def test_equinox_in_batches_and_with_a_call():
  eqx = pytest.importorskip('equinox')
  g = lambda key: eqx.nn.Linear(3, 2, key=key)
  d = lambda key: eqx.nn.Linear(2, 'scalar', key=key)
  check_networks(networks.from_equinox(g, d, **SIZES))

  def call(module, x):
    return jax.vmap(module)(x)

  check_networks(networks.from_equinox(g, d, call=call, batched=True, **SIZES))


def test_streams_of_linen_draw_from_the_key():
  class D(nn.Module):
    @nn.compact
    def __call__(self, x):
      noise = jax.random.normal(self.make_rng('noise'), x.shape)
      return nn.Dense(1)(x + noise)[:, 0]

  nets = networks.from_linen(LinenG(), D(), **SIZES)
  params, stats = nets.discriminator.init(jax.random.key(0))
  one, two = (
    nets.discriminator.apply(
      params, stats, jnp.ones((4, 2)), train=True, key=jax.random.key(i)
    )[0]
    for i in (0, 1)
  )
  assert bool((one != two).all())


@EVERY
def test_each_example_is_dropped_from_on_its_own(name):
  """Of a batch of one point many times; and by the key alone."""
  net = PAIRS[name]().discriminator
  params, stats = quick(net.init)(jax.random.key(0))
  apply = quick(functools.partial(net.apply, train=True))
  x = jnp.ones((16, 2))
  one, again, other = (
    apply(params, stats, x, key=jax.random.key(i))[0] for i in (1, 1, 2)
  )
  assert len(set(one.tolist())) > 4
  np.testing.assert_array_equal(one, again)
  assert bool((one != other).any())


@pytest.mark.parametrize('framework', ['linen', 'nnx'])
def test_two_streams_of_a_module_draw_apart(framework):
  class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
      keys = self.make_rng('dropout'), self.make_rng('noise')
      a, b = (jax.random.normal(key, x.shape) for key in keys)
      return nn.Dense(1)(x)[:, 0] * 0 + (a - b)[:, 0]

  class Nnx(nnx.Module):
    def __init__(self, rngs):
      self.rngs = nnx.Rngs(dropout=rngs.dropout(), noise=rngs.noise())
      self.last = nnx.Linear(2, 1, rngs=rngs)

    def __call__(self, x):
      keys = self.rngs.dropout(), self.rngs.noise()
      a, b = (jax.random.normal(key, x.shape) for key in keys)
      return self.last(x)[:, 0] * 0 + (a - b)[:, 0]

  if framework == 'linen':
    nets = networks.from_linen(LinenG(), Linen(), **SIZES)
  else:
    nets = networks.from_nnx(NnxG, Nnx, **SIZES)
  net, x = nets.discriminator, jnp.ones((4, 2))
  params, stats = net.init(jax.random.key(0))
  out, _ = net.apply(params, stats, x, train=True, key=jax.random.key(1))
  assert bool((out != 0).all())


@pytest.mark.parametrize('packing', [1, 3])
@pytest.mark.parametrize('name', ['linen', 'haiku'])
def test_a_packed_discriminator_is_initialised_for_packs(name, packing):
  if name == 'linen':
    pair = LinenG(), LinenD()
  else:
    hk = pytest.importorskip('haiku')
    pair = (
      hk.transform(lambda z: hk.Linear(2)(z)),
      hk.transform(lambda x: hk.Linear(1)(x)[:, 0]),
    )
  build = getattr(networks, f'from_{name}')
  nets = build(*pair, packing=packing, **SIZES)
  check_networks(nets, packing=packing)
  with pytest.raises(Exception) as caught:
    check_networks(nets, packing=2)
  note = caught.value.__notes__[-1]
  assert note.startswith('(when `discriminator=')
  assert note.endswith('was called on float32 (n, 4), with train=True)')


def test_outputs_are_cast_and_heads_too():
  def init(key):
    return jax.random.normal(key, (2,))

  def d(params, x):
    x = x.astype(jnp.bfloat16)
    return x.sum(1), {'class': x, 'count': jnp.ones(len(x), jnp.int32)}

  def g(params, z):
    return (z[:, :2] * params[0]).astype(jnp.float16)

  nets = networks.from_functions((init, g), (init, d), **SIZES)
  check_networks(nets)
  x, _ = nets.generator.apply(jnp.ones(2), {}, jnp.ones((4, 3)), train=True)
  (logits, heads), _ = nets.discriminator.apply({}, {}, x, train=True)
  assert x.dtype == logits.dtype == heads['class'].dtype == jnp.float32
  assert heads['count'].dtype == jnp.int32


class Warm(nn.Module):
  @nn.compact
  def __call__(self, x, temperature):
    return nn.Dense(2)(x / temperature)


class NnxWarm(nnx.Module):
  def __init__(self, width, rngs):
    self.dense = nnx.Linear(3, width, rngs=rngs)

  def __call__(self, x, temperature):
    return self.dense(x / temperature)


class Blind(nn.Module):
  def __call__(self):
    return 0.0


WORDS = (
  'its call requires `temperature`, and is given only what it names of `train`,'
  ' `training`, `is_training`, `deterministic`, `inference`, `key` and `label`:'
  ' give it a default, or write `call=lambda module, x, *, train, key, label:'
  ' module(x, ...)`'
)


@pytest.mark.parametrize(
  ('framework', 'g', 'd', 'told'),
  [
    ('linen', Warm(), LinenD(), f'`g=Warm`: {WORDS}'),
    (
      'linen',
      LinenG(),
      Blind(),
      '`d=Blind`: its call takes no input: the first argument of G is the'
      ' noise, that of D the samples',
    ),
    (
      'linen',
      LinenG,
      LinenD(),
      '`g=LinenG`: is a class: give an instance, `LinenG(...)`',
    ),
    (
      'linen',
      NnxG(nnx.Rngs(0)),
      LinenD(),
      '`g=NnxG`: is no Flax linen module: use an instance of one, or'
      ' `from_nnx`, `from_equinox`, `from_haiku` or `from_functions`',
    ),
    (
      'nnx',
      NnxG(nnx.Rngs(0)),
      NnxD,
      '`g=NnxG`: is built, and so holds the weights of one seed: give the'
      ' class, or a factory, `lambda rngs: NnxG(..., rngs=rngs)`',
    ),
    (
      'nnx',
      NnxG,
      NnxWarm,
      '`d=NnxWarm`: requires `width` beside `rngs`: give a factory,'
      ' `lambda rngs: NnxWarm(..., rngs=rngs)`',
    ),
    (
      'nnx',
      NnxG,
      functools.partial(NnxWarm, 2),
      f'`d=partial`: {WORDS}',
    ),
    (
      'nnx',
      lambda rngs: {},
      NnxD,
      '`g=<lambda>`: makes dict, which is no `nnx.Module`',
    ),
    (
      'nnx',
      NnxG,
      'D',
      '`d=str`: is no factory: give a class or a function of `rngs`',
    ),
    (
      'functions',
      len,
      len,
      '`g=len`: is no pair of functions: give `(init, apply)` with'
      ' `init(key) -> params` and `apply(params, x) -> output`, or a'
      ' `gan_jax.networks.Net`',
    ),
  ],
)
def test_a_module_that_cannot_be_called_is_named(framework, g, d, told):
  build = getattr(networks, f'from_{framework}')
  assert message(build, g, d, **SIZES) == told


def test_equinox_modules_that_are_built_are_refused():
  eqx = pytest.importorskip('equinox')
  built = eqx.nn.Linear(3, 2, key=jax.random.key(0))
  told = message(networks.from_equinox, built, built, **SIZES)
  assert told == (
    '`g=Linear`: is built, and so holds the weights of one seed: give the'
    ' class, or a factory, `lambda key: Linear(..., key=key)`'
  )
  told = message(networks.from_equinox, eqx.nn.Linear, eqx.nn.Linear, **SIZES)
  assert told == (
    '`g=Linear`: requires `in_features`, `out_features` beside'
    ' `key`: give a factory, `lambda key: Linear(..., key=key)`'
  )


def test_haiku_functions_are_transformed():
  pytest.importorskip('haiku')
  told = message(networks.from_haiku, message, message, **SIZES)
  assert told == (
    '`g=message`: is not transformed: give `hk.transform_with_state(message)`'
  )


def of_functions(g=None, d=None, g_init=None, **sizes):
  """Checks networks that are right but for what is given."""

  def init(key):
    return {'w': jax.random.normal(key, (3,))}

  def generator(params, z):
    return g(params, z) if g else z[:, :2] * params['w'][0]

  def discriminator(params, x):
    return d(params, x) if d else x[:, 0] * params['w'][0]

  nets = networks.from_functions(
    (g_init or init, generator), (init, discriminator), **(SIZES | sizes)
  )
  check_networks(nets)


def zeros(*shape, dtype=jnp.float32):
  return lambda params, x: jnp.zeros((len(x), *shape), dtype)


SHAPE = (
  'give the sizes of one sample without the batch, a tuple such as'
  ' `(32, 32, 3)`, or `(2,)` for points'
)
G, D = '`generator=generator`: ', '`discriminator=discriminator`: '


@pytest.mark.parametrize(
  ('wrong', 'told'),
  [
    (
      dict(latent_dim=0),
      '`latent_dim=0`: give the dimensions of the noise, 1 or more',
    ),
    (
      dict(latent_dim=2.0),
      '`latent_dim=2.0`: give the dimensions of the noise, 1 or more',
    ),
    (dict(sample_shape=784), f'`sample_shape=784`: {SHAPE}'),
    (dict(sample_shape=()), f'`sample_shape=()`: {SHAPE}'),
    (dict(sample_shape=(8, -1)), f'`sample_shape=(8, -1)`: {SHAPE}'),
    (
      dict(classes=-1),
      '`classes=-1`: give the number of classes, 0 for none',
    ),
    (
      dict(classes=10),
      '`classes=10`: neither `g=generator` nor `d=discriminator` takes a label:'
      ' let their calls name `label`, or leave `classes` out',
    ),
    (
      dict(latent='normal'),
      '`latent=normal`: give a function `(key, shape) -> array`, such as'
      ' `jax.random.normal`',
    ),
    (
      dict(latent=lambda key, shape: jnp.zeros((5, *shape))),
      '`latent=<lambda>`: returns float32 (5, 3) where the noise of one sample'
      ' was asked for, float32 (3,)',
    ),
    (
      dict(g=zeros(4)),
      f'{G}its samples are float32 (n, 4), not (n, 2): reshape them, or set'
      ' `sample_shape` to what they are',
    ),
    (
      dict(g=zeros(2, dtype=jnp.uint8)),
      f'{G}its samples are uint8: return float32, images in [-1, 1]',
    ),
    (
      dict(g_init=lambda key: {'w': jnp.ones(3, jnp.bfloat16)}),
      f'{G}its parameter `w` is bfloat16: keep parameters in float32; the'
      ' computation may be in another type',
    ),
    (
      dict(d=zeros(1)),
      f'{D}its logits are (n, 1): squeeze them to (n,), `logits[:, 0]`',
    ),
    (
      dict(d=zeros(10)),
      f'{D}its logits are float32 (n, 10): return one a sample, (n,)',
    ),
    (
      dict(d=zeros(dtype=jnp.uint8)),
      f'{D}its logits are uint8: return float32, any real number, as they are'
      ' before a sigmoid or a comparison',
    ),
    (
      dict(d=zeros(dtype=jnp.int32)),
      f'{D}its logits are int32: return float32, any real number, as they are'
      ' before a sigmoid or a comparison',
    ),
    (
      dict(d=lambda params, x: (x, x, x)),
      f'{D}returns a tuple: return logits (n,), or a pair of logits and a dict'
      ' of arrays, its further heads',
    ),
    (
      dict(d=lambda params, x: (x[:, 0], {'class': x.sum()})),
      f'{D}its head `class` is float32 (): return one row a sample, (n, ...)',
    ),
  ],
)
def test_networks_that_do_not_fit_are_named(wrong, told):
  assert message(of_functions, **wrong) == told


INIT = lambda key: ({}, {})
ADAPTERS = (
  'make one by `from_linen`, `from_nnx`, `from_equinox`, `from_haiku` or'
  ' `from_functions` of `gan_jax.networks`'
)


def plain(params, stats, x, *, train, key=None, label=None):
  return x[:, :2], stats


def moving(params, stats, x, *, train, key=None, label=None):
  return x[:, :2], {'mean': x.mean(0)}


def bare(params, stats, x, *, train, key=None, label=None):
  return x[:, :2]


@pytest.mark.parametrize(
  ('g', 'told'),
  [
    (LinenG(), f'`generator=LinenG`: is no `Net`: {ADAPTERS}'),
    (
      Net(lambda key: {}, plain),
      '`generator=plain`: its `init` is to return `(params, stats)`',
    ),
    (
      Net(INIT, bare),
      '`generator=bare`: its `apply` is to return `(output, stats)`',
    ),
    (
      Net(INIT, moving),
      '`generator=moving`: its `apply` returns statistics of other types than'
      " its `init`: {'mean': 'float32(3,)'}, not {}",
    ),
    (
      Net(INIT, zeros),
      '`generator=zeros`: its functions are to be `init(key)` and'
      ' `apply(params, stats, x, *, train, key, label)`, but: got an unexpected'
      " keyword argument 'train'; `from_functions` takes others",
    ),
  ],
)
def test_networks_that_are_handed_in_whole_are_checked(g, told):
  nets = Networks(g, Net(INIT, plain), **SIZES)
  assert message(check_networks, nets) == told
  pair = message(check_networks, (plain, plain))
  assert pair == f'`networks=plain`: is no `Networks`: {ADAPTERS}'


def test_what_a_module_itself_raises_says_where():
  with pytest.raises(TypeError) as caught:
    of_functions(g=lambda params, z: z @ z)
  assert caught.value.__notes__[-1] == (
    '(when `generator=generator` was called on float32 (n, 3), with train=True)'
  )
