"""Matplotlib figures of an ablation, as data URIs for its report.

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

from gan_jax.ablation.results import RankedCell
from gan_jax.ablation.tables import format_rank
from gan_jax.figures.page import FAKE, LINE, STYLE, plain, uri

Floats = NDArray[np.float64]

WARN = '#b3541e'
# Okabe and Ito's colours, which the colour-blind can tell apart, darker first.
COLOURS = (
  '#0072B2',
  '#D55E00',
  '#009E73',
  '#CC79A7',
  '#56B4E9',
  '#E69F00',
  '#333333',
)
_ROWS = 20  # in one picture: as many as a printed page holds
_CHARACTERS = 56  # in a line of it; more are written smaller


def needs_log_scale(values: Floats, ratio: float = 30.0) -> bool:
  """Whether all are positive and the largest over the smallest exceeds this."""
  finite = values[np.isfinite(values)]
  if not finite.size or finite.min() <= 0:
    return False
  return bool(finite.max() / finite.min() > ratio)


def _jitter(count: int) -> Floats:
  """Heights that keep neighbouring points apart: the same for the same runs."""
  golden = 0.6180339887
  heights = 0.2 * (np.arange(count) * golden % 1 - 0.5)
  return heights.astype(np.float64)


def _set_ticks(axis: Any, log: bool) -> None:
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


def _axis_limits(values: Floats, log: bool) -> tuple[float, float]:
  low, high = float(values.min()), float(values.max())
  if log:
    return low / (high / low) ** 0.04, high * (high / low) ** 0.04
  pad = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
  return low - pad, high + pad


def draw_strips(ranking: Sequence[RankedCell], metric: str) -> list[str]:
  """Every seed's score, a row a cell, with the mean and its interval."""
  rows = [row for row in ranking if row.summary.n]
  if not rows:
    return []
  scores = np.concatenate([row.cell.finite_scores(metric) for row in rows])
  log = needs_log_scale(scores)
  limits = _axis_limits(scores, log)
  return [
    _draw_strip(rows[i : i + _ROWS], metric, rows[0], limits, log)
    for i in range(0, len(rows), _ROWS)
  ]


def _draw_strip(
  rows: Sequence[RankedCell],
  metric: str,
  best: RankedCell,
  limits: tuple[float, float],
  log: bool,
) -> str:
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(4.6, 0.4 * len(rows) + 0.6))
    axes.set(xscale='log' if log else 'linear', xlim=limits)
    axes.set_ylim(-len(rows) + 0.35, 0.55)
    axes.axvline(best.summary.mean, color=LINE, linestyle=':', linewidth=0.8)
    longest = max(len(''.join(_labels(row))) for row in rows)
    size = 8 * min(1, _CHARACTERS / longest)
    for i, row in enumerate(rows):
      _draw_row(axes, -i, row, metric, size)
    axes.set_yticks([])
    axes.spines['left'].set_visible(False)
    _set_ticks(axes.xaxis, log)
    axes.tick_params(top=len(rows) > 8, labeltop=len(rows) > 8)
    axes.set_xlabel(plain(metric))
    return uri(figure, 'svg')


def _labels(row: RankedCell) -> tuple[str, str]:
  """Texts on the left and on the right of a row."""
  counts = [
    f'{row.cell.count(outcome)} {outcome}'
    for outcome in ('diverged', 'failed')
    if row.cell.count(outcome)
  ]
  return f'{format_rank(row)}  {row.cell.name}', ', '.join(counts)


def _draw_row(
  axes: Any, y: float, row: RankedCell, metric: str, size: float
) -> None:
  """Label above; points below it; interval and mean below those."""
  across = axes.get_yaxis_transform()
  label, counts = _labels(row)
  # The dotted line of the best stops behind words.
  style = {
    'transform': across,
    'fontsize': size,
    'va': 'center',
    'bbox': {'facecolor': 'white', 'edgecolor': 'none', 'pad': 1},
  }
  axes.text(0, y + 0.31, plain(label), **style)
  if counts:
    axes.text(1, y + 0.31, counts, ha='right', color=WARN, **style)
  scores = np.sort(row.cell.finite_scores(metric))
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


def quartiles(values: Floats) -> tuple[Floats, Floats, Floats]:
  """Quartiles over the runs (t, runs) that have a finite value at a step."""
  quantiles = np.full((3, len(values)), np.nan)
  some = np.isfinite(values).any(1)
  finite = np.where(np.isfinite(values[some]), values[some], np.nan)
  quantiles[:, some] = np.nanquantile(finite, [0.25, 0.5, 0.75], axis=1)
  return quantiles[0], quantiles[1], quantiles[2]


def draw_panels(
  name: str,
  groups: Mapping[str, Lines],
  level: float | None = None,
  floor: float | None = None,
) -> list[tuple[str, str]]:
  """Learning curves of a score or logged value: (title, data URI) a panel.

  Args:
    name: of the value.
    groups: the lines of each panel.
    level: marked in each.
    floor: the least that the axis shows.
  """
  panels = {
    title: [(colour, steps, quartiles(x)) for colour, steps, x in lines]
    for title, lines in groups.items()
    if any(np.isfinite(values).any() for _, _, values in lines)
  }
  bands = [
    np.concatenate(band) for lines in panels.values() for _, _, band in lines
  ]
  values = np.concatenate(bands) if bands else np.array([])
  values = values[np.isfinite(values)]
  if not values.size:
    return []
  log = 'norm' in name and needs_log_scale(values)
  values = _without_outliers(values)
  values = values if floor is None else np.maximum(values, floor)
  if level is not None:
    values = np.append(values, level)
  last = max(
    int(steps[-1])
    for lines in panels.values()
    for _, steps, _ in lines
    if len(steps)
  )
  limits = _axis_limits(values, log)
  return [
    (title, _draw_panel(lines, last, limits, log, level))
    for title, lines in panels.items()
  ]


def _without_outliers(values: Floats) -> Floats:
  """The values without wild ones, for the rest to be seen."""
  low = np.quantile(values, 0.005, method='lower')
  high = np.quantile(values, 0.995, method='higher')
  return values[(values >= 2 * low - high) & (values <= 2 * high - low)]


def _draw_panel(
  lines: Sequence[tuple[str, NDArray[Any], tuple[Floats, Floats, Floats]]],
  last: int,
  limits: tuple[float, float],
  log: bool,
  level: float | None,
) -> str:
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(2.4, 1.6))
    axes.set(yscale='log' if log else 'linear', ylim=limits)
    axes.set_xlim(0, 1.03 * last)
    if level is not None:
      axes.axhline(level, color=LINE, linestyle='--', linewidth=0.8)
    for colour, steps, (low, middle, high) in lines:
      axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
      alone = np.isfinite(middle).sum() == 1
      axes.plot(steps, middle, color=colour, marker='o' if alone else '')
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(EngFormatter(sep=''))
    return uri(figure, 'svg')


def choose_colours(values: Sequence[Any]) -> list[str]:
  """A colour for each setting: shades for numbers, hues for words."""
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
