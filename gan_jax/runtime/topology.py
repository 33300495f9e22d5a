"""Devices to compile for that this machine does not have.

JAX's plugins compile for a description of a device: of a GPU its numbers as XLA
counts them, of a TPU the name of a slice.
"""

import os
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from gan_jax.runtime.cards import Target
from gan_jax.runtime.errors import ArgumentError, Error

# Kernels of a GPU program are otherwise chosen by timing them on the card.
OPTIONS: dict[str, dict[str, Any]] = {
  'cuda': {'xla_gpu_autotune_level': 0},
  'tpu': {},
}
# As `determinism` asks for them.
_EXACT = {'xla_gpu_exclude_nondeterministic_ops': True}
_NEEDED = {'cuda': ('cuda12', 'cuda12` or `cuda13'), 'tpu': ('tpu', 'tpu')}
# It asks no metadata server what it runs on, and other processes may compile.
_TPU_SETTINGS = {
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
_USED = re.compile(r'Used ([\d.]+\w*) of ([\d.]+\w*) (?:hbm|HBM)')


def use_no_device() -> None:
  """Leaves the accelerators of this machine to others, before JAX starts."""
  jax.config.update('jax_platforms', 'cpu')


def make_mesh(target: Target) -> Mesh:
  """A mesh over the devices of a target, to lower and compile programs for.

  Raises:
    ArgumentError: if JAX's plugin for it is not installed, or there is no such
      slice.
  """
  return Mesh(np.asarray(_devices(target)), ('data',))


def _devices(target: Target) -> list[Any]:
  card, shape = target.card, target.shape
  platform: str = card.platform
  try:
    if platform == 'cuda':
      options = {'target_config': card.xla}
      size = '1x' + 'x'.join(map(str, shape))  # slices x hosts x cards
      return list(_describe('', platform, topology=size, **options))
    for name, value in _TPU_SETTINGS.items():
      os.environ.setdefault(name, value)
    size = 'x'.join(map(str, shape))
    name = f'{card.name}:{size}'
    if shape == (1, 1):
      return list(_describe(name, platform, chips_per_host_bounds=(1, 1, 1)))
    return list(_describe(name, platform))
  except (RuntimeError, NotImplementedError, ValueError) as error:
    raise _explain(target, error) from error


def _describe(name: str, platform: str, **options: Any) -> Any:
  return topologies.get_topology_desc(name, platform, **options).devices


def _explain(target: Target, error: Exception) -> ArgumentError:
  """What is wrong: a plugin that is not there, or the shape of a slice."""
  text = ' '.join(str(error).split())
  extra, extras = _NEEDED[target.card.platform]
  if isinstance(error, NotImplementedError) or 'not installed' in text:
    remedy = (
      f"JAX's plugin for it is not installed; pip install"
      f' "gan_jax[{extra}]" (extra `{extras}`); no such device is needed'
    )
  else:
    remedy = f'cannot be described to XLA: {text[:200]}'
  return ArgumentError('compile_for', target.text, remedy)


class DoesNotFit(Error):
  """The compiler finds no room for a program; the message has its numbers."""


def compile_lowered(lowered: Any, target: Target, exact: bool = True) -> Any:
  """Compiles what was lowered for devices of `make_mesh`.

  Args:
    lowered: by JAX.
    target: whose devices they are.
    exact: whether a GPU is to compute the same bits each time.

  Raises:
    DoesNotFit: if the compiler itself finds no room.
  """
  options = dict(OPTIONS[target.card.platform])
  if exact and target.card.platform == 'cuda':
    options |= _EXACT
  try:
    return lowered.compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    used = _USED.search(str(error))
    numbers = f'{used[1]}B of {used[2]}B' if used else 'more than there is'
    raise DoesNotFit(f'the program would use {numbers}') from error
