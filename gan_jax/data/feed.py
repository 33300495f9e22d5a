"""The feed: real samples in an order that is a pure function of seed and step.

Sample i of batch b of step s is number `n = (s batches + b) batch_size + i` of
a run. It is record `perm(seed, epoch)[n mod size]` of epoch `n // size`: true
epochs, each record once; or record `n mod size` of a set that keeps its own
order. A set that fits lives on the device and is gathered there, a larger one
is streamed by the host; both follow the one order, on any number of processes,
and nothing but the step need be saved.
"""

import collections
import copy
import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from numpy.typing import NDArray

from gan_jax.data import samples
from gan_jax.data.densities import Density
from gan_jax.data.rows import Memory, Rows, aligned_zeros
from gan_jax.data.samples import LabelledSource, RowSource, SampleSet
from gan_jax.runtime import backend
from gan_jax.runtime.errors import ArgumentError

PyTree = Any
RESIDENCES = ('auto', 'device', 'stream')
# Threads that read, and what they read ahead of the device at the most.
_GIB = 2**30
_THREADS, _AHEAD_STEPS, _AHEAD_BYTES = 8, 64, 256 * 2**20


@runtime_checkable
class Feed(Protocol):
  """Real samples for the step, whatever they are and wherever they live.

  Attributes:
    size: records in the set; None for a density.
    fingerprint: of the content.
    resident: whether nothing but indices goes to the device.
    constants: arrays that the compiled program is handed once.
    constant_shapes: their shapes and types, known before any is read.

  A labelled one gives the classes of its samples with them.
  """

  @property
  def size(self) -> int | None: ...  # noqa: D102

  @property
  def fingerprint(self) -> str: ...  # noqa: D102

  @property
  def resident(self) -> bool: ...  # noqa: D102

  @property
  def constants(self) -> PyTree: ...  # noqa: D102

  @property
  def constant_shapes(self) -> PyTree: ...  # noqa: D102

  def chunk(
    self, start: int, count: int, rows: slice = slice(None), room: int = 0
  ) -> PyTree:
    """What the device needs for `count` steps from step `start`.

    Host arrays (count, batches_per_step, rows, ...); `rows` picks those of
    each batch that this process is to read, and where there is `room` for more
    steps, zeros follow. A pure function of its arguments.
    """
    ...

  def decode(
    self, constants: PyTree, item: PyTree, key: Key[Array, ''], batch_size: int
  ) -> Any:
    """One batch of a chunk as real samples; a pure function, to be traced.

    (batch, *shape) float32; labelled, a pair of it and classes (batch,) int32.
    """
    ...

  def position(self, step: int) -> dict[str, float]:
    """Where in the data a step is; what a checkpoint records."""
    ...

  def reseeded(self, seed: int) -> 'Feed':
    """The same data in the order of another seed."""
    ...


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int) -> NDArray[np.int32]:
  """Order of the records in an epoch."""
  stream = np.random.Generator(np.random.Philox(key=[seed, epoch]))
  order = np.arange(size, dtype=np.int32)
  stream.shuffle(order)  # as `permutation(size)`, in a third of the memory
  order.flags.writeable = False
  return order


def normalise(images: Any) -> Any:
  """uint8 [0, 255] -> float32 [-1, 1]."""
  # x / 127.5 - 1 is compiled to a fused multiply-add that exceeds 1 at 255.
  return (images.astype(jnp.float32) - 127.5) / 127.5


def flip_at_random(x: Any, key: Key[Array, '']) -> Any:
  """Each image turned left to right, or not, with even odds."""
  which = jax.random.bernoulli(key, shape=(x.shape[0],))
  return jnp.where(which[:, None, None, None], x[:, :, ::-1], x)


class DensityFeed:
  """Samples drawn on the device; nothing comes from the host."""

  size = None
  resident = True
  constants: PyTree = ()
  constant_shapes: PyTree = ()

  def __init__(self, density: Density, images_per_step: int) -> None:
    """`images_per_step` counts the samples shown to D in one step."""
    self._density, self._images = density, images_per_step
    self.fingerprint = density.fingerprint

  def chunk(
    self, start: int, count: int, rows: slice = slice(None), room: int = 0
  ) -> PyTree:
    """Nothing."""
    del start, count, rows, room
    return ()

  def decode(
    self, constants: PyTree, item: PyTree, key: Key[Array, ''], batch_size: int
  ) -> Float[Array, 'batch *shape']:
    """Draws `batch_size` samples."""
    del constants, item
    return self._density.sample(key, batch_size)

  def position(self, step: int) -> dict[str, float]:
    """Samples shown so far."""
    return {'images': step * self._images}

  def reseeded(self, seed: int) -> 'DensityFeed':
    """Itself: what is drawn is a matter of the state's key."""
    del seed
    return self


class _Ordered:
  """What resident and streamed sets share: the order."""

  def __init__(
    self,
    dataset: SampleSet,
    seed: int,
    batch_size: int,
    batches: int,
    flip: bool,
    labelled: bool,
  ) -> None:
    self.size, self._own_order = dataset.size, dataset.own_order
    self.fingerprint = dataset.fingerprint
    self._seed, self._batch, self._batches = seed, batch_size, batches
    self._flip, self._labelled = flip, labelled

  def _add_labels(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """The labels, which the fingerprint is of from now on as well."""
    self.fingerprint = samples.join_labels(self.fingerprint, labels)
    return labels

  def _record(self, n: int) -> int:
    """The record that is sample number `n` of a run."""
    epoch, place = divmod(n, self.size)
    if self._own_order:
      return place
    return int(permutation(self._seed, epoch, self.size)[place])

  def _indices(self, start: int, count: int, rows: slice) -> NDArray[np.int32]:
    """Records of some steps, (count, batches, rows)."""
    per_step = self._batch * self._batches
    n = np.arange(start * per_step, (start + count) * per_step, dtype=np.int64)
    epochs, records = np.divmod(n, self.size)
    if not self._own_order:
      for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        order = permutation(self._seed, epoch, self.size)
        records[epochs == epoch] = order[records[epochs == epoch]]
    shape = (count, self._batches, self._batch)
    return records.astype(np.int32).reshape(shape)[:, :, rows]

  def _finish(self, x: Any, key: Key[Array, '']) -> Any:
    x = normalise(x) if x.dtype == np.uint8 else x
    return flip_at_random(x, key) if self._flip else x

  def position(self, step: int) -> dict[str, float]:
    """Samples shown, and epochs begun and done."""
    images = step * self._batch * self._batches
    return {'images': images, 'epoch': images / self.size}

  def reseeded(self, seed: int) -> Any:
    """The same records in the order of another seed; nothing is read again."""
    other = copy.copy(self)
    other._seed = seed
    return other


class _Whole:
  """All samples of a set, read when they are first asked for.

  Flat, as an accelerator pads small last axes: a TPU 3 colours to 128.
  """

  def __init__(self, dataset: SampleSet) -> None:
    self.shape = dataset.size, int(np.prod(dataset.shape))
    self.dtype, self._read = dataset.dtype, dataset.array

  @functools.cached_property
  def array(self) -> NDArray[Any]:
    return self._read().reshape(self.shape)


class ResidentFeed(_Ordered):
  """A whole set on the device; indices come from the host."""

  resident = True

  def __init__(self, dataset: SampleSet, *how: Any) -> None:
    """Reads no sample yet."""
    super().__init__(dataset, *how)
    self._shape = dataset.shape
    self._samples = _Whole(dataset)  # shared by all that are reseeded
    self._labels: NDArray[np.int32] | None = None
    if self._labelled:
      self._labels = self._add_labels(dataset.labels())

  @property
  def constants(self) -> PyTree:
    """The samples, and their labels; read once."""
    samples, labels = self._samples.array, self._labels
    return samples if labels is None else (samples, labels)

  @property
  def constant_shapes(self) -> PyTree:
    """Of these."""
    whole, labels = self._samples, self._labels
    samples = jax.ShapeDtypeStruct(whole.shape, whole.dtype)
    if labels is None:
      return samples
    return samples, jax.ShapeDtypeStruct(labels.shape, labels.dtype)

  def chunk(
    self, start: int, count: int, rows: slice = slice(None), room: int = 0
  ) -> PyTree:
    """Indices of records."""
    indices = self._indices(start, count, rows)
    after = max(0, room - count)
    return np.pad(indices, ((0, after), (0, 0), (0, 0)))

  def decode(
    self, constants: PyTree, item: PyTree, key: Key[Array, ''], batch_size: int
  ) -> Any:
    """Gathers, normalises, flips."""
    del batch_size
    x, labels = constants if self._labelled else (constants, None)
    images = x[item].reshape(*item.shape, *self._shape)
    if labels is None:
      return self._finish(images, key)
    return self._finish(images, key), labels[item]


def _gather_into(
  source: Any,
) -> Callable[[NDArray[Any], NDArray[Any]], Any] | None:
  """Reads samples of a source into an array; None where that is no gain."""
  if isinstance(source, Rows):
    return source.gather
  if isinstance(source, np.ndarray):
    return lambda picked, out: np.take(source, picked, 0, out, mode='clip')
  return None


class StreamedFeed(_Ordered):
  """Records that the host reads ahead of the device.

  Rows are gathered many steps at a time, the files of a folder and records of
  TFDS decoded by processes, and other sources read by threads, through Grain.
  """

  resident = False
  constants: PyTree = ()
  constant_shapes: PyTree = ()

  def __init__(self, dataset: SampleSet, *how: Any) -> None:
    """Reads no sample yet; a folder is prepared as rows where it can be."""
    super().__init__(dataset, *how)
    source = getattr(dataset.source, 'rows', None)
    self._source = dataset.source if source is None else source
    self._dataset, self._read = dataset, dataset.source.__getitem__
    self._gather = _gather_into(self._source)
    self._labels: NDArray[np.int32] | None = None
    self._forget()
    if self._labelled and isinstance(dataset.source, LabelledSource):
      self._read = dataset.source.labelled
    elif self._labelled:
      labels, read = self._add_labels(dataset.labels()), self._read
      self._labels, self._read = labels, lambda i: (read(i), labels[i])

  def _forget(self) -> None:
    """Reads on from nowhere."""
    self._lock = threading.Lock()
    self._rows, self._first = slice(None), 0
    self._items: collections.deque[Any] = collections.deque()
    self._reader: Iterator[Any] | None = None
    self._last: NDArray[Any] | None = None  # of the last chunk, from `_first`
    self._memory = Memory()

  def _read_from(self, start: int, rows: slice) -> Iterator[Any]:
    """Samples of one step after another, without end."""
    source = self._source
    picks = (self._indices(n, 1, rows).ravel() for n in itertools.count(start))
    batches = getattr(source, 'batches', None)
    if batches is None and isinstance(source, RowSource):
      batches = functools.partial(map, source.gather)
    if batches is not None:
      return self._join(picks, batches)
    return self._read_by_threads(start, rows)

  def _join(
    self, picks: Iterator[NDArray[Any]], read: Callable[[Any], Iterator[Any]]
  ) -> Iterator[Any]:
    """What is read of each of the picks, with its labels."""
    labels = self._labels
    if labels is None:
      return read(picks)
    picks, again = itertools.tee(picks)
    # Of no end, so that neither may be asked for one item more.
    return ((x, labels[picked]) for x, picked in zip(read(picks), again))  # noqa: B905

  def _read_by_threads(self, start: int, rows: slice) -> Iterator[Any]:
    import grain

    picked = range(*rows.indices(self._batch))
    per_step = len(picked) * self._batches

    def read(n: int) -> Any:
      batch, row = divmod(n, len(picked))
      return self._read(self._record(batch * self._batch + picked[row]))

    # Far more steps than a run has: Grain wants a length.
    dataset = grain.MapDataset.range(
      start * per_step, 2**62 // per_step * per_step
    )
    reading = dataset.map(read).batch(per_step)
    size = max(1, per_step * self._dataset.nbytes // self.size)
    ahead = max(2, min(_AHEAD_STEPS, _AHEAD_BYTES // size))
    options = grain.ReadOptions(
      num_threads=min(_THREADS, ahead), prefetch_buffer_size=ahead
    )
    return iter(reading.to_iter_dataset(options))

  def reseeded(self, seed: int) -> Any:
    """The same records in the order of another seed, read on their own."""
    other = super().reseeded(seed)
    other._forget()
    return other

  def chunk(
    self, start: int, count: int, rows: slice = slice(None), room: int = 0
  ) -> PyTree:
    """The samples; what was read and not passed yet is not read again."""
    with self._lock:
      if self._gather is not None:
        return self._gathered(self._gather, start, count, rows, room)
      steps = self._steps(start, count, rows)

    def stack(*xs: NDArray[Any]) -> NDArray[Any]:
      stacked = aligned_zeros((max(count, room), *xs[0].shape), xs[0].dtype)
      for i, x in enumerate(xs):
        stacked[i] = x
      return stacked.reshape(-1, self._batches, *self._shape_of(rows, xs[0]))

    return jax.tree.map(stack, *steps)

  def _gathered(
    self,
    gather: Callable[[NDArray[Any], NDArray[Any]], Any],
    start: int,
    count: int,
    rows: slice,
    room: int,
  ) -> PyTree:
    """A chunk of samples that are read where they are to be."""
    picked = self._indices(start, count, rows).ravel()
    width, known = len(picked) // count, 0
    shape = (max(count, room) * width, *self._dataset.shape)
    x = self._memory.take(shape, self._dataset.dtype, len(picked))
    if self._last is not None and rows == self._rows and start >= self._first:
      kept = self._last[(start - self._first) * width :][: len(picked)]
      known = len(kept)
      x[:known] = kept
    if known < len(picked):
      gather(picked[known:], x[known : len(picked)])
    self._first, self._rows, self._last = start, rows, x[: len(picked)]
    batches = -1, self._batches, width // self._batches
    images = x.reshape(*batches, *x.shape[1:])
    if self._labels is None:
      return images
    labels = aligned_zeros(shape[:1], np.int32)
    labels[: len(picked)] = self._labels[picked]
    return images, labels.reshape(batches)

  def _shape_of(self, rows: slice, x: NDArray[Any]) -> tuple[int, ...]:
    """Of one batch of what this process reads."""
    return (len(range(*rows.indices(self._batch))), *x.shape[1:])

  def _steps(self, start: int, count: int, rows: slice) -> list[Any]:
    known = self._first <= start <= self._first + len(self._items)
    if self._reader is None or rows != self._rows or not known:
      self._reader, self._rows = self._read_from(start, rows), rows
      self._items.clear()
      self._first = start
    while self._first < start:
      self._items.popleft()
      self._first += 1
    missing = max(0, count - len(self._items))
    try:
      self._items.extend(itertools.islice(self._reader, missing))
    except BaseException:
      self._reader = None  # whose end this was
      raise
    return list(itertools.islice(self._items, count))

  def decode(
    self, constants: PyTree, item: PyTree, key: Key[Array, ''], batch_size: int
  ) -> Any:
    """Normalises, flips."""
    del constants, batch_size
    if not self._labelled:
      return self._finish(item, key)
    x, labels = item
    return self._finish(x, key), labels


def choose_residence(dataset: SampleSet) -> tuple[str, str]:
  """Where a set is to live, device or stream, and why.

  On the device if it takes at most a third of what that has free: networks,
  their optimizers and what a step computes need the rest.
  """
  free, size = backend.free_bytes(), dataset.nbytes
  if free is None:
    free = 3 * samples.RESIDENT_BYTES
  room = f'{free / _GIB:,.1f} GiB that the device has free'
  if size <= free / 3:
    return 'device', f'on the device: {size / _GIB:,.2f} GiB of {room}'
  return 'stream', f'streamed: {size / _GIB:,.2f} GiB, over a third of {room}'


def make_feed(
  dataset: Density | SampleSet,
  *,
  seed: int,
  batch_size: int,
  batches_per_step: int = 1,
  flip: bool = False,
  residence: str = 'auto',
  labelled: bool = False,
) -> Feed:
  """The feed of a dataset.

  Args:
    dataset: what `load` or `as_dataset` returned.
    seed: of the order.
    batch_size: samples in a batch, over all processes.
    batches_per_step: batches of real samples in one step.
    flip: whether images are turned left to right at random.
    residence: device, stream, or auto (`choose_residence`).
    labelled: whether classes come with the samples.

  Raises:
    ArgumentError: if a batch is larger than the set, or an argument is of no
      use for this dataset.
  """
  if residence not in RESIDENCES:
    remedy = f'use {", ".join(RESIDENCES)}'
    raise ArgumentError('residence', residence, remedy)
  if batch_size < 1:
    raise ArgumentError('batch_size', batch_size, 'use 1 or more')
  if flip and not dataset.bounded:
    remedy = f'is for images, and {dataset.name} has points; leave it out'
    raise ArgumentError('flip', flip, remedy)
  if labelled and not dataset.classes:
    raise ArgumentError('labelled', labelled, f'{dataset.name} has no classes')
  if isinstance(dataset, Density):
    if residence == 'stream':
      remedy = f'{dataset.name} is drawn on the device; leave it out'
      raise ArgumentError('residence', residence, remedy)
    return DensityFeed(dataset, batch_size * batches_per_step)
  if batch_size > dataset.size:
    raise ArgumentError(
      'batch_size',
      batch_size,
      f'{dataset.name} has {dataset.size} samples; use as many or fewer',
    )
  if residence == 'auto':
    residence, _ = choose_residence(dataset)
  kind = ResidentFeed if residence == 'device' else StreamedFeed
  return kind(dataset, seed, batch_size, batches_per_step, flip, labelled)
