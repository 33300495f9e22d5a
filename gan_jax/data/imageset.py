"""Sets of images: random access to uint8, whatever they are kept in."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from gan_jax.data.errors import DataError, DataFlagError
from gan_jax.runtime.array_cache import cached_arrays, digest_arrays
from gan_jax.runtime.progress import progress_bar

SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
# Beyond this, a set's fingerprint is of its files' names and sizes.
_HASHED_BYTES = 4 * 2**30
# Most uint8 bytes that --residence=auto puts on the device.
RESIDENT_BYTES = 2 * 2**30
_BLOCK = 256  # images that a thread reads in one go
# What Pillow raises for a file that it can not read, or finds absurdly large.
_UNREADABLE = (
  OSError,
  SyntaxError,
  ValueError,
  PIL.Image.DecompressionBombError,
)


@runtime_checkable
class Source(Protocol):
  """Random access to images."""

  def __len__(self) -> int:
    """How many there are."""
    ...

  def __getitem__(self, index: Any) -> Any:
    """One image, uint8 (height, width, channels)."""
    ...


@runtime_checkable
class Whole(Source, Protocol):
  """A source that has a faster way to all of its images."""

  def array(self) -> NDArray[np.uint8]:
    """All images, (n, height, width, channels)."""
    ...


@dataclasses.dataclass(frozen=True)
class ImageSet:
  """Images of one shape.

  Attributes:
    name: as `--dataset` has it.
    shape: (height, width, channels) of each.
    source: random access to uint8 images.
    fingerprint: hash of the content: what a run's identity says of the data.
    cache: folder for the arrays that `array` reads, None for none.
    key: names the array there: hash of the files that hold the images.
    classes: names of the classes; empty where there are none.
    read_labels: reads the class of every image, (n,) int32.
  """

  name: str
  shape: tuple[int, int, int]
  source: Source
  fingerprint: str
  cache: pathlib.Path | None = None
  key: str = ''
  classes: tuple[str, ...] = ()
  read_labels: Callable[[], NDArray[np.int32]] | None = None

  bounded = True

  @property
  def size(self) -> int:
    """How many images there are."""
    return len(self.source)

  @property
  def nbytes(self) -> int:
    """Bytes of all images as uint8."""
    return self.size * int(np.prod(self.shape))

  def array(self) -> NDArray[np.uint8]:
    """All images, (n, height, width, channels); kept for the next time."""
    return self._cached('images', (self.size, *self.shape), self._read)

  @functools.cached_property
  def mean(self) -> NDArray[np.float64]:
    """The mean image in [-1, 1], of `shape`; found once.

    Of every image, or of at most 10,000 evenly spaced ones if they take more
    than 2 GiB.
    """
    if self.nbytes <= RESIDENT_BYTES:
      found = self.array().mean(axis=0)
    else:
      picked = range(0, self.size, -(-self.size // 10_000))
      found = np.zeros(self.shape)
      for i in progress_bar(picked, len(picked), f'the mean of {self.name}'):
        found += self.source[i]
      found /= len(picked)
    return found / 127.5 - 1

  def labels(self) -> NDArray[np.int32]:
    """The class of every image, (n,); kept for the next time."""
    assert self.read_labels is not None  # there are classes
    if isinstance(self.source, Folder):  # no more than names, which may change
      return self.read_labels()
    return self._cached('labels', (self.size,), self.read_labels)

  def _cached(
    self, what: str, shape: tuple[int, ...], read: Callable[[], NDArray[Any]]
  ) -> NDArray[Any]:
    """An array of the cache, or read now and written there."""
    if self.cache is None:
      return read()
    facts = {'files': self.key or self.fingerprint, 'of': what, 'shape': shape}
    return cached_arrays(self.cache, facts, lambda: {what: read()}, name=what)[
      what
    ]

  def _read(self) -> NDArray[np.uint8]:
    if isinstance(self.source, Whole):
      return self.source.array()
    images = np.empty((self.size, *self.shape), np.uint8)

    def read(start: int) -> None:
      for i in range(start, min(start + _BLOCK, self.size)):
        images[i] = self.source[i]

    starts = range(0, self.size, _BLOCK)
    with ThreadPoolExecutor() as pool:
      done = pool.map(read, starts)
      for _ in progress_bar(done, len(starts), f'reading {self.name}'):
        pass
    return images


@dataclasses.dataclass(frozen=True)
class Absent:
  """An image set of which no more is there than what its networks are for.

  Attributes:
    name: as `--dataset` has it.
    shape: (height, width, channels) of each image.
    classes: names of its classes, if it has some.
  """

  name: str
  shape: tuple[int, ...]
  classes: tuple[str, ...] = ()

  bounded = True


def fingerprint(files: Sequence[pathlib.Path], *how: object) -> str:
  """Hash of files and of what is done with their images.

  Of their content, or of names and sizes where they exceed 4 GiB.
  """
  total = hashlib.sha256(repr(how).encode())
  whole = hashed(files)
  for path in files:
    total.update(f'{path.name} {path.stat().st_size}\n'.encode())
    if whole:
      total.update(path.read_bytes())
  return total.hexdigest()


def hashed(files: Sequence[pathlib.Path]) -> bool:
  """Whether `fingerprint` is of the content of these files."""
  return sum(path.stat().st_size for path in files) <= _HASHED_BYTES


def content(images: ImageSet) -> str:
  """SHA-256 of the pixels of a set, in their order.

  TFDS writes the same records in other bytes from one process to the next, so
  a hash of its files tells sets apart that are the same.
  """
  return digest_arrays({'images': images.array()})


def fit(image: PIL.Image.Image, size: int, channels: int) -> NDArray[np.uint8]:
  """An image as the run wants it.

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
    """`size` and `channels` as `fit` takes them."""
    self._files, self._size, self._channels = files, size, channels

  def __len__(self) -> int:
    """How many files there are."""
    return len(self._files)

  def __getitem__(self, index: Any) -> NDArray[np.uint8]:
    """One image."""
    path = self._files[index]
    try:
      with PIL.Image.open(path) as image:
        return fit(image, self._size, self._channels)
    except _UNREADABLE as error:
      raise _unreadable([path]) from error


def _unreadable(paths: Sequence[pathlib.Path]) -> DataError:
  named = ', '.join(map(str, paths[:5]))
  more = f' and {len(paths) - 5} more' if len(paths) > 5 else ''
  return DataError(f'cannot read {named}{more}: mend or remove the files')


@dataclasses.dataclass(frozen=True)
class _Look:
  """What an image file says of itself."""

  grey: bool
  size: tuple[int, int]


def _look(path: pathlib.Path) -> _Look | None:
  try:
    with PIL.Image.open(path) as image:
      image.draft(image.mode, (1, 1))
      image.load()  # a cut-off file is found now, not amid training
      grey = image.mode in ('1', 'L', 'LA', 'I', 'I;16')
    with PIL.Image.open(path) as image:
      return _Look(grey, image.size)
  except _UNREADABLE:
    return None


def load_folder(
  path: str, image_size: int, channels: int, cache: pathlib.Path
) -> ImageSet:
  """Every image file below a folder, in the order of their paths.

  Raises:
    DataError: for a folder without images, files that cannot be read, grey and
      colour mixed, or sizes that differ; each with its remedy.
  """
  root = pathlib.Path(path).expanduser()
  flag = f'--dataset=folder:{path}'
  if not root.is_dir():
    raise DataFlagError(f'{flag}: no such folder')
  files = sorted(p for p in root.rglob('*') if _is_picture(p.relative_to(root)))
  files = [p for p in files if p.is_file()]
  if not files:
    raise DataError(
      f'{flag}: no image files there ({", ".join(SUFFIXES)}, subfolders too)'
    )
  with ThreadPoolExecutor() as pool:
    found = pool.map(_look, files)
    looks = list(progress_bar(found, len(files), 'looking at images'))
  bad = [p for p, look in zip(files, looks, strict=True) if look is None]
  if bad:
    raise _unreadable(bad)
  seen = [look for look in looks if look is not None]
  channels = channels or _common_channels(flag, seen)
  sizes = {look.size for look in seen}
  height = width = image_size
  if not image_size:
    (width, height), *others = sizes
    if others or width != height:
      raise DataFlagError(
        f'{flag}: images of {len(sizes)} sizes, such as {width}x{height}; set'
        ' --image_size to resize and crop them to one square'
      )
  images = ImageSet(
    f'folder:{path}',
    (height, width, channels),
    Folder(files, image_size, channels),
    fingerprint(files, 'folder', image_size, channels),
    cache if hashed(files) else None,
  )
  inner = [path.relative_to(root).parts[:-1] for path in files]
  if not all(inner):
    return images
  # One class for each folder in it. The labels are no file's content: read
  # from the names, and not kept.
  names = sorted({parts[0] for parts in inner})
  labels = np.array([names.index(parts[0]) for parts in inner], np.int32)
  return dataclasses.replace(
    images, classes=tuple(names), read_labels=lambda: labels
  )


def _is_picture(path: pathlib.Path) -> bool:
  # Hidden files are not the user's: thumbnails, and what macOS puts in an
  # archive beside each picture under its name.
  hidden = any(part.startswith(('.', '__MACOSX')) for part in path.parts)
  return path.suffix.lower() in SUFFIXES and not hidden


def _common_channels(flag: str, looks: Sequence[_Look]) -> int:
  grey = sum(look.grey for look in looks)
  if 0 < grey < len(looks):
    raise DataFlagError(
      f'{flag}: {grey} grey and {len(looks) - grey} colour images; set'
      ' --channels=1 or --channels=3 to convert them all'
    )
  return 1 if grey else 3


class Fitted:
  """Images of a TFDS data source, fitted."""

  def __init__(
    self, source: Any, size: int, channels: int, own: bool, place: pathlib.Path
  ) -> None:
    """`own`: the set's own size and channels are wanted as they are."""
    self._place = place
    self._source, self._size, self._channels = source, size, channels
    self._own = own

  def __len__(self) -> int:
    """How many records there are."""
    return len(self._source)

  def __getitem__(self, index: Any) -> NDArray[np.uint8]:
    """One image."""
    try:
      pixels = np.asarray(self._source[int(index)]['image'])
    except (RuntimeError, OSError, ValueError) as error:
      raise damaged(self._place, error) from error
    if self._own:
      return pixels
    image = PIL.Image.fromarray(pixels.squeeze())
    return fit(image, self._size, self._channels)


def damaged(place: pathlib.Path, error: BaseException) -> DataError:
  """What to tell of a prepared set that cannot be read."""
  why = (str(error) or repr(error)).splitlines()[0][:200]
  return DataError(
    f'{place}: is damaged ({why}); remove this folder and prepare the set again'
  )


def data_root(data_dir: str) -> pathlib.Path:
  """The data root: the flag, $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
  named = data_dir or os.environ.get('TFDS_DATA_DIR', '')
  return pathlib.Path(named or '~/tensorflow_datasets').expanduser()
