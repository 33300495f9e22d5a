"""Flags of XLA for the same bits each time on a GPU, without one."""

import contextlib
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from gan_jax.runtime import determinism
from gan_jax.runtime.errors import ArgumentError

WHOLE = 'version: 3\nresults {\n  device: "x"\n}\n'
EXACT = '--xla_gpu_exclude_nondeterministic_ops=true'


@pytest.fixture
def gpu(monkeypatch):
  """A process that may compute on a GPU, in which JAX has not started."""
  from jax._src import xla_bridge

  monkeypatch.setattr(xla_bridge, 'backends_are_initialized', lambda: False)
  monkeypatch.setattr(determinism, '_may_be_gpu', lambda: True)
  monkeypatch.setenv('XLA_FLAGS', '--xla_dump_to=/x')
  yield
  close()


def close():
  """As at the end of a process."""
  with contextlib.suppress(OSError):
    os.close(determinism._OPEN)


def words() -> dict[str, str]:
  pairs = (word.partition('=') for word in os.environ['XLA_FLAGS'].split())
  return {name.removeprefix('--xla_'): value for name, _, value in pairs}


@pytest.mark.usefixtures('gpu')
def test_what_was_picked_once_is_picked_again(tmp_path, monkeypatch):
  folder = str(tmp_path)
  new = tmp_path / 'autotune_results.new.txt'
  old = tmp_path / 'autotune_results.txt'
  determinism.request('auto', folder)
  first = words()
  dumped = pathlib.Path(first.pop('gpu_dump_autotune_results_to'))
  assert first == {
    'dump_to': '/x',  # what the user sets stays
    'gpu_exclude_nondeterministic_ops': 'true',
  }
  dumped.write_text(WHOLE)
  assert new.read_text() == WHOLE
  close()
  monkeypatch.setenv('XLA_FLAGS', '--xla_dump_to=/x')
  determinism.request('auto', folder)
  loaded = pathlib.Path(words()['gpu_load_autotune_results_from'])
  assert loaded.samefile(old)
  assert old.read_text() == WHOLE and not new.exists()
  dumped.write_text(WHOLE[:-2])  # killed while it was written
  close()
  monkeypatch.setenv('XLA_FLAGS', '')
  determinism.request('on', folder)
  assert words()['gpu_load_autotune_results_from'] == str(loaded)
  assert old.read_text() == WHOLE


@pytest.mark.skipif(sys.platform != 'linux', reason='there is no /proc')
def test_programs_are_kept_for_all_folders_and_processes(tmp_path):
  """JAX keeps them by the flags, which name the file of what was picked."""
  seen = []
  for i, part in enumerate(['', '', '1', '1-4.2']):
    seen.append(determinism.flags(tmp_path / str(i), part))
    pathlib.Path(seen[-1][1].partition('=')[2]).write_text(part)
    close()
  assert seen == seen[:1] * 4
  there = sorted(tmp_path.glob('?/**/*.txt'))
  name = 'autotune_results'
  assert [p.relative_to(tmp_path).as_posix() for p in there] == [
    *(f'0/{name}.new.txt', f'1/{name}.new.txt'),
    *(f'2/{name}.1/{name}.new.txt', f'3/{name}.1-4.2/{name}.new.txt'),
  ]
  for number, path in ((0, there[0]), (1, there[2])):
    below = path.relative_to(tmp_path).as_posix().partition('/')[2]
    assert below.startswith(determinism.picks_of(number))


def test_where_a_descriptor_cannot_be_had_the_folder_is_named(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(determinism, '_BY_DESCRIPTOR', '/nowhere')
  assert determinism.flags(tmp_path)[1].endswith(
    f'={tmp_path}/autotune_results.new.txt'
  )


@pytest.mark.usefixtures('gpu')
def test_processes_that_share_a_folder_have_files_of_their_own(tmp_path):
  determinism.request('on', str(tmp_path), part='1-4')
  path = tmp_path / 'autotune_results.1-4' / 'autotune_results.new.txt'
  pathlib.Path(words()['gpu_dump_autotune_results_to']).touch()
  assert path.exists()


@pytest.mark.usefixtures('gpu')
def test_what_the_user_sets_has_the_last_word(tmp_path, monkeypatch):
  own = '--xla_gpu_exclude_nondeterministic_ops=false'
  monkeypatch.setenv('XLA_FLAGS', own)
  determinism.request('auto', str(tmp_path))
  assert words()['gpu_exclude_nondeterministic_ops'] == 'false'
  monkeypatch.setenv('XLA_FLAGS', own)
  determinism.request('off', str(tmp_path))
  assert os.environ['XLA_FLAGS'] == own


def test_it_is_refused_where_it_comes_too_late(monkeypatch, tmp_path):
  jax.devices()
  monkeypatch.setattr(determinism, '_may_be_gpu', lambda: True)
  monkeypatch.setattr(determinism, 'in_force', lambda: False)
  before = os.environ['XLA_FLAGS']
  determinism.request('auto', str(tmp_path))
  with pytest.raises(ArgumentError, match='deterministic=.*on.*already'):
    determinism.request('on', str(tmp_path))
  assert os.environ['XLA_FLAGS'] == before


def test_a_cpu_needs_nothing(monkeypatch, tmp_path):
  monkeypatch.setenv('XLA_FLAGS', '')
  determinism.request('on', str(tmp_path))
  assert os.environ['XLA_FLAGS'] == '' and determinism.in_force()


def test_xla_knows_the_flags(tmp_path):
  (tmp_path / 'autotune_results.txt').write_text(WHOLE)
  words = determinism.flags(tmp_path)
  close()
  assert len(words) == 3
  code = 'import jax; jax.devices()'
  environment = os.environ | {'XLA_FLAGS': ' '.join(words)}
  subprocess.run([sys.executable, '-c', code], env=environment, check=True)
