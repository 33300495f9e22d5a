"""Two processes of one run, of which one is lost: what the other saves, when.

    python experiments/reliability/run.py

One is killed (SIGKILL) or hangs (SIGSTOP) in mid-training, each rank in turn,
or hangs and both are told to stop (SIGTERM). The living one is to save what it
holds and end; the job, started again, is to end with the bits of one that
nobody disturbed. Writes results.csv.
"""

import csv
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / 'launch'))
import local  # noqa: E402

STEPS, SAVE_DEADLINE = 1000, 20
FLAGS = [
  '--dataset=ring',
  '--network=mlp',
  '--width=16',
  '--batch_size=64',
  f'--steps={STEPS}',
  '--log_every=100',
  f'--checkpoint_every={STEPS}',
  f'--sample_every={STEPS}',
  '--noreport',
  f'--save_deadline={SAVE_DEADLINE}',
]


def start(workdir, cache):
  """The two processes, and what they print."""
  port = local.free_port()
  processes, lines = [], []
  for index in range(2):
    environment = {**os.environ, **local.cpu_environment(os.environ)}
    environment |= local.joined_environment(index, 2, port)
    process = subprocess.Popen(
      [sys.executable, '-m', 'gan_jax.train', *FLAGS, '--multihost=true']
      + [f'--workdir={workdir}', f'--compilation_cache={cache}'],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    own = []

    def read(process=process, own=own):
      own += iter(process.stdout.readline, '')

    threading.Thread(target=read, daemon=True).start()
    processes.append(process)
    lines.append(own)
  return processes, lines


def wait_for(lines, text):
  """Until a line has a text in it."""
  until = time.monotonic() + 300
  while not any(text in line for line in lines):
    assert time.monotonic() < until, lines
    time.sleep(0.05)


def state(workdir):
  """The last checkpoint, byte for byte."""
  from gan_jax.runtime.checkpoint import Checkpoints

  flat = Checkpoints(workdir, read_only=True).read_flat(STEPS)
  return {name: x.tobytes() for name, x in flat.items()}


def disturb(kind, rank, place, cache):
  """Loses one process: seconds to the other's end, its code, the step saved."""
  workdir = place / f'{kind}-{rank}'
  processes, lines = start(workdir, cache)
  wait_for(lines[0], 'step 200/')
  began = time.monotonic()
  lost, living = processes[rank], processes[1 - rank]
  lost.send_signal(signal.SIGKILL if kind == 'kill' else signal.SIGSTOP)
  if kind == 'hang and stop':
    time.sleep(1)
    began = time.monotonic()
    for process in processes:
      process.send_signal(signal.SIGTERM)
  code = living.wait(300)
  seconds = time.monotonic() - began
  lost.kill()
  lost.wait()
  time.sleep(0.5)
  saved = [int(p.stem) for p in (workdir / 'rescue').glob('*.npz')]
  said = [line for line in lines[1 - rank] if line.startswith('error')]
  print(kind, rank, f'{seconds:.1f} s', code, saved, said, flush=True)
  processes, lines = start(workdir, cache)
  codes = [process.wait(600) for process in processes]
  assert codes == [0, 0], lines
  text = ''.join(lines[0])
  continued = re.search(r'continuing at step (\d+)', text)
  return {
    'lost': kind,
    'rank': rank,
    'seconds': f'{seconds:.1f}',
    'exit code': code,
    'saved at step': max(saved, default=''),
    'continued at step': continued[1] if continued else 0,
  }, state(workdir)


def main():
  """Runs all of it, and writes the table."""
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    place = pathlib.Path(folder)
    cache = place / 'xla'
    processes, lines = start(place / 'whole', cache)
    codes = [process.wait(600) for process in processes]
    assert codes == [0, 0], lines
    whole = state(place / 'whole')
    for kind in ('kill', 'hang', 'hang and stop'):
      for rank in (1, 0):
        row, last = disturb(kind, rank, place, cache)
        row['same bits'] = 'yes' if last == whole else 'no'
        rows.append(row)
        print(row, flush=True)
  with (HERE / 'results.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)


if __name__ == '__main__':
  main()
