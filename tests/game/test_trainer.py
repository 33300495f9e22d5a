"""Whole steps: by hand, by each of JAX's transformations; the average of G."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.nets import same
from helpers.toygame import (
  BATCH,
  apart,
  at,
  close,
  flat,
  game_of,
  mlp,
  net,
  reals,
  replaced,
  start,
  step,
  stepped,
  trainer_of,
  update_keys,
)

from gan_jax import networks
from gan_jax.game import game as game_lib
from gan_jax.game.game import Game, InstanceNoise
from gan_jax.game.objectives import Minimax, NonSaturating
from gan_jax.game.optimizers import Adam, Linear, Sgd
from gan_jax.game.regularizers import (
  R1,
  Clip,
  Lecam,
  OrthogonalG,
  Regularizer,
)
from gan_jax.game.trainer import Ema, Trainer


def norms(tree):
  return [float(jnp.abs(x).max()) for x in jax.tree.leaves(tree)]


def test_a_step_is_pure_under_jit_scan_vmap_and_donation():
  """All of them, of two runs for three steps, to one end."""
  trainer = trainer_of(ema=Ema())
  batches = jnp.stack([reals(trainer, seed) for seed in range(3)])
  ends = []
  for seed in (0, 1):
    state = trainer.init(jax.random.key(seed))
    for batch in batches:
      state, logs = step(trainer, state, batch)
    ends.append((state, logs))
  keys = jax.vmap(jax.random.key)(jnp.arange(2))

  def run(state):
    return jax.lax.scan(trainer.step, state, batches)

  begun = jax.jit(jax.vmap(trainer.init))(keys)
  together, logs = jax.jit(jax.vmap(run), donate_argnums=0)(begun)
  assert together.step.tolist() == [3, 3]
  for i, (state, last) in enumerate(ends):
    member = jax.tree.map(lambda x, i=i: x[i], together.replace(key=None))
    close(member, state.replace(key=None), rtol=1e-5)
    close(jax.tree.map(lambda x, i=i: x[i, -1], logs), last, rtol=1e-5)


def shared_start(key):
  """Two parameters that are one array; whole numbers and a key in the stats."""
  del key
  zeros = jnp.zeros(2)
  stats = {'seen': jnp.int32(0), 'key': jax.random.key(3), 'low': half(0)}
  return {'a': zeros, 'b': zeros}, stats


def half(x):
  return jnp.asarray(x, jnp.bfloat16)


def odd_networks():
  def apply(params, stats, z, *, train, key=None, label=None):
    moved = stats | {'seen': stats['seen'] + 1, 'low': stats['low'] + 1}
    x = z + (params['a'] + params['b'])[None]
    return x, moved if train else stats

  d = net({'w': jnp.ones(2)}, lambda p, x, label: x @ p['w'])
  return networks.Networks(networks.Net(shared_start, apply), d, 2, (2,))


@pytest.mark.parametrize('jitted', [False, True])
def test_no_two_leaves_of_a_state_share_a_buffer(jitted):
  """Or a donated state would be donated twice, at its start or later."""
  trainer = trainer_of(game=Game(odd_networks(), Minimax(), [Lecam]), ema=Ema())
  make = jax.jit(trainer.init) if jitted else trainer.init
  batch = reals(trainer)
  donated = jax.jit(trainer.step, donate_argnums=0)
  state, _ = donated(make(jax.random.key(0)), batch)
  state, _ = donated(trainer.step(state, batch)[0], batch)
  assert int(state.step) == 3


def test_the_average_takes_the_floats_and_copies_the_rest():
  """In their types, as a loop's carry must keep them."""
  trainer = trainer_of(game=Game(odd_networks(), Minimax()), ema=Ema())
  state, _ = step(trainer, *start(trainer))
  stats = state.ema.stats
  assert int(stats['seen']) == int(state.g.stats['seen']) == 1
  assert jax.random.key_data(stats['key']).tolist() == [0, 3]
  assert stats['low'].dtype == jnp.bfloat16
  assert 0 < float(stats['low']) <= 1


def test_a_batch_without_its_leading_axis_is_one_batch():
  trainer = trainer_of()
  state, batch = start(trainer)
  one, _ = step(trainer, state, batch)
  other, _ = step(trainer, state, np.asarray(batch[0]))
  assert same(one.g.params, other.g.params)


def test_every_parameter_of_both_players_moves():
  before, after, _ = stepped(trainer_of(game=game_of(nets=mlp())))
  for player in ('g', 'd'):
    old, new = getattr(before, player), getattr(after, player)
    change = jax.tree.map(lambda a, b: b - a, old.params, new.params)
    assert min(norms(change)) > 0.0, player


def test_learning_rate_zero_freezes_one_player():
  trainer = trainer_of()
  before, batch = start(trainer)
  still = at(before, optimizer_d__learning_rate=0.0)
  after, _ = step(trainer, still, batch)
  assert same(before.d.params, after.d.params)
  assert not same(before.g.params, after.g.params)


def test_a_step_uses_the_numbers_of_its_state():
  """A sweep is a `vmap` over states; the trainer's own are where it starts."""
  trainer = trainer_of()
  state, batch = start(trainer)
  faster = trainer.replace(optimizer_g=Sgd(0.5, 0.0))
  assert same(step(faster, state, batch)[0].g, step(trainer, state, batch)[0].g)
  moved = at(state, optimizer_g__learning_rate=0.5)
  begun = trainer.init(jax.random.key(0))
  assert same(begun.g, state.g)
  other, _ = step(faster, faster.init(jax.random.key(0)), batch)
  close(step(trainer, moved, batch)[0].g, other.g)
  chosen = trainer.init(
    jax.random.key(0), {'optimizer_g.learning_rate': jnp.float32(0.5)}
  )
  close(step(trainer, chosen, batch)[0].g, other.g)


def sigmoid(t):
  return 1 / (1 + np.exp(-t))


@pytest.mark.parametrize('objective', [Minimax, NonSaturating])
def test_one_step_of_sgd_against_numpy(objective):
  """D linear, G affine, by hand in float64: both updates of one step."""
  g = net(
    {'a': jnp.float32(0.5), 'b': jnp.float32(-0.3)},
    lambda p, z, label: p['a'] * z + p['b'],
  )
  d = net({'w': jnp.float32(0.7)}, lambda p, x, label: p['w'] * x[:, 0])
  game = Game(networks.Networks(g, d, 1, (1,)), objective())
  trainer = Trainer(game, Sgd(0.1, 0.0), Sgd(0.2, 0.0))
  state = trainer.init(jax.random.key(0))
  real = jnp.linspace(0, 2, BATCH)[:, None]
  after, _ = jax.jit(trainer.step)(state, real)
  z_d, z_g = (
    np.float64(game_lib.draw(game, BATCH, key).z)[:, 0]
    for key in update_keys(state)
  )
  a, b, w = 0.5, -0.3, 0.7
  x, fake = np.float64(real)[:, 0], a * z_d + b
  slope_w = (
    -((1 - sigmoid(w * x)) * x).mean() + (sigmoid(w * fake) * fake).mean()
  )
  w -= 0.2 * slope_w
  prob = sigmoid(w * (a * z_g + b))
  slope = -prob if objective is Minimax else -(1 - prob)
  a -= 0.1 * (slope * w * z_g).mean()
  b -= 0.1 * (slope * w).mean()
  np.testing.assert_allclose(after.d.params['w'], w, rtol=1e-6)
  np.testing.assert_allclose(after.g.params['a'], a, rtol=1e-6)
  np.testing.assert_allclose(after.g.params['b'], b, rtol=1e-6)


CLASSES, PENALTY, SMOOTHING = 3, 0.3, 0.2
RATE_G, RATE_D, CLIP_G, CLIP_D = 0.1, 0.2, 0.05, 0.1
# (kernel, a shift a class) of G, (slope, a shift a class) of D.
POINT = (
  np.array([[0.5, -0.4], [0.3, 0.8]]),
  np.array([[0.1, -0.2], [0.6, 0.3], [-0.5, 0.2]]),
  np.array([0.7, -0.9]),
  np.array([0.2, -0.3, 0.4]),
)


def of_class(label):
  return np.eye(CLASSES)[np.asarray(label)]


def clipped(grads, bound):
  """Gradients of one player, shortened to a norm that they are above."""
  size = np.sqrt(sum((g**2).sum() for g in grads))
  assert size > 1.1 * bound
  return [g * bound / size for g in grads]


def moved64(point, real, drawn_d, drawn_g, factor):
  """`G(z, c) = z K + m_c`, `D(x, c) = <x, w> + e_c`, in float64."""
  kernel, shift, slope, bias = point
  x, label = real
  n = len(x)
  z, c = np.float64(drawn_d.z), np.asarray(drawn_d.label)
  y = z @ kernel + shift[c]
  to_real = (sigmoid(x @ slope + bias[label]) - (1 - SMOOTHING)) / n
  to_fake = sigmoid(y @ slope + bias[c]) / n
  to_slope, to_bias = clipped(
    [
      to_real @ x + to_fake @ y,
      to_real @ of_class(label) + to_fake @ of_class(c),
    ],
    CLIP_D,
  )
  slope = slope - factor * RATE_D * to_slope
  bias = bias - factor * RATE_D * to_bias

  z, c = np.float64(drawn_g.z), np.asarray(drawn_g.label)
  y = z @ kernel + shift[c]
  to_y = -np.outer(1 - sigmoid(y @ slope + bias[c]), slope) / n
  across = (kernel.T @ kernel) * (1 - np.eye(2))
  to_kernel, to_shift = clipped(
    [z.T @ to_y + PENALTY * 4 * kernel @ across, of_class(c).T @ to_y],
    CLIP_G,
  )
  kernel = kernel - factor * RATE_G * to_kernel
  return kernel, shift - factor * RATE_G * to_shift, slope, bias


def test_one_conditional_step_against_numpy():
  """Smoothed labels, a penalty on G, clipped gradients and a falling rate."""
  kernel, shift, slope, bias = map(jnp.float32, POINT)
  nets = networks.Networks(
    net(
      {'kernel': kernel, 'shift': shift},
      lambda p, z, label: z @ p['kernel'] + p['shift'][label],
    ),
    net(
      {'slope': slope, 'bias': bias},
      lambda p, x, label: x @ p['slope'] + p['bias'][label],
    ),
    2,
    (2,),
    classes=CLASSES,
  )
  game = Game(nets, NonSaturating(SMOOTHING), [OrthogonalG(PENALTY)])
  decay = Linear(steps=10, final=0.1)
  trainer = Trainer(
    game,
    Sgd(RATE_G, 0.0, clip=CLIP_G, decay=decay),
    Sgd(RATE_D, 0.0, clip=CLIP_D, decay=decay),
  )
  state = trainer.init(jax.random.key(0)).replace(step=jnp.int32(5))
  rng = np.random.default_rng(1)
  x, label = rng.normal(1, 1, (BATCH, 2)), np.arange(BATCH) % CLASSES
  batch = jnp.float32(x)[None], jnp.int32(label)[None]
  after, _ = jax.jit(trainer.step)(state, batch)
  drawn = [game_lib.draw(game, BATCH, key) for key in update_keys(state)]
  expected = moved64(POINT, (x, label), *drawn, factor=0.1 + 0.9 / 2)
  g, d = after.g.params, after.d.params
  for found, want in zip(
    (g['kernel'], g['shift'], d['slope'], d['bias']), expected, strict=True
  ):
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-7)
  rates = trainer.rates(5)
  assert float(rates['g/lr']) == pytest.approx(0.55 * RATE_G)
  assert float(rates['d/lr']) == pytest.approx(0.55 * RATE_D)


def test_noise_is_drawn_anew_each_step_and_is_a_function_of_the_step():
  trainer = trainer_of(game=game_of(nets=mlp()))
  state, batch = start(trainer)
  still = {f'optimizer_{player}__learning_rate': 0.0 for player in 'gd'}
  one, first = step(trainer, at(state, **still), batch)
  _, second = step(trainer, one, batch)
  _, again = step(trainer, at(state, **still), batch)
  assert first['g/loss'] != second['g/loss']
  assert first['g/loss'] == again['g/loss']


def test_instance_noise_reaches_d_and_anneals_to_none():
  noisy = trainer_of(
    game=game_of().replace(instance_noise=InstanceNoise(0.0, 0.0))
  )
  state, batch = start(noisy)
  plain = trainer_of()

  def without(step_number):
    begun, _ = start(plain)
    begun = begun.replace(step=jnp.int32(step_number))
    return float(step(plain, begun, batch)[1]['d/loss'])

  def loss(step_number=0, **numbers):
    now = at(state, **numbers).replace(step=jnp.int32(step_number))
    return float(step(noisy, now, batch)[1]['d/loss'])

  assert loss() == pytest.approx(without(0), rel=1e-6)
  assert abs(loss(std=1.0) - without(0)) > 1e-3
  # Annealed over 4 images: gone by the second step of 8.
  assert loss(1, std=1.0, kimg=0.004) == pytest.approx(without(1), rel=1e-6)


def test_noise_falls_with_all_images_that_d_was_shown(monkeypatch):
  """In each of its updates."""
  told = []
  for name in ('d_loss', 'g_loss'):
    watch = lambda *args, images, **how: told.append(float(images))
    monkeypatch.setattr(game_lib, name, watch)
  trainer = trainer_of(d_steps=3)
  state, batch = start(trainer)
  u = trainer.updates(state.replace(step=jnp.int32(5)), BATCH)
  for loss in (u.d_loss, u.g_loss):
    loss(None, state, game_lib.Batch(batch[0]), jax.random.key(0))
  assert told == [5 * 3 * BATCH] * 2


def test_average_follows_its_half_life():
  trainer = trainer_of(ema=Ema(1e-3 * BATCH))  # one step
  state, batch = start(trainer)
  # Late, so that the ramp-up of the half-life is over.
  after, _ = step(trainer, state.replace(step=jnp.int32(1000)), batch)
  old, new = flat(state.ema.params), flat(after.g.params)
  close(after.ema.params, (old + new) / 2, rtol=1e-5)


def test_the_average_leaves_the_start_behind_with_its_statistics():
  """Its half-life is a twentieth of what was shown, however long it is told."""
  trainer = trainer_of(game=game_of(nets=mlp(norm='batch')), ema=Ema(1e3))
  state, batch = start(trainer)
  for number, decay in ((0, 0.5**20), (10, 0.5 ** (20 / 11))):
    after, _ = step(trainer, state.replace(step=jnp.int32(number)), batch)
    for old, live, found in (
      (state.ema.params, after.g.params, after.ema.params),
      (state.ema.stats, after.g.stats, after.ema.stats),
    ):
      assert apart(old, live) > 1e-4
      close(found, flat(live) + decay * (flat(old) - flat(live)))


def test_samples_are_of_the_average_where_there_is_one():
  averaged, plain = trainer_of(ema=Ema()), trainer_of()
  z = jax.random.normal(jax.random.key(3), (5, 2))
  state = averaged.init(jax.random.key(0))
  state = state.replace(
    ema=jax.tree.map(lambda x: x + 0.5, state.ema), key=state.key
  )
  live = plain.generate(plain.init(jax.random.key(0)), z)
  assert live.shape == (5, 2) and live.dtype == jnp.float32
  close(averaged.generate(state, z, ema=False), live)
  assert apart(averaged.generate(state, z), live) > 0.1


def test_each_player_starts_from_a_key_of_its_own():
  def init(key):
    return {'w': jax.random.normal(key, (2,))}, {}

  def apply(params, stats, x, **how):
    return x @ params['w'], stats

  nets = networks.Networks(
    networks.Net(init, lambda p, s, z, **how: (z * p['w'][None], s)),
    networks.Net(init, apply),
    2,
    (2,),
  )
  state = trainer_of(game=Game(nets, Minimax())).init(jax.random.key(0))
  assert apart(state.g.params, state.d.params) > 1e-3


def test_each_player_has_its_own_rate():
  decay = Linear(steps=10)
  trainer = trainer_of(
    optimizer_g=Sgd(0.1, 0.0, decay=decay), optimizer_d=Adam(0.3)
  )
  rates = {name: float(rate) for name, rate in trainer.rates(5).items()}
  assert rates == {'g/lr': pytest.approx(0.05), 'd/lr': pytest.approx(0.3)}


def test_a_step_leaves_a_state_of_its_kind():
  """With regularizers that remember something, and that do not."""
  trainer = trainer_of(game=game_of(regularizers=('r1', 'lecam')), ema=Ema())
  state, batch = start(trainer)
  after, _ = jax.eval_shape(trainer.step, state, batch)
  shapes = jax.eval_shape(lambda: state)
  assert jax.tree.structure(after) == jax.tree.structure(shapes)
  assert jax.tree.leaves(after) == jax.tree.leaves(shapes)


@pytest.mark.parametrize('dtype', [np.uint8, np.int64])
def test_networks_receive_classes_as_int32(dtype):
  seen = []

  def judge(p, x, label):
    seen.append(label.dtype)
    return x[:, 0] * p['w']

  nets = networks.Networks(
    net({'b': jnp.float32(1)}, lambda p, z, label: z * p['b']),
    net({'w': jnp.float32(1)}, judge),
    1,
    (1,),
    classes=3,
  )
  trainer = trainer_of(game=Game(nets, Minimax()))
  state = trainer.init(jax.random.key(0))
  x, label = np.ones((1, 6, 1), np.float32), np.arange(6)[None] % 3
  jax.eval_shape(trainer.step, state, (x, label.astype(dtype)))
  assert set(seen) == {jnp.dtype('int32')}


def test_optax_states_are_separate():
  trainer = trainer_of(optimizer_g=Adam(), optimizer_d=Sgd())
  state = trainer.init(jax.random.key(0))
  g_leaves, d_leaves = (
    jax.tree.leaves(p.opt_state) for p in (state.g, state.d)
  )
  assert len(g_leaves) == 2 * len(jax.tree.leaves(state.g.params)) + 1
  assert len(d_leaves) == len(jax.tree.leaves(state.d.params))


def test_optaxs_transformations_are_whole():
  """Their updates are added as they are, by their own clock."""
  rate = optax.piecewise_constant_schedule(1e-2, {1: 0.0})  # 0 from the second
  trainer = trainer_of(optimizer_d=optax.sgd(rate), d_steps=2)
  state, batch = start(trainer)
  after, _ = step(trainer, state, batch)
  ours = trainer_of(d_steps=1)
  expected, _ = step(
    ours, at(start(ours)[0], optimizer_d__learning_rate=1e-2), batch[:1]
  )
  close(after.d.params, expected.d.params)


def test_numbers_that_optax_injected_are_swept():
  chain = optax.chain(
    optax.clip_by_global_norm(1e3),
    optax.inject_hyperparams(optax.sgd)(learning_rate=0.5),
  )
  trainer, plain = trainer_of(optimizer_g=chain), trainer_of()
  state, batch = start(trainer)
  for rate in (0.5, 0.1):
    after, _ = step(trainer, at(state, optimizer_g__learning_rate=rate), batch)
    expected, _ = step(
      plain, at(start(plain)[0], optimizer_g__learning_rate=rate), batch
    )
    close(after.g.params, expected.g.params)


@pytest.mark.parametrize('schedule', ['alternating', 'unrolled'])
def test_lazy_penalties_come_every_so_often_and_so_much_heavier(schedule):
  """In the updates that are looked ahead as in that which is made."""

  def trainer(*regularizers):
    settings = dict(unroll_steps=2) if schedule == 'unrolled' else {}
    game = game_of().replace(regularizers=list(regularizers))
    return trainer_of(schedule, game, **settings)

  plain, usual, lazy = trainer(), trainer(R1(0.1)), trainer(R1(0.1, every=4))
  state, batch = start(usual)
  made, due = step(lazy, state, batch)
  other, always = step(usual, at(state, r1__weight=0.4), batch)
  np.testing.assert_allclose(
    due['d/penalty/r1'], 4 * always['d/penalty/r1'], rtol=1e-5
  )
  close((made.g.params, made.d.params), (other.g.params, other.d.params))
  later = state.replace(step=jnp.int32(1))
  moved, not_due = step(lazy, later, batch)
  assert float(not_due['d/penalty/r1']) == 0.0
  begun = start(plain)[0].replace(step=jnp.int32(1))
  bare, _ = step(plain, begun, batch)
  close((moved.g.params, moved.d.params), (bare.g.params, bare.d.params))


def test_clipping_holds_after_every_step():
  game = game_of('wasserstein').replace(regularizers=[Clip(0.01)])
  _, after, _ = stepped(trainer_of(game=game, d_steps=2))
  assert np.abs(flat(after.d.params)).max() <= np.float32(0.01)
  assert np.abs(flat(after.g.params)).max() > 0.01


def test_what_lecam_remembers_follows_ds_output():
  game = game_of(regularizers=['lecam'])
  state, after, logs = stepped(trainer_of(game=game))
  assert jax.tree.leaves(state.memory) == [0.0, 0.0]
  for kind in ('real', 'fake'):
    np.testing.assert_allclose(
      getattr(after.memory['lecam'], kind),
      0.01 * logs[f'd/logit_{kind}'],
      rtol=1e-5,
    )
  assert start(trainer_of())[0].memory == {}


def test_a_memory_moves_once_in_each_update_of_its_player():
  game = game_of(regularizers=['lecam'])
  for settings, moves in (
    (dict(schedule='alternating', d_steps=3), 3),
    (dict(schedule='simultaneous'), 1),
    (dict(schedule='extragradient'), 1),
  ):
    trainer = trainer_of(game=game, **settings)
    state, batch = start(trainer)
    # D says 1 of everything, and learns nothing.
    d = jax.tree.map(jnp.zeros_like, state.d.params) | {'e': jnp.float32(1)}
    state = at(replaced(state, d=d), optimizer_d__learning_rate=0.0)
    after, _ = step(trainer, state, batch)
    expected = 1 - 0.99**moves
    np.testing.assert_allclose(after.memory['lecam'], expected, rtol=1e-5)


class Counting(Regularizer):
  """Of both players: remembers how many updates it has seen."""

  weight: float = 1.0

  def on_d(self, view):
    return view.memory * jnp.mean(view.real_logits)

  def on_g(self, view):
    return view.memory * jnp.mean(view.fake_logits)

  def init_memory(self):
    return jnp.float32(0)

  def next_memory(self, memory, view):
    return memory + 1


@pytest.mark.parametrize('schedule', ['alternating', 'simultaneous'])
def test_a_memory_of_both_players_moves_with_both(schedule):
  """D's update comes first, and G's penalty sees what it has moved."""
  game = game_of().replace(regularizers=[Counting])
  _, after, logs = stepped(trainer_of(schedule, game))
  assert float(after.memory['counting']) == 2
  assert float(logs['d/penalty/counting']) == 0
  assert float(logs['g/penalty/counting']) != 0


def test_packing_trains():
  _, _, logs = stepped(trainer_of(game=game_of(nets=mlp(4), packing=4)))
  assert np.isfinite(logs['d/loss'])
