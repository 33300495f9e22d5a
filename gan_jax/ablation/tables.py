"""The ranking of an ablation as text: cells of a row, Markdown and LaTeX."""

import html
import math
import re
from collections.abc import Sequence

import numpy as np
import tabulate as tabulate_module
from tabulate import tabulate

from gan_jax.ablation.results import AblationResults, RankedCell
from gan_jax.ablation.statistics import Estimate, Interval

NONE = '–'  # what stands where there is no number


def choose_decimals(spreads: Sequence[float]) -> int | None:
  """Decimals that show the usual spread to two digits; None: not with six."""
  finite = [s for s in spreads if math.isfinite(s) and s > 0]
  if not finite:
    return 3
  decimals = 1 - math.floor(math.log10(float(np.median(finite))))
  return max(decimals, 0) if decimals <= 6 else None


def ranking_decimals(ranking: Sequence[RankedCell]) -> int | None:
  """Decimals for the scores of a ranking."""
  rows = [row for row in ranking if row.rank is not None] or ranking
  ends = [row.summary.interval for row in rows]
  # Of few seeds the intervals are far wider than what tells two means apart.
  decimals = (
    choose_decimals([(high - low) / 2 for low, high in ends]),
    choose_decimals([row.summary.std for row in rows]),
  )
  return None if None in decimals else max(d for d in decimals if d is not None)


def format_score(x: float, decimals: int | None) -> str:
  """A score, with so many decimals."""
  if not math.isfinite(x):
    return NONE
  text = f'{x:.3g}' if decimals is None else f'{x:.{decimals}f}'
  return text.lstrip('-') if not float(text) else text


def format_interval(ends: Interval, decimals: int | None) -> str:
  """Both ends of an interval, as `1.2 to 3.4`."""
  if not math.isfinite(ends.low):
    return NONE
  return ' to '.join(format_score(x, decimals) for x in ends)


def format_p(p: float) -> str:
  """A p value."""
  if not math.isfinite(p):
    return NONE
  return '< 0.001' if p < 0.001 else f'{p:.3f}' if p < 0.1 else f'{p:.2f}'


def format_rate(rate: Estimate) -> str:
  """A proportion with its interval, in percent."""
  if not math.isfinite(rate.value):
    return NONE
  low, high = rate.interval
  return f'{rate.value:.0%} ({low:.0%} to {high:.0%})'


def format_rank(row: RankedCell) -> str:
  """A rank, with a sign where others have it too."""
  if row.rank is None:
    return NONE
  return f'{row.rank}=' if row.tied else str(row.rank)


def format_row(row: RankedCell, decimals: int | None) -> dict[str, str]:
  """A row of the ranking as text, by column."""
  cell, scores, difference = row.cell, row.summary, row.difference
  diverged = cell.count('diverged')
  return {
    'rank': format_rank(row),
    'name': cell.name,
    # The mean is that of the runs which did not diverge.
    'survivors': '†' if diverged and row.rank is not None else '',
    'mean': format_score(scores.mean, decimals),
    'interval': format_interval(scores.interval, decimals),
    'std': format_score(scores.std, decimals),
    'median': format_score(scores.median, decimals),
    'scored': str(scores.n),
    'runs': str(len(cell.seeds)),
    'diverged': str(diverged),
    'failed': str(cell.count('failed')),
    'difference': format_score(difference.mean, decimals)
    if difference
    else NONE,
    'difference_interval': format_interval(difference.interval, decimals)
    if difference
    else NONE,
    'pairs': str(difference.n) if difference else NONE,
    'p': format_p(row.p),
    'beaten': format_rate(row.beaten) if row.beaten else NONE,
  }


def oriented(row: RankedCell, better: str) -> RankedCell:
  """The row with its difference such that positive is worse than the best."""
  difference = row.difference
  if better == 'lower' or difference is None:
    return row
  low, high = difference.interval
  turned = difference._replace(
    mean=-difference.mean, interval=Interval(-high, -low)
  )
  return row._replace(difference=turned)


_COLUMNS = {
  'rank': '',
  'name': 'cell',
  'mean': 'mean',
  'interval': '95% interval',
  'std': 'SD',
  'median': 'median',
  'scored': 'scored',
  'diverged': 'diverged',
  'difference': 'above best',
  'difference_interval': '95% interval',
  'p': 'p (Holm)',
}


def _format_table(results: AblationResults, table_format: str) -> str:
  decimals = ranking_decimals(results.ranking)
  rows = []
  for row in results.ranking:
    texts = format_row(oriented(row, results.better), decimals)
    texts['name'] = f'{texts["name"]} {texts["survivors"]}'.rstrip()
    if table_format == 'pipe':  # which tabulate does not escape
      texts['name'] = escape_markdown(texts['name'])
    rows.append([texts[key] for key in _COLUMNS])
  headers = dict(_COLUMNS)
  if results.better == 'higher':
    headers['difference'] = 'below best'
  return tabulate(
    rows,
    list(headers.values()),
    table_format,
    disable_numparse=True,
    colalign=['left' if key == 'name' else 'right' for key in _COLUMNS],
  )


def list_score_remarks(results: AblationResults) -> list[str]:
  """What metrics say of their scores, as runs are told it; a line a score."""
  from gan_jax.metrics import METRICS

  lines = []
  for metric in METRICS.values():
    if metric.remark is None:
      continue
    stem, *_ = names = [*metric.scores]
    for column in results.cells[0].scores:
      name, sign, features = column.partition('@')
      columns = [name + sign + features for name in names]
      if name != stem or any(c not in results.cells[0].scores for c in columns):
        continue
      rows = [
        dict(zip(names, row, strict=True))
        for cell in results.cells
        for row in zip(*(cell.scores[c] for c in columns), strict=True)
        if all(map(math.isfinite, row))
      ]
      said = [text for row in rows if (text := metric.remark(row))]
      if said:
        lines.append(
          f'{column}: a remark on {len(said)} of {len(rows)} runs, of the first'
          f' that {said[0]}.'
        )
  return lines


def _note(results: AblationResults) -> str:
  note = (
    f'{results.primary}, {results.better} is better. Intervals: studentised'
    ' bootstrap of the mean over seeds; of the difference, paired by seed,'
    f" Student's. p: paired t test, Holm over {results.pairs} pairs."
  )
  if any(row.cell.count('diverged') for row in results.ranked):
    note += ' †: some runs diverged; the mean is of the others.'
  return ' '.join([note, *list_score_remarks(results)])


def escape_markdown(text: str) -> str:
  """A name as a cell of a Markdown table shows it, without markup or HTML.

  >>> print(escape_markdown('<b>|$x$, lr_g 2'))
  &lt;b&gt;\\|\\$x\\$, lr_g 2
  """
  text = re.sub(r'[\\`*\[\]$~|]|(?<!\w)_|_(?!\w)', r'\\\g<0>', text)
  return html.escape(text, quote=False)


def format_markdown(results: AblationResults) -> str:
  """The ranking as a Markdown table."""
  table, note = _format_table(results, 'pipe'), _note(results)
  primary = escape_markdown(results.primary)
  return f'{table}\n\n{note.replace(results.primary, primary, 1)}\n'


def escape_latex(text: str) -> str:
  """A text as LaTeX prints it."""
  return ''.join(tabulate_module.LATEX_ESCAPE_RULES.get(c, c) for c in text)


_SYMBOLS = {'†': r'$\dagger$', '–': '--', '·': r'$\cdot$', '\xa0': '~'}


def format_latex(results: AblationResults) -> str:
  """The ranking as a LaTeX table, for the booktabs package."""
  table = _format_table(results, 'latex_booktabs')
  note = escape_latex(_note(results))
  text = (
    '% \\usepackage{booktabs}\n\\begin{table}\n\\centering\n'
    f'{table}\n\\caption{{{note}}}\n\\end{{table}}\n'
  )
  for symbol, command in _SYMBOLS.items():
    text = text.replace(symbol, command)
  return re.sub(r'(?<![\w-])-(?=[\d.])', '$-$', text)
