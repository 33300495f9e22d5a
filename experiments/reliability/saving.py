"""What a checkpoint that is written beside the training costs a DCGAN.

  python experiments/reliability/saving.py    # writes saving.csv

In turns: some steps, and the same number of steps with a save at their start,
which is written while they are made. What the second takes more, over a minute
of training, is the share that one save a minute costs.
"""

import argparse
import contextlib
import csv
import os
import pathlib
import statistics
import sys
import tempfile
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_NUM_CPU_DEVICES', '1')

HERE = pathlib.Path(__file__).resolve().parent
MINUTE = 60.0


def make_loop(folder, width):
  """A DCGAN of 32x32 digits, compiled."""
  from gan_jax.config.schema import Config
  from gan_jax.training import setup
  from gan_jax.training.run_loop import RunLoop

  config = Config(
    dataset='digits',
    image_size=32,
    network='dcgan',
    width=width,
    batch_size=64,
    steps=10**6,
    devices=1,
    keep_checkpoints=1,
    workdir=str(folder),
    compilation_cache='off',
  )
  loop = RunLoop(setup.build(config), folder)
  loop.dispatch(1)
  loop.save()
  loop.checkpoints.wait()
  return loop


def block(loop, steps, saves):
  """Seconds (stall, wall, CPU) of some steps."""
  wall, cpu = time.perf_counter(), time.process_time()
  if saves:
    loop.save()
  stall = time.perf_counter() - wall
  for _ in range(steps):
    loop.dispatch(1)
  wall = time.perf_counter() - wall
  loop.checkpoints.wait()
  return stall, wall, time.process_time() - cpu


def main():
  """Writes the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--steps', type=int, default=8)
  parser.add_argument('--rounds', type=int, default=16)
  options = parser.parse_args()
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    loop = make_loop(pathlib.Path(folder), options.width)
    size = sum(
      p.stat().st_size
      for p in pathlib.Path(folder).glob('checkpoints/*/state/**/*')
      if p.is_file()
    )
    with contextlib.closing(loop):
      for i in range(options.rounds):
        found = {}
        for saves in (i % 2 == 0, i % 2 == 1):
          found[saves] = block(loop, options.steps, saves)
        (_, wall, cpu), (stall, wall_saving, cpu_saving) = found[0], found[1]
        rows.append(
          {
            'round': i,
            'stall': stall,
            'wall': wall,
            'wall, saving': wall_saving,
            'CPU': cpu,
            'CPU, saving': cpu_saving,
          }
        )
        print({k: round(v, 3) for k, v in rows[-1].items()}, flush=True)
  with (HERE / 'saving.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows({k: round(v, 3) for k, v in row.items()} for row in rows)
  print(f'{size / 2**20:.0f} MiB')
  for kind in ('wall', 'CPU'):
    more = [row[f'{kind}, saving'] - row[kind] for row in rows]
    low, middle, high = statistics.quantiles(more, n=4)
    quartiles = f'{low:.2f} to {high:.2f}'
    print(f'{kind}: {middle:.2f} s a save ({quartiles}), ', end='')
    print(f'{100 * middle / MINUTE:.2f}% of a minute of one core')
  stall = statistics.median(row['stall'] for row in rows)
  print(f'the loop stands still for {stall:.2f} s')


if __name__ == '__main__':
  sys.exit(main())
