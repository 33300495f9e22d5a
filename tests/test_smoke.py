"""One step of every objective with every regularizer on every architecture.

Every triple is executed once, at its own weight, but for `goodfellow2014`,
whose width is fixed and whose step costs a hundred times the others': there
each objective is taken with one regularizer and each regularizer with one
objective at the least. So every pair of an objective and a regularizer, of an
objective and an architecture, of a regularizer and an architecture is there.
Regularizers of images are left out where samples are points. Widths are the
least, samples the first that an architecture declares, the schedule alternates,
and D normalises by layer where it can.

One program an architecture: the objective is switched and the weights are
traced, so that what costs is one compilation of all penalties together; those
of weight 0 are computed too.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toygame import switched

from gan_jax import networks
from gan_jax.game.game import Game
from gan_jax.game.objectives import OBJECTIVES
from gan_jax.game.optimizers import Adam
from gan_jax.game.regularizers import REGULARIZERS, Clip
from gan_jax.game.state import all_finite
from gan_jax.game.trainer import Trainer
from gan_jax.networks import ARCHITECTURES

BATCH = 4


def networks_of(name):
  architecture = ARCHITECTURES[name]
  shape = architecture.samples[0]
  options = dict(width=4) if architecture.width else {}
  if 'layer' in architecture.norms_d:
    options['norm_d'] = 'layer'  # a slope by the batch is no example's own
  return networks.build(name, shape, bounded=len(shape) == 3, **options)


def moved(before, after):
  """Whether some number of a player's parameters is another."""
  pairs = zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params))
  return jnp.any(jnp.stack([jnp.any(a != b) for a, b in pairs]))


def terms_of(name):
  """Regularizers that find something to act on."""
  points = len(ARCHITECTURES[name].samples[0]) == 1
  terms = [kind() for kind in REGULARIZERS.values()]
  return [
    term
    for term in terms
    if not (points and term.images)
    and not (name == 'dirac' and term.dirac(0.0, 0.0) is None)
  ]


def program(name):
  """`(objective, weights) -> (all finite, G moved, D moved, logs)`."""
  nets, terms = networks_of(name), terms_of(name)

  def trainer_of(objective):
    adam = Adam(1e-3)
    return Trainer(Game(nets, objective, terms), adam, adam, ema=None)

  trainer = trainer_of(switched(0))
  state = jax.jit(trainer.init)(jax.random.key(0))
  shape = (trainer.real_batches, BATCH, *nets.sample_shape)
  real = jnp.linspace(-1, 1, np.prod(shape)).reshape(shape)

  @jax.jit
  def step(state, real, index, weights):
    now = state.replace(hyper=state.hyper | weights)
    after, logs = trainer_of(switched(index)).step(now, real)
    g, d = moved(state.g, after.g), moved(state.d, after.d)
    return all_finite(after), g, d, logs

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
  paths = {
    term.name: f'regularizers.{term.name}.{number_of(term)}' for term in terms
  }
  logged = {
    f'{player}/penalty/{term.name}'
    for term in terms
    for player in set(term.acts_on) & {'d', 'g'}
  }
  taken = combinations(name, list(paths))
  assert {i for i, _ in taken} == set(range(len(OBJECTIVES)))
  assert {key for _, key in taken} == set(paths)
  for i, key in taken:
    weights = {path: jnp.float32(k == key) for k, path in paths.items()}
    weights[paths['clip']] = jnp.float32(0.01 if key == 'clip' else 1e9)
    finite, g, d, logs = jax.device_get(step(i, weights))
    told = f'{list(OBJECTIVES)[i]} with {key} on {name}'
    assert finite and g and d, told
    assert all(np.isfinite(x) for x in logs.values()), told
    assert logged == {k for k in logs if '/penalty/' in k}
  assert step.func._cache_size() == 1


def number_of(term):
  """The field that says how strong a regularizer is."""
  return 'bound' if isinstance(term, Clip) else 'weight'
