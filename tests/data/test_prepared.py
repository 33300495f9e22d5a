"""Folders looked at once, and images that are prepared: whole or not there."""

import errno
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import PIL.Image
import pytest
from helpers import commands
from helpers.alone import Here
from helpers.pictures import make, save

from gan_jax import data
from gan_jax.data import (
  decoding,
  encoded,
  folder,
  listing,
  manifest,
  prepared,
  reading,
  rows,
)
from gan_jax.data.feed import ResidentFeed
from gan_jax.runtime import locks
from gan_jax.runtime.errors import ArgumentError, Error

N = 24
LONG_AGO = 10**18  # ns


@pytest.fixture
def pets(tmp_path, monkeypatch):
  """Images of two classes, that are treated as a large set is."""
  monkeypatch.setattr(listing, '_FEW', 0)
  monkeypatch.setattr(prepared, '_FEWEST', 4)  # rows of a shard
  monkeypatch.setattr(prepared, '_SHARDS', 4)
  monkeypatch.setattr(folder, 'Workers', Here)
  monkeypatch.setattr(decoding, 'Workers', Here)
  monkeypatch.setattr(manifest, 'Workers', Here)
  Here.calls.clear()
  for i in range(N):
    draw(tmp_path / 'pets' / 'cd'[i % 2] / f'{i:02d}.png', i)
  return tmp_path / 'pets'


def draw(path, number, side=6):
  stream = np.random.default_rng(number)
  save(path, stream.integers(0, 256, (side, side, 3)))
  os.utime(path, ns=(LONG_AGO + number, LONG_AGO + number))


def load(pets, **how):
  root = str(pets.parent / 'root')
  return data.load(f'folder:{pets}', data_dir=root, **how)


@pytest.fixture
def read(monkeypatch):
  """Names of the files that were read."""
  names = []
  really = reading.read_file

  def read(path):
    names.append(str(path).rpartition('/')[2])
    return really(path)

  monkeypatch.setattr(reading, 'read_file', read)
  return names


def direct(pets):
  """The images, decoded file by file."""
  files = sorted(pets.glob('*/*.png'))
  return np.stack([np.asarray(PIL.Image.open(file)) for file in files])


# The manifest.


def test_what_has_not_changed_is_read_once(pets, read):
  first = load(pets)
  assert len(read) == N
  read.clear()
  second = load(pets)
  assert read == [] and second.fingerprint == first.fingerprint
  assert second.notes == first.notes and second.classes == ('c', 'd')
  # One touched, one changed, one added, one removed.
  os.utime(pets / 'c' / '02.png', ns=(LONG_AGO, LONG_AGO))
  assert load(pets).fingerprint == first.fingerprint and read == ['02.png']
  draw(pets / 'd' / '03.png', 99)
  draw(pets / 'c' / '98.png', 98)
  (pets / 'c' / '04.png').unlink()
  read.clear()
  third = load(pets)
  assert sorted(read) == ['03.png', '98.png'] and third.size == N
  assert third.fingerprint != first.fingerprint
  np.testing.assert_array_equal(third.array(), direct(pets))


def test_a_change_within_a_tick_of_the_clock_is_seen(pets):
  """Of the same size, and by the clock at the same time."""
  path = pets / 'c' / '00.png'
  save(path, np.zeros((6, 6, 3)))
  path.write_bytes(path.read_bytes().ljust(300, b'\0'))
  before, status = load(pets).fingerprint, path.stat()
  save(path, np.full((6, 6, 3), 1))
  path.write_bytes(path.read_bytes().ljust(300, b'\0'))
  os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
  assert path.stat().st_size == status.st_size == 300
  assert load(pets).fingerprint != before


def test_identity_is_of_contents_and_paths_not_of_times_or_places(pets):
  first = load(pets).fingerprint
  shutil.copytree(pets, pets.with_name('copy'), copy_function=shutil.copyfile)
  copy = pets.with_name('copy')
  assert load(copy).fingerprint == first
  (copy / 'c' / '00.png').rename(copy / 'd' / '00.png')
  assert load(copy).fingerprint != first


def test_what_was_read_before_a_kill_is_kept(pets, read, monkeypatch):
  monkeypatch.setattr(manifest, '_PART', 4)
  monkeypatch.setattr(manifest, '_KEEP', 0)
  monkeypatch.setattr(manifest, '_ALONE', np.inf)
  monkeypatch.setattr(manifest._Keeper, 'close', keep_at_once)
  really = reading.look

  def look(paths, *how):
    if len(read) >= 12:
      raise SystemExit  # as good as a kill: nothing is written after it
    return really(paths, *how)

  with monkeypatch.context() as patch:
    patch.setattr(reading, 'look', look)
    with pytest.raises(SystemExit):
      load(pets)
  assert len(read) == 12
  load(pets)
  assert sorted(read) == [f'{i:02d}.png' for i in range(N)]


CLOSE = manifest._Keeper.close


def keep_at_once(keeper):
  """Not where the process has ended."""
  if not isinstance(sys.exception(), SystemExit):
    CLOSE(keeper)
  keeper._pause = 0


def test_a_damaged_manifest_is_told_and_made_anew(pets, read, capsys):
  first = load(pets).fingerprint
  (path,) = pets.with_name('root').rglob('manifest.npz')
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  read.clear()
  assert load(pets).fingerprint == first and len(read) == N
  assert 'manifest.npz is damaged' in capsys.readouterr().err


def test_a_bound_on_pixels_holds_for_what_is_known(pets):
  load(pets)
  with pytest.raises(ArgumentError, match='`max_megapixels=1e-05`.*6x6 pixels'):
    load(pets, max_megapixels=1e-5)


def test_a_data_root_that_cannot_be_written_does_no_harm(
  pets, read, monkeypatch, capsys
):
  def refuse(path, *how, **more):
    raise PermissionError(errno.EACCES, 'Permission denied', str(path))

  monkeypatch.setattr(locks, 'open_plain', refuse)
  images = load(pets)
  np.testing.assert_array_equal(images.array(), direct(pets))
  assert 'nothing can be written' in capsys.readouterr().err
  assert len(read) == 2 * N  # to look at them, and for their pixels
  assert load(pets).fingerprint == images.fingerprint and len(read) == 3 * N


# Rows that a folder keeps.


def shards(pets):
  return sorted(pets.with_name('root').rglob('shard-*.npy'))


def test_rows_are_the_pixels_of_the_files(pets, monkeypatch):
  wanted = direct(pets)
  np.testing.assert_array_equal(load(pets).array(), wanted)
  assert len(shards(pets)) == 4  # of 6 images each
  monkeypatch.setattr(reading, 'decode', None)  # is not called any more
  images = load(pets)
  np.testing.assert_array_equal(images.array(), wanted)
  picked = np.array([23, 0, 7, 7])
  np.testing.assert_array_equal(images.take(picked), wanted[picked])
  np.testing.assert_array_equal(images.source[5], wanted[5])


@pytest.mark.parametrize('labelled', [False, True])
def test_bits_are_the_same_whatever_the_way(labelled, pets):
  kept = load(pets)
  out = pets.with_name('out')
  written = data.write_rows(
    f'folder:{pets}', out, data_dir=str(pets.with_name('root'))
  )
  ways = [
    make(images, residence=residence, labelled=labelled, batches_per_step=2)
    for images in (kept, load(pets, keep_rows=False), written)
    for residence in ('device', 'stream')
  ]
  assert len({feed.fingerprint for feed in ways}) == 1
  chunks = []
  for feed in ways:
    for start, count, part in ((0, 2, slice(0, 2)), (1, 7, slice(2, 4))):
      items = feed.chunk(start, count, part)
      if feed.resident:
        x, *labels = leaves(feed.constants)
        x = x[items].reshape(*items.shape, 6, 6, 3)  # they are kept flat
        items = (x, labels[0][items]) if labelled else x
      chunks.append(items)
  for found in chunks[2:]:
    wanted = chunks[0] if len(jax_leaf(found)) == 2 else chunks[1]
    for one, other in zip(leaves(found), leaves(wanted), strict=True):
      np.testing.assert_array_equal(one, other)


def leaves(items):
  return items if isinstance(items, tuple) else (items,)


def jax_leaf(items):
  return leaves(items)[0]


def test_what_was_prepared_is_not_read_again_after_a_change(pets, read):
  load(pets).array()
  assert sorted(read) == [f'{i:02d}.png' for i in range(N)]  # for all of it
  read.clear()
  draw(pets / 'a' / '0.png', 77)  # before all others
  (pets / 'd' / '05.png').unlink()
  images = load(pets)
  np.testing.assert_array_equal(images.array(), direct(pets))
  assert read == ['0.png']
  assert len(shards(pets)) == 4  # those of before are gone, and all drafts
  assert len({path.parent for path in shards(pets)}) == 1


def test_shards_that_are_the_same_after_a_change_are_not_written(pets):
  load(pets).array()
  numbers = [path.stat().st_ino for path in shards(pets)]
  draw(pets / 'c' / '14.png', 99)  # in the second shard of four
  draw(pets / 'z' / '0.png', 98)  # after all others
  images = load(pets)
  np.testing.assert_array_equal(images.array(), direct(pets))
  again = [path.stat().st_ino for path in shards(pets)]
  assert again[0] == numbers[0] and again[2:4] == numbers[2:4]
  assert again[1] not in numbers and len(again) == 5
  images.source.rows.verify()


def test_rows_are_for_one_way_of_reading(pets):
  load(pets, image_size=3).array()
  assert load(pets, image_size=4).array().shape == (N, 4, 4, 3)
  assert load(pets, image_size=3, channels=1).array().shape == (N, 3, 3, 1)
  assert len({path.parent for path in shards(pets)}) == 3


def test_none_are_kept_where_that_is_not_wanted_or_there_is_no_room(
  pets, monkeypatch, capsys
):
  wanted = direct(pets)
  np.testing.assert_array_equal(load(pets, keep_rows=False).array(), wanted)
  monkeypatch.setattr(folder, '_room', lambda place: 2 * wanted.nbytes - 1)
  np.testing.assert_array_equal(load(pets).array(), wanted)
  assert shards(pets) == []
  said = capsys.readouterr().err
  assert 'decoded at each visit, from where they lie; make room' in said
  monkeypatch.setattr(folder, '_room', lambda place: 2 * wanted.nbytes)
  load(pets).array()
  assert shards(pets)


def fill_the_disk(monkeypatch, after, error):
  """Lets so many shards and drafts be written, and no more."""
  really, written = rows.save_shard, []

  def save(path, images):
    if len(written) == after:
      raise error
    written.append(path.name)
    really(path, images)

  monkeypatch.setattr(rows, 'save_shard', save)


@pytest.mark.parametrize('looked', [False, True])
def test_a_disk_that_fills_amid_it_leaves_nothing(
  looked, pets, monkeypatch, capsys
):
  if looked:  # nothing is left to do but to make the rows
    load(pets, keep_rows=False)
  error = OSError(errno.ENOSPC, 'No space left on device')
  fill_the_disk(monkeypatch, 2, error)
  np.testing.assert_array_equal(load(pets).array(), direct(pets))
  assert shards(pets) == []
  assert 'No space left on device' in capsys.readouterr().err


def test_what_a_kill_left_is_gone_on_with(pets, monkeypatch):
  load(pets, keep_rows=False)
  with monkeypatch.context() as patch:
    fill_the_disk(patch, 2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
      load(pets).array()
  assert len(shards(pets)) == 2
  (place,) = {path.parent for path in shards(pets)}
  with pytest.raises(data.DataError, match='its preparation did not end'):
    rows.Rows(place)
  times = [path.stat().st_mtime_ns for path in shards(pets)]
  np.testing.assert_array_equal(load(pets).array(), direct(pets))
  assert [path.stat().st_mtime_ns for path in shards(pets)[:2]] == times


@pytest.mark.parametrize('change', [False, True])
def test_rows_made_before_a_kill_amid_the_look_are_kept(
  change, pets, read, monkeypatch
):
  with monkeypatch.context() as patch:
    fill_the_disk(patch, 2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
      load(pets)
  assert len(read) == 18  # two drafts of 6, and one that was not written
  read.clear()
  if change:  # all others move on
    draw(pets / 'a' / '0.png', 77)
  wanted = direct(pets)
  np.testing.assert_array_equal(load(pets).array(), wanted)
  assert len(read) == 12 + change
  rest = [path.name for path in pets.with_name('root').rglob('draft-*')]
  assert rest == []


def every_kind(place):
  """Of one size: deep, transparent, lying, moving, with a palette."""
  colours = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
  image = PIL.Image.fromarray(colours)
  place.mkdir()
  image.save(place / 'a.png')
  others = [image.convert('RGB'), image.convert('RGB').rotate(90)]
  others[0].save(place / 'b.gif', save_all=True, append_images=others[1:])
  PIL.Image.fromarray(colours[..., 0].astype(np.uint16) << 8).save(
    place / 'c.png'
  )
  exif = PIL.Image.Exif()
  exif[0x112] = 6
  others[0].save(place / 'd.jpg', exif=exif)
  others[1].quantize(16).save(place / 'e.png', transparency=3)


@pytest.mark.parametrize(
  'how', [{}, {'channels': 1}, {'channels': 4, 'image_size': 4}]
)
@pytest.mark.parametrize('out', [False, True])
def test_rows_are_the_same_in_one_read_and_in_two(how, out, pets, read):
  how = {'channels': 3, **how}
  odd, root = pets.with_name('odd'), str(pets.with_name('other'))
  every_kind(odd)
  twice = load(odd, keep_rows=False, **how).array()
  read.clear()
  if out:
    place = pets.with_name('out')
    once = data.write_rows(f'folder:{odd}', place, data_dir=root, **how)
    assert sorted(path.name for path in place.glob('draft*')) == []
  else:
    once = data.load(f'folder:{odd}', data_dir=root, **how)
  np.testing.assert_array_equal(once.array(), twice)
  assert len(read) == 5


def cut(path):
  path.write_bytes(path.read_bytes()[:-2])


def lengthen(path):
  path.write_bytes(path.read_bytes() + b'\0')


def flip(path):
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)


@pytest.mark.parametrize('damage', [cut, lengthen, pathlib.Path.unlink])
def test_rows_of_the_data_root_that_are_damaged_are_made_again(
  damage, pets, capsys
):
  load(pets).array()
  damage(shards(pets)[1])
  np.testing.assert_array_equal(load(pets).array(), direct(pets))
  said = capsys.readouterr().err
  assert 'shard-00001.npy' in said and 'prepared again' in said


@pytest.mark.parametrize('residence', ['device', 'stream'])
def test_a_flipped_bit_is_found_when_its_row_is_used(residence, pets):
  load(pets).array()
  flip(shards(pets)[1])
  with pytest.raises(
    data.DataError, match=r'shard-00001.npy: row 5 does not have its checksum'
  ):
    if residence == 'device':
      _ = ResidentFeed(load(pets), 3, N, 1, False, False).constants
    make(load(pets), residence=residence, batch_size=N).chunk(0, 1)


@pytest.mark.parametrize('kept_open', [1, 256])
def test_a_shard_that_is_cut_or_goes_amid_training_is_named_or_no_harm(
  kept_open, pets, monkeypatch
):
  monkeypatch.setattr(rows, '_OPEN', kept_open)
  load(pets).array()
  images, picked = load(pets), np.arange(N)[::-1]
  wanted = images.take(picked)
  path = shards(pets)[1]
  content = path.read_bytes()
  os.truncate(path, len(content) - 6 * 6 * 3 - 1)  # a row and a bit
  with pytest.raises(
    data.DataError, match=r'shard-00001.npy: has been cut while it was in use'
  ):
    images.take(picked)
  path.write_bytes(content)
  np.testing.assert_array_equal(images.take(picked), wanted)
  path.unlink()
  if kept_open == 1:
    with pytest.raises(data.DataError, match=r'shard-00001.npy: No such file'):
      images.take(picked)
  else:  # the file is there for as long as it is open
    np.testing.assert_array_equal(images.take(picked), wanted)


def test_a_file_that_changes_or_goes_amid_training_is_named(pets):
  images = load(pets, keep_rows=False)
  feed = make(images, residence='stream', batch_size=N)
  draw(pets / 'c' / '02.png', 5)
  with pytest.raises(data.DataError, match=r'02.png was changed since'):
    feed.chunk(0, 1)
  (pets / 'c' / '02.png').unlink()
  with pytest.raises(data.DataError, match=r'cannot read .*02.png.*No such'):
    feed.chunk(0, 1)
  draw(pets / 'c' / '02.png', 2)
  assert feed.chunk(0, 1).shape == (1, 1, N, 6, 6, 3)


def test_a_file_that_changes_before_it_is_prepared_is_named(pets):
  load(pets, keep_rows=False)
  images = load(pets)
  draw(pets / 'c' / '02.png', 5)
  with pytest.raises(data.DataError, match=r'02.png was changed since'):
    images.array()
  np.testing.assert_array_equal(load(pets).array(), direct(pets))


# Rows that are written where the user wants them.


@pytest.fixture
def out(pets):
  root = str(pets.with_name('root'))
  data.write_rows(f'folder:{pets}', pets.with_name('out'), data_dir=root)
  return pets.with_name('out')


def test_prepared_sets_open_as_what_they_were_made_of(out, pets):
  images = data.load(f'prepared:{out}')
  assert images.fingerprint == load(pets).fingerprint
  assert images.classes == ('c', 'd') and images.class_counts == (12, 12)
  assert images.shape == (6, 6, 3) and images.size == N
  np.testing.assert_array_equal(images.array(), direct(pets))
  mapped = np.load(out / 'shard-00001.npy', mmap_mode='r')
  np.testing.assert_array_equal(mapped, direct(pets)[6:12])
  assert data.load(f'prepared:{out}', image_size=6, channels=3).size == N
  for name in ('image_size', 'channels'):
    with pytest.raises(ArgumentError, match=f'`{name}=4`: .* leave it out'):
      data.load(f'prepared:{out}', **{name: 4})


def test_any_set_of_images_can_be_prepared(digits, tmp_path):
  images = data.write_rows('digits[:40]', tmp_path / 'out')
  base = data.load('digits[:40]')
  assert images.fingerprint == base.fingerprint
  np.testing.assert_array_equal(
    images.take(np.array([7, 9])), base.array()[[7, 9]]
  )
  np.testing.assert_array_equal(images.labels(), base.labels())
  with pytest.raises(ArgumentError, match='`dataset=ring`: .*no preparation'):
    data.write_rows('ring', tmp_path / 'other')


def test_a_folder_with_something_else_is_refused(out, pets, tmp_path):
  def write(place, source=pets, **how):
    root = str(pets.with_name('root'))
    return data.write_rows(f'folder:{source}', place, data_dir=root, **how)

  write(out)  # again
  with pytest.raises(
    ArgumentError, match='`out=.*of other content or prepared'
  ):
    write(out, image_size=3)
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'thesis.tex').touch()
  with pytest.raises(ArgumentError, match='is not empty .thesis.tex'):
    write(tmp_path / 'full')
  (out / 'prepared.json').unlink()  # as if it had not ended
  shutil.copy(out / 'shard-00000.npy', tmp_path)
  prepared.records.write(
    out / 'unfinished.json', {'fingerprint': 'x', 'rows_per_shard': 3}
  )
  with pytest.raises(
    ArgumentError, match='unfinished preparation of something'
  ):
    write(out)
  with pytest.raises(ArgumentError, match='its preparation did not end'):
    data.load(f'prepared:{out}')


def test_without_room_nothing_is_begun(pets, tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
  monkeypatch.setattr(prepared.shutil, 'disk_usage', lambda place: usage)
  with pytest.raises(Error, match='`out=.*1 MiB are free there; make room'):
    data.write_rows(f'folder:{pets}', tmp_path / 'out', data_dir=str(tmp_path))
  assert not list((tmp_path / 'out').glob('shard*'))


@pytest.mark.parametrize('damage', [cut, flip, pathlib.Path.unlink])
@pytest.mark.parametrize(
  'name', ['shard-00002.npy', 'labels.npy', 'checksums.npy', 'prepared.json']
)
def test_damage_is_named_with_its_remedy(damage, name, out):
  damage(out / name)
  with pytest.raises((data.DataError, ArgumentError)) as told:
    images = data.load(f'prepared:{out}')
    images.labels()
    make(images, residence='stream', batch_size=N).chunk(0, 1)
  text = str(told.value)
  assert name in text and '\n' not in text
  assert 'prepare the set again' in text or 'no prepared set' in text


def test_the_command_writes_verifies_and_names_damage(pets, digits_root):
  out = pets.with_name('out')
  words = ('--dataset=digits', f'--out={out}', f'--data_dir={digits_root}')
  done = commands.run('prepare', *words, '--image_size=4', '--verify')
  assert done.returncode == 0, done.stderr
  assert '1,797 images of 4x4x1, 0 MiB, as it was written' in done.stdout
  assert f'prepared:{out}: ' in done.stdout
  flip(out / 'shard-00000.npy')
  verify = f'--dataset=prepared:{out}', '--verify'
  done = commands.run('prepare', *verify)
  assert done.returncode == 1
  assert f'{out}/shard-00000.npy: not as written' in done.stderr
  done = commands.run('prepare', '--dataset=ring', '--image_size=4')
  assert 'warning: --image_size=4: has no effect: it is for' in done.stderr


def test_rows_in_memory_are_as_many_bytes_as_they_are(out):
  images = data.load(f'prepared:{out}').array()
  assert images.ctypes.data % 64 == 0  # which a CPU device shares
  assert images.base is not None and images.base.nbytes == images.nbytes + 64


@pytest.mark.slow
def test_processes_look_at_and_decode_what_one_would(tmp_path, monkeypatch):
  monkeypatch.setattr(listing, '_FEW', 0)
  monkeypatch.setattr(manifest, '_ALONE', 0)
  for i in range(100):
    draw(tmp_path / 'pets' / f'{i:02d}.png', i)
  images = load(tmp_path / 'pets')
  direct = load(tmp_path / 'pets', keep_rows=False)
  feed = make(direct, residence='stream', batch_size=40)
  wanted = make(images, residence='device', batch_size=40)
  for start in (0, 3):
    rows_there = wanted.constants[wanted.chunk(start, 3)]
    rows_there = rows_there.reshape(3, 1, 40, 6, 6, 3)
    np.testing.assert_array_equal(feed.chunk(start, 3), rows_there)


TOGETHER = """
import hashlib, sys
from gan_jax import data
from gan_jax.data import listing
listing._FEW = 0
images = data.load(f'folder:{sys.argv[1]}', data_dir=sys.argv[2])
print(hashlib.sha256(images.array()).hexdigest())
"""


@pytest.mark.multiprocess
def test_processes_may_prepare_a_folder_together(tmp_path):
  for i in range(300):
    draw(tmp_path / 'pets' / f'{i:03d}.png', i)
  line = [sys.executable, '-c', TOGETHER]
  places = [str(tmp_path / 'pets'), str(tmp_path / 'root')]
  pipe = subprocess.PIPE
  started = [
    subprocess.Popen([*line, *places], stdout=pipe, stderr=pipe, text=True)
    for _ in range(3)
  ]
  ended = [process.communicate(timeout=120) for process in started]
  assert [process.returncode for process in started] == [0] * 3, ended
  assert len({out for out, _ in ended}) == 1
  assert len({path.parent for path in shards(tmp_path / 'pets')}) == 1


# Archives.


def pack(pets, name, how=zipfile.ZIP_STORED):
  """An archive of a folder, with what macOS and others leave in it."""
  out = pets.with_name(name)
  if name.endswith('.zip'):
    with zipfile.ZipFile(out, 'w', how) as archive:
      archive.writestr('__MACOSX/._00.png', b'')
      for path in pets.rglob('*'):  # in any order
        archive.write(path, path.relative_to(pets.parent))
      archive.writestr('pets/readme.txt', b'')
  else:
    with tarfile.open(out, 'w') as archive:
      archive.add(pets, './pets')
      link = tarfile.TarInfo('pets/c/link.png')
      link.type, link.linkname = tarfile.SYMTYPE, '00.png'
      archive.addfile(link)
  os.utime(out, ns=(LONG_AGO, LONG_AGO))
  return out


@pytest.mark.parametrize(
  'name, how, left_out',
  [
    ('a.zip', zipfile.ZIP_STORED, '1 .txt file; 1 file of a hidden folder'),
    ('a.ZIP', zipfile.ZIP_DEFLATED, '1 .txt file; 1 file of a hidden folder'),
    ('a.tar', 0, '1 link in the archive'),
  ],
)
def test_an_archive_is_the_set_of_its_folder(name, how, left_out, pets, read):
  wanted = load(pets)
  out = pack(pets, name.lower(), how)
  out = out.rename(out.with_name(name))
  shutil.move(pets, pets.with_name('gone'))
  read.clear()
  images = load(out)
  assert images.fingerprint == wanted.fingerprint
  assert images.classes == ('c', 'd') and left_out in images.notes[-1]
  np.testing.assert_array_equal(images.array(), wanted.array())
  assert len(read) == N
  again = load(out, keep_rows=False)
  assert len(read) == N and again.fingerprint == images.fingerprint
  np.testing.assert_array_equal(again.array(), images.array())
  written = data.write_rows(
    f'folder:{out}', out.with_name('out'), data_dir=str(out.with_name('root'))
  )
  assert written.fingerprint == images.fingerprint


@pytest.mark.parametrize('how', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_file_of_an_archive_is_named(how, pets):
  save(pets / 'c' / '99.bmp', np.zeros((6, 6, 3)))  # any pixel is a pixel
  out = pack(pets, 'a.zip', how)
  with zipfile.ZipFile(out) as archive:
    place = archive.getinfo('pets/c/99.bmp').header_offset
  content = bytearray(out.read_bytes())
  content[
    place
    + 30
    + len('pets/c/99.bmp')
    + (60 if how == zipfile.ZIP_STORED else 20)
  ] ^= 1
  out.write_bytes(content)
  with pytest.raises(
    data.DataError, match=r'cannot read .*/a.zip: pets/c/99.bmp: mend or remove'
  ):
    load(out)
  out.write_bytes(content[: len(content) // 2])
  with pytest.raises(data.DataError, match='cannot be read as .zip'):
    load(out)


def test_an_archive_that_changes_amid_training_is_named(pets):
  out = pack(pets, 'a.tar')
  feed = make(load(out, keep_rows=False), residence='stream', batch_size=N)
  draw(pets / 'c' / '02.png', 5)
  os.utime(pack(pets, 'a.tar'))
  with pytest.raises(data.DataError, match=r'a.tar: .* was changed since'):
    feed.chunk(0, 1)
  assert load(out).fingerprint == load(pets).fingerprint


# What else may go wrong where rows are written.


@pytest.mark.parametrize('looked', [False, True])
def test_a_disk_that_fills_amid_a_preparation_is_told_and_it_goes_on(
  looked, pets, read, monkeypatch
):
  out, root = pets.with_name('out'), str(pets.with_name('root'))
  if looked:
    load(pets, keep_rows=False)
  read.clear()
  with monkeypatch.context() as patch:
    error = OSError(errno.ENOSPC, 'No space left on device', str(out))
    fill_the_disk(patch, 2, error)
    with pytest.raises(
      Error, match='`out=.*make room.*; what is written stays, and the same'
    ):
      data.write_rows(f'folder:{pets}', out, data_dir=root)
  with pytest.raises(ArgumentError, match='its preparation did not end'):
    data.load(f'prepared:{out}')
  read.clear()
  images = data.write_rows(f'folder:{pets}', out, data_dir=root)
  assert len(read) == N - 12  # two shards of 6 were there
  np.testing.assert_array_equal(images.array(), direct(pets))


def test_two_preparations_in_one_folder_are_refused(pets):
  out, root = pets.with_name('out'), str(pets.with_name('root'))
  out.mkdir()
  with locks.hold(out, print):
    with pytest.raises(
      ArgumentError, match='`out=.*another process prepares there.*; wait'
    ):
      data.write_rows(f'folder:{pets}', out, data_dir=root)
  assert data.write_rows(f'folder:{pets}', out, data_dir=root).size == N


def test_a_place_that_cannot_be_written_is_named(pets, monkeypatch):
  def refuse(path, *how, **more):
    raise PermissionError(errno.EACCES, 'Permission denied', str(path))

  monkeypatch.setattr(locks, 'open_plain', refuse)
  out, root = pets.with_name('out'), str(pets.with_name('root'))
  with pytest.raises(ArgumentError, match='`out=.*Permission denied; use a f'):
    data.write_rows(f'folder:{pets}', out, data_dir=root)


# Files that are kept as they are.


def keep_files(pets, out='files', form='files', **how):
  root = str(pets.with_name('root'))
  place = pets.with_name(out)
  return data.write_rows(f'folder:{pets}', place, form, data_dir=root, **how)


def test_files_that_are_kept_are_the_set_of_their_folder(pets, read):
  images = keep_files(pets, image_size=3)
  assert len(read) == N  # to look at them, and to keep them
  wanted = load(pets, image_size=3, keep_rows=False)
  assert images.fingerprint == wanted.fingerprint and images.size == N
  assert images.classes == ('c', 'd') and images.shape == (3, 3, 3)
  np.testing.assert_array_equal(images.labels(), wanted.labels())
  np.testing.assert_array_equal(images.array(), wanted.array())
  picked = np.array([23, 0, 7, 7])
  np.testing.assert_array_equal(images.take(picked), wanted.take(picked))
  np.testing.assert_array_equal(images.source[5], wanted.source[5])
  feeds = [
    make(some, residence='stream', labelled=True, batches_per_step=2)
    for some in (images, wanted)
  ]
  for start, count, part in ((0, 2, slice(0, 2)), (1, 7, slice(2, 4))):
    chunks = [feed.chunk(start, count, part) for feed in feeds]
    for one, other in zip(*chunks, strict=True):
      np.testing.assert_array_equal(one, other)
  names = sorted(path.name for path in pets.with_name('files').iterdir())
  assert names[-4:] == [f'shard-{i:05d}.array_record' for i in range(4)]
  assert not any(name.startswith('draft') for name in names)
  images.source.verify()
  # Of what the manifest knows, and again of what is there.
  read.clear()
  again = keep_files(pets, 'again', image_size=3)
  assert len(read) == N and keep_files(pets, 'again', 'auto', image_size=3)
  np.testing.assert_array_equal(again.array(), images.array())
  with pytest.raises(ArgumentError, match='prepared otherwise'):
    keep_files(pets, 'again', 'rows', image_size=3)
  with pytest.raises(ArgumentError, match='`image_size=4`.*prepared with 3'):
    data.load(f'prepared:{pets.with_name("again")}', image_size=4)


@pytest.mark.parametrize('damage', [cut, flip, lengthen, pathlib.Path.unlink])
def test_a_damaged_shard_of_files_is_named_with_its_remedy(damage, pets):
  keep_files(pets)
  out = pets.with_name('files')
  shard = out / 'shard-00002.array_record'
  if damage is flip:
    content = bytearray(shard.read_bytes())
    content[len(content) // 200] ^= 1  # it is padded
    shard.write_bytes(content)
  else:
    damage(shard)
  with pytest.raises(data.DataError) as told:
    images = data.load(f'prepared:{out}')
    make(images, residence='stream', batch_size=N).chunk(0, 1)
  assert 'shard-00002.array_record: ' in str(told.value)
  assert 'bring the file back, or remove its folder' in str(told.value)
  if damage is flip:
    with pytest.raises(data.DataError, match='shard-00002.*not as written'):
      images.source.verify()


def test_a_shard_of_files_that_is_cut_in_use_is_named(pets):
  images = keep_files(pets)
  wanted = images.array()
  shard = pets.with_name('files') / 'shard-00001.array_record'
  os.truncate(shard, 0)
  with pytest.raises(data.DataError, match='shard-00001.array_record: record'):
    images.take(np.arange(N)[::-1])
  assert wanted.shape == (N, 6, 6, 3)


@pytest.mark.parametrize('looked', [False, True])
def test_keeping_files_goes_on_after_a_kill_or_a_full_disk(
  looked, pets, read, monkeypatch
):
  if looked:
    load(pets, keep_rows=False)
  really, written = encoded.write_shard, []

  def write(path, contents):
    if len(written) == 2:
      raise error
    written.append(path)
    return really(path, contents)

  monkeypatch.setattr(encoded, 'write_shard', write)
  error = OSError(errno.ENOSPC, 'No space left on device')
  with pytest.raises(Error, match='make room.*; what is written stays'):
    keep_files(pets)
  error = KeyboardInterrupt
  with pytest.raises(KeyboardInterrupt):
    keep_files(pets)
  with pytest.raises(ArgumentError, match='its preparation did not end'):
    data.load(f'prepared:{pets.with_name("files")}')
  monkeypatch.setattr(encoded, 'write_shard', really)
  read.clear()
  images = keep_files(pets)
  assert len(read) == N - 12  # two shards of 6 were there
  np.testing.assert_array_equal(images.array(), direct(pets))


@pytest.mark.parametrize('looked', [False, True])
def test_files_are_kept_where_there_is_no_room_for_rows(
  looked, pets, monkeypatch, capsys
):
  pixels = 24 * 512 * 512 * 3
  size = sum(path.stat().st_size for path in pets.rglob('*.png'))
  if looked:
    load(pets, image_size=512, keep_rows=False)

  def leave(free):
    usage = shutil.disk_usage(pets)._replace(free=prepared.SPARE + free)
    monkeypatch.setattr(shutil, 'disk_usage', lambda place: usage)

  leave(pixels - 1)
  images = keep_files(pets, form='auto', image_size=512)
  assert isinstance(images.source, decoding.Encoded)
  said = ' '.join(capsys.readouterr().err.split())
  assert 'would take 18 MiB as rows' in said and 'kept as they are' in said
  leave(pixels)
  images = keep_files(pets, 'rows', form='auto', image_size=512)
  assert isinstance(images.source, rows.Rows)
  leave(size - 1)
  with pytest.raises(Error, match='`out=.*18 MiB are to be written'):
    keep_files(pets, 'none', form='auto', image_size=512)


def test_files_are_kept_of_folders_alone(digits, tmp_path):
  with pytest.raises(ArgumentError, match='`form=files`: keeps the files of'):
    data.write_rows('digits[:40]', tmp_path / 'out', 'files')
  with pytest.raises(ArgumentError, match='`form=jpeg`: use auto, rows, files'):
    data.write_rows('digits[:40]', tmp_path / 'out', 'jpeg')
  assert data.write_rows('digits[:40]', tmp_path / 'out', 'auto').size == 40


def test_an_archive_may_be_kept_as_files(pets):
  images = keep_files(pack(pets, 'a.zip', zipfile.ZIP_DEFLATED))
  np.testing.assert_array_equal(images.array(), direct(pets))


# Shares of a preparation.


def share(pets, only, **how):
  root = str(pets.with_name(f'root-{only[0]}'))  # each machine has its own
  place = pets.with_name('shared')
  return data.write_share(f'folder:{pets}', place, only, data_dir=root, **how)


@pytest.mark.parametrize('form', ['rows', 'files'])
def test_shares_are_joined_without_another_look(form, pets, read, monkeypatch):
  counts = []
  for k in (2, 1, 3):
    assert f'share {k}/3' in share(pets, f'{k}/3', form=form, image_size=3)
    counts.append(len(read))
  assert counts == [6, 18, 24] and len(set(read)) == N
  assert 'share 1/3, 12 of 24' in share(pets, '1/3', form=form, image_size=3)
  assert len(read) == N  # what is done is done
  images = keep_files(pets, 'shared', form, image_size=3)
  assert len(read) == N
  whole = load(pets, image_size=3, keep_rows=False)
  assert images.fingerprint == whole.fingerprint and len(read) == N
  np.testing.assert_array_equal(images.array(), whole.array())
  images.source.verify()
  shared = pets.with_name('shared')
  assert not list(shared.glob('draft*'))
  assert 'is prepared in' in share(pets, '2/3', form=form, image_size=3)


def test_shares_of_few_files_are_kept_too(pets, read, monkeypatch):
  monkeypatch.setattr(listing, '_FEW', 13)
  for only in ('1/2', '2/2'):
    share(pets, only)
  keep_files(pets, 'shared', 'rows')
  assert len(read) == N


def test_what_shares_have_not_done_is_done_when_they_are_joined(
  pets, read, monkeypatch
):
  share(pets, '1/4')
  with monkeypatch.context() as patch:
    fill_the_disk(patch, 0, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
      share(pets, '2/4')
  share(pets, '3/4')
  draw(pets / 'c' / '00.png', 99)  # of the first
  read.clear()
  images = keep_files(pets, 'shared', 'rows')
  assert sorted(read) == [f'{i:02d}.png' for i in (0, *range(12, 24))]
  np.testing.assert_array_equal(images.array(), direct(pets))


def test_shares_go_together_and_are_not_joined_meanwhile(pets, capsys):
  shared = pets.with_name('shared')
  shared.mkdir()
  with prepared.hold(shared, shared=True):
    share(pets, '1/2')
    with pytest.raises(ArgumentError, match='`out=.*another process prepares'):
      keep_files(pets, 'shared', 'rows')
  with prepared.hold(shared):
    with pytest.raises(ArgumentError, match='`out=.*another process prepares'):
      share(pets, '2/2')
  with pytest.raises(ArgumentError, match='`only=3/2`: write K/N with'):
    share(pets, '3/2')
  (pets / 'c' / '02.png').write_bytes(b'')
  with pytest.raises(data.DataError, match='cannot read .*02.png'):
    share(pets, '1/2')


def test_what_cannot_be_shared_says_so(pets, digits, monkeypatch):
  draw(pets / 'c' / '00.png', 0, side=7)
  with pytest.raises(ArgumentError, match='`only=1/2`: shares out the'):
    data.write_share('digits', pets.with_name('shared'), '1/2')
  usage = shutil.disk_usage(pets)._replace(free=2**20)
  monkeypatch.setattr(shutil, 'disk_usage', lambda place: usage)
  with pytest.raises(ArgumentError, match='`only=1/2`: .*no room for them'):
    share(pets, '1/2')


# Disks that are full, or that may not be written to, for real.


@pytest.fixture
def disk(tmp_path):
  """A file system of a few MiB more than is always left free."""
  place = tmp_path / 'disk'
  place.mkdir()
  mount(place, '-t', 'tmpfs', '-o', 'size=72m', 'tmpfs')
  yield place
  subprocess.run(['umount', '-l', str(place)], check=True)


def mount(place, *how):
  try:
    done = subprocess.run(
      ['mount', *how, str(place)], capture_output=True, text=True
    )
  except OSError as error:
    pytest.skip(f'there is no mount: {error.strerror}')
  if done.returncode:
    pytest.skip(f'this user may not mount: {done.stderr.strip()}')


@pytest.mark.parametrize('form', ['rows', 'files'])
@pytest.mark.parametrize('looked', [False, True])
def test_a_disk_that_is_full_amid_it_for_real(
  form, looked, pets, disk, monkeypatch
):
  root, out = str(pets.with_name('root')), disk / 'out'
  if looked:
    load(pets, keep_rows=False)
  module = {'rows': rows, 'files': encoded}[form]
  name = {'rows': 'save_shard', 'files': 'write_shard'}[form]
  really, written = getattr(module, name), []

  def write(path, some):
    if len(written) == 2:
      fill(disk / 'filler')
    written.append(path)
    return really(path, some)

  monkeypatch.setattr(module, name, write)
  how = {'form': form, 'data_dir': root}
  with pytest.raises(Error, match='`out=.*make room'):
    data.write_rows(f'folder:{pets}', out, **how)
  with pytest.raises(ArgumentError, match='its preparation did not end'):
    data.load(f'prepared:{out}')
  (disk / 'filler').unlink()
  images = data.write_rows(f'folder:{pets}', out, **how)
  np.testing.assert_array_equal(images.array(), direct(pets))
  images.source.verify()


def fill(path):
  with open(path, 'wb', buffering=0) as file:
    try:
      for size in (2**20, 1):
        while file.write(bytes(size)):
          pass
    except OSError as error:
      assert error.errno == errno.ENOSPC


def test_a_data_root_that_is_read_only_for_real(pets, disk, capsys):
  def read():
    images = data.load(f'folder:{pets}', data_dir=str(disk))
    np.testing.assert_array_equal(images.array(), direct(pets))
    return capsys.readouterr().err

  mount(disk, '-o', 'remount,ro')
  assert 'nothing can be written at' in read()
  with pytest.raises(ArgumentError, match='`out=.*Read-only file system'):
    data.write_rows(f'folder:{pets}', disk / 'out')
  mount(disk, '-o', 'remount,rw')
  read()
  mount(disk, '-o', 'remount,ro')
  assert read() == ''  # all is there
