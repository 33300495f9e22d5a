"""Pictures of arrays: grids of samples, PNG files, scatter plots."""

import io
import math

import numpy as np
import numpy.typing as npt
import PIL.Image

# Small images are enlarged until a grid is about this wide.
_WIDE = 640


def to_uint8(x: npt.ArrayLike) -> npt.NDArray[np.uint8]:
  """Samples in [-1, 1] as bytes in [0, 255], rounded and clipped.

  The range is fixed: stretching each set to its own extremes would hide a
  generator that does not use its range. NaN is black.
  """
  scaled = np.rint((np.asarray(x, np.float32) + 1) * 127.5)
  return np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8)


def on_white(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
  """Images whose fourth channel is their opacity, as they are seen on white.

  >>> on_white(np.uint8([[[0, 0, 0, 255], [0, 90, 180, 0], [0, 255, 0, 51]]]))
  array([[[  0,   0,   0],
          [255, 255, 255],
          [204, 255, 204]]], dtype=uint8)
  """
  colour, opacity = images[..., :3].astype(np.float32), images[..., 3:] / 255
  return np.rint(255 - opacity * (255 - colour)).astype(np.uint8)


def grid(
  images: npt.NDArray[np.uint8], columns: int = 0, gap: int = 1
) -> npt.NDArray[np.uint8]:
  """Images (n, height, width, channels) side by side, row by row.

  Args:
    images: one or more; those of four channels are laid on white.
    columns: in a row; 0 makes the grid about square.
    gap: white pixels between neighbours.

  Returns:
    One picture, (height, width, channels).
  """
  if images.shape[3] == 4:
    images = on_white(images)
  n, h, w, c = images.shape
  columns = columns or math.ceil(math.sqrt(n))
  rows = math.ceil(n / columns)
  sheet = np.full(
    (rows * (h + gap) - gap, columns * (w + gap) - gap, c), 255, np.uint8
  )
  for i, image in enumerate(images):
    top, left = (i // columns) * (h + gap), (i % columns) * (w + gap)
    sheet[top : top + h, left : left + w] = image
  return sheet


def enlarged(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
  """A small picture with each pixel repeated, so that it can be seen."""
  factor = max(1, _WIDE // picture.shape[1])
  return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def png(picture: npt.NDArray[np.uint8]) -> bytes:
  """A picture (height, width, 1, 3 or 4) as a PNG file."""
  buffer = io.BytesIO()
  pixels = picture[..., 0] if picture.shape[2] == 1 else picture
  # More effort costs up to 40 times as much and saves a fifteenth.
  PIL.Image.fromarray(pixels).save(buffer, 'PNG', compress_level=1)
  return buffer.getvalue()


def grid_png(x: npt.ArrayLike, columns: int = 0) -> bytes:
  """Samples in [-1, 1] as a PNG of their grid, enlarged where small."""
  return png(enlarged(grid(to_uint8(x), columns)))


def scatter(
  points: npt.NDArray[np.generic],
  extent: tuple[float, float],
  side: int = 160,
) -> npt.NDArray[np.uint8]:
  """Points (n, 1 or 2) as a small picture, dark on white.

  Two dimensions as a scatter plot, one as a histogram; points outside of the
  extent are left out.
  """
  at = np.asarray(points, np.float64)
  if at.shape[1] == 2:
    counts, _, _ = np.histogram2d(at[:, 1], at[:, 0], side, (extent, extent))
    # The darkest tenth of the bins that are not empty is black.
    most = np.quantile(counts[counts > 0], 0.9) if counts.any() else 1
    ink = np.clip(counts / most, 0, 1)[::-1]
  else:
    counts, _ = np.histogram(at[:, 0], side, extent)
    height = np.rint(counts / max(counts.max(), 1) * side)
    ink = np.arange(side, 0, -1)[:, None] <= height[None, :]
  return np.rint(255 * (1 - ink)).astype(np.uint8)[:, :, None]
