"""Features: what a metric sees of an image.

`load` finds features by a spec such as `inception-768`, `classifier` or
`pixels`; `extract_all` takes those of a whole set. To add some, write a
function of a `Request` and give it an entry in `FEATURES`.
"""

from collections.abc import Callable

from gan_jax.features import classifier, inception, resnet20, simple
from gan_jax.features.base import Features, Request
from gan_jax.features.errors import FeatureError, FeatureFlagError
from gan_jax.features.extract import extract_all

FEATURES: dict[str, Callable[[Request], Features]] = {
  'inception': inception.make,
  'classifier': classifier.make,
  'resnet20': resnet20.make,
  'pixels': simple.make_pixels,
  'random': simple.make_random,
}


def load(
  spec: str,
  *,
  weights: str = '',
  image_shape: tuple[int, ...],
  data_dir: str = '',
  dataset: str = '',
) -> Features:
  """Features by their spec.

  Args:
    spec: a key of `FEATURES`, and options after it: inception-768 (a tap),
      inception-2048-clean (a resizer), classifier-mnist (what it learns from),
      random-256 (a dimension).
    weights: file of the weights; empty for the public or own ones.
    image_shape: (height, width, channels), or (dim,) of points.
    data_dir: the data root; holds what is downloaded and trained as well.
    dataset: what `classifier` learns from where the spec does not say.

  Raises:
    FeatureError: if they cannot be had; the message says what to do.
  """
  name, *options = spec.split('-')
  if name not in FEATURES:
    raise FeatureFlagError(
      f'--features={spec}: unknown; use one of {", ".join(FEATURES)}'
    )
  shape = tuple(image_shape)
  if len(shape) not in (1, 3) or len(shape) == 3 and shape[2] not in (1, 3):
    raise FeatureFlagError(
      f'--features={spec}: samples of shape {shape}; give (height, width, 1 or'
      ' 3), or (dim,) of points'
    )
  if len(shape) == 1 and name not in ('pixels', 'random'):
    raise FeatureFlagError(
      f'--features={spec}: is for images; use pixels or random for points'
    )
  from gan_jax.data import data_root

  cache = data_root(data_dir)
  return FEATURES[name](
    Request(spec, tuple(options), weights, shape, cache, data_dir, dataset)
  )


__all__ = [
  'FEATURES',
  'FeatureError',
  'FeatureFlagError',
  'Features',
  'Request',
  'extract_all',
  'load',
]
