"""The scripts of docs/examples: short, on the public names alone, and run."""

import ast
import runpy

import jax
import numpy as np
import pytest
from helpers.pages import ROOT, shortened

import gan_jax as gj

SCRIPTS = sorted((ROOT / 'docs' / 'examples').glob('*.py'))
NEEDS = {'equinox_pair': 'equinox'}


def test_there_are_six():
  assert len(SCRIPTS) == 6


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda p: p.stem)
def test_it_is_short_and_uses_public_names_alone(path):
  source = path.read_text(encoding='utf-8')
  assert source.count('\n') <= 25
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      for alias in node.names:
        assert not alias.name.startswith('gan_jax.')
    elif isinstance(node, ast.ImportFrom):
      assert not str(node.module).startswith('gan_jax')
    elif isinstance(node, ast.Attribute):
      assert not node.attr.startswith('_')
      if isinstance(node.value, ast.Name) and node.value.id == 'gj':
        assert node.attr in gj.__all__


@pytest.fixture
def run(digits_root, tmp_path, monkeypatch):
  """Runs a script with fewer steps, in a folder of its own."""
  monkeypatch.setenv('TFDS_DATA_DIR', str(digits_root))
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)  # seeds.py imports linen_pair.py

  def run(name, **numbers):
    pytest.importorskip(NEEDS.get(name, 'jax'))
    for path in SCRIPTS:
      code = path.read_text(encoding='utf-8')
      if path.stem == name:
        code = shortened(code, **numbers)
      (tmp_path / path.name).write_text(code, encoding='utf-8')
    with jax.numpy_rank_promotion('allow'):  # as with everybody
      return runpy.run_path(str(tmp_path / f'{name}.py'), run_name='__main__')

  return run


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'folder', 'shape'),
  [
    ('linen_pair', 'linen_pair', (8, 8, 1)),
    ('nnx_pair', 'nnx_pair', (8, 8, 1)),
    ('equinox_pair', 'equinox_pair', (8, 8, 1)),
    ('functions', 'functions', (2,)),
  ],
)
def test_networks_of_ones_own_are_trained_and_opened(run, name, folder, shape):
  run(name, steps=10)
  opened = gj.open(f'runs/{folder}')
  assert (opened.outcome, opened.step) == ('done', 10)
  samples = opened.sample(4)
  assert samples.shape == (4, *shape)
  assert np.isfinite(samples).all()


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_bits(run, capsys):
  run('resume', steps=1000)  # which compares them itself
  assert capsys.readouterr().out.startswith('saved\n')


@pytest.mark.slow
def test_many_seeds_are_scored(run, capsys):
  run('seeds', seeds=64, steps=5)
  assert 'fid@pixels' in capsys.readouterr().out
