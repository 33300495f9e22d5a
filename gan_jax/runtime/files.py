"""Atomic files: either whole or not there.

A crash, a full disk or a kill leaves the old file or the new one, never a half.
"""

import contextlib
import errno
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Iterator
from typing import IO, Any

from gan_jax.runtime.errors import ArgumentError, Error

Path = str | os.PathLike[str]
_PARTIAL = '.partial'
_LEFT = 3600.0  # seconds after which nobody is still writing a file


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
  """A file to write into, which takes the name `path` when it is closed.

  Until then it lies under another name beside it; an exception removes it.
  """
  path = pathlib.Path(path)
  name = path.with_name(f'.{path.name}.{secrets.token_hex(4)}{_PARTIAL}')
  # Made with the permissions that the user's mask gives: none is changed.
  with open(name, 'xb') as file:
    try:
      yield file
      file.flush()
      sync(file)
      file.close()
      os.replace(name, path)
    except BaseException:
      with contextlib.suppress(OSError):
        file.close()
      with contextlib.suppress(OSError):
        os.unlink(name)
      raise


def sync(file: IO[Any]) -> None:
  """Waits until a file is on the disk, where the file system can say so."""
  try:
    os.fsync(file.fileno())
  except OSError as error:
    if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
      raise


_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXTS = ('no space left', 'quota exceeded', 'resource_exhausted')
_GONE_TEXTS = (
  'file exists',
  'no such file',
  'not a directory',
  'stale file',
  'not_found',
)


def is_full(error: BaseException) -> bool:
  """Whether a write failed for want of room on the disk."""
  if isinstance(error, OSError) and error.errno:
    return error.errno in _FULL
  return any(text in str(error).lower() for text in _FULL_TEXTS)


def cannot_write(
  argument: str, place: Path, error: BaseException, name: str = ''
) -> Error:
  """The error of a place that an argument names and nothing can be written at.

  A full disk is no fault of the argument: a command ends with 1 then.

  Args:
    argument: that names the place.
    place: file or folder.
    error: of the operating system.
    name: of the file, where the place is its folder.
  """
  what = f'{name} there' if name else 'there'
  text = f'cannot write {what}: {describe_failed_write(place, error)}'
  if is_full(error):
    return Error(f'`{argument}={os.fspath(place)}`: {text}')
  return ArgumentError(argument, os.fspath(place), text)


def describe_failed_write(place: Path, error: BaseException) -> str:
  """Why nothing could be written at a place, and what helps.

  Args:
    place: file or folder.
    error: of the operating system, or of a library that has its text.
  """
  folder = pathlib.Path(place)
  while not folder.is_dir() and folder != folder.parent:
    folder = folder.parent
  reason = getattr(error, 'strerror', None) or str(error).strip()
  reason = (reason or repr(error)).splitlines()[0][:300]
  if is_full(error):
    free = shutil.disk_usage(folder).free / 2**20
    return f'{reason}, {free:.0f} MiB are free there; make room'
  code = getattr(error, 'errno', None)
  if code == errno.EFBIG:
    return f'{reason}; raise the limit on the size of files (ulimit -f)'
  if code in (errno.EACCES, errno.EPERM, errno.EROFS):
    return f'{reason}; use a folder that you may write to'
  if any(text in str(error).lower() for text in _GONE_TEXTS):
    return (
      f'{reason}: a file or folder was removed or renamed meanwhile, or is in'
      ' the way; bring it back'
    )
  return reason


def remove_leftovers(*folders: Path) -> None:
  """Removes what writers that were killed have left unfinished.

  Only what is an hour old: another process may be writing.
  """
  oldest = time.time() - _LEFT
  for folder in folders:
    for path in pathlib.Path(folder).glob(f'.*{_PARTIAL}'):
      with contextlib.suppress(OSError):  # another process was first
        if path.stat().st_mtime < oldest:
          path.unlink()


def write_atomic(path: Path, content: bytes | str) -> None:
  """Writes a file in one step; a name that is not UTF-8 is escaped in it."""
  if isinstance(content, str):
    content = content.encode(errors='backslashreplace')
  with open_atomic(path) as file:
    file.write(content)
