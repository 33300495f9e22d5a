"""Workdirs in an object store: a folder of this machine in their place."""

import contextlib
import dataclasses
import os
import pathlib
import secrets
from collections.abc import Callable, Iterator

from gan_jax.config import app
from gan_jax.config.schema import Config
from gan_jax.runtime import (
  determinism,
  locks,
  mirror,
  multihost,
  places,
  preemption,
  terminal,
)
from gan_jax.runtime.errors import ArgumentError, Error

_CRASHED = 60.0  # seconds to put what a run left that failed
_LEAST = 1.0  # seconds to put the rest, however late it is
_PART = secrets.token_hex(8)  # of the scores of this process


class PeerFailed(Error):
  """Another process of the job failed, and this one ends for that."""

  def __init__(self, text: str, exit_code: int) -> None:
    """As that one ends: with the same message and code."""
    super().__init__(text)
    self.exit_code = exit_code


@contextlib.contextmanager
def held(
  config: Config,
  listener: preemption.Listener,
  claims: tuple[str, ...] = ('*',),
  wanted: Callable[[str], bool] = lambda name: True,
) -> Iterator[Config]:
  """A configuration whose workdir is on this machine, put where it belongs.

  Every process of the job comes here, before JAX computes.

  Args:
    config: of a run or an ablation.
    listener: of the signals that end it: all is put within `save_deadline` of
      the first.
    claims: folders in the workdir that this job is for; '*': all of it.
    wanted: whether a file is fetched and put, by its name.

  Raises:
    ArgumentError: if another process has the workdir, or the store refuses.
    StoreAway: if it does not answer; `exit_code` starts the command again.
  """
  if not places.scheme_of(config.workdir):
    yield config
    return
  with mirror.mounted(config.workdir, wanted) as mounted:
    try:
      _fill(mounted, config.workdir, claims)
      yield dataclasses.replace(config, workdir=str(mounted.folder))
    except BaseException:
      try:
        mounted.close(_left(config, listener, _CRASHED))
      except Error as error:
        app.warn(f'what was saved last was not put: {error}')
      if mounted.failure is not None:
        raise mounted.failure from None
      raise
    _end(mounted, _left(config, listener, None))


def _left(
  config: Config, listener: preemption.Listener, most: float | None
) -> float | None:
  """Seconds to put the rest: `most`, or what a signal leaves of its deadline.

  None: as long as a store may be away.
  """
  if not (listener.received and config.save_deadline):
    return most
  return max(_LEAST, listener.left(config.save_deadline))


def shown(folder: pathlib.Path) -> pathlib.Path | str:
  """A folder, or the URL that it stands for."""
  mounted = mirror.find(folder)
  return folder if mounted is None else terminal.rename(str(folder))


def as_given(config: Config) -> Config:
  """A configuration whose workdir is what was asked for, for records."""
  mounted = mirror.find(pathlib.Path(config.workdir))
  if mounted is None:
    return config
  return dataclasses.replace(config, workdir=mounted.store.url)


def _fill(mounted: mirror.Mirror, url: str, claims: tuple[str, ...]) -> None:
  """Takes the workdir, and fetches what is in it, in every process.

  Raises:
    ArgumentError: if another process has it.
  """
  if not multihost.is_first():
    refused = multihost.tell_others(None)
    if refused:
      raise Error(refused)
    mounted.fetch()
    multihost.meet_others('workdir fetched')
    # Of the kernels that this process picks nobody else knows.
    mounted.begin(determinism.picks_of(multihost.number()))
    return
  try:
    mounted.take(claims, app.warn)
    mounted.fetch()
  except locks.Held as held_by:
    who = f' ({held_by.args[0]})' if held_by.args[0] else ''
    error = ArgumentError(
      'workdir',
      url,
      f'another process is at work there{who}; wait for it, stop it, or use'
      ' another folder',
    )
    multihost.tell_others(str(error))
    raise error from held_by
  except BaseException as error:
    multihost.tell_others(f'the first process failed: {error}')
    raise
  multihost.tell_others('')
  multihost.meet_others('workdir fetched')
  mounted.begin()


def _end(mounted: mirror.Mirror, seconds: float | None) -> None:
  """Puts the rest; the other processes wait until the first one has.

  Raises:
    StoreAway, LeaseLost: as `Mirror.close`.
    PeerFailed: in the others, if one of these came in the first.
  """
  if multihost.is_first():
    try:
      mounted.close(seconds)
    except Error as error:
      multihost.tell_others(f'{error.exit_code} {error}')
      raise
    multihost.tell_others('')
    return
  mounted.close(seconds)
  failure = multihost.tell_others(None)
  if failure:
    code, _, text = failure.partition(' ')
    raise PeerFailed(text, int(code))


# Of a workdir that this process does not train in.


def fetched(
  workdir: str | os.PathLike[str],
  stack: contextlib.ExitStack,
  checkpoints: str = 'none',
) -> pathlib.Path:
  """A workdir on this machine: itself, or a copy of one in a store.

  Args:
    workdir: folder or URL of a run or an ablation.
    stack: at whose end a copy goes.
    checkpoints: of which: all, newest, none, or a step.

  Raises:
    ArgumentError: if the store refuses.
    StoreAway: if it does not answer.
  """
  workdir = places.resolve('workdir', workdir)
  if not places.scheme_of(workdir):
    return pathlib.Path(workdir)
  mounted = stack.enter_context(mirror.mounted(workdir))
  content = mounted.fetch(checkpoints)
  if checkpoints.isdigit():
    steps = sorted(mirror.step_of(bundle) for bundle in content.bundles)
    if int(checkpoints) not in steps:
      existing = ', '.join(map(str, steps)) or 'none'
      remedy = f'no such checkpoint; there are: {existing}'
      raise ArgumentError('step', int(checkpoints), remedy)
  return mounted.folder


def copied(
  workdir: str | os.PathLike[str], checkpoints: str = 'none'
) -> pathlib.Path:
  """As `fetched`, for as long as this process lives."""
  stack = contextlib.ExitStack()
  folder = fetched(workdir, stack, checkpoints)
  if places.scheme_of(workdir):
    app.at_end(stack.close)
  return folder


def refresh(folder: pathlib.Path) -> None:
  """Brings a copy of a run up to date: its checkpoints, and how it ended."""
  mounted = mirror.find(folder)
  if mounted is not None:
    with mounted.store.refusing():
      mounted.refresh()


def put_back(folder: pathlib.Path, scores: bool = False) -> None:
  """Puts what was written in a copy: pages and tables.

  Args:
    folder: of the copy, or any other, which is left as it is.
    scores: whether metrics.jsonl is put, too: apart, as the run may be going on
      and write its own, and joined to that by who fetches it.
  """
  mounted = mirror.find(folder)
  if mounted is None:
    return
  with mounted.store.refusing():
    for name in mounted.changed():
      if name == 'metrics.jsonl':
        if scores:
          mounted.store.upload(folder / name, f'{mirror.ADDED}{_PART}.jsonl')
      elif name.partition('/')[0] not in ('checkpoints', 'damaged'):
        mounted.store.upload(folder / name, name)


__all__ = [
  'as_given',
  'copied',
  'fetched',
  'held',
  'put_back',
  'refresh',
  'shown',
]
