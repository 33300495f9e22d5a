"""Small checkpoints, with the files that Orbax writes, at a tenth of its cost.

Of what Orbax takes to save a small network, 30 ms and half a millisecond an
array, next to all goes into tasks, threads and paths. Where a process is alone
and its arrays are small, they are written here into a store of the same kind
and layout, in one transaction: Orbax reads it as one of its own. As there, a
save is read back, and gets its name when it is whole.

So are arrays of any size where the processes of a job work apart: Orbax saves
with all of them together, and takes what one tells for what another does.
"""

import collections
import json
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from gan_jax.runtime.errors import ReadBackError
from gan_jax.runtime.files import sync

Flat = Mapping[str, NDArray[Any]]
Best = Callable[[list[int]], int | None]
MOST_BYTES = 2**22  # of the arrays of a small checkpoint
UNFINISHED = '.orbax-checkpoint-tmp'
_AT_ONCE = 16  # chunks of arrays that are read together
_PLAIN = 'biuf'  # kinds of numbers whose bytes are stored as they are
_HANDLERS = {
  'meta': 'gan_jax.runtime.storage.MetaHandler',
  'state': 'gan_jax.runtime.storage.StateHandler',
}


def is_plain(arrays: Flat) -> bool:
  """Whether these can be saved here."""
  return all(
    x.dtype.kind in _PLAIN or x.dtype.name == 'bfloat16'
    for x in arrays.values()
  )


def is_small(arrays: Flat) -> bool:
  """Whether they are, and are best saved here."""
  small = sum(x.nbytes for x in arrays.values()) <= MOST_BYTES
  return small and is_plain(arrays)


class Manager:
  """Saves steps in a folder, one at a time in a thread, and deletes old ones.

  What it has of the methods of Orbax's manager does the same.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    keep: int,
    best: Best | None,
    steps: Callable[[], list[int]],
    locks: bool,
    gone: str = '',
  ) -> None:
    """Removes what a kill has left unfinished.

    Args:
      folder: of the checkpoints.
      keep: how many of the newest stay.
      best: of all steps, the one that stays as well.
      steps: those that are finished.
      locks: whether files in the folder can be locked.
      gone: folder to which old ones are renamed, for another to delete; empty:
        they are deleted.
    """
    self._gone = gone and folder / gone
    self._folder, self._keep, self._best = folder, keep, best
    self._steps, self._locks = steps, locks
    self._pool = ThreadPoolExecutor(1, 'checkpoint')
    self._pending: Future[None] | None = None
    self._writing: list[int] = []
    for path in folder.glob(f'*{UNFINISHED}*'):
      shutil.rmtree(path, ignore_errors=True)

  def all_steps(self) -> list[int]:
    """Those that are finished, and the one that is being written."""
    return [*{*self._steps(), *self._writing}]

  def save(self, step: int, arrays: Flat, meta: Mapping[str, Any]) -> None:
    """Starts to save.

    Raises:
      OSError, ValueError: if the save before it failed.
    """
    self.wait_until_finished()
    steps = sorted({*self._steps(), step})
    stay = {*steps[-self._keep :], self._best(steps) if self._best else None}
    old = [s for s in steps if s not in stay]
    self._writing = [step]
    self._pending = self._pool.submit(self._save, step, arrays, meta, old)

  def _save(
    self, step: int, arrays: Flat, meta: Mapping[str, Any], old: list[int]
  ) -> None:
    final = self._folder / f'{step:09d}'
    part = final.with_name(final.name + UNFINISHED)
    if part.exists():
      shutil.rmtree(part)
    write(part, final, arrays, meta, self._locks)
    if os.path.lexists(final):
      raise FileExistsError(f'{final} exists')
    part.rename(final)
    for path in (self._folder / f'{step:09d}' for step in old):
      if self._gone:  # one that is being copied is there whole, or not at all
        self._gone.mkdir(exist_ok=True)
        path.rename(self._gone / path.name)
      else:
        shutil.rmtree(path, ignore_errors=True)

  def wait_until_finished(self) -> None:
    """Waits.

    Raises:
      OSError, ValueError: if the save failed.
    """
    pending, self._pending = self._pending, None
    try:
      if pending is not None:
        pending.result()
    finally:
      self._writing = []

  def reload(self) -> None:
    """Nothing is kept of the folder."""

  def close(self) -> None:
    """Ends the thread.

    Raises:
      OSError, ValueError: if the last save failed.
    """
    try:
      self.wait_until_finished()
    finally:
      self._pool.shutdown()


def write(
  part: pathlib.Path,
  final: pathlib.Path,
  arrays: Flat,
  meta: Mapping[str, Any],
  locks: bool = True,
) -> None:
  """Writes a checkpoint into a new folder and reads it back.

  Args:
    part: the folder.
    final: the name that it is to get.
    arrays: by path.
    meta: its description.
    locks: whether files there can be locked.

  Raises:
    OSError, ValueError: if it cannot be written; ReadBackError if what was is
      not what can be read.
  """
  started, text = time.time_ns(), json.dumps(meta)
  for folder in (part, part / 'state', part / 'meta'):
    folder.mkdir()
  write_arrays(part / 'state', arrays, locks)
  write_meta(part / 'meta/metadata', text)
  write_meta(part / 'state/_METADATA', json.dumps(_describe(arrays)))
  facts = {
    'item_handlers': _HANDLERS,
    'metrics': {},
    'performance_metrics': {},
    'init_timestamp_nsecs': started,
    'commit_timestamp_nsecs': time.time_ns(),
    'custom_metadata': {},
  }
  # Orbax's own, and nothing is lost with it.
  (part / '_CHECKPOINT_METADATA').write_text(json.dumps(facts), 'utf-8')
  read_back(part / 'state', arrays)
  read_back_text(part / 'meta/metadata', text)
  done = f'Checkpoint commit was successful to {final}'
  for folder in (part / 'state', part / 'meta', part):
    (folder / 'commit_success.txt').write_bytes(os.fsencode(done))


def write_meta(path: pathlib.Path, text: str) -> None:
  """Writes a description, to the disk."""
  with open(path, 'x', encoding='utf-8') as file:
    file.write(text)
    file.flush()
    sync(file)


def write_arrays(folder: pathlib.Path, arrays: Flat, locks: bool) -> None:
  """Writes a store of arrays, each one chunk."""
  context = {} if locks else {'file_io_locking': {'mode': 'none'}}
  store = ts.KvStore.open(_spec(folder), context=ts.Context(context)).result()
  with ts.Transaction() as transaction:
    view = store.with_transaction(transaction)
    for path, x in arrays.items():
      view.write(f'{path}/.zarray', json.dumps(_header(x)))
      view.write(f'{path}/{".".join("0" * x.ndim) or "0"}', x.tobytes())


def _header(x: NDArray[Any]) -> dict[str, Any]:
  return {
    'chunks': list(x.shape),
    'compressor': None,
    'dimension_separator': '.',
    'dtype': x.dtype.str if x.dtype.kind in _PLAIN else x.dtype.name,
    'fill_value': None,
    'filters': None,
    'order': 'C',
    'shape': list(x.shape),
    'zarr_format': 2,
  }


def _describe(arrays: Flat) -> dict[str, Any]:
  """What Orbax says of a flat dict of arrays."""
  value = {'value_type': 'np.ndarray', 'skip_deserialize': False}
  tree = {
    str((path,)): {
      'key_metadata': [{'key': path, 'key_type': 2}],
      'value_metadata': value,
    }
    for path in arrays
  }
  return {
    'tree_metadata': tree,
    'use_ocdbt': True,
    'use_zarr3': False,
    'store_array_data_equal_to_fill_value': True,
    'custom_metadata': None,
  }


def _spec(folder: pathlib.Path) -> dict[str, Any]:
  base = {'driver': 'file', 'path': f'{folder}/'}
  return {'driver': 'ocdbt', 'base': base}


def read_back_text(path: pathlib.Path, text: str) -> None:
  """Reads a description.

  Raises:
    ReadBackError: if it is not what was written.
  """
  if not path.is_file() or path.read_text('utf-8') != text:
    raise ReadBackError('its description is not what was written')


def read_back(folder: pathlib.Path, arrays: Flat) -> None:
  """Reads a store of arrays: its index and every byte, compressed as they are.

  Args:
    folder: of the store.
    arrays: what it should hold, by path.

  Raises:
    ReadBackError: if an array is missing, of another shape or type, or not to
      be read.
  """
  try:
    store = ts.KvStore.open(_spec(folder)).result()
    keys = [key.decode() for key in store.list().result()]
    headers: dict[str, Any] = {}
    chunks = collections.Counter[str]()
    for start in range(0, len(keys), _AT_ONCE):
      some = keys[start : start + _AT_ONCE]
      reads = [store.read(key) for key in some]
      for key, read in zip(some, reads, strict=True):
        path, _, name = key.rpartition('/')
        content = read.result().value
        if name == '.zarray':
          headers[path] = json.loads(content)
        else:
          chunks[path] += 1
  except (ValueError, OSError) as error:
    first = str(error).splitlines()[0][:300]
    raise ReadBackError(f'its arrays cannot be read: {first}') from error
  for path, array in arrays.items():
    if not _is_whole(headers.get(path), chunks[path], array):
      raise ReadBackError(f'{path} is missing or of another shape')


def _is_whole(header: Any, chunks: int, array: NDArray[Any]) -> bool:
  """Whether a stored array is all there and of the right shape and type."""
  if header is None or tuple(header['shape']) != array.shape:
    return False
  lengths = zip(header['shape'], header['chunks'], strict=True)
  count = math.prod(-(-total // part) for total, part in lengths)
  return chunks == count and np.dtype(header['dtype']) == array.dtype
