"""Wasserstein-1 distance of samples on a line."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


def distances_on_lines(
  x: Float[np.ndarray, 'n columns'], y: Float[np.ndarray, 'm columns']
) -> NDArray[np.float64]:
  """Wasserstein-1 distance of each column of two sets, (columns,).

  `W1 = int_0^1 |F^-1(u) - G^-1(u)| du`, exactly, of sets of any sizes: the
  quantile functions are steps, cut here at the steps of either.
  """
  x, y = np.sort(x, axis=0), np.sort(y, axis=0)
  if len(x) == len(y):
    return np.abs(x - y).mean(axis=0, dtype=np.float64)
  n, m = len(x), len(y)
  # Steps in units of 1 / (n m): whole numbers, so that none is cut by rounding.
  ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
  widths = np.diff(ends, prepend=0) / (n * m)
  gaps = np.abs(x[(ends - 1) // m] - y[(ends - 1) // n])
  return np.einsum('uc,u->c', gaps, widths, dtype=np.float64)


def draw_directions(
  rng: np.random.Generator, count: int, dim: int
) -> NDArray[np.float32]:
  """Uniform on the unit sphere, (dim, count)."""
  normal = rng.normal(size=(dim, count))
  return (normal / np.linalg.norm(normal, axis=0)).astype(np.float32)
