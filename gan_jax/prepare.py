"""Prepares a dataset: `python -m gan_jax.prepare --dataset=mnist [--from=DIR]`.

Downloads the originals, or takes them from a folder, verifies their checksums,
and writes them in the format of TFDS. Needs no TensorFlow for digits, mnist,
fashion_mnist and cifar10. With --out=DIR the images of any set are written as
rows of pixels, or kept as files, which --dataset=prepared:DIR opens at once.
"""

from absl import flags

from gan_jax.config import app, schema
from gan_jax.config.schema import Flag
from gan_jax.runtime.errors import ArgumentError

FLAGS: dict[str, Flag] = {
  'dataset': Flag(
    '',
    'Dataset to prepare: mnist, fashion_mnist, cifar10, or another of TFDS. Of'
    ' folder:PATH, which needs no preparation, it is listed what a run reads.'
    ' With --out any set that has images.',
  ),
  'data_dir': Flag(
    '',
    'Folder of prepared datasets. Empty: $TFDS_DATA_DIR, or'
    ' ~/tensorflow_datasets.',
    place=True,
  ),
  'from': Flag(
    '',
    'Folder that holds the original files. Empty: they are downloaded.',
    place=True,
  ),
  'out': Flag(
    '',
    'Folder that the images are written to as rows of pixels, by all cores.'
    ' What a process that was killed has written is kept. Empty: none.',
    place=True,
  ),
  'form': Flag(
    'auto',
    'What --out is to hold: rows of pixels; files of folder:PATH as they are,'
    ' in array_record, decoded at each visit; auto: rows, or files where the'
    ' disk has room for these alone.',
  ),
  'only': Flag(
    '',
    'K/N: of every N shards of --out the K-th, the share of one of N processes,'
    ' here or on machines that see the same folders. Once all have ended, the'
    ' same command without it joins them. Empty: all.',
  ),
  'image_size': Flag(
    0, 'Side in pixels of what --out is to hold. 0: as they are.', 0, 2**13
  ),
  'channels': Flag(
    0, 'Channels of what --out is to hold: 1, 3 or 4. 0: as they are.', 0, 4
  ),
  'verify': Flag(
    False,
    'Whether all that --out, or --dataset=prepared:DIR, holds is read and its'
    ' checksums compared.',
  ),
  'max_megapixels': Flag(
    50.0,
    'Millions of pixels that an image of folder:PATH may have, as for a run.',
    1e-6,
    1e9,
  ),
}


_FOR_OUT = ('form', 'only', 'image_size', 'channels', 'verify')


def main() -> int:
  """Prepares the set that the flags name."""
  dataset, originals = flags.FLAGS.dataset, flags.FLAGS['from'].value or ''
  if not dataset:
    raise ArgumentError('dataset', '', 'name a set, for example mnist')
  from gan_jax import data

  is_folder = dataset.startswith('folder:')
  as_rows = flags.FLAGS.out or dataset.startswith('prepared:')
  if not as_rows:
    app.warn_idle('it is for --out', *_FOR_OUT)
  if not is_folder:
    app.warn_idle('it bounds images of folder:PATH alone', 'max_megapixels')
  if as_rows:
    app.warn_idle('it is for the format of TFDS', 'from')
    how = {n: flags.FLAGS[n].value for n in {*FLAGS} - {'dataset', 'from'}}
    print(app.as_flags(data.tell_rows(dataset, **how)))
    return app.DONE
  if is_folder or data.DATASETS.get(dataset) or dataset.startswith('density:'):
    idle = ('from',) if is_folder else ('from', 'data_dir')
    app.warn_idle(f'{dataset} needs no preparation', *idle)
    if is_folder:
      asked = (flags.FLAGS.max_megapixels, flags.FLAGS.data_dir)
      print('\n'.join(data.tell_folder(dataset, *asked)))
    print(f'{dataset} needs no preparation; train with --dataset={dataset}')
    return app.DONE
  name, root = data.prepared_as(dataset), flags.FLAGS.data_dir
  if name == 'digits':
    app.warn_idle('digits come with scikit-learn', 'from')
  elif originals and data.is_prepared(name, data_dir=root):
    app.warn_idle(f'{name} was prepared before', 'from')
  try:
    folder, counts = data.prepare(dataset, data_dir=root, originals=originals)
  except ArgumentError as error:
    if error.argument == 'originals':  # `from` is a word of Python
      raise ArgumentError('from', error.value, error.remedy) from error
    raise
  print(data.tell_prepared(folder, counts, root))
  where = f' --data_dir={root}' if root else ''
  print(
    f'Train on it: python -m gan_jax.train --workdir=runs/{name}'
    f' --dataset={dataset}{where}'
  )
  return app.DONE


if __name__ == '__main__':
  schema.define(FLAGS)
  app.run(main)
