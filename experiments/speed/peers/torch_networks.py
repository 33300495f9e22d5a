"""The networks in PyTorch, as functions of parameters by path.

`p` holds the parameters, in PyTorch's layouts, `s` the running statistics,
which move where it is given. Images are NCHW. Batch and layer normalisation
are PyTorch's fused ones.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

P = dict[str, Any]


def to_torch(path: str, w: np.ndarray, chw: tuple[int, ...] = ()) -> Any:
  """A parameter of ours in PyTorch's layout.

  Args:
    path: of it.
    w: its value, or its gradient.
    chw: channels and sides of the feature map that a dense layer makes or
      flattens; ours are channels last.
  """
  w = np.asarray(w)
  if path.endswith('kernel') and w.ndim == 4:
    w = w.transpose(3, 2, 0, 1)
  elif path.endswith('kernel'):
    w = w.T
  if math.prod(chw) in w.shape and chw:
    c, h, v = chw
    axis = w.shape.index(c * h * v)
    split = (*w.shape[:axis], h, v, c, *w.shape[axis + 1 :])
    w = np.moveaxis(w.reshape(split), axis + 2, axis).reshape(w.shape)
  return torch.tensor(np.ascontiguousarray(w))


def linear(p: P, at: str, x: Any) -> Any:
  """A dense layer."""
  return F.linear(x, p[f'{at}/kernel'], p.get(f'{at}/bias'))


def conv(p: P, at: str, x: Any) -> Any:
  """4x4, stride 2."""
  return F.conv2d(x, p[f'{at}/kernel'], p.get(f'{at}/bias'), 2, 1)


def up(p: P, at: str, x: Any) -> Any:
  """4x4 transposed, stride 2."""
  return F.conv_transpose2d(x, p[f'{at}/kernel'], p.get(f'{at}/bias'), 2, 1)


def batch_norm(p: P, s: P | None, at: str, x: Any) -> Any:
  """By the batch; moves the running statistics."""
  mean, var = (s[f'{at}/mean'], s[f'{at}/var']) if s else (None, None)
  scale, bias = p[f'{at}/scale'], p[f'{at}/bias']
  return F.batch_norm(x, mean, var, scale, bias, True, 0.1, 1e-5)


def normed(p: P, s: P | None, i: int, x: Any) -> Any:
  """The i-th normalisation, of whatever kind it is."""
  if f'BatchNorm_{i}/scale' in p:
    return batch_norm(p, s, f'BatchNorm_{i}', x)
  at = f'GroupNorm_{i}'
  if f'{at}/scale' in p:
    return F.group_norm(x, 1, p[f'{at}/scale'], p[f'{at}/bias'], 1e-5)
  return x


def _perceptron(p: P, x: Any) -> Any:
  *hidden, last = sorted({name.split('/')[0] for name in p})
  for layer in hidden:
    x = F.silu(linear(p, layer, x))
  return linear(p, last, x)


def mlp_g(shape: tuple[int, ...]) -> Any:
  """G of points, or of images in [-1, 1]."""

  def apply(p: P, s: P | None, z: Any) -> Any:
    x = _perceptron(p, z)
    return torch.tanh(x).reshape(-1, *shape) if len(shape) > 1 else x

  return apply


def mlp_d(p: P, s: P | None, x: Any) -> Any:
  """D."""
  return _perceptron(p, x.flatten(1))[:, 0]


def dcgan_g(p: P, s: P | None, z: Any) -> Any:
  """G."""
  h = linear(p, 'Dense_0', z).reshape(len(z), -1, 4, 4)
  h = F.relu(normed(p, s, 0, h))
  for i in (0, 1):
    h = F.relu(normed(p, s, i + 1, up(p, f'ConvTranspose_{i}', h)))
  return torch.tanh(up(p, 'ConvTranspose_2', h))


def dcgan_d(p: P, s: P | None, x: Any) -> Any:
  """D."""
  h = F.leaky_relu(conv(p, 'Conv_0', x), 0.2)
  for i in (0, 1):
    h = F.leaky_relu(normed(p, s, i, conv(p, f'Conv_{i + 1}', h)), 0.2)
  return linear(p, 'Dense_0', h.flatten(1))[:, 0]


def infogan_g(p: P, s: P | None, z: Any) -> Any:
  """G."""
  h = F.leaky_relu(normed(p, s, 0, linear(p, 'Dense_0', z)), 0.2)
  h = F.leaky_relu(normed(p, s, 1, linear(p, 'Dense_1', h)), 0.2)
  h = up(p, 'ConvTranspose_0', h.reshape(len(z), -1, 7, 7))
  h = F.leaky_relu(normed(p, s, 2, h), 0.2)
  return 2 * torch.sigmoid(up(p, 'ConvTranspose_1', h)) - 1


def infogan_d(p: P, s: P | None, x: Any) -> Any:
  """D."""
  h = F.leaky_relu(conv(p, 'Conv_0', (x + 1) / 2), 0.2)
  h = F.leaky_relu(normed(p, s, 0, conv(p, 'Conv_1', h)), 0.2)
  h = F.leaky_relu(normed(p, s, 1, linear(p, 'Dense_0', h.flatten(1))), 0.2)
  return linear(p, 'Dense_1', h)[:, 0]


def goodfellow_g(p: P, s: P | None, z: Any) -> Any:
  """G, of 28x28 images."""
  h = F.relu(linear(p, 'Dense_1', F.relu(linear(p, 'Dense_0', z))))
  x = 2 * torch.sigmoid(linear(p, 'Dense_2', h)) - 1
  return x.reshape(len(z), 1, 28, 28)


def goodfellow_d(p: P, s: P | None, x: Any) -> Any:
  """D: maxout of five pieces, dropout where there are weights to train."""
  h = (x.flatten(1) + 1) / 2
  for i, rate in enumerate((0.2, 0.5)):
    h = linear(p, f'Dense_{i}', dropout(h, rate))
    h = h.reshape(len(h), 5, -1).amax(1)
  return linear(p, 'Dense_2', dropout(h, 0.5))[:, 0]


DROPPING = [True]  # whether `dropout` drops: not while a step is compared


def dropout(h: Any, rate: float) -> Any:
  """Zeros, and the rest larger."""
  return F.dropout(h, rate, DROPPING[0])


def widened(w: Any) -> Any:
  """A 3x3 kernel plus itself shifted by a pixel, along both axes: 4x4."""
  rows = F.pad(w, (0, 0, 0, 1)) + F.pad(w, (0, 0, 1, 0))
  return F.pad(rows, (0, 1)) + F.pad(rows, (1, 0))


def spectral(p: P, s: P | None, at: str) -> Any:
  """A kernel by its greatest singular value; moves `u` where it is given."""
  w = p[f'{at}/kernel']
  flat, u = w.flatten(1), s[f'{at}/u'] if s else None
  if u is None:
    return w
  with torch.no_grad():
    v = F.normalize(flat.T @ u, dim=0, eps=1e-12)
    new = F.normalize(flat @ v, dim=0, eps=1e-12)
    u.copy_(new)
  return w / (new @ (flat @ v))


def resnet_g(p: P, s: P | None, z: Any) -> Any:
  """G: upsampling and convolution in one."""
  h = linear(p, 'Dense_0', z).reshape(len(z), -1, 4, 4)
  for i in range(3):
    x = h
    h = F.relu(batch_norm(p, s, f'BatchNorm_{2 * i}', x))
    w = widened(p[f'UpConv_{i}/kernel']).flip(2, 3).transpose(0, 1)
    h = F.conv_transpose2d(h, w, None, 2, 1)
    h = F.relu(batch_norm(p, s, f'BatchNorm_{2 * i + 1}', h))
    at, short = f'Conv_{2 * i}', f'Conv_{2 * i + 1}'
    h = F.conv2d(h, p[f'{at}/kernel'], p[f'{at}/bias'], padding=1)
    x = F.conv2d(x, p[f'{short}/kernel'], p[f'{short}/bias'])
    h = h + F.interpolate(x, scale_factor=2, mode='nearest')
  h = F.relu(batch_norm(p, s, 'BatchNorm_6', h))
  return torch.tanh(F.conv2d(h, p['Conv_6/kernel'], p['Conv_6/bias'], 1, 1))


def resnet_d(p: P, s: P | None, x: Any) -> Any:
  """D: spectral norms; convolution and pooling in one."""

  def layer(at: str, h: Any, stride: int = 1) -> Any:
    w = spectral(p, s, at)
    if stride == 2:
      w = widened(w) / 4
    return F.conv2d(
      h, w, p[f'{at}/bias'], stride, w.shape[-1] // 2 - stride + 1
    )

  h = x
  for i in (0, 1):
    h, x = layer(f'Conv_{2 * i}', F.relu(h) if i else h), h
    h = layer(f'ConvPool_{i}', F.relu(h), 2)
    h = h + layer(f'Conv_{2 * i + 1}', F.avg_pool2d(x, 2))
  for i in (4, 6):
    inner = layer(f'Conv_{i}', F.relu(h))
    h = h + layer(f'Conv_{i + 1}', F.relu(inner))
  h = F.relu(h).sum((2, 3))
  return F.linear(h, spectral(p, s, 'Dense_0'))[:, 0]


# Feature maps (channels, height, width) that dense layers make or flatten, or
# that their normalisation sees: permuted once, so that no step has to.
MAPS = {
  'dcgan': {'g/Dense_0': (256, 4, 4), 'd/Dense_0': (256, 4, 4)},
  'infogan': {
    'g/Dense_1': (128, 7, 7),
    'g/BatchNorm_1': (128, 7, 7),
    'd/Dense_0': (128, 7, 7),
  },
  'resnet': {'g/Dense_0': (64, 4, 4)},
}


def networks(name: str, shape: tuple[int, ...]) -> tuple[Any, Any]:
  """G and D, each `(p, s, input) -> output`."""
  chw = (shape[-1], *shape[:-1]) if len(shape) == 3 else shape
  return {
    'mlp': (mlp_g(chw), mlp_d),
    'dcgan': (dcgan_g, dcgan_d),
    'infogan': (infogan_g, infogan_d),
    'goodfellow2014': (goodfellow_g, goodfellow_d),
    'resnet': (resnet_g, resnet_d),
  }[name]
