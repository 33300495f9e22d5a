"""Data from Python: what is taken, in what order, and what is refused."""

import dataclasses

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import data
from gan_jax.data import as_dataset, make_feed, samples
from gan_jax.runtime import backend
from gan_jax.runtime.errors import ArgumentError, DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 4, 6, 3), np.uint8)
FLOATS = RNG.uniform(-1, 1, (20, 4, 6, 3)).astype(np.float32)
POINTS = RNG.normal(0, 3, (20, 2)).astype(np.float32)
LABELS = RNG.integers(0, 5, 20)
LABELS[0] = 4


class Source:
  """Records, as a user may have them."""

  def __init__(self, *columns, size=None):
    self.columns, self.size, self.reads = columns, size, []

  def __len__(self):
    return self.size or len(self.columns[0])

  def __getitem__(self, index):
    self.reads.append(index)
    record = tuple(x[index % len(x)] for x in self.columns)
    return record if len(record) > 1 else record[0]


def shown(dataset, steps=2, batch=5, **how):
  """What the first batch of each step shows."""
  labelled = bool(dataset.classes)
  feed = make_feed(dataset, seed=1, batch_size=batch, labelled=labelled, **how)
  chunk = feed.chunk(0, steps)
  decode = jax.jit(feed.decode, static_argnums=3)
  return [
    decode(
      feed.constants,
      jax.tree.map(lambda x, i=i: x[i, 0], chunk),
      jax.random.key(0),
      batch,
    )
    for i in range(steps)
  ]


def rows_of(batch, whole):
  """Which sample of a whole each one of a batch is."""
  away = np.abs(np.asarray(batch)[:, None] - whole[None])
  away = away.reshape(len(batch), len(whole), -1).max(axis=-1)
  assert away.min(axis=1).max() < 1e-6
  return away.argmin(axis=1)


@pytest.mark.parametrize('residence', ['device', 'stream'])
@pytest.mark.parametrize(
  'x, decoded',
  [
    (IMAGES, (IMAGES - 127.5) / 127.5),
    (IMAGES[..., 0], ((IMAGES - 127.5) / 127.5)[..., :1]),
    (FLOATS, FLOATS),
    (FLOATS.astype(np.float64)[..., 0], FLOATS[..., :1]),
    (POINTS, POINTS),
    (jnp.asarray(POINTS), POINTS),
  ],
  ids=['uint8', 'grey', 'floats', 'grey floats', 'points', 'jax'],
)
def test_arrays_are_shown_as_they_are_meant(x, decoded, residence):
  dataset = as_dataset(x)
  assert dataset.shape == decoded.shape[1:] and dataset.size == 20
  assert dataset.bounded == (decoded.ndim == 4)
  batches = shown(dataset, steps=4, residence=residence)
  assert all(batch.dtype == jnp.float32 for batch in batches)
  rows = np.concatenate([rows_of(batch, decoded) for batch in batches])
  assert sorted(rows) == list(range(20)) and list(rows) != sorted(rows)


@pytest.mark.parametrize('residence', ['device', 'stream'])
@pytest.mark.parametrize('of', [tuple, lambda pair: Source(*pair)])
def test_labels_stay_with_their_samples(of, residence):
  dataset = as_dataset(of((POINTS, LABELS)))
  assert dataset.classes == tuple('01234')
  np.testing.assert_array_equal(dataset.labels(), LABELS)
  for x, labels in shown(dataset, residence=residence):
    assert labels.dtype == jnp.int32
    np.testing.assert_array_equal(labels, LABELS[rows_of(x, POINTS)])


def test_classes_may_be_more_than_the_labels_name():
  assert len(as_dataset((POINTS, LABELS), classes=7).classes) == 7
  source = Source(POINTS, LABELS)
  source.classes = ('cat', 'dog', 'eel', 'fox', 'gnu')
  assert as_dataset(source).classes == source.classes
  with pytest.raises(ArgumentError, match='labels are from 0 to 4; use 0 to 3'):
    as_dataset((POINTS, LABELS), classes=4)


def test_a_source_is_read_once_and_is_its_array():
  source = Source(IMAGES)
  dataset = as_dataset(source)
  np.testing.assert_array_equal(dataset.array(), IMAGES)
  assert sorted(source.reads) == [0, *range(20)]  # the first to look at it
  assert dataset.fingerprint == as_dataset(IMAGES).fingerprint
  assert as_dataset(list(IMAGES)).fingerprint == dataset.fingerprint


WIDE = RNG.normal(size=(20, 1000)).astype(np.float32)


def large(*columns):
  """A source that is too large to be read whole."""
  return Source(*columns, size=10**6)


def test_a_large_source_is_read_as_it_is_needed(monkeypatch):
  monkeypatch.setattr(backend, 'free_bytes', lambda: 2**30)  # a small device
  source = large(WIDE, LABELS)
  source.classes = 5
  dataset = as_dataset(source)
  looked = len(source.reads)
  assert looked < 1100
  assert ', of 1,024 of 1,000,000 records' in dataset.fingerprint
  x, labels = shown(dataset, steps=1)[0]
  np.testing.assert_array_equal(labels, LABELS[rows_of(x, WIDE)])
  assert len(source.reads) < looked + 500  # some are read ahead
  assert as_dataset(large(WIDE)).fingerprint != dataset.fingerprint
  with pytest.raises(ArgumentError, match='`data=.*an attribute `classes`'):
    as_dataset(large(WIDE, LABELS))
  # It may say how many there are of each class, which else takes every label.
  source.class_counts = [10**6 - 10, 4, 3, 2, 1]
  told = as_dataset(source)
  source.reads.clear()
  assert told.class_counts == tuple(source.class_counts) and not source.reads
  source.class_counts = [1, 2, 3, 4, 5]
  with pytest.raises(
    ArgumentError, match='`data=.*`class_counts` are 5 and add'
  ):
    as_dataset(source)


def test_a_fingerprint_is_of_the_content_or_what_the_source_says():
  marks = {
    as_dataset(x).fingerprint
    for x in (IMAGES, IMAGES[:19], IMAGES[::-1], FLOATS, POINTS)
  }
  assert len(marks) == 5
  for source in (Source(IMAGES), large(WIDE)):
    source.fingerprint = 'faces, third cut'
    assert as_dataset(source).fingerprint == 'faces, third cut'
    source.fingerprint = 3
    with pytest.raises(ArgumentError, match='`fingerprint` is no string'):
      as_dataset(source)


@pytest.mark.parametrize('residence', ['device', 'stream'])
def test_a_grain_dataset_keeps_its_order(residence):
  """Sample i of batch b of step s is ((s batches) + b) batch + i, modulo."""
  own = grain.MapDataset.source(POINTS).shuffle(seed=3)
  order = np.stack([own[i] for i in range(20)])
  assert (order != POINTS).any()
  feed = make_feed(
    as_dataset(own),
    seed=1,
    batch_size=3,
    batches_per_step=2,
    residence=residence,
  )
  chunk = feed.chunk(2, 2)
  for s in range(2):
    for b in range(2):
      x = feed.decode(feed.constants, chunk[s, b], jax.random.key(0), 3)
      first = ((s + 2) * 2 + b) * 3
      wanted = order[np.arange(first, first + 3) % 20]
      np.testing.assert_array_equal(x, wanted)
  np.testing.assert_array_equal(chunk, feed.reseeded(5).chunk(2, 2))


def test_there_are_as_many_classes_as_the_largest_label_says():
  x = np.zeros((4, 2), np.float32)
  dataset = data.as_dataset((x, np.array([0, 3, 1, 0])))
  assert len(dataset.classes) == 4 and dataset.class_counts == (2, 1, 0, 1)


class Labelled(list):
  """A source of points with labels, of three classes."""

  classes = 3


def test_a_large_source_is_known_by_its_labels_too(monkeypatch):
  monkeypatch.setattr(samples, 'RESIDENT_BYTES', 0)
  x = np.arange(12, dtype=np.float32).reshape(6, 2)
  one, again, other = (
    data.as_dataset(Labelled(zip(x, labels))).fingerprint
    for labels in ([0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 1])
  )
  assert one == again != other


def test_a_grain_dataset_may_go_on_for_ever():
  source = grain.MapDataset.source(POINTS[::-1]).repeat()
  (x,) = shown(as_dataset(source), steps=1)
  np.testing.assert_array_equal(x, np.stack([source[i] for i in range(5)]))


def test_a_density_stays_one():
  ring = data.load('ring')
  assert as_dataset(ring).fingerprint == ring.fingerprint
  bare = as_dataset(dataclasses.replace(ring, fingerprint=''))
  assert bare.fingerprint == 'ring, by its name alone'
  assert as_dataset(as_dataset(POINTS)).size == 20


def changed(x, index, value):
  x = x.copy()
  x[index] = value
  return x


REFUSED = {
  'an iterator, which cannot continue': iter(IMAGES),
  'generator, an iterator': (x for x in IMAGES),
  'MapIterDataset|IterDataset': grain.MapDataset.source(
    POINTS
  ).to_iter_dataset(),
  'NoneType; give|NoneType`: give': None,
  '`data=digits`: give uint8 images': 'digits',
  "{'image': 3}`: give": {'image': 3},
  'a tuple of 3': (POINTS, LABELS, 3),
  'is of type int64': IMAGES.astype(np.int64),
  'is of type complex64': POINTS.astype(np.complex64),
  r'float32\(20, 4, 6, 3, 1\)`: has 5 axes': FLOATS[..., None],
  r'float32\(20,\)`: has 1 axes': POINTS[:, 0],
  r'uint8\(20, 6\)`: has 2 axes': IMAGES[:, 0, :, 0],
  'is empty': POINTS[:0],
  'Source`: is empty': Source([]),
  r'images are in \[-1, 1\], and these in \[0, 255\]; give uint8': (
    IMAGES.astype(np.float32).clip(0, 255)
  ),
  'sample 3; remove': changed(FLOATS, 3, np.nan),
  '1 samples hold NaN': changed(POINTS, (7, 1), np.inf),
  r'its channels first; give x.transpose\(0, 2, 3, 1\)': np.zeros(
    (9, 3, 32, 32), np.uint8
  ),
  r'labels int64\(19,\)\)`: use .* shape \(20,\)': (POINTS, LABELS[1:]),
  r'labels int64\(20, 1\)\)`: use': (POINTS, LABELS[:, None]),
  r'labels float64\(20,\)\)`: use': (POINTS, LABELS / 1.0),
  'labels are from -1': (POINTS, changed(LABELS, 2, -1)),
}


@pytest.mark.parametrize('words', REFUSED)
def test_what_is_no_data_is_refused_by_name(words):
  if 'images are in' in words:
    REFUSED[words][0, 0, 0] = [0, 255, 0]
  with pytest.raises(ArgumentError, match=words) as caught:
    as_dataset(REFUSED[words])
  assert str(caught.value).startswith('`data=')


def test_images_that_are_never_dark_are_warned_of():
  with pytest.warns(UserWarning, match=r'if they are in \[0, 1\], give 2'):
    as_dataset((FLOATS + 1) / 2)


class Torch:
  """As a PyTorch tensor of labels behaves."""

  def __index__(self):
    return 3


RECORDS = {
  r'record 2: is float32\(3,\), and record 0 is float32\(2,\)': [
    POINTS[0],
    POINTS[1],
    np.zeros(3),
  ],
  r'record 1: is uint8': [FLOATS[0], IMAGES[1]],
  'record 1: has a label, or none': [POINTS[0], (POINTS[1], 2)],
  'record 1: 1 samples hold NaN': [POINTS[0], [np.nan, 1.0]],
  'record 1: float images are in': [FLOATS[0], FLOATS[1] + 9],
  'record 0 is dict; use .*"image"': [{'image': IMAGES[0]}],
  'record 1 is NoneType': [POINTS[0], None],
  'record 0: its label is 0.5; use a whole': [(POINTS[0], 0.5)],
}


@pytest.mark.parametrize('words', RECORDS)
def test_a_record_that_cannot_be_used_is_named(words):
  with pytest.raises(DataError, match=words):
    as_dataset(RECORDS[words])


def test_labels_of_other_libraries_are_whole_numbers():
  assert as_dataset([(POINTS[0], Torch())]).labels().tolist() == [3]


def test_a_batch_larger_than_the_data_is_refused():
  with pytest.raises(
    ArgumentError, match='`batch_size=64`: data has 20 samples; use as many'
  ):
    make_feed(as_dataset(IMAGES), seed=0, batch_size=64)


def test_points_are_not_flipped():
  with pytest.raises(ArgumentError, match='`flip=True`: is for images'):
    make_feed(as_dataset(POINTS), seed=0, batch_size=4, flip=True)
