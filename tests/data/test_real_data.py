"""The real image sets, prepared: images, labels, classes."""

import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.originals import IDX

from gan_jax import data
from gan_jax.data import builders, tfds_sets

REAL = {
  'mnist': ([5, 0, 4, 1, 9], 0.1307),
  'fashion_mnist': ([9, 0, 0, 3, 0], 0.2860),
}

ones = pytest.mark.parametrize('name', REAL)


@pytest.mark.data
@ones
def test_real_images_are_the_originals(name, real_root, real_data):
  wanted = builders.read_idx(real_data / name / IDX[0])
  images = data.load(name, data_dir=str(real_root)).array()
  assert images.shape == (60000, 28, 28, 1)
  assert abs(images.mean() / 255 - REAL[name][1]) < 5e-5
  rows = [x.reshape(60000, 784).copy().view('V784') for x in (images, wanted)]
  ours, theirs = [sorted(x.ravel().tolist()) for x in rows]
  assert ours == theirs


@pytest.mark.data
@ones
def test_real_labels_go_with_their_images(name, real_root, real_data):
  labels = builders.read_idx(real_data / name / IDX[1])
  assert labels[:5].tolist() == REAL[name][0]
  images = builders.read_idx(real_data / name / IDX[0])
  known = {x.tobytes(): k for x, k in zip(images, labels, strict=True)}
  ours = data.load(name, data_dir=str(real_root))
  right = [
    known[x.tobytes()] == k
    for x, k in zip(ours.array(), ours.labels(), strict=True)
  ]
  assert np.mean(right) > 0.9999  # one picture twice, under two classes
  # As TFDS itself reads them.
  source = tfds.data_source(name, data_dir=real_root, download=False)
  assert {k: len(v) for k, v in source.items()} == {
    'train': 60000,
    'test': 10000,
  }
  found = [source['train'][i] for i in range(0, 60000, 30)]
  assert all(known[row['image'].tobytes()] == row['label'] for row in found)


@pytest.mark.data
@ones
@pytest.mark.parametrize('split, each', [('train', 6000), ('test', 1000)])
def test_real_classes_are_as_many_as_known(name, split, each, real_root):
  images = data.load(f'{name}[{split}]', data_dir=str(real_root))
  counts = np.bincount(images.labels())
  assert len(images.classes) == 10
  if name == 'fashion_mnist':
    assert counts.tolist() == [each] * 10
  else:
    ones = {'train': 6742, 'test': 1135}  # the most frequent digit
    assert counts.argmax() == 1 and counts[1] == ones[split]


@pytest.fixture(scope='session')
def real_batches(real_data, tmp_path_factory):
  """CIFAR-10's training batches, from their lossless encoding."""
  folder = tmp_path_factory.mktemp('cifar10')
  source = real_data / 'cifar10'
  parts = []
  for half in 'ab':
    packed, plain = f'cifar10_train_{half}.medxz', folder / f'{half}.npz'
    words = [source / 'medxz.py', source / packed, plain]
    subprocess.run([sys.executable, *map(str, words)], check=True)
    with np.load(plain) as part:
      parts.append((part['images'], part['labels']))
  images, labels = map(np.concatenate, zip(*parts, strict=True))
  planes = images.transpose(0, 3, 1, 2).reshape(-1, 3072)
  whole = np.concatenate([np.uint8(labels)[:, None], planes], axis=1)
  for n, batch in enumerate(np.split(whole, 5), start=1):
    batch.tofile(folder / f'data_batch_{n}.bin')
  return folder


@pytest.mark.soak
@pytest.mark.data
def test_real_cifar10_is_prepared_from_its_batches(real_batches, tmp_path):
  _, counts = tfds_sets.prepare('cifar10', tmp_path, str(real_batches))
  assert counts == {'train': 50000}
  assert tfds.builder('cifar10', data_dir=tmp_path).info.full_name.endswith(
    '3.0.2'
  )
  images = data.load('cifar10', data_dir=str(tmp_path)).array()
  scaled = images.reshape(-1, 3) / np.float32(255)
  mean, std = [0.49140, 0.48216, 0.44653], [0.24703, 0.24349, 0.26159]
  np.testing.assert_allclose(scaled.mean(0, np.float64), mean, atol=6e-6)
  np.testing.assert_allclose(scaled.std(0, np.float64), std, atol=6e-6)
  source = tfds.data_source(
    'cifar10',
    data_dir=tmp_path,
    split='train',
    download=False,
    decoders={'image': tfds.decode.SkipDecoding()},
  )
  rows = [source[i] for i in range(0, 50000, 10)]
  first = np.bincount([row['label'] for row in rows], minlength=10)
  assert first.min() > 400  # of 500: TFDS shuffles
  known = {row['id'].decode(): row['label'] for row in rows}
  labels = np.fromfile(real_batches / 'data_batch_1.bin', np.uint8)[::3073]
  early = {k: v for k, v in known.items() if int(k[-5:]) < 10000}
  assert early and all(labels[int(k[-5:])] == v for k, v in early.items())


@pytest.mark.data
def test_real_faces_are_loaded_from_a_folder(real_data, tmp_path):
  with zipfile.ZipFile(real_data / 'faces' / 'faces64.zip') as archive:
    archive.extractall(tmp_path / 'faces')
  faces = data.load(
    f'folder:{tmp_path / "faces"}', data_dir=str(tmp_path), image_size=32
  )
  assert faces.shape == (32, 32, 3) and faces.size == 13233
  feed = data.make_feed(faces, seed=0, batch_size=64, residence='stream')
  item = feed.chunk(0, 1)[0, 0]
  assert item.shape == (64, 32, 32, 3) and item.dtype == np.uint8
  key = jax.random.key(0)
  x = jax.jit(feed.decode, static_argnums=3)(feed.constants, item, key, 64)
  assert x.shape == item.shape and x.min() < -0.9 and x.max() > 0.9
  assert 20 < item.std((1, 2, 3)).mean() < 100  # pictures, no flat colours
