"""Scores a run: `python -m gan_jax.evaluate --workdir=DIR --metrics=fid,kid`.

Scores the newest checkpoint, `--step=N`, or `--all` of them; with `--follow`
those of a run that another process trains, until it ends. Or a set of samples:
`--images=PATH --against=DATASET`, each an .npz, a folder of images or a dataset
such as `mnist[test]`. Scores go to metrics.jsonl with their whole protocol;
what was scored under it is not scored again, and of two commands on one folder
at a time the second keeps the first one's row. The same command gives the same
digits; another batch, or 1, 2 or 4 devices, give them to 1e-4 of the score,
which is float32's rounding; so do several processes that train and score
(`gan_jax.train --multihost`). A command is one process.
"""

import dataclasses
from typing import Any

from absl import flags

from gan_jax.config import app, schema, validate
from gan_jax.runtime.errors import ArgumentError, Error

FLAGS = {
  'workdir': ('', 'Folder of the run.'),
  'step': (
    int,
    'Step of the checkpoint that is scored; by default the newest.',
  ),
  'all': (False, 'Whether every checkpoint is scored.'),
  'follow': (
    False,
    'Whether every checkpoint is scored, those to come too, until the run'
    ' ends.',
  ),
  'follow_timeout': (
    3600.0,
    'Seconds without a new checkpoint after which --follow gives up.',
  ),
  'images': (
    '',
    'Samples that are scored instead of a run: an .npz of uint8 images, a'
    ' folder of images, or a dataset.',
  ),
  'against': (
    '',
    "Samples that are scored against, likewise; by default the run's dataset.",
  ),
  'validation': (
    '',
    'Real images that parzen picks its width on; by default the first 1,000'
    ' that the run was not trained on.',
  ),
  'metrics': (
    '',
    'Scores, with commas between: '
    + ', '.join(validate.known_metrics())
    + "; by default the run's own.",
  ),
  'features': (
    '',
    'What metrics see of an image: classifier, inception-2048, pixels,'
    " random-128 and others; by default the run's own.",
  ),
  'weights': (
    '',
    'File of the weights of --features; by default the public one.',
  ),
  'samples': (
    0,
    'Generated samples of a score; 0: 10,000, or all of --images.',
  ),
  'real_samples': (0, 'Real samples; 0: as many, or all that there are.'),
  'eval_seeds': (1, 'Draws of noise that scores are means of.'),
  'seed': (0, 'The first of these seeds.'),
  'ema': (
    bool,
    'Whether the averaged generator is scored; by default if there is one.',
  ),
  'data_dir': ('', "Data root; empty: the run's, or $TFDS_DATA_DIR."),
  'neighbours': (0, 'Samples shown beside their nearest training images.'),
  'devices': (0, 'Devices used; 0: all there are.'),
  'out': ('metrics.jsonl', 'File that scores of --images are added to.'),
}


def main() -> int:
  """Scores what the flags name."""
  f = flags.FLAGS
  if bool(f.workdir) == bool(f.images):
    remedy = 'name the folder of a run, or `images`: one of them'
    raise ArgumentError('workdir', f.workdir, remedy)
  validate.check_effect({n: f[n].value for n in f if f[n].present}, f.images)
  if bool(f.all) + bool(f.follow) + (f.step is not None) > 1:
    name = 'all' if f.all else 'follow'
    remedy = 'of `step`, `all` and `follow` use one of them'
    raise ArgumentError(name, True, remedy)
  validate.check_scored(f.workdir, f.metrics, f.features)
  from gan_jax.evaluation import scorer
  from gan_jax.training import run_evaluator, score_checkpoints

  fields = dataclasses.fields(scorer.EvaluationOptions)
  asked: dict[str, Any] = {field.name: f[field.name].value for field in fields}
  options = scorer.EvaluationOptions(**asked)
  try:
    if f.images:
      metrics = run_evaluator.load_metrics(f.metrics)
      options = dataclasses.replace(options, metrics=metrics)
      scorer.evaluate_images(options, f.images, f.out)
    elif f.follow:
      score_checkpoints.follow(f.workdir, options, f.follow_timeout)
    else:
      score_checkpoints.evaluate_run(f.workdir, options, f.step, f.all)
  except OSError as error:
    raise Error(
      f'scores cannot be written ({error}); use a place that you may write to'
    ) from error
  return app.DONE


if __name__ == '__main__':
  schema.define(FLAGS)
  app.run(main)
