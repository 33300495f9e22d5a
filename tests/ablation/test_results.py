"""Results of an ablation: ranking, comparisons, and the answer in words."""

import math

import pytest
from helpers.ablation_folder import plan_of, row_of, small, write
from scipy import stats

from gan_jax.ablation import tables
from gan_jax.ablation.report import write_ablation_report
from gan_jax.ablation.results import read_results
from gan_jax.ablation.verdict import (
  format_for_terminal,
  list_remarks,
  state_verdict,
)


@pytest.mark.parametrize(
  'other', [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]
)  # the second without a spread: it has no p
def test_what_is_level_is_not_said_to_be_better(other, tmp_path):
  found = small(tmp_path, [[1.0, 2.0, 3.0], other, [7.0, 8.0, 9.5]])
  results = read_results(found)
  told = ''.join(state_verdict(results))
  assert told.startswith(
    '2 of the 3 ranked cells are level at the lowest swd, 2.0: game-0 and'
    ' game-1. swd does not tell them apart. None of 9 runs diverged.'
  )
  assert 'better than' not in told and list_remarks(results) == []
  ranks = [tables.format_rank(row) for row in results.ranking]
  assert ranks == ['1=', '1=', '3']
  assert '1=' in tables.format_markdown(results)


def test_tables_carry_what_a_metric_says_of_its_scores(tmp_path):
  """As a run is told it: here of a KID that its spread swallows."""
  names = ['kid@pixels', 'kid_std@pixels', 'kid_subset_size@pixels']
  facts = {'metrics': names, 'primary': names[0]}
  plan = plan_of({'objective': ['a', 'b']}, range(2), **facts)
  values = [[0.5, 0.25], [0.01, 0.02]]  # the latter within the spread
  rows = [
    row_of(i, cell, seed, 'done', 100, dict(zip(names, [x, 0.1, 8.0])))
    for i, cell in enumerate(plan['cells'])
    for seed, x in enumerate(values[i])
  ]
  results = read_results(write(tmp_path / 'a', plan, rows))
  remark = (
    'kid@pixels: a remark on 2 of 4 runs, of the first that kid 0.01 cannot be'
    ' told from 0: subsets of 8 samples vary by 0.1 (standard deviation); give'
    ' more samples to tell.'
  )
  assert list_remarks(results) == [remark]
  assert remark in format_for_terminal(results).replace('\n', ' ')
  for table in (tables.format_markdown, tables.format_latex):
    assert 'told from 0: subsets of 8 samples' in table(results)
  for row in rows:
    row['kid@pixels'] = 0.5
  results = read_results(write(tmp_path / 'b', plan, rows))
  assert list_remarks(results) == []


def test_many_cells_are_level_at_eight_modes(tmp_path):
  """The score that does not tell them apart is named, and those that do."""
  metrics = ['modes', 'high_quality']
  names = [f'game_{i}' for i in range(6)]
  facts = {'metrics': metrics, 'primary': 'modes', 'better': 'higher'}
  plan = plan_of({'objective': names}, range(3), **facts)
  rows = [
    row_of(i, cell, seed, 'done', 100, {'modes': 8.0, 'high_quality': i / 9})
    for i, cell in enumerate(plan['cells'])
    for seed in range(3)
  ]
  folder = write(tmp_path, plan, rows)
  results = read_results(folder)
  head, rest = state_verdict(results)
  assert head == 'All 6 ranked cells are level at the highest modes, 8.000'
  assert rest.startswith(
    ': game-0, game-1, game-2, game-3 and 2 more. modes does not tell them'
    ' apart. Rank by a score that does (`primary`): high_quality. None of'
  )
  page = write_ablation_report(folder).read_text('utf-8')
  assert '<tr class="best">' not in page
  assert 'Cells with the same mean share a rank.' in page


def test_means_that_rounding_moves_are_level(tmp_path):
  near = [[0.1, 0.2, 0.3], [0.3, 0.1, 0.2], [0.2, 0.3, 0.1 + 1e-9]]
  ranking = read_results(small(tmp_path, near)).ranking
  assert [(row.rank, row.tied) for row in ranking] == [
    (1, True),
    (1, True),
    (3, False),
  ]


def test_a_diverged_run_loses_every_comparison_of_runs(tmp_path):
  lost = {(1, 2): 'diverged', (1, 3): 'diverged'}
  scores = [[1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 0.0, 0.0]]
  _, other = read_results(small(tmp_path, scores, lost)).ranking
  assert other.cell.index == 0  # the survivors alone have the lower mean
  # Of the best's four runs two are beaten by none but their own kind.
  wins = [x < y for x in (1.5, 2.5, 9, 9) for y in scores[0]]
  assert other.beaten.value == sum(wins) / 16


def test_half_of_the_runs_must_have_a_score(tmp_path):
  scores = [[1.0, 1.1, 1.2, None, None], [2.0, 2.1, None, None, None]]
  first, second = read_results(small(tmp_path, scores)).ranking
  assert first.rank == 1 and second.rank is None and second.summary.n == 2


def test_numbers_have_the_digits_that_mean_something():
  assert tables.choose_decimals([0.02, 0.03, 5.0]) == 3
  assert (
    tables.choose_decimals([12.0]) == 0
    and tables.choose_decimals([1e-9]) is None
  )
  assert tables.choose_decimals([math.nan]) == tables.choose_decimals([]) == 3
  assert tables.format_score(-0.0001, 2) == '0.00'
  assert tables.format_score(1.5e-8, None) == '1.5e-08'
  assert tables.format_score(math.nan, 2) == '–'
  assert [tables.format_p(p) for p in (0.0002, 0.0214, 0.314)] == [
    '< 0.001',
    '0.021',
    '0.31',
  ]


def test_a_terminal_is_told_the_ranking_and_the_verdict(tmp_path):
  scores = [[3.0, 3.5, 4.0], [1.0, 2.0, 3.0], [5.0, None, None]]
  folder = small(tmp_path, scores, {(2, 1): 'diverged', (2, 2): 'failed'})
  read = read_results(folder)
  told = format_for_terminal(read)
  assert told.split('\n\n')[0].split('\n') == [
    '    cell      swd    95% interval    diverged    failed',
    ' 1  game-1   2.00   -1.73 to 5.73           0         0',
    ' 2  game-0   3.50    1.64 to 5.36           0         0',
    ' –  game-2   5.00               –           1         1',
  ]
  assert all(len(line) <= 80 for line in told.split('\n'))
  said = ' '.join(told.split('\n\n')[1].split())
  low, high = stats.ttest_rel(*scores[:2]).confidence_interval()
  assert said == (
    'game-1 has the lowest swd, 2.00 (95% interval -1.73 to 5.73, 3 seeds),'
    f' 1.50 better than the next, game-0 (95% interval {low:.2f} to {high:.2f}'
    ' on 3 shared seeds): a significant difference (p = 0.035); 1 of 8 runs'
    ' diverged. Failed before the end: 1 of 9 runs, in game-2. That says'
    ' nothing about those settings, and is counted nowhere else.'
  )


def test_a_long_ranking_is_cut_in_a_terminal_alone(tmp_path):
  folder = small(tmp_path, [[float(i), i + 1.0] for i in range(30)])
  told = format_for_terminal(read_results(folder))
  assert 'game-23' in told and 'game-24' not in told
  assert '\nand 6 more in table.md\n' in told


def test_a_verdict_of_nothing_says_what_it_takes(tmp_path):
  read = read_results(small(tmp_path, [[1.0], [2.0]]))
  assert 'that takes two scored runs' in format_for_terminal(read)


def test_cells_are_compared_on_the_seeds_that_both_have_ended(tmp_path):
  """Whatever their places in the table, and as numbers, not as words."""
  scores = [[1.0, 2.0, 3.0, 5.0], [9.0, 2.5, 3.25, 6.0]]
  folder = small(tmp_path, scores, seeds=(2, 9, 10, 11))
  path = folder / 'results.csv'
  head, *lines = path.read_text().splitlines()
  del lines[4]  # the second cell's run of seed 2
  path.write_text('\n'.join([head, *sorted(lines)]) + '\n')
  results = read_results(folder)
  assert results.cells[0].seeds == (2, 9, 10, 11)
  assert results.cells[0].scores['swd'].tolist() == scores[0]
  first, second = results.ranking
  assert first.cell.index == 0 and second.difference.n == 3
  assert second.difference.mean == pytest.approx((0.5 + 0.25 + 1.0) / 3)


@pytest.mark.parametrize('better', ['lower', 'higher'])
def test_a_diverged_run_is_beaten_whichever_direction_is_better(
  better, tmp_path
):
  lost = {(1, 2): 'diverged', (1, 3): 'diverged'}
  sign = 1.0 if better == 'lower' else -1.0
  scores = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 0.0, 0.0]]
  turned = [[sign * x for x in row] for row in scores]
  first, other = read_results(
    small(tmp_path, turned, lost, better=better)
  ).ranking
  assert first.cell.index == 0 and other.beaten.value == 1
  assert other.diverged.value == 0.5


def test_what_failed_says_nothing_of_divergence(tmp_path):
  ends = {(0, 2): 'diverged', (0, 3): 'failed'}
  (row,) = read_results(small(tmp_path, [[1.0, 2.0, 0.0, 0.0]], ends)).ranking
  assert row.diverged.value == pytest.approx(1 / 3)
