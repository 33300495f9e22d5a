"""What a feature network is to the rest: data, and two traced functions."""

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.features.errors import FeatureError

# (weights, images, names of the outputs wanted) -> outputs, one row an image.
See = Callable[[Any, Any, Sequence[str]], dict[str, Any]]


class Features(NamedTuple):
  """Features of images, and what a score must tell of them.

  Attributes:
    name: with tap and resizer, such as `inception-768`.
    dim: of the features.
    extract: traced; uint8 images (n, height, width, channels) to float32
      (n, dim), with resizing and grey to colour inside.
    probabilities: traced; the images to (n, classes), None without classes.
    digest: hash of weights and protocol; equal means equal features.
    protocol: all that the features depend on, in words and numbers.
    see: as `extract` and `probabilities` at once, with the weights as an
      argument, so that they are no constants of the compiled program.
    weights: of `see`.
    batch: images at a time that fit into any memory.
  """

  name: str
  dim: int
  extract: Callable[[Any], Any]
  probabilities: Callable[[Any], Any] | None
  digest: str
  protocol: dict[str, Any]
  see: See
  weights: Any
  batch: int


class Request(NamedTuple):
  """What `load` was asked for.

  Attributes:
    spec: as `--features` has it.
    options: its words after the first.
    weights: a path, or empty.
    image_shape: (height, width, channels) of the images, or (dim,) of points.
    cache: folder for what is downloaded or trained.
    data_dir: as `--data_dir` has it.
    dataset: that a classifier is trained on.
  """

  spec: str
  options: tuple[str, ...]
  weights: str
  image_shape: tuple[int, ...]
  cache: pathlib.Path
  data_dir: str = ''
  dataset: str = ''


def make_features(
  name: str,
  dim: int,
  see: See,
  weights: Any,
  protocol: dict[str, Any],
  image_shape: tuple[int, ...],
  *,
  classes: bool = False,
  batch: int = 512,
) -> Features:
  """Features from a traced function and its weights.

  Args:
    name: of the features.
    dim: of the features.
    see: with outputs `features` and, with `classes`, `probabilities`.
    weights: a tree of NumPy arrays.
    protocol: of the features.
    image_shape: of the images that they take.
    classes: whether there are probabilities.
    batch: images at a time.
  """
  protocol = {'features': name, **protocol}
  outputs = ('features', 'probabilities') if classes else ('features',)
  placed = jax.tree.map(jnp.asarray, weights)

  def checked(weights: Any, images: Any, wanted: Sequence[str]) -> Any:
    images = jnp.asarray(images)
    _check(name, images, image_shape)
    unknown = [output for output in wanted if output not in outputs]
    if unknown:
      raise FeatureError(
        f'--features={name}: gives {", ".join(outputs)}, and no'
        f' {", ".join(unknown)}; use a classifier'
      )
    return see(weights, images, wanted)

  def probabilities(images: Any) -> Any:
    return checked(placed, images, ('probabilities',))['probabilities']

  return Features(
    name,
    dim,
    lambda images: checked(placed, images, ('features',))['features'],
    probabilities if classes else None,
    _digest(weights, protocol),
    protocol,
    checked,
    placed,
    batch,
  )


def _check(name: str, images: Any, shape: tuple[int, ...]) -> None:
  dtype = jnp.uint8 if len(shape) == 3 else jnp.float32
  if images.dtype != dtype or tuple(images.shape[1:]) != tuple(shape):
    raise FeatureError(
      f'--features={name}: takes {jnp.dtype(dtype).name} of shape (n,'
      f' {", ".join(map(str, shape))}), and was given {images.dtype}'
      f' {tuple(images.shape)}; convert them, images to the range 0 to 255'
    )


def _digest(weights: Any, protocol: Mapping[str, Any]) -> str:
  """SHA-256 of the protocol and of every array with its place in the tree."""
  total = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
    x = np.ascontiguousarray(leaf)
    total.update(f'{jax.tree_util.keystr(path)} {x.dtype} {x.shape}'.encode())
    total.update(x.data)
  return total.hexdigest()
