"""The two moves: whose gradient flows, whose statistics move, what D sees."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gan_jax.game.step import Plan, init_state, make_train_step
from helpers.toygame import net, switched

from gan_jax import networks
from gan_jax.game import losses as game_lib
from gan_jax.game import objectives
from gan_jax.game.regularizers import Term
from gan_jax.game.state import Hyper

HYPER = Hyper(lr_g=1e-2, lr_d=1e-2)
BATCH = 8


@functools.cache
def built(network, shape, bounded):
  return networks.build(network, shape, bounded=bounded, width=8)


def plan_of(network='mlp', shape=(2,), bounded=False, **settings):
  objective = objectives.OBJECTIVES[settings.pop('objective', 'minimax')]
  game = game_lib.Game(built(network, shape, bounded), objective)
  return Plan(game=game, batch_size=BATCH, **settings)


def images_plan(**settings):
  return plan_of('dcgan', (8, 8, 1), True, **settings)


@functools.cache
def started(networks, **settings):
  """A start is compiled once for all plans that it does not depend on."""
  plan = Plan(game_lib.Game(networks, None), BATCH, **settings)
  return jax.jit(lambda key: init_state(key, plan, HYPER))(jax.random.key(0))


def state_of(plan):
  names = ('optimizer_g', 'optimizer_d', 'average')
  settings = {name: getattr(plan, name) for name in names}
  state = started(plan.game.networks, **settings)
  return state.replace(key=jax.random.clone(state.key))


def real_of(plan, d_steps=1, seed=5):
  shape = jax.eval_shape(
    lambda s: plan.game.networks.generator.apply(
      s.g.params,
      s.g.stats,
      jnp.zeros((BATCH, plan.game.networks.latent_dim)),
      train=False,
    )[0],
    jax.eval_shape(lambda: state_of(plan)),
  ).shape
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.uniform(-1, 1, (d_steps, *shape)), jnp.float32)


def largest(tree):
  return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))


def norms(tree):
  return [float(jnp.abs(x).max()) for x in jax.tree.leaves(tree)]


def equal(a, b):
  return all(
    bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
  )


@functools.cache
def slopes_of_g(make):
  """`(objective's number, state, real, key) -> to G, to D`, compiled once."""
  plan = make()

  @jax.jit
  def slopes(index, state, real, key):
    game = plan.game._replace(objective=switched(index))

    def loss(g_params, d_params):
      moved = state.replace(d=state.d.replace(params=d_params))
      return game_lib.generator_loss(g_params, moved, game, real, key, HYPER)[0]

    return jax.grad(loss, (0, 1))(state.g.params, state.d.params)

  return slopes


@pytest.mark.parametrize('objective', sorted(objectives.OBJECTIVES))
@pytest.mark.parametrize('make', [plan_of, images_plan])
def test_g_move_has_no_gradient_for_d(objective, make):
  index = list(objectives.OBJECTIVES).index(objective)
  plan, slopes = make(), slopes_of_g(make)
  at = state_of(plan), real_of(plan)[0], jax.random.key(1)
  to_g, to_d = slopes(index, *at)
  assert largest(to_d) == 0.0
  assert largest(to_g) > 0.0
  assert slopes._cache_size() == 1


def penalised_plan():
  """With penalties that look at samples which G makes for them."""
  plan = plan_of()
  terms = Term('zcr'), Term('wgan_gp')
  return dataclasses.replace(plan, game=plan.game._replace(regularizers=terms))


@pytest.mark.parametrize('make', [plan_of, images_plan, penalised_plan])
def test_d_move_has_no_gradient_for_g(make):
  plan = make()
  weights = {term.key: 1.0 for term in plan.game.regularizers}
  hyper = dataclasses.replace(HYPER, penalties=weights)
  state = state_of(plan)
  key = jax.random.key(1)
  real = real_of(plan)[0]

  def loss(d_params, g_params):
    moved = state.replace(g=state.g.replace(params=g_params))
    value, _ = game_lib.discriminator_loss(
      d_params, moved, plan.game, real, key, hyper
    )
    return value

  slopes = jax.jit(jax.grad(loss, (0, 1)))
  to_d, to_g = slopes(state.d.params, state.g.params)
  assert largest(to_g) == 0.0
  assert largest(to_d) > 0.0


@pytest.mark.parametrize('move', ['generator_loss', 'discriminator_loss'])
def test_a_removed_stop_gradient_would_be_seen(move):
  """The two tests above fail on the losses without their stop-gradient."""
  loss_of = getattr(game_lib, move)
  assert inspect.signature(loss_of).parameters['frozen'].default is (
    jax.lax.stop_gradient
  )
  plan = plan_of()
  state, key, real = state_of(plan), jax.random.key(1), real_of(plan)[0]
  mine, other = ('g', 'd') if move == 'generator_loss' else ('d', 'g')

  def loss(params):
    moved = state.replace(
      **{other: getattr(state, other).replace(params=params)}
    )
    args = (getattr(state, mine).params, moved, plan.game, real, key, HYPER)
    return loss_of(*args, frozen=lambda x: x)[0]

  slope = jax.jit(jax.grad(loss))(getattr(state, other).params)
  assert largest(slope) > 0.0


@functools.partial(jax.jit, static_argnums=(0, 1))
def moved_stats(move, plan, params, state, real, key):
  loss = getattr(game_lib, move)
  return loss(params, state, plan.game, real, key, HYPER)[1][0]


def own_stats(plan, state, real, key_d, key_g):
  """Statistics of both players after their own moves from one state."""
  return tuple(
    moved_stats(move, plan, getattr(state, player).params, state, real, key)
    for move, player, key in (
      ('discriminator_loss', 'd', key_d),
      ('generator_loss', 'g', key_g),
    )
  )


def test_statistics_move_only_in_their_own_players_move():
  plan = images_plan()
  state = state_of(plan)
  keys = jax.random.split(jax.random.key(3))
  d_stats, g_stats = own_stats(plan, state, real_of(plan)[0], *keys)
  same_tree = jax.tree.structure
  assert same_tree(d_stats) == same_tree(state.d.stats)
  assert same_tree(g_stats) == same_tree(state.g.stats)
  assert not equal(d_stats, state.d.stats)
  assert not equal(g_stats, state.g.stats)


@pytest.mark.parametrize('schedule', ['alternating', 'simultaneous'])
def test_the_other_players_move_leaves_statistics_alone(schedule):
  """A step's running statistics are those of the own move, and of no other."""
  plan = images_plan(schedule=schedule)
  state, batch = state_of(plan), real_of(plan)
  moved, _ = jax.jit(make_train_step(plan))(state, HYPER, batch)
  key = jax.random.fold_in(state.key, state.step)
  key_d, key_g = jax.random.split(key)
  if schedule == 'alternating':
    (key_turn,) = jax.random.split(key_d, 1)
    _, key_d = jax.random.split(key_turn)
  else:  # one key, so that both moves see the same samples
    key_d = jax.random.clone(key_g)
  d_stats, g_stats = own_stats(plan, state, batch[0], key_d, key_g)
  for found, own in ((moved.d.stats, d_stats), (moved.g.stats, g_stats)):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(own), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_every_parameter_of_both_players_moves():
  plan = images_plan(objective='non_saturating')
  before = state_of(plan)
  step = jax.jit(make_train_step(plan))
  after, _ = step(before, HYPER, real_of(plan))
  for player in ('g', 'd'):
    old, new = getattr(before, player), getattr(after, player)
    change = jax.tree.map(lambda a, b: b - a, old.params, new.params)
    assert min(norms(change)) > 0.0, player


def test_learning_rate_zero_freezes_one_player():
  plan = plan_of()
  step = jax.jit(make_train_step(plan))
  before = state_of(plan)
  hyper = dataclasses.replace(HYPER, lr_d=0.0)
  after, _ = step(before, hyper, real_of(plan))
  assert equal(before.d.params, after.d.params)
  assert not equal(before.g.params, after.g.params)


def test_one_move_of_sgd_against_numpy():
  """D linear, G affine, by hand in float64: both moves of one step."""
  g = net(
    {'a': jnp.float32(0.5), 'b': jnp.float32(-0.3)},
    lambda p, z, label: p['a'] * z + p['b'],
  )
  d = net({'w': jnp.float32(0.7)}, lambda p, x, label: p['w'] * x[:, 0])
  z = np.linspace(-1, 1, BATCH, dtype=np.float32)[:, None]
  nets = networks.Networks(g, d, 1, 'uniform', lambda key, n: jnp.asarray(z))
  for name in ('minimax', 'non_saturating'):
    game = game_lib.Game(nets, objectives.OBJECTIVES[name])
    plan = Plan(game, BATCH, optimizer_g='sgd', optimizer_d='sgd')
    hyper = Hyper(lr_g=0.1, lr_d=0.2, beta1_g=0.0, beta1_d=0.0)
    real = jnp.linspace(0, 2, BATCH)[:, None]
    state = init_state(jax.random.key(0), plan, hyper)
    after, _ = jax.jit(make_train_step(plan))(state, hyper, real[None])

    sigmoid = lambda t: 1 / (1 + np.exp(-t))
    a, b, w = 0.5, -0.3, 0.7
    fake = a * z[:, 0].astype(np.float64) + b
    x = np.asarray(real[:, 0], np.float64)
    slope_w = (
      -((1 - sigmoid(w * x)) * x).mean() + (sigmoid(w * fake) * fake).mean()
    )
    w -= 0.2 * slope_w
    prob = sigmoid(w * fake)
    slope = -prob if name == 'minimax' else -(1 - prob)
    a -= 0.1 * (slope * w * z[:, 0]).mean()
    b -= 0.1 * (slope * w).mean()
    np.testing.assert_allclose(after.d.params['w'], w, rtol=1e-6)
    np.testing.assert_allclose(after.g.params['a'], a, rtol=1e-6)
    np.testing.assert_allclose(after.g.params['b'], b, rtol=1e-6)


def test_simultaneous_moves_both_from_one_point():
  """The gradients are those of the losses at the state before the step."""
  plan = plan_of(schedule='simultaneous', optimizer_g='sgd', optimizer_d='sgd')
  hyper = dataclasses.replace(HYPER, beta1_g=0.0, beta1_d=0.0)
  before = state_of(plan)
  batch = real_of(plan)
  after, _ = jax.jit(make_train_step(plan))(before, hyper, batch)
  key = jax.random.fold_in(jax.random.clone(before.key), 0)
  _, key_loss = jax.random.split(key)
  g_grad, _ = jax.jit(
    jax.grad(game_lib.generator_loss, has_aux=True), static_argnums=2
  )(before.g.params, before, plan.game, batch[0], key_loss, HYPER)
  moved = jax.tree.map(lambda p, g: p - 1e-2 * g, before.g.params, g_grad)
  for found, expected in zip(
    jax.tree.leaves(after.g.params), jax.tree.leaves(moved)
  ):
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_simultaneous_is_one_forward_pass():
  """XLA merges the two moves' forward passes: fewer operations than apart."""

  def flops(schedule):
    plan = plan_of(schedule=schedule, objective='non_saturating')
    state = state_of(plan)
    program = jax.jit(make_train_step(plan)).lower(state, HYPER, real_of(plan))
    cost = program.compile().cost_analysis()
    return cost['flops']

  plan = plan_of()
  state = state_of(plan)

  def forward(state, z, x):
    nets = plan.game.networks
    fake, _ = nets.generator.apply(state.g.params, state.g.stats, z, train=True)
    return nets.discriminator.apply(
      state.d.params, state.d.stats, fake, train=True
    )[0]

  z = jnp.zeros((BATCH, plan.game.networks.latent_dim))
  once = jax.jit(forward).lower(state, z, z).compile().cost_analysis()['flops']
  saved = flops('alternating') - flops('simultaneous')
  assert saved > 0.9 * once


def test_simultaneous_refuses_several_moves_of_d():
  with pytest.raises(ValueError, match='d_steps=2.*alternating'):
    make_train_step(plan_of(schedule='simultaneous', d_steps=2))


def test_d_steps_are_moves_on_different_batches():
  plan = plan_of(d_steps=3, optimizer_d='sgd')
  before = state_of(plan)
  step = jax.jit(make_train_step(plan))
  batch = real_of(plan, 3)
  after, _ = step(before, HYPER, batch)
  same = np.broadcast_to(batch[:1], batch.shape)
  other, _ = step(before, HYPER, same)
  assert not equal(after.d.params, other.d.params)
  with pytest.raises(ValueError, match='d_steps=0'):
    make_train_step(plan_of(d_steps=0))


def test_noise_is_drawn_anew_each_step_and_is_a_function_of_the_step():
  plan = plan_of()
  step = jax.jit(make_train_step(plan))
  batch = real_of(plan)
  frozen = dataclasses.replace(HYPER, lr_g=0.0, lr_d=0.0)
  state = state_of(plan)
  one, first = step(state, frozen, batch)
  _, second = step(one, frozen, batch)
  _, again = step(state, frozen, batch)
  assert first['g/loss'] != second['g/loss']
  assert first['g/loss'] == again['g/loss']


def test_instance_noise_reaches_d_and_anneals_to_none():
  plan = plan_of(instance_noise=True)
  state = state_of(plan)
  step = jax.jit(make_train_step(plan))
  batch = real_of(plan)

  def loss(**numbers):
    hyper = dataclasses.replace(HYPER, **numbers)
    return float(step(state, hyper, batch)[1]['d/loss'])

  plain = jax.jit(make_train_step(plan_of()))
  without = float(plain(state, HYPER, batch)[1]['d/loss'])
  assert loss(instance_noise=0.0) == pytest.approx(without, rel=1e-6)
  assert abs(loss(instance_noise=1.0) - without) > 1e-3
  # Annealed over 4 images: gone by the second step of 8.
  later = state.replace(step=jnp.int32(1))
  hyper = dataclasses.replace(
    HYPER, instance_noise=1.0, instance_noise_kimg=0.004
  )
  done = float(step(later, hyper, batch)[1]['d/loss'])
  expected = float(plain(later, HYPER, batch)[1]['d/loss'])
  assert done == pytest.approx(expected, rel=1e-6)


def test_instance_noise_falls_in_a_line():
  plan = plan_of(instance_noise=True)
  hyper = dataclasses.replace(
    HYPER, instance_noise=2.0, instance_noise_kimg=4e-3 * BATCH
  )
  found = [plan.noise_std(hyper, jnp.int32(step)) for step in range(6)]
  np.testing.assert_allclose(found, [2, 1.5, 1, 0.5, 0, 0], rtol=1e-6)
  hyper = dataclasses.replace(hyper, instance_noise_kimg=0.0)
  assert float(plan.noise_std(hyper, jnp.int32(10**6))) == 2.0


def test_average_follows_its_half_life():
  plan = plan_of(average=True)
  step = jax.jit(make_train_step(plan))
  half_life = 0.001 * BATCH  # one step, in kimg
  hyper = dataclasses.replace(HYPER, ema_halflife_kimg=half_life)
  # Late, so that the ramp-up of the half-life is over.
  state = state_of(plan).replace(step=jnp.int32(1000))
  after, _ = step(state, hyper, real_of(plan))
  expected = jax.tree.map(
    lambda a, b: (a + b) / 2, state.ema.params, after.g.params
  )
  for found, want in zip(
    jax.tree.leaves(after.ema.params), jax.tree.leaves(expected)
  ):
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-7)


def test_optax_states_are_separate():
  plan = images_plan(optimizer_g='adam', optimizer_d='sgd')
  state = state_of(plan)
  g_leaves, d_leaves = (
    jax.tree.leaves(p.opt_state) for p in (state.g, state.d)
  )
  assert len(g_leaves) == 2 * len(jax.tree.leaves(state.g.params)) + 1
  assert len(d_leaves) == len(jax.tree.leaves(state.d.params))
