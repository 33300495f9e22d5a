"""A folder of this machine that stands for one in an object store.

What writes and reads a run needs a file system: locks, renames, appending,
memory maps. So it works in a scratch folder, and whole objects are moved
between that and the store: what is there is fetched at the start, and a thread
puts what is new, a checkpoint when it is whole, the rest once a minute.

At any moment the store holds what a kill could have left on a disk. In each
round the files that say whose the folder is (`OWNERS`) are put first, then logs
and samples, then checkpoints, then what speaks of them (`STATEMENTS`), as it
was before they were listed. Of a checkpoint a manifest is put last, with size
and hash of every file: without it there is no checkpoint. What the run deletes
is deleted after that, manifests first.

Several processes of one job have a folder each. The first one takes the lease
(`store.Lease`) and writes; the others fetch what it found.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gan_jax.runtime import locks, preemption, terminal
from gan_jax.runtime.errors import Error
from gan_jax.runtime.store import (
  Item,
  Lease,
  LeaseLost,
  Store,
  StoreAway,
  at_once,
  disk_error,
  is_of_the_disk,
)

PERIOD = 60.0  # seconds from one round to the next
_TICK = 1.0  # seconds from one look for a checkpoint to the next
_SHARE = 20.0  # a round takes this part of the time, at the most
_OLD = 60.0  # seconds after which a folder that nobody holds is nobody's
OWNERS = ('config.flags', 'plan.json')  # say whose a folder is
STATEMENTS = ('checkpoints.json', 'results.json', 'run.json')
ADDED = 'metrics.added/'  # what others than the run add to metrics.jsonl
_ADDED = re.compile(r'(?P<folder>(?:.*/)?)metrics\.added/[^/]+')
_BUNDLE = re.compile(r'(?P<bundle>(?:.*/)?checkpoints/\d+)/(?P<file>.+)')
_MANIFEST = re.compile(r'(?P<bundle>(?:.*/)?checkpoints/\d+)\.manifest\.json')
_SCRATCH = 'gan_jax-scratch-'
_STAGED = '.staged'
GONE = '.gone'  # to which a run renames checkpoints in the place of deleting


class Stat(NamedTuple):
  """What changes with a file: bytes (of a folder, its number), nanoseconds."""

  size: int
  time: int


# Scratch folders.


@contextlib.contextmanager
def scratch() -> Iterator[pathlib.Path]:
  """A folder of this process, below $TMPDIR; those of killed ones go."""
  base = pathlib.Path(tempfile.gettempdir())
  for old in base.glob(f'{_SCRATCH}*'):
    with contextlib.suppress(OSError, locks.Held, Error):
      status = old.stat()
      # One that has just been made is not locked yet.
      is_old = time.time() - status.st_mtime > _OLD
      if is_old and status.st_uid == os.getuid():
        with locks.hold(old, lambda text: None):
          shutil.rmtree(old, ignore_errors=True)
  folder = pathlib.Path(tempfile.mkdtemp(prefix=_SCRATCH))
  try:
    with locks.hold(folder, lambda text: None):
      yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)


# What is in the store.


class Content(NamedTuple):
  """Objects of a folder, by kind.

  Attributes:
    files: that stand for themselves.
    bundles: whole checkpoints, the objects of each.
    halves: objects of checkpoints that are not whole.
  """

  files: dict[str, Item]
  bundles: dict[str, list[str]]
  halves: list[str]


def look(store: Store) -> Content:
  """What a store holds of a folder, leases apart."""
  items = {name: item for name, item in store.list().items() if name[:1] != '.'}
  whole = {m['bundle'] for m in map(_MANIFEST.fullmatch, items) if m}
  bundles: dict[str, list[str]] = {bundle: [] for bundle in sorted(whole)}
  files, halves = dict[str, Item](), list[str]()
  for name, item in items.items():
    match = _BUNDLE.fullmatch(name)
    if match and match['bundle'] in whole:
      bundles[match['bundle']].append(name)
    elif match:
      halves.append(name)
    elif not _MANIFEST.fullmatch(name):
      files[name] = item
  return Content(files, bundles, halves)


def manifest_of(bundle: str) -> str:
  """Name of the object that says that a checkpoint is whole."""
  return f'{bundle}.manifest.json'


def _hash(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def fetch_bundle(store: Store, bundle: str, folder: pathlib.Path) -> bool:
  """Fetches a checkpoint; whether it is there, by the name of its step.

  A file that is not what its manifest says is fetched again, once, and then
  left as it is, for who reads it to find, to name and to pass over.
  """
  content = store.read(manifest_of(bundle))
  if content is None:
    return False
  try:
    manifest: dict[str, list[Any]] = json.loads(content)['files']
  except (ValueError, KeyError, TypeError):
    manifest = {}
  place = folder / bundle
  partial = place.with_name(f'.{place.name}.fetched')
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)

  def get(name: str) -> None:
    path, (size, digest) = partial / name, manifest[name]
    for _ in range(2):
      with contextlib.suppress(FileNotFoundError):
        store.download(f'{bundle}/{name}', path)
        if path.stat().st_size == size and _hash(path) == digest:
          break

  for _ in at_once(get, manifest):
    pass
  if store.read(manifest_of(bundle)) is None:  # it is being deleted
    shutil.rmtree(partial, ignore_errors=True)
    return False
  shutil.rmtree(place, ignore_errors=True)
  os.replace(partial, place)
  return True


def fetch(
  store: Store,
  folder: pathlib.Path,
  wanted: Callable[[str], bool],
  checkpoints: str = 'all',
) -> Content:
  """Fetches a folder, and says what there was.

  Args:
    store: of the folder.
    folder: that is filled.
    wanted: whether a file or a checkpoint is, by its name.
    checkpoints: of which: all, newest, none, or a step.

  Raises:
    StoreAway: if the store does not answer.
    OSError: if it refuses.
  """
  content = look(store)

  def get(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
      store.download(name, folder / name)

  for _ in at_once(get, filter(wanted, content.files)):
    pass
  _join_added(folder)
  for bundle in _choose(content.bundles, checkpoints):
    if wanted(bundle):
      fetch_bundle(store, bundle, folder)
  return content


def step_of(bundle: str) -> int:
  """The step of a checkpoint."""
  return int(bundle.rpartition('/')[2])


def _choose(bundles: dict[str, list[str]], which: str) -> list[str]:
  newest_first = sorted(bundles, key=step_of, reverse=True)
  if which == 'all':
    return newest_first
  if which == 'newest':
    return newest_first[:1]
  return [b for b in newest_first if which == str(step_of(b))]


def _join_added(folder: pathlib.Path) -> None:
  """Joins to each metrics.jsonl what others have scored meanwhile."""
  for place in sorted(folder.glob(f'**/{ADDED}')):
    _join_scores(place.parent / 'metrics.jsonl', sorted(place.glob('*.jsonl')))


def _join_scores(path: pathlib.Path, added: list[pathlib.Path]) -> None:
  parts = [path, *added] if path.exists() else added
  lines: dict[bytes, None] = {}  # in order, each once
  for part in parts:  # the end of one may be torn
    lines |= dict.fromkeys(part.read_bytes().splitlines())
  path.write_bytes(b''.join(line + b'\n' for line in lines))


# What is in the scratch folder.


def _is_ours(path: str) -> bool:
  """Whether a file is to be put; not what is being written, nor locks."""
  parts = path.split('/')
  return not any(p[:1] == '.' or 'orbax-checkpoint-tmp' in p for p in parts)


def scan(folder: pathlib.Path) -> dict[str, Stat]:
  """The files of a folder that are to be put, by name."""
  files: dict[str, Stat] = {}
  for place, folders, names in os.walk(folder):
    below = pathlib.Path(place).relative_to(folder).as_posix()
    folders[:] = [name for name in folders if _is_ours(name)]
    for name in names:
      path = name if below == '.' else f'{below}/{name}'
      if _is_ours(name) and not _ADDED.fullmatch(path):
        with contextlib.suppress(FileNotFoundError):
          status = os.stat(folder / path)
          files[path] = Stat(status.st_size, status.st_mtime_ns)
  return files


def _find_bundles(folder: pathlib.Path) -> dict[str, Stat]:
  """The checkpoints of a folder by name; another of the same step differs."""
  found: dict[str, Stat] = {}
  for place, folders, _ in os.walk(folder):
    if os.path.basename(place) == 'checkpoints':
      below = pathlib.Path(place).relative_to(folder).as_posix()
      for name in filter(str.isdigit, folders):
        with contextlib.suppress(FileNotFoundError):
          status = os.stat(os.path.join(place, name))
          found[f'{below}/{name}'] = Stat(status.st_ino, status.st_mtime_ns)
      folders.clear()
    folders[:] = [name for name in folders if _is_ours(name)]
  return found


# The mirror.


class Mirror:
  """A scratch folder, and the thread that puts what is new in it.

  Attributes:
    folder: on this machine.
    store: what it stands for.
    failure: why the store does not get what is new any more, if so.
  """

  def __init__(
    self,
    store: Store,
    folder: pathlib.Path,
    wanted: Callable[[str], bool] = lambda name: True,
  ) -> None:
    """Of an empty folder."""
    self.store, self.folder, self._wanted = store, folder, wanted
    self.failure: Error | None = None
    self._lease: Lease | None = None
    self._sent: dict[str, Stat] = {}
    self._bundles: dict[str, Stat | None] = {}
    self._strays: list[str] = []
    self._ended = threading.Event()
    self._round = threading.Lock()
    self._thread: threading.Thread | None = None
    self._took = self._when = 0.0
    self._in_haste = False
    self._below = ''

  def take(self, claims: tuple[str, ...], say: Callable[[str], None]) -> None:
    """Takes the lease of the folder, or of some folders in it.

    Raises:
      locks.Held, ArgumentError, StoreAway: as `Lease`.
    """
    self._lease = Lease(self.store, claims, say, self._fail)

  def fetch(self, checkpoints: str = 'all') -> Content:
    """Fetches what there is, and says what there was.

    Raises:
      ArgumentError, StoreAway: as `Store`.
    """
    with self.store.refusing():
      content = fetch(self.store, self.folder, self._wanted, checkpoints)
    added = [m for m in map(_ADDED.fullmatch, content.files) if m]
    joined = {f'{match["folder"]}metrics.jsonl' for match in added}
    self._sent = {
      name: stat
      for name, stat in scan(self.folder).items()
      if not _BUNDLE.fullmatch(name)
      and name in content.files
      and name not in joined
    }
    local = _find_bundles(self.folder)
    self._bundles = {
      b: local.get(b) for b in content.bundles if self._wanted(b)
    }
    self._strays = [name for name in content.halves if self._wanted(name)]
    self._strays += [m[0] for m in added if self._wanted(m[0])]
    return content

  def refresh(self) -> None:
    """Brings a copy of a run up to date; in which nothing is put."""
    content = look(self.store)
    local = _find_bundles(self.folder)
    # In this order: a run that has ended has saved its last checkpoint.
    if 'run.json' in content.files:
      with contextlib.suppress(FileNotFoundError):
        self.store.download('run.json', self.folder / 'run.json')
    for bundle in content.bundles:
      if bundle not in local:
        fetch_bundle(self.store, bundle, self.folder)
    for bundle in local.keys() - content.bundles.keys():
      shutil.rmtree(self.folder / bundle, ignore_errors=True)

  def begin(self, below: str = '') -> None:
    """Puts what is new from now on.

    Args:
      below: what the names of the files begin with that are put, where another
        process puts the rest.
    """
    self._below = below
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def _run(self) -> None:
    self._when = time.monotonic()
    while not self._ended.wait(_TICK):
      waited = time.monotonic() - self._when
      is_time = waited > max(PERIOD, _SHARE * self._took)
      try:
        if is_time or self._new_bundles():
          self.put()
      except Exception as error:
        self._fail(error)
        return

  def _fail(self, error: Exception) -> None:
    """Stops the run, as Ctrl-C does; what is in the store stays as it is."""
    if self.failure is None and not self._ended.is_set():
      self.failure = _as_error(error, self.store.url)
      terminal.tell(f'warning: stopping: {self.failure}', sys.stderr)
      preemption.interrupt_main()

  # A round.

  def put(self) -> None:
    """Puts what is new.

    Raises:
      LeaseLost: if another process took the folder.
      StoreAway: if the store does not answer.
    """
    with self._round:
      started = time.monotonic()
      statements = self._read_statements()
      staged = self._stage()
      self._hold()
      self._put_files()
      # In order, as on a disk; the newest first where time is short.
      for bundle in sorted(staged, key=step_of, reverse=self._in_haste):
        self._put_bundle(bundle, *staged[bundle])
      for name, (stat, content) in statements.items():
        self.store.write(name, content)
        self._sent[name] = stat
      self._remove_gone()
      self._when = time.monotonic()
      self._took = self._when - started

  def _hold(self) -> None:
    if self.failure is not None:
      raise self.failure
    if self._lease is not None:
      self._lease.hold()

  def _changed(self) -> Iterator[tuple[str, Stat]]:
    for name, stat in scan(self.folder).items():
      if not _BUNDLE.fullmatch(name) and self._sent.get(name) != stat:
        if self._wanted(name) and name.startswith(self._below):
          yield name, stat

  def changed(self) -> list[str]:
    """Files that are not in the store as they are here, by name."""
    return [name for name, _ in self._changed()]

  def _read_statements(self) -> dict[str, tuple[Stat, bytes]]:
    read = {}
    for name, stat in self._changed():
      if name.rpartition('/')[2] in STATEMENTS:
        with contextlib.suppress(FileNotFoundError):
          read[name] = stat, (self.folder / name).read_bytes()
    return read

  def _new_bundles(self) -> dict[str, Stat]:
    if self._below:
      return {}
    return {
      bundle: stat
      for bundle, stat in _find_bundles(self.folder).items()
      if self._bundles.get(bundle) != stat and self._wanted(bundle)
    }

  def _stage(self) -> dict[str, tuple[Stat, pathlib.Path]]:
    """New checkpoints, held against the run that deletes old ones.

    It renames them first (`GONE`): one is copied whole, or not at all.
    """
    staged = {}
    for bundle, stat in self._new_bundles().items():
      place = self.folder / _STAGED / secrets.token_hex(4)
      try:
        shutil.copytree(self.folder / bundle, place, copy_function=_link)
      except (FileNotFoundError, shutil.Error) as error:
        shutil.rmtree(place, ignore_errors=True)
        if is_of_the_disk(error):
          raise
        continue  # it was deleted meanwhile
      staged[bundle] = stat, place
    for place in {(self.folder / b).parent for b in _find_bundles(self.folder)}:
      # Not the folder itself: the run may be about to rename one more into it.
      with contextlib.suppress(FileNotFoundError):
        for gone in os.listdir(place / GONE):
          shutil.rmtree(place / GONE / gone, ignore_errors=True)
    return staged

  def _put_files(self) -> None:
    # As they were written, but for what says whose the folder is.
    changed = [*self._changed()]
    changed.sort(key=lambda item: (item[0] not in OWNERS, item[1].time))
    for name, stat in changed:
      is_first = name == 'run.json' and name not in self._sent
      if is_first or name.rpartition('/')[2] not in STATEMENTS:
        with contextlib.suppress(FileNotFoundError):
          self.store.upload(self.folder / name, name)
          self._sent[name] = stat

  def _put_bundle(self, bundle: str, stat: Stat, place: pathlib.Path) -> None:
    """Puts a checkpoint: its files, then its manifest."""
    try:
      if bundle in self._bundles:  # one of the same step, which was damaged
        self._remove_bundle(bundle)
      files = scan(place)
      facts = {
        name: [file.size, _hash(place / name)] for name, file in files.items()
      }
      for name in files:
        self.store.upload(place / name, f'{bundle}/{name}')
      there = self.store.list(f'{bundle}/')
      for name, (size, _) in facts.items():
        item = there.get(f'{bundle}/{name}')
        if item is None or item.size != size:
          raise OSError(f'{bundle}/{name} was put and is not there')
      self._hold()
      manifest = json.dumps({'files': facts}, indent=1) + '\n'
      self.store.write(manifest_of(bundle), manifest.encode())
      self._bundles[bundle] = stat
    finally:
      shutil.rmtree(place, ignore_errors=True)

  def _remove_gone(self) -> None:
    """Removes what the run has removed, and what a kill left half put.

    But not the newest checkpoint of a folder: a run that saves faster than the
    store takes it may have deleted all that are there.
    """
    if self._below:
      return
    local = _find_bundles(self.folder)
    newest: dict[str, str] = {}
    for bundle in sorted(self._bundles, key=step_of):
      newest[bundle.rpartition('/')[0]] = bundle
    for bundle in sorted(self._bundles.keys() - local.keys()):
      if bundle not in newest.values():
        self._remove_bundle(bundle)
    files = scan(self.folder)
    gone = [name for name in self._sent if name not in files]
    strays = [
      n
      for n in self._strays
      if not ((m := _BUNDLE.fullmatch(n)) and m['bundle'] in self._bundles)
    ]
    self.store.remove([*gone, *strays])
    self._strays = []
    for name in gone:
      del self._sent[name]

  def _remove_bundle(self, bundle: str) -> None:
    self.store.remove([manifest_of(bundle)])
    self.store.remove(self.store.list(f'{bundle}/'))
    del self._bundles[bundle]

  def push(self, path: pathlib.Path) -> None:
    """Puts one file, at once.

    Before it go the logs that belong to it, in the process that puts the rest.

    Raises:
      LeaseLost: if another has the workdir.
    """
    self._hold()
    if self._lease is not None:
      for name in [*self.changed()]:
        if '/' not in name and name not in STATEMENTS:
          self.store.upload(self.folder / name, name)
    self.store.upload(path, path.relative_to(self.folder).as_posix())

  def close(self, seconds: float | None = None) -> None:
    """Puts the rest, and lets the folder go.

    Args:
      seconds: that this may take; None: as long as a store may be away.

    Raises:
      StoreAway, LeaseLost: if it could not be put.
    """
    if seconds is not None:
      self._in_haste = True
      self.store.hurry(seconds)
    self._ended.set()
    try:
      if self._thread is not None and self.failure is None:
        _within(seconds, self._finish, self.store)
      if self.failure is not None:
        raise self.failure
    finally:
      self.store.give_up()
      if self._lease is not None:
        _within(5.0, self._lease.release, None)

  def _finish(self) -> None:
    assert self._thread is not None
    self._thread.join()
    if self.failure is None:
      try:
        self.put()
        if left := self._new_bundles():
          raise OSError(f'{", ".join(left)} could not be read to be put')
      except Exception as error:
        raise _as_error(error, self.store.url) from error


def _within(
  seconds: float | None, work: Callable[[], None], store: Store | None
) -> None:
  """Does what may hang, in a thread that may be left behind.

  Raises:
    StoreAway: if it takes too long and `store` is given.
  """
  raised: list[BaseException] = []

  def do() -> None:
    try:
      work()
    except BaseException as error:
      raised.append(error)

  thread = threading.Thread(target=do, daemon=True)
  thread.start()
  thread.join(seconds)
  if raised:
    raise raised[0]
  if thread.is_alive() and store is not None:
    raise StoreAway(
      f'{store.url} did not take what is new within {seconds:.0f} s; what was'
      ' saved in it before is whole: run the same command again'
    )


def _as_error(error: Exception, url: str) -> Error:
  if isinstance(error, Error):
    return error
  if is_of_the_disk(error):
    return disk_error(url, error)
  return StoreAway(
    f'{url} cannot be written: {type(error).__name__}: {error}; what was saved'
    ' in it before is whole'
  )


def _link(source: str, target: str) -> None:
  try:
    os.link(source, target)
  except FileNotFoundError:
    raise
  except OSError:  # a file system without links
    shutil.copyfile(source, target)


_active: list[Mirror] = []


def find(path: pathlib.Path) -> Mirror | None:
  """The mirror that a path of this machine lies in, if any."""
  absolute = pathlib.Path(path).absolute()
  inside = [m for m in _active if absolute.is_relative_to(m.folder)]
  return inside[0] if inside else None


def _rename(error: Error) -> None:
  """Names the URL in a message in the place of the folder of this machine."""
  error.args = tuple(
    terminal.rename(x) if isinstance(x, str) else x for x in error.args
  )
  for name in ('value', 'remedy'):  # of an ArgumentError
    text = getattr(error, name, None)
    if isinstance(text, str):
      setattr(error, name, terminal.rename(text))


@contextlib.contextmanager
def mounted(
  url: str, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[Mirror]:
  """A mirror of a URL, empty; what is said of its folder names the URL.

  Raises:
    ArgumentError: for a scheme that is unknown or not installed.
  """
  store = Store(url)
  with contextlib.ExitStack() as stack:
    # Of the same name, which reports show.
    name = re.sub(r'[^\w.-]', '_', store.url.rpartition('/')[2]).lstrip('.')
    folder = stack.enter_context(scratch()) / (name or 'workdir')
    folder.mkdir()
    mirror = Mirror(store, folder, wanted)
    stack.enter_context(terminal.renamed(str(folder), store.url))
    _active.append(mirror)
    stack.callback(_active.remove, mirror)
    try:
      yield mirror
    except Error as error:
      _rename(error)
      raise


__all__ = [
  'GONE',
  'LeaseLost',
  'Mirror',
  'fetch',
  'fetch_bundle',
  'find',
  'look',
  'manifest_of',
  'mounted',
  'scan',
  'step_of',
]
