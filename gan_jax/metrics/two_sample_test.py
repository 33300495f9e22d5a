"""Classifier two-sample tests: can a classifier tell the sets apart?

A logistic regression is trained on half of the samples and asked about the
other half: an accuracy of 1/2 says that it cannot. The nearest neighbour of
each sample among all others, left out in turn, says more: well above 1/2 for
fakes that keep to themselves (`c2st_nn_fake`) or real samples that do
(`c2st_nn_real`); below 1/2 where fakes copy real ones.

Reference: Lopez-Paz & Oquab 2017, arXiv:1610.06545, section 3; Xu et al. 2018,
arXiv:1806.07755, section 2, for the neighbours.
"""

import math
import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gan_jax.metrics import arrays, blocks
from gan_jax.metrics.base import Checks, Example, Metric

MINIMUM = 10
STEPS = 1000  # of the regression's solver, at the most

Table = NDArray[np.floating]


def _held_out_accuracy(
  real: Table, fake: Table, rng: np.random.Generator
) -> tuple[float, int]:
  """Accuracy of a logistic regression, and on how many samples."""
  import sklearn.exceptions
  import sklearn.linear_model

  half = len(real) // 2
  sides = [x[rng.permutation(len(x))].astype(np.float64) for x in (real, fake)]
  x = np.concatenate([side[:half] for side in sides])
  held_out = np.concatenate([side[half:] for side in sides])
  labels = np.repeat([0, 1], half)
  truth = np.repeat([0, 1], len(real) - half)
  mean, std = x.mean(axis=0), x.std(axis=0)
  scale = np.where(std > 1e-9 * np.abs(mean).max(initial=1e-300), std, 1)
  model = sklearn.linear_model.LogisticRegression(max_iter=STEPS)
  with warnings.catch_warnings():
    # A classifier short of its optimum tests as well, with a little less power.
    warnings.simplefilter('ignore', sklearn.exceptions.ConvergenceWarning)
    model.fit((x - mean) / scale, labels)
  guess = model.predict((held_out - mean) / scale)
  return float((guess == truth).mean()), len(held_out)


def _neighbour_accuracies(real: Table, fake: Table) -> tuple[float, float]:
  """Part of the real samples, and of the fakes, next to one of their kind."""
  both = np.concatenate([real, fake])
  nearest, _ = blocks.nearest(both, both, 1, itself=False)
  is_fake = nearest[:, 0] >= len(real)
  of_real = float((~is_fake[: len(real)]).mean())
  return of_real, float(is_fake[len(real) :].mean())


def c2st(
  real: ArrayLike, fake: ArrayLike, *, seed: int = 0
) -> dict[str, float]:
  """Accuracies of two classifiers that tell real features from fakes.

  Args:
    real: features (n, dim), at least 10.
    fake: features (m, dim), at least 10; of the larger side as many are drawn
      as the smaller has.
    seed: of these, and of the two halves.

  Returns:
    c2st: held-out accuracy of a logistic regression, 1/2 at best.
    c2st_p: how likely an accuracy as high is of like sets (normal
      approximation).
    c2st_nn: accuracy of the nearest neighbour, 1/2 for like sets, 0 for copies.
    c2st_nn_real, c2st_nn_fake: its two halves.

  Raises:
    ArgumentError: unless they are two tables of finite numbers of one width,
      and enough.

  >>> real = np.random.default_rng(0).normal(size=(40, 2))
  >>> scores = c2st(real, real + 20)
  >>> scores['c2st'], scores['c2st_nn']
  (1.0, 1.0)
  """
  a, b = arrays.as_tables(real, fake, MINIMUM)
  rng = np.random.default_rng(seed)
  n = min(len(a), len(b))
  a, b = (
    x if len(x) == n else x[np.sort(rng.choice(len(x), n, replace=False))]
    for x in (a, b)
  )
  accuracy, held_out = _held_out_accuracy(a, b, rng)
  of_real, of_fake = _neighbour_accuracies(a, b)
  return {
    'c2st': accuracy,
    'c2st_p': math.erfc((accuracy - 0.5) * math.sqrt(2 * held_out)) / 2,
    'c2st_nn': (of_real + of_fake) / 2,
    'c2st_nn_real': of_real,
    'c2st_nn_fake': of_fake,
  }


def _examples() -> tuple[Example, ...]:
  """Sets far apart, and copies: each next to its own, or to the other."""
  x = np.random.default_rng(0).normal(size=(20, 3))
  apart = {'c2st': 1, 'c2st_nn': 1, 'c2st_nn_real': 1, 'c2st_nn_fake': 1}
  return (Example(x + 50, apart, x), Example(x, {'c2st_nn': 0}, x))


# The best is 1/2: below it samples are copies.
C2ST = Metric(
  'c2st',
  c2st,
  {
    'c2st': '',
    'c2st_p': '',
    'c2st_nn': '',
    'c2st_nn_real': '',
    'c2st_nn_fake': '',
  },
  sees='features',
  minimum=MINIMUM,
  version='2',
  checks=Checks(_examples, by_place=True),
)
