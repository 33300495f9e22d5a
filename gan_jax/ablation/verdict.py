"""The answer of an ablation in words, for its report and its command.

One source for both, so that a page and a terminal never disagree.
"""

import math
import textwrap
from collections.abc import Sequence

from tabulate import tabulate

from gan_jax.ablation.results import (
  ALPHA,
  AblationResults,
  RankedCell,
  are_level,
)
from gan_jax.ablation.tables import (
  format_interval,
  format_p,
  format_row,
  format_score,
  list_score_remarks,
  oriented,
  ranking_decimals,
)

_NAMED = 4  # cells or scores in a sentence
_ROWS = 24  # of the ranking in a terminal; table.md has all


def _describe_runner_up(second: RankedCell, results: AblationResults) -> str:
  """The best against the next, in words."""
  decimals = ranking_decimals(results.ranking)
  difference = oriented(second, results.better).difference
  assert difference is not None  # only the best has none
  if not difference.mean:
    return (
      f', level with the next, {second.cell.name}, on the {difference.n} seeds'
      ' that they share'
    )
  if not math.isfinite(second.p):
    return (
      f'; the next, {second.cell.name}, shares too few finished seeds with it'
      ' to be compared'
    )
  significance = (
    'a significant difference'
    if second.p < ALPHA
    else 'a difference that may be chance'
  )
  holm = f" after Holm's correction for {results.pairs} pairs"
  return (
    f', {format_score(difference.mean, decimals)} better than the next,'
    f' {second.cell.name}'
    f' (95% interval {format_interval(difference.interval, decimals)} on'
    f' {difference.n} shared seeds): {significance}'
    f' (p\xa0{_equals(second.p)}{holm if results.pairs > 1 else ""})'
  )


def _equals(p: float) -> str:
  text = format_p(p)
  return (text if text.startswith('<') else f'= {text}').replace(' ', '\xa0')


def state_verdict(results: AblationResults) -> tuple[str, str]:
  """The answer in one sentence: its head, and the rest of it."""
  diverged = results.count('diverged')
  total = diverged + results.count('done')
  runs = f'{diverged or "none"} of {total:,} runs diverged'
  if not results.ranked:
    return 'No cell can be ranked', (
      f': that takes two scored runs, and half of those that ended; {runs}.'
    )
  if len(results.level) > 1:
    return _describe_tie(results, runs)
  best, *others = results.ranked
  decimals = ranking_decimals(results.ranking)
  scores, lost = best.summary, best.cell.count('diverged')
  extreme = 'lowest' if results.better == 'lower' else 'highest'
  head = (
    f'{best.cell.name} has the {extreme} {results.primary},'
    f' {format_score(scores.mean, decimals)}'
  )
  return head, (
    f' (95% interval {format_interval(scores.interval, decimals)},'
    f' {scores.n} seeds'
    + (f', {lost} more diverged)' if lost else ')')
    + (_describe_runner_up(others[0], results) if others else '')
    + f'; {runs}.'
  )


def _join(names: Sequence[str]) -> str:
  """Names as a sentence has them, a few of many."""
  shown = [*names[:_NAMED]]
  if len(names) > _NAMED:
    shown.append(f'{len(names) - _NAMED} more')
  return ' and '.join(filter(None, [', '.join(shown[:-1]), shown[-1]]))


def _describe_tie(results: AblationResults, runs: str) -> tuple[str, str]:
  """The answer where several cells have the best mean."""
  level, primary = results.level, results.primary
  extreme = 'lowest' if results.better == 'lower' else 'highest'
  score = format_score(level[0].summary.mean, ranking_decimals(results.ranking))
  count = 'All' if len(level) == len(results.ranked) else f'{len(level)} of the'
  head = (
    f'{count} {len(results.ranked)} ranked cells are level at the {extreme}'
    f' {primary}, {score}'
  )
  others = [
    metric
    for metric in results.plan['metrics']
    if metric != primary and _tells_apart(metric, level)
  ]
  advice = (
    f' Rank by a score that does (`primary`): {_join(others)}.'
    if others
    else ''
  )
  return head, (
    f': {_join([row.cell.name for row in level])}. {primary} does not tell them'
    f' apart.{advice} {runs[0].upper()}{runs[1:]}.'
  )


def _tells_apart(metric: str, rows: Sequence[RankedCell]) -> bool:
  """Whether the cells' means of a score differ."""
  scores = [row.cell.finite_scores(metric) for row in rows]
  if not all(x.size for x in scores):
    return False
  means = [float(x.mean()) for x in scores]
  return not all(are_level(means[0], mean) for mean in means)


def list_remarks(results: AblationResults) -> list[str]:
  """What a reader should know before the tables."""
  return _weigh_the_best(results) + list_score_remarks(results)


def _weigh_the_best(results: AblationResults) -> list[str]:
  others = results.ranked[1:]
  if len(others) < 2 or len(results.level) > 1:
    return []
  beaten = sum(row.p < ALPHA for row in others)
  remark = (
    f'It is significantly better than {beaten or "none"} of the'
    f' {len(others)} other ranked cells.'
  )
  if len(others) > 4:
    remark += (
      f' The best of {len(others) + 1} is in part the luckiest: on fresh seeds'
      ' its mean will be somewhat worse.'
    )
  return [remark]


def list_warnings(results: AblationResults) -> list[str]:
  """What is missing of the whole."""
  warnings = []
  ended = sum(len(cell.seeds) for cell in results.cells)
  if ended < results.total:
    warnings.append(
      f'This ablation has not ended: {results.total - ended:,} of'
      f' {results.total:,} runs are missing. What follows is how it stood.'
    )
  failed = [cell.name for cell in results.cells if cell.count('failed')]
  if failed:
    warnings.append(
      f'Failed before the end: {results.count("failed")} of'
      f' {ended:,} runs, in {"; ".join(failed)}. That says nothing about those'
      ' settings, and is counted nowhere else.'
    )
  return warnings


def format_for_terminal(results: AblationResults) -> str:
  """The ranking and the verdict, in lines of 80 characters."""
  decimals = ranking_decimals(results.ranking)
  headers = ['', 'cell', results.primary, '95% interval', 'diverged', 'failed']
  keys = ('rank', 'name', 'mean', 'interval', 'diverged', 'failed')
  rows = [format_row(row, decimals) for row in results.ranking[:_ROWS]]
  table = tabulate(
    [[row[key] for key in keys] for row in rows],
    headers,
    'plain',
    disable_numparse=True,
    colalign=['left' if key == 'name' else 'right' for key in keys],
  )
  if (more := len(results.ranking) - _ROWS) > 0:
    table += f'\nand {more} more in table.md'
  sentences = [''.join(state_verdict(results))]
  sentences += list_remarks(results) + list_warnings(results)
  wrapped = [textwrap.fill(s.replace('\xa0', ' '), 80) for s in sentences]
  return '\n'.join([table, '', *wrapped]).replace('\xa0', ' ')
