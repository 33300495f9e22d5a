"""The plan of an ablation: its cells, their runs, and what is compiled.

Needs no JAX, so that an error in the options is reported at once.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from gan_jax.ablation import grid
from gan_jax.ablation.grid import Axis, Cell, Member
from gan_jax.config import validate
from gan_jax.config.registry import names
from gan_jax.config.schema import Config
from gan_jax.runtime.errors import ArgumentError


@dataclasses.dataclass(frozen=True)
class AblationOptions:
  """The options of an ablation.

  Attributes:
    base: the configuration that the cells vary; its seed is the first one.
    vary: words of the axes (`grid.parse_axis`).
    seeds: runs of each cell.
    search_seed: of the draws of ranges.
    layout: of a program's members: vmap, map, or auto.
    primary: the score that ranks; empty for the first one.
    better: lower or higher; empty for the metric's own direction.
    published: file of published values; empty for none.
    only: 'K/N' for every N-th program from the K-th on; empty for all.
  """

  base: Config
  vary: tuple[str, ...] = ()
  seeds: int = 1
  search_seed: int = 0
  layout: str = 'auto'
  primary: str = ''
  better: str = ''
  published: str = ''
  only: str = ''


@dataclasses.dataclass(frozen=True)
class AblationPlan:
  """The runs of an ablation.

  Attributes:
    options: that it was made of.
    axes: what is varied.
    cells: the configurations.
    programs: all runs, those that are compiled as one together.
  """

  options: AblationOptions
  axes: tuple[Axis, ...]
  cells: tuple[Cell, ...]
  programs: tuple[tuple[Member, ...], ...]

  @property
  def base(self) -> Config:
    """The configuration that the cells vary."""
    return self.options.base

  @property
  def folder(self) -> pathlib.Path:
    """Of the ablation."""
    return pathlib.Path(self.base.workdir)

  @property
  def seeds(self) -> list[int]:
    """Of every cell."""
    return [*range(self.base.seed, self.base.seed + self.options.seeds)]

  @property
  def runs(self) -> int:
    """The number of runs."""
    return sum(map(len, self.programs))

  def program_folder(self, number: int) -> pathlib.Path:
    """Of one program."""
    return self.folder / 'programs' / f'{number:03d}'

  def chosen_programs(self) -> list[int]:
    """Programs that `only` asks for.

    Raises:
      ArgumentError: if it is ill formed.
    """
    programs = range(len(self.programs))
    only = self.options.only
    if not only:
      return [*programs]
    match = re.fullmatch(r'(\d+)/(\d+)', only)
    k, n = map(int, match.groups()) if match else (0, 0)
    if not 1 <= k <= n:
      raise ArgumentError('only', only, 'write K/N with K from 1 to N')
    return [*programs[k - 1 :: n]]

  def read_result(self, number: int) -> dict[str, Any] | None:
    """How a program ended; None before, or if the file was damaged since."""
    path = self.program_folder(number) / 'results.json'
    if not path.is_file():
      return None
    try:
      result: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
      result['runs']
    except (ValueError, KeyError, TypeError):
      return None  # its checkpoint gives it again
    return result

  def is_finished(self, number: int) -> bool:
    """Whether nothing is left to do of a program; a crash is tried again."""
    result = self.read_result(number)
    return result is not None and not result.get('message')


def make_plan(options: AblationOptions) -> AblationPlan:
  """The plan of an ablation; needs no JAX.

  Raises:
    ArgumentError: naming the argument, its value and the remedy.
  """
  base = options.base
  _check_options(options)
  base = dataclasses.replace(base, metrics=choose_metrics(base))
  _check_features(base.features)
  read_published(options.published)
  axes = grid.parse_axes(options.vary, options.search_seed)
  cells = grid.make_cells(axes)
  seeds = range(base.seed, base.seed + options.seeds)
  members = grid.make_members(base, cells, seeds)
  programs = tuple(map(tuple, grid.group_by_program(members)))
  options = dataclasses.replace(options, base=base)
  plan = AblationPlan(options, tuple(axes), tuple(cells), programs)
  plan.chosen_programs()
  return plan


def _check_options(options: AblationOptions) -> None:
  base = options.base
  if not base.workdir:
    raise ArgumentError(
      'workdir',
      '',
      'name the folder of the ablation, for example `workdir=runs/ablation`',
    )
  if base.multihost:
    raise ArgumentError(
      'multihost',
      True,
      'the programs of an ablation are shared out by `only=K/N`; leave it out',
    )
  for name in ('keep_best', 'dynamics_every'):
    if getattr(base, name):
      raise ArgumentError(
        name,
        getattr(base, name),
        'has no effect in an ablation; leave it out, or train a single run',
      )
  if options.seeds < 1 or base.seed + options.seeds > 2**31:
    raise ArgumentError(
      'seeds', options.seeds, 'use 1 or more, and 2 or more for a spread'
    )
  if options.search_seed < 0:
    raise ArgumentError('search_seed', options.search_seed, 'use 0 or more')
  if options.layout not in ('auto', 'vmap', 'map'):
    raise ArgumentError('layout', options.layout, 'use auto, vmap or map')
  if options.better not in ('', 'lower', 'higher'):
    raise ArgumentError('better', options.better, 'use lower or higher')


def choose_metrics(config: Config) -> str:
  """The metrics of an ablation, which may leave them out for densities.

  Raises:
    ArgumentError: for images, which have no default metric.
  """
  if config.metrics:
    return config.metrics
  if config.dataset in ('ring', 'grid', 'mixture_1d'):
    return 'modes'
  if config.dataset in ('gaussian_1d', 'spiral'):
    return 'density'
  known = ', '.join(names('gan_jax.metrics', 'METRICS'))
  raise ArgumentError('metrics', '', f'name what runs are ranked by: {known}')


def _check_features(spec: str) -> None:
  stem, known = spec.partition('-')[0], names('gan_jax.features', 'FEATURES')
  if spec and stem not in known:
    raise ArgumentError('features', spec, validate.nearest(stem, known))


def read_published(path: str) -> dict[str, Any] | None:
  """Published values, to be shown beside ours: `{source, rows}`.

  Raises:
    ArgumentError: if the file cannot be read or has another content.
  """
  if not path:
    return None
  try:
    content = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
    rows = {
      label: (float(mean), None if std is None else float(std))
      for label, (mean, std) in content['rows'].items()
    }
    return {'source': str(content['source']), 'rows': rows}
  except OSError as error:
    raise ArgumentError(
      'published',
      path,
      f'cannot be read ({error.strerror}); give a JSON file of published'
      ' values, or leave it out',
    ) from error
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise ArgumentError(
      'published',
      path,
      'give a JSON file {"source": ..., "rows": {label: [mean, standard'
      f' deviation or null]}} ({type(error).__name__}: {error})',
    ) from error


# The score that ranks.


def choose_primary(
  options: AblationOptions, scores: Mapping[str, str]
) -> tuple[str, str]:
  """The score that ranks, and whether lower or higher is better.

  Args:
    options: `primary` may leave out the features: `fid`.
    scores: the names of all scores, and which values are better.

  Raises:
    ArgumentError: if `primary` is none of them, or neither low nor high values
      are better by themselves.
  """
  match = _find_score(options.primary or next(iter(scores)), scores)
  if match is None:
    raise ArgumentError(
      'primary',
      options.primary,
      f'is none of the scores of `metrics={options.base.metrics}`; use one of'
      f' {", ".join(scores)}',
    )
  name, better = match
  if not (options.better or better):
    raise ArgumentError(
      'primary',
      name,
      'neither low nor high values of it are better by themselves; say which'
      ' are meant to be with `better=lower` or `better=higher`, or rank by'
      ' another score',
    )
  return name, options.better or better


def _find_score(name: str, scores: Mapping[str, str]) -> tuple[str, str] | None:
  """A score by its name with or without the features, and `better`.

  >>> _find_score('fid', {'fid@inception-768': 'lower'})
  ('fid@inception-768', 'lower')
  """
  if name in scores:
    return name, scores[name]
  for score, better in scores.items():
    if score.partition('@')[0] == name:
      return score, better
    if score.endswith('*') and name.startswith(score[:-1]):
      return name, better
  return None
