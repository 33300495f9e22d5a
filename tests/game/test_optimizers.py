"""Optimizers: by the same rules; the fall of rates, the rise of momentum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gan_jax import testing
from gan_jax.game import optimizers
from gan_jax.game.optimizers import (
  DECAYS,
  OPTIMIZERS,
  Adam,
  Exponential,
  Linear,
  Sgd,
)
from gan_jax.runtime.errors import ArgumentError


@pytest.mark.parametrize('name', sorted(OPTIMIZERS))
def test_keeps_all_promises(name):
  assert testing.check_optimizer(OPTIMIZERS[name](beta1=0.4)) == []
  assert OPTIMIZERS[name]().name == name


class Full(Adam):
  """All that an optimizer of ours may have, in Optax's words."""

  def reference(self):
    def b1(count):
      done = np.clip((count + 3) / self.momentum_steps, 0, 1)
      return self.beta1 + done * (self.beta1_final - self.beta1)

    def rate(count):
      return self.learning_rate * self.decay.factor(count + 3)

    def update(grads, state, params=None):
      grads, _ = optax.clip_by_global_norm(self.clip).update(grads, ())
      count, adam = state
      rule = optax.scale_by_adam(b1(count), self.beta2)
      updates, adam = rule.update(grads, adam)
      return jax.tree.map(lambda u: -rate(count) * u, updates), (
        count + 1,
        adam,
      )

    init = lambda params: (0, optax.scale_by_adam().init(params))
    return optax.GradientTransformation(init, update)


def test_clips_falls_and_moves_its_momentum_by_the_games_clock():
  full = Full(
    learning_rate=1e-3,
    clip=0.5,
    beta1_final=0.8,
    momentum_steps=6,
    decay=Linear(steps=9, warmup=2, final=0.1),
  )
  assert testing.check_optimizer(full) == []


def test_defaults_are_neither_clipped_nor_do_they_fall():
  for kind in OPTIMIZERS.values():
    assert (kind().clip, kind().decay, kind().beta1_final) == (None,) * 3


@pytest.mark.parametrize(('step', 'expected'), [(0, 0.5), (2, 0.6), (99, 0.7)])
def test_momentum_stays_where_it_ends(step, expected):
  rule = Sgd(1.0, 0.5, beta1_final=0.7, momentum_steps=4).transform(step)
  ones = jnp.ones(1)
  (trace, scale) = rule.init(ones)
  update, _ = rule.update(jnp.zeros(1), (trace._replace(trace=ones), scale))
  np.testing.assert_allclose(-update, expected, rtol=1e-6)


@pytest.mark.parametrize('name', sorted(DECAYS))
def test_rates_fall_from_one_to_final(name):
  decay = DECAYS[name](steps=100, final=0.25)
  path = [float(decay.factor(step)) for step in range(0, 121, 5)]
  assert path[0] == pytest.approx(1.0)
  assert path[20] == pytest.approx(1 if name == 'constant' else 0.25, rel=1e-5)
  assert path[20:] == [path[20]] * 5
  assert all(a >= b - 1e-6 for a, b in zip(path, path[1:]))


def test_exponential_is_a_constant_division_each_step():
  decay = Exponential(steps=50, final=0.1)
  path = [float(decay.factor(step)) for step in range(51)]
  ratios = np.divide(path[1:], path[:-1])
  np.testing.assert_allclose(ratios, 0.1 ** (1 / 50), rtol=1e-5)


def test_warmup_rises_in_a_line():
  decay = Linear(steps=100, warmup=10, final=0.0)
  path = [float(decay.factor(step)) for step in range(10)]
  np.testing.assert_allclose(path, np.arange(1, 11) / 10)
  assert float(decay.factor(10)) == 1.0


@pytest.mark.parametrize('name', sorted(DECAYS))
@pytest.mark.parametrize('warmup', [0, 20])
def test_rates_fall_over_what_the_warmup_leaves(name, warmup):
  final = 0.0 if name == 'constant' else 0.25
  decay = DECAYS[name](steps=100, warmup=warmup, final=final)
  fall = {
    'constant': lambda t: 1.0,
    'linear': lambda t: 1 - 0.75 * t,
    'cosine': lambda t: 0.25 + 0.375 * (1 + np.cos(np.pi * t)),
    'exponential': lambda t: 0.25**t,
  }[name]
  for done in (0.0, 0.25, 0.5, 0.75, 1.0):
    step = int(warmup + done * (100 - warmup))
    assert float(decay.factor(step)) == pytest.approx(fall(done), rel=1e-5)


def test_rmsprop_has_its_epsilon_outside_of_the_root():
  """As PyTorch and WGAN's code: small gradients move as far as large ones."""
  rule = optimizers.rmsprop(learning_rate=1.0, beta1=0.0, beta2=0.99)
  for size in (1e-6, 1.0):
    gradient = jnp.float32([size, -size])
    transform = rule.transform(0)
    state, v = transform.init(gradient), 0.0
    for _ in range(3):
      update, state = transform.update(gradient, state)
      v = 0.99 * v + 0.01 * size**2
    expected = size / (np.sqrt(v) + 1e-8)
    np.testing.assert_allclose(update, [-expected, expected], rtol=1e-4)


def test_a_decay_decays_to_0_unless_told_otherwise():
  for name in ('linear', 'cosine'):
    decay = optimizers.DECAYS[name](steps=10)
    assert float(decay.factor(0)) == 1
    assert float(decay.factor(10)) == pytest.approx(0, abs=1e-6)
  with pytest.raises(ArgumentError, match='never reaches 0'):
    optimizers.exponential(steps=10).check()
  with pytest.raises(ArgumentError, match='has no effect on a rate that is'):
    optimizers.constant(steps=10, final=0.5).check()
