"""Orbax in any folder, and every save of it read back.

Orbax finds its own files by patterns into which it puts the whole path: a `[`,
`*` or `?` in the name of a folder is read as part of the pattern, the arrays
are left without an index, and the save reports success. And whatever the cause:
a save counts once it was read back, before the checkpoint gets its name.
"""

import dataclasses
import glob
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath
from numpy.typing import NDArray

from gan_jax.runtime import multihost, small_checkpoint

Flat = Mapping[str, NDArray[Any]]
Best = Callable[[list[int]], int | None]


def write_without_locks() -> None:
  """Lets Orbax write where the file system has no locks, from now on.

  Nothing is lost by it: a checkpoint is written by one process into a folder of
  its own, which gets its name when it is whole.
  """
  from orbax.checkpoint._src.serialization import tensorstore_utils

  make_context = tensorstore_utils.get_ts_context
  if getattr(make_context, 'has_locks', True):

    def make(**options: Any) -> Any:
      spec = make_context(**options).spec.to_json()
      return ts.Context({**spec, 'file_io_locking': {'mode': 'none'}})

    make.has_locks = False  # type: ignore[attr-defined]
    tensorstore_utils.get_ts_context = make


class _LiteralPath(type(epath.Path('.'))):  # type: ignore[misc]
  """A path in which only what it is joined with is a pattern."""

  def glob(self, pattern: str) -> Iterator[Any]:
    escaped = type(self)(glob.escape(str(self)))
    return super(_LiteralPath, escaped).glob(pattern)


def literal_path(path: pathlib.Path) -> Any:
  """A path as Orbax takes it, every character of which stands for itself."""
  return _LiteralPath(str(path))


class StateHandler(ocp.PyTreeCheckpointHandler):  # type: ignore[misc]
  """Saves host arrays by path, and reads them back."""

  def __init__(self, **options: Any) -> None:
    """Saves nothing yet."""
    super().__init__(use_zarr3=False, **options)  # `read_back` reads these
    self._saved: Flat = {}

  async def async_save(self, directory: Any, args: Any) -> Any:
    """Starts to write."""
    self._saved = dict(args.item)
    return await super().async_save(directory, args=args)

  def finalize(self, directory: Any) -> None:
    """Joins the arrays to one store, and reads that.

    Raises:
      ReadBackError: if an array is missing, of another shape or type, or not
        to be read.
    """
    super().finalize(directory)
    folder = pathlib.Path(str(directory))
    small_checkpoint.read_back(folder, self._saved)
    self._saved = {}  # they are large


class MetaHandler(ocp.JsonCheckpointHandler):  # type: ignore[misc]
  """Saves a description, and reads it back."""

  async def async_save(self, directory: Any, args: Any) -> Any:
    """Starts to write."""
    self._saved = json.dumps(args.item)
    return await super().async_save(directory, args=args)

  def finalize(self, directory: Any) -> None:
    """Reads what was written.

    Raises:
      ReadBackError: if it is not what was given.
    """
    super().finalize(directory)
    path = pathlib.Path(str(directory)) / 'metadata'
    small_checkpoint.read_back_text(path, self._saved)


def _only_this(alone: bool) -> dict[str, Any]:
  """Tells Orbax that this process does something without the others."""
  if not alone:
    return {}
  own = multihost.number()
  options = ocp.options.MultiprocessingOptions(
    primary_host=own,
    active_processes={own},
    barrier_sync_key_prefix=f'alone{own}',
  )
  return {'multiprocessing_options': options}


def handlers(alone: bool = False) -> dict[str, Any]:
  """What saves and restores the two items of a checkpoint.

  Args:
    alone: whether this process does so without the others.
  """
  how = _only_this(alone)
  return {'state': StateHandler(**how), 'meta': MetaHandler(**how)}


def _arguments(base: Any, handler: Any, **use: bool) -> Any:
  """Orbax knows by its arguments which handler saves or restores an item."""
  own = type(base.__name__, (base,), {})
  return ocp.args.register_with_handler(handler, **use)(own)


StateSave = _arguments(ocp.args.PyTreeSave, StateHandler, for_save=True)
StateRestore = _arguments(
  ocp.args.PyTreeRestore, StateHandler, for_restore=True
)
MetaSave = _arguments(ocp.args.JsonSave, MetaHandler, for_save=True)
MetaRestore = _arguments(ocp.args.JsonRestore, MetaHandler, for_restore=True)


def save_args(state: Flat, meta: Mapping[str, Any]) -> Any:
  """Both items of a checkpoint, as a manager saves them."""
  return ocp.args.Composite(state=StateSave(state), meta=MetaSave(meta))


def restore_args(wanted: Mapping[str, Any] | None) -> Any:
  """Arrays by path, as a reader restores them, on the host; None: the meta."""
  if wanted is None:
    return ocp.args.Composite(meta=MetaRestore())
  as_numpy = {path: ocp.RestoreArgs(restore_type=np.ndarray) for path in wanted}
  # No transformations: what is saved and not wanted is left out.
  how = StateRestore(wanted, restore_args=as_numpy, transforms={})
  return ocp.args.Composite(state=how)


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
  options = {
    field.name for field in dataclasses.fields(ocp.CheckpointManagerOptions)
  }
  if 'preservation_policy' in options:
    return {'preservation_policy': _NewestAndBest(keep, best)}
  # Orbax before 0.11.16.
  return {
    'max_to_keep': keep,
    'should_keep_fn': lambda step: step == best(steps()),
  }


def make_reader() -> Any:
  """What restores single steps."""
  alone = multihost.is_apart()
  return ocp.Checkpointer(
    ocp.CompositeCheckpointHandler(**handlers(alone)), **_only_this(alone)
  )


def make_manager(
  folder: pathlib.Path,
  keep: int,
  best: Best | None,
  steps: Callable[[], list[int]],
  alone: bool = False,
  gone: str = '',
) -> Any:
  """What saves steps in a folder, and deletes old ones.

  Args:
    folder: of the checkpoints.
    keep: how many of the newest stay.
    best: of all steps, the one that stays as well.
    steps: those that there are, with those that are being written.
    alone: whether the first process does so without the others. It alone can
      be it: Orbax has no saves of several processes apart from each other.
    gone: folder to which old ones are renamed, for another to delete; empty:
      they are deleted.
  """
  retention: dict[str, Any] = {'max_to_keep': keep}
  if gone:
    retention['todelete_subdir'] = gone
  if alone:
    retention |= {**_only_this(alone), 'create': False}
  if best:
    del retention['max_to_keep']
    retention |= _retention(keep, best, steps)
  return ocp.CheckpointManager(
    literal_path(folder),
    options=ocp.CheckpointManagerOptions(
      **retention, cleanup_tmp_directories=True, step_format_fixed_length=9
    ),
    item_handlers=handlers(alone),
  )
