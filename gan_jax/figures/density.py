"""Figures of a generated density beside that of the data, in 1-D and 2-D.

Each takes the arrays of one snapshot and knows nothing of files: `x` generated
and `real` samples, `z` the latent vectors of `x`, `grid` points that cover the
picture and `prob` what D says at them.
"""

import io
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import NDArray

from gan_jax.data import Density
from gan_jax.figures.page import FAKE, LINE, REAL, STYLE, D, uri

Arrays = Mapping[str, NDArray[Any]]

# Std of the kernels, over the width of the picture. Scott's rule, which follows
# the spread of all modes together, would flatten each of them.
BANDWIDTH = 0.01


def smooth_density(
  x: NDArray[np.generic], at: NDArray[np.generic]
) -> NDArray[np.float64] | None:
  """Kernel density estimate of samples (n,) at points; None if they collapse.

  Normal kernels, of std `BANDWIDTH` times the range of the points.
  """
  values = np.asarray(x, np.float64).ravel()
  if not np.isfinite(values).all() or np.ptp(values) < 1e-6:
    return None
  width = BANDWIDTH * float(np.ptp(np.asarray(at, np.float64)))
  away = (np.asarray(at, np.float64)[:, None] - values) / width
  kernels = np.exp(-0.5 * away**2) / (width * np.sqrt(2 * np.pi))
  return np.asarray(kernels.mean(axis=1))


def true_density(
  density: Density, at: NDArray[np.generic]
) -> NDArray[np.float64]:
  """p(x) at points (n, dim), compiled as one program."""
  log_prob = jax.jit(density.log_prob)(jnp.asarray(at, jnp.float32))
  return np.exp(np.asarray(log_prob, np.float64))


def draw_1d(axes: Axes, density: Density, arrays: Arrays, top: float) -> None:
  """Data density, generator density and D over one axis."""
  at = arrays['grid'][:, 0]
  truth = true_density(density, arrays['grid'])
  axes.plot(at, truth, color=REAL, linestyle=':', label='data p(x)')
  estimate = smooth_density(arrays['x'], at)
  if estimate is not None:
    # A higher peak is let in, up to where the data would look flat.
    top = max(top, min(float(estimate.max()) / 1.4, 2 * top))
    axes.plot(at, estimate, color=FAKE, label='generated q(x)')
  else:
    axes.axvline(
      float(arrays['x'].astype(float).mean()),
      color=FAKE,
      label='generated q(x)',
    )
  axes.set_ylim(0, top * 1.5)
  axes.set_yticks([])
  axes.set_xlim(*density.extent)
  right = axes.twinx()
  right.plot(at, arrays['prob'], color=D, linestyle='--', label='D(x)')
  right.axhline(0.5, color=LINE, linewidth=0.6)
  right.set_ylim(0, 1.5)
  right.set_yticks([0, 0.5, 1])
  right.spines['right'].set_visible(True)
  right.tick_params(axis='y', colors=D, labelsize=7)


def draw_map(axes: Axes, density: Density, arrays: Arrays) -> None:
  """Where G sends evenly spaced noise: arrows from z (below) to x (above)."""
  z, x = arrays['z'][:, 0], arrays['x'][:, 0]
  order = np.argsort(z)
  picked = order[np.linspace(0, len(order) - 1, 21).astype(int)]
  picked = picked[np.isfinite(x[picked])]
  low, high = density.extent
  span = max(float(np.ptp(z)), 1e-6)
  feet = low + (high - low) * (z[picked] - z.min()) / span
  heads = np.clip(x[picked], low, high)
  for foot, head in zip(feet, heads, strict=True):
    axes.annotate(
      '',
      (head, 1),
      (foot, 0),
      arrowprops={
        'arrowstyle': '-|>',
        'mutation_scale': 5,
        'lw': 0.6,
        'color': '#444444',
        'shrinkA': 0,
        'shrinkB': 0,
      },
    )
  axes.hlines([0, 1], low, high, color='#333333', linewidth=0.8)
  axes.set_xlim(low, high)
  axes.set_ylim(-0.05, 1.05)
  axes.set_yticks([0, 1], ['z', 'x'], style='italic')
  # One axis for both: z is stretched over the width, its ends are written.
  axes.set_xticks([low, high], [f'{z.min():.2g}', f'{z.max():.2g}'])
  axes.tick_params(length=0)
  for side in axes.spines.values():
    side.set_visible(False)


def density_1d(density: Density, arrays: Arrays) -> str:
  """Figure 1 of Goodfellow et al. 2014, arXiv:1406.2661, of one moment."""
  truth = true_density(density, arrays['grid'])
  mapped = arrays['z'].shape[1] == 1
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(
      2 if mapped else 1,
      1,
      figsize=(5.0, 4.2 if mapped else 2.8),
      height_ratios=[2, 1] if mapped else [1],
      squeeze=False,
    )
    main = axes[0, 0]
    draw_1d(main, density, arrays, float(truth.max()))
    handles = [h for a in figure.axes for h in a.get_legend_handles_labels()[0]]
    main.legend(
      handles=handles,
      loc='lower center',
      bbox_to_anchor=(0.5, 1.0),
      ncols=3,
      fontsize=8,
    )
    if mapped:
      draw_map(axes[1, 0], density, arrays)
    return uri(figure, 'svg')


def densities_1d(
  density: Density, moments: Mapping[int, Arrays]
) -> list[tuple[int, str]]:
  """The same over time, small: a picture a step, for the page to arrange."""
  pictures = []
  for step, arrays in moments.items():
    truth = true_density(density, arrays['grid'])
    with plt.rc_context(STYLE):
      figure, axes = plt.subplots(figsize=(2.4, 1.5))
      draw_1d(axes, density, arrays, float(truth.max()))
      pictures.append((step, uri(figure, 'svg')))
  return pictures


# Red and blue pale enough for samples to be seen on them.
_PALE = ListedColormap(1 - 0.55 * (1 - plt.get_cmap('RdBu_r')(np.arange(256))))


def draw_truth_2d(axes: Axes, density: Density) -> None:
  """The density: its modes, or the line that 95% of the data are inside of.

  Modes lie above all else, so that samples upon them hide none.
  """
  if density.modes is not None:
    across, up = np.asarray(density.modes, np.float64).T
    for size, width, colour in ((70, 2.2, 'white'), (70, 1.1, REAL)):
      axes.scatter(
        across,
        up,
        s=size,
        facecolors='none',
        edgecolors=colour,
        linewidths=width,
        zorder=4,
      )
    axes.scatter(
      across, up, s=14, marker='+', color=REAL, linewidths=0.8, zorder=5
    )
    return
  axis = np.linspace(*density.extent, 128, dtype=np.float32)
  across, up = np.meshgrid(axis, axis)
  lines = np.stack([across, up], axis=-1)
  # A line at a time: a fine mixture times all points would not fit.
  log_prob = np.asarray(jax.lax.map(density.log_prob, jnp.asarray(lines)))
  falling = np.sort(log_prob.ravel())[::-1]
  mass = np.cumsum(np.exp(falling))
  level = [falling[np.searchsorted(mass, 0.95 * mass[-1])]]
  axes.contour(
    axis, axis, log_prob, level, colors=REAL, linewidths=0.6, linestyles='solid'
  )


def _draw_2d(axes: Axes, density: Density, arrays: Arrays) -> Any:
  """Samples over the density and D's level sets; returns the shades of D."""
  side = math.isqrt(len(arrays['grid']))
  across = arrays['grid'][:side, 0]
  prob = arrays['prob'].reshape(side, side)
  shade = None
  if np.isfinite(prob).all():  # a run that diverged has no level sets
    shade = axes.contourf(
      across,
      across,
      prob,
      levels=np.linspace(0, 1, 11),
      cmap=_PALE,
      antialiased=False,
    )
    if prob.min() < 0.5 < prob.max():
      axes.contour(across, across, prob, levels=[0.5], colors=D, linewidths=0.9)
  real, fake = arrays['real'][:1500], arrays['x'][:1500]
  axes.scatter(real[:, 0], real[:, 1], s=2, color=REAL, alpha=0.2, linewidths=0)
  axes.scatter(fake[:, 0], fake[:, 1], s=3, color=FAKE, alpha=0.7, linewidths=0)
  draw_truth_2d(axes, density)
  axes.set(xlim=density.extent, ylim=density.extent, aspect='equal')
  for edge in axes.spines.values():
    edge.set(visible=True, color='#bbbbbb')
  return shade


def density_2d(density: Density, arrays: Arrays) -> str:
  """Samples over the density and D's level sets, at one moment."""
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(5, 4.4))
    shade = _draw_2d(axes, density, arrays)
    if shade is not None:
      bar = figure.colorbar(shade, ax=axes, shrink=0.8, ticks=[0, 0.5, 1])
      bar.ax.set_title('D(x)', fontsize=9)
      bar.outline.set_visible(False)
    return uri(figure, 'png')


def densities_2d(
  density: Density, moments: Mapping[int, Arrays]
) -> list[tuple[int, str]]:
  """The same over time, small: a picture a step, for the page to arrange."""
  pictures = []
  for step, arrays in moments.items():
    with plt.rc_context(STYLE):
      figure, axes = plt.subplots(figsize=(2.4, 2.4))
      _draw_2d(axes, density, arrays)
      axes.set_xticks([])
      axes.set_yticks([])
      pictures.append((step, uri(figure, 'png')))
  return pictures


def samples_png(density: Density, x: NDArray[np.generic]) -> bytes:
  """Generated samples of a density against the truth, as a PNG file."""
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(5, 5 if density.dim == 2 else 3))
    if density.dim == 1:
      low, high = density.extent
      at = np.linspace(low, high, 512, dtype=np.float32)[:, None]
      truth = true_density(density, at)
      bins = np.linspace(low, high, 81)
      axes.hist(x[:, 0], list(bins), density=True, color=FAKE, alpha=0.5)
      axes.plot(at[:, 0], truth, color=REAL, linestyle=':')
      axes.set_xlabel('x')
    else:
      axes.scatter(x[:, 0], x[:, 1], s=3, color=FAKE, alpha=0.5, linewidths=0)
      draw_truth_2d(axes, density)
      axes.set(xlim=density.extent, ylim=density.extent, aspect='equal')
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=160, bbox_inches='tight')
    plt.close(figure)
    return buffer.getvalue()
