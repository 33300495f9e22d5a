"""Scores of a program's runs: of their last states, and along the way.

Those along the way are taken every `--eval_every` updates of those that are
alive, and kept in the program's `along.json`; `ablation_files.collect` makes
`scores.csv` of them.
"""

import json
import pathlib
from typing import Any

from gan_jax.ablation import folder
from gan_jax.ablation.grid import Member
from gan_jax.ablation.plan import Plan
from gan_jax.ablation.progress import Overall, say
from gan_jax.ablation.scorers import Judges
from gan_jax.runtime import preemption
from gan_jax.runtime.checkpoint import (
  CheckpointUnreachable,
  NotSaved,
  digest,
  to_host,
)
from gan_jax.runtime.files import write_atomic
from gan_jax.training.population_loop import Cohort

# A disk that is full, or does not answer, is so for all programs.
OF_ALL = (OSError, NotSaved, CheckpointUnreachable)


def named(error: Exception) -> str:
  """An error as results have it; one that is told by itself, as it is."""
  if hasattr(error, 'exit_code'):
    return str(error)
  return f'{type(error).__name__}: {error}'.strip()


class _Kept:
  """Scores of a program's members as they come, for a kill to spare them."""

  def __init__(self, path: pathlib.Path) -> None:
    """Of a file that need not be there yet."""
    self.path, self._found = path, folder.kept(path)

  def get(self, key: str) -> dict[str, Any] | None:
    """What is known under a protocol's and a generator's hash."""
    found: dict[str, Any] | None = self._found.get(key)
    return found

  def put(self, key: str, scored: dict[str, Any]) -> None:
    """Writes one more, if it is not there."""
    if key not in self._found:
      self._found[key] = scored
      write_atomic(self.path, json.dumps(self._found))


class Scoring:
  """Who scores the runs of an ablation, until a signal is heard."""

  def __init__(self, plan: Plan, judges: Judges, ear: preemption.Ear) -> None:
    """`judges`: whose metrics they are."""
    self.plan, self._judges, self._ear = plan, judges, ear
    self._names = [n for n in judges.declared() if not n.endswith('*')]

  def last(
    self, number: int, cohort: Cohort, overall: Overall
  ) -> list[dict[str, Any]] | None:
    """How each run of a program ended, scored if it is alive.

    Returns:
      Lines of `results.json`; None if a signal came meanwhile.
    """
    members = self.plan.programs[number]
    found = []
    kept = _Kept(self.plan.program_folder(number) / 'scores.json')
    for m, (kind, step), generator in zip(
      members, cohort.outcomes(), cohort.generators(), strict=True
    ):
      if self._ear.heard:
        return None
      run = {'cell': m.cell, 'seed': m.seed, 'outcome': kind, 'step': step}
      scored: dict[str, Any] = {'scores': {}, 'evaluation_std': {}}
      if kind == 'done':
        scored = self._scored(kept, number, m, generator)
      found.append(run | scored)
      overall.scored(number, len(found), len(members))
    return found

  def along(self, number: int, cohort: Cohort, overall: Overall) -> None:
    """Scores the runs that are alive at this step, if it is due and not done.

    A signal ends it; what is missing is scored when the program goes on.
    """
    c = cohort.config
    if not c.eval_every or cohort.step in (0, c.steps):
      return
    if cohort.step % c.eval_every:
      return
    members = self.plan.programs[number]
    kept = _Kept(self.plan.program_folder(number) / 'along.json')
    generators = cohort.generators()
    for i, (kind, _) in enumerate(cohort.outcomes()):
      if self._ear.heard:
        return
      if kind == 'done':
        run = {'cell': members[i].cell, 'seed': members[i].seed}
        told = run | {'step': cohort.step}
        self._scored(kept, number, members[i], generators[i], told)
      overall.scored(number, i + 1, len(members))

  def _scored(
    self,
    kept: _Kept,
    number: int,
    member: Member,
    generator: Any,
    told: dict[str, Any] | None = None,
  ) -> dict[str, Any]:
    """A member's scores, as they are kept or else taken and kept."""
    identity = self._judges.identity(member.config)
    told = told or {}
    key = ' '.join(
      map(str, [identity, digest(to_host(generator)), *told.values()])
    )
    found = kept.get(key)
    if found is None:
      found = told | self._score(number, member, generator)
    if 'unscored' not in found:
      kept.put(key, found)
    return found

  def _score(
    self, number: int, member: Member, generator: Any
  ) -> dict[str, Any]:
    """Scores of one member, or NaN and why."""
    try:
      return self._judges.scores(member.config, *generator)
    except Exception as error:
      if isinstance(error, OF_ALL):
        raise
      told = named(error)
      label = self.plan.cells[member.cell].label
      say(
        f'program {number + 1}: {label}, seed {member.seed} could not be'
        f' scored: {told.splitlines()[0]}'
      )
      nothing = dict.fromkeys(self._names, float('nan'))
      return {'scores': nothing, 'evaluation_std': {}, 'unscored': told}
