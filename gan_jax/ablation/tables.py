"""The ranking of an ablation as rows of text, as Markdown and as LaTeX."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from gan_jax.ablation.results import Ablation, Ranked
from gan_jax.ablation.statistics import Estimate, Interval

NONE = '–'  # what stands where there is no number


def decimals(spreads: Sequence[float]) -> int | None:
  """Decimals that show the usual spread to two digits; None: not with six."""
  known = [s for s in spreads if math.isfinite(s) and s > 0]
  if not known:
    return 3
  places = 1 - math.floor(math.log10(float(np.median(known))))
  return max(places, 0) if places <= 6 else None


def number(x: float, places: int | None) -> str:
  """A score, with so many decimals."""
  if not math.isfinite(x):
    return NONE
  text = f'{x:.3g}' if places is None else f'{x:.{places}f}'
  return text.lstrip('-') if not float(text) else text


def interval(ends: Interval, places: int | None) -> str:
  """Both ends, as `1.2 to 3.4`."""
  if not math.isfinite(ends.low):
    return NONE
  return f'{number(ends.low, places)} to {number(ends.high, places)}'


def probability(p: float) -> str:
  """A p value."""
  if not math.isfinite(p):
    return NONE
  return '< 0.001' if p < 0.001 else f'{p:.3f}' if p < 0.1 else f'{p:.2f}'


def percent(x: Estimate) -> str:
  """A rate with its interval."""
  if not math.isfinite(x.value):
    return NONE
  low, high = x.interval
  return f'{x.value:.0%} ({low:.0%} to {high:.0%})'


def places_of(ranking: Sequence[Ranked]) -> int | None:
  """Decimals for the scores of a ranking."""
  rows = [row for row in ranking if row.rank is not None] or ranking
  ends = [row.summary.interval for row in rows]
  # Of few seeds the intervals are far wider than what tells two means apart.
  found = (
    decimals([(high - low) / 2 for low, high in ends]),
    decimals([row.summary.std for row in rows]),
  )
  return None if None in found else max(p for p in found if p is not None)


def row_of(row: Ranked, places: int | None) -> dict[str, Any]:
  """The cells of a row of the ranking, as text."""
  cell, known = row.cell, row.summary
  lost = cell.count('diverged')
  apart = row.apart
  return {
    'rank': str(row.rank or NONE),
    'name': cell.name,
    'survivors': lost > 0 and row.rank is not None,
    'mean': number(known.mean, places),
    'interval': interval(known.interval, places),
    'std': number(known.std, places),
    'median': number(known.median, places),
    'scored': str(known.n),
    'runs': str(len(cell.seeds)),
    'diverged': str(lost),
    'failed': str(cell.count('failed')),
    'apart': number(apart.mean, places) if apart else NONE,
    'apart_interval': interval(apart.interval, places) if apart else NONE,
    'pairs': str(apart.n) if apart else NONE,
    'p': probability(row.p),
    'beaten': percent(row.beaten) if row.beaten else NONE,
  }


_COLUMNS = (
  ('', 'rank'),
  ('cell', 'name'),
  ('mean', 'mean'),
  ('95% interval', 'interval'),
  ('SD', 'std'),
  ('median', 'median'),
  ('scored', 'scored'),
  ('diverged', 'diverged'),
  ('above best', 'apart'),
  ('95% interval', 'apart_interval'),
  ('p (Holm)', 'p'),
)


def _head(ablation: Ablation) -> list[str]:
  side = 'above best' if ablation.better == 'lower' else 'below best'
  return [side if key == 'apart' else head for head, key in _COLUMNS]


def _body(ablation: Ablation) -> list[list[str]]:
  """Rows of text; below-best differences are told as positive numbers."""
  places = places_of(ablation.ranking)
  rows = []
  for row in map(lambda r: facing(r, ablation.better), ablation.ranking):
    told = row_of(row, places)
    told['name'] += ' †' if told['survivors'] else ''
    rows.append([told[key] for _, key in _COLUMNS])
  return rows


def facing(row: Ranked, better: str) -> Ranked:
  """The row with its difference so that positive is worse than the best."""
  if better == 'lower' or row.apart is None:
    return row
  apart = row.apart
  turned = Interval(-apart.interval.high, -apart.interval.low)
  return row._replace(apart=apart._replace(mean=-apart.mean, interval=turned))


def _note(ablation: Ablation) -> str:
  note = (
    f'{ablation.primary}, {ablation.better} is better. Intervals: studentised'
    ' bootstrap of the mean over seeds; of the difference, paired by seed,'
    f" Student's. p: paired t test, Holm over {ablation.pairs} pairs."
  )
  if any(row.cell.count('diverged') for row in ablation.ranked):
    note += ' †: some runs diverged; the mean is of the others.'
  return note


def markdown(ablation: Ablation) -> str:
  """The ranking as a Markdown table."""
  head = _head(ablation)
  lines = ['| ' + ' | '.join(head) + ' |']
  numeric = {'name'}
  marks = ['---' if key in numeric else '---:' for _, key in _COLUMNS]
  lines.append('| ' + ' | '.join(marks) + ' |')
  for row in _body(ablation):
    escaped = [text.replace('|', '\\|') for text in row]
    lines.append('| ' + ' | '.join(escaped) + ' |')
  return '\n'.join(lines) + f'\n\n{_note(ablation)}\n'


_SPECIAL = {
  '\\': r'\textbackslash{}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '<': r'$<$',
  '>': r'$>$',
  '†': r'$\dagger$',
  '–': '--',
  '·': r'$\cdot$',
  '\xa0': '~',
  **{mark: '\\' + mark for mark in '&%$#_{}'},
}


def escaped(text: str) -> str:
  """Text for LaTeX.

  >>> print(escaped('lr_d < 5%'))
  lr\\_d $<$ 5\\%
  """
  text = ''.join(_SPECIAL.get(c, c) for c in text)
  return re.sub(r'(?<![\w-])-(?=[\d.])', '$-$', text)


def latex(ablation: Ablation) -> str:
  """The ranking as a LaTeX table, for the booktabs package."""
  kinds = ''.join('l' if key == 'name' else 'r' for _, key in _COLUMNS)
  rows = [' & '.join(map(escaped, row)) + r' \\' for row in _body(ablation)]
  head = ' & '.join(map(escaped, _head(ablation)))
  return '\n'.join(
    [
      r'% \usepackage{booktabs}',
      r'\begin{table}',
      r'\centering',
      rf'\begin{{tabular}}{{{kinds}}}',
      r'\toprule',
      head + r' \\',
      r'\midrule',
      *rows,
      r'\bottomrule',
      r'\end{tabular}',
      rf'\caption{{{escaped(_note(ablation))}}}',
      r'\end{table}',
      '',
    ]
  )
