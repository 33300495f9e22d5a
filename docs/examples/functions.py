"""Plain functions as networks, and an optax chain as the optimizer."""

import jax
import jax.numpy as jnp
import optax

import gan_jax as gj


def init(key):
  w, v = jax.random.normal(key, (2, 2, 64)) / jnp.sqrt(8.0)
  return {'w': w, 'b': jnp.zeros(64), 'v': v}


def hidden(p, x):
  return jnp.tanh(x @ p['w'] + p['b'])


g = init, lambda p, z: hidden(p, z) @ p['v'].T
d = init, lambda p, x: hidden(p, x) @ p['v'].sum(0)
nets = gj.networks.from_functions(g, d, latent_dim=2, sample_shape=(2,))
chain = optax.chain(optax.clip_by_global_norm(1.0), optax.nadamw(1e-3))
trainer = gj.Trainer(gj.Game(nets, gj.objectives.hinge), chain, chain)
gj.train('runs/functions', data='ring', trainer=trainer, steps=2000)
