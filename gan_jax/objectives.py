"""The games: what D and G minimise, as losses on D's logits.

D's output is never squashed and logged: with `l` a logit,
`log D = -softplus(-l)` and `log(1 - D) = -softplus(l)` are finite for every
finite `l`, in bfloat16 too. A loss is a mean over the batch. To add a game,
write its two losses and add one entry to `OBJECTIVES`; the flag and the tests
pick it up.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Logits = Float[Array, ' batch']
Scalar = Float[Array, '']

softplus = jax.nn.softplus


class Objective(NamedTuple):
  """Two losses, both descended.

  Attributes:
    d_loss: `(real_logits, fake_logits, real_label) -> scalar`, D's loss.
    g_loss: `fake_logits -> scalar`, G's loss.
    equilibrium: `(d_loss, g_loss)` where D says 1/2 everywhere.
  """

  d_loss: Callable[[Logits, Logits, float | Scalar], Scalar]
  g_loss: Callable[[Logits], Scalar]
  equilibrium: tuple[float, float]


def classify(
  real: Logits, fake: Logits, real_label: float | Scalar = 1.0
) -> Scalar:
  """D's move: cross-entropy with real labelled 1 and generated labelled 0.

  `-E[log D(x)] - E[log(1 - D(G(z)))]`, which is `-V(D, G)`; log 4 at the
  equilibrium D = 1/2. Slope per logit: `-(1 - D)` on real, `D` on generated.

  Args:
    real: logits of real samples.
    fake: logits of generated samples.
    real_label: label of the real samples, 1 or (one-sided label smoothing,
      Salimans et al. 2016, arXiv:1606.03498, section 3.4) a little less.
      The label of generated samples stays 0.

  Reference: Goodfellow et al. 2014, arXiv:1406.2661, equation 1.

  >>> classify(jnp.zeros(4), jnp.zeros(4))
  Array(1.3862944, dtype=float32)
  """
  real_term = real_label * softplus(-real) + (1 - real_label) * softplus(real)
  return jnp.mean(real_term) + jnp.mean(softplus(fake))


def minimax_g(fake: Logits) -> Scalar:
  """G's move in the min-max game: descend `E[log(1 - D(G(z)))]`.

  -log 2 at the equilibrium. Slope per logit `-D`: it vanishes where D is sure
  that the sample is generated, which is where G has most to learn.

  Reference: Goodfellow et al. 2014, arXiv:1406.2661, equation 1.
  """
  return -jnp.mean(softplus(fake))


def non_saturating_g(fake: Logits) -> Scalar:
  """G's move with the labels turned: descend `-E[log D(G(z))]`.

  The cross-entropy of generated samples labelled 1; log 2 at the equilibrium.
  Slope per logit `-(1 - D)`: strongest where D is sure of itself.

  Reference: Goodfellow et al. 2014, arXiv:1406.2661, section 3.
  """
  return jnp.mean(softplus(-fake))


_LOG2 = 0.6931471805599453

minimax = Objective(classify, minimax_g, (2 * _LOG2, -_LOG2))
non_saturating = Objective(classify, non_saturating_g, (2 * _LOG2, _LOG2))

OBJECTIVES: dict[str, Objective] = {
  'minimax': minimax,
  'non_saturating': non_saturating,
}


def value(real: Logits, fake: Logits) -> Scalar:
  """The value `V(D, G) = E[log D(x)] + E[log(1 - D(G(z)))]`, in nats.

  -log 4 where D = 1/2; its maximum over D is `-log 4 + 2 JSD(p, q)`.

  Reference: Goodfellow et al. 2014, arXiv:1406.2661, equation 1, theorem 1.
  """
  return -classify(real, fake)


def jsd_bound(v: Scalar) -> Scalar:
  """Lower bound on the Jensen-Shannon divergence that a value `v` proves.

  `(v + log 4) / 2`, in nats: no more than JSD(p, q), since V at any D is no
  more than V at the best one. Negative while D is worse than a constant 1/2.
  """
  return (v + 2 * _LOG2) / 2
