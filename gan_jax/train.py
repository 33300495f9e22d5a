"""Trains one GAN: `python -m gan_jax.train --workdir=DIR [--flagfile=F] ...`.

The same command continues the run that it finds in the workdir. Exit codes: 0
done, 1 error, 2 bad flags or a workdir of another run, 3 diverged, 75 saved
after a signal (run the command again).
"""

from absl import flags

from gan_jax.config import app, schema
from gan_jax.config.schema import Flag

FLAGS = {
  'summary': Flag(
    False, 'Whether to print parameters and FLOPs, and not train.'
  )
}


def main() -> int:
  """Trains as the flags say."""
  config = schema.from_flags()
  if flags.FLAGS.summary:
    from gan_jax.training import summary

    print(summary.summarise(config))
    return app.DONE
  from gan_jax.training.train import train_config  # JAX is wanted only now

  return train_config(config)


if __name__ == '__main__':
  schema.define_flags()
  schema.define(FLAGS)
  app.run(main)
