"""The answer of an ablation in words: what its report and its command say.

One source for both, so that a page and a terminal never disagree.
"""

import math
import textwrap

from gan_jax.ablation.results import ALPHA, Ablation, Ranked
from gan_jax.ablation.tables import (
  facing,
  interval,
  number,
  places_of,
  probability,
  row_of,
)

_ROWS = 24  # of the ranking in a terminal; table.md has all


def _versus(best: Ranked, other: Ranked, ablation: Ablation) -> str:
  """The best against the next, in words."""
  places = places_of(ablation.ranking)
  apart = facing(other, ablation.better).apart
  assert apart is not None  # only the best has none
  if not apart.mean:
    return (
      f', exactly level with the next, {other.cell.name}, on {apart.n} shared'
      ' seeds'
    )
  if not math.isfinite(other.p):
    return (
      f'; the next, {other.cell.name}, shares too few finished seeds with it'
      ' to be compared'
    )
  settled = (
    'a significant difference'
    if other.p < ALPHA
    else 'a difference that may be chance'
  )
  return (
    f', {number(apart.mean, places)} better than the next, {other.cell.name}'
    f' (95% interval {interval(apart.interval, places)} on {apart.n} shared'
    f' seeds): {settled} (p\xa0{_equals(other.p)}{_corrected(ablation)})'
  )


def _corrected(ablation: Ablation) -> str:
  pairs = ablation.pairs
  return f" after Holm's correction for {pairs} pairs" if pairs > 1 else ''


def _equals(p: float) -> str:
  text = probability(p)
  return (text if text.startswith('<') else f'= {text}').replace(' ', '\xa0')


def verdict(ablation: Ablation) -> tuple[str, str]:
  """The answer in one sentence: its head, and the rest of it."""
  lost = ablation.count('diverged')
  tried = lost + ablation.count('done')
  runs = f'{lost or "none"} of {tried:,} runs diverged'
  if not ablation.ranked:
    return 'No cell can be ranked', (
      f': that takes two scored runs, and half of those that ended; {runs}.'
    )
  best, *others = ablation.ranked
  places = places_of(ablation.ranking)
  known = best.summary
  most = 'lowest' if ablation.better == 'lower' else 'highest'
  head = (
    f'{best.cell.name} has the {most} {ablation.primary},'
    f' {number(known.mean, places)}'
  )
  return head, (
    f' (95% interval {interval(known.interval, places)}, {known.n} seeds'
    + (
      f', {best.cell.count("diverged")} more diverged'
      if best.cell.count('diverged')
      else ''
    )
    + ')'
    + (_versus(best, others[0], ablation) if others else '')
    + f'; {runs}.'
  )


def remarks(ablation: Ablation) -> list[str]:
  """What a reader should know before the tables."""
  told = []
  others = ablation.ranked[1:]
  if len(others) > 1:
    beaten = sum(row.p < ALPHA for row in others)
    told.append(
      f'It is significantly better than {beaten or "none"} of the'
      f' {len(others)} other'
      ' ranked cells.'
      + (
        f' The best of {len(others) + 1} is in part the luckiest: on fresh'
        ' seeds its mean will be somewhat worse.'
        if len(others) > 4
        else ''
      )
    )
  return told


def warnings(ablation: Ablation) -> list[str]:
  """What is missing of the whole."""
  told = []
  ended = sum(len(cell.seeds) for cell in ablation.cells)
  if ended < ablation.total:
    told.append(
      f'This ablation has not ended: {ablation.total - ended:,} of'
      f' {ablation.total:,} runs are missing. What follows is how it stood.'
    )
  failed = [cell.name for cell in ablation.cells if cell.count('failed')]
  if failed:
    told.append(
      f'Failed before the end: {ablation.count("failed")} of'
      f' {ended:,} runs, in {"; ".join(failed)}. That says nothing about those'
      ' settings, and is counted nowhere else.'
    )
  return told


def spoken(ablation: Ablation) -> str:
  """The ranking and the verdict, for a terminal."""
  places = places_of(ablation.ranking)
  table = [['', 'cell', ablation.primary, '95% interval', 'diverged', 'failed']]
  keys = ('rank', 'name', 'mean', 'interval', 'diverged', 'failed')
  for row in ablation.ranking[:_ROWS]:
    told = row_of(row, places)
    table.append([told[key] for key in keys])
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  lines = [
    '  '.join(
      text.ljust(width) if key == 'name' else text.rjust(width)
      for key, text, width in zip(keys, row, widths, strict=True)
    ).rstrip()
    for row in table
  ]
  more = len(ablation.ranking) - _ROWS
  if more > 0:
    lines.append(f'and {more} more in table.md')
  head, rest = verdict(ablation)
  said = [f'{head}{rest}', *remarks(ablation), *warnings(ablation)]
  wrapped = [textwrap.fill(text.replace('\xa0', ' '), 80) for text in said]
  return '\n'.join([*lines, '', *wrapped]).replace('\xa0', ' ')
