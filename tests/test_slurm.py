"""Jobs on a real Slurm of two nodes: what ends them, and what comes back.

    python -m pytest -n 0 -m slurm tests/test_slurm.py

Every job pauses at a step until it has been disturbed as the test wants it, so
that little is computed; each ends with the bits of one that nobody disturbed.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from helpers import compiling, slurm_cluster

from gan_jax.runtime.checkpoint import Checkpoints

pytestmark = [
  pytest.mark.slurm,
  pytest.mark.skipif(
    bool(slurm_cluster.missing()), reason=slurm_cluster.missing()
  ),
]

ROOT = pathlib.Path(__file__).parents[1]
TOY = [
  '--dataset=ring',
  '--network=mlp',
  '--width=8',
  '--batch_size=8',
  '--log_every=10',
  '--steps=40',
  '--checkpoint_every=10',
  '--num_samples=4',
  '--devices=1',
  '--noreport',
]
GRID = [
  *TOY,
  '--vary=objective=hinge,minimax,least_squares,wasserstein',
  '--seeds=1',
  '--metrics=modes',
  '--eval_samples=100',
]
PAUSED = '--sbatch=--export=ALL,MODULE=helpers.paused'
_WAIT = 150.0
_FINAL = (
  *('COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT'),
  *('NODE_FAIL', 'OUT_OF_MEMORY', 'BOOT_FAIL', 'DEADLINE'),
)


class Cluster:
  """Commands of the Slurm that runs, and waiting for what they say."""

  def __init__(self, conf, folder):
    self.folder, self.go = folder, folder / 'go'
    # No job is to take whatever Python the path has.
    (folder / 'bin').mkdir()
    (folder / 'bin' / 'python').write_text('#!/bin/sh\nexit 1\n')
    (folder / 'bin' / 'python').chmod(0o755)
    self.environment = dict(
      os.environ,
      PATH=f'{folder / "bin"}:{os.environ["PATH"]}',
      SLURM_CONF=conf,
      PYTHONPATH=':'.join(
        [str(ROOT), str(ROOT / 'tests'), os.environ.get('PYTHONPATH', '')]
      ),
      JAX_PLATFORMS='cpu',
      XLA_FLAGS=compiling.of_a_process(),
      PAUSED_GO=str(self.go),
    )
    # Its nodes have no names that others know.
    port = slurm_cluster.free_ports(1)[0]
    address = f'127.0.0.1:{port}'
    self.environment |= {
      'JAX_COORDINATOR_ADDRESS': address,
      'JAX_COORDINATOR_BIND_ADDRESS': address,
    }

  def __call__(self, *words, **environ):
    done = subprocess.run(
      ['timeout', '-k', '5', '300', *map(str, words)],
      env={**self.environment, **environ},
      cwd=self.folder,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, self.describe(
      f'{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}'
    )
    return done.stdout

  def describe(self, what):
    """What went wrong, the queue with its reasons, and the last of each log."""
    queue = subprocess.run(
      ['timeout', '20', 'squeue', '-a', '-r', '-o', '%i %T %r %M %S %N'],
      env=self.environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    logs = [
      *self.folder.glob('*.out'),
      *self.folder.glob('*.submitit/*_log.*'),
      *self.folder.glob('cluster/slurm*.log'),
    ]
    tails = [
      f'-- {path.relative_to(self.folder)}\n'
      f'{path.read_text(errors="replace")[-1500:]}'
      for path in sorted(logs, key=lambda path: path.stat().st_mtime)
    ]
    return '\n'.join([what, f'-- queue\n{queue.stdout}', *tails])

  def submit(self, workdir, *words, extra=(), **environ):
    """Ids of the jobs."""
    said = self(
      sys.executable,
      ROOT / 'launch' / 'slurm.py',
      f'--workdir={workdir}',
      f'--python={sys.executable}',
      *words,
      '--',
      *extra,
      f'--compilation_cache={self.folder / "xla"}',
      **environ,
    )
    return re.findall(r'submitted job (\d+)', said)

  def facts(self, job):
    said = self('scontrol', 'show', 'job', '-o', job)
    return dict(re.findall(r'(\w+)=(\S*)', said))

  def state(self, job):
    return self.facts(job)['JobState']

  def wait(self, truth, what):
    until = time.monotonic() + _WAIT
    while not (found := truth()):
      assert time.monotonic() < until, self.describe(f'not in time: {what}')
      time.sleep(0.3)
    return found

  def wait_for(self, job, state):
    """Until a job is in a state; one that ended in another will not be."""

    def reached():
      now = self.state(job)
      assert now == state or now not in _FINAL, self.describe(
        f'{job} is {now}, not {state}: {self.facts(job)}'
      )
      return now == state

    self.wait(reached, f'{job} {state}')

  def wait_for_restart(self, job, restarts=1):
    """Until it is back in the queue, where it is not left to wait."""

    def requeued():
      facts = self.facts(job)
      back = facts['JobState'] == 'PENDING' and facts['Restarts'] != '0'
      return back and int(facts['Restarts']) == restarts

    self.wait(requeued, f'{job} back in the queue, restart {restarts}')
    self('scontrol', 'update', f'JobId={job}', 'StartTime=now')

  def wait_for_text(self, path, text, count=1):
    self.wait(
      lambda: path.exists() and path.read_text().count(text) >= count,
      f'{text!r} in {path}',
    )

  def pids(self, word):
    """Processes of a command that pauses, with a word in its line."""
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
      try:
        line = path.read_bytes().split(b'\0')
      except OSError:
        continue
      if b'helpers.paused' in line and word.encode() in line:
        if line[0].endswith(b'python') or b'python3' in line[0]:
          found.append(int(path.parent.name))
    return found


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
  folder = tmp_path_factory.mktemp('slurm')
  with slurm_cluster.cluster(folder / 'cluster') as conf:
    yield Cluster(conf, folder)


@pytest.fixture(autouse=True)
def none_goes(slurm):
  slurm.go.unlink(missing_ok=True)
  yield
  subprocess.run(['scancel', '--user=root'], env=slurm.environment)


def state(workdir, step=40):
  return {
    k: v.tobytes()
    for k, v in Checkpoints(workdir, read_only=True).read_flat(step).items()
  }


@pytest.fixture(scope='module')
def undisturbed(slurm):
  """The last states of a run, and of an ablation's programs."""
  cache = f'--compilation_cache={slurm.folder / "xla"}'
  run, grid = slurm.folder / 'whole-run', slurm.folder / 'whole-grid'
  module = [sys.executable, '-m']
  slurm(*module, 'gan_jax.train', f'--workdir={run}', *TOY, cache)
  slurm(*module, 'gan_jax.ablate', f'--workdir={grid}', *GRID, cache)
  return run, grid


def test_each_task_of_an_array_goes_back_alone(slurm, undisturbed):
  """TERM to one after the other; what collects comes after all of them."""
  grid = slurm.folder / 'grid'
  job, collect = slurm.submit(
    grid,
    '--ablate=4',
    '--collect',
    PAUSED,
    extra=GRID,
  )
  tasks = [f'{job}_{k}' for k in range(1, 5)]
  for k, task in enumerate(tasks):
    slurm.wait(
      lambda k=k: (grid / f'programs/{k:03d}/checkpoints/000000020').exists(),
      f'a checkpoint of {task}',
    )
    slurm('scancel', '--signal=TERM', task)
    slurm.wait_for_restart(task)
    restarts = [int(slurm.facts(other)['Restarts']) for other in tasks]
    assert restarts == [1] * (k + 1) + [0] * (3 - k)
    assert slurm.state(collect) == 'PENDING'
  slurm.go.touch()
  for task in tasks:
    slurm.wait_for(task, 'COMPLETED')
  slurm.wait_for(collect, 'COMPLETED')
  assert (grid / 'results.csv').read_text().count('done') == 4
  for k in range(4):
    program = f'programs/{k:03d}'
    assert state(grid / program) == state(undisturbed[1] / program)


def test_the_processes_of_a_job_share_an_ablation(slurm, undisturbed):
  """Two nodes, each with the half of the programs; the first one collects."""
  grid = slurm.folder / 'shared'
  words = ('--module=gan_jax.ablate', '--nodes=2')
  (job,) = slurm.submit(grid, *words, extra=GRID)
  slurm.wait_for(job, 'COMPLETED')
  results = (grid / 'results.csv').read_text()
  assert results == (undisturbed[1] / 'results.csv').read_text()
  for k in range(4):
    program = f'programs/{k:03d}'
    assert state(grid / program) == state(undisturbed[1] / program)


def test_the_time_limit_and_preemption_save_and_scancel_ends(
  slurm, undisturbed
):
  run = slurm.folder / 'limited'
  # Slurm may send it up to a minute earlier.
  words = (PAUSED, '--time=2', '--sbatch=--signal=TERM@30')
  (job,) = slurm.submit(run, *words, extra=TOY)
  log = run.with_name(f'{run.name}.slurm-{job}.out')
  slurm.wait_for_restart(job)
  assert log.read_text().count('saved at step') == 1
  # Once more, for one of a higher partition that wants both nodes.
  slurm.wait_for(job, 'RUNNING')
  slurm('scontrol', 'update', f'JobId={job}', 'TimeLimit=20')
  slurm.wait_for_text(log, 'compiled in', 2)
  slurm.wait(lambda: (run / 'checkpoints/000000020').exists(), 'a checkpoint')
  words = ('--wait', '-p', 'high', '--nodes=2', '--exclusive', '-t', '5')
  slurm('sbatch', *words, '--wrap=true', '-o', '/dev/null')
  slurm.wait_for_restart(job, 2)
  slurm.go.touch()
  slurm.wait_for(job, 'COMPLETED')
  assert state(run) == state(undisturbed[0])

  slurm.go.unlink()
  run = slurm.folder / 'cancelled'
  (job,) = slurm.submit(run, PAUSED, extra=TOY)
  slurm.wait(lambda: (run / 'checkpoints/000000020').exists(), 'a checkpoint')
  slurm('scancel', job)
  slurm.wait_for(job, 'CANCELLED')
  time.sleep(2)
  assert slurm.facts(job)['Restarts'] == '0'


def test_a_killed_rank_goes_back_so_many_times(slurm):
  """Of a run over both nodes."""
  run = slurm.folder / 'killed'
  words = ('--nodes=2', PAUSED, '--crashes=1')
  toy = [word for word in TOY if 'devices' not in word]
  (job,) = slurm.submit(run, *words, extra=toy)
  log = run.with_name(f'{run.name}.slurm-{job}.out')
  for restarts in (1, 2):
    slurm.wait(
      lambda: (run / 'checkpoints/000000020').exists(),
      'a checkpoint',
    )
    slurm.wait(lambda: len(slurm.pids(f'--workdir={run}')) == 2, 'two ranks')
    if restarts == 2:
      slurm.wait_for_text(log, 'continuing at step', 1)
    os.kill(max(slurm.pids(f'--workdir={run}')), signal.SIGKILL)
    if restarts == 1:
      slurm.wait_for_restart(job)
  slurm.wait_for(job, 'FAILED')
  assert slurm.facts(job)['Restarts'] == '1'
  assert '1 restarts after a crash or kill are behind it' in log.read_text()
  # The same command, submitted again, is another job.
  slurm.go.touch()
  (job,) = slurm.submit(run, *words, extra=toy)
  slurm.wait_for(job, 'COMPLETED')
  whole = slurm.folder / 'whole-killed'
  (job,) = slurm.submit(whole, *words, extra=toy)
  slurm.wait_for(job, 'COMPLETED')
  assert state(run) == state(whole)


def test_a_compilation_longer_than_the_limit_ends_with_what_to_do(slurm):
  """Native code that hears nothing: the limit itself ends it."""
  run = slurm.folder / 'stalled'
  # Nothing is said before the limit.
  words = (PAUSED, '--time=1', '--sbatch=--signal=CONT@1', '--stalls=1')
  (job,) = slurm.submit(run, *words, extra=TOY, PAUSED_COMPILE='1')
  slurm.wait_for_restart(job)
  slurm.wait_for(job, 'TIMEOUT')
  said = run.with_name(f'{run.name}.slurm-{job}.out').read_text()
  assert said.count('compiling') == 2
  assert '1 restarts have not brought one more checkpoint' in said
  assert 'time limit' in said and 'compilation cache' in said
  assert slurm.facts(job)['Restarts'] == '1'


def test_submitit_submits_the_same_jobs(slurm, undisturbed):
  pytest.importorskip('submitit')
  run, grid = slurm.folder / 'by-python', slurm.folder / 'by-python-grid'
  script = f"""
import sys
sys.path.insert(0, {str(ROOT / 'launch')!r})
import submitit_jobs
cache = '--compilation_cache={slurm.folder / 'xla'}'
# What fails is told at once: a crash that goes back waits two minutes.
job, = submitit_jobs.submit([*{TOY}, cache], workdir={str(run)!r}, crashes=0)
jobs = submitit_jobs.submit([*{GRID}, cache], workdir={str(grid)!r}, ablate=4,
                            throttle=2, crashes=0)
print(job.result(), *[job.result() for job in jobs])
"""
  said = slurm(sys.executable, '-c', script)
  assert said.splitlines()[-1] == '0 0 0 0 0', slurm.describe(said)
  assert state(run) == state(undisturbed[0])
  for k in range(4):
    program = f'programs/{k:03d}'
    assert state(grid / program) == state(undisturbed[1] / program)
