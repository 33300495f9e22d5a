"""The folder of a run: who may write to it, what it says of itself."""

import contextlib
import fcntl
import json
import pathlib
from collections.abc import Iterator
from typing import IO, Any

import jax

from gan_jax.config import schema as config_lib
from gan_jax.config.schema import Config, ConfigError
from gan_jax.runtime.files import write_atomic
from gan_jax.runtime.provenance import environment as environment
from gan_jax.runtime.provenance import now as now
from gan_jax.runtime.provenance import versions as versions


def check(config: Config) -> None:
  """Refuses a workdir that is unusable or belongs to another run.

  Raises:
    ConfigError: saying which flags differ and what to do.
  """
  if not config.workdir:
    raise ConfigError(
      '--workdir=: name the folder of the run, for example'
      ' --workdir=runs/digits'
    )
  path = pathlib.Path(config.workdir)
  flagfile = path / 'config.flags'
  if flagfile.is_file():
    lines = config_lib.difference(config_lib.load_flagfile(flagfile), config)
    if lines:
      raise ConfigError(
        f'--workdir={config.workdir}: holds a run of another configuration:\n'
        + '\n'.join(f'  {line}' for line in lines)
        + '\nUse another --workdir, or the flags of that run'
        f' (--flagfile={flagfile}).'
      )
  elif path.is_dir() and not all(_is_beginning(p) for p in path.iterdir()):
    raise ConfigError(
      f'--workdir={config.workdir}: is not empty and holds no run; use'
      ' another folder'
    )


def check_data(place: str, there: str, now: str) -> None:
  """Refuses to go on with other data than a checkpoint came of.

  Args:
    place: of the checkpoint, as it is to be called.
    there: fingerprint of the data that it came of.
    now: fingerprint of the data at hand.

  Raises:
    ConfigError: if they differ.
  """
  if there != now:
    raise ConfigError(
      f'{place}: its data was another (fingerprint {there} there, {now} now);'
      ' bring back the data of that run or use another folder'
    )


def _is_beginning(path: pathlib.Path) -> bool:
  """Whether a run that was killed at its very start leaves this behind."""
  return path.name == '.lock' or path.name.startswith('.config.flags.')


@contextlib.contextmanager
def opened(config: Config) -> Iterator[pathlib.Path]:
  """Makes the folder and holds it against a second process.

  A new folder says at once whose it is; what an old one says of itself is left
  until `claim`.

  Raises:
    ConfigError: if it cannot be written, or another process trains there.
  """
  path = pathlib.Path(config.workdir)
  if jax.process_index() != 0:
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
      raise ConfigError(
        f'--workdir={config.workdir}: cannot write there'
        f' ({error.strerror or error}); use a folder that you may write to'
      ) from error
    yield path


def _lock(config: Config, lock: IO[str]) -> None:
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise ConfigError(
      f'--workdir={config.workdir}: another process is training there; wait'
      ' for it, stop it, or use another folder'
    ) from error


def claim(config: Config) -> None:
  """Writes into the folder that this configuration is its run's."""
  if jax.process_index() == 0:
    text = '\n'.join(config_lib.to_args(config)) + '\n'
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
    if jax.process_index() == 0:
      write_atomic(self._path, json.dumps(self.facts, indent=2) + '\n')
