"""Memory: what there is, and what is refused before it is made."""

import pytest

from gan_jax.runtime import backend
from gan_jax.runtime.errors import ArgumentError


def test_a_container_may_leave_less_than_the_machine_has(tmp_path, monkeypatch):
  """As its control group says; `max` and 0 are no limits."""
  machine = backend.host_memory_bytes()
  group, other = tmp_path / 'memory.max', tmp_path / 'limit_in_bytes'
  monkeypatch.setattr(backend, '_CGROUPS', (str(group), str(other)))
  group.write_text('1048576\n')
  assert backend.host_memory_bytes() == 2**20
  other.write_text('4096\n')
  assert backend.host_memory_bytes() == 4096
  group.write_text('max\n')
  other.write_text('0\n')
  assert machine is not None and backend.host_memory_bytes() >= machine


@pytest.mark.parametrize('host', [False, True])
def test_what_does_not_fit_is_refused_to_the_byte(host, monkeypatch):
  limits = {False: 3 * 2**30, True: 2**30}
  monkeypatch.setattr(backend, 'memory_bytes', lambda: limits[False])
  monkeypatch.setattr(backend, 'host_memory_bytes', lambda: limits[True])
  backend.require_memory('num', 3, limits[host], 'samples', host=host)
  with pytest.raises(ArgumentError) as caught:
    backend.require_memory('num', 3, limits[host] + 2**30, 'x', host=host)
  there = limits[host] / 2**30
  assert f'{there + 1:.1f} GiB at the least, and there are {there:.1f}' in str(
    caught.value
  )
