"""What worker processes do: look at image files, and decode them.

Nothing here imports JAX.
"""

import hashlib
import io
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan_jax.data import pictures, rows
from gan_jax.data.pictures import Fault, ImageFacts

# What is known of an image file, whose pixels are not kept.
LOOK = np.dtype(
  [
    ('bytes', 'i8'),
    ('time', 'i8'),  # of its last change, in ns
    ('hash', 'u1', (32,)),  # SHA-256 of the content
    ('mode', 'S8'),
    ('width', 'i4'),
    ('height', 'i4'),
    ('frames', 'i4'),
    ('peak', 'i4'),
    ('grey', '?'),
    ('transparent', '?'),
  ]
)
# A file that was changed as late as this may be changed again within the same
# tick of the clock of its file system, and is read again at the next start.
_FRESH = 2 * 10**9
UNKNOWN = -1  # in the place of a time


class Unreadable(NamedTuple):
  """An image that cannot be had, and why."""

  path: str
  why: str


CHANGED = 'was changed since the folder was looked at'


def look(
  paths: Sequence[str], megapixels: float
) -> tuple[NDArray[Any], list[tuple[int, Fault]]]:
  """What image files are, each read once.

  Args:
    paths: of the files.
    megapixels: millions of pixels that one may have.

  Returns:
    A `LOOK` for each, and what is wrong with some.
  """
  table = np.zeros(len(paths), LOOK)
  faults = []
  with pictures.allow_pixels(megapixels):
    for i, path in enumerate(paths):
      found = _look(path, megapixels)
      if isinstance(found, Fault):
        faults.append((i, found))
      else:
        table[i] = found
  return table, faults


def _look(path: str, megapixels: float) -> tuple[Any, ...] | Fault:
  try:
    with open(path, 'rb') as file:
      before = os.fstat(file.fileno())
      content = file.read()
      after = os.fstat(file.fileno())
  except (OSError, ValueError):
    return Fault('damage')
  facts = pictures.look_at(io.BytesIO(content), megapixels)
  if not isinstance(facts, ImageFacts):
    return facts
  changed = after.st_mtime_ns
  same = changed == before.st_mtime_ns and len(content) == after.st_size
  if not same or abs(time.time_ns() - changed) < _FRESH:
    changed = UNKNOWN
  mark = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
  return (
    len(content),
    changed,
    mark,
    facts.mode.encode(),
    *facts.size,
    facts.frames,
    facts.peak,
    facts.grey,
    facts.transparent,
  )


def decode(
  paths: Sequence[str], hashes: NDArray[np.uint8], size: int, channels: int
) -> NDArray[np.uint8] | Unreadable:
  """Image files as pixels.

  Args:
    paths: of the files.
    hashes: SHA-256 of what they should hold, (n, 32).
    size: side of the images, as `resize_and_crop` takes it; 0 for their own.
    channels: 1, 3 or 4.

  Returns:
    (n, height, width, channels).
  """
  images = []
  for path, mark in zip(paths, hashes, strict=True):
    try:
      content = pathlib.Path(path).read_bytes()
      if hashlib.sha256(content).digest() != mark.tobytes():
        return Unreadable(path, CHANGED)
      with pictures.open_image(io.BytesIO(content)) as image:
        images.append(pictures.resize_and_crop(image, size, channels))
    except pictures.UNREADABLE as error:
      return Unreadable(path, getattr(error, 'strerror', None) or str(error))
  return np.stack(images)


def decode_there(
  megapixels: float, *how: Any
) -> NDArray[np.uint8] | Unreadable:
  """As `decode`, in a process that knows no bound yet."""
  pictures.raise_bound(megapixels)
  return decode(*how)


def write_shard(
  megapixels: float,
  out: str,
  paths: Sequence[str],
  hashes: NDArray[np.uint8],
  size: int,
  channels: int,
  old: tuple[str, NDArray[np.int64]] | None = None,
) -> rows.Sums | Unreadable | OSError:
  """Image files as a shard of rows; one that is there is read.

  Args:
    megapixels: that an image may have, in millions.
    out: the shard.
    paths: of the files, as `decode` takes them, and so on.
    hashes: of them.
    size: of the images.
    channels: of them.
    old: a folder of rows, and which of these are the images; -1: none.
  """
  pictures.raise_bound(megapixels)
  path = pathlib.Path(out)
  try:
    if path.is_file():
      return rows.sum_shard(path)
    kept = np.full(len(paths), -1) if old is None else old[1]
    new = np.flatnonzero(kept < 0)
    if new.size == len(paths):
      images = decode(paths, hashes, size, channels)
      if isinstance(images, Unreadable):
        return images
      return rows.write_shard(path, images)
    assert old is not None
    copies = rows.Rows(pathlib.Path(old[0])).gather(np.maximum(kept, 0))
    if new.size:
      made = decode(
        [paths[i] for i in new.tolist()], hashes[new], size, channels
      )
      if isinstance(made, Unreadable):
        return made
      copies[new] = made
    return rows.write_shard(path, copies)
  except OSError as error:  # its number would be lost on the way
    return error


__all__ = [
  'CHANGED',
  'LOOK',
  'UNKNOWN',
  'Unreadable',
  'decode',
  'decode_there',
  'look',
  'write_shard',
]
