"""Small original files as MNIST and CIFAR-10 have them."""

import gzip
import io
import struct
import tarfile

import numpy as np

IDX = (
  'train-images-idx3-ubyte.gz',
  'train-labels-idx1-ubyte.gz',
  't10k-images-idx3-ubyte.gz',
  't10k-labels-idx1-ubyte.gz',
)

TAR = 'cifar-10-binary.tar.gz'


def draw(*shape, seed=0, top=256):
  return np.random.default_rng(seed).integers(0, top, shape, np.uint8)


def idx(values):
  header = struct.pack('>HBB', 0, 8, values.ndim)
  sizes = struct.pack(f'>{values.ndim}I', *values.shape)
  return header + sizes + values.tobytes()


def write_idx(path, values):
  with gzip.open(path, 'wb') as file:
    file.write(idx(values))


def records(n, seed):
  """n records of CIFAR-10: a label and 3072 values."""
  return np.concatenate(
    [draw(n, 1, seed=seed, top=10), draw(n, 3072, seed=seed + 1)], axis=1
  )


def write_tar(path, files):
  with tarfile.open(path, 'w:gz') as archive:
    for name, content in files.items():
      member = tarfile.TarInfo(f'cifar-10-batches-bin/{name}')
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
