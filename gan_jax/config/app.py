"""What every command shares: how flags are parsed and how errors are told.

Exit codes: 0 done, 1 error, 2 bad flags or refused workdir, 3 diverged, 75
saved after a signal, run me again.
"""

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

# Python's words for a value of another type, and better ones.
_TYPES = (
  (r'invalid literal for int\(\).*', 'use a whole number'),
  (r'could not convert string to float.*', 'use a number'),
  (r'\(.Non-boolean argument.*\)', 'use true or false'),
)
DONE, ERROR, REFUSED, DIVERGED, SAVED = 0, 1, 2, 3, 75


class Failure(ValueError):
  """Nothing more can be done; the message says why and what might help."""

  exit_code = ERROR


def _parse(argv: Sequence[str]) -> list[str]:
  try:
    words = flags.FLAGS(argv)
  except flags.Error as error:
    said = str(error)
    for pattern, remedy in _TYPES:
      said = re.sub(pattern, remedy, said)
    fail(f'{said}\nSee --help for the flags of this command.', REFUSED)
  except SystemExit:
    sys.exit(DONE)  # absl has printed the help that was asked for
  if words[1:]:
    fail(f'{words[1]}: not a flag; write --name=value', REFUSED)
  return words


def fail(message: str, code: int = ERROR) -> NoReturn:
  """Ends the process with a message for the person who started it."""
  print(f'error: {message}', file=sys.stderr, flush=True)
  sys.exit(code)


def _unraisable(fault: Any) -> None:
  # Orbax's threads outlive its event loop when a file fails; the failure
  # itself is raised and told.
  if str(fault.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(fault)


def run(main: Callable[[], int]) -> NoReturn:
  """Runs a command whose flags are defined.

  An exception that carries `exit_code` is a message to the user, and is
  printed without a traceback; any other is a bug, and is not.
  """

  def guarded(argv: Sequence[str]) -> int:
    del argv
    sys.unraisablehook = _unraisable
    if not flags.FLAGS['verbosity'].present:
      # What the libraries have to say, they raise as well.
      logging.set_verbosity(logging.FATAL)
    try:
      return main()
    except ValueError as error:
      code = getattr(error, 'exit_code', None)
      if code is None:
        raise
      fail(str(error), code)

  app.run(guarded, flags_parser=_parse)
  raise AssertionError('app.run returned')
