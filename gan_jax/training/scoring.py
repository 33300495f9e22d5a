"""Scores of a run while it trains, and which of its checkpoints is best.

What was scored before a restart is found in `metrics.jsonl` and not scored
again. Nothing that training goes on with depends on a score.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from gan_jax.evaluation import scores
from gan_jax.evaluation.evaluator import KNOWN, EvaluationError
from gan_jax.evaluation.scorer import Request, identity, judge_of
from gan_jax.evaluation.scores import Row, scores_of, told
from gan_jax.game.state import State
from gan_jax.training.setup import Setup


class Examiner:
  """The judge of a run in training."""

  def __init__(self, parts: Setup, folder: pathlib.Path) -> None:
    """Rows go to `metrics.jsonl` in the run's folder.

    Raises:
      ConfigError: if its metrics have nothing to see, naming the flag.
    """
    config = dataclasses.replace(parts.config, workdir=str(folder))
    request = Request(samples=config.eval_samples, eval_seeds=config.eval_seeds)
    self._judge = judge_of(
      config, request, parts.networks, parts.mesh, parts.dataset
    )
    self._ema = parts.trainer.ema is not None
    self._metric = config.keep_best
    if self._metric and not self._better:
      raise EvaluationError(
        f'--keep_best={self._metric}: its best value is at neither end of its'
        ' scale (c2st: 1/2; ms_ssim: that of the data), so no checkpoint is the'
        ' best by it; use another metric, such as fid, kid or swd'
      )
    self._key = identity(self._judge.of_generator(self._ema))
    self._reached = 0  # later rows are of an earlier run in the same folder

  def resume(self, state: State, step: int) -> bool:
    """Goes on from a checkpoint; says whether it was scored."""
    player: Any = state.ema if self._ema else state.g
    there = self._judge.scored(step, player.params, player.stats, self._ema)
    self._reached = step if there else step - 1
    return there

  def __call__(self, state: State, step: int) -> tuple[dict[str, float], str]:
    """Finite scores with their spreads by name, and what to say of them."""
    player: Any = state.ema if self._ema else state.g
    row, _ = self._judge.generator(step, player.params, player.stats, self._ema)
    self._reached = step
    if not row:  # of a process that keeps no rows
      return {}, ''
    names = [n + end for n in scores_of(row) for end in ('', scores.SPREAD)]
    found = {name: row.get(name) for name in names}
    finite = {n: x for n, x in found.items() if x is not None}
    return {n: x for n, x in finite.items() if math.isfinite(x)}, told(row)

  def _best(self, steps: Sequence[int] | None = None) -> Row | None:
    rows = {
      row['step']: row
      for row in self._judge.scores.rows()
      if row['key'] == self._key
      and row['step'] <= self._reached
      and (steps is None or row['step'] in steps)
    }
    return scores.best([*rows.values()], self._metric, self._better)

  @property
  def _better(self) -> str:
    return KNOWN[self._metric].better

  def best(self, steps: Sequence[int]) -> int | None:
    """Of these steps the one that `--keep_best` keeps; None before any."""
    row = self._best(steps)
    return None if row is None else int(row['step'])

  def best_of_all(self) -> dict[str, Any] | None:
    """The best moment so far as run.json has it: step, score, value."""
    row = self._best()
    if row is None:
      return None
    name = row['primary'][self._metric]
    return {'step': row['step'], 'score': name, 'value': row[name]}
