"""TensorBoard's event files: numbers and pictures of a run, by step.

A file is records of a length, its checksum, an event and its checksum; an event
is a protocol buffer of five fields. The writers that there are import PyTorch,
TensorFlow or the clients of clouds wherever they find them.
"""

import functools
import io
import pathlib
import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

# Numbers of fields, as tensorboard/compat/proto has them.
_TIME, _STEP, _VERSION, _SUMMARY, _SESSION = 1, 2, 3, 5, 7
_VALUE, _TAG, _NUMBER, _IMAGE = 1, 1, 2, 4
_HEIGHT, _WIDTH, _COLOURS, _ENCODED = 1, 2, 3, 4
_STATUS, _START = 1, 1
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by its type of colour
_LANE = 512  # bytes of a picture that are hashed one after another


def _varint(n: int) -> bytes:
  out = bytearray()
  while n > 127:
    out.append(n & 127 | 128)
    n >>= 7
  out.append(n)
  return bytes(out)


def _whole(field: int, n: int) -> bytes:
  return _varint(field << 3) + _varint(n)


def _bytes(field: int, content: bytes) -> bytes:
  return _varint(field << 3 | 2) + _varint(len(content)) + content


def _event(time: float, step: int, field: int, content: bytes) -> bytes:
  head = _varint(_TIME << 3 | 1) + struct.pack('<d', time)
  return head + _whole(_STEP, step) + _bytes(field, content)


def version(time: float) -> bytes:
  """The event that a file begins with."""
  return _event(time, 0, _VERSION, b'brain.Event:2')


def session(time: float, step: int) -> bytes:
  """The start of a process: what earlier files say from `step` on is hidden."""
  return _event(time, step, _SESSION, _whole(_STATUS, _START))


def numbers(time: float, step: int, values: Mapping[str, float]) -> bytes:
  """An event of numbers by tag, float32."""
  with np.errstate(over='ignore'):
    singles = np.array([*values.values()], np.float64).astype('<f4')
  summary = b''.join(
    _bytes(
      _VALUE,
      _bytes(_TAG, tag.encode()) + _varint(_NUMBER << 3 | 5) + x.tobytes(),
    )
    for tag, x in zip(values, singles, strict=True)
  )
  return _event(time, step, _SUMMARY, summary)


def picture(time: float, step: int, tag: str, png: bytes) -> bytes:
  """An event of one PNG file, as it is."""
  width, height, _, colour = struct.unpack('>IIBB', png[16:26])
  image = (
    _whole(_HEIGHT, height)
    + _whole(_WIDTH, width)
    + _whole(_COLOURS, _PNG_CHANNELS[colour])
    + _bytes(_ENCODED, png)
  )
  value = _bytes(_TAG, tag.encode()) + _bytes(_IMAGE, image)
  return _event(time, step, _SUMMARY, _bytes(_VALUE, value))


class EventFile:
  """An event file that is written to, record after record."""

  def __init__(self, path: pathlib.Path) -> None:
    """Opens a new file."""
    self._file: io.BufferedWriter = open(path, 'wb')

  def write(self, event: bytes) -> None:
    """Adds a record."""
    length = struct.pack('<Q', len(event))
    for part in (length, event):
      self._file.write(part)
      self._file.write(struct.pack('<I', _masked(crc32c(part))))

  def flush(self) -> None:
    """Hands everything to the operating system."""
    self._file.flush()

  def close(self) -> None:
    """Writes out what is buffered."""
    self._file.close()


def _masked(crc: int) -> int:
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# CRC-32C, the checksum of Castagnoli: zlib's is of another polynomial.


@functools.cache
def _table() -> NDArray[np.uint32]:
  crc: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    crc = crc >> np.uint32(1) ^ (crc & np.uint32(1)) * np.uint32(0x82F63B78)
  return crc


@functools.cache
def _over_zeros() -> list[list[int]]:
  """What a lane of zeros makes of each byte of a checksum, four tables."""
  crc = np.stack([np.arange(256, dtype=np.uint32) << n for n in (0, 8, 16, 24)])
  for _ in range(_LANE):
    crc = _table()[crc & 255] ^ crc >> 8
  tables: list[list[int]] = crc.tolist()
  return tables


def crc32c(content: bytes) -> int:
  """CRC-32C.

  >>> hex(crc32c(b'123456789'))
  '0xe3069283'
  """
  crc, lanes = 0xFFFFFFFF, len(content) // _LANE
  if lanes > 8:  # side by side, and then joined: it is linear
    rows = np.frombuffer(content, np.uint8, lanes * _LANE)
    rows = rows.reshape(lanes, _LANE).T.astype(np.uint32)
    parts, table = np.zeros(lanes, np.uint32), _table()
    for row in rows:
      parts = table[(parts ^ row) & 255] ^ parts >> 8
    a, b, c, d = _over_zeros()
    for part in parts.tolist():
      crc = a[crc & 255] ^ b[crc >> 8 & 255] ^ c[crc >> 16 & 255] ^ d[crc >> 24]
      crc ^= part
    content = content[lanes * _LANE :]
  steps: list[int] = _table().tolist()
  for byte in content:
    crc = steps[(crc ^ byte) & 255] ^ crc >> 8
  return crc ^ 0xFFFFFFFF
