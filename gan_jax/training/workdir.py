"""The folder of a run: who may write to it, what it says of itself."""

import contextlib
import fcntl
import json
import pathlib
from collections.abc import Iterator
from typing import IO, Any

from gan_jax.config import parsing, schema
from gan_jax.config.schema import Config
from gan_jax.runtime import multihost
from gan_jax.runtime.errors import ArgumentError, IdentityError
from gan_jax.runtime.files import write_atomic


def check(config: Config) -> None:
  """Refuses a workdir that is unusable or belongs to another run.

  Raises:
    ArgumentError: if it is no folder for a run.
    IdentityError: saying which options differ and what to do.
  """
  if not config.workdir:
    raise ArgumentError(
      'workdir', '', 'name the folder of the run, for example `workdir=runs/1`'
    )
  path = pathlib.Path(config.workdir)
  flagfile = path / 'config.flags'
  if flagfile.is_file():
    lines = schema.difference(schema.load_flagfile(flagfile), config)
    if lines:
      raise IdentityError(
        f'`workdir={config.workdir}`: holds a run of another configuration:\n'
        + '\n'.join(f'  {line}' for line in lines)
        + '\nUse another `workdir`, or the options of that run'
        f' (`flagfile={flagfile}`).'
      )
  elif path.is_dir() and not all(_is_beginning(p) for p in path.iterdir()):
    raise ArgumentError(
      'workdir',
      config.workdir,
      'is not empty and holds no run; use another folder',
    )


def check_data(place: str, there: str, here: str) -> None:
  """Refuses to go on with other data than a checkpoint came of.

  Args:
    place: of the checkpoint, as it is to be called.
    there: fingerprint of the data that it came of.
    here: fingerprint of the data at hand.

  Raises:
    IdentityError: if they differ.
  """
  if there != here:
    raise IdentityError(
      f'{place}: its data was another (fingerprint {there} there, {here} now);'
      ' bring back the data of that run or use another folder'
    )


def _is_beginning(path: pathlib.Path) -> bool:
  """Whether a run that was killed at its very start leaves this behind."""
  return path.name == '.lock' or path.name.startswith('.config.flags.')


@contextlib.contextmanager
def held(config: Config) -> Iterator[pathlib.Path]:
  """Makes the folder and holds it against a second process.

  A new folder says at once whose it is; what an old one says of itself is left
  until `claim`.

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
      lock = stack.enter_context(open(path / '.lock', 'w'))
      _lock(config, lock)
      if not (path / 'config.flags').is_file():
        claim(config)
      (path / 'samples').mkdir(exist_ok=True)
    except OSError as error:
      raise ArgumentError(
        'workdir',
        config.workdir,
        f'cannot write there ({error.strerror or error}); use a folder that you'
        ' may write to',
      ) from error
    yield path


def _lock(config: Config, lock: IO[str]) -> None:
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise ArgumentError(
      'workdir',
      config.workdir,
      'another process is training there; wait for it, stop it, or use another'
      ' folder',
    ) from error


def claim(config: Config) -> None:
  """Writes into the folder that this configuration is its run's."""
  if multihost.is_primary():
    text = parsing.format_flagfile(schema.to_args(config))
    write_atomic(pathlib.Path(config.workdir) / 'config.flags', text)


class RunFile:
  """`run.json`: what ran, where, from when to when, and how it ended."""

  def __init__(self, workdir: pathlib.Path) -> None:
    """Reads what an earlier process of this run wrote."""
    self._path = workdir / 'run.json'
    self.facts: dict[str, Any] = {}
    if self._path.is_file():
      with contextlib.suppress(json.JSONDecodeError):
        self.facts = json.loads(self._path.read_text())

  def update(self, **facts: Any) -> None:
    """Adds facts and writes the file (in process 0)."""
    self.facts.update(facts)
    if multihost.is_primary():
      write_atomic(self._path, json.dumps(self.facts, indent=2) + '\n')
