"""Two processes through launch/local.py: the noise and data of one."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import compiling

from gan_jax.evaluation.score_file import ScoreFile, scores_of
from gan_jax.training import restore, writers

pytestmark = pytest.mark.multiprocess

ROOT = pathlib.Path(__file__).parents[2]
COMMON = [
  '--width=4',
  '--batch_size=16',
  '--steps=30',
  '--log_every=1',
  '--checkpoint_every=10',
  '--sample_every=30',
  '--num_samples=4',
  '--noreport',
]
KINDS = {
  'density': ['--dataset=ring', '--network=mlp'],
  'resident': ['--flip'],
  'streamed': ['--residence=stream'],
}


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  root = tmp_path_factory.mktemp('multiprocess')
  environment = dict(os.environ, TFDS_DATA_DIR=str(root / 'tfds'))
  environment['XLA_FLAGS'] = compiling.of_a_process()
  return root, environment


def alone(root, workdir, words):
  return [
    sys.executable,
    '-m',
    'gan_jax.train',
    f'--workdir={workdir}',
    f'--compilation_cache={root / "xla"}',
    *COMMON,
    *words,
  ]


def together(root, workdir, words):
  flagfile = root / 'job.flags'
  flagfile.write_text('\n'.join(COMMON) + '\n')
  return [
    sys.executable,
    str(ROOT / 'launch' / 'local.py'),
    '--processes=2',
    f'--flagfile={flagfile}',
    f'--workdir={workdir}',
    '--',
    *words,
    '--compilation_cache=off',
  ]


def run(command, environment):
  return subprocess.run(
    ['timeout', '-k', '5', '150', *command],
    env=environment,
    capture_output=True,
    text=True,
    cwd=ROOT,
  )


def losses(workdir):
  return [
    [row['step'], row['d/loss'], row['g/loss'], row['d/prob_real']]
    for row in writers.read_rows(workdir / 'stats.jsonl')
  ]


@pytest.mark.parametrize('kind', sorted(KINDS))
def test_two_processes_agree_with_one(kind, place):
  root, environment = place
  one, two = root / f'{kind}-1', root / f'{kind}-2'
  done = run(alone(root, one, KINDS[kind]), environment)
  assert done.returncode == 0, done.stderr
  done = run(together(root, two, KINDS[kind]), environment)
  assert done.returncode == 0, done.stdout + done.stderr
  np.testing.assert_allclose(losses(two), losses(one), rtol=2e-3, atol=1e-5)
  np.testing.assert_allclose(
    losses(two)[:2], losses(one)[:2], rtol=2e-5, atol=1e-6
  )
  assert restore.open_run(two).step == 30


def test_both_save_at_the_same_step_and_one_goes_on(place):
  root, environment = place
  workdir = root / 'stopped'
  words = [*KINDS['density'], '--steps=1000000', '--log_every=100']
  process = subprocess.Popen(
    ['timeout', '-k', '5', '150', *together(root, workdir, words)],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    cwd=ROOT,
  )
  deadline = time.monotonic() + 120
  while len(writers.read_rows(workdir / 'stats.jsonl')) < 2:
    assert time.monotonic() < deadline
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  said, _ = process.communicate(timeout=60)
  assert process.returncode == 75, said
  saved = restore.open_run(workdir).step
  # One process goes on where two stopped.
  process = subprocess.Popen(
    ['timeout', '-k', '5', '150', *alone(root, workdir, words)],
    env=environment,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  )
  assert process.stderr is not None
  lines = []
  for line in process.stderr:
    lines.append(line)
    if line.startswith('step '):
      break
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=60)
  assert process.returncode == 75, lines
  assert f'continuing at step {saved}\n' in lines
  assert restore.open_run(workdir).step > saved


def test_who_lives_saves_what_it_holds_and_is_gone_on_from(place):
  """One of the two is killed; no checkpoint is near."""
  root, environment = place
  words = [*KINDS['density'], '--steps=200', '--checkpoint_every=200']
  words += ['--sample_every=200']
  whole, killed = root / 'whole', root / 'killed'
  done = run(together(root, whole, words), environment)
  assert done.returncode == 0, done.stdout + done.stderr
  command = together(root, killed, words)
  process = subprocess.Popen(
    ['timeout', '-k', '5', '150', *command],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    cwd=ROOT,
  )
  deadline = time.monotonic() + 120
  while len(writers.read_rows(killed / 'stats.jsonl')) < 20:
    assert time.monotonic() < deadline
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.05)
  os.kill(max(ranks(killed)), signal.SIGKILL)
  said, _ = process.communicate(timeout=60)
  assert process.returncode in (1, 137) and 'saved at step' in said, said
  (saved,) = [int(path.stem) for path in (killed / 'rescue').glob('*.npz')]
  assert not restore.saved_steps(killed) and saved >= 20
  done = run(command, environment)
  said = done.stdout + done.stderr
  assert done.returncode == 0 and f'continuing at step {saved}\n' in said
  assert not (killed / 'rescue').exists()
  one, other = (restore.open_run(path).state for path in (whole, killed))
  assert all((one[name] == other[name]).all() for name in one)


def ranks(workdir):
  """Processes that train there."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
    try:
      words = path.read_bytes().split(b'\0')
    except OSError:
      continue
    module = words[1:3] == [b'-m', b'gan_jax.train']
    if module and f'--workdir={workdir}'.encode() in words:
      found.append(int(path.parent.name))
  return found


def test_two_processes_score_as_one(place):
  """What they wrote while training, and one process of the same generator."""
  root, environment = place
  workdir = root / 'scored'
  words = [
    *KINDS['density'],
    '--steps=4',
    '--metrics=fid,kid,modes',
    '--eval_samples=200',
  ]
  done = run(together(root, workdir, words), environment)
  assert done.returncode == 0, done.stdout + done.stderr
  scores = ScoreFile(workdir / 'metrics.jsonl')
  (two,) = scores.rows()
  assert two['step'] == 4 and two['fid'] > 1e-2
  scores.path.unlink()
  command = [sys.executable, '-m', 'gan_jax.evaluate', f'--workdir={workdir}']
  done = run([*command, '--samples=200'], environment)
  assert done.returncode == 0, done.stderr
  (one,) = scores.rows()
  assert one['model'] == two['model']
  for name, value in scores_of(one).items():
    assert two[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
