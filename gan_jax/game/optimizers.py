"""Optimizers whose numbers are hyper-parameters, and the wrapper of Optax's.

An optimizer here makes its Optax transformation anew at every step from its
float fields, so that they can be traced, swept and moved, and both players see
one clock, the game's, whatever `d_steps` and `g_steps` are. A transformation of
Optax is taken whole (`wrap_optax`): what it returns is added to the parameters.

To add one, derive a class from `Adaptive` or `Optimizer`, say what the tests
need of it (`reference`), and give it an entry in `OPTIMIZERS`; the flag and the
tests find it there (the tests are `gan_jax.testing.check_optimizer`).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from gan_jax.game.component import (
  Component,
  Named,
  as_component,
  check_part,
  component_field,
  static,
)
from gan_jax.networks.base import Net
from gan_jax.runtime.errors import ArgumentError

PyTree = Any
Scalar = Float[Array, '']
Step = Int[Array, ''] | int
_EPS_ROOT = 1e-30


class RateDecay(Component):
  """A factor on the learning rate as a function of the game's step.

  Rises linearly, from `1 / warmup` to 1 over `warmup` steps, then falls from 1
  to `final` over the rest of the run.

  Attributes:
    steps: of the whole run.
    warmup: steps of linear warm-up, 0 for none.
    final: the factor at the end of the run; 0 unless it is given.
  """

  steps: int = static(1)
  warmup: int = static(0)
  final: float = 0.0

  def weight(self, done: Scalar) -> Scalar:
    """What falls from 1 to 0 as the run goes from 0 to 1."""
    raise NotImplementedError

  def fall(self, done: Scalar) -> Scalar:
    """What falls from 1 to `final` as the run goes from 0 to 1."""
    return self.final + (1 - jnp.asarray(self.final)) * self.weight(done)

  def factor(self, step: Step) -> Scalar:
    """The factor at a step."""
    now = jnp.asarray(step, jnp.float32)
    rest = max(self.steps - self.warmup, 1)
    factor = self.fall(jnp.clip((now - self.warmup) / rest, 0.0, 1.0))
    if self.warmup:
      factor *= jnp.minimum((now + 1) / self.warmup, 1.0)
    return factor

  def check(self) -> None:
    """Refuses factors outside of [0, 1], and a warm-up of the whole run."""
    if not 0 <= self.final <= 1:
      raise ArgumentError('final', self.final, 'use a factor from 0 to 1')
    if self.warmup and self.warmup >= self.steps:
      raise ArgumentError(
        'warmup', self.warmup, f'use fewer than `steps={self.steps}`'
      )


class Constant(RateDecay):
  """No fall: a rate that is constant after its warm-up."""

  def fall(self, done: Scalar) -> Scalar:
    """1."""
    return jnp.ones_like(done)

  def check(self) -> None:
    """Refuses an end that it does not move to."""
    super().check()
    if self.final != 0:
      raise ArgumentError(
        'final',
        self.final,
        'has no effect on a rate that is constant; choose a fall, or leave it'
        ' out',
      )


class Linear(RateDecay):
  """A linear fall."""

  def weight(self, done: Scalar) -> Scalar:
    """`1 - t`."""
    return 1 - done


class Cosine(RateDecay):
  """Half a cosine."""

  def weight(self, done: Scalar) -> Scalar:
    """`(1 + cos pi t) / 2`."""
    return 0.5 * (1 + jnp.cos(jnp.pi * done))


class Exponential(RateDecay):
  """A geometric fall: the 2014 code's division by a constant every batch.

  `final` has to be given, and is greater than 0.
  """

  def fall(self, done: Scalar) -> Scalar:
    """`final^t`."""
    return jnp.asarray(self.final) ** done

  def check(self) -> None:
    """Refuses a fall that never arrives."""
    super().check()
    if self.final == 0:
      raise ArgumentError(
        'final',
        0.0,
        'an exponential fall never reaches 0; use a small positive factor',
      )


DECAYS: dict[str, type[RateDecay]] = {
  'constant': Constant,
  'linear': Linear,
  'cosine': Cosine,
  'exponential': Exponential,
}
constant, linear, cosine, exponential = Constant, Linear, Cosine, Exponential


def _clip_by_norm(bound: Any) -> optax.GradientTransformation:
  """Clips to a global norm; Optax's has no slope where a gradient is 0."""

  def clip(grads: PyTree, params: PyTree) -> PyTree:
    del params
    squares = sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads))
    factor = jnp.minimum(1.0, bound / jnp.sqrt(squares + _EPS_ROOT))
    return jax.tree.map(lambda g: factor * g, grads)

  return optax.stateless(clip)


class Optimizer(Component):
  """How a player descends its loss; its float fields can be traced."""

  def transform(self, step: Step) -> optax.GradientTransformation:
    """The Optax transformation at a step; its updates are added as they are."""
    raise NotImplementedError

  def rate(self, step: Step) -> Any:
    """The learning rate at a step, for the log; None where it is not known."""
    del step

  def reference(self) -> optax.GradientTransformation:
    """The same rule as Optax spells it, at its own fields; for the tests."""
    raise NotImplementedError


class _Own(Optimizer):
  """What all optimizers of this module share: rate, decay, clip, momentum.

  Attributes:
    learning_rate: the step size.
    beta1: first decay, or momentum.
    clip: global norm that the gradient is clipped to; None: no clipping.
    beta1_final: what `beta1` moves to, linearly over `momentum_steps`; None: it
      stays. Adam and its kin correct their bias as if it had been the present
      one all along.
    momentum_steps: see `beta1_final`.
    decay: of the learning rate; None: it is constant.
  """

  learning_rate: float = 2e-4
  beta1: float = 0.5
  clip: float | None = None
  beta1_final: float | None = None
  momentum_steps: int = static(0)
  decay: RateDecay | None = component_field(None)

  def rule(self, beta1: Any) -> optax.GradientTransformation:
    """The direction, without the rate."""
    raise NotImplementedError

  def rate(self, step: Step) -> Any:
    """The learning rate at a step."""
    if self.decay is None:
      return jnp.asarray(self.learning_rate, jnp.float32)
    return self.decay.factor(step) * self.learning_rate

  def transform(self, step: Step) -> optax.GradientTransformation:
    """Clips, follows the rule, scales by minus the rate."""
    chain = []
    if self.clip is not None:
      chain.append(_clip_by_norm(self.clip))
    beta1: Any = self.beta1
    if self.beta1_final is not None:
      done = jnp.clip(step / max(self.momentum_steps, 1), 0.0, 1.0)
      beta1 = beta1 + done * (jnp.asarray(self.beta1_final) - beta1)
    rate = self.rate(step)
    return optax.chain(*chain, self.rule(beta1), optax.scale(-rate))

  def check(self) -> None:
    """Refuses numbers out of range."""
    if not self.learning_rate > 0:
      raise ArgumentError(
        'learning_rate', self.learning_rate, 'use more than 0'
      )
    for name in ('beta1', 'beta2', 'beta1_final'):
      value = getattr(self, name, None)
      if value is not None and not 0 <= value < 1:
        raise ArgumentError(name, value, 'use 0 or more and less than 1')
    if self.clip is not None and not self.clip > 0:
      raise ArgumentError(
        'clip', self.clip, 'use more than 0, or None for none'
      )
    if self.beta1_final is not None and self.momentum_steps < 1:
      raise ArgumentError(
        'momentum_steps',
        self.momentum_steps,
        'give the steps over which `beta1` moves to `beta1_final`',
      )
    if self.decay is not None:
      check_part('decay', self.decay)


class Adaptive(_Own):
  """Optimizers with two decays."""

  beta2: float = 0.999


class Adam(Adaptive):
  """Adam. Reference: Kingma & Ba 2015, arXiv:1412.6980."""

  def rule(self, beta1: Any) -> optax.GradientTransformation:
    """Adam's direction."""
    # Next to nothing under the root, for those who differentiate an update
    # where the gradient is 0 (unrolled D).
    return optax.scale_by_adam(b1=beta1, b2=self.beta2, eps_root=_EPS_ROOT)

  def reference(self) -> optax.GradientTransformation:
    """As Optax spells it."""
    return optax.adam(self.learning_rate, b1=self.beta1, b2=self.beta2)


class Nadam(Adaptive):
  """Adam with Nesterov momentum. Reference: Dozat 2016, ICLR workshop."""

  def rule(self, beta1: Any) -> optax.GradientTransformation:
    """Nadam's direction."""
    return optax.scale_by_adam(
      b1=beta1, b2=self.beta2, eps_root=_EPS_ROOT, nesterov=True
    )

  def reference(self) -> optax.GradientTransformation:
    """As Optax spells it."""
    return optax.nadam(self.learning_rate, b1=self.beta1, b2=self.beta2)


class Amsgrad(Adaptive):
  """AMSGrad. Reference: Reddi et al. 2018, arXiv:1904.09237."""

  def rule(self, beta1: Any) -> optax.GradientTransformation:
    """AMSGrad's direction."""
    return optax.scale_by_amsgrad(b1=beta1, b2=self.beta2, eps_root=_EPS_ROOT)

  def reference(self) -> optax.GradientTransformation:
    """As Optax spells it."""
    return optax.amsgrad(self.learning_rate, b1=self.beta1, b2=self.beta2)


class Adabelief(Adaptive):
  """AdaBelief. Reference: Zhuang et al. 2020, arXiv:2010.07468."""

  def rule(self, beta1: Any) -> optax.GradientTransformation:
    """AdaBelief's direction."""
    return optax.scale_by_belief(b1=beta1, b2=self.beta2)

  def reference(self) -> optax.GradientTransformation:
    """As Optax spells it."""
    return optax.adabelief(self.learning_rate, b1=self.beta1, b2=self.beta2)


class Lion(Adaptive):
  """Lion. Reference: Chen et al. 2023, arXiv:2302.06675."""

  def rule(self, beta1: Any) -> optax.GradientTransformation:
    """Lion's direction."""
    return optax.scale_by_lion(b1=beta1, b2=self.beta2)

  def reference(self) -> optax.GradientTransformation:
    """As Optax spells it."""
    return optax.lion(
      self.learning_rate, b1=self.beta1, b2=self.beta2, weight_decay=0.0
    )


def _scale_by_rms(decay: Any, eps: float) -> optax.GradientTransformation:
  """`g / (sqrt(v) + eps)`; Optax's has no slope where a gradient is 0."""

  def init(params: PyTree) -> Any:
    return optax.ScaleByRmsState(nu=jax.tree.map(jnp.zeros_like, params))

  def update(grads: PyTree, state: Any, params: Any = None) -> Any:
    del params
    nu = jax.tree.map(
      lambda v, g: decay * v + (1 - decay) * jnp.square(g), state.nu, grads
    )
    scaled = jax.tree.map(
      lambda g, v: g / (jnp.sqrt(v + _EPS_ROOT) + eps), grads, nu
    )
    return scaled, optax.ScaleByRmsState(nu=nu)

  return optax.GradientTransformation(init, update)


class Rmsprop(Adaptive):
  """RMSProp with decay `beta2` and, after it, momentum `beta1`.

  `g / (sqrt(v) + 1e-8)`, as PyTorch and the code of WGAN have it; Optax's own
  has its epsilon under the root, where it is 1e-4 of a gradient and stops the
  smallest ones. WGAN's authors train with `beta1=0`, `beta2=0.99` and a rate of
  5e-5, TensorFlow's default decay is 0.9; the defaults here are those of all
  optimizers.

  Reference: Tieleman & Hinton 2012, Coursera lecture 6.5; Arjovsky et al. 2017,
  arXiv:1701.07875, algorithm 1.
  """

  def rule(self, beta1: Any) -> optax.GradientTransformation:
    """RMSProp's direction."""
    return optax.chain(
      _scale_by_rms(self.beta2, 1e-8), optax.trace(decay=beta1)
    )

  def reference(self) -> optax.GradientTransformation:
    """As Optax spells it."""
    return optax.rmsprop(
      self.learning_rate,
      decay=self.beta2,
      momentum=self.beta1,
      eps_in_sqrt=False,
    )


class Sgd(_Own):
  """Gradient descent with momentum `beta1`."""

  def rule(self, beta1: Any) -> optax.GradientTransformation:
    """The gradient, with momentum."""
    return optax.trace(decay=beta1)

  def reference(self) -> optax.GradientTransformation:
    """As Optax spells it."""
    return optax.sgd(self.learning_rate, momentum=self.beta1)


OPTIMIZERS: dict[str, type[_Own]] = {
  'adam': Adam,
  'sgd': Sgd,
  'rmsprop': Rmsprop,
  'nadam': Nadam,
  'amsgrad': Amsgrad,
  'adabelief': Adabelief,
  'lion': Lion,
}
adam, sgd, rmsprop, nadam = Adam, Sgd, Rmsprop, Nadam
amsgrad, adabelief, lion = Amsgrad, Adabelief, Lion


class OptaxOptimizer(Optimizer):
  """A transformation of Optax, whole: its updates are added as they are.

  Its numbers are hyper-parameters if `optax.inject_hyperparams` made it; its
  own schedules count its own updates.

  Attributes:
    transformation: of Optax.
    injected: its numbers by name.
  """

  transformation: optax.GradientTransformation = static()
  injected: Mapping[str, float] = component_field(())

  @property
  def name(self) -> str:
    """Optax's transformations have no names."""
    return 'optax'

  def transform(self, step: Step) -> optax.GradientTransformation:
    """The transformation, at the numbers that were injected."""
    del step
    inner: Any = self.transformation
    if not self.injected:
      return inner
    values = dict(self.injected)

    def update(grads: Any, state: Any, params: Any = None, **how: Any) -> Any:
      return inner.update(grads, _inject(state, values), params, **how)

    return optax.GradientTransformation(inner.init, update)


def _is_injected(state: Any) -> bool:
  return isinstance(getattr(state, 'hyperparams', None), dict)


def _inject(state: Any, values: Mapping[str, Any]) -> Any:
  """An optimizer's state with the numbers that its rule reads replaced."""

  def replace(x: Any) -> Any:
    if not _is_injected(x):
      return x
    now = {
      k: jnp.asarray(values[k], jnp.asarray(v).dtype) if k in values else v
      for k, v in x.hyperparams.items()
    }
    return x._replace(hyperparams=now)

  return jax.tree.map(replace, state, is_leaf=_is_injected)


def wrap_optax(
  argument: str, transformation: Any, net: Net | None = None
) -> OptaxOptimizer:
  """What an Optax transformation is taken as.

  Args:
    argument: what it was handed in as, for messages.
    transformation: of Optax.
    net: whose parameters it is to move; None: it is not tried on them.

  Raises:
    ArgumentError: if it is none, or none for such parameters.
  """
  if not all(callable(getattr(transformation, f, 0)) for f in _TRANSFORMATION):
    raise ArgumentError(
      argument,
      type(transformation).__name__,
      'is no optimizer; give one of `gan_jax.optimizers`, or a'
      ' transformation of Optax such as `optax.adam(1e-4)`',
    )
  params: PyTree = {'w': jax.ShapeDtypeStruct((1,), jnp.float32)}
  if net is not None:
    key = jax.eval_shape(jax.random.key, 0)
    params = jax.eval_shape(net.init, key)[0]
  _check_update(argument, transformation, params)
  return OptaxOptimizer(
    transformation, _injected(argument, transformation, params)
  )


_TRANSFORMATION = ('init', 'update')


def _check_update(argument: str, transformation: Any, params: PyTree) -> None:
  """Raises unless it makes an update of a network's parameters."""

  def update(params: PyTree) -> PyTree:
    return transformation.update(params, transformation.init(params), params)[0]

  try:
    updates = jax.eval_shape(update, params)
  except Exception as error:
    error.add_note(
      f'(when `{argument}` was tried on the parameters that it is to move)'
    )
    raise
  if jax.tree.map(jnp.shape, updates) != jax.tree.map(jnp.shape, params):
    raise ArgumentError(
      argument,
      type(transformation).__name__,
      'makes updates of another shape than the parameters that it is to move',
    )


def _injected(
  argument: str, transformation: Any, params: PyTree
) -> Named[float]:
  """Numbers that `optax.inject_hyperparams` made arguments, by name."""

  def numbers() -> list[dict[str, Any]]:
    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), params)
    state = transformation.init(zeros)
    nodes = jax.tree.leaves(state, is_leaf=_is_injected)
    return [_own_numbers(node) for node in nodes if _is_injected(node)]

  values: Named[float] = Named()
  if not any(jax.eval_shape(numbers)):
    return values
  for own in jax.jit(numbers)():
    for name, value in own.items():
      if name in values:
        raise ArgumentError(
          argument,
          name,
          'is injected twice, and would be one number; name one of them anew',
        )
      values[name] = float(value)
  return values


def _own_numbers(node: Any) -> dict[str, Any]:
  """The floats of a node that no schedule sets."""
  scheduled = getattr(node, 'hyperparams_states', {})
  return {
    name: value
    for name, value in node.hyperparams.items()
    if name not in scheduled
    and jnp.issubdtype(jnp.asarray(value).dtype, jnp.floating)
  }


def as_optimizer(argument: str, item: Any, net: Net | None = None) -> Optimizer:
  """An optimizer of ours as it is, its class at its defaults, Optax's whole.

  Args:
    argument: what it was handed in as, for messages.
    item: which it is.
    net: whose parameters it is to move; None: it is not tried on them.

  Raises:
    ArgumentError: if it is none.
  """
  if isinstance(item, (Optimizer, str)) or (
    isinstance(item, type) and issubclass(item, Optimizer)
  ):
    optimizer: Optimizer = as_component(argument, item, Optimizer)
    return optimizer
  return wrap_optax(argument, item, net)
