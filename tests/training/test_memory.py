"""Memory of a run: what is asked for, before anything large is made."""

import numpy as np
from helpers import small

from gan_jax.training import memory, setup


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
