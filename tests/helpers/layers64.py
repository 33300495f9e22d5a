"""Layers in float64 NumPy: what forward passes are compared with.

Kernels of the package are (height, width, in, out); those of a transposed
convolution are of the convolution that it is the transpose of.
"""

import numpy as np

EPSILON = 1e-5


class Layers:
  """Parameters of a network, handed out in order of each kind of layer."""

  def __init__(self, params, stats=None):
    self._params, self._stats = params, stats or {}
    self._next, self.left = {}, set(params)

  def __call__(self, kind):
    """The next layer of a kind, its kernel normalised where it has a `u`."""
    at = self._next[kind] = self._next.get(kind, -1) + 1
    name = f'{kind}_{at}'
    self.left.remove(name)
    layer = {k: np.float64(v) for k, v in self._params[name].items()}
    if 'u' in self._stats.get(name, {}):
      u = np.float64(self._stats[name]['u'])
      layer['kernel'] = normalised(layer['kernel'], u, kind)
    return layer

  def leaf(self, name):
    """A parameter of the network itself."""
    self.left.remove(name)
    return np.float64(self._params[name])


def normalised(w, u, kind):
  """W / (v' W u) by unit vectors u and v = W u / |W u| (Miyato et al. 2018)."""
  flat = (w.swapaxes(2, 3) if kind == 'ConvTranspose' else w).reshape(
    -1, len(u)
  )
  return w / np.linalg.norm(flat @ (u / np.linalg.norm(u)))


def relu(x):
  return np.maximum(x, 0)


def leaky(x, slope=0.2):
  return np.where(x > 0, x, slope * x)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def silu(x):
  return x * sigmoid(x)


def dense(x, layer):
  return x @ layer['kernel'] + layer.get('bias', 0.0)


def conv(x, layer, stride=1, groups=1):
  """Cross-correlation to 1 / stride of the side, rounded up.

  Zeros about it so that a 3x3 kernel is centred, and a 4x4 one of stride 2 is
  half a pixel before the pair's middle and after it.
  """
  w = layer['kernel']
  size, _, each, features = w.shape
  low, side = (size - 1) // 2, -(-x.shape[1] // stride)
  high = stride * (side - 1) + size - low - x.shape[1]
  x = np.pad(x, ((0, 0), (low, high), (low, high), (0, 0)))
  parts, span = [], stride * (side - 1) + 1
  for g in range(groups):
    of = slice(g * features // groups, (g + 1) * features // groups)
    y = 0.0
    for i, j in np.ndindex(size, size):
      rows = x[:, i : i + span : stride, j : j + span : stride]
      y = y + rows[..., g * each : (g + 1) * each] @ w[i, j][:, of]
    parts.append(y)
  return np.concatenate(parts, axis=-1) + layer.get('bias', 0.0)


def conv_transpose(y, layer, size):
  """The transpose of a 4x4 convolution of stride 2, to a side of `size`."""
  w = layer['kernel']
  n, side, _, _ = y.shape
  x = np.zeros((n, 2 * side + 2, 2 * side + 2, w.shape[2]))
  for i, j in np.ndindex(4, 4):
    x[:, i : i + 2 * side : 2, j : j + 2 * side : 2] += y @ w[i, j].T
  return x[:, 1 : 1 + size, 1 : 1 + size] + layer.get('bias', 0.0)


def batch_norm(x, layer, label=None):
  """By the batch's own statistics; scales of the class where told it."""
  axes = tuple(range(x.ndim - 1))
  x = (x - x.mean(axes)) / np.sqrt(x.var(axes) + EPSILON)
  scale, bias = layer['scale'], layer['bias']
  if scale.ndim > 1:
    each = (len(x), *(1,) * (x.ndim - 2), x.shape[-1])
    scale, bias = (p[label].reshape(each) for p in (scale, bias))
  return x * scale + bias


def flat(x):
  return x.reshape(len(x), -1)


def nearest(x):
  """Each pixel doubled along both axes."""
  return x.repeat(2, axis=1).repeat(2, axis=2)


def mean2(x):
  """The mean of each 2x2 pixels."""
  return (
    x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
  ) / 4


def filtered(x, gain):
  """Convolved with the outer product of (1, 3, 3, 1) / 8, padded by 2, times a
  gain: one pixel wider."""
  taps = np.array([1, 3, 3, 1]) / 8
  x = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
  h, w = x.shape[1] - 3, x.shape[2] - 3
  return gain * sum(
    taps[i] * taps[j] * x[:, i : i + h, j : j + w] for i, j in np.ndindex(4, 4)
  )


def upsampled(x):
  """Zeros between the pixels, then the filter of gain 4 (R3GAN)."""
  n, h, w, c = x.shape
  y = np.zeros((n, 2 * h, 2 * w, c))
  y[:, ::2, ::2] = x
  return filtered(y, 4)[:, : 2 * h, : 2 * w]


def downsampled(x):
  """Every second pixel of the filtered (R3GAN)."""
  return filtered(x, 1)[:, 1::2, 1::2]


def maxout(x, pieces):
  """The greatest of pieces that lie a unit's number apart."""
  return x.reshape(len(x), pieces, -1).max(1)
