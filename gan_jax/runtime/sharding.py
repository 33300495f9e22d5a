"""Where a run lives: the mesh, and the place of state, batches and constants.

One axis, `data`. State and constants are replicated, a batch is split by rows.
Everything is a global view: random numbers are drawn for the whole batch and
each device computes its rows, so the noise and the data do not depend on how
many devices or processes there are.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

PyTree = Any
# A chunk of the data feed is (steps, d_steps, batch, ...).
CHUNK_ROWS = 2


class ShardingError(ValueError):
  """The run does not fit the devices; the message names the flag."""

  exit_code = 2


def make_mesh(devices: int = 0) -> Mesh:
  """A mesh over the first `devices` devices, 0 for all of them.

  Raises:
    ShardingError: if there are fewer, or if some process would have none.
  """
  there = jax.devices()
  if devices > len(there):
    raise ShardingError(
      f'--devices={devices}: there are {len(there)}; use 0 for all of them'
    )
  if devices and devices != len(there) and jax.process_count() > 1:
    raise ShardingError(
      f'--devices={devices}: a run of several processes uses all'
      f' {len(there)} devices; use --devices=0'
    )
  return Mesh(np.asarray(there[: devices or len(there)]), ('data',))


def check_batch(mesh: Mesh, batch_size: int) -> None:
  """Refuses a batch that does not split evenly.

  Raises:
    ShardingError: naming the nearest sizes that do.
  """
  n = mesh.size
  if batch_size % n:
    down, up = batch_size // n * n, (batch_size // n + 1) * n
    sizes = f'{down} or {up}' if down else f'{up}'
    raise ShardingError(
      f'--batch_size={batch_size}: does not split over {n} devices; use'
      f' {sizes}, or --devices'
    )


def replicated(mesh: Mesh) -> NamedSharding:
  """Whole on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharder(mesh: Mesh) -> Callable[[Any], Any]:
  """A function that splits a traced batch by rows over the mesh."""
  rows = NamedSharding(mesh, PartitionSpec('data'))
  return lambda x: jax.lax.with_sharding_constraint(x, rows)


_SPLIT_OVER: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar(
  'split_over', default=None
)


@contextlib.contextmanager
def splitting_over(mesh: Mesh) -> Iterator[None]:
  """While a program is traced here, `split_rows` splits over this mesh."""
  token = _SPLIT_OVER.set(mesh if mesh.size > 1 else None)
  try:
    yield
  finally:
    _SPLIT_OVER.reset(token)


def split_rows(x: Any) -> Any:
  """A traced batch, split by rows over the devices of the loop that traces.

  What a step draws for itself (noise, labels) has no sharding of its own to
  go by; outside of `splitting_over` it is left as it is.
  """
  mesh = _SPLIT_OVER.get()
  return x if mesh is None else batch_sharder(mesh)(x)


def local_rows(mesh: Mesh, batch_size: int) -> slice:
  """Rows of the global batch that this process must read."""
  mine = [
    i
    for i, device in enumerate(mesh.devices.flat)
    if device.process_index == jax.process_index()
  ]
  share = batch_size // mesh.size
  return slice(mine[0] * share, (mine[-1] + 1) * share)


def put_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
  """Host arrays (the same in every process) or keys, whole on every device."""
  # A copy, as a donated state must own its buffers and device_put (or an
  # identity under jit) may pass the caller's on.
  copy = jax.jit(
    lambda t: jax.tree.map(jnp.copy, t), out_shardings=replicated(mesh)
  )
  return copy(tree)


def put_chunk(chunk: PyTree, mesh: Mesh) -> PyTree:
  """This process's rows of a chunk, as its part of the global arrays."""
  spec = PartitionSpec(*[None] * CHUNK_ROWS, 'data')
  there = NamedSharding(mesh, spec)

  def place(local: NDArray[np.generic]) -> jax.Array:
    return jax.make_array_from_process_local_data(there, local)

  return jax.tree.map(place, chunk)
