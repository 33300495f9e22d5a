"""Paths that a user writes."""

import pathlib

from gan_jax.runtime.errors import ArgumentError


def expand_user(argument: str, path: str, value: str = '') -> pathlib.Path:
  """A path whose `~` or `~user` is that person's home.

  Args:
    argument: that names the path, for the message.
    path: as it was written.
    value: of the argument, where the path is a part of it.

  Raises:
    ArgumentError: if there is no such person.
  """
  try:
    return pathlib.Path(path).expanduser()
  except RuntimeError as error:
    raise ArgumentError(
      argument,
      value or path,
      f'{pathlib.Path(path).parts[0]}: no such user, or no home is known;'
      ' write the path in full',
    ) from error
