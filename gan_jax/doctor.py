"""Looks at what a run depends on: `python -m gan_jax.doctor [--workdir=DIR]`.

Versions, devices, memory, the precision in force, what a matrix product and a
convolution reach, the folders that are written to; and what to do about each
fault. Exit codes: 0 all is well or can be lived with, 1 nothing can be trained.
"""

import sys

from absl import flags

from gan_jax.config import app, schema
from gan_jax.config.schema import FIELDS, Flag
from gan_jax.runtime import terminal
from gan_jax.runtime.errors import Error

FLAGS: dict[str, Flag] = {
  'workdir': Flag('.', 'Folder that runs are to be written to.', place=True),
  'data_dir': Flag(
    '',
    'Folder of prepared datasets. Empty: $TFDS_DATA_DIR, or'
    ' ~/tensorflow_datasets.',
    place=True,
  ),
  'compilation_cache': Flag(
    str(FIELDS['compilation_cache'].default),
    'Folder of compiled programs.',
    place=True,
  ),
  'seconds': Flag(
    1.0, 'Seconds for which each product is timed. 0: none is.', 0.0, 60.0
  ),
}


def main() -> int:
  """Prints what is found, and what to do."""
  from gan_jax.data import tfds_sets
  from gan_jax.runtime import checkup

  f = flags.FLAGS
  folders = {
    'workdir': f.workdir,
    'data': f.data_dir or str(tfds_sets.data_root(f.data_dir)),
    'compilation cache': f.compilation_cache,
  }
  if f.compilation_cache == 'off':
    del folders['compilation cache']
  faults = []
  for finding in checkup.look(folders, seconds=f.seconds):
    terminal.tell(f'{finding.name}: {finding.told}', sys.stdout)
    if finding.remedy:
      terminal.tell(f'  -> {finding.remedy}', sys.stdout)
    if finding.fatal:
      faults.append(f'{finding.name}: {finding.told}; {finding.remedy}')
  if faults:
    raise Error('\n'.join(faults))
  return app.DONE


if __name__ == '__main__':
  schema.define(FLAGS)
  app.run(main)
