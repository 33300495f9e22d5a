"""Mesh and shardings of a run: of its state, its batches and its constants.

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
from jax.sharding import (
  Mesh,
  NamedSharding,
  PartitionSpec,
  Sharding,
  SingleDeviceSharding,
)
from numpy.typing import NDArray

from gan_jax.runtime import multihost
from gan_jax.runtime.errors import ArgumentError

PyTree = Any
# A chunk of the data feed is (steps, d_steps, batch, ...).
CHUNK_ROWS = 2


def make_mesh(devices: int = 0) -> Mesh:
  """A mesh over the first `devices` devices, 0 for all of them.

  Raises:
    ArgumentError: if there are fewer, or if some process would have none.
  """
  available = multihost.devices()
  if devices > len(available):
    raise ArgumentError(
      'devices', devices, f'there are {len(available)}; use 0 for all of them'
    )
  if devices and devices != len(available) and not multihost.is_alone():
    raise ArgumentError(
      'devices',
      devices,
      f'a run of several processes uses all {len(available)} devices; use'
      ' `devices=0`',
    )
  return Mesh(np.asarray(available[: devices or len(available)]), ('data',))


def check_batch(mesh: Mesh, batch_size: int, parts: int = 1) -> None:
  """Refuses a batch whose parts do not split evenly over the devices.

  Raises:
    ArgumentError: naming the nearest sizes that do.
  """
  n = mesh.size * parts
  if batch_size % n:
    down, up = batch_size // n * n, (batch_size // n + 1) * n
    sizes = f'{down} or {up}' if down else f'{up}'
    over = [f'into {parts} parts (`accumulate`)'] * (parts > 1)
    over += [f'over {mesh.size} devices'] * (mesh.size > 1)
    other = ', or other `devices`' if mesh.size > 1 else ''
    raise ArgumentError(
      'batch_size',
      batch_size,
      f'does not split {" and ".join(over)}; use {sizes}{other}',
    )


def replicated(mesh: Mesh) -> Sharding:
  """Whole on every device.

  One device has no mesh: a step is then traced as it is outside of any loop.
  """
  return placed(mesh, PartitionSpec())


def placed(mesh: Mesh, spec: PartitionSpec) -> Sharding:
  """An array's place on a mesh, which may be one device."""
  if mesh.size == 1:
    return SingleDeviceSharding(mesh.devices.flat[0])
  return NamedSharding(mesh, spec)


def row_sharding(mesh: Mesh) -> Sharding:
  """Of a batch: split by rows over the mesh."""
  return NamedSharding(mesh, PartitionSpec('data'))


def batch_sharder(mesh: Mesh) -> Callable[[Any], Any]:
  """A function that splits a traced batch by rows over the mesh."""
  split = row_sharding(mesh)
  return lambda x: jax.lax.with_sharding_constraint(x, split)


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


def is_splitting() -> bool:
  """Whether a program is traced here whose batches are split over devices."""
  return _SPLIT_OVER.get() is not None


def sum_rows(f: Callable[..., Any], *rows: Any) -> Any:
  """`f`, a sum over rows: of each device's rows, then of the devices.

  XLA by itself adds what the devices have in the precision that `f` computes
  in, this in that of its result.

  Args:
    f: of arrays with a leading axis of rows, to one array.
    rows: the arrays.
  """
  mesh = _SPLIT_OVER.get()
  if mesh is None or rows[0].shape[0] % mesh.size:
    return f(*rows)
  over_devices: Any = jax.shard_map(
    lambda *own: jax.lax.psum(f(*own), 'data'),
    mesh=mesh,
    in_specs=PartitionSpec('data'),
    out_specs=PartitionSpec(),
    check_vma=False,  # of choices by back end it knows too little
  )
  return over_devices(*rows)


def local_rows(mesh: Mesh, batch_size: int) -> slice:
  """Rows of the global batch that this process must read."""
  own = [
    i
    for i, device in enumerate(mesh.devices.flat)
    if device.process_index == jax.process_index()
  ]
  share = batch_size // mesh.size
  return slice(own[0] * share, (own[-1] + 1) * share)


def put_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
  """Host arrays (the same in every process) or keys, whole on every device."""
  # A copy, as a donated state must own its buffers and device_put (or an
  # identity under jit) may pass the caller's on.
  copy = jax.jit(
    lambda t: jax.tree.map(jnp.copy, t), out_shardings=replicated(mesh)
  )
  return copy(tree)


def share_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
  """The same of arrays that no program donates: not copied where they can stay.

  A CPU reads them where they lie, so that nobody may write to them; to other
  devices they go once, not by way of a second copy there.
  """
  place = replicated(mesh)

  def share(x: NDArray[np.generic]) -> jax.Array:
    if mesh.size == 1:
      return jax.device_put(x, place)
    return jax.make_array_from_callback(x.shape, place, lambda _: x)

  return jax.tree.map(share, tree)


def describe(tree: PyTree, place: Sharding) -> PyTree:
  """Shapes and types of arrays, which may not be there yet, and their place."""

  def shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

  return jax.tree.map(shape, tree)


def chunk_sharding(mesh: Mesh) -> Sharding:
  """Of a chunk of the data feed: each batch split by rows."""
  return placed(mesh, PartitionSpec(*[None] * CHUNK_ROWS, 'data'))


def put_chunk(chunk: PyTree, mesh: Mesh) -> PyTree:
  """This process's rows of a chunk, as its part of the global arrays."""
  split = chunk_sharding(mesh)

  def place(local: NDArray[np.generic]) -> jax.Array:
    return jax.make_array_from_process_local_data(split, local)

  return jax.tree.map(place, chunk)
