"""Trains one GAN: `python -m gan_jax.train --workdir=DIR [--flagfile=F] ...`.

The same command continues what it finds in the workdir. Exit codes: 0 done,
1 error, 2 bad flags or refused workdir, 3 diverged, 75 saved after a signal.
`--summary` prints parameters and FLOPs instead.
"""

from absl import flags

from gan_jax.config import app as doors
from gan_jax.config import schema


def main() -> int:
  """Trains as the flags say."""
  settings = schema.from_flags()
  if flags.FLAGS.summary:
    from gan_jax.training import summary

    print(summary.summarise(settings))
    return doors.DONE
  from gan_jax.training import loop  # JAX is wanted only now

  return loop.train(settings)


if __name__ == '__main__':
  schema.define_flags()
  flags.DEFINE_boolean(
    'summary', False, 'print parameters and FLOPs a step instead of training'
  )
  flags.adopt_module_key_flags(schema)
  doors.run(main)
