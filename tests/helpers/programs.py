"""A small run of each architecture, of data that come with the package."""

from gan_jax.config.schema import Config

_DIGITS = dict(dataset='digits', batch_size=16)
_COLOUR = dict(_DIGITS, image_size=16, channels=3, width=4)
OPTIONS = {
  'mlp': dict(dataset='ring', width=8, depth=1, batch_size=16),
  'goodfellow2014': _DIGITS,
  'dcgan': dict(_DIGITS, width=4),
  'infogan': dict(_DIGITS, image_size=28, width=4),
  'sndcgan': _COLOUR,
  'resnet': _COLOUR,
  'r3gan': _COLOUR,
  'pacgan': dict(dataset='grid', packing=2, width=8, batch_size=32),
  'unrolled': dict(dataset='ring', width=8, batch_size=16),
  'dirac': dict(dataset='gaussian_1d', batch_size=16),
}


def small(architecture, schedule='alternating', penalty=''):
  """Its options; raises ArgumentError where there is no such game."""
  return Config(
    network=architecture,
    schedule=schedule,
    regularizer=penalty,
    **OPTIONS[architecture],
  ).validate()
