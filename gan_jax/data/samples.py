"""Sets of samples: random access to a finite number of samples of one shape.

Images are uint8, or float32 in [-1, 1]; points are float32.
"""

import dataclasses
import functools
import hashlib
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gan_jax.data.listing import is_fresh
from gan_jax.runtime.array_cache import cached_arrays, digest_arrays
from gan_jax.runtime.progress import progress_bar

# Beyond this, the hash of files is of some of their content.
_HASHED_BYTES = 4 * 2**30
_HASHED_SAMPLES = 2**29  # bytes of samples that are hashed for all of a set
_BLOCKS, _BLOCK_BYTES = 1024, 64 * 2**10
_SOME = 'of names, sizes, times and 1,024 blocks'
_TIMES = re.compile(rf'([0-9a-f]{{64}})(\+[0-9a-f]{{16}}, {_SOME})')
# Most bytes of a set that `residence='auto'` puts on the device.
RESIDENT_BYTES = 2 * 2**30
_BLOCK = 256  # samples that a thread reads in one go


@runtime_checkable
class Source(Protocol):
  """Random access to samples, from several threads at once."""

  def __len__(self) -> int:
    """How many there are."""
    ...

  def __getitem__(self, index: Any) -> Any:
    """One sample."""
    ...


@runtime_checkable
class ArraySource(Source, Protocol):
  """A source that has a faster way to all of its samples."""

  def array(self) -> NDArray[Any]:
    """All samples, (n, *shape)."""
    ...


@runtime_checkable
class RowSource(Source, Protocol):
  """A source that has a faster way to some of its samples."""

  def gather(self, picked: NDArray[np.integer]) -> NDArray[Any]:
    """Some samples, in this order."""
    ...


@runtime_checkable
class LabelledSource(Source, Protocol):
  """A source whose samples come with their class."""

  def labelled(self, index: Any) -> tuple[NDArray[Any], np.int32]:
    """One sample and its class."""
    ...


@dataclasses.dataclass(frozen=True)
class SampleSet:
  """Samples of one shape.

  Attributes:
    name: what messages call it.
    shape: (height, width, channels) of each image, or (dim,) of each point.
    source: random access to the samples.
    fingerprint: hash of the content: what a run's identity says of the data.
    cache: folder for the arrays that `array` reads, None for none.
    key: names the arrays there: hash of the files that hold the samples.
    classes: names of the classes; empty where there are none.
    read_labels: reads the class of every sample, (n,) int32.
    dtype: of the samples, uint8 or float32.
    known_counts: how many samples each class has, where it is known without
      reading the labels; else empty.
    notes: lines for a person about what the set was made of.
    own_order: whether records are shown in the order that they have here,
      again and again, rather than shuffled anew in each epoch.
  """

  name: str
  shape: tuple[int, ...]
  source: Source
  fingerprint: str
  cache: pathlib.Path | None = None
  key: str = ''
  classes: tuple[str, ...] = ()
  read_labels: Callable[[], NDArray[np.int32]] | None = None
  dtype: Any = np.uint8
  known_counts: tuple[int, ...] = ()
  notes: tuple[str, ...] = ()
  own_order: bool = False

  @property
  def bounded(self) -> bool:
    """Whether these are images, whose values are in [-1, 1] once decoded."""
    return len(self.shape) == 3

  @property
  def size(self) -> int:
    """How many samples there are."""
    return len(self.source)

  @property
  def nbytes(self) -> int:
    """Bytes of all samples."""
    return self.size * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

  def array(self) -> NDArray[Any]:
    """All samples, (n, *shape); kept for the next time."""
    return self._cached('samples', (self.size, *self.shape), self._read)

  def take(self, rows: NDArray[np.integer]) -> NDArray[Any]:
    """Some of the samples, in this order."""
    if len(rows) == self.size and (np.diff(rows) == 1).all():
      return self.array()
    if isinstance(self.source, RowSource):
      return self.source.gather(rows)
    if len(rows) == self.size or self.nbytes <= RESIDENT_BYTES:
      return self.array()[rows]
    return np.stack([self.source[i] for i in rows.tolist()])

  @functools.cached_property
  def mean(self) -> NDArray[np.float64]:
    """The mean sample, of `shape`, images in [-1, 1].

    Of every sample, or of at most 10,000 evenly spaced ones if they take more
    than 2 GiB.
    """
    if self.nbytes <= RESIDENT_BYTES:
      total = self.array().mean(axis=0, dtype=np.float64)
    else:
      picked = np.arange(0, self.size, -(-self.size // 10_000))
      parts = np.array_split(picked, -(-len(picked) // _BLOCK))
      total = np.zeros(self.shape)
      for part in progress_bar(parts, len(parts), f'the mean of {self.name}'):
        total += self.take(part).sum(axis=0, dtype=np.float64)
      total /= len(picked)
    return total / 127.5 - 1 if self.dtype == np.uint8 else total

  def labels(self) -> NDArray[np.int32]:
    """The class of every sample, (n,); kept for the next time."""
    assert self.read_labels is not None  # there are classes
    if not self.key:  # they are no part of files, which the cache goes by
      return self.read_labels()
    return self._cached('labels', (self.size,), self.read_labels)

  @functools.cached_property
  def class_counts(self) -> tuple[int, ...]:
    """How many samples each class has; empty where there are none."""
    if self.known_counts or not self.classes:
      return self.known_counts
    counts = np.bincount(self.labels(), minlength=len(self.classes))
    return tuple(counts.tolist())

  def _cached(
    self, what: str, shape: tuple[int, ...], read: Callable[[], NDArray[Any]]
  ) -> NDArray[Any]:
    """An array of the cache, or read now and written there."""
    if self.cache is None:
      return read()
    facts = {'files': self.key or self.fingerprint, 'of': what, 'shape': shape}
    return cached_arrays(self.cache, facts, lambda: {what: read()}, name=what)[
      what
    ]

  def _read(self) -> NDArray[Any]:
    if isinstance(self.source, np.ndarray):
      return self.source
    if isinstance(self.source, ArraySource):
      return self.source.array()
    samples = np.empty((self.size, *self.shape), self.dtype)

    def read(i: int) -> None:
      samples[i] = self.source[i]

    read_all(self.size, read, f'reading {self.name}')
    return samples


def to_uint8(images: NDArray[Any]) -> NDArray[np.uint8]:
  """Images as uint8, those in [-1, 1] rounded and clipped."""
  if images.dtype == np.uint8:
    return images
  scaled = np.rint((np.asarray(images, np.float32) + 1) * 127.5)
  return np.clip(scaled, 0, 255).astype(np.uint8)


def read_all(count: int, read: Callable[[int], None], text: str) -> None:
  """Calls `read` with each number below `count`, in several threads."""

  def read_block(start: int) -> None:
    for i in range(start, min(start + _BLOCK, count)):
      read(i)

  starts = range(0, count, _BLOCK)
  with ThreadPoolExecutor() as pool:
    for _ in progress_bar(pool.map(read_block, starts), len(starts), text):
      pass


@dataclasses.dataclass(frozen=True)
class DatasetMetadata:
  """Metadata stand-in for a dataset that is not prepared here.

  Attributes:
    name: of the dataset.
    shape: of each sample.
    classes: names of its classes, if it has some.
    class_counts: how many samples each class has; empty where it is not known.
  """

  name: str
  shape: tuple[int, ...]
  classes: tuple[str, ...] = ()
  class_counts: tuple[int, ...] = ()

  @property
  def bounded(self) -> bool:
    """Whether these are images."""
    return len(self.shape) == 3


def hash_files(files: Sequence[pathlib.Path], *how: object) -> str:
  """SHA-256 of files and of what is done with their images.

  Of their content. Where they exceed 4 GiB, of their names and sizes and of
  1,024 blocks that lie evenly in their content, with a hash of the times of
  their last change beside it; it says so.
  """
  total = hashlib.sha256(repr(how).encode())
  whole = are_hashed_whole(files)
  stats = [path.stat() for path in files]
  for path, stat in zip(files, stats, strict=True):
    line = f'{path.name} {stat.st_size}\n'
    total.update(line.encode(errors='surrogateescape'))
    if whole:
      total.update(path.read_bytes())
  if whole:
    return total.hexdigest()
  for block in _read_blocks(files, [stat.st_size for stat in stats]):
    total.update(block)
  times = hashlib.sha256(repr([stat.st_mtime_ns for stat in stats]).encode())
  return f'{total.hexdigest()}+{times.hexdigest()[:16]}, {_SOME}'


def remember(
  folder: pathlib.Path,
  files: Sequence[pathlib.Path],
  how: Sequence[object],
  make: Callable[[], str],
) -> str:
  """A hash that depends on files, kept until one has another size or time.

  Args:
    folder: that it is kept in.
    files: all that it depends on.
    how: what is made of them, as JSON has it.
    make: makes it.
  """
  stats = [path.stat() for path in files]
  newest = max(stat.st_mtime_ns for stat in stats)
  if is_fresh(newest):
    return make()
  sizes = [[stat.st_size, stat.st_mtime_ns] for stat in stats]
  facts = {'files': [*map(str, files)], 'sizes': sizes, 'how': how}
  kept = cached_arrays(
    folder, facts, lambda: {'hash': np.array(make())}, name='hash'
  )
  return str(kept['hash'])


def _read_blocks(
  files: Sequence[pathlib.Path], sizes: Sequence[int]
) -> Iterator[bytes]:
  """Blocks that lie evenly in the content of files, taken one after another."""
  ends = np.cumsum(sizes, dtype=np.int64)
  for i in range(_BLOCKS):
    place = int(ends[-1]) * i // _BLOCKS
    n = int(np.searchsorted(ends, place, side='right'))
    with open(files[n], 'rb') as file:
      file.seek(place - int(ends[n]) + sizes[n])
      yield file.read(_BLOCK_BYTES)


def without_times(fingerprint: str) -> str:
  """A fingerprint less the times of the files, where it has them.

  Files that were copied have other times; whoever goes on with them goes by
  the rest.
  """
  return _TIMES.sub(r'\1, ' + _SOME, fingerprint)


def join_labels(fingerprint: str, labels: NDArray[np.int32]) -> str:
  """The fingerprint of samples and their labels."""
  match = _TIMES.fullmatch(fingerprint)
  content, rest = match.groups() if match else (fingerprint, '')
  joined = hashlib.sha256(content.encode() + labels.tobytes()).hexdigest()
  return joined + rest


def are_hashed_whole(files: Sequence[pathlib.Path]) -> bool:
  """Whether `hash_files` is of the content of these files."""
  return sum(path.stat().st_size for path in files) <= _HASHED_BYTES


def hash_some(samples: SampleSet, facts: str, count: int = 1024) -> str:
  """A fingerprint of facts and of some samples that lie evenly; it says so."""
  n = samples.size
  fitting = _HASHED_SAMPLES // max(1, samples.nbytes // n)
  count = max(1, min(count, n, fitting))
  content = hashlib.sha256(repr((facts, samples.shape)).encode())
  for i in range(count):
    content.update(np.asarray(samples.source[i * n // count]).tobytes())
  return f'{content.hexdigest()}, of {count:,} of {n:,} records'


def hash_samples(samples: SampleSet) -> str:
  """SHA-256 of the samples of a set, in their order.

  TFDS writes the same records in other bytes from one process to the next, so
  a hash of its files tells sets apart that are the same.
  """
  return digest_arrays({'samples': samples.array()})
