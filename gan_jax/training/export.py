"""Samples of a run as files: an array, a grid, single pictures."""

import io
import pathlib
from typing import Any

import jax
import numpy as np

from gan_jax.data import Density
from gan_jax.figures import images
from gan_jax.game.sampler import BATCH, classes_in_turn
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.files import write_atomic
from gan_jax.training.restore import Run

COLUMNS = 8  # steps of an interpolation


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


def interpolated(ends: Any, spherical: bool) -> Any:
  """Latent vectors between pairs of draws: (2 rows, dim) -> (8 rows, dim).

  Along the sphere for normal noise, whose norm it keeps (White 2016,
  arXiv:1609.04468), and straight for uniform noise.
  """
  a, b = np.asarray(ends).reshape(-1, 2, ends.shape[1]).swapaxes(0, 1)
  t = np.linspace(0, 1, COLUMNS, dtype=np.float32)[None, :, None]
  a, b = a[:, None], b[:, None]
  if not spherical:
    return ((1 - t) * a + t * b).reshape(-1, ends.shape[1])
  norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
  angle = np.arccos(np.clip((a * b).sum(-1) / norms, -1, 1))[..., None]
  # No arc is the shortest between opposite draws (any two of opposite sign in
  # one dimension), and between parallel ones it is the straight line.
  flat = np.sin(angle) < 1e-3
  sine = np.where(flat, 1, np.sin(angle))
  arc = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / sine
  return np.where(flat, (1 - t) * a + t * b, arc).reshape(-1, ends.shape[1])


def way(run: Run) -> str:
  """How a run's noise is interpolated: spherical if normal, else linear."""
  latent = run.sampler.networks.latent
  return 'spherical' if latent is jax.random.normal else 'linear'


def draw(
  run: Run,
  num: int,
  seed: int,
  ema: bool | None,
  interpolate: bool,
  label: int | None = None,
) -> Any:
  """Samples (n, *shape), the same however they are batched.

  With `interpolate` one row of `COLUMNS` for each `COLUMNS` of `num`, rounded
  up. Of a class-conditional run, samples of one class or of all in turn, a row
  of an interpolation being of one.

  Raises:
    ArgumentError: if the run knows no such class.
  """
  if not interpolate:
    return run.sample(num, seed=seed, label=label, ema=ema)
  ends = run.latent(seed, 2 * -(-num // COLUMNS))
  z = interpolated(ends, way(run) == 'spherical')
  own = run.labels(len(z) // COLUMNS, label)
  if own is None:
    own = classes_in_turn(len(z) // COLUMNS, run.classes)
  each = None if own is None else np.repeat(own, COLUMNS)
  parts = []
  for start in range(0, len(z), BATCH):
    # Padded, so that every batch is one program's.
    rows = slice(start, min(start + BATCH, len(z)))
    count = rows.stop - start
    room = np.zeros((BATCH, z.shape[1]), np.float32)
    room[:count] = z[rows]
    which = None
    if each is not None:
      which = np.zeros(BATCH, np.int32)
      which[:count] = each[rows]
    parts.append(run.generate(room, which, ema=ema)[:count])
  return np.concatenate(parts)


def write(run: Run, x: Any, out: pathlib.Path, columns: int = 0) -> None:
  """Writes samples in the format that the name of `out` says.

  Raises:
    ArgumentError: for a folder of pictures of points.
  """
  bounded = not isinstance(run.dataset, Density)
  if out.suffix == '.npz':
    buffer = io.BytesIO()
    np.savez_compressed(buffer, samples=images.to_uint8(x) if bounded else x)
    write_atomic(out, buffer.getvalue())
  elif out.suffix == '.png' and bounded:
    write_atomic(out, images.grid_png(x, columns))
  elif out.suffix == '.png' and isinstance(run.dataset, Density):
    from gan_jax.figures.density import samples_png

    write_atomic(out, samples_png(run.dataset, x))
  else:
    if not bounded:
      raise ArgumentError(
        'out',
        str(out),
        'a folder of PNG files is for images; a density has .npz or one .png',
      )
    out.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images.to_uint8(x)):
      write_atomic(out / f'{i:05d}.png', images.png(image))
