"""The type checker that pytest runs gan_jax under: `typechecked.check`.

Beartype, reading annotations as mypy does: an int where a float is asked for is
right (PEP 484), which beartype alone refuses. What checks a function is made at
its first call, for most are never called by one test process; and what checks
its result does not look at its arguments again.
"""

import functools
from collections.abc import Callable
from typing import Any

import beartype

_beartyped = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def check(stub: Callable[..., Any]) -> Callable[..., Any]:
  """A checked form of a function that jaxtyping made from a signature."""
  checked: Callable[..., Any] | None = None

  @functools.wraps(stub)
  def lazily(*args: Any, **kwargs: Any) -> Any:
    nonlocal checked
    if checked is None:
      if stub.__annotations__.get('return', Any) is not Any:
        stub.__annotations__ = {'return': stub.__annotations__['return']}
      checked = _beartyped(stub)
    return checked(*args, **kwargs)

  return lazily
