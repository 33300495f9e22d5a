"""Image files: which are read, and how their pixels become bytes.

Every file becomes uint8 of 1 or 3 channels by fixed rules: 16 bits are divided
by 257, what is transparent is laid on white, the first of several frames is
taken. Where 4 channels are asked for, the fourth is the opacity. What no rule
is right for (floats and 32-bit integers, of whose range a file says nothing) is
refused by name.
"""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageColor
import PIL.ImageOps
from numpy.typing import NDArray

from gan_jax.runtime.errors import ArgumentError

SUFFIXES = tuple(
  '.png .jpg .jpeg .jpe .jfif .webp .bmp .dib .gif .tif .tiff .ppm .pgm .pbm'
  ' .pnm .tga .jp2 .avif'.split()
)
# By their content, whatever the suffix; never those that start a program.
_FORMATS = 'PNG JPEG MPO WEBP BMP DIB GIF TIFF PPM TGA JPEG2000 AVIF'.split()
BACKGROUND = 'white'
MEGAPIXELS = 50.0  # of one image, at the most, unless it is said
# What Pillow raises for a file that it can not read.
UNREADABLE = (
  OSError,
  SyntaxError,
  ValueError,
  PIL.Image.DecompressionBombError,
)
_ORIENTATION = 0x112  # the tag
_GREY = ('1', 'L', 'LA', 'La')  # modes of one channel
_DIM = 4096  # 16-bit images below this are likely of 12 bits or fewer


class ImageFacts(NamedTuple):
  """What a look at an image file tells.

  Attributes:
    mode: Pillow's word for its pixels.
    size: width and height, upright.
    grey: whether it has one channel.
    transparent: whether some of it may be.
    frames: how many it has.
    peak: largest value of a 16-bit image; 0 for others.
  """

  mode: str
  size: tuple[int, int]
  grey: bool
  transparent: bool
  frames: int
  peak: int


class Fault(NamedTuple):
  """Why an image is of no use: its `kind` is size, range or damage."""

  kind: str
  text: str = ''


@functools.cache
def _formats() -> list[str]:
  """The formats that this Pillow can read."""
  PIL.Image.init()
  return [name for name in _FORMATS if name in PIL.Image.OPEN]


def open_image(file: Any) -> PIL.Image.Image:
  """An image, of a path or an open file, whose pixels are not read yet."""
  return PIL.Image.open(file, formats=_formats())


def raise_bound(megapixels: float) -> None:
  """Lets Pillow read images of so many pixels, for as long as this process."""
  own = PIL.Image.MAX_IMAGE_PIXELS
  if own is not None:
    PIL.Image.MAX_IMAGE_PIXELS = max(own, int(megapixels * 1e6))


def check_bound(megapixels: float) -> None:
  """Refuses a bound of pixels that is none.

  Raises:
    ArgumentError: saying so.
  """
  if not 0 < megapixels < np.inf:
    raise ArgumentError(
      'max_megapixels', megapixels, 'use millions of pixels, more than 0'
    )


@contextmanager
def allow_pixels(megapixels: float) -> Iterator[None]:
  """Lets Pillow read images of so many pixels, without a warning.

  A larger bound than its own stays, as the images are read again later.
  """
  raise_bound(megapixels)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', PIL.Image.DecompressionBombWarning)
    yield


def look_at(file: Any, megapixels: float) -> ImageFacts | Fault:
  """What an image is, found by decoding it; why not, if it is of no use.

  Args:
    file: that it is in, a path or open.
    megapixels: most million pixels, held against the header before any is
      decoded.
  """
  return look_and_read(file, megapixels)[0]


def look_and_read(
  file: Any, megapixels: float, row: tuple[int, int] | None = None
) -> tuple[ImageFacts | Fault, NDArray[np.uint8] | None]:
  """As `look_at`, and its pixels.

  Args:
    file: that it is in, a path or open.
    megapixels: most million pixels.
    row: size and channels, as `resize_and_crop` takes them; None for no pixels.
  """
  try:
    with open_image(file) as image:
      mode, size = image.mode, image.size
      if size[0] * size[1] > megapixels * 1e6:
        return Fault('size', f'{size[0]}x{size[1]}'), None
      frames = getattr(image, 'n_frames', 1)
      # Lies on its side. What the tag holds need not be a number.
      if image.getexif().get(_ORIENTATION) in (5, 6, 7, 8):
        size = size[::-1]
      if row is None:
        image.draft(image.mode, (1, 1))
      image.load()  # a cut-off file is found now, not amid training
      peak = int(np.asarray(image).max()) if _is_deep(image) else 0
      clear = image.has_transparency_data
      plain = to_bytes(image)
      facts = ImageFacts(mode, size, plain.mode == 'L', clear, frames, peak)
      if row is None:
        return facts, None
      try:
        return facts, resize_and_crop(image if row[1] == 4 else plain, *row)
      except UNREADABLE:  # told by who reads its pixels, if anyone does
        return facts, None
  except PIL.Image.DecompressionBombError:  # by Pillow's own bound
    return Fault('size', 'too many'), None
  except _Unknown as error:
    return Fault('range', str(error)), None
  except UNREADABLE:
    return Fault('damage'), None


def peek(file: Any) -> tuple[tuple[int, int], bool] | None:
  """Size of an image as it lies, and whether it is grey, by its header.

  None for a file that is no image.
  """
  try:
    with open_image(file) as image:
      return image.size, image.mode in _GREY or _is_deep(image)
  except UNREADABLE:
    return None


def is_dim(peak: int) -> bool:
  """Whether a 16-bit image is likely of fewer bits, and would be near black.

  Args:
    peak: its largest value.
  """
  return 0 < peak < _DIM


class _Unknown(ValueError):
  """Pixels whose range nothing tells."""


def to_bytes(image: PIL.Image.Image, opaque: bool = True) -> PIL.Image.Image:
  """An image upright and of 8 bits: of mode L or RGB, or RGBA if not opaque.

  Raises:
    ValueError: for pixels whose range nothing tells.
  """
  deep = _is_deep(image)  # of its format, which is lost when it is turned
  image.load()
  if image.getexif().get(_ORIENTATION) not in (None, 1):
    image = PIL.ImageOps.exif_transpose(image)  # cameras leave them lying
  grey = image.mode in _GREY
  if deep:
    image, grey = _from_16_bits(image), True
  elif image.mode[0] in 'IF':
    kind = 'floats' if image.mode == 'F' else '32-bit integers'
    raise _Unknown(f'{kind}, of whose range the file says nothing')
  if not opaque:
    return _converted(image, 'RGBA')
  if image.has_transparency_data:
    canvas = PIL.Image.new('RGBA', image.size, BACKGROUND)
    canvas.alpha_composite(image.convert('RGBA'))
    image = canvas
  return _converted(image, 'L' if grey else 'RGB')


def _converted(image: PIL.Image.Image, mode: str) -> PIL.Image.Image:
  """An image of a mode; itself, not a copy, if it has that."""
  return image if image.mode == mode else image.convert(mode)


def _is_deep(image: PIL.Image.Image) -> bool:
  """Whether an image has 16 bits; those of PNG and PGM may come as 32."""
  as_32 = image.mode == 'I' and image.format in ('PNG', 'PPM')
  return as_32 or image.mode.startswith('I;16')


def _from_16_bits(image: PIL.Image.Image) -> PIL.Image.Image:
  """16 bits as 8, which Pillow would clip at 255."""
  values = np.asarray(image, np.float32)
  clear = image.info.get('transparency')
  pixels = np.rint(values / 257).clip(0, 255).astype(np.uint8)
  grey = PIL.Image.fromarray(pixels)
  if isinstance(clear, int):  # the one value that is transparent
    opacity = np.where(values == clear, 0, 255).astype(np.uint8)
    grey.putalpha(PIL.Image.fromarray(opacity))
  return grey


def resize_and_crop(
  image: PIL.Image.Image, size: int, channels: int
) -> NDArray[np.uint8]:
  """An image of another size and number of channels.

  The shorter side is resized to `size` by Lanczos with antialiasing, the
  longer one is cropped to it around the centre.

  Args:
    image: of any size and mode.
    size: side in pixels; 0 leaves the image's own.
    channels: 1 (grey), 3 (colour) or 4 (colour and opacity; what is wholly
      transparent has the background's colour, whatever is hidden there).
  """
  image = to_bytes(image, opaque=channels != 4)
  image = _converted(image, {1: 'L', 3: 'RGB', 4: 'RGBA'}[channels])
  if size:
    scale = size / min(image.size)
    wide, high = (max(size, round(side * scale)) for side in image.size)
    if (wide, high) != image.size:
      image = image.resize((wide, high), PIL.Image.Resampling.LANCZOS)
    left, top = (wide - size) // 2, (high - size) // 2
    image = image.crop((left, top, left + size, top + size))
  pixels = np.asarray(image).reshape(*image.size[::-1], channels)
  if channels == 4:
    clear = (*PIL.ImageColor.getrgb(BACKGROUND), 0)
    pixels = np.where(pixels[..., 3:], pixels, np.array(clear, np.uint8))
  return pixels
