"""Scores a run: `python -m gan_jax.evaluate --workdir=DIR --metrics=fid,kid`.

Scores the newest checkpoint, `--step=N`, or `--all` of them; with `--follow`
those of a run that another process trains, until it ends. Or a set of samples:
`--images=PATH --against=DATASET`, each an .npz, a folder of images or a dataset
such as `mnist[test]`. Scores go to metrics.jsonl with their whole protocol;
what was scored under it is not scored again. The same command gives the same
digits; another number of devices gives them to 1e-4 of the score.
"""

from absl import flags

from gan_jax.config import app, schema, validate
from gan_jax.config.parsing import INT_MAX
from gan_jax.config.schema import Flag

FLAGS: dict[str, Flag] = {
  'workdir': Flag('', 'Folder of the run.', place=True),
  'step': Flag(
    int, 'Step of the checkpoint to score; by default the newest.', 0, INT_MAX
  ),
  'all': Flag(False, 'Whether every checkpoint is scored.'),
  'follow': Flag(
    False,
    'Whether all checkpoints are scored, those to come too, till the run ends.',
  ),
  'follow_timeout': Flag(
    3600.0,
    'Seconds without a new checkpoint after which --follow gives up.',
    0,
    1e9,
  ),
  'images': Flag(
    '',
    'Samples to score instead of a run: an .npz of uint8 images, a folder of'
    ' images, or a dataset.',
    place=True,
  ),
  'against': Flag(
    '',
    "Samples that are scored against, likewise; by default the run's dataset. A"
    ' folder that has the name of a dataset is written ./NAME.',
    place=True,
  ),
  'validation': Flag(
    '',
    'Real images that parzen picks its width on; by default the first 1,000 of'
    ' which the run was not trained on.',
    place=True,
  ),
  'metrics': Flag(
    '',
    'Scores, with commas between: '
    + ', '.join(validate.known_metrics())
    + "; by default the run's own.",
  ),
  'features': Flag(
    '',
    'What metrics see of an image: classifier, inception-2048, pixels and'
    " others; by default the run's own.",
  ),
  'weights': Flag(
    '',
    'File of the weights of --features; by default the public one.',
    place=True,
  ),
  'samples': Flag(
    0, 'Generated samples of a score; 0: 10,000, or all of --images.', 0, 10**7
  ),
  'real_samples': Flag(
    0, 'Real samples; 0: as many, or all that there are.', 0, 10**7
  ),
  'eval_seeds': Flag(1, 'Draws of noise that scores are means of.', 1, 10**4),
  'seed': Flag(0, 'The first of these seeds.', 0, INT_MAX),
  'ema': Flag(
    bool,
    'Whether the averaged generator is scored; by default if there is one.',
  ),
  'class_sampling': Flag(
    '',
    'How often G of a conditional run is asked for each class: data, as often'
    ' as the training data has it, or uniform; by default as it was trained.',
  ),
  'data_dir': Flag(
    '', "Data root; empty: the run's, or $TFDS_DATA_DIR.", place=True
  ),
  'neighbours': Flag(
    0, 'Samples shown beside their nearest training images.', 0, 10**4
  ),
  'devices': Flag(0, 'Devices used; 0: all there are.', 0, 2**20),
  'out': Flag(
    'metrics.jsonl', 'File that scores of --images are added to.', place=True
  ),
}


def main() -> int:
  """Scores what the flags name."""
  f = flags.FLAGS
  values = {name: f[name].value for name in FLAGS}
  validate.check_evaluation(values, [n for n in FLAGS if f[n].present])
  from gan_jax.training.score_checkpoints import evaluate

  evaluate(values)
  return app.DONE


if __name__ == '__main__':
  schema.define(FLAGS)
  app.run(main)
