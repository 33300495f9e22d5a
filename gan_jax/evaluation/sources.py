"""Sets of samples by name: an .npz, a folder of images, or a dataset."""

import dataclasses
import os
import pathlib
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax import data
from gan_jax.data import PATHS, Dataset, Density, SampleSet
from gan_jax.evaluation import references
from gan_jax.runtime import archives, multihost
from gan_jax.runtime.errors import ArgumentError, Error

Samples = NDArray[Any]


def check_samples(
  x: Samples, shape: tuple[int, ...] | None, argument: str, text: str
) -> Samples:
  """Images or points that can be scored, as they are.

  Args:
    x: uint8 (n, height, width, channels), or float32 (n, dim).
    shape: that each should have, if it is known.
    argument: that names the samples.
    text: its value.

  Raises:
    ArgumentError: for another type, range or shape, NaN, or all the same.
  """
  remedy = ''
  if x.ndim not in (2, 4) or not len(x):
    remedy = (
      f'an array of shape {x.shape}; give (n, height, width, channels) images'
      ' or (n, dim) points'
    )
  elif x.ndim == 4 and x.dtype != np.uint8:
    remedy = (
      f'images of type {x.dtype}{_describe_range(x)}; give uint8 from 0 to 255'
      ' (a fixed range: stretched to their own extremes, images would score as'
      ' others)'
    )
  elif x.ndim == 2 and (x.dtype.kind != 'f' or not np.isfinite(x).all()):
    remedy = 'points that are not finite floats'
  elif shape is not None and x.shape[1:] != tuple(shape):
    remedy = (
      f'samples of shape {x.shape[1:]} where those they are held against have'
      f' {tuple(shape)}; resize or convert them'
    )
  elif len(x) > 1 and (x == x[0]).all():
    remedy = (
      f'all {len(x)} samples are the same one; give the samples of a generator,'
      ' not copies'
    )
  if remedy:
    raise ArgumentError(argument, text, remedy)
  return x


def _describe_range(x: Samples) -> str:
  """The range of floats, and how many images have others than numbers."""
  if x.dtype.kind != 'f':
    return ''
  finite = np.isfinite(x)
  bad = len(x) - int(finite.reshape(len(x), -1).all(1).sum())
  faults = f', not finite in {bad} of {len(x)}' if bad else ''
  if not finite.any():
    return faults
  return f' from {x[finite].min():.4g} to {x[finite].max():.4g}{faults}'


def _read_archive(path: pathlib.Path, argument: str) -> Samples:
  """The array of an .npz: `samples`, `images`, or the only one there is."""
  if not os.path.isfile(path):
    raise ArgumentError(argument, str(path), 'no such file')
  try:
    with archives.open_arrays(path) as archive:
      names = [n for n in ('samples', 'images') if n in archive]
      if not names and len(archive) == 1:
        names = list(archive)
      if names:
        return archive[names[0]]
      arrays = ', '.join(archive) or 'none'
  except (archives.ArchiveError, OSError) as error:
    reason = getattr(error, 'reason', str(error))
    remedy = f'cannot be read ({reason}); write it with numpy.savez'
    raise ArgumentError(argument, str(path), remedy) from error
  remedy = f'has arrays {arrays}; name one of them samples'
  raise ArgumentError(argument, str(path), remedy)


def describe(source: str | Dataset | Samples) -> str:
  """Samples as a message names them: an array by its shape."""
  if isinstance(source, np.ndarray):
    return f'an array {source.shape}'
  return source if isinstance(source, str) else source.name


def load_source(
  text: str | Dataset | Samples,
  argument: str,
  data_dir: str,
  size: int = 0,
  channels: int = 0,
) -> Dataset | Samples:
  """Samples by name: an .npz, a folder of images, or a dataset.

  Args:
    text: the name; ./NAME is a folder that has the name of a dataset. A dataset
      or an array is what it is.
    argument: that has it as its value.
    data_dir: the data root.
    size: side that images are resized and cropped to; 0 for their own.
    channels: 1, 3 or 4, converted to; 0 for their own.

  Raises:
    ArgumentError: if there are no such samples.
    DataError: if they cannot be had.
  """
  if isinstance(text, np.ndarray):
    return check_samples(text, None, argument, describe(text))
  if not isinstance(text, str):
    return text
  has_kind = text.startswith(PATHS)
  if text.endswith('.npz') and not has_kind:
    x = _read_archive(pathlib.Path(text), argument)
    return check_samples(x, None, argument, text)
  # A set is meant by its name, though there be a folder of that name here.
  is_folder = os.path.isdir(text) and not data.is_set(text, data_dir=data_dir)
  name = f'folder:{text}' if is_folder else text
  if '/' in text and text == name and not has_kind and not size:
    remedy = 'no such folder; name an .npz, a folder of images or a dataset'
    raise ArgumentError(argument, text, remedy)
  try:
    source = data.load(
      name,
      data_dir=data_dir,
      image_size=size,
      channels=channels,
      keep_rows=argument != 'images',  # which are scored once
    )
  except Error as error:
    raise _rename(error, name, argument, text) from error
  if isinstance(source, SampleSet) and source.notes and multihost.is_primary():
    notes = '\n'.join(f'  {note}' for note in source.notes)
    print(f'{text}: {source.size:,} images\n{notes}', file=sys.stderr)
  return source


# Remedies of a run that sets of samples do not have.
_REMEDIES = (
  (
    'set `image_size` to resize and crop them to one square',
    'resize and crop them to one square',
  ),
  (
    'set `channels=1` or `channels=3` to convert them all',
    'convert them all to one kind',
  ),
  (
    ', or allow more (a pixel takes up to 4 bytes of memory while it is read)',
    '',
  ),
)


def _rename(error: Error, name: str, argument: str, text: str) -> Error:
  """The error of a dataset, of the argument that stands in its place."""
  message = error.remedy if isinstance(error, ArgumentError) else str(error)
  for old, new in _REMEDIES:
    message = message.replace(old, new)
  if isinstance(error, ArgumentError):
    return ArgumentError(argument, text, message)
  return type(error)(
    f'`{argument}={text}`: {message.removeprefix(f"{name}: ")}'
  )


def as_dataset(x: Dataset | Samples, name: str) -> Dataset:
  """Samples as a set that others are held against."""
  if not isinstance(x, np.ndarray):
    return x
  return dataclasses.replace(data.as_dataset(x), name=name)


def take_samples(source: Dataset | Samples, count: int, name: str) -> Samples:
  """`count` samples of a set; 0 for all of them."""
  if isinstance(source, Density):
    remedy = 'is a density; give samples of it as an .npz'
    raise ArgumentError('images', name, remedy)
  size = len(source) if isinstance(source, np.ndarray) else source.size
  if count > size:
    remedy = f'{name} has {size}; use as many or fewer'
    raise ArgumentError('samples', count, remedy)
  if isinstance(source, np.ndarray):
    return source[references.choose_records(size, count or size)]
  return references.read_samples(source, count or size)
