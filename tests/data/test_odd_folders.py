"""Odd images and odd folders: read right, named and refused, or said."""

import io
import os
import re
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from helpers import commands
from helpers.pictures import RANDOM, folder, save

from gan_jax import data
from gan_jax.data import pictures, take_inventory
from gan_jax.runtime.errors import ArgumentError

SIDE = 4
GREY = RANDOM[:SIDE, :SIDE, 0]
COLOUR = RANDOM[:SIDE, :SIDE]
ONE = np.ones((SIDE, SIDE), np.uint8)


def encode(pixels, kind, mode=None, **options):
  image = PIL.Image.fromarray(np.asarray(pixels))
  buffer = io.BytesIO()
  (image.convert(mode) if mode else image).save(buffer, kind, **options)
  return buffer.getvalue()


def palette(index, transparency):
  image = PIL.Image.new('P', (SIDE, SIDE), index)
  image.putpalette([0, 0, 255, 200, 100, 0])
  buffer = io.BytesIO()
  image.save(buffer, 'PNG', transparency=transparency)
  return buffer.getvalue()


def full(*value):
  return np.full((SIDE, SIDE, len(value)), value, np.uint8)


def pgm(top, values):
  header = f'P5 {SIDE} {SIDE} {top}\n'.encode()
  return header + np.asarray(values, '>u2').tobytes()


# What is written, under which suffix, and the pixels that are read.
READ = {
  'grey': ('png', encode(GREY, 'PNG'), GREY),
  'colour': ('png', encode(COLOUR, 'PNG'), COLOUR),
  'bmp': ('bmp', encode(COLOUR, 'BMP'), COLOUR),
  'webp': ('webp', encode(COLOUR, 'WEBP', lossless=True), COLOUR),
  'tga': ('tga', encode(COLOUR, 'TGA'), COLOUR),
  'tiff': ('tif', encode(COLOUR, 'TIFF'), COLOUR),
  'tiff_grey': ('tiff', encode(GREY, 'TIFF'), GREY),
  'ppm': ('ppm', encode(COLOUR, 'PPM'), COLOUR),
  'pgm': ('pgm', encode(GREY, 'PPM'), GREY),
  'gif': ('gif', encode(full(200, 100, 0), 'GIF'), full(200, 100, 0)),
  'capitals': ('PNG', encode(GREY, 'PNG'), GREY),
  'other_suffix': ('jpg', encode(COLOUR, 'PNG'), COLOUR),
  'one_bit': ('png', encode(ONE * 255, 'PNG', '1'), ONE * 255),
  'grey_jpeg': ('jpeg', encode(ONE * 128, 'JPEG'), ONE * 128),
  'cmyk': (
    'jpg',
    encode(full(255, 255, 255), 'JPEG', 'CMYK'),
    full(*[255] * 3),
  ),
  '16_bits': ('png', encode(np.uint16(ONE) * 257 * 9, 'PNG'), ONE * 9),
  '16_bits_tiff': ('tif', encode(np.uint16(ONE) * 257 * 9, 'TIFF'), ONE * 9),
  '16_bits_top': ('png', encode(np.uint16(ONE) * 65535, 'PNG'), ONE * 255),
  '16_bits_pgm': ('pgm', pgm(65535, np.uint16(ONE) * 257 * 7), ONE * 7),
  '12_bits_pgm': ('pgm', pgm(4095, np.uint16(ONE) * 4095), ONE * 255),
  # What is transparent is white, however it is said.
  'clear': ('png', encode(full(9, 9, 9, 0), 'PNG'), full(255, 255, 255)),
  'opaque': ('png', encode(full(1, 2, 3, 255), 'PNG'), full(1, 2, 3)),
  'half': ('png', encode(full(0, 0, 0, 51), 'PNG'), full(204, 204, 204)),
  'clear_grey': ('png', encode(full(9, 0), 'PNG'), ONE * 255),
  'clear_webp': (
    'webp',
    encode(full(9, 9, 9, 0), 'WEBP', lossless=True, exact=True),
    full(255, 255, 255),
  ),
  'clear_index': ('png', palette(1, 1), full(255, 255, 255)),
  'other_index': ('png', palette(1, 0), full(200, 100, 0)),
  'index_alpha': ('png', palette(1, b'\xff\x00'), full(255, 255, 255)),
  'clear_colour': (
    'png',
    encode(full(1, 2, 3), 'PNG', transparency=(1, 2, 3)),
    full(255, 255, 255),
  ),
  'clear_value': ('png', encode(ONE * 7, 'PNG', transparency=7), ONE * 255),
  'clear_16_bits': (
    'png',
    encode(np.uint16(ONE) * 300, 'PNG', transparency=300),
    ONE * 255,
  ),
}


@pytest.mark.parametrize('name', READ)
def test_is_read_as_it_looks(name, tmp_path):
  suffix, content, pixels = READ[name]
  (tmp_path / f'a b\u00e9.{suffix}').write_bytes(content)
  images = folder(tmp_path)
  wanted = pixels.reshape(1, SIDE, SIDE, -1)
  assert images.shape == wanted.shape[1:]
  np.testing.assert_array_equal(images.array(), wanted)


# The same files with their opacity kept; what is wholly clear is white.
CLEAR = full(255, 255, 255, 0)
KEPT = dict.fromkeys((n for n in READ if n.startswith('clear')), CLEAR)
KEPT['index_alpha'] = CLEAR
KEPT['half'], KEPT['opaque'] = full(0, 0, 0, 51), full(1, 2, 3, 255)


@pytest.mark.parametrize('name', KEPT)
def test_four_channels_keep_what_is_transparent(name, tmp_path):
  suffix, content, _ = READ[name]
  (tmp_path / f'a.{suffix}').write_bytes(content)
  save(tmp_path / 'b.png', GREY)  # which is opaque
  images = folder(tmp_path, channels=4)
  assert images.shape == (SIDE, SIDE, 4)
  np.testing.assert_array_equal(images.array()[0], KEPT[name])
  grey = np.repeat(GREY[..., None], 3, 2)
  np.testing.assert_array_equal(images.array()[1, ..., :3], grey)
  assert (images.array()[1, ..., 3] == 255).all()
  assert 'read as: 1 with transparency, kept' in '\n'.join(images.notes)
  assert images.fingerprint != folder(tmp_path, channels=3).fingerprint


def test_a_hidden_colour_does_not_bleed_when_it_is_resized(tmp_path):
  pixels = np.full((16, 16, 4), [255, 0, 0, 0], np.uint8)  # a hidden red
  pixels[:, :8] = [0, 0, 200, 255]
  save(tmp_path / 'a.png', pixels)
  found = folder(tmp_path, channels=4, image_size=4).array()[0]
  shown = found[..., 3] > 0
  assert shown.sum() >= 8 and not shown.all()
  red, green, blue = found[shown][:, :3].T.astype(int)
  assert not red.any() and not green.any()
  assert (abs(blue - 200) < 10).all()  # a byte, over its opacity
  assert (found[~shown] == [255, 255, 255, 0]).all()


def test_four_channels_of_opaque_images_are_refused(tmp_path):
  save(tmp_path / 'a.png', COLOUR)
  with pytest.raises(ArgumentError, match='`channels=4`: no image of .*leave'):
    folder(tmp_path, channels=4)
  for name in ('digits', 'stacked_digits'):
    with pytest.raises(ArgumentError, match='`channels=4`: .*leave it out'):
      data.load(name, channels=4, data_dir=str(tmp_path))


def huge(side):
  """A PNG that says in its header that it is huge, and is not there."""

  def chunk(kind, content):
    mark = zlib.crc32(kind + content)
    return (
      struct.pack('>I', len(content)) + kind + content + struct.pack('>I', mark)
    )

  header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
  packed = zlib.compress(bytes(1000))
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', packed)


PNG = encode(COLOUR, 'PNG')
REFUSED = {
  'empty': ('png', b'', 'cannot read .*a.png: mend'),
  'text': ('png', b'no image', 'cannot read .*a.png: mend'),
  'cut': ('png', PNG[: len(PNG) // 2], 'cannot read .*a.png: mend'),
  'postscript': (
    'png',
    b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n',
    '',
  ),
  'pdf': ('jpg', b'%PDF-1.4\n', 'cannot read .*a.jpg: mend'),
  'floats': ('tif', encode(np.float32(ONE), 'TIFF'), 'a.tif: floats, of whose'),
  'integers': ('tif', encode(np.int32(ONE), 'TIFF'), 'a.tif: 32-bit integers'),
  '51_megapixels': ('png', huge(7200), '`max_megapixels=50.0`: .*7200x7200'),
  '100_megapixels': ('png', huge(10_000), '`max_megapixels=50.0`: .*10000x10'),
  'bomb': ('png', huge(60_000), '`max_megapixels=50.0`: .*a.png: too many'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_is_named_and_refused(name, tmp_path):
  suffix, content, message = REFUSED[name]
  save(tmp_path / 'good.png', COLOUR)
  (tmp_path / f'a.{suffix}').write_bytes(content)
  kinds = (data.DataError, ArgumentError)
  with pytest.raises(kinds, match=message or 'cannot read') as told:
    folder(tmp_path, image_size=SIDE)
  assert '\n' not in str(told.value)


def test_the_bound_of_pixels_is_a_matter_of_the_user(tmp_path, monkeypatch):
  save(tmp_path / 'a.png', RANDOM)  # 3,600 pixels
  with pytest.raises(ArgumentError, match='60x60 pixels; make it smaller'):
    folder(tmp_path, max_megapixels=0.003)
  monkeypatch.setattr(PIL.Image, 'MAX_IMAGE_PIXELS', 1000)  # Pillow's own
  images = folder(tmp_path, max_megapixels=0.0036)
  np.testing.assert_array_equal(images.source[0], RANDOM)
  for bad in (0.0, -1.0, np.nan):
    with pytest.raises(ArgumentError, match='`max_megapixels=.*more than 0'):
      folder(tmp_path, max_megapixels=bad)
  with pytest.raises(ArgumentError, match='`max_megapixels=9`: is for'):
    data.load('ring', max_megapixels=9)
  with pytest.raises(
    ArgumentError, match='`max_megapixels=9`: is for images of'
  ):
    data.load('digits', max_megapixels=9)


def test_nothing_of_a_huge_image_is_decoded(tmp_path, monkeypatch):
  (tmp_path / 'a.png').write_bytes(huge(7200))
  monkeypatch.setattr(PIL.Image.Image, 'load', None)
  with pytest.raises(ArgumentError, match='7200x7200'):
    folder(tmp_path)


# Folders. Each makes one, and says what is found.


def classes(root, *names, images=2):
  for name in names:
    for i in range(images):
      save(root / name / f'{i}.png', COLOUR)


def linked_class(root):
  classes(root / 'set', 'cat')
  classes(root / 'elsewhere', 'dog')
  (root / 'set' / 'dog').symlink_to(root / 'elsewhere' / 'dog')
  return {'cat': 2, 'dog': 2}, []


def linked_file(root):
  classes(root / 'set', 'cat')
  save(root / 'far.png', COLOUR)
  (root / 'set' / 'cat' / 'far.png').symlink_to(root / 'far.png')
  return {'cat': 3}, []


def linked_twice(root):
  classes(root / 'set', 'cat')
  (root / 'set' / 'gato').symlink_to(root / 'set' / 'cat')
  return {'cat': 2, 'gato': 2}, []


def loop(root):
  classes(root / 'set', 'cat')
  (root / 'set' / 'cat' / 'again').symlink_to(root / 'set')
  return {'cat': 2}, ['1 link to a folder above it']


def long_loop(root):
  classes(root / 'set', 'cat')
  (root / 'far').mkdir()
  (root / 'far' / 'back').symlink_to(root / 'far')
  (root / 'set' / 'cat' / 'far').symlink_to(root / 'far')
  return {'cat': 2}, ['1 link to a folder above it']


def run_inside(root):
  classes(root / 'set', 'cat')
  save(root / 'set' / 'runs' / '1' / 'samples' / 'step_1.png', RANDOM)
  (root / 'set' / 'runs' / '1' / 'config.flags').touch()
  save(root / 'set' / 'cat' / 'study' / 'programs' / 'a.png', RANDOM)
  (root / 'set' / 'cat' / 'study' / 'plan.json').touch()
  return {'cat': 2}, ['2 folder of a run']


def hidden(root):
  classes(root / 'set', 'cat', '.thumbs')
  (root / 'set' / 'cat' / '._0.png').touch()
  return {'cat': 2}, ['1 hidden file', '1 hidden folder']


def others(root):
  classes(root / 'set', 'cat', images=1)
  for name in ('a.txt', 'b.txt', 'c.heic', 'LICENSE'):
    (root / 'set' / 'cat' / name).touch()
  return {'cat': 1}, ['2 .txt file', '1 .heic file', '1 file without suffix']


def pipe(root):
  classes(root / 'set', 'cat')
  os.mkfifo(root / 'set' / 'cat' / 'p.png')
  return {'cat': 2}, ['1 no file (a pipe or device)']


def folder_with_a_suffix(root):
  classes(root / 'set', 'cat.png', 'dog')
  return {'cat.png': 2, 'dog': 2}, []


def nested(root):
  classes(root / 'set', 'cat/black', 'cat/white', 'dog')
  return {'cat': 4, 'dog': 2}, []


def empty_class(root):
  classes(root / 'set', 'cat')
  (root / 'set' / 'dog').mkdir()
  return {'cat': 2}, []


def odd_names(root):
  classes(root / 'set', 'a=b', 'c d', '\u732b', '$x', '-flag', '[0]')
  names = ('$x', '-flag', '[0]', 'a=b', 'c d', '\u732b')
  return dict.fromkeys(names, 2), []


ODD = [
  linked_class,
  linked_file,
  linked_twice,
  loop,
  long_loop,
  run_inside,
  hidden,
  others,
  pipe,
  folder_with_a_suffix,
  nested,
  empty_class,
  odd_names,
]


@pytest.mark.parametrize('make', ODD, ids=[make.__name__ for make in ODD])
def test_a_folder_is_what_it_says(make, tmp_path):
  found, left_out = make(tmp_path)
  images = folder(tmp_path / 'set')
  assert dict(zip(images.classes, images.class_counts, strict=True)) == found
  assert images.size == sum(found.values()) == len(images.array())
  text = '\n'.join(images.notes)
  for name, count in found.items():
    assert f'{count} {name}' in text
  for line in left_out:
    assert line in text
  assert ('left out' in text) == bool(left_out)


def refused_folders(root):
  (root / 'empty').mkdir()
  (root / 'text').mkdir()
  (root / 'text' / 'a.txt').touch()
  (root / 'x.zip').touch()
  (root / 'x.tar').touch()
  (root / 'x.tgz').touch()
  (root / 'x.csv').touch()
  (root / 'gone').symlink_to(root / 'nowhere')
  save(root / 'broken' / 'a.png', COLOUR)
  (root / 'broken' / 'b.png').symlink_to(root / 'nowhere.png')


@pytest.mark.parametrize(
  'name, message',
  [
    ('empty', r'no image files there \(.png, .jpg'),
    ('text', 'no image files there .*there are 1 .txt file'),
    ('x.zip', 'x.zip: cannot be read as .zip .*get it again'),
    ('x.tar', 'x.tar: cannot be read as .tar .*get it again'),
    ('x.tgz', 'is compressed as a whole; unpack it'),
    ('x.csv', 'is a file, not a folder'),
    ('gone', 'is a link to .*nowhere, which is not there'),
    ('absent', 'no such folder'),
    ('broken', 'cannot read .*b.png: mend or remove'),
    ('n' * 300, 'no such folder'),
  ],
)
def test_a_folder_of_no_use_is_refused(name, message, tmp_path):
  refused_folders(tmp_path)
  with pytest.raises((data.DataError, ArgumentError), match=message) as told:
    data.load(f'folder:{tmp_path / name}', data_dir=str(tmp_path / 'root'))
  assert '\n' not in str(told.value)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
  classes(tmp_path, 'cat', 'dog')
  (tmp_path / 'dog').chmod(0)
  try:
    with pytest.raises(data.DataError, match='dog cannot be read'):
      folder(tmp_path)
  finally:
    (tmp_path / 'dog').chmod(0o700)


def test_notes_say_kinds_sizes_classes_and_what_is_done(tmp_path):
  save(tmp_path / 'cat' / 'a.png', RANDOM[:4, :6])
  save(tmp_path / 'cat' / 'b.jpg', RANDOM[:5, :5])
  save(tmp_path / 'dog' / 'c.png', full(0, 0, 0, 9))
  frames = [PIL.Image.new('L', (SIDE, SIDE), n) for n in (0, 200)]
  frames[0].save(
    tmp_path / 'dog' / 'd.gif', save_all=True, append_images=frames[1:]
  )
  deep = np.uint16(ONE) * 4000
  PIL.Image.fromarray(deep).save(tmp_path / 'dog' / 'e.png')
  images = folder(tmp_path, image_size=2, channels=3)
  kinds, class_counts, read_as, warning = images.notes
  assert re.fullmatch(  # Pillow's word for a grey GIF is its own
    'files: 3 .png, 1 .jpg, 1 .gif; 2 RGB, 1 RGBA, 1 [LP], 1 I;16;'
    ' 3 4x4, 1 6x4, 1 5x5',
    kinds,
  )
  assert class_counts == 'classes: 3 dog, 2 cat'
  assert read_as == (
    'read as: 1 with transparency, laid on white; 1 of several frames, of which'
    ' the first; 1 of 16 bits, divided by 257'
  )
  assert warning.startswith(
    'warning: the largest value of the 16-bit images is'
  )
  assert (images.array()[3] == 0).all()  # the first frame
  save(tmp_path / 'loose.png', COLOUR)
  loose = take_inventory(str(tmp_path))
  assert 'no classes: 1 of the images lie in no subfolder' in loose.describe()
  assert not loose.classes


def test_a_run_inside_is_left_out_however_it_grows(tmp_path):
  """The samples of a run are no data of the next one."""
  save(tmp_path / 'a.png', COLOUR)
  before = folder(tmp_path).fingerprint
  run_inside(tmp_path.with_name('other'))
  save(tmp_path / 'runs' / 'samples' / 'a.png', RANDOM)
  (tmp_path / 'runs' / 'config.flags').touch()
  assert folder(tmp_path).fingerprint == before


def test_prepare_lists_a_folder(tmp_path):
  classes(tmp_path, 'cat', 'dog')
  (tmp_path / 'a.txt').touch()
  lines = data.tell_folder(f'folder:{tmp_path}')
  assert lines == [
    f'folder:{tmp_path}: 4 images',
    '  files: 4 .png; 4 RGB; 4 4x4',
    '  classes: 2 cat, 2 dog',
    '  left out: 1 .txt file',
  ]


def test_prepare_takes_the_bound_of_a_run(tmp_path):
  classes(tmp_path, 'cat')
  words = (f'--dataset=folder:{tmp_path}', '--max_megapixels=1e-5')
  done = commands.run('prepare', *words)
  assert done.returncode == 2
  assert done.stderr.startswith('error: --max_megapixels=')
  assert commands.run('prepare', words[0], '--max_megapixels=1').returncode == 0


@pytest.mark.parametrize('flag', ['data_dir', 'from'])
def test_prepare_warns_of_what_a_folder_has_no_use_of(flag, tmp_path):
  classes(tmp_path, 'cat')
  word = f'--{flag}={tmp_path / "root"}'
  done = commands.run('prepare', f'--dataset=folder:{tmp_path}', word)
  assert done.returncode == 0 and 'needs no preparation' in done.stdout
  # What a look at a folder finds is kept in the data root.
  said = f'warning: {word}: has no effect: folder:' in done.stderr
  assert said == (flag == 'from')
  done = commands.run('prepare', '--dataset=ring', word)
  assert f'warning: {word}: has no effect: ring needs no prep' in done.stderr
  assert not commands.run('prepare', '--dataset=ring').stderr


def test_suffixes_are_those_of_formats_that_are_read():
  PIL.Image.init()
  known = PIL.Image.registered_extensions()
  for suffix in set(pictures.SUFFIXES) & set(known):
    assert known[suffix] in pictures._FORMATS
