"""Runs as they were saved: opened, sampled, scored."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32
from numpy.typing import NDArray

from gan_jax.config import app, registry, resolve
from gan_jax.config.schema import Config
from gan_jax.data import Dataset, DatasetMetadata, Density
from gan_jax.game.classes import check_sampling, numbered_classes
from gan_jax.game.sampler import BATCH, Sampler
from gan_jax.game.streams import check_seed
from gan_jax.networks.base import Net, Networks
from gan_jax.runtime import backend, numerics, places, records
from gan_jax.runtime.checkpoint import (
  Checkpoints,
  find_steps,
  flatten,
  to_host,
)
from gan_jax.runtime.errors import (
  ArgumentError,
  NetworksNeeded,
)
from gan_jax.runtime.progress import progress_bar
from gan_jax.runtime.quiet import quiet_libraries
from gan_jax.training import interpolation
from gan_jax.training.setup import (
  OWN_DATA,
  Setup,
  data_spec,
  load_dataset,
)
from gan_jax.training.workdir import read_config, read_facts
from gan_jax.training.writers import read_rows

PyTree = Any
Samples = Float[np.ndarray, 'n *shape']
NOTHING_SAVED = 'no checkpoint was saved there yet'
GENERATOR = (
  'generator.jax'  # an exported G, of a run whose networks have no name
)


@dataclasses.dataclass(frozen=True)
class Source:
  """A network as it was saved: parameters and running statistics."""

  params: PyTree
  stats: PyTree


@dataclasses.dataclass(frozen=True)
class Run:
  """A run as it was saved.

  Attributes:
    config: its options.
    dataset: the density of the run, or what it says of its set of samples,
      which may be on another machine.
    networks: G and D; None where only the exported G is known.
    step: the step it was saved at.
    state: saved arrays by path, on the host.
    facts: what run.json says.

  >>> import gan_jax as gj
  >>> run = gj.open('runs/digits')  # doctest: +SKIP
  >>> run.sample(64, seed=0).shape  # doctest: +SKIP
  (64, 8, 8, 1)
  """

  config: Config
  dataset: Dataset | DatasetMetadata
  networks: Networks | None
  step: int
  # Not in its repr: all arrays and run.json, where a notebook shows a run.
  state: Mapping[str, NDArray[Any]] = dataclasses.field(repr=False)
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

  def __repr__(self) -> str:
    """One line, as a notebook shows it."""
    data = self.dataset.name
    return f'Run({self.config.workdir!r}, step={self.step}, data={data!r})'

  @property
  def workdir(self) -> pathlib.Path:
    """Its folder."""
    return pathlib.Path(self.config.workdir)

  @property
  def outcome(self) -> str:
    """`running`, `saved`, `done` or `diverged`."""
    return str(self.facts.get('outcome', 'running'))

  @property
  def has_average(self) -> bool:
    """Whether an average of G was kept."""
    return any(path.startswith('ema/') for path in self.state)

  @property
  def classes(self) -> int:
    """Classes that G is conditioned on; 0 for none."""
    if self.networks is not None:
      return self.networks.classes
    if 'generator' not in self.facts:  # run.json is damaged
      self._needed()
    return int(self.facts['generator']['classes'])

  def class_counts(self, class_sampling: str = '') -> tuple[int, ...]:
    """How often G is asked for each class; empty: for all equally often.

    Args:
      class_sampling: data, by the training data's proportions, or uniform;
        empty: as the run was trained.

    Raises:
      ArgumentError: for another word, or proportions that are not known.
    """
    word = class_sampling or self.config.class_sampling
    check_sampling(word)
    if not self.classes:
      if class_sampling:
        remedy = 'this run has no classes; leave it out'
        raise ArgumentError('class_sampling', class_sampling, remedy)
      return ()
    if word == 'uniform':
      return ()
    saved = self.facts.get('generator', {}).get('class_counts')
    own = () if self.networks is None else self.networks.class_counts
    dataset = self.dataset
    of_dataset = () if isinstance(dataset, Density) else dataset.class_counts
    counts = tuple(saved or own or of_dataset)
    if not counts:
      remedy = (
        f'{self.workdir / "run.json"} does not say how many samples each class'
        ' has; use `class_sampling=uniform`, or name the classes by `label`'
      )
      raise ArgumentError('class_sampling', word, remedy)
    return counts

  def generator(self, ema: bool | None = None) -> Source:
    """Parameters and running statistics of G.

    Args:
      ema: of the averaged one; None: if there is one.

    Raises:
      ArgumentError: if an average is asked for and none was kept.
      NetworksNeeded: if nobody says what the arrays are for.
    """
    return self._source(self._needed().generator, self._prefix(ema))

  def discriminator(self) -> Source:
    """Parameters and running statistics of D.

    Raises:
      NetworksNeeded: if nobody says what the arrays are for.
    """
    return self._source(self._needed().discriminator, 'd')

  def _source(self, net: Net, prefix: str) -> Source:
    """The saved arrays below a path, in the structure of a network."""
    params, stats = jax.eval_shape(net.init, jax.random.key(0))

    def pick(part: str, tree: PyTree) -> PyTree:
      leaves = [
        self._array(f'{prefix}/{part}/{path}', x.shape)
        for path, x in flatten(tree).items()
      ]
      return jax.tree.unflatten(jax.tree.structure(tree), leaves)

    return Source(pick('params', params), pick('stats', stats))

  def _array(self, path: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """A saved array.

    Raises:
      ArgumentError: if there is none, or one of another shape.
    """
    saved = self.state.get(path)
    if saved is None or saved.shape != shape:
      arrays = 'nothing' if saved is None else saved.shape
      raise ArgumentError(
        'networks',
        f'{path} {shape}',
        f'are not those of {self.workdir}, where it is {arrays}; give those'
        ' that it was trained with',
      )
    return saved

  def _prefix(self, ema: bool | None) -> str:
    if ema and not self.has_average:
      raise ArgumentError(
        'ema',
        True,
        'this run kept no average (`ema_halflife_kimg=0`); use `ema=false`',
      )
    return 'ema' if ema or (ema is None and self.has_average) else 'g'

  def _needed(self) -> Networks:
    if self.networks is None:
      raise NetworksNeeded(
        f"{self.workdir}: the networks of this run are its author's own; hand"
        ' them in with `networks=...`'
      )
    return self.networks

  @functools.cached_property
  def sampler(self) -> Sampler:
    """The compiled sampler of its G."""
    return Sampler(self._needed())

  def latent(
    self, seed: int, stop: int, start: int = 0
  ) -> Float[np.ndarray, 'n latent_dim']:
    """G's noise: that of samples `start` to `stop` of a seed."""
    key = jax.random.key(seed)
    return np.asarray(self.sampler.latent(key, jnp.arange(start, stop)))

  def generate(
    self, z: Any, label: Any = None, *, ema: bool | None = None
  ) -> Samples:
    """Samples `(n, *shape)` from noise `(n, latent_dim)`.

    Args:
      z: noise.
      label: classes (n,) of a class-conditional run; None: those of `sample`.
      ema: from the averaged generator; None: if there is one.

    Raises:
      ArgumentError: if an average is asked for and none was kept.
    """
    source = self.generator(ema)
    if label is None:
      label = self.labels(len(z))
    return np.asarray(
      self.sampler.generate(source.params, source.stats, z, label)
    )

  def sample(
    self,
    n: int,
    *,
    seed: int = 0,
    label: int | Sequence[int] | NDArray[Any] | None = None,
    ema: bool | None = None,
    class_sampling: str = '',
  ) -> Samples:
    """Samples (n, *sample_shape), float32; images in [-1, 1].

    Sample i is a function of the seed and i alone: how many are drawn makes no
    difference.

    Args:
      n: how many.
      seed: of the noise.
      label: one class for all, or one each, of a class-conditional run; None:
        as `class_sampling` says.
      ema: from the averaged generator; None: if there is one.
      class_sampling: data, classes by the training data's proportions, or
        uniform, in turn; empty: as the run was trained.

    Raises:
      ArgumentError: for fewer than one, an unknown class, or an average that
        was not kept.
    """
    if n < 1:
      raise ArgumentError('n', n, 'use 1 or more')
    batches = self.sample_batches(
      n, seed=seed, label=label, ema=ema, class_sampling=class_sampling
    )
    x = np.empty((n, *self.dataset.shape), np.float32)
    start = 0
    for batch in batches:
      x[start : start + len(batch)] = batch
      start += len(batch)
    return x

  def sample_batches(
    self,
    n: int,
    *,
    seed: int = 0,
    label: int | Sequence[int] | NDArray[Any] | None = None,
    ema: bool | None = None,
    class_sampling: str = '',
  ) -> Iterator[Samples]:
    """The samples of `sample`, a batch at a time.

    Raises:
      ArgumentError: as `sample`, at once.
    """
    check_seed('seed', seed)
    labels = self.labels(n, label, class_sampling)
    if self.networks is None:
      batches = self._exported(n, seed, labels, self._prefix(ema))
    else:
      source = self.generator(ema)
      batches = self.sampler.batches(
        source.params, source.stats, seed, n, labels
      )
    bar = progress_bar(batches, -(-n // BATCH), 'sampling')
    return (batch for batch in bar)

  def interpolate(
    self,
    rows: int,
    *,
    seed: int = 0,
    label: int | None = None,
    ema: bool | None = None,
  ) -> Samples:
    """Samples (rows, 8, *sample_shape) on the way from one latent to another.

    Along the sphere for normal noise, straight for uniform noise. The ends of
    row i are the latent vectors of samples 2i and 2i + 1 of the seed.

    Args:
      rows: how many ways.
      seed: of the noise.
      label: the class of all, of a class-conditional run; None: a row has one
        class, and the rows have them in turn.
      ema: from the averaged generator; None: if there is one.

    Raises:
      ArgumentError: for fewer than one row, an unknown class, or an average
        that was not kept.
      NetworksNeeded: if nobody says what the noise is.
    """
    if rows < 1:
      raise ArgumentError('rows', rows, 'use 1 or more')
    x = [*interpolation.batches(self, rows, seed, ema, label)]
    shape = (rows, interpolation.COLUMNS, *self.dataset.shape)
    return np.concatenate(x).reshape(shape)

  def labels(
    self, n: int, label: Any = None, class_sampling: str = ''
  ) -> NDArray[np.int32] | None:
    """Classes (n,), checked; None for a run that knows none.

    Args:
      n: how many.
      label: one for all, or one each; None: as `class_sampling` says.
      class_sampling: as `sample` takes it.

    Raises:
      ArgumentError: for a class that the run does not know.
    """
    if label is None:
      counts = self.class_counts(class_sampling)
      if not self.classes:
        return None
      number = jnp.arange(n, dtype=jnp.int32)
      return np.asarray(numbered_classes(self.classes, counts, number))
    if class_sampling:
      remedy = '`label` names the classes; leave one of them out'
      raise ArgumentError('class_sampling', class_sampling, remedy)
    labels = np.broadcast_to(np.asarray(label), (n,)).astype(np.int32)
    classes = self.classes
    if not ((0 <= labels) & (labels < max(classes, 0))).all():
      remedy = f'use 0 to {classes - 1}' if classes else 'leave it out'
      raise ArgumentError(
        'label', label, f'this run has {classes} classes; {remedy}'
      )
    return labels

  def _exported(
    self, n: int, seed: int, labels: Any, prefix: str
  ) -> Iterator[Samples]:
    """Samples by the exported G."""
    call = _load_exported(self.workdir)
    arrays = {
      path.removeprefix(f'{prefix}/'): x
      for path, x in self.state.items()
      if path.startswith(f'{prefix}/') and '/opt_state/' not in path
    }
    key = np.asarray(jax.random.key_data(jax.random.key(seed)))
    for start in range(0, n, BATCH):
      number = np.arange(start, start + BATCH, dtype=np.int32)
      rows = min(BATCH, n - start)
      own = np.zeros(BATCH, np.int32)
      if labels is not None:
        own[:rows] = labels[start : start + rows]
      yield np.asarray(call(arrays, key, number, own))[:rows]

  @quiet_libraries()
  def score(
    self,
    metrics: Any,
    *,
    data: Any = None,
    samples: int = 10_000,
    seeds: int = 1,
    **options: Any,
  ) -> dict[str, float]:
    """Scores of its G by name: means over evaluation seeds.

    Args:
      metrics: names or `Metric` objects.
      data: what is scored against; None: the data of the run.
      samples: generated samples of a score.
      seeds: draws of noise.
      **options: `features`, `weights`, `real_samples`, as `gan_jax.evaluate`.

    Raises:
      ArgumentError: for what cannot be scored.
    """
    from gan_jax.training.run_evaluator import score_run

    return score_run(
      self, metrics, data=data, samples=samples, seeds=seeds, **options
    )

  def logs(self) -> list[dict[str, float]]:
    """Rows of its log, oldest first: scalars by name, `step` among them."""
    return read_rows(self.workdir / 'stats.jsonl')


# What a run keeps of networks that have no name.


def _flat_sampler(networks: Networks) -> Any:
  """`(arrays, key data, numbers, labels) -> samples`, arrays by path."""
  sampler = Sampler(networks)
  shapes = jax.eval_shape(networks.generator.init, jax.random.key(0))
  leaves = flatten({'params': shapes[0], 'stats': shapes[1]})
  tree = jax.tree.structure({'params': shapes[0], 'stats': shapes[1]})

  def sample(
    arrays: Any, key: UInt32[Array, '2'], number: Any, label: Any
  ) -> Any:
    own = jax.tree.unflatten(tree, [arrays[path] for path in leaves])
    z = sampler.latent(jax.random.wrap_key_data(key), number)
    labels = label if networks.classes else None
    x, _ = networks.generator.apply(
      own['params'], own['stats'], z, train=False, key=None, label=labels
    )
    return x.astype(jnp.float32)

  return sample, leaves


def export_generator(networks: Networks) -> bytes:
  """G and the draw of its noise, for cpu, cuda and tpu, for any number."""
  from jax import export

  sample, leaves = _flat_sampler(networks)
  (n,) = export.symbolic_shape('n')
  arrays = {
    path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in leaves.items()
  }
  key = jax.eval_shape(jax.random.key_data, jax.random.key(0))
  number = jax.ShapeDtypeStruct((n,), np.int32)
  with numerics.multiplying('highest'):
    exported = export.export(jax.jit(sample), platforms=('cpu', 'cuda', 'tpu'))(
      arrays, key, number, number
    )
  return bytes(exported.serialize())


def _load_exported(folder: pathlib.Path) -> Any:
  from jax import export

  path = folder / GENERATOR
  if not path.is_file():
    raise NetworksNeeded(
      f"{folder}: the networks of this run are its author's own, and it kept no"
      f' {GENERATOR}; hand them in with `networks=...`'
    )
  return jax.jit(export.deserialize(bytearray(path.read_bytes())).call)


# From a workdir back to a run.


def _describe_dataset(
  config: Config, facts: Mapping[str, Any], networks: Networks | None
) -> Density | DatasetMetadata:
  """The density of a run, or what its run.json says of its samples."""
  own = facts.get('dataset', {})
  if config.dataset.startswith(OWN_DATA) and not own:
    if networks is None:
      raise NetworksNeeded(
        f'{config.workdir}: run.json, which says what its data was, cannot be'
        ' read; hand in its networks with `networks=...`'
      )
    own = {'shape': networks.sample_shape}
  if own.get('bounded') or config.dataset.startswith(OWN_DATA):
    return DatasetMetadata(
      config.dataset,
      tuple(own['shape']),
      tuple(own.get('classes', ())),
      tuple(own.get('class_counts', ())),
    )
  dataset = load_dataset(config)
  if isinstance(dataset, Density):
    return dataset
  is_read = config.conditioning != 'none'
  counts = dataset.class_counts if is_read else ()
  return DatasetMetadata(dataset.name, dataset.shape, dataset.classes, counts)


def saved_steps(workdir: str | pathlib.Path) -> list[int]:
  """Steps of a run's finished checkpoints, which it may delete at any time."""
  return find_steps(pathlib.Path(workdir) / 'checkpoints')


def outcome(workdir: str | pathlib.Path) -> str:
  """What run.json says of a run's end; empty if it says nothing yet."""
  try:
    facts = records.read(pathlib.Path(workdir) / 'run.json') or {}
  except records.DamagedRecord:
    return ''
  return str(facts.get('outcome', ''))


@quiet_libraries()
def open_run(
  workdir: str | pathlib.Path,
  step: int | None = None,
  networks: Networks | None = None,
) -> Run:
  """A run as it was saved.

  Args:
    workdir: folder of the run.
    step: which checkpoint; the newest whole one by default.
    networks: of a run whose networks are its author's own; without them it can
      be sampled and scored, by the G that it exported.

  Raises:
    ArgumentError: if there is no run, no checkpoint, or not that step.
    CheckpointError: if the checkpoint asked for (or every one) is damaged.
  """
  workdir = places.resolve('workdir', workdir)
  config = read_config(workdir)
  backend.check_devices()
  if not (pathlib.Path(workdir) / 'checkpoints').is_dir():
    raise ArgumentError('workdir', workdir, 'no checkpoint was saved there yet')
  facts = read_facts(pathlib.Path(workdir))
  dataset = _describe_dataset(config, facts, networks)
  own = networks or _networks(config, facts, dataset)
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    saved_step, state = _read_state(checkpoints, str(workdir), step)
  finally:
    checkpoints.close()
  return Run(config, dataset, own, saved_step, state, facts)


def _networks(
  config: Config, facts: Mapping[str, Any], dataset: Dataset | DatasetMetadata
) -> Networks | None:
  """The networks of a run by what it says of them; None: its author's own."""
  reference = facts.get('references', {}).get('networks', '')
  if not facts and (pathlib.Path(config.workdir) / GENERATOR).exists():
    reference = GENERATOR
  if registry.is_reference(reference):
    return resolve.build_networks(
      dataclasses.replace(config, network=reference), data_spec(dataset)
    )
  if reference:
    return None
  return resolve.build_networks(config, data_spec(dataset))


def _read_state(
  checkpoints: Checkpoints, workdir: str, step: int | None
) -> tuple[int, dict[str, NDArray[Any]]]:
  """The arrays of a checkpoint: that of a step, or the newest whole one."""
  if step is None:
    newest = checkpoints.read_newest(app.warn)
    if newest is None:
      raise ArgumentError('workdir', workdir, NOTHING_SAVED)
    return newest
  steps = checkpoints.steps()
  if step not in steps:
    existing = ', '.join(map(str, steps)) or 'none'
    remedy = f'no such checkpoint; there are: {existing}'
    raise ArgumentError('step', step, remedy)
  return step, checkpoints.read_flat(step)


def run_in_memory(
  setup: Setup, step: int, state: PyTree, facts: Mapping[str, Any] | None = None
) -> Run:
  """A run that has just been trained, without reading what was saved."""
  flat = flatten(to_host(state))
  return Run(
    setup.config, setup.dataset, setup.networks, step, flat, facts or {}
  )


__all__ = [
  'Run',
  'export_generator',
  'open_run',
  'outcome',
  'read_config',
  'saved_steps',
]
