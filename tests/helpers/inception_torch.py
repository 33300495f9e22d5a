"""The Inception of pytorch-fid in torch.nn, for comparison; needs torch.

Module names are those of its weight file. Convolutions without bias, batch
normalisation apart and rectification in place, as there: its speed is theirs.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Unit(nn.Module):
  """Convolution, batch normalisation, rectification."""

  def __init__(self, ins, outs, kernel, stride=1, padding=0):
    super().__init__()
    self.conv = nn.Conv2d(ins, outs, kernel, stride, padding, bias=False)
    self.bn = nn.BatchNorm2d(outs, eps=0.001)

  def forward(self, x):
    return F.relu(self.bn(self.conv(x)), inplace=True)


def average(x):
  return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class A(nn.Module):
  def __init__(self, ins, pool):
    super().__init__()
    self.branch1x1 = Unit(ins, 64, 1)
    self.branch5x5_1 = Unit(ins, 48, 1)
    self.branch5x5_2 = Unit(48, 64, 5, padding=2)
    self.branch3x3dbl_1 = Unit(ins, 64, 1)
    self.branch3x3dbl_2 = Unit(64, 96, 3, padding=1)
    self.branch3x3dbl_3 = Unit(96, 96, 3, padding=1)
    self.branch_pool = Unit(ins, pool, 1)

  def forward(self, x):
    b = self.branch5x5_2(self.branch5x5_1(x))
    c = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
    c = self.branch3x3dbl_3(c)
    d = self.branch_pool(average(x))
    return torch.cat([self.branch1x1(x), b, c, d], 1)


class B(nn.Module):
  def __init__(self):
    super().__init__()
    self.branch3x3 = Unit(288, 384, 3, 2)
    self.branch3x3dbl_1 = Unit(288, 64, 1)
    self.branch3x3dbl_2 = Unit(64, 96, 3, padding=1)
    self.branch3x3dbl_3 = Unit(96, 96, 3, 2)

  def forward(self, x):
    b = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
    b = self.branch3x3dbl_3(b)
    return torch.cat([self.branch3x3(x), b, F.max_pool2d(x, 3, 2)], 1)


class C(nn.Module):
  def __init__(self, c):
    super().__init__()
    self.branch1x1 = Unit(768, 192, 1)
    self.branch7x7_1 = Unit(768, c, 1)
    self.branch7x7_2 = Unit(c, c, (1, 7), padding=(0, 3))
    self.branch7x7_3 = Unit(c, 192, (7, 1), padding=(3, 0))
    self.branch7x7dbl_1 = Unit(768, c, 1)
    self.branch7x7dbl_2 = Unit(c, c, (7, 1), padding=(3, 0))
    self.branch7x7dbl_3 = Unit(c, c, (1, 7), padding=(0, 3))
    self.branch7x7dbl_4 = Unit(c, c, (7, 1), padding=(3, 0))
    self.branch7x7dbl_5 = Unit(c, 192, (1, 7), padding=(0, 3))
    self.branch_pool = Unit(768, 192, 1)

  def forward(self, x):
    b = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
    c = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
    c = self.branch7x7dbl_5(self.branch7x7dbl_4(c))
    d = self.branch_pool(average(x))
    return torch.cat([self.branch1x1(x), b, c, d], 1)


class D(nn.Module):
  def __init__(self):
    super().__init__()
    self.branch3x3_1 = Unit(768, 192, 1)
    self.branch3x3_2 = Unit(192, 320, 3, 2)
    self.branch7x7x3_1 = Unit(768, 192, 1)
    self.branch7x7x3_2 = Unit(192, 192, (1, 7), padding=(0, 3))
    self.branch7x7x3_3 = Unit(192, 192, (7, 1), padding=(3, 0))
    self.branch7x7x3_4 = Unit(192, 192, 3, 2)

  def forward(self, x):
    a = self.branch3x3_2(self.branch3x3_1(x))
    b = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
    return torch.cat([a, self.branch7x7x3_4(b), F.max_pool2d(x, 3, 2)], 1)


class E(nn.Module):
  def __init__(self, ins, pool):
    super().__init__()
    self.pool = pool
    self.branch1x1 = Unit(ins, 320, 1)
    self.branch3x3_1 = Unit(ins, 384, 1)
    self.branch3x3_2a = Unit(384, 384, (1, 3), padding=(0, 1))
    self.branch3x3_2b = Unit(384, 384, (3, 1), padding=(1, 0))
    self.branch3x3dbl_1 = Unit(ins, 448, 1)
    self.branch3x3dbl_2 = Unit(448, 384, 3, padding=1)
    self.branch3x3dbl_3a = Unit(384, 384, (1, 3), padding=(0, 1))
    self.branch3x3dbl_3b = Unit(384, 384, (3, 1), padding=(1, 0))
    self.branch_pool = Unit(ins, 192, 1)

  def forward(self, x):
    b = self.branch3x3_1(x)
    c = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
    return torch.cat(
      [
        self.branch1x1(x),
        self.branch3x3_2a(b),
        self.branch3x3_2b(b),
        self.branch3x3dbl_3a(c),
        self.branch3x3dbl_3b(c),
        self.branch_pool(self.pool(x)),
      ],
      1,
    )


def maximum(x):
  return F.max_pool2d(x, 3, stride=1, padding=1)


class Inception(nn.Module):
  """Images in [0, 1], (n, 3, height, width), to taps."""

  def __init__(self):
    super().__init__()
    self.Conv2d_1a_3x3 = Unit(3, 32, 3, 2)
    self.Conv2d_2a_3x3 = Unit(32, 32, 3)
    self.Conv2d_2b_3x3 = Unit(32, 64, 3, padding=1)
    self.Conv2d_3b_1x1 = Unit(64, 80, 1)
    self.Conv2d_4a_3x3 = Unit(80, 192, 3)
    self.Mixed_5b = A(192, 32)
    self.Mixed_5c = A(256, 64)
    self.Mixed_5d = A(288, 64)
    self.Mixed_6a = B()
    self.Mixed_6b = C(128)
    self.Mixed_6c = C(160)
    self.Mixed_6d = C(160)
    self.Mixed_6e = C(192)
    self.Mixed_7a = D()
    self.Mixed_7b = E(1280, average)
    self.Mixed_7c = E(2048, maximum)
    self.fc = nn.Linear(2048, 1008)
    self.eval()

  def network(self, x):
    """Scaled images to every tap."""
    found = {}
    x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
    x = F.max_pool2d(x, 3, 2)
    found['64'] = x.mean((2, 3))
    x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
    x = F.max_pool2d(x, 3, 2)
    found['192'] = x.mean((2, 3))
    x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
    x = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x))))
    found['sfid'] = x[:, :7].permute(0, 2, 3, 1).flatten(1)
    x = self.Mixed_6e(x)
    found['768'] = x.mean((2, 3))
    x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
    x = x.mean((2, 3))
    found['2048'] = x
    found['logits'] = self.fc(x)
    found['logits_unbiased'] = x @ self.fc.weight.T
    return found

  def forward(self, x, size=299):
    x = F.interpolate(
      x, size=(size, size), mode='bilinear', align_corners=False
    )
    return self.network(2 * x - 1)


def randomise(net, seed):
  """Weights and statistics far from those at the start."""
  gen = torch.Generator().manual_seed(seed)

  def uniform(like, low, high):
    return torch.rand(like.shape, generator=gen) * (high - low) + low

  with torch.no_grad():
    for module in net.modules():
      if isinstance(module, nn.Conv2d):
        fan = module.weight[0].numel()
        scale = (6 / fan) ** 0.5
        module.weight.copy_(uniform(module.weight, -scale, scale))
      if isinstance(module, nn.BatchNorm2d):
        module.weight.copy_(uniform(module.weight, 0.5, 1.5))
        module.bias.copy_(uniform(module.bias, -0.3, 0.5))
        module.running_mean.copy_(uniform(module.running_mean, -0.5, 0.5))
        module.running_var.copy_(uniform(module.running_var, 0.5, 2))
  return net


def filled(net, weights):
  """The network with folded weights, where there are any."""
  from gan_jax.features.inception_weights import LAYERS

  with torch.no_grad():
    for name, layer in weights.items():
      unit = net.get_submodule(LAYERS[name].torch)
      kernel = torch.tensor(layer['w'].transpose(3, 2, 0, 1))
      unit.conv.weight.copy_(kernel)
      unit.bn.bias.copy_(torch.tensor(layer['b']))
      unit.bn.running_var.fill_(1 - unit.bn.eps)
  return net
