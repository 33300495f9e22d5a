"""Threefry on CPU: the same bits for a fraction.

There JAX lowers it as a loop, which reads and writes its whole array in each of
five rounds. Straight code draws in one pass; but XLA repeats it in all that
reads it, and with keys folded from keys the program grows sixfold. So keys stay
a loop, and draws are straight. On other back ends all is straight already.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.random import threefry2x32_p
from jax.interpreters import mlir

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_KEYS = 32  # numbers at once, at most, that are taken for keys


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

  def whole(n: Any) -> Any:  # lax's own operations are traced in a third of
    return lax.full(x1.shape, n, jnp.uint32)  # the time that NumPy's take

  def turned(x: Any, r: Any) -> Any:
    left = lax.shift_left(x, whole(r))
    return lax.bitwise_or(left, lax.shift_right_logical(x, whole(32 - r)))

  def mixed(i: Any, state: Any) -> Any:
    """After four rounds more; what comes next is in front."""
    x1, x2, (first, second, third), (now, later) = state
    for k in range(4):
      x1 = lax.add(x1, x2)
      x2 = lax.bitwise_xor(x1, turned(x2, now[k]))
    x1, x2 = lax.add(x1, first), lax.add(lax.add(x2, second), whole(i))
    return x1, x2, (second, third, first), (later, now)

  parity = lax.bitwise_xor(lax.bitwise_xor(key1, key2), whole(_PARITY))
  x1, x2 = lax.add(x1, key1), lax.add(x2, key2)
  state = x1, x2, (key2, parity, key1), _ROTATIONS
  # A size that is a symbol, in what is exported, is that of draws.
  if not isinstance(x1.size, int) or x1.size > _KEYS:
    for i in range(1, 6):
      state = mixed(i, state)
  else:
    turns = tuple(jnp.array(turn, jnp.uint32) for turn in _ROTATIONS)
    state = lax.fori_loop(
      jnp.uint32(1), jnp.uint32(6), mixed, (*state[:3], turns)
    )
  return state[0], state[1]


def use_own_threefry() -> None:
  """Lowers Threefry on CPU as `hash_2x32`, in all that is compiled from now on.

  What is drawn stays the same, bit for bit.
  """
  # Jitted, so that it is one function of the program, called by all draws.
  lowering = mlir.lower_fun(jax.jit(hash_2x32), multiple_results=True)
  mlir.register_lowering(threefry2x32_p, lowering, platform='cpu')
