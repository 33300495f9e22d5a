"""Sets of samples that flags name: an .npz, a folder of images, a dataset."""

import hashlib
import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax import data
from gan_jax.data import Dataset, Density, SampleSet
from gan_jax.evaluation import references
from gan_jax.evaluation.evaluator import EvaluationError
from gan_jax.runtime.errors import ArgumentError, DataError


def check_images(x: Any, shape: tuple[int, ...] | None, where: str) -> Any:
  """Images or points as an array that can be scored.

  Args:
    x: uint8 (n, height, width, channels), or float32 (n, dim) of a density.
    shape: of each, where it is known.
    where: the flag and its value.

  Raises:
    EvaluationError: for another type, range or shape, NaN, or all the same.
  """
  x = np.asarray(x)
  if x.ndim not in (2, 4) or not len(x):
    raise EvaluationError(
      f'{where}: an array of shape {x.shape}; give (n, height, width, channels)'
      ' images or (n, dim) points'
    )
  if x.ndim == 4 and x.dtype != np.uint8:
    raise EvaluationError(
      f'{where}: images of type {x.dtype}{_span(x)}; give uint8 from 0 to 255'
      ' (a fixed range: stretched to their own extremes, images would score as'
      ' others)'
    )
  if x.ndim == 2 and (x.dtype.kind != 'f' or not np.isfinite(x).all()):
    raise EvaluationError(f'{where}: points that are not finite floats')
  if shape is not None and x.shape[1:] != tuple(shape):
    raise EvaluationError(
      f'{where}: samples of shape {x.shape[1:]} where those they are held'
      f' against have {tuple(shape)}; resize or convert them'
    )
  if len(x) > 1 and (x == x[0]).all():
    raise EvaluationError(
      f'{where}: all {len(x)} samples are the same one; give the samples of a'
      ' generator, not copies'
    )
  return x


def _span(x: NDArray[Any]) -> str:
  """The range of floats, and how many images have others than numbers."""
  if x.dtype.kind != 'f':
    return ''
  fine = np.isfinite(x)
  bad = len(x) - int(fine.reshape(len(x), -1).all(1).sum())
  faults = f', not finite in {bad} of {len(x)}' if bad else ''
  if not fine.any():
    return faults
  return f' from {x[fine].min():.4g} to {x[fine].max():.4g}{faults}'


def _array(path: pathlib.Path, flag: str) -> NDArray[Any]:
  """The array of an .npz: `samples`, `images`, or the only one there is."""
  where = f'--{flag}={path}'
  if not path.is_file():
    raise EvaluationError(f'{where}: no such file')
  try:
    with np.load(path) as found:
      names = [n for n in ('samples', 'images') if n in found.files]
      if not names and len(found.files) == 1:
        names = found.files
      if not names:
        raise EvaluationError(
          f'{where}: has arrays {", ".join(found.files) or "none"}; name one of'
          ' them samples'
        )
      return np.asarray(found[names[0]])
  except EvaluationError:
    raise
  except Exception as error:  # zipfile, zlib and NumPy raise many kinds
    raise EvaluationError(
      f'{where}: cannot be read ({str(error).splitlines()[0][:200]}); write it'
      ' with numpy.savez'
    ) from error


def source(
  text: str, flag: str, data_dir: str, size: int = 0, channels: int = 0
) -> Dataset | NDArray[Any]:
  """Samples that a flag names: an .npz, a folder of images, or a dataset."""
  known = text.startswith(('folder:', 'density:'))
  if text.endswith('.npz') and not known:
    return check_images(
      _array(pathlib.Path(text), flag), None, f'--{flag}={text}'
    )
  name = f'folder:{text}' if pathlib.Path(text).is_dir() else text
  if '/' in text and text == name and not known and not size:
    raise EvaluationError(
      f'--{flag}={text}: no such folder; name an .npz, a folder of images or a'
      ' dataset'
    )
  try:
    return data.load(
      name, data_dir=data_dir, image_size=size, channels=channels
    )
  except ArgumentError as error:
    raise EvaluationError(f'--{flag}={text}: {_retold(error)}') from error
  except DataError as error:
    message = str(error).replace(f'`dataset={name}`', f'--{flag}={text}')
    raise DataError(message) from error


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
)


def _retold(error: ArgumentError) -> str:
  """What is wrong with a dataset, for a flag that has no such remedies."""
  remedy = error.remedy
  for old, new in _REMEDIES:
    remedy = remedy.replace(old, new)
  return remedy


def as_dataset(x: Dataset | NDArray[Any], name: str) -> Dataset:
  """An array of images as a set that others are held against."""
  if not isinstance(x, np.ndarray):
    return x
  if x.ndim != 4:
    raise EvaluationError(
      f'--against={name}: points of shape {x.shape}; only a density of known'
      ' truth is a reference for points, such as --against=ring'
    )
  mark = hashlib.sha256(f'{x.shape}'.encode() + x.tobytes()).hexdigest()
  shape = (int(x.shape[1]), int(x.shape[2]), int(x.shape[3]))
  return SampleSet(name, shape, x, mark)


def samples(found: Dataset | NDArray[Any], count: int, name: str) -> Any:
  """`count` samples of a source; 0 for all of them."""
  if isinstance(found, Density):
    raise EvaluationError(
      f'--images={name}: is a density; give samples of it as an .npz'
    )
  there = len(found) if isinstance(found, np.ndarray) else found.size
  if count > there:
    raise EvaluationError(
      f'--samples={count}: {name} has {there}; use as many or fewer'
    )
  if isinstance(found, np.ndarray):
    return found[references.chosen(there, count or there)]
  return references.pixels(found, count or there)
