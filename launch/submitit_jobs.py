"""The jobs of launch/slurm.py submitted from Python, through submitit.

    sys.path.insert(0, 'launch')
    import submitit_jobs
    job, = submitit_jobs.submit(
      workdir='W', flagfile='F', nodes=2, gpus_per_node=4, time='04:00:00'
    )
    jobs = submitit_jobs.submit(
      ['--vary=objective=minimax,hinge', '--seeds=16'],
      workdir='A', ablate=6, throttle=2, gpus_per_node=1,
    )

What runs is launch/slurm.sbatch, so that it goes back into the queue by the
same rule, in the Python that submits it, or that of `python=`. `job.result()`
is 0, or raises; for a job that was cancelled it does so only where `sacct`
answers. submitit is the extra `submitit`.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import slurm


def _run(words: Sequence[str], environment: Mapping[str, str]) -> int:
  """The batch script, within the job."""
  code = subprocess.run(words, env={**os.environ, **environment}).returncode
  if code == 75:
    time.sleep(60)  # it is in the queue again, which ends this attempt
  if code:
    raise RuntimeError(f'{" ".join(words)}: ended with {code}')
  return code


def parse(extra: Sequence[str], **options: Any) -> argparse.Namespace:
  """The options of launch/slurm.py, as its own `parse` returns them."""
  words = []
  for name, value in options.items():
    for each in value if isinstance(value, list) else [value]:
      words.append(f'--{name}={each}')
  parsed = slurm.parse([*words, '--', *extra])
  # As submitit does: the `python` of the path may be one without the package.
  parsed.python = parsed.python or shlex.quote(sys.executable)
  return parsed


def parameters(options: Any) -> dict[str, Any]:
  """Of `submitit.SlurmExecutor`, for options of launch/slurm.py."""
  words = slurm.command(options)
  given = dict(
    word.removeprefix('--').partition('=')[::2]
    for word in words[: words.index(str(slurm.SCRIPT))][1:]
  )
  for name in ('parsable', 'array', 'output', 'export'):
    given.pop(name, None)
  additional: dict[str, Any] = {
    name: value if value else True for name, value in given.items()
  }
  return {
    'use_srun': False,  # the script does
    'setup': ['trap : TERM'],  # which answers at the time limit
    'array_parallelism': options.throttle or max(options.ablate, 1),
    'additional_parameters': {
      **additional,
      'requeue': True,
      'signal': 'TERM@120',
    },
  }


def submit(extra: Sequence[str] = (), **options: Any) -> list[Any]:
  """Submits a run, or the tasks of an ablation.

  Args:
    extra: flags of the run, handed on as they are.
    **options: of launch/slurm.py by name; `setup` and `sbatch` are lists.

  Returns:
    The `submitit.Job` of the run, or that of each task.

  >>> submit(['--steps=9'], workdir='W', nodes=2)  # doctest: +SKIP
  """
  import cloudpickle
  import submitit

  parsed = parse(extra, **options)
  cloudpickle.register_pickle_by_value(sys.modules[__name__])
  place = slurm.place_of(parsed.workdir)
  executor = submitit.SlurmExecutor(
    folder=place.with_name(f'{place.name}.submitit')
  )
  executor.update_parameters(job_name='gan_jax', **parameters(parsed))
  command = slurm.command(parsed)
  script = command.index(str(slurm.SCRIPT))
  environment = slurm.environment(parsed)
  run = (['bash', *command[script:]], environment)
  if not parsed.ablate:
    return [executor.submit(_run, *run)]
  return executor.map_array(_run, *zip(*[run] * parsed.ablate, strict=True))
