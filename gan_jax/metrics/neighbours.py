"""Nearest training samples of generated ones: are they copies?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.metrics import arrays, blocks


def _flat(name: str, x: Any) -> NDArray[Any]:
  x = np.asarray(x)
  if x.ndim == 4:
    x = arrays.images(name, x)
    return x.reshape(len(x), -1)
  return arrays.vectors(name, x)


def neighbours(
  train: Any, fake: Any, *, k: int = 5
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
  """The `k` nearest of the training set to each generated sample.

  Args:
    train: uint8 images, or features (n, dim).
    fake: likewise, of the same shape.
    k: how many, at most n.

  Returns:
    Indices into `train` and Euclidean distances, (m, k), nearest first; of
    images the root mean square difference of pixels, in [0, 255].

  Raises:
    ValueError: if shapes differ or k is out of range.
  """
  if np.shape(train)[1:] != np.shape(fake)[1:]:
    raise ValueError(
      f'train is {np.shape(train)} and fake {np.shape(fake)}: give one shape'
    )
  images = np.ndim(train) == 4
  train, fake = _flat('train', train), _flat('fake', fake)
  if not 1 <= k <= len(train):
    raise ValueError(f'k={k} of {len(train)} samples: use 1 to {len(train)}')
  which, away = blocks.nearest(fake, train, k)
  return which, away / np.sqrt(train.shape[1]) if images else away


def beside(train: Any, fake: Any, which: NDArray[np.int64]) -> NDArray[Any]:
  """Each fake followed by its neighbours, (m (k + 1), height, width, channels).

  A row of `images.grid(..., columns=k + 1)` is then a fake and its neighbours.
  """
  train, fake = np.asarray(train), np.asarray(fake)
  sheet = np.concatenate([fake[:, None], train[which]], axis=1)
  return sheet.reshape(-1, *fake.shape[1:])
