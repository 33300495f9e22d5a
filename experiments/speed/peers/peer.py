"""PyTorch's side of a row, as a process that `measure.py` speaks with.

  python peer.py ROW FORM [--check=FILE]

Forms: `eager` with fused Adam; `channels_last`, the same with images and
kernels in that format; `compiled`, both losses with their gradients, Adam and
the average in one `torch.compile`; `compiled_last`, the same in channels-last;
`wrapper`, `compiled` with inductor's C++ wrapper; `loader`, `eager` with its
batches from a `DataLoader` of bytes, as most people run it. With `--check` one
step's losses and gradients are compared with ours first.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rows import ROWS
from torch_networks import DROPPING, MAPS, networks, to_torch

RATE, BETAS, EPS = 2e-4, (0.5, 0.999), 1e-8
TOLERANCE = 2e-3  # of a gradient's norm, in float32: sums in another order
P = dict[str, Any]


class Game:
  """A row's networks and losses."""

  def __init__(self, name: str, weights: P) -> None:
    """With the weights of ours."""
    self.row = ROWS[name]
    options = self.row.options
    self.maps = MAPS.get(options['network'], {})
    self.g, self.d = networks(options['network'], self.row.shape)
    self.objective = options.get('objective', '')
    self.d_steps = options.get('d_steps', 1)
    self.penalty = options.get('regularizer', '')
    self.weight = float(weights.get('weight', 0.0))
    self.p = {x: self.tree(weights, 'p', x) for x in 'gd'}
    self.s = {x: self.tree(weights, 's', x) for x in 'gd'}

  def tree(self, weights: P, kind: str, player: str) -> P:
    """Arrays of one player, in PyTorch's layouts."""
    start = f'{kind}/{player}/'
    found = {}
    for path, w in weights.items():
      if path.startswith(start):
        own = path.removeprefix(start)
        layer = f'{player}/{own.split("/")[0]}'
        found[own] = to_torch(own, w, self.maps.get(layer, ()))
    return found

  def images(self, x: np.ndarray) -> Any:
    """Samples in PyTorch's layout."""
    return torch.tensor(np.moveaxis(x, -1, 1).copy() if x.ndim == 4 else x)

  def d_loss(self, p: P, g_p: P, s: Any, real: Any, z: Any, u: Any) -> Any:
    """D's loss without its penalty, and with it."""
    with torch.no_grad():
      fake = self.g(g_p, None, z)
    on_real, on_fake = self.d(p, s, real), self.d(p, s, fake)
    if self.objective == 'wasserstein':
      loss = on_fake.mean() - on_real.mean()
    elif self.objective == 'hinge':
      loss = F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
    else:
      loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
    if not self.penalty:
      return loss, loss
    x = real
    if self.penalty == 'wgan_gp':
      u = u.reshape(-1, *(1,) * (real.ndim - 1))
      x = u * real + (1 - u) * fake
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(
      self.d(p, None, x).sum(), x, create_graph=True
    )
    square = slope.square().flatten(1).sum(1)
    if self.penalty == 'wgan_gp':
      penalty = (square.sqrt() - 1).square().mean()
    else:
      penalty = square.mean() / 2
    return loss + self.weight * penalty, loss

  def g_loss(self, p: P, d_p: P, s: Any, z: Any) -> Any:
    """G's loss; D's vectors move for it, and are forgotten."""
    d_s = {k: v.clone() for k, v in self.s['d'].items() if k.endswith('/u')}
    logits = self.d(d_p, d_s or None, self.g(p, s, z))
    return -logits.mean() if self.objective else F.softplus(-logits).mean()


def gradients(game: Game, player: str, z: Any, real: Any, u: Any) -> Any:
  """One player's loss and gradients, by path."""
  own = game.p[player]
  other = {
    k: v.detach() for k, v in game.p['g' if player == 'd' else 'd'].items()
  }
  s = game.s[player] or None
  if player == 'd':
    whole, loss = game.d_loss(own, other, s, real, z, u)
  else:
    whole = loss = game.g_loss(own, other, s, z)
  return loss.detach(), torch.autograd.grad(whole, list(own.values()))


def check(name: str, path: str) -> float:
  """The greatest difference of one step from ours.

  Raises:
    AssertionError: if it is too great.
  """
  theirs, worst = dict(np.load(path)), 0.0
  u = torch.tensor(theirs.get('epsilon', np.zeros(1, np.float32)))
  DROPPING[0] = False
  for player in 'dg':
    game = Game(name, theirs)  # the statistics as they were
    for own in game.p.values():
      for w in own.values():
        w.requires_grad_()
    real = game.images(theirs['real'])
    z = torch.tensor(theirs[f'z/{player}'])
    loss, grads = gradients(game, player, z, real, u)
    gap = abs(loss.item() - float(theirs[f'loss/{player}']))
    assert gap < 1e-4 * max(1, abs(loss.item())), f'{player}: loss {gap}'
    wanted = game.tree(theirs, 'grad', player)
    size = sum(g.norm() ** 2 for g in wanted.values()) ** 0.5
    for key, grad in zip(game.p[player], grads, strict=True):
      difference = float((grad - wanted[key]).norm() / size)
      assert difference < TOLERANCE, f'{player}/{key}: {difference}'
      worst = max(worst, difference)
  DROPPING[0] = True
  return worst


def turns(reals: Any, z_d: Any, z_g: Any) -> Any:
  """Who moves, and on what: D on each batch, then G."""
  ds = [('d', z, real) for z, real in zip(z_d, reals, strict=True)]
  return [*ds, ('g', z_g, reals[-1])]


class Eager:
  """A step as it is written by hand: fused Adam, an average by `lerp`."""

  def __init__(self, game: Game, last: bool) -> None:
    """Takes the game's weights."""
    self.game = game
    for own in game.p.values():
      for key, w in own.items():
        if last and w.ndim == 4:
          w = w.to(memory_format=torch.channels_last)
        own[key] = w.requires_grad_()
    self.g, self.d = (list(game.p[x].values()) for x in 'gd')
    adam = dict(lr=RATE, betas=BETAS, eps=EPS, fused=True)
    self.opt = {x: torch.optim.Adam(game.p[x].values(), **adam) for x in 'gd'}
    self.average = [w.detach().clone() for w in self.g]

  def __call__(self, reals: Any, z_d: Any, z_g: Any, u: Any) -> Any:
    """Updates of D, one of G."""
    for player, z, real in turns(reals, z_d, z_g):
      loss, grads = gradients(self.game, player, z, real, u)
      for w, grad in zip(self.game.p[player].values(), grads, strict=True):
        w.grad = grad
      self.opt[player].step()
    with torch.no_grad():
      torch._foreach_lerp_(self.average, self.g, 1e-3)
    return loss


class Compiled(Eager):
  """All of a step in one compiled function, Adam by its formula."""

  def __init__(self, game: Game, last: bool) -> None:
    """Compiles at the first call."""
    super().__init__(game, last)
    self.moments = {
      x: [[torch.zeros_like(w) for w in game.p[x].values()] for _ in range(2)]
      for x in 'gd'
    }
    for own in game.p.values():
      for key in own:
        own[key] = own[key].detach().requires_grad_()
    self.count = torch.zeros(())
    torch._dynamo.config.trace_autograd_ops = True
    self.whole = torch.compile(self.step, dynamic=False, fullgraph=True)

  def step(self, reals: Any, z_d: Any, z_g: Any, u: Any, t: Any) -> Any:
    """What is compiled."""
    for i, (player, z, real) in enumerate(turns(reals, z_d, z_g)):
      loss, grads = gradients(self.game, player, z, real, u)
      n = (t - 1) * len(reals) + i + 1 if player == 'd' else t
      with torch.no_grad():
        rows = zip(
          self.game.p[player].values(),
          grads,
          *self.moments[player],
          strict=True,
        )
        for w, g, m, v in rows:
          m.lerp_(g, 1 - BETAS[0])
          v.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
          root = (v / (1 - BETAS[1] ** n)).sqrt() + EPS
          w.sub_(RATE / (1 - BETAS[0] ** n) * m / root)
    with torch.no_grad():
      for a, w in zip(self.average, self.game.p['g'].values(), strict=True):
        a.lerp_(w, 1e-3)
    return loss

  def __call__(self, *args: Any) -> Any:
    """One step."""
    self.count += 1
    return self.whole(*args, self.count)


def latent(n: int, width: int, network: str) -> Any:
  """Noise, of the distribution of ours."""
  if network in ('mlp', 'resnet'):
    return torch.randn(n, width)
  return torch.rand(n, width) * 2 - 1


def memory(game: Game, last: bool) -> Iterator[Any]:
  """Batches of float32 samples that lie in memory, drawn with replacement."""
  row, random = game.row, np.random.default_rng(0)
  shape = (row.data, *row.shape)
  data = game.images(random.uniform(-1, 1, shape).astype(np.float32))
  if last and data.ndim == 4:
    data = data.to(memory_format=torch.channels_last)
  while True:
    yield data[torch.randint(row.data, (row.batch,))]


class Pictures(torch.utils.data.Dataset[Any]):
  """Bytes in memory, each made a tensor in [-1, 1] when it is asked for."""

  def __init__(self, row: Any) -> None:
    """Draws them."""
    random = np.random.default_rng(0)
    self._x = random.integers(0, 256, (row.data, *row.shape), np.uint8)

  def __len__(self) -> int:
    """How many."""
    return len(self._x)

  def __getitem__(self, i: int) -> Any:
    """One, as `ToTensor` and `Normalize` of torchvision make it."""
    x = torch.from_numpy(self._x[i])
    if x.ndim == 3:
      x = x.permute(2, 0, 1).contiguous()
    return x.to(torch.float32).div(255).sub_(0.5).div_(0.5)


def loader(game: Game) -> Iterator[Any]:
  """Batches from a loader in this process, epoch after epoch."""
  batches = torch.utils.data.DataLoader(
    Pictures(game.row), game.row.batch, shuffle=True, drop_last=True
  )
  while True:
    yield from batches


def main(name: str, form: str, path: str) -> None:
  """Answers."""
  torch.set_num_threads(1)
  torch.manual_seed(0)
  row, before = ROWS[name], time.process_time()
  theirs = dict(np.load(path))
  worst = check(name, path) if form == 'eager' else None
  last = form.endswith('last')
  if form == 'wrapper':
    from torch._inductor import config

    config.cpp_wrapper = True
  game = Game(name, theirs)
  eager = form in ('eager', 'channels_last', 'loader')
  step = (Eager if eager else Compiled)(game, last)
  batches = memory(game, last)
  if form == 'loader':
    batches = loader(game)
  width, network = theirs['z/g'].shape[1], row.options['network']

  def run(steps: int) -> None:
    for _ in range(steps):
      reals = [next(batches) for _ in range(game.d_steps)]
      z_d = [latent(row.batch, width, network) for _ in reals]
      z_g = latent(row.batch, width, network)
      step(reals, z_d, z_g, torch.rand(row.batch))

  run(3)
  told = {
    'compile_sec': time.process_time() - before,
    'worst': worst,
    'torch': torch.__version__,
  }
  print(json.dumps(told), flush=True)
  for _ in sys.stdin:
    before = time.process_time()
    run(row.steps)
    took = 1e3 * (time.process_time() - before) / row.steps
    print(json.dumps({'ms': took}), flush=True)


if __name__ == '__main__':
  main(sys.argv[1], sys.argv[2], sys.argv[3].removeprefix('--check='))
