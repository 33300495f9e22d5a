"""SIGTERM and Ctrl-C, in this very process."""

import os
import signal
import threading

import pytest

from gan_jax.runtime import preemption


def test_received_and_handed_back():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.listen() as listener:
    listener.raise_at_once = False
    assert listener.received == ''
    os.kill(os.getpid(), signal.SIGTERM)
    assert listener.received == 'SIGTERM'
    # The second one has its usual effect.
    assert signal.getsignal(signal.SIGTERM) == before
  assert signal.getsignal(signal.SIGTERM) == before


def test_raised_where_nobody_looks():
  with pytest.raises(preemption.Stopped, match='SIGINT'):
    with preemption.listen():
      os.kill(os.getpid(), signal.SIGINT)
      pytest.fail('went on')  # pragma: no cover


def test_a_thread_leaves_the_signals_alone():
  before, seen = signal.getsignal(signal.SIGTERM), []

  def work():
    with preemption.listen() as listener:
      seen.append((listener.received, signal.getsignal(signal.SIGTERM)))

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [('', before)]
