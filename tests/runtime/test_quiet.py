"""Silence for libraries: of what they say of themselves, for a call."""

import logging

from gan_jax.runtime.quiet import quiet_libraries


def record(path, level):
  return logging.LogRecord('absl', level, path, 1, 'said', (), None)


def test_warnings_of_libraries_are_silent_and_errors_are_not():
  logger = logging.getLogger('absl')
  before = logger.filters[:]
  library, own = '/site-packages/orbax/checkpoint/x.py', '/home/me/orbax_run.py'
  with quiet_libraries():
    assert not logger.filter(record(library, logging.WARNING))
    assert logger.filter(record(library, logging.ERROR))
    assert logger.filter(record(own, logging.INFO))
    older = record(library, logging.ERROR)
    older.msg = 'Metrics file x/8/metrics/metrics not found.'
    assert not logger.filter(older)
  assert logger.filters == before
  assert logger.filter(record(library, logging.WARNING))
