"""Sets that are prepared: written once, opened at once.

As rows (`rows.py`), or as files that are kept as they are (`encoded.py`).
`write` makes them, in parts that survive a kill, and `load` opens them as
`prepared:DIR`.
"""

import contextlib
import dataclasses
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.data import drafts, encoded, rows
from gan_jax.data.decoding import Encoded
from gan_jax.data.manifest import say
from gan_jax.data.rows import Rows, Sums
from gan_jax.data.samples import RESIDENT_BYTES, SampleSet
from gan_jax.runtime import locks, places, records
from gan_jax.runtime.errors import ArgumentError, DataError, Error
from gan_jax.runtime.files import cannot_write
from gan_jax.runtime.progress import progress_bar

FORMS = ('auto', 'rows', 'files')
_BEGUN = 'unfinished.json'  # of what is being prepared
_SHARD_BYTES = 32 * 2**20  # of a shard, at the most
# Rows of a shard, and shards of a set, where larger ones would leave cores
# without work. Not by the cores of this machine: others may have a share.
_FEWEST, _SHARDS = 64, 64
SPARE = 2**26  # bytes that are left on the disk


@dataclasses.dataclass(frozen=True)
class Part:
  """A shard that is to be there: its file, its first row and its last."""

  path: pathlib.Path
  first: int
  last: int


@dataclasses.dataclass(frozen=True)
class Plan:
  """Rows that are to be written.

  Attributes:
    name: of the set.
    shape: of a row.
    size: rows.
    fingerprint: of the set.
    made: how they are made, for a person.
    make: yields the sums of shards, written or found there, in order.
    count: rows of each shard but the last.
    classes: names.
    labels: class of each row, if there are classes.
    hashes: SHA-256 of the file of each row, if there are files.
    adopt: makes a file that holds just these rows a shard, if there is one.
    sizes: bytes of each file, where files are kept in the place of rows.
  """

  name: str
  shape: tuple[int, ...]
  size: int
  fingerprint: str
  made: Mapping[str, Any]
  make: Callable[[list[Part]], Iterable[Sums]]
  count: int
  classes: tuple[str, ...] = ()
  labels: NDArray[np.int32] | None = None
  hashes: NDArray[np.uint8] | None = None
  adopt: Callable[[Part], Sums | None] = lambda part: None
  sizes: NDArray[np.int64] | None = None

  @property
  def form(self) -> str:
    """What is written: rows, or files."""
    return 'rows' if self.sizes is None else 'files'

  def parts(self, out: pathlib.Path, count: int) -> list[Part]:
    """The shards in a folder, of `count` rows each but the last."""
    suffix = '.npy' if self.sizes is None else encoded.SUFFIX
    starts = range(0, self.size, count)
    return [
      Part(out / rows.shard_name(i, suffix), n, min(n + count, self.size))
      for i, n in enumerate(starts)
    ]

  def count_bytes(self, part: Part) -> int:
    """What a shard takes, but for some bytes."""
    if self.sizes is None:
      return (part.last - part.first) * int(np.prod(self.shape))
    return int(self.sizes[part.first : part.last].sum())


def rows_per_shard(
  size: int, shape: Sequence[int], most: int = sys.maxsize
) -> int:
  """Rows of each shard but the last.

  Args:
    size: of the set.
    shape: of a row.
    most: that are made in a few seconds.
  """
  most = min(most, max(1, _SHARD_BYTES // int(np.prod(shape))))
  return min(most, max(_FEWEST, -(-size // _SHARDS)))


def choose_form(out: pathlib.Path, form: str, pixels: int, files: int) -> str:
  """Whether rows or files are to be written: rows if there is room for them.

  Args:
    out: the folder; what was begun or is there stays of its form.
    form: rows, files or auto.
    pixels: bytes of rows that are not there yet.
    files: bytes of files that are not there yet.
  """
  if form != 'auto':
    return form
  facts = rows.read_facts(out)
  if facts is not None:
    return 'files' if facts['format'] == rows.ENCODED else 'rows'
  for suffix, begun in (('.npy', 'rows'), (encoded.SUFFIX, 'files')):
    if any(out.glob(f'shard-*{suffix}')):
      return begun
  free = shutil.disk_usage(out).free
  if pixels <= free - SPARE or files > free - SPARE:
    return 'rows'
  say(
    f'the images would take {pixels / 2**20:,.0f} MiB as rows, and'
    f' {free / 2**20:,.0f} MiB are free in {out}: their files are kept as they'
    f' are, {files / 2**20:,.0f} MiB, and decoded at each visit'
  )
  return 'files'


def write(out: pathlib.Path, make_plan: Callable[[], Plan]) -> Rows | Encoded:
  """Rows in a folder, written unless they are there; what is there is kept.

  Args:
    out: the folder.
    make_plan: of the rows, once nobody else writes there.

  Raises:
    ArgumentError: for a folder that holds anything else.
    DataError: for images that cannot be had.
    Error: if the disk is full: what is written by then is kept.
  """
  with hold(out):
    facts = check(out)
    plan = make_plan()
    if facts is None:
      write_parts(out, plan)
      drafts.remove(out)
    elif _other(facts, plan):
      remedy = (
        f'holds {facts["name"]}, of other content or prepared otherwise; use'
        ' another folder, or remove that one'
      )
      raise ArgumentError('out', str(out), remedy)
  return open_set(out)


@contextlib.contextmanager
def hold(out: pathlib.Path, shared: bool = False) -> Iterator[None]:
  """Holds a folder, made if it is not there, that a set is written to.

  Args:
    out: the folder.
    shared: whether others may write there who share it as well.

  Raises:
    ArgumentError: if another process writes there, or nothing can be written.
    Error: if the disk is full: what is written by then is kept.
  """
  try:
    out.mkdir(parents=True, exist_ok=True)
    with locks.hold(out, say, shared=shared):
      yield
  except locks.Held as held:
    who = f' ({held})' if str(held) else ''
    remedy = f'another process prepares there{who}; wait for it'
    raise ArgumentError('out', str(out), remedy) from held
  except OSError as error:
    wrong = cannot_write('out', out, error)
    more = '; what is written stays, and the same call goes on from there'
    if isinstance(wrong, ArgumentError):
      raise wrong from error
    raise Error(f'{wrong}{more}') from error


def open_set(folder: pathlib.Path) -> Rows | Encoded:
  """What is in a folder: rows, or files that are decoded.

  Raises:
    DataError: naming a file that is missing, damaged or cut short.
  """
  facts = rows.read_facts(folder)
  if facts is not None and facts['format'] == rows.ENCODED:
    return Encoded(folder)
  return Rows(folder)


def _other(facts: Mapping[str, Any], plan: Plan) -> bool:
  """Whether what is there is not what is to be written."""
  form = 'files' if facts['format'] == rows.ENCODED else 'rows'
  return facts['fingerprint'] != plan.fingerprint or form != plan.form


def _facts(plan: Plan, count: int) -> dict[str, Any]:
  """What tells a preparation that was begun from another one."""
  return {
    'fingerprint': plan.fingerprint,
    'shape': list(plan.shape),
    'size': plan.size,
    'rows_per_shard': count,
    'form': plan.form,
    'made': dict(plan.made),
  }


def check(out: pathlib.Path) -> dict[str, Any] | None:
  """What a folder of rows says of them; None for an empty or unfinished one.

  Raises:
    ArgumentError: if something else is there.
  """
  facts = rows.read_facts(out)
  others = {
    path.name
    for path in out.iterdir()
    if not path.name.startswith((drafts.PREFIX, '.lease-'))
  } - {'.lock', _BEGUN}
  if facts is None and others and not (out / _BEGUN).is_file():
    remedy = f'is not empty ({min(others)}); use another folder'
    raise ArgumentError('out', str(out), remedy)
  return facts


def _begin(out: pathlib.Path, plan: Plan) -> int:
  """Rows of a shard, as they were when this was begun.

  Raises:
    ArgumentError: if another preparation was begun there.
  """
  try:
    begun = records.read(out / _BEGUN)
  except records.DamagedRecord:
    begun = None
  count = plan.count if begun is None else begun['rows_per_shard']
  if begun is not None and begun != _facts(plan, count):
    remedy = (
      'holds an unfinished preparation of something else, or of images that'
      ' have changed since; remove that folder, or use another'
    )
    raise ArgumentError('out', str(out), remedy)
  records.write(out / _BEGUN, _facts(plan, count))
  return int(count)


def write_parts(out: pathlib.Path, plan: Plan) -> None:
  """Writes what is missing of some rows, in a folder that nobody else uses.

  Raises:
    OSError: if it cannot be written.
  """
  out.mkdir(parents=True, exist_ok=True)
  for path in out.glob('.*.partial'):  # of a process that was killed
    path.unlink(missing_ok=True)
  count = _begin(out, plan)
  parts = plan.parts(out, count)
  adopted = [plan.adopt(part) for part in parts]
  missing = sum(plan.count_bytes(p) for p in parts if not p.path.is_file())
  if missing:
    check_room('out', out, missing)
  rest = [p for p, s in zip(parts, adopted, strict=True) if s is None]
  made = iter(
    progress_bar(plan.make(rest), len(rest), f'preparing {plan.name}')
  )
  sums = [next(made) if s is None else s for s in adopted]
  extra: dict[str, NDArray[Any]] = {}
  if plan.form == 'rows':
    extra[rows.CHECKSUMS] = np.concatenate([s.crc32 for s in sums])
  if plan.labels is not None:
    extra[rows.LABELS] = plan.labels
  if plan.hashes is not None:
    extra[rows.HASHES] = np.ascontiguousarray(plan.hashes)
  facts = {
    'format': rows.FORMAT if plan.form == 'rows' else rows.ENCODED,
    'name': plan.name,
    'size': plan.size,
    'shape': list(plan.shape),
    'dtype': 'uint8',
    'classes': list(plan.classes),
    'fingerprint': plan.fingerprint,
    'made': dict(plan.made),
    'shards': [
      {
        'file': part.path.name,
        'rows': part.last - part.first,
        'bytes': part.path.stat().st_size,
        'sha256': s.sha256,
      }
      for part, s in zip(parts, sums, strict=True)
    ],
    'sha256': {
      name: rows.write_array(out / name, array) for name, array in extra.items()
    },
  }
  records.write(out / rows.FACTS, facts)
  (out / _BEGUN).unlink(missing_ok=True)


def check_room(argument: str, place: pathlib.Path, needed: int) -> None:
  """Refuses to begin what cannot end.

  Raises:
    Error: if the disk has not so many bytes.
  """
  free = shutil.disk_usage(place).free
  if needed + SPARE > free:
    raise Error(
      f'`{argument}={place}`: {needed / 2**20:,.0f} MiB are to be written, and'
      f' {free / 2**20:,.0f} MiB are free there; make room, or use another'
      ' folder'
    )


def make_from(images: SampleSet) -> Callable[[list[Part]], Iterator[Sums]]:
  """Makes shards of any set: read whole if it is small, else by threads."""

  def make(parts: list[Part]) -> Iterator[Sums]:
    whole = images.array() if images.nbytes <= RESIDENT_BYTES else None
    with ThreadPoolExecutor() as pool:
      for part in parts:
        if part.path.is_file():
          yield rows.sum_shard(part.path)
        elif whole is not None:
          yield rows.write_shard(part.path, whole[part.first : part.last])
        else:
          picked = range(part.first, part.last)
          some = [*pool.map(images.source.__getitem__, picked)]
          yield rows.write_shard(part.path, np.stack(some))

  return make


def plan_of(images: SampleSet, made: Mapping[str, Any]) -> Plan:
  """Rows of a set that is no folder.

  Raises:
    ArgumentError: for one that is not of uint8.
  """
  if images.dtype != np.uint8 or not images.bounded:
    remedy = 'has no images of 8 bits; what it has needs no preparation'
    raise ArgumentError('dataset', images.name, remedy)
  return Plan(
    name=images.name,
    shape=images.shape,
    size=images.size,
    fingerprint=images.fingerprint,
    made=made,
    make=make_from(images),
    count=rows_per_shard(images.size, images.shape),
    classes=images.classes,
    labels=images.labels() if images.classes else None,
  )


def load(path: str, image_size: int = 0, channels: int = 0) -> SampleSet:
  """A prepared set, opened at once.

  Its fingerprint is that of the set that it was made of: a run may be
  continued on either.

  Raises:
    ArgumentError: for a folder that holds none, or another size or number of
      channels than it has.
    DataError: naming a file that is damaged.
  """
  name = f'prepared:{path}'
  folder = places.resolved('dataset', path, name)
  if not folder.is_dir():
    raise ArgumentError('dataset', name, 'no such folder')
  if rows.read_facts(folder) is None:
    remedy = f'no prepared set (it has no {rows.FACTS})'
    if (folder / _BEGUN).exists() or any(folder.glob(f'{drafts.PREFIX}*')):
      remedy = 'its preparation did not end; run the same command again'
    raise ArgumentError('dataset', name, remedy)
  opened = open_set(folder)
  for argument, asked, own in (
    ('image_size', image_size, opened.shape[0]),
    ('channels', channels, opened.shape[2]),
  ):
    if asked not in (0, own):
      remedy = f'{name} was prepared with {own}; leave it out, or prepare anew'
      raise ArgumentError(argument, asked, remedy)
  return as_set(name, opened)


def as_set(name: str, opened: Rows | Encoded, source: Any = None) -> SampleSet:
  """Rows, or files, as a set."""
  facts = opened.facts
  classes = tuple(facts['classes'])
  return SampleSet(
    name,
    opened.shape,
    opened if source is None else source,
    facts['fingerprint'],
    classes=classes,
    read_labels=(lambda: opened.labels) if classes else None,
    notes=(f'prepared of {facts["name"]}: {rows.describe(facts)}',),
  )


def remove(folder: pathlib.Path) -> None:
  """Removes a folder of rows: first what says that it is whole."""
  for name in (rows.FACTS, _BEGUN):
    with contextlib.suppress(OSError):
      (folder / name).unlink()
  shutil.rmtree(folder, ignore_errors=True)


__all__ = [
  'DataError',
  'FORMS',
  'Part',
  'Plan',
  'as_set',
  'check',
  'check_room',
  'choose_form',
  'hold',
  'load',
  'open_set',
  'plan_of',
  'remove',
  'write',
  'write_parts',
]
