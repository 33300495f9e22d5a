"""Command lines that nobody should write, for all commands, from a seed.

Each is answered by one line or done: no traceback, no hang, no nonsense taken.
"""

import shutil

import pytest
from helpers import fuzz, small

from gan_jax.training import train


@pytest.fixture(scope='module')
def run(tmp_path_factory, programs):
  """A finished run, which lines are about."""
  path = tmp_path_factory.mktemp('fuzz') / 'run'
  config = small.ring(workdir=str(path), compilation_cache=programs)
  assert train.train_config(config) == 0
  return path


def wrong(lines):
  """The lines that are not answered as they should be."""
  answers = ((line, fuzz.check(line)) for line in lines)
  return [
    f'{line.command} {" ".join(map(repr, line.words))}\n  {answer}'
    for line, answer in answers
    if answer
  ]


@pytest.fixture
def folder(tmp_path):
  """What says that it is a run, and nothing else."""
  path = tmp_path / 'run'
  path.mkdir()
  (path / 'config.flags').write_text('--dataset=ring\n')
  return path


def test_hostile_command_lines_are_answered(folder, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  with fuzz.cut(*fuzz.BEGINNINGS, *fuzz.READINGS):
    found = wrong(fuzz.lines(seed=0, count=96, run=folder))
  assert not found, '\n'.join(found)


@pytest.mark.soak
def test_a_thousand_hostile_command_lines_are_answered(
  run, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  with fuzz.cut(*fuzz.BEGINNINGS):
    found = wrong(fuzz.lines(seed=1, count=1000, run=run))
  assert not found, '\n'.join(found)


@pytest.mark.soak
def test_some_hostile_command_lines_are_run_to_the_end(
  run, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  shutil.copytree(run, tmp_path / 'run')
  endless = {'1000000000', '2147483647'}
  lines = [
    line
    for line in fuzz.lines(seed=2, count=60, run=tmp_path / 'run')
    if not any(word.partition('=')[2] in endless for word in line.words)
  ]
  assert len(lines) > 40
  found = wrong(lines)
  assert not found, '\n'.join(found)


def test_the_fuzzer_sees_what_is_wrong(folder, monkeypatch):
  taken = fuzz.Line('report', [f'--workdir={folder}'], ['--workdir=x'])
  with fuzz.cut('gan_jax.training.report.write_report'):
    assert fuzz.check(taken) == "accepted ['--workdir=x']"
    assert fuzz.check(taken._replace(nonsense=[])) == ''
  monkeypatch.setattr(
    'gan_jax.training.report.write_report', lambda path: 1 / 0
  )
  assert 'ZeroDivisionError' in fuzz.check(taken)
