"""One step of every objective with every regularizer on every architecture.

Every triple is executed once, at its own weight, but for `goodfellow2014`,
whose width is fixed and whose step costs a hundred times the others': there
each objective is taken with one regularizer and each regularizer with one
objective at the least. So every pair of an objective and a regularizer, of an
objective and an architecture, of a regularizer and an architecture is there.
Regularizers of images are left out where samples are points. Widths are the
least, the sides 8 pixels (16 for `sndcgan`), the schedule alternates, and
`dcgan` and `infogan` have a D that normalises by layer.

One program an architecture: the objective is switched and the weights are
traced, so that what costs is one compilation of all penalties together; those
of weight 0 are computed too.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gan_jax.game.losses import Game
from gan_jax.game.step import Plan, init_state, make_train_step
from helpers.toygame import switched

from gan_jax import networks
from gan_jax.game.objectives import OBJECTIVES
from gan_jax.game.regularizers import REGULARIZERS, Term
from gan_jax.game.state import Hyper, all_finite
from gan_jax.networks import ARCHITECTURES

POINTS = {'mlp': 2, 'pacgan': 2, 'unrolled': 2, 'dirac': 1}
SIDES = {'sndcgan': 16}
FIXED = {'goodfellow2014', 'dirac'}
BATCH = 4


def networks_of(name):
  side = SIDES.get(name, 8)
  shape = (POINTS[name],) if name in POINTS else (side, side, 1)
  norms = {}
  if name in ('dcgan', 'infogan'):
    norms['norm_d'] = 'layer'  # a slope through batch norm is no example's own
  width = 0 if name in FIXED else 4
  bounded = name not in POINTS
  return networks.build(name, shape, bounded=bounded, width=width, **norms)


def moved(before, after):
  """Whether some number of a player's parameters is another."""
  pairs = zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params))
  return jnp.any(jnp.stack([jnp.any(a != b) for a, b in pairs]))


def program(name):
  """`(objective, weights) -> (all finite, G moved, D moved, metrics)`."""
  nets = networks_of(name)
  terms = tuple(
    Term(key)
    for key, entry in REGULARIZERS.items()
    if name not in POINTS or not entry.images
  )

  def plan_of(objective):
    game = Game(nets, objective, regularizers=terms)
    return Plan(game, batch_size=BATCH)

  def hyper_of(weights):
    return Hyper(lr_g=1e-3, lr_d=1e-3, penalties=weights)

  plan = plan_of(next(o for o in OBJECTIVES.values() if o.relativistic))
  start = jax.jit(lambda key: init_state(key, plan, hyper_of({})))
  state = start(jax.random.key(0))
  shape = jax.eval_shape(
    lambda: nets.generator.apply(
      state.g.params,
      state.g.stats,
      jnp.zeros((BATCH, nets.latent_dim)),
      train=False,
    )[0]
  ).shape
  real = jnp.linspace(-1, 1, plan.real_batches * np.prod(shape))
  real = real.reshape(plan.real_batches, *shape)

  @jax.jit
  def step(state, real, index, weights):
    train_step = make_train_step(plan_of(switched(index)))
    after, metrics = train_step(state, hyper_of(weights), real)
    g, d = moved(state.g, after.g), moved(state.d, after.d)
    return all_finite(after), g, d, metrics

  # Not as constants, of which the compiler would make the step itself.
  return terms, functools.partial(step, state, real)


def combinations(name, keys):
  """Of an objective and a regularizer, as the head of this file says."""
  if name == 'goodfellow2014':
    count = max(len(OBJECTIVES), len(keys))
    objectives = list(OBJECTIVES)
    return [(i % len(objectives), keys[i % len(keys)]) for i in range(count)]
  return [(i, key) for i in range(len(OBJECTIVES)) for key in keys]


QUICK = {'mlp', 'dirac'}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in sorted(ARCHITECTURES)
  ],
)
def test_one_step(name):
  terms, step = program(name)
  keys = [term.key for term in terms]
  logged = {
    f'{"g" if term.entry.on_g else "d"}/penalty/{term.key}'
    for term in terms
    if not term.entry.project
  }
  taken = combinations(name, keys)
  assert {i for i, _ in taken} == set(range(len(OBJECTIVES)))
  assert {key for _, key in taken} == set(keys)
  for i, key in taken:
    weights = {k: jnp.float32(k == key) for k in keys}
    weights['clip'] = jnp.float32(0.01 if key == 'clip' else 1e9)
    finite, g, d, metrics = jax.device_get(step(i, weights))
    told = f'{list(OBJECTIVES)[i]} with {key} on {name}'
    assert finite and g and d, told
    assert all(np.isfinite(x) for x in metrics.values()), told
    assert logged == {k for k in metrics if '/penalty/' in k}
  assert step.func._cache_size() == 1
