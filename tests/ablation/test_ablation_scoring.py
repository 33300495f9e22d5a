"""Scores of an ablation along the way."""

import csv

import pytest
from gan_jax.ablation.scorers import Judges
from helpers.ablations import request, rows

from gan_jax.ablation import runner
from gan_jax.config import app as doors


def table(path):
  with open(path / 'scores.csv', newline='') as file:
    return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def along(tmp_path_factory):
  """Two cells of two seeds, scored at two steps before the last."""
  path = tmp_path_factory.mktemp('along') / 'a'
  assert runner.ablate(request(path, eval_every=5, report=True)) == doors.DONE
  return path


def test_every_run_is_scored_at_every_step_that_was_asked_for(along):
  found = table(along)
  assert [(r['cell'], r['seed'], r['step']) for r in found] == [
    (cell, seed, step)
    for cell in '01'
    for seed in '01'
    for step in ('5', '10', '12')
  ]
  assert found[-1]['label'] == 'lr_g=0.01' and found[-1]['lr_g'] == '0.01'
  last = [row | {'outcome': 'done'} for row in found[2::3]]
  assert last == rows(along)
  assert '<h3>modes</h3>' in (along / 'report.html').read_text()


def test_a_score_along_the_way_is_that_of_a_run_that_ends_there(
  along, tmp_path
):
  path = tmp_path / 'short'
  assert runner.ablate(request(path, steps=5)) == doors.DONE
  assert not (path / 'scores.csv').exists()
  scored = {(r['cell'], r['seed'], r['step']): r for r in table(along)}
  for row in rows(path):
    other = scored[row['cell'], row['seed'], '5']
    assert row['high_quality'] == other['high_quality'] != ''
    assert row['forward_kl'] == other['forward_kl']


def test_a_kill_between_two_scores_loses_none_of_them(
  along, tmp_path, monkeypatch
):
  real, seen, path = Judges.scores, [], tmp_path / 'a'

  def killed(self, config, *generator):
    if len(seen) == 6:  # two of four at step 10
      raise KeyboardInterrupt
    seen.append(config)
    return real(self, config, *generator)

  with monkeypatch.context() as patch:
    patch.setattr(Judges, 'scores', killed)
    with pytest.raises(KeyboardInterrupt):
      runner.ablate(request(path, eval_every=5))

  def counted(self, config, *generator):
    seen.append(config)
    return real(self, config, *generator)

  monkeypatch.setattr(Judges, 'scores', counted)
  assert runner.ablate(request(path, eval_every=5)) == doors.DONE
  assert len(seen) == 6 + 2 + 4
  for name in ('scores.csv', 'results.csv'):
    assert (path / name).read_bytes() == (along / name).read_bytes()
