"""Names that a user writes, held against those that there are."""

import difflib
from collections.abc import Collection, Sequence
from typing import Any

from gan_jax.runtime.errors import ArgumentError


def suggest(name: str, known: Collection[str]) -> str:
  """The remedy for an unknown name: the closest ones, or all of them.

  >>> suggest('hnge', ['hinge', 'minimax'])
  'did you mean hinge?'
  >>> suggest('x', ['hinge', 'minimax'])
  'use one of hinge, minimax'
  """
  close = difflib.get_close_matches(name, known, n=2)
  if close:
    return f'did you mean {" or ".join(close)}?'
  return f'use one of {", ".join(known)}'


def split_names(text: str) -> list[str]:
  """Names with commas between them.

  >>> split_names('kid, fid')
  ['kid', 'fid']
  """
  return [word.strip() for word in text.split(',') if word.strip()]


def check_names(
  argument: str, value: Any, names: Sequence[str], known: Collection[str]
) -> None:
  """Checks that each name is known and there once.

  Args:
    argument: that the names were given by.
    value: of it, as messages show it.
    names: in it.
    known: the names that there are.

  Raises:
    ArgumentError: for an unknown name, or one that is there twice.
  """
  for name in names:
    if name not in known:
      raise ArgumentError(argument, value, f'{name}: {suggest(name, known)}')
    if names.count(name) > 1:
      raise ArgumentError(argument, value, f'{name} is there twice')
