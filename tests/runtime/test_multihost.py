"""Agreement among processes, one alone and as seen from one of several."""

import jax
import numpy as np
import pytest
from jax._src import distributed
from jax.experimental import multihost_utils

from gan_jax.runtime import multihost
from gan_jax.runtime.errors import Error


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


def join(monkeypatch, client, number, count):
  """Makes this process one of a job; what JAX knows of it."""
  job = distributed.global_state
  monkeypatch.setattr(job, 'client', client)
  monkeypatch.setattr(job, 'process_id', number)
  monkeypatch.setattr(job, 'num_processes', count)
  return job


def test_one_that_works_apart_is_alone(second, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  here = jax.devices()[:1]
  monkeypatch.setattr(jax, 'devices', lambda: 2 * here)
  monkeypatch.setattr(jax, 'local_devices', lambda: here)
  join(monkeypatch, object(), 1, 2)
  assert not (multihost.is_alone() or multihost.is_primary())
  assert not multihost.is_first() and len(multihost.devices()) == 2
  with multihost.apart():
    assert multihost.is_alone() and multihost.is_primary()
    assert multihost.is_first() and multihost.is_apart()
    assert multihost.devices() == here
    assert multihost.agree_on_dispatch(False, 9) == (False, 9)
    assert multihost.broadcast_number(3) == 3
    assert multihost.tell_others('a') == 'a'
    multihost.meet_others('nobody')
    multihost.wait_for_all('nobody')
    assert (multihost.number(), multihost.count()) == (1, 2)
    assert not jax.distributed.is_initialized()
    with multihost.apart():
      assert (multihost.number(), multihost.count()) == (1, 2)
    assert multihost.is_apart() and not jax.distributed.is_initialized()
    multihost.check_together()
  assert jax.distributed.is_initialized()
  multihost.check_together()
  monkeypatch.setattr(jax, 'process_count', lambda: 1)
  with pytest.raises(Error, match='has computed apart.*start another process'):
    multihost.check_together()
  assert not multihost.is_apart()


class Notes:
  """The client of JAX's service, which keeps texts by key."""

  def __init__(self):
    self.texts = {}

  def key_value_set(self, key, text, allow_overwrite=False):
    assert allow_overwrite or key not in self.texts
    self.texts[key] = text

  def key_value_dir_get(self, prefix):
    return [(k, v) for k, v in self.texts.items() if k.startswith(prefix)]


def test_a_board_has_a_text_of_each_process(monkeypatch):
  job = join(monkeypatch, Notes(), 0, 12)
  first, second = multihost.Board(), multihost.Board()
  first.write('1 a b')
  job.process_id = 11
  with multihost.apart():
    first.write('')
    second.write('c')
  assert first.read() == {0: '1 a b', 11: ''} and second.read() == {11: 'c'}
  first.write('75')
  assert first.read()[11] == '75'
