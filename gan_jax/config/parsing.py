"""From the words of a command line, or of a flagfile, to values of a type.

Numbers are written in ASCII digits and lie within the bounds of their flag. A
flagfile has a flag a line; what follows ` #` is a note, and quotes around a
value are not part of it.
"""

import math
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from gan_jax.runtime.errors import ArgumentError

INT_MAX = 2**31 - 1  # counters on a device are of 32 bits
_INT = re.compile(r'[+-]?[0-9]+(_[0-9]+)*')
_LONGEST_INT = 19  # digits; more are beyond any bound
_FILE_BYTES = 2**20
_NAME_BYTES, _PATH_BYTES = 255, 4095  # as on all usual file systems


def parse_int(text: str) -> int:
  """A whole number.

  Raises:
    ValueError: for anything else, digits of other scripts among it.

  >>> parse_int('1_000')
  1000
  """
  word = text.strip()
  if not _INT.fullmatch(word):
    raise ValueError('use a whole number')
  if len(word) > _LONGEST_INT:
    raise ValueError(f'use a whole number of {_LONGEST_INT} digits at the most')
  return int(word)


def parse_float(text: str) -> float:
  """A number; infinities and NaN are left to the bounds.

  Raises:
    ValueError: for anything else, digits of other scripts among it.
  """
  try:
    if text.isascii():
      return float(text)
  except ValueError:
    pass
  raise ValueError('use a number')


def bound_remedy(
  value: float,
  low: float | None = None,
  high: float | None = None,
  above: float | None = None,
  below: float | None = None,
) -> str:
  """What to use in the place of a number out of bounds; '' for one within."""
  if isinstance(value, float) and not math.isfinite(value):
    return 'use a finite number'
  if low is not None and value < low:
    return f'use {low} or more'
  if above is not None and value <= above:
    return f'use more than {above}'
  if high is not None and value > high:
    return f'use {high} or less'
  if below is not None and value >= below:
    return f'use less than {below}'
  return ''


def text_remedy(text: str) -> str:
  """What is wrong with a word that is a value; '' for nothing."""
  if text != text.strip():
    return 'remove white space at the ends'
  if not text.isprintable():
    return 'remove line breaks and what is no character of UTF-8'
  return ''


def place_remedy(text: str) -> str:
  """What is wrong with the name of a file or folder; '' for nothing.

  >>> place_remedy('runs/' + 300 * 'a')
  'a name in it has 300 bytes; 255 are the most that a file system takes'
  """
  user = text.partition('/')[0]  # ~ alone is a matter of where it is used
  if user[:1] == '~' != user and os.path.expanduser(text) == text:
    return f'no such user as {user}; write the folder out'
  longest = max((len(os.fsencode(x)) for x in text.split('/')), default=0)
  if longest > _NAME_BYTES:
    return (
      f'a name in it has {longest} bytes; {_NAME_BYTES} are the most that a'
      ' file system takes'
    )
  whole = len(os.fsencode(text))
  if whole > _PATH_BYTES:
    return f'has {whole} bytes; {_PATH_BYTES} are the most of a path'
  return ''


class _Int(flags.IntegerParser):
  """Whole numbers, within bounds."""

  def convert(self, argument: Any) -> int:
    return parse_int(argument) if isinstance(argument, str) else argument

  def parse(self, argument: Any) -> int:
    return _within(self.convert(argument), self)


class _Float(flags.FloatParser):
  """Numbers, within bounds."""

  def convert(self, argument: Any) -> float:
    return parse_float(argument) if isinstance(argument, str) else argument

  def parse(self, argument: Any) -> float:
    return _within(self.convert(argument), self)


def _within(value: Any, parser: Any) -> Any:
  bounded = parser.lower_bound is not None or parser.upper_bound is not None
  if bounded:  # those of `Config` are checked together, by `validate`
    remedy = bound_remedy(value, parser.lower_bound, parser.upper_bound)
    if remedy:
      raise ValueError(remedy)
  return value


class _Text(flags.ArgumentParser[str]):
  """Words, and names of files and folders."""

  syntactic_help = ''

  def __init__(self, place: bool) -> None:
    self._place = place

  def parse(self, argument: str) -> str:
    remedy = text_remedy(argument) or (self._place and place_remedy(argument))
    if remedy:
      raise ValueError(remedy)
    return argument

  def flag_type(self) -> str:
    return 'string'


def define_number(
  kind: type,
  name: str,
  default: Any,
  text: str,
  low: Any,
  high: Any,
  flag_values: flags.FlagValues,
) -> None:
  """Defines a flag of a number."""
  parser: Any = (_Int if kind is int else _Float)(low, high)
  serializer: Any = flags.ArgumentSerializer()
  flags.DEFINE(
    parser, name, default, text, flag_values=flag_values, serializer=serializer
  )


def define_text(
  name: str,
  default: Any,
  text: str,
  place: bool,
  flag_values: flags.FlagValues,
) -> None:
  """Defines a flag of a word, or of a file or folder."""
  serializer: Any = flags.ArgumentSerializer()
  flags.DEFINE(
    _Text(place),
    name,
    default,
    text,
    flag_values=flag_values,
    serializer=serializer,
  )


# Flagfiles.


def expand_flagfiles(words: Sequence[str]) -> list[str]:
  """The words of a command line with flagfiles in the place of their names.

  Raises:
    ArgumentError: for a file that cannot be read or has a line that is none.
  """
  return [*_expand(words, ())]


def _expand(words: Sequence[str], files: tuple[str, ...]) -> Iterator[str]:
  rest = list(words)
  while rest:
    word = rest.pop(0)
    name, equals, path = word.partition('=')
    if name not in ('--flagfile', '-flagfile'):
      yield word
    elif equals or rest:
      yield from _read_flagfile(path if equals else rest.pop(0), files)
    else:
      raise ArgumentError('flagfile', '', 'name a file')


def _read_flagfile(path: str, files: tuple[str, ...]) -> Iterator[str]:
  if not path:
    return
  place = pathlib.Path(os.path.expanduser(path))
  if str(place) in files:
    raise ArgumentError('flagfile', path, 'reads itself; take that line out')
  for number, line in enumerate(_lines(path, place), 1):
    try:
      word = flagfile_word(line)
    except ValueError as error:
      remedy = f'line {number}: {error}'
      raise ArgumentError('flagfile', path, remedy) from error
    if word:
      yield from _expand([word], (*files, str(place)))


def _lines(path: str, place: pathlib.Path) -> list[str]:
  reason = ''
  try:
    # Of pipes those of a shell alone, `<(...)`: another may have no writer.
    if place.exists() and not (place.is_file() or path.startswith('/dev/fd/')):
      reason = 'it is no file'
    else:
      with open(place, 'rb') as file:
        content = file.read(_FILE_BYTES + 1)
      if len(content) <= _FILE_BYTES:
        return content.decode('utf-8').splitlines()
      reason = f'it has more than {_FILE_BYTES} bytes'
  except OSError as error:
    reason = str(error.strerror)
  except UnicodeDecodeError:
    reason = 'it is not UTF-8'
  raise ArgumentError(
    'flagfile', path, f'cannot be read ({reason}); name a file of flags'
  )


def flagfile_word(line: str) -> str:
  """The flag of a line, without its note and quotes; '' if there is none.

  Raises:
    ValueError: for a line that is no flag.

  >>> flagfile_word('--workdir="runs/a b"  # the second')
  '--workdir=runs/a b'
  """
  line = line.strip()
  if not line or line.startswith(('#', '//')):
    return ''
  if not line.startswith('-'):
    raise ValueError(f'{line[:40]}: write --name=value')
  name, equals, value = line.partition('=')
  if not equals:
    return _without_note(name)
  for quoted in (_QUOTED, _QUOTED_WITH_NOTE):
    match = quoted.fullmatch(value)
    if match:
      return f'{name}={match[2]}'
  return f'{name}={_without_note(value)}'


_QUOTED = re.compile(r'(["\'])(.*)\1')
_QUOTED_WITH_NOTE = re.compile(r'(["\'])(.*?)\1\s+#.*')


def _without_note(text: str) -> str:
  return re.split(r'(?:^|\s)#', text, maxsplit=1)[0].rstrip()


def format_flagfile(words: Sequence[str]) -> str:
  """Words of the form --name=value as the text of a flagfile."""
  return ''.join(f'{_format_word(word)}\n' for word in words)


def _format_word(word: str) -> str:
  if flagfile_word(word) == word:
    return word
  name, _, value = word.partition('=')
  return f'{name}="{value}"'
