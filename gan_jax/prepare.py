"""Prepares a dataset: `python -m gan_jax.prepare --dataset=mnist [--from=DIR]`.

Downloads the originals, or takes them from a folder, verifies their checksums,
and writes them in the format of TFDS. Needs no TensorFlow for digits, mnist,
fashion_mnist and cifar10.
"""

from absl import flags

from gan_jax.config import app, schema
from gan_jax.runtime.errors import ArgumentError

FLAGS = {
  'dataset': (
    '',
    'Dataset to prepare: mnist, fashion_mnist, cifar10, or another of TFDS.',
  ),
  'data_dir': (
    '',
    'Folder of prepared datasets. Empty: $TFDS_DATA_DIR, or'
    ' ~/tensorflow_datasets.',
  ),
  'from': (
    '',
    'Folder that holds the original files. Empty: they are downloaded.',
  ),
}


def main() -> int:
  """Prepares the set that the flags name."""
  dataset, originals = flags.FLAGS.dataset, flags.FLAGS['from'].value or ''
  if not dataset:
    raise ArgumentError('dataset', '', 'name a set, for example mnist')
  from gan_jax import data
  from gan_jax.data import tfds_sets

  if data.DATASETS.get(dataset) or dataset.startswith(('folder:', 'density:')):
    print(f'{dataset} needs no preparation; train with --dataset={dataset}')
    return app.DONE
  name = data.prepared_as(dataset)
  root = data.data_root(flags.FLAGS.data_dir)
  folder, counts = tfds_sets.prepare(name, root, originals)
  images = ', '.join(f'{count:,} {split}' for split, count in counts.items())
  where = f' --data_dir={root}' if flags.FLAGS.data_dir else ''
  print(
    f'{tfds_sets.describe(folder)}: {images} images in {folder}\n'
    f'Train on it: python -m gan_jax.train --workdir=runs/{name}'
    f' --dataset={dataset}{where}'
  )
  return app.DONE


if __name__ == '__main__':
  schema.define(FLAGS)
  app.run(main)
