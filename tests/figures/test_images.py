"""Arrays to pictures and back: the range, the layout, the file."""

import io

import numpy as np
import PIL.Image
import pytest

from gan_jax.figures import images


def decoded(png):
  with PIL.Image.open(io.BytesIO(png)) as picture:
    assert picture.format == 'PNG'
    return np.asarray(picture)


def test_every_byte_comes_back():
  u = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  x = u.astype(np.float32) / 127.5 - 1
  np.testing.assert_array_equal(images.to_uint8(x), u)


def test_values_are_rounded_and_clipped():
  x = np.array([-7.0, -1.0, 0.0, 0.002, 1.0, 9.0])
  assert images.to_uint8(x).tolist() == [0, 0, 128, 128, 255, 255]
  assert images.to_uint8(x).dtype == np.uint8


def test_the_range_does_not_depend_on_the_set():
  """A dull set stays dull, and one sample does not change another."""
  dull = np.linspace(-0.1, 0.1, 64).reshape(1, 8, 8, 1)
  alone = images.to_uint8(dull)
  assert np.ptp(alone) < 30
  both = images.to_uint8(np.concatenate([dull, np.ones_like(dull)]))
  np.testing.assert_array_equal(both[:1], alone)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize(
  'n, columns, shape', [(1, 0, (2, 3)), (5, 0, (5, 11)), (5, 4, (5, 15))]
)
def test_grid_places_images_row_by_row(n, columns, shape, channels):
  u = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1) * np.ones(
    (1, 2, 3, channels), np.uint8
  )
  sheet = images.grid(u, columns)
  assert sheet.shape == (*shape, channels)
  across = columns or int(np.ceil(np.sqrt(n)))
  for i in range(n):
    top, left = (i // across) * 3, (i % across) * 4
    assert (sheet[top : top + 2, left : left + 3] == i).all()
  if n > 1:
    assert (sheet[:, 3] == 255).all()  # the gap
    assert (sheet[-2:, -3:] == 255).all()  # the place that is left empty


def test_small_pictures_are_enlarged_by_whole_pixels():
  u = np.random.default_rng(0).integers(0, 256, (71, 71, 1), np.uint8)
  big = images.enlarged(u)
  times, rest = divmod(big.shape[0], 71)
  assert times >= 2 and rest == 0
  np.testing.assert_array_equal(big[::times, ::times], u)
  np.testing.assert_array_equal(big[times - 1 :: times, times - 1 :: times], u)
  wide = np.zeros((2, 2000, 3), np.uint8)
  assert images.enlarged(wide).shape == wide.shape


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_png_is_lossless(channels):
  u = np.random.default_rng(1).integers(0, 256, (9, 7, channels), np.uint8)
  found = decoded(images.png(u))
  assert found.ndim == (2 if channels == 1 else 3)
  np.testing.assert_array_equal(found.reshape(u.shape), u)


def test_a_grid_of_transparent_images_is_laid_on_white():
  x = np.full((4, 8, 8, 4), -1.0)  # black, and wholly clear
  x[1, ..., 3] = 1.0
  found = decoded(images.grid_png(x))
  times = found.shape[0] // 17
  assert found.shape == (17 * times, 17 * times, 3)
  assert (found[: 8 * times, : 9 * times] == 255).all()
  assert (found[: 8 * times, 9 * times :] == 0).all()


def test_grid_png_of_samples():
  x = np.full((4, 8, 8, 1), -1.0)
  x[1] = 1.0
  found = decoded(images.grid_png(x))
  times = found.shape[0] // 17
  assert found.shape == (17 * times, 17 * times)
  assert (found[: 8 * times, : 8 * times] == 0).all()
  assert (found[: 8 * times, 9 * times :] == 255).all()


def test_a_scatter_plot_has_y_upwards_and_leaves_out_what_is_outside():
  points = np.array([[0.9, 0.9], [0.9, 0.9], [5.0, 0.0]])
  picture = images.scatter(points, (-1.0, 1.0), side=10)
  assert picture.shape == (10, 10, 1) and picture.dtype == np.uint8
  assert picture[0, 9] == 0 and (picture < 255).sum() == 1


def test_a_scatter_plot_of_one_dimension_is_a_histogram():
  points = np.array([[-0.9], [-0.9], [0.9], [7.0]])
  picture = images.scatter(points, (-1.0, 1.0), side=4)[:, :, 0]
  heights = (picture == 0).sum(axis=0)
  assert heights.tolist() == [4, 0, 0, 2]
  assert (picture[-2:, 3] == 0).all()  # it stands on the ground


def test_no_points_are_an_empty_picture():
  for shape in ((0, 1), (0, 2)):
    assert (images.scatter(np.zeros(shape), (-1.0, 1.0)) == 255).all()


def test_a_point_is_where_its_numbers_say():
  """Across by the first, up by the second."""
  picture = images.scatter(np.array([[-0.95, 0.15]]), (-1.0, 1.0), 20)
  assert np.argwhere(picture[..., 0] == 0).tolist() == [[8, 0]]
