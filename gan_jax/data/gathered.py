"""Sets made of another set's images: a part of one, or stacks of three.

Nothing of them is kept on disk: they are gathered from the set they are made
of, by records that are a function of their place alone.
"""

import dataclasses
import hashlib
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.data.errors import DataFlagError
from gan_jax.data.feed import permutation
from gan_jax.data.imageset import ImageSet

# Sets of stacks, and the sets of digits that they are made of.
STACKED = {
  'stacked_digits': 'digits',
  'stacked_mnist': 'mnist',
  'stacked_fashion': 'fashion_mnist',
}
# As many as PacGAN's set has.
STACKS = 128_000
_SALT = 0x57AC  # of the permutations; another number would be another set
_BLOCK = 4096


class Gathered:
  """Images whose channels are those of several images of another set."""

  def __init__(self, base: ImageSet, rows: NDArray[np.int32]) -> None:
    """`rows` (n, k): the records of `base` that each image joins."""
    self._base, self._rows = base, rows

  def __len__(self) -> int:
    """How many images there are."""
    return len(self._rows)

  def __getitem__(self, index: Any) -> NDArray[np.uint8]:
    """One image."""
    parts = [np.asarray(self._base.source[r]) for r in self._rows[int(index)]]
    return np.concatenate(parts, axis=-1)

  def array(self) -> NDArray[np.uint8]:
    """All images, (n, height, width, channels)."""
    images = self._base.array()
    n, k = self._rows.shape
    h, w, c = images.shape[1:]
    found = np.empty((n, h, w, k * c), np.uint8)
    for start in range(0, n, _BLOCK):
      rows = self._rows[start : start + _BLOCK]
      for i in range(k):
        found[start : start + _BLOCK, ..., i * c : (i + 1) * c] = images[
          rows[:, i]
        ]
    return found


def _told(*facts: object) -> str:
  return hashlib.sha256(repr(facts).encode()).hexdigest()


def triples(size: int, count: int) -> NDArray[np.int32]:
  """Records (count, 3) of a set of `size` images that are stacked.

  Each channel runs through the set by a permutation of its own, again and
  again by new ones: every record is used equally often.
  """
  rows = np.empty((count, 3), np.int32)
  for channel in range(3):
    for epoch in range(-(-count // size)):
      part = rows[epoch * size : (epoch + 1) * size, channel]
      part[:] = permutation(_SALT + channel, epoch, size)[: len(part)]
  return rows


def stacked(base: ImageSet, name: str, count: int = STACKS) -> ImageSet:
  """Three images of ten classes in the colour channels: 1000 modes.

  Class 100 a + 10 b + c has a in red, b in green and c in blue.

  Reference: Metz et al. 2017, arXiv:1611.02163, section 3.3; the number of
  images is that of Lin et al. 2018 (PacGAN), arXiv:1712.04086, section 4.2.

  Raises:
    DataFlagError: if the images are not grey or not of ten classes.
  """
  if base.shape[2] != 1 or len(base.classes) != 10:
    raise DataFlagError(
      f'--dataset={name}: stacks grey images of ten classes, and {base.name}'
      f' has {base.shape[2]} channels and {len(base.classes)} classes'
    )
  rows = triples(base.size, count)

  def read() -> NDArray[np.int32]:
    assert base.read_labels is not None  # there are ten classes
    weights = np.array([100, 10, 1], np.int32)
    return (base.labels()[rows] * weights).sum(axis=1, dtype=np.int32)

  return ImageSet(
    name,
    (*base.shape[:2], 3),
    Gathered(base, rows),
    _told('stacked', base.fingerprint, count, _SALT),
    classes=tuple(f'{i:03d}' for i in range(1000)),
    read_labels=read,
  )


def parsed(name: str) -> tuple[str, str, str]:
  """A dataset's name, its split and its part, as `--dataset` has them.

  >>> parsed('mnist[test][:1000]')
  ('mnist', 'test', ':1000')
  >>> parsed('ring')
  ('ring', '', '')

  Raises:
    DataFlagError: for brackets that say neither.
  """
  if name.startswith(('folder:', 'density:')) or '[' not in name:
    return name, '', ''
  stem, split, part = name.partition('[')[0], '', ''
  words = re.fullmatch(r'((?:\[[^\[\]]+\])+)', name[len(stem) :])
  for word in re.findall(r'\[([^\[\]]+)\]', words[1]) if words else ['?']:
    if re.fullmatch(r'\d*:\d*', word) and not part:
      part = word
    elif re.fullmatch(r'[A-Za-z]\w*', word) and not split and not part:
      split = word
    else:
      raise DataFlagError(
        f'--dataset={name}: write a part as NAME[START:STOP], a split as'
        ' NAME[SPLIT], both as NAME[SPLIT][START:STOP]'
      )
  return stem, split, part


def sliced(images: ImageSet, part: str) -> ImageSet:
  """The records START:STOP of a set, in the order that it has on disk.

  TFDS shuffles what it writes, always alike: the first records of `mnist` are
  not the first of the original files.

  Raises:
    DataFlagError: if there are no such records.
  """
  name = f'{images.name}[{part}]'
  low, _, high = part.partition(':')
  start, stop = int(low or 0), int(high or images.size)
  if not 0 <= start < stop <= images.size:
    raise DataFlagError(
      f'--dataset={name}: {images.name} has {images.size} images; use'
      f' 0 <= START < STOP <= {images.size}'
    )
  rows = np.arange(start, stop, dtype=np.int32)

  def read() -> NDArray[np.int32]:
    return images.labels()[rows]

  return dataclasses.replace(
    images,
    name=name,
    source=Gathered(images, rows[:, None]),
    fingerprint=_told('part', images.fingerprint, start, stop),
    cache=None,
    key='',
    read_labels=read if images.read_labels else None,
  )
