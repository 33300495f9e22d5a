"""Densities: each is what it says of itself, and what papers say of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import data
from gan_jax.data import densities
from gan_jax.runtime.errors import ArgumentError
from gan_jax.testing.densities import check_density


@pytest.mark.parametrize('name', data.DENSITIES)
def test_each_is_what_it_says(name):
  density = data.load(name)
  assert density.name == name
  check_density(density)


# Centres and standard deviations as the docstrings and the papers have them.
LISTED = {
  'gaussian_1d': ([[4.0]], 1.25),
  'mixture_1d': ([[-3.0], [0.0], [3.0]], 0.5),
  'delta': ([[0.0]], 0),
}


@pytest.mark.parametrize('name', LISTED)
def test_modes_on_a_line_are_as_documented(name):
  density, (modes, std) = data.load(name), LISTED[name]
  np.testing.assert_array_equal(density.modes, modes)
  assert density.mode_std == std


def test_ring_has_eight_distinct_modes_at_equal_angles():
  modes = densities.ring().modes
  angles = np.sort(np.arctan2(modes[:, 1], modes[:, 0]) % (2 * np.pi))
  gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
  np.testing.assert_allclose(gaps, np.full(8, np.pi / 4), atol=1e-12)
  np.testing.assert_allclose(np.linalg.norm(modes, axis=1), 1)
  assert densities.ring().mode_std == 0.01


def test_grid_has_25_modes_two_apart():
  modes = densities.grid().modes
  assert len(np.unique(modes, axis=0)) == 25 and np.abs(modes).max() == 4
  gaps = np.linalg.norm(modes[:, None] - modes, axis=-1)
  assert np.min(gaps + 9 * np.eye(25)) == 2
  assert densities.grid().mode_std == 0.05


def test_spiral_runs_out_to_radius_2_in_two_turns():
  density = densities.spiral()
  assert density.modes is None and density.mode_std == 0.05
  t = 4 * np.pi * (np.arange(0.5, 64) / 64)
  curve = t[:, None] / (2 * np.pi) * np.stack([np.cos(t), np.sin(t)], 1)
  on, between = curve, 0.5 * (curve[:32] + 3 * curve[32:]) / 2
  log_prob = jax.jit(density.log_prob)
  assert log_prob(jnp.float32(on)).min() > log_prob(jnp.float32(between)).max()


def test_fingerprints_are_distinct():
  marks = {data.load(name).fingerprint for name in data.DENSITIES}
  assert len(marks) == len(data.DENSITIES)
  narrow = densities._mixture('ring', np.zeros((1, 2)), 0.02, (-1, 1))
  assert narrow.fingerprint != densities.ring().fingerprint
  moved = densities._mixture('gaussian_1d', np.array([[0.0]]), 1.25, (-1, 9))
  assert moved.fingerprint != densities.gaussian_1d().fingerprint


@pytest.mark.parametrize('argument', ['image_size', 'channels'])
def test_arguments_of_images_are_refused(argument):
  with pytest.raises(ArgumentError, match=f'`{argument}=3`.*ring'):
    data.load('ring', **{argument: 3})


# The check of densities finds what is wrong with one.

NORMAL = densities._mixture('normal', np.zeros((1, 1)), 1.0, (-5.0, 5.0))
PAIR = densities._mixture('pair', np.array([[-3.0], [3.0]]), 0.5, (-6.0, 6.0))
ROUND = densities._mixture('round', np.zeros((1, 2)), 1.0, (-5.0, 5.0))


def _lopsided(key, n):
  left, noise = jax.random.split(key)
  side = jax.random.bernoulli(left, 0.6, (n, 1))
  return jnp.where(side, -3.0, 3.0) + 0.5 * jax.random.normal(noise, (n, 1))


def _one_key_twice(key, n):
  return jnp.repeat(jax.random.normal(key, (n, 1)), 2, axis=1)


FAULTS = {
  'no `reference`; give it its log-density': (NORMAL, {'reference': None}),
  'no `fingerprint`; give it a hash': (NORMAL, {'fingerprint': ''}),
  'use 1 or 2': (NORMAL, {'dim': 3}),
  'a mode is out of `extent`': (NORMAL, {'extent': (1.0, 5.0)}),
  '`modes` without `mode_std`': (NORMAL, {'mode_std': None}),
  '`extent` shows 68': (NORMAL, {'extent': (-1.0, 1.0)}),
  'return float32': (NORMAL, {'sample': lambda key, n: jnp.zeros(n)}),
  'NaN': (NORMAL, {'sample': lambda key, n: jnp.full((n, 1), jnp.nan)}),
  'samples of one key for another': (
    NORMAL,
    {'sample': lambda key, n: NORMAL.sample(jax.random.key(7), n)},
  ),
  '`log_prob` of 64 samples': (NORMAL, {'log_prob': lambda x: x}),
  '`log_prob` and `reference` differ': (
    NORMAL,
    {'log_prob': lambda x: NORMAL.log_prob(x) - 1e-3},
  ),
  'samples do not follow': (
    NORMAL,
    {'sample': lambda key, n: NORMAL.sample(key, n) + 0.1},
  ),
  'other points than `modes`': (NORMAL, {'mode_std': 0.0}),
  'times as wide as `mode_std`': (NORMAL, {'mode_std': 0.9}),
  'equally likely|do not follow': (PAIR, {'sample': _lopsided}),
  'one axis on another|do not follow': (ROUND, {'sample': _one_key_twice}),
}


@pytest.mark.parametrize('words', FAULTS)
def test_what_is_wrong_with_a_density_is_said_in_words(words):
  density, fault = FAULTS[words]
  with pytest.raises(AssertionError, match=f'^{density.name}: .*({words})'):
    check_density(dataclasses.replace(density, **fault))


def test_a_mass_that_is_not_one_is_found():
  twice = dataclasses.replace(
    NORMAL,
    log_prob=lambda x: NORMAL.log_prob(x) + np.float32(np.log(2)),
    reference=lambda x: NORMAL.reference(x) + np.log(2),
  )
  with pytest.raises(AssertionError, match='a mass of 2.0'):
    check_density(twice)


def test_narrow_modes_of_another_width_are_found():
  ring = densities.ring()
  wide = densities._mixture('ring', ring.modes, 0.012, ring.extent)
  with pytest.raises(AssertionError, match='narrower or wider'):
    check_density(dataclasses.replace(ring, sample=wide.sample))


def test_an_entry_of_the_dict_is_a_dataset(monkeypatch):
  monkeypatch.setitem(data.DENSITIES, 'normal', lambda: NORMAL)
  assert data.load('normal').modes.tolist() == [[0.0]]
  images = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
  monkeypatch.setitem(data.DATASETS, 'mine', lambda: images)
  mine = data.load('mine')
  assert mine.name == 'mine' and mine.shape == (4, 4, 1) and mine.size == 3
  with pytest.raises(ArgumentError, match='`dataset=mine'):
    data.load('mine[:2]')
