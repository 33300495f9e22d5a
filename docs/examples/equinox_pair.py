"""Own Equinox networks: functions from a key to a module of one example."""

import equinox as eqx
import jax

import gan_jax as gj


def make_g(key):
  mlp = eqx.nn.MLP(16, 64, 128, 2, final_activation=jax.nn.tanh, key=key)
  image = eqx.nn.Lambda(lambda x: x.reshape(8, 8, 1))
  return eqx.nn.Sequential([mlp, image])


def make_d(key):
  flat = eqx.nn.Lambda(lambda x: x.reshape(-1))
  return eqx.nn.Sequential([flat, eqx.nn.MLP(64, 'scalar', 128, 2, key=key)])


nets = gj.networks.from_equinox(
  make_g, make_d, latent_dim=16, sample_shape=(8, 8, 1)
)
adam = gj.optimizers.adam(2e-4)
trainer = gj.Trainer(gj.Game(nets, gj.objectives.non_saturating), adam, adam)
gj.train('runs/equinox_pair', data='digits', trainer=trainer, steps=2000)
