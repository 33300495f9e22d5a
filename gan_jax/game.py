"""One game: D's move and G's move, as losses of one player each.

D's move labels real samples 1 and generated ones 0; the generated samples are
given, so no gradient reaches G. G's move chains G and D and labels the
generated samples 1; the error flows through D into G, while D's parameters
stand behind a `stop_gradient`.

A loss draws everything it needs from one key, split the same way in both
moves: with one key, both moves see the same noise, dropout and samples, and
XLA computes what they share once (`--schedule=simultaneous`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax import objectives
from gan_jax.networks import Networks, Params, Stats
from gan_jax.state import GANState, Hyper

Samples = Float[Array, 'batch *shape']
Metrics = dict[str, Float[Array, '']]
Scalar = Float[Array, '']


def _anywhere(x: Any) -> Any:
  return x


class Game(NamedTuple):
  """Who plays, and for what.

  Attributes:
    networks: G, D and the distribution of G's noise.
    objective: the two losses.
    shard: places a batch on the devices (`sharding.py`).
  """

  networks: Networks
  objective: objectives.Objective
  shard: Callable[[Any], Any] = _anywhere


class _Keys(NamedTuple):
  latent: Key[Array, '']
  generator: Key[Array, '']
  noise_real: Key[Array, '']
  noise_fake: Key[Array, '']
  d_real: Key[Array, '']
  d_fake: Key[Array, '']


def _keys(key: Key[Array, '']) -> _Keys:
  return _Keys(*jax.random.split(key, len(_Keys._fields)))


def _noised(x: Samples, std: Scalar | None, key: Key[Array, '']) -> Samples:
  """Instance noise: `x + std * N(0, 1)`; x itself when std is None.

  Reference: Sonderby et al. 2017, arXiv:1610.04490, section 4.
  """
  if std is None:
    return x
  noise = jax.random.normal(key, (x.size,)).reshape(x.shape)
  return x + std * noise


def _generate(
  game: Game, params: Params, stats: Stats, batch_size: int, keys: _Keys
) -> tuple[Samples, Stats]:
  z = game.shard(game.networks.sample_latent(keys.latent, batch_size))
  return game.networks.generator.apply(
    params, stats, z, train=True, key=keys.generator
  )


def discriminator_loss(
  d_params: Params,
  state: GANState,
  game: Game,
  real: Samples,
  key: Key[Array, ''],
  hyper: Hyper,
  noise_std: Scalar | None = None,
) -> tuple[Scalar, tuple[Stats, Metrics]]:
  """D's move: real samples labelled 1, generated ones labelled 0.

  Args:
    d_params: what the loss is differentiated with respect to.
    state: everything else; `state.d.params` is not read.
    game: networks and objective.
    real: a batch of real samples; as many are generated.
    key: for noise, dropout and instance noise.
    hyper: `label_smoothing` is read.
    noise_std: deviation of the instance noise, None for none.

  Returns:
    The loss, and D's moved running statistics with metrics.
  """
  keys = _keys(key)
  fake, _ = _generate(game, state.g.params, state.g.stats, real.shape[0], keys)
  fake = jax.lax.stop_gradient(fake)
  apply = game.networks.discriminator.apply
  real_logits, stats = apply(
    d_params,
    state.d.stats,
    _noised(real, noise_std, keys.noise_real),
    train=True,
    key=keys.d_real,
  )
  fake_logits, stats = apply(
    d_params,
    stats,
    _noised(fake, noise_std, keys.noise_fake),
    train=True,
    key=keys.d_fake,
  )
  loss = game.objective.d_loss(
    real_logits, fake_logits, 1.0 - jnp.asarray(hyper.label_smoothing)
  )
  v = objectives.value(real_logits, fake_logits)
  metrics = {
    'd/loss': loss,
    'd/prob_real': jnp.mean(jax.nn.sigmoid(real_logits)),
    'd/prob_fake': jnp.mean(jax.nn.sigmoid(fake_logits)),
    'game/value': v,
    'game/jsd_bound': objectives.jsd_bound(v),
  }
  return loss, (stats, metrics)


def generator_loss(
  g_params: Params,
  state: GANState,
  game: Game,
  batch_size: int,
  key: Key[Array, ''],
  noise_std: Scalar | None = None,
) -> tuple[Scalar, tuple[Stats, Metrics]]:
  """G's move: its samples, labelled 1, judged by a D that does not move.

  Args:
    g_params: what the loss is differentiated with respect to.
    state: everything else; `state.g.params` is not read.
    game: networks and objective.
    batch_size: samples to generate.
    key: for noise, dropout and instance noise.
    noise_std: deviation of the instance noise, None for none.

  Returns:
    The loss, and G's moved running statistics with metrics.
  """
  keys = _keys(key)
  fake, stats = _generate(game, g_params, state.g.stats, batch_size, keys)
  frozen = jax.lax.stop_gradient(state.d.params)
  logits, _ = game.networks.discriminator.apply(
    frozen,
    state.d.stats,
    _noised(fake, noise_std, keys.noise_fake),
    train=True,
    key=keys.d_fake,
  )
  loss = game.objective.g_loss(logits)
  return loss, (stats, {'g/loss': loss})
