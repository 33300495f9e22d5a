"""The report of a run: one self-contained HTML page.

Drawn from the files of the workdir alone, whether the run has ended or not.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.config.app import warn
from gan_jax.config.resolve import TRAINER_GROUPS
from gan_jax.config.schema import FIELDS, Config
from gan_jax.data import Density
from gan_jax.game.classes import lay_out, shown_classes
from gan_jax.runtime import places, records
from gan_jax.runtime.errors import ArgumentError, Error
from gan_jax.runtime.files import (
  cannot_write,
  remove_leftovers,
  write_atomic,
)
from gan_jax.runtime.progress import format_bytes
from gan_jax.training.setup import OWN_DATA
from gan_jax.training.workdir import read_config

if TYPE_CHECKING:
  from gan_jax.figures.columns import Columns

_PICTURES = 6  # steps of a run whose samples are drawn


def write_report(workdir: str | pathlib.Path) -> pathlib.Path:
  """Writes `report.html` into a workdir and returns its path.

  Raises:
    ArgumentError: if there is no run in the workdir, or no report can be
      written there.
  """
  workdir = places.resolve('workdir', workdir)
  path = pathlib.Path(workdir) / 'report.html'
  page = render_report(workdir)
  try:
    write_atomic(path, page)
    remove_leftovers(path.parent)
  except OSError as error:
    raise cannot_write('workdir', workdir, error, path.name) from error
  return path


def render_report(workdir: str | pathlib.Path) -> str:
  """The report as HTML.

  Raises:
    ArgumentError: if there is no run in the workdir.
  """
  from gan_jax.figures import curves, page
  from gan_jax.figures.columns import Columns
  from gan_jax.training.writers import read_rows, scan_rows

  folder = pathlib.Path(workdir)
  config = read_config(folder)
  facts = _read_facts(folder)
  rows = Columns(scan_rows(folder / 'stats.jsonl'))
  dynamics = read_rows(folder / 'dynamics.jsonl')
  scores = read_rows(folder / 'metrics.jsonl')
  bounded = facts.get('dataset', {}).get('bounded', True)
  pictures = _draw_grids(folder) if bounded else None
  density = None if bounded else _draw_density(folder, config)
  equilibrium = _equilibrium(config, facts)
  settings = _list_settings(config, facts)
  config = _name_objects(config, facts)
  return page.template('report.html.j2').render(
    config=config,
    facts=facts,
    summary=summarise_run(config, facts, rows),
    unfinished=facts.get('outcome') in (None, 'running'),
    pictures=pictures,
    columns=_name_columns(config, facts),
    density=density,
    curves=curves.curves(rows, equilibrium) if rows.count else [],
    scores=curves.scores(scores) if scores else [],
    best=facts.get('best'),
    dynamics=curves.dynamics(dynamics) if dynamics else [],
    smoothed=len(rows) > curves.MANY,
    settings=settings,
    flagfile=f'{workdir}/config.flags',
  )


def _read_facts(folder: pathlib.Path) -> dict[str, Any]:
  """`run.json`.

  Raises:
    ArgumentError: if it cannot be read.
  """
  try:
    facts = records.read(folder / 'run.json')
    reason = 'there is none'
  except records.DamagedRecord as error:
    facts, reason = None, str(error)
  if facts is None:
    raise ArgumentError(
      'workdir',
      str(folder),
      f'run.json cannot be read ({reason}); it is written when training starts,'
      ' and again where the command that trained is run again',
    )
  return facts


_WAITS = 0.05  # of the time, which the data may take without a word
_WORTH_A_WORD = 10  # seconds of it


def summarise_run(
  config: Config,
  facts: Mapping[str, Any],
  rows: 'Iterable[Mapping[str, Any]] | Columns',
) -> list[str]:
  """The run in a few plain sentences.

  Args:
    config: of the run.
    facts: of run.json.
    rows: of stats.jsonl.
  """
  from gan_jax.figures.columns import columns_of

  rows = columns_of(rows)
  last = rows.latest('game/value')
  # run.json is of the last stop; a run that was continued has logged more.
  step = max(facts.get('step', 0), rows.last.get('step', 0))
  seconds = max(facts.get('train_sec', 0), last.get('time/train_sec', 0))
  outcome = {
    'done': 'The run is complete.',
    'saved': 'The run was stopped by a signal and saved; the same command'
    ' continues it.',
    'diverged': f'The run diverged at step {step:,}: a loss or gradient was'
    ' not finite.',
    'running': 'The run had not ended when this was written.',
  }[facts.get('outcome', 'running')]
  training = f', {_format_seconds(seconds)} of training' if seconds else ''
  sentences = [
    f'A generator and a discriminator ({config.network}) played the'
    f' {config.objective.replace("_", "-")} game on {config.dataset} for'
    f' {step:,} of {config.steps:,} steps{training}. {outcome}'
  ]
  if facts.get('goodput', {}).get('allocated_sec'):
    sentences.append(_describe_goodput(facts['goodput']))
  used = facts.get('memory', {})
  if used.get('program_bytes'):
    sentences.append(
      f'The program takes {format_bytes(used["program_bytes"])} of a device; at'
      f' most {format_bytes(used["peak_bytes"])} were in use.'
    )
  if last and _says_probabilities(config, facts):
    value, bound = last['game/value'], max(last['game/jsd_bound'], 0)
    sentences.append(
      f'At step {last["step"]:,} D says {last["d/prob_real"]:.3f} on real and'
      f' {last["d/prob_fake"]:.3f} on generated samples (1/2 at the'
      f' equilibrium). The value of the game is {value:.3f} (-log 4 ='
      f' {-math.log(4):.3f} at the equilibrium). Where each logit is of one'
      ' sample alone, the Jensen-Shannon divergence between the two'
      f' distributions that D sees is then at least {bound:.3f} nats. Samples'
      ' may get better while this bound grows: D learns, too.'
    )
  wait = rows.mean('data/wait')
  if wait > _WAITS and wait * seconds > _WORTH_A_WORD:
    sentences.append(
      f'The device waited for data during {wait:.0%} of the training. Images'
      ' that were prepared as rows (python -m gan_jax.prepare --out=DIR), a'
      ' disk that is nearer, or more cores would shorten it.'
    )
  return sentences


def _describe_goodput(goodput: Mapping[str, Any]) -> str:
  """Where the time went, the largest parts first."""
  parts = {k: s for k, s in goodput['seconds'].items() if k != 'train'}
  largest = sorted(parts, key=lambda part: -parts[part])
  spent = ', '.join(
    f'{part} {_format_seconds(parts[part])}'
    for part in largest
    if round(parts[part])
  )
  count = goodput['attempts']
  started = f', in {count} processes' if count > 1 else ''
  rest = f' (the rest: {spent})' if spent else ''
  allocated = _format_seconds(goodput['allocated_sec'])
  return (
    f'Of {allocated} that it was given{started},'
    f' {goodput["goodput"]:.0%} went into training that was kept{rest}.'
  )


def _format_seconds(seconds: float) -> str:
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest} s' if minutes else f'{rest} s'


def _name_objects(config: Config, facts: Mapping[str, Any]) -> Config:
  """The options, with names of what was handed in as objects in their place."""
  objects = facts.get('objects', [])
  own = FIELDS if 'trainer' in objects else objects
  names = {}
  if 'objective' in own:
    names['objective'] = facts['identity']['declared']['objective']
  if 'network' in own:
    names['network'] = 'own networks'
  if config.dataset.startswith(OWN_DATA):
    names['dataset'] = facts['dataset']['name']
  return dataclasses.replace(config, **names)


def _list_settings(
  config: Config, facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
  """Every option with its value, those that are not the default first.

  Of a trainer that was handed in, what it says of itself in their place.
  """
  objects = facts.get('objects', [])
  rows = []
  if 'trainer' in objects:
    declared = facts['identity']['declared']
    rows = [
      {'name': path, 'value': value, 'help': '', 'set': True}
      for path, value in declared.items()
      if path not in FIELDS
    ]
  plain = Config(dataset=config.dataset)  # with the network of these data
  for name, field in FIELDS.items():
    if 'trainer' in objects and field.metadata['group'] in TRAINER_GROUPS:
      continue
    value = getattr(config, name)
    default = field.default if name == 'dataset' else getattr(plain, name)
    if name in objects:
      value = 'handed in'
    rows.append(
      {
        'name': name,
        'value': str(value).lower() if isinstance(value, bool) else value,
        'help': field.metadata['help'],
        'set': value != default,
      }
    )
  return sorted(rows, key=lambda row: not row['set'])


def _objective(config: Config, facts: Mapping[str, Any]) -> Any:
  """The objective of a run; None where it is not known by name here."""
  if {'trainer', 'objective'} & {*facts.get('objects', [])}:
    return None
  from gan_jax.config import resolve

  try:
    return resolve.components(config, {})['objective']
  except Error:  # one of the user's own, which may not be importable here
    return None


def _says_probabilities(config: Config, facts: Mapping[str, Any]) -> bool:
  """Whether D's output is a log ratio, or an objective of the user's own."""
  import jax.numpy as jnp

  objective = _objective(config, facts)
  return objective is None or objective.log_ratio(jnp.zeros(1)) is not None


def _equilibrium(config: Config, facts: Mapping[str, Any]) -> dict[str, float]:
  """Both losses at the equilibrium, where the objective states them."""
  objective = _objective(config, facts)
  if objective is None:
    return {}
  # With other labels the optimum is another.
  plain = all(
    getattr(objective, field.name) == field.default
    for field in dataclasses.fields(objective)
  )
  equilibrium = objective.equilibrium
  if equilibrium is None or not plain:
    return {}
  return {'d/loss': equilibrium.d_loss, 'g/loss': equilibrium.g_loss}


# Samples.


def choose_evenly(items: Sequence[Any], count: int = _PICTURES) -> list[Any]:
  """At most `count` of some items: first, last, and evenly between."""
  if len(items) <= count:
    return list(items)
  last = len(items) - 1
  return [items[round(i * last / (count - 1))] for i in range(count)]


def _find_samples(
  workdir: pathlib.Path, kind: str, suffix: str
) -> dict[int, pathlib.Path]:
  """Files of samples by step."""
  files = {}
  for path in sorted((workdir / 'samples').glob(f'{kind}_*.{suffix}')):
    match = re.fullmatch(rf'{kind}_(\d+)\.{suffix}', path.name)
    if match:
      files[int(match[1])] = path
  return files


def _read_samples(
  files: Mapping[int, pathlib.Path], read: Callable[[pathlib.Path], Any]
) -> dict[int, Any]:
  """What some of the files hold; damaged ones are warned of and left out."""
  contents = {}
  for step, path in files.items():
    try:
      contents[step] = read(path)
    except records.DamagedRecord as error:
      warn(f'{path} is damaged ({error}) and left out')
  return contents


def _name_columns(config: Config, facts: Mapping[str, Any]) -> str:
  """What the columns of the grids are, where there are classes."""
  names = facts.get('dataset', {}).get('classes', [])
  if not facts.get('dataset', {}).get('class_counts'):  # nobody is told them
    return ''
  if not lay_out(config.num_samples, len(names))[1]:
    return f'All {len(names):,} classes in turn, row by row.'
  shown = [names[i] for i in shown_classes(len(names))]
  which = f'{len(shown)} of ' if len(shown) < len(names) else ''
  return f'Columns are {which}{len(names):,} classes: {", ".join(shown)}.'


def _draw_grids(workdir: pathlib.Path) -> dict[str, Any]:
  """Sample grids of an image run, over time and newest."""
  from gan_jax.figures.page import data_uri

  kinds = []
  for kind, title in (('ema', 'averaged G'), ('step', 'live G')):
    files = _find_samples(workdir, kind, 'png')
    if files:
      *earlier, newest = sorted(files)
      chosen = {s: files[s] for s in (*choose_evenly(earlier), newest)}
      pictures = _read_samples(chosen, records.read_png)
      if not pictures:
        continue
      uris = {s: data_uri(png, 'png') for s, png in pictures.items()}
      *steps, newest = uris
      kinds.append(
        {
          'title': title,
          'newest': uris[newest],
          'step': newest,
          'earlier': [{'step': step, 'uri': uris[step]} for step in steps],
        }
      )
  return {'kinds': kinds}


def _draw_density(workdir: pathlib.Path, config: Config) -> dict[str, Any]:
  """Figures of a density run, over time and newest."""
  from gan_jax import data
  from gan_jax.figures import density as figures

  files = _find_samples(workdir, 'step', 'npz')
  if not files:
    return {}
  if config.dataset.startswith(OWN_DATA):
    return {}  # its density is not known
  density = data.load(config.dataset)
  assert isinstance(density, Density)  # only these leave .npz files
  chosen = {step: files[step] for step in choose_evenly(sorted(files))}
  names = ('z', 'x', 'grid', 'prob', 'real')
  arrays = _read_samples(chosen, lambda p: records.read_arrays(p, names))
  if not arrays:
    return {}
  newest = arrays[max(arrays)]
  flat = density.dim == 1
  draw_one = figures.density_1d if flat else figures.density_2d
  draw_all = figures.densities_1d if flat else figures.densities_2d
  moments = {'live G': _moments(newest['x'])}
  if 'x_ema' in newest:
    moments['averaged G'] = _moments(newest['x_ema'])
  moments['data'] = _true_moments(density, newest['real'])
  return {
    'dim': density.dim,
    'step': max(arrays),
    'large': draw_one(density, newest),
    'small': draw_all(density, arrays),
    'mapped': flat and newest['z'].shape[1] == 1,
    'moments': [
      {
        'who': who,
        'mean': ', '.join(f'{m:.3f}' for m in mean),
        'std': ', '.join(f'{s:.3f}' for s in std),
      }
      for who, (mean, std) in moments.items()
    ],
  }


Moments = tuple[NDArray[Any], NDArray[Any]]


def _moments(x: NDArray[Any]) -> Moments:
  """Mean and standard deviation of samples (n, dim), each (dim,)."""
  return x.mean(0), x.std(0)


def _true_moments(density: Density, real: NDArray[Any]) -> Moments:
  """Moments of the data: integrated in 1-D, else of samples."""
  from gan_jax.figures.density import true_density

  if density.dim > 1 or density.mode_std == 0:
    return _moments(real)
  low, high = density.extent
  middle, half = (low + high) / 2, high - low  # twice as wide as the picture
  x = np.linspace(middle - half, middle + half, 8192, dtype=np.float32)
  mass = true_density(density, x[:, None])
  mass /= mass.sum()
  mean = (mass * x).sum()
  return np.array([mean]), np.sqrt([(mass * (x - mean) ** 2).sum()])
