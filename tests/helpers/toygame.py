"""Games to test with: two MLPs in the plane, and all objectives in one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from gan_jax.game.step import Plan, init_state, make_train_step

from gan_jax import networks
from gan_jax.game import losses as game_lib
from gan_jax.game import objectives
from gan_jax.game.objectives import OBJECTIVES, Equilibrium, Objective
from gan_jax.game.regularizers import Term
from gan_jax.game.state import Hyper

BATCH = 8

RATES = dict(lr_g=1e-2, lr_d=2e-2, beta1_g=0.0, beta1_d=0.0)


@functools.cache
def built(packing, norm='none'):
  return networks.build(
    'mlp',
    (2,),
    bounded=False,
    width=4,
    depth=1,
    packing=packing,
    norm_g=norm,
    norm_d=norm,
  )


def plan_of(
  objective='non_saturating',
  regularizers=(),
  packing=1,
  norm='none',
  **settings,
):
  game = game_lib.Game(
    built(packing, norm),
    objectives.OBJECTIVES[objective],
    regularizers=tuple(Term(name) for name in regularizers),
  )
  settings = dict(optimizer_g='sgd', optimizer_d='sgd') | settings
  return Plan(game=game, batch_size=BATCH, **settings)


def hyper_of(plan, **numbers):
  weights = {t.key: jnp.float32(0.1) for t in plan.game.regularizers}
  return Hyper(**(RATES | dict(penalties=weights) | numbers))


@functools.cache
def begun(plan, seed):
  return init_state(jax.random.key(seed), plan, hyper_of(plan))


@functools.cache
def compiled(plan):
  """The step of a plan, compiled once for all tests of it."""
  return jax.jit(make_train_step(plan))


def start(plan, seed=0, **numbers):
  hyper, state = hyper_of(plan, **numbers), begun(plan, seed)
  state = state.replace(key=jax.random.clone(state.key))
  rng = np.random.default_rng(seed)
  real = rng.normal(size=(plan.real_batches, BATCH, 2))
  return state, hyper, jnp.asarray(real, jnp.float32)


def stepped(plan, **numbers):
  state, hyper, batch = start(plan, **numbers)
  return state, *compiled(plan)(state, hyper, batch)


def move_keys(state):
  """Keys of D's and of G's one move of a step in which they alternate."""
  key = jax.random.fold_in(jax.random.clone(state.key), state.step)
  key_d, key_g = jax.random.split(key)
  (key_turn,) = jax.random.split(key_d, 1)
  return jax.random.split(key_turn)[1], key_g


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


def switched(index):
  """One of the objectives, by a traced number: all of them in one program."""

  def loss(player):
    losses = [getattr(entry, f'{player}_loss') for entry in OBJECTIVES.values()]
    return lambda *args: jax.lax.switch(index, losses, *args)

  return Objective(
    loss('d'),
    loss('g'),
    Equilibrium(0.0, 0.0, 0.0),
    log_ratio=None,
    relativistic=True,
  )
