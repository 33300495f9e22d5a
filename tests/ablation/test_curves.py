"""Curves and figures of an ablation's report."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import ablation_folder

from gan_jax.ablation import curves, figures, report, results


@pytest.mark.parametrize(
  'low, high', [(2.0, 90.0), (0.9, 31.0), (3.0, 950.0), (0.002, 40.0)]
)
def test_a_logarithmic_axis_has_two_labels_at_least(low, high):
  figure, axes = plt.subplots(figsize=(4.6, 1.0))
  axes.set(xscale='log', xlim=figures._limits(np.array([low, high]), True))
  figures._ticks(axes.xaxis, True)
  figure.canvas.draw()
  left, right = axes.get_xlim()
  labels = [
    t.label1.get_text() for t in axes.xaxis.get_major_ticks()
    if left <= t.get_loc() <= right
  ]  # fmt: skip
  plt.close(figure)
  assert 2 <= len([word for word in labels if word]) <= 6


def members(*pairs):
  return [{'cell': c, 'seed': s, 'values': {}} for c, s in pairs]


def test_one_flag_is_one_panel_with_every_setting(tmp_path):
  plan = ablation_folder.plan_of({'objective': ['a_b', 'c']}, [0])
  rows, told = [], members((0, 0), (1, 0))
  for i, cell in enumerate(plan['cells']):
    rows.append(ablation_folder.row_of(i, cell, 0, 'done', 9, {'swd': 1.0}))
  arrays = {'step': np.arange(3), 'alive': np.ones((3, 2), bool)}
  arrays |= {'d/loss': np.ones((3, 2))}
  plan['metrics'] = ['swd']
  folder = ablation_folder.write(tmp_path, plan, rows, [(told, arrays, [])])
  (folder / 'scores.csv').write_text(
    'cell,seed,step,swd\n0,0,4,2.5\n0,0,9,1\n1,0,4,\n1,0,9,1.0\n'
  )
  ablation = results.read(folder)
  stats_of = curves.Stats(curves.members(folder), folder)
  steps, values = stats_of.of(ablation.cells[0], 'swd')
  assert steps.tolist() == [4, 9] and values.tolist() == [[2.5], [1.0]]
  _, values = stats_of.of(ablation.cells[1], 'swd')
  np.testing.assert_array_equal(values, [[np.nan], [1.0]])
  found = curves.curves(ablation, stats_of)
  # Scores over time are drawn where there are some; losses are not, then.
  assert [f['title'] for f in found['figures']] == ['swd']
  assert found['single'] and [n for n, _ in found['legend']] == ['a-b', 'c']
  assert len(found['figures'][0]['panels']) == 1
  page = report.render(ablation, folder)
  assert '</i>a-b</span>' in page and '<h3>swd</h3>' in page


def test_curves_join_programs_and_end_where_a_run_died(tmp_path):
  plan = ablation_folder.plan_of({'objective': ['a']}, [0, 1, 2])
  rows = [
    ablation_folder.row_of(0, plan['cells'][0], s, 'done', 30, {'swd': 1.0})
    for s in range(3)
  ]
  one = {
    'step': np.array([10, 20]),
    'alive': np.array([[True, True], [True, False]]),
    'g/grad_norm': np.array([[1.0, 2.0], [3.0, 4.0]]),
  }
  two = {
    'step': np.array([20, 30]),
    'alive': np.ones((2, 1), bool),
    'g/grad_norm': np.array([[5.0], [np.inf]]),
  }
  folder = ablation_folder.write(
    tmp_path,
    plan,
    rows,
    [(members((0, 0), (0, 2)), one, []), (members((0, 1)), two, [])],
  )
  stats_of = curves.Stats(curves.members(folder))
  assert stats_of.names() == ['g/grad_norm']
  (cell,) = results.read(folder).cells
  steps, values = stats_of.of(cell, 'g/grad_norm')
  nan = np.nan
  assert steps.tolist() == [10, 20, 30]
  np.testing.assert_array_equal(
    values, [[1, nan, 2], [3, 5, nan], [nan, np.inf, nan]]
  )
  low, middle, high = figures.bands(values)
  np.testing.assert_allclose(middle, [1.5, 4, nan])
  np.testing.assert_allclose(high - low, [0.5, 1, nan])


def test_a_panel_without_a_number_is_left_out():
  steps, some, none = np.arange(2), np.ones((2, 3)), np.full((2, 3), np.nan)
  lines = {'a': [('#000', steps, some)], 'b': [('#000', steps, none)]}
  assert [t for t, _ in figures.panels('x', lines)] == ['a']
  empty = {'b': lines['b'], 'c': [('#000', np.zeros(0), np.zeros((0, 0)))]}
  assert figures.panels('x', empty) == []


def test_colours_are_hues_of_words_and_shades_of_numbers():
  words = figures.colours(['a', 'b'])
  assert words == list(figures.COLOURS[:2])
  shades = figures.colours([1e-4, 2e-4, 1e-3])
  assert len(set(shades)) == 3 and not set(shades) & {*figures.COLOURS}


def once(folder):
  """A run that was logged once, and one that was logged twice."""
  plan = ablation_folder.plan_of({'objective': ['a', 'b']}, [0])
  rows = [
    ablation_folder.row_of(i, plan['cells'][i], 0, 'done', 9, {'swd': 1.0})
    for i in range(2)
  ]
  programs = []
  for i in range(2):
    arrays = {'step': np.arange(1, 2 + i), 'alive': np.ones((1 + i, 1), bool)}
    arrays |= {'g/grad_norm': np.ones((1 + i, 1))}
    programs.append((members((i, 0)), arrays, []))
  return ablation_folder.write(folder, plan, rows, programs)


def test_a_moment_is_no_curve(tmp_path, monkeypatch):
  monkeypatch.setattr(figures, 'strips', lambda *a: [])
  folder = once(tmp_path)
  ablation = results.read(folder)
  places = curves.members(folder)
  found = curves.curves(ablation, curves.Stats(places))
  assert len(found['figures']) == 1
  del places[1, 0]  # the one that was logged twice
  found = curves.curves(ablation, curves.Stats(places))
  assert found['figures'] == [] and found['logged']
  monkeypatch.setattr(curves, 'members', lambda folder: places)
  page = report.render(ablation, folder)
  assert '--log_every' in page and 'one moment of each run was logged' in page


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
    figures.panels('x', lines, 0.0, floor)
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
  figures.panels('x', {'a': [('#000', np.arange(count), values)]})
  third = figures.bands(values)[2].max()
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
  ranking = results.read(folder).ranking
  figures.strips(ranking, 'swd')
  assert sum(mark in ('<', '>') for mark in shown) == arrows
