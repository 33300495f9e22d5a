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
