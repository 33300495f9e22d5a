"""Bits that are the same each time on a GPU, too.

XLA picks the kernels of a GPU program by timing them and may add with atomic
operations (https://openxla.org/xla/determinism): a run that is started again
may then go on otherwise than it would have. What is set here before the back
end starts makes it exact: kernels without atomics, and those that were picked
the first time, which a file in the folder of the run holds (as text, by its
name's end). CPUs and TPUs need none of it.

JAX keeps compiled programs by the flags of XLA, and the name of that file is
one. So XLA is told a name that is the same in every process and for every run,
on Linux: of a descriptor that each has open on its own folder.
"""

import contextlib
import importlib.util
import os
import pathlib
from typing import Any

import jax

from gan_jax.runtime import places
from gan_jax.runtime.errors import ArgumentError

MODES = ('auto', 'on', 'off')
RESULTS = places.PICKS
_DASHES = '--'  # of flags of XLA
_EXACT = f'{_DASHES}xla_gpu_exclude_nondeterministic_ops=true'
_LOAD = f'{_DASHES}xla_gpu_load_autotune_results_from='
_DUMP = f'{_DASHES}xla_gpu_dump_autotune_results_to='
_OPEN = 789  # the descriptor; far from those that a system hands out
_BY_DESCRIPTOR = '/proc/self/fd'
_PLUGINS = ('jax_cuda12_plugin', 'jax_cuda13_plugin', 'jax_rocm7_plugin')


def flags(folder: str | os.PathLike[str], part: str = '') -> list[str]:
  """Flags of XLA for a run in a folder, which may have been begun there.

  XLA adds to what it loads, and writes all of it after each compilation. A
  process that is killed while it writes leaves the file before as it was.

  Args:
    folder: of the run; made if it is not there.
    part: of the processes that share it, which have folders of their own in it.
  """
  own = pathlib.Path(folder).absolute() / (part and f'{RESULTS}.{part}')
  picked, new = own / f'{RESULTS}.txt', own / f'{RESULTS}.new.txt'
  if _is_whole(new):
    os.replace(new, picked)
  name = _name_by_descriptor(own)
  words = [_EXACT, f'{_DUMP}{name}/{new.name}']
  return (
    [*words, f'{_LOAD}{name}/{picked.name}'] if _is_whole(picked) else words
  )


def picks_of(number: int) -> str:
  """What the names of the files of one process of a job begin with."""
  return f'{RESULTS}.{number}/' if number else f'{RESULTS}.'


def _name_by_descriptor(folder: pathlib.Path) -> str:
  """A name of a folder for this process alone, the same in all of them.

  Its own name where that cannot be: JAX keeps programs for that folder then.
  """
  name = f'{_BY_DESCRIPTOR}/{_OPEN}'
  with contextlib.suppress(OSError):
    folder.mkdir(parents=True, exist_ok=True)
    if not os.path.isdir(_BY_DESCRIPTOR) or os.path.lexists(name):
      return str(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
      os.dup2(handle, _OPEN, inheritable=False)
    finally:
      os.close(handle)
    return name
  return str(folder)


def _is_whole(results: pathlib.Path) -> bool:
  """Whether a file was written to its end; one that was not ends XLA."""
  try:
    text = results.read_text('utf-8')
  except (OSError, UnicodeDecodeError):
    return False
  whole = text.count('{') == text.count('}') and text.endswith('\n')
  return 'results' in text and whole


def request(mode: str, folder: str | os.PathLike[str], part: str = '') -> None:
  """Sets the flags of XLA for this process, if it may compute on a GPU.

  After `jax.distributed.initialize`, before anything is computed.

  Args:
    mode: one of `MODES`; auto: on unless JAX computes already.
    folder: of the run, which holds the kernels that were picked.
    part: of the processes that share it.

  Raises:
    ArgumentError: under `on`, if JAX computes already: it is too late then.
  """
  if mode == 'off' or not _may_be_gpu():
    return
  from jax._src import distributed, xla_bridge  # no public function says it

  if xla_bridge.backends_are_initialized():
    if mode == 'on' and not in_force():
      raise ArgumentError(
        'deterministic',
        mode,
        'JAX has computed in this process already, and XLA reads its flags'
        f' once; start it with XLA_FLAGS={_EXACT}, or call this first',
      )
    return
  own = os.environ.get('XLA_FLAGS', '').split()
  named = {word.partition('=')[0] for word in own}
  # What the user sets has the last word.
  rank = distributed.global_state.process_id
  words = flags(folder, '.'.join(x for x in (part, str(rank or '')) if x))
  new = [w for w in words if w.partition('=')[0] not in named]
  os.environ['XLA_FLAGS'] = ' '.join([*own, *new])


def in_force(device: Any = None) -> bool:
  """Whether a program gives the same bits each time on a device."""
  device = device or jax.devices()[0]
  exact = _EXACT in os.environ.get('XLA_FLAGS', '').split()
  return device.platform != 'gpu' or exact


def _may_be_gpu() -> bool:
  config: Any = jax.config
  platforms = config.jax_platforms or ''
  if platforms:
    return any(p in platforms for p in ('cuda', 'gpu', 'rocm'))
  return any(importlib.util.find_spec(name) for name in _PLUGINS)


__all__ = ['MODES', 'RESULTS', 'flags', 'in_force', 'request']
