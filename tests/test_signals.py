"""Signals, closed streams and poor file systems, in processes of their own.

The table: each signal, sent twice at once, in each phase of each command. What
can be saved is saved (75: run the same command again), no checkpoint is lost,
and nobody sees a traceback.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from helpers import compiling, denied
from helpers.saved_run import write_run

from gan_jax.config import app
from gan_jax.training import restore

TOY = [
  '--dataset=ring',
  '--network=mlp',
  '--width=8',
  '--batch_size=8',
  '--log_every=50',
  '--num_samples=4',
  '--devices=1',
]
LONG = ['--steps=100000000', '--checkpoint_every=100000000']
KINDS = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGPIPE']
_WAIT = 180.0


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  return tmp_path_factory.mktemp('signals')


@pytest.fixture
def begin(place, programs):
  """Starts a command whose lines can be waited for."""
  environment = dict(os.environ, TFDS_DATA_DIR=str(place / 'tfds'))
  environment['XLA_FLAGS'] = compiling.of_a_process()
  with contextlib.ExitStack() as stack:

    def begin(command, *words, first=(), cached=True, env=None, **options):
      if command in ('train', 'ablate'):
        cache = programs if cached else 'off'
        words = (f'--compilation_cache={cache}', *words)
      options = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT) | options
      process = subprocess.Popen(
        [*first, sys.executable, '-m', f'gan_jax.{command}', *words],
        env=environment | (env or {}),
        text=True,
        **options,
      )
      stack.callback(process.wait)
      stack.callback(process.kill)
      return process

    yield begin


def wait_for(process, cue):
  """What was said up to a line with a cue."""
  said = ''
  for line in process.stdout:
    said += line
    if cue in line:
      return said
  raise AssertionError(f'ended without {cue}: {said}')


def end(process, said=''):
  """Exit code, and all that was said; no traceback is in it."""
  rest, _ = process.communicate(timeout=_WAIT)
  said += rest or ''
  assert 'Traceback' not in said and 'Exception ignored' not in said, said
  return process.returncode, said


def send(process, kind, count=2):
  for _ in range(count):
    if process.poll() is None:
      process.send_signal(getattr(signal, kind))


# Small ones, of the default run.


def test_closed_streams_end_no_run(begin, tmp_path):
  """Neither a descriptor that is closed at the start, nor `| head`."""
  read, write = os.pipe()
  os.close(read)
  shell = ['sh', '-c', 'exec "$@" <&- 2>&-', 'sh']
  run = begin(
    'train',
    *TOY,
    f'--workdir={tmp_path / "run"}',
    '--steps=100',
    '--noreport',
    first=shell,
    stdout=write,
    stderr=None,
  )
  os.close(write)
  assert run.wait(_WAIT) == app.DONE
  assert restore.saved_steps(tmp_path / 'run') == [100]


def test_a_terminal_that_goes_away_saves(begin, tmp_path):
  words = ('--noreport', f'--workdir={tmp_path / "run"}')
  run = begin('train', *TOY, *LONG, *words)
  said = wait_for(run, 'step 50/')
  send(run, 'SIGHUP')
  code, said = end(run, said)
  assert code == app.SAVED and 'run the same command again' in said
  assert restore.saved_steps(tmp_path / 'run')[-1] > 0


# The table.


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['SIGTERM', 'SIGINT'])
@pytest.mark.parametrize('delay', [0.0, 0.5, 1.0, 1.5])
def test_a_signal_amid_a_compilation(delay, kind, begin, tmp_path):
  """Which a thread of XLA goes on with while the process ends."""
  words = [*TOY, *LONG, '--noreport', f'--workdir={tmp_path / "run"}']
  run = begin('train', *words, cached=False, env={'XLA_FLAGS': ''})
  said = wait_for(run, 'devices: ')
  time.sleep(delay)
  send(run, kind, 1)
  code, said = end(run, said)
  assert code == app.SAVED, said
  assert 'Segmentation' not in said


@pytest.mark.soak
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('phase', ['start', 'compile', 'train', 'save'])
def test_training(phase, kind, begin, tmp_path):
  cues = dict(start='data:', compile='devices:', train='step 50/')
  words = [*TOY, *LONG, '--noreport', f'--workdir={tmp_path / "run"}']
  if phase == 'compile':
    words.append('--compilation_cache=off')
  if phase == 'save':
    words[len(TOY) + 1] = '--checkpoint_every=1'
  run = begin('train', *words)
  said = wait_for(run, cues.get(phase, 'step 50/'))
  send(run, kind)
  if kind == 'SIGPIPE':  # of a stream that was closed: nothing ends by it
    said += wait_for(run, 'step 150/')
    send(run, 'SIGTERM')
  code, said = end(run, said)
  assert code == app.SAVED and 'run the same command again' in said
  steps = restore.saved_steps(tmp_path / 'run')
  if phase in ('train', 'save') or kind == 'SIGPIPE':
    restore.open_run(tmp_path / 'run', steps[-1])


@pytest.mark.soak
@pytest.mark.parametrize('kind', KINDS)
def test_scoring_in_training(kind, begin, tmp_path):
  words = [*TOY, '--steps=100', '--noreport', '--metrics=modes']
  words += [f'--workdir={tmp_path / "run"}', '--eval_samples=500000']
  words += ['--eval_seeds=20']
  run = begin('train', *words)
  said = wait_for(run, 'step 100/')
  time.sleep(1)
  send(run, kind)
  if kind == 'SIGPIPE':
    send(run, 'SIGTERM')
  code, said = end(run, said)
  assert code == app.SAVED and 'saved at step 100 of 100' in said
  assert restore.saved_steps(tmp_path / 'run') == [100]


@pytest.mark.soak
@pytest.mark.parametrize('gap', [0.0, 1.5])
def test_ctrl_c_again_while_it_saves_or_scores(gap, begin, tmp_path):
  """Once more and it ends at once; what was saved before is whole."""
  words = [*TOY, '--steps=100', '--noreport', '--metrics=modes']
  words += [f'--workdir={tmp_path / "run"}', '--eval_samples=500000']
  run = begin('train', *words, '--eval_seeds=20', '--checkpoint_every=100')
  said = wait_for(run, 'step 100/')
  send(run, 'SIGINT', 1)
  time.sleep(gap)
  send(run, 'SIGINT', 1)
  code, said = end(run, said)
  assert code in (app.SAVED, app.INTERRUPTED, -signal.SIGINT)
  assert restore.open_run(tmp_path / 'run').step == 100


@pytest.mark.soak
@pytest.mark.parametrize('kind', ['SIGINT', 'SIGTERM', 'SIGHUP'])
@pytest.mark.parametrize('delay', [1.0, 6.0])
@pytest.mark.parametrize('command', ['sample', 'evaluate', 'report', 'prepare'])
def test_commands_that_save_nothing(command, delay, kind, begin, tmp_path):
  """One line at the most, and nothing half written."""
  run = write_run(tmp_path / 'run')
  out = tmp_path / 'out' / 'x.npz'
  out.parent.mkdir()
  words = {
    'sample': [f'--workdir={run}', '--num=3000000', f'--out={out}'],
    'evaluate': [f'--workdir={run}', '--metrics=modes', '--samples=3000000'],
    'report': [f'--workdir={run}'],
    'prepare': ['--dataset=digits', f'--data_dir={tmp_path / "tfds"}'],
  }
  process = begin(command, *words[command])
  time.sleep(delay)
  send(process, kind)
  code, said = end(process)
  ended = (-getattr(signal, kind), app.DONE)
  if kind == 'SIGINT':
    ended += (app.INTERRUPTED,)
    # Not as the last line always: what is printed to a pipe waits until then.
    assert code != app.INTERRUPTED or said.count('by Ctrl-C') == 1
    assert 'Traceback' not in said
  assert code in ended
  if kind == 'SIGINT' and code == app.INTERRUPTED and command == 'sample':
    assert not [*out.parent.iterdir()]


@pytest.mark.soak
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('cue', ['runs: ', 'about ', 'runs: , later'])
def test_ablations(cue, kind, begin, tmp_path):
  words = [*TOY, '--steps=20000', '--checkpoint_every=1000', '--metrics=modes']
  words += [f'--workdir={tmp_path / "grid"}', '--eval_samples=2000']
  words += ['--vary=objective=hinge,minimax', '--seeds=2', '--noreport']
  run = begin('ablate', *words)
  said = wait_for(run, cue.split(',')[0])
  time.sleep(4 * cue.endswith('later'))
  send(run, kind)
  if kind == 'SIGPIPE':
    send(run, 'SIGTERM')
  code, said = end(run, said)
  assert code == app.SAVED and 'run the same command again' in said


# File systems.

DENIED = {
  'no flock': 'flock:ENOSYS',
  'no locks at all': 'flock:ENOLCK,fcntl:ENOLCK',
  'no chmod': 'chmod:EPERM,fchmod:EPERM,fchmodat:EPERM,fchmodat2:EPERM',
}
DENIED['none of them'] = f'{DENIED["no locks at all"]},{DENIED["no chmod"]}'


@pytest.mark.soak
@pytest.mark.skipif(not denied.AVAILABLE, reason='a filter of Linux, x86-64')
@pytest.mark.parametrize('case', sorted(DENIED))
def test_file_systems_that_can_do_less(case, begin, tmp_path):
  """Trained, continued, scored, sampled, reported and compared there."""
  first = [sys.executable, denied.__file__, DENIED[case]]
  run, grid = tmp_path / 'run', tmp_path / 'grid'
  words = [*TOY, '--checkpoint_every=50', '--metrics=modes']
  words += ['--eval_samples=500']
  grown = [*words, f'--workdir={run}']
  cells = ['--vary=objective=hinge,minimax', f'--workdir={grid}']
  for command, *own in [
    ('train', *grown, '--steps=100'),
    ('train', *grown, '--steps=150'),
    ('evaluate', f'--workdir={run}', '--metrics=modes', '--samples=300'),
    ('sample', f'--workdir={run}', f'--out={tmp_path / "x.npz"}'),
    ('report', f'--workdir={run}'),
    ('ablate', *words, *cells, '--steps=50'),
    ('ablate', *words, *cells, '--steps=50'),
  ]:
    code, said = end(begin(command, *own, first=first))
    assert code == app.DONE, said
    if command == 'train' and 'chmod' not in case:
      told = 'has no locks' in said
      assert told == (case != 'no chmod')
  assert restore.saved_steps(run)[-1] == 150
  assert json.loads((run / 'run.json').read_text())['outcome'] == 'done'
  left = [p.name for p in pathlib.Path(tmp_path).rglob('.lease-*')]
  assert not left
