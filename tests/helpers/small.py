"""The smallest runs that are whole runs, for tests of all that is around them.

What they cost is the compiler's time: one hidden layer, a few units.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import sys
from collections.abc import Iterator
from typing import Any

from gan_jax.config.schema import Config

RING = Config(
  dataset='ring',
  network='mlp',
  width=8,
  depth=1,
  batch_size=8,
  steps=12,
  log_every=4,
  sample_every=100,
  checkpoint_every=6,
  devices=1,
  report=False,
)
_IMAGES: dict[str, Any] = dict(dataset='digits', flip=True, num_samples=4)


def ring(**changes: Any) -> Config:
  """A density's: two MLPs in the plane."""
  return dataclasses.replace(RING, **changes)


def digits(**changes: Any) -> Config:
  """An image set's: the same, of the digits that come with the package."""
  return dataclasses.replace(RING, **(_IMAGES | changes))


def dcgan(**changes: Any) -> Config:
  """The same with convolutions, whose compilation takes seconds."""
  return digits(**(dict(network='dcgan', width=4, depth=0) | changes))


class _Signalling:
  """A stream that sends a signal to this process once it is told a text."""

  def __init__(self, stream: Any, text: str, number: int) -> None:
    self._stream, self._text, self._number = stream, text, number

  def write(self, text: str) -> int:
    count: int = self._stream.write(text)
    if self._text and self._text in text:
      self._text = ''
      os.kill(os.getpid(), self._number)
    return count

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


@contextlib.contextmanager
def signal_when(text: str, number: int = signal.SIGTERM) -> Iterator[None]:
  """Within, a signal comes when standard error says this, once."""
  before = sys.stderr
  sys.stderr = _Signalling(before, text, number)  # type: ignore[assignment]
  try:
    yield
  finally:
    sys.stderr = before


def final(path: str | pathlib.Path) -> tuple[int, str]:
  """Step and bits of the newest state of a run."""
  from gan_jax.runtime import checkpoint
  from gan_jax.training import restore

  run = restore.open_run(path)
  return run.step, checkpoint.digest(run.state)


def rows(path: str | pathlib.Path) -> list[dict[str, Any]]:
  """Rows of a run's log, without what a clock said."""
  from gan_jax.training import writers

  timed = ('speed/', 'time/', 'data/wait')
  return [
    {k: v for k, v in row.items() if not k.startswith(timed)}
    for row in writers.read_rows(pathlib.Path(path) / 'stats.jsonl')
  ]
