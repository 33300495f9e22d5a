"""Names of files and folders: home folders, schemes, odd letters."""

import os
import pwd
import stat
import tempfile

import pytest

from gan_jax.runtime import places
from gan_jax.runtime.errors import ArgumentError, DataError


@pytest.fixture
def nobody(monkeypatch, tmp_path):
  """A user whom the system does not know, without HOME."""

  def unknown(uid):
    raise KeyError(uid)

  monkeypatch.delenv('HOME', raising=False)
  monkeypatch.setattr(pwd, 'getpwuid', unknown)
  monkeypatch.setattr(tempfile, 'gettempdir', lambda: str(tmp_path))
  places._warn_once.cache_clear()
  return tmp_path / f'gan_jax-{os.getuid()}'


@pytest.mark.parametrize(
  'place', ['runs/1', '/a:b/c', 'a//b', 'folder:/data', 'density:x', 'C:/x', '']
)
def test_places_of_this_machine(place):
  assert places.find_fault(place) == ''
  assert places.resolve('out', place) == place


@pytest.mark.parametrize(
  'place, fault',
  [
    ('gs://b/r', 'gs:// is no folder of this machine; mount it'),
    ('gs:/b/r', 'gs:// is no folder'),  # as pathlib has it
    ('S3://b', 's3:// is no folder'),
    ('hf+x://b', 'hf[+]x:// is no folder'),
    ('folder:gs://b', 'gs:// is no folder'),
    ('file:///a', 'leave file:// out'),
    ('a\0b', 'has a NUL in it'),
    ('a\udcff', 'its name is not UTF-8; rename it'),
    ('~nobody_here/x', 'user nobody_here is not known'),
  ],
)
def test_what_is_no_place(place, fault):
  with pytest.raises(ArgumentError, match=f'^`out=.*{fault}') as error:
    places.resolve('out', place)
  str(error.value).encode()


@pytest.mark.parametrize('argument', ['workdir', 'data_dir', 'dataset'])
def test_what_may_be_in_a_store(argument):
  url = 'S3://b/r/~x'
  of_images = f'folder:{url}' if argument == 'dataset' else url
  assert places.resolve(argument, of_images) == of_images
  with pytest.raises(ArgumentError, match='s3:// is no folder of this machine'):
    places.resolved(argument, of_images)  # which would become a folder `S3:`
  with pytest.raises(ArgumentError, match='s3:// is no folder'):
    places.resolve('out', url)
  if argument == 'dataset':
    with pytest.raises(ArgumentError, match='s3:// is no folder'):
      places.resolve(argument, f'density:{url}')
  with pytest.raises(ArgumentError, match='s3://...: a path has lost a slash'):
    places.resolve(argument, 's3:/b')
  with pytest.raises(ArgumentError, match='leave file:// out'):
    places.resolve(argument, 'file:///a')


def test_home(monkeypatch):
  monkeypatch.setenv('HOME', '/home/ian')
  assert places.resolve('out', '~/x') == '/home/ian/x'
  assert places.resolve('out', 'a/~') == 'a/~'
  assert str(places.below_home('~/.cache')) == '/home/ian/.cache'


def test_without_a_home_a_folder_of_this_user(nobody, capsys):
  assert places.below_home('~/.cache/x') == nobody / '.cache' / 'x'
  assert places.below_home('~/y') == nobody / 'y'
  assert stat.S_IMODE(nobody.stat().st_mode) == 0o700
  said = capsys.readouterr().err
  assert said.count('the home folder is not known (set HOME)') == 1
  with pytest.raises(ArgumentError, match='HOME is not set'):
    places.resolve('workdir', '~/x')


@pytest.mark.parametrize('kind', ['open to all', 'a link', 'a file'])
def test_a_folder_that_another_may_write_to_is_not_used(kind, nobody):
  if kind == 'open to all':
    nobody.mkdir()
    nobody.chmod(0o777)
  elif kind == 'a link':
    nobody.symlink_to(nobody.parent)
  else:
    nobody.touch()
  with pytest.raises(
    DataError, match='the home folder is not known, and .*HOME'
  ):
    places.below_home('~/x')
