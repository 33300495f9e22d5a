"""Games to test with: two MLPs in the plane, steps by hand, one D of all kinds.

Trainers, games and states are arguments of what is compiled here: all that
differ in numbers alone are served by one program.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import networks
from gan_jax.game import game as game_lib
from gan_jax.game.game import Batch, Game
from gan_jax.game.objectives import OBJECTIVES, from_losses
from gan_jax.game.optimizers import Sgd
from gan_jax.game.regularizers import REGULARIZERS
from gan_jax.game.schedules import SCHEDULES
from gan_jax.game.streams import stream
from gan_jax.game.trainer import Trainer

BATCH = 8
RATE_G, RATE_D = 1e-2, 2e-2


def jitted(pair):
  """Networks whose starts are compiled once for all trainers."""
  g, d = (
    net._replace(init=jax.jit(net.init))
    for net in (pair.generator, pair.discriminator)
  )
  return pair._replace(generator=g, discriminator=d)


@functools.cache
def mlp(packing=1, norm='none'):
  return jitted(
    networks.build(
      'mlp',
      (2,),
      bounded=False,
      width=4,
      depth=1,
      packing=packing,
      norm_g=norm,
      norm_d=norm,
    )
  )


@functools.cache
def still():
  """`G = a u + b`, `D = c x^2 + w x + e`; u stands for noise, always the same.

  To compile what draws noise is most of what a step of a small game costs.
  """

  def generate(params, stats, z, *, train, key=None, label=None):
    u = jnp.resize(jnp.linspace(-1.5, 1.2, 12).reshape(6, 2), (len(z), 2))
    return params['a'][None] * u + params['b'][None], stats

  def judge(params, stats, x, *, train, key=None, label=None):
    logits = jnp.square(x) @ params['c'] + x @ params['w'] + params['e']
    return logits, stats

  def start(names, key):
    draws = jax.random.normal(key, (len(names), 2))
    return dict(zip(names, 0.5 + 0.3 * draws)), {}

  def start_d(key):
    params, stats = start('cw', key)
    return params | {'e': jnp.float32(0.1)}, stats

  g = networks.Net(functools.partial(start, 'ab'), generate)
  return jitted(networks.Networks(g, networks.Net(start_d, judge), 2, (2,)))


def game_of(objective='non_saturating', regularizers=(), nets=None, packing=1):
  """Without noise, unless networks are given; penalties weigh a tenth."""
  kinds = [REGULARIZERS[name] for name in regularizers]
  return Game(
    nets or still(),
    OBJECTIVES[objective],
    [kind(weight=0.1) if hasattr(kind(), 'weight') else kind for kind in kinds],
    packing=packing,
  )


def trainer_of(
  schedule='alternating',
  game=None,
  optimizer_g=None,
  optimizer_d=None,
  ema=None,
  **settings,
):
  """By gradient descent without momentum; `settings` are the schedule's."""
  return Trainer(
    game or game_of(),
    optimizer_g or Sgd(RATE_G, 0.0),
    optimizer_d or Sgd(RATE_D, 0.0),
    SCHEDULES[schedule](**settings),
    ema,
  )


@jax.jit
def step(trainer, state, batch):
  return trainer.step(state, batch)


def reals(trainer, seed=0):
  """Real batches of a step, which are not alike."""
  rng = np.random.default_rng(seed)
  shape = trainer.real_batches, BATCH, *trainer.game.networks.sample_shape
  return jnp.float32(rng.normal(size=shape))


def start(trainer, seed=0):
  return trainer.init(jax.random.key(seed)), reals(trainer, seed)


def stepped(trainer):
  """State before a step, state after it, and its logs."""
  state, batch = start(trainer)
  return state, *step(trainer, state, batch)


def at(state, **hyper):
  """A state at other hyper-parameters: `r1__weight` is the last of a path."""
  values = dict(state.hyper)
  for name, value in hyper.items():
    (path,) = [
      p for p in values if f'.{p}'.endswith('.' + name.replace('__', '.'))
    ]
    values[path] = jnp.float32(value)
  return state.replace(hyper=values)


def bare(state):
  """Of a state, what the losses read: one structure for all trainers."""
  g, d = (p.replace(opt_state=()) for p in (state.g, state.d))
  return state.replace(g=g, d=d, hyper={}, ema=None)


def step_key(state):
  return stream(state.key, 'step', state.step)


def update_keys(state, number=0):
  """Keys of an update of D and of one of G, in a step where they alternate."""
  return tuple(stream(step_key(state), player, number) for player in 'dg')


@jax.jit
def _gradients(game, state, real, key_d, key_g):
  images = jnp.float32(0)

  def loss(function, key):
    return jax.grad(
      lambda params: function(
        game, params, state, Batch(real), key, images=images
      )[0]
    )

  return (
    loss(game_lib.d_loss, key_d)(state.d.params),
    loss(game_lib.g_loss, key_g)(state.g.params),
  )


def gradients(game, state, real, key_d, key_g):
  """D's and G's gradient of their losses at one point, each with a key."""
  return _gradients(game, bare(state), real, key_d, key_g)


def down(params, grads, rate):
  return jax.tree.map(lambda p, g: p - rate * g, params, grads)


def replaced(state, g=None, d=None):
  """A state with other parameters."""
  if g is not None:
    state = state.replace(g=state.g.replace(params=g))
  return state if d is None else state.replace(d=state.d.replace(params=d))


def net(params, out):
  """A network that is a plain function `(params, x, label) -> output`."""

  def apply(params, stats, x, *, train, key=None, label=None):
    del train, key
    return out(params, x, label), stats

  return networks.Net(lambda key: (params, {}), apply)


def flat(tree):
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def close(a, b, **how):
  np.testing.assert_allclose(flat(a), flat(b), **(dict(atol=1e-6) | how))


def apart(a, b):
  """How far two trees are from each other."""
  return np.abs(flat(a) - flat(b)).max()


def switched(index):
  """One of the objectives, by a traced number: all of them in one program."""
  whole = [kind() for kind in OBJECTIVES.values()]

  def loss(player):
    losses = [getattr(objective, f'{player}_loss') for objective in whole]
    return lambda real, fake: jax.lax.switch(index, losses, real, fake)

  return from_losses(loss('d'), loss('g'), name='switched', relativistic=True)
