"""Sealed JSON, lines, arrays and pictures: no damage reads as a value."""

import io
import json

import numpy as np
import PIL.Image
import pytest

from gan_jax.runtime import records
from gan_jax.runtime.records import DamagedRecord

ROW = {'step': 12, 'd/loss': 0.1 + 0.2, 'none': None, 'list': [1, 'é']}


def flips(content):
  """The content with each of its bits flipped in turn."""
  for i in range(len(content)):
    for bit in range(8):
      yield content[:i] + bytes([content[i] ^ 1 << bit]) + content[i + 1 :]


def test_a_flipped_bit_never_reads_as_another_value():
  line = records.format_line(ROW).encode()
  assert records.parse(line) == ROW
  noticed = 0
  for damaged in flips(line.rstrip(b'\n')):
    try:
      found = records.parse(damaged)
    except DamagedRecord:
      noticed += 1
      continue
    assert found == ROW  # a flip in the name of the seal
  assert noticed > 7 * len(line)


def test_a_file_is_what_was_written(tmp_path):
  path = tmp_path / 'run.json'
  assert records.read(path) is None
  records.write(path, {**ROW, 'nan': float('nan'), 'tuple': (1, 2)})
  found = records.read(path)
  assert found.pop('nan') != 0 and found.pop('tuple') == [1, 2]
  assert found == ROW
  assert json.loads(path.read_text())['step'] == 12  # it is plain JSON
  path.write_text('{"step": 3}')  # by hand
  assert records.read(path) == {'step': 3}
  path.write_text(path.read_text().replace('3', 'null'))
  assert records.read(path) == {'step': None}


@pytest.mark.parametrize(
  'content',
  [b'', b'null', b'[]', b'7', b'{', b'\x00' * 9, b'\xff{}', b'[' * 100_000],
)
def test_what_is_no_record_is_damaged(content, tmp_path):
  path = tmp_path / 'run.json'
  path.write_bytes(content)
  with pytest.raises(DamagedRecord):
    records.read(path)


def test_a_folder_in_the_place_of_a_file_is_damage(tmp_path):
  with pytest.raises(DamagedRecord):
    records.read(tmp_path)


def test_damaged_lines_are_left_out_and_named(tmp_path):
  path = tmp_path / 'stats.jsonl'
  assert records.read_lines(path) == ([], {})
  good = [records.format_line({'step': i}).encode() for i in range(4)]
  bad = [b'\n', b'\x00\x00\n', b'\xff\xfe\n', b'{"x": 1}\n', b'{"step": "1"}\n']
  mixed = [good[0], *bad, good[1], good[2].replace(b'2', b'3', 1), good[3]]
  path.write_bytes(b''.join(mixed) + b'{"step": 9}')
  rows, damaged = records.read_lines(path)
  assert [row['step'] for row in rows] == [0, 1, 3]
  assert [*damaged] == [2, 3, 4, 5, 6, 8]
  text = records.describe_damage(path, damaged)
  assert f'{path}: lines 2, 3, 4 and 3 more are damaged (' in text


def test_arrays_and_pictures_are_whole_or_damaged(tmp_path):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(20, 2)).astype(np.float32)
  buffer, picture = io.BytesIO(), io.BytesIO()
  np.savez_compressed(buffer, x=x)
  pixels = rng.integers(0, 256, (9, 9, 3), np.uint8)
  PIL.Image.fromarray(pixels).save(picture, 'png')
  path = tmp_path / 'file'
  path.write_bytes(buffer.getvalue())
  np.testing.assert_array_equal(records.read_arrays(path, ['x'])['x'], x)
  with pytest.raises(DamagedRecord, match='no grid'):
    records.read_arrays(path, ['x', 'grid'])
  noticed = 0
  for damaged in [*flips(buffer.getvalue())][::23]:
    path.write_bytes(damaged)
    try:
      np.testing.assert_array_equal(records.read_arrays(path, ['x'])['x'], x)
    except DamagedRecord:
      noticed += 1
  assert noticed > 20
  path.write_bytes(picture.getvalue())
  assert records.read_png(path) == picture.getvalue()
  for damaged in (b'', picture.getvalue()[:-30], b'\x00' * 99):
    path.write_bytes(damaged)
    with pytest.raises(DamagedRecord):
      records.read_png(path)
