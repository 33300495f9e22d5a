"""What G makes of one fixed handful of noise, as the run goes on.

For images a grid a time, from the live and from the averaged generator; for
densities the numbers that the report draws: samples, and D over a grid of
points.
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
from gan_jax.game import losses
from gan_jax.game.state import GANState
from gan_jax.runtime.files import write_atomic
from gan_jax.training import setup
from gan_jax.training.setup import Parts

_SALT = 0x5A17  # sets the fixed noise apart from that of training
_POINTS = {1: 512, 2: 96}  # of D's grid along each axis
_SAMPLES = 4096  # of a density


def density_grid(density: Density) -> NDArray[np.float32]:
  """Points `(k, dim)` over a density's extent, the last axis row-major."""
  axis = np.linspace(*density.extent, _POINTS[density.dim], dtype=np.float32)
  axes = np.meshgrid(*[axis] * density.dim, indexing='xy')
  return np.stack([a.ravel() for a in axes], axis=-1)


def fixed_keys(seed: int) -> Any:
  """Two keys: for the noise and the real samples of a run's snapshots."""
  return jax.random.split(jax.random.fold_in(jax.random.key(seed), _SALT))


class Snapshots:
  """Draws the same noise through G again and again."""

  def __init__(self, parts: Parts) -> None:
    """Fixes the noise, as a function of the seed alone."""
    self._parts = parts
    networks = parts.networks
    key_z, key_real = fixed_keys(parts.config.seed)
    dataset = parts.dataset
    self._density = dataset if isinstance(dataset, Density) else None
    count = _SAMPLES if self._density else parts.config.num_samples
    self._columns = networks.classes  # a class a column
    if networks.classes:
      count = -(-count // networks.classes) * networks.classes
    self._label = setup.in_turn(count, networks.classes)
    self._z = networks.sample_latent(key_z, count)
    if self._density:
      self._real = np.asarray(self._density.sample(key_real, count))
      self._grid = density_grid(self._density)

    def generate(params: Any, stats: Any, z: Any, label: Any) -> Any:
      return networks.generator.apply(
        params, stats, z, train=False, label=label
      )[0]

    ratio = parts.plan.game.objective.log_ratio or (lambda x, labels: x)
    labels = losses.labels_of(parts.hyper)

    def judge(params: Any, stats: Any, x: Any) -> Any:
      # A pack of copies: what D would say of nothing but this place.
      packs = jnp.tile(x, networks.packing)
      logits, _ = networks.discriminator.apply(
        params, stats, packs, train=False
      )
      return jax.nn.sigmoid(ratio(logits, labels))

    self._generate = jax.jit(generate)
    self._judge = jax.jit(judge)

  def _samples(self, state: GANState) -> dict[str, NDArray[np.generic]]:
    z = np.asarray(self._z)
    found = {
      'step': np.asarray(
        self._generate(state.g.params, state.g.stats, z, self._label)
      )
    }
    if state.ema is not None:
      found['ema'] = np.asarray(
        self._generate(state.ema.params, state.ema.stats, z, self._label)
      )
    return found

  def take(self, state: GANState, step: int) -> dict[str, bytes]:
    """Files of this moment, by name; every process must call it."""
    samples = self._samples(state)
    if not self._density:
      return {
        f'{kind}_{step:09d}.png': images.grid_png(x, self._columns)
        for kind, x in samples.items()
      }
    arrays = {'z': np.asarray(self._z), 'x': samples['step']}
    if 'ema' in samples:
      arrays['x_ema'] = samples['ema']
    prob = self._judge(state.d.params, state.d.stats, jnp.asarray(self._grid))
    arrays |= {'grid': self._grid, 'prob': np.asarray(prob), 'real': self._real}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return {f'step_{step:09d}.npz': buffer.getvalue()}


def save(files: dict[str, bytes], workdir: pathlib.Path) -> None:
  """Writes a snapshot's files to `workdir/samples`."""
  for name, content in files.items():
    write_atomic(workdir / 'samples' / name, content)
