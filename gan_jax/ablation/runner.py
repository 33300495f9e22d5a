"""The engine of an ablation: programs one after another, scored, collected.

A program is a population (`cohort.py`). Finished ones are not run again; one
that crashes is written down as failed, with its message, and the others go on.
"""

import contextlib
import dataclasses
import json
import pathlib
import tempfile
import traceback
from collections.abc import Iterator
from typing import Any

from gan_jax.ablation import folder as ablation_files
from gan_jax.ablation import plan as ablation_plan
from gan_jax.ablation import results, verdict
from gan_jax.ablation.plan import Plan, Request
from gan_jax.ablation.progress import Overall, describe, say
from gan_jax.ablation.scorers import Judges
from gan_jax.ablation.scoring import OF_ALL, Scoring, named
from gan_jax.config import app as doors
from gan_jax.config.schema import Config
from gan_jax.runtime import preemption
from gan_jax.runtime.checkpoint import not_saved
from gan_jax.runtime.files import write_atomic
from gan_jax.training import loop, workdir
from gan_jax.training.population_loop import Cohort


class Ablation:
  """One ablation at work, from where its folder says to its end."""

  def __init__(self, plan: Plan, ear: preemption.Ear) -> None:
    """Checks every cell; runs nothing."""
    self.plan, self._ear = plan, ear
    self.judges = Judges(plan)
    self.judges.check()
    self.scores = self.judges.declared()
    self._scoring = Scoring(plan, self.judges, ear)
    ablation_plan.ranking(plan.request, self.scores)
    self._open: dict[int, Cohort] = {}
    self.crashed: set[int] = set()

  def left(self) -> list[int]:
    """Programs that are to be run; one that has crashed just now is not."""
    return [
      n
      for n in self.plan.chosen()
      if not self.plan.finished(n) and n not in self.crashed
    ]

  def _configs(self, number: int) -> list[Config]:
    folder = str(self.plan.program_folder(number))
    return [
      dataclasses.replace(m.config, workdir=folder)
      for m in self.plan.programs[number]
    ]

  def cohort(self, number: int, folder: pathlib.Path | None = None) -> Cohort:
    """The population of a program, made once."""
    if number not in self._open:
      self._open[number] = Cohort(
        self._configs(number),
        folder or self.plan.program_folder(number),
        self.plan.request.layout,
      )
    return self._open[number]

  def estimate(self, folder: pathlib.Path | None = None) -> dict[int, float]:
    """Seconds that each program takes that is left, by a short calibration.

    One program is compiled and timed for each kind of step, objectives apart.

    Args:
      folder: where to try them in place of the ablation's, of which nothing is
        written then.
    """
    kinds: dict[Config, tuple[float, float]] = {}
    found: dict[int, float] = {}
    for number in self.left():
      program = self.plan.programs[number]
      kind = dataclasses.replace(
        schema.static(program[0].config),
        objective='',  # of little weight in a step
      )
      if kind not in kinds:
        with self._crashes(number, written=folder is None):
          place = folder and folder / f'{number:03d}'
          cohort = self.cohort(number, place)
          if cohort.step < kind.steps:
            step = cohort.calibrate() / cohort.members
            kinds[kind] = (cohort.compile_sec, step)
      if kind in kinds:
        compiling, step = kinds[kind]
        found[number] = compiling + step * len(program) * kind.steps
    return found

  @contextlib.contextmanager
  def _crashes(self, number: int, written: bool = True) -> Iterator[None]:
    """Tells of a crash, and writes it down as the end of a program's runs."""
    try:
      yield
    except Exception as error:
      if isinstance(error, OF_ALL):
        raise
      told = named(error)
      say(f'program {number + 1} crashed: {told.splitlines()[0]}')
      if written:
        self._write_crash(number, told)
      self.crashed.add(number)
      cohort = self._open.pop(number, None)
      if cohort is not None:
        cohort.close()

  def _write_crash(self, number: int, told: str) -> None:
    """How its runs ended, and the traceback of the exception at hand."""
    failed = {'outcome': 'failed', 'step': '', 'scores': {}}
    runs = [
      {'cell': m.cell, 'seed': m.seed, **failed, 'evaluation_std': {}}
      for m in self.plan.programs[number]
    ]
    self._write(number, {'message': told, 'runs': runs})
    folder = self.plan.program_folder(number)
    write_atomic(folder / 'crash.txt', traceback.format_exc())

  def _write(self, number: int, result: dict[str, Any]) -> None:
    folder = self.plan.program_folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / 'results.json', json.dumps(result, indent=1) + '\n')

  def run(self, overall: Overall) -> str:
    """Runs what is left; `done`, or `saved` after a signal."""
    for number in self.left():
      outcome = 'done'
      with self._crashes(number):
        outcome = self._run(number, overall)
      if outcome == 'saved':
        return outcome
      overall.finished(number)
      if not self.plan.request.only:
        ablation_files.collect(self.plan)
    return 'done'

  def _run(self, number: int, overall: Overall) -> str:
    members = self.plan.programs[number]
    folder = self.plan.program_folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    told = [
      {'cell': m.cell, 'seed': m.seed, 'values': self.plan.cells[m.cell].told}
      for m in members
    ]
    write_atomic(folder / 'members.json', json.dumps(told, indent=1) + '\n')
    cohort = self.cohort(number)
    run_file = workdir.RunFile(folder)
    run_file.update(
      **workdir.environment(),
      layout=cohort.layout,
      started=run_file.facts.get('started', workdir.now()),
      outcome='running',
    )
    overall.begun(number, cohort)
    outcome = cohort.run(
      self._ear,
      lambda step, took: overall.moved(number, cohort),
      lambda: self._scoring.along(number, cohort, overall),
    )
    if outcome == 'done':
      outcome = self._ended(number, cohort, overall)
    run_file.update(
      outcome=outcome,
      step=cohort.step,
      members=len(members),
      train_sec=round(cohort.train_sec, 3),
      train_cpu_sec=round(cohort.cpu_sec, 3),
      compile_sec=round(cohort.compile_sec, 3),
      finished=workdir.now(),
    )
    if outcome == 'done':
      overall.moved(number, cohort, last=True)
    del self._open[number]
    cohort.close()
    return outcome

  def _ended(self, number: int, cohort: Cohort, overall: Overall) -> str:
    """Writes how the runs ended; `saved` if a signal came meanwhile."""
    cohort.write_samples()
    found = self._scoring.last(number, cohort, overall)
    if found is None:
      return 'saved'
    self._write(number, {'runs': found})
    folder = self.plan.program_folder(number)
    for left in ('scores.json', 'crash.txt'):  # a crash of an earlier try
      (folder / left).unlink(missing_ok=True)
    return 'done'

  def close(self) -> None:
    """Closes what a calibration or an error left open."""
    for cohort in self._open.values():
      cohort.close()


def ablate(request: Request, *, dry_run: bool = False) -> int:
  """Runs what is left of an ablation; returns an exit code of `doors`.

  0 when every run has ended, diverged ones too; 1 when some crashed or could
  not be scored (the others have ended); 75 when it was stopped by a signal.

  Raises:
    ConfigError, DataError, NetworkError, ShardingError, CheckpointError: whose
      messages name the flag or file and the remedy.
  """
  plan = ablation_plan.make_plan(request)
  ablation_files.check(plan)
  try:
    with preemption.listening() as ear:
      loop.setup(plan.base)
      return _dry(plan, ear) if dry_run else _held(plan, ear)
  except preemption.Stopped as stopped:
    say(f'stopped by {stopped}; run the same command again')
    return doors.SAVED


def _dry(plan: Plan, ear: preemption.Ear) -> int:
  work = Ablation(plan, ear)
  with tempfile.TemporaryDirectory() as folder:
    try:
      print(describe(plan, work.estimate(pathlib.Path(folder))))
    finally:
      work.close()
  return doors.ERROR if work.crashed else doors.DONE


def _held(plan: Plan, ear: preemption.Ear) -> int:
  folder, only = plan.folder, plan.request.only
  with contextlib.ExitStack() as stack:
    stack.enter_context(ablation_files.held(folder, shared=bool(only)))
    ablation_files.check(plan)  # again: it may have been another's meanwhile
    work = Ablation(plan, ear)
    ablation_files.write_plan(
      plan, workdir.environment(), work.judges.protocol(), work.scores
    )
    for number in plan.chosen() if only else ():
      program = plan.program_folder(number)
      stack.enter_context(ablation_files.held(program))
    try:
      each = work.estimate()
      say(describe(plan, each))
      outcome = work.run(Overall(plan, each))
    except OSError as error:
      raise not_saved(folder, error) from error
    finally:
      with contextlib.suppress(ValueError, OSError):
        work.close()
    return _farewell(plan, outcome)


def _farewell(plan: Plan, outcome: str) -> int:
  """Tells the person where everything is and how it ended."""
  if outcome == 'saved':
    say(f'saved in {plan.folder}; run the same command again to continue')
    return doors.SAVED
  if not plan.request.only:
    return collected(plan)
  failed = any(_fault(plan, n) for n in plan.chosen())
  print(
    f'done: --only={plan.request.only} in {plan.folder}; --collect in place of'
    ' it makes results.csv and the report of all parts'
  )
  return doors.ERROR if failed else doors.DONE


def _unscored(plan: Plan, number: int) -> list[str]:
  """Why runs of a program have no scores, of those that could not be scored."""
  found = (plan.result(number) or {}).get('runs', ())
  return [run['unscored'] for run in found if 'unscored' in run]


def collected(plan: Plan) -> int:
  """Writes results.csv and the report of what has ended, and says what has.

  The last words are the ranking, the verdict and where both are to be found.
  """
  ended = ablation_files.collect(plan)
  kinds = [run['outcome'] for run in ablation_files.results(plan)]
  faults = [_fault(plan, n) for n in range(len(plan.programs))]
  for fault in filter(None, faults):
    say(f'error: {fault}')
  print(
    f'{ended} of {plan.runs} runs ended: {kinds.count("done")} done,'
    f' {kinds.count("diverged")} diverged, {kinds.count("failed")} failed'
  )
  if ended:
    print(f'\n{verdict.spoken(results.read(plan.folder))}\n')
  if plan.base.report and ended:
    from gan_jax.ablation.report import write_ablation_report

    print(f'report: {write_ablation_report(plan.folder)}')
  print(f'results: {plan.folder / "results.csv"}')
  return doors.ERROR if any(faults) else doors.DONE


def _fault(plan: Plan, number: int) -> str:
  """What went wrong with a program that ended, and what to do; or nothing."""
  result = plan.result(number) or {}
  if result.get('message'):
    labels = {plan.cells[m.cell].label for m in plan.programs[number]}
    trace = plan.program_folder(number) / 'crash.txt'
    return (
      f'program {number + 1} crashed ({"; ".join(sorted(labels))}):'
      f' {result["message"]}\nThe traceback is in {trace}; the same command'
      ' tries it again.'
    )
  if unscored := _unscored(plan, number):
    path = plan.program_folder(number) / 'results.json'
    return (
      f'{len(unscored)} runs of program {number + 1} could not be scored:'
      f' {unscored[0]}\nTo try it again, remove {path} and run the same'
      ' command.'
    )
  return ''
