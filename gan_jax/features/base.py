"""What a feature network is to the rest: facts, weights and a function."""

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

# A tree of arrays, in dicts.
Weights = Mapping[str, Any]
# (weights, samples, names of outputs) -> outputs, one row a sample; traced.
Apply = Callable[[Weights, Array, Sequence[str]], dict[str, Array]]


class Features(NamedTuple):
  """Features of samples, and what a score must say of them.

  Attributes:
    name: with tap and resizer, such as `inception-768`.
    dim: of the features.
    apply: `(weights, samples, outputs) -> {output: (n, ...)}`, traced: uint8
      images (n, height, width, channels), or float32 points (n, dim), to
      float32 features (n, dim) and probabilities (n, classes), with resizing
      and grey to colour inside.
    weights: on the device.
    sample_shape: (height, width, channels) of the images, or (dim,).
    protocol: all that the features depend on, in words and numbers.
    digest: hash of weights and protocol; equal means equal features.
    batch: samples at a time that fit into any memory.
    classes: that there are probabilities of; 0 for none.
  """

  name: str
  dim: int
  apply: Apply
  weights: Weights
  sample_shape: tuple[int, ...]
  protocol: dict[str, Any]
  digest: str
  batch: int
  classes: int = 0

  @property
  def outputs(self) -> tuple[str, ...]:
    """'features', and 'probabilities' where there are classes."""
    return ('features', 'probabilities') if self.classes else ('features',)


class Spec(NamedTuple):
  """What features are asked for.

  Attributes:
    text: such as `inception-768`.
    options: its words after the first.
    weights: path of a file of weights, or empty.
    sample_shape: (height, width, channels) of images, or (dim,) of points.
    data_dir: the data root, or empty for the default.
    cache: folder for what is downloaded or trained.
    dataset: that a classifier is trained on where `text` does not say.
  """

  text: str
  options: tuple[str, ...]
  weights: str
  sample_shape: tuple[int, ...]
  data_dir: str
  cache: pathlib.Path
  dataset: str


def make_features(
  name: str,
  dim: int,
  apply: Apply,
  weights: Weights,
  protocol: Mapping[str, Any],
  sample_shape: tuple[int, ...],
  *,
  classes: int = 0,
  batch: int = 512,
) -> Features:
  """Features of a traced function and its weights.

  Args:
    name: of the features.
    dim: of the features.
    apply: with outputs `features` and, with `classes`, `probabilities`. Passes
      with one and the same function share a compiled program.
    weights: a tree of NumPy arrays.
    protocol: of the features.
    sample_shape: of the samples that they take.
    classes: that there are probabilities of; 0 for none.
    batch: samples at a time.
  """
  protocol = {'features': name, **protocol}
  return Features(
    name,
    dim,
    apply,
    jax.tree.map(jnp.asarray, weights),
    tuple(sample_shape),
    protocol,
    _digest(weights, protocol),
    batch,
    classes,
  )


def _digest(weights: Weights, protocol: Mapping[str, Any]) -> str:
  """SHA-256 of the protocol and of every array with its place in the tree."""
  total = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
    x = np.ascontiguousarray(leaf)
    total.update(f'{jax.tree_util.keystr(path)} {x.dtype} {x.shape}'.encode())
    total.update(x.data)
  return total.hexdigest()
