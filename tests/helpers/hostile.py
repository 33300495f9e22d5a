"""Damaged and hostile files, from a seed: `python -m helpers.hostile SEED N`.

Run so, in a process of its own whose memory is limited, it reads N mutated
files and prints how many were read and refused, by kind. A file that is read
has every byte of its arrays looked at.
"""

import collections
import gzip
import io
import json
import pathlib
import resource
import struct
import sys
import tempfile
import warnings
import zipfile

import numpy as np
import PIL.Image
from PIL.PngImagePlugin import PngInfo

from gan_jax.data import builders, reading
from gan_jax.data.pictures import MEGAPIXELS
from gan_jax.features import torch_file
from gan_jax.runtime import archives
from gan_jax.runtime.errors import DataError

MEMORY = 3 << 30  # of address space; TFDS alone has more than one


def tensor(key, count, offset=0, size=None, stride=None, kind='FloatStorage'):
  """Instructions that write down a tensor."""
  size = (count,) if size is None else size
  stride = (1,) * len(size) if stride is None else stride
  return b''.join(
    [
      b'ctorch._utils\n_rebuild_tensor_v2\n((',
      text('storage'),
      f'ctorch\n{kind}\n'.encode(),
      text(key),
      text('cpu'),
      number(count),
      b'tQ',
      number(offset),
      b'(' + b''.join(map(number, size)) + b't',
      b'(' + b''.join(map(number, stride)) + b't',
      b'\x89Nt',
      b'R',
    ]
  )


def text(value):
  data = value.encode()
  return b'X' + struct.pack('<I', len(data)) + data


def number(value):
  data = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
  return b'\x8a' + bytes([len(data)]) + data


def state(**tensors):
  """A pickle of a state dict."""
  items = b''.join(text(name) + body for name, body in tensors.items())
  return b'\x80\x02ccollections\nOrderedDict\n)R(' + items + b'u.'


def whole_state():
  return state(
    a=tensor('0', 6, 0, (2, 3), (3, 1)),
    b=tensor('0', 6, 1, (2, 2), (1, 3)),
    c=tensor('1', 4, kind='LongStorage'),
  )


STORAGES = {
  '0': np.arange(6, dtype=np.float32).tobytes(),
  '1': np.arange(4).tobytes(),
}


def zipped(program, storages=STORAGES):
  """A weight file as PyTorch writes it since 1.6."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    archive.writestr('archive/data.pkl', program)
    for key, content in storages.items():
      archive.writestr(f'archive/data/{key}', content)
  return buffer.getvalue()


def old(program):
  """The same as PyTorch wrote it before."""
  head = number(0x1950A86A20F9469CFC6C), number(1001), b'}'
  parts = [b'\x80\x02' + value + b'.' for value in head]
  parts += [program, b'\x80\x02](' + text('0') + text('1') + b'e.']
  parts += [struct.pack('<q', 6), STORAGES['0']]
  parts += [struct.pack('<q', 4), STORAGES['1']]
  return b''.join(parts)


def npy(array):
  buffer = io.BytesIO()
  np.save(buffer, array)
  return buffer.getvalue()


def npz(member, compression=zipfile.ZIP_STORED):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', compression) as archive:
    archive.writestr('x.npy', member)
  return buffer.getvalue()


def idx(shape=(3, 4, 4)):
  pixels = np.arange(np.prod(shape)).astype(np.uint8)
  return struct.pack(f'>HBB{len(shape)}I', 0, 8, 3, *shape) + pixels.tobytes()


def picture(kind):
  """An image with text, orientation and a colour profile."""
  pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
  image, buffer, notes = PIL.Image.fromarray(pixels), io.BytesIO(), PngInfo()
  exif = image.getexif()
  exif[0x0112], exif[0x8298] = 6, 'nobody'
  notes.add_text('note', 'a' * 200, zip=True)
  notes.add_itxt('title', 'b' * 99, zip=True)
  more = {'pnginfo': notes} if kind == 'PNG' else {}
  image.save(buffer, kind, exif=exif, icc_profile=b'\0' * 140, **more)
  return buffer.getvalue()


def read_picture(path):
  """An image file as a folder reads it: looked at, then decoded."""
  looks, faults = reading.look([str(path)], MEGAPIXELS)
  if faults:
    raise DataError(f'{path}: {faults[0]}')
  images = reading.decode([str(path)], looks['hash'], 4, 3)
  if isinstance(images, reading.Unreadable):
    raise DataError(f'{images.path}: {images.why}')
  return images[0]


# What is mutated, and what is then made of it; and the reader.
KINDS = {
  'zip': (zipped(whole_state()), bytes, torch_file.read),
  'zip, its pickle': (whole_state(), zipped, torch_file.read),
  'old': (old(whole_state()), bytes, torch_file.read),
  'old, its pickle': (whole_state(), old, torch_file.read),
  'npz': (npz(npy(np.eye(5))), bytes, archives.read_arrays),
  'npz, its array': (npy(np.eye(5)), npz, archives.read_arrays),
  'npz, deflated': (
    npz(npy(np.eye(5)), zipfile.ZIP_DEFLATED),
    bytes,
    archives.read_arrays,
  ),
  'idx': (gzip.compress(idx()), bytes, builders.read_idx),
  'idx, its array': (idx(), gzip.compress, builders.read_idx),
  'PNG': (picture('PNG'), bytes, read_picture),
  'JPEG': (picture('JPEG'), bytes, read_picture),
  'WebP': (picture('WebP'), bytes, read_picture),
}
EDGES = (0, 1, 127, 128, 255)
LARGE = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


def mutate(content, rng):
  """One to four changes to some bytes."""
  data = bytearray(content)
  for _ in range(rng.integers(1, 5)):
    if not data:
      break
    at = int(rng.integers(len(data)))
    length = int(rng.integers(1, 9))
    match rng.integers(7):
      case 0:
        data[at] ^= 1 << int(rng.integers(8))
      case 1:
        data[at] = int(rng.choice(EDGES))
      case 2:
        data[at] = int(rng.integers(256))
      case 3:
        value = LARGE[rng.integers(len(LARGE))]
        data[at : at + length] = value.to_bytes(8, 'little')[:length]
      case 4:
        del data[at : at + length]
      case 5:
        other = int(rng.integers(len(data)))
        data[at:at] = data[other : other + 4 * length]
      case 6:
        if rng.integers(4) == 0:
          del data[at:]
  return bytes(data)


def read_mutants(seed, count, workdir):
  """Reads mutated files; how many were `read` and `refused`, by kind.

  Raises:
    AssertionError: of what is neither, with the file that did it.
  """
  found = collections.Counter()
  warnings.simplefilter('ignore')  # of Pillow, about what it passes over
  path = pathlib.Path(workdir) / 'mutant'
  for n in range(count):
    name = list(KINDS)[n % len(KINDS)]
    content, make, read = KINDS[name]
    path.write_bytes(make(mutate(content, np.random.default_rng([seed, n]))))
    try:
      arrays = read(path)
    except DataError:
      found[f'{name}: refused'] += 1
      continue
    except Exception as error:
      raise AssertionError(f'{name} {seed} {n}: {error!r}') from error
    for x in arrays.values() if isinstance(arrays, dict) else [arrays]:
      assert type(x) is np.ndarray and x.nbytes <= 1 << 16, (name, seed, n)
      x.tobytes()
    found[f'{name}: read'] += 1
  return dict(found)


if __name__ == '__main__':
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
  with tempfile.TemporaryDirectory() as temporary:
    counts = read_mutants(int(sys.argv[1]), int(sys.argv[2]), temporary)
    print(json.dumps(counts, indent=1))
