"""Squared distances between two sets, a block at a time on the device.

No table of all pairs is ever held: memory is that of the two sets and of one
block. Blocks are padded to one shape: each computation is compiled once.

Everything is in float64. In float32 |a|^2 + |b|^2 - 2ab loses the digits that
say which of two neighbours is nearer, and precision, density and coverage are
counts of such decisions.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64, Int, Num
from numpy.typing import NDArray

ROWS = 1024  # of a block, at the most

Numbers = NDArray[np.floating] | NDArray[np.integer]


def x64() -> contextlib.AbstractContextManager[None]:
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

  x: Array
  start: int
  filled: int

  @property
  def rows(self) -> slice:
    """Where they lie in the set."""
    return slice(self.start, self.start + self.filled)


def rows_for(*sizes: int) -> int:
  """Rows of the blocks of sets of such sizes: a power of two."""
  return min(ROWS, 1 << max(0, max(sizes) - 1).bit_length())


def split(x: Numbers, rows: int) -> list[Block]:
  """A set (n, ...) as blocks of one shape on the device, as they are stored."""
  blocks = []
  with x64():
    for start in range(0, len(x), rows):
      filled = x[start : start + rows]
      padded = np.zeros((rows, *x.shape[1:]), x.dtype)
      padded[: len(filled)] = filled
      blocks.append(Block(jnp.asarray(padded), start, len(filled)))
  return blocks


def squared_distances(
  a: Num[Array, 'rows dim'],
  b: Num[Array, 'columns dim'],
  centre: Float64[Array, '1 dim'],
) -> Float64[Array, 'rows columns']:
  """`|a - b|^2` of every pair; to be called inside `jit`.

  Both are moved to a common centre before they are multiplied: far from 0 the
  difference of large squares would have no digits left.
  """
  a, b = a.astype(jnp.float64) - centre, b.astype(jnp.float64) - centre
  dots = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
  norms = jnp.sum(a * a, 1)[:, None] + jnp.sum(b * b, 1)[None, :]
  return jnp.maximum(norms - 2 * dots, 0)


def centre_of(x: Numbers) -> NDArray[np.float64]:
  """The mean of a set, (1, dim)."""
  return x.mean(axis=0, keepdims=True, dtype=np.float64)


def slack_of(centre: NDArray[np.float64], *sets: NDArray[np.floating]) -> float:
  """How far rounding can move a squared distance, with room to spare.

  Squared distances that differ by less are taken as equal.
  """
  longest = max(
    float(np.square(rows - centre).sum(axis=1).max())
    for x in sets
    for rows in np.array_split(x, 1 + len(x) // ROWS)
  )
  return 1e-12 * longest


def pairs(a: list[Block], b: list[Block]) -> Iterator[tuple[Block, Block]]:
  """Every block of `a` with every block of `b`."""
  return ((left, right) for left in a for right in b)


Best = tuple[Float64[Array, 'rows k'], Int[Array, 'rows k']]


@functools.partial(jax.jit, static_argnums=0)
def _update_nearest(
  k: int,
  best: Best,
  a: Num[Array, 'rows dim'],
  b: Num[Array, 'columns dim'],
  centre: Float64[Array, '1 dim'],
  start: Int[Array, ''],
  hidden: Bool[Array, 'rows columns'],
) -> Best:
  """The `k` least distances, and whose, with a further block."""
  squares = jnp.where(hidden, jnp.inf, squared_distances(a, b, centre))
  index = jnp.broadcast_to(start + jnp.arange(b.shape[0])[None], squares.shape)
  squares = jnp.concatenate([best[0], squares], axis=1)
  index = jnp.concatenate([best[1], index], axis=1)

  # `top_k` sorts whole rows: on a CPU that takes six times as long.
  def take(
    squares: Float64[Array, 'rows columns'], _: None
  ) -> tuple[Array, tuple[Array, Array]]:
    at = jnp.argmin(squares, axis=1)[:, None]
    least = jnp.take_along_axis(squares, at, 1)[:, 0]
    rows_taken = jnp.arange(squares.shape[1])[None, :] == at
    return jnp.where(rows_taken, jnp.inf, squares), (
      least,
      jnp.take_along_axis(index, at, 1)[:, 0],
    )

  _, (least, nearest) = jax.lax.scan(take, squares, None, length=k)
  return least.T, nearest.T


def nearest(
  x: Numbers,
  among: Numbers,
  k: int,
  *,
  itself: bool = True,
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
  index = np.empty((len(x), k), np.int64)
  across = np.arange(rows)
  with x64():
    centre = jnp.asarray(centre_of(among))
    for a in left:
      best: Best = (
        jnp.full((rows, k), jnp.inf),
        jnp.zeros((rows, k), jnp.int64),
      )
      for b in right:
        hidden = np.broadcast_to(across >= b.filled, (rows, rows))
        if not itself:
          same = a.start + across[:, None] == b.start + across[None, :]
          hidden = hidden | same
        best = _update_nearest(
          k, best, a.x, b.x, centre, np.int64(b.start), hidden
        )
      index[a.rows] = np.asarray(best[1])[: a.filled]
  return _sort_by_distance(x, among, index)


def _sort_by_distance(
  x: Numbers, among: Numbers, index: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
  """Neighbours in the order of their exact distances, and these."""
  distances = np.empty(index.shape)
  for column in range(index.shape[1]):
    for start in range(0, len(x), ROWS):
      rows = slice(start, start + ROWS)
      near = among[index[rows, column]].astype(np.float64)
      distances[rows, column] = np.linalg.norm(x[rows] - near, axis=1)
  order = np.lexsort((index, distances), axis=1)
  return (
    np.take_along_axis(index, order, 1),
    np.take_along_axis(distances, order, 1),
  )
