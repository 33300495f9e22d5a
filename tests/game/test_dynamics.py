"""The game's instruments: against closed forms, NumPy and known games."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.quadratic import THETA, X, Z, quadratic
from helpers.toygame import replaced

from gan_jax import networks
from gan_jax.game import dynamics, objectives
from gan_jax.game.game import Batch, Game, InstanceNoise
from gan_jax.game.optimizers import Sgd
from gan_jax.game.regularizers import R1
from gan_jax.game.schedules import Consensus
from gan_jax.game.trainer import Trainer

WEIGHT = 0.4


def sigmoid(t):
  return 1 / (1 + np.exp(-t))


def field_of(trainer, state, real):
  return dynamics.field(trainer, state, real, jax.random.key(1))


def gradients64(at, penalty=0.0):
  """Both gradients of the small game in float64, by hand."""
  a, b, c, w = at
  y = a * Z + b
  real, fake = c * X**2 + w * X, c * y**2 + w * y
  to_y = -(1 - sigmoid(fake)) * (2 * c * y + w)
  slope = 2 * c * X + w
  to_d = [
    (-(1 - sigmoid(real)) * X**k + sigmoid(fake) * y**k).mean() for k in (2, 1)
  ]
  to_d[0] += penalty * (slope * 2 * X).mean()
  to_d[1] += penalty * slope.mean()
  return np.array([(to_y * Z).mean(), to_y.mean(), *to_d])


def differences(function, at, step=1e-5):
  """The Jacobian by central differences, in float64."""
  columns = []
  for i in range(len(at)):
    away = np.zeros(len(at))
    away[i] = step
    columns.append((function(at + away) - function(at - away)) / (2 * step))
  return np.stack(columns, axis=-1)


@pytest.mark.parametrize('penalty', [0.0, WEIGHT])
def test_field_and_jacobian_against_float64(penalty):
  v, w = field_of(*quadratic([R1(penalty)] if penalty else []))
  np.testing.assert_allclose(w, THETA, rtol=1e-6)
  u = np.array([0.3, -1.0, 0.5, 2.0])
  now, matrix, pushed, pulled = jax.jit(
    lambda w, u: (
      v(w),
      dynamics.jacobian(v, w),
      dynamics.pushed(v, w, u),
      dynamics.pulled(v, w, u),
    )
  )(w, jnp.asarray(u, jnp.float32))
  gradients = functools.partial(gradients64, penalty=penalty)
  np.testing.assert_allclose(now, -gradients(THETA), rtol=1e-5, atol=1e-6)
  expected = -differences(gradients, THETA)
  np.testing.assert_allclose(matrix, expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(pushed, expected @ u, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(pulled, expected.T @ u, rtol=1e-4, atol=1e-5)


def test_consensus_is_in_the_field_and_pulls_at_the_plain_game():
  """`v - weight J'v` of the game without its penalties."""
  v, w = field_of(*quadratic([R1(WEIGHT)], Consensus(0.7)))
  pull = differences(gradients64, THETA).T @ gradients64(THETA)
  expected = -(gradients64(THETA, WEIGHT) + 0.7 * pull)
  np.testing.assert_allclose(jax.jit(v)(w), expected, rtol=1e-4, atol=1e-6)


def test_the_field_is_that_of_the_states_numbers():
  trainer, state, real = quadratic([R1(9.0)], Consensus(9.0))
  hyper = dict(state.hyper)
  hyper['regularizers.r1.weight'] = jnp.float32(WEIGHT)
  hyper['schedule.weight'] = jnp.float32(0)
  v, w = field_of(trainer, state.replace(hyper=hyper), real)
  expected = -gradients64(THETA, WEIGHT)
  np.testing.assert_allclose(jax.jit(v)(w), expected, rtol=1e-4, atol=1e-6)


@functools.cache
def mlp_game():
  """The field of a small MLP game, compiled."""
  nets = networks.build('mlp', (2,), bounded=False, width=5, depth=1)
  trainer = Trainer(Game(nets, objectives.Minimax()), Sgd(), Sgd())
  state = jax.jit(trainer.init)(jax.random.key(0))
  # Away from the start's kernels, next to which all is next to nothing.
  wide = jax.tree.map(lambda x: 10 * x, (state.g.params, state.d.params))
  real = Batch(jax.random.normal(jax.random.key(2), (len(Z), 2)))
  v, w = field_of(trainer, replaced(state, *wide), real)

  @jax.jit
  def products(u):
    # By forward mode, which this game has; and by what is tested.
    return (
      jax.jacfwd(v)(w),
      dynamics.jacobian(v, w),
      dynamics.pushed(v, w, u),
      dynamics.pulled(v, w, u),
    )

  return products, w


def test_products_of_an_mlp_are_those_of_forward_mode():
  products, w = mlp_game()
  u = jax.random.normal(jax.random.key(3), w.shape)
  full, jacobian, pushed, pulled = products(u)
  np.testing.assert_allclose(jacobian, full, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(pushed, full @ u, rtol=1e-4, atol=1e-3)
  np.testing.assert_allclose(pulled, full.T @ u, rtol=1e-4, atol=1e-3)
  assert float(jnp.abs(full - full.T).max()) > 0.1  # not one for the other


def known(values, seed=0, skew=0.1):
  """A real matrix whose eigenvalues are `values` and their conjugates."""
  blocks = [
    [[x.real, x.imag], [-x.imag, x.real]] if x.imag else [[x.real]]
    for x in values
  ]
  size = sum(map(len, blocks))
  matrix, at = np.zeros((size, size)), 0
  for block in blocks:
    matrix[at : at + len(block), at : at + len(block)] = block
    at += len(block)
  rng = np.random.default_rng(seed)
  basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
  basis += skew * rng.normal(size=(size, size)) / np.sqrt(size)  # not normal
  return basis @ matrix @ np.linalg.inv(basis)


def inside(found, spectrum, rtol=5e-3):
  """Whether each found value is one of a spectrum."""
  away = np.abs(np.asarray(found)[:, None] - np.asarray(spectrum)[None])
  return bool((away.min(1) <= rtol * np.abs(found)).all())


def test_leading_eigenvalues_of_a_known_spectrum():
  """Four fast pairs, four slow rightmost ones, a bulk left of them."""
  rng = np.random.default_rng(1)
  fast = -1 + 1j * np.array([20.0, 24.0, 28.0, 32.0])
  right = np.array([2.0, 1.7, 1.4, 1.1], complex)
  bulk = rng.uniform(-4, -2, 180).astype(complex)
  matrix = known([*fast, *right, *bulk])
  found = dynamics.leading(lambda u: matrix @ u, len(matrix))
  largest = np.concatenate([fast, fast.conj()])
  assert len(found.largest) == 8 and inside(found.largest, largest)
  assert len(set(np.round(found.largest, 1))) == 8
  np.testing.assert_allclose(
    np.sort(found.rightmost.real), np.sort(right.real), rtol=5e-3
  )
  # Near to each other on the scale of the largest, and all of them kept.
  assert len(found.together) == 12
  # The same of the transpose.
  turned = dynamics.leading(lambda u: matrix.T @ u, len(matrix))
  assert inside(turned.largest, largest) and len(turned.together) == 12


def test_an_eigenvalue_found_twice_is_told_once():
  values = np.concatenate([[9.0, 7.0], np.linspace(-6, -0.5, 100)])
  matrix = known(values.astype(complex))
  found = dynamics.leading(lambda u: matrix @ u, len(matrix))
  assert {9, 7} <= set(np.round(found.largest.real, 1))
  assert {9, 7} <= set(np.round(found.rightmost.real, 1))
  assert sum(abs(found.together - 9) < 0.1) == 1
  assert sum(abs(found.together - 7) < 0.1) == 1


@pytest.mark.parametrize('fill', [0.0, np.nan])
@pytest.mark.filterwarnings('ignore')
def test_a_matrix_without_a_leading_eigenvalue_ends_no_run(fill, capfd):
  found = dynamics.leading(lambda u: np.full(300, fill), 300)
  # Older SciPy finds the zeros of a matrix of zeros.
  assert not np.abs(np.nan_to_num(found.together)).any()


def test_an_unfinished_search_says_so(monkeypatch):
  """What it did find is kept; the other search knows nothing of it."""
  rng = np.random.default_rng(1)
  # Eight far from the rest are found at once, the rightmost of a bulk are not.
  far = -np.linspace(60.0, 90.0, 8)
  spectrum = np.concatenate([far, rng.uniform(-1.0, 1.0, 300)])
  matrix = known(spectrum.astype(complex))
  monkeypatch.setattr(dynamics, '_RESTARTS', 2)
  found = dynamics.leading(lambda u: matrix @ u, len(matrix))
  assert found.unfinished == ('rightmost',)
  assert len(found.largest) == 8 and len(found.rightmost) < 4
  assert inside(found.together, spectrum)


def test_leading_eigenvalues_of_an_mlp_game_are_among_all():
  products, w = mlp_game()
  spectrum = np.linalg.eigvals(np.float64(products(jnp.zeros(w.shape))[0]))
  found = dynamics.leading(lambda u: products(u)[3], w.size)
  assert len(found.largest) >= 4
  assert inside(found.largest, spectrum)
  np.testing.assert_allclose(
    abs(found.largest).max(), abs(spectrum).max(), rtol=1e-3
  )
  np.testing.assert_allclose(
    found.rightmost.real.max(), spectrum.real.max(), rtol=5e-3
  )


def dirac_jacobian(penalty):
  """At the equilibrium."""
  nets = networks.build('dirac', (1,), bounded=False)
  terms = [R1(penalty)] if penalty else []
  game = Game(nets, objectives.Minimax(), terms)
  trainer = Trainer(game, Sgd(), Sgd())
  state = trainer.init(jax.random.key(0))
  v, _ = field_of(trainer, state, Batch(jnp.zeros((4, 1))))
  return jax.jit(lambda w: dynamics.jacobian(v, w))(jnp.zeros(2))


@pytest.mark.parametrize('g', [0.0, 0.5, 2.0])
def test_dirac_turns_and_r1_damps_it(g):
  """-g/2 +- sqrt(g^2/4 - 1/4) at the equilibrium; +-i/2 without."""
  matrix = np.float64(dirac_jacobian(g))
  found = np.sort_complex(np.linalg.eigvals(matrix))
  root = np.sqrt(complex(g**2 / 4 - 1 / 4))
  expected = np.sort_complex([-g / 2 - root, -g / 2 + root])
  np.testing.assert_allclose(found, expected, atol=1e-6)


def linear(matrix):
  wide = jnp.asarray(matrix, jnp.float32)
  return lambda w: wide @ w


def test_turn_of_known_games():
  rng = np.random.default_rng(0)
  square = rng.normal(size=(6, 6))
  w = jnp.asarray(rng.normal(size=6), jnp.float32)
  potential = dynamics.turn(linear(-(square @ square.T)), w)
  np.testing.assert_allclose(potential.rotation, 0, atol=1e-6)
  assert float(potential.alignment) < -0.5
  hamiltonian = dynamics.turn(linear(square - square.T), w)
  np.testing.assert_allclose(hamiltonian.rotation, 1, atol=1e-6)
  np.testing.assert_allclose(hamiltonian.alignment, 0, atol=1e-6)
  shrinking = dynamics.turn(linear(-3 * np.eye(6)), w)
  np.testing.assert_allclose(shrinking, (-1, 0), atol=1e-6)
  growing = dynamics.turn(linear(0.5 * np.eye(6)), w)
  np.testing.assert_allclose(growing, (1, 0), atol=1e-6)
  # Both at once: v = (S + A) w, of a weight each.
  mixed = -2 * np.eye(2) + np.array([[0, 1], [-1, 0]])
  found = dynamics.turn(linear(mixed), jnp.array([0.3, -0.4]))
  np.testing.assert_allclose(found.rotation, 1 / 5, atol=1e-6)
  np.testing.assert_allclose(found.alignment, -2 / np.sqrt(5), atol=1e-6)
  still = dynamics.turn(linear(mixed), jnp.zeros(2))
  assert not np.isfinite(still.alignment) and not np.isfinite(still.rotation)


def test_turn_is_of_the_field_where_it_is_asked():
  """Away from a fixed point: `J v`, not `J w`."""
  matrix, shift = np.array([[-1.0, 2.0], [0.5, -0.3]]), np.array([1.0, -2.0])
  w = np.array([0.2, 0.9])
  v = lambda w: jnp.asarray(matrix, jnp.float32) @ w + jnp.float32(shift)
  found = dynamics.turn(v, jnp.asarray(w, jnp.float32))
  now = matrix @ w + shift
  along, back = matrix @ now, matrix.T @ now
  cosine = now @ along / np.linalg.norm(now) / np.linalg.norm(along)
  s, a = np.sum((along + back) ** 2), np.sum((along - back) ** 2)
  np.testing.assert_allclose(found, (cosine, a / (s + a)), rtol=1e-5)


def test_input_slopes_are_those_of_a_known_d():
  """D = c x^2 + w x, at real samples and at those of `G = a z + b`."""
  found = dynamics.input_slopes(*quadratic(), jax.random.key(1))
  a, b, c, w = THETA
  for place, at in (('real', X), ('fake', a * Z + b)):
    np.testing.assert_allclose(
      found[place], np.abs(2 * c * at + w), rtol=1e-5, err_msg=place
    )


def test_input_slopes_are_of_samples_as_noisy_as_at_that_step():
  """By the images shown until then, and by the numbers of the state."""
  trainer, state, real = quadratic()
  slopes = dynamics.input_slopes(trainer, state, real, jax.random.key(1))
  noise = InstanceNoise(std=1.0, kimg=0.06)  # for ten batches of six
  noisy = trainer.replace(game=trainer.game.replace(instance_noise=noise))
  start = noisy.init(jax.random.key(0)).replace(d=state.d, g=state.g)
  silent = start.hyper | {'instance_noise.std': jnp.float32(0)}
  for at, alike in (
    (start, False),
    (start.replace(step=jnp.int32(9)), False),
    (start.replace(step=jnp.int32(10)), True),
    (start.replace(hyper=silent), True),
  ):
    found = dynamics.input_slopes(noisy, at, real, jax.random.key(1))
    for place in ('real', 'fake'):
      near = np.allclose(found[place], slopes[place], rtol=1e-5)
      assert near == alike, (int(at.step), place)


def test_input_slopes_with_a_mean_over_no_batch():
  """Each example's own: a batch of more has the same ones."""
  trainer, state, real = quadratic()
  more = Batch(jnp.concatenate([real.x, 3 + real.x]))
  slopes = [
    dynamics.input_slopes(trainer, state, x, jax.random.key(0))['real']
    for x in (real, more)
  ]
  np.testing.assert_allclose(slopes[1][: len(Z)], slopes[0], rtol=1e-6)
