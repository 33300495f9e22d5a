"""What a folder of images holds, kept so that each file is looked at once.

The manifest of a folder lies in the data root: of each image its path in the
folder, its size and the time of its last change, and what `reading.look` found.
A start lists the folder and reads the files that are new or have another size
or time. What has been read when a process is killed is kept.
"""

import contextlib
import hashlib
import math
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tqdm
from numpy.typing import NDArray

from gan_jax.data import reading
from gan_jax.data.drafts import Draft
from gan_jax.data.listing import FOLDERS, Listing
from gan_jax.data.pictures import Fault
from gan_jax.data.reading import LOOK, UNKNOWN
from gan_jax.runtime import locks, terminal
from gan_jax.runtime.array_cache import read_sealed, write_sealed
from gan_jax.runtime.workers import Workers, count_cores

_FILE = 'manifest.npz'
_PART = 32  # files that a process reads in one go
_ALONE = 2.0  # seconds of reading for which no processes are started
_KEEP = 3.0  # seconds from one writing of a manifest to the next


def say(text: str) -> None:
  """Prints a line for the person who waits."""
  terminal.tell(text, sys.stderr)


def place_of(data_root: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """Where what is known of a folder is kept."""
  real = os.path.realpath(folder)
  digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:16]
  stem = re.sub(r'[^\w.-]+', '_', os.path.basename(real), flags=re.ASCII)[-40:]
  return data_root / FOLDERS / f'{stem}-{digest}'


@contextlib.contextmanager
def alone(place: pathlib.Path) -> Iterator[bool]:
  """Holds a place, made if it is not there; waits for who holds it.

  False where nothing can be written.
  """
  with contextlib.ExitStack() as stack:
    told = False
    while True:
      try:
        place.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locks.hold(place, say))
        break
      except locks.Held as held:
        if not told:
          who = f'{held}' or 'another process'
          say(f'waiting for {who}, which reads the same images')
        told = True
        time.sleep(0.2)
      except (OSError, locks.NotALock):
        yield False
        return
    yield True


def _pack(names: Sequence[str]) -> NDArray[np.uint8]:
  return np.frombuffer(b'\0'.join(map(os.fsencode, names)), np.uint8)


def _unpack(packed: NDArray[np.uint8]) -> list[str]:
  if not packed.size:
    return []
  return [os.fsdecode(name) for name in packed.tobytes().split(b'\0')]


def _read(place: pathlib.Path) -> tuple[list[str], NDArray[Any]]:
  """Names and looks of the manifest."""
  arrays = read_sealed(place / _FILE)
  if arrays is None or arrays['looks'].dtype != LOOK:
    return [], np.zeros(0, LOOK)
  return _unpack(arrays['names']), arrays['looks']


def _write(
  place: pathlib.Path, names: Sequence[str], looks: NDArray[Any]
) -> bool:
  """Writes the manifest; whether that went well."""
  try:
    write_sealed(place / _FILE, {'names': _pack(names), 'looks': looks})
  except OSError as error:
    say(
      f'warning: {place / _FILE} cannot be written ({error.strerror or error}):'
      ' what is read now is read again at the next start'
    )
    return False
  return True


def _recall(
  place: pathlib.Path, listing: Listing, shares: Sequence[pathlib.Path] = ()
) -> tuple[NDArray[Any], int]:
  """Looks of the files that are known and unchanged, and how many are kept.

  Others have no bytes.

  Args:
    place: where they are kept.
    listing: the files.
    shares: where others may have kept some.
  """
  names, kept = _read(place)
  count = len(names)
  for share in shares:
    more, some = _read(share)
    names, kept = [*names, *more], np.concatenate([kept, some])
  looks = np.zeros(len(listing.names), LOOK)
  if names == listing.names:
    looks[:] = kept
  else:
    number = {name: i for i, name in enumerate(names)}
    rows = np.array([number.get(name, -1) for name in listing.names])
    looks[rows >= 0] = kept[rows[rows >= 0]]
  same = (looks['bytes'] == listing.sizes) & (looks['time'] == listing.times)
  looks[~same] = np.zeros(1, LOOK)
  return looks, count


def take_stock(
  place: pathlib.Path | None,
  listing: Listing,
  megapixels: float,
  draft: Draft | None = None,
  shares: Sequence[pathlib.Path] = (),
  always: bool = False,
) -> tuple[NDArray[Any], list[tuple[int, Fault]]]:
  """A `LOOK` of each file, and what is wrong with some.

  Args:
    place: where the manifest is kept; None for none.
    listing: the files.
    megapixels: millions of pixels that an image may have.
    draft: of the rows of files that are looked at, which are made as well.
    shares: places of what others have looked at.
    always: whether a manifest of few files is kept, too.
  """
  if place is None or (listing.is_small and not always):
    looks = np.zeros(len(listing.names), LOOK)
    return looks, _look(None, listing, looks, megapixels)
  looks, kept = _recall(place, listing, shares)
  faults = []
  if not looks['bytes'].all() or kept != len(looks):
    with alone(place) as writable:
      if writable:  # another process may have been first
        looks, kept = _recall(place, listing, shares)
      else:
        say(
          f'warning: nothing can be written at {place}: the images are read'
          ' again at each start; use a `data_dir` that you may write to'
        )
        if draft and place in pathlib.Path(draft.folder).parents:
          draft = None
      kept_in = place if writable else None
      faults = _look(kept_in, listing, looks, megapixels, draft)
  many = looks['width'].astype(np.int64) * looks['height'] > megapixels * 1e6
  for i in np.flatnonzero(many).tolist():
    size = f'{looks["width"][i]}x{looks["height"][i]}'
    faults.append((i, Fault('size', size)))
  return looks, sorted(faults)


def _look(
  place: pathlib.Path | None,
  listing: Listing,
  looks: NDArray[Any],
  megapixels: float,
  draft: Draft | None = None,
) -> list[tuple[int, Fault]]:
  """Looks at the files of which nothing is known; `looks` gets what is found.

  In this process for a moment, then in as many as there are cores.
  """
  new = np.flatnonzero(looks['bytes'] == 0)
  # Those of a first start are the shards that are to be.
  count = draft.most if draft and len(new) >= draft.most else _PART
  parts = [new[i : i + count] for i in range(0, len(new), count)]
  calls = ((listing.paths(part), megapixels, draft) for part in parts)
  size = int(listing.sizes[new].sum())
  rows = _describe(place, draft, len(new), size) if count > _PART else ''
  faults: list[tuple[int, Fault]] = []
  keeper = _Keeper(place, listing, looks)
  bar = tqdm.tqdm(
    desc='looking at images', total=len(new), delay=1, disable=None
  )
  with bar, contextlib.closing(keeper):
    for part, (found, wrong) in zip(
      parts, _answers(calls, len(new), count, rows), strict=True
    ):
      looks[part] = found
      faults += [(int(part[i]), fault) for i, fault in wrong]
      bar.update(len(part))
      keeper.keep_now_and_then()
  return faults


class _Keeper:
  """Writes a manifest while it grows, so that a kill loses little of it."""

  def __init__(
    self, place: pathlib.Path | None, listing: Listing, looks: NDArray[Any]
  ) -> None:
    self._place, self._listing, self._looks = place, listing, looks
    self._pause, self._written = _KEEP, time.monotonic()

  def keep_now_and_then(self) -> None:
    """Writes it, unless that was a moment ago."""
    if time.monotonic() - self._written >= self._pause:
      self.close()

  def close(self) -> None:
    """Writes it."""
    if self._place is None:
      return
    began = time.monotonic()
    known = np.flatnonzero(self._looks['bytes'])
    names = [self._listing.names[i] for i in known]
    if not _write(self._place, names, self._looks[known]):
      self._place = None  # it is said once
    self._written = time.monotonic()
    self._pause = max(_KEEP, 20 * (self._written - began))


def _describe(
  place: pathlib.Path | None, draft: Draft | None, images: int, size: int
) -> str:
  """What is made of so many images, of these bytes, and how to have none."""
  if draft is None:
    return ''
  folder, kind = pathlib.Path(draft.folder).parent, 'as they are'
  if not draft.encoded:
    kind = f'as rows of {"x".join(map(str, draft.shape))}'
    size = images * math.prod(draft.shape)
  own = '; `keep_rows=False` keeps none' if folder == place else ''
  return f'; kept {kind} in {folder} ({size / 2**20:,.0f} MiB){own}'


def _answers(
  calls: Iterator[Any], images: int, count: int, rows: str
) -> Iterator[Any]:
  """What is found in so many images, of `count` in each call."""
  began, done, parts = time.monotonic(), 0, -(-images // count)
  if count <= _PART:  # else each takes its time
    for done, call in enumerate(calls, 1):
      yield reading.look(*call)
      taken = time.monotonic() - began
      if taken * (parts - done) / done > _ALONE and done < parts:
        break
    else:
      return
  say(
    f'looking at {images - done * count:,} images, once, in {count_cores()}'
    f' processes{rows}'
  )
  with Workers('gan_jax.data.reading:look') as workers:
    yield from workers.map(calls)


__all__ = ['FOLDERS', 'UNKNOWN', 'Listing', 'alone', 'place_of', 'say']
