"""Figures of an ablation's report."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import ablation_folder

from gan_jax.ablation import figures
from gan_jax.ablation.results import read_results


@pytest.mark.parametrize(
  'low, high', [(2.0, 90.0), (0.9, 31.0), (3.0, 950.0), (0.002, 40.0)]
)
def test_a_logarithmic_axis_has_two_labels_at_least(low, high):
  figure, axes = plt.subplots(figsize=(4.6, 1.0))
  axes.set(xscale='log', xlim=figures._axis_limits(np.array([low, high]), True))
  figures._set_ticks(axes.xaxis, True)
  figure.canvas.draw()
  left, right = axes.get_xlim()
  labels = [
    t.label1.get_text() for t in axes.xaxis.get_major_ticks()
    if left <= t.get_loc() <= right
  ]  # fmt: skip
  plt.close(figure)
  assert 2 <= len([word for word in labels if word]) <= 6


def test_quartiles_are_of_the_runs_that_have_a_value():
  nan = np.nan
  values = np.array([[1, nan, 2], [3, 5, nan], [nan, np.inf, nan]])
  low, middle, high = figures.quartiles(values)
  np.testing.assert_allclose(middle, [1.5, 4, nan])
  np.testing.assert_allclose(high - low, [0.5, 1, nan])


def test_a_panel_without_a_number_is_left_out():
  steps, some, none = np.arange(2), np.ones((2, 3)), np.full((2, 3), np.nan)
  lines = {'a': [('#000', steps, some)], 'b': [('#000', steps, none)]}
  assert [t for t, _ in figures.draw_panels('x', lines)] == ['a']
  empty = {'b': lines['b'], 'c': [('#000', np.zeros(0), np.zeros((0, 0)))]}
  assert figures.draw_panels('x', empty) == []


def test_colours_are_hues_of_words_and_shades_of_numbers():
  words = figures.choose_colours(['a', 'b'])
  assert words == list(figures.COLOURS[:2])
  shades = figures.choose_colours([1e-4, 2e-4, 1e-3])
  assert len(set(shades)) == 3 and not set(shades) & {*figures.COLOURS}


def test_the_axis_of_a_bound_ends_where_it_proves_nothing(monkeypatch):
  steps, shown = np.arange(3), []

  def uri(figure, kind):
    shown.append(figure.axes[0].get_ylim())
    plt.close(figure)
    return ''

  monkeypatch.setattr(figures, 'uri', uri)
  values = np.array([[0.0], [-900.0], [0.5]])
  lines = {'a': [('#000', steps, values)]}
  for floor in (None, -0.1):
    figures.draw_panels('x', lines, 0.0, floor)
  assert shown[0][0] < -800
  assert -0.2 < shown[1][0] <= -0.1 and 0.5 < shown[1][1] < 0.6


@pytest.mark.parametrize('count, cut', [(4, False), (900, True)])
def test_a_wild_moment_is_cut_and_few_scores_are_not(count, cut, monkeypatch):
  shown = []

  def uri(figure, kind):
    shown.append(figure.axes[0].get_ylim())
    plt.close(figure)
    return ''

  monkeypatch.setattr(figures, 'uri', uri)
  values = np.linspace(0, 1, 2 * count).reshape(count, 2)
  values[-1] = 1.0, 9.0
  figures.draw_panels('x', {'a': [('#000', np.arange(count), values)]})
  third = figures.quartiles(values)[2].max()
  assert (shown[0][1] < third) == cut


@pytest.mark.parametrize('third, arrows', [(1.1, 0), (9.0, 2)])
def test_an_interval_that_is_cut_has_arrows(
  third, arrows, tmp_path, monkeypatch
):
  shown = []

  def uri(figure, kind):
    shown.extend(line.get_marker() for line in figure.axes[0].get_lines())
    plt.close(figure)
    return ''

  monkeypatch.setattr(figures, 'uri', uri)
  scores = [[1.0, 1.05, third] + [1.0, 1.1] * 4 * (not arrows)]
  folder = ablation_folder.small(tmp_path, scores)
  ranking = read_results(folder).ranking
  figures.draw_strips(ranking, 'swd')
  assert sum(mark in ('<', '>') for mark in shown) == arrows
