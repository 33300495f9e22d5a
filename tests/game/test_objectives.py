"""Every objective against float64 NumPy, and the theory of its paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.references import DIVERGENCES, F_GANS, REFERENCE, bce, softplus64

from gan_jax.game import objectives
from gan_jax.game.objectives import OBJECTIVES, PLAIN, Labels

EVERY = pytest.mark.parametrize('name', sorted(OBJECTIVES))


def loss_of(name, player):
  objective = OBJECTIVES[name]
  return objective.d_loss if player == 'd' else objective.g_loss


PLAYERS = pytest.mark.parametrize('player', ['d', 'g'])


@pytest.fixture
def logits():
  rng = np.random.default_rng(0)
  return tuple(jnp.asarray(rng.normal(0, 3, (2, 64)), jnp.float32))


def test_every_objective_has_a_reference():
  assert set(REFERENCE) == set(OBJECTIVES)


@EVERY
@pytest.mark.parametrize(
  'labels', [PLAIN, Labels(0.9, 0.0, 1.0), Labels(1.0, -1.0, 0.0)]
)
def test_matches_float64(name, labels, logits):
  wide = [np.float64(x) for x in logits]
  for player, reference in zip('dg', REFERENCE[name], strict=True):
    np.testing.assert_allclose(
      loss_of(name, player)(*logits, labels),
      reference(*wide, labels),
      rtol=5e-6,
      atol=1e-6,
    )


@EVERY
@pytest.mark.parametrize('size', [20.0, 1e4])
def test_matches_float64_far_out(name, size):
  """The trap: log(sigmoid(x) + eps) is flat there, and wrong."""
  if name in F_GANS and size > 30:
    pytest.skip('exponentials go on along their tangents from there')
  logits = np.array([size, -size, 0.5 * size, -0.7 * size])
  for real, fake in [(logits, logits[::-1]), (-logits, logits)]:
    for player, reference in zip('dg', REFERENCE[name], strict=True):
      expected = reference(real, fake, PLAIN)
      found = loss_of(name, player)(
        jnp.asarray(real, jnp.float32), jnp.asarray(fake, jnp.float32), PLAIN
      )
      np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)


@EVERY
@PLAYERS
def test_one_program_serves_all_logits_and_labels(name, player, logits):
  loss = jax.jit(loss_of(name, player))
  for shift in (0.0, 1.0, -3.0):
    labels = Labels(*(jnp.float32(shift + x) for x in PLAIN))
    loss(*(x + shift for x in logits), labels)
  assert loss._cache_size() == 1


@EVERY
def test_labels_that_are_read_are_those_it_says(name, logits):
  objective = OBJECTIVES[name]
  for i, field in enumerate(Labels._fields):
    other = PLAIN._replace(**{field: 0.3})
    moved = any(
      float(loss(*logits, other)) != float(loss(*logits, PLAIN))
      for loss in (objective.d_loss, objective.g_loss)
    )
    assert moved == (field in objective.labels), (i, field)


@EVERY
@PLAYERS
def test_jit_is_eager_and_vmap_is_a_loop(name, player, logits):
  loss = loss_of(name, player)
  np.testing.assert_allclose(
    jax.jit(loss)(*logits, PLAIN), loss(*logits, PLAIN), rtol=2e-6
  )
  real, fake = (x.reshape(4, 16) for x in logits)
  np.testing.assert_allclose(
    jax.vmap(lambda r, f: loss(r, f, PLAIN))(real, fake),
    [loss(r, f, PLAIN) for r, f in zip(real, fake, strict=True)],
    rtol=2e-6,
  )


@EVERY
@PLAYERS
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_at_any_logit(name, player, dtype):
  extreme = jnp.array([1e4, -1e4, 0.0, 30.0], dtype)
  loss = loss_of(name, player)
  for real, fake in [(extreme, -extreme), (-extreme, extreme)]:
    assert jnp.isfinite(loss(real, fake, PLAIN))
    for slope in jax.grad(loss, (0, 1))(real, fake, PLAIN):
      assert jnp.isfinite(slope).all()


@EVERY
@PLAYERS
def test_order_of_the_batch_does_not_matter(name, player, logits):
  # Of pairs, in a game that is played over pairs; of each kind, otherwise.
  loss, (real, fake) = loss_of(name, player), logits
  at_first = loss(real, fake, PLAIN)
  np.testing.assert_allclose(
    loss(real[::-1], fake[::-1], PLAIN), at_first, rtol=2e-6, atol=1e-6
  )
  if name != 'relativistic':
    np.testing.assert_allclose(
      loss(real[::-1], fake, PLAIN), at_first, rtol=2e-6, atol=1e-6
    )


@EVERY
@PLAYERS
def test_a_mean_over_the_batch(name, player, logits):
  loss = loss_of(name, player)
  twice = [jnp.tile(x, 2) for x in logits]
  np.testing.assert_allclose(
    loss(*twice, PLAIN), loss(*logits, PLAIN), rtol=2e-6
  )


@EVERY
def test_stated_value_at_the_equilibrium(name):
  objective = OBJECTIVES[name]
  logit, d_loss, g_loss = objective.equilibrium
  same = jnp.full(8, logit)
  np.testing.assert_allclose(
    objective.d_loss(same, same, PLAIN), d_loss, atol=1e-6
  )
  np.testing.assert_allclose(
    objective.g_loss(same, same, PLAIN), g_loss, atol=1e-6
  )
  if objective.log_ratio:
    np.testing.assert_allclose(objective.log_ratio(same), 0, atol=1e-6)
    # Where nothing can be told apart, D's best is to say so.
    slopes = jax.grad(objective.d_loss, (0, 1))(same, same, PLAIN)
    np.testing.assert_allclose(slopes[0] + slopes[1], 0, atol=1e-6)


@EVERY
def test_g_is_blind_to_real_logits_unless_relativistic(name, logits):
  objective, (real, fake) = OBJECTIVES[name], logits
  if not objective.relativistic:
    objective.g_loss(None, fake, PLAIN)
  else:
    slope = jax.grad(objective.g_loss)(real, fake, PLAIN)
    assert float(jnp.abs(slope).max()) > 0


def slopes(loss, which, real, fake):
  """Slope of each example's term, as the docstrings state it."""
  return len(real) * jax.grad(loss, which)(real, fake, PLAIN)


def sigmoid64(x):
  return 1 / (1 + np.exp(-np.float64(x)))


# name: slopes of D's loss on real and on generated, of G's on generated.
SLOPES = {
  'minimax': (
    lambda r, f: -(1 - sigmoid64(r)),
    lambda r, f: sigmoid64(f),
    lambda r, f: -sigmoid64(f),
  ),
  'non_saturating': (
    lambda r, f: -(1 - sigmoid64(r)),
    lambda r, f: sigmoid64(f),
    lambda r, f: -(1 - sigmoid64(f)),
  ),
  'least_squares': (
    lambda r, f: r - 1.0,
    lambda r, f: f,
    lambda r, f: f - 1.0,
  ),
  'wasserstein': (
    lambda r, f: -np.ones_like(r),
    lambda r, f: np.ones_like(f),
    lambda r, f: -np.ones_like(f),
  ),
  'hinge': (
    lambda r, f: -1.0 * (r < 1),
    lambda r, f: 1.0 * (f > -1),
    lambda r, f: -np.ones_like(f),
  ),
  'relativistic': (
    lambda r, f: -sigmoid64(f - r),
    lambda r, f: sigmoid64(f - r),
    lambda r, f: -sigmoid64(r - f),
  ),
  'fgan_kl': (
    lambda r, f: -np.ones_like(r),
    lambda r, f: np.exp(f - 1),
    lambda r, f: -np.exp(f - 1),
  ),
  'fgan_reverse_kl': (
    lambda r, f: -np.exp(-r),
    lambda r, f: np.ones_like(f),
    lambda r, f: -np.ones_like(f),
  ),
  'fgan_pearson': (
    lambda r, f: -np.ones_like(r),
    lambda r, f: f / 2 + 1,
    lambda r, f: -(f / 2 + 1),
  ),
  'fgan_neyman': (
    lambda r, f: -np.exp(-r),
    lambda r, f: np.exp(-f / 2),
    lambda r, f: -np.exp(-f / 2),
  ),
  'fgan_hellinger': (
    lambda r, f: -np.exp(-r),
    lambda r, f: np.exp(f),
    lambda r, f: -np.exp(f),
  ),
  'fgan_jensen_shannon': (
    lambda r, f: -(1 - sigmoid64(r)),
    lambda r, f: sigmoid64(f),
    lambda r, f: -sigmoid64(f),
  ),
}


def _average_slopes(up, down):
  """Of E[up(r - mean f)] + E[down(f - mean r)]; up and down: slopes."""

  def of_d(r, f):
    on_real, on_fake = up(r - f.mean()), down(f - r.mean())
    return on_real - on_fake.mean(), on_fake - on_real.mean()

  return (
    lambda r, f: of_d(r, f)[0],
    lambda r, f: of_d(r, f)[1],
    lambda r, f: of_d(f, r)[0],  # G's: the kinds exchanged
  )


SLOPES |= {
  'geometric': SLOPES['hinge'],
  'relativistic_average': _average_slopes(lambda t: -sigmoid64(-t), sigmoid64),
  'relativistic_average_ls': _average_slopes(
    lambda t: 2 * (t - 1), lambda t: 2 * (t + 1)
  ),
  'relativistic_average_hinge': _average_slopes(
    lambda t: -1.0 * (t < 1), lambda t: 1.0 * (t > -1)
  ),
}


@EVERY
def test_slopes_are_the_documented_ones(name, logits):
  objective = OBJECTIVES[name]
  wide = [np.float64(x) for x in logits]
  found = (
    slopes(objective.d_loss, 0, *logits),
    slopes(objective.d_loss, 1, *logits),
    slopes(objective.g_loss, 1, *logits),
  )
  for ours, expected in zip(found, SLOPES[name], strict=True):
    np.testing.assert_allclose(ours, expected(*wide), rtol=2e-5, atol=1e-6)


def test_minimax_saturates_and_non_saturating_does_not():
  # D is sure of itself: what reaches G through each loss.
  sure = jnp.full(1, -10.0)
  slope = jax.grad(objectives.minimax_g, 1)(None, sure)
  assert abs(slope[0]) < 1e-4
  assert abs(jax.grad(objectives.non_saturating_g, 1)(None, sure)[0]) > 0.9


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
@pytest.mark.parametrize('seed', range(3))
def test_value_at_the_best_d_is_the_divergence(name, seed):
  """Minus D's loss is D_f(p, q) where T(v) = f'(p/q), and less elsewhere."""
  p, q, p_atoms, q_atoms = discrete(seed)
  f, slope, _, activation = DIVERGENCES[name]
  objective = OBJECTIVES[name]
  # v of T(v) = f'(p / q), by bisection: T rises.
  low, high = np.full(6, -30.0), np.full(6, 30.0)
  for _ in range(200):
    middle = (low + high) / 2
    above = activation(middle) > slope(p / q)
    low, high = np.where(above, low, middle), np.where(above, middle, high)
  best = low

  def value(v):
    v = jnp.asarray(v, jnp.float32)
    return -float(objective.d_loss(v[p_atoms], v[q_atoms], PLAIN))

  expected = float(np.sum(q * f(p / q)))
  np.testing.assert_allclose(value(best), expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(
    objective.log_ratio(jnp.asarray(best, jnp.float32)),
    np.log(p / q),
    rtol=1e-4,
    atol=1e-4,
  )
  rng = np.random.default_rng(seed)
  for _ in range(5):
    assert value(best + rng.normal(0, 0.3, 6)) < expected


@pytest.mark.parametrize('seed', range(3))
def test_least_squares_best_d_and_its_ratio(seed):
  """D* = p / (p + q) at the defaults; the log ratio is read off it."""
  p, q, p_atoms, q_atoms = discrete(seed)
  best = jnp.asarray(p / (p + q), jnp.float32)
  objective = OBJECTIVES['least_squares']

  def loss(v):
    return objective.d_loss(v[p_atoms], v[q_atoms], PLAIN)

  np.testing.assert_allclose(jax.grad(loss)(best), 0, atol=1e-6)
  np.testing.assert_allclose(
    objective.log_ratio(best), np.log(p / q), rtol=1e-4, atol=1e-5
  )


def test_least_squares_ratio_heeds_the_labels():
  """Mao et al.'s a = -1, b = 1: D says 0 where it can tell nothing apart."""
  ratio = OBJECTIVES['least_squares'].log_ratio
  labels = Labels(real=1.0, fake=-1.0, target=0.0)
  found = ratio(jnp.array([0.0, 0.5]), labels)
  np.testing.assert_allclose(found, [0.0, np.log(3.0)], atol=1e-6)


def test_relativistic_pairs_are_pairs():
  """Real example i meets generated example i, and no other."""
  real, fake = jnp.array([5.0, 0.0]), jnp.array([0.0, 5.0])
  loss = OBJECTIVES['relativistic'].d_loss
  expected = (softplus64(-5.0) + softplus64(5.0)) / 2
  np.testing.assert_allclose(loss(real, fake, PLAIN), expected, rtol=1e-6)
  turned = loss(real, fake[::-1], PLAIN)  # 5 meets 5, 0 meets 0
  np.testing.assert_allclose(turned, softplus64(0.0), rtol=1e-6)


def test_smoothing_is_one_sided():
  real, fake = jnp.array([2.0]), jnp.array([-3.0])
  plain = objectives.classify(real, fake)
  smooth = objectives.classify(real, fake, Labels(real=0.9))
  expected = bce(np.array([2.0]), np.array([-3.0]), Labels(real=0.9))
  np.testing.assert_allclose(smooth, expected, rtol=1e-6)
  # The fake term is untouched: the difference is that of the real term.
  np.testing.assert_allclose(smooth - plain, 0.1 * 2.0, rtol=1e-5)
