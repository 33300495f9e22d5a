"""Folders of image files: listed, looked at once, prepared as rows.

A folder is read with all its subfolders, linked ones too; a zip or tar is read
as the folder that is in it. What is left out (other files, hidden ones, folders
of runs) is counted and said. What a look at
a file finds is kept in the data root (`manifest.py`), and so are the pixels as
rows (`rows.py`), where the disk has room: later starts list the folder and open
these. The files themselves are decoded, in processes, where it has not.
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.features
import PIL.Image
from numpy.typing import NDArray

from gan_jax.data import (
  drafts,
  manifest,
  packed,
  pictures,
  prepared,
  reading,
  rows,
)
from gan_jax.data.decoding import Decoder
from gan_jax.data.drafts import Draft
from gan_jax.data.listing import Listing, list_archive, list_files, suffix_of
from gan_jax.data.manifest import say
from gan_jax.data.packed import Member
from gan_jax.data.pictures import SUFFIXES, Fault
from gan_jax.data.rows import Rows, Sums
from gan_jax.data.samples import SampleSet
from gan_jax.runtime import places
from gan_jax.runtime.errors import ArgumentError, DataError, Error
from gan_jax.runtime.workers import Workers

_ARCHIVES = ('.gz', '.tgz', '.bz2', '.xz', '.zst', '.7z', '.rar')
_LISTED = 6  # of what messages list
_SOURCE_BYTES = 128 * 2**20  # of the files of a shard, at the most
_SHARE = 0.5  # of what is free on a disk, that rows are kept in at the most
_TOLD = 2**24  # bytes of rows that are no secret


class Folder:
  """Images of a folder: rows once they are prepared, else decoded files."""

  def __init__(
    self,
    inventory: 'Inventory',
    shape: tuple[int, int, int],
    size: int,
    fingerprint: str,
    *,
    megapixels: float,
    keep: bool,
  ) -> None:
    """Opens and prepares nothing yet.

    Args:
      inventory: of the folder.
      shape: of its images, (height, width, channels).
      size: as `resize_and_crop` takes it.
      fingerprint: of the set.
      megapixels: millions of pixels that an image may have.
      keep: whether rows are kept in the data root.
    """
    self._listing, self._hashes = inventory.listing, inventory.looks['hash']
    self._inventory, self._shape, self._size = inventory, shape, size
    self._fingerprint, self._megapixels = fingerprint, megapixels
    self._keep = keep and inventory.place and not inventory.listing.is_small
    self._decoder = Decoder(
      self._listing.paths,
      self._hashes,
      shape,
      size,
      megapixels,
      _explain,
      self._listing.is_small,
    )

  def __len__(self) -> int:
    """How many files there are."""
    return len(self._listing.names)

  def __getitem__(self, index: Any) -> NDArray[np.uint8]:
    """One image."""
    image: NDArray[np.uint8] = self.gather(np.array([index]))[0]
    return image

  def gather(self, picked: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Some images, in this order.

    Raises:
      DataError: naming a file that cannot be read.
    """
    if self.rows is not None:
      return self.rows.gather(picked)
    return self._decoder.gather(picked)

  def batches(
    self, picks: Iterable[NDArray[np.integer]]
  ) -> Iterator[NDArray[np.uint8]]:
    """Images by the batch, read ahead."""
    if self.rows is not None:
      return map(self.rows.gather, picks)
    return self._decoder.batches(picks)

  def array(self) -> NDArray[np.uint8]:
    """All images."""
    if self.rows is not None:
      return self.rows.array()
    return self._decoder.array()

  # Rows.

  @functools.cached_property
  def rows(self) -> Rows | None:
    """Its images as rows in the data root, prepared now if they are not there.

    None where none are kept.
    """
    if not self._keep:
      return None
    opened = self._open()
    if opened is not None:
      return opened
    place, size = self._out.parent, len(self) * int(np.prod(self._shape))
    room = _room(place) + self._drafted()
    if size > _SHARE * room:
      say(
        f'the images would take {size / 2**20:,.0f} MiB as rows, and'
        f' {room / 2**20:,.0f} MiB are free in {place}: they are decoded at'
        ' each visit, from where they lie; make room, or use another'
        ' `data_dir`'
      )
      return None
    with manifest.alone(place) as writable:
      if not writable:
        return None
      opened = self._open()  # another process may have been first
      return self._prepare(size) if opened is None else opened

  @property
  def _out(self) -> pathlib.Path:
    """Where the rows are: a folder named by all that they depend on."""
    facts = repr([self._fingerprint, self._shape, self._size, _decoders()])
    digest = hashlib.sha256(facts.encode()).hexdigest()[:16]
    assert self._inventory.place is not None  # else none are kept
    return self._inventory.place / f'{self._kind}-{digest}'

  @property
  def _kind(self) -> str:
    return 'x'.join(map(str, self._shape))

  def _open(self) -> Rows | None:
    """Rows that are there; damaged ones are named, and made again."""
    if not (self._out / rows.FACTS).is_file():
      return None
    try:
      opened = Rows(self._out)
      _ = opened.hashes
      return opened
    except DataError as error:
      why = str(error).partition(';')[0]
      say(f'warning: {why}: the images are prepared again')
      return None

  def _prepare(self, size: int) -> Rows | None:
    out = self._out
    if (out / rows.FACTS).is_file():  # damaged
      prepared.remove(out)
    if size >= _TOLD and 2 * self._drafted() < size:  # else it was said
      say(
        f'preparing {len(self):,} images of {self._kind} in {out}'
        f' ({size / 2**20:,.0f} MiB), once; `keep_rows=False` keeps none'
      )
    others = [path for path in self.kept() if path != out]
    try:
      prepared.write_parts(out, self.plan('', others))
    except OSError as error:
      prepared.remove(out)
      say(
        f'warning: the images cannot be kept in {out}'
        f' ({error.strerror or error}): they are decoded at each visit'
      )
      return None
    for path in others:  # of what the folder was before
      prepared.remove(path)
    drafts.remove(out.parent)
    return Rows(out)

  def _drafted(self) -> int:
    draft = self._inventory.draft
    return drafts.count_bytes(pathlib.Path(draft.folder)) if draft else 0

  def kept(self) -> list[pathlib.Path]:
    """Folders of rows of this one, of what it is or has been."""
    place = self._inventory.place
    return [*place.glob(f'{self._kind}-*')] if place else []

  def plan_in(self, out: pathlib.Path, name: str, form: str) -> prepared.Plan:
    """How it is to be written to a folder, as `prepared.choose_form` has it."""
    pixels = len(self) * int(np.prod(self._shape))
    files = int(self._inventory.looks['bytes'].sum())
    if self._inventory.draft and self._inventory.draft.encoded:
      files -= self._drafted()
    else:
      pixels -= self._drafted()
    form = prepared.choose_form(out, form, pixels, files)
    if form == 'files':
      return self._plan_files(name)
    return self.plan(name, self.kept())

  def _plan_files(self, name: str) -> prepared.Plan:
    """How its files are to be kept as they are."""
    plan, sizes = self.plan(name), self._inventory.looks['bytes']
    made = {
      'image_size': self._size,
      'channels': self._shape[2],
      'max_megapixels': self._megapixels,
    }
    return dataclasses.replace(
      plan,
      made=made,
      make=lambda parts: self._keep_files(parts),
      count=_files_per_shard(sizes),
      sizes=sizes,
      adopt=lambda part: self._adopt(part, []),
    )

  def _keep_files(self, parts: Sequence[prepared.Part]) -> Iterator[Sums]:
    everything = np.arange(len(self))
    calls = (
      (str(part.path), self._listing.paths(some), self._hashes[some])
      for part in parts
      for some in [everything[part.first : part.last]]
    )
    return self._work('keep_shard', calls)

  def plan(
    self, name: str, others: Iterable[pathlib.Path] = ()
  ) -> prepared.Plan:
    """How its images are to be written as rows.

    Args:
      name: of the set; '' for that of the folder.
      others: folders of rows of which some may be the same.
    """
    inventory, size, shape = self._inventory, len(self), self._shape
    made = {
      'image_size': self._size,
      'channels': shape[2],
      'Pillow': PIL.__version__,
    }
    alike = list(_open_alike(others, made))
    most = _most_rows(inventory.looks['bytes'])
    return prepared.Plan(
      name=name or f'folder:{places.printable(str(inventory.root))}',
      shape=shape,
      size=size,
      fingerprint=self._fingerprint,
      made=made,
      make=lambda parts: self._make(parts, alike),
      count=(
        alike[0].facts['shards'][0]['rows']  # so that shards may be the same
        if alike
        else prepared.rows_per_shard(size, shape, most)
      ),
      classes=inventory.class_names,
      labels=inventory.labels if inventory.classes else None,
      hashes=self._hashes,
      adopt=lambda part: self._adopt(part, alike),
    )

  def _adopt(self, part: prepared.Part, others: Sequence[Rows]) -> Sums | None:
    draft, hashes = self._inventory.draft, self._hashes[part.first : part.last]
    if part.path.is_file():
      return None
    if draft is not None:
      sums = drafts.adopt(pathlib.Path(draft.folder), hashes, part.path)
      if sums is not None:
        return sums
    for other in others:
      if other.folder.parent != part.path.parent.parent:
        continue  # what is to be the user's is no second name of ours
      if np.array_equal(other.hashes[part.first : part.last], hashes):
        return other.link(part.first, part.last, part.path)
    return None

  def _make(
    self, parts: Sequence[prepared.Part], others: Sequence[Rows]
  ) -> Iterator[Sums]:
    """Shards, by processes unless there is little to do."""
    if not parts:
      return
    found, where = self._find(others)

    def old(part: prepared.Part) -> Any:
      some = where[part.first : part.last]
      return (found, some) if (some[:, 0] >= 0).any() else None

    calls = (
      (
        self._megapixels,
        str(part.path),
        *self._decoder.call(np.arange(part.first, part.last)),
        old(part),
      )
      for part in parts
    )
    yield from self._work('write_shard', calls)

  def _work(self, what: str, calls: Iterable[Sequence[Any]]) -> Iterator[Any]:
    """Calls a function of `reading`, in processes unless there is little."""
    take = self._decoder.take
    if self._listing.is_small:
      yield from (take(getattr(reading, what)(*call)) for call in calls)
      return
    with Workers(f'gan_jax.data.reading:{what}') as workers:
      yield from map(take, workers.map(calls, ahead=2))

  def _find(
    self, others: Sequence[Rows]
  ) -> tuple[list[str], NDArray[np.int64]]:
    """Folders of rows, and drafts; and of each image in which of them it is.

    Returns:
      These, and number and row of each image, (n, 2); -1 where there is none.
    """
    draft = self._inventory.draft
    sources: Iterable[tuple[pathlib.Path, NDArray[np.uint8]]]
    sources = ((other.folder, other.hashes) for other in others)
    if draft is not None:
      sources = itertools.chain(
        drafts.find(pathlib.Path(draft.folder)), sources
      )
    found: list[str] = []
    where = np.full((len(self), 2), -1)
    for path, hashes in sources:
      missing = np.flatnonzero(where[:, 0] < 0)
      rows_there = _match(self._hashes[missing], hashes)
      here = missing[rows_there >= 0]
      where[here, 0], where[here, 1] = len(found), rows_there[rows_there >= 0]
      if here.size:
        found.append(str(path))
    return found, where


def _open_alike(
  folders: Iterable[pathlib.Path], made: Mapping[str, Any]
) -> Iterator[Rows]:
  """Rows that are made in the same way; not what is unfinished or damaged."""
  for path in folders:
    try:
      opened = Rows(path)
      _ = opened.hashes
    except Error:
      continue
    if opened.facts['made'] == made:
      yield opened


def _match(
  wanted: NDArray[np.uint8], marks: NDArray[np.uint8]
) -> NDArray[np.int64]:
  """Which of some hashes, (n, 32), others are; -1 for none of them."""
  if not len(marks):
    return np.full(len(wanted), -1)
  keys, theirs = (
    np.ascontiguousarray(some).view('S32').ravel() for some in (wanted, marks)
  )
  order = np.argsort(theirs)
  places = np.searchsorted(theirs[order], keys)
  rows_there = order[np.minimum(places, len(order) - 1)]
  return np.where(theirs[rows_there] == keys, rows_there, -1)


def _explain(found: reading.Unreadable) -> DataError:
  """The error of a file that cannot be had."""
  if found.why == reading.CHANGED:
    return DataError(f'{found.path} {found.why}; start again')
  return _unreadable([found.path], found.why)


def _files_per_shard(sizes: NDArray[np.int64]) -> int:
  """Of files of these bytes, that are kept as they are."""
  return prepared.rows_per_shard(len(sizes), [max(1, int(sizes.mean()))])


def _most_rows(sizes: NDArray[np.int64]) -> int:
  """Rows of a shard whose files, of these bytes, are read in some seconds."""
  return max(1, _SOURCE_BYTES // max(1, int(sizes.mean())))


def _room(place: pathlib.Path) -> int:
  """Bytes that are free where a folder is, or would be."""
  while not place.is_dir() and place != place.parent:
    place = place.parent
  return shutil.disk_usage(place).free


def _unreadable(paths: Sequence[str | Member], why: str = '') -> DataError:
  names = ', '.join(map(str, paths[:5]))
  more = f' and {len(paths) - 5} more' if len(paths) > 5 else ''
  reason = f' ({" ".join(why.split())[:200]})' if why else ''
  return DataError(
    f'cannot read {names}{more}: mend or remove the files{reason}'
  )


# What is in a folder.


@dataclasses.dataclass(frozen=True)
class Inventory:
  """The images of a folder, and what was left out.

  Attributes:
    listing: its images, in the order of their paths.
    looks: what each is, as `reading.LOOK`.
    place: where what is known of the folder is kept; None for nowhere.
    classes: names of the folders in it, a class each; empty if an image lies
      in none.
    labels: the class of each image.
    left_out: how often, by what.
    draft: of the rows that were made while the files were looked at, if any.
  """

  listing: Listing
  looks: NDArray[Any]
  place: pathlib.Path | None
  classes: tuple[str, ...]
  labels: NDArray[np.int32]
  left_out: collections.Counter[str]
  draft: Draft | None = None

  @property
  def root(self) -> pathlib.Path:
    """The folder."""
    return self.listing.root

  @property
  def class_names(self) -> tuple[str, ...]:
    """The classes as any terminal and file takes them."""
    return tuple(map(places.printable, self.classes))

  def describe(self, channels: int = 0) -> list[str]:
    """Lines for a person: kinds, sizes, classes, what is done and left out.

    Args:
      channels: that are read; with 4 what is transparent stays so.
    """
    looks, names = self.looks, self.listing.names
    kinds = _count(map(suffix_of, names))
    modes = _count(mode.decode() for mode in looks['mode'].tolist())
    sizes = _count(_count_sizes(looks))
    lines = [f'files: {kinds}; {modes}; {sizes}']
    if self.classes:
      lines.append(f'classes: {_count(self.classes[i] for i in self.labels)}')
    else:
      loose = sum('/' not in name for name in names)
      if loose < len(names):
        lines.append(f'no classes: {loose} of the images lie in no subfolder')
    deep = int((looks['peak'] > 0).sum())
    notes = [
      (
        int(looks['transparent'].sum()),
        'with transparency, '
        + ('kept' if channels == 4 else f'laid on {pictures.BACKGROUND}'),
      ),
      (
        int((looks['frames'] > 1).sum()),
        'of several frames, of which the first',
      ),
      (deep, 'of 16 bits, divided by 257'),
    ]
    conversions = [f'{count} {text}' for count, text in notes if count]
    if conversions:
      lines.append('read as: ' + '; '.join(conversions))
    peak = int(looks['peak'].max())
    if pictures.is_dim(peak):
      lines.append(
        f'warning: the largest value of the 16-bit images is {peak} of 65535,'
        ' so that they are near black; stretch them to 16 bits first'
      )
    if self.left_out:
      left_out = (f'{n} {what}' for what, n in sorted(self.left_out.items()))
      lines.append('left out: ' + '; '.join(left_out))
    return lines


def _count(words: Iterable[str] | Mapping[str, int]) -> str:
  """How many of each, the most frequent first.

  >>> _count(['cat', 'dog', 'dog'])
  '2 dog, 1 cat'
  """
  counts = collections.Counter(words).most_common()
  text = ', '.join(f'{n:,} {word}' for word, n in counts[:_LISTED])
  rest = counts[_LISTED:]
  if not rest:
    return text
  others = sum(n for _, n in rest)
  return f'{text} and {others:,} of {len(rest):,} other kinds'


def _count_sizes(looks: NDArray[Any]) -> dict[str, int]:
  sizes = zip(looks['width'].tolist(), looks['height'].tolist(), strict=True)
  counts = collections.Counter(sizes)
  return {f'{w}x{h}': n for (w, h), n in counts.items()}


class RowsFor(NamedTuple):
  """What rows are to be made of a folder.

  Attributes:
    size: as `resize_and_crop` takes it.
    channels: 1, 3 or 4; 0 for the images' own.
    folder: that they go to in the end; None for the data root.
    form: rows, files (kept as they are), or auto: rows if there is room.
  """

  size: int
  channels: int
  folder: pathlib.Path | None
  form: str = 'rows'


def _begin_draft(
  listing: Listing,
  how: RowsFor,
  place: pathlib.Path | None,
  megapixels: float,
) -> Draft | None:
  """The draft of a folder's rows; None where none is to be made.

  Their shape is a guess by the header of the first image, where nothing else
  tells it: should it be wrong, they are of no use, and no harm.
  """
  folder = how.folder or place
  if folder is None or listing.is_small:
    return None
  if how.form == 'files':
    return _begin_files(listing, folder)
  with pictures.allow_pixels(megapixels):
    facts = reading.peek(listing.paths([0])[0])
  if facts is None:
    return None
  (width, height), grey = facts
  if not how.size and width != height:
    return None
  channels = how.channels or (1 if grey else 3)
  shape = (how.size or height, how.size or height, channels)
  digest = hashlib.sha256(repr([how.size, *_decoders()]).encode()).hexdigest()
  kind = 'x'.join(map(str, shape))
  out = folder / f'{drafts.PREFIX}{kind}-{digest[:16]}'
  size = len(listing.names) * int(np.prod(shape))
  room = _room(folder) + drafts.count_bytes(out)
  if size > (room - prepared.SPARE if how.folder else _SHARE * room):
    return _begin_files(listing, folder) if how.form == 'auto' else None
  most = _most_rows(listing.sizes)
  count = prepared.rows_per_shard(len(listing.names), shape, most)
  return Draft(str(out), shape, how.size, count)


def _begin_files(listing: Listing, folder: pathlib.Path) -> Draft | None:
  """The draft of a folder's files; None where there is no room for them."""
  out = folder / f'{drafts.PREFIX}files'
  room = _room(folder) + drafts.count_bytes(out)
  if int(listing.sizes.sum()) > room - prepared.SPARE:
    return None
  count = _files_per_shard(listing.sizes)
  return Draft(str(out), (0, 0, 0), 0, count, encoded=True)


def _decoders() -> list[Any]:
  """Versions that pixels depend on."""
  return [PIL.__version__, PIL.features.version('jpg')]


def take_inventory(
  path: str,
  megapixels: float = pictures.MEGAPIXELS,
  data_root: pathlib.Path | None = None,
  rows_for: RowsFor | None = None,
) -> Inventory:
  """Lists a folder, and looks at every image in it that is not known.

  Args:
    path: of the folder, or of a .zip or .tar that holds one.
    megapixels: millions of pixels that an image may have.
    data_root: where what is found is kept; None for nowhere.
    rows_for: what rows are made of the images that are looked at; None: none.

  Raises:
    ArgumentError: for a folder that is not there, or an image of more than
      `megapixels` million pixels.
    DataError: for a folder without images, or files that cannot be read.
  """
  listing, left_out, place = _list(path, data_root)
  pictures.check_bound(megapixels)
  draft = rows_for and _begin_draft(listing, rows_for, place, megapixels)
  shares: list[pathlib.Path] = []
  if rows_for and rows_for.folder:
    shares = sorted((rows_for.folder / drafts.LOOKS).glob('*'))
  looks, faults = manifest.take_stock(place, listing, megapixels, draft, shares)
  _refuse(listing, faults, megapixels)
  folders = [name.partition('/') for name in listing.names]
  classes: tuple[str, ...] = ()
  labels = np.zeros(len(folders), np.int32)
  if all(slash for _, slash, _ in folders):  # one class for each folder in it
    classes = tuple(sorted({parts[0] for parts in folders}))
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[parts[0]] for parts in folders], np.int32)
  return Inventory(listing, looks, place, classes, labels, left_out, draft)


def _list(
  path: str, data_root: pathlib.Path | None
) -> tuple[Listing, collections.Counter[str], pathlib.Path | None]:
  """Images of a folder or archive, counts of the rest, and its place.

  Raises:
    ArgumentError: for a folder that is not there.
    DataError: for one without images.
  """
  name = f'folder:{path}'
  root = places.resolved('dataset', path, name)
  _check_folder(root, name)
  place = None if data_root is None else manifest.place_of(data_root, root)
  if root.is_dir():
    listing, left_out = list_files(root)
  else:
    listing, left_out = list_archive(root, place)
  if not listing.names:
    rest = ', '.join(f'{n} {what}' for what, n in sorted(left_out.items()))
    raise DataError(
      f'{name}: no image files there ({", ".join(SUFFIXES)}, subfolders too)'
      + (f'; there are {rest}' if rest else '')
    )
  return listing, left_out, place


def take_share(
  path: str,
  share: tuple[int, int],
  rows_for: RowsFor,
  megapixels: float,
  data_root: pathlib.Path,
) -> tuple[int, int]:
  """Looks at a share of a folder's images, and makes drafts of their rows.

  Each in one read. `take_inventory` of the same folder and `rows_for` finds
  what is known, and makes shards of the drafts.

  Args:
    path: of the folder, or of a .zip or .tar that holds one.
    share: K and N: of every N shards the K-th.
    rows_for: what rows are to be made, in a folder that all can write to.
    megapixels: millions of pixels that an image may have.
    data_root: where the list of what is in an archive is kept.

  Returns:
    How many images those are, and how many there are in all.

  Raises:
    ArgumentError: for a folder that is not there, or has no shares: too few
      images, several sizes, or no room.
    DataError: for files that cannot be read.
  """
  assert rows_for.folder is not None
  listing, _, _ = _list(path, data_root)
  pictures.check_bound(megapixels)
  draft = _begin_draft(listing, rows_for, None, megapixels)
  (k, n), only = share, '/'.join(map(str, share))
  if draft is None:
    remedy = (
      'its rows cannot be made in shares: there are few images, or of several'
      ' sizes, or no room for them; leave it out'
    )
    raise ArgumentError('only', only, remedy)
  everything = np.arange(len(listing.names))
  mine = everything[everything // draft.most % n == k - 1]
  part, place = listing.part(mine), rows_for.folder / drafts.LOOKS
  found = manifest.take_stock(
    place / f'{k}-of-{n}', part, megapixels, draft, always=True
  )
  _refuse(part, found[1], megapixels)
  return len(mine), len(everything)


def _check_folder(root: pathlib.Path, name: str) -> None:
  """Raises on what is no folder that can be read."""
  if os.path.isdir(root):
    return
  remedy = 'no such folder'
  if os.path.isfile(root):
    if root.suffix.lower() in packed.SUFFIXES:
      return
    remedy = 'is a file, not a folder'
    if root.suffix.lower() in _ARCHIVES:
      remedy = (
        'is compressed as a whole; unpack it and name the folder, or write its'
        ' files to a .zip or .tar'
      )
  elif os.path.islink(root):
    remedy = f'is a link to {os.readlink(root)}, which is not there'
  raise ArgumentError('dataset', name, remedy)


def _refuse(
  listing: Listing, faults: Sequence[tuple[int, Fault]], megapixels: float
) -> None:
  """Refuses images that are of no use.

  Raises:
    ArgumentError: for one of too many pixels.
    DataError: for those that cannot be read, or have no range.
  """
  damaged = [i for i, fault in faults if fault.kind == 'damage']
  if damaged:
    raise _unreadable(listing.paths(damaged))
  for i, fault in faults:
    (path,) = listing.paths([i])
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


def load_folder(
  path: str,
  image_size: int,
  channels: int,
  data_root: pathlib.Path,
  megapixels: float = pictures.MEGAPIXELS,
  keep: bool = True,
  out: pathlib.Path | None = None,
  form: str = 'rows',
) -> SampleSet:
  """Every image file below a folder, in the order of their paths.

  Args:
    path: of the folder.
    image_size: side that images are resized and cropped to; 0: their own.
    channels: 1, 3 or 4, converted to; 0: their own.
    data_root: where what is known of the folder is kept.
    megapixels: millions of pixels that an image may have.
    keep: whether its images are kept there as rows, too.
    out: another folder that its rows are to be written to.
    form: of what is written there: rows, files or auto.

  Raises:
    ArgumentError: for a folder that is not there, grey and colour mixed, or
      sizes that differ, unless they are to be converted; for 4 channels where
      no image has so many.
    DataError: for a folder without images, or files that cannot be read.
  """
  name = f'folder:{path}'
  rows_for = None
  if keep or out:
    rows_for = RowsFor(image_size, channels, out, form)
  inventory = take_inventory(path, megapixels, data_root, rows_for)
  looks = inventory.looks
  channels = channels or _common_channels(name, looks)
  if channels == 4 and not looks['transparent'].any():
    raise ArgumentError(
      'channels', 4, f'no image of {name} has transparency; leave it out'
    )
  height, width = (image_size,) * 2 if image_size else _common_size(name, looks)
  fingerprint = _hash(inventory, height, channels)
  shape = (height, width, channels)
  draft = inventory.draft
  if draft and not draft.encoded and draft.shape != shape:
    shutil.rmtree(draft.folder, ignore_errors=True)
    inventory = dataclasses.replace(inventory, draft=None)
  source = Folder(
    inventory,
    shape,
    image_size,
    fingerprint,
    megapixels=megapixels,
    keep=keep,
  )
  notes = tuple(inventory.describe(channels))
  images = SampleSet(name, shape, source, fingerprint, notes=notes)
  if not inventory.classes:
    return images
  return dataclasses.replace(
    images,
    classes=inventory.class_names,
    read_labels=lambda: inventory.labels,
  )


def _hash(inventory: Inventory, *how: object) -> str:
  """SHA-256 of paths in the folder and of contents, and of what is done."""
  total = hashlib.sha256(repr(('folder', *how)).encode())
  for name, mark in zip(
    inventory.listing.names, inventory.looks['hash'], strict=True
  ):
    total.update(os.fsencode(name) + b'\0' + mark.tobytes())
  return total.hexdigest()


def _common_channels(name: str, looks: NDArray[Any]) -> int:
  grey = int(looks['grey'].sum())
  if 0 < grey < len(looks):
    raise ArgumentError(
      'dataset',
      name,
      f'{grey} grey and {len(looks) - grey} colour images; set `channels=1`'
      ' or `channels=3` to convert them all',
    )
  return 1 if grey else 3


def _common_size(name: str, looks: NDArray[Any]) -> tuple[int, int]:
  width, height = int(looks['width'][0]), int(looks['height'][0])
  sizes = len(np.unique(looks[['width', 'height']]))
  if sizes > 1 or width != height:
    raise ArgumentError(
      'dataset',
      name,
      f'images of {sizes} sizes, such as {width}x{height}; set'
      ' `image_size` to resize and crop them to one square',
    )
  return height, width
