"""Flags under which XLA compiles quickly: most of what the tests cost."""

import os
import subprocess
import sys

# Where fusion emitters are the default (jaxlib 0.10) they are two fifths of a
# compilation.
_PLAIN = ' --xla_cpu_use_fusion_emitters=false'


def flags(there: str) -> str:
  """What is to be added to `XLA_FLAGS`.

  XLA ends the process over a flag that it does not know: another is asked
  first, once, for the workers inherit what it said.
  """
  added = ' --xla_backend_optimization_level=0'
  if _PLAIN in there:
    return added
  asked = subprocess.run(
    [sys.executable, '-c', 'import jax; jax.devices()'],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': _PLAIN.strip()},
    capture_output=True,
  )
  return added if asked.returncode else added + _PLAIN
