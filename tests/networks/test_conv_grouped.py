"""Grouped convolutions: both forms, and which platform gets which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.networks import conv_grouped as lib

GROUPS = 2


def arrays():
  rng = np.random.default_rng(0)
  x, y = (jnp.float32(rng.normal(size=(2, 4, 5, 6))) for _ in range(2))
  return x, y, jnp.float32(rng.normal(size=(3, 3, 3, 6)))


def test_the_form_of_other_platforms_and_its_transposes_are_those_of_the_cpu():
  x, y, w = arrays()
  found = [
    (
      form(x, w, GROUPS),
      lib._in_images(form, y, w, GROUPS),
      lib._in_kernel(form, x, y, GROUPS),
    )
    for form in (lib.product, lib.plain)
  ]
  for ours, theirs in zip(*found, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('platform', 'native'), [('tpu', 1), ('cpu', 0)])
def test_each_platform_gets_its_own_to_the_second_order(platform, native):
  def penalty(x, w):
    slope = jax.grad(lambda x: jnp.sum(lib.conv_grouped(x, w, GROUPS) ** 2))(x)
    return jnp.sum(slope**2)

  x, _, w = arrays()
  step = jax.jit(jax.grad(penalty, (0, 1))).trace(x, w)
  text = step.lower(lowering_platforms=(platform,)).as_text()
  assert ('stablehlo.convolution' in text) == bool(native)
  assert ('stablehlo.dot_general' in text) != bool(native)
