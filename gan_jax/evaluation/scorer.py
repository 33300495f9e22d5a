"""Scores as rows of `metrics.jsonl`: of a generator's moments, or of samples.

`Scorer` scores under one protocol and nothing twice; `evaluate_images` makes
one for a folder, an .npz or a split of a dataset, and `evaluate` scores such
samples without a file. Runs are the matter of `training/score_checkpoints.py`.
"""

import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from gan_jax.config.app import warn
from gan_jax.data import Dataset
from gan_jax.evaluation import sources
from gan_jax.evaluation.evaluator import FEATURE_KINDS, Evaluator
from gan_jax.evaluation.score_file import (
  Row,
  ScoreFile,
  format_row,
  mean_of_seeds,
  summarize_seeds,
)
from gan_jax.evaluation.sources import Samples, describe
from gan_jax.features import Features
from gan_jax.game import streams
from gan_jax.game.classes import check_sampling
from gan_jax.metrics import Metric, select_metrics
from gan_jax.networks.base import Networks, Params, Stats
from gan_jax.runtime import backend, checkpoint, multihost, provenance, sharding
from gan_jax.runtime.array_cache import digest_facts
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.quiet import quiet_libraries

SAMPLES = 10_000  # of a generator, unless it is said

# What can be said of a generator alone, not of samples at hand.
_OF_A_GENERATOR = {'ema', 'neighbours', 'class_sampling'}


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
  """What scores are asked for.

  Attributes:
    metrics: names and `Metric`s; or names, separated by commas.
    features: what metrics see of an image, as `features.load` takes it.
    weights: file of their weights.
    samples: generated samples of a score; 0 for 10,000, or all of a set.
    real_samples: 0 for as many as are generated, or all that there are.
    eval_seeds: draws of noise that scores are means of.
    seed: the first of these seeds.
    data_dir: the data root.
    devices: how many; 0 for all.
    against: what samples are held against; by default a run's dataset.
    validation: further real images, for metrics that need them.
    ema: of a run, whether its averaged generator; None: if there is one.
    neighbours: samples of a run shown beside their nearest training images.
    class_sampling: how often G is asked for each class: data, as often as the
      training data has it, or uniform; empty: as a run was trained, or data.
  """

  metrics: str | Sequence[str | Metric] = ''
  features: str | Features = ''
  weights: str = ''
  samples: int = 0
  real_samples: int = 0
  eval_seeds: int = 1
  seed: int = 0
  data_dir: str = ''
  devices: int = 0
  against: str = ''
  validation: str = ''
  ema: bool | None = None
  neighbours: int = 0
  class_sampling: str = ''

  def check(self) -> None:
    """Checks the numbers.

    Raises:
      ArgumentError: for one that no evaluation could have.
    """
    for name, least in (
      ('samples', 0),
      ('real_samples', 0),
      ('eval_seeds', 1),
      ('seed', 0),
      ('neighbours', 0),
    ):
      if getattr(self, name) < least:
        raise ArgumentError(name, getattr(self, name), f'use {least} or more')
    if self.class_sampling:
      check_sampling(self.class_sampling)
    streams.check_seed('seed', self.seed, self.eval_seeds)

  @property
  def seeds(self) -> list[int]:
    """Evaluation seeds."""
    return list(range(self.seed, self.seed + self.eval_seeds))


# What sets are called: they are known by their fingerprints.
_NAMES = ('reference', 'validation')


def hash_protocol(protocol: Mapping[str, Any]) -> str:
  """What two scores must share to be compared."""
  facts = {k: v for k, v in protocol.items() if k not in _NAMES}
  return digest_facts(facts)[:16]


class Scorer:
  """Scores moments of one run, or sets of samples, under one protocol.

  Attributes:
    evaluator: that scores.
    file: that rows are written to.
    seeds: evaluation seeds.
  """

  def __init__(
    self, evaluator: Evaluator, file: ScoreFile, seeds: Sequence[int] = (0,)
  ) -> None:
    """Scores nothing yet."""
    self.evaluator, self.file, self.seeds = evaluator, file, list(seeds)

  def protocol(self, **source: Any) -> dict[str, Any]:
    """The whole protocol; `source` says where the samples come from."""
    return {
      **self.evaluator.protocol,
      'evaluation_seeds': self.seeds,
      **source,
    }

  def generator_protocol(self, ema: bool) -> dict[str, Any]:
    """The whole protocol of a generator's score."""
    return self.protocol(source='generator', ema=ema)

  def score_generator(
    self, step: int, params: Params, stats: Stats, ema: bool
  ) -> tuple[Row, bool]:
    """The row of a generator, and whether it was scored now."""

    def score(seed: int) -> dict[str, float]:
      return self.evaluator.score(params, stats, seed=seed)

    model = _hash_model(params, stats)
    return self.score_moment(step, model, self.generator_protocol(ema), score)

  def is_scored(
    self, step: int, params: Params, stats: Stats, ema: bool
  ) -> bool:
    """Whether the file has the row of a generator."""
    key = hash_protocol(self.generator_protocol(ema))
    row = self.file.find(step, key, _hash_model(params, stats))
    return multihost.broadcast_flag(row is not None)

  def score_samples(self, x: NDArray[Any], name: str) -> tuple[Row, bool]:
    """The row of samples (n, *shape), and whether they were scored now."""
    model = hashlib.sha256(np.ascontiguousarray(x).data).hexdigest()[:32]
    seen: dict[str, Any] = {}

    def score(seed: int) -> dict[str, float]:
      if not seen:
        seen.update(self.evaluator.view(x))
      return self.evaluator.score_samples(seen, seed=seed)

    return self.score_moment(None, model, self.protocol(source=name), score)

  def score_moment(
    self,
    step: int | None,
    model: str,
    protocol: Mapping[str, Any],
    score: Callable[[int], Mapping[str, float]],
  ) -> tuple[Row, bool]:
    """A row, and whether it was scored now.

    Args:
      step: of the run; None for samples that are no run's.
      model: hash of the generator, or of the samples.
      protocol: all that the scores depend on besides.
      score: scores of an evaluation seed, by public name.
    """
    key = hash_protocol(protocol)
    row = self.file.find(step, key, model)
    if multihost.broadcast_flag(row is not None):
      return (row or {}), False
    started = time.perf_counter()
    by_seed, unscored = [], dict[str, str]()
    for seed in self.seeds:
      by_seed.append(score(seed))
      unscored |= self.evaluator.unscored
    row = {
      'step': step,
      **summarize_seeds(by_seed),
      'primary': self.evaluator.primary,
      'key': key,
      'model': model,
      'protocol': dict(protocol),
      'versions': provenance.versions(),
      'devices': [str(d.device_kind) for d in jax.devices()],
      'scored': provenance.now(),
      'score_sec': round(time.perf_counter() - started, 3),
    }
    if unscored:
      row['unscored'] = unscored
    if multihost.is_primary():
      for metric, reason in unscored.items():
        moment = '' if step is None else f'step {step}: '
        warn(f'{moment}{metric} is not finite: {reason}')
      for remark in self.evaluator.remarks(row):
        warn(remark if step is None else f'step {step}: {remark}')
      row = self.file.add(row)
    return row, True


def _hash_model(params: Params, stats: Stats) -> str:
  return checkpoint.digest(checkpoint.to_host((params, stats)))


def make_evaluator(
  options: EvaluationOptions,
  dataset: Dataset,
  networks: Networks | None,
  *,
  validation: Dataset | None = None,
  mesh: Mesh | None = None,
  batch: int = 0,
) -> Evaluator:
  """The evaluator of some options; warns of too few samples."""
  evaluator = Evaluator(
    dataset,
    networks,
    options.metrics,
    samples=options.samples or SAMPLES,
    real_samples=options.real_samples,
    features=options.features,
    weights=options.weights,
    validation=validation,
    data_dir=options.data_dir,
    mesh=sharding.make_mesh(options.devices) if mesh is None else mesh,
    batch=batch,
    class_sampling=options.class_sampling or 'data',
  )
  if evaluator.caution and multihost.is_primary():
    warn(evaluator.caution)
  return evaluator


def check_validation(options: EvaluationOptions) -> bool:
  """Whether a metric needs further real images.

  Raises:
    ArgumentError: if some are given and no metric reads them.
  """
  metrics = select_metrics(options.metrics)
  needed = any('validation' in metric.needs for metric in metrics)
  if options.validation and not needed:
    names = ', '.join(metric.name for metric in metrics)
    remedy = f'none of {names} reads it; leave it out'
    raise ArgumentError('validation', options.validation, remedy)
  return needed


def check_reads(options: EvaluationOptions) -> None:
  """Refuses what no metric reads.

  Raises:
    ArgumentError: for features or weights that are given where none compares
      features, and for real samples where none reads any.
  """
  metrics = select_metrics(options.metrics)
  names = ', '.join(metric.name for metric in metrics)
  unread: list[str] = []
  if not any(metric.sees in FEATURE_KINDS for metric in metrics):
    unread += ['features', 'weights']
  if not any(metric.reads_real for metric in metrics):
    unread += ['against', 'real_samples']
  for name in unread:
    if getattr(options, name):
      remedy = f'has no effect: none of {names} reads it; leave it out'
      raise ArgumentError(name, getattr(options, name), remedy)


def _check_out(out: pathlib.Path) -> None:
  """Refuses a place that takes no file, before anything is scored."""
  remedy = ''
  if not out.name or out.is_dir():
    remedy = 'is a folder; name a file, such as metrics.jsonl'
  elif not out.parent.is_dir():
    remedy = f'no folder {out.parent}; make it first'
  if remedy:
    raise ArgumentError('out', str(out), remedy)


def _load_images(
  options: EvaluationOptions,
  images: str | Dataset | Samples,
  against: str | Dataset | Samples,
  validation: str | Dataset | Samples,
) -> tuple[Evaluator, Samples]:
  """What scores some samples, and the samples.

  The options name what is handed in, or say that it is an array.

  Raises:
    ArgumentError: for what cannot be scored.
    DataError: if samples cannot be had.
  """
  options.check()
  backend.check_devices()
  metrics = select_metrics(options.metrics)
  check_validation(options)
  check_reads(options)
  reads_real = any(metric.reads_real for metric in metrics)
  if reads_real and not options.against:
    remedy = 'name what the images are held against: a dataset, a folder or an'
    raise ArgumentError('against', '', f'{remedy} .npz')

  def load(value: str | Dataset | Samples, argument: str) -> Dataset:
    source = sources.load_source(value, argument, options.data_dir)
    return sources.as_dataset(source, describe(value))

  source = sources.load_source(images, 'images', options.data_dir)
  name = describe(images)
  x = sources.take_samples(source, options.samples, name)
  real = load(against if options.against else images, 'against')
  x = sources.check_samples(x, real.shape, 'images', name)
  further = load(validation, 'validation') if options.validation else None
  count = dataclasses.replace(options, samples=len(x))
  return make_evaluator(count, real, None, validation=further), x


def evaluate_images(
  options: EvaluationOptions, images: str, out: str | pathlib.Path
) -> Row:
  """Scores a folder, an .npz or a split of a dataset.

  Args:
    options: what scores.
    images: the folder, .npz or dataset.
    out: file that the row is added to.

  Raises:
    ArgumentError: for what cannot be scored.
    DataError: if samples cannot be had.
  """
  _check_out(pathlib.Path(out))
  evaluator, x = _load_images(
    options, images, options.against, options.validation
  )
  scorer = Scorer(evaluator, ScoreFile(out), options.seeds)
  row, is_new = scorer.score_samples(x, images)
  note = '' if is_new else ' (scored before)'
  print(f'{images}: {format_row(row)}{note}')
  return row


@quiet_libraries()
def evaluate(
  images: str | Dataset | Samples,
  against: str | Dataset | Samples = '',
  *,
  metrics: str | Sequence[str | Metric],
  validation: str | Dataset | Samples = '',
  seeds: int = 1,
  **options: Any,
) -> dict[str, float]:
  """Scores of samples by name: means over evaluation seeds.

  The scores of a run are those of `Run.score`.

  Args:
    images: what is scored: an array of uint8 images (n, height, width,
      channels) or float32 points (n, dim), or by name an .npz, a folder of
      images or a dataset, such as `mnist[test]`.
    against: the real samples, likewise.
    metrics: names or `Metric` objects.
    validation: further real images, for `parzen`, which picks its width on
      them.
    seeds: draws of what a metric draws.
    **options: `features` and `weights`, `samples` and `real_samples` (0: all
      that there are), `data_dir`, `seed`, `devices`.

  Raises:
    ArgumentError: for what cannot be scored.
    DataError: if samples cannot be had.

  Example:
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.integers(0, 256, (2, 64, 8, 8, 1), np.uint8)
    >>> scores = evaluate(fake, real, metrics='fid', features='pixels')
    >>> scores['fid@pixels'] > 0
    True
  """
  readable = EvaluationOptions.__dataclass_fields__.keys() - _OF_A_GENERATOR
  for name in options.keys() - readable:
    raise ArgumentError(name, options[name], 'no such option of a score')
  asked = EvaluationOptions(
    metrics=metrics,
    against=describe(against),
    validation=describe(validation),
    eval_seeds=seeds,
    **options,
  )
  evaluator, x = _load_images(asked, images, against, validation)
  seen = evaluator.view(x)
  by_seed = [evaluator.score_samples(seen, seed=seed) for seed in asked.seeds]
  return mean_of_seeds(by_seed)
