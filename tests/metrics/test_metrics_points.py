"""Metrics of points with a known truth, of labels, and the Parzen window."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from gan_jax import data
from gan_jax.metrics import (
  METRICS,
  blocks,
  class_modes,
  density,
  known_density,
  modes,
  parzen,
)
from gan_jax.runtime.errors import ArgumentError

LOG2 = np.log(2)


@functools.cache
def load(name):
  """One object of each density, whose functions are compiled once."""
  return data.load(name)


def drawn(name, n, seed=0):
  truth = load(name)
  return truth, np.asarray(truth.sample(jax.random.key(seed), n))


# Modes


def pacgan(truth, x):
  """Counts of the samples within three deviations of their mode."""
  away = np.linalg.norm(x[:, None] - truth.modes[None], axis=-1)
  good = away.min(axis=1) <= 3 * truth.mode_std
  counts = np.bincount(away.argmin(axis=1)[good], minlength=len(truth.modes))
  p = counts / counts.sum()
  near = scipy.stats.chi2.cdf(9, truth.dim)
  shares = np.append(counts, len(x) - counts.sum()) / len(x)
  expected = np.append(np.full(len(p), near / len(p)), 1 - near)
  rows, middle = (shares, expected), (shares + expected) / 2
  return {
    'mode_jsd': sum(scipy.special.rel_entr(q, middle).sum() for q in rows) / 2,
    'modes': np.count_nonzero(counts),
    'high_quality': good.mean(),
    'reverse_kl': sum(v * np.log(v * len(p)) for v in p if v),
    'forward_kl': -np.log(
      (counts + 0.5) / (counts + 0.5).sum() * len(p)
    ).mean(),
  }


@pytest.mark.parametrize('name', ['ring', 'grid', 'mixture_1d'])
def test_modes_against_the_formula(name):
  truth, x = drawn(name, 400)
  x = x[x[:, 0] < -1.5 * (name != 'ring')]  # some modes are missing
  x = np.concatenate([x, x[:50] - 8 * truth.mode_std])
  found = modes(x, truth=truth)
  assert found == pytest.approx(pacgan(truth, x), rel=1e-6)
  assert 1 <= found['modes'] < len(truth.modes)
  assert 0.5 < found['high_quality'] < 0.98


def test_modes_of_a_perfect_a_collapsed_and_a_lost_generator():
  truth = load('ring')
  perfect = modes(np.tile(truth.modes, (100, 1)), truth=truth)
  assert 0 < perfect.pop('mode_jsd') < 0.005  # none of the 1.1% that lie off
  zero = {'reverse_kl': 0, 'forward_kl': 0}
  expected = {'modes': 8, 'high_quality': 1, **zero}
  assert perfect == pytest.approx(expected, abs=1e-12)
  one = np.tile(truth.modes[2], (800, 1))
  collapsed = modes(one, truth=truth)
  assert collapsed['modes'] == 1 and collapsed['high_quality'] == 1
  assert collapsed['reverse_kl'] == pytest.approx(np.log(8))
  assert collapsed['forward_kl'] > 4
  lost = modes(0 * one, truth=truth)
  assert 0.6 < lost.pop('mode_jsd') < np.log(2)
  assert lost == {
    **{k: collapsed[k] for k in ('reverse_kl', 'forward_kl')},
    **{'modes': 0.0, 'high_quality': 0.0},
  }


def test_points_are_ranked_by_what_sees_quality_and_variety():
  """All modes found by few lucky samples, one mode found by all: both bad."""
  assert next(iter(METRICS['modes'].scores)) == 'mode_jsd'
  ring, rng = load('ring'), np.random.default_rng(0)
  good = np.asarray(ring.sample(jax.random.key(0), 2500))
  wild = np.concatenate([good[:25], rng.uniform(3, 4, (2475, 2))])
  collapsed = ring.modes[:1] + ring.mode_std * rng.normal(size=(2500, 2))
  half = np.concatenate([good[:1250], rng.uniform(3, 4, (1250, 2))])
  scores = [
    modes(x.astype(np.float32), truth=ring)
    for x in (good, half, collapsed, wild)
  ]
  assert [s['modes'] for s in scores] == [8, 8, 1, 8]
  assert scores[2]['high_quality'] > 0.98 > 0.02 > scores[3]['high_quality']
  jsd = [s['mode_jsd'] for s in scores]
  assert jsd[0] < 0.002 and 0.1 < jsd[1] < jsd[2] < jsd[3] < np.log(2)
  # By hand: 1/8 of the true mass near each mode, all samples near one.
  near = 1 - np.exp(-4.5)
  truth, found = np.full(9, near / 8), np.zeros(9)
  truth[8], found[0] = 1 - near, scores[2]['high_quality']
  found[8] = 1 - found[0]
  middle = (truth + found) / 2
  both = scipy.special.rel_entr([truth, found], middle).sum() / 2
  assert jsd[2] == pytest.approx(both, rel=1e-9)


def test_points_that_must_be_hit():
  """Dirac-GAN's mode has no width."""
  truth, x = drawn('delta', 9)
  assert modes(x, truth=truth)['high_quality'] == 1
  assert modes(x + 1e-6, truth=truth)['modes'] == 0


def test_class_modes_of_stacked_digits():
  """In 26,000 samples of 1000 equal modes: KL about 999 / 52,000."""
  labels = np.random.default_rng(0).integers(0, 1000, 26_000)
  scores = class_modes(labels, classes=1000)
  assert scores['modes'] == 1000
  assert scores['reverse_kl'] == pytest.approx(999 / 52_000, rel=0.1)
  assert scores['forward_kl'] == pytest.approx(999 / 52_000, rel=0.1)
  half = class_modes(labels[labels < 500], classes=1000)
  assert half['modes'] == 500
  assert half['reverse_kl'] == pytest.approx(LOG2, abs=0.03)
  assert half['forward_kl'] > 1


def test_class_modes_of_uneven_classes():
  counts = np.array([6, 3, 0, 1])
  fake = np.repeat(np.arange(4), counts)
  real = np.array([3, 0, 1, 0])
  p, q = counts / 10, np.array([2, 1, 0, 1]) / 4
  scores = class_modes(fake, labels=real)
  assert scores == class_modes(np.eye(4)[fake], labels=real)
  possible = [0, 1, 3]
  assert scores['reverse_kl'] == pytest.approx(
    (p[possible] * np.log(p[possible] / q[possible])).sum()
  )
  smooth = (counts[possible] + 0.5) / (counts[possible] + 0.5).sum()
  assert scores['forward_kl'] == pytest.approx(
    (q[possible] * np.log(q[possible] / smooth)).sum()
  )
  for wrong in (fake + 1, fake - 1):
    with pytest.raises(ArgumentError, match='`fake.*classes 0 to 3'):
      class_modes(wrong, classes=4)
    with pytest.raises(ArgumentError, match='`labels.*classes 0 to 3'):
      class_modes(fake, labels=wrong, classes=4)
  with pytest.raises(ArgumentError, match='give integers'):
    class_modes(fake[:, None])
  with pytest.raises(ArgumentError, match='0 samples'):
    class_modes(fake[:0], classes=4)
  with pytest.raises(ArgumentError, match='has 4 classes and the data 5'):
    class_modes(np.eye(4)[fake], classes=5)


# Densities


@pytest.mark.parametrize('name', ['gaussian_1d', 'mixture_1d', 'ring', 'grid'])
def test_masses_are_those_of_the_normal_distribution(name):
  truth = load(name)
  low, high = truth.extent
  cells = known_density.count_cells(truth)
  found = known_density.cell_masses(truth, low, high, cells)
  edges = np.linspace(low, high, cells + 1)[:, None]
  along = [
    np.diff(scipy.stats.norm.cdf(edges, centre, truth.mode_std), axis=0)
    for centre in truth.modes.T
  ]
  expected = (
    np.einsum('xk,yk->xy', *along) if truth.dim == 2 else along[0].sum(1)
  )
  np.testing.assert_allclose(found, expected / len(truth.modes), atol=2e-6)
  assert found.sum() == pytest.approx(1, abs=2e-4)


def test_masses_are_kept_only_of_densities_that_can_be_told_apart():
  truth = load('mixture_1d')
  kept = known_density.cell_masses(truth, -5.0, 5.0, 64)
  assert known_density.cell_masses(truth, -5.0, 5.0, 64) is kept
  moved = dataclasses.replace(
    truth, log_prob=lambda x: truth.log_prob(x - 1), fingerprint=''
  )
  other = known_density.cell_masses(moved, -5.0, 5.0, 64)
  assert np.abs(other - kept).max() > 1e-3
  assert known_density.cell_masses(moved, -5.0, 5.0, 64) is not other


def test_jensen_shannon_closed_forms():
  p, q = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.0, 1.0])
  assert known_density.jensen_shannon(p, q) == pytest.approx(LOG2)
  assert known_density.jensen_shannon(p, p) == 0
  one = known_density.jensen_shannon(np.array([1.0, 0.0]), np.array([0.5, 0.5]))
  assert one == pytest.approx(0.75 * np.log(4 / 3))
  assert known_density.jensen_shannon(np.array([1e-320, 1.0]), p[:2]) < 1


def test_jsd_of_normals_a_deviation_apart():
  """The integral; binning and chance move it by a hundredth."""
  truth, x = drawn('gaussian_1d', 20_000)
  found = density(x + 1.25, truth=truth)
  p, q = (scipy.stats.norm(m, 1.25).pdf for m in (4, 5.25))

  def integrand(t):
    m = (p(t) + q(t)) / 2
    both = scipy.special.rel_entr(p(t), m) + scipy.special.rel_entr(q(t), m)
    return both / 2

  expected, _ = scipy.integrate.quad(integrand, -6, 16)
  assert found['jsd'] == pytest.approx(expected, rel=0.02)
  # (cells with mass - 1) / 8n of true samples.
  assert 0.3 < found['jsd_floor'] / (63 / 8 / 20_000) < 2
  like = density(x, truth=truth)
  assert like['jsd'] < 2 * like['jsd_floor'] < 0.01 * found['jsd']


def test_jsd_of_what_lies_outside():
  truth, x = drawn('ring', 500)
  found = density(x + 100, truth=truth)
  assert found['jsd'] == pytest.approx(LOG2, abs=1e-6)
  assert found['wasserstein1'] == pytest.approx(100 * np.sqrt(2), rel=0.01)


def test_wasserstein_on_a_line_closed_forms():
  """Of one sample at the mean: sigma (2 / pi)^(1/2); elsewhere E|x - t|."""
  truth = load('gaussian_1d')
  found = known_density.wasserstein_1d(np.array([4.0]), truth)
  assert found == pytest.approx(1.25 * np.sqrt(2 / np.pi), rel=1e-4)
  far = known_density.wasserstein_1d(np.array([1000.0]), truth)
  assert far == pytest.approx(996, rel=1e-6)
  quantiles = scipy.stats.norm(4, 1.25).ppf((np.arange(5000) + 0.5) / 5000)
  close = known_density.wasserstein_1d(quantiles, truth)
  u = (np.arange(100_000) + 0.5) / 100_000
  between = np.abs(quantiles.repeat(20) - scipy.stats.norm(4, 1.25).ppf(u))
  assert close == pytest.approx(between.mean(), rel=0.02)
  moved = known_density.wasserstein_1d(quantiles + 0.5, truth)
  assert moved == pytest.approx(0.5, abs=1e-4)


def test_wasserstein_on_a_line_against_samples():
  truth, x = drawn('mixture_1d', 300)
  x = x * 1.1 + 0.2
  found = density(x, truth=truth)
  assert found['wasserstein1_samples'] == 300
  t = scipy.special.ndtri((np.arange(30_000) + 0.5) / 30_000) * 0.5
  many = np.concatenate([t - 3, t, t + 3])
  expected = scipy.stats.wasserstein_distance(x[:, 0], many)
  assert found['wasserstein1'] == pytest.approx(expected, rel=1e-3)


def test_wasserstein_in_the_plane():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(60, 2))
  shuffled = x[rng.permutation(60)]
  assert known_density.wasserstein_2d(x, shuffled) == pytest.approx(
    0, abs=1e-12
  )
  v = np.array([0.3, 0.4])
  # The best plan for a shift is the shift, as is any for a long one on average.
  assert known_density.wasserstein_2d(x, shuffled + v) == pytest.approx(0.5)
  flow = scipy.stats.wasserstein_distance_nd(x[:20], x[20:40] * 2)
  assert known_density.wasserstein_2d(x[:20], x[20:40] * 2) == pytest.approx(
    flow
  )


def test_density_in_the_plane_beside_its_floor(monkeypatch):
  truth, x = drawn('grid', 1100)
  like = density(x, truth=truth, seed=1)
  assert like['wasserstein1_samples'] == 1000
  for name in ('jsd', 'wasserstein1'):
    assert 0.5 < like[name] / like[f'{name}_floor'] < 2
  broken = density(x[x[:, 0] < 1][:400], truth=truth)
  for name in ('jsd', 'wasserstein1'):
    assert broken[name] > 1.1 * broken[f'{name}_floor']
  assert broken['wasserstein1'] > 1.5
  # Samples may come in an order: those that are transported are of all.
  monkeypatch.setattr(known_density, 'TRANSPORTED', 400)
  for rows in (x[:, 0].argsort(), x[:, 1].argsort()):
    turned = density(x[rows], truth=truth, seed=1)
    assert turned['wasserstein1'] < 2 * turned['wasserstein1_floor']


# Parzen window


def reference_parzen(samples, x, sigma):
  """One image at a time."""
  samples, dim = np.float64(samples), x.shape[1]
  found = []
  for image in np.float64(x):
    exponents = -0.5 * (((image - samples) / sigma) ** 2).sum(1)
    mean = scipy.special.logsumexp(exponents) - np.log(len(samples))
    found.append(mean - dim * np.log(sigma * np.sqrt(2 * np.pi)))
  return np.array(found)


@pytest.mark.parametrize('rows', [32, 1024])
def test_parzen_against_the_formula(rows, monkeypatch):
  monkeypatch.setattr(blocks, 'ROWS', rows)
  rng = np.random.default_rng(0)
  samples, valid, test = (
    rng.beta(0.3, 0.3, size=(n, 50)).astype(np.float32) for n in (70, 20, 33)
  )
  valid = 0.5 + (valid - 0.5) / 4  # of which another deviation is best
  scores = parzen(test, samples, validation=valid)
  sigmas = np.logspace(-1, 0, 10)
  best, other = (
    max(sigmas, key=lambda s: reference_parzen(samples, x, s).mean())
    for x in (valid, test)
  )
  assert scores['parzen_sigma'] == best and 0.1 < best < other < 1
  expected = reference_parzen(samples, test, best)
  assert scores['parzen'] == pytest.approx(expected.mean(), rel=1e-9)
  error = expected.std() / np.sqrt(33)
  assert scores['parzen_error'] == pytest.approx(error, rel=1e-9)


def test_parzen_of_bytes_and_of_the_unit_interval():
  draw = np.random.default_rng(0).integers
  x, fake = draw(0, 256, (2, 4, 3, 3, 1), np.uint8)
  unit = np.float32(x) / 255
  one = parzen(x, fake, validation=x)
  assert one == parzen(unit, np.float32(fake) / 255, validation=unit)
  with pytest.raises(ArgumentError, match=r'`real.*is in \[-1, 1\]'):
    parzen(np.sign(unit - 0.5), unit, validation=unit)
  with pytest.raises(ArgumentError, match='4 pixels, `fake` 9 and `valid.* 9'):
    parzen(unit.reshape(4, 9)[:, :4], unit, validation=unit)
  with pytest.raises(ArgumentError, match='`validation.*NaN'):
    parzen(unit, unit, validation=unit * np.nan)
