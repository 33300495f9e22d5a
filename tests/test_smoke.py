"""One step of every objective with every regularizer on every architecture.

Every triple is executed once, at its own weight, but for `goodfellow2014`,
whose width is fixed and whose step costs a hundred times the others': there
each objective is taken with one regularizer and each regularizer with one
objective at the least. So every pair of an objective and a regularizer, of an
objective and an architecture, of a regularizer and an architecture is there.
Regularizers of images are left out where samples are points, and those that
say of Dirac-GAN that they find nothing there. Widths are the least, the
schedule alternates, and `dcgan` and `infogan` have a D that normalises by
layer.

One program an architecture: the objective is chosen by a number that is traced
as the weights are, so that what costs is one compilation of all penalties
together; those of weight 0 are computed too.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets import built

from gan_jax.game.game import Game
from gan_jax.game.objectives import OBJECTIVES, Objective
from gan_jax.game.optimizers import Adam
from gan_jax.game.regularizers import REGULARIZERS
from gan_jax.game.state import all_finite
from gan_jax.game.trainer import Trainer
from gan_jax.networks import ARCHITECTURES

BATCH = 4


class Switched(Objective):
  """One of the objectives, by its number."""

  relativistic = True

  number: float = 0.0

  def _loss(self, player, real, fake):
    losses = [getattr(kind(), f'{player}_loss') for kind in OBJECTIVES.values()]
    return jax.lax.switch(jnp.int32(self.number), losses, real, fake)

  def d_loss(self, real, fake):
    return self._loss('d', real, fake)

  def g_loss(self, real, fake):
    return self._loss('g', real, fake)


def trainer_of(name):
  shape = ARCHITECTURES[name].samples[0]
  norms = {}
  if name in ('dcgan', 'infogan'):
    norms['norm_d'] = 'layer'  # a slope through batch norm is no example's own
  kinds = [
    kind
    for kind in REGULARIZERS.values()
    if (len(shape) == 3 or not kind.images)
    and (name != 'dirac' or kind().dirac(0.5, 0.5) is not None)
  ]
  game = Game(built(name, shape, **norms), Switched, kinds)
  return Trainer(game, Adam(1e-3), Adam(1e-3))


def moved(before, after):
  """Whether some number of a player's parameters is another."""
  pairs = zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params))
  return jnp.any(jnp.stack([jnp.any(a != b) for a, b in pairs]))


@jax.jit
def start(trainer):
  return trainer.init(jax.random.key(0))


@jax.jit
def step(trainer, state, real, hyper):
  """(All finite, G moved, D moved, logs)."""
  after, logs = trainer.step(state.replace(hyper=hyper), real)
  g, d = moved(state.g, after.g), moved(state.d, after.d)
  return all_finite(after.replace(key=None)), g, d, logs


def combinations(name, keys):
  """Of an objective and a regularizer, as the head of this file says."""
  count = len(OBJECTIVES)
  if name == 'goodfellow2014':
    pairs = range(max(count, len(keys)))
    return [(i % count, keys[i % len(keys)]) for i in pairs]
  return [(i, key) for i in range(count) for key in keys]


def hyper_at(state, number, key):
  """Of one objective and one regularizer alone."""
  hyper = dict(state.hyper) | {'objective.number': jnp.float32(number)}
  for path in hyper:
    if path.endswith('.weight'):
      hyper[path] = jnp.float32(path == f'regularizers.{key}.weight')
  if 'regularizers.clip.bound' in hyper and key != 'clip':
    hyper['regularizers.clip.bound'] = jnp.float32(1e9)
  return hyper


QUICK = {'mlp', 'dirac'}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in sorted(ARCHITECTURES)
  ],
)
def test_one_step(name):
  trainer = trainer_of(name)
  regularizers, state = trainer.game.regularizers, start(trainer)
  logged = {
    f'{player}/penalty/{key}'
    for key, regularizer in regularizers.items()
    for player in set(regularizer.acts_on) & {'d', 'g'}
  }
  shape = trainer.real_batches, BATCH, *trainer.game.networks.sample_shape
  real = jnp.linspace(-1, 1, np.prod(shape)).reshape(shape)
  pairs = combinations(name, [*regularizers])
  assert {i for i, _ in pairs} == set(range(len(OBJECTIVES)))
  assert {key for _, key in pairs} == set(regularizers)
  before = step._cache_size()
  for number, key in pairs:
    hyper = hyper_at(state, number, key)
    finite, g, d, logs = jax.device_get(step(trainer, state, real, hyper))
    told = f'{list(OBJECTIVES)[number]} with {key} on {name}'
    assert finite and g and d, told
    assert all(np.isfinite(x) for x in logs.values()), told
    assert logged == {k for k in logs if '/penalty/' in k}
  assert step._cache_size() == before + 1
