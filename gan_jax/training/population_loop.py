"""The training of a population: its compiled program, and all that it writes.

A population's members differ in their seeds and hyper-parameters only; its
folder holds `stats.npz`, `samples/` and `checkpoints/`, and the same call
continues what it finds there.
"""

import functools
import hashlib
import io
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from gan_jax.config import app, schema
from gan_jax.config.schema import FIELDS, Config
from gan_jax.data import Dataset, Density
from gan_jax.figures import images
from gan_jax.game import population
from gan_jax.game.classes import lay_out
from gan_jax.game.population import PopulationState, Progress
from gan_jax.game.sampler import Sampler
from gan_jax.game.state import norm
from gan_jax.game.trainer import Trainer
from gan_jax.runtime import preemption, records, sharding
from gan_jax.runtime.errors import IdentityError
from gan_jax.runtime.files import write_atomic
from gan_jax.training import memory
from gan_jax.training import setup as setup_lib
from gan_jax.training.ahead import Ahead
from gan_jax.training.dispatch import Pace
from gan_jax.training.loop import HostLoop
from gan_jax.training.population_program import Member, PopulationProgram
from gan_jax.training.snapshots import sample_count

PyTree = Any
Rows = dict[str, NDArray[np.generic]]
_KEEP = 2  # checkpoints: the newest, and one to fall back on


def read_stats(path: pathlib.Path, step: int) -> Rows:
  """The rows of a `stats.npz` up to a step; none if there is no file.

  None, with a warning, if it is damaged: no update depends on them.
  """
  if not path.exists():
    return {}
  try:
    arrays = records.read_arrays(path, ['step'])
    rows = arrays['step'] <= step
    return {name: x[rows] for name, x in arrays.items()}
  except (records.DamagedRecord, IndexError) as error:
    app.warn(
      f'{path} is damaged ({error}) and left out: the log goes on at step'
      f' {step}'
    )
    return {}


def write_npz(path: pathlib.Path, arrays: Rows) -> None:
  """Writes arrays by name, in one step."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
  write_atomic(path, buffer.getvalue())


def _identifying_options(config: Config) -> list[list[Any]]:
  """Options that say which population it is: all that are not free.

  How long it is to be is not one of them where no step depends on it, and what
  its members differ in is said by them.
  """
  names = [name for name in FIELDS if not FIELDS[name].metadata['free']]
  moving = config.beta1_final_g or config.beta1_final_d
  if config.lr_schedule == 'constant' and not moving:
    names.remove('steps')
  apart = {*schema.traced(), 'seed', 'regularizer'}
  return [[n, getattr(config, n)] for n in sorted(names) if n not in apart]


class PopulationLoop(HostLoop):
  """A population in training, from where its folder says to its end.

  Attributes:
    members: its runs.
    code: what it compiles.
    state: a `Progress`, on the devices.
  """

  def __init__(
    self,
    config: Config,
    members: Sequence[Member],
    folder: str | pathlib.Path,
    layout: str = 'auto',
    *,
    objects: Mapping[str, Any] | None = None,
    dataset: Dataset | None = None,
    trainer: Trainer | None = None,
  ) -> None:
    """Restores the newest whole checkpoint, or starts afresh.

    Args:
      config: options that all members share; its seed and the numbers that the
        members have are not read.
      members: its runs.
      folder: of the population; made if it is not there.
      layout: one of `population.LAYOUTS`, or auto.
      objects: options that are objects.
      dataset: in the place of the one that the configuration names.
      trainer: in the place of the one that it describes.

    Raises:
      ArgumentError, DataError, IdentityError, CheckpointError: naming what is
        of no use.
    """
    self.members = tuple(members)
    path = pathlib.Path(folder)
    (path / 'samples').mkdir(parents=True, exist_ok=True)
    # Each member is whole on one device.
    setup = setup_lib.build(
      config, objects, dataset=dataset, trainer=trainer, devices=1
    )
    devices = sharding.make_mesh(config.devices).devices.flat
    self.code = PopulationProgram(setup, members, list(devices), layout)
    self.mesh = self.code.mesh
    memory.check(setup, self.code.room // self.mesh.size)
    self._auto = layout == 'auto'
    self._feeds = {m.seed: setup.feed.reseeded(m.seed) for m in self.members}
    self.rows: Rows = {}
    super().__init__(setup, path, _KEEP)

  @property
  def layout(self) -> str:
    """`vmap` or `map`."""
    return self.code.layout

  # The state.

  def fresh(self) -> Progress:
    """All members before their first step."""

    def init(seeds: Any, vary: Any, alive: Any) -> Progress:
      made = self.code.init(seeds, vary, self.code.names)
      return made.replace(now=made.now.replace(alive=alive))

    seeds = np.array([m.seed for m in self.code.places()], np.int32)
    jitted = jax.jit(init, out_shardings=self.code.shardings)
    state: Progress = jitted(seeds, self.code.vary, self.code.alive())
    return state

  def template(self) -> Progress:
    """Shapes, without the places that only fill up."""
    return self.code.shapes(len(self.members))

  def place(self, saved: Progress) -> Progress:
    """A saved population on the devices."""
    places = np.array(
      [*range(len(self.members))] + [0] * (self.code.room - len(self.members))
    )
    full = _select(saved, places)
    alive = np.asarray(full.now.alive) & self.code.alive()
    full = full.replace(now=full.now.replace(alive=alive))
    placed: Progress = population.put(full, self.code.shardings)
    return placed

  def to_save(self) -> Progress:
    """The members, without the places that only fill up."""
    self._write_stats()
    return _select(self.state, slice(len(self.members)))

  def meta(self) -> dict[str, Any]:
    """Layout, blocks, members and how long their log is."""
    return {
      'layout': self.layout,
      'block': self.code.block,
      'rows': len(self.rows.get('step', ())),
      'members': self._identity,
      'seeds': [m.seed for m in self.members],
    }

  @functools.cached_property
  def _identity(self) -> str:
    """Hash of all that members are told apart by, their order included."""
    own = [[m.seed, sorted(m.hyper.items())] for m in self.members]
    text = json.dumps([_identifying_options(self.config), own])
    return hashlib.sha256(text.encode()).hexdigest()[:32]

  def accept(self, meta: dict[str, Any]) -> None:
    """Refuses a checkpoint of other members, or of another layout.

    Raises:
      IdentityError: saying what differs.
    """
    if meta['members'] != self._identity:
      raise IdentityError(
        f'{self.folder}: holds a population of other members (seeds'
        f' {meta["seeds"]} there, {[m.seed for m in self.members]} now; if'
        ' these agree, another option differs); use another folder, or the'
        ' options of that one'
      )
    if self._auto:
      self.code.layout = meta['layout']
    elif meta['layout'] != self.layout:
      raise IdentityError(
        f'`layout={self.layout}`: {self.folder} was begun with'
        f' `layout={meta["layout"]}`, which rounds otherwise; use that, or'
        ' another folder'
      )
    own = self.code.room // self.code.mesh.size  # of each device
    block = meta.get('block', own)
    if own % block == 0:  # else on other devices, where it rounds otherwise
      self.code.block = block
    path, step = self.folder / 'stats.npz', int(meta['step'])
    self.rows = read_stats(path, step)
    if not path.exists() and meta['rows']:
      self.warn(f'{path} is gone: the log goes on at step {step}')

  # The compiled program.

  @functools.cached_property
  def pace(self) -> Pace:
    """The size of the next dispatch."""
    return Pace(self.setup.feed.chunk(0, 1), self.code.room)

  def _chunk(self, start: int, count: int) -> PyTree:
    """Data of `count` steps, (places, capacity, batches, rows, ...)."""
    own = {seed: f.chunk(start, count) for seed, f in self._feeds.items()}
    room = self.pace.pad(own[m.seed] for m in self.code.places())
    return jax.device_put(room, population.split(self.mesh))

  @functools.cached_property
  def _constants(self) -> PyTree:
    constants = self.setup.feed.constants
    return jax.device_put(constants, population.whole(self.mesh))

  def compile(self) -> Any:
    """Compiles, once, for the shapes of the population."""
    chunk, whole = self._chunk(0, 1), population.whole(self.mesh)
    shapes = self.setup.feed.constant_shapes
    constants = sharding.describe(shapes, whole)
    program = self.code.lower(self.state, constants, chunk).compile()
    here = self.code.shapes(self.code.room // self.mesh.size)
    memory.check_program(self.setup, program, here)
    return program

  def read_data(self) -> None:
    """Reads what lives on the devices."""
    _ = self._constants

  @functools.cached_property
  def _ahead(self) -> Ahead:
    return Ahead(self._chunk)

  def _advanced(self, state: Progress, chunk: PyTree, count: int) -> Progress:
    """A state on its way, `count` steps on."""
    moved: Progress = self.program(
      state, self._constants, chunk, np.int32(count)
    )
    return moved

  def advance(self, count: int) -> tuple[int, bool]:
    """Some steps of all members; one that diverges does not stop the others."""
    chunk = self._ahead.take(self.step, count)
    self.state = self._advanced(self.state, chunk, count)
    if self.step + count < self.config.steps:
      self._ahead.begin(self.step + count, self.pace.reserve(count))
    jax.block_until_ready(self.state)  # several CPU devices need that
    return count, True

  def calibrate(self, seconds: float = 1.0) -> float:
    """Wall seconds a step, measured on a copy of the population.

    The best of a few dispatches, ever longer ones: the first of a process is
    not typical.
    """
    _ = self.program
    scratch = population.put(self.state, self.code.shardings)
    best, spent, tries = float('inf'), 0.0, 0
    while spent < seconds or (tries < 4 and spent < 10 * seconds):
      count, started = self.pace.count(), time.perf_counter()
      chunk = self._chunk(self.step, count)
      scratch = jax.block_until_ready(self._advanced(scratch, chunk, count))
      took = time.perf_counter() - started
      self.pace.learn(took, count, count)
      best, spent = min(best, took / count), spent + took
      tries += 1
    return best

  def close(self) -> None:
    """Ends the background threads."""
    self._ahead.close()
    super().close()

  # The loop.

  def run(
    self,
    listener: preemption.Listener,
    moved: Callable[[int, float], None] | None = None,
    reached: Callable[[], None] | None = None,
  ) -> str:
    """Trains to the end or a signal; says which: `done` or `saved`.

    Args:
      listener: looked at between two dispatches.
      moved: called with the step and the wall seconds of each dispatch.
      reached: called where it starts and at every boundary, those of
        evaluations among them.
    """
    self._moved, self._reached = moved, reached
    for text in self.warnings():
      self.warn(text)
    return super().run(listener)

  def at_start(self) -> None:
    """Reports the start."""
    if self._reached is not None:
      self._reached()

  def after_dispatch(self, seconds: float) -> None:
    """Reports a dispatch."""
    if self._moved is not None:
      self._moved(self.step, seconds)

  def cadences(self) -> Sequence[int]:
    """Of the log, checkpoints and evaluations."""
    c = self.config
    return c.log_every, c.checkpoint_every, c.eval_every

  def at_boundary(self) -> None:
    """Writes what is due, reports the boundary."""
    c, last = self.config, self.step == self.config.steps
    if self.is_due(c.log_every):
      self._write_row()
    if not last and self.is_due(c.checkpoint_every):
      self.save()
    if self._reached is not None:
      self._reached()

  @functools.cached_property
  def _row(self) -> Any:
    def row(state: Progress) -> tuple[Progress, dict[str, Any]]:
      state = state.replace(now=population.mark_diverged(state.now))
      numbers = population.mean_logs(state)
      members = state.now.members
      numbers['d/param_norm'] = jax.vmap(norm)(members.d.params)
      numbers['g/param_norm'] = jax.vmap(norm)(members.g.params)
      alive = {'alive': state.now.alive}
      return population.reset_sums(state), numbers | alive

    split = population.split(self.mesh)
    return jax.jit(
      row, donate_argnums=0, out_shardings=(self.code.shardings, split)
    )

  def _write_row(self) -> None:
    """Adds each member's means since the last row; NaN of the dead."""
    self.state, numbers = self._row(self.state)
    row: Rows = {
      k: np.asarray(x)[None, : len(self.members)]
      for k, x in jax.device_get(numbers).items()
    }
    row['step'] = np.array([self.step], np.int32)
    for name, values in row.items():
      before = self.rows.get(name)
      both = [values] if before is None else [before, values]
      self.rows[name] = np.concatenate(both)

  def _write_stats(self) -> None:
    if self.rows:
      write_npz(self.folder / 'stats.npz', self.rows)

  # What came of it.

  @property
  def population(self) -> PopulationState:
    """The members' states, on the devices."""
    return self.state.now

  @functools.cached_property
  def _sampler(self) -> Sampler:
    return Sampler(self.setup.networks)

  def generators(self) -> list[tuple[PyTree, PyTree]]:
    """Parameters and statistics of each member's generator, on the host.

    The averaged one where an average is kept.
    """
    members = self.state.now.members
    source: Any = members.g if members.ema is None else members.ema
    pairs = jax.device_get((source.params, source.stats))
    select = population.select_members
    return [select(pairs, i) for i in range(len(self.members))]

  def samples(self, i: int, generator: tuple[PyTree, PyTree]) -> Any:
    """Of member i, from the latent batch of its own run's snapshots."""
    seed = self.members[i].seed
    count = sample_count(self.setup)
    label = None
    if self.setup.dataset.bounded:
      label, _ = lay_out(count, self.setup.networks.classes)
    return np.concatenate(
      list(self._sampler.batches(*generator, seed, count, label))
    )

  def write_samples(self) -> None:
    """A picture of each member's samples in `samples/`."""
    dataset = self.setup.dataset
    for i, generator in enumerate(self.generators()):
      x = self.samples(i, generator)
      if isinstance(dataset, Density):
        picture = images.png(images.scatter(x, dataset.extent))
      elif dataset.bounded:
        _, columns = lay_out(len(x), self.setup.networks.classes)
        picture = images.grid_png(x, columns)
      else:
        continue
      write_atomic(self.folder / 'samples' / f'member_{i:04d}.png', picture)

  def outcomes(self) -> list[tuple[str, int]]:
    """Of each member, `done` or `diverged`, and the step of it."""
    diverged = np.asarray(self.state.now.diverged)[: len(self.members)]
    return [
      ('diverged', int(step)) if step else ('done', self.step)
      for step in diverged
    ]


def _select(progress: Progress, where: Any) -> Progress:
  """The same members of every array that has them; the step as it is."""
  step = progress.now.members.step
  state = progress.now.members.replace(step=None)
  bare = progress.replace(now=progress.now.replace(members=state))
  chosen: Progress = population.select_members(bare, where)
  members = chosen.now.members.replace(step=step)
  return chosen.replace(now=chosen.now.replace(members=members))
