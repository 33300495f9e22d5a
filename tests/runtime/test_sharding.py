"""Mesh and shardings."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.untyped import unchecked

from gan_jax.runtime import sharding
from gan_jax.runtime.errors import ArgumentError


def test_the_mesh_has_the_devices_asked_for():
  assert sharding.make_mesh().size == len(jax.devices()) == 4
  assert sharding.make_mesh(2).size == 2
  with pytest.raises(ArgumentError, match='`devices=5`.*there are 4'):
    sharding.make_mesh(5)


def test_a_chunk_is_split_by_rows():
  mesh = sharding.make_mesh()
  host = np.arange(2 * 3 * 8).reshape(2, 3, 8)
  placed = sharding.put_chunk({'x': host}, mesh)['x']
  np.testing.assert_array_equal(placed, host)
  shapes = {shard.data.shape for shard in placed.addressable_shards}
  assert shapes == {(2, 3, 2)}
  assert sharding.put_chunk((), mesh) == ()


def test_one_process_reads_all_rows():
  assert sharding.local_rows(sharding.make_mesh(), 8) == slice(0, 8)


def test_a_replicated_state_owns_its_buffers():
  mesh = sharding.make_mesh()
  state = {'w': jnp.ones(4), 'key': jax.random.key(0)}
  placed = sharding.put_replicated(state, mesh)
  jax.jit(lambda s: s, donate_argnums=0)(placed)
  np.testing.assert_array_equal(state['w'], np.ones(4))
  host = {'w': np.ones(1024, np.float32)}
  placed = sharding.put_replicated(host, mesh)
  jax.jit(lambda s: {'w': s['w'] * 2}, donate_argnums=0)(placed)
  np.testing.assert_array_equal(host['w'], np.ones(1024))


@pytest.mark.parametrize('devices', [1, 4])
def test_what_is_shared_is_whole_and_made_once(devices):
  mesh = sharding.make_mesh(devices)
  room = np.arange(64 * 1024 + 64, dtype=np.uint8)
  start = -room.ctypes.data % 64  # as JAX takes arrays without a copy
  host = room[start : start + 64 * 1024].reshape(64, 1024)
  (shared,) = sharding.share_replicated((host,), mesh)
  assert (
    shared.is_fully_replicated and len(shared.addressable_shards) == devices
  )
  np.testing.assert_array_equal(shared, host)
  if devices == 1:
    assert shared.unsafe_buffer_pointer() == host.ctypes.data


def test_a_batch_under_jit_is_split_and_whole():
  mesh = sharding.make_mesh()
  shard = sharding.batch_sharder(mesh)

  @jax.jit
  def noise(key):
    return shard(jax.random.normal(key, (8, 3)))

  split = noise(jax.random.key(0))
  assert {s.data.shape for s in split.addressable_shards} == {(2, 3)}
  expected = jax.random.normal(jax.random.key(0), (8, 3))
  np.testing.assert_array_equal(split, expected)


@pytest.mark.parametrize(
  ('batch', 'sizes'), [(6, '4 or 8'), (3, 'use 4'), (9, '8 or 12')]
)
def test_an_uneven_batch_is_refused_with_sizes_that_fit(batch, sizes):
  with pytest.raises(ArgumentError, match=sizes):
    sharding.check_batch(sharding.make_mesh(), batch)


@pytest.mark.parametrize(
  ('process', 'rows'), [(0, slice(0, 4)), (1, slice(4, 12)), (2, slice(12, 16))]
)
def test_each_process_reads_the_rows_of_its_devices(process, rows, monkeypatch):
  """Of eight devices one has two, one four, one two."""
  owners = [0, 0, 1, 1, 1, 1, 2, 2]
  devices = [SimpleNamespace(process_index=owner) for owner in owners]
  mesh = SimpleNamespace(devices=np.array(devices), size=len(devices))
  monkeypatch.setattr(jax, 'process_index', lambda: process)
  with unchecked():
    assert sharding.local_rows(mesh, 16) == rows
