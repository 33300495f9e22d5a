"""Features: the registry, whole sets, and the networks but Inception."""

import hashlib
import importlib.util
import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import sklearn.datasets

from gan_jax import data, features
from gan_jax.config import registry
from gan_jax.data import builders
from gan_jax.features import classifier, inception, inception_weights, resnet20
from gan_jax.runtime import sharding
from gan_jax.runtime.errors import ArgumentError, DataError

CLOSE = {'rtol': 1e-5, 'atol': 3e-6}


def images(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# The registry.


def test_the_registry_is_read_without_jax():
  names = registry.names('gan_jax.features', 'FEATURES')
  assert names == tuple(features.FEATURES)


@pytest.mark.parametrize(
  'name, more, message',
  [
    ('fid', {}, r'`features=fid`: use one of inception, '),
    ('inceptoin-64', {}, r'did you mean inception\?'),
    ('inception-100', {}, r'100 is neither a tap \(64, 192'),
    ('inception-64-nearest', {}, r'nor a resizer \(tensorflow, pytorch'),
    ('inception-64', {'weights': 'none.pth'}, r'`weights=none.pth`: no such'),
    ('inception-64', {'sample_shape': (2,)}, r'is for images; use pixels'),
    ('inception-64', {'sample_shape': (8, 8, 2)}, r'shape \(8, 8, 2\)'),
    ('resnet20', {'sample_shape': (32, 32, 3)}, r'needs `weights=PATH'),
    ('resnet20', {}, r'takes 32x32 colour images'),
    ('resnet20-56', {}, r'has no options'),
    ('classifier', {}, r'learns from what\? Write classifier-DATASET'),
    ('classifier-ring', {}, r'image_size|no classes'),
    ('classifier-mnist', {'weights': 'a'}, r'trains itself; leave it out'),
    ('pixels-2', {}, r'has no options; use pixels'),
    ('pixels', {'weights': 'a'}, r'`weights=a`: `features=pixels` takes none'),
    ('random-0', {}, r'one positive number'),
    ('random-2-3', {}, r'one positive number'),
  ],
)
def test_a_bad_name_is_answered_with_its_remedy(name, more, message):
  with pytest.raises(ValueError, match=message) as error:
    features.load(name, **{'sample_shape': (8, 8, 1), **more})
  assert error.value.exit_code == 2


# Pixels and random networks.


def extracted(network, samples):
  return features.extract_features(network, samples)['features']


def test_pixels_are_the_pixels():
  x = images(3, 4, 5, 3)
  f = features.load('pixels', sample_shape=(4, 5, 3))
  np.testing.assert_allclose(extracted(f, x), x.reshape(3, -1) / 255, **CLOSE)
  assert f.dim == 60 and f.outputs == ('features',)
  points = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
  for f in (
    features.load('pixels', sample_shape=(2,)),
    features.make_raw((2,)),
  ):
    np.testing.assert_array_equal(extracted(f, points), points)


@pytest.mark.parametrize('shape', [(9, 8, 1), (2,)])
def test_random_features_are_fixed_and_alive(shape):
  f = features.load('random-20', sample_shape=shape)
  again = features.load('random-20', sample_shape=shape)
  x = (
    images(50, *shape)
    if len(shape) == 3
    else np.float32(np.random.default_rng(0).normal(size=(50, 2)))
  )
  values = extracted(f, x)
  np.testing.assert_array_equal(values, extracted(again, x))
  assert values.shape == (50, f.dim) == (50, 20)
  assert values.dtype == np.float32
  assert (values.std(0) > 0.05).mean() > 0.5
  assert f.digest == again.digest
  other = features.load('random-21', sample_shape=shape)
  assert other.digest != f.digest


def test_the_digest_is_of_weights_and_protocol():
  def make(weight, **protocol):
    weights = {'bias': np.full(3, weight, np.float32)}
    return features.make_features('own', 3, dict, weights, protocol, (2,))

  first = make(1.0)
  nearest = np.nextafter(np.float32(1), np.float32(9))
  digests = [f.digest for f in (first, make(nearest), make(1.0, side=9))]
  assert len(set(digests)) == 3 and make(1.0).digest == first.digest
  # Nor are they known by their bytes alone.
  ones = np.full(3, 1, np.float32)
  for weights in (
    {'scale': ones},
    {'bias': ones[None]},
    {'bias': ones.view(np.int32)},
  ):
    other = features.make_features('own', 3, dict, weights, {}, (2,))
    assert other.digest != first.digest
  json.dumps(first.protocol)  # goes into metrics.jsonl


# Whole sets.


@pytest.fixture(scope='module')
def random():
  return features.load('random-16', sample_shape=(8, 8, 1))


def test_a_set_is_seen_alike_in_any_batch_and_on_any_devices(random):
  x = images(37, 8, 8, 1)
  whole = extracted(random, x)
  for devices, batch in ((1, 1), (2, 5), (2, 100), (4, 37)):
    mesh = sharding.make_mesh(devices)
    values = features.extract_features(random, x, batch=batch, mesh=mesh)
    np.testing.assert_allclose(values['features'], whole, **CLOSE)


def test_sets_and_networks_of_one_function_are_one_program(random):
  traced = []

  def apply(weights, x, outputs):
    traced.append(x.shape)
    return {name: x.reshape(x.shape[0], -1) * weights['w'] for name in outputs}

  for scale in (1, 2):
    weights = {'w': np.float32(scale)}
    network = features.make_features('own', 4, apply, weights, {}, (4,))
    for count in (19, 8, 3):
      x = np.ones((count, 4), np.float32)
      values = features.extract_features(network, x, batch=8)['features']
      np.testing.assert_array_equal(values, scale * x)
  assert traced == [(8, 4)]


def test_reading_ahead_loses_no_batch(random, monkeypatch):
  x = images(29, 8, 8, 1)
  waited = features.extract_features(random, x, batch=8)['features']
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  ahead = features.extract_features(random, x, batch=8)['features']
  np.testing.assert_array_equal(ahead, waited)
  assert len(waited) == 29


def test_samples_come_back_where_they_are_asked_for(random):
  x = images(7, 8, 8, 1)
  run = features.FeaturePass(random, (), batch=4)
  seen = run(features.batched(x, run.rows), 7, samples=True)
  assert [*seen] == ['samples']
  np.testing.assert_array_equal(seen['samples'], x)


def test_what_cannot_be_seen_is_named(random):
  extract = features.extract_features
  with pytest.raises(ArgumentError, match='there are none'):
    extract(random, images(0, 8, 8, 1))
  with pytest.raises(ArgumentError, match=r'\(n, 8, 8, 1\).*float32'):
    extract(random, images(2, 8, 8, 1).astype(np.float32))
  with pytest.raises(ArgumentError, match=r'not uint8 \(\d+, 8, 8, 3'):
    extract(random, images(2, 8, 8, 3))
  with pytest.raises(ArgumentError, match='no probabilities; use a'):
    extract(random, images(2, 8, 8, 1), outputs=('probabilities',))


# Inception from a file to features.


def trunk(path, rng):
  """The stem alone, as a file of folded weights."""
  arrays = {}
  for layer in ('conv', 'conv_1', 'conv_2'):
    shape = inception_weights.LAYERS[layer].shape
    std = math.sqrt(2 / math.prod(shape[:3]))
    arrays[f'{layer}/w'] = rng.normal(0, std, shape)
    arrays[f'{layer}/b'] = rng.normal(0, 0.1, shape[-1])
  np.savez(path, **arrays)
  return str(path)


def test_inception_reaches_as_far_as_its_weights(tmp_path):
  path = trunk(tmp_path / 'a.npz', np.random.default_rng(0))
  for name in ('inception-192', 'inception'):
    with pytest.raises(DataError, match=r'conv_3.*use inception-64'):
      features.load(name, weights=path, sample_shape=(32, 32, 3))
  f = features.load('inception-64', weights=path, sample_shape=(24, 24, 1))
  protocol = f.protocol
  assert protocol['network'] == 'unknown' and protocol['resize'] == 'tensorflow'
  with open(path, 'rb') as file:
    digest = hashlib.sha256(file.read()).hexdigest()
  assert protocol['weights_sha256'] == digest
  clean = features.load(
    'inception-64-clean', weights=path, sample_shape=(24, 24, 1)
  )
  assert clean.digest != f.digest and clean.name == 'inception-64-clean'
  x = images(2, 24, 24, 1)
  values = features.extract_features(f, x, batch=2, mesh=sharding.make_mesh(1))
  layers = inception_weights.load(
    tmp_path / 'a.npz', ['conv', 'conv_1', 'conv_2']
  )
  scaled = inception.scale(jnp.asarray(x), 'tensorflow')
  expected = jax.jit(lambda w, x: inception.forward(w, x, ['64']))(
    layers, scaled
  )
  assert values['features'].shape == (2, f.dim) == (2, 64)
  np.testing.assert_allclose(values['features'], expected['64'], **CLOSE)


# The classifier.


def test_patches_are_those_of_a_convolution():
  x = np.random.default_rng(0).normal(size=(2, 7, 6, 3))
  y = np.asarray(classifier._patches(jnp.asarray(x, jnp.float32)))
  assert y.shape == (2, 4, 3, 48)
  room = np.pad(x, [(0, 0), (0, 3), (0, 2), (0, 0)])
  for i in range(4):
    for j in range(3):
      patch = room[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4].reshape(2, -1)
      np.testing.assert_allclose(np.sort(y[:, i, j]), np.sort(patch), rtol=1e-6)


@pytest.fixture(scope='module')
def digits():
  """Images and labels of some of the digits, and of others held out."""
  found = sklearn.datasets.load_digits()
  x = (found.images[..., None] * 15.9).astype(np.uint8)
  labels = found.target.astype(np.int32)
  return x[:600], labels[:600], x[1500:], labels[1500:]


@pytest.fixture(scope='module')
def trained(digits):
  x, labels, *held_out = digits
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(classifier.RECIPE, 'batch', 50)
    patch.setitem(classifier.RECIPE, 'epochs', 5)
    patch.setitem(classifier.RECIPE, 'least_steps', 0)
    return [classifier.train(x, labels, 10, tuple(held_out)) for _ in range(2)]


def test_the_classifier_learns_and_is_the_same_each_time(trained, digits):
  first, again = trained
  assert first.accuracy > 0.8  # of writers it has not seen
  jax.tree.map(np.testing.assert_array_equal, first, again)
  logits, hidden = classifier.Network(10).apply(
    first.params, jnp.asarray(digits[2])
  )
  assert hidden.shape == (297, classifier.DIM)
  accuracy = (np.argmax(logits, axis=1) == digits[3]).mean()
  # The last, incomplete batch is left out of the accuracy.
  assert accuracy == pytest.approx(first.accuracy, abs=0.01)


def test_stacks_are_classified_channel_by_channel(trained, digits, monkeypatch):
  asked = []

  def trained_on(name, shape, data_dir, cache):
    asked.append((name, shape))
    return trained[0], {'classes': 10}

  monkeypatch.setattr(classifier, 'trained_on', trained_on)
  single = features.load('classifier-digits', sample_shape=(8, 8, 1))
  stacked = features.load(
    'classifier', dataset='stacked_digits', sample_shape=(8, 8, 3)
  )
  assert asked == [('digits', (8, 8, 1))] * 2
  assert (single.dim, stacked.dim) == (128, 384)
  x = digits[2][:12].reshape(4, 3, 8, 8).transpose(0, 2, 3, 1)
  one, joined = (
    features.extract_features(f, x, outputs=f.outputs, batch=12)
    for f, x in ((single, digits[2][:12]), (stacked, x))
  )
  np.testing.assert_allclose(
    joined['features'], one['features'].reshape(4, 384), **CLOSE
  )
  p = one['probabilities'].reshape(4, 3, 10)
  joint = np.einsum('na,nb,nc->nabc', *p.transpose(1, 0, 2)).reshape(4, -1)
  np.testing.assert_allclose(joined['probabilities'], joint, **CLOSE)
  labels = digits[3][:12].reshape(4, 3) @ [100, 10, 1]
  assert (joint.argmax(1) == labels).mean() >= 0.75


@pytest.mark.parametrize(
  'dataset, name',
  [
    ('mnist[:50000]', 'mnist'),
    ('stacked_fashion', 'fashion_mnist'),
    ('folder:/a[b]', 'folder:/a[b]'),
  ],
)
def test_names_of_sets_that_are_learnt_from(dataset, name, monkeypatch):
  class Asked(Exception):
    pass

  def trained_on(name, *rest):
    raise Asked(name)

  monkeypatch.setattr(classifier, 'trained_on', trained_on)
  with pytest.raises(Asked) as asked:
    features.load('classifier', dataset=dataset, sample_shape=(8, 8, 3))
  assert asked.value.args == (name,)


@pytest.fixture
def folder(tmp_path):
  """Dark and bright pictures."""
  rng = np.random.default_rng(0)
  for name, low in (('dark', 0), ('bright', 128)):
    (tmp_path / 'set' / name).mkdir(parents=True)
    for i in range(30):
      x = rng.integers(low, low + 128, (8, 8), np.uint8)
      PIL.Image.fromarray(x).save(tmp_path / 'set' / name / f'{i}.png')
  return f'folder:{tmp_path / "set"}'


def test_what_is_held_out_is_not_learnt_from(folder, tmp_path):
  """One in ten of a set without a test split, each with its own class."""
  whole = data.load(folder, data_dir=str(tmp_path), image_size=8, channels=1)
  x, labels, classes, (out, out_labels) = classifier._halves(
    folder, whole, (8, 8, 1), str(tmp_path)
  )
  assert (len(x), len(out), classes) == (54, 6, 2)
  seen, unseen = ({image.tobytes() for image in part} for part in (x, out))
  assert len(seen | unseen) == 60 and not seen & unseen
  for part, own in ((x, labels), (out, out_labels)):
    dark = part.max((1, 2, 3)) < 128
    np.testing.assert_array_equal(dark, own == whole.classes.index('dark'))


class Reads(classifier.Network):
  """Takes the first pixel for the class."""

  @nn.compact
  def __call__(self, images):
    hidden = jnp.zeros((len(images), classifier.DIM))
    return jax.nn.one_hot(images[:, 0, 0, 0], self.classes), hidden


def test_accuracy_is_of_all_that_is_held_out():
  labels = np.arange(1000, dtype=np.int32) % 10
  x = np.tile(labels[:, None, None, None], (1, 8, 8, 1)).astype(np.uint8)
  x[750:] = (x[750:] + 1) % 10
  accuracy = classifier._accuracy(Reads(10), {}, x, labels)
  assert accuracy == pytest.approx(0.75)


def test_a_classifier_is_cached_and_trained_anew_where_damaged(
  folder, tmp_path, monkeypatch, capsys
):
  monkeypatch.setitem(classifier.RECIPE, 'least_steps', 30)
  monkeypatch.setitem(classifier.RECIPE, 'batch', 16)
  trains, original = [], classifier.train

  def train(*args):
    trains.append(args)
    return original(*args)

  monkeypatch.setattr(classifier, 'train', train)

  def load():
    return features.load(
      f'classifier-{folder}', sample_shape=(8, 8, 1), data_dir=str(tmp_path)
    )

  first = load()
  assert first.protocol['accuracy'] == 1
  assert first.protocol['fingerprint'] and first.protocol['classes'] == 2
  assert load().digest == first.digest and len(trains) == 1
  (path,) = (tmp_path / 'gan_jax_classifiers').iterdir()
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  assert load().digest == first.digest and len(trains) == 2
  assert 'is damaged' in capsys.readouterr().err
  monkeypatch.setitem(classifier.RECIPE, 'seed', 1)
  assert load().digest != first.digest  # another recipe, another classifier
  assert len(trains) == 3


def test_a_set_without_classes_is_not_learnt_from(tmp_path):
  for i in range(3):
    PIL.Image.fromarray(images(8, 8, seed=i)).save(tmp_path / f'{i}.png')
  with pytest.raises(ArgumentError, match='no classes to learn'):
    features.load(f'classifier-folder:{tmp_path}', sample_shape=(8, 8, 1))


@pytest.mark.data
@pytest.mark.parametrize(
  'count, right',
  [(6000, 0.96), pytest.param(60000, 0.99, marks=pytest.mark.soak)],
)
def test_the_classifier_of_mnist_is_right(count, right, real_data):
  halves = []
  for start in ('train', 't10k'):
    x, labels = (
      builders.read_idx(real_data / 'mnist' / f'{start}-{end}-ubyte.gz')
      for end in ('images-idx3', 'labels-idx1')
    )
    halves.append((x.reshape(-1, 28, 28, 1), labels.astype(np.int32)))
  x, labels = halves[0]
  trained = classifier.train(x[:count], labels[:count], 10, halves[1])
  assert trained.accuracy > right


# ResNet-20.


def resnet_arrays(seed=0):
  rng = np.random.default_rng(seed)
  arrays = {}
  for name, (ins, outs) in resnet20.layers().items():
    std = math.sqrt(2 / (9 * ins))
    arrays[f'{name}.weight'] = rng.normal(0, std, (outs, ins, 3, 3))
    norm = name.replace('conv', 'bn')
    for k in inception_weights.NORM:
      arrays[f'{norm}.{k}'] = rng.uniform(0.5, 1.5, outs)
  arrays['linear.weight'] = rng.normal(0, 1, (10, 64))
  arrays['linear.bias'] = rng.normal(0, 1, 10)
  return {k: v.astype(np.float32) for k, v in arrays.items()}


def resnet_in_numpy(p, x):
  """In float64, with batch norm apart and the shortcut as it is told."""
  from numpy.lib.stride_tricks import sliding_window_view

  def unit(x, name, stride=1):
    w = np.float64(p[f'{name}.weight'])
    x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = sliding_window_view(x, (3, 3), (1, 2))[:, ::stride, ::stride]
    y = np.einsum('nyxchw,ochw->nyxo', windows, w)
    norm = name.replace('conv', 'bn')
    gamma, beta, mean, var = (
      np.float64(p[f'{norm}.{k}']) for k in inception_weights.NORM
    )
    return (y - mean) / np.sqrt(var + 1e-5) * gamma + beta

  x = x / 255 - np.array([0.485, 0.456, 0.406])
  x = np.maximum(unit(x / np.array([0.229, 0.224, 0.225]), 'conv1'), 0)
  for stage in (1, 2, 3):
    for block in (0, 1, 2):
      stride = 2 if stage > 1 and block == 0 else 1
      name = f'layer{stage}.{block}'
      h = np.maximum(unit(x, f'{name}.conv1', stride), 0)
      h = unit(h, f'{name}.conv2')
      x = x[:, ::stride, ::stride]
      lack = (h.shape[-1] - x.shape[-1]) // 2
      x = np.pad(x, [(0, 0)] * 3 + [(lack, lack)])
      x = np.maximum(x + h, 0)
  x = x.mean((1, 2))
  return x, x @ p['linear.weight'].T.astype(float) + p['linear.bias']


def test_resnet20_is_its_paper_in_float64(tmp_path):
  arrays = resnet_arrays()
  np.savez(tmp_path / 'a.npz', **arrays, step=np.array(3))
  f = features.load(
    'resnet20', weights=str(tmp_path / 'a.npz'), sample_shape=(32, 32, 3)
  )
  x = images(2, 32, 32, 3)
  found = features.extract_features(
    f, x, outputs=f.outputs, batch=2, mesh=sharding.make_mesh(1)
  )
  hidden, logits = resnet_in_numpy(arrays, x.astype(np.float64))
  np.testing.assert_allclose(found['features'], hidden, rtol=1e-4, atol=1e-4)
  chances = np.exp(logits - logits.max(1, keepdims=True))
  chances /= chances.sum(1, keepdims=True)
  np.testing.assert_allclose(found['probabilities'], chances, atol=1e-4)


def test_another_network_is_not_taken_for_resnet20(tmp_path):
  arrays = resnet_arrays()
  path = tmp_path / 'a.npz'
  for bad in (
    {'layer3.0.conv1.weight': arrays['layer1.0.conv1.weight']},
    {'linear.bias': np.zeros(100, np.float32)},
  ):
    np.savez(path, **{**arrays, **bad})
    name = next(iter(bad))
    with pytest.raises(DataError, match=f'{name} should have shape'):
      resnet20.read(path)
  arrays['conv1.weight'][0] = np.nan
  np.savez(path, **arrays)
  with pytest.raises(DataError, match='conv1 .*not finite'):
    resnet20.read(path)


# On real data.


def module(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  found = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(found)
  return found


@pytest.mark.data
def test_the_public_trunk_is_known_and_ends_where_it_ends(real_data):
  file = real_data / 'inception' / 'inception_fid_trunk_f32.npz'
  path = str(file)
  f = features.load('inception-sfid', weights=path, sample_shape=(32, 32, 3))
  assert f.protocol['network'] == 'inception-2015-12-05'
  with pytest.raises(DataError, match='mixed_9/conv.*2048.*use inception-768'):
    features.load('inception-2048', weights=path, sample_shape=(32, 32, 3))
  trunk = inception_weights.load(file, ['conv_4', 'mixed_7/conv'])
  touched = {'conv_4': {k: v * 1.01 for k, v in trunk['conv_4'].items()}}
  assert inception_weights.is_public(trunk)
  assert not inception_weights.is_public(trunk | touched)


@pytest.mark.slow
@pytest.mark.data
def test_resnet20_knows_the_images_it_learnt(real_data):
  decode = module(real_data / 'cifar10' / 'medxz.py').decode
  blob = (real_data / 'cifar10' / 'cifar10_train_a.medxz').read_bytes()
  x, labels = decode(blob)
  f = features.load(
    'resnet20',
    weights=str(real_data / 'cifar10_classifier' / 'resnet20.npz'),
    sample_shape=(32, 32, 3),
  )
  found = features.extract_features(f, x[:2000], outputs=('probabilities',))
  right = (found['probabilities'].argmax(1) == labels[:2000]).mean()
  assert right > 0.95
