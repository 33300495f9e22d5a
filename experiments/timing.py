"""Times ways of doing one thing in turns, as other work on a machine asks."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def in_turns(
  ways: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, list[tuple[float, float]]]:
  """Seconds (wall, CPU) of each way in each turn.

  Args:
    ways: by name; what they return is dropped.
    repeats: turns; in each, every way is run once.
  """
  found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
  for _ in range(repeats):
    for way, run in ways.items():
      wall, cpu = time.perf_counter(), time.process_time()
      run()
      took = time.perf_counter() - wall, time.process_time() - cpu
      found[way].append(took)
  return found


def summary(values: list[float]) -> dict[str, float]:
  """Least, median and greatest."""
  return {
    'min': round(min(values), 4),
    'median': round(statistics.median(values), 4),
    'max': round(max(values), 4),
  }
