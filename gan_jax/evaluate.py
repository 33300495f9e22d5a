"""Scores a run: `python -m gan_jax.evaluate --workdir=DIR --metrics=fid,kid`.

Of the newest checkpoint, `--step=N`, or `--all` of them; with `--follow` those
of a run that another process trains, until it ends. Or a set of samples:
`--images=PATH --against=DATASET`, each an .npz, a folder of images or a dataset
such as `mnist[test]`. Scores go to metrics.jsonl with their whole protocol;
what was scored under it is not scored again, and of two commands on one folder
at a time the second keeps the first one's row. The same command gives the same
digits; another batch, or 1, 2 or 4 devices, give them to 1e-4 of the score,
which is float32's rounding; so do several processes that train and score
(`gan_jax.train --multihost`). A command is one process.
"""

import pathlib
from typing import Any

from absl import flags

from gan_jax.config import app as doors
from gan_jax.config import validate
from gan_jax.config.schema import ConfigError

flags.DEFINE_string('workdir', '', 'folder of the run')
flags.DEFINE_integer('step', None, 'which checkpoint; by default the newest')
flags.DEFINE_boolean('all', False, 'every checkpoint that there is')
flags.DEFINE_boolean('follow', False, 'and those to come, until the run ends')
flags.DEFINE_float(
  'follow_timeout', 3600.0, 'seconds without a new checkpoint to give up after'
)
flags.DEFINE_string(
  'images', '', 'instead of a run: an .npz of uint8 samples, a folder, or a set'
)
flags.DEFINE_string(
  'against', '', "what samples are held against; by default the run's dataset"
)
flags.DEFINE_string(
  'validation', '', 'set that parzen picks its width on; see its experiment'
)
flags.DEFINE_string('metrics', '', "with commas; by default the run's own")
flags.DEFINE_string(
  'features',
  '',
  'what metrics see of an image: classifier, inception-2048, ...',
)
flags.DEFINE_string('weights', '', 'file of the weights of --features')
flags.DEFINE_integer(
  'samples', 0, 'generated samples; 0: 10,000, or all of --images'
)
flags.DEFINE_integer(
  'real_samples', 0, 'real samples; 0: as many, or all that there are'
)
flags.DEFINE_integer('eval_seeds', 1, 'draws of noise that scores are means of')
flags.DEFINE_integer('seed', 0, 'first of these seeds')
flags.DEFINE_boolean(
  'ema', None, 'of the averaged generator; by default if there is one'
)
flags.DEFINE_string(
  'data_dir', '', "data root; empty: the run's, or $TFDS_DATA_DIR"
)
flags.DEFINE_integer(
  'neighbours', 0, 'samples shown beside their nearest training images'
)
flags.DEFINE_integer('devices', 0, 'devices used; 0: all there are')
flags.DEFINE_string('out', 'metrics.jsonl', 'file of the scores of --images')


def main() -> int:
  """Scores what the flags name."""
  f = flags.FLAGS
  if bool(f.workdir) == bool(f.images):
    raise ConfigError('name the folder of a run (--workdir) or --images, one')
  validate.check_effect({n: f[n].value for n in f if f[n].present}, f.images)
  if bool(f.all) + bool(f.follow) + (f.step is not None) > 1:
    raise ConfigError('--step, --all, --follow: use one of them')
  validate.check_scored(f.workdir, f.metrics, f.features)
  from gan_jax.evaluation import scorer

  fields = scorer.Request.__dataclass_fields__
  asked: dict[str, Any] = {name: f[name].value for name in fields}
  request = scorer.Request(**asked)
  try:
    if f.images:
      scorer.evaluate_images(request, f.images, pathlib.Path(f.out))
    elif f.follow:
      scorer.follow(f.workdir, request, f.follow_timeout)
    else:
      scorer.evaluate_run(f.workdir, request, f.step, f.all)
  except OSError as error:
    raise doors.Failure(
      f'scores cannot be written ({error}); use a place that you may write to'
    ) from error
  return doors.DONE


if __name__ == '__main__':
  doors.run(main)
