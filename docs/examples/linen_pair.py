"""Own Flax linen networks with batch norm, on scikit-learn's digits."""

import flax.linen as nn

import gan_jax as gj


class G(nn.Module):
  @nn.compact
  def __call__(self, z, train):
    h = nn.BatchNorm(use_running_average=not train)(nn.Dense(128)(z))
    return nn.tanh(nn.Dense(64)(nn.relu(h))).reshape(-1, 8, 8, 1)


class D(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(1)(nn.relu(nn.Dense(128)(x.reshape(-1, 64))))[:, 0]


nets = gj.networks.from_linen(G(), D(), latent_dim=16, sample_shape=(8, 8, 1))
game = gj.Game(nets, gj.objectives.hinge, [gj.regularizers.r1(weight=0.1)])
trainer = gj.Trainer(game, gj.optimizers.adam(1e-4), gj.optimizers.adam(4e-4))
if __name__ == '__main__':
  gj.train('runs/linen_pair', data='digits', trainer=trainer, steps=2000)
