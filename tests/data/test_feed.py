"""Feeds: the same records, in one order, wherever they live."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.alone import Here
from helpers.pictures import RANDOM, both, folder, make, numbered, save

from gan_jax import data
from gan_jax.data import decoding, samples, tfds_sets
from gan_jax.data import feed as feeds
from gan_jax.data import rows as prepared_rows
from gan_jax.runtime import backend
from gan_jax.runtime.errors import ArgumentError


def batches(feed, start, count, rows=slice(None)):
  """What D is shown, (count, batches, rows, ...)."""
  chunk = feed.chunk(start, count, rows)
  decode = jax.jit(feed.decode, static_argnums=3)

  def shown(item):
    return np.asarray(decode(feed.constants, item, jax.random.key(0), 0))

  return np.array([[shown(item) for item in step] for step in chunk])


def records(feed, start, count, rows=slice(None)):
  """Numbers of the records of a `numbered` set, (count, batches, rows)."""
  shown = batches(feed, start, count, rows)[..., 0, 0, 0]
  return np.rint((shown + 1) * 127.5).astype(int)


@pytest.mark.parametrize('d_steps', [1, 3])
def test_streamed_equals_resident(d_steps, digits):
  resident, streamed = [
    make(digits, residence=kind, batches_per_step=d_steps, batch_size=7)
    for kind in ('device', 'stream')
  ]
  assert resident.resident and not streamed.resident
  # In turn, again, ahead, back, and over the end of an epoch.
  for start, count in [(0, 2), (2, 3), (2, 3), (9, 1), (1, 2), (254, 4)]:
    one, other = [batches(f, start, count) for f in (resident, streamed)]
    assert one.shape == (count, d_steps, 7, 8, 8, 1)
    assert one.dtype == other.dtype == np.float32
    np.testing.assert_array_equal(one, other)


@both
@pytest.mark.parametrize('size, batch, d_steps', [(10, 4, 3), (7, 7, 1)])
def test_epochs_show_each_record_once(residence, size, batch, d_steps):
  images = numbered(size)
  feed = make(
    images, residence=residence, batch_size=batch, batches_per_step=d_steps
  )
  shown = records(feed, 0, size).ravel()  # whole epochs, batch * d_steps
  epochs = shown.reshape(-1, size)
  np.testing.assert_array_equal(
    np.sort(epochs), np.tile(np.arange(size), (batch * d_steps, 1))
  )
  assert len(np.unique(epochs, axis=0)) > 0.7 * len(epochs)  # new orders


@both
def test_rows_of_processes_make_up_the_batch(residence):
  whole = records(make(residence=residence, batches_per_step=2), 1, 5)
  halves = [slice(0, 2), slice(2, 4)]
  parts = [
    records(make(residence=residence, batches_per_step=2), 1, 5, rows)
    for rows in halves
  ]
  np.testing.assert_array_equal(np.concatenate(parts, axis=2), whole)
  feed = make(residence=residence, batches_per_step=2)
  for start in (1, 2, 3):  # and of one feed that is asked for both
    for part, rows in zip(parts, halves, strict=True):
      found = records(feed, start, 1, rows)
      np.testing.assert_array_equal(found, part[start - 1 : start])


@both
def test_any_partition_of_the_steps_is_the_same(residence):
  whole = records(make(residence=residence), 0, 9)
  feed = make(residence=residence)
  parts = [records(feed, n, count) for n, count in ((0, 1), (1, 5), (6, 3))]
  np.testing.assert_array_equal(np.concatenate(parts), whole)


class OneByOne:
  """A source that gives one sample at a time."""

  def __init__(self, values):
    self._values = values

  def __len__(self):
    return len(self._values)

  def __getitem__(self, i):
    return self._values[i]


def one_by_one(images):
  return dataclasses.replace(images, source=OneByOne(images.source))


def test_stream_goes_on_where_it_ended(monkeypatch):
  feed = make(one_by_one(numbered()), residence='stream')
  begun = []

  def begin(start, rows):
    begun.append(start)
    return feeds.StreamedFeed._read_from(feed, start, rows)

  monkeypatch.setattr(feed, '_read_from', begin)
  for start, count in [(0, 2), (2, 1), (3, 4), (9, 1), (10, 1)]:
    feed.chunk(start, count)
  assert begun == [0, 9]


@pytest.mark.parametrize('change', [lambda images: images, one_by_one])
def test_what_was_read_and_not_passed_is_not_read_again(change, monkeypatch):
  whole = make(residence='stream').chunk(0, 12)
  images = change(numbered())
  feed = make(images, residence='stream')
  first = feed.chunk(0, 5)
  read, gather = [], feed._gather
  if gather:

    def count_them(picked, out):
      read.append(len(picked) // 4)
      gather(picked, out)

    monkeypatch.setattr(feed, '_gather', count_them)
  # Some of them, all of them, more than there are, others, and back.
  for start, count in ((2, 2), (2, 2), (3, 4), (9, 2), (1, 3)):
    found = feed.chunk(start, count, room=6)
    np.testing.assert_array_equal(found[:count], whole[start : start + count])
    assert found.shape[0] == 6 and not found[count:].any()
  np.testing.assert_array_equal(first, whole[:5])  # is not written over
  assert read == ([3, 2, 3] if gather else [])


def test_seed_decides_the_order():
  images = numbered(200)
  first, again, other = [
    records(make(images, seed=seed, batch_size=200), 0, 1) for seed in (0, 0, 1)
  ]
  np.testing.assert_array_equal(first, again)
  assert (first == other).mean() < 0.1
  assert (first.ravel() == np.arange(200)).mean() < 0.1


@both
def test_a_reseeded_feed_reads_on_its_own(residence):
  """Where the first one is just then, in the order of the other seed."""
  feed = make(seed=0, residence=residence)
  first = records(feed, 0, 2)
  other = feed.reseeded(1)
  again = records(make(seed=1, residence=residence), 2, 2)
  np.testing.assert_array_equal(records(other, 2, 2), again)
  whole = records(make(seed=0, residence=residence), 0, 4)
  np.testing.assert_array_equal(first, whole[:2])
  np.testing.assert_array_equal(records(feed, 2, 2), whole[2:])
  assert (again != whole[2:]).any()


def test_order_is_numpys_permutation_of_philox():
  for seed, epoch, size in ((0, 0, 1), (3, 5, 1000), (2, 9, 70_000)):
    stream = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    found = feeds.permutation(seed, epoch, size)
    np.testing.assert_array_equal(found, stream.permutation(size))
    assert found.dtype == np.int32


def test_order_is_frozen():
  # Golden: a change makes every checkpoint resume elsewhere in the data.
  found = feeds.permutation(0, 0, 8).tolist()
  assert found == [5, 0, 6, 1, 7, 2, 4, 3]
  with pytest.raises(ValueError, match='read-only'):
    feeds.permutation(0, 0, 8)[0] = 1


def test_position_far_away_does_not_overflow():
  size, batch = 10, 4
  step = 2**40
  for residence in ('device', 'stream'):
    feed = make(residence=residence)
    epoch, place = divmod(step * batch, size)
    order = np.concatenate(
      [feeds.permutation(3, epoch + n, size) for n in range(2)]
    )
    found = records(feed, step, 1).ravel()
    np.testing.assert_array_equal(found, order[place : place + batch])


@both
def test_decode_scales_exactly_and_under_jit(residence):
  images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  feed = make(
    data.SampleSet('all', (16, 16, 1), images, ''),
    batch_size=1,
    residence=residence,
  )
  item = feed.chunk(0, 1)[0, 0]
  decode = jax.jit(feed.decode, static_argnums=3)
  x = decode(feed.constants, item, jax.random.key(0), 1)
  assert x.dtype == jnp.float32 and x.shape == (1, 16, 16, 1)
  assert x[0, 0, 0, 0] == -1 and x[0, 15, 15, 0] == 1
  np.testing.assert_allclose(x.ravel(), np.arange(256) / 127.5 - 1, atol=1e-6)
  assert (np.rint((np.asarray(x) + 1) * 127.5) == images).all()


@both
def test_decode_compiles_once(residence):
  feed = make(residence=residence)
  count = 0

  def counted(constants, item, key):
    nonlocal count
    count += 1
    return feed.decode(constants, item, key, 4)

  decode = jax.jit(counted)
  for step in feed.chunk(0, 5):
    decode(feed.constants, step[0], jax.random.key(0))
  assert count == 1


@both
def test_flip_turns_half_and_only_left_to_right(residence):
  pixels = np.random.default_rng(2).integers(0, 256, (400, 3, 3, 2), np.uint8)
  images = data.SampleSet('set', (3, 3, 2), pixels, '')
  plain, flip = [
    make(images, batch_size=400, residence=residence, flip=on)
    for on in (False, True)
  ]
  one, other = batches(plain, 0, 1)[0, 0], batches(flip, 0, 1)[0, 0]
  kept = (one == other).all((1, 2, 3))
  turned = (one[:, :, ::-1] == other).all((1, 2, 3))
  assert (kept ^ turned).all()
  assert abs(turned.mean() - 0.5) < 5 * 0.5 / 20
  again = jax.jit(flip.decode, static_argnums=3)(
    flip.constants, flip.chunk(0, 1)[0, 0], jax.random.key(1), 0
  )
  assert (np.asarray(again) != other).any()


def test_batch_larger_than_the_set_is_refused():
  with pytest.raises(ArgumentError, match='`batch_size=11`: .* 10 samples'):
    make(batch_size=11)
  make(batch_size=10)


def test_auto_streams_what_is_too_large(monkeypatch):
  images = numbered(10, side=2)
  monkeypatch.setattr(backend, 'free_bytes', lambda: 120)
  assert images.nbytes == 40 and make(images, residence='auto').resident
  monkeypatch.setattr(backend, 'free_bytes', lambda: 119)
  assert not make(images, residence='auto').resident
  assert make(images, residence='device').resident
  monkeypatch.setattr(backend, 'free_bytes', lambda: None)
  assert make(images, residence='auto').resident
  monkeypatch.setattr(samples, 'RESIDENT_BYTES', 39)
  assert not make(images, residence='auto').resident


@both
def test_position_counts_images_and_epochs(residence):
  feed = make(residence=residence, batches_per_step=3)
  assert feed.position(0) == {'images': 0, 'epoch': 0}
  assert feed.position(5) == {'images': 60, 'epoch': 6}
  assert feed.size == 10 and isinstance(feed, data.Feed)


def test_feed_hands_on_the_fingerprint(digits):
  ring = data.load('ring')
  assert make(digits).fingerprint == digits.fingerprint
  assert make(ring).fingerprint == ring.fingerprint


def test_density_feed_draws_on_the_device():
  ring = data.load('ring')
  feed = make(ring, batches_per_step=3)
  assert feed.chunk(0, 5) == () and feed.size is None and feed.resident
  assert feed.position(5) == {'images': 60}
  x = feed.decode((), (), jax.random.key(7), 4)
  np.testing.assert_array_equal(x, ring.sample(jax.random.key(7), 4))


def test_error_in_a_reading_thread_arrives(tmp_path):
  for n in range(4):
    save(tmp_path / f'{n}.png', RANDOM)
  feed = make(folder(tmp_path), residence='stream')
  (tmp_path / '2.png').write_bytes(b'')
  with pytest.raises(data.DataError, match=r'2\.png'):
    feed.chunk(0, 1)


@pytest.mark.parametrize(
  'option, value', [('residence', 'devcie'), ('batch_size', 0)]
)
def test_impossible_feeds_are_refused(option, value):
  for dataset in (numbered(), data.load('ring')):
    with pytest.raises(ArgumentError, match=f'`{option}={value}`: use'):
      data.make_feed(dataset, **{'seed': 0, 'batch_size': 2, **{option: value}})


def test_memory_is_used_again_once_nobody_holds_it():
  memory = prepared_rows.Memory()
  first = memory.take((4, 100), np.uint8, 4)
  first[:] = 7
  place, view = first.ctypes.data, first[1:].reshape(-1)
  assert place % 64 == 0
  del first
  other = memory.take((4, 100), np.uint8, 1)
  assert other.ctypes.data != place and (view == 7).all()
  del view
  on_device = jax.device_put(memory.take((4, 100), np.uint8, 2))
  again = memory.take((4, 100), np.uint8, 1)
  again[:] = 1
  assert not np.asarray(on_device)[2:].any() and not other[1:].any()
  places = {x.unsafe_buffer_pointer() for x in [on_device]}
  assert again.ctypes.data not in places
  del again, on_device, other
  assert not memory.take((4, 100), np.uint8, 0).any()


@pytest.mark.parametrize(
  'here, name',
  [
    (True, 'digits'),
    (True, 'digits[100:200]'),
    pytest.param(False, 'digits', marks=pytest.mark.slow),
  ],
)
def test_records_of_tfds_are_decoded_by_processes(
  here, name, digits, digits_root, monkeypatch
):
  monkeypatch.setattr(tfds_sets, '_MANY_BYTES', 0)
  if here:
    monkeypatch.setattr(decoding, 'Workers', Here)
  Here.calls.clear()
  images = data.load(name, data_dir=str(digits_root), image_size=4)
  resident, streamed = (
    make(images, residence=kind, batch_size=40, labelled=True)
    for kind in ('device', 'stream')
  )
  for start, count in ((0, 2), (1, 3), (7, 1)):
    items, (x, y) = resident.chunk(start, count), streamed.chunk(start, count)
    rows, labels = resident.constants
    np.testing.assert_array_equal(x.reshape(*y.shape, -1), rows[items])
    np.testing.assert_array_equal(y, labels[items])
  assert bool(Here.calls) == here


def test_damaged_records_of_tfds_are_told_by_processes(
  digits_root, tmp_path, monkeypatch
):
  monkeypatch.setattr(tfds_sets, '_MANY_BYTES', 0)
  monkeypatch.setattr(decoding, 'Workers', Here)
  shutil.copytree(digits_root, tmp_path / 'root')
  images = data.load('digits', data_dir=str(tmp_path / 'root'))
  feed = make(images, residence='stream', batch_size=40)
  (file,) = (tmp_path / 'root').rglob('*-train.array_record*')
  content = bytearray(file.read_bytes())
  for place in range(4096, len(content), 64):
    content[place] ^= 1
  file.write_bytes(content)
  tfds_sets._images_there.cache_clear()
  with pytest.raises(
    data.DataError, match='is damaged .*prepare the set again'
  ):
    feed.chunk(0, 3)
  tfds_sets._images_there.cache_clear()
