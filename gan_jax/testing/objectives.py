"""Conformance test of an objective: what all promise, and what it claims."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.game.component import as_component
from gan_jax.game.objectives import Objective
from gan_jax.testing.subject import Subject, neighbours, overrides

_N = 16  # logits of a kind
_FAR = (1e4, -1e4, 30.0, -20.0)
_STEP = 1e-5  # of central differences, in float64


class _Outcome(NamedTuple):
  """D's and G's loss, (2,), and their slopes by each logit, (2, n)."""

  losses: Any
  by_real: Any
  by_fake: Any


Evaluate = Callable[..., _Outcome]


def check_objective(objective: Objective | type[Objective]) -> list[str]:
  """Holds an objective to what every objective promises, and to its own claims.

  Its losses are scalars; finite with their slopes at logits of 1e4, in float32
  and bfloat16; the same under `jit` (compiled once for all hyper-parameters)
  and `vmap`; means over the batch, whatever its order. Losses and slopes are
  those of its `reference` in float64, at its own and at other
  hyper-parameters, each of which changes something; its `equilibrium` and its
  `log_ratio` are right.

  Args:
    objective: one, or its class, which is taken at its defaults.

  Returns:
    What it does not say of itself and was not checked, in words.

  Raises:
    AssertionError: naming the objective and what it breaks.

  >>> from gan_jax.game.objectives import Hinge
  >>> check_objective(Hinge)
  []
  """
  objective = as_component('objective', objective, Objective)
  subject = Subject('objective', objective)
  _check_shapes(subject, objective)
  # With a cache of its own, of two pairs of batches at once.
  evaluate = jax.jit(jax.vmap(lambda *args: _evaluate(*args), (None, 0, 0)))
  _check_far_logits(subject, objective, evaluate)
  _check_transforms(subject, objective, evaluate)
  _check_mean(subject, objective, evaluate)
  _check_real(subject, objective, evaluate)
  _check_hyperparameters(subject, objective, evaluate)
  _check_reference(subject, objective, evaluate)
  _check_equilibrium(subject, objective, evaluate)
  _check_log_ratio(subject, objective, evaluate)
  return subject.missing


def _losses(objective: Objective, real: Any, fake: Any) -> tuple[Any, Any]:
  seen = real if objective.relativistic else None
  return objective.d_loss(real, fake), objective.g_loss(seen, fake)


def _evaluate(objective: Objective, real: Any, fake: Any) -> _Outcome:
  """Both losses and all slopes, float32, whatever the logits' type."""

  def losses(real: Any, fake: Any) -> Any:
    return jnp.stack(_losses(objective, real, fake)).astype(jnp.float32)

  values, pull = jax.vjp(losses, real, fake)
  return _Outcome(values, *jax.vmap(pull)(jnp.eye(2)))


def _draw(*seeds: int) -> tuple[Any, Any]:
  """Real and generated logits of two batches, (2, n) each."""
  pairs = [np.random.default_rng(s).normal(0, 3, (2, _N)) for s in seeds]
  real, fake = np.stack(pairs, axis=1)
  return jnp.float32(real), jnp.float32(fake)


def _check_shapes(subject: Subject, objective: Objective) -> None:
  """Scalars; and G's loss is blind to real logits unless it says otherwise."""
  for player, loss in zip('dg', _shaped(subject, objective), strict=True):
    shape = getattr(loss, 'shape', None)
    subject.require(
      shape == (),
      f'{player}_loss returns an array of shape {shape}; take the mean over the'
      ' batch',
    )


def _shaped(subject: Subject, objective: Objective) -> tuple[Any, Any]:
  logits = jax.ShapeDtypeStruct((_N,), jnp.float32)
  try:
    shapes: tuple[Any, Any] = jax.eval_shape(
      lambda real, fake: _losses(objective, real, fake), logits, logits
    )
  except NotImplementedError as error:
    raise AssertionError(f'{subject.name}: {error}') from error
  except (TypeError, AttributeError, AssertionError) as error:
    hint = (
      ''
      if objective.relativistic
      else (
        '; if g_loss reads `real`, say `relativistic: ClassVar[bool] = True`'
      )
    )
    raise AssertionError(f'{subject.name}: {error}{hint}') from error
  return shapes


def _check_far_logits(
  subject: Subject, objective: Objective, evaluate: Evaluate
) -> None:
  """Finite losses and slopes far out, where log(sigmoid(x) + eps) is not."""
  for dtype in (jnp.float32, jnp.bfloat16):
    far = jnp.asarray(_FAR * (_N // len(_FAR)), dtype)
    real, fake = jnp.stack([far, far[::-1]]), jnp.stack([-far, far])
    if dtype == jnp.float32:
      outcome = evaluate(objective, real, fake)
    else:
      outcome = jax.jit(_evaluate)(objective, real[0], fake[0])
    what = f'a loss or a slope at logits of {_FAR} in {dtype.__name__}'
    subject.require_finite(outcome, what)


def _check_transforms(
  subject: Subject, objective: Objective, evaluate: Evaluate
) -> None:
  """Under `jit` and `vmap` as eager, one batch after another."""
  real, fake = _draw(0, 1)
  eager = [np.stack(_losses(objective, real[i], fake[i])) for i in (0, 1)]
  computed = evaluate(objective, real, fake).losses
  subject.require_close(
    list(computed), eager, 'another loss under `jit` and `vmap`'
  )


def _check_mean(
  subject: Subject, objective: Objective, evaluate: Evaluate
) -> None:
  """A mean over the batch, in whatever order it comes."""
  real, fake = _draw(0, 0)
  losses = evaluate(objective, real, fake).losses
  turned = evaluate(objective, real[:, ::-1], fake[:, ::-1]).losses
  subject.require_close(turned, losses, 'depends on the order of the batch')
  if not objective.relativistic:
    turned = evaluate(objective, real[:, ::-1], fake).losses
    subject.require_close(
      turned, losses, 'depends on which real sample meets which generated one'
    )
  twice = _losses(objective, jnp.tile(real[0], 2), jnp.tile(fake[0], 2))
  subject.require_close(
    np.stack(twice),
    losses[0],
    'changes with the size of the batch; take a mean over it',
  )


def _check_real(
  subject: Subject, objective: Objective, evaluate: Evaluate
) -> None:
  """G's loss reads the real logits if it says that it does."""
  slopes = evaluate(objective, *_draw(0, 1)).by_real[:, 1]
  if objective.relativistic:
    subject.require(
      np.abs(slopes).max() > 0,
      'is `relativistic`, and its g_loss does not read the real logits',
    )


def _check_hyperparameters(
  subject: Subject, objective: Objective, evaluate: Evaluate
) -> None:
  """Each changes something, and all are served by one compiled program."""
  before = evaluate(objective, *_draw(0, 1))
  for path, other in neighbours(objective):
    changed = evaluate(other, *_draw(0, 1))
    subject.require(
      any(
        not np.array_equal(a, b) for a, b in zip(before, changed, strict=True)
      ),
      f'`{path}` is a hyper-parameter that changes neither loss',
    )
  subject.require(
    evaluate._cache_size() == 1,  # type: ignore[attr-defined]
    'is compiled anew for other logits or hyper-parameters',
  )


def _check_reference(
  subject: Subject, objective: Objective, evaluate: Evaluate
) -> None:
  """Losses and slopes in float64, near and, where they are finite, far out."""
  if not overrides(objective, Objective, 'reference'):
    subject.lacks(
      'reference',
      'give `reference(self, real, fake) -> (d_loss, g_loss)` in float64 NumPy,'
      ' which losses and slopes are compared with',
    )
    return
  real, fake = _draw(3, 4)
  for one in (objective, *(other for _, other in neighbours(objective))):
    outcome = evaluate(one, real, fake)
    expected = _differences(one, real[0], fake[0])
    subject.require_close(
      outcome.losses[0], expected.losses, 'another loss than its reference'
    )
    for kind in ('by_real', 'by_fake'):
      subject.require_close(
        _N * getattr(outcome, kind)[0],
        _N * getattr(expected, kind),
        f'another slope ({kind}) than its reference',
        rtol=1e-4,
        atol=1e-5,
      )
  for size in (20.0, 1e4):
    far = size * jnp.array([1, -1, 0.5, -0.7] * (_N // 4))
    pairs = jnp.stack([far, -far]), jnp.stack([far[::-1], far])
    computed = np.asarray(evaluate(objective, *pairs).losses, np.float64)
    losses = np.stack(
      [_reference(objective, *pair) for pair in zip(*pairs, strict=True)]
    )
    finite = np.isfinite(losses)  # what is infinite is bent to be finite
    subject.require_close(
      computed[finite],
      losses[finite],
      f'another loss than its reference at logits of {size}',
      rtol=5e-6,
    )


def _reference(objective: Objective, real: Any, fake: Any) -> Any:
  pair = (np.asarray(x, np.float64) for x in (real, fake))
  with np.errstate(all='ignore'):
    return np.asarray(objective.reference(*pair), np.float64)


def _differences(objective: Objective, real: Any, fake: Any) -> _Outcome:
  """The reference, and its slopes by central differences."""
  point = np.concatenate([real, fake]).astype(np.float64)

  def losses(point: Any) -> Any:
    return _reference(objective, *np.split(point, 2))

  steps = _STEP * np.eye(len(point))
  slopes = [losses(point + s) - losses(point - s) for s in steps]
  by_real, by_fake = np.split(np.stack(slopes, axis=1) / (2 * _STEP), 2, axis=1)
  return _Outcome(losses(point), by_real, by_fake)


def _check_equilibrium(
  subject: Subject, objective: Objective, evaluate: Evaluate
) -> None:
  """The losses that it states where D can tell nothing apart."""
  if objective.equilibrium is None:
    subject.lacks(
      'equilibrium',
      'give `equilibrium: ClassVar[Equilibrium] = Equilibrium(logit, d_loss,'
      ' g_loss)`, the values where samples are distributed as the data',
    )
    return
  logit, *stated = objective.equilibrium
  same = jnp.float32(np.full((2, _N), logit))
  computed = evaluate(_at_defaults(objective), same, same)
  subject.require_close(
    computed.losses[0],
    np.array(stated),
    'other losses than its equilibrium states',
  )
  subject.require_close(
    computed.by_real[0, 0].sum() + computed.by_fake[0, 0].sum(),
    0.0,
    f'd_loss is not least at the logit {logit} of its equilibrium: its slope',
    atol=1e-5,
  )


def _at_defaults(objective: Objective) -> Objective:
  """What the statements of a class are of."""
  try:
    return type(objective)()
  except TypeError:
    return objective


def _check_log_ratio(
  subject: Subject, objective: Objective, evaluate: Evaluate
) -> None:
  """Where logits say a density ratio, D's loss is least at the true one."""
  logit = objective.equilibrium.logit if objective.equilibrium else 0.0
  logits = jnp.float32(logit + np.linspace(-0.4, 0.4, _N))
  objective = _at_defaults(objective)
  ratio = objective.log_ratio(logits)
  if ratio is None:
    return
  subject.require(
    ratio.shape == logits.shape,
    f'log_ratio returns an array of shape {ratio.shape}, not one a logit',
  )
  both = jnp.stack([logits, logits])
  computed = evaluate(objective, both, both)
  # Of p real and q generated samples at an output v: p slope_real(v) +
  # q slope_fake(v) is 0 where v is the best.
  balance = np.exp(ratio) * computed.by_real[0, 0] + computed.by_fake[0, 0]
  subject.require_close(
    _N * balance,
    np.zeros(_N),
    'log_ratio is not that of its best D (the slope on real samples times the'
    ' ratio and the slope on generated ones do not cancel)',
    atol=1e-4,
  )
