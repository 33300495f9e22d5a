"""Results of an ablation: its plan and scores read, ranked and compared.

Reads `plan.json` and `results.csv` of the folder, at any time: runs that have
not ended are missing and counted.
"""

import csv
import dataclasses
import itertools
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan_jax.ablation import statistics
from gan_jax.ablation.grid import format_value
from gan_jax.ablation.statistics import Difference, Estimate, Summary
from gan_jax.runtime import places, records
from gan_jax.runtime.errors import ArgumentError

Floats = NDArray[np.float64]
ALPHA = 0.05
ROUNDING = 1e-12  # of means: those that differ by less are equal
# Settings whose values say what they are values of.
_SELF_EXPLAINING = ('dataset', 'network', 'objective')


def short_setting(name: str, value: Any) -> str:
  """One setting in few words."""
  # Control characters would break lines of tables, and pictures.
  text = re.sub(r'[\x00-\x1f\x7f]+', ' ', format_value(value))
  if name in _SELF_EXPLAINING:
    return text.replace('_', '-')
  return f'{name}\xa0{text or "(none)"}'


@dataclasses.dataclass(frozen=True)
class CellResults:
  """Ended runs of one cell, a seed each, in the order of the seeds.

  Attributes:
    index: its place in the plan.
    label: as the plan has it: `objective=hinge, lr_d=0.0001`.
    values: of the factors: what is varied; together what varies together.
    seeds: of the runs that have ended.
    outcomes: of each: done, diverged or failed.
    steps: where each ended.
    scores: of each metric, for each run; NaN where it has none.
    evaluation_std: the same, standard deviations over evaluation seeds.
  """

  index: int
  label: str
  values: Mapping[str, Any]
  seeds: tuple[int, ...]
  outcomes: tuple[str, ...]
  steps: tuple[int | None, ...]
  scores: Mapping[str, Floats]
  evaluation_std: Mapping[str, Floats]

  def count(self, outcome: str) -> int:
    """How many runs ended so."""
    return self.outcomes.count(outcome)

  def finite_scores(self, metric: str) -> Floats:
    """Scores of the runs that have one."""
    scores = self.scores[metric]
    return scores[np.isfinite(scores)]

  @property
  def name(self) -> str:
    """Its settings in few words."""
    return ' · '.join(short_setting(*i) for i in self.values.items()) or (
      self.label
    )


class RankedCell(NamedTuple):
  """A cell in the ranking, against the best one.

  Attributes:
    cell: the cell.
    rank: 1 is the best; None if too few of its runs have a score. Cells of
      equal means share one, and the next has as many more.
    summary: of its scores.
    diverged: proportion of runs that diverged, of those that did not fail.
    difference: its scores less those of the best, on shared seeds.
    p: of that difference, adjusted for all pairs of ranked cells.
    beaten: probability that a run of the best is better than one of it.
    tied: whether it shares its rank.
  """

  cell: CellResults
  rank: int | None
  summary: Summary
  diverged: Estimate
  difference: Difference | None = None
  p: float = math.nan
  beaten: Estimate | None = None
  tied: bool = False


@dataclasses.dataclass(frozen=True)
class AblationResults:
  """The plan of an ablation with the results of its runs.

  Attributes:
    plan: the content of `plan.json`.
    cells: in the order of the plan.
    ranking: the ranked cells, best first, then the others.
    pairs: the number of comparisons that the p values are adjusted for.
  """

  plan: Mapping[str, Any]
  cells: Sequence[CellResults]
  ranking: Sequence[RankedCell]
  pairs: int

  @property
  def primary(self) -> str:
    """The score that ranks."""
    return str(self.plan['primary'])

  @property
  def better(self) -> str:
    """'lower' or 'higher'."""
    return str(self.plan['better'])

  @property
  def factors(self) -> dict[str, list[Any]]:
    """Values of each factor, in the order of the cells."""
    values: dict[str, list[Any]] = {}
    for cell in self.cells:
      for name, value in cell.values.items():
        values.setdefault(name, [])
        if value not in values[name]:
          values[name].append(value)
    return values

  @property
  def ranked(self) -> list[RankedCell]:
    """The cells that have a rank."""
    return [row for row in self.ranking if row.rank is not None]

  @property
  def level(self) -> list[RankedCell]:
    """The cells that share the first rank; one if no other is level."""
    return [row for row in self.ranking if row.rank == 1]

  @property
  def total(self) -> int:
    """The number of runs that were planned."""
    return len(self.cells) * len(self.plan['seeds'])

  def count(self, outcome: str) -> int:
    """How many runs ended so."""
    return sum(cell.count(outcome) for cell in self.cells)


# Reading.


def _parse_score(text: str | None) -> float:
  """A score of results.csv; NaN for one that is missing or not finite."""
  try:
    value = float(text or 'nan')
  except ValueError:
    return math.nan
  return value if math.isfinite(value) else math.nan


def _group_settings(settings: Sequence[Mapping[str, Any]]) -> list[list[str]]:
  """Names, those in one group of which one says what the others are."""
  groups: list[list[str]] = []
  for name in settings[0] if settings else ():
    for group in groups:
      pairs = {(cell[group[0]], cell[name]) for cell in settings}
      firsts, seconds = map(set, zip(*pairs, strict=True))
      if 1 < len(pairs) == len(firsts) == len(seconds):
        group.append(name)
        break
    else:
      groups.append([name])
  return groups


def _join_settings(
  settings: Mapping[str, Any], groups: Sequence[Sequence[str]], equal: bool
) -> dict[str, Any]:
  """Settings with each group as one: `lr_g, lr_d` at 0.001, or each its own."""
  joined = {}
  for group in groups:
    values = [settings[name] for name in group]
    if len(group) == 1 or equal:
      joined[',\xa0'.join(group)] = values[0]
    else:
      texts = map(format_value, values)
      joined['\xa0/\xa0'.join(group)] = '\xa0/\xa0'.join(texts)
  return joined


def _read_cells(
  plan: Mapping[str, Any], rows: Sequence[Mapping[str, str]]
) -> list[CellResults]:
  metrics = dict.fromkeys([*plan['metrics'], plan['primary']])
  settings = [cell['values'] for cell in plan['cells']]
  groups = _group_settings(settings)
  equal = all(
    len({cell[name] for name in group}) == 1
    for cell in settings
    for group in groups
  )
  cells = []
  for index, cell in enumerate(plan['cells']):
    runs = [row for row in rows if int(row['cell']) == index]
    runs.sort(key=lambda row: int(row['seed']))
    # A run that did not end well has no score, whatever is written there.
    scored = [run if run['outcome'] == 'done' else {} for run in runs]
    cells.append(
      CellResults(
        index,
        cell['label'],
        _join_settings(cell['values'], groups, equal),
        tuple(int(run['seed']) for run in runs),
        tuple(run['outcome'] for run in runs),
        tuple(int(run['step']) if run['step'] else None for run in runs),
        {m: _read_column(scored, m) for m in metrics},
        {m: _read_column(runs, f'evaluation_std_{m}') for m in metrics},
      )
    )
  return cells


def _read_column(rows: Sequence[Mapping[str, str]], name: str) -> Floats:
  return np.array([_parse_score(row.get(name)) for row in rows], np.float64)


def read_results(folder: str | pathlib.Path) -> AblationResults:
  """The results in an ablation's folder.

  Raises:
    ArgumentError: if there is no ablation, or its files cannot be read.
  """
  folder = places.resolved('workdir', folder)
  command = f'python -m gan_jax.ablate --workdir={folder}'
  try:
    plan = records.parse((folder / 'plan.json').read_bytes())
    with open(folder / 'results.csv', encoding='utf-8', newline='') as file:
      rows = list(csv.DictReader(file))
    return make_results(plan, rows)
  except FileNotFoundError as error:
    raise ArgumentError(
      'workdir',
      str(folder),
      f'no ablation to report on (no {pathlib.Path(error.filename).name});'
      f' start or continue it with {command}',
    ) from error
  except (OSError, KeyError, TypeError, ValueError) as error:
    raise ArgumentError(
      'workdir',
      str(folder),
      f'plan.json or results.csv is damaged ({type(error).__name__}: {error});'
      f' {command} writes both anew',
    ) from error


def make_results(
  plan: Mapping[str, Any], rows: Sequence[Mapping[str, str]]
) -> AblationResults:
  """The results of a plan and the rows of its results.csv."""
  cells = _read_cells(plan, rows)
  ranking, pairs = rank_cells(cells, plan['primary'], plan['better'])
  return AblationResults(plan, cells, ranking, pairs)


# Ranking.


def _compare(a: CellResults, b: CellResults, metric: str) -> Difference:
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


def _scores_with_diverged(
  cell: CellResults, metric: str, better: str
) -> Floats:
  """Its scores; a run that diverged is worse than all that did not."""
  worst = math.inf if better == 'lower' else -math.inf
  diverged = np.full(cell.count('diverged'), worst)
  return np.concatenate([cell.finite_scores(metric), diverged])


def _summarise_cell(cell: CellResults, metric: str) -> RankedCell:
  summary = statistics.summary(cell.finite_scores(metric))
  diverged = cell.count('diverged')
  total = diverged + cell.count('done')
  return RankedCell(cell, None, summary, statistics.rate(diverged, total))


def _can_be_ranked(row: RankedCell) -> bool:
  """At least two runs and half of those that ended have a score."""
  return row.summary.n >= max(2, len(row.cell.seeds) / 2)


def are_level(a: float, b: float) -> bool:
  """Whether two means differ by no more than rounding."""
  return math.isclose(a, b, rel_tol=ROUNDING, abs_tol=0.0)


def _assign_ranks(ordered: Sequence[RankedCell]) -> list[RankedCell]:
  """The rows, best first, with their ranks; equal means share one."""
  groups: list[list[RankedCell]] = []
  for row in ordered:
    if groups and are_level(groups[-1][0].summary.mean, row.summary.mean):
      groups[-1].append(row)
    else:
      groups.append([row])
  ranks = itertools.accumulate([1, *(len(group) for group in groups)])
  return [
    row._replace(rank=rank, tied=len(group) > 1)
    for rank, group in zip(ranks, groups, strict=False)
    for row in group
  ]


def rank_cells(
  cells: Sequence[CellResults], metric: str, better: str
) -> tuple[list[RankedCell], int]:
  """The ranking, and how many pairs its p values are adjusted for.

  Cells are ranked by the mean over the runs that have a score, if those are at
  least two and at least half of the runs that ended; the others follow, by how
  many have one. Equal means share a rank, and the first in the plan stands for
  the best. It is picked by the same scores that it is then compared with, so
  that Holm's correction is over every pair of ranked cells: over the pairs with
  the best alone it would be too lenient (experiments/statistics/coverage).
  """
  sign = 1 if better == 'lower' else -1
  rows = [_summarise_cell(cell, metric) for cell in cells]
  ranked = sorted(
    filter(_can_be_ranked, rows), key=lambda row: sign * row.summary.mean
  )
  unranked = [row for row in rows if not _can_be_ranked(row)]
  unranked.sort(key=lambda row: -row.summary.n)
  differences = {
    (i, j): _compare(ranked[j].cell, ranked[i].cell, metric)
    for i, j in itertools.combinations(range(len(ranked)), 2)
  }
  tested = [ij for ij, d in differences.items() if math.isfinite(d.p)]
  adjusted = dict(
    zip(
      tested,
      statistics.holm([differences[ij].p for ij in tested]),
      strict=True,
    )
  )
  for i, row in enumerate(_assign_ranks(ranked)):
    ranked[i] = row
    if i:
      ranked[i] = row._replace(
        difference=differences[0, i],
        p=adjusted.get((0, i), math.nan),
        beaten=statistics.probability_of_improvement(
          _scores_with_diverged(ranked[0].cell, metric, better),
          _scores_with_diverged(row.cell, metric, better),
          better,
        ),
      )
  return ranked + unranked, len(tested)
