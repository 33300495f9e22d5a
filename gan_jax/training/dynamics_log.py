"""Measurements of a game's vector field in training: rows of dynamics.jsonl."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.game import dynamics
from gan_jax.game.dynamics import Leading, Vector
from gan_jax.game.game import Batch
from gan_jax.game.state import State
from gan_jax.game.streams import stream
from gan_jax.training.setup import Setup

PyTree = Any
# Parameters of both players up to which all eigenvalues are found.
DENSE = 2000
_NONE = Leading(np.zeros(0, np.complex128), np.zeros(0, np.complex128))


class Instruments:
  """Field, slopes and eigenvalues of one run at whatever point it is.

  Each program is compiled once.
  """

  def __init__(self, setup: Setup) -> None:
    """Compiles nothing yet."""
    self._setup, self._trainer = setup, setup.trainer
    self._measure = jax.jit(self._numbers)
    self._jacobian = jax.jit(lambda *at: dynamics.jacobian(*self._field(*at)))
    self._product = jax.jit(self._times)

  def _draw(self, state: State, constants: PyTree, item: PyTree) -> Any:
    """A real batch and a key: a function of the step alone."""
    real: Batch = self._setup.real_batch(constants, item, state)
    return real, stream(state.key, 'dynamics', state.step)

  def _field(self, state: State, constants: PyTree, item: PyTree) -> Any:
    real, key = self._draw(state, constants, item)
    return dynamics.field(self._trainer, state, real, key)

  def _times(self, u: Vector, *at: Any) -> Vector:
    v, w = self._field(*at)
    return dynamics.pulled(v, w, u)

  def _numbers(self, state: State, constants: PyTree, item: PyTree) -> Any:
    real, key = self._draw(state, constants, item)
    slopes = dynamics.input_slopes(self._trainer, state, real, key)
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
    self, state: State, constants: PyTree, item: PyTree
  ) -> Mapping[str, Any]:
    """A row of dynamics.jsonl: numbers, and eigenvalues as [real, imaginary].

    Args:
      state: the point.
      constants: of the data feed.
      item: of the data feed, one step.

    A search for eigenvalues that has not converged is named in `unfinished`,
    and its number (`game/rightmost`, `game/spectral_radius`) left out.
    """
    at = (state, constants, item)
    numbers = jax.device_get(self._measure(*at))
    row: dict[str, Any] = {
      name: float(x) for name, x in numbers.items() if np.isfinite(x)
    }
    players = (state.g.params, state.d.params)
    size = sum(x.size for x in jax.tree.leaves(players))
    leading = self._eigenvalues(at, size) if 'game/field_norm' in row else _NONE
    # Each of its own search: of some that it found, none need be the foremost.
    if len(leading.rightmost) and 'rightmost' not in leading.unfinished:
      row['game/rightmost'] = float(leading.rightmost.real.max())
    if len(leading.largest) and 'largest' not in leading.unfinished:
      row['game/spectral_radius'] = float(abs(leading.largest).max())
    row['unfinished'] = list(leading.unfinished)
    values = leading.together
    values = values[np.argsort(-abs(values), kind='stable')]
    row['eigenvalues'] = [[float(x.real), float(x.imag)] for x in values]
    row['parameters'] = size
    return row
