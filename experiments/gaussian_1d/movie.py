"""Figure 1 of Goodfellow et al. 2014 as a moving picture, of any 1-D density.

Trains `movie.flags` once for each objective, from the same seed, and draws them
side by side: the data's density, G's density, D(x), the arrows from z to x, and
the distance that is left. All flags of `gan_jax.train` are taken, above all
`--dataset`. Runs that are there already are not trained again; a workdir that
is itself a run is drawn alone, from whatever snapshots it has.

  python experiments/gaussian_1d/movie.py --workdir=DIR
  python experiments/gaussian_1d/movie.py --workdir=DIR --dataset=mixture_1d
  python experiments/gaussian_1d/movie.py --workdir=DIR --dataset=density:FILE

Writes movie.gif, and strip.png with five of its moments, into the workdir.
"""

import argparse
import dataclasses
import io
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
from matplotlib import pyplot as plt

from gan_jax.config import schema
from gan_jax.config.app import as_flags
from gan_jax.data import Density
from gan_jax.figures import density as figures
from gan_jax.training import setup
from gan_jax.training.train import train_config

HERE = pathlib.Path(__file__).parent
NAMES = {'minimax': 'min-max', 'non_saturating': 'non-saturating'}
FOURTHS = (0, 0.25, 0.5, 0.75)
MOMENTS = (0.1, 0.25, 0.45, 0.7, 1.0)  # of the strip, in frames
SHADES = ('#1b8a3a', '#8a5a1b')

Arrays = dict[str, Any]
Moments = dict[int, Arrays]  # by step


def train(args: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
  """The runs by title, trained if they are not: (density, moments)."""
  if (args.workdir / 'config.flags').exists():
    if rest:
      sys.exit(f'{rest[0]}: has no effect, {args.workdir} is a run already')
    one = schema.read_config(args.workdir)
    return {_title(one.objective): moments(one, args.frames)}
  base = schema.from_args([f'--flagfile={HERE / "movie.flags"}', *rest])
  _density(base)  # before any training
  found = {}
  for objective in args.objectives.split(','):
    one = dataclasses.replace(
      base, objective=objective, workdir=str(args.workdir / objective)
    ).validate()
    code = train_config(one)
    if code:
      sys.exit(code)
    found[_title(objective)] = moments(one, args.frames)
  return found


def _title(objective: str) -> str:
  return NAMES.get(objective, objective.replace('_', '-'))


def _density(run: schema.Config) -> Density:
  density = setup.load_dataset(run)
  if not isinstance(density, Density) or density.dim != 1:
    sys.exit(f'--dataset={run.dataset}: name a density in one dimension')
  return density


def moments(run: schema.Config, frames: int) -> tuple[Density, Moments]:
  """A run's density and snapshots, ever further apart as it settles."""
  density = _density(run)
  paths = sorted(pathlib.Path(run.workdir, 'samples').glob('step_*.npz'))
  if not paths:
    sys.exit(f'{run.workdir}/samples: no snapshots; train with --sample_every')
  steps = np.array([int(path.stem.split('_')[1]) for path in paths])
  wanted = steps[-1] * np.linspace(0, 1, frames) ** 2
  found = {}
  for i in np.unique(np.abs(steps[:, None] - wanted).argmin(axis=0)):
    with np.load(paths[i]) as arrays:
      found[int(steps[i])] = dict(arrays)
  return density, found


def distance(found: Arrays) -> float:
  """Wasserstein-1 distance of as many generated as real samples."""
  x, real = np.sort(found['x'][:, 0]), np.sort(found['real'][:, 0])
  return float(np.abs(x - real).mean())


def draw(shown: dict[str, Any], step: int) -> Any:
  """One frame: a column for each run, and the distance below."""
  columns = len(shown)
  mapped = all(
    found['z'].shape[1] == 1
    for _, moments in shown.values()
    for found in moments.values()
  )
  heights = [3.0, 1.4, 1.0] if mapped else [3.0, 1.0]
  figure = plt.figure(figsize=(3.9 * columns, 5.2 if mapped else 3.8))
  grid = figure.add_gridspec(
    len(heights),
    columns,
    height_ratios=heights,
    left=0.06,
    right=0.94,
    top=0.88,
    bottom=0.06,
    hspace=0.42,
    wspace=0.22,
  )
  for i, (title, (density, moments)) in enumerate(shown.items()):
    now = moments[max(s for s in moments if s <= step)]
    axes = figure.add_subplot(grid[0, i])
    _draw_densities(axes, density, now)
    axes.set_title(title, fontsize=11, color=SHADES[i % 2], pad=4)
    if mapped:
      figures.draw_map(figure.add_subplot(grid[1, i]), density, now)
  _legend(figure)
  _draw_distance(figure.add_subplot(grid[-1, :]), shown, step)
  return figure


def _draw_densities(axes: Any, density: Density, now: Arrays) -> None:
  truth = np.exp(np.asarray(density.log_prob(now['grid'])))
  figures.draw_1d(axes, density, now, float(truth.max()))
  axes.set_ylim(0, 1.8 * float(truth.max()))  # the same in all frames


def _legend(figure: Any) -> None:
  named = {}
  for axes in figure.axes:
    named |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
  figure.legend(
    named.values(), named.keys(), loc='upper center', ncols=3, fontsize=9
  )


def _draw_distance(axes: Any, shown: dict[str, Any], step: int) -> None:
  """How far G's samples are from the data's, so far and from now on."""
  last = max(max(moments) for _, moments in shown.values())
  for i, (_, moments) in enumerate(shown.values()):
    steps = np.array(sorted(moments))
    away = np.array([distance(moments[s]) for s in steps])
    past = steps <= step
    shade = SHADES[i % 2]
    axes.plot(steps, away, color=shade, linewidth=0.8, alpha=0.3)
    axes.plot(steps[past], away[past], color=shade)
    axes.plot(steps[past][-1:], away[past][-1:], 'o', color=shade, ms=4)
  axes.set_yscale('log')
  axes.set_xscale('function', functions=(_root, np.square))
  axes.set_xlim(0, last)
  axes.set_xticks([*(float(f'{last * f * f:.1g}') for f in FOURTHS), last])
  axes.minorticks_off()
  axes.tick_params(labelsize=7, length=2)
  axes.set_title(
    f'step {step:,}: distance left (Wasserstein-1)', fontsize=9, loc='left'
  )


def _root(steps: Any) -> Any:
  # Frames are as far apart as squares; Matplotlib asks for negative steps too.
  return np.sqrt(np.maximum(steps, 0))


def picture(figure: Any, dpi: int = 100) -> PIL.Image.Image:
  """A figure, which is closed, as pixels."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format='png', dpi=dpi)
  plt.close(figure)
  return PIL.Image.open(buffer).convert('RGB')


def gif(frames: Sequence[PIL.Image.Image], path: pathlib.Path) -> None:
  """An endless animation; the first and the last frame are held."""
  palette = frames[len(frames) // 2].quantize(
    64, PIL.Image.Quantize.MAXCOVERAGE
  )
  flat = [f.quantize(palette=palette, dither=0) for f in frames]
  times = [1200] + [110] * (len(flat) - 2) + [4000]
  flat[0].save(
    path, save_all=True, append_images=flat[1:], duration=times, loop=0
  )


def strip(shown: dict[str, Any], steps: Sequence[int]) -> PIL.Image.Image:
  """A row for each run, a column for each of five moments."""
  picked = [steps[round(f * (len(steps) - 1))] for f in MOMENTS]
  figure, axes = plt.subplots(
    len(shown), 5, figsize=(11, 2.1 * len(shown)), squeeze=False
  )
  for row, (title, (density, moments)) in zip(axes, shown.items(), strict=True):
    for place, step in zip(row, picked, strict=True):
      now = moments[max(s for s in moments if s <= step)]
      _draw_densities(place, density, now)
      place.set_title(f'step {step:,}', fontsize=8, pad=2)
    row[0].set_ylabel(title, fontsize=10)
  figure.tight_layout(rect=(0, 0, 1, 1 - 0.13 / len(shown)))
  _legend(figure)
  return picture(figure, dpi=110)


def main() -> None:
  """Trains what is not trained and draws it."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--objectives', default='minimax,non_saturating')
  parser.add_argument('--frames', type=int, default=72)
  args, rest = parser.parse_known_args()
  if args.frames < 2:
    parser.error(f'--frames={args.frames}: use 2 or more')
  if any(word.startswith('--objective') for word in rest):
    parser.error('--objective: use --objectives=minimax,non_saturating')
  shown = train(args, rest)
  steps = sorted({s for _, moments in shown.values() for s in moments})
  with plt.rc_context(figures.STYLE):
    frames = [picture(draw(shown, step)) for step in steps]
    gif(frames, args.workdir / 'movie.gif')
    strip(shown, steps).save(args.workdir / 'strip.png', optimize=True)
  for name in ('movie.gif', 'strip.png'):
    size = (args.workdir / name).stat().st_size
    print(f'{args.workdir / name}: {size / 1e6:.2f} MB')


if __name__ == '__main__':
  try:
    main()
  except ValueError as error:  # of a flag: names it, its value, the remedy
    sys.exit(as_flags(str(error), schema.FIELDS))
