"""Every test runs strictly: four devices, no rank promotion, no reused key."""

import fcntl
import gc
import os
import pathlib
import shutil
import zlib

from helpers import compiling

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '')
  + ' --xla_force_host_platform_device_count=4'
  + compiling.flags(os.environ.get('XLA_FLAGS', ''))
)

import jax
import pytest

gc.disable()  # until all is collected: nothing of it is garbage

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)


# What is compiled is kept for the next test, and for the next time: a third of
# what tests cost. A folder for each worker: none reads what another half wrote.
PROGRAMS = (
  pathlib.Path(__file__).parents[1]
  / '.pytest_cache'
  / f'programs-{os.environ.get("PYTEST_XDIST_WORKER", "main")}'
)


jax.config.update('jax_compilation_cache_dir', str(PROGRAMS))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)

HEAVY = (pathlib.Path(__file__).parent / 'heavy.txt').read_text('utf-8')


# The promises that hold first of all: no part goes without them.
IN_EVERY_PART = (
  'tests/training/test_kill.py',
  'tests/training/test_multiprocess.py::test_two_processes_agree_with_one',
)


def pytest_addoption(parser):
  """Adds `--part`."""
  parser.addoption(
    '--part',
    metavar='K/N',
    help='run the K-th of N parts of what is picked (K from 0); what holds '
    'the first promises is in all of them',
  )


@pytest.hookimpl(tryfirst=True)  # before what carries the mark is left out
def pytest_collection_modifyitems(config, items):
  """Marks as slow what `heavy.txt` lists; leaves out the other parts."""
  heavy = {line for line in HEAVY.splitlines() if not line.startswith('#')}
  for item in items:
    if not heavy.isdisjoint((item.nodeid, item.nodeid.split('[')[0])):
      item.add_marker(pytest.mark.slow)
  if config.option.part:
    part, parts = map(int, config.option.part.split('/'))
    assert 0 <= part < parts, f'--part={config.option.part}: K is 0 to N - 1'
    kept, others = [], []
    for item in items:
      mine = zlib.crc32(item.nodeid.encode()) % parts == part
      always = item.nodeid.startswith(IN_EVERY_PART)
      (kept if mine or always else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = kept


def pytest_collection_finish():
  """What is there by now stays to the end: it is not looked at again."""
  gc.enable()
  gc.freeze()


@pytest.fixture(scope='session')
def real_data() -> pathlib.Path:
  """The folder of real data sets named by GAN_JAX_TEST_DATA."""
  folder = os.environ.get('GAN_JAX_TEST_DATA', '')
  if not folder:
    pytest.skip('GAN_JAX_TEST_DATA names no folder of real data sets')
  path = pathlib.Path(folder)
  assert path.is_dir(), f'GAN_JAX_TEST_DATA={folder} is not a folder'
  return path


@pytest.fixture(scope='session')
def real_root(real_data, tmp_path_factory) -> pathlib.Path:
  """A data root with MNIST and Fashion-MNIST, prepared once for all workers."""
  from gan_jax.data import tfds_sets

  base = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    base = base.parent
  root = base / 'real'
  with open(base / 'real.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    for name in ('mnist', 'fashion_mnist'):
      if not (root / name).exists():
        _, counts = tfds_sets.prepare(name, root, str(real_data / name))
        assert counts == {'train': 60000, 'test': 10000}
  return root


@pytest.fixture(scope='session')
def programs(tmp_path_factory) -> str:
  """A folder for the compiled programs of this session, as a flag takes it."""
  return str(tmp_path_factory.mktemp('xla'))


@pytest.fixture(scope='session')
def digits_root(tmp_path_factory) -> pathlib.Path:
  """A data root in which `digits` is prepared."""
  from gan_jax import data

  path = tmp_path_factory.mktemp('tfds')
  data.load('digits', data_dir=str(path))
  return path


@pytest.fixture
def digits(digits_root, monkeypatch):
  """The embedded set, found by the environment."""
  from gan_jax import data

  monkeypatch.setenv('TFDS_DATA_DIR', str(digits_root))
  return data.load('digits')


@pytest.fixture
def digits_copy(digits_root, tmp_path) -> tuple[pathlib.Path, pathlib.Path]:
  """A copy of the prepared digits: data root, and folder of the set."""
  shutil.copytree(digits_root / 'digits', tmp_path / 'digits')
  return tmp_path, tmp_path / 'digits' / '1.0.0'
