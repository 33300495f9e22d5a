"""Drafts: shards that are made while the files of a folder are looked at.

So that each file is read once, what looks at it makes its row as well, or keeps
it as it is, before it is known whether the whole folder is of use. A draft
holds rows of some files: `NAME.npz`, what the files and the rows are, and
`NAME.npy`, the rows, written after it; or `NAME.array_record`, the files. NAME
is a hash of the files' own hashes: a shard of the same files is made of a draft
by a new name, any other by a copy of its rows. Nothing here imports JAX.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan_jax.data import encoded, rows
from gan_jax.data.rows import Sums
from gan_jax.runtime.files import open_atomic

PREFIX = 'draft-'  # of the folders that hold them
LOOKS = f'{PREFIX}looks'  # and of what was found by those who have a share


class Draft(NamedTuple):
  """What rows are to be.

  Attributes:
    folder: that they go to.
    shape: of a row.
    size: side of the images, as `resize_and_crop` takes it.
    most: rows of a shard.
    encoded: whether the files are kept as they are, in the place of rows.
  """

  folder: str
  shape: tuple[int, int, int]
  size: int
  most: int
  encoded: bool = False


def _name(hashes: NDArray[np.uint8]) -> str:
  return hashlib.sha256(hashes.tobytes()).hexdigest()[:32]


def write(
  folder: str,
  images: NDArray[np.uint8] | Sequence[bytes],
  hashes: NDArray[np.uint8],
) -> None:
  """Writes rows, or files, and SHA-256 of the files, (n, 32).

  Raises:
    OSError: if they cannot be written.
  """
  place, name = pathlib.Path(folder), _name(hashes)
  place.mkdir(parents=True, exist_ok=True)
  if isinstance(images, np.ndarray):
    _note(place / f'{name}.npz', hashes, rows.sum_images(images))
    rows.save_shard(place / f'{name}.npy', images)
    return
  draft = place / f'.{name}{encoded.SUFFIX}'
  _note(place / f'{name}.npz', hashes, encoded.write_shard(draft, images))
  os.replace(draft, place / f'{name}{encoded.SUFFIX}')


def _note(path: pathlib.Path, hashes: NDArray[np.uint8], sums: Sums) -> None:
  with open_atomic(path) as file:
    np.savez(file, hashes=hashes, sha256=sums.sha256, crc32=sums.crc32)


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
  draft = folder / f'{name}{shard.suffix}'
  if not draft.is_file():
    return None
  try:
    with np.load(folder / f'{name}.npz', allow_pickle=False) as facts:
      sums = Sums(str(facts['sha256']), facts['crc32'])
    os.replace(draft, shard)
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
  for path in (*folder.glob('*.npy'), *folder.glob(f'*{encoded.SUFFIX}')):
    with contextlib.suppress(OSError):
      total += path.stat().st_size
  return total


def remove(place: pathlib.Path, but: pathlib.Path | None = None) -> None:
  """Removes all drafts in a folder, but for those of one kind."""
  for path in place.glob(f'{PREFIX}*'):
    if path != but:
      shutil.rmtree(path, ignore_errors=True)


__all__ = ['PREFIX', 'Draft', 'adopt', 'count_bytes', 'find', 'remove', 'write']
