"""The Inception network of the Fréchet distance, exact to its graph.

FID is defined by one frozen network, the graph `inception-2015-12-05`. It is
not the Inception V3 of the model zoos: it has 1008 classes, its average pools
leave the padding out of their count, its last block pools by the maximum, and
it resizes by the rule of TensorFlow 1. Batch normalisation is folded into the
convolutions when the weights are read.

Forward only, so plain functions of a dict of weights: nothing here is trained.

Reference: Heusel et al. 2017, arXiv:1706.08500; Szegedy et al. 2016,
arXiv:1512.00567.
"""

import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from gan_jax.features import inception_weights as files
from gan_jax.features.base import Apply, Features, Spec, make_features
from gan_jax.features.inception_weights import LAYERS
from gan_jax.features.resize import RESIZERS, resize
from gan_jax.runtime.errors import ArgumentError, DataError

SIDE = 299
Layer = Mapping[str, Any]  # kernel `w` and bias `b`
Weights = Mapping[str, Layer]
Maps = Float[Array, 'n _ _ _']
_ORDER = ('NHWC', 'HWIO', 'NHWC')
_HIGH = lax.Precision.HIGHEST  # an accelerator would round to bfloat16

_EDGE = ((0, 0), (1, 1), (1, 1), (0, 0))

# The 1x1 convolutions of a block's input; `tower_2/conv` of its average.
_ALL = ('conv', 'tower/conv', 'tower_1/conv', 'tower_2/conv')
_HEADS: dict[str, tuple[str, ...]] = {
  **{'mixed' + (f'_{i}' if i else ''): _ALL for i in (0, 1, 2, 4, 5, 6, 7, 9)},
  'mixed_8': ('tower/conv', 'tower_1/conv'),
  'mixed_10': _ALL[:3],
}

# The dimension of each tap, from the first to the last.
TAPS: dict[str, int] = {
  '64': 64,
  '192': 192,
  'sfid': 17 * 17 * 7,
  '768': 768,
  '2048': 2048,
  'logits': 1008,
  'logits_unbiased': 1008,
}
# The last layer whose weights a tap takes.
LAST: dict[str, str] = {
  '64': 'conv_2',
  '192': 'conv_4',
  'sfid': 'mixed_6/tower_2/conv',
  '768': 'mixed_7/tower_2/conv',
  '2048': 'mixed_10/tower_2/conv',
  'logits': 'softmax',
  'logits_unbiased': 'softmax',
}


def scale(
  images: UInt8[Array, 'n h w c'], rule: str, size: int = SIDE
) -> Float[Array, 'n size size 3']:
  """What the network is given: three channels, resized, about [-1, 1].

  `(x - 128) / 128` as in the graph; `x / 127.5 - 1` under the `pytorch` rule,
  as pytorch-fid scales.

  Args:
    images: grey or colour.
    rule: of resizing, a key of `resize.RESIZERS`.
    size: of both sides.
  """
  x = resize(images, size, rule)
  x = x / 127.5 - 1 if rule == 'pytorch' else (x - 128) / 128
  return jnp.repeat(x, 3, axis=-1) if x.shape[-1] == 1 else x


def forward(
  weights: Weights, x: Float[Array, 'n h w 3'], taps: Sequence[str]
) -> dict[str, Array]:
  """The taps of scaled images; evaluates no more than the deepest of them.

  Args:
    weights: `{layer: {'w': kernel, 'b': bias}}`, batch norm folded; or what
      `merge_heads` made of it.
    x: as `scale` gives them.
    taps: keys of `TAPS`.

  Returns:
    (n, dimension) of each tap: means over places of a layer's output, but of
    `sfid`, which is the first 7 channels of `mixed_6/conv` place by place, and
    of the logits; the Inception Score is taken of those without their bias.
  """
  values: dict[str, Array] = {}
  for tap, value in _taps(merge_heads(weights), x):
    if tap in taps:
      values[tap] = value
    if len(values) == len(set(taps)):
      break
  return values


def merge_heads(weights: Weights) -> Weights:
  """The weights with the kernels of each block's heads as one, `BLOCK/heads`.

  To join them again for every batch would cost as much as a convolution.
  """
  layers = dict(weights)
  for block, scopes in _HEADS.items():
    names = [f'{block}/{scope}' for scope in scopes]
    if f'{block}/heads' in layers or not {*names} <= {*layers}:
      continue
    kernels = [layers[name]['w'] for name in names]
    join = np if isinstance(kernels[0], np.ndarray) else jnp
    layers[f'{block}/heads'] = {'w': join.concatenate(kernels, axis=3)}
    layers |= {name: {'b': layers[name]['b']} for name in names}
  return layers


def _taps(weights: Weights, x: Maps) -> Iterator[tuple[str, Array]]:
  """Every tap in turn; what follows the last one asked for is not evaluated."""
  x = _conv(weights['conv'], x, 2, 'VALID')
  x = _conv(weights['conv_1'], x, 1, 'VALID')
  x = _pooled(weights['conv_2'], x, 'SAME')
  yield '64', x.mean((1, 2))
  x = _conv(weights['conv_3'], x)
  x = _pooled(weights['conv_4'], x, 'VALID')
  yield '192', x.mean((1, 2))
  for block in ('mixed', 'mixed_1', 'mixed_2'):
    x = _block_35(_below(weights, block), x)
  x = _reduce_35(_below(weights, 'mixed_3'), x)
  for block in ('mixed_4', 'mixed_5', 'mixed_6', 'mixed_7'):
    x = _block_17(_below(weights, block), x)
    if block == 'mixed_6':  # its first branch comes first
      yield 'sfid', x[..., :7].reshape(x.shape[0], -1)
  yield '768', x.mean((1, 2))
  x = _reduce_17(_below(weights, 'mixed_8'), x)
  x = _block_8(_below(weights, 'mixed_9'), x)
  x = _block_8(_below(weights, 'mixed_10'), x, last=True)
  x = x.mean((1, 2))
  yield '2048', x
  logits = jnp.matmul(x, weights['softmax']['w'], precision=_HIGH)
  yield 'logits', logits + weights['softmax']['b'][None]
  yield 'logits_unbiased', logits


def _below(weights: Weights, block: str) -> Weights:
  """The layers of a block, by their scopes below it."""
  start = block + '/'
  return {
    name.removeprefix(start): layer
    for name, layer in weights.items()
    if name.startswith(start)
  }


def _block_35(w: Weights, x: Maps) -> Maps:
  a, b, c, d = _heads(w, x, _ALL)
  b = _conv(w['tower/conv_1'], b)
  c = _conv(w['tower_1/conv_2'], _conv(w['tower_1/conv_1'], c))
  return jnp.concatenate([a, b, c, d], axis=-1)


def _reduce_35(w: Weights, x: Maps) -> Maps:
  a = _conv(w['conv'], x, 2, 'VALID')
  b = _conv(w['tower/conv_1'], _conv(w['tower/conv'], x))
  b = _conv(w['tower/conv_2'], b, 2, 'VALID')
  return jnp.concatenate([a, b, _max(x)], axis=-1)


def _block_17(w: Weights, x: Maps) -> Maps:
  a, b, c, d = _heads(w, x, _ALL)
  for i in (1, 2):
    b = _conv(w[f'tower/conv_{i}'], b)
  for i in (1, 2, 3, 4):
    c = _conv(w[f'tower_1/conv_{i}'], c)
  return jnp.concatenate([a, b, c, d], axis=-1)


def _reduce_17(w: Weights, x: Maps) -> Maps:
  a, b = _heads(w, x, _HEADS['mixed_8'])
  a = _conv(w['tower/conv_1'], a, 2, 'VALID')
  for i in (1, 2):
    b = _conv(w[f'tower_1/conv_{i}'], b)
  b = _conv(w['tower_1/conv_3'], b, 2, 'VALID')
  return jnp.concatenate([a, b, _max(x)], axis=-1)


def _block_8(w: Weights, x: Maps, last: bool = False) -> Maps:
  a, b, c, *d = _heads(w, x, _ALL[:3] if last else _ALL)
  if last:
    d = [_conv(w['tower_2/conv'], _max(x, 1, 'SAME'))]
  c = _conv(w['tower_1/conv_1'], c)
  two = [_conv(w[f'tower/mixed/{name}'], b) for name in ('conv', 'conv_1')]
  three = [_conv(w[f'tower_1/mixed/{name}'], c) for name in ('conv', 'conv_1')]
  return jnp.concatenate([a, *two, *three, *d], axis=-1)


def _heads(w: Weights, x: Maps, scopes: Sequence[str]) -> list[Array]:
  """The 1x1 convolutions of a block's input, as one product.

  `tower_2/conv` is of the averaged input: an average and a 1x1 convolution
  commute, and its outputs are fewer than its inputs.
  """
  biases = [w[scope]['b'] for scope in scopes]
  ends = np.cumsum([len(b) for b in biases])[:-1]
  parts = jnp.split(_product(x, w['heads']['w']), ends, axis=-1)
  if scopes[-1] == 'tower_2/conv':
    parts[-1] = _average(parts[-1])
  return [_activated(y, b) for y, b in zip(parts, biases, strict=True)]


def _conv(
  layer: Layer, x: Maps, stride: int = 1, padding: str = 'SAME'
) -> Maps:
  return _activated(_linear(layer['w'], x, stride, padding), layer['b'])


def _pooled(layer: Layer, x: Maps, padding: str) -> Maps:
  """A convolution and its maxima, which commute with bias and rectification.

  To the bit, as both are monotonous; and the maxima are fewer.
  """
  return _activated(_max(_linear(layer['w'], x, 1, padding)), layer['b'])


def _linear(
  w: Float[Array, 'h w ins outs'], x: Maps, stride: int, padding: str
) -> Maps:
  if w.shape[:2] == (1, 1):
    return _product(x, w)
  if w.shape[0] == 1:  # of rows apart; on CPU a twelfth faster so
    rows = x.reshape(-1, *x.shape[2:])
    y = lax.conv_general_dilated(
      rows,
      w[0],
      (stride,),
      padding,
      dimension_numbers=('NWC', 'WIO', 'NWC'),
      precision=_HIGH,
    )
    return y.reshape(*x.shape[:2], *y.shape[1:])
  # On CPU a convolution without any padding misses XLA's fast path, which is
  # 2.5 to 5 times as fast: pad, and leave out what came of it.
  edges = ((0, 1), (0, 1)) if padding == 'VALID' else padding
  y = lax.conv_general_dilated(
    x,
    w,
    (stride, stride),
    edges,
    dimension_numbers=_ORDER,
    precision=_HIGH,
  )
  if padding == 'VALID':
    high, wide = (
      (size - k) // stride + 1
      for size, k in zip(x.shape[1:3], w.shape[:2], strict=True)
    )
    y = y[:, :high, :wide]
  return y


def _product(x: Maps, kernel: Float[Array, '1 1 ins outs']) -> Maps:
  return jnp.matmul(x, kernel[0, 0], precision=_HIGH)


def _activated(y: Maps, b: Float[Array, ' outs']) -> Maps:
  return jax.nn.relu(y + b[None, None, None])


def _max(x: Maps, stride: int = 2, padding: str = 'VALID') -> Maps:
  """Maximum of 3x3 places."""
  if padding == 'SAME':
    x = jnp.pad(x, _EDGE, constant_values=-jnp.inf)
  for axis in (1, 2):
    a, b, c = _three(x, axis, stride)
    x = jnp.maximum(jnp.maximum(a, b), c)
  return x


def _average(x: Maps) -> Maps:
  """Average of 3x3 places, of those that there are at the edges."""
  one = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
  return _sum(x) / _sum(one)


def _sum(x: Maps) -> Maps:
  x = jnp.pad(x, _EDGE)
  for axis in (1, 2):
    a, b, c = _three(x, axis, 1)
    x = a + b + c
  return x


def _three(x: Maps, axis: int, stride: int) -> list[Array]:
  """Places in a row; on CPU slices are faster than XLA's windows."""
  reach = (x.shape[axis] - 3) // stride * stride + 1
  return [lax.slice_in_dim(x, i, i + reach, stride, axis) for i in range(3)]


@functools.cache
def _apply(tap: str, rule: str) -> Apply:
  """The function of a tap and a rule of resizing: one, to be compiled once."""
  taps = {'features': tap, 'probabilities': 'logits_unbiased'}

  def apply(
    weights: Weights, images: UInt8[Array, 'n h w c'], outputs: Sequence[str]
  ) -> dict[str, Array]:
    x = scale(images, rule)
    by_tap = forward(weights, x, [taps[name] for name in outputs])
    values = {name: by_tap[taps[name]] for name in outputs}
    if 'probabilities' in values:
      values['probabilities'] = jax.nn.softmax(values['probabilities'])
    return values

  return apply


def make(spec: Spec) -> Features:
  """Inception features: `inception-TAP`, and `-RESIZER` after it.

  Raises:
    ArgumentError: for an unknown tap or resizer, or images of 4 channels.
    DataError: if the weights cannot be had, or do not reach the tap.
  """
  tap, rule = _options(spec)
  if spec.sample_shape[2] == 4:
    remedy = (
      'takes grey and colour images, and these have 4 channels; use'
      ' `features=pixels` or `random`, or score pictures that `sample` drew: a'
      ' folder of them is read with what is transparent laid on white'
    )
    raise ArgumentError('features', spec.text, remedy)
  path = files.find(spec.weights, spec.cache / 'gan_jax_weights')
  weights = _read_weights(path, tap)
  public = files.is_public(weights)
  protocol = {
    'network': 'inception-2015-12-05' if public else 'unknown',
    'tap': tap,
    'resize': rule,
    'scaling': 'x / 127.5 - 1' if rule == 'pytorch' else '(x - 128) / 128',
    'side': SIDE,
    'weights': path.name,
    'weights_sha256': files.digest(path),
  }
  return make_features(
    f'inception-{tap}' + f'-{rule}' * (rule != 'tensorflow'),
    TAPS[tap],
    _apply(tap, rule),
    merge_heads(weights),
    protocol,
    spec.sample_shape,
    classes=TAPS['logits'] if 'softmax' in weights else 0,
    # On a CPU, buffers of more than 32 MiB would come from the system anew for
    # every batch, zeroed page by page.
    batch=4,
  )


def _options(spec: Spec) -> tuple[str, str]:
  tap, rule = '2048', 'tensorflow'
  for option in spec.options:
    if option in TAPS:
      tap = option
    elif option in RESIZERS:
      rule = option
    else:
      choices = f'({", ".join(TAPS)}) nor a resizer ({", ".join(RESIZERS)})'
      remedy = f'{option} is neither a tap {choices}'
      raise ArgumentError('features', spec.text, remedy)
  return tap, rule


def _read_weights(path: pathlib.Path, tap: str) -> files.Folded:
  """The layers that a tap takes, and beyond the last block the classes."""
  names = list(LAYERS)
  layers = names[: names.index(LAST[tap]) + 1]
  try:
    return files.load(path, names if tap == '2048' else layers)
  except files.MissingLayer as error:
    if error.layer not in layers:
      return files.load(path, layers)
    raise DataError(_describe_short_file(path, tap, error.layer)) from error


def _describe_short_file(path: pathlib.Path, tap: str, layer: str) -> str:
  names = list(LAYERS)
  present = names[: names.index(layer)]
  taps = [t for t, last in LAST.items() if last in present]
  rest = f'use inception-{taps[-1]}, or' if taps else 'use'
  return (
    f'{path}: ends before {layer}, which the tap {tap} takes; {rest} the whole'
    f' network, such as {files.KNOWN[files.DEFAULT][1]}'
  )
