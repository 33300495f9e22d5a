"""Memory of a run: what is asked for, before anything large is made."""

import dataclasses
import json
import types

import numpy as np
import pytest
from helpers import small

from gan_jax.config import app
from gan_jax.data import feed
from gan_jax.runtime import backend
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.progress import format_bytes
from gan_jax.training import memory, report, run_loop, setup
from gan_jax.training.run_loop import RunLoop
from gan_jax.training.train import train_config


def asked(monkeypatch, members=1, **changes):
  """What it is asked of whom: (needed bytes, host) by argument."""
  found = {}

  def require(argument, value, needed, what, *, host=False):
    found[argument] = needed, host

  monkeypatch.setattr(memory, 'require_memory', require)
  parts = setup.build(small.ring(**changes))
  memory.check(parts, members)
  return parts, found


def test_states_and_samples_are_of_all_members(monkeypatch):
  parts, one = asked(monkeypatch, d_steps=3)
  state = sum(
    np.prod(x.shape, dtype=int) * x.dtype.itemsize
    for x in [*memory.jax.tree.leaves(parts.shapes)]
    if hasattr(x.dtype, 'itemsize')
  )
  latent = parts.networks.latent_dim
  samples = 3 * 8 * 4 * max(2, latent)  # batches, rows, bytes, numbers
  assert one == {
    'width': (state, False),
    'batch_size': (state + samples, False),
  }
  _, five = asked(monkeypatch, members=5, d_steps=3)
  assert five == {
    name: (5 * needed, host) for name, (needed, host) in one.items()
  }


def test_the_grid_of_samples_is_of_this_machine(monkeypatch, digits):
  parts, found = asked(
    monkeypatch, dataset='digits', num_samples=16, latent_dim=2
  )
  assert found['num_samples'] == (16 * 64 * 4, True)
  state, _ = found['width']
  assert found['batch_size'] == (state + 8 * 64 * 4, False)


def test_a_program_that_cannot_fit_is_refused_before_its_first_step(
  monkeypatch, tmp_path, capsys, programs
):
  needs = {}

  def limit():
    return needs.get('limit', 2**40)

  monkeypatch.setattr(backend, 'memory_bytes', limit)
  config = small.ring(workdir=str(tmp_path), compilation_cache=programs)
  assert train_config(config) == app.DONE
  said = capsys.readouterr().err
  facts = json.loads((tmp_path / 'run.json').read_text())
  program, peak = (facts['memory'][f'{k}_bytes'] for k in ('program', 'peak'))
  assert f'; the program takes {program / 1e6:.1f} MB' in said
  assert peak > 10**8 > program > 10**3  # of a process with JAX; of a toy
  told = ' '.join(report.summarise_run(config, facts, []))
  assert f'at most {format_bytes(peak)} were in use' in told
  needs['limit'] = program // 2
  with pytest.raises(ArgumentError, match='batch_size=8.*compiled step') as e:
    train_config(dataclasses.replace(config, workdir=str(tmp_path / 'second')))
  assert 'residence=stream' in str(e.value)


def test_a_program_is_held_against_free_memory_before_data_are_read(
  monkeypatch, digits
):
  sizes = {f'{k}_size_in_bytes': 10**6 for k in ('argument', 'output', 'temp')}
  sizes = types.SimpleNamespace(**sizes, alias_size_in_bytes=0)
  program = types.SimpleNamespace(memory_analysis=lambda: sizes)
  lowered = types.SimpleNamespace(compile=lambda: program)
  monkeypatch.setattr(run_loop, 'lower', lambda *args, **how: lowered)
  loop = object.__new__(RunLoop)
  config = small.ring(dataset='digits', latent_dim=2, residence='device')
  loop.setup, loop.config, loop.state = setup.build(config), config, None
  # Types are checked in tests: that of a feed, by reading all that it has.
  reading = property(lambda whole: pytest.fail('data are read'))
  monkeypatch.setattr(feed._Whole, 'array', reading)
  monkeypatch.setattr(backend, 'free_bytes', lambda: 3 * 10**6)
  assert loop.compile() is program
  monkeypatch.setattr(backend, 'free_bytes', lambda: 10**6)
  with pytest.raises(ArgumentError, match='batch_size=8.* 0.0 GiB free'):
    loop.compile()
