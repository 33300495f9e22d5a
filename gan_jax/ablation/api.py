"""Ablations from Python: components and numbers in the place of flags."""

import csv
import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gan_jax.ablation import folder as folder_lib
from gan_jax.ablation import grid, hosts, runner
from gan_jax.ablation.grid import Axis, disarm, format_value
from gan_jax.ablation.plan import (
  AblationOptions,
  AblationPlan,
  assemble_plan,
  check_options,
)
from gan_jax.ablation.progress import describe_plan, say
from gan_jax.ablation.results import AblationResults, make_results, read_results
from gan_jax.ablation.spec import PARTS, CellSpec, vary_spec
from gan_jax.ablation.tables import format_markdown
from gan_jax.ablation.verdict import list_warnings
from gan_jax.config import app
from gan_jax.game.component import Component, snake_case
from gan_jax.game.trainer import Trainer
from gan_jax.metrics import Metric
from gan_jax.runtime import multihost, places, preemption
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.files import write_atomic
from gan_jax.runtime.quiet import quiet_libraries
from gan_jax.training import remote
from gan_jax.training import train as train_lib


class Table:
  """The ranking of an ablation, and the scores behind it.

  Printed, it is a Markdown table with confidence intervals.

  Attributes:
    results: every cell with its scores, ranked and compared.
    folder: of the ablation, or its URL.
  """

  def __init__(
    self, results: AblationResults, folder: str | os.PathLike[str]
  ) -> None:
    """`results`: of the folder."""
    self.results, self.folder = results, folder

  def __str__(self) -> str:
    """The ranking in Markdown, and what is missing of it."""
    return '\n'.join(
      [format_markdown(self.results), *list_warnings(self.results)]
    )

  def _repr_markdown_(self) -> str:
    return str(self)

  @property
  def ranking(self) -> list[dict[str, Any]]:
    """A row a cell, the best first: settings, mean, interval and comparison."""
    return [
      {
        'rank': row.rank,
        **row.cell.values,
        'mean': row.summary.mean,
        'low': row.summary.interval.low,
        'high': row.summary.interval.high,
        'std': row.summary.std,
        'median': row.summary.median,
        'scored': row.summary.n,
        'diverged': row.cell.count('diverged'),
        'failed': row.cell.count('failed'),
        'difference': row.difference.mean if row.difference else math.nan,
        'p': row.p,
      }
      for row in self.results.ranking
    ]

  @property
  def rows(self) -> list[dict[str, Any]]:
    """A row a run that has ended: settings, seed, outcome, step and scores."""
    return [
      {
        'cell': cell.index,
        **cell.values,
        'seed': seed,
        'outcome': cell.outcomes[i],
        'step': cell.steps[i],
        **{name: float(scores[i]) for name, scores in cell.scores.items()},
      }
      for cell in self.results.cells
      for i, seed in enumerate(cell.seeds)
    ]

  def to_csv(self, path: str | pathlib.Path | None = None) -> str:
    """The rows as CSV, written to a file if there is a path.

    A text that a spreadsheet would take for a formula has a quote before it.
    """
    text = io.StringIO()
    columns = dict.fromkeys(name for row in self.rows for name in row)
    writer = csv.DictWriter(text, list(columns), lineterminator='\n')
    writer.writeheader()
    for row in self.rows:
      writer.writerow(
        {k: disarm(v) if isinstance(v, str) else v for k, v in row.items()}
      )
    if path is not None:
      write_atomic(places.resolve('path', path), text.getvalue())
    return text.getvalue()


@quiet_libraries()
def ablate(
  workdir: str | os.PathLike[str],
  *,
  data: Any,
  vary: Mapping[str, Sequence[Any] | Mapping[str, Any]],
  seeds: int = 8,
  steps: int,
  metrics: str | Metric | Sequence[str | Metric],
  trainer: Trainer | None = None,
  only: str = '',
  primary: str = '',
  better: str = '',
  published: str = '',
  layout: str = 'auto',
  split: int = 0,
  identity: str = '',
  **options: Any,
) -> Table:
  """Trains every combination of some values over the same seeds; ranks them.

  Runs that differ in hyper-parameters and seeds only are one compiled program.
  The same call continues what was stopped, and reads what has ended; the folder
  is that of `python -m gan_jax.ablate`.

  Args:
    workdir: folder of the ablation, or its URL.
    data: as `gan_jax.train` takes it; None where `dataset` is an option.
    vary: values by what is varied: an option of `gan_jax.train` (`lr_g`,
      `objective`), the path of a hyper-parameter (`objective.temperature`), or,
      with a trainer, one of its components (`schedule`, `regularizers`). Values
      are numbers, names, components or classes of components; a mapping gives
      them labels. `lr_g+lr_d` sets both to the same value, or to a pair.
    seeds: runs of each combination, of `seed`, `seed` + 1 and so on.
    steps: of each run.
    metrics: names and `Metric`s; the first score of the first one ranks.
    trainer: what is varied, in the place of the game that options describe.
    only: 'K/N' to run every N-th program from the K-th on, as one of N
      processes that share the folder.
    primary: the score that ranks, in the place of the first one.
    better: whether 'lower' or 'higher' is better, where the metric has no
      direction of its own.
    published: JSON file of published values to put beside the scores.
    layout: how a device computes the runs of a program: 'vmap', 'map', 'auto'.
    split: into how many the runs of each compiled program are split; 0: as the
      folder has it, at its beginning as many as it takes for each process of a
      `multihost` job, or each of the N of `only`, to have one.
    identity: a word that you vouch for, in the place of the hash of the steps
      by which an ablation knows that it is still the same one.
    **options: flags of `gan_jax.train` by name, as `gan_jax.train` takes them.

  Returns:
    The ranking; of what has ended, if a signal came or `only` is given.

  Raises:
    ArgumentError: naming the argument that is of no use.
    IdentityError: if the folder holds another ablation; nothing is written.
    DataError: if the data cannot be used.

  >>> import gan_jax as gj
  >>> table = gj.ablate(
  ...   'runs/table',
  ...   data='ring',
  ...   vary={'objective': ['hinge', 'minimax'], 'lr_g+lr_d': [1e-4, 1e-3]},
  ...   steps=2000,
  ...   metrics=['modes'],
  ... )  # doctest: +SKIP
  >>> print(table)  # doctest: +SKIP
  """
  given = dict(options, workdir=workdir, steps=steps, metrics=metrics)
  plan = plan_components(
    given,
    data,
    trainer,
    vary,
    seeds=seeds,
    only=only,
    primary=primary,
    better=better,
    published=published,
    layout=layout,
    split=split,
    identity=identity,
  )
  train_lib.join_job(plan.base)
  if hosts.count_of(plan) == 1:
    plan = folder_lib.decide_split(plan)
    folder_lib.check_folder(plan)
    with preemption.listen() as listener, runner.held(plan, listener) as here:
      _run(here, listener)
      return read_table(here)
  return _ablate_joined(plan)


def _run(plan: AblationPlan, listener: preemption.Listener) -> str:
  """Runs what is left of a plan whose folder is here."""
  part = plan.options.only.replace('/', '-')
  train_lib.prepare_back_end(plan.base, part)
  folder_lib.check_folder(plan)
  if multihost.number() == 0:
    say(describe_plan(plan))
  return runner.AblationRunner(plan, listener).run()


def _ablate_joined(plan: AblationPlan) -> Table:
  """As one of the processes of a job, all of which return the whole table."""
  plan = hosts.agree_on_split(plan)
  share = hosts.share_of(plan)

  def work() -> int:
    folder_lib.check_folder(share)
    with preemption.listen() as listener, runner.held(share, listener) as here:
      return app.SAVED if _run(here, listener) == 'saved' else app.DONE

  hosts.work_apart(plan, work)
  with runner.copied(plan if multihost.is_first() else share) as here:
    table = read_table(here)
    remote.put_back(here.folder)
    return table


def read_table(plan: AblationPlan) -> Table:
  """The table of what has ended; its files, unless `only` a part was asked for.

  Raises:
    ArgumentError: if nothing was begun.
  """
  if plan.options.only:
    results = make_results(*folder_lib.read_part(plan))
    return Table(results, remote.shown(plan.folder))
  folder_lib.collect_results(plan)
  if plan.base.report:
    from gan_jax.ablation.report import write_ablation_report

    write_ablation_report(plan.folder)
  return Table(read_results(plan.folder), remote.shown(plan.folder))


def plan_components(
  given: Mapping[str, Any],
  data: Any,
  trainer: Trainer | None,
  vary: Mapping[str, Any],
  *,
  identity: str = '',
  **grid_options: Any,
) -> AblationPlan:
  """The plan of an ablation of components; the arguments are `ablate`'s.

  Args:
    given: workdir, steps, metrics and other options by name.
    data: of all runs.
    trainer: that is varied; None for the game that options describe.
    vary: values by what is varied.
    identity: a word that the user vouches for.
    **grid_options: of `AblationOptions`.

  Raises:
    ArgumentError: naming the argument that is of no use.
    DataError: if the data cannot be used.
  """
  if data is None and 'dataset' not in {*given, *vary}:
    raise ArgumentError('data', None, 'give the data, or name a `dataset`')
  names, own_metrics = _split_metrics(given['metrics'])
  given = {**given, 'metrics': own_metrics.get('metrics', names)}
  config, objects = train_lib.parse_options(given, trainer)
  dataset, config = train_lib.resolve_data(data, config, given)
  config = dataclasses.replace(config, metrics=names)
  objects = {k: x for k, x in objects.items() if k != 'trainer'} | own_metrics
  base = CellSpec(config, objects, trainer)
  axes = [_make_axis(base, *item) for item in vary.items()]
  grid.check_once(axes)
  words = tuple(
    f'{name}={",".join(map(format_value, column))}'
    for axis in axes
    for name, column in axis.columns.items()
  )

  specs: dict[Any, CellSpec] = {}  # cells with the same parts share a trainer

  def make_spec(values: Mapping[str, Any]) -> CellSpec:
    if trainer is None:
      if 'dataset' in values and 'network' not in {*given, *values}:
        values = {**values, 'network': ''}  # that of the data
      return vary_spec(base, values)
    parts = {name: x for name, x in values.items() if name in PARTS}
    key = tuple(map(id, parts.values()))
    if key not in specs:
      specs[key] = vary_spec(base, parts)
    others = {name: x for name, x in values.items() if name not in PARTS}
    return vary_spec(specs[key], others)

  own = AblationOptions(config, words, **grid_options)
  check_options(own)
  return assemble_plan(own, axes, make_spec, dataset=dataset, given=identity)


def _split_metrics(metrics: Any) -> tuple[str, dict[str, Any]]:
  """Names of metrics, and the metrics themselves if some are objects."""
  items = [metrics] if isinstance(metrics, str | Metric) else list(metrics)
  if not items:
    raise ArgumentError('metrics', metrics, 'name what runs are ranked by')
  names = ','.join(x.name if isinstance(x, Metric) else str(x) for x in items)
  own = any(isinstance(x, Metric) for x in items)
  return names, {'metrics': tuple(items)} if own else {}


# Axes.


def _make_axis(base: CellSpec, key: str, values: Any) -> Axis:
  """An axis from a key and the values of `vary`.

  Raises:
    ArgumentError: naming the key that is of no use.
  """
  options = tuple(key.split('+'))
  for name in options:
    if '.' not in name and (base.trainer is None or name not in PARTS):
      grid.check_option(key, name)
  if isinstance(values, str) or not hasattr(values, '__iter__'):
    raise ArgumentError('vary', key, 'give a list of values')
  named = isinstance(values, Mapping)
  points = [*values.values()] if named else [*values]
  if not points:
    raise ArgumentError('vary', key, 'there is no value')
  rows = tuple(_split_point(key, point, len(options)) for point in points)
  labels = tuple(tuple(map(label_value, row)) for row in rows)
  if named:
    labels = tuple((str(name),) * len(options) for name in values)
  for label in labels:
    if labels.count(label) > 1:
      raise ArgumentError(
        'vary',
        key,
        f'{label[0]} is there twice; give a mapping of labels to values',
      )
  return Axis(options, rows, labels)


def _split_point(key: str, point: Any, count: int) -> tuple[Any, ...]:
  """The value of each option at a point of an axis."""
  if count == 1:
    return (point,)
  if not isinstance(point, tuple):
    return (point,) * count
  if len(point) != count:
    raise ArgumentError('vary', key, f'{point}: give {count} values')
  return point


def label_value(value: Any) -> Any:
  """What stands for a value in tables and records.

  >>> label_value(np.float64(0.5)), label_value(None)
  (0.5, 'none')
  """
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, bool | int | float | str):
    return value
  if value is None:
    return 'none'
  if isinstance(value, Component):
    return _label_component(value)
  if isinstance(value, type):
    return snake_case(value.__name__)
  if isinstance(value, Mapping):
    value = [*value.values()]
  if isinstance(value, list | tuple) and not hasattr(value, '_fields'):
    return '+'.join(str(label_value(x)) for x in value) or 'none'
  return str(getattr(value, '__name__', type(value).__name__))


def _label_component(component: Component) -> str:
  """Its name, with the fields that are not at their defaults."""
  fields = component.__dataclass_fields__  # type: ignore[attr-defined]
  changed = [
    f'{name}={label_value(getattr(component, name))}'
    for name, field in fields.items()
    if getattr(component, name) != field.default
  ]
  return component.name + (f'({", ".join(changed)})' if changed else '')
