"""Data: densities with known truth, sets of images, and what a user brings.

`load` finds a dataset by name, `as_dataset` makes one of arrays or a source,
and `make_feed` puts it in order for the step. To add a density, write it in
`densities.py` and give it an entry in `DENSITIES`, or draw its curve into a
file (`density:FILE`); an image set that TFDS knows has its name already.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from gan_jax.data import (
  densities,
  derived,
  folder,
  packed,
  prepared,
  tfds_sets,
)
from gan_jax.data.decoding import Encoded
from gan_jax.data.densities import DENSITIES, Density
from gan_jax.data.derived import PATHS, parse_name
from gan_jax.data.feed import Feed, choose_residence, make_feed
from gan_jax.data.folder import take_inventory
from gan_jax.data.pictures import MEGAPIXELS
from gan_jax.data.rows import Rows, Shards
from gan_jax.data.samples import DatasetMetadata, SampleSet
from gan_jax.data.tfds_sets import data_root
from gan_jax.data.user_data import as_dataset
from gan_jax.runtime import copies, places
from gan_jax.runtime.errors import ArgumentError, DataError
from gan_jax.runtime.names import parse_share

Dataset = Density | SampleSet

# What makes the data: anything that `as_dataset` takes. None: a TFDS set, or
# stacks of one's images (`derived.STACKED`). Any other TFDS set of images is
# found by its name as well.
DATASETS: dict[str, Callable[[], Any] | None] = {
  **DENSITIES,
  'digits': None,
  'mnist': None,
  'fashion_mnist': None,
  'cifar10': None,
  'stacked_digits': None,
  'stacked_mnist': None,
  'stacked_fashion': None,
}
MOST_SIDE = 8192  # of images that are resized
_PATHS = {'density': 'FILE', 'folder': 'PATH', 'prepared': 'DIR'}


def load(
  name: str,
  *,
  data_dir: str = '',
  image_size: int = 0,
  channels: int = 0,
  split: str = 'train',
  max_megapixels: float = MEGAPIXELS,
  keep_rows: bool = True,
) -> Dataset:
  """A dataset by name.

  Args:
    name: a key of `DATASETS`, another TFDS set of images, `folder:PATH` (a
      folder, or a .zip or .tar that is read as it is), `prepared:DIR` (what
      `write_rows` has written), or `density:FILE` (`densities.from_file`). A
      TFDS set or a stack may be followed by a split and a part of it:
      `mnist[test]`, `mnist[:50000]`, `mnist[test][:1000]`.
    data_dir: the data root; empty for $TFDS_DATA_DIR or ~/tensorflow_datasets.
      Of one in an object store (`s3://...`), and of `folder:` and `prepared:`
      with a URL, the set is copied to this machine once.
    image_size: side that images are resized and cropped to; 0 for their own.
    channels: 1 (grey), 3 (colour) or 4 (with opacity, where images have it),
      converted to; 0 for their own, opaque.
    split: of a TFDS set, where the name says none.
    max_megapixels: millions of pixels that an image of a folder may have.
    keep_rows: whether the images of a folder are kept in the data root, as rows
      that later starts open at once.

  Raises:
    ArgumentError: for an argument that is of no use.
    DataError: if it cannot be had; the message says what to do.
  """
  return _load(
    name,
    data_dir,
    image_size,
    channels,
    split,
    max_megapixels,
    keep_rows,
  )


def _load(
  name: str,
  data_dir: str = '',
  image_size: int = 0,
  channels: int = 0,
  split: str = 'train',
  max_megapixels: float = MEGAPIXELS,
  keep_rows: bool = True,
  out: pathlib.Path | None = None,
  form: str = 'rows',
) -> Dataset:
  """As `load`; `out` is a folder that it is to be written to, as `form`."""
  if channels not in (0, 1, 3, 4):
    remedy = 'use 1 (grey), 3 (colour) or 4 (colour and opacity)'
    raise ArgumentError('channels', channels, remedy)
  if not 0 <= image_size <= MOST_SIDE:
    remedy = f'use pixels, up to {MOST_SIDE}, or 0'
    raise ArgumentError('image_size', image_size, remedy)
  stem, named, part = parse_name(name)
  kind, _, path = stem.partition(':')
  if kind in _PATHS and not path:
    raise ArgumentError('dataset', kind, f'write {kind}:{_PATHS[kind]}')
  make = DENSITIES.get(stem) or DATASETS.get(stem)
  if kind == 'density' or make:
    if named or part:
      raise ArgumentError(
        'dataset', name, f'{stem} has no parts; leave the brackets out'
      )
    _refuse_conversion(stem, image_size, channels, max_megapixels)
    if not make:
      return densities.from_file(path)
    return dataclasses.replace(as_dataset(make()), name=stem)
  root = data_root(data_dir)
  if kind != 'folder' and max_megapixels != MEGAPIXELS:
    raise ArgumentError(
      'max_megapixels',
      max_megapixels,
      f'is for images of folder:PATH, and {name} is none; leave it out',
    )
  if kind in ('folder', 'prepared'):
    url = places.scheme_of(path) and path
    if url and path.lower().endswith((*packed.SUFFIXES, '.gz')):
      remedy = 'a URL names a folder: unpack the archive there, or fetch it'
      raise ArgumentError('dataset', name, remedy)
    place = str(copies.fetch(url, 'dataset')) if url else path
    images = (
      prepared.load(place, image_size, channels)
      if kind == 'prepared'
      else folder.load_folder(
        place, image_size, channels, root, max_megapixels, keep_rows, out, form
      )
    )
    return dataclasses.replace(images, name=name) if url else images
  tfds_sets.fetch(prepared_as(stem), data_dir)
  tfds_sets.check_name(stem, root, DATASETS)
  images = _load_images(stem, named, root, image_size, channels, split)
  return derived.take_part(images, part) if part else images


def _refuse_conversion(
  name: str, image_size: int, channels: int, max_megapixels: float
) -> None:
  """Refuses to convert what is no prepared set of images."""
  for argument, value, default in (
    ('image_size', image_size, 0),
    ('channels', channels, 0),
    ('max_megapixels', max_megapixels, MEGAPIXELS),
  ):
    if value != default:
      raise ArgumentError(
        argument,
        value,
        f'is for prepared images, which {name} has not; leave it out',
      )


def _load_images(
  name: str,
  named: str,
  root: pathlib.Path,
  image_size: int,
  channels: int,
  split: str,
) -> SampleSet:
  """A TFDS set or a stack of one's images, of the split that the name says."""
  split = named or split
  if name not in derived.STACKED:
    images = tfds_sets.load(name, root, image_size, channels, split)
    if named:
      images = dataclasses.replace(images, name=f'{name}[{named}]')
    return images
  if channels in (1, 4):
    remedy = f'{name} is three channels; leave it out'
    raise ArgumentError('channels', channels, remedy)
  base = tfds_sets.load(derived.STACKED[name], root, image_size, 1, split)
  return derived.stack_images(base, f'{name}[{named}]' if named else name)


def prepare(
  dataset: str, *, data_dir: str = '', originals: str = ''
) -> tuple[pathlib.Path, dict[str, int]]:
  """Downloads a set of images and writes it in the format of TFDS.

  Args:
    dataset: its name, or that of a stack or a part of it.
    data_dir: as in `load`.
    originals: a folder with the original files under their own names; empty
      to download them.

  Returns:
    The folder of the prepared set, and the images in each of its splits.

  Raises:
    ArgumentError: for a name that is unknown, or a folder that is not there.
    DataError: saying which file, what was expected and what to do.
  """
  root, name = data_root(data_dir), prepared_as(dataset)
  tfds_sets.fetch(name, data_dir)
  tfds_sets.check_name(name, root, DATASETS)
  prepared_set = tfds_sets.prepare(name, root, originals)
  if url := tfds_sets.url_of(name, data_dir):
    copies.put(root / url.rpartition('/')[2], url, 'data_dir')
  return prepared_set


def write_rows(
  dataset: str, out: str | os.PathLike[str], form: str = 'rows', **how: Any
) -> SampleSet:
  """Writes the images of a set as rows, in files that map into memory.

  What a call that was killed has written is kept, and the same call goes on.

  Args:
    dataset: its name, as `load` takes it.
    out: folder that the rows are written to.
    form: rows; files, of a folder, which are kept as they are and decoded at
      each visit; or auto: rows where the disk has room for them, else files if
      it has for these.
    **how: as `load` takes it: `image_size`, `channels` and so on.

  Returns:
    The set, as `load('prepared:OUT')` opens it.

  Raises:
    ArgumentError: for a set that has no images, or a folder that holds
      something else.
    DataError: for images that cannot be had.
    Error: if the disk is full.
  """
  place = places.resolved('out', out)
  _check_form(form, dataset)

  def make_plan() -> prepared.Plan:
    images = _load(dataset, **how, keep_rows=False, out=place, form=form)
    if isinstance(images, Density):
      remedy = 'is drawn on the device and needs no preparation'
      raise ArgumentError('dataset', dataset, remedy)
    if isinstance(images.source, folder.Folder):
      return images.source.plan_in(place, dataset, form)
    made = {k: v for k, v in how.items() if k in ('image_size', 'channels')}
    return prepared.plan_of(images, made)

  if dataset.startswith('folder:'):  # whose files are read but once
    prepared.write(place, make_plan)
  else:
    plan = make_plan()
    prepared.write(place, lambda: plan)
  return prepared.load(str(place))


def _check_form(form: str, dataset: str) -> None:
  """Refuses a form that is none, or not of this set."""
  if form not in prepared.FORMS:
    remedy = f'use {", ".join(prepared.FORMS)}'
    raise ArgumentError('form', form, remedy)
  if form == 'files' and not dataset.startswith('folder:'):
    remedy = f'keeps the files of folder:PATH, and {dataset} is none; leave it'
    raise ArgumentError('form', form, remedy)


def write_share(
  dataset: str,
  out: str | os.PathLike[str],
  only: str,
  form: str = 'rows',
  *,
  data_dir: str = '',
  image_size: int = 0,
  channels: int = 0,
  max_megapixels: float = MEGAPIXELS,
) -> str:
  """Does a share of what `write_rows` does; many processes have one each.

  On as many machines as see the folder and `out`. `write_rows` of the same
  arguments joins what they have written, in a moment, and does what is missing.

  Args:
    dataset: a `folder:PATH`.
    out: folder that the rows are written to.
    only: K/N: of every N shards the K-th.
    form: as there; auto is rows.
    data_dir: as `load` takes it.
    image_size: likewise.
    channels: likewise.
    max_megapixels: likewise.

  Returns:
    A line about it.

  Raises:
    ArgumentError: for a set that has no shares.
    DataError: for images that cannot be had.
    Error: if the disk is full.
  """
  share, place = parse_share('only', only), places.resolved('out', out)
  _check_form(form, dataset)
  kind, _, path = dataset.partition(':')
  if kind != 'folder':
    remedy = f'shares out the files of folder:PATH, and {dataset} is none'
    raise ArgumentError('only', only, remedy)
  form = 'rows' if form == 'auto' else form
  rows_for = folder.RowsFor(image_size, channels, place, form)
  with prepared.hold(place, shared=True):
    if prepared.check(place) is not None:
      return f'{dataset}: is prepared in {place}'
    how = rows_for, max_megapixels, data_root(data_dir)
    done, size = folder.take_share(path, share, *how)
  return (
    f'{dataset}: share {only}, {done:,} of {size:,} images, is done; once all'
    ' are, the same call without `only` joins them'
  )


def tell_rows(
  dataset: str, out: Any = '', verify: Any = False, only: Any = '', **how: Any
) -> str:
  """A line about a set that is written, or about `prepared:DIR`.

  Args:
    dataset: its name.
    out: as `write_rows` takes it; empty for a set that is prepared.
    verify: whether every file is read and its checksum compared.
    only: a share, as `write_share` takes it; empty for all.
    **how: as `write_rows` takes it.

  Raises:
    DataError: naming the files that are not as they were written.
  """
  if only and verify:
    raise ArgumentError('verify', verify, 'a share is not all; leave it out')
  if out and only:
    return write_share(dataset, out, only, **how)
  if out:
    images = write_rows(dataset, out, **how)
  else:
    images = prepared.load(dataset.partition(':')[2])
  if verify:
    assert isinstance(images.source, Shards)
    images.source.verify()
  shape = 'x'.join(map(str, images.shape))
  checked = ', as it was written' if verify else ''
  size = f'{images.nbytes / 2**20:,.0f} MiB'
  if isinstance(images.source, Encoded):
    size = f'{images.source.nbytes / 2**20:,.0f} MiB of files'
  return f'{images.name}: {images.size:,} images of {shape}, {size}{checked}'


def tell_prepared(
  place: pathlib.Path, counts: Mapping[str, int], data_dir: str
) -> str:
  """A line about what `prepare` has done."""
  images = ', '.join(f'{n:,} {split}' for split, n in counts.items())
  version = ' '.join(place.relative_to(data_root(data_dir)).parts)
  return f'{version}: {images} images in {place}'


def tell_folder(
  dataset: str, max_megapixels: float = MEGAPIXELS, data_dir: str = ''
) -> list[str]:
  """Lines about what a run would read of `folder:PATH`."""
  path, root = dataset.partition(':')[2], data_root(data_dir)
  inventory = take_inventory(path, max_megapixels, root)
  lines = [f'  {line}' for line in inventory.describe()]
  return [f'{dataset}: {len(inventory.looks):,} images', *lines]


def is_prepared(name: str, *, data_dir: str = '') -> bool:
  """Whether a TFDS set of images has been prepared."""
  root = data_root(data_dir)
  tfds_sets.fetch(name, data_dir)
  tfds_sets.check_name(name, root, DATASETS)
  return tfds_sets.is_prepared(name, root)


def is_set(name: str, *, data_dir: str = '') -> bool:
  """Whether a name is that of a density or set, or of a part of one."""
  try:
    stem = parse_name(name)[0]
  except ArgumentError:
    return False
  return stem in DATASETS or tfds_sets.is_known(stem, data_root(data_dir))


def prepared_as(name: str) -> str:
  """The TFDS set that is to be prepared for a dataset."""
  stem = parse_name(name)[0]
  return derived.STACKED.get(stem, stem)


__all__ = [
  'DATASETS',
  'DENSITIES',
  'DataError',
  'Dataset',
  'DatasetMetadata',
  'Density',
  'Feed',
  'PATHS',
  'Rows',
  'SampleSet',
  'as_dataset',
  'choose_residence',
  'data_root',
  'is_prepared',
  'is_set',
  'load',
  'make_feed',
  'parse_name',
  'prepare',
  'prepared_as',
  'take_inventory',
  'tell_folder',
  'tell_prepared',
  'tell_rows',
  'write_rows',
  'write_share',
]
