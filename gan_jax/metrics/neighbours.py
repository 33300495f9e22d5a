"""Nearest training samples of generated ones: are they copies?"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gan_jax.metrics import arrays, blocks
from gan_jax.runtime.errors import ArgumentError

Table = NDArray[np.floating] | NDArray[np.uint8]


def _flatten(argument: str, values: ArrayLike) -> Table:
  x = np.asarray(values)
  if x.ndim == 4:
    images = arrays.as_images(argument, x)
    return images.reshape(len(images), -1)
  return arrays.as_table(argument, x)


def nearest_neighbours(
  train: ArrayLike, fake: ArrayLike, *, k: int = 5
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
  """The `k` nearest of the training set to each generated sample.

  Args:
    train: uint8 images (n, height, width, channels), or features (n, dim).
    fake: (m, ...), likewise, of the same shape.
    k: how many, at most n.

  Returns:
    Indices into `train` and Euclidean distances, (m, k), nearest first; of
    images the root mean square difference of pixels, in [0, 255].

  Raises:
    ArgumentError: if shapes differ or k is out of range.

  >>> nearest_neighbours([[0.0], [10.0]], [[9.0]], k=1)
  (array([[1]]), array([[1.]]))
  """
  if np.shape(train)[1:] != np.shape(fake)[1:]:
    remedy = f'where `train` is {np.shape(train)}; give one shape'
    raise arrays.fault('fake', fake, remedy)
  is_image = np.ndim(train) == 4
  known, x = _flatten('train', train), _flatten('fake', fake)
  if not 1 <= k <= len(known):
    raise ArgumentError('k', k, f'of {len(known)} samples; use 1 to that many')
  nearest, squares = blocks.nearest(x, known, k)
  return nearest, np.sqrt(squares / (known.shape[1] if is_image else 1))


def join_neighbours(
  train: ArrayLike, fake: ArrayLike, nearest: NDArray[np.int64]
) -> NDArray[np.uint8]:
  """Each fake followed by its neighbours, (m (k + 1), height, width, channels).

  A row of `images.grid(..., columns=k + 1)` is then a fake and its neighbours.
  """
  known, x = arrays.as_images('train', train), arrays.as_images('fake', fake)
  rows = np.concatenate([x[:, None], known[nearest]], axis=1)
  return rows.reshape(-1, *x.shape[1:])
