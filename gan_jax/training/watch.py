"""What a process does when the others of its job are lost.

A collective computation waits for a peer for ever, and Python hears no signal
meanwhile. A thread watches: when a step takes far longer than any before, or a
signal is not answered in time, it saves what this process holds, and ends it.
"""

import os
import pathlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from gan_jax.config import app
from gan_jax.runtime import preemption, rescue, terminal

PyTree = Any
# Without a sign of a peer, at the least; JAX itself gives up after 60 or more,
# with nothing saved.
PATIENCE_SECONDS, PATIENCE_STEPS = 40.0, 20.0
_TICK = 0.1


class Watch:
  """Watches the main thread while it computes with others.

  Attributes:
    held: what would be saved.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    index: int,
    deadline: float,
    end: Callable[[int], Any] = os._exit,
  ) -> None:
    """Begins to watch, in the main thread.

    Args:
      folder: of the run.
      index: of this process, which writes after those before it.
      deadline: seconds from a signal, or from when a peer is missed, to the
        end of this process.
      end: ends the process.
    """
    self._folder, self._index, self._deadline = folder, index, deadline
    self._end = end
    self.held: rescue.Held | None = None
    self._since: float | None = None
    self._longest = 0.0
    self._lock = threading.Lock()
    self._over = threading.Event()
    self._read, self._write = socket.socketpair()
    for end_of_pair in (self._read, self._write):
      end_of_pair.setblocking(False)
    self._numbers = {int(n) for n in preemption.signals()}
    self._before = signal.set_wakeup_fd(
      self._write.fileno(), warn_on_full_buffer=False
    )
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def hold(self, step: int, state: PyTree, meta: dict[str, Any]) -> None:
    """What would be saved from now on."""
    self.held = rescue.hold(step, state, meta)

  def begin(self) -> None:
    """A computation with the others begins."""
    self._since = time.monotonic()

  def finish(self) -> None:
    """It has ended."""
    if self._since is not None:
      self._longest = max(self._longest, time.monotonic() - self._since)
    self._since = None

  def patience(self) -> float:
    """Seconds that a computation may take."""
    return max(PATIENCE_SECONDS, PATIENCE_STEPS * self._longest)

  def close(self) -> None:
    """Watches no more."""
    signal.set_wakeup_fd(self._before)
    self._over.set()
    self._thread.join()
    self._read.close()
    self._write.close()

  def _signalled(self) -> bool:
    try:
      return bool(self._numbers & set(self._read.recv(256)))
    except OSError:
      return False

  def _run(self) -> None:
    told: float | None = None
    while not self._over.wait(_TICK):
      now = time.monotonic()
      if told is None and self._signalled():
        told = now
      since = self._since
      if told is not None and now - told > self._deadline / 2:
        self.give_up('a signal came, and another process does not answer', True)
      elif since is not None and now - since > self.patience():
        self.give_up(
          f'no sign of another process for {now - since:.0f} seconds', False
        )

  def give_up(self, reason: str, told: bool) -> None:
    """Saves what is held, and ends the process.

    Args:
      reason: is printed.
      told: whether it was to end anyway.
    """
    with self._lock:  # the main thread may come here as well
      last = threading.Timer(self._deadline / 2, self._end, [app.ERROR])
      last.daemon = True
      last.start()
      saved = self._save(reason)
      last.cancel()
      self._end(app.SAVED if told and saved else app.ERROR)

  def _save(self, reason: str) -> bool:
    if self.held is None:
      terminal.tell(f'error: {reason}; nothing is held', sys.stderr)
      return False
    held = self.held
    # All that live hold the same: the first of them writes it.
    time.sleep(min(0.2 * self._index, self._deadline / 8))
    try:
      rescue.write(self._folder, held)
    except Exception as error:  # of a disk, or of a device that is lost, too
      text = (str(error) or repr(error)).splitlines()[0]
      terminal.tell(f'error: {reason}; not saved: {text}', sys.stderr)
      return False
    terminal.tell(
      f'error: {reason}; saved at step {held.step}; run the same command again',
      sys.stderr,
    )
    return True
