"""What scores are held against: real samples as the metrics see them, kept.

Features of thousands of real images take longer than those of one checkpoint,
and are the same every time: they are kept under the data root, named by a hash
of all that they depend on, written whole or not at all and verified when read.
"""

import contextlib
import hashlib
import io
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from gan_jax.data import Dataset, Density
from gan_jax.runtime.files import write_atomic

Arrays = dict[str, NDArray[Any]]
FOLDER = 'gan_jax_features'  # under the data root
_SALT = 0x5EA1  # of the choice and the draw of real samples
_MOST_BYTES = 2 * 2**30  # of features that are kept in one file


def digest(facts: Any) -> str:
  """SHA-256 of JSON-like facts, whatever the order of their keys."""
  text = json.dumps(facts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()


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


def _hash(arrays: Mapping[str, NDArray[Any]]) -> str:
  total = hashlib.sha256()
  for name, x in sorted(arrays.items()):
    total.update(f'{name} {x.dtype} {x.shape}\n'.encode())
    total.update(np.ascontiguousarray(x).data)
  return total.hexdigest()


def _read(path: pathlib.Path) -> Arrays | None:
  """What `_write` wrote; None if it is not there or damaged."""
  if not path.is_file():
    return None
  try:
    with open(path, 'rb') as file, np.load(file) as found:
      arrays = dict(found)
  except Exception:  # zipfile, zlib and NumPy raise many kinds
    return None
  seal = arrays.pop('digest', None)
  return arrays if seal is not None and str(seal) == _hash(arrays) else None


def _write(path: pathlib.Path, arrays: Arrays) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  buffer = io.BytesIO()
  np.savez(buffer, digest=_hash(arrays), **arrays)  # type: ignore[arg-type]
  write_atomic(path, buffer.getvalue())


def kept(
  folder: pathlib.Path, facts: Any, make: Callable[[], Arrays]
) -> Arrays:
  """Arrays that were kept for these facts, or made now and kept.

  A file that is damaged is made anew, and a folder that may not be written to
  is no fault.
  """
  path = folder / f'{digest(facts)}.npz'
  found = _read(path)
  if found is None:
    found = make()
    size = sum(x.nbytes for x in found.values())
    if size <= _MOST_BYTES and jax.process_index() == 0:
      with contextlib.suppress(OSError):
        _write(path, found)
  return found
