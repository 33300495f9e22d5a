"""docs/tutorial.md: its code runs and prints what it says, in two languages."""

import contextlib
import io
import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers.pages import ROOT

PAGE = (ROOT / 'docs' / 'tutorial.md').read_text(encoding='utf-8')
CHINESE = (ROOT / 'docs' / 'tutorial.zh.md').read_text(encoding='utf-8')
# A block of code, and what the page says that it prints; `checked` if that
# hangs on no training.
PYTHON = re.compile(
  r'^```python\n(?P<code>.*?)^```\n'
  r'(?:\n```text(?P<checked> checked)?\n(?P<said>.*?)^```\n)?',
  re.DOTALL | re.MULTILINE,
)
STEPS = 'STEPS = 3000 '
NUMBER = r'-?\d+\.?\d*'


def test_its_code_runs_in_order_and_prints_what_it_says(tmp_path, monkeypatch):
  matplotlib.use('Agg')
  monkeypatch.chdir(tmp_path)
  assert PAGE.count(STEPS) == 1
  blocks = list(PYTHON.finditer(PAGE.replace(STEPS, 'STEPS = 20 ')))
  assert len(blocks) == PAGE.count('```python') > 8
  space = {}
  for block in blocks:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      exec(compile(block['code'], 'tutorial.md', 'exec'), space)
    found = printed.getvalue()
    assert bool(found) == (block['said'] is not None), block['code']
    if block['checked']:
      compare(found, block['said'])
  assert (tmp_path / 'any_density.png').stat().st_size > 1000
  plt.close('all')
  assert np.isfinite(space['log']['game/value']).all()


def test_the_chinese_page_has_the_same_blocks():
  fence = re.compile(r'^```.*?^```$', re.DOTALL | re.MULTILINE)
  assert fence.findall(CHINESE) == fence.findall(PAGE)


def test_the_chinese_page_has_the_same_sections_and_figures():
  def shape(text):
    text = re.sub(r'^```.*?^```$', '', text, flags=re.DOTALL | re.MULTILINE)
    sections = len(re.findall(r'^#+ ', text, re.MULTILINE))
    return sections, re.findall(r'!\[[^\]]*\]\(([^)]+)\)', text)

  assert shape(CHINESE) == shape(PAGE)


def compare(found, said):
  """The same words, and numbers to two in their last digit."""
  assert re.sub(NUMBER, '#', found).split() == re.sub(NUMBER, '#', said).split()
  for one, other in zip(
    re.findall(NUMBER, found), re.findall(NUMBER, said), strict=True
  ):
    digits = len(other.partition('.')[2])
    assert float(one) == pytest.approx(float(other), abs=2.1 * 10**-digits)


def test_compare_sees_a_difference():
  compare('V -1.386', 'V -1.385')
  for other in ('V -1.389', 'W -1.386'):
    with pytest.raises(AssertionError):
      compare('V -1.386', other)
