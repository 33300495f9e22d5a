"""Inception Score: how sure a classifier is, and of how many classes.

`exp(E_x[KL(p(y|x) || p(y))])`, from 1 to the number of classes. It never looks
at real samples: a generator that makes one perfect image a class has the
greatest score.

Reference: Salimans et al. 2016, arXiv:1606.03498, section 4.
"""

from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from gan_jax.metrics import arrays

SPLITS = 10


def _score(p: NDArray[np.float64]) -> float:
  """Of one split (n, classes)."""
  marginal = np.broadcast_to(p.mean(axis=0), p.shape)
  return float(np.exp(scipy.special.rel_entr(p, marginal).sum(axis=1).mean()))


def inception_score(
  real: Any, fake: Any, *, seed: int = 0, splits: int = SPLITS
) -> dict[str, float]:
  """Mean and deviation over splits, as it is published.

  Args:
    real: not read.
    fake: probabilities (n, classes), two or more a split.
    seed: of the order in which samples are dealt to the splits: contiguous
      splits of samples sorted by class would each see one class.
    splits: how many; the score is biased downward in small ones.

  Returns:
    inception_score: the mean; inception_score_std: the deviation over splits.

  Raises:
    ValueError: if rows are not distributions, or there are too few.
  """
  del real
  p = arrays.probabilities('fake', fake, 2 * splits)
  order = np.random.default_rng(seed).permutation(len(p))
  scores = [_score(p[part]) for part in np.array_split(order, splits)]
  return {
    'inception_score': float(np.mean(scores)),
    'inception_score_std': float(np.std(scores)),
  }
