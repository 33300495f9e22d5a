"""Files that are verified when read: JSON, lines of a log, arrays, pictures.

A flipped bit turns one number into another that reads as well as the first.
Each record of JSON holds the CRC-32 of the rest of it, under `crc32`; one that
was written by hand and has none is taken as it is.
"""

import io
import json
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gan_jax.runtime.files import open_atomic, write_atomic

Record = dict[str, Any]
_SEAL = 'crc32'
_NAMED = 3  # damaged lines of one file that are named


class DamagedRecord(ValueError):
  """What was read is not what was written."""


def _checksum(record: Mapping[str, Any]) -> str:
  text = json.dumps(record, sort_keys=True)
  return f'{zlib.crc32(text.encode()):08x}'


def _sealed(record: Mapping[str, Any]) -> Record:
  plain: Record = json.loads(json.dumps(record))
  return {**plain, _SEAL: _checksum(plain)}


def parse(content: bytes) -> Record:
  """A record.

  >>> parse(b'{"step": 1}')
  {'step': 1}
  >>> parse(b'{"step": 2, "crc32": "00000000"}')
  Traceback (most recent call last):
  ...
  gan_jax.runtime.records.DamagedRecord: it does not have its checksum

  Raises:
    DamagedRecord: if it is none, or not the one that was written.
  """
  try:
    record = json.loads(content.decode('utf-8'))
  except (ValueError, RecursionError) as error:
    raise DamagedRecord(str(error)) from error
  if not isinstance(record, dict):
    raise DamagedRecord(f'a {type(record).__name__} in the place of a record')
  if _SEAL in record:
    if record.pop(_SEAL) != _checksum(record):
      raise DamagedRecord('it does not have its checksum')
  elif record:
    *rest, (_, last) = record.items()
    if last == _checksum(dict(rest)):  # only the name of the seal is damaged
      return dict(rest)
  return record


def format_line(record: Mapping[str, Any]) -> str:
  """A record as a line of a log."""
  return json.dumps(_sealed(record)) + '\n'


def write(
  path: pathlib.Path, record: Mapping[str, Any], indent: int | None = 2
) -> None:
  """Writes a record as a file, in one step."""
  write_atomic(path, json.dumps(_sealed(record), indent=indent) + '\n')


def read(path: pathlib.Path) -> Record | None:
  """The record of a file; None if there is no file.

  Raises:
    DamagedRecord: if it is damaged, or cannot be read.
  """
  if not path.exists():
    return None
  try:
    content = path.read_bytes()
  except OSError as error:
    raise DamagedRecord(error.strerror or str(error)) from error
  return parse(content)


def read_arrays(
  path: pathlib.Path, names: Sequence[str] = ()
) -> dict[str, Any]:
  """The arrays of an `.npz` file, which has checksums of its own.

  Args:
    path: of the file.
    names: arrays that it must have.

  Raises:
    DamagedRecord: if it cannot be read.
  """
  from gan_jax.runtime import archives  # late: `--help` needs the rest of this

  try:
    arrays = archives.read_arrays(path)
  except archives.ArchiveError as error:
    raise DamagedRecord(error.reason) from error
  except OSError as error:
    raise DamagedRecord(str(error)) from error
  missing = [name for name in names if name not in arrays]
  if missing:
    raise DamagedRecord(f'no {", ".join(missing)}')
  return arrays


def read_png(path: pathlib.Path) -> bytes:
  """The content of a picture, once it has been decoded.

  Raises:
    DamagedRecord: if it cannot be.
  """
  import PIL.Image

  try:
    content = path.read_bytes()
    with PIL.Image.open(io.BytesIO(content)) as picture:
      picture.verify()
    with PIL.Image.open(io.BytesIO(content)) as picture:
      picture.load()
  except Exception as error:  # PIL raises many kinds
    first = (str(error) or repr(error)).splitlines()[0][:200]
    raise DamagedRecord(first.replace(str(path), path.name)) from error
  return content


def read_lines(
  path: pathlib.Path, names: Sequence[str] = ('step',)
) -> tuple[list[Record], dict[int, str]]:
  """The records of a log, and what is wrong with its damaged lines.

  A last line without its end was cut short by a kill, and is no damage.

  Args:
    path: of the log.
    names: what every record has; its step is a number or null.

  Returns:
    The records, and reasons by the number of a damaged line.
  """
  damaged: dict[int, str] = {}
  return list(scan_lines(path, damaged, names)), damaged


def scan_lines(
  path: pathlib.Path,
  damaged: dict[int, str],
  names: Sequence[str] = ('step',),
) -> Iterator[Record]:
  """As `read_lines`, one record after another: a log may be of any length.

  Args:
    path: of the log.
    damaged: gets the reasons by the number of a damaged line.
    names: what every record has.
  """
  for _, row in _scan(path, damaged, names):
    yield row


def _scan(
  path: pathlib.Path, damaged: dict[int, str], names: Sequence[str] = ('step',)
) -> Iterator[tuple[bytes, Record]]:
  """Lines and their records."""
  if not path.is_file():
    return
  with open(path, 'rb') as file:
    for number, line in enumerate(file, 1):
      if not line.endswith(b'\n'):
        return
      try:
        row = parse(line)
        missing = [name for name in names if name not in row]
        if missing or not isinstance(row['step'], int | float | None):
          raise DamagedRecord(f'no {", ".join(missing) or "step"}')
      except DamagedRecord as error:
        damaged[number] = str(error)
      else:
        yield line, row


def cut_lines(
  path: pathlib.Path, last_step: float, damaged: dict[int, str]
) -> float:
  """Drops the records of a log after a step, and the damaged ones.

  Args:
    path: of the log, which is written again in one step.
    last_step: the last one that is kept.
    damaged: as `scan_lines` takes it.

  Returns:
    The newest step that is left; 0 for none.
  """
  newest = 0.0
  with open_atomic(path) as file:
    for line, row in _scan(path, damaged):
      if row['step'] is not None and row['step'] <= last_step:
        newest = max(newest, row['step'])
        sealed = f'"{_SEAL}": ' in line.decode()
        file.write(line if sealed else format_line(row).encode())
  return newest


def describe_damage(path: pathlib.Path, damaged: Mapping[int, str]) -> str:
  """A line for the user about the damaged lines of a log.

  >>> describe_damage(pathlib.Path('a.jsonl'), {7: 'no step'})
  'a.jsonl: line 7 is damaged (no step) and left out'
  """
  named = ', '.join(map(str, [*damaged][:_NAMED]))
  more = len(damaged) - _NAMED
  named += f' and {more} more' if more > 0 else ''
  reason = next(iter(damaged.values()))
  noun, verb = ('line', 'is') if len(damaged) == 1 else ('lines', 'are')
  return f'{path}: {noun} {named} {verb} damaged ({reason}) and left out'
