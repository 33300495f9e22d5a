"""The folder of a run: who may write to it, what it says of itself."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from gan_jax.config import app, schema
from gan_jax.config.schema import Config, ConfigError
from gan_jax.data.samples import without_times
from gan_jax.runtime import determinism, locks, multihost, places, records
from gan_jax.runtime.checkpoint import Checkpoints, find_steps
from gan_jax.runtime.errors import (
  ArgumentError,
  CheckpointError,
  Error,
  IdentityError,
)
from gan_jax.runtime.files import (
  cannot_write,
  remove_leftovers,
  write_atomic,
)
from gan_jax.training import remote


def check(config: Config) -> None:
  """Refuses a workdir that is unusable or belongs to another run.

  Nothing is known yet of one in an object store, before it is fetched.

  Raises:
    ArgumentError: if it is no folder for a run.
    IdentityError: saying which options differ and what to do.
  """
  if not config.workdir:
    raise ArgumentError(
      'workdir', '', 'name the folder of the run, for example `workdir=runs/1`'
    )
  if places.scheme_of(config.workdir):
    return
  path = places.resolved('workdir', config.workdir)
  places.check_workdir(path)
  flagfile = path / 'config.flags'
  if flagfile.is_file() or find_steps(path / 'checkpoints'):
    lines = schema.difference(read_config(path), config)
    if lines:
      raise IdentityError(
        f'`workdir={config.workdir}`: holds a run of another configuration:\n'
        + '\n'.join(f'  {line}' for line in lines)
        + '\nUse another `workdir`, or the options of that run, which'
        f' {flagfile} holds.'
      )
  elif path.is_dir() and not all(_is_beginning(p) for p in path.iterdir()):
    raise ArgumentError(
      'workdir',
      config.workdir,
      'is not empty and holds no run; use another folder',
    )


def read_config(workdir: str | os.PathLike[str]) -> Config:
  """The `Config` of the run in a workdir.

  Where `config.flags` is damaged or gone, that of the newest checkpoint.

  Raises:
    ConfigError: if the folder holds no run, or no whole configuration.
  """
  path = pathlib.Path(workdir)
  try:
    return schema.read_config(workdir)
  except ConfigError as error:
    if (path / 'config.flags').exists() and not isinstance(
      error, schema.DamagedConfig
    ):
      raise
    saved = _saved_config(path)
    if saved is None:
      raise
    app.warn(f'{error}; taken from the newest checkpoint')
    return dataclasses.replace(saved, workdir=os.fspath(workdir))


def _saved_config(workdir: pathlib.Path) -> Config | None:
  """The configuration of the newest checkpoint that is whole."""
  with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
    for step in reversed(checkpoints.steps()):
      with contextlib.suppress(CheckpointError):
        words = checkpoints.read_meta(step).get('config')
        return schema.from_args(words) if words else None
  return None


def check_data(place: str, there: str, here: str) -> str:
  """Refuses to go on with other data than a checkpoint came of.

  Args:
    place: of the checkpoint, as it is to be called.
    there: fingerprint of the data that it came of.
    here: fingerprint of the data at hand.

  Returns:
    A warning, where nothing but the times of files differs; mostly ''.

  Raises:
    IdentityError: if they differ.
  """
  if there == here:
    return ''
  if without_times(there) != without_times(here):
    raise IdentityError(
      f'{place}: its data was another (fingerprint {there} there, {here} now);'
      ' bring back the data of that run or use another folder'
    )
  return (
    f'{place}: the files of its data have other times than then, as copies'
    ' have; their names, their sizes and 1,024 blocks agree'
  )


def _is_beginning(path: pathlib.Path) -> bool:
  """Whether this is there before a run: of a kill at its very start, or of
  `compile_for`."""
  begins = ('.lock', '.lease-', '.config.flags.', 'compile_for_')
  own = determinism.RESULTS  # of a process that came before the first
  return path.name.startswith((*begins, own))


@contextlib.contextmanager
def held(config: Config) -> Iterator[pathlib.Path]:
  """Makes the folder and holds it against a second process.

  A new folder says at once whose it is; what an old one says of itself is left
  until `claim`. A run that is refused before it has begun leaves nothing that
  would stand in the way of the corrected one.

  Raises:
    ArgumentError: if it cannot be written, or another process trains there.
  """
  path = pathlib.Path(config.workdir)
  if not multihost.is_primary():
    yield path
    return
  with contextlib.ExitStack() as stack:
    try:
      path.mkdir(parents=True, exist_ok=True)
      stack.enter_context(_lock(config, path))
      is_new = not (path / 'config.flags').is_file()
      if is_new:
        claim(config)
      (path / 'samples').mkdir(exist_ok=True)
      remove_leftovers(path, path / 'samples')
    except OSError as error:
      raise cannot_write('workdir', config.workdir, error) from error
    try:
      yield path
    except Error:
      if is_new:
        _forget(path)
      raise


_BARE = ('.lock', 'config.flags', 'samples', 'checkpoints')


def _forget(path: pathlib.Path) -> None:
  """Takes back whose the folder is, unless a run has begun to write there.

  The lock stays: another process may hold it by now.
  """
  inside = [p for name in _BARE[2:] for p in (path / name).glob('*')]
  others = ('.lease-', determinism.RESULTS)
  names = {p.name for p in path.iterdir() if not p.name.startswith(others)}
  if inside or not names <= {*_BARE}:
    return
  for name in _BARE[2:]:
    with contextlib.suppress(OSError):
      (path / name).rmdir()
  (path / 'config.flags').unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(config: Config, path: pathlib.Path) -> Iterator[None]:
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(locks.hold(path, app.warn))
    except locks.Held as held_by:
      who = f' ({held_by})' if str(held_by) else ''
      raise ArgumentError(
        'workdir',
        config.workdir,
        f'another process is training there{who}; wait for it, stop it, or use'
        ' another folder',
      ) from held_by
    yield


def claim(config: Config) -> None:
  """Writes into the folder that this configuration is its run's."""
  if multihost.is_primary():
    path = pathlib.Path(config.workdir) / 'config.flags'
    text = schema.format_flagfile(remote.as_given(config))
    write_atomic(path, text)


class RunFile:
  """`run.json`: what ran, where, from when to when, and how it ended."""

  def __init__(self, workdir: pathlib.Path) -> None:
    """Reads what an earlier process of this run wrote."""
    self._path = workdir / 'run.json'
    self.facts = read_facts(workdir)

  def update(self, **facts: Any) -> None:
    """Adds facts and writes the file (in process 0)."""
    self.facts.update(facts)
    if multihost.is_primary():
      records.write(self._path, self.facts)


def read_facts(workdir: pathlib.Path) -> dict[str, Any]:
  """What `run.json` says; nothing, with a warning, if it is damaged."""
  path = workdir / 'run.json'
  try:
    return records.read(path) or {}
  except records.DamagedRecord as error:
    if multihost.is_primary():
      app.warn(f'{path} is damaged ({error}) and left out')
    return {}
