"""Checks of what a metric is given: shapes, ranges, and enough samples.

Every check raises an `ArgumentError` that names the argument, describes the
array and says what to give instead.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gan_jax.runtime.errors import ArgumentError

Array = NDArray[np.generic]
LARGEST = 1e50  # of features: sixth powers of it are finite


def describe(x: Array) -> str:
  """Type and shape of an array, as messages show it.

  >>> describe(np.zeros((3, 2)))
  'float64[3,2]'
  """
  return f'{x.dtype}[{",".join(map(str, x.shape))}]'


def fault(argument: str, x: ArrayLike, remedy: str) -> ArgumentError:
  """The error of an array."""
  return ArgumentError(argument, describe(np.asarray(x)), remedy)


def check_count(argument: str, x: Array, minimum: int) -> None:
  """Checks that there are enough samples.

  Raises:
    ArgumentError: for fewer than `minimum`.
  """
  if len(x) < minimum:
    raise fault(argument, x, f'has {len(x)} samples; give at least {minimum}')


def check_numbers(argument: str, x: Array) -> None:
  """Checks that an array is of finite real numbers.

  Raises:
    ArgumentError: for another type, or values that are not finite.
  """
  if x.dtype.kind not in 'fiu':
    raise fault(argument, x, 'give real numbers')
  if x.dtype.kind == 'f' and not np.isfinite(x).all():
    bad = np.count_nonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    raise fault(
      argument,
      x,
      f'has {bad} samples with NaN or infinite values, of {len(x)}: the'
      ' generator has diverged, or the features have',
    )


def as_table(
  argument: str, values: ArrayLike, minimum: int = 1
) -> NDArray[np.floating]:
  """Features or points, (n, dim), as float32 or float64.

  Raises:
    ArgumentError: unless they are a table of finite numbers, and enough.
  """
  x = np.asarray(values)
  if x.ndim != 2 or x.shape[1] < 1:
    raise fault(argument, x, 'has another shape; give (samples, dimensions)')
  check_count(argument, x, minimum)
  check_numbers(argument, x)
  if x.dtype.kind == 'f' and float(np.abs(x).max()) > LARGEST:
    remedy = f'has values beyond {LARGEST:g}: distances would overflow'
    raise fault(argument, x, f'{remedy}; scale it')
  return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)


def as_tables(
  real: ArrayLike, fake: ArrayLike, minimum: int = 1
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
  """`as_table` of both sides, of the same dimensions.

  Raises:
    ArgumentError: as `as_table`; if the dimensions differ.
  """
  a, b = as_table('real', real, minimum), as_table('fake', fake, minimum)
  if a.shape[1] != b.shape[1]:
    remedy = f'has {a.shape[1]} dimensions and `fake` {b.shape[1]}'
    raise fault('real', a, f'{remedy}; give both from the same feature network')
  return a, b


def as_images(
  argument: str, values: ArrayLike, minimum: int = 1
) -> NDArray[np.uint8]:
  """Images, uint8 (n, height, width, channels).

  Raises:
    ArgumentError: if they are anything else, or too few.
  """
  x = np.asarray(values)
  if x.ndim != 4 or 0 in x.shape[1:]:
    remedy = 'has another shape; give (samples, height, width, channels)'
    raise fault(argument, x, remedy)
  check_count(argument, x, minimum)
  if x.dtype != np.uint8:
    check_numbers(argument, x)
    raise fault(argument, x, 'give uint8 in [0, 255]')
  return x


def as_probabilities(
  argument: str, values: ArrayLike, minimum: int = 1
) -> NDArray[np.float64]:
  """Class probabilities, (n, classes), as float64.

  Raises:
    ArgumentError: if a row is no distribution (to .001), or there are too few.
  """
  p = as_table(argument, values, minimum).astype(np.float64)
  if p.shape[1] < 2:
    raise fault(argument, p, 'has 1 class; give two or more')
  if p.min() < 0 or p.max() > 1 + 1e-3:
    low, high = f'{p.min():.3g}', f'{p.max():.3g}'
    remedy = f'is in [{low}, {high}]; give probabilities, not logits'
    raise fault(argument, p, remedy)
  if np.abs(p.sum(axis=1) - 1).max() > 1e-3:
    remedy = 'has rows that do not sum to 1; give probabilities'
    raise fault(argument, p, remedy)
  return p


def as_labels(
  argument: str, values: ArrayLike, classes: int, minimum: int = 1
) -> NDArray[np.integer]:
  """Classes, integers (n,) in [0, classes).

  Raises:
    ArgumentError: if they are anything else, or too few.
  """
  x = np.asarray(values)
  if x.ndim != 1 or x.dtype.kind not in 'iu':
    raise fault(argument, x, 'give integers (samples,)')
  check_count(argument, x, minimum)
  if x.min() < 0 or x.max() >= classes:
    remedy = f'is in [{x.min()}, {x.max()}]; give classes 0 to {classes - 1}'
    raise fault(argument, x, remedy)
  return x.astype(np.int64)
