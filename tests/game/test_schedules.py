"""The schedules, in whole steps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gan_jax.game.plan import TOGETHER
from gan_jax.game.step import make_train_step
from helpers.toygame import (
  BATCH,
  close,
  compiled,
  flat,
  hyper_of,
  move_keys,
  plan_of,
  start,
  stepped,
)

from gan_jax.game import losses as game_lib
from gan_jax.game.optimizers import OPTIMIZERS
from gan_jax.game.schedules import SCHEDULES


@pytest.mark.parametrize('schedule', sorted(SCHEDULES))
def test_both_players_move_and_one_program_serves_every_step(schedule):
  plan = plan_of(schedule=schedule, average=True)
  state, hyper, batch = start(plan, ema_halflife_kimg=1.0)
  step = jax.jit(make_train_step(plan))
  one, metrics = step(state, hyper, batch)
  two, _ = step(one, hyper, batch)
  assert step._cache_size() == 1
  assert int(two.step) == 2
  for player in ('g', 'd'):
    before, after = getattr(state, player), getattr(one, player)
    assert np.abs(flat(after.params) - flat(before.params)).max() > 0
  for name in ('d/loss', 'g/loss', 'd/grad_norm', 'g/grad_norm'):
    assert np.isfinite(metrics[name])


@pytest.mark.parametrize('schedule', sorted(SCHEDULES))
def test_eager_is_jit(schedule):
  plan = plan_of(schedule=schedule, unroll_steps=2)
  state, hyper, batch = start(plan)
  with jax.disable_jit():
    eager, _ = make_train_step(plan)(state, hyper, batch)
  jitted, _ = compiled(plan)(state, hyper, batch)
  close(eager.g.params, jitted.g.params)
  close(eager.d.params, jitted.d.params)


@pytest.mark.parametrize('schedule', sorted(SCHEDULES))
def test_vmap_is_a_loop(schedule):
  """As in a population; one program also for the members alone."""
  plan = plan_of(schedule=schedule, unroll_steps=2)
  state, hyper, batch = start(plan)
  other = start(plan, seed=1)
  step = make_train_step(plan)
  jitted = jax.jit(step)
  alone = jitted(state, hyper, batch)[0], jitted(other[0], hyper, other[2])[0]
  assert jitted._cache_size() == 1
  states, batches = (
    jax.tree.map(lambda a, b: jnp.stack([a, b]), *pair)
    for pair in ((state, other[0]), (batch, other[2]))
  )
  together, _ = jax.jit(jax.vmap(step, (0, None, 0)))(states, hyper, batches)
  for i, one in enumerate(alone):
    for player in ('g', 'd'):
      found = jax.tree.map(
        lambda x, i=i: x[i], getattr(together, player).params
      )
      close(found, getattr(one, player).params)


def test_consensus_is_a_number_where_the_field_is_0():
  """A D that says the same of everything, and knows no better."""
  plan = plan_of('wasserstein', schedule='consensus')
  state, hyper, _ = start(plan, consensus=1.0)
  still = jax.tree.map(jnp.zeros_like, (state.g.params, state.d.params))
  state = state.replace(
    g=state.g.replace(params=still[0]), d=state.d.replace(params=still[1])
  )
  after, _ = jax.jit(make_train_step(plan))(
    state, hyper, jnp.zeros((1, BATCH, 2))
  )
  assert np.isfinite(flat((after.g.params, after.d.params))).all()


@pytest.mark.parametrize('objective', ['minimax', 'relativistic'])
@pytest.mark.parametrize('schedule', sorted(SCHEDULES))
def test_real_batches_are_as_many_as_moves_need(schedule, objective):
  plan = plan_of(objective, schedule=schedule)
  if schedule in TOGETHER:
    expected = TOGETHER[schedule]
  else:
    expected = 2 if objective == 'relativistic' else 1
  assert plan.real_batches == expected
  assert dataclasses.replace(plan, reuse_real=True).real_batches == 1
  if schedule not in TOGETHER:
    more = dataclasses.replace(plan, d_steps=3, g_steps=2)
    assert more.real_batches == (5 if objective == 'relativistic' else 3)


@pytest.mark.parametrize('schedule', sorted(TOGETHER))
@pytest.mark.parametrize('name', ['d_steps', 'g_steps'])
def test_several_moves_at_once_are_refused(schedule, name):
  with pytest.raises(ValueError, match=f'{name}=2.*alternating'):
    make_train_step(plan_of(schedule=schedule, **{name: 2}))


def gradients(plan, state, hyper, real, key_d, key_g):
  """Both losses' gradients at one point, each with a key."""
  d = jax.grad(game_lib.discriminator_loss, has_aux=True)
  g = jax.grad(game_lib.generator_loss, has_aux=True)
  rest = (state, plan.game, real)
  to_d = d(state.d.params, *rest, key_d, hyper)[0]
  return to_d, g(state.g.params, *rest, key_g, hyper)[0]


def down(params, grads, rate):
  return jax.tree.map(lambda p, g: p - rate * g, params, grads)


def step_key(state):
  return jax.random.fold_in(jax.random.clone(state.key), 0)


def test_g_first_moves_g_against_the_old_d():
  plan = plan_of(schedule='alternating_g_first')
  state, after, _ = stepped(plan)
  _, hyper, batch = start(plan)
  key_d, key_g = move_keys(state)
  _, to_g = gradients(plan, state, hyper, batch[0], jax.random.key(9), key_g)
  moved_g = down(state.g.params, to_g, 1e-2)
  close(after.g.params, moved_g)
  now = state.replace(g=state.g.replace(params=moved_g))
  to_d, _ = gradients(plan, now, hyper, batch[0], key_d, jax.random.key(8))
  close(after.d.params, down(state.d.params, to_d, 2e-2))


def test_g_steps_are_moves_of_g_with_fresh_noise():
  one = stepped(plan_of(g_steps=1))
  two = stepped(plan_of(g_steps=2))
  reused = stepped(plan_of(g_steps=2, reuse_noise=True))
  close(one[1].d.params, two[1].d.params)
  assert np.abs(flat(one[1].g.params) - flat(two[1].g.params)).max() > 0
  assert np.abs(flat(reused[1].g.params) - flat(two[1].g.params)).max() > 0


def test_reused_noise_is_one_draw_for_all_moves(monkeypatch):
  """What G makes of the step's noise is the same in D's move and in G's."""
  for reuse, same in ((False, False), (True, True)):
    seen = []
    plan = plan_of(reuse_noise=reuse)
    draw = plan.game.networks.sample_latent

    def watched(key, n, draw=draw, seen=seen):
      z = draw(key, n)
      seen.append(np.asarray(z))
      return z

    nets = plan.game.networks._replace(sample_latent=watched)
    plan = dataclasses.replace(plan, game=plan.game._replace(networks=nets))
    state, hyper, batch = start(plan)
    with jax.disable_jit():
      make_train_step(plan)(state, hyper, batch)
    assert len(seen) == 2
    assert (seen[0] == seen[1]).all() == same


def test_reused_noise_is_one_draw_for_the_looks_ahead_too():
  seen = []
  plan = plan_of(schedule='unrolled', unroll_steps=2, reuse_noise=True)
  draw = plan.game.networks.sample_latent

  def watched(key, n):
    z = draw(key, n)
    jax.debug.callback(lambda z: seen.append(np.asarray(z)), z)
    return z

  nets = plan.game.networks._replace(sample_latent=watched)
  plan = dataclasses.replace(plan, game=plan.game._replace(networks=nets))
  jax.block_until_ready(make_train_step(plan)(*start(plan)))
  jax.effects_barrier()
  assert len(seen) >= 4
  for z in seen:  # old XLA draws again inside a fusion, one rounding apart
    np.testing.assert_allclose(z, seen[0], rtol=1e-6)


def test_reused_real_batch_serves_every_move():
  plan = plan_of(d_steps=2, reuse_real=True)
  state, hyper, batch = start(plan)
  assert batch.shape[0] == 1
  after, _ = jax.jit(make_train_step(plan))(state, hyper, batch)
  fresh = plan_of(d_steps=2)
  twice = jnp.tile(batch, (2, 1, 1))
  other, _ = jax.jit(make_train_step(fresh))(state, hyper, twice)
  close(after.d.params, other.d.params)


def test_relativistic_g_sees_real_samples_of_its_own():
  plan = plan_of('relativistic')
  state, hyper, batch = start(plan)
  step = jax.jit(make_train_step(plan))
  after, _ = step(state, hyper, batch)
  other, _ = step(state, hyper, batch.at[1].add(1.0))
  close(after.d.params, other.d.params)
  assert np.abs(flat(after.g.params) - flat(other.g.params)).max() > 0


def test_extragradient_moves_from_here_by_the_gradient_of_there():
  plan = plan_of(schedule='extragradient')
  state, after, _ = stepped(plan)
  _, hyper, batch = start(plan)
  key_a, key_b = jax.random.split(step_key(state))
  keys = [jax.random.split(k)[1] for k in (key_a, key_b)]
  at = state
  for i, key in enumerate(keys):
    to_d, to_g = gradients(
      plan, at, hyper, batch[i], key, jax.random.clone(key)
    )
    at = state.replace(
      g=state.g.replace(params=down(state.g.params, to_g, 1e-2)),
      d=state.d.replace(params=down(state.d.params, to_d, 2e-2)),
    )
  close(after.g.params, at.g.params)
  close(after.d.params, at.d.params)


# Not Adam with batch norm: the biases before it have no slope but rounding's.
@pytest.mark.parametrize(
  ('optimizer', 'rule', 'norm', 'reuse'),
  [
    ('adam', optax.adam, 'none', False),
    ('sgd', lambda rate, beta, _: optax.sgd(rate, beta), 'batch', True),
  ],
)
def test_extragradient_carries_what_is_no_parameter_through_both_moves(
  optimizer, rule, norm, reuse
):
  """Optimizers' memories and running statistics, in two updates by hand."""
  plan = plan_of(
    schedule='extragradient',
    norm=norm,
    optimizer_g=optimizer,
    optimizer_d=optimizer,
    reuse_noise=reuse,
  )
  betas = dict(beta1_g=0.5, beta1_d=0.3, beta2_g=0.9, beta2_d=0.8)
  state, after, _ = stepped(plan, **betas)
  _, hyper, batch = start(plan, **betas)
  rules = rule(1e-2, 0.5, 0.9), rule(2e-2, 0.3, 0.8)
  memories = [
    rule.init(player.params) for rule, player in zip(rules, (state.g, state.d))
  ]
  losses = game_lib.generator_loss, game_lib.discriminator_loss
  key_first, key_second = (
    jax.random.split(k)[1] for k in jax.random.split(step_key(state))
  )
  at = state
  for real, key in zip(batch, (key_first, key_first if reuse else key_second)):
    moved = []
    for i, name in enumerate('gd'):
      here, now = getattr(state, name), getattr(at, name)
      grads, (stats, _) = jax.jit(
        jax.grad(losses[i], has_aux=True), static_argnums=2
      )(now.params, at, plan.game, real, jax.random.clone(key), hyper)
      change, memories[i] = rules[i].update(grads, memories[i])
      params = optax.apply_updates(here.params, change)
      moved.append(here.replace(params=params, stats=stats))
    at = state.replace(g=moved[0], d=moved[1])
  for name, memory in zip('gd', memories):
    found, expected = getattr(after, name), getattr(at, name)
    close(found.params, expected.params)
    close(found.opt_state, memory)
    if norm == 'batch':
      close(found.stats, expected.stats)


@pytest.mark.parametrize(
  ('schedule', 'steps'),
  [
    *((name, {}) for name in sorted(SCHEDULES)),
    ('alternating', dict(d_steps=3, g_steps=2)),
  ],
)
@pytest.mark.parametrize('player', ['g', 'd'])
def test_momentum_moves_in_a_line_over_the_run(player, schedule, steps):
  """At step 6 of 8, from 0.5 to 0.7: as if it were 0.65 all along."""
  numbers = {'beta1_g': 0.5, 'beta1_d': 0.5}
  same = dict(schedule=schedule, steps=8, unroll_steps=2, **steps)
  rising = plan_of(**same, **{f'beta1_final_{player}': True})
  state, hyper, batch = start(
    rising, **numbers, **{f'beta1_final_{player}': 0.7}
  )
  # Memories that are not empty, so that momentum tells.
  full = jax.tree.map(jnp.ones_like, (state.g.opt_state, state.d.opt_state))
  state = state.replace(
    step=jnp.int32(6),
    g=state.g.replace(opt_state=full[0]),
    d=state.d.replace(opt_state=full[1]),
  )
  found, _ = compiled(rising)(state, hyper, batch)
  plan = plan_of(**same)
  fixed = hyper_of(plan, **(numbers | {f'beta1_{player}': 0.65}))
  expected, _ = compiled(plan)(state, fixed, batch)
  plain, _ = compiled(plan)(state, hyper, batch)
  for name in ('g', 'd'):
    close(getattr(found, name), getattr(expected, name))
  apart = flat(getattr(found, player)) - flat(getattr(plain, player))
  assert np.abs(apart).max() > 1e-3


@pytest.mark.parametrize(('step', 'expected'), [(0, 0.5), (2, 0.6), (99, 0.7)])
def test_momentum_stays_where_it_ends(step, expected):
  plan = plan_of(beta1_final_g=True, beta1_final_d=True, steps=4)
  hyper = hyper_of(
    plan, beta1_g=0.5, beta1_d=0.5, beta1_final_g=0.7, beta1_final_d=0.7
  )
  for rule in plan.optimizers(hyper, jnp.int32(step)):
    one = rule.update(
      jnp.zeros(1), rule.init(jnp.ones(1))._replace(trace=jnp.ones(1))
    )[0]
    np.testing.assert_allclose(one, expected, rtol=1e-6)


@pytest.mark.parametrize(
  'schedule, numbers, moves',
  [
    ('alternating', {}, 1),
    ('alternating', {'d_steps': 3, 'reuse_real': True}, 3),
    ('alternating', {'g_steps': 3}, 1),
    ('unrolled', {'unroll_steps': 5}, 1),
    ('simultaneous', {}, 1),
    ('extragradient', {}, 2),
    ('extragradient', {'reuse_real': True}, 2),
  ],
)
def test_images_shown_are_those_of_ds_moves(schedule, numbers, moves):
  plan = plan_of(schedule=schedule, **numbers)
  assert plan.images_a_step == moves * plan.batch_size
  assert plan.images_shown(jnp.int32(7)) == 7 * moves * plan.batch_size


def test_the_average_ages_by_the_images_of_both_of_extragradients_moves():
  plan = plan_of(schedule='extragradient', average=True)
  state, hyper, batch = start(plan, ema_halflife_kimg=1e-3 * plan.batch_size)
  late = state.replace(step=jnp.int32(1000))  # past its ramp
  moved, _ = jax.jit(make_train_step(plan))(late, hyper, batch)
  for old, new, now in zip(
    *map(jax.tree.leaves, (late.ema.params, moved.g.params, moved.ema.params))
  ):
    # Two batches, each a half-life.
    np.testing.assert_allclose(now, 0.75 * new + 0.25 * old, atol=1e-6)


def test_optimistic_is_twice_this_gradient_less_the_last():
  plan = plan_of(schedule='optimistic')
  state, hyper, batch = start(plan)
  step = jax.jit(make_train_step(plan))
  states = [state]
  for _ in range(2):
    states.append(step(states[-1], hyper, batch)[0])
  grads = []
  for i, now in enumerate(states[:2]):
    key = jax.random.fold_in(jax.random.clone(now.key), i)
    _, key = jax.random.split(key)
    grads.append(
      gradients(plan, now, hyper, batch[0], key, jax.random.clone(key))[0]
    )
  close(states[1].d.params, down(states[0].d.params, grads[0], 2e-2))
  twice = jax.tree.map(lambda a, b: 2 * b - a, *grads)
  close(states[2].d.params, down(states[1].d.params, twice, 2e-2))


def test_optimistic_adam_is_its_update_twice_less_the_last():
  plan = plan_of(schedule='optimistic', optimizer_d='adam')
  state, hyper, _ = start(plan)
  _, optimistic = plan.optimizers(hyper)
  _, adam = dataclasses.replace(plan, schedule='simultaneous').optimizers(hyper)
  rng = np.random.default_rng(0)
  a, b = optimistic.init(state.d.params), adam.init(state.d.params)
  last = None
  for _ in range(3):
    grads = jax.tree.map(
      lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), state.d.params
    )
    found, a = optimistic.update(grads, a)
    u, b = adam.update(grads, b)
    expected = (
      u if last is None else jax.tree.map(lambda u, v: 2 * u - v, u, last)
    )
    close(found, expected)
    last = u


def test_consensus_adds_the_slope_of_the_fields_length():
  plan = plan_of(schedule='consensus')
  state, after, metrics = stepped(plan, consensus=0.7)
  _, hyper, batch = start(plan)
  _, key = jax.random.split(step_key(state))

  def length(g_params, d_params):
    v = game_lib.vector_field(
      g_params,
      d_params,
      state,
      plan.game,
      batch[0],
      jax.random.clone(key),
      hyper,
    )
    return sum(jnp.vdot(x, x) for x in jax.tree.leaves(v)) / 2

  to_d, to_g = gradients(
    plan, state, hyper, batch[0], key, jax.random.clone(key)
  )
  pull_g, pull_d = jax.grad(length, (0, 1))(state.g.params, state.d.params)
  add = lambda g, p: g + 0.7 * p
  close(
    after.g.params, down(state.g.params, jax.tree.map(add, to_g, pull_g), 1e-2)
  )
  close(
    after.d.params, down(state.d.params, jax.tree.map(add, to_d, pull_d), 2e-2)
  )
  np.testing.assert_allclose(
    metrics['game/half_square'],
    length(state.g.params, state.d.params),
    rtol=1e-5,
  )


def test_the_vector_field_reaches_across_players():
  """Consensus and the Jacobian need the slope of D's gradient by G."""
  plan = plan_of()
  state, hyper, batch = start(plan)

  def to_d(g_params):
    return game_lib.vector_field(
      g_params,
      state.d.params,
      state,
      plan.game,
      batch[0],
      jax.random.key(0),
      hyper,
    )[1]

  def length(g_params):
    return sum(jnp.vdot(x, x) for x in jax.tree.leaves(to_d(g_params)))

  assert np.abs(flat(jax.grad(length)(state.g.params))).max() > 0


def unrolled_gradient(plan, state, hyper, real, key, rule):
  """G's gradient through D's moves ahead, the moves written out."""
  key_ahead, key_loss = jax.random.split(key)
  keys = jax.random.split(key_ahead, plan.unroll_steps)
  free = dict(frozen=lambda x: x)

  def loss(g_params):
    now = state.replace(g=state.g.replace(params=g_params))
    memory = state.d.opt_state
    for i in range(plan.unroll_steps):
      grads = jax.grad(game_lib.discriminator_loss, has_aux=True)(
        now.d.params, now, plan.game, real, keys[i], hyper, **free
      )[0]
      change, memory = rule.update(grads, memory)
      now = now.replace(
        d=now.d.replace(params=down(now.d.params, change, 2e-2))
      )
    return game_lib.generator_loss(
      g_params, now, plan.game, real, key_loss, hyper, **free
    )[0]

  return jax.jit(jax.grad(loss))(state.g.params)


@pytest.mark.parametrize(
  ('optimizer', 'rule'),
  [
    ('sgd', optax.trace(decay=0.3)),
    ('adam', optax.scale_by_adam(0.3, 0.8, eps_root=1e-30)),
  ],
)
def test_unrolled_looks_through_ds_moves(optimizer, rule):
  kind = dict(optimizer_d=optimizer)
  plan = plan_of(schedule='unrolled', unroll_steps=2, **kind)
  decays = dict(beta1_d=0.3, beta2_d=0.8)
  state, after, _ = stepped(plan, **decays)
  _, hyper, batch = start(plan, **decays)
  ordinary = stepped(plan_of(**kind), **decays)[1]
  close(after.d.params, ordinary.d.params)  # the looks ahead are forgotten
  _, key_g = jax.random.split(step_key(state))
  now = state.replace(d=after.d)
  expected = unrolled_gradient(plan, now, hyper, batch[0], key_g, rule)
  close(after.g.params, down(state.g.params, expected, 1e-2))
  assert np.abs(flat(after.g.params) - flat(ordinary.g.params)).max() > 0


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_unrolled_through_an_optimizer_is_finite(optimizer):
  plan = plan_of(
    schedule='unrolled', optimizer_d=optimizer, optimizer_g=optimizer
  )
  state, hyper, batch = start(plan)
  # A D that says the same of everything: most of its gradient is exactly 0.
  flat_d = jax.tree.map(jnp.zeros_like, state.d.params)
  state = state.replace(d=state.d.replace(params=flat_d))
  after, metrics = jax.jit(make_train_step(plan))(state, hyper, batch)
  assert np.isfinite(flat(after.g.params)).all()
  assert np.isfinite(metrics['g/grad_norm'])
