"""Atomic files: either whole or not there.

A crash, a full disk or a kill leaves the old file or the new one, never a half.
"""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import IO

Path = str | os.PathLike[str]


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
  """A file to write into, which takes the name `path` when it is closed.

  Until then it lies under another name beside it; an exception removes it.
  """
  path = pathlib.Path(path)
  handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
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


def write_atomic(path: Path, content: bytes | str) -> None:
  """Writes a file in one step."""
  with open_atomic(path) as file:
    file.write(content.encode() if isinstance(content, str) else content)
