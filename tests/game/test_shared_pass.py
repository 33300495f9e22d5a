"""Updates at once cost one pass of each network over the samples.

Counted in the body of a compiled loop.
"""

import re

import jax
import jax.numpy as jnp
import pytest
from helpers.nets import built
from helpers.toygame import replaced

from gan_jax.game.game import Batch, Game
from gan_jax.game.objectives import NonSaturating
from gan_jax.game.optimizers import Sgd
from gan_jax.game.schedules import Simultaneous
from gan_jax.game.streams import stream
from gan_jax.game.trainer import Trainer

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
def test_updates_at_once_share_their_passes(name, options):
  point = name != 'dcgan'
  shape = (2,) if point else (8, 8, 1)
  packing = options.get('packing', 1)
  nets = built(name, shape, not point, **options)
  game = Game(nets, NonSaturating(), packing=packing)
  trainer = Trainer(game, Sgd(1e-4), Sgd(1e-4), Simultaneous(), None)
  whole = jax.jit(trainer.init)(jax.random.key(0))
  players = whole.g.params, whole.d.params
  real = jnp.ones((1, BATCH, *shape))
  packs = jnp.ones((BATCH // packing, *shape[:-1], shape[-1] * packing))
  z = jnp.ones((BATCH, nets.latent_dim))

  def state_of(players, number):
    return replaced(whole, *players).replace(step=jnp.int32(number))

  def together(players, number, real):
    after, _ = trainer.step(state_of(players, number), real)
    return after.g.params, after.d.params

  def apart(players, number, real):
    state = state_of(players, number)
    updates = trainer.updates(state, BATCH)
    key = stream(whole.key, 'step', state.step)
    return [
      gradient(state, Batch(real[0]), stream(key, player)).grads
      for player, gradient in (
        ('d', updates.d_gradient),
        ('g', updates.g_gradient),
      )
    ]

  def passes(players, z, packs):
    g, d = players
    made = nets.generator.apply(g, whole.g.stats, z, train=True)
    return made[0], nets.discriminator.apply(
      d, whole.d.stats, packs, train=True
    )[0]

  once = products(passes, players, z, packs)
  twice = products(apart, players, jnp.float32(0), real)
  assert once > 0
  assert products(together, players, jnp.float32(0), real) == twice - once
