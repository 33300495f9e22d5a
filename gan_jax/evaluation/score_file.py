"""`metrics.jsonl`: every score with its protocol, never twice, never half.

A line is one moment of one run (or one set of samples) under one protocol. The
trainer, a command and a follower may write to one file at a time: each line is
added under a lock, after the end of what a kill cut short has been removed.
"""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gan_jax.config.app import warn
from gan_jax.runtime import locks, records
from gan_jax.runtime.files import sync

Row = dict[str, Any]
SPREAD = '/evaluation_std'
_ALWAYS = ('step', 'key', 'model', 'primary')


def name_score(score: str, features: str) -> str:
  """A score's public name: plain for Inception's 2048, and for points.

  >>> name_score('fid', 'inception-2048'), name_score('fid', 'inception-768')
  ('fid', 'fid@inception-768')
  """
  plain = features in ('', 'points', 'inception', 'inception-2048')
  return score if plain else f'{score}@{features}'


def summarize_seeds(by_seed: Sequence[Mapping[str, float]]) -> Row:
  """Mean of each score over evaluation seeds, and their spread beside it.

  The spread (standard deviation, n - 1) is that of drawing other noise for one
  and the same generator. It says nothing of other runs: that is the training
  seeds'.

  >>> summarize_seeds([{'fid': 1.0}, {'fid': 3.0}])['fid']
  2.0
  """
  row: Row = {}
  names = list(dict.fromkeys(name for scores in by_seed for name in scores))
  values = {
    name: [scores.get(name, math.nan) for scores in by_seed] for name in names
  }
  for name, x in values.items():
    row[name] = float(np.mean(x))
    if len(x) > 1:
      with np.errstate(invalid='ignore'):  # of infinite ones there is none
        row[name + SPREAD] = float(np.std(x, ddof=1))
  return {**row, 'by_evaluation_seed': values}


def mean_of_seeds(
  by_seed: Sequence[Mapping[str, float]],
) -> dict[str, float]:
  """Mean of each score over evaluation seeds.

  >>> mean_of_seeds([{'fid': 1.0}, {'fid': 3.0}])
  {'fid': 2.0}
  """
  return {
    name: float(np.mean([scores[name] for scores in by_seed]))
    for name in by_seed[0]
  }


def replace_nonfinite(x: Any) -> Any:
  """A value as JSON, which knows no NaN: null in its place."""
  if isinstance(x, float) and not math.isfinite(x):
    return None
  if isinstance(x, Mapping):
    return {k: replace_nonfinite(v) for k, v in x.items()}
  return [*map(replace_nonfinite, x)] if isinstance(x, list | tuple) else x


class ScoreFile:
  """The rows of one file.

  Attributes:
    path: of the file, which need not exist yet.
  """

  def __init__(self, path: str | pathlib.Path) -> None:
    """Reads nothing yet."""
    self.path = pathlib.Path(path)
    self._warned: set[int] = set()  # damaged lines

  def rows(self) -> list[Row]:
    """All rows; a last line that was cut short is left out.

    A line that is damaged is warned of, once, and left out: its moment is
    scored again.
    """
    rows, damaged = records.read_lines(self.path, _ALWAYS)
    new = {n: why for n, why in damaged.items() if n not in self._warned}
    if new:
      self._warned |= new.keys()
      warn(f'{records.describe_damage(self.path, new)}; scored again')
    return rows

  def find(self, step: int | None, key: str, model: str) -> Row | None:
    """The row of a moment under a protocol, if it was scored before.

    Args:
      step: of the checkpoint; None for samples that are no run's.
      key: hash of the protocol.
      model: hash of the generator's parameters, or of the samples: a run that
        was begun anew in the same folder is another.
    """
    for row in reversed(self.rows()):
      if (row['step'], row['key'], row['model']) == (step, key, model):
        return row
    return None

  def add(self, row: Row) -> Row:
    """Adds a row, unless another process was first; returns that of the file.

    Raises:
      OSError: if it cannot be written.
    """
    with locks.hold_file(self.path):
      existing = self.find(row['step'], row['key'], row['model'])
      if existing is not None:
        return existing
      self._mend()
      with open(self.path, 'a', encoding='utf-8', newline='\n') as file:
        file.write(records.format_line(replace_nonfinite(row)))
        file.flush()
        sync(file)
    return row

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


def format_row(row: Row) -> str:
  """The scores of a row for a terminal, with their spreads."""
  seeds = row['protocol']['evaluation_seeds']
  words = []
  for name, value in scores_of(row).items():
    is_finite = value is not None and math.isfinite(value)
    text = f'{name} ' + (f'{value:.6g}' if is_finite else 'not finite')
    spread = row.get(name + SPREAD)
    if spread is not None and is_finite:
      text = f'{text} ± {spread:.2g}'
    words.append(text)
  over = f' (± over {len(seeds)} evaluation seeds)' if len(seeds) > 1 else ''
  return ', '.join(words) + over


def find_best(rows: Sequence[Row], metric: str, better: str) -> Row | None:
  """The row with the best finite score; the earlier of two that are equal.

  A score that is missing or not finite is no candidate: it can neither be the
  best nor cost the best its place.

  Args:
    rows: under one protocol.
    metric: whose first score counts.
    better: lower or higher.
  """
  candidates = []
  for row in rows:
    value = row.get(row['primary'].get(metric, metric))
    if isinstance(value, int | float) and math.isfinite(value):
      candidates.append((value if better == 'lower' else -value, row))
  if not candidates:
    return None
  return min(candidates, key=lambda item: (item[0], item[1]['step']))[1]
