"""Every test runs strictly: four devices, no rank promotion, no reused key."""

import os
import pathlib

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '')
  + ' --xla_force_host_platform_device_count=4'
  # Most of the tests' time is the compiler's.
  + ' --xla_backend_optimization_level=0'
)

import jax
import pytest

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)


@pytest.fixture(scope='session')
def real_data() -> pathlib.Path:
  """The folder of real data sets named by GAN_JAX_TEST_DATA."""
  folder = os.environ.get('GAN_JAX_TEST_DATA', '')
  if not folder:
    pytest.skip('GAN_JAX_TEST_DATA names no folder of real data sets')
  path = pathlib.Path(folder)
  assert path.is_dir(), f'GAN_JAX_TEST_DATA={folder} is not a folder'
  return path
