"""Atomic files: either whole or not there.

A crash, a full disk or a kill leaves the old file or the new one, never a half.
"""

import contextlib
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import IO

from gan_jax.runtime.errors import ArgumentError

Path = str | os.PathLike[str]
_PARTIAL = '.partial'
_LEFT = 3600.0  # seconds after which nobody is still writing a file


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
  """A file to write into, which takes the name `path` when it is closed.

  Until then it lies under another name beside it; an exception removes it.
  """
  path = pathlib.Path(path)
  handle, name = tempfile.mkstemp(
    prefix=f'.{path.name}.', suffix=_PARTIAL, dir=path.parent
  )
  try:
    with os.fdopen(handle, 'wb') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.chmod(name, 0o644)
    os.replace(name, path)
  except BaseException:
    with contextlib.suppress(FileNotFoundError):
      os.unlink(name)
    raise


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
  """Writes a file in one step."""
  with open_atomic(path) as file:
    file.write(content.encode() if isinstance(content, str) else content)


def check_path(path: pathlib.Path) -> None:
  """Refuses a folder that no checkpoint can be saved in.

  Raises:
    ArgumentError: naming the characters.
  """
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
