"""SIGTERM and Ctrl-C: heard once, answered in order."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


class Stopped(BaseException):
  """A signal came while there was nothing to save; its name is the message."""


class Ear:
  """What has been heard.

  Attributes:
    heard: name of the first signal, empty as long as there was none.
    at_once: whether a signal raises `Stopped` where it comes, because nobody
      looks at `heard` for now.
  """

  def __init__(self) -> None:
    """Nothing was heard."""
    self.heard = ''
    self.at_once = True


@contextlib.contextmanager
def listening() -> Iterator[Ear]:
  """Hears SIGTERM and Ctrl-C; the second of a kind has its usual effect."""
  ear = Ear()
  before: dict[int, Any] = {}

  def hear(number: int, frame: Any) -> None:
    del frame
    ear.heard = ear.heard or signal.Signals(number).name
    signal.signal(number, before[number])
    if ear.at_once:
      raise Stopped(ear.heard)

  for number in (int(signal.SIGTERM), int(signal.SIGINT)):
    try:
      before[number] = signal.signal(number, hear)
    except ValueError:  # not in the main thread: its owner hears them
      break
  try:
    yield ear
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
