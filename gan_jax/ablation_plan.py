"""The plan of an ablation, its folder, and what is written there.

`plan.json` says what the folder is for; `programs/NNN/results.json` how the
runs of one program ended, and is there when they have; `results.csv` is made of
those, in the order of the plan, and holds nothing that differs from one
execution to the next.
"""

import contextlib
import csv
import dataclasses
import fcntl
import io
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gan_jax import config as config_lib
from gan_jax import variations
from gan_jax.config import FIELDS, Config, ConfigError
from gan_jax.files import write_atomic
from gan_jax.registry import names
from gan_jax.variations import Axis, Cell, Member, text_of

# Free flags of a run that scores depend on all the same.
_SCORING = ('metrics', 'eval_samples', 'eval_seeds', 'features', 'weights')


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
    """How a program ended; None before."""
    path = self.program_folder(number) / 'results.json'
    if not path.is_file():
      return None
    found: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
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
  if request.seeds < 1 or base.seed + request.seeds > 2**31:
    raise ConfigError(
      f'--seeds={request.seeds}: use 1 or more, and 2 or more for a spread'
    )
  if request.search_seed < 0:
    raise ConfigError(f'--search_seed={request.search_seed}: use 0 or more')
  if request.better not in ('', 'lower', 'higher'):
    raise ConfigError(f'--better={request.better}: use lower or higher')
  base = dataclasses.replace(base, metrics=default_metrics(base))
  axes = variations.axes(request.vary, request.search_seed)
  cells = variations.cells(axes)
  seeds = range(base.seed, base.seed + request.seeds)
  runs = variations.members(base, cells, seeds)
  programs = tuple(map(tuple, variations.programs(runs)))
  request = dataclasses.replace(request, base=base)
  plan = Plan(request, tuple(axes), tuple(cells), programs)
  plan.chosen()
  return plan


# The folder.


def _old_base(told: Mapping[str, Any], folder: pathlib.Path) -> Config:
  unknown = [name for name in told['base'] if name not in FIELDS]
  if unknown:
    raise ConfigError(
      f'--workdir={folder}: holds an ablation of another version, with'
      f' --{unknown[0]}; use another folder'
    )
  return Config(**told['base'])


def difference(told: Mapping[str, Any], plan: Plan) -> list[str]:
  """In what the plan of a folder is another than this one, a line each."""
  old = _old_base(told, plan.folder)
  lines = config_lib.difference(old, plan.base)
  also = [*_SCORING, 'steps']
  for name in also:
    was, now = getattr(old, name), getattr(plan.base, name)
    line = f'--{name}: {was} there, {now} now'
    if was != now and line not in lines:
      lines.append(line)
  for name, value in _asked(plan).items():
    if told['asked'][name] != value:
      lines.append(f'--{name}: {told["asked"][name]} there, {value} now')
  return lines


def _asked(plan: Plan) -> dict[str, Any]:
  request = plan.request
  return {
    'vary': list(request.vary),
    'seeds': request.seeds,
    'search_seed': request.search_seed,
    'layout': request.layout,
  }


def read_plan(folder: pathlib.Path) -> dict[str, Any] | None:
  """`plan.json` of a folder; None if there is none.

  Raises:
    ConfigError: if it cannot be read.
  """
  path = folder / 'plan.json'
  if not path.is_file():
    return None
  try:
    found: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    found['base'], found['asked']
  except (OSError, ValueError, KeyError) as error:
    raise ConfigError(
      f'--workdir={folder}: plan.json cannot be read ({error}); use another'
      ' folder'
    ) from error
  return found


def check(plan: Plan) -> None:
  """Refuses a folder that is unusable or holds something else.

  Raises:
    ConfigError: saying what differs and what to do.
  """
  folder = plan.folder
  told = read_plan(folder)
  if told is not None:
    lines = difference(told, plan)
    if lines:
      raise ConfigError(
        f'--workdir={folder}: holds another ablation:\n'
        + '\n'.join(f'  {line}' for line in lines)
        + '\nUse another --workdir, or the flags of that one.'
      )
  elif folder.is_dir() and not all(
    p.name.startswith(('.lock', '.plan.json')) for p in folder.iterdir()
  ):
    raise ConfigError(
      f'--workdir={folder}: is not empty and holds no ablation; use another'
      ' folder'
    )


@contextlib.contextmanager
def held(folder: pathlib.Path, *, shared: bool = False) -> Iterator[None]:
  """Makes a folder and holds it against another process.

  Args:
    folder: of the ablation, or of one of its programs.
    shared: whether others may hold it too, if they share it as well.

  Raises:
    ConfigError: if it cannot be written, or another process holds it.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / '.lock', 'w')
  except OSError as error:
    raise ConfigError(
      f'--workdir={folder}: cannot write there ({error.strerror or error}); use'
      ' a folder that you may write to'
    ) from error
  with lock:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
      fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise ConfigError(
        f'--workdir={folder}: another ablation is running there; wait for it,'
        ' stop it, or use another folder'
      ) from error
    yield


def published(path: str) -> Any:
  """Published values, to be shown beside ours: `{source, rows}`.

  Raises:
    ConfigError: if the file cannot be read or is something else.
  """
  if not path:
    return None
  try:
    found = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
    assert {'source', 'rows'} <= set(found)
  except (OSError, ValueError, AssertionError, TypeError) as error:
    raise ConfigError(
      f'--published={path}: give a JSON file {{"source": ..., "rows": {{label:'
      f' [mean, std]}}}} ({error})'
    ) from error
  return found


def write_plan(
  plan: Plan,
  environment: Mapping[str, Any],
  protocol: Mapping[str, Any],
  scores: Mapping[str, str],
) -> None:
  """Writes `plan.json`; of one that is there, what its scores are called.

  Args:
    plan: what is written.
    environment: of this process.
    protocol: what scores depend on besides the generators.
    scores: their names, and which values are better (`Metric.scores`).
  """
  told = read_plan(plan.folder)
  if told is None:
    told = _first_told(plan, environment, protocol)
  primary, better = ranking(plan.request, scores)
  told |= {'scores': dict(scores), 'primary': primary, 'better': better}
  told['metrics'] = _columns(scores, results(plan))
  _write_told(plan, told)


def _first_told(
  plan: Plan, environment: Mapping[str, Any], protocol: Mapping[str, Any]
) -> dict[str, Any]:
  vary = {
    name: list(dict.fromkeys(values))
    for axis in plan.axes
    for name, values in axis.columns.items()
  }
  base = dataclasses.asdict(plan.base)
  return {
    'command': environment['command'],
    'base': {k: v for k, v in base.items() if k != 'workdir'},
    'vary': vary,
    'asked': _asked(plan),
    'seeds': plan.seeds,
    'environment': dict(environment),
    'protocol': dict(protocol),
    'published': published(plan.request.published),
    'cells': [
      {'label': cell.label, 'values': cell.told} for cell in plan.cells
    ],
  }


def _write_told(plan: Plan, told: Mapping[str, Any]) -> None:
  text = json.dumps(told, indent=2) + '\n'
  write_atomic(plan.folder / 'plan.json', text)


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


def _declared(plan: Plan, told: Mapping[str, Any]) -> dict[str, str]:
  """Names of scores as the plan has them."""
  from gan_jax.metrics import METRICS

  return dict(told.get('scores') or {}) or {
    # A folder of before there was that.
    name: better
    for metric in plan.base.metrics.split(',')
    if metric in METRICS
    for name, better in METRICS[metric].scores.items()
  }


def _columns(
  scores: Mapping[str, str], runs: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Scores that are known by name, then what else runs have."""
  known = [name for name in scores if not name.endswith('*')]
  also = [name for run in runs for name in run['scores']]
  return list(dict.fromkeys(known + also))


# Results.


def results(plan: Plan) -> list[dict[str, Any]]:
  """Of every run that has ended, in the order of cells and seeds."""
  found: list[dict[str, Any]] = []
  for number in range(len(plan.programs)):
    result = plan.result(number)
    found += result['runs'] if result else []
  return sorted(found, key=lambda run: (run['cell'], run['seed']))


def collect(plan: Plan) -> int:
  """Writes `results.csv`, and in `plan.json` its scores and what ranks.

  Returns:
    How many runs have ended.

  Raises:
    ConfigError: if `--primary` is none of the scores.
  """
  told = read_plan(plan.folder)
  if told is None:
    raise ConfigError(
      f'--workdir={plan.folder}: there is no ablation to collect; start it'
      ' without --collect'
    )
  runs, declared = results(plan), _declared(plan, told)
  scores = _columns(declared, runs)
  flags = list(plan.cells[0].told)
  columns = ['cell', 'label', *flags, 'seed', 'outcome', 'step', *scores]
  columns += [f'evaluation_std_{name}' for name in scores]
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator='\n')
  writer.writeheader()
  for run in runs:
    cell = plan.cells[run['cell']]
    row = {'cell': run['cell'], 'label': cell.label, 'seed': run['seed']}
    row |= {name: text_of(value) for name, value in cell.told.items()}
    row |= {'outcome': run['outcome'], 'step': run['step']}
    row |= run['scores']
    for name, value in run['evaluation_std'].items():
      row[f'evaluation_std_{name}'] = value
    writer.writerow(row)
  write_atomic(plan.folder / 'results.csv', text.getvalue())
  primary, better = ranking(plan.request, declared)
  _write_told(
    plan, told | {'metrics': scores, 'primary': primary, 'better': better}
  )
  return len(runs)
