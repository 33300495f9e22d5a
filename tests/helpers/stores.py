"""An object store in this process, `flaky://`, that fails when told to."""

import contextlib

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Flaky(MemoryFileSystem):
  """Objects in memory; `fault(call, path)` may raise, or note the call."""

  protocol = 'flaky'
  store: dict = {}
  pseudo_dirs = ['']
  fault = staticmethod(lambda call, path: None)

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(path.removeprefix('flaky://'))

  def pipe_file(self, path, value, mode='overwrite', **options):
    type(self).fault('put', path)
    super().pipe_file(path, value, **options)
    type(self).fault('was put', path)

  def put_file(self, lpath, rpath, **options):
    type(self).fault('put', rpath)
    super().put_file(lpath, rpath, **options)

  def cat_file(self, path, **options):
    type(self).fault('get', path)
    return super().cat_file(path, **options)

  def get_file(self, rpath, lpath, **options):
    type(self).fault('get', rpath)
    super().get_file(rpath, lpath, **options)

  def find(self, path, **options):
    type(self).fault('list', path)
    return super().find(path, **options)

  def rm_file(self, path):
    type(self).fault('remove', path)
    super().rm_file(path)


@contextlib.contextmanager
def flaky():
  """The store, empty."""
  fsspec.register_implementation('flaky', Flaky, clobber=True)
  Flaky.store.clear()
  Flaky.pseudo_dirs[:] = ['']
  Flaky.fault = staticmethod(lambda call, path: None)
  try:
    yield Flaky
  finally:
    Flaky.store.clear()


def names(url_path='/b/run'):
  """Names of the objects below a path, leases apart."""
  below = [n.removeprefix(f'{url_path}/') for n in Flaky.store]
  return sorted(n for n in below if not n.startswith('.lease/'))
