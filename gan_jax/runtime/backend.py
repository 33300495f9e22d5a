"""Devices and memory: what there is, said before it is relied on."""

import contextlib
import os
import pathlib
import re
import sys
from typing import Any

import jax

from gan_jax.runtime.errors import ArgumentError, Error

resource: Any
try:
  import resource
except ImportError:  # of Windows
  resource = None

_CGROUP = '/sys/fs/cgroup/memory'
_CGROUPS = {  # limit, and what is used of it
  f'{_CGROUP}.max': f'{_CGROUP}.current',
  f'{_CGROUP}/memory.limit_in_bytes': f'{_CGROUP}/memory.usage_in_bytes',
}
_GIB = 2**30


def check_devices() -> None:
  """Sees that JAX has a device.

  Raises:
    Error: saying which were asked for.
  """
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:
    settings: Any = jax.config
    platforms = settings.jax_platforms or ''
    reason = str(error).partition(' (set JAX_PLATFORMS')[0]
    if not platforms:
      raise Error(f'JAX finds no device to compute on: {reason}') from error
    raise Error(
      f'JAX_PLATFORMS={platforms}: JAX finds no such device'
      + (f' ({reason})' if reason else '')
      + '; unset it to use what there is, or install the driver and the JAX'
      ' for it (pip install "jax[cuda12]" or "jax[tpu]")'
    ) from error


def memory_bytes() -> int | None:
  """Memory of one device, or of this machine for a CPU; None: not known."""
  device = jax.local_devices()[0]
  if device.platform != 'cpu':
    with contextlib.suppress(Exception):  # of back ends that do not tell
      return int((device.memory_stats() or {})['bytes_limit'])
    return None
  return host_memory_bytes()


def host_memory_bytes() -> int | None:
  """Memory that this process may use at the most; None where it is not known.

  The machine's, or what its control group or its limits leave of it.
  """
  limits: list[int] = []
  with contextlib.suppress(AttributeError, ValueError, OSError):
    limits.append(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
  for name in _CGROUPS:
    with contextlib.suppress(OSError, ValueError):
      limits.append(int(pathlib.Path(name).read_text()))
  limits += _address_space()
  limits = [limit for limit in limits if limit > 0]
  return min(limits) if limits else None


def _address_space() -> list[int]:
  """Bytes that `ulimit -v` grants this process, where it is set."""
  if resource is None:
    return []
  limit, _ = resource.getrlimit(resource.RLIMIT_AS)
  return [] if limit == resource.RLIM_INFINITY else [limit]


def free_bytes() -> int | None:
  """Memory that one device has free; None where it is not known.

  Of a CPU what this machine, or the control group of this process, has left.
  """
  device = jax.local_devices()[0]
  if device.platform != 'cpu':
    with contextlib.suppress(Exception):  # of back ends that do not tell
      stats = device.memory_stats() or {}
      return int(stats['bytes_limit']) - int(stats['bytes_in_use'])
    return None
  free = []
  with contextlib.suppress(OSError, ValueError, IndexError):
    table = pathlib.Path('/proc/meminfo').read_text()
    free.append(1024 * int(table.split('MemAvailable:')[1].split()[0]))
  for limit, used in _CGROUPS.items():
    with contextlib.suppress(OSError, ValueError):
      left = int(pathlib.Path(limit).read_text())
      free.append(max(0, left - int(pathlib.Path(used).read_text())))
  for granted in _address_space():
    with contextlib.suppress(OSError, ValueError, IndexError):
      pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
      free.append(max(0, granted - pages * os.sysconf('SC_PAGE_SIZE')))
  return min(free, default=host_memory_bytes())


def peak_bytes() -> int:
  """The most memory that was in use at once, so far.

  Of the fullest of this process's devices, or of the process itself where
  devices do not tell, as CPUs; 0 where nobody does.

  >>> peak_bytes() > 2**20
  True
  """
  peaks: list[int] = []
  for device in jax.local_devices():
    with contextlib.suppress(Exception):  # of back ends that do not tell
      peaks.append((device.memory_stats() or {})['peak_bytes_in_use'])
  if resource is None:
    return max(peaks, default=0)
  of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  unit = 1 if sys.platform == 'darwin' else 1024
  return max(peaks, default=of_process * unit)


def require_memory(
  argument: str,
  value: object,
  needed: int,
  what: str,
  *,
  host: bool = False,
  free: bool = False,
) -> None:
  """Refuses what cannot fit, before it is made.

  Args:
    argument: that is to be made smaller.
    value: of it.
    needed: bytes, at the least.
    what: they are for.
    host: whether they are in the memory of this machine.
    free: whether only what a device has free now is theirs.

  Raises:
    ArgumentError: if there are fewer.
  """
  limit = host_memory_bytes() if host else memory_bytes()
  limit, there = (free_bytes(), ' free') if free else (limit, '')
  if limit is not None and needed > limit:
    raise ArgumentError(
      argument,
      value,
      f'{what} would take {needed / _GIB:,.1f} GiB at the least, and there are'
      f' {limit / _GIB:,.1f} GiB{there}; use less',
    )


# What XLA says, which calls some of it an internal error.
_EXHAUSTED = ('RESOURCE_EXHAUSTED', 'Out of memory allocating')
_ASKED = re.compile(r'allocat\w+ (\d+) ?bytes|allocate ([\d.]+)([KMG])iB')
_UNITS = {'K': 2**10, 'M': 2**20, 'G': 2**30}


def explain_exhaustion(error: BaseException) -> str:
  """What was asked for and what there is, if memory ran out; '' if not.

  >>> explain_exhaustion(ValueError('no'))
  ''
  >>> error = RuntimeError('Out of memory allocating 1073741824 bytes.')
  >>> explain_exhaustion(error).partition(', cpu')[0]
  'out of memory, 1.00 GiB were asked for at once'
  """
  text = str(error)
  on_host = isinstance(error, MemoryError)
  on_disk = 'No space left' in text  # which some report likewise
  is_full = any(words in text for words in _EXHAUSTED) and not on_disk
  if not on_host and not is_full:
    return ''
  match = _ASKED.search(text)
  words = ['out of memory']
  if match:
    asked = float(match[1] or match[2]) * _UNITS.get(match[3] or '', 1)
    words.append(f'{asked / _GIB:,.2f} GiB were asked for at once')
  limit = host_memory_bytes() if on_host else memory_bytes()
  if limit:
    owner = 'this machine' if on_host else jax.local_devices()[0].device_kind
    words.append(f'{owner} has {limit / _GIB:,.1f} GiB in all')
  return ', '.join(words)


__all__ = [
  'check_devices',
  'explain_exhaustion',
  'free_bytes',
  'host_memory_bytes',
  'memory_bytes',
  'peak_bytes',
  'require_memory',
]
