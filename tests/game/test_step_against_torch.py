"""Steps of a trainer beside PyTorch, from the same weights, in float64.

Networks, losses, penalties and optimizers are written here in PyTorch from the
papers. What a step draws (noise, coefficients, flips and shifts) comes from the
game's own streams of keys, so that the mathematics alone is compared: two steps
of both players, every parameter, loss and penalty. An objective or a
regularizer that is added to the library needs no entry here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip('torch')

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from flax.traverse_util import flatten_dict, unflatten_dict  # noqa: E402

from gan_jax import networks  # noqa: E402
from gan_jax.game.augment import Augmentation, consistency_view  # noqa: E402
from gan_jax.game.game import Game, draw  # noqa: E402
from gan_jax.game.objectives import OBJECTIVES  # noqa: E402
from gan_jax.game.optimizers import OPTIMIZERS  # noqa: E402
from gan_jax.game.regularizers import REGULARIZERS  # noqa: E402
from gan_jax.game.streams import stream  # noqa: E402
from gan_jax.game.trainer import Trainer  # noqa: E402

pytestmark = pytest.mark.slow
TOLERANCE = 1e-9  # relative, of norms
N, SIDE, STEPS = 6, 10, 2
SHAPE = (SIDE, SIDE, 3)
WEIGHT, BOUND, RATE = 0.7, 0.3, 2**-5  # of penalties, clipping, learning


@pytest.fixture(autouse=True)
def float64():
  jax.config.update('jax_enable_x64', True)
  yield
  jax.config.update('jax_enable_x64', False)


# The networks, as functions of parameters by path, in the layout of ours.


def linear(p, layer, x):
  return F.linear(x, p[f'{layer}/kernel'].T, p.get(f'{layer}/bias'))


def conv(p, layer, x):
  """4x4 of stride 2 to half the side, rounded up; one zero goes before."""
  side = x.shape[-1]
  after = 2 * -(-side // 2) + 1 - side
  w = p[f'{layer}/kernel'].permute(3, 2, 0, 1)
  return F.conv2d(F.pad(x, (1, after) * 2), w, p.get(f'{layer}/bias'), 2)


def conv_transpose(p, layer, x, side):
  """The transpose of a `conv` from this side."""
  w = p[f'{layer}/kernel'].permute(3, 2, 0, 1)
  x = F.conv_transpose2d(x, w, p.get(f'{layer}/bias'), 2, 1)
  return x[..., :side, :side]


def batch_norm(p, layer, x):
  scale, bias = p[f'{layer}/scale'], p[f'{layer}/bias']
  return F.batch_norm(x, None, None, scale, bias, training=True)


def layer_norm(p, layer, x):
  return F.group_norm(x, 1, p[f'{layer}/scale'], p[f'{layer}/bias'])


def perceptron(p, x):
  *hidden, last = sorted({name.split('/')[0] for name in p})
  for layer in hidden:
    x = F.silu(linear(p, layer, x))
  return linear(p, last, x)


def mlp_g(p, z):
  return torch.tanh(perceptron(p, z)).reshape(-1, *SHAPE)


def mlp_d(p, x):
  return perceptron(p, x.flatten(1))[:, 0]


def dcgan_g(p, z):
  h = linear(p, 'Dense_0', z).reshape(len(z), 3, 3, -1).permute(0, 3, 1, 2)
  h = F.relu(batch_norm(p, 'BatchNorm_0', h))
  h = conv_transpose(p, 'ConvTranspose_0', h, 5)
  h = F.relu(batch_norm(p, 'BatchNorm_1', h))
  x = torch.tanh(conv_transpose(p, 'ConvTranspose_1', h, 10))
  return x.permute(0, 2, 3, 1)


def dcgan_d(p, x):
  h = F.leaky_relu(conv(p, 'Conv_0', x.permute(0, 3, 1, 2)), 0.2)
  h = conv(p, 'Conv_1', h)
  if 'BatchNorm_0/scale' in p:
    h = batch_norm(p, 'BatchNorm_0', h)
  else:
    h = layer_norm(p, 'GroupNorm_0', h)
  h = F.leaky_relu(h, 0.2).permute(0, 2, 3, 1)
  return linear(p, 'Dense_0', h.flatten(1))[:, 0]


PAIRS = {'mlp': (mlp_g, mlp_d), 'dcgan': (dcgan_g, dcgan_d)}


# The objectives: D's loss and G's on logits of real and of generated samples.


def bce(logits, label):
  labels = torch.full_like(logits, label)
  return F.binary_cross_entropy_with_logits(logits, labels)


def classify(real, fake):
  return bce(real, 1) + bce(fake, 0)


def hinges(real, fake):
  return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def f_gan(activation, conjugate):
  """Nowozin et al. 2016, equation 6, with a row of tables 2 and 6."""

  def bound(real, fake):
    t = activation(fake)
    return activation(real).mean() - conjugate(t).mean()

  return (
    lambda real, fake: -bound(real, fake),
    lambda real, fake: -conjugate(activation(fake)).mean(),
  )


def averages(loss):
  """Jolicoeur-Martineau 2018, section 4: against the mean of the other kind."""

  def relative(a, b):
    return loss(a - b.mean(), b - a.mean())

  return relative, lambda real, fake: relative(fake, real)


LOSSES = {
  'minimax': (classify, lambda real, fake: -bce(fake, 0)),
  'non_saturating': (classify, lambda real, fake: bce(fake, 1)),
  'least_squares': (
    lambda real, fake: ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2,
    lambda real, fake: ((fake - 1) ** 2).mean() / 2,
  ),
  'wasserstein': (
    lambda real, fake: fake.mean() - real.mean(),
    lambda real, fake: -fake.mean(),
  ),
  'hinge': (hinges, lambda real, fake: -fake.mean()),
  'relativistic': (
    lambda real, fake: bce(real - fake, 1),
    lambda real, fake: bce(fake - real, 1),
  ),
  'relativistic_average': averages(classify),
  'relativistic_average_ls': averages(
    lambda r, f: ((r - 1) ** 2).mean() + ((f + 1) ** 2).mean()
  ),
  'relativistic_average_hinge': averages(hinges),
  'fgan_kl': f_gan(lambda v: v, lambda t: torch.exp(t - 1)),
  'fgan_reverse_kl': f_gan(
    lambda v: -torch.exp(-v), lambda t: -1 - torch.log(-t)
  ),
  'fgan_pearson': f_gan(lambda v: v, lambda t: t**2 / 4 + t),
  'fgan_neyman': f_gan(
    lambda v: 1 - torch.exp(-v), lambda t: 2 - 2 * torch.sqrt(1 - t)
  ),
  'fgan_hellinger': f_gan(lambda v: 1 - torch.exp(-v), lambda t: t / (1 - t)),
  'fgan_jensen_shannon': f_gan(
    lambda v: np.log(2) - torch.log(1 + torch.exp(-v)),
    lambda t: -torch.log(2 - torch.exp(t)),
  ),
}


# The penalties.


class Sight(NamedTuple):
  """What a penalty looks at.

  Attributes:
    d: D as a function of samples.
    g: G as a function of noise.
    real: samples.
    fake: samples, of `z`.
    z: noise.
    p: parameters of the player that is penalized.
    key: of the penalty.
    means: of D's output on real and on generated samples, LeCam's.
  """

  d: Callable[[Any], Any]
  g: Callable[[Any], Any]
  real: Any
  fake: Any
  z: Any
  p: dict[str, Any]
  key: Any
  means: tuple[Any, Any]


def tensor(x):
  return torch.tensor(np.array(x, np.float64))


def uniform(key, *shape):
  draws = tensor(jax.random.uniform(key, (int(np.prod(shape)),)))
  return draws.reshape(shape)


def slopes(s, x):
  """`|grad D(x)|` of each example."""
  x = x.detach().requires_grad_()
  (grad,) = torch.autograd.grad(s.d(x).sum(), x, create_graph=True)
  return torch.linalg.vector_norm(grad.flatten(1), dim=1)


def between(s):
  epsilon = uniform(s.key, N, 1, 1, 1)
  return epsilon * s.real + (1 - epsilon) * s.fake


def around(s):
  """DRAGAN's authors' code: up to half a standard deviation away."""
  key_alpha, key_delta = jax.random.split(s.key)
  delta = s.real.std(correction=0) * uniform(key_delta, *s.real.shape) / 2
  return s.real + uniform(key_alpha, N, 1, 1, 1) * delta


def inconsistency(s, x, key):
  moved = tensor(consistency_view(jnp.asarray(x.detach().numpy()), key))
  return (s.d(x) - s.d(moved)).square().mean()


def balanced(s):
  key_real, key_fake = jax.random.split(s.key)
  real = inconsistency(s, s.real, key_real)
  return real + inconsistency(s, s.fake, key_fake)


def near(s):
  delta = tensor(jax.random.normal(s.key, (s.z.numel(),)))
  return s.g(s.z + 0.05 * delta.reshape(s.z.shape))


def grams(p):
  """`W W'` of each kernel as (outputs, rest), or `W' W` if that is smaller."""
  for name, w in p.items():
    if name.endswith('kernel'):
      w = w.transpose(-1, -2) if 'Transpose' in name else w
      w = w.movedim(-1, 0).flatten(1)
      yield w @ w.T if len(w) <= len(w.T) else w.T @ w


def off_identity(s):
  return sum((g - torch.eye(len(g))).square().sum() for g in grams(s.p))


def off_diagonal(s):
  return sum((g - g.diag().diag()).square().sum() for g in grams(s.p))


D_PENALTIES = {
  'r1': lambda s: (slopes(s, s.real) ** 2).mean() / 2,
  'r2': lambda s: (slopes(s, s.fake) ** 2).mean() / 2,
  'zero_centred': lambda s: (slopes(s, between(s)) ** 2).mean(),
  'wgan_gp': lambda s: ((slopes(s, between(s)) - 1) ** 2).mean(),
  'wgan_gp_one_sided': lambda s: (
    F.relu(slopes(s, between(s)) - 1).square().mean()
  ),
  'dragan': lambda s: ((slopes(s, around(s)) - 1) ** 2).mean(),
  'lecam': lambda s: (
    (s.d(s.real) - s.means[1]).square().mean()
    + (s.d(s.fake) - s.means[0]).square().mean()
  ),
  'cr': lambda s: inconsistency(s, s.real, s.key),
  'bcr': balanced,
  'zcr': lambda s: (s.d(s.fake) - s.d(near(s).detach())).square().mean(),
  'orthogonal': off_identity,
}
G_PENALTIES = {
  'zcr_g': lambda s: -(s.fake - near(s)).flatten(1).square().sum(1).mean(),
  'orthogonal_g': off_diagonal,
}


# A game in both.


class Wide(Augmentation):
  """Samples in float64: a step takes them in float32."""

  def apply(self, x, key):
    return x.astype(jnp.float64)


def made(network, objective, regularizer='', rule='sgd', norm_d='none'):
  """A trainer in float64, and its state with weights that make D sure."""
  how = dict(norm_g='batch', norm_d=norm_d) if network == 'dcgan' else {}
  nets = networks.build(
    network, SHAPE, bounded=True, width=4, dtype=jnp.float64, **how
  )
  terms = []
  if regularizer:
    number = dict(bound=BOUND) if regularizer == 'clip' else dict(weight=WEIGHT)
    terms = [REGULARIZERS[regularizer](**number)]
  optimizer = OPTIMIZERS[rule](learning_rate=RATE, beta1=0.5)
  game = Game(nets, OBJECTIVES[objective], terms, augment=[Wide])
  trainer = Trainer(game, optimizer, optimizer, ema=None)
  state = jax.tree.map(widened, trainer.init(jax.random.key(0)))
  random = np.random.default_rng(0)
  g, d = (
    player.replace(params=weights(player.params, random))
    for player in (state.g, state.d)
  )
  hyper = {k: jnp.float64(x) for k, x in trainer.hyperparameters().items()}
  return trainer, state.replace(g=g, d=d, hyper=hyper)


def widened(x):
  return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


def weights(params, random):
  def one(path, w):
    noise = random.normal(size=w.shape)
    if path[-1] == 'scale':
      return jnp.asarray(1 + noise / 4)
    if path[-1] == 'bias':
      return jnp.asarray(noise / 4)
    outputs = w.shape[-2] if 'Transpose' in path[0] else w.shape[-1]
    return jnp.asarray(noise * np.sqrt(2 * outputs / w.size))

  return unflatten_dict({k: one(k, w) for k, w in flatten_dict(params).items()})


def flat(params):
  return {k: np.array(w) for k, w in flatten_dict(params, sep='/').items()}


class Twin:
  """The same game in PyTorch."""

  def __init__(self, trainer, state, network, objective, regularizer, rule):
    self.game, self.root = trainer.game, state.key
    self.d_loss, self.g_loss = LOSSES[objective]
    self.regularizer, self.means = regularizer, (0.0, 0.0)
    self.g_p, self.d_p = (
      {k: tensor(w).requires_grad_() for k, w in flat(player.params).items()}
      for player in (state.g, state.d)
    )
    g, d = PAIRS[network]
    self.g, self.d = lambda z: g(self.g_p, z), lambda x: d(self.d_p, x)
    self.opt_g, self.opt_d = (
      torch.optim.Adam(p.values(), RATE, (0.5, 0.999))
      if rule == 'adam'
      else torch.optim.SGD(p.values(), RATE, momentum=0.5)
      for p in (self.g_p, self.d_p)
    )

  def step(self, number, reals):
    """One update of D, one of G; losses and penalties by name."""
    key = stream(self.root, 'step', number)
    logs = self.update_d(reals[0], stream(key, 'd', 0))
    return logs | self.update_g(reals[-1], stream(key, 'g', 0))

  def update_d(self, real, key):
    s = self.sight(real, key, self.d_p)
    s = s._replace(fake=s.fake.detach())
    on_real, on_fake = self.d(s.real), self.d(s.fake)
    penalty = D_PENALTIES.get(self.regularizer)
    loss = self.d_loss(on_real, on_fake)
    logs = self.descend('d', self.opt_d, loss, penalty, s)
    if self.regularizer == 'clip':
      for p in self.d_p.values():
        p.data.clamp_(-BOUND, BOUND)
    self.means = tuple(
      0.99 * a + 0.01 * x.mean().item()
      for a, x in zip(self.means, (on_real, on_fake))
    )
    return logs

  def update_g(self, real, key):
    s = self.sight(real, key, self.g_p)
    loss = self.g_loss(self.d(s.real), self.d(s.fake))
    penalty = G_PENALTIES.get(self.regularizer)
    return self.descend('g', self.opt_g, loss, penalty, s)

  def sight(self, real, key, p):
    z = tensor(draw(self.game, N, key).z)
    own = stream(stream(key, 'regularizers'), self.regularizer)
    return Sight(self.d, self.g, real, self.g(z), z, p, own, self.means)

  def descend(self, player, optimizer, loss, penalty, s):
    logs, whole = {f'{player}/loss': loss.item()}, loss
    if penalty is not None:
      value = penalty(s)
      logs[f'{player}/penalty/{self.regularizer}'] = value.item()
      whole = loss + WEIGHT * value
    optimizer.zero_grad()
    whole.backward()
    optimizer.step()
    return logs


def gap(ours, theirs, floor=0.0):
  """Relative difference of norms; a norm below the floor counts as it."""
  size = max(np.linalg.norm(theirs), floor)
  return np.linalg.norm(ours - theirs) / size if size else np.linalg.norm(ours)


def compare(network, objective, regularizer='', rule='sgd', norm_d='none'):
  """The worst relative difference of what two steps log and change."""
  trainer, state = made(network, objective, regularizer, rule, norm_d)
  twin = Twin(trainer, state, network, objective, regularizer, rule)
  before = {'g': flat(state.g.params), 'd': flat(state.d.params)}
  random, gaps = np.random.default_rng(1), {}
  for number in range(STEPS):
    shape = (trainer.real_batches, N, *SHAPE)
    reals = random.uniform(-1, 1, shape).astype(np.float32)
    state, logs = trainer.step(state, jnp.asarray(reals))
    wanted = twin.step(number, tensor(reals))
    for name, value in wanted.items():
      assert value != 0, f'{name} is 0, and the comparison says nothing'
      gaps[number, name] = gap(np.float64(logs[name]), value)
    penalties = {name for name in logs if 'penalty' in name}
    assert penalties == {name for name in wanted if 'penalty' in name}
  for player, twins in (('g', twin.g_p), ('d', twin.d_p)):
    after, old = flat(getattr(state, player).params), before[player]
    assert set(after) == set(twins)
    changes = {k: twins[k].detach().numpy() - old[k] for k in twins}
    # What has no slope but for rounding: an output's bias against two means.
    floor = 1e-5 * np.sqrt(sum(np.sum(x**2) for x in changes.values()))
    for k, change in changes.items():
      gaps[f'{player}/{k}'] = gap(after[k] - old[k], change, floor)
  worst = max(gaps, key=gaps.get)
  print(f'{gaps[worst]:.1e} {worst}', network, objective, regularizer, rule)
  return np.max(list(gaps.values()))


@pytest.mark.parametrize('objective', LOSSES)
@pytest.mark.parametrize('network', PAIRS)
def test_objective(network, objective):
  norm_d = 'batch' if network == 'dcgan' else 'none'
  assert compare(network, objective, norm_d=norm_d) < TOLERANCE


@pytest.mark.parametrize('regularizer', [*D_PENALTIES, *G_PENALTIES, 'clip'])
@pytest.mark.parametrize('objective', ['non_saturating', 'wasserstein'])
@pytest.mark.parametrize('network', PAIRS)
def test_regularizer(network, objective, regularizer):
  gap = compare(network, objective, regularizer, norm_d='layer')
  assert gap < TOLERANCE


@pytest.mark.parametrize('network', PAIRS)
def test_adam(network):
  gap = compare(network, 'non_saturating', rule='adam', norm_d='layer')
  assert gap < TOLERANCE
