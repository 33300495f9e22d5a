"""Draws samples from a run: `python -m gan_jax.sample --workdir=DIR --out=X`.

The name of `--out` says what is written. FILE.png: a grid of the samples, of a
density a figure. FILE.npz: the array `samples`, uint8 images (num, height,
width, channels) or float32 points. Any other name: a folder of single PNG
files. Sample i is a function of the checkpoint, `--seed` and i: how many are
drawn makes no difference.
"""

import pathlib

from absl import flags

from gan_jax.config import app, schema
from gan_jax.config.parsing import INT_MAX
from gan_jax.config.schema import Flag
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.files import cannot_write

FLAGS: dict[str, Flag] = {
  'workdir': Flag('', 'Folder of the run.', place=True),
  'num': Flag(64, 'Samples to draw.', 1, 10**9),
  'seed': Flag(0, 'Seed of the noise.', 0, INT_MAX),
  'out': Flag(
    'samples.png',
    'Where the samples are written: FILE.png, FILE.npz or a folder.',
    place=True,
  ),
  'ema': Flag(
    bool, 'Whether the average of G is used. Not given: if it was kept.'
  ),
  'step': Flag(
    int, 'Step of the checkpoint. Not given: the newest.', 0, INT_MAX
  ),
  'label': Flag(
    int,
    'Class of all samples of a conditional run. Not given: as --class_sampling'
    ' says.',
    0,
    INT_MAX,
  ),
  'class_sampling': Flag(
    '',
    'How often G of a conditional run is asked for each class: data, as often'
    ' as the training data has it, or uniform, in turn. Not given: as it was'
    ' trained; in a grid, in turn, a class a column.',
  ),
  'interpolate': Flag(
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
  from gan_jax.training import export, interpolation
  from gan_jax.training.restore import open_run

  export.check(f.num, out)
  run = open_run(f.workdir, f.step)
  ema = run.has_average if f.ema is None else f.ema
  count = export.count_of(f.num, f.interpolate)
  export.check_size(run, count, out)
  label, columns = f.label, interpolation.COLUMNS if f.interpolate else 0
  if label is None and not f.class_sampling and not f.interpolate:
    label, columns = export.lay_out_classes(run, f.num, out)
  x = export.batches(
    run, f.num, f.seed, ema, f.interpolate, label, f.class_sampling
  )
  try:
    export.write(run, x, count, out, columns)
  except OSError as error:
    raise cannot_write('out', out, error) from error
  averaged = run.has_average if f.ema is None else f.ema
  which = 'averaged' if averaged else 'live'
  kind = f', {interpolation.kind(run)} interpolation' if f.interpolate else ''
  print(f'{count} samples of the {which} G at step {run.step}{kind}: {out}')
  return app.DONE


if __name__ == '__main__':
  schema.define(FLAGS)
  app.run(main)
