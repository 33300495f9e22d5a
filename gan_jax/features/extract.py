"""The features of a whole set: batch after batch, over every device."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from gan_jax.features.base import Features, See
from gan_jax.features.errors import FeatureError
from gan_jax.runtime import sharding

# Times as many images at once where there is no cache to stay in.
_ACCELERATED = 16
Progress = Callable[[int, int], None]


def extract_all(
  features: Features,
  images: Any,
  *,
  wanted: Sequence[str] = ('features',),
  batch: int = 0,
  mesh: Mesh | None = None,
  progress: Progress | None = None,
) -> dict[str, NDArray[np.float32]]:
  """What features say of every image.

  One program whatever the number of images: the last batch is filled up. The
  result does not depend on the batch or the devices, but for the rounding of
  float32 (relative 1e-5).

  Args:
    features: as `load` gives them.
    images: uint8 (n, height, width, channels), or a sequence of slices of it.
    wanted: `features`, `probabilities`, or both from one pass.
    batch: images at a time on all devices, rounded up to fill each; 0 for a
      size that fits.
    mesh: of devices that share each batch; None for all of them.
    progress: called with the images done and their number.

  Returns:
    `{'features': (n, dim), 'probabilities': (n, classes)}`, as wanted.

  Raises:
    FeatureError: without images, or for images of another shape or type.
  """
  mesh = mesh or sharding.make_mesh()
  count = len(images)
  if not count:
    raise FeatureError('there are no images to take features of')
  rows = batch or features.batch * mesh.size
  if not batch and jax.default_backend() != 'cpu':
    rows *= _ACCELERATED
  rows = -(-rows // mesh.size) * mesh.size
  program = _program(features.see, tuple(wanted), mesh)
  weights = jax.device_put(features.weights, sharding.replicated(mesh))
  # An accelerator computes a batch while the one before is fetched; several
  # CPU devices in one process hang unless each batch is waited for.
  ahead = 0 if jax.default_backend() == 'cpu' else 1
  parts: list[Any] = []
  for start in range(0, count, rows):
    x = np.asarray(images[start : start + rows])
    parts.append(program(weights, _filled(x, rows)))
    if len(parts) > ahead:
      parts[-1 - ahead] = jax.device_get(parts[-1 - ahead])
    if progress:
      progress(start + len(x), count)
  return {
    name: np.concatenate([np.asarray(part[name]) for part in parts])[:count]
    for name in wanted
  }


@functools.lru_cache(maxsize=8)
def _program(see: See, wanted: tuple[str, ...], mesh: Mesh) -> Any:
  """The compiled pass, kept for the next set of the same features."""
  whole = sharding.replicated(mesh)
  rows = NamedSharding(mesh, PartitionSpec('data'))
  return jax.jit(
    lambda weights, x: see(weights, x, wanted),
    in_shardings=(whole, rows),
    out_shardings=whole,
  )


def _filled(x: NDArray[Any], rows: int) -> NDArray[Any]:
  if len(x) == rows:
    return x
  return np.concatenate([x, np.zeros((rows - len(x), *x.shape[1:]), x.dtype)])
