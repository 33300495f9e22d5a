"""Data from Python: arrays, labelled arrays and sources as datasets.

Images are uint8, or floats in [-1, 1]; points are floats (n, dim). A source has
`__len__` and `__getitem__(i)`, which returns a record: one sample, or a pair of
it and its class. It may say what it is by attributes: `fingerprint`, a string
that changes with its content, `classes`, their number or names, and
`class_counts`, how many samples each has. What fits the device is read once; a
larger source is read by several threads as it is needed, and should be safe for
that. Of a larger one without `class_counts`, a class-conditional run reads
every label before it starts.
"""

import dataclasses
import operator
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.data import samples
from gan_jax.data.densities import Density
from gan_jax.data.samples import SampleSet, read_all
from gan_jax.runtime.array_cache import digest_arrays
from gan_jax.runtime.errors import ArgumentError, DataError

_USE = (
  'give uint8 images (n, height, width, channels), float32 images in [-1, 1],'
  ' float32 points (n, dim), a pair (x, labels) of such and whole numbers, a'
  ' `Density`, or a source with `__len__` and `__getitem__`'
)
_FINGERPRINT_RECORDS = 1024


def as_dataset(data: Any, *, classes: int = 0) -> Density | SampleSet:
  """A dataset of what a user brings.

  Args:
    data: a uint8 image array, a float array, a pair `(x, labels)`, a `Density`,
      a source, or a `grain.MapDataset` of records, which keeps its order.
    classes: how many there are; 0 for as many as the labels name.

  Raises:
    ArgumentError: for anything else, such as an iterator, which cannot
      continue at a step.
    DataError: if a record cannot be used.
  """
  if isinstance(data, Density):
    fingerprint = data.fingerprint or f'{data.name}, by its name alone'
    return dataclasses.replace(data, fingerprint=fingerprint)
  if isinstance(data, SampleSet):
    return data
  if isinstance(data, tuple):
    if len(data) != 2:
      raise ArgumentError('data', f'a tuple of {len(data)}', _USE)
    return _from_arrays(np.asarray(data[0]), np.asarray(data[1]), classes)
  if hasattr(data, 'dtype') and hasattr(data, 'shape'):
    return _from_arrays(np.asarray(data), None, classes)
  if isinstance(data, str | bytes | Mapping):
    raise ArgumentError('data', data, _USE)
  if not hasattr(data, '__len__') or not hasattr(data, '__getitem__'):
    what = type(data).__name__
    if hasattr(data, '__iter__') or hasattr(data, '__next__'):
      what += ', an iterator, which cannot continue at a step'
    raise ArgumentError('data', what, _USE)
  return _from_source(data, classes)


# Arrays.


def _from_arrays(
  x: NDArray[Any],
  labels: NDArray[Any] | None,
  classes: int,
  names: tuple[str, ...] = (),
) -> SampleSet:
  """A set of samples that are all in memory."""
  x = _check_samples(x)
  dataset = SampleSet(
    'data', x.shape[1:], x, digest_arrays({'samples': x}), dtype=x.dtype
  )
  if labels is None:
    return dataset
  labels = _check_labels(labels, len(x), classes)
  count = classes or int(labels.max()) + 1
  return dataclasses.replace(
    dataset,
    classes=names or tuple(map(str, range(count))),
    read_labels=lambda: labels,
  )


def _describe(x: NDArray[Any]) -> str:
  return f'{x.dtype}{x.shape}'


def _check_samples(x: NDArray[Any]) -> NDArray[Any]:
  """Samples as uint8 or float32, images with a channel axis.

  Raises:
    ArgumentError: saying what is wrong with them.
  """
  given = _describe(x)
  floating = np.issubdtype(x.dtype, np.floating)
  if x.dtype != np.uint8 and not floating:
    raise ArgumentError('data', given, f'is of type {x.dtype}; {_USE}')
  if x.ndim not in ((2, 3, 4) if floating else (3, 4)):
    raise ArgumentError('data', given, f'has {x.ndim} axes; {_USE}')
  if not x.size:
    raise ArgumentError('data', given, 'is empty')
  if x.ndim == 3:  # grey
    x = x[..., None]
  if x.ndim == 4 and _has_channels_first(x.shape):
    raise ArgumentError(
      'data', given, 'has its channels first; give x.transpose(0, 2, 3, 1)'
    )
  if not floating:
    return x
  x = x.astype(np.float32, copy=False)
  problem = _find_problem(x, x.ndim == 4)
  if problem:
    raise ArgumentError('data', given, problem)
  if x.ndim == 4 and x.min() >= 0:
    warnings.warn(
      '`data`: images are in [-1, 1], and no value of these is below 0; if they'
      ' are in [0, 1], give 2 * x - 1',
      stacklevel=4,
    )
  return x


def _has_channels_first(shape: tuple[int, ...]) -> bool:
  return shape[1] in (1, 3) and shape[3] > 4 and shape[2] > 4


def _find_problem(x: NDArray[np.float32], images: bool) -> str:
  """What is wrong with the numbers of some samples; empty for nothing."""
  finite = np.isfinite(x.reshape(len(x), -1)).all(axis=1)
  if not finite.all():
    bad = np.flatnonzero(~finite)
    return (
      f'{len(bad)} samples hold NaN or infinity, the first is sample {bad[0]};'
      ' remove them'
    )
  low, high = float(x.min()), float(x.max())
  if images and max(-low, high) > 1 + 1e-5:
    return (
      f'float images are in [-1, 1], and these in [{low:.4g}, {high:.4g}]; give'
      ' uint8, or (x - 127.5) / 127.5 of values from 0 to 255'
    )
  return ''


def _check_labels(
  labels: NDArray[Any], n: int, classes: int
) -> NDArray[np.int32]:
  """Labels as int32.

  Raises:
    ArgumentError: for another shape or type, or a class that is not there.
  """
  given = f'(x, labels {_describe(labels)})'
  if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
    raise ArgumentError(
      'data', given, f'use labels that are whole numbers of shape ({n},)'
    )
  low, high = int(labels.min()), int(labels.max())
  if low < 0 or (classes and high >= classes):
    until = f'{classes - 1}' if classes else 'the number of classes - 1'
    raise ArgumentError(
      'data', given, f'labels are from {low} to {high}; use 0 to {until}'
    )
  return labels.astype(np.int32)


# Sources.


class _Records:
  """Samples and classes of a source, checked as they are read."""

  def __init__(self, source: Any) -> None:
    """Reads the first record, which the others must be like."""
    self._source = source
    self.example, label = self._read(0)
    self.has_labels = label is not None

  def __len__(self) -> int:
    """How many records there are."""
    return len(self._source)

  def __getitem__(self, index: Any) -> NDArray[Any]:
    """One sample."""
    return self.labelled(index)[0]

  def labelled(self, index: Any) -> tuple[NDArray[Any], Any]:
    """One sample and its class; None in a source without classes.

    Raises:
      DataError: if the record is not like the first one.
    """
    x, label = self._read(int(index))
    first = self.example
    problem = ''
    if (x.shape, x.dtype) != (first.shape, first.dtype):
      problem = f'is {_describe(x)}, and record 0 is {_describe(first)}'
    elif (label is not None) != self.has_labels:
      problem = 'has a label, or none, unlike record 0'
    elif x.dtype == np.float32:
      problem = _find_problem(x[None], x.ndim == 3)
    if problem:
      raise DataError(f'`data`: record {index}: {problem}')
    return x, label

  def _read(self, index: int) -> tuple[NDArray[Any], Any]:
    record, label = self._source[index], None
    if isinstance(record, tuple) and len(record) == 2:
      record, label = record
      try:
        label = np.int32(operator.index(label))
      except TypeError as error:
        raise DataError(
          f'`data`: record {index}: its label is {label!r}; use a whole number'
        ) from error
    if isinstance(record, Mapping) or record is None:
      raise DataError(
        f'`data`: record {index} is {type(record).__name__}; use a sample, or a'
        ' pair (sample, label), such as (record["image"], record["label"])'
      )
    x = np.asarray(record)
    if np.issubdtype(x.dtype, np.floating):
      x = x.astype(np.float32, copy=False)
    return (x[..., None] if x.ndim == 2 else x), label


def _from_source(source: Any, classes: int) -> SampleSet:
  """A set of a source's records, read now if it is small."""
  if not len(source):
    raise ArgumentError('data', type(source).__name__, 'is empty')
  fingerprint = getattr(source, 'fingerprint', '')
  if not isinstance(fingerprint, str):
    raise ArgumentError(
      'data', type(source).__name__, 'its `fingerprint` is no string'
    )
  records = _Records(source)
  names = _class_names(classes or getattr(source, 'classes', ()))
  if len(records) * records.example.nbytes <= samples.RESIDENT_BYTES:
    x, labels = _read_whole(records)
    dataset = _from_arrays(x, labels, len(names), names)
  else:
    _check_samples(records.example[None])
    dataset = _stream(records, names, fingerprint)
    counts = tuple(map(int, getattr(source, 'class_counts', ())))
    if counts and (len(counts) != len(names) or sum(counts) != len(records)):
      raise ArgumentError(
        'data',
        type(source).__name__,
        f'its `class_counts` are {len(counts)} and add up to {sum(counts)}; it'
        f' has {len(names)} classes and {len(records)} records',
      )
    dataset = dataclasses.replace(dataset, known_counts=counts)
  return dataclasses.replace(
    dataset,
    fingerprint=fingerprint or dataset.fingerprint,
    own_order=_is_grain(source),
  )


def _read_whole(
  records: _Records,
) -> tuple[NDArray[Any], NDArray[np.int32] | None]:
  x = np.empty((len(records), *records.example.shape), records.example.dtype)
  labels = np.empty(len(records), np.int32) if records.has_labels else None

  def read(i: int) -> None:
    x[i], label = records.labelled(i)
    if labels is not None:
      labels[i] = label

  read_all(len(records), read, 'reading the data')
  return x, labels


def _stream(
  records: _Records, names: tuple[str, ...], fingerprint: str
) -> SampleSet:
  """A set of records that are read as they are needed."""
  if records.has_labels and not names:
    raise ArgumentError(
      'data',
      f'{len(records)} records with labels',
      'are too many to look for their classes; give the source an attribute'
      ' `classes`, their number or names',
    )

  def read_labels() -> NDArray[np.int32]:
    labels = np.empty(len(records), np.int32)

    def read(i: int) -> None:
      labels[i] = records.labelled(i)[1]

    read_all(len(records), read, 'reading the labels')
    return labels

  first = records.example
  return SampleSet(
    'data',
    first.shape,
    records,
    fingerprint or _hash_some(records),
    classes=names if records.has_labels else (),
    read_labels=read_labels if records.has_labels else None,
    dtype=first.dtype,
  )


def _hash_some(records: _Records) -> str:
  """A fingerprint of the number of records and of some of them; it says so."""
  n = len(records)
  count = min(n, _FINGERPRINT_RECORDS)
  chosen = [records.labelled(i * n // count) for i in range(count)]
  arrays = {'samples': np.stack([x for x, _ in chosen])}
  if records.has_labels:
    arrays['labels'] = np.array([label for _, label in chosen])
  return f'{digest_arrays(arrays)}, of {count:,} of {n:,} records'


def _class_names(classes: Any) -> tuple[str, ...]:
  """Names of classes, of which the number or the names are given."""
  if isinstance(classes, int | np.integer):
    classes = range(classes)
  return tuple(map(str, classes))


def _is_grain(source: Any) -> bool:
  """Whether this is a `grain.MapDataset`, whose order is its own."""
  grain = sys.modules.get('grain')
  return grain is not None and isinstance(source, grain.MapDataset)
