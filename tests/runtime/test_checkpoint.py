"""Checkpoints: bit for bit there and back, and no damage goes unnoticed."""

import contextlib
import errno
import json
import pathlib
import re
import shutil
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore

from gan_jax.runtime import checkpoint, multihost, small_checkpoint, storage
from gan_jax.runtime.array_cache import digest_facts
from gan_jax.runtime.checkpoint import CheckpointError, Checkpoints
from gan_jax.runtime.errors import ArgumentError

# Orbax's reading threads outlive its event loop when a file is damaged.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


def state_of(seed):
  rng = np.random.default_rng(seed)
  return {
    'key': jax.random.key(seed),
    'params': {'w': jnp.asarray(rng.normal(size=(64, 64)), jnp.float32)},
    'step': jnp.int32(seed),
    'nothing': None,
    'empty': jnp.zeros((0, 2)),
  }


META = {'train_sec': 0.1 + 0.2, 'position': {'epoch': 1 / 3, 'images': 7}}


BOTH = pytest.mark.parametrize('saved', ['small', 'large'], indirect=True)


@pytest.fixture
def saved(tmp_path, request, monkeypatch):
  """A workdir with checkpoints of steps 1, 2, 3."""
  if getattr(request, 'param', 'small') == 'large':
    monkeypatch.setattr(small_checkpoint, 'MOST_BYTES', 0)
  checkpoints = Checkpoints(tmp_path)
  for step in (1, 2, 3):
    checkpoints.save(step, state_of(step), META)
  checkpoints.wait()
  checkpoints.close()
  return tmp_path


def step_folder(workdir, step):
  return workdir / 'checkpoints' / f'{step:09d}'


def data_files(workdir, step):
  """Files that hold the arrays' bytes, largest first."""
  files = [p for p in step_folder(workdir, step).rglob('*') if p.is_file()]
  return sorted(files, key=lambda p: -p.stat().st_size)


def flip_a_byte(path: pathlib.Path) -> None:
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 0x10
  path.write_bytes(bytes(content))


def restored(workdir, **kwargs):
  told = []
  checkpoints = Checkpoints(workdir, **kwargs)
  try:
    found = checkpoints.restore_newest(state_of(0), told.append)
  finally:
    checkpoints.close()
  return found, told


def test_there_and_back_bit_for_bit(saved):
  (state, meta), told = restored(saved)
  expected = state_of(3)
  assert told == []
  assert checkpoint.digest(checkpoint.to_host(state)) == checkpoint.digest(
    checkpoint.to_host(expected)
  )
  assert jax.random.key_data(state['key']).tolist() == [0, 3]
  assert meta['train_sec'] == META['train_sec']
  assert meta['position'] == META['position']
  assert meta['step'] == 3


def test_nothing_saved_is_not_an_error(tmp_path):
  assert restored(tmp_path) == (None, [])


def test_the_newest_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2)
  for step in (1, 2, 3, 4):
    checkpoints.save(step, state_of(step), META)
  checkpoints.wait()
  assert checkpoints.steps() == [3, 4]
  checkpoints.close()


def test_a_saved_state_is_a_copy(tmp_path):
  """The buffers are donated to the next step while the save goes on."""
  checkpoints = Checkpoints(tmp_path)
  state = {'w': jnp.ones(1 << 20)}
  checkpoints.save(1, state, META)
  overwrite = jax.jit(lambda s: {'w': s['w'] * 0 - 1}, donate_argnums=0)
  overwrite(state)
  checkpoints.wait()
  found, _ = checkpoints.restore(1, {'w': jnp.zeros(1 << 20)})
  checkpoints.close()
  assert (found['w'] == 1).all()


def test_an_index_that_names_another_array_is_noticed(saved):
  """Orbax hands back what it was asked with in the place of what it lacks."""
  path = step_folder(saved, 3) / 'state' / '_METADATA'
  text = path.read_text()
  renamed, count = re.subn(r'("key": "[^"]*)."', r'\1?"', text)
  assert count
  path.write_text(renamed)
  (state, _), told = restored(saved)
  assert int(state['step']) == 2
  assert len(told) == 1 and 'checkpoint 3' in told[0] and 'damaged' in told[0]


@BOTH
def test_any_flipped_byte_of_the_arrays_is_noticed(saved):
  """Each file of the newest checkpoint damaged in turn: never trusted."""
  copy = saved.parent / 'copy'
  noticed = 0
  for path in data_files(saved, 3):
    relative = path.relative_to(saved)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(saved, copy)
    flip_a_byte(copy / relative)
    (state, _), told = restored(copy)
    step = int(state['step'])
    assert step in (2, 3)
    good = checkpoint.to_host(state_of(step))
    assert checkpoint.digest(checkpoint.to_host(state)) == checkpoint.digest(
      good
    ), f'{relative} damaged, and trusted'
    noticed += step == 2
    assert bool(told) == (step == 2)
  assert noticed >= 2  # at least the arrays and the meta


def test_damaged_ones_are_named_set_aside_and_passed_over(saved):
  flip_a_byte(data_files(saved, 3)[0])
  shutil.rmtree(step_folder(saved, 2) / 'state')
  (state, _), told = restored(saved)
  assert int(state['step']) == 1
  assert 'checkpoint 3' in told[0]
  assert 'checkpoint 2' in told[1]
  assert (saved / 'damaged' / '000000003').is_dir()
  assert (saved / 'damaged' / '000000002').is_dir()
  # Their places are free for the run that goes on.
  checkpoints = Checkpoints(saved)
  checkpoints.save(2, state_of(2), META)
  checkpoints.wait()
  assert checkpoints.steps() == [1, 2]
  checkpoints.close()


def test_a_reader_moves_nothing(saved):
  flip_a_byte(data_files(saved, 3)[0])
  (state, _), told = restored(saved, read_only=True)
  assert int(state['step']) == 2
  assert told
  assert step_folder(saved, 3).is_dir()
  assert not (saved / 'damaged').exists()


def test_all_damaged_is_an_error_that_changes_nothing(saved):
  for step in (1, 2, 3):
    for path in data_files(saved, step)[:3]:
      path.write_bytes(b'')
  with pytest.raises(CheckpointError, match=r'all checkpoints.*1, 2, 3'):
    restored(saved)
  assert all(step_folder(saved, s).is_dir() for s in (1, 2, 3))


def test_an_unfinished_save_is_not_a_checkpoint(saved):
  left = saved / 'checkpoints' / '000000004.orbax-checkpoint-tmp-1'
  shutil.copytree(step_folder(saved, 3), left)
  (state, _), _ = restored(saved)
  assert int(state['step']) == 3


OTHERS = {
  'shape': (
    lambda s: s | {'params': {'w': jnp.zeros((3, 3))}},
    r'params/w: float32\[64, 64\] there, float32\[3, 3\] now',
  ),
  'more': (
    lambda s: s | {'params': {**s['params'], 'b': jnp.zeros(3)}},
    r'params/b: nothing there, float32\[3\] now',
  ),
  'fewer': (
    lambda s: s | {'params': {}},
    r'params/w: float32\[64, 64\] there, nothing now',
  ),
  'type': (
    lambda s: s | {'params': {'w': jnp.zeros((64, 64), jnp.bfloat16)}},
    r'float32\[64, 64\] there, bfloat16\[64, 64\] now',
  ),
  'key': (
    lambda s: s | {'key': jax.random.key(0, impl='rbg')},
    r'key: key<fry>\[\] there, key<rbg>\[\] now',
  ),
}


@pytest.mark.parametrize('kind', OTHERS)
def test_another_structure_is_told_from_damage(kind, saved):
  """Refused with what differs, nothing passed over or moved aside."""
  change, told = OTHERS[kind]
  warned = []
  checkpoints = Checkpoints(saved)
  with pytest.raises(checkpoint.CheckpointMismatch, match=told) as caught:
    checkpoints.restore_newest(change(state_of(0)), warned.append)
  checkpoints.close()
  assert 'checkpoint 3' in str(caught.value)
  assert 'damaged' not in str(caught.value) and not warned
  assert not (saved / 'damaged').exists()
  (state, _), told = restored(saved)
  assert int(state['step']) == 3 and not told


def test_a_damaged_one_of_another_structure_is_passed_over(saved):
  """What its own hash denies tells nothing of the structure."""
  for path in step_folder(saved, 3).rglob('metadata'):
    if path.parent.name == 'meta':
      path.write_text(path.read_text().replace('[64, 64]', '[64, 63]', 1))
  (state, _), told = restored(saved)
  assert int(state['step']) == 2 and 'checkpoint 3' in told[0]


def test_one_of_another_version_is_told_from_damage(saved):
  """As versions before saved them: whole, without a list of arrays."""
  (path,) = (step_folder(saved, 3) / 'meta').glob('metadata')
  body = json.loads(path.read_text())['body']
  del body['arrays']
  path.write_text(json.dumps({'body': body, 'digest': digest_facts(body)}))
  with pytest.raises(checkpoint.CheckpointMismatch, match='another version'):
    restored(saved)
  assert step_folder(saved, 3).is_dir()


def reader(workdir):
  return contextlib.closing(Checkpoints(workdir, read_only=True))


def test_it_is_read_without_a_template(saved):
  """By paths, whatever classes the state was made of."""
  with reader(saved) as checkpoints:
    flat = checkpoints.read_flat(2)
    part = checkpoints.read_flat(2, 'params/')
    meta = checkpoints.read_meta(2)
  assert set(flat) == {'key', 'params/w', 'step', 'empty'}
  np.testing.assert_array_equal(flat['params/w'], state_of(2)['params']['w'])
  assert flat['key'].tolist() == [0, 2] and flat['step'] == 2
  assert meta['arrays']['key']['key'] == 'threefry2x32'
  assert set(part) == {'params/w'}


class Player(flax.struct.PyTreeNode):
  params: Any
  optimizer: Any


def test_paths_of_any_tree():
  """Of classes, named tuples, lists and what optimizers remember."""
  params = {'Dense_0': {'kernel': jnp.ones(2)}, 'mlp/~/w': jnp.ones(1)}
  state = {'g': Player(params, optax.adam(0.1).init(params)), 'ema': None}
  assert list(checkpoint.flatten(state)) == [
    'g/params/Dense_0/kernel',
    'g/params/mlp/~/w',
    'g/optimizer/0/count',
    'g/optimizer/0/mu/Dense_0/kernel',
    'g/optimizer/0/mu/mlp/~/w',
    'g/optimizer/0/nu/Dense_0/kernel',
    'g/optimizer/0/nu/mlp/~/w',
  ]
  with pytest.raises(CheckpointError, match='two arrays .* called a/b: rename'):
    checkpoint.flatten({'a': {'b': 1}, 'a/b': 2})


def test_a_template_may_be_of_shapes_and_a_part(saved):
  shapes = jax.eval_shape(lambda: state_of(0))
  with reader(saved) as checkpoints:
    state, _ = checkpoints.restore(3, shapes)
    part = {'params': Player(shapes['params'], None)}
    with pytest.raises(checkpoint.CheckpointMismatch, match='params/params/w'):
      checkpoints.restore(3, part, partial=True)
    part = {'params': shapes['params']}
    some, _ = checkpoints.restore(3, part, partial=True)
  assert jax.random.key_data(state['key']).tolist() == [0, 3]
  assert state['empty'].shape == (0, 2) and state['nothing'] is None
  np.testing.assert_array_equal(some['params']['w'], state['params']['w'])


def test_a_damaged_array_is_named_and_the_others_are_read(saved):
  flip_a_byte(data_files(saved, 3)[0])
  with reader(saved) as checkpoints:
    with pytest.raises(
      CheckpointError, match='checkpoint 3 in .*(damaged|read)'
    ):
      checkpoints.read_flat(3)
    assert checkpoints.read_flat(2)['step'] == 2


def test_a_failed_save_is_told_and_loses_nothing(saved, monkeypatch):
  """No room left on the device, in the midst of writing."""
  checkpoints = Checkpoints(saved)

  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(checkpoints._manager, 'save', full)
  with pytest.raises(
    CheckpointError, match='No space left.*MiB are free there; make room'
  ):
    checkpoints.save(4, state_of(4), META)
  checkpoints.close()
  (state, _), _ = restored(saved)
  assert int(state['step']) == 3


# Names of folders.

ODD = [
  '[1]',
  'a*',
  'a?',
  '**',
  '{x}',
  '%41',
  '#',
  ' a ',
  ':',
  '~',
  '\'"',
  'é',
  '$A',
]


@pytest.mark.parametrize('most', [0, small_checkpoint.MOST_BYTES])
def test_any_folder_holds_checkpoints(most, tmp_path, monkeypatch):
  """Orbax reads the whole path as a pattern, and others match it."""
  monkeypatch.setattr(small_checkpoint, 'MOST_BYTES', most)
  (tmp_path / 'ab').mkdir()
  names = ['new\nline', *ODD] if most else ODD[:1]
  for name in [*names, ' '.join(ODD)]:
    path = tmp_path / name
    for step in (1, 2):  # another process continues
      checkpoints = Checkpoints(path, keep=1)
      assert bool(checkpoints.restore_newest(state_of(0), pytest.fail)) == (
        step == 2
      )
      checkpoints.save(step, state_of(step), META)
      checkpoints.close()
    with reader(path) as checkpoints:
      assert checkpoints.steps() == [2], name
      assert checkpoints.read_flat(2)['step'] == 2, name


@pytest.mark.parametrize('name', ['a\\b', 'gs:'])
def test_a_folder_that_cannot_hold_them_is_refused(name, tmp_path):
  with pytest.raises(ArgumentError, match='`workdir=.*has .* in it'):
    Checkpoints(tmp_path / name)
  assert not list(tmp_path.iterdir())


# Read back.


def remove_index(folder):
  (folder / 'manifest.ocdbt').unlink()


def cut_data(folder):
  path = max(folder.rglob('d/*'), key=lambda p: p.stat().st_size)
  path.write_bytes(path.read_bytes()[:99])


def lose_an_array(folder):
  shutil.rmtree(folder / 'd')
  (folder / 'manifest.ocdbt').unlink()
  spec = {'driver': 'ocdbt', 'base': {'driver': 'file', 'path': f'{folder}/'}}
  tensorstore.KvStore.open(spec).result().write('step/0', b'').result()


def lose_a_chunk(folder):
  """Its index still speaks of the array."""
  spec = {'driver': 'ocdbt', 'base': {'driver': 'file', 'path': f'{folder}/'}}
  store = tensorstore.KvStore.open(spec).result()
  chunks = [k for k in store.list().result() if k.startswith(b'params/w/0')]
  for key in chunks:
    store.write(key, None).result()
  assert chunks


def spoil(folder):
  (folder / 'metadata').write_text('{}')


DAMAGES = {
  remove_index: ('PyTreeCheckpointHandler', 'write_arrays'),
  cut_data: ('PyTreeCheckpointHandler', 'write_arrays'),
  lose_an_array: ('PyTreeCheckpointHandler', 'write_arrays'),
  lose_a_chunk: ('PyTreeCheckpointHandler', 'write_arrays'),
  spoil: ('JsonCheckpointHandler', 'write_meta'),
}


@pytest.mark.parametrize('small', [True, False], ids=['small', 'large'])
@pytest.mark.parametrize('damage', DAMAGES)
def test_a_save_counts_once_it_was_read_back(
  damage, small, tmp_path, monkeypatch
):
  """Whatever the cause: the write reports success, and nothing is there."""
  handler, function = DAMAGES[damage]
  if small:
    owner, name = small_checkpoint, function
  else:
    owner, name = getattr(storage.ocp, handler), 'finalize'
    monkeypatch.setattr(small_checkpoint, 'MOST_BYTES', 0)
  original, ready = getattr(owner, name), []

  def damaging(*args):
    original(*args)
    place = pathlib.Path(str(args[0 if small else 1]))
    if ready:
      damage(place.parent if place.is_file() else place)

  monkeypatch.setattr(owner, name, damaging)
  checkpoints = Checkpoints(tmp_path, keep=1)
  checkpoints.save(1, state_of(1), META)
  checkpoints.wait()
  ready.append(True)
  checkpoints.save(2, state_of(2), META)
  with pytest.raises(checkpoint.NotSaved, match='could not be read back') as e:
    checkpoints.wait()
  assert 'make room' not in str(e.value)
  with contextlib.suppress(CheckpointError):
    checkpoints.close()
  (state, _), told = restored(tmp_path)
  assert int(state['step']) == 1 and not told


# Small ones, which Orbax does not write.


def mixed_state():
  return {
    'half': jnp.asarray([1.5, -2, jnp.inf], jnp.bfloat16),
    'flag': jnp.ones((2, 1), bool),
    'count': jnp.uint8(7),
    'w/o': {'a b': jnp.arange(6.0).reshape(2, 3)},
    'key': jax.random.key(3),
  }


def test_orbax_reads_a_small_one_as_its_own(tmp_path, monkeypatch):
  """What is said of it included, so that it may be taken elsewhere."""
  shown = {}
  for name, most in (('small', small_checkpoint.MOST_BYTES), ('large', 0)):
    monkeypatch.setattr(small_checkpoint, 'MOST_BYTES', most)
    checkpoints = Checkpoints(tmp_path / name)
    checkpoints.save(5, mixed_state(), META)
    checkpoints.close()
    with storage.ocp.StandardCheckpointer() as orbax:
      shown[name] = orbax.restore(step_folder(tmp_path / name, 5) / 'state')
    folder = tmp_path / name / 'checkpoints'
    with storage.make_manager(folder, 3, None, list) as orbax:
      assert orbax.all_steps() == [5]
  assert shown['small'].keys() == shown['large'].keys() >= {'half', 'count'}
  for path, x in shown['small'].items():
    other = shown['large'][path]
    assert x.dtype == other.dtype and np.array_equal(x, other), path


def test_what_is_no_plain_number_or_large_is_left_to_orbax():
  plain = {'a': np.zeros(3, jnp.bfloat16), 'b': np.zeros(2, bool)}
  assert small_checkpoint.is_small(plain)
  assert not small_checkpoint.is_small({'a': np.zeros(3, jnp.int4)})
  assert not small_checkpoint.is_small({'a': np.zeros(2**20 + 1, np.float32)})


def test_those_that_work_apart_need_no_orbax(tmp_path):
  """Which takes what one process tells for what another one does."""
  state = {'w': np.arange(2**20 + 1, dtype=np.float32), 'n': np.int32(3)}
  assert not small_checkpoint.is_small(state)
  with multihost.apart():
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state, META)
    assert isinstance(checkpoints._made('_manager'), small_checkpoint.Manager)
    checkpoints.close()
    found, _ = Checkpoints(tmp_path).restore_newest(state, pytest.fail)
    with pytest.raises(ArgumentError, match='`multihost=True`.* int4.*`only='):
      Checkpoints(tmp_path / 'a').save(1, {'a': np.zeros(3, jnp.int4)}, META)
  np.testing.assert_array_equal(found['w'], state['w'])


def test_small_and_large_ones_take_turns(tmp_path, monkeypatch):
  """As where options are changed: each continues what the other left."""
  for step, most in enumerate((2**20, 0, 2**20), 1):
    monkeypatch.setattr(small_checkpoint, 'MOST_BYTES', most)
    (tmp_path / 'checkpoints').mkdir(exist_ok=True)
    left = step_folder(tmp_path, 9).with_suffix('.orbax-checkpoint-tmp')
    left.mkdir(exist_ok=True)
    checkpoints = Checkpoints(tmp_path, keep=2)
    found = checkpoints.restore_newest(state_of(0), pytest.fail)
    assert int(found[0]['step'] if found else 0) == step - 1
    checkpoints.save(step, state_of(step), META)
    checkpoints.close()
    assert not most or not left.exists()  # older Orbax leaves it
  assert Checkpoints(tmp_path).steps() == [2, 3]


# Gone.


def test_one_that_is_gone_is_named_once(saved):
  shutil.rmtree(step_folder(saved, 3))
  with reader(saved) as checkpoints:
    told = []
    assert checkpoints.read_newest(told.append)[0] == 2
    assert 'checkpoint 3 in' in told[0] and 'gone' in told[0]
  (state, _), told = restored(saved)
  assert int(state['step']) == 2
  assert len(told) == 1 and 'checkpoint 3 in' in told[0]
  assert restored(saved)[1] == []


@pytest.mark.parametrize('kind', ['file', 'link'])
def test_one_that_was_replaced_is_named_and_out_of_the_way(kind, saved):
  shutil.rmtree(step_folder(saved, 3))
  if kind == 'file':
    step_folder(saved, 3).write_text('what is this')
  else:
    step_folder(saved, 3).symlink_to('nowhere')
  (state, _), told = restored(saved)
  assert int(state['step']) == 2 and 'checkpoint 3 in' in told[0]
  checkpoints = Checkpoints(saved)
  checkpoints.save(3, state_of(3), META)
  checkpoints.close()
  assert int(restored(saved)[0][0]['step']) == 3


def test_one_that_is_older_than_what_is_restored_is_not_missed(saved):
  shutil.rmtree(step_folder(saved, 1))
  assert restored(saved)[1] == []


@pytest.mark.parametrize('folder', [True, False])
def test_where_all_are_gone_nothing_starts_afresh(folder, saved):
  for step in (1, 2, 3):
    shutil.rmtree(step_folder(saved, step))
  if not folder:
    (saved / 'checkpoints').rmdir()
  gone = r'all checkpoints in .* \(1, 2, 3\) are gone'
  with pytest.raises(CheckpointError, match=gone):
    restored(saved)
  with reader(saved) as checkpoints:
    with pytest.raises(CheckpointError, match=gone):
      checkpoints.read_newest(pytest.fail)
  (saved / 'checkpoints.json').unlink()  # as it is told to
  assert restored(saved) == (None, [])


def test_a_file_in_the_place_of_the_folder_is_named(saved):
  shutil.rmtree(saved / 'checkpoints')
  (saved / 'checkpoints').write_text('')
  with pytest.raises(CheckpointError, match='checkpoints is no folder any'):
    restored(saved)


def test_a_damaged_list_of_them_is_named_and_costs_none(saved):
  (saved / 'checkpoints.json').write_text('{"steps": "x"}')
  (state, _), told = restored(saved)
  assert int(state['step']) == 3 and 'checkpoints.json is damaged' in told[0]


# Deleted by the run that trains, while they are read.


def delete_in_reading(checkpoints, steps, monkeypatch, whole=True):
  """Each of these is being deleted when it is read."""
  original = checkpoints._reader.restore

  def restore(path, **kwargs):
    step = int(pathlib.Path(str(path)).name)
    if step in steps:
      steps.remove(step)
      for part in ('state', 'meta'):
        shutil.rmtree(pathlib.Path(str(path)) / part)
      if whole:
        shutil.rmtree(str(path))
    return original(path, **kwargs)

  monkeypatch.setattr(checkpoints._reader, 'restore', restore)


def test_a_reader_looks_again_for_what_was_deleted(saved, monkeypatch):
  with reader(saved) as checkpoints:
    shutil.copytree(step_folder(saved, 3), saved / 'new')
    real = checkpoints.steps
    looks = []

    def steps():
      looks.append(0)
      if len(looks) == 2:
        (saved / 'new').rename(step_folder(saved, 4))
      return real()

    monkeypatch.setattr(checkpoints, 'steps', steps)
    delete_in_reading(checkpoints, [3], monkeypatch)
    assert checkpoints.read_newest(pytest.fail)[0] == 4


def test_one_that_is_asked_for_and_deleted_meanwhile_is_not_damaged(
  saved, monkeypatch
):
  with reader(saved) as checkpoints:
    delete_in_reading(checkpoints, [1], monkeypatch)
    with pytest.raises(
      checkpoint.CheckpointGone, match='deleted meanwhile; there are: 2, 3'
    ):
      checkpoints.read_flat(1)
    # Half of it is there for good: it is damaged.
    monkeypatch.setattr(checkpoint, '_DELETION', 0.1)
    delete_in_reading(checkpoints, [2], monkeypatch, whole=False)
    with pytest.raises(CheckpointError, match='cannot be read'):
      checkpoints.read_flat(2)


# Not damaged, and not to be trusted either.


def test_what_cannot_be_read_now_is_not_passed_over(saved, monkeypatch):
  """A file system that does not answer: nothing is moved or begun anew."""
  checkpoints, told = Checkpoints(saved), []

  def refuse(path, **kwargs):
    raise OSError(errno.EIO, 'Input/output error')

  monkeypatch.setattr(checkpoints._reader, 'restore', refuse)
  with pytest.raises(
    checkpoint.CheckpointUnreachable,
    match=r'checkpoint 3 .*\n.*make it readable',
  ):
    checkpoints.restore_newest(state_of(0), told.append)
  checkpoints.close()
  assert not told and not (saved / 'damaged').exists()
  assert int(restored(saved)[0][0]['step']) == 3


def test_processes_restore_what_the_first_names_and_all_can_read(
  saved, monkeypatch
):
  """As one of several: the first has no checkpoint 3, another no whole 2."""
  numbers = iter([2, 1])
  worst = iter([1, 0])
  monkeypatch.setattr(
    multihost, 'broadcast_number', lambda value: next(numbers)
  )
  monkeypatch.setattr(
    multihost, 'find_maximum', lambda value: max(value, next(worst))
  )
  (state, _), told = restored(saved)
  assert int(state['step']) == 1
  assert 'checkpoint 2 in' in told[0] and 'by another process' in told[0]


def test_one_that_was_damaged_before_is_kept_too(saved):
  for name in ('000000003', '000000003.2'):
    (saved / 'damaged' / name).mkdir(parents=True)
  flip_a_byte(data_files(saved, 3)[0])
  restored(saved)
  assert [*(saved / 'damaged' / '000000003.3').iterdir()]
  assert not [*(saved / 'damaged' / '000000003').iterdir()]


def test_one_process_alone_says_which_there_are(saved, monkeypatch):
  path = saved / 'checkpoints.json'
  before = path.read_bytes()
  monkeypatch.setattr(multihost, 'is_primary', lambda: False)
  checkpoints = Checkpoints(saved)
  shutil.rmtree(step_folder(saved, 1))
  checkpoints.wait()
  checkpoints.close()
  assert path.read_bytes() == before


def test_a_folder_that_was_taken_away_is_not_made_anew(saved):
  checkpoints = Checkpoints(saved)
  (saved / 'checkpoints').rename(saved / 'away')
  with pytest.raises(checkpoint.NotSaved, match='was removed or renamed'):
    checkpoints.save(4, state_of(4), META)
  checkpoints.close()
  assert not (saved / 'checkpoints').exists()


def test_one_that_vanishes_when_it_was_saved_does_not_count(saved, monkeypatch):
  """A file system that lost it, or somebody who tidied up."""
  checkpoints = Checkpoints(saved)
  finish = checkpoints._manager.wait_until_finished

  def lose():
    finish()
    shutil.rmtree(step_folder(saved, 4))

  checkpoints.save(4, state_of(4), META)
  monkeypatch.setattr(checkpoints._manager, 'wait_until_finished', lose)
  with pytest.raises(checkpoint.NotSaved, match='checkpoint 4 is not there'):
    checkpoints.wait()
  with contextlib.suppress(CheckpointError):
    checkpoints.close()
