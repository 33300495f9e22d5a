"""Cores of this machine as devices, to be said before JAX is imported."""

import os


def use_all_cores() -> None:
  """A virtual device for each core; of no effect on other back ends."""
  flag = '--xla_force_host_platform_device_count'
  words = os.environ.get('XLA_FLAGS', '')
  if flag not in words:
    # Of this process, where the system can say so (Linux).
    own = getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1))
    cores = len(own(0))
    os.environ['XLA_FLAGS'] = f'{words} {flag}={cores}'
