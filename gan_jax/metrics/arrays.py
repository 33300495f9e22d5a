"""What a metric takes: arrays of the right shape and range, and enough of them.

Every check raises a ValueError that names the side ('real', 'fake'), what it
was given and what to give instead.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class SetupError(ValueError):
  """Wrong whatever is generated: the real samples, the truth, or shapes."""


def fault(name: str, text: str) -> ValueError:
  """The error of a side; that of generated samples may pass with training."""
  return SetupError(text) if name == 'real' else ValueError(text)


def _enough(name: str, n: int, minimum: int) -> None:
  if n < minimum:
    raise fault(name, f'{name} has {n} samples: give at least {minimum}')


def _numbers(name: str, x: Any) -> Array:
  """`x` as it is if it is an array of finite real numbers."""
  x = np.asarray(x)
  if x.dtype.kind not in 'fiu':
    raise fault(name, f'{name} is {x.dtype}: give real numbers')
  if x.dtype.kind == 'f' and not np.isfinite(x).all():
    bad = np.count_nonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    raise fault(
      name,
      f'{name} has {bad} samples with NaN or infinite values, of {len(x)}: the'
      ' generator has diverged, or the features have',
    )
  return x


def vectors(name: str, x: Any, minimum: int = 1) -> Array:
  """Features or points, (n, dim), as float32 or float64.

  Raises:
    ValueError: if they are not a table of finite numbers, or too few.
  """
  x = np.asarray(x)
  if x.ndim != 2 or x.shape[1] < 1:
    raise ValueError(f'{name} has shape {x.shape}: give (samples, dimensions)')
  _enough(name, len(x), minimum)
  x = _numbers(name, x)
  return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)


def two_sets(real: Any, fake: Any, minimum: int = 1) -> tuple[Array, Array]:
  """`vectors` of both sides, of the same dimensions.

  Raises:
    ValueError: as `vectors`; if the dimensions differ.
  """
  a, b = vectors('real', real, minimum), vectors('fake', fake, minimum)
  if a.shape[1] != b.shape[1]:
    raise SetupError(
      f'real has {a.shape[1]} dimensions and fake {b.shape[1]}: give both from'
      ' the same feature network'
    )
  return a, b


def images(name: str, x: Any, minimum: int = 1) -> NDArray[np.uint8]:
  """Images, uint8 (n, height, width, channels).

  Raises:
    ValueError: if they are anything else, or too few.
  """
  x = np.asarray(x)
  if x.ndim != 4 or 0 in x.shape[1:]:
    raise ValueError(
      f'{name} has shape {x.shape}: give (samples, height, width, channels)'
    )
  _enough(name, len(x), minimum)
  if x.dtype != np.uint8:
    _numbers(name, x)
    raise ValueError(
      f'{name} is {x.dtype}: give uint8 in [0, 255] (images.to_uint8 takes'
      ' samples in [-1, 1])'
    )
  return x


def probabilities(name: str, x: Any, minimum: int = 1) -> NDArray[np.float64]:
  """Probabilities of classes, (n, classes), as float64.

  Raises:
    ValueError: if a row is not a distribution (to .001), or too few.
  """
  p = vectors(name, x, minimum).astype(np.float64)
  if p.shape[1] < 2:
    raise ValueError(f'{name} has {p.shape[1]} class: give two or more')
  if p.min() < 0 or p.max() > 1 + 1e-3:
    raise ValueError(
      f'{name} is in [{p.min():.3g}, {p.max():.3g}]: give probabilities, not'
      ' logits'
    )
  if np.abs(p.sum(axis=1) - 1).max() > 1e-3:
    raise ValueError(
      f'{name} has rows that do not sum to 1: give probabilities'
    )
  return p


def labels(name: str, x: Any, classes: int, minimum: int = 1) -> NDArray[Any]:
  """Classes, integers (n,) in [0, classes).

  Raises:
    ValueError: if they are anything else, or too few.
  """
  x = np.asarray(x)
  if x.ndim != 1 or x.dtype.kind not in 'iu':
    raise ValueError(
      f'{name} is {x.dtype} of shape {x.shape}: give integers (samples,)'
    )
  _enough(name, len(x), minimum)
  if x.min() < 0 or x.max() >= classes:
    raise ValueError(
      f'{name} is in [{x.min()}, {x.max()}]: give classes 0 to {classes - 1}'
    )
  return x
