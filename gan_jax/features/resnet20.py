"""The ResNet-20 of CIFAR-10: class histograms and features of its images.

Reference: He et al. 2016, arXiv:1512.03385, section 4.2 (shortcuts without
weights). Weights: those of akamaster/pytorch_resnet_cifar10 by their names.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8
from numpy.typing import NDArray

from gan_jax.features import inception_weights as files
from gan_jax.features import torch_file
from gan_jax.features.base import Features, Spec, Weights, make_features
from gan_jax.runtime.array_cache import Arrays
from gan_jax.runtime.errors import ArgumentError, DataError

SHAPE = (32, 32, 3)
CLASSES = 10
# Of ImageNet's training images, as its authors scale CIFAR-10's.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EPSILON = 1e-5
_STAGES = ((1, 16), (2, 32), (3, 64))
_HIGH = lax.Precision.HIGHEST


def layers() -> dict[str, tuple[int, int]]:
  """Inputs and outputs of the 3x3 convolutions, by the names of the file."""
  sizes, inputs = {'conv1': (3, 16)}, 16
  for stage, width in _STAGES:
    for block in range(3):
      for i in (1, 2):
        sizes[f'layer{stage}.{block}.conv{i}'] = (inputs, width)
        inputs = width
  return sizes


def forward(
  weights: Weights, images: UInt8[Array, 'n 32 32 3']
) -> tuple[Float[Array, 'n 10'], Float[Array, 'n 64']]:
  """Logits of the ten classes, and the features that they are made of."""
  mean, std = jnp.asarray(_MEAN), jnp.asarray(_STD)
  x = images.astype(jnp.float32) / 255 - mean[None, None, None]
  x = jax.nn.relu(_conv(weights['conv1'], x / std[None, None, None]))
  for stage, width in _STAGES:
    for block in range(3):
      stride = 2 if stage > 1 and block == 0 else 1
      name = f'layer{stage}.{block}'
      h = jax.nn.relu(_conv(weights[f'{name}.conv1'], x, stride))
      h = _conv(weights[f'{name}.conv2'], h)
      if stride == 2:  # every other pixel, and empty channels on either side
        room = (width // 4, width // 4)
        x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), room))
      x = jax.nn.relu(x + h)
  features = x.mean((1, 2))
  dense = weights['linear']
  logits = jnp.matmul(features, dense['w'], precision=_HIGH)
  return logits + dense['b'][None], features


def _conv(
  layer: Weights, x: Float[Array, 'n h w c'], stride: int = 1
) -> Float[Array, 'n _ _ out']:
  y = lax.conv_general_dilated(
    x,
    layer['w'],
    (stride, stride),
    ((1, 1), (1, 1)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    precision=_HIGH,
  )
  return y + layer['b'][None, None, None]


def read(path: pathlib.Path) -> files.Folded:
  """The weights of a file, batch norm folded.

  Raises:
    ArgumentError: for a file of an unknown kind.
    DataError: if it is not of this network.
  """
  state = files.read_npz(path) if path.suffix == '.npz' else _read_torch(path)
  folded: files.Folded = {}
  for name, (inputs, outputs) in layers().items():
    norm = name.replace('conv', 'bn')
    names = [f'{name}.weight', *(f'{norm}.{k}' for k in files.NORM)]
    kernel, *rest = _select(path, state, names, (outputs, inputs, 3, 3))
    folded[name] = files.fold(kernel.transpose(2, 3, 1, 0), rest, _EPSILON)
  names = ['linear.weight', 'linear.bias']
  w, b = _select(path, state, names, (CLASSES, 64))
  folded['linear'] = {'w': w.T, 'b': b}
  return files.as_float32(path, folded)


def _read_torch(path: pathlib.Path) -> Arrays:
  if path.suffix not in ('.th', '.pth', '.pt'):
    remedy = 'an unknown kind of file; use .npz, .th, .pth or .pt'
    raise ArgumentError('weights', str(path), remedy)
  return torch_file.read(path)


def _select(
  path: pathlib.Path,
  state: Arrays,
  names: Sequence[str],
  shape: tuple[int, ...],
) -> list[NDArray[Any]]:
  """Arrays by name: a kernel of that shape, and vectors of its outputs."""
  for i, name in enumerate(names):
    expected = shape[:1] if i else shape
    if name not in state or state[name].shape != expected:
      given = state[name].shape if name in state else 'missing'
      raise DataError(
        f'{path}: {name} should have shape {expected} and is {given}; give the'
        ' weights of a CIFAR-10 ResNet-20'
      )
  return [state[name] for name in names]


def _apply(
  weights: Weights, images: UInt8[Array, 'n 32 32 3'], outputs: Sequence[str]
) -> dict[str, Array]:
  logits, features = forward(weights, images)
  both = {'features': features, 'probabilities': jax.nn.softmax(logits)}
  return {name: both[name] for name in outputs}


def make(spec: Spec) -> Features:
  """Features (64) and class probabilities (10) of a trained ResNet-20.

  Raises:
    ArgumentError: for images that are not 32x32 colour, or no weights.
    DataError: if the file is not of this network.
  """
  if spec.options:
    raise ArgumentError('features', spec.text, 'has no options; use resnet20')
  if spec.sample_shape != SHAPE:
    remedy = (
      f'takes 32x32 colour images, and these are {spec.sample_shape}; use'
    )
    raise ArgumentError(
      'features', spec.text, f'{remedy} `image_size=32`, or other features'
    )
  if not spec.weights:
    raise ArgumentError(
      'features',
      spec.text,
      'needs `weights=PATH`, the file resnet20-12fca82f.th of\n'
      '  https://github.com/akamaster/pytorch_resnet_cifar10\nor an .npz of the'
      ' same arrays',
    )
  path = files.find(spec.weights, spec.cache)
  protocol = {
    'network': 'CIFAR-10 ResNet-20',
    'weights': path.name,
    'weights_sha256': files.digest(path),
  }
  return make_features(
    'resnet20', 64, _apply, read(path), protocol, SHAPE, classes=CLASSES
  )
