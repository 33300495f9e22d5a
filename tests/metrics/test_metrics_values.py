"""Metrics of features, probabilities and images against formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.spatial.distance
import scipy.stats
import sklearn.neighbors

from gan_jax.metrics import (
  blocks,
  c2st,
  frechet,
  inception_score,
  kid,
  ms_ssim,
  nearest_neighbours,
  neighbours,
  prdc,
  similarity,
  sliced_wasserstein,
  swd,
  swd_points,
  transport,
)


def features(n, dim, seed=0, scale=1.0, mean=0.0):
  """Correlated, of quickly falling variances, like those of a network."""
  rng = np.random.default_rng(seed)
  mix = np.random.default_rng(99).normal(size=(dim, dim)) * np.exp(
    -np.arange(dim) / 8
  )
  x = rng.normal(size=(n, dim)) @ mix.T * scale + mean
  return x.astype(np.float32)


# Fréchet distance


def sqrtm_distance(x, y):
  """By the root of the product, as it is usually written."""
  x, y = np.float64(x), np.float64(y)
  s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
  apart = ((x.mean(0) - y.mean(0)) ** 2).sum()
  values = scipy.linalg.eigvals(s1 @ s2)
  return (
    apart + np.trace(s1 + s2) - 2 * np.sqrt(values.astype(complex)).real.sum()
  )


@pytest.mark.parametrize(
  'n, m, dim', [(400, 300, 24), (25, 25, 24), (400, 20, 24), (20, 15, 24)]
)
def test_fid_against_the_formula(n, m, dim):
  """Both of full rank, just so, and one or both of too few samples."""
  x, y = features(n, dim), features(m, dim, seed=1, scale=1.2, mean=0.1)
  found = frechet.fid(x, y)
  assert found['fid'] == pytest.approx(sqrtm_distance(x, y), rel=1e-5)
  assert found['fid_samples_per_dim'] == m / dim
  moments = frechet.Moments.of(x), frechet.Moments.of(y)
  streamed = frechet.frechet_distance(*moments)
  assert streamed == pytest.approx(found['fid'], rel=1e-9)


def moments_of(mean, covariance, count=101):
  return frechet.Moments(
    count, np.asarray(mean, float), np.asarray(covariance, float) * (count - 1)
  )


def test_frechet_distance_of_known_gaussians():
  """Closed forms: equal, moved, commuting, and points."""
  a, b = np.array([4.0, 9.0, 0.25]), np.array([1.0, 16.0, 0.0])
  m = np.array([1.0, -2.0, 3.0])
  turn = scipy.stats.special_ortho_group.rvs(3, random_state=0)
  one = moments_of(m, turn @ np.diag(a) @ turn.T)
  two = moments_of(0 * m, turn @ np.diag(b) @ turn.T)
  distance = frechet.frechet_distance
  assert distance(one, one) == pytest.approx(0, abs=1e-12)
  expected = m @ m + np.square(np.sqrt(a) - np.sqrt(b)).sum()
  assert distance(one, two) == pytest.approx(expected, rel=1e-12)
  point = moments_of(m, np.zeros((3, 3)))
  assert distance(point, two) == pytest.approx(m @ m + b.sum(), rel=1e-12)
  assert distance(point, moments_of(0 * m, 0 * np.eye(3))) == m @ m


def test_frechet_distance_that_does_not_commute():
  """Of 2x2 matrices `Tr (AB)^(1/2)` is `(Tr AB + 2 det(AB)^(1/2))^(1/2)`."""
  s1, s2 = (
    np.array([[2.0, 0.7], [0.7, 1.0]]),
    np.array([[1.0, -0.4], [-0.4, 3]]),
  )
  product = s1 @ s2
  root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
  expected = np.trace(s1 + s2) - 2 * root
  found = frechet.frechet_distance(
    moments_of([0, 0], s1), moments_of([0, 0], s2)
  )
  assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('mean', [0.0, 1000.0])
def test_moments_do_not_depend_on_the_batches(mean):
  """To 1e-12 of the largest entry, and those of NumPy in float64."""
  x = features(997, 16, mean=mean)
  whole = frechet.Moments.of(x)
  for cuts in ([1, 2, 500], [64 * i for i in range(1, 16)], [996]):
    parts = [frechet.Moments.of(part) for part in np.split(x, cuts)]
    merged = parts[0]
    for part in parts[1:]:
      merged = merged.merge(part)
    assert merged.count == 997
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13)
    top = np.abs(whole.scatter).max()
    np.testing.assert_allclose(merged.scatter, whole.scatter, atol=1e-12 * top)
  covariance = np.cov(np.float64(x), rowvar=False)
  np.testing.assert_allclose(whole.covariance, covariance, rtol=1e-9, atol=1e-9)


def test_moments_refuse_what_cannot_be_compared():
  x = features(5, 4)
  one = frechet.Moments.of(x[:1])
  with pytest.raises(ValueError, match='at least 2'):
    frechet.frechet_distance(one, one)
  for join in (one.merge, lambda other: frechet.frechet_distance(one, other)):
    with pytest.raises(ValueError, match='has 3 dimensions'):
      join(frechet.Moments.of(x[:, :3]))


def test_caution_about_few_samples():
  assert frechet.describe_bias(2049, 2048) == ''
  assert '2048 samples' in frechet.describe_bias(2048, 2048)


# Kernel Inception Distance


def mmd2(x, y):
  """Sums over pairs, one by one."""
  kernel = lambda a, b: (np.dot(a, b) / len(a) + 1) ** 3
  x, y = np.float64(x), np.float64(y)
  m = len(x)
  within = sum(
    kernel(s[i], s[j])
    for s in (x, y)
    for i in range(m)
    for j in range(m)
    if i != j
  )
  across = sum(kernel(a, b) for a in x for b in y)
  return within / (m * (m - 1)) - 2 * across / m**2


def test_kid_against_the_formula():
  x, y = features(40, 8), features(40, 8, seed=1, mean=0.3)
  found = kid(x, y, subsets=2, subset_size=40)
  assert found['kid'] == pytest.approx(mmd2(x, y), rel=1e-9)
  assert found['kid_std'] == pytest.approx(0, abs=1e-12)
  assert found['kid_subset_size'] == 40


def test_kid_with_one_sample_far_out():
  """A trace taken from a sum of like size would leave nothing."""
  x, y = features(40, 8), features(40, 8, seed=1, mean=0.3)
  y[0] += 1e6
  found = kid(x, y, subsets=1, subset_size=40)
  assert found['kid'] == pytest.approx(mmd2(x, y), rel=1e-9)


def test_kid_of_known_gaussians():
  """On a line: `3 (m1 - n1)^2 + 3 (m2 - n2)^2 + (m3 - n3)^2` of the moments."""
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(20_000, 1)), rng.normal(0.5, 1.2, size=(20_000, 1))
  first, second = 0.5, 0.5**2 + 1.2**2
  third = 0.5**3 + 3 * 0.5 * 1.2**2
  expected = 3 * first**2 + 3 * (second - 1) ** 2 + third**2
  found = kid(x, y, subsets=40, subset_size=500)
  error = found['kid_std'] / np.sqrt(40)
  assert abs(found['kid'] - expected) < 4 * error < 0.25 * expected


def test_kid_is_unbiased_and_its_deviation_is_that_of_subsets():
  """Of like sets as often below 0 as above; fewer samples vary more."""
  x, y = features(2000, 4), features(2000, 4, seed=1)
  few, many = (kid(x, y, subset_size=m) for m in (20, 200))
  assert abs(few['kid']) < 4 * few['kid_std'] / 10
  assert few['kid_std'] > 2 * many['kid_std'] > 0
  assert kid(x[:30], y)['kid_subset_size'] == 15
  with pytest.raises(ValueError, match='subset_size=31'):
    kid(x[:30], y, subset_size=31)


# Inception Score


def test_inception_score_against_the_formula():
  logits = np.random.default_rng(0).normal(size=(60, 7)) * 3
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  found = inception_score(p, splits=1)
  expected = np.exp((p * np.log(p / p.mean(0))).sum(1).mean())
  assert found['inception_score'] == pytest.approx(expected, rel=1e-12)
  assert found['inception_score_std'] == 0


def test_inception_score_of_the_sure_and_the_unsure():
  unsure = inception_score(np.full((100, 4), 0.25))
  assert unsure['inception_score'] == pytest.approx(1, abs=1e-12)
  one = np.eye(4)[np.zeros(100, int)]
  assert inception_score(one)['inception_score'] == 1
  # Sorted by class, contiguous splits would see one class each.
  sure = np.eye(4)[np.arange(4000) // 1000]
  found = inception_score(sure)
  assert 3.95 < found['inception_score'] <= 4
  assert 0 < found['inception_score_std'] < 0.05


# Precision, recall, density, coverage


def brute_prdc(real, fake, k_pr, k_dc):
  """All pairs at once, by differences."""
  pairs = scipy.spatial.distance.cdist
  real, fake = np.float64(real), np.float64(fake)
  radius = lambda x, k: np.sort(pairs(x, x), axis=1)[:, k]
  cross = pairs(real, fake)
  inside = cross < radius(real, k_dc)[:, None]
  return {
    'precision': (cross <= radius(real, k_pr)[:, None]).any(0).mean(),
    'recall': (cross <= radius(fake, k_pr)[None]).any(1).mean(),
    'density': inside.sum() / (k_dc * len(fake)),
    'coverage': inside.any(1).mean(),
  }


@pytest.mark.parametrize('k_pr, k_dc', [(3, 5), (1, 1)])
def test_prdc_against_the_formula(k_pr, k_dc, monkeypatch):
  monkeypatch.setattr(blocks, 'ROWS', 32)
  real, fake = features(150, 6), features(100, 6, seed=1, scale=0.8, mean=0.5)
  real, fake = real + 4, fake + 4
  fake[:30] = 0  # where blocks are padded
  found = prdc(real, fake, k_pr=k_pr, k_dc=k_dc)
  assert found == pytest.approx(brute_prdc(real, fake, k_pr, k_dc), abs=1e-12)
  assert 0.02 < found['recall'] and 0.3 < found['precision'] < 0.71


def test_prdc_where_many_distances_are_equal():
  """Whole numbers: the balls' borders are full of samples."""
  rng = np.random.default_rng(0)
  real, fake = rng.integers(0, 3, (2, 120, 6)).astype(np.float32)
  expected = brute_prdc(real, fake, 3, 5)
  assert prdc(real, fake) == pytest.approx(expected, abs=1e-12)
  # Far from 0, where squares of 1e3 leave rounding nothing of a border.
  moved = prdc(real * 0.1 + 1e3, fake * 0.1 + 1e3, k_pr=1)
  exact = brute_prdc(real * 0.1 + 1e3, fake * 0.1 + 1e3, 1, 5)
  assert moved == pytest.approx(exact, abs=1e-12)


def test_prdc_far_from_zero():
  """What float32 without a centre would get wrong."""
  real, fake = features(120, 6), features(120, 6, seed=1, mean=0.5)
  real, fake = real * 1e-2 + 1e3, fake * 1e-2 + 1e3
  found = prdc(real.astype(np.float32), fake.astype(np.float32))
  expected = brute_prdc(real.astype(np.float32), fake.astype(np.float32), 3, 5)
  assert found == pytest.approx(expected, abs=1e-12)
  norms = (real.astype(np.float32) ** 2).sum(1)
  crude = norms[:, None] + norms[None] - 2 * np.float32(real @ real.T)
  exact = scipy.spatial.distance.cdist(real, real, 'sqeuclidean')
  assert np.abs(crude - exact).max() > 0.5 * exact.max()


@pytest.mark.parametrize('side', ['real', 'fake', 'both'])
def test_prdc_with_one_sample_far_out(side):
  """Every other decision stays what differences in float64 say."""
  for size in 10.0 ** np.arange(2, 13):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 300, 8))
    if side in ('real', 'both'):
      real[0] += size
    if side in ('fake', 'both'):
      fake[0] += size
    expected = brute_prdc(real, fake, 3, 5)
    assert prdc(real, fake) == pytest.approx(expected, abs=1e-12), size
    assert 0.8 < expected['precision'] < 1 and 0.8 < expected['recall'] < 1


def test_prdc_of_two_groups_far_apart(monkeypatch):
  """No centre is near both: all decisions are made of differences."""
  monkeypatch.setattr(blocks, 'ROWS', 64)
  monkeypatch.setattr(blocks, 'ELEMENTS', 1000)
  real, fake = np.random.default_rng(0).normal(size=(2, 150, 8))
  real[:75], fake[:75] = real[:75] + 1e9, fake[:75] + 1e9
  expected = brute_prdc(real, fake, 3, 5)
  assert prdc(real, fake) == pytest.approx(expected, abs=1e-12)
  both = np.concatenate([real, fake])
  found, squares = blocks.nearest(both, both, 5, itself=False)
  exact = scipy.spatial.distance.cdist(both, both, 'sqeuclidean')
  np.fill_diagonal(exact, np.inf)
  np.testing.assert_array_equal(found, np.argsort(exact, 1, 'stable')[:, :5])
  np.testing.assert_allclose(squares, np.sort(exact)[:, :5], rtol=1e-12)


def test_prdc_tells_quality_from_variety():
  real = features(120, 6)
  dull = prdc(real, real[::-1] * 0.2)
  assert dull['precision'] > 0.9 > 0.3 > dull['recall']
  wild = prdc(real, real * 5)
  assert wild['recall'] > 0.9 > 0.3 > wild['precision']


@pytest.mark.parametrize('itself', [True, False])
def test_nearest_against_scikit_learn(itself, monkeypatch):
  monkeypatch.setattr(blocks, 'ROWS', 32)
  x, y = features(90, 6), features(150, 6, seed=1)
  among = y if itself else x
  which, away = blocks.nearest(x, among, 5, itself=itself)
  model = sklearn.neighbors.NearestNeighbors(n_neighbors=5).fit(among)
  away_true, which_true = model.kneighbors(x if itself else None)
  np.testing.assert_array_equal(which, which_true)
  np.testing.assert_allclose(np.sqrt(away), away_true, rtol=1e-6)


def stable(x, among, k, itself=True):
  """The nearest, the earlier first where two are equally near."""
  exact = scipy.spatial.distance.cdist(x, among, 'sqeuclidean')
  if not itself:
    np.fill_diagonal(exact, np.inf)
  return np.argsort(exact, axis=1, kind='stable')[:, :k]


@pytest.mark.parametrize('itself', [True, False])
def test_of_equal_neighbours_the_earlier_is_first(itself, monkeypatch):
  monkeypatch.setattr(blocks, 'ROWS', 32)
  x = np.random.default_rng(0).integers(0, 3, (100, 4)).astype(np.float32)
  which, _ = blocks.nearest(x, x, 5, itself=itself)
  np.testing.assert_array_equal(which, stable(x, x, 5, itself))


def test_neighbours_far_out_are_in_their_order():
  """They differ by less than rounding; of the others none is as near."""
  among = np.random.default_rng(0).normal(size=(40, 2))
  order = [3, 0, 4, 1, 5, 2]
  among[10:16] = 1e6 + np.array([[0.9 + 1e-5 * i, 0] for i in order])
  which, squares = blocks.nearest(np.array([[1e6, 1e6]]), among, 6)
  assert which.tolist() == (10 + np.argsort(order)[None]).tolist()
  assert (np.diff(squares) > 0).all()
  away = np.random.default_rng(1).normal(size=(40, 2)) * 1e-2 + 1e7
  which, _ = blocks.nearest(away, away, 6, itself=False)
  np.testing.assert_array_equal(which, stable(away, away, 6, itself=False))


def test_neighbours_of_copies():
  train = np.random.default_rng(0).integers(0, 200, (50, 4, 4, 3), np.uint8)
  fake = train[[7, 31]].copy()
  fake[1, 0, 0, 0] += 48
  which, away = nearest_neighbours(train, fake, k=3)
  assert which[:, 0].tolist() == [7, 31]
  np.testing.assert_allclose(away[:, 0], [0, 48 / np.sqrt(48)], rtol=1e-12)
  exact = np.sqrt(((np.float64(train) - fake[0]) ** 2).mean((1, 2, 3)))
  np.testing.assert_allclose(away[0], np.sort(exact)[:3], rtol=1e-12)
  sheet = neighbours.join_neighbours(train, fake, which)
  assert sheet.shape == (8, 4, 4, 3) and sheet.dtype == np.uint8
  np.testing.assert_array_equal(sheet[4], fake[1])
  np.testing.assert_array_equal(sheet[5:], train[which[1]])
  for wrong in (dict(k=0), dict(k=51)):
    with pytest.raises(ValueError, match='k='):
      nearest_neighbours(train, fake, **wrong)
  with pytest.raises(ValueError, match='give one shape'):
    nearest_neighbours(train, fake[..., :1])


# Sliced Wasserstein distance


@pytest.mark.parametrize('n, m', [(50, 50), (50, 70), (6, 4), (1, 9)])
def test_distance_on_a_line_against_scipy(n, m):
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(n, 3)), rng.normal(0.5, 2, size=(m, 3))
  expected = [
    scipy.stats.wasserstein_distance(x[:, i], y[:, i]) for i in range(3)
  ]
  np.testing.assert_allclose(
    transport.distances_on_lines(x, y), expected, rtol=1e-12
  )


@pytest.mark.parametrize('dim', [2, 3])
def test_directions_are_uniform_on_the_sphere(dim):
  found = transport.draw_directions(np.random.default_rng(0), 20_000, dim)
  np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, rtol=1e-5)
  np.testing.assert_allclose(found.mean(axis=1), 0, atol=0.02)
  # Those of a cube, say, lean to its corners.
  fourth = 3 / (dim * (dim + 2))
  np.testing.assert_allclose((found**4).mean(axis=1), fourth, atol=0.01)


def test_sliced_distance_of_points_that_moved():
  """By v in the plane: |v| times the mean of |cos|, 2 / pi."""
  x = np.random.default_rng(0).normal(size=(500, 2))
  v = np.array([3.0, 4.0])
  found = swd_points(x, x[::-1] + v, directions=4096)['swd_points']
  assert found == pytest.approx(5 * 2 / np.pi, rel=0.03)
  assert swd_points(x[:, :1], x[:, :1] - 2)['swd_points'] == pytest.approx(2)


@pytest.mark.parametrize('height, width', [(28, 28), (64, 57)])
def test_pyramid_adds_up_to_the_image(height, width):
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (3, height, width, 2), np.uint8)
  levels = sliced_wasserstein._pyramids(x)
  sides = [level.shape[1] for level in levels]
  assert sides == [height // 2**i for i in range(len(sides))]
  assert 14 <= min(levels[-1].shape[1:3]) < 28
  up = jax.jit(sliced_wasserstein._double, static_argnums=(1, 2))
  again = levels[-1]
  for level in levels[-2::-1]:
    again = level + up(jnp.asarray(again), *level.shape[1:3])
  np.testing.assert_allclose(again, x, atol=1e-3)
  kernel = np.array([1, 4, 6, 4, 1]) / 16
  smooth = np.float64(x)
  for axis in (1, 2):
    smooth = scipy.ndimage.convolve1d(smooth, kernel, axis=axis, mode='mirror')
  down = np.asarray(jax.jit(sliced_wasserstein._halve)(jnp.float32(x)))
  np.testing.assert_allclose(down, smooth[:, ::2, ::2], rtol=1e-5)
  flat = jnp.full((1, -(-height // 2), -(-width // 2), 1), 7.0)
  np.testing.assert_allclose(up(flat, height, width), 7, rtol=1e-6)
  with pytest.raises(ValueError, match='7x7 or more'):
    swd(x[:, :6], x[:, :6])


def test_patches_are_parts_of_images_normalised():
  level = np.random.default_rng(0).normal(3, 2, (5, 9, 8, 2)).astype(np.float32)
  found = sliced_wasserstein._draw_patches(
    level, 40, np.random.default_rng(1), 'real'
  )
  assert found.shape == (200, 98)
  by_channel = found.reshape(-1, 2).astype(np.float64)
  np.testing.assert_allclose(by_channel.mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(by_channel.std(0), 1, rtol=1e-5)
  windows = np.lib.stride_tricks.sliding_window_view(level, (7, 7), (1, 2))
  windows = np.moveaxis(windows, 3, -1).reshape(5, -1, 98)
  places = []
  for patch in found[-40:]:  # of the last image, up to a scale and a shift
    fits = [
      all(np.corrcoef(w[c::2], patch[c::2])[0, 1] > 0.999999 for c in range(2))
      for w in windows[-1]
    ]
    assert sum(fits) == 1
    places.append(fits.index(True))
  assert set(places) == set(range(6))  # three rows, two columns


def test_swd_sees_at_which_scale_images_differ():
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (64, 32, 32, 1)).astype(np.uint8)
  smooth = scipy.ndimage.gaussian_filter(np.float64(x), (0, 1, 1, 0)) * 3
  smooth = np.uint8(np.clip(smooth - smooth.mean() + 128, 0, 255))
  found = swd(x, smooth, directions=32)
  like = swd(x[:32], x[32:], directions=32)
  assert set(found) == {'swd', 'swd_32', 'swd_16'}
  assert found['swd'] == pytest.approx((found['swd_32'] + found['swd_16']) / 2)
  assert found['swd_32'] > 3 * like['swd_32']


# Multi-scale structural similarity


def reference_ms_ssim(x, y):
  """Of two images (height, width, channels), with SciPy's filters."""
  x, y = np.float64(x), np.float64(y)
  weights = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
  count = sum(min(x.shape[:2]) // 2**i >= 11 for i in range(5)) or 1
  weights = np.array(weights[:count]) * sum(weights) / sum(weights[:count])
  g = np.exp(-((np.arange(11) - 5) ** 2) / 4.5)
  g /= g.sum()
  inner = (slice(5, -5), slice(5, -5))
  found = []
  for c in range(x.shape[2]):
    a, b, product = x[..., c], y[..., c], 1.0

    def mean(v):
      v = scipy.ndimage.convolve1d(v, g, axis=0)
      return scipy.ndimage.convolve1d(v, g, axis=1)[inner]

    for i, weight in enumerate(weights):
      ma, mb = mean(a), mean(b)
      cs = 2 * (mean(a * b) - ma * mb) + 58.5225
      cs /= mean(a * a) - ma**2 + mean(b * b) - mb**2 + 58.5225
      light = (2 * ma * mb + 6.5025) / (ma**2 + mb**2 + 6.5025)
      value = (cs * light if i == count - 1 else cs).mean()
      product *= max(value, 0) ** weight
      h, w = a.shape[0] // 2, a.shape[1] // 2
      a, b = (
        v[: 2 * h, : 2 * w].reshape(h, 2, w, 2).mean((1, 3)) for v in (a, b)
      )
    found.append(product)
  return np.mean(found)


@pytest.mark.parametrize('height, width', [(28, 28), (45, 67)])
def test_ms_ssim_against_the_formula(height, width):
  rng = np.random.default_rng(0)
  base = scipy.ndimage.gaussian_filter(
    rng.normal(size=(height, width, 2)), (3, 3, 0)
  )
  noise = rng.normal(size=(4, height, width, 2)) * 30
  x = np.uint8(np.clip(128 + 400 * base + noise, 0, 255))
  found = similarity.pair_similarity(x[[0, 0, 1]], x[[1, 0, 2]])
  expected = [
    reference_ms_ssim(x[i], x[j]) for i, j in [(0, 1), (0, 0), (1, 2)]
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-9)
  assert found[1] == pytest.approx(1) and 0.05 < found[0] < 0.95


def test_ms_ssim_scales_and_pairs(monkeypatch):
  sides = {8: 1, 11: 1, 21: 1, 28: 2, 32: 2, 64: 3, 128: 4, 176: 5, 1024: 5}
  assert {side: similarity.scales(side, side + 9) for side in sides} == sides
  seen = []
  monkeypatch.setattr(
    similarity,
    'pair_similarity',
    lambda x, y: seen.append((x, y)) or np.ones(len(x)),
  )
  x = np.broadcast_to(
    np.arange(5, dtype=np.uint8)[:, None, None, None], (5, 4, 4, 1)
  )
  ms_ssim(x, pairs=500)
  first, second = (side[:, 0, 0, 0] for side in seen[0])
  assert (first != second).all()
  assert len({*zip(first.tolist(), second.tolist())}) == 20


# Classifier two-sample tests


def test_c2st_of_like_other_and_copied_sets():
  x = features(400, 6)
  like = c2st(x, features(300, 6, seed=1))
  assert abs(like['c2st'] - 0.5) < 0.1 and abs(like['c2st_nn'] - 0.5) < 0.1
  assert like['c2st_p'] > 1e-3
  far = c2st(x, features(400, 6, seed=1) + 20)
  assert far['c2st'] == far['c2st_nn'] == 1 and far['c2st_p'] < 1e-6
  copied = c2st(x, x)
  assert copied['c2st_nn'] == 0 and copied['c2st'] < 0.6
  # One point of many: fakes keep to themselves, real samples do not.
  dull = c2st(x, x[:1] + features(400, 6, seed=1) * np.float32(1e-4))
  assert dull['c2st_nn_fake'] > 0.99 and dull['c2st_nn_real'] > 0.95


def test_c2st_asks_about_what_it_has_not_seen():
  """Of more dimensions than samples, it would know all that it has seen."""
  found = c2st(features(40, 60), features(40, 60, seed=1))
  assert 0.25 < found['c2st'] < 0.75


def test_c2st_draws_from_all_of_the_larger_side():
  """Whose samples may come in an order."""
  real, fake = features(200, 2), features(100, 2, seed=1)
  real[100:] += 20
  fake[50:] += 20
  for found in (c2st(real, fake), c2st(fake, real)):
    assert found['c2st'] < 0.65 and abs(found['c2st_nn'] - 0.5) < 0.15


def test_c2st_neighbours_against_scikit_learn():
  x, y = features(60, 6), features(60, 6, seed=1, mean=0.4)
  both, kind = np.concatenate([x, y]), np.repeat([0, 1], 60)
  near = sklearn.neighbors.NearestNeighbors(n_neighbors=1).fit(both)
  right = kind[near.kneighbors()[1][:, 0]] == kind
  found = c2st(x, y)
  assert found['c2st_nn_real'] == right[:60].mean()
  assert found['c2st_nn_fake'] == right[60:].mean()


def test_c2st_p_is_that_of_a_coin():
  """One-sided, of an accuracy on the held-out halves."""
  found = c2st(features(60, 6), features(60, 6, seed=1, mean=0.2))
  expected = scipy.stats.norm.sf((found['c2st'] - 0.5) / np.sqrt(1 / 240))
  assert found['c2st_p'] == pytest.approx(expected, rel=1e-9)
