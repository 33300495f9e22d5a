"""The layers of the FID Inception, and their weights from a file.

The graph of 2015-12-05 calls its layers by scopes (`mixed_4/tower/conv_1`), its
PyTorch port by torchvision's modules (`Mixed_6b.branch7x7_2`): `LAYERS` is the
dictionary between the two; `inception.py` has the wiring.

The PyTorch port's state dict and an `.npz` of folded weights give the same
dict: `{layer: {'w': kernel, 'b': bias}}` with batch normalisation folded in
float64, `y = a (w * x) + beta - a mean`, `a = gamma / sqrt(var + 0.001)`.

Reference: Szegedy et al. 2016, arXiv:1512.00567, section 6.
"""

import hashlib
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gan_jax.features import torch_file
from gan_jax.runtime import archives, places
from gan_jax.runtime.array_cache import Arrays
from gan_jax.runtime.errors import ArgumentError, DataError
from gan_jax.runtime.files import open_atomic
from gan_jax.runtime.progress import progress_bar

Folded = dict[str, Arrays]

_GITHUB = 'https://github.com/'
# First digits of the SHA-256 of files by the names they are published under,
# and where they are.
KNOWN: dict[str, tuple[str, str]] = {
  'pt_inception-2015-12-05-6726825d.pth': (
    '6726825d',
    _GITHUB + 'mseitzer/pytorch-fid/releases/download/fid_weights/'
    'pt_inception-2015-12-05-6726825d.pth',
  ),
  'weights-inception-2015-12-05-6726825d.pth': (
    '6726825d',
    _GITHUB + 'toshas/torch-fidelity/releases/download/v0.2.0/'
    'weights-inception-2015-12-05-6726825d.pth',
  ),
}
DEFAULT = 'pt_inception-2015-12-05-6726825d.pth'
_EPSILON = 0.001

# Mean absolute weight and mean bias of some folded layers of the public
# network: they tell it from another one, whatever file it comes in.
PUBLIC: dict[str, tuple[float, float]] = {
  'conv': (0.40511178, 0.79077662),
  'conv_4': (0.02607541, 1.46863288),
  'mixed/tower/conv_1': (0.01280965, 0.71799664),
  'mixed_3/conv': (0.01489042, -0.46784307),
  'mixed_4/tower_1/conv_4': (0.02583296, 0.10004199),
  'mixed_6/conv': (0.04317472, 0.08397839),
  'mixed_7/tower_2/conv': (0.06767572, -0.33920278),
}


class Layer(NamedTuple):
  """One layer with weights.

  Attributes:
    torch: its module in the PyTorch port.
    shape: of its kernel (height, width, in, out), or (in, out) of `softmax`.
  """

  torch: str
  shape: tuple[int, ...]


# Of a block: scope below it, module below it, kernel, inputs (0: those of the
# block, -1: the width given with it), outputs (likewise).
_Row = tuple[str, str, tuple[int, int], int, int]

_A: tuple[_Row, ...] = (
  ('conv', 'branch1x1', (1, 1), 0, 64),
  ('tower/conv', 'branch5x5_1', (1, 1), 0, 48),
  ('tower/conv_1', 'branch5x5_2', (5, 5), 48, 64),
  ('tower_1/conv', 'branch3x3dbl_1', (1, 1), 0, 64),
  ('tower_1/conv_1', 'branch3x3dbl_2', (3, 3), 64, 96),
  ('tower_1/conv_2', 'branch3x3dbl_3', (3, 3), 96, 96),
  ('tower_2/conv', 'branch_pool', (1, 1), 0, -1),
)
_B: tuple[_Row, ...] = (
  ('conv', 'branch3x3', (3, 3), 0, 384),
  ('tower/conv', 'branch3x3dbl_1', (1, 1), 0, 64),
  ('tower/conv_1', 'branch3x3dbl_2', (3, 3), 64, 96),
  ('tower/conv_2', 'branch3x3dbl_3', (3, 3), 96, 96),
)
_C: tuple[_Row, ...] = (
  ('conv', 'branch1x1', (1, 1), 0, 192),
  ('tower/conv', 'branch7x7_1', (1, 1), 0, -1),
  ('tower/conv_1', 'branch7x7_2', (1, 7), -1, -1),
  ('tower/conv_2', 'branch7x7_3', (7, 1), -1, 192),
  ('tower_1/conv', 'branch7x7dbl_1', (1, 1), 0, -1),
  ('tower_1/conv_1', 'branch7x7dbl_2', (7, 1), -1, -1),
  ('tower_1/conv_2', 'branch7x7dbl_3', (1, 7), -1, -1),
  ('tower_1/conv_3', 'branch7x7dbl_4', (7, 1), -1, -1),
  ('tower_1/conv_4', 'branch7x7dbl_5', (1, 7), -1, 192),
  ('tower_2/conv', 'branch_pool', (1, 1), 0, 192),
)
_D: tuple[_Row, ...] = (
  ('tower/conv', 'branch3x3_1', (1, 1), 0, 192),
  ('tower/conv_1', 'branch3x3_2', (3, 3), 192, 320),
  ('tower_1/conv', 'branch7x7x3_1', (1, 1), 0, 192),
  ('tower_1/conv_1', 'branch7x7x3_2', (1, 7), 192, 192),
  ('tower_1/conv_2', 'branch7x7x3_3', (7, 1), 192, 192),
  ('tower_1/conv_3', 'branch7x7x3_4', (3, 3), 192, 192),
)
_E: tuple[_Row, ...] = (
  ('conv', 'branch1x1', (1, 1), 0, 320),
  ('tower/conv', 'branch3x3_1', (1, 1), 0, 384),
  ('tower/mixed/conv', 'branch3x3_2a', (1, 3), 384, 384),
  ('tower/mixed/conv_1', 'branch3x3_2b', (3, 1), 384, 384),
  ('tower_1/conv', 'branch3x3dbl_1', (1, 1), 0, 448),
  ('tower_1/conv_1', 'branch3x3dbl_2', (3, 3), 448, 384),
  ('tower_1/mixed/conv', 'branch3x3dbl_3a', (1, 3), 384, 384),
  ('tower_1/mixed/conv_1', 'branch3x3dbl_3b', (3, 1), 384, 384),
  ('tower_2/conv', 'branch_pool', (1, 1), 0, 192),
)
# Block, module, rows, its inputs, and the channels that its rows leave open.
_BLOCKS = (
  ('mixed', 'Mixed_5b', _A, 192, 32),
  ('mixed_1', 'Mixed_5c', _A, 256, 64),
  ('mixed_2', 'Mixed_5d', _A, 288, 64),
  ('mixed_3', 'Mixed_6a', _B, 288, 0),
  ('mixed_4', 'Mixed_6b', _C, 768, 128),
  ('mixed_5', 'Mixed_6c', _C, 768, 160),
  ('mixed_6', 'Mixed_6d', _C, 768, 160),
  ('mixed_7', 'Mixed_6e', _C, 768, 192),
  ('mixed_8', 'Mixed_7a', _D, 768, 0),
  ('mixed_9', 'Mixed_7b', _E, 1280, 0),
  ('mixed_10', 'Mixed_7c', _E, 2048, 0),
)
CLASSES = 1008


def _layers() -> dict[str, Layer]:
  table = {
    'conv': Layer('Conv2d_1a_3x3', (3, 3, 3, 32)),
    'conv_1': Layer('Conv2d_2a_3x3', (3, 3, 32, 32)),
    'conv_2': Layer('Conv2d_2b_3x3', (3, 3, 32, 64)),
    'conv_3': Layer('Conv2d_3b_1x1', (1, 1, 64, 80)),
    'conv_4': Layer('Conv2d_4a_3x3', (3, 3, 80, 192)),
  }
  for block, module, rows, inputs, width in _BLOCKS:
    for scope, branch, kernel, ins, outs in rows:
      channels = [
        {0: inputs, -1: width}.get(ins, ins),
        width if outs < 0 else outs,
      ]
      table[f'{block}/{scope}'] = Layer(
        f'{module}.{branch}', (*kernel, *channels)
      )
  table['softmax'] = Layer('fc', (2048, CLASSES))
  return table


# By the scope in the graph, in the order of evaluation.
LAYERS: dict[str, Layer] = _layers()


class MissingLayer(DataError):
  """A file that ends before a layer."""

  def __init__(self, path: pathlib.Path, layer: str) -> None:
    super().__init__(f'{path}: has no weights of the layer {layer}')
    self.layer = layer


def digest(path: pathlib.Path) -> str:
  """SHA-256 of a file."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def find(weights: str, cache: pathlib.Path) -> pathlib.Path:
  """The weight file: the one named, or the public one, downloaded once.

  Args:
    weights: a path; empty for the public file.
    cache: folder that the public file is kept in.

  Raises:
    ArgumentError: if there is no such file.
    DataError: if a file of a known name has another hash, or there is no
      network.
  """
  if not weights:
    path = cache / DEFAULT
    if not path.is_file():
      download(KNOWN[DEFAULT][1], path, KNOWN[DEFAULT][0])
  else:
    path = places.resolved('weights', weights)
    if not os.path.isfile(path):
      raise ArgumentError('weights', weights, 'no such file')
  start = KNOWN.get(path.name, ('', ''))[0]
  if start and not (sha256 := digest(path)).startswith(start):
    raise DataError(
      f'{path}: has SHA-256 {sha256}, and the public file of this name begins'
      f' {start}; it is damaged or another file, get it again'
    )
  return path


def download(url: str, path: pathlib.Path, start: str) -> None:
  """Downloads a file whose SHA-256 begins with `start`, whole or not at all.

  Raises:
    DataError: without network, or if the hash differs.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    with open_atomic(path) as file:
      sha256 = _copy(url, file)
      if not sha256.startswith(start):
        raise DataError(
          f'{url}: what was downloaded has SHA-256 {sha256} and should begin'
          f' {start}; try again'
        )
  except OSError as error:  # of the network (URLError), or of the disk
    raise DataError(
      f'the weights could not be downloaded ({error}).\nOn a machine without'
      f' network, fetch this file elsewhere:\n  {url}\nand name it with'
      ' `weights=PATH`'
    ) from error


def _copy(url: str, file: IO[bytes]) -> str:
  """Copies what a URL holds; its SHA-256."""
  total, block = hashlib.sha256(), 1 << 20
  with urllib.request.urlopen(url, timeout=30) as response:
    size = int(response.headers.get('Content-Length') or 0)
    blocks = iter(lambda: response.read(block), b'')
    for content in progress_bar(blocks, -(-size // block), 'MiB of weights'):
      total.update(content)
      file.write(content)
  return total.hexdigest()


def load(path: pathlib.Path, layers: Sequence[str]) -> Folded:
  """The folded weights of some layers.

  Args:
    path: a `.pth` or `.pt` state dict, or an `.npz` of folded weights.
    layers: keys of `LAYERS`.

  Raises:
    ArgumentError: for a file of another kind.
    DataError: if the file cannot be read, lacks a layer, or a layer has another
      shape or values that are not finite.
  """
  readers = {'.npz': _read_npz, '.pth': _read_torch, '.pt': _read_torch}
  if path.suffix not in readers:
    remedy = f'an unknown kind of file; use one of {", ".join(readers)}'
    raise ArgumentError('weights', str(path), remedy)
  weights = readers[path.suffix](path, layers)
  _check(path, weights, layers)
  return as_float32(path, weights)


def as_float32(path: pathlib.Path, weights: Folded) -> Folded:
  """Layers in single precision.

  Raises:
    DataError: if a value is not finite.
  """
  for layer, arrays in weights.items():
    if not all(np.isfinite(x).all() for x in arrays.values()):
      raise DataError(
        f'{path}: layer {layer} has weights that are not finite; the file is'
        ' damaged, get it again'
      )
  return {
    layer: {k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()}
    for layer, arrays in weights.items()
  }


def _check(path: pathlib.Path, weights: Folded, layers: Sequence[str]) -> None:
  if not weights:
    raise DataError(
      f'{path}: has no layer of the FID Inception; it is of another network'
    )
  for layer in layers:
    shape = LAYERS[layer].shape
    if layer not in weights:
      raise MissingLayer(path, layer)
    w, b = weights[layer]['w'], weights[layer]['b']
    if w.shape != shape or b.shape != shape[-1:]:
      raise DataError(
        f'{path}: layer {layer} has shape {w.shape} and bias {b.shape}, and'
        f' the FID Inception {shape} and {shape[-1:]}; this is another network'
      )


def is_public(weights: Mapping[str, Mapping[str, ArrayLike]]) -> bool:
  """Whether these are the weights of the public network, to float precision."""
  return all(
    np.allclose(_summary(weights[layer]), summary, rtol=1e-4, atol=1e-6)
    for layer, summary in PUBLIC.items()
    if layer in weights
  )


def _summary(layer: Mapping[str, ArrayLike]) -> tuple[float, float]:
  w = np.abs(np.asarray(layer['w'], np.float64)).mean()
  return float(w), float(np.asarray(layer['b'], np.float64).mean())


def fold(
  kernel: ArrayLike, norm: Sequence[ArrayLike], epsilon: float
) -> Arrays:
  """A convolution (height, width, in, out) with its batch norm folded in.

  Args:
    kernel: of the convolution.
    norm: gamma, beta, mean and variance, of each output.
    epsilon: added to the variance.
  """
  w, gamma, beta, mean, var = (
    np.asarray(v, np.float64) for v in (kernel, *norm)
  )
  a = gamma / np.sqrt(var + epsilon)
  return {'w': w * a, 'b': beta - a * mean}


def read_npz(path: pathlib.Path) -> Arrays:
  """The arrays of an `.npz`.

  Raises:
    DataError: if it is damaged, or holds anything but arrays.
  """
  try:
    return archives.read_arrays(path)
  except OSError as error:
    raise archives.ArchiveError(path, str(error)) from error


def _read_npz(path: pathlib.Path, layers: Sequence[str]) -> Folded:
  arrays = read_npz(path)
  weights: Folded = {}
  for layer in layers:
    # A slash would be a folder of the archive; both ways are in use.
    for name in (layer, layer.replace('/', '_')):
      if f'{name}/w' in arrays and f'{name}/b' in arrays:
        weights[layer] = {k: arrays[f'{name}/{k}'] for k in ('w', 'b')}
  return weights


NORM = ('weight', 'bias', 'running_mean', 'running_var')


def _read_torch(path: pathlib.Path, layers: Sequence[str]) -> Folded:
  state = torch_file.read(path)
  weights: Folded = {}
  for layer in layers:
    name = LAYERS[layer].torch
    norm = [f'{name}.bn.{k}' for k in NORM]
    if layer == 'softmax':
      if 'fc.weight' in state and 'fc.bias' in state:
        weights[layer] = {'w': state['fc.weight'].T, 'b': state['fc.bias']}
    elif {f'{name}.conv.weight', *norm} <= set(state):
      kernel = state[f'{name}.conv.weight'].transpose(2, 3, 1, 0)
      weights[layer] = fold(kernel, [state[n] for n in norm], _EPSILON)
  return weights
