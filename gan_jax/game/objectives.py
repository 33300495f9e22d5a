"""The objectives: what D and G descend, as losses on D's logits.

D's output is never squashed and logged: with `l` a logit,
`log D = -softplus(-l)` and `log(1 - D) = -softplus(l)` are finite for every
finite `l`, in bfloat16 too. A loss is a mean over the batch.

To add one, derive a class from `Objective`, say what the tests need of it
(`reference`, `equilibrium`) beside its losses, and give it an entry in
`OBJECTIVES`; the flag and the tests find it there (the tests are
`gan_jax.testing.check_objective`).

Not here: games whose D is an autoencoder (EBGAN, BEGAN). What they descend is
no function of one logit a sample, and BEGAN's weight is a state of its own.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gan_jax.game import divergences
from gan_jax.game.component import Component, static
from gan_jax.runtime.errors import ArgumentError

Logits = Float[Array, ' n']
Scalar = Float[Array, '']
Vector = Float[np.ndarray, ' n']

softplus = jax.nn.softplus
_LOG2 = math.log(2)


class Equilibrium(NamedTuple):
  """Where D can tell nothing apart: what it says, and both losses there.

  Attributes:
    logit: D's output; where any constant will do, 0.
    d_loss: with the hyper-parameters' defaults.
    g_loss: likewise.
  """

  logit: float
  d_loss: float
  g_loss: float


class Objective(Component):
  """Two losses on D's logits, both descended; means over the batch.

  A subclass overrides `d_loss` and `g_loss`; its float fields are
  hyper-parameters (`objective.temperature`).

  Attributes:
    relativistic: whether `g_loss` reads the real logits.
    equilibrium: the values where generated samples are distributed as the
      data, for the tests; None where it is not known.

  >>> class SoftHinge(Objective):
  ...   temperature: float = 1.0
  ...
  ...   def d_loss(self, real, fake):
  ...     t = self.temperature
  ...     real_term = jnp.mean(softplus((1 - real) / t))
  ...     return real_term + jnp.mean(softplus((1 + fake) / t))
  ...
  ...   def g_loss(self, real, fake):
  ...     return -jnp.mean(fake)
  >>> SoftHinge(temperature=0.5).name
  'soft_hinge'
  """

  relativistic: ClassVar[bool] = False
  equilibrium: ClassVar[Equilibrium | None] = None

  def d_loss(self, real: Logits, fake: Logits) -> Scalar:
    """D's loss, from its logits (n,) on real and on generated samples."""
    raise NotImplementedError('give `d_loss(self, real, fake)`')

  def g_loss(self, real: Logits | None, fake: Logits) -> Scalar:
    """G's loss; `real` is None unless the objective is relativistic."""
    raise NotImplementedError('give `g_loss(self, real, fake)`')

  def log_ratio(self, logits: Logits) -> Logits | None:
    """The log density ratio `log p/q` that logits say; None: they say none."""
    del logits
    return None

  def reference(self, real: Vector, fake: Vector) -> tuple[float, float]:
    """Both losses in float64 NumPy, written independently, at its own fields.

    For the tests, which hold values and slopes against it.
    """
    raise NotImplementedError


def from_losses(
  d_loss: Callable[[Logits, Logits], Scalar],
  g_loss: Callable[[Any, Logits], Scalar],
  *,
  name: str,
  relativistic: bool = False,
) -> Objective:
  """An objective of two plain functions.

  Args:
    d_loss: `(real_logits, fake_logits) -> scalar`.
    g_loss: likewise; the real logits are None unless it is relativistic.
    name: what logs and records call it.
    relativistic: whether `g_loss` reads the real logits.

  Raises:
    ArgumentError: for a name that is no identifier, or no function.

  >>> critic = from_losses(
  ...   lambda real, fake: jnp.mean(fake) - jnp.mean(real),
  ...   lambda real, fake: -jnp.mean(fake),
  ...   name='critic',
  ... )
  >>> critic.d_loss(jnp.ones(2), jnp.zeros(2))
  Array(-1., dtype=float32)
  """
  if not name.isidentifier():
    raise ArgumentError('name', name, 'use a word of letters, digits and _')
  for argument, f in (('d_loss', d_loss), ('g_loss', g_loss)):
    if not callable(f):
      raise ArgumentError(argument, f, 'give a function of (real, fake) logits')
  kind = _RelativisticLosses if relativistic else _Losses
  return kind(d_loss, g_loss, name)


class _Losses(Objective):
  """Two plain functions."""

  d: Callable[[Logits, Logits], Scalar] = static()
  g: Callable[[Any, Logits], Scalar] = static()
  called: str = static()

  @property
  def name(self) -> str:
    """What it was called."""
    return self.called

  def d_loss(self, real: Logits, fake: Logits) -> Scalar:
    """The first function."""
    return self.d(real, fake)

  def g_loss(self, real: Logits | None, fake: Logits) -> Scalar:
    """The second function."""
    return self.g(real, fake)


class _RelativisticLosses(_Losses):
  """Two plain functions, the second of which reads the real logits."""

  relativistic: ClassVar[bool] = True


# Cross-entropy: the game of 2014.


def value(real: Logits, fake: Logits) -> Scalar:
  """The value `V(D, G) = E[log D(x)] + E[log(1 - D(G(z)))]`, in nats.

  -log 4 where D = 1/2; its maximum over D is `-log 4 + 2 JSD(p, q)`.

  Reference: Goodfellow et al. 2014, arXiv:1406.2661, equation 1, theorem 1.

  >>> value(jnp.zeros(4), jnp.zeros(4))
  Array(-1.3862944, dtype=float32)
  """
  return -jnp.mean(softplus(-real)) - jnp.mean(softplus(fake))


def jsd_bound(v: Scalar) -> Scalar:
  """Lower bound on the Jensen-Shannon divergence that a value `v` proves.

  `(v + log 4) / 2`, in nats: no more than JSD(p, q), since V at any D is no
  more than V at the best one. Negative while D is worse than a constant 1/2.
  """
  return (v + 2 * _LOG2) / 2


def _log_d(logits: Vector) -> Vector:
  return -np.logaddexp(0, -logits)


def _log_not_d(logits: Vector) -> Vector:
  return -np.logaddexp(0, logits)


class _CrossEntropy(Objective):
  """D's loss: cross-entropy with real labelled 1 and generated labelled 0.

  `-E[log D(x)] - E[log(1 - D(G(z)))]`, which is `-V(D, G)`; log 4 at the
  equilibrium D = 1/2. Slope per logit: `-(1 - D)` on real, `D` on generated.

  Attributes:
    smoothing: one-sided label smoothing: real samples are labelled 1 minus
      this (Salimans et al. 2016, arXiv:1606.03498, section 3.4); the label of
      generated samples stays 0. In [0, 1). TF-GAN mixes the label with 1/2: its
      default of 0.25 is 0.125 here.

  Reference: Goodfellow et al. 2014, arXiv:1406.2661, equation 1.
  """

  smoothing: float = 0.0

  def check(self) -> None:
    """Refuses labels outside of (0, 1]."""
    if not 0 <= self.smoothing < 1:
      raise ArgumentError(
        'smoothing', self.smoothing, 'use 0 (none) or more and less than 1'
      )

  def d_loss(self, real: Logits, fake: Logits) -> Scalar:
    """Cross-entropy of D's classification."""
    one = 1 - jnp.asarray(self.smoothing)
    real_term = one * softplus(-real) + (1 - one) * softplus(real)
    return jnp.mean(real_term) + jnp.mean(softplus(fake))

  def log_ratio(self, logits: Logits) -> Logits:
    """The logit itself: the best D is `p / (p + q)`."""
    return logits

  def _d_reference(self, real: Vector, fake: Vector) -> float:
    one = 1 - self.smoothing
    on_real = one * _log_d(real) + (1 - one) * _log_not_d(real)
    return -np.mean(on_real) - np.mean(_log_not_d(fake))


class Minimax(_CrossEntropy):
  """The min-max game: G descends `E[log(1 - D(G(z)))]`.

  G's loss is -log 2 at the equilibrium. Slope per logit `-D`: it vanishes where
  D is sure that the sample is generated, which is where G has most to learn.

  Attributes:
    smoothing: one-sided label smoothing of D's loss, 0 for none.

  Reference: Goodfellow et al. 2014, arXiv:1406.2661, equation 1.
  """

  equilibrium: ClassVar[Equilibrium] = Equilibrium(0.0, 2 * _LOG2, -_LOG2)

  def g_loss(self, real: Logits | None, fake: Logits) -> Scalar:
    """`E[log(1 - D(G(z)))]`."""
    del real
    return -jnp.mean(softplus(fake))

  def reference(self, real: Vector, fake: Vector) -> tuple[float, float]:
    """In float64 NumPy."""
    return self._d_reference(real, fake), np.mean(_log_not_d(fake))


class NonSaturating(_CrossEntropy):
  """The labels turned: G descends `-E[log D(G(z))]`.

  The cross-entropy of generated samples labelled 1; log 2 at the equilibrium.
  Slope per logit `-(1 - D)`: strongest where D is sure of itself.

  Attributes:
    smoothing: one-sided label smoothing of D's loss, 0 for none.

  Reference: Goodfellow et al. 2014, arXiv:1406.2661, section 3.
  """

  equilibrium: ClassVar[Equilibrium] = Equilibrium(0.0, 2 * _LOG2, _LOG2)

  def g_loss(self, real: Logits | None, fake: Logits) -> Scalar:
    """`-E[log D(G(z))]`."""
    del real
    return jnp.mean(softplus(-fake))

  def reference(self, real: Vector, fake: Vector) -> tuple[float, float]:
    """In float64 NumPy."""
    return self._d_reference(real, fake), -np.mean(_log_d(fake))


# Least squares.


class LeastSquares(Objective):
  """Least squares on the raw output: D regresses to b and a, G to c.

  D descends `E[(D(x) - b)^2] / 2 + E[(D(G(z)) - a)^2] / 2`, 1/4 at the
  equilibrium D = 1/2 of the defaults; slope per output `D - b` on real, `D - a`
  on generated; the best D is `(b p + a q) / (p + q)`. G descends
  `E[(D(G(z)) - c)^2] / 2`, 1/8 there; slope `D - c`.

  Attributes:
    real: b, the label of real samples.
    fake: a, that of generated samples.
    target: c, what G wants D to say.
    smoothing: subtracted from b.

  Reference: Mao et al. 2017, arXiv:1611.04076, equation 2.
  """

  real: float = 1.0
  fake: float = 0.0
  target: float = 1.0
  smoothing: float = 0.0

  equilibrium: ClassVar[Equilibrium] = Equilibrium(0.5, 0.25, 0.125)

  def check(self) -> None:
    """Refuses labels that are one."""
    if self.real - self.smoothing == self.fake:
      raise ArgumentError(
        'real',
        self.real,
        'is the label of generated samples too, and D would have nothing to'
        ' tell apart; use two numbers',
      )

  def d_loss(self, real: Logits, fake: Logits) -> Scalar:
    """Half the squared errors of D's regression."""
    b = jnp.asarray(self.real) - self.smoothing
    real_term = jnp.mean(jnp.square(real - b))
    return (real_term + jnp.mean(jnp.square(fake - self.fake))) / 2

  def g_loss(self, real: Logits | None, fake: Logits) -> Scalar:
    """Half the squared distance from c."""
    del real
    return jnp.mean(jnp.square(fake - self.target)) / 2

  def log_ratio(self, logits: Logits) -> Logits:
    """From D = (b p + a q) / (p + q), within what a probability can be."""
    b = jnp.asarray(self.real) - self.smoothing
    d = jnp.clip((logits - self.fake) / (b - self.fake), 1e-4, 1 - 1e-4)
    return jnp.log(d) - jnp.log1p(-d)

  def reference(self, real: Vector, fake: Vector) -> tuple[float, float]:
    """In float64 NumPy."""
    on_real = np.mean((real - (self.real - self.smoothing)) ** 2)
    d = float(on_real + np.mean((fake - self.fake) ** 2)) / 2
    return d, float(np.mean((fake - self.target) ** 2)) / 2


# Integral probability metrics and margins.


class Wasserstein(Objective):
  """The critic's game: D descends `E[D(G(z))] - E[D(x)]`, G `-E[D(G(z))]`.

  0 at the equilibrium. Slope per output: -1 on real, 1 on generated, -1 for G.
  D's loss is minus the Wasserstein-1 distance if D is the best of the
  1-Lipschitz functions, which something else must see to: weight clipping, a
  gradient penalty, spectral normalisation.

  Reference: Arjovsky et al. 2017, arXiv:1701.07875, equation 2 and theorem 3.
  """

  equilibrium: ClassVar[Equilibrium] = Equilibrium(0.0, 0.0, 0.0)

  def d_loss(self, real: Logits, fake: Logits) -> Scalar:
    """`E[D(G(z))] - E[D(x)]`."""
    return jnp.mean(fake) - jnp.mean(real)

  def g_loss(self, real: Logits | None, fake: Logits) -> Scalar:
    """`-E[D(G(z))]`."""
    del real
    return -jnp.mean(fake)

  def reference(self, real: Vector, fake: Vector) -> tuple[float, float]:
    """In float64 NumPy."""
    return np.mean(fake) - np.mean(real), -np.mean(fake)


class Hinge(Objective):
  """Margins: D descends `E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]`.

  2 at the equilibrium. Slope per output: -1 on real below the margin 1, 1 on
  generated above the margin -1, else 0. G descends `-E[D(G(z))]`.

  Lim & Ye's "geometric GAN" is where the hinge game comes from: its D is a
  support vector machine, its G moves along the normal of the hyperplane. The
  losses are the same two; its `|w|^2 / 2` of the last layer is a penalty.

  Reference: Lim & Ye 2017, arXiv:1705.02894, equation 17; Miyato et al. 2018,
  arXiv:1802.05957, equation 16.
  """

  equilibrium: ClassVar[Equilibrium] = Equilibrium(0.0, 2.0, 0.0)

  def d_loss(self, real: Logits, fake: Logits) -> Scalar:
    """What is within the margins."""
    return jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))

  def g_loss(self, real: Logits | None, fake: Logits) -> Scalar:
    """`-E[D(G(z))]`."""
    del real
    return -jnp.mean(fake)

  def reference(self, real: Vector, fake: Vector) -> tuple[float, float]:
    """In float64 NumPy."""
    d = np.mean(np.maximum(0, 1 - real)) + np.mean(np.maximum(0, 1 + fake))
    return d, -np.mean(fake)


# Relativistic games: D says how much more real the real sample is.


class Relativistic(Objective):
  """Pairs: D descends `E[softplus(-(D(x) - D(G(z))))]`, G the pairs turned.

  log 2 at the equilibrium. With s the sigmoid of `D(G(z)) - D(x)`, D's slope
  per logit is -s on real, s on generated; G's is minus the sigmoid of
  `D(x) - D(G(z))`.

  Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734, equations 10 and 11;
  Huang et al. 2025 (R3GAN), arXiv:2501.05441, equation 2.
  """

  relativistic: ClassVar[bool] = True
  equilibrium: ClassVar[Equilibrium] = Equilibrium(0.0, _LOG2, _LOG2)

  def d_loss(self, real: Logits, fake: Logits) -> Scalar:
    """Of pairs of a real and a generated sample."""
    return jnp.mean(softplus(fake - real))

  def g_loss(self, real: Logits | None, fake: Logits) -> Scalar:
    """Of the pairs turned round."""
    assert real is not None
    return jnp.mean(softplus(real - fake))

  def reference(self, real: Vector, fake: Vector) -> tuple[float, float]:
    """In float64 NumPy."""
    return -np.mean(_log_d(real - fake)), -np.mean(_log_d(fake - real))


class _RelativisticAverage(Objective):
  """Each sample against the other kind's mean.

  `E[on_real(r)] + E[on_fake(f)]` with `r = D(x) - E D(G(z))` and `f = D(G(z)) -
  E D(x)`. G's loss is D's with the kinds exchanged; so are its value and
  slopes.

  These are the sums of the paper. Its authors' code (AlexiaJM/RelativisticGAN)
  halves both players' losses: a penalty beside them weighs there what twice its
  weight does here, and a rate of SGD there is twice one here.
  """

  relativistic: ClassVar[bool] = True

  def _terms(self, r: Any, f: Any) -> tuple[Any, Any]:
    """`on_real(r)` and `on_fake(f)`, for each sample."""
    raise NotImplementedError

  def d_loss(self, real: Logits, fake: Logits) -> Scalar:
    """Of each sample against the other kind's mean."""
    on_real, on_fake = self._terms(real - jnp.mean(fake), fake - jnp.mean(real))
    return jnp.mean(on_real) + jnp.mean(on_fake)

  def g_loss(self, real: Logits | None, fake: Logits) -> Scalar:
    """The same with the kinds exchanged."""
    assert real is not None
    return self.d_loss(fake, real)

  @staticmethod
  def _both(real: Vector, fake: Vector, on_real: Any, on_fake: Any) -> Any:
    def loss(a: Vector, b: Vector) -> float:
      return np.mean(on_real(a - b.mean())) + np.mean(on_fake(b - a.mean()))

    return loss(real, fake), loss(fake, real)


class RelativisticAverage(_RelativisticAverage):
  """Cross-entropy of averages: `E[softplus(-r)] + E[softplus(f)]`.

  log 4 at the equilibrium. With s the sigmoid, D's slope per real logit is
  `-s(-r) - E[s(f)]`, per generated logit `s(f) + E[s(-r)]`; -1 and 1 there.

  Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734, section 4 (RaSGAN).
  """

  equilibrium: ClassVar[Equilibrium] = Equilibrium(0.0, 2 * _LOG2, 2 * _LOG2)

  def _terms(self, r: Any, f: Any) -> tuple[Any, Any]:
    return softplus(-r), softplus(f)

  def reference(self, real: Vector, fake: Vector) -> tuple[float, float]:
    """In float64 NumPy."""
    return _RelativisticAverage._both(
      real, fake, lambda r: -_log_d(r), lambda f: -_log_not_d(f)
    )


class RelativisticAverageLs(_RelativisticAverage):
  """Least squares of averages on the raw output: `E[(r - 1)^2] + E[(f + 1)^2]`.

  2 at the equilibrium. D's slope per real output is `2 (r - 1) - 2 E[f + 1]`,
  per generated output `2 (f + 1) - 2 E[r - 1]`; -4 and 4 there.

  Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734, section 4 (RaLSGAN).
  """

  equilibrium: ClassVar[Equilibrium] = Equilibrium(0.0, 2.0, 2.0)

  def _terms(self, r: Any, f: Any) -> tuple[Any, Any]:
    return jnp.square(r - 1), jnp.square(f + 1)

  def reference(self, real: Vector, fake: Vector) -> tuple[float, float]:
    """In float64 NumPy."""
    return _RelativisticAverage._both(
      real, fake, lambda r: (r - 1) ** 2, lambda f: (f + 1) ** 2
    )


class RelativisticAverageHinge(_RelativisticAverage):
  """Margins of averages: `E[max(0, 1 - r)] + E[max(0, 1 + f)]`.

  2 at the equilibrium. With `[.]` 1 where it holds and 0 elsewhere, D's slope
  per real output is `-[r < 1] - E[f > -1]`, per generated output `[f > -1] +
  E[r < 1]`; -2 and 2 there.

  Reference: Jolicoeur-Martineau 2018, arXiv:1807.00734, section 4 (RaHingeGAN).
  """

  equilibrium: ClassVar[Equilibrium] = Equilibrium(0.0, 2.0, 2.0)

  def _terms(self, r: Any, f: Any) -> tuple[Any, Any]:
    return jax.nn.relu(1 - r), jax.nn.relu(1 + f)

  def reference(self, real: Vector, fake: Vector) -> tuple[float, float]:
    """In float64 NumPy."""
    return _RelativisticAverage._both(
      real,
      fake,
      lambda r: np.maximum(0, 1 - r),
      lambda f: np.maximum(0, 1 + f),
    )


# f-GANs: any f-divergence from its convex conjugate (`divergences.py`).


class _FGan(Objective):
  """The two losses of an f-divergence, as `Divergence` says.

  D descends `E[f*(T(D(G(z))))] - E[T(D(x))]`, G `-E[f*(T(D(G(z))))]`.

  Reference: Nowozin et al. 2016, arXiv:1606.00709, equation 6 and table 6.
  """

  divergence: ClassVar[divergences.Divergence]
  # T(v) and f*(t) in float64 NumPy, for the reference.
  activation64: ClassVar[Any]
  conjugate64: ClassVar[Any]

  def __init_subclass__(cls, **kwargs: Any) -> None:
    super().__init_subclass__(**kwargs)
    logit, g_loss = cls.divergence.equilibrium
    cls.equilibrium = Equilibrium(logit, 0.0, g_loss)

  def d_loss(self, real: Logits, fake: Logits) -> Scalar:
    """Minus the variational bound on the divergence."""
    f = self.divergence
    return jnp.mean(f.conjugate(fake)) - jnp.mean(f.activation(real))

  def g_loss(self, real: Logits | None, fake: Logits) -> Scalar:
    """The part of the bound that G moves."""
    del real
    return -jnp.mean(self.divergence.conjugate(fake))

  def log_ratio(self, logits: Logits) -> Logits:
    """What the best variational function says."""
    return self.divergence.log_ratio(logits)

  def reference(self, real: Vector, fake: Vector) -> tuple[float, float]:
    """In float64 NumPy."""
    conjugate = np.mean(self.conjugate64(self.activation64(fake)))
    return conjugate - np.mean(self.activation64(real)), -conjugate


class FganKl(_FGan):
  """The f-GAN of KL(p, q)."""

  divergence: ClassVar[divergences.Divergence] = divergences.KL
  activation64 = staticmethod(lambda v: v)
  conjugate64 = staticmethod(lambda t: np.exp(t - 1))


class FganReverseKl(_FGan):
  """The f-GAN of KL(q, p)."""

  divergence: ClassVar[divergences.Divergence] = divergences.REVERSE_KL
  activation64 = staticmethod(lambda v: -np.exp(-v))
  conjugate64 = staticmethod(lambda t: -1 - np.log(-t))


class FganPearson(_FGan):
  """The f-GAN of Pearson's chi-squared."""

  divergence: ClassVar[divergences.Divergence] = divergences.PEARSON
  activation64 = staticmethod(lambda v: v)
  conjugate64 = staticmethod(lambda t: t**2 / 4 + t)


class FganNeyman(_FGan):
  """The f-GAN of Neyman's chi-squared."""

  divergence: ClassVar[divergences.Divergence] = divergences.NEYMAN
  activation64 = staticmethod(lambda v: 1 - np.exp(-v))
  conjugate64 = staticmethod(lambda t: 2 - 2 * np.sqrt(1 - t))


class FganHellinger(_FGan):
  """The f-GAN of the squared Hellinger distance."""

  divergence: ClassVar[divergences.Divergence] = divergences.HELLINGER
  activation64 = staticmethod(lambda v: 1 - np.exp(-v))
  conjugate64 = staticmethod(lambda t: t / (1 - t))


class FganJensenShannon(_FGan):
  """The f-GAN of the Jensen-Shannon divergence."""

  divergence: ClassVar[divergences.Divergence] = divergences.JENSEN_SHANNON
  activation64 = staticmethod(lambda v: _LOG2 + _log_d(v))
  conjugate64 = staticmethod(lambda t: -np.log(2 - np.exp(t)))


OBJECTIVES: dict[str, type[Objective]] = {
  'minimax': Minimax,
  'non_saturating': NonSaturating,
  'least_squares': LeastSquares,
  'wasserstein': Wasserstein,
  'hinge': Hinge,
  'geometric': Hinge,
  'relativistic': Relativistic,
  'relativistic_average': RelativisticAverage,
  'relativistic_average_ls': RelativisticAverageLs,
  'relativistic_average_hinge': RelativisticAverageHinge,
  'fgan_kl': FganKl,
  'fgan_reverse_kl': FganReverseKl,
  'fgan_pearson': FganPearson,
  'fgan_neyman': FganNeyman,
  'fgan_hellinger': FganHellinger,
  'fgan_jensen_shannon': FganJensenShannon,
}

minimax = Minimax
non_saturating = NonSaturating
least_squares = LeastSquares
wasserstein = Wasserstein
hinge = Hinge
relativistic = Relativistic
relativistic_average = RelativisticAverage
relativistic_average_ls = RelativisticAverageLs
relativistic_average_hinge = RelativisticAverageHinge
fgan_kl = FganKl
fgan_reverse_kl = FganReverseKl
fgan_pearson = FganPearson
fgan_neyman = FganNeyman
fgan_hellinger = FganHellinger
fgan_jensen_shannon = FganJensenShannon
