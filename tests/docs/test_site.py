"""The site is built strictly; notebooks are made of pages that run."""

import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import pytest
from helpers.pages import ROOT, fenced


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


@pytest.mark.parametrize('page', notebooks())
def test_a_notebook_is_the_page_whose_code_is_run(page):
  pytest.importorskip('jupytext')
  path = ROOT / 'docs' / page
  maker = runpy.run_path(str(ROOT / 'docs' / '_site' / 'notebooks.py'))
  cells = {'code': [], 'markdown': []}
  for cell in json.loads(maker['from_page'](path))['cells']:
    cells[cell['cell_type']].append(''.join(cell['source']))
  assert [c.strip() for c in cells['code']] == [
    block.strip() for block in fenced(path, 'python')
  ]
  assert len(cells['code']) > 5
  for text in cells['markdown']:
    assert not re.search(r'\]\((?!https?:|data:)', text)  # nothing beside it


def test_there_are_notebooks():
  assert {pathlib.Path(page).stem for page in notebooks()} >= {'tutorial'}
  assert len(notebooks()) >= 3
