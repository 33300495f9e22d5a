"""Files that were made to do harm, or were damaged at random.

Each is read or refused with a message; nothing but arrays is made, no byte that
is not the file's is seen, and memory is bounded.
"""

import contextlib
import gzip
import json
import os
import pathlib
import re
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from helpers import hostile
from helpers.hostile import state, tensor, text, zipped

from gan_jax.data import builders
from gan_jax.features import torch_file
from gan_jax.runtime import archives
from gan_jax.runtime.errors import DataError

HUGE = 1 << 40


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'a.pth'


@pytest.mark.parametrize('make', [zipped, hostile.old])
def test_parts_of_storages_are_copied(make, path):
  path.write_bytes(make(hostile.whole_state()))
  found = torch_file.read(path)
  x = np.arange(6, dtype=np.float32)
  np.testing.assert_array_equal(found['a'], x.reshape(2, 3))
  np.testing.assert_array_equal(found['b'], [[1, 4], [2, 5]])
  np.testing.assert_array_equal(found['c'], np.arange(4))
  assert found['c'].dtype == np.int64
  for array in found.values():
    assert type(array) is np.ndarray and array.base is None
  found['a'][:] = 0
  assert found['b'].any()


def nested(depth):
  """Tuples in tuples, each twice: to hash the outermost takes 2^depth."""
  pairs = b''.join(
    b'q' + bytes([i]) + b'h' + bytes([i]) + b'\x86' for i in range(depth)
  )
  return b'\x80\x02})' + pairs + b'K\x01s.'


A_TENSOR = tensor('0', 6)
A_LIST = b'](' + b'K\x01' * 1000 + b'eq\x00'
HOSTILE_PICKLES = {
  # Views of memory that is not theirs.
  'a view that repeats': (state(a=tensor('0', 6, 0, (7,), (0,))), 'repeats'),
  'a huge view': (state(a=tensor('0', 6, 0, (HUGE,), (0,))), 'repeats'),
  'a view past the end': (state(a=tensor('0', 6, 5, (2,), (1,))), 'exceeds'),
  'a long stride': (state(a=tensor('0', 6, 0, (2,), (HUGE,))), 'exceeds'),
  'a negative stride': (state(a=tensor('0', 6, 5, (2,), (-1,))), 'no|without'),
  'a negative offset': (state(a=tensor('0', 6, -1, (2,), (1,))), 'without'),
  'an offset past the end': (state(a=tensor('0', 6, 9, (0,), (1,))), 'exceeds'),
  'a product that wraps': (
    state(a=tensor('0', 6, 0, (2**32, 2**32), (0, 0))),
    'repeats',
  ),
  'too many dimensions': (state(a=tensor('0', 6, 0, (1,) * 99)), 'a shape'),
  'strides of another shape': (
    state(a=tensor('0', 6, 0, (2, 3), (1,))),
    'another stride',
  ),
  # Sizes that lie.
  'a storage that is larger': (state(a=tensor('0', 7)), 'cut short'),
  'a storage that is smaller': (state(a=tensor('0', 5)), 'has 24 bytes'),
  'a huge storage': (state(a=tensor('0', HUGE)), 'exceed the file'),
  'a storage of no size': (state(a=tensor('0', -1)), 'no size'),
  'a storage of two sizes': (
    state(a=tensor('0', 6), b=tensor('0', 6, kind='IntStorage')),
    'two sizes',
  ),
  # Anything that is no tensor.
  'BUILD of a tensor': (
    b'\x80\x02}' + text('a') + A_TENSOR + b'(K\x01K\x02tbs.',
    'attributes of what is no dict',
  ),
  'BUILD of a name': (b'\x80\x02ctorch\nFloatStorage\n}b.', 'no dict'),
  'a call of a storage': (
    b'\x80\x02ctorch\nFloatStorage\n)R.',
    'asks for torch.FloatStorage',
  ),
  'a call of a tensor': (b'\x80\x02' + A_TENSOR + b')R.', 'no name'),
  'a new object': (b'\x80\x02ccollections\nOrderedDict\n)\x81.', 'NEWOBJ'),
  'os.system': (b'cos\nsystem\n(X\x04\0\0\0exittR.', 'asks for os.system'),
  'os.system, INST': (b'(X\x04\0\0\0exitios\nsystem\n.', 'INST'),
  'os.system, protocol 4': (
    b'\x80\x04\x8c\x02os\x8c\x06system\x93.',
    'asks for os.system',
  ),
  'a name in a name': (
    b'\x80\x04\x8c\x0ctorch._utils\x8c\x0f__init__.system\x93.',
    'asks for torch._utils.__init__.system',
  ),
  'an extension': (b'\x80\x02\x82\x01.', 'EXT1'),
  # Time and memory without end.
  'a memo of 2^31': (b'\x80\x02]r' + b'\xff\xff\xff\x7f.', 'no state dict'),
  'a tuple without end': (nested(60), 'no text or number'),
  'a long text': (b'\x80\x02X\xff\xff\xff\xffabc.', 'bytes|expected'),
  'a long bytes': (b'\x80\x04\x8e' + b'\xff' * 8 + b'.', 'bytes|expected'),
  'one list many times': (
    b'\x80\x02'
    + A_LIST
    + (b'0' * 0 + b'ccollections\nOrderedDict\nh\x00\x85R') * 3000
    + b'.',
    'instructions|unpack|iterable',
  ),
  'no end': (b'\x80\x02}', 'bytes|exhausted|STOP'),
  'nothing on the stack': (b'\x80\x02.', 'empty'),
  'a mark taken for a value': (b'\x80\x02(.', 'out of order'),
}


@pytest.mark.parametrize('name', HOSTILE_PICKLES)
@pytest.mark.parametrize('make', [zipped, hostile.old])
def test_hostile_pickles(make, name, path):
  program, reason = HOSTILE_PICKLES[name]
  path.write_bytes(make(program))
  if make is hostile.old:  # in which other instructions follow
    reason += '|another size|no state dict'
  with pytest.raises(DataError, match=reason):
    torch_file.read(path)


def test_instructions_are_counted(path, monkeypatch):
  monkeypatch.setattr(torch_file, 'OPERATIONS', 1000)
  pair = b'X\x01\0\0\0aK\x01\x86'
  call = b'ccollections\nOrderedDict\nh\x00\x85R'
  pairs = b'\x80\x02](' + pair * 99 + b'eq\x00'
  path.write_bytes(zipped(pairs + call + b'.'))
  assert torch_file.read(path) == {}
  for program in (b'\x80\x02' + b']' * 1001 + b'.', pairs + call * 9 + b'.'):
    path.write_bytes(zipped(program))
    with pytest.raises(DataError, match='more than 1,000 instructions'):
      torch_file.read(path)


def test_tensors_have_no_more_than_a_few_times_the_file(path):
  """Of a storage of 6,000, parts that all differ."""
  storages = {'0': np.zeros(6000, np.float32).tobytes()}
  parts = {f'x{i}': tensor('0', 6000, i, (5900,)) for i in range(100)}
  path.write_bytes(zipped(state(**parts), storages))
  with pytest.raises(DataError, match='more than 4 times its size'):
    torch_file.read(path)
  same = {f'x{i}': tensor('0', 6000) for i in range(100)}
  path.write_bytes(zipped(state(**same), storages))
  assert len({id(x) for x in torch_file.read(path).values()}) == 1


def test_a_pickle_of_another_size_than_weights_have(path):
  content = zipped(b'\x80\x02' + b'}0' * (torch_file.PICKLE_BYTES // 2) + b'.')
  path.write_bytes(content)
  with pytest.raises(DataError, match='data.pkl has 16,777,219 bytes'):
    torch_file.read(path)


def test_one_storage_under_many_names(path):
  """Entries of an archive that overlap, or unpack to more than there is."""
  storages = {str(i): bytes(4 << 16) for i in range(40)}
  parts = {f'x{i}': tensor(str(i), 1 << 16) for i in range(40)}
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('archive/data.pkl', state(**parts))
    for key, content in storages.items():
      archive.writestr(f'archive/data/{key}', content)
  with pytest.raises(DataError, match='exceed|times its size'):
    torch_file.read(path)


def encrypt(content):
  """The same archive, said to be encrypted."""
  data = bytearray(content)
  for found in re.finditer(rb'PK\x03\x04', content):
    data[found.start() + 6] |= 1
  for found in re.finditer(rb'PK\x01\x02', content):
    data[found.start() + 8] |= 1
  return bytes(data)


def test_encrypted_archives_are_named(path, tmp_path):
  path.write_bytes(encrypt(zipped(hostile.whole_state())))
  with pytest.raises(DataError, match=r'a\.pth: .*encrypted: give the file'):
    torch_file.read(path)
  other = tmp_path / 'a.npz'
  other.write_bytes(encrypt(hostile.npz(hostile.npy(np.eye(3)))))
  with pytest.raises(DataError, match=r'a\.npz: .*encrypted'):
    archives.read_arrays(other)


@pytest.mark.parametrize('make', [zipped, hostile.old])
def test_a_weight_file_cut_short_anywhere(make, path):
  content = make(hostile.whole_state())
  for end in range(0, len(content), 7):
    path.write_bytes(content[:end])
    with pytest.raises(DataError, match=r'a\.pth'):
      torch_file.read(path)


def test_bytes_that_are_no_truth_values(path):
  mask = tensor('0', 3, kind='BoolStorage')
  path.write_bytes(zipped(state(a=mask), {'0': b'\x00\x02\xff'}))
  found = torch_file.read(path)['a']
  assert found.tobytes() == b'\x00\x01\x01'


# Archives of arrays.


@contextlib.contextmanager
def traced_memory(most):
  """Bytes that may be allocated at once within."""
  tracemalloc.start()
  try:
    yield
    assert tracemalloc.get_traced_memory()[1] < most
  finally:
    tracemalloc.stop()


def header(shape, dtype='<f8'):
  """An array's file that holds no more than what it says of itself."""
  said = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"
  said = said.ljust(117) + '\n'
  return b'\x93NUMPY\x01\x00' + len(said).to_bytes(2, 'little') + said.encode()


@pytest.mark.parametrize(
  'member, reason',
  [
    (header((HUGE,)), 'in 128 bytes'),
    (header((-1, -5)), 'in 128|negative|shape'),
    (header((2**63, 2)), 'in 128 bytes'),
    (header((0, 2**63)), r'dimension|too big|maximum|array'),
    (header((1,), '|O') + b'cos\nsystem\n.', 'holds objects'),
    (header((2,)) + bytes(17), 'in 145 bytes'),
    (header('__import__("os").system("exit")'), 'malformed'),
    (b'cos\nsystem\n(X\x04\0\0\0exittR.', 'magic'),
    (b'', 'magic|EOF|reading'),
  ],
)
def test_hostile_arrays(member, reason, tmp_path):
  path = tmp_path / 'a.npz'
  path.write_bytes(hostile.npz(member))
  with traced_memory(1 << 22):
    with pytest.raises(archives.ArchiveError, match=reason):
      archives.read_arrays(path)


def test_an_archive_that_unpacks_to_far_more_than_its_size(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(archives, 'FLOOR', 1 << 20)
  path = tmp_path / 'a.npz'
  blank = hostile.npy(np.zeros(1 << 21, np.uint8))
  path.write_bytes(hostile.npz(blank, zipfile.ZIP_DEFLATED))
  with pytest.raises(DataError, match=r'unpacks to 2,097,280 bytes, more than'):
    archives.read_arrays(path)
  monkeypatch.setattr(archives, 'FLOOR', 1 << 22)
  assert archives.read_arrays(path)['x'].shape == (1 << 21,)


def test_an_idx_file_that_unpacks_to_far_more(tmp_path, monkeypatch):
  monkeypatch.setattr(archives, 'FLOOR', 1 << 16)
  path = tmp_path / 'a.gz'
  path.write_bytes(gzip.compress(hostile.idx() + bytes(1 << 20)))
  with pytest.raises(DataError, match='more than 65,536|more than 1'):
    builders.read_idx(path)
  wrapped = b'\0\0\x08\x04' + (2**16).to_bytes(4, 'big') * 4
  path.write_bytes(gzip.compress(wrapped))
  with pytest.raises(DataError, match='header says'):
    builders.read_idx(path)


def png_with(chunk, content):
  """An image with one more chunk, whose checksum is right."""
  data = hostile.picture('PNG')
  at = data.index(b'IDAT') - 4
  body = chunk + content
  crc = zlib.crc32(body).to_bytes(4, 'big')
  return data[:at] + len(content).to_bytes(4, 'big') + body + crc + data[at:]


@pytest.mark.parametrize(
  'chunk, head',
  [
    (b'zTXt', b'note\0\0'),
    (b'iTXt', b'note\0\1\0\0\0'),
    (b'iCCP', b'note\0\0'),
  ],
)
def test_text_in_an_image_that_unpacks_to_far_more(chunk, head, tmp_path):
  path = tmp_path / 'a.png'
  path.write_bytes(png_with(chunk, head + zlib.compress(bytes(1 << 25))))
  with traced_memory(1 << 24), warnings.catch_warnings():
    warnings.simplefilter('ignore')
    try:
      hostile.read_picture(path)
    except DataError as error:
      assert 'a.png' in str(error)


# At random.


def test_mutated_files_are_read_or_refused(tmp_path):
  found = hostile.read_mutants(1, 480, tmp_path)
  assert sum(found.values()) == 480
  for name in hostile.KINDS:
    assert found.get(f'{name}: refused', 0) > 5, name
  assert sum(n for name, n in found.items() if name.endswith('read')) > 50


@pytest.mark.soak
def test_ten_thousand_mutated_files(tmp_path):
  """In a process of its own: no crash, no read beyond, memory limited."""
  run = subprocess.run(
    [sys.executable, '-m', 'helpers.hostile', '2', '10000'],
    cwd=pathlib.Path(__file__).parents[1],
    env={**os.environ, 'TMPDIR': str(tmp_path)},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert run.returncode == 0, run.stderr[-2000:]
  found = json.loads(run.stdout)
  assert sum(found.values()) == 10_000
  for name in hostile.KINDS:
    assert found[f'{name}: refused'] > 100 and found[f'{name}: read'] > 5, name
