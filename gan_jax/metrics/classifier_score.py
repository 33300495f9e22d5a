"""Inception Score: how sure a classifier is, and of how many classes.

`exp(E_x[KL(p(y|x) || p(y))])`, from 1 to the number of classes. It never looks
at real samples: a generator that makes one perfect image a class has the
greatest score.

Reference: Salimans et al. 2016, arXiv:1606.03498, section 4.
"""

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray

from gan_jax.metrics import arrays
from gan_jax.metrics.base import Checks, Example, Metric, of_fake

SPLITS = 10


def _score(p: NDArray[np.float64]) -> float:
  """Of one split (n, classes)."""
  marginal = np.broadcast_to(p.mean(axis=0), p.shape)
  return float(np.exp(scipy.special.rel_entr(p, marginal).sum(axis=1).mean()))


def inception_score(
  fake: ArrayLike, *, seed: int = 0, splits: int = SPLITS
) -> dict[str, float]:
  """Mean and standard deviation over splits, as it is published.

  Args:
    fake: class probabilities (n, classes), two or more a split.
    seed: of the order in which samples are dealt to the splits: contiguous
      splits of samples sorted by class would each see one class.
    splits: how many; the score is biased downward in small ones.

  Returns:
    inception_score: the mean, higher is better; inception_score_std: the
    standard deviation over splits.

  Raises:
    ArgumentError: if rows are not distributions, or there are too few.

  >>> sure = np.eye(4)[np.arange(100) % 4]
  >>> inception_score(sure, splits=1)
  {'inception_score': 4.0, 'inception_score_std': 0.0}
  """
  p = arrays.as_probabilities('fake', fake, 2 * splits)
  order = np.random.default_rng(seed).permutation(len(p))
  scores = [_score(p[rows]) for rows in np.array_split(order, splits)]
  return {
    'inception_score': float(np.mean(scores)),
    'inception_score_std': float(np.std(scores)),
  }


def _examples() -> tuple[Example, ...]:
  """As many classes as the classifier is sure of; 1 where it is not."""
  one = {'splits': 1}
  sure, unsure = np.eye(5)[np.arange(50) % 5], np.full((20, 4), 0.25)
  collapsed = np.eye(5)[np.zeros(20, int)]
  return (
    Example(
      sure, {'inception_score': 5, 'inception_score_std': 0}, options=one
    ),
    Example(unsure, {'inception_score': 1, 'inception_score_std': 0}),
    Example(collapsed, {'inception_score': 1, 'inception_score_std': 0}),
  )


INCEPTION_SCORE = Metric(
  'inception_score',
  of_fake(inception_score),
  {'inception_score': 'higher', 'inception_score_std': ''},
  sees='probabilities',
  minimum=2 * SPLITS,
  reads_real=False,
  checks=Checks(_examples, by_place=True),
)
