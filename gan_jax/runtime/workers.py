"""Worker processes: a function of a module, called elsewhere.

`multiprocessing` runs the user's script again in each process that it starts,
which ends badly where a script has no `if __name__ == '__main__'`, and a fork
of a process that runs JAX may hang. These start from nothing, import the one
module and end with the process that started them, however that ends.
"""

import collections
import importlib
import importlib.util
import itertools
import logging
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from gan_jax.runtime.errors import Error

_ROOT = pathlib.Path(__file__).parents[2]
_START = 'from gan_jax.runtime.workers import serve; serve()'
# A worker ends by the end of its input: a signal to all processes of a job is
# for the one that saves.
_SIGNALS = ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2')


def count_cores() -> int:
  """Cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _send(file: Any, value: Any) -> None:
  content = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
  file.write(len(content).to_bytes(8, 'little'))
  file.write(content)
  file.flush()


def _receive(file: Any) -> Any:
  """What was sent.

  Raises:
    EOFError: if the other side has ended.
  """
  size = file.read(8)
  content = file.read(int.from_bytes(size, 'little')) if len(size) == 8 else b''
  if not content:
    raise EOFError
  return pickle.loads(content)


def _find(name: str) -> Any:
  """A function `package.module:name`, without its package's own imports."""
  module, _, function = name.partition(':')
  package = module.rpartition('.')[0]
  spec = importlib.util.find_spec(package) if package else None
  if package not in sys.modules and spec is not None:
    # The package would import JAX, which takes a second and 100 MB.
    bare = types.ModuleType(package)
    bare.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[package] = bare
  return getattr(importlib.import_module(module), function)


def serve() -> None:
  """Answers calls from standard input, until its end."""
  for name in _SIGNALS:
    if hasattr(signal, name):
      signal.signal(getattr(signal, name), signal.SIG_IGN)
  asked, answers = os.fdopen(os.dup(0), 'rb'), os.fdopen(os.dup(1), 'wb')
  os.dup2(2, 1)  # what is printed is no answer
  logging.disable(logging.WARNING)  # said by the one that started it
  try:
    function = _find(_receive(asked))
    while True:
      args = _receive(asked)
      try:
        answer = True, function(*args)
      except Exception as error:
        answer = False, Error(f'{type(error).__name__}: {error}')
      _send(answers, answer)
  except (EOFError, BrokenPipeError):
    pass


class _Worker:
  """One process."""

  def __init__(self, function: str) -> None:
    paths = [str(_ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    self._process = subprocess.Popen(
      [sys.executable, '-P', '-c', _START],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
    )
    self._in: Any = self._process.stdin
    self._out: Any = self._process.stdout
    _send(self._in, function)

  def call(self, args: Sequence[Any]) -> Any:
    try:
      _send(self._in, args)
      is_good, answer = _receive(self._out)
    except (EOFError, BrokenPipeError) as error:
      code = self._process.wait()
      raise Error(
        f'a process that reads images has ended ({_describe(code)}); start'
        ' again, with more memory if it was killed for that'
      ) from error
    if not is_good:
      raise answer
    return answer

  def close(self, at_once: bool) -> None:
    if at_once:
      self._process.kill()
    for file in (self._in, self._out):
      try:
        file.close()
      except OSError:  # it has ended before
        pass
    self._process.wait()


def _describe(code: int) -> str:
  return f'signal {-code}' if code < 0 else f'exit code {code}'


class Workers:
  """Processes that call one function, as many as are needed.

  >>> with Workers('gan_jax.runtime.errors:shortened', 1) as workers:
  ...   list(workers.map([('a  b',), ('c',)]))
  ['a b', 'c']
  """

  def __init__(self, function: str, count: int = 0) -> None:
    """Starts none before there is something to do.

    Args:
      function: `package.module:name`, of what can be pickled.
      count: processes; 0: one a core.
    """
    self.count = count or count_cores()
    self._function, self._own = function, threading.local()
    self._workers: list[_Worker] = []
    self._pool = ThreadPoolExecutor(self.count)

  def _call(self, args: Sequence[Any]) -> Any:
    worker = getattr(self._own, 'worker', None)
    if worker is None:
      worker = self._own.worker = _Worker(self._function)
      self._workers.append(worker)
    return worker.call(args)

  def submit(self, *args: Any) -> Future[Any]:
    """A call, whose answer comes later."""
    return self._pool.submit(self._call, args)

  def map(
    self, calls: Iterable[Sequence[Any]], ahead: int = 4
  ) -> Iterator[Any]:
    """The answers in order; `ahead` calls a process are on their way."""
    waiting = iter(calls)
    started = collections.deque(
      self.submit(*args)
      for args in itertools.islice(waiting, self.count * ahead)
    )
    while started:
      answer = started.popleft().result()
      started.extend(
        self.submit(*args) for args in itertools.islice(waiting, 1)
      )
      yield answer

  def close(self, at_once: bool = False) -> None:
    """Ends the processes, each after what it is at, or at once."""
    self._pool.shutdown(wait=not at_once, cancel_futures=True)
    for worker in self._workers:
      worker.close(at_once)

  def __enter__(self) -> 'Workers':
    return self

  def __exit__(self, kind: Any, *error: Any) -> None:
    # A signal, for example, is not to wait for what nobody will read.
    self.close(at_once=kind is not None)


__all__ = ['Workers', 'count_cores', 'serve']
