"""Stacks of three digits, and parts of a set: which records, which classes."""

import jax
import numpy as np
import pytest

from gan_jax import data
from gan_jax.data import derived
from gan_jax.data.feed import normalise
from gan_jax.runtime.errors import ArgumentError


def grey(size=30, side=2, channels=1, classes=10, name='grey'):
  """A set whose image n is full of the number n, and of class n mod 10."""
  values = np.arange(size, dtype=np.uint8).reshape(-1, 1, 1, 1)
  shape = (side, side, channels)
  return data.SampleSet(
    name,
    shape,
    values * np.ones(shape, np.uint8),
    'base',
    classes=tuple(map(str, range(classes))),
    read_labels=lambda: np.arange(size, dtype=np.int32) % classes,
  )


def test_a_stack_is_three_images_and_its_class_their_digits():
  stacks = derived.stack_images(grey(), 'stacked', 100)
  images, labels = stacks.array(), stacks.labels()
  assert images.shape == (100, 2, 2, 3) and images.dtype == np.uint8
  records = images[:, 0, 0]
  assert (images == records[:, None, None]).all()
  np.testing.assert_array_equal(labels, (records % 10) @ [100, 10, 1])
  assert len(stacks.classes) == 1000 and stacks.classes[207] == '207'


def test_one_by_one_is_all_at_once(monkeypatch):
  monkeypatch.setattr(derived, '_BLOCK', 7)
  stacks = derived.stack_images(grey(), 'stacked', 20)
  whole = stacks.array()
  for i in range(20):
    np.testing.assert_array_equal(stacks.source[i], whole[i])


def test_every_record_is_used_equally_often_in_each_channel():
  rows = derived.stack_records(30, 90)
  for channel in rows.T:
    np.testing.assert_array_equal(np.bincount(channel), 3)
  assert (rows[:30] != rows[30:60]).any()
  # Channels are shuffled apart, or the classes would be 000, 111, ...
  assert (rows[:, 0] != rows[:, 1]).mean() > 0.8


def test_a_stack_is_a_function_of_its_place():
  long, short = derived.stack_records(30, 90), derived.stack_records(30, 41)
  np.testing.assert_array_equal(long[:41], short)
  # Another permutation would be another set, which no score may be held
  # against. After a change of NumPy's permutations: print triples(30, 3).
  assert derived.stack_records(30, 3).tolist() == GOLDEN


GOLDEN = [[3, 24, 2], [15, 3, 29], [13, 19, 18]]


@pytest.mark.parametrize('bad', [{'channels': 3}, {'classes': 7}])
def test_only_grey_images_of_ten_classes_are_stacked(bad):
  with pytest.raises(ArgumentError, match='`dataset=stacked`'):
    derived.stack_images(grey(**bad), 'stacked')


def test_the_fingerprint_is_of_all_that_makes_the_set():
  base = grey()
  found = {
    base.fingerprint,
    derived.stack_images(base, 'a', 20).fingerprint,
    derived.stack_images(base, 'a', 21).fingerprint,
    derived.take_part(base, ':20').fingerprint,
    derived.take_part(base, '1:20').fingerprint,
  }
  assert len(found) == 5
  again = derived.stack_images(grey(), 'b', 20).fingerprint
  assert again in found


def test_parts_are_told_apart_by_their_records():
  base = grey()
  parts = [
    derived.take_part(base, part) for part in ('0:10', '10:20', '0:11', ':')
  ]
  marks = [part.fingerprint for part in parts] + [base.fingerprint]
  assert len(set(marks)) == 5
  assert derived.take_part(base, ':10').fingerprint == marks[0]


def test_stacked_digits_are_made_of_digits(tmp_path):
  stacks = data.load('stacked_digits', data_dir=str(tmp_path))
  digits = data.load('digits', data_dir=str(tmp_path))
  assert stacks.shape == (8, 8, 3) and stacks.size == derived.STACKS
  rows = derived.stack_records(digits.size, 5)
  for i, row in enumerate(rows):
    wanted = np.concatenate([digits.source[r] for r in row], axis=-1)
    np.testing.assert_array_equal(stacks.source[i], wanted)
  # Each mode is about as frequent as the next: 128 of 128,000.
  counts = np.bincount(stacks.labels(), minlength=1000)
  assert counts.min() > 60 and counts.max() < 220
  feed = data.make_feed(stacks, seed=0, batch_size=4, labelled=True)
  assert feed.resident
  item = feed.chunk(0, 1)[0, 0]
  x, labels = feed.decode(feed.constants, item, jax.random.key(0), 4)
  wanted = [normalise(stacks.source[i]) for i in item]
  np.testing.assert_array_equal(x, np.stack(wanted))
  np.testing.assert_array_equal(feed.constants[1], stacks.labels())
  np.testing.assert_array_equal(labels, stacks.labels()[item])
  with pytest.raises(ArgumentError, match='`channels=1`'):
    data.load('stacked_digits', data_dir=str(tmp_path), channels=1)


def test_a_part_holds_its_records_and_no_other(tmp_path):
  digits = data.load('digits', data_dir=str(tmp_path))
  part = data.load('digits[10:25]', data_dir=str(tmp_path))
  assert part.size == 15 and part.name == 'digits[10:25]'
  np.testing.assert_array_equal(part.array(), digits.array()[10:25])
  np.testing.assert_array_equal(part.labels(), digits.labels()[10:25])
  np.testing.assert_array_equal(part.source[3], digits.source[13])
  assert data.load('digits[train]', data_dir=str(tmp_path)).size == 1797
  last = data.load('digits[train][1790:]', data_dir=str(tmp_path))
  assert last.size == 7 and last.classes == digits.classes
  feed = data.make_feed(part, seed=0, batch_size=5)
  assert feed.size == 15


@pytest.mark.parametrize(
  'name',
  [
    'digits[',
    'digits[]',
    'digits[:10][:5]',
    'digits[:1800]',
    'digits[5:5]',
    'digits[-3:]',
    'digits[:10][train]',
    'digits[nosuch]',
    'ring[:10]',
  ],
)
def test_parts_that_are_not_there_are_refused(name, tmp_path):
  with pytest.raises(ArgumentError) as caught:
    data.load(name, data_dir=str(tmp_path))
  assert name.partition('[')[0] in str(caught.value)


def test_a_folder_may_have_brackets_in_its_name():
  assert derived.parse_name('folder:/a/b[1:2]') == ('folder:/a/b[1:2]', '', '')


def test_what_is_prepared_for_a_set():
  assert data.prepared_as('stacked_mnist[:9]') == 'mnist'
  assert data.prepared_as('stacked_fashion') == 'fashion_mnist'
  assert data.prepared_as('cifar10') == 'cifar10'
  assert set(derived.STACKED) < set(data.DATASETS)


def test_a_stack_whose_base_is_missing_says_how_to_prepare_it(tmp_path):
  with pytest.raises(data.DataError, match="prepare.'mnist'"):
    data.load('stacked_mnist', data_dir=str(tmp_path))


@pytest.mark.data
def test_stacked_mnist(real_root):
  stacks = data.load('stacked_mnist', data_dir=str(real_root))
  assert stacks.shape == (28, 28, 3)
  counts = np.bincount(stacks.labels(), minlength=1000)
  assert (counts > 0).all() and counts.sum() == derived.STACKS
  part = data.load('mnist[:50000]', data_dir=str(real_root))
  assert part.size == 50000
