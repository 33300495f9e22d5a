"""Scores: the same digits every time, and nothing scored that cannot be."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import data
from gan_jax.evaluation import references, sources
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.features import inception_weights, load, make_features
from gan_jax.figures.images import to_uint8
from gan_jax.metrics import Metric
from gan_jax.networks.base import Net, Networks
from gan_jax.runtime import sharding
from gan_jax.runtime.errors import ArgumentError

DIGIT = (8, 8, 1)


def linear(shape, classes=0):
  """Networks whose G is one matrix, and how often it was traced."""
  size, traced = math.prod(shape), []

  def init(key):
    keys = jax.random.split(key)
    return {
      'w': jax.random.normal(keys[0], (3, size)),
      'classes': jax.random.normal(keys[1], (max(classes, 1), size)),
    }, {}

  def apply(params, stats, z, *, train, key=None, label=None):
    traced.append(z.shape)
    x = z @ params['w']
    if label is not None:
      x = x + params['classes'][label]
    return jnp.tanh(x).reshape(-1, *shape), stats

  net = Net(init, apply)
  return Networks(net, net, 3, shape, classes=classes), traced


@pytest.fixture(scope='module')
def networks():
  return linear(DIGIT)[0]


@pytest.fixture(scope='module')
def params(networks):
  return networks.generator.init(jax.random.key(0))[0]


@pytest.fixture
def make(digits, networks):
  """Evaluators of generators of digits."""

  def make(metrics, networks=networks, **options):
    mesh = sharding.make_mesh(options.pop('devices', 1))
    options = {'samples': 50, 'features': 'pixels', **options}
    return Evaluator(digits, networks, metrics, mesh=mesh, **options)

  return make


def test_a_seed_fixes_every_digit(make, params):
  metrics = ['fid', 'swd', 'ms_ssim']
  evaluator = make(metrics)
  one = evaluator.score(params, {})
  assert one == make(metrics).score(params, {})
  other = evaluator.score(params, {}, seed=1)
  assert all(one[name] != other[name] for name in ('fid@pixels', 'swd'))
  assert all(type(value) is float for value in one.values())
  assert evaluator.primary == {
    'fid': 'fid@pixels',
    'swd': 'swd',
    'ms_ssim': 'ms_ssim',
  }
  assert evaluator.directions['swd_*'] == 'lower'


def drawn(evaluator, params, seed=3):
  x = np.concatenate([*map(np.asarray, evaluator.draw(params, {}, seed))])
  return x[: evaluator.samples]


def test_neither_batch_nor_number_nor_devices_choose_the_noise(make, params):
  whole = drawn(make(['ms_ssim']), params)
  assert whole.shape == (50, *DIGIT) and whole.dtype == np.float32
  assert len(np.unique(whole.reshape(50, -1), axis=0)) == 50
  for options in [{'batch': 7}, {'batch': 13, 'devices': 2}, {'devices': 4}]:
    other = drawn(make(['ms_ssim'], **options), params)
    np.testing.assert_allclose(other, whole, rtol=1e-5, atol=1e-6)
  few = drawn(make(['ms_ssim'], samples=20), params)
  np.testing.assert_allclose(few, whole[:20], rtol=1e-6)


@pytest.mark.parametrize(
  'devices', [pytest.param(2, marks=pytest.mark.slow), 4]
)
def test_scores_agree_on_any_devices(devices, make, params):
  metrics = ['fid', 'kid', 'swd']
  one = make(metrics).score(params, {})
  many = make(metrics, devices=devices, batch=12).score(params, {})
  for name, value in one.items():
    assert many[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.fixture(scope='module')
def stem(tmp_path_factory):
  """Random weights of the first three layers of the Inception."""
  rng = np.random.default_rng(0)
  arrays = {}
  for name in ('conv', 'conv_1', 'conv_2'):
    shape = inception_weights.LAYERS[name].shape
    scale = np.sqrt(2 / np.prod(shape[:3]))
    arrays[f'{name}/w'] = rng.normal(0, scale, shape).astype(np.float32)
    arrays[f'{name}/b'] = rng.normal(0, 0.1, shape[3]).astype(np.float32)
  path = tmp_path_factory.mktemp('stem') / 'stem.npz'
  np.savez(path, **arrays)
  return str(path)


@pytest.mark.slow
@pytest.mark.parametrize('features', ['classifier', 'inception-64'])
def test_networks_score_alike_in_any_batch_on_any_devices(
  features, make, params, stem, monkeypatch
):
  """To 1e-4 of the score, as `evaluate` has it."""
  monkeypatch.setattr(
    references, 'cached_features', lambda root, facts, make: make()
  )
  options = {'features': features, 'samples': 24}
  metrics = ['fid', 'kid', 'prdc']
  if features == 'classifier':
    metrics.append('inception_score')
  else:
    options['weights'] = stem
  one = make(metrics, **options).score(params, {})
  assert one[f'fid@{make(metrics, **options).features.name}'] > 1e-2
  for devices, batch in ((1, 5), (2, 10), (4, 0)):
    evaluator = make(metrics, devices=devices, batch=batch, **options)
    other = evaluator.score(params, {})
    for name, value in one.items():
      assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_it_compiles_once(make, params):
  networks, traced = linear(DIGIT)
  evaluator = make(['fid'], networks, batch=8)
  for seed, scale in enumerate((1.0, 0.5, 2.0)):
    scaled = jax.tree.map(lambda x, s=scale: s * x, params)
    evaluator.score(scaled, {}, seed=seed)
  assert len(traced) == 1


def by_value(classes, batch=512):
  """Features whose class is the value of the first pixel."""

  def apply(weights, x, outputs):
    chances = jax.nn.one_hot(x[:, 0, 0, 0], classes)
    return {name: chances for name in outputs}

  return make_features(
    'value', classes, apply, {}, {}, (2, 2, 1), classes=classes, batch=batch
  )


def test_a_batch_is_what_the_features_ask_for():
  dataset, mesh = numbered(), sharding.make_mesh(1)
  for batch, rows in ((0, 3), (4, 4)):
    evaluator = Evaluator(
      dataset,
      None,
      ['fid'],
      samples=5,
      features=by_value(4, batch=3),
      mesh=mesh,
      batch=batch,
    )
    assert evaluator.rows == rows


def test_classes_are_drawn_in_turn(make):
  networks, _ = linear(DIGIT, classes=10)
  params, _ = networks.generator.init(jax.random.key(1))
  options = dict(samples=23, batch=5, class_sampling='uniform')
  evaluator = make(['ms_ssim'], networks, **options)
  assert evaluator.protocol['class_sampling'] == 'uniform'
  x = drawn(evaluator, params)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(
    jax.random.key(3), jnp.arange(23)
  )
  z = jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys)
  expected, _ = networks.generator.apply(
    params, {}, z, train=False, label=jnp.arange(23) % 10
  )
  np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)


def test_a_perfect_generator_of_unbalanced_classes():
  """Of classes that are 9:1 apart in the data, asked for alike or evenly."""
  counts = (900, 100)

  def make(z, label):
    return z + 10.0 * label[:, None]

  def apply(params, stats, z, *, train, key=None, label=None):
    return make(z, label), stats

  net = Net(lambda key: ({}, {}), apply)
  networks = Networks(net, net, 2, (2,), classes=2)
  labels = np.repeat([0, 1], counts)
  z = np.random.default_rng(0).normal(size=(1000, 2))
  dataset = data.as_dataset((np.float32(make(z, labels)), labels))
  scores, protocols = {}, {}
  for word in ('data', 'uniform'):
    evaluator = Evaluator(
      dataset, networks, ['fid'], samples=1000, class_sampling=word
    )
    scores[word] = evaluator.score({}, {})['fid']
    protocols[word] = evaluator.protocol
  assert scores['data'] < 0.2 and scores['uniform'] > 30
  told = {k: v for k, v in protocols['data'].items() if 'class' in k}
  assert told['class_sampling'] == 'data' and len(told['class_counts']) == 16
  assert protocols['uniform']['class_sampling'] == 'uniform'
  # What the networks say themselves comes before what the reference has.
  own = networks._replace(class_counts=(1, 3))
  other = Evaluator(dataset, own, ['fid'], samples=1000).protocol
  assert other['class_counts'] != told['class_counts']
  with pytest.raises(ArgumentError, match='`class_sampling=even`: use data or'):
    Evaluator(dataset, networks, ['fid'], class_sampling='even')


def test_parameters_that_are_not_finite_score_nothing(make, params):
  evaluator = make(['fid', 'swd'])
  scores = evaluator.score(jax.tree.map(lambda x: x * np.nan, params), {})
  assert np.isnan([*scores.values()]).all() and 'swd' in scores
  assert 'not finite' in evaluator.unscored['swd']
  fine = evaluator.score(params, {})
  assert np.isfinite([*fine.values()]).all() and not evaluator.unscored


def test_finite_are_all_samples_and_no_padding(capsys):
  """And a metric is told the seed, and sees as many as were asked for."""

  def compute(real, fake, *, seed):
    return {'seen': float(len(fake)), 'of': float(seed)}

  metric = Metric('seen', compute, {'seen': '', 'of': ''}, sees='points')
  evaluator = Evaluator(
    data.load('ring'),
    None,
    [metric],
    samples=10,
    batch=4,
    mesh=sharding.make_mesh(1),
  )
  x = np.zeros((12, 2), np.float32)
  for row in (10, 11, 0, 3, 9):
    bad = x.copy()
    bad[row] = np.inf
    batches = (bad[i : i + 4] for i in (0, 4, 8))
    scores = evaluator.score_batches(batches, seed=7)
    if row >= 10:
      assert scores == {'seen': 10.0, 'of': 7.0} and not evaluator.unscored
    else:
      assert np.isnan([*scores.values()]).all()
      assert 'not finite' in evaluator.unscored['seen']
  # What was said of samples before is not said of these.
  assert evaluator.score_samples(x[:10]) == {'seen': 10.0, 'of': 0.0}


def test_images_are_scored_as_the_bytes_that_are_written_of_them():
  """By a fixed range, rounded and clipped: whatever G makes of its range."""
  seen = []

  def compute(real, fake, *, seed):
    seen.append(fake)
    return {'own': 0.0}

  metric = Metric('own', compute, {'own': ''}, sees='images', reads_real=False)
  evaluator = Evaluator(
    numbered(), None, [metric], samples=6, mesh=sharding.make_mesh(1)
  )
  x = np.linspace(-1.2, 0.3, 24, dtype=np.float32).reshape(6, 2, 2, 1)
  evaluator.score_batches([x])
  np.testing.assert_array_equal(seen[0], to_uint8(x))
  assert seen[0].min() == 0 and 150 < seen[0].max() < 180


def test_features_of_real_samples_are_kept_by_all_that_they_depend_on(
  monkeypatch,
):
  kept = []

  def cached(root, facts, make):
    kept.append(facts)
    return make()

  monkeypatch.setattr(references, 'cached_features', cached)
  features = by_value(4)
  for own, count in (
    (features, 5),
    (features._replace(digest='other weights'), 5),
    (features, 4),
  ):
    evaluator = Evaluator(
      numbered(),
      None,
      ['fid'],
      samples=5,
      real_samples=count,
      features=own,
      mesh=sharding.make_mesh(1),
    )
    assert len(evaluator.reference['features']) == count
  assert len({str(facts) for facts in kept}) == 3


def test_samples_without_a_score_cost_only_the_metric_that_has_none(
  make, params
):
  evaluator = make(['swd', 'fid'])
  grey = jax.tree.map(jnp.zeros_like, params)  # one grey image again and again
  scores = evaluator.score(grey, {})
  assert np.isfinite(scores['fid@pixels']) and np.isnan(scores['swd'])
  assert 'without detail' in evaluator.unscored['swd']
  with pytest.raises(ArgumentError, match='`metrics=swd`: .*detail'):
    evaluator.score_samples(np.full((50, *DIGIT), 128, np.uint8))


def test_the_truth_scores_well_and_a_stranger_badly():
  networks, _ = linear((2,))
  ring = data.load('ring')
  evaluator = Evaluator(ring, networks, ['modes', 'fid'], samples=800)
  truth = np.asarray(ring.sample(jax.random.key(5), 800))
  good = evaluator.score_samples(truth)
  assert good['modes'] == 8 and good['high_quality'] > 0.95
  assert good['fid'] < 0.01
  bad = evaluator.score(networks.generator.init(jax.random.key(0))[0], {})
  assert bad['high_quality'] < 0.1 and bad['fid'] > 3 * good['fid']
  assert evaluator.protocol['features'] == 'points'


def numbered(classes=4):
  """Images full of their class, twice as many of class 0."""
  labels = np.array([0, *range(classes)], np.int32)
  images = labels.astype(np.uint8).reshape(-1, 1, 1, 1) * np.ones(
    (2, 2, 1), np.uint8
  )
  return data.SampleSet(
    'numbered',
    (2, 2, 1),
    images,
    'mark',
    classes=tuple(map(str, range(classes))),
    read_labels=lambda: labels,
  )


def test_modes_of_images_are_their_classes():
  dataset = numbered()

  def make(features):
    return Evaluator(
      dataset, None, ['class_modes'], samples=5, features=features
    )

  evaluator = make(by_value(4))
  scores = evaluator.score_samples(dataset.array())
  assert scores['modes@value'] == 4
  assert scores['reverse_kl@value'] == pytest.approx(0, abs=1e-9)
  collapsed = evaluator.score_samples(np.full((8, 2, 2, 1), 3, np.uint8))
  assert collapsed['modes@value'] == 1
  assert collapsed['reverse_kl@value'] == pytest.approx(np.log(5))
  with pytest.raises(ArgumentError, match='7 classes and numbered has 4'):
    make(by_value(7))
  faces = dataclasses.replace(dataset, classes=(), read_labels=None)
  with pytest.raises(ArgumentError, match='needs classes, and numbered has no'):
    Evaluator(faces, None, ['class_modes'], samples=5)


# Own metrics


def range_gap(real, fake, *, seed, protocol, labels):
  if fake.max() > 200:
    raise ValueError('too bright')
  assert protocol['samples'] == 5 and len(labels) == 5
  return {'range_gap': float(np.ptp(real) - np.ptp(fake))}


def test_a_metric_of_ones_own_is_like_any_other():
  metric = Metric(
    'range_gap',
    range_gap,
    {'range_gap': 'lower'},
    needs=('protocol', 'labels'),
    version='7',
  )
  dataset = numbered()
  evaluator = Evaluator(dataset, None, [metric, 'ms_ssim'], samples=5)
  assert evaluator.protocol['metrics'] == {'range_gap': '7', 'ms_ssim': '1'}
  scores = evaluator.score_samples(dataset.array())
  assert scores['range_gap'] == 0 and 'ms_ssim' in scores
  with pytest.raises(ArgumentError, match='range_gap`: too bright'):
    evaluator.score_samples(dataset.array() + np.uint8(250))


# The protocol, and what is cached


def test_the_protocol_says_what_settings_of_jax_are_not_its_defaults(make):
  assert 'numerics' not in make(['fid']).protocol
  with jax.default_matmul_precision('bfloat16'):
    protocol = make(['fid']).protocol
  assert protocol['numerics'] == {'jax_default_matmul_precision': 'bfloat16'}


def test_the_protocol_says_all_of_it(make, digits):
  protocol = json.loads(json.dumps(make(['fid'], real_samples=90).protocol))
  assert protocol['metrics'] == {'fid': '1'}
  assert protocol['samples'] == 50 and protocol['real_samples'] == 90
  assert protocol['reference_fingerprint'] == digits.fingerprint
  assert protocol['features'] == 'pixels'
  assert len(protocol['features_digest']) == 64
  assert protocol['range'].startswith('uint8')


def test_real_samples_stand_for_their_set():
  few = references.choose_records(1000, 50)
  assert len(set(few.tolist())) == 50 and (np.diff(few) > 0).all()
  np.testing.assert_array_equal(few, references.choose_records(1000, 50))
  assert few.max() > 900 and few.min() < 100  # from all over the set
  np.testing.assert_array_equal(references.choose_records(7, 9), np.arange(7))


class Counted:
  """Images that say how often they were read."""

  def __init__(self, images):
    self.images, self.reads = images, 0

  def __len__(self):
    return len(self.images)

  def __getitem__(self, index):
    return self.images[index]

  def array(self):
    self.reads += 1
    return self.images


def test_features_of_real_samples_are_cached(digits, tmp_path, capsys):
  source = Counted(digits.array())
  dataset = dataclasses.replace(digits, source=source, cache=None)
  cache = tmp_path / references.FOLDER

  def reference(features='pixels', **options):
    return Evaluator(
      dataset,
      None,
      ['fid'],
      samples=50,
      features=features,
      data_dir=str(tmp_path),
      **options,
    ).reference['features']

  first = reference()
  (path,) = cache.iterdir()
  np.testing.assert_array_equal(reference(), first)
  assert source.reads == 1
  reference(real_samples=60)
  reference(features='random-8')
  assert source.reads == 3 and len([*cache.iterdir()]) == 3
  path.write_bytes(path.read_bytes()[:-100])
  np.testing.assert_array_equal(reference(), first)
  assert source.reads == 4 and 'is damaged' in capsys.readouterr().err
  np.testing.assert_array_equal(reference(), first)  # mended
  assert source.reads == 4


# What cannot be scored


PIXELS = {'features': 'pixels'}
REFUSED = {
  'unknown metric': ('digits', ['fidd'], PIXELS, 'fidd: did you mean fid'),
  'twice': ('digits', ['fid', 'fid'], PIXELS, 'twice'),
  'none': ('digits', [], PIXELS, '`metrics=`: name some of'),
  'no features': ('digits', ['fid'], {}, '`features=`: say what fid'),
  'unknown features': ('digits', ['fid'], {'features': 'inceptio'}, 'inceptio'),
  'missing weights': (
    'digits',
    ['fid'],
    {'features': 'inception-768', 'weights': 'nowhere.npz'},
    'nowhere.npz',
  ),
  'no classes': ('digits', ['inception_score'], PIXELS, 'use a classifier'),
  'a density metric': ('digits', ['density'], PIXELS, 'is a set of images'),
  'an image metric': ('ring', ['ms_ssim'], {}, 'ring has points'),
  'features of points': ('ring', ['fid'], PIXELS, 'leave it out'),
  'no validation': ('digits', ['parzen'], {}, '`validation=`: name the real'),
  'too few': ('digits', ['kid'], {'samples': 3, **PIXELS}, '`samples=3`'),
  'too few real': (
    'digits',
    ['kid'],
    {'real_samples': 3, **PIXELS},
    '`real_samples=3`',
  ),
  'too many real': (
    'digits',
    ['fid'],
    {'real_samples': 1798, **PIXELS},
    '`real_samples=1798`: digits has 1797',
  ),
}


@pytest.mark.parametrize('case', sorted(REFUSED))
def test_what_cannot_be_scored_is_refused(case, digits):
  name, metrics, options, message = REFUSED[case]
  dataset = digits if name == 'digits' else data.load(name)
  with pytest.raises(ArgumentError, match=message):
    Evaluator(dataset, None, metrics, **{'samples': 50, **options})


def test_what_no_generator_could_be_scored_with_is_no_fault_of_its_samples():
  evaluator = Evaluator(data.load('delta'), None, ['density'], samples=50)
  with pytest.raises(ArgumentError, match='`metrics=density`.*delta'):
    evaluator.score_samples(np.zeros((50, 1), np.float32))


RNG = np.random.default_rng(0)
GOOD = RNG.integers(0, 256, (6, 8, 8, 1), np.uint8)
BAD_ARRAYS = {
  'floats': (GOOD / 255, 'float64 from 0'),
  'all NaN': (np.full((6, 8, 8, 1), np.nan), 'float64, not finite in 6 of 6'),
  'a NaN': (
    np.where(np.arange(6)[:, None, None, None] == 2, np.nan, GOOD / 256),
    r'float64 from 0 to 0\.\d+, not finite in 1 of 6; give uint8',
  ),
  'one image': (GOOD[0], 'shape'),
  'empty': (GOOD[:0], 'shape'),
  'other size': (np.repeat(GOOD, 2, axis=1), r'\(16, 8, 1\).*\(8, 8, 1\)'),
  'colour': (np.repeat(GOOD, 3, axis=3), r'\(8, 8, 3\)'),
  'constant': (np.repeat(GOOD[:1], 5, axis=0), 'all 5 samples are the same'),
  'NaN points': (np.full((5, 2), np.nan, np.float32), 'not finite'),
}


@pytest.mark.parametrize('case', sorted(BAD_ARRAYS))
def test_bad_arrays_are_refused(case):
  x, message = BAD_ARRAYS[case]
  with pytest.raises(ArgumentError, match=f'`images=x.npz`: .*{message}'):
    sources.check_samples(x, DIGIT, 'images', 'x.npz')
  assert sources.check_samples(GOOD, DIGIT, 'images', '') is GOOD


def test_networks_features_and_samples_by_name(networks, digits, make):
  """Features are taken as an object, too; samples need no networks."""
  pixels = load('pixels', sample_shape=DIGIT)
  x = digits.array()[:50]
  assert make(['fid'], None, features=pixels).score_samples(x) == make(
    ['fid'], None
  ).score_samples(x)
  with pytest.raises(ArgumentError, match='`networks=None`'):
    make(['fid'], None).score({}, {})
