"""The trainer: one step of a game, read from top to bottom.

`init` and `step` are pure functions of pytrees: jit, scan, vmap and donate them
as you like. They know nothing of flags, files or devices.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from gan_jax.game import game as game_lib
from gan_jax.game.component import (
  Component,
  as_component,
  as_scalars,
  call_of,
  check_part,
  component_field,
  has_values,
  hyperparameters,
  static,
  with_hyperparameters,
)
from gan_jax.game.game import Batch, Game, Label, Logs, Noise, Samples
from gan_jax.game.optimizers import Optimizer, as_optimizer
from gan_jax.game.schedules import Alternating, Gradient, Schedule, Updates
from gan_jax.game.state import Average, Player, State
from gan_jax.game.streams import stream
from gan_jax.networks.base import Params
from gan_jax.runtime import numerics
from gan_jax.runtime.errors import ArgumentError
from gan_jax.runtime.sharding import split_rows

Scalar = Float[Array, '']


class Ema(Component):
  """An exponential moving average of G's parameters and running statistics.

  The half-life is never more than a twentieth of what has been shown, so that
  the average leaves the initialisation behind early on (Karras et al. 2022,
  arXiv:2206.00364, EDM's `ema_rampup_ratio`).

  Attributes:
    halflife_kimg: its half-life, in thousands of real images shown.
  """

  halflife_kimg: float = 10.0

  def check(self) -> None:
    """Refuses a half-life that is none."""
    if not self.halflife_kimg > 0:
      raise ArgumentError(
        'halflife_kimg',
        self.halflife_kimg,
        'use more than 0, or `ema=None` for no average',
      )

  def update(
    self, average: Average, g: Player, images: Any, images_a_step: int
  ) -> Average:
    """The average after a step.

    Args:
      average: before it.
      g: after it.
      images: real images shown so far, those of this step among them.
      images_a_step: real images of a step.
    """
    half_life = jnp.minimum(self.halflife_kimg * 1000.0, images / 20)
    decay = 0.5 ** (images_a_step / half_life)

    def mix(average: Array, live: Array) -> Array:
      if not jnp.issubdtype(jnp.asarray(live).dtype, jnp.floating):
        return jnp.copy(live)
      return (live + decay * (average - live)).astype(live.dtype)

    return Average(
      jax.tree.map(mix, average.params, g.params),
      jax.tree.map(mix, average.stats, g.stats),
    )


class Trainer(Component):
  """A game and how it is played: optimizers, schedule, average.

  Attributes:
    game: networks, objective and what joins the losses.
    optimizer_g: one of `optimizers`, or a transformation of Optax, whole.
    optimizer_d: likewise.
    schedule: the order of the players' updates.
    ema: the average of G that is kept; None for none.
    matmul_precision: of products of float32 in a step, as
      `jax.default_matmul_precision` takes it; 'default': as JAX is set.
    accumulate: parts of a batch, whose gradients are taken one after another
      and averaged: as much less memory for what is between the layers. Batch
      statistics are each part's; running ones, and regularizers' memories, move
      with each part. Losses that compare the samples of a batch (relativistic
      averages) compare those of a part.

  Raises:
    ArgumentError: naming the argument that is of no use.
  """

  game: Game = component_field()
  optimizer_g: Optimizer = component_field()
  optimizer_d: Optimizer = component_field()
  schedule: Schedule = component_field(Alternating)
  ema: Ema | None = component_field(Ema)
  matmul_precision: str = static('default')
  accumulate: int = static(1)

  def __post_init__(self) -> None:
    """Puts components in the place of what stands for them; checks."""
    if not isinstance(self.game, Game):
      raise ArgumentError('game', type(self.game).__name__, 'give a `Game`')
    rebuilt = all(isinstance(x, Component) for x in self._own()) and isinstance(
      self.ema, Ema | None
    )
    if not rebuilt:
      self._replace_parts()
    if has_values(self, rebuilt=rebuilt):
      self.check()

  def _replace_parts(self) -> None:
    """Components in the place of classes and Optax's transformations."""
    nets = self.game.networks
    parts: dict[str, Any] = dict(
      optimizer_g=as_optimizer('optimizer_g', self.optimizer_g, nets.generator),
      optimizer_d=as_optimizer(
        'optimizer_d', self.optimizer_d, nets.discriminator
      ),
      schedule=as_component('schedule', self.schedule, Schedule),
    )
    if self.ema is not None:
      parts['ema'] = as_component('ema', self.ema, Ema)
    for name, part in parts.items():
      object.__setattr__(self, name, part)

  def _own(self) -> tuple[Any, ...]:
    return self.optimizer_g, self.optimizer_d, self.schedule

  def check(self) -> None:
    """Refuses what is of no use together."""
    for name in ('optimizer_g', 'optimizer_d', 'schedule', 'ema'):
      part = getattr(self, name)
      if part is not None:
        check_part(name, part)
    numerics.check_precision('matmul_precision', self.matmul_precision)
    parts = self.accumulate
    if not isinstance(parts, int) or parts < 1:
      raise ArgumentError(
        'accumulate', parts, 'use a whole number of 1 or more'
      )
    if parts > 1 and not self.schedule.accumulates:
      raise ArgumentError(
        'accumulate',
        parts,
        f'{call_of(self.schedule)} needs more of a batch than the mean gradient'
        ' of its parts; use 1, or another schedule (one of your own says'
        ' `accumulates = True`)',
      )

  # What it is made of.

  @property
  def real_batches(self) -> int:
    """Batches of real samples that one step takes."""
    return self.schedule.real_batches(self.game.objective)

  def hyperparameters(self) -> dict[str, float]:
    """All hyper-parameters by path, at their values here."""
    return {k: float(v) for k, v in hyperparameters(self).items()}

  def images_a_step(self, batch_size: int) -> int:
    """Real images that D is shown in a step, with each of its updates."""
    return batch_size * self.schedule.d_updates()

  def rates(self, step: Any) -> dict[str, Any]:
    """Both learning rates at a step, for the log."""
    rates = {
      'd/lr': self.optimizer_d.rate(step),
      'g/lr': self.optimizer_g.rate(step),
    }
    return {name: rate for name, rate in rates.items() if rate is not None}

  def at(self, hyper: Mapping[str, Any]) -> 'Trainer':
    """The same trainer at other hyper-parameters, by path.

    Raises:
      ArgumentError: for a path that it does not have.
    """
    return with_hyperparameters(self, hyper)

  def _at_state(self, state: State) -> 'Trainer':
    """The same trainer at a state's hyper-parameters.

    Raises:
      ArgumentError: for a state of a trainer with others.
    """
    missing = hyperparameters(self).keys() - state.hyper.keys()
    if missing:
      raise ArgumentError(
        'state',
        'State',
        f'has no `{min(missing)}` among its hyper-parameters; it was made by'
        ' another trainer',
      )
    return self.at(state.hyper)

  # The game.

  def init(
    self, key: Key[Array, ''], hyper: Mapping[str, Any] | None = None
  ) -> State:
    """A fresh game: both networks initialised, both optax states empty.

    Args:
      key: of a run, as `jax.random.key(seed)`.
      hyper: hyper-parameters by path, in the place of the trainer's own.

    Raises:
      ArgumentError: for a path that it does not have.
    """
    self = self.at(hyper or {})
    g_net, d_net = (
      self.game.networks.generator,
      self.game.networks.discriminator,
    )
    g_params, g_stats = g_net.init(stream(key, 'init/g'))
    d_params, d_stats = d_net.init(stream(key, 'init/d'))
    opt_g, opt_d = (
      self._transform(self.optimizer_g),
      self._transform(self.optimizer_d),
    )
    memory = {
      name: term.init_memory()
      for name, term in self.game.regularizers.items()
      if jax.tree.leaves(term.init_memory())
    }
    state = State(
      step=jnp.int32(0),
      key=stream(key, 'root'),
      g=Player(g_params, g_stats, opt_g.init(g_params)),
      d=Player(d_params, d_stats, opt_d.init(d_params)),
      ema=Average(g_params, g_stats) if self.ema is not None else None,
      memory=memory,
      hyper=as_scalars(hyperparameters(self)),
    )
    # A donated state must not hold one buffer twice.
    return jax.tree.map(jnp.copy, state)

  def step(self, state: State, batch: Any) -> tuple[State, Logs]:
    """One step: every update of both players, and of the average.

    Args:
      state: before it; its `hyper` are the numbers that are used.
      batch: real samples (k, n, *sample_shape), float32, images in [-1, 1]; k
        is `real_batches` and may be left out if it is 1. In a class-conditional
        game a pair of it and int labels (k, n).

    Returns:
      The state after it, and scalars by name: those of the last update of D
      and of the last of G.

    Raises:
      ArgumentError: for a batch of another shape or type, naming what is meant.
    """
    reals = self._reals(batch)
    at = self._at_state(state)
    n = reals.x.shape[1]
    updates = at._updates(state, n)
    key = stream(state.key, 'step', state.step)
    with numerics.multiplying(self.matmul_precision):
      now, logs = at.schedule.update(updates, state, reals, key)
    if at.ema is not None and state.ema is not None:
      images_a_step = self.images_a_step(n)
      shown = (state.step + 1).astype(jnp.float32) * images_a_step
      now = now.replace(
        ema=at.ema.update(state.ema, now.g, shown, images_a_step)
      )
    return now.replace(step=state.step + 1), logs

  def updates(self, state: State, n: int) -> Updates:
    """The losses and updates of a step from this state, with batches of n."""
    return self._at_state(state)._updates(state, n)

  def _updates(self, state: State, n: int) -> Updates:
    game, step = self.game, state.step
    images = step.astype(jnp.float32) * self.images_a_step(n)
    opt_g = self._transform(self.optimizer_g, step)
    opt_d = self._transform(self.optimizer_d, step)

    def d_loss(
      params: Params, state: State, real: Batch, key: Key[Array, ''], **how: Any
    ) -> Any:
      return game_lib.d_loss(
        game, params, state, real, key, images=images, **how
      )

    def g_loss(
      params: Params, state: State, real: Batch, key: Key[Array, ''], **how: Any
    ) -> Any:
      return game_lib.g_loss(
        game, params, state, real, key, images=images, **how
      )

    def apply_d(state: State, gradient: Gradient) -> State:
      d = _descend(state.d, gradient, opt_d)
      for term in game.acting('project').values():
        d = d.replace(params=term.project_d(d.params))
      return state.replace(d=d, memory=state.memory | _held(state, gradient))

    def apply_g(state: State, gradient: Gradient) -> State:
      g = _descend(state.g, gradient, opt_g)
      return state.replace(g=g, memory=state.memory | _held(state, gradient))

    def draw(real: Batch, key: Key[Array, '']) -> game_lib.Draw:
      return game_lib.draw(game, real.x.shape[0], key)

    return Updates(d_loss, g_loss, apply_d, apply_g, draw, self.accumulate)

  def _transform(self, optimizer: Optimizer, step: Any = 0) -> Any:
    return self.schedule.wrap(optimizer.transform(step))

  def generate(
    self,
    state: State,
    z: Noise,
    label: Label = None,
    *,
    key: Key[Array, ''] | None = None,
    ema: bool = True,
  ) -> Samples:
    """Samples (n, *sample_shape) from noise (n, latent_dim).

    Args:
      state: of the game.
      z: noise.
      label: classes (n,) of a class-conditional game.
      key: for a G that draws outside of training.
      ema: from the averaged generator where there is one.
    """
    source: Any = state.ema if ema and state.ema is not None else state.g
    x, _ = self.game.networks.generator.apply(
      source.params, source.stats, z, train=False, key=key, label=label
    )
    return x.astype(jnp.float32)

  # What a batch must be.

  def _reals(self, batch: Any) -> Batch:
    """A batch with its leading axis, checked.

    Raises:
      ArgumentError: naming what is meant.
    """
    pair = batch if isinstance(batch, tuple) else (batch, None)
    if len(pair) != 2:
      raise ArgumentError(
        'batch', f'a tuple of {len(pair)}', 'give samples, or (samples, labels)'
      )
    x, label = pair
    shape, k = self.game.networks.sample_shape, self.real_batches
    wanted = f'({", ".join(map(str, (k, "n", *shape)))})'
    takes = f'a step of {call_of(self.schedule)} takes {k}'
    if not hasattr(x, 'dtype'):
      try:
        x = jnp.asarray(x)
      except (TypeError, ValueError) as error:
        remedy = 'is no array; give samples, or a tuple (samples, labels)'
        name = f'{type(x).__module__}.{type(x).__qualname__}'
        what = name.removeprefix('builtins.')
        if isinstance(x, Mapping):
          what = f'{what} of {", ".join(map(str, x))}'
        raise ArgumentError('batch', what, remedy) from error
    described = f'{x.dtype}{tuple(x.shape)}'
    if x.dtype == jnp.uint8:
      raise ArgumentError(
        'batch',
        described,
        'is uint8; a step takes float32, images in [-1, 1]: give'
        ' (x - 127.5) / 127.5',
      )
    if x.dtype != jnp.float32:
      raise ArgumentError(
        'batch',
        described,
        f'is {x.dtype}; use float32, as `x.astype(np.float32)`',
      )
    if x.ndim == len(shape) + 1 and x.shape[1:] == shape:
      if k != 1:
        raise ArgumentError(
          'batch',
          described,
          f'is one batch, and {takes}; stack them: {wanted}',
        )
      x, label = x[None], label if label is None else label[None]
    if x.ndim != len(shape) + 2 or x.shape[2:] != shape:
      raise ArgumentError('batch', described, f'use {wanted}, float32')
    if x.shape[0] != k:
      raise ArgumentError(
        'batch', described, f'has {x.shape[0]} for k, and {takes}: use {wanted}'
      )
    n, parts, packing = x.shape[1], self.accumulate, self.game.packing
    if n % parts:
      raise ArgumentError(
        'batch',
        described,
        f'{n} samples are no multiple of `accumulate={parts}`',
      )
    if n // parts % packing:
      of_part = f' of a part (`accumulate={parts}`)' if parts > 1 else ''
      raise ArgumentError(
        'batch',
        described,
        f'{n // parts} samples{of_part} are no multiple of `packing={packing}`;'
        ' the batch counts samples, not packs',
      )
    label = self._labels(label, x.shape[:2])
    return Batch(
      jax.vmap(split_rows)(x),
      None if label is None else jax.vmap(split_rows)(label),
    )

  def _labels(self, label: Any, shape: tuple[int, ...]) -> Any:
    classes = self.game.networks.classes
    if not classes:
      if label is not None:
        raise ArgumentError(
          'batch',
          '(x, labels)',
          'has labels, and the networks have no classes; give x alone, or'
          ' networks with `classes=...`',
        )
      return None
    if label is None:
      raise ArgumentError(
        'batch',
        'x',
        f'has no labels, and the networks have {classes} classes; give'
        ' (x, labels)',
      )
    label = label if hasattr(label, 'dtype') else jnp.asarray(label)
    if not jnp.issubdtype(label.dtype, jnp.integer) or label.shape != shape:
      raise ArgumentError(
        'batch',
        f'labels {label.dtype}{tuple(label.shape)}',
        f'use whole numbers of shape {shape}',
      )
    return label.astype(jnp.int32)


def _held(state: State, gradient: Gradient) -> dict[str, Any]:
  """Moved memories of the regularizers that have one."""
  return {k: v for k, v in gradient.memory.items() if k in state.memory}


def _descend(player: Player, gradient: Gradient, optimizer: Any) -> Player:
  """One update of one player: descend its own loss."""
  updates, opt_state = optimizer.update(
    gradient.grads, player.opt_state, player.params
  )
  params = jax.tree.map(
    lambda p, u: jnp.asarray(p + u).astype(p.dtype), player.params, updates
  )
  return Player(params, gradient.stats, opt_state)
