"""Settings of JAX that change the numbers of a program from outside of it.

Each is set by an environment variable of its name or by `jax.config.update`.
They are recorded with a run and with its scores.
"""

from collections.abc import Mapping
from typing import Any

import jax

# By name, with JAX's default.
_DEFAULTS: dict[str, Any] = {
  'jax_enable_x64': False,
  'jax_default_matmul_precision': None,
  'jax_default_prng_impl': 'threefry2x32',
  'jax_threefry_partitionable': True,
  'jax_random_seed_offset': 0,
}


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


__all__ = ['changed', 'differences', 'settings']
