"""Pictures of Dirac-GAN: fields with trajectories of the package on them."""

import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import play
from play import Setting

_STEPS, _SIDE = 600, 2.3
_BLUE, _RED, _GREY = '#1f6fb4', '#c8442c', '#b9bfc6'
# (title, setting, schedules that are drawn).
PANELS: list[tuple[str, Setting, tuple[str, ...]]] = [
  (
    'non-saturating',
    Setting('non_saturating'),
    ('simultaneous', 'alternating'),
  ),
  (
    'Wasserstein, clipped at 0.5',
    Setting('wasserstein', 'clip'),
    ('simultaneous', 'alternating'),
  ),
  (
    'WGAN-GP',
    Setting('wasserstein', 'wgan_gp'),
    ('simultaneous', 'alternating'),
  ),
  (
    'least squares, labels 1, 0, 1',
    Setting('least_squares'),
    ('simultaneous', 'alternating'),
  ),
  (
    'instance noise of 1',
    Setting('non_saturating', noise=play.NOISE),
    ('simultaneous', 'alternating'),
  ),
  (
    'R1 of weight 1',
    Setting('non_saturating', 'r1'),
    ('simultaneous', 'alternating'),
  ),
  (
    'consensus optimization',
    Setting('non_saturating'),
    ('consensus',),
  ),
  (
    'unrolled, 5 steps',
    Setting('non_saturating'),
    ('unrolled',),
  ),
]


def _field(setting: Setting, schedules: tuple[str, ...], at: Any) -> Any:
  """Where theory says that a small step goes, (n, n) each along both axes."""
  game = setting.game()
  u, v = np.zeros_like(at[0]), np.zeros_like(at[0])
  damping = setting.slopes.curvature * setting.noise**2
  for i, (theta, psi) in enumerate(zip(*map(np.ravel, at), strict=True)):
    to_g, to_d = game.gradients(theta, psi)
    if schedules[0] == 'unrolled':
      to_g = game.gradient_ahead(theta, psi)
    if schedules[0] == 'consensus':
      pull = game.pull(theta, psi)
      to_g += game.consensus * pull[0]
      to_d += game.consensus * pull[1]
    u.flat[i], v.flat[i] = -to_g, -to_d - damping * psi
  return u, v


def _played(setting: Setting, schedule: str, steps: int) -> Any:
  """Its points, of the program that has played it among the others."""
  of = play.noisy() if setting.noise else play.SETTINGS
  points = play.trajectories(of, schedule, steps)[of.index(setting)]
  return np.concatenate([[play.START], points[:_STEPS]])


def draw(path: pathlib.Path, steps: int) -> None:
  """Eight portraits, of games that were played for so many steps."""
  axis = np.linspace(-_SIDE, _SIDE, 17)
  at = np.meshgrid(axis, axis)
  figure, panels = plt.subplots(
    2, 4, figsize=(12, 6.4), sharex=True, sharey=True, layout='constrained'
  )
  colours = {'simultaneous': _RED, 'alternating': _BLUE}
  for axes, (title, setting, schedules) in zip(
    panels.flat, PANELS, strict=True
  ):
    u, v = _field(setting, schedules, at)
    axes.streamplot(
      *at, u, v, color=_GREY, density=0.9, linewidth=0.7, arrowsize=0.7
    )
    for schedule in schedules:
      points = _played(setting, schedule, steps)
      colour = colours.get(schedule, '#2a7f4f')
      axes.plot(*points.T, color=colour, linewidth=1.1, label=schedule)
      axes.plot(*points[-1], 'o', color=colour, markersize=4)
    if setting.regularizer == 'clip':
      for edge in (-play.BOUND, play.BOUND):
        axes.axhline(edge, color='black', linewidth=0.6, linestyle=':')
    axes.plot(*play.START, 's', color='black', markersize=3.5)
    axes.plot(0, 0, '+', color='black', markersize=8)
    axes.set(xlim=(-_SIDE, _SIDE), ylim=(-_SIDE, _SIDE), aspect='equal')
    axes.set_title(title, fontsize=10)
    axes.legend(loc='lower right', fontsize=7, framealpha=0.9)
  for axes in panels[1]:
    axes.set_xlabel('theta (G)')
  for axes in panels[:, 0]:
    axes.set_ylabel('psi (D)')
  figure.savefig(path, dpi=110)
  plt.close(figure)


def draw_spectra(rows: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
  """Eigenvalues at the equilibrium, found on theory."""
  shown = [
    ('no penalty', lambda r: r['regularizer'] == 'none' and not r['consensus']),
    ('R1', lambda r: r['regularizer'] == 'r1' and not r['consensus']),
    ('instance noise', lambda r: r['regularizer'] == 'noise'),
    ('consensus', lambda r: r['regularizer'] == 'none' and r['consensus']),
  ]
  figure, panels = plt.subplots(
    1, 4, figsize=(12, 3.2), sharey=True, layout='constrained'
  )
  for axes, (title, which) in zip(panels, shown, strict=True):
    mine = [r for r in rows if which(r)]
    theirs = np.array([p for r in mine for p in r['theory']])
    found = np.array([p for r in mine for p in r['found']])
    axes.plot(
      *theirs.T, 'o', color=_GREY, markersize=8, label='theory', zorder=1
    )
    axes.plot(*found.T, '.', color=_RED, markersize=4, label='found', zorder=2)
    axes.axvline(0, color='black', linewidth=0.6)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel('real part')
  panels[0].set_ylabel('imaginary part')
  panels[0].legend(fontsize=7)
  figure.savefig(path, dpi=110)
  plt.close(figure)
