"""Scores of a generator, under a protocol that is written down with them.

An `Evaluator` is made once, compiles once, and scores any parameters of its
networks: the command, the trainer and the ablation use the same one. Samples
are a function of a seed and their number: neither the batch nor the number of
devices has a say in which noise is drawn.
"""

import collections
import difflib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from gan_jax import features as feature_networks
from gan_jax.config.validate import ConfigError
from gan_jax.data import Dataset, Density, ImageSet
from gan_jax.data.gathered import parsed
from gan_jax.data.imageset import data_root
from gan_jax.evaluation import references
from gan_jax.metrics import METRICS, Metric, frechet, modes, parzen, swd
from gan_jax.metrics.arrays import SetupError
from gan_jax.networks import Networks
from gan_jax.runtime import sharding
from gan_jax.runtime.array_cache import Arrays
from gan_jax.runtime.progress import progress_bar

BATCH = 128  # samples that go through the networks at a time, at the most


class EvaluationError(ConfigError):
  """What is asked for cannot be scored; the message names flag and remedy."""


def _parzen(
  real: Any, fake: Any, *, seed: int = 0, validation: Any
) -> dict[str, float]:
  """Parzen-window log-likelihood of real images (`metrics.parzen`)."""
  del seed
  sets = (np.asarray(x, np.float32) / 255 for x in (fake, validation, real))
  return parzen.parzen(*sets)


# Metrics that take a further set of real images.
PROTOCOLS: dict[str, Metric] = {
  'parzen': Metric(
    _parzen,
    'images',
    True,
    2,
    {'parzen': 'higher', 'parzen_error': '', 'parzen_sigma': ''},
  ),
}
KNOWN: dict[str, Metric] = {**METRICS, **PROTOCOLS}


def parse_metrics(text: str) -> tuple[str, ...]:
  """The metrics of a comma-separated flag.

  Raises:
    EvaluationError: for none, for one that is unknown or there twice.
  """
  words = tuple(word.strip() for word in text.split(',') if word.strip())
  if not words:
    raise EvaluationError(f'--metrics=: name some of {", ".join(KNOWN)}')
  for word in words:
    if word not in KNOWN:
      near = difflib.get_close_matches(word, KNOWN, n=2)
      hint = f'did you mean {" or ".join(near)}?'
      hint = hint if near else f'use some of {", ".join(KNOWN)}'
      raise EvaluationError(f'--metrics={text}: {word} is unknown; {hint}')
    if words.count(word) > 1:
      raise EvaluationError(f'--metrics={text}: {word} is there twice')
  return words


class View:
  """Samples as metrics see them: one compiled program, batch after batch."""

  def __init__(
    self, kinds: set[str], network: Any, mesh: Mesh, batch: int
  ) -> None:
    """`kinds` are what metrics see; `network` the features, or None."""
    self._kinds, self._network, self._batch = kinds, network, batch
    shard, whole = sharding.batch_sharder(mesh), sharding.replicated(mesh)

    wanted = tuple(sorted(kinds & {'features', 'probabilities'}))

    def see(weights: Any, x: Any) -> dict[str, Any]:
      if network is None:  # points
        return {name: shard(x) for name in wanted}
      found: dict[str, Any] = network.see(weights, shard(x), wanted)
      return found

    weights = () if network is None else network.weights
    self._weights = jax.device_put(weights, whole)
    self._see = jax.jit(see, out_shardings=whole)

  def __call__(self, batches: Iterable[Any], count: int, text: str) -> Arrays:
    """What is seen of `count` samples.

    Args:
      batches: arrays of the batch's size, the last one padded.
      count: samples without the padding.
      text: says what is going on, on a terminal.
    """
    parts: dict[str, list[NDArray[Any]]] = {}
    coming: collections.deque[tuple[dict[str, Any], int]] = collections.deque()
    # An accelerator computes a batch while the one before is fetched; several
    # CPU devices in one process hang unless each is waited for.
    ahead = 0 if jax.default_backend() == 'cpu' else 1

    def fetch() -> None:
      found, rows = coming.popleft()
      for name, y in found.items():
        parts.setdefault(name, []).append(np.asarray(y)[:rows])

    total = -(-count // self._batch)
    for i, x in enumerate(progress_bar(batches, total, text)):
      rows = min(self._batch, count - i * self._batch)
      found = dict(self._see(self._weights, x))
      if self._kinds & {'images', 'points'}:
        found['images' if x.ndim == 4 else 'points'] = x
      coming.append((found, rows))
      if len(coming) > ahead:
        fetch()
    while coming:
      fetch()
    return {name: np.concatenate(ys) for name, ys in parts.items()}


def batched(x: NDArray[Any], batch: int) -> Iterable[NDArray[Any]]:
  """An array in batches of one size, the last one padded with zeros."""
  for start in range(0, len(x), batch):
    part = x[start : start + batch]
    if len(part) < batch:
      room = np.zeros((batch, *x.shape[1:]), x.dtype)
      room[: len(part)] = part
      part = room
    yield part


def make_generate(
  networks: Networks, bounded: bool, batch: int, mesh: Mesh
) -> Callable[..., Any]:
  """`(params, stats, key, start) -> (samples, finite)`, one batch, compiled.

  Sample number n comes from the noise of `fold_in(key, n)` and, where the
  networks know classes, from class n mod classes. Images are uint8, clipped to
  the fixed range of G's output; `finite` (batch,) tells of what G said before.
  """
  shard, whole = sharding.batch_sharder(mesh), sharding.replicated(mesh)

  def generate(params: Any, stats: Any, key: Any, start: Any) -> Any:
    number = start + jnp.arange(batch)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, number)
    z = jax.vmap(lambda k: networks.sample_latent(k, 1)[0])(keys)
    label = number % networks.classes if networks.classes else None
    x, _ = networks.generator.apply(
      params, stats, shard(z), train=False, label=label
    )
    ok = jnp.isfinite(x).reshape(batch, -1).all(axis=1)
    if bounded:
      x = jnp.clip(jnp.rint((x + 1) * 127.5), 0, 255)
      x = jnp.where(jnp.isfinite(x), x, 0).astype(jnp.uint8)
    return x, ok

  return jax.jit(generate, out_shardings=(whole, whole))


def _fitted(name: str, dataset: Dataset) -> Metric:
  """A metric as it is for the samples of a dataset.

  Raises:
    EvaluationError: if there is nothing for it to see.
  """
  metric, density = KNOWN[name], isinstance(dataset, Density)
  if density and metric.sees in ('images', 'probabilities'):
    raise EvaluationError(
      f'--metrics={name}: is for images, and {dataset.name} is a density; use'
      f' {", ".join(_of("points", "features"))}'
    )
  if name == 'modes' and not density and dataset.classes:
    scores = {n: b for n, b in metric.scores.items() if n != 'high_quality'}
    return Metric(_classes(dataset), 'probabilities', False, 1, scores)
  if metric.sees == 'points' and not density:
    what = 'images without classes' if name == 'modes' else 'images'
    raise EvaluationError(
      f'--metrics={name}: is for densities of known truth, and {dataset.name}'
      f' is a set of {what}; use {", ".join(_of("features", "images"))}'
    )
  return metric


def _classes(dataset: Any) -> Callable[..., dict[str, float]]:
  """Modes by class: how often each is generated, held against the data."""

  def compute(real: Any, fake: Any, *, seed: int = 0) -> dict[str, float]:
    del real, seed
    classes = len(dataset.classes)
    if fake.shape[1] != classes:
      raise SetupError(
        f'the features know {fake.shape[1]} classes and {dataset.name} has'
        f' {classes}: use a classifier of that set'
      )
    expected = np.bincount(dataset.labels(), minlength=classes)
    return modes.class_modes(fake.argmax(axis=1), classes, expected=expected)

  return compute


def _of(*kinds: str) -> list[str]:
  return [name for name, metric in METRICS.items() if metric.sees in kinds]


class Evaluator:
  """Scores generators against a dataset; compiled once.

  Attributes:
    protocol: all that a score depends on besides the generator and the seed.
    metrics: their names.
    names: of each, the scores that it gives.
    first: of each, the name of the first score that it gives.
    unscored: of those that could not score what `score` was last given, why.
  """

  def __init__(
    self,
    dataset: Dataset,
    networks: Networks | None,
    metrics: Sequence[str],
    *,
    samples: int,
    features: str = '',
    weights: str = '',
    data_dir: str = '',
    real_samples: int = 0,
    mesh: Mesh | None = None,
    batch: int = 0,
    **known: ImageSet,
  ) -> None:
    """Loads the features and sees the real samples, or finds them kept.

    Args:
      dataset: what is scored against.
      networks: of the generators; None where only arrays are scored.
      metrics: keys of `METRICS`.
      samples: generated samples of one score.
      features: what features are taken of images: a spec of `features.load`.
      weights: file of their weights.
      data_dir: the data root, under which what is seen of real samples is kept.
      real_samples: 0 for as many as are generated, or all that there are.
      mesh: the devices; all of them by default.
      batch: samples at a time; 0 for `BATCH`, or on a CPU what the features
        ask for, if that is less. No score depends on it.
      **known: further sets of images, which those of `PROTOCOLS` take.

    Raises:
      EvaluationError: for what cannot be scored; names flag and remedy.
    """
    self.dataset, self.networks = dataset, networks
    self.metrics = tuple(metrics)
    self.unscored: dict[str, str] = {}
    self._known, self.samples = known, samples
    self.mesh = sharding.make_mesh() if mesh is None else mesh
    names = parse_metrics(','.join(metrics))
    self._plan = {name: _fitted(name, dataset) for name in names}
    self.names = {n: self._names(m) for n, m in self._plan.items()}
    self.first = {name: scores[0] for name, scores in self.names.items()}
    self._kinds = {metric.sees for metric in self._plan.values()}
    self.real = self._count_real(real_samples)
    for name, metric in self._plan.items():
      self._check_minimum(name, metric)
    self.features = self._load_features(features, weights, data_dir)
    self._batch = self._rows(batch)
    self._view = View(self._kinds, self.features, self.mesh, self._batch)
    self._folder = data_root(data_dir) / references.FOLDER
    self.protocol = self._protocol()

  def _names(self, metric: Metric) -> list[str]:
    found: list[str] = []
    for name in metric.scores:
      if name.endswith('*'):
        levels = swd.sides(*self.dataset.shape[:2])
        found += [f'{name[:-1]}{side}' for side in levels]
      else:
        found.append(name)
    return found

  def _rows(self, batch: int) -> int:
    rows, devices = batch or BATCH, self.mesh.size
    if not batch and self.features and jax.default_backend() == 'cpu':
      rows = min(rows, self.features.batch * devices)
    return -(-min(rows, self.samples) // devices) * devices

  def _count_real(self, asked: int) -> int:
    there = self.dataset.size
    if there is not None and asked > there:
      raise EvaluationError(
        f'--real_samples={asked}: {self.dataset.name} has {there}; use as many'
        ' or fewer'
      )
    return asked or min(self.samples, there or self.samples)

  def _check_minimum(self, name: str, metric: Metric) -> None:
    for flag, count in (('samples', self.samples), ('real_samples', self.real)):
      if count < metric.minimum and (metric.reference or flag == 'samples'):
        raise EvaluationError(
          f'--{flag}={count}: {name} takes {metric.minimum} or more'
        )

  def _load_features(self, spec: str, weights: str, data_dir: str) -> Any:
    wanted = self._kinds & {'features', 'probabilities'}
    if isinstance(self.dataset, Density):
      if spec or weights:
        raise EvaluationError(
          f'--features={spec}: {self.dataset.name} is a density, whose points'
          ' are seen as they are; leave it out'
        )
      return None
    if not wanted:
      return None
    names = [n for n, m in self._plan.items() if m.sees in wanted]
    if not spec:
      raise EvaluationError(
        f'--features=: say what {", ".join(names)} is to see of an image: '
        + ', '.join(feature_networks.FEATURES)
      )
    network = feature_networks.load(
      spec,
      weights=weights,
      image_shape=self.dataset.shape,
      data_dir=data_dir,
      dataset=parsed(self.dataset.name)[0] if self.dataset.classes else '',
    )
    if 'probabilities' in wanted and network.probabilities is None:
      raise EvaluationError(
        f'--features={spec}: has no classes, whose probabilities'
        f' {", ".join(_of("probabilities"))} needs; use a classifier'
      )
    return network

  @property
  def caution(self) -> str:
    """What is to be said of the Fréchet distance of so few; mostly ''."""
    if 'fid' not in self._plan:
      return ''
    dim = self.dataset.shape[0] if self.features is None else self.features.dim
    return frechet.caution(min(self.samples, self.real), dim)

  def _protocol(self) -> dict[str, Any]:
    network = self.features
    told: dict[str, Any] = {
      'metrics': list(self.metrics),
      'samples': self.samples,
      'real_samples': self.real,
      'reference': self.dataset.name,
      'reference_shape': list(self.dataset.shape),
      'reference_fingerprint': self.dataset.fingerprint,
      'features': 'points' if isinstance(self.dataset, Density) else '',
    }
    if network is not None:
      told['features'] = network.name
      told['features_digest'] = network.digest
      told['features_protocol'] = dict(network.protocol)
    for name, images in self._known.items():
      told[name] = images.name
      told[f'{name}_samples'] = images.size
      told[f'{name}_fingerprint'] = images.fingerprint
    if self.dataset.bounded:
      told['range'] = 'uint8 of [-1, 1], rounded and clipped'
    return told

  @functools.cached_property
  def reference(self) -> Arrays:
    """The real samples as the metrics see them."""
    if not any(metric.reference for metric in self._plan.values()):
      return {}
    if isinstance(self.dataset, Density):
      x = references.points(self.dataset, self.real)
      return {'points': x, 'features': x}
    found: Arrays = {}
    if 'images' in self._kinds:
      found['images'] = references.pixels(self.dataset, self.real)
    wanted = self._kinds & {'features', 'probabilities'}
    if wanted:
      facts = {
        'of': self.dataset.fingerprint,
        'features': self.features.digest,
        'count': self.real,
        'kinds': sorted(wanted),
      }
      found |= references.kept(self._folder, facts, self._see_real)
    return found

  def _see_real(self) -> Arrays:
    x = references.pixels(self.dataset, self.real)
    seen = self.view(x, f'{self.features.name} of {self.dataset.name}')
    return {k: seen[k] for k in seen if k in ('features', 'probabilities')}

  def view(self, x: NDArray[Any], text: str = 'looking at samples') -> Arrays:
    """What the metrics see of samples (n, *shape)."""
    return self._view(batched(x, self._batch), len(x), text)

  @functools.cached_property
  def generate(self) -> Any:
    """The compiled `make_generate` of its networks."""
    if self.networks is None:
      raise EvaluationError('there are no networks to draw samples from')
    return make_generate(
      self.networks, self.dataset.bounded, self._batch, self.mesh
    )

  def draw(self, params: Any, stats: Any, seed: int = 0) -> tuple[Arrays, bool]:
    """What the metrics see of a generator's samples, and whether all finite."""
    key, fine = jax.random.key(seed), [True]
    params, stats = jax.device_put(
      (params, stats), sharding.replicated(self.mesh)
    )

    def batches() -> Iterable[Any]:
      for start in range(0, self.samples, self._batch):
        x, ok = self.generate(params, stats, key, np.int32(start))
        rows = min(self._batch, self.samples - start)
        fine[0] &= bool(np.asarray(ok)[:rows].all())
        yield x

    return self._view(batches(), self.samples, f'scoring, seed {seed}'), fine[0]

  def score(
    self, params: Any, stats: Any, *, seed: int = 0
  ) -> dict[str, float]:
    """Scores of one generator.

    Args:
      params: of the generator, live or averaged.
      stats: its running statistics.
      seed: of noise and of whatever a metric draws.

    Returns:
      Plain floats by name, always of the same names: NaN, all of them, if a
      sample was not finite, and those of a metric that cannot score such
      samples. `unscored` then says why.

    Raises:
      EvaluationError: for what no generator could be scored with.
    """
    seen, fine = self.draw(params, stats, seed)
    if fine:
      return self._compare(seen, seed)
    why = 'generated samples are not finite'
    self.unscored = dict.fromkeys(self.metrics, why)
    return {n: float('nan') for names in self.names.values() for n in names}

  def score_samples(self, x: Any, *, seed: int = 0) -> dict[str, float]:
    """Scores of samples (n, *shape), uint8 images or float points."""
    return self.compare(self.view(np.asarray(x)), seed=seed)

  def compare(
    self, seen: Mapping[str, Any], *, seed: int = 0
  ) -> dict[str, float]:
    """Scores of samples as `view` and `draw` give them.

    Raises:
      EvaluationError: if a metric cannot score them.
    """
    found = self._compare(seen, seed)
    for name, why in self.unscored.items():
      raise EvaluationError(f'--metrics={name}: {why}')
    return found

  def _compare(self, seen: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Scores; NaN, and why, where samples have none."""
    found: dict[str, float] = {}
    self.unscored = {}
    for name, metric in self._plan.items():
      real = self.reference[metric.sees] if metric.reference else None
      extra: dict[str, Any] = {'truth': self.dataset} if metric.truth else {}
      if name in PROTOCOLS:
        extra |= {key: images.array() for key, images in self._known.items()}
      try:
        scores = metric.compute(real, seen[metric.sees], seed=seed, **extra)
      except SetupError as error:
        raise EvaluationError(f'--metrics={name}: {error}') from error
      except ValueError as error:
        self.unscored[name] = str(error)
        scores = dict.fromkeys(self.names[name], float('nan'))
      found |= {key: float(value) for key, value in scores.items()}
    return found
