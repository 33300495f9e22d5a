"""Image sets and feeds: the same records, in one order, wherever they live."""

import gzip
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from gan_jax import data
from gan_jax.data import DataError, imageset, tfds_sets
from gan_jax.data import feed as feeds

RANDOM = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)


@pytest.fixture(scope='session')
def root(tmp_path_factory):
  """A data root in which `digits` is prepared."""
  path = tmp_path_factory.mktemp('tfds')
  data.load('digits', data_dir=str(path))
  return path


@pytest.fixture
def digits(root, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(root))
  return data.load('digits')


def save(path: pathlib.Path, pixels, mode=None, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = PIL.Image.fromarray(np.asarray(pixels, np.uint8))
  (image.convert(mode) if mode else image).save(path, **options)


def folder(path, **options):
  return data.load(f'folder:{path}', data_dir=str(path / 'root'), **options)


def numbered(size=10, side=2, channels=1):
  """A set whose image n is full of the number n."""
  values = np.arange(size, dtype=np.uint8).reshape(-1, 1, 1, 1)
  shape = (side, side, channels)
  return data.ImageSet('numbered', shape, values * np.ones(shape, np.uint8), '')


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


# Digits, and names


def test_digits_are_those_of_sklearn(digits):
  from sklearn.datasets import load_digits

  images = digits.array()
  assert digits.size == len(images) == 1797 and images.dtype == np.uint8
  assert digits.shape == (8, 8, 1) == images.shape[1:]
  wanted = load_digits().images / 16 * 255
  # TFDS shuffles what it writes.
  ours = sorted(images.reshape(1797, -1).tolist())
  theirs = sorted(np.round(wanted).astype(int).reshape(1797, -1).tolist())
  assert ours == theirs


def test_digits_prepare_once(root, digits, monkeypatch):
  monkeypatch.setattr(tfds_sets, 'prepare', None)
  assert data.load('digits').fingerprint == digits.fingerprint
  with pytest.raises(TypeError):  # None is not callable: elsewhere it would
    data.load('digits', data_dir=str(root / 'elsewhere'))


def test_digits_are_resized_and_coloured(digits):
  other = data.load('digits', image_size=16, channels=3)
  assert other.shape == other.source[3].shape == (16, 16, 3)
  grey = PIL.Image.fromarray(digits.source[3][..., 0]).convert('RGB')
  wanted = grey.resize((16, 16), PIL.Image.Resampling.LANCZOS)
  np.testing.assert_array_equal(other.source[3], wanted)
  assert other.fingerprint != digits.fingerprint


def test_unknown_name_tells_close_ones(root):
  with pytest.raises(data.DataFlagError, match='fashion_mnst.*fashion_mnist'):
    data.load('fashion_mnst', data_dir=str(root))
  with pytest.raises(data.DataFlagError, match='zzzz: unknown.*folder:PATH'):
    data.load('zzzz', data_dir=str(root))


def test_unknown_split_tells_the_splits(root):
  with pytest.raises(data.DataFlagError, match='no split test.*train'):
    data.load('digits', data_dir=str(root), split='test')


@pytest.mark.parametrize('name', ['mnist', 'fashion_mnist', 'cifar10'])
def test_unprepared_set_tells_the_command(name, tmp_path):
  with pytest.raises(data.DataError) as told:
    data.load(name, data_dir=str(tmp_path))
  command = f'python -m gan_jax.prepare --dataset={name} --data_dir={tmp_path}'
  assert command in str(told.value) and '--from' in str(told.value)
  assert told.value.exit_code == 1


def test_data_root_is_the_flag_or_the_environment(monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', '/there')
  assert imageset.data_root('/here') == pathlib.Path('/here')
  assert imageset.data_root('') == pathlib.Path('/there')
  monkeypatch.delenv('TFDS_DATA_DIR')
  home = pathlib.Path.home() / 'tensorflow_datasets'
  assert imageset.data_root('') == home


# Folders


def test_folder_is_sorted_with_subfolders(tmp_path):
  for value, name in enumerate(['a/z.png', 'b.PNG', 'c/d/e.bmp', 'f.png']):
    save(tmp_path / name, np.full((4, 4, 3), value))
  (tmp_path / 'notes.txt').write_text('no image')
  found = folder(tmp_path)
  assert found.shape == (4, 4, 3) and found.size == 4
  np.testing.assert_array_equal(found.array()[:, 0, 0, 0], range(4))


@pytest.mark.parametrize('wide', [True, False])
def test_longer_side_is_cropped_around_the_centre(wide, tmp_path):
  # No resizing: the shorter side is the size already.
  pixels = RANDOM[:8, :13] if wide else RANDOM[:13, :8]
  save(tmp_path / 'a.png', pixels)
  middle = RANDOM[:8, 2:10] if wide else RANDOM[2:10, :8]
  np.testing.assert_array_equal(
    folder(tmp_path, image_size=8).array()[0], middle
  )


@pytest.mark.parametrize(
  'size, height, width', [(8, 16, 40), (8, 41, 16), (8, 4, 6), (7, 29, 31)]
)
def test_shorter_side_is_resized_by_lanczos(size, height, width, tmp_path):
  save(tmp_path / 'a.png', RANDOM[:height, :width])
  scale = size / min(height, width)
  wide, high = round(width * scale), round(height * scale)
  image = PIL.Image.fromarray(RANDOM[:height, :width])
  resized = np.asarray(image.resize((wide, high), PIL.Image.Resampling.LANCZOS))
  top, left = (high - size) // 2, (wide - size) // 2
  wanted = resized[top : top + size, left : left + size]
  found = folder(tmp_path, image_size=size)
  assert found.shape == wanted.shape == (size, size, 3)
  np.testing.assert_array_equal(found.array()[0], wanted)


def test_resizing_keeps_what_is_flat_and_does_not_alias(tmp_path):
  stripes = np.tile([0, 255], (64, 32))
  save(tmp_path / 'flat.png', np.full((64, 64), 77))
  save(tmp_path / 'stripes.png', stripes)
  flat, grey = folder(tmp_path, image_size=8).array()
  assert (flat == 77).all()
  assert (np.abs(np.int32(grey) - 127) <= 8).all()  # nearest: 0 or 255


def test_own_size_when_all_are_one_square(tmp_path):
  for name in 'ab':
    save(tmp_path / f'{name}.png', RANDOM[:5, :5])
  found = folder(tmp_path, image_size=0)
  assert found.shape == (5, 5, 3)
  np.testing.assert_array_equal(found.source[1], RANDOM[:5, :5])


@pytest.mark.parametrize('shapes', [[(4, 4), (5, 5)], [(4, 6), (4, 6)]])
def test_other_sizes_ask_for_image_size(shapes, tmp_path):
  for n, (height, width) in enumerate(shapes):
    save(tmp_path / f'{n}.png', RANDOM[:height, :width])
  with pytest.raises(data.DataFlagError, match='--image_size'):
    folder(tmp_path)
  assert folder(tmp_path, image_size=3).array().shape == (2, 3, 3, 3)


def test_grey_and_colour_ask_for_channels(tmp_path):
  save(tmp_path / 'a.png', RANDOM[:4, :4])
  save(tmp_path / 'b.png', RANDOM[:4, :4, 0])
  save(tmp_path / 'c.png', RANDOM[4:8, :4, 0])
  with pytest.raises(
    data.DataFlagError, match='2 grey and 1 colour.*--channels'
  ):
    folder(tmp_path)
  colour = folder(tmp_path, channels=3).array()
  assert colour.shape == (3, 4, 4, 3)
  np.testing.assert_array_equal(colour[1, ..., 2], RANDOM[:4, :4, 0])
  grey = folder(tmp_path, channels=1).array()
  luma = RANDOM[:4, :4] @ [0.299, 0.587, 0.114]  # ITU-R 601-2
  assert grey.shape == (3, 4, 4, 1)
  np.testing.assert_allclose(grey[0, ..., 0], luma, atol=1)


@pytest.mark.parametrize(
  'mode, channels', [('1', 1), ('L', 1), ('LA', 1), ('RGB', 3), ('RGBA', 3)]
)
def test_channels_follow_the_mode(mode, channels, tmp_path):
  save(tmp_path / 'a.png', RANDOM[:4, :4], mode)
  assert folder(tmp_path).shape == (4, 4, channels)


def test_palette_and_alpha_images_are_colour(tmp_path):
  save(tmp_path / 'a.png', np.full((4, 4, 3), [255, 0, 0]), 'P')
  save(tmp_path / 'b.png', np.full((4, 4, 4), [0, 255, 0, 128]))
  clear = PIL.Image.new('P', (4, 4), 0)
  clear.putpalette([0, 0, 255])
  clear.save(tmp_path / 'c.png', transparency=b'\x80')
  found = folder(tmp_path).array()[:, 0, 0]
  np.testing.assert_array_equal(found, 255 * np.eye(3))


def test_images_of_16_bits_are_scaled_to_8(tmp_path):
  values = np.uint16([[0, 257], [128 * 257, 65535]])
  PIL.Image.fromarray(values).save(tmp_path / 'a.png')
  found = folder(tmp_path).array()[0, ..., 0]
  assert found.tolist() == [[0, 1], [128, 255]]


def test_jpeg_is_read_alike_twice(tmp_path):
  for n in range(3):
    save(tmp_path / f'{n}.jpg', RANDOM[n : n + 20, :20], quality=90)
  found = folder(tmp_path, image_size=8)
  np.testing.assert_array_equal(found.array()[2], found.source[2])


@pytest.mark.parametrize('kind', ['png', 'jpg', 'bmp', 'webp'])
@pytest.mark.parametrize('keep', [0, 10, 0.5])
def test_unreadable_files_are_named(kind, keep, tmp_path):
  save(tmp_path / f'good.{kind}', RANDOM)
  content = (tmp_path / f'good.{kind}').read_bytes()
  keep = keep if keep != 0.5 else len(content) // 2
  (tmp_path / f'bad.{kind}').write_bytes(content[:keep])
  with pytest.raises(data.DataError, match=rf'bad\.{kind}: mend') as told:
    folder(tmp_path)
  assert 'good' not in str(told.value)


def test_many_unreadable_files_are_counted(tmp_path):
  for n in range(8):
    (tmp_path / f'{n}.png').write_text('no picture')
  with pytest.raises(data.DataError, match=r'4\.png and 3 more'):
    folder(tmp_path)


def test_file_damaged_after_the_look_is_named(tmp_path):
  save(tmp_path / 'a.png', RANDOM)
  found = folder(tmp_path)
  (tmp_path / 'a.png').write_bytes(b'')
  with pytest.raises(data.DataError, match=r'a\.png'):
    found.array()


def test_empty_and_missing_folders(tmp_path):
  (tmp_path / 'notes.txt').write_text('no image')
  with pytest.raises(data.DataError, match=r'no image files.*\.png'):
    folder(tmp_path)
  with pytest.raises(data.DataFlagError, match='no such folder'):
    folder(tmp_path / 'nowhere')
  with pytest.raises(data.DataFlagError, match='folder:PATH'):
    data.load('folder:')


def test_folder_fingerprint_follows_content(tmp_path):
  save(tmp_path / 'a.png', np.zeros((4, 4)))
  marks = [folder(tmp_path).fingerprint, folder(tmp_path).fingerprint]
  assert marks[0] == marks[1]
  marks.append(folder(tmp_path, image_size=2).fingerprint)
  marks.append(folder(tmp_path, channels=3).fingerprint)
  content = bytearray((tmp_path / 'a.png').read_bytes())
  save(tmp_path / 'a.png', np.ones((4, 4)))
  marks.append(folder(tmp_path).fingerprint)
  (tmp_path / 'a.png').rename(tmp_path / 'b.png')
  marks.append(folder(tmp_path).fingerprint)
  assert len(set(marks)) == 5
  (tmp_path / 'b.png').unlink()
  (tmp_path / 'a.png').write_bytes(content)
  assert folder(tmp_path).fingerprint == marks[0]


def test_large_sets_are_known_by_names_and_sizes(tmp_path, monkeypatch):
  file = tmp_path / 'a'
  file.write_bytes(b'1234')
  whole = imageset.fingerprint([file])
  monkeypatch.setattr(imageset, '_HASHED_BYTES', 3)
  quick = imageset.fingerprint([file])
  file.write_bytes(b'4321')
  assert quick == imageset.fingerprint([file]) != whole
  file.write_bytes(b'12345')
  assert quick != imageset.fingerprint([file])


# The cache of arrays


class Counted:
  """A source that counts what is read of it."""

  def __init__(self, images):
    self.images, self.reads = images, 0

  def __len__(self):
    return len(self.images)

  def __getitem__(self, index):
    self.reads += 1
    return self.images[index]


def cached(path):
  source = Counted(RANDOM[:, :4, :3].reshape(60, 2, 2, 3))
  return data.ImageSet('set', (2, 2, 3), source, 'mark', path), source


def test_second_array_comes_from_the_cache(tmp_path):
  images, source = cached(tmp_path / 'new')
  first = images.array()
  np.testing.assert_array_equal(first, source.images)
  assert source.reads == 60
  np.testing.assert_array_equal(images.array(), first)
  assert source.reads == 60
  assert [p.name for p in (tmp_path / 'new').iterdir()] == ['mark.npz']


def test_array_without_a_cache_reads_again():
  images, source = cached(None)
  np.testing.assert_array_equal(images.array(), images.array())
  assert source.reads == 120


def _damage(path, how):
  content = bytearray(path.read_bytes())
  if how == 'pixels':
    kept = dict(np.load(path))
    kept['images'][3, 1, 1, 1] ^= 1  # and zip's own checksum is right
    np.savez(path, **kept)
  elif how == 'shape':
    short = np.load(path)['images'][:-1]
    np.savez(path, images=short, digest=imageset._digest(short))
  elif how == 'cut':
    path.write_bytes(content[:-50])
  else:
    content[how] ^= 1
    path.write_bytes(content)


# Bytes in zip's header, in the pixels, and in the digest.
@pytest.mark.parametrize('how', [0, 300, 1000, 'pixels', 'shape', 'cut'])
def test_damaged_cache_is_noticed_and_replaced(how, tmp_path):
  images, source = cached(tmp_path)
  images.array()
  _damage(tmp_path / 'mark.npz', how)
  np.testing.assert_array_equal(images.array(), source.images)
  if how != 0:
    assert source.reads == 120
  np.testing.assert_array_equal(images.array(), source.images)
  assert source.reads == 120


def test_any_flipped_byte_gives_the_same_array(tmp_path):
  images, source = cached(tmp_path)
  images.array()
  path = tmp_path / 'mark.npz'
  content = path.read_bytes()
  for place in range(0, len(content), 29):
    damaged = bytearray(content)
    damaged[place] ^= 16
    path.write_bytes(damaged)
    np.testing.assert_array_equal(images.array(), source.images, str(place))


def test_unwritable_cache_is_no_fault(tmp_path):
  (tmp_path / 'file').write_text('in the way')
  images, source = cached(tmp_path / 'file' / 'below')
  np.testing.assert_array_equal(images.array(), source.images)


def test_changed_image_is_not_taken_from_the_cache(tmp_path):
  save(tmp_path / 'a.png', np.zeros((4, 4)))
  assert folder(tmp_path).array().max() == 0
  save(tmp_path / 'a.png', np.full((4, 4), 9))
  assert folder(tmp_path).array().min() == 9


# Feeds


def make(images=None, **options):
  given = {'seed': 3, 'batch_size': 4, 'residence': 'device'}
  return data.make_feed(images or numbered(), **{**given, **options})


both = pytest.mark.parametrize('residence', ['device', 'stream'])


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


def test_stream_goes_on_where_it_ended(monkeypatch):
  feed = make(residence='stream')
  begun = []

  def begin(start, rows):
    begun.append(start)
    return feeds.StreamedFeed._read_from(feed, start, rows)

  monkeypatch.setattr(feed, '_read_from', begin)
  for start, count in [(0, 2), (2, 1), (3, 4), (9, 1), (10, 1)]:
    feed.chunk(start, count)
  assert begun == [0, 9]


def test_seed_decides_the_order():
  images = numbered(200)
  first, again, other = [
    records(make(images, seed=seed, batch_size=200), 0, 1) for seed in (0, 0, 1)
  ]
  np.testing.assert_array_equal(first, again)
  assert (first == other).mean() < 0.1
  assert (first.ravel() == np.arange(200)).mean() < 0.1


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
    data.ImageSet('all', (16, 16, 1), images, ''),
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
  images = data.ImageSet('set', (3, 3, 2), pixels, '')
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
  with pytest.raises(data.DataError, match='--batch_size=11: .* 10 images'):
    make(batch_size=11)
  make(batch_size=10)


@pytest.mark.parametrize(
  'flag, options',
  [('--flip', {'flip': True}), ('--residence=stream', {'residence': 'stream'})],
)
def test_image_flags_are_refused_for_a_density(flag, options):
  with pytest.raises(data.DataError, match=f'{flag}: .*ring'):
    make(data.load('ring'), **options)


def test_auto_streams_what_is_too_large(monkeypatch):
  images = numbered(10, side=2)
  monkeypatch.setattr(feeds, 'RESIDENT_BYTES', 40)
  assert images.nbytes == 40 and make(images, residence='auto').resident
  monkeypatch.setattr(feeds, 'RESIDENT_BYTES', 39)
  assert not make(images, residence='auto').resident
  assert make(images, residence='device').resident


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


# Identity, and what can be wrong with what is there


def test_fingerprint_is_of_the_pixels_not_of_their_encoding(
  digits, monkeypatch
):
  # TFDS writes the same records in other bytes from process to process.
  monkeypatch.setattr(tfds_sets, 'fingerprint', lambda *how: 'other bytes')
  assert data.load('digits').fingerprint == digits.fingerprint
  brighter = data.ImageSet('b', digits.shape, digits.array() + np.uint8(1), '')
  assert imageset.content(brighter) != digits.fingerprint


def test_cached_array_is_named_by_the_files_it_was_read_from(copied):
  # By facts of the set alone, an array would outlive a set prepared anew.
  root, place = copied
  images = data.load('digits', data_dir=str(root))
  (kept,) = (root / 'gan_jax_arrays').iterdir()
  whole = imageset.fingerprint(list(place.glob('*-train.*')), 'digits', 8, 1)
  assert kept.name == f'{whole}.npz' and whole != images.fingerprint


def test_set_too_large_to_hash_is_known_by_its_facts(digits, monkeypatch):
  monkeypatch.setattr(tfds_sets, '_HASHED_BYTES', digits.nbytes - 1)
  monkeypatch.setattr(data.ImageSet, 'array', None)  # is not read
  marks = {data.load('digits').fingerprint for _ in range(2)}
  assert len(marks) == 1 and digits.fingerprint not in marks
  assert data.load('digits', channels=3).fingerprint not in marks


def test_folder_too_large_to_hash_is_not_cached(tmp_path, monkeypatch):
  monkeypatch.setattr(imageset, '_HASHED_BYTES', 0)
  for value in (0, 9):  # a BMP of the same name and size
    save(tmp_path / 'a.bmp', np.full((4, 4), value))
    assert folder(tmp_path).array().max() == value


def test_camera_images_are_turned_upright(tmp_path):
  image = PIL.Image.fromarray(RANDOM[:8, :8])
  exif = image.getexif()
  exif[0x112] = 6  # to be turned clockwise by 90 degrees
  image.save(tmp_path / 'a.png', exif=exif)
  upright = np.rot90(RANDOM[:8, :8], -1)
  np.testing.assert_array_equal(folder(tmp_path).array()[0], upright)


@pytest.mark.parametrize('name', ['._a.png', '.thumbs/a.png', '__MACOSX/a.png'])
def test_hidden_files_and_folders_are_left_out(name, tmp_path):
  save(tmp_path / '.hidden' / 'set' / 'a.png', RANDOM[:4, :4])
  shown = tmp_path / '.hidden' / 'set'  # what leads to the set may be hidden
  (shown / name).parent.mkdir(exist_ok=True)
  (shown / name).write_bytes(b'no image')
  (shown / 'folder.png').mkdir()
  assert folder(shown).size == 1


def test_absurdly_large_image_is_named(tmp_path, monkeypatch):
  save(tmp_path / 'a.png', RANDOM)
  monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', 60 * 60 // 2 - 1)
  with pytest.raises(data.DataError, match=r'a\.png: mend'):
    folder(tmp_path)


@pytest.mark.parametrize(
  'option, value', [('channels', 2), ('channels', -1), ('image_size', -8)]
)
def test_impossible_options_are_refused(option, value, tmp_path):
  save(tmp_path / 'a.png', RANDOM)
  with pytest.raises(data.DataFlagError, match=f'--{option}={value}'):
    folder(tmp_path, **{option: value})


@pytest.mark.parametrize(
  'option, value', [('residence', 'devcie'), ('batch_size', 0)]
)
def test_impossible_feeds_are_refused(option, value):
  for dataset in (numbered(), data.load('ring')):
    with pytest.raises(data.DataFlagError, match=f'--{option}={value}: use'):
      data.make_feed(dataset, **{'seed': 0, 'batch_size': 2, **{option: value}})


@pytest.fixture
def copied(root, tmp_path):
  """A copy of the prepared digits: data root, and folder of the set."""
  shutil.copytree(root / 'digits', tmp_path / 'digits')
  return tmp_path, tmp_path / 'digits' / '1.0.0'


def _rewrite_info(place, **facts):
  path = place / 'dataset_info.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_set_of_a_format_without_random_access_tells_another_folder(copied):
  root, place = copied
  _rewrite_info(place, fileFormat='tfrecord')
  for use in (
    lambda: data.load('digits', data_dir=str(root)),
    lambda: tfds_sets.prepare('digits', root),
  ):
    with pytest.raises(data.DataError, match='as tfrecord.*(?s:.)*--data_dir'):
      use()


def _shard(place):
  (path,) = place.glob('*array_record*')
  return path


def _cut_shard(place):
  content = _shard(place).read_bytes()
  _shard(place).write_bytes(content[: len(content) // 2])


def _flip_records(place):
  content = bytearray(_shard(place).read_bytes())
  for i in range(1000, len(content), 1000):
    content[i] ^= 255
  _shard(place).write_bytes(content)


@pytest.mark.parametrize(
  'damage',
  [
    lambda place: (place / 'dataset_info.json').write_text('{"name": '),
    lambda place: _shard(place).unlink(),
    _cut_shard,
    _flip_records,
  ],
  ids=['description', 'missing', 'cut', 'flipped'],
)
def test_damaged_set_is_named(damage, copied):
  root, place = copied
  damage(place)
  with pytest.raises(data.DataError, match='digits.*is damaged.*again') as told:
    data.load('digits', data_dir=str(root)).array()
  assert told.value.exit_code == 1


def test_set_of_the_users_own_is_read_from_the_data_root(copied):
  root, place = copied
  own = root / 'mydigits' / '1.0.0'
  own.parent.mkdir()
  place.rename(own)
  _rewrite_info(own, name='mydigits')
  for path in own.glob('digits-*'):
    path.rename(own / f'my{path.name}')
  assert data.load('mydigits', data_dir=str(root)).size == 1797


def test_unknown_configuration_is_told(tmp_path):
  with pytest.raises(data.DataFlagError, match='--dataset=celeb_a_hq/65: '):
    data.load('celeb_a_hq/65', data_dir=str(tmp_path))


# Labels: each image keeps its own, wherever it goes.


def labelled_pictures(folder, classes=('cat', 'dog', 'eel')):
  """Images whose grey level tells their class, in a folder a class."""
  for i, name in enumerate(classes):
    (folder / name).mkdir(parents=True)
    for j in range(4):
      level = 60 * i + j
      PIL.Image.new('L', (8, 8), level).save(folder / name / f'{j}.png')
  return data.load(f'folder:{folder}')


def pairs(feed, start, count, rows=slice(None)):
  """(grey level, class) of each image of some steps."""
  chunk = feed.chunk(start, count, rows)
  found = []
  for i in range(count):
    for batch in range(jax.tree.leaves(chunk)[0].shape[1]):
      item = jax.tree.map(lambda x, i=i, b=batch: x[i, b], chunk)
      x, y = feed.decode(feed.constants, item, jax.random.key(0), 4)
      level = np.rint((np.asarray(x)[:, 0, 0, 0] + 1) * 127.5).astype(int)
      assert y.dtype == np.int32
      found += list(zip(level.tolist(), np.asarray(y).tolist(), strict=True))
  return found


def test_digits_labels_are_those_of_sklearn(digits):
  from sklearn.datasets import load_digits

  found = load_digits()
  originals = np.round(found.images * (255 / 16)).astype(np.uint8)
  known = {x.tobytes(): y for x, y in zip(originals, found.target, strict=True)}
  assert digits.classes == tuple('0123456789')
  for _ in range(2):  # read, and kept
    said = digits.labels()
    assert said.dtype == np.int32
    assert [known[x.tobytes()] for x in digits.array()] == said.tolist()


@both
def test_each_image_keeps_its_label(residence, tmp_path):
  images = labelled_pictures(tmp_path / 'pets')
  assert images.classes == ('cat', 'dog', 'eel')
  feed = make(images, residence=residence, labelled=True, batches_per_step=2)
  found = pairs(feed, 0, 3) + pairs(feed, 7, 2)
  assert len(found) == 4 * 2 * 5
  assert all(level // 60 == label for level, label in found)
  assert len({label for _, label in found}) == 3
  halves = [pairs(feed, 1, 1, rows) for rows in (slice(0, 2), slice(2, 4))]
  assert sorted(halves[0] + halves[1]) == sorted(pairs(feed, 1, 1))


def test_labels_leave_the_order_alone_and_join_the_fingerprint(tmp_path):
  images = labelled_pictures(tmp_path / 'pets')
  plain, feed = make(images), make(images, labelled=True)
  np.testing.assert_array_equal(plain.chunk(0, 5), feed.chunk(0, 5))
  assert plain.fingerprint == images.fingerprint != feed.fingerprint


def test_folder_without_a_folder_a_class_has_none(tmp_path):
  labelled_pictures(tmp_path / 'pets')
  PIL.Image.new('L', (8, 8)).save(tmp_path / 'pets' / 'stray.png')
  images = data.load(f'folder:{tmp_path / "pets"}')
  assert images.classes == () and images.read_labels is None
  with pytest.raises(
    DataError, match='has no classes; use --conditioning=none'
  ):
    make(images, labelled=True)
  assert data.load('ring').classes == ()


@pytest.mark.data
@pytest.mark.parametrize('name', ['mnist', 'fashion_mnist'])
def test_labels_are_the_originals(name, real_data, tmp_path):
  folder = real_data / name
  tfds_sets.prepare(name, tmp_path, str(folder))
  images = data.load(name, data_dir=str(tmp_path))
  with gzip.open(folder / 'train-labels-idx1-ubyte.gz') as file:
    expected = np.frombuffer(file.read(), np.uint8, offset=8)
  with gzip.open(folder / 'train-images-idx3-ubyte.gz') as file:
    pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
  known = {x.tobytes(): y for x, y in zip(pixels, expected, strict=True)}
  right = [
    known[x.tobytes()] == y
    for x, y in zip(images.array(), images.labels(), strict=True)
  ]
  assert np.mean(right) > 0.9999  # one picture twice, under two classes
  assert len(images.classes) == 10
