"""Every objective against float64 NumPy, and the theory of the 2014 paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import objectives
from gan_jax.objectives import OBJECTIVES

EVERY = sorted(OBJECTIVES)


def softplus64(x):
  return np.logaddexp(0.0, np.asarray(x, np.float64))


def bce(real, fake, label=1.0):
  """-E[log D(x)] - E[log(1 - D(G(z)))] with smoothed real labels."""
  real_term = label * softplus64(-real) + (1 - label) * softplus64(real)
  return real_term.mean() + softplus64(fake).mean()


# (d_loss(real, fake, label), g_loss(fake)) of each objective, in float64.
REFERENCE = {
  'minimax': (bce, lambda fake: -softplus64(fake).mean()),
  'non_saturating': (bce, lambda fake: softplus64(-fake).mean()),
}


@pytest.fixture
def logits():
  rng = np.random.default_rng(0)
  return tuple(jnp.asarray(rng.normal(0, 4, (2, 64)), jnp.float32))


def test_every_objective_has_a_reference():
  assert set(REFERENCE) == set(OBJECTIVES)


@pytest.mark.parametrize('name', EVERY)
@pytest.mark.parametrize('label', [1.0, 0.9])
def test_matches_float64(name, label, logits):
  real, fake = logits
  d_loss, g_loss, _ = OBJECTIVES[name]
  d_ref, g_ref = REFERENCE[name]
  np.testing.assert_allclose(
    d_loss(real, fake, label), d_ref(real, fake, label), rtol=2e-6
  )
  np.testing.assert_allclose(g_loss(fake), g_ref(fake), rtol=2e-6)


@pytest.mark.parametrize('name', EVERY)
def test_jit_is_eager_and_vmap_is_a_loop(name, logits):
  real, fake = logits
  d_loss, g_loss, _ = OBJECTIVES[name]
  np.testing.assert_allclose(
    jax.jit(d_loss)(real, fake, 1.0), d_loss(real, fake, 1.0), rtol=1e-6
  )
  np.testing.assert_allclose(jax.jit(g_loss)(fake), g_loss(fake), rtol=1e-6)
  rows = fake.reshape(4, 16)
  np.testing.assert_allclose(
    jax.vmap(g_loss)(rows), [g_loss(row) for row in rows], rtol=1e-6
  )


@pytest.mark.parametrize('name', EVERY)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_at_any_logit(name, dtype):
  extreme = jnp.array([1e4, -1e4, 0.0, 30.0], dtype)
  d_loss, g_loss, _ = OBJECTIVES[name]
  losses = [d_loss(extreme, -extreme, 1.0), g_loss(extreme)]
  slopes = [jax.grad(d_loss)(extreme, -extreme, 1.0), jax.grad(g_loss)(extreme)]
  for x in losses + slopes:
    assert jnp.isfinite(x).all()


@pytest.mark.parametrize('name', EVERY)
def test_order_of_the_batch_does_not_matter(name, logits):
  real, fake = logits
  d_loss, g_loss, _ = OBJECTIVES[name]
  np.testing.assert_allclose(
    d_loss(real[::-1], fake[::-1], 1.0), d_loss(real, fake, 1.0), rtol=1e-6
  )
  np.testing.assert_allclose(g_loss(fake[::-1]), g_loss(fake), rtol=1e-6)


@pytest.mark.parametrize('name', EVERY)
def test_a_mean_over_the_batch(name, logits):
  real, fake = logits
  d_loss, g_loss, _ = OBJECTIVES[name]
  twice = jnp.tile(real, 2), jnp.tile(fake, 2)
  np.testing.assert_allclose(
    d_loss(*twice, 1.0), d_loss(real, fake, 1.0), rtol=1e-6
  )
  np.testing.assert_allclose(g_loss(twice[1]), g_loss(fake), rtol=1e-6)


@pytest.mark.parametrize('name', EVERY)
def test_stated_value_at_the_equilibrium(name):
  half = jnp.zeros(8)
  objective = OBJECTIVES[name]
  found = (objective.d_loss(half, half, 1.0), objective.g_loss(half))
  np.testing.assert_allclose(found, objective.equilibrium, rtol=1e-6)


def test_slopes_of_the_two_generator_losses(logits):
  _, fake = logits
  d = 1 / (1 + np.exp(-np.asarray(fake, np.float64)))
  n = len(fake)
  minimax = jax.grad(objectives.minimax_g)(fake)
  non_saturating = jax.grad(objectives.non_saturating_g)(fake)
  np.testing.assert_allclose(minimax, -d / n, rtol=1e-5, atol=1e-9)
  np.testing.assert_allclose(non_saturating, -(1 - d) / n, rtol=1e-5)


def test_minimax_saturates_and_non_saturating_does_not():
  # D is sure of itself: what reaches G through each loss.
  sure = jnp.full(1, -10.0)
  assert abs(jax.grad(objectives.minimax_g)(sure)[0]) < 1e-4
  assert abs(jax.grad(objectives.non_saturating_g)(sure)[0]) > 0.9


def kl(p, q):
  at = p > 0
  return np.sum(p[at] * np.log(p[at] / q[at]))


@pytest.mark.parametrize('seed', range(3))
def test_value_at_the_best_d_is_that_of_theorem_1(seed):
  """V(D*, G) = -log 4 + 2 JSD(p, q), and D* = p / (p + q) is the best."""
  rng = np.random.default_rng(seed)
  counts_p, counts_q = rng.integers(1, 9, (2, 6))
  # Equal totals, so that a batch holds each atom as often as it is likely.
  support = np.arange(6)
  p_atoms = np.repeat(support, counts_p * counts_q.sum())
  q_atoms = np.repeat(support, counts_q * counts_p.sum())
  p, q = counts_p / counts_p.sum(), counts_q / counts_q.sum()
  best = np.log(p / q).astype(np.float32)  # the logit of p / (p + q)
  m = (p + q) / 2
  jsd = (kl(p, m) + kl(q, m)) / 2
  v = objectives.value(jnp.asarray(best[p_atoms]), jnp.asarray(best[q_atoms]))
  np.testing.assert_allclose(v, -np.log(4) + 2 * jsd, atol=1e-5)
  np.testing.assert_allclose(objectives.jsd_bound(v), jsd, atol=1e-5)
  for _ in range(5):
    other = (best + rng.normal(0, 0.3, 6)).astype(np.float32)
    worse = objectives.value(
      jnp.asarray(other[p_atoms]), jnp.asarray(other[q_atoms])
    )
    assert worse < v
    assert objectives.jsd_bound(worse) < jsd


def test_smoothing_is_one_sided():
  real, fake = jnp.array([2.0]), jnp.array([-3.0])
  plain = objectives.classify(real, fake)
  smooth = objectives.classify(real, fake, 0.9)
  expected = bce(np.array([2.0]), np.array([-3.0]), 0.9)
  np.testing.assert_allclose(smooth, expected, rtol=1e-6)
  # The fake term is untouched: the difference is that of the real term.
  np.testing.assert_allclose(smooth - plain, 0.1 * 2.0, rtol=1e-5)
