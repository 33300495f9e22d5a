"""Reads the arrays of a PyTorch weight file without PyTorch.

Such a file is a pickle that names storages, and the storages' bytes: in a zip
archive since PyTorch 1.6, one after the other before that. A pickle is a
program. None is run here: its instructions are read one by one, those that
write down dicts, lists, numbers, texts and tensors are followed
(`_Instructions`), and any other is refused. A tensor is a copy of a part of a
storage that lies within it. Memory is at most `REPEATS` times the file, for its
tensors, and about 300 MB for what the pickle writes down.
"""

import io
import math
import pathlib
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gan_jax.runtime.errors import DataError

_MAGIC = 0x1950A86A20F9469CFC6C  # of the format before zip
_DTYPES: dict[str, np.dtype[Any]] = {
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
PICKLE_BYTES = 1 << 24  # that name the arrays; a few hundred KB of a large net
OPERATIONS = 1 << 21  # of a pickle; some 40 for each tensor
MOST_DIMENSIONS = 32
REPEATS = 4  # times the file's size that tensors may have, all together


class _Fault(ValueError):
  """What is wrong with a file."""


def read(path: pathlib.Path) -> dict[str, NDArray[Any]]:
  """The arrays of a state dict, by name.

  A dict that holds it as `state_dict`, and the prefix `module.` of parallel
  training, are seen through.

  Raises:
    DataError: if this is no such file, it is damaged or encrypted, or its
      pickle asks for anything but tensors.
  """
  try:
    with open(path, 'rb') as file:
      zipped = zipfile.is_zipfile(file)
      file.seek(0)
      return _read_zip(file) if zipped else _read_old(file)
  except DataError:
    raise
  # zipfile, zlib, struct and pickletools raise many kinds.
  except Exception as error:
    reason = (str(error) or repr(error)).splitlines()[0][:200]
    raise DataError(
      f'{path}: cannot be read as a PyTorch weight file ({reason}); it is cut'
      ' short, damaged or something else, get it again'
    ) from error


# What a pickle may write down.


class _Name(NamedTuple):
  """Something of a module, by name: never the thing itself."""

  module: str
  name: str


class _Storage(NamedTuple):
  key: str
  dtype: np.dtype[Any]
  length: int

  @property
  def nbytes(self) -> int:
    return self.length * self.dtype.itemsize


class _Tensor(NamedTuple):
  """A part of a storage: all integers, none negative, within the storage."""

  storage: _Storage
  offset: int
  size: tuple[int, ...]
  stride: tuple[int, ...]

  @property
  def nbytes(self) -> int:
    return math.prod(self.size) * self.storage.dtype.itemsize


_MARK = object()
_Operation = Callable[['_Instructions', Any], None]


def _is_count(*values: Any) -> bool:
  return all(type(v) is int and 0 <= v < 1 << 63 for v in values)


def _make_storage(name: Any) -> _Storage:
  """The storage that a persistent name stands for."""
  if type(name) is not tuple or not 5 <= len(name) <= 6:
    raise _Fault('an unknown persistent object')
  kind, type_name, key, _, count, *view = name
  if kind != 'storage' or type(key) is not str or type(type_name) is not _Name:
    raise _Fault('an unknown persistent object')
  if type_name.module != 'torch' or type_name.name not in _DTYPES:
    raise _refuse(type_name)
  if not _is_count(count) or view not in ([], [None]):
    raise _Fault(f'storage {key[:20]} has no size, or is part of another')
  return _Storage(key, _DTYPES[type_name.name], count)


def _make_tensor(
  storage: Any, offset: Any, size: Any, stride: Any, *rest: Any
) -> _Tensor:
  """A part of a storage, as `torch._utils._rebuild_tensor_v2` makes it."""
  del rest  # requires_grad and hooks
  if type(storage) is not _Storage or type(size) is not tuple:
    raise _Fault('a tensor of no storage')
  if type(stride) is not tuple or len(stride) != len(size):
    raise _Fault('a tensor of another stride than shape')
  if len(size) > MOST_DIMENSIONS or not _is_count(offset, *size, *stride):
    raise _Fault('a tensor without a shape')
  if math.prod(size) > storage.length:
    raise _Fault(
      'a tensor exceeds its storage, or repeats it; save tensor.clone()'
    )
  last = offset + sum(
    (n - 1) * step for n, step in zip(size, stride, strict=True)
  )
  if offset > storage.length or (0 not in size and last >= storage.length):
    raise _Fault('a tensor exceeds its storage')
  return _Tensor(storage, offset, size, stride)


def _make_dict(pairs: Any = ()) -> dict[Any, Any]:
  made: dict[Any, Any] = {}
  for pair in pairs:
    _set(made, *pair)
  return made


def _set(target: Any, key: Any, value: Any) -> None:
  if type(target) is not dict:
    raise _Fault('items of what is no dict')
  if type(key) not in (str, int, float, bool, type(None)):
    raise _Fault('a key that is no text or number')
  target[key] = value


def _make_parameter(tensor: Any, *rest: Any) -> Any:
  del rest
  return tensor


_MAKERS: dict[_Name, Callable[..., Any]] = {
  _Name('collections', 'OrderedDict'): _make_dict,
  _Name('torch._utils', '_rebuild_tensor_v2'): _make_tensor,
  _Name('torch._utils', '_rebuild_tensor'): _make_tensor,
  _Name('torch._utils', '_rebuild_parameter'): _make_parameter,
}


def _refuse(name: _Name) -> DataError:
  return DataError(
    f'this PyTorch file asks for {name.module[:60]}.{name.name[:60]}, which is'
    ' no part of a plain state dict; save model.state_dict() instead'
  )


class _Instructions:
  """A pickle, read as a list of instructions that write down plain values.

  Attributes:
    stack: what was written and not yet used, and marks.
    memo: what is named again later, by number.
    storages: all that were named, by key.
  """

  def __init__(self) -> None:
    self.stack: list[Any] = []
    self.memo: dict[int, Any] = {}
    self.storages: dict[str, _Storage] = {}
    self._left = OPERATIONS

  def follow(self, file: Any) -> Any:
    """The value that the pickle at the file's position writes down."""
    for code, argument, _ in pickletools.genops(file):
      self._spend(1)
      if code.name == 'STOP':
        break
      if code.name not in _OPERATIONS:
        raise _Fault(f'its pickle has the instruction {code.name}')
      _OPERATIONS[code.name](self, argument)
    return self.pop()

  def _spend(self, operations: int) -> None:
    self._left -= operations
    if self._left < 0:
      raise _Fault(f'its pickle has more than {OPERATIONS:,} instructions')

  def pop(self) -> Any:
    value = self.stack.pop()
    if value is _MARK:
      raise _Fault('its pickle is out of order')
    return value

  def push(self, value: Any) -> None:
    self.stack.append(value)

  def pop_to_mark(self) -> list[Any]:
    values: list[Any] = []
    while (value := self.stack.pop()) is not _MARK:
      values.append(value)
    return values[::-1]

  def pop_tuple(self, n: int) -> None:
    values = [self.pop() for _ in range(n)]
    self.push(tuple(reversed(values)))

  def append(self, values: list[Any]) -> None:
    if type(self.stack[-1]) is not list:
      raise _Fault('items of what is no list')
    self.stack[-1].extend(values)

  def set_items(self, values: list[Any]) -> None:
    for key, value in zip(values[::2], values[1::2], strict=True):
      _set(self.stack[-1], key, value)

  def name(self, module: Any, name: Any) -> None:
    if type(module) is not str or type(name) is not str:
      raise _Fault('a name that is no text')
    global_name = _Name(module, name)
    if global_name not in _MAKERS and not (
      module == 'torch' and name in _DTYPES
    ):
      raise _refuse(global_name)
    self.push(global_name)

  def make(self) -> None:
    values, name = self.pop(), self.pop()
    if type(name) is not _Name or type(values) is not tuple:
      raise _Fault('its pickle calls what is no name')
    if name not in _MAKERS:
      raise _refuse(name)
    # A list can be named again and again: each time counts.
    self._spend(sum(len(v) for v in values if type(v) is list))
    self.push(_MAKERS[name](*values))

  def forget_state(self) -> None:
    """An attribute of the dict, such as PyTorch's `_metadata`: left out."""
    self.pop()
    if type(self.stack[-1]) is not dict:
      raise _Fault('attributes of what is no dict')

  def storage(self, name: Any) -> None:
    made = _make_storage(name)
    if self.storages.setdefault(made.key, made) != made:
      raise _Fault(f'storage {made.key[:20]} has two sizes')
    self.push(made)

  def remember(self, number: int) -> None:
    self.memo[number] = self.stack[-1]


_OPERATIONS: dict[str, _Operation] = {
  'PROTO': lambda s, x: None,
  'FRAME': lambda s, x: None,
  'MARK': lambda s, x: s.push(_MARK),
  'NONE': lambda s, x: s.push(None),
  'NEWTRUE': lambda s, x: s.push(True),
  'NEWFALSE': lambda s, x: s.push(False),
  **{
    name: lambda s, x: s.push(x)
    for name in (
      'BININT',
      'BININT1',
      'BININT2',
      'LONG1',
      'BINFLOAT',
      'BINSTRING',
      'SHORT_BINSTRING',
      'BINUNICODE',
      'SHORT_BINUNICODE',
    )
  },
  'EMPTY_DICT': lambda s, x: s.push({}),
  'EMPTY_LIST': lambda s, x: s.push([]),
  'EMPTY_TUPLE': lambda s, x: s.push(()),
  'TUPLE': lambda s, x: s.push(tuple(s.pop_to_mark())),
  'TUPLE1': lambda s, x: s.pop_tuple(1),
  'TUPLE2': lambda s, x: s.pop_tuple(2),
  'TUPLE3': lambda s, x: s.pop_tuple(3),
  'APPEND': lambda s, x: s.append([s.pop()]),
  'APPENDS': lambda s, x: s.append(s.pop_to_mark()),
  'SETITEM': lambda s, x: s.set_items([s.pop(), s.pop()][::-1]),
  'SETITEMS': lambda s, x: s.set_items(s.pop_to_mark()),
  'BINPUT': lambda s, x: s.remember(x),
  'LONG_BINPUT': lambda s, x: s.remember(x),
  'MEMOIZE': lambda s, x: s.remember(len(s.memo)),
  'BINGET': lambda s, x: s.push(s.memo[x]),
  'LONG_BINGET': lambda s, x: s.push(s.memo[x]),
  'GLOBAL': lambda s, x: s.name(*x.split(' ', 1)),
  'STACK_GLOBAL': lambda s, x: s.name(*[s.pop(), s.pop()][::-1]),
  'BINPERSID': lambda s, x: s.storage(s.pop()),
  'REDUCE': lambda s, x: s.make(),
  'BUILD': lambda s, x: s.forget_state(),
}


# Files.


def _find_tensors(content: Any, size: int) -> dict[str, _Tensor]:
  """The tensors of a state dict, by name; `size`: bytes of the file."""
  if type(content) is dict and 'state_dict' in content:
    content = content['state_dict']
  if type(content) is not dict:
    raise _Fault(f'it holds no state dict but a {type(content).__name__}')
  tensors = {
    str(name).removeprefix('module.'): value
    for name, value in content.items()
    if type(value) is _Tensor
  }
  if sum(s.nbytes for s in {t.storage for t in tensors.values()}) > size:
    raise _Fault('its storages exceed the file')
  if sum(t.nbytes for t in set(tensors.values())) > REPEATS * size:
    raise _Fault(f'its tensors have more than {REPEATS} times its size')
  return tensors


def _as_array(storage: _Storage, content: bytes) -> NDArray[Any]:
  if len(content) != storage.nbytes:
    raise _Fault('a storage is cut short')
  if storage.dtype.kind == 'b':  # a byte that is no truth value is none in C
    return np.frombuffer(content, np.uint8) != 0
  return np.frombuffer(content, storage.dtype)


def _copy_tensor(tensor: _Tensor, whole: NDArray[Any]) -> NDArray[Any]:
  if 0 in tensor.size:
    return np.zeros(tensor.size, whole.dtype)
  steps = [step * whole.itemsize for step in tensor.stride]
  # It lies within `whole`, as `_make_tensor` has made sure.
  part = np.lib.stride_tricks.as_strided(
    whole[tensor.offset :], tensor.size, steps
  )
  return part.copy()


def _copy_tensors(
  tensors: Mapping[str, _Tensor], arrays: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
  """Every tensor as an array of its own; the same one where two are one."""
  copies: dict[_Tensor, NDArray[Any]] = {}
  for tensor in tensors.values():
    if tensor not in copies:
      whole = arrays[tensor.storage.key]
      copies[tensor] = _copy_tensor(tensor, whole)
  return {name: copies[tensor] for name, tensor in tensors.items()}


def _size(file: BinaryIO) -> int:
  here = file.tell()
  size = file.seek(0, io.SEEK_END)
  file.seek(here)
  return size


def _read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
  """A file of an archive that has at most so many bytes."""
  info = archive.getinfo(name)
  if info.flag_bits & 1:
    raise _Fault('it is encrypted: give the file without a password')
  if info.file_size > most:
    raise _Fault(f'{name[-30:]} has {info.file_size:,} bytes')
  with archive.open(info) as file:
    return file.read(most + 1)


def _read_zip(file: BinaryIO) -> dict[str, NDArray[Any]]:
  size = _size(file)
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
      if _read_member(archive, f'{root}byteorder', 16) != b'little':
        raise DataError('this PyTorch file is big-endian; save it anew')
    program = io.BytesIO(_read_member(archive, pickled, PICKLE_BYTES))
    tensors = _find_tensors(_Instructions().follow(program), size)
    arrays = {
      s.key: _as_array(
        s, _read_member(archive, f'{root}data/{s.key}', s.nbytes)
      )
      for s in {t.storage for t in tensors.values()}
    }
  return _copy_tensors(tensors, arrays)


class _Limited:
  """A file from its position on, of which a pickle may take so much."""

  def __init__(self, file: BinaryIO) -> None:
    self._file, self._left = file, PICKLE_BYTES

  def read(self, n: int) -> bytes:
    return self._count(self._file.read(min(n, self._left + 1)))

  def readline(self) -> bytes:
    return self._count(self._file.readline(self._left + 1))

  def tell(self) -> int:
    return self._file.tell()

  def _count(self, content: bytes) -> bytes:
    self._left -= len(content)
    if self._left < 0:
      raise _Fault(f'its pickle has more than {PICKLE_BYTES:,} bytes')
    return content


def _read_old(file: BinaryIO) -> dict[str, NDArray[Any]]:
  size = _size(file)
  if _Instructions().follow(_Limited(file)) != _MAGIC:
    raise _Fault('it does not begin as such a file does')
  for _ in range(2):  # version and byte order of the writer
    facts = _Instructions().follow(_Limited(file))
  if type(facts) is dict and not facts.get('little_endian', True):
    raise DataError('this PyTorch file is big-endian; save it anew')
  instructions = _Instructions()
  tensors = _find_tensors(instructions.follow(_Limited(file)), size)
  arrays = _read_old_storages(file, instructions.storages, size)
  return _copy_tensors(tensors, arrays)


def _read_old_storages(
  file: BinaryIO, storages: Mapping[str, _Storage], size: int
) -> dict[str, NDArray[Any]]:
  """The storages of a file of the format before zip, in its own order."""
  keys = _Instructions().follow(_Limited(file))
  if type(keys) is not list or len({*keys}) != len(keys):
    raise _Fault('it does not list its storages')
  arrays = {}
  for key in keys:
    (count,) = struct.unpack('<q', file.read(8))
    if key not in storages or storages[key].length != count:
      raise _Fault('a storage has another size than its tensors say')
    if storages[key].nbytes > size:
      raise _Fault('its storages exceed the file')
    arrays[key] = _as_array(storages[key], file.read(storages[key].nbytes))
  return arrays
