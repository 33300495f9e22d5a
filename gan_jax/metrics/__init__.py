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
    better: 'lower' or 'higher', of the first name that it returns.
    minimum: the fewest samples of a side.
    truth: whether it takes the keyword `truth`, a density that is known
      (`gan_jax.data.Density` or its like).
  """

  compute: Callable[..., dict[str, float]]
  sees: str
  reference: bool
  better: str
  minimum: int
  truth: bool = False


METRICS: dict[str, Metric] = {
  'fid': Metric(frechet.fid, 'features', True, 'lower', 2),
  'kid': Metric(kid.kid, 'features', True, 'lower', 4),
  'inception_score': Metric(
    inception_score.inception_score, 'probabilities', False, 'higher', 20
  ),
  'prdc': Metric(prdc.prdc, 'features', True, 'higher', 6),
  'swd': Metric(swd.swd, 'images', True, 'lower', 2),
  'swd_points': Metric(swd.swd_points, 'points', True, 'lower', 2),
  'ms_ssim': Metric(ms_ssim.ms_ssim, 'images', False, 'lower', 2),
  'c2st': Metric(c2st.c2st, 'features', True, 'lower', 10),
  'modes': Metric(modes.modes, 'points', False, 'higher', 1, truth=True),
  'density': Metric(density.density, 'points', False, 'lower', 2, truth=True),
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
