"""Conformance test of an augmentation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.game.augment import Augmentation
from gan_jax.game.component import as_component
from gan_jax.testing.subject import Subject, neighbours

_N, _SIDE, _DRAWS = 6, 8, 8

Transform = Callable[..., Any]


def check_augmentation(
  augmentation: Augmentation | type[Augmentation],
) -> list[str]:
  """Holds an augmentation to what every augmentation promises.

  It keeps shape and type, of one channel and of three, in float32 and bfloat16;
  gives each example a draw of its own, and heeds no other example; is the same
  under `jit` (compiled once for all hyper-parameters, each of which changes
  something) and `vmap`; and passes gradients, of the second order too.

  Args:
    augmentation: one, or its class, which is taken at its defaults.

  Returns:
    What it does not say of itself and was not checked: nothing so far.

  Raises:
    AssertionError: naming the augmentation and what it breaks.

  >>> from gan_jax.game.augment import Flip
  >>> check_augmentation(Flip)
  []
  """
  augmentation = as_component('augment', augmentation, Augmentation)
  subject = Subject('augmentation', augmentation)
  apply = jax.jit(
    jax.vmap(lambda item, x, key: item.apply(x, key), (None, 0, 0))
  )
  _check_shapes(subject, augmentation)
  _check_draws(subject, augmentation, apply)
  _check_transforms(subject, augmentation, apply)
  _check_hyperparameters(subject, augmentation, apply)
  _check_gradients(subject, augmentation)
  return subject.missing


def _images(seed: int = 0, channels: int = 3) -> Any:
  rng = np.random.default_rng(seed)
  return jnp.float32(rng.uniform(-1, 1, (_N, _SIDE, _SIDE, channels)))


def _check_shapes(subject: Subject, item: Augmentation) -> None:
  for channels in (1, 3):
    for dtype in (jnp.float32, jnp.bfloat16):
      x = jax.ShapeDtypeStruct((_N, _SIDE, _SIDE, channels), dtype)
      y = jax.eval_shape(item.apply, x, jax.random.key(0))
      subject.require(
        (y.shape, y.dtype) == (x.shape, x.dtype),
        f'makes {y.dtype}{y.shape} of {x.dtype}{x.shape}',
      )


def _keys(seed: int) -> Any:
  return jax.random.split(jax.random.key(seed), _DRAWS)


def _check_draws(
  subject: Subject, item: Augmentation, apply: Transform
) -> None:
  """One for each example, of which no other depends."""
  x, others = _images(), _images(seed=1)
  mixed = jnp.concatenate([x[:1], others[1:]])
  images, again, drawn = (
    np.asarray(apply(item, jnp.stack([batch] * _DRAWS), _keys(1)))
    for batch in (x, mixed, jnp.tile(x[:1], (_N, 1, 1, 1)))
  )
  subject.require_finite(images, 'an image')
  subject.require_close(
    again[:, 0], images[:, 0], 'an image depends on the others of its batch'
  )
  subject.require(
    any(len({image.tobytes() for image in batch}) > 1 for batch in drawn),
    'transforms all images of a batch alike; draw for each of them',
  )


def _check_transforms(
  subject: Subject, item: Augmentation, apply: Transform
) -> None:
  xs = jnp.stack([_images(seed) for seed in range(_DRAWS)])
  mapped = apply(item, xs, _keys(0))
  eager = [item.apply(xs[i], _keys(0)[i]) for i in (0, 1)]
  subject.require_close(
    list(mapped[:2]), eager, 'another image under `jit` and `vmap`', atol=1e-5
  )


def _check_hyperparameters(
  subject: Subject, item: Augmentation, apply: Transform
) -> None:
  xs = jnp.stack([_images()] * _DRAWS)
  before = apply(item, xs, _keys(2))
  for path, other in neighbours(item):
    subject.require(
      not np.array_equal(before, apply(other, xs, _keys(2))),
      f'`{path}` is a hyper-parameter that changes nothing',
    )
  subject.require(
    apply._cache_size() == 1,  # type: ignore[attr-defined]
    'is compiled anew for other images or hyper-parameters',
  )


def _check_gradients(subject: Subject, item: Augmentation) -> None:
  """G learns through it, and penalties differentiate that once more."""
  x, direction, key = _images(), _images(seed=1), jax.random.key(0)

  def summary(x: Any) -> Any:
    return jnp.sum(jnp.sin(item.apply(x, jax.random.clone(key))))

  @jax.jit
  def slopes(x: Any) -> Any:
    first = jax.grad(summary)
    second = jax.grad(lambda x: jnp.sum(jnp.square(first(x))))
    step = 1e-2 * direction
    difference = (summary(x + step) - summary(x - step)) / 2e-2
    return jnp.vdot(first(x), direction), difference, second(x)

  slope, difference, second = slopes(x)
  subject.require_close(
    slope,
    difference,
    'a gradient is not that of the images',
    rtol=3e-2,
    atol=3e-2,
  )
  subject.require_finite(second, 'a gradient of the second order')
