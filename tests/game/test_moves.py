"""Whole moves by hand: what they descend, what D is shown, what is averaged."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gan_jax.game.losses import Batch, Game
from gan_jax.game.step import Plan, init_state, make_train_step
from helpers.toygame import (
  BATCH,
  close,
  compiled,
  flat,
  move_keys,
  net,
  plan_of,
  start,
)

from gan_jax import networks
from gan_jax.config.schema import Config
from gan_jax.game import losses as game_lib
from gan_jax.game.objectives import OBJECTIVES
from gan_jax.game.state import Hyper
from gan_jax.training import setup

CLASSES = 3
PENALTY, SMOOTHING = 0.3, 0.2
FLAGS = Config(
  dataset='ring',
  batch_size=BATCH,
  steps=10,
  lr_schedule='linear',
  lr_final=0.1,
  optimizer_g='sgd',
  optimizer_d='sgd',
  lr_g=0.1,
  lr_d=0.2,
  beta1_g=0.0,
  beta1_d=0.0,
  clip_g=0.05,
  clip_d=0.1,
  label_smoothing=SMOOTHING,
  regularizer=f'orthogonal_g:{PENALTY}',
)
# (kernel, a shift a class) of G, (slope, a shift a class) of D.
POINT = (
  np.array([[0.5, -0.4], [0.3, 0.8]]),
  np.array([[0.1, -0.2], [0.6, 0.3], [-0.5, 0.2]]),
  np.array([0.7, -0.9]),
  np.array([0.2, -0.3, 0.4]),
)


def sigmoid(t):
  return 1 / (1 + np.exp(-t))


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
    FLAGS.clip_d,
  )
  slope = slope - factor * FLAGS.lr_d * to_slope
  bias = bias - factor * FLAGS.lr_d * to_bias

  z, c = np.float64(drawn_g.z), np.asarray(drawn_g.label)
  y = z @ kernel + shift[c]
  to_y = -np.outer(1 - sigmoid(y @ slope + bias[c]), slope) / n
  across = (kernel.T @ kernel) * (1 - np.eye(2))
  to_kernel, to_shift = clipped(
    [z.T @ to_y + PENALTY * 4 * kernel @ across, of_class(c).T @ to_y],
    FLAGS.clip_g,
  )
  kernel = kernel - factor * FLAGS.lr_g * to_kernel
  return kernel, shift - factor * FLAGS.lr_g * to_shift, slope, bias


def test_one_conditional_step_from_its_flags_against_numpy():
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
    'normal',
    lambda key, n: jax.random.normal(key, (n, 2)),
    classes=CLASSES,
  )
  plan = setup.make_plan(FLAGS, setup.load_dataset(FLAGS))
  game = plan.game._replace(networks=nets)
  plan = dataclasses.replace(plan, game=game)
  hyper = setup.make_hyper(FLAGS)
  state = init_state(jax.random.key(0), plan, hyper)
  state = state.replace(step=jnp.int32(5))
  rng = np.random.default_rng(1)
  x, label = rng.normal(1, 1, (BATCH, 2)), np.arange(BATCH) % CLASSES
  batch = jnp.float32(x)[None], jnp.int32(label)[None]
  after, _ = jax.jit(make_train_step(plan))(state, hyper, batch)
  drawn = [game_lib.draw(game, BATCH, key) for key in move_keys(state)]
  expected = moved64(POINT, (x, label), *drawn, factor=0.1 + 0.9 / 2)
  g, d = after.g.params, after.d.params
  for found, want in zip(
    (g['kernel'], g['shift'], d['slope'], d['bias']), expected, strict=True
  ):
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-7)


COUNT, REAL, FAKE, STD = 60, 3.0, 2.0, 0.1
HYPER = Hyper(lr_g=1e-3, lr_d=1e-3)


def watched(seen, objective):
  """A game of plain images, whose D tells what it is given.

  Its statistics are ten times what they were and the mean that it sees.
  """

  def judge(params, stats, x, *, train, key=None, label=None):
    del train, key
    mean = x.mean()
    jax.debug.callback(lambda *told: seen.append(told), x, label)
    return params['w'] * x.mean((1, 2, 3)), {'seen': 10 * stats['seen'] + mean}

  start_d = {'w': jnp.float32(1)}, {'seen': jnp.float32(0)}
  nets = networks.Networks(
    net(
      {'level': jnp.float32(FAKE)},
      lambda p, z, label: jnp.broadcast_to(p['level'], (len(z), 8, 8, 1)),
    ),
    networks.Net(lambda key: start_d, judge),
    1,
    'normal',
    lambda key, n: jax.random.normal(key, (n, 1)),
    classes=CLASSES,
  )
  return Game(nets, OBJECTIVES[objective], augment=('cutout',))


def labelled(seed):
  """Real images of one level, with classes of their own."""
  rng = np.random.default_rng(seed)
  label = jnp.asarray(rng.integers(0, CLASSES, COUNT), jnp.int32)
  return Batch(jnp.full((COUNT, 8, 8, 1), REAL), label)


def level_of(x):
  """What images showed before each lost a square and noise came to them."""
  x = np.asarray(x)
  level = np.round(np.median(x))
  holes = x < level / 2
  assert 0.1 < holes.mean() < 0.25  # four by four of eight by eight, or less
  assert len({hole.tobytes() for hole in holes}) > 10
  noise = x - np.where(holes, 0, level)
  assert noise.std() == pytest.approx(STD, rel=0.05)
  return level


def told(x, label):
  return level_of(x), tuple(np.asarray(label).tolist())


@pytest.mark.parametrize('objective', ['non_saturating', 'relativistic'])
def test_d_is_shown_all_alike_and_with_its_own_labels(objective):
  """Augmented and noised, in both moves; D's statistics see both kinds."""
  seen = []
  game = watched(seen, objective)
  plan = Plan(game, COUNT, instance_noise=True)
  hyper = dataclasses.replace(HYPER, instance_noise=STD)
  state = init_state(jax.random.key(0), plan, hyper)
  reals = [labelled(seed) for seed in range(plan.real_batches)]
  batch = jax.tree.map(lambda *x: jnp.stack(x), *map(tuple, reals))
  after, _ = jax.jit(make_train_step(plan))(state, hyper, batch)
  jax.effects_barrier()
  means = {told(x, label): np.mean(x) for x, label in seen}
  fake_d, fake_g = (
    (FAKE, tuple(game_lib.draw(game, COUNT, key).label.tolist()))
    for key in move_keys(state)
  )
  real_d, *real_g = ((REAL, tuple(r.label.tolist())) for r in reals)
  assert means.keys() == {real_d, fake_d, fake_g, *real_g}
  assert len(means) == (4 if objective == 'relativistic' else 3)
  np.testing.assert_allclose(
    after.d.stats['seen'], 10 * means[real_d] + means[fake_d], rtol=1e-5
  )


def test_penalties_view_what_d_was_shown():
  game = watched([], 'non_saturating')
  state = init_state(jax.random.key(0), Plan(game, COUNT), HYPER)
  real, key = labelled(0), jax.random.key(1)
  drawn = game_lib.draw(game, COUNT, jax.random.clone(key))
  view, _ = game_lib.discriminator_view(
    state.d.params, state, game, real, key, jnp.float32(STD)
  )
  for x, label, level, own in (
    (view.real, view.real_label, REAL, real.label),
    (view.fake, view.fake_label, FAKE, drawn.label),
  ):
    assert told(x, label) == (level, tuple(own.tolist()))


def test_generated_classes_are_all_classes_alike():
  game = watched([], 'non_saturating')
  label = game_lib.draw(game, 3000, jax.random.key(0)).label
  counts = np.bincount(np.asarray(label), minlength=CLASSES)
  assert len(counts) == CLASSES and (abs(counts - 1000) < 100).all()


def test_the_average_leaves_the_start_behind_with_its_statistics():
  """Its half-life is a twentieth of what was shown, however long it is told."""
  plan = plan_of(norm='batch', average=True, optimizer_g='adam')
  state, hyper, batch = start(plan, ema_halflife_kimg=1e3)
  for step, decay in ((0, 0.5**20), (10, 0.5 ** (20 / 11))):
    now = state.replace(step=jnp.int32(step))
    after, _ = compiled(plan)(now, hyper, batch)
    for old, live, found in (
      (state.ema.params, after.g.params, after.ema.params),
      (state.ema.stats, after.g.stats, after.ema.stats),
    ):
      assert jax.tree.leaves(old)
      close(flat(found), flat(live) + decay * (flat(old) - flat(live)))
      with pytest.raises(AssertionError):
        close(old, live, atol=1e-4)
