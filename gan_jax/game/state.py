"""What training changes: two players, a key, a step, the hyper-parameters.

Data only. Two players means two parameter trees and two optax states: nothing
is shared between G and D but the losses of `game.py`.
"""

from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

PyTree = Any
# A scalar array, or whatever a tree map puts in its place (a shape, a
# sharding): checked where it is used, not where it is kept.
Scalar = Any


class Node(flax.struct.PyTreeNode):
  """A frozen dataclass of arrays that is a pytree."""

  __no_type_check__: ClassVar[bool] = True


class Player(Node):
  """One network in training: parameters, running statistics, optax state."""

  params: PyTree
  stats: PyTree
  opt_state: PyTree


class Average(Node):
  """Exponential moving average of G's parameters and running statistics."""

  params: PyTree
  stats: PyTree


class State(Node):
  """All that training changes; a pytree of arrays.

  Attributes:
    step: updates of the whole game done, int32.
    key: the root key. It never changes: each use folds the step and a name in,
      so that the noise of a step does not depend on how the step was reached.
    g: the generator.
    d: the discriminator.
    ema: the averaged generator, or None when no average is kept.
    memory: what regularizers remember, by their names.
    hyper: the hyper-parameters by path, float32 scalars: a step uses these.
  """

  step: Scalar
  key: Scalar
  g: Player
  d: Player
  ema: Average | None
  memory: dict[str, PyTree]
  hyper: dict[str, Scalar]


def all_finite(tree: PyTree) -> Bool[Array, '']:
  """Whether every float of a tree is finite.

  Arrays of one shape are joined first and all are looked through at once: a
  kernel for each array would be a good part of what a step takes to compile.
  """
  joined: dict[Any, Any] = {}
  for x in jax.tree.leaves(tree):
    if jnp.issubdtype(x.dtype, jnp.inexact):
      kind, finite = (x.shape, x.dtype), jnp.isfinite(x)
      joined[kind] = joined[kind] & finite if kind in joined else finite
  if not joined:
    return jnp.bool_(True)
  return jnp.concatenate([jnp.ravel(x) for x in joined.values()]).all()


def count_parameters(params: PyTree) -> int:
  """Number of scalars in a tree of arrays."""
  return sum(x.size for x in jax.tree.leaves(params))


def norm(tree: PyTree) -> Float[Array, '']:
  """Euclidean norm over all leaves of a tree of arrays."""
  return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))
