"""The host loop: data, steps, log, samples, checkpoints, and every way to end.

The compiled program advances as many steps as it is asked for: a loop whose
trip count is an argument, so that one program serves every stretch between
two boundaries (log, samples, checkpoint, end) and a run compiles its step
once. How many steps go into one dispatch is then a matter of timing alone
(`pacing.py`).
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.config import app as doors
from gan_jax.config import schema as config_lib
from gan_jax.config.schema import Config, ConfigError
from gan_jax.game.state import GANState, all_finite, norm
from gan_jax.game.step import make_train_step
from gan_jax.runtime import preemption, sharding
from gan_jax.runtime.checkpoint import CheckpointError, Checkpoints, not_saved
from gan_jax.training import setup as runs
from gan_jax.training import snapshots, workdir
from gan_jax.training.dispatch import Pace, boundary
from gan_jax.training.setup import Parts
from gan_jax.training.writers import Log, Progress, duration

PyTree = Any


def make_advance(parts: Parts) -> Callable[..., Any]:
  """The function that is compiled: `count` steps in one dispatch.

  `(state, hyper, constants, chunk, count) -> (state, sums, done, finite)`:
  metrics are summed over the `done` steps; it stops early, with `finite`
  false, after the first step whose losses or gradients are not. `finite` tells
  of the whole state at the end, too.
  """

  def advance(
    state: GANState, hyper: Any, constants: PyTree, chunk: PyTree, count: Any
  ) -> tuple[GANState, dict[str, jax.Array], jax.Array, jax.Array]:
    step = make_train_step(parts.plan_of(constants))

    def item(i: Any) -> PyTree:
      return jax.tree.map(lambda a: a[i], chunk)

    def body(carry: Any) -> Any:
      i, state, sums, _ = carry
      state, metrics = step(state, hyper, item(i))
      sums = jax.tree.map(jnp.add, sums, metrics)
      finite = all_finite(metrics)
      return i + 1, state, sums, finite

    def more(carry: Any) -> Any:
      i, _, _, finite = carry
      return (i < count) & finite

    shapes = jax.eval_shape(lambda: step(state, hyper, item(0))[1])
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    start = (jnp.int32(0), state, zeros, jnp.bool_(True))
    done, state, sums, finite = jax.lax.while_loop(more, body, start)
    return state, sums, done, finite & all_finite(state)

  return advance


class Dispatch:
  """The compiled program of a run, and how much it is given at a time."""

  def __init__(self, parts: Parts, state: GANState) -> None:
    """Compiles, once, for the shapes of `state`."""
    self._parts = parts
    self._rows = sharding.local_rows(parts.mesh, parts.config.batch_size)
    self.constants = sharding.put_replicated(parts.feed.constants, parts.mesh)
    self.pace = Pace(parts.feed.chunk(0, 1, self._rows))
    started = time.perf_counter()
    jitted = jax.jit(make_advance(parts), donate_argnums=0)
    self._program = jitted.lower(
      state, parts.hyper, self.constants, self._chunk(0, 1), np.int32(0)
    ).compile()
    self.compile_sec = time.perf_counter() - started

  def _chunk(self, start: int, count: int) -> PyTree:
    """Data of `count` steps, in arrays that have room for the most."""
    chunk = self._parts.feed.chunk(start, count, self._rows)
    room = jax.tree.map(lambda x: x[0], self.pace.room([chunk]))
    return sharding.put_chunk(room, self._parts.mesh)

  def item(self, step: int) -> PyTree:
    """The first batch of a step's data, on the device."""
    chunk = self._parts.feed.chunk(step, 1, self._rows)
    chunk = sharding.put_chunk(chunk, self._parts.mesh)
    return jax.tree.map(lambda x: x[0, 0], chunk)

  def __call__(
    self, state: GANState, step: int, count: int
  ) -> tuple[GANState, dict[str, float], int, bool]:
    """Advances; waits until it is done (several CPU devices need that)."""
    started = time.perf_counter()
    chunk = self._chunk(step, count)
    state, *rest = self._program(
      state, self._parts.hyper, self.constants, chunk, np.int32(count)
    )
    sums, done, finite = jax.device_get(rest)
    if finite and done != count:  # seen with jax 0.6.0 and a warm cache
      raise doors.Failure(
        f'the compiled program made {done} of {count} steps: it was kept by'
        f' another JAX; empty {self._parts.config.compilation_cache}, or use'
        ' --compilation_cache=off'
      )
    self.pace.took(time.perf_counter() - started, int(done), count)
    return (
      state,
      {k: float(v) for k, v in sums.items()},
      int(done),
      bool(finite),
    )


@jax.jit
def _norms(g: PyTree, d: PyTree) -> tuple[Any, Any]:
  return norm(g), norm(d)


@dataclasses.dataclass
class Totals:
  """Sums since the last row of the log; saved with every checkpoint."""

  sums: dict[str, float] = dataclasses.field(default_factory=dict)
  steps: int = 0
  seconds: float = 0.0

  def add(self, sums: dict[str, float], steps: int, seconds: float) -> None:
    """Adds one dispatch."""
    for name, value in sums.items():
      self.sums[name] = self.sums.get(name, 0.0) + value
    self.steps += steps
    self.seconds += seconds


class Trainer:
  """One run, from where its workdir says to its end."""

  def __init__(self, parts: Parts, folder: pathlib.Path) -> None:
    """Restores the newest whole checkpoint, or starts afresh; compiles."""
    self.parts, self.config, self.folder = parts, parts.config, folder
    self.primary = jax.process_index() == 0
    self.run_file = workdir.RunFile(folder)
    self.examiner = self._examiner()
    self.checkpoints = Checkpoints(
      folder,
      parts.config.keep_checkpoints,
      best=self.examiner.best if parts.config.keep_best else None,
    )
    self.totals = Totals()
    self.train_sec = 0.0
    self.saved = -1
    self.state, self.step = self._restore()
    for text in runs.cautions(parts.config, self.state):
      self._warn(text)
    self.snapshots = snapshots.Snapshots(parts)
    self.log = Log(folder, self.step) if self.primary else None
    self.progress = Progress(self.step, parts.config.steps, self.primary)

  def _examiner(self) -> Any:
    if not self.config.metrics:
      return None
    from gan_jax.training.scoring import Examiner

    return Examiner(self.parts, self.folder)

  def _warn(self, text: str) -> None:
    if self.primary:
      print(f'warning: {text}', file=sys.stderr, flush=True)

  def _restore(self) -> tuple[GANState, int]:
    found = self.checkpoints.restore_newest(self.parts.template(), self._warn)
    if found is None:
      return self.parts.init(), 0
    state, meta = found
    place = f'--workdir={self.config.workdir}'
    now = self.parts.feed.fingerprint
    workdir.check_data(place, meta['fingerprint'], now)
    self.totals = Totals(**meta['totals'])
    self.train_sec = meta['train_sec']
    self.saved = int(meta['step'])
    return sharding.put_replicated(state, self.parts.mesh), self.saved

  def save(self) -> None:
    """Saves this moment, unless it is saved."""
    if self.saved == self.step:
      return
    meta = {
      'fingerprint': self.parts.feed.fingerprint,
      'position': self.parts.feed.position(self.step),
      'totals': dataclasses.asdict(self.totals),
      'train_sec': self.train_sec,
      'config': config_lib.to_args(self.config),
    }
    self.checkpoints.save(self.step, self.state, meta)
    self.saved = self.step

  def sample(self) -> None:
    """Writes the samples of this moment."""
    files = self.snapshots.take(self.state, self.step)
    if self.log is None:
      return
    snapshots.save(files, self.folder)
    for name, content in files.items():
      if name.endswith('.png'):
        self.log.image(f'samples/{name.split("_")[0]}', content, self.step)

  @functools.cached_property
  def _probe(self) -> Any:
    from gan_jax.training.dynamics_log import Probe

    return Probe(self.parts)

  def probe(self) -> None:
    """Writes what the instruments of the game say of this moment."""
    item = self.dispatch.item(self.step)
    found = self._probe(self.state, self.dispatch.constants, item)
    if self.log is not None:
      self.log.write({'step': self.step, **found}, 'dynamics')

  def evaluate(self) -> None:
    """Scores this moment, unless it was before a restart, and shows it."""
    scores, said = self.examiner(self.state, self.step)
    if self.log is not None:
      self.log.show(scores, self.step)
      self.progress.say(f'step {self.step}  {said}')
    if self.config.keep_best:
      self.run_file.update(best=self.examiner.best_of_all())

  def write_row(self) -> None:
    """Writes the means since the last row of the log."""
    totals, self.totals = self.totals, Totals()
    if not totals.steps:
      return
    g_norm, d_norm = _norms(self.state.g.params, self.state.d.params)
    if self.log is None:
      return
    each = totals.seconds / totals.steps
    shown = self.parts.plan.images_a_step
    factor = float(self.parts.plan.rate_factor(jnp.int32(self.step - 1)))
    row: dict[str, float] = {'step': self.step, 'images': self.step * shown}
    row |= {k: v / totals.steps for k, v in sorted(totals.sums.items())}
    row |= {
      'd/param_norm': float(d_norm),
      'g/param_norm': float(g_norm),
      'd/lr': factor * self.config.lr_d,
      'g/lr': factor * self.config.lr_g,
      'speed/images_per_sec': shown / each,
      'speed/sec_per_kimg': 1000 * each / shown,
      'speed/sec_per_step': each,
      'time/train_sec': self.train_sec,
    }
    self.log.write(row)
    self.progress.row(row)

  def _left(self) -> int:
    """Steps to the next at which something is written."""
    c = self.config
    cadences = (c.log_every, c.sample_every, c.checkpoint_every)
    often = (*cadences, c.dynamics_every, c.eval_every)
    return boundary(self.step, c.steps, often) - self.step

  def _due(self, every: int) -> bool:
    """Whether what comes every so many steps comes now, at the end anyway."""
    end = self.step == self.config.steps
    return end or (every > 0 and self.step % every == 0)

  def _boundary_reached(self) -> None:
    c = self.config
    if self._due(c.log_every):
      self.write_row()
    if self._due(c.sample_every):
      self.sample()
    if c.dynamics_every and self._due(c.dynamics_every):
      self.probe()
    scored = bool(c.metrics) and self._due(c.eval_every)
    # Before it is scored, which may fail. The best has to be there to be kept.
    if self._due(c.checkpoint_every) or (scored and c.keep_best):
      self.save()
    if scored:
      self.evaluate()

  @functools.cached_property
  def dispatch(self) -> Dispatch:
    """The compiled program."""
    dispatch = Dispatch(self.parts, self.state)
    self.run_file.update(compile_sec=round(dispatch.compile_sec, 3))
    self.progress.say(f'compiled in {duration(dispatch.compile_sec)}')
    return dispatch

  def run(self, ear: preemption.Ear) -> str:
    """Trains to the end, a signal or a divergence; says which."""
    dispatch = self.dispatch
    if self.step == 0:
      self.sample()
      if self.config.dynamics_every:
        self.probe()
    elif self.examiner and not self.examiner.resume(self.state, self.step):
      if self._due(self.config.eval_every):  # saved, and not scored any more
        self.evaluate()
    ear.at_once = False
    while self.step < self.config.steps:
      stop, count = dispatch.pace.agree(bool(ear.heard), self._left())
      if stop:
        self.save()
        self.checkpoints.wait()
        return 'saved'
      started = time.perf_counter()
      self.state, sums, done, finite = dispatch(self.state, self.step, count)
      seconds = time.perf_counter() - started
      self.step += done
      self.train_sec += seconds
      self.totals.add(sums, done, seconds)
      self.progress.moved(self.step)
      if not finite:
        self.bad = sorted(k for k, v in sums.items() if not np.isfinite(v))
        self.write_row()
        return 'diverged'
      self._boundary_reached()
    self.save()
    self.checkpoints.wait()
    return 'done'

  def close(self) -> None:
    """Closes the bar, the checkpoints and the log.

    Raises:
      CheckpointError, OSError: if something could not be written.
    """
    self.progress.close()
    try:
      self.checkpoints.close()
    finally:
      if self.log is not None:
        self.log.close()


def setup(config: Config) -> None:
  """Joins the job's other processes and finds the compilation cache."""
  if config.compilation_cache not in ('off', ''):
    cache = os.path.expanduser(config.compilation_cache)
    jax.config.update('jax_compilation_cache_dir', cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
  if config.multihost:
    try:
      jax.distributed.initialize()
    except ValueError as error:
      raise ConfigError(
        f'--multihost=true: no job to join was found ({error}); start through'
        ' launch/, or use --multihost=false'
      ) from error
    except RuntimeError as error:
      raise doors.Failure(
        '--multihost=true: the other processes of the job could not be joined'
        f' ({str(error).splitlines()[0]}); see that all of them were started'
        ' and reach the first one'
      ) from error


def train(config: Config) -> int:
  """Trains as the configuration says; returns an exit code of `doors`.

  Raises:
    ConfigError, DataError, NetworkError, ShardingError, CheckpointError:
      whose messages name the flag or file and the remedy.
  """
  config.validate()
  workdir.check(config)
  try:
    with preemption.listening():
      setup(config)
    # Anew: jax.distributed has put a handler of its own in the place of ours.
    with preemption.listening() as ear:
      return _train(config, ear)
  except preemption.Stopped as stopped:
    print(
      f'stopped by {stopped} while there was nothing to save; run the same'
      ' command again',
      file=sys.stderr,
    )
    return doors.SAVED


def _train(config: Config, ear: preemption.Ear) -> int:
  parts = runs.build(config)
  with workdir.opened(config) as folder:
    trainer = None
    try:
      trainer = Trainer(parts, folder)
      workdir.claim(config)
      return _conduct(trainer, ear)
    except OSError as error:
      raise not_saved(folder, error) from error
    finally:
      if trainer is not None:
        # Closed before, unless something else is already being told.
        with contextlib.suppress(CheckpointError, OSError):
          trainer.close()


def _conduct(trainer: Trainer, ear: preemption.Ear) -> int:
  """Runs a trainer and writes down how it ended."""
  config, run_file = trainer.config, trainer.run_file
  done = trainer.step >= config.steps
  if not done:
    run_file.update(
      **workdir.environment(), **runs.describe(trainer.parts, trainer.state)
    )
    run_file.update(
      started=run_file.facts.get('started', workdir.now()), outcome='running'
    )
  if trainer.step:
    trainer.progress.say(f'continuing at step {trainer.step}')
  if done and trainer.examiner:  # of a run that was done before
    trainer.evaluate()
  try:
    outcome = 'done' if done else trainer.run(ear)
  except preemption.Stopped:  # while it compiled: nothing is new since the last
    run_file.update(outcome='saved', step=trainer.step, finished=workdir.now())
    raise
  facts: dict[str, Any] = {'outcome': outcome, 'step': trainer.step}
  if not done:
    facts |= {
      'finished': workdir.now(),
      'train_sec': round(trainer.train_sec, 3),
    }
  run_file.update(**facts)
  trainer.close()
  return _farewell(trainer, outcome)


def _farewell(trainer: Trainer, outcome: str) -> int:
  """Writes the report and tells the person where everything is."""
  folder = trainer.folder
  if not trainer.primary:
    return {'done': doors.DONE, 'saved': doors.SAVED}.get(
      outcome, doors.DIVERGED
    )
  if outcome == 'saved':
    print(
      f'saved at step {trainer.step} of {trainer.config.steps} in {folder};'
      ' run the same command again to continue',
      file=sys.stderr,
    )
    return doors.SAVED
  if trainer.config.report:
    from gan_jax.training.report import write_report

    print(f'report: {write_report(folder)}')
  if outcome == 'diverged':
    told = runs.advice(trainer.step, trainer.bad, trainer.checkpoints)
    print(f'error: {told}', file=sys.stderr)
    return doors.DIVERGED
  print(
    f'done: {trainer.step} steps, {duration(trainer.train_sec)} of training,'
    f' in {folder}'
  )
  return doors.DONE
