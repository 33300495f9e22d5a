"""Random keys by name: independent of each other, and drawn once."""

import jax
import numpy as np
import pytest
from helpers.toygame import mlp, stepped, trainer_of

from gan_jax import networks
from gan_jax.game import augment, regularizers
from gan_jax.game.game import Game, InstanceNoise
from gan_jax.game.objectives import NonSaturating
from gan_jax.game.regularizers import Regularizer
from gan_jax.game.streams import Streams, stream


def bits(key):
  return tuple(jax.random.key_data(key).tolist())


def test_streams_are_functions_of_key_name_and_index():
  key = jax.random.key(7)
  keys = {
    bits(stream(jax.random.key(seed), name, *index))
    for seed in (0, 7)
    for name in ('latent', 'label')
    for index in ((), (0,), (1,), (1, 0))
  }
  assert len(keys) == 16
  assert bits(stream(key, 'latent', 1)) == bits(stream(key, 'latent', 1))
  # In every process: Python's own hash of a name is another in each.
  assert bits(stream(key, 'latent')) == (2315212779, 3850657269)


def test_a_stream_is_handed_out_once():
  streams = Streams(jax.random.key(0))
  streams('latent'), streams('label')
  with pytest.raises(AssertionError, match='label would be drawn twice'):
    streams('label')


def test_all_that_a_step_draws_is_drawn_from_keys_of_its_own(monkeypatch):
  """In a game that draws wherever it can."""
  nets = networks.build('mlp', (8, 8, 1), bounded=True, width=4, depth=1)
  game = Game(
    nets,
    NonSaturating(),
    [regularizers.wgan_gp, regularizers.bcr],
    augment=[augment.color, augment.cutout],
    instance_noise=InstanceNoise(0.1),
  )
  trainer = trainer_of(game=game)
  state = trainer.init(jax.random.key(0))
  used = []
  for name in ('normal', 'uniform', 'randint', 'bernoulli'):
    draw = getattr(jax.random, name)

    def watched(key, *args, draw=draw, **how):
      jax.debug.callback(used.append, jax.random.key_data(key))
      return draw(key, *args, **how)

    monkeypatch.setattr(jax.random, name, watched)
  x = np.zeros((1, 4, 8, 8, 1), np.float32)
  jax.block_until_ready(jax.jit(trainer.step)(state, x))
  jax.effects_barrier()
  keys = [tuple(key.tolist()) for key in used]
  assert (
    len(keys) == len(set(keys)) == 25
  )  # besides the noise that G starts from


class Silent(Regularizer):
  """Adds nothing, whatever it draws."""

  weight: float = 0.0

  def on_d(self, view):
    noise = jax.random.normal(view.key, view.real_logits.shape)
    return (view.real_logits * noise).sum()


def test_another_draw_changes_no_other():
  plain, drawing = (Game(mlp(), NonSaturating(), r) for r in ((), (Silent(),)))
  logs = [stepped(trainer_of(game=game))[2] for game in (plain, drawing)]
  for name in logs[0]:
    np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-6)
