"""Image files as they are, in shards of array_record, decoded at each visit.

For sets whose pixels do not fit on the disk. A folder of them is as `rows.py`
says, but for its shards: `shard-00000.array_record` and so on hold the files,
one a record, of which `hashes.npy` has the SHA-256, compared at each visit.
Nothing here imports JAX.
"""

import errno
import functools
import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gan_jax.data.rows import Sums
from gan_jax.runtime.files import open_atomic

SUFFIX = '.array_record'
_OPEN = 256  # shards that are open at once
_WRITER = 'group_size:1,uncompressed'  # each record is read by itself
_READER = 'readahead_buffer_size:0,max_parallelism:0'


class Record(NamedTuple):
  """A file in a shard: the shard's path, and the number of its record."""

  shard: str
  number: int

  def __str__(self) -> str:
    """As messages name it."""
    return f'{self.shard}: record {self.number}'


@functools.lru_cache(maxsize=_OPEN)
def _open(shard: str) -> Any:
  from array_record.python import array_record_module

  return array_record_module.ArrayRecordReader(
    shard, _READER, file_reader_buffer_size=2**16
  )


def read(record: Record) -> bytes:
  """The content of a file.

  Raises:
    OSError: if it cannot be had. What has been cut may come back empty: the
      hash tells.
  """
  try:
    (content,) = _open(record.shard).read([record.number])
  except (RuntimeError, ValueError) as error:
    raise _as_os_error(error) from error
  return content


def close() -> None:
  """Closes all shards; whoever reads one opens it again."""
  _open.cache_clear()


def _as_os_error(error: Exception) -> OSError:
  """What the library says with the words of the operating system."""
  text = str(error).splitlines()[0][:200]
  for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
    if os.strerror(code) in text:
      return OSError(code, os.strerror(code))
  return OSError(text)


def write_shard(path: pathlib.Path, contents: Sequence[bytes]) -> Sums:
  """Writes files as a shard, in one step.

  Raises:
    OSError: if it cannot be written.
  """
  from array_record.python import array_record_module

  try:
    with open_atomic(path) as file:
      writer = array_record_module.ArrayRecordWriter(file.name, _WRITER)
      for content in contents:
        writer.write(content)
      writer.close()
      return sum_shard(pathlib.Path(file.name))
  except RuntimeError as error:
    raise _as_os_error(error) from error


def sum_shard(path: pathlib.Path) -> Sums:
  """What a shard that is there is checked by.

  Raises:
    OSError: if it cannot be read.
  """
  with open(path, 'rb') as file:
    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
  return Sums(sha256, np.zeros(0, np.uint32))


__all__ = ['SUFFIX', 'Record', 'close', 'read', 'sum_shard', 'write_shard']
