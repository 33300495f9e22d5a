"""The features of a set of samples: batch after batch, over every device."""

import collections
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array
from numpy.typing import NDArray

from gan_jax.features.base import Apply, Features
from gan_jax.runtime import numerics, sharding
from gan_jax.runtime.array_cache import Arrays
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.progress import progress_bar

# Times as many samples at once where there is no cache to stay in.
_ACCELERATED = 16


class FeaturePass:
  """Samples as metrics see them: one compiled program, batch after batch.

  The result does not depend on the batch or the devices, but for the rounding
  of float32 (relative 1e-5).

  Attributes:
    features: that are extracted.
    outputs: 'features', 'probabilities', or both from one pass.
    rows: samples at a time, on all devices.
  """

  def __init__(
    self,
    features: Features,
    outputs: Sequence[str] = ('features',),
    *,
    mesh: Mesh | None = None,
    batch: int = 0,
  ) -> None:
    """Puts the weights on the devices; compiles nothing yet.

    Args:
      features: as `load` gives them.
      outputs: some of theirs.
      mesh: of devices that share each batch; None for all of them.
      batch: samples at a time on all devices, rounded up to fill each; 0 for a
        size that fits.

    Raises:
      ArgumentError: for outputs that these features do not have.
    """
    for output in outputs:
      if output not in features.outputs:
        remedy = f'gives {", ".join(features.outputs)}, and no {output}; use a'
        raise ArgumentError('features', features.name, f'{remedy} classifier')
    mesh = mesh or sharding.make_mesh()
    rows = batch or features.batch * mesh.size
    if not batch and jax.default_backend() != 'cpu':
      rows *= _ACCELERATED
    self.features, self.outputs = features, tuple(outputs)
    self.rows = -(-rows // mesh.size) * mesh.size
    self._weights = jax.device_put(features.weights, sharding.replicated(mesh))
    self._program = _program(features.apply, self.outputs, mesh)

  def __call__(
    self,
    batches: Iterable[NDArray[np.generic] | Array],
    count: int,
    *,
    text: str = '',
    samples: bool = False,
  ) -> Arrays:
    """The outputs for `count` samples, on the host.

    Args:
      batches: of `rows` samples each, the last one filled up (`batched`).
      count: samples without what fills the last batch.
      text: what a progress bar on a terminal is called.
      samples: whether the samples themselves come back too, as `samples`.

    Raises:
      ArgumentError: for samples of another shape or type.
    """
    parts: dict[str, list[NDArray[np.generic]]] = {}
    pending: collections.deque[dict[str, Any]] = collections.deque()
    # An accelerator computes a batch while the one before is fetched; several
    # CPU devices in one process hang unless each batch is waited for.
    ahead = 0 if jax.default_backend() == 'cpu' else 1

    def fetch() -> None:
      for name, x in pending.popleft().items():
        parts.setdefault(name, []).append(np.asarray(x))

    for x in progress_bar(batches, -(-count // self.rows), text):
      self._check(x)
      seen = self._program(self._weights, x) if self.outputs else {}
      pending.append({**seen, 'samples': x} if samples else seen)
      if len(pending) > ahead:
        fetch()
    while pending:
      fetch()
    return {name: np.concatenate(xs)[:count] for name, xs in parts.items()}

  def _check(self, x: NDArray[np.generic] | Array) -> None:
    shape = self.features.sample_shape
    dtype = np.dtype(np.uint8 if len(shape) == 3 else np.float32)
    if x.dtype != dtype or tuple(x.shape[1:]) != shape:
      takes = f'takes {dtype.name} of shape (n, {", ".join(map(str, shape))})'
      given = f'and not {x.dtype} {tuple(x.shape)}'
      remedy = f'{takes}, {given}; convert them, images to the range 0 to 255'
      raise ArgumentError('features', self.features.name, remedy)


@functools.lru_cache(maxsize=32)
def _program(apply: Apply, outputs: tuple[str, ...], mesh: Mesh) -> Any:
  """The compiled pass, for all sets and weights of the same function."""
  shard = sharding.batch_sharder(mesh)

  def see(weights: Any, x: Array) -> dict[str, Array]:
    with numerics.multiplying('highest'):
      return apply(weights, shard(x), outputs)

  return jax.jit(see, out_shardings=sharding.replicated(mesh))


def batched(x: NDArray[Any], rows: int) -> Iterator[NDArray[Any]]:
  """An array in batches of one size, the last one filled up with zeros.

  >>> [batch.tolist() for batch in batched(np.arange(1, 4), 2)]
  [[1, 2], [3, 0]]
  """
  for start in range(0, len(x), rows):
    batch = np.asarray(x[start : start + rows])
    if len(batch) < rows:
      room = np.zeros((rows - len(batch), *batch.shape[1:]), batch.dtype)
      batch = np.concatenate([batch, room])
    yield batch


def extract_features(
  features: Features,
  samples: Any,
  *,
  outputs: Sequence[str] = ('features',),
  batch: int = 0,
  mesh: Mesh | None = None,
  text: str = '',
) -> Arrays:
  """What a feature network makes of every sample.

  Args:
    features: as `load` gives them.
    samples: uint8 images (n, height, width, channels) or float32 points (n,
      dim), or a sequence whose slices are such arrays.
    outputs: `features`, `probabilities`, or both from one pass.
    batch: samples at a time on all devices, rounded up to fill each; 0 for a
      size that fits.
    mesh: of devices that share each batch; None for all of them.
    text: what a progress bar on a terminal is called.

  Returns:
    float32 `{'features': (n, dim), 'probabilities': (n, classes)}`, as asked
    for.

  Raises:
    ArgumentError: without samples, for samples of another shape or type, or
      outputs that these features do not have.

  >>> from gan_jax import features
  >>> images = np.full((5, 8, 8, 1), 255, np.uint8)
  >>> pixels = features.load('pixels', sample_shape=(8, 8, 1))
  >>> extract_features(pixels, images)['features'].shape
  (5, 64)
  """
  if not len(samples):
    raise ArgumentError('samples', '', 'there are none; give at least one')
  run = FeaturePass(features, outputs, mesh=mesh, batch=batch)
  return run(batched(samples, run.rows), len(samples), text=text)
