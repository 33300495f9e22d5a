"""The game: D's loss and G's loss, each of one player.

In D's update real samples are labelled 1 and generated ones 0; no gradient
reaches G. G's update chains G and D and labels the generated samples 1; the
error flows through D into G, while D's parameters stand behind a
`stop_gradient`.

A loss draws everything it needs from streams of one key, of the same names in
both updates: with one key, both see the same noise, dropout and samples, and
XLA computes what they share once (`schedules.Simultaneous`).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gan_jax.game import objectives
from gan_jax.game.augment import Augmentation
from gan_jax.game.classes import check_counts, draw_classes
from gan_jax.game.component import (
  Component,
  Named,
  as_component,
  by_name,
  check_part,
  component_field,
  has_values,
  static,
)
from gan_jax.game.objectives import Objective
from gan_jax.game.regularizers import DView, GView, Regularizer
from gan_jax.game.state import State
from gan_jax.game.streams import Streams, stream
from gan_jax.networks.base import Net, Networks, Params, Stats, wide
from gan_jax.networks.checks import check_networks
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.sharding import split_rows

Samples = Float[Array, 'n *shape']
Noise = Float[Array, 'n latent_dim']
Logits = Float[Array, ' n']
Label = Int[Array, ' n'] | None
Scalar = Float[Array, '']
Logs = dict[str, Scalar]
Heads = dict[str, Array]


class Batch(NamedTuple):
  """Samples, and their classes in a class-conditional game."""

  x: Samples
  label: Label = None


class Draw(NamedTuple):
  """What generated samples are made of: noise, and classes if there are any."""

  z: Noise
  label: Label


class Aux(NamedTuple):
  """What a loss finds out besides its value.

  Attributes:
    stats: moved running statistics of the player whose loss it is.
    memory: moved memory of the regularizers that act on this player.
    logs: scalars by name.
  """

  stats: Stats
  memory: dict[str, Any]
  logs: Logs


class InstanceNoise(Component):
  """Normal noise on all that D sees, constant or falling linearly to 0.

  Attributes:
    std: its standard deviation at the start, in units of a sample's numbers.
    kimg: thousands of real images shown over which it falls to 0; 0: constant.

  Reference: Sonderby et al. 2017, arXiv:1610.04490, section 4.
  """

  std: float = 0.1
  kimg: float = 0.0

  def check(self) -> None:
    """Refuses negative numbers."""
    for name in ('std', 'kimg'):
      if getattr(self, name) < 0:
        raise ArgumentError(name, getattr(self, name), 'use 0 or more')

  def std_at(self, images: Scalar) -> Scalar:
    """Its standard deviation when so many real images have been shown."""
    kimg = jnp.asarray(self.kimg, jnp.float32)
    left = jnp.clip(1 - images / (1000 * jnp.maximum(kimg, 1e-9)), 0.0, 1.0)
    return self.std * jnp.where(kimg > 0, left, 1.0)


class Game(Component):
  """Who plays, and for what: networks, objective and all that joins the losses.

  Attributes:
    networks: G, D and the distribution of G's noise.
    objective: the two losses.
    regularizers: what is added to them, by name; a list of components or
      classes is taken as well.
    augment: augmentations of all that D sees, in their order; likewise.
    packing: samples that D judges together (PacGAN), joined along their last
      axis.
    instance_noise: on all that D sees; None for none.

  Raises:
    ArgumentError: for networks, components or numbers of no use together.
  """

  networks: Networks = static()
  objective: Objective = component_field()
  regularizers: Any = component_field(())
  augment: Any = component_field(())
  packing: int = static(1)
  instance_noise: InstanceNoise | None = component_field(None)

  def __post_init__(self) -> None:
    """Puts components in the place of what stands for them; checks."""
    rebuilt = (
      isinstance(self.objective, Objective)
      and isinstance(self.regularizers, Named)
      and isinstance(self.augment, Named)
    )
    if not rebuilt:
      self._replace_parts()
    if has_values(self, rebuilt=rebuilt):
      self.check()

  def _replace_parts(self) -> None:
    """Components in the place of classes and lists."""
    parts = dict(
      objective=as_component('objective', self.objective, Objective),
      regularizers=by_name('regularizers', self.regularizers, Regularizer),
      augment=by_name('augment', self.augment, Augmentation),
    )
    if self.instance_noise is not None:
      noise = as_component('instance_noise', self.instance_noise, InstanceNoise)
      parts['instance_noise'] = noise
    for name, part in parts.items():
      object.__setattr__(self, name, part)

  def check(self) -> None:
    """Refuses what is of no use together."""
    if not isinstance(self.packing, int) or self.packing < 1:
      raise ArgumentError('packing', self.packing, 'use 1 or more')
    if not isinstance(self.networks, Networks):
      raise ArgumentError(
        'networks',
        type(self.networks).__name__,
        'give what `gan_jax.networks.from_linen` and its kin make',
      )
    check_counts(self.networks.class_counts, self.networks.classes)
    if self.packing > 1 and self.networks.classes:
      raise ArgumentError(
        'packing',
        self.packing,
        'the samples of a pack would have labels of their own; use `packing=1`'
        ' or networks without classes',
      )
    try:
      hash(self.networks)
    except TypeError as error:
      raise ArgumentError(
        'networks',
        'Networks',
        f'cannot be compiled in ({error}); give `sample_shape` as a tuple and'
        ' functions that can be hashed',
      ) from error
    _check_once(self.networks, self.packing)
    images = len(self.networks.sample_shape) == 3
    check_part('objective', self.objective)
    for name, part in self.regularizers.items():
      check_part(f'regularizers.{name}', part)
    for name, part in self.augment.items():
      check_part(f'augment.{name}', part)
    for term in self.terms:
      if term.images and not images:
        raise ArgumentError(
          'regularizers',
          term.name,
          'flips and shifts images, and samples are of shape'
          f' {self.networks.sample_shape}; leave it out',
        )
    if self.augment and not images:
      raise ArgumentError(
        'augment',
        ','.join(self.augment),
        'is for images, and samples are of shape'
        f' {self.networks.sample_shape}; leave it out',
      )
    if self.instance_noise is not None:
      check_part('instance_noise', self.instance_noise)

  @property
  def terms(self) -> tuple[Regularizer, ...]:
    """The regularizers."""
    return tuple(self.regularizers.values())

  def acting(self, on: str) -> dict[str, Regularizer]:
    """Regularizers on `d`, on `g`, or that `project` D's parameters."""
    return {k: t for k, t in self.regularizers.items() if on in t.acts_on}


@functools.lru_cache(maxsize=64)
def _check_once(networks: Networks, packing: int) -> None:
  """Checks networks, which takes a trace of each, the first time."""
  check_networks(networks, packing=packing)


def packed(x: Samples, packing: int) -> Float[Array, 'packs *wider']:
  """(n, ..., c) -> (n / packing, ..., c packing): samples that D judges as one.

  Reference: Lin et al. 2018 (PacGAN), arXiv:1712.04086, section 3.
  """
  if packing == 1:
    return x
  n, *place, c = x.shape
  packs = x.reshape(n // packing, packing, *place, c)
  return jnp.moveaxis(packs, 1, -2).reshape(-1, *place, packing * c)


def draw_latent(networks: Networks, n: int, key: Key[Array, '']) -> Noise:
  """Noise of n samples: (n, latent_dim), float32."""
  shape = (networks.latent_dim,)
  if networks.latent is jax.random.normal:  # alike at once, and cheaper
    return jax.random.normal(key, (n * shape[0],)).reshape(n, *shape)
  keys = jax.random.split(key, n)
  return jax.vmap(lambda k: networks.latent(k, shape))(keys)


def draw(game: Game, n: int, key: Key[Array, '']) -> Draw:
  """What a loss with this key draws for itself.

  To be given to two losses of one key: XLA does not see in a loop that two
  draws are one, and would compute G's pass for each.
  """
  networks, label = game.networks, None
  if networks.classes:
    label = split_rows(draw_classes(networks, stream(key, 'label'), n))
  z = draw_latent(networks, n, stream(key, 'latent'))
  return Draw(split_rows(z), label)


def apply_g(
  net: Net, params: Params, stats: Stats, of: Draw, key: Key[Array, '']
) -> tuple[Samples, Stats]:
  """Generated samples in training, and G's moved statistics."""
  x, stats = net.apply(params, stats, of.z, train=True, key=key, label=of.label)
  return wide(x), stats


def apply_d(
  net: Net,
  params: Params,
  stats: Stats,
  x: Samples,
  label: Label,
  key: Key[Array, ''] | None,
  train: bool = True,
) -> tuple[Logits, Heads, Stats]:
  """D's logits, its further outputs and its moved statistics."""
  out, stats = net.apply(params, stats, x, train=train, key=key, label=label)
  logits, heads = out if isinstance(out, tuple) else (out, {})
  return wide(logits), dict(heads), stats


class _InputTransform:
  """How D is shown samples in one loss: augmented, packed, with noise."""

  def __init__(self, game: Game, images: Scalar, streams: Streams) -> None:
    self._game, self._keys = game, {}
    self._std = None
    if game.instance_noise is not None:
      self._std = game.instance_noise.std_at(images)
    for kind in ('real', 'fake'):
      key = streams(f'shown/{kind}')
      self._keys[kind] = key

  def __call__(self, x: Samples, kind: str) -> Float[Array, 'packs *wider']:
    """Samples as D sees them; the same transformation at each call."""
    game, key = self._game, self._keys[kind]
    for name, augmentation in game.augment.items():
      x = augmentation.apply(x, stream(key, name))
    x = packed(x, game.packing)
    if self._std is None:
      return x
    noise = jax.random.normal(stream(key, 'instance_noise'), (x.size,))
    return x + self._std * noise.reshape(x.shape)


def _interpret_logits(objective: Objective, real: Logits, fake: Logits) -> Logs:
  """What D's outputs say: probabilities, and the value they amount to.

  Of the log density ratio that the game's D is after; where it is after none
  (Wasserstein, hinge, relativistic games), of the output taken for one.
  """
  on_real, on_fake = (
    x if (ratio := objective.log_ratio(x)) is None else ratio
    for x in (real, fake)
  )
  v = objectives.value(on_real, on_fake)
  return {
    'd/prob_real': jnp.mean(jax.nn.sigmoid(on_real)),
    'd/prob_fake': jnp.mean(jax.nn.sigmoid(on_fake)),
    'd/logit_real': jnp.mean(real),
    'd/logit_fake': jnp.mean(fake),
    'game/value': v,
    'game/jsd_bound': objectives.jsd_bound(v),
  }


def d_view(
  game: Game,
  params: Params,
  state: State,
  real: Batch,
  key: Key[Array, ''],
  *,
  images: Scalar,
  drawn: Draw | None = None,
  frozen: bool = True,
) -> tuple[DView, Stats]:
  """What D is shown in its update and what it says; its moved statistics.

  The view is that of no regularizer yet: its memory is empty.
  """
  networks, streams = game.networks, Streams(key)
  drawn = drawn or draw(game, real.x.shape[0], key)
  key_g, key_real, key_fake = map(streams, ('g', 'd/real', 'd/fake'))
  transform = _InputTransform(game, images, streams)

  def generate(z: Noise) -> Float[Array, 'packs *wider']:
    x, _ = apply_g(
      networks.generator,
      state.g.params,
      state.g.stats,
      Draw(z, drawn.label),
      jax.random.clone(key_g),
    )
    return transform(jax.lax.stop_gradient(x) if frozen else x, 'fake')

  def discriminate(
    x: Samples, label: Label, key: Key[Array, ''], stats: Stats
  ) -> tuple[Logits, Heads, Stats]:
    key = jax.random.clone(key)
    return apply_d(networks.discriminator, params, stats, x, label, key)

  x, y = transform(real.x, 'real'), generate(drawn.z)
  first = state.d.stats
  real_logits, real_heads, between = discriminate(
    x, real.label, key_real, first
  )
  fake_logits, fake_heads, stats = discriminate(
    y, drawn.label, key_fake, between
  )
  view = DView(
    critic=lambda x, label: discriminate(x, label, key_real, first)[0],
    critic_fake=lambda x, label: discriminate(x, label, key_fake, between)[0],
    real=x,
    real_logits=real_logits,
    real_heads=real_heads,
    real_label=real.label,
    fake=y,
    fake_logits=fake_logits,
    fake_heads=fake_heads,
    fake_label=drawn.label,
    z=drawn.z,
    generate=generate,
    params=params,
    memory=(),
    key=streams('regularizers'),
    step=state.step,
  )
  return view, stats


def d_loss(
  game: Game,
  params: Params,
  state: State,
  real: Batch,
  key: Key[Array, ''],
  *,
  images: Scalar,
  drawn: Draw | None = None,
  frozen: bool = True,
  penalties: bool = True,
) -> tuple[Scalar, Aux]:
  """D's loss: real samples labelled 1, generated ones labelled 0.

  Args:
    game: networks, objective and what is added.
    params: D's, which the loss is differentiated by; `state.d.params` is not
      read.
    state: everything else.
    real: a batch of real samples; as many are generated.
    key: of all streams of this update.
    images: real images shown before this step (instance noise).
    drawn: what the samples are made of; None: `draw` with this key.
    frozen: whether a `stop_gradient` stands between this loss and G; without
      it, for those who differentiate D's loss by G's parameters.
    penalties: whether the regularizers' terms are added.
  """
  view, stats = d_view(
    game,
    params,
    state,
    real,
    key,
    images=images,
    drawn=drawn,
    frozen=frozen,
  )
  logits = view.real_logits, view.fake_logits
  loss = game.objective.d_loss(*logits)
  logs = {'d/loss': loss} | _interpret_logits(game.objective, *logits)
  terms = game.acting('d') if penalties else {}
  views = {name: _for_term(view, name, state) for name in terms}
  values = _lazily(
    terms, lambda name: terms[name].on_d(views[name]), state.step
  )
  memory = {
    n: t.next_memory(views[n].memory, views[n]) for n, t in terms.items()
  }
  for name, penalty in values.items():
    loss += terms[name].strength * penalty
    logs[f'd/penalty/{name}'] = penalty
  return loss, Aux(stats, jax.lax.stop_gradient(memory), logs)


def _for_term(view: Any, name: str, state: State) -> Any:
  """A view as one regularizer has it."""
  key = stream(view.key, name)
  return view._replace(key=key, memory=state.memory.get(name, ()))


def _lazily(
  terms: Mapping[str, Regularizer],
  penalty: Callable[[str], Scalar],
  step: Int[Array, ''],
) -> Logs:
  """D's penalties; lazy ones every so many steps, so many times as heavy.

  The mean of D's gradient is thus what it is without. StyleGAN2 also multiplies
  the learning rate by c = k / (k + 1) and takes the betas to the power c: there
  a penalty is a step of the optimizer by itself, of which k steps have k + 1.
  Here it joins the loss of its step, so that there are no more steps than
  before, and nothing to correct.

  Reference: Karras et al. 2020 (StyleGAN2), arXiv:1912.04958, appendix B.
  """
  penalties: Logs = {}
  for every in sorted({term.lazy for term in terms.values()}):
    names = [name for name, term in terms.items() if term.lazy == every]

    def due(names: list[str] = names, every: int = every) -> list[Scalar]:
      return [every * penalty(name) for name in names]

    def none(names: list[str] = names) -> list[Scalar]:
      return [jnp.float32(0) for _ in names]

    values = due() if every == 1 else jax.lax.cond(step % every == 0, due, none)
    penalties |= dict(zip(names, values, strict=True))
  return {name: penalties[name] for name in terms}


def g_view(
  game: Game,
  params: Params,
  state: State,
  real: Batch,
  key: Key[Array, ''],
  *,
  images: Scalar,
  drawn: Draw | None = None,
  frozen: bool = True,
) -> tuple[GView, Logits | None, Stats]:
  """What G makes in its update and what D says of it.

  The view is that of no regularizer yet: its memory is empty.

  Returns:
    The view; D's logits on real samples, which only relativistic objectives
    read, and None for others; G's moved statistics.
  """
  networks, streams = game.networks, Streams(key)
  drawn = drawn or draw(game, real.x.shape[0], key)
  key_g, key_real, key_fake = map(streams, ('g', 'd/real', 'd/fake'))
  transform = _InputTransform(game, images, streams)
  d_params = jax.lax.stop_gradient(state.d.params) if frozen else state.d.params

  def generate(z: Noise) -> tuple[Samples, Stats]:
    return apply_g(
      networks.generator,
      params,
      state.g.stats,
      Draw(z, drawn.label),
      jax.random.clone(key_g),
    )

  def discriminate(
    x: Samples, label: Label, key: Key[Array, '']
  ) -> tuple[Logits, Heads, Stats]:
    return apply_d(
      networks.discriminator, d_params, state.d.stats, x, label, key
    )

  fake, stats = generate(drawn.z)
  logits, heads, _ = discriminate(
    transform(fake, 'fake'), drawn.label, key_fake
  )
  real_logits = None
  if game.objective.relativistic:
    real_logits = discriminate(transform(real.x, 'real'), real.label, key_real)[
      0
    ]
  view = GView(
    fake=fake,
    fake_logits=logits,
    fake_heads=heads,
    fake_label=drawn.label,
    z=drawn.z,
    generate=lambda z: generate(z)[0],
    params=params,
    memory=(),
    key=streams('regularizers'),
    step=state.step,
  )
  return view, real_logits, stats


def g_loss(
  game: Game,
  params: Params,
  state: State,
  real: Batch,
  key: Key[Array, ''],
  *,
  images: Scalar,
  drawn: Draw | None = None,
  frozen: bool = True,
  penalties: bool = True,
) -> tuple[Scalar, Aux]:
  """G's loss: its samples, labelled 1, judged by a D that does not move.

  Args:
    game: as in `d_loss`, as are all that are not named here.
    params: G's, which the loss is differentiated by; `state.g.params` is not
      read.
    state: everything else.
    real: a batch of real samples; as many are generated. Only a relativistic
      objective looks at them.
    key: of all streams of this update.
    images: real images shown before this step.
    drawn: what the samples are made of.
    frozen: whether a `stop_gradient` stands between this loss and D's
      parameters.
    penalties: whether the regularizers' terms are added.
  """
  view, real_logits, stats = g_view(
    game,
    params,
    state,
    real,
    key,
    images=images,
    drawn=drawn,
    frozen=frozen,
  )
  loss = game.objective.g_loss(real_logits, view.fake_logits)
  logs = {'g/loss': loss}
  memory = {}
  for name, term in (game.acting('g') if penalties else {}).items():
    own = _for_term(view, name, state)
    penalty = term.on_g(own)
    memory[name] = term.next_memory(own.memory, own)
    loss += term.strength * penalty
    logs[f'g/penalty/{name}'] = penalty
  return loss, Aux(stats, jax.lax.stop_gradient(memory), logs)
