"""Commands of the package, run in this process: seconds less than in another.

What only a process of its own shows (signals, kills, what is imported) is
tested in one.
"""

import contextlib
import io
import runpy
import signal
import sys
from typing import NamedTuple
from unittest import mock

from absl import app, flags, logging

from gan_jax.config import app as gan_jax_app


class Finished(NamedTuple):
  """A command that has ended, as `subprocess.CompletedProcess` has it."""

  returncode: int
  stdout: str
  stderr: str


def _run(main, flags_parser):
  """As absl's, without what it sets up once for a process."""
  sys.exit(main(flags_parser(sys.argv)))


@contextlib.contextmanager
def _own_flags():
  """None of the flags that other commands or tests have defined."""
  values = flags.FLAGS
  others = {n: values[n] for n in values if _module(n).startswith('gan_jax')}
  for name in others:
    delattr(values, name)
  before = set(values)
  try:
    yield
  finally:
    for name in set(values) - before:
      delattr(values, name)
    for name, flag in others.items():
      values[name] = flag
    values.unparse_flags()


def _module(name):
  return flags.FLAGS.find_module_defining_flag(name, '')


def run(command, *words):
  """`python -m gan_jax.COMMAND WORDS`."""
  module = f'gan_jax.{command}'
  out, err = io.StringIO(), io.StringIO()
  verbosity, hook = logging.get_verbosity(), sys.unraisablehook
  ctrl_c = signal.getsignal(signal.SIGINT)
  with (
    _own_flags(),
    mock.patch.object(sys, 'argv', [command, *map(str, words)]),
    mock.patch.object(app, 'run', _run),
    mock.patch.object(gan_jax_app, 'end_process', sys.exit),
    # `runpy` would keep what the type checker made of the module where other
    # processes look for the plain one.
    mock.patch.object(sys, 'dont_write_bytecode', True),
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
  ):
    sys.modules.pop(module, None)  # as it is in a new process
    try:
      runpy.run_module(module, run_name='__main__')
    except SystemExit as end:
      code = end.code
    finally:
      logging.set_verbosity(verbosity)
      sys.unraisablehook = hook
      signal.signal(signal.SIGINT, ctrl_c)
  return Finished(code, out.getvalue(), err.getvalue())
