"""Flags under which XLA compiles quickly: most of what the tests cost."""

import os
import subprocess
import sys
from collections.abc import Sequence

# Where fusion emitters are the default (jaxlib 0.10) they are two fifths of a
# compilation; of the rest, a quarter is that a program is taken apart to be
# compiled in threads.
_QUICK = (
  '--xla_cpu_use_fusion_emitters=false',
  '--xla_cpu_parallel_codegen_split_count=1',
)


def flags(there: str) -> str:
  """What is to be added to `XLA_FLAGS`.

  XLA ends the process over a flag that it does not know: another is asked
  first, once, for the workers inherit what it said.
  """
  added = ' --xla_backend_optimization_level=0'
  if any(flag in there for flag in _QUICK):
    return added
  known: Sequence[str] = _QUICK
  if not _knows(_QUICK):
    known = [flag for flag in _QUICK if _knows([flag])]
  return ' '.join([added, *known])


def of_a_process() -> str:
  """`XLA_FLAGS` for a process of its own: one device, quickly compiled."""
  words = os.environ.get('XLA_FLAGS', '').split()
  return ' '.join(word for word in words if 'device_count' not in word)


def _knows(flags: Sequence[str]) -> bool:
  asked = subprocess.run(
    [sys.executable, '-c', 'import jax; jax.devices()'],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ' '.join(flags)},
    capture_output=True,
  )
  return asked.returncode == 0
