"""The host loop of a population: data, log, samples, checkpoints.

What `loop.py` is to one run. A cohort is made of configurations that differ in
their seeds and in traced numbers only; its folder holds `stats.npz`, `samples/`
and `checkpoints/`, and the same call continues what it finds there.
"""

import dataclasses
import functools
import hashlib
import io
import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from gan_jax.ablation.grid import static
from gan_jax.config.schema import FIELDS, Config, ConfigError
from gan_jax.data import Density
from gan_jax.figures import images
from gan_jax.game import population
from gan_jax.game.population import Population
from gan_jax.game.state import norm
from gan_jax.game.step import TrainStep, init_state, make_train_step
from gan_jax.runtime import preemption, sharding
from gan_jax.runtime.checkpoint import Checkpoints
from gan_jax.runtime.files import write_atomic
from gan_jax.training import setup, snapshots, workdir
from gan_jax.training.dispatch import Pace, boundary

PyTree = Any
Rows = dict[str, NDArray[np.generic]]
_SAMPLES = 4096  # of a density
_KEEP = 2  # checkpoints: the newest, and one to fall back on


def _warn(text: str) -> None:
  print(f'warning: {text}', file=sys.stderr, flush=True)


def read_stats(path: pathlib.Path, step: int) -> Rows:
  """The rows of a `stats.npz` up to a step; none if there is no file."""
  if not path.is_file():
    return {}
  with np.load(path) as file:
    kept = file['step'] <= step
    return {name: file[name][kept] for name in file.files}


def _telling(config: Config) -> list[str]:
  """Flags that say which run a member is: all that are not free.

  How long it is to be is not one of them where no step depends on it.
  """
  names = [name for name in FIELDS if not FIELDS[name].metadata['free']]
  if config.lr_schedule == 'constant':
    names.remove('steps')
  return sorted(names)


def write_npz(path: pathlib.Path, arrays: Rows) -> None:
  """Writes arrays by name, in one step."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
  write_atomic(path, buffer.getvalue())


def check(configs: Sequence[Config]) -> None:
  """Refuses members that are not one program's.

  Raises:
    ConfigError: if there is none, or if two differ in what is compiled.
  """
  if not configs:
    raise ConfigError('a population of 0 members: give it one or more')
  for config in configs:
    config.validate()
  kinds = {static(config) for config in configs}
  if len(kinds) > 1:
    raise ConfigError(
      'members of a population may differ in seed and traced numbers only;'
      ' train those that differ in more in a population of their own'
    )


class Cohort:
  """A population in training, from where its folder says to its end.

  Attributes:
    configs: of each member.
    layout: `vmap` or `map`.
    step: steps done.
    population: as it is, on the devices.
    train_sec: wall seconds of training, `cpu_sec` of all cores.
  """

  def __init__(
    self,
    configs: Sequence[Config],
    folder: str | pathlib.Path,
    layout: str = 'auto',
  ) -> None:
    """Restores the newest whole checkpoint, or starts afresh.

    Args:
      configs: of each member; cadences and devices are the first one's.
      folder: of the population; made if it is not there.
      layout: one of `population.LAYOUTS`, or auto.

    Raises:
      ConfigError, DataError, NetworkError, ShardingError, CheckpointError:
        whose messages name the flag or file and the remedy.
    """
    check(configs)
    self.configs, self.config = tuple(configs), configs[0]
    self.folder = pathlib.Path(folder)
    (self.folder / 'samples').mkdir(parents=True, exist_ok=True)
    # Each member is whole on one device.
    self.parts = setup.build(dataclasses.replace(self.config, devices=1))
    devices = sharding.make_mesh(self.config.devices).devices.flat
    self.mesh = population.make_mesh(len(configs), list(devices))
    self._room = population.padded(len(configs), self.mesh)
    self._shapes = jax.eval_shape(
      lambda key: init_state(key, self.parts.plan, self.parts.hyper),
      jax.random.key(0),
    )
    self.layout, self._chosen = layout, layout == 'auto'
    if self._chosen:
      params = (self._shapes.g.params, self._shapes.d.params)
      platform = self.mesh.devices.flat[0].platform
      self.layout = population.suits(self.parts.plan, params, platform)
    self._feeds = {
      c.seed: self.parts.feed.reseeded(c.seed) for c in self.configs
    }
    self.pace = Pace(self.parts.feed.chunk(0, 1), self._room)
    self.train_sec = self.cpu_sec = self.compile_sec = 0.0
    self.rows: Rows = {}
    self.checkpoints = Checkpoints(self.folder, _KEEP)
    self._saved = -1
    self.population, self.step = self._restore()

  @property
  def members(self) -> int:
    """How many there are."""
    return len(self.configs)

  def _step_of(self, constants: PyTree) -> TrainStep:
    return make_train_step(self.parts.plan_of(constants))

  def _place(self) -> list[int]:
    """Members in the rooms of the devices; the first one in those left."""
    return [*range(self.members), *[0] * (self._room - self.members)]

  @functools.cached_property
  def hyper(self) -> Any:
    """The numbers of each member, on the devices."""
    hypers = [setup.make_hyper(self.configs[i]) for i in self._place()]
    return population.put(population.stacked(hypers), self.mesh)

  def _names(self) -> list[str]:
    """Of the metrics of a step."""
    item = jax.tree.map(lambda x: x[0], self.parts.feed.chunk(0, 1))

    def metrics(state: Any, constants: Any, item: Any) -> Any:
      return self._step_of(constants)(state, self.parts.hyper, item)[1]

    shapes = (self._shapes, self.parts.feed.constants, item)
    return sorted(jax.eval_shape(metrics, *shapes))

  def _alive(self) -> NDArray[np.bool_]:
    return np.arange(self._room) < self.members

  def _fresh(self) -> Population:
    seeds = np.array([self.configs[i].seed for i in self._place()], np.int32)
    init = population.make_init(self.parts.plan, self._names())
    jitted = jax.jit(
      lambda seeds, *rest: init(jax.vmap(jax.random.key)(seeds), *rest),
      out_shardings=population.split(self.mesh),
    )
    made: Population = jitted(seeds, self.hyper, self._alive())
    return made

  def _template(self) -> Population:
    """A population of zeros, without the members that only fill up."""

    def zeros(x: jax.ShapeDtypeStruct) -> Any:
      if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), self.members)
      return np.zeros((self.members, *x.shape), x.dtype)

    count = np.zeros(self.members, np.int32)
    return Population(
      state=jax.tree.map(zeros, self._shapes),
      alive=np.zeros(self.members, bool),
      diverged=count,
      sums={name: np.zeros(self.members, np.float32) for name in self._names()},
      counted=count,
    )

  def _restore(self) -> tuple[Population, int]:
    found = self.checkpoints.restore_newest(self._template(), _warn)
    if found is None:
      return self._fresh(), 0
    saved, meta = found
    now = self.parts.feed.fingerprint
    workdir.check_data(str(self.folder), meta['fingerprint'], now)
    self._check_members(meta)
    self.train_sec, self.cpu_sec = meta['train_sec'], meta['cpu_sec']
    self._saved = step = int(meta['step'])
    self.rows = read_stats(self.folder / 'stats.npz', step)
    full = population.taken(saved, np.array(self._place()))
    full = full.replace(alive=full.alive & self._alive())
    return population.put(full, self.mesh), step

  def _check_members(self, meta: Mapping[str, Any]) -> None:
    """Refuses a checkpoint of others, or of sums in another order.

    Raises:
      ConfigError: saying what differs.
    """
    there = meta.get('members')  # none, of an earlier version
    if there is not None and there != self._identity:
      raise ConfigError(
        f'{self.folder}: holds a population of other members (seeds'
        f' {meta["seeds"]} there, {self._seeds} now; if these agree, another'
        ' flag differs); use another folder, or the configurations of that one'
      )
    if self._chosen:
      self.layout = meta['layout']
    elif meta['layout'] != self.layout:
      raise ConfigError(
        f'--layout={self.layout}: {self.folder} was begun with'
        f' --layout={meta["layout"]}, which rounds otherwise; use that, or'
        ' another folder'
      )

  @property
  def _seeds(self) -> list[int]:
    return [config.seed for config in self.configs]

  @functools.cached_property
  def _identity(self) -> str:
    """Hash of all that members are told apart by, their order included."""
    told = [
      [getattr(config, name) for name in _telling(config)]
      for config in self.configs
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]

  def save(self) -> None:
    """Saves this moment, unless it is saved."""
    if self._saved == self.step:
      return
    self._write_stats()
    meta = {
      'fingerprint': self.parts.feed.fingerprint,
      'train_sec': self.train_sec,
      'cpu_sec': self.cpu_sec,
      'layout': self.layout,
      'members': self._identity,
      'seeds': self._seeds,
    }
    now = population.taken(self.population, slice(self.members))
    self.checkpoints.save(self.step, now, meta)
    self._saved = self.step

  # The compiled program.

  def _chunk(self, start: int, count: int) -> PyTree:
    """Data of `count` steps, (rooms, capacity, batches, rows, ...)."""
    each = {seed: f.chunk(start, count) for seed, f in self._feeds.items()}
    room = self.pace.room(each[self.configs[i].seed] for i in self._place())
    return jax.device_put(room, population.split(self.mesh))

  @functools.cached_property
  def _constants(self) -> PyTree:
    return population.put_whole(self.parts.feed.constants, self.mesh)

  @functools.cached_property
  def program(self) -> Any:
    """Compiled once, for this process."""
    started = time.perf_counter()
    advance = population.make_advance(self._step_of, self.layout, self.mesh)
    lowered = jax.jit(advance, donate_argnums=0).lower(
      self.population,
      self.hyper,
      self._constants,
      self._chunk(0, 1),
      np.int32(0),
    )
    compiled = lowered.compile()
    self.compile_sec = time.perf_counter() - started
    return compiled

  def _dispatch(self, now: Population, step: int, count: int) -> Population:
    """Advances, and waits: several CPU devices need that."""
    program = self.program  # compiled before the clock starts
    started, cpu = time.perf_counter(), time.process_time()
    chunk = self._chunk(step, count)
    moved = program(now, self.hyper, self._constants, chunk, np.int32(count))
    jax.block_until_ready(moved)
    self.took = time.perf_counter() - started
    self.took_cpu = time.process_time() - cpu
    self.pace.took(self.took, count, count)
    return moved

  def calibrate(self, seconds: float = 1.0) -> float:
    """Wall seconds a step, measured on a copy of the population.

    The best of a few dispatches, ever longer ones: the first of a process is
    not typical.
    """
    scratch = population.put(self.population, self.mesh)
    best, spent, tries = float('inf'), 0.0, 0
    while spent < seconds or (tries < 4 and spent < 10 * seconds):
      count = self.pace.count()
      scratch = self._dispatch(scratch, self.step, count)
      best, spent = min(best, self.took / count), spent + self.took
      tries += 1
    return best

  # The loop.

  def run(
    self,
    ear: preemption.Ear,
    moved: Callable[[int, float], None] | None = None,
    reached: Callable[[], None] | None = None,
  ) -> str:
    """Trains to the end or a signal; says which: `done` or `saved`.

    Args:
      ear: heard between two dispatches.
      moved: told the step and the wall seconds of each dispatch.
      reached: called where it starts and at every boundary, `--eval_every`
        steps among them.
    """
    reached = reached or (lambda: None)
    c = self.config
    if self.step < c.steps:
      for text in setup.cautions(c, self._shapes):
        _warn(text)
      _ = self.program  # which nobody listens to for a while
    ear.at_once = False
    cadences = (c.log_every, c.checkpoint_every, c.eval_every)
    reached()
    while self.step < c.steps:
      if ear.heard:
        self.save()
        self.checkpoints.wait()
        return 'saved'
      there = boundary(self.step, c.steps, cadences)
      count = self.pace.count(there - self.step)
      self.population = self._dispatch(self.population, self.step, count)
      self.step += count
      self.train_sec += self.took
      self.cpu_sec += self.took_cpu
      if moved is not None:
        moved(self.step, self.took)
      self._boundary_reached()
      reached()
    self.save()
    self.checkpoints.wait()
    return 'done'

  def _boundary_reached(self) -> None:
    c, last = self.config, self.step == self.config.steps
    if last or self.step % c.log_every == 0:
      self._write_row()
    if not last and self.step % c.checkpoint_every == 0:
      self.save()

  @functools.cached_property
  def _row(self) -> Any:
    def row(now: Population) -> tuple[Population, dict[str, Any]]:
      now = population.settled(now)
      found = {k: x / now.counted for k, x in now.sums.items()}
      found['d/param_norm'] = jax.vmap(norm)(now.state.d.params)
      found['g/param_norm'] = jax.vmap(norm)(now.state.g.params)
      return population.emptied(now), found | {'alive': now.alive}

    return jax.jit(
      row, donate_argnums=0, out_shardings=population.split(self.mesh)
    )

  def _write_row(self) -> None:
    """Adds each member's means since the last row; NaN of the dead."""
    self.population, found = self._row(self.population)
    found = jax.device_get(found)
    step = np.array([self.step], np.int32)
    row: Rows = {
      k: np.asarray(x)[None, : self.members] for k, x in found.items()
    }
    row['step'] = step
    for name, values in row.items():
      before = self.rows.get(name)
      both = [values] if before is None else [before, values]
      self.rows[name] = np.concatenate(both)

  def _write_stats(self) -> None:
    if self.rows:
      write_npz(self.folder / 'stats.npz', self.rows)

  # What came of it.

  @functools.cached_property
  def _generate(self) -> Any:
    generator = self.parts.networks.generator

    def generate(params: Any, stats: Any, z: Any, label: Any) -> Any:
      return generator.apply(params, stats, z, train=False, label=label)[0]

    return jax.jit(generate)

  def generators(self) -> list[tuple[PyTree, PyTree]]:
    """Parameters and statistics of each member's generator, on the host.

    The averaged one where an average is kept.
    """
    state = self.population.state
    source = state.g if state.ema is None else state.ema
    pairs = jax.device_get((source.params, source.stats))
    return [population.taken(pairs, i) for i in range(self.members)]

  def samples(self, i: int, generator: tuple[PyTree, PyTree]) -> Any:
    """Of member i, from the noise that its own run draws its snapshots of."""
    networks, dataset = self.parts.networks, self.parts.dataset
    count = self.config.num_samples
    if isinstance(dataset, Density):
      count = _SAMPLES
    if networks.classes:
      count = -(-count // networks.classes) * networks.classes
    key_z, _ = snapshots.fixed_keys(self.configs[i].seed)
    z = networks.sample_latent(key_z, count)
    label = setup.in_turn(count, networks.classes)
    return np.asarray(self._generate(*generator, z, label))

  def write_samples(self) -> None:
    """A picture of each member's samples in `samples/`."""
    dataset = self.parts.dataset
    for i, generator in enumerate(self.generators()):
      x = self.samples(i, generator)
      if isinstance(dataset, Density):
        picture = images.png(images.scatter(x, dataset.extent))
      else:
        picture = images.grid_png(x, self.parts.networks.classes)
      write_atomic(self.folder / 'samples' / f'member_{i:04d}.png', picture)

  def outcomes(self) -> list[tuple[str, int]]:
    """Of each member, `done` or `diverged`, and the step of it."""
    diverged = np.asarray(self.population.diverged)[: self.members]
    return [
      ('diverged', int(step)) if step else ('done', self.step)
      for step in diverged
    ]

  def close(self) -> None:
    """Ends the background threads.

    Raises:
      CheckpointError: if something could not be written.
    """
    self.checkpoints.close()
