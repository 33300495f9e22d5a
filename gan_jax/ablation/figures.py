"""Figures of an ablation, as data URIs for its report.

Drawn narrow, with labels above what they name and a picture a panel, so that
they can be read on a phone; the page arranges them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import (
  EngFormatter,
  FuncFormatter,
  LogLocator,
  MaxNLocator,
  NullFormatter,
)
from numpy.typing import NDArray

from gan_jax.ablation.results import Ranked
from gan_jax.figures.page import FAKE, LINE, STYLE, uri

Floats = NDArray[np.float64]

WARN = '#b3541e'
# Okabe and Ito's colours, told apart by the colour-blind, darker first.
COLOURS = (
  '#0072B2',
  '#D55E00',
  '#009E73',
  '#CC79A7',
  '#56B4E9',
  '#E69F00',
  '#333333',
)
_WIDE = 30.0  # largest over smallest score from which the axis is logarithmic
_ROWS = 20  # in one picture: as many as a printed page holds
_CHARACTERS = 56  # in a line of it; more are written smaller


def wide(values: Floats, ratio: float = _WIDE) -> bool:
  """Whether positive numbers differ so much that a log scale is needed."""
  known = values[np.isfinite(values)]
  if not known.size or known.min() <= 0:
    return False
  return bool(known.max() / known.min() > ratio)


def _jitter(count: int) -> Floats:
  """Heights that keep neighbouring points apart: the same for the same runs."""
  golden = 0.6180339887
  turns = np.arange(count, dtype=np.float64) * golden
  heights: Floats = 0.2 * (turns % 1 - 0.5)
  return heights


def _ticks(axis: Any, log: bool) -> None:
  if log:
    low, high = sorted(axis.get_view_interval())
    # Fewer than two whole decades in sight say nothing of the scale.
    few = np.floor(np.log10(high)) - np.ceil(np.log10(low)) < 1
    subs = (1.0, 2.0, 5.0) if few else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:g}'))
    axis.set_minor_formatter(NullFormatter())
  else:
    axis.set_major_locator(MaxNLocator(5))


def _limits(values: Floats, log: bool) -> tuple[float, float]:
  low, high = float(values.min()), float(values.max())
  if log:
    return low / (high / low) ** 0.04, high * (high / low) ** 0.04
  pad = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
  return low - pad, high + pad


def strips(ranking: Sequence[Ranked], metric: str) -> list[str]:
  """Every seed's score, a row a cell, with the mean and its interval."""
  shown = [row for row in ranking if row.summary.n]
  if not shown:
    return []
  scores = np.concatenate([row.cell.finite(metric) for row in shown])
  log = wide(scores)
  limits = _limits(scores, log)
  return [
    _strip(shown[i : i + _ROWS], metric, shown[0], limits, log)
    for i in range(0, len(shown), _ROWS)
  ]


def _strip(
  rows: Sequence[Ranked],
  metric: str,
  best: Ranked,
  limits: tuple[float, float],
  log: bool,
) -> str:
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(4.6, 0.4 * len(rows) + 0.6))
    axes.set(xscale='log' if log else 'linear', xlim=limits)
    axes.set_ylim(-len(rows) + 0.35, 0.55)
    axes.axvline(best.summary.mean, color=LINE, linestyle=':', linewidth=0.8)
    longest = max(len(''.join(_words(row))) for row in rows)
    size = 8 * min(1, _CHARACTERS / longest)
    for i, row in enumerate(rows):
      _strip_row(axes, -i, row, metric, size)
    axes.set_yticks([])
    axes.spines['left'].set_visible(False)
    _ticks(axes.xaxis, log)
    axes.tick_params(top=len(rows) > 8, labeltop=len(rows) > 8)
    axes.set_xlabel(metric)
    return uri(figure, 'svg')


def _words(row: Ranked) -> tuple[str, str]:
  """What stands on the left and on the right of a row."""
  told = [
    f'{row.cell.count(outcome)} {outcome}'
    for outcome in ('diverged', 'failed')
    if row.cell.count(outcome)
  ]
  return f'{row.rank or "–"}  {row.cell.name}', ', '.join(told)


def _strip_row(
  axes: Any, y: float, row: Ranked, metric: str, size: float
) -> None:
  """Label above; points below it; interval and mean below those."""
  across = axes.get_yaxis_transform()
  label, told = _words(row)
  # The dotted line of the best stops behind words.
  words = {
    'transform': across,
    'fontsize': size,
    'va': 'center',
    'bbox': {'facecolor': 'white', 'edgecolor': 'none', 'pad': 1},
  }
  axes.text(0, y + 0.31, label, **words)
  if told:
    axes.text(1, y + 0.31, told, ha='right', color=WARN, **words)
  scores = np.sort(row.cell.finite(metric))
  axes.scatter(
    scores, y - 0.06 + _jitter(len(scores)), s=12, color=FAKE, alpha=0.6,
    linewidths=0, clip_on=False, zorder=3,
  )  # fmt: skip
  low, high = row.summary.interval
  ink = {'color': '#111111', 'zorder': 4}
  if np.isfinite(low):
    left, right = axes.get_xlim()
    ends = [max(low, left), min(high, right)]
    axes.plot(ends, [y - 0.27] * 2, linewidth=1.3, **ink)
    # Of few seeds it is so wide that it would squeeze the points.
    for cut, x, mark in ((low < left, left, '<'), (high > right, right, '>')):
      if cut:
        axes.plot(x, y - 0.27, marker=mark, markersize=4, clip_on=False, **ink)
  axes.plot(row.summary.mean, y - 0.27, marker='d', markersize=4.5, **ink)
  axes.axhline(y - 0.42, color='#dddddd', linewidth=0.5)


Lines = Sequence[tuple[str, NDArray[Any], Floats]]  # colour, steps, (t, runs)


def bands(values: Floats) -> tuple[Floats, Floats, Floats]:
  """Quartiles over the runs (t, runs) that have a number at a moment."""
  found = np.full((3, len(values)), np.nan)
  some = np.isfinite(values).any(1)
  clean = np.where(np.isfinite(values[some]), values[some], np.nan)
  found[:, some] = np.nanquantile(clean, [0.25, 0.5, 0.75], axis=1)
  return found[0], found[1], found[2]


def panels(
  name: str,
  groups: Mapping[str, Lines],
  level: float | None = None,
  floor: float | None = None,
) -> list[tuple[str, str]]:
  """Learning curves of a logged number: (title, data URI) of each panel.

  Args:
    name: of the number.
    groups: the lines of each panel.
    level: marked in each.
    floor: the least that the axis shows.
  """
  drawn = {
    title: [(colour, steps, bands(values)) for colour, steps, values in lines]
    for title, lines in groups.items()
    if any(np.isfinite(values).any() for _, _, values in lines)
  }
  every = [
    np.concatenate(band) for lines in drawn.values() for _, _, band in lines
  ]
  known = np.concatenate(every) if every else np.array([])
  known = known[np.isfinite(known)]
  if not known.size:
    return []
  log = 'norm' in name and wide(known)
  # What goes wild for a moment is cut, for the rest to be seen.
  low = np.quantile(known, 0.005, method='lower')
  high = np.quantile(known, 0.995, method='higher')
  kept = known[(known >= 2 * low - high) & (known <= 2 * high - low)]
  kept = kept if floor is None else np.maximum(kept, floor)
  limits = _limits(np.append(kept, level) if level is not None else kept, log)
  last = max(
    int(steps[-1])
    for lines in drawn.values()
    for _, steps, _ in lines
    if len(steps)
  )
  found = []
  for title, lines in drawn.items():
    with plt.rc_context(STYLE):
      figure, axes = plt.subplots(figsize=(2.4, 1.6))
      axes.set(yscale='log' if log else 'linear', ylim=limits)
      axes.set_xlim(0, 1.03 * last)
      if level is not None:
        axes.axhline(level, color=LINE, linestyle='--', linewidth=0.8)
      for colour, steps, (first, middle, third) in lines:
        axes.fill_between(
          steps, first, third, color=colour, alpha=0.2, linewidth=0
        )
        alone = np.isfinite(middle).sum() == 1
        axes.plot(steps, middle, color=colour, marker='o' if alone else '')
      axes.xaxis.set_major_locator(MaxNLocator(3))
      axes.xaxis.set_major_formatter(EngFormatter(sep=''))
      found.append((title, uri(figure, 'svg')))
  return found


def colours(values: Sequence[Any]) -> list[str]:
  """A colour for each setting: shades of numbers, hues of words."""
  numbers = all(
    isinstance(v, int | float) and not isinstance(v, bool) for v in values
  )
  if not numbers and len(values) <= len(COLOURS):
    return list(COLOURS[: len(values)])
  shades = plt.get_cmap('viridis')(np.linspace(0.0, 0.78, len(values)))
  return [
    '#' + ''.join(f'{round(255 * c):02x}' for c in shade[:3])
    for shade in shades
  ]
