"""Random keys by name: a stream of its own for each use of a key.

`stream(key, 'latent')` does not depend on what else is drawn, so that a new
draw changes no other one. Within one loss every stream is handed out once.
"""

import zlib

import jax
from jaxtyping import Array, Int, Key

from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.threefry import use_own_threefry

SEED_MAX = 2**31 - 1
use_own_threefry()


def stream(
  key: Key[Array, ''], name: str, *index: int | Int[Array, '']
) -> Key[Array, '']:
  """The key of a named stream, and of a numbered part of it.

  Args:
    key: the root; it is left as it is.
    name: of the use.
    index: numbers of parts, such as the step.

  >>> a, b = (stream(jax.random.key(0), name) for name in ('latent', 'dropout'))
  >>> bool((jax.random.key_data(a) == jax.random.key_data(b)).all())
  False
  """
  folded = jax.random.fold_in(jax.random.clone(key), _number(name))
  for i in index:
    folded = jax.random.fold_in(folded, i)
  return folded


def _number(name: str) -> int:
  """A number of a name, the same in every process; Python's hash is not."""
  return zlib.crc32(name.encode()) & 0x7FFFFFFF


def check_seed(argument: str, seed: int, count: int = 1) -> None:
  """Refuses a seed that a key would cut short, to be that of another.

  Args:
    argument: its name.
    seed: the first of `count`.
    count: of seeds.

  Raises:
    ArgumentError: for one that is not of 0 to 2^31 - 1.
  """
  if not 0 <= seed <= SEED_MAX:
    raise ArgumentError(argument, seed, f'use 0 to {SEED_MAX}')
  if seed + count - 1 > SEED_MAX:
    remedy = f'{count} seeds from it on exceed {SEED_MAX}; use a smaller one'
    raise ArgumentError(argument, seed, remedy)


class Streams:
  """The streams of one key, each handed out once.

  The check is made while a program is traced.
  """

  def __init__(self, key: Key[Array, '']) -> None:
    """Nothing is handed out yet."""
    self._key = key
    self._used: set[str] = set()

  def __call__(self, name: str) -> Key[Array, '']:
    """The key of a stream.

    Raises:
      AssertionError: if it was handed out before.
    """
    assert name not in self._used, f'the stream {name} would be drawn twice'
    self._used.add(name)
    return stream(self._key, name)
