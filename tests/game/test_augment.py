"""Augmentations: by the same rules, and against NumPy, example by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import testing
from gan_jax.game.augment import AUGMENTATIONS, consistency_view

SIDE = 16


@pytest.mark.parametrize('name', sorted(AUGMENTATIONS))
def test_keeps_all_promises(name):
  assert testing.check_augmentation(AUGMENTATIONS[name]) == []
  assert AUGMENTATIONS[name]().name == name


def images(n=6, side=SIDE, channels=3, seed=0):
  rng = np.random.default_rng(seed)
  shape = (n, side, side, channels)
  return jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32)


def applied(name, x, key):
  return AUGMENTATIONS[name]().apply(x, key)


def test_color_against_numpy():
  x, key = images(), jax.random.key(5)
  y = applied('color', x, key)
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
  y = np.float64(applied('color', x, jax.random.key(0)))
  wide = np.float64(x)
  centred = wide - wide.mean((1, 2, 3), keepdims=True)
  ratio = (y - y.mean((1, 2, 3), keepdims=True)) / centred
  assert ratio.std(axis=(1, 2, 3)).max() < 1e-3  # contrast alone


def test_translation_shifts_whole_pixels_by_an_eighth_at_most():
  """Each image is found again at one shift; all shifts occur, none beyond."""
  n, most = 400, SIDE // 8
  x = jnp.tile(images(1), (n, 1, 1, 1)) + 2  # no pixel is 0
  y = np.asarray(applied('translation', x, jax.random.key(0)))
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
  y = np.asarray(applied('cutout', x, jax.random.key(0)))
  np.testing.assert_array_equal(y[..., 0], y[..., 1])
  rows, columns = (1 - y[..., 0]).any(2), (1 - y[..., 0]).any(1)
  np.testing.assert_array_equal(
    1 - y[..., 0], rows[:, :, None] & columns[:, None, :]
  )
  lengths = rows.sum(1)
  assert lengths.max() == SIDE // 2 and lengths.min() >= SIDE // 4
  for end in (0, -1):  # it overhangs by up to half of itself, at either end
    assert lengths[rows[:, end]].min() == SIDE // 4
  for line in rows:  # without a gap
    assert np.abs(np.diff(line.astype(int))).sum() <= 2
  # As likely at one end as at the other.
  assert abs(rows[:, 0].mean() - rows[:, -1].mean()) < 0.1


def test_flip_turns_half_of_the_images():
  x = images(300)
  y = np.asarray(applied('flip', x, jax.random.key(0)))
  turned = (y == np.asarray(x)[:, :, ::-1]).all((1, 2, 3))
  same = (y == np.asarray(x)).all((1, 2, 3))
  assert (turned ^ same).all() and 0.4 < turned.mean() < 0.6


def test_a_view_is_the_same_picture_a_little_moved():
  x = jnp.tile(images(1), (64, 1, 1, 1)) + 2
  y = np.asarray(consistency_view(x, jax.random.key(0)))
  kept = np.sort(y[y > 0.5].ravel())
  assert set(np.round(kept, 5)) <= set(np.round(np.asarray(x[0]), 5).ravel())
  assert (y[:, SIDE // 2, SIDE // 2] > 0.5).all()


# Of DiffAugment_pytorch.py: int(side / 8 + 0.5), and int(side / 2 + 0.5).
@pytest.mark.parametrize(
  'side, shift, hole',
  [(15, 2, 8), (20, 3, 10), (28, 4, 14), (36, 5, 18), (52, 7, 26)],
)
def test_lengths_are_those_of_the_authors_code(side, shift, hole):
  x, key = jnp.ones((300, side, side, 1)), jax.random.key(0)
  moved = np.asarray(applied('translation', x, key))
  assert (1 - moved).all(2).sum(1).max() == shift
  cut = np.asarray(applied('cutout', x, jax.random.clone(key)))
  assert (1 - cut).any(2).sum(1).max() == hole
  view = np.asarray(consistency_view(x, jax.random.clone(key)))
  assert (1 - view).all(2).sum(1).max() == shift
