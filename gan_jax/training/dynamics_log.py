"""The instruments of a game (`dynamics.py`) at work on a run."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.game import dynamics, schedules
from gan_jax.game.dynamics import Leading, Vector
from gan_jax.game.state import GANState
from gan_jax.training.setup import Parts

# Parameters of both players up to which all eigenvalues are found.
DENSE = 2000
_SALT = 0xD14A  # sets the noise apart from that of training
_NONE = Leading(np.zeros(0, np.complex128), np.zeros(0, np.complex128))


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

  def _eigenvalues(self, at: Any, size: int) -> Leading:
    """All of a small game, the leading ones of a larger one."""
    if size > DENSE:
      return dynamics.leading(lambda u: self._product(u, *at), size)
    matrix = np.asarray(self._jacobian(*at), np.float64)
    if not np.isfinite(matrix).all():
      return _NONE
    values = np.linalg.eigvals(matrix).astype(np.complex128)
    return Leading(values, values[[values.real.argmax()]])

  def __call__(
    self, state: GANState, constants: Any, item: Any
  ) -> Mapping[str, Any]:
    """A row of dynamics.jsonl: numbers, and eigenvalues as [real, imaginary].

    Args:
      state: the point.
      constants: of the data feed.
      item: of the data feed, one batch.

    A search for eigenvalues that has not converged is named in `unfinished`,
    and its number (`game/rightmost`, `game/spectral_radius`) left out.
    """
    at = (state, constants, item)
    look = jax.device_get(self._at(*at))
    row: dict[str, Any] = {
      name: float(x) for name, x in look.items() if np.isfinite(x)
    }
    size = sum(
      x.size for x in jax.tree.leaves((state.g.params, state.d.params))
    )
    found = self._eigenvalues(at, size) if 'game/field_norm' in row else _NONE
    # Each of its own search: of some that it found, none need be the foremost.
    if len(found.rightmost) and 'rightmost' not in found.unfinished:
      row['game/rightmost'] = float(found.rightmost.real.max())
    if len(found.largest) and 'largest' not in found.unfinished:
      row['game/spectral_radius'] = float(abs(found.largest).max())
    row['unfinished'] = list(found.unfinished)
    values = found.together
    values = values[np.argsort(-abs(values), kind='stable')]
    row['eigenvalues'] = [[float(x.real), float(x.imag)] for x in values]
    row['parameters'] = size
    return row
