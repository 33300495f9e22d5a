"""Conformance tests of a metric: what all promise, and what it claims."""

import functools
import json
import math
from collections.abc import Mapping
from typing import Any, get_args

import jax
import numpy as np
from numpy.typing import NDArray

from gan_jax import data
from gan_jax.metrics import Metric
from gan_jax.metrics.base import Kind

SIZE = 60  # samples of a side, unless a metric takes more
_CLASSES = 5

Samples = NDArray[Any]


def make_samples(kind: str, n: int, seed: int = 0) -> Samples:
  """Samples as they should be, of a kind that metrics see (`Metric.sees`).

  Probabilities are those of a classifier that is sure, and points are those of
  `mixture_1d`; both go round their classes or modes.
  """
  rng = np.random.default_rng(seed)
  if kind == 'features':
    return rng.normal(size=(n, 6)).astype(np.float32)
  if kind == 'probabilities':
    sure = np.eye(_CLASSES, dtype=np.float32)
    return np.asarray(sure[np.arange(n) % _CLASSES])
  if kind == 'images':
    return rng.integers(0, 256, (n, 16, 16, 3), np.uint8)
  centres = 3.0 * (np.arange(n) % 3)[:, None] - 3
  points = centres + 0.5 * rng.normal(size=(n, 1)).clip(-2, 2)
  return points.astype(np.float32)


def make_others(kind: str, n: int) -> Samples:
  """Samples of another distribution, which score worse."""
  x = make_samples(kind, n)
  if kind == 'features':
    return x * np.float32(0.5) + np.float32(2)
  if kind == 'probabilities':
    return x[np.zeros(n, int)]
  if kind == 'images':
    return np.repeat(x[:, :, :1], 16, axis=2) // np.uint8(2)
  return x * np.float32(0.2)


def _size(metric: Metric) -> int:
  return max(SIZE, 2 * metric.minimum)


@functools.cache
def _load_truth() -> data.Dataset:
  """One object, whose functions are compiled once."""
  return data.load('mixture_1d')


def _needs(metric: Metric) -> dict[str, Any]:
  """What a metric takes besides the samples."""
  values: dict[str, Any] = {
    'truth': _load_truth,
    'validation': lambda: make_samples(metric.sees, SIZE, seed=2),
    'labels': lambda: np.arange(SIZE, dtype=np.int32) % _CLASSES,
    'protocol': lambda: {'samples': SIZE},
  }
  return {name: values[name]() for name in metric.needs}


def _score(
  metric: Metric, fake: Any, real: Any = None, *, seed: int = 0
) -> dict[str, float]:
  if metric.reads_real and real is None:
    real = make_samples(metric.sees, _size(metric), seed=1)
  options = metric.checks.options if metric.checks else {}
  return dict(
    metric.compute(real, fake, seed=seed, **_needs(metric), **options)
  )


def check_metric(metric: Metric) -> None:
  """Holds a metric to what every metric promises, and to its own `checks`.

  It returns the scores that it declares, plain finite floats, the same ones for
  the same arguments and, unless `Checks.by_place`, in any order of the samples;
  leaves its arguments as they were; scores like sets best; raises for too few
  samples, NaN and wrong shapes; and gives the scores of its examples.

  Raises:
    AssertionError: naming the metric and what it breaks, or lacks.

  >>> from gan_jax.metrics import METRICS
  >>> check_metric(METRICS['kid'])
  """
  for check in (
    _check_declaration,
    _check_examples,
    _check_values,
    _check_order,
    _check_direction,
    _check_minimum,
    _check_faults,
  ):
    check(metric)


def _fail(metric: Metric, message: str) -> AssertionError:
  return AssertionError(f'metric {metric.name}: {message}')


def _check_declaration(metric: Metric) -> None:
  if metric.checks is None:
    remedy = 'give it checks=Checks(examples=...), with scores that are known'
    raise _fail(metric, f'says nothing that it could be tested by; {remedy}')
  if not metric.scores or not {*metric.scores.values()} <= {
    'lower',
    'higher',
    '',
  }:
    raise _fail(metric, "give scores={name: 'lower', 'higher' or ''}")
  if metric.sees not in get_args(Kind):
    kinds = ' or '.join(map(repr, get_args(Kind)))
    raise _fail(metric, f'sees {metric.sees!r}; give sees={kinds}')
  if not metric.version or not metric.name.isidentifier():
    raise _fail(metric, 'give it a name that is an identifier, and a version')


def _check_examples(metric: Metric) -> None:
  """Scores that a formula or theory gives."""
  assert metric.checks is not None
  examples = metric.checks.examples()
  if not examples:
    raise _fail(metric, 'has no example; give one whose scores are known')
  for i, example in enumerate(examples):
    scores = metric.compute(
      example.real, example.fake, seed=0, **example.needs, **example.options
    )
    for name, expected in example.scores.items():
      if not math.isclose(
        scores.get(name, math.nan), expected, rel_tol=1e-6, abs_tol=1e-6
      ):
        got = scores.get(name, 'missing')
        raise _fail(metric, f'example {i}: {name} is {got}, not {expected}')


def _declared(metric: Metric, scores: Mapping[str, float]) -> list[str]:
  """The names under which scores are declared, each once."""
  names = []
  for name in scores:
    stars = [n for n in metric.scores if n.endswith('*')]
    matching = [s for s in stars if name.startswith(s[:-1])]
    names.append(name if name in metric.scores else [*matching, name][0])
  return [*dict.fromkeys(names)]


def _check_values(metric: Metric) -> None:
  """Declared names, plain finite floats, the same again; nothing changed."""
  fake = make_samples(metric.sees, _size(metric))
  real = make_samples(metric.sees, _size(metric), seed=1)
  before = fake.copy(), real.copy()
  scores = _score(metric, fake, real, seed=3)
  if not all(type(x) is float and math.isfinite(x) for x in scores.values()):
    raise _fail(metric, f'returns other things than finite floats: {scores}')
  json.dumps(scores, allow_nan=False)
  if _declared(metric, scores) != [*metric.scores]:
    raise _fail(metric, f'declares {[*metric.scores]}, returns {[*scores]}')
  if not all(map(np.array_equal, (fake, real), before)):
    raise _fail(metric, 'changes the arrays that it is given')
  if _score(metric, fake, real, seed=3) != scores:
    raise _fail(metric, 'gives other scores for the same arguments')
  if jax.numpy.zeros(()).dtype != np.float32:
    raise _fail(metric, 'leaves JAX in another precision')
  if not metric.reads_real:
    message = 'reads `real`, and declares reads_real=False'
    try:
      without = _score(metric, fake, None, seed=3)
    except Exception as error:  # whatever None leads to
      raise _fail(metric, f'{message} ({error})') from error
    if without != scores:
      raise _fail(metric, message)


def _check_order(metric: Metric) -> None:
  """Independent of the order of samples, or nearly so if `by_place`."""
  assert metric.checks is not None
  fake = make_samples(metric.sees, _size(metric))
  real = make_samples(metric.sees, _size(metric), seed=1)
  one = _score(metric, fake, real)
  turned = _score(metric, fake[::-1], real[::-1])
  names, slack = [*one], 0.0
  if metric.checks.by_place:
    # A fifth of what another distribution changes.
    other = _score(metric, make_others(metric.sees, len(fake)), real)
    names = [metric.primary]
    slack = abs(other[metric.primary] - one[metric.primary]) / 5
  for name in names:
    gap = abs(one[name] - turned[name])
    if gap > max(1e-5 * abs(one[name]), 1e-9) + slack:
      values = f'({one[name]}, {turned[name]})'
      raise _fail(metric, f'{name} depends on the order of samples {values}')


def _check_direction(metric: Metric) -> None:
  """The best score for a set against itself, a worse one for another set."""
  assert metric.checks is not None
  name, best = metric.primary, metric.checks.best
  x = make_samples(metric.sees, _size(metric))
  alike = _score(metric, x, x)[name]
  other = _score(metric, make_others(metric.sees, len(x)), x)[name]
  if best is not None and not math.isclose(alike, best, abs_tol=1e-6):
    raise _fail(metric, f'{name} of like sets is {alike}, not {best}')
  worse = {'lower': alike < other, 'higher': alike > other, '': True}
  if not worse[metric.better]:
    better = f'where {metric.better} is better'
    raise _fail(metric, f'{name}: like sets {alike}, others {other}, {better}')


def _expect_error(
  metric: Metric, argument: str, what: str, fake: Samples, real: Any = None
) -> None:
  """Checks that a ValueError names the argument."""
  try:
    scores = _score(metric, fake, real)
  except ValueError as error:
    if argument not in str(error):
      message = f'the error about {what} does not name `{argument}`: {error}'
      raise _fail(metric, message) from error
    return
  raise _fail(metric, f'takes {what} for `{argument}` and scores {scores}')


def _check_minimum(metric: Metric) -> None:
  n = metric.minimum
  enough = make_samples(metric.sees, n)
  real = make_samples(metric.sees, n, seed=1)
  if not all(map(math.isfinite, _score(metric, enough, real).values())):
    raise _fail(metric, f'has no finite score of {n} samples, its minimum')
  _expect_error(metric, 'fake', f'{n - 1} samples', enough[:-1], real)
  if metric.reads_real:
    _expect_error(metric, 'real', f'{n - 1} samples', enough, real[:-1])


def _check_faults(metric: Metric) -> None:
  """What no score can be of."""
  fake = make_samples(metric.sees, _size(metric))
  broken = fake.astype(np.float32)
  broken[7].flat[0] = np.nan
  _expect_error(metric, 'fake', 'NaN', broken)
  _expect_error(metric, 'fake', 'a flat array', fake.reshape(-1))
  _expect_error(metric, 'fake', 'complex numbers', fake.astype(np.complex64))
  if metric.reads_real:
    _expect_error(metric, 'real', 'NaN', fake, broken)
    wide = np.concatenate([fake, fake], axis=-1)
    _expect_error(metric, 'fake', 'another width', wide, fake)
