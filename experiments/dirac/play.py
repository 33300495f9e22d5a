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

from gan_jax import networks
from gan_jax.data import densities
from gan_jax.game import dynamics
from gan_jax.game.losses import Game
from gan_jax.game.objectives import OBJECTIVES, Equilibrium, Objective
from gan_jax.game.regularizers import REGULARIZERS, Term
from gan_jax.game.state import GANState, Hyper
from gan_jax.game.step import Plan, init_state, make_train_step

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
    noise: deviation of the instance noise.
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
    return theory.OBJECTIVES[self.objective]

  def game(self, **numbers: Any) -> theory.Dirac:
    """What theory plays."""
    penalty = theory.PENALTIES[self.regularizer]
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
  *map(Setting, theory.OBJECTIVES),
  Setting('least_squares', labels=CENTRED),
]
SETTINGS = [
  setting._replace(regularizer=name)
  for setting in OBJECTIVE_SETTINGS
  for name in theory.PENALTIES
]


def noisy() -> list[Setting]:
  """Every objective with instance noise."""
  return [s._replace(noise=NOISE) for s in OBJECTIVE_SETTINGS]


def _switched(index: Any) -> Objective:
  """One of the package's objectives, by a traced number."""
  entries = list(OBJECTIVES.values())

  def loss(player: str) -> Any:
    losses = [getattr(entry, f'{player}_loss') for entry in entries]
    return lambda real, fake, labels: jax.lax.switch(
      index, losses, real, fake, labels
    )

  return Objective(
    loss('d'),
    loss('g'),
    Equilibrium(0.0, 0.0, 0.0),
    log_ratio=None,
    relativistic=True,
    labels=('real', 'fake', 'target'),
  )


def _terms() -> tuple[Term, ...]:
  return tuple(Term(n) for n in REGULARIZERS if n not in theory.UNKNOWN)


def numbers(settings: Sequence[Setting], **rates: float) -> Any:
  """What a program takes of some settings, an axis of all of them first."""
  weights = {
    term.key: jnp.array(
      [
        {'clip': BOUND}.get(term.name, WEIGHT)
        if s.regularizer == term.name
        else {'clip': _FREE}.get(term.name, 0.0)
        for s in settings
      ]
    )
    for term in _terms()
  }
  labels = np.array([s.labels for s in settings], np.float32).T
  full = functools.partial(jnp.full, len(settings))
  hyper = Hyper(
    lr_g=full(rates.get('rate_g', RATE)),
    lr_d=full(rates.get('rate_d', RATE)),
    beta1_g=full(0.0),
    beta1_d=full(0.0),
    label_real=jnp.asarray(labels[0]),
    label_fake=jnp.asarray(labels[1]),
    label_target=jnp.asarray(labels[2]),
    consensus=full(CONSENSUS),
    instance_noise=jnp.array([s.noise for s in settings], jnp.float32),
    penalties=weights,
  )
  # Those that are numbers by default are numbers of every game.
  hyper = jax.tree.map(
    lambda x: x if jnp.ndim(x) else jnp.full(len(settings), x), hyper
  )
  index = [list(OBJECTIVES).index(s.objective) for s in settings]
  return jnp.array(index), hyper


def _plan(index: Any, schedule: str, with_noise: bool, **settings: Any) -> Plan:
  nets = networks.build('dirac', (1,), bounded=False)
  game = Game(nets, _switched(index), regularizers=_terms())
  batch, delta = (NOISE_BATCH if with_noise else BATCH), densities.delta()
  return Plan(
    game,
    batch_size=batch,
    schedule=schedule,
    optimizer_g='sgd',
    optimizer_d='sgd',
    unroll_steps=UNROLL,
    instance_noise=with_noise,
    decode=lambda item, key: delta.sample(key, batch),
    **settings,
  )


def _at(plan: Plan, hyper: Hyper, point: Any) -> GANState:
  state = init_state(jax.random.key(0), plan, hyper)
  return state.replace(
    g=state.g.replace(params={'theta': jnp.float32(point[0])}),
    d=state.d.replace(params={'psi': jnp.float32(point[1])}),
  )


@functools.cache
def _program(
  schedule: str, steps: int, with_noise: bool, **settings: Any
) -> Any:
  """`(indices, numbers, start) -> points`, compiled once."""

  def one(index: Any, hyper: Hyper, start: Any) -> Any:
    plan = _plan(index, schedule, with_noise, **settings)
    step = make_train_step(plan)
    batch = jnp.zeros((plan.real_batches, 1))

    def body(state: GANState, _: Any) -> Any:
      state, _ = step(state, hyper, batch)
      point = state.g.params['theta'], state.d.params['psi']
      return state, jnp.stack(point)

    state = _at(plan, hyper, start)
    return jax.lax.scan(body, state, None, length=steps)[1]

  return jax.jit(jax.vmap(one, (0, 0, None)))


def trajectories(
  settings: Sequence[Setting],
  schedule: str,
  steps: int,
  start: tuple[float, float] = START,
  *,
  rates: dict[str, float] | None = None,
  **plan_settings: Any,
) -> NDArray[np.float32]:
  """Points (games, steps, 2) after each train step of the package."""
  with_noise = any(s.noise for s in settings)
  program = _program(schedule, steps, with_noise, **plan_settings)
  found = program(*numbers(settings, **(rates or {})), jnp.array(start))
  return np.asarray(found)


def jacobians(
  settings: Sequence[Setting],
  schedule: str = 'simultaneous',
  point: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float32]:
  """The package's Jacobians (games, 2, 2) of the field at a point."""
  with_noise = any(s.noise for s in settings)

  def one(index: Any, hyper: Hyper) -> Any:
    plan = _plan(index, schedule, with_noise)
    real = jnp.zeros((plan.batch_size, 1))
    v, w = dynamics.field(
      plan, _at(plan, hyper, point), hyper, real, jax.random.key(1)
    )
    return dynamics.jacobian(v, w)

  return np.asarray(jax.jit(jax.vmap(one))(*numbers(settings)))
