"""The same on Slurm: one of two ranks is lost, on a real Slurm of two nodes.

  apt-get install slurm-wlm munge
  python experiments/reliability/slurm.py    # as root; writes slurm.csv

One rank is killed (SIGKILL) or hangs (SIGSTOP) in mid-training, each in turn.
Timed are the end of the other one, and the job's return to the queue; then it
is let go on, and is to end with the bits of a job that nobody disturbed.
"""

import csv
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / 'tests')]
import run
from helpers import slurm_cluster


def environment(conf):
  """Of sbatch and of the ranks."""
  port = slurm_cluster.free_ports(1)[0]
  # The nodes have no names that others know.
  address = f'127.0.0.1:{port}'
  return dict(
    os.environ,
    SLURM_CONF=conf,
    JAX_PLATFORMS='cpu',
    JAX_COORDINATOR_ADDRESS=address,
    JAX_COORDINATOR_BIND_ADDRESS=address,
    PYTHONPATH=f'{ROOT}:{os.environ.get("PYTHONPATH", "")}',
    XLA_FLAGS='',
    JAX_NUM_CPU_DEVICES='1',
  )


def ask(conf, *words):
  """What a command of Slurm says."""
  return subprocess.run(
    ['timeout', '-k', '5', '60', *map(str, words)],
    env=environment(conf),
    check=True,
    capture_output=True,
    text=True,
  ).stdout


def submit(conf, workdir, cache):
  """Submits a job over both nodes; its number and what it prints."""
  words = [sys.executable, ROOT / 'launch' / 'slurm.py', '--nodes=2']
  words += [f'--workdir={workdir}', f'--python={sys.executable}', '--']
  said = ask(conf, *words, *run.FLAGS, f'--compilation_cache={cache}')
  job = re.search(r'submitted job (\d+)', said)[1]
  return job, workdir.with_name(f'{workdir.name}.slurm-{job}.out')


def facts(conf, job):
  """Of a job, as scontrol has them."""
  said = ask(conf, 'scontrol', 'show', 'job', '-o', job)
  return dict(re.findall(r'(\w+)=(\S*)', said))


def wait(truth, what, seconds=600.0):
  """Until something is true; the seconds that it took."""
  began = time.monotonic()
  while not truth():
    assert time.monotonic() - began < seconds, what()
    time.sleep(0.1)
  return time.monotonic() - began


def ranks(workdir):
  """Processes that train there, by their rank."""
  found = {}
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      words = (path / 'cmdline').read_bytes().split(b'\0')
      environ = (path / 'environ').read_bytes().split(b'\0')
    except OSError:
      continue
    if b'gan_jax.train' in words and f'--workdir={workdir}'.encode() in words:
      values = dict(x.partition(b'=')[::2] for x in environ)
      if words[1] == b'-m' and b'SLURM_PROCID' in values:
        found[int(values[b'SLURM_PROCID'])] = int(path.name)
  return found


def is_there(pid):
  """Whether a process computes: neither gone nor waiting to be buried."""
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return False
  return stat.rpartition(')')[2].split()[0] != 'Z'


def disturb(conf, place, cache, kind, rank):
  """Loses a rank of a job, and lets the job go on; its row."""
  workdir = place / f'{kind}-{rank}'
  job, log = submit(conf, workdir, cache)

  def text():
    return log.read_text() if log.exists() else 'no output'

  wait(lambda: 'step 200/' in text(), text)
  pids = ranks(workdir)
  began = time.monotonic()
  os.kill(pids[rank], signal.SIGKILL if kind == 'kill' else signal.SIGSTOP)
  ended = wait(lambda: not is_there(pids[1 - rank]), text)
  saved = [int(path.stem) for path in (workdir / 'rescue').glob('*.npz')]
  wait(lambda: facts(conf, job)['Restarts'] == '1', text)
  back = time.monotonic() - began
  wait(lambda: facts(conf, job)['JobState'] == 'PENDING', text)
  ask(conf, 'scontrol', 'update', f'JobId={job}', 'StartTime=now')
  wait(lambda: facts(conf, job)['JobState'] == 'COMPLETED', text)
  continued = re.search(r'continuing at step (\d+)', text())
  return {
    'lost': kind,
    'rank': rank,
    'seconds to the end': f'{ended:.1f}',
    'seconds to the queue': f'{back:.1f}',
    'saved at step': max(saved, default=''),
    'continued at step': continued[1] if continued else 0,
  }, run.state(workdir)


def main():
  """Starts a Slurm, and writes the table."""
  if why := slurm_cluster.missing():
    sys.exit(why)
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    place = pathlib.Path(folder)
    with slurm_cluster.cluster(place / 'slurm') as conf:
      job, log = submit(conf, place / 'whole', place / 'xla')
      wait(lambda: facts(conf, job)['JobState'] == 'COMPLETED', log.read_text)
      whole = run.state(place / 'whole')
      for kind in ('kill', 'hang'):
        for rank in (1, 0):
          row, last = disturb(conf, place, place / 'xla', kind, rank)
          row['same bits'] = 'yes' if last == whole else 'no'
          rows.append(row)
          print(row, flush=True)
  with (HERE / 'slurm.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


if __name__ == '__main__':
  main()
