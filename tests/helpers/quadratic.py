"""A game that is known whole: `G(z) = a z + b`, `D(x) = c x^2 + w x`."""

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import networks
from gan_jax.game.game import Batch, Game
from gan_jax.game.objectives import NonSaturating
from gan_jax.game.optimizers import Sgd
from gan_jax.game.schedules import Alternating
from gan_jax.game.trainer import Trainer
from helpers.toygame import net

Z = np.linspace(-1, 1, 6)  # all noise there is, in this order
X = np.linspace(0.5, 2, 6)
THETA = np.array([0.5, -0.3, 0.7, -0.2])  # a, b of G; c, w of D


def _generate(p, z, label):
  """Of a batch of another size, the same noise again and again."""
  noise = jnp.resize(jnp.float32(Z), len(z))
  return p['a'] * noise[:, None] + p['b']


def quadratic(regularizers=(), schedule=None):
  """Trainer, state and real samples."""
  a, b, c, w = map(jnp.float32, THETA)
  nets = networks.Networks(
    net({'a': a, 'b': b}, _generate),
    net(
      {'c': c, 'w': w},
      lambda p, x, label: p['c'] * jnp.square(x[:, 0]) + p['w'] * x[:, 0],
    ),
    1,
    (1,),
  )
  game = Game(nets, NonSaturating(), list(regularizers))
  trainer = Trainer(game, Sgd(), Sgd(), schedule or Alternating())
  state = trainer.init(jax.random.key(0))
  return trainer, state, Batch(jnp.float32(X[:, None]))
