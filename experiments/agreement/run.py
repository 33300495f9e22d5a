"""One run on 1, 2, 4 processes and on 1, 2, 8 devices: how far apart?

  python experiments/agreement/run.py            # writes results.csv
  python experiments/agreement/run.py --networks='dcgan;resnet, SGD'

CPU devices, on this machine. Each topology trains the same few steps; losses of
every step, the parameters, and samples of the averaged G at the end are held
against those of one process with one device. Then one run goes on from 4
processes to 1 and to 2, a third of its steps on each.
"""

import argparse
import contextlib
import csv
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / 'launch'))
import local

NETWORKS = {
  'dcgan': ['--network=dcgan'],
  'sndcgan': ['--network=sndcgan', '--norm_d=spectral'],
  'resnet': ['--network=resnet', '--norm_d=spectral'],
  # Adam moves a parameter whose gradient is zero but for rounding all the same.
  'resnet, SGD': [
    *('--network=resnet', '--norm_d=spectral'),
    *('--optimizer_g=sgd', '--lr_g=.05', '--optimizer_d=sgd', '--lr_d=.05'),
  ],
}
FLAGS = [
  '--dataset=digits',
  '--image_size=16',
  '--width=8',
  '--batch_size=16',
  '--log_every=1',
  '--checkpoint_every=1000',
  '--sample_every=1000',
  '--noreport',
]
# Processes and devices.
TOPOLOGIES = [(1, 1), (1, 2), (1, 8), (2, 2), (4, 4)]


def train(workdir, cache, words, processes, devices):
  """Trains on some processes with a device each, or one with some."""
  port, started = local.free_port(), []
  command = [sys.executable, '-m', 'gan_jax.train', *FLAGS, *words]
  command += [f'--workdir={workdir}', f'--compilation_cache={cache}']
  if processes > 1:
    command.append('--multihost=true')
  else:
    command.append(f'--devices={devices}')
  for index in range(processes):
    environment = {**os.environ, **local.cpu_environment(os.environ)}
    environment['JAX_NUM_CPU_DEVICES'] = str(devices // processes)
    if processes > 1:
      environment |= local.joined_environment(index, processes, port)
    started.append(
      subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=sys.stderr
      )
    )
  codes = [process.wait() for process in started]
  assert codes == [0] * processes, codes


def read(workdir):
  """Losses (steps, 2), parameters and samples of a run."""
  from gan_jax.training import restore, writers

  rows = writers.read_rows(workdir / 'stats.jsonl')
  losses = np.array([[row['d/loss'], row['g/loss']] for row in rows])
  run = restore.open_run(workdir)
  params = np.concatenate(
    [np.ravel(x) for name, x in sorted(run.state.items()) if '/params/' in name]
  )
  return losses, params, run.sample(32, seed=0)


def differences(one, other):
  """The largest of each kind over the largest value: of `read`."""
  return [
    float(np.abs(a - b).max() / np.abs(a).max())
    for a, b in zip(one, other, strict=True)
  ]


def write(rows):
  """Writes rows in the place of those of the same networks."""
  path = HERE / 'results.csv'
  with path.open(newline='') as file:
    others = [*csv.DictReader(file)]
  new = {row['network'] for row in rows}
  rows = [row for row in others if row['network'] not in new] + rows
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def main():
  """Writes the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--networks', default=';'.join(NETWORKS))
  parser.add_argument('--steps', type=int, default=3)
  options = parser.parse_args()
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    place = pathlib.Path(folder)
    for name in options.networks.split(';'):
      words = [*NETWORKS[name], f'--steps={options.steps}']
      found = {}
      for processes, devices in TOPOLOGIES:
        workdir = place / f'{name}-{processes}-{devices}'
        train(workdir, place / 'xla', words, processes, devices)
        found[f'{processes} x {devices // processes}'] = read(workdir)
      workdir = place / f'{name}-moved'
      for i, processes in enumerate((4, 1, 2)):
        some = [*words, f'--steps={(i + 1) * options.steps // 3}']
        train(workdir, place / 'xla', some, processes, processes)
      found['4, then 1, then 2'] = read(workdir)
      reference = found.pop('1 x 1')
      for topology, values in found.items():
        kinds = ('losses', 'parameters', 'samples')
        numbers = map('{:.1e}'.format, differences(reference, values))
        row = {'network': name, 'processes x devices': topology}
        rows.append(row | dict(zip(kinds, numbers, strict=True)))
        print(rows[-1], flush=True)
  write(rows)


if __name__ == '__main__':
  with contextlib.suppress(KeyboardInterrupt):
    main()
