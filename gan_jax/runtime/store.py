"""Object stores: whole objects below a URL such as `s3://bucket/runs/1`.

What fsspec has a file system for is one: `gs://`, `s3://`, `az://` and so on.
Credentials and endpoints come from the environment, as its back ends take them.
A call that fails is made again, with pauses, until the store has been away for
`PATIENCE` seconds: then it raises `StoreAway`, with the exit code that starts
the same command again. What will not get better by itself (no such bucket, no
permission, no credentials) is raised at once.

A lease keeps other processes out of a folder. Each process announces what it
wants of the folder in an object of its own, then looks for others that want the
same and whose hearts beat: so of two that come at once none or one gets in,
never both. This needs no more of a store than to list what was written, which
all of them do by now; that an object is put only if there is none is not
promised by all, and ignored by some. `locks` does the same with files.
"""

import contextlib
import datetime
import errno
import functools
import json
import logging
import os
import pathlib
import random
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from gan_jax.runtime import files, locks, places, terminal
from gan_jax.runtime.errors import ArgumentError, Error

T = TypeVar('T')
PATIENCE = 600.0  # seconds that a store may be away
_PAUSES = (0.5, 15.0)  # seconds before the first and the last tries
_BEAT, _DEAD, _LOOK = 10.0, 45.0, 1.0  # as those of `locks`
_TRIES = 4  # of two processes that come at once
_AT_ONCE = 16  # objects that are fetched together
_SMALL = 2**25  # bytes of what is put by one call
LEASES = '.lease/'
_EXTRAS = {'s3': 's3', 's3a': 's3', 'gs': 'gs', 'gcs': 'gs'}
# That a store says, or Python; all else may get better by itself.
_FINAL = (
  FileNotFoundError,
  PermissionError,
  FileExistsError,
  IsADirectoryError,
  NotADirectoryError,
  ImportError,
  TypeError,
  AttributeError,
)
_FINAL_NAMES = (
  'DefaultCredentialsError',
  'NoCredentialsError',
  'ParamValidationError',
  'PartialCredentialsError',
  'ProfileNotFound',
)
# Of this machine, not of the store.
_OF_THE_DISK = (
  *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG),
  errno.ENAMETOOLONG,
)


def is_of_the_disk(error: BaseException) -> bool:
  """Whether a disk of this machine refused, not the store."""
  if isinstance(error, shutil.Error):  # of many files, in words
    return files.is_full(error)
  return isinstance(error, OSError) and error.errno in _OF_THE_DISK


def disk_error(url: str, error: BaseException) -> Error:
  """What to tell of it."""
  why = 'no space left on it'
  if isinstance(error, OSError) and error.strerror:
    why = f'{error.strerror}: {error.filename or "no file named"}'
  return Error(
    f'{url}: its copy on this machine cannot be written ({why}); make room'
    ' there, or set TMPDIR or HOME to another disk'
  )


class StoreAway(Error):
  """A store does not answer; the same command goes on when it does."""

  exit_code = 75


class LeaseLost(Error):
  """Another process took the folder."""

  exit_code = 2


class Item(NamedTuple):
  """An object: bytes, what changes with its content, seconds of its writing."""

  size: int
  stamp: str
  time: float | None


class Store:
  """All objects below one URL, by their names below it.

  Attributes:
    url: as it was given, without a slash at its end.
  """

  def __init__(self, url: str, argument: str = 'workdir') -> None:
    """Reaches for nothing yet.

    Args:
      url: of a folder.
      argument: that names it, for messages.

    Raises:
      ArgumentError: for a scheme that is unknown or not installed.
    """
    self.url = url.rstrip('/')
    self._argument = argument
    self._fs, root = _connect(self.url, argument)
    self._root = root.rstrip('/')
    self._deadline: float | None = None
    self._ended = threading.Event()
    self._told = False

  def hurry(self, seconds: float) -> None:
    """From now on nothing is tried for longer than until then."""
    self._deadline = time.monotonic() + seconds

  def give_up(self) -> None:
    """Nothing is tried again."""
    self._ended.set()

  # Calls.

  def _call(self, call: Callable[[], T]) -> T:
    """Calls a store until it answers.

    Raises:
      StoreAway: if it has not for too long.
      OSError: which it answers.
    """
    started, pause = time.monotonic(), _PAUSES[0]
    while True:
      try:
        answer = call()
      except Exception as error:
        if isinstance(error, _FINAL) or type(error).__name__ in _FINAL_NAMES:
          raise
        if is_of_the_disk(error):
          raise disk_error(self.url, error) from error
        away = time.monotonic() - started
        over = away + pause > PATIENCE or self._ended.is_set()
        if self._deadline is not None:
          over = over or time.monotonic() + pause > self._deadline
        if over:
          raise self._away(away, error) from error
        self._tell_once(error)
      else:
        return answer
      self._ended.wait(pause)
      pause = min(2 * pause * random.uniform(0.9, 1.1), _PAUSES[1])

  def _away(self, seconds: float, error: Exception) -> StoreAway:
    return StoreAway(
      f'{self.url} has not answered for {seconds:.0f} s ({_first(error)});'
      ' what was saved in it is whole: run the same command again when it'
      ' answers'
    )

  def _tell_once(self, error: Exception) -> None:
    if not self._told:
      self._told = True
      terminal.tell(
        f'warning: {self.url} does not answer ({_first(error)}); trying for up'
        f' to {PATIENCE:.0f} s',
        sys.stderr,
      )

  @contextlib.contextmanager
  def refusing(self) -> Iterator[None]:
    """Within, what the store refuses is the fault of the argument.

    Raises:
      ArgumentError: saying why it refuses.
    """
    try:
      yield
    except (Error, locks.Held):
      raise
    except Exception as error:
      why = _first(error)
      raise ArgumentError(
        self._argument,
        self.url,
        f'the store refuses ({why}); see that the bucket is there and that the'
        ' credentials in the environment may read and write it',
      ) from error

  def _path(self, name: str) -> str:
    return f'{self._root}/{name}'

  def list(self, prefix: str = '') -> dict[str, Item]:
    """Objects by name: those below a prefix that ends with a slash, or all."""

    def call() -> Any:
      self._fs.invalidate_cache()
      root = self._path(prefix).rstrip('/')
      with contextlib.suppress(FileNotFoundError):
        return self._fs.find(root, detail=True)
      return {}

    found = self._call(call)
    skip = len(self._root) + 1
    return {
      path[skip:]: _item(info)
      for path, info in sorted(found.items())
      if path.startswith(f'{self._root}/') and not path.endswith('/')
    }

  def read(self, name: str) -> bytes | None:
    """An object; None if there is none."""
    try:
      content: bytes = self._call(lambda: self._fs.cat_file(self._path(name)))
    except FileNotFoundError:
      return None
    return content

  def write(self, name: str, content: bytes) -> None:
    """Puts an object, whole or not at all."""
    self._call(lambda: self._fs.pipe_file(self._path(name), content))

  def upload(self, path: pathlib.Path, name: str) -> int:
    """Puts a file, of which a part that is written meanwhile may be left out.

    Returns:
      Its bytes.
    """
    size = path.stat().st_size
    if size <= _SMALL:
      content = path.read_bytes()
      self.write(name, content)
      return len(content)
    self._call(lambda: self._fs.put_file(str(path), self._path(name)))
    return size

  def download(self, name: str, path: pathlib.Path) -> None:
    """Gets an object into a file, whole or not at all.

    Raises:
      FileNotFoundError: if there is none.
    """
    partial = path.with_name(f'.{path.name}.{secrets.token_hex(4)}.partial')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      self._call(lambda: self._fs.get_file(self._path(name), str(partial)))
      os.replace(partial, path)
    finally:
      partial.unlink(missing_ok=True)

  def remove(self, names: Iterable[str]) -> None:
    """Removes objects, those that are there."""
    for path in map(self._path, names):
      with contextlib.suppress(FileNotFoundError):
        self._call(functools.partial(self._fs.rm_file, path))


def at_once(work: Callable[[T], object], items: Iterable[T]) -> Iterator[None]:
  """Does something for each item, some of them at a time.

  Raises:
    Exception: the first that is raised; what was not begun is left.
  """
  pool = ThreadPoolExecutor(_AT_ONCE)
  try:
    for _ in pool.map(work, items):
      yield
  finally:
    pool.shutdown(cancel_futures=True)


def _connect(url: str, argument: str) -> tuple[Any, str]:
  """The file system of a URL, and the path in it.

  Raises:
    ArgumentError: as `Store`.
  """
  import fsspec

  for name in ('fsspec', 'gcsfs', 's3fs'):  # which raise what they log
    logging.getLogger(name).setLevel(logging.CRITICAL)
  scheme = places.scheme_of(url)
  options: dict[str, Any] = {'use_listings_cache': False}
  if scheme == 'local':
    options = {'auto_mkdir': True}
  try:
    fs, root = fsspec.url_to_fs(url, **options)
  except ImportError as error:
    extra = _EXTRAS.get(scheme)
    how = (
      f"pip install 'gan_jax[{extra}]'" if extra else f'install {error.name}'
    )
    remedy = f'{scheme}:// needs a package that is not installed: {how}'
    raise ArgumentError(argument, url, remedy) from error
  except ValueError as error:
    remedy = f'{scheme}:// is no scheme that fsspec knows ({_first(error)})'
    raise ArgumentError(argument, url, remedy) from error
  except Exception as error:
    if type(error).__name__ not in _FINAL_NAMES:
      raise
    raise ArgumentError(argument, url, _first(error)) from error
  return fs, root


def _first(error: BaseException) -> str:
  text = (str(error).strip() or repr(error)).splitlines()[0][:200]
  kind = type(error).__name__
  return text if kind in text else f'{kind}: {text}'


def _item(info: dict[str, Any]) -> Item:
  """Of what a file system says of an object."""
  stamps = ('ETag', 'generation', 'etag', 'md5Hash', 'mtime', 'created')
  stamp = next((str(info[k]) for k in stamps if info.get(k)), '')
  times = ('LastModified', 'updated', 'mtime', 'created')
  when = next((info[k] for k in times if info.get(k)), None)
  if isinstance(when, str):
    when = datetime.datetime.fromisoformat(when)
  if isinstance(when, datetime.datetime):
    when = when.timestamp()
  return Item(int(info.get('size') or 0), stamp, when)


# Leases.


class Lease:
  """Keeps other processes out of a folder, or of some folders in it.

  Attributes:
    confirmed: when it was last seen to hold, as `time.monotonic` has it.
  """

  def __init__(
    self,
    store: Store,
    claims: tuple[str, ...],
    say: Callable[[str], None],
    lost: Callable[[Error], None],
  ) -> None:
    """Takes it.

    Args:
      store: of the folder.
      claims: names in it, of which two processes want different ones; '*' for
        all.
      say: told of a wait.
      lost: told, in another thread, that it does not hold any more.

    Raises:
      locks.Held: if another process has it.
      ArgumentError: if the store refuses.
      StoreAway: if it does not answer.
    """
    self._store, self._claims = store, claims
    self._say, self._lost = say, lost
    self._name = f'{LEASES}{secrets.token_hex(8)}.json'
    self._number, self.confirmed = 0, 0.0
    self._ended = threading.Event()
    self._lock = threading.Lock()
    with store.refusing():
      self._take()

  def _take(self) -> None:
    """Takes it, unless another process has it; tries again if that tries too.

    Raises:
      locks.Held: if another process has it.
    """
    for trial in range(_TRIES):
      self._state = 'taking'
      self._beat()
      self._begin_heart()
      try:
        for name, _ in self._others():
          self._wait_for_end(name)
        with self._lock:
          self._state = 'held'
        self.confirm()
        return
      except locks.Held as held:
        self.release()
        if held.args[1:] != ('taking',) or trial == _TRIES - 1:
          raise
      except BaseException:
        self.release()
        raise
      time.sleep(random.uniform(0, 4.0 * _LOOK * (trial + 1)))

  def _begin_heart(self) -> None:
    self._ended = threading.Event()
    heart = threading.Thread(target=self._keep, args=[self._ended], daemon=True)
    heart.start()

  def _beat(self) -> None:
    self._number += 1
    facts = {**locks.me(), 'state': self._state, 'beat': self._number}
    facts['claims'] = list(self._claims)
    started = time.monotonic()
    self._store.write(self._name, json.dumps(facts).encode())
    self.confirmed = started

  def _read(self, name: str) -> Any:
    """What a lease says; None if it is gone."""
    content = self._store.read(name)
    try:
      return None if content is None else json.loads(content)
    except ValueError:
      return {}

  def _others(self) -> list[tuple[str, Any]]:
    """Leases of other processes that want the same, and what they say."""
    read = [
      (name, self._read(name))
      for name in self._store.list(LEASES)
      if name != self._name
    ]
    return [(name, facts) for name, facts in read if self._excludes(facts)]

  def _excludes(self, facts: Any) -> bool:
    if facts is None:
      return False
    theirs = set(facts.get('claims', '*'))
    both = theirs & set(self._claims)
    return bool(both) or '*' in theirs or '*' in self._claims

  def _wait_for_end(self, name: str) -> None:
    """Removes a lease whose process is no more.

    Raises:
      locks.Held: if its heart beats.
    """
    owner = self._read(name)
    if not locks.is_dead(owner):
      who = locks.name_of(owner) or name
      self._say(f'looking for up to {_DEAD:.0f} s whether {who} is still there')
      deadline = time.monotonic() + _DEAD
      while time.monotonic() < deadline:
        time.sleep(_LOOK)
        now = self._read(name)
        if now is None:
          return
        if now != owner:
          raise locks.Held(locks.name_of(now), now.get('state', ''))
    self._store.remove([name])

  def _keep(self, ended: threading.Event) -> None:
    """Lets the heart beat until the end, or until another took the folder."""
    while not ended.wait(_BEAT):
      try:
        self.confirm()
      except StoreAway:
        continue  # who uploads gives up as well, and says so
      except Exception as error:
        if not ended.is_set() and self._state == 'held':
          known = error if isinstance(error, Error) else None
          self._lost(known or LeaseLost(_first(error)))
        return

  def confirm(self) -> None:
    """Sees that it holds, and lets others see it.

    Raises:
      LeaseLost: if another process took the folder.
      StoreAway: if the store does not answer.
    """
    with self._lock:
      if self._ended.is_set():
        return
      if self._read(self._name) is not None:
        self._beat()
        taken = [x for _, x in self._others() if x.get('state') == 'held']
        if self._state == 'taking' or not taken:
          return
    raise LeaseLost(
      f'another process took {self._store.url} while this one was not heard of'
      f' for {_DEAD:.0f} s; what this one has computed since is not in it'
    )

  def hold(self) -> None:
    """Before something is written: confirms what was not for long.

    Raises:
      LeaseLost, StoreAway: as `confirm`.
    """
    if time.monotonic() - self.confirmed > _DEAD / 2:
      self.confirm()

  def release(self) -> None:
    """Lets others in."""
    self._ended.set()
    with self._lock, contextlib.suppress(Exception):
      self._store.remove([self._name])
