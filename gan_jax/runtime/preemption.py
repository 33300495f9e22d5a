"""Preemption signals: received once and answered in order.

A scheduler that takes a machine back sends SIGTERM, SIGUSR1 or SIGUSR2 and
waits a little; a terminal that goes away sends SIGHUP; Ctrl-C is SIGINT. What
is going on is saved at the next step; where there is nothing to save, the
signal ends it at once.
"""

import _thread
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar('T')

_ALWAYS = ('SIGTERM', 'SIGINT')
# Where nobody else waits for them: a scheduler's own handler, `nohup`.
_IF_FREE = ('SIGHUP', 'SIGUSR1', 'SIGUSR2')
_SAME = 1.0  # seconds in which a signal is the one before, sent twice


class Stopped(KeyboardInterrupt):
  """A signal came while there was nothing to save; its name is the message.

  To who calls from Python it is what Ctrl-C is.
  """


_lost: list[BaseException] = []


def raise_again(error: BaseException | None) -> bool:
  """Raises an interruption again that was lost where it came.

  A callback of the garbage collector cannot raise: what a signal raises in one
  is handed to `sys.unraisablehook`, which calls this.

  Returns:
    Whether it is one.
  """
  if not isinstance(error, KeyboardInterrupt):
    return False
  _lost[:] = [error]
  threading.Timer(0.02, interrupt_main).start()
  return True


def interrupt_main() -> None:
  """What Ctrl-C does, from another thread."""
  if hasattr(signal, 'pthread_kill'):  # wakes what waits for the system
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
  else:
    _thread.interrupt_main()


def raise_lost() -> None:
  """Raises what was lost, if this is the signal for it."""
  if _lost:
    raise _lost.pop()


class Listener:
  """Receives signals.

  Attributes:
    received: name of the first signal, empty as long as there was none.
    since: when it came, as `time.monotonic` has it.
    raise_at_once: whether a signal raises `Stopped` where it comes, because
      nobody looks at `received` for now.
  """

  def __init__(self) -> None:
    """Nothing was received."""
    self.received = ''
    self.since = 0.0
    self.raise_at_once = True

  def left(self, deadline: float) -> float:
    """Seconds of a deadline that are left since a signal came, or all."""
    if not self.received:
      return deadline
    return deadline - (time.monotonic() - self.since)

  def attempt(self, work: Callable[[], T]) -> T | None:
    """Does what takes long and can be done again, until a signal comes.

    Returns:
      What came of it; None if a signal came, before or meanwhile.
    """
    if self.received:
      return None
    before, self.raise_at_once = self.raise_at_once, True
    try:
      return work()
    except (Stopped, Exception):  # an import makes another error of it
      if before or not self.received:
        raise
      return None
    finally:
      self.raise_at_once = before


def signals() -> list[signal.Signals]:
  """All that may be received, on this system."""
  numbers = {number.name: number for number in signal.Signals}
  return [numbers[n] for n in (*_ALWAYS, *_IF_FREE) if n in numbers]


def _find_signals() -> list[signal.Signals]:
  """The signals that are received: those of this system that are free."""
  numbers = {number.name: number for number in signal.Signals}
  free = [
    numbers[name]
    for name in _IF_FREE
    if name in numbers and signal.getsignal(numbers[name]) == signal.SIG_DFL
  ]
  return [*(numbers[name] for name in _ALWAYS), *free]


@contextlib.contextmanager
def listen() -> Iterator[Listener]:
  """Receives signals; the second of a kind has its usual effect.

  Unless it comes within a second of the first: a terminal that goes away and a
  scheduler that signals a whole group send it twice. In a thread that is not
  the main one, whose owner receives them, none comes.
  """
  listener = Listener()
  handlers: dict[int, Any] = {}
  times: dict[int, float] = {}

  def receive(number: int, frame: Any) -> None:
    raise_lost()
    now = time.monotonic()
    if number in times and now - times[number] >= _SAME:
      signal.signal(number, handlers[number])
      if callable(handlers[number]):
        handlers[number](number, frame)
      else:
        signal.raise_signal(number)
      return
    times.setdefault(number, now)
    if listener.received:
      return
    listener.received, listener.since = signal.Signals(number).name, now
    if listener.raise_at_once:
      raise Stopped(listener.received)

  for kind in _find_signals():
    try:
      handlers[kind] = signal.signal(kind, receive) or signal.SIG_DFL
    except ValueError:  # not in the main thread
      break
  try:
    yield listener
  except Exception as error:
    if listener.received and listener.raise_at_once:
      raise Stopped(listener.received) from error  # amid an import
    raise
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)
