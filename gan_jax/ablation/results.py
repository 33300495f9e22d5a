"""What an ablation found: its plan and results read, ranked and compared.

Reads `plan.json` and `results.csv` of the folder, at any time: what has not
run yet is missing and counted.
"""

import csv
import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan_jax.ablation import statistics
from gan_jax.ablation.grid import text_of
from gan_jax.ablation.statistics import Difference, Estimate, Summary
from gan_jax.config.schema import ConfigError

Floats = NDArray[np.float64]
ALPHA = 0.05


@dataclasses.dataclass(frozen=True)
class Cell:
  """Runs of one configuration, one a seed, in the order of the seeds.

  Attributes:
    index: its place in the plan.
    label: as the plan has it: `objective=hinge, lr_d=0.0001`.
    values: of the factors: varied flags, those that vary together as one.
    seeds: of the runs that have ended.
    outcomes: of each: done, diverged or failed.
    steps: where each ended.
    scores: of each metric, for each run; nan where it has none.
    evaluation: the same, deviations over evaluation seeds.
  """

  index: int
  label: str
  values: Mapping[str, Any]
  seeds: tuple[int, ...]
  outcomes: tuple[str, ...]
  steps: tuple[int | None, ...]
  scores: Mapping[str, Floats]
  evaluation: Mapping[str, Floats]

  def count(self, outcome: str) -> int:
    """How many runs ended so."""
    return self.outcomes.count(outcome)

  def finite(self, metric: str) -> Floats:
    """Scores of the runs that have one."""
    scores = self.scores[metric]
    return scores[np.isfinite(scores)]

  @property
  def name(self) -> str:
    """Its settings in few words."""
    return ' · '.join(short(*i) for i in self.values.items()) or self.label


# Flags whose values say what they are values of.
_PLAIN = ('dataset', 'network', 'objective')


def short(flag: str, value: Any) -> str:
  """One setting in few words."""
  if flag in _PLAIN:
    return text_of(value).replace('_', '-')
  return f'{flag}\xa0{text_of(value) or "(none)"}'


class Ranked(NamedTuple):
  """A cell in the ranking, against the best one.

  Attributes:
    cell: the cell.
    rank: 1 is the best; None if too few of its runs have a score.
    summary: of its scores.
    diverged: how often it diverged, of the runs that did not fail.
    apart: its scores less those of the best, on shared seeds.
    p: of that difference, adjusted for all pairs of ranked cells.
    beaten: probability that a run of the best is better than one of it.
  """

  cell: Cell
  rank: int | None
  summary: Summary
  diverged: Estimate
  apart: Difference | None = None
  p: float = math.nan
  beaten: Estimate | None = None


@dataclasses.dataclass(frozen=True)
class Ablation:
  """A plan and what came of it.

  Attributes:
    plan: plan.json.
    cells: in the order of the plan.
    ranking: the ranked cells, best first, then the others.
    pairs: how many comparisons the p values are adjusted for.
  """

  plan: Mapping[str, Any]
  cells: Sequence[Cell]
  ranking: Sequence[Ranked]
  pairs: int

  @property
  def primary(self) -> str:
    """The metric that ranks."""
    return str(self.plan['primary'])

  @property
  def better(self) -> str:
    """'lower' or 'higher'."""
    return str(self.plan['better'])

  @property
  def vary(self) -> dict[str, list[Any]]:
    """Values of each factor, in the order of the cells."""
    found: dict[str, list[Any]] = {}
    for cell in self.cells:
      for name, value in cell.values.items():
        found.setdefault(name, [])
        if value not in found[name]:
          found[name].append(value)
    return found

  @property
  def ranked(self) -> list[Ranked]:
    """Those that have a rank."""
    return [row for row in self.ranking if row.rank is not None]

  @property
  def total(self) -> int:
    """How many runs were planned."""
    return len(self.cells) * len(self.plan['seeds'])

  def count(self, outcome: str) -> int:
    """How many runs ended so."""
    return sum(cell.count(outcome) for cell in self.cells)


def _number(text: str | None) -> float:
  """A score of results.csv; nan for one that is missing or not finite."""
  try:
    value = float(text or 'nan')
  except ValueError:
    return math.nan
  return value if math.isfinite(value) else math.nan


def _factors(settings: Sequence[Mapping[str, Any]]) -> list[list[str]]:
  """Flags, those in one group of which one says what the others are."""
  groups: list[list[str]] = []
  for flag in settings[0] if settings else ():
    for group in groups:
      pairs = {(told[group[0]], told[flag]) for told in settings}
      firsts, seconds = map(set, zip(*pairs, strict=True))
      if 1 < len(pairs) == len(firsts) == len(seconds):
        group.append(flag)
        break
    else:
      groups.append([flag])
  return groups


def _joined(
  told: Mapping[str, Any], groups: Sequence[Sequence[str]], equal: bool
) -> dict[str, Any]:
  """Settings with each group as one: `lr_g, lr_d` at 0.001, or each its own."""
  found = {}
  for group in groups:
    values = [told[flag] for flag in group]
    if len(group) == 1 or equal:
      found[',\xa0'.join(group)] = values[0]
    else:
      name, each = '\xa0/\xa0'.join(group), map(text_of, values)
      found[name] = '\xa0/\xa0'.join(each)
  return found


def _cells(
  plan: Mapping[str, Any], rows: Sequence[Mapping[str, str]]
) -> list[Cell]:
  metrics = {*plan['metrics'], plan['primary']}
  settings = [told['values'] for told in plan['cells']]
  groups = _factors(settings)
  equal = all(
    len({told[flag] for flag in group}) == 1
    for told in settings
    for group in groups
  )
  found = []
  for index, told in enumerate(plan['cells']):
    runs = [row for row in rows if int(row['cell']) == index]
    runs.sort(key=lambda row: int(row['seed']))
    ended = [row['outcome'] for row in runs]
    scores = {
      # A run that did not end well has no score, whatever is written there.
      m: np.array(
        [_number(r.get(m)) if r['outcome'] == 'done' else np.nan for r in runs],
        np.float64,
      )
      for m in metrics
    }
    found.append(
      Cell(
        index,
        told['label'],
        _joined(told['values'], groups, equal),
        tuple(int(row['seed']) for row in runs),
        tuple(ended),
        tuple(int(row['step']) if row['step'] else None for row in runs),
        scores,
        {
          m: np.array(
            [_number(row.get(f'evaluation_std_{m}')) for row in runs],
            np.float64,
          )
          for m in metrics
        },
      )
    )
  return found


def _differences(a: Cell, b: Cell, metric: str) -> Difference:
  """`a - b` on the seeds that both have a score of."""
  ours = dict(zip(a.seeds, a.scores[metric], strict=True))
  theirs = dict(zip(b.seeds, b.scores[metric], strict=True))
  shared = [
    (x, theirs[seed])
    for seed, x in ours.items()
    if math.isfinite(x) and math.isfinite(theirs.get(seed, math.nan))
  ]
  left, right = np.array(shared, np.float64).reshape(-1, 2).T
  return statistics.paired_difference(left, right)


def _with_the_worst(cell: Cell, metric: str, better: str) -> Floats:
  """Its scores; a run that diverged is worse than all that did not."""
  worst = math.inf if better == 'lower' else -math.inf
  lost = np.full(cell.count('diverged'), worst)
  return np.concatenate([cell.finite(metric), lost])


def _row(cell: Cell, metric: str) -> Ranked:
  known = statistics.summary(cell.finite(metric))
  diverged = cell.count('diverged')
  tried = diverged + cell.count('done')
  return Ranked(cell, None, known, statistics.rate(diverged, tried))


def _deserves(row: Ranked) -> bool:
  """At least two runs and half of those that ended have a score."""
  return row.summary.n >= max(2, len(row.cell.seeds) / 2)


def rank(
  cells: Sequence[Cell], metric: str, better: str
) -> tuple[list[Ranked], int]:
  """The ranking, and how many pairs its p values are adjusted for.

  Cells are ranked by the mean over the runs that have a score, if those are at
  least two and at least half of the runs that ended; the others follow, by how
  many have one. The best is picked by the same scores that it is then
  compared with, so that Holm's correction is over every pair of ranked cells:
  over the pairs with the best alone it would be too lenient
  (experiments/statistics/coverage).
  """
  sign = 1 if better == 'lower' else -1
  rows = [_row(cell, metric) for cell in cells]
  placed = sorted(
    filter(_deserves, rows), key=lambda row: sign * row.summary.mean
  )
  rest = [row for row in rows if not _deserves(row)]
  rest.sort(key=lambda row: -row.summary.n)
  couples = list(itertools.combinations(range(len(placed)), 2))
  apart = {
    (i, j): _differences(placed[j].cell, placed[i].cell, metric)
    for i, j in couples
  }
  tested = [pair for pair in couples if math.isfinite(apart[pair].p)]
  adjusted = dict(
    zip(tested, statistics.holm([apart[t].p for t in tested]), strict=True)
  )
  found = []
  for place, row in enumerate(placed):
    row = row._replace(rank=place + 1)
    if place:
      best = placed[0].cell
      row = row._replace(
        apart=apart[0, place],
        p=adjusted.get((0, place), math.nan),
        beaten=statistics.probability_of_improvement(
          _with_the_worst(best, metric, better),
          _with_the_worst(row.cell, metric, better),
          better,
        ),
      )
    found.append(row)
  return found + rest, len(tested)


def read(folder: str | pathlib.Path) -> Ablation:
  """What is in an ablation's folder.

  Raises:
    ConfigError: if there is no ablation, or its files cannot be read.
  """
  folder = pathlib.Path(folder)
  try:
    plan = json.loads((folder / 'plan.json').read_text(encoding='utf-8'))
    with open(folder / 'results.csv', encoding='utf-8', newline='') as file:
      rows = list(csv.DictReader(file))
    cells = _cells(plan, rows)
    ranking, pairs = rank(cells, plan['primary'], plan['better'])
  except FileNotFoundError as error:
    name = pathlib.Path(error.filename).name
    raise ConfigError(
      f'--workdir={folder}: no ablation to report on (no {name}); start or go'
      f' on with python -m gan_jax.ablate --workdir={folder}'
    ) from error
  except (OSError, KeyError, TypeError, ValueError) as error:
    raise ConfigError(
      f'--workdir={folder}: plan.json or results.csv is damaged'
      f' ({type(error).__name__}: {error}); python -m gan_jax.ablate'
      f' --workdir={folder} writes both anew'
    ) from error
  return Ablation(plan, cells, ranking, pairs)
