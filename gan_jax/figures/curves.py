"""Curves of a run over its steps, as data URIs for the report.

Each function takes rows of a log, knows nothing of files, and returns a list of
(title, caption, data URI).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FixedLocator
from numpy.typing import NDArray

from gan_jax.figures.columns import Columns, columns_of
from gan_jax.figures.page import FAKE, LINE, REAL, STYLE, D, plain, uri

Row = Mapping[str, Any]


def smoothed(values: Sequence[float], width: int) -> NDArray[np.float64]:
  """Running mean over `width` values, over fewer at the ends."""
  ones = np.ones(width)
  total = np.convolve(values, ones, 'same')
  count = np.convolve(np.ones(len(values)), ones, 'same')
  mean: NDArray[np.float64] = total / count
  return mean


# Beyond this many points a curve is drawn smoothed, over its own pale trace.
MANY = 400


def _curve(axes: Axes, rows: Columns, name: str, **style: Any) -> None:
  steps, values = rows.series(name)
  if rows.values(name) > MANY:
    axes.plot(steps, values, alpha=0.2, linewidth=0.5, color=style['color'])
    steps, values = rows.means(name)
    values = list(smoothed(values, len(values) // 100))
  marker = 'o' if len(values) == 1 else None
  axes.plot(steps, values, marker=marker, markersize=3, **style)


def _equilibrium_text(height: float) -> str:
  """A loss at the equilibrium as the papers write it."""
  for name, value in (('log 4', math.log(4)), ('log 2', math.log(2))):
    if math.isclose(abs(height), value, rel_tol=1e-6):
      return name if height > 0 else f'-{name}'
  return f'{height:.3g}'


def _mark_levels(axes: Axes, marks: Sequence[tuple[float, str]]) -> None:
  """Dashed levels, named beside the axes where no curve crosses the name."""
  highest = max((height for height, _ in marks), default=0.0)
  for height, label in marks:
    axes.axhline(height, color=LINE, linestyle='--', linewidth=0.8)
    # Two names keep apart however close their levels are.
    sides = (
      ('bottom' if height == highest else 'top') if marks[1:] else 'center'
    )
    axes.annotate(
      label,
      (1.0, height),
      xycoords=('axes fraction', 'data'),
      xytext=(3, 0),
      textcoords='offset points',
      va=sides,
      fontsize=8,
      color='#555555',
    )


# Title, caption, lines (name, label, colour), marked levels.
_Curves = tuple[str, str, list[tuple[str, str, Any]], list[Any]]


def curves(
  rows: Iterable[Row] | Columns, equilibrium: Mapping[str, float]
) -> list[tuple[str, str, str]]:
  """Curves of a run.

  Args:
    rows: of stats.jsonl; of more than some thousand the extremes are drawn.
    equilibrium: of `d/loss` and `g/loss`, where the objective states them.
  """
  rows = columns_of(rows)
  losses = _losses(equilibrium)
  plans = [_PROBABILITY, losses, _OUTPUT, *_penalties(rows), *_REST]
  return _drawn(rows, plans)


_PROBABILITY: _Curves = (
  "D's probability",
  'Mean of D over real and over generated samples. At the equilibrium both'
  ' are 1/2.',
  [('d/prob_real', 'real', REAL), ('d/prob_fake', 'generated', FAKE)],
  [(0.5, '1/2')],
)
_OUTPUT: _Curves = (
  "D's output",
  'Mean output (logit) of D over real and over generated samples.',
  [('d/logit_real', 'real', REAL), ('d/logit_fake', 'generated', FAKE)],
  [],
)
_REST: tuple[_Curves, ...] = (
  (
    'Value of the game',
    'V(D, G) = E[log D(x)] + E[log(1 - D(G(z)))]; -log 4 where D says 1/2.',
    [('game/value', 'V', D)],
    [(-math.log(4), '-log 4')],
  ),
  (
    'Jensen-Shannon bound',
    'Lower bound that V gives on the Jensen-Shannon divergence from the data,'
    ' (V + log 4) / 2, in nats. No divergence exceeds log 2.',
    [('game/jsd_bound', 'bound', D)],
    [(0.0, '0')],
  ),
  (
    'Gradient norms',
    'Euclidean norm of each gradient.',
    [('d/grad_norm', 'D', D), ('g/grad_norm', 'G', FAKE)],
    [],
  ),
  (
    'Parameter norms',
    "Euclidean norm of each player's parameters.",
    [('d/param_norm', 'D', D), ('g/param_norm', 'G', FAKE)],
    [],
  ),
  (
    'Speed',
    'Real images (or samples) shown to D a second, without compilation.',
    [('speed/images_per_sec', 'images/s', LINE)],
    [],
  ),
)


def _losses(equilibrium: Mapping[str, float]) -> _Curves:
  """Both losses, and their values at the equilibrium where it has some."""
  return (
    'Losses',
    'Loss that each player descends; dashed, its value at the equilibrium.',
    [('d/loss', 'D', D), ('g/loss', 'G', FAKE)],
    [
      (equilibrium[name], f'{player}: {_equilibrium_text(equilibrium[name])}')
      for name, player in (('d/loss', 'D'), ('g/loss', 'G'))
      if name in equilibrium
    ],
  )


def _penalties(rows: Columns) -> list[_Curves]:
  """A curve for each regularizer of a run."""
  names = [name for name in rows.names if '/penalty/' in name]
  shades = plt.get_cmap('tab10')
  lines = [
    (n, n.replace('penalty/', ''), shades(i % 10)) for i, n in enumerate(names)
  ]
  caption = 'Each regularizer before it is multiplied by its weight.'
  return [('Penalties', caption, lines, [])] if names else []


def _drawn(
  rows: Columns, plans: Sequence[_Curves]
) -> list[tuple[str, str, str]]:
  figures = []
  for title, caption, lines, marks in plans:
    with plt.rc_context(STYLE):
      figure, axes = plt.subplots(figsize=(4.2, 2.5))
      for name, label, colour in lines:
        _curve(axes, rows, name, label=plain(label), color=colour)
      _mark_levels(axes, marks)
      if title == "D's probability":
        axes.set_ylim(-0.02, 1.02)
      if title == 'Speed':
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(EngFormatter(sep=''))
      axes.set_xlabel('steps')
      if len(lines) > 1 or title == 'Penalties':
        axes.legend(loc='best', fontsize=8)
      figures.append((title, caption, uri(figure, 'svg')))
  return figures


def _protocol(row: Row) -> str:
  """A protocol in a few words."""
  p = row['protocol']
  features = p['features'] and f', features {p["features"]}'
  return (
    f'{p["samples"]:,} samples of the {"averaged" if p["ema"] else "live"} G'
    f' against {p["real_samples"]:,} of {p["reference"]}{features}'
  )


def scores(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
  """Scores of a run's checkpoints.

  A line for each protocol, with the spread over evaluation seeds around it.

  Args:
    rows: of metrics.jsonl.
  """
  rows = [row for row in rows if row['step'] is not None]
  figures = []
  for name in dict.fromkeys(n for r in rows for n in r['by_evaluation_seed']):
    scored = [r for r in rows if r.get(name) is not None]
    protocols = dict.fromkeys(map(_protocol, scored))
    with plt.rc_context(STYLE):
      figure, axes = plt.subplots(figsize=(4.2, 2.5))
      shades = plt.get_cmap('tab10')
      for i, label in enumerate(protocols):
        # The last row of a step is that of its newest state.
        steps = {r['step']: r for r in scored if _protocol(r) == label}
        line = [steps[step] for step in sorted(steps)]
        axes.errorbar(
          [r['step'] for r in line],
          [r[name] for r in line],
          [r.get(f'{name}/evaluation_std', 0.0) for r in line],
          color=shades(i),
          marker='o',
          markersize=3,
          capsize=2,
        )
      axes.set_xlabel('steps')
      picture = uri(figure, 'svg')
    many = any(f'{name}/evaluation_std' in r for r in scored)
    bars = '. Bars: ± standard deviation over evaluation seeds' if many else ''
    figures.append((name, '; '.join(protocols) + bars + '.', picture))
  return figures


_DYNAMICS: tuple[_Curves, ...] = (
  (
    'Stability',
    'Largest real part of an eigenvalue: below 0, small perturbations decay.',
    [('game/rightmost', 'rightmost', D)],
    [(0.0, '0')],
  ),
  (
    'Spectral radius',
    'Largest modulus of an eigenvalue; gradient descent needs a learning rate'
    ' below 2 over it.',
    [('game/spectral_radius', 'spectral radius', D)],
    [],
  ),
  (
    'Rotation',
    'Cosine between the field v and its change along itself (-1: it only'
    ' shrinks, 0: it only turns), and the part of that change that is'
    ' rotation (0: a potential, 1: rotation alone).',
    [('game/alignment', 'alignment', D), ('game/rotation', 'rotation', FAKE)],
    [(0.0, '0')],
  ),
  (
    'Norm of the field',
    "Norm of both players' gradients together.",
    [('game/field_norm', '|v|', D)],
    [],
  ),
  (
    "D's slope",
    'Mean norm of the gradient of D with respect to its input.',
    [
      ('d/input_grad_real', 'at real', REAL),
      ('d/input_grad_fake', 'at generated', FAKE),
    ],
    [],
  ),
)


def dynamics(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
  """The game's gradient field and its Jacobian over a run.

  Args:
    rows: of dynamics.jsonl.
  """
  return [_eigenvalues(rows), *_drawn(Columns(rows), _DYNAMICS)]


def _eigenvalues(rows: Sequence[Row]) -> tuple[str, str, str]:
  """Eigenvalues in the complex plane, the later the darker."""
  shown = [r for r in rows if r['eigenvalues']]
  whole = all(len(r['eigenvalues']) == r['parameters'] for r in shown)
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(4.2, 2.5))
    shades = plt.get_cmap('viridis_r')
    for i, row in enumerate(shown):
      across, up = np.array(row['eigenvalues']).T
      colour = shades((i + 1) / len(shown))
      axes.scatter(across, up, s=7, color=colour, alpha=0.7, linewidths=0)
    axes.axvline(0, color=LINE, linestyle='--', linewidth=0.8)
    _set_scales(axes, [p for r in shown for p in r['eigenvalues']])
    axes.set_xlabel('real part')
    axes.set_ylabel('imaginary part')
    picture = uri(figure, 'svg')
  late = sum(bool(row.get('unfinished')) for row in rows)
  which = 'All' if whole else 'The largest and the rightmost'
  caption = (
    f'{which} eigenvalues of the Jacobian of the field, the later the darker.'
    ' Left of the line a perturbation decays, right of it it grows; off the'
    ' axis it turns.'
  )
  if late:
    caption += (
      f' In {late} of {len(rows)} analyses a search had not converged: the'
      ' eigenvalues that it found are here, its result is left out below.'
    )
  return 'Eigenvalues', caption, picture


def _set_scales(axes: Axes, pairs: Sequence[Sequence[float]]) -> None:
  """Logarithmic axes where most values are near 0 and some far away."""
  sizes = [abs(x) for pair in pairs for x in pair]
  if not sizes or max(sizes) <= 50 * (np.median(sizes) + 1e-9):
    return
  last = math.ceil(math.log10(max(sizes)))
  ticks = [10.0**e for e in range(last - 4, last + 1, 2)]
  for axis, scale in (
    (axes.xaxis, axes.set_xscale),
    (axes.yaxis, axes.set_yscale),
  ):
    scale('symlog', linthresh=ticks[0])
    axis.set_major_locator(
      FixedLocator([-t for t in ticks[::-1]] + [0.0] + ticks)
    )
