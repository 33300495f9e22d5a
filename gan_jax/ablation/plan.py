"""The plan of an ablation: what is asked for, and the runs that it makes.

Needs no JAX, so that what is wrong with a request is answered at once.
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
from gan_jax.config.schema import Config, ConfigError


@dataclasses.dataclass(frozen=True)
class Request:
  """What is asked for, as the flags of `gan_jax.ablate` have it.

  Attributes:
    base: the configuration that the cells vary; its seed is the first one.
    vary: words of the axes.
    seeds: how many.
    search_seed: of what ranges draw.
    layout: one of `population.LAYOUTS`, or auto.
    primary: the score that ranks; empty for the first one.
    better: lower or higher; empty for what its metric says.
    published: file of published values.
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
class Plan:
  """What an ablation is made of.

  Attributes:
    request: what was asked for.
    axes: what is varied.
    cells: the configurations.
    programs: all runs, those that are compiled as one together.
  """

  request: Request
  axes: tuple[Axis, ...]
  cells: tuple[Cell, ...]
  programs: tuple[tuple[Member, ...], ...]

  @property
  def base(self) -> Config:
    """The configuration that the cells vary."""
    return self.request.base

  @property
  def folder(self) -> pathlib.Path:
    """Of the ablation."""
    return pathlib.Path(self.base.workdir)

  @property
  def seeds(self) -> list[int]:
    """Of every cell."""
    return [*range(self.base.seed, self.base.seed + self.request.seeds)]

  @property
  def runs(self) -> int:
    """How many there are."""
    return sum(map(len, self.programs))

  def program_folder(self, number: int) -> pathlib.Path:
    """Of one program."""
    return self.folder / 'programs' / f'{number:03d}'

  def chosen(self) -> list[int]:
    """Programs that `--only` asks for.

    Raises:
      ConfigError: if it is ill formed or asks for none.
    """
    every = range(len(self.programs))
    only = self.request.only
    if not only:
      return [*every]
    found = re.fullmatch(r'(\d+)/(\d+)', only)
    k, n = map(int, found.groups()) if found else (0, 0)
    if not 1 <= k <= n:
      raise ConfigError(f'--only={only}: write K/N with K from 1 to N')
    return [*every[k - 1 :: n]]

  def result(self, number: int) -> dict[str, Any] | None:
    """How a program ended; None before, or if that was damaged since."""
    path = self.program_folder(number) / 'results.json'
    if not path.is_file():
      return None
    try:
      found: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
      found['runs']
    except (ValueError, KeyError, TypeError):
      return None  # its checkpoint gives it again
    return found

  def finished(self, number: int) -> bool:
    """Whether there is nothing left to do; a crash is tried again."""
    result = self.result(number)
    return result is not None and not result.get('message')


def default_metrics(config: Config) -> str:
  """The metrics of an ablation that names none.

  Raises:
    ConfigError: for images, of which there is no telling.
  """
  if config.metrics:
    return config.metrics
  if config.dataset in ('ring', 'grid', 'mixture_1d'):
    return 'modes'
  if config.dataset in ('gaussian_1d', 'spiral'):
    return 'density'
  known = ', '.join(names('gan_jax.metrics', 'METRICS'))
  raise ConfigError(f'--metrics=: say what runs are compared by: {known}')


def _check_features(spec: str) -> None:
  stem, known = spec.partition('-')[0], names('gan_jax.features', 'FEATURES')
  if spec and stem not in known:
    raise ConfigError(f'--features={spec}: {validate.nearest(stem, known)}')


def make_plan(request: Request) -> Plan:
  """The plan of a request; needs no JAX.

  Raises:
    ConfigError: naming the flag, the value and the remedy.
  """
  base = request.base
  if not base.workdir:
    raise ConfigError(
      '--workdir=: name the folder of the ablation, for example'
      ' --workdir=runs/ablation'
    )
  if base.multihost:
    raise ConfigError(
      '--multihost=true: an ablation is spread over processes by --only=K/N;'
      ' leave it out'
    )
  for name in ('keep_best', 'dynamics_every'):
    if getattr(base, name):
      raise ConfigError(
        f'--{name}={getattr(base, name)}: has no effect in an ablation; leave'
        ' it out, or run gan_jax.train'
      )
  if request.seeds < 1 or base.seed + request.seeds > 2**31:
    raise ConfigError(
      f'--seeds={request.seeds}: use 1 or more, and 2 or more for a spread'
    )
  if request.search_seed < 0:
    raise ConfigError(f'--search_seed={request.search_seed}: use 0 or more')
  if request.better not in ('', 'lower', 'higher'):
    raise ConfigError(f'--better={request.better}: use lower or higher')
  base = dataclasses.replace(base, metrics=default_metrics(base))
  _check_features(base.features)
  published(request.published)
  axes = grid.axes(request.vary, request.search_seed)
  cells = grid.cells(axes)
  seeds = range(base.seed, base.seed + request.seeds)
  runs = grid.members(base, cells, seeds)
  programs = tuple(map(tuple, grid.programs(runs)))
  request = dataclasses.replace(request, base=base)
  plan = Plan(request, tuple(axes), tuple(cells), programs)
  plan.chosen()
  return plan


def published(path: str) -> dict[str, Any] | None:
  """Published values, to be shown beside ours: `{source, rows}`.

  Raises:
    ConfigError: if the file cannot be read or is something else.
  """
  if not path:
    return None
  try:
    found = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
    rows = {
      label: (float(mean), None if std is None else float(std))
      for label, (mean, std) in found['rows'].items()
    }
    return {'source': str(found['source']), 'rows': rows}
  except OSError as error:
    raise ConfigError(
      f'--published={path}: cannot be read ({error.strerror}); give a JSON file'
      ' of published values, or leave it out'
    ) from error
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise ConfigError(
      f'--published={path}: give a JSON file {{"source": ..., "rows": {{label:'
      f' [mean, deviation or null]}}}} ({type(error).__name__}: {error})'
    ) from error


# Names of scores.


def _stem(name: str) -> str:
  return name.partition('@')[0]


def _found(name: str, scores: Mapping[str, str]) -> tuple[str, str] | None:
  """A score by its whole name or by that without the features, and `better`.

  >>> _found('fid', {'fid@inception-768': 'lower'})
  ('fid@inception-768', 'lower')
  """
  if name in scores:
    return name, scores[name]
  for declared, better in scores.items():
    if _stem(declared) == name:
      return declared, better
    if declared.endswith('*') and name.startswith(declared[:-1]):
      return name, better
  return None


def ranking(request: Request, scores: Mapping[str, str]) -> tuple[str, str]:
  """The score that ranks, and whether lower or higher is better.

  Args:
    request: its `primary` may leave out the features: `fid`.
    scores: the names there are, and which values are better.

  Raises:
    ConfigError: if `--primary` is none of them, or nobody says what is better.
  """
  found = _found(request.primary or next(iter(scores)), scores)
  if found is None:
    raise ConfigError(
      f'--primary={request.primary}: is none of the scores that'
      f' --metrics={request.base.metrics} gives; use one of {", ".join(scores)}'
    )
  name, better = found
  if not (request.better or better):
    raise ConfigError(
      f'--primary={name}: neither low nor high values of it are better by'
      ' themselves; say which are meant to be with --better=lower or'
      ' --better=higher, or rank by another score'
    )
  return name, request.better or better
