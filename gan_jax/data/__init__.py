"""Data: densities with known truth, and sets of images.

`load` finds a dataset by name; `make_feed` puts it in order for the step. To
add a density, write it in `densities.py` and give it an entry in `DENSITIES`,
or draw its curve into a file (`density:FILE`); an image set that TFDS knows has
its name already.
"""

import dataclasses
import pathlib
from collections.abc import Callable

from gan_jax.data import densities, gathered, imageset, tfds_sets
from gan_jax.data.densities import Density
from gan_jax.data.errors import DataError, DataFlagError
from gan_jax.data.feed import Feed, make_feed
from gan_jax.data.imageset import Absent, ImageSet

Dataset = Density | ImageSet

DENSITIES: dict[str, Callable[[], Density]] = {
  'gaussian_1d': densities.gaussian_1d,
  'mixture_1d': densities.mixture_1d,
  'ring': densities.ring,
  'grid': densities.grid,
  'spiral': densities.spiral,
  'delta': densities.delta,
}
# None: a TFDS set, or stacks of one's images (`gathered.STACKED`). Any other
# TFDS set of images is found by its name as well.
DATASETS: dict[str, Callable[[], Density] | None] = {
  **DENSITIES,
  'digits': None,
  'mnist': None,
  'fashion_mnist': None,
  'cifar10': None,
  'stacked_digits': None,
  'stacked_mnist': None,
  'stacked_fashion': None,
}


def load(
  name: str,
  *,
  data_dir: str = '',
  image_size: int = 0,
  channels: int = 0,
  split: str = 'train',
) -> Dataset:
  """A dataset by name.

  Args:
    name: a key of `DATASETS`, another TFDS set of images, folder:PATH, or
      density:FILE (`densities.from_file`). A TFDS set or a stack may be
      followed by a split and a part of it: mnist[test], mnist[:50000],
      mnist[test][:1000].
    data_dir: the data root; empty for $TFDS_DATA_DIR or ~/tensorflow_datasets.
    image_size: side that images are resized and cropped to; 0 for their own.
    channels: 1 (grey) or 3 (colour), converted to; 0 for their own.
    split: of a TFDS set, where the name says none.

  Raises:
    DataError: if it cannot be had; the message says what to do.
  """
  if channels not in (0, 1, 3):
    raise DataFlagError(f'--channels={channels}: use 1 (grey) or 3 (colour)')
  if image_size < 0:
    raise DataFlagError(f'--image_size={image_size}: use pixels, or 0')
  told, (name, named, part) = name, gathered.parsed(name)
  kind, _, path = name.partition(':')
  if kind in ('density', 'folder') and not path:
    raise DataFlagError(f'--dataset={kind}: write {kind}:{_PATHS[kind]}')
  if kind == 'density' or name in DENSITIES:
    if named or part:
      raise DataFlagError(
        f'--dataset={told}: {name} is a density, which has no parts; leave the'
        ' brackets out'
      )
    return _density(name, path, image_size, channels)
  root = imageset.data_root(data_dir)
  if kind == 'folder':
    return imageset.load_folder(
      path, image_size, channels, root / 'gan_jax_arrays'
    )
  images = _images(name, named, root, image_size, channels, split)
  return gathered.sliced(images, part) if part else images


_PATHS = {'density': 'FILE', 'folder': 'PATH'}


def _density(name: str, path: str, image_size: int, channels: int) -> Density:
  """A density by name, or of a file."""
  for flag, value in (('image_size', image_size), ('channels', channels)):
    if value:
      raise DataFlagError(
        f'--{flag}={value}: is for images, and {name} is a density; leave it'
        ' out'
      )
  return densities.from_file(path) if path else DENSITIES[name]()


def _images(
  name: str,
  named: str,
  root: pathlib.Path,
  image_size: int,
  channels: int,
  split: str,
) -> ImageSet:
  """A TFDS set or a stack of one's images, of the split that the name says."""
  split = named or split
  if name not in gathered.STACKED:
    images = tfds_sets.load(name, root, image_size, channels, split)
    if named:
      images = dataclasses.replace(images, name=f'{name}[{named}]')
    return images
  if channels == 1:
    raise DataFlagError(f'--channels=1: {name} is three channels; leave it out')
  base = tfds_sets.load(gathered.STACKED[name], root, image_size, 1, split)
  return gathered.stacked(base, f'{name}[{named}]' if named else name)


def prepared_as(name: str) -> str:
  """The TFDS set that is to be prepared for a dataset."""
  stem = gathered.parsed(name)[0]
  return gathered.STACKED.get(stem, stem)


__all__ = [
  'Absent',
  'DATASETS',
  'DENSITIES',
  'DataError',
  'DataFlagError',
  'Dataset',
  'Density',
  'Feed',
  'ImageSet',
  'load',
  'make_feed',
  'prepared_as',
]
