"""The engine of an ablation: programs one after another, scored, collected.

A program is a population. Finished ones are not run again; one that crashes is
recorded as failed, with its message, and the others continue.
"""

import contextlib
import dataclasses
import json
import pathlib
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from gan_jax.ablation import folder as folder_lib
from gan_jax.ablation import hosts
from gan_jax.ablation.plan import AblationPlan, choose_primary, idle_options
from gan_jax.ablation.population_run import (
  MakeRun,
  PopulationRun,
  check_identities,
  identify_programs,
  make_population_run,
)
from gan_jax.ablation.progress import (
  Progress,
  describe_inventories,
  describe_plan,
  describe_time,
  say,
)
from gan_jax.ablation.results import read_results
from gan_jax.ablation.scoring import (
  FATAL,
  EvaluatorScorer,
  Scorer,
  Scoring,
  describe_error,
)
from gan_jax.ablation.verdict import format_for_terminal
from gan_jax.config import app, schema
from gan_jax.config.schema import Config
from gan_jax.runtime import (
  backend,
  multihost,
  numerics,
  preemption,
  records,
  terminal,
)
from gan_jax.runtime.checkpoint import not_saved
from gan_jax.runtime.files import remove_leftovers, write_atomic
from gan_jax.runtime.provenance import environment, now
from gan_jax.training import remote
from gan_jax.training.workdir import RunFile

_CALIBRATION = 0.3  # seconds to measure a step for
MakeScorer = Callable[[AblationPlan], Scorer]


def ablate(
  plan: AblationPlan,
  *,
  dry_run: bool = False,
  make_run: MakeRun = make_population_run,
  make_scorer: MakeScorer = EvaluatorScorer,
  prepare: Callable[[Config, str], None] = lambda base, part: None,
) -> int:
  """Runs what is left of an ablation, as the command does; its exit code.

  0 when every run has ended, diverged ones too; 1 when some crashed or could
  not be scored (the others have ended); 75 when it was stopped by a signal.

  Args:
    plan: of the ablation.
    dry_run: whether to print the plan and its time alone.
    make_run: makes the training of one program's runs.
    make_scorer: makes what scores them.
    prepare: called before JAX computes, when the workdir is on this machine,
      with the options of all runs and the name of its share of the programs.

  Raises:
    Error: whose message names the argument or file and the remedy.
  """
  if hosts.count_of(plan) == 1:
    plan = folder_lib.decide_split(plan)
    folder_lib.check_folder(plan)
    return _ablate(plan, dry_run, make_run, make_scorer, prepare)
  plan, is_first = hosts.agree_on_split(plan), multihost.is_first()

  def work() -> int:
    if dry_run and not is_first:
      backend.check_devices()  # which takes all processes of a TPU slice
      return app.DONE
    folder_lib.check_folder(plan)
    share = hosts.share_of(plan)
    return _ablate(share, dry_run, make_run, make_scorer, prepare)

  try:
    code = hosts.work_apart(plan, work, leave=True)
    if dry_run or not is_first or code == app.SAVED:
      return code
    with preemption.listen():
      return collect(plan)
  except KeyboardInterrupt as stopped:
    say(f'stopped by {stopped or "Ctrl-C"}; run the same command again')
    return app.SAVED


def _ablate(
  plan: AblationPlan,
  dry_run: bool,
  make_run: MakeRun,
  make_scorer: MakeScorer,
  prepare: Callable[[Config, str], None],
) -> int:
  """What one process does."""
  part = plan.options.only.replace('/', '-')
  is_first = multihost.number() == 0
  for message in idle_options(plan.base) if is_first else ():
    app.warn(message)
  if not plan.chosen_programs():
    who = f'`only={plan.options.only}`'
    if plan.base.multihost:
      who = f'process {multihost.number() + 1} of {multihost.count()}'
    app.warn(
      f'{who}: has nothing to do, as there are {len(plan.programs)} compiled'
      f' programs (`split={plan.options.split}`)'
    )
  try:
    with preemption.listen() as listener:
      if dry_run:
        with copied(plan) as here:
          prepare(here.base, part)
          folder_lib.check_folder(here)
          print(describe_plan(here))
          return _run_dry(AblationRunner(here, listener, make_run, make_scorer))
      with held(plan, listener) as here:
        prepare(here.base, part)
        folder_lib.check_folder(here)
        if is_first:
          say(describe_plan(here))
        engine = AblationRunner(here, listener, make_run, make_scorer)
        return _report_end(here, engine.run())
  except preemption.Stopped as stopped:
    say(f'stopped by {stopped}; run the same command again')
    return app.SAVED


@contextlib.contextmanager
def held(
  plan: AblationPlan, listener: preemption.Listener
) -> Iterator[AblationPlan]:
  """The plan with its folder on this machine, put where it belongs.

  Raises:
    Error: as `remote.held`.
  """
  claims, wanted = plan.claims, plan.concerns
  with remote.held(plan.base, listener, claims, wanted) as base:
    yield plan if base is plan.base else plan.at(base.workdir)


@contextlib.contextmanager
def copied(plan: AblationPlan) -> Iterator[AblationPlan]:
  """The plan with a copy of its folder, checkpoints apart, if it is a URL."""
  with contextlib.ExitStack() as stack:
    folder = remote.fetched(plan.base.workdir, stack)
    yield plan.at(str(folder))


class AblationRunner:
  """One ablation, from where its folder says to its end.

  Attributes:
    plan: of the ablation.
    crashed: programs that crashed just now.
  """

  def __init__(
    self,
    plan: AblationPlan,
    listener: preemption.Listener,
    make_run: MakeRun = make_population_run,
    make_scorer: MakeScorer = EvaluatorScorer,
  ) -> None:
    """Makes nothing yet."""
    self.plan, self.crashed = plan, set[int]()
    self._listener = listener
    self._make_run, self._make_scorer = make_run, make_scorer
    self._runs: dict[int, PopulationRun] = {}

  def run(self) -> str:
    """Runs what is left; `done`, or `saved` after a signal.

    Raises:
      Error: whose message names the argument or file and the remedy.
    """
    plan, only = self.plan, bool(self.plan.options.only)
    with contextlib.ExitStack() as stack:
      stack.enter_context(folder_lib.lock_folder(plan.folder, shared=only))
      folder_lib.check_folder(plan)  # again: it may be another's meanwhile
      self.prepare()
      for number in plan.chosen_programs() if only else ():
        program = plan.program_folder(number)
        stack.enter_context(folder_lib.lock_folder(program))
      self._mend_folders()
      try:
        seconds = self.estimate_seconds()
        say(describe_time(seconds))
        return self._run_programs(Progress(plan, seconds))
      except OSError as error:
        raise not_saved(plan.folder, error) from error
      finally:
        with contextlib.suppress(ValueError, OSError):
          self.close()

  def _mend_folders(self) -> None:
    """Removes what a kill left, writes again what the plan says of members."""
    remove_leftovers(self.plan.folder)
    for number in self.plan.chosen_programs():
      folder = self.plan.program_folder(number)
      if folder.is_dir():
        remove_leftovers(folder, folder / 'samples')
        self._write_members(number)

  def prepare(self, *, written: bool = True) -> None:
    """Checks every cell and its scores; writes the plan.

    Args:
      written: whether the plan is written.

    Raises:
      Error: naming the cell, or the argument that is of no use.
    """
    scorer = self._make_scorer(self.plan)
    scorer.check_cells()
    if found := describe_inventories(self.plan):
      say(found)
    directions = scorer.score_directions()
    choose_primary(self.plan.options, directions)
    self._scoring = Scoring(self.plan, scorer, self._listener)
    if not written:
      return
    identities = identify_programs(self.plan)
    recorded = folder_lib.read_plan(self.plan.folder) or {}
    check_identities(self.plan, recorded.get('identities', []), identities)
    folder_lib.check_numerics(self.plan.folder, recorded)
    facts: dict[str, Any] = {
      'environment': environment(),
      'numerics': numerics.settings(),
      'protocol': scorer.protocol(),
    }
    facts |= {'identities': identities} if identities else {}
    folder_lib.write_plan(self.plan, facts, directions)

  def programs_left(self) -> list[int]:
    """Programs that are to be run; one that has crashed just now is not."""
    return [
      n
      for n in self.plan.chosen_programs()
      if not self.plan.is_finished(n) and n not in self.crashed
    ]

  def _population_run(
    self, number: int, folder: pathlib.Path | None = None
  ) -> PopulationRun:
    """The training of a program's runs, made once."""
    if number not in self._runs:
      self._runs[number] = self._make_run(
        self.plan,
        number,
        folder or self.plan.program_folder(number),
      )
    return self._runs[number]

  def estimate_seconds(
    self, folder: pathlib.Path | None = None
  ) -> dict[int, float]:
    """Seconds that each program takes that is left, by a short calibration.

    One program is compiled and timed for each kind of step, objectives apart.

    Args:
      folder: where to try them in place of the ablation's, in which nothing is
        written then.
    """
    kinds: dict[Any, tuple[float, float]] = {}
    seconds: dict[int, float] = {}
    for number in self.programs_left():
      members, spec = self.plan.programs[number], self.plan.spec_of(number)
      kind: Any = dataclasses.replace(
        schema.static(spec.config),
        objective='',  # of little weight in a step
      )
      kind = kind if spec.named else number
      if kind not in kinds:
        with self._recorded_crash(number, written=folder is None):
          place = folder and folder / f'{number:03d}'
          run = self._population_run(number, place)
          if run.step < spec.config.steps:
            step = run.calibrate(_CALIBRATION) / len(members)
            kinds[kind] = (run.compile_sec, step)
      if kind in kinds:
        compile_sec, step = kinds[kind]
        steps = len(members) * spec.config.steps
        seconds[number] = compile_sec + step * steps
    return seconds

  @contextlib.contextmanager
  def _recorded_crash(
    self, number: int, written: bool = True
  ) -> Iterator[None]:
    """Reports a crash, and records it as the end of a program's runs."""
    try:
      yield
    except Exception as error:
      if isinstance(error, FATAL):
        raise
      message = describe_error(error)
      say(f'program {number + 1} crashed: {message.splitlines()[0]}')
      if written:
        self._write_crash(number, message)
      self.crashed.add(number)
      run = self._runs.pop(number, None)
      if run is not None:
        run.close()

  def _write_crash(self, number: int, message: str) -> None:
    """How its runs ended, and the traceback of the exception at hand."""
    failed = {'outcome': 'failed', 'step': '', 'scores': {}}
    runs = [
      {'cell': m.cell, 'seed': m.seed, **failed, 'evaluation_std': {}}
      for m in self.plan.programs[number]
    ]
    self._write_result(number, {'message': message, 'runs': runs})
    folder = self.plan.program_folder(number)
    write_atomic(folder / 'crash.txt', traceback.format_exc())

  def _write_result(self, number: int, result: dict[str, Any]) -> None:
    folder = self.plan.program_folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    records.write(folder / 'results.json', result, 1)

  def _run_programs(self, progress: Progress) -> str:
    for number in self.programs_left():
      outcome = 'done'
      with self._recorded_crash(number):
        outcome = self._run_program(number, progress)
      if outcome == 'saved':
        return outcome
      progress.finish_program(number)
      if not self.plan.options.only:
        folder_lib.collect_results(self.plan)
    return 'done'

  def _run_program(self, number: int, progress: Progress) -> str:
    folder = self.plan.program_folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    self._write_members(number)
    run = self._population_run(number)
    run_file = RunFile(folder)
    run_file.update(
      **environment(),
      layout=run.layout,
      started=run_file.facts.get('started', now()),
      outcome='running',
    )
    progress.start_program(number, run)
    outcome = run.run(
      self._listener,
      lambda step, took: progress.report_step(number, run),
      lambda: self._scoring.score_interim(number, run, progress),
    )
    if outcome == 'done':
      outcome = self._end_program(number, run, progress)
    run_file.update(
      outcome=outcome,
      step=run.step,
      members=len(self.plan.programs[number]),
      train_sec=round(run.train_sec, 3),
      train_cpu_sec=round(run.cpu_sec, 3),
      compile_sec=round(run.compile_sec, 3),
      finished=now(),
    )
    if outcome == 'done':
      progress.report_step(number, run, last=True)
    del self._runs[number]
    run.close()
    return outcome

  def _write_members(self, number: int) -> None:
    members = [
      {
        'cell': m.cell,
        'seed': m.seed,
        'values': self.plan.cells[m.cell].settings,
      }
      for m in self.plan.programs[number]
    ]
    path = self.plan.program_folder(number) / 'members.json'
    content = (json.dumps(members, indent=1) + '\n').encode()
    if not path.is_file() or path.read_bytes() != content:
      write_atomic(path, content)

  def _end_program(
    self, number: int, run: PopulationRun, progress: Progress
  ) -> str:
    """Writes how the runs ended; `saved` if a signal came meanwhile."""
    run.write_samples()
    runs = self._scoring.score_final(number, run, progress)
    if runs is None:
      return 'saved'
    self._write_result(number, {'runs': runs})
    folder = self.plan.program_folder(number)
    for name in ('final_scores.json', 'crash.txt'):  # of an earlier try
      (folder / name).unlink(missing_ok=True)
    return 'done'

  def close(self) -> None:
    """Closes what a calibration or an error left open."""
    for run in self._runs.values():
      run.close()


def _run_dry(engine: AblationRunner) -> int:
  engine.prepare(written=False)
  with tempfile.TemporaryDirectory() as folder:
    try:
      print(describe_time(engine.estimate_seconds(pathlib.Path(folder))))
    finally:
      engine.close()
  return app.ERROR if engine.crashed else app.DONE


def _report_end(plan: AblationPlan, outcome: str) -> int:
  """Says where everything is and how it ended."""
  if outcome == 'saved':
    say(f'saved in {plan.folder}; run the same command again to continue')
    return app.SAVED
  if not plan.options.only:
    return _collect(plan)
  failed = any(_describe_fault(plan, n) for n in plan.chosen_programs())
  done = f'done: part {plan.options.only} of {plan.folder}'
  if plan.base.multihost:  # the first process collects
    say(done)
  else:
    done += '; collect all parts to get results.csv and the report'
    terminal.tell(done, sys.stdout)
  return app.ERROR if failed else app.DONE


def collect(plan: AblationPlan) -> int:
  """Writes results.csv and the report of what has ended, and says what has.

  Prints the ranking, the verdict and where both are to be found.
  """
  with copied(folder_lib.decide_split(plan)) as here:
    folder_lib.check_folder(here)
    code = _collect(here)
    remote.put_back(here.folder)
  return code


def _collect(plan: AblationPlan) -> int:
  ended = folder_lib.collect_results(plan)
  outcomes = [run['outcome'] for run in folder_lib.read_runs(plan)]
  faults = [_describe_fault(plan, n) for n in range(len(plan.programs))]
  for fault in filter(None, faults):
    say(f'error: {fault}')
  counts = ', '.join(
    f'{outcomes.count(o)} {o}' for o in ('done', 'diverged', 'failed')
  )
  print(f'{ended} of {plan.runs} runs ended: {counts}')
  if ended:
    print(f'\n{format_for_terminal(read_results(plan.folder))}\n')
  if plan.base.report and ended:
    from gan_jax.ablation.report import write_ablation_report

    terminal.tell(f'report: {write_ablation_report(plan.folder)}', sys.stdout)
  terminal.tell(f'results: {plan.folder / "results.csv"}', sys.stdout)
  return app.ERROR if any(faults) else app.DONE


def _describe_fault(plan: AblationPlan, number: int) -> str:
  """What went wrong with a program that ended, and what to do; or nothing."""
  result = plan.read_result(number) or {}
  folder = plan.program_folder(number)
  if result.get('message'):
    labels = {plan.cells[m.cell].label for m in plan.programs[number]}
    return (
      f'program {number + 1} crashed ({"; ".join(sorted(labels))}):'
      f' {result["message"]}\nThe traceback is in {folder / "crash.txt"}; the'
      ' same command tries it again.'
    )
  runs = result.get('runs', ())
  unscored = [run['unscored'] for run in runs if 'unscored' in run]
  if unscored:
    return (
      f'{len(unscored)} runs of program {number + 1} could not be scored:'
      f' {unscored[0]}\nTo try it again, remove {folder / "results.json"} and'
      ' run the same command.'
    )
  return ''
