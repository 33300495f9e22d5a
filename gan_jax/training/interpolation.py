"""Rows of samples on the way from one latent vector to another."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray

from gan_jax.game.sampler import BATCH
from gan_jax.game.streams import check_seed
from gan_jax.runtime.progress import progress_bar

if TYPE_CHECKING:
  from gan_jax.training.restore import Run

Samples = NDArray[np.float32]
COLUMNS = 8  # steps of a row


def interpolated(ends: Samples, spherical: bool) -> Samples:
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


def kind(run: 'Run') -> str:
  """How latent vectors of a run are interpolated.

  Spherical if the noise is normal, else linear.

  Raises:
    NetworksNeeded: if nobody says what its noise is.
  """
  normal = run.sampler.networks.latent is jax.random.normal
  return 'spherical' if normal else 'linear'


def batches(
  run: 'Run',
  rows: int,
  seed: int,
  ema: bool | None,
  label: int | Sequence[int] | NDArray[Any] | None = None,
) -> Iterator[Samples]:
  """Samples of `rows` rows, some at a time: (n, *shape), `COLUMNS` for a row.

  Of a class-conditional run, samples of the classes of `label`; None: a row has
  one class, and the rows have them in turn.

  Raises:
    ArgumentError: for an unknown class, or an average that was not kept.
  """
  check_seed('seed', seed)
  labels = None if label is None else run.labels(rows * COLUMNS, label)
  if labels is None and run.classes:
    turn = np.arange(rows, dtype=np.int32) % run.classes
    labels = np.repeat(turn, COLUMNS)
  run.generator(ema)
  return _rows(run, rows, seed, ema, labels)


def _rows(
  run: 'Run',
  rows: int,
  seed: int,
  ema: bool | None,
  labels: NDArray[np.int32] | None,
) -> Iterator[Samples]:
  """Rows of an interpolation, some at a time."""
  spherical = kind(run) == 'spherical'
  step = BATCH // COLUMNS
  starts = range(0, rows, step)
  for start in progress_bar(starts, len(starts), 'sampling'):
    stop = min(start + step, rows)
    ends = run.latent(seed, 2 * stop, 2 * start)
    z = interpolated(ends, spherical)
    # Padded, so that every batch is of one compiled program.
    rest = BATCH - len(z)
    own = None
    if labels is not None:
      own = np.pad(labels[start * COLUMNS : stop * COLUMNS], (0, rest))
    z = np.pad(z, ((0, rest), (0, 0)))
    yield run.generate(z, own, ema=ema)[: BATCH - rest]
