"""Mode coverage: how many of the known modes are there, how evenly filled?

Of points near known centres, as PacGAN counts them, and of class labels, as for
stacked digits.

Reference: Lin et al. 2018 (PacGAN), arXiv:1712.04086, sections 4.1 and 4.2;
Srivastava et al. 2017 (VEEGAN), arXiv:1705.07761, section 4.
"""

from typing import Any

import numpy as np
import scipy.spatial.distance
import scipy.special
from numpy.typing import NDArray

from gan_jax.metrics import arrays

WITHIN = 3  # deviations of its mode, for a sample of high quality


def divergences(
  counts: NDArray[Any], expected: NDArray[np.float64]
) -> dict[str, float]:
  """KL of the distribution of counts to the expected one and back, in nats.

  Reverse: `KL(generated || expected)`, of the counts as they are; in N samples
  of the k expected ones it is about `(k - 1) / 2N` rather than 0. Forward:
  `KL(expected || generated)`, which one empty mode would make infinite: every
  count is half a sample higher (Krichevsky & Trofimov 1981).
  """
  p = counts / counts.sum()
  kept = expected > 0
  q = (counts + 0.5)[kept]
  q = q / q.sum()
  return {
    'reverse_kl': float(scipy.special.rel_entr(p, expected).sum()),
    'forward_kl': float(scipy.special.rel_entr(expected[kept], q).sum()),
  }


def modes(
  real: Any, fake: Any, *, seed: int = 0, truth: Any
) -> dict[str, float]:
  """Modes, share of good samples and divergences from equal modes.

  Args:
    real: not read.
    fake: points (n, dim).
    seed: not read: nothing is drawn.
    truth: with `modes` (k, dim) and their deviation `mode_std`.

  Returns:
    modes: those with a sample within three deviations of their centre.
    high_quality: the part of the samples that are so near one.
    reverse_kl, forward_kl: of the counts of those, in nats (`divergences`).
    Where no sample is near a mode, both are as if all were in one.

  Raises:
    ValueError: if `fake` is no table of finite points of the truth's dimension,
      or the truth has no separate modes.
  """
  del real, seed
  x = arrays.vectors('fake', fake)
  if truth.modes is None:
    raise arrays.SetupError(f'{truth.name} has no separate modes to count')
  k, dim = truth.modes.shape
  if x.shape[1] != dim:
    raise ValueError(f'fake has {x.shape[1]} dimensions and {truth.name} {dim}')
  away = scipy.spatial.distance.cdist(x, truth.modes)
  good = away.min(axis=1) <= WITHIN * truth.mode_std
  counts = np.bincount(away.argmin(axis=1)[good], minlength=k)
  found = {
    'modes': float(np.count_nonzero(counts)),
    'high_quality': float(good.mean()),
  }
  if not counts.any():
    # Without counts a divergence would be 0, which is the best there is.
    counts[0] = len(x)
  return found | divergences(counts, np.full(k, 1 / k))


def class_modes(
  fake: Any, classes: int, *, expected: Any = None
) -> dict[str, float]:
  """Modes of classified samples: stacked digits have 1000.

  Args:
    fake: classes (n,), integers in [0, classes).
    classes: how many there are.
    expected: how many samples of each the data have, (classes,); None for
      equally many.

  Returns:
    modes: classes with a sample; reverse_kl, forward_kl: in nats
    (`divergences`), reverse infinite where there is a class that the data have
    not.

  Raises:
    ValueError: if labels or expected counts are of the wrong shape or range.
  """
  labels = arrays.labels('fake', fake, classes, 1)
  q = np.ones(classes) if expected is None else np.asarray(expected, float)
  if q.shape != (classes,) or not (q >= 0).all() or not 0 < q.sum() < np.inf:
    raise ValueError(
      f'expected has shape {q.shape} and sum {q.sum()}: give counts, one for'
      f' each of the {classes} classes'
    )
  counts = np.bincount(labels, minlength=classes)
  found = divergences(counts, q / q.sum())
  return {'modes': float(np.count_nonzero(counts)), **found}
