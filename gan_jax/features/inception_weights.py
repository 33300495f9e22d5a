"""The weights of the FID Inception, from the files that the public has.

The PyTorch port, the TensorFlow graph and an `.npz` of folded weights give the
same dict: `{layer: {'w': kernel, 'b': bias}}` with batch normalisation folded
in float64, `y = a (w * x) + beta - a mean`, `a = gamma / sqrt(var + 0.001)`.
"""

import hashlib
import os
import pathlib
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm
from numpy.typing import NDArray

from gan_jax.features import torch_file
from gan_jax.features.errors import FeatureError, FeatureFlagError
from gan_jax.features.inception_layout import LAYERS

Arrays = dict[str, NDArray[Any]]
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
GRAPH = 'classify_image_graph_def.pb'
_EPSILON = 0.001

# Mean absolute weight and mean bias of some folded layers of the public
# network: they tell it from another one, whatever file it comes in.
TRUE: dict[str, tuple[float, float]] = {
  'conv': (0.40511178, 0.79077662),
  'conv_4': (0.02607541, 1.46863288),
  'mixed/tower/conv_1': (0.01280965, 0.71799664),
  'mixed_3/conv': (0.01489042, -0.46784307),
  'mixed_4/tower_1/conv_4': (0.02583296, 0.10004199),
  'mixed_6/conv': (0.04317472, 0.08397839),
  'mixed_7/tower_2/conv': (0.06767572, -0.33920278),
}


class MissingLayer(FeatureError):
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
    FeatureFlagError: if there is no such file.
    FeatureError: if a file of a known name has another hash, or there is no
      network.
  """
  if not weights:
    path = cache / DEFAULT
    if not path.is_file():
      download(KNOWN[DEFAULT][1], path, KNOWN[DEFAULT][0])
  else:
    path = pathlib.Path(weights).expanduser()
    if not path.is_file():
      raise FeatureFlagError(f'--weights={weights}: no such file')
  start = KNOWN.get(path.name, ('', ''))[0]
  if start and not (found := digest(path)).startswith(start):
    raise FeatureError(
      f'{path}: has SHA-256 {found}, and the public file of this name begins'
      f' {start}; it is damaged or another file, get it again'
    )
  return path


def download(url: str, path: pathlib.Path, start: str) -> None:
  """Downloads a file whose SHA-256 begins with `start`, whole or not at all.

  Raises:
    FeatureError: without network, or if the hash differs.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
  try:
    with os.fdopen(handle, 'wb') as file:
      found = _fetch(url, file)
    if not found.startswith(start):
      raise FeatureError(
        f'{url}: what was downloaded has SHA-256 {found} and should begin'
        f' {start}; try again'
      )
    os.replace(name, path)
  except (urllib.error.URLError, OSError) as error:
    raise FeatureError(
      f'the weights could not be downloaded ({error}).\nOn a machine without'
      f' network, fetch this file elsewhere:\n  {url}\nand name it with'
      ' --weights=PATH'
    ) from error
  finally:
    pathlib.Path(name).unlink(missing_ok=True)


def _fetch(url: str, file: Any) -> str:
  """Copies what a URL holds; its SHA-256."""
  total = hashlib.sha256()
  with urllib.request.urlopen(url, timeout=30) as there:
    size = int(there.headers.get('Content-Length') or 0)
    with tqdm.tqdm(
      desc=url.rpartition('/')[2],
      total=size or None,
      unit='B',
      unit_scale=True,
      delay=1,
      disable=None,
    ) as bar:
      while block := there.read(1 << 20):
        total.update(block)
        file.write(block)
        bar.update(len(block))
  return total.hexdigest()


def load(path: pathlib.Path, layers: Sequence[str]) -> Folded:
  """The folded weights of some layers.

  Args:
    path: a `.pth` or `.pt` state dict, a `.pb` graph (or the `.tgz` that has
      it), or an `.npz` of folded weights.
    layers: keys of `layout.LAYERS`.

  Raises:
    FeatureError: if the file cannot be read, lacks a layer, or a layer has
      another shape or values that are not finite.
  """
  for suffixes, read in READERS.items():
    if path.name.endswith(suffixes):
      found = read(path, layers)
      break
  else:
    known = ', '.join(s for suffixes in READERS for s in suffixes)
    raise FeatureFlagError(
      f'--weights={path}: an unknown kind of file; use one of {known}'
    )
  _check(path, found, layers)
  return as_float32(path, found)


def as_float32(path: pathlib.Path, found: Folded) -> Folded:
  """Layers in single precision.

  Raises:
    FeatureError: if a value is not finite.
  """
  for layer, arrays in found.items():
    if not all(np.isfinite(x).all() for x in arrays.values()):
      raise FeatureError(
        f'{path}: layer {layer} has weights that are not finite; the file is'
        ' damaged, get it again'
      )
  return {
    layer: {k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()}
    for layer, arrays in found.items()
  }


def _check(path: pathlib.Path, found: Folded, layers: Sequence[str]) -> None:
  if not found:
    raise FeatureError(
      f'{path}: has no layer of the FID Inception; it is of another network'
    )
  for layer in layers:
    shape = LAYERS[layer].shape
    if layer not in found:
      raise MissingLayer(path, layer)
    w, b = found[layer]['w'], found[layer]['b']
    if w.shape != shape or b.shape != shape[-1:]:
      raise FeatureError(
        f'{path}: layer {layer} has shape {w.shape} and bias {b.shape}, and'
        f' the FID Inception {shape} and {shape[-1:]}; this is another network'
      )


def genuine(weights: Mapping[str, Mapping[str, Any]]) -> bool:
  """Whether these are the weights of the public network, to float precision."""
  return all(
    np.allclose(_facts(weights[layer]), facts, rtol=1e-4, atol=1e-6)
    for layer, facts in TRUE.items()
    if layer in weights
  )


def _facts(layer: Mapping[str, Any]) -> tuple[float, float]:
  w = np.abs(np.asarray(layer['w'], np.float64)).mean()
  return float(w), float(np.asarray(layer['b'], np.float64).mean())


def folded(kernel: Any, norm: Sequence[Any], epsilon: float) -> Arrays:
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
    FeatureError: if it is damaged, or holds anything but arrays.
  """
  try:
    with open(path, 'rb') as file, np.load(file) as arrays:
      return dict(arrays)
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise FeatureError(
      f'{path}: cannot be read as .npz ({error}); it is damaged, get it again'
    ) from error


def _read_npz(path: pathlib.Path, layers: Sequence[str]) -> Folded:
  arrays = read_npz(path)
  found: Folded = {}
  for layer in layers:
    # A slash would be a folder of the archive; both ways are in use.
    for name in (layer, layer.replace('/', '_')):
      if f'{name}/w' in arrays and f'{name}/b' in arrays:
        found[layer] = {k: arrays[f'{name}/{k}'] for k in ('w', 'b')}
  return found


def _read_torch(path: pathlib.Path, layers: Sequence[str]) -> Folded:
  state = torch_file.read(path)
  found: Folded = {}
  for layer in layers:
    name = LAYERS[layer].torch
    norm = [f'{name}.bn.{k}' for k in NORM]
    if layer == 'softmax':
      if 'fc.weight' in state and 'fc.bias' in state:
        found[layer] = {'w': state['fc.weight'].T, 'b': state['fc.bias']}
    elif {f'{name}.conv.weight', *norm} <= set(state):
      kernel = state[f'{name}.conv.weight'].transpose(2, 3, 1, 0)
      found[layer] = folded(kernel, [state[n] for n in norm], _EPSILON)
  return found


NORM = ('weight', 'bias', 'running_mean', 'running_var')


def _read_graph(path: pathlib.Path, layers: Sequence[str]) -> Folded:
  from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
  from tensorboardX.proto.graph_pb2 import GraphDef

  graph = GraphDef()
  try:
    graph.ParseFromString(path.read_bytes())
  except DecodeError as error:
    raise FeatureError(
      f'{path}: cannot be read as a TensorFlow graph ({error}); it is damaged'
      ' or something else, get it again'
    ) from error
  nodes = {node.name: node for node in graph.node}
  found: Folded = {}
  for layer in layers:
    if layer == 'softmax':
      names = ['softmax/weights', 'softmax/biases']
      if set(names) <= set(nodes):
        w, b = (_constant(nodes[name]) for name in names)
        found[layer] = {'w': w, 'b': b}
      continue
    names = [f'{layer}/batchnorm/{k}' for k in _MOMENTS]
    if not {f'{layer}/conv2d_params', f'{layer}/batchnorm', *names} <= {*nodes}:
      continue
    gamma, *moments = (_constant(nodes[name]) for name in names)
    attributes = nodes[f'{layer}/batchnorm'].attr
    if not attributes['scale_after_normalization'].b:
      gamma = np.ones_like(gamma)
    epsilon = attributes['variance_epsilon'].f
    kernel = _constant(nodes[f'{layer}/conv2d_params'])
    found[layer] = folded(kernel, [gamma, *moments], epsilon)
  return found


_MOMENTS = ('gamma', 'beta', 'moving_mean', 'moving_variance')


def _constant(node: Any) -> NDArray[Any]:
  tensor = node.attr['value'].tensor
  shape = [dim.size for dim in tensor.tensor_shape.dim]
  values = np.frombuffer(tensor.tensor_content, '<f4')
  if not tensor.tensor_content:
    values = np.array(tensor.float_val, np.float32)
    if values.size == 1:  # one value stands for all
      values = np.full(int(np.prod(shape)), values[0])
  return values.reshape(shape)


def _read_archive(path: pathlib.Path, layers: Sequence[str]) -> Folded:
  try:
    with tarfile.open(path) as archive, tempfile.TemporaryDirectory() as folder:
      member = archive.extractfile(GRAPH)
      assert member is not None
      graph = pathlib.Path(folder, GRAPH)
      graph.write_bytes(member.read())
      return _read_graph(graph, layers)
  except (tarfile.TarError, KeyError, EOFError, OSError) as error:
    raise FeatureError(
      f'{path}: has no {GRAPH} that can be read ({error}); get it again'
    ) from error


# By the ends of their names.
READERS: dict[
  tuple[str, ...], Callable[[pathlib.Path, Sequence[str]], Folded]
] = {
  ('.npz',): _read_npz,
  ('.pth', '.pt'): _read_torch,
  ('.pb',): _read_graph,
  ('.tgz', '.tar.gz'): _read_archive,
}
