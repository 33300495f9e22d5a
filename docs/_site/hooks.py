"""Builds the site's pages that are not in docs/: MkDocs calls what is here.

The repository is read as it stands: the README of each experiment is a page,
its figures and raw results are files of the site, and links between pages are
written as they are in the repository, so that both are right.
"""

import os
import pathlib
import posixpath
import re
import subprocess
import sys

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import notebooks  # noqa: E402

FOLDERS = ('experiments', 'launch')
FILES = {
  'CHANGELOG.md': 'changelog.md',
  'CONTRIBUTING.md': 'contributing.md',
  'CITATION.cff': 'CITATION.cff',
}
LINK = re.compile(r'(\]\()([^)\s#]+)(#[^)\s]*)?(\))')
CHINESE = '.zh.md'
HIDDEN = {  # where cards are in the place of a list
  'docs/index.md': ['navigation', 'toc'],
  'experiments/README.md': ['toc'],
}


def site_path(path):
  """Where a file of the repository is in the site's sources."""
  if path in FILES:
    return FILES[path]
  if path.startswith('docs/'):
    return path.removeprefix('docs/')
  if (ROOT / path).is_dir():
    path = posixpath.join(path, 'README.md')
  return re.sub(r'(^|/)README\.md$', r'\1index.md', path)


def repository_path(file):
  """Where a page of the site is in the repository."""
  path = pathlib.Path(file.abs_src_path)
  return path.relative_to(ROOT).as_posix()


def outside():
  """Files of the repository that the site takes from outside of docs/."""
  yield from FILES
  for folder in FOLDERS:
    for path in sorted((ROOT / folder).rglob('*')):
      if path.is_file() and '__pycache__' not in path.parts:
        yield path.relative_to(ROOT).as_posix()


def on_config(config):
  """Puts the experiments into the navigation, as their index lists them."""
  text = (ROOT / 'experiments' / 'README.md').read_text(encoding='utf-8')
  groups = [{'Experiments': 'experiments/index.md'}]
  for line in text.splitlines():
    if line.startswith('## '):
      groups.append({line.removeprefix('## '): []})
    elif found := re.fullmatch(r'### \[(.+)\]\((.+)\)', line):
      page = site_path(posixpath.join('experiments', found[2]))
      [*groups[-1].values()][0].append({found[1]: page})
  entry = next(x for x in config.nav if 'Experiments' in x)
  entry['Experiments'] = [groups[0]['Experiments'], *groups[1:]]
  return config


def on_files(files, config):
  """Adds the pages and files from outside of docs/, and the notebooks."""
  for path in outside():
    source = str(ROOT / path)
    files.append(File.generated(config, site_path(path), abs_src_path=source))
  for page in config.extra['notebooks']:
    path = ROOT / 'docs' / page
    files.append(
      File.generated(
        config,
        notebooks.path_of(page),
        content=notebooks.from_page(path),
      )
    )
  return files


def on_page_markdown(markdown, page, config, files):
  """Turns links of the repository into links of the site."""
  here = repository_path(page.file)
  folder = posixpath.dirname(page.file.src_uri)

  def turned(match):
    start, target, anchor, end = match.groups()
    if re.match(r'[a-z]+:', target):
      return match[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
    target = posixpath.relpath(site_path(path), folder or '.')
    return f'{start}{target}{anchor or ""}{end}'

  markdown = LINK.sub(turned, markdown)
  markdown = markdown.replace('```text checked\n', '```text\n')
  markdown = re.sub(r'<!-- help: (\w+) -->', command_help, markdown)
  page.meta.setdefault('hide', HIDDEN.get(here, []))
  if here == 'experiments/README.md':
    markdown = cards(markdown)
  if page.file.src_uri in config.extra['notebooks']:
    markdown = with_download(markdown, page.file.src_uri)
  return markdown


def command_help(match):
  """What a command prints of itself; `ablate` without the flags of `train`."""
  done = subprocess.run(
    [sys.executable, '-m', f'gan_jax.{match[1]}', '--help'],
    cwd=ROOT,
    env=os.environ | {'COLUMNS': '78'},
    capture_output=True,
    text=True,
    check=True,
  )
  text = done.stdout
  if match[1] == 'ablate':
    text = text.partition('\nThe game\n')[0]
  return f'```text\n{text.strip()}\n```'


def cards(markdown):
  """The list of experiments as a gallery: a card for each `###` section."""
  sections = re.split(r'^(?=##)', markdown, flags=re.MULTILINE)
  parts, open_ = [], False
  for section in sections:
    card = section.startswith('### ')
    if card and not open_:
      parts.append('<div class="gallery" markdown>\n\n')
    if open_ and not card:
      parts.append('</div>\n\n')
    open_ = card
    if card:
      section = f'<div class="card" markdown>\n\n{section}\n</div>\n\n'
    parts.append(section)
  return ''.join(parts) + ('</div>\n' if open_ else '')


def with_download(markdown, page):
  """A page with a link to its notebook below the title."""
  name = posixpath.basename(notebooks.path_of(page))
  line = f'[:material-download: Notebook]({name}){{ .md-button download }}'
  return re.sub(r'^(# .*\n)', rf'\1\n{line}\n', markdown, count=1)


def on_post_page(output, page, config):
  """Says in which language the page is; calls `open` by its public name."""
  output = output.replace('>open_run<', '>open<')
  if page.file.src_uri.endswith(CHINESE):
    return output.replace('<html lang="en"', '<html lang="zh"', 1)
  return output
