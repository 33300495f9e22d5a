"""Data on its way to the device while the steps before are made."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

PyTree = Any


class Ahead:
  """The data of the next dispatch, made by a thread during this one.

  Attributes:
    seconds: that were spent waiting for data, since they were last taken.
  """

  def __init__(self, make: Callable[[int, int], PyTree]) -> None:
    """Makes nothing yet.

    Args:
      make: of a first step and a number of steps.
    """
    self._make, self.seconds = make, 0.0
    self._pool = ThreadPoolExecutor(1, 'data')
    self._next: tuple[int, int, Future[PyTree]] | None = None

  def begin(self, start: int, count: int) -> None:
    """Makes the data of some steps, by and by."""
    self._next = start, count, self._pool.submit(self._make, start, count)

  def take(self, start: int, count: int) -> PyTree:
    """Data of at least `count` steps from `start`.

    What was raised while they were made is raised here.
    """
    began = time.perf_counter()
    self._next, begun = None, self._next
    if begun is not None and begun[0] == start and begun[1] >= count:
      found = begun[2].result()
    else:
      if begun is not None:
        begun[2].cancel()
      found = self._pool.submit(self._make, start, count).result()
    self.seconds += time.perf_counter() - began
    return found

  def close(self) -> None:
    """Ends the thread, after what it is at."""
    self._next = None
    self._pool.shutdown(cancel_futures=True)


__all__ = ['Ahead']
