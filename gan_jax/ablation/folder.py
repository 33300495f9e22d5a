"""The folder of an ablation: locked, checked against its plan, and written.

`plan.json` says what the folder is for; `programs/NNN/results.json` how the
runs of one program ended, and is there when they have; `interim_scores.json`
what they scored before. `results.csv` and `scores.csv` are made of those, in
the order of the plan, and hold nothing that differs from one execution to the
next.
"""

import contextlib
import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gan_jax.ablation import plan as plan_lib
from gan_jax.ablation.grid import disarm, format_value
from gan_jax.ablation.plan import AblationPlan, choose_primary, read_published
from gan_jax.ablation.spec import is_of_trainer
from gan_jax.config.app import warn
from gan_jax.config.schema import FIELDS, Config
from gan_jax.runtime import locks, places, records
from gan_jax.runtime.errors import ArgumentError, IdentityError
from gan_jax.runtime.files import cannot_write, write_atomic
from gan_jax.runtime.names import parse_share

# Of what is there before an ablation: of a kill at its start, `compile_for`, a
# process that came first.
_BEGINNING = (
  *('.lock', '.lease-', '.plan.json', 'compile_for_'),
  places.PICKS,
)
_PLAN_COPY = 'programs/plan.json'
# Options that may change while a run continues, but on which scores depend.
_SCORING = ('metrics', 'eval_samples', 'eval_seeds', 'features', 'weights')


@contextlib.contextmanager
def lock_folder(
  folder: pathlib.Path, *, shared: bool = False
) -> Iterator[None]:
  """Makes a folder and locks it against another process.

  Args:
    folder: of the ablation, or of one of its programs.
    shared: whether others may lock it too, if they share it as well.

  Raises:
    ArgumentError: if it cannot be written, or another process locked it.
  """
  with contextlib.ExitStack() as stack:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      stack.enter_context(locks.hold(folder, warn, shared=shared))
    except OSError as error:
      raise cannot_write('workdir', folder, error) from error
    except locks.Held as held_by:
      who = f' ({held_by})' if str(held_by) else ''
      raise ArgumentError(
        'workdir',
        str(folder),
        f'another ablation is running there{who}; wait for it, stop it, or use'
        ' another folder',
      ) from held_by
    yield


# The plan.


def check_folder(plan: AblationPlan) -> None:
  """Raises if the folder is unusable or holds something else.

  Nothing is known yet of one in an object store, before it is fetched.

  Raises:
    ArgumentError: if it is not empty and holds no ablation.
    IdentityError: if it holds another ablation, with a line a difference.
  """
  if places.scheme_of(plan.base.workdir):
    return
  folder = plan.folder
  places.check_workdir(folder)
  recorded = read_plan(folder)
  if recorded is not None:
    lines = list_differences(recorded, plan)
    if lines:
      raise IdentityError(
        f'`workdir={folder}` holds another ablation:\n'
        + '\n'.join(f'  {line}' for line in lines)
        + '\nUse another `workdir`, or the options of that one.'
      )
  elif folder.is_dir() and not all(
    p.name.startswith(_BEGINNING) for p in folder.iterdir()
  ):
    raise ArgumentError(
      'workdir',
      str(folder),
      'is not empty and holds no ablation; use another folder',
    )


def decide_split(plan: AblationPlan, processes: int = 1) -> AblationPlan:
  """A plan with its programs split, as options say, its folder, or its tasks.

  Args:
    plan: of the ablation.
    processes: that share it out, where options do not say so by `only`.

  Raises:
    ArgumentError: if the folder's plan cannot be read.
  """
  if plan.options.split:
    return plan
  recorded = _read_anywhere(plan)
  if recorded is not None:
    return plan.split_by(int(recorded.get('options', {}).get('split', 1)))
  only = plan.options.only
  tasks = parse_share('only', only)[1] if only else processes
  return plan.split_by(plan_lib.choose_split(len(plan.programs), tasks))


def _read_anywhere(plan: AblationPlan) -> dict[str, Any] | None:
  """`plan.json` of a folder, or of a URL; None if there is none to be read."""
  url = plan.base.workdir
  if not places.scheme_of(url):
    return read_plan(plan.folder)
  from gan_jax.runtime.store import Store

  store = Store(url)
  for name in ('plan.json', _PLAN_COPY):
    with store.refusing():
      content = store.read(name)
    with contextlib.suppress(records.DamagedRecord):
      if content is not None:
        return records.parse(content)
  return None


def check_numerics(folder: pathlib.Path, recorded: Mapping[str, Any]) -> None:
  """Refuses to go on under settings of JAX that change the numbers.

  Raises:
    IdentityError: a line for each difference.
  """
  from gan_jax.runtime import numerics  # which needs JAX

  lines = numerics.differences(recorded.get('numerics', {}))
  if lines:
    raise IdentityError(
      f'`workdir={folder}`: was begun under other settings of JAX:\n'
      + '\n'.join(f'  {line}' for line in lines)
      + '\nUse another `workdir`, or the settings of that ablation.'
    )


def list_differences(
  recorded: Mapping[str, Any], plan: AblationPlan
) -> list[str]:
  """Differences between the plan of a folder and this one, a line each."""
  old = _read_base(recorded, plan.folder)
  replaced = _replaced_options(plan)
  before = {
    name: getattr(old, name)
    for name, field in FIELDS.items()
    if name in _SCORING or not field.metadata['free']
    if name not in replaced
  }
  now = {name: getattr(plan.base, name) for name in before}
  before |= {'split': 1} | recorded['options']
  now |= _grid_options(plan)
  if not plan.options.split:
    now['split'] = before['split']
  if recorded.get('cells') == _describe_cells(plan):  # 1e-3 and 0.001
    now['vary'] = before['vary']
  for values in (before, now):
    values['dataset'] = _full_path(values['dataset'])
    values['vary'] = ' '.join(values['vary'])
  return [
    f'{name}: {before[name]} there, {now[name]} now'
    for name in before
    if before[name] != now[name]
  ]


def _full_path(dataset: str) -> str:
  """A dataset's name; that of a folder or file in one spelling for all."""
  kind, colon, path = dataset.partition(':')
  if not colon or kind not in ('folder', 'density') or places.scheme_of(path):
    return dataset
  return f'{kind}:{os.path.realpath(os.path.expanduser(path))}'


def _read_base(recorded: Mapping[str, Any], folder: pathlib.Path) -> Config:
  unknown = [name for name in recorded['base'] if name not in FIELDS]
  if unknown:
    raise ArgumentError(
      'workdir',
      str(folder),
      f'holds an ablation of another version, with `{unknown[0]}`; use another'
      ' folder',
    )
  return Config(**recorded['base'])


def _grid_options(plan: AblationPlan) -> dict[str, Any]:
  """Options beside the base configuration that may not change."""
  options = plan.options
  return {
    'vary': list(options.vary),
    'seeds': options.seeds,
    'search_seed': options.search_seed,
    'layout': options.layout,
    'split': max(1, options.split),
  }


def read_plan(folder: pathlib.Path) -> dict[str, Any] | None:
  """`plan.json` of a folder; None if there is none.

  Raises:
    ArgumentError: if it cannot be read.
  """
  path, fault = folder / 'plan.json', None
  for copy in (path, _plan_copy(folder)):
    try:
      plan = records.read(copy)
      if plan is None:
        continue
      plan['base'], plan['options'], plan['scores']
    except (records.DamagedRecord, KeyError) as error:
      fault = fault or error
      continue
    if copy != path:
      warn(f'{path} is damaged or gone, and written again from {copy}')
      with contextlib.suppress(OSError):
        records.write(path, plan)
    return plan
  if fault is None:
    return None
  raise ArgumentError(
    'workdir',
    str(folder),
    f'plan.json cannot be read ({fault}), nor a copy of it; bring it back, or'
    ' use another folder',
  ) from fault


def _plan_copy(folder: pathlib.Path) -> pathlib.Path:
  return folder / _PLAN_COPY


def write_plan(
  plan: AblationPlan, facts: Mapping[str, Any], scores: Mapping[str, str]
) -> None:
  """Writes `plan.json`, or into an existing one the names of the scores.

  Args:
    plan: of the ablation.
    facts: further ones: the environment, and the protocol of the scores.
    scores: their names, and which values are better (`Metric.scores`).
  """
  record = read_plan(plan.folder) or _make_record(plan, facts)
  _write_record(plan, record | {'scores': dict(scores)}, read_runs(plan))


def _make_record(
  plan: AblationPlan, facts: Mapping[str, Any]
) -> dict[str, Any]:
  vary = {
    name: list(dict.fromkeys(values))
    for axis in plan.axes
    for name, values in axis.columns.items()
  }
  base = dataclasses.asdict(plan.base)
  for name in _replaced_options(plan):
    base.pop(name)
  return {
    'command': facts['environment']['command'],
    'base': {k: v for k, v in base.items() if k != 'workdir'},
    'vary': vary,
    'options': _grid_options(plan),
    'seeds': plan.seeds,
    **facts,
    'published': read_published(plan.options.published),
    'cells': _describe_cells(plan),
  }


def _describe_cells(plan: AblationPlan) -> list[dict[str, Any]]:
  return [
    {'label': cell.label, 'values': dict(cell.settings)} for cell in plan.cells
  ]


def _replaced_options(plan: AblationPlan) -> list[str]:
  """Options in whose place all cells have an object."""
  options = {
    name
    for name, field in FIELDS.items()
    if plan.specs[0].trainer is not None and is_of_trainer(field)
  }
  shared = [set(spec.objects) for spec in plan.specs]
  return sorted(options.union(set.intersection(*shared)))


def _write_record(
  plan: AblationPlan,
  record: Mapping[str, Any],
  runs: Sequence[Mapping[str, Any]],
) -> list[str]:
  """Writes `plan.json` with what every call may change; the score columns."""
  primary, better = choose_primary(plan.options, record['scores'])
  columns = _score_columns(record['scores'], runs)
  changed: dict[str, Any] = {
    'metrics': columns,
    'primary': primary,
    'better': better,
  }
  if plan.options.published:
    changed['published'] = read_published(plan.options.published)
  for path in (plan.folder / 'plan.json', _plan_copy(plan.folder)):
    path.parent.mkdir(exist_ok=True)
    records.write(path, {**record, **changed})
  return columns


def _score_columns(
  scores: Mapping[str, str], runs: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Scores that are known by name, then what else runs have."""
  named = [name for name in scores if not name.endswith('*')]
  others = [name for run in runs for name in run['scores']]
  return list(dict.fromkeys(named + others))


# Results.


def read_runs(plan: AblationPlan) -> list[dict[str, Any]]:
  """Every run that has ended, in the order of cells and seeds."""
  runs: list[dict[str, Any]] = []
  for number in range(len(plan.programs)):
    result = plan.read_result(number)
    runs += result['runs'] if result else []
  return sorted(runs, key=lambda run: (run['cell'], run['seed']))


def read_scores(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Scores of a file by their key; none if it is missing or damaged."""
  try:
    return records.read(path) or {}
  except records.DamagedRecord as error:
    warn(f'{path} is damaged ({error}): scored again')
    return {}


def interim_path(plan: AblationPlan, number: int) -> pathlib.Path:
  """The file of what a program's runs scored before their end."""
  return plan.program_folder(number) / 'interim_scores.json'


def read_interim_scores(plan: AblationPlan) -> list[dict[str, Any]]:
  """Scores of all runs before their end, ended or not."""
  rows: dict[tuple[int, int, int], dict[str, Any]] = {}
  for number in range(len(plan.programs)):
    for row in read_scores(interim_path(plan, number)).values():
      rows[row['cell'], row['seed'], row['step']] = row
  return [*rows.values()]


def collect_results(plan: AblationPlan) -> int:
  """Writes `results.csv`, and in `plan.json` its scores and what ranks.

  Where runs were scored during training, `scores.csv` too: every score of every
  run, by step.

  Returns:
    How many runs have ended.

  Raises:
    ArgumentError: if there is no ablation, or `primary` is none of its scores.
  """
  record, runs = _read_record(plan), read_runs(plan)
  scores = _write_record(plan, record, runs)
  facts = ('outcome', 'step')
  write_atomic(
    plan.folder / 'results.csv', _format_csv(plan, runs, facts, scores)
  )
  rows = read_interim_scores(plan)
  if rows:
    rows += [run for run in runs if run['outcome'] == 'done']
    rows.sort(key=lambda row: (row['cell'], row['seed'], row['step']))
    text = _format_csv(plan, rows, ('step',), scores)
    write_atomic(plan.folder / 'scores.csv', text)
  return len(runs)


def read_part(
  plan: AblationPlan,
) -> tuple[dict[str, Any], list[dict[str, str]]]:
  """`plan.json`, and the rows of `results.csv` as they are; writes nothing.

  Raises:
    ArgumentError: if there is no ablation.
  """
  record, runs = _read_record(plan), read_runs(plan)
  facts = ('outcome', 'step')
  text = _format_csv(plan, runs, facts, _score_columns(record['scores'], runs))
  return record, list(csv.DictReader(io.StringIO(text)))


def _read_record(plan: AblationPlan) -> dict[str, Any]:
  record = read_plan(plan.folder)
  if record is None:
    raise ArgumentError(
      'workdir',
      str(plan.folder),
      'there is no ablation to collect; start it without `collect`',
    )
  return record


def _format_csv(
  plan: AblationPlan,
  runs: Sequence[Mapping[str, Any]],
  facts: Sequence[str],
  scores: Sequence[str],
) -> str:
  """A line a run: its cell and settings, these facts of it, its scores."""
  settings = list(plan.cells[0].settings)
  columns = ['cell', 'label', *settings, 'seed', *facts, *scores]
  columns += [f'evaluation_std_{name}' for name in scores]
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator='\n')
  writer.writeheader()
  for run in runs:
    cell = plan.cells[run['cell']]
    row = {'cell': run['cell'], 'seed': run['seed']}
    row['label'] = disarm(cell.label)
    row |= {n: disarm(format_value(v)) for n, v in cell.settings.items()}
    row |= {fact: run[fact] for fact in facts} | run['scores']
    for name, value in run['evaluation_std'].items():
      row[f'evaluation_std_{name}'] = value
    writer.writerow(row)
  return text.getvalue()
