"""Reads the arrays of a PyTorch weight file without PyTorch.

Such a file is a pickle that names storages, and the storages' bytes: in a zip
archive since PyTorch 1.6, one after the other before that. A pickle may call
any function there is; this reader knows the few that make tensors and refuses
all others.
"""

import collections
import io
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gan_jax.runtime.errors import DataError

_MAGIC = 0x1950A86A20F9469CFC6C  # of the format before zip
_DTYPES = {
  'DoubleStorage': np.dtype('<f8'),
  'FloatStorage': np.dtype('<f4'),
  'HalfStorage': np.dtype('<f2'),
  'LongStorage': np.dtype('<i8'),
  'IntStorage': np.dtype('<i4'),
  'ShortStorage': np.dtype('<i2'),
  'CharStorage': np.dtype('<i1'),
  'ByteStorage': np.dtype('<u1'),
  'BoolStorage': np.dtype('?'),
}
# What reading a damaged file raises.
_DAMAGED = (
  pickle.UnpicklingError,
  zipfile.BadZipFile,
  struct.error,
  EOFError,
  AttributeError,
  IndexError,
  KeyError,
  TypeError,
  ValueError,
)


def read(path: pathlib.Path) -> dict[str, NDArray[Any]]:
  """The arrays of a state dict, by name.

  A dict that holds it as `state_dict`, and the prefix `module.` of parallel
  training, are seen through.

  Raises:
    DataError: if this is no such file, it is damaged, or its pickle asks
      for anything but tensors.
  """
  try:
    with open(path, 'rb') as file:
      zipped = zipfile.is_zipfile(file)
      file.seek(0)
      content = _read_zip(file) if zipped else _read_old(file)
  except DataError:
    raise
  except _DAMAGED as error:
    raise DataError(
      f'{path}: cannot be read as a PyTorch weight file ({error}); it is cut'
      ' short, damaged or something else, get it again'
    ) from error
  if isinstance(content, Mapping) and 'state_dict' in content:
    content = content['state_dict']
  if not isinstance(content, Mapping):
    raise DataError(f'{path}: holds no state dict but a {type(content)}')
  return {
    str(name).removeprefix('module.'): value
    for name, value in content.items()
    if isinstance(value, np.ndarray)
  }


class _Storages:
  """The storages that a pickle names, filled at once or afterwards."""

  def __init__(self, size: int) -> None:
    """`size`: bytes of the file, which no storage exceeds."""
    self.size = size
    self.arrays: dict[str, NDArray[Any]] = {}

  def get(self, name: Any) -> NDArray[Any]:
    kind, dtype, key, _, count = name[:5]
    if kind != 'storage' or not isinstance(dtype, np.dtype):
      raise pickle.UnpicklingError(f'unknown persistent object {kind}')
    if not 0 <= count * dtype.itemsize <= self.size:
      raise pickle.UnpicklingError(f'storage {key} exceeds the file')
    if key not in self.arrays:
      self.arrays[key] = np.zeros(count, dtype)
    return self.arrays[key]


def _tensor(
  storage: NDArray[Any],
  offset: int,
  size: tuple[int, ...],
  stride: tuple[int, ...],
  *rest: Any,
) -> NDArray[Any]:
  """A view of a storage, as `torch._utils._rebuild_tensor_v2` makes it."""
  del rest  # requires_grad and hooks
  pairs = list(zip(size, stride, strict=True))
  last = offset + sum((n - 1) * step for n, step in pairs)
  if min((offset, *size, *stride), default=0) < 0 or (
    0 not in size and last >= len(storage)
  ):
    raise pickle.UnpicklingError('a tensor exceeds its storage')
  steps = [step * storage.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(storage[offset:], size, steps)


def _parameter(tensor: Any, *rest: Any) -> Any:
  del rest
  return tensor


_ALLOWED: dict[tuple[str, str], Any] = {
  ('collections', 'OrderedDict'): collections.OrderedDict,
  ('torch._utils', '_rebuild_tensor_v2'): _tensor,
  ('torch._utils', '_rebuild_tensor'): _tensor,
  ('torch._utils', '_rebuild_parameter'): _parameter,
  **{('torch', name): dtype for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
  def __init__(self, file: Any, storages: _Storages) -> None:
    super().__init__(file, encoding='utf-8')
    self._storages = storages

  def find_class(self, module: str, name: str) -> Any:
    """The few that make tensors; a pickle is a program."""
    if (module, name) not in _ALLOWED:
      raise DataError(
        f'this PyTorch file asks for {module}.{name}, which is no part of a'
        ' plain state dict; save model.state_dict() instead'
      )
    return _ALLOWED[module, name]

  def persistent_load(self, name: Any) -> Any:
    """The storage of that name."""
    return self._storages.get(name)


def _size(file: BinaryIO) -> int:
  here = file.tell()
  size = file.seek(0, io.SEEK_END)
  file.seek(here)
  return size


def _read_zip(file: BinaryIO) -> Any:
  storages = _Storages(_size(file))
  with zipfile.ZipFile(file) as archive:
    names = archive.namelist()
    pickled = next((n for n in names if n.endswith('/data.pkl')), None)
    if pickled is None or any('/code/' in n for n in names):
      raise DataError(
        f'{getattr(file, "name", "this file")}: is no state dict, perhaps a'
        ' TorchScript archive; use the .pth file of weights'
      )
    root = pickled.removesuffix('data.pkl')
    if f'{root}byteorder' in names:
      if archive.read(f'{root}byteorder') != b'little':
        raise DataError('this PyTorch file is big-endian; save it anew')
    content = _Unpickler(archive.open(pickled), storages).load()
    for key, array in storages.arrays.items():
      _fill(array, archive.read(f'{root}data/{key}'))
  return content


def _read_old(file: BinaryIO) -> Any:
  storages = _Storages(_size(file))
  if _Unpickler(file, storages).load() != _MAGIC:
    raise pickle.UnpicklingError('it does not begin as such a file does')
  for _ in range(2):  # version and byte order of the writer
    facts = _Unpickler(file, storages).load()
  if isinstance(facts, Mapping) and not facts.get('little_endian', True):
    raise DataError('this PyTorch file is big-endian; save it anew')
  content = _Unpickler(file, storages).load()
  for key in _Unpickler(file, storages).load():
    (count,) = struct.unpack('<q', file.read(8))
    array = storages.arrays[key]
    if count != len(array):
      raise pickle.UnpicklingError(f'storage {key} has another size')
    _fill(array, file.read(array.nbytes))
  return content


def _fill(array: NDArray[Any], content: bytes) -> None:
  if len(content) != array.nbytes:
    raise pickle.UnpicklingError('a storage is cut short')
  array[:] = np.frombuffer(content, array.dtype)
