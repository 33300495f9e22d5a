"""Datasets by name: prepared once, told when absent or damaged, labelled."""

import importlib.util
import json
import os
import pathlib

import jax
import numpy as np
import PIL.Image
import pytest
from helpers.pictures import RANDOM, both, folder, make, save

from gan_jax import data
from gan_jax.config.app import as_flags
from gan_jax.data import tfds_sets
from gan_jax.evaluation import sources
from gan_jax.runtime.errors import ArgumentError


def test_digits_are_those_of_sklearn(digits):
  from sklearn.datasets import load_digits

  images = digits.array()
  assert digits.size == len(images) == 1797 and images.dtype == np.uint8
  assert digits.shape == (8, 8, 1) == images.shape[1:]
  wanted = load_digits().images / 16 * 255
  # TFDS shuffles what it writes.
  ours = sorted(images.reshape(1797, -1).tolist())
  theirs = sorted(np.round(wanted).astype(int).reshape(1797, -1).tolist())
  assert ours == theirs


def test_digits_prepare_once(digits_root, digits, monkeypatch):
  monkeypatch.setattr(tfds_sets, 'prepare', None)
  assert data.load('digits').fingerprint == digits.fingerprint
  with pytest.raises(TypeError):  # None is not callable: elsewhere it would
    data.load('digits', data_dir=str(digits_root / 'elsewhere'))


def test_digits_are_resized_and_coloured(digits):
  other = data.load('digits', image_size=16, channels=3)
  assert other.shape == other.source[3].shape == (16, 16, 3)
  grey = PIL.Image.fromarray(digits.source[3][..., 0]).convert('RGB')
  wanted = grey.resize((16, 16), PIL.Image.Resampling.LANCZOS)
  np.testing.assert_array_equal(other.source[3], wanted)
  assert other.fingerprint != digits.fingerprint


def test_unknown_name_tells_close_ones(digits_root):
  with pytest.raises(ArgumentError, match='fashion_mnst.*fashion_mnist'):
    data.load('fashion_mnst', data_dir=str(digits_root))
  with pytest.raises(ArgumentError, match='zzzz`: unknown.*folder:PATH'):
    data.load('zzzz', data_dir=str(digits_root))


# Names as people write them, and paths, and what is said of them.
NAMES = {
  'fashion_mnst': 'unknown; did you mean fashion_mnist?$',
  'fashion-mnist': 'unknown; did you mean fashion_mnist?$',
  'FashionMNIST': 'unknown; did you mean fashion_mnist?$',
  'MNIST': 'unknown; did you mean mnist?$',
  'CIFAR-10': 'unknown; did you mean cifar10?$',
  'Ring': 'unknown; did you mean ring?$',
  'stacked-mnist': 'unknown; did you mean stacked_mnist?$',
  'Folder:x': 'unknown; write folder:x$',
  'zzzz': 'unknown; use a set of images that TFDS knows, or folder:PATH$',
  './digits': 'is a folder; write folder:./digits to train on its images$',
  '..': 'is a folder; write folder:.. to train on its images$',
  'folder:x.tgz': 'is compressed as a whole; unpack it and name the folder, or',
  'folder:~nouser/x': 'home folder is not known .user nouser is not known',
  'density:~nouser/x': 'home folder is not known .user nouser is not known',
  'mnist:9.9.9': 'cannot be loaded at version 9.9.9, only: 3.0.1',
  'x' * 300: 'unknown; use a set',
}


@pytest.mark.parametrize('name', NAMES)
def test_names_are_told_in_one_line(name, digits_root, tmp_path, monkeypatch):
  (tmp_path / 'digits').mkdir()
  (tmp_path / 'x.tgz').touch()
  monkeypatch.chdir(tmp_path)
  said = NAMES[name].replace('?', r'\?')
  with pytest.raises(ArgumentError, match=said) as told:
    data.load(name, data_dir=str(digits_root))
  assert told.value.argument == 'dataset' and '\n' not in str(told.value)


@pytest.mark.skipif(
  importlib.util.find_spec('tensorflow') is not None, reason='has TensorFlow'
)
def test_a_set_whose_builder_needs_tensorflow_says_so(digits_root, capsys):
  for name in ('coco', 'coco/2017'):
    with pytest.raises(
      data.DataError, match='with TensorFlow, which is not in'
    ):
      data.load(name, data_dir=str(digits_root))
    with pytest.raises(
      data.DataError, match='with TensorFlow, which is not in'
    ):
      data.prepare(name, data_dir=str(digits_root))
  assert capsys.readouterr().out == ''


@pytest.mark.parametrize('data_dir', ['~nouser', 'x' * 300])
def test_a_data_root_of_no_use_is_named(data_dir):
  for use in (data.load, data.prepare):
    with pytest.raises(ArgumentError, match='`data_dir=') as told:
      use('digits', data_dir=data_dir)
    assert '\n' not in str(told.value)


def test_a_folder_does_not_take_the_place_of_a_set(
  digits_root, tmp_path, monkeypatch
):
  """Of what scores are held against; ./NAME is the folder."""
  save(tmp_path / 'digits' / 'a.png', RANDOM)
  monkeypatch.chdir(tmp_path)
  root = str(digits_root)
  for name in ('digits', 'digits[:100]'):
    found = sources.load_source(name, 'against', root)
    assert found.shape == (8, 8, 1) and found.size in (1797, 100)
  for name in ('./digits', 'folder:digits', str(tmp_path / 'digits')):
    assert sources.load_source(name, 'against', root).size == 1
  (tmp_path / 'digits').rename(tmp_path / 'mine')
  assert sources.load_source('mine', 'against', root).size == 1


def test_unknown_split_tells_the_splits(digits_root):
  with pytest.raises(
    ArgumentError, match='`split=test`: no such split; digits has train'
  ):
    data.load('digits', data_dir=str(digits_root), split='test')


@pytest.mark.parametrize('name', ['mnist', 'fashion_mnist', 'cifar10'])
def test_unprepared_set_tells_the_command(name, tmp_path):
  with pytest.raises(data.DataError) as told:
    data.load(name, data_dir=str(tmp_path))
  call = f"`gan_jax.data.prepare('{name}', data_dir='{tmp_path}')`"
  command = f'python -m gan_jax.prepare --dataset={name} --data_dir={tmp_path}'
  assert call in str(told.value)
  assert f'{command}\n' in as_flags(str(told.value))
  assert f'{command} --from=DIR' in as_flags(str(told.value))
  assert told.value.exit_code == 1


def test_data_root_is_as_given_or_the_environment(monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', '/there')
  assert data.data_root('/here') == pathlib.Path('/here')
  assert data.data_root('') == pathlib.Path('/there')
  monkeypatch.delenv('TFDS_DATA_DIR')
  home = pathlib.Path.home() / 'tensorflow_datasets'
  assert data.data_root('') == home


@pytest.mark.parametrize(
  'argument, options',
  [
    ('flip=True', {'flip': True}),
    ('residence=stream', {'residence': 'stream'}),
  ],
)
def test_arguments_of_images_are_refused_for_a_density(argument, options):
  with pytest.raises(ArgumentError, match=f'`{argument}`: .*ring'):
    make(data.load('ring'), **options)


@pytest.mark.parametrize(
  'option, value', [('channels', 2), ('channels', -1), ('image_size', -8)]
)
def test_impossible_options_are_refused(option, value, tmp_path):
  save(tmp_path / 'a.png', RANDOM)
  with pytest.raises(ArgumentError, match=f'`{option}={value}`'):
    folder(tmp_path, **{option: value})


def _rewrite_info(place, **facts):
  path = place / 'dataset_info.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_set_of_a_format_without_random_access_tells_another_folder(
  digits_copy,
):
  root, place = digits_copy
  _rewrite_info(place, fileFormat='tfrecord')
  for use in (
    lambda: data.load('digits', data_dir=str(root)),
    lambda: tfds_sets.prepare('digits', root),
  ):
    with pytest.raises(data.DataError, match='as tfrecord.*(?s:.)*`data_dir`'):
      use()


def _shard(place):
  (path,) = place.glob('*array_record*')
  return path


def _cut_shard(place):
  content = _shard(place).read_bytes()
  _shard(place).write_bytes(content[: len(content) // 2])


def _flip_records(place):
  content = bytearray(_shard(place).read_bytes())
  for i in range(1000, len(content), 1000):
    content[i] ^= 255
  _shard(place).write_bytes(content)


@pytest.mark.parametrize(
  'damage',
  [
    lambda place: (place / 'dataset_info.json').write_text('{"name": '),
    lambda place: _shard(place).unlink(),
    _cut_shard,
    _flip_records,
  ],
  ids=['description', 'missing', 'cut', 'flipped'],
)
def test_damaged_set_is_named(damage, digits_copy):
  root, place = digits_copy
  damage(place)
  with pytest.raises(data.DataError, match='digits.*is damaged.*again') as told:
    data.load('digits', data_dir=str(root)).array()
  assert told.value.exit_code == 1


def test_set_of_the_users_own_is_read_from_the_data_root(digits_copy):
  root, place = digits_copy
  own = root / 'mydigits' / '1.0.0'
  own.parent.mkdir()
  place.rename(own)
  _rewrite_info(own, name='mydigits')
  for path in own.glob('digits-*'):
    path.rename(own / f'my{path.name}')
  assert data.load('mydigits', data_dir=str(root)).size == 1797


def test_unknown_configuration_is_told(tmp_path):
  with pytest.raises(ArgumentError, match='`dataset=celeb_a_hq/65`: '):
    data.load('celeb_a_hq/65', data_dir=str(tmp_path))


def labelled_pictures(folder, classes=('cat', 'dog', 'eel')):
  """Images whose grey level tells their class, in a folder a class."""
  for i, name in enumerate(classes):
    (folder / name).mkdir(parents=True)
    for j in range(4):
      level = 60 * i + j
      PIL.Image.new('L', (8, 8), level).save(folder / name / f'{j}.png')
  return data.load(f'folder:{folder}')


def pairs(feed, start, count, rows=slice(None)):
  """(grey level, class) of each image of some steps."""
  chunk = feed.chunk(start, count, rows)
  found = []
  for i in range(count):
    for batch in range(jax.tree.leaves(chunk)[0].shape[1]):
      item = jax.tree.map(lambda x, i=i, b=batch: x[i, b], chunk)
      x, y = feed.decode(feed.constants, item, jax.random.key(0), 4)
      level = np.rint((np.asarray(x)[:, 0, 0, 0] + 1) * 127.5).astype(int)
      assert y.dtype == np.int32
      found += list(zip(level.tolist(), np.asarray(y).tolist(), strict=True))
  return found


def test_digits_labels_are_those_of_sklearn(digits):
  from sklearn.datasets import load_digits

  found = load_digits()
  originals = np.round(found.images * (255 / 16)).astype(np.uint8)
  known = {x.tobytes(): y for x, y in zip(originals, found.target, strict=True)}
  assert digits.classes == tuple('0123456789')
  for _ in range(2):  # read, and kept
    said = digits.labels()
    assert said.dtype == np.int32
    assert [known[x.tobytes()] for x in digits.array()] == said.tolist()


@both
def test_each_image_keeps_its_label(residence, tmp_path):
  images = labelled_pictures(tmp_path / 'pets')
  assert images.classes == ('cat', 'dog', 'eel')
  feed = make(images, residence=residence, labelled=True, batches_per_step=2)
  found = pairs(feed, 0, 3) + pairs(feed, 7, 2)
  assert len(found) == 4 * 2 * 5
  assert all(level // 60 == label for level, label in found)
  assert len({label for _, label in found}) == 3
  halves = [pairs(feed, 1, 1, rows) for rows in (slice(0, 2), slice(2, 4))]
  assert sorted(halves[0] + halves[1]) == sorted(pairs(feed, 1, 1))


def test_labels_leave_the_order_alone_and_join_the_fingerprint(tmp_path):
  images = labelled_pictures(tmp_path / 'pets')
  plain, feed = make(images), make(images, labelled=True)
  np.testing.assert_array_equal(plain.chunk(0, 5), feed.chunk(0, 5))
  assert plain.fingerprint == images.fingerprint != feed.fingerprint


def test_folder_without_a_folder_a_class_has_none(tmp_path):
  labelled_pictures(tmp_path / 'pets')
  PIL.Image.new('L', (8, 8)).save(tmp_path / 'pets' / 'stray.png')
  images = data.load(f'folder:{tmp_path / "pets"}')
  assert images.classes == () and images.read_labels is None
  with pytest.raises(ArgumentError, match='`labelled=True`: .* has no classes'):
    make(images, labelled=True)
  assert data.load('ring').classes == ()


def test_names_that_are_not_utf8(tmp_path):
  """Of files and of classes, as an old archive leaves them."""
  pets = tmp_path / 'pets' / os.fsdecode(b'caf\xe9')
  pets.mkdir(parents=True)
  for i in range(2):
    image = PIL.Image.new('L', (8, 8), 40 * i)
    image.save(pets / os.fsdecode(b'%d\xff.png' % i))
  images = data.load(f'folder:{tmp_path / "pets"}')
  assert images.classes == (r'caf\udce9',) and images.size == 2


def test_an_archive_is_not_read_out_of_a_store():
  with pytest.raises(ArgumentError, match='unpack the archive there'):
    data.load('folder:s3://bucket/faces.zip')
