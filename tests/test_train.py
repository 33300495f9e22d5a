"""The command as a person uses it: exit codes, messages, nothing lost."""

import gzip
import json
import pathlib
import resource
import shutil
import struct
import subprocess

import jax
import numpy as np
import PIL.Image
import pytest
from helpers import commands
from jax.experimental.compilation_cache import compilation_cache

from gan_jax.config import app
from gan_jax.training import restore

# Orbax's reading threads outlive its event loop when a file cannot be written.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)

TOY = [
  '--dataset=ring',
  '--network=mlp',
  '--width=8',
  '--batch_size=8',
  '--steps=20',
  '--devices=1',
  '--noreport',
]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder for data and runs, away from the user's."""
  path = tmp_path_factory.mktemp('train')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('TFDS_DATA_DIR', str(path / 'tfds'))
    yield path


@pytest.fixture(scope='module')
def gan(programs):
  """Runs a command; returns what it said on standard error."""

  def gan(*words, command='train', code=None):
    if command == 'train':
      words = (*words, f'--compilation_cache={programs}')
    done = commands.run(command, *words)
    assert done.returncode == code, done.stderr
    assert 'Traceback' not in done.stderr
    return done.stderr

  return gan


# words -> (exit code, what the message must name)
REFUSED = {
  'unknown flag': (['--objctive=minimax'], 2, ['objctive', 'objective']),
  'misspelt value': (['--objective=minmax'], 2, ['minmax', 'minimax']),
  'negative rate': (['--lr_d=-1'], 2, ['--lr_d=-1.0', 'more than 0']),
  'd_steps 0': (['--d_steps=0'], 2, ['--d_steps=0', '1 or more']),
  'unknown dataset': (['--dataset=mnst'], 2, ['mnst', 'mnist']),
  'batch larger than the set': (
    ['--dataset=digits', '--network=dcgan', '--batch_size=2000'],
    2,
    ['--batch_size=2000', '1797'],
  ),
}


@pytest.mark.parametrize('case', sorted(REFUSED))
def test_bad_flags(case, place, gan):
  words, code, told = REFUSED[case]
  workdir = place / case.replace(' ', '_')
  said = gan(*TOY, f'--workdir={workdir}', *words, code=code)
  for part in told:
    assert part in said
  assert not workdir.exists()


def folder_of(place, name, **files):
  folder = place / name
  folder.mkdir()
  for stem, content in files.items():
    path = folder / f'{stem}.png'
    if isinstance(content, bytes):
      path.write_bytes(content)
    else:
      PIL.Image.new(content, (8, 8)).save(path)
  return folder


# files -> (exit code, what the message must name)
FOLDERS = {
  'empty': ({}, 1, ['no image']),
  'unreadable': ({'a': 'L', 'b': b'not a picture'}, 1, ['b.png']),
  'mixed': ({'a': 'L', 'b': 'RGB'}, 2, ['--channels=1', '--channels=3']),
}


@pytest.mark.parametrize('case', sorted(FOLDERS))
def test_bad_folders(case, place, gan):
  files, code, told = FOLDERS[case]
  folder = folder_of(place, case, **files)
  workdir = place / f'run-{case}'
  words = [f'--dataset=folder:{folder}', '--network=dcgan', '--batch_size=1']
  said = gan(*TOY, f'--workdir={workdir}', *words, code=code)
  for part in told:
    assert part in said
  assert not workdir.exists()


def test_a_missing_set_says_how_to_prepare_it(place, gan):
  words = ['--dataset=mnist', '--network=dcgan', f'--workdir={place / "m"}']
  said = gan(*TOY, *words, code=1)
  assert 'python -m gan_jax.prepare --dataset=mnist' in said


def test_a_truncated_original_is_refused(place, gan):
  folder = place / 'originals'
  folder.mkdir()
  for stem, magic, count, sides in [
    ('train-images-idx3-ubyte', 2051, 60000, (28, 28)),
    ('train-labels-idx1-ubyte', 2049, 60000, ()),
    ('t10k-images-idx3-ubyte', 2051, 10000, (28, 28)),
    ('t10k-labels-idx1-ubyte', 2049, 10000, ()),
  ]:
    header = struct.pack(f'>{2 + len(sides)}i', magic, count, *sides)
    content = gzip.compress(header + bytes(100))
    (folder / f'{stem}.gz').write_bytes(content)
  said = gan(
    '--dataset=mnist',
    f'--from={folder}',
    f'--data_dir={place / "tfds"}',
    command='prepare',
    code=1,
  )
  assert 'idx' in said
  # Nothing that a later run would trust was left behind.
  words = ['--dataset=mnist', '--network=dcgan', f'--workdir={place / "m2"}']
  assert 'gan_jax.prepare' in gan(*TOY, *words, code=1)


@pytest.fixture(scope='module')
def trained(place, gan):
  """A finished run whose arrays take more than 16 KiB."""
  workdir = place / 'trained'
  gan(*TOY, '--width=64', f'--workdir={workdir}', code=app.DONE)
  return workdir


@pytest.fixture
def no_programs():
  """No compiled program is kept: JAX warns where it cannot be, and goes on."""
  jax.config.update('jax_enable_compilation_cache', False)
  compilation_cache.reset_cache()
  yield
  jax.config.update('jax_enable_compilation_cache', True)
  compilation_cache.reset_cache()


@pytest.mark.usefixtures('no_programs')
@pytest.mark.parametrize('kib', [2, 16])
def test_no_room_while_saving(kib, trained, tmp_path, gan):
  """Files may not grow past so many KiB: what was saved before is whole.

  2 KiB stop the small files that are written at once, 16 the arrays, which
  threads write while the run goes on.
  """
  workdir = tmp_path / 'run'
  shutil.copytree(trained, workdir)
  before = restore.open_run(workdir)
  words = [*TOY, '--width=64', f'--workdir={workdir}', '--steps=40']
  longer = [*words, '--checkpoint_every=25', '--log_every=1']
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  # What exceeds it fails to be written, as on a full disk.
  resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, limits[1]))
  try:
    said = gan(*longer, code=app.ERROR)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert 'File too large; raise the limit' in said
  assert 'MiB are free' not in said  # there is room
  after = restore.open_run(workdir)
  assert after.step == before.step
  for path, saved in before.state.items():
    np.testing.assert_array_equal(after.state[path], saved)
  gan(*longer, code=app.DONE)
  assert restore.open_run(workdir).step == 40


def test_a_divergence_ends_with_3_and_names_the_commit(tmp_path, gan):
  words = ('--lr_g=1e30', '--optimizer_g=sgd', f'--workdir={tmp_path}')
  said = gan(*TOY, *words, code=app.DIVERGED)
  assert 'error: diverged at step' in said
  assert 'Lower --lr_g and --lr_d' in said
  folder = str(pathlib.Path(restore.__file__).parent)
  commit = subprocess.run(
    ['git', '-C', folder, 'rev-parse', 'HEAD'], capture_output=True, text=True
  )
  if commit.returncode:
    pytest.skip('the package lies in no checkout')
  facts = json.loads((tmp_path / 'run.json').read_text())
  assert facts['commit'].removesuffix('-dirty') == commit.stdout[:12]
