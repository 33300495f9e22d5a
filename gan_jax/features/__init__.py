"""Features: what a metric sees of a sample.

`load` finds features by a name such as `inception-768`, `classifier` or
`pixels`; `extract_features` takes those of a whole set. To add some, write a
function of a `Spec` that returns `Features` and give it an entry in `FEATURES`.
"""

from collections.abc import Callable

from gan_jax.data import data_root
from gan_jax.features import classifier, inception, resnet20, simple
from gan_jax.features.base import Features, Spec, make_features
from gan_jax.features.extract import FeaturePass, batched, extract_features
from gan_jax.features.simple import make_raw
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.names import suggest

FEATURES: dict[str, Callable[[Spec], Features]] = {
  'inception': inception.make,
  'classifier': classifier.make,
  'resnet20': resnet20.make,
  'pixels': simple.make_pixels,
  'random': simple.make_random,
}


def load(
  features: str,
  *,
  sample_shape: tuple[int, ...],
  weights: str = '',
  data_dir: str = '',
  dataset: str = '',
) -> Features:
  """Features by name.

  Args:
    features: a key of `FEATURES`, and options after it: inception-768 (a tap),
      inception-2048-clean (a resizer), classifier-mnist (what it learns from),
      random-256 (a dimension).
    sample_shape: (height, width, channels) of images, or (dim,) of points.
    weights: file of the weights; empty for the public or own ones.
    data_dir: the data root; holds what is downloaded and trained as well.
    dataset: what `classifier` learns from where the name does not say.

  Raises:
    ArgumentError: for an unknown name, or samples that it does not take.
    DataError: if weights or data cannot be had; the message says what to do.

  >>> load('random-16', sample_shape=(8, 8, 1)).dim
  16
  """
  name, *options = features.split('-')
  if name not in FEATURES:
    raise ArgumentError('features', features, suggest(name, FEATURES))
  shape = tuple(sample_shape)
  if len(shape) not in (1, 3) or len(shape) == 3 and shape[2] not in (1, 3, 4):
    remedy = (
      f'samples of shape {shape}; give (height, width, 1, 3 or 4), or (dim,)'
    )
    raise ArgumentError('features', features, f'{remedy} of points')
  if len(shape) == 1 and name not in ('pixels', 'random'):
    remedy = 'is for images; use pixels or random for points'
    raise ArgumentError('features', features, remedy)
  cache = data_root(data_dir)
  return FEATURES[name](
    Spec(features, tuple(options), weights, shape, data_dir, cache, dataset)
  )


__all__ = [
  'FEATURES',
  'FeaturePass',
  'Features',
  'Spec',
  'batched',
  'extract_features',
  'load',
  'make_features',
  'make_raw',
]
