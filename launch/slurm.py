"""Submits one run to Slurm as a job that survives preemption and time limits.

    python launch/slurm.py --flagfile=F --workdir=W --nodes=2 --gpus_per_node=4

One process a GPU, or `--tasks_per_node` on CPU; when there are several they are
joined through jax.distributed, which knows Slurm. `--ablate=N` submits an
ablation instead, as an array of N tasks that share its runs, each on one
node and all of its GPUs that are asked for; `--throttle=M` lets M of them run
at a time, and `--collect` submits a job that makes its results when all have
ended. `--module=gan_jax.ablate` in its place is one job, whose processes share
the runs. Everything after `--` goes to the command as it stands; `--sbatch=...`
hands sbatch an option of your cluster, `--setup=...` is a shell command before
the run (`--setup='module load cuda'`), and `--python=...` may be of several
words (`--python='apptainer exec --nv IMAGE python'`). The job itself is
launch/slurm.sbatch, and launch/restarts.py says when it goes back into the
queue; its output goes to WORKDIR.slurm-ID.out, beside the workdir, which may
hold nothing but the run. (Of a workdir in an object store: in this folder.)
"""

import argparse
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

import restarts

SCRIPT = pathlib.Path(__file__).with_name('slurm.sbatch')


def place_of(workdir: str) -> pathlib.Path:
  """The workdir; of a URL, a folder of its name in this one."""
  if restarts.is_url(workdir):
    workdir = workdir.rstrip('/').rpartition('/')[2]
  return pathlib.Path(workdir).absolute()


def output(workdir: str, job: str = '%j') -> pathlib.Path:
  """Where Slurm, which makes no folders, writes what the job prints."""
  path = place_of(workdir)
  return path.with_name(f'{path.name}.slurm-{job}.out')


def environment(options: argparse.Namespace) -> dict[str, str]:
  """What launch/slurm.sbatch reads, but for what it does without."""
  read = {
    'LAUNCH': str(SCRIPT.parent),
    'MODULE': 'gan_jax.ablate' if options.ablate else options.module,
    'PYTHON': options.python,
    'SETUP': ' && '.join(options.setup),
    'CRASHES': str(options.crashes),
    'STALLS': str(options.stalls),
  }
  return {name: value for name, value in read.items() if value}


def command(options: argparse.Namespace, after: str = '') -> list[str]:
  """The sbatch command of a job.

  Args:
    options: as `parse` returns them.
    after: job id of an ablation whose collecting job it is to be.
  """
  tasks = options.gpus_per_node or options.tasks_per_node
  if options.ablate:
    tasks = 1  # which takes all GPUs that it sees
  words = [
    'sbatch',
    '--parsable',
    f'--nodes={options.nodes}',
    f'--ntasks-per-node={tasks}',
  ]
  if options.gpus_per_node and not after:
    # Per node, not per task: JAX itself gives each task the GPU of its number.
    words += [f'--gpus-per-node={options.gpus_per_node}']
  words += [f'--time={options.time}'] if options.time else []
  if after:
    words += [
      f'--dependency=afterany:{after}',
      f'--output={output(options.workdir, "collect-%j")}',
    ]
  elif options.ablate:
    throttle = f'%{options.throttle}' if options.throttle else ''
    words += [
      f'--array=1-{options.ablate}{throttle}',
      f'--output={output(options.workdir, "%A-%a")}',
    ]
  else:
    words += [f'--output={output(options.workdir)}']
  words += options.sbatch
  words += [str(SCRIPT)]
  words += [f'--flagfile={options.flagfile}'] if options.flagfile else []
  words += [f'--workdir={options.workdir}']
  words += ['--multihost=true'] if options.nodes * tasks > 1 else []
  words += options.extra
  return [*words, '--collect'] if after else words


def parse(words: Sequence[str]) -> argparse.Namespace:
  """The options, and in `extra` what comes after `--`."""
  words, extra = restarts.split_words(words)
  parser = restarts.make_parser(__doc__)
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
  add('--throttle', type=int, default=0, help='of them at a time; 0: all')
  add('--collect', action='store_true', help='and a job that makes its results')
  add('--module', default='', help='what python -m runs, as gan_jax.ablate')
  add('--setup', action='append', default=[], help='shell command before it')
  add('--python', default='', help='of one or several words; default: python')
  add('--crashes', type=int, default=restarts.CRASHES, help='tolerated')
  add(
    '--stalls',
    type=int,
    default=restarts.STALLS,
    help='restarts without one more checkpoint that are tolerated',
  )
  add('--dry_run', action='store_true', help='print job and command, no more')
  options = parser.parse_args(words)
  if (
    min(options.nodes, options.tasks_per_node) < 1 or options.gpus_per_node < 0
  ):
    parser.error('--nodes and --tasks_per_node: 1 or more')
  each = options.nodes * options.tasks_per_node
  if options.ablate < 0 or (options.ablate and each > 1):
    parser.error('--ablate: 1 or more tasks of one process each')
  if min(options.throttle, options.crashes, options.stalls) < 0:
    parser.error('--throttle, --crashes and --stalls: 0 or more')
  if options.ablate and options.module:
    parser.error('--module: --ablate says it; leave it out')
  if (options.throttle or options.collect) and not options.ablate:
    parser.error('--throttle and --collect: are for --ablate')
  if options.flagfile and not os.path.isfile(options.flagfile):
    parser.error(f'--flagfile={options.flagfile}: no such file')
  options.extra = extra
  return options


def submit(job: Sequence[str], environment: Mapping[str, str]) -> str:
  """Submits a job and says so; its id.

  Raises:
    subprocess.CalledProcessError: if sbatch refuses it.
  """
  done = subprocess.run(
    job,
    env={**os.environ, **environment},
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  number = done.stdout.strip().partition(';')[0]
  print(f'submitted job {number}')
  return number


def main(words: Sequence[str]) -> int:
  """Submits or shows the job."""
  options = parse(words)
  added = environment(options)
  if options.dry_run:
    shown = [f'{name}={shlex.quote(value)}' for name, value in added.items()]
    print(' '.join([*shown, shlex.join(command(options))]))
    if options.collect:
      print(' '.join([*shown, shlex.join(command(options, 'ID'))]))
    print(SCRIPT.read_text(encoding='utf-8'), end='')
    return 0
  try:
    output(options.workdir).parent.mkdir(parents=True, exist_ok=True)
    number = submit(command(options), added)
    if options.collect:
      submit(command(options, number), added)
    return 0
  except subprocess.CalledProcessError as error:
    return int(error.returncode)
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
