"""In-training evaluation: scores of a run's G, and its best checkpoint.

What was scored before a restart is found in `metrics.jsonl` and not scored
again. Nothing that training continues with depends on a score.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from gan_jax.config.resolve import OWN
from gan_jax.evaluation.score_file import (
  SPREAD,
  Row,
  find_best,
  format_row,
  scores_of,
)
from gan_jax.evaluation.scorer import EvaluationOptions, Scorer, hash_protocol
from gan_jax.game.state import Average, Player, State
from gan_jax.runtime.errors import ArgumentError
from gan_jax.training.run_evaluator import make_run_scorer
from gan_jax.training.setup import Setup


def make_training_scorer(
  setup: Setup, folder: pathlib.Path
) -> 'TrainingScorer':
  """The in-training evaluation of a run.

  Raises:
    ArgumentError: for metrics that have nothing to see, or no best value.
  """
  config = dataclasses.replace(setup.config, workdir=str(folder))
  options = EvaluationOptions(
    metrics=setup.objects.get('metrics', config.metrics),
    samples=config.eval_samples,
    eval_seeds=config.eval_seeds,
    features=config.features,
    weights=config.weights,
  )
  scorer = make_run_scorer(
    config, options, setup.networks, dataset=setup.dataset, mesh=setup.mesh
  )
  ema = setup.trainer.ema is not None
  best = config.keep_best.removeprefix(OWN)
  return TrainingScorer(scorer, ema=ema, keep_best=best)


class TrainingScorer:
  """Scores the generator of a run in training, and knows its best moment.

  Attributes:
    scorer: that writes the rows.
    ema: whether it is the averaged generator that is scored.
  """

  def __init__(self, scorer: Scorer, *, ema: bool, keep_best: str = '') -> None:
    """Scores nothing yet.

    Args:
      scorer: of the run.
      ema: whether the averaged generator is scored.
      keep_best: the metric by which a checkpoint is the best; empty for none.

    Raises:
      ArgumentError: for a metric whose best value is at neither end.
    """
    self.scorer, self.ema, self._metric = scorer, ema, keep_best
    metrics = {metric.name: metric for metric in scorer.evaluator.metrics}
    self._better = metrics[keep_best].better if keep_best else ''
    if keep_best and not self._better:
      remedy = (
        'its best value is at neither end of its scale (c2st: 1/2; ms_ssim:'
        ' that of the data), so no checkpoint is the best by it; use another'
        ' metric, such as fid, kid or swd'
      )
      raise ArgumentError('keep_best', keep_best, remedy)
    self._key = hash_protocol(scorer.generator_protocol(ema))
    self._reached = 0  # later rows are of an earlier run in the same folder

  def _source(self, state: State) -> Player | Average:
    if not self.ema:
      return state.g
    assert state.ema is not None
    return state.ema

  def resume(self, state: State, step: int) -> bool:
    """Continues from a checkpoint; whether it was scored."""
    source = self._source(state)
    is_scored = self.scorer.is_scored(
      step, source.params, source.stats, self.ema
    )
    self._reached = step if is_scored else step - 1
    return is_scored

  def __call__(
    self, state: State, step: int
  ) -> tuple[dict[str, float], str, bool]:
    """Finite scores with their spreads by name, and as a line of text.

    Returns:
      Both, and whether they are new: not scored before a restart.
    """
    source = self._source(state)
    row, is_new = self.scorer.score_generator(
      step, source.params, source.stats, self.ema
    )
    self._reached = step
    if not row:  # of a process that writes no rows
      return {}, '', is_new
    names = [name + end for name in scores_of(row) for end in ('', SPREAD)]
    values = {name: row.get(name) for name in names}
    finite = {n: x for n, x in values.items() if x is not None}
    text = format_row(row)
    return {n: x for n, x in finite.items() if math.isfinite(x)}, text, is_new

  def _find_best(self, steps: Sequence[int] | None = None) -> Row | None:
    rows = {
      row['step']: row
      for row in self.scorer.file.rows()
      if row['key'] == self._key
      and row['step'] <= self._reached
      and (steps is None or row['step'] in steps)
    }
    return find_best([*rows.values()], self._metric, self._better)

  def best(self, steps: Sequence[int]) -> int | None:
    """Of these steps the one that `keep_best` keeps; None before any."""
    row = self._find_best(steps)
    return None if row is None else int(row['step'])

  def best_of_all(self) -> dict[str, Any] | None:
    """The best moment so far as run.json has it: step, score, value."""
    row = self._find_best()
    if row is None:
      return None
    name = row['primary'][self._metric]
    return {'step': row['step'], 'score': name, 'value': row[name]}
