"""Scores: the same digits every time, and nothing scored that cannot be."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import data
from gan_jax import features as feature_networks
from gan_jax.config.schema import Config
from gan_jax.evaluation import references, sources
from gan_jax.evaluation.evaluator import EvaluationError, Evaluator
from gan_jax.features import inception_layout
from gan_jax.features.base import make_features
from gan_jax.runtime import sharding
from gan_jax.training import setup

TOY = dict(network='mlp', width=8, batch_size=4, devices=1, steps=2)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A data root in which `digits` is prepared."""
  return str(tmp_path_factory.mktemp('tfds'))


def parts_of(root, **values):
  config = Config(**{**TOY, 'data_dir': root, **values}).validate()
  return setup.build(config)


@pytest.fixture(scope='module')
def digits(root):
  parts = parts_of(root, dataset='digits')
  return parts, parts.init()


@pytest.fixture(scope='module')
def ring(root):
  parts = parts_of(root, dataset='ring')
  return parts, parts.init()


def evaluator_of(run, metrics, root, **how):
  parts, _ = run
  how = {'samples': 50, 'mesh': parts.mesh, 'data_dir': root, **how}
  return Evaluator(parts.dataset, parts.networks, metrics, **how)


def score(run, metrics, root, seed=0, **how):
  evaluator = evaluator_of(run, metrics, root, **how)
  _, state = run
  return evaluator.score(state.g.params, state.g.stats, seed=seed)


PIXELS = {'features': 'pixels'}


def test_a_seed_fixes_every_digit(digits, root):
  metrics = ['fid', 'swd', 'ms_ssim']
  one = score(digits, metrics, root, **PIXELS)
  assert one == score(digits, metrics, root, **PIXELS)
  other = score(digits, metrics, root, seed=1, **PIXELS)
  assert all(one[name] != other[name] for name in ('fid', 'swd'))
  assert all(type(value) is float for value in one.values())


def images_of(run, root, **how):
  evaluator = evaluator_of(run, ['ms_ssim'], root, **how)
  _, state = run
  seen, fine = evaluator.draw(state.g.params, state.g.stats, 3)
  assert fine
  return seen['images']


def test_neither_batch_nor_number_nor_devices_choose_the_noise(digits, root):
  whole = images_of(digits, root)
  assert whole.shape == (50, 8, 8, 1) and whole.dtype == np.uint8
  assert len(np.unique(whole.reshape(50, -1), axis=0)) == 50
  for how in [
    {'batch': 7},
    {'batch': 13, 'mesh': sharding.make_mesh(2)},
    {'mesh': sharding.make_mesh(4)},
  ]:
    other = images_of(digits, root, **how)
    # A sum in another order may round a pixel to the next value.
    away = np.abs(other.astype(int) - whole)
    assert away.max() <= 1 and (away > 0).mean() < 1e-3
  np.testing.assert_array_equal(images_of(digits, root, samples=20), whole[:20])


@pytest.mark.parametrize(
  'devices', [pytest.param(2, marks=pytest.mark.slow), 4]
)
def test_scores_agree_on_any_devices(digits, root, devices):
  metrics = ['fid', 'kid', 'swd']
  one = score(digits, metrics, root, **PIXELS)
  mesh = sharding.make_mesh(devices)
  many = score(digits, metrics, root, mesh=mesh, batch=12, **PIXELS)
  for name, value in one.items():
    assert many[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.fixture(scope='module')
def stem(tmp_path_factory):
  """Random weights of the first three layers of the Inception."""
  rng = np.random.default_rng(0)
  arrays = {}
  for name in ('conv', 'conv_1', 'conv_2'):
    shape = inception_layout.LAYERS[name].shape
    scale = np.sqrt(2 / np.prod(shape[:3]))
    arrays[f'{name}/w'] = rng.normal(0, scale, shape).astype(np.float32)
    arrays[f'{name}/b'] = rng.normal(0, 0.1, shape[3]).astype(np.float32)
  path = tmp_path_factory.mktemp('stem') / 'stem.npz'
  np.savez(path, **arrays)
  return str(path)


@pytest.mark.slow
@pytest.mark.parametrize('features', ['classifier', 'inception-64'])
def test_networks_score_alike_in_any_batch_on_any_devices(
  features, digits, root, stem, monkeypatch
):
  """To 1e-4 of the score, as `evaluate` has it."""
  monkeypatch.setattr(references, 'kept', lambda folder, facts, make: make())
  how = {'features': features, 'samples': 24}
  metrics = ['fid', 'kid', 'prdc']
  if features == 'classifier':
    metrics.append('inception_score')
  else:
    how['weights'] = stem
  one = score(digits, metrics, root, mesh=sharding.make_mesh(1), **how)
  assert one['fid'] > 1e-2
  for devices, batch in ((1, 5), (2, 10), (4, 0)):
    mesh = sharding.make_mesh(devices)
    other = score(digits, metrics, root, mesh=mesh, batch=batch, **how)
    for name, value in one.items():
      assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_it_compiles_once(digits, root):
  evaluator = evaluator_of(digits, ['fid'], root, batch=8, **PIXELS)
  _, state = digits
  for seed, player in enumerate((state.g, state.ema, state.g)):
    evaluator.score(player.params, player.stats, seed=seed)
  assert evaluator.generate._cache_size() == 1
  assert evaluator._view._see._cache_size() == 1


def test_reading_ahead_loses_no_batch(digits, root, monkeypatch):
  evaluator = evaluator_of(digits, ['fid'], root, batch=8, **PIXELS)
  x = np.random.default_rng(0).integers(0, 256, (29, 8, 8, 1), np.uint8)
  waited = evaluator.view(x)['features']
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  np.testing.assert_array_equal(evaluator.view(x)['features'], waited)
  assert len(waited) == 29


def test_a_batch_is_what_the_features_ask_for(digits, root, monkeypatch):
  network = feature_networks.load('pixels', image_shape=(8, 8, 1))
  small = network._replace(batch=6)
  monkeypatch.setattr(feature_networks, 'load', lambda *a, **k: small)
  assert evaluator_of(digits, ['fid'], root, **PIXELS)._batch == 6
  assert evaluator_of(digits, ['fid'], root, batch=9, **PIXELS)._batch == 9


def test_classes_are_drawn_in_turn(root):
  parts = parts_of(root, dataset='digits', conditioning='embedding')
  state = parts.init()
  run = parts, state
  found = images_of(run, root, samples=23, batch=5)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(
    jax.random.key(3), jnp.arange(23)
  )
  z = jax.vmap(lambda k: parts.networks.sample_latent(k, 1)[0])(keys)
  x, _ = parts.networks.generator.apply(
    state.g.params, state.g.stats, z, train=False, label=jnp.arange(23) % 10
  )
  wanted = np.rint((np.asarray(x) + 1) * 127.5)
  assert np.abs(found - wanted).max() <= 1


def test_parameters_that_are_not_finite_score_nothing(digits, root):
  evaluator = evaluator_of(digits, ['fid', 'swd'], root, **PIXELS)
  _, state = digits
  bad = jax.tree.map(lambda x: x * np.nan, state.g.params)
  found = evaluator.score(bad, state.g.stats)
  assert np.isnan([*found.values()]).all()
  assert 'not finite' in evaluator.unscored['swd']
  fine = evaluator.score(state.g.params, state.g.stats)
  assert [*fine] == [*found] and not evaluator.unscored


def test_samples_without_a_score_cost_only_the_metric_that_has_none(
  digits, root, monkeypatch
):
  evaluator = evaluator_of(digits, ['swd', 'fid'], root, **PIXELS)
  _, state = digits
  fine = evaluator.score(state.g.params, state.g.stats)
  grey = np.full((50, 8, 8, 1), 128, np.uint8)
  seen = evaluator.view(grey)
  monkeypatch.setattr(evaluator, 'draw', lambda *a: (seen, True))
  found = evaluator.score(state.g.params, state.g.stats)
  assert [*found] == [*fine] and np.isfinite(found['fid'])
  assert np.isnan(found['swd']) and np.isnan(found['swd_8'])
  assert 'without detail' in evaluator.unscored['swd']
  with pytest.raises(EvaluationError, match='--metrics=swd: .*detail'):
    evaluator.score_samples(grey)


def test_the_truth_scores_well_and_a_stranger_badly(ring, root):
  evaluator = evaluator_of(ring, ['modes', 'fid'], root, samples=800)
  dataset = evaluator.dataset
  good = evaluator.score_samples(dataset.sample(jax.random.key(5), 800))
  assert good['modes'] == 8 and good['high_quality'] > 0.95
  assert good['fid'] < 0.01
  _, state = ring
  bad = evaluator.score(state.g.params, state.g.stats)
  assert bad['high_quality'] < 0.1 and bad['fid'] > 10 * good['fid']
  assert evaluator.protocol['features'] == 'points'


def by_value(classes):
  """Features whose class is told by the value of the first pixel."""

  def see(weights, x, wanted):
    chances = jax.nn.one_hot(x[:, 0, 0, 0], classes)
    return {name: chances for name in wanted}

  return make_features('value', classes, see, {}, {}, (2, 2, 1), classes=True)


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


def test_modes_of_images_are_their_classes(root, monkeypatch):
  monkeypatch.setattr(feature_networks, 'load', lambda *a, **k: by_value(4))
  dataset = numbered()
  evaluator = Evaluator(
    dataset, None, ['modes'], samples=5, features='value', data_dir=root
  )
  all_of_them = evaluator.score_samples(dataset.array())
  assert all_of_them['modes'] == 4
  assert all_of_them['reverse_kl'] == pytest.approx(0, abs=1e-9)
  collapsed = evaluator.score_samples(np.full((8, 2, 2, 1), 3, np.uint8))
  assert collapsed['modes'] == 1
  assert collapsed['reverse_kl'] == pytest.approx(np.log(5))
  monkeypatch.setattr(feature_networks, 'load', lambda *a, **k: by_value(7))
  other = Evaluator(
    dataset, None, ['modes'], samples=5, features='value', data_dir=root
  )
  with pytest.raises(EvaluationError, match='7 classes.*numbered has 4'):
    other.score_samples(dataset.array())


def test_the_protocol_says_all_of_it(digits, root):
  parts, _ = digits
  found = evaluator_of(digits, ['fid'], root, real_samples=90, **PIXELS)
  told = json.loads(json.dumps(found.protocol))
  assert told['samples'] == 50 and told['real_samples'] == 90
  assert told['reference_fingerprint'] == parts.dataset.fingerprint
  assert told['features'] == 'pixels' and len(told['features_digest']) == 64
  assert told['range'].startswith('uint8')


# What is seen of real samples is kept


def test_real_samples_stand_for_their_set():
  few = references.chosen(1000, 50)
  assert len(set(few.tolist())) == 50 and (np.diff(few) > 0).all()
  np.testing.assert_array_equal(few, references.chosen(1000, 50))
  assert few.max() > 900 and few.min() < 100  # from all over the set
  np.testing.assert_array_equal(references.chosen(7, 9), np.arange(7))


def test_features_of_real_samples_are_kept(digits, tmp_path, monkeypatch):
  calls = []
  original = Evaluator._see_real

  def counted(self):
    calls.append(1)
    return original(self)

  monkeypatch.setattr(Evaluator, '_see_real', counted)
  kept = tmp_path / references.FOLDER

  def reference(**how):
    how = {'data_dir': str(tmp_path), **PIXELS, **how}
    return evaluator_of(digits, ['fid'], **{'root': None, **how}).reference

  # The set itself lies elsewhere: only its features are kept here.
  first = reference()
  (path,) = kept.iterdir()
  np.testing.assert_array_equal(reference()['features'], first['features'])
  assert len(calls) == 1
  reference(real_samples=60)
  reference(features='random-8')
  assert len(calls) == 3 and len([*kept.iterdir()]) == 3
  with np.load(path) as whole:
    arrays = dict(whole)
  arrays['features'][3, 3] += 1  # an archive that is whole, of other features
  np.savez(path, **arrays)
  np.testing.assert_array_equal(reference()['features'], first['features'])
  path.write_bytes(path.read_bytes()[:-100])
  np.testing.assert_array_equal(reference()['features'], first['features'])
  assert len(calls) == 5
  reference()
  assert len(calls) == 5  # mended
  assert not [p for p in kept.iterdir() if p.name.startswith('.')]


# What cannot be scored


REFUSED = {
  'unknown metric': ('digits', ['fidd'], PIXELS, 'fidd is unknown.*fid'),
  'twice': ('digits', ['fid', 'fid'], PIXELS, 'twice'),
  'none': ('digits', [], PIXELS, '--metrics=: name some of'),
  'no features': ('digits', ['fid'], {}, '--features=: say what fid'),
  'unknown features': ('digits', ['fid'], {'features': 'inceptio'}, 'inceptio'),
  'missing weights': (
    'digits',
    ['fid'],
    {'features': 'inception-768', 'weights': 'nowhere.npz'},
    'nowhere.npz',
  ),
  'no classes': ('digits', ['inception_score'], PIXELS, 'use a classifier'),
  'a density metric': ('digits', ['density'], PIXELS, 'is a set of images'),
  'an image metric': ('ring', ['ms_ssim'], {}, 'ring is a density'),
  'features of points': ('ring', ['fid'], PIXELS, 'leave it out'),
  'too few': ('digits', ['kid'], {'samples': 3, **PIXELS}, '--samples=3'),
  'too few real': (
    'digits',
    ['kid'],
    {'real_samples': 3, **PIXELS},
    '--real_samples=3',
  ),
  'too many real': (
    'digits',
    ['fid'],
    {'real_samples': 1798, **PIXELS},
    '--real_samples=1798: digits has 1797',
  ),
}


@pytest.mark.parametrize('case', sorted(REFUSED))
def test_what_cannot_be_scored_is_refused(case, digits, ring, root):
  name, metrics, how, said = REFUSED[case]
  run = {'digits': digits, 'ring': ring}[name]
  with pytest.raises(ValueError, match=said) as caught:
    evaluator_of(run, metrics, root, **how)
  assert caught.value.exit_code in (1, 2)


def test_modes_of_images_without_classes_are_refused(root):
  import dataclasses

  faces = dataclasses.replace(numbered(), classes=(), read_labels=None)
  with pytest.raises(EvaluationError, match='images without classes'):
    Evaluator(faces, None, ['modes'], samples=5, data_dir=root)


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
  x, said = BAD_ARRAYS[case]
  with pytest.raises(EvaluationError, match=f'--images=x.npz.*{said}'):
    sources.check_images(x, (8, 8, 1), '--images=x.npz')
  np.testing.assert_array_equal(sources.check_images(GOOD, (8, 8, 1), ''), GOOD)
