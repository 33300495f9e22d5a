"""Folders of image files: listed, looked at, decoded when asked for.

A folder is read with all its subfolders, linked ones too. What is left out
(other files, hidden ones, folders of runs) is counted and said.
"""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.data import pictures
from gan_jax.data.pictures import (
  SUFFIXES,
  Fault,
  ImageFacts,
  resize_and_crop,
)
from gan_jax.data.samples import SampleSet, are_hashed_whole, hash_files
from gan_jax.runtime import places
from gan_jax.runtime.errors import ArgumentError, DataError
from gan_jax.runtime.progress import progress_bar

_RUN_FILES = ('config.flags', 'plan.json')  # of a run's folder, an ablation's
_ARCHIVES = ('.zip', '.tar', '.gz', '.tgz', '.bz2', '.xz', '.7z', '.rar')
_THREADS = 8  # each decodes an image of at most the bound
_LISTED = 6  # of what messages list


class Folder:
  """Image files of a folder, decoded when asked for."""

  def __init__(
    self, files: Sequence[pathlib.Path], size: int, channels: int
  ) -> None:
    """`size` and `channels` as `resize_and_crop` takes them."""
    self._files, self._size, self._channels = files, size, channels

  def __len__(self) -> int:
    """How many files there are."""
    return len(self._files)

  def __getitem__(self, index: Any) -> NDArray[np.uint8]:
    """One image."""
    path = self._files[index]
    try:
      with pictures.open_image(path) as image:
        return resize_and_crop(image, self._size, self._channels)
    except pictures.UNREADABLE as error:
      raise _unreadable([path]) from error


def _unreadable(paths: Sequence[pathlib.Path]) -> DataError:
  names = ', '.join(map(str, paths[:5]))
  more = f' and {len(paths) - 5} more' if len(paths) > 5 else ''
  return DataError(f'cannot read {names}{more}: mend or remove the files')


# What is in a folder.


@dataclasses.dataclass(frozen=True)
class Inventory:
  """The images of a folder, and what was left out.

  Attributes:
    root: the folder.
    files: its images, in the order of their paths.
    facts: of each image.
    classes: names of the folders in it, a class each; empty if an image lies
      in none.
    labels: the class of each image.
    left_out: how often, by what.
  """

  root: pathlib.Path
  files: Sequence[pathlib.Path]
  facts: Sequence[ImageFacts]
  classes: tuple[str, ...]
  labels: NDArray[np.int32]
  left_out: collections.Counter[str]

  def describe(self, channels: int = 0) -> list[str]:
    """Lines for a person: kinds, sizes, classes, what is done and left out.

    Args:
      channels: that are read; with 4 what is transparent stays so.
    """
    facts = self.facts
    kinds = _count(path.suffix.lower() for path in self.files)
    modes = _count(fact.mode for fact in facts)
    sizes = _count(f'{w}x{h}' for w, h in (fact.size for fact in facts))
    lines = [f'files: {kinds}; {modes}; {sizes}']
    if self.classes:
      lines.append(f'classes: {_count(self.classes[i] for i in self.labels)}')
    else:
      loose = sum(path.parent == self.root for path in self.files)
      nested = len(self.files) - loose
      if nested:
        lines.append(f'no classes: {loose} of the images lie in no subfolder')
    deep = sum(fact.peak > 0 for fact in facts)
    notes = [
      (
        sum(fact.transparent for fact in facts),
        'with transparency, '
        + ('kept' if channels == 4 else f'laid on {pictures.BACKGROUND}'),
      ),
      (
        sum(f.frames > 1 for f in facts),
        'of several frames, of which the first',
      ),
      (deep, 'of 16 bits, divided by 257'),
    ]
    conversions = [f'{count} {text}' for count, text in notes if count]
    if conversions:
      lines.append('read as: ' + '; '.join(conversions))
    if deep and all(map(pictures.is_dim, filter(lambda f: f.peak, facts))):
      peak = max(fact.peak for fact in facts)
      lines.append(
        f'warning: the largest value of the 16-bit images is {peak} of 65535,'
        ' so that they are near black; stretch them to 16 bits first'
      )
    if self.left_out:
      left_out = (f'{n} {what}' for what, n in sorted(self.left_out.items()))
      lines.append('left out: ' + '; '.join(left_out))
    return lines


def _count(words: Iterable[str]) -> str:
  """How many of each, the most frequent first.

  >>> _count(['cat', 'dog', 'dog'])
  '2 dog, 1 cat'
  """
  counts = collections.Counter(words).most_common()
  text = ', '.join(f'{n:,} {word}' for word, n in counts[:_LISTED])
  rest = counts[_LISTED:]
  if not rest:
    return text
  return f'{text} and {sum(n for _, n in rest):,} of {len(rest)} more'


def take_inventory(
  path: str, megapixels: float = pictures.MEGAPIXELS
) -> Inventory:
  """Lists a folder and looks at every image in it.

  Raises:
    ArgumentError: for a folder that is not there, or an image of more than
      `megapixels` million pixels.
    DataError: for a folder without images, or files that cannot be read.
  """
  name = f'folder:{path}'
  root = places.resolved('dataset', path, name)
  _check_folder(root, name)
  files, left_out = _list_files(root)
  if not files:
    rest = ', '.join(f'{n} {what}' for what, n in sorted(left_out.items()))
    raise DataError(
      f'{name}: no image files there ({", ".join(SUFFIXES)}, subfolders too)'
      + (f'; there are {rest}' if rest else '')
    )
  facts = _look_at(files, megapixels)
  folders = [file.relative_to(root).parts[:-1] for file in files]
  classes: tuple[str, ...] = ()
  labels = np.zeros(len(files), np.int32)
  if all(folders):  # one class for each folder in it
    classes = tuple(sorted({parts[0] for parts in folders}))
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[parts[0]] for parts in folders], np.int32)
  return Inventory(root, files, facts, classes, labels, left_out)


def _check_folder(root: pathlib.Path, name: str) -> None:
  """Raises on what is no folder that can be read."""
  if os.path.isdir(root):
    return
  remedy = 'no such folder'
  if os.path.isfile(root):
    remedy = 'is a file, not a folder'
    if root.suffix.lower() in _ARCHIVES:
      remedy = 'is an archive; unpack it and name the folder'
  elif os.path.islink(root):
    remedy = f'is a link to {os.readlink(root)}, which is not there'
  raise ArgumentError('dataset', name, remedy)


def _list_files(
  root: pathlib.Path,
) -> tuple[list[pathlib.Path], collections.Counter[str]]:
  """Images below a folder in the order of their paths; counts of the rest.

  Raises:
    DataError: for a folder that cannot be listed.
  """

  def fail(error: OSError) -> None:
    raise DataError(
      f'folder:{root}: {error.filename} cannot be read ({error.strerror});'
      ' make it readable or move it away'
    ) from error

  files: list[pathlib.Path] = []
  left_out = collections.Counter[str]()
  above: dict[pathlib.Path, tuple[str, ...]] = {}
  for place, folders, names in os.walk(root, onerror=fail, followlinks=True):
    here = pathlib.Path(place)
    line = (*above.get(here.parent, ()), os.path.realpath(place))
    above[here] = line
    if here != root and any(file in names for file in _RUN_FILES):
      folders.clear()
      left_out['folder of a run'] += 1
      continue
    for folder in list(folders):
      reason = _why_folder(here / folder, line)
      if reason:
        folders.remove(folder)
        left_out[reason] += 1
    for name in names:
      reason = _why_file(here / name)
      if reason:
        left_out[reason] += 1
      else:
        files.append(here / name)
  return sorted(files), left_out


def _is_hidden(name: str) -> bool:
  # Not the user's: thumbnails, and what macOS puts in an archive beside each
  # picture under its name.
  return name.startswith(('.', '__MACOSX'))


def _why_folder(path: pathlib.Path, line: Sequence[str]) -> str:
  """Why a folder is left out; `line` are the real paths that lead to it."""
  if _is_hidden(path.name):
    return 'hidden folder'
  if path.is_symlink() and os.path.realpath(path) in line:
    return 'link to a folder above it'
  return ''


def _why_file(path: pathlib.Path) -> str:
  """Why a file is left out; a broken link to an image counts as unreadable."""
  if _is_hidden(path.name):
    return 'hidden file'
  suffix = path.suffix.lower()
  if suffix not in SUFFIXES:
    return f'{suffix} file' if suffix else 'file without suffix'
  if os.path.exists(path) and not os.path.isfile(path):
    return 'no file (a pipe or device)'
  return ''


def _look_at(
  files: Sequence[pathlib.Path], megapixels: float
) -> list[ImageFacts]:
  """What each image is.

  Raises:
    ArgumentError: for one of too many pixels.
    DataError: for those that cannot be read, or have no range.
  """
  with pictures.allow_pixels(megapixels), ThreadPoolExecutor(_THREADS) as pool:
    results = pool.map(lambda p: pictures.look_at(p, megapixels), files)
    looks = list(progress_bar(results, len(files), 'looking at images'))
  faults = [
    (path, look)
    for path, look in zip(files, looks, strict=True)
    if isinstance(look, Fault)
  ]
  damaged = [path for path, fault in faults if fault.kind == 'damage']
  if damaged:
    raise _unreadable(damaged)
  for path, fault in faults:
    more = f' and {len(faults) - 1} more' if len(faults) > 1 else ''
    if fault.kind == 'size':
      raise ArgumentError(
        'max_megapixels',
        megapixels,
        f'{path}{more}: {fault.text} pixels; make it smaller, or allow more (a'
        ' pixel takes up to 4 bytes of memory while it is read)',
      )
    raise DataError(
      f'cannot read {path}{more}: {fault.text}; convert to 8 or 16 bits'
    )
  return [look for look in looks if isinstance(look, ImageFacts)]


def load_folder(
  path: str,
  image_size: int,
  channels: int,
  cache: pathlib.Path,
  megapixels: float = pictures.MEGAPIXELS,
) -> SampleSet:
  """Every image file below a folder, in the order of their paths.

  Raises:
    ArgumentError: for a folder that is not there, grey and colour mixed, or
      sizes that differ, unless they are to be converted; for 4 channels where
      no image has so many.
    DataError: for a folder without images, or files that cannot be read.
  """
  name, inventory = f'folder:{path}', take_inventory(path, megapixels)
  files, facts = inventory.files, inventory.facts
  channels = channels or _common_channels(name, facts)
  if channels == 4 and not any(fact.transparent for fact in facts):
    raise ArgumentError(
      'channels', 4, f'no image of {name} has transparency; leave it out'
    )
  height, width = (image_size,) * 2 if image_size else _common_size(name, facts)
  images = SampleSet(
    name,
    (height, width, channels),
    Folder(files, image_size, channels),
    _hash(files, height, channels),
    cache if are_hashed_whole(files) else None,
    notes=tuple(inventory.describe(channels)),
  )
  if not inventory.classes:
    return images
  labels = inventory.labels
  names = tuple(places.printable(name) for name in inventory.classes)
  return dataclasses.replace(images, classes=names, read_labels=lambda: labels)


def _hash(files: Sequence[pathlib.Path], *how: object) -> str:
  try:
    return hash_files(files, 'folder', *how)
  except OSError as error:
    raise DataError(
      f'cannot read {error.filename} ({error.strerror}): it went while the'
      ' folder was looked at; start again'
    ) from error


def _common_channels(name: str, facts: Sequence[ImageFacts]) -> int:
  grey = sum(fact.grey for fact in facts)
  if 0 < grey < len(facts):
    raise ArgumentError(
      'dataset',
      name,
      f'{grey} grey and {len(facts) - grey} colour images; set `channels=1`'
      ' or `channels=3` to convert them all',
    )
  return 1 if grey else 3


def _common_size(name: str, facts: Sequence[ImageFacts]) -> tuple[int, int]:
  sizes = collections.Counter(fact.size for fact in facts)
  (width, height), *others = sizes
  if others or width != height:
    raise ArgumentError(
      'dataset',
      name,
      f'images of {len(sizes)} sizes, such as {width}x{height}; set'
      ' `image_size` to resize and crop them to one square',
    )
  return height, width
