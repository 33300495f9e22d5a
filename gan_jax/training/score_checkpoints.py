"""Scores of a run's checkpoints: afterwards, or while another process trains.

What `gan_jax.evaluation` needs to know is taken from the run: its metrics and
features unless others are asked for, its data, and real images held out from
them where a metric needs some.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.config.app import warn
from gan_jax.data import Density
from gan_jax.evaluation import references
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.score_file import Row, format_row
from gan_jax.evaluation.scorer import (
  EvaluationOptions,
  Scorer,
  evaluate_images,
)
from gan_jax.figures import images as image_lib
from gan_jax.game.classes import describe_sampling
from gan_jax.metrics.neighbours import join_neighbours, nearest_neighbours
from gan_jax.runtime import places
from gan_jax.runtime.checkpoint import digest
from gan_jax.runtime.errors import ArgumentError, CheckpointError, Error
from gan_jax.runtime.files import describe_failed_write, write_atomic
from gan_jax.runtime.progress import format_duration
from gan_jax.training import remote, restore
from gan_jax.training.restore import Run
from gan_jax.training.run_evaluator import (
  draw_samples,
  load_metrics,
  make_run_scorer,
  sampled_networks,
)
from gan_jax.training.setup import load_dataset

POLL = 2.0  # seconds between two looks at a folder
_TRIES = 3  # looks at a checkpoint that cannot be read
_NEAREST = 5  # training images beside each sample
_MOST_BYTES = 2**29  # of training images that are searched


# Scores of a checkpoint.


def _score(run: Run, scorer: Scorer, ema: bool) -> tuple[Row, bool]:
  """The row of a checkpoint, and whether it was scored now."""
  if run.networks is not None:
    source = run.generator(ema)
    return scorer.score_generator(run.step, source.params, source.stats, ema)
  prefix = 'ema/' if ema else 'g/'
  model = digest({k: x for k, x in run.state.items() if k.startswith(prefix)})

  def score(seed: int) -> dict[str, float]:
    evaluator = scorer.evaluator
    batches = draw_samples(run, evaluator, ema, seed)
    return evaluator.score_batches(batches, seed=seed)

  counts = run.class_counts(
    scorer.evaluator.class_sampling if run.classes else ''
  )
  protocol = scorer.generator_protocol(ema)
  protocol |= describe_sampling(run.classes, counts)
  return scorer.score_moment(run.step, model, protocol, score)


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
  x = _take(draw_samples(run, evaluator, ema, 0), count)
  if not np.isfinite(x).all():
    remedy = 'generated samples are not finite; use an earlier `step`'
    raise ArgumentError('neighbours', count, remedy)
  fake = image_lib.to_uint8(x)
  most = max(_NEAREST, _MOST_BYTES // int(np.prod(train.shape)))
  if most < train.size:
    warn(f'`neighbours`: of {most} of {train.size} images')
  real = references.read_samples(train, min(most, train.size))
  nearest, _ = nearest_neighbours(real, fake, k=min(_NEAREST, len(real)))
  rows = join_neighbours(real, fake, nearest)
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
      networks = sampled_networks(run, self._options.class_sampling)
      self._scorer = make_run_scorer(run.config, self._options, networks)
    self.rows.append(_score_and_report(run, self._options, self._scorer))
    remote.put_back(run.workdir, scores=True)


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
    remote.refresh(pathlib.Path(workdir))
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


def evaluate(values: Mapping[str, Any]) -> None:
  """Scores what the arguments of `gan_jax.evaluate` name.

  Raises:
    Error: naming the argument or the file.
  """
  fields = dataclasses.fields(EvaluationOptions)
  asked: Any = {field.name: values[field.name] for field in fields}
  options = EvaluationOptions(**asked)
  try:
    if values['images']:
      metrics = load_metrics(options.metrics)
      options = dataclasses.replace(options, metrics=metrics)
      evaluate_images(options, values['images'], values['out'])
    else:
      with contextlib.ExitStack() as stack:
        which = 'all' if values['all'] or values['follow'] else 'newest'
        if values['step'] is not None:
          which = str(values['step'])
        folder = str(remote.fetched(values['workdir'], stack, which))
        if values['follow']:
          follow(folder, options, values['follow_timeout'])
        else:
          try:
            evaluate_run(folder, options, values['step'], values['all'])
          except CheckpointError:
            if which != 'newest' or not places.scheme_of(values['workdir']):
              raise
            # As on a disk: the newest is damaged, an older one may be whole.
            folder = str(remote.fetched(values['workdir'], stack, 'all'))
            evaluate_run(folder, options, values['step'], values['all'])
  except OSError as error:
    place = values['out'] if values['images'] else values['workdir']
    raise Error(
      f'scores cannot be written: {describe_failed_write(place, error)}'
    ) from error
