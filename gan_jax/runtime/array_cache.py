"""A cache of arrays on disk: named by what they depend on, verified when read.

Decoded images, features of real samples and trained classifiers take long to
make and are the same every time. Each is one `.npz` file, whole or not there,
with a hash of its content in it: a damaged file is named and made anew.
"""

import contextlib
import hashlib
import json
import pathlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.runtime import terminal
from gan_jax.runtime.archives import ArchiveError, read_arrays
from gan_jax.runtime.files import open_atomic, remove_leftovers

Arrays = dict[str, NDArray[Any]]
_SEAL = 'digest'  # the name of the hash among the arrays of a file


def digest_facts(facts: Mapping[str, Any]) -> str:
  """SHA-256 of JSON-like facts, whatever the order of their keys."""
  text = json.dumps(facts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()


def digest_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
  """SHA-256 of arrays: names, types, shapes and every byte."""
  total = hashlib.sha256()
  for name, x in sorted(arrays.items()):
    total.update(f'{name} {x.dtype} {x.shape}\n'.encode())
    total.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
  return total.hexdigest()


def cached_arrays(
  folder: pathlib.Path,
  facts: Mapping[str, Any],
  make: Callable[[], Arrays],
  *,
  name: str = 'arrays',
  write: bool = True,
) -> Arrays:
  """Arrays from the cache, or made now and written there.

  A folder that may not be written to is no fault. Several processes may do
  this at once: each file appears by one rename.

  Args:
    folder: of the cache.
    facts: all that the arrays depend on, as JSON has it.
    make: makes them.
    name: what they are; the file's name begins with it.
    write: whether this process writes what it made.
  """
  # The end of a long path says more than its beginning.
  stem = re.sub(r'[^\w.-]+', '_', name)[-60:]
  path = folder / f'{stem}-{digest_facts(facts)[:32]}.npz'
  arrays = read_sealed(path)
  if arrays is None:
    arrays = make()
    if write:
      with contextlib.suppress(OSError):
        write_sealed(path, arrays)
  return arrays


def write_sealed(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
  """Writes an `.npz` with a hash of its content, in one step.

  Raises:
    OSError: if it cannot be written.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  remove_leftovers(path.parent)
  sealed: dict[str, Any] = {**arrays, _SEAL: np.array(digest_arrays(arrays))}
  with open_atomic(path) as file:
    np.savez(file, **sealed)


def read_sealed(path: pathlib.Path) -> Arrays | None:
  """The arrays of a file; None if it is not there, or damaged and told so."""
  if not path.is_file():
    return None
  try:
    arrays = read_arrays(path)
    if str(arrays.pop(_SEAL)) == digest_arrays(arrays):
      return arrays
    reason = 'its content does not have the hash it was written with'
  except ArchiveError as error:
    reason = error.reason
  except (OSError, KeyError) as error:
    reason = (str(error) or repr(error)).splitlines()[0][:200]
  text = f'warning: {path} is damaged ({reason}): made anew'
  terminal.tell(text, sys.stderr)
  return None
