"""Launching: what a dry run prints, and what real processes do.

No test here needs a cluster or the trainer: small scripts stand in for it.
"""

import importlib.util
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LOCAL = ROOT / 'launch' / 'local.py'
SLURM = ROOT / 'launch' / 'slurm.py'

JOINER = """
import sys
import jax
import jax.numpy as jnp
jax.distributed.initialize()
from jax.experimental import multihost_utils
got = multihost_utils.process_allgather(jnp.int32(10 + jax.process_index()))
print('devices', jax.local_device_count(), jax.device_count(), *got)
print('words', *sys.argv[1:])
"""
# Says 75 after a SIGTERM, as the trainer does, and counts the signals.
SAVER = """
import signal, sys, time
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
print('ready')
while not heard:
  time.sleep(0.02)
time.sleep(0.2)
print('heard', len(heard))
sys.exit(75)
"""
# One process fails as it is told, the others hang and ignore SIGTERM.
FAILER = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.environ.get('SLURM_PROCID', '0') == '0':
  how = sys.argv[-1]
  os.kill(os.getpid(), 9) if how == 'killed' else sys.exit(int(how))
time.sleep(60)
"""
# Fails until it has been started as often as it is told.
COUNTER = """
import pathlib, sys
path, times, code = pathlib.Path(sys.argv[-3]), *map(int, sys.argv[-2:])
starts = path.read_text() + '.' if path.exists() else '.'
path.write_text(starts)
sys.exit(code if len(starts) < times else 0)
"""


sys.path.append(str(ROOT / 'launch'))  # as it is for a script in it


def load(path):
  """A launcher as a module; launch/ is no package."""
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module
  spec.loader.exec_module(module)
  return module


@pytest.fixture
def start(tmp_path):
  """Starts the launcher on a script; whatever is left is killed."""
  started = []

  def start(script, *words, **environ):
    (tmp_path / 'script.py').write_text(script)
    process = subprocess.Popen(
      [sys.executable, LOCAL, '--module=script', '--platform=cpu', *words],
      env={**os.environ, 'PYTHONPATH': str(tmp_path), **environ},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
    )
    started.append(process)
    return process

  yield start
  for process in started:
    process.kill()
    process.communicate()


def finish(process, timeout=60):
  out, _ = process.communicate(timeout=timeout)
  return process.returncode, out


def dry(path, *words, **environ):
  return subprocess.run(
    [sys.executable, path, '--dry_run', *words],
    env={**os.environ, **environ},
    capture_output=True,
    text=True,
    timeout=60,
  )


def test_local_dry_run_shows_every_command(tmp_path):
  flagfile = tmp_path / 'a run.flags'
  flagfile.touch()
  done = dry(
    LOCAL,
    '--processes=2',
    '--platform=cpu',
    f'--flagfile={flagfile}',
    '--workdir=w',
    '--',
    '--steps=3',
  )
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert len(lines) == 2
  for i, line in enumerate(lines):
    assert f' SLURM_PROCID={i} SLURM_LOCALID={i} ' in line
    assert ' SLURM_NTASKS=2 ' in line
    assert f"-m gan_jax.train '--flagfile={flagfile}' --workdir=w" in line
    assert line.endswith(' --multihost=true --steps=3')
  address = [line.split('JAX_COORDINATOR_ADDRESS=')[1] for line in lines]
  assert address[0].split()[0] == address[1].split()[0]


def test_one_process_joins_nothing():
  done = dry(LOCAL, '--processes=1', '--platform=cpu', '--workdir=w')
  assert done.returncode == 0, done.stderr
  assert 'SLURM' not in done.stdout
  assert 'multihost' not in done.stdout


def test_each_process_gets_one_gpu():
  environ = {'CUDA_VISIBLE_DEVICES': '3,5'}
  done = dry(LOCAL, '--platform=gpu', **environ)
  lines = done.stdout.splitlines()
  assert len(lines) == 2, done.stderr
  assert 'CUDA_VISIBLE_DEVICES=3 JAX_LOCAL_DEVICE_IDS=0 ' in lines[0]
  assert 'CUDA_VISIBLE_DEVICES=5 JAX_LOCAL_DEVICE_IDS=0 ' in lines[1]
  assert 'JAX_PLATFORMS' not in done.stdout

  hidden = dry(LOCAL, '--platform=gpu', CUDA_VISIBLE_DEVICES='4,')
  assert hidden.stdout.count('CUDA_VISIBLE_DEVICES=') == 1

  done = dry(LOCAL, '--platform=gpu', '--processes=3', **environ)
  assert done.returncode == 2
  assert '--processes=3: this machine shows 2 GPUs' in done.stderr


def test_gpus_are_those_that_the_driver_lists(tmp_path):
  lines = 'GPU 0: H200 (UUID: GPU-1)\\n  MIG 1g\\nGPU 1: H200 (UUID: GPU-2)\\n'
  (tmp_path / 'nvidia-smi').write_text(f'#!/bin/sh\nprintf "{lines}"\n')
  (tmp_path / 'nvidia-smi').chmod(0o755)
  environ = {k: v for k, v in os.environ.items() if k != 'CUDA_VISIBLE_DEVICES'}
  done = subprocess.run(
    [sys.executable, LOCAL, '--dry_run', '--workdir=w'],
    env={**environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
    capture_output=True,
    text=True,
  )
  first, second = done.stdout.splitlines()
  assert 'CUDA_VISIBLE_DEVICES=0 ' in first and '--multihost=true' in first
  assert 'CUDA_VISIBLE_DEVICES=1 ' in second
  assert 'SLURM_PROCID=1 ' in second and 'PYTHONUNBUFFERED=1' in second


@pytest.mark.parametrize(
  ('words', 'said'),
  [
    (['--proceses=2'], 'proceses'),
    (['--processes=-1'], '--processes'),
    (['--flagfile=/none.flags'], '--flagfile=/none.flags: no such file'),
    (['--platform=abacus'], '--platform'),
    (['--steps=3'], '--steps'),
  ],
)
def test_local_refuses(words, said):
  done = dry(LOCAL, *words)
  assert done.returncode == 2
  assert said in done.stderr


def test_virtual_devices_are_left_out():
  local = load(LOCAL)
  flags = '--xla_a=1 --xla_force_host_platform_device_count=4 --xla_b'
  added = local.cpu_environment({'XLA_FLAGS': flags})
  assert added['XLA_FLAGS'] == '--xla_a=1 --xla_b'


@pytest.mark.parametrize(
  ('how', 'want'), [('0', 0), ('3', 3), ('75', 75), ('killed', 137)]
)
def test_exit_code_of_one_process_passes_through(start, how, want):
  process = start(FAILER, '--processes=1', '--', how)
  code, out = finish(process)
  assert code == want, out


def test_saved_counts_more_than_an_earlier_failure(start):
  """A requeued job goes on from what one of its processes saved."""
  script = """
import os, sys, time
first = os.environ['SLURM_PROCID'] == '0'
time.sleep(0 if first else 0.5)
sys.exit(1 if first else 75)
"""
  process = start(script, '--processes=2')
  code, out = finish(process, 20)
  assert '[0] ended with 1\n' in out
  assert code == 75, out


def test_a_stopped_job_is_not_started_again(start):
  process = start(SAVER, '--processes=1', '--retries=3')
  assert process.stdout.readline() == '[0] ready\n'
  process.terminate()
  code, out = finish(process, 20)
  assert code == 75, out
  assert 'ready' not in out and 'again, ' not in out


def test_processes_are_not_in_the_group_of_the_terminal(start):
  """So that Ctrl-C, which the launcher passes on, does not come twice."""
  process = start('import os; print("group", os.getpgrp())', '--processes=2')
  code, out = finish(process)
  groups = [line.split()[-1] for line in out.splitlines() if 'group' in line]
  assert code == 0 and len(set(groups)) == 2, out
  assert str(process.pid) not in groups


def test_a_killed_launcher_leaves_no_process(start, tmp_path):
  """Its processes save; one that hangs is killed after a while."""
  script = SAVER.replace("print('ready')", "print('ready', os.getpid())")
  script = script.replace('import signal', 'import os, signal')
  script = script.replace("print('heard', len(heard))", 'os.SEEN')
  script = script.replace(
    'os.SEEN',
    'open(f"{sys.argv[-1]}/saved{os.getpid()}", "w")\n'
    'os.environ["SLURM_PROCID"] == "0" or time.sleep(60)',
  )
  words = ('--processes=2', '--stop_seconds=1')
  process = start(script, *words, '--', str(tmp_path))
  pids = [int(process.stdout.readline().split()[-1]) for _ in range(2)]
  process.kill()
  until = time.monotonic() + 20
  while any(pathlib.Path(f'/proc/{pid}').exists() for pid in pids):
    states = [stat_of(pid) for pid in pids]
    if set(states) <= {'Z', ''}:  # dead, where nobody reaps them
      break
    assert time.monotonic() < until, states
    time.sleep(0.05)
  assert all((tmp_path / f'saved{pid}').exists() for pid in pids)


def stat_of(pid):
  """The state of a process: Z is dead; '' if there is none."""
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return ''
  return stat.rpartition(')')[2].split()[0]


@pytest.mark.parametrize(
  'number', [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
)
def test_signal_reaches_every_process_once(start, number):
  """Though a terminal sends Ctrl-C to its whole process group."""
  process = start(SAVER, '--processes=2')
  lines = [process.stdout.readline() for _ in range(2)]
  assert sorted(lines) == ['[0] ready\n', '[1] ready\n']
  os.killpg(process.pid, number)
  code, out = finish(process)
  assert code == 75, out
  assert '[0] heard 1' in out
  assert '[1] heard 1' in out
  assert 'saved, run me again' in out


def test_signal_to_a_process_that_hangs_ends_it(start):
  hang = FAILER.replace('if os', 'print("ready", flush=True)\nif 0 and os')
  process = start(hang, '--processes=2', '--stop_seconds=0.5')
  for _ in range(2):
    process.stdout.readline()
  process.terminate()
  code, out = finish(process, 20)
  assert code == 137, out
  assert out.count('does not end: killed') == 2


@pytest.fixture
def local(monkeypatch):
  """The launcher, which waits for the peers of a crash half a second."""
  module = load(LOCAL)
  monkeypatch.setattr(module, 'PEERS_SECONDS', 0.5)
  return module


def job_of(local, first, second, stop_seconds=60.0):
  """Two processes, each with a script of its own."""
  script = 'import os, signal, sys, time; exec(os.environ["SCRIPT"])'
  command = [sys.executable, '-S', '-c', script]
  scripts = [{'SCRIPT': first}, {'SCRIPT': second}]
  return local.Processes(local.Job(command, scripts, stop_seconds))


@pytest.mark.parametrize('code', [3, 75])
def test_peers_of_an_orderly_end_have_their_time(code, local, capfd):
  """What they save is more than a second's work."""
  peer = 'time.sleep(1.2); sys.exit(75)'
  assert job_of(local, f'sys.exit({code})', peer).wait() == 75
  assert 'killed' not in capfd.readouterr().err


def test_peers_of_a_crash_are_ended_whatever_comes_later(local, capfd):
  """A signal that comes then gives them no more time."""
  deaf = 'signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(15)'
  processes = job_of(local, 'sys.exit(1)', deaf)
  timer = threading.Timer(0.4, processes.send, [signal.SIGTERM])
  timer.start()
  assert processes.wait() == 1
  timer.join()
  assert '[1] does not end: killed' in capfd.readouterr().err


def test_the_exit_code_is_that_of_the_first_to_fail(local):
  job = job_of(local, 'sys.exit(1)', 'time.sleep(0.3); sys.exit(4)')
  assert job.wait() == 1


def test_the_last_lines_are_not_lost(local, monkeypatch):
  """However slowly they are read."""
  written = []

  class Slow:
    def write(self, text):
      time.sleep(0.005)
      written.append(text)

    def flush(self):
      pass

  monkeypatch.setattr(sys, 'stdout', Slow())
  lines = 'for i in range(60): print(i)'
  assert job_of(local, lines, '').wait() == 0
  assert written == [f'[0] {i}\n' for i in range(60)]


def test_a_signal_before_the_first_process_reaches_it(local, monkeypatch):
  """It ends by it, or saves if it is so far."""
  job = local.Job(
    [sys.executable, '-S', '-c', 'import time; time.sleep(20)'], [{}], 60.0
  )

  def plan(options, environ):
    os.kill(os.getpid(), signal.SIGTERM)
    return job

  monkeypatch.setattr(local, 'plan', plan)
  before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
  try:
    assert local.run(local.parse(['--retries=2'])) == 128 + signal.SIGTERM
  finally:
    for number, handler in zip((signal.SIGTERM, signal.SIGINT), before):
      signal.signal(number, handler)


@pytest.mark.slow
def test_one_that_has_saved_waits_for_the_others(start):
  slow = SAVER.replace(
    'sleep(0.2)', 'sleep(21 * int(os.environ["SLURM_PROCID"]))'
  )
  process = start('import os\n' + slow, '--processes=2')
  for _ in range(2):
    process.stdout.readline()
  process.terminate()
  code, out = finish(process, 60)
  assert code == 75, out
  assert '[1] heard 1' in out


@pytest.mark.slow
@pytest.mark.parametrize(('how', 'want'), [('1', 1), ('killed', 137)])
def test_the_rest_is_killed_when_one_fails(start, how, want):
  process = start(FAILER, '--processes=2', '--', how)
  code, out = finish(process, 30)
  assert code == want, out
  assert f'[0] ended with {want}' in out
  assert '[1] does not end: killed' in out


@pytest.mark.parametrize(
  ('times', 'code', 'retries', 'starts', 'want'),
  [
    (3, 75, 2, 3, 0),  # saved, again, saved, again, done
    (3, 1, 1, 2, 1),  # out of retries
    (3, 2, 2, 1, 2),  # bad flags would be bad again
    (3, 3, 2, 1, 3),  # and so would a divergence
  ],
)
def test_retries(start, tmp_path, times, code, retries, starts, want):
  path = tmp_path / 'starts'
  words = [str(path), str(times), str(code)]
  process = start(
    COUNTER, '--processes=1', f'--retries={retries}', '--', *words
  )
  assert finish(process)[0] == want
  assert path.read_text() == '.' * starts


@pytest.mark.multiprocess
def test_two_processes_join_and_gather(start):
  process = start(
    JOINER, '--processes=2', '--workdir=w', '--stop_seconds=5', '--', '--x=1'
  )
  code, out = finish(process, 90)
  assert code == 0, out
  for i in range(2):
    assert f'[{i}] devices 1 2 10 11' in out
    assert f'[{i}] words --workdir=w --multihost=true --x=1' in out


def test_slurm_dry_run_submits_nothing(tmp_path):
  flagfile = tmp_path / 'a run.flags'
  flagfile.touch()
  (tmp_path / 'sbatch').write_text('#!/bin/sh\ntouch "$0.called"\n')
  (tmp_path / 'sbatch').chmod(0o755)
  done = dry(
    SLURM,
    f'--flagfile={flagfile}',
    f'--workdir={tmp_path}/w',
    '--nodes=2',
    '--gpus_per_node=4',
    '--time=04:00:00',
    '--sbatch=--partition=long',
    '--',
    '--steps=3',
    PATH=f'{tmp_path}:{os.environ["PATH"]}',
  )
  assert done.returncode == 0, done.stderr
  command, _, script = done.stdout.partition('\n')
  assert '--nodes=2 --ntasks-per-node=4 --gpus-per-node=4' in command
  assert '--time=04:00:00' in command
  # What stands behind the script is the run's.
  assert ' --partition=long ' in command.partition('/slurm.sbatch ')[0]
  assert f"'--flagfile={flagfile}'" in command
  assert command.endswith(' --multihost=true --steps=3')
  # A workdir that holds a stranger's file is refused by the run.
  assert f'--output={tmp_path}/w.slurm-%j.out' in command
  assert '#SBATCH --requeue\n' in script
  assert '#SBATCH --open-mode=append\n' in script
  # To the processes of the run, not to the batch shell (B:) alone.
  assert '#SBATCH --signal=TERM@120\n' in script
  assert not (tmp_path / 'sbatch.called').exists()
  assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize(
  ('words', 'joined'),
  [
    (['--gpus_per_node=4'], True),
    (['--nodes=2'], True),
    (['--tasks_per_node=2'], True),
    (['--gpus_per_node=1'], False),
    ([], False),
  ],
)
def test_slurm_joins_what_is_more_than_one_process(words, joined):
  done = dry(SLURM, '--workdir=w', *words)
  assert ('--multihost=true' in done.stdout.splitlines()[0]) == joined


def test_slurm_array_of_an_ablation(tmp_path):
  words = (f'--workdir={tmp_path}/w', '--ablate=6', '--dry_run')
  done = dry(SLURM, *words, '--', '--vary=objective=minimax,hinge')
  assert done.returncode == 0, done.stderr
  command = done.stdout.partition('\n')[0]
  assert '--array=1-6' in command
  assert ' MODULE=gan_jax.ablate ' in command
  assert 'w.slurm-%A-%a.out' in command
  assert command.endswith(' --vary=objective=minimax,hinge')
  assert 'multihost' not in command
  done = dry(SLURM, *words, '--nodes=2')
  assert done.returncode == 2
  assert '--ablate: 1 or more tasks of one process each' in done.stderr
  done = dry(SLURM, *words, '--module=gan_jax.ablate')
  assert done.returncode == 2 and '--module: --ablate says' in done.stderr


def test_slurm_job_of_an_ablation_that_its_processes_share(tmp_path):
  words = (f'--workdir={tmp_path}/w', '--module=gan_jax.ablate', '--nodes=2')
  done = dry(SLURM, *words, '--', '--seeds=4')
  command = done.stdout.partition('\n')[0]
  assert ' MODULE=gan_jax.ablate ' in command
  assert command.endswith(f' --workdir={tmp_path}/w --multihost=true --seeds=4')


def test_batch_script_gives_a_task_of_an_array_its_share(tmp_path):
  _, log = batch(
    tmp_path,
    75,
    SLURM_JOB_ID='17',
    MODULE='gan_jax.ablate',
    SLURM_ARRAY_JOB_ID='17',
    SLURM_ARRAY_TASK_ID='6',
    SLURM_ARRAY_TASK_COUNT='6',
  )
  assert '-m gan_jax.ablate --workdir=w --steps=3 --only=6/6' in log
  # 17 is the whole array.
  assert log.splitlines()[-1] == 'scontrol requeue 17_6'


def test_slurm_refuses():
  done = dry(SLURM, '--flagfile=/none.flags', '--workdir=w')
  assert done.returncode == 2
  assert '--flagfile=/none.flags: no such file' in done.stderr
  done = dry(SLURM)
  assert done.returncode == 2
  assert '--workdir' in done.stderr


def batch(tmp_path, code, **environ):
  """Runs the batch script with a fake srun and scontrol; its code and calls."""
  bin_, log = tmp_path / 'bin', tmp_path / 'log'
  bin_.mkdir(exist_ok=True)
  for name, end in (('srun', code), ('scontrol', 0)):
    (bin_ / name).write_text(
      f'#!/bin/sh\necho {name} "$@" >> {log}\nexit {end}'
    )
    (bin_ / name).chmod(0o755)
  log.unlink(missing_ok=True)
  path = f'{bin_}:{os.environ["PATH"]}'
  launch = str(ROOT / 'launch')
  done = subprocess.run(
    ['bash', ROOT / 'launch' / 'slurm.sbatch', '--workdir=w', '--steps=3'],
    env={
      **os.environ,
      'PATH': path,
      'LAUNCH': launch,
      'PYTHON': sys.executable,
      'PYTHONPATH': str(ROOT),
      **environ,
    },
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=60,
  )
  return done, log.read_text() if log.exists() else ''


@pytest.mark.parametrize('code', [0, 1, 2, 3, 137])
def test_batch_script_passes_exit_codes_on(tmp_path, code):
  """Of what no policy sends back: no crash is tolerated here."""
  done, log = batch(tmp_path, code, SLURM_JOB_ID='17', CRASHES='0')
  assert done.returncode == code, done.stderr
  assert '-m gan_jax.train --workdir=w --steps=3' in log
  # Peers of one that has ended get a minute to save.
  assert log.startswith('srun --kill-on-bad-exit=0 --wait=60 ')
  assert 'scontrol' not in log


def test_batch_script_requeues_what_was_saved(tmp_path):
  done, log = batch(tmp_path, 75, SLURM_JOB_ID='17')
  assert log.splitlines()[-1] == 'scontrol requeue 17', done.stderr
  assert done.returncode == 75


def test_batch_script_requeues_a_crash_and_a_stall_so_many_times(tmp_path):
  """What has gone before is kept beside the workdir, for this job alone."""
  codes = [batch(tmp_path, 137, SLURM_JOB_ID='17')[0] for _ in range(4)]
  assert [done.returncode for done in codes] == [75, 75, 75, 137]
  done = [batch(tmp_path, 75, SLURM_JOB_ID='18', STALLS='1') for _ in range(3)]
  assert [each.returncode for each, _ in done] == [75, 4, 4]
  assert 'time limit' in done[1][0].stderr and 'cache' in done[1][0].stderr
  assert 'srun' in done[1][1] and not done[2][1]  # the third is not begun


def test_batch_script_hands_words_on_as_they_are(tmp_path):
  """A python of several words with blanks in them, too."""
  srun = '#!/bin/sh\nshift 2\nprintf "<%s>" "$@"\n'
  (tmp_path / 'srun').write_text(srun)
  (tmp_path / 'srun').chmod(0o755)
  script = ROOT / 'launch' / 'slurm.sbatch'
  environ = dict(os.environ, LAUNCH=str(ROOT / 'launch'), SLURM_JOB_ID='17')
  environ |= {'PATH': f'{tmp_path}:{os.environ["PATH"]}'}
  environ |= {'PYTHON': f'env "A=b c" {sys.executable}', 'SETUP': 'echo ready'}
  environ |= {'PYTHONPATH': str(ROOT)}
  done = subprocess.run(
    ['bash', script, '--workdir=a run', '--vary=objective=a;b *'],
    env=environ,
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=60,
  )
  words = '<-m><gan_jax.train><--workdir=a run><--vary=objective=a;b *>'
  said = f'ready\n<env><A=b c><{sys.executable}>{words}'
  assert done.stdout == said, done.stderr


def test_batch_script_does_not_begin_after_a_setup_that_failed(tmp_path):
  done, log = batch(tmp_path, 0, SLURM_JOB_ID='17', SETUP='true && false')
  assert done.returncode == 2 and not log
  assert 'the setup failed: true && false' in done.stderr


@pytest.mark.parametrize(
  ('options', 'lacking'), [('-S', 'absl'), ('-S -I', 'gan_jax')]
)
def test_batch_script_ends_in_a_python_without_the_packages(
  tmp_path, options, lacking
):
  """What no restart mends is no crash."""
  python = f'{sys.executable} {options}'
  done, log = batch(tmp_path, 0, SLURM_JOB_ID='17', PYTHON=python)
  assert done.returncode == 2 and not log, done.stderr
  assert f'no {lacking} in {sys.executable}\n' in done.stderr
  assert '--python' in done.stderr and '--setup' in done.stderr


def test_slurm_hands_setup_python_and_policy_to_the_script():
  words = ('--workdir=w', '--setup=module load cuda', '--setup=. env/x')
  done = dry(SLURM, *words, '--python=apptainer exec img python', '--stalls=5')
  command = done.stdout.partition('\n')[0]
  assert "SETUP='module load cuda && . env/x' " in command, done.stderr
  assert "PYTHON='apptainer exec img python' " in command
  assert ' CRASHES=3 STALLS=5 sbatch ' in command


def test_submitit_jobs_run_in_the_python_that_submits_them():
  """Not in whatever `python` the path of the nodes has."""
  submitit_jobs = load(ROOT / 'launch' / 'submitit_jobs.py')
  python = lambda **options: submitit_jobs.slurm.environment(
    submitit_jobs.parse(['--steps=3'], workdir='w', **options)
  )['PYTHON']
  assert python() == shlex.quote(sys.executable)
  assert python(python='apptainer exec img python', nodes=2).startswith('app')


def test_slurm_ablation_with_gpus_throttle_and_collecting_job(tmp_path):
  """One process a task, which sees all of its GPUs."""
  words = (f'--workdir={tmp_path}/w', '--ablate=6', '--gpus_per_node=4')
  done = dry(SLURM, *words, '--throttle=2', '--collect', '--', '--seeds=3')
  array, collect, _ = done.stdout.split('\n', 2)
  assert '--array=1-6%2 ' in array and '--gpus-per-node=4' in array
  assert '--ntasks-per-node=1' in array and 'multihost' not in array
  assert '--dependency=afterany:ID ' in collect
  assert '--gpus-per-node' not in collect
  assert collect.endswith(f' --workdir={tmp_path}/w --seeds=3 --collect')
  assert 'MODULE=gan_jax.ablate' in collect and '--array' not in collect
  done = dry(SLURM, '--workdir=w', '--collect')
  assert done.returncode == 2 and '--ablate' in done.stderr


def test_slurm_submits_what_collects_after_the_array(tmp_path):
  sbatch = f'#!/bin/sh\necho "$@" >> {tmp_path}/log\necho "42;cluster"\n'
  (tmp_path / 'sbatch').write_text(sbatch)
  (tmp_path / 'sbatch').chmod(0o755)
  words = [sys.executable, SLURM, f'--workdir={tmp_path}/w', '--ablate=2']
  path = f'{tmp_path}:{os.environ["PATH"]}'
  subprocess.run(
    [*words, '--collect'], env={**os.environ, 'PATH': path}, check=True
  )
  array, collect = (tmp_path / 'log').read_text().splitlines()
  assert '--array=1-2' in array and '--dependency=afterany:42 ' in collect


@pytest.mark.parametrize('code', [0, 3])
def test_slurm_makes_the_place_of_the_output_and_ends_as_sbatch(code, tmp_path):
  (tmp_path / 'sbatch').write_text(f'#!/bin/sh\nexit {code}\n')
  (tmp_path / 'sbatch').chmod(0o755)
  workdir = tmp_path / 'runs' / 'new' / 'w'
  words = [sys.executable, SLURM, f'--workdir={workdir}']
  done = subprocess.run(words, env={**os.environ, 'PATH': str(tmp_path)})
  assert done.returncode == code
  assert workdir.parent.is_dir() and not workdir.exists()


def test_slurm_without_sbatch_says_so(tmp_path):
  words = [sys.executable, SLURM, f'--workdir={tmp_path}/w']
  done = subprocess.run(
    words,
    env={**os.environ, 'PATH': str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1 and 'sbatch is not here' in done.stderr


@pytest.mark.skipif(not shutil.which('bash'), reason='no bash')
def test_batch_script_is_valid_shell():
  script = ROOT / 'launch' / 'slurm.sbatch'
  subprocess.run(['bash', '-n', script], check=True, timeout=10)
