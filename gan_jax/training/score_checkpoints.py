"""Scores of a run's checkpoints: afterwards, or while another process trains.

What `gan_jax.evaluation` needs to know is taken from the run: its metrics and
features unless others are asked for, its data, and real images held out from
them where a metric needs some.
"""

import dataclasses
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from gan_jax import data as data_lib
from gan_jax.config import registry
from gan_jax.config.app import warn
from gan_jax.config.schema import Config
from gan_jax.data import Dataset, Density, parse_name
from gan_jax.evaluation import references, sources
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.score_file import Row, ScoreFile, format_row
from gan_jax.evaluation.scorer import (
  EvaluationOptions,
  Scorer,
  check_validation,
  make_evaluator,
)
from gan_jax.features import batched
from gan_jax.figures import images as image_lib
from gan_jax.metrics import METRICS, Metric, select_metrics
from gan_jax.metrics.neighbours import join_neighbours, nearest_neighbours
from gan_jax.networks.base import Networks
from gan_jax.runtime.checkpoint import digest
from gan_jax.runtime.errors import ArgumentError, Error
from gan_jax.runtime.files import write_atomic
from gan_jax.runtime.progress import format_duration
from gan_jax.training import restore
from gan_jax.training.restore import OWN_DATA, Run
from gan_jax.training.setup import load_dataset

POLL = 2.0  # seconds between two looks at a folder
_TRIES = 3  # looks at a checkpoint that cannot be read
_NEAREST = 5  # training images beside each sample
_MOST_BYTES = 2**29  # of training images that are searched


# What scores of a run are made of.


def load_metrics(
  metrics: str | Sequence[str | Metric],
) -> tuple[Metric, ...]:
  """Metrics by name, those of plug-ins and `module:attribute` among them.

  Raises:
    ArgumentError: for none, or one that is unknown or there twice.
  """
  if isinstance(metrics, str):
    metrics = [word.strip() for word in metrics.split(',') if word.strip()]

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
  options = dataclasses.replace(
    options,
    metrics=load_metrics(options.metrics or config.metrics),
    features=options.features or config.features,
    weights=options.weights or config.weights,
    data_dir=options.data_dir or config.data_dir,
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
    return sources.as_dataset(source, name, argument)
  if name.startswith(OWN_DATA):
    remedy = 'this run was given its data from Python; name some to score'
    raise ArgumentError('against', '', f'{remedy} against')
  # No path, whatever it looks like.
  return data_lib.load(
    name, data_dir=data_dir, image_size=size, channels=channels
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


# Scores of a checkpoint.


def _draw(run: Run, evaluator: Evaluator, ema: bool, seed: int) -> Any:
  """Batches of a run's samples, as `Evaluator.score_batches` takes them."""
  if run.networks is None:  # by the G that it exported
    x = run.sample(evaluator.samples, seed=seed, ema=ema)
    return batched(x, evaluator.rows)
  source = run.generator(ema)
  return evaluator.draw(source.params, source.stats, seed)


def _score(run: Run, scorer: Scorer, ema: bool) -> tuple[Row, bool]:
  """The row of a checkpoint, and whether it was scored now."""
  if run.networks is not None:
    source = run.generator(ema)
    return scorer.score_generator(run.step, source.params, source.stats, ema)
  prefix = 'ema/' if ema else 'g/'
  model = digest({k: x for k, x in run.state.items() if k.startswith(prefix)})

  def score(seed: int) -> dict[str, float]:
    evaluator = scorer.evaluator
    batches = _draw(run, evaluator, ema, seed)
    return evaluator.score_batches(batches, seed=seed)

  protocol = scorer.generator_protocol(ema)
  return scorer.score_moment(run.step, model, protocol, score)


def score_run(
  run: Run,
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
  evaluator = make_run_evaluator(
    run.config, asked, run.networks, dataset=dataset
  )
  ema = run.has_average if asked.ema is None else asked.ema
  by_seed = [
    evaluator.score_batches(_draw(run, evaluator, ema, seed), seed=seed)
    for seed in asked.seeds
  ]
  return {
    name: float(np.mean([scores[name] for scores in by_seed]))
    for name in by_seed[0]
  }


def _score_and_report(
  run: Run, options: EvaluationOptions, scorer: Scorer
) -> Row:
  """Scores a checkpoint and prints its scores."""
  ema = run.has_average if options.ema is None else options.ema
  started = time.perf_counter()
  row, is_new = _score(run, scorer, ema)
  seconds = format_duration(time.perf_counter() - started)
  note = f' [{seconds}]' if is_new else ' (scored before)'
  kind = 'averaged' if ema else 'live'
  print(f'step {run.step}, {kind} G: {format_row(row)}{note}', flush=True)
  if options.neighbours:
    png = _draw_neighbours(run, options, scorer.evaluator, ema)
    path = scorer.file.path
    write_atomic(path.with_name(f'neighbours_{run.step:09d}.png'), png)
  return row


def _draw_neighbours(
  run: Run, options: EvaluationOptions, evaluator: Evaluator, ema: bool
) -> bytes:
  """A PNG: a row for each sample, followed by what is nearest in pixels.

  Raises:
    ArgumentError: of points, or samples that are not finite.
  """
  count = options.neighbours
  config = dataclasses.replace(
    run.config, data_dir=options.data_dir or run.config.data_dir
  )
  train = load_dataset(config)
  if isinstance(train, Density):
    remedy = f'is for images, and {train.name} is a density; leave it out'
    raise ArgumentError('neighbours', count, remedy)
  x = _take(_draw(run, evaluator, ema, 0), count)
  if not np.isfinite(x).all():
    remedy = 'generated samples are not finite; use an earlier `step`'
    raise ArgumentError('neighbours', count, remedy)
  fake = image_lib.to_uint8(x)
  most = max(_NEAREST, _MOST_BYTES // int(np.prod(train.shape)))
  if most < train.size:
    warn(f'`neighbours`: of {most} of {train.size} images')
  known = references.read_samples(train, min(most, train.size))
  nearest, _ = nearest_neighbours(known, fake, k=min(_NEAREST, len(known)))
  rows = join_neighbours(known, fake, nearest)
  grid = image_lib.grid(rows, nearest.shape[1] + 1)
  return image_lib.png(image_lib.enlarged(grid))


def _take(batches: Iterator[Any], count: int) -> NDArray[Any]:
  """The first samples of some batches; fewer if there are no more."""
  parts: list[NDArray[Any]] = []
  for batch in batches:
    parts.append(np.asarray(batch))
    if sum(map(len, parts)) >= count:
      break
  return np.concatenate(parts)[:count]


# Checkpoints, of a run that may still be in training.


def _open(workdir: str, step: int, poll: float) -> Run | None:
  """A checkpoint; None, with a warning, if it was deleted or is damaged.

  A run deletes its checkpoints file by file: one that cannot be read is looked
  at again, as it may be about to go, or its file system be slow.
  """
  folder = pathlib.Path(workdir) / 'checkpoints' / f'{step:09d}'
  reason = ''
  for _ in range(_TRIES):
    try:
      return restore.open_run(workdir, step)
    except (ValueError, OSError) as error:
      reason = f'checkpoint {step}: {error}'
    time.sleep(poll / 10)
    if not folder.exists():
      reason = f'checkpoint {step} was deleted meanwhile'
      break
  warn(f'{reason}; skipped')
  return None


def _open_newest(workdir: str, poll: float) -> Run:
  """The newest whole checkpoint, which may not stay the newest."""
  for _ in range(_TRIES - 1):
    try:
      return restore.open_run(workdir)
    except FileNotFoundError:  # deleted while it was read
      time.sleep(poll / 10)
  return restore.open_run(workdir)


class _RunScorer:
  """Scores checkpoints of one run; makes its scorer when the first is open."""

  _scorer: Scorer | None

  def __init__(self, options: EvaluationOptions) -> None:
    self.rows: list[Row] = []
    self._options, self._scorer = options, None

  def score(self, run: Run | None) -> None:
    if run is None:
      return
    if self._scorer is None:
      self._scorer = make_run_scorer(run.config, self._options, run.networks)
    self.rows.append(_score_and_report(run, self._options, self._scorer))


def evaluate_run(
  workdir: str,
  options: EvaluationOptions,
  step: int | None = None,
  every: bool = False,
  *,
  poll: float = POLL,
) -> list[Row]:
  """Scores one checkpoint of a run, or all of them.

  Args:
    workdir: folder of the run.
    options: what scores; the run says the rest.
    step: which checkpoint; None for the newest.
    every: whether all of them are scored.
    poll: seconds between two looks at one that cannot be read, times ten.

  Raises:
    ArgumentError, DataError, CheckpointError: naming the argument or the file.
  """
  options.check()
  restore.read_config(workdir)
  scorer = _RunScorer(options)
  if every:
    for saved in restore.saved_steps(workdir):
      scorer.score(_open(workdir, saved, poll))
  elif step is None:
    scorer.score(_open_newest(workdir, poll))
  else:
    scorer.score(restore.open_run(workdir, step))
  return scorer.rows


def follow(
  workdir: str,
  options: EvaluationOptions,
  timeout: float,
  *,
  poll: float = POLL,
) -> list[Row]:
  """Scores every checkpoint of a run that another process trains.

  Ends when run.json says that the run is done or has diverged and nothing is
  left to be scored.

  Args:
    workdir: folder of the run.
    options: what scores; the run says the rest.
    timeout: seconds without a new checkpoint to give up after.
    poll: seconds between two looks.

  Raises:
    Error: after `timeout` seconds without a new checkpoint.
    ArgumentError, DataError: for what cannot be scored.
  """
  options.check()
  scorer, seen = _RunScorer(options), set[int]()
  latest = time.monotonic()
  while True:
    # In this order: a run that has ended has saved its last checkpoint.
    has_ended = restore.outcome(workdir) in ('done', 'diverged')
    new = [n for n in restore.saved_steps(workdir) if n not in seen]
    for step in new:
      seen.add(step)
      scorer.score(_open(workdir, step, poll))
    if new:
      latest = time.monotonic()
    elif has_ended:
      return scorer.rows
    elif time.monotonic() - latest > timeout:
      raise Error(
        f'`workdir={workdir}`: no new checkpoint in {format_duration(timeout)},'
        ' and the run says neither that it is done nor that it diverged; raise'
        ' `follow_timeout`, or run the same command again when it continues'
      )
    else:
      time.sleep(min(poll, timeout / 4))


__all__ = [
  'POLL',
  'evaluate_run',
  'follow',
  'load_metrics',
  'make_run_evaluator',
  'make_run_scorer',
  'score_run',
]
