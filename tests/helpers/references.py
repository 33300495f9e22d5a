"""Every objective in float64 NumPy, written from its paper."""

import numpy as np

from gan_jax.game.objectives import OBJECTIVES, PLAIN

F_GANS = [name for name in OBJECTIVES if name.startswith('fgan_')]


def softplus64(x):
  return np.logaddexp(0.0, np.asarray(x, np.float64))


def relu64(x):
  return np.maximum(np.asarray(x, np.float64), 0)


def bce(real, fake, labels=PLAIN):
  """-E[log D(x)] - E[log(1 - D(G(z)))] with smoothed real labels."""
  one = labels.real
  real_term = one * softplus64(-real) + (1 - one) * softplus64(real)
  return real_term.mean() + softplus64(fake).mean()


def average(up, down):
  """The pair of losses of a relativistic average game."""

  def d_loss(real, fake, labels):
    return up(real - fake.mean()).mean() + down(fake - real.mean()).mean()

  return d_loss, lambda real, fake, labels: d_loss(fake, real, labels)


# f(u), f'(u) and f*(t) of each divergence, and T(v), by the book.
DIVERGENCES = {
  'fgan_kl': (
    lambda u: u * np.log(u),
    lambda u: 1 + np.log(u),
    lambda t: np.exp(t - 1),
    lambda v: v,
  ),
  'fgan_reverse_kl': (
    lambda u: -np.log(u),
    lambda u: -1 / u,
    lambda t: -1 - np.log(-t),
    lambda v: -np.exp(-v),
  ),
  'fgan_pearson': (
    lambda u: (u - 1) ** 2,
    lambda u: 2 * (u - 1),
    lambda t: t**2 / 4 + t,
    lambda v: v,
  ),
  'fgan_neyman': (
    lambda u: (1 - u) ** 2 / u,
    lambda u: 1 - 1 / u**2,
    lambda t: 2 - 2 * np.sqrt(1 - t),
    lambda v: 1 - np.exp(-v),
  ),
  'fgan_hellinger': (
    lambda u: (np.sqrt(u) - 1) ** 2,
    lambda u: 1 - 1 / np.sqrt(u),
    lambda t: t / (1 - t),
    lambda v: 1 - np.exp(-v),
  ),
  'fgan_jensen_shannon': (
    lambda u: u * np.log(u) - (u + 1) * np.log((u + 1) / 2),
    lambda u: np.log(2 * u / (1 + u)),
    lambda t: -np.log(2 - np.exp(t)),
    lambda v: np.log(2) - softplus64(-v),
  ),
}


def f_gan(name):
  _, _, conjugate, activation = DIVERGENCES[name]

  def g_loss(real, fake, labels):
    return -conjugate(activation(fake)).mean()

  def d_loss(real, fake, labels):
    return -activation(real).mean() - g_loss(real, fake, labels)

  return d_loss, g_loss


HINGE = (
  lambda real, fake, _: relu64(1 - real).mean() + relu64(1 + fake).mean(),
  lambda real, fake, _: -fake.mean(),
)

# (d_loss, g_loss) of each objective, each (real, fake, labels), in float64.
REFERENCE = {
  'minimax': (bce, lambda real, fake, _: -softplus64(fake).mean()),
  'non_saturating': (bce, lambda real, fake, _: softplus64(-fake).mean()),
  'least_squares': (
    lambda real, fake, at: (
      ((real - at.real) ** 2).mean() / 2 + ((fake - at.fake) ** 2).mean() / 2
    ),
    lambda real, fake, at: ((fake - at.target) ** 2).mean() / 2,
  ),
  'wasserstein': (
    lambda real, fake, _: fake.mean() - real.mean(),
    lambda real, fake, _: -fake.mean(),
  ),
  'hinge': HINGE,
  'geometric': HINGE,
  'relativistic': (
    lambda real, fake, _: softplus64(-(real - fake)).mean(),
    lambda real, fake, _: softplus64(-(fake - real)).mean(),
  ),
  'relativistic_average': average(lambda t: softplus64(-t), softplus64),
  'relativistic_average_ls': average(
    lambda t: (t - 1) ** 2, lambda t: (t + 1) ** 2
  ),
  'relativistic_average_hinge': average(
    lambda t: relu64(1 - t), lambda t: relu64(1 + t)
  ),
} | {name: f_gan(name) for name in F_GANS}
