"""Squared distances between two sets, a block at a time on the device.

No table of all pairs is ever held: memory is that of the two sets and of one
block. Blocks are padded to one shape: each computation is compiled once.

Everything is in float64. In float32 |a|^2 + |b|^2 - 2ab loses the digits that
say which of two neighbours is nearer, and precision, density and coverage are
counts of such decisions. Even in float64 it does where samples lie far from the
centre: every pair has a bound of its own on its rounding, and what lies within
it is decided by the differences of the samples themselves.
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
ELEMENTS = 1 << 22  # of the differences that are held at once

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
  """A median of each column, (1, dim), which outliers do not move.

  Of at most `ROWS` samples: any centre is right, a near one loses no digits.
  """
  some = x[:: -(-len(x) // ROWS)]
  return np.median(some.astype(np.float64), axis=0, keepdims=True)


def rounding_bounds(
  a: Num[Array, 'rows dim'],
  b: Num[Array, 'columns dim'],
  centre: Float64[Array, '1 dim'],
) -> Float64[Array, 'rows columns']:
  """How far rounding can move each of `squared_distances`, at the most.

  A sum of `dim` products is off by `dim eps / 2` of the sum of their sizes.
  The floor is for devices that only emulate float64.
  """
  norms_a, norms_b = (
    jnp.sum(jnp.square(x.astype(jnp.float64) - centre), 1) for x in (a, b)
  )
  return _unit(a.shape[1]) * (norms_a[:, None] + norms_b[None, :])


def _unit(dim: int) -> float:
  """Rounding of a squared distance over the sum of both squared norms."""
  return max(1e-12, (dim + 16) * float(np.finfo(np.float64).eps))


def _rounding(x: Numbers, centre: NDArray[np.float64]) -> NDArray[np.float64]:
  """What each sample adds to the `rounding_bounds` of its pairs, (n,)."""
  norms = [
    np.square(part - centre).sum(axis=1)
    for part in np.array_split(x, -(-len(x) // ROWS))
  ]
  return _unit(x.shape[1]) * np.concatenate(norms)


def exact_squares(
  x: Numbers, y: Numbers, i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[np.float64]:
  """`|x[i] - y[j]|^2` of listed pairs, of their differences in float64."""
  squares = np.empty(len(i))
  step = max(1, ELEMENTS // x.shape[1])
  for start in range(0, len(i), step):
    part = slice(start, start + step)
    differences = x[i[part]].astype(np.float64) - y[j[part]]
    squares[part] = np.square(differences).sum(axis=1)
  return squares


def pairs(a: list[Block], b: list[Block]) -> Iterator[tuple[Block, Block]]:
  """Every block of `a` with every block of `b`."""
  return ((left, right) for left in a for right in b)


class _Best(NamedTuple):
  """The samples that may be nearest so far, by the least they can be away.

  Attributes:
    least: lower bounds of squared distances, ascending.
    which: their indices.
  """

  least: Float64[Array, 'rows k']
  which: Int[Array, 'rows k']


def _least(
  a: Num[Array, 'rows dim'],
  b: Num[Array, 'columns dim'],
  centre: Float64[Array, '1 dim'],
  columns: Int[Array, ' columns'],
  own: Int[Array, ' rows'],
) -> Float64[Array, 'rows columns']:
  """Lower bounds of squared distances; infinite of what is hidden.

  Args:
    a: samples.
    b: those among which their neighbours are.
    centre: that both are moved to.
    columns: index of each of `b`; -1 for padding.
    own: index of the sample that is not to be found, each sample's own.
  """
  squares = squared_distances(a, b, centre) - rounding_bounds(a, b, centre)
  hidden = (columns[None, :] < 0) | (columns[None, :] == own[:, None])
  return jnp.where(hidden, jnp.inf, squares)


@functools.partial(jax.jit, static_argnums=0)
def _update_nearest(
  k: int,
  best: _Best,
  a: Num[Array, 'rows dim'],
  b: Num[Array, 'columns dim'],
  centre: Float64[Array, '1 dim'],
  columns: Int[Array, ' columns'],
  own: Int[Array, ' rows'],
) -> _Best:
  """The `k` first of the best and of a further block."""
  least = _least(a, b, centre, columns, own)
  index = jnp.broadcast_to(columns[None], least.shape)
  least = jnp.concatenate([best.least, least], axis=1)
  index = jnp.concatenate([best.which, index], axis=1)

  # `top_k` sorts whole rows: on a CPU that takes six times as long.
  def take(
    squares: Float64[Array, 'rows columns'], _: None
  ) -> tuple[Array, _Best]:
    at = jnp.argmin(squares, axis=1)[:, None]
    first = _Best(
      *(jnp.take_along_axis(v, at, 1)[:, 0] for v in (squares, index))
    )
    rows_taken = jnp.arange(squares.shape[1])[None, :] == at
    return jnp.where(rows_taken, jnp.inf, squares), first

  _, firsts = jax.lax.scan(take, least, None, length=k)
  return _Best(*(x.T for x in firsts))


@jax.jit
def _candidates(
  reach: Float64[Array, ' rows'],
  a: Num[Array, 'rows dim'],
  b: Num[Array, 'columns dim'],
  centre: Float64[Array, '1 dim'],
  columns: Int[Array, ' columns'],
  own: Int[Array, ' rows'],
) -> Bool[Array, 'rows columns']:
  """Which pairs may be as near as `reach`, squared."""
  least = _least(a, b, centre, columns, own)
  return (least <= reach[:, None]) & jnp.isfinite(least)


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
    Their indices and squared distances, (n, k), nearest first, the earlier
    first where two are equally near: those of float64 differences.
  """
  rows = rows_for(len(x), len(among))
  right = split(among, rows)
  index = np.empty((len(x), k), np.int64)
  least = np.empty((len(x), k + 1))
  middle = centre_of(among)
  with x64():
    centre = jnp.asarray(middle)
    for a in split(x, rows):
      own = np.arange(a.start, a.start + rows) if not itself else _none(rows)
      best = _Best(
        jnp.full((rows, k + 1), jnp.inf),
        jnp.zeros((rows, k + 1), jnp.int64),
      )
      for b in right:
        best = _update_nearest(
          k + 1, best, a.x, b.x, centre, _columns(b, rows), own
        )
      least[a.rows] = np.asarray(best.least)[: a.filled]
      index[a.rows] = np.asarray(best.which)[: a.filled, :k]
    bounds = _rounding(x, middle)[:, None] + _rounding(among, middle)[index]
    reach = (least[:, :k] + 2 * bounds).max(axis=1)
    squares = exact_squares(
      x, among, np.repeat(np.arange(len(x)), k), index.ravel()
    ).reshape(index.shape)
    index, squares = _sort(index, squares)
    again = np.flatnonzero(least[:, k] <= reach)
    index[again], squares[again] = _nearest_exactly(
      x, again, right, among, reach[again], centre, k, itself
    )
  return index, squares


def _none(rows: int) -> NDArray[np.int64]:
  return np.full(rows, -1)


def _columns(block: Block, rows: int) -> NDArray[np.int64]:
  """Index in its set of each row of a block; -1 for padding."""
  across = np.arange(rows)
  return np.where(across < block.filled, block.start + across, -1)


def _sort(
  index: NDArray[np.int64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
  """Neighbours in the order of their exact distances, and these."""
  order = np.lexsort((index, squares), axis=1)
  return (
    np.take_along_axis(index, order, 1),
    np.take_along_axis(squares, order, 1),
  )


def _nearest_exactly(
  x: Numbers,
  chosen: NDArray[np.int64],
  right: list[Block],
  among: Numbers,
  reach: NDArray[np.float64],
  centre: Array,
  k: int,
  itself: bool,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
  """`nearest` of the chosen samples, by differences alone.

  Args:
    x: the set.
    chosen: indices into it.
    right: blocks of those among which their neighbours are.
    among: the same, whole.
    reach: squared distance that the k-th neighbour does not exceed.
    centre: that all are moved to.
    k: neighbours.
    itself: whether a sample may be its own neighbour.
  """
  index = np.empty((len(chosen), k), np.int64)
  squares = np.empty((len(chosen), k))
  rows = right[0].x.shape[0]
  for a in split(x[chosen], rows):
    members = np.pad(chosen[a.rows], (0, rows - a.filled))
    limits = np.pad(reach[a.rows], (0, rows - a.filled), constant_values=-1)
    own = _none(rows) if itself else members
    neighbours = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    for b in right:
      near = _candidates(limits, a.x, b.x, centre, _columns(b, rows), own)
      row, column = np.nonzero(np.asarray(near)[: a.filled])
      column = column + b.start
      exact = exact_squares(x, among, members[row], column)
      neighbours = _first_of_each(
        k,
        np.concatenate([neighbours[0], row]),
        np.concatenate([neighbours[1], column]),
        np.concatenate([neighbours[2], exact]),
      )
    index[a.rows] = neighbours[1].reshape(-1, k)
    squares[a.rows] = neighbours[2].reshape(-1, k)
  return index, squares


def _first_of_each(
  k: int,
  row: NDArray[np.int64],
  column: NDArray[np.int64],
  squares: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
  """The `k` nearest columns of each row, in order; all where it has fewer."""
  order = np.lexsort((column, squares, row))
  row, column, squares = row[order], column[order], squares[order]
  place = np.arange(len(row)) - np.searchsorted(row, row)
  return row[place < k], column[place < k], squares[place < k]
