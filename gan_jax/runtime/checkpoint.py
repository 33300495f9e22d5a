"""Checkpoints: state, data position and run identity together, and verified.

Orbax writes them, asynchronously and atomically. What Orbax does not do is
notice a flipped byte: so a hash of the state is saved with it and verified on
restore, and a checkpoint that is damaged is named, moved aside and passed over
for the one before it. The state is saved as host arrays, so that it restores
on any number of devices or processes.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from gan_jax.runtime import multihost

_OPTIONS = ocp.CheckpointManagerOptions
PyTree = Any
Meta = dict[str, Any]


class CheckpointError(ValueError):
  """Nothing can be saved or restored; the message says where and what to do."""

  exit_code = 1


class CheckpointUnreachable(CheckpointError):
  """It cannot be read now, which does not mean that it is damaged."""


class CheckpointMismatch(CheckpointError):
  """It is whole, and of another structure than what is to be restored."""


class NotSaved(CheckpointError):
  """Nothing can be written: not for this run, and hardly for another."""


def _is_key(x: Any) -> bool:
  return isinstance(x, jax.Array) and jax.dtypes.issubdtype(
    x.dtype, jax.dtypes.prng_key
  )


def to_host(tree: PyTree) -> PyTree:
  """Copies of all arrays on the host; keys as their raw data."""

  def copy(x: Any) -> Any:
    # A copy, not a view: the buffer is donated to the next step.
    return np.array(jax.random.key_data(x) if _is_key(x) else x)

  return jax.tree.map(copy, tree)


def like(tree: PyTree, host: PyTree) -> PyTree:
  """Host arrays as the tree they came from: keys are keys again."""

  def restore(x: Any, value: Any) -> Any:
    if _is_key(x):
      return jax.random.wrap_key_data(value, impl=jax.random.key_impl(x))
    return value

  return jax.tree.map(restore, tree, host)


def digest(tree: PyTree) -> str:
  """Hash of a tree of host arrays: of names, types, shapes and every byte."""
  total = hashlib.blake2b(digest_size=16)
  for path, x in jax.tree_util.tree_leaves_with_path(tree):
    label = f'{jax.tree_util.keystr(path)} {x.dtype} {x.shape}\n'
    total.update(label.encode())
    total.update(np.ascontiguousarray(x).tobytes())
  return total.hexdigest()


def _structure(host: PyTree) -> dict[str, str]:
  """Type and shape of each array of a tree, by its place there."""
  return {
    jax.tree_util.keystr(path): f'{x.dtype}{list(x.shape)}'
    for path, x in jax.tree_util.tree_leaves_with_path(host)
  }


_TOLD = 5  # differences that an error lists


def _check_structure(
  place: str, there: dict[str, str], now: dict[str, str]
) -> None:
  """Refuses a whole checkpoint of other networks, optimizers or numbers.

  Raises:
    CheckpointMismatch: saying what differs.
  """
  lines = [
    f'  {name}: {there.get(name, "nothing")} there, {now.get(name, "nothing")}'
    ' now'
    for name in sorted(there.keys() | now.keys())
    if there.get(name) != now.get(name)
  ]
  if not lines:
    return
  more = len(lines) - _TOLD
  if more > 0:
    lines[_TOLD:] = [f'  and {more} more']
  raise CheckpointMismatch(
    f'{place} is whole, but of other networks or optimizers than the'
    ' configuration makes here:\n'
    + '\n'.join(lines)
    + '\nNothing was changed: use the flags and the version of gan_jax that it'
    ' was saved with (run.json), or start over in another --workdir.'
  )


def _meta_digest(meta: Meta) -> str:
  text = json.dumps(meta, sort_keys=True)
  return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def not_saved(folder: pathlib.Path, error: Exception) -> NotSaved:
  """What to tell of a write that failed: a full disk, a lost mount, ..."""
  first = (str(error).strip() or repr(error)).splitlines()[0][:300]
  free = shutil.disk_usage(folder).free / 2**20
  return NotSaved(
    f'could not write in {folder}: {first}\n({free:.0f} MiB are free there).'
    ' Nothing that was saved before is lost: make room, then run the same'
    ' command again.'
  )


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


@dataclasses.dataclass(frozen=True)
class _Kept:
  """Orbax's rule of which checkpoints stay: the newest, and the best.

  Orbax's own ranks by a metric saved with each checkpoint, in which a NaN
  costs good checkpoints their place.
  """

  keep: int
  best: Best

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any = None
  ) -> list[bool]:
    del context
    steps = [info.step for info in checkpoints]
    stay = {*steps[-self.keep :], self.best(steps)}
    return [step in stay for step in steps]


def _rule(keep: int, best: Best, steps: Callable[[], list[int]]) -> Any:
  """The same, as the installed Orbax takes it."""
  known = {field.name for field in dataclasses.fields(_OPTIONS)}
  if 'preservation_policy' in known:
    return {'preservation_policy': _Kept(keep, best)}
  # Orbax before 0.11.16.
  return {
    'max_to_keep': keep,
    'should_keep_fn': lambda step: step == best(steps()),
  }


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

    The newest `keep` are kept, and of all there are the one that `best` names.
    """
    rule = {'max_to_keep': None if read_only else keep}
    if best and not read_only:
      rule = _rule(keep, best, self.steps)
    self.folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    self._read_only = read_only
    self._manager = ocp.CheckpointManager(
      self.folder,
      options=_OPTIONS(
        **rule,
        create=not read_only,
        read_only=read_only,
        cleanup_tmp_directories=not read_only,
        enable_async_checkpointing=not read_only,
        step_format_fixed_length=9,
      ),
    )

  def steps(self) -> list[int]:
    """Steps that there are checkpoints of, oldest first."""
    return sorted(self._manager.all_steps())

  def save(self, step: int, state: PyTree, meta: Meta) -> None:
    """Starts to save; returns when the state has been copied.

    Raises:
      CheckpointError: if this or an earlier save failed (disk full, ...). The
        checkpoints saved before are whole.
    """
    host = to_host(state)
    body = dict(
      meta, step=step, state_digest=digest(host), structure=_structure(host)
    )
    sealed = {'body': body, 'digest': _meta_digest(body)}
    try:
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(host),
          meta=ocp.args.JsonSave(sealed),
        ),
        force=True,
      )
    except Exception as error:
      raise not_saved(self.folder, error) from error

  def wait(self) -> None:
    """Waits until everything is saved.

    Raises:
      CheckpointError: as `save`.
    """
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      raise not_saved(self.folder, error) from error

  def close(self) -> None:
    """Ends the background threads.

    Raises:
      CheckpointError: as `save`.
    """
    try:
      self._manager.close()
    except Exception as error:
      raise not_saved(self.folder, error) from error

  def restore(self, step: int, template: PyTree) -> tuple[PyTree, Meta]:
    """The state and meta of one step, verified.

    Args:
      step: one of `steps()`.
      template: a state of the same structure, shapes and types.

    Raises:
      CheckpointUnreachable: if the file system refuses to read it.
      CheckpointMismatch: if it is whole and of another structure.
      CheckpointError: if it is damaged.
    """
    target, place = to_host(template), f'checkpoint {step} in {self.folder}'
    sealed = self._read(step, meta=ocp.args.JsonRestore())['meta']
    try:
      body = sealed['body']
      whole = sealed['digest'] == _meta_digest(body)
      said = body['state_digest']
    except (KeyError, TypeError) as error:
      raise CheckpointError(f'{place} cannot be read: {error!r}') from error
    # Before its arrays, of which Orbax would say that they cannot be read. An
    # earlier version saved no structure.
    if whole and 'structure' in body:
      _check_structure(place, body['structure'], _structure(target))
    host = self._read(step, state=ocp.args.StandardRestore(target))['state']
    if not whole or said != digest(host):
      raise CheckpointError(
        f'{place} is damaged: its content does not have the hash it was saved'
        ' with'
      )
    _check_structure(place, _structure(host), _structure(target))
    return like(template, host), body

  def _read(self, step: int, **items: Any) -> Any:
    """Parts of one step, unverified.

    Raises:
      CheckpointUnreachable, CheckpointError: as `restore`.
    """
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:
      # Orbax raises bare exceptions of many kinds for damaged files.
      first = (str(error).strip() or repr(error)).splitlines()[0][:300]
      text = f'checkpoint {step} in {self.folder} cannot be read: {first}'
      missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
      if isinstance(error, OSError) and not missing:
        raise CheckpointUnreachable(
          f'{text}\nNothing was changed: make it readable, then run the same'
          ' command again.'
        ) from error
      raise CheckpointError(text) from error

  def restore_newest(
    self, template: PyTree, warn: Callable[[str], None]
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
    steps = self.steps()
    passed: list[int] = []
    while (step := multihost.broadcast_number(_newest(steps, passed))) >= 0:
      found, error = None, None
      try:
        found = self.restore(step, template)
      except CheckpointError as caught:
        error = caught
      worst = multihost.find_maximum(_severity(error))
      if worst == 0:
        self._set_aside(passed)
        return found
      told = error or CheckpointError(
        f'checkpoint {step} in {self.folder} cannot be read by another process'
      )
      if worst == 2:
        raise told
      warn(f'{told}; passing over it')
      passed.append(step)
    if passed:
      raise CheckpointError(
        f'all checkpoints in {self.folder} ({", ".join(map(str, steps))}) are'
        ' damaged; nothing was changed. Restore the folder from a copy, or'
        ' start over in another --workdir.'
      )
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
        while (aside / name).exists():  # it was damaged before
          n += 1
          name = f'{step:09d}.{n}'
        shutil.move(self.folder / f'{step:09d}', aside / name)
    multihost.wait_for_all('damaged checkpoints set aside')
    self._manager.reload()
