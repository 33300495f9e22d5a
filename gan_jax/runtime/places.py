"""Names of files and folders as people write them.

`~` is the home folder wherever a place is named. `gs://...` and its like name
an object store (`store.py`) where an argument may be one, and are refused
elsewhere: a folder `gs:` in the working directory helps nobody.
"""

import errno
import functools
import os
import pathlib
import re
import stat
import sys
import tempfile

from gan_jax.runtime import terminal
from gan_jax.runtime.errors import ArgumentError, DataError

# With one slash too, which pathlib leaves of two.
_SCHEME = re.compile(
  r'(?:folder:|density:|prepared:)?(?:([a-z][a-z0-9+.-]+)://|(gs|s3|hdfs|abfs|https?):/)',
  re.IGNORECASE,
)
_URL = re.compile(r'([a-z][a-z0-9+.-]+)://.', re.IGNORECASE)
_OF_STORES = ('compilation_cache', 'data_dir', 'workdir')  # may be a URL
Place = str | os.PathLike[str]
PICKS = 'autotune_results'  # begins what says which kernels XLA picked


def scheme_of(place: Place) -> str:
  """The scheme of a URL of an object store, in lower case; or nothing.

  >>> scheme_of('s3://bucket/runs/1'), scheme_of('runs/1')
  ('s3', '')
  """
  match = _URL.match(os.fspath(place))
  scheme = match[1].lower() if match else ''
  return '' if scheme == 'file' else scheme


def find_fault(place: Place, argument: str = '') -> str:
  """What is wrong with the name of a place, and the remedy; or nothing.

  Args:
    place: as it was written.
    argument: that names it; some may be in an object store.

  >>> find_fault('runs/1')
  ''
  >>> find_fault('gs://bucket/run')
  'gs:// is no folder of this machine; mount it and name the folder'
  >>> find_fault('gs://bucket/run', 'workdir')
  ''
  """
  text = os.fspath(place)
  kind, _, below = text.partition(':')
  of_images = argument == 'dataset' and kind in ('folder', 'prepared')
  if of_images and scheme_of(below):
    return ''
  match = _SCHEME.match(text)
  scheme = (match[1] or match[2]).lower() if match else ''
  if scheme == 'file':
    return 'leave file:// out'
  if argument in _OF_STORES and scheme_of(text):
    return ''
  if argument in (*_OF_STORES, 'dataset') and match and match[2]:
    return f'write it as a text, {scheme}://...: a path has lost a slash of it'
  if scheme:
    return (
      f'{scheme}:// is no folder of this machine; mount it and name the folder'
    )
  if '\0' in text:
    return 'has a NUL in it'
  try:
    text.encode()
  except UnicodeEncodeError:
    return 'its name is not UTF-8; rename it'
  if text.startswith('~') and os.path.expanduser(text) == text:
    user = re.split(r'[/\\\\]', text)[0]
    who = f'user {user[1:]} is not known' if user[1:] else 'HOME is not set'
    return f'the home folder is not known ({who}); write it out'
  return ''


def resolve(argument: str, place: Place, value: str = '') -> str:
  """A place with the home folder in the place of `~`; a URL as it is.

  Args:
    argument: that names it, for the message.
    place: as it was written.
    value: of the argument, where the place is a part of it.

  Raises:
    ArgumentError: for one that cannot be on this machine, nor in a store where
      the argument may be there.
  """
  fault = find_fault(place, argument)
  if fault:
    value = value or printable(os.fspath(place))
    raise ArgumentError(argument, value, fault)
  return os.path.expanduser(place)


def resolved(argument: str, place: Place, value: str = '') -> pathlib.Path:
  """`resolve` as a path, which no URL can be."""
  fault = find_fault(place)
  if fault:
    raise ArgumentError(argument, value or printable(os.fspath(place)), fault)
  return pathlib.Path(resolve(argument, place, value))


def check_workdir(path: pathlib.Path) -> None:
  """Refuses a folder that no checkpoint can be saved in.

  Raises:
    ArgumentError: naming the characters.
  """
  resolved('workdir', path)
  bad = [part for part in path.absolute().parts if part in ('gs:', 's3:')]
  if os.name != 'nt' and '\\' in str(path.absolute()):
    bad.append('\\')  # TensorStore writes into the folder a/b for a\b
  if bad:
    raise ArgumentError(
      'workdir',
      str(path),
      f'its whole path has {bad[0]} in it, which checkpoints cannot be saved'
      ' under; use a folder whose name has not',
    )


def below_home(text: str) -> pathlib.Path:
  """A default place below the home folder.

  Where nobody knows that (no HOME, a user without a name, as containers have
  them) below a folder of temporary files that belongs to this user alone.

  Args:
    text: the place, beginning with `~/`.

  Raises:
    DataError: if there is no such folder either.
  """
  place = os.path.expanduser(text)
  if place != text:
    return pathlib.Path(place)
  user = os.getuid() if hasattr(os, 'getuid') else 'user'
  home = pathlib.Path(tempfile.gettempdir()) / f'gan_jax-{user}'
  try:
    home.mkdir(mode=0o700, exist_ok=True)
    status = home.lstat()
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    if not is_own or status.st_mode & 0o022:
      raise PermissionError(errno.EPERM, f'{home} is not of this user alone')
  except OSError as error:
    raise DataError(
      f'the home folder is not known, and {home} cannot be used'
      f' ({error.strerror or error}); set HOME'
    ) from error
  _warn_once(f'the home folder is not known (set HOME): {home} in its place')
  return home / text[2:]


@functools.cache
def _warn_once(text: str) -> None:
  terminal.tell(f'warning: {text}', sys.stderr)


def printable(text: str) -> str:
  """A text that any terminal and file takes: bytes of no letter escaped."""
  return text.encode(errors='backslashreplace').decode()


__all__ = [
  'PICKS',
  'below_home',
  'check_workdir',
  'find_fault',
  'printable',
  'resolve',
  'resolved',
  'scheme_of',
]
