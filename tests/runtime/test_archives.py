"""Arrays of files that nobody vouches for: no claim of theirs is believed."""

import io
import zipfile

import numpy as np
import pytest

from gan_jax.runtime import archives
from gan_jax.runtime.archives import ArchiveError

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(array, **how):
  buffer = io.BytesIO()
  np.lib.format.write_array(buffer, array, **how)
  return buffer.getvalue()


def archive(path, **members):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
    for name, content in members.items():
      file.writestr(f'{name}.npy', content)
  return path


def test_there_and_back(tmp_path):
  np.savez_compressed(tmp_path / 'a.npz', x=X, none=np.zeros((0, 2)), one=7)
  arrays = archives.read_arrays(tmp_path / 'a.npz')
  assert [*arrays] == ['x', 'none', 'one']
  np.testing.assert_array_equal(arrays['x'], X)
  assert arrays['none'].shape == (0, 2) and arrays['one'] == 7
  with archives.open_arrays(tmp_path / 'a.npz') as found:
    assert len(found) == 3 and 'y' not in found
    with pytest.raises(KeyError):
      found['y']


def grown(content):
  """The same bytes, said to be as many times more."""
  return content.replace(b'(2, 3)', b'(9, 9)')


LIES = {
  'more than is there': (grown(npy(X)), r'shape \(9, 9\) in 152 bytes'),
  'less than is there': (npy(X) + b'rest', r'shape \(2, 3\) in 156 bytes'),
  'cut': (npy(X)[:-1], r'shape \(2, 3\) in 151 bytes'),
  'objects': (npy(np.array([{}]), allow_pickle=True), 'holds objects'),
  'no array': (b'hello', 'magic|EOF|expected'),
}


@pytest.mark.parametrize('case', LIES)
def test_what_is_claimed_is_held_against_the_file(case, tmp_path):
  content, reason = LIES[case]
  path = archive(tmp_path / 'a.npz', x=content, y=npy(X))
  with pytest.raises(ArchiveError, match=reason) as caught:
    archives.read_arrays(path)
  assert str(caught.value).startswith(f'{path}: cannot be read as .npz (')
  with archives.open_arrays(path) as found:  # of the others nothing is lost
    np.testing.assert_array_equal(found['y'], X)


def test_an_archive_unpacks_to_so_much_and_no_more(tmp_path, monkeypatch):
  path = archive(tmp_path / 'a.npz', x=npy(np.zeros(100_000, np.uint8)))
  assert archives.read_arrays(path)['x'].size == 100_000
  monkeypatch.setattr(archives, 'FLOOR', 1 << 10)
  with pytest.raises(ArchiveError, match='100,128 bytes, more than 100 times'):
    archives.read_arrays(path)
  monkeypatch.setattr(archives, 'RATIO', 1000)
  assert archives.read_arrays(path)['x'].size == 100_000


def test_what_is_no_archive_is_named(tmp_path):
  (tmp_path / 'a.npz').write_bytes(b'PK and more')
  with pytest.raises(ArchiveError, match='it is damaged, get it again'):
    archives.read_arrays(tmp_path / 'a.npz')
  with pytest.raises(FileNotFoundError):
    archives.read_arrays(tmp_path / 'b.npz')
