"""The package's own train step and instruments on Dirac-GAN, many at once.

One compiled program a schedule: the objective is switched and the penalties'
weights are traced, so that all games of a schedule are one `vmap`.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import theory
from numpy.typing import NDArray

import gan_jax as gj
from gan_jax.game import dynamics
from gan_jax.game.game import Batch
from gan_jax.game.objectives import OBJECTIVES
from gan_jax.game.regularizers import REGULARIZERS
from gan_jax.game.schedules import SCHEDULES

BATCH = 2  # all samples are the same
RATE, WEIGHT, BOUND, CONSENSUS, UNROLL = 0.1, 1.0, 0.5, 0.5, 5
NOISE, NOISE_BATCH = 1.0, 256
START = (1.0, 0.8)
_FREE = 1e30  # a bound that clips nothing


class Setting(NamedTuple):
  """One of the games that are played.

  Attributes:
    objective: a key of `OBJECTIVES`.
    regularizer: a key of `REGULARIZERS`, or none.
    labels: b, a and c of least squares.
    noise: standard deviation of the instance noise.
  """

  objective: str
  regularizer: str = 'none'
  labels: tuple[float, float, float] = (1.0, 0.0, 1.0)
  noise: float = 0.0

  @property
  def name(self) -> str:
    """The objective, with its labels where they are not the usual ones."""
    if self.labels == Setting('').labels:
      return self.objective
    return f'{self.objective} {self.labels}'

  @property
  def slopes(self) -> theory.Slopes:
    """What theory says of the objective."""
    if self.objective == 'least_squares':
      return theory.least_squares(*self.labels)
    if self.objective in theory.OBJECTIVES:
      return theory.OBJECTIVES[self.objective]
    return theory.slopes_of(OBJECTIVES[self.objective]().reference)

  @property
  def penalty(self) -> theory.Penalty:
    """What theory says of the regularizer's penalty on D."""
    if self.regularizer in theory.PENALTIES:
      return theory.PENALTIES[self.regularizer]
    return theory.penalty_of(REGULARIZERS[self.regularizer]().dirac)

  @property
  def damping(self) -> float | None:
    """Of the penalty at the equilibrium; None where it has no slope."""
    return theory.damping(self.regularizer, WEIGHT, self.penalty)

  def game(self, **numbers: Any) -> theory.Dirac:
    """What theory plays."""
    penalty = self.penalty
    return theory.Dirac(
      self.slopes,
      penalty,
      0.0 if penalty is theory.NONE else WEIGHT,
      BOUND if self.regularizer == 'clip' else np.inf,
      **(dict(consensus=CONSENSUS, unroll=UNROLL) | numbers),
    )


# D, without a bias, can say 0 in the middle of these labels.
CENTRED = (1.0, -1.0, 0.0)
OBJECTIVE_SETTINGS = [
  *map(Setting, OBJECTIVES),
  Setting('least_squares', labels=CENTRED),
]


def _acts(name: str) -> bool:
  """Whether a regularizer finds something to act on, and says its penalty."""
  try:
    return REGULARIZERS[name]().dirac(0.0, 0.0) is not None
  except NotImplementedError:
    return False


PENALTIES = [name for name in REGULARIZERS if _acts(name)]
SETTINGS = [
  setting._replace(regularizer=name)
  for setting in OBJECTIVE_SETTINGS
  for name in ('none', *PENALTIES)
]


def noisy() -> list[Setting]:
  """Every objective with instance noise."""
  return [s._replace(noise=NOISE) for s in OBJECTIVE_SETTINGS]


class Switched(gj.Objective):
  """One of the package's objectives, by a number that is traced.

  Attributes:
    index: of an entry of `OBJECTIVES`.
    real: b of least squares; `fake` and `target` are its a and c.
  """

  index: float = 0.0
  real: float = 1.0
  fake: float = 0.0
  target: float = 1.0

  relativistic = True

  def _entries(self) -> list[gj.Objective]:
    least_squares = gj.objectives.least_squares(
      self.real, self.fake, self.target
    )
    return [
      least_squares if name == 'least_squares' else kind()
      for name, kind in OBJECTIVES.items()
    ]

  def d_loss(self, real: Any, fake: Any) -> Any:
    """That of the entry."""
    losses = [entry.d_loss for entry in self._entries()]
    return jax.lax.switch(jnp.int32(self.index), losses, real, fake)

  def g_loss(self, real: Any, fake: Any) -> Any:
    """That of the entry."""
    losses = [entry.g_loss for entry in self._entries()]
    return jax.lax.switch(jnp.int32(self.index), losses, real, fake)


def _regularizers() -> list[gj.Regularizer]:
  return [REGULARIZERS[name]() for name in PENALTIES]


def numbers(settings: Sequence[Setting], **rates: float) -> dict[str, Any]:
  """Hyper-parameters of some settings by path, arrays (games,)."""
  found: dict[str, Any] = {}
  for term in _regularizers():
    field, off, on = (
      ('bound', _FREE, BOUND)
      if term.name == 'clip'
      else ('weight', 0.0, WEIGHT)
    )
    found[f'regularizers.{term.name}.{field}'] = [
      on if s.regularizer == term.name else off for s in settings
    ]
  for player in 'gd':
    rate = rates.get(f'rate_{player}', RATE)
    found[f'optimizer_{player}.learning_rate'] = [rate] * len(settings)
  for i, label in enumerate(('real', 'fake', 'target')):
    found[f'objective.{label}'] = [s.labels[i] for s in settings]
  names = list(OBJECTIVES)
  found['objective.index'] = [names.index(s.objective) for s in settings]
  if any(s.noise for s in settings):
    found['instance_noise.std'] = [s.noise for s in settings]
  return {path: jnp.asarray(x, jnp.float32) for path, x in found.items()}


def _trainer(schedule: str, with_noise: bool, **static: Any) -> gj.Trainer:
  nets = gj.networks.build('dirac', (1,), bounded=False)
  game = gj.Game(
    nets,
    Switched,
    _regularizers(),
    instance_noise=gj.InstanceNoise(NOISE) if with_noise else None,
  )
  if schedule == 'unrolled':
    static = {'unroll_steps': UNROLL} | static
  if schedule == 'consensus':
    static = {'weight': CONSENSUS} | static
  sgd = gj.optimizers.sgd(RATE, beta1=0.0)
  return gj.Trainer(
    game, sgd, sgd, schedule=SCHEDULES[schedule](**static), ema=None
  )


def _at(trainer: gj.Trainer, hyper: dict[str, Any], point: Any) -> gj.State:
  state = trainer.init(jax.random.key(0), hyper)
  return state.replace(
    g=state.g.replace(params={'theta': jnp.float32(point[0])}),
    d=state.d.replace(params={'psi': jnp.float32(point[1])}),
  )


def _reals(trainer: gj.Trainer, with_noise: bool) -> Any:
  """The data: all of it at 0."""
  batch = NOISE_BATCH if with_noise else BATCH
  return jnp.zeros((trainer.real_batches, batch, 1))


@functools.cache
def _program(schedule: str, steps: int, with_noise: bool, **static: Any) -> Any:
  """`(numbers, start) -> points`, compiled once."""
  trainer = _trainer(schedule, with_noise, **static)
  reals = _reals(trainer, with_noise)

  def one(hyper: dict[str, Any], start: Any) -> Any:
    def body(state: gj.State, _: Any) -> Any:
      state, _ = trainer.step(state, reals)
      point = state.g.params['theta'], state.d.params['psi']
      return state, jnp.stack(point)

    return jax.lax.scan(body, _at(trainer, hyper, start), None, length=steps)[1]

  return jax.jit(jax.vmap(one, (0, None)))


def trajectories(
  settings: Sequence[Setting],
  schedule: str,
  steps: int,
  start: tuple[float, float] = START,
  *,
  rates: dict[str, float] | None = None,
  **static: Any,
) -> NDArray[np.float32]:
  """Points (games, steps, 2) after each train step of the package."""
  with_noise = any(s.noise for s in settings)
  program = _program(schedule, steps, with_noise, **static)
  return np.asarray(
    program(numbers(settings, **(rates or {})), jnp.array(start))
  )


def jacobians(
  settings: Sequence[Setting],
  schedule: str = 'simultaneous',
  point: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float32]:
  """The package's Jacobians (games, 2, 2) of the field at a point."""
  with_noise = any(s.noise for s in settings)
  trainer = _trainer(schedule, with_noise)
  real = Batch(_reals(trainer, with_noise)[0])

  def one(hyper: dict[str, Any]) -> Any:
    state = _at(trainer, hyper, point)
    v, w = dynamics.field(trainer, state, real, jax.random.key(1))
    return dynamics.jacobian(v, w)

  return np.asarray(jax.jit(jax.vmap(one))(numbers(settings)))
