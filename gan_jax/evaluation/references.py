"""What scores are held against: real samples as the metrics see them, kept.

Features of thousands of real images take longer than those of one checkpoint,
and are the same every time: they are kept under the data root, named by a hash
of all that they depend on, written whole or not at all and verified when read.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from gan_jax.data import Dataset, Density
from gan_jax.runtime import multihost
from gan_jax.runtime.array_cache import Arrays, cached_arrays

FOLDER = 'gan_jax_features'  # under the data root
_SALT = 0x5EA1  # of the choice and the draw of real samples
_MOST_BYTES = 2 * 2**30


def chosen(size: int, count: int) -> NDArray[np.int64]:
  """Records of a set that stand for it: all, or `count` drawn for good.

  In rising order. The draw depends on size and count alone, so that every
  checkpoint of every run meets the same images.
  """
  if count >= size:
    return np.arange(size)
  stream = np.random.Generator(np.random.Philox(key=[_SALT, size]))
  return np.sort(stream.permutation(size)[:count])


def points(density: Density, count: int) -> NDArray[np.float32]:
  """Samples of a density, the same every time."""
  found = jax.jit(density.sample, static_argnums=1)(
    jax.random.key(_SALT), count
  )
  return np.asarray(found, np.float32)


def pixels(dataset: Dataset, count: int) -> NDArray[np.uint8]:
  """The images that stand for a set, (count, height, width, channels)."""
  assert not isinstance(dataset, Density)
  rows = chosen(dataset.size, count)
  if len(rows) == dataset.size or dataset.nbytes <= _MOST_BYTES:
    return dataset.array()[rows]
  return np.stack([dataset.source[i] for i in rows])


def kept(
  folder: pathlib.Path, facts: Mapping[str, Any], make: Callable[[], Arrays]
) -> Arrays:
  """Features of real samples from the cache, or made now and kept there."""
  write = multihost.is_primary()
  return cached_arrays(folder, facts, make, name='features', write=write)
