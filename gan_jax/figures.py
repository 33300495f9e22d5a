"""Matplotlib figures of one run, as data URIs for the report.

Each takes rows of the log or arrays of a snapshot and knows nothing of files.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from gan_jax.data import Density

Row = Mapping[str, Any]
Arrays = Mapping[str, NDArray[np.generic]]

REAL, FAKE, D, LINE = '#111111', '#1b8a3a', '#1f5fbf', '#888888'
_STYLE: Any = {
  'font.size': 9,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.linewidth': 0.7,
  'lines.linewidth': 1.2,
  'legend.frameon': False,
  'svg.fonttype': 'none',
  'svg.hashsalt': 'gan_jax',  # the same run gives the same file
}


def _uri(figure: Any, kind: str) -> str:
  buffer = io.BytesIO()
  figure.savefig(buffer, format=kind, dpi=160, bbox_inches='tight')
  plt.close(figure)
  return data_uri(buffer.getvalue(), kind)


def data_uri(content: bytes, kind: str) -> str:
  """A picture (`png` or `svg`) as the address of an <img>."""
  mime = {'png': 'image/png', 'svg': 'image/svg+xml'}[kind]
  return f'data:{mime};base64,{base64.b64encode(content).decode()}'


def _series(rows: Sequence[Row], name: str) -> tuple[list[int], list[float]]:
  """Steps and values of a logged number, where it is there and finite."""
  pairs = [
    (r['step'], r[name])
    for r in rows
    if isinstance(r.get(name), int | float) and math.isfinite(r[name])
  ]
  return [p[0] for p in pairs], [p[1] for p in pairs]


def smoothed(values: Sequence[float], width: int) -> NDArray[np.float64]:
  """Running mean over `width` values, of what there is at the ends."""
  ones = np.ones(width)
  total = np.convolve(values, ones, 'same')
  count = np.convolve(np.ones(len(values)), ones, 'same')
  mean: NDArray[np.float64] = total / count
  return mean


# Beyond this many points a curve is drawn smoothed, over its own pale trace.
MANY = 400


def _curve(axes: Any, rows: Sequence[Row], name: str, **style: Any) -> None:
  steps, values = _series(rows, name)
  if len(values) > MANY:
    axes.plot(steps, values, alpha=0.2, linewidth=0.5, color=style['color'])
    values = list(smoothed(values, len(values) // 100))
  marker = 'o' if len(values) == 1 else None
  axes.plot(steps, values, marker=marker, markersize=3, **style)


def curves(
  rows: Sequence[Row], equilibrium: Mapping[str, float]
) -> list[tuple[str, str, str]]:
  """Curves of a run: (title, caption, data URI) each.

  Args:
    rows: of stats.jsonl.
    equilibrium: of `d/loss` and `g/loss`, where the objective states them.
  """
  log4 = math.log(4)
  plans: list[tuple[str, str, list[tuple[str, str, str]], list[Any]]] = [
    (
      "D's probability",
      'Mean of D over real and over generated samples. At the equilibrium both'
      ' are 1/2.',
      [('d/prob_real', 'real', REAL), ('d/prob_fake', 'generated', FAKE)],
      [(0.5, '1/2')],
    ),
    (
      'Losses',
      'What each player descends; dashed, their values at the equilibrium.',
      [('d/loss', 'D', D), ('g/loss', 'G', FAKE)],
      [
        (equilibrium[name], f'{player} at equilibrium')
        for name, player in (('d/loss', 'D'), ('g/loss', 'G'))
        if name in equilibrium
      ],
    ),
    (
      'Value of the game',
      'V(D, G) = E[log D(x)] + E[log(1 - D(G(z)))]; -log 4 where D says 1/2.',
      [('game/value', 'V', D)],
      [(-log4, '-log 4')],
    ),
    (
      'Jensen-Shannon bound',
      'What V proves about the distance from the data, in nats: at least'
      ' (V + log 4) / 2. No distance exceeds log 2.',
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
      'Real images (or samples) shown to D a second, compilation apart.',
      [('speed/images_per_sec', 'images/s', LINE)],
      [],
    ),
  ]
  found = []
  for title, caption, lines, marks in plans:
    with plt.rc_context(_STYLE):
      figure, axes = plt.subplots(figsize=(4.2, 2.5))
      for name, label, colour in lines:
        _curve(axes, rows, name, label=label, color=colour)
      for height, label in marks:
        axes.axhline(height, color=LINE, linestyle='--', linewidth=0.8)
        axes.annotate(
          label,
          (1.0, height),
          xycoords=('axes fraction', 'data'),
          xytext=(-2, 2),
          textcoords='offset points',
          ha='right',
          fontsize=7,
          color=LINE,
        )
      if title == "D's probability":
        axes.set_ylim(-0.02, 1.02)
      if title == 'Speed':
        axes.set_ylim(bottom=0)
      axes.set_xlabel('generator updates')
      if len(lines) > 1:
        axes.legend(loc='best', fontsize=8)
      found.append((title, caption, _uri(figure, 'svg')))
  return found


def smooth_density(
  x: NDArray[np.generic], at: NDArray[np.generic]
) -> NDArray[np.float64] | None:
  """Kernel density estimate of samples (n,) at points; None if they collapse.

  Normal kernels of Scott's bandwidth, SciPy's default.
  """
  from scipy.stats import gaussian_kde

  values = np.asarray(x, np.float64).ravel()
  if not np.isfinite(values).all() or np.ptp(values) < 1e-6:
    return None
  estimate: NDArray[np.float64] = gaussian_kde(values)(at)
  return estimate


def _draw_1d(axes: Any, density: Density, found: Arrays, top: float) -> None:
  """Data density, generator density and D over one axis."""
  at = found['grid'][:, 0]
  truth = np.exp(np.asarray(density.log_prob(jnp.asarray(found['grid']))))
  axes.plot(at, truth, color=REAL, linestyle=':', label='data p(x)')
  made = smooth_density(found['x'], at)
  if made is not None:
    axes.plot(at, made, color=FAKE, label='generated q(x)')
  else:
    axes.axvline(
      float(found['x'].astype(float).mean()), color=FAKE, label='generated q(x)'
    )
  axes.set_ylim(0, top * 1.5)
  axes.set_yticks([])
  axes.set_xlim(*density.extent)
  right = axes.twinx()
  right.plot(at, found['prob'], color=D, linestyle='--', label='D(x)')
  right.axhline(0.5, color=LINE, linewidth=0.6)
  right.set_ylim(0, 1.5)
  right.set_yticks([0, 0.5, 1])
  right.spines['right'].set_visible(True)
  right.tick_params(axis='y', colors=D, labelsize=7)


def _draw_map(axes: Any, density: Density, found: Arrays) -> None:
  """Where G sends evenly spaced noise: lines from z (below) to x (above)."""
  z, x = found['z'][:, 0], found['x'][:, 0]
  order = np.argsort(z)
  picked = order[np.linspace(0, len(order) - 1, 31).astype(int)]
  low, high = density.extent
  span = max(float(np.ptp(z)), 1e-6)
  feet = low + (high - low) * (0.15 + 0.7 * (z[picked] - z.min()) / span)
  heads = np.clip(x[picked], low, high)
  for foot, head in zip(feet, heads, strict=True):
    axes.annotate(
      '',
      (head, 1),
      (foot, 0),
      arrowprops={'arrowstyle': '->', 'lw': 0.6, 'color': '#555'},
    )
  axes.hlines([0, 1], low, high, color='#333', linewidth=0.8)
  axes.set_xlim(low, high)
  axes.set_ylim(-0.05, 1.05)
  axes.set_yticks([0, 1], ['z', 'x'])
  axes.set_xticks([])
  for side in axes.spines.values():
    side.set_visible(False)


def density_1d(density: Density, found: Arrays) -> str:
  """Figure 1 of Goodfellow et al. 2014, arXiv:1406.2661, of one moment."""
  truth = np.exp(np.asarray(density.log_prob(jnp.asarray(found['grid']))))
  mapped = found['z'].shape[1] == 1
  with plt.rc_context(_STYLE):
    figure, axes = plt.subplots(
      2 if mapped else 1,
      1,
      figsize=(6.4, 4.2 if mapped else 3.0),
      height_ratios=[3, 1] if mapped else [1],
      squeeze=False,
    )
    main = axes[0, 0]
    _draw_1d(main, density, found, float(truth.max()))
    handles = [h for a in figure.axes for h in a.get_legend_handles_labels()[0]]
    main.legend(handles=handles, loc='upper center', ncols=3, fontsize=8)
    if mapped:
      _draw_map(axes[1, 0], density, found)
    return _uri(figure, 'svg')


def densities_1d(density: Density, moments: Mapping[int, Arrays]) -> str:
  """The same over time, small."""
  first = next(iter(moments.values()))
  truth = np.exp(np.asarray(density.log_prob(jnp.asarray(first['grid']))))
  with plt.rc_context(_STYLE):
    figure, panels = _panels(len(moments), 1.5)
    for axes, (step, found) in zip(panels, moments.items(), strict=False):
      _draw_1d(axes, density, found, float(truth.max()))
      axes.set_title(f'step {step:,}', fontsize=8)
    return _uri(figure, 'svg')


def _panels(count: int, height: float) -> tuple[Any, list[Any]]:
  columns = min(count, 3)
  rows = math.ceil(count / columns)
  figure, grid = plt.subplots(
    rows, columns, figsize=(2.6 * columns, height * rows), squeeze=False
  )
  figure.subplots_adjust(wspace=0.35, hspace=0.6)
  panels = list(grid.ravel())
  for axes in panels[count:]:
    axes.set_visible(False)
  return figure, panels[:count]


def _draw_2d(axes: Any, density: Density, found: Arrays) -> None:
  """D's level sets, the density's own levels, and the samples."""
  side = math.isqrt(len(found['grid']))
  across = found['grid'][:side, 0]
  prob = found['prob'].reshape(side, side)
  shade = axes.contourf(
    across,
    across,
    prob,
    levels=np.linspace(0, 1, 11),
    cmap='RdBu_r',
    alpha=0.55,
  )
  shade.set_edgecolor('face')
  if 0 <= prob.min() < 0.5 < prob.max():
    axes.contour(across, across, prob, levels=[0.5], colors=D, linewidths=0.7)
  real, made = found['real'][:1500], found['x'][:1500]
  axes.scatter(*real.T, s=2, color=REAL, alpha=0.25, linewidths=0)
  axes.scatter(*made.T, s=2, color=FAKE, alpha=0.5, linewidths=0)
  if density.modes is not None:
    axes.scatter(
      *density.modes.T, s=24, facecolors='none', edgecolors=REAL, linewidths=0.6
    )
  axes.set(xlim=density.extent, ylim=density.extent, aspect='equal')
  axes.set_xticks([])
  axes.set_yticks([])


def density_2d(density: Density, found: Arrays) -> str:
  """Samples over the density and D's level sets, at one moment."""
  with plt.rc_context(_STYLE):
    figure, axes = plt.subplots(figsize=(5, 5))
    _draw_2d(axes, density, found)
    return _uri(figure, 'png')


def densities_2d(density: Density, moments: Mapping[int, Arrays]) -> str:
  """The same over time, small."""
  with plt.rc_context(_STYLE):
    figure, panels = _panels(len(moments), 2.7)
    figure.subplots_adjust(wspace=0.08, hspace=0.2)
    for axes, (step, found) in zip(panels, moments.items(), strict=False):
      _draw_2d(axes, density, found)
      axes.set_title(f'step {step:,}', fontsize=8)
    return _uri(figure, 'png')


def samples_png(density: Density, x: NDArray[np.generic]) -> bytes:
  """Generated samples of a density against the truth, as a PNG file."""
  with plt.rc_context(_STYLE):
    figure, axes = plt.subplots(figsize=(5, 5 if density.dim == 2 else 3))
    if density.dim == 1:
      low, high = density.extent
      at = np.linspace(low, high, 512, dtype=np.float32)[:, None]
      truth = np.exp(np.asarray(density.log_prob(jnp.asarray(at))))
      bins = np.linspace(low, high, 81)
      axes.hist(x[:, 0], list(bins), density=True, color=FAKE, alpha=0.5)
      axes.plot(at[:, 0], truth, color=REAL, linestyle=':')
      axes.set_xlabel('x')
    else:
      axes.scatter(x[:, 0], x[:, 1], s=3, color=FAKE, alpha=0.5, linewidths=0)
      axes.set(xlim=density.extent, ylim=density.extent, aspect='equal')
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=160, bbox_inches='tight')
    plt.close(figure)
    return buffer.getvalue()
