"""Agreement among the processes of a job.

Every process must call these at the same point of its program, and all of them
get the same answer. A process that is alone communicates with nobody.
"""

import hashlib
import itertools
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray


def is_primary() -> bool:
  """Whether this is the first process, which alone writes files and talks."""
  return jax.process_index() == 0


def is_alone() -> bool:
  """Whether there is no other process."""
  return jax.process_count() == 1


def _gather(values: NDArray[np.generic]) -> NDArray[np.generic]:
  """The arrays of all processes, (processes, ...)."""
  if jax.process_count() == 1:
    return values[None]
  from jax.experimental import multihost_utils

  gathered = np.asarray(multihost_utils.process_allgather(values))
  return gathered.reshape(-1, *values.shape)


def broadcast_number(value: int) -> int:
  """The whole number that the first process holds."""
  if jax.process_count() == 1:
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
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(reason)


# Before JAX computes: by the service through which the processes found each
# other.

_numbers = itertools.count()
_LONG = 7200  # seconds


def _service() -> tuple[Any, int]:
  """Its client, None for a process that is alone, and the process's number."""
  from jax._src import distributed  # no public function says it

  state = distributed.global_state
  return state.client, int(state.process_id or 0)


def number() -> int:
  """Of this process among those of the job; no device is looked for."""
  return _service()[1]


def is_first() -> bool:
  """As `is_primary`; no device is looked for."""
  return number() == 0


def tell_others(text: str | None) -> str:
  """The text of the first process, which alone gives one."""
  client, own = _service()
  key = f'gan_jax/{next(_numbers)}'
  if client is None:
    assert text is not None
    return text
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
