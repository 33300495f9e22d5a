"""Files that are either whole or not there.

A crash, a full disk or a kill leaves the old file or the new one, never a half.
"""

import contextlib
import os
import pathlib
import tempfile

Path = str | os.PathLike[str]


def write_atomic(path: Path, content: bytes | str) -> None:
  """Writes a file in one step: a temporary one beside it, then a rename."""
  path = pathlib.Path(path)
  data = content.encode() if isinstance(content, str) else content
  handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
  try:
    with os.fdopen(handle, 'wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(name, 0o644)
    os.replace(name, path)
  except BaseException:
    with contextlib.suppress(FileNotFoundError):
      os.unlink(name)
    raise
