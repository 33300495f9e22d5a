"""Moments of a run, or sets of images, to rows of `metrics.jsonl`.

`Judge` scores generators under one protocol and never twice; `evaluate_run`
opens checkpoints for it, also those of a run that another process trains, and
`evaluate_images` takes a folder, an .npz or a split of a dataset instead.
"""

import dataclasses
import hashlib
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from gan_jax import data
from gan_jax.config import app as doors
from gan_jax.config.schema import Config, ConfigError
from gan_jax.data import Dataset
from gan_jax.data.gathered import parsed
from gan_jax.evaluation import sources
from gan_jax.evaluation.evaluator import (
  KNOWN,
  PROTOCOLS,
  EvaluationError,
  Evaluator,
  parse_metrics,
)
from gan_jax.evaluation.scores import Row, Scores, shown, summarised, told
from gan_jax.runtime import checkpoint, sharding
from gan_jax.runtime.array_cache import digest_facts
from gan_jax.runtime.files import write_atomic
from gan_jax.runtime.progress import format_duration
from gan_jax.training import copies, setup, workdir
from gan_jax.training.setup import Run

SAMPLES = 10_000  # of a generator, unless it is said
_POLL, _TRIES = 2.0, 3  # seconds between two looks; looks at a checkpoint


@dataclasses.dataclass(frozen=True)
class Request:
  """What is asked for, as the flags of `gan_jax.evaluate` have it."""

  metrics: str = ''
  features: str = ''
  weights: str = ''
  against: str = ''
  validation: str = ''
  samples: int = 0
  real_samples: int = 0
  eval_seeds: int = 1
  seed: int = 0
  ema: bool | None = None
  data_dir: str = ''
  devices: int = 0
  neighbours: int = 0

  def check(self) -> None:
    """Refuses numbers that no evaluation could have.

    Raises:
      EvaluationError: naming the flag.
    """
    for name, least in (
      ('samples', 0),
      ('real_samples', 0),
      ('eval_seeds', 1),
      ('seed', 0),
      ('neighbours', 0),
    ):
      if getattr(self, name) < least:
        raise EvaluationError(
          f'--{name}={getattr(self, name)}: use {least} or more'
        )

  @property
  def seeds(self) -> list[int]:
    """Evaluation seeds."""
    return list(range(self.seed, self.seed + self.eval_seeds))


def identity(protocol: Mapping[str, Any]) -> str:
  """Hash of a protocol: what two scores must share to be compared."""
  return digest_facts(protocol)[:16]


class Judge:
  """Scores moments of one run, or sets of images, under one protocol."""

  def __init__(
    self, evaluator: Evaluator, scores: Scores, seeds: Sequence[int]
  ) -> None:
    """Rows go to `scores`."""
    self.evaluator, self.scores = evaluator, scores
    self.seeds = list(seeds)

  def protocol(self, source: Mapping[str, Any]) -> dict[str, Any]:
    """The whole protocol; `source` says where the samples come from."""
    return {
      **self.evaluator.protocol,
      'evaluation_seeds': self.seeds,
      **source,
    }

  def generator(
    self, step: int, params: Any, stats: Any, ema: bool
  ) -> tuple[Row, bool]:
    """The row of a generator, and whether it was scored now."""
    model = checkpoint.digest(checkpoint.to_host((params, stats)))

    def score(seed: int) -> dict[str, float]:
      return self.evaluator.score(params, stats, seed=seed)

    return self._row(step, model, self.of_generator(ema), score)

  def scored(self, step: int, params: Any, stats: Any, ema: bool) -> bool:
    """Whether the row of a generator is there."""
    model = checkpoint.digest(checkpoint.to_host((params, stats)))
    key = identity(self.of_generator(ema))
    return setup.agreed(self.scores.find(step, key, model) is not None)

  def of_generator(self, ema: bool) -> dict[str, Any]:
    """The whole protocol of a generator's score."""
    return self.protocol({'source': 'generator', 'ema': ema})

  def images(self, x: NDArray[Any], name: str) -> tuple[Row, bool]:
    """The row of samples (n, *shape), and whether they were scored now."""
    model = hashlib.sha256(np.ascontiguousarray(x).data).hexdigest()[:32]
    protocol = self.protocol({'source': name})
    seen: dict[str, Any] = {}

    def score(seed: int) -> dict[str, float]:
      if not seen:
        seen.update(self.evaluator.view(x))
      return self.evaluator.compare(seen, seed=seed)

    return self._row(None, model, protocol, score)

  def _row(
    self, step: int | None, model: str, protocol: Any, score: Any
  ) -> tuple[Row, bool]:
    key = identity(protocol)
    there = self.scores.find(step, key, model)
    if setup.agreed(there is not None):
      return (there or {}), False
    started = time.perf_counter()
    by_seed, unscored = [], dict[str, str]()
    for seed in self.seeds:
      by_seed.append(score(seed))
      unscored |= self.evaluator.unscored
    features = protocol['features']
    named = [
      {self._shown(k, features): v for k, v in scores.items()}
      for scores in by_seed
    ]
    row: Row = {
      'step': step,
      **summarised(named),
      'primary': {
        metric: self._shown(self.evaluator.first[metric], features)
        for metric in self.evaluator.metrics
      },
      'key': key,
      'model': model,
      'protocol': protocol,
      'versions': workdir.versions(),
      'devices': [str(d.device_kind) for d in jax.devices()],
      'scored': workdir.now(),
      'score_sec': round(time.perf_counter() - started, 3),
    }
    if unscored:
      row['unscored'] = unscored
    if jax.process_index() == 0:
      for metric, why in unscored.items():
        moment = '' if step is None else f'step {step}: '
        text = f'{moment}{metric} is not finite: {why}'
        print(f'warning: {text}', file=sys.stderr, flush=True)
      row = self.scores.add(row)
    return row, True

  def _shown(self, name: str, features: str) -> str:
    """Only what was seen through features bears their name."""
    stems = [m for m in self.evaluator.metrics if name.startswith(m)]
    sees = KNOWN[max(stems, key=len)].sees if stems else 'features'
    return shown(name, features if sees != 'images' else '')


def evaluate_images(request: Request, images: str, out: pathlib.Path) -> Row:
  """Scores a folder, an .npz or a split of a dataset.

  Raises:
    ConfigError, DataError: whose messages name the flag and the remedy.
  """
  request.check()
  metrics = parse_metrics(request.metrics)
  check_validation(request, metrics)
  if set(metrics) & set(PROTOCOLS) and not request.validation:
    raise EvaluationError(
      '--validation=: name the set of real images that parzen picks its width'
      ' on, such as --validation=mnist[50000:51000]'
    )
  needed = any(KNOWN[name].reference for name in metrics)
  if needed and not request.against:
    raise EvaluationError(
      '--against=: name what the images are held against: a dataset, a folder'
      ' or an .npz'
    )
  found = sources.source(images, 'images', request.data_dir)
  x = sources.samples(found, request.samples, images)
  against = request.against or images
  real = sources.as_dataset(
    sources.source(against, 'against', request.data_dir), against
  )
  x = sources.check_images(x, real.shape, f'--images={images}')
  known: dict[str, Any] = {}
  if request.validation:
    known['validation'] = sources.as_dataset(
      sources.source(request.validation, 'validation', request.data_dir),
      request.validation,
    )
  evaluator = make_evaluator(
    dataclasses.replace(request, samples=len(x)), real, None, **known
  )
  judge = Judge(evaluator, Scores(out), request.seeds)
  row, fresh = judge.images(x, images)
  print(f'{images}: {told(row)}' + ('' if fresh else ' (scored before)'))
  return row


def check_validation(request: Request, metrics: Sequence[str]) -> None:
  """Refuses a further set that no metric reads.

  Raises:
    EvaluationError: naming the flag.
  """
  if request.validation and not set(metrics) & set(PROTOCOLS):
    raise EvaluationError(
      f'--validation={request.validation}: only {", ".join(PROTOCOLS)} reads'
      ' it; leave it out'
    )


def make_evaluator(
  request: Request,
  dataset: Dataset,
  networks: Any,
  mesh: Mesh | None = None,
  **known: Any,
) -> Evaluator:
  """The evaluator of a request; says what its scores are not good for."""
  evaluator = Evaluator(
    dataset,
    networks,
    parse_metrics(request.metrics),
    samples=request.samples or SAMPLES,
    features=request.features,
    weights=request.weights,
    data_dir=request.data_dir,
    real_samples=request.real_samples,
    mesh=sharding.make_mesh(request.devices) if mesh is None else mesh,
    **known,
  )
  if evaluator.caution and jax.process_index() == 0:
    print(f'warning: {evaluator.caution}', file=sys.stderr, flush=True)
  return evaluator


# Checkpoints of a run.


def _held_out(config: Config, total: int) -> str:
  """The first 1,000 images after those that a run was trained on.

  Raises:
    EvaluationError: if there are none.
  """
  stem, split, part = parsed(config.dataset)
  if split:
    raise EvaluationError(
      f'--validation=: --dataset={config.dataset} names a split, outside of'
      ' which nothing is known to be held out; name a set'
    )
  low, _, high = part.partition(':')
  stop = int(high or total)
  if int(low or 0) or stop >= total:
    raise EvaluationError(
      '--validation=: parzen picks its width on real images that G was not'
      f' trained on, and --dataset={config.dataset} leaves none; name a set,'
      f' or train on a part such as mnist[:50000]'
    )
  return f'{stem}[{stop}:{min(stop + 1000, total)}]'


def of_run(
  config: Config, request: Request, dataset: Dataset | None = None
) -> tuple[Request, Dataset, dict[str, Any]]:
  """What a run's scores are made of.

  Args:
    config: of the run.
    request: what is asked for; the run says the rest.
    dataset: of the run, where it is loaded already.

  Returns:
    The whole request, what samples are held against, and further sets.
  """
  request = dataclasses.replace(
    request,
    metrics=request.metrics or config.metrics,
    features=request.features or config.features,
    weights=request.weights or config.weights,
    data_dir=request.data_dir or config.data_dir,
  )
  request.check()
  names = parse_metrics(request.metrics)
  check_validation(request, names)
  known: dict[str, Any] = {}

  def load(name: str, flag: str) -> Dataset:
    how = config.image_size, config.channels
    if flag == 'dataset':  # no path, whatever it looks like
      return data.load(
        name,
        data_dir=request.data_dir,
        image_size=config.image_size,
        channels=config.channels,
      )
    return sources.as_dataset(
      sources.source(name, flag, request.data_dir, *how), name
    )

  name = request.against or config.dataset
  if set(names) & set(PROTOCOLS):
    if len(names) > 1:
      raise EvaluationError(
        f'--metrics={request.metrics}: {", ".join(PROTOCOLS)} has sets of its'
        ' own; ask for it alone'
      )
    stem = parsed(config.dataset)[0]
    total = load(stem, 'dataset').size or 0
    known['validation'] = (
      load(request.validation, 'validation')
      if request.validation
      else load(_held_out(config, total), 'dataset')
    )
    name = request.against or f'{stem}[test]'
  if dataset is None or name != config.dataset:
    dataset = load(name, 'against' if request.against else 'dataset')
  return request, dataset, known


def judge_of(
  config: Config,
  request: Request,
  networks: Any,
  mesh: Mesh | None = None,
  dataset: Dataset | None = None,
) -> Judge:
  """The judge of a run's generators."""
  request, dataset, known = of_run(config, request, dataset)
  evaluator = make_evaluator(request, dataset, networks, mesh, **known)
  path = pathlib.Path(config.workdir) / 'metrics.jsonl'
  return Judge(evaluator, Scores(path), request.seeds)


def _scored(run: Run, request: Request, judge: Judge) -> Row:
  """Scores what a checkpoint holds, and says so."""
  ema = run.state.ema is not None if request.ema is None else request.ema
  if ema and run.state.ema is None:
    raise ConfigError(
      '--ema=true: this run kept no average (--ema_halflife_kimg=0); use'
      ' --ema=false'
    )
  player: Any = run.state.ema if ema else run.state.g
  started = time.perf_counter()
  row, fresh = judge.generator(run.step, player.params, player.stats, ema)
  took = format_duration(time.perf_counter() - started)
  print(
    f'step {run.step}, {"averaged" if ema else "live"} G: {told(row)}'
    + (f' [{took}]' if fresh else ' (scored before)'),
    flush=True,
  )
  if request.neighbours:
    how: Any = {'data_dir': request.data_dir or run.config.data_dir}
    train = setup.load_dataset(dataclasses.replace(run.config, **how))
    png = copies.sheet(
      judge.evaluator, train, player.params, player.stats, request.neighbours
    )
    path = judge.scores.path
    write_atomic(path.with_name(f'neighbours_{run.step:09d}.png'), png)
  return row


def _opened(workdir_: str, step: int) -> Run | None:
  """A checkpoint; None, said, if it was deleted or is damaged.

  A run deletes its checkpoints file by file: one that cannot be read is looked
  at again, as it may be on its way out, or its file system out of breath.
  """
  folder = pathlib.Path(workdir_) / 'checkpoints' / f'{step:09d}'
  why = ''
  for _ in range(_TRIES):
    try:
      return setup.open_run(workdir_, step)
    except (ValueError, OSError) as error:
      why = f'checkpoint {step}: {error}'
    time.sleep(_POLL / 10)
    if not folder.exists():
      why = f'checkpoint {step} was deleted meanwhile'
      break
  print(f'warning: {why}; skipped', file=sys.stderr)
  return None


def _newest(workdir_: str) -> Run:
  """The newest whole checkpoint, which may not stay the newest."""
  for _ in range(_TRIES - 1):
    try:
      return setup.open_run(workdir_)
    except FileNotFoundError:  # it went while it was looked at
      time.sleep(_POLL / 10)
  return setup.open_run(workdir_)


def evaluate_run(
  workdir_: str, request: Request, step: int | None, every: bool
) -> list[Row]:
  """Scores one checkpoint of a run, or all of them.

  Raises:
    ConfigError, DataError, CheckpointError: naming the flag or the file.
  """
  request.check()
  config = setup.read_config(workdir_)
  found: Iterator[Run | None]
  if every:
    steps = setup.saved_steps(workdir_)
    found = (_opened(workdir_, n) for n in steps)
  else:
    newest = step is None
    found = iter(
      [_newest(workdir_) if newest else setup.open_run(workdir_, step)]
    )
  judge, rows = None, []
  for run in found:
    if run is not None:
      judge = judge or judge_of(config, request, run.networks)
      rows.append(_scored(run, request, judge))
  return rows


def follow(workdir_: str, request: Request, timeout: float) -> list[Row]:
  """Scores every checkpoint of a run that another process trains.

  Ends when run.json says that the run is done or has diverged and nothing is
  left to be scored.

  Raises:
    Failure: after `timeout` seconds without news.
    ConfigError, DataError: naming the flag.
  """
  request.check()
  judge: Judge | None = None
  rows: list[Row] = []
  seen: set[int] = set()
  heard = time.monotonic()
  while True:
    # In this order: a run that has ended has saved its last checkpoint.
    ended = setup.outcome(workdir_) in ('done', 'diverged')
    fresh = [n for n in setup.saved_steps(workdir_) if n not in seen]
    for n in fresh:
      seen.add(n)
      run = _opened(workdir_, n)
      if run is not None:
        judge = judge or judge_of(run.config, request, run.networks)
        rows.append(_scored(run, request, judge))
    if fresh:
      heard = time.monotonic()
    elif ended:
      return rows
    elif time.monotonic() - heard > timeout:
      raise doors.Failure(
        f'--workdir={workdir_}: no new checkpoint in'
        f' {format_duration(timeout)}, and the run says neither that it is'
        ' done nor that it diverged; raise --follow_timeout, or run the'
        ' same command again when it goes on'
      )
    else:
      time.sleep(min(_POLL, timeout / 4))
