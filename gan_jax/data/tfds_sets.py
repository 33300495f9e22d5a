"""Image sets of TensorFlow Datasets: prepared, found, read; without TensorFlow.

TFDS is imported when a function needs it, not before.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import importlib.util
import json
import pathlib
import shutil
import urllib.error
import uuid
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gan_jax.data.errors import DataError, DataFlagError
from gan_jax.data.imageset import (
  Fitted,
  ImageSet,
  content,
  damaged,
  fingerprint,
  hashed,
)
from gan_jax.runtime.progress import progress_bar

# Most bytes of pixels that are hashed for the fingerprint of a set.
_HASHED_BYTES = 2 * 2**30


def _tfds() -> Any:
  import tensorflow_datasets

  return tensorflow_datasets


def _builder(name: str, root: pathlib.Path) -> Any:
  """The builder of a set: ours where we have one, else that of TFDS.

  Raises:
    DataFlagError: if there is no set of that name.
    DataError: if it was prepared in a format without random access.
  """
  try:
    builder = _any_format(name, root)
  except DataError:
    raise
  except FileNotFoundError as error:  # what older TFDS calls a bad one
    raise damaged(root / name, error) from error
  except ValueError as error:  # of a configuration or version; or of JSON
    why = str(error).splitlines()[0][:300]
    raise DataFlagError(f'--dataset={name}: {why}') from error
  except Exception as error:
    # protobuf's own error of a damaged description has no kind in common.
    if type(error).__name__ != 'ParseError':
      raise
    raise damaged(root / name, error) from error
  written = builder.info.file_format
  if _prepared(builder) and written and written.value != 'array_record':
    raise DataError(
      f'--dataset={name}: {builder.data_dir} was prepared as {written.value},'
      ' which cannot be read in any order; prepare it in another folder with\n'
      f'  python -m gan_jax.prepare --dataset={name} --data_dir=OTHER_FOLDER\n'
      'and train with that --data_dir'
    )
  return builder


def _any_format(name: str, root: pathlib.Path) -> Any:
  from gan_jax.data.builders import BUILDERS

  if name in BUILDERS:
    return BUILDERS[name](data_dir=root)
  tfds = _tfds()
  names = tfds.list_builders(with_community_datasets=False)
  stem = name.split('/')[0].split(':')[0]
  if stem not in names and not (stem and (root / stem).is_dir()):
    known = [*BUILDERS, *names]
    close = difflib.get_close_matches(name, known, n=3)
    hint = (
      f'did you mean {" or ".join(close)}?'
      if close
      else ('use --help for the names, or folder:PATH')
    )
    raise DataFlagError(f'--dataset={name}: unknown; {hint}')
  return tfds.builder(name, data_dir=root)


def _prepared(builder: Any) -> bool:
  """Whether a set was prepared to its end."""
  return (pathlib.Path(builder.data_dir) / 'dataset_info.json').is_file()


def _forget_failure(builder: Any) -> None:
  """Removes what an unfinished preparation left: TFDS would trust it.

  Other processes may be preparing the set as well. A finished one appears by
  one rename, so a folder that was there before it was seen to be unfinished is
  so; and it is moved out of the way before its files are removed one by one.
  """
  folder = pathlib.Path(builder.data_dir)
  if not folder.exists() or _prepared(builder):
    return
  away = folder.with_name(f'incomplete.{uuid.uuid4().hex}_{folder.name}')
  with contextlib.suppress(FileNotFoundError):
    folder.rename(away)
  shutil.rmtree(away, ignore_errors=True)


def load(
  name: str, root: pathlib.Path, image_size: int, channels: int, split: str
) -> ImageSet:
  """An image set that is prepared, or `digits`, which prepares itself.

  Raises:
    DataError: if it is not prepared, has no images, or no such split.
  """
  builder = _builder(name, root)
  if not _prepared(builder):
    if name != 'digits':
      raise DataError(
        f'--dataset={name}: is not prepared in {root}; run\n'
        f'  python -m gan_jax.prepare --dataset={name}'
        f'{_and_root(root)}\n(--from=DIR takes the original files from a'
        ' folder instead of the network)'
      )
    prepare(name, root)
    builder = _builder(name, root)
  if split not in builder.info.splits:
    there = ', '.join(builder.info.splits)
    raise DataFlagError(f'{name} has no split {split}; it has {there}')
  shape = _image_shape(name, builder)
  own_channels = shape[2] or 3
  size, wanted = image_size or shape[0], channels or own_channels
  if not image_size and (shape[0] is None or shape[0] != shape[1]):
    raise DataFlagError(
      f'--dataset={name}: images of {shape[0] or "several"}x'
      f'{shape[1] or "sizes"}; set --image_size to resize and crop them to one'
      ' square'
    )
  own = shape == (size, size, wanted)
  files = sorted(pathlib.Path(builder.data_dir).glob(f'*-{split}.*'))
  found = builder.as_data_source(split=split)
  source = Fitted(found, size, wanted, own, pathlib.Path(builder.data_dir))
  if source[0].dtype != np.uint8:
    raise DataFlagError(f'--dataset={name}: its images are not of 8 bits')
  cache = root / 'gan_jax_arrays' if hashed(files) else None
  facts = _facts(builder, split, size, wanted)
  key = fingerprint(files, name, size, wanted)
  shape = (size, size, wanted)
  images = ImageSet(
    name, shape, source, facts, cache, key, *_classes(name, builder, split)
  )
  if images.nbytes > _HASHED_BYTES:
    return images
  return dataclasses.replace(images, fingerprint=content(images))


def _classes(name: str, builder: Any, split: str) -> tuple[Any, Any]:
  """Names of the classes, and what reads every image's; none without labels."""
  tfds = _tfds()
  features = builder.info.features
  feature = features['label'] if 'label' in features else None
  if not isinstance(feature, tfds.features.ClassLabel):
    return (), None

  def read() -> NDArray[np.int32]:
    bare = builder.as_data_source(
      split=split, decoders={'image': tfds.decode.SkipDecoding()}
    )
    labels = np.empty(len(bare), np.int32)
    places = range(len(bare))
    for i in progress_bar(places, len(bare), f'reading labels of {name}'):
      labels[i] = bare[i]['label']
    return labels

  return tuple(map(str, feature.names)), read


def _facts(builder: Any, split: str, size: int, channels: int) -> str:
  """What stands for the content of a set that is too large to be hashed."""
  there = builder.info.splits[split]
  facts = (builder.info.full_name, split, there.num_examples, there.num_bytes)
  return hashlib.sha256(repr((*facts, size, channels)).encode()).hexdigest()


def _and_root(root: pathlib.Path) -> str:
  default = pathlib.Path('~/tensorflow_datasets').expanduser()
  return '' if root == default else f' --data_dir={root}'


def _image_shape(name: str, builder: Any) -> Any:
  features = builder.info.features or {}
  if 'image' not in features:
    raise DataFlagError(
      f'--dataset={name}: has no feature "image", so nothing to learn from'
    )
  return features['image'].shape


def prepare(
  name: str, root: pathlib.Path, originals: str = ''
) -> tuple[pathlib.Path, dict[str, int]]:
  """Downloads and prepares a set, or takes its originals from a folder.

  Args:
    name: of the set.
    root: the data root.
    originals: a folder with the original files under their own names; empty
      to download them.

  Returns:
    The folder of the prepared set, and the images in each of its splits.

  Raises:
    DataError: saying which file, what was expected and what to do.
  """
  builder = _builder(name, root)
  if not _prepared(builder):
    folder = _checked(name, builder, originals) if originals else None
    _forget_failure(builder)
    try:
      _download_and_prepare(builder, folder)
    except BaseException as error:
      # Another process may have been first, as when several start on digits.
      if isinstance(error, Exception) and _prepared(builder):
        return _counted(_builder(name, root))
      _forget_failure(builder)
      told = _explain(name, builder, root, error)
      if told is None:
        raise
      raise told from error
    builder = _builder(name, root)
  return _counted(builder)


def _counted(builder: Any) -> tuple[pathlib.Path, dict[str, int]]:
  counts = {k: v.num_examples for k, v in builder.info.splits.items()}
  return pathlib.Path(builder.data_dir), counts


def _download_and_prepare(builder: Any, folder: pathlib.Path | None) -> None:
  from tensorflow_datasets.core.download import downloader

  # TFDS asks 204 seconds for a network that is not there.
  retries = downloader.MAX_RETRIES
  downloader.MAX_RETRIES = 1
  try:
    config = _tfds().download.DownloadConfig(
      manual_dir=folder, verify_ssl=True, force_checksums_validation=True
    )
    builder.download_and_prepare(
      download_config=config, file_format='array_record'
    )
  finally:
    downloader.MAX_RETRIES = retries


def _checked(name: str, builder: Any, originals: str) -> pathlib.Path:
  """A folder whose files are the originals, by name, size and SHA-256."""
  folder = pathlib.Path(originals).expanduser()
  if not folder.is_dir():
    raise DataFlagError(f'--from={originals}: no such folder')
  if name == 'cifar10' and (unpacked := _unpacked(folder)):
    builder.unpacked = unpacked
    return folder
  for url, info in _urls(builder).items():
    path = folder / info.filename
    if not path.is_file():
      raise DataError(
        f'--from={originals}: has no {info.filename}, an original of {name};'
        f' get it from {url}'
      )
    if path.stat().st_size != int(info.size):
      raise DataError(
        f'{path}: has {path.stat().st_size} bytes and the original'
        f' {int(info.size)}; it is cut short or another file, copy it again'
      )
    with open(path, 'rb') as file:
      found = hashlib.file_digest(file, 'sha256').hexdigest()
    if found != info.checksum:
      raise DataError(
        f'{path}: has SHA-256 {found} and the original {info.checksum}; it is'
        ' damaged or another file, copy it again'
      )
  return folder


def _unpacked(folder: pathlib.Path) -> list[pathlib.Path]:
  """CIFAR-10's binary batches, where their archive is not but they are."""
  from gan_jax.data.builders import CIFAR_MD5

  if (folder / 'cifar-10-binary.tar.gz').is_file():
    return []
  if (folder / 'cifar-10-batches-bin').is_dir():
    folder = folder / 'cifar-10-batches-bin'
  paths = [folder / name for name in CIFAR_MD5]
  train = [path for path in paths if path.name != 'test_batch.bin']
  if not any(path.is_file() for path in train):
    return []
  for path in train:
    if not path.is_file():
      raise DataError(f'{path}: is missing beside the other batches of cifar10')
  there = [path for path in paths if path.is_file()]
  for path in there:
    with open(path, 'rb') as file:
      found = hashlib.file_digest(file, 'md5').hexdigest()
    if found != CIFAR_MD5[path.name]:
      raise DataError(
        f'{path}: has MD5 {found} and the original {CIFAR_MD5[path.name]}; it'
        ' is damaged or another file, copy it again'
      )
  return there


def _urls(builder: Any) -> dict[str, Any]:
  """The originals of a set that are needed, by address."""
  return dict(builder.url_infos or {})


def _explain(
  name: str, builder: Any, root: pathlib.Path, error: BaseException
) -> DataError | None:
  """What to tell a person about a failed preparation; None for a bug."""
  if isinstance(error, DataError):
    return error
  text = f'{type(error).__name__}: {error}'.strip()
  if 'NonMatchingChecksum' in text:
    return DataError(
      f'--dataset={name}: what was downloaded has another checksum than the'
      f' original ({text.splitlines()[0]}); try again, or take the originals'
      ' from a folder with --from=DIR'
    )
  if _is_network(error):
    return _no_network(name, builder, root, error)
  # An OSError may name the folder tensorflow_datasets.
  missing_tf = isinstance(error, ImportError) or (
    'tensorflow' in text.lower() and not isinstance(error, OSError)
  )
  if missing_tf and importlib.util.find_spec('tensorflow') is None:
    return DataError(
      f'--dataset={name}: TFDS prepares this set with TensorFlow, which is not'
      " installed; run pip install 'gan_jax[tfds]' (reading it needs none)"
    )
  if isinstance(error, OSError):
    return DataError(f'--data_dir={root}: {error}')
  return None


def _is_network(error: BaseException) -> bool:
  import requests

  kinds = (requests.RequestException, urllib.error.URLError, ConnectionError)
  seen: BaseException | None = error
  while seen is not None:
    if isinstance(seen, kinds) or 'DownloadError' in type(seen).__name__:
      return True
    seen = seen.__cause__ or seen.__context__
  return False


def _no_network(
  name: str, builder: Any, root: pathlib.Path, error: BaseException
) -> DataError:
  first = (str(error) or repr(error)).splitlines()[0][:200]
  lines = '\n'.join(f'  {url}' for url in _urls(builder)) or '  (see TFDS)'
  return DataError(
    f'--dataset={name}: the originals could not be downloaded ({first}).\n'
    'On a machine without network, fetch these files elsewhere:\n'
    f'{lines}\nput them into one folder under their own names, and run\n'
    f'  python -m gan_jax.prepare --dataset={name} --from=THAT_FOLDER'
    f'{_and_root(root)}'
  )


def describe(folder: pathlib.Path) -> str:
  """Name and version that a prepared set says of itself."""
  facts = json.loads((folder / 'dataset_info.json').read_text())
  return f'{facts["name"]} {facts["version"]}'
