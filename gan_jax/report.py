"""Writes the report of a run or an ablation: `python -m gan_jax.report`.

Training and ablations write theirs when they end; this command does so at any
time, for what is unfinished too. The report is one self-contained file,
report.html in the workdir. That of an ablation (a folder with a plan.json)
comes with table.md and table.tex.
"""

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
  from gan_jax.ablation.report import report

  path = report(flags.FLAGS.workdir)
  print(f'report: {path}')
  return app.DONE


if __name__ == '__main__':
  schema.define(FLAGS)
  app.run(main)
