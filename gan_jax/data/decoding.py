"""Images that are decoded at each visit: one here, batches in processes."""

import collections
import dataclasses
import functools
import itertools
import pathlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.data import encoded, listing, reading, rows
from gan_jax.data.encoded import Record
from gan_jax.data.reading import Place, Unreadable
from gan_jax.runtime.errors import DataError
from gan_jax.runtime.workers import Workers

_PART = 16  # images that a process decodes in one go
_AHEAD_BYTES = 256 * 2**20  # of images that are decoded ahead, at the most
_DECODE = 'gan_jax.data.reading:decode_there'


def decode_batches(
  function: str,
  call: Callable[[NDArray[np.integer]], tuple[Any, ...]],
  picks: Iterable[NDArray[np.integer]],
  size: int,
  take: Callable[[Any], NDArray[np.uint8]],
) -> Iterator[NDArray[np.uint8]]:
  """Images by the batch, decoded ahead by processes.

  Args:
    function: that they call, as `Workers` takes it.
    call: its arguments for some images.
    picks: the images of each batch.
    size: bytes of an image.
    take: makes an array of an answer, or raises what it tells.
  """
  counts: collections.deque[int] = collections.deque()

  def calls() -> Iterator[tuple[Any, ...]]:
    for picked in picks:
      parts = np.array_split(picked, -(-len(picked) // _PART))
      counts.append(len(parts))
      yield from map(call, parts)

  with Workers(function) as workers:
    ahead = max(1, min(8, _AHEAD_BYTES // (_PART * size * workers.count)))
    found = map(take, workers.map(calls(), ahead))
    for first in found:
      rest = itertools.islice(found, counts.popleft() - 1)
      yield np.concatenate([first, *rest])


@dataclasses.dataclass(frozen=True)
class Decoder:
  """Decodes files.

  Attributes:
    paths: where some of them are.
    hashes: SHA-256 of each, (n, 32).
    shape: of an image, (height, width, channels).
    size: as `pictures.resize_and_crop` takes it.
    megapixels: millions of pixels that an image may have.
    explain: the error of a file that cannot be had.
    alone: whether no processes are started.
  """

  paths: Callable[[NDArray[np.integer]], Sequence[Place]]
  hashes: NDArray[np.uint8]
  shape: tuple[int, ...]
  size: int
  megapixels: float
  explain: Callable[[Unreadable], DataError]
  alone: bool = False

  def gather(self, picked: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Some images, in this order.

    Raises:
      DataError: naming a file that cannot be read.
    """
    found: NDArray[np.uint8] = self.take(reading.decode(*self.call(picked)))
    return found

  def batches(
    self, picks: Iterable[NDArray[np.integer]]
  ) -> Iterator[NDArray[np.uint8]]:
    """Images by the batch, read ahead."""
    if self.alone:
      return map(self.gather, picks)
    return decode_batches(
      _DECODE,
      lambda picked: (self.megapixels, *self.call(picked)),
      picks,
      int(np.prod(self.shape)),
      self.take,
    )

  def array(self) -> NDArray[np.uint8]:
    """All images."""
    count = len(self.hashes)
    images = rows.aligned_zeros((count, *self.shape))
    starts = range(0, count, _PART)
    everything = np.arange(count)
    parts = self.batches(everything[i : i + _PART] for i in starts)
    for i, part in zip(starts, parts, strict=True):
      images[i : i + _PART] = part
    return images

  def call(self, picked: NDArray[np.integer]) -> tuple[Any, ...]:
    """What `reading.decode` is to be told."""
    paths, hashes = self.paths(picked), self.hashes[picked]
    return paths, hashes, self.size, self.shape[2]

  def take(self, found: Any) -> Any:
    """An answer of a process.

    Raises:
      DataError, OSError: that it holds.
    """
    if isinstance(found, Unreadable):
      raise self.explain(found)
    if isinstance(found, OSError):
      raise found
    return found


class Encoded(rows.Shards):
  """A prepared set that holds files as they are; they are decoded."""

  def __init__(self, folder: pathlib.Path) -> None:
    """Looks at the sizes of the shards and reads none.

    Raises:
      DataError: naming a file that is missing, damaged or cut short.
    """
    super().__init__(folder)
    for path, shard in zip(self._paths, self.facts['shards'], strict=True):
      self._check_shard(path, shard['bytes'])
    weakref.finalize(self, encoded.close)

  @property
  def nbytes(self) -> int:
    """Bytes of the shards."""
    return sum(shard['bytes'] for shard in self.facts['shards'])

  @functools.cached_property
  def _decoder(self) -> Decoder:
    made = self.facts['made']
    return Decoder(
      self._records,
      self.hashes,
      self.shape,
      made['image_size'],
      made['max_megapixels'],
      _explain,
      listing.are_few(len(self), self.nbytes),
    )

  def _records(self, picked: NDArray[np.integer]) -> list[Record]:
    shards, places = self._locate(picked)
    which = zip(shards.tolist(), places.tolist(), strict=True)
    return [Record(str(self._paths[shard]), place) for shard, place in which]

  def __getitem__(self, index: Any) -> NDArray[np.uint8]:
    """One image."""
    image: NDArray[np.uint8] = self.gather(np.array([index]))[0]
    return image

  def gather(self, picked: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Some images, in this order.

    Raises:
      DataError: naming the shard of one that is damaged.
    """
    return self._decoder.gather(picked)

  def batches(
    self, picks: Iterable[NDArray[np.integer]]
  ) -> Iterator[NDArray[np.uint8]]:
    """Images by the batch, read ahead."""
    return self._decoder.batches(picks)

  def array(self) -> NDArray[np.uint8]:
    """All images."""
    return self._decoder.array()


def _explain(found: Unreadable) -> DataError:
  """The error of a record that is not as it was written."""
  why = 'does not have its checksum'
  if found.why != reading.CHANGED:
    why = f'cannot be read ({found.why})'
  return rows.damaged(pathlib.Path(found.path), why)


__all__ = ['Decoder', 'Encoded', 'decode_batches']
