"""The plan of an ablation: its cells, their runs, and what is compiled.

Needs no JAX, so that an error in the options is reported at once.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from gan_jax.ablation import grid
from gan_jax.ablation.grid import Axis, Cell
from gan_jax.ablation.spec import CellSpec
from gan_jax.config.registry import names
from gan_jax.config.schema import FIELDS, Config, ConfigError
from gan_jax.runtime import records
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.names import parse_share, suggest

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class AblationOptions:
  """The options of an ablation.

  Attributes:
    base: the configuration that the cells vary; its seed is the first one.
    vary: words of the axes (`grid.parse_axis`).
    seeds: runs of each cell.
    search_seed: of the draws of ranges.
    layout: of a program's members: vmap, map, or auto.
    split: into how many the runs of each compiled program are split; 0: it is
      not decided yet (`folder.decide_split`).
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
  split: int = 0
  primary: str = ''
  better: str = ''
  published: str = ''
  only: str = ''


class Member(NamedTuple):
  """One run: the index of its cell, its seed, and its options."""

  cell: int
  seed: int
  config: Config


@dataclasses.dataclass(frozen=True)
class AblationPlan:
  """The runs of an ablation.

  Attributes:
    options: that it was made of.
    axes: what is varied.
    cells: the combinations of it.
    specs: what the runs of each cell are made of.
    programs: all runs, those that are compiled as one together, or a part of
      them.
    dataset: data that was handed in; None for those that options name.
    given: an identity that the user vouches for; empty for none.
  """

  options: AblationOptions
  axes: tuple[Axis, ...]
  cells: tuple[Cell, ...]
  specs: tuple[CellSpec, ...]
  programs: tuple[tuple[Member, ...], ...]
  dataset: Any = None
  given: str = ''
  _datasets: dict[Any, Any] = dataclasses.field(
    default_factory=dict, repr=False, compare=False
  )

  @property
  def base(self) -> Config:
    """The configuration that the cells vary."""
    return self.options.base

  @property
  def folder(self) -> pathlib.Path:
    """Of the ablation."""
    return pathlib.Path(self.base.workdir)

  def at(self, workdir: str) -> 'AblationPlan':
    """The same in another folder."""
    base = dataclasses.replace(self.base, workdir=workdir)
    options = dataclasses.replace(self.options, base=base)
    return dataclasses.replace(self, options=options)

  def share(self, only: str) -> 'AblationPlan':
    """What one of several tasks does of it: K/N."""
    options = dataclasses.replace(self.options, only=only)
    return dataclasses.replace(self, options=options)

  def split_by(self, count: int) -> 'AblationPlan':
    """The same with its programs split so, unless that is decided."""
    if self.options.split:
      return self
    options = dataclasses.replace(self.options, split=count)
    programs = tuple(
      part for members in self.programs for part in split(members, count)
    )
    return dataclasses.replace(self, options=options, programs=programs)

  @property
  def claims(self) -> tuple[str, ...]:
    """What of its folder it writes: the programs of `only`, or '*' for all."""
    if not self.options.only:
      return ('*',)
    return tuple(_name_program(n) for n in self.chosen_programs())

  def concerns(self, name: str) -> bool:
    """Whether a file in its folder, or a checkpoint, is read or written."""
    match = re.match(r'(programs/\d+)/', name)
    is_other = match and self.options.only and match[1] not in self.claims
    return not is_other or name.endswith('/results.json')

  @property
  def seeds(self) -> list[int]:
    """Of every cell."""
    return [*range(self.base.seed, self.base.seed + self.options.seeds)]

  @property
  def runs(self) -> int:
    """The number of runs."""
    return sum(map(len, self.programs))

  def spec_of(self, number: int) -> CellSpec:
    """Of the first cell of a program."""
    return self.specs[self.programs[number][0].cell]

  def load_dataset(self, config: Config) -> Any:
    """The data of some options, loaded once."""
    if self.dataset is not None:
      return self.dataset
    key = (config.dataset, config.image_size, config.channels)
    if key not in self._datasets:
      from gan_jax.training import setup

      self._datasets[key] = setup.load_dataset(config)
    return self._datasets[key]

  @property
  def loaded_datasets(self) -> list[Any]:
    """The data that cells are known to train on by now, each once."""
    given = [] if self.dataset is None else [self.dataset]
    return given or [*self._datasets.values()]

  def program_folder(self, number: int) -> pathlib.Path:
    """Of one program."""
    return self.folder / _name_program(number)

  def chosen_programs(self) -> list[int]:
    """Programs that `only` asks for.

    Raises:
      ArgumentError: if it is ill formed.
    """
    programs = range(len(self.programs))
    only = self.options.only
    if not only:
      return [*programs]
    k, n = parse_share('only', only)
    return [*programs[k - 1 :: n]]

  def read_result(self, number: int) -> dict[str, Any] | None:
    """How a program ended; None before, or if the file was damaged since."""
    path = self.program_folder(number) / 'results.json'
    try:
      result = records.read(path)
    except records.DamagedRecord:
      return None  # its checkpoint gives it again
    return result if result and 'runs' in result else None

  def is_finished(self, number: int) -> bool:
    """Whether nothing is left to do of a program; a crash is tried again."""
    result = self.read_result(number)
    return result is not None and not result.get('message')


def _name_program(number: int) -> str:
  return f'programs/{number:03d}'


def make_plan(options: AblationOptions) -> AblationPlan:
  """The plan of an ablation of names and numbers; needs no JAX.

  Raises:
    ArgumentError: naming the argument, its value and the remedy.
  """
  check_options(options)
  base = with_metrics(options.base)
  axes = grid.parse_axes(options.vary, options.search_seed)

  def make_spec(values: Mapping[str, Any]) -> CellSpec:
    return CellSpec(dataclasses.replace(base, **values).validate())

  options = dataclasses.replace(options, base=base)
  return assemble_plan(options, axes, make_spec)


def assemble_plan(
  options: AblationOptions,
  axes: Sequence[Axis],
  make_spec: Callable[[Mapping[str, Any]], CellSpec],
  *,
  dataset: Any = None,
  given: str = '',
) -> AblationPlan:
  """The plan of a grid: all cells, their runs, and what is compiled.

  Args:
    options: of the ablation.
    axes: of the grid.
    make_spec: the spec of a cell from its values.
    dataset: data that was handed in.
    given: an identity that the user vouches for.

  Raises:
    ArgumentError: naming the cells whose values are of no use together.
  """
  cells = grid.make_cells(axes)
  specs: list[CellSpec] = []
  problems: dict[str, str] = {}
  for i, cell in enumerate(cells):
    try:
      specs.append(make_spec(cell.values))
    except ArgumentError as error:
      problems[f'cell {i} ({cell.label})'] = str(error)
  if len(problems) == len(cells) and len({*problems.values()}) == 1:
    raise ConfigError(*{*problems.values()})  # of what all cells share
  if problems:
    lines = [f'{cell}: {problem}' for cell, problem in problems.items()]
    raise ConfigError('\n'.join(lines))
  seeds = range(options.base.seed, options.base.seed + options.seeds)
  programs = tuple(
    tuple(
      Member(i, seed, dataclasses.replace(specs[i].config, seed=seed))
      for i in program
      for seed in seeds
    )
    for program in group_by_program(specs)
  )
  whole = dataclasses.replace(options, split=0)
  plan = AblationPlan(
    whole, tuple(axes), tuple(cells), tuple(specs), programs, dataset, given
  )
  plan.chosen_programs()
  return plan.split_by(options.split) if options.split else plan


def group_by_program(specs: Sequence[CellSpec]) -> list[list[int]]:
  """Cells by what is compiled, in the order in which each first comes."""
  keys: list[Any] = []
  programs: list[list[int]] = []
  for i, spec in enumerate(specs):
    key = spec.program_key()
    if key not in keys:
      keys.append(key)
      programs.append([])
    programs[keys.index(key)].append(i)
  return programs


def choose_split(programs: int, tasks: int) -> int:
  """Into how many each program is split, so that each task has something to do.

  >>> choose_split(2, 6), choose_split(3, 4), choose_split(4, 3)
  (3, 2, 1)
  """
  return max(1, -(-tasks // programs))


def split(members: Sequence[T], count: int) -> list[tuple[T, ...]]:
  """Members dealt out in their order; none of the parts is empty.

  >>> split('abcde', 2), split('ab', 3)
  ([('a', 'b', 'c'), ('d', 'e')], [('a',), ('b',)])
  """
  count = min(count, len(members))
  size, more = divmod(len(members), count)
  ends = [size * (i + 1) + min(i + 1, more) for i in range(count)]
  return [
    tuple(members[start:end])
    for start, end in zip([0, *ends], ends, strict=False)
  ]


def check_options(options: AblationOptions) -> None:
  """Checks what needs no cell.

  Raises:
    ArgumentError: naming the argument, its value and the remedy.
  """
  base = options.base
  if not base.workdir:
    raise ArgumentError(
      'workdir',
      '',
      'name the folder of the ablation, for example `workdir=runs/ablation`',
    )
  if base.multihost and options.only:
    raise ArgumentError(
      'only',
      options.only,
      'has no use beside `multihost=true`, which gives each process of the job'
      ' its share; leave one of them out',
    )
  drawn = any('uniform(' in word for word in options.vary)
  if options.search_seed and not drawn:
    raise ArgumentError(
      'search_seed',
      options.search_seed,
      'has no effect: no axis of `vary` draws its values; leave it out',
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
  if options.split < 0:
    remedy = 'use 1 or more, or 0 for as many as there are processes'
    raise ArgumentError('split', options.split, remedy)
  if options.search_seed < 0:
    raise ArgumentError('search_seed', options.search_seed, 'use 0 or more')
  if options.layout not in ('auto', 'vmap', 'map'):
    raise ArgumentError('layout', options.layout, 'use auto, vmap or map')
  if options.better not in ('', 'lower', 'higher'):
    raise ArgumentError('better', options.better, 'use lower or higher')
  _check_features(base.features)
  read_published(options.published)


def check_actions(
  collect: bool, dry_run: bool, only: str, multihost: bool = False
) -> None:
  """Refuses what a call that only collects has no use of.

  Raises:
    ArgumentError: naming it.
  """
  given = {'dry_run': dry_run, 'only': only, 'multihost': multihost}
  for name, value in given.items():
    if collect and value:
      raise ArgumentError(name, value, 'has no effect beside `collect`')


def idle_options(base: Config) -> list[str]:
  """Warnings of options of the runs that are not read in an ablation."""
  return [
    f'`{name}={getattr(base, name)}`: has no effect in an ablation, {reason}'
    for name, reason in (
      ('sample_every', 'which draws samples at the end of its runs'),
      ('keep_checkpoints', 'which keeps two'),
    )
    if getattr(base, name) != FIELDS[name].default
  ]


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
  choices = ', '.join(names('gan_jax.metrics', 'METRICS'))
  raise ArgumentError('metrics', '', f'name what runs are ranked by: {choices}')


def with_metrics(config: Config) -> Config:
  """A configuration with the metrics that its runs are scored by."""
  return dataclasses.replace(config, metrics=choose_metrics(config))


def _check_features(spec: str) -> None:
  stem, choices = spec.partition('-')[0], names('gan_jax.features', 'FEATURES')
  if spec and stem not in choices:
    raise ArgumentError('features', spec, suggest(stem, choices))


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
