"""Prepared rows: images as uint8 of one shape, in files of rows.

A folder of them holds shards, `shard-00000.npy` and so on; `labels.npy` where
there are classes; `checksums.npy`, a CRC-32 a row, which is compared when the
row is first used; and, written last, `prepared.json`: shape, classes, what the
rows were made of, SHA-256 and rows of each shard. Without that file a folder is
unfinished, and is not read. Where files are kept as they are (`encoded.py`),
shards are of array_record. Nothing here imports JAX.
"""

import functools
import hashlib
import io
import os
import pathlib
import threading
import weakref
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from gan_jax.runtime import records
from gan_jax.runtime.errors import DataError
from gan_jax.runtime.files import open_atomic

FACTS, LABELS, CHECKSUMS = 'prepared.json', 'labels.npy', 'checksums.npy'
HASHES = 'hashes.npy'  # SHA-256 of the files, where there were files
FORMAT, ENCODED = 1, 2  # of pixels; of files as they are, `encoded.py`
_ALIGNED = 64  # bytes; what JAX takes over without a copy
_BLOCK = 2**24  # bytes that are read in one go
_OPEN = 256  # shards that are open at once


class Sums(NamedTuple):
  """What a shard is checked by."""

  sha256: str
  crc32: NDArray[np.uint32]


def shard_name(number: int, suffix: str = '.npy') -> str:
  """The file of a shard."""
  return f'shard-{number:05d}{suffix}'


def aligned_zeros(shape: Sequence[int], dtype: Any = np.uint8) -> NDArray[Any]:
  """An array that a CPU device can share; it takes memory as it is filled."""
  size = int(np.prod(shape)) * np.dtype(dtype).itemsize
  memory = np.zeros(size + _ALIGNED, np.uint8)
  start = -memory.ctypes.data % _ALIGNED
  return memory[start : start + size].view(dtype).reshape(shape)


class Memory:
  """Arrays that are used again once nobody holds them.

  Where batch after batch is read, fresh memory would cost more than what is
  written into it.
  """

  def __init__(self) -> None:
    """Holds none yet."""
    # Each with what is alive while it is used, and how many of its bytes have
    # been written.
    self._kept: list[tuple[NDArray[np.uint8], Callable[[], Any], int]] = []

  def take(self, shape: Sequence[int], dtype: Any, used: int) -> NDArray[Any]:
    """An array of zeros, but for the first `used` rows, which may be anything.

    It is nobody else's for as long as it, or a view of it, is alive.
    """
    row = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
    size, filled = shape[0] * row, used * row
    kept = [x for x in self._kept if x[0].size == size or x[1]() is not None]
    free = next((x for x in kept if x[1]() is None), None)
    if free is None:
      memory, written = aligned_zeros((size,)), 0
    else:
      kept = [x for x in kept if x is not free]
      memory, _, written = free
    # Its views have this as their base, so that it lives as long as they do.
    owner = np.frombuffer(memory.data, np.uint8)
    owner[filled:written] = 0
    self._kept = [*kept, (memory, weakref.ref(owner), filled)]
    array: NDArray[Any] = owner.view(dtype).reshape(shape)
    return array


def _header(shape: Sequence[int]) -> bytes:
  file = io.BytesIO()
  npy.write_array_header_1_0(
    file,
    {'descr': '|u1', 'fortran_order': False, 'shape': tuple(shape)},
  )
  return file.getvalue()


def _crc32(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint32]:
  return np.array([zlib.crc32(image.data) for image in images], np.uint32)


def write_shard(path: pathlib.Path, images: NDArray[np.uint8]) -> Sums:
  """Writes rows as a shard, in one step.

  Raises:
    OSError: if it cannot be written.
  """
  save_shard(path, images)
  return sum_images(images)


def save_shard(path: pathlib.Path, images: NDArray[np.uint8]) -> None:
  """As `write_shard`, where the sums are known."""
  with open_atomic(path) as file:
    file.write(_header(images.shape))
    file.write(np.ascontiguousarray(images).reshape(-1).data)


def sum_images(images: NDArray[np.uint8]) -> Sums:
  """What rows are checked by, once they are a shard."""
  images = np.ascontiguousarray(images)
  total = hashlib.sha256(_header(images.shape))
  total.update(images.reshape(-1).data)
  return Sums(total.hexdigest(), _crc32(images))


def sum_shard(path: pathlib.Path) -> Sums:
  """What the rows of a shard that is there are checked by.

  Raises:
    OSError: if it cannot be read.
  """
  with open(path, 'rb') as file:
    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
    file.seek(0)
    return Sums(sha256, _crc32(npy.read_array(file)))


def write_array(path: pathlib.Path, array: NDArray[Any]) -> str:
  """Writes an array in one step, and returns its SHA-256.

  Raises:
    OSError: if it cannot be written.
  """
  content = io.BytesIO()
  npy.write_array(content, array, allow_pickle=False)
  with open_atomic(path) as file:
    file.write(content.getbuffer())
  return hashlib.sha256(content.getbuffer()).hexdigest()


def read_facts(folder: pathlib.Path) -> dict[str, Any] | None:
  """`prepared.json`; None where there is none.

  Raises:
    DataError: if it is damaged, or of a later version.
  """
  path = folder / FACTS
  try:
    facts = records.read(path)
  except records.DamagedRecord as error:
    raise damaged(path, str(error)) from error
  if facts is not None and facts.get('format') not in (FORMAT, ENCODED):
    raise DataError(
      f'{path}: is of format {facts.get("format")}, and this gan_jax reads'
      f' {FORMAT} and {ENCODED}; use the version that wrote it, or prepare the'
      ' set again'
    )
  return facts


def damaged(path: pathlib.Path, why: str) -> DataError:
  """The error of a file of prepared rows."""
  return DataError(
    f'{path}: {why}; bring the file back, or remove its folder and prepare the'
    ' set again'
  )


class Shards:
  """A prepared set: shards of images, and what is known of each.

  Attributes:
    folder: that holds it.
    facts: of `prepared.json`.
    shape: of an image.
  """

  def __init__(self, folder: pathlib.Path) -> None:
    """Reads no shard.

    Raises:
      DataError: if what says that it is whole is missing or damaged.
    """
    facts = read_facts(folder)
    if facts is None:
      raise DataError(
        f'{folder}: has no {FACTS}: its preparation did not end; run it again'
      )
    self.folder, self.facts = folder, facts
    self.shape = tuple(facts['shape'])
    self._paths = [folder / shard['file'] for shard in facts['shards']]
    counts = [int(shard['rows']) for shard in facts['shards']]
    self._starts = np.concatenate([[0], np.cumsum(counts)])

  def _check_shard(
    self, path: pathlib.Path, wanted: int, header: bytes = b''
  ) -> None:
    """Compares the size of a shard, and its beginning, with what they were.

    Raises:
      DataError: naming it.
    """
    try:
      size = path.stat().st_size
      if size != wanted:
        raise damaged(path, f'has {size:,} bytes, and was written with others')
      if header:
        with open(path, 'rb') as file:
          if file.read(len(header)) != header:
            raise damaged(path, 'does not begin as it was written')
    except OSError as error:
      why = 'is missing' if not path.exists() else str(error.strerror)
      raise damaged(path, why) from error

  def __len__(self) -> int:
    """How many images there are."""
    return int(self._starts[-1])

  def _locate(
    self, picked: NDArray[np.integer]
  ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The shards of some images, and their places in these."""
    wanted = picked.astype(np.int64)
    shards = np.searchsorted(self._starts, wanted, 'right') - 1
    return shards, wanted - self._starts[shards]

  @functools.cached_property
  def labels(self) -> NDArray[np.int32]:
    """The class of every row."""
    return self._read(LABELS, (len(self),)).astype(np.int32, copy=False)

  @functools.cached_property
  def hashes(self) -> NDArray[np.uint8]:
    """SHA-256 of the file of every row, (n, 32)."""
    return self._read(HASHES, (len(self), 32))

  def _read(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array beside the shards.

    Raises:
      DataError: if it is not the one that was written.
    """
    path = self.folder / name
    try:
      content = path.read_bytes()
    except OSError as error:
      raise damaged(path, str(error.strerror)) from error
    if hashlib.sha256(content).hexdigest() != self.facts['sha256'].get(name):
      raise damaged(path, 'does not have its checksum')
    array: NDArray[Any] = npy.read_array(io.BytesIO(content))
    assert array.shape == shape
    return array

  def verify(self) -> None:
    """Reads every file and compares its checksum.

    Raises:
      DataError: naming those that are damaged.
    """
    faults = []
    for path, shard in zip(self._paths, self.facts['shards'], strict=True):
      try:
        with open(path, 'rb') as file:
          found = hashlib.file_digest(file, 'sha256').hexdigest()
        if found != shard['sha256']:
          faults.append(str(path))
      except OSError as error:
        faults.append(f'{path} ({error.strerror})')
    if faults:
      raise DataError(
        f'{", ".join(faults)}: not as written; bring the file back, or remove'
        ' its folder and prepare the set again'
      )
    for name in self.facts['sha256']:
      size = (len(self), 32) if name == HASHES else (len(self),)
      self._read(name, size)


class Rows(Shards):
  """Prepared rows, read from their files as they are asked for.

  By position, not through a map: what a disk or network cannot give, or a file
  that is cut while it is in use, would end the process without a word there.
  """

  def __init__(self, folder: pathlib.Path) -> None:
    """Looks at the sizes of the shards, whatever they are, and reads none.

    Raises:
      DataError: naming a file that is missing, damaged or cut short.
    """
    super().__init__(folder)
    self._row = int(np.prod(self.shape))
    headers = []
    for path, shard in zip(self._paths, self.facts['shards'], strict=True):
      header = _header((int(shard['rows']), *self.shape))
      size = len(header) + int(shard['rows']) * self._row
      self._check_shard(path, size, header)
      headers.append(len(header))
    self._headers = np.array(headers)
    self._unchecked = np.ones(len(self), bool)
    self._lock = threading.Lock()
    self._files: dict[int, int] = {}  # descriptors of shards, oldest first
    weakref.finalize(self, _close, self._files)

  def __getitem__(self, index: Any) -> NDArray[np.uint8]:
    """One row."""
    row: NDArray[np.uint8] = self.gather(np.array([index]))[0]
    return row

  @functools.cached_property
  def _checksums(self) -> NDArray[np.uint32]:
    return self._read(CHECKSUMS, (len(self),))

  def gather(
    self, rows: NDArray[np.integer], out: NDArray[np.uint8] | None = None
  ) -> NDArray[np.uint8]:
    """Some rows, in this order.

    Args:
      rows: their numbers.
      out: where they go; None for a new array.

    Raises:
      DataError: naming the shard of one that is damaged.
    """
    wanted = rows.astype(np.int64)
    images = out
    if images is None:
      images = np.empty((len(wanted), *self.shape), np.uint8)
    shards, places = self._locate(wanted)
    places = self._headers[shards] + places * self._row
    memory, row = images.reshape(-1).data, self._row
    which = zip(shards.tolist(), places.tolist(), strict=True)
    with self._lock:  # nobody else closes what is read
      for i, (shard, place) in enumerate(which):
        self._read_row(shard, place, memory[i * row : (i + 1) * row])
    self._check(wanted, images)
    return images

  def _read_row(self, shard: int, place: int, row: memoryview) -> None:
    try:
      file = self._files.get(shard)
      file = self._open(shard) if file is None else file
      done = os.preadv(file, (row,), place)
      while done < len(row):  # as a network may give it
        more = os.preadv(file, (row[done:],), place + done)
        if not more:
          raise damaged(self._paths[shard], 'has been cut while it was in use')
        done += more
    except OSError as error:
      raise damaged(self._paths[shard], str(error.strerror)) from error

  def _open(self, shard: int) -> int:
    """The descriptor of a shard, in the place of the oldest if need be."""
    if len(self._files) >= _OPEN:
      os.close(self._files.pop(next(iter(self._files))))
    file = os.open(self._paths[shard], os.O_RDONLY)
    self._files[shard] = file
    return file

  def _check(self, rows: NDArray[np.int64], images: NDArray[np.uint8]) -> None:
    """Compares rows that are used for the first time with their checksums."""
    new = np.flatnonzero(self._unchecked[rows])
    if not new.size:
      return
    found = _crc32(images[i] for i in new.tolist())
    bad = new[found != self._checksums[rows[new]]]
    if bad.size:
      (shard,), (place,) = self._locate(rows[bad[:1]])
      raise damaged(
        self._paths[shard], f'row {place} does not have its checksum'
      )
    with self._lock:
      self._unchecked[rows[new]] = False

  def link(self, first: int, last: int, path: pathlib.Path) -> Sums | None:
    """Gives the shard of just these rows a second name; None if none is.

    A file is never changed, so that two folders may have it.
    """
    shard = int(np.searchsorted(self._starts, first))
    if self._starts[shard : shard + 2].tolist() != [first, last]:
      return None
    try:
      os.link(self._paths[shard], path)
    except OSError:  # not on this file system, or not by this user
      return None
    sha256 = self.facts['shards'][shard]['sha256']
    return Sums(sha256, self._checksums[first:last])

  def array(self) -> NDArray[np.uint8]:
    """All rows.

    Raises:
      DataError: naming a shard that is damaged.
    """
    images = aligned_zeros((len(self), *self.shape))
    for shard, path in enumerate(self._paths):
      first, last = self._starts[shard : shard + 2]
      part = images[first:last].reshape(-1)
      try:
        with open(path, 'rb') as file:
          file.seek(len(_header((int(last - first), *self.shape))))
          for start in range(0, part.size, _BLOCK):
            file.readinto(part[start : start + _BLOCK].data)
      except OSError as error:
        raise damaged(path, str(error.strerror)) from error
    self._check(np.arange(len(self), dtype=np.int64), images)
    return images


def _close(files: dict[int, int]) -> None:
  for file in files.values():
    os.close(file)


def describe(facts: Mapping[str, Any]) -> str:
  """What rows were made of, in a few words."""
  made = facts['made']
  return ', '.join(f'{name} {value}' for name, value in made.items() if value)


__all__ = [
  'CHECKSUMS',
  'ENCODED',
  'FACTS',
  'FORMAT',
  'HASHES',
  'LABELS',
  'Memory',
  'Rows',
  'Shards',
  'Sums',
  'aligned_zeros',
  'damaged',
  'describe',
  'read_facts',
  'save_shard',
  'shard_name',
  'sum_images',
  'sum_shard',
  'write_array',
  'write_shard',
]
