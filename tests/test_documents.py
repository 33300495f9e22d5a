"""Every page: its commands name what there is, its links lead somewhere."""

import re
import shlex

import pytest
from helpers.pages import ROOT, fenced, name_of

from gan_jax.ablation import grid
from gan_jax.ablation import plan as ablation_plan
from gan_jax.config import schema

PAGES = sorted(
  path
  for folder in ('.', 'docs', 'experiments', 'launch')
  for path in (ROOT / folder).glob('*.md' if folder == '.' else '**/*.md')
)
# What a reader is to replace: F, DIR, PATH, or the rest of a command.
PLACEHOLDER = re.compile(r'^[A-Z_]+$|\.\.\.')


def commands():
  for path in PAGES:
    for body in fenced(path, '', 'shell'):
      for line in body.replace('\\\n', ' ').splitlines():
        if (
          line.startswith(('python ', 'gan-jax ')) and ' -m pytest' not in line
        ):
          yield pytest.param(line, id=f'{name_of(path)}: {line[:60]}')


COMMANDS = list(commands())


def test_the_pages_have_commands():
  assert len(COMMANDS) > 50
  assert 'python -m gan_jax.train --workdir=runs/digits' in [
    param.values[0] for param in COMMANDS
  ]


def words_of(line):
  """What is run, and all flags of the line."""
  words = shlex.split(line, comments=True)
  if words[0] == 'gan-jax':
    words = ['python', '-m', f'gan_jax.{words[1]}', *words[2:]]
  words = words[1:]
  if words[0] == '-m' and words[1] == 'venv':
    pytest.skip("Python's own")
  if words[0] == '-m':
    path = ROOT.joinpath(*words[1].split('.')).with_suffix('.py')
    words = words[2:]
  else:
    path, words = ROOT / words[0], words[1:]
  flags = [w.strip('[]') for w in words if w not in ('--', '...')]
  return path, flags


def parted(flag):
  name, _, value = flag.removeprefix('--').partition('=')
  return name, value


@pytest.mark.parametrize('line', COMMANDS)
def test_a_command_names_what_there_is(line, monkeypatch):
  monkeypatch.chdir(ROOT)
  path, flags = words_of(line)
  assert path.is_file()
  assert all(flag.startswith('--') for flag in flags)
  source = path.read_text(encoding='utf-8')
  if path.parent.name == 'launch':  # and what is for the ablation, behind `--`
    source += (ROOT / 'gan_jax' / 'ablate.py').read_text(encoding='utf-8')
  own, shared = [], []
  for flag in flags:
    name, value = parted(flag)
    if PLACEHOLDER.search(value.rpartition(':')[2]) or 'mypkg' in value:
      assert name == 'flagfile' or name in schema.FIELDS or name in source
    elif re.search(rf"['-]{name}'", source):
      own.append((name, value))
    elif name != 'help':
      shared.append(flag)
  base = schema.from_args(shared)  # of the right type, or raises
  if path.name == 'ablate.py' and len(own) + len(shared) == len(flags):
    options = dict(own)
    vary = tuple(value for name, value in own if name == 'vary')
    if not base.network:
      vary = grid.add_networks(vary, base)
    seeds = int(options.get('seeds', 1))
    plan = ablation_plan.make_plan(
      ablation_plan.AblationOptions(base=base, vary=vary, seeds=seeds)
    )
    assert plan.runs > 1


@pytest.mark.parametrize('path', PAGES, ids=name_of)
def test_its_links_lead_somewhere(path):
  text = path.read_text(encoding='utf-8')
  links = re.findall(r'\]\(([^)#\s]+)[^)]*\)', text)
  links += re.findall(r'<img src="([^"]+)"', text)
  for link in links:
    if not link.startswith(('https://', 'http://')):
      assert (path.parent / link).exists(), link


def test_the_index_of_the_experiments_lists_all_of_them():
  index = (ROOT / 'experiments' / 'README.md').read_text(encoding='utf-8')
  listed = set(re.findall(r'^### \[.+\]\((\w+)', index, re.MULTILINE))
  folders = {p.parent.name for p in (ROOT / 'experiments').glob('*/*')}
  assert listed == folders - {'__pycache__'}
