"""Signals of schedulers, terminals and people, in this very process."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from gan_jax.runtime import preemption

KINDS = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2']


@pytest.fixture
def clock(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(preemption.time, 'monotonic', lambda: now[0])
  return now


@pytest.mark.parametrize('kind', KINDS)
def test_received_and_handed_back(kind, clock):
  number, came = getattr(signal, kind), []
  original = signal.signal(number, signal.SIG_DFL)  # `nohup` is of others
  if kind in ('SIGTERM', 'SIGINT'):  # the others are taken where they are free
    signal.signal(number, lambda *_: came.append(kind))
  before = signal.getsignal(number)
  try:
    with preemption.listen() as listener:
      listener.raise_at_once = False
      assert listener.received == ''
      os.kill(os.getpid(), number)
      os.kill(os.getpid(), number)  # a group and its leader are signalled
      assert listener.received == kind and not came
      assert signal.getsignal(number) != before
      if kind in ('SIGTERM', 'SIGINT'):
        clock[0] += 2
        os.kill(os.getpid(), number)  # somebody is in a hurry
        assert came == [kind]
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before
  finally:
    signal.signal(number, original)


@pytest.mark.parametrize('handler', [signal.SIG_IGN, lambda *_: None])
@pytest.mark.parametrize('kind', ['SIGHUP', 'SIGUSR1', 'SIGUSR2'])
def test_what_somebody_else_waits_for_is_left_to_them(kind, handler):
  """`nohup`, and handlers of a scheduler's own library."""
  number = getattr(signal, kind)
  before = signal.signal(number, handler)
  try:
    with preemption.listen() as listener:
      assert signal.getsignal(number) == handler
      os.kill(os.getpid(), number)
      assert listener.received == ''
  finally:
    signal.signal(number, before)


def test_what_can_be_done_again_ends_at_once():
  with preemption.listen() as listener:
    listener.raise_at_once = False
    assert listener.attempt(lambda: 3) == 3

    def work():
      os.kill(os.getpid(), signal.SIGTERM)
      pytest.fail('went on')  # pragma: no cover

    assert listener.attempt(work) is None
    assert listener.received == 'SIGTERM'
    assert not listener.raise_at_once
    assert listener.attempt(lambda: pytest.fail('begun')) is None


def test_what_an_import_makes_of_a_signal_is_the_signal():
  """NumPy says that it cannot be imported."""

  def work():
    try:
      os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt as error:
      raise ImportError('failed to import') from error

  with pytest.raises(preemption.Stopped, match='SIGTERM'):
    with preemption.listen():
      work()
  with preemption.listen() as listener:
    listener.raise_at_once = False
    assert listener.attempt(work) is None
    with pytest.raises(ImportError):
      raise ImportError('of its own')


def test_an_interruption_that_a_callback_lost_comes_again(monkeypatch):
  """What the garbage collector calls cannot raise."""
  lost = []

  def hook(fault):
    lost.append(preemption.raise_again(fault.exc_value))

  monkeypatch.setattr(sys, 'unraisablehook', hook)

  class Callback:
    def __del__(self):
      os.kill(os.getpid(), signal.SIGINT)
      for _ in range(1000):
        pass

  with pytest.raises(preemption.Stopped):
    with preemption.listen():
      Callback()
      time.sleep(5)
      pytest.fail('went on')  # pragma: no cover
  assert lost == [True]
  assert not preemption.raise_again(ValueError())


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


def test_the_first_signal_is_the_one_that_counts(clock):
  """What is told is why it stops, whatever comes while it saves."""
  with preemption.listen() as listener:
    listener.raise_at_once = False
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    assert listener.received == 'SIGTERM'


def test_who_is_in_a_hurry_is_so_a_second_after_the_first(clock, monkeypatch):
  came = []
  before = signal.signal(signal.SIGTERM, lambda *_: came.append(clock[0]))
  try:
    with preemption.listen() as listener:
      listener.raise_at_once = False
      for clock[0] in (0.0, 0.6, 1.2):
        os.kill(os.getpid(), signal.SIGTERM)
    assert came == [1.2]
  finally:
    signal.signal(signal.SIGTERM, before)


def test_the_second_ends_a_process_that_had_no_handler():
  code = """
import os, signal
from gan_jax.runtime import preemption
preemption._SAME = 0.0
with preemption.listen() as listener:
  listener.raise_at_once = False
  for _ in range(2):
    os.kill(os.getpid(), signal.SIGTERM)
  print('went on')
"""
  done = subprocess.run([sys.executable, '-c', code], capture_output=True)
  assert (done.returncode, done.stdout) == (-signal.SIGTERM, b''), done.stderr


def test_an_error_amid_an_attempt_is_its_own():
  with preemption.listen() as listener:
    listener.raise_at_once = False
    with pytest.raises(ZeroDivisionError):
      listener.attempt(lambda: 1 / 0)
    assert not listener.raise_at_once and not listener.received
