"""Samples of a run as files: an array, a grid, single pictures."""

import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.data import Density
from gan_jax.figures import images
from gan_jax.game.classes import lay_out
from gan_jax.runtime.backend import require_memory
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.files import open_atomic, write_atomic
from gan_jax.training import interpolation
from gan_jax.training.interpolation import COLUMNS
from gan_jax.training.restore import Run

Samples = NDArray[np.float32]
_GRID_PIXELS = 2**28  # of one PNG


def check(num: int, out: pathlib.Path) -> None:
  """Checks what can be checked before the run is opened.

  Raises:
    ArgumentError: for no samples, or a place that cannot be written.
  """
  if num < 1:
    raise ArgumentError('num', num, 'use 1 or more')
  remedy = ''
  if out.suffix not in ('.png', '.npz', ''):
    remedy = 'end it in .png or .npz, or name a folder'
  elif out.suffix == '' and out.is_dir() and any(out.iterdir()):
    remedy = 'is not empty; name a new folder'
  elif out.suffix and not out.parent.is_dir():
    remedy = f'no folder {out.parent}; make it first'
  if remedy:
    raise ArgumentError('out', str(out), remedy)


def count_of(num: int, interpolate: bool) -> int:
  """Samples that are drawn where `num` are asked for: whole rows."""
  return -(-num // COLUMNS) * COLUMNS if interpolate else num


def check_size(run: Run, count: int, out: pathlib.Path) -> None:
  """Refuses more samples than one file, or the memory, can hold.

  Raises:
    ArgumentError: saying how many pixels or bytes they have.
  """
  size = math.prod(run.dataset.shape)
  if out.suffix == '.png' and run.dataset.bounded:
    pixels = count * math.prod(run.dataset.shape[:2])
    if pixels > _GRID_PIXELS:
      raise ArgumentError(
        'num',
        count,
        f'one PNG would have {pixels:,} pixels, and {_GRID_PIXELS:,} are the'
        ' most; end `out` in .npz, or name a folder',
      )
  if out.suffix:
    width = 1 if run.dataset.bounded else 4
    what = 'the samples of one file'
    require_memory('num', count, width * count * size, what, host=True)


def batches(
  run: Run,
  num: int,
  seed: int,
  ema: bool | None,
  interpolate: bool,
  label: int | Sequence[int] | NDArray[Any] | None = None,
  class_sampling: str = '',
) -> Iterator[Samples]:
  """Samples (n, *shape): those of `Run.sample`, or rows of an interpolation.

  With `interpolate` one row of `COLUMNS` for each `COLUMNS` of `num`, rounded
  up. Of a class-conditional run, samples of the classes of `label`, or as
  `class_sampling` says; the rows of an interpolation have the classes in turn.

  Raises:
    ArgumentError: for an unknown class, or an average that was not kept.
  """
  if not interpolate:
    return run.sample_batches(
      num, seed=seed, label=label, ema=ema, class_sampling=class_sampling
    )
  if class_sampling:
    remedy = 'has no effect on an interpolation; leave it out'
    raise ArgumentError('class_sampling', class_sampling, remedy)
  return interpolation.batches(run, -(-num // COLUMNS), seed, ema, label)


def lay_out_classes(
  run: Run, num: int, out: pathlib.Path
) -> tuple[NDArray[np.int32] | None, int]:
  """Classes of samples and columns of their grid, where nobody chose any.

  In a grid of images a class has a column, so that each is seen; `lay_out` says
  what is done with very many.
  Files for others to read have them as the run was trained: None.
  """
  if not run.classes or not run.dataset.bounded or out.suffix != '.png':
    return None, 0
  return lay_out(num, run.classes)


def draw(
  run: Run,
  num: int,
  seed: int,
  ema: bool | None,
  interpolate: bool,
  label: int | Sequence[int] | NDArray[Any] | None = None,
  class_sampling: str = '',
) -> Samples:
  """The samples of `batches`, all of them."""
  drawn = batches(run, num, seed, ema, interpolate, label, class_sampling)
  return np.concatenate(list(drawn))


def write(
  run: Run,
  samples: Iterable[Samples],
  count: int,
  out: pathlib.Path,
  columns: int = 0,
) -> None:
  """Writes samples in the format that the name of `out` says.

  Of images no more is held than their bytes, once; of single pictures a batch.

  Args:
    run: that they are of.
    samples: batches of them.
    count: how many they are.
    out: the file or folder.
    columns: of a grid.

  Raises:
    ArgumentError: for a folder of pictures of points.
  """
  bounded = run.dataset.bounded
  if out.suffix == '.npz':
    with open_atomic(out) as file:
      np.savez_compressed(file, samples=_joined(run, samples, count))
  elif out.suffix == '.png' and bounded:
    grid = images.grid(_joined(run, samples, count), columns)
    write_atomic(out, images.png(images.enlarged(grid)))
  elif out.suffix == '.png' and isinstance(run.dataset, Density):
    from gan_jax.figures.density import samples_png

    x = _joined(run, samples, count)
    write_atomic(out, samples_png(run.dataset, x))
  else:
    if not bounded:
      whose = 'a density has .npz or one .png'
      if not isinstance(run.dataset, Density):
        whose = 'for points end it in .npz'
      remedy = f'PNG files are for images; {whose}'
      raise ArgumentError('out', str(out), remedy)
    out.mkdir(parents=True, exist_ok=True)
    number = 0
    for batch in samples:
      for image in images.to_uint8(batch):
        write_atomic(out / f'{number:05d}.png', images.png(image))
        number += 1


def _joined(run: Run, samples: Iterable[Samples], count: int) -> NDArray[Any]:
  """All samples in one array: images as bytes, points as they are."""
  bounded = run.dataset.bounded
  kind = np.uint8 if bounded else np.float32
  joined = np.empty((count, *run.dataset.shape), kind)
  start = 0
  for batch in samples:
    rows = images.to_uint8(batch) if bounded else batch
    joined[start : start + len(rows)] = rows
    start += len(rows)
  return joined
