"""Original files of MNIST and CIFAR-10: read as written, named when bad."""

import gzip
import zlib

import numpy as np
import pytest
from helpers.originals import TAR, draw, idx, records, write_idx, write_tar

from gan_jax import data
from gan_jax.data import builders


@pytest.mark.parametrize('shape', [(7,), (3, 28, 28), (0, 2)])
def test_read_idx_reads_what_was_written(shape, tmp_path):
  values = draw(*shape)
  write_idx(tmp_path / 'a.gz', values)
  found = builders.read_idx(tmp_path / 'a.gz')
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, values)


def _bad_idx():
  good = idx(draw(50, 28, 28))
  packed = gzip.compress(good)
  damaged = bytearray(packed)
  damaged[len(packed) // 2] ^= 255
  invalid = packed[:10] + b'\xff' + packed[11:]  # no such kind of block
  yield 'gzip cut short', packed[: len(packed) // 2]
  yield 'gzip without its end', packed[:-4]
  yield 'damaged gzip', bytes(damaged)
  yield 'invalid deflate', invalid
  yield 'damaged checksum', packed[:-8] + b'abcdefgh'
  yield 'no gzip', good
  yield 'nothing', b''
  yield 'empty gzip', gzip.compress(b'')
  yield 'pixels cut short', gzip.compress(good[:-1])
  yield 'pixels to spare', gzip.compress(good + b'x')
  yield 'header cut short', gzip.compress(good[:6])
  yield 'wrong magic', gzip.compress(b'\x01' + good[1:])
  yield 'not of bytes', gzip.compress(good[:2] + b'\x0d' + good[3:])


@pytest.mark.parametrize(
  'content', [pytest.param(c, id=name) for name, c in _bad_idx()]
)
def test_read_idx_names_a_bad_file(content, tmp_path):
  (tmp_path / 'bad.gz').write_bytes(content)
  with pytest.raises(data.DataError, match=r'bad\.gz: .*copy it again'):
    builders.read_idx(tmp_path / 'bad.gz')


def test_read_cifar_reads_the_batches(tmp_path):
  one, two = records(2, 0), records(3, 5)
  files = {'a.bin': one.tobytes(), 'x.txt': b'text', 'b.bin': two.tobytes()}
  write_tar(tmp_path / TAR, files)
  found = dict(builders.read_cifar(tmp_path / TAR))
  assert list(found) == ['a.bin', 'b.bin']
  np.testing.assert_array_equal(found['a.bin'], one)
  np.testing.assert_array_equal(found['b.bin'], two)


def _bad_tar(path):
  write_tar(path, {'a.bin': records(40, 0).tobytes()})
  good = path.read_bytes()
  half = len(good) // 2
  plain = zlib.decompressobj(31).decompress(good)
  packer = zlib.compressobj(wbits=31)
  begun = packer.compress(plain[: len(plain) // 2])
  begun += packer.flush(zlib.Z_FULL_FLUSH)  # a byte's edge: a block begins
  write_tar(path, {'a.bin': records(2, 0).tobytes()[:-1]})
  yield from (b'', b'no archive', good[:half], begun + b'\xff' * 999)
  yield path.read_bytes()


@pytest.mark.parametrize('kind', range(5))
def test_read_cifar_names_a_bad_file(kind, tmp_path):
  bad = list(_bad_tar(tmp_path / TAR))[kind]
  (tmp_path / TAR).write_bytes(bad)
  with pytest.raises(data.DataError, match=rf'(?s){TAR}: .*copy it again'):
    list(builders.read_cifar(tmp_path / TAR))
