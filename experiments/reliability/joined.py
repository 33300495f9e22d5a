"""An ablation of two joined processes, killed and stopped at random moments.

    python experiments/reliability/joined.py --seed=0 --ablations=8

Each of two joined processes trains its share of the runs. At a random moment
one is killed (SIGKILL) and the other told to stop a little later, or killed as
well; or one or both are told to stop (SIGTERM). The same
command goes on until all have ended. Tables, logs and last states are compared
with those of one process that nobody disturbed. Writes joined.csv.
"""

import argparse
import collections
import csv
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / 'launch'))
import local  # noqa: E402

FLAGS = [
  '--dataset=ring',
  '--network=mlp',
  '--width=16',
  '--batch_size=16',
  '--steps=12000',
  '--log_every=1000',
  '--checkpoint_every=500',
  '--eval_every=4000',
  '--eval_samples=200',
  '--metrics=modes',
  '--vary=objective=minimax,hinge',
  '--vary=lr_g+lr_d=1e-3,1e15',
  '--seeds=3',
  '--split=2',
  '--devices=1',
  '--noreport',
]
# What happens, to the one and to the other, and how often it is drawn.
KINDS = {
  'one killed, the other stopped': (4, signal.SIGKILL, signal.SIGTERM),
  'both killed': (3, signal.SIGKILL, signal.SIGKILL),
  'one stopped': (2, signal.SIGTERM, None),
  'both stopped': (2, signal.SIGTERM, signal.SIGTERM),
}
SECONDS = 12.0  # of an attempt, about


def start(workdir, cache, log):
  """The two processes."""
  port = local.free_port()
  words = [*FLAGS, f'--workdir={workdir}', f'--compilation_cache={cache}']
  processes = []
  for index in range(2):
    environment = {**os.environ, **local.cpu_environment(os.environ)}
    environment |= local.joined_environment(index, 2, port)
    processes.append(
      subprocess.Popen(
        [sys.executable, '-m', 'gan_jax.ablate', *words, '--multihost=true'],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
      )
    )
  return processes


def disturb(rng, kind, processes):
  """Does one of `KINDS` at some moment, unless the job has ended before."""
  _, first, second = KINDS[kind]
  one, other = rng.sample(processes, 2)
  moment = rng.uniform(2, SECONDS)
  try:
    one.wait(moment)
    return False
  except subprocess.TimeoutExpired:
    one.send_signal(first)
  time.sleep(rng.uniform(0, 2))
  if second is not None and other.poll() is None:
    other.send_signal(second)
  return True


def contents(workdir):
  """Tables, logs and last states, by name."""
  from gan_jax.runtime.checkpoint import Checkpoints

  tables = ('results.csv', 'scores.csv')
  found = {name: (workdir / name).read_bytes() for name in tables}
  for program in sorted((workdir / 'programs').glob('0*')):
    checkpoints = Checkpoints(program, read_only=True)
    step = max(checkpoints.steps())
    arrays = dict(checkpoints.read_flat(step))
    checkpoints.close()
    with np.load(program / 'stats.npz') as rows:
      arrays |= {f'log {name}': rows[name] for name in rows}
    for name, array in arrays.items():
      found[f'{program.name} {step} {name}'] = array.tobytes()
  return found


def run(rng, place, cache, number):
  """One ablation, disturbed until it is done: its counts, what it holds."""
  workdir, counts = place / f'disturbed-{number}', collections.Counter()
  with (place / f'{number}.log').open('w') as log:
    while True:
      processes = start(workdir, cache, log)
      weights = [weight for weight, *_ in KINDS.values()]
      (kind,) = rng.choices([*KINDS], weights)
      counts[kind] += disturb(rng, kind, processes)
      codes = [process.wait(400) for process in processes]
      counts['attempts'] += 1
      if codes == [0, 0]:
        break
      allowed = {0, app_saved(), -signal.SIGKILL}
      allowed |= {-signal.SIGTERM}  # before it listens
      if -signal.SIGKILL in codes:  # JAX ends the other
        allowed |= {-signal.SIGABRT, -signal.SIGSEGV}
      assert {*codes} <= allowed, (
        codes,
        pathlib.Path(log.name).read_text()[-4000:],
      )
      assert counts['attempts'] < 60, counts
  found = contents(workdir)
  shutil.rmtree(workdir)
  return counts, found


def app_saved():
  """The exit code of what has saved."""
  from gan_jax.config import app

  return app.SAVED


def main():
  """Runs all of it, and writes the table."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--ablations', type=int, default=8)
  options = parser.parse_args()
  rng, rows = random.Random(options.seed), []
  with tempfile.TemporaryDirectory() as folder:
    place = pathlib.Path(folder)
    words = [f'--workdir={place / "whole"}', f'--compilation_cache={place}/xla']
    command = [sys.executable, '-m', 'gan_jax.ablate', *FLAGS, *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole = contents(place / 'whole')
    for number in range(options.ablations):
      counts, found = run(rng, place, place / 'xla', number)
      row = {'seed': options.seed, 'ablation': number}
      row |= {name: counts[name] for name in ('attempts', *KINDS)}
      row['same bits'] = 'yes' if found == whole else 'no'
      rows.append(row)
      print(row, flush=True)
      with (HERE / 'joined.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == '__main__':
  main()
