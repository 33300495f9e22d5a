"""Provenance of a result: command, versions, commit, devices, date."""

import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
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


# What compiles for accelerators, where it is installed.
_PLUGINS = (
  'jax-cuda12-plugin',
  'jax-cuda13-plugin',
  'nvidia-cudnn-cu12',
  'nvidia-cudnn-cu13',
  'nvidia-cublas-cu12',
  'nvidia-cublas',
  'libtpu',
)


def plugin_versions() -> dict[str, str]:
  """Installed versions of what compiles for GPUs and TPUs."""
  return versions(_PLUGINS)


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
  """Installed versions of the packages that a result depends on."""
  installed = {}
  for package in packages:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      installed[package] = importlib.metadata.version(package)
  return installed


def _git(*words: str) -> str:
  """What git says of the checkout that this package runs from."""
  folder = pathlib.Path(__file__).resolve().parent
  answer = subprocess.run(
    ['git', '-C', str(folder), *words],
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
    'processes': jax.process_count(),
    'commit': commit(),
  }
