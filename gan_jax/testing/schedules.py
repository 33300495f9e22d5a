"""Conformance test of a schedule: whole steps of a small game."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.game.component import as_component
from gan_jax.game.game import Game
from gan_jax.game.objectives import NonSaturating, Objective, Relativistic
from gan_jax.game.optimizers import Sgd
from gan_jax.game.schedules import Schedule
from gan_jax.game.state import State
from gan_jax.game.trainer import Trainer
from gan_jax.testing import small
from gan_jax.testing.subject import Subject, neighbours

_N = 4
_LOGS = ('d/loss', 'g/loss', 'd/grad_norm', 'g/grad_norm')


def check_schedule(schedule: Schedule | type[Schedule]) -> list[str]:
  """Holds a schedule to what every schedule promises, in whole steps.

  Both players move and their losses are logged; a step is the same under `jit`
  (compiled once for all steps and hyper-parameters, each of which changes
  something) and `vmap`, and where it is taken again; draws new noise at each
  step and no stream of keys twice; looks at each real batch that it asks for;
  and is finite where both networks say the same of everything.

  Args:
    schedule: one, or its class, which is taken at its defaults.

  Returns:
    What it does not say of itself and was not checked: nothing so far.

  Raises:
    AssertionError: naming the schedule and what it breaks.

  >>> from gan_jax.game.schedules import Simultaneous
  >>> check_schedule(Simultaneous)
  []
  """
  schedule = as_component('schedule', schedule, Schedule)
  subject = Subject('schedule', schedule)
  trial = _Trial(schedule)
  _check_counts(subject, trial)
  with jax.debug_key_reuse(True):
    _check_step(subject, trial)
    _check_transforms(subject, trial)
    _check_real_batches(subject, trial)
    _check_hyperparameters(subject, trial)
    _check_still(subject, trial)
  return subject.missing


class _Trial:
  """A schedule in a small game, whose objective reads all real batches.

  Two runs are stepped at once, by one compiled program.
  """

  def __init__(self, schedule: Schedule) -> None:
    self.schedule = schedule
    self.trainer = self.trainer_of(Relativistic)
    self.states = [self.trainer.init(jax.random.key(i)) for i in (0, 1)]
    rng = np.random.default_rng(0)
    shape = (2, self.trainer.real_batches, _N, *small.POINTS)
    self.batches = jnp.float32(rng.normal(size=shape))
    self.compiled: Any = jax.jit(jax.vmap(self.trainer.step))

  def trainer_of(self, objective: type[Objective]) -> Trainer:
    """That plays an objective by plain gradient descent."""
    game = Game(small.parabolas(), objective())
    sgd = Sgd(learning_rate=0.1, beta1=0.0)
    return Trainer(game, sgd, sgd, self.schedule)

  def step(
    self, change: Callable[[State], State] = lambda state: state, x: Any = None
  ) -> tuple[State, dict[str, Any]]:
    """Two states after a step, from states that were changed; and their logs.

    Args:
      change: of each state.
      x: the real batches of both; None: the usual ones.
    """
    changed = [_fresh(change(state)) for state in self.states]
    states = jax.tree.map(lambda a, b: jnp.stack([a, b]), *changed)
    after, logs = self.compiled(states, self.batches if x is None else x)
    return after, logs


def _fresh(state: State) -> State:
  """The same state, its key unused so far."""
  return state.replace(key=jax.random.clone(state.key))


def _check_counts(subject: Subject, trial: _Trial) -> None:
  counts: dict[str, Any] = {'d_updates()': trial.schedule.d_updates()}
  for objective in (NonSaturating, Relativistic):
    asked = trial.schedule.real_batches(objective())
    counts[f'real_batches({objective.__name__}())'] = asked
  for name, count in counts.items():
    subject.require(
      isinstance(count, int) and count >= 1,
      f'{name} is {count}; return a whole number of 1 or more',
    )
  # A trainer that reads fewer of them.
  plain = trial.trainer_of(NonSaturating)
  x = jnp.zeros((plain.real_batches, _N, *small.POINTS))
  jax.eval_shape(lambda key: plain.step(plain.init(key), x), jax.random.key(0))


def _players(state: State) -> Any:
  return state.g.params, state.d.params


def _flat(tree: Any) -> Any:
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def _check_step(subject: Subject, trial: _Trial) -> None:
  """Both move, in noise that is a function of the step."""
  after, logs = trial.step()
  missing = [name for name in _LOGS if name not in logs]
  subject.require(not missing, f'update returns logs without {missing}')
  subject.require_finite(logs, 'a log')
  for name, player in (('G', 'g'), ('D', 'd')):
    old = [_flat(getattr(state, player).params) for state in trial.states]
    new = _flat(getattr(after, player).params)
    moved = not np.allclose(np.sort(np.concatenate(old)), np.sort(new))
    subject.require(moved, f'leaves {name} where it is')
  again, _ = trial.step()
  subject.require(
    np.array_equal(_flat(_players(again)), _flat(_players(after))),
    'goes elsewhere when a step is taken again',
  )
  _, later = trial.step(lambda s: dataclasses.replace(s, step=jnp.int32(1)))
  subject.require(
    not np.array_equal(later['g/loss'], logs['g/loss']),
    'draws the same noise in another step; fold `key` into what is drawn',
  )


def _check_transforms(subject: Subject, trial: _Trial) -> None:
  """Under `jit` and `vmap` as eager."""
  after, _ = trial.step()
  eager, _ = trial.trainer.step(_fresh(trial.states[0]), trial.batches[0])
  subject.require_close(
    jax.tree.map(lambda x: x[0], _players(after)),
    _players(eager),
    'another step under `jit` and `vmap`',
    rtol=1e-4,
    atol=1e-5,
  )


def _check_real_batches(subject: Subject, trial: _Trial) -> None:
  """Each that it asks for is looked at."""
  after = _flat(_players(trial.step()[0]))
  count = trial.trainer.real_batches
  for i in range(count):
    other, _ = trial.step(x=trial.batches.at[:, i].add(1.0))
    subject.require(
      not np.array_equal(after, _flat(_players(other))),
      f'asks for {count} real batches and does not look at number {i}',
    )


def _check_hyperparameters(subject: Subject, trial: _Trial) -> None:
  before = _flat(_players(trial.step()[0]))
  for path, other in neighbours(trial.schedule):
    name = f'schedule.{path}'
    value = trial.trainer.replace(schedule=other).hyperparameters()[name]
    numbers = {name: jnp.float32(value)}
    after, _ = trial.step(_with_numbers(numbers))
    subject.require(
      not np.array_equal(before, _flat(_players(after))),
      f'`{path}` is a hyper-parameter that changes nothing',
    )
  subject.require(
    trial.compiled._cache_size() == 1,
    'is compiled anew for another step or other hyper-parameters',
  )


def _with_numbers(numbers: dict[str, Any]) -> Callable[[State], State]:
  return lambda state: state.replace(hyper=state.hyper | numbers)


def _check_still(subject: Subject, trial: _Trial) -> None:
  """Where every gradient may be 0: both networks at 0."""

  def stilled(state: State) -> State:
    g, d = (
      player.replace(params=jax.tree.map(jnp.zeros_like, player.params))
      for player in (state.g, state.d)
    )
    return state.replace(g=g, d=d)

  after, _ = trial.step(stilled, jnp.zeros_like(trial.batches))
  subject.require_finite(
    _players(after), 'parameters after a step from networks that are 0'
  )
