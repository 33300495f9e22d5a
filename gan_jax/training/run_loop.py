"""The training of one run: its compiled program, and all that it writes."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.config import schema
from gan_jax.game.state import State, all_finite, norm
from gan_jax.runtime import backend, multihost, preemption, sharding
from gan_jax.runtime.errors import Error
from gan_jax.runtime.progress import format_bytes, format_duration
from gan_jax.training import memory, remote, snapshots, workdir
from gan_jax.training.ahead import Ahead
from gan_jax.training.dispatch import Pace
from gan_jax.training.goodput import Ledger, format_minute
from gan_jax.training.loop import HostLoop
from gan_jax.training.setup import Setup
from gan_jax.training.writers import Log, Progress

PyTree = Any
_MINUTE = 60.0  # seconds from one line to the next


def make_advance(setup: Setup) -> Callable[..., Any]:
  """The function that is compiled: `count` steps in one dispatch.

  `(state, constants, chunk, count) -> (state, sums, done, finite, facts)`: logs
  are summed over the `done` steps; it stops early, with `finite` false, after
  the first step whose losses or gradients are not. `finite` tells of the whole
  state at the end, too, and `facts` are what a row of the log says of it.
  """

  def advance(
    state: State, constants: PyTree, chunk: PyTree, count: Any
  ) -> tuple[Any, ...]:
    def step(state: State, i: Any) -> tuple[State, dict[str, jax.Array]]:
      item = jax.tree.map(lambda a: a[i], chunk)
      moved: tuple[State, dict[str, jax.Array]] = setup.split_step(
        state, setup.batch_of(constants, item, state)
      )
      return moved

    def body(carry: Any) -> Any:
      i, state, sums, _ = carry
      state, logs = step(state, i)
      # As one vector: a kernel for all of them.
      row = jnp.stack([logs[name] for name in names])
      return i + 1, state, sums + row, jnp.isfinite(row).all()

    def more(carry: Any) -> Any:
      i, _, _, finite = carry
      return (i < count) & finite

    names = sorted(jax.eval_shape(lambda: step(state, 0)[1]))
    zeros = jnp.zeros(len(names), jnp.float32)
    start = (jnp.int32(0), state, zeros, jnp.bool_(True))
    done, state, totals, finite = jax.lax.while_loop(more, body, start)
    sums = {name: totals[i] for i, name in enumerate(names)}
    facts = {
      'd/param_norm': norm(state.d.params),
      'g/param_norm': norm(state.g.params),
      **setup.trainer.rates(state.step - 1),
    }
    return state, sums, done, finite & all_finite(state), facts

  return advance


def lower(
  setup: Setup,
  state: Any,
  constants: PyTree,
  chunk: PyTree,
  *,
  donate: bool = True,
) -> Any:
  """The program of a run, lowered: `make_advance`.

  Args:
    setup: of the run.
    state: before; arrays, or shapes with their shardings, as the others.
    constants: of the feed.
    chunk: of the data of one dispatch.
    donate: whether the memory of the state is used for the one after it.
  """
  jitted = jax.jit(make_advance(setup), donate_argnums=(0,) if donate else ())
  return jitted.lower(state, constants, chunk, np.int32(0))


@dataclasses.dataclass
class Totals:
  """Sums since the last row of the log; saved with every checkpoint."""

  sums: dict[str, float] = dataclasses.field(default_factory=dict)
  steps: int = 0
  seconds: float = 0.0
  waited: float = 0.0  # seconds of them for data

  def add(self, sums: dict[str, float], steps: int) -> None:
    """Adds the logs of one dispatch."""
    for name, value in sums.items():
      self.sums[name] = self.sums.get(name, 0.0) + value
    self.steps += steps


class RunLoop(HostLoop):
  """One run in training, from where its workdir says to its end.

  Attributes:
    bad: logs that were not finite when it diverged.
    trained_sec: seconds of training in this process.
    waited: those of them in which the device waited for data.
  """

  def __init__(
    self, setup: Setup, folder: pathlib.Path, age: float = 0.0
  ) -> None:
    """Restores the newest whole checkpoint, or starts afresh.

    Args:
      setup: what is trained.
      folder: of the run.
      age: seconds that this process has been at it.
    """
    self.primary = multihost.is_primary()
    self.run_file = workdir.RunFile(folder)
    self.totals, self.bad = Totals(), list[str]()
    self.trained_sec = self.waited = 0.0
    self._unscored = False  # a signal ended the scoring of this moment
    self._facts: dict[str, Any] = {}  # of the state, for a row
    self.scorer = _make_scorer(setup, folder)
    best = self.scorer.best if setup.config.keep_best else None
    ledger = Ledger(self.run_file.facts.get('goodput'), age=age)
    self._minute = time.monotonic()
    self._program_bytes = 0
    super().__init__(setup, folder, setup.config.keep_checkpoints, best, ledger)
    for text in self.warnings():
      self.warn(text)
    self.snapshots = snapshots.Snapshots(setup)
    last_row = self.step - self.totals.steps
    self.log = Log(folder, self.step, last_row) if self.primary else None
    self.progress = Progress(self.step, self.config.steps, self.primary)

  @property
  def is_over(self) -> bool:
    """Whether all steps are made, and the last is scored."""
    return super().is_over and not self._unscored

  # The state.

  def template(self) -> State:
    """Shapes and types of a state."""
    return self.setup.shapes

  def fresh(self) -> State:
    """The state before the first step."""
    return self.setup.init()

  def place(self, saved: State) -> State:
    """A saved state on every device."""
    placed: State = sharding.put_replicated(saved, self.setup.mesh)
    return placed

  def meta(self) -> dict[str, Any]:
    """Sums since the last row, the place in the data, the options."""
    return {
      'position': self.setup.feed.position(self.step),
      'totals': dataclasses.asdict(self.totals),
      'config': schema.to_args(remote.as_given(self.config)),
    }

  def accept(self, meta: dict[str, Any]) -> None:
    """Takes the sums since the last row."""
    self.totals = Totals(**meta['totals'])

  # The compiled program.

  @functools.cached_property
  def pace(self) -> Pace:
    """The size of the next dispatch."""
    return Pace(self._items(0, 1))

  @functools.cached_property
  def constants(self) -> PyTree:
    """Arrays of the data that the program is handed once."""
    feed, mesh = self.setup.feed, self.setup.mesh
    return sharding.share_replicated(feed.constants, mesh)

  def _items(self, start: int, count: int, room: int = 0) -> PyTree:
    rows = sharding.local_rows(self.setup.mesh, self.config.batch_size)
    return self.setup.feed.chunk(start, count, rows, room)

  def _chunk(self, start: int, count: int) -> PyTree:
    """Data of `count` steps, in arrays that have room for the most."""
    room = self._items(start, count, self.pace.capacity)
    return sharding.put_chunk(room, self.setup.mesh)

  @functools.cached_property
  def _ahead(self) -> Ahead:
    return Ahead(self._chunk)

  def item(self) -> PyTree:
    """This step's data, on the devices."""
    chunk = sharding.put_chunk(self._items(self.step, 1), self.setup.mesh)
    return jax.tree.map(lambda x: x[0], chunk)

  def compile(self) -> Any:
    """Compiles, once, for the shapes of the state.

    Where there are other processes, the state before a dispatch is kept until
    its end, which one that is lost may keep from coming.
    """
    chunk, mesh = self._chunk(0, 1), self.setup.mesh
    shapes = self.setup.feed.constant_shapes
    lowered = lower(
      self.setup,
      self.state,
      sharding.describe(shapes, sharding.replicated(mesh)),
      chunk,
      donate=multihost.is_alone() or not self.config.save_deadline,
    )
    program = lowered.compile()
    self._program_bytes = memory.check_program(
      self.setup, program, self.setup.shapes
    )
    return program

  def read_data(self) -> None:
    """Reads what lives on the devices."""
    _ = self.constants

  def advance(self, count: int) -> tuple[int, bool]:
    """Some steps; waits until they are done (several CPU devices need that)."""
    with self.ledger.spend('data'):
      chunk = self._ahead.take(self.step, count)
    self.state, *rest = self.program(
      self.state, self.constants, chunk, np.int32(count)
    )
    if self.step + count < self.config.steps:
      self._ahead.begin(self.step + count, self.pace.reserve(count))
    sums, done, finite, self._facts = jax.device_get(rest)
    if finite and done != count:  # seen with jax 0.6.0 and a warm cache
      raise Error(
        f'the compiled program made {done} of {count} steps: it was kept by'
        f' another JAX; empty {self.config.compilation_cache}, or use'
        ' `compilation_cache=off`'
      )
    self.totals.add({k: float(v) for k, v in sums.items()}, int(done))
    if not finite:
      self.bad = sorted(k for k, v in sums.items() if not np.isfinite(v))
    return int(done), bool(finite)

  # What is written.

  def cadences(self) -> Sequence[int]:
    """Of the log, samples, checkpoints, dynamics and evaluations."""
    c = self.config
    often = (c.log_every, c.sample_every, c.checkpoint_every)
    return (*often, c.dynamics_every, c.eval_every)

  def at_start(self) -> None:
    """Samples of the initial G; what a restart left to be scored."""
    self.run_file.update(compile_sec=round(self.compile_sec, 3))
    needs = f'the program takes {format_bytes(self._program_bytes)}'
    self.progress.say(
      f'compiled in {format_duration(self.compile_sec)}; {needs}'
    )
    if self.step == 0:
      self.write_samples()
      if self.config.dynamics_every:
        self.write_dynamics()
    elif self.scorer and not self.scorer.resume(self.state, self.step):
      if self.is_due(self.config.eval_every):  # saved, and not scored any more
        self._try_to_evaluate()

  def after_dispatch(self, seconds: float) -> None:
    """Moves the bar."""
    waited, self._ahead.seconds = self._ahead.seconds, 0.0
    self.totals.seconds += seconds
    self.trained_sec += seconds
    self.totals.waited += waited
    self.waited += waited
    self.progress.moved(self.step)
    if time.monotonic() - self._minute >= _MINUTE:
      self._minute = time.monotonic()
      self._tell_minute()

  def _tell_minute(self) -> None:
    facts, steps = self.record_goodput(), self.config.steps
    line = format_minute(self.step, steps, self.spread, facts)
    self.progress.minute(
      f'{line}  at most {format_bytes(backend.peak_bytes())}'
    )

  def record_goodput(self) -> dict[str, Any]:
    """Writes down where the time went, as far as it has; what it wrote."""
    facts = {**self.ledger.facts(), 'step_sec': self.spread.facts()}
    before = self.run_file.facts.get('memory', {})
    used = {
      'program_bytes': self._program_bytes or before.get('program_bytes', 0),
      'peak_bytes': max(before.get('peak_bytes', 0), backend.peak_bytes()),
    }
    self.run_file.update(goodput=facts, memory=used)
    return facts

  def save(self) -> None:
    """Saves this moment, unless it is saved, and where the time went."""
    super().save()
    self.record_goodput()

  def at_boundary(self) -> None:
    """Writes what is due."""
    c = self.config
    if self.is_due(c.log_every):
      self.write_row()
    if self.is_due(c.sample_every):
      self.write_samples()
    if c.dynamics_every and self.is_due(c.dynamics_every):
      self.write_dynamics()
    scored = bool(c.metrics) and self.is_due(c.eval_every)
    # Before it is scored, which may fail. The best must exist to be kept.
    if self.is_due(c.checkpoint_every) or (scored and c.keep_best):
      self.save()
    if scored:
      self._unscored = True
      self._try_to_evaluate()

  def write_samples(self) -> None:
    """Writes samples from the fixed latent batch."""
    files = self.snapshots.take(self.state, self.step)
    if self.log is None:
      return
    snapshots.save(files, self.folder)
    for name, content in files.items():
      if name.endswith('.png'):
        self.log.image(f'samples/{name.split("_")[0]}', content, self.step)

  @functools.cached_property
  def _instruments(self) -> Any:
    from gan_jax.training.dynamics_log import Instruments

    return Instruments(self.setup)

  def write_dynamics(self) -> None:
    """Writes what the instruments of the game say of this moment."""
    row = self._instruments(self.state, self.constants, self.item())
    if self.log is not None:
      self.log.write({'step': self.step, **row}, 'dynamics')

  def _try_to_evaluate(self) -> None:
    """Scores this moment, unless a signal comes: after a restart then."""
    if multihost.is_alone():
      self.listener.attempt(self.evaluate)
    else:  # all of them score together, and hear of a signal one by one
      self.evaluate()

  def evaluate(self) -> None:
    """Scores this moment, unless it was before a restart, and shows it."""
    with self.ledger.spend('evaluation'):
      scores, text, is_new = self.scorer(self.state, self.step)
    self._unscored = False
    if self.log is not None:
      if is_new:
        self.log.show(scores, self.step)
      self.progress.say(f'step {self.step}  {text}')
    if self.config.keep_best:
      self.run_file.update(best=self.scorer.best_of_all())

  def write_row(self) -> None:
    """Writes the means since the last row of the log."""
    totals, self.totals = self.totals, Totals()
    if not totals.steps:
      return
    if self.log is None:
      return
    seconds_per_step = totals.seconds / totals.steps
    shown = self.setup.trainer.images_a_step(self.config.batch_size)
    row: dict[str, float] = {'step': self.step, 'images': self.step * shown}
    row |= {k: v / totals.steps for k, v in sorted(totals.sums.items())}
    row |= {name: float(x) for name, x in self._facts.items()}
    row |= {
      'data/wait': totals.waited / totals.seconds if totals.seconds else 0.0,
      'speed/images_per_sec': shown / seconds_per_step,
      'speed/sec_per_kimg': 1000 * seconds_per_step / shown,
      'speed/sec_per_step': seconds_per_step,
      'time/train_sec': self.train_sec,
    }
    self.log.write(row)
    self.progress.row(row)

  def run(self, listener: preemption.Listener) -> str:
    """Trains to the end, a signal or a divergence; says which."""
    outcome = super().run(listener)
    if outcome == 'diverged':
      self.write_row()
    return outcome

  def close(self) -> None:
    """Closes the bar, the checkpoints and the log.

    Raises:
      CheckpointError, OSError: if something could not be written.
    """
    self.progress.close()
    self._ahead.close()
    try:
      super().close()
    finally:
      if self.log is not None:
        self.log.close()


def _make_scorer(setup: Setup, folder: pathlib.Path) -> Any:
  if not setup.config.metrics:
    return None
  from gan_jax.training.scoring import make_training_scorer

  return make_training_scorer(setup, folder)
