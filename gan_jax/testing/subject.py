"""What conformance tests share: comparisons that fail in words."""

import inspect
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import numpy as np

from gan_jax.game.component import (
  Component,
  hyperparameters,
  with_hyperparameters,
)

C = TypeVar('C', bound=Component)


class Subject:
  """A component under test: claims of it that are held or fail in words.

  Attributes:
    name: how messages call it, such as `objective hinge`.
    missing: what it does not say of itself, in words.
  """

  def __init__(self, kind: str, component: Component) -> None:
    """Nothing is checked yet, but that its values are accepted."""
    self.name = f'{kind} {component.name}'
    self.missing: list[str] = []
    component.check()

  def require(self, holds: Any, message: str) -> None:
    """Raises an AssertionError with a message, unless it holds."""
    if not bool(holds):
      raise AssertionError(f'{self.name}: {message}')

  def require_close(
    self,
    values: Any,
    expected: Any,
    what: str,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-6,
  ) -> None:
    """Compares all arrays of two trees.

    Args:
      found: arrays.
      expected: likewise, of the same structure.
      what: is wrong if they differ, the beginning of a sentence.
      rtol: relative tolerance.
      atol: absolute tolerance.
    """
    pairs = zip(jax.tree.leaves(values), jax.tree.leaves(expected), strict=True)
    for x, y in pairs:
      a, b = (np.asarray(leaf, np.float64) for leaf in (x, y))
      excess = np.abs(a - b) - rtol * np.abs(b) - atol
      self.require(np.isfinite(excess).all(), f'{what}: {_short(a)}')
      if (excess > 0).any():
        at = np.unravel_index(excess.argmax(), excess.shape)
        self.require(False, f'{what}: {a[at]:.7g}, not {b[at]:.7g}')

  def require_finite(self, tree: Any, what: str) -> None:
    """Raises unless all floats of a tree are finite."""
    for leaf in jax.tree.leaves(tree):
      values = np.asarray(leaf, np.float64)
      self.require(np.isfinite(values).all(), f'{what}: {_short(values)}')

  def lacks(self, method: str, words: str) -> None:
    """Notes that it does not say something of itself."""
    self.missing.append(f'{self.name} has no `{method}`: {words}')


def _short(x: Any) -> str:
  text = np.array2string(x, precision=6, threshold=8, edgeitems=3)
  return ' '.join(text.split())


def overrides(component: Component, base: type, method: str) -> bool:
  """Whether a component's class has a method of its own."""
  own = inspect.getattr_static(type(component), method)
  return own is not inspect.getattr_static(base, method)


def neighbours(component: C) -> Iterator[tuple[str, C]]:
  """Copies with one hyper-parameter each at another value that it accepts."""
  for path, value in hyperparameters(component).items():
    for other in (value + 0.25, 0.75 * value, value + 1.0, value / 2 + 1e-3):
      changed = with_hyperparameters(component, {path: other})
      if other != value and _accepts(changed):
        yield path, changed
        break


def _accepts(component: Component) -> bool:
  try:
    component.check()
  except ValueError:
    return False
  return True
