"""The cache of arrays: made once, and no damage goes unnoticed."""

import numpy as np
import pytest

from gan_jax.runtime.array_cache import (
  cached_arrays,
  digest_arrays,
  digest_facts,
)

FACTS = {'of': 'a test', 'shape': [60, 2]}
ARRAYS = {
  'x': np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32),
  'labels': np.arange(60, dtype=np.int32),
}


class Maker:
  """Makes the arrays, and counts how often."""

  def __init__(self):
    self.calls = 0

  def __call__(self):
    self.calls += 1
    return dict(ARRAYS)


@pytest.fixture
def cache(tmp_path):
  """What reads the cache, its one file, and the maker."""
  make = Maker()

  def read(facts=FACTS, **options):
    return cached_arrays(tmp_path / 'new', facts, make, **options)

  equal(read())
  (path,) = (tmp_path / 'new').iterdir()
  return read, path, make


def equal(arrays):
  assert set(arrays) == set(ARRAYS)
  for name, x in arrays.items():
    assert x.dtype == ARRAYS[name].dtype
    np.testing.assert_array_equal(x, ARRAYS[name])


def test_made_once_and_read_afterwards(cache):
  read, path, make = cache
  equal(read())
  equal(read({'shape': [60, 2], 'of': 'a test'}))  # in whatever order
  assert make.calls == 1
  read({**FACTS, 'of': 'another'})
  assert make.calls == 2 and len(list(path.parent.iterdir())) == 2


def test_a_file_is_named_after_what_it_holds(cache):
  read, path, _ = cache
  read(name='folder:/a b/' + 'long/' * 90 + 'faces')
  (other,) = set(path.parent.iterdir()) - {path}
  assert other.name.partition('-')[0].endswith('_long_faces')
  assert digest_facts(FACTS)[:8] in other.name and len(other.name) < 120


def damage(path, how):
  content = bytearray(path.read_bytes())
  if how == 'a number':
    with np.load(path) as whole:
      arrays = dict(whole)
    arrays['x'][3, 1] += 1  # and zip's own checksum is right
    np.savez(path, **arrays)
  elif how == 'no seal':
    np.savez(path, **ARRAYS)
  elif how == 'cut short':
    path.write_bytes(content[:-50])
  else:
    content[how] ^= 1
    path.write_bytes(content)


# Bytes in zip's header, in the numbers, and in the hash.
@pytest.mark.parametrize(
  'how', [0, 300, 1000, 'a number', 'no seal', 'cut short']
)
def test_a_damaged_file_is_named_and_made_anew(how, cache, capsys):
  read, path, make = cache
  damage(path, how)
  equal(read())
  said = capsys.readouterr().err
  if how != 0:
    assert make.calls == 2 and f'warning: {path} is damaged' in said
  equal(read())
  assert make.calls <= 2 and not capsys.readouterr().err


def test_any_flipped_byte_gives_the_same_arrays(cache):
  read, path, _ = cache
  content = path.read_bytes()
  for place in range(0, len(content), 29):
    damaged = bytearray(content)
    damaged[place] ^= 16
    path.write_bytes(damaged)
    equal(read())


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path):
  (tmp_path / 'file').write_text('in the way')
  equal(cached_arrays(tmp_path / 'file' / 'below', FACTS, Maker()))


def test_a_process_that_is_not_to_write_writes_nothing(tmp_path):
  equal(cached_arrays(tmp_path / 'new', FACTS, Maker(), write=False))
  assert not (tmp_path / 'new').exists()


def test_a_digest_is_of_names_types_and_shapes_too():
  """The same bytes may be other arrays."""
  x = np.arange(6, dtype=np.int32)
  others = [
    {'x': x},
    {'y': x},
    {'x': x.view(np.float32)},
    {'x': x.reshape(2, 3)},
    {'x': x[:3], 'y': x[3:]},
    {'x': x[:2], 'y': x[2:]},
  ]
  assert len({digest_arrays(arrays) for arrays in others}) == len(others)
  assert digest_facts({'a': 1, 'b': 2}) == digest_facts({'b': 2, 'a': 1})
