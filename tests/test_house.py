"""The shape of the code, read off its syntax trees.

Imports point downward: a module may import modules of lower floors and of its
own floor, the ground floor no sibling at all. A package counts as one module.
"""

import ast
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / 'gan_jax'

# Helpers without a sibling import, usable from everywhere.
BASEMENT = {'divergences', 'files', 'registry'}
GROUND = {
  'augment',
  'data',
  'images',
  'metrics',
  'networks',
  'objectives',
  'optimizers',
  'regularizers',
  'statistics',
}
FIRST = {
  'checkpoint',
  'dynamics',
  'features',
  'game',
  'plan',
  'population',
  'schedules',
  'sharding',
  'state',
  'step',
}
SECOND = {
  'ablation_curves',
  'ablation',
  'ablation_files',
  'ablation_plan',
  'ablation_progress',
  'cohort',
  'ablation_figures',
  'ablation_judges',
  'ablation_report',
  'ablation_results',
  'ablation_scoring',
  'ablation_tables',
  'ablation_verdict',
  'config',
  'copies',
  'curves',
  'doors',
  'evaluating',
  'evaluation',
  'examiner',
  'figures',
  'logs',
  'loop',
  'pacing',
  'pages',
  'probe',
  'references',
  'rules',
  'runs',
  'sampling',
  'scores',
  'signals',
  'snapshots',
  'sources',
  'summary',
  'variations',
  'workdir',
}
DOORS = {'ablate', 'evaluate', 'prepare', 'report', 'sample', 'train'}
FLOORS = (BASEMENT, GROUND, FIRST, SECOND, DOORS)


def modules() -> dict[str, list[pathlib.Path]]:
  """The files of each module of the package; a sub-package is one module."""
  found: dict[str, list[pathlib.Path]] = {}
  for path in sorted(PACKAGE.rglob('*.py')):
    name = path.relative_to(PACKAGE).with_suffix('').parts[0]
    if name != '__init__':
      found.setdefault(name, []).append(path)
  return found


def imported(path: pathlib.Path) -> Iterator[str]:
  """The dotted names that a file imports, wherever in it."""
  package = ('gan_jax', *path.relative_to(PACKAGE).parts[:-1])
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = package[: len(package) - node.level + 1] if node.level else ()
      stem = '.'.join([*base, *([node.module] if node.module else [])])
      yield from (f'{stem}.{alias.name}' for alias in node.names)


def siblings(name: str) -> set[str]:
  """The other modules of the package that a module imports."""
  names = (n for path in modules()[name] for n in imported(path))
  parts = (n.split('.') for n in names)
  return {p[1] for p in parts if p[0] == 'gan_jax' and p[1:]} & {*modules()} - {
    name
  }


def floor(name: str) -> int:
  floors = [i for i, names in enumerate(FLOORS) if name in names]
  assert floors, f'gan_jax/{name}: give it a floor in {pathlib.Path(__file__)}'
  return floors[0]


@pytest.mark.parametrize('name', modules())
def test_imports_point_downward(name):
  for other in siblings(name):
    assert floor(other) <= floor(name), f'{name} imports {other} from above'
    if name in BASEMENT | GROUND:
      assert other in BASEMENT - {name}, f'{name} imports its sibling {other}'


def test_only_the_second_floor_and_the_doors_know_flags():
  for name, paths in modules().items():
    if floor(name) < FLOORS.index(SECOND):
      names = {n for path in paths for n in imported(path)}
      assert not {n for n in names if n.startswith('absl.flags')}, name
      assert 'absl.app' not in names, name


def test_the_test_sees_an_import(tmp_path, monkeypatch):
  """What the tests above stand on finds every form of an import."""
  monkeypatch.setattr(sys.modules[__name__], 'PACKAGE', tmp_path)
  (tmp_path / 'data').mkdir()
  (tmp_path / 'data' / 'a.py').write_text(
    'import gan_jax.training.loop\n'
    'def f():\n'
    '  from gan_jax import runs as r\n'
    '  from .. import state\n'
    '  from ..game import Game\n'
    '  from . import b\n'
  )
  for other in ('loop', 'runs', 'state', 'game'):
    (tmp_path / f'{other}.py').touch()
  assert siblings('data') == {'loop', 'runs', 'state', 'game'}


@pytest.mark.parametrize('path', sorted(ROOT.glob('launch/*.py')), ids=str)
def test_launch_needs_only_the_standard_library(path):
  tree = ast.parse(path.read_text(encoding='utf-8'))
  for node in ast.walk(tree):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [node.module or '.']
    for name in names:
      assert name.split('.')[0] in sys.stdlib_module_names, name


def test_doors_are_thin():
  there = DOORS & set(modules())
  assert 'train' in there
  for name in there:
    for path in modules()[name]:
      lines = path.read_text(encoding='utf-8').count('\n')
      assert lines < 100, f'{path.name} has {lines} lines'


def test_files_are_short():
  for paths in modules().values():
    for path in paths:
      lines = path.read_text(encoding='utf-8').count('\n')
      assert lines < 500, f'{path.name} has {lines} lines: split it'


def test_pmap_is_not_used():
  for path in [p for paths in modules().values() for p in paths]:
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      name = getattr(node, 'attr', getattr(node, 'id', ''))
      assert name not in ('pmap', 'soft_pmap', 'xmap'), path


def answer(*words: str) -> tuple[float, str]:
  """CPU seconds and output of a Python process; the other core may be busy."""
  best, out = float('inf'), ''
  for _ in range(3):
    before = os.times()
    done = subprocess.run(
      [sys.executable, *words],
      cwd=ROOT,
      capture_output=True,
      text=True,
      timeout=60,
    )
    after = os.times()
    assert done.returncode == 0, done.stderr[-2000:]
    best = min(
      best,
      after.children_user
      + after.children_system
      - before.children_user
      - before.children_system,
    )
    out = done.stdout + done.stderr
  return best, out


HEAVY = ('flax', 'grain', 'jax', 'matplotlib', 'numpy', 'orbax', 'sklearn')
HEAVY += ('tensorflow_datasets', 'tensorboardX')


@pytest.mark.parametrize(
  'name', ['ablate', 'evaluate', 'prepare', 'report', 'sample', 'train']
)
def test_help_answers_at_once_and_without_jax(name):
  """Every command; what it imports is read off `-X importtime`."""
  seconds, out = answer('-X', 'importtime', '-m', f'gan_jax.{name}', '--help')
  loaded = set(re.findall(r'\| +([\w.]+)$', out, re.MULTILINE))
  assert 'argparse' in loaded or 'absl' in loaded, out[-500:]
  assert not loaded & set(HEAVY)
  assert '--workdir' in out or '--data_dir' in out
  assert seconds < 0.5


def test_the_configuration_is_light():
  seconds, out = answer(
    '-c', 'import sys, gan_jax.config.schema; print(*sorted(sys.modules))'
  )
  assert 'gan_jax.config.schema' in out.split()
  assert not set(out.split()) & set(HEAVY)
  assert seconds < 0.5


def test_every_bound_is_the_version_that_ci_installs():
  setup = (ROOT / 'setup.py').read_text(encoding='utf-8')
  bounds = dict(re.findall(r"'([\w-]+)>=([\d.]+)'", setup))
  oldest = (ROOT / 'tests' / 'oldest.txt').read_text(encoding='utf-8')
  pins = dict(re.findall(r'^([\w-]+)==([\d.]+)$', oldest, re.MULTILINE))
  bounds.pop('pre-commit')  # a tool, of which CI takes the newest
  assert {'jax', 'flax', 'pytest'} <= set(bounds)
  assert bounds == {name: pins.get(name) for name in bounds}
