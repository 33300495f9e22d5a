"""Products of float32, as devices compute them."""

import re
import types

import jax
import jax.numpy as jnp
import pytest

import gan_jax as gj
from gan_jax.game.sampler import Sampler
from gan_jax.runtime import numerics
from gan_jax.runtime.errors import ArgumentError

KINDS = {
  'cpu': types.SimpleNamespace(platform='cpu'),
  'h100': types.SimpleNamespace(platform='gpu', compute_capability='9.0'),
  'v100': types.SimpleNamespace(platform='gpu', compute_capability='7.0'),
  'tpu': types.SimpleNamespace(platform='tpu'),
}
SAID = {
  'default': {'h100': 'TF32', 'tpu': 'one product of bfloat16'},
  'bfloat16': {'h100': 'TF32', 'tpu': 'one product of bfloat16'},
  'tensorfloat32': {'h100': 'TF32', 'tpu': 'three products of bfloat16'},
  'highest': {'tpu': 'six products of bfloat16, as exact as float32'},
}


@pytest.mark.parametrize('precision', SAID)
@pytest.mark.parametrize('kind', KINDS)
def test_what_a_device_makes_of_products_is_said(kind, precision):
  told = numerics.describe_products(precision, KINDS[kind])
  assert told == SAID[precision].get(kind, 'float32')


def test_the_default_is_that_of_jax():
  with jax.default_matmul_precision('highest'):
    assert numerics.describe_products('default', KINDS['h100']) == 'float32'
    assert numerics.describe_products('bfloat16', KINDS['h100']) == 'TF32'
  with jax.default_matmul_precision('F32_F32_F32'):
    told = numerics.describe_products('default', KINDS['h100'])
    assert told == 'F32_F32_F32'


def precisions(f, *args) -> set[str]:
  """Of all products in a traced function."""
  text = str(jax.make_jaxpr(f)(*args))
  found = re.findall(r'precision=\(?Precision\.(\w+)', text)
  rest = len(re.findall(r'dot_general\[', text)) - len(found)
  return {*found, *['DEFAULT'] * rest}


def game(**options) -> gj.Trainer:
  return gj.make_trainer((2,), network='mlp', width=3, depth=1, **options)


@pytest.mark.parametrize(
  ('options', 'found'),
  [
    ({}, {'DEFAULT'}),
    ({'matmul_precision': 'tensorfloat32'}, {'HIGH'}),
    ({'matmul_precision': 'highest'}, {'HIGHEST'}),
  ],
)
def test_all_products_of_a_step_are_of_one_precision(options, found):
  trainer = game(regularizer='r1', **options)
  state = jax.eval_shape(trainer.init, jax.random.key(0))
  batch = jax.ShapeDtypeStruct((4, 2), jnp.float32)
  assert precisions(trainer.step, state, batch) == found


def test_samples_are_of_the_highest_precision_whatever_training_used():
  trainer = game(matmul_precision='bfloat16')
  g = trainer.init(jax.random.key(0)).g
  sampler = Sampler(trainer.game.networks)
  z = jnp.zeros((3, trainer.game.networks.latent_dim))
  found = precisions(lambda: sampler.generate(g.params, g.stats, z))
  assert found == {'HIGHEST'}


def test_a_precision_that_there_is_not_is_refused():
  with pytest.raises(ArgumentError, match='matmul_precision=.*float8.*highest'):
    game().replace(matmul_precision='float8')
