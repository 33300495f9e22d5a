"""The report of an ablation: one self-contained HTML file, and two tables.

Drawn from the files of the folder alone, whether all runs have ended or not:
`report.html`, `table.md` and `table.tex`.
"""

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gan_jax.ablation import curves, statistics, tables, verdict
from gan_jax.ablation.grid import text_of
from gan_jax.ablation.results import (
  Ablation,
  Ranked,
  read,
)
from gan_jax.ablation.tables import interval, number
from gan_jax.config.schema import ConfigError
from gan_jax.runtime.files import write_atomic

_PICTURES = 36  # cells whose samples are shown


def _pictures(
  ablation: Ablation, members: Mapping[tuple[int, int], curves.Member]
) -> Iterator[dict[str, Any]]:
  """Samples of the median run of each cell, in the order of the ranking."""
  from gan_jax.figures.page import data_uri

  places = tables.places_of(ablation.ranking)
  for row in ablation.ranking[:_PICTURES]:
    cell, scores = row.cell, row.cell.scores[ablation.primary]
    scored = np.flatnonzero(np.isfinite(scores))
    if not scored.size:
      continue
    run = scored[statistics.median_run(scores[scored], ablation.better)]
    member = members.get((cell.index, cell.seeds[run]))
    if member is None:
      continue
    path = member.program / 'samples' / f'member_{member.place:04d}.png'
    if path.is_file():
      yield {
        'name': cell.name,
        'rank': row.rank,
        'seed': cell.seeds[run],
        'score': number(float(scores[run]), places),
        'uri': data_uri(path.read_bytes(), 'png'),
      }


def _heat(ablation: Ablation) -> dict[str, Any] | None:
  """Means of a full grid of two flags, shaded towards the best."""
  from gan_jax.ablation.figures import wide

  vary = ablation.vary
  if len(vary) != 2 or min(len(v) for v in vary.values()) < 2:
    return None
  down, across = vary
  found = {
    (row.cell.values[down], row.cell.values[across]): row
    for row in ablation.ranking
  }
  rows = list(dict.fromkeys(key for key, _ in found))
  columns = list(dict.fromkeys(c.values[across] for c in ablation.cells))
  if len(found) != len(rows) * len(columns):
    return None  # a search, not a grid
  means = np.array([row.summary.mean for row in ablation.ranked])
  if not means.size:
    return None
  log = wide(means, 3.0)
  scale = np.log if log else np.asarray
  ends = scale(np.array([means.min(), means.max()]))
  places = tables.places_of(ablation.ranking)

  def told(row: Ranked) -> dict[str, Any]:
    at = 0.0
    if row.rank is not None and ends[1] > ends[0]:
      at = float((scale(row.summary.mean) - ends[0]) / (ends[1] - ends[0]))
      at = 1 - at if ablation.better == 'lower' else at
    return {
      'mean': number(row.summary.mean, places),
      'std': number(row.summary.std, places),
      'diverged': row.cell.count('diverged'),
      'failed': row.cell.count('failed'),
      'shade': f'{0.5 * at:.2f}',
      'best': row.rank == 1,
    }

  return {
    'down': down,
    'across': across,
    'log': log,
    'columns': [text_of(c) for c in columns],
    'rows': [(text_of(r), [told(found[r, c]) for c in columns]) for r in rows],
  }


def _divergence(ablation: Ablation) -> list[dict[str, Any]]:
  """Cells with a run that came to no good end, the worst first."""
  rows = []
  for row in ablation.ranking:
    cell = row.cell
    lost = [
      step
      for step, outcome in zip(cell.steps, cell.outcomes, strict=True)
      if outcome == 'diverged' and step is not None
    ]
    blank = cell.count('done') - row.summary.n
    if cell.count('diverged') or cell.count('failed') or blank:
      rows.append(
        {
          'name': cell.name,
          'runs': len(cell.seeds),
          'diverged': cell.count('diverged'),
          'rate': tables.percent(row.diverged),
          'steps': ' to '.join(
            f'{s:,}' for s in dict.fromkeys((min(lost), max(lost)))
          )
          if lost
          else '–',
          'failed': cell.count('failed'),
          'blank': blank,
        }
      )
  return sorted(rows, key=lambda r: -(r['diverged'] + r['failed']))


def _published(ablation: Ablation) -> dict[str, Any] | None:
  """Published values beside the best cell that each speaks of."""
  told = ablation.plan.get('published')
  if not told:
    return None
  places = tables.places_of(ablation.ranking)
  rows, both = [], []
  for label, (mean, std) in told['rows'].items():
    ours = next(
      (
        row
        for row in ablation.ranked
        if label in (row.cell.label, row.cell.name)
        or label in map(text_of, row.cell.values.values())
      ),
      None,
    )
    if ours is not None:
      both.append((mean, ours.summary.mean))
    known = ours.summary if ours else None
    rows.append(
      {
        'label': label.replace('_', '-'),
        'published': f'{mean:g}' + (f' ± {std:g}' if std is not None else ''),
        'cell': ours.cell.name if ours else 'not run',
        'ours': number(known.mean, places) if known else '–',
        'std': number(known.std, places) if known else '–',
        'interval': interval(known.interval, places) if known else '–',
        'n': known.n if known else '–',
      }
    )
  pairs = [(a, b) for i, a in enumerate(both) for b in both[:i]]
  agreed = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs)
  return {
    'source': told['source'],
    'rows': rows,
    'agreed': agreed,
    'pairs': len(pairs),
  }


def _spreads(ablation: Ablation) -> dict[str, Any]:
  """By cell: each metric's mean and two spreads, which are kept apart."""
  told: dict[str, list[Sequence[str]]] = {
    row.cell.name: [] for row in ablation.ranking
  }
  metrics = ablation.plan['metrics']
  again = any(
    np.isfinite(row.cell.evaluation[metric]).any()
    for row in ablation.ranking
    for metric in metrics
  )
  for metric in metrics:
    known = [
      (row, statistics.summary(row.cell.finite(metric)))
      for row in ablation.ranking
    ]
    places = tables.decimals([s.std for _, s in known])
    for row, found in known:
      within = row.cell.evaluation[metric]
      within = within[np.isfinite(within)]
      # Variances average, deviations do not.
      deviation = math.sqrt((within**2).mean()) if within.size else math.nan
      numbers = (found.mean, found.std, deviation)[: 3 if again else 2]
      told[row.cell.name].append([number(x, places) for x in numbers])
  # What all scores were seen through is told once.
  seen = {metric.partition('@')[2] for metric in metrics}
  once = len(seen) == 1
  return {
    'rows': list(told.items()),
    'again': again,
    'names': [m.partition('@')[0] if once else m for m in metrics],
    'seen': seen.pop() if once else '',
  }


def _flat(
  told: Mapping[str, Any], prefix: str = ''
) -> Iterator[tuple[str, str]]:
  """Nested facts as rows."""
  for name, value in told.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f'{prefix}{name}.')
    elif isinstance(value, list | tuple):
      yield prefix + name, ', '.join(map(text_of, value))
    else:
      yield prefix + name, text_of(value)


def _title(ablation: Ablation) -> str:
  base = ablation.plan.get('base', {})
  varied = ' × '.join(ablation.vary)
  place = f' on {base["dataset"]}' if 'dataset' in base else ''
  return f'{varied or "Ablation"}{place}'


def render(ablation: Ablation, folder: pathlib.Path) -> str:
  """The report as HTML."""
  from gan_jax.ablation import figures
  from gan_jax.figures import page

  members = curves.members(folder)
  places = tables.places_of(ablation.ranking)
  facing = [tables.facing(row, ablation.better) for row in ablation.ranking]
  plan = ablation.plan
  return page.template('ablation.html.j2').render(
    title=_title(ablation),
    verdict=verdict.verdict(ablation),
    remarks=verdict.remarks(ablation),
    warnings=verdict.warnings(ablation),
    plan=plan,
    pairs=ablation.pairs,
    rows=[tables.row_of(row, places) for row in facing],
    unranked=len(ablation.ranking) - len(ablation.ranked),
    strips=figures.strips(ablation.ranking, ablation.primary),
    heat=_heat(ablation),
    curves=curves.curves(ablation, curves.Stats(members, folder)),
    pictures=list(_pictures(ablation, members)),
    divergence=_divergence(ablation),
    whole=rate_of_all(ablation),
    published=_published(ablation),
    spreads=_spreads(ablation),
    vary=list(_flat(plan['vary'])),
    base=list(_flat(plan.get('base', {}))),
    protocol=list(_flat(plan.get('protocol') or {})),
    environment=[
      (name, value)
      for name, value in _flat(plan.get('environment') or {})
      if name != 'command'
    ],
    folder=folder,
  )


def rate_of_all(ablation: Ablation) -> str:
  """How often a run diverged, over all cells."""
  lost = ablation.count('diverged')
  return tables.percent(statistics.rate(lost, lost + ablation.count('done')))


def write_ablation_report(folder: str | pathlib.Path) -> pathlib.Path:
  """Writes `report.html`, `table.md` and `table.tex`; returns the first's path.

  Raises:
    ConfigError: if there is no ablation in the folder, or nothing can be
      written there.
  """
  folder = pathlib.Path(folder)
  ablation = read(folder)
  written = {
    'table.md': tables.markdown(ablation),
    'table.tex': tables.latex(ablation),
    'report.html': render(ablation, folder),
  }
  for name, content in written.items():
    try:
      write_atomic(folder / name, content)
    except OSError as error:
      raise ConfigError(
        f'--workdir={folder}: cannot write {name} there'
        f' ({error.strerror or error}); copy the folder to a place that you may'
        ' write to and that has room'
      ) from error
  return folder / 'report.html'
