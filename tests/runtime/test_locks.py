"""Locks of a folder: two processes, deleted files, file systems without."""

import contextlib
import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
import types

import pytest

from gan_jax.runtime import locks


@pytest.fixture
def said():
  return []


@pytest.fixture(params=['ENOLCK', 'ENOSYS', 'EOPNOTSUPP', 'no fcntl'])
def refused(request, monkeypatch):
  """A file system without locks, or a system without `fcntl`."""
  monkeypatch.setattr(locks, '_BEAT', 0.05)
  monkeypatch.setattr(locks, '_DEAD', 0.4)
  monkeypatch.setattr(locks, '_LOOK', 0.02)
  monkeypatch.setattr(locks, '_SHORT', 0.5)
  if request.param == 'no fcntl':
    monkeypatch.setattr(locks, 'fcntl', None)
    return

  def flock(file, kind):
    code = getattr(errno, request.param)
    raise OSError(code, os.strerror(code))

  monkeypatch.setattr(fcntl, 'flock', flock)


def hold(folder, said, **options):
  return locks.hold(folder, said.append, **options)


def test_one_process_at_a_time_and_which(tmp_path, said):
  with hold(tmp_path, said):
    with pytest.raises(locks.Held, match=f'process {os.getpid()} on '):
      with hold(tmp_path, said):
        pass
  with hold(tmp_path, said):
    pass
  assert not said


def test_those_that_share_keep_out_who_does_not(tmp_path, said):
  with hold(tmp_path, said, shared=True), hold(tmp_path, said, shared=True):
    with pytest.raises(locks.Held), hold(tmp_path, said):
      pass


@pytest.mark.parametrize('again', [False, True])
def test_whoever_deletes_the_lock_lets_nobody_in(again, tmp_path, said):
  with hold(tmp_path, said):
    (tmp_path / '.lock').unlink()
    if again:
      (tmp_path / '.lock').touch()
    with pytest.raises(locks.Held, match='whose .lock was deleted'):
      with hold(tmp_path, said):
        pass


@pytest.mark.parametrize('kind', ['dangling link', 'link', 'pipe', 'folder'])
def test_what_is_no_plain_file_is_named(kind, tmp_path, said):
  lock = tmp_path / '.lock'
  if kind == 'pipe':
    os.mkfifo(lock)
  elif kind == 'folder':
    lock.mkdir()
  else:
    lock.symlink_to(tmp_path / 'other')
    if kind == 'link':
      (tmp_path / 'other').touch()
  with pytest.raises(locks.NotALock, match='.lock is no plain file; remove it'):
    with hold(tmp_path, said):
      pass
  assert not (tmp_path / 'other').exists() or kind == 'link'


def test_without_locks_a_heart_beats(refused, tmp_path, said):
  with hold(tmp_path, said):
    assert 'the file system has no locks' in said[0] and len(said) == 1
    (lease,) = tmp_path.glob('.lease-*')
    with pytest.raises(locks.Held, match=f'process {os.getpid()} on '):
      with hold(tmp_path, said):
        pass
    assert [lease] == [*tmp_path.glob('.lease-*')]
  assert not [*tmp_path.glob('.lease-*')]


def test_without_locks_some_share(refused, tmp_path, said):
  with hold(tmp_path, said, shared=True), hold(tmp_path, said, shared=True):
    with pytest.raises(locks.Held), hold(tmp_path, said):
      pass


@pytest.mark.parametrize('where', ['here', 'elsewhere', 'cut short'])
def test_the_lease_of_the_dead_is_removed(where, refused, tmp_path, said):
  ended = subprocess.Popen([sys.executable, '-c', ''])
  ended.wait()
  owner = locks.me() | {'pid': ended.pid, 'beat': 3}
  if where == 'elsewhere':
    owner |= {'host': 'node7', 'machine': 'node7 x'}
  lease = tmp_path / '.lease-alone-0123'
  lease.write_text('' if where == 'cut short' else json.dumps(owner))
  with hold(tmp_path, said):
    assert not lease.exists()
  waited = [line for line in said if 'looking for' in line]
  assert len(waited) == (where != 'here')
  if where == 'elsewhere':
    assert f'process {ended.pid} on node7' in waited[0]


def test_who_lost_the_folder_is_stopped(refused, tmp_path, said, monkeypatch):
  stopped = threading.Event()
  monkeypatch.setattr(locks.preemption, 'interrupt_main', stopped.set)
  with hold(tmp_path, said):
    for lease in tmp_path.glob('.lease-*'):
      lease.unlink()
    assert stopped.wait(5)
  assert 'another process took the folder' in said[-1]


def test_lines_are_added_one_after_another(refused, tmp_path):
  path = tmp_path / 'n'
  path.write_text('0')

  def count():
    for _ in range(10):
      with locks.hold_file(path):
        n = int(path.read_text())
        path.write_text(str(n + 1))

  threads = [threading.Thread(target=count) for _ in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert path.read_text() == '30'


def test_who_waits_for_one_after_another_takes_it_from_none(
  refused, tmp_path, monkeypatch
):
  monkeypatch.setattr(locks, '_SHORT', 0.6)
  inside, most = [], []

  def enter():
    for _ in range(2):
      with locks.hold_file(tmp_path / 'n'):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.1)
        inside.pop()

  threads = [threading.Thread(target=enter) for _ in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(most) == 12 and max(most) == 1


def test_a_file_that_a_kill_left_is_nobodys(refused, tmp_path):
  (tmp_path / '.n.busy').touch()
  with locks.hold_file(tmp_path / 'n'):
    pass
  assert not (tmp_path / '.n.busy').exists()


def test_who_holds_a_file_for_long_says_so(refused, tmp_path, monkeypatch):
  monkeypatch.setattr(locks, '_SHORT', 0.03)
  busy = tmp_path / '.n.busy'
  with locks.hold_file(tmp_path / 'n'):
    until, first = time.monotonic() + 10, busy.read_bytes()
    while busy.read_bytes() == first:
      assert time.monotonic() < until
      time.sleep(0.01)
  assert not busy.exists()


def test_a_file_is_waited_for_as_long_as_its_holder_says_so(
  tmp_path, monkeypatch
):
  """As while a large set is fetched."""
  busy, slept = tmp_path / '.n.busy', []
  busy.touch()

  def sleep(seconds):
    slept.append(seconds)
    if len(slept) == 9:
      busy.unlink()
    elif busy.exists():
      busy.write_text(str(len(slept)))

  clock = types.SimpleNamespace(
    sleep=sleep, monotonic=lambda: len(slept) * locks._SHORT / 2
  )
  monkeypatch.setattr(locks, 'time', clock)
  locks._take(busy)
  assert len(slept) == 9


def test_the_folder_itself_may_refuse(tmp_path, said, monkeypatch):
  """NFS locks files alone."""
  flock = fcntl.flock

  def files_alone(file, kind):
    if os.path.isdir(f'/proc/self/fd/{file}'):
      raise OSError(errno.EBADF, 'Bad file descriptor')
    flock(file, kind)

  monkeypatch.setattr(fcntl, 'flock', files_alone)
  with hold(tmp_path, said):
    with pytest.raises(locks.Held), hold(tmp_path, said):
      pass
  assert not said


def test_without_fcntl_the_package_is_imported_and_locks(tmp_path):
  """As on Windows, in a process of its own."""
  code = f"""
import os, pathlib, signal, sys
sys.modules['fcntl'] = sys.modules['resource'] = None  # as on Windows
for name in ('SIGHUP', 'SIGUSR1', 'SIGUSR2'):
  delattr(signal, name)
del os.sched_getaffinity, os.O_NOFOLLOW, os.O_NONBLOCK, os.pwrite, os.getuid
from gan_jax import ablate, evaluate, prepare, report, sample, train
from gan_jax.evaluation.score_file import ScoreFile
from gan_jax.runtime import locks, preemption
with preemption.listen(), locks.hold(pathlib.Path({str(tmp_path)!r}), print):
  ScoreFile({str(tmp_path / 'm.jsonl')!r}).add(dict(
    step=1, key='', model='', primary={{}}))
"""
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert 'no flock on this system' in done.stdout
  assert (tmp_path / 'm.jsonl').read_text().count('\n') == 1


def test_records_can_be_locked_or_not(tmp_path, monkeypatch):
  assert locks.has_record_locks(tmp_path)

  def refuse(file, kind):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(fcntl, 'lockf', refuse)
  assert not locks.has_record_locks(tmp_path)
  assert not [*tmp_path.iterdir()]


def test_nothing_is_left_open(tmp_path, said):
  before = len(os.listdir('/proc/self/fd'))
  with hold(tmp_path, said):
    for _ in range(3):
      with contextlib.suppress(locks.Held), hold(tmp_path, said):
        pass
  assert len(os.listdir('/proc/self/fd')) == before


def test_who_holds_it_is_named_whatever_was_written_before(tmp_path, said):
  (tmp_path / '.lock').write_text('{"pid": 1, "host": "' + 'x' * 200 + '"}')
  with hold(tmp_path, said):
    with pytest.raises(locks.Held, match=f'process {os.getpid()} on '):
      with hold(tmp_path, said):
        pass


def test_a_file_is_changed_by_one_at_a_time_and_the_next_one_waits(tmp_path):
  """By the file system's own locks, which are let go."""
  before = len(os.listdir('/proc/self/fd'))
  with locks.hold_file(tmp_path / 'n'):
    pass
  assert len(os.listdir('/proc/self/fd')) == before
  entered = threading.Event()

  def enter():
    with locks.hold_file(tmp_path / 'n'):
      entered.set()

  thread = threading.Thread(target=enter)
  with locks.hold_file(tmp_path / 'n'):
    thread.start()
    assert not entered.wait(0.1)
  assert entered.wait(10)
  thread.join()


def test_it_is_announced_before_others_are_looked_at(
  refused, tmp_path, said, monkeypatch
):
  """Of two that come at once each sees the other."""
  seen, wait = [], locks._wait_for_end

  def look(path, say):
    seen.append(len([*tmp_path.glob('.lease-*')]))
    wait(path, say)

  monkeypatch.setattr(locks, '_wait_for_end', look)
  (tmp_path / '.lease-alone-0').write_text(json.dumps({'pid': 1, 'beat': 0}))
  with hold(tmp_path, said):
    assert seen == [2]
