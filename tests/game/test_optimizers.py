"""Optimizers by name, and the fall of the learning rates."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax.game.optimizers import DECAYS, OPTIMIZERS, rate_factor

# The same rule as Optax's own alias spells it, rate 1 and decays .5, .9.
ALIASES = {
  'adam': lambda: optax.adam(1.0, b1=0.5, b2=0.9),
  'nadam': lambda: optax.nadam(1.0, b1=0.5, b2=0.9),
  'amsgrad': lambda: optax.amsgrad(1.0, b1=0.5, b2=0.9),
  'adabelief': lambda: optax.adabelief(1.0, b1=0.5, b2=0.9),
  'lion': lambda: optax.lion(1.0, b1=0.5, b2=0.9, weight_decay=0.0),
  'rmsprop': lambda: optax.rmsprop(1.0, decay=0.9, momentum=0.5),
  'sgd': lambda: optax.sgd(1.0, momentum=0.5),
}


@pytest.mark.parametrize('name', sorted(OPTIMIZERS))
def test_is_what_optax_calls_by_that_name(name):
  ours, theirs = OPTIMIZERS[name](0.5, 0.9), ALIASES[name]()
  params = jnp.array([1.0, -2.0, 3.0])
  mine, other = ours.init(params), theirs.init(params)
  for i in range(4):
    grads = jnp.sin(params + i)
    step, mine = ours.update(grads, mine, params)
    expected, other = theirs.update(grads, other, params)
    np.testing.assert_allclose(-step, expected, rtol=1e-5)


@pytest.mark.parametrize('name', sorted(OPTIMIZERS))
def test_decays_are_traced(name):
  """A population over the decays is one program."""
  calls = []

  @jax.jit
  def update(beta1, beta2, grads):
    calls.append(1)
    rule = OPTIMIZERS[name](beta1, beta2)
    return rule.update(grads, rule.init(grads), grads)[0]

  grads = jnp.array([1.0, -1.0])
  update(0.5, 0.9, grads)
  update(0.1, 0.99, grads)
  assert len(calls) == 1


@pytest.mark.parametrize('name', sorted(DECAYS))
def test_rates_fall_from_one_to_final(name):
  at = lambda step: float(
    rate_factor(step, schedule=name, steps=100, warmup=0, final=0.25)
  )
  end = 1.0 if name == 'constant' else 0.25
  assert at(0) == pytest.approx(1.0)
  assert at(100) == pytest.approx(end, rel=1e-5)
  path = [at(s) for s in range(0, 101, 5)]
  assert all(a >= b - 1e-6 for a, b in zip(path, path[1:]))


def test_exponential_is_a_constant_division_each_step():
  path = [
    float(rate_factor(s, schedule='exponential', steps=50, warmup=0, final=0.1))
    for s in range(51)
  ]
  ratios = np.divide(path[1:], path[:-1])
  np.testing.assert_allclose(ratios, 0.1 ** (1 / 50), rtol=1e-5)


def test_warmup_rises_in_a_line():
  at = lambda s: float(
    rate_factor(s, schedule='linear', steps=100, warmup=10, final=0.0)
  )
  np.testing.assert_allclose([at(s) for s in range(10)], np.arange(1, 11) / 10)
  assert at(10) == 1.0


def test_every_optimizer_takes_both_decays():
  for rule in OPTIMIZERS.values():
    assert list(inspect.signature(rule).parameters) == ['beta1', 'beta2']
