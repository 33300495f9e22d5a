"""What scores are held against: real samples as the metrics see them, cached.

Features of thousands of real images take longer than those of one checkpoint,
and are the same every time: they are cached under the data root, named by a
hash of all that they depend on.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from gan_jax.data import Dataset, Density
from gan_jax.figures.images import to_uint8
from gan_jax.runtime import multihost
from gan_jax.runtime.array_cache import Arrays, cached_arrays

FOLDER = 'gan_jax_features'  # under the data root
_SALT = 0x5EA1  # of the choice and the draw of real samples


def choose_records(size: int, count: int) -> NDArray[np.int64]:
  """Records that stand for a set: all, or `count` drawn once and for all.

  In rising order. The draw depends on size and count alone, so that every
  checkpoint of every run meets the same samples.
  """
  if count >= size:
    return np.arange(size)
  stream = np.random.Generator(np.random.Philox(key=[_SALT, size]))
  return np.sort(stream.permutation(size)[:count])


def read_samples(dataset: Dataset, count: int) -> NDArray[Any]:
  """The samples that stand for a dataset, the same every time.

  Returns:
    uint8 images (count, height, width, channels), or float32 points (count,
    dim).
  """
  if isinstance(dataset, Density):
    draw = jax.jit(dataset.sample, static_argnums=1)
    return np.asarray(draw(jax.random.key(_SALT), count), np.float32)
  x = dataset.take(choose_records(dataset.size, count))
  return x if x.dtype == np.uint8 or x.ndim == 2 else to_uint8(x)


def cached_features(
  data_root: pathlib.Path, facts: Mapping[str, Any], make: Callable[[], Arrays]
) -> Arrays:
  """Features of real samples from the cache, or made now and written there."""
  folder, write = data_root / FOLDER, multihost.is_primary()
  return cached_arrays(folder, facts, make, name='features', write=write)
