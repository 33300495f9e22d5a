"""Samples of a run, in the form that a file's name asks for."""

import io
import pathlib
from typing import Any

import numpy as np

from gan_jax.config.schema import ConfigError
from gan_jax.data import Density
from gan_jax.figures import images
from gan_jax.runtime.files import write_atomic
from gan_jax.runtime.progress import progress_bar
from gan_jax.training.setup import Run, in_turn

_BATCH = 256  # samples generated at a time
COLUMNS = 8  # steps of an interpolation


def check(num: int, out: pathlib.Path) -> None:
  """Refuses flags that no run could satisfy.

  Raises:
    ConfigError: naming the flag and the remedy.
  """
  if num < 1:
    raise ConfigError(f'--num={num}: use 1 or more')
  if out.suffix not in ('.png', '.npz', ''):
    raise ConfigError(f'--out={out}: end it in .png or .npz, or name a folder')
  if out.suffix == '' and out.is_dir() and any(out.iterdir()):
    raise ConfigError(f'--out={out}: is not empty; name a new folder')
  if out.suffix and not out.parent.is_dir():
    raise ConfigError(f'--out={out}: no folder {out.parent}; make it first')


def interpolated(ends: Any, spherical: bool) -> Any:
  """Noise on the way between pairs of draws: (2 rows, dim) -> (8 rows, dim).

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
  return 'spherical' if run.networks.latent == 'normal' else 'linear'


def labels(run: Run, count: int, label: int | None, rows: int = 1) -> Any:
  """Classes (n,) of a run's samples: one class, or all in turn.

  Args:
    run: of which.
    count: samples.
    label: the class; None for all in turn.
    rows: consecutive samples of one class (a row of an interpolation).

  Raises:
    ConfigError: if the run knows no such class.
  """
  classes = run.networks.classes
  if label is None:
    turns = in_turn(-(-count // rows), classes)
    return None if turns is None else np.repeat(turns, rows)[:count]
  if not 0 <= label < classes:
    there = f'use 0 to {classes - 1}' if classes else 'leave it out'
    raise ConfigError(
      f'--label={label}: this run has {classes} classes; {there}'
    )
  return np.full(count, label, np.int32)


def draw(
  run: Run,
  num: int,
  seed: int,
  ema: bool,
  interpolate: bool,
  label: int | None = None,
) -> Any:
  """Samples (n, *shape), the same however they are batched.

  With `interpolate` one row of `COLUMNS` for each `COLUMNS` of `num`, rounded
  up. Of a class-conditional run, samples of one class or of all in turn.
  """
  if interpolate:
    ends = run.latent(seed, 2 * -(-num // COLUMNS))
    z = interpolated(ends, way(run) == 'spherical')
  else:
    z = np.asarray(run.latent(seed, num))
  each = labels(run, len(z), label, COLUMNS if interpolate else 1)
  parts = []
  starts = range(0, len(z), _BATCH)
  for start in progress_bar(starts, len(starts), 'sampling'):
    # Padded, so that every batch is one program's.
    batch = z[start : start + _BATCH]
    room = np.zeros((_BATCH, z.shape[1]), np.float32)
    room[: len(batch)] = batch
    which = None
    if each is not None:
      which = np.zeros(_BATCH, np.int32)
      which[: len(batch)] = each[start : start + _BATCH]
    parts.append(run.generate(room, which, ema=ema)[: len(batch)])
  return np.concatenate(parts)


def write(run: Run, x: Any, out: pathlib.Path, columns: int = 0) -> None:
  """Writes samples in the form that the name asks for."""
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
      raise ConfigError(
        f'--out={out}: a folder of PNG files is for images; a density has'
        ' .npz or one .png'
      )
    out.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images.to_uint8(x)):
      write_atomic(out / f'{i:05d}.png', images.png(image))
