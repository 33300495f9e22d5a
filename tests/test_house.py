"""The shape of the code: what import-linter's contracts do not say.

That imports point downward, and that no package has a cycle, is checked by
`lint-imports` (pyproject.toml), which the hooks run.
"""

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

from gan_jax.__main__ import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / 'gan_jax'
# What stands above `config` in this list knows no flags.
BELOW_FLAGS = ('runtime', 'metrics', 'networks', 'data', 'game', 'features')


def trees(folder: pathlib.Path) -> dict[pathlib.Path, ast.Module]:
  return {
    path: ast.parse(path.read_text(encoding='utf-8'))
    for path in sorted(folder.rglob('*.py'))
  }


@pytest.mark.parametrize('package', BELOW_FLAGS)
def test_what_is_below_config_knows_no_flags(package):
  for path, tree in trees(PACKAGE / package).items():
    for node in ast.walk(tree):
      if isinstance(node, ast.ImportFrom):
        names = {alias.name for alias in node.names}
        assert not (node.module == 'absl' and names & {'flags', 'app'}), path
      if isinstance(node, ast.Constant) and isinstance(node.value, str):
        flag = re.search(r'(?<![\w-])--[a-z_]+', node.value)
        assert not flag, f'{path}:{node.lineno} names the flag {flag}'


@pytest.mark.parametrize('path', sorted(ROOT.glob('launch/*.py')), ids=str)
def test_launch_needs_only_the_standard_library(path):
  tree = ast.parse(path.read_text(encoding='utf-8'))
  beside = {other.stem for other in path.parent.glob('*.py')}
  if path.stem == 'submitit_jobs':  # an extra
    beside |= {'submitit', 'cloudpickle'}
  if path.stem == 'restarts':  # of a workdir in an object store
    beside |= {'fsspec'}
  for node in ast.walk(tree):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [node.module or '.']
    for name in names:
      assert name.split('.')[0] in sys.stdlib_module_names | beside, name


@pytest.mark.parametrize('name', COMMANDS)
def test_commands_are_thin(name):
  """But for the table of their flags."""
  text = (PACKAGE / f'{name}.py').read_text(encoding='utf-8')
  lines = text.count('\n')
  for node in ast.parse(text).body:
    if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == 'FLAGS':
      assert node.end_lineno is not None
      lines -= node.end_lineno - node.lineno
  assert lines < 70, f'{name}.py has {lines} lines beside its flags'


def test_pmap_is_not_used():
  for path, tree in trees(PACKAGE).items():
    for node in ast.walk(tree):
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


@pytest.mark.parametrize('name', COMMANDS)
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


def test_the_package_is_imported_at_once_and_without_jax():
  """Under 50 ms beyond the interpreter's own start."""
  bare, _ = answer('-c', 'pass')
  seconds, out = answer(
    '-c', 'import sys, gan_jax; print(*sorted(sys.modules)); dir(gan_jax)'
  )
  assert 'gan_jax' in out.split()
  assert not set(out.split()) & set(HEAVY)
  assert seconds - bare < 0.05


def test_functions_named_as_commands_stay_functions():
  code = (
    'import gan_jax.train, gan_jax.ablate, gan_jax.report, gan_jax.evaluate;'
    'import gan_jax as gj; print({*vars(gj)} & {*gj.__all__})'
  )
  # Each is still to be looked up, and not the command's module.
  assert answer('-c', code)[1].split() == ["{'__version__'}"]


def test_every_bound_is_the_version_that_ci_installs():
  setup = (ROOT / 'setup.py').read_text(encoding='utf-8')
  bounds = dict(re.findall(r"'([\w-]+)>=([\d.]+)'", setup))
  oldest = (ROOT / 'tests' / 'oldest.txt').read_text(encoding='utf-8')
  pins = dict(re.findall(r'^([\w-]+)==([\d.]+)$', oldest, re.MULTILINE))
  for tool in (
    'gcp-storage-emulator',
    'gcsfs',
    'jupytext',
    'pre-commit',
    's3fs',
    'torch',
  ):  # of which the newest is taken
    bounds.pop(tool)
  assert {'jax', 'flax', 'pytest'} <= set(bounds)
  assert bounds == {name: pins.get(name) for name in bounds}


def test_what_is_listed_as_heavy_is_there():
  lines = (ROOT / 'tests' / 'heavy.txt').read_text(encoding='utf-8')
  tests = [line for line in lines.splitlines() if not line.startswith('#')]
  assert tests == sorted({*tests})
  for test in tests:
    path, name = test.split('[')[0].split('::')
    assert f'def {name}(' in (ROOT / path).read_text(encoding='utf-8'), test
