"""Killed at any moment and started again: bitwise what was never killed.

The soak, a hundred kills of runs and thirty of ablations:

  python -m pytest -m soak -rP tests/training/test_kill.py

Its moments are drawn from GAN_JAX_SOAK_SEED (0 where it is not set); what it
prints names the seed and counts the kills.
"""

import collections
import contextlib
import dataclasses
import json
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
from helpers import compiling

from gan_jax.runtime.checkpoint import Checkpoints

COMMON = [
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
# Two programs, in each of which a cell diverges.
ABLATION = [
  '--dataset=ring',
  '--network=mlp',
  '--width=8',
  '--depth=1',
  '--batch_size=8',
  '--steps=200',
  '--log_every=20',
  '--checkpoint_every=20',
  '--eval_every=50',
  '--eval_samples=200',
  '--vary=objective=minimax,hinge',
  '--vary=lr_g+lr_d=1e-3,1e15',
  '--seeds=2',
  '--devices=1',
  '--noreport',
]
KILLS = 3
SOAK = {'density': 34, 'resident': 33, 'streamed': 33, 'ablation': 30}
SEED = int(os.environ.get('GAN_JAX_SOAK_SEED', '0'))
# What no two logs have in common.
OF_TIME = ('speed/', 'time/', 'data/wait', 'crc32')
ROUNDING = 1e-5  # of means in a log, which the clock parts into partial sums


@dataclasses.dataclass(frozen=True)
class Task:
  """A command that trains, whatever its folder, and how to compare two of it.

  Attributes:
    words: of the command.
    environment: that it runs in.
    contents: what must be the same in two folders, by what it is: bytes, or
      arrays of a log, which are the same but for rounding.
  """

  words: list[str]
  environment: dict[str, str]
  contents: object

  def command(self, workdir):
    return [*self.words, f'--workdir={workdir}']

  def finish(self, workdir):
    """Runs it to its end, undisturbed; what it said, and the seconds."""
    started = time.monotonic()
    done = subprocess.run(
      self.command(workdir),
      env=self.environment,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr, time.monotonic() - started


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
  environment['XLA_FLAGS'] = compiling.of_a_process()
  return root, environment


def make_task(kind, place, steps=400):
  root, environment = place
  name = 'ablate' if kind == 'ablation' else 'train'
  words = [sys.executable, '-m', f'gan_jax.{name}']
  words.append(f'--compilation_cache={root / "xla"}')
  if kind == 'ablation':
    return Task(words + ABLATION, environment, of_ablation)
  words += [*KINDS[kind], *COMMON, f'--steps={steps}']
  if kind == 'streamed':
    words.append(f'--dataset=folder:{root / "images"}')
  return Task(words, environment, of_run)


# What must be the same.


def of_state(folder):
  """The newest checkpoint, array by array."""
  with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
    step = max(checkpoints.steps())
    flat = checkpoints.read_flat(step)
  return {f'{name} at step {step}': flat[name].tobytes() for name in flat}


def of_archive(path):
  with np.load(path) as arrays:
    return [(name, arrays[name]) for name in arrays.files]


def samples_of(folder):
  """Without what a kill left half written, which a later start removes."""
  return sorted((folder / 'samples').glob('[!.]*'))


def of_run(workdir):
  """The last state, every line of the log but its times, all samples."""
  found = of_state(workdir)
  for i, line in enumerate((workdir / 'stats.jsonl').read_text().splitlines()):
    for name, x in json.loads(line).items():
      if not name.startswith(OF_TIME):
        found[f'line {i + 1} of the log, {name}'] = np.float64(x)
  for path in samples_of(workdir):
    if path.suffix == '.png':
      found[path.name] = path.read_bytes()
    else:  # points
      points = of_archive(path)
      found |= {f'{path.name}, {name}': x.tobytes() for name, x in points}
  return found


def of_ablation(workdir):
  """Its tables; of each program the last state, the log and the samples."""
  tables = ('results.csv', 'scores.csv')
  found = {name: (workdir / name).read_bytes() for name in tables}
  for folder in sorted((workdir / 'programs').glob('???')):
    parts = of_state(folder) | dict(of_archive(folder / 'stats.npz'))
    for path in samples_of(folder):
      parts[path.name] = path.read_bytes()
    found |= {f'{folder.name}: {name}': x for name, x in parts.items()}
  return found


def differences(task, ours, theirs):
  """Lines on what two folders do not share; none where they are the same."""
  a, b = task.contents(ours), task.contents(theirs)
  lines = [f'only in {ours}: {name}' for name in a if name not in b]
  lines += [f'only in {theirs}: {name}' for name in b if name not in a]
  return lines + [
    f'differs: {k}' for k in a if k in b and not is_same(a[k], b[k])
  ]


def is_same(a, b):
  if isinstance(a, bytes):
    return a == b
  return np.shape(a) == np.shape(b) and np.allclose(
    a, b, ROUNDING, ROUNDING, equal_nan=True
  )


# Kills.


def newest(workdir: pathlib.Path) -> tuple[str, ...]:
  """The last finished checkpoint, of the last program where there are many."""
  found = [*workdir.glob('checkpoints/?????????')]
  found += workdir.glob('programs/*/checkpoints/?????????')
  return max((path.parts for path in found), default=())


def unfinished(workdir: pathlib.Path) -> set[str]:
  """Checkpoints that are being written, or that a kill left unfinished."""
  found = [*workdir.glob('checkpoints/*tmp*')]
  found += workdir.glob('programs/*/checkpoints/*tmp*')
  return {str(path) for path in found}


@dataclasses.dataclass(frozen=True)
class Moment:
  """When to kill: so many seconds after a cue.

  Attributes:
    cue: `start`; `saved`, a checkpoint of its own; `writing`, it writes another
      one after that.
    seconds: after the cue.
  """

  cue: str
  seconds: float = 0.0


def kill_once(task, workdir, moment):
  """Starts, waits for a moment, kills.

  Returns:
    Whether it was killed, and not at its end before; whether a checkpoint was
    being written; what it said.
  """
  before, stale = newest(workdir), unfinished(workdir)

  def writing():
    return bool(unfinished(workdir) - stale)

  process = subprocess.Popen(
    task.command(workdir),
    env=task.environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  try:
    deadline = time.monotonic() + 300
    if moment.cue != 'start':
      while newest(workdir) <= before and process.poll() is None:
        assert time.monotonic() < deadline, 'no checkpoint in five minutes'
        time.sleep(0.002)
    if moment.cue == 'writing':
      while not writing() and process.poll() is None:
        time.sleep(0.0002)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(moment.seconds)
    process.send_signal(signal.SIGKILL)
  finally:
    process.kill()
    said, _ = process.communicate()
  killed = process.returncode == -signal.SIGKILL
  assert killed or process.returncode == 0, said
  return killed, killed and writing(), said


@pytest.mark.slow
@pytest.mark.parametrize('kind', sorted(KINDS))
def test_killed_thrice(kind, place):
  root, _ = place
  task = make_task(kind, place)
  whole, parted = root / f'{kind}-whole', root / f'{kind}-parted'
  task.finish(whole)
  rng = random.Random(kind)
  killed = amid = 0
  for i in range(KILLS):
    later = Moment('saved', rng.uniform(0, 0.15))
    moment = later if i % 2 else Moment('writing')
    was_killed, was_writing, _ = kill_once(task, parted, moment)
    killed += was_killed
    amid += was_writing
  assert killed == KILLS, 'the run ended before it could be killed thrice'
  assert amid >= 1, 'no kill fell into the writing of a checkpoint'
  said, _ = task.finish(parted)
  assert 'continuing at step' in said
  assert not differences(task, parted, whole)


@pytest.mark.slow
def test_killed_at_any_time_from_the_start_on(place):
  """While it imports, makes its folder, compiles, trains: never refused."""
  root, _ = place
  task = make_task('density', place)
  whole, parted = root / 'density-calm', root / 'density-harried'
  _, takes = task.finish(whole)
  rng = random.Random(0)
  killed = 0
  for i in range(6):
    # The first run compiled, which these find done.
    moment = Moment('start', takes * (i + rng.random()) / 12)
    killed += kill_once(task, parted, moment)[0]
  assert killed >= 3
  task.finish(parted)
  assert not differences(task, parted, whole)


def draw_moment(rng, takes):
  """Amid a write, soon after a checkpoint, or at any time at all."""
  cue = rng.choices(('writing', 'saved', 'start'), (3, 3, 2))[0]
  most = {'writing': 0.005, 'saved': 0.3, 'start': takes}[cue]
  return Moment(cue, rng.uniform(0, most))


@pytest.mark.soak
@pytest.mark.parametrize('kind', SOAK)
def test_soak(kind, place):
  """Killed until there were so many kills, begun anew whenever it ended."""
  root, _ = place
  task = make_task(kind, place, steps=2000)
  whole = root / f'{kind}-soak'
  task.finish(whole)  # compiles, which the others find done
  _, takes = task.finish(root / f'{kind}-timed')
  assert not differences(task, root / f'{kind}-timed', whole)
  rng = random.Random(f'{SEED} {kind}')
  kills, moments = collections.Counter(), []
  amid = rounds = 0
  while sum(kills.values()) < SOAK[kind]:
    parted, ended = root / f'{kind}-soak-{rounds}', False
    moments = []
    while sum(kills.values()) < SOAK[kind] and not ended:
      moments.append(draw_moment(rng, takes))
      killed, was_writing, _ = kill_once(task, parted, moments[-1])
      kills[moments[-1].cue] += killed
      amid += was_writing
      ended = not killed
    task.finish(parted)
    rounds += 1
    assert not (found := differences(task, parted, whole)), (
      f'{kind}, GAN_JAX_SOAK_SEED={SEED}, run {rounds}, killed at {moments}:\n'
      + '\n'.join(found[:20])
    )
  print(
    f'{kind}, GAN_JAX_SOAK_SEED={SEED}: {sum(kills.values())} kills of'
    f' {rounds} runs ({dict(kills)} by cue), {amid} amid the writing of a'
    ' checkpoint; every run ended as the undisturbed one, to the bit'
  )
  assert amid >= SOAK[kind] // 10, 'too few kills amid the writing'


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_run_me_again(number, place):
  root, environment = place
  workdir = root / f'signal-{number}'
  words = make_task('density', place, steps=1000000).command(workdir)
  words = [w for w in words if 'checkpoint_every' not in w]
  words.append('--checkpoint_every=1000000')
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
  assert newest(workdir)
