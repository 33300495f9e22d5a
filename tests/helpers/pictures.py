"""Images to test with: files, folders, and sets of numbered ones."""

import pathlib

import numpy as np
import PIL.Image
import pytest

from gan_jax import data

RANDOM = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)


def save(path: pathlib.Path, pixels, mode=None, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = PIL.Image.fromarray(np.asarray(pixels, np.uint8))
  (image.convert(mode) if mode else image).save(path, **options)


def folder(path, **options):
  return data.load(f'folder:{path}', data_dir=str(path / 'root'), **options)


def numbered(size=10, side=2, channels=1):
  """A set whose image n is full of the number n."""
  values = np.arange(size, dtype=np.uint8).reshape(-1, 1, 1, 1)
  shape = (side, side, channels)
  return data.SampleSet(
    'numbered', shape, values * np.ones(shape, np.uint8), ''
  )


def make(images=None, **options):
  given = {'seed': 3, 'batch_size': 4, 'residence': 'device'}
  return data.make_feed(images or numbered(), **{**given, **options})


both = pytest.mark.parametrize('residence', ['device', 'stream'])
