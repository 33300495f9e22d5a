"""Submits one run to Slurm as a job that survives preemption and time limits.

    python launch/slurm.py --flagfile=F --workdir=W --nodes=2 --gpus_per_node=4

One process a GPU, or `--tasks_per_node` on CPU; when there are several they are
joined through jax.distributed, which knows Slurm. `--ablate=N` submits an
ablation instead, as an array of N tasks that share its programs; `--collect`
then makes its results. Everything after `--` goes to
the command as it stands; `--sbatch=...` hands sbatch an option of your cluster.
The job itself is launch/slurm.sbatch; its output goes to WORKDIR.slurm-ID.out,
beside the workdir, which may hold nothing but the run.
"""

import argparse
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Sequence

SCRIPT = pathlib.Path(__file__).with_name('slurm.sbatch')


def output(workdir: str, job: str = '%j') -> pathlib.Path:
  """Where Slurm, which makes no folders, writes what the job prints."""
  path = pathlib.Path(workdir).absolute()
  return path.with_name(f'{path.name}.slurm-{job}.out')


def command(options: argparse.Namespace) -> list[str]:
  """The sbatch command of a job."""
  per_node = options.gpus_per_node or options.tasks_per_node
  words = [
    'sbatch',
    f'--nodes={options.nodes}',
    f'--ntasks-per-node={per_node}',
  ]
  if options.gpus_per_node:
    # Per node, not per task: JAX itself gives each task the GPU of its number.
    words += [f'--gpus-per-node={options.gpus_per_node}']
  words += [f'--time={options.time}'] if options.time else []
  if options.ablate:
    words += [
      f'--array=1-{options.ablate}',
      '--export=ALL,MODULE=gan_jax.ablate',
      f'--output={output(options.workdir, "%A-%a")}',
    ]
  else:
    words += [f'--output={output(options.workdir)}']
  words += options.sbatch
  words += [str(SCRIPT)]
  words += [f'--flagfile={options.flagfile}'] if options.flagfile else []
  words += [f'--workdir={options.workdir}']
  words += ['--multihost=true'] if options.nodes * per_node > 1 else []
  return [*words, *options.extra]


def parse(words: Sequence[str]) -> argparse.Namespace:
  """The options, and in `extra` what comes after `--`."""
  cut = words.index('--') if '--' in words else len(words)
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--flagfile', default='', help='flags of the run, as absl reads them')
  add('--workdir', required=True, help='folder of the run, seen by all nodes')
  add('--nodes', type=int, default=1)
  add('--gpus_per_node', type=int, default=0, help='0: the run is on CPU')
  add('--tasks_per_node', type=int, default=1, help='processes, on CPU')
  add('--time', default='', help='limit of one allocation, as sbatch takes it')
  add(
    '--sbatch', action='append', default=[], help='a further option of sbatch'
  )
  add('--ablate', type=int, default=0, help='tasks of an ablation; 0: a run')
  add('--dry_run', action='store_true', help='print job and command, no more')
  options = parser.parse_args(words[:cut])
  if (
    min(options.nodes, options.tasks_per_node) < 1 or options.gpus_per_node < 0
  ):
    parser.error('--nodes and --tasks_per_node: 1 or more')
  each = options.nodes * (options.gpus_per_node or options.tasks_per_node)
  if options.ablate < 0 or (options.ablate and each > 1):
    parser.error('--ablate: 1 or more tasks of one process each')
  if options.flagfile and not os.path.isfile(options.flagfile):
    parser.error(f'--flagfile={options.flagfile}: no such file')
  options.extra = list(words[cut + 1 :])
  return options


def main(words: Sequence[str]) -> int:
  """Submits or shows the job."""
  options = parse(words)
  job = command(options)
  if options.dry_run:
    print(shlex.join(job))
    print(SCRIPT.read_text(encoding='utf-8'), end='')
    return 0
  try:
    output(options.workdir).parent.mkdir(parents=True, exist_ok=True)
    return subprocess.run(job, check=False).returncode
  except FileNotFoundError:
    print(
      'error: sbatch is not here; submit from a login node of the cluster, or'
      ' use launch/local.py',
      file=sys.stderr,
    )
  except OSError as error:
    print(f'error: --workdir={options.workdir}: {error}', file=sys.stderr)
  return 1


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
