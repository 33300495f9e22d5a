"""The report of a run: one self-contained HTML file.

Drawn from the files of the workdir alone, whether the run has ended or not.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gan_jax.config import schema as config_lib
from gan_jax.config.schema import Config
from gan_jax.runtime.errors import ArgumentError, Error
from gan_jax.runtime.files import write_atomic

_SHOWN = 6  # snapshots of a run that are drawn


def spread(items: Sequence[Any], count: int = _SHOWN) -> list[Any]:
  """At most `count` of some items: first, last, and evenly between."""
  if len(items) <= count:
    return list(items)
  last = len(items) - 1
  return [items[round(i * last / (count - 1))] for i in range(count)]


def _snapshots(workdir: pathlib.Path, kind: str, suffix: str) -> dict[int, Any]:
  """Snapshot files by step."""
  paths = {}
  for path in sorted((workdir / 'samples').glob(f'{kind}_*.{suffix}')):
    match = re.fullmatch(rf'{kind}_(\d+)\.{suffix}', path.name)
    if match:
      paths[int(match[1])] = path
  return paths


def _settings(config: Config) -> list[dict[str, Any]]:
  """Every flag with its value, those that differ from the default first."""
  rows = []
  plain = Config(dataset=config.dataset)  # with the network of these data
  for name, field in config_lib.FIELDS.items():
    value = getattr(config, name)
    default = field.default if name == 'dataset' else getattr(plain, name)
    rows.append(
      {
        'name': name,
        'value': str(value).lower() if isinstance(value, bool) else value,
        'help': field.metadata['help'],
        'set': value != default,
      }
    )
  return sorted(rows, key=lambda row: not row['set'])


def _duration(seconds: float) -> str:
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest} s' if minutes else f'{rest} s'


def summary(
  config: Config, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> list[str]:
  """The run in a few plain sentences."""
  finite = [r for r in rows if math.isfinite(r.get('game/value') or math.nan)]
  last = finite[-1] if finite else {}
  # run.json is of the last stop; a run that was continued has logged more.
  step = max(facts.get('step', 0), rows[-1]['step'] if rows else 0)
  seconds = max(facts.get('train_sec', 0), last.get('time/train_sec', 0))
  outcome = {
    'done': 'The run is complete.',
    'saved': 'The run was stopped by a signal and saved; the same command'
    ' continues it.',
    'diverged': f'The run diverged at step {step:,}: a loss or gradient was'
    ' not finite.',
    'running': 'The run had not ended when this was written.',
  }[facts.get('outcome', 'running')]
  sentences = [
    f'A generator and a discriminator ({config.network}) played the'
    f' {config.objective.replace("_", "-")} game on {config.dataset} for'
    f' {step:,} of {config.steps:,} steps'
    + (f', {_duration(seconds)} of training' if seconds else '')
    + f'. {outcome}'
  ]
  if last:
    when = f'at step {last["step"]:,}' if last['step'] != step else 'now'
    value, bound = last['game/value'], last['game/jsd_bound']
    sentences.append(
      f'D {when} says {last["d/prob_real"]:.3f} on real and'
      f' {last["d/prob_fake"]:.3f} on generated samples (1/2 at the'
      f' equilibrium). The value of the game is {value:.3f} (-log 4 ='
      f' {-math.log(4):.3f} at the equilibrium), which proves a'
      f' Jensen-Shannon divergence of at least {max(bound, 0):.3f} nats'
      ' between what D was shown of the two.'
    )
  return sentences


def _pictures(workdir: pathlib.Path) -> dict[str, Any]:
  """Sample grids of an image run, over time and newest."""
  from gan_jax.figures.page import data_uri

  def uri(path: pathlib.Path) -> str:
    return data_uri(path.read_bytes(), 'png')

  kinds = []
  for kind, title in (('ema', 'averaged G'), ('step', 'live G')):
    paths = _snapshots(workdir, kind, 'png')
    if paths:
      newest = max(paths)
      kinds.append(
        {
          'title': title,
          'newest': uri(paths[newest]),
          'step': newest,
          'earlier': [
            {'step': step, 'uri': uri(paths[step])}
            for step in spread(sorted(paths)[:-1])
          ],
        }
      )
  return {'kinds': kinds}


def _density(workdir: pathlib.Path, config: Config) -> dict[str, Any]:
  """Figures of a density run, over time and newest."""
  import numpy as np

  from gan_jax import data
  from gan_jax.figures import density as figures

  paths = _snapshots(workdir, 'step', 'npz')
  if not paths:
    return {}
  density = data.load(config.dataset)
  assert isinstance(density, data.Density)  # only these leave .npz snapshots
  moments = {}
  for step in spread(sorted(paths)):
    with np.load(paths[step]) as arrays:
      moments[step] = dict(arrays)
  newest = moments[max(moments)]
  one = density.dim == 1
  large = figures.density_1d if one else figures.density_2d
  small = figures.densities_1d if one else figures.densities_2d
  measures = [('live G', newest['x'])]
  if 'x_ema' in newest:
    measures.append(('averaged G', newest['x_ema']))
  return {
    'dim': density.dim,
    'step': max(moments),
    'large': large(density, newest),
    'small': small(density, moments),
    'mapped': one and newest['z'].shape[1] == 1,
    'moments': [
      {
        'who': who,
        'mean': ', '.join(f'{m:.3f}' for m in mean),
        'std': ', '.join(f'{s:.3f}' for s in std),
      }
      for who, (mean, std) in [
        *((who, (x.mean(0), x.std(0))) for who, x in measures),
        ('data', _moments(density, newest['real'])),
      ]
    ],
  }


def _moments(density: Any, real: Any) -> tuple[Any, Any]:
  """Mean and std of the data: integrated in 1-D, else of samples."""
  import jax.numpy as jnp
  import numpy as np

  if density.dim > 1 or density.mode_std == 0:
    return real.mean(0), real.std(0)
  low, high = density.extent
  middle, half = (low + high) / 2, high - low  # twice as wide as the picture
  at = np.linspace(middle - half, middle + half, 8192, dtype=np.float32)
  mass = np.exp(
    np.asarray(density.log_prob(jnp.asarray(at[:, None])), np.float64)
  )
  mass /= mass.sum()
  mean = (mass * at).sum()
  return [mean], [math.sqrt((mass * (at - mean) ** 2).sum())]


def _equilibrium(config: Config) -> dict[str, float]:
  """Both losses at the equilibrium, where the objective states them."""
  from gan_jax.config import resolve

  try:
    objective = resolve.components(config, {})['objective']
  except Error:  # one of the user's own, which may not be importable here
    return {}
  # With other labels the optimum is another.
  usual = all(
    getattr(objective, field.name) == field.default
    for field in dataclasses.fields(objective)
  )
  if objective.equilibrium is None or not usual:
    return {}
  return {
    'd/loss': objective.equilibrium.d_loss,
    'g/loss': objective.equilibrium.g_loss,
  }


def render(workdir: str | pathlib.Path) -> str:
  """The report as HTML.

  Raises:
    ArgumentError: if there is no run in the workdir.
  """
  from gan_jax.figures import curves, page
  from gan_jax.training import writers

  folder = pathlib.Path(workdir)
  config = config_lib.read_config(folder)
  try:
    facts = json.loads((folder / 'run.json').read_text())
  except (OSError, json.JSONDecodeError) as error:
    raise ArgumentError(
      'workdir',
      str(workdir),
      f'run.json cannot be read ({error}); it is written when training starts',
    ) from error
  rows = writers.read_rows(folder / 'stats.jsonl')
  analyses = writers.read_rows(folder / 'dynamics.jsonl')
  scored = writers.read_rows(folder / 'metrics.jsonl')
  bounded = facts.get('dataset', {}).get('bounded', True)
  return page.template('report.html.j2').render(
    config=config,
    facts=facts,
    summary=summary(config, facts, rows),
    unfinished=facts.get('outcome') in (None, 'running'),
    pictures=_pictures(folder) if bounded else None,
    density=None if bounded else _density(folder, config),
    curves=curves.curves(rows, _equilibrium(config)) if rows else [],
    scores=curves.scores(scored) if scored else [],
    best=facts.get('best'),
    dynamics=curves.dynamics(analyses) if analyses else [],
    smoothed=len(rows) > curves.MANY,
    settings=_settings(config),
    flagfile=f'{workdir}/config.flags',
  )


def write_report(workdir: str | pathlib.Path) -> pathlib.Path:
  """Writes `report.html` into a workdir and returns its path.

  Raises:
    ArgumentError: if there is no run in the workdir, or no report can be
      written there.
  """
  path = pathlib.Path(workdir) / 'report.html'
  page = render(workdir)
  try:
    write_atomic(path, page)
  except OSError as error:
    raise ArgumentError(
      'workdir',
      str(workdir),
      f'cannot write {path.name} there ({error.strerror or error}); copy the'
      ' folder to a place that you may write to and that has room',
    ) from error
  return path
