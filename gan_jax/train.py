"""Trains one GAN: `python -m gan_jax.train --workdir=DIR [--flagfile=F] ...`.

The same command continues the run that it finds in the workdir. Exit codes: 0
done, 1 error, 2 bad flags or a workdir of another run, 3 diverged, 75 saved
after a signal (run the command again); of --compile_for, 0 if it fits, 1 if it
does not.
"""

from absl import flags

from gan_jax.config import app, schema
from gan_jax.config.schema import Flag

FLAGS = {
  'summary': Flag(
    False, 'Whether to print parameters and FLOPs, and not train.'
  ),
  'compile_for': Flag(
    '',
    'Compile for such devices, which need not be here, say what the program'
    ' needs of them, and do not train: h100, h200, a100 or l4, h100:2x4 for two'
    ' hosts of four; v5e:2x4, v5p:2x2x1 or v6e:2x4 for a TPU slice.',
  ),
  'out': Flag(
    '',
    'File of what --compile_for finds, as JSON. Empty: in the workdir, if'
    ' there is one.',
    place=True,
  ),
}


def main() -> int:
  """Trains as the flags say."""
  config = schema.from_flags()
  if flags.FLAGS.summary:
    from gan_jax.training import summary

    print(summary.summarise(config))
    return app.DONE
  if flags.FLAGS.compile_for:
    from gan_jax.training import compile_for

    f = flags.FLAGS
    return compile_for.compile_config(config, f.compile_for, f.out)
  app.warn_idle('nothing is compiled for', 'out')
  from gan_jax.training.train import train_config  # JAX is wanted only now

  return train_config(config)


if __name__ == '__main__':
  schema.define_flags()
  schema.define(FLAGS)
  app.run(main)
