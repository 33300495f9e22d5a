"""What image files there are: in a folder, or in an archive that stays packed.

Files are listed by their paths, with size and time; none is opened.
"""

import collections
import os
import pathlib
import stat
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan_jax.data import packed
from gan_jax.data.packed import Index, Member
from gan_jax.data.pictures import SUFFIXES
from gan_jax.runtime import copies
from gan_jax.runtime.errors import DataError

FOLDERS = 'gan_jax_folders'  # under the data root: what is known of folders
UNKNOWN = -1  # in the place of a time
_FRESH = 2 * 10**9
# Below both a set is read again at each start: that takes a moment.
_FEW, _FEW_BYTES = 256, 16 * 2**20
_RUN_FILES = ('config.flags', 'plan.json')  # of a run's folder, an ablation's


def is_fresh(changed: int) -> bool:
  """Whether a file was changed, in ns, so lately that its time tells little.

  It may be changed again within the same tick of the clock of its file system.
  """
  return abs(time.time_ns() - changed) < _FRESH


class Listing(NamedTuple):
  """Files of a folder, in the order of their paths.

  Attributes:
    root: the folder, or an archive.
    names: paths in it.
    sizes: in bytes; -1 for a file that cannot be reached.
    times: of their last change, in ns.
    packed: what is in the archive.
    rows: of that, the files.
  """

  root: pathlib.Path
  names: list[str]
  sizes: NDArray[np.int64]
  times: NDArray[np.int64]
  packed: Index | None = None
  rows: NDArray[np.int64] | None = None

  def paths(self, rows: Sequence[int] | NDArray[Any]) -> Sequence[str | Member]:
    """Whole paths of some files; of an archive the files in it."""
    if self.packed is not None and self.rows is not None:
      return self.packed.members(str(self.root), self.rows[rows])
    start = os.path.join(self.root, '')
    return [start + self.names[i] for i in rows]

  def part(self, rows: NDArray[np.int64]) -> 'Listing':
    """Some of the files."""
    return self._replace(
      names=[self.names[i] for i in rows.tolist()],
      sizes=self.sizes[rows],
      times=self.times[rows],
      rows=None if self.rows is None else self.rows[rows],
    )

  @property
  def is_small(self) -> bool:
    """Whether reading it again at each start takes but a moment."""
    return are_few(len(self.names), int(self.sizes.sum()))


def are_few(files: int, size: int) -> bool:
  """Whether to read so many files, of so many bytes, takes but a moment."""
  return files < _FEW and size < _FEW_BYTES


def list_files(
  root: pathlib.Path,
) -> tuple[Listing, collections.Counter[str]]:
  """Images below a folder in the order of their paths; counts of the rest.

  Raises:
    DataError: for a folder that cannot be listed.
  """
  names: list[str] = []
  sizes: list[int] = []
  times: list[int] = []
  left_out = collections.Counter[str]()
  waiting: list[tuple[str, tuple[str, ...]]]
  waiting = [('', (os.path.realpath(root),))]
  while waiting:
    # A place in the folder, and the real paths that lead to it.
    here, line = waiting.pop()
    try:
      with os.scandir(os.path.join(root, here)) as scan:
        entries = list(scan)
    except OSError as error:
      raise DataError(
        f'folder:{root}: {error.filename} cannot be read ({error.strerror});'
        ' make it readable or move it away'
      ) from error
    if here and any(entry.name in _RUN_FILES for entry in entries):
      left_out['folder of a run'] += 1
      continue
    for entry in entries:
      if entry.name in copies.OWN and not here:
        continue
      path = here + entry.name
      if _is_folder(entry):
        real = os.path.join(line[-1], entry.name)
        if entry.is_symlink():
          real = os.path.realpath(entry.path)
        reason = _why_folder(entry.name, real, line)
        if reason:
          left_out[reason] += 1
        elif entry.name != FOLDERS:  # of a data root in the folder
          waiting.append((f'{path}/', (*line, real)))
        continue
      size, changed = -1, UNKNOWN
      reason = _why_file(entry.name)
      if not reason:
        try:
          status = entry.stat()
          size, changed = status.st_size, status.st_mtime_ns
          if not stat.S_ISREG(status.st_mode):
            reason = 'no file (a pipe or device)'
        except OSError:  # a broken link to an image counts as unreadable
          pass
      if reason:
        left_out[reason] += 1
      else:
        names.append(path)
        sizes.append(size)
        times.append(changed)
  order = _order(names)
  listing = Listing(
    root,
    [names[i] for i in order],
    np.array(sizes, np.int64)[order],
    np.array(times, np.int64)[order],
  )
  return listing, left_out


def _order(names: Sequence[str]) -> list[int]:
  """Paths in the order of their parts: of folders, then of files in each."""
  keys = [name.replace('/', '\0') for name in names]
  return sorted(range(len(keys)), key=keys.__getitem__)


def list_archive(
  archive: pathlib.Path, cache: pathlib.Path | None
) -> tuple[Listing, collections.Counter[str]]:
  """As `list_files`, of what is in a .zip or .tar.

  The paths are those in the folder that holds all of it, if there is one: an
  archive of a folder is the same set as the folder.

  Args:
    archive: the file.
    cache: where what is known of it is kept; None for nowhere.

  Raises:
    DataError: for a file that is no such archive, or is encrypted.
  """
  index = packed.read_index(archive, cache)
  left_out = collections.Counter[str]()
  if index.others:
    left_out['link in the archive'] = index.others
  found: dict[str, int] = {}
  for i, name in enumerate(index.names):
    parts = [part for part in name.split('/') if part not in ('', '.')]
    if any(map(_is_hidden, parts[:-1])):
      left_out['file of a hidden folder'] += 1
    elif reason := _why_file(parts[-1] if parts else ''):
      left_out[reason] += 1
    else:
      found['/'.join(parts)] = i
  names, inner = [*found], [*found.values()]
  if len({name.partition('/')[:2] for name in names}) == 1:
    if '/' in names[0]:  # a class below it, if only one, stays one
      names = [name.partition('/')[2] for name in names]
  order = _order(names)
  rows = np.array(inner, np.int64)[order]
  times = np.full(len(rows), os.stat(archive).st_mtime_ns, np.int64)
  sizes = index.places[rows, 2]
  listing = Listing(
    archive, [names[i] for i in order], sizes, times, index, rows
  )
  return listing, left_out


def _is_folder(entry: os.DirEntry[str]) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # a link to itself
    return False


def _is_hidden(name: str) -> bool:
  # Not the user's: thumbnails, and what macOS puts in an archive beside each
  # picture under its name.
  return name.startswith(('.', '__MACOSX'))


def _why_folder(name: str, real: str, line: Sequence[str]) -> str:
  """Why a folder is left out; `line` are the real paths that lead to it."""
  if _is_hidden(name):
    return 'hidden folder'
  return 'link to a folder above it' if real in line else ''


def _why_file(name: str) -> str:
  """Why a file is left out, by its name."""
  if _is_hidden(name):
    return 'hidden file'
  suffix = suffix_of(name)
  if suffix not in SUFFIXES:
    return f'{suffix} file' if suffix else 'file without suffix'
  return ''


def suffix_of(name: str) -> str:
  """As `pathlib` has it, in small letters."""
  name = name.rpartition('/')[2]
  dot = name.rfind('.')
  return name[dot:].lower() if 0 < dot < len(name) - 1 else ''
