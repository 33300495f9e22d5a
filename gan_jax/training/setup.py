"""From a configuration to its parts, and from a workdir back to a run.

`build` is what the trainer starts from; `open_run` is what every command that
looks at a finished or unfinished run starts from.
"""

import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from numpy.typing import NDArray

from gan_jax import data, networks
from gan_jax.config.schema import FIELDS, Config, ConfigError, load_flagfile
from gan_jax.config.validate import augmentations, config_file, idle, penalties
from gan_jax.data import Absent as Absent
from gan_jax.data import Dataset, Density, Feed, ImageSet
from gan_jax.game import objectives, step
from gan_jax.game.losses import Game
from gan_jax.game.regularizers import Term
from gan_jax.game.state import GANState, Hyper, count_parameters
from gan_jax.networks import Networks
from gan_jax.runtime import sharding
from gan_jax.runtime.checkpoint import Checkpoints

Samples = NDArray[np.generic]


@dataclasses.dataclass(frozen=True)
class Parts:
  """What a configuration stands for.

  Attributes:
    config: the configuration.
    dataset: the density or image set.
    mesh: the devices.
    feed: the data in its order.
    plan: the static half of the train step.
    hyper: its traced half.
  """

  config: Config
  dataset: Dataset
  mesh: Mesh
  feed: Feed
  plan: step.Plan
  hyper: Hyper

  @property
  def networks(self) -> Networks:
    """G and D."""
    return self.plan.game.networks

  def plan_of(self, constants: Any) -> step.Plan:
    """The plan with the feed's data, whose constants are handed in."""

    def decode(item: Any, key: Any) -> Any:
      return self.feed.decode(constants, item, key, self.config.batch_size)

    return dataclasses.replace(self.plan, decode=decode)

  def init(self) -> GANState:
    """The state before the first step, on every device."""
    init = jax.jit(
      lambda key: step.init_state(key, self.plan, self.hyper),
      out_shardings=sharding.replicated(self.mesh),
    )
    return init(jax.random.key(self.config.seed))

  def template(self) -> GANState:
    """A state of zeros, to restore a checkpoint into."""
    return make_template(self.plan, self.hyper)


def describe(parts: Parts, state: GANState) -> dict[str, Any]:
  """What run.json says of the dataset and the networks."""
  dataset = parts.dataset
  return {
    'dataset': {
      'name': parts.config.dataset,
      'size': parts.feed.size,
      'shape': list(dataset.shape),
      'bounded': dataset.bounded,
      'classes': list(dataset.classes),
      'fingerprint': parts.feed.fingerprint,
      'resident': parts.feed.resident,
    },
    'parameters': {
      'generator': count_parameters(state.g.params),
      'discriminator': count_parameters(state.d.params),
    },
  }


def advice(step: int, bad: Sequence[str], checkpoints: Checkpoints) -> str:
  """What to tell about a run that diverged."""
  steps = checkpoints.steps()
  last = (
    f'the last checkpoint, of step {steps[-1]}, is finite'
    if steps
    else 'no checkpoint was saved before it'
  )
  what = ', '.join(bad) or 'parameters or optimizer state'
  return (
    f'diverged at step {step}: {what} not finite;'
    f' {last} ({checkpoints.folder}).\nLower --lr_g and --lr_d, clip'
    ' the gradients (--clip_g, --clip_d), or use --precision=float32, in'
    ' another --workdir; this command will do the same again.'
  )


def make_template(plan: step.Plan, hyper: Hyper) -> GANState:
  """A state of zeros, to restore a checkpoint into."""
  shapes = jax.eval_shape(
    lambda key: step.init_state(key, plan, hyper), jax.random.key(0)
  )

  def zeros(x: jax.ShapeDtypeStruct) -> Any:
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      return jax.random.key(0)
    return np.zeros(x.shape, x.dtype)

  return jax.tree.map(zeros, shapes)


def make_hyper(config: Config) -> Hyper:
  """The traced numbers of a configuration, as float32 scalars."""
  names = {field.name for field in dataclasses.fields(Hyper)} - {'penalties'}
  weights = {}
  for (_, _, weight), term in zip(
    penalties(config.regularizer), make_terms(config), strict=True
  ):
    weights[term.key] = term.entry.weight if weight is None else weight
  return Hyper(
    **{name: jnp.float32(getattr(config, name)) for name in names},
    penalties={key: jnp.float32(weight) for key, weight in weights.items()},
  )


def make_terms(config: Config) -> tuple[Term, ...]:
  """The regularizers of a configuration.

  Raises:
    ConfigError: for an unknown place, or a penalty that is there twice.
  """
  terms = tuple(Term(p.name, p.place) for p in penalties(config.regularizer))
  known: dict[Term, Term] = {}  # `r1@real` by the name of `r1`
  for term in terms:
    places = [p for p in term.entry.places if p]
    if term.place and term.place not in places:
      raise ConfigError(
        f'--regularizer={config.regularizer}: {term.key}:'
        + (
          f' its places are {", ".join(places)}'
          if places
          else f' has no place; write {term.name}'
        )
      )
    whole = Term(term.name, term.place or term.entry.places[0])
    if known.setdefault(whole, term) is not term:
      raise ConfigError(
        f'--regularizer={config.regularizer}: {term.key} is'
        f' {known[whole].key}, which would count twice; leave one of them out'
      )
  return terms


def _check_game(config: Config, dataset: Dataset | Absent) -> None:
  """Refuses flags that this objective or these data have no use for."""
  objective = objectives.OBJECTIVES[config.objective]
  readers = {
    'label_smoothing': 'real',
    'label_real': 'real',
    'label_fake': 'fake',
    'label_target': 'target',
  }
  for name, label in readers.items():
    value = getattr(config, name)
    read = label in objective.labels
    if name == 'label_real':  # cross-entropy has --label_smoothing for it
      read = 'target' in objective.labels
    if value != FIELDS[name].default and not read:
      able = [
        key
        for key, o in objectives.OBJECTIVES.items()
        if ('target' if name == 'label_real' else label) in o.labels
      ]
      raise ConfigError(
        f'--{name}={value}: has no effect under --objective={config.objective};'
        f' leave it out or use {", ".join(able)}'
      )
  images = len(dataset.shape) == 3
  for term in make_terms(config):
    if term.entry.images and not images:
      raise ConfigError(
        f'--regularizer={config.regularizer}: {term.name} flips and shifts'
        f' images, and {dataset.name} has none; leave it out'
      )
  if config.diffaugment and not images:
    raise ConfigError(
      f'--diffaugment={config.diffaugment}: is for images, and {dataset.name}'
      ' has none; leave it out'
    )
  on_d = any(term.entry.on_d for term in make_terms(config))
  if config.regularizer_every > 1 and not on_d:
    raise ConfigError(
      f'--regularizer_every={config.regularizer_every}: has no effect on'
      f' --regularizer={config.regularizer}, of which nothing is a penalty on'
      ' D; leave it out'
    )
  if config.conditioning != 'none' and not dataset.classes:
    raise ConfigError(
      f'--conditioning={config.conditioning}: {dataset.name} has no classes;'
      ' use --conditioning=none'
    )


def cautions(config: Config, state: GANState) -> list[str]:
  """What a person should know of flags that are taken together."""
  paths = jax.tree_util.tree_leaves_with_path(state.d.stats)
  by_batch = any(getattr(path[-1], 'key', '') == 'mean' for path, _ in paths)
  relativistic = objectives.OBJECTIVES[config.objective].relativistic
  return idle(config, FIELDS, relativistic) + [
    f'--regularizer={config.regularizer}: D normalises by the batch, so that'
    f' the slope that {term.key} takes at one sample is not its alone; use'
    ' --norm_d=layer or --norm_d=none'
    for term in make_terms(config)
    if by_batch and term.entry.places[0]
  ]


def make_networks(config: Config, dataset: Dataset | Absent) -> Networks:
  """G and D for a dataset's samples."""
  return networks.build(
    config.network,
    dataset.shape,
    bounded=dataset.bounded,
    width=config.width,
    depth=config.depth,
    latent_dim=config.latent_dim,
    latent=config.latent,
    norm_g=config.norm_g,
    norm_d=config.norm_d,
    packing=config.packing,
    conditioning=config.conditioning,
    classes=len(dataset.classes),
    dtype=jnp.dtype(config.precision),
    mean=(lambda: dataset.mean) if isinstance(dataset, ImageSet) else None,
  )


def load_dataset(config: Config) -> Dataset:
  """The density or image set that the configuration names."""
  return data.load(
    config.dataset,
    data_dir=config.data_dir,
    image_size=config.image_size,
    channels=config.channels,
  )


def build(config: Config) -> Parts:
  """Everything a configuration stands for.

  Raises:
    DataError, NetworkError, ShardingError: whose messages name the flag.
  """
  dataset = load_dataset(config)
  mesh = sharding.make_mesh(config.devices)
  sharding.check_batch(mesh, config.batch_size)
  shard = sharding.batch_sharder(mesh) if mesh.size > 1 else None
  plan = make_plan(config, dataset, shard)
  feed = data.make_feed(
    dataset,
    seed=config.seed,
    batch_size=config.batch_size,
    batches_per_step=plan.real_batches,
    flip=config.flip,
    residence=config.residence,
    labelled=config.conditioning != 'none',
  )
  return Parts(config, dataset, mesh, feed, plan, make_hyper(config))


def make_plan(
  config: Config,
  dataset: Dataset | Absent,
  shard: Callable[[Any], Any] | None = None,
) -> step.Plan:
  """The static half of a configuration's train step.

  Raises:
    ConfigError, NetworkError: for what is of no use together.
  """
  _check_game(config, dataset)
  return step.Plan(
    game=Game(
      make_networks(config, dataset),
      objectives.OBJECTIVES[config.objective],
      shard or (lambda x: x),
      make_terms(config),
      augmentations(config.diffaugment),
    ),
    batch_size=config.batch_size,
    steps=config.steps,
    schedule=config.schedule,
    d_steps=config.d_steps,
    g_steps=config.g_steps,
    reuse_noise=config.reuse_noise,
    reuse_real=config.reuse_real,
    unroll_steps=config.unroll_steps,
    penalty_every=config.regularizer_every,
    optimizer_g=config.optimizer_g,
    optimizer_d=config.optimizer_d,
    beta1_final_g=config.beta1_final_g > 0,
    beta1_final_d=config.beta1_final_d > 0,
    clip_g=config.clip_g > 0,
    clip_d=config.clip_d > 0,
    lr_schedule=config.lr_schedule,
    lr_warmup=config.lr_warmup,
    lr_final=config.lr_final,
    instance_noise=config.instance_noise > 0,
    average=config.ema_halflife_kimg > 0,
  )


@dataclasses.dataclass(frozen=True)
class Run:
  """A run as it was saved.

  Attributes:
    config: its configuration.
    dataset: the density of the run, or what it says of its image set, which
      may be on another machine (`load_dataset` loads it).
    networks: G and D.
    state: the saved state, on the host.
    step: the step it was saved at.
  """

  config: Config
  dataset: Dataset | Absent
  networks: Networks
  state: GANState
  step: int

  def latent(self, seed: int, n: int) -> Float[Array, 'n latent_dim']:
    """G's noise from a seed."""
    return self.networks.sample_latent(jax.random.key(seed), n)

  @functools.cached_property
  def _apply(self) -> Any:
    generator = self.networks.generator

    def apply(params: Any, stats: Any, z: Any, label: Any) -> Any:
      return generator.apply(params, stats, z, train=False, label=label)[0]

    return jax.jit(apply)

  def generate(self, z: Any, label: Any = None, *, ema: bool = True) -> Samples:
    """Samples `(n, *shape)` from noise `(n, latent_dim)`.

    Args:
      z: noise.
      label: classes (n,) of a class-conditional run, None for all in turn.
      ema: from the averaged generator, rather than the live one.

    Raises:
      ConfigError: if an average is asked for and none was kept.
    """
    if ema and self.state.ema is None:
      raise ConfigError(
        '--ema=true: this run kept no average (--ema_halflife_kimg=0); use'
        ' --ema=false'
      )
    source = (
      self.state.g if self.state.ema is None or not ema else self.state.ema
    )
    if label is None:
      label = in_turn(len(z), self.networks.classes)
    return np.asarray(self._apply(source.params, source.stats, z, label))


def in_turn(count: int, classes: int) -> NDArray[np.int32] | None:
  """Classes 0, 1, ... for some samples; None for networks that know none."""
  return np.arange(count, dtype=np.int32) % classes if classes else None


def read_config(workdir: str | pathlib.Path) -> Config:
  """The configuration of a workdir.

  Raises:
    ConfigError: if there is no run there.
  """
  path = config_file(workdir)
  return dataclasses.replace(load_flagfile(path), workdir=str(workdir))


def _described(config: Config) -> Density | Absent:
  """The density of a run, or what its run.json says of its image set."""
  path = pathlib.Path(config.workdir) / 'run.json'
  try:
    facts = json.loads(path.read_text())['dataset']
    if facts['bounded']:
      classes = tuple(facts.get('classes', ()))
      return Absent(config.dataset, tuple(facts['shape']), classes)
  except (OSError, ValueError, KeyError):
    pass  # there was a time when it did not say so
  dataset = load_dataset(config)
  if isinstance(dataset, Density):
    return dataset
  return Absent(dataset.name, dataset.shape, dataset.classes)


def saved_steps(workdir: str | pathlib.Path) -> list[int]:
  """Steps of a run's finished checkpoints, which it may delete at any time."""
  folder = pathlib.Path(workdir) / 'checkpoints'
  if not folder.is_dir():
    return []
  # Orbax gives a checkpoint its name when it is whole.
  names = [path.name for path in folder.iterdir()]
  return sorted(int(name) for name in names if name.isdigit())


def outcome(workdir: str | pathlib.Path) -> str:
  """What run.json says of a run's end; empty if it says nothing yet."""
  try:
    facts = json.loads((pathlib.Path(workdir) / 'run.json').read_text())
  except (OSError, ValueError):
    return ''
  return str(facts.get('outcome', ''))


def agreed(said: bool) -> bool:
  """What the first process says, in all of them."""
  if jax.process_count() == 1:
    return said
  from jax.experimental import multihost_utils

  return bool(multihost_utils.broadcast_one_to_all(np.bool_(said)))


def open_run(workdir: str | pathlib.Path, step: int | None = None) -> Run:
  """A run's configuration, networks and saved state.

  Args:
    workdir: folder of the run.
    step: which checkpoint; the newest whole one by default.

  Raises:
    ConfigError: if there is no run, no checkpoint, or not that step.
    CheckpointError: if the checkpoint asked for (or every one) is damaged.
  """
  config = read_config(workdir)
  if not (pathlib.Path(workdir) / 'checkpoints').is_dir():
    raise ConfigError(f'--workdir={workdir}: no checkpoint was saved there yet')
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    steps = checkpoints.steps()
    if not steps or (step is not None and step not in steps):
      there = ', '.join(map(str, steps)) or 'none'
      raise ConfigError(
        f'--workdir={workdir}: no checkpoint'
        + (f' --step={step}' if steps else '')
        + f'; there are: {there}'
      )
    dataset = _described(config)
    plan = make_plan(config, dataset)
    template = make_template(plan, make_hyper(config))
    if step is not None:
      state, meta = checkpoints.restore(step, template)
    else:
      found = checkpoints.restore_newest(
        template, lambda text: print(f'warning: {text}', file=sys.stderr)
      )
      assert found is not None  # there are steps
      state, meta = found
  finally:
    checkpoints.close()
  return Run(config, dataset, plan.game.networks, state, int(meta['step']))
