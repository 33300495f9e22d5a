"""Draws samples from a run: `python -m gan_jax.sample --workdir=DIR --out=X`.

`--out=grid.png` a grid (for a density a figure), `--out=samples.npz` the array
`samples` (uint8 images, float32 points), `--out=FOLDER` single PNG files.
"""

import pathlib

from absl import flags

from gan_jax.config import app as doors
from gan_jax.config.schema import ConfigError

flags.DEFINE_string('workdir', '', 'folder of the run')
flags.DEFINE_integer('num', 64, 'samples to draw')
flags.DEFINE_integer('seed', 0, 'of the noise')
flags.DEFINE_string('out', 'samples.png', 'FILE.png, FILE.npz or a folder')
flags.DEFINE_boolean(
  'ema', None, 'from the averaged generator; by default if there is one'
)
flags.DEFINE_integer('step', None, 'which checkpoint; by default the newest')
flags.DEFINE_integer(
  'label', None, 'class of the samples of a conditional run; by default all'
)
flags.DEFINE_boolean(
  'interpolate', False, 'rows of 8 steps between two draws of noise'
)


def main() -> int:
  """Draws samples as the flags say."""
  f, out = flags.FLAGS, pathlib.Path(flags.FLAGS.out)
  if not f.workdir:
    raise ConfigError('--workdir=: name the folder of a run')
  from gan_jax.training import export
  from gan_jax.training.setup import open_run

  export.check(f.num, out)
  run = open_run(f.workdir, f.step)
  ema = run.state.ema is not None if f.ema is None else f.ema
  x = export.draw(run, f.num, f.seed, ema, f.interpolate, f.label)
  try:
    # A class a column, where all of them are drawn in turn.
    columns = run.networks.classes if f.label is None else 0
    columns = export.COLUMNS if f.interpolate else columns
    export.write(run, x, out, columns)
  except OSError as error:
    raise ConfigError(
      f'--out={out}: cannot write there ({error.strerror or error}); name a'
      ' place that you may write to and that has room'
    ) from error
  which = 'averaged' if ema else 'live'
  how = f', {export.way(run)} interpolation' if f.interpolate else ''
  print(f'{len(x)} samples of the {which} G at step {run.step}{how}: {out}')
  return doors.DONE


if __name__ == '__main__':
  doors.run(main)
