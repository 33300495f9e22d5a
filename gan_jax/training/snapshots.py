"""Samples from a fixed latent batch, as a run goes on.

For images a grid a time, from the live and from the averaged generator; for
densities the numbers that the report draws: samples, and D over a grid of
points. The latent batch is that of the run's own seed: what `sample(seed=seed)`
draws. In a grid a class has a column, however often it is drawn elsewhere, and
of very many classes some are shown.
"""

import io
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gan_jax.data import Density
from gan_jax.figures import images
from gan_jax.game.classes import lay_out, shown_classes
from gan_jax.game.game import apply_d
from gan_jax.game.sampler import BATCH, Sampler
from gan_jax.game.state import State
from gan_jax.game.streams import stream
from gan_jax.runtime.files import write_atomic
from gan_jax.training.setup import Setup

_POINTS = {1: 512, 2: 96}  # of D's grid along each axis
DENSITY_SAMPLES = 4096


def density_grid(density: Density) -> NDArray[np.float32]:
  """Points `(k, dim)` over a density's extent, the last axis row-major."""
  axis = np.linspace(*density.extent, _POINTS[density.dim], dtype=np.float32)
  axes = np.meshgrid(*[axis] * density.dim, indexing='xy')
  return np.stack([a.ravel() for a in axes], axis=-1)


def sample_count(setup: Setup) -> int:
  """Samples in a snapshot: whole rows where there are classes."""
  if not setup.dataset.bounded:
    return DENSITY_SAMPLES
  count, classes = setup.config.num_samples, setup.networks.classes
  columns = len(shown_classes(classes)) if classes else 1
  return -(-count // columns) * columns


class Snapshots:
  """Draws the same latent batch through G again and again."""

  def __init__(self, setup: Setup) -> None:
    """Fixes the latent batch, as a function of the seed alone."""
    self._setup, self._count = setup, sample_count(setup)
    self._sampler = Sampler(setup.networks, batch=min(BATCH, self._count))
    self._draw, self._look = jax.jit(self._samples), jax.jit(self._surroundings)
    dataset = setup.dataset
    self._density = dataset if isinstance(dataset, Density) else None
    self._label: NDArray[np.int32] | None = None
    if dataset.bounded:
      shown = lay_out(self._count, setup.networks.classes)
      self._label, self._columns = shown
    if self._density:
      self._grid = density_grid(self._density)

  def _probability(self, params: Any, stats: Any, x: Any) -> Any:
    game = self._setup.trainer.game
    # A pack of copies: what D would say of nothing but this place.
    packs = jnp.tile(x, game.packing)
    d = game.networks.discriminator
    logits, _, _ = apply_d(d, params, stats, packs, None, None, train=False)
    ratio = game.objective.log_ratio(logits)
    return jax.nn.sigmoid(logits if ratio is None else ratio)

  def _samples(self, params: Any, stats: Any) -> Any:
    seed = self._setup.config.seed
    return self._sampler.first(params, stats, seed, self._count, self._label)

  def _surroundings(self, params: Any, stats: Any, grid: Any) -> Any:
    """The noise, and of a density real samples and what D says of its plane."""
    key = jax.random.key(self._setup.config.seed)
    arrays = {'z': self._sampler.latent(key, jnp.arange(self._count))}
    if self._density:
      real = stream(key, 'snapshots/real')
      arrays['real'] = self._density.sample(real, self._count)
      arrays['prob'] = self._probability(params, stats, grid)
    return arrays

  def take(self, state: State, step: int) -> dict[str, bytes]:
    """Files of this moment, by name; every process must call it."""
    sources: dict[str, Any] = {'step': state.g}
    if state.ema is not None:
      sources['ema'] = state.ema
    drawn = {k: self._draw(x.params, x.stats) for k, x in sources.items()}
    if self._setup.dataset.bounded:
      return {
        f'{kind}_{step:09d}.png': images.grid_png(x, self._columns)
        for kind, x in jax.device_get(drawn).items()
      }
    grid = self._grid if self._density else None
    around = self._look(state.d.params, state.d.stats, grid)
    drawn, around = jax.device_get((drawn, around))
    arrays = {'z': around.pop('z'), 'x': drawn['step']}
    if 'ema' in drawn:
      arrays['x_ema'] = drawn['ema']
    if self._density:
      arrays |= {'grid': self._grid, **around}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # to compress noise takes long and gains little
    return {f'step_{step:09d}.npz': buffer.getvalue()}


def save(files: dict[str, bytes], workdir: pathlib.Path) -> None:
  """Writes a snapshot's files to `workdir/samples`."""
  (workdir / 'samples').mkdir(exist_ok=True)  # it may have been tidied away
  for name, content in files.items():
    write_atomic(workdir / 'samples' / name, content)
