"""Checkpoints: a run's state and what belongs to it, verified when read.

A state is saved flat, an array for each path such as `g/params/Dense_0/kernel`,
so that it is read without anybody's classes. Orbax writes asynchronously and
atomically. What Orbax does not do is notice a flipped byte: so a hash of each
array is saved too and verified when it is read, and a checkpoint that is
damaged is named, moved aside and passed over for the one before it. Arrays are
saved from the host, so that they restore on any number of devices or processes.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from numpy.typing import NDArray

from gan_jax.runtime import multihost
from gan_jax.runtime.array_cache import digest_arrays, digest_facts
from gan_jax.runtime.errors import CheckpointError as CheckpointError

_OPTIONS = ocp.CheckpointManagerOptions
PyTree = Any
Meta = dict[str, Any]
Flat = dict[str, NDArray[Any]]


class CheckpointUnreachable(CheckpointError):
  """It cannot be read now, which does not mean that it is damaged."""


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
class _NewestAndBest:
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


def _retention(
  keep: int, best: Best, steps: Callable[[], list[int]]
) -> dict[str, Any]:
  """The same, as options of the installed Orbax."""
  options = {field.name for field in dataclasses.fields(_OPTIONS)}
  if 'preservation_policy' in options:
    return {'preservation_policy': _NewestAndBest(keep, best)}
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

    The newest `keep` stay, and of all the one that `best` names.
    """
    retention: dict[str, Any] = {'max_to_keep': None if read_only else keep}
    if best and not read_only:
      retention = _retention(keep, best, self.steps)
    self.folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    self._read_only = read_only
    self._manager = ocp.CheckpointManager(
      self.folder,
      options=_OPTIONS(
        **retention,
        create=not read_only,
        read_only=read_only,
        cleanup_tmp_directories=not read_only,
        enable_async_checkpointing=not read_only,
        step_format_fixed_length=9,
      ),
    )

  def steps(self) -> list[int]:
    """Steps of the finished checkpoints, oldest first."""
    return sorted(self._manager.all_steps())

  def save(self, step: int, state: PyTree, meta: Meta) -> None:
    """Starts to save; returns when the state has been copied.

    Raises:
      CheckpointError: if this or an earlier save failed (disk full, ...). The
        checkpoints saved before are whole.
    """
    leaves = flatten(state)
    host: Flat = to_host(leaves)
    body = dict(meta, step=step, arrays=_describe_saved(leaves, host))
    sealed = {'body': body, 'digest': digest_facts(body)}
    saved = {path: x for path, x in host.items() if x.size}
    try:
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeSave(saved), meta=ocp.args.JsonSave(sealed)
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
    meta = self.read_meta(step)
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
    arrays = self.read_meta(step)['arrays']
    wanted = {p: facts for p, facts in arrays.items() if p.startswith(prefix)}
    return self._read_arrays(step, wanted)

  def read_meta(self, step: int) -> Meta:
    """What was saved beside the state of one step, verified.

    Raises:
      CheckpointUnreachable, CheckpointMismatch, CheckpointError: as `restore`.
    """
    sealed = self._read(step, meta=ocp.args.JsonRestore())['meta']
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
    as_numpy = {
      path: ocp.RestoreArgs(restore_type=np.ndarray) for path in wanted
    }
    # No transformations: what is saved and not wanted is left out.
    how = ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, transforms={})
    host: Flat = dict(self._read(step, state=how)['state']) if wanted else {}
    for path, facts in arrays.items():
      if 'empty' in facts:
        dtype, shape = facts['empty']
        if 0 not in shape:
          raise self._damaged(step, path)
        host[path] = np.zeros(shape, dtype)
      if digest_arrays({path: host[path]}) != facts['digest']:
        raise self._damaged(step, path)
    return host

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
    steps = self.steps()
    passed: list[int] = []
    while (step := multihost.broadcast_number(_newest(steps, passed))) >= 0:
      restored, error = None, None
      try:
        restored = self.restore(step, template, partial=partial)
      except CheckpointError as caught:
        error = caught
      worst = multihost.find_maximum(_severity(error))
      if worst == 0:
        self._set_aside(passed)
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
