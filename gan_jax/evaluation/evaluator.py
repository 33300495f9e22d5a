"""Scores of a generator, under a protocol that is written down with them.

An `Evaluator` is made once, compiles once, and scores any parameters of its
networks: the command, the trainer and the ablation use the same one. Samples
are a function of a seed and their number: neither the batch nor the number of
devices has a say in which noise is drawn.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array
from numpy.typing import NDArray

from gan_jax import features as feature_networks
from gan_jax.data import Dataset, Density, data_root, parse_name
from gan_jax.evaluation import references
from gan_jax.evaluation.score_file import name_score
from gan_jax.features import FeaturePass, Features, batched
from gan_jax.game.classes import check_sampling, describe_sampling
from gan_jax.game.sampler import Sampler
from gan_jax.metrics import METRICS, Metric, frechet, select_metrics
from gan_jax.networks.base import Networks, Params, Stats
from gan_jax.runtime import backend, numerics, sharding
from gan_jax.runtime.array_cache import Arrays
from gan_jax.runtime.errors import ArgumentError

BATCH = 128  # samples that go through the networks at a time, at the most
FEATURE_KINDS = {'features', 'probabilities'}  # what takes a feature network


class Evaluator:
  """Scores generators against a dataset, under one protocol.

  Scores have public names: `fid` is that of Inception's 2048 features, others
  bear the name of the features, as in `fid@pixels`.

  Attributes:
    dataset: what is scored against.
    networks: of the generators; None where only samples are scored.
    metrics: the `Metric`s.
    samples: generated samples of one score.
    real_samples: real samples that they are held against.
    features: the feature network; None where no metric takes one.
    mesh: the devices.
    class_sampling: how often G is asked for each class, data or uniform.
    rows: samples that go through the networks at a time.
    protocol: all that a score depends on besides the generator and the seed.
    directions: 'lower', 'higher' or '' of every score by public name; a name
      with a `*` stands for several.
    primary: public name of the first score of each metric, by the metric's.
    unscored: why metrics could not score what was scored last, by name.

  >>> from gan_jax import data
  >>> ring = data.load('ring')
  >>> evaluator = Evaluator(ring, None, ['modes'], samples=100)
  >>> evaluator.score_samples(ring.modes.astype('float32'))['modes']
  8.0
  """

  def __init__(
    self,
    dataset: Dataset,
    networks: Networks | None,
    metrics: str | Sequence[str | Metric],
    *,
    samples: int = 10_000,
    real_samples: int = 0,
    features: str | Features = '',
    weights: str = '',
    validation: Dataset | None = None,
    data_dir: str = '',
    mesh: Mesh | None = None,
    batch: int = 0,
    class_sampling: str = 'data',
  ) -> None:
    """Loads the features; real samples are read when they are needed.

    Args:
      dataset: what is scored against.
      networks: of the generators; None where only samples are scored.
      metrics: keys of `METRICS`, or `Metric`s.
      samples: generated samples of one score.
      real_samples: 0 for as many as are generated, or all that there are.
      features: what metrics see of an image: as `features.load` takes it.
      weights: file of their weights.
      validation: further real samples, for metrics that need them (`parzen`).
      data_dir: the data root, under which features of real samples are cached.
      mesh: the devices; all of them by default.
      batch: samples at a time; 0 for `BATCH`, or on a CPU what the features
        ask for, if that is less. No score depends on it.
      class_sampling: of class-conditional networks. data: as often as the
        networks say (`class_counts`), or else as `dataset` has each class.
        uniform: all classes in turn.

    Raises:
      ArgumentError: for what cannot be scored.
      DataError: if features or their weights cannot be had.
    """
    check_sampling(class_sampling)
    self.dataset, self.samples = dataset, samples
    self.class_sampling = class_sampling
    self.networks = self._sample_classes(networks)
    self.metrics = select_metrics(metrics)
    self.unscored: dict[str, str] = {}
    self.mesh = sharding.make_mesh() if mesh is None else mesh
    self._validation = validation
    self._kinds = {metric.sees for metric in self.metrics}
    self.real_samples = self._count_real(real_samples)
    for metric in self.metrics:
      self._check_metric(metric)
    self.features = self._load_features(features, weights, data_dir)
    self.rows = self._choose_rows(batch)
    for name in ('samples', 'real_samples'):
      count = getattr(self, name)
      needed = 4 * count * self._dim
      what = 'what its metrics read'
      backend.require_memory(name, count, needed, what, host=True)
    self._pass = FeaturePass(
      self.features or feature_networks.make_raw(dataset.shape),
      sorted(self._kinds & FEATURE_KINDS),
      mesh=self.mesh,
      batch=self.rows,
    )
    self._data_root = data_root(data_dir)
    self.protocol = self._make_protocol()
    self.directions = {
      self._name(metric, score): better
      for metric in self.metrics
      for score, better in metric.scores.items()
    }
    self.primary = {m.name: self._name(m, m.primary) for m in self.metrics}

  @property
  def _is_image(self) -> bool:
    return len(self.dataset.shape) == 3

  def _sample_classes(self, networks: Networks | None) -> Networks | None:
    """The networks, which know how often each class is asked for."""
    if networks is None or not networks.classes:
      return networks
    if self.class_sampling == 'uniform':
      return networks._replace(class_counts=())
    data = self.dataset
    if networks.class_counts or isinstance(data, Density):
      return networks
    if len(data.classes) != networks.classes:
      return networks
    return networks._replace(class_counts=data.class_counts)

  @property
  def _dim(self) -> int:
    """Numbers of a sample that metrics compare."""
    return self.features.dim if self.features else self.dataset.shape[0]

  def _name(self, metric: Metric, score: str) -> str:
    seen = self.features.name if self.features else 'points'
    return name_score(score, seen if metric.sees in FEATURE_KINDS else '')

  def _count_real(self, asked: int) -> int:
    size = self.dataset.size
    if size is not None and asked > size:
      remedy = f'{self.dataset.name} has {size}; use as many or fewer'
      raise ArgumentError('real_samples', asked, remedy)
    return asked or min(self.samples, size or self.samples)

  def _check_metric(self, metric: Metric) -> None:
    """Checks that a metric finds what it sees and needs.

    Raises:
      ArgumentError: if there is nothing for it to see, or too little.
    """
    name, data = metric.name, self.dataset
    fault = functools.partial(ArgumentError, 'metrics', name)
    if self._is_image and metric.sees == 'points':
      of = 'is for points' + ' of a known density' * ('truth' in metric.needs)
      remedy = f'{of}, and {data.name} is a set of images'
      raise fault(f'{remedy}; use {_names("features", "images")}')
    if not self._is_image and metric.sees in ('images', 'probabilities'):
      remedy = f'is for images, and {data.name} has points'
      raise fault(f'{remedy}; use {_names("points", "features")}')
    if 'truth' in metric.needs and not isinstance(data, Density):
      raise fault(f'is for known densities, and {data.name} is none')
    if 'labels' in metric.needs and not data.classes:
      raise fault(f'needs classes, and {data.name} has none')
    if 'validation' in metric.needs and self._validation is None:
      remedy = f'name the real samples that {name} takes its setting from'
      raise ArgumentError('validation', '', f'{remedy}: mnist[50000:51000]')
    for argument, count in (
      ('samples', self.samples),
      ('real_samples', self.real_samples),
    ):
      if count < metric.minimum and (
        metric.reads_real or argument == 'samples'
      ):
        remedy = f'{name} takes {metric.minimum} or more'
        raise ArgumentError(argument, count, remedy)

  def _load_features(
    self, features: str | Features, weights: str, data_dir: str
  ) -> Features | None:
    names = [m.name for m in self.metrics if m.sees in FEATURE_KINDS]
    if not self._is_image:
      if features or weights:
        remedy = f'points of {self.dataset.name} are seen as they are'
        name = features if isinstance(features, str) else features.name
        argument = 'features' if name else 'weights'
        remedy = f'{remedy}; leave it out'
        raise ArgumentError(argument, name or weights, remedy)
      return None
    if not names:
      return None
    if not features:
      kinds = ', '.join(feature_networks.FEATURES)
      remedy = f'say what {", ".join(names)} sees of an image: {kinds}'
      raise ArgumentError('features', '', remedy)
    classes = len(self.dataset.classes)
    network = features
    if isinstance(network, str):
      network = feature_networks.load(
        network,
        weights=weights,
        sample_shape=self.dataset.shape,
        data_dir=data_dir,
        dataset=parse_name(self.dataset.name)[0] if classes else '',
      )
    needs = {name for metric in self.metrics for name in metric.needs}
    if 'labels' in needs and network.classes not in (0, classes):
      remedy = f'knows {network.classes} classes and {self.dataset.name} has'
      remedy = f'{remedy} {classes}; use a classifier of that set'
      raise ArgumentError('features', network.name, remedy)
    return network

  def _choose_rows(self, batch: int) -> int:
    rows, devices = batch or BATCH, self.mesh.size
    if not batch and self.features and jax.default_backend() == 'cpu':
      rows = min(rows, self.features.batch * devices)
    return -(-min(rows, self.samples) // devices) * devices

  @property
  def caution(self) -> str:
    """The warning about a Fréchet distance of so few samples; mostly ''."""
    if 'fid' not in self.primary:
      return ''
    return frechet.describe_bias(
      min(self.samples, self.real_samples), self._dim
    )

  def remarks(self, scores: Mapping[str, Any]) -> list[str]:
    """What a reader of scores, by public name, should know of them."""
    remarks = []
    for metric in self.metrics:
      names = {s: self._name(metric, s) for s in metric.scores}
      if metric.remark and all(name in scores for name in names.values()):
        remarks.append(metric.remark({s: scores[n] for s, n in names.items()}))
    return [remark for remark in remarks if remark]

  def _make_protocol(self) -> dict[str, Any]:
    data, network = self.dataset, self.features
    protocol: dict[str, Any] = {
      'metrics': {metric.name: metric.version for metric in self.metrics},
      'samples': self.samples,
      'real_samples': self.real_samples,
      'reference': data.name,
      'reference_shape': list(data.shape),
      'reference_fingerprint': data.fingerprint,
      'features': '' if self._is_image else 'points',
    }
    if network is not None:
      protocol['features'] = network.name
      protocol['features_digest'] = network.digest
      protocol['features_protocol'] = dict(network.protocol)
    if any('validation' in m.needs for m in self.metrics):
      assert self._validation is not None
      protocol['validation'] = self._validation.name
      protocol['validation_samples'] = self._validation.size
      protocol['validation_fingerprint'] = self._validation.fingerprint
    if self.networks is not None:
      protocol |= describe_sampling(
        self.networks.classes, self.networks.class_counts
      )
    if self._is_image:
      protocol['range'] = 'uint8 of [-1, 1], rounded and clipped'
    if numerics.changed():
      protocol['numerics'] = numerics.changed()
    return protocol

  # Samples as the metrics see them.

  @functools.cached_property
  def reference(self) -> Arrays:
    """The real samples as the metrics see them."""
    kinds = {m.sees for m in self.metrics if m.reads_real}
    if not kinds & FEATURE_KINDS or self.features is None:
      return self._see_real(self.dataset, self.real_samples) if kinds else {}
    outputs = sorted(kinds & FEATURE_KINDS)
    facts = {
      'of': self.dataset.fingerprint,
      'features': self.features.digest,
      'count': self.real_samples,
      'kinds': outputs,
    }

    def make() -> Arrays:
      seen = self._see_real(self.dataset, self.real_samples)
      return {kind: seen[kind] for kind in outputs}

    seen = references.cached_features(self._data_root, facts, make)
    if 'images' in kinds:
      x = references.read_samples(self.dataset, self.real_samples)
      seen = {**seen, 'images': x}
    return seen

  def _see_real(self, dataset: Dataset, count: int) -> Arrays:
    x = references.read_samples(dataset, count)
    return self.view(x, f'looking at {dataset.name}')

  def view(self, x: NDArray[Any], text: str = 'looking at samples') -> Arrays:
    """What the metrics see of samples: uint8 images or float32 points."""
    return self._view(batched(x, self._pass.rows), len(x), text)

  def _view(
    self, batches: Iterable[NDArray[Any] | Array], count: int, text: str
  ) -> Arrays:
    kind = 'images' if self._is_image else 'points'
    seen = self._pass(batches, count, text=text, samples=kind in self._kinds)
    samples = {kind: seen.pop('samples')} if 'samples' in seen else {}
    return {**seen, **samples}

  @functools.cached_property
  def _sampler(self) -> Sampler:
    if self.networks is None:
      raise ArgumentError('networks', None, 'needed to draw samples')
    return Sampler(self.networks, self.mesh, self.rows)

  def draw(
    self, params: Params, stats: Stats, seed: int = 0
  ) -> Iterator[Array]:
    """Batches of a generator's samples, float32; images in [-1, 1].

    Args:
      params: of the generator, live or averaged.
      stats: its running statistics.
      seed: of the noise.
    """
    params, stats = jax.device_put(
      (params, stats), sharding.replicated(self.mesh)
    )
    for start in range(0, self.samples, self.rows):
      key, first = jax.random.key(seed), np.int32(start)
      yield self._sampler.numbered(params, stats, key, first, self.rows)

  # Scores.

  def score(
    self, params: Params, stats: Stats, *, seed: int = 0
  ) -> dict[str, float]:
    """Scores of one generator.

    Args:
      params: of the generator, live or averaged.
      stats: its running statistics.
      seed: of noise and of whatever a metric draws.

    Returns:
      Plain floats by public name. NaN, all of them, if a sample was not finite,
      and those of a metric that cannot score such samples: `unscored` then says
      why.

    Raises:
      ArgumentError: for what no generator could be scored with.
    """
    return self.score_batches(self.draw(params, stats, seed), seed=seed)

  def score_batches(
    self, batches: Iterable[Array | NDArray[Any]], *, seed: int = 0
  ) -> dict[str, float]:
    """As `score`, of samples that a generator has made.

    Args:
      batches: float32, of `rows` samples each, `samples` in all; images in
        [-1, 1].
      seed: of whatever a metric draws.
    """
    finite = [True]

    def quantized() -> Iterator[Array]:
      for i, batch in enumerate(batches):
        x, is_finite = _quantize(jnp.asarray(batch))
        rows = min(self.rows, self.samples - i * self.rows)
        finite[0] &= bool(np.asarray(is_finite)[:rows].all())
        yield x

    seen = self._view(quantized(), self.samples, f'scoring, seed {seed}')
    if finite[0]:
      return self._compare(seen, seed)
    reason = 'generated samples are not finite'
    self.unscored = {metric.name: reason for metric in self.metrics}
    return {n: float('nan') for n in self.directions if '*' not in n}

  def score_samples(
    self, x: NDArray[Any] | Arrays, *, seed: int = 0
  ) -> dict[str, float]:
    """Scores of samples.

    Args:
      x: uint8 images or float32 points, (n, *shape), or what `view` made of
        them.
      seed: of whatever a metric draws.

    Raises:
      ArgumentError: if a metric cannot score them.
    """
    seen = x if isinstance(x, Mapping) else self.view(np.asarray(x))
    scores = self._compare(seen, seed)
    for name, reason in self.unscored.items():
      raise ArgumentError('metrics', name, reason)
    return scores

  def _compare(self, seen: Arrays, seed: int) -> dict[str, float]:
    """Scores; NaN, and why, where samples have none."""
    scores: dict[str, float] = {}
    self.unscored = {}
    for metric in self.metrics:
      values = self._compute(metric, seen[metric.sees], seed)
      named = {self._name(metric, k): float(v) for k, v in values.items()}
      scores |= named
    return scores

  def _compute(
    self, metric: Metric, fake: NDArray[Any], seed: int
  ) -> Mapping[str, float]:
    """Scores of one metric; NaN where the generated samples have none.

    Raises:
      ArgumentError: where something else is at fault.
    """
    real = self.reference[metric.sees] if metric.reads_real else None
    needs = {name: self._provide(name, metric) for name in metric.needs}
    try:
      return metric.compute(real, fake, seed=seed, **needs)
    except ArgumentError as error:
      if error.argument != 'fake':
        raise ArgumentError('metrics', metric.name, str(error)) from error
      self.unscored[metric.name] = str(error)
    except ValueError as error:
      self.unscored[metric.name] = str(error)
    return {n: float('nan') for n in metric.scores if '*' not in n}

  def _provide(self, need: str, metric: Metric) -> Any:
    """What a metric takes besides the samples."""
    if need == 'validation':
      return self._validation_seen[metric.sees]
    if need == 'labels':
      assert not isinstance(self.dataset, Density)
      return self.dataset.labels()
    return {'truth': self.dataset, 'protocol': self.protocol}[need]

  @functools.cached_property
  def _validation_seen(self) -> Arrays:
    assert self._validation is not None
    size = self._validation.size or self.real_samples
    return self._see_real(self._validation, size)


@jax.jit
def _quantize(x: Array) -> tuple[Array, Array]:
  """Samples as metrics see them, and which of them are finite.

  Images in [-1, 1] become uint8, by a fixed range: stretched to their own
  extremes, those of a generator that does not use its range would score as
  others.
  """
  finite = jnp.isfinite(x).reshape(x.shape[0], -1).all(axis=1)
  if x.ndim == 4:
    x = jnp.clip(jnp.rint((x + 1) * 127.5), 0, 255)
    x = jnp.where(jnp.isfinite(x), x, 0).astype(jnp.uint8)
  return x, finite


def _names(*kinds: str) -> str:
  """The metrics that see these, for messages."""
  return ', '.join(name for name, m in METRICS.items() if m.sees in kinds)
