"""Mode coverage: how many of the known modes are there, how evenly filled?

Of points near known centres, as PacGAN counts them (`modes`), and of the
classes of images, such as the 1000 of stacked digits (`class_modes`). A mode
counts that has one sample: all can be there while nearly every sample is off
them. So points are ranked by a divergence that sees both, `mode_jsd`.

Reference: Lin et al. 2018 (PacGAN), arXiv:1712.04086, sections 4.1 and 4.2;
Srivastava et al. 2017 (VEEGAN), arXiv:1705.07761, section 4.
"""

import types

import numpy as np
import scipy.spatial.distance
import scipy.special
from numpy.typing import ArrayLike, NDArray

from gan_jax.metrics import arrays
from gan_jax.metrics.base import Checks, Example, Metric, Truth, of_fake
from gan_jax.metrics.known_density import jensen_shannon
from gan_jax.runtime.errors import ArgumentError

WITHIN = 3  # standard deviations of its mode, for a sample of high quality


def count_divergences(
  counts: NDArray[np.integer], expected: NDArray[np.float64]
) -> dict[str, float]:
  """KL of the distribution of counts to the expected one and back, in nats.

  Reverse: `KL(generated || expected)`, of the counts as they are; in N samples
  of the k expected ones it is about `(k - 1) / 2N` rather than 0. Forward:
  `KL(expected || generated)`, which one empty mode would make infinite: every
  count is half a sample higher (Krichevsky & Trofimov 1981).
  """
  p = counts / counts.sum()
  possible = expected > 0
  q = (counts + 0.5)[possible]
  q = q / q.sum()
  return {
    'reverse_kl': float(scipy.special.rel_entr(p, expected).sum()),
    'forward_kl': float(scipy.special.rel_entr(expected[possible], q).sum()),
  }


def modes(fake: ArrayLike, *, truth: Truth, seed: int = 0) -> dict[str, float]:
  """Modes, share of good samples and divergences from equal modes.

  Args:
    fake: points (n, dim).
    truth: with `modes` (k, dim) and their standard deviation `mode_std`.
    seed: not read: nothing is drawn.

  Returns:
    mode_jsd: Jensen-Shannon divergence, in nats, of the parts of the samples
      near each mode and near none from those of the truth: 0 at best, about
      log 2 where no sample is near a mode.
    modes: those with a sample within three standard deviations of their centre.
    high_quality: the part of the samples that are so near one.
    reverse_kl, forward_kl: of the counts of those, in nats
      (`count_divergences`). Where no sample is near a mode, both are as if all
      were in one.

  Raises:
    ArgumentError: unless `fake` is a table of finite points of the truth's
      dimension; if the truth has no separate modes.

  >>> from gan_jax import data
  >>> ring = data.load('ring')
  >>> modes(ring.modes[:6], truth=ring)['modes']
  6.0
  """
  del seed
  x = arrays.as_table('fake', fake)
  if truth.modes is None or truth.mode_std is None:
    raise ArgumentError('truth', truth.name, 'has no separate modes to count')
  k, dim = truth.modes.shape
  if x.shape[1] != dim:
    remedy = f'has {x.shape[1]} dimensions and {truth.name} {dim}'
    raise arrays.fault('fake', x, remedy)
  distances = scipy.spatial.distance.cdist(x, truth.modes)
  good = distances.min(axis=1) <= WITHIN * truth.mode_std
  counts = np.bincount(distances.argmin(axis=1)[good], minlength=k)
  near = scipy.special.gammainc(dim / 2, WITHIN**2 / 2)  # of a normal's mass
  scores = {
    'mode_jsd': jensen_shannon(
      np.append(counts, np.count_nonzero(~good)) / len(x),
      np.append(np.full(k, near / k), 1 - near),
    ),
    'modes': float(np.count_nonzero(counts)),
    'high_quality': float(good.mean()),
  }
  if not counts.any():
    # Without counts a divergence would be 0, which is the best there is.
    counts[0] = len(x)
  return scores | count_divergences(counts, np.full(k, 1 / k))


def class_modes(
  fake: ArrayLike,
  *,
  labels: ArrayLike | None = None,
  classes: int = 0,
  seed: int = 0,
) -> dict[str, float]:
  """Modes of classified samples: stacked digits have 1000.

  Args:
    fake: class probabilities (n, classes), or classes (n,), integers.
    labels: class of each real sample, (m,), integers; None for equally many of
      each class.
    classes: how many there are; 0 for as many as `fake` or `labels` show.
    seed: not read: nothing is drawn.

  Returns:
    modes: classes with a sample; reverse_kl, forward_kl: in nats
    (`count_divergences`), reverse infinite where there is a class that the data
    have not.

  Raises:
    ArgumentError: for labels of the wrong shape or range, or probabilities that
      are none.

  >>> class_modes(np.array([0, 0, 2]), classes=4)['modes']
  2.0
  """
  del seed
  x = np.asarray(fake)
  if x.dtype.kind not in 'iu':
    x = arrays.as_probabilities('fake', x)
    classes = classes or x.shape[1]
    if x.shape[1] != classes:
      remedy = f'has {x.shape[1]} classes and the data {classes}'
      raise arrays.fault('fake', x, f'{remedy}; use a classifier of that set')
    x = x.argmax(axis=1)
  real = None if labels is None else np.asarray(labels)
  classes = classes or 1 + int((x if real is None else real).max(initial=0))
  counts = np.bincount(arrays.as_labels('fake', x, classes), minlength=classes)
  expected = np.ones(classes)
  if real is not None:
    real = arrays.as_labels('labels', real, classes)
    expected = np.bincount(real, minlength=classes).astype(np.float64)
  return {
    'modes': float(np.count_nonzero(counts)),
    **count_divergences(counts, expected / expected.sum()),
  }


def _point_examples() -> tuple[Example, ...]:
  """Every mode, one mode, and none, of two on a line."""
  truth = types.SimpleNamespace(
    name='two',
    dim=1,
    extent=(-1.0, 10.0),
    modes=np.array([[0.0], [9.0]]),
    mode_std=0.1,
    fingerprint='',
    sample=None,
    log_prob=None,
  )
  needs = {'truth': truth}
  one = {'modes': 1, 'high_quality': 1, 'reverse_kl': np.log(2)}
  one |= {'forward_kl': -np.log(8.5 / 9 * 0.5 / 9 * 4) / 2}
  both = {'modes': 2, 'high_quality': 1, 'reverse_kl': 0, 'forward_kl': 0}
  none = one | {'modes': 0, 'high_quality': 0}
  x = np.tile([[0.29], [9.0]], (4, 1))
  return (
    Example(x, both, needs=needs),
    Example(x[::2].repeat(2, axis=0), one, needs=needs),
    Example(x + 0.31, none, needs=needs),
  )


def _class_examples() -> tuple[Example, ...]:
  """Classes as the data have them, and one of them alone."""
  labels = np.array([0, 0, 1, 2])
  fake, zero = np.eye(3)[labels], {'reverse_kl': 0}
  collapsed = {'modes': 1, 'reverse_kl': np.log(4)}
  return (
    Example(fake, {'modes': 3, **zero}, needs={'labels': labels}),
    Example(fake[[3, 3]], collapsed, needs={'labels': labels}),
  )


MODES = Metric(
  'modes',
  of_fake(modes),
  {
    'mode_jsd': 'lower',  # first: of modes alone a few lucky samples have all
    'modes': 'higher',
    'high_quality': 'higher',
    'reverse_kl': 'lower',
    'forward_kl': 'lower',
  },
  sees='points',
  needs=('truth',),
  minimum=1,
  version='2',
  reads_real=False,
  checks=Checks(_point_examples),
)
CLASS_MODES = Metric(
  'class_modes',
  of_fake(class_modes),
  {'modes': 'higher', 'reverse_kl': 'lower', 'forward_kl': 'lower'},
  sees='probabilities',
  needs=('labels',),
  minimum=1,
  reads_real=False,
  checks=Checks(_class_examples),
)
