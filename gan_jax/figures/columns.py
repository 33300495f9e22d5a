"""Columns of a log of any length, thinned to what a picture can show.

Up to `_MOST` values a column holds all of them. Beyond, each place in it stands
for as many values as the next one: their extremes, where these were, and their
mean. So a curve keeps every peak, and memory does not grow with the log.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]
_MOST = 4096  # places of a column; an even number


class _Column:
  """Numbers of one name over the steps.

  Attributes:
    count: values.
    total: their sum.
    last: the row of the last one.
  """

  def __init__(self) -> None:
    self.count, self.total = 0, 0.0
    self.last: Row = {}
    self._width = 1  # values of a place
    # Of each place: values, their sum, step and value of both extremes.
    self._places: list[list[Any]] = []

  def add(self, step: float, value: float, row: Row) -> None:
    places = self._places
    if not places or places[-1][0] == self._width:
      if len(places) == _MOST:
        self._halve()
        places = self._places
      places.append([0, 0.0, step, value, step, value])
    place = places[-1]
    place[0] += 1
    place[1] += value
    if value < place[3]:
      place[2], place[3] = step, value
    if value > place[5]:
      place[4], place[5] = step, value
    self.count += 1
    self.total += value
    self.last = row

  def _halve(self) -> None:
    self._places = [
      [
        a[0] + b[0],
        a[1] + b[1],
        *(a[2:4] if a[3] <= b[3] else b[2:4]),
        *(a[4:6] if a[5] >= b[5] else b[4:6]),
      ]
      for a, b in zip(self._places[::2], self._places[1::2], strict=True)
    ]
    self._width *= 2

  def series(self) -> tuple[list[Any], list[float]]:
    """Steps and values: all of them, or of each place both extremes."""
    points: list[tuple[Any, float]] = []
    for _, _, low, least, high, most in self._places:
      both = sorted([(low, least), (high, most)])
      points += both[:1] if both[0] == both[1] else both
    return [step for step, _ in points], [value for _, value in points]

  def means(self) -> tuple[list[Any], list[float]]:
    """Steps and mean values, of each place one."""
    return (
      [(p[2] + p[4]) / 2 for p in self._places],
      [p[1] / p[0] for p in self._places],
    )


class Columns:
  """A log as columns.

  Attributes:
    count: rows.
    last: the last row.

  >>> log = Columns([{'step': 1, 'x': 3.0}, {'step': 2, 'x': float('nan')}])
  >>> log.count, log.series('x')
  (2, ([1], [3.0]))
  """

  def __init__(self, rows: Iterable[Row]) -> None:
    """Reads the rows, one after another, and keeps none."""
    self.count = 0
    self.last: Row = {}
    self._columns: dict[str, _Column] = {}
    for row in rows:
      self._add(row)

  def _add(self, row: Row) -> None:
    self.count += 1
    self.last = row
    step = row['step']
    for name, value in row.items():
      if name == 'step' or not isinstance(value, int | float):
        continue
      if math.isfinite(value):
        column = self._columns.get(name)
        if column is None:
          column = self._columns[name] = _Column()
        column.add(step, value, row)

  def __len__(self) -> int:
    """How many rows there were."""
    return self.count

  @property
  def names(self) -> list[str]:
    """Of the columns."""
    return sorted(self._columns)

  def _find(self, name: str) -> _Column:
    return self._columns.get(name, _Column())

  def values(self, name: str) -> int:
    """How many finite values there were."""
    return self._find(name).count

  def series(self, name: str) -> tuple[list[Any], list[float]]:
    """Steps and values, where finite; thinned, both extremes of each part."""
    return self._find(name).series()

  def means(self, name: str) -> tuple[list[Any], list[float]]:
    """Steps and means of the parts that `series` has the extremes of."""
    return self._find(name).means()

  def mean(self, name: str) -> float:
    """Of all finite values; 0 where there is none."""
    column = self._find(name)
    return column.total / column.count if column.count else 0.0

  def latest(self, name: str) -> Row:
    """The last row in which a value was finite; empty for none."""
    return self._find(name).last


def columns_of(rows: Iterable[Row] | Columns) -> Columns:
  """Rows as columns, unless they are."""
  return rows if isinstance(rows, Columns) else Columns(rows)


__all__ = ['Columns', 'columns_of']
