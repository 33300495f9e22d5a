"""Any density from a file: what is read, what is drawn, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

import gan_jax as gj
from gan_jax import data
from gan_jax.runtime.errors import ArgumentError

# A triangle, a gap without mass, a step up, a flat piece; not normalised.
X = np.array([-1.0, 1.0, 1.5, 2.0, 2.001, 4.0])
P = np.array([0.0, 6.0, 0.0, 0.0, 3.0, 3.0])
N = 50_000


def write(path, x=X, p=P, **how):
  np.savetxt(path, np.stack([x, p], axis=1), **how)
  return f'density:{path}'


@pytest.fixture(scope='module')
def density(tmp_path_factory):
  return data.load(write(tmp_path_factory.mktemp('density') / 'p.txt'))


def truth(x):
  """The density in float64."""
  mass = sum(np.diff(X) * (P[:-1] + P[1:]) / 2)
  return np.interp(x, X, P, left=0, right=0) / mass


def distribution(x):
  """Its distribution function, by quadrature of a fine grid."""
  at = np.union1d(np.linspace(-1, 4, 50_001), X)
  below = scipy.integrate.cumulative_trapezoid(truth(at), at, initial=0)
  return np.interp(x, at, below)


def test_log_prob_is_that_of_the_curve_scaled_to_one(density):
  x = np.linspace(-2, 5, 1401, dtype=np.float32)
  found = np.exp(np.float64(density.log_prob(jnp.asarray(x)[:, None])))
  np.testing.assert_allclose(found, truth(np.float64(x)), rtol=1e-4, atol=1e-6)


def test_log_prob_says_where_there_is_nothing(density):
  found = density.log_prob(jnp.array([[-1.1], [1.7], [4.1], [1e30]]))
  np.testing.assert_array_equal(found, [-np.inf] * 4)


def test_samples_follow_the_density(density):
  x = np.asarray(density.sample(jax.random.key(0), N))
  assert x.shape == (N, 1) and x.dtype == np.float32
  assert np.isfinite(density.log_prob(jnp.asarray(x))).all()
  assert scipy.stats.kstest(x[:, 0], distribution).pvalue > 1e-3


@pytest.mark.parametrize('draw', [0.0, 1 - 2.0**-24])
def test_the_ends_of_what_is_drawn_are_points_too(draw, density, monkeypatch):
  """A piece may begin at 0, where there is nothing to divide by."""
  monkeypatch.setattr(
    jax.random, 'uniform', lambda key, shape: jnp.full(shape, draw)
  )
  x = density.sample(jax.random.key(0), 3)
  assert ((x >= X[0]) & (x <= X[-1])).all()


def test_a_piece_without_mass_is_never_drawn(tmp_path, monkeypatch):
  """Not even where it is the first, at a draw of 0."""
  name = write(tmp_path / 'p.txt', [0.0, 1.0, 2.0], [0.0, 0.0, 2.0])
  density = data.load(name)
  monkeypatch.setattr(
    jax.random, 'uniform', lambda key, shape: jnp.zeros(shape)
  )
  x = density.sample(jax.random.key(0), 1)
  assert np.isfinite(density.log_prob(x)).all()


def test_sample_is_a_function_of_the_key_and_compiles(density):
  draw = jax.jit(density.sample, static_argnums=1)
  once, again, other = (draw(jax.random.key(k), 64) for k in (0, 0, 1))
  np.testing.assert_array_equal(once, again)
  assert not np.isin(other, once).any()
  eager = density.sample(jax.random.key(0), 64)
  np.testing.assert_allclose(once, eager, rtol=1e-6)


def test_extent_shows_all_of_it_and_what_is_beside_it(density):
  assert density.extent == pytest.approx((-1.75, 4.75))
  assert density.dim == 1 and density.modes is None


def test_the_fingerprint_is_of_the_numbers_alone(tmp_path):
  spaced = data.load(write(tmp_path / 'a.txt'))
  commas = data.load(write(tmp_path / 'b.csv', delimiter=',', header='x,p'))
  assert spaced.fingerprint == commas.fingerprint != ''
  for x, p in ((X + 1, P), (X, P + 1), (X, 2 * P)):
    other = data.load(write(tmp_path / 'c.txt', x, p))
    assert other.fingerprint != spaced.fingerprint


@pytest.mark.parametrize('height', [1e-300, 1e308])
def test_a_curve_of_any_height_will_do(tmp_path, height):
  flat = data.load(write(tmp_path / 'p.txt', [0, 2], [height, height]))
  at = jnp.array([[0.5], [1.5]])
  np.testing.assert_allclose(flat.log_prob(at), np.log([0.5, 0.5]), rtol=1e-6)


# Many points and a wide range: no mass may be lost to float32.
def test_a_fine_curve_is_drawn_to_its_end(tmp_path):
  x = np.linspace(0, 100, 5001)
  density = data.load(write(tmp_path / 'fine.txt', x, 1e-8 * np.exp(-x / 20)))
  drawn = np.asarray(density.sample(jax.random.key(0), N))[:, 0]
  whole = scipy.stats.truncexpon(5, scale=20)
  assert scipy.stats.kstest(drawn, whole.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
  ('text', 'told'),
  [
    ('', 'has 0 points; give at least two'),
    ('1 1', 'has 1 points'),
    ('# x p\n0 1\n1 one', "line 3 is '1 one'; write two numbers"),
    ('0 1\n1 1 1', 'line 2'),
    ('0 1\n1 nan', 'not finite'),
    ('0 1\ninf 1', 'not finite'),
    ('0 1\n2 1\n1 1', 'x=1 is not above the x before it'),
    ('0 1\n0 1', 'x=0 is not above'),
    ('1 1\n1.000000001 1', 'x=1 is not above'),  # the same in float32
    ('0 1\n1 -1', r'p\(1\) is negative'),
    ('0 1\n1e300 1', 'beyond 1e30'),
    ('0 0\n1 0', 'p is 0 everywhere'),
  ],
)
def test_what_is_no_density_is_refused(tmp_path, text, told):
  path = tmp_path / 'p.txt'
  path.write_text(text)
  with pytest.raises(ArgumentError, match=f'`dataset=density:.*{told}'):
    data.load(f'density:{path}')


def test_what_is_no_text_is_refused(tmp_path):
  for path in (tmp_path / 'absent', tmp_path):
    with pytest.raises(ArgumentError, match='cannot be read.*two columns'):
      data.load(f'density:{path}')
  (tmp_path / 'p.npy').write_bytes(bytes(range(256)))
  with pytest.raises(ArgumentError, match='cannot be read'):
    data.load(f'density:{tmp_path / "p.npy"}')
  with pytest.raises(ArgumentError, match='write density:FILE'):
    data.load('density:')
  with pytest.raises(ArgumentError, match='`channels=3`: .*prepared images'):
    data.load(write(tmp_path / 'p.txt'), channels=3)


@pytest.mark.slow
def test_a_run_learns_it_and_refuses_another(tmp_path):
  path, options = tmp_path / 'p.txt', dict(network='mlp', width=8, latent_dim=1)
  options |= dict(batch_size=8, devices=1, compilation_cache='off')
  name, workdir = write(path), tmp_path / 'run'
  run = gj.train(workdir, data=name, steps=2, report=True, **options)
  assert (workdir / 'report.html').stat().st_size > 10_000
  assert run.dataset.fingerprint == data.load(name).fingerprint
  write(path, X, P[::-1])
  with pytest.raises(gj.Error, match='data'):
    gj.train(workdir, data=name, steps=3, **options)
