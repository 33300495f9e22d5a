"""The schedules: by the same rules, and in whole steps by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.toygame import (
  BATCH,
  RATE_D,
  RATE_G,
  apart,
  at,
  bare,
  close,
  down,
  flat,
  game_of,
  gradients,
  mlp,
  reals,
  replaced,
  start,
  step,
  step_key,
  stepped,
  still,
  trainer_of,
  update_keys,
)

from gan_jax import testing
from gan_jax.game import game as game_lib
from gan_jax.game.game import Aux, Batch, Game
from gan_jax.game.objectives import OBJECTIVES
from gan_jax.game.optimizers import Adam, Sgd
from gan_jax.game.regularizers import R1, R2, Clip
from gan_jax.game.schedules import SCHEDULES, Updates
from gan_jax.game.state import Player, State
from gan_jax.game.streams import stream
from gan_jax.game.trainer import Ema

IMAGES = jnp.float32(0)


@pytest.mark.parametrize('name', sorted(SCHEDULES))
def test_keeps_all_promises(name):
  settings = dict(unroll_steps=2) if name == 'unrolled' else {}
  assert testing.check_schedule(SCHEDULES[name](**settings)) == []
  assert SCHEDULES[name]().name == name


TURNS = ('alternating', 'alternating_g_first', 'unrolled')


@pytest.mark.parametrize('name', TURNS)
def test_fifty_updates_are_no_more_to_compile_than_two(name):
  """All that grows is the number in a loop, and axes of the data."""

  def size(count):
    trainer = trainer_of(name, d_steps=count, g_steps=count)
    shapes = jax.eval_shape(lambda: start(trainer))
    jaxpr = jax.make_jaxpr(trainer.step)(*shapes)
    return str(jaxpr).count(' = ')

  assert size(50) == size(2)


@pytest.mark.parametrize(
  ('schedule', 'plain', 'relativistic'),
  [
    *((SCHEDULES[name](), 1, 2) for name in TURNS),
    *((SCHEDULES[name](d_steps=3, g_steps=2), 3, 5) for name in TURNS),
    *((SCHEDULES[name](d_steps=3, reuse_real=True), 1, 1) for name in TURNS),
    (SCHEDULES['simultaneous'](), 1, 1),
    (SCHEDULES['optimistic'](), 1, 1),
    (SCHEDULES['consensus'](), 1, 1),
    (SCHEDULES['extragradient'](), 2, 2),
    (SCHEDULES['extragradient'](reuse_real=True), 1, 1),
  ],
  ids=str,
)
def test_real_batches_are_as_many_as_updates_need(
  schedule, plain, relativistic
):
  counts = dict(minimax=plain, relativistic=relativistic)
  for name, count in counts.items():
    assert schedule.real_batches(OBJECTIVES[name]()) == count


@pytest.mark.parametrize(
  ('schedule', 'settings', 'updates'),
  [
    ('alternating', {}, 1),
    ('alternating', dict(d_steps=3, reuse_real=True), 3),
    ('alternating', dict(g_steps=3), 1),
    ('unrolled', dict(unroll_steps=5), 1),
    ('simultaneous', {}, 1),
    ('extragradient', {}, 2),
    ('extragradient', dict(reuse_real=True), 2),
  ],
)
def test_images_shown_are_those_of_ds_updates(schedule, settings, updates):
  trainer = trainer_of(schedule, **settings)
  assert trainer.images_a_step(64) == 64 * updates


def test_g_first_moves_g_against_the_old_d():
  trainer = trainer_of('alternating_g_first')
  state, after, _ = stepped(trainer)
  real, (key_d, key_g) = reals(trainer)[0], update_keys(state)
  _, to_g = gradients(trainer.game, state, real, key_d, key_g)
  moved_g = down(state.g.params, to_g, RATE_G)
  close(after.g.params, moved_g)
  now = replaced(state, g=moved_g)
  to_d, _ = gradients(trainer.game, now, real, *update_keys(state))
  close(after.d.params, down(state.d.params, to_d, RATE_D))


def test_alternating_moves_g_against_the_new_d():
  """Several updates of each, on real batches and noise of their own."""
  trainer = trainer_of(game=game_of(nets=mlp()), d_steps=2, g_steps=2)
  state, after, _ = stepped(trainer)
  now = state
  for i, real in enumerate(reals(trainer)):
    to_d, _ = gradients(trainer.game, now, real, *update_keys(state, i))
    now = replaced(now, d=down(now.d.params, to_d, RATE_D))
  for i in range(2):
    _, to_g = gradients(trainer.game, now, real, *update_keys(state, i))
    now = replaced(now, g=down(now.g.params, to_g, RATE_G))
  close(after.d.params, now.d.params)
  close(after.g.params, now.g.params)


def watched(seen):
  """A game that tells which noise it draws."""
  nets = still()

  def latent(key, shape):
    z = jax.random.normal(key, shape)
    jax.debug.callback(lambda z: seen.append(np.asarray(z)), z)
    return z

  return game_of().replace(networks=nets._replace(latent=latent))


@pytest.mark.parametrize(
  ('schedule', 'settings', 'draws'),
  [
    ('alternating', dict(d_steps=2, g_steps=2), 4),
    ('alternating', dict(d_steps=2, g_steps=2, reuse_noise=True), 1),
    ('unrolled', dict(unroll_steps=2, reuse_noise=True), 1),
    ('extragradient', {}, 2),
    ('extragradient', dict(reuse_noise=True), 1),
    ('simultaneous', {}, 1),
  ],
)
def test_noise_is_drawn_once_for_all_updates_where_it_is_reused(
  schedule, settings, draws
):
  """The looks ahead among them; else anew for each update."""
  seen = []
  trainer = trainer_of(schedule, watched(seen), **settings)
  jax.block_until_ready(jax.jit(trainer.step)(*start(trainer)))
  jax.effects_barrier()
  # Old XLA draws again inside a fusion, one rounding apart.
  rows = {tuple(np.round(z, 4).tolist()) for z in seen}
  assert len(rows) == draws * BATCH


def ahead(steps):
  """The sum of what D's updates draw that G looks ahead, and G's own draw."""
  own = []

  def d_loss(params, state, real, key, **how):
    draw = jax.random.uniform(key)
    return params * draw, Aux(state.d.stats, {}, {})

  def g_loss(params, state, real, key, **how):
    own.append(float(jax.random.uniform(key)))
    return params * state.d.params, Aux(state.g.stats, {}, {})

  def apply_d(state, gradient):
    return replaced(state, d=state.d.params + gradient.grads)

  u = Updates(d_loss, g_loss, apply_d, None, None)
  player = Player(jnp.float32(0), {}, ())
  state = State(0, None, player, player, None, {}, {})
  schedule = SCHEDULES['unrolled'](unroll_steps=steps)
  real = Batch(jnp.zeros((1, 1)))
  found = schedule.g_gradient(u, state, real, jax.random.key(0))
  return float(found.grads), *own


def test_each_update_ahead_draws_anew():
  totals, own = zip(*[ahead(steps) for steps in (1, 2, 3)])
  assert len(set(own)) == 1
  draws = [own[0], *np.diff([0, *totals])]
  assert len(set(np.round(draws, 5))) == 4


def test_logs_are_those_of_the_last_update():
  trainer = trainer_of(d_steps=3, g_steps=2, reuse_real=True)
  state, batch = start(trainer)
  _, logs = step(trainer, state, batch)
  for moving in ('none', 'd'):
    stays = {f'optimizer_{k}__learning_rate': 0.0 for k in 'dg' if k != moving}
    _, first = step(trainer, at(state, **stays), batch)
    for player in {'none': 'dg', 'd': 'g'}[moving]:  # each has moved on
      assert abs(logs[f'{player}/loss'] - first[f'{player}/loss']) > 1e-5


def test_a_reused_real_batch_serves_every_update():
  trainer = trainer_of(d_steps=2, reuse_real=True)
  state, batch = start(trainer)
  assert batch.shape[0] == 1
  after, _ = step(trainer, state, batch)
  twice = jnp.tile(batch, (2, 1, 1))
  other, _ = step(trainer_of(d_steps=2), state, twice)
  close(after.d.params, other.d.params)


def test_relativistic_g_sees_real_samples_of_its_own():
  trainer = trainer_of(game=game_of('relativistic'))
  state, batch = start(trainer)
  after, _ = step(trainer, state, batch)
  other, _ = step(trainer, state, batch.at[1].add(1.0))
  close(after.d.params, other.d.params)
  assert apart(after.g.params, other.g.params) > 0


def both_keys(state, *number):
  """A key for each of two losses that share it."""
  return [stream(step_key(state), 'both', *number) for _ in range(2)]


def test_simultaneous_moves_both_from_one_point():
  trainer = trainer_of('simultaneous')
  state, after, _ = stepped(trainer)
  real = reals(trainer)[0]
  to_d, to_g = gradients(trainer.game, state, real, *both_keys(state))
  close(after.g.params, down(state.g.params, to_g, RATE_G))
  close(after.d.params, down(state.d.params, to_d, RATE_D))


# Not Adam with batch norm: the biases before it have no slope but rounding's.
@pytest.mark.parametrize(
  ('ours', 'rule', 'norm', 'reuse'),
  [
    (Adam(RATE_G, 0.5, beta2=0.9), optax.adam(RATE_G, 0.5, 0.9), 'none', False),
    (Sgd(RATE_G, 0.5), optax.sgd(RATE_G, 0.5), 'batch', True),
  ],
)
def test_extragradient_moves_from_here_by_the_gradient_of_there(
  ours, rule, norm, reuse
):
  """Optimizers' memories and running statistics go through both updates."""
  trainer = trainer_of(
    'extragradient',
    game_of(nets=mlp(norm='batch') if norm == 'batch' else None),
    optimizer_g=ours,
    optimizer_d=ours,
    reuse_noise=reuse,
  )
  state, after, _ = stepped(trainer)
  losses = dict(g=game_lib.g_loss, d=game_lib.d_loss)

  @jax.jit
  def gradient(state, real, key):
    def of(name):
      loss = jax.grad(losses[name], 1, has_aux=True)
      params = getattr(state, name).params
      how = dict(images=IMAGES)
      grads, aux = loss(trainer.game, params, state, Batch(real), key, **how)
      return grads, aux.stats

    return of('g'), of('d')

  memories = {name: rule.init(getattr(state, name).params) for name in 'gd'}
  now = state
  for i, real in enumerate(reals(trainer)):
    key = both_keys(state, 0 if reuse else i)[0]
    players = {}
    for name, (grads, stats) in zip('gd', gradient(bare(now), real, key)):
      change, memories[name] = rule.update(grads, memories[name])
      here = getattr(state, name)
      params = optax.apply_updates(here.params, change)
      players[name] = here.replace(params=params, stats=stats)
    now = state.replace(**players)
  for name in 'gd':
    found, expected = getattr(after, name), getattr(now, name)
    close(found.params, expected.params)
    close(found.opt_state, memories[name])
    if norm == 'batch':
      close(found.stats, expected.stats)


def test_the_average_ages_by_the_images_of_both_of_extragradients_updates():
  trainer = trainer_of('extragradient', ema=Ema(1e-3 * BATCH))
  state, batch = start(trainer)
  late = state.replace(step=jnp.int32(1000))  # past its ramp
  after, _ = step(trainer, late, batch)
  # Two batches, each a half-life.
  expected = 0.75 * flat(after.g.params) + 0.25 * flat(state.ema.params)
  close(after.ema.params, expected)


def test_optimistic_is_twice_this_gradient_less_the_last():
  trainer = trainer_of('optimistic')
  state, batch = start(trainer)
  states, grads = [state], []
  for _ in range(2):
    now = states[-1]
    states.append(step(trainer, now, batch)[0])
    grads.append(gradients(trainer.game, now, batch[0], *both_keys(now))[0])
  close(states[1].d.params, down(states[0].d.params, grads[0], RATE_D))
  twice = jax.tree.map(lambda a, b: 2 * b - a, *grads)
  close(states[2].d.params, down(states[1].d.params, twice, RATE_D))


def test_optimistic_adam_is_its_update_twice_less_the_last():
  plain = Adam().transform(0)
  optimistic = SCHEDULES['optimistic']().wrap(plain)
  rng, last = np.random.default_rng(0), None
  params = jnp.zeros(5)
  a, b = optimistic.init(params), plain.init(params)
  for _ in range(3):
    grads = jnp.float32(rng.normal(size=5))
    found, a = optimistic.update(grads, a)
    u, b = plain.update(grads, b)
    close(found, u if last is None else 2 * u - last)
    last = u


@jax.jit
def length_slopes(game, state, real, key):
  """Half the squared length of the field, and its slopes by both players."""

  def length(g_params, d_params):
    now = replaced(state, g_params, d_params)
    how = dict(images=IMAGES, frozen=False)
    args = now, Batch(real), key
    v = (
      jax.grad(lambda p: game_lib.g_loss(game, p, *args, **how)[0])(g_params),
      jax.grad(lambda p: game_lib.d_loss(game, p, *args, **how)[0])(d_params),
    )
    return sum(jnp.vdot(x, x) for x in jax.tree.leaves(v)) / 2

  return jax.value_and_grad(length, (0, 1))(state.g.params, state.d.params)


def test_consensus_adds_the_slope_of_the_fields_length():
  """Which reaches across players: of D's gradient by G, and the reverse.

  Of the plain game: the penalty is descended, and not in the field.
  """
  game = game_of(regularizers=('r1',))
  trainer = trainer_of('consensus', game, weight=0.7)
  state, after, logs = stepped(trainer)
  real = reals(trainer)[0]
  to_d, to_g = gradients(trainer.game, state, real, *both_keys(state))
  length, (pull_g, pull_d) = length_slopes(
    game_of(), bare(state), real, both_keys(state)[0]
  )
  assert np.abs(flat(pull_g)).max() > 0
  add = lambda g, p: g + 0.7 * p
  close(
    after.g.params,
    down(state.g.params, jax.tree.map(add, to_g, pull_g), RATE_G),
  )
  close(
    after.d.params,
    down(state.d.params, jax.tree.map(add, to_d, pull_d), RATE_D),
  )
  np.testing.assert_allclose(logs['game/half_square'], length, rtol=1e-5)
  for name, grads in (('d', to_d), ('g', to_g)):  # before they are pulled
    size = np.linalg.norm(flat(grads))
    np.testing.assert_allclose(logs[f'{name}/grad_norm'], size, rtol=1e-5)


def unrolled_gradient(game, state, real, key, rule, memory):
  """G's gradient through two updates of D ahead, written out."""

  @jax.jit
  def slope(state, g_params):
    def loss(g_params):
      now, past = replaced(state, g=g_params), memory
      how = dict(images=IMAGES, frozen=False)
      for i in range(2):
        to_d = jax.grad(game_lib.d_loss, 1, has_aux=True)
        ahead = stream(key, 'ahead', i)
        args = game, now.d.params, now, Batch(real), ahead
        change, past = rule.update(to_d(*args, **how)[0], past)
        d = down(now.d.params, change, RATE_D)
        now = replaced(now, d=jax.tree.map(lambda w: jnp.clip(w, -0.6, 0.6), d))
      last = stream(key, 'loss')
      return game_lib.g_loss(game, g_params, now, Batch(real), last, **how)[0]

    return jax.grad(loss)(g_params)

  return slope(bare(state), state.g.params)


@pytest.mark.parametrize(
  ('ours', 'rule'),
  [
    (Sgd(RATE_D, 0.3), optax.trace(decay=0.3)),
    (
      Adam(RATE_D, 0.3, beta2=0.8),
      optax.scale_by_adam(0.3, 0.8, eps_root=1e-30),
    ),
  ],
)
def test_unrolled_looks_through_ds_updates(ours, rule):
  """With their penalties, of which one is not due, and their projection."""
  terms = [R1(0.3), R2(0.5, every=2), Clip(0.6)]
  game = Game(still(), OBJECTIVES['non_saturating'], terms)
  trainer = trainer_of('unrolled', game, optimizer_d=ours, unroll_steps=2)
  state, batch = start(trainer)
  state = state.replace(step=jnp.int32(1))
  after, _ = step(trainer, state, batch)
  ordinary, _ = step(trainer_of(game=game, optimizer_d=ours), state, batch)
  close(after.d.params, ordinary.d.params)  # the looks ahead are forgotten
  now, real = replaced(state, d=after.d.params), reals(trainer)[0]
  to_d, _ = gradients(trainer.game, state, real, *update_keys(state))
  _, memory = rule.update(to_d, rule.init(state.d.params))
  key_g = update_keys(state)[1]
  expected = unrolled_gradient(trainer.game, now, real, key_g, rule, memory)
  close(after.g.params, down(state.g.params, expected, RATE_G))
  assert apart(after.g.params, ordinary.g.params) > 0


@pytest.mark.parametrize(
  ('schedule', 'settings'),
  [
    ('extragradient', {}),
    ('unrolled', dict(unroll_steps=2)),
    ('alternating', dict(d_steps=3, g_steps=2)),
  ],
)
def test_momentum_moves_by_the_games_clock(schedule, settings):
  """At step 6 of 8, from 0.5 to 0.7: as if it were 0.65 all along."""
  moving = Sgd(RATE_G, 0.5, beta1_final=0.7, momentum_steps=8)
  trainer = trainer_of(
    schedule, optimizer_g=moving, optimizer_d=moving, **settings
  )
  state, batch = start(trainer)
  # Memories that are not empty, so that momentum tells.
  full = jax.tree.map(jnp.ones_like, (state.g.opt_state, state.d.opt_state))
  state = state.replace(
    g=state.g.replace(opt_state=full[0]), d=state.d.replace(opt_state=full[1])
  )
  late = state.replace(step=jnp.int32(6))
  found, _ = step(trainer, late, batch)
  same = dict(optimizer_g__beta1=0.65, optimizer_d__beta1=0.65)
  same |= dict(optimizer_g__beta1_final=0.65, optimizer_d__beta1_final=0.65)
  expected, _ = step(trainer, at(late, **same), batch)
  stays = dict(optimizer_g__beta1_final=0.5, optimizer_d__beta1_final=0.5)
  plain, _ = step(trainer, at(late, **stays), batch)
  for name in ('g', 'd'):
    close(getattr(found, name), getattr(expected, name))
    assert apart(getattr(found, name), getattr(plain, name)) > 1e-3


@pytest.mark.parametrize('objective', ['minimax', 'relativistic'])
@pytest.mark.parametrize('reused', [False, True])
def test_a_step_of_many_updates_is_no_larger_a_program(objective, reused):
  """A loop and no list: neither of updates nor of keys or batches."""

  def lines(count):
    trainer = trainer_of(
      'unrolled',
      game_of(objective),
      d_steps=count,
      g_steps=count,
      unroll_steps=count,
      reuse_noise=reused,
      reuse_real=reused,
    )
    shapes = jax.eval_shape(trainer.init, jax.random.key(0))
    shape = (trainer.real_batches, 4, *trainer.game.networks.sample_shape)
    x = jax.ShapeDtypeStruct(shape, np.float32)
    return str(jax.make_jaxpr(trainer.step)(shapes, x)).count('\n')

  assert lines(40) == lines(3)
