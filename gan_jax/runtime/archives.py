"""Reads arrays from `.npz` files of which nothing is taken on trust.

NumPy builds no objects from such a file unless it is asked to, but it makes
room for whatever a header claims before it reads: a file of a few hundred bytes
can ask for all memory. Here every size is held against the file first. No array
is larger than what its part of the archive holds, and an archive unpacks to at
most `RATIO` times its own size, or `FLOOR` bytes where it is small.
"""

import contextlib
import io
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, cast

from numpy.lib import format as npy
from numpy.typing import NDArray

from gan_jax.runtime.errors import DataError

RATIO = 100  # uint8 images compress to a tenth; blank ones to a thousandth
FLOOR = 1 << 28


class ArchiveError(DataError):
  """An `.npz` that cannot be read.

  Attributes:
    reason: why, in a few words.
  """

  def __init__(self, path: pathlib.Path, reason: str) -> None:
    """Puts the message together."""
    self.reason = reason
    super().__init__(
      f'{path}: cannot be read as .npz ({reason}); it is damaged, get it again'
    )


class Archive(Mapping[str, NDArray[Any]]):
  """The arrays of an `.npz` by name, each read when it is asked for."""

  def __init__(self, path: pathlib.Path, file: io.BufferedIOBase) -> None:
    """Reads its table of contents.

    Raises:
      ArchiveError: if there is none, or it claims more than it may.
    """
    self._path = path
    with self._explain():
      self._zip = zipfile.ZipFile(file)
      self._members = {
        info.filename.removesuffix('.npy'): info
        for info in self._zip.infolist()
      }
      claimed = sum(info.file_size for info in self._members.values())
      if claimed > max(FLOOR, RATIO * path.stat().st_size):
        raise ValueError(
          f'it unpacks to {claimed:,} bytes, more than {RATIO} times its size;'
          ' write it with numpy.savez'
        )

  def __getitem__(self, name: str) -> NDArray[Any]:
    """One array.

    Raises:
      KeyError: if it has none of that name.
      ArchiveError: if it is damaged, encrypted, or of objects.
    """
    info = self._members[name]
    with self._explain():
      if info.flag_bits & 1:
        raise ValueError('it is encrypted')
      with self._zip.open(info) as member:
        _check_header(cast(io.BufferedIOBase, member), info.file_size)
      with self._zip.open(info) as member:
        array: NDArray[Any] = npy.read_array(member, allow_pickle=False)
        return array

  def __iter__(self) -> Iterator[str]:
    """The names."""
    return iter(self._members)

  def __len__(self) -> int:
    """How many arrays."""
    return len(self._members)

  @contextlib.contextmanager
  def _explain(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds
      reason = (str(error) or repr(error)).splitlines()[0][:200]
      raise ArchiveError(self._path, reason) from error


def _check_header(file: io.BufferedIOBase, size: int) -> None:
  """Refuses an array that is not as large as its file.

  Raises:
    ValueError: saying so.
  """
  version = npy.read_magic(file)
  # Version 3 differs in its encoding alone.
  old = version == (1, 0)
  read = npy.read_array_header_1_0 if old else npy.read_array_header_2_0
  shape, _, dtype = read(file)
  if dtype.hasobject:
    raise ValueError('it holds objects, not arrays of numbers')
  count = 1
  for n in shape:
    count *= n
  if min(shape, default=0) < 0 or file.tell() + count * dtype.itemsize != size:
    raise ValueError(f'an array of shape {shape} in {size:,} bytes')


@contextlib.contextmanager
def open_arrays(path: pathlib.Path) -> Iterator[Archive]:
  """The arrays of an `.npz`.

  Raises:
    OSError: if it cannot be opened.
    ArchiveError: if it is no such file.
  """
  with open(path, 'rb') as file:
    yield Archive(path, file)


def read_arrays(path: pathlib.Path) -> dict[str, NDArray[Any]]:
  """All arrays of an `.npz`, by name.

  Raises:
    OSError: if it cannot be opened.
    ArchiveError: if it is damaged, or holds anything but arrays.
  """
  with open_arrays(path) as archive:
    return dict(archive)
