"""The report of an ablation: a self-contained HTML page, and two tables.

Drawn from the files of the folder alone, whether all runs have ended or not:
`report.html`, `table.md` and `table.tex`.
"""

import contextlib
import csv
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan_jax.ablation import statistics
from gan_jax.ablation.grid import format_value
from gan_jax.ablation.results import (
  AblationResults,
  CellResults,
  RankedCell,
  read_results,
  short_setting,
)
from gan_jax.ablation.tables import (
  NONE,
  choose_decimals,
  format_interval,
  format_latex,
  format_markdown,
  format_rank,
  format_rate,
  format_row,
  format_score,
  oriented,
  ranking_decimals,
)
from gan_jax.ablation.verdict import list_remarks, list_warnings, state_verdict
from gan_jax.config.app import warn
from gan_jax.runtime import places, records
from gan_jax.runtime.files import cannot_write, write_atomic
from gan_jax.runtime.quiet import quiet_libraries

_PICTURES = 36  # cells whose samples are shown
_PANELS = 12  # of one curve
_LINES = 7  # in one panel


@quiet_libraries()
def report(workdir: str | pathlib.Path) -> pathlib.Path | str:
  """Writes the report of a run or an ablation, ended or not; returns its path.

  One self-contained file, `report.html` in the folder; beside that of an
  ablation are `table.md` and `table.tex`.

  Args:
    workdir: of the run or the ablation: a folder, or its URL.

  Raises:
    ArgumentError: if there is neither in the folder, or nothing can be written
      there.

  Example:
    >>> report('runs/digits')  # doctest: +SKIP
    PosixPath('runs/digits/report.html')
  """
  from gan_jax.training import remote
  from gan_jax.training.report import write_report

  with contextlib.ExitStack() as stack:
    folder = remote.fetched(workdir, stack)
    is_ablation = (folder / 'plan.json').is_file()
    path = (write_ablation_report if is_ablation else write_report)(folder)
    remote.put_back(folder)
    return remote.shown(path)


def write_ablation_report(folder: str | pathlib.Path) -> pathlib.Path:
  """Writes `report.html`, `table.md` and `table.tex`; returns the first's path.

  Raises:
    ArgumentError: if there is no ablation in the folder, or nothing can be
      written there.
  """
  folder = places.resolved('workdir', folder)
  results = read_results(folder)
  pages = {
    'table.md': format_markdown(results),
    'table.tex': format_latex(results),
    'report.html': render_report(results, folder),
  }
  for name, content in pages.items():
    try:
      write_atomic(folder / name, content)
    except OSError as error:
      raise cannot_write('workdir', folder, error, name) from error
  return folder / 'report.html'


def render_report(results: AblationResults, folder: pathlib.Path) -> str:
  """The report as HTML."""
  from gan_jax.ablation import figures
  from gan_jax.figures import page

  logs = RunLogs(folder)
  decimals = ranking_decimals(results.ranking)
  rows = [oriented(row, results.better) for row in results.ranking]
  diverged = results.count('diverged')
  plan = results.plan
  environment = dict(plan.get('environment') or {})
  environment.pop('command', None)
  return page.template('ablation.html.j2').render(
    title=_title(results),
    verdict=state_verdict(results),
    remarks=list_remarks(results),
    warnings=list_warnings(results),
    plan=plan,
    pairs=results.pairs,
    rows=[format_row(row, decimals) for row in rows],
    compared=[format_row(r, decimals) for r in rows if r.difference],
    tied=any(row.tied for row in rows),
    unranked=len(results.ranking) - len(results.ranked),
    strips=figures.draw_strips(results.ranking, results.primary),
    heat=_heat_map(results),
    curves=draw_curves(results, logs),
    pictures=list(_sample_pictures(results, logs)),
    divergence=_divergence_rows(results),
    whole=format_rate(
      statistics.rate(diverged, diverged + results.count('done'))
    ),
    published=_published_values(results),
    spreads=_spreads(results),
    vary=list(_flatten(plan['vary'])),
    base=list(_flatten(_shared_settings(plan))),
    protocol=list(_flatten(plan.get('protocol') or {})),
    environment=list(_flatten(environment)),
    folder=folder,
  )


def _shared_settings(plan: Mapping[str, Any]) -> dict[str, Any]:
  """Options that are not varied, and what all programs declare."""
  varied = {option for name in plan['vary'] for option in name.split('+')}
  shared = dict(plan.get('base', {}))
  identities = plan.get('identities') or [{}]
  first, *others = (identity.get('declared', {}) for identity in identities)
  shared |= {
    name: value
    for name, value in first.items()
    if all(other.get(name) == value for other in others)
  }
  return {name: shared[name] for name in shared if name not in varied}


def _title(results: AblationResults) -> str:
  factors = ' × '.join(results.factors)
  dataset = results.plan.get('base', {}).get('dataset')
  return (factors or 'Ablation') + (f' on {dataset}' if dataset else '')


def _flatten(
  facts: Mapping[str, Any], prefix: str = ''
) -> Iterator[tuple[str, str]]:
  """Nested facts as rows."""
  for name, value in facts.items():
    if isinstance(value, Mapping):
      yield from _flatten(value, f'{prefix}{name}.')
    elif isinstance(value, list | tuple):
      yield prefix + name, ', '.join(map(format_value, value))
    else:
      yield prefix + name, format_value(value)


# Logs and pictures of the runs.


def _read_members(path: pathlib.Path) -> list[dict[str, Any]]:
  """The members of a program; none, with a warning, if the file is damaged."""
  try:
    members: list[dict[str, Any]] = json.loads(path.read_text('utf-8'))
    return [m for m in members if m.keys() >= {'cell', 'seed'}]
  except (OSError, ValueError, TypeError, AttributeError) as error:
    warn(f'{path} is damaged ({error}): its curves and samples are left out')
    return []


class RunLogs:
  """What the runs of an ablation logged and scored, and their samples."""

  def __init__(self, folder: pathlib.Path) -> None:
    """Reads each program's log once, and the folder's `scores.csv`."""
    self._places: dict[tuple[int, int], tuple[pathlib.Path, int]] = {}
    self._arrays: dict[pathlib.Path, dict[str, NDArray[Any]]] = {}
    for path in sorted((folder / 'programs').glob('*/members.json')):
      for i, member in enumerate(_read_members(path)):
        self._places[member['cell'], member['seed']] = path.parent, i
      stats = path.parent / 'stats.npz'
      if stats.is_file():
        try:
          self._arrays[path.parent] = records.read_arrays(stats, ['step'])
        except records.DamagedRecord as error:
          warn(f'{stats} is damaged ({error}): its curves are left out')
    self._scores: dict[tuple[int, int], list[dict[str, str]]] = {}
    if (folder / 'scores.csv').is_file():
      with open(folder / 'scores.csv', encoding='utf-8', newline='') as file:
        for row in csv.DictReader(file):
          run = int(row['cell']), int(row['seed'])
          self._scores.setdefault(run, []).append(row)

  def logged_names(self) -> list[str]:
    """Names of the logged values."""
    names = {n for arrays in self._arrays.values() for n in arrays}
    return sorted(names - {'step', 'alive'})

  def scored_names(self, metrics: Sequence[str]) -> list[str]:
    """Those of some scores that were evaluated during training."""
    rows = [row for rows in self._scores.values() for row in rows]
    return [n for n in metrics if any(row.get(n) for row in rows)]

  def picture(self, cell: CellResults, seed: int) -> bytes | None:
    """PNG file of a run's samples; None if there is none."""
    program, i = self._places.get((cell.index, seed), (pathlib.Path(), 0))
    path = program / 'samples' / f'member_{i:04d}.png'
    try:
      return records.read_png(path) if path.is_file() else None
    except records.DamagedRecord as error:
      warn(f'{path} is damaged ({error}) and left out')
      return None

  def curves(
    self, cell: CellResults, name: str
  ) -> tuple[NDArray[Any], NDArray[Any]]:
    """Steps (t,) and values (t, runs) of a cell; NaN from a divergence on."""
    series = [
      self._read_scores(cell, seed, name) or self._read_log(cell, seed, name)
      for seed in cell.seeds
    ]
    curves = [xy for xy in series if xy is not None]
    if not curves:
      return np.zeros(0), np.zeros((0, 0))
    steps = np.unique(np.concatenate([x for x, _ in curves]))
    table = np.full((len(steps), len(curves)), np.nan)
    for i, (x, values) in enumerate(curves):
      table[np.searchsorted(steps, x), i] = values
    return steps, table

  def _read_scores(self, cell: CellResults, seed: int, name: str) -> Any:
    """Steps and values of a run's score; None where it was not evaluated."""
    rows = self._scores.get((cell.index, seed), [])
    if not any(row.get(name) for row in rows):
      return None
    steps = np.array([int(row['step']) for row in rows])
    return steps, np.array([float(row[name] or 'nan') for row in rows])

  def _read_log(self, cell: CellResults, seed: int, name: str) -> Any:
    """Steps and values that a run logged; None where it did not."""
    program, i = self._places.get((cell.index, seed), (pathlib.Path(), 0))
    arrays = self._arrays.get(program, {})
    if name not in arrays:
      return None
    values = arrays[name][:, i].astype(np.float64)
    alive = arrays['alive'][:, i].astype(bool)
    return arrays['step'], np.where(alive, values, np.nan)


def _sample_pictures(
  results: AblationResults, logs: RunLogs
) -> Iterator[dict[str, Any]]:
  """Samples of the median run of each cell, in the order of the ranking."""
  from gan_jax.figures.page import data_uri

  decimals = ranking_decimals(results.ranking)
  for row in results.ranking[:_PICTURES]:
    cell, scores = row.cell, row.cell.scores[results.primary]
    scored = np.flatnonzero(np.isfinite(scores))
    if not scored.size:
      continue
    run = scored[statistics.median_run(scores[scored], results.better)]
    picture = logs.picture(cell, cell.seeds[run])
    if picture is not None:
      yield {
        'name': cell.name,
        'rank': format_rank(row) if row.rank else '',
        'seed': cell.seeds[run],
        'score': format_score(float(scores[run]), decimals),
        'uri': data_uri(picture, 'png'),
      }


# Learning curves.


class CurveStyle(NamedTuple):
  """How a logged value is drawn; nothing is below the floor of its axis."""

  title: str
  caption: str = ''
  level: float | None = None
  floor: float | None = None


# Comparable between objectives, as losses are not.
_CURVES = {
  'game/jsd_bound': CurveStyle(
    'Jensen-Shannon bound',
    'What the value of the game proves about the distance from the data, in'
    ' nats, log 2 at the most. 0 at the equilibrium; below it nothing is'
    ' proved, and the axis ends.',
    level=0.0,
    # Objectives whose logits drift together send it down without end.
    floor=-0.1,
  ),
  'd/prob_fake': CurveStyle(
    "D's probability of generated samples",
    '1/2 at the equilibrium.',
    level=0.5,
  ),
  'g/grad_norm': CurveStyle(
    "Norm of G's gradient", 'What reaches G through D.'
  ),
}


def draw_curves(results: AblationResults, logs: RunLogs) -> dict[str, Any]:
  """Learning curves: medians and quartiles over the runs of each cell."""
  from gan_jax.ablation import figures

  groups, settings = _group_cells(results)
  left_out = max(0, len(groups) - _PANELS)
  groups = dict(list(groups.items())[:_PANELS])
  last = list(results.factors)[-1] if settings else ''
  colours = figures.choose_colours(settings) if settings else figures.COLOURS

  def colour(cell: CellResults) -> str:
    return colours[settings.index(cell.values.get(last)) if settings else 0]

  drawn = []
  for name in _choose_curves(results, logs):
    style = _CURVES.get(name, CurveStyle(name))
    lines = {
      title: [(colour(cell), *logs.curves(cell, name)) for cell in cells]
      for title, cells in groups.items()
    }
    if all(len(steps) < 2 for group in lines.values() for _, steps, _ in group):
      continue  # one step is no curve
    panels = figures.draw_panels(name, lines, style.level, style.floor)
    if panels:
      drawn.append(
        {'title': style.title, 'caption': style.caption, 'panels': panels}
      )
  return {
    'figures': drawn,
    'logged': bool(logs.logged_names()),
    'legend': [
      (short_setting(last, value), shade)
      for value, shade in zip(settings, colours, strict=False)
    ],
    'left_out': left_out,
    'single': len(groups) == 1,
  }


def _choose_curves(results: AblationResults, logs: RunLogs) -> list[str]:
  """Scores over time where there are some, then what can be compared."""
  logged = logs.logged_names()
  scored = logs.scored_names(results.plan['metrics'])
  comparable = [n for n in _CURVES if n in logged]
  return (scored + comparable) or logged[:3]


def _group_cells(
  results: AblationResults,
) -> tuple[dict[str, list[CellResults]], list[Any]]:
  """Cells of each panel, and the settings that a colour each stands for."""
  cells = [row.cell for row in results.ranking]
  factors = list(results.factors)
  last = factors[-1] if factors else ''
  settings = results.factors.get(last, [])
  if not factors or len(settings) > _LINES:
    return {cell.name: [cell] for cell in cells}, []
  groups: dict[str, list[CellResults]] = {}
  for cell in cells:
    others = [short_setting(f, v) for f, v in cell.values.items() if f != last]
    groups.setdefault(' · '.join(others), []).append(cell)
  return groups, settings


# Tables.


def _heat_map(results: AblationResults) -> dict[str, Any] | None:
  """Means of a full grid of two factors, shaded towards the best."""
  from gan_jax.ablation.figures import needs_log_scale

  factors = results.factors
  if len(factors) != 2 or min(len(v) for v in factors.values()) < 2:
    return None
  down, across = factors
  rows = {
    (row.cell.values[down], row.cell.values[across]): row
    for row in results.ranking
  }
  if len(rows) != len(factors[down]) * len(factors[across]):
    return None  # a search, not a grid
  means = np.array([row.summary.mean for row in results.ranked])
  if not means.size:
    return None
  log = needs_log_scale(means, 3.0)
  scale = np.log if log else np.asarray
  low, high = scale(np.array([means.min(), means.max()]))
  decimals = ranking_decimals(results.ranking)

  def shade(row: RankedCell) -> float:
    if row.rank is None or high == low:
      return 0.0
    above = float((scale(row.summary.mean) - low) / (high - low))
    return 0.5 * (1 - above if results.better == 'lower' else above)

  def square(row: RankedCell) -> dict[str, Any]:
    return {
      'mean': format_score(row.summary.mean, decimals),
      'std': format_score(row.summary.std, decimals),
      'diverged': row.cell.count('diverged'),
      'failed': row.cell.count('failed'),
      'shade': f'{shade(row):.2f}',
      'best': row.rank == 1 and not row.tied,
    }

  # Rows by the best cell in each, columns as they were asked for.
  order = list(dict.fromkeys(key for key, _ in rows))
  columns = factors[across]
  return {
    'down': down,
    'across': across,
    'log': log,
    'columns': [format_value(c) for c in columns],
    'rows': [
      (format_value(r), [square(rows[r, c]) for c in columns]) for r in order
    ],
  }


def _divergence_rows(results: AblationResults) -> list[dict[str, Any]]:
  """Cells with a run that has no score, the worst first."""
  rows = []
  for row in results.ranking:
    cell = row.cell
    steps = [
      step
      for step, outcome in zip(cell.steps, cell.outcomes, strict=True)
      if outcome == 'diverged' and step is not None
    ]
    unscored = cell.count('done') - row.summary.n
    if cell.count('diverged') or cell.count('failed') or unscored:
      ends = dict.fromkeys([min(steps), max(steps)]) if steps else {}
      rows.append(
        {
          'name': cell.name,
          'runs': len(cell.seeds),
          'diverged': cell.count('diverged'),
          'rate': format_rate(row.diverged),
          'steps': ' to '.join(f'{s:,}' for s in ends) or NONE,
          'failed': cell.count('failed'),
          'unscored': unscored,
        }
      )
  return sorted(rows, key=lambda r: -(r['diverged'] + r['failed']))


def _find_published(results: AblationResults, label: str) -> RankedCell | None:
  """The best ranked cell that a published label speaks of."""
  for row in results.ranked:
    values = map(format_value, row.cell.values.values())
    if label in (row.cell.label, row.cell.name, *values):
      return row
  return None


def _published_values(results: AblationResults) -> dict[str, Any] | None:
  """Published values beside the best cell that each speaks of."""
  published = results.plan.get('published')
  if not published:
    return None
  decimals = ranking_decimals(results.ranking)
  rows, both = [], []
  for label, (mean, std) in published['rows'].items():
    row = _find_published(results, label)
    text = {
      'label': label.replace('_', '-'),
      'published': f'{mean:g}' + (f' ± {std:g}' if std is not None else ''),
      'cell': 'not run',
    }
    text |= dict.fromkeys(('ours', 'std', 'interval', 'n'), NONE)
    if row is not None:
      scores = row.summary
      both.append((mean, scores.mean))
      text |= {
        'cell': row.cell.name,
        'ours': format_score(scores.mean, decimals),
        'std': format_score(scores.std, decimals),
        'interval': format_interval(scores.interval, decimals),
        'n': str(scores.n),
      }
    rows.append(text)
  pairs = [(a, b) for i, a in enumerate(both) for b in both[:i]]
  agreeing = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs)
  return {
    'source': published['source'],
    'rows': rows,
    'agreeing': agreeing,
    'pairs': len(pairs),
  }


def _spreads(results: AblationResults) -> dict[str, Any]:
  """By cell: each score's mean and two spreads, which are kept apart."""
  rows: dict[str, list[Sequence[str]]] = {
    row.cell.name: [] for row in results.ranking
  }
  metrics = results.plan['metrics']
  evaluated_again = any(
    np.isfinite(row.cell.evaluation_std[metric]).any()
    for row in results.ranking
    for metric in metrics
  )
  for metric in metrics:
    summaries = [
      (row.cell, statistics.summary(row.cell.finite_scores(metric)))
      for row in results.ranking
    ]
    decimals = choose_decimals([scores.std for _, scores in summaries])
    for cell, scores in summaries:
      within = cell.evaluation_std[metric]
      within = within[np.isfinite(within)]
      # Variances average, standard deviations do not.
      std = math.sqrt((within**2).mean()) if within.size else math.nan
      numbers = [scores.mean, scores.std, *([std] if evaluated_again else [])]
      rows[cell.name].append([format_score(x, decimals) for x in numbers])
  # Features that all scores share are named once.
  features = {metric.partition('@')[2] for metric in metrics}
  shared = len(features) == 1
  return {
    'rows': list(rows.items()),
    'evaluated_again': evaluated_again,
    'names': [m.partition('@')[0] if shared else m for m in metrics],
    'features': features.pop() if shared else '',
  }
