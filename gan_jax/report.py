"""Writes the report of a run or an ablation: `python -m gan_jax.report`.

Training and ablations write theirs when they end; this command does so at any
time, for what is unfinished too. The report is one self-contained file,
report.html in the workdir. That of an ablation (a folder with a plan.json)
comes with table.md and table.tex.
"""

import pathlib

from absl import flags

from gan_jax.config import app, schema
from gan_jax.config.schema import Flag
from gan_jax.runtime.errors import ArgumentError

FLAGS = {'workdir': Flag('', 'Folder of the run or the ablation.', place=True)}


def main() -> int:
  """Writes the report of the workdir that the flags name."""
  if not flags.FLAGS.workdir:
    remedy = 'name the folder of a run or an ablation'
    raise ArgumentError('workdir', '', remedy)
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
  schema.define(FLAGS)
  app.run(main)
