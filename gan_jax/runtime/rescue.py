"""A state that one process of a job saves alone, when the others are lost.

Checkpoints are written by all processes of a job together. Where one of them
hangs or was killed, each that lives holds the whole state all the same: it is
written to `workdir/rescue/STEP.npz`, whole or not at all, with the same hash of
each array, and a restart takes it where it is newer than the checkpoints.
"""

import contextlib
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.runtime import mirror, multihost
from gan_jax.runtime.archives import ArchiveError, read_arrays
from gan_jax.runtime.array_cache import digest_arrays, digest_facts
from gan_jax.runtime.checkpoint import flatten
from gan_jax.runtime.files import open_atomic, remove_leftovers

PyTree = Any
Meta = dict[str, Any]
_BODY = 'body'  # the name of the description among the arrays


class Held(NamedTuple):
  """A state from which nothing needs to be computed any more.

  Attributes:
    step: of it.
    arrays: by path, keys as their raw data.
    keys: implementation of each key by its path.
    meta: what is saved beside it.
  """

  step: int
  arrays: dict[str, Any]
  keys: dict[str, str]
  meta: Meta


def _is_key(x: Any) -> bool:
  dtype = getattr(x, 'dtype', None)
  return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def hold(step: int, state: PyTree, meta: Meta) -> Held:
  """Makes a state ready to be saved by this process alone.

  Before it waits for others: a device that waits for a peer that is gone takes
  no further work.
  """
  leaves = flatten(state)
  keys = {
    name: str(jax.random.key_impl(x))
    for name, x in leaves.items()
    if _is_key(x)
  }
  arrays = {
    name: jax.random.key_data(x) if name in keys else x
    for name, x in leaves.items()
  }
  return Held(step, arrays, keys, meta)


def path_of(workdir: pathlib.Path, step: int) -> pathlib.Path:
  """Where the state of a step is written."""
  return workdir / 'rescue' / f'{step:09d}.npz'


def write(workdir: pathlib.Path, held: Held) -> bool:
  """Writes a state, unless another process has; says whether it did.

  Raises:
    OSError, StoreAway: if it cannot be written.
  """
  path = path_of(workdir, held.step)
  if path.exists():
    return False
  host = {name: np.asarray(x) for name, x in held.arrays.items()}
  types = {name: [str(x.dtype), list(x.shape)] for name, x in host.items()}
  body = dict(held.meta, step=held.step, arrays=types, keys=held.keys)
  body['digest'] = digest_arrays(host)
  body['seal'] = digest_facts(body)
  # As bytes: NumPy's files know no bfloat16.
  arrays: dict[str, Any] = {
    name: np.ascontiguousarray(x).reshape(-1).view(np.uint8)
    for name, x in host.items()
  }
  arrays[_BODY] = np.frombuffer(json.dumps(body).encode(), np.uint8)
  path.parent.mkdir(exist_ok=True)
  remove_leftovers(path.parent)
  with open_atomic(path) as file:
    np.savez(file, **arrays)
  stands_for = mirror.find(path)
  if stands_for is not None:  # this may not be the process that puts the rest
    stands_for.push(path)
  return True


def find_steps(workdir: pathlib.Path) -> list[int]:
  """Steps of the states that are there, oldest first."""
  paths = (workdir / 'rescue').glob('*.npz')
  return sorted(int(path.stem) for path in paths if path.stem.isdigit())


def discard(workdir: pathlib.Path, upto: int) -> None:
  """Removes what is no newer than a checkpoint."""
  if not multihost.is_primary():
    return
  for step in find_steps(workdir):
    if step <= upto:
      with contextlib.suppress(OSError):
        path_of(workdir, step).unlink()
  with contextlib.suppress(OSError):  # not there, or not empty
    (workdir / 'rescue').rmdir()


def read_newest(
  workdir: pathlib.Path,
  template: PyTree,
  above: int,
  warn: Callable[[str], None],
) -> tuple[PyTree, Meta] | None:
  """The newest whole state after a step; None if there is none.

  Several processes take the same one: the first says which, and all must find
  it whole.

  Args:
    workdir: of the run.
    template: a state of the same structure, shapes and types.
    above: step of the newest checkpoint.
    warn: is told what is damaged.
  """
  passed: list[int] = []
  while True:
    steps = [s for s in find_steps(workdir) if s > above and s not in passed]
    step = multihost.broadcast_number(max(steps, default=-1))
    if step < 0:
      return None
    restored, reason = None, 'another process cannot read it'
    try:
      restored = _read(path_of(workdir, step), template)
    except (ArchiveError, OSError, KeyError, ValueError) as error:
      reason = (str(error) or repr(error)).splitlines()[0][:200]
    if not multihost.find_maximum(int(restored is None)):
      return restored
    warn(f'{path_of(workdir, step)} is left out: {reason}')
    passed.append(step)


def _read(path: pathlib.Path, template: PyTree) -> tuple[PyTree, Meta]:
  arrays = read_arrays(path)
  body: Meta = json.loads(arrays.pop(_BODY).tobytes())
  seal = body.pop('seal')
  host = {
    name: np.frombuffer(arrays[name].tobytes(), jnp.dtype(dtype)).reshape(shape)
    for name, (dtype, shape) in body['arrays'].items()
  }
  if seal != digest_facts(body) or body['digest'] != digest_arrays(host):
    raise ValueError('it does not have the hash it was written with')
  leaves = flatten(template)

  def as_given(name: str) -> Any:
    leaf, x = leaves[name], host[name]
    if name in body['keys']:
      key = jnp.asarray(x)
      return jax.random.wrap_key_data(key, impl=body['keys'][name])
    if x.dtype != leaf.dtype or x.shape != leaf.shape:
      raise ValueError(f'{name} is of another shape or type')
    return x

  if leaves.keys() != host.keys():
    raise ValueError('it is of other networks or optimizers')
  tree = jax.tree.structure(template)
  return jax.tree.unflatten(tree, [as_given(name) for name in leaves]), body
