"""What every metric promises, whichever it is; a new entry is tested too."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import data, metrics
from gan_jax.metrics import METRICS, blocks
from gan_jax.metrics.arrays import SetupError

N = 120
TRUTH = data.load('ring')
every = pytest.mark.parametrize('name', METRICS)
# Which samples are drawn, or dealt to which part, depends on their places.
BY_PLACE = {'kid', 'inception_score', 'swd', 'ms_ssim', 'c2st'}
# First value of like sets, where chance leaves nothing of it open.
BEST = {
  'fid': 0.0,
  'prdc': 1.0,
  'swd': 0.0,
  'swd_points': 0.0,
  'inception_score': 5.0,
  'modes': 8.0,
}
# Less work where the default is a lot.
FEW = {
  'kid': {'subsets': 5},
  'swd': {'patches': 8, 'directions': 32},
  'swd_points': {'directions': 32},
  'ms_ssim': {'pairs': 100},
}


def good(sees, n=N, seed=0):
  """Samples as they should be: for metrics without a reference, the best."""
  rng = np.random.default_rng(seed)
  if sees == 'features':
    return rng.normal(size=(n, 6)).astype(np.float32)
  if sees == 'probabilities':
    # A round of classes for each of ten splits, whatever the order.
    return np.eye(5, dtype=np.float32)[np.arange(n) % 5]
  if sees == 'images':
    return rng.integers(0, 256, (n, 16, 16, 3), np.uint8)
  angles = np.arange(n) * np.pi / 4  # a round of modes
  at = np.stack([np.cos(angles), np.sin(angles)], axis=1)
  return np.float32(at + 0.01 * rng.normal(size=(n, 2)))


def bad(sees, n=N, seed=0):
  """Samples of another distribution."""
  x = good(sees, n, seed)
  if sees == 'features':
    return x * np.float32(0.5) + np.float32(2)
  if sees == 'probabilities':
    return np.full_like(x, 0.2)
  if sees == 'images':
    return np.repeat(x[:, :, :1], 16, axis=2) // np.uint8(2)
  return x * np.float32(0.5)


def score(name, fake, real=None, **keywords):
  metric = METRICS[name]
  if metric.reference and real is None:
    real = good(metric.sees, seed=1)
  if metric.truth:
    keywords['truth'] = TRUTH
  return metric.compute(real, fake, **FEW.get(name, {}) | keywords)


@every
def test_plain_finite_floats_and_the_same_again(name):
  fake = good(METRICS[name].sees)
  found = score(name, fake, seed=3)
  assert found and all(type(v) is float for v in found.values())
  json.dumps(found, allow_nan=False)
  assert score(name, fake.copy(), seed=3) == found
  assert next(iter(found)).startswith(('precision', name, 'jsd'))


@every
def test_the_names_it_returns_are_those_it_declares(name):
  metric = METRICS[name]
  declared = metric.scores
  assert set(declared.values()) <= {'lower', 'higher', ''}
  found = [*score(name, good(metric.sees))]
  stars = [word[:-1] for word in declared if word.endswith('*')]
  short = [
    next((f'{s}*' for s in stars if word.startswith(s)), word) for word in found
  ]
  assert [*dict.fromkeys(short)] == [*declared]
  for word, said in zip(found, short, strict=True):
    assert metric.direction(f'{word}@pixels') == declared[said]
  assert metric.direction('none') is None
  assert metric.better == metric.direction(found[0])


@every
def test_it_leaves_its_arrays_and_jax_as_they_were(name):
  fake = good(METRICS[name].sees)
  real = good(METRICS[name].sees, seed=1)
  before = fake.copy(), real.copy()
  score(name, fake, real)
  np.testing.assert_array_equal(fake, before[0])
  np.testing.assert_array_equal(real, before[1])
  assert jnp.zeros(()).dtype == jnp.float32 and not jax.config.jax_enable_x64


@every
def test_order_of_samples(name):
  metric = METRICS[name]
  fake, real = good(metric.sees), good(metric.sees, seed=1)
  a, b = score(name, fake, real), score(name, fake[::-1], real[::-1])
  if name in BY_PLACE:
    first = next(iter(a))
    assert a[first] == pytest.approx(b[first], rel=0.2, abs=0.1)
  else:
    assert a == pytest.approx(b, rel=1e-5, abs=1e-9)


@every
def test_like_sets_score_best(name):
  metric = METRICS[name]
  x = good(metric.sees, n=200)
  alike, other = score(name, x, x), score(name, bad(metric.sees, n=200), x)
  first = next(iter(alike))
  if name in BEST:
    if name == 'inception_score':  # 20 samples of a split are not 4 a class
      x = np.tile(np.eye(5), (20, 1))
      alike = metric.compute(None, x, splits=1)
    assert alike[first] == pytest.approx(BEST[name], abs=1e-9)
  if metric.better == 'higher':
    assert alike[first] > other[first]
  else:  # '' too: what is alike is nearer to what the data have
    assert alike[first] < other[first]


@every
def test_no_fewer_samples_than_it_says(name):
  metric = METRICS[name]
  n = metric.minimum
  few, enough = good(metric.sees, n=n - 1), good(metric.sees, n=n)
  real = good(metric.sees, n=n, seed=1)
  assert all(map(math.isfinite, score(name, enough, real).values()))
  with pytest.raises(ValueError, match=f'fake has {n - 1} samples.*{n}'):
    score(name, few, real)
  if metric.reference:
    with pytest.raises(ValueError, match=f'real has {n - 1} samples.*{n}'):
      score(name, enough, few)


@every
def test_without_a_reference_nothing_is_read(name):
  if METRICS[name].reference:
    pytest.skip('reads real samples')
  fake = good(METRICS[name].sees)
  assert score(name, fake) == score(name, fake, real=object())


@every
def test_wrong_shapes_and_numbers_are_named(name):
  metric = METRICS[name]
  fake = good(metric.sees)
  with pytest.raises(ValueError, match='fake has shape'):
    score(name, fake.reshape(-1))
  broken = fake.astype(np.float32)
  broken[7].flat[0] = np.nan
  with pytest.raises(ValueError, match='fake has 1 samples with NaN'):
    score(name, broken)
  with pytest.raises(ValueError, match='give real numbers'):
    score(name, fake.astype(complex))
  if metric.reference:
    with pytest.raises(ValueError, match='real has 1 samples with NaN'):
      score(name, fake, real=broken)
    with pytest.raises(ValueError, match='give (both|one shape)'):
      score(name, fake, real=fake[..., :1])
  if metric.truth:
    with pytest.raises(ValueError, match='1 dimensions and ring 2'):
      score(name, fake[:, :1])


IMAGES = [name for name, m in METRICS.items() if m.sees == 'images']


@pytest.mark.parametrize('name', IMAGES)
def test_images_are_bytes(name):
  x = good('images')
  for wrong in (x.astype(np.float32) / 255, x.astype(np.int64)):
    with pytest.raises(ValueError, match='give uint8'):
      score(name, wrong)


@pytest.mark.parametrize('name', IMAGES)
def test_odd_small_and_grey_images(name):
  x = good('images')[:40, :9, :12, :1]
  assert all(map(math.isfinite, score(name, x, x[::-1]).values()))


def test_probabilities_are_distributions():
  p = good('probabilities')
  with pytest.raises(ValueError, match='not logits'):
    score('inception_score', 5 * p - 1)
  with pytest.raises(ValueError, match='do not sum to 1'):
    score('inception_score', p * 0.5)
  with pytest.raises(ValueError, match='1 class'):
    score('inception_score', p[:, :1])


def test_constant_samples():
  """An error where a score has no meaning, a bad score where it has."""
  grey = np.full((N, 16, 16, 3), 128, np.uint8)
  for real, fake in [(grey, good('images')), (good('images'), grey)]:
    with pytest.raises(ValueError, match='without detail') as told:
      metrics.swd.swd(real, fake)
    assert (told.type is SetupError) == (real is grey)
  assert score('ms_ssim', grey)['ms_ssim'] == pytest.approx(1)
  same = np.tile(good('features', 1), (N, 1))
  with pytest.raises(ValueError, match='all real samples are the same'):
    score('prdc', good('features'), same)
  found = score('prdc', same)
  assert found['recall'] == 0 and found['coverage'] < 0.1
  assert score('fid', same)['fid'] > 1
  assert score('c2st', same)['c2st_nn_fake'] > 0.9
  # The classifier tells a point from a cloud only by where it lies.
  assert 0 <= score('c2st', same)['c2st'] <= 1


def test_truth_that_a_metric_cannot_use():
  x = good('points')
  with pytest.raises(ValueError, match='spiral has no separate modes'):
    metrics.modes.modes(None, x, truth=data.load('spiral'))
  with pytest.raises(ValueError, match='delta is no density'):
    metrics.density.density(None, x[:, :1], truth=data.load('delta'))


@pytest.mark.parametrize('name', ['prdc', 'c2st'])
def test_blocks_do_not_show(name, monkeypatch):
  """Many padded blocks say what one says."""
  real, fake = good('features', 75, seed=1), bad('features', 91)
  whole = score(name, fake, real)
  monkeypatch.setattr(blocks, 'ROWS', 32)
  assert score(name, fake, real) == whole


def test_blocks_are_compiled_once(monkeypatch):
  monkeypatch.setattr(blocks, 'ROWS', 32)
  score('prdc', good('features', 70), good('features', 70, seed=1))
  counts = [f._cache_size() for f in (metrics.prdc._cross, blocks._nearer)]
  score('prdc', good('features', 101), good('features', 77, seed=1))
  assert counts == [
    f._cache_size() for f in (metrics.prdc._cross, blocks._nearer)
  ]
