"""Set-up of a run: from a configuration to data, devices and trainer."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gan_jax import data
from gan_jax.config import resolve
from gan_jax.config.schema import FIELDS, Config
from gan_jax.config.validate import idle, idle_on_density
from gan_jax.data import (
  Dataset,
  DatasetMetadata,
  Density,
  Feed,
  SampleSet,
)
from gan_jax.game.game import Batch
from gan_jax.game.sampler import Sampler
from gan_jax.game.state import State, count_parameters
from gan_jax.game.streams import stream
from gan_jax.game.trainer import Trainer
from gan_jax.networks.base import Networks
from gan_jax.runtime import backend, multihost, sharding
from gan_jax.runtime.checkpoint import Checkpoints
from gan_jax.runtime.errors import ArgumentError

PyTree = Any
OWN_DATA = 'python:'  # how the name of data that was handed in begins


@dataclasses.dataclass(frozen=True)
class Setup:
  """What a run is made of.

  Attributes:
    config: its options.
    dataset: the density or set of samples.
    mesh: the devices.
    feed: the data in its order.
    trainer: the game and how it is played.
    objects: options that were given as objects, in the place of names.
    given: the identity that the user vouches for, in the place of the hash of
      the program; empty: none.
    residence: where the samples live and why, where that was not asked for.
  """

  config: Config
  dataset: Dataset
  mesh: Mesh
  feed: Feed
  trainer: Trainer
  objects: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  given: str = ''
  residence: str = ''

  @property
  def networks(self) -> Networks:
    """G and D."""
    return self.trainer.game.networks

  def batch_of(self, constants: PyTree, item: PyTree, state: State) -> Any:
    """Real samples of one step, as `Trainer.step` takes them; traced.

    Args:
      constants: of the feed.
      item: of the feed, one step.
      state: whose key and step say what is drawn.
    """
    key, count = state.key, self.trainer.real_batches

    def decode(i: Any) -> Any:
      return self.feed.decode(
        constants,
        jax.tree.map(lambda a: jnp.asarray(a)[i], item),
        stream(key, 'data', state.step, i),
        self.config.batch_size,
      )

    if count == 1:
      return jax.tree.map(lambda x: x[None], decode(0))
    return jax.lax.map(decode, jnp.arange(count))

  def real_batch(self, constants: PyTree, item: PyTree, state: State) -> Batch:
    """The first batch of real samples of a step; traced."""
    batch = self.batch_of(constants, item, state)
    batch = jax.tree.map(lambda x: x[0], batch)
    return Batch(*batch) if isinstance(batch, tuple) else Batch(batch)

  @functools.cached_property
  def step(self) -> Callable[[State, Any], Any]:
    """The trainer's step, traced once for all who ask."""
    return jax.jit(lambda s, batch: self.trainer.step(s, batch), inline=True)

  @functools.cached_property
  def split_step(self) -> Callable[[State, Any], Any]:
    """The same, its draws split over the devices; of one, that very step."""
    if self.mesh.size == 1:
      return self.step

    def step(state: State, batch: Any) -> Any:
      with sharding.splitting_over(self.mesh):
        return self.trainer.step(state, batch)

    return jax.jit(step, inline=True)

  @functools.cached_property
  def shapes(self) -> State:
    """Shapes and types of a state."""
    key = jax.eval_shape(jax.random.key, 0)  # to make one compiles programs
    return self._init.eval_shape(key)

  @functools.cached_property
  def _init(self) -> Any:
    """The trainer's, traced once for its shapes and its program."""
    return jax.jit(lambda key: self.trainer.init(key), inline=True)

  def real_shapes(self) -> Any:
    """Shapes of the real batches of a step, as `Trainer.step` takes them."""
    shape = (self.trainer.real_batches, self.config.batch_size)
    networks = self.networks
    x = jax.ShapeDtypeStruct((*shape, *networks.sample_shape), np.float32)
    if not networks.classes:
      return x
    return x, jax.ShapeDtypeStruct(shape, np.int32)

  def init(self) -> State:
    """The state before the first step, on every device."""

    def init(seed: Any) -> State:
      state: State = self._init(jax.random.key(seed))
      return state

    jitted = jax.jit(init, out_shardings=sharding.replicated(self.mesh))
    state: State = jitted(np.int32(self.config.seed))
    return state


def load_dataset(config: Config) -> Dataset:
  """The density or image set that the configuration names.

  Raises:
    DataError, ArgumentError: if it cannot be had.
  """
  return data.load(
    config.dataset,
    data_dir=config.data_dir,
    image_size=config.image_size,
    channels=config.channels,
    max_megapixels=config.max_megapixels,
    keep_rows=config.keep_rows,
  )


def data_spec(dataset: Dataset | DatasetMetadata) -> resolve.DataSpec:
  """What the networks need to know of a dataset."""
  return resolve.DataSpec(
    tuple(dataset.shape),
    dataset.bounded,
    len(dataset.classes),
    (lambda: dataset.mean) if isinstance(dataset, SampleSet) else None,
    None if isinstance(dataset, Density) else lambda: dataset.class_counts,
  )


def build(
  config: Config,
  objects: Mapping[str, Any] | None = None,
  *,
  dataset: Dataset | None = None,
  trainer: Trainer | None = None,
  given: str = '',
  devices: int | None = None,
) -> Setup:
  """Everything that a run is made of.

  Args:
    config: its options.
    objects: options that are objects.
    dataset: in the place of the one that the configuration names.
    trainer: in the place of the one that it describes.
    given: an identity that the user vouches for.
    devices: in the place of the configuration's.

  Raises:
    DataError, ArgumentError: naming what is of no use.
  """
  dataset = load_dataset(config) if dataset is None else dataset
  mesh = sharding.make_mesh(config.devices if devices is None else devices)
  if trainer is None:
    trainer = resolve.build_trainer(config, data_spec(dataset), objects)
  check_batch(config, trainer, mesh)
  _check_fit(config, dataset, trainer)
  trainer = _sample_classes(config, dataset, trainer)
  if config.residence == 'device' and isinstance(dataset, SampleSet):
    needed = dataset.size * int(np.prod(dataset.shape))
    what = f'{dataset.size:,} samples'
    backend.require_memory('residence', 'device', needed, what)
  residence, why = _choose_residence(config, dataset)
  feed = data.make_feed(
    dataset,
    seed=config.seed,
    batch_size=config.batch_size,
    batches_per_step=trainer.real_batches,
    flip=config.flip,
    residence=residence,
    labelled=trainer.game.networks.classes > 0,
  )
  return Setup(config, dataset, mesh, feed, trainer, objects or {}, given, why)


def _choose_residence(config: Config, dataset: Dataset) -> tuple[str, str]:
  """Where the samples live, the same for all processes, and why."""
  if config.residence != 'auto' or isinstance(dataset, Density):
    return config.residence, ''
  residence, why = data.choose_residence(dataset)
  if residence == 'device' and multihost.find_maximum(0):
    return 'stream', 'streamed: another process has too little memory'
  if residence == 'stream':
    multihost.find_maximum(1)
  return residence, why


def _sample_classes(
  config: Config, dataset: Dataset, trainer: Trainer
) -> Trainer:
  """A trainer, handed in perhaps, whose G is asked for classes as told."""
  game = trainer.game
  networks = resolve.sample_classes(game.networks, config, data_spec(dataset))
  if networks is game.networks:
    return trainer
  return trainer.replace(game=game.replace(networks=networks))


def _check_fit(config: Config, dataset: Dataset, trainer: Trainer) -> None:
  """Refuses networks and numbers that do not fit the data."""
  networks = trainer.game.networks
  if tuple(dataset.shape) != tuple(networks.sample_shape):
    raise ArgumentError(
      'data',
      f'samples of shape {tuple(dataset.shape)}',
      f'the networks have `sample_shape={tuple(networks.sample_shape)}`; give'
      ' samples of that shape, or other networks',
    )
  if networks.classes and len(dataset.classes) != networks.classes:
    raise ArgumentError(
      'data',
      f'{dataset.name} of {len(dataset.classes)} classes',
      f'the networks have `classes={networks.classes}`; give (x, labels)',
    )


def check_batch(
  config: Config, trainer: Trainer, mesh: jax.sharding.Mesh
) -> None:
  """Refuses a batch that does not split over devices, into parts and packs.

  Raises:
    ArgumentError: naming the option and what would do.
  """
  packing, parts = trainer.game.packing, trainer.accumulate
  sharding.check_batch(mesh, config.batch_size, parts)
  if config.batch_size // parts % packing:
    of_part = f' in {parts} parts (`accumulate`)' if parts > 1 else ''
    raise ArgumentError(
      'packing',
      packing,
      f'does not divide `batch_size={config.batch_size}`{of_part}, which counts'
      ' samples, not packs; use a divisor',
    )


def describe(setup: Setup) -> dict[str, Any]:
  """What run.json says of the dataset and the networks."""
  dataset, shapes = setup.dataset, setup.shapes
  return {
    'dataset': {
      'name': dataset.name,
      'size': setup.feed.size,
      'shape': list(dataset.shape),
      'bounded': dataset.bounded,
      'classes': list(dataset.classes),
      **_count_classes(setup),
      'fingerprint': setup.feed.fingerprint,
      'resident': setup.feed.resident,
      'residence': setup.residence,
    },
    'parameters': {
      'generator': count_parameters(shapes.g.params),
      'discriminator': count_parameters(shapes.d.params),
    },
  }


def _count_classes(setup: Setup) -> dict[str, Any]:
  """How many samples each class has, where the game asks for it."""
  if not setup.networks.classes or isinstance(setup.dataset, Density):
    return {}
  return {'class_counts': list(setup.dataset.class_counts)}


def diverged_advice(
  setup: Setup, step: int, bad: Sequence[str], checkpoints: Checkpoints
) -> str:
  """What to tell the user of a run that diverged."""
  steps = checkpoints.steps()
  last = (
    f'the last checkpoint, of step {steps[-1]}, is finite'
    if steps
    else 'no checkpoint was saved before it'
  )
  what = ', '.join(bad) or 'parameters or optimizer state'
  narrow = setup.config.precision != 'float32'
  remedy = (
    'Lower `lr_g` and `lr_d`, or clip the gradients (`clip_g`, `clip_d`)'
    + (', or use `precision=float32`' if narrow else '')
    + ', in another `workdir`; the same call will do the same again.'
  )
  own = 'trainer' in setup.objects
  if own:
    remedy = (
      'Lower the rates of the `trainer`, or clip its gradients, in another'
      ' `workdir`; the same call will do the same again.'
    )
  if step == 1 and not _starts_finite(setup):
    remedy = (
      f'`{"trainer" if own else "network"}`: G returns NaN or infinity from its'
      ' initial parameters; mend it: look for a division by 0, or the'
      ' logarithm or root of what may be less.'
    )
  return (
    f'diverged at step {step}: {what} not finite; {last}'
    f' ({checkpoints.folder}).\n{remedy}'
  )


def _starts_finite(setup: Setup) -> bool:
  """Whether G makes finite samples before the first step."""
  start = setup.init()
  sampler = Sampler(setup.networks, batch=8)
  (x,) = sampler.batches(
    start.g.params, start.g.stats, setup.config.seed, sampler.batch
  )
  return bool(np.isfinite(x).all())


_FEW = 4  # samples, of which statistics say little


def _is_normalised_by_batch(stats: PyTree) -> bool:
  paths = jax.tree_util.tree_leaves_with_path(stats)
  return any(getattr(path[-1], 'key', '') == 'mean' for path, _ in paths)


def cautions(setup: Setup) -> list[str]:
  """Warnings of options that are accepted together and may be a mistake."""
  config, game = setup.config, setup.trainer.game
  warnings = idle(config, FIELDS, game.objective.relativistic)
  precision = setup.trainer.matmul_precision
  if precision != 'default' and setup.mesh.devices.flat[0].platform == 'cpu':
    warnings.append(
      f'`matmul_precision={precision}`: has no effect on a CPU, which'
      ' multiplies in float32'
    )
  if isinstance(setup.dataset, Density):
    warnings += idle_on_density(config, FIELDS)
  part = config.batch_size // setup.trainer.accumulate
  d_by_batch = _is_normalised_by_batch(setup.shapes.d.stats)
  by_batch = d_by_batch or _is_normalised_by_batch(setup.shapes.g.stats)
  if by_batch and part < _FEW:
    name = 'accumulate' if setup.trainer.accumulate > 1 else 'batch_size'
    warnings.append(
      f'`{name}={getattr(config, name)}`: batch normalisation sees {part} of'
      f' the samples at a time, and makes little of fewer than {_FEW}; use'
      ' larger batches or fewer parts, or another norm'
    )
  for term in game.terms if d_by_batch else ():
    if term.slopes:
      warnings.append(
        f'`regularizer={term.name}`: D normalises by the batch, so that the'
        ' slope that it takes at one sample is not its alone; use'
        ' `norm_d=layer` or `norm_d=none`'
      )
  return warnings
