"""Precision, recall, density and coverage: are samples good, are all there?

Around each sample of a set lies a ball that reaches to its k-th nearest
neighbour in that set. Precision: the part of the fakes in some ball of a real
sample; recall: the part of the real samples in some ball of a fake. Density:
in how many real balls a fake lies, over k; coverage: the part of the real
samples whose ball has a fake in it.

Precision and recall take balls as closed, density and coverage as open, each as
their authors do; it matters for sets with equal distances only.

Reference: Kynkäänniemi et al. 2019, arXiv:1904.06991, equations 1 and 2, k = 3;
Naeem et al. 2020, arXiv:2002.09797, equations 2 and 3, k = 5.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gan_jax.metrics import arrays, blocks

K_PR = 3
K_DC = 5


@jax.jit
def _cross(
  a: Any, b: Any, centre: Any, slack: Any, radii: Any, valid: Any
) -> Any:
  """What one block of pairs, real (rows) and fake (columns), adds.

  Args:
    a: real samples (rows, dim).
    b: fakes (columns, dim).
    centre: (1, dim).
    slack: squared distances closer than this are equal.
    radii: squared: of the real balls for precision and for density, (rows, 1)
      each, and of the fake ones for recall, (1, columns).
    valid: which pairs are of no padding.

  Returns:
    Whether each fake is in a real ball, whether each real sample is in a fake
    one, whether each real ball has a fake, and how many times one has.
  """
  away = blocks.squared(a, b, centre)
  real_pr, real_dc, fake_pr = radii
  precise = jnp.any((away <= real_pr + slack) & valid, axis=0)
  recalled = jnp.any((away <= fake_pr + slack) & valid, axis=1)
  inside = (away + slack < real_dc) & valid
  return precise, recalled, jnp.any(inside, axis=1), jnp.sum(inside)


def _radii(x: NDArray[Any], *ks: int) -> list[NDArray[np.float64]]:
  """Squared distance of each sample to its k-th neighbour, for each k."""
  _, away = blocks.nearest(x, x, max(ks), itself=False)
  return [np.square(away[:, k - 1]) for k in ks]


def _padded(x: NDArray[Any], block: blocks.Block) -> NDArray[Any]:
  part = np.zeros(block.x.shape[0], x.dtype)
  part[: block.filled] = x[block.rows]
  return part


def prdc(
  real: Any, fake: Any, *, seed: int = 0, k_pr: int = K_PR, k_dc: int = K_DC
) -> dict[str, float]:
  """Precision, recall, density and coverage of features.

  They depend on the numbers of samples: compare those of equal numbers.

  Args:
    real: (n, dim), more than k.
    fake: (m, dim), more than k.
    seed: not read: nothing is drawn.
    k_pr: neighbours that a ball of precision and recall reaches to.
    k_dc: of density and coverage.

  Returns:
    precision, recall, coverage: in [0, 1]; density: 1 for like sets, and no
    bound above.

  Raises:
    ValueError: if they are not two tables of finite numbers of one width, too
      few, or if all real samples are the same.
  """
  del seed
  if min(k_pr, k_dc) < 1:
    raise ValueError(f'k_pr={k_pr}, k_dc={k_dc}: use 1 or more')
  real, fake = arrays.two_sets(real, fake, max(k_pr, k_dc) + 1)
  if (real == real[0]).all():
    raise arrays.SetupError(
      'all real samples are the same: their balls are points'
    )
  real_pr, real_dc = _radii(real, k_pr, k_dc)
  fake_pr, _ = _radii(fake, k_pr, k_dc)  # one program for both
  precise, recalled = np.zeros(len(fake), bool), np.zeros(len(real), bool)
  covered, count = np.zeros(len(real), bool), 0
  rows = blocks.rows_for(len(real), len(fake))
  across = np.arange(rows)
  with blocks.x64():
    centre = blocks.centre_of(real)
    slack = blocks.slack_of(centre, real, fake)
    for a, b in blocks.pairs(
      blocks.split(real, rows), blocks.split(fake, rows)
    ):
      radii = (
        _padded(real_pr, a)[:, None],
        _padded(real_dc, a)[:, None],
        _padded(fake_pr, b)[None, :],
      )
      valid = (across < a.filled)[:, None] & (across < b.filled)[None, :]
      p, r, c, inside = _cross(a.x, b.x, centre, slack, radii, valid)
      precise[b.rows] |= np.asarray(p)[: b.filled]
      recalled[a.rows] |= np.asarray(r)[: a.filled]
      covered[a.rows] |= np.asarray(c)[: a.filled]
      count += int(inside)
  return {
    'precision': float(precise.mean()),
    'recall': float(recalled.mean()),
    'density': count / (k_dc * len(fake)),
    'coverage': float(covered.mean()),
  }
