"""Agreement among processes, one alone and as seen from one of several."""

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from gan_jax.runtime import multihost


def test_one_process_agrees_with_itself():
  assert multihost.is_primary()
  assert multihost.broadcast_number(-1) == -1
  assert multihost.broadcast_flag(True) is True
  assert multihost.find_maximum(2) == 2
  assert multihost.all_equal('the same')
  assert multihost.agree_on_dispatch(False, 9) == (False, 9)
  multihost.wait_for_all('nothing')


@pytest.fixture
def second(monkeypatch):
  """Sets what the other of two processes holds; this one is the first."""
  monkeypatch.setattr(jax, 'process_count', lambda: 2)

  def hold(values):
    monkeypatch.setattr(
      multihost_utils,
      'process_allgather',
      lambda mine: np.stack([mine, np.asarray(values, mine.dtype)]),
    )

  return hold


def test_processes_stop_together_and_take_the_fewest_steps(second):
  second([1, 5])
  assert multihost.agree_on_dispatch(False, 9) == (True, 5)
  second([0, 12])
  assert multihost.agree_on_dispatch(False, 9) == (False, 9)


def test_the_maximum_is_of_all_processes(second):
  second(2)
  assert multihost.find_maximum(1) == 2


def test_a_text_that_differs_is_noticed(second):
  second(np.zeros(8))
  assert not multihost.all_equal('a program')


def test_the_first_process_says_it_and_all_come_together(second, monkeypatch):
  met = []
  monkeypatch.setattr(
    multihost_utils, 'broadcast_one_to_all', lambda mine: np.int32(7)
  )
  monkeypatch.setattr(multihost_utils, 'sync_global_devices', met.append)
  assert multihost.broadcast_number(3) == 7
  assert multihost.broadcast_flag(False) is True
  multihost.wait_for_all('saved')
  assert met == ['saved'] and not multihost.is_alone()
