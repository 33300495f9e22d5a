"""One run of the `ring` ablation in PyTorch, as plainly as it is written there.

The same networks, initialisation, batch, objectives, optimizer, number of
steps, average and score; one thread. Needs torch and numpy alone:

  python torch_loop.py OBJECTIVE RATE SEED
"""

import json
import math
import sys

import torch
from torch import nn
from torch.nn.functional import logsigmoid, relu, softplus

WIDTH, BATCH, STEPS, LATENT, STD = 32, 64, 5000, 2, 0.01
HALF_LIFE = 5000.0  # samples, of the average
LOG_EVERY, SCORED = 250, 2500


def mlp(inputs: int, outputs: int) -> nn.Sequential:
  """Two hidden layers of SiLU units, normal weights."""
  layers: list[nn.Module] = []
  for n in (inputs, WIDTH):
    layers += [nn.Linear(n, WIDTH), nn.SiLU()]
    nn.init.normal_(layers[-2].weight, std=math.sqrt(2 / n))
    nn.init.zeros_(layers[-2].bias)
  head = nn.Linear(WIDTH, outputs)
  nn.init.normal_(head.weight, std=math.sqrt(1 / WIDTH))
  nn.init.zeros_(head.bias)
  return nn.Sequential(*layers, head)


def d_loss(name: str, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
  """D's loss on its logits."""
  if name in ('minimax', 'non_saturating'):
    return softplus(-real).mean() + softplus(fake).mean()
  if name == 'least_squares':
    return ((real - 1).square().mean() + fake.square().mean()) / 2
  if name == 'hinge':
    return relu(1 - real).mean() + relu(1 + fake).mean()
  if name == 'relativistic':
    return softplus(fake - real).mean()
  a, b = real - fake.mean(), fake - real.mean()
  return (softplus(-a).mean() + softplus(b).mean()) / 2


def g_loss(name: str, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
  """G's loss on D's logits."""
  if name == 'minimax':
    return logsigmoid(-fake).mean()
  if name == 'non_saturating':
    return softplus(-fake).mean()
  if name == 'least_squares':
    return (fake - 1).square().mean() / 2
  if name == 'hinge':
    return -fake.mean()
  if name == 'relativistic':
    return softplus(real - fake).mean()
  a, b = real - fake.mean(), fake - real.mean()
  return (softplus(a).mean() + softplus(-b).mean()) / 2


def main(name: str, rate: float, seed: int) -> None:
  """Trains and scores one run."""
  torch.set_num_threads(1)
  torch.manual_seed(seed)
  g, d = mlp(LATENT, 2), mlp(2, 1)
  adam = dict(lr=rate, betas=(0.5, 0.999))
  opt_g = torch.optim.Adam(g.parameters(), **adam)
  opt_d = torch.optim.Adam(d.parameters(), **adam)
  angle = torch.arange(8) * (2 * math.pi / 8)
  modes = torch.stack([angle.cos(), angle.sin()], dim=1)
  average = [p.detach().clone() for p in g.parameters()]

  def real() -> torch.Tensor:
    which = torch.randint(8, (BATCH,))
    return modes[which] + STD * torch.randn(BATCH, 2)

  for step in range(STEPS):
    x = real()
    with torch.no_grad():
      y = g(torch.randn(BATCH, LATENT))
    loss_d = d_loss(name, d(x), d(y))
    opt_d.zero_grad()
    loss_d.backward()
    opt_d.step()
    d.requires_grad_(False)
    with torch.no_grad():
      of_real = d(real()) if name.startswith('relativistic') else x
    loss_g = g_loss(name, of_real, d(g(torch.randn(BATCH, LATENT))))
    opt_g.zero_grad()
    loss_g.backward()
    opt_g.step()
    d.requires_grad_(True)
    half = min(HALF_LIFE, (step + 1) * BATCH / 20)
    with torch.no_grad():
      weight = 1 - 0.5 ** (BATCH / half)
      torch._foreach_lerp_(average, list(g.parameters()), weight)
    if (step + 1) % LOG_EVERY == 0:
      row = {'step': step + 1, 'd/loss': loss_d.item(), 'g/loss': loss_g.item()}
      print(json.dumps(row))
  with torch.no_grad():
    for p, q in zip(g.parameters(), average, strict=True):
      p.copy_(q)
    away = torch.cdist(g(torch.randn(SCORED, LATENT)), modes).min(dim=1)
    good = away.values <= 3 * STD
    found = away.indices[good].unique().numel()
  print(
    json.dumps({'modes': found, 'high_quality': good.float().mean().item()})
  )


if __name__ == '__main__':
  main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
