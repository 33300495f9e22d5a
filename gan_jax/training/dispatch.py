"""Dispatch sizes: how many steps go into one call of the compiled program.

The compiled programs of the host loops advance as many steps as they are told,
so that a dispatch ends where something is to be written, or when it is time to
look up.
"""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

PyTree = Any
# Steps in one dispatch at the most, bytes of their data likewise, and the
# seconds one should take: long enough that its cost is lost in it, short enough
# that a signal is answered soon.
MOST_STEPS, MOST_BYTES, SECONDS = 4096, 32 * 2**20, 0.5


def next_boundary(step: int, end: int, cadences: Iterable[int]) -> int:
  """The next step at which something is written; a cadence of 0 is none.

  >>> next_boundary(8, 20, (5, 6, 0))
  10
  """
  return min(end, *(step // n * n + n for n in cadences if n))


class Pace:
  """The size of the next dispatch, learnt from those before it.

  Attributes:
    capacity: steps that the data of one dispatch have room for.
    wanted: steps that would take `SECONDS`, as the last dispatch went.
  """

  def __init__(self, one: PyTree, copies: int = 1) -> None:
    """Begins with one step.

    Args:
      one: arrays of the data of a step.
      copies: how many such are in a dispatch side by side.
    """
    size = copies * sum(x.nbytes for x in jax.tree.leaves(one))
    self.capacity = max(1, min(MOST_STEPS, MOST_BYTES // max(size, 1)))
    self.wanted = 1.0
    self._most, self._growing = self.capacity, True

  def count(self, most: int | None = None) -> int:
    """Steps of the next dispatch, of which `most` are left to a boundary."""
    most = self.capacity if most is None else most
    return max(1, min(int(self.wanted), self._most, most))

  def reserve(self, count: int) -> int:
    """Steps whose data are made while `count` are done: the next ones' most."""
    likely = max(count, int(self.wanted))
    most = 2 * likely + 1 if self._growing else likely + likely // 4 + 1
    self._most = min(self.capacity, most)
    return self._most

  def learn(self, seconds: float, done: int, count: int) -> None:
    """Learns from a dispatch that made `done` of `count` steps.

    At most doubled: the first dispatch of a process is not typical.
    """
    seconds_per_step = seconds / max(done, 1)
    self.wanted = min(SECONDS / seconds_per_step, 2 * count + 1)
    self._growing = self.wanted == 2 * count + 1

  def pad(self, chunks: Iterable[PyTree]) -> PyTree:
    """Chunks (steps, ...) as arrays (chunks, capacity, ...), zeros behind."""

    def stack(*xs: NDArray[np.generic]) -> NDArray[np.generic]:
      room = np.zeros((len(xs), self.capacity, *xs[0].shape[1:]), xs[0].dtype)
      for i, x in enumerate(xs):
        room[i, : len(x)] = x
      return room

    return jax.tree.map(stack, *chunks)
