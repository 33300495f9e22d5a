"""Augmentations: against NumPy, example by example, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.game import augment as augment_lib
from gan_jax.game.augment import AUGMENTATIONS, augment, consistency_view

EVERY = pytest.mark.parametrize('name', sorted(AUGMENTATIONS))
SIDE = 16


def images(n=6, side=SIDE, channels=3, seed=0):
  rng = np.random.default_rng(seed)
  shape = (n, side, side, channels)
  return jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32)


@EVERY
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_shape_and_type_stay(name, channels, dtype):
  x = images(channels=channels).astype(dtype)
  y = AUGMENTATIONS[name](x, jax.random.key(0))
  assert y.shape == x.shape and y.dtype == x.dtype
  assert not np.array_equal(np.float32(x), np.float32(y))


@EVERY
def test_examples_do_not_depend_on_each_other(name):
  x, other = images(), images(seed=1)
  mixed = x.at[1:].set(other[1:])
  key = jax.random.key(3)
  y = AUGMENTATIONS[name](x, key)
  z = AUGMENTATIONS[name](mixed, jax.random.clone(key))
  np.testing.assert_array_equal(y[0], z[0])


@EVERY
def test_each_example_has_a_draw_of_its_own(name):
  x = jnp.tile(images(1), (32, 1, 1, 1))
  y = np.asarray(AUGMENTATIONS[name](x, jax.random.key(0)))
  assert len({row.tobytes() for row in y}) > 1


@EVERY
def test_jit_is_eager_and_vmap_is_a_loop(name):
  f, keys = AUGMENTATIONS[name], jax.random.split(jax.random.key(0), 2)
  xs = jnp.stack([images(), images(seed=1)])
  eager = [f(x, k) for x, k in zip(xs, keys, strict=True)]
  again = jax.random.clone(keys)
  np.testing.assert_allclose(jax.vmap(f)(xs, again), eager, atol=1e-6)
  again = jax.random.clone(keys)
  np.testing.assert_allclose(jax.jit(f)(xs[0], again[0]), eager[0], atol=1e-6)


@EVERY
def test_gradients_of_both_modes_and_both_orders(name):
  x, direction = images(2, 8), images(2, 8, seed=1)
  key = jax.random.key(0)

  def f(x):
    return AUGMENTATIONS[name](x, jax.random.clone(key))

  def g(x):
    return jnp.sum(jnp.sin(f(x)))

  _, forward = jax.jvp(g, (x,), (direction,))
  reverse = jnp.vdot(jax.grad(g)(x), direction)
  np.testing.assert_allclose(forward, reverse, rtol=1e-4)
  again = jax.grad(lambda x: jnp.sum(jnp.square(jax.grad(g)(x))))(x)
  assert jnp.isfinite(again).all()
  step = 1e-2
  difference = (g(x + step * direction) - g(x - step * direction)) / (2 * step)
  np.testing.assert_allclose(reverse, difference, rtol=2e-2, atol=2e-2)


def test_color_against_numpy():
  x, key = images(), jax.random.key(5)
  y = augment_lib.color(x, key)
  keys = jax.random.split(jax.random.clone(key), 3)
  limits = [(-0.5, 0.5), (0.0, 2.0), (0.5, 1.5)]
  b, s, c = (
    np.float64(jax.random.uniform(k, (6,), jnp.float32, *at)).reshape(
      6, 1, 1, 1
    )
    for k, at in zip(keys, limits, strict=True)
  )
  wide = np.float64(x) + b
  grey = wide.mean(3, keepdims=True)
  wide = grey + s * (wide - grey)
  mean = wide.mean((1, 2, 3), keepdims=True)
  np.testing.assert_allclose(y, mean + c * (wide - mean), atol=1e-5)
  assert len(np.unique(b)) == 6


def test_saturation_is_nothing_to_grey_images():
  x = images(channels=1)
  y = np.float64(augment_lib.color(x, jax.random.key(0)))
  wide = np.float64(x)
  centred = wide - wide.mean((1, 2, 3), keepdims=True)
  ratio = (y - y.mean((1, 2, 3), keepdims=True)) / centred
  assert ratio.std(axis=(1, 2, 3)).max() < 1e-3  # contrast alone


def test_translation_shifts_whole_pixels_by_an_eighth_at_most():
  """Each image is found again at one shift; all shifts occur, none beyond."""
  n, most = 400, SIDE // 8
  x = jnp.tile(images(1), (n, 1, 1, 1)) + 2  # no pixel is 0
  y = np.asarray(augment_lib.translation(x, jax.random.key(0)))
  wide = np.pad(np.asarray(x[0]), ((SIDE,) * 2, (SIDE,) * 2, (0, 0)))
  found = {}
  for i in range(-most - 1, most + 2):
    for j in range(-most - 1, most + 2):
      at = wide[SIDE - i : 2 * SIDE - i, SIDE - j : 2 * SIDE - j]
      found[i, j] = (np.abs(y - at).max((1, 2, 3)) < 1e-6).sum()
  assert sum(found.values()) == n
  inside = {ij: k for ij, k in found.items() if max(map(abs, ij)) <= most}
  assert sum(inside.values()) == n and min(inside.values()) > 0


def test_cutout_clears_a_square_of_half_the_side():
  n = 500
  x = jnp.ones((n, SIDE, SIDE, 2))
  y = np.asarray(augment_lib.cutout(x, jax.random.key(0)))
  np.testing.assert_array_equal(y[..., 0], y[..., 1])
  rows, columns = (1 - y[..., 0]).any(2), (1 - y[..., 0]).any(1)
  np.testing.assert_array_equal(
    1 - y[..., 0], rows[:, :, None] & columns[:, None, :]
  )
  lengths = rows.sum(1)
  assert lengths.max() == SIDE // 2 and lengths.min() >= SIDE // 4
  assert (lengths < SIDE // 2).any()  # some overhang
  for line in rows:  # without a gap
    assert np.abs(np.diff(line.astype(int))).sum() <= 2
  # As likely at one end as at the other.
  assert abs(rows[:, 0].mean() - rows[:, -1].mean()) < 0.1


def test_flip_turns_half_of_the_images():
  x = images(300)
  y = np.asarray(augment_lib.flip(x, jax.random.key(0)))
  turned = (y == np.asarray(x)[:, :, ::-1]).all((1, 2, 3))
  same = (y == np.asarray(x)).all((1, 2, 3))
  assert (turned ^ same).all() and 0.4 < turned.mean() < 0.6


def test_augmentations_are_laid_on_in_their_order():
  x, key = images(), jax.random.key(1)
  one, two = jax.random.split(jax.random.clone(key))
  expected = augment_lib.cutout(augment_lib.color(x, one), two)
  found = augment(x, key, ('color', 'cutout'))
  np.testing.assert_array_equal(found, expected)


def test_a_view_is_the_same_picture_a_little_moved():
  x = jnp.tile(images(1), (64, 1, 1, 1)) + 2
  y = np.asarray(consistency_view(x, jax.random.key(0)))
  kept = np.sort(y[y > 0.5].ravel())
  assert set(np.round(kept, 5)) <= set(np.round(np.asarray(x[0]), 5).ravel())
  assert (y[:, SIDE // 2, SIDE // 2] > 0.5).all()


def test_points_are_refused():
  with pytest.raises(ValueError, match='--diffaugment=color: is for images'):
    augment(jnp.ones((4, 2)), jax.random.key(0), ('color',))
