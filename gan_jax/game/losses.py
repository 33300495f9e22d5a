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
from jaxtyping import Array, Float, Int, Key

from gan_jax.game import augment, objectives
from gan_jax.game.regularizers import ZCR_STD, GView, Term, View
from gan_jax.game.state import GANState, Hyper
from gan_jax.networks import Networks, Params, Stats

PyTree = Any
Samples = Float[Array, 'batch *shape']
Metrics = dict[str, Float[Array, '']]
Scalar = Float[Array, '']
# What stands between a loss and the player whose move it is not.
Frozen = Callable[[Any], Any]


class Batch(NamedTuple):
  """Samples and, in a class-conditional game, their classes."""

  x: Samples
  label: Int[Array, ' batch'] | None = None


def _anywhere(x: Any) -> Any:
  return x


class Game(NamedTuple):
  """Who plays, and for what.

  Attributes:
    networks: G, D and the distribution of G's noise.
    objective: the two losses.
    shard: places a batch on the devices (`sharding.py`).
    regularizers: what is added to the losses; weights are in `Hyper`.
    augment: keys of `augment.AUGMENTATIONS`, laid on all that D sees.
  """

  networks: Networks
  objective: objectives.Objective
  shard: Callable[[Any], Any] = _anywhere
  regularizers: tuple[Term, ...] = ()
  augment: tuple[str, ...] = ()

  def has(self, name: str) -> bool:
    """Whether it has a regularizer of this name."""
    return any(term.name == name for term in self.regularizers)


class _Keys(NamedTuple):
  latent: Key[Array, '']
  generator: Key[Array, '']
  noise_real: Key[Array, '']
  noise_fake: Key[Array, '']
  d_real: Key[Array, '']
  d_fake: Key[Array, '']
  label: Key[Array, '']
  augment_real: Key[Array, '']
  augment_fake: Key[Array, '']
  penalty: Key[Array, '']


def _keys(key: Key[Array, '']) -> _Keys:
  return _Keys(*jax.random.split(key, len(_Keys._fields)))


def _noised(x: Samples, std: Any, key: Key[Array, '']) -> Samples:
  """Instance noise: `x + std * N(0, 1)`; x itself when std is None.

  Reference: Sonderby et al. 2017, arXiv:1610.04490, section 4.
  """
  if std is None:
    return x
  noise = jax.random.normal(key, (x.size,)).reshape(x.shape)
  return x + std * noise


def packed(x: Samples, packing: int) -> Float[Array, 'packs *wider']:
  """(n, ..., c) -> (n / packing, ..., c packing): samples that D judges as one.

  Reference: Lin et al. 2018 (PacGAN), arXiv:1712.04086, section 3.
  """
  if packing == 1:
    return x
  n, *place, c = x.shape
  packs = x.reshape(n // packing, packing, *place, c)
  return jnp.moveaxis(packs, 1, -2).reshape(-1, *place, packing * c)


def _shown(
  game: Game, x: Samples, noise_std: Scalar | None, key: Any, key_noise: Any
) -> Float[Array, 'packs *wider']:
  """Samples as D sees them: augmented, packed, with instance noise."""
  if game.augment:
    x = augment.augment(x, key, game.augment)
  return _noised(packed(x, game.networks.packing), noise_std, key_noise)


class Drawn(NamedTuple):
  """What samples are made of: noise, and classes if there are any."""

  z: Float[Array, 'n latent_dim']
  label: Any


def draw(game: Game, count: int, key: Key[Array, '']) -> Drawn:
  """What a loss with this key draws for itself.

  To be given to two losses of one key: XLA does not see in a loop that two
  draws are one, and would compute G's pass for each.
  """
  networks, keys = game.networks, _keys(key)
  label = None
  if networks.classes:
    label = jax.random.randint(keys.label, (count,), 0, networks.classes)
    label = game.shard(label)
  return Drawn(game.shard(networks.sample_latent(keys.latent, count)), label)


class _Made(NamedTuple):
  """Generated samples, what they were made of, and G's moved statistics."""

  drawn: Drawn
  x: Samples
  stats: Stats


def _generate(
  game: Game, params: Params, stats: Stats, drawn: Drawn, keys: _Keys
) -> _Made:
  made = game.networks.generator.apply(
    params, stats, drawn.z, train=True, key=keys.generator, label=drawn.label
  )
  return _Made(drawn, *made)


def _neighbours(
  game: Game, params: Params, stats: Stats, made: _Made, keys: _Keys
) -> Callable[[Any], Samples]:
  """`key -> G(z + d)` for the noise that some samples were made of."""

  def near(key: Any) -> Samples:
    z = _noised(made.drawn.z, ZCR_STD, key)
    return game.networks.generator.apply(
      params,
      stats,
      z,
      train=True,
      key=jax.random.clone(keys.generator),
      label=made.drawn.label,
    )[0]

  return near


def _as_batch(real: Any) -> Batch:
  return Batch(*real) if isinstance(real, tuple) else Batch(real)


def labels_of(hyper: Hyper) -> objectives.Labels:
  """What samples are labelled at these numbers."""
  return objectives.Labels(
    real=hyper.label_real - jnp.asarray(hyper.label_smoothing),
    fake=hyper.label_fake,
    target=hyper.label_target,
  )


def _beliefs(
  game: Game, real: Any, fake: Any, labels: objectives.Labels
) -> Metrics:
  """What D's outputs say: probabilities, and the value they amount to.

  Of the log density ratio that the game's D is after; where it is after none
  (Wasserstein, hinge, relativistic games), of the output taken for one.
  """
  ratio = game.objective.log_ratio or (lambda logits, labels: logits)
  on_real, on_fake = ratio(real, labels), ratio(fake, labels)
  v = objectives.value(on_real, on_fake)
  return {
    'd/prob_real': jnp.mean(jax.nn.sigmoid(on_real)),
    'd/prob_fake': jnp.mean(jax.nn.sigmoid(on_fake)),
    'd/logit_real': jnp.mean(real),
    'd/logit_fake': jnp.mean(fake),
    'game/value': v,
    'game/jsd_bound': objectives.jsd_bound(v),
  }


def discriminator_view(
  d_params: Params,
  state: GANState,
  game: Game,
  real: Any,
  key: Key[Array, ''],
  noise_std: Scalar | None = None,
  *,
  drawn: Drawn | None = None,
  frozen: Frozen = jax.lax.stop_gradient,
) -> tuple[View, Stats]:
  """What D is shown in its move and what it says; its moved statistics."""
  networks, real = game.networks, _as_batch(real)
  drawn = drawn or draw(game, real.x.shape[0], jax.random.clone(key))
  keys = _keys(key)
  made = _generate(game, state.g.params, state.g.stats, drawn, keys)
  fake = frozen(made.x)
  x = _shown(game, real.x, noise_std, keys.augment_real, keys.noise_real)
  y = _shown(game, fake, noise_std, keys.augment_fake, keys.noise_fake)

  def judge(
    x: Any, label: Any, key: Any, stats: Stats = state.d.stats
  ) -> tuple[Any, Stats]:
    return networks.discriminator.apply(
      d_params, stats, x, train=True, key=key, label=label
    )

  real_logits, between = judge(x, real.label, keys.d_real)
  fake_logits, stats = judge(y, drawn.label, keys.d_fake, between)
  near = _neighbours(game, state.g.params, state.g.stats, made, keys)
  view = View(
    critic=lambda x, label: judge(x, label, jax.random.clone(keys.d_real))[0],
    critic_fake=lambda x, label: judge(
      x, label, jax.random.clone(keys.d_fake), between
    )[0],
    real=x,
    fake=y,
    real_label=real.label,
    fake_label=drawn.label,
    real_logits=real_logits,
    fake_logits=fake_logits,
    params=d_params,
    key=keys.penalty,
    transform=augment.consistency_view,
    # Shown as what they are beside: any other difference is not to be judged.
    neighbours=lambda key: _shown(
      game,
      frozen(near(key)),
      noise_std,
      *map(jax.random.clone, (keys.augment_fake, keys.noise_fake)),
    ),
    anchors=state.anchors and (state.anchors.real, state.anchors.fake),
  )
  return view, stats


def discriminator_loss(
  d_params: Params,
  state: GANState,
  game: Game,
  real: Any,
  key: Key[Array, ''],
  hyper: Hyper,
  noise_std: Scalar | None = None,
  *,
  drawn: Drawn | None = None,
  penalty_factor: Callable[[Callable[[], PyTree]], PyTree] | None = None,
  frozen: Frozen = jax.lax.stop_gradient,
) -> tuple[Scalar, tuple[Stats, Metrics]]:
  """D's move: real samples labelled 1, generated ones labelled 0.

  Args:
    d_params: what the loss is differentiated with respect to.
    state: everything else; `state.d.params` is not read.
    game: networks, objective and regularizers.
    real: a batch of real samples, or a `Batch`; as many are generated.
    key: for noise, dropout, instance noise, augmentation and penalties.
    hyper: labels and penalty weights are read.
    noise_std: deviation of the instance noise, None for none.
    drawn: what the samples are made of; None: `draw` with this key.
    penalty_factor: wraps the computation of the penalties (lazy ones).
    frozen: stands between this loss and G; another one than `stop_gradient`
      is for those who differentiate D's loss by G's parameters.

  Returns:
    The loss, and D's moved running statistics with metrics.
  """
  view, stats = discriminator_view(
    d_params, state, game, real, key, noise_std, drawn=drawn, frozen=frozen
  )
  logits = view.real_logits, view.fake_logits
  labels = labels_of(hyper)
  loss = game.objective.d_loss(*logits, labels)
  metrics = {'d/loss': loss} | _beliefs(game, *logits, labels)
  added, found = _penalties_d(game, hyper, view, penalty_factor)
  return loss + added, (stats, metrics | found)


def _penalties_d(
  game: Game, hyper: Hyper, view: View, factor: Any
) -> tuple[Scalar, Metrics]:
  """The sum of D's weighted penalties, and each as it is."""
  terms = [t for t in game.regularizers if t.entry.on_d is not None]
  if not terms:
    return jnp.float32(0.0), {}

  def compute() -> Metrics:
    found = {}
    for i, term in enumerate(terms):
      key = jax.random.fold_in(jax.random.clone(view.key), i)
      found[f'd/penalty/{term.key}'] = term.on_d(view._replace(key=key))
    return found

  found = factor(compute) if factor else compute()
  weights = [hyper.penalties[term.key] for term in terms]
  total = sum(w * p for w, p in zip(weights, found.values(), strict=True))
  return total, found


def generator_loss(
  g_params: Params,
  state: GANState,
  game: Game,
  real: Any,
  key: Key[Array, ''],
  hyper: Hyper,
  noise_std: Scalar | None = None,
  *,
  drawn: Drawn | None = None,
  frozen: Frozen = jax.lax.stop_gradient,
) -> tuple[Scalar, tuple[Stats, Metrics]]:
  """G's move: its samples, labelled 1, judged by a D that does not move.

  Args:
    g_params: what the loss is differentiated with respect to.
    state: everything else; `state.g.params` is not read.
    game: networks, objective and regularizers.
    real: a batch of real samples, or a `Batch`; as many are generated. Only a
      relativistic game looks at them.
    key: for noise, dropout, instance noise, augmentation and penalties.
    hyper: labels and penalty weights are read.
    noise_std: deviation of the instance noise, None for none.
    drawn: what the samples are made of; None: `draw` with this key.
    frozen: stands between this loss and D's parameters; another one than
      `stop_gradient` is for those who differentiate G's loss by them.

  Returns:
    The loss, and G's moved running statistics with metrics.
  """
  real = _as_batch(real)
  drawn = drawn or draw(game, real.x.shape[0], jax.random.clone(key))
  keys = _keys(key)
  made = _generate(game, g_params, state.g.stats, drawn, keys)
  d_params = frozen(state.d.params)

  def judge(x: Any, label: Any, key: Any) -> Any:
    return game.networks.discriminator.apply(
      d_params, state.d.stats, x, train=True, key=key, label=label
    )[0]

  y = _shown(game, made.x, noise_std, keys.augment_fake, keys.noise_fake)
  fake_logits = judge(y, drawn.label, keys.d_fake)
  real_logits = None
  if game.objective.relativistic:
    x = _shown(game, real.x, noise_std, keys.augment_real, keys.noise_real)
    real_logits = judge(x, real.label, keys.d_real)
  loss = game.objective.g_loss(real_logits, fake_logits, labels_of(hyper))
  metrics, total = {'g/loss': loss}, loss
  near = _neighbours(game, g_params, state.g.stats, made, keys)
  for i, term in enumerate(game.regularizers):
    if term.entry.on_g is not None:
      key_term = jax.random.fold_in(jax.random.clone(keys.penalty), i)
      penalty = term.entry.on_g(GView(made.x, g_params, key_term, near))
      metrics[f'g/penalty/{term.key}'] = penalty
      total += hyper.penalties[term.key] * penalty
  return total, (made.stats, metrics)


def vector_field(
  g_params: Params,
  d_params: Params,
  state: GANState,
  game: Game,
  real: Any,
  key: Key[Array, ''],
  hyper: Hyper,
  noise_std: Scalar | None = None,
) -> tuple[Params, Params]:
  """Each player's gradient of its own loss, as a function of both players.

  Nothing is frozen: the result may be differentiated by either (consensus
  optimization, the game's Jacobian).

  Returns:
    G's and D's gradient.
  """
  now = state.replace(
    g=state.g.replace(params=g_params), d=state.d.replace(params=d_params)
  )
  again = jax.random.clone(key)
  drawn = draw(game, _as_batch(real).x.shape[0], jax.random.clone(key))
  rest: Any = dict(drawn=drawn, frozen=_anywhere)
  to_g = jax.grad(generator_loss, has_aux=True)(
    g_params, now, game, real, key, hyper, noise_std, **rest
  )[0]
  to_d = jax.grad(discriminator_loss, has_aux=True)(
    d_params, now, game, real, again, hyper, noise_std, **rest
  )[0]
  return to_g, to_d


def half_square(g_grads: PyTree, d_grads: PyTree) -> Scalar:
  """`|v|^2 / 2` of a vector field, smooth where it is 0."""
  squares = [
    jnp.sum(jnp.square(x)) for x in jax.tree.leaves((g_grads, d_grads))
  ]
  return jnp.sum(jnp.stack(squares)) / 2
