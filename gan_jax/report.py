"""Writes report.html: `python -m gan_jax.report --workdir=DIR`.

The trainer does so at its end; this does it at any time, for an unfinished run
too.
"""

from absl import flags

from gan_jax import doors
from gan_jax.config import ConfigError

flags.DEFINE_string('workdir', '', 'folder of the run')


def main() -> int:
  """Writes the report of the workdir that the flags name."""
  if not flags.FLAGS.workdir:
    raise ConfigError('--workdir=: name the folder of a run')
  from gan_jax.pages import write_report

  print(f'report: {write_report(flags.FLAGS.workdir)}')
  return doors.DONE


if __name__ == '__main__':
  doors.run(main)
