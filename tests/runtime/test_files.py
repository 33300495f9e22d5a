"""Atomic files, and what is said where they cannot be written."""

import errno
import os
import pathlib
import time

import pytest

from gan_jax.runtime import files
from gan_jax.runtime.errors import ArgumentError


def refuse(code):
  def call(*args, **options):
    raise OSError(code, os.strerror(code))

  return call


def test_a_file_has_the_permissions_of_the_users_mask(tmp_path):
  before = os.umask(0o077)
  try:
    files.write_atomic(tmp_path / 'a', 'x')
    os.umask(0o002)
    files.write_atomic(tmp_path / 'b', 'x')
  finally:
    os.umask(before)
  modes = [(tmp_path / name).stat().st_mode & 0o777 for name in 'ab']
  assert modes == [0o600, 0o664]


@pytest.mark.parametrize('code', [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_file_systems_that_can_do_less(code, tmp_path, monkeypatch):
  """No chmod, no fsync."""
  monkeypatch.setattr(os, 'chmod', refuse(errno.EPERM))
  monkeypatch.setattr(os, 'fsync', refuse(code))
  files.write_atomic(tmp_path / 'a', 'x')
  assert (tmp_path / 'a').read_text() == 'x'


@pytest.mark.parametrize('call', ['fsync', 'replace'])
def test_a_write_that_fails_leaves_the_old_file_alone(
  call, tmp_path, monkeypatch
):
  files.write_atomic(tmp_path / 'a', 'old')
  monkeypatch.setattr(os, call, refuse(errno.EIO))
  with pytest.raises(OSError, match='Input/output error'):
    files.write_atomic(tmp_path / 'a', 'new')
  assert [path.name for path in tmp_path.iterdir()] == ['a']
  assert (tmp_path / 'a').read_text() == 'old'


# error -> (exit code of a command, what helps, whether room is spoken of)
FAILURES = {
  'full': (OSError(errno.ENOSPC, 'No space left'), 1, 'make room', True),
  'quota': (OSError(errno.EDQUOT, 'Disk quota'), 1, 'make room', True),
  'full, by a library': (
    ValueError('RESOURCE_EXHAUSTED: No space left on device'),
    1,
    'make room',
    True,
  ),
  'permission': (
    OSError(errno.EACCES, 'Permission denied'),
    2,
    'use a folder that you may write to',
    False,
  ),
  'read only': (OSError(errno.EROFS, 'Read-only'), 2, 'may write to', False),
  'too large': (OSError(errno.EFBIG, 'File too large'), 2, 'ulimit', False),
  'gone': (
    OSError(errno.ENOENT, 'No such file or directory'),
    2,
    'removed or renamed meanwhile',
    False,
  ),
  'gone, by a library': (ValueError('NOT_FOUND: Error'), 2, 'removed', False),
  'in the way': (OSError(errno.EEXIST, 'File exists'), 2, 'in the way', False),
  'disk': (OSError(errno.EIO, 'Input/output error'), 2, 'Input/output', False),
}


@pytest.mark.parametrize('case', sorted(FAILURES))
def test_what_helps_against_a_failed_write(case, tmp_path):
  error, code, help, room = FAILURES[case]
  made = files.cannot_write('out', tmp_path / 'gone' / 'x.png', error)
  assert made.exit_code == code and isinstance(made, ArgumentError) == (
    code == 2
  )
  assert str(made).startswith('`out=/')
  assert help in str(made)
  assert ('MiB are free' in str(made)) == room
  assert '\n' not in str(made)


def test_all_bytes_are_on_the_disk_before_the_file_has_its_name(
  tmp_path, monkeypatch
):
  """A machine that goes down at any moment leaves the old file or the new."""
  order, fsync, replace = [], os.fsync, os.replace

  def synced(number):
    order.append(('sync', os.fstat(number).st_size))
    fsync(number)

  def renamed(old, new):
    order.append(('rename', pathlib.Path(old).stat().st_size))
    replace(old, new)

  monkeypatch.setattr(os, 'fsync', synced)
  monkeypatch.setattr(os, 'replace', renamed)
  files.write_atomic(tmp_path / 'a', 'x' * 100)
  assert order == [('sync', 100), ('rename', 100)]
  assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_only_old_leftovers_are_removed(tmp_path):
  """Who writes now is let be."""
  names = ('.a.0123.partial', '.b.0123.partial', 'c.partial', '.d')
  for name in names:
    (tmp_path / name).touch()
  for name, age in zip(names, (7200, 600, 7200, 7200)):
    os.utime(tmp_path / name, (time.time() - age,) * 2)
  files.remove_leftovers(tmp_path)
  assert {path.name for path in tmp_path.iterdir()} == {*names[1:]}


def test_a_name_that_is_no_text_is_escaped(tmp_path):
  files.write_atomic(tmp_path / 'a', os.fsdecode(b'x\xff') + 'é')
  assert (tmp_path / 'a').read_text('utf-8') == 'x\\udcffé'


def test_free_room_is_told_in_mebibytes(tmp_path, monkeypatch):
  usage = files.shutil._ntuple_diskusage(0, 0, 3 * 2**20)
  monkeypatch.setattr(files.shutil, 'disk_usage', lambda path: usage)
  error = OSError(errno.ENOSPC, 'No space left')
  said = files.describe_failed_write(tmp_path, error)
  assert said == 'No space left, 3 MiB are free there; make room'
