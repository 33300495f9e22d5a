"""Which GANs converge on Dirac-GAN: eigenvalues, trajectories, portraits.

`python experiments/dirac/run.py [--steps=N]`

Plays every objective with every regularizer under every schedule by the
package's own train step, and holds it against the closed forms of `theory.py`:
the eigenvalues of the game's Jacobian at the equilibrium, the trajectory step
by step, the factor by which a step near the equilibrium changes the radius.
Writes results.json, table.md, portraits.png and eigenvalues.png beside itself.
"""

import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np
import play
import portraits
import theory
from absl import app, flags
from numpy.typing import NDArray
from play import Setting

HERE = pathlib.Path(__file__).parent
# Steps that are held against the integrator, and how far out: where radii
# grow, or a penalty's slope jumps, so does every rounding.
COMPARED, LONG, LIMIT = 60, 200, 3.0
NEAR = (1e-3, 1e-3)
_FAR = 10.0  # of no return
NOISY = ('simultaneous', 'alternating')

flags.DEFINE_integer('steps', 10_000, 'steps of each game', lower_bound=LONG)

# What the paper says (PAPERS: Mescheder et al. 2018): does it converge?
PAPER: dict[tuple[str, str, str], str] = {
  **{
    ('non_saturating', 'none', schedule): said
    for schedule, said in (
      ('simultaneous', 'no'),
      ('alternating', 'no'),
      ('consensus', 'yes'),
    )
  },
  **{
    (objective, regularizer, schedule): said
    for objective, regularizer, said in (
      ('wasserstein', 'clip', 'no'),
      ('wasserstein', 'wgan_gp', 'no'),
      ('non_saturating', 'noise', 'yes'),
      ('non_saturating', 'r1', 'yes'),
      ('non_saturating', 'r2', 'yes'),
    )
    for schedule in ('simultaneous', 'alternating')
  },
}


def growth(points: NDArray[np.float32]) -> float | None:
  """Factor on the radius a step, while it is small: the slope of its log."""
  radius = np.hypot(*np.float64(points).T)
  away = np.flatnonzero(~((radius > 1e-25) & (radius < 0.02)))
  radius = radius[: away[0] if len(away) else None]
  radius = radius[len(radius) // 10 :]
  if len(radius) < 10:
    return None
  return float(np.exp(np.polyfit(np.arange(len(radius)), np.log(radius), 1)[0]))


def verdict(points: NDArray[np.float32]) -> str:
  """What became of a game, by its last tenth."""
  tenth = max(len(points) // 10, 1)
  last = np.float64(points[-tenth:])
  if not np.isfinite(last).all():
    return 'leaves'
  theta, radius = np.abs(last[:, 0]).max(), np.hypot(*last.T)
  if radius.max() < 0.02:
    return 'converges'
  if radius.max() > _FAR:
    return 'leaves'
  if np.ptp(last, axis=0).max() < 1e-3:
    return 'G converges' if theta < 0.02 else 'stops elsewhere'
  # A root of the steps' number, as where the slope of the pull is 0 at 0.
  halfway = np.hypot(*np.float64(points[4 * tenth : 5 * tenth]).T)
  return 'narrows' if radius.max() < 0.8 * halfway.max() else 'turns'


def spectra() -> list[dict[str, Any]]:
  """Eigenvalues at the equilibrium, found and by theory."""
  rows = []
  for weight in (0.0, play.CONSENSUS):
    schedule = 'consensus' if weight else 'simultaneous'
    found = play.jacobians(play.SETTINGS, schedule)
    for setting, matrix in zip(play.SETTINGS, found, strict=True):
      damping = setting.damping
      row = _spectrum(setting, matrix, damping, weight)
      rows.append(row | {'consensus': weight})
  noisy = play.noisy()
  for setting, matrix in zip(noisy, play.jacobians(noisy), strict=True):
    damping = setting.slopes.curvature * play.NOISE**2
    row = _spectrum(setting, matrix, damping, 0.0)
    rows.append(row | {'regularizer': 'noise', 'consensus': 0.0})
  return rows


def _pairs(values: NDArray[np.complex128]) -> list[list[float]]:
  # By size of the parts, so that conjugates stand in one order.
  values = values[np.lexsort((values.imag, values.real.round(9)))]
  return [[float(x.real), float(x.imag)] for x in values]


def _spectrum(
  setting: Setting, matrix: Any, damping: float | None, consensus: float
) -> dict[str, Any]:
  row: dict[str, Any] = {
    'objective': setting.name,
    'regularizer': setting.regularizer,
    'found': _pairs(np.linalg.eigvals(np.float64(matrix)).astype(complex)),
    'theory': None,
    'difference': None,
  }
  if damping is not None:
    expected = theory.jacobian(setting.slopes, damping, consensus)
    row['theory'] = _pairs(theory.eigenvalues(expected))
    # Of the matrices: a double eigenvalue moves by the root of a rounding.
    row['difference'] = float(np.abs(matrix - expected).max())
  return row


def games(schedule: str, steps: int) -> list[dict[str, Any]]:
  """All games of a schedule: against theory, and how they end."""
  far = play.trajectories(play.SETTINGS, schedule, steps)
  near = play.trajectories(play.SETTINGS, schedule, steps, NEAR)
  rows = []
  for setting, points, small in zip(play.SETTINGS, far, near, strict=True):
    game = setting.game()
    expected = theory.trajectory(game, schedule, play.START, LONG, LIMIT)
    known = setting.regularizer not in theory.NO_EIGENVALUES
    # Where eigenvalues coincide a power of the step's number comes before.
    simple = known and not theory.defective(game, schedule)
    away = np.abs(points[: len(expected)] - expected)
    rows.append(
      {
        'objective': setting.name,
        'regularizer': setting.regularizer,
        'schedule': schedule,
        'verdict': verdict(points),
        'end': [float(x) if np.isfinite(x) else None for x in points[-1]],
        'steps_compared': min(len(expected), COMPARED),
        'difference': float(away[:COMPARED].max(initial=0.0)),
        'difference_long': float(away.max(initial=0.0)),
        'growth': growth(small) if simple else None,
        'theory_growth': theory.modulus(game, schedule) if known else None,
      }
    )
  return rows


def noisy_games(schedule: str, steps: int) -> list[dict[str, Any]]:
  """Every objective with instance noise, which no integrator follows."""
  settings = play.noisy()
  far = play.trajectories(settings, schedule, steps)
  rows = []
  for setting, points in zip(settings, far, strict=True):
    damping = setting.slopes.curvature * play.NOISE**2
    linear = setting._replace(regularizer='r1').game()
    linear = dataclasses.replace(linear, weight=damping)
    rows.append(
      {
        'objective': setting.name,
        'regularizer': 'noise',
        'schedule': schedule,
        'verdict': verdict_noisy(points),
        'end': [float(x) if np.isfinite(x) else None for x in points[-1]],
        'steps_compared': 0,
        'difference': None,
        'difference_long': None,
        'growth': None,
        'theory_growth': theory.modulus(linear, schedule),
      }
    )
  return rows


def verdict_noisy(points: NDArray[np.float32]) -> str:
  """Likewise, of the mean of the last tenth's radius: noise leaves a floor."""
  last = np.float64(points[-max(len(points) // 10, 1) :])
  radius = np.hypot(*last.T)
  if not np.isfinite(radius).all():
    return 'leaves'
  if radius.mean() < 0.2:
    return 'converges'
  if radius.max() > _FAR:
    return 'leaves'
  return 'G converges' if np.abs(last[:, 0]).mean() < 0.1 else 'turns'


def _cell(row: dict[str, Any] | None) -> str:
  if row is None:
    return ''
  factor = row['growth'] or row['theory_growth']
  factor = '' if factor is None else f' {factor:.4f}'
  return f'{row["verdict"]}{factor}'


def paper_table(rows: dict[tuple[str, str, str], dict[str, Any]]) -> list[str]:
  """The combinations of which the paper says whether they converge."""
  lines = [
    '| objective | regularizer | schedule | paper: converges | found |'
    ' radius at the end | factor a step near 0 | its theory |',
    '|' + ' --- |' * 8,
  ]
  for key, said in PAPER.items():
    row = rows[key]
    radius = 'inf' if None in row['end'] else f'{np.hypot(*row["end"]):.2g}'
    factors = [
      '' if row[name] is None else f'{row[name]:.5f}'
      for name in ('growth', 'theory_growth')
    ]
    columns = [*key, said, row['verdict'], radius, *factors]
    lines.append('| ' + ' | '.join(columns) + ' |')
  return lines


def whole_table(rows: dict[tuple[str, str, str], dict[str, Any]]) -> list[str]:
  """Every combination; games that end alike share a line."""
  names = list(theory.SCHEDULES)
  lines = [
    '| objective | regularizer | ' + ' | '.join(names) + ' |',
    '|' + ' --- |' * (len(names) + 2),
  ]
  objectives = list(dict.fromkeys(key[0] for key in rows))
  regularizers = list(dict.fromkeys(key[1] for key in rows))
  for objective in objectives:
    alike: dict[tuple[str, ...], list[str]] = {}
    for regularizer in regularizers:
      cells = tuple(
        _cell(rows.get((objective, regularizer, name))) for name in names
      )
      alike.setdefault(cells, []).append(regularizer)
    for cells, which in alike.items():
      columns = [objective, ', '.join(which), *cells]
      lines.append('| ' + ' | '.join(columns) + ' |')
  return lines


def table(results: dict[str, Any]) -> str:
  """table.md."""
  rows = {
    (r['objective'], r['regularizer'], r['schedule']): r
    for r in results['games']
  }
  worst = results['worst']
  return '\n'.join(
    [
      '# Which GANs converge on Dirac-GAN',
      '',
      f'From {play.START}, {results["steps"]:,} steps of {play.RATE}; penalties'
      f' of weight {play.WEIGHT}, clipping at {play.BOUND}, instance noise of'
      f' {play.NOISE}, consensus {play.CONSENSUS}, unrolled {play.UNROLL}'
      ' steps. Written by `run.py`.',
      '',
      '## Beside the paper',
      '',
      *paper_table(rows),
      '',
      '## Every combination',
      '',
      'What became of it, and the factor on the radius a step near (0, 0): *G'
      ' converges* to the data while D stays elsewhere, *turns* at a distance,'
      ' *narrows* as slowly as a root of the steps, *leaves* for good, or'
      ' *stops elsewhere*, G away from the data.',
      '',
      *whole_table(rows),
      '',
      '## Against theory',
      '',
      '| | games | largest difference |',
      '| --- | --- | --- |',
      *(
        f'| {name} | {count} | {difference:.1e} |'
        for name, (count, difference) in worst.items()
      ),
      '',
    ]
  )


def _worst(results: dict[str, Any]) -> dict[str, tuple[int, float]]:
  """How far from theory each thing is, at the most."""
  exact = [r for r in results['spectra'] if r['regularizer'] != 'noise']
  noisy = [r for r in results['spectra'] if r['regularizer'] == 'noise']
  played = results['games']
  found = {
    'Jacobian at the equilibrium': [r['difference'] for r in exact],
    'Jacobian with instance noise (256 samples)': [
      r['difference'] for r in noisy
    ],
    f'trajectory, each of {COMPARED} steps': [r['difference'] for r in played],
    f'trajectory, each of {LONG} steps': [r['difference_long'] for r in played],
    'factor on the radius': [
      r['growth'] and abs(r['growth'] - r['theory_growth']) for r in played
    ],
  }
  known = {k: [x for x in v if x is not None] for k, v in found.items()}
  return {name: (len(v), max(v)) for name, v in known.items()}


def rounded(x: Any) -> Any:
  """A tree of numbers to seven digits, which float32 has."""
  if isinstance(x, float):
    return float(f'{x:.7g}')
  if isinstance(x, dict):
    return {key: rounded(value) for key, value in x.items()}
  return [rounded(y) for y in x] if isinstance(x, list | tuple) else x


def main(argv: list[str]) -> None:
  """Plays everything and writes it down."""
  del argv
  steps, started = flags.FLAGS.steps, time.perf_counter()
  results: dict[str, Any] = {
    'steps': steps,
    'jax': jax.__version__,
    'device': jax.devices()[0].device_kind,
    'spectra': spectra(),
    'games': [],
  }
  for schedule in theory.SCHEDULES:
    results['games'] += games(schedule, steps)
    if schedule in NOISY:
      results['games'] += noisy_games(schedule, steps)
    print(f'{schedule}: {time.perf_counter() - started:.0f} s', flush=True)
  results['worst'] = _worst(results)
  results['seconds'] = round(time.perf_counter() - started, 1)
  results['cpu_seconds'] = round(time.process_time(), 1)
  portraits.draw(HERE / 'portraits.png', steps)
  portraits.draw_spectra(results['spectra'], HERE / 'eigenvalues.png')
  text = json.dumps(rounded(results), separators=(',', ':'))
  (HERE / 'results.json').write_text(text + '\n')
  (HERE / 'table.md').write_text(table(results))
  print(table(results))


if __name__ == '__main__':
  app.run(main)
