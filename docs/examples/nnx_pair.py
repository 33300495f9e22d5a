"""Own Flax nnx networks: each is a function from a seed to a module."""

from flax import nnx

import gan_jax as gj


def make_g(rngs):
  first, last = nnx.Linear(16, 128, rngs=rngs), nnx.Linear(128, 64, rngs=rngs)
  norm, shape = nnx.BatchNorm(128, rngs=rngs), lambda x: x.reshape(-1, 8, 8, 1)
  return nnx.Sequential(first, norm, nnx.relu, last, nnx.tanh, shape)


def make_d(rngs):
  first, last = nnx.Linear(64, 128, rngs=rngs), nnx.Linear(128, 1, rngs=rngs)
  flat, logit = lambda x: x.reshape(-1, 64), lambda x: x[:, 0]
  return nnx.Sequential(flat, first, nnx.relu, last, logit)


nets = gj.networks.from_nnx(
  make_g, make_d, latent_dim=16, sample_shape=(8, 8, 1)
)
adam = gj.optimizers.adam(2e-4)
trainer = gj.Trainer(gj.Game(nets, gj.objectives.non_saturating), adam, adam)
gj.train('runs/nnx_pair', data='digits', trainer=trainer, steps=2000)
