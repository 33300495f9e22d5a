"""What worker processes do: look at image files, and decode them.

Nothing here imports JAX.
"""

import contextlib
import hashlib
import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan_jax.data import drafts, encoded, packed, pictures, rows
from gan_jax.data.drafts import Draft
from gan_jax.data.encoded import Record
from gan_jax.data.listing import UNKNOWN, is_fresh
from gan_jax.data.packed import Member
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


class Unreadable(NamedTuple):
  """An image that cannot be had, and why."""

  path: str
  why: str


CHANGED = 'was changed since the folder was looked at'
Place = str | Member | Record  # of a file


def read_file(path: Place) -> tuple[bytes, int]:
  """Content of a file, and the time of its last change: `UNKNOWN` for now.

  Raises:
    OSError: if it cannot be read.
  """
  if isinstance(path, Record):
    return encoded.read(path), UNKNOWN
  if isinstance(path, Member):
    before = os.stat(path.archive)
    content = packed.read(path)
    after = os.stat(path.archive)
    size = before.st_size
  else:
    with open(path, 'rb') as file:
      before = os.fstat(file.fileno())
      content = file.read()
      after = os.fstat(file.fileno())
    size = len(content)
  changed = after.st_mtime_ns
  same = changed == before.st_mtime_ns and size == after.st_size
  if not same or is_fresh(changed):
    changed = UNKNOWN
  return content, changed


def peek(path: str | Member) -> tuple[tuple[int, int], bool] | None:
  """As `pictures.peek`."""
  if isinstance(path, str):
    return pictures.peek(path)
  try:
    return pictures.peek(io.BytesIO(packed.read(path)))
  except OSError:
    return None


def look(
  paths: Sequence[str | Member], megapixels: float, draft: Draft | None = None
) -> tuple[NDArray[Any], list[tuple[int, Fault]]]:
  """What image files are, each read once.

  Args:
    paths: of the files.
    megapixels: millions of pixels that one may have.
    draft: of their rows, which are written now.

  Returns:
    A `LOOK` for each, and what is wrong with some.
  """
  table = np.zeros(len(paths), LOOK)
  faults: list[tuple[int, Fault]] = []
  made: list[int] = []  # which have a row, or are kept
  contents: list[bytes] = []
  as_rows = draft if draft and not draft.encoded else None
  shape = as_rows.shape if as_rows else (0, 0, 0)
  images = np.empty((len(paths) if as_rows else 0, *shape), 'u1')
  with pictures.allow_pixels(megapixels):
    for i, path in enumerate(paths):
      found, image, content = _look(path, megapixels, as_rows)
      if isinstance(found, Fault):
        faults.append((i, found))
        continue
      table[i] = found
      if draft and draft.encoded:
        contents.append(content)
        made.append(i)
      elif image is not None and image.shape == images.shape[1:]:
        images[len(made)] = image
        made.append(i)
  if draft and made:
    some = contents if draft.encoded else images[: len(made)]
    # What cannot be written now is made, or told, when the shards are.
    with contextlib.suppress(OSError):
      drafts.write(draft.folder, some, table['hash'][made])
  return table, faults


def _look(
  path: str | Member, megapixels: float, draft: Draft | None
) -> tuple[tuple[Any, ...] | Fault, NDArray[np.uint8] | None, bytes]:
  """The entries of a `LOOK`, the pixels if they are wanted, and the content."""
  try:
    content, changed = read_file(path)
  except (OSError, ValueError):
    return Fault('damage'), None, b''
  row = (draft.size, draft.shape[2]) if draft else None
  facts, image = pictures.look_and_read(io.BytesIO(content), megapixels, row)
  if not isinstance(facts, ImageFacts):
    return facts, None, content
  mark = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
  entries = (
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
  return entries, image, content


def decode(
  paths: Sequence[Place],
  hashes: NDArray[np.uint8],
  size: int,
  channels: int,
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
      content = _read_known(path, mark)
      if isinstance(content, Unreadable):
        return content
      with pictures.open_image(io.BytesIO(content)) as image:
        images.append(pictures.resize_and_crop(image, size, channels))
    except pictures.UNREADABLE as error:
      return Unreadable(
        str(path), getattr(error, 'strerror', None) or str(error)
      )
  return np.stack(images)


def _read_known(path: Place, mark: NDArray[np.uint8]) -> bytes | Unreadable:
  """The content of a file, which is to have this SHA-256.

  Raises:
    OSError: if it cannot be read.
  """
  content, _ = read_file(path)
  if hashlib.sha256(content).digest() != mark.tobytes():
    return Unreadable(str(path), CHANGED)
  return content


def decode_there(
  megapixels: float, *how: Any
) -> NDArray[np.uint8] | Unreadable:
  """As `decode`, in a process that knows no bound yet."""
  pictures.raise_bound(megapixels)
  return decode(*how)


def write_shard(
  megapixels: float,
  out: str,
  paths: Sequence[str | Member],
  hashes: NDArray[np.uint8],
  size: int,
  channels: int,
  old: tuple[Sequence[str], NDArray[np.int64]] | None = None,
) -> rows.Sums | Unreadable | OSError:
  """Image files as a shard of rows; one that is there is read.

  Args:
    megapixels: that an image may have, in millions.
    out: the shard.
    paths: of the files, as `decode` takes them, and so on.
    hashes: of them.
    size: of the images.
    channels: of them.
    old: folders of rows, and drafts; and of each image which of them has it,
      -1 for none, and at which row, (n, 2).
  """
  pictures.raise_bound(megapixels)
  path = pathlib.Path(out)
  try:
    if path.is_file():
      return rows.sum_shard(path)
    if old is None:
      images = decode(paths, hashes, size, channels)
    else:
      images = _complete(*old, paths, hashes, size, channels)
    if isinstance(images, Unreadable):
      return images
    return rows.write_shard(path, images)
  except OSError as error:  # its number would be lost on the way
    return error


def keep_shard(
  out: str, paths: Sequence[str | Member], hashes: NDArray[np.uint8]
) -> rows.Sums | Unreadable | OSError:
  """Image files as a shard of `encoded`; one that is there is read.

  Args:
    out: the shard.
    paths: of the files.
    hashes: of them.
  """
  path, contents = pathlib.Path(out), []
  try:
    if path.is_file():
      return encoded.sum_shard(path)
    for file, mark in zip(paths, hashes, strict=True):
      try:
        content = _read_known(file, mark)
      except OSError as error:
        return Unreadable(str(file), error.strerror or str(error))
      if isinstance(content, Unreadable):
        return content
      contents.append(content)
    return encoded.write_shard(path, contents)
  except OSError as error:  # its number would be lost on the way
    return error


def _complete(
  places: Sequence[str],
  where: NDArray[np.int64],
  paths: Sequence[str | Member],
  hashes: NDArray[np.uint8],
  size: int,
  channels: int,
) -> NDArray[np.uint8] | Unreadable:
  """Rows that are somewhere already, and the others decoded."""
  copies = {}
  for i in np.unique(where[:, 0][where[:, 0] >= 0]).tolist():
    here = np.flatnonzero(where[:, 0] == i)
    copies[i] = here, _gather(places[i], where[here, 1])
  new = np.flatnonzero(where[:, 0] < 0)
  if new.size:
    made = decode([paths[i] for i in new.tolist()], hashes[new], size, channels)
    if isinstance(made, Unreadable):
      return made
    copies[-1] = new, made
  _, some = next(iter(copies.values()))
  images = np.empty((len(paths), *some.shape[1:]), np.uint8)
  for here, some in copies.values():
    images[here] = some
  return images


def _gather(place: str, picked: NDArray[np.int64]) -> NDArray[np.uint8]:
  """Rows of a folder of rows, or of a draft."""
  if place.endswith('.npy'):
    draft: NDArray[np.uint8] = np.load(place, mmap_mode='r')
    return draft[picked]
  return rows.Rows(pathlib.Path(place)).gather(picked)


__all__ = [
  'CHANGED',
  'LOOK',
  'Place',
  'UNKNOWN',
  'Unreadable',
  'decode',
  'decode_there',
  'keep_shard',
  'look',
  'write_shard',
]
