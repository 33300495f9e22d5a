"""What a game adds to its losses (penalties, packs), in whole steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gan_jax.game.step import Plan, init_state, make_train_step
from helpers.toygame import (
  BATCH,
  close,
  compiled,
  flat,
  hyper_of,
  plan_of,
  start,
  stepped,
)

from gan_jax import networks
from gan_jax.game import augment, objectives
from gan_jax.game import losses as game_lib
from gan_jax.game.regularizers import REGULARIZERS, Term


def test_penalties_join_the_loss_that_is_descended_and_are_logged():
  plan, plain = plan_of(regularizers=('r1', 'r2')), plan_of()
  state, hyper, batch = start(plan)
  key = jax.random.key(3)
  loss = lambda p, h: game_lib.discriminator_loss(
    state.d.params, state, p.game, batch[0], jax.random.clone(key), h
  )
  total, (_, metrics) = loss(plan, hyper)
  bare, _ = loss(plain, hyper_of(plain))
  added = metrics['d/penalty/r1'] + metrics['d/penalty/r2']
  assert float(added) > 0
  np.testing.assert_allclose(total, bare + 0.1 * added, rtol=1e-5)
  np.testing.assert_allclose(metrics['d/loss'], bare, rtol=1e-6)


@pytest.mark.parametrize('schedule', ['alternating', 'unrolled'])
def test_lazy_penalties_come_every_so_often_and_so_much_heavier(schedule):
  """In the moves that are looked ahead as in that which is made."""
  bare = plan_of(schedule=schedule, unroll_steps=2)
  plan = plan_of(schedule=schedule, unroll_steps=2, regularizers=('r1',))
  lazy = dataclasses.replace(plan, penalty_every=4)
  state, hyper, batch = start(plan)
  step, lazy_step = (compiled(p) for p in (plan, lazy))
  _, always = step(state, hyper, batch)
  _, due = lazy_step(state, hyper, batch)
  np.testing.assert_allclose(
    due['d/penalty/r1'], 4 * always['d/penalty/r1'], rtol=1e-5
  )
  heavy = dataclasses.replace(hyper, penalties={'r1': jnp.float32(0.4)})
  made, _ = lazy_step(state, hyper, batch)
  other, _ = step(state, heavy, batch)
  close((made.g.params, made.d.params), (other.g.params, other.d.params))
  later = state.replace(step=jnp.int32(1))
  moved, not_due = lazy_step(later, hyper, batch)
  assert float(not_due['d/penalty/r1']) == 0.0
  plain, _ = compiled(bare)(later, hyper_of(bare), batch)
  close((moved.g.params, moved.d.params), (plain.g.params, plain.d.params))


def test_clipping_holds_after_every_step():
  plan = plan_of('wasserstein', regularizers=('clip',), d_steps=2)
  state, hyper, batch = start(plan)
  hyper = dataclasses.replace(hyper, penalties={'clip': jnp.float32(0.01)})
  after, _ = compiled(plan)(state, hyper, batch)
  assert np.abs(flat(after.d.params)).max() <= np.float32(0.01)
  assert np.abs(flat(after.g.params)).max() > 0.01


def test_penalties_are_neither_lazy_nor_there_unless_asked_for():
  """The traps: both break toy sets, and neither is in any paper's defaults."""
  from gan_jax.config.schema import Config

  assert plan_of().penalty_every == 1
  assert Config().regularizer_every == 1 and not Config().regularizer
  assert Config().label_smoothing == 0 and not Config().diffaugment


def test_zcr_shows_neighbours_as_it_shows_what_they_are_beside():
  """With no distance between them there is nothing to be told apart."""
  nets = networks.build('mlp', (8, 8, 1), bounded=True, width=4, depth=1)
  game = game_lib.Game(
    nets,
    objectives.OBJECTIVES['minimax'],
    regularizers=(Term('zcr'),),
    augment=('color', 'translation', 'cutout'),
  )
  plan = Plan(game=game, batch_size=BATCH)
  state = init_state(jax.random.key(0), plan, hyper_of(plan))
  same = jax.tree.map(jnp.zeros_like, state.g.params)  # whatever the noise
  state = state.replace(g=state.g.replace(params=same))
  real = jnp.ones((BATCH, 8, 8, 1))
  _, (_, metrics) = game_lib.discriminator_loss(
    state.d.params,
    state,
    game,
    real,
    jax.random.key(1),
    hyper_of(plan),
    jnp.float32(0.5),
  )
  np.testing.assert_allclose(metrics['d/penalty/zcr'], 0, atol=1e-9)
  assert float(metrics['d/logit_fake']) != 0


@pytest.mark.parametrize('norm_d', ['spectral', 'batch'])
@pytest.mark.parametrize('name', ['cr', 'bcr', 'zcr'])
def test_consistency_is_of_the_samples_alone(name, norm_d, monkeypatch):
  """Samples that are the same to D, whose statistics move at each look."""
  monkeypatch.setattr(augment, 'consistency_view', lambda x, key: x)
  nets = networks.build(
    'dcgan', (8, 8, 1), bounded=True, width=4, norm_g='none', norm_d=norm_d
  )
  assert same_to_d(nets, name) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize('name', ['cr', 'bcr', 'zcr'])
def test_consistency_is_not_of_dropout(name, monkeypatch):
  monkeypatch.setattr(augment, 'consistency_view', lambda x, key: x)
  nets = networks.build('goodfellow2014', (8, 8, 1), bounded=True)
  assert same_to_d(nets, name) < 1e-9


def same_to_d(nets, name):
  """A consistency penalty where G makes one sample only."""
  game = game_lib.Game(
    nets, objectives.OBJECTIVES['minimax'], regularizers=(Term(name),)
  )
  plan = Plan(game=game, batch_size=BATCH)
  state = init_state(jax.random.key(0), plan, hyper_of(plan))
  flat_g = jax.tree.map(jnp.zeros_like, state.g.params)  # whatever the noise
  # Far from where it would be, so that each look at a kernel moves its norm.
  turned = jax.tree.map(lambda w: w + 0.1 * jnp.cos(7.0 * w), state.d.params)
  state = state.replace(
    g=state.g.replace(params=flat_g), d=state.d.replace(params=turned)
  )
  real = jax.random.normal(jax.random.key(2), (BATCH, 8, 8, 1))
  _, (_, metrics) = game_lib.discriminator_loss(
    state.d.params, state, game, real, jax.random.key(1), hyper_of(plan)
  )
  assert np.abs(float(metrics['d/logit_fake'])) > 0
  return float(metrics[f'd/penalty/{name}'])


def test_lecam_anchors_follow_ds_output():
  plan = plan_of(regularizers=('lecam',))
  state, after, metrics = stepped(plan)
  assert float(state.anchors.real) == 0.0
  for kind in ('real', 'fake'):
    np.testing.assert_allclose(
      getattr(after.anchors, kind), 0.01 * metrics[f'd/logit_{kind}'], rtol=1e-5
    )
  assert stepped(plan_of())[1].anchors is None


def test_packs_are_samples_side_by_side():
  x = jnp.arange(24.0).reshape(4, 2, 3, 1)
  packs = game_lib.packed(x, 2)
  assert packs.shape == (2, 2, 3, 2)
  np.testing.assert_array_equal(packs[0, ..., 0], x[0, ..., 0])
  np.testing.assert_array_equal(packs[0, ..., 1], x[1, ..., 0])
  np.testing.assert_array_equal(packs[1, ..., 1], x[3, ..., 0])
  points = jnp.arange(8.0).reshape(4, 2)
  np.testing.assert_array_equal(
    game_lib.packed(points, 2), [[0, 1, 2, 3], [4, 5, 6, 7]]
  )
  assert game_lib.packed(points, 1) is points


def test_packing_trains_and_refuses_what_it_does_not_divide():
  _, _, metrics = stepped(plan_of(packing=4))
  assert np.isfinite(metrics['d/loss'])
  with pytest.raises(ValueError, match='packing=3'):
    make_train_step(plan_of(packing=3))


def takes(name):
  """Regularizers that need no image."""
  return not REGULARIZERS[name].images


@pytest.mark.parametrize('name', sorted(filter(takes, REGULARIZERS)))
def test_every_regularizer_reaches_the_player_it_is_for(name):
  entry = REGULARIZERS[name]
  plan, bare = plan_of(regularizers=(name,)), plan_of()
  state, hyper, batch = start(plan, lr_g=0.1, lr_d=0.1)
  steep = jax.tree.map(lambda w: 10 * w, state.d.params)
  state = state.replace(d=state.d.replace(params=steep))
  moved, _ = compiled(plan)(state, hyper, batch)
  _, plain_hyper, _ = start(bare, lr_g=0.1, lr_d=0.1)
  plain, _ = compiled(bare)(state.replace(anchors=None), plain_hyper, batch)
  player = 'g' if entry.on_g else 'd'
  mine, other = getattr(moved, player), getattr(plain, player)
  assert np.abs(flat(mine.params) - flat(other.params)).max() > 1e-7
