"""The command as a person uses it: exit codes, messages, nothing lost."""

import gzip
import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from gan_jax.config import app
from gan_jax.training import restore

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
  return tmp_path_factory.mktemp('train')


def gan(place, *words, command='train', code=None, before=()):
  """Runs a command; returns what it said on standard error."""
  environment = dict(
    os.environ, TFDS_DATA_DIR=str(place / 'tfds'), JAX_PLATFORMS='cpu'
  )
  if command == 'train':
    words = (*words, f'--compilation_cache={place / "xla"}')
  done = subprocess.run(
    [*before, sys.executable, '-m', f'gan_jax.{command}', *words],
    env=environment,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == code, done.stderr
  return done.stderr


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
def test_bad_flags(case, place):
  words, code, told = REFUSED[case]
  workdir = place / case.replace(' ', '_')
  said = gan(place, *TOY, f'--workdir={workdir}', *words, code=code)
  assert 'Traceback' not in said
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
def test_bad_folders(case, place):
  files, code, told = FOLDERS[case]
  folder = folder_of(place, case, **files)
  workdir = place / f'run-{case}'
  words = [f'--dataset=folder:{folder}', '--network=dcgan', '--batch_size=1']
  said = gan(place, *TOY, f'--workdir={workdir}', *words, code=code)
  assert 'Traceback' not in said
  for part in told:
    assert part in said
  assert not workdir.exists()


def test_a_missing_set_says_how_to_prepare_it(place):
  words = ['--dataset=mnist', '--network=dcgan', f'--workdir={place / "m"}']
  said = gan(place, *TOY, *words, code=1)
  assert 'Traceback' not in said
  assert 'python -m gan_jax.prepare --dataset=mnist' in said


def test_a_truncated_original_is_refused(place):
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
    place,
    '--dataset=mnist',
    f'--from={folder}',
    f'--data_dir={place / "tfds"}',
    command='prepare',
    code=1,
  )
  assert 'Traceback' not in said
  assert 'idx' in said
  # Nothing that a later run would trust was left behind.
  words = ['--dataset=mnist', '--network=dcgan', f'--workdir={place / "m2"}']
  assert 'gan_jax.prepare' in gan(place, *TOY, *words, code=1)


@pytest.mark.parametrize('kib', [2, 16])
def test_no_room_while_saving(kib, place):
  """Files may not grow past so many KiB: what was saved before is whole.

  2 KiB stop the small files that are written at once, 16 the arrays, which
  threads write while the run goes on.
  """
  workdir = place / f'full-{kib}'
  words = [*TOY, '--width=64', f'--workdir={workdir}']
  gan(place, *words, code=0)
  before = restore.open_run(workdir)
  longer = [*words, '--steps=40', '--checkpoint_every=25', '--log_every=1']

  # In 512-byte blocks; what exceeds it fails to be written, as on a full disk.
  limited = ['sh', '-c', f'ulimit -f {2 * kib}; exec "$@"', 'sh']
  said = gan(place, *longer, code=1, before=limited)
  assert 'Traceback' not in said
  assert 'MiB are free' in said or 'cannot write' in said
  after = restore.open_run(workdir)
  assert after.step == before.step
  for path, saved in before.state.items():
    np.testing.assert_array_equal(after.state[path], saved)
  gan(place, *longer, code=0)
  assert restore.open_run(workdir).step == 40


def test_a_divergence_ends_with_3_and_names_the_commit(place):
  workdir = place / 'diverged'
  words = ('--lr_g=1e30', '--optimizer_g=sgd', f'--workdir={workdir}')
  assert 'diverged at step' in gan(place, *TOY, *words, code=app.DIVERGED)
  describe = [
    'git',
    '-C',
    str(pathlib.Path(restore.__file__).parent),
    'describe',
  ]
  commit = subprocess.run(
    [*describe, '--always', '--dirty'], capture_output=True, text=True
  )
  if commit.returncode:
    pytest.skip('the package lies in no checkout')
  facts = json.loads((workdir / 'run.json').read_text())
  assert facts['commit'] == commit.stdout.strip()
