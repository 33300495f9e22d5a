"""The report of an ablation: what it says of the ranking and of each run."""

import base64
import csv
import json
import math
import re

import numpy as np
import PIL.Image
import pytest
from helpers import ablation_folder, commands
from helpers.ablation_folder import small
from helpers.htmlpage import Page, svg_words
from scipy import stats

from gan_jax.ablation.grid import disarm
from gan_jax.ablation.report import (
  RunLogs,
  _sample_pictures,
  draw_curves,
  render_report,
  write_ablation_report,
)
from gan_jax.ablation.results import read_results
from gan_jax.ablation.verdict import state_verdict
from gan_jax.runtime.errors import ArgumentError

SECTIONS = [
  'ranking',
  'seeds',
  'grid',
  'best',
  'published',
  'samples',
  'divergence',
  'curves',
  'spreads',
  'configuration',
  'protocol',
  'repeat',
  'environment',
]


class Report:
  """A folder and the report on it."""

  def __init__(self, folder):
    self.folder = folder
    self.page = Page(write_ablation_report(folder).read_text('utf-8'))
    self.text = self.page.text.replace('\xa0', ' ')
    with open(folder / 'results.csv', newline='') as file:
      self.rows = list(csv.DictReader(file))

  @property
  def sections(self):
    return [h['id'] for h in self.page.named('h2')]

  def scores(self, objective, lr_d):
    """By seed, of the runs that are done."""
    return {
      int(r['seed']): float(r['swd'])
      for r in self.rows
      if (r['objective'], r['lr_d'], r['outcome']) == (objective, lr_d, 'done')
    }


@pytest.fixture(scope='module')
def grid(tmp_path_factory):
  """Six objectives by three rates, eight seeds."""
  return Report(ablation_folder.grid(tmp_path_factory.mktemp('grid')))


def test_nothing_is_fetched_and_every_picture_is_whole(grid):
  assert grid.sections == SECTIONS
  page = grid.page
  assert not page.named('script') and not page.named('link')
  assert not re.search(r'url\(|@import', page.source)
  for _, attributes in page.tags:
    for name in ('src', 'href', 'srcset', 'data'):
      assert attributes.get(name, 'data:').startswith('data:')
  # One of the seeds, three curves of six panels, samples of 17 cells.
  assert len(page.pictures) == 1 + 3 * 6 + 17
  assert all(alt for alt, _ in page.pictures)
  assert [m['name'] for m in page.named('meta') if 'name' in m] == ['viewport']


def test_the_ranking_is_by_the_mean(grid):
  lines = (grid.folder / 'table.md').read_text().split('\n')
  rows = [[c.strip() for c in line.split('|')[1:-1]] for line in lines[2:20]]
  means = [float(row[2]) for row in rows[:16]]
  assert means == sorted(means)
  assert [row[0] for row in rows] == [*map(str, range(1, 17)), '–', '–']
  for row in rows[:16]:
    objective, lr_d = row[1].replace(' †', '').split(' · ')
    name = objective.replace('-', '_')
    found = np.array(list(grid.scores(name, lr_d.split('\xa0')[1]).values()))
    assert row[2] == f'{found.mean():.3f}'
    assert row[4] == f'{found.std(ddof=1):.3f}'
    assert row[5] == f'{np.median(found):.3f}'
    assert row[6] == str(len(found))
    assert ('†' in row[1]) == (row[7] != '0')
  # The page and the LaTeX table say the same.
  tex = (grid.folder / 'table.tex').read_text()
  for row in rows:
    assert f'{row[2]} {row[3]} {row[4]}' in grid.text
    assert f'& {row[2].replace("–", "--")} & ' in re.sub(' +', ' ', tex)


def test_the_correction_is_over_every_pair(grid):
  found = read_results(grid.folder)
  cells = [
    grid.scores(r.cell.values['objective'], str(r.cell.values['lr_d']))
    for r in found.ranked
  ]
  raw = {}
  for j in range(len(cells)):
    for i in range(j):
      both = sorted(cells[i].keys() & cells[j].keys())
      a, b = ([c[s] for s in both] for c in (cells[j], cells[i]))
      raw[i, j] = stats.ttest_rel(a, b).pvalue
  assert found.pairs == len(raw) == 120
  order = sorted(raw, key=raw.get)
  worst = 0.0
  for k, pair in enumerate(order):
    worst = max(worst, min(1, (120 - k) * raw[pair]))
    if pair[0] == 0:
      assert found.ranked[pair[1]].p == pytest.approx(worst)


def test_the_verdict_says_which_is_best_and_by_how_much(grid):
  best = grid.scores('non_saturating', '0.0002')
  second = grid.scores('hinge', '0.0002')
  x, y = np.array(list(best.values())), np.array(list(second.values()))
  low, high = stats.ttest_rel(y, x).confidence_interval()
  head, rest = state_verdict(read_results(grid.folder))
  assert f'{head}{rest}'.replace('\xa0', ' ') in grid.text
  assert head.replace('\xa0', ' ') == (
    f'non-saturating · lr_d 0.0002 has the lowest swd, {x.mean():.3f}'
  )
  for told in (
    f'{(y - x).mean():.3f} better than the next, hinge',
    f'{low:.3f} to {high:.3f} on 8 shared seeds',
    'may be chance',
    'for 120 pairs',
    '12 of 136 runs diverged',
  ):
    assert told in rest.replace('\xa0', ' ')
  assert 'Failed before the end: 8 of 144 runs' in grid.text


def test_diverged_and_failed_runs_are_told_apart(grid):
  found = {
    (r.cell.values['objective'], r.cell.values['lr_d']): r
    for r in read_results(grid.folder).ranking
  }
  half = found['minimax', 0.001]
  assert half.rank and half.summary.n == 4 and half.diverged.value == 0.5
  most = found['wasserstein', 0.001]
  assert most.rank is None and most.cell.count('diverged') == 7
  crashed = found['relativistic', 0.001]
  assert crashed.rank is None and math.isnan(crashed.diverged.value)
  # A run that diverged loses every comparison of runs.
  assert half.beaten.value == 1
  low, high = stats.binomtest(4, 8).proportion_ci(method='wilson')
  assert f'50% ({low:.0%} to {high:.0%}) 634 to 2,536' in grid.text
  assert 'flatters the cell' in grid.text


def test_the_samples_are_those_of_the_median_seed(grid):
  scores = grid.scores('minimax', '0.0001')
  # Of eight the fifth: the worse of the two in the middle.
  seed = sorted(scores, key=scores.get)[4]
  members = json.loads(
    (grid.folder / 'programs' / '000' / 'members.json').read_text()
  )
  place = next(
    i for i, m in enumerate(members) if m['cell'] == 0 and m['seed'] == seed
  )
  path = grid.folder / 'programs/000/samples' / f'member_{place:04d}.png'
  wanted = base64.b64encode(path.read_bytes()).decode()
  (alt,) = (
    i['alt'] for i in grid.page.named('img') if i['src'].endswith(wanted)
  )
  assert alt.replace('\xa0', ' ') == (
    f'samples of minimax · lr_d 0.0001, seed {seed}'
  )
  assert f'seed {seed}: {scores[seed]:.3f}' in grid.text


def test_the_median_is_of_the_runs_that_have_a_score(tmp_path):
  """And its picture is the one of its seed, wherever that is."""
  plan = ablation_folder.plan_of(
    {'objective': ['a']}, range(4), metrics=['swd']
  )
  (cell,) = plan['cells']
  lines = [
    ablation_folder.row_of(0, cell, seed, outcome, 9, {'swd': score})
    for seed, (outcome, score) in enumerate(
      [('diverged', 0.0), ('done', 5.0), ('done', 1.0), ('done', 3.0)]
    )
  ]
  members = [{'cell': 0, 'seed': seed} for seed in (3, 2, 1, 0)]
  pictures = [PIL.Image.new('L', (8, 8), 40 * m['seed']) for m in members]
  arrays = {'step': np.zeros(0, int)}
  folder = ablation_folder.write(
    tmp_path, plan, lines, [(members, arrays, pictures)]
  )
  (shown,) = _sample_pictures(read_results(folder), RunLogs(folder))
  assert (shown['seed'], float(shown['score'])) == (3, 3.0)
  path = folder / 'programs/000/samples/member_0000.png'
  assert shown['uri'].endswith(base64.b64encode(path.read_bytes()).decode())


def test_every_seed_is_a_point(grid):
  svg = next(p for alt, p in grid.page.pictures if alt.startswith('swd of'))
  done = sum(r['outcome'] == 'done' for r in grid.rows)
  paths = [
    e for e in svg.iter('{http://www.w3.org/2000/svg}g')
    if e.get('id', '').startswith('PathCollection')
  ]  # fmt: skip
  uses = [u for g in paths for u in g.iter('{http://www.w3.org/2000/svg}use')]
  assert len(uses) == done == 124
  words = svg_words(svg)
  for told in ('4 diverged', '7 diverged', 'non-saturating · lr_d'):
    assert told in words


def test_the_grid_is_every_cell(grid):
  table = grid.page.source.split('class="heat"')[1].split('</table>')[0]
  assert table.count('<td') == 18
  assert re.findall(r'(\d) (diverged|failed)', table) == [
    ('8', 'failed'),
    ('1', 'diverged'),
    ('4', 'diverged'),
    ('7', 'diverged'),
  ]
  best = re.search(r'<td class="best".*?/ ([\d.]+)\)">([\d.]+)', table, re.S)
  assert best.groups() == ('0.50', '0.194')


def test_published_values_stand_beside_the_best_of_that_name(grid):
  assert 'Somebody et al. 2018' in grid.text
  ours = np.mean(list(grid.scores('minimax', '0.0002').values()))
  assert f'minimax 0.41 ± 0.05 {ours:.3f}' in grid.text
  assert 'began 0.2 ± 0.1 – – – – not run' in grid.text
  assert 'in the published order: 2 of 3 pairs' in grid.text


def test_what_ran_is_told(grid):
  for told in (
    'objective minimax, non_saturating',
    'seed 0, 1, 2, 3, 4, 5, 6, 7',
    'batch_size 256',
    'flip false',
    'swd.projections 512',
    'versions.jax 0.10.2',
    'commit abc1234',
    'python -m gan_jax.ablate --workdir=runs/ring --vary=objective=minimax',
  ):
    assert told in grid.text


def test_both_spreads_are_kept_apart(grid):
  scores = np.array(list(grid.scores('hinge', '0.0001').values()))
  within = math.sqrt((0.03**2 * scores**2).mean())
  assert (
    f'hinge · lr_d 0.0001 {scores.mean():.3f} {scores.std(ddof=1):.3f}'
    f' {within:.3f}' in grid.text
  )


def test_the_command_writes_the_same_files_each_time(tmp_path):
  ablation_folder.grid(tmp_path, 2, {'hinge': 0.2}, pictures=False)
  files = []
  for _ in range(2):
    done = commands.run('report', f'--workdir={tmp_path}')
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'report: {tmp_path}/report.html\n'
    names = ('report.html', 'table.md', 'table.tex')
    files.append([(tmp_path / name).read_text() for name in names])
  assert files[0] == files[1]
  assert 'has the lowest swd' in files[0][0] and 'Learning' in files[0][0]


def test_higher_may_be_better(tmp_path):
  x = np.array([[1.0, 2.0, 3.0], [7.0, 7.5, 9.1], [5.0, 5.5, 6.0]])
  found = Report(small(tmp_path, x.tolist(), better='higher'))
  assert 'game-1 has the highest swd' in found.text
  apart = (x[1] - x[2]).mean()
  low, high = stats.ttest_rel(x[1], x[2]).confidence_interval()
  assert f'{apart:.1f} better than the next, game-2' in found.text
  assert f'({low:.1f} to {high:.1f}' in found.text.replace('95% interval ', '')
  head, _, _, second, *_ = (tmp_path / 'table.md').read_text().split('\n')
  assert f' {apart:.1f} |' in second and 'below best' in head


def test_one_cell_has_nothing_to_be_compared_with(tmp_path):
  found = Report(small(tmp_path, [[1.0, 2.0, 4.0]]))
  assert 'game-0 has the lowest swd' in found.text
  assert 'next' not in found.text and 'best' not in found.sections
  assert 'None: every run that ended has a score.' in found.text


def test_one_seed_cannot_be_ranked(tmp_path):
  found = Report(small(tmp_path, [[1.0], [2.0]]))
  assert 'No cell can be ranked' in found.text
  assert '1.000' in found.text  # the score is shown all the same


def test_an_ablation_that_has_just_begun(tmp_path):
  """Its plan may not know yet what the scores will be called."""
  scores = [[1.0, 2.0], [3.0, 4.0]]
  folder = small(tmp_path, scores, primary='modes')
  text = (folder / 'results.csv').read_text().split('\n')
  (folder / 'results.csv').write_text('\n'.join(text[:1]) + '\n')
  found = Report(folder)
  assert '4 of 4 runs are missing' in found.text
  assert 'No cell can be ranked' in found.text
  folder = small(tmp_path, scores)
  (folder / 'results.csv').write_text('\n'.join(text[:3]) + '\n')
  assert '2 of 4 runs are missing' in Report(folder).text


def test_a_diverged_run_has_no_score_whatever_is_written(tmp_path):
  scores = [[1.0, 1.1, 0.0], [2.0, 2.1, 2.2], [3.0, None, math.nan]]
  folder = small(tmp_path, scores, {(0, 2): 'diverged'})
  first, second, last = read_results(folder).ranking
  assert first.cell.index == 0 and first.summary.mean == pytest.approx(1.05)
  assert second.difference.n == 2  # the pairs that both sides have
  # A score that is missing or not a number is no score.
  assert last.cell.index == 2 and last.summary.n == 1 and last.rank is None
  text = Report(folder).text
  assert '1 more diverged' in text and '1 of 9 runs diverged' in text
  assert re.search(r'game-2 3 0 0% \(0% to 56%\) – 0 2', text)


def test_standard_deviations_average_as_variances(tmp_path):
  folder = small(tmp_path, [[1.0, 2.0]])
  text = (folder / 'results.csv').read_text().split('\n')
  rows = [f'{line.rsplit(",", 1)[0]},{x}' for line, x in zip(text[1:3], (1, 7))]
  (folder / 'results.csv').write_text('\n'.join([text[0].rstrip(), *rows]))
  assert 'game-0 1.50 0.71 5.00' in Report(folder).text


def test_cells_without_shared_seeds_are_not_compared(tmp_path):
  lost = {(0, 0): 'failed', (0, 1): 'failed', (1, 2): 'failed'}
  lost[1, 3] = 'failed'
  folder = small(tmp_path, [[1.0, 2.0, 3.0, 4.0]] * 2, lost)
  found = Report(folder)
  assert 'shares too few finished seeds' in found.text
  assert read_results(folder).pairs == 0


def test_flags_that_vary_together_are_one_factor(tmp_path):
  plan = ablation_folder.plan_of(
    {'objective': ['a', 'b'], 'lr_g': [0.1, 0.2], 'd_steps': [1]}, [0, 1]
  )
  for twin, told in ((lambda x: x, '0.2'), (lambda x: 2 * x, '0.2 / 0.4')):
    rows = []
    for i, cell in enumerate(plan['cells']):
      cell['values']['lr_d'] = twin(cell['values']['lr_g'])
      for s in range(2):
        done = {'swd': 1.0 - i / 8 + s, 'modes': 1.0}
        rows.append(ablation_folder.row_of(i, cell, s, 'done', 9, done))
    found = Report(ablation_folder.write(tmp_path, plan, rows))
    name = f'lr_g, lr_d {told}' if ' / ' not in told else f'lr_g / lr_d {told}'
    assert f'b · {name} · d_steps 1 has the lowest' in found.text
    assert list(read_results(tmp_path).factors)[::2] == [
      'objective',
      'd_steps',
    ]


def test_words_of_the_plan_are_no_markup(tmp_path):
  plan = ablation_folder.plan_of({'dataset': ['a|b', '<b>&"']}, [0, 1])
  rows = [
    ablation_folder.row_of(i, plan['cells'][i], s, 'done', 9, {'swd': s + 1.0})
    for i in range(2)
    for s in range(2)
  ]
  folder = ablation_folder.write(tmp_path, plan | {'metrics': ['swd']}, rows)
  found = Report(folder)
  assert '<b>' not in found.page.source and '<b>&"' in found.text
  lines = (folder / 'table.md').read_text().split('\n')[:4]
  assert {len(re.findall(r'(?<!\\)\|', line)) for line in lines} == {12}
  assert r'a\|b' in lines[2] and r'\&' in (folder / 'table.tex').read_text()


NAMES = (
  r'density:$\frac{$.txt',
  '=HYPERLINK("http://x")|',
  r'50% \input{x} #1 & {y}^~',
  '<img src=x onerror=alert(1)>*[a](b)`_c_',
  'two\nlines\x00',
)


def test_odd_names_reach_figures_tables_and_pages_as_they_are(tmp_path):
  """Formulas, commands, cells and markup are none of them."""
  plan = ablation_folder.plan_of({'dataset': NAMES}, [0, 1])
  cells, metric = plan['cells'], 's$_1$|<b>'
  rows = [
    ablation_folder.row_of(i, cells[i], s, 'done', 9, {metric: i + s})
    for i in range(len(NAMES))
    for s in range(2)
  ]
  plan |= {'metrics': [metric], 'primary': metric}
  folder = ablation_folder.write(tmp_path, plan, rows)
  found = Report(folder)
  assert '<img src=x' not in found.page.source
  assert r'density:$\frac{$.txt' in found.text
  markdown = (folder / 'table.md').read_text()
  assert '<' not in markdown and r'&lt;img src=x onerror' in markdown
  assert r'\*\[a\](b)\`-c-' in markdown and 'two lines' in markdown
  table = [line for line in markdown.split('\n') if line.startswith('|')]
  assert len(table) == 2 + len(NAMES)
  assert {len(re.findall(r'(?<!\\)\|', line)) for line in table} == {12}
  tex = (folder / 'table.tex').read_text()
  assert r'\$\textbackslash{}frac\{\$.txt' in tex
  assert (
    r'50\% \textbackslash{}input\{x\} \#1 \& \{y\}\^{}\textasciitilde{}' in tex
  )
  body = re.search(r'\\midrule\n(.*)\\bottomrule', tex, re.S)[1]
  assert len(body.strip().split('\n')) == len(NAMES)


def test_cells_of_a_spreadsheet_are_no_formulas():
  assert [disarm(x) for x in ('=1', '+a', '-b', '@c', '\td')] == [
    "'=1",
    "'+a",
    "'-b",
    "'@c",
    "'\td",
  ]
  for text in ('-0.5', '+3', '-inf', 'hinge', '', 'a=b'):
    assert disarm(text) == text


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('plan.json', None, 'no plan.json'),
    ('results.csv', None, 'no results.csv'),
    ('plan.json', '{"cells": ', 'damaged'),
    ('plan.json', '{}', "KeyError: 'metrics'"),
    ('results.csv', 'cell,seed,outcome,step\nx,0,done,3\n', 'ValueError'),
  ],
)
def test_a_damaged_folder_is_named(tmp_path, name, content, message):
  folder = small(tmp_path, [[1.0, 2.0]])
  (folder / name).unlink()
  if content is not None:
    (folder / name).write_text(content)
  with pytest.raises(ArgumentError, match='`workdir=') as caught:
    write_ablation_report(folder)
  assert message in str(caught.value) and 'gan_jax.ablate' in str(caught.value)
  assert not (folder / 'report.html').exists()


def test_a_report_that_cannot_be_written(tmp_path):
  folder = small(tmp_path, [[1.0, 2.0]])
  (folder / 'table.md').mkdir()
  with pytest.raises(ArgumentError, match='cannot write table.md'):
    write_ablation_report(folder)


def test_latex_is_balanced_and_escaped(grid):
  tex = (grid.folder / 'table.tex').read_text()
  body = re.search(r'\\midrule\n(.*)\\bottomrule', tex, re.S)[1]
  lines = body.strip().split('\n')
  assert len(lines) == 18
  columns = re.search(r'\{tabular\}\{(\w+)\}', tex)[1]
  for line in lines:
    assert line.endswith(r' \\')
    assert len(re.findall(r'(?<!\\)&', line)) == len(columns) - 1
  assert tex.count('{') == tex.count('}')
  assert not re.search(r'(?<!\\)[_#%](?! \\usepackage)', tex)
  assert r'lr\_d~0.0002' in tex and r'$-$0.018 to 0.029' in tex
  assert r'\ensuremath{<} 0.001' in tex and r'$\dagger$' in tex
  assert tex.isascii()


def test_the_name_of_a_score_is_escaped_in_latex(tmp_path):
  folder = small(tmp_path, [[1.0, 2.0], [3.0, 4.0]])
  for name in ('results.csv', 'plan.json'):
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace('swd', 'mode_100%'))
  write_ablation_report(folder)
  tex = (folder / 'table.tex').read_text()
  assert r'\caption{mode\_100\%, lower is better' in tex


def test_one_draw_of_samples_has_no_spread_over_them(tmp_path):
  """And features that all scores share are named once."""
  folder = small(tmp_path, [[1.0, 2.0]])
  for name in ('results.csv', 'plan.json'):
    text = (folder / name).read_text().replace('"swd"', '"swd@pixels"')
    text = text.replace(',swd,', ',swd@pixels,').replace('std_swd', 'std_other')
    (folder / name).write_text(text)
  text = Report(folder).text
  assert 'is unknown; a larger eval_seeds gives it' in text
  assert 'All are computed on pixels features' in text
  assert 'cell swd mean SD game-0 1.50 0.71' in text


# Learning curves.


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
  results, logs = read_results(folder), RunLogs(folder)
  steps, values = logs.curves(results.cells[0], 'swd')
  assert steps.tolist() == [4, 9] and values.tolist() == [[2.5], [1.0]]
  _, values = logs.curves(results.cells[1], 'swd')
  np.testing.assert_array_equal(values, [[np.nan], [1.0]])
  found = draw_curves(results, logs)
  # Scores over time are drawn where there are some; losses are not, then.
  assert [f['title'] for f in found['figures']] == ['swd']
  assert found['single'] and [n for n, _ in found['legend']] == ['a-b', 'c']
  assert len(found['figures'][0]['panels']) == 1
  page = render_report(results, folder)
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
  logs = RunLogs(folder)
  assert logs.logged_names() == ['g/grad_norm']
  (cell,) = read_results(folder).cells
  steps, values = logs.curves(cell, 'g/grad_norm')
  nan = np.nan
  assert steps.tolist() == [10, 20, 30]
  np.testing.assert_array_equal(
    values, [[1, nan, 2], [3, 5, nan], [nan, np.inf, nan]]
  )


def logged(folder, *counts):
  """A cell with one run for each count of logged rows."""
  names = [f'game_{i}' for i in range(len(counts))]
  plan = ablation_folder.plan_of({'objective': names}, [0])
  rows, programs = [], []
  for i, n in enumerate(counts):
    cell = plan['cells'][i]
    rows.append(ablation_folder.row_of(i, cell, 0, 'done', 9, {'swd': 1.0}))
    arrays = {'step': np.arange(1, n + 1), 'alive': np.ones((n, 1), bool)}
    arrays |= {'g/grad_norm': np.ones((n, 1))}
    programs.append((members((i, 0)), arrays, []))
  return Report(ablation_folder.write(folder, plan, rows, programs))


def test_one_step_is_no_curve(tmp_path):
  some = logged(tmp_path / 'some', 1, 2)
  assert "Norm of G's gradient" in some.text
  none = logged(tmp_path / 'none', 1, 1)
  assert "Norm of G's gradient" not in none.text
  assert 'log_every' in none.text and 'at one step alone' in none.text
