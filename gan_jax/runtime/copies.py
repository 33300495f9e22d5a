"""Data in an object store, copied to this machine once.

What reads data maps files into memory. So all objects below a URL are fetched
into `~/.cache/gan_jax/store`, and again only those that have changed since.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import time

from gan_jax.runtime import locks, places
from gan_jax.runtime.errors import DataError
from gan_jax.runtime.files import write_atomic
from gan_jax.runtime.progress import progress_bar
from gan_jax.runtime.store import Item, Store, at_once

_RECORD = '.objects.json'
OWN = (_RECORD, f'.{_RECORD}.lock')  # not of the set
_OFTEN = 10.0  # seconds from one record of what is there to the next


def folder_of(url: str) -> pathlib.Path:
  """The folder of this machine that a copy of a URL is in."""
  url = url.rstrip('/')
  name = re.sub(r'[^\w.-]', '_', url.rpartition('/')[2])
  code = hashlib.sha256(url.encode()).hexdigest()[:12]
  return places.below_home('~/.cache/gan_jax/store') / f'{code}-{name}'


def fetch(
  url: str, argument: str, place: pathlib.Path | None = None
) -> pathlib.Path:
  """Fetches what is below a URL and has changed.

  Args:
    url: of a folder.
    argument: that names it, for messages.
    place: where it is copied to; `folder_of(url)` by default.

  Returns:
    The folder; without one if there is nothing below the URL.

  Raises:
    ArgumentError: if the store refuses.
    StoreAway: if it does not answer.
    DataError: if an object is not of the size that the store says.
  """
  store, place = Store(url, argument), place or folder_of(url)
  with store.refusing():
    items = store.list()
    if not items:
      return place
    place.mkdir(parents=True, exist_ok=True)
    with locks.hold_file(place / _RECORD):
      _update(store, place, items)
  return place


def _update(store: Store, place: pathlib.Path, items: dict[str, Item]) -> None:
  before: dict[str, list[object]] = {}
  with contextlib.suppress(OSError, ValueError):
    before = json.loads((place / _RECORD).read_bytes())

  def is_there(name: str, item: Item) -> bool:
    path = place / name
    known = before.get(name) == [item.size, item.stamp]
    return known and path.is_file() and path.stat().st_size == item.size

  def get(name: str) -> None:
    path, item = place / name, items[name]
    store.download(name, path)
    if path.stat().st_size != item.size:
      raise DataError(
        f'{store.url}/{name} has {path.stat().st_size} bytes, and the store'
        f' says {item.size}; was it written meanwhile? Try again'
      )
    if item.time is not None:  # the same on all machines
      os.utime(path, (item.time, item.time))

  new = [name for name, item in items.items() if not is_there(name, item)]
  for name in before.keys() - items.keys():
    (place / name).unlink(missing_ok=True)
  if not new and before.keys() == items.keys():
    return
  record = {name: [item.size, item.stamp] for name, item in items.items()}
  there = {name: record[name] for name in record.keys() - set(new)}
  written = time.monotonic()
  done = at_once(get, new)
  for _ in progress_bar(done, len(new), f'fetching {store.url}'):
    if time.monotonic() - written > _OFTEN:  # an interrupted fetch goes on
      there |= {n: record[n] for n in new if _has(place / n, items[n])}
      write_atomic(place / _RECORD, json.dumps(there))
      written = time.monotonic()
  write_atomic(place / _RECORD, json.dumps(record))


def _has(path: pathlib.Path, item: Item) -> bool:
  """Whether what was fetched now is there, by its size and time."""
  if item.time is None or not path.is_file():
    return False
  status = path.stat()
  return status.st_size == item.size and abs(status.st_mtime - item.time) < 0.01


def put(place: pathlib.Path, url: str, argument: str) -> None:
  """Puts all files of a folder below a URL.

  Raises:
    ArgumentError, StoreAway: as `fetch`.
  """
  store = Store(url, argument)
  with store.refusing():
    # What says that a set is there comes last.
    paths = sorted(place.rglob('*'), key=lambda p: (p.suffix == '.json', p))
    for path in paths:
      if path.is_file() and path.name[:1] != '.':
        store.upload(path, path.relative_to(place).as_posix())


__all__ = ['OWN', 'fetch', 'folder_of', 'put']
