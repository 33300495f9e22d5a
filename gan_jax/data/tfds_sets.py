"""Image sets of TensorFlow Datasets, prepared and read without TensorFlow.

TFDS is imported when a function needs it, not before.
"""

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib.util
import io
import os
import pathlib
import re
import shutil
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from gan_jax.data import decoding
from gan_jax.data.pictures import resize_and_crop
from gan_jax.data.samples import (
  SampleSet,
  are_hashed_whole,
  hash_files,
  hash_samples,
  hash_some,
  remember,
)
from gan_jax.runtime import copies, places
from gan_jax.runtime.errors import ArgumentError, DataError, Error, shortened
from gan_jax.runtime.files import describe_failed_write
from gan_jax.runtime.progress import progress_bar

# Most bytes of pixels that are hashed for the fingerprint of a set.
_HASHED_BYTES = 2 * 2**30
_TIMEOUT = 10.0  # seconds in which a server must answer
# Bytes of pixels that are worth processes, each of which imports TFDS.
_MANY_BYTES = 64 * 2**20
_KNOWN = ('tensorflow_datasets.', 'gan_jax.')  # where builders are defined


def data_root(data_dir: str = '') -> pathlib.Path:
  """The data root: as given, $TFDS_DATA_DIR, or ~/tensorflow_datasets.

  Of one in an object store, the folder that sets are copied to.

  Raises:
    ArgumentError: for a path that no folder can have.
  """
  named = _named_root(data_dir)
  if not named:
    return places.below_home('~/tensorflow_datasets')
  if places.scheme_of(named):
    return copies.folder_of(named)
  root = places.resolved('data_dir', named)
  try:
    root.exists()
  except OSError as error:
    raise ArgumentError('data_dir', named, f'{error.strerror}') from error
  return root


def _named_root(data_dir: str) -> str:
  return data_dir or os.environ.get('TFDS_DATA_DIR', '')


def url_of(name: str, data_dir: str = '') -> str:
  """Where a set is in an object store; '' for a data root on this machine."""
  named = _named_root(data_dir)
  stem = name.split('/')[0].split(':')[0]
  return f'{named.rstrip("/")}/{stem}' if places.scheme_of(named) else ''


def fetch(name: str, data_dir: str = '') -> None:
  """Copies a set of a data root in an object store, if it is there.

  Raises:
    ArgumentError, StoreAway: if the store refuses or does not answer.
  """
  url = url_of(name, data_dir)
  if url:
    place = data_root(data_dir) / url.rpartition('/')[2]
    copies.fetch(url, 'data_dir', place)


class _Images:
  """Images of a TFDS data source, resized and cropped when asked for."""

  def __init__(
    self,
    name: str,
    builder: Any,
    split: str,
    size: int,
    channels: int,
    own: bool,
    root: pathlib.Path,
  ) -> None:
    """`own`: the set's own size and channels are wanted as they are."""
    self._place = pathlib.Path(builder.data_dir)
    self._source = builder.as_data_source(split=split)
    self._size, self._channels, self._own = size, channels, own
    self._recipe = (name, str(root), split, size, channels, own)
    # Whether another process finds the builder, too.
    self._anywhere = type(builder).__module__.startswith(_KNOWN)

  def __len__(self) -> int:
    """How many records there are."""
    return len(self._source)

  def __getitem__(self, index: Any) -> NDArray[np.uint8]:
    """One image."""
    try:
      pixels = np.asarray(self._source[int(index)]['image'])
    except (RuntimeError, OSError, ValueError) as error:
      raise _damaged(self._place, error) from error
    if self._own:
      return pixels
    image = PIL.Image.fromarray(pixels.squeeze())
    return resize_and_crop(image, self._size, self._channels)

  @property
  def batches(self) -> Callable[[Any], Any] | None:
    """Images by the batch, decoded by processes; None where that is no gain."""
    size = self._size**2 * self._channels
    if not self._anywhere or len(self) * size < _MANY_BYTES:
      return None
    return lambda picks: decoding.decode_batches(
      'gan_jax.data.tfds_sets:decode_there',
      lambda picked: (*self._recipe, picked),
      picks,
      size,
      _take,
    )


def _take(found: Any) -> NDArray[np.uint8]:
  """An answer of a process."""
  if isinstance(found, Exception):
    raise found
  images: NDArray[np.uint8] = found
  return images


@functools.lru_cache(maxsize=1)
def _images_there(
  name: str, root: str, split: str, size: int, channels: int, own: bool
) -> _Images:
  place = pathlib.Path(root)
  builder = _builder(name, place)
  return _Images(name, builder, split, size, channels, own, place)


def decode_there(*recipe: Any) -> NDArray[np.uint8] | DataError:
  """Images of a prepared set, in another process.

  Args:
    *recipe: name, root, split, size, channels and own, as `_Images` has them,
      and the records.
  """
  *how, picked = recipe
  try:
    images = _images_there(*how)
    return np.stack([images[i] for i in picked.tolist()])
  except DataError as error:  # its kind would be lost on the way
    return error


def _damaged(place: pathlib.Path, error: BaseException) -> DataError:
  """A prepared set that cannot be read."""
  why = (str(error) or repr(error)).splitlines()[0][:200]
  return DataError(
    f'{place}: is damaged ({why}); remove this folder and prepare the set again'
  )


def _tfds() -> Any:
  import tensorflow_datasets

  return tensorflow_datasets


def _builder(name: str, root: pathlib.Path) -> Any:
  """The builder of a set: ours where we have one, else that of TFDS.

  Raises:
    ArgumentError: if there is no set of that name.
    DataError: if it was prepared in a format without random access.
  """
  try:
    builder = _find_builder(name, root)
  except Error:
    raise
  except ImportError as error:
    raise _needs_tensorflow(name, error) from error
  except AssertionError as error:  # of a version that TFDS has no more
    why = str(error).splitlines()[0][:300]
    raise ArgumentError('dataset', name, why) from error
  except FileNotFoundError as error:  # what older TFDS calls a bad one
    raise _damaged(root / name, error) from error
  except OSError as error:
    raise _unusable_root(root, error) from error
  except ValueError as error:  # of a configuration or version; or of JSON
    why = str(error).splitlines()[0][:300]
    raise ArgumentError('dataset', name, why) from error
  except Exception as error:
    # protobuf's own error of a damaged description has no kind in common.
    if type(error).__name__ != 'ParseError':
      raise
    raise _damaged(root / name, error) from error
  written = builder.info.file_format
  if _prepared(builder) and written and written.value != 'array_record':
    raise DataError(
      f'`dataset={name}`: {builder.data_dir} was prepared as {written.value},'
      ' which cannot be read in any order; prepare it in another folder with\n'
      f'  {_call(name, pathlib.Path("OTHER_FOLDER"))}\n'
      'and train with that `data_dir`'
    )
  return builder


def _needs_tensorflow(name: str, error: BaseException) -> DataError:
  """What to do about a set whose builder imports what is not installed."""
  if importlib.util.find_spec('tensorflow') is None:
    return DataError(
      f'`dataset={name}`: TFDS prepares this set with TensorFlow, which is not'
      " installed; run pip install 'gan_jax[tfds]' (reading it needs none)"
    )
  why = str(error).splitlines()[0][:200]
  return DataError(f'`dataset={name}`: TFDS cannot make this set ({why})')


def _unusable_root(root: pathlib.Path, error: OSError) -> DataError:
  why = error.strerror or error
  return DataError(
    f'`data_dir={shortened(str(root))}`: {why}; use a folder that exists and'
    ' that you may write to'
  )


def _find_builder(name: str, root: pathlib.Path) -> Any:
  """The builder of a set, in whatever format it was prepared."""
  from gan_jax.data.builders import BUILDERS

  if name in BUILDERS:
    return BUILDERS[name](data_dir=root)
  if not is_known(name, root):
    remedy = 'unknown; use a set of images that TFDS knows, or folder:PATH'
    raise ArgumentError('dataset', name, remedy)
  with contextlib.redirect_stdout(io.StringIO()):  # of a missing TensorFlow
    return _tfds().builder(name, data_dir=root)


def is_known(name: str, root: pathlib.Path) -> bool:
  """Whether TFDS has a set of a name, or one was prepared in the data root."""
  stem = name.split('/')[0].split(':')[0]
  if not re.fullmatch(r'\w+', stem):
    return False
  return stem in _known_names() or os.path.isdir(root / stem)


def _known_names() -> list[str]:
  names: list[str] = _tfds().list_builders(with_community_datasets=False)
  return names


def check_name(name: str, root: pathlib.Path, own: Collection[str]) -> None:
  """Raises on a name that is no set's, with those that may be meant.

  Args:
    name: of the set.
    root: the data root.
    own: further names that a dataset may have.

  Raises:
    ArgumentError: naming the closest ones.
  """
  if name in own or is_known(name, root):
    return
  if os.path.isdir(os.path.expanduser(name)):
    remedy = f'is a folder; write folder:{name} to train on its images'
    raise ArgumentError('dataset', name, remedy)
  kind, colon, path = name.partition(':')
  if colon and kind.lower() in ('folder', 'density'):
    remedy = f'unknown; write {kind.lower()}:{path}'
    raise ArgumentError('dataset', name, remedy)
  names = dict.fromkeys([*own, *_known_names()])
  by_letters = {_letters(name): name for name in names}
  close = difflib.get_close_matches(_letters(name), by_letters, n=3)
  if _letters(name) in by_letters:
    close = [_letters(name)]
  hint = 'use a set of images that TFDS knows, or folder:PATH'
  if close:
    hint = f'did you mean {" or ".join(by_letters[word] for word in close)}?'
  raise ArgumentError('dataset', name, f'unknown; {hint}')


def _letters(name: str) -> str:
  """A name as people spell it: MNIST, Fashion-MNIST, CIFAR-10."""
  return re.sub(r'[\W_]+', '', name.lower())


def _prepared(builder: Any) -> bool:
  """Whether a set was prepared to its end."""
  return os.path.isfile(pathlib.Path(builder.data_dir) / 'dataset_info.json')


def is_prepared(name: str, root: pathlib.Path) -> bool:
  """Whether a set was prepared to its end."""
  return _prepared(_builder(name, root))


def _remove_unfinished(builder: Any) -> None:
  """Removes what an unfinished preparation left: TFDS would trust it.

  Other processes may be preparing the set as well. A finished one appears by
  one rename, so a folder that existed before it was seen to be unfinished is
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
) -> SampleSet:
  """An image set that is prepared, or `digits`, which prepares itself.

  Raises:
    ArgumentError: if it has no such split, or its images must be converted.
    DataError: if it is not prepared, or damaged.
  """
  builder = _builder(name, root)
  if not _prepared(builder):
    if name != 'digits':
      raise DataError(
        f'`dataset={name}`: is not prepared in {root}; run\n'
        f'  {_call(name, root)}\nor, with the original files in a folder,\n'
        f'  {_call(name, root, "DIR")}'
      )
    prepare(name, root)
    builder = _builder(name, root)
  if split not in builder.info.splits:
    splits = ', '.join(builder.info.splits)
    raise ArgumentError('split', split, f'no such split; {name} has {splits}')
  shape = _image_shape(name, builder)
  size, wanted = image_size or shape[0], channels or shape[2] or 3
  if not image_size and (shape[0] is None or shape[0] != shape[1]):
    raise ArgumentError(
      'dataset',
      name,
      f'images of {shape[0] or "several"}x{shape[1] or "sizes"}; set'
      ' `image_size` to resize and crop them to one square',
    )
  if wanted == 4 and shape[2] not in (None, 4):
    raise ArgumentError(
      'channels', 4, f'the images of {name} have no transparency; leave it out'
    )
  own = shape == (size, size, wanted)
  files = sorted(pathlib.Path(builder.data_dir).glob(f'*-{split}.*'))
  source = _Images(name, builder, split, size, wanted, own, root)
  if source[0].dtype != np.uint8:
    raise ArgumentError('dataset', name, 'its images are not of 8 bits')
  cache, how = root / 'gan_jax_arrays', (name, size, wanted)
  images = SampleSet(
    name,
    (size, size, wanted),
    source,
    _hash_facts(builder, split, size, wanted),
    cache if are_hashed_whole(files) else None,
    remember(cache, files, ('files', *how), lambda: hash_files(files, *how)),
    *_classes(name, builder, split),
  )
  facts = images.fingerprint
  if images.nbytes > _HASHED_BYTES:
    what, make = 'some', lambda: hash_some(images, facts)
  else:
    what, make = 'samples', lambda: hash_samples(images)
  # Of decoded pixels, which a large set that is streamed is not read for.
  fingerprint = remember(cache, files, (what, facts, *how), make)
  return dataclasses.replace(images, fingerprint=fingerprint)


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


def _hash_facts(builder: Any, split: str, size: int, channels: int) -> str:
  """What stands beside some records of a set that is too large to be hashed."""
  info = builder.info.splits[split]
  facts = (builder.info.full_name, split, info.num_examples, info.num_bytes)
  return hashlib.sha256(repr((*facts, size, channels)).encode()).hexdigest()


def _call(name: str, root: pathlib.Path, originals: str = '') -> str:
  """The call that prepares a set; a command prints the command in its place."""
  default = places.below_home('~/tensorflow_datasets')
  words = {'data_dir': '' if root == default else root, 'originals': originals}
  rest = ''.join(f", {key}='{value}'" for key, value in words.items() if value)
  return f"`gan_jax.data.prepare('{name}'{rest})`"


def _image_shape(name: str, builder: Any) -> Any:
  features = builder.info.features or {}
  if 'image' not in features:
    raise ArgumentError(
      'dataset', name, 'has no feature "image", so nothing to learn from'
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
    ArgumentError: for a name that is unknown, or a folder that is not there.
    DataError: saying which file, what was expected and what to do.
  """
  builder = _builder(name, root)
  if not _prepared(builder):
    folder = _verify_originals(name, builder, originals) if originals else None
    _remove_unfinished(builder)
    try:
      _download_and_prepare(builder, folder)
    except BaseException as error:
      # Another process may have been first, as when several start on digits.
      if isinstance(error, Exception) and _prepared(builder):
        return _count_images(_builder(name, root))
      _remove_unfinished(builder)
      explained = _explain(name, builder, root, error)
      if explained is None:
        raise
      raise explained from error
    builder = _builder(name, root)
  return _count_images(builder)


def _count_images(builder: Any) -> tuple[pathlib.Path, dict[str, int]]:
  counts = {k: v.num_examples for k, v in builder.info.splits.items()}
  return pathlib.Path(builder.data_dir), counts


def _download_and_prepare(builder: Any, folder: pathlib.Path | None) -> None:
  config = _tfds().download.DownloadConfig(
    manual_dir=folder, verify_ssl=True, force_checksums_validation=True
  )
  # TFDS announces a download of unknown size where there is none; and what
  # it has to say is no part of the output of a program.
  output: Any = sys.stderr
  if not _urls(builder):
    print(
      f'preparing {builder.name} in {builder.data_dir}; nothing is downloaded',
      file=sys.stderr,
    )
    output = io.StringIO()
  elif folder is None:
    _reach(next(iter(_urls(builder))))
  with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
    builder.download_and_prepare(
      download_config=config, file_format='array_record'
    )


def _reach(url: str) -> None:
  """Asks for a file once: without a network, TFDS would ask for minutes.

  Raises:
    URLError: if there is no answer; an answer that is none is for TFDS.
  """
  request = urllib.request.Request(url, method='HEAD')
  with contextlib.suppress(urllib.error.HTTPError):
    urllib.request.urlopen(request, timeout=_TIMEOUT).close()


def _verify_originals(name: str, builder: Any, originals: str) -> pathlib.Path:
  """The folder, whose files are the originals by name, size and SHA-256."""
  folder = places.resolved('originals', originals)
  if not os.path.isdir(folder):
    raise ArgumentError('originals', originals, 'no such folder')
  if name == 'cifar10' and (unpacked := _unpacked(folder)):
    builder.unpacked = unpacked
    return folder
  for url, info in _urls(builder).items():
    path = folder / info.filename
    if not path.is_file():
      raise DataError(
        f'{folder}: has no {info.filename}, an original of {name}; get it from'
        f' {url}'
      )
    if path.stat().st_size != int(info.size):
      raise DataError(
        f'{path}: has {path.stat().st_size} bytes and the original'
        f' {int(info.size)}; it is cut short or another file, copy it again'
      )
    with open(path, 'rb') as file:
      checksum = hashlib.file_digest(file, 'sha256').hexdigest()
    if checksum != info.checksum:
      raise DataError(
        f'{path}: has SHA-256 {checksum} and the original {info.checksum}; it'
        ' is damaged or another file, copy it again'
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
  existing = [path for path in paths if path.is_file()]
  for path in existing:
    with open(path, 'rb') as file:
      checksum = hashlib.file_digest(file, 'md5').hexdigest()
    if checksum != CIFAR_MD5[path.name]:
      raise DataError(
        f'{path}: has MD5 {checksum} and the original {CIFAR_MD5[path.name]};'
        ' it is damaged or another file, copy it again'
      )
  return existing


def _urls(builder: Any) -> dict[str, Any]:
  """The originals of a set that are needed, by address."""
  return dict(builder.url_infos or {})


def _explain(
  name: str, builder: Any, root: pathlib.Path, error: BaseException
) -> Error | None:
  """What a failed preparation means for the user; None for a bug."""
  if isinstance(error, Error):
    return error
  text = f'{type(error).__name__}: {error}'.strip()
  if 'NonMatchingChecksum' in text:
    return DataError(
      f'`dataset={name}`: what was downloaded has another checksum than the'
      f' original ({text.splitlines()[0]}); try again, or take the originals'
      f' from a folder:\n  {_call(name, root, "DIR")}'
    )
  if _is_network(error):
    return _no_network(name, builder, root, error)
  # An OSError may name the folder tensorflow_datasets.
  missing_tf = isinstance(error, ImportError) or (
    'tensorflow' in text.lower() and not isinstance(error, OSError)
  )
  if missing_tf and importlib.util.find_spec('tensorflow') is None:
    return _needs_tensorflow(name, error)
  if isinstance(error, OSError):
    return DataError(
      f'`data_dir={root}`: cannot write there:'
      f' {describe_failed_write(root, error)}'
    )
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
    f'`dataset={name}`: the originals could not be downloaded ({first}).\n'
    'On a machine without network, fetch these files elsewhere:\n'
    f'{lines}\nput them into one folder under their own names, and run\n'
    f'  {_call(name, root, "THAT_FOLDER")}'
  )
