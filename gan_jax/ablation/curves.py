"""Learning curves of an ablation, from what was scored and logged."""

import csv
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan_jax.ablation.results import Ablation, Cell, short

_PANELS = 12  # of one curve
_LINES = 7  # in one panel


class Curve(NamedTuple):
  """How a logged number is drawn; nothing is below the floor of its axis."""

  title: str
  caption: str = ''
  level: float | None = None
  floor: float | None = None


# Comparable between objectives, as losses are not.
_CURVES = {
  'game/jsd_bound': Curve(
    'Jensen-Shannon bound',
    'What the value of the game proves about the distance from the data, in'
    ' nats, log 2 at the most. 0 at the equilibrium; below it nothing is'
    ' proved, and the axis ends.',
    level=0.0,
    # Objectives whose logits drift together send it down without end.
    floor=-0.1,
  ),
  'd/prob_fake': Curve(
    "D's probability of generated samples",
    '1/2 at the equilibrium.',
    level=0.5,
  ),
  'g/grad_norm': Curve("Norm of G's gradient", 'What reaches G through D.'),
}


class Member(NamedTuple):
  """Where a run is: its program's folder and its place in it."""

  program: pathlib.Path
  place: int


def members(folder: pathlib.Path) -> dict[tuple[int, int], Member]:
  """The runs that programs speak of, by (cell, seed)."""
  found = {}
  for path in sorted((folder / 'programs').glob('*/members.json')):
    for place, told in enumerate(json.loads(path.read_text('utf-8'))):
      found[told['cell'], told['seed']] = Member(path.parent, place)
  return found


class Stats:
  """What programs scored and logged, a cell at a time."""

  def __init__(
    self,
    members: Mapping[tuple[int, int], Member],
    folder: pathlib.Path | None = None,
  ) -> None:
    """Reads each program's file once, and the folder's `scores.csv`."""
    self._members = members
    self._scores: dict[tuple[int, int], list[dict[str, str]]] = {}
    if folder is not None and (folder / 'scores.csv').is_file():
      with open(folder / 'scores.csv', encoding='utf-8', newline='') as file:
        for row in csv.DictReader(file):
          run = int(row['cell']), int(row['seed'])
          self._scores.setdefault(run, []).append(row)
    self._files: dict[pathlib.Path, dict[str, NDArray[Any]]] = {}
    for program in {m.program for m in members.values()}:
      if (program / 'stats.npz').is_file():
        with np.load(program / 'stats.npz') as arrays:
          self._files[program] = dict(arrays)

  def names(self) -> list[str]:
    """Logged numbers."""
    names = {n for arrays in self._files.values() for n in arrays}
    return sorted(names - {'step', 'alive'})

  def scored(self, metrics: Sequence[str]) -> list[str]:
    """Which of some scores were taken along the way."""
    rows = [row for rows in self._scores.values() for row in rows]
    return [n for n in metrics if any(row.get(n) for row in rows)]

  def _score(self, cell: Cell, seed: int, name: str) -> Any:
    """Steps and values of a run's score; None where it was not taken."""
    rows = self._scores.get((cell.index, seed), [])
    if not any(row.get(name) for row in rows):
      return None
    steps = np.array([int(row['step']) for row in rows])
    return steps, np.array([float(row[name] or 'nan') for row in rows])

  def _logged(self, cell: Cell, seed: int, name: str) -> Any:
    """Steps and values of a run's logged number; None where there is none."""
    member = self._members.get((cell.index, seed))
    arrays = self._files.get(member.program) if member else None
    if member is None or arrays is None or name not in arrays:
      return None
    values = arrays[name][:, member.place].astype(np.float64)
    alive = arrays['alive'][:, member.place].astype(bool)
    return arrays['step'], np.where(alive, values, np.nan)

  def of(self, cell: Cell, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Steps (t,) and values (t, runs) of a cell; nan from a divergence on."""
    each = (
      self._score(cell, seed, name) or self._logged(cell, seed, name)
      for seed in cell.seeds
    )
    found = [curve for curve in each if curve is not None]
    if not found:
      return np.zeros(0), np.zeros((0, 0))
    steps = np.unique(np.concatenate([s for s, _ in found]))
    table = np.full((len(steps), len(found)), np.nan)
    for i, (at, values) in enumerate(found):
      table[np.searchsorted(steps, at), i] = values
    return steps, table


def _curve_names(ablation: Ablation, stats: Stats) -> list[str]:
  """Scores over time where they were taken, then what can be compared."""
  names, scored = stats.names(), stats.scored(ablation.plan['metrics'])
  known = [n for n in _CURVES if n in names]
  return (scored + known) or names[:3]


def _grouped(ablation: Ablation) -> tuple[dict[str, list[Cell]], list[Any]]:
  """Cells of each panel, and the settings that are told apart by colour."""
  cells = [row.cell for row in ablation.ranking]
  flags = list(ablation.vary)
  last = flags[-1] if flags else ''
  settings: list[Any] = []
  for cell in ablation.cells:
    if cell.values.get(last) not in settings:
      settings.append(cell.values.get(last))
  if not flags or len(settings) > _LINES:
    return {cell.name: [cell] for cell in cells}, []
  groups: dict[str, list[Cell]] = {}
  for cell in cells:
    others = [short(f, v) for f, v in cell.values.items() if f != last]
    groups.setdefault(' · '.join(others), []).append(cell)
  return groups, settings


def curves(ablation: Ablation, stats: Stats) -> dict[str, Any]:
  """Learning curves: medians and quartiles over the runs of each cell."""
  from gan_jax.ablation import figures

  groups, settings = _grouped(ablation)
  left_out = max(0, len(groups) - _PANELS)
  groups = dict(list(groups.items())[:_PANELS])
  last = list(ablation.vary)[-1] if settings else ''
  shades = figures.colours(settings) if settings else [figures.COLOURS[0]]

  def colour(cell: Cell) -> str:
    return shades[settings.index(cell.values.get(last)) if settings else 0]

  found = []
  for name in _curve_names(ablation, stats):
    curve = _CURVES.get(name, Curve(name))
    lines = {
      title: [(colour(cell), *stats.of(cell, name)) for cell in cells]
      for title, cells in groups.items()
    }
    if all(len(steps) < 2 for each in lines.values() for _, steps, _ in each):
      continue  # a moment is no curve
    panels = figures.panels(name, lines, curve.level, curve.floor)
    if panels:
      found.append(
        {'title': curve.title, 'caption': curve.caption, 'panels': panels}
      )
  legend = [short(last, s) for s in settings]
  return {
    'figures': found,
    'logged': bool(stats.names()),
    'legend': list(zip(legend, shades, strict=True)) if settings else [],
    'left_out': left_out,
    'single': len(groups) == 1,
  }
