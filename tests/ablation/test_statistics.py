"""Statistics over seeds, against SciPy, hand-worked numbers and coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gan_jax.ablation import statistics
from gan_jax.ablation.statistics import Interval

SCORES = st.lists(
  st.integers(-1000, 1000).map(lambda i: i / 8), min_size=2, max_size=20
).map(np.array)


def rng(*seed):
  return np.random.default_rng([0, *seed])


def test_summary_by_hand():
  found = statistics.summary(np.array([1.0, 2.0, 3.0, 10.0]))
  assert found[:4] == (4, 4.0, pytest.approx(math.sqrt(50 / 3)), 2.5)
  assert found.interval == statistics.mean_interval(
    np.array([1.0, 2.0, 3.0, 10.0])
  )


def test_too_few_scores_have_no_interval():
  none = statistics.summary(np.array([]))
  assert none.n == 0 and np.isnan([*none[1:4], *none.interval]).all()
  one = statistics.summary(np.array([2.5]))
  assert one[:2] == (1, 2.5) and one.median == 2.5
  assert np.isnan([one.std, *one.interval]).all()
  pair = statistics.paired_difference(np.array([2.5]), np.array([1.0]))
  assert pair[:2] == (1, 1.5) and np.isnan([*pair.interval, pair.p]).all()


def test_equal_scores_have_no_width():
  x = np.full(5, 0.1)
  assert statistics.summary(x).std == 0
  assert statistics.mean_interval(x) == pytest.approx((0.1, 0.1))
  assert statistics.paired_difference(x, x).p == 1
  assert statistics.paired_difference(x, x + 1).p == 2.0**-4


@pytest.mark.parametrize('bad', [math.nan, math.inf])
def test_a_run_without_a_score_is_refused(bad):
  x = np.array([1.0, bad])
  with pytest.raises(ValueError, match='with `rate`'):
    statistics.summary(x)
  with pytest.raises(ValueError, match='`b='):
    statistics.paired_difference(np.zeros(2), x)


def studentised(scores, level):
  """The interval by its definition, a resample at a time."""
  x = np.sort(scores)
  n, mean = len(x), x.mean()
  error = x.std(ddof=1) / math.sqrt(n)
  t = []
  draws = np.random.default_rng(n).multinomial(n, np.full(n, 1 / n), 9999)
  for counts in draws:
    again = np.repeat(x, counts)
    off, width = again.mean() - mean, again.std(ddof=1) / math.sqrt(n)
    t.append(off / width if width > 0 else math.copysign(1e9, off))
  far = 1.5 * stats.t.ppf((1 + level) / 2, n - 1)
  low, high = np.clip(
    np.quantile(t, [(1 - level) / 2, (1 + level) / 2]), -far, far
  )
  return mean - high * error, mean - low * error


@pytest.mark.parametrize('n, level', [(3, 0.95), (8, 0.95), (16, 0.8)])
def test_the_interval_is_the_studentised_bootstrap(n, level):
  x = np.exp(rng(n).normal(size=n))
  found = statistics.mean_interval(x, level)
  assert found == pytest.approx(studentised(x, level), rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(SCORES, st.sampled_from([0.25, 3.0]), st.integers(-5, 5))
def test_the_interval_moves_with_the_scores(x, scale, shift):
  low, high = statistics.mean_interval(x)
  assert low <= x.mean() <= high
  moved = statistics.mean_interval(scale * x[::-1] + shift)
  assert moved == pytest.approx((scale * low + shift, scale * high + shift))


@settings(max_examples=50, deadline=None)
@given(SCORES)
def test_the_interval_is_bounded_by_student_s(x):
  """One bad seed, or tied scores, would send it to infinity."""
  n = len(x)
  farthest = 1.5 * stats.t.ppf(0.975, n - 1) * x.std(ddof=1) / math.sqrt(n)
  low, high = statistics.mean_interval(x)
  assert x.mean() - low <= farthest * (1 + 1e-9) + 1e-9
  assert high - x.mean() <= farthest * (1 + 1e-9) + 1e-9


def test_skewed_scores_have_a_skewed_interval():
  x = np.exp(rng().normal(size=16))
  low, high = statistics.mean_interval(x)
  assert high - x.mean() > 1.2 * (x.mean() - low)


@pytest.mark.parametrize('n', [8, 16])
def test_coverage(n, sigma=0.5):
  """A percentile or BCa bootstrap fails this; see experiments/statistics."""
  x = np.exp(sigma * rng(n).normal(size=(800, n)))
  low, high = np.array([statistics.mean_interval(row) for row in x]).T
  truth = math.exp(sigma**2 / 2)
  error = math.sqrt(0.95 * 0.05 / 800)
  held = ((low <= truth) & (truth <= high)).mean()
  assert 0.93 - 2 * error < held < 0.97 + 2 * error


def test_paired_difference_is_scipy_s():
  a, b = rng().normal(size=(2, 9))
  found = statistics.paired_difference(a, b)
  truth = stats.ttest_rel(a, b)
  assert found.n == 9 and found.mean == pytest.approx((a - b).mean())
  assert found.p == pytest.approx(truth.pvalue)
  assert found.interval == pytest.approx(tuple(truth.confidence_interval()))


@settings(max_examples=50, deadline=None)
@given(SCORES, st.integers(0, 100), st.sampled_from([0.9, 0.95]))
def test_p_and_interval_agree(x, seed, level):
  y = rng(seed).normal(size=len(x))
  found = statistics.paired_difference(x, y, level)
  outside = not found.interval.low <= 0 <= found.interval.high
  assert outside == (found.p < 1 - level)


def test_pairing_takes_out_what_the_seeds_share():
  luck = 10 * rng().normal(size=8)
  a, b = luck + 1 + 0.1 * rng(1).normal(size=8), luck
  assert statistics.paired_difference(a, b).p < 0.001
  assert stats.ttest_ind(a, b).pvalue > 0.5
  with pytest.raises(ValueError, match='pair it by seed with the 8 of `a`'):
    statistics.paired_difference(a, b[1:])


def improvement(a, b, better='lower'):
  return statistics.probability_of_improvement(
    np.asarray(a, float), np.asarray(b, float), better
  )


def test_probability_of_improvement_by_hand():
  assert improvement([1, 2], [2, 3]).value == 0.875
  assert improvement([1, 2], [2, 3], 'higher').value == 0.125
  assert math.isnan(improvement([], [1]).value)


def test_probability_of_improvement_is_the_u_statistic():
  a, b = rng().integers(0, 6, 9), rng(1).integers(0, 6, 7)
  u = stats.mannwhitneyu(a, b).statistic
  assert improvement(a, b, 'higher').value == pytest.approx(u / 63)


@settings(max_examples=50, deadline=None)
@given(SCORES, SCORES)
def test_the_interval_of_improvement_is_newcombe_s(a, b):
  """Its ends are as many deviations away as they say, and it is mirrored."""
  value, (low, high) = improvement(a, b)
  assert 0 <= low <= value <= high <= 1
  back = improvement(b, a)
  assert back.value == pytest.approx(1 - value)
  assert back.interval == pytest.approx((1 - high, 1 - low), abs=1e-6)
  m, n = len(a), len(b)
  for end in {low, high} - {0.0, 1.0}:
    more = 1 + ((m + n) / 2 - 1) * ((1 - end) / (2 - end) + end / (1 + end))
    deviation = math.sqrt(end * (1 - end) * more / (m * n))
    assert abs(end - value) == pytest.approx(1.959964 * deviation, rel=1e-3)


def test_winning_always_is_not_certainty():
  value, (low, high) = improvement(range(8), range(8, 16))
  assert value == high == 1 and 0.7 < low < 0.8
  assert improvement(range(8, 16), range(8)).interval.low == 0


def test_a_diverged_run_loses_to_all_but_its_like():
  assert improvement([1, math.inf], [5, math.inf]).value == 0.625
  assert improvement([9, -math.inf], [5, 7], 'higher').value == 0.5
  with pytest.raises(ValueError, match='inf'):
    improvement([1, math.nan], [1])
  with pytest.raises(ValueError, match='`better=up`'):
    improvement([1], [1], 'up')


def test_rate_is_wilson_s():
  n, k, z = 16, 3, 1.959964
  middle = (k + z * z / 2) / (n + z * z)
  half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
  found = statistics.rate(k, n)
  assert found.value == 3 / 16
  assert found.interval == pytest.approx((middle - half, middle + half))
  assert statistics.rate(0, 16).interval.low == 0
  assert np.isnan(statistics.rate(0, 0).interval).all()
  with pytest.raises(ValueError, match='`count=17`: use 0 to `total=16`'):
    statistics.rate(17, 16)


def test_holm_by_hand():
  assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx(
    [0.03, 0.06, 0.06, 0.02]
  )
  # As R's p.adjust has it.
  assert statistics.holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx(
    [0.05, 0.08, 0.09, 0.09, 0.09]
  )
  assert statistics.holm([0.9, 0.8]) == [1, 1] and statistics.holm([]) == []
  with pytest.raises(ValueError, match='`p=nan`'):
    statistics.holm([math.nan])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_only_raises(p):
  found = statistics.holm(p)
  assert all(0 <= a <= 1 and a >= b for a, b in zip(found, p))
  order = np.argsort(p, kind='stable')
  assert (np.diff(np.array(found)[order]) >= 0).all()


def test_holm_is_bonferroni_for_the_smallest_alone():
  p = [0.001, 0.02, 0.03]
  assert statistics.holm(p)[0] == pytest.approx(3 * p[0])
  assert statistics.holm(p)[2] < 3 * p[2]


def test_the_median_run_is_never_the_luckier_one():
  x = np.array([5.0, 1.0, 3.0, 2.0])
  assert statistics.median_run(x, 'lower') == 2
  assert statistics.median_run(x, 'higher') == 3
  assert statistics.median_run(x[:3], 'lower') == 2
  assert statistics.median_run(x[:1], 'lower') == 0


def test_intervals_are_pairs_of_floats():
  low, high = statistics.mean_interval(np.array([1.0, 2.0], np.float32))
  assert type(low) is float and type(high) is float
  assert isinstance(statistics.rate(1, 2).interval, Interval)


def test_differences_without_spread_are_no_certainty():
  """Two seeds that differ by the same count prove nothing; sixteen do."""
  few = statistics.paired_difference(np.array([3.0, 4.0]), np.array([2.0, 3.0]))
  assert few.p == 0.5 and np.isnan(few.interval.low)
  many = statistics.paired_difference(np.full(16, 8.0), np.full(16, 7.0))
  assert many.p == 2.0**-15 and many.interval == (1.0, 1.0)
  level = statistics.paired_difference(np.full(2, 8.0), np.full(2, 8.0))
  assert level.p == 1 and level.interval == (0.0, 0.0)
  # 0.3 - 0.2 and 0.6 - 0.5 differ by a rounding, which is no spread either.
  few = statistics.paired_difference(np.array([0.3, 0.6]), np.array([0.2, 0.5]))
  assert few.p == 0.5 and np.isnan(few.interval.low)
  level = statistics.paired_difference(
    np.array([0.1 + 0.2] * 8), np.array([0.3] * 8)
  )
  assert level.p == 1 and level.mean == 0
