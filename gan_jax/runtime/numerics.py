"""Settings of JAX that change the numbers of a program from outside of it.

Each is set by an environment variable of its name or by `jax.config.update`.
They are recorded with a run and with its scores.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax

from gan_jax.runtime.errors import ArgumentError

# By name, with JAX's default.
_DEFAULTS: dict[str, Any] = {
  'jax_enable_x64': False,
  'jax_default_matmul_precision': None,
  'jax_default_prng_impl': 'threefry2x32',
  'jax_threefry_partitionable': True,
  'jax_random_seed_offset': 0,
}


PRECISIONS = ('default', 'bfloat16', 'tensorfloat32', 'highest')
_AMPERE = 8.0  # the first compute capability that has TF32
# How products of float32 are computed, by the precision that is asked for.
_ON_TPU = {
  'low': 'one product of bfloat16',
  'middle': 'three products of bfloat16',
  'high': 'six products of bfloat16, as exact as float32',
}
_LEVELS = {
  'default': 'low',
  'fastest': 'low',
  'bfloat16': 'low',
  'high': 'middle',
  'tensorfloat32': 'middle',
  'bfloat16_3x': 'middle',
  'highest': 'high',
  'float32': 'high',
}


def check_precision(argument: str, value: str) -> None:
  """Refuses a precision of products that there is not.

  Raises:
    ArgumentError: naming those that there are.
  """
  if value not in PRECISIONS:
    raise ArgumentError(argument, value, f'use one of {", ".join(PRECISIONS)}')


def multiplying(precision: str) -> contextlib.AbstractContextManager[Any]:
  """Traces products of float32 at a precision; at JAX's own by `default`."""
  if precision == 'default':
    return contextlib.nullcontext()
  context: contextlib.AbstractContextManager[Any] = (
    jax.default_matmul_precision(precision)
  )
  return context


def describe_products(precision: str, device: Any = None) -> str:
  """What a device makes of products of float32.

  Args:
    precision: one of `PRECISIONS`.
    device: of JAX; None: the first.

  >>> describe_products('highest')
  'float32'
  """
  device = device or jax.devices()[0]
  if precision == 'default':
    config: Any = jax.config
    precision = config.jax_default_matmul_precision or precision
  level = _LEVELS.get(precision)
  if level is None:  # a name of an algorithm, or of a later JAX
    return precision
  if device.platform == 'tpu':
    return _ON_TPU[level]
  if device.platform == 'gpu' and level != 'high':
    capability = getattr(device, 'compute_capability', None)
    if capability is None or float(capability) >= _AMPERE:
      return 'TF32'
  return 'float32'


def settings() -> dict[str, Any]:
  """The settings in force, by name."""
  return {name: getattr(jax.config, name) for name in _DEFAULTS}


def changed() -> dict[str, Any]:
  """The settings in force that are not JAX's defaults."""
  return {k: v for k, v in settings().items() if v != _DEFAULTS[k]}


def differences(saved: Mapping[str, Any]) -> list[str]:
  """A line for each recorded setting that is another one now."""
  lines = []
  for name, value in settings().items():
    if name in saved and saved[name] != value:
      was = saved[name]
      remedy = f'set {name.upper()}={was}'
      if was == _DEFAULTS[name]:
        remedy = f'unset {name.upper()}'
      lines.append(f'{name}: {was} there, {value} now ({remedy})')
  return lines


__all__ = [
  'PRECISIONS',
  'changed',
  'check_precision',
  'describe_products',
  'differences',
  'multiplying',
  'settings',
]
