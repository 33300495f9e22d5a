"""Scores of an ablation's runs: of their last generators, and in training.

Scores are named as in `metrics.jsonl` (`scores.shown`); what they depend on
besides the generators is the protocol, which may differ between cells in parts.
Scores in training are those of runs that have not diverged, every `eval_every`
steps; `folder.collect_results` makes `scores.csv` of them.
"""

import contextlib
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from gan_jax.ablation import folder
from gan_jax.ablation.grid import Cell, format_value
from gan_jax.ablation.plan import AblationPlan, Member
from gan_jax.ablation.population_run import PopulationRun
from gan_jax.ablation.progress import Progress, say
from gan_jax.config.schema import ConfigError
from gan_jax.runtime import backend, preemption, records
from gan_jax.runtime.checkpoint import (
  CheckpointUnreachable,
  NotSaved,
  digest,
  to_host,
)
from gan_jax.runtime.errors import ArgumentError, Error

# A disk that is full, or does not answer, concerns all programs.
FATAL = (OSError, NotSaved, CheckpointUnreachable)


def describe_error(error: Exception) -> str:
  """An error as results have it: a message to the user as it is."""
  if isinstance(error, Error):
    return str(error)
  message = f'{type(error).__name__}: {error}'.strip()
  exhausted = backend.explain_exhaustion(error)
  if exhausted:
    return (
      f'{exhausted}; use a smaller `batch_size` or `width`, `layout=map` (one'
      f' member after the other), or fewer seeds ({message})'
    )
  return message


@runtime_checkable
class Scorer(Protocol):
  """What the engine of an ablation needs to know of scores."""

  def check_cells(self) -> None:
    """Raises for cells that cannot be trained or scored."""

  def score_directions(self) -> dict[str, str]:
    """Every score's name, and which values of it are better."""

  def protocol(self) -> dict[str, Any]:
    """What scores depend on besides the generators."""

  def protocol_hash(self, cell: int) -> str:
    """Hash of what the scores of a cell depend on besides the generators."""

  def score(self, cell: int, params: Any, stats: Any) -> dict[str, Any]:
    """`scores` and `evaluation_std` of a cell's generator, by name."""


class _ScoreFile:
  """Scores of a program's members, written as they come."""

  def __init__(self, path: pathlib.Path) -> None:
    self._path, self._scores = path, folder.read_scores(path)

  def get(self, key: str) -> dict[str, Any] | None:
    return self._scores.get(key)

  def put(self, key: str, scores: dict[str, Any]) -> None:
    self._scores[key] = scores
    records.write(self._path, self._scores, None)


class Scoring:
  """Scores runs until a signal comes, and none of them twice."""

  def __init__(
    self, plan: AblationPlan, scorer: Scorer, listener: preemption.Listener
  ) -> None:
    """`listener` receives the signal."""
    self._plan, self._scorer, self._listener = plan, scorer, listener

  def score_final(
    self, number: int, run: PopulationRun, progress: Progress
  ) -> list[dict[str, Any]] | None:
    """How each run of a program ended, with its scores unless it diverged.

    Returns:
      Entries of `results.json`; None if a signal came meanwhile.
    """
    path = self._plan.program_folder(number) / 'final_scores.json'
    scores, generators = _ScoreFile(path), run.generators()
    rows: list[dict[str, Any]] = []
    for i, (outcome, step) in enumerate(run.outcomes()):
      if self._listener.received:
        return None
      member = self._plan.programs[number][i]
      row: dict[str, Any] = {'cell': member.cell, 'seed': member.seed}
      row |= {'outcome': outcome, 'step': step}
      row |= {'scores': {}, 'evaluation_std': {}}
      if outcome == 'done':
        score = functools.partial(
          self._score_once, scores, number, member, generators[i]
        )
        scored = self._listener.attempt(score)
        if scored is None:
          return None
        row |= scored
      rows.append(row)
      progress.report_scored(number, len(rows))
    return rows

  def score_interim(
    self, number: int, run: PopulationRun, progress: Progress
  ) -> None:
    """Scores the runs that have not diverged at this step, if it is due.

    A signal ends it; the rest is scored when the program continues.
    """
    members = self._plan.programs[number]
    config = members[0].config
    if not config.eval_every or run.step in (0, config.steps):
      return
    if run.step % config.eval_every:
      return
    scores = _ScoreFile(folder.interim_path(self._plan, number))
    generators = run.generators()
    for i, (outcome, _) in enumerate(run.outcomes()):
      if self._listener.received:
        return
      if outcome == 'done':
        facts = {'cell': members[i].cell, 'seed': members[i].seed}
        facts |= {'step': run.step}
        score = functools.partial(
          self._score_once, scores, number, members[i], generators[i], facts
        )
        if self._listener.attempt(score) is None:
          return
      progress.report_scored(number, i + 1)

  def _score_once(
    self,
    known: _ScoreFile,
    number: int,
    member: Member,
    generator: Any,
    facts: Mapping[str, Any] | None = None,
  ) -> dict[str, Any]:
    """A member's scores: those of the file, or new ones, which it then has."""
    facts = facts or {}
    protocol = self._scorer.protocol_hash(member.cell)
    words = [protocol, digest(to_host(generator)), *facts.values()]
    key = ' '.join(map(str, words))
    scores = known.get(key)
    if scores is None:
      scores = {**facts, **self._score(number, member, generator)}
      if 'unscored' not in scores:
        known.put(key, scores)
    return scores

  def _score(
    self, number: int, member: Member, generator: Any
  ) -> dict[str, Any]:
    """Scores of one member, or NaN and why."""
    try:
      return self._scorer.score(member.cell, *generator)
    except Exception as error:
      if isinstance(error, FATAL):
        raise
      reason = describe_error(error)
      label = self._plan.cells[member.cell].label
      say(
        f'program {number + 1}: {label}, seed {member.seed} could not be'
        f' scored: {reason.splitlines()[0]}'
      )
      names = self._scorer.score_directions()
      nothing = {n: float('nan') for n in names if not n.endswith('*')}
      return {'scores': nothing, 'evaluation_std': {}, 'unscored': reason}


# What a generator and its scores depend on; the evaluator of a program depends
# on nothing else.
_SEEN = (
  'dataset',
  'network',
  'width',
  'depth',
  'latent_dim',
  'latent',
  'norm_g',
  'norm_d',
  'packing',
  'conditioning',
  'class_sampling',
  'precision',
  'image_size',
  'channels',
)
_BATCH = 2048  # generated at a time, of a density


def _all_equal(values: Sequence[Any]) -> bool:
  return all(value == values[0] for value in values)


def _describe_varying(
  cells: Sequence[Cell], values: Sequence[Any]
) -> dict[str, Any]:
  """Values that differ between cells, by the setting that they depend on.

  >>> cells = [Cell('a=1', {}, {'a': 1}), Cell('a=2', {}, {'a': 2})]
  >>> _describe_varying(cells, ['x', 'y'])
  {'varies, a=1': 'x', 'varies, a=2': 'y'}
  """
  for name in cells[0].settings:
    groups: dict[str, list[Any]] = {}
    for cell, value in zip(cells, values, strict=True):
      label = f'varies, {name}={format_value(cell.settings[name])}'
      groups.setdefault(label, []).append(value)
    if all(map(_all_equal, groups.values())):
      return {label: group[0] for label, group in groups.items()}
  return {
    f'varies, {cell.label}': value
    for cell, value in zip(cells, values, strict=True)
  }


class EvaluatorScorer:
  """The scorer of an ablation: an evaluator for each kind of generator."""

  def __init__(self, plan: AblationPlan) -> None:
    """Makes no evaluator yet."""
    self._plan = plan
    self._evaluators: dict[Any, Any] = {}

  def _evaluator(self, cell: int) -> Any:
    """The evaluator of a cell's generators.

    Raises:
      Error: if its metrics do not apply to its data.
    """
    from gan_jax.data import Density
    from gan_jax.evaluation.scorer import EvaluationOptions
    from gan_jax.runtime import sharding
    from gan_jax.training.run_evaluator import make_run_evaluator
    from gan_jax.training.setup import data_spec

    spec = self._plan.specs[cell]
    config, dataset = spec.config, self._plan.load_dataset(spec.config)
    seen: list[Any] = [getattr(config, name) for name in _SEEN]
    if not spec.named:
      seen.append(spec.networks(data_spec(dataset)))
    key = tuple(seen)
    if key not in self._evaluators:
      self._evaluators[key] = make_run_evaluator(
        config,
        EvaluationOptions(
          metrics=spec.objects.get('metrics', ''),
          samples=config.eval_samples,
          features=config.features,
          weights=config.weights,
        ),
        spec.networks(data_spec(dataset)),
        dataset=dataset,
        mesh=sharding.make_mesh(1),
        batch=_BATCH if isinstance(dataset, Density) else 0,
      )
    return self._evaluators[key]

  @property
  def _cells(self) -> range:
    return range(len(self._plan.cells))

  def check_cells(self) -> None:
    """Makes the trainer of every cell and its evaluator.

    Raises:
      Error: naming the cell that is of no use.
    """
    from gan_jax.runtime import sharding
    from gan_jax.training.setup import check_batch, data_spec

    one_device = sharding.make_mesh(1)  # as each member has it
    for program in self._plan.programs:
      trainer = None
      for i in dict.fromkeys(member.cell for member in program):
        spec = self._plan.specs[i]
        with self._naming_cell(i):
          if trainer is None:
            dataset = self._plan.load_dataset(spec.config)
            trainer = spec.build_trainer(data_spec(dataset))
            check_batch(spec.config, trainer, one_device)
          trainer.at(spec.hyperparameters()).check()
          self._evaluator(i)

  @contextlib.contextmanager
  def _naming_cell(self, cell: int) -> Iterator[None]:
    try:
      yield
    except ValueError as error:
      if not hasattr(error, 'exit_code'):
        raise
      label = self._plan.cells[cell].label
      raise ConfigError(f'cell {cell} ({label}): {error}') from error

  def score_directions(self) -> dict[str, str]:
    """Every score's public name, and which values of it are better.

    Raises:
      ArgumentError: if cells have no score in common to be compared by.
    """
    cells = [self._evaluator(cell).directions for cell in self._cells]
    for i, scores in enumerate(cells):
      if next(iter(scores)) not in cells[0]:
        raise ArgumentError(
          'features',
          self._plan.base.features,
          f'cell 0 would be ranked by {next(iter(cells[0]))} and cell {i} by'
          f' {next(iter(scores))}, which cannot be compared; use features that'
          ' all cells share',
        )
    return {name: better for scores in cells for name, better in scores.items()}

  def protocol(self) -> dict[str, Any]:
    """What scores depend on besides the generators; what varies, by cell."""
    protocols = [
      {
        **self._evaluator(i).protocol,
        'evaluation_seeds': spec.config.eval_seeds,
        'ema': spec.has_average,
      }
      for i, spec in enumerate(self._plan.specs)
    ]
    joined: dict[str, Any] = {}
    for name in dict.fromkeys(name for p in protocols for name in p):
      values = [p.get(name, '') for p in protocols]
      joined[name] = (
        values[0]
        if _all_equal(values)
        else _describe_varying(self._plan.cells, values)
      )
    return joined

  def protocol_hash(self, cell: int) -> str:
    """Hash of what the scores of a cell depend on besides the generators."""
    from gan_jax.evaluation.scorer import hash_protocol

    seeds = {'seeds': self._plan.specs[cell].config.eval_seeds}
    return hash_protocol(self._evaluator(cell).protocol | seeds)

  def score(self, cell: int, params: Any, stats: Any) -> dict[str, Any]:
    """Means over evaluation seeds, and standard deviations of several.

    Returns:
      `scores` and `evaluation_std` by public name; `nan`, why some are, if so.
    """
    from gan_jax.evaluation.score_file import SPREAD, summarize_seeds

    evaluator = self._evaluator(cell)
    draws: list[dict[str, float]] = []
    reasons: dict[str, str] = {}
    for seed in range(self._plan.specs[cell].config.eval_seeds):
      draws.append(evaluator.score(params, stats, seed=seed))
      reasons |= evaluator.unscored
    row = summarize_seeds(draws)
    names = row['by_evaluation_seed']
    scores: dict[str, Any] = {
      'scores': {name: row[name] for name in names},
      'evaluation_std': {
        name: row[name + SPREAD] for name in names if name + SPREAD in row
      },
    }
    return scores | ({'nan': reasons} if reasons else {})
