"""`metrics.jsonl`: every score with its protocol, never twice, never half.

A line is one moment of one run (or one set of images) under one protocol. The
trainer, a command and a follower may write to one file at a time: each line is
added under a lock, after the end of what a kill cut short has been removed.
"""

import contextlib
import fcntl
import json
import math
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
SPREAD = '/evaluation_std'
_ALWAYS = 'step', 'key', 'model', 'primary'


def shown(name: str, features: str) -> str:
  """A score as it is called in public: `fid` is of Inception's 2048 alone.

  >>> shown('fid', 'inception-2048'), shown('fid', 'inception-768')
  ('fid', 'fid@inception-768')
  """
  plain = features in ('', 'points', 'inception', 'inception-2048')
  return name if plain else f'{name}@{features}'


def summarised(by_seed: Sequence[Mapping[str, float]]) -> Row:
  """Mean of each score over evaluation seeds, and their spread beside it.

  The spread (deviation, n - 1) is that of drawing other noise for one and the
  same generator. It says nothing of other runs: that is the training seeds'.
  """
  row: Row = {}
  for name in by_seed[0]:
    values = [scores[name] for scores in by_seed]
    row[name] = float(np.mean(values))
    if len(values) > 1:
      with np.errstate(invalid='ignore'):  # of infinite ones there is none
        row[name + SPREAD] = float(np.std(values, ddof=1))
  row['by_evaluation_seed'] = {
    name: [scores[name] for scores in by_seed] for name in by_seed[0]
  }
  return row


def finite(x: Any) -> Any:
  """JSON knows no NaN: null in its place."""
  if isinstance(x, float) and not math.isfinite(x):
    return None
  if isinstance(x, Mapping):
    return {k: finite(v) for k, v in x.items()}
  return [finite(v) for v in x] if isinstance(x, list | tuple) else x


class Scores:
  """The rows of one file."""

  def __init__(self, path: str | pathlib.Path) -> None:
    """Of a file that need not be there yet."""
    self.path = pathlib.Path(path)
    self._told: set[int] = set()  # damaged lines

  def rows(self) -> list[Row]:
    """All rows; a last line that was cut short is left out.

    A line that is damaged is said, once, and left out: its moment is scored
    again.
    """
    if not self.path.is_file():
      return []
    found: list[Row] = []
    for number, line in enumerate(self.path.read_bytes().split(b'\n')[:-1], 1):
      try:
        row = json.loads(line)
        found.append({**row, **{name: row[name] for name in _ALWAYS}})
      except (ValueError, KeyError, TypeError) as error:
        if number not in self._told:
          self._told.add(number)
          where = f'{self.path}, line {number}'
          text = f'warning: {where}: damaged ({error}); left out'
          print(text, file=sys.stderr, flush=True)
    return found

  def find(self, step: int | None, key: str, model: str) -> Row | None:
    """The row of a moment under a protocol, if it was scored before.

    Args:
      step: of the checkpoint; None for images that are no run's.
      key: hash of the protocol.
      model: hash of the generator's parameters, or of the images: a run that
        was begun anew in the same folder is another.
    """
    for row in reversed(self.rows()):
      if (row['step'], row['key'], row['model']) == (step, key, model):
        return row
    return None

  def add(self, row: Row) -> Row:
    """Adds a row, unless another process was first; returns what is there.

    Raises:
      OSError: if it cannot be written.
    """
    with self._locked():
      there = self.find(row['step'], row['key'], row['model'])
      if there is not None:
        return there
      self._mend()
      with open(self.path, 'a', encoding='utf-8') as file:
        file.write(json.dumps(finite(row)) + '\n')
        file.flush()
        os.fsync(file.fileno())
    return row

  @contextlib.contextmanager
  def _locked(self) -> Iterator[None]:
    # Beside the file: a lock on it would be lost where it is replaced.
    with open(self.path.with_name(f'.{self.path.name}.lock'), 'w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      yield

  def _mend(self) -> None:
    """Removes the end that a kill cut short: a line without its newline."""
    if not self.path.is_file():
      return
    content = self.path.read_bytes()
    whole = content.rfind(b'\n') + 1
    if whole < len(content):
      os.truncate(self.path, whole)


def scores_of(row: Row) -> dict[str, float | None]:
  """The scores of a row by name, without their spreads."""
  return {name: row[name] for name in row['by_evaluation_seed']}


def told(row: Row) -> str:
  """A row as a person reads it."""
  seeds = row['protocol']['evaluation_seeds']
  words = []
  for name, value in scores_of(row).items():
    known = value is not None and math.isfinite(value)
    text = f'{name} ' + (f'{value:.6g}' if known else 'not finite')
    spread = row.get(name + SPREAD)
    words.append(
      text if spread is None or not known else f'{text} ± {spread:.2g}'
    )
  over = f' (± over {len(seeds)} evaluation seeds)' if len(seeds) > 1 else ''
  return ', '.join(words) + over


def best(rows: Sequence[Row], metric: str, better: str) -> Row | None:
  """The row with the best finite score; the earlier of two that are equal.

  A score that is not finite, or not there, is no candidate: it can neither be
  the best nor cost the best its place.

  Args:
    rows: under one protocol.
    metric: whose first score counts.
    better: lower or higher.
  """
  known = []
  for row in rows:
    value = row.get(row['primary'].get(metric, metric))
    if isinstance(value, int | float) and math.isfinite(value):
      known.append((value if better == 'lower' else -value, row['step'], row))
  return min(known, key=lambda item: item[:2])[2] if known else None
