"""On a GPU: the steps are the CPU's. `JAX_PLATFORMS=cuda,cpu pytest -m gpu`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gan_jax.game.losses import Game
from gan_jax.game.step import Plan, init_state, make_train_step
from helpers import small
from helpers.nets import built

from gan_jax.config import app as doors
from gan_jax.game import objectives
from gan_jax.game.regularizers import Term
from gan_jax.game.state import Hyper
from gan_jax.training import loop

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
  point = name == 'mlp'
  shape = (2,) if point else (16, 16, 1)
  plan = Plan(
    Game(
      built(name, shape, not point),
      objectives.OBJECTIVES['relativistic'],
      regularizers=(Term('r1'),),
    ),
    batch_size=8,
    schedule=schedule,
    decode=lambda item, key: item,
  )
  hyper = Hyper(lr_g=1e-3, lr_d=1e-3, penalties={'r1': 1.0})
  real = np.random.default_rng(0).normal(size=(2, 8, *shape))
  found = []
  for device in (jax.devices('cpu')[0], gpu):
    with (
      jax.default_device(device),
      jax.default_matmul_precision('highest'),
    ):
      state = init_state(jax.random.key(0), plan, hyper)
      step = jax.jit(make_train_step(plan))
      for _ in range(3):
        state, metrics = step(state, hyper, jnp.asarray(real, jnp.float32))
      found.append(jax.device_get((state.g.params, state.d.params, metrics)))
  for one, other in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize('config', [small.ring(), small.dcgan()])
def test_a_run_goes_to_its_end(config, tmp_path):
  config = dataclasses.replace(config, workdir=str(tmp_path))
  assert loop.train(config) == doors.DONE
