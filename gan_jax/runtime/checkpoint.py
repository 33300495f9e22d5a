"""Checkpoints: a run's state and what belongs to it, verified when read.

A state is saved flat, an array for each path such as `g/params/Dense_0/kernel`,
so that it is read without anybody's classes. Orbax writes asynchronously and
atomically. What Orbax does not do is notice a flipped byte: so a hash of each
array is saved too and verified when it is read, and a checkpoint that is
damaged is named, moved aside and passed over for the one before it. Arrays are
saved from the host, so that they restore on any number of devices or processes.

Orbax takes a third of a second to import: `storage`, which speaks to it, is
imported when something is first read, or saved that is not small.
"""

import contextlib
import functools
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from gan_jax.runtime import locks, mirror, multihost, places, records
from gan_jax.runtime.array_cache import digest_arrays, digest_facts
from gan_jax.runtime.errors import ArgumentError, ReadBackError
from gan_jax.runtime.errors import CheckpointError as CheckpointError
from gan_jax.runtime.files import describe_failed_write

_DELETION = 2.0  # seconds that a run may take to delete a checkpoint
_LOOKS = 20  # at a folder whose checkpoints come and go
PyTree = Any
Meta = dict[str, Any]
Flat = dict[str, NDArray[Any]]


class CheckpointUnreachable(CheckpointError):
  """It cannot be read now, which does not mean that it is damaged."""


class CheckpointGone(CheckpointError):
  """The run that trains deleted it while it was read."""


class CheckpointMismatch(CheckpointError):
  """It is whole, and of another structure than what is to be restored."""


class NotSaved(CheckpointError):
  """Nothing can be written: not for this run, and hardly for another."""


def _is_key(x: Any) -> bool:
  dtype = getattr(x, 'dtype', None)
  return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def to_host(tree: PyTree) -> PyTree:
  """Copies of all arrays on the host; keys as their raw data."""

  def copy(x: Any) -> Any:
    # A copy, not a view: the buffer is donated to the next step.
    return np.array(jax.random.key_data(x) if _is_key(x) else x)

  return jax.tree.map(copy, tree)


def flatten(tree: PyTree) -> dict[str, Any]:
  """The leaves of a tree by their paths.

  A path joins keys of dicts, indices and names of attributes. None has none.

  >>> flatten({'g': {'params': [1, 2]}, 'ema': None})
  {'g/params/0': 1, 'g/params/1': 2}

  Raises:
    CheckpointError: if two leaves have one path, as a key with a slash may
      make it.
  """
  flat: dict[str, Any] = {}
  for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
    path = jax.tree_util.keystr(keys, simple=True, separator='/')
    if path in flat:
      raise CheckpointError(
        f'two arrays of the state are called {path}: rename one of them'
      )
    flat[path] = leaf
  return flat


def digest(tree: PyTree) -> str:
  """Hash of a tree of host arrays: of paths, types, shapes and every byte."""
  return digest_arrays(flatten(tree))


def _describe(leaf: Any) -> str:
  """Type and shape of an array, or of what stands for one."""
  return f'{leaf.dtype}{list(leaf.shape)}'


def _describe_saved(state: dict[str, Any], host: Flat) -> Meta:
  """What a checkpoint says of its arrays, by path."""
  arrays: Meta = {}
  for path, leaf in state.items():
    facts: dict[str, Any] = {
      'type': _describe(leaf),
      'digest': digest_arrays({path: host[path]}),
    }
    if _is_key(leaf):
      facts['key'] = str(jax.random.key_impl(leaf))
    if not host[path].size:  # nothing to save, and Orbax would not
      facts['empty'] = [str(host[path].dtype), list(host[path].shape)]
    arrays[path] = facts
  return arrays


_SHOWN = 5  # differences that an error lists


def _check_structure(
  place: str, saved: Mapping[str, str], wanted: Mapping[str, str]
) -> None:
  """Refuses a whole checkpoint of other networks, optimizers or numbers.

  Raises:
    CheckpointMismatch: saying what differs.
  """
  lines = [
    f'  {path}: {saved.get(path, "nothing")} there,'
    f' {wanted.get(path, "nothing")} now'
    for path in sorted(saved.keys() | wanted.keys())
    if saved.get(path) != wanted.get(path)
  ]
  if not lines:
    return
  more = len(lines) - _SHOWN
  if more > 0:
    lines[_SHOWN:] = [f'  and {more} more']
  raise CheckpointMismatch(
    f'{place} is whole, but of other networks or optimizers than are to be'
    ' restored:\n'
    + '\n'.join(lines)
    + '\nNothing was changed: use the options and the version of gan_jax that'
    ' it was saved with (run.json), or start over in another workdir.'
  )


def not_saved(folder: pathlib.Path, error: Exception) -> NotSaved:
  """What to tell of a write that failed: a full disk, a lost mount, ..."""
  first = (str(error).strip() or repr(error)).splitlines()[0][:300]
  if isinstance(error, ReadBackError):
    return NotSaved(
      f'what was saved in {folder} could not be read back: {first}\nIt does not'
      ' count, and nothing that was saved before is lost: use a folder on'
      ' another file system, or run the same command again.'
    )
  if not folder.is_dir():
    return NotSaved(
      f'{folder} was removed or renamed while the run went on; bring it back,'
      ' then run the same command again.'
    )
  text = f'could not write in {folder}: {describe_failed_write(folder, error)}'
  if find_steps(folder) or find_steps(folder / 'checkpoints'):
    text += (
      '\nNothing that was saved before is lost: the same command goes on from'
      ' it.'
    )
  return NotSaved(text)


def find_steps(folder: pathlib.Path) -> list[int]:
  """Steps of the finished checkpoints in a folder, oldest first."""
  if not folder.is_dir():
    return []
  # Orbax gives a checkpoint its name when it is whole.
  paths = [path for path in folder.iterdir() if path.name.isdigit()]
  return sorted(int(path.name) for path in paths if path.is_dir())


def _newest(steps: list[int], passed: list[int]) -> int:
  """The newest step before those passed over; -1 if there is none."""
  return max((s for s in steps if not passed or s < passed[-1]), default=-1)


def _severity(error: CheckpointError | None) -> int:
  """0: whole; 1: damaged, to be passed over; 2: not for another to replace."""
  if error is None:
    return 0
  final = (CheckpointUnreachable, CheckpointMismatch)
  return 2 if isinstance(error, final) else 1


# Of the steps that there are checkpoints of, the one that is to stay.
Best = Callable[[list[int]], int | None]


class Checkpoints:
  """The checkpoints of one workdir."""

  def __init__(
    self,
    workdir: str | pathlib.Path,
    keep: int = 3,
    read_only: bool = False,
    best: Best | None = None,
  ) -> None:
    """Opens (and unless `read_only` creates) `workdir/checkpoints`.

    The newest `keep` stay, and of all the one that `best` names.
    """
    self.folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    self._record = self.folder.with_name('checkpoints.json')
    self._newest = -1  # saved by this process
    self._keep, self._best, self._read_only = keep, best, read_only
    self._small = multihost.is_alone()  # as far as is known
    if not read_only:
      self._make_folder()

  def _make_folder(self) -> None:
    places.check_workdir(self.folder)
    if os.path.lexists(self.folder) and not self.folder.is_dir():
      raise CheckpointError(
        f'{self.folder} is no folder any more, so that the checkpoints of'
        ' this run are gone; nothing was changed. Restore it from a copy, or'
        ' start over in another workdir.'
      )
    if multihost.is_primary() or self._apart:
      self.folder.mkdir(parents=True, exist_ok=True)

  @functools.cached_property
  def _apart(self) -> bool:
    """Whether the processes of the job have a folder each.

    All hold the whole state: the first one saves, alone.
    """
    is_mirror = mirror.find(self.folder) is not None
    return is_mirror and not multihost.is_alone()

  @property
  def _writes(self) -> bool:
    return multihost.is_primary() or not self._apart

  @functools.cached_property
  def _reader(self) -> Any:
    from gan_jax.runtime import storage

    return storage.make_reader()

  @functools.cached_property
  def _manager(self) -> Any:
    """What writes, and deletes old ones."""
    assert not self._read_only, 'opened to be read only'
    has_locks = locks.has_record_locks(self.folder.parent)
    gone = mirror.GONE if mirror.find(self.folder) else ''
    if self._small:
      from gan_jax.runtime import small_checkpoint

      return small_checkpoint.Manager(
        self.folder, self._keep, self._best, self.steps, has_locks, gone
      )
    from gan_jax.runtime import storage

    if not has_locks:
      storage.write_without_locks()
    return storage.make_manager(
      self.folder,
      self._keep,
      self._best,
      self._listed,
      alone=self._apart,
      gone=gone,
    )

  def _made(self, name: str) -> Any:
    """The reader or the manager, if it was needed so far."""
    return self.__dict__.get(name)

  def steps(self) -> list[int]:
    """Steps of the finished checkpoints, oldest first."""
    return find_steps(self.folder)

  def _listed(self) -> list[int]:
    """The same as Orbax has it, with those that are being written."""
    return sorted(self._manager.all_steps())

  def save(self, step: int, state: PyTree, meta: Meta) -> None:
    """Starts to save; returns when the state has been copied.

    Raises:
      CheckpointError: if this or an earlier save failed (disk full, ...). The
        checkpoints saved before are whole.
    """
    if not self._writes:
      return
    if not self.folder.is_dir():  # Orbax would make it, away from the run
      raise not_saved(self.folder, FileNotFoundError())
    leaves = flatten(state)
    host: Flat = to_host(leaves)
    body = dict(meta, step=step, arrays=_describe_saved(leaves, host))
    sealed = {'body': body, 'digest': digest_facts(body)}
    saved = {path: x for path, x in host.items() if x.size}
    if self._made('_manager') is None:
      self._small &= self._may_be_small(saved)
    try:
      self._start_save(step, saved, sealed)
      self._write_record()  # of those before; this one is still being written
    except Exception as error:
      raise not_saved(self.folder, error) from error
    self._newest = step

  def _start_save(self, step: int, saved: Flat, sealed: Meta) -> None:
    if self._small:
      self._manager.save(step, saved, sealed)
      return
    from gan_jax.runtime import storage

    args = storage.save_args(saved, sealed)
    self._manager.save(step, args=args, force=True)

  def _may_be_small(self, saved: Flat) -> bool:
    """Whether Orbax is not needed; it must not be where processes are apart.

    Raises:
      ArgumentError: if it would be.
    """
    from gan_jax.runtime import small_checkpoint

    if not multihost.is_apart():
      return small_checkpoint.is_small(saved)
    if small_checkpoint.is_plain(saved):
      return True
    kinds = sorted({x.dtype.name for x in saved.values()})
    raise ArgumentError(
      'multihost',
      True,
      f'arrays of one of these types cannot be saved: {", ".join(kinds)};'
      ' start the tasks with `only=K/N` instead',
    )

  def wait(self) -> None:
    """Waits until everything is saved.

    Raises:
      CheckpointError: as `save`.
    """
    if self._made('_manager') is None:
      return
    try:
      self._manager.wait_until_finished()
      if self._newest >= 0 and not self._exists(self._newest):
        raise ReadBackError(f'checkpoint {self._newest} is not there')
      self._write_record()
    except Exception as error:
      raise not_saved(self.folder, error) from error

  def _exists(self, step: int) -> bool:
    return (self.folder / f'{step:09d}').is_dir()

  def _write_record(self) -> None:
    """Writes which checkpoints there are, so that one that goes is missed."""
    if multihost.is_primary():
      records.write(self._record, {'steps': find_steps(self.folder)}, None)

  def _read_record(self, warn: Callable[[str], None]) -> list[int]:
    """Checkpoints that were there when one was last saved."""
    try:
      record = records.read(self._record) or {}
      return sorted(map(int, record.get('steps', ())))
    except (records.DamagedRecord, TypeError, ValueError) as error:
      warn(f'{self._record} is damaged ({error}) and left out')
      return []

  def close(self) -> None:
    """Ends the background threads.

    Raises:
      CheckpointError: as `save`.
    """
    reader, manager = self._made('_reader'), self._made('_manager')
    if reader is not None:
      reader.close()
    if manager is None:
      return
    try:
      manager.close()
    except Exception as error:
      raise not_saved(self.folder, error) from error

  def restore(
    self, step: int, template: PyTree, *, partial: bool = False
  ) -> tuple[PyTree, Meta]:
    """The state and meta of one step, verified.

    Args:
      step: one of `steps()`.
      template: a tree of the same structure, shapes and types: of arrays, or
        of what `jax.eval_shape` returns.
      partial: whether the checkpoint may hold more than the template has.

    Raises:
      CheckpointUnreachable: if the file system refuses to read it.
      CheckpointMismatch: if it is whole and of another structure.
      CheckpointError: if it is damaged.
    """
    with self._noticing_deletion(step):
      return self._restore(step, template, partial)

  def _restore(
    self, step: int, template: PyTree, partial: bool
  ) -> tuple[PyTree, Meta]:
    meta = self._read_meta(step)
    saved, leaves = meta['arrays'], flatten(template)
    types = {path: facts['type'] for path, facts in saved.items()}
    if partial:
      types = {path: types[path] for path in types.keys() & leaves.keys()}
    wanted = {path: _describe(leaf) for path, leaf in leaves.items()}
    _check_structure(self._name(step), types, wanted)
    host = self._read_arrays(step, {path: saved[path] for path in leaves})

    def as_saved(path: str) -> Any:
      if 'key' not in saved[path]:
        return host[path]
      data = jnp.asarray(host[path])
      return jax.random.wrap_key_data(data, impl=saved[path]['key'])

    tree = jax.tree.structure(template)
    return jax.tree.unflatten(tree, [as_saved(path) for path in leaves]), meta

  def read_flat(self, step: int, prefix: str = '') -> Flat:
    """Arrays of one step by path, verified; keys as their raw data.

    Args:
      step: one of `steps()`.
      prefix: what the paths begin with; no other array is read.

    Raises:
      CheckpointUnreachable, CheckpointError: as `restore`.
    """
    with self._noticing_deletion(step):
      arrays = self._read_meta(step)['arrays']
      wanted = {p: facts for p, facts in arrays.items() if p.startswith(prefix)}
      return self._read_arrays(step, wanted)

  def read_newest(self, warn: Callable[[str], None]) -> tuple[int, Flat] | None:
    """Step and arrays of the newest checkpoint that is whole.

    A run that trains meanwhile deletes old ones: they are looked for again.

    Returns:
      None if there is no checkpoint.

    Raises:
      CheckpointError: if there are some, or were, and none can be read.
    """
    recorded, damaged = self._read_record(warn), dict[int, CheckpointError]()
    for _ in range(_LOOKS):
      steps = self.steps()
      step = max((s for s in steps if s not in damaged), default=-1)
      if step < 0:
        break
      try:
        arrays = self.read_flat(step)
      except CheckpointGone:
        continue
      except CheckpointError as error:
        damaged[step] = error
        if len(damaged) < len(steps):
          warn(f'{error}; passing over it')
        continue
      self._name_missing(recorded, steps, step, warn)
      return step, arrays
    if damaged:
      raise damaged[min(damaged)]
    if steps:
      raise CheckpointError(
        f'{self.folder}: the run deletes its checkpoints before they can be'
        ' read; raise `checkpoint_every` or `keep_checkpoints`'
      )
    self._check_any(recorded)
    return None

  @contextlib.contextmanager
  def _noticing_deletion(self, step: int) -> Iterator[None]:
    """Within, a checkpoint is read that another process may delete.

    It deletes file by file, and only what is older than another: such a one
    looks damaged for a moment, and is gone in the next.

    Raises:
      CheckpointGone: in the place of the error that it looked like.
    """
    try:
      yield
    except CheckpointError as error:
      until = time.monotonic() + _DELETION
      while self._read_only and not isinstance(error, CheckpointMismatch):
        if not self._exists(step):
          steps = ', '.join(map(str, self.steps())) or 'none'
          raise CheckpointGone(
            f'{self._name(step)} was deleted meanwhile; there are: {steps}'
          ) from error
        if step == max(self.steps(), default=step) or time.monotonic() > until:
          break
        time.sleep(_DELETION / 20)
      raise

  def _name_missing(
    self,
    recorded: Sequence[int],
    steps: Sequence[int],
    chosen: int,
    warn: Callable[[str], None],
  ) -> list[int]:
    """Warns of newer checkpoints that were saved and are not there."""
    missing = [s for s in recorded if s > chosen and s not in steps]
    for step in missing:
      warn(f'{self._name(step)} was saved and is gone; passing over it')
    return missing

  def _check_any(self, recorded: Sequence[int]) -> None:
    """Refuses to start afresh where there were checkpoints.

    Raises:
      CheckpointError: naming them.
    """
    if recorded:
      raise CheckpointError(
        f'all checkpoints in {self.folder} ({", ".join(map(str, recorded))})'
        ' are gone; nothing was changed. Restore the folder from a copy, or'
        f' start over: in another workdir, or without {self._record}.'
      )

  def read_meta(self, step: int) -> Meta:
    """What was saved beside the state of one step, verified.

    Raises:
      CheckpointUnreachable, CheckpointMismatch, CheckpointError: as `restore`.
    """
    with self._noticing_deletion(step):
      return self._read_meta(step)

  def _read_meta(self, step: int) -> Meta:
    sealed = self._read(step, None)['meta']
    try:
      body: Meta = sealed['body']
      whole = sealed['digest'] == digest_facts(body)
    except (KeyError, TypeError) as error:
      raise CheckpointError(
        f'{self._name(step)} cannot be read: {error!r}'
      ) from error
    if not whole:
      raise self._damaged(step, 'its description')
    if 'arrays' not in body:
      raise CheckpointMismatch(
        f'{self._name(step)} was saved by another version of gan_jax; use that'
        ' one (run.json), or start over in another workdir.'
      )
    return body

  def _name(self, step: int) -> str:
    return f'checkpoint {step} in {self.folder}'

  def _damaged(self, step: int, what: str) -> CheckpointError:
    return CheckpointError(
      f'{self._name(step)} is damaged: {what} does not have the hash it was'
      ' saved with'
    )

  def _read_arrays(self, step: int, arrays: Meta) -> Flat:
    """Some arrays of one step, each with the hash that it was saved with.

    Raises:
      CheckpointUnreachable, CheckpointError: as `restore`.
    """
    wanted = {p: 0 for p, facts in arrays.items() if 'empty' not in facts}
    host: Flat = dict(self._read(step, wanted)['state']) if wanted else {}
    for path, facts in arrays.items():
      if 'empty' in facts:
        dtype, shape = facts['empty']
        if 0 not in shape:
          raise self._damaged(step, path)
        host[path] = np.zeros(shape, dtype)
      # Where its index is damaged, Orbax hands back what it was asked with.
      if not isinstance(host.get(path), np.ndarray):
        raise self._damaged(step, path)
      if digest_arrays({path: host[path]}) != facts['digest']:
        raise self._damaged(step, path)
    return host

  def _read(self, step: int, wanted: Mapping[str, Any] | None) -> Any:
    """Arrays of one step by path, or what is said of them; unverified.

    Raises:
      CheckpointUnreachable, CheckpointError: as `restore`.
    """
    from gan_jax.runtime import storage

    try:
      return self._reader.restore(
        storage.literal_path(self.folder / f'{step:09d}'),
        args=storage.restore_args(wanted),
      )
    except Exception as error:
      # Orbax raises bare exceptions of many kinds for damaged files.
      first = (str(error).strip() or repr(error)).splitlines()[0][:300]
      text = f'{self._name(step)} cannot be read: {first}'
      missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
      if isinstance(error, OSError) and not missing:
        raise CheckpointUnreachable(
          f'{text}\nNothing was changed: make it readable, then run the same'
          ' command again.'
        ) from error
      raise CheckpointError(text) from error

  def restore_newest(
    self,
    template: PyTree,
    warn: Callable[[str], None],
    *,
    partial: bool = False,
  ) -> tuple[PyTree, Meta] | None:
    """The newest checkpoint that is whole; None if there is none at all.

    Damaged ones are named through `warn` and, unless this is `read_only`,
    moved to `workdir/damaged`. Several processes restore the same one: the
    first says which, and all of them must find it whole.

    Raises:
      CheckpointUnreachable: if the file system refuses to read one.
      CheckpointMismatch: if the newest whole one is of another structure.
      CheckpointError: if there are checkpoints and all of them are damaged.
    """
    recorded, steps = self._read_record(warn), self.steps()
    passed: list[int] = []
    while (step := multihost.broadcast_number(_newest(steps, passed))) >= 0:
      restored, error = None, None
      try:
        restored = self.restore(step, template, partial=partial)
      except CheckpointError as caught:
        error = caught
      worst = multihost.find_maximum(_severity(error))
      if worst == 0:
        missing = self._name_missing(recorded, steps, step, warn)
        self._set_aside(passed + missing)
        return restored
      reason = error or CheckpointError(
        f'{self._name(step)} cannot be read by another process'
      )
      if worst == 2:
        raise reason
      warn(f'{reason}; passing over it')
      passed.append(step)
    if passed:
      raise CheckpointError(
        f'all checkpoints in {self.folder} ({", ".join(map(str, steps))}) are'
        ' damaged; nothing was changed. Restore the folder from a copy, or'
        ' start over in another workdir.'
      )
    self._check_any(recorded)
    return None

  def _set_aside(self, steps: list[int]) -> None:
    """Moves damaged checkpoints out of the way of the ones to come."""
    if not steps or self._read_only:
      return
    if multihost.is_primary():
      aside = self.folder.parent / 'damaged'
      aside.mkdir(exist_ok=True)
      for step in steps:
        name, n = f'{step:09d}', 1
        if not os.path.lexists(self.folder / name):
          continue  # it is gone
        while os.path.lexists(aside / name):  # it was damaged before
          n += 1
          name = f'{step:09d}.{n}'
        shutil.move(self.folder / f'{step:09d}', aside / name)
      self._write_record()
    multihost.wait_for_all('damaged checkpoints set aside')
    if manager := self._made('_manager'):
      manager.reload()
