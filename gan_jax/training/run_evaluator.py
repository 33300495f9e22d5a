"""The evaluator of a run: its data, metrics and protocol, and its scores."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jax.sharding import Mesh

from gan_jax import data as data_lib
from gan_jax.config import registry
from gan_jax.config.schema import Config
from gan_jax.data import Dataset, Density, SampleSet, parse_name
from gan_jax.evaluation import sources
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.score_file import ScoreFile, mean_of_seeds
from gan_jax.evaluation.scorer import (
  EvaluationOptions,
  Scorer,
  check_reads,
  check_validation,
  make_evaluator,
)
from gan_jax.features import batched
from gan_jax.metrics import METRICS, Metric, select_metrics
from gan_jax.networks.base import Networks
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.names import split_names
from gan_jax.training.setup import OWN_DATA

if TYPE_CHECKING:
  from gan_jax.training.restore import Run


def load_metrics(
  metrics: str | Sequence[str | Metric],
) -> tuple[Metric, ...]:
  """Metrics by name, those of plug-ins and `module:attribute` among them.

  Raises:
    ArgumentError: for none, or one that is unknown or there twice.
  """
  if isinstance(metrics, str):
    metrics = split_names(metrics)

  def load(name: str | Metric) -> str | Metric:
    if isinstance(name, Metric) or name in METRICS:
      return name
    try:
      metric: Metric = registry.load('gan_jax.metrics', 'METRICS', name)
    except LookupError:
      return name  # of which `select_metrics` says what is wrong
    return metric

  return select_metrics([load(name) for name in metrics])


def _name_held_out(config: Config, size: int) -> str:
  """The first 1,000 images after those that a run was trained on.

  Raises:
    ArgumentError: if there are none.
  """
  stem, split, part = parse_name(config.dataset)
  if split:
    remedy = f'`dataset={config.dataset}` names a split, outside of which'
    raise ArgumentError(
      'validation', '', f'{remedy} nothing is known to be held out; name a set'
    )
  low, _, high = part.partition(':')
  stop = int(high or size)
  if int(low or 0) or stop >= size:
    remedy = (
      'parzen picks its width on real images that G was not trained on, and'
      f' `dataset={config.dataset}` leaves none; name a set, or train on a part'
      ' such as mnist[:50000]'
    )
    raise ArgumentError('validation', '', remedy)
  return f'{stem}[{stop}:{min(stop + 1000, size)}]'


def make_run_evaluator(
  config: Config,
  options: EvaluationOptions,
  networks: Networks | None,
  *,
  dataset: Dataset | None = None,
  mesh: Mesh | None = None,
  batch: int = 0,
) -> Evaluator:
  """The evaluator of a run's generators.

  Args:
    config: of the run.
    options: what is asked for; the run says the rest.
    networks: of the run; None where only samples are scored.
    dataset: of the run, where it is loaded already.
    mesh: the devices; by default as many as the options say.
    batch: samples at a time; 0 for a size that fits.

  Raises:
    ArgumentError: for what cannot be scored.
    DataError: if data or features cannot be had.
  """
  asked = dataclasses.replace(
    options, metrics=load_metrics(options.metrics or config.metrics)
  )
  check_reads(asked)
  options = dataclasses.replace(
    options,
    metrics=load_metrics(options.metrics or config.metrics),
    features=options.features or config.features,
    weights=options.weights or config.weights,
    data_dir=options.data_dir or config.data_dir,
    class_sampling=options.class_sampling or config.class_sampling,
  )
  options.check()
  validation = None
  reference = options.against or config.dataset
  if check_validation(options):
    if len(options.metrics) > 1:
      names = ','.join(m.name for m in load_metrics(options.metrics))
      remedy = 'parzen has sets of its own; ask for it alone'
      raise ArgumentError('metrics', names, remedy)
    stem = parse_name(config.dataset)[0]
    name = options.validation or _name_held_out(
      config, _load(config, options, stem).size or 0
    )
    given = 'validation' if options.validation else ''
    validation = _load(config, options, name, given)
    reference = options.against or f'{stem}[test]'
  if dataset is None or reference != config.dataset:
    argument = 'against' if options.against else ''
    dataset = _load(config, options, reference, argument)
  return make_evaluator(
    options, dataset, networks, validation=validation, mesh=mesh, batch=batch
  )


def _load(
  config: Config, options: EvaluationOptions, name: str, argument: str = ''
) -> Dataset:
  """A dataset as a run's networks take it, or what an argument names."""
  size, channels, data_dir = (
    config.image_size,
    config.channels,
    options.data_dir,
  )
  if argument:
    source = sources.load_source(name, argument, data_dir, size, channels)
    return sources.as_dataset(source, name)
  if name.startswith(OWN_DATA):
    remedy = 'this run was given its data from Python; name some to score'
    raise ArgumentError('against', '', f'{remedy} against')
  # No path, whatever it looks like.
  return data_lib.load(
    name,
    data_dir=data_dir,
    image_size=size,
    channels=channels,
    max_megapixels=config.max_megapixels,
    keep_rows=config.keep_rows,
  )


def make_run_scorer(
  config: Config,
  options: EvaluationOptions,
  networks: Networks | None,
  *,
  dataset: Dataset | None = None,
  mesh: Mesh | None = None,
) -> Scorer:
  """The scorer of a run's generators, which writes to its folder."""
  evaluator = make_run_evaluator(
    config, options, networks, dataset=dataset, mesh=mesh
  )
  path = pathlib.Path(config.workdir) / 'metrics.jsonl'
  return Scorer(evaluator, ScoreFile(path), options.seeds)


def sampled_networks(run: 'Run', class_sampling: str) -> Networks | None:
  """The networks of a run, which know how often classes are asked for.

  Raises:
    ArgumentError: for a word that is of no use.
  """
  counts = run.class_counts(class_sampling)
  if run.networks is None:
    return None
  return run.networks._replace(class_counts=counts)


def draw_samples(run: 'Run', evaluator: Evaluator, ema: bool, seed: int) -> Any:
  """Batches of a run's samples, as `Evaluator.score_batches` takes them."""
  if run.networks is None:  # by the G that it exported
    word = evaluator.class_sampling if run.classes else ''
    x = run.sample(evaluator.samples, seed=seed, ema=ema, class_sampling=word)
    return batched(x, evaluator.rows)
  source = run.generator(ema)
  return evaluator.draw(source.params, source.stats, seed)


def score_run(
  run: 'Run',
  metrics: str | Sequence[str | Metric],
  *,
  data: Any = None,
  samples: int = 10_000,
  seeds: int = 1,
  **options: Any,
) -> dict[str, float]:
  """Scores of a run's G by name: means over evaluation seeds.

  Args:
    run: as it was opened.
    metrics: names or `Metric`s.
    data: what is scored against; None: the data of the run.
    samples: generated samples of a score.
    seeds: draws of noise.
    **options: further `EvaluationOptions`.

  Raises:
    ArgumentError: for what cannot be scored.
  """
  unknown = options.keys() - EvaluationOptions.__dataclass_fields__.keys()
  for name in unknown:
    raise ArgumentError(name, options[name], 'no such option of a score')
  asked = EvaluationOptions(
    metrics=metrics, samples=samples, eval_seeds=seeds, **options
  )
  dataset = None if data is None else data_lib.as_dataset(data)
  if data is None and isinstance(run.dataset, SampleSet | Density):
    dataset = run.dataset  # at hand
  elif data is None and run.config.dataset.startswith(OWN_DATA):
    remedy = 'this run was given its data from Python; hand some in again'
    raise ArgumentError('data', None, remedy)
  evaluator = make_run_evaluator(
    run.config,
    asked,
    sampled_networks(run, asked.class_sampling),
    dataset=dataset,
  )
  ema = run.has_average if asked.ema is None else asked.ema
  by_seed = [
    evaluator.score_batches(draw_samples(run, evaluator, ema, seed), seed=seed)
    for seed in asked.seeds
  ]
  return mean_of_seeds(by_seed)
