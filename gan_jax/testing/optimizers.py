"""Conformance test of an optimizer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.game.component import as_component
from gan_jax.game.optimizers import Optimizer
from gan_jax.testing.subject import Subject, neighbours, overrides

_UPDATES = 5
_CLOCK = 3  # the game's step at the first of them

Run = Callable[..., Any]


def check_optimizer(optimizer: Optimizer | type[Optimizer]) -> list[str]:
  """Holds an optimizer to what every optimizer promises, and to its claims.

  Its updates have the parameters' shapes, change them, and are the same under
  `jit` (compiled once for all hyper-parameters, each of which changes
  something) and `vmap`; they are finite where gradients are 0, and so is the
  slope of a loss after them, which unrolled games take. They are those of the
  transformation that `reference` spells in Optax's words.

  Args:
    optimizer: one, or its class, which is taken at its defaults.

  Returns:
    What it does not say of itself and was not checked, in words.

  Raises:
    AssertionError: naming the optimizer and what it breaks.

  >>> from gan_jax.game.optimizers import Adam
  >>> check_optimizer(Adam(learning_rate=1e-3))
  []
  """
  optimizer = as_component('optimizer', optimizer, Optimizer)
  subject = Subject('optimizer', optimizer)
  # With a cache of its own; of some gradients, half of them, and none.
  run = jax.jit(jax.vmap(lambda *args: _run(*args), (None, None, 0)))
  _check_updates(subject, optimizer, run)
  _check_hyperparameters(subject, optimizer, run)
  _check_still(subject, optimizer, run)
  _check_reference(subject, optimizer, run)
  return subject.missing


def _params() -> Any:
  kernel = np.random.default_rng(0).normal(size=(8, 3))
  return {'kernel': jnp.float32(kernel), 'bias': jnp.ones(3)}


def _gradients(params: Any, scale: Any, i: int) -> Any:
  """That change their signs and fade, so that each number of a rule tells."""
  fade = scale / 30**i
  return jax.tree.map(lambda p: fade * jnp.sin(3 * p + 2 * i), params)


def _run(optimizer: Optimizer, params: Any, scale: Any) -> Any:
  """Parameters after each of some updates, at steps of the game's clock."""
  state = optimizer.transform(_CLOCK).init(params)
  path = []
  for i in range(_UPDATES):
    transformation = optimizer.transform(jnp.int32(_CLOCK + i))
    grads = _gradients(params, scale, i)
    updates, state = transformation.update(grads, state, params)
    params = jax.tree.map(lambda p, u: p + u, params, updates)
    path.append(params)
  return path


_SCALES = jnp.float32([1.0, 0.5, 0.0])


def _paths(run: Run, optimizer: Optimizer) -> list[Any]:
  """Parameters after each update, by each scale of the gradients."""
  together = run(optimizer, _params(), _SCALES)
  return [
    jax.tree.map(lambda x, i=i: x[i], together) for i in range(len(_SCALES))
  ]


def _check_updates(subject: Subject, optimizer: Optimizer, run: Run) -> None:
  params, path = _params(), _paths(run, optimizer)[0]
  subject.require(
    jax.tree.map(jnp.shape, path[-1]) == jax.tree.map(jnp.shape, params),
    'makes updates of another shape than the parameters',
  )
  subject.require_finite(path, 'parameters after an update')
  for before, after in zip(
    jax.tree.leaves(params), jax.tree.leaves(path[-1]), strict=True
  ):
    subject.require(
      not np.array_equal(before, after), 'leaves parameters where they are'
    )
  subject.require_close(
    path,
    _run(optimizer, params, _SCALES[0]),
    'another update under `jit` and `vmap`',
    rtol=1e-4,
  )


def _check_hyperparameters(
  subject: Subject, optimizer: Optimizer, run: Run
) -> None:
  def outcome(optimizer: Optimizer) -> Any:
    leaves = jax.tree.leaves(_paths(run, optimizer)[0])
    return np.concatenate([np.ravel(x) for x in leaves])

  before = outcome(optimizer)
  for path, other in neighbours(optimizer):
    subject.require(
      not np.array_equal(before, outcome(other)),
      f'`{path}` is a hyper-parameter that changes nothing',
    )
  subject.require(
    run._cache_size() == 1,  # type: ignore[attr-defined]
    'is compiled anew for other gradients or hyper-parameters',
  )


def _check_still(subject: Subject, optimizer: Optimizer, run: Run) -> None:
  """Where gradients are 0, for those too who differentiate an update."""
  path = _paths(run, optimizer)[2]
  subject.require_finite(path, 'parameters after an update by a gradient of 0')

  @jax.jit
  def slope(params: Any) -> Any:
    def loss(params: Any) -> Any:
      last = _run(optimizer, params, jnp.float32(0))[-1]
      return sum(jnp.sum(x) for x in jax.tree.leaves(last))

    return jax.grad(loss)(params)

  what = 'the slope of a loss through updates by gradients of 0'
  subject.require_finite(slope(_params()), what)


def _check_reference(subject: Subject, optimizer: Optimizer, run: Run) -> None:
  if not overrides(optimizer, Optimizer, 'reference'):
    subject.lacks(
      'reference',
      "give `reference(self)`, the same rule as one of Optax's transformations",
    )
    return
  reference, params = optimizer.reference(), _params()
  state, path = reference.init(params), []
  for i in range(_UPDATES):
    grads = _gradients(params, 1.0, i)
    updates, state = reference.update(grads, state, params)
    params = jax.tree.map(lambda p, u: p + u, params, updates)
    path.append(params)
  computed = _paths(run, optimizer)[0]
  subject.require_close(
    computed, path, 'another update than its reference', rtol=1e-4
  )
