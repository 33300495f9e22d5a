"""On a GPU: the steps are the CPU's. `JAX_PLATFORMS=cuda,cpu pytest -m gpu`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small
from helpers.nets import built

from gan_jax.config import app
from gan_jax.game import objectives, regularizers
from gan_jax.game.game import Game
from gan_jax.game.optimizers import Adam
from gan_jax.game.schedules import SCHEDULES
from gan_jax.game.trainer import Trainer
from gan_jax.training.train import train_config

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu():
  device = jax.devices()[0]
  if device.platform == 'cpu':
    pytest.skip('JAX finds no GPU; set JAX_PLATFORMS=cuda,cpu')
  return device


@pytest.mark.parametrize('schedule', ['alternating', 'simultaneous'])
@pytest.mark.parametrize('name', ['mlp', 'dcgan', 'r3gan'])
def test_a_step_is_that_of_the_cpu(name, schedule, gpu):
  shape = (2,) if name == 'mlp' else (16, 16, 1)
  game = Game(
    built(name, shape),
    objectives.relativistic,
    [regularizers.r1(weight=1.0)],
  )
  trainer = Trainer(game, Adam(1e-3), Adam(1e-3), SCHEDULES[schedule])
  size = (trainer.real_batches, 8, *shape)
  real = np.random.default_rng(0).normal(size=size)
  found = []
  for device in (jax.devices('cpu')[0], gpu):
    with (
      jax.default_device(device),
      jax.default_matmul_precision('highest'),
    ):
      state, step = trainer.init(jax.random.key(0)), jax.jit(trainer.step)
      for _ in range(3):
        state, logs = step(state, jnp.asarray(real, jnp.float32))
      found.append(jax.device_get((state.g.params, state.d.params, logs)))
  for one, other in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize('config', [small.ring(), small.dcgan()])
def test_a_run_goes_to_its_end(config, tmp_path):
  config = dataclasses.replace(config, workdir=str(tmp_path))
  assert train_config(config) == app.DONE
