"""Runs one job as N processes on this machine, joined by jax.distributed.

    python launch/local.py --processes=2 --flagfile=F --workdir=W -- --steps=9

Everything after `--` goes to the command as it stands. On GPUs every process
gets one; on CPU every process is one device and they talk through gloo.

`jax.distributed.initialize()` takes the coordinator's address from JAX's own
variables, but the number of processes and the index of this one only from a
cluster that it knows. The processes therefore get Slurm's variables, which
every supported JAX reads alike.

SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 are passed on to every process,
each time they come. Exit code: 0 when all ended with 0; 75 when one has saved
and is to be started again; else that of the first to fail (128 + n for signal
n), after which the others are ended too. With `--retries` the job is started
again as launch/restarts.py has it. When the launcher itself is killed, a
guardian sends its processes SIGTERM, and kills what has not ended in time.
"""

import argparse
import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType

import restarts
from restarts import SAVED

# With these all processes of a job end, each when its own work is done.
ORDERLY = (2, 3, SAVED)
# After any other exit the peers cannot go on: they save what they hold, if they
# notice, or hang in a collective.
PEERS_SECONDS = 20.0
# What is said to a guardian.
GUARD, DONE = 'guard', 'done'


@dataclasses.dataclass
class Job:
  """N equal commands, and the environment that each adds to ours."""

  command: list[str]
  environments: list[dict[str, str]]
  stop_seconds: float


def free_port() -> int:
  """A TCP port that nobody listens on now."""
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return int(listener.getsockname()[1])


def gpus(environ: Mapping[str, str]) -> list[str]:
  """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them."""
  if 'CUDA_VISIBLE_DEVICES' in environ:
    return [x for x in environ['CUDA_VISIBLE_DEVICES'].split(',') if x.strip()]
  if not shutil.which('nvidia-smi'):
    return []
  listed = subprocess.run(
    ['nvidia-smi', '-L'], capture_output=True, text=True, check=False
  )
  return re.findall(r'^GPU (\d+)', listed.stdout, re.MULTILINE)


def cpu_environment(environ: Mapping[str, str]) -> dict[str, str]:
  """One CPU device a process: several in one deadlock in collectives."""
  flags = [
    flag
    for flag in environ.get('XLA_FLAGS', '').split()
    if not flag.startswith('--xla_force_host_platform_device_count')
  ]
  return {
    'JAX_PLATFORMS': 'cpu',
    'JAX_NUM_CPU_DEVICES': '1',
    'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
    'XLA_FLAGS': ' '.join(flags),
  }


def gpu_environment(gpu: str) -> dict[str, str]:
  """One GPU a process, which then counts it as its device 0."""
  return {'CUDA_VISIBLE_DEVICES': gpu, 'JAX_LOCAL_DEVICE_IDS': '0'}


def joined_environment(index: int, processes: int, port: int) -> dict[str, str]:
  """What `jax.distributed.initialize()` reads; Slurm's variables, see above."""
  return {
    'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
    'JAX_COORDINATOR_BIND_ADDRESS': f'127.0.0.1:{port}',
    'SLURM_JOB_ID': str(os.getpid()),
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_NTASKS': str(processes),
    'SLURM_PROCID': str(index),
    'SLURM_LOCALID': str(index),
  }


def plan(options: argparse.Namespace, environ: Mapping[str, str]) -> Job:
  """The commands and environments of one attempt.

  Raises:
    ValueError: there are fewer GPUs than processes.
  """
  devices = gpus(environ) if options.platform != 'cpu' else []
  platform = options.platform or ('gpu' if devices else 'cpu')
  processes = options.processes or max(1, len(devices))
  if platform == 'gpu' and processes > len(devices):
    raise ValueError(
      f'--processes={processes}: this machine shows {len(devices)} GPUs and'
      ' each process takes one; ask for fewer, or use --platform=cpu'
    )
  command = [sys.executable, '-m', options.module]
  command += [f'--flagfile={options.flagfile}'] if options.flagfile else []
  command += [f'--workdir={options.workdir}'] if options.workdir else []
  command += ['--multihost=true'] if processes > 1 else []
  port, environments = free_port(), []
  for i in range(processes):
    added = (
      gpu_environment(devices[i])
      if platform == 'gpu'
      else cpu_environment(environ)
    )
    if processes > 1:
      added |= joined_environment(i, processes, port)
    environments.append(added | {'PYTHONUNBUFFERED': '1'})
  return Job(command + options.extra, environments, options.stop_seconds)


def show(job: Job) -> None:
  """Prints the commands as a shell would take them."""
  for added in job.environments:
    words = [f'{name}={shlex.quote(value)}' for name, value in added.items()]
    print(' '.join([*words, shlex.join(job.command)]))


class Guardian:
  """A process that ends those of a launcher which was killed."""

  def __init__(self, stop_seconds: float) -> None:
    """Of a session of its own: what kills the launcher's group leaves it."""
    self._process = subprocess.Popen(
      [sys.executable, '-S', __file__, GUARD, str(stop_seconds)],
      stdin=subprocess.PIPE,
      start_new_session=True,
    )

  def _tell(self, word: str) -> None:
    assert self._process.stdin is not None
    self._process.stdin.write(f'{word} '.encode())
    self._process.stdin.flush()

  def watch(self, pid: int) -> None:
    """One process more."""
    self._tell(str(pid))

  def close(self) -> None:
    """Nothing is left to be watched."""
    with contextlib.suppress(BrokenPipeError):  # it was killed itself
      self._tell(DONE)
    self._process.communicate()


def guard(stop_seconds: float) -> int:
  """What a guardian does: waits until the launcher is no more."""
  for number in restarts.SIGNALS:
    signal.signal(number, signal.SIG_IGN)
  words = sys.stdin.read().split()
  if DONE not in words:
    _end_orphans([int(word) for word in words], stop_seconds)
  return 0


def _end_orphans(pids: Sequence[int], stop_seconds: float) -> None:
  """SIGTERM, and after a while SIGKILL, to the session of each."""
  deadline, living = time.monotonic() + stop_seconds, list(pids)
  number: int = signal.SIGTERM
  while living and number != signal.SIGKILL:
    late = time.monotonic() > deadline
    number = signal.SIGKILL if late else number
    living = [pid for pid in living if _reached(pid, number)]
    number = number if late else 0
    time.sleep(0.1)


def _reached(pid: int, number: int) -> bool:
  """Whether there was still something to send a signal to."""
  try:
    os.killpg(pid, number)
  except OSError:
    return False
  return True


class Processes:
  """The processes of one attempt, until the last of them has ended."""

  def __init__(self, job: Job, guardian: Guardian | None = None) -> None:
    self._job = job
    self._deadline = float('inf')
    # A session of its own keeps the terminal's Ctrl-C from reaching a process
    # twice, which would cut short the saving that the first one asked for.
    self._processes = [
      subprocess.Popen(
        job.command,
        env={**os.environ, **added},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )
      for added in job.environments
    ]
    for process in self._processes if guardian else ():
      assert guardian is not None
      guardian.watch(process.pid)
    self._readers = [
      threading.Thread(target=self._copy, args=(i,), daemon=True)
      for i in range(len(self._processes))
    ]
    for reader in self._readers:
      reader.start()

  def _copy(self, index: int) -> None:
    out = self._processes[index].stdout
    assert out is not None
    with out:
      for line in out:
        text = line.decode(errors='replace').rstrip('\n')
        sys.stdout.write(f'[{index}] {text}\n')
        sys.stdout.flush()

  def send(self, number: int) -> None:
    """Passes a signal on to all, and starts the clock of their end."""
    self._end_within(self._job.stop_seconds)
    for process in self._processes:
      if process.poll() is None:
        process.send_signal(number)

  def _end_within(self, seconds: float) -> None:
    self._deadline = min(self._deadline, time.monotonic() + seconds)

  def _kill(self) -> None:
    for i, process in enumerate(self._processes):
      if process.poll() is None:
        print(f'[{i}] does not end: killed', file=sys.stderr, flush=True)
        process.kill()
        process.wait()

  def wait(self) -> int:
    """Waits for all of them; ends the rest when one has failed."""
    failed: list[int] = []
    living = set(range(len(self._processes)))
    while living and time.monotonic() < self._deadline:
      for i in sorted(living):
        code = self._processes[i].poll()
        if code is None:
          continue
        living.discard(i)
        if code:
          failed.append(code if code > 0 else 128 - code)
          self._report(i, failed[-1])
          self._end_within(
            self._job.stop_seconds if code in ORDERLY else PEERS_SECONDS
          )
      time.sleep(0.05)
    self._kill()
    for reader in self._readers:
      reader.join(timeout=5)
    if SAVED in failed:
      return SAVED
    # Killed by us at the end of stop_seconds, with no failure before it.
    return failed[0] if failed else 128 + signal.SIGKILL if living else 0

  def _report(self, index: int, code: int) -> None:
    note = ': saved, run me again' if code == SAVED else ''
    print(f'[{index}] ended with {code}{note}', file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> int:
  """Runs the job, again while --retries allows it; returns its exit code."""
  running: list[Processes] = []
  stopped: list[int] = []

  def forward(number: int, frame: FrameType | None) -> None:
    del frame
    stopped.append(number)
    for processes in running:
      processes.send(number)

  guardian = Guardian(options.stop_seconds)
  for number in restarts.SIGNALS:
    if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
      signal.signal(number, forward)
  try:
    history = restarts.History()
    while True:
      history, verdict = restarts.begin(
        history.seen(_progress(options)), options.stalls
      )
      assert verdict.again, 'judged at the end of the attempt before'
      running[:] = [Processes(plan(options, os.environ), guardian)]
      for earlier in stopped:
        running[0].send(earlier)
      code = running[0].wait()
      if stopped or not options.retries:
        return code
      history, verdict = restarts.end(
        history.seen(_progress(options)), code, options.retries, options.stalls
      )
      if code not in restarts.FINAL:
        print(verdict.reason, file=sys.stderr, flush=True)
      if not verdict.again:
        return verdict.code
  finally:
    guardian.close()


def _progress(options: argparse.Namespace) -> str:
  """What the run has saved, as far as it says where."""
  words = [f'--flagfile={options.flagfile}'] if options.flagfile else []
  words += [f'--workdir={options.workdir}'] if options.workdir else []
  words += options.extra
  workdir = restarts.flag('workdir', words)
  if not workdir:
    return ''
  only = restarts.flag('only', words)
  try:
    return restarts.read_progress(workdir, only)
  except Exception as error:
    if not restarts.is_url(workdir):
      raise
    print(f'warning: {workdir}: {error}', file=sys.stderr, flush=True)
    return ''


def parse(words: Sequence[str]) -> argparse.Namespace:
  """The options, and in `extra` what comes after `--`."""
  words, extra = restarts.split_words(words)
  parser = restarts.make_parser(__doc__)
  add = parser.add_argument
  add('--processes', type=int, default=0, help='0: one a GPU, or one')
  add('--platform', choices=('cpu', 'gpu'), help='default: gpu if there is one')
  add('--flagfile', default='', help='flags of the run, as absl reads them')
  add('--workdir', default='', help='folder of the run')
  add('--module', default='gan_jax.train', help='what python -m runs')
  add(
    '--retries', type=int, default=0, help='crashes tolerated; 0: one attempt'
  )
  add(
    '--stalls',
    type=int,
    default=restarts.STALLS,
    help='restarts without one more checkpoint that are tolerated',
  )
  add(
    '--stop_seconds',
    type=float,
    default=90.0,
    help='from a signal to the kill of what has not ended by then',
  )
  add('--dry_run', action='store_true', help='print the commands, run none')
  options = parser.parse_args(words)
  if min(options.processes, options.retries, options.stalls) < 0:
    parser.error('--processes, --retries and --stalls: 0 or more')
  if options.flagfile and not os.path.isfile(options.flagfile):
    parser.error(f'--flagfile={options.flagfile}: no such file')
  options.extra = extra
  return options


def main(words: Sequence[str]) -> int:
  """Runs or shows the job."""
  if words[:1] == [GUARD]:
    return guard(float(words[1]))
  options = parse(words)
  try:
    job = plan(options, os.environ)
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  if options.dry_run:
    show(job)
    return 0
  return run(options)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
