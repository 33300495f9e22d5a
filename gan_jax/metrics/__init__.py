"""Metrics: how far what a generator makes is from the data.

Each is a pure function of arrays, one file each; how samples are drawn and
features extracted is `evaluation.py`'s. All are deterministic: what they draw
(subsets, directions, pairs) is a function of `seed`. To add one, write it and
give it an entry in `METRICS`; the flag and the tests pick it up.

Beside the registry, for those who have what they need: `frechet.Moments` and
`frechet_distance` of streams, `modes.class_modes` of labels, `parzen.parzen`,
`neighbours.neighbours`.
"""

from collections.abc import Callable
from typing import NamedTuple

from gan_jax.metrics import (
  c2st,
  density,
  frechet,
  inception_score,
  kid,
  modes,
  ms_ssim,
  neighbours,
  parzen,
  prdc,
  swd,
)


class Metric(NamedTuple):
  """A metric, and what it wants.

  Attributes:
    compute: `(real, fake, *, seed=0) -> {name: value}`, of plain floats.
    sees: 'features' (n, dim), 'probabilities' (n, classes), 'images', uint8
      (n, height, width, channels), or 'points' (n, dim).
    reference: whether it reads `real`; else that may be None.
    minimum: the fewest samples of a side.
    scores: every name that it returns, in order, and which values are better:
      'lower', 'higher', or '' where neither end is. A name that ends in `*`
      stands for one a level of the image pyramid (`swd.sides`).
    truth: whether it takes the keyword `truth`, a density that is known
      (`gan_jax.data.Density` or its like).
  """

  compute: Callable[..., dict[str, float]]
  sees: str
  reference: bool
  minimum: int
  scores: dict[str, str]
  truth: bool = False

  @property
  def better(self) -> str:
    """'lower', 'higher' or '', of the first name that it returns."""
    return next(iter(self.scores.values()))

  def direction(self, name: str) -> str | None:
    """'lower', 'higher' or '' of one of its scores; None if it is none.

    What follows an `@` (the features) is not looked at.
    """
    stem = name.partition('@')[0]
    for declared, better in self.scores.items():
      if stem == declared:
        return better
      if declared.endswith('*') and stem.startswith(declared[:-1]):
        return better
    return None


METRICS: dict[str, Metric] = {
  'fid': Metric(
    frechet.fid,
    'features',
    True,
    2,
    {'fid': 'lower', 'fid_samples_per_dim': ''},
  ),
  'kid': Metric(
    kid.kid,
    'features',
    True,
    4,
    {'kid': 'lower', 'kid_std': '', 'kid_subset_size': ''},
  ),
  'inception_score': Metric(
    inception_score.inception_score,
    'probabilities',
    False,
    20,
    {'inception_score': 'higher', 'inception_score_std': ''},
  ),
  'prdc': Metric(
    prdc.prdc,
    'features',
    True,
    6,
    dict.fromkeys(('precision', 'recall', 'density', 'coverage'), 'higher'),
  ),
  'swd': Metric(swd.swd, 'images', True, 2, {'swd': 'lower', 'swd_*': 'lower'}),
  'swd_points': Metric(
    swd.swd_points, 'points', True, 2, {'swd_points': 'lower'}
  ),
  # The best is what the data have, not the end of the scale.
  'ms_ssim': Metric(
    ms_ssim.ms_ssim, 'images', False, 2, {'ms_ssim': '', 'ms_ssim_scales': ''}
  ),
  # The best is 1/2: below it samples are copies.
  'c2st': Metric(
    c2st.c2st,
    'features',
    True,
    10,
    dict.fromkeys(
      ('c2st', 'c2st_p', 'c2st_nn', 'c2st_nn_real', 'c2st_nn_fake'), ''
    ),
  ),
  'modes': Metric(
    modes.modes,
    'points',
    False,
    1,
    {
      'modes': 'higher',
      'high_quality': 'higher',
      'reverse_kl': 'lower',
      'forward_kl': 'lower',
    },
    truth=True,
  ),
  'density': Metric(
    density.density,
    'points',
    False,
    2,
    {
      'jsd': 'lower',
      'jsd_floor': '',
      'wasserstein1': 'lower',
      'wasserstein1_floor': '',
      'wasserstein1_samples': '',
    },
    truth=True,
  ),
}

__all__ = [
  'METRICS',
  'Metric',
  'c2st',
  'density',
  'frechet',
  'inception_score',
  'kid',
  'modes',
  'ms_ssim',
  'neighbours',
  'parzen',
  'prdc',
  'swd',
]
