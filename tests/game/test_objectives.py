"""Every objective against its own claims, and the theory of its paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import testing
from gan_jax.game import objectives
from gan_jax.game.objectives import OBJECTIVES

F_GANS = [name for name in OBJECTIVES if name.startswith('fgan_')]
ALIASES = {'geometric': 'hinge'}


@pytest.mark.parametrize('name', sorted(OBJECTIVES.keys() - ALIASES.keys()))
def test_keeps_all_promises(name):
  assert testing.check_objective(OBJECTIVES[name]) == []
  assert OBJECTIVES[name]().name == name
  assert getattr(objectives, name) is OBJECTIVES[name]


def test_aliases_are_the_same_game():
  for alias, name in ALIASES.items():
    assert OBJECTIVES[alias] is OBJECTIVES[name]


def test_an_exponential_goes_on_along_its_tangent_beyond_30():
  """Where it bends, D is still told how far it has strayed."""
  v = jnp.float32([-3.0, 0.0, 29.5, 30.5, 40.0, 1e3])
  objective = OBJECTIVES['fgan_kl']()

  def loss(v):  # of a generated sample at a ratio of e^v
    return objective.d_loss(jnp.zeros(1), v[None] + 1)

  values, slopes = jax.vmap(jax.value_and_grad(loss))(v)
  at = np.float64(v)
  tangent = np.exp(30.0) * (at - 29)
  expected = np.where(at < 30, np.exp(np.minimum(at, 30)), tangent)
  np.testing.assert_allclose(values, expected, rtol=1e-5)
  np.testing.assert_allclose(slopes, np.exp(np.minimum(at, 30)), rtol=1e-5)


def test_minimax_saturates_and_non_saturating_does_not():
  # D is sure of itself: what reaches G through each loss.
  sure = jnp.full(1, -10.0)
  saturating, other = (
    float(jax.grad(OBJECTIVES[name]().g_loss, 1)(None, sure)[0])
    for name in ('minimax', 'non_saturating')
  )
  assert abs(saturating) < 1e-4 and abs(other) > 0.9


def test_factors_beside_those_of_other_code():
  """What the docstrings say of TF-GAN and of the relativistic authors' code."""
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 16)).astype(np.float32)
  logits = jnp.asarray(x), jnp.asarray(y)
  label = 1 * (1 - 0.25) + 0.25 / 2  # TensorFlow's sigmoid cross-entropy
  d_real, d_fake = 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-y))
  cross = label * np.log(d_real) + (1 - label) * np.log(1 - d_real)
  theirs = -np.mean(cross) - np.mean(np.log(1 - d_fake))
  ours = OBJECTIVES['non_saturating'](smoothing=0.125).d_loss(*logits)
  np.testing.assert_allclose(ours, theirs, rtol=1e-5)
  r, f = x - y.mean(), y - x.mean()
  halved = {
    'relativistic_average': np.log1p(np.exp(-r)).mean()
    + np.log1p(np.exp(f)).mean(),
    'relativistic_average_ls': ((r - 1) ** 2).mean() + ((f + 1) ** 2).mean(),
    'relativistic_average_hinge': np.maximum(0, 1 - r).mean()
    + np.maximum(0, 1 + f).mean(),
  }
  for name, theirs in halved.items():
    ours = OBJECTIVES[name]().d_loss(*logits)
    np.testing.assert_allclose(ours / 2, theirs / 2, rtol=1e-5, err_msg=name)


def kl(p, q):
  at = p > 0
  return np.sum(p[at] * np.log(p[at] / q[at]))


def discrete(seed):
  """Two distributions over six atoms, as batches that hold them exactly."""
  rng = np.random.default_rng(seed)
  counts_p, counts_q = rng.integers(1, 9, (2, 6))
  # Equal totals, so that a batch holds each atom as often as it is likely.
  support = np.arange(6)
  p_atoms = np.repeat(support, counts_p * counts_q.sum())
  q_atoms = np.repeat(support, counts_q * counts_p.sum())
  p, q = counts_p / counts_p.sum(), counts_q / counts_q.sum()
  return p, q, p_atoms, q_atoms


@pytest.mark.parametrize('seed', range(3))
def test_value_at_the_best_d_is_that_of_theorem_1(seed):
  """V(D*, G) = -log 4 + 2 JSD(p, q), and D* = p / (p + q) is the best."""
  p, q, p_atoms, q_atoms = discrete(seed)
  best = np.log(p / q).astype(np.float32)  # the logit of p / (p + q)
  m = (p + q) / 2
  jsd = (kl(p, m) + kl(q, m)) / 2
  v = objectives.value(jnp.asarray(best[p_atoms]), jnp.asarray(best[q_atoms]))
  np.testing.assert_allclose(v, -np.log(4) + 2 * jsd, atol=1e-5)
  np.testing.assert_allclose(objectives.jsd_bound(v), jsd, atol=1e-5)
  rng = np.random.default_rng(seed)
  for _ in range(5):
    other = (best + rng.normal(0, 0.3, 6)).astype(np.float32)
    worse = objectives.value(
      jnp.asarray(other[p_atoms]), jnp.asarray(other[q_atoms])
    )
    assert worse < v
    assert objectives.jsd_bound(worse) < jsd


@pytest.mark.parametrize('name', F_GANS)
def test_value_at_the_best_d_is_the_divergence(name):
  """Minus D's loss is D_f(p, q) where D says log p/q, and less elsewhere."""
  p, q, p_atoms, q_atoms = discrete(seed=0)
  objective = OBJECTIVES[name]()
  ratio = jax.jit(objective.log_ratio)
  # The outputs that say log p/q, by bisection: what they say rises.
  low, high = np.full(6, -1.9, np.float32), np.full(6, 30, np.float32)
  if name != 'fgan_pearson':  # whose outputs are above -2
    low -= 30
  for _ in range(60):
    middle = (low + high) / 2
    above = ratio(jnp.asarray(middle)) > np.log(p / q)
    low, high = np.where(above, low, middle), np.where(above, middle, high)

  @jax.jit
  def value(v):
    return -objective.d_loss(v[p_atoms], v[q_atoms])

  expected = float(np.sum(q * objective.divergence.f(p / q)))
  np.testing.assert_allclose(value(low), expected, rtol=1e-5, atol=1e-5)
  rng = np.random.default_rng(0)
  for _ in range(5):
    assert value(low + np.float32(rng.normal(0, 0.3, 6))) < expected


@pytest.mark.parametrize('seed', range(3))
def test_least_squares_best_d_and_its_ratio(seed):
  """D* = p / (p + q) at the defaults; the log ratio is read off it."""
  p, q, p_atoms, q_atoms = discrete(seed)
  best = jnp.asarray(p / (p + q), jnp.float32)
  objective = OBJECTIVES['least_squares']()
  slope = jax.grad(lambda v: objective.d_loss(v[p_atoms], v[q_atoms]))(best)
  np.testing.assert_allclose(slope, 0, atol=1e-6)
  np.testing.assert_allclose(
    objective.log_ratio(best), np.log(p / q), rtol=1e-4, atol=1e-5
  )


def test_least_squares_ratio_heeds_the_labels():
  """Mao et al.'s a = -1, b = 1: D says 0 where it can tell nothing apart."""
  objective = objectives.LeastSquares(real=1.0, fake=-1.0, target=0.0)
  found = objective.log_ratio(jnp.array([0.0, 0.5]))
  np.testing.assert_allclose(found, [0.0, np.log(3.0)], atol=1e-6)


def test_relativistic_pairs_are_pairs():
  """Real example i meets generated example i, and no other."""
  real, fake = jnp.array([5.0, 0.0]), jnp.array([0.0, 5.0])
  loss = OBJECTIVES['relativistic']().d_loss
  expected = np.logaddexp(0, [-5.0, 5.0]).mean()
  np.testing.assert_allclose(loss(real, fake), expected, rtol=1e-6)
  turned = loss(real, fake[::-1])  # 5 meets 5, 0 meets 0
  np.testing.assert_allclose(turned, np.log(2), rtol=1e-6)


def test_relativistic_averages_are_of_each_kind_alone():
  real, fake = jnp.float32(np.random.default_rng(0).normal(0, 3, (2, 64)))
  for name in OBJECTIVES:
    if name.startswith('relativistic_average'):
      losses = OBJECTIVES[name]().d_loss, OBJECTIVES[name]().g_loss
      for loss in losses:
        turned = loss(real[::-1], fake)
        np.testing.assert_allclose(turned, loss(real, fake), rtol=1e-5)


def test_smoothing_is_one_sided():
  """And there is none unless it is asked for."""
  real, fake = jnp.array([2.0]), jnp.array([-3.0])
  plain = objectives.Minimax().d_loss(real, fake)
  np.testing.assert_allclose(plain, np.logaddexp(0, [-2, -3]).sum(), rtol=1e-6)
  smooth = objectives.Minimax(smoothing=0.1).d_loss(real, fake)
  # The term of generated samples is untouched: the difference is the other's.
  np.testing.assert_allclose(smooth - plain, 0.1 * 2.0, rtol=1e-5)


def test_plain_functions_make_an_objective():
  objective = objectives.from_losses(
    lambda real, fake: jnp.mean(fake) - jnp.mean(real),
    lambda real, fake: jnp.mean(real) - jnp.mean(fake),
    name='difference',
    relativistic=True,
  )
  assert objective.name == 'difference' and objective.relativistic
  missing = testing.check_objective(objective)
  assert len(missing) == 2  # reference and equilibrium
