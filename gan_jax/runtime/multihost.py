"""Agreement among the processes of a job.

Every process must call these at the same point of its program, and all of them
get the same answer. A process that is alone communicates with nobody, nor does
one that works apart.
"""

import contextlib
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from gan_jax.runtime.errors import Error


class _Job(NamedTuple):
  """What JAX knows of it: its service, this process and how many there are."""

  client: Any = None
  process_id: int = 0
  num_processes: int = 1


_left: _Job | None = None  # that this process works apart from


@contextlib.contextmanager
def apart() -> Iterator[None]:
  """Within, this process works as if it were alone, on its own devices.

  So do its threads. Of the others JAX knows nothing then, so that no process
  waits for another one to look for its devices; unless it has looked before.
  `Board` still reaches them.
  """
  global _left
  if is_apart():
    yield
    return
  _left = job = _job()
  _set_job(_Job())
  try:
    yield
  finally:
    _set_job(job)
    _left = None


def is_apart() -> bool:
  """Whether this process works as if it were alone."""
  return _left is not None


def is_primary() -> bool:
  """Whether this is the first process, which alone writes files and talks."""
  return is_apart() or jax.process_index() == 0


def is_alone() -> bool:
  """Whether there is no other process."""
  return is_apart() or jax.process_count() == 1


def devices() -> list[jax.Device]:
  """Those that are computed on: of all processes, or of this one apart."""
  return jax.local_devices() if is_apart() else jax.devices()


def _gather(values: NDArray[np.generic]) -> NDArray[np.generic]:
  """The arrays of all processes, (processes, ...)."""
  if is_alone():
    return values[None]
  from jax.experimental import multihost_utils

  gathered = np.asarray(multihost_utils.process_allgather(values))
  return gathered.reshape(-1, *values.shape)


def broadcast_number(value: int) -> int:
  """The whole number that the first process holds."""
  if is_alone():
    return value
  from jax.experimental import multihost_utils

  return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def broadcast_flag(value: bool) -> bool:
  """The truth value that the first process holds."""
  return bool(broadcast_number(value))


def find_maximum(value: int) -> int:
  """The greatest of the numbers that the processes hold."""
  return int(_gather(np.array(value, np.int32)).max())


def all_equal(text: str) -> bool:
  """Whether all processes hold the same text."""
  digest = hashlib.sha256(text.encode()).digest()
  rows = _gather(np.frombuffer(digest, np.int32))
  return bool((rows == rows[0]).all())


def agree_on_dispatch(stop: bool, count: int) -> tuple[bool, int]:
  """Whether any process must stop, and the fewest steps that one can take."""
  rows = _gather(np.array([stop, count], np.int32))
  return bool(rows[:, 0].any()), int(rows[:, 1].min())


def wait_for_all(reason: str) -> None:
  """Returns when every process has come here."""
  if not is_alone():
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(reason)


# Before JAX computes: by the service through which the processes found each
# other.

_numbers, _boards = itertools.count(), itertools.count()
_LONG = 7200  # seconds


def _job() -> _Job:
  from jax._src import distributed  # no public function says it

  state: Any = distributed.global_state
  client, number, count = state.client, state.process_id, state.num_processes
  return _left or _Job(client, number or 0, count or 1)


def _set_job(job: _Job) -> None:
  from jax._src import distributed

  state: Any = distributed.global_state
  state.client, state.process_id, state.num_processes = job


def _service() -> tuple[Any, int]:
  """Its client, None for a process that is alone, and the process's number."""
  return (None, 0) if is_apart() else (_job().client, number())


def number() -> int:
  """Of this process among those of the job; no device is looked for."""
  return _job().process_id


def count() -> int:
  """Of the processes of the job; no device is looked for."""
  return _job().num_processes


def leave() -> None:
  """Ends this process's part in the job, when all the others do.

  Else the service of the first process may go while another one still asks it,
  which ends that one by a crash.
  """
  with contextlib.suppress(RuntimeError):  # it is gone
    jax.distributed.shutdown()


def check_together() -> None:
  """Raises where JAX has begun to compute in this process apart from others.

  Raises:
    Error: with the remedy.
  """
  if not is_apart() and count() > jax.process_count() == 1:
    raise Error(
      '`multihost=true`: this process has computed apart from the others of its'
      ' job, in an ablation; JAX cannot go back: start another process'
    )


def is_first() -> bool:
  """As `is_primary`; no device is looked for."""
  return is_apart() or number() == 0


def tell_others(text: str | None) -> str:
  """The text of the first process, which alone gives one."""
  client, own = _service()
  if client is None:
    assert text is not None
    return text
  key = f'gan_jax/{next(_numbers)}'
  if own == 0:
    assert text is not None
    client.key_value_set(key, f'={text}')
    return text
  received: str = client.blocking_key_value_get(key, _LONG * 1000)
  return received[1:]


def meet_others(reason: str) -> None:
  """As `wait_for_all`; no device is looked for."""
  client, _ = _service()
  if client is not None:
    client.wait_at_barrier(f'{reason} {next(_numbers)}', _LONG * 1000)


class Board:
  """A text of each process, for all to read; apart from each other or not.

  Every process of the job makes its boards in the same order.
  """

  def __init__(self) -> None:
    """Nobody has written yet."""
    self._client, self._topic = _job().client, f'gan_jax/board{next(_boards)}/'

  def write(self, text: str) -> None:
    """The text of this process, in the place of one before."""
    self._client.key_value_set(
      f'{self._topic}{number()}', f'={text}', allow_overwrite=True
    )

  def read(self) -> dict[int, str]:
    """The texts that are there, by the number of the process.

    Raises:
      JaxRuntimeError: if the first process, which keeps them, is gone.
    """
    found = self._client.key_value_dir_get(self._topic)
    return {int(key.rpartition('/')[2]): text[1:] for key, text in found}
