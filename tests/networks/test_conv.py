"""Convolutions of each back end against autodiff of XLA's own."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets import quick

from gan_jax.config.resolve import make_trainer
from gan_jax.networks import conv as lib
from gan_jax.networks import conv_cpu

TOLERANCE = 1e-9  # in float64, of the greatest
MEMBERS = 2

# Side, size, stride, padding, in, out: one of each form, and odd ones of them.
CASES = {
  'pointwise': (5, 1, 1, (0, 0), 3, 4),
  'phases': (7, 3, 2, (0, 1), 5, 3),
  'narrow': (8, 4, 2, (1, 1), 3, 5),
  'narrow, odd': (7, 4, 2, (1, 2), 1, 5),
  'minimal': (8, 4, 2, (1, 1), 64, 129),
  'minimal, odd': (7, 4, 2, (1, 2), 129, 64),
  'minimal, rest': (9, 4, 2, (0, 0), 64, 128),
}


@pytest.fixture
def float64():
  jax.config.update('jax_enable_x64', True)
  yield
  jax.config.update('jax_enable_x64', False)


def draw(case):
  side, size, _, _, c, f = case
  rng = np.random.default_rng(0)
  x = rng.normal(size=(MEMBERS, 2, side, side, c))
  w = rng.normal(size=(MEMBERS, size, size, c, f)) / (size * np.sqrt(c))
  return jnp.asarray(x), jnp.asarray(w)


def close(ours, theirs):
  for a, b in zip(ours, theirs, strict=True):
    assert a.shape == b.shape
    assert np.max(np.abs(a - b)) < TOLERANCE * np.max(np.abs(b))


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_forms_and_transposes_are_the_plain_ones(case, float64):
  side, size, stride, padding, _, _ = case
  x, w = (a[0] for a in draw(case))

  @quick
  def both(x, w):
    y = jnp.sin(lib.plain(x, w, stride, padding))
    how = stride, padding
    return [
      (
        fast.conv(x, w, *how),
        fast.conv_transpose(y, w, *how, (side, side)),
        fast.conv_kernel(x, y, *how, (size, size)),
      )
      for fast in (conv_cpu, Plain)
    ]

  close(*both(x, w))


class Plain:
  conv = staticmethod(lib.plain)
  conv_transpose = staticmethod(lib.plain_transpose)
  conv_kernel = staticmethod(lib.plain_kernel)


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_second_derivatives_in_a_scan_of_each_member(case, float64):
  """As a gradient penalty takes them, in a loop, member after member."""
  _, _, stride, padding, _, _ = case

  def penalty(f, x, w):
    def loss(x, w):
      return jnp.mean(jnp.sin(f(x, w, stride, padding)))

    slopes = jax.grad(loss, (0, 1))(x, w)
    return sum(jnp.sum(jnp.cos(3 * g)) for g in slopes)

  def steps(f, xw):
    def step(carry, _):
      slopes = jax.grad(lambda c: penalty(f, *c))(carry)
      return jax.tree.map(lambda p, g: p - 0.1 * g, carry, slopes), None

    return jax.lax.scan(step, xw, length=2)[0]

  both = quick(
    lambda x, w: [
      jax.lax.map(functools.partial(steps, f), (x, w))
      for f in (lib.conv, lib.plain)
    ]
  )
  close(*both(*draw(case)))


def test_members_at_once_are_members_one_by_one(float64):
  """vmap over images and kernels, as a population may be laid out."""
  case = CASES['minimal']
  _, _, stride, padding, _, _ = case
  x, w = draw(case)

  def both(x, w):
    at_once = jax.vmap(lambda x, w: lib.conv(x, w, stride, padding))(x, w)
    return at_once, [lib.plain(x[i], w[i], stride, padding) for i in range(2)]

  at_once, alone = quick(both)(x, w)
  close(list(at_once), alone)


# Ahead of time, for what is not the default.


def convolutions(text):
  """The kinds of convolutions in a program: layouts, windows and shapes."""
  lines = re.findall(r'stablehlo\.convolution\(.*?\)(.*)', text)
  return {line.split(' loc(')[0] for line in lines}


def lowered(f, platforms, *args):
  return jax.export.export(jax.jit(f), platforms=platforms)(*args).mlir_module()


def native(side, c, f):
  """What autodiff makes of XLA's convolution: itself and both transposes."""

  def loss(x, w):
    return jnp.sin(lib.plain(x, w, 2, (1, 1))).sum()

  shapes = (2, side, side, c), (4, 4, c, f)
  args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  found = convolutions(lowered(jax.grad(loss, (0, 1)), ['tpu'], *args))
  assert len(found) == 3
  return found


def penalty(a, b, transpose):
  """The slope of slopes' squares."""

  def square(a, b):
    if transpose:
      f = lambda a, b: lib.conv_transpose(a, b, 2, (1, 1), (8, 8))
    else:
      f = lambda a, b: lib.conv(a, b, 2, (1, 1))
    slopes = jax.grad(lambda *ab: jnp.sin(f(*ab)).sum(), (0, 1))(a, b)
    return sum(jnp.sum(g**2) for g in slopes)

  return jax.grad(square, (0, 1))(a, b)


@pytest.mark.parametrize('transpose', [False, True])
def test_other_platforms_have_native_convolutions(transpose):
  x = jnp.ones((2, 4, 4, 129) if transpose else (2, 8, 8, 64))
  w = jnp.ones((4, 4, 64, 129))
  f = functools.partial(penalty, transpose=transpose)
  for platforms in (['tpu'], ['tpu', 'cuda']):
    text = lowered(f, platforms, x, w)
    assert 'stablehlo.dot_general' not in text
    assert convolutions(text) == native(8, 64, 129)
  assert not convolutions(lowered(f, ['cpu'], x, w))


@pytest.mark.slow
def test_a_step_for_other_platforms_has_native_convolutions():
  trainer = make_trainer((8, 8, 3), network='dcgan', width=32)
  state = jax.eval_shape(trainer.init, jax.random.key(0))
  batch = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
  text = lowered(trainer.step, ['tpu', 'cuda'], state, batch)
  assert convolutions(text) == native(8, 3, 32) | native(4, 32, 64)
