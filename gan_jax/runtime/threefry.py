"""Threefry as straight-line code on CPU: the same bits for a fraction.

There JAX lowers it as a loop, to spare an older compiler. Each draw and each
fold of a key then compiles several kernels in place of one, and reads and
writes its whole array in each of five rounds. On other back ends it is straight
already.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import threefry2x32_p
from jax.interpreters import mlir

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def hash_2x32(key1: Any, key2: Any, x1: Any, x2: Any) -> tuple[Any, Any]:
  """Threefry-2x32 of 20 rounds, of uint32 arrays that broadcast.

  Args:
    key1: first half of the key.
    key2: its second half.
    x1: first half of the counter.
    x2: its second half.

  Reference: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3",
    section 3.3.

  >>> hashed = hash_2x32(*map(jnp.uint32, (0, 0, 0, 0)))
  >>> [hex(x) for x in hashed]
  ['0x6b200159', '0x99ba4efe']
  """
  key1, key2, x1, x2 = jnp.broadcast_arrays(key1, key2, x1, x2)

  def whole(n: int) -> Any:  # lax's own operations are traced in a third of
    return lax.full(x1.shape, n, jnp.uint32)  # the time that NumPy's take

  def turned(x: Any, r: int) -> Any:
    left = lax.shift_left(x, whole(r))
    return lax.bitwise_or(left, lax.shift_right_logical(x, whole(32 - r)))

  both = lax.bitwise_xor(key1, key2)
  keys = (key1, key2, lax.bitwise_xor(both, whole(_PARITY)))
  x1, x2 = lax.add(x1, key1), lax.add(x2, key2)
  for i in range(1, 6):
    for r in _ROTATIONS[(i - 1) % 2]:
      x1 = lax.add(x1, x2)
      x2 = lax.bitwise_xor(x1, turned(x2, r))
    x1 = lax.add(x1, keys[i % 3])
    x2 = lax.add(lax.add(x2, keys[(i + 1) % 3]), whole(i))
  return x1, x2


def use_straight_threefry() -> None:
  """Lowers Threefry on CPU as `hash_2x32`, in all that is compiled from now on.

  What is drawn stays the same, bit for bit.
  """
  # Jitted, so that it is one function of the program, called by all draws.
  lowering = mlir.lower_fun(jax.jit(hash_2x32), multiple_results=True)
  mlir.register_lowering(threefry2x32_p, lowering, platform='cpu')
