"""Object stores: calls that fail and are made again, leases."""

import contextlib
import json
import subprocess
import sys
import threading
import time

import pytest
from helpers import stores

from gan_jax.runtime import locks, store
from gan_jax.runtime.errors import ArgumentError

URL = 'flaky://b/run'


@pytest.fixture
def flaky(monkeypatch):
  monkeypatch.setattr(store, '_PAUSES', (0.01, 0.02))
  monkeypatch.setattr(store, 'PATIENCE', 2.0)
  monkeypatch.setattr(store, '_BEAT', 0.03)
  monkeypatch.setattr(store, '_DEAD', 0.3)
  monkeypatch.setattr(store, '_LOOK', 0.01)
  with stores.flaky() as flaky:
    yield flaky


def away(call, path):
  raise ConnectionResetError('the store is away')


def test_objects(flaky, tmp_path):
  place = store.Store(URL)
  place.write('a/b [1]*.txt', b'one')
  (tmp_path / 'x').write_bytes(b'four')
  assert place.upload(tmp_path / 'x', 'c') == 4
  assert {n: item.size for n, item in place.list().items()} == {
    'a/b [1]*.txt': 3,
    'c': 4,
  }
  assert [*place.list('a/')] == ['a/b [1]*.txt']
  assert place.read('a/b [1]*.txt') == b'one' and place.read('a') is None
  place.download('c', tmp_path / 'deep' / 'y')
  assert (tmp_path / 'deep' / 'y').read_bytes() == b'four'
  with pytest.raises(FileNotFoundError):
    place.download('none', tmp_path / 'z')
  assert sorted(p.name for p in tmp_path.iterdir()) == ['deep', 'x']
  place.remove(['c', 'none'])
  assert [*place.list()] == ['a/b [1]*.txt']
  assert not store.Store('flaky://b/none').list()


def test_a_store_that_comes_back_loses_nothing(flaky, capsys):
  place, calls = store.Store(URL), []

  def fault(call, path):
    calls.append(call)
    if len(calls) < 4:
      away(call, path)

  flaky.fault = staticmethod(fault)
  place.write('a', b'one')
  assert place.read('a') == b'one'
  assert calls == ['put'] * 4 + ['was put', 'get']
  said = capsys.readouterr().err
  assert said.count('flaky://b/run does not answer (ConnectionResetError') == 1


def test_a_store_that_stays_away_starts_the_command_again(flaky, monkeypatch):
  monkeypatch.setattr(store, 'PATIENCE', 0.1)
  flaky.fault = staticmethod(away)
  with pytest.raises(
    store.StoreAway, match='b/run has not answered for .* run the same command'
  ) as raised:
    store.Store(URL).write('a', b'')
  assert raised.value.exit_code == 75


def test_what_does_not_get_better_is_said_at_once(flaky):
  def denied(call, path):
    calls.append(call)
    raise PermissionError('Forbidden')

  calls = []
  flaky.fault = staticmethod(denied)
  place = store.Store(URL, 'data_dir')
  with pytest.raises(
    ArgumentError, match='data_dir=flaky://b/run.*refuses .*Forbidden.*creden'
  ):
    with place.refusing():
      place.write('a', b'')
  assert calls == ['put']


def test_schemes_that_are_not_there(monkeypatch):
  with pytest.raises(ArgumentError, match='nix:// is no scheme that fsspec'):
    store.Store('nix://b/x')
  for scheme in ('s3', 'gs'):
    monkeypatch.setitem(sys.modules, 's3fs', None)
    monkeypatch.setitem(sys.modules, 'gcsfs', None)
    with pytest.raises(
      ArgumentError, match=rf"pip install 'gan_jax\[{scheme}\]'"
    ):
      store.Store(f'{scheme}://b/x')


# Leases.


@contextlib.contextmanager
def leased(claims=('*',), lost=lambda error: None):
  lease = store.Lease(store.Store(URL), claims, lambda text: None, lost)
  try:
    yield lease
  finally:
    lease.release()


def test_one_process_at_a_time_and_which(flaky):
  with leased():
    time.sleep(0.4)  # longer than a heart may be silent
    with pytest.raises(locks.Held, match='process .* on '):
      with leased():
        pass
    assert len(store.Store(URL).list('.lease/')) == 1
  with leased():
    pass
  assert not store.Store(URL).list()


@pytest.mark.parametrize(
  'claims, free',
  [(('programs/001',), True), (('programs/000',), False), (('*',), False)],
)
def test_processes_that_want_other_folders_share(claims, free, flaky):
  with leased(('programs/000', 'programs/002')):
    refused = contextlib.nullcontext() if free else pytest.raises(locks.Held)
    with refused, leased(claims):
      pass


def owner(**facts):
  ended = subprocess.Popen([sys.executable, '-c', ''])
  ended.wait()
  facts = {**locks.me(), 'pid': ended.pid, 'beat': 3, 'state': 'held', **facts}
  return json.dumps({'claims': ['*'], **facts}).encode()


@pytest.mark.parametrize('where', ['here', 'elsewhere', 'cut short'])
def test_the_lease_of_the_dead_is_removed(where, flaky):
  elsewhere = {'host': 'n7', 'machine': 'n7 x'} if where == 'elsewhere' else {}
  content = b'{' if where == 'cut short' else owner(**elsewhere)
  store.Store(URL).write('.lease/0123.json', content)
  started = time.monotonic()
  with leased():
    assert len(store.Store(URL).list('.lease/')) == 1
  assert (time.monotonic() - started < 0.3) == (where == 'here')


def test_two_that_come_at_once_never_both_get_in(flaky):
  inside, most, refused = [], [], []
  together = threading.Barrier(3)

  def come():
    together.wait()
    try:
      with leased():
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.3)
        inside.pop()
    except locks.Held:
      refused.append(1)

  threads = [threading.Thread(target=come) for _ in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert most and set(most) == {1} and len(most) + len(refused) == 3


@pytest.mark.parametrize('other', [['.lease/other.json'], []])
def test_who_was_not_heard_of_loses_it_and_writes_nothing_more(other, flaky):
  """As a process that was stopped for a minute, whom another took for dead."""
  lost = []
  with leased(lost=lost.append) as lease:
    (name,) = store.Store(URL).list('.lease/')
    store.Store(URL).remove([name])
    for taken in other:  # which may have come and gone
      store.Store(URL).write(taken, owner())
    lease.confirmed = 0.0
    with pytest.raises(store.LeaseLost, match='another process took flaky://'):
      lease.hold()
    deadline = time.monotonic() + 5
    while not lost and time.monotonic() < deadline:
      time.sleep(0.01)
    assert [*store.Store(URL).list()] == other
  assert isinstance(lost[0], store.LeaseLost)


def test_a_store_that_was_away_does_not_cost_the_lease(flaky):
  lost = []
  with leased(lost=lost.append) as lease:
    flaky.fault = staticmethod(away)
    time.sleep(0.4)
    flaky.fault = staticmethod(lambda call, path: None)
    lease.confirm()
    assert not lost
