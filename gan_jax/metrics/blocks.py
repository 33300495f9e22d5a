"""Squared distances between two sets, a block at a time on the device.

No table of all pairs is ever held: memory is that of the two sets and of one
block. Blocks are padded to one shape, for a program to be compiled once.

Everything is in float64. In float32 |a|^2 + |b|^2 - 2ab loses the digits that
say which of two neighbours is nearer, and precision, density and coverage are
counts of such decisions.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64, Int
from numpy.typing import NDArray

ROWS = 1024  # of a block, at the most

Table = Float64[Array, 'rows columns']


def x64() -> Any:
  """A context in which JAX computes in float64 where it is asked to."""
  if hasattr(jax, 'enable_x64'):
    return jax.enable_x64(True)
  from jax import experimental  # JAX before 0.8

  return experimental.enable_x64()  # type: ignore[attr-defined]


class Block(NamedTuple):
  """Rows `start` to `start + filled` of a set, padded with zeros.

  Attributes:
    x: (rows, dim), on the device.
    start: index of its first row in the set.
    filled: rows that are not padding.
  """

  x: Any
  start: int
  filled: int

  @property
  def rows(self) -> slice:
    """Where they lie in the set."""
    return slice(self.start, self.start + self.filled)


def rows_for(*sizes: int) -> int:
  """Rows of the blocks of sets of such sizes: a power of two."""
  return min(ROWS, 1 << max(0, max(sizes) - 1).bit_length())


def split(x: NDArray[Any], rows: int) -> list[Block]:
  """A set (n, dim) as blocks of one shape on the device, as they are stored."""
  found = []
  with x64():
    for start in range(0, len(x), rows):
      part = x[start : start + rows]
      padded = np.zeros((rows, *x.shape[1:]), x.dtype)
      padded[: len(part)] = part
      found.append(Block(jnp.asarray(padded), start, len(part)))
  return found


def squared(a: Any, b: Any, centre: Any) -> Table:
  """`|a - b|^2` of every pair, (rows, columns); to be called inside `jit`.

  Both are moved to a common centre before they are multiplied: far from 0 the
  difference of large squares would have no digits left.
  """
  a, b = a.astype(jnp.float64) - centre, b.astype(jnp.float64) - centre
  dots = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
  norms = jnp.sum(a * a, 1)[:, None] + jnp.sum(b * b, 1)[None, :]
  return jnp.maximum(norms - 2 * dots, 0)


def centre_of(x: NDArray[Any]) -> NDArray[np.float64]:
  """The mean of a set, (1, dim)."""
  return x.mean(axis=0, keepdims=True, dtype=np.float64)


def slack_of(centre: NDArray[np.float64], *sets: NDArray[Any]) -> float:
  """How far rounding can move a squared distance, with room to spare.

  Squared distances that differ by less are taken as equal.
  """
  longest = max(
    float(np.square(part - centre).sum(axis=1).max())
    for x in sets
    for part in np.array_split(x, 1 + len(x) // ROWS)
  )
  return 1e-12 * longest


def pairs(a: list[Block], b: list[Block]) -> Iterator[tuple[Block, Block]]:
  """Every block of `a` with every block of `b`."""
  return ((left, right) for left in a for right in b)


@functools.partial(jax.jit, static_argnums=0)
def _nearer(
  k: int,
  best: tuple[Float64[Array, 'rows k'], Int[Array, 'rows k']],
  a: Any,
  b: Any,
  centre: Any,
  start: Any,
  hidden: Bool[Array, 'rows columns'],
) -> Any:
  """The `k` least of those known and of a further block."""
  away = jnp.where(hidden, jnp.inf, squared(a, b, centre))
  index = start + jnp.arange(away.shape[1])[None, :] + jnp.zeros_like(away, int)
  away = jnp.concatenate([best[0], away], axis=1)
  index = jnp.concatenate([best[1], index], axis=1)

  # `top_k` sorts whole rows: on a CPU that takes six times as long.
  def take(away: Any, _: Any) -> Any:
    at = jnp.argmin(away, axis=1)[:, None]
    least = jnp.take_along_axis(away, at, 1)[:, 0]
    taken = jnp.arange(away.shape[1])[None, :] == at
    return jnp.where(taken, jnp.inf, away), (
      least,
      jnp.take_along_axis(index, at, 1)[:, 0],
    )

  _, (least, which) = jax.lax.scan(take, away, None, length=k)
  return least.T, which.T


def nearest(
  x: NDArray[Any], among: NDArray[Any], k: int, *, itself: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
  """The `k` nearest of `among` to each of `x`.

  Args:
    x: (n, dim).
    among: (m, dim).
    k: at most m, or m - 1 without itself.
    itself: False where both are the same set, and a sample is not to be its
      own neighbour.

  Returns:
    Their indices and distances, (n, k), nearest first, the earlier first where
    two are equally near. The distances are those of float64 differences.
  """
  rows = rows_for(len(x), len(among))
  left, right = split(x, rows), split(among, rows)
  which = np.empty((len(x), k), np.int64)
  across = np.arange(rows)
  with x64():
    centre = jnp.asarray(centre_of(among))
    for a in left:
      best = (
        jnp.full((rows, k), jnp.inf),
        jnp.zeros((rows, k), jnp.int64),
      )
      for b in right:
        hidden = np.broadcast_to(across >= b.filled, (rows, rows))
        if not itself:
          same = a.start + across[:, None] == b.start + across[None, :]
          hidden = hidden | same
        best = _nearer(k, best, a.x, b.x, centre, b.start, hidden)
      which[a.rows] = np.asarray(best[1])[: a.filled]
  return _by_distance(x, among, which)


def _by_distance(
  x: NDArray[Any], among: NDArray[Any], which: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
  """Neighbours in the order of their exact distances, and these."""
  away = np.empty(which.shape)
  for column in range(which.shape[1]):
    for start in range(0, len(x), ROWS):
      part = slice(start, start + ROWS)
      near = among[which[part, column]].astype(np.float64)
      away[part, column] = np.linalg.norm(x[part] - near, axis=1)
  order = np.lexsort((which, away), axis=1)
  return np.take_along_axis(which, order, 1), np.take_along_axis(away, order, 1)
