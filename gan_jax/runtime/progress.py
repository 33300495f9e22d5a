"""Progress for a person at a terminal: bars and durations."""

from collections.abc import Iterable
from typing import TypeVar

import tqdm

T = TypeVar('T')


def progress_bar(items: Iterable[T], total: int, text: str) -> Iterable[T]:
  """The items, with a bar on a terminal once they take more than a second."""
  return tqdm.tqdm(items, desc=text, total=total, delay=1, disable=None)


def format_duration(seconds: float) -> str:
  """Seconds as a person says them.

  >>> format_duration(42), format_duration(185), format_duration(7800)
  ('42s', '3m05s', '2h10m')
  """
  s = round(seconds)
  if s < 60:
    return f'{s}s'
  if s < 3600:
    return f'{s // 60}m{s % 60:02d}s'
  return f'{s // 3600}h{s % 3600 // 60:02d}m'


def format_bytes(count: int) -> str:
  """Bytes in units in which they are at least one, as data sheets have them.

  >>> format_bytes(84942979072), format_bytes(1_250_000)
  ('84.9 GB', '1.2 MB')
  """
  gb = count >= 10**9
  return f'{count / 1e9:.1f} GB' if gb else f'{count / 1e6:.1f} MB'
