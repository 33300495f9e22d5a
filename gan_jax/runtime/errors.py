"""What can go wrong by somebody's doing: one family of exceptions.

Messages name the *argument*, its value and the remedy, with code in backticks:
`` `lr_g=0`: use more than 0, or `optimizer_g=...` ``. The command line, which
alone knows flags, prints them with the flags' dashes (`config/app.py`).
"""

from typing import Any

from gan_jax.runtime import terminal

__all__ = [
  'ArgumentError',
  'CheckpointError',
  'DataError',
  'Error',
  'IdentityError',
  'NetworksNeeded',
]

_LONGEST = 60  # characters of a value in a message


class Error(ValueError):
  """Something that the person at the keyboard can mend.

  Attributes:
    exit_code: of a command that ends with it: 2 where what was asked for is
      wrong, 1 where the world is.
  """

  exit_code = 1


class ArgumentError(Error):
  """An argument is of no use.

  Attributes:
    argument: its name, as it is written in Python.
    value: what was given.
    remedy: what is wrong with it, and what to give in its place.

  >>> str(ArgumentError('steps', 0, 'use 1 or more'))
  '`steps=0`: use 1 or more'
  """

  exit_code = 2

  def __init__(self, argument: str, value: Any, remedy: str) -> None:
    """Puts the message together."""
    self.argument, self.value, self.remedy = argument, value, remedy
    super().__init__(f'`{argument}={shortened(value)}`: {remedy}')


class DataError(Error):
  """Data that cannot be had or used; the message says what to do."""


class IdentityError(Error):
  """The folder holds another run; a line for each difference."""

  exit_code = 2


class NetworksNeeded(Error):
  """A run's networks are the user's own and were not handed in."""

  exit_code = 2


class CheckpointError(Error):
  """A checkpoint could not be written or read."""


class ReadBackError(CheckpointError):
  """What was written is not what is read: the save does not count."""


def shortened(value: Any) -> str:
  """A value as a message shows it."""
  text = terminal.rename(value if isinstance(value, str) else repr(value))
  text = ' '.join(text.split())
  if len(text) <= _LONGEST:
    return text
  half = (_LONGEST - 3) // 2  # of a path both ends matter
  return f'{text[:half]}...{text[-half:]}'
