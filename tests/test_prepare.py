"""Preparing image sets: whole, interrupted, damaged, offline, by command."""

import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from helpers import commands
from helpers.originals import IDX, TAR, draw, records, write_idx, write_tar
from tensorflow_datasets.core.download import checksums

from gan_jax import data
from gan_jax.config.app import as_flags
from gan_jax.data import builders, tfds_sets

TRAIN, TEST = 7, 3


def trust(monkeypatch, name, folder):
  """Takes the files of a folder for the originals of a set."""
  cls = builders.BUILDERS[name]
  by_name = {info.filename: url for url, info in cls.url_infos.items()}
  infos = {
    by_name[path.name]: checksums.UrlInfo(
      path.stat().st_size,
      hashlib.sha256(path.read_bytes()).hexdigest(),
      path.name,
    )
    for path in sorted(folder.iterdir())
  }
  monkeypatch.setattr(cls, 'url_infos', infos)


@pytest.fixture
def idx_folder(tmp_path, monkeypatch):
  """Originals of a small MNIST."""
  folder = tmp_path / 'originals'
  folder.mkdir()
  arrays = (
    draw(TRAIN, 28, 28),
    draw(TRAIN, seed=1, top=10),
    draw(TEST, 28, 28, seed=2),
    draw(TEST, seed=3, top=10),
  )
  for name, values in zip(IDX, arrays, strict=True):
    write_idx(folder / name, values)
  trust(monkeypatch, 'mnist', folder)
  return folder


@pytest.fixture
def tar_folder(tmp_path, monkeypatch):
  """Originals of a small CIFAR-10, its batches out of order."""
  folder = tmp_path / 'originals'
  folder.mkdir()
  batches = {f'data_batch_{n}.bin': records(2, 10 * n) for n in (2, 1, 3)}
  batches['test_batch.bin'] = records(TEST, 40)
  files = {name: values.tobytes() for name, values in batches.items()}
  write_tar(folder / TAR, {'batches.meta.txt': b'airplane\n', **files})
  trust(monkeypatch, 'cifar10', folder)
  return folder


def read_back(name, root, split='train'):
  """Images and labels, as any TFDS reads them."""
  source = tfds.data_source(name, data_dir=root, split=split, download=False)
  rows = [source[i] for i in range(len(source))]
  return np.stack([r['image'] for r in rows]), [int(r['label']) for r in rows]


def as_set(images, labels):
  """What is there, in any order: TFDS shuffles."""
  return sorted(
    (int(k), x.tobytes()) for x, k in zip(images, labels, strict=True)
  )


def test_mnist_is_prepared_from_idx_files(idx_folder, tmp_path):
  root = tmp_path / 'root'
  folder, counts = tfds_sets.prepare('mnist', root, str(idx_folder))
  assert counts == {'train': TRAIN, 'test': TEST}
  assert folder == root / 'mnist' / '3.0.1'
  for split, n, seed in (('train', TRAIN, 0), ('test', TEST, 2)):
    wanted = draw(n, 28, 28, 1, seed=seed), draw(n, seed=seed + 1, top=10)
    assert as_set(*read_back('mnist', root, split)) == as_set(*wanted)
  images = data.load('mnist', data_dir=str(root))
  assert images.shape == (28, 28, 1) and images.size == TRAIN
  np.testing.assert_array_equal(images.array(), read_back('mnist', root)[0])
  test = data.load('mnist', data_dir=str(root), split='test')
  assert test.size == TEST and test.fingerprint != images.fingerprint


def test_cifar10_is_prepared_from_its_archive(tar_folder, tmp_path):
  root = tmp_path / 'root'
  _, counts = tfds_sets.prepare('cifar10', root, str(tar_folder))
  assert counts == {'train': 6, 'test': TEST}
  train = np.concatenate([records(2, 10 * n) for n in (1, 2, 3)])
  source = tfds.data_source('cifar10', data_dir=root, download=False)
  for split, wanted in (('train', train), ('test', records(TEST, 40))):
    rows = {row['id'].decode(): row for row in source[split]}
    assert sorted(rows) == [f'{split}_{i:05d}' for i in range(len(wanted))]
    for i, record in enumerate(wanted):
      row = rows[f'{split}_{i:05d}']
      assert row['label'] == record[0]
      # Red, green and blue planes, row by row.
      planes = record[1:].reshape(3, 32, 32)
      for channel in range(3):
        found = row['image'][..., channel]
        np.testing.assert_array_equal(found, planes[channel])
  names = tfds.builder('cifar10', data_dir=root).info.features['label'].names
  assert names[0] == 'airplane' and names[9] == 'truck' and len(names) == 10


def test_second_preparation_does_nothing(idx_folder, tmp_path):
  first = tfds_sets.prepare('mnist', tmp_path / 'root', str(idx_folder))
  shutil.rmtree(idx_folder)
  again = tfds_sets.prepare('mnist', tmp_path / 'root', str(idx_folder))
  assert first == again


def _missing(path):
  path.unlink()


def _cut(path):
  path.write_bytes(path.read_bytes()[:-1])


def _flipped(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


@pytest.mark.parametrize(
  'damage, told',
  [(_missing, 'has no'), (_cut, 'bytes'), (_flipped, 'SHA-256')],
)
@pytest.mark.parametrize('file', IDX)
def test_damaged_originals_are_named(damage, told, file, idx_folder, tmp_path):
  damage(idx_folder / file)
  with pytest.raises(data.DataError, match=rf'{told}') as error:
    tfds_sets.prepare('mnist', tmp_path / 'root', str(idx_folder))
  assert file in str(error.value) and error.value.exit_code == 1
  assert not (tmp_path / 'root' / 'mnist').exists()


def test_damaged_archive_is_named(tar_folder, tmp_path):
  _flipped(tar_folder / TAR)
  with pytest.raises(data.DataError, match=f'{TAR}: has SHA-256'):
    tfds_sets.prepare('cifar10', tmp_path / 'root', str(tar_folder))


class Cut(RuntimeError):
  """The fault of this test."""


@pytest.mark.parametrize('fault', [Cut, KeyboardInterrupt])
def test_interrupted_preparation_leaves_nothing(
  fault, idx_folder, tmp_path, monkeypatch
):
  root = tmp_path / 'root'
  whole = builders.MNIST._generate_examples

  def some(self, images, labels):
    for n, example in enumerate(whole(self, images, labels)):
      if n == 2:
        raise fault('cut')
      yield example

  with monkeypatch.context() as patch:
    patch.setattr(builders.MNIST, '_generate_examples', some)
    with pytest.raises(fault):
      tfds_sets.prepare('mnist', root, str(idx_folder))
  with pytest.raises(data.DataError, match='is not prepared'):
    data.load('mnist', data_dir=str(root))
  assert not [p for p in root.rglob('*') if 'mnist' in p.name and p.is_file()]
  _, counts = tfds_sets.prepare('mnist', root, str(idx_folder))
  assert counts == {'train': TRAIN, 'test': TEST}


def test_what_a_killed_preparation_left_is_not_trusted(idx_folder, tmp_path):
  # Records without dataset_info.json, as kill -9 at the end may leave them.
  folder, _ = tfds_sets.prepare('mnist', tmp_path / 'root', str(idx_folder))
  (folder / 'dataset_info.json').unlink()
  (folder / 'stray').write_text('left over')
  with pytest.raises(data.DataError, match='is not prepared'):
    data.load('mnist', data_dir=str(tmp_path / 'root'))
  _, counts = tfds_sets.prepare('mnist', tmp_path / 'root', str(idx_folder))
  assert counts['train'] == TRAIN and not (folder / 'stray').exists()


@pytest.mark.parametrize('fault', [OSError, KeyboardInterrupt])
def test_process_that_comes_second_takes_what_the_first_prepared(
  fault, idx_folder, tmp_path, monkeypatch
):
  really = tfds_sets._download_and_prepare

  def second(builder, folder):
    really(builder, folder)
    raise fault('Cannot rename: Destination already exists')

  with monkeypatch.context() as patch:
    patch.setattr(tfds_sets, '_download_and_prepare', second)
    if fault is KeyboardInterrupt:  # is obeyed, and does no harm
      with pytest.raises(KeyboardInterrupt):
        tfds_sets.prepare('mnist', tmp_path, str(idx_folder))
    else:
      _, counts = tfds_sets.prepare('mnist', tmp_path, str(idx_folder))
      assert counts == {'train': TRAIN, 'test': TEST}
  assert data.load('mnist', data_dir=str(tmp_path)).size == TRAIN


@pytest.mark.multiprocess
def test_processes_may_start_on_digits_together(tmp_path):
  code = (
    'import sys; from gan_jax import data;'
    'print(data.load("digits", data_dir=sys.argv[1]).fingerprint)'
  )
  words = [sys.executable, '-c', code, str(tmp_path)]
  pipe = subprocess.PIPE
  started = [
    subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True)
    for _ in range(4)
  ]
  ended = [process.communicate(timeout=120) for process in started]
  assert [process.returncode for process in started] == [0] * 4, ended
  assert len({told.splitlines()[-1] for told, _ in ended}) == 1


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
  """A small CIFAR-10 as its archive unpacks."""
  folder = tmp_path / 'originals' / 'cifar-10-batches-bin'
  folder.mkdir(parents=True)
  sums = {}
  for n, name in enumerate(builders.CIFAR_MD5):
    content = records(2, 10 * n).tobytes()
    (folder / name).write_bytes(content)
    sums[name] = hashlib.md5(content).hexdigest()
  monkeypatch.setattr(builders, 'CIFAR_MD5', sums)
  return folder


@pytest.mark.parametrize('inside', [True, False])
@pytest.mark.parametrize('tested', [True, False])
def test_cifar10_is_prepared_from_its_batches(
  inside, tested, bin_folder, tmp_path
):
  if not tested:
    (bin_folder / 'test_batch.bin').unlink()
  given = bin_folder if inside else bin_folder.parent
  _, counts = tfds_sets.prepare('cifar10', tmp_path / 'root', str(given))
  assert counts == {'train': 10, **({'test': 2} if tested else {})}
  wanted = np.concatenate([records(2, 10 * n) for n in range(5)])
  pixels = wanted[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
  found = as_set(*read_back('cifar10', tmp_path / 'root'))
  assert found == as_set(pixels, wanted[:, 0])


@pytest.mark.parametrize(
  'damage, told',
  [(_missing, 'is missing beside'), (_cut, 'MD5'), (_flipped, 'MD5')],
)
def test_damaged_batches_are_named(damage, told, bin_folder, tmp_path):
  damage(bin_folder / 'data_batch_3.bin')
  with pytest.raises(data.DataError, match=rf'data_batch_3\.bin: .*{told}'):
    tfds_sets.prepare('cifar10', tmp_path / 'root', str(bin_folder))
  assert not (tmp_path / 'root' / 'cifar10').exists()


def _offline(told, root):
  text = as_flags(str(told.value))
  for file in IDX:
    assert f'https://storage.googleapis.com/cvdf-datasets/mnist/{file}' in text
  command = f'-m gan_jax.prepare --dataset=mnist --data_dir={root}'
  assert f'{command} --from=THAT_FOLDER' in text
  assert told.value.exit_code == 1


@pytest.mark.parametrize('error', [requests.ConnectionError, ConnectionError])
def test_no_network_tells_what_to_fetch(error, tmp_path, monkeypatch):
  def refuse(*args, **kwargs):
    raise error('no network')

  # Asked for once it answers, and there only a moment later.
  monkeypatch.setattr(
    urllib.request, 'urlopen', lambda *args, **kw: io.BytesIO()
  )
  monkeypatch.setattr(requests.Session, 'get', refuse)
  with pytest.raises(data.DataError, match='no network') as told:
    tfds_sets.prepare('mnist', tmp_path)
  _offline(told, tmp_path)


def test_no_network_is_told_within_ten_seconds(tmp_path, monkeypatch):
  def refuse(*args, **kwargs):
    raise socket.gaierror(-3, 'Temporary failure in name resolution')

  monkeypatch.setattr(socket, 'getaddrinfo', refuse)
  began = time.monotonic()
  with pytest.raises(data.DataError) as told:
    tfds_sets.prepare('mnist', tmp_path)
  assert time.monotonic() - began < 10
  _offline(told, tmp_path)
  assert not (tmp_path / 'mnist' / '3.0.1').exists()


def test_full_disk_is_no_lack_of_tensorflow(tmp_path, monkeypatch):
  # TFDS's own folder has TensorFlow in its name.
  root = tmp_path / 'tensorflow_datasets'

  def full(*args):
    raise OSError(28, 'No space left on device', str(root))

  monkeypatch.setattr(tfds_sets, '_download_and_prepare', full)
  with pytest.raises(data.DataError, match='`data_dir=.*No space left'):
    tfds_sets.prepare('mnist', root)


def test_other_sets_ask_for_tensorflow(tmp_path, monkeypatch):
  def missing(*args):
    raise ImportError('No module named tensorflow')

  monkeypatch.setattr(tfds_sets, '_download_and_prepare', missing)
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(data.DataError, match=r'kmnist.*gan_jax\[tfds\]'):
    tfds_sets.prepare('kmnist', tmp_path)


def command(*words, home=None):
  env = {**os.environ, 'HOME': str(home or '/nonexistent')}
  env.pop('TFDS_DATA_DIR', None)
  done = subprocess.run(
    [sys.executable, '-m', 'gan_jax.prepare', *words],
    capture_output=True,
    text=True,
    env=env,
    timeout=120,
  )
  assert 'Traceback' not in done.stderr
  return done


def test_command_prepares_digits(tmp_path):
  done = command('--dataset=digits', f'--data_dir={tmp_path}')
  assert done.returncode == 0, done.stderr
  assert 'preparing digits in' in done.stderr  # and no more than is true
  assert 'download' not in done.stderr.replace('nothing is downloaded', '')
  assert 'ownload' not in done.stdout
  assert 'digits 1.0.0: 1,797 train images' in done.stdout
  assert 'gan_jax.train --workdir=runs/digits --dataset=digits' in done.stdout
  assert data.load('digits', data_dir=str(tmp_path)).size == 1797


def test_command_warns_of_originals_that_it_does_not_read(idx_folder, tmp_path):
  root = f'--data_dir={tmp_path / "root"}'
  words = ['--dataset=mnist', root, f'--from={idx_folder}']
  for told in ('', f'{words[2]}: has no effect: mnist was prepared before'):
    done = commands.run('prepare', *words)
    assert done.returncode == 0 and told in done.stderr
    assert bool(told) == ('warning' in done.stderr)
  done = commands.run('prepare', '--dataset=digits', *words[1:])
  assert 'has no effect: digits come with scikit-learn' in done.stderr


@pytest.mark.parametrize(
  'words, code, told',
  [
    ([], 2, '--dataset=: name a set'),
    (['--dataset=mnits'], 2, 'did you mean mnist'),
    (['--dataset=mnist', '--from=nowhere'], 2, '--from=nowhere: no such'),
    (['--dataset=mnist', '--from=.'], 1, 'has no t10k-images-idx3-ubyte.gz'),
    (['--dataset=mnist', 'x'], 2, 'x: not a flag'),
    (['--datasets=mnist'], 2, 'did you mean --dataset?'),
  ],
)
def test_command_tells_errors(words, code, told, tmp_path):
  done = command(*words, home=tmp_path)
  assert done.returncode == code, done.stderr
  assert done.stderr.startswith('error: ') and told in done.stderr


def test_command_leaves_densities_alone():
  done = command('--dataset=ring')
  assert done.returncode == 0 and 'needs no preparation' in done.stdout


def test_the_command_takes_originals_from_where_it_is_told(
  monkeypatch, tmp_path
):
  asked = []

  def prepare(name, data_dir='', originals=''):
    asked.append((name, data_dir, originals))
    return tmp_path / 'root' / name / '1.0.0', {'train': 60000}

  monkeypatch.setattr(data, 'prepare', prepare)
  root, folder = f'{tmp_path}/root', f'{tmp_path}/originals'
  words = ('--dataset=mnist', f'--data_dir={root}', f'--from={folder}')
  done = commands.run('prepare', *words)
  assert done.returncode == 0, done.stderr
  assert asked == [('mnist', root, folder)]
  assert done.stdout.startswith('mnist 1.0.0: 60,000 train images in ')
  assert f'--dataset=mnist --data_dir={root}' in done.stdout
