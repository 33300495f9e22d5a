"""Writes report.html: `python -m gan_jax.report --workdir=DIR`.

Training and ablations do so at their end; this command does it at any time, for
unfinished ones too. Of an ablation (a folder with a plan.json) it writes
table.md and table.tex as well.
"""

import pathlib

from absl import flags

from gan_jax.config import app
from gan_jax.runtime.errors import ArgumentError

flags.DEFINE_string('workdir', '', 'folder of the run or ablation')


def main() -> int:
  """Writes the report of the workdir that the flags name."""
  if not flags.FLAGS.workdir:
    raise ArgumentError('workdir', '', 'name the folder of a run or ablation')
  workdir = pathlib.Path(flags.FLAGS.workdir)
  if (workdir / 'plan.json').is_file():
    from gan_jax.ablation.report import write_ablation_report

    path = write_ablation_report(workdir)
  else:
    from gan_jax.training.report import write_report

    path = write_report(workdir)
  print(f'report: {path}')
  return app.DONE


if __name__ == '__main__':
  app.run(main)
