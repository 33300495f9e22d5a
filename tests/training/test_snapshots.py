"""Snapshots: the same latent batch again and again, and what D says of it."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small

from gan_jax.game.sampler import Sampler
from gan_jax.training import restore, setup, snapshots


@pytest.fixture(scope='module')
def packed():
  """A run of packs of two points, of another seed than 0."""
  parts = setup.build(small.ring(packing=2, seed=3, num_samples=4))
  state = parts.init()
  files = snapshots.Snapshots(parts).take(state, 7)
  (name,) = files
  assert name == 'step_000000007.npz'
  return parts, state, dict(np.load(io.BytesIO(files[name])))


def test_samples_are_those_of_the_seed_of_the_run(packed):
  parts, state, arrays = packed
  run = restore.run_in_memory(parts, 0, state)
  x = run.sample(len(arrays['x']), seed=3, ema=False)
  np.testing.assert_array_equal(arrays['x'], x)
  np.testing.assert_array_equal(arrays['z'], run.latent(3, len(x)))
  assert (arrays['x'][:9] != run.sample(9, seed=0, ema=False)).all()


def test_a_place_is_judged_as_a_pack_of_itself(packed):
  parts, state, arrays = packed
  game = parts.trainer.game
  picked = [0, 95, 4000]
  packs = jnp.concatenate([arrays['grid'][picked]] * 2, axis=1)
  logits, _ = game.networks.discriminator.apply(
    state.d.params, state.d.stats, packs, train=False, key=None, label=None
  )
  expected = jax.nn.sigmoid(game.objective.log_ratio(logits))
  np.testing.assert_allclose(arrays['prob'][picked], expected, rtol=1e-5)


@pytest.mark.parametrize('count', [3, 6])
def test_samples_in_one_piece_are_those_of_batches(count):
  """Of classes that are given, in one batch and in two."""
  config = small.digits(conditioning='projection', width=2, depth=1)
  parts = setup.build(config)
  g, label = parts.init().g, np.arange(count, dtype=np.int32) % 3
  sampler = Sampler(parts.networks, batch=4)
  batches = sampler.batches(g.params, g.stats, 5, count, label)
  x = jax.jit(lambda p, s: sampler.first(p, s, 5, count, label))(
    g.params, g.stats
  )
  np.testing.assert_allclose(x, np.concatenate([*batches]), atol=1e-6)
