"""Provenance of a result: command, versions, commit, machine, date."""

import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

import jax

_PACKAGES = (
  'gan_jax',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'tensorflow-datasets',
  'grain',
  'numpy',
)


def versions() -> dict[str, str]:
  """Installed versions of the packages that a result depends on."""
  installed = {}
  for package in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      installed[package] = importlib.metadata.version(package)
  return installed


def _git(*words: str) -> str:
  """What git says of the checkout that this package runs from."""
  folder = pathlib.Path(__file__).resolve().parent
  answer = subprocess.run(
    ['git', '-C', str(folder), *words],
    # Without a lock, which a kill would leave in the way of the user's own git.
    env={**os.environ, 'GIT_OPTIONAL_LOCKS': '0'},
    capture_output=True,
    text=True,
    timeout=10,
    check=True,
  )
  return answer.stdout.strip()


def commit() -> str | None:
  """Commit of this package's checkout, `-dirty` if changed; None for none."""
  try:
    changed = _git('status', '-s', '-uno')
    return _git('rev-parse', 'HEAD')[:12] + ('-dirty' if changed else '')
  except (OSError, subprocess.SubprocessError):
    return None


def now() -> str:
  """This moment in UTC, to the second."""
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')


# What a program on an accelerator is compiled and computed by.
_OF_ACCELERATORS = ('nvidia-', 'libtpu', 'jax-cuda', 'jax-rocm')


def machine() -> dict[str, Any]:
  """What computes: kinds of devices, and the software that drives them.

  Two machines of one description give the same bits; two of different ones
  agree to rounding.
  """
  devices = jax.devices()
  facts: dict[str, Any] = {
    'devices': sorted({str(device.device_kind) for device in devices})
  }
  if devices[0].platform == 'cpu':
    return facts | {'processor': _processor()}
  version = str(devices[0].client.platform_version)
  facts['version'] = ' '.join(version.split())
  with contextlib.suppress(OSError):
    driver = pathlib.Path('/proc/driver/nvidia/version').read_text('utf-8')
    facts['driver'] = ' '.join(driver.partition('\n')[0].split())
  return facts | accelerator_versions()


def accelerator_versions() -> dict[str, str]:
  """Installed versions of what compiles for GPUs and TPUs, and runs there."""
  return {
    name: distribution.version
    for distribution in importlib.metadata.distributions()
    if (name := distribution.metadata['Name'].lower()).startswith(
      _OF_ACCELERATORS
    )
  }


def _processor() -> str:
  with contextlib.suppress(OSError):
    for line in pathlib.Path('/proc/cpuinfo').read_text('utf-8').splitlines():
      name, _, value = line.partition(':')
      if name.strip() == 'model name':
        return value.strip()
  return platform.processor() or platform.machine()


def machine_difference(saved: Any, now: dict[str, Any]) -> str:
  """In what a recorded machine is another one; '' where it is not known to be.

  >>> machine_difference(
  ...   {'devices': ['NVIDIA A100'], 'driver': '550'},
  ...   {'devices': ['NVIDIA H100'], 'driver': '550'},
  ... )
  'devices: NVIDIA A100 there, NVIDIA H100 now'
  """
  if not isinstance(saved, dict) or not saved:
    return ''

  def text(value: Any) -> str:
    return ', '.join(map(str, value)) if isinstance(value, list) else str(value)

  return '; '.join(
    f'{name}: {text(saved.get(name, "none"))} there,'
    f' {text(now.get(name, "none"))} now'
    for name in sorted({*saved, *now})
    if saved.get(name) != now.get(name)
  )


def environment() -> dict[str, Any]:
  """Command, versions, platform, devices, processes and commit."""
  return {
    'command': shlex.join(
      [os.path.basename(sys.executable), *sys.orig_argv[1:]]
    ),
    'versions': versions(),
    'python': platform.python_version(),
    'platform': platform.platform(),
    'devices': [str(d.device_kind) for d in jax.devices()],
    'machine': machine(),
    'processes': jax.process_count(),
    'commit': commit(),
  }
