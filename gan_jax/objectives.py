"""The games: what D and G minimise, as losses on D's logits.

D's output is never squashed and logged: with `l` a logit,
`log D = -softplus(-l)` and `log(1 - D) = -softplus(l)` are finite for every
finite `l`, in bfloat16 too. A loss is a mean over the batch. To add a game,
write its two losses and add one entry to `OBJECTIVES`; the flag and the tests
pick it up.

Not here: games whose D is an autoencoder (EBGAN, BEGAN). What they descend is
no function of one logit a sample, and BEGAN's weight is a state of its own.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Logits = Float[Array, ' batch']
Scalar = Float[Array, '']

softplus = jax.nn.softplus


class Labels(NamedTuple):
  """What samples are labelled, for the games that label them.

  Attributes:
    real: in D's move; 1, or with one-sided smoothing a little less.
    fake: generated samples in D's move.
    target: generated samples in G's move.
  """

  real: float | Scalar = 1.0
  fake: float | Scalar = 0.0
  target: float | Scalar = 1.0


PLAIN = Labels()


class Equilibrium(NamedTuple):
  """Where D can tell nothing apart: what it says, and both losses there.

  Attributes:
    logit: D's output; where any constant will do, 0.
    d_loss: with the labels' defaults.
    g_loss: likewise.
  """

  logit: float
  d_loss: float
  g_loss: float


def _same(logits: Any, labels: Labels = PLAIN) -> Any:
  del labels
  return logits


class Objective(NamedTuple):
  """Two losses, both descended.

  Attributes:
    d_loss: `(real_logits, fake_logits, labels) -> scalar`, D's loss.
    g_loss: `(real_logits, fake_logits, labels) -> scalar`, G's loss; the real
      logits are None unless the game is relativistic.
    equilibrium: of the game.
    log_ratio: `(logits, labels)` to the log density ratio `log p/q` that they
      say, at the labels' defaults if these are left out; None for a game whose
      D knows none.
    relativistic: whether G's loss needs the real logits.
    labels: those fields of `Labels` that the losses read.
  """

  d_loss: Callable[[Logits, Logits, Labels], Scalar]
  g_loss: Callable[[Any, Logits, Labels], Scalar]
  equilibrium: Equilibrium
  log_ratio: Callable[..., Logits] | None = _same
  relativistic: bool = False
  labels: tuple[str, ...] = ()


# Cross-entropy: the game of 2014.


def classify(real: Logits, fake: Logits, labels: Labels = PLAIN) -> Scalar:
  """D's move: cross-entropy with real labelled 1 and generated labelled 0.

  `-E[log D(x)] - E[log(1 - D(G(z)))]`, which is `-V(D, G)`; log 4 at the
  equilibrium D = 1/2. Slope per logit: `-(1 - D)` on real, `D` on generated.

  Args:
    real: logits of real samples.
    fake: logits of generated samples.
    labels: `real` is read: 1 or (one-sided label smoothing, Salimans et al.
      2016, arXiv:1606.03498, section 3.4) a little less. The label of generated
      samples stays 0.

  Reference: Goodfellow et al. 2014, arXiv:1406.2661, equation 1.

  >>> classify(jnp.zeros(4), jnp.zeros(4))
  Array(1.3862944, dtype=float32)
  """
  one = labels.real
  real_term = one * softplus(-real) + (1 - one) * softplus(real)
  return jnp.mean(real_term) + jnp.mean(softplus(fake))


def minimax_g(real: Any, fake: Logits, labels: Labels = PLAIN) -> Scalar:
  """G's move in the min-max game: descend `E[log(1 - D(G(z)))]`.

  -log 2 at the equilibrium. Slope per logit `-D`: it vanishes where D is sure
  that the sample is generated, which is where G has most to learn.

  Reference: Goodfellow et al. 2014, arXiv:1406.2661, equation 1.
  """
  del real, labels
  return -jnp.mean(softplus(fake))


def non_saturating_g(real: Any, fake: Logits, labels: Labels = PLAIN) -> Scalar:
  """G's move with the labels turned: descend `-E[log D(G(z))]`.

  The cross-entropy of generated samples labelled 1; log 2 at the equilibrium.
  Slope per logit `-(1 - D)`: strongest where D is sure of itself.

  Reference: Goodfellow et al. 2014, arXiv:1406.2661, section 3.
  """
  del real, labels
  return jnp.mean(softplus(-fake))


_LOG2 = math.log(2)

minimax = Objective(
  classify,
  minimax_g,
  Equilibrium(0.0, 2 * _LOG2, -_LOG2),
  labels=('real',),
)
non_saturating = Objective(
  classify,
  non_saturating_g,
  Equilibrium(0.0, 2 * _LOG2, _LOG2),
  labels=('real',),
)


# Least squares.


def least_squares_d(real: Logits, fake: Logits, labels: Labels) -> Scalar:
  """D's move: regress real samples to b, generated ones to a.

  `E[(D(x) - b)^2] / 2 + E[(D(G(z)) - a)^2] / 2` on the raw output, with b =
  `labels.real` and a = `labels.fake`; 1/4 at the equilibrium D = 1/2 of the
  defaults a = 0, b = 1. Slope per output: `D - b` on real, `D - a` on
  generated. The best D is `(b p + a q) / (p + q)`.

  Reference: Mao et al. 2017, arXiv:1611.04076, equation 2.
  """
  real_term = jnp.mean(jnp.square(real - labels.real))
  return (real_term + jnp.mean(jnp.square(fake - labels.fake))) / 2


def least_squares_g(real: Any, fake: Logits, labels: Labels) -> Scalar:
  """G's move: `E[(D(G(z)) - c)^2] / 2`, with c = `labels.target`.

  1/8 at the equilibrium of the defaults, c = 1. Slope per output: `D - c`.

  Reference: Mao et al. 2017, arXiv:1611.04076, equation 2.
  """
  del real
  return jnp.mean(jnp.square(fake - labels.target)) / 2


def _least_squares_ratio(logits: Any, labels: Labels = PLAIN) -> Any:
  # D = (b p + a q) / (p + q), read within what a probability can be.
  share = (logits - labels.fake) / (labels.real - labels.fake)
  d = jnp.clip(share, 1e-4, 1 - 1e-4)
  return jnp.log(d) - jnp.log1p(-d)


least_squares = Objective(
  least_squares_d,
  least_squares_g,
  Equilibrium(0.5, 0.25, 0.125),
  log_ratio=_least_squares_ratio,
  labels=('real', 'fake', 'target'),
)


# Integral probability metrics and margins.


def wasserstein_d(real: Logits, fake: Logits, labels: Labels) -> Scalar:
  """D's move: descend `E[D(G(z))] - E[D(x)]`; 0 at the equilibrium.

  Slope per output: -1 on real, 1 on generated. Minus the Wasserstein-1 distance
  if D is the best of the 1-Lipschitz functions, which something else must see
  to: weight clipping, a gradient penalty, spectral normalisation.

  Reference: Arjovsky et al. 2017, arXiv:1701.07875, equation 2.
  """
  del labels
  return jnp.mean(fake) - jnp.mean(real)


def critic_g(real: Any, fake: Logits, labels: Labels) -> Scalar:
  """G's move: descend `-E[D(G(z))]`; slope per output -1 everywhere.

  0 where D is 0.

  Reference: Arjovsky et al. 2017, arXiv:1701.07875, theorem 3.
  """
  del real, labels
  return -jnp.mean(fake)


wasserstein = Objective(
  wasserstein_d, critic_g, Equilibrium(0.0, 0.0, 0.0), log_ratio=None
)


def hinge_d(real: Logits, fake: Logits, labels: Labels) -> Scalar:
  """D's move: `E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]`.

  2 at the equilibrium. Slope per output: -1 on real below the margin 1, 1 on
  generated above the margin -1, else 0.

  Reference: Lim & Ye 2017, arXiv:1705.02894, equation 17; Miyato et al. 2018,
  arXiv:1802.05957, equation 16.
  """
  del labels
  return jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))


# Lim & Ye's "geometric GAN" is where the hinge game comes from: its D is a
# support vector machine, its G moves along the normal of the hyperplane. The
# losses are the same two; its `|w|^2 / 2` of the last layer is a penalty.
hinge = Objective(hinge_d, critic_g, Equilibrium(0.0, 2.0, 0.0), log_ratio=None)


# Relativistic games: D says how much more real the real sample is.


def relativistic_d(real: Logits, fake: Logits, labels: Labels) -> Scalar:
  """D's move: `E[softplus(-(D(x) - D(G(z))))]` over pairs.

  log 2 at the equilibrium. With s the sigmoid of `D(G(z)) - D(x)`, the slope
  per logit is -s on real, s on generated.

  Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734, equation 10; Huang et
  al. 2025 (R3GAN), arXiv:2501.05441, equation 2.
  """
  del labels
  return jnp.mean(softplus(fake - real))


def relativistic_g(real: Logits, fake: Logits, labels: Labels) -> Scalar:
  """G's move: the pairs turned round, `E[softplus(-(D(G(z)) - D(x)))]`.

  log 2 at the equilibrium. Slope per generated logit: minus the sigmoid of
  `D(x) - D(G(z))`.

  Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734, equation 11.
  """
  del labels
  return jnp.mean(softplus(real - fake))


relativistic = Objective(
  relativistic_d,
  relativistic_g,
  Equilibrium(0.0, _LOG2, _LOG2),
  log_ratio=None,
  relativistic=True,
)


def _average_d(real: Any, fake: Any, labels: Any, *, up: Any, down: Any) -> Any:
  """D's move: each sample against the mean of the other kind.

  `E[up(D(x) - E D(G(z)))] + E[down(D(G(z)) - E D(x))]`.

  Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734, section 4.
  """
  del labels
  real_term = jnp.mean(up(real - jnp.mean(fake)))
  return real_term + jnp.mean(down(fake - jnp.mean(real)))


def _average_g(real: Any, fake: Any, labels: Any, *, up: Any, down: Any) -> Any:
  """G's move: D's with real and generated exchanged."""
  return _average_d(fake, real, labels, up=up, down=down)


def _relativistic_average(up: Any, down: Any, equilibrium: float) -> Objective:
  return Objective(
    functools.partial(_average_d, up=up, down=down),
    functools.partial(_average_g, up=up, down=down),
    Equilibrium(0.0, equilibrium, equilibrium),
    log_ratio=None,
    relativistic=True,
  )


# log 4 at the equilibrium; slopes of cross-entropy in the differences.
relativistic_average = _relativistic_average(
  lambda t: softplus(-t), softplus, 2 * _LOG2
)
# Differences regressed to 1 and -1; 2 at the equilibrium.
relativistic_average_ls = _relativistic_average(
  lambda t: jnp.square(t - 1), lambda t: jnp.square(t + 1), 2.0
)
# Differences to beyond the margins 1 and -1; 2 at the equilibrium.
relativistic_average_hinge = _relativistic_average(
  lambda t: jax.nn.relu(1 - t), lambda t: jax.nn.relu(1 + t), 2.0
)


# f-GANs: any f-divergence from its convex conjugate.

_STEEPEST = 30.0


def _exp(t: Any) -> Any:
  """`e^t`, gone on along its tangent beyond 30; finite, and convex as before.

  Density ratios of 10^13 are out of reach of any batch; a logit that strays
  there would end the run by one overflow.
  """
  inside = jnp.exp(jnp.minimum(t, _STEEPEST))
  return jnp.where(
    t < _STEEPEST, inside, math.exp(_STEEPEST) * (1 + t - _STEEPEST)
  )


class Divergence(NamedTuple):
  """An f-divergence `E_q[f(p / q)]` as a game of D's output v.

  D's move ascends `E_p[T(v)] - E_q[f*(T(v))]`, which is the divergence at the
  best D, where `T(v) = f'(p / q)`; G descends the same. 0 at the equilibrium
  for D's loss.

  Attributes:
    activation: `v -> T`, onto the domain of `f*`.
    conjugate: `v -> f*(T(v))`, simplified.
    equilibrium: D's output where p = q, and G's loss there, `-f'(1)`.
    log_ratio: `log p/q` that an output says.

  Reference: Nowozin et al. 2016, arXiv:1606.00709, equation 6 and table 6.
  """

  activation: Callable[[Any], Any]
  conjugate: Callable[[Any], Any]
  equilibrium: tuple[float, float]
  log_ratio: Callable[[Any], Any]


# Each: f(u); slopes per output on real and generated samples in D's move (the
# one on generated samples, negated, is G's).
_KL = Divergence(  # u log u; -1, e^(v-1)
  activation=_same,
  conjugate=lambda v: _exp(v - 1),
  equilibrium=(1.0, -1.0),
  log_ratio=lambda v: v - 1,
)
_REVERSE_KL = Divergence(  # -log u; -e^-v, 1
  activation=lambda v: -_exp(-v),
  conjugate=lambda v: v - 1,
  equilibrium=(0.0, 1.0),
  log_ratio=_same,
)
_PEARSON = Divergence(  # (u - 1)^2; -1, v/2 + 1
  activation=_same,
  conjugate=lambda v: jnp.square(v) / 4 + v,
  equilibrium=(0.0, 0.0),
  log_ratio=lambda v: jnp.log(jnp.maximum(1 + v / 2, 1e-4)),
)
_NEYMAN = Divergence(  # (1 - u)^2 / u; -e^-v, e^(-v/2)
  activation=lambda v: 1 - _exp(-v),
  conjugate=lambda v: 2 - 2 * _exp(-v / 2),
  equilibrium=(0.0, 0.0),
  log_ratio=lambda v: v / 2,
)
_HELLINGER = Divergence(  # (sqrt(u) - 1)^2; -e^-v, e^v
  activation=lambda v: 1 - _exp(-v),
  conjugate=lambda v: _exp(v) - 1,
  equilibrium=(0.0, 0.0),
  log_ratio=lambda v: 2 * v,
)
_JENSEN_SHANNON = Divergence(  # u log u - (u+1) log((u+1)/2); -(1 - D), D
  activation=lambda v: _LOG2 - softplus(-v),
  conjugate=lambda v: softplus(v) - _LOG2,
  equilibrium=(0.0, 0.0),
  log_ratio=_same,
)


def _f_gan(f: Divergence) -> Objective:
  """The two losses of an f-divergence."""

  def d_loss(real: Logits, fake: Logits, labels: Labels) -> Scalar:
    del labels
    return jnp.mean(f.conjugate(fake)) - jnp.mean(f.activation(real))

  def g_loss(real: Any, fake: Logits, labels: Labels) -> Scalar:
    del real, labels
    return -jnp.mean(f.conjugate(fake))

  def log_ratio(logits: Any, labels: Labels = PLAIN) -> Any:
    del labels
    return f.log_ratio(logits)

  logit, g_equilibrium = f.equilibrium
  return Objective(
    d_loss,
    g_loss,
    Equilibrium(logit, 0.0, g_equilibrium),
    log_ratio=log_ratio,
  )


OBJECTIVES: dict[str, Objective] = {
  'minimax': minimax,
  'non_saturating': non_saturating,
  'least_squares': least_squares,
  'wasserstein': wasserstein,
  'hinge': hinge,
  'geometric': hinge,
  'relativistic': relativistic,
  'relativistic_average': relativistic_average,
  'relativistic_average_ls': relativistic_average_ls,
  'relativistic_average_hinge': relativistic_average_hinge,
  'fgan_kl': _f_gan(_KL),
  'fgan_reverse_kl': _f_gan(_REVERSE_KL),
  'fgan_pearson': _f_gan(_PEARSON),
  'fgan_neyman': _f_gan(_NEYMAN),
  'fgan_hellinger': _f_gan(_HELLINGER),
  'fgan_jensen_shannon': _f_gan(_JENSEN_SHANNON),
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
