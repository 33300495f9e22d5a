"""Calls as they are without the tests' type checker: what users run into."""

import contextlib

import jaxtyping
import pytest

from gan_jax.runtime.errors import Error


@contextlib.contextmanager
def unchecked():
  """Within, jaxtyping and beartype check no argument."""
  was = jaxtyping.config.jaxtyping_disable
  jaxtyping.config.update('jaxtyping_disable', True)
  try:
    yield
  finally:
    jaxtyping.config.update('jaxtyping_disable', was)


def message(function, *args, error=Error, **kwargs):
  """What the error says that a call raises."""
  with unchecked(), pytest.raises(error) as caught:
    function(*args, **kwargs)
  return str(caught.value)
