"""Conformance test of a regularizer: what all promise, and what it claims."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax import networks as network_lib
from gan_jax.game import game as game_lib
from gan_jax.game.component import made
from gan_jax.game.game import Batch, Game
from gan_jax.game.objectives import NonSaturating
from gan_jax.game.regularizers import Regularizer
from gan_jax.game.state import Player, State
from gan_jax.networks.base import Networks
from gan_jax.testing import small
from gan_jax.testing.subject import Subject, neighbours, overrides

_N, _TIMES = 6, 4  # samples; so many times as many, of the same ones
_KEYS = 64  # draws that a mean is taken over
_NEAR = 8.0  # standard errors within which two means are one
_POINTS = ((0.7, -1.3), (-1.1, 0.4), (0.5, 0.0))  # theta, psi of Dirac-GAN

Penalty = Callable[..., Any]


def check_regularizer(
  regularizer: Regularizer | type[Regularizer],
  networks: Networks | None = None,
) -> list[str]:
  """Holds a regularizer to what every regularizer promises, and to its claims.

  A penalty reaches the player that it is for; is the same under `jit` (compiled
  once for all hyper-parameters) and `vmap`; is a mean over the batch, whatever
  its order and size; is finite with its gradient where networks are flat and
  where they are steep, in float32 and bfloat16. Each hyper-parameter changes
  something, a memory keeps its types, and a projection is one. In Dirac-GAN its
  penalty is the number that `dirac` says.

  Args:
    regularizer: one, or its class, which is taken at its defaults.
    networks: to try it on; None: two layers each.

  Returns:
    What it does not say of itself and was not checked, in words.

  Raises:
    AssertionError: naming the regularizer and what it breaks.

  >>> from gan_jax.game.regularizers import Orthogonal
  >>> check_regularizer(Orthogonal)
  []
  """
  regularizer = made('regularizers', regularizer, Regularizer)
  subject = Subject('regularizer', regularizer)
  trial = _Trial(regularizer, networks)
  for player in set(regularizer.acts_on) & {'d', 'g'}:
    _check_penalty(subject, trial, player)
  if 'project' in regularizer.acts_on:
    _check_projection(subject, trial)
  _check_dirac(subject, regularizer)
  return subject.missing


class _Trial:
  """A regularizer in a small game, whose penalty is a pure function."""

  def __init__(
    self, regularizer: Regularizer, networks: Networks | None
  ) -> None:
    self.regularizer = regularizer
    shape = small.IMAGES if regularizer.images else small.POINTS
    self.networks = networks or small.networks(shape)
    self.narrow = networks or small.networks(shape, jnp.bfloat16)
    self.real = _samples(self.networks)
    key = jax.random.key(1)
    self.g = self.networks.generator.init(key)
    self.d = self.networks.discriminator.init(jax.random.clone(key))
    # Not as it starts, where it may make no difference.
    start = regularizer.init_memory()
    self.memory = jax.tree.map(lambda x: x + jnp.asarray(0.3, x.dtype), start)

  def params(self, player: str) -> Any:
    """Of a player."""
    return (self.g if player == 'g' else self.d)[0]

  def penalty(
    self,
    player: str,
    term: Regularizer,
    params: Any,
    real: Batch,
    key: Any,
    networks: Networks | None = None,
  ) -> tuple[Any, Any]:
    """A player's penalty, and the memory after it."""
    game = Game(networks or self.networks, NonSaturating(), [term])
    players = dict(g=Player(*self.g, ()), d=Player(*self.d, ()))
    players[player] = players[player].replace(params=params)
    state = State(jnp.int32(0), key, **players, ema=None, memory={}, hyper={})
    view_of: Any = game_lib.g_view if player == 'g' else game_lib.d_view
    view = view_of(game, params, state, real, key, images=jnp.float32(0))[0]
    view = view._replace(memory=self.memory)
    on = term.on_g if player == 'g' else term.on_d
    return on(view), term.next_memory(self.memory, view)


def _samples(networks: Networks) -> Batch:
  rng = np.random.default_rng(0)
  x = jnp.float32(rng.normal(size=(_N, *networks.sample_shape)))
  if not networks.classes:
    return Batch(x)
  return Batch(x, jnp.arange(_N, dtype=jnp.int32) % networks.classes)


def _keys(count: int = _KEYS) -> Any:
  return jax.random.split(jax.random.key(3), count)


def _check_penalty(subject: Subject, trial: _Trial, player: str) -> None:
  subject.require(
    trial.regularizer.strength > 0, 'has a weight that is not positive'
  )
  _check_shape(subject, trial, player)
  value = functools.partial(trial.penalty, player)

  def with_slope(term: Any, params: Any, real: Any, key: Any) -> Any:
    def alone(params: Any) -> Any:
      return value(term, params, real, key)[0]

    return jax.value_and_grad(alone)(params)

  many = jax.vmap(lambda *args: value(*args)[0], (None, None, None, 0))
  one, every = jax.jit(with_slope), jax.jit(many)
  _check_transforms(subject, trial, player, one, every)
  _check_batch(subject, trial, player, every)
  _check_hyperparameters(subject, trial, player, every)
  _check_finite(subject, trial, player, one)


def _check_shape(subject: Subject, trial: _Trial, player: str) -> None:
  """A scalar, and a memory that keeps its shapes and types."""
  penalty, memory = jax.eval_shape(
    lambda real, key: trial.penalty(
      player, trial.regularizer, trial.params(player), real, key
    ),
    trial.real,
    jax.random.key(0),
  )
  shape = getattr(penalty, 'shape', None)
  subject.require(
    shape == (),
    f'on_{player} returns an array of shape {shape}; take the mean over the'
    ' batch',
  )
  kinds = [
    jax.tree.map(lambda x: (jnp.shape(x), str(x.dtype)), tree)
    for tree in (memory, jax.eval_shape(lambda: trial.memory))
  ]
  subject.require(
    kinds[0] == kinds[1],
    f'next_memory returns {kinds[0]}, and init_memory {kinds[1]}',
  )


def _check_transforms(
  subject: Subject, trial: _Trial, player: str, one: Penalty, every: Penalty
) -> None:
  """Under `jit` and `vmap` as eager; and there is something to descend."""
  term, params = trial.regularizer, trial.params(player)
  keys = _keys()
  jitted = [one(term, params, trial.real, key) for key in keys[:2]]
  eager = trial.penalty(player, term, params, trial.real, keys[0])[0]
  subject.require_close(jitted[0][0], eager, 'another penalty under `jit`')
  mapped = every(term, params, trial.real, keys)
  subject.require_close(
    list(mapped[:2]), [x for x, _ in jitted], 'another penalty under `vmap`'
  )
  slopes = [np.abs(x).max() for x in jax.tree.leaves(jitted[0][1])]
  subject.require(
    max(slopes) > 0,
    f"on_{player} does not depend on {player.upper()}'s parameters",
  )


def _mean(values: Any) -> tuple[float, float]:
  """A mean over draws, and what it may be off by."""
  numbers = np.asarray(values, np.float64)
  spread = numbers.std() / np.sqrt(len(numbers))
  return numbers.mean(), _NEAR * spread + 1e-5 * abs(numbers).mean() + 1e-7


def _check_batch(
  subject: Subject, trial: _Trial, player: str, every: Penalty
) -> None:
  """A mean over the batch: over draws, for each example has its own."""
  term, params = trial.regularizer, trial.params(player)
  mean, slack = _mean(every(term, params, trial.real, _keys()))
  turned = jax.tree.map(lambda x: x[::-1], trial.real)
  # Of other draws, which are one for each place in the batch.
  others = jax.random.split(jax.random.key(4), _KEYS)
  again, more = _mean(every(term, params, turned, others))
  subject.require(
    abs(again - mean) < slack + more,
    f'depends on the order of the batch: {mean:.6g}, and {again:.6g} if turned',
  )
  larger = jax.jit(lambda *args: trial.penalty(player, *args)[0])
  tiled = jax.tree.map(
    lambda x: jnp.tile(x, (_TIMES, *(1,) * (x.ndim - 1))), trial.real
  )
  means = [larger(term, params, tiled, key) for key in _keys(16)]
  again, more = _mean(means)
  subject.require(
    abs(again - mean) < slack + more,
    f'changes with the size of the batch ({mean:.6g}, and {again:.6g} of'
    f' {_TIMES} times as many samples); take a mean over it, of a norm for each'
    ' example',
  )


def _check_hyperparameters(
  subject: Subject, trial: _Trial, player: str, every: Penalty
) -> None:
  """Each changes something; the weight does outside."""
  params = trial.params(player)
  before = every(trial.regularizer, params, trial.real, _keys())
  for path, other in neighbours(trial.regularizer):
    after = every(other, params, trial.real, _keys())
    subject.require(
      path == 'weight' or not np.array_equal(before, after),
      f'`{path}` is a hyper-parameter that changes nothing',
    )
  subject.require(
    every._cache_size() == 1,  # type: ignore[attr-defined]
    'is compiled anew for other samples or hyper-parameters',
  )


def _check_finite(
  subject: Subject, trial: _Trial, player: str, one: Penalty
) -> None:
  """With its gradient, of flat and of steep networks, in both precisions."""

  def narrow(term: Any, params: Any, real: Any, key: Any) -> Any:
    def alone(params: Any) -> Any:
      return trial.penalty(player, term, params, real, key, trial.narrow)[0]

    return jax.value_and_grad(alone)(params)

  for name, function in (('float32', one), ('bfloat16', jax.jit(narrow))):
    for size in (0.0, 1e2):  # of each of two layers
      params = jax.tree.map(lambda w, s=size: s * w, trial.params(player))
      outcome = function(trial.regularizer, params, trial.real, _keys()[0])
      what = f'on_{player} or its gradient, weights times {size}, in {name}'
      subject.require_finite(outcome, what)


def _check_projection(subject: Subject, trial: _Trial) -> None:
  """It moves what is outside of its set, and nothing twice."""
  term = trial.regularizer
  far = jax.tree.map(lambda w: 100 * w, trial.params('d'))
  project = jax.jit(lambda term, params: term.project_d(params))
  once = project(term, far)
  kinds = [jax.tree.map(lambda w: (w.shape, w.dtype), x) for x in (once, far)]
  subject.require(kinds[0] == kinds[1], 'project_d changes shapes or types')
  subject.require_finite(once, 'project_d')
  subject.require_close(term.project_d(far), once, 'project_d under `jit`')
  subject.require_close(project(term, once), once, 'project_d moves twice')
  subject.require(
    any(map(_differ, jax.tree.leaves(once), jax.tree.leaves(far))),
    'project_d moves nothing, of parameters times 100',
  )
  for path, other in neighbours(term):
    moved = project(other, far)
    subject.require(
      any(map(_differ, jax.tree.leaves(once), jax.tree.leaves(moved)))
      or (path == 'weight' and set(term.acts_on) & {'d', 'g'}),
      f'`{path}` is a hyper-parameter that changes nothing',
    )


def _differ(a: Any, b: Any) -> bool:
  return not np.array_equal(a, b)


def _check_dirac(subject: Subject, term: Regularizer) -> None:
  """The number that it says in Dirac-GAN."""
  if not overrides(term, Regularizer, 'dirac'):
    subject.lacks(
      'dirac',
      'give `dirac(self, theta, psi) -> float | None`, its penalty on D where G'
      ' is at theta, D is `psi x` and the data are at 0',
    )
    return
  stated = [term.dirac(*point) for point in _POINTS]
  if 'd' not in term.acts_on or None in stated:
    return
  game = Game(network_lib.build('dirac', (1,), bounded=False), NonSaturating())

  @jax.jit
  def penalty(theta: Any, psi: Any) -> Any:
    key = jax.random.key(5)
    state = State(
      step=jnp.int32(0),
      key=key,
      g=Player({'theta': theta}, {}, ()),
      d=Player({'psi': psi}, {}, ()),
      ema=None,
      memory={},
      hyper={},
    )
    real = Batch(jnp.zeros((_N, 1)))
    view, _ = game_lib.d_view(
      game, state.d.params, state, real, key, images=jnp.float32(0)
    )
    return term.on_d(view._replace(memory=term.init_memory()))

  found = [penalty(*map(jnp.float32, point)) for point in _POINTS]
  subject.require_close(
    found, stated, 'another penalty in Dirac-GAN than `dirac` says'
  )
