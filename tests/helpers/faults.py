"""Faults on purpose, at named points of a run.

  cd tests
  python -m helpers.faults 'kill@write#2 clock@step-3600' gan_jax.train FLAGS

is a command that meets them. A fault is KIND@POINT#N+SECONDS: when the process
comes to a point for the N-th time (the first, if none is given). `KIND@POINT!`
is at the end of what is done there. In front, `R:` leaves it to process R of a
job alone: `1:hang@step#20`. Those that have come are written to the file that
FAULTS_MET names, a line each.

Points: those of `POINTS`, and `store`, a call of a `FaultyStore`. Kinds:

  kill      SIGKILL, so many seconds after
  hang      SIGSTOP, likewise; another may send SIGCONT, or a SIGKILL
  full      from then on no file or folder can be made: the disk is full
  clock     is set forward or back by so many seconds
  flip      a byte of the newest checkpoint is another
  lose      a file of the newest checkpoint is gone
  away      a store refuses connections for so long
  lost      its answer is lost, after the deed
  slow      each call of it takes so many seconds more, from then on
"""

import collections
import contextlib
import datetime
import functools
import importlib
import os
import pathlib
import random
import re
import runpy
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from helpers import denied

KINDS = (
  *('kill', 'hang', 'full', 'clock', 'flip', 'lose'),
  *('away', 'lost', 'slow'),
)
OF_STORES = ('away', 'lost', 'slow')
# What is done at a point. A small checkpoint is read back where a large one is.
POINTS = {
  'compile': (
    'gan_jax.training.run_loop:RunLoop.compile',
    'gan_jax.training.population_loop:PopulationLoop.compile',
  ),
  'step': (
    'gan_jax.training.run_loop:RunLoop.advance',
    'gan_jax.training.population_loop:PopulationLoop.advance',
  ),
  'log': ('gan_jax.training.writers:Log.write',),
  'save': ('gan_jax.runtime.checkpoint:Checkpoints.save',),
  'write': ('gan_jax.runtime.small_checkpoint:read_back',),
  'restore': ('gan_jax.runtime.checkpoint:Checkpoints._read',),
  'fetch': ('gan_jax.runtime.mirror:fetch_bundle',),
  'put': ('gan_jax.runtime.mirror:Mirror._put_bundle',),
}
_FAULT = re.compile(
  r'(?:(?P<rank>\d+):)?(?P<kind>\w+)@(?P<point>\w+)(?P<end>!?)'
  r'(?:#(?P<number>\d+))?(?P<seconds>[+-][\d.]+)?'
)


class Fault(NamedTuple):
  """One of them; `number` from 1 on, `end`: after what is done there."""

  kind: str
  point: str
  number: int = 1
  seconds: float = 0.0
  end: bool = False
  rank: int | None = None

  def __str__(self) -> str:
    rank = '' if self.rank is None else f'{self.rank}:'
    end, number = '!' if self.end else '', f'#{self.number}'
    seconds = f'{self.seconds:+.3f}' if self.seconds else ''
    return f'{rank}{self.kind}@{self.point}{end}{number}{seconds}'


def parse(text: str) -> list[Fault]:
  """Faults as they are written.

  >>> print(*parse('kill@write#2+.01 1:hang@step!'))
  kill@write#2+0.010 1:hang@step!#1

  Raises:
    ValueError: naming what is none.
  """
  faults = []
  for word in text.split():
    match = _FAULT.fullmatch(word)
    known = (*POINTS, 'store')
    if not match or match['kind'] not in KINDS or match['point'] not in known:
      raise ValueError(
        f'{word!r} is no fault; write KIND@POINT#N+SECONDS, of the kinds'
        f' {", ".join(KINDS)} at the points {", ".join(known)}'
      )
    faults.append(
      Fault(
        match['kind'],
        match['point'],
        int(match['number'] or 1),
        float(match['seconds'] or 0),
        bool(match['end']),
        None if match['rank'] is None else int(match['rank']),
      )
    )
  return faults


# What comes to a point.


class Plan:
  """The faults of this process, and what it has come to so far.

  Attributes:
    counts: how often it came to each point.
    met: faults that have come.
  """

  def __init__(self, faults: list[Fault]) -> None:
    rank = int(os.environ.get('SLURM_PROCID', '0'))
    self.faults = [f for f in faults if f.rank in (None, rank)]
    self.counts: collections.Counter[str] = collections.Counter()
    self.met: list[Fault] = []
    place, how = os.environ.get('FAULTS_MET', os.devnull), os.O_APPEND
    self._record = os.open(place, how | os.O_WRONLY | os.O_CREAT, 0o666)
    self.away_until, self.slower = 0.0, 0.0
    self.checkpoints: pathlib.Path | None = None
    self._lock = threading.Lock()

  def around(self, point: str, work: Callable[[], Any]) -> Any:
    """Does what is done at a point, and what is to happen there."""
    with self._lock:
      self.counts[point] += 1
      number = self.counts[point]
    due = [f for f in self.faults if (f.point, f.number) == (point, number)]
    for fault in due:
      if not fault.end:
        self._strike(fault)
    if point == 'store':
      time.sleep(self.slower)
      if time.monotonic() < self.away_until:
        raise ConnectionResetError('the store is away')
    done = work()
    for fault in due:
      if fault.end:
        self._strike(fault)
    return done

  def _strike(self, fault: Fault) -> None:
    if fault.kind in ('flip', 'lose'):
      rng, place = random.Random(str(fault)), self.checkpoints
      if place is not None and damage(rng, place, fault.kind):
        self._note(fault)
      return
    self._note(fault)
    if fault.kind in ('kill', 'hang'):
      number = signal.SIGKILL if fault.kind == 'kill' else signal.SIGSTOP
      end = functools.partial(os.kill, os.getpid(), number)
      if fault.seconds:
        timer = threading.Timer(fault.seconds, end)
        timer.daemon = True
        timer.start()
      else:
        end()
    elif fault.kind == 'full':
      denied.fill_disk()
    elif fault.kind == 'clock':
      move_clock(fault.seconds)
    elif fault.kind == 'away':
      self.away_until = time.monotonic() + fault.seconds
    elif fault.kind == 'slow':
      self.slower = fault.seconds
    elif fault.kind == 'lost':
      raise ConnectionResetError('the answer was lost')

  def _note(self, fault: Fault) -> None:
    self.met.append(fault)
    os.write(self._record, f'{fault}\n'.encode())


_plan = Plan([])


def install(text: str) -> Plan:
  """From now on this process meets these faults."""
  global _plan
  _plan = Plan(parse(text))
  for point, places in POINTS.items():
    for place in places:
      module, _, path = place.partition(':')
      owner: Any = importlib.import_module(module)
      *outer, name = path.split('.')
      for part in outer:
        owner = getattr(owner, part)
      setattr(owner, name, _wrapped(point, getattr(owner, name)))
  return _plan


def _wrapped(point: str, original: Callable[..., Any]) -> Callable[..., Any]:
  @functools.wraps(original)
  def wrapper(*args: Any, **options: Any) -> Any:
    if point in ('save', 'restore'):  # of a Checkpoints
      _plan.checkpoints = args[0].folder
    return _plan.around(point, lambda: original(*args, **options))

  return wrapper


# What is done to it.


def move_clock(seconds: float) -> None:
  """Sets the clock of this process, as Python's modules tell the time."""
  now, now_ns = time.time, time.time_ns

  class Moved(datetime.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> 'Moved':
      return cls.fromtimestamp(now() + seconds, tz)

  time.time = lambda: now() + seconds
  time.time_ns = lambda: now_ns() + round(seconds * 1e9)
  datetime.datetime = Moved  # type: ignore[misc]


def damage(rng: random.Random, checkpoints: pathlib.Path, kind: str) -> bool:
  """Damages the newest checkpoint if there is another; whether it did.

  Args:
    rng: what is drawn.
    checkpoints: folder of them, on a disk or of a store.
    kind: `flip` or `lose`.
  """
  if not checkpoints.is_dir():
    return False
  names = sorted(p.name for p in checkpoints.iterdir() if p.name.isdigit())
  if manifests := [*checkpoints.glob('*.manifest.json')]:  # of a store
    names = sorted(p.name.partition('.')[0] for p in manifests)
  if len(names) < 2:
    return False
  files = sorted((checkpoints / names[-1]).rglob('*'))
  files = [p for p in files if p.is_file() and p.stat().st_size]
  if not files:
    return False
  path = rng.choice(files)
  if kind == 'lose':
    path.unlink()
    return True
  content = bytearray(path.read_bytes())
  content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
  path.unlink()  # what is a link to it elsewhere stays whole
  path.write_bytes(content)
  return True


class FaultyStore(LocalFileSystem):
  """A folder as an object store, `faulty://`, whose calls are a point."""

  protocol = 'faulty'

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(str(path).removeprefix('faulty://'))

  def pipe_file(self, path, value, mode='overwrite', **options):
    def put():  # as stores do: whole or not at all
      place = self._strip_protocol(path)
      os.makedirs(os.path.dirname(place), exist_ok=True)
      handle, partial = tempfile.mkstemp(prefix='put-')
      with os.fdopen(handle, 'wb') as file:
        file.write(value)
      os.replace(partial, place)

    _plan.around('store', put)

  def cat_file(self, path, **options):
    get = super().cat_file
    return _plan.around('store', lambda: get(path, **options))

  def get_file(self, rpath, lpath, **options):
    get = super().get_file
    return _plan.around('store', lambda: get(rpath, lpath, **options))

  def find(self, path, **options):
    find = super().find
    return _plan.around('store', lambda: find(path, **options))

  def rm_file(self, path):
    remove = super().rm_file
    _plan.around('store', lambda: remove(path))


if __name__ == '__main__':
  import fsspec

  fsspec.register_implementation('faulty', FaultyStore)
  from helpers import faults  # the module that others import, too

  try:
    faults.install(sys.argv[1])
  except ValueError as error:
    sys.exit(str(error))
  module = sys.argv[2]
  sys.argv = [module, *sys.argv[3:]]
  with contextlib.suppress(ImportError):
    importlib.import_module('gan_jax.training.train')
  runpy.run_module(module, run_name='__main__', alter_sys=True)
