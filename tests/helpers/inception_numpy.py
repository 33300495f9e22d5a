"""The FID Inception in float64 NumPy, layer by layer as its graph has it."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def conv(layer, x, stride=1, same=True):
  """Convolution, bias, rectification; (n, h, w, c)."""
  w, b = np.float64(layer['w']), np.float64(layer['b'])
  if same:
    room = [(k // 2, k // 2) for k in w.shape[:2]]
    x = np.pad(x, [(0, 0), *room, (0, 0)])
  windows = sliding_window_view(x, w.shape[:2], (1, 2))
  windows = windows[:, ::stride, ::stride]
  return np.maximum(np.einsum('nyxchw,hwco->nyxo', windows, w) + b, 0)


def pool(x, how, stride=1, same=True):
  """Of 3x3 places; those outside are not there."""
  if same:
    x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=np.nan)
  return how(sliding_window_view(x, (3, 3), (1, 2)), (-2, -1))[
    :, ::stride, ::stride
  ]


def taps(weights, x):
  """Every tap of scaled images."""
  found = {}

  def run(x, *layers):
    for layer in layers:
      x = conv(weights[layer], x)
    return x

  def half(x, layer):
    return conv(weights[layer], x, 2, False)

  def towers(x, block, *lengths):
    scopes = ['conv', 'tower/conv', 'tower_1/conv']
    return [
      run(
        x,
        *[f'{block}/{s}' + f'_{i}' * (i > 0) for i in range(length)],
      )
      for s, length in zip(scopes, lengths)
    ]

  x = conv(weights['conv_1'], half(x, 'conv'), 1, False)
  x = pool(run(x, 'conv_2'), np.max, 2, False)
  found['64'] = x.mean((1, 2))
  x = conv(weights['conv_4'], run(x, 'conv_3'), 1, False)
  x = pool(x, np.max, 2, False)
  found['192'] = x.mean((1, 2))
  for m in ('mixed', 'mixed_1', 'mixed_2'):
    last = run(pool(x, np.nanmean), f'{m}/tower_2/conv')
    x = np.concatenate([*towers(x, m, 1, 2, 3), last], -1)
  m = 'mixed_3'
  b = half(run(x, f'{m}/tower/conv', f'{m}/tower/conv_1'), f'{m}/tower/conv_2')
  x = np.concatenate([half(x, f'{m}/conv'), b, pool(x, np.max, 2, False)], -1)
  for i in (4, 5, 6, 7):
    m = f'mixed_{i}'
    last = run(pool(x, np.nanmean), f'{m}/tower_2/conv')
    x = np.concatenate([*towers(x, m, 1, 3, 5), last], -1)
    if i == 6:
      found['sfid'] = x[..., :7].reshape(len(x), -1)
  found['768'] = x.mean((1, 2))
  m = 'mixed_8'
  a = half(run(x, f'{m}/tower/conv'), f'{m}/tower/conv_1')
  b = towers(x, m, 0, 0, 3)[2]
  b = half(b, f'{m}/tower_1/conv_3')
  x = np.concatenate([a, b, pool(x, np.max, 2, False)], -1)
  for m, how in (('mixed_9', np.nanmean), ('mixed_10', np.nanmax)):
    a, b, c = towers(x, m, 1, 1, 2)
    ends = [
      run(y, f'{m}/{tower}/mixed/{name}')
      for y, tower in ((b, 'tower'), (c, 'tower_1'))
      for name in ('conv', 'conv_1')
    ]
    last = run(pool(x, how), f'{m}/tower_2/conv')
    x = np.concatenate([a, *ends, last], -1)
  x = x.mean((1, 2))
  found['2048'] = x
  found['logits_unbiased'] = x @ np.float64(weights['softmax']['w'])
  found['logits'] = found['logits_unbiased'] + weights['softmax']['b']
  return found
