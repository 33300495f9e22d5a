"""The Python of the README, the home page and the guides runs."""

import logging

import matplotlib
import pytest
from helpers.pages import ROOT, fenced, run_blocks

import gan_jax as gj

GUIDES = sorted(
  path
  for path in (ROOT / 'docs' / 'guides').glob('*.md')
  if fenced(path, 'python')
)
NEEDS = {'networks': 'equinox haiku'}
SEEDS = {'ablations': {'seeds': 2}}


@pytest.fixture
def folder(digits_root, tmp_path, monkeypatch):
  """A folder to run a page in, with prepared digits."""
  matplotlib.use('Agg')
  monkeypatch.setenv('TFDS_DATA_DIR', str(digits_root))
  monkeypatch.chdir(tmp_path)
  logging.getLogger('absl').setLevel(logging.ERROR)
  return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize('path', GUIDES, ids=lambda p: p.stem)
def test_a_guide_runs_from_top_to_bottom(path, folder):
  for module in NEEDS.get(path.stem, '').split():
    pytest.importorskip(module)
  run_blocks(path, STEPS=10, **SEEDS.get(path.stem, {}))


@pytest.mark.slow
def test_the_readme_runs_from_top_to_bottom(folder):
  gj.train('runs/digits', data='digits', network='mlp', steps=2)
  space = run_blocks(ROOT / 'README.md', steps=5, seeds=2)
  assert space['images'].shape == (64, 8, 8, 1)
  assert space['run'].outcome == 'done'


def test_the_home_page_opens_a_run(folder):
  gj.train('runs/digits', data='digits', network='mlp', width=8, steps=2)
  space = run_blocks(ROOT / 'docs' / 'index.md')
  assert space['images'].shape == (64, 8, 8, 1)
