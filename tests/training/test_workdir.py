"""The folder of a run: who may write to it, what it says of itself."""

import json

import pytest
from helpers import small

from gan_jax.runtime import locks, multihost
from gan_jax.runtime.errors import ArgumentError
from gan_jax.training import workdir


def test_whoever_comes_second_does_not_claim_the_folder(tmp_path):
  """The first has locked it and says in a moment whose it is."""
  with locks.hold(tmp_path, pytest.fail):
    with pytest.raises(ArgumentError, match='another process is training'):
      with workdir.held(small.ring(workdir=str(tmp_path), seed=7)):
        pass
  assert not (tmp_path / 'config.flags').exists()


def test_facts_are_added_to_those_of_before(tmp_path):
  workdir.RunFile(tmp_path).update(started='then', outcome='running')
  workdir.RunFile(tmp_path).update(outcome='done', step=3)
  found = json.loads((tmp_path / 'run.json').read_text())
  found.pop('crc32')
  assert found == {'started': 'then', 'outcome': 'done', 'step': 3}


def test_one_process_of_several_writes(tmp_path, monkeypatch):
  config = small.ring(workdir=str(tmp_path / 'run'))
  monkeypatch.setattr(multihost, 'is_primary', lambda: False)
  with workdir.held(config) as folder:
    run_file = workdir.RunFile(folder)
    run_file.update(outcome='done')
    workdir.claim(config)
  assert run_file.facts == {'outcome': 'done'} and not folder.exists()
