"""Notebooks from pages: code blocks become cells; the page is the source.

python docs/_site/notebooks.py docs/tutorial.md tutorial.ipynb
"""

import base64
import mimetypes
import pathlib
import re
import sys

import jupytext
import nbformat

IMAGE = re.compile(r'!\[([^\]]*)\]\(([^)]+)\)')
LINK = re.compile(r'(?<!!)\[([^\]]+)\]\((?!https?:)[^)]+\)')


def path_of(page: str) -> str:
  """Where the notebook of a page is, beside it."""
  return page.removesuffix('.md') + '.ipynb'


def from_page(path: pathlib.Path) -> str:
  """The text of a notebook with the code of a page, and its figures within."""
  notebook = jupytext.reads(path.read_text(encoding='utf-8'), fmt='md')
  for cell in notebook.cells:
    if cell.cell_type == 'markdown':
      text = IMAGE.sub(lambda m: _embedded(m, path.parent), cell.source)
      cell.source = LINK.sub(r'\1', text)  # pages are not beside it
  notebook.metadata = {
    'kernelspec': {
      'name': 'python3',
      'display_name': 'Python 3',
      'language': 'python',
    }
  }
  for i, cell in enumerate(notebook.cells):
    cell.id = f'cell-{i}'  # the same bytes each time
  return nbformat.writes(notebook)


def _embedded(match: re.Match[str], folder: pathlib.Path) -> str:
  """An image of the page as part of the text."""
  if match[2].startswith('http'):
    return match[0]
  kind = mimetypes.guess_type(match[2])[0]
  data = base64.b64encode((folder / match[2]).read_bytes()).decode()
  return f'![{match[1]}](data:{kind};base64,{data})'


if __name__ == '__main__':
  page, out = map(pathlib.Path, sys.argv[1:])
  out.write_text(from_page(page), encoding='utf-8')
