"""The site is built strictly; notebooks are made of pages and run."""

import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import pytest
from helpers.pages import ROOT, shortened

SITE = ROOT / 'docs' / '_site'


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
  pytest.importorskip('mkdocs')
  pytest.importorskip('mkdocstrings_handlers.python')
  command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet']
  done = subprocess.run(
    [*command, '--site-dir', str(tmp_path)],
    cwd=ROOT,
    env=os.environ | {'NO_MKDOCS_2_WARNING': '1'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  pages = [p for p in tmp_path.rglob('*.html') if p.name != '404.html']
  assert len(pages) > 40
  for page in pages:
    for target in local_targets(page.read_text(encoding='utf-8')):
      assert (page.parent / target).exists(), f'{page}: {target}'


def local_targets(html):
  """What a page links to or shows, on the site itself."""
  for target in re.findall(r'(?:href|src)="([^"#?]+)', html):
    if not re.match(r'[a-z]+:|/', target):
      yield target


def notebooks():
  config = (ROOT / 'mkdocs.yml').read_text(encoding='utf-8')
  return re.findall(
    r'^    - (.+\.md)$', config.partition('notebooks:')[2], re.M
  )


@pytest.mark.slow
@pytest.mark.parametrize('page', notebooks())
def test_a_notebook_runs(page, digits_root, tmp_path, monkeypatch):
  pytest.importorskip('jupytext')
  matplotlib.use('Agg')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TFDS_DATA_DIR', str(digits_root))
  maker = runpy.run_path(str(SITE / 'notebooks.py'))
  notebook = json.loads(maker['from_page'](ROOT / 'docs' / page))
  cells = [''.join(c['source']) for c in notebook['cells']]
  kinds = [c['cell_type'] for c in notebook['cells']]
  code = [x for x, kind in zip(cells, kinds) if kind == 'code']
  assert len(code) > 5
  for text in (x for x, kind in zip(cells, kinds) if kind == 'markdown'):
    assert not re.search(r'\]\((?!https?:|data:)', text)  # nothing beside it
  space = {}
  exec(shortened('\n'.join(code), STEPS=10), space)
  plt.close('all')


def test_there_are_notebooks():
  assert {pathlib.Path(page).stem for page in notebooks()} >= {'tutorial'}
  assert len(notebooks()) >= 3
