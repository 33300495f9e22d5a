"""Figures of densities: what is drawn is the truth and what G makes."""

import jax
import jax.numpy as jnp
import matplotlib.path
import matplotlib.pyplot as plt
import numpy as np
import pytest

from gan_jax import data
from gan_jax.figures import density as figures


def test_a_perfect_generator_looks_perfect():
  """The estimate keeps the height of the modes of a mixture."""
  density = data.load('mixture_1d')
  at = np.linspace(*density.extent, 512, dtype=np.float32)
  truth = np.exp(density.log_prob(jnp.asarray(at[:, None])))
  x = np.asarray(density.sample(jax.random.key(1), 4096))
  estimate = figures.smooth_density(x, at)
  assert np.abs(estimate - truth).max() < 0.15 * truth.max()


def test_samples_that_collapse_have_no_density():
  at = np.linspace(-1, 1, 5)
  assert figures.smooth_density(np.full((9, 1), 0.5), at) is None
  assert figures.smooth_density(np.array([0.0, np.nan]), at) is None


def test_the_line_around_a_density_holds_its_mass():
  """All turns of the spiral lie inside it, the thin outer one too."""
  density = data.load('spiral')
  with plt.rc_context():
    figure, axes = plt.subplots()
    figures.draw_truth_2d(axes, density)
    (line,) = axes.collections
    x = np.asarray(density.sample(jax.random.key(0), 2000))
    (around,) = line.get_paths()
    assert isinstance(around, matplotlib.path.Path)
    inside = around.contains_points(x).mean()
    plt.close(figure)
  assert inside == pytest.approx(0.95, abs=0.03)


def test_d_is_drawn_where_it_judged(monkeypatch):
  """Points go along the first axis first."""
  ring, side, shown = data.load('ring'), 6, []
  axis = np.linspace(*ring.extent, side, dtype=np.float32)
  across, up = np.meshgrid(axis, axis)
  grid = np.stack([across.ravel(), up.ravel()], axis=-1)
  points = np.zeros((3, 2), np.float32)
  arrays = dict(x=points, real=points, grid=grid)
  arrays['prob'] = (grid[:, 0] > 0) * 0.5 + (grid[:, 1] > 0) * 0.25
  figure, axes = plt.subplots()
  draw = axes.contourf

  def contourf(x, y, z, **how):
    shown.append((x, y, z))
    return draw(x, y, z, **how)

  monkeypatch.setattr(axes, 'contourf', contourf)
  figures._draw_2d(axes, ring, arrays)
  plt.close(figure)
  ((x, y, z),) = shown
  # Matplotlib has z[row, column] at (x[column], y[row]).
  expected = (x[None, :] > 0) * 0.5 + (y[:, None] > 0) * 0.25
  np.testing.assert_allclose(z, expected)


def test_a_kernel_is_as_wide_as_the_picture_says():
  """However close samples lie: a peak is as high as can be seen."""
  at = np.linspace(-5, 5, 501)
  x = np.linspace(-0.01, 0.01, 99)
  estimate = figures.smooth_density(x, at)
  width = figures.BANDWIDTH * 10
  assert estimate.max() == pytest.approx(1 / (width * (2 * np.pi) ** 0.5), 0.01)
  assert estimate.sum() * 0.02 == pytest.approx(1, 1e-3)
