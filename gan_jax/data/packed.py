"""Files in a zip or tar, read where they lie: nothing is unpacked.

Only archives whose files can be read one by one: a tar that is compressed as a
whole is none of these. Nothing here imports JAX.
"""

import io
import json
import os
import pathlib
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan_jax.runtime.array_cache import read_sealed, write_sealed
from gan_jax.runtime.errors import DataError

SUFFIXES = ('.zip', '.tar')
_HEADER = 30  # bytes before the name of a file in a zip
_LARGEST = 2**30  # bytes of one file, unpacked
_INDEX = 'index.npz'


class Member(NamedTuple):
  """A file in an archive.

  Attributes:
    archive: its path.
    name: of the file in it.
    offset: of its bytes in a tar, of its header in a zip.
    packed: bytes that it has in the archive.
    size: bytes of its content.
    crc: CRC-32 of the content; -1 in a tar.
    deflated: whether it is compressed.
  """

  archive: str
  name: str
  offset: int
  packed: int
  size: int
  crc: int
  deflated: bool

  def __str__(self) -> str:
    """As messages name it."""
    return f'{self.archive}: {self.name}'


def read(member: Member) -> bytes:
  """The content of a file.

  Raises:
    OSError: if it cannot be had.
  """
  if member.size > _LARGEST:
    raise OSError(f'has {member.size:,} bytes')
  with open(member.archive, 'rb') as file:
    file.seek(member.offset)
    if member.crc >= 0:
      header = file.read(_HEADER)
      if header[:4] != b'PK\3\4' or len(header) < _HEADER:
        raise OSError('is damaged')
      file.seek(sum(struct.unpack('<HH', header[26:])), io.SEEK_CUR)
    content = file.read(member.packed)
  if member.deflated:
    try:
      unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
      content = unpacker.decompress(content, member.size + 1)
    except zlib.error as error:
      raise OSError(f'is damaged ({error})') from error
  wrong = member.crc >= 0 and zlib.crc32(content) != member.crc
  if len(content) != member.size or wrong:
    raise OSError('is damaged')
  return content


class Index(NamedTuple):
  """The files of an archive, in its order.

  Attributes:
    names: of the files.
    places: offset, packed, size, crc and deflated of each, (n, 5), as `Member`
      has them.
    others: how many things there are that are neither files nor folders.
  """

  names: list[str]
  places: NDArray[np.int64]
  others: int

  def members(
    self, archive: str, rows: Sequence[int] | NDArray[Any]
  ) -> list[Member]:
    """Some of the files."""
    found = []
    for i in rows:
      offset, size_there, size, crc, deflated = self.places[i].tolist()
      place = offset, size_there, size, crc, bool(deflated)
      found.append(Member(archive, self.names[i], *place))
    return found


def read_index(archive: pathlib.Path, cache: pathlib.Path | None) -> Index:
  """The files of an archive; kept, as to list a million takes a while.

  Args:
    archive: the file.
    cache: a folder for it to be kept in; None for none.

  Raises:
    DataError: for what is no such archive, or is encrypted.
  """
  status = os.stat(archive)
  key = json.dumps([str(archive), status.st_size, status.st_mtime_ns])
  arrays = read_sealed(cache / _INDEX) if cache else None
  if arrays is not None and str(arrays['key']) == key:
    names = arrays['names'].tobytes().split(b'\0')
    return Index(
      [os.fsdecode(n) for n in names], arrays['places'], int(arrays['others'])
    )
  listing = _list_zip if archive.suffix.lower() == '.zip' else _list_tar
  index = _explained(archive, listing)
  if cache and index.names:
    packed = b'\0'.join(map(os.fsencode, index.names))
    arrays = {
      'key': np.array(key),
      'names': np.frombuffer(packed, np.uint8),
      'places': index.places,
      'others': np.array(index.others),
    }
    try:
      write_sealed(cache / _INDEX, arrays)
    except OSError:  # it is listed again at the next start
      pass
  return index


def _explained(
  archive: pathlib.Path, listing: Callable[[pathlib.Path], Index]
) -> Index:
  try:
    return listing(archive)
  except DataError:
    raise
  except Exception as error:  # zipfile and tarfile raise many kinds
    why = (str(error) or repr(error)).splitlines()[0][:200]
    raise DataError(
      f'{archive}: cannot be read as {archive.suffix} ({why}); it is damaged or'
      ' something else, get it again'
    ) from error


def _list_zip(archive: pathlib.Path) -> Index:
  found: dict[str, tuple[int, ...]] = {}
  with zipfile.ZipFile(archive) as file:
    for info in file.infolist():
      if info.is_dir():
        continue
      deflated = info.compress_type == zipfile.ZIP_DEFLATED
      if info.flag_bits & 1 or not (
        deflated or info.compress_type == zipfile.ZIP_STORED
      ):
        raise DataError(
          f'{archive}: {info.filename} is encrypted, or compressed in a way'
          ' that is rare; unpack it and name the folder'
        )
      place = info.header_offset, info.compress_size, info.file_size, info.CRC
      found[info.filename] = (*place, deflated)
  return _index(found, 0)


def _list_tar(archive: pathlib.Path) -> Index:
  found: dict[str, tuple[int, ...]] = {}
  others = 0
  with tarfile.open(archive, 'r:') as file:
    while (info := file.next()) is not None:
      if info.isreg() and not info.issparse():
        found[info.name] = info.offset_data, info.size, info.size, -1, 0
      elif not info.isdir():
        others += 1
      file.members = []  # type: ignore[attr-defined]  # it would keep all
  return _index(found, others)


def _index(found: dict[str, tuple[int, ...]], others: int) -> Index:
  places = np.array([*found.values()], np.int64).reshape(-1, 5)
  return Index([*found], places, others)


__all__ = ['SUFFIXES', 'Index', 'Member', 'read', 'read_index']
