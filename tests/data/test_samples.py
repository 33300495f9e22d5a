"""Folders of images, their cached arrays, and what they are known by."""

import dataclasses
import os
import struct

import numpy as np
import PIL.Image
import pytest
from helpers.pictures import RANDOM, folder, save

from gan_jax import data
from gan_jax.data import pictures, samples, tfds_sets
from gan_jax.data.feed import normalise
from gan_jax.runtime.errors import ArgumentError


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
  with pytest.raises(ArgumentError, match='`image_size`'):
    folder(tmp_path)
  assert folder(tmp_path, image_size=3).array().shape == (2, 3, 3, 3)


def test_grey_and_colour_ask_for_channels(tmp_path):
  save(tmp_path / 'a.png', RANDOM[:4, :4])
  save(tmp_path / 'b.png', RANDOM[:4, :4, 0])
  save(tmp_path / 'c.png', RANDOM[4:8, :4, 0])
  with pytest.raises(ArgumentError, match='2 grey and 1 colour.*`channels=1`'):
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
  found = folder(tmp_path).array()[:, 0, 0]  # by halves on white
  wanted = [[255, 0, 0], [127, 255, 127], [127, 127, 255]]
  np.testing.assert_array_equal(found, wanted)


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
  with pytest.raises(ArgumentError, match='no such folder'):
    folder(tmp_path / 'nowhere')
  with pytest.raises(ArgumentError, match='folder:PATH'):
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


def test_large_sets_are_known_by_some_blocks_and_times(tmp_path, monkeypatch):
  """Of two files of 40 and 100 bytes, 7 blocks of 5 bytes, 20 apart."""
  files = [tmp_path / 'a', tmp_path / 'b']
  content = [bytearray(range(40)), bytearray(range(100))]

  def mark(time=10**9):
    for path, x in zip(files, content, strict=True):
      path.write_bytes(x)
      os.utime(path, ns=(time, time))
    return samples.hash_files(files)

  whole = mark()
  monkeypatch.setattr(samples, '_HASHED_BYTES', 139)
  monkeypatch.setattr(samples, '_BLOCKS', 7)
  monkeypatch.setattr(samples, '_BLOCK_BYTES', 5)
  first = mark()
  assert first != whole and first == mark()
  assert first.endswith(', of names, sizes, times and 1,024 blocks')
  later = mark(2 * 10**9)
  bare = samples.without_times
  assert later != first and bare(later) == bare(first) != first
  for file, byte, seen in [
    (0, 0, True),
    (0, 4, True),
    (0, 5, False),
    (0, 39, False),
  ] + [(1, 0, True), (1, 19, False), (1, 20, True), (1, 84, True)]:
    content[file][byte] ^= 255
    assert (bare(mark()) != bare(first)) == seen, (file, byte)
    content[file][byte] ^= 255
  content[1].append(0)
  assert bare(mark()) != bare(first)
  # Labels join what is known, and leave the times apart.
  labels = np.arange(3, dtype=np.int32)
  one, two = (samples.join_labels(x, labels) for x in (first, later))
  assert one != two and bare(one) == bare(two) != bare(first)
  assert bare(whole) == whole and len(samples.join_labels(whole, labels)) == 64


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
  return data.SampleSet('set', (2, 2, 3), source, 'mark', path), source


def test_second_array_comes_from_the_cache(tmp_path):
  images, source = cached(tmp_path / 'new')
  first = images.array()
  np.testing.assert_array_equal(first, source.images)
  assert source.reads == 60
  np.testing.assert_array_equal(images.array(), first)
  assert source.reads == 60
  (file,) = (tmp_path / 'new').iterdir()
  assert file.name.startswith('samples-')


def test_some_samples_are_those_records(monkeypatch):
  images, source = cached(None)
  rows = np.array([7, 3, 3])
  np.testing.assert_array_equal(images.take(rows), source.images[rows])
  monkeypatch.setattr(samples, 'RESIDENT_BYTES', 1)
  source.reads = 0
  np.testing.assert_array_equal(images.take(rows), source.images[rows])
  assert source.reads == 3


def test_floats_are_rounded_to_the_bytes_they_came_from():
  every = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(samples.to_uint8(normalise(every)), every)
  np.testing.assert_array_equal(
    samples.to_uint8(np.array([-1.2, 0.001, 1.2])), [0, 128, 255]
  )
  assert samples.to_uint8(every) is every


def test_mean_is_of_all_images_or_of_some_that_lie_evenly(monkeypatch):
  images, source = cached(None)
  expected = source.images.astype(float).mean(axis=0) / 127.5 - 1
  np.testing.assert_allclose(images.mean, expected, atol=1e-6)
  assert images.mean is images.mean and source.reads == 60
  rising = np.repeat(np.arange(250, dtype=np.uint8), 60).reshape(-1, 1, 1, 1)
  many = data.SampleSet('set', (1, 1, 1), Counted(rising), '')
  monkeypatch.setattr(samples, 'RESIDENT_BYTES', 14_999)
  np.testing.assert_allclose(many.mean, [[[124.5 / 127.5 - 1]]], atol=1e-6)
  assert many.source.reads == 7_500


def test_classes_without_a_sample_are_counted_too():
  labels = np.array([0, 2, 0, 1], np.int32)
  images = data.SampleSet(
    'set',
    (2, 2, 3),
    RANDOM[:4, :4, :3].reshape(4, 2, 2, 3),
    'mark',
    classes=('a', 'b', 'c', 'd', 'e'),
    read_labels=lambda: labels,
  )
  assert images.class_counts == (2, 1, 1, 0, 0)


def test_array_without_a_cache_reads_again():
  images, source = cached(None)
  np.testing.assert_array_equal(images.array(), images.array())
  assert source.reads == 120


def test_changed_image_is_not_taken_from_the_cache(tmp_path):
  save(tmp_path / 'a.png', np.zeros((4, 4)))
  assert folder(tmp_path).array().max() == 0
  save(tmp_path / 'a.png', np.full((4, 4), 9))
  assert folder(tmp_path).array().min() == 9


def test_fingerprint_is_of_the_pixels_not_of_their_encoding(
  digits, monkeypatch
):
  # TFDS writes the same records in other bytes from process to process.
  monkeypatch.setattr(tfds_sets, 'hash_files', lambda *how: 'other bytes')
  monkeypatch.setattr(
    tfds_sets, 'remember', lambda cache, files, how, make: make()
  )
  assert data.load('digits').fingerprint == digits.fingerprint
  brighter = data.SampleSet('b', digits.shape, digits.array() + np.uint8(1), '')
  assert samples.hash_samples(brighter) != digits.fingerprint


def test_files_of_a_set_are_hashed_again_only_after_a_change(
  digits_copy, monkeypatch
):
  root, place = digits_copy
  (file,) = place.glob('*-train.*')
  os.utime(file, ns=(10**18, 10**18))
  asked = []
  really = tfds_sets.hash_files

  def hash_files(*how):
    asked.append(how)
    return really(*how)

  monkeypatch.setattr(tfds_sets, 'hash_files', hash_files)
  first = data.load('digits', data_dir=str(root))
  with monkeypatch.context() as patch:
    patch.setattr(data.SampleSet, 'array', None)  # is not read
    again = data.load('digits', data_dir=str(root))
  assert len(asked) == 1
  assert (again.key, again.fingerprint) == (first.key, first.fingerprint)
  content = bytearray(file.read_bytes())
  content[-1] ^= 1
  file.write_bytes(content)  # a moment ago, so that no time tells it
  for count in (2, 3):
    assert data.load('digits', data_dir=str(root)).key != first.key
    assert len(asked) == count
  os.utime(file, ns=(10**18 + 1, 10**18 + 1))
  for _ in range(2):
    assert data.load('digits', data_dir=str(root)).key != first.key
    assert len(asked) == 4


def test_cached_array_belongs_to_the_files_it_was_read_from(digits_copy):
  # By facts of the set alone, an array would outlive a set prepared anew.
  root, place = digits_copy
  images = data.load('digits', data_dir=str(root))
  assert len(list((root / 'gan_jax_arrays').glob('samples-*'))) == 1
  (file,) = place.glob('*-train.*')
  other = samples.hash_files([file], 'digits', 8, 1)
  assert images.key == other != images.fingerprint
  changed = dataclasses.replace(images, key='other files', cache=root / 'new')
  changed.array()
  images = dataclasses.replace(images, cache=root / 'new')
  images.array()
  assert len(list((root / 'new').iterdir())) == 2


def test_set_too_large_to_hash_is_known_by_its_facts(digits, monkeypatch):
  monkeypatch.setattr(tfds_sets, '_HASHED_BYTES', digits.nbytes - 1)
  monkeypatch.setattr(data.SampleSet, 'array', None)  # is not read
  marks = {data.load('digits').fingerprint for _ in range(2)}
  assert len(marks) == 1 and digits.fingerprint not in marks
  assert data.load('digits', channels=3).fingerprint not in marks
  (mark,) = marks
  assert mark.endswith(', of 1,024 of 1,797 records')
  # An image that is one of them was changed in place.
  changed = dataclasses.replace(digits, source=digits.source[0][None] ^ 1)
  assert samples.hash_some(changed, '') != samples.hash_some(
    dataclasses.replace(digits, source=digits.source[0][None]), ''
  )


def test_folder_too_large_to_hash_is_not_cached(tmp_path, monkeypatch):
  monkeypatch.setattr(samples, '_HASHED_BYTES', 0)
  for value in (0, 9):  # a BMP of the same name and size
    save(tmp_path / 'a.bmp', np.full((4, 4), value))
    assert folder(tmp_path).array().max() == value


def test_an_orientation_that_is_no_number_is_none(tmp_path):
  image = PIL.Image.fromarray(np.zeros((4, 6, 3), np.uint8))
  # One entry of a TIFF: tag, type (undefined bytes), how many, what.
  entry = struct.pack('<HHI4s', 0x112, 7, 2, b'\xff\xff')
  tiff = b'II*\0' + struct.pack('<IH', 8, 1) + entry + bytes(4)
  image.save(tmp_path / 'a.png', exif=b'Exif\0\0' + tiff)
  with PIL.Image.open(tmp_path / 'a.png') as saved:
    assert saved.getexif()[0x112] == b'\xff\xff'
  facts = pictures.look_at(tmp_path / 'a.png', 1)
  assert facts.size == (6, 4)


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


def test_image_that_grows_beyond_pillows_bound_is_named(tmp_path, monkeypatch):
  save(tmp_path / 'a.png', RANDOM)
  images = folder(tmp_path)
  monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', 60 * 60 // 2 - 1)
  with pytest.raises(data.DataError, match=r'a\.png: mend'):
    images.source[0]
