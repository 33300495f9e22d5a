"""Data in an object store, copied once."""

import errno
import os

import pytest
from helpers import stores

from gan_jax import data
from gan_jax.data.listing import list_files
from gan_jax.runtime import copies, store
from gan_jax.runtime.errors import Error

URL = 'flaky://b/set'


@pytest.fixture(autouse=True)
def flaky(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  monkeypatch.setattr(store, '_PAUSES', (0.01, 0.02))
  with stores.flaky() as flaky:
    yield flaky


def gets(flaky):
  """Names of the objects that a fetch gets, and the folder."""
  got = []

  def fault(call, path):
    if call == 'get':
      got.append(path.removeprefix('/b/set/'))

  flaky.fault = staticmethod(fault)
  place = copies.fetch(URL, 'dataset')
  return sorted(got), place


def test_only_what_has_changed_is_fetched(flaky, tmp_path):
  place = store.Store(URL)
  for name in ('a', 'b/c', 'b/d'):
    place.write(name, name.encode())
  got, folder = gets(flaky)
  assert got == ['a', 'b/c', 'b/d'] and folder == copies.folder_of(URL)
  assert folder.is_relative_to(tmp_path / 'home')
  assert (folder / 'b' / 'c').read_bytes() == b'b/c'
  time = place.list()['a'].time
  assert os.stat(folder / 'a').st_mtime == pytest.approx(time, abs=1e-3)
  assert gets(flaky)[0] == []
  place.write('b/c', b'new')
  place.remove(['b/d'])
  (folder / 'a').write_bytes(b'cut')
  assert gets(flaky)[0] == ['a', 'b/c']
  assert (folder / 'b' / 'c').read_bytes() == b'new'
  assert not (folder / 'b' / 'd').exists()
  other = copies.folder_of('flaky://other/set')
  assert other != folder and not copies.fetch(f'{URL}/none', 'x').exists()


def test_what_is_kept_of_a_copy_is_no_file_of_the_set(flaky):
  for name in ('a.png', 'notes.txt', '.hidden'):
    store.Store(URL).write(name, b'1')
  folder = copies.fetch(URL, 'dataset')
  assert copies.OWN[0] in os.listdir(folder)
  listing, left_out = list_files(folder)
  assert listing.names == ['a.png']
  assert left_out == {'.txt file': 1, 'hidden file': 1}


def test_what_was_interrupted_goes_on(flaky):
  place = store.Store(URL)
  for name in 'abc':
    place.write(name, b'1')

  def fault(call, path):
    if call == 'get' and path.endswith('b'):
      raise PermissionError('Forbidden')

  flaky.fault = staticmethod(fault)
  with pytest.raises(ValueError, match='Forbidden'):
    copies.fetch(URL, 'dataset')
  assert gets(flaky)[1].joinpath('b').read_bytes() == b'1'


def test_prepared_rows_are_the_same_set(tmp_path, digits_root):
  root = {'data_dir': str(digits_root)}
  here = data.write_rows('digits', tmp_path / 'rows', **root)
  copies.put(tmp_path / 'rows', URL, 'dataset')
  there = data.load(f'prepared:{URL}', **root)
  assert there.name == f'prepared:{URL}'
  assert there.fingerprint == here.fingerprint
  assert (there.source[5] == here.source[5]).all()


def test_a_data_root(tmp_path, digits_root, monkeypatch):
  copies.put(digits_root, 'flaky://b/root', 'data_dir')
  root = {'data_dir': 'flaky://b/root'}
  here = data.load('digits', data_dir=str(digits_root))
  monkeypatch.setattr(
    'gan_jax.data.tfds_sets.prepare', lambda *a: pytest.fail('prepared again')
  )
  there = data.load('digits', **root)
  assert there.fingerprint == here.fingerprint


def test_a_set_is_there_once_what_says_so_is(flaky, tmp_path):
  for name in ('dataset_info.json', 'z.array_record'):
    (tmp_path / 'own').mkdir(exist_ok=True)
    (tmp_path / 'own' / name).write_bytes(b'1')
  told = []
  flaky.fault = staticmethod(
    lambda call, path: told.append(path) if call == 'put' else None
  )
  copies.put(tmp_path / 'own', URL, 'data_dir')
  assert [path.rpartition('/')[2] for path in told] == [
    'z.array_record',
    'dataset_info.json',
  ]


def test_a_full_disk_is_no_store_that_is_away(flaky):
  store.Store(URL).write('a', b'1')

  def fault(call, path):
    if call == 'get':
      raise OSError(errno.ENOSPC, 'No space left on device', path)

  flaky.fault = staticmethod(fault)
  with pytest.raises(Error, match='this machine cannot be written .No space'):
    copies.fetch(URL, 'dataset')
