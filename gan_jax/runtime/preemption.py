"""Preemption signals: SIGTERM and Ctrl-C, received once and answered in order.

A scheduler that takes a machine back sends SIGTERM and waits a little. What is
going on is saved at the next step; where there is nothing to save, the signal
ends it at once.
"""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


class Stopped(KeyboardInterrupt):
  """A signal came while there was nothing to save; its name is the message.

  To who calls from Python it is what Ctrl-C is.
  """


class Listener:
  """Receives signals.

  Attributes:
    received: name of the first signal, empty as long as there was none.
    raise_at_once: whether a signal raises `Stopped` where it comes, because
      nobody looks at `received` for now.
  """

  def __init__(self) -> None:
    """Nothing was received."""
    self.received = ''
    self.raise_at_once = True


@contextlib.contextmanager
def listen() -> Iterator[Listener]:
  """Receives SIGTERM and Ctrl-C; the second of a kind has its usual effect.

  In a thread that is not the main one, whose owner receives them, none comes.
  """
  listener = Listener()
  handlers: dict[int, Any] = {}

  def receive(number: int, frame: Any) -> None:
    del frame
    listener.received = listener.received or signal.Signals(number).name
    signal.signal(number, handlers[number])
    if listener.raise_at_once:
      raise Stopped(listener.received)

  for number in (int(signal.SIGTERM), int(signal.SIGINT)):
    try:
      handlers[number] = signal.signal(number, receive)
    except ValueError:  # not in the main thread
      break
  try:
    yield listener
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)
