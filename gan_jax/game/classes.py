"""Classes of generated samples in a class-conditional game.

`Networks.class_counts` says how often each is drawn: as often as the training
data has it, or, where it is empty, all equally often. G and the scores meet
classes by the data's proportions unless they are told otherwise: scored with
even classes against a set that has them 9:1, a perfect generator would pass
for a bad one.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key
from numpy.typing import NDArray

from gan_jax.networks.base import Networks
from gan_jax.runtime.errors import ArgumentError

_COLUMNS = 32  # classes that each have a column of a grid
_SHOWN = 16  # of more classes than that, where not all are shown
CLASS_SAMPLINGS = ('data', 'uniform')
# 2^32 times the golden ratio, modulo 2^32: its multiples fall evenly.
_GOLDEN = 0x9E3779B9


def check_sampling(word: str) -> None:
  """Checks how classes are to be drawn.

  Raises:
    ArgumentError: for another word than those of `CLASS_SAMPLINGS`.
  """
  if word not in CLASS_SAMPLINGS:
    remedy = f'use {" or ".join(CLASS_SAMPLINGS)}'
    raise ArgumentError('class_sampling', word, remedy)


def classes_in_turn(count: int, classes: int) -> NDArray[np.int32] | None:
  """Classes 0, 1, ... for some samples; None for networks that know none."""
  return np.arange(count, dtype=np.int32) % classes if classes else None


def shown_classes(classes: int) -> NDArray[np.int32]:
  """Those that have a column of a grid: all, or some that lie evenly.

  >>> shown_classes(3).tolist(), len(shown_classes(1000))
  ([0, 1, 2], 16)
  """
  if classes <= _COLUMNS:
    return np.arange(classes, dtype=np.int32)
  return np.linspace(0, classes - 1, _SHOWN).round().astype(np.int32)


def lay_out(count: int, classes: int) -> tuple[NDArray[np.int32] | None, int]:
  """Classes of the samples in a grid, and its columns; 0: about square.

  A class a column; all classes in turn, row by row, of those that are too many
  for that where there is a sample for each; else some of the classes.
  """
  if not classes:
    return None, 0
  if classes > _COLUMNS and count >= classes:
    return classes_in_turn(count, classes), 0
  shown = shown_classes(classes)
  return shown[np.arange(count) % len(shown)], len(shown)


def draw_classes(
  networks: Networks, key: Key[Array, ''], n: int
) -> Int[Array, ' n']:
  """Independent draws of `n` classes, int32."""
  if not networks.class_counts:
    return jax.random.randint(key, (n,), 0, networks.classes)
  bits = jax.random.bits(key, (n,), jnp.uint32)
  return _find_classes(bits, networks.class_counts)


def numbered_classes(
  classes: int, counts: Sequence[int], number: Int[Array, ' n']
) -> Int[Array, ' n']:
  """The class of each sample by its number: a function of that alone.

  In turn where all are equally frequent. Else the place of the number's
  multiple of the golden ratio, modulo 1, among the shares of the classes: of
  any n consecutive samples each class has n times its share but for O(log n).

  Args:
    classes: how many there are.
    counts: how often each is drawn; empty: equally often.
    number: of the samples.
  """
  if not counts:
    return (number % classes).astype(jnp.int32)
  return _find_classes(number.astype(jnp.uint32) * jnp.uint32(_GOLDEN), counts)


def _find_classes(place: Any, counts: Sequence[int]) -> Any:
  """The class in whose share of [0, 2^32) each place lies."""
  present = [i for i, count in enumerate(counts) if count]
  ends = np.cumsum([counts[i] for i in present], dtype=object)
  edges = [int(end) * 2**32 // int(ends[-1]) for end in ends[:-1]]
  above = place[:, None] >= np.array([edges], np.uint32)
  return jnp.asarray(np.array(present, np.int32))[above.sum(axis=1)]


def describe_sampling(classes: int, counts: Sequence[int]) -> dict[str, Any]:
  """What the protocol of a score says of the classes; nothing without them."""
  if not classes:
    return {}
  if not counts:
    return {'class_sampling': 'uniform'}
  digest = hashlib.sha256(repr(tuple(map(int, counts))).encode()).hexdigest()
  return {'class_sampling': 'data', 'class_counts': digest[:16]}


def check_counts(counts: Any, classes: int) -> None:
  """Checks how often each class is drawn.

  Raises:
    ArgumentError: for another number of them than there are classes, or what
      counts nothing.
  """
  if not len(counts):
    return
  whole = all(isinstance(c, int | np.integer) and c >= 0 for c in counts)
  if not whole or len(counts) != classes or not sum(counts):
    remedy = (
      f'use {classes} whole numbers, one for each of `classes={classes}` and'
      ' not all 0'
      if classes
      else 'the networks have no classes; leave it out'
    )
    raise ArgumentError('class_counts', tuple(counts), remedy)
