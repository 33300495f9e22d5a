"""Standard streams that cannot end what a process does.

`| head` closes a pipe, a terminal goes away, a scheduler starts a process with
closed descriptors, a locale knows no `±`: what is said is lost or spelt
otherwise, and the work goes on.
"""

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

_SPELT = {'±': '+-', '×': 'x', '…': '...', '–': '-', '’': "'"}
_ERRORS = 'gan_jax_spelt'


def _spell(error: UnicodeError) -> tuple[str, int]:
  """What stands for a letter that the encoding has not."""
  assert isinstance(error, UnicodeEncodeError)
  letter = error.object[error.start]
  text = _SPELT.get(letter) or ascii(letter)[1:-1]
  return text, error.start + 1


codecs.register_error(_ERRORS, _spell)


class _Sturdy:
  """A stream whose writes do not fail."""

  def __init__(self, stream: Any) -> None:
    self._stream = stream

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    try:
      self._stream.write(text)
    except (OSError, ValueError):  # of a pipe that was closed; of a closed file
      self._leave()
    return len(text)

  def writelines(self, lines: Any) -> None:
    for line in lines:
      self.write(line)

  def flush(self) -> None:
    try:
      self._stream.flush()
    except (OSError, ValueError):
      self._leave()

  def _leave(self) -> None:
    """Points the descriptor to nothing, for libraries and the end as well."""
    with contextlib.suppress(OSError, ValueError):
      nothing = os.open(os.devnull, os.O_WRONLY)
      os.dup2(nothing, self._stream.fileno())
      os.close(nothing)


def _open_descriptors() -> None:
  """Opens those of 0, 1 and 2 that are closed, before a file takes their place.

  What a library writes to standard error would go into that file.
  """
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      nothing = os.open(os.devnull, os.O_RDWR)
      if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)


@contextlib.contextmanager
def sturdy_streams() -> Iterator[None]:
  """While this is entered, no write to a standard stream fails."""
  before, opened = (sys.stdout, sys.stderr), contextlib.ExitStack()
  _open_descriptors()
  for name in ('stdout', 'stderr'):
    stream: Any = getattr(sys, name)
    if stream is None:  # its descriptor was closed
      nothing = open(os.devnull, 'w', encoding='utf-8')
      stream = opened.enter_context(nothing)
    if hasattr(stream, 'reconfigure'):
      stream.reconfigure(errors=_ERRORS)
    setattr(sys, name, _Sturdy(stream))
  try:
    yield
  finally:
    for stream in (sys.stdout, sys.stderr):
      stream.flush()
    sys.stdout, sys.stderr = before
    opened.close()


_names: dict[str, str] = {}


@contextlib.contextmanager
def renamed(text: str, name: str) -> Iterator[None]:
  """Within, what is told says a name in the place of a text."""
  _names[text] = name
  try:
    yield
  finally:
    del _names[text]


def rename(text: str) -> str:
  """A text with the names that are told in the place of others."""
  for before, name in list(_names.items()):  # of other threads, too
    text = text.replace(before, name)
  return text


def tell(text: str, stream: Any) -> None:
  """Prints a line to a stream, unless nobody can read it."""
  if stream is None:
    return
  text = rename(text)
  with contextlib.suppress(OSError, ValueError):
    try:
      print(text, file=stream, flush=True)
    except UnicodeEncodeError:
      encoding = getattr(stream, 'encoding', None) or 'ascii'
      print(
        text.encode(encoding, _ERRORS).decode(encoding), file=stream, flush=True
      )


__all__ = ['rename', 'renamed', 'sturdy_streams', 'tell']
