"""Sets derived from another set: a part of its records, or stacks of three.

Nothing of them is written to disk: each sample is gathered from records of the
set that it is derived from, and which ones is a function of its index alone.
"""

import dataclasses
import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.data.feed import permutation
from gan_jax.data.samples import SampleSet
from gan_jax.runtime.errors import ArgumentError

# Sets of stacks, and the sets of digits that they are made of.
STACKED = {
  'stacked_digits': 'digits',
  'stacked_mnist': 'mnist',
  'stacked_fashion': 'fashion_mnist',
}
# As many as PacGAN's set has.
STACKS = 128_000
# How names begin that hold a path.
PATHS = ('folder:', 'density:', 'prepared:')
_SALT = 0x57AC  # of the permutations; another number would be another set
_BLOCK = 4096


class Gathered:
  """Samples whose channels are those of several records of another set."""

  def __init__(self, base: SampleSet, rows: NDArray[np.int32]) -> None:
    """`rows` (n, k): the records of `base` that each sample joins."""
    self._base, self._rows = base, rows

  def __len__(self) -> int:
    """How many samples there are."""
    return len(self._rows)

  def __getitem__(self, index: Any) -> NDArray[Any]:
    """One sample."""
    parts = [np.asarray(self._base.source[r]) for r in self._rows[int(index)]]
    return np.concatenate(parts, axis=-1)

  @property
  def batches(self) -> Callable[[Any], Any] | None:
    """As the other set has it, of samples that are one record each."""
    read = getattr(self._base.source, 'batches', None)
    if read is None or self._rows.shape[1] > 1:
      return None
    return lambda picks: read(self._rows[picked, 0] for picked in picks)

  def array(self) -> NDArray[Any]:
    """All samples, (n, *shape)."""
    samples = self._base.array()
    n, k = self._rows.shape
    *shape, c = samples.shape[1:]
    gathered = np.empty((n, *shape, k * c), samples.dtype)
    for start in range(0, n, _BLOCK):
      rows = self._rows[start : start + _BLOCK]
      for i in range(k):
        part = gathered[start : start + _BLOCK, ..., i * c : (i + 1) * c]
        part[...] = samples[rows[:, i]]
    return gathered


def _hash(*facts: object) -> str:
  return hashlib.sha256(repr(facts).encode()).hexdigest()


def stack_records(size: int, count: int) -> NDArray[np.int32]:
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


def stack_images(base: SampleSet, name: str, count: int = STACKS) -> SampleSet:
  """Three images of ten classes in the colour channels: 1000 modes.

  Class 100 a + 10 b + c has a in red, b in green and c in blue.

  Reference: Metz et al. 2017, arXiv:1611.02163, section 3.3; the number of
  images is that of Lin et al. 2018 (PacGAN), arXiv:1712.04086, section 4.2.

  Raises:
    ArgumentError: if the images are not grey or not of ten classes.
  """
  if base.shape[2] != 1 or len(base.classes) != 10:
    raise ArgumentError(
      'dataset',
      name,
      f'stacks grey images of ten classes, and {base.name} has'
      f' {base.shape[2]} channels and {len(base.classes)} classes',
    )
  rows = stack_records(base.size, count)

  def read() -> NDArray[np.int32]:
    assert base.read_labels is not None  # there are ten classes
    weights = np.array([100, 10, 1], np.int32)
    return (base.labels()[rows] * weights).sum(axis=1, dtype=np.int32)

  return SampleSet(
    name,
    (*base.shape[:2], 3),
    Gathered(base, rows),
    _hash('stacked', base.fingerprint, count, _SALT),
    classes=tuple(f'{i:03d}' for i in range(1000)),
    read_labels=read,
  )


def parse_name(name: str) -> tuple[str, str, str]:
  """Splits the name of a dataset into the set, its split and its part.

  >>> parse_name('mnist[test][:1000]')
  ('mnist', 'test', ':1000')
  >>> parse_name('ring')
  ('ring', '', '')

  Raises:
    ArgumentError: for brackets that say neither.
  """
  if name.startswith(PATHS) or '[' not in name:
    return name, '', ''
  stem, split, part = name.partition('[')[0], '', ''
  words = re.fullmatch(r'((?:\[[^\[\]]+\])+)', name[len(stem) :])
  for word in re.findall(r'\[([^\[\]]+)\]', words[1]) if words else ['?']:
    if re.fullmatch(r'\d*:\d*', word) and not part:
      part = word
    elif re.fullmatch(r'[A-Za-z]\w*', word) and not split and not part:
      split = word
    else:
      raise ArgumentError(
        'dataset',
        name,
        'write a part as NAME[START:STOP], a split as NAME[SPLIT], both as'
        ' NAME[SPLIT][START:STOP]',
      )
  return stem, split, part


def take_part(images: SampleSet, part: str) -> SampleSet:
  """The records START:STOP of a set, in the order that it has on disk.

  TFDS shuffles what it writes, always alike: the first records of `mnist` are
  not the first of the original files.

  Raises:
    ArgumentError: if there are no such records.
  """
  name = f'{images.name}[{part}]'
  low, _, high = part.partition(':')
  start, stop = int(low or 0), int(high or images.size)
  if not 0 <= start < stop <= images.size:
    raise ArgumentError(
      'dataset',
      name,
      f'{images.name} has {images.size} images; use 0 <= START < STOP <='
      f' {images.size}',
    )
  rows = np.arange(start, stop, dtype=np.int32)

  def read() -> NDArray[np.int32]:
    return images.labels()[rows]

  return dataclasses.replace(
    images,
    name=name,
    source=Gathered(images, rows[:, None]),
    fingerprint=_hash('part', images.fingerprint, start, stop),
    cache=None,
    key='',
    read_labels=read if images.read_labels else None,
    known_counts=(),
  )
