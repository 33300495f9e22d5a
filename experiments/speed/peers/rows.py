"""The workloads of the table, as options of `gan_jax.train`."""

from typing import Any, NamedTuple


class Row(NamedTuple):
  """A workload.

  Attributes:
    shape: of a sample.
    batch: samples.
    options: of the trainer.
    steps: of one measurement of a round.
    scanned: steps in one dispatch of ours.
    data: samples in memory.
    warm: steps before the comparison. G's first images are next to constant,
      and batch normalisation in D divides rounding by what little they differ
      in; a hinge loss that D has won has no gradient.
  """

  shape: tuple[int, ...]
  batch: int
  options: dict[str, Any]
  steps: int = 4
  scanned: int = 4
  data: int = 4096
  warm: int = 32


_RESNET = dict(network='resnet', width=32, objective='hinge')
_IMAGE, _TOY = (32, 32, 3), dict(steps=2000, scanned=1000, data=65536)
ROWS: dict[str, Row] = {
  'mlp32': Row(
    (2,), 64, dict(network='mlp', width=32, depth=2, latent_dim=2), **_TOY
  ),
  'mlp128': Row(
    (2,), 256, dict(network='mlp', width=128, depth=2, latent_dim=8), **_TOY
  )._replace(steps=500, scanned=500),
  'mlp28': Row(
    (28, 28, 1), 100, dict(network='mlp', width=512, depth=2), 40, 40
  ),
  'goodfellow2014': Row(
    (28, 28, 1), 100, dict(network='goodfellow2014'), 10, 10
  ),
  'dcgan': Row(_IMAGE, 64, dict(network='dcgan', width=64)),
  'dcgan_r1': Row(
    _IMAGE,
    64,
    dict(network='dcgan', width=64, norm_d='none', regularizer='r1'),
  ),
  'dcgan_gp': Row(
    _IMAGE,
    64,
    dict(
      network='dcgan',
      width=64,
      norm_d='layer',
      objective='wasserstein',
      regularizer='wgan_gp',
    ),
  ),
  'infogan': Row((28, 28, 1), 64, dict(network='infogan', width=64)),
  'resnet': Row(_IMAGE, 64, _RESNET),
  'resnet_5': Row(_IMAGE, 64, dict(_RESNET, d_steps=5), 2, 2, warm=2),
}
