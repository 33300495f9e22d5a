"""Draws samples from a run: `python -m gan_jax.sample --workdir=DIR --out=X`.

The name of `--out` says what is written. FILE.png: a grid of the samples, of a
density a figure. FILE.npz: the array `samples`, uint8 images (num, height,
width, channels) or float32 points. Any other name: a folder of single PNG
files. A sample is a function of the checkpoint, `--seed` and `--num`.
"""

import pathlib

from absl import flags

from gan_jax.config import app, schema
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.files import cannot_write

FLAGS = {
  'workdir': ('', 'Folder of the run.'),
  'num': (64, 'Samples to draw.'),
  'seed': (0, 'Seed of the noise.'),
  'out': (
    'samples.png',
    'Where the samples are written: FILE.png, FILE.npz or a folder.',
  ),
  'ema': (bool, 'Whether the average of G is used. Not given: if it was kept.'),
  'step': (int, 'Step of the checkpoint. Not given: the newest.'),
  'label': (
    int,
    'Class of all samples of a conditional run. Not given: all in turn.',
  ),
  'interpolate': (
    False,
    'Whether to draw rows of 8 samples on the way from one latent vector to'
    ' another.',
  ),
}


def main() -> int:
  """Draws samples as the flags say."""
  f, out = flags.FLAGS, pathlib.Path(flags.FLAGS.out)
  if not f.workdir:
    raise ArgumentError('workdir', '', 'name the folder of a run')
  from gan_jax.training import export
  from gan_jax.training.restore import open_run

  export.check(f.num, out)
  run = open_run(f.workdir, f.step)
  ema = run.has_average if f.ema is None else f.ema
  x = export.draw(run, f.num, f.seed, ema, f.interpolate, f.label)
  try:
    # A class a column, where all of them are drawn in turn.
    columns = run.classes if f.label is None else 0
    columns = export.COLUMNS if f.interpolate else columns
    export.write(run, x, out, columns)
  except OSError as error:
    raise cannot_write('out', out, error) from error
  averaged = run.has_average if f.ema is None else f.ema
  which = 'averaged' if averaged else 'live'
  kind = f', {export.interpolation(run)} interpolation' if f.interpolate else ''
  print(f'{len(x)} samples of the {which} G at step {run.step}{kind}: {out}')
  return app.DONE


if __name__ == '__main__':
  schema.define(FLAGS)
  app.run(main)
