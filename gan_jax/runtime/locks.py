"""Locks of a folder, on file systems with and without locks of their own.

Where the file system has `flock`, that is the lock, on `.lock` and on the
folder itself, so that whoever deletes `.lock` lets nobody in. Where it refuses
(Lustre without its option, some NFS, some buckets that are mounted as folders;
Windows) each process announces itself in a file of its own, `.lease-...`, which
says who it is and which it writes again every few seconds: a heartbeat.
Whoever finds another one's first announces himself, then looks whether its
heart beats. So of two that come at once none or one gets in, never both.
"""

import contextlib
import errno
import json
import os
import pathlib
import platform
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from gan_jax.runtime import preemption
from gan_jax.runtime.errors import Error

fcntl: Any
try:
  import fcntl
except ImportError:  # Windows
  fcntl = None

Say = Callable[[str], None]
_BEAT = 10.0  # seconds from one heartbeat to the next
_DEAD = 45.0  # seconds without one after which nobody is there any more
_LOOK = 0.5  # seconds between two looks at a heartbeat
_SHORT = 30.0  # seconds after which a lock on a file that rests is nobody's
_LEASE = '.lease-'
_BOOT = '/proc/sys/kernel/random/boot_id'
_HELD = (errno.EAGAIN, errno.EACCES)


class Held(Exception):
  """Another process has the lock; the message says which, if that is known."""


class NotALock(Error):
  """What has the name of the lock is no plain file."""


def open_plain(path: pathlib.Path) -> int:
  """Opens a file to read and write, made if it is not there; its descriptor.

  Neither follows a link nor waits for the other end of a pipe.

  Raises:
    NotALock: if it is a link, a pipe, a folder or a device.
    OSError: if it cannot be opened.
  """
  options = ('O_CLOEXEC', 'O_NOFOLLOW', 'O_NONBLOCK', 'O_BINARY')
  how = os.O_RDWR | os.O_CREAT
  for name in options:
    how |= getattr(os, name, 0)
  error: OSError | None = None
  try:
    file = os.open(path, how, 0o666)
    if stat.S_ISREG(os.fstat(file).st_mode):
      return file
    os.close(file)
  except OSError as caught:
    if not os.path.lexists(path) or path.is_file() and not path.is_symlink():
      raise
    error = caught
  raise NotALock(f'{path} is no plain file; remove it') from error


@contextlib.contextmanager
def hold(
  folder: pathlib.Path, say: Say, *, shared: bool = False
) -> Iterator[None]:
  """Holds a folder against other processes.

  Args:
    folder: that is there.
    say: told, once, where the file system has no locks.
    shared: whether others may hold it too, if they share it as well.

  Raises:
    Held: if another process holds it.
    NotALock: if `.lock` is no plain file.
    OSError: if nothing can be written there.
  """
  with contextlib.ExitStack() as stack:
    file = open_plain(folder / '.lock')
    stack.callback(os.close, file)
    refused = _lock(file, shared)
    if refused is None:
      _lock_folder(folder, shared, stack)
      if not shared:
        _sign(file)
    else:
      say(
        f'{folder}: the file system has no locks ({refused}); files .lease-* in'
        ' it keep other processes out in their place'
      )
      stack.enter_context(_lease(folder, say, shared))
    yield


def has_record_locks(folder: pathlib.Path) -> bool:
  """Whether a file in a folder can be locked as TensorStore does it."""
  if fcntl is None:
    return True  # another system has other locks
  with tempfile.TemporaryFile(dir=folder) as file:
    try:
      fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      return False
  return True


def _lock(file: int, shared: bool, wait: bool = False) -> str | None:
  """Locks an open file; why the file system cannot, if so.

  Raises:
    Held: if another process has locked it.
  """
  if fcntl is None:
    return 'no flock on this system'
  kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
  try:
    fcntl.flock(file, kind | (0 if wait else fcntl.LOCK_NB))
  except OSError as error:
    if error.errno in _HELD:
      raise Held(_read_signature(file)) from error
    return error.strerror or str(error)
  return None


def _lock_folder(
  folder: pathlib.Path, shared: bool, stack: contextlib.ExitStack
) -> None:
  """Locks the folder itself, where that is possible.

  Raises:
    Held: if another process has locked it.
  """
  with contextlib.suppress(OSError):  # a folder cannot be locked on NFS
    itself = os.open(folder, os.O_RDONLY | getattr(os, 'O_CLOEXEC', 0))
    stack.callback(os.close, itself)
    try:
      _lock(itself, shared)
    except Held:
      raise Held('whose .lock was deleted') from None


def me() -> dict[str, Any]:
  """This process: where, and its number there."""
  return {'host': platform.node(), 'pid': os.getpid(), 'machine': _machine()}


def _machine() -> str:
  """Within which the number of a process means the same."""
  words = [platform.node()]
  with contextlib.suppress(OSError):
    words.append(pathlib.Path(_BOOT).read_text().strip())
  with contextlib.suppress(OSError):  # a container may number its own
    words.append(os.readlink('/proc/self/ns/pid'))
  return ' '.join(words)


def _sign(file: int) -> None:
  with contextlib.suppress(OSError):  # it serves a message alone
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(me()).encode(), 0)


def _read_signature(file: int) -> str:
  with contextlib.suppress(OSError, ValueError, AttributeError):
    return name_of(json.loads(os.pread(file, 4096, 0)))
  return ''


def name_of(owner: Any) -> str:
  """What to call a process, of what it says of itself; or nothing."""
  if isinstance(owner, dict) and 'pid' in owner:
    return f'process {owner["pid"]} on {owner.get("host") or "this machine"}'
  return ''


# Leases.


@contextlib.contextmanager
def _lease(folder: pathlib.Path, say: Say, shared: bool) -> Iterator[None]:
  """Announces this process, unless one that it excludes is there.

  Raises:
    Held: if one is.
  """
  kind = 'shared' if shared else 'alone'
  path = folder / f'{_LEASE}{kind}-{secrets.token_hex(8)}'
  ended = threading.Event()
  _beat(path, 0)
  heart = threading.Thread(target=_keep, args=(path, ended, say), daemon=True)
  heart.start()
  try:
    for other in sorted(folder.glob(f'{_LEASE}*')):
      both_share = shared and other.name.startswith(f'{_LEASE}shared')
      if other != path and not both_share:
        _wait_for_end(other, say)
    yield
  finally:
    ended.set()
    heart.join()
    path.unlink(missing_ok=True)


def _beat(path: pathlib.Path, number: int) -> None:
  path.write_text(json.dumps({**me(), 'beat': number}))


def _keep(path: pathlib.Path, ended: threading.Event, say: Say) -> None:
  """Writes the heartbeat until the end, or until another took the folder."""
  number = 0
  while not ended.wait(_BEAT):
    number += 1
    if path.exists():
      with contextlib.suppress(OSError):  # the next one may succeed
        _beat(path, number)
    elif path.parent.is_dir() and not ended.is_set():
      # As Ctrl-C does: who trains saves, and stops.
      say(f'{path} is gone: another process took the folder; stopping')
      preemption.interrupt_main()
      return


def _read_lease(path: pathlib.Path) -> Any:
  """What a lease says; '' where it is being written, None if it is gone."""
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    return None
  except (OSError, ValueError):
    return ''


def _wait_for_end(path: pathlib.Path, say: Say) -> None:
  """Removes a lease whose process is no more.

  Raises:
    Held: if its heart beats.
  """
  owner = _read_lease(path)
  if not is_dead(owner):
    who = name_of(owner) or path
    say(f'looking for up to {_DEAD:.0f} s whether {who} is still there')
    deadline = time.monotonic() + _DEAD
    while time.monotonic() < deadline:
      now = _read_lease(path)
      if now is None:
        return
      if now and owner and now != owner:
        raise Held(name_of(now))
      owner = now or owner
      time.sleep(_LOOK)
  path.unlink(missing_ok=True)


def is_dead(owner: Any) -> bool:
  """Whether a process of this machine has certainly ended."""
  if owner is None:
    return True
  if os.name == 'nt' or not isinstance(owner, dict):
    return False
  if owner.get('machine') != _machine():
    return False
  try:
    os.kill(int(owner['pid']), 0)
  except ProcessLookupError:
    return True
  except (OSError, ValueError, TypeError, OverflowError):
    pass
  return False


# Short waits.


@contextlib.contextmanager
def hold_file(path: pathlib.Path) -> Iterator[None]:
  """Holds a lock beside a file for the moment that it is changed.

  Raises:
    NotALock, OSError: as `hold`.
  """
  # Beside the file: a lock on it would be lost where it is replaced.
  lock = path.with_name(f'.{path.name}.lock')
  file = open_plain(lock)
  try:
    if _lock(file, False, wait=True) is None:
      yield
      return
  finally:
    os.close(file)
  busy, ended = path.with_name(f'.{path.name}.busy'), threading.Event()
  own = _take(busy)
  heart = threading.Thread(target=_renew, args=(busy, own, ended), daemon=True)
  heart.start()
  try:
    yield
  finally:
    ended.set()
    heart.join()
    if _is_of(busy, own):
      busy.unlink(missing_ok=True)


def _is_of(path: pathlib.Path, own: str) -> bool:
  """Whether a file is still that of who wrote `own` into it."""
  try:
    return path.read_text().startswith(own)
  except (OSError, ValueError):
    return False


def _take(path: pathlib.Path) -> str:
  """Makes a file that is not there, and says what it begins with.

  One that stays as it is too long is nobody's.
  """
  own = secrets.token_hex(8)
  deadline, seen = time.monotonic() + _SHORT, b''
  while True:
    try:
      file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
      try:
        os.write(file, own.encode())
      finally:
        os.close(file)
      return own
    except FileExistsError:
      late, now = time.monotonic() > deadline, seen
      with contextlib.suppress(OSError):
        now = path.read_bytes()
      if now == seen and late:
        path.unlink(missing_ok=True)
      if now != seen or late:
        deadline, seen = time.monotonic() + _SHORT, now
      time.sleep(0.02)


def _renew(path: pathlib.Path, own: str, ended: threading.Event) -> None:
  """Shows that who holds a file is still there, if it takes long."""
  number = 0
  while not ended.wait(_SHORT / 3):
    number += 1
    with contextlib.suppress(OSError):  # the next one may succeed
      if _is_of(path, own):
        with path.open('r+') as file:  # not made again, where it was taken
          file.write(f'{own} {number}')


__all__ = [
  'Held',
  'NotALock',
  'has_record_locks',
  'hold',
  'hold_file',
  'is_dead',
  'me',
  'name_of',
]
