"""Folders of image files: decoded, resized and cropped when asked for."""

import dataclasses
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from gan_jax.data.samples import SampleSet, are_hashed_whole, hash_files
from gan_jax.runtime import places
from gan_jax.runtime.errors import ArgumentError, DataError
from gan_jax.runtime.progress import progress_bar

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
# What Pillow raises for a file that it can not read, or finds absurdly large.
_UNREADABLE = (
  OSError,
  SyntaxError,
  ValueError,
  PIL.Image.DecompressionBombError,
)


def resize_and_crop(
  image: PIL.Image.Image, size: int, channels: int
) -> NDArray[np.uint8]:
  """An image of another size and number of channels.

  The shorter side is resized to `size` by Lanczos with antialiasing, the
  longer one is cropped to it around the centre.

  Args:
    image: of any size and mode.
    size: side in pixels; 0 leaves the image's own.
    channels: 1 (grey) or 3 (colour).
  """
  image = PIL.ImageOps.exif_transpose(image)  # cameras leave them lying
  if isinstance(image.info.get('transparency'), bytes):
    image = image.convert('RGBA')  # a palette with alpha; else Pillow warns
  if image.mode.startswith('I'):  # 16 bits, which Pillow would clip at 255
    values = np.rint(np.asarray(image, np.float32) / 257).clip(0, 255)
    image = PIL.Image.fromarray(values.astype(np.uint8))
  image = image.convert('L' if channels == 1 else 'RGB')
  if size:
    scale = size / min(image.size)
    wide, high = (max(size, round(side * scale)) for side in image.size)
    if (wide, high) != image.size:
      image = image.resize((wide, high), PIL.Image.Resampling.LANCZOS)
    left, top = (wide - size) // 2, (high - size) // 2
    image = image.crop((left, top, left + size, top + size))
  pixels = np.asarray(image)
  return pixels.reshape(*pixels.shape[:2], channels)


class Folder:
  """Image files of a folder, decoded when asked for."""

  def __init__(
    self, files: Sequence[pathlib.Path], size: int, channels: int
  ) -> None:
    """`size` and `channels` as `resize_and_crop` takes them."""
    self._files, self._size, self._channels = files, size, channels

  def __len__(self) -> int:
    """How many files there are."""
    return len(self._files)

  def __getitem__(self, index: Any) -> NDArray[np.uint8]:
    """One image."""
    path = self._files[index]
    try:
      with PIL.Image.open(path) as image:
        return resize_and_crop(image, self._size, self._channels)
    except _UNREADABLE as error:
      raise _unreadable([path]) from error


def _unreadable(paths: Sequence[pathlib.Path]) -> DataError:
  names = ', '.join(map(str, paths[:5]))
  more = f' and {len(paths) - 5} more' if len(paths) > 5 else ''
  return DataError(f'cannot read {names}{more}: mend or remove the files')


@dataclasses.dataclass(frozen=True)
class _Header:
  """What an image file says of itself."""

  grey: bool
  size: tuple[int, int]


def _read_header(path: pathlib.Path) -> _Header | None:
  try:
    with PIL.Image.open(path) as image:
      image.draft(image.mode, (1, 1))
      image.load()  # a cut-off file is found now, not amid training
      grey = image.mode in ('1', 'L', 'LA', 'I', 'I;16')
    with PIL.Image.open(path) as image:
      return _Header(grey, image.size)
  except _UNREADABLE:
    return None


def load_folder(
  path: str, image_size: int, channels: int, cache: pathlib.Path
) -> SampleSet:
  """Every image file below a folder, in the order of their paths.

  Raises:
    ArgumentError: for a folder that is not there, grey and colour mixed, or
      sizes that differ, unless they are to be converted.
    DataError: for a folder without images, or files that cannot be read.
  """
  name = f'folder:{path}'
  if fault := places.find_fault(path):
    raise ArgumentError('dataset', name, fault)
  root = pathlib.Path(path).expanduser()
  if not root.is_dir():
    raise ArgumentError('dataset', name, 'no such folder')
  files = sorted(p for p in root.rglob('*') if _is_picture(p.relative_to(root)))
  files = [p for p in files if p.is_file()]
  if not files:
    raise DataError(
      f'{name}: no image files there ({", ".join(SUFFIXES)}, subfolders too)'
    )
  headers = _read_headers(files)
  channels = channels or _common_channels(name, headers)
  height, width = (
    (image_size,) * 2 if image_size else _common_size(name, headers)
  )
  images = SampleSet(
    name,
    (height, width, channels),
    Folder(files, image_size, channels),
    hash_files(files, 'folder', image_size, channels),
    cache if are_hashed_whole(files) else None,
  )
  folders = [path.relative_to(root).parts[:-1] for path in files]
  if not all(folders):
    return images
  # One class for each folder in it.
  classes = sorted({parts[0] for parts in folders})
  names = tuple(places.printable(name) for name in classes)
  labels = np.array([classes.index(parts[0]) for parts in folders], np.int32)
  return dataclasses.replace(images, classes=names, read_labels=lambda: labels)


def _read_headers(files: Sequence[pathlib.Path]) -> list[_Header]:
  with ThreadPoolExecutor() as pool:
    results = pool.map(_read_header, files)
    headers = list(progress_bar(results, len(files), 'looking at images'))
  bad = [p for p, header in zip(files, headers, strict=True) if header is None]
  if bad:
    raise _unreadable(bad)
  return [header for header in headers if header is not None]


def _is_picture(path: pathlib.Path) -> bool:
  # Hidden files are not the user's: thumbnails, and what macOS puts in an
  # archive beside each picture under its name.
  hidden = any(part.startswith(('.', '__MACOSX')) for part in path.parts)
  return path.suffix.lower() in SUFFIXES and not hidden


def _common_channels(name: str, headers: Sequence[_Header]) -> int:
  grey = sum(header.grey for header in headers)
  if 0 < grey < len(headers):
    raise ArgumentError(
      'dataset',
      name,
      f'{grey} grey and {len(headers) - grey} colour images; set `channels=1`'
      ' or `channels=3` to convert them all',
    )
  return 1 if grey else 3


def _common_size(name: str, headers: Sequence[_Header]) -> tuple[int, int]:
  sizes = {header.size for header in headers}
  (width, height), *others = sizes
  if others or width != height:
    raise ArgumentError(
      'dataset',
      name,
      f'images of {len(sizes)} sizes, such as {width}x{height}; set'
      ' `image_size` to resize and crop them to one square',
    )
  return height, width
