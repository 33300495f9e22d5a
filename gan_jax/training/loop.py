"""The host loop of a run or of a population.

It restores and saves, hands the compiled program as many steps at a time as fit
between two boundaries (log, samples, checkpoint, evaluation, end), listens for
signals and answers every way to end. What a run and a population differ in,
their compiled program and what they write, is said by `RunLoop` and
`PopulationLoop`.
"""

import abc
import contextlib
import functools
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from gan_jax.config import app
from gan_jax.runtime import multihost, preemption, rescue
from gan_jax.runtime.checkpoint import Best, Checkpoints
from gan_jax.runtime.errors import Error
from gan_jax.training import workdir
from gan_jax.training.dispatch import Pace, next_boundary
from gan_jax.training.goodput import Ledger, Spread
from gan_jax.training.setup import Setup, cautions
from gan_jax.training.watch import Watch

PyTree = Any
PROFILED = 3  # the dispatch that is traced: the first ones are not typical


class HostLoop(abc.ABC):
  """One compiled program in training, from where its folder says to its end.

  Attributes:
    setup: what is trained.
    folder: of the run or population.
    checkpoints: in it.
    state: as it is, on the devices.
    step: steps done.
    train_sec: wall seconds of training; `cpu_sec` of all cores.
    compile_sec: seconds that the compilation took.
    listener: of the signals that end it.
    ledger: of the time of this process, and of those before it.
    spread: of the seconds of a step, in this process.
  """

  def __init__(
    self,
    setup: Setup,
    folder: pathlib.Path,
    keep: int,
    best: Best | None = None,
    ledger: Ledger | None = None,
  ) -> None:
    """Restores the newest whole checkpoint, or starts afresh."""
    self.ledger, self.spread = ledger or Ledger(), Spread()
    self.setup, self.config, self.folder = setup, setup.config, folder
    self.checkpoints = Checkpoints(folder, keep, best=best)
    self.train_sec = self.cpu_sec = self.compile_sec = 0.0
    self._saved, self._dispatches = -1, 0
    self.listener = preemption.Listener()
    self._watch: Watch | None = None
    self.state, self.step = self._restore()

  # What a run and a population differ in.

  @abc.abstractmethod
  def template(self) -> PyTree:
    """The structure that is saved: shapes and types."""

  @abc.abstractmethod
  def fresh(self) -> PyTree:
    """The state before the first step."""

  @abc.abstractmethod
  def place(self, saved: PyTree) -> PyTree:
    """A saved state on the devices."""

  def to_save(self) -> PyTree:
    """What of the state is saved."""
    return self.state

  @abc.abstractmethod
  def meta(self) -> dict[str, Any]:
    """What is saved beside the state."""

  @abc.abstractmethod
  def accept(self, meta: dict[str, Any]) -> None:
    """Takes what was saved beside the state, or refuses it."""

  @abc.abstractmethod
  def compile(self) -> Any:
    """The compiled program; of shapes alone, as no data are read before."""

  def read_data(self) -> None:  # noqa: B027, most are handed none
    """Reads the data that the program is handed once."""

  @property
  @abc.abstractmethod
  def pace(self) -> Pace:
    """The size of the next dispatch."""

  @abc.abstractmethod
  def advance(self, count: int) -> tuple[int, bool]:
    """Some steps: how many were made, and whether all is finite."""

  @abc.abstractmethod
  def cadences(self) -> Sequence[int]:
    """Steps between the boundaries of each kind; 0 for none."""

  @abc.abstractmethod
  def at_boundary(self) -> None:
    """Writes what is due."""

  def at_start(self) -> None:  # noqa: B027, most have nothing to write
    """Writes what is due before the first dispatch of this process."""

  def after_dispatch(self, seconds: float) -> None:  # noqa: B027
    """Reports a dispatch."""

  # What they share.

  def _restore(self) -> tuple[PyTree, int]:
    restored = self.checkpoints.restore_newest(self.template(), self.warn)
    newest = -1 if restored is None else int(restored[1]['step'])
    rescued = rescue.read_newest(
      self.folder, self.template(), newest, self.warn
    )
    if rescued is not None:
      restored = rescued
    if restored is None:
      self.ledger.kept(0.0)
      return self.fresh(), 0
    saved, meta = restored
    self.ledger.kept(meta['kept_sec' if 'kept_sec' in meta else 'train_sec'])
    warning = workdir.check_data(
      str(self.folder), meta['fingerprint'], self.setup.feed.fingerprint
    )
    if warning:
      self.warn(warning)
    self.accept(meta)
    self.train_sec, self.cpu_sec = meta['train_sec'], meta.get('cpu_sec', 0.0)
    self._saved = newest
    return self.place(saved), int(meta['step'])

  def warn(self, text: str) -> None:
    """Prints a warning, once for all processes."""
    if multihost.is_primary():
      app.warn(text)

  def save(self) -> None:
    """Saves this moment, unless it is saved."""
    if self._saved == self.step:
      return
    with self.ledger.spend('checkpoint'):
      self.checkpoints.save(self.step, self.to_save(), self._full_meta())
    self._saved = self.step

  def _full_meta(self) -> dict[str, Any]:
    return {
      'fingerprint': self.setup.feed.fingerprint,
      'train_sec': self.train_sec,
      'cpu_sec': self.cpu_sec,
      'kept_sec': self.ledger.train,
      **self.meta(),
    }

  def warnings(self) -> list[str]:
    """Of options that may be a mistake, for a loop that has steps to make."""
    return cautions(self.setup) if self.step < self.config.steps else []

  @functools.cached_property
  def program(self) -> Any:
    """The compiled program, compiled once."""
    started = time.perf_counter()
    with self.ledger.spend('compile'):
      program = self.compile()
    self.compile_sec = time.perf_counter() - started
    self.read_data()
    return program

  def dispatch(self, count: int) -> tuple[int, bool]:
    """Advances, and accounts for it: steps made, and whether all is finite."""
    _ = self.program  # compiled before the clock starts
    with self._profiling(), self.ledger.spend('train'):
      started, cpu = time.perf_counter(), time.process_time()
      done, finite = self.advance(count)
      seconds = time.perf_counter() - started
      self.cpu_sec += time.process_time() - cpu
    self.spread.add(seconds / max(done, 1), done)
    self.step += done
    self.train_sec += seconds
    self.pace.learn(seconds, done, count)
    self.after_dispatch(seconds)
    return done, finite

  def _profiling(self) -> contextlib.AbstractContextManager[Any]:
    """Within, one dispatch of the process is traced, if that is asked for."""
    self._dispatches += 1
    wanted = self.config.profile and self._dispatches == PROFILED
    if not (wanted and multihost.is_primary()):
      return contextlib.nullcontext()
    return jax.profiler.trace(
      str(self.folder / 'profile'), create_perfetto_trace=True
    )

  def is_due(self, every: int) -> bool:
    """Whether what comes every so many steps comes now; at the end anyway."""
    end = self.step == self.config.steps
    return end or (every > 0 and self.step % every == 0)

  @property
  def is_over(self) -> bool:
    """Whether nothing is left to be done."""
    return self.step >= self.config.steps

  def run(self, listener: preemption.Listener) -> str:
    """Trains to the end, a signal or a divergence.

    Returns:
      `done`, `saved` or `diverged`.
    """
    steps, self.listener = self.config.steps, listener
    if self.step < steps:
      _ = self.program  # while a signal still ends the process at once
    listener.raise_at_once = False
    self.ledger.started()
    with self._watched():
      self.at_start()
      together = False  # whether the others can only be where this one is
      while self.step < steps:
        left = next_boundary(self.step, steps, self.cadences()) - self.step
        with self._watching(together):
          stop, count = multihost.agree_on_dispatch(
            bool(listener.received), self.pace.count(left)
          )
        if stop:
          return self._stop('saved')
        with self._watching(True):
          _, finite = self.dispatch(count)
        if not finite:
          return 'diverged'
        together = count < left  # else the first one writes
        self.at_boundary()
      return self._stop('done' if self.is_over else 'saved')

  def _stop(self, outcome: str) -> str:
    if self.config.profile and self._dispatches < PROFILED:
      self.warn(
        f'`profile=True`: nothing was traced in {self._dispatches} dispatches;'
        ' make more `steps`'
      )
    self.save()
    with self.ledger.spend('checkpoint'):
      self.checkpoints.wait()
    rescue.discard(self.folder, self.step)
    return outcome

  @contextlib.contextmanager
  def _watched(self) -> Iterator[None]:
    """Within, a process that has lost the others saves what it holds."""
    deadline = self.config.save_deadline
    if multihost.is_alone() or not deadline:
      yield
      return
    try:
      self._watch = Watch(self.folder, jax.process_index(), deadline)
    except ValueError:  # not in the main thread
      yield
      return
    try:
      yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
      if not isinstance(error, Error):  # a ValueError, too, and not JAX's
        reason = str(error).splitlines()[0][:200]
        self._watch.give_up(
          f'what was computed with the other processes failed ({reason})', False
        )
      raise
    finally:
      self._watch.close()
      self._watch = None

  @contextlib.contextmanager
  def _watching(self, timed: bool) -> Iterator[None]:
    """Within, something is computed with the other processes."""
    if self._watch is not None:
      self._watch.hold(self.step, self.state, self._full_meta())
      if timed:
        self._watch.begin()
    yield
    if self._watch is not None:
      self._watch.finish()

  def close(self) -> None:
    """Ends the background threads.

    Raises:
      CheckpointError, OSError: if something could not be written.
    """
    self.checkpoints.close()
