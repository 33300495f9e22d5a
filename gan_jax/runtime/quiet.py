"""Silence for what libraries log of themselves, while one of ours is called.

Orbax and TFDS warn through absl's logger of what nobody who calls this package
can change; what matters they raise as well. Nothing outlives the call: handlers
and levels of the user's logging are left as they are.
"""

import contextlib
import logging
from collections.abc import Iterator

_LIBRARIES = ('orbax', 'grain', 'tensorflow_datasets')
# What older versions call an error, and is none: no checkpoint of ours has any.
_NO_ERROR = 'metrics not found'


def _is_wanted(record: logging.LogRecord) -> bool:
  """Whether a record is an error, or of somebody else."""
  parts = record.pathname.replace('\\', '/').split('/')
  if not set(parts) & {*_LIBRARIES}:
    return True
  return (
    record.levelno >= logging.ERROR and _NO_ERROR not in record.getMessage()
  )


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
  """While this is entered, warnings of libraries are not logged.

  Also a decorator: `@quiet_libraries()`.
  """
  logger = logging.getLogger('absl')

  def wanted(record: logging.LogRecord) -> bool:  # one of its own for each call
    return _is_wanted(record)

  logger.addFilter(wanted)
  try:
    yield
  finally:
    logger.removeFilter(wanted)
