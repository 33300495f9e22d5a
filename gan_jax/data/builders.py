"""TFDS builders that prepare without TensorFlow.

Reading a prepared set through `tfds.data_source` needs no TensorFlow; the stock
builders of MNIST, Fashion-MNIST and CIFAR-10 need it to prepare. These
subclasses replace the two methods that do, keep the stock name, version,
features and checksums, and what they prepare is read by any TFDS. `digits` is a
builder of our own. Importing this module imports TFDS.
"""

import gzip
import math
import pathlib
import struct
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from numpy.typing import NDArray
from tensorflow_datasets.core import registered
from tensorflow_datasets.image_classification import cifar, mnist

from gan_jax.runtime import archives
from gan_jax.runtime.errors import DataError

Example = tuple[int, dict[str, Any]]


def read_idx(path: pathlib.Path) -> NDArray[np.uint8]:
  """An array from a gzipped idx file of bytes (LeCun's MNIST format).

  Memory is that of the array, which has at most `archives.RATIO` times the
  file's bytes, or `archives.FLOOR` where that is less.

  Raises:
    DataError: if the file is cut short or of another format.
  """
  most = max(archives.FLOOR, archives.RATIO * path.stat().st_size)
  try:
    with gzip.open(path) as file:
      content = file.read(most + 1)
  except (EOFError, OSError, zlib.error) as error:
    raise DataError(
      f'{path}: is cut short or no gzip file ({error}); copy it again'
    ) from error
  zero, kind, dims = struct.unpack('>HBB', content[:4].ljust(4, b'\xff'))
  header = 4 + 4 * dims
  if zero != 0 or kind != 8 or len(content) < header:
    raise DataError(f'{path}: is no idx file of bytes; copy it again')
  shape = struct.unpack(f'>{dims}I', content[4:header])
  values = np.frombuffer(content, np.uint8, offset=header)
  if len(content) > most:
    raise DataError(
      f'{path}: unpacks to more than {most:,} bytes; copy it again'
    )
  if values.size != math.prod(shape):
    raise DataError(
      f'{path}: holds {values.size} bytes where its header says {shape}; copy'
      ' it again'
    )
  return values.reshape(shape)


def _picture(pixels: NDArray[np.uint8]) -> PIL.Image.Image:
  # Given an array, TFDS would encode it with TensorFlow.
  return PIL.Image.fromarray(pixels.squeeze())


class _Idx:
  """Generation from four idx files, for MNIST and its like."""

  _FILES = {
    'train': ('train-images-idx3-ubyte.gz', 'train-labels-idx1-ubyte.gz'),
    'test': ('t10k-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte.gz'),
  }
  URL: str

  def _split_generators(self, downloads: Any) -> dict[str, Any]:
    urls = {
      split: {n: self.URL + name for n, name in enumerate(names)}
      for split, names in self._FILES.items()
    }
    paths = downloads.download(urls)
    return {
      split: self._generate_examples(files[0], files[1])
      for split, files in paths.items()
    }

  def _generate_examples(self, images: Any, labels: Any) -> Iterator[Example]:
    pairs = zip(
      read_idx(pathlib.Path(images)),
      read_idx(pathlib.Path(labels)),
      strict=True,
    )
    for i, (image, label) in enumerate(pairs):
      yield i, {'image': _picture(image), 'label': int(label)}


_CIFAR_BYTES = 1 << 26  # of a batch of 10,000 images, with room to spare
_DAMAGED = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error)


def read_cifar(path: pathlib.Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
  """Batches of CIFAR-10's binary archive: file name and (n, 3073) records.

  A .bin file is one such batch.

  Raises:
    DataError: if the archive is damaged.
  """
  try:
    if path.suffix == '.bin':
      yield path.name, np.fromfile(path, np.uint8).reshape(-1, 3073)
      return
    with tarfile.open(path) as archive:
      for member in archive:
        if not member.name.endswith('.bin'):
          continue
        file = archive.extractfile(member)
        if file is None or member.size > _CIFAR_BYTES:
          raise ValueError(f'{member.name[-30:]} is no batch of images')
        records = np.frombuffer(file.read(), np.uint8)
        yield pathlib.PurePath(member.name).name, records.reshape(-1, 3073)
  except _DAMAGED as error:
    raise DataError(
      f'{path}: is damaged or no CIFAR-10 archive ({error}); copy it again'
    ) from error


# Of the binary batches, as they are unpacked: what several libraries check.
CIFAR_MD5 = {
  'data_batch_1.bin': '5dd7e06a14cb22eb9f671a540d1b7c25',
  'data_batch_2.bin': '5ea93a67294ea407fff1d09f752e9692',
  'data_batch_3.bin': '942cd6a4bcdd0dd3c604fbe906cb4421',
  'data_batch_4.bin': 'ae636b3ba5c66a11e91e8cb52e771fcb',
  'data_batch_5.bin': '53f37980c15c3d472c316c40844f3f0d',
  'test_batch.bin': '803d5f7f4d78ea53de84dbe85f74fb6d',
}
_CIFAR_NAMES = (
  'airplane automobile bird cat deer dog frog horse ship truck'.split()
)

with registered.skip_registration():

  class MNIST(_Idx, mnist.MNIST):  # type: ignore[misc]
    """MNIST, without TensorFlow."""

    name = 'mnist'
    _checksums_path = mnist.MNIST._checksums_path

  class FashionMNIST(_Idx, mnist.FashionMNIST):  # type: ignore[misc]
    """Fashion-MNIST, without TensorFlow."""

    name = 'fashion_mnist'
    _checksums_path = mnist.FashionMNIST._checksums_path

  class Cifar10(cifar.Cifar10):  # type: ignore[misc]
    """CIFAR-10, without TensorFlow."""

    name = 'cifar10'
    _checksums_path = cifar.Cifar10._checksums_path
    # Batches that are unpacked already. Without test_batch.bin, no test split.
    unpacked: Sequence[pathlib.Path] = ()

    def _split_generators(self, downloads: Any) -> dict[str, Any]:
      self.info.features['label'].names = _CIFAR_NAMES
      paths = list(self.unpacked)
      tested = any(path.name == 'test_batch.bin' for path in paths)
      if not paths:
        paths = [pathlib.Path(downloads.download(self._cifar_info.url))]
        tested = True
      splits = ('train', 'test') if tested else ('train',)
      return {k: self._generate_examples(f'{k}_', paths) for k in splits}

    def _generate_examples(self, prefix: str, paths: Any) -> Iterator[Example]:
      wanted = 'data_batch' if prefix == 'train_' else 'test_batch'
      i = 0
      batches = (batch for path in paths for batch in read_cifar(path))
      for name, records in sorted(batches, key=lambda pair: pair[0]):
        if not name.startswith(wanted):
          continue
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        for label, image in zip(records[:, 0], images, strict=True):
          yield (
            i,
            {
              'id': f'{prefix}{i:05d}',
              'image': _picture(np.ascontiguousarray(image)),
              'label': int(label),
            },
          )
          i += 1

  class Digits(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
    """The 1,797 handwritten digits, 8x8, that scikit-learn carries.

    The test part of the UCI set "Optical Recognition of Handwritten Digits"
    (Alpaydin & Kaynak 1998), with values 0 to 16, here scaled to 255. Needs no
    network.
    """

    name = 'digits'
    VERSION = tfds.core.Version('1.0.0')

    def _info(self) -> Any:
      return tfds.core.DatasetInfo(
        builder=self,
        description=Digits.__doc__,
        features=tfds.features.FeaturesDict(
          {
            'image': tfds.features.Image(shape=(8, 8, 1)),
            'label': tfds.features.ClassLabel(num_classes=10),
          }
        ),
        supervised_keys=('image', 'label'),
        homepage='https://doi.org/10.24432/C50P49',
      )

    def _split_generators(self, downloads: Any) -> dict[str, Any]:
      del downloads
      return {'train': self._generate_examples()}

    def _generate_examples(self) -> Iterator[Example]:
      from sklearn.datasets import load_digits

      digits = load_digits()
      images = np.round(digits.images * (255 / 16)).astype(np.uint8)
      for i, (image, label) in enumerate(
        zip(images, digits.target, strict=True)
      ):
        yield i, {'image': _picture(image), 'label': int(label)}


BUILDERS: dict[str, type[Any]] = {
  'digits': Digits,
  'mnist': MNIST,
  'fashion_mnist': FashionMNIST,
  'cifar10': Cifar10,
}
