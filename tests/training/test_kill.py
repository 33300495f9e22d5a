"""Killed at any moment and started again: bitwise the run never killed."""

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from gan_jax.runtime import checkpoint
from gan_jax.runtime.checkpoint import Checkpoints

pytestmark = pytest.mark.slow

COMMON = [
  '--steps=400',
  '--batch_size=16',
  '--log_every=30',
  '--sample_every=100',
  '--checkpoint_every=20',
  '--num_samples=4',
  '--devices=1',
  '--noreport',
]
KINDS = {
  'density': ['--dataset=ring', '--network=mlp', '--width=16'],
  'resident': ['--dataset=digits', '--width=4', '--flip'],
  'streamed': ['--width=4', '--residence=stream', '--d_steps=2'],
}
KILLS = 5


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """Environment of the runs, and a folder of images for the streamed one."""
  root = tmp_path_factory.mktemp('kill')
  images = root / 'images'
  images.mkdir()
  rng = np.random.default_rng(0)
  for i in range(100):
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(images / f'{i:03d}.png')
  environment = dict(
    os.environ, TFDS_DATA_DIR=str(root / 'tfds'), JAX_PLATFORMS='cpu'
  )
  environment.pop('XLA_FLAGS', None)  # one device, as a user has
  return root, environment


def command(kind, workdir, root):
  words = [*KINDS[kind], *COMMON, f'--compilation_cache={root / "xla"}']
  if kind == 'streamed':
    words.append(f'--dataset=folder:{root / "images"}')
  return [sys.executable, '-m', 'gan_jax.train', f'--workdir={workdir}', *words]


def bits(workdir):
  """Every bit of the last state."""
  with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
    return checkpoint.digest(checkpoints.read_flat(400))


def newest(workdir: pathlib.Path) -> int:
  found = (workdir / 'checkpoints').glob('?????????')
  return max((int(p.name) for p in found), default=-1)


def unfinished(workdir: pathlib.Path) -> set[str]:
  """Checkpoints that are being written, or that a kill left unfinished."""
  return {p.name for p in (workdir / 'checkpoints').glob('*tmp*')}


def kill_once(words, environment, workdir, rng, in_writing):
  """Starts, waits for a checkpoint of its own and a moment more, kills."""
  before, stale = newest(workdir), unfinished(workdir)

  def writing():
    return bool(unfinished(workdir) - stale)

  process = subprocess.Popen(
    words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
  )
  try:
    deadline = time.monotonic() + 120
    while newest(workdir) <= before and process.poll() is None:
      assert time.monotonic() < deadline, 'no checkpoint in two minutes'
      time.sleep(0.002)
    if in_writing:
      while not writing() and process.poll() is None:
        time.sleep(0.0002)
    else:
      time.sleep(rng.uniform(0, 0.15))
    process.send_signal(signal.SIGKILL)
  finally:
    process.kill()
    process.communicate()
  return process.returncode == -signal.SIGKILL, writing()


@pytest.mark.parametrize('kind', sorted(KINDS))
def test_killed_five_times(kind, place):
  root, environment = place
  whole, parted = root / f'{kind}-whole', root / f'{kind}-parted'
  done = subprocess.run(
    command(kind, whole, root), env=environment, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  rng = random.Random(kind)
  words = command(kind, parted, root)
  killed = amid = 0
  for i in range(KILLS):
    was_killed, was_writing = kill_once(
      words, environment, parted, rng, in_writing=i % 2 == 0
    )
    killed += was_killed
    amid += was_killed and was_writing
  assert killed == KILLS, 'the run ended before it could be killed five times'
  assert amid >= 1, 'no kill fell into the writing of a checkpoint'
  done = subprocess.run(words, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'continuing at step' in done.stderr
  assert bits(parted) == bits(whole)


def test_killed_at_any_time_from_the_start_on(place):
  """While it imports, makes its folder, compiles, trains: never refused."""
  root, environment = place
  whole, parted = root / 'density-calm', root / 'density-harried'
  words = command('density', parted, root)
  started = time.monotonic()
  subprocess.run(
    command('density', whole, root),
    env=environment,
    check=True,
    capture_output=True,
  )
  takes = time.monotonic() - started
  rng = random.Random(0)
  killed = 0
  for i in range(12):
    process = subprocess.Popen(
      words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    # The first run compiled, which these find done.
    time.sleep(takes * (i % 6 + rng.random()) / 12)
    process.kill()
    said, _ = process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0), said
    killed += process.returncode != 0
  assert killed >= 6
  subprocess.run(words, env=environment, check=True, capture_output=True)
  assert bits(parted) == bits(whole)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_run_me_again(number, place):
  root, environment = place
  workdir = root / f'signal-{number}'
  words = command('density', workdir, root)
  words = [w for w in words if 'checkpoint_every' not in w]
  words += ['--checkpoint_every=1000000', '--steps=1000000']
  process = subprocess.Popen(
    words, env=environment, stderr=subprocess.PIPE, text=True
  )
  assert process.stderr is not None
  for line in process.stderr:
    if line.startswith('step '):
      break
  process.send_signal(number)
  _, said = process.communicate(timeout=60)
  assert process.returncode == 75
  assert 'run the same command again' in said
  assert newest(workdir) > 0
