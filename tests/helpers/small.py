"""The smallest runs that are whole runs, for tests of all that is around them.

What they cost is the compiler's time: one hidden layer, a few units.
"""

import dataclasses
from typing import Any

from gan_jax.config.schema import Config

RING = Config(
  dataset='ring',
  network='mlp',
  width=8,
  depth=1,
  batch_size=8,
  steps=12,
  log_every=4,
  sample_every=100,
  checkpoint_every=6,
  devices=1,
  report=False,
)
_IMAGES: dict[str, Any] = dict(dataset='digits', flip=True, num_samples=4)


def ring(**changes: Any) -> Config:
  """A density's: two MLPs in the plane."""
  return dataclasses.replace(RING, **changes)


def digits(**changes: Any) -> Config:
  """An image set's: the same, of the digits that come with the package."""
  return dataclasses.replace(RING, **(_IMAGES | changes))


def dcgan(**changes: Any) -> Config:
  """The same with convolutions, whose compilation takes seconds."""
  return digits(**(dict(network='dcgan', width=4, depth=0) | changes))
