"""Event files: what TensorBoard's own protocol buffers and checksums say."""

import io
import os
import struct

import numpy as np
import PIL.Image
import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from gan_jax.runtime import event_file


def records(path):
  """The events of a file, whose checksums must be right."""
  content = path.read_bytes()
  while content:
    (length,) = struct.unpack('<Q', content[:8])
    event = content[12 : 12 + length]
    for part, at in ((content[:8], 8), (event, 12 + length)):
      (masked,) = struct.unpack('<I', content[at : at + 4])
      turned = (masked - 0xA282EAD8) & 0xFFFFFFFF
      assert (turned >> 17 | turned << 15) & 0xFFFFFFFF == crc32c(part)
    yield Event.FromString(event)
    content = content[16 + length :]


@pytest.fixture
def write(tmp_path):
  def write_events(*events):
    file = event_file.EventFile(tmp_path / 'events')
    for event in events:
      file.write(event)
    file.close()
    return [*records(tmp_path / 'events')]

  return write_events


@pytest.mark.parametrize('size', [0, 1, 511, 512, 5000, 60_001])
def test_checksums_are_those_of_tensorboard(size):
  content = os.urandom(size)
  assert event_file.crc32c(content) == crc32c(content)


def test_a_file_begins_and_hides_what_is_later(write):
  first, start = write(event_file.version(2.5), event_file.session(3.5, 300))
  assert first == Event(wall_time=2.5, file_version='brain.Event:2', step=0)
  log = SessionLog(status=SessionLog.START)
  assert start == Event(wall_time=3.5, step=300, session_log=log)


def test_numbers_are_there_by_tag(write):
  values = {'d/loss': 0.1, 'größe': -2.0, 'images': 10**7, 'speed': 1e300}
  (event,) = write(event_file.numbers(1.5, 2**40, values))
  assert (event.wall_time, event.step) == (1.5, 2**40)
  shown = {value.tag: value.simple_value for value in event.summary.value}
  assert shown == {
    'd/loss': np.float32(0.1),
    'größe': -2.0,
    'images': 1e7,
    'speed': np.inf,
  }


@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA'])
def test_a_picture_is_the_file_that_was_given(mode, write):
  buffer = io.BytesIO()
  PIL.Image.new(mode, (30, 20)).save(buffer, 'PNG')
  event = event_file.picture(1.0, 7, 'samples/ema', buffer.getvalue())
  (value,) = write(event)[0].summary.value
  image = value.image
  assert (image.width, image.height) == (30, 20)
  assert image.colorspace == len(PIL.Image.new(mode, (1, 1)).getbands())
  assert image.encoded_image_string == buffer.getvalue()
  assert value.tag == 'samples/ema'
