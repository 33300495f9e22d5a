"""Densities against float64 references, their integrals and their samples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from gan_jax import data
from gan_jax.data import densities

EVERY = [name for name, make in data.DATASETS.items() if make]
POINTS = [name for name in EVERY if data.load(name).mode_std == 0]
DENSITIES = [name for name in EVERY if name not in POINTS]
N = 20_000


def _curve(points):
  t = 4 * np.pi * (np.arange(points) + 0.5) / points
  return t[:, None] / (2 * np.pi) * np.stack([np.cos(t), np.sin(t)], 1)


def _turned(k):
  return [np.cos(k * np.pi / 4), np.sin(k * np.pi / 4)]


# What the docstrings say, written anew: centres and deviation.
TRUTH = {
  'gaussian_1d': ([[4.0]], 1.25),
  'mixture_1d': ([[-3.0], [0.0], [3.0]], 0.5),
  'ring': ([_turned(k) for k in range(8)], 0.01),
  'grid': (
    [[x, y] for x in range(-4, 5, 2) for y in range(-4, 5, 2)],
    0.05,
  ),
  'spiral': (_curve(1024), 0.05),
  'delta': ([[0.0]], 0.02),  # of what is drawn
}
SEPARATE = ['mixture_1d', 'ring', 'grid']

every = pytest.mark.parametrize('name', EVERY)
# Those whose log-density is that of their samples.
each = pytest.mark.parametrize('name', DENSITIES)


def reference(name, x):
  """Log-density of an equal normal mixture, in float64."""
  centres, std = TRUTH[name]
  away = (np.float64(x)[:, None] - np.float64(centres)) / std
  peak = -0.5 * x.shape[1] * np.log(2 * np.pi * std**2) - np.log(len(centres))
  return scipy.special.logsumexp(-0.5 * (away**2).sum(-1), axis=1) + peak


@functools.cache
def drawn(name, seed=0, n=N):
  x = data.load(name).sample(jax.random.key(seed), n)
  return np.asarray(x)


@functools.cache
def _compiled(name):
  return jax.jit(data.load(name).log_prob)


def log_prob(name, x):
  return np.asarray(_compiled(name)(jnp.asarray(x)))


@functools.cache
def _cells(name):
  """Mass of the cells of a coarse grid, by midpoints of a much finer one."""
  d = data.load(name)
  per_axis = 40 if d.dim == 1 else 10
  low, high = d.extent
  width = (high - low) / per_axis
  fine = int(np.ceil(width / (0.5 * (d.mode_std or width / 40))))
  axis = low + (np.arange(per_axis * fine) + 0.5) * width / fine
  mesh = np.stack(np.meshgrid(*[axis] * d.dim, indexing='ij'), -1)
  points = np.float32(mesh.reshape(-1, d.dim))
  blocks = np.split(points, 4 if d.dim == 2 else 1)
  mass = np.concatenate([np.float64(log_prob(name, x)) for x in blocks])
  mass = np.exp(mass).reshape([per_axis, fine] * d.dim)
  return mass.sum(tuple(range(1, 2 * d.dim, 2))) * (width / fine) ** d.dim


@every
def test_sample_is_float32_and_of_its_shape(name):
  d = data.load(name)
  x = d.sample(jax.random.key(0), 64)
  assert isinstance(d, data.Density) and d.name == name
  assert x.shape == (64, d.dim) == (64, *d.shape) and x.dtype == np.float32
  found = d.log_prob(x)
  assert found.shape == (64,) and found.dtype == np.float32


@every
def test_jit_equals_eager(name):
  d = data.load(name)
  x = drawn(name, n=64)
  jitted = jax.jit(d.sample, static_argnums=1)(jax.random.key(0), 64)
  np.testing.assert_allclose(jitted, x, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
    log_prob(name, x), d.log_prob(jnp.asarray(x)), rtol=1e-5, atol=1e-5
  )


@every
def test_vmap_equals_loop(name):
  d = data.load(name)
  x = drawn(name, n=64).reshape(2, 32, d.dim)
  looped = np.stack([log_prob(name, y) for y in x])
  np.testing.assert_allclose(
    jax.vmap(d.log_prob)(x), looped, rtol=1e-5, atol=1e-5
  )


@each
def test_key_decides_the_sample(name):
  d = data.load(name)
  again = d.sample(jax.random.key(0), 64)
  np.testing.assert_array_equal(again, drawn(name, n=64))
  other = drawn(name, seed=1, n=64)
  assert not np.isin(other[:, 0], drawn(name, n=64)[:, 0]).any()


@pytest.mark.parametrize('name', SEPARATE)
def test_noise_is_independent_across_axes_and_of_the_mode(name):
  # A key used twice shows as a correlation: 5 sigma of no correlation.
  d, x = data.load(name), drawn(name)
  which = np.square(x[:, None] - d.modes).sum(-1).argmin(1)
  noise = (x - d.modes[which]) / d.mode_std
  columns = np.column_stack([noise, which])
  found = np.corrcoef(columns.T)
  assert np.abs(found - np.eye(len(found))).max() < 5 / np.sqrt(N)


@every
def test_log_prob_equals_float64_reference(name):
  assert name in TRUTH, f'write down the truth of {name} in TRUTH'
  d = data.load(name)
  low, high = d.extent
  spread = np.random.default_rng(0).uniform(low, high, (500, d.dim))
  for x in (drawn(name)[:500], np.float32(spread)):
    np.testing.assert_allclose(
      log_prob(name, x), reference(name, x), rtol=2e-5, atol=2e-4
    )


@every
def test_log_prob_is_finite_far_away(name):
  d = data.load(name)
  far = np.linspace([-1e4] * d.dim, [1e4] * d.dim, 64, dtype=np.float32)
  assert np.isfinite(log_prob(name, far)).all()


@every
def test_log_prob_integrates_to_one(name):
  # The extent of gaussian_1d ends at 4 sigma, 6e-5 of it lie beyond.
  mass = _cells(name)
  np.testing.assert_allclose(mass.sum(), 1, atol=2e-4)


@each
def test_histogram_of_samples_follows_log_prob(name):
  d = data.load(name)
  expected = N * _cells(name)
  edges = np.linspace(*d.extent, len(expected) + 1)
  found, _ = np.histogramdd(drawn(name), [edges] * d.dim)
  often = expected >= 5
  assert often.sum() >= 8
  observed = np.append(found[often], N - found[often].sum())
  wanted = np.append(expected[often], N - expected[often].sum())
  keep = wanted > 1  # what lies outside may be next to nothing
  assert observed[~keep].sum() <= 10
  excess = np.square(observed - wanted)[keep] / wanted[keep]
  assert scipy.stats.chi2.sf(excess.sum(), keep.sum() - 1) > 1e-4


@each
def test_mean_log_prob_of_samples_is_minus_the_entropy(name):
  # The reference, on samples of NumPy's own, against ours on ours.
  centres, std = np.float64(TRUTH[name][0]), TRUTH[name][1]
  draw = np.random.default_rng(1)
  own = centres[draw.integers(len(centres), size=500)]
  own = reference(name, own + std * draw.standard_normal(own.shape))
  ours = reference(name, drawn(name)[:500])
  error = np.hypot(own.std(), ours.std()) / np.sqrt(500)
  assert abs(own.mean() - ours.mean()) < 5 * error


@pytest.mark.parametrize('name', SEPARATE)
def test_modes_are_hit_equally_and_closely(name):
  d = data.load(name)
  distance = np.linalg.norm(drawn(name)[:, None] - d.modes, axis=-1)
  assert distance.min(1).max() < 6 * d.mode_std
  hits = np.bincount(distance.argmin(1), minlength=len(d.modes))
  assert scipy.stats.chisquare(hits).pvalue > 1e-4


@pytest.mark.parametrize('name', [*SEPARATE, 'gaussian_1d'])
def test_modes_and_std_are_as_documented(name):
  d = data.load(name)
  centres, std = TRUTH[name]
  order = np.lexsort(np.round(d.modes, 6).T)
  wanted = np.float64(centres)
  wanted = wanted[np.lexsort(np.round(wanted, 6).T)]
  np.testing.assert_allclose(d.modes[order], wanted, atol=1e-12)
  assert d.mode_std == std
  assert (d.extent[0] < d.modes).all() and (d.modes < d.extent[1]).all()


def test_ring_has_eight_distinct_modes_at_equal_angles():
  modes = densities.ring().modes
  angles = np.sort(np.arctan2(modes[:, 1], modes[:, 0]) % (2 * np.pi))
  gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
  np.testing.assert_allclose(gaps, np.full(8, np.pi / 4), atol=1e-12)
  np.testing.assert_allclose(np.linalg.norm(modes, axis=1), 1)


def test_grid_has_25_modes_two_apart():
  modes = densities.grid().modes
  assert len(np.unique(modes, axis=0)) == 25
  gaps = np.linalg.norm(modes[:, None] - modes, axis=-1)
  assert np.min(gaps + 9 * np.eye(25)) == 2


def test_spiral_has_no_modes_but_a_width():
  d = densities.spiral()
  assert d.modes is None and d.mode_std == 0.05


def test_fingerprints_are_distinct():
  found = [data.load(name).fingerprint for name in EVERY]
  assert len(set(found)) == len(found)
  narrow = densities._mixture('ring', np.zeros((1, 2)), 0.02, (-1, 1))
  assert narrow.fingerprint != densities.ring().fingerprint
  moved = densities._mixture('gaussian_1d', np.array([[0.0]]), 1.25, (-1, 9))
  assert moved.fingerprint != densities.gaussian_1d().fingerprint


@pytest.mark.parametrize('name', POINTS)
def test_a_point_mass_is_exact(name):
  d = data.load(name)
  assert set(map(tuple, drawn(name))) == set(map(tuple, d.modes))


def test_delta_is_at_0():
  assert POINTS == ['delta']
  assert not drawn('delta').any()


@pytest.mark.parametrize('flag', ['image_size', 'channels'])
def test_image_flags_are_refused(flag):
  with pytest.raises(data.DataFlagError, match=f'--{flag}=3.*ring'):
    data.load('ring', **{flag: 3})
