"""Writes report.html: `python -m gan_jax.report --workdir=DIR`.

The trainer and the ablation do so at their end; this does it at any time, for
what is unfinished too. Of an ablation (a folder with a plan.json) it writes
table.md and table.tex as well.
"""

import pathlib

from absl import flags

from gan_jax.config import app as doors
from gan_jax.config.schema import ConfigError

flags.DEFINE_string('workdir', '', 'folder of the run or ablation')


def main() -> int:
  """Writes the report of the workdir that the flags name."""
  if not flags.FLAGS.workdir:
    raise ConfigError('--workdir=: name the folder of a run or an ablation')
  workdir = pathlib.Path(flags.FLAGS.workdir)
  if (workdir / 'plan.json').is_file():
    from gan_jax.ablation.report import write_ablation_report

    path = write_ablation_report(workdir)
  else:
    from gan_jax.training.report import write_report

    path = write_report(workdir)
  print(f'report: {path}')
  return doors.DONE


if __name__ == '__main__':
  doors.run(main)
