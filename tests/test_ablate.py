"""The command `gan_jax.ablate`: refusals without JAX, kills and signals."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from gan_jax.config import app as doors

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module', autouse=True)
def _programs_kept(tmp_path_factory):
  PLACE['xla'] = str(tmp_path_factory.mktemp('xla'))


PLACE = {}


def command(path, *words):
  return [
    sys.executable,
    '-m',
    'gan_jax.ablate',
    f'--workdir={path}',
    '--dataset=ring',
    '--network=mlp',
    '--width=16',
    '--batch_size=16',
    '--steps=1500',
    '--log_every=100',
    '--checkpoint_every=100',
    '--eval_samples=500',
    '--noreport',
    '--vary=objective=minimax,hinge',
    '--vary=lr_g+lr_d=1e-3,1e-2',
    '--seeds=3',
    f'--compilation_cache={PLACE["xla"]}',
    *words,
  ]


ENVIRONMENT = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}


def test_the_command_refuses_without_jax():
  for words, said in (
    (['--vary=lrd=1'], 'did you mean lr_d'),
    (['--seeds=0'], '--seeds=0: use 1 or more'),
    (['--seeds=two'], '--seeds=two: use a whole number'),
    (['--vary=nonsense'], "--vary=nonsense: there is no '='"),
    (['--metrics=mods'], '--metrics=mods: mods: did you mean modes?'),
    (
      ['--metrics=fid', '--features=clasifier'],
      '--features=clasifier: did you mean classifier?',
    ),
    (['--published=/no.json'], '--published=/no.json: cannot be read'),
    (['--layout=fast'], '--layout=fast: use auto, vmap or map'),
  ):
    done = subprocess.run(
      [sys.executable, '-X', 'importtime', *command('/nowhere/a', *words)[1:]],
      env=ENVIRONMENT,
      capture_output=True,
      text=True,
      cwd=ROOT,
    )
    assert done.returncode == 2, done.stderr[-500:]
    assert said in done.stderr
    assert ' jax\n' not in done.stderr


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
  """SIGKILL, six times over the whole of it; then the same table."""
  calm, harried = tmp_path / 'calm', tmp_path / 'harried'

  def run(path, **how):
    return subprocess.run(
      command(path), env=ENVIRONMENT, capture_output=True, cwd=ROOT, **how
    )

  run(tmp_path / 'warm')  # compiles
  started = time.monotonic()
  assert run(calm).returncode == doors.DONE
  takes = time.monotonic() - started
  rng, killed = random.Random(0), 0
  for i in range(6):
    process = subprocess.Popen(
      command(harried),
      env=ENVIRONMENT,
      cwd=ROOT,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    time.sleep(takes * (i + rng.random()) / 6)
    process.kill()
    killed += process.wait() == -signal.SIGKILL
  assert killed >= 3
  assert run(harried).returncode == doors.DONE
  assert (harried / 'results.csv').read_bytes() == (
    calm / 'results.csv'
  ).read_bytes()


@pytest.mark.slow
def test_a_signal_saves_and_says_run_me_again(tmp_path):
  words = command(tmp_path / 'a', '--steps=100000000')
  process = subprocess.Popen(
    words, env=ENVIRONMENT, cwd=ROOT, stderr=subprocess.PIPE, text=True
  )
  assert process.stderr is not None
  for line in process.stderr:
    if line.startswith('about '):
      break
  time.sleep(1)
  process.send_signal(signal.SIGTERM)
  _, said = process.communicate(timeout=60)
  assert process.returncode == doors.SAVED
  assert 'run the same command again' in said
  assert list((tmp_path / 'a/programs/000/checkpoints').glob('0*'))
