"""What of a machine a run depends on: looked at, timed, with what to do.

Nothing here raises for what it finds: a finding has a remedy where something is
wrong, and none where all is well.
"""

import contextlib
import glob
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gan_jax.runtime import (
  backend,
  determinism,
  locks,
  numerics,
  places,
  provenance,
)
from gan_jax.runtime.cards import card_of
from gan_jax.runtime.errors import Error

_GIB = 2**30
_SLOW = 0.1  # of its peak: products of this size reach several times as much
_LITTLE = 2 * _GIB  # room on a disk under which a run is likely to fill it
# Files of drivers, and the JAX that uses what they drive.
_DRIVERS = {
  '/dev/nvidia[0-9]*': ('an NVIDIA GPU', 'jax[cuda12]'),
  '/dev/accel[0-9]*': ('a TPU', 'jax[tpu]'),
  '/dev/kfd': ('an AMD GPU', 'jax[rocm]'),
}


class Finding(NamedTuple):
  """One thing that was looked at.

  Attributes:
    name: of it.
    told: what was found.
    remedy: what to do about it; '' where nothing is wrong.
    fatal: whether nothing can be trained so.
  """

  name: str
  told: str
  remedy: str = ''
  fatal: bool = False


def look(folders: dict[str, str], *, seconds: float = 1.0) -> Iterator[Finding]:
  """Findings, one after the other, the slow ones last.

  Args:
    folders: places that are written to, by what they hold.
    seconds: that a product is timed for; 0: none is.

  >>> [finding.name for finding in look({}, seconds=0)][:2]
  ['versions', 'devices']
  """
  versions = ', '.join(f'{k} {v}' for k, v in provenance.versions().items())
  yield Finding('versions', versions)
  try:
    backend.check_devices()
  except Error as error:
    yield Finding('devices', 'none', str(error), fatal=True)
    return
  yield _devices()
  yield _memory()
  yield _products()
  yield _repeats()
  for name, place in folders.items():
    yield _folder(name, place)
  if seconds:
    for name, work, operations in _works():
      yield _judge(name, _rate(work, operations, seconds))


def _judge(name: str, rate: float) -> Finding:
  """A rate beside what the data sheet of the device promises."""
  told = f'{rate / 1e9:,.0f} GFLOP/s on one device'
  card = card_of(str(jax.local_devices()[0].device_kind))
  if card is None:
    return Finding(name, told)
  settings: Any = jax.config
  exact = settings.jax_default_matmul_precision in ('highest', 'float32')
  share = rate / card.peak('f32', product=True, exact=exact)
  told += f', {share:.0%} of the peak of {card.title}'
  if share >= _SLOW:
    return Finding(name, told)
  remedy = (
    'see in nvidia-smi whether another process uses the card, or its clock is'
    ' held down'
    if card.platform == 'cuda'
    else 'see whether another process uses the chip'
  )
  return Finding(name, told, remedy)


def _devices() -> Finding:
  devices = jax.devices()
  kinds = ', '.join(sorted({str(d.device_kind) for d in devices}))
  told = f'{len(devices)} of {devices[0].platform}: {kinds}'
  if devices[0].platform != 'cpu':
    return Finding('devices', told)
  for pattern, (what, package) in _DRIVERS.items():
    if glob.glob(pattern):
      remedy = f'there is {what} that JAX does not use: pip install "{package}"'
      platforms = os.environ.get('JAX_PLATFORMS', '')
      if platforms:
        remedy = f'unset JAX_PLATFORMS={platforms} to use {what}'
      return Finding('devices', told, remedy)
  return Finding('devices', told)


def _memory() -> Finding:
  limit = backend.memory_bytes()
  told = f'{limit / _GIB:,.1f} GiB' if limit else 'not told by the device'
  device = jax.local_devices()[0]
  if device.platform != 'gpu':
    return Finding('memory', told)
  stats: dict[str, int] = {}
  with contextlib.suppress(Exception):  # of back ends that do not tell
    stats = device.memory_stats() or {}
  pool = stats.get('pool_bytes', 0)
  if os.environ.get('XLA_PYTHON_CLIENT_PREALLOCATE', '').lower() != 'false':
    told += ' taken by JAX at its start'
    return Finding(
      'memory',
      told,
      'where another process shares the card, set'
      ' XLA_PYTHON_CLIENT_PREALLOCATE=false, or a part by'
      ' XLA_PYTHON_CLIENT_MEM_FRACTION=.4'
      if pool and limit and pool < limit / 2
      else '',
    )
  return Finding('memory', f'{told}, taken as it is needed')


def _products() -> Finding:
  made = numerics.describe_products('default')
  told = f'float32 is multiplied in {made}'
  return Finding('precision', told)


def _repeats() -> Finding:
  if jax.devices()[0].platform != 'gpu' or determinism.in_force():
    return Finding('same bits each time', 'yes')
  return Finding('same bits each time', 'as a run starts, by its workdir')


def _folder(name: str, place: str) -> Finding:
  """Whether a folder, or the one that it would be made in, can be used."""
  path = places.below_home(place) if place.startswith('~/') else place
  path = pathlib.Path(path).expanduser().absolute()
  there = next(p for p in (path, *path.parents) if p.exists())
  if not there.is_dir():
    return Finding(name, f'{path}: {there} is no folder', 'name another', True)
  try:
    with tempfile.TemporaryDirectory(dir=there) as trial:
      has_locks = locks.has_record_locks(pathlib.Path(trial))
  except OSError as error:
    return Finding(
      name,
      f'{path}: cannot be written to ({error.strerror})',
      'name a folder that you may write to',
      True,
    )
  free = shutil.disk_usage(there).free
  told = f'{path}: {free / _GIB:,.1f} GiB free'
  if free < _LITTLE:
    return Finding(name, told, 'make room, or name a folder on another disk')
  if not has_locks:
    told += ', no locks on this file system: a lease is kept in their place'
  return Finding(name, told)


def _works() -> Iterator[tuple[str, Callable[[], Any], float]]:
  """Name, work and operations of a matrix product and a convolution."""
  cpu = jax.devices()[0].platform == 'cpu'
  n = 1024 if cpu else 8192
  a = jnp.ones((n, n), jnp.float32)
  multiply = jax.jit(lambda x: x @ x)
  yield 'matrix product', lambda: multiply(a), 2.0 * n**3
  batch, side, c = (8, 32, 128) if cpu else (256, 32, 256)
  x, k = jnp.ones((batch, side, side, c)), jnp.ones((3, 3, c, c))
  numbers = ('NHWC', 'HWIO', 'NHWC')
  convolve = jax.jit(
    lambda x, k: jax.lax.conv_general_dilated(
      x, k, (1, 1), 'SAME', dimension_numbers=numbers
    )
  )
  operations = 2.0 * batch * side * side * 9 * c * c
  yield 'convolution', lambda: convolve(x, k), operations


def _rate(work: Callable[[], Any], operations: float, seconds: float) -> float:
  """Operations a second, once it is compiled."""
  jax.block_until_ready(work())
  count, start = 0, time.perf_counter()
  while (took := time.perf_counter() - start) < seconds or not count:
    jax.block_until_ready([work() for _ in range(4)])
    count += 4
  return count * operations / took


__all__ = ['Finding', 'look']
