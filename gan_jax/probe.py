"""The instruments of a game (`dynamics.py`) at work on a run."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gan_jax import dynamics, schedules
from gan_jax.dynamics import Vector
from gan_jax.runs import Parts
from gan_jax.state import GANState

# Parameters of both players up to which all eigenvalues are found.
DENSE = 2000
_SALT = 0xD14A  # sets the noise apart from that of training


class Probe:
  """The instruments of one run, compiled once, at whatever point it is."""

  def __init__(self, parts: Parts) -> None:
    """Compiles nothing yet."""
    self._parts = parts
    self._at = jax.jit(self._look)
    self._jacobian = jax.jit(lambda *at: dynamics.jacobian(*self._field(*at)))
    self._product = jax.jit(self._times)

  def _drawn(self, state: GANState, constants: Any, item: Any) -> Any:
    """A real batch and a key: a function of the step alone."""
    key = jax.random.fold_in(jax.random.clone(state.key), state.step)
    key_data, key = jax.random.split(jax.random.fold_in(key, _SALT))
    plan = self._parts.plan_of(constants)
    return schedules.real_batch(plan, item, key_data), key

  def _field(self, state: GANState, constants: Any, item: Any) -> Any:
    real, key = self._drawn(state, constants, item)
    return dynamics.field(self._parts.plan, state, self._parts.hyper, real, key)

  def _times(self, u: Vector, *at: Any) -> Vector:
    v, w = self._field(*at)
    return dynamics.pulled(v, w, u)

  def _look(self, state: GANState, constants: Any, item: Any) -> Any:
    real, key = self._drawn(state, constants, item)
    std = self._parts.plan.noise_std(self._parts.hyper, state.step)
    slopes = dynamics.input_slopes(self._parts.plan.game, state, real, key, std)
    v, w = self._field(state, constants, item)
    numbers = {
      'game/field_norm': jnp.linalg.norm(v(w)),
      **{f'game/{k}': x for k, x in dynamics.turn(v, w)._asdict().items()},
    }
    for place, size in slopes.items():
      numbers[f'd/input_grad_{place}'] = size.mean()
      numbers[f'd/input_grad_{place}_max'] = size.max()
    return numbers

  def __call__(
    self, state: GANState, constants: Any, item: Any
  ) -> Mapping[str, Any]:
    """A row of dynamics.jsonl: numbers, and eigenvalues as [real, imaginary].

    Args:
      state: the point.
      constants: of the data feed.
      item: of the data feed, one batch.
    """
    at = (state, constants, item)
    look = jax.device_get(self._at(*at))
    row: dict[str, Any] = {
      name: float(x) for name, x in look.items() if np.isfinite(x)
    }
    size = sum(
      x.size for x in jax.tree.leaves((state.g.params, state.d.params))
    )
    whole = size <= DENSE
    values: NDArray[Any] = np.zeros(0, np.complex128)
    if 'game/field_norm' in row:
      if whole:
        matrix = np.asarray(self._jacobian(*at), np.float64)
        if np.isfinite(matrix).all():
          values = np.linalg.eigvals(matrix)
      else:
        values = dynamics.leading(lambda u: self._product(u, *at), size)
    if len(values):
      row['game/rightmost'] = float(values.real.max())
      row['game/spectral_radius'] = float(abs(values).max())
    values = values[np.argsort(-abs(values), kind='stable')]
    row['eigenvalues'] = [[float(x.real), float(x.imag)] for x in values]
    row['parameters'] = size
    return row
