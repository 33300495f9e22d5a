"""Drafts: rows that are made while the files of a folder are looked at.

So that each file is read once, what looks at it makes its row as well, before
it is known whether the whole folder is of use. A draft holds rows of some
files: `NAME.npz`, what the files and the rows are, and `NAME.npy`, the rows,
written after it. NAME is a hash of the files' own hashes: a shard of the same
files is made of a draft by a new name, any other by a copy of its rows.
Nothing here imports JAX.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan_jax.data import rows
from gan_jax.data.rows import Sums
from gan_jax.runtime.files import open_atomic

PREFIX = 'draft-'  # of the folders that hold them


class Draft(NamedTuple):
  """What rows are to be.

  Attributes:
    folder: that they go to.
    shape: of a row.
    size: side of the images, as `resize_and_crop` takes it.
    most: rows of a shard.
  """

  folder: str
  shape: tuple[int, int, int]
  size: int
  most: int


def _name(hashes: NDArray[np.uint8]) -> str:
  return hashlib.sha256(hashes.tobytes()).hexdigest()[:32]


def write(
  folder: str, images: NDArray[np.uint8], hashes: NDArray[np.uint8]
) -> None:
  """Writes rows and SHA-256 of the files that they are of, (n, 32).

  Raises:
    OSError: if they cannot be written.
  """
  place, name = pathlib.Path(folder), _name(hashes)
  place.mkdir(parents=True, exist_ok=True)
  sums = rows.sum_images(images)
  with open_atomic(place / f'{name}.npz') as file:
    np.savez(file, hashes=hashes, sha256=sums.sha256, crc32=sums.crc32)
  rows.save_shard(place / f'{name}.npy', images)


def adopt(
  folder: pathlib.Path, hashes: NDArray[np.uint8], shard: pathlib.Path
) -> Sums | None:
  """Makes the draft of some files a shard; None if there is no such draft.

  Args:
    folder: of the drafts.
    hashes: SHA-256 of the files.
    shard: its new name, on the same file system.
  """
  name = _name(hashes)
  if not (folder / f'{name}.npy').is_file():
    return None
  try:
    with np.load(folder / f'{name}.npz', allow_pickle=False) as facts:
      sums = Sums(str(facts['sha256']), facts['crc32'])
    os.replace(folder / f'{name}.npy', shard)
  except (OSError, ValueError, KeyError, zipfile.BadZipFile):
    return None  # they are made again
  return sums


def find(
  folder: pathlib.Path,
) -> Iterator[tuple[pathlib.Path, NDArray[np.uint8]]]:
  """The drafts of a folder, and SHA-256 of the files of their rows."""
  for path in sorted(folder.glob('*.npy')):
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
      with np.load(path.with_suffix('.npz'), allow_pickle=False) as facts:
        yield path, facts['hashes']


def count_bytes(folder: pathlib.Path) -> int:
  """Bytes that drafts take."""
  total = 0
  for path in folder.glob('*.npy'):
    with contextlib.suppress(OSError):
      total += path.stat().st_size
  return total


def remove(place: pathlib.Path, but: pathlib.Path | None = None) -> None:
  """Removes all drafts in a folder, but for those of one kind."""
  for path in place.glob(f'{PREFIX}*'):
    if path != but:
      shutil.rmtree(path, ignore_errors=True)


__all__ = ['PREFIX', 'Draft', 'adopt', 'count_bytes', 'find', 'remove', 'write']
