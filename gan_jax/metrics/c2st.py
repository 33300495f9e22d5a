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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.metrics import arrays, blocks

MINIMUM = 10
STEPS = 1000  # of the regression's solver, at the most


def _held_out(
  real: NDArray[Any], fake: NDArray[Any], rng: np.random.Generator
) -> tuple[float, int]:
  """Accuracy of a logistic regression, and on how many samples."""
  import sklearn.exceptions
  import sklearn.linear_model

  half = len(real) // 2
  parts = [x[rng.permutation(len(x))].astype(np.float64) for x in (real, fake)]
  x = np.concatenate([part[:half] for part in parts])
  held = np.concatenate([part[half:] for part in parts])
  y = np.repeat([0, 1], half)
  truth = np.repeat([0, 1], len(real) - half)
  mean, std = x.mean(axis=0), x.std(axis=0)
  scale = np.where(std > 1e-9 * np.abs(mean).max(initial=1e-300), std, 1)
  model = sklearn.linear_model.LogisticRegression(max_iter=STEPS)
  with warnings.catch_warnings():
    # A classifier short of its optimum tests as well, with a little less power.
    warnings.simplefilter('ignore', sklearn.exceptions.ConvergenceWarning)
    model.fit((x - mean) / scale, y)
  said = model.predict((held - mean) / scale)
  return float((said == truth).mean()), len(held)


def _neighbours(real: NDArray[Any], fake: NDArray[Any]) -> tuple[float, float]:
  """Part of the real samples, and of the fakes, next to one of their kind."""
  both = np.concatenate([real, fake])
  which, _ = blocks.nearest(both, both, 1, itself=False)
  is_fake = which[:, 0] >= len(real)
  right = float((~is_fake[: len(real)]).mean())
  return right, float(is_fake[len(real) :].mean())


def c2st(real: Any, fake: Any, *, seed: int = 0) -> dict[str, float]:
  """Accuracies of two classifiers that tell real features from fakes.

  Args:
    real: (n, dim), at least 10.
    fake: (m, dim), at least 10; of the larger side as many are drawn as the
      smaller has.
    seed: of these, and of the two halves.

  Returns:
    c2st: held-out accuracy of a logistic regression, 1/2 at best.
    c2st_p: how likely an accuracy as high is of like sets (normal
      approximation).
    c2st_nn: accuracy of the nearest neighbour, 1/2 for like sets, 0 for copies.
    c2st_nn_real, c2st_nn_fake: its two halves.

  Raises:
    ValueError: if they are not two tables of finite numbers of one width, or
      too few.
  """
  real, fake = arrays.two_sets(real, fake, MINIMUM)
  rng = np.random.default_rng(seed)
  n = min(len(real), len(fake))
  real, fake = (
    x if len(x) == n else x[np.sort(rng.choice(len(x), n, replace=False))]
    for x in (real, fake)
  )
  accuracy, held = _held_out(real, fake, rng)
  of_real, of_fake = _neighbours(real, fake)
  return {
    'c2st': accuracy,
    'c2st_p': math.erfc((accuracy - 0.5) * math.sqrt(2 * held)) / 2,
    'c2st_nn': (of_real + of_fake) / 2,
    'c2st_nn_real': of_real,
    'c2st_nn_fake': of_fake,
  }
