"""Dirac-GAN in closed form, in float64 NumPy: no line of it is the package's.

G is at theta, D is `psi x`, the data are at 0. D says 0 of every real sample
and `t = psi theta` of every generated one, so that an objective is known by the
slopes a and b of D's and of G's loss by t, and a penalty P by its slope by psi:

    v = (-b(t) psi, -a(t) theta - w dP/dpsi)

At the equilibrium (0, 0) its Jacobian is ((0, -b0), (-a0, -w P'')), whose
eigenvalues are `-w P''/2 +- sqrt((w P'')^2 / 4 + a0 b0)`. With a0 = 1/2, b0 =
-1/2 these are Mescheder et al.'s (2018, arXiv:1801.04406, lemma 2.3 and
theorem 4.1).

What is not listed here is known by numbers: an objective by differences of its
losses in float64 (`slopes_of`), a penalty by those of its value (`penalty_of`).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Slope = Callable[[float], float]
Matrix = NDArray[np.float64]


def sigmoid(t: float) -> float:
  """The logistic function."""
  return float(1 / (1 + np.exp(-t)))


def _bell(t: float) -> float:
  """Its slope."""
  return sigmoid(t) * sigmoid(-t)


class Slopes(NamedTuple):
  """Of an objective's losses by the logit t of all generated samples.

  Attributes:
    a: of D's loss, the real logits being 0.
    a1: slope of a.
    b: of G's loss.
    b1: slope of b.
    curvature: second derivatives of D's loss by a real and by a generated
      logit, added up, at 0: what instance noise of deviation s makes a damping
      of s^2 times this.
  """

  a: Slope
  a1: Slope
  b: Slope
  b1: Slope
  curvature: float


def _constant(value: float) -> Slope:
  return lambda t: value


def _of_conjugate(slope: Slope, second: Slope, curvature: float) -> Slopes:
  """An f-GAN: D's loss on generated samples is `f*(T(t))`, G's its negative."""
  return Slopes(
    slope, second, lambda t: -slope(t), lambda t: -second(t), curvature
  )


def least_squares(real: float, fake: float, target: float) -> Slopes:
  """`(D - real)^2 / 2 + (D - fake)^2 / 2` and `(D - target)^2 / 2`."""
  del real  # of which D, being 0 there, learns nothing
  return Slopes(
    lambda t: t - fake,
    _constant(1.0),
    lambda t: t - target,
    _constant(1.0),
    2.0,
  )


_ONE, _ZERO = _constant(1.0), _constant(0.0)
_HINGE = Slopes(
  lambda t: float(t > -1), _ZERO, _constant(-1.0), _ZERO, curvature=0.0
)
# The slope of -log(1 - sigmoid(-t)): of a game whose labels are turned.
_TURNED: tuple[Slope, Slope] = (lambda t: -sigmoid(-t), _bell)

OBJECTIVES: dict[str, Slopes] = {
  'minimax': Slopes(
    sigmoid, _bell, lambda t: -sigmoid(t), lambda t: -_bell(t), 0.5
  ),
  'non_saturating': Slopes(sigmoid, _bell, *_TURNED, 0.5),
  'least_squares': least_squares(1, 0, 1),
  'wasserstein': Slopes(_ONE, _ZERO, _constant(-1.0), _ZERO, 0.0),
  'hinge': _HINGE,
  'geometric': _HINGE,
  'relativistic': Slopes(sigmoid, _bell, *_TURNED, 0.5),
  # Every sample of a kind is the same, so twice the pairs' game.
  'relativistic_average': Slopes(
    lambda t: 2 * sigmoid(t),
    lambda t: 2 * _bell(t),
    lambda t: -2 * sigmoid(-t),
    lambda t: 2 * _bell(t),
    0.5,
  ),
  'relativistic_average_ls': Slopes(
    lambda t: 4 * (t + 1),
    _constant(4.0),
    lambda t: 4 * (t - 1),
    _constant(4.0),
    4.0,
  ),
  'relativistic_average_hinge': Slopes(
    lambda t: 2 * float(t > -1), _ZERO, lambda t: -2 * float(t < 1), _ZERO, 0.0
  ),
  'fgan_kl': _of_conjugate(
    lambda t: float(np.exp(t - 1)), lambda t: float(np.exp(t - 1)), np.exp(-1)
  ),
  'fgan_reverse_kl': _of_conjugate(_ONE, _ZERO, 1.0),
  'fgan_pearson': _of_conjugate(lambda t: t / 2 + 1, _constant(0.5), 0.5),
  'fgan_neyman': _of_conjugate(
    lambda t: float(np.exp(-t / 2)), lambda t: -float(np.exp(-t / 2)) / 2, 0.5
  ),
  'fgan_hellinger': _of_conjugate(
    lambda t: float(np.exp(t)), lambda t: float(np.exp(t)), 2.0
  ),
  'fgan_jensen_shannon': _of_conjugate(sigmoid, _bell, 0.5),
}


_H = 1e-4  # of differences


def _difference(f: Slope) -> Slope:
  return lambda t: (f(t + _H) - f(t - _H)) / (2 * _H)


def slopes_of(losses: Callable[[Any, Any], tuple[float, float]]) -> Slopes:
  """Of an objective that is not listed, by differences.

  Args:
    losses: `(real, fake) -> (d_loss, g_loss)` of logits in float64.
  """
  point, many = np.zeros(1), np.zeros(1000)

  def of_player(i: int) -> Slope:
    return _difference(lambda t: losses(point, point + t)[i])

  def of_one_logit(t: float, kind: int) -> float:
    logits = [many.copy(), many.copy()]
    logits[kind][0] = t
    return len(many) * losses(*logits)[0]

  curvatures = [
    _difference(_difference(lambda t, k=kind: of_one_logit(t, k)))(0.0)
    for kind in (0, 1)
  ]
  a, b = of_player(0), of_player(1)
  return Slopes(a, _difference(a), b, _difference(b), sum(curvatures))


class Penalty(NamedTuple):
  """A penalty on D of weight 1, as `(theta, psi) -> number`.

  Attributes:
    slope: by psi.
    by_theta: slope of that by theta.
    by_psi: slope of that by psi.
  """

  slope: Callable[[float, float], float]
  by_theta: Callable[[float, float], float]
  by_psi: Callable[[float, float], float]


def _nothing(theta: float, psi: float) -> float:
  return 0.0


def _of_slope(slope: Slope, second: Slope) -> Penalty:
  """A penalty on D's slope, which is psi at every sample."""
  return Penalty(
    lambda theta, psi: slope(psi), _nothing, lambda theta, psi: second(psi)
  )


def _beyond_one(psi: float) -> float:
  return 2 * (abs(psi) - 1) * float(np.sign(psi))


NONE = Penalty(_nothing, _nothing, _nothing)
_HALF_SQUARE = _of_slope(lambda psi: psi, _ONE)
_TWO_SIDED = _of_slope(_beyond_one, _constant(2.0))

PENALTIES: dict[str, Penalty] = {
  'none': NONE,
  'r1': _HALF_SQUARE,
  'r2': _HALF_SQUARE,
  'zero_centred': _of_slope(lambda psi: 2 * psi, _constant(2.0)),
  'wgan_gp': _TWO_SIDED,
  'wgan_gp_one_sided': _of_slope(
    lambda psi: _beyond_one(psi) * (abs(psi) > 1),
    lambda psi: 2.0 * (abs(psi) > 1),
  ),
  'dragan': _TWO_SIDED,  # wherever it looks, D's slope is psi
  'clip': NONE,  # and psi into [-bound, bound] after each move of D
  # The anchor of real samples is 0, that of generated ones meets a constant.
  'lecam': Penalty(
    lambda theta, psi: 2 * psi * theta**2,
    lambda theta, psi: 4 * psi * theta,
    lambda theta, psi: 2 * theta**2,
  ),
  'zcr': NONE,  # G heeds no noise: a neighbour is the same point
  'zcr_g': NONE,
}


def penalty_of(value: Callable[[float, float], float]) -> Penalty:
  """Of a penalty on D that is not listed, by differences.

  Args:
    value: `(theta, psi) -> number`.
  """

  def slope(theta: float, psi: float) -> float:
    return _difference(lambda x: value(theta, x))(psi)

  return Penalty(
    slope,
    lambda theta, psi: _difference(lambda x: slope(x, psi))(theta),
    lambda theta, psi: _difference(lambda x: slope(theta, x))(psi),
  )


NO_EIGENVALUES: dict[str, str] = {
  'wgan_gp': 'its slope jumps where psi is 0',
  'dragan': 'its slope jumps where psi is 0',
}


@dataclasses.dataclass(frozen=True)
class Dirac:
  """One game, and how fast it is played.

  Attributes:
    slopes: of the objective.
    penalty: on D.
    weight: of the penalty.
    bound: that psi is clipped to.
    rate_g: G's learning rate.
    rate_d: D's.
    consensus: weight of the field's length, under that schedule.
    unroll: D's updates that G looks ahead, under that schedule.
    d_steps: D's updates in a step, where they take turns.
    g_steps: G's.
  """

  slopes: Slopes
  penalty: Penalty = NONE
  weight: float = 0.0
  bound: float = np.inf
  rate_g: float = 0.1
  rate_d: float = 0.1
  consensus: float = 0.0
  unroll: int = 5
  d_steps: int = 1
  g_steps: int = 1

  def gradients(self, theta: float, psi: float) -> tuple[float, float]:
    """G's and D's, of their losses."""
    t = psi * theta
    to_d = self.slopes.a(t) * theta
    if self.weight:
      to_d += self.weight * self.penalty.slope(theta, psi)
    return self.slopes.b(t) * psi, to_d

  def pull(self, theta: float, psi: float) -> tuple[float, float]:
    """Slopes of `|v|^2 / 2` of the game without its penalty."""
    t = psi * theta
    a, a1, b, b1 = (slope(t) for slope in self.slopes[:4])
    return (
      b * b1 * psi**3 + a * a1 * psi * theta**2 + a**2 * theta,
      b * b1 * theta * psi**2 + b**2 * psi + a * a1 * theta**3,
    )

  def move_d(self, psi: float, gradient: float) -> float:
    """D moved, and clipped."""
    return float(np.clip(psi - self.rate_d * gradient, -self.bound, self.bound))

  def move_g(self, theta: float, gradient: float) -> float:
    """G moved."""
    return theta - self.rate_g * gradient

  def gradient_ahead(self, theta: float, psi: float) -> float:
    """G's gradient through D's updates ahead, clipping and all."""
    by = 0.0  # of psi by theta
    for _ in range(self.unroll):
      t = psi * theta
      a, a1 = self.slopes.a(t), self.slopes.a1(t)
      slope = a + a1 * (psi + theta * by) * theta
      _, to_d = self.gradients(theta, psi)
      if self.weight:
        slope += self.weight * (
          self.penalty.by_theta(theta, psi)
          + self.penalty.by_psi(theta, psi) * by
        )
      free = psi - self.rate_d * to_d
      # Of clipping's slope on its edge, JAX takes the mean.
      kept = (np.sign(self.bound - abs(free)) + 1) / 2
      by = kept * (by - self.rate_d * slope)
      psi = self.move_d(psi, to_d)
    return self.slopes.b(psi * theta) * (psi + theta * by)


# A schedule: (game, theta, psi, memory) -> the same after one step.
Point = tuple[float, float, Any]


def _turns(
  game: Dirac, theta: float, psi: float, order: str, gradient: Any
) -> Point:
  for player in order:
    if player == 'd':
      psi = game.move_d(psi, game.gradients(theta, psi)[1])
    else:
      theta = game.move_g(theta, gradient(theta, psi))
  return theta, psi, None


def _plain(game: Dirac) -> Any:
  return lambda theta, psi: game.gradients(theta, psi)[0]


def alternating(game: Dirac, theta: float, psi: float, memory: Any) -> Point:
  """D's updates, then G's."""
  order = 'd' * game.d_steps + 'g' * game.g_steps
  return _turns(game, theta, psi, order, _plain(game))


def alternating_g_first(
  game: Dirac, theta: float, psi: float, memory: Any
) -> Point:
  """G's updates, then D's."""
  order = 'g' * game.g_steps + 'd' * game.d_steps
  return _turns(game, theta, psi, order, _plain(game))


def unrolled(game: Dirac, theta: float, psi: float, memory: Any) -> Point:
  """D's updates, then G's by the gradient through D's next ones."""
  order = 'd' * game.d_steps + 'g' * game.g_steps
  return _turns(game, theta, psi, order, game.gradient_ahead)


def simultaneous(game: Dirac, theta: float, psi: float, memory: Any) -> Point:
  """Both by the gradients of one point."""
  to_g, to_d = game.gradients(theta, psi)
  return game.move_g(theta, to_g), game.move_d(psi, to_d), None


def optimistic(game: Dirac, theta: float, psi: float, memory: Any) -> Point:
  """Both by twice this gradient less the last; the first is as it is."""
  now = game.gradients(theta, psi)
  last = now if memory is None else memory
  to_g, to_d = (2 * n - m for n, m in zip(now, last, strict=True))
  return game.move_g(theta, to_g), game.move_d(psi, to_d), now


def extragradient(game: Dirac, theta: float, psi: float, memory: Any) -> Point:
  """Both from here, by the gradients of a move ahead."""
  to_g, to_d = game.gradients(theta, psi)
  ahead = game.move_g(theta, to_g), game.move_d(psi, to_d)
  to_g, to_d = game.gradients(*ahead)
  return game.move_g(theta, to_g), game.move_d(psi, to_d), None


def consensus(game: Dirac, theta: float, psi: float, memory: Any) -> Point:
  """Both by their gradients and the slope of the field's length."""
  to_g, to_d = (
    g + game.consensus * p
    for g, p in zip(
      game.gradients(theta, psi), game.pull(theta, psi), strict=True
    )
  )
  return game.move_g(theta, to_g), game.move_d(psi, to_d), None


SCHEDULES: dict[str, Callable[[Dirac, float, float, Any], Point]] = {
  'alternating': alternating,
  'alternating_g_first': alternating_g_first,
  'simultaneous': simultaneous,
  'optimistic': optimistic,
  'extragradient': extragradient,
  'consensus': consensus,
  'unrolled': unrolled,
}


def trajectory(
  game: Dirac,
  schedule: str,
  start: tuple[float, float],
  steps: int,
  limit: float = np.inf,
) -> Matrix:
  """Points (n, 2) after each step, as long as none is beyond a limit."""
  theta, psi, memory, found = *start, None, []
  for _ in range(steps):
    theta, psi, memory = SCHEDULES[schedule](game, theta, psi, memory)
    if not np.hypot(theta, psi) <= limit:
      break
    found.append((theta, psi))
  return np.array(found).reshape(-1, 2)


def jacobian(
  slopes: Slopes, damping: float = 0.0, consensus: float = 0.0
) -> Matrix:
  """Of the field at (0, 0).

  Args:
    slopes: of the objective.
    damping: slope of D's penalty there, with its weight; or, of instance noise
      of deviation s, `s^2 curvature`.
    consensus: weight of the field's length.
  """
  a, b = slopes.a(0.0), slopes.b(0.0)
  pull = consensus * np.diag([a**2, b**2])
  return np.array([[0.0, -b], [-a, -damping]]) - pull


def eigenvalues(matrix: Matrix) -> NDArray[np.complex128]:
  """Of a 2x2 matrix, by the formula."""
  half = matrix.trace() / 2
  determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
  root = np.sqrt(complex(half**2 - determinant))
  return np.array([half - root, half + root])


def damping(
  name: str, weight: float, penalty: Penalty | None = None
) -> float | None:
  """Slope of a penalty's gradient at (0, 0); None where there is none."""
  if name in NO_EIGENVALUES:
    return None
  return weight * (penalty or PENALTIES[name]).by_psi(0.0, 0.0)


def step_matrix(game: Dirac, schedule: str) -> Matrix:
  """What one step multiplies a small deviation from (0, 0) by.

  Of `optimistic` it takes (this, the last) deviation.

  Args:
    game: whose penalty has a slope at (0, 0).
    schedule: a key of `SCHEDULES`.
  """
  eye = np.eye(2)
  damp = game.weight * game.penalty.by_psi(0.0, 0.0)
  rates = np.diag([game.rate_g, game.rate_d])
  weight = game.consensus if schedule == 'consensus' else 0.0
  j = rates @ jacobian(game.slopes, damp, weight)
  if schedule in ('simultaneous', 'consensus'):
    return eye + j
  if schedule == 'extragradient':
    return eye + j @ (eye + j)
  if schedule == 'optimistic':
    return np.block([[eye + 2 * j, -j], [eye, np.zeros((2, 2))]])
  g, d = eye + np.diag([1, 0]) @ j, eye + np.diag([0, 1]) @ j
  if schedule == 'unrolled':
    g = eye.copy()
    # psi after k updates is `keep psi + by theta`, and G's loss b0 psi theta.
    keep, by = 1.0, 0.0
    for _ in range(game.unroll):
      keep, by = d[1, 1] * keep, d[1, 1] * by + d[1, 0]
    b = game.slopes.b(0.0)
    g[0] -= game.rate_g * b * np.array([2 * by, keep])
  g = np.linalg.matrix_power(g, game.g_steps)
  d = np.linalg.matrix_power(d, game.d_steps)
  return d @ g if schedule == 'alternating_g_first' else g @ d


def defective(game: Dirac, schedule: str) -> bool:
  """Whether two eigenvalues of a step are one, with one eigenvector."""
  values = np.linalg.eigvals(step_matrix(game, schedule))
  leading = values[np.abs(values) > np.abs(values).max() - 1e-6]
  return (
    len(leading) > 1
    and bool(np.ptp(leading.real) < 1e-6)
    and not bool(np.abs(leading.imag).max() > 1e-6)
  )


def modulus(game: Dirac, schedule: str) -> float:
  """What a step multiplies the radius by in the long run, near (0, 0)."""
  values = np.linalg.eigvals(step_matrix(game, schedule))
  return float(np.abs(values).max())
