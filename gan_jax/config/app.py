"""The command line: how flags are parsed, help is found, errors are told.

Exit codes: 0 done, 1 error, 2 bad flags or a workdir of another run, 3
diverged, 75 saved after a signal: run the command again, 130 stopped by Ctrl-C
where there is nothing to save.
"""

import atexit
import contextlib
import gc
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Container, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from gan_jax.config import help as help_lib
from gan_jax.config import parsing
from gan_jax.config.schema import FIELDS
from gan_jax.runtime import places, preemption, terminal
from gan_jax.runtime.errors import Error

# Python's words for a value of another type, and better ones.
_TYPES = ((r'\(.Non-boolean argument.*\)', 'use true or false'),)
_ARGUMENT = re.compile(r'`([\w.]+)(=[^`]*)?`')
_PREPARE = re.compile(r"`gan_jax\.data\.prepare\('(.*?)'(.*?)\)`")
_HELP = re.compile(r'--?(?:help|helpshort|h|\?)(?:=(.*))?')
_LEAVING = 15.0  # seconds for the other processes of a job to end as well
_LONGEST_REASON = 200  # characters of an exception's text
DONE, ERROR, REFUSED, DIVERGED, SAVED, INTERRUPTED = 0, 1, 2, 3, 75, 130
# Flags that name a file or folder.
_PLACES = (
  'against',
  'data_dir',
  'from',
  'images',
  'out',
  'published',
  'validation',
  'weights',
  'workdir',
)
Failure = Error


def as_flags(
  message: str, defined: Container[str] | flags.FlagValues = flags.FLAGS
) -> str:
  """A message with flags in the place of the arguments that they set.

  A hyper-parameter that is named by its path becomes the flag of that path.
  What is none of the `defined` flags stays as it is.

  >>> as_flags('`lr_g=0.0`: use more, or `optimizer_g.beta1=0`', FIELDS)
  '--lr_g=0.0: use more, or --beta1_g=0'
  """
  message = _PREPARE.sub(_prepare_command, message)
  paths = {
    field.metadata['path']: name
    for name, field in FIELDS.items()
    if field.metadata['path']
  }

  def flag(match: re.Match[str]) -> str:
    name, value = paths.get(match[1], match[1]), match[2] or ''
    if name not in defined and name != 'flagfile':  # absl's own
      return match[0]
    if value in ('=True', '=False'):
      value = value.lower()
    return f'--{name}{value}'

  return _ARGUMENT.sub(flag, message)


def _prepare_command(call: re.Match[str]) -> str:
  """The command that does what a call of `data.prepare` does."""
  words = re.findall(r"(\w+)='(.*?)'", call[2])
  given = [(key.replace('originals', 'from'), value) for key, value in words]
  rest = ''.join(f' --{key}={value}' for key, value in given)
  return f'python -m gan_jax.prepare --dataset={call[1]}{rest}'


def warn(message: str) -> None:
  """Prints a warning, with flags where a command defines them."""
  terminal.tell(f'warning: {as_flags(message)}', sys.stderr)


def warn_idle(why: str, *names: str) -> None:
  """Warns of the flags among these that are given, and why they do nothing."""
  for name in names:
    value = flags.FLAGS[name].value
    if value and flags.FLAGS[name].present:
      warn(f'`{name}={value}`: has no effect: {why}')


def fail(message: str, code: int = ERROR) -> NoReturn:
  """Ends the process with a message for the person who started it."""
  terminal.tell(f'error: {as_flags(message)}', sys.stderr)
  sys.exit(code)


def _show(text: str) -> None:
  terminal.tell(text, sys.stdout)


def _print_help(word: str | None) -> NoReturn:
  """Prints all flags, or those that a word finds, and ends the process."""
  width = max(40, min(100, shutil.get_terminal_size().columns))
  if not word:
    about = sys.modules['__main__'].__doc__ or ''
    _show(help_lib.page(flags.FLAGS, about, width))
    sys.exit(DONE)
  text = help_lib.search(flags.FLAGS, word, width)
  if text is None:
    close = help_lib.suggestions(flags.FLAGS, word)
    hint = f'did you mean {", ".join(close)}?' if close else 'try another word'
    fail(f'--help={word}: no flag has this word; {hint}', REFUSED)
  _show(text)
  sys.exit(DONE)


def _parse(argv: Sequence[str]) -> list[str]:
  for word in argv[1:]:
    asked = _HELP.fullmatch(word)
    if asked:
      _print_help(asked[1])
  try:
    words = flags.FLAGS([argv[0], *parsing.expand_flagfiles(argv[1:])])
  except Error as error:  # of a flagfile
    fail(str(error), REFUSED)
  except flags.UnrecognizedFlagError as error:
    name = error.flagname
    close = [
      n for n in help_lib.suggestions(flags.FLAGS, name) if n in flags.FLAGS
    ]
    close += [f'{name}{p}' for p in ('_g', '_d') if f'{name}{p}' in flags.FLAGS]
    hint = ' or '.join(f'--{n}' for n in dict.fromkeys(close))
    hint = f'did you mean {hint}?' if hint else 'see --help for those there are'
    fail(f'--{name}: no such flag; {hint}', REFUSED)
  except flags.Error as error:
    message = str(error)
    for pattern, remedy in _TYPES:
      message = re.sub(pattern, remedy, message)
    fail(f'{message}\nSee --help for the flags of this command.', REFUSED)
  except SystemExit:
    sys.exit(DONE)  # absl has printed --helpfull or --helpxml
  if words[1:]:
    fail(f'{words[1]}: not a flag; write --name=value', REFUSED)
  return words


def _resolve_places() -> None:
  """Puts the home folder in the place of `~` in all flags that name a place.

  Raises:
    ArgumentError: for what cannot be a place on this machine.
  """
  for name in _PLACES:
    value: Any = flags.FLAGS[name].value if name in flags.FLAGS else ''
    if value:
      flags.FLAGS[name].value = places.resolve(name, value)


def _interrupt(number: int, frame: Any) -> NoReturn:
  """Ctrl-C ends a command, in order; a second one ends it where it is."""
  preemption.raise_lost()
  signal.signal(number, _end_at_once)
  while frame is not None:
    if frame.f_code.co_filename.startswith('<frozen importlib'):
      # NumPy's C code prints what is raised in it, and nothing is begun yet.
      _end_at_once(number, frame)
    frame = frame.f_back
  raise KeyboardInterrupt


def _interruptible(main: Callable[[], int]) -> int:
  """Runs a command; what comes of Ctrl-C amid an import is Ctrl-C."""
  try:
    return main()
  except Exception as error:
    if signal.getsignal(signal.SIGINT) is _end_at_once:
      raise KeyboardInterrupt from error
    raise


def _end_at_once(number: int, frame: Any) -> NoReturn:
  del number, frame
  preemption.raise_lost()
  terminal.tell('stopped at once by Ctrl-C', sys.stderr)
  os._exit(INTERRUPTED)


def _report_unraisable(fault: Any) -> None:
  # Orbax's threads outlive its event loop when a file fails; the failure
  # itself is raised and reported.
  if preemption.raise_again(fault.exc_value):
    return
  if str(fault.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(fault)


def use_all_cores() -> None:
  """A virtual device for each core; of no effect on other back ends."""
  flag = '--xla_force_host_platform_device_count'
  words = os.environ.get('XLA_FLAGS', '')
  if flag not in words:
    # Of this process, where the system can say so (Linux).
    own = getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1))
    os.environ['XLA_FLAGS'] = f'{words} {flag}={len(own(0))}'


def describe_crash(error: BaseException) -> str:
  """One line on what nobody foresaw, whose traceback is written to a file."""
  exhausted = ''
  if 'jax' in sys.modules:
    from gan_jax.runtime import backend

    try:
      backend.check_devices()
    except Error as cause:
      return str(cause)
    exhausted = backend.explain_exhaustion(error)
  elif isinstance(error, MemoryError):
    exhausted = 'out of memory'
  reason = ' '.join(f'{type(error).__name__}: {error}'.split())
  if len(reason) > _LONGEST_REASON:
    reason = f'{reason[:_LONGEST_REASON]}...'
  text = ''.join(traceback.format_exception(error))
  command = shlex.join(sys.orig_argv)
  try:
    with tempfile.NamedTemporaryFile(
      'w',
      encoding='utf-8',
      errors='backslashreplace',
      prefix='gan_jax_',
      suffix='.log',
      delete=False,
    ) as log:
      log.write(f'{command}\n\n{text}')
    where = f'the traceback is in {log.name}'
  except OSError:  # no room, or no folder for temporary files
    where = f'no file could be written for the traceback:\n{text}'
  if exhausted:
    return f'{exhausted}; {_what_to_use_less()}; {where}'
  return f'an error that was not foreseen ({reason}); {where}'


def _what_to_use_less() -> str:
  """What helps a command that has run out of memory."""
  if 'batch_size' in flags.FLAGS:
    return (
      'use a smaller `batch_size`, `accumulate`, a smaller network (`width`),'
      ' `precision=bfloat16`, `residence=stream` for images, fewer samples, or'
      ' a device with more. What was saved is whole: the same command goes on'
      ' from there'
    )
  return (
    'samples go through the networks in batches, however many there are: use a'
    ' device with more, or one that nobody else uses'
  )


def run(main: Callable[[], int]) -> NoReturn:
  """Runs a command whose flags are defined.

  An `Error` is a message to the user. Of any other exception one line is
  printed, which names the file that has the traceback.
  """

  def guarded(argv: Sequence[str]) -> int:
    del argv
    sys.unraisablehook = _report_unraisable
    # Imports and traces make millions of objects that stay: to look through
    # them again and again takes a tenth of a start.
    gc.set_threshold(50_000)
    if not flags.FLAGS['verbosity'].present:
      # What the libraries have to say, they raise as well.
      logging.set_verbosity(logging.FATAL)
    try:
      _resolve_places()
      return _interruptible(main)
    except Error as error:
      fail(str(error), error.exit_code)
    except Exception as error:
      fail(describe_crash(error))

  with contextlib.suppress(ValueError):  # not in the main thread
    signal.signal(signal.SIGINT, _interrupt)
  try:
    with terminal.sturdy_streams():
      try:
        app.run(guarded, flags_parser=_parse)
      except KeyboardInterrupt:
        terminal.tell(
          'stopped by Ctrl-C; the same command does it again', sys.stderr
        )
        sys.exit(INTERRUPTED)
  except SystemExit as end:
    if end.code in (SAVED, INTERRUPTED):
      end_process(end.code)
    raise
  raise AssertionError('app.run returned')


_last: list[Callable[[], object]] = []


def at_end(call: Callable[[], object]) -> None:
  """Has something done when the process ends, in order or stopped."""
  atexit.register(call)
  _last.append(call)


def end_process(code: int) -> NoReturn:
  """Ends a process that was stopped, without taking down what it holds.

  A thread of XLA may be at a compilation which nobody waits for any more; it
  crashes when the devices go.
  """
  with contextlib.suppress(ValueError):  # not in the main thread
    for number in preemption.signals():
      signal.signal(number, signal.SIG_IGN)
  for call in reversed(_last):
    with contextlib.suppress(Exception):
      call()
  if 'jax' in sys.modules:
    from gan_jax.runtime import multihost

    # Who waits for the others in vain is ended by JAX, later and by a crash.
    leaving = threading.Thread(target=multihost.leave, daemon=True)
    leaving.start()
    leaving.join(_LEAVING)
  os._exit(code)
