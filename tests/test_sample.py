"""Samples of a run: the same for a seed, in the form that was asked for."""

import dataclasses
import pathlib
import shutil
import tracemalloc

import numpy as np
import PIL.Image
import pytest
from helpers import commands

import gan_jax as gj
from gan_jax.config import app
from gan_jax.config.schema import Config
from gan_jax.data import DatasetMetadata
from gan_jax.figures import images
from gan_jax.runtime.errors import ArgumentError
from gan_jax.training import export, interpolation, restore, setup

TOY = dict(network='mlp', width=8, batch_size=4, devices=1, steps=2)


def opened(**values):
  """A run of random parameters: what is drawn does not depend on training."""
  parts = setup.build(Config(**{**TOY, **values}).validate())
  return restore.run_in_memory(parts, 0, parts.init())


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  folder = tmp_path_factory.mktemp('pictures')
  for i in range(8):
    PIL.Image.new('L', (8, 8), 30 * i).save(folder / f'{i}.png')
  return folder


@pytest.fixture(scope='module')
def image_run(pictures):
  return opened(dataset=f'folder:{pictures}')


@pytest.fixture(scope='module')
def ring_run():
  return opened(dataset='ring', latent='normal', latent_dim=3)


def test_a_seed_fixes_the_samples(ring_run):
  a = export.draw(ring_run, 5, 7, False, False)
  assert a.shape == (5, 2) and a.dtype == np.float32
  np.testing.assert_array_equal(a, export.draw(ring_run, 5, 7, False, False))
  assert (a != export.draw(ring_run, 5, 8, False, False)).any(axis=1).all()
  assert len(np.unique(a, axis=0)) == 5


@pytest.mark.parametrize('interpolate', [False, True])
def test_more_samples_begin_with_the_same_ones(ring_run, interpolate):
  """Of more than one batch, too."""
  few = export.draw(ring_run, 8, 0, False, interpolate)
  many = export.draw(ring_run, 300, 0, False, interpolate)
  np.testing.assert_allclose(many[:8], few, rtol=1e-5, atol=1e-6)
  assert len(np.unique(many, axis=0)) == len(many)


def test_a_walk_from_python_is_that_of_the_command(ring_run):
  x = ring_run.interpolate(3, seed=2)
  assert x.shape == (3, 8, 2)
  rows = export.draw(ring_run, 24, 2, None, True)
  np.testing.assert_array_equal(x.reshape(24, 2), rows)
  ends = ring_run.generate(ring_run.latent(2, 6))
  np.testing.assert_allclose(
    x[:, [0, -1]].reshape(6, 2), ends, rtol=1e-5, atol=1e-6
  )
  with pytest.raises(ArgumentError, match='`rows=0`: use 1 or more'):
    ring_run.interpolate(0)


def test_the_command_draws_what_the_library_draws(ring_run):
  x = export.draw(ring_run, 5, 3, None, False)
  np.testing.assert_array_equal(x, ring_run.sample(5, seed=3))


def test_the_average_is_another_generator(ring_run):
  changed = {
    path: 2 * x + 1 if path.startswith('ema/params/') else x
    for path, x in ring_run.state.items()
  }
  run = dataclasses.replace(ring_run, state=changed)
  live = export.draw(run, 4, 0, False, False)
  np.testing.assert_array_equal(live, export.draw(ring_run, 4, 0, False, False))
  average = export.draw(run, 4, 0, True, False)
  assert (live != average).all()
  np.testing.assert_array_equal(average, export.draw(run, 4, 0, None, False))


def test_an_average_that_was_not_kept_is_refused():
  run = opened(dataset='ring', ema_halflife_kimg=0.0)
  with pytest.raises(ArgumentError, match='`ema=True`.*`ema=false`'):
    export.draw(run, 4, 0, True, False)


def test_spherical_interpolation_keeps_the_norm_and_the_pace():
  ends = np.array([[3.0, 0.0], [0.0, 3.0]], np.float32)
  found = interpolation.interpolated(ends, True)
  assert found.shape == (export.COLUMNS, 2)
  np.testing.assert_allclose(found[[0, -1]], ends, atol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), 3, rtol=1e-5)
  angles = np.degrees(np.arctan2(found[:, 1], found[:, 0]))
  np.testing.assert_allclose(angles, np.linspace(0, 90, 8), atol=1e-3)


def test_linear_interpolation_is_straight():
  ends = np.array([[3.0, 0.0], [0.0, 3.0], [1.0, 1.0], [1.0, 1.0]], np.float32)
  found = interpolation.interpolated(ends, False)
  np.testing.assert_allclose(found[:8].sum(axis=1), 3, rtol=1e-5)
  np.testing.assert_allclose(found[:8, 1], np.linspace(0, 3, 8), rtol=1e-5)
  np.testing.assert_allclose(found[8:], 1, rtol=1e-5)


@pytest.mark.parametrize('num, rows', [(1, 1), (8, 1), (9, 2), (16, 2)])
def test_interpolations_come_in_whole_rows(ring_run, num, rows):
  found = export.draw(ring_run, num, 0, False, True)
  assert len(found) == rows * export.COLUMNS
  ends = ring_run.generate(np.asarray(ring_run.latent(0, 2 * rows)), ema=False)
  np.testing.assert_allclose(found[::8], ends[::2], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(found[7::8], ends[1::2], rtol=1e-4, atol=1e-5)


def test_images_as_an_array_a_grid_and_files(image_run, tmp_path):
  x = export.draw(image_run, 5, 0, False, False)
  assert x.shape == (5, 8, 8, 1) and np.abs(x).max() <= 1
  u = images.to_uint8(x)
  export.write(image_run, [x], len(x), tmp_path / 'a.npz')
  with np.load(tmp_path / 'a.npz') as arrays:
    assert arrays.files == ['samples']
    assert arrays['samples'].dtype == np.uint8
    np.testing.assert_array_equal(arrays['samples'], u)
  export.write(image_run, [x], len(x), tmp_path / 'a.png')
  assert (tmp_path / 'a.png').read_bytes() == images.grid_png(x)
  export.write(image_run, [x], len(x), tmp_path / 'new' / 'folder')
  found = sorted((tmp_path / 'new' / 'folder').iterdir())
  assert [p.name for p in found] == [f'{i:05d}.png' for i in range(5)]
  for path, image in zip(found, u, strict=True):
    with PIL.Image.open(path) as picture:
      np.testing.assert_array_equal(np.asarray(picture), image[..., 0])


@pytest.mark.parametrize('name', ['ring', 'gaussian_1d'])
def test_a_density_as_an_array_and_a_figure(name, tmp_path):
  run = opened(dataset=name)
  x = export.draw(run, 50, 0, False, False)
  export.write(run, [x], len(x), tmp_path / 'a.npz')
  with np.load(tmp_path / 'a.npz') as arrays:
    assert arrays['samples'].dtype == np.float32
    np.testing.assert_array_equal(arrays['samples'], x)
  export.write(run, [x], len(x), tmp_path / 'a.png')
  with PIL.Image.open(tmp_path / 'a.png') as picture:
    colours = np.asarray(picture.convert('RGB')).reshape(-1, 3)
  greenish = (colours[:, 1] > colours[:, 0].astype(int) + 30).mean()
  assert greenish > 1e-4  # G's samples are there
  with pytest.raises(ArgumentError, match=r'`out=.*\.npz'):
    export.write(run, [x], len(x), tmp_path / 'folder')


@pytest.mark.parametrize(
  'num, out, said',
  [
    (0, 'a.png', '`num=0`'),
    (-3, 'a.png', '`num=-3`'),
    (4, 'a.jpg', r'`out=.*a\.jpg`'),
    (4, 'none/a.png', 'no folder'),
    (4, 'full', 'is not empty'),
  ],
)
def test_what_cannot_be_done_is_refused(num, out, said, tmp_path):
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'thesis.txt').write_text('mine')
  with pytest.raises(ArgumentError, match=said):
    export.check(num, tmp_path / out)
  assert (tmp_path / 'full' / 'thesis.txt').read_text() == 'mine'
  export.check(1, tmp_path / 'a.png')
  export.check(1, tmp_path / 'new')


@pytest.fixture(scope='module')
def gan(programs):
  """Runs a command; what it said, whose exit code is as expected."""

  def gan(command, *words, code=app.DONE):
    if command == 'train':
      words = (*words, f'--compilation_cache={programs}', '--noreport')
    done = commands.run(command, *words)
    assert done.returncode == code, done.stderr
    assert 'Traceback' not in done.stderr
    return done

  return gan


def test_command(pictures, tmp_path, gan):
  workdir, mine = tmp_path / 'run', tmp_path / 'pictures'
  shutil.copytree(pictures, mine)
  words = [f'--{name}={value}' for name, value in TOY.items()]
  gan(
    'train',
    *words,
    f'--dataset=folder:{mine}',
    f'--data_dir={tmp_path / "data"}',
    f'--workdir={workdir}',
  )
  found = []
  for name in ('a.npz', 'b.npz'):
    out = tmp_path / name
    done = gan(
      'sample', f'--workdir={workdir}', '--num=3', '--seed=5', f'--out={out}'
    )
    assert '3 samples of the averaged G at step 2' in done.stdout
    with np.load(out) as arrays:
      found.append(arrays['samples'])
  np.testing.assert_array_equal(*found)
  # The training set is not needed; a place that takes no file is told.
  shutil.rmtree(mine)
  gan('sample', f'--workdir={workdir}', f'--out={tmp_path / "d.npz"}')
  done = gan(
    'sample', f'--workdir={workdir}', '--out=/proc/a.npz', code=app.REFUSED
  )
  assert '--out=/proc/a.npz: cannot write' in done.stderr
  out = tmp_path / 'c.png'
  done = gan(
    'sample',
    f'--workdir={workdir}',
    '--step=1',
    f'--out={out}',
    code=app.REFUSED,
  )
  assert '--step=1' in done.stderr
  assert not out.exists()


@pytest.mark.parametrize(
  'words, said',
  [
    ([], '--workdir=: name'),
    (['--workdir=nowhere'], '--workdir=nowhere: no run there'),
  ],
)
def test_command_refuses(words, said, tmp_path, gan):
  out = f'--out={tmp_path / "a.png"}'
  assert said in gan('sample', *words, out, code=app.REFUSED).stderr


def test_points_of_no_known_density_are_written_as_an_array(tmp_path, gan):
  """Of a run whose data was handed in."""
  points = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
  workdir = tmp_path / 'run'
  gj.train(workdir, data=points, **TOY)
  out = tmp_path / 'a.npz'
  gan('sample', f'--workdir={workdir}', '--num=3', f'--out={out}')
  x = np.load(out)['samples']
  assert x.shape == (3, 2) and x.dtype == np.float32
  done = gan(
    'sample',
    f'--workdir={workdir}',
    f'--out={tmp_path / "a.png"}',
    code=app.REFUSED,
  )
  assert 'for points end it in .npz' in done.stderr


def test_spherical_interpolation_between_opposites_stays_between_them():
  """As any two draws of opposite sign are in one dimension."""
  ends = np.array([[1.0], [-0.5], [1.0], [0.5]], np.float32)
  found = interpolation.interpolated(ends, True)[:, 0]
  np.testing.assert_allclose(found[:8], np.linspace(1, -0.5, 8), atol=1e-5)
  np.testing.assert_allclose(found[8:], np.linspace(1, 0.5, 8), atol=1e-5)


def test_the_way_of_interpolation_is_the_noise_s(ring_run):
  assert interpolation.kind(ring_run) == 'spherical'
  assert (
    interpolation.kind(opened(dataset='ring', latent='uniform')) == 'linear'
  )


def shown():
  """A run as far as files of its samples ask for it."""
  data = DatasetMetadata('folder:x', (16, 16, 1))
  return restore.Run(Config(), data, None, 0, {})


@pytest.mark.parametrize('name', ['a.npz', 'a.png', 'folder'])
def test_memory_of_many_samples_is_that_of_their_bytes(name, tmp_path):
  """Not of their float32, which is four times as much, or of copies of it."""
  count = {'a.npz': 163_840, 'a.png': 20_480, 'folder': 300}[name]
  x = np.zeros((256, 16, 16, 1), np.float32)
  batches = (x[: min(256, count - i)] for i in range(0, count, 256))
  tracemalloc.start()
  try:
    export.write(shown(), batches, count, tmp_path / name)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  # NumPy compresses 16 MiB at a time, of which it makes copies.
  more = {'a.npz': 52 * 2**20, 'a.png': 2 * count * 256, 'folder': 0}[name]
  held = 0 if name == 'folder' else count * 256
  assert peak < held + more + 3 * 2**20
  if name == 'folder':
    assert len(list((tmp_path / name).iterdir())) == count


def test_more_samples_than_a_file_or_the_memory_holds_are_refused():
  out = pathlib.Path('a.png')
  with pytest.raises(ArgumentError, match='one PNG would have 2,560,000,000'):
    export.check_size(shown(), 10**7, out)
  with pytest.raises(ArgumentError, match='the samples of one file would take'):
    export.check_size(shown(), 10**12, out.with_suffix('.npz'))
  export.check_size(shown(), 10**12, pathlib.Path('folder'))


def test_seeds_beyond_32_bits_are_refused(ring_run):
  for seed in (-1, 2**31, 2**32 + 1):
    for call in (ring_run.sample, ring_run.sample_batches):
      with pytest.raises(ArgumentError, match=f'`seed={seed}`: use 0 to 2147'):
        call(1, seed=seed)
    with pytest.raises(ArgumentError, match=f'`seed={seed}`'):
      export.batches(ring_run, 8, seed, None, True)
