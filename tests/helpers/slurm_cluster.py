"""A Slurm of two nodes on this machine, from Debian's packages, for tests.

    apt-get install slurm-wlm munge
    python tests/helpers/slurm_cluster.py  # until Ctrl-C; prints SLURM_CONF

Everything lies in one folder, but munge's socket where no munged runs yet.
slurmd wants to be root; it makes no control groups here.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

PROGRAMS = ('slurmctld', 'slurmd', 'sbatch', 'munged', 'munge')
NODES = ('gan-n1', 'gan-n2')
_CONF = """
ClusterName=gan
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={munge}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldLogFile={folder}/slurmctld.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait={kill_wait}
OverTimeLimit=0
MaxArraySize=100
SlurmctldTimeout=30
SlurmdTimeout=60
UnkillableStepTimeout=120
NodeName={nodes[0]} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 State=UNKNOWN
NodeName={nodes[1]} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=60 State=UP PriorityTier=1 \
GraceTime=20
PartitionName=high Nodes=ALL MaxTime=60 State=UP PriorityTier=2
"""


def missing() -> str:
  """Why it cannot be started here; '' if it can."""
  absent = [name for name in PROGRAMS if not shutil.which(name, path=_PATH)]
  if absent:
    return f'no {", ".join(absent)}: apt-get install slurm-wlm munge'
  return '' if os.geteuid() == 0 else 'slurmd must be root'


_PATH = f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'


def free_ports(count: int) -> list[int]:
  """TCP ports that nobody listens on now."""
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for s in sockets:
      s.bind(('127.0.0.1', 0))
    return [s.getsockname()[1] for s in sockets]


@contextlib.contextmanager
def cluster(folder: pathlib.Path, kill_wait: int = 15) -> Iterator[str]:
  """Starts it, gives the path of its slurm.conf, and ends it.

  Args:
    folder: of its state and logs.
    kill_wait: seconds from the SIGTERM of a time limit to the SIGKILL.
  """
  folder.mkdir(parents=True, exist_ok=True)
  conf = folder / 'slurm.conf'
  host = socket.gethostname().partition('.')[0]
  text = _CONF.format(
    host=host,
    folder=folder,
    munge=folder / 'munge' / 'socket',
    ports=free_ports(3),
    nodes=NODES,
    kill_wait=kill_wait,
  )
  conf.write_text(text.lstrip())
  (folder / 'cgroup.conf').write_text('CgroupPlugin=cgroup/v1\n')
  environment = {**os.environ, 'SLURM_CONF': str(conf), 'PATH': _PATH}
  for name in ('state', 'munge', *(f'spool-{node}' for node in NODES)):
    (folder / name).mkdir(exist_ok=True)
  with contextlib.ExitStack() as stack:

    def start(*words: str) -> None:
      log = stack.enter_context((folder / f'{words[0]}.out').open('ab'))
      process = subprocess.Popen(
        words, env=environment, stdout=log, stderr=log, start_new_session=True
      )
      stack.callback(_end, process)

    _start_munge(folder / 'munge', start)
    start('slurmctld', '-D')
    for node in NODES:
      start('slurmd', '-D', '-N', node)
    _wait_until_idle(environment, folder)
    yield str(conf)
    words = ['timeout', '20', 'scancel', '--user=root']
    subprocess.run(words, env=environment, check=False)


def _start_munge(folder: pathlib.Path, start: object) -> None:
  """Ours, with a key of its own."""
  key = folder / 'key'
  key.write_bytes(os.urandom(128))
  key.chmod(0o600)
  folder.chmod(0o755)
  assert callable(start)
  start(
    'munged',
    '--foreground',
    '--force',
    f'--socket={folder / "socket"}',
    f'--key-file={key}',
    f'--pid-file={folder / "pid"}',
    f'--seed-file={folder / "seed"}',
    f'--log-file={folder / "log"}',
  )
  deadline = time.monotonic() + 20
  while not (folder / 'socket').exists():
    assert time.monotonic() < deadline, 'munged does not start'
    time.sleep(0.1)


def _end(process: 'subprocess.Popen[bytes]') -> None:
  process.send_signal(signal.SIGTERM)
  try:
    process.wait(10)
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()


def _wait_until_idle(environment: dict[str, str], folder: pathlib.Path) -> None:
  deadline, said = time.monotonic() + 60, ''
  while time.monotonic() < deadline:
    words = ['timeout', '10', 'sinfo', '-h', '-p', 'low', '-N', '-o', '%T']
    done = subprocess.run(
      words, env=environment, capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    if done.stdout.split() == ['idle'] * len(NODES):
      return
    time.sleep(0.3)
  logs = ''.join(p.read_text()[-2000:] for p in sorted(folder.glob('*.log')))
  raise RuntimeError(f'the nodes do not come up: {said}\n{logs}')


if __name__ == '__main__':
  if missing():
    sys.exit(missing())
  with tempfile.TemporaryDirectory() as place:
    with cluster(pathlib.Path(place)) as slurm_conf:
      print(f'export SLURM_CONF={slurm_conf}', flush=True)
      with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
