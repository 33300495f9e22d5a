"""The folder of an ablation: held, checked against its plan, and written.

`plan.json` says what the folder is for; `programs/NNN/results.json` how the
runs of one program ended, and is there when they have; `along.json` what they
scored before. `results.csv` and `scores.csv` are made of those, in the order of
the plan, and hold nothing that differs from one execution to the next.
"""

import contextlib
import csv
import dataclasses
import fcntl
import io
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gan_jax.ablation.grid import text_of
from gan_jax.ablation.plan import Plan, published, ranking
from gan_jax.config import schema as config_lib
from gan_jax.config.schema import FIELDS, Config, ConfigError
from gan_jax.runtime.files import write_atomic

# Free flags of a run that scores depend on all the same.
_SCORING = ('metrics', 'eval_samples', 'eval_seeds', 'features', 'weights')


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
    was = told['asked'][name]
    if was != value and name == 'vary':
      lines.append(f'--vary: {" ".join(was)} there, {" ".join(value)} now')
    elif was != value:
      lines.append(f'--{name}: {was} there, {value} now')
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
    found['base'], found['asked'], found['scores']
  except (OSError, ValueError, KeyError, TypeError) as error:
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
  told = read_plan(plan.folder) or _first_told(plan, environment, protocol)
  _write_told(plan, told | {'scores': dict(scores)}, results(plan))


def _write_told(
  plan: Plan, told: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Writes `plan.json` with what each command may ask anew; the columns."""
  primary, better = ranking(plan.request, told['scores'])
  columns = _columns(told['scores'], runs)
  asked: dict[str, Any] = {
    'metrics': columns,
    'primary': primary,
    'better': better,
  }
  if plan.request.published:
    asked['published'] = published(plan.request.published)
  text = json.dumps({**told, **asked}, indent=2) + '\n'
  write_atomic(plan.folder / 'plan.json', text)
  return columns


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


def _columns(
  scores: Mapping[str, str], runs: Sequence[Mapping[str, Any]]
) -> list[str]:
  """Scores that are known by name, then what else runs have."""
  known = [name for name in scores if not name.endswith('*')]
  also = [name for run in runs for name in run['scores']]
  return list(dict.fromkeys(known + also))


def results(plan: Plan) -> list[dict[str, Any]]:
  """Of every run that has ended, in the order of cells and seeds."""
  found: list[dict[str, Any]] = []
  for number in range(len(plan.programs)):
    result = plan.result(number)
    found += result['runs'] if result else []
  return sorted(found, key=lambda run: (run['cell'], run['seed']))


def kept(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Scores of a file by their key; none if it is not there or damaged."""
  with contextlib.suppress(OSError, ValueError):
    found: dict[str, dict[str, Any]] = json.loads(path.read_text('utf-8'))
    return found
  return {}


def along(plan: Plan) -> list[dict[str, Any]]:
  """What runs scored before their end, those too that have not ended."""
  found: dict[Any, dict[str, Any]] = {}
  for number in range(len(plan.programs)):
    for run in kept(plan.program_folder(number) / 'along.json').values():
      found[run['cell'], run['seed'], run['step']] = run
  return [*found.values()]


def collect(plan: Plan) -> int:
  """Writes `results.csv`, and in `plan.json` its scores and what ranks.

  Where runs were scored along the way, `scores.csv` too: every score of every
  run, by step.

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
  runs = results(plan)
  scores = _write_told(plan, told, runs)
  write_atomic(plan.folder / 'results.csv', _table(plan, runs, scores))
  before = along(plan)
  if before:
    whole = before + [run for run in runs if run['outcome'] == 'done']
    whole.sort(key=lambda run: (run['cell'], run['seed'], run['step']))
    text = _table(plan, whole, scores, ('step',))
    write_atomic(plan.folder / 'scores.csv', text)
  return len(runs)


def _table(
  plan: Plan,
  runs: Sequence[Mapping[str, Any]],
  scores: Sequence[str],
  facts: Sequence[str] = ('outcome', 'step'),
) -> str:
  """The text of `results.csv`, or with other facts of a run of `scores.csv`."""
  flags = list(plan.cells[0].told)
  columns = ['cell', 'label', *flags, 'seed', *facts, *scores]
  columns += [f'evaluation_std_{name}' for name in scores]
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator='\n')
  writer.writeheader()
  for run in runs:
    cell = plan.cells[run['cell']]
    row = {'cell': run['cell'], 'label': cell.label, 'seed': run['seed']}
    row |= {name: text_of(value) for name, value in cell.told.items()}
    row |= {fact: run[fact] for fact in facts}
    row |= run['scores']
    for name, value in run['evaluation_std'].items():
      row[f'evaluation_std_{name}'] = value
    writer.writerow(row)
  return text.getvalue()
