"""What a process does that has lost the others, without any others."""

import os
import signal
import threading
import time

import jax.numpy as jnp
import pytest

from gan_jax.config import app
from gan_jax.runtime import preemption, rescue
from gan_jax.training import watch


@pytest.fixture
def watched(tmp_path, monkeypatch):
  """A watch that ends no process, and when it would have."""
  monkeypatch.setattr(watch, '_TICK', 0.01)
  codes, watches = [], []

  def end(code):
    if not codes:
      codes.append(code)
    watches[0]._over.set()

  def make(deadline=0.4, index=0):
    watches.append(watch.Watch(tmp_path, index, deadline, end))
    watches[0].hold(7, {'w': jnp.ones(3)}, {})
    return watches[0], codes

  yield make
  watches[0].close()


def wait(truth):
  until = time.monotonic() + 10
  while not truth():
    assert time.monotonic() < until
    time.sleep(0.01)


def test_a_peer_that_is_missed(watched, tmp_path, monkeypatch, capfd):
  monkeypatch.setattr(watch, 'PATIENCE_SECONDS', 0.1)
  one, codes = watched(index=1)
  one.begin()
  wait(lambda: codes)
  assert codes == [app.ERROR]  # it counts as a crash
  assert rescue.find_steps(tmp_path) == [7]
  assert 'no sign of another process' in capfd.readouterr().err


def test_a_slow_step_is_no_loss(watched, monkeypatch):
  monkeypatch.setattr(watch, 'PATIENCE_SECONDS', 0.01)
  one, codes = watched()
  one._longest = 0.05  # as those before it were
  for _ in range(3):
    one.begin()
    time.sleep(0.1)
    one.finish()
  time.sleep(0.1)  # nothing is computed
  assert not codes


def test_a_signal_that_is_not_answered(watched, tmp_path, capfd):
  """Though Python hears none while it waits for a peer."""
  with preemption.listen() as listener:
    listener.raise_at_once = False
    one, codes = watched()
    one.begin()
    os.kill(os.getpid(), signal.SIGUSR2)
    wait(lambda: codes)
  assert codes == [app.SAVED]
  assert rescue.find_steps(tmp_path) == [7]
  assert 'saved at step 7' in capfd.readouterr().err


def test_what_cannot_be_saved_is_a_crash_in_time(watched, monkeypatch):
  """Be it that the disk hangs."""
  released = threading.Event()
  monkeypatch.setattr(rescue, 'write', lambda *_: released.wait(5))
  one, codes = watched()
  thread = threading.Thread(target=one.give_up, args=('', True), daemon=True)
  began = time.monotonic()
  thread.start()
  wait(lambda: codes)
  assert codes == [app.ERROR] and time.monotonic() - began < 3
  released.set()
  thread.join()


def test_nothing_held_is_nothing_saved(watched, tmp_path, capfd):
  one, codes = watched()
  one.held = None
  one.give_up('gone', False)
  assert codes == [app.ERROR] and not rescue.find_steps(tmp_path)


def test_it_leaves_signals_as_they_were(watched):
  before = signal.set_wakeup_fd(-1)
  signal.set_wakeup_fd(before)
  one, _ = watched()
  one.close()
  assert signal.set_wakeup_fd(-1) == before
  signal.set_wakeup_fd(before)
  one.close = lambda: None  # of the fixture
