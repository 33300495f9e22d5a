"""What a run is made of: two players, a key, a step, the numbers it is run at.

Data only. Two players means two parameter trees and two optax states: nothing
is shared between G and D but the losses of `game.py`.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

PyTree = Any
# A scalar array, or whatever a tree map puts in its place (a shape, a
# sharding): checked where it is used, not where it is kept.
Scalar = Any


class Player(flax.struct.PyTreeNode):
  """One network in training: parameters, running statistics, optax state."""

  params: PyTree
  stats: PyTree
  opt_state: PyTree


class Average(flax.struct.PyTreeNode):
  """Exponential moving average of G's parameters and running statistics."""

  params: PyTree
  stats: PyTree


class Anchors(flax.struct.PyTreeNode):
  """Running means of D's output on real and on generated samples (LeCam)."""

  real: Scalar
  fake: Scalar


class GANState(flax.struct.PyTreeNode):
  """All that training changes.

  Attributes:
    step: steps done, each a round of both players' moves, int32.
    key: the root key. It never changes: each use folds the step in, so that
      the noise of a step does not depend on how the step was reached.
    g: the generator.
    d: the discriminator.
    ema: the averaged generator, or None when no average is kept.
    anchors: of the LeCam penalty, or None without it.
  """

  step: Scalar
  key: Scalar
  g: Player
  d: Player
  ema: Any  # Average, or nothing: Orbax puts placeholders there
  anchors: Any = None  # Anchors, or nothing


class Hyper(flax.struct.PyTreeNode):
  """Numbers the compiled step takes as arguments.

  Changing one compiles nothing. `beta1` is the momentum of optimizers that
  have one decay; `penalties` are the weights of the game's regularizers, by
  `Term.key`. What a `Plan` switches on (`beta1_final_g`, `clip_g`, ...) is not
  read without it.
  """

  lr_g: Scalar
  lr_d: Scalar
  beta1_g: Scalar = 0.5
  beta1_d: Scalar = 0.5
  beta1_final_g: Scalar = 0.0
  beta1_final_d: Scalar = 0.0
  beta2_g: Scalar = 0.999
  beta2_d: Scalar = 0.999
  clip_g: Scalar = 0.0
  clip_d: Scalar = 0.0
  label_smoothing: Scalar = 0.0
  label_real: Scalar = 1.0
  label_fake: Scalar = 0.0
  label_target: Scalar = 1.0
  instance_noise: Scalar = 0.0
  instance_noise_kimg: Scalar = 0.0
  ema_halflife_kimg: Scalar = 0.0
  consensus: Scalar = 0.0
  penalties: Any = flax.struct.field(default_factory=dict)


def all_finite(tree: PyTree) -> Bool[Array, '']:
  """Whether every float of a tree is finite."""
  floats = [
    jnp.isfinite(x).all()
    for x in jax.tree.leaves(tree)
    if jnp.issubdtype(x.dtype, jnp.inexact)
  ]
  return jnp.stack(floats).all()


def count_parameters(params: PyTree) -> int:
  """Number of scalars in a tree of arrays."""
  return sum(x.size for x in jax.tree.leaves(params))


def norm(tree: PyTree) -> Float[Array, '']:
  """Euclidean norm over all leaves of a tree of arrays."""
  return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))
