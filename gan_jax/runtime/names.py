"""Names that a user writes, held against those that there are."""

import difflib
import re
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


def parse_share(argument: str, text: str) -> tuple[int, int]:
  """The K and N of a share K/N.

  >>> parse_share('only', '2/8')
  (2, 8)

  Raises:
    ArgumentError: for another text.
  """
  match = re.fullmatch(r'([0-9]{1,9})/([0-9]{1,9})', text)
  k, n = map(int, match.groups()) if match else (0, 0)
  if not 1 <= k <= n:
    raise ArgumentError(argument, text, 'write K/N with K from 1 to N')
  return k, n


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
