"""SIGTERM and Ctrl-C, in this very process."""

import os
import signal
import threading

import pytest

from gan_jax.runtime import preemption


def test_heard_and_handed_back():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.listening() as ear:
    ear.at_once = False
    assert ear.heard == ''
    os.kill(os.getpid(), signal.SIGTERM)
    assert ear.heard == 'SIGTERM'
    # The second one has its usual effect.
    assert signal.getsignal(signal.SIGTERM) == before
  assert signal.getsignal(signal.SIGTERM) == before


def test_raised_where_nobody_looks():
  with pytest.raises(preemption.Stopped, match='SIGINT'):
    with preemption.listening():
      os.kill(os.getpid(), signal.SIGINT)
      pytest.fail('went on')  # pragma: no cover


def test_a_thread_leaves_the_signals_alone():
  before, seen = signal.getsignal(signal.SIGTERM), []

  def work():
    with preemption.listening() as ear:
      seen.append((ear.heard, signal.getsignal(signal.SIGTERM)))

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [('', before)]
