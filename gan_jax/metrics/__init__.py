"""Metrics: how far generated samples are from the data.

Each is a function of plain arrays, under the name that flags use, and
deterministic: what it draws (subsets, directions, pairs) is a function of its
`seed`. How samples are drawn and features extracted is the matter of
`gan_jax.evaluation` and `gan_jax.features`.

To add a metric, write its function and a `Metric` in one file and give it an
entry in `METRICS`: the flag and the tests find it there. What the tests need of
it is said beside it (`Checks`).
"""

from collections.abc import Sequence

from gan_jax.metrics import (
  classifier_score,
  frechet,
  kernel,
  known_density,
  manifolds,
  mode_coverage,
  parzen_window,
  similarity,
  sliced_wasserstein,
  two_sample_test,
)
from gan_jax.metrics.base import Checks, Example, Metric, Truth, of_fake
from gan_jax.metrics.classifier_score import inception_score
from gan_jax.metrics.frechet import Moments, fid, frechet_distance
from gan_jax.metrics.kernel import kid
from gan_jax.metrics.known_density import density
from gan_jax.metrics.manifolds import prdc
from gan_jax.metrics.mode_coverage import class_modes, modes
from gan_jax.metrics.neighbours import nearest_neighbours
from gan_jax.metrics.parzen_window import parzen
from gan_jax.metrics.similarity import ms_ssim
from gan_jax.metrics.sliced_wasserstein import swd, swd_points
from gan_jax.metrics.two_sample_test import c2st
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.names import check_names, split_names

METRICS: dict[str, Metric] = {
  'fid': frechet.FID,
  'kid': kernel.KID,
  'inception_score': classifier_score.INCEPTION_SCORE,
  'prdc': manifolds.PRDC,
  'swd': sliced_wasserstein.SWD,
  'swd_points': sliced_wasserstein.SWD_POINTS,
  'ms_ssim': similarity.MS_SSIM,
  'c2st': two_sample_test.C2ST,
  'parzen': parzen_window.PARZEN,
  'modes': mode_coverage.MODES,
  'class_modes': mode_coverage.CLASS_MODES,
  'density': known_density.DENSITY,
}


def select_metrics(
  metrics: str | Sequence[str | Metric],
) -> tuple[Metric, ...]:
  """Metrics by their names; those that are objects already stay as they are.

  Args:
    metrics: names of `METRICS` and `Metric`s; or names, separated by commas.

  Raises:
    ArgumentError: for none, for an unknown name, or one that is there twice.

  >>> [metric.name for metric in select_metrics('fid, kid')]
  ['fid', 'kid']
  """
  if isinstance(metrics, str):
    metrics = split_names(metrics)
  own = {m.name: m for m in metrics if isinstance(m, Metric)}
  names = [m.name if isinstance(m, Metric) else m for m in metrics]
  if not names:
    raise ArgumentError('metrics', '', f'name some of {", ".join(METRICS)}')
  by_name = METRICS | own
  check_names('metrics', ','.join(names), names, by_name)
  return tuple(by_name[name] for name in names)


__all__ = [
  'METRICS',
  'Checks',
  'Example',
  'Metric',
  'Moments',
  'Truth',
  'c2st',
  'class_modes',
  'density',
  'fid',
  'frechet_distance',
  'inception_score',
  'kid',
  'modes',
  'ms_ssim',
  'nearest_neighbours',
  'of_fake',
  'parzen',
  'prdc',
  'select_metrics',
  'swd',
  'swd_points',
]
