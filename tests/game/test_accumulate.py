"""Batches in parts: the gradient is the mean of the parts' own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets import built
from helpers.toygame import (
  BATCH,
  close,
  flat,
  game_of,
  mlp,
  reals,
  start,
  step,
  trainer_of,
  update_keys,
)

from gan_jax.game.game import Batch
from gan_jax.game.streams import stream
from gan_jax.runtime import sharding
from gan_jax.runtime.errors import ArgumentError

PARTS = 4


def in_parts(trainer, parts=PARTS):
  return trainer.replace(accumulate=parts)


@jax.jit
def d_gradient(trainer, state, real, key):
  return trainer.updates(state, BATCH).d_gradient(state, real, key)


@pytest.mark.parametrize(
  ('schedule', 'settings'),
  [
    ('alternating', dict(d_steps=2)),
    ('simultaneous', {}),
    ('extragradient', {}),
  ],
)
def test_without_batch_statistics_parts_are_the_whole(schedule, settings):
  game = game_of(regularizers=('r1',), nets=mlp())
  whole = trainer_of(schedule, game, **settings)
  state = parted = whole.init(jax.random.key(0))
  for seed in range(2):
    state, logs = step(whole, state, reals(whole, seed))
    parted, own_logs = step(in_parts(whole), parted, reals(whole, seed))
  close(parted.replace(key=None), state.replace(key=None), rtol=1e-5)
  close(own_logs, logs, rtol=1e-4)


def test_statistics_and_memories_are_those_of_one_part_after_another():
  game = game_of(regularizers=('lecam',), nets=mlp(norm='batch'))
  trainer = in_parts(trainer_of(game=game), 2)
  state, batch = start(trainer)
  real, key = Batch(batch[0]), update_keys(state)[0]

  @jax.jit
  def by_hand(state, real, key):
    updates = trainer.updates(state, BATCH)
    drawn, moved, grads = updates.draw(real, key), state, []
    for i in range(2):
      part = jax.tree.map(lambda x, i=i: x[i::2], (real, drawn))
      gradient, aux = jax.grad(updates.d_loss, has_aux=True)(
        state.d.params, moved, part[0], stream(key, 'part', i), drawn=part[1]
      )
      grads.append(gradient)
      d = moved.d.replace(stats=aux.stats)
      moved = moved.replace(d=d, memory=aux.memory)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *grads)
    return mean, moved.d.stats, moved.memory

  found = d_gradient(trainer, state, real, key)
  wanted = by_hand(state, real, key)
  close((found.grads, found.stats, found.memory), wanted, rtol=1e-5)
  whole = d_gradient(in_parts(trainer, 1), state, real, key)
  assert np.abs(flat(whole.stats) - flat(found.stats)).max() > 1e-3


def test_parts_are_the_same_over_devices():
  trainer = in_parts(trainer_of(game=game_of(nets=mlp(norm='batch'))), 2)
  state, batch = start(trainer)
  mesh = sharding.make_mesh()
  with sharding.splitting_over(mesh):
    split = jax.jit(lambda state, batch: trainer.step(state, batch))(
      state, jax.device_put(batch[0], sharding.row_sharding(mesh))
    )
  alone = step(trainer, state, batch)
  close(split[0].replace(key=None), alone[0].replace(key=None), rtol=1e-5)


def test_parts_take_as_much_less_memory():
  nets = built('mlp', (2,), width=64, depth=3, latent_dim=2)
  trainer = trainer_of(game=game_of(nets=nets))
  state = jax.eval_shape(trainer.init, jax.random.key(0))
  batch = jax.ShapeDtypeStruct((1, 2**14, 2), jnp.float32)
  whole, parts = (
    jax.jit(t.step).lower(state, batch).compile().memory_analysis()
    for t in (trainer, in_parts(trainer, 16))
  )
  assert parts.temp_size_in_bytes < whole.temp_size_in_bytes / 4


@pytest.mark.parametrize('schedule', ['unrolled', 'consensus'])
def test_schedules_that_need_the_whole_batch_say_so(schedule):
  with pytest.raises(ArgumentError, match='`accumulate=4`: .*another schedule'):
    in_parts(trainer_of(schedule))


def test_batches_that_do_not_split():
  with pytest.raises(ArgumentError, match='no multiple of `accumulate=3`'):
    step(in_parts(trainer_of(), 3), *start(trainer_of()))
  packs = trainer_of(game=game_of(nets=mlp(packing=4), packing=4))
  with pytest.raises(ArgumentError, match='2 samples of a part .*`packing=4`'):
    step(in_parts(packs), *start(packs))
  with pytest.raises(ArgumentError, match='`accumulate=0`: use a whole'):
    in_parts(packs, 0)
