"""The header of a run: what it trains on, what it trains, where."""

import pytest

from gan_jax.training.header import format_header

DIGITS = dict(
  data='digits',
  size=1797,
  sample_shape=(8, 8, 1),
  classes=10,
  network='dcgan',
  parameters=(463104, 132225),
  devices=['cpu', 'cpu'],
)


@pytest.mark.parametrize(
  ('changes', 'line'),
  [
    (dict(classes=0), 'data: digits, 1,797 images of 8x8x1'),
    (
      dict(data='ring', size=0, sample_shape=(2,), classes=0),
      'data: ring, a density in 2 dimensions',
    ),
    (
      dict(data='mine', size=9, sample_shape=(1,), classes=0),
      'data: mine, 9 points in 1 dimension',
    ),
    (
      dict(devices=['NVIDIA H100'] * 8, processes=2),
      'devices: 8 NVIDIA H100 in 2 processes',
    ),
    (
      dict(devices=['NVIDIA H100'], products='TF32'),
      'devices: 1 NVIDIA H100, products in TF32',
    ),
    (
      dict(devices=['NVIDIA H100'], deterministic=False),
      'devices: 1 NVIDIA H100, not the same bits each time',
    ),
  ],
)
def test_header_of_other_runs(changes, line):
  assert line in format_header(**(DIGITS | changes)).splitlines()
