"""What breaks a promise is told by the conformance tests, in words."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.untyped import message

from gan_jax import testing
from gan_jax.game.augment import Augmentation
from gan_jax.game.component import static
from gan_jax.game.objectives import (
  Equilibrium,
  Hinge,
  LeastSquares,
  Objective,
)
from gan_jax.game.optimizers import Sgd
from gan_jax.game.regularizers import R1, Lecam, Regularizer
from gan_jax.game.schedules import Alternating, Schedule
from gan_jax.game.streams import stream


def told(check, component):
  return message(check, component, error=AssertionError)


class Sum(Hinge):
  def g_loss(self, real, fake):
    return -jnp.sum(fake)


class Unreduced(Hinge):
  def g_loss(self, real, fake):
    return -fake


class Squashed(Hinge):
  def g_loss(self, real, fake):
    return -jnp.mean(jnp.log(jax.nn.sigmoid(fake)))


class Secretive(Hinge):
  def g_loss(self, real, fake):
    return jnp.mean(real) - jnp.mean(fake)


class Blind(Hinge):
  relativistic: ClassVar[bool] = True


class Ordered(Hinge):
  def g_loss(self, real, fake):
    return -jnp.mean(fake * jnp.linspace(0, 2, fake.shape[0]))


class Deaf(Hinge):
  margin: float = 1.0


class Unlike(Hinge):
  def reference(self, real, fake):
    d, g = Hinge.reference(self, real, fake)
    return 1.1 * d, g


class Flat(Hinge):
  """Of the right value, and of no slope."""

  def g_loss(self, real, fake):
    return jax.lax.stop_gradient(-jnp.mean(fake))


class Unequal(Hinge):
  equilibrium: ClassVar[Equilibrium] = Equilibrium(0.0, 1.0, 0.0)


class Elsewhere(Hinge):
  equilibrium: ClassVar[Equilibrium] = Equilibrium(2.0, 3.0, -2.0)


class Half(Objective):
  def d_loss(self, real, fake):
    return jnp.mean(fake) - jnp.mean(real)


class Misread(LeastSquares):
  def log_ratio(self, logits):
    return logits - 0.5


OBJECTIVES = {
  Sum: 'changes with the size of the batch; take a mean over it',
  Unreduced: 'g_loss returns an array of shape (16,); take the mean over the',
  Squashed: 'a loss or a slope at logits of (10000.0, -10000.0, 30.0',
  Secretive: 'if g_loss reads `real`, say `relativistic: ClassVar[bool] =',
  Blind: 'is `relativistic`, and its g_loss does not read the real logits',
  Ordered: 'depends on the order of the batch',
  Deaf: '`margin` is a hyper-parameter that changes neither loss',
  Unlike: 'another loss than its reference',
  Flat: 'another slope (by_fake) than its reference',
  Unequal: 'other losses than its equilibrium states',
  Elsewhere: 'd_loss is not least at the logit 2.0 of its equilibrium',
  Half: 'give `g_loss(self, real, fake)`',
  Misread: 'log_ratio is not that of its best D',
}


@pytest.mark.parametrize('kind', OBJECTIVES)
def test_objectives(kind):
  said = told(testing.check_objective, kind)
  assert said.startswith(f'objective {kind().name}: ')
  assert OBJECTIVES[kind] in said


class Unsaid(Hinge):
  reference = Objective.reference
  equilibrium: ClassVar[Equilibrium | None] = None


class Mute(Regularizer):
  weight: float = 1.0

  def on_d(self, view):
    return jnp.mean(jnp.square(view.real_logits))


def test_what_is_not_said_is_named():
  assert testing.check_objective(Unsaid) == [
    'objective unsaid has no `reference`: give `reference(self, real, fake) ->'
    ' (d_loss, g_loss)` in float64 NumPy, which losses and slopes are compared'
    ' with',
    'objective unsaid has no `equilibrium`: give `equilibrium:'
    ' ClassVar[Equilibrium] = Equilibrium(logit, d_loss, g_loss)`, the values'
    ' where samples are distributed as the data',
  ]
  (said,) = testing.check_regularizer(Mute)
  assert said == (
    'regularizer mute has no `dirac`: give `dirac(self, theta, psi) -> float |'
    ' None`, its penalty on D where G is at theta, D is `psi x` and the data'
    ' are at 0'
  )
  (said,) = testing.check_optimizer(Alone)
  assert said.startswith('optimizer alone has no `reference`: ')


class Alone(Sgd):
  reference = testing.optimizers.Optimizer.reference


class WholeBatch(R1):
  """The trap: one norm of the slopes of all examples."""

  def on_d(self, view):
    slope = jax.grad(lambda x: jnp.sum(view.critic(x, None)))(view.real)
    return jnp.sum(jnp.square(slope)) / 2


class Weighed(R1):
  def on_d(self, view):
    return jnp.mean(view.real_logits * jnp.linspace(0, 1, len(view.real)))


class Root(R1):
  def on_d(self, view):
    slope = jax.grad(lambda x: jnp.sum(view.critic(x, None)))(view.real)
    return jnp.mean(jnp.linalg.norm(slope.reshape(len(slope), -1), axis=1))


class Doubled(R1):
  def dirac(self, theta, psi):
    return psi**2


class Constant(R1):
  def on_d(self, view):
    return jnp.mean(view.real)


class Deafer(R1):
  margin: float = 1.0


class Forgetful(Lecam):
  def next_memory(self, memory, view):
    return memory._replace(real=jnp.float16(0))


class Growing(Regularizer):
  """No projection: what it has moved it moves again."""

  def project_d(self, params):
    return jax.tree.map(lambda w: w / 2, params)

  def dirac(self, theta, psi):
    return 0.0


REGULARIZERS = {
  WholeBatch: 'changes with the size of the batch',
  Weighed: 'depends on the order of the batch',
  Root: 'on_d or its gradient, weights times 0.0, in float32',
  Doubled: 'another penalty in Dirac-GAN than `dirac` says',
  Constant: "on_d does not depend on D's parameters",
  Deafer: '`margin` is a hyper-parameter that changes nothing',
  Forgetful: "next_memory returns Anchors(real='float16()'",
  Growing: 'project_d moves twice',
}


@pytest.mark.parametrize('kind', REGULARIZERS)
def test_regularizers(kind):
  said = told(testing.check_regularizer, kind)
  assert said.startswith(f'regularizer {kind().name}: ')
  assert REGULARIZERS[kind] in said


class OnlyD(Schedule):
  """Of which the others differ in one thing each."""

  def real_batches(self, objective):
    return 1

  def update(self, u, state, reals, key):
    gradient = u.d_gradient(state, *self.seen(reals, key))
    state, logs = u.apply_d(state, gradient), gradient.logs
    return self.finish(u, state, logs, *self.seen(reals, key))

  def seen(self, reals, key):
    return jax.tree.map(lambda x: x[0], reals), stream(key, 'one')

  def finish(self, u, state, logs, real, key):
    return state, logs


class NoG(OnlyD):
  def finish(self, u, state, logs, real, key):
    return state, logs | u.g_gradient(state, real, key).logs


class Greedy(NoG):
  def finish(self, u, state, logs, real, key):
    gradient = u.g_gradient(state, real, key)
    return u.apply_g(state, gradient), logs | gradient.logs

  def real_batches(self, objective):
    return 2


class Same(Greedy):
  def real_batches(self, objective):
    return 1

  def seen(self, reals, key):
    return jax.tree.map(lambda x: x[0], reals), jax.random.key(0)


class Never(Alternating):
  def d_updates(self):
    return 0


SCHEDULES = {
  OnlyD: "update returns logs without ['g/loss', 'g/grad_norm']",
  NoG: 'leaves G where it is',
  Greedy: 'asks for 2 real batches and does not look at number 1',
  Same: 'draws the same noise in another step; fold `key` into what is drawn',
  Never: 'd_updates() is 0; return a whole number of 1 or more',
}


@pytest.mark.parametrize('kind', SCHEDULES)
def test_schedules(kind):
  said = told(testing.check_schedule, kind)
  assert said.startswith(f'schedule {kind().name}: ')
  assert SCHEDULES[kind] in said


class Unsafe(Sgd):
  """Normalised gradients, which have no direction at 0."""

  def rule(self, beta1):
    return optax.chain(
      optax.normalize_by_update_norm(eps=0.0), super().rule(beta1)
    )


class Idle(Sgd):
  slack: float = 0.1


class Faster(Sgd):
  def rate(self, step):
    return 2 * jnp.asarray(self.learning_rate)


OPTIMIZERS = {
  Unsafe: 'parameters after an update by a gradient of 0',
  Idle: '`slack` is a hyper-parameter that changes nothing',
  Faster: 'another update than its reference',
}


@pytest.mark.parametrize('kind', OPTIMIZERS)
def test_optimizers(kind):
  said = told(testing.check_optimizer, kind)
  assert said.startswith(f'optimizer {kind().name}: ')
  assert OPTIMIZERS[kind] in said


class Noise(Augmentation):
  """Adds noise; the others differ in one thing each."""

  size: float = 0.1
  levels: int = static(0)

  def apply(self, x, key):
    noise = jax.random.normal(key, (len(x), 1, 1, 1), x.dtype)
    return x + jnp.asarray(self.size, x.dtype) * noise


class Alike(Noise):
  def apply(self, x, key):
    return x + jnp.asarray(self.size, x.dtype) * jax.random.normal(
      key, (), x.dtype
    )


class Mixed(Noise):
  def apply(self, x, key):
    return super().apply(x, key) + jnp.mean(x)


class Cropped(Noise):
  def apply(self, x, key):
    return super().apply(x, key)[:, 1:]


class Rounded(Noise):
  def apply(self, x, key):
    y = super().apply(x, key)
    return y + jax.lax.stop_gradient(np.pi * y)


AUGMENTATIONS = {
  Alike: 'transforms all images of a batch alike; draw for each of them',
  Mixed: 'an image depends on the others of its batch',
  Cropped: 'makes float32(6, 7, 8, 1) of float32(6, 8, 8, 1)',
  Rounded: 'a gradient is not that of the images',
}


@pytest.mark.parametrize('kind', AUGMENTATIONS)
def test_augmentations(kind):
  said = told(testing.check_augmentation, kind)
  assert said.startswith(f'augmentation {kind().name}: ')
  assert AUGMENTATIONS[kind] in said
  assert testing.check_augmentation(Noise) == []
