"""Moves made at once cost one pass of each network over the samples."""

import re

import jax
import jax.numpy as jnp
import pytest
from gan_jax.game.losses import Game
from gan_jax.game.step import Plan, init_state, make_train_step
from helpers.nets import built

from gan_jax.game import objectives, schedules
from gan_jax.game.state import Hyper

BATCH = 4
PRODUCT = re.compile(r' (?:dot|convolution)\(|custom-call\(.*matmul')


def products(function, *args):
  """Matrix products and convolutions in the body of a compiled loop."""

  @jax.jit
  def looped(carry, *args):
    def once(carry, _):
      # What depends on the carry cannot be taken out of the loop.
      return carry + 1, function(*jax.tree.map(lambda x: x + carry, args))

    return jax.lax.scan(once, carry, None, length=3)[1]

  text = looped.lower(jnp.float32(0), *args).compile().as_text()
  return len(PRODUCT.findall(text))


# Every norm, points and images.
CASES = [
  ('pacgan', dict(packing=2)),
  ('mlp', dict(norm_g='layer', norm_d='group')),
  pytest.param(
    'dcgan',
    dict(norm_g='instance', norm_d='layer'),
    marks=pytest.mark.skipif(
      jax.__version_info__ < (0, 10),
      reason='the XLA of jax 0.6 computes equal convolutions twice',
    ),
  ),
]


@pytest.mark.parametrize(('name', 'options'), CASES)
def test_moves_at_once_share_their_passes(name, options):
  point = name != 'dcgan'
  shape = (2,) if point else (8, 8, 1)
  nets = built(name, shape, not point, **options)
  plan = Plan(
    Game(nets, objectives.OBJECTIVES['non_saturating']),
    batch_size=BATCH,
    schedule='simultaneous',
    decode=lambda item, key: item,
  )
  hyper = Hyper(lr_g=1e-4, lr_d=1e-4)
  whole = init_state(jax.random.key(0), plan, hyper)
  players = whole.g, whole.d
  real = jnp.ones((1, BATCH, *shape))
  packs = jnp.ones((len(real[0]) // nets.packing, *shape[:-1], shape[-1]))
  packs = jnp.concatenate([packs] * nets.packing, axis=-1)
  z = nets.sample_latent(jax.random.key(1), BATCH)

  def state_of(players, number):
    g, d = players
    return whole.replace(g=g, d=d, step=jnp.int32(number))

  def together(players, number, real):
    after, _ = make_train_step(plan)(state_of(players, number), hyper, real)
    return after.g.params, after.d.params

  def apart(players, number, real):
    state = state_of(players, number)
    keys = jax.random.split(jax.random.fold_in(whole.key, state.step))
    both = schedules.d_gradient, schedules.g_gradient
    return [
      f(plan, state, hyper, real[0], key)[0]
      for f, key in zip(both, keys, strict=True)
    ]

  def passes(players, z, packs):
    g, d = players
    made = nets.generator.apply(g.params, g.stats, z, train=True)
    return made[0], nets.discriminator.apply(
      d.params, d.stats, packs, train=True
    )[0]

  once = products(passes, players, z, packs)
  twice = products(apart, players, jnp.float32(0), real)
  assert once > 0
  assert products(together, players, jnp.float32(0), real) == twice - once
