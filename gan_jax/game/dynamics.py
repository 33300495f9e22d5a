"""Instruments of a game: its vector field, how it turns, where it leads.

The field says where both players move from a point, `v = (-grad_G L_G, -grad_D
L_D)`, at equal learning rates, with everything else (batch, noise, running
statistics) held. Its Jacobian J tells what becomes of a small deviation from an
equilibrium: it dies away if all eigenvalues have negative real parts, and the
imaginary ones are how fast it turns (Mescheder et al. 2017, arXiv:1705.10461;
Balduzzi et al. 2018, arXiv:1802.05642).

Products with J are taken by reverse passes alone, for the convolutions of this
package have no forward mode.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex128, Float, Key
from numpy.typing import NDArray

from gan_jax.game.game import Batch, d_view
from gan_jax.game.regularizers import squared_norms
from gan_jax.game.schedules import Consensus, half_square
from gan_jax.game.state import State
from gan_jax.game.trainer import Trainer

Vector = Float[Array, ' n']
Field = Callable[[Vector], Vector]

# How many of the largest and of the rightmost eigenvalues `leading` looks for,
# how exactly, and for how many restarts.
_LARGEST, _RIGHTMOST, _TOLERANCE, _RESTARTS = 8, 4, 1e-3, 30
_SAME = 5e-3  # relative distance within which two found values are one
_ROWS = 64  # of the Jacobian at a time


def field(
  trainer: Trainer, state: State, real: Batch, key: Key[Array, '']
) -> tuple[Field, Vector]:
  """The field of a game about a point, and that point: G's numbers, then D's.

  It is that of the two losses with their penalties, each step's worth of them.
  Of the schedule only the pull of `Consensus` is in it.

  Args:
    trainer: of the game.
    state: the point, and the running statistics.
    real: a batch.
    key: for noise, dropout and so on: the same wherever the field is asked.
  """
  w, apart = jax.flatten_util.ravel_pytree((state.g.params, state.d.params))
  updates = trainer.updates(state, real.x.shape[0])
  schedule = trainer.at(state.hyper).schedule

  def gradients(w: Vector, **how: bool) -> Any:
    g, d = apart(w)
    return updates.field(g, d, state, real, jax.random.clone(key), **how)

  def v(w: Vector) -> Vector:
    gradient = jax.flatten_util.ravel_pytree(gradients(w))[0]
    if isinstance(schedule, Consensus):
      pull = jax.grad(lambda w: half_square(*gradients(w, penalties=False)))(w)
      gradient += schedule.weight * pull
    return -gradient

  return v, w


def pulled(v: Field, w: Vector, u: Vector) -> Vector:
  """J^T u at w."""
  back: Vector = jax.vjp(v, w)[1](u)[0]
  return back


def pushed(v: Field, w: Vector, u: Vector) -> Vector:
  """J u at w: what is linear in the back-propagated, propagated back."""
  onto: Vector = jax.vjp(lambda b: pulled(v, w, b), jnp.zeros_like(w))[1](u)[0]
  return onto


def jacobian(v: Field, w: Vector) -> Float[Array, 'n n']:
  """J at w, whole."""
  back = jax.vjp(v, w)[1]
  rows: Float[Array, 'n n'] = jax.lax.map(
    lambda u: back(u)[0], jnp.eye(w.size), batch_size=_ROWS
  )
  return rows


class Turn(NamedTuple):
  """How the field changes along itself.

  Attributes:
    alignment: cosine of v and Jv: -1 where it only shrinks, 0 where it only
      turns, 1 where it only grows.
    rotation: `|Av|^2 / (|Sv|^2 + |Av|^2)`, S and A the symmetric and the
      antisymmetric part of J: 0 in a potential game, 1 in a Hamiltonian one.
  """

  alignment: Float[Array, '']
  rotation: Float[Array, '']


def turn(v: Field, w: Vector) -> Turn:
  """How the field of a game turns at w; nan where it is 0."""
  now = v(w)
  along, back = pushed(v, w, now), pulled(v, w, now)
  cosine = now @ along / (jnp.linalg.norm(now) * jnp.linalg.norm(along))
  symmetric = jnp.sum(jnp.square(along + back))
  antisymmetric = jnp.sum(jnp.square(along - back))
  return Turn(cosine, antisymmetric / (symmetric + antisymmetric))


class Leading(NamedTuple):
  """Some eigenvalues of a matrix; either may be empty, if none was found.

  Attributes:
    largest: those of largest modulus.
    rightmost: those of largest real part.
    unfinished: `largest`, `rightmost`: searches that ended before all were
      found. What they did find are eigenvalues, but maybe not the foremost.
  """

  largest: Complex128[np.ndarray, ' k']
  rightmost: Complex128[np.ndarray, ' m']
  unfinished: tuple[str, ...] = ()

  @property
  def together(self) -> Complex128[np.ndarray, ' n']:
    """Each of them once: one may be among the largest and the rightmost."""
    fresh = [
      value
      for value in self.rightmost
      if not np.isclose(value, self.largest, rtol=_SAME, atol=0).any()
    ]
    return np.concatenate([self.largest, np.array(fresh, np.complex128)])


def leading(
  product: Callable[[NDArray[np.float32]], Any], size: int
) -> Leading:
  """The eigenvalues of largest modulus, and those of largest real part.

  By SciPy's implicitly restarted Arnoldi iteration; those that have not
  converged in its time are left out, and the search is called unfinished.

  Args:
    product: with the matrix, or with its transpose.
    size: rows of the matrix.
  """
  from scipy.sparse import linalg

  matrix = linalg.LinearOperator(
    (size, size),
    matvec=lambda u: np.asarray(product(u.ravel().astype(np.float32)), float),
    dtype=np.float64,
  )
  start = np.random.default_rng(0).normal(size=size)
  searches: list[NDArray[np.complex128]] = []
  unfinished: list[str] = []
  for name, which, count in (
    ('largest', 'LM', _LARGEST),
    ('rightmost', 'LR', _RIGHTMOST),
  ):
    try:
      values = linalg.eigs(
        matrix,
        k=count,
        which=which,
        v0=start,
        tol=_TOLERANCE,
        maxiter=_RESTARTS,
        ncv=4 * count,
        return_eigenvectors=False,
      )
    except linalg.ArpackNoConvergence as error:
      values = error.eigenvalues  # the converged ones
      unfinished.append(name)
    except linalg.ArpackError:  # a matrix of zeros, or one that is not finite
      values = []
      unfinished.append(name)
    searches.append(np.array(values, np.complex128))
  largest, rightmost = searches
  return Leading(largest, rightmost, tuple(unfinished))


def input_slopes(
  trainer: Trainer, state: State, real: Batch, key: Key[Array, '']
) -> dict[str, Float[Array, ' batch']]:
  """`|grad D(x)|` of real and of generated samples, as D is shown them."""
  images = trainer.images_a_step(real.x.shape[0]) * state.step
  view, _ = d_view(
    trainer.at(state.hyper).game,
    state.d.params,
    state,
    real,
    key,
    images=images.astype(jnp.float32),
  )
  return {
    place: jnp.sqrt(squared_norms(view.critic, x, label))
    for place, x, label in (
      ('real', view.real, view.real_label),
      ('fake', view.fake, view.fake_label),
    )
  }
