"""The games: what D and G minimise, as losses on D's logits.

D's output is never squashed and logged: with `l` a logit,
`log D = -softplus(-l)` and `log(1 - D) = -softplus(l)` are finite for every
finite `l`, in bfloat16 too. A loss is a mean over the batch. To add a game,
write its two losses and add one entry to `OBJECTIVES`; the flag and the tests
pick it up.

Not here: games whose D is an autoencoder (EBGAN, BEGAN). What they descend is
no function of one logit a sample, and BEGAN's weight is a state of its own.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.game import divergences

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


def _average(on_real: Any, on_fake: Any, real: Any, fake: Any) -> Scalar:
  """`E[on_real(r)] + E[on_fake(f)]`: each sample against the other kind's mean.

  `r = D(x) - E D(G(z))` and `f = D(G(z)) - E D(x)`, as in all that follows.
  """
  real_term = jnp.mean(on_real(real - jnp.mean(fake)))
  return real_term + jnp.mean(on_fake(fake - jnp.mean(real)))


def average_d(real: Logits, fake: Logits, labels: Labels) -> Scalar:
  """D's move: `E[softplus(-r)] + E[softplus(f)]`, cross-entropy of averages.

  log 4 at the equilibrium. With s the sigmoid, the slope per real logit is
  `-s(-r) - E[s(f)]`, per generated logit `s(f) + E[s(-r)]`; -1 and 1 there.

  Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734, section 4 (RaSGAN).
  """
  del labels
  return _average(lambda r: softplus(-r), softplus, real, fake)


def average_ls_d(real: Logits, fake: Logits, labels: Labels) -> Scalar:
  """D's move: `E[(r - 1)^2] + E[(f + 1)^2]`, on the raw output.

  2 at the equilibrium. Slope per real output `2 (r - 1) - 2 E[f + 1]`, per
  generated output `2 (f + 1) - 2 E[r - 1]`; -4 and 4 there.

  Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734, section 4 (RaLSGAN).
  """
  del labels
  return _average(
    lambda r: jnp.square(r - 1), lambda f: jnp.square(f + 1), real, fake
  )


def average_hinge_d(real: Logits, fake: Logits, labels: Labels) -> Scalar:
  """D's move: `E[max(0, 1 - r)] + E[max(0, 1 + f)]`.

  2 at the equilibrium. With `[.]` 1 where it holds and 0 elsewhere, the slope
  per real output is `-[r < 1] - E[f > -1]`, per generated output `[f > -1] +
  E[r < 1]`; -2 and 2 there.

  Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734, section 4 (RaHingeGAN).
  """
  del labels
  return _average(
    lambda r: jax.nn.relu(1 - r), lambda f: jax.nn.relu(1 + f), real, fake
  )


def _relativistic_average(d_loss: Any, equilibrium: float) -> Objective:
  """G's move is D's with the kinds exchanged; so are its value and slopes.

  Its slope per generated logit is what D's is per real one, r and f exchanged.
  """

  def g_loss(real: Logits, fake: Logits, labels: Labels) -> Scalar:
    loss: Scalar = d_loss(fake, real, labels)
    return loss

  return Objective(
    d_loss,
    g_loss,
    Equilibrium(0.0, equilibrium, equilibrium),
    log_ratio=None,
    relativistic=True,
  )


relativistic_average = _relativistic_average(average_d, 2 * _LOG2)
relativistic_average_ls = _relativistic_average(average_ls_d, 2.0)
relativistic_average_hinge = _relativistic_average(average_hinge_d, 2.0)


# f-GANs: any f-divergence from its convex conjugate (`divergences.py`).


def _f_gan(f: divergences.Divergence) -> Objective:
  """The two losses of an f-divergence, as `Divergence` says.

  `E[f*(T(D(G(z))))] - E[T(D(x))]` for D, `-E[f*(T(D(G(z))))]` for G.
  """

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
  'fgan_kl': _f_gan(divergences.KL),
  'fgan_reverse_kl': _f_gan(divergences.REVERSE_KL),
  'fgan_pearson': _f_gan(divergences.PEARSON),
  'fgan_neyman': _f_gan(divergences.NEYMAN),
  'fgan_hellinger': _f_gan(divergences.HELLINGER),
  'fgan_jensen_shannon': _f_gan(divergences.JENSEN_SHANNON),
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
