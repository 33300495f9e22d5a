"""Mirrors of a folder in an object store: what a kill leaves, and failures."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import tempfile
import threading
import time

import numpy as np
import pytest
from helpers import stores

from gan_jax.runtime import mirror, preemption, small_checkpoint, store
from gan_jax.runtime.checkpoint import Checkpoints
from gan_jax.runtime.errors import Error

URL = 'flaky://b/run'


@pytest.fixture(autouse=True)
def flaky(monkeypatch, tmp_path):
  monkeypatch.setattr(store, '_PAUSES', (0.01, 0.02))
  monkeypatch.setattr(mirror, '_TICK', 0.01)
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
  with stores.flaky() as flaky:
    yield flaky


class Killed(BaseException):
  """The end of the process, at some call."""


def save(folder, step, keep=2):
  """As a run saves: the log, a checkpoint, what is no more, the record."""
  with open(folder / 'stats.jsonl', 'a') as log:
    log.write(f'{step}\n')
  (folder / 'config.flags').write_text(f'of {step}')
  (folder / 'samples').mkdir(exist_ok=True)
  (folder / 'samples' / f'{step}.png').write_text(str(step))
  scratch = folder / 'checkpoints' / f'{step:09d}.orbax-checkpoint-tmp-1'
  (scratch / 'state').mkdir(parents=True)
  (scratch / 'state' / 'd').write_text(f'arrays of {step}')
  (scratch / 'empty').write_text('')
  os.replace(scratch, folder / 'checkpoints' / f'{step:09d}')
  there = [p.name for p in (folder / 'checkpoints').iterdir()]
  steps = sorted(int(name) for name in there if name.isdigit())
  for old in steps[:-keep]:
    delete(folder, old)
  (folder / 'checkpoints.json').write_text(json.dumps(steps[-keep:]))
  (folder / 'run.json').write_text(f'at {step}')


def delete(folder, step):
  """As a run deletes a checkpoint."""
  gone = folder / 'checkpoints' / mirror.GONE
  gone.mkdir(exist_ok=True)
  os.replace(folder / 'checkpoints' / f'{step:09d}', gone / f'{step:09d}')


@contextlib.contextmanager
def opened(checkpoints='all', wanted=lambda name: True):
  with mirror.mounted(URL, wanted) as mounted:
    mounted.fetch(checkpoints)
    yield mounted


def contents(folder):
  return {n: (folder / n).read_text() for n in mirror.scan(folder)}


def whole_steps():
  """Of the checkpoints that are whole in the store."""
  content = mirror.look(store.Store(URL))
  return [mirror.step_of(bundle) for bundle in content.bundles]


def test_what_was_put_is_fetched(tmp_path):
  with opened() as mounted:
    for step in (1, 2, 3):
      save(mounted.folder, step)
      mounted.put()
    (mounted.folder / '.lock').touch()
    half = mounted.folder / 'checkpoints' / '4.orbax-checkpoint-tmp-9'
    half.mkdir()
    (half / 'd').touch()
    mounted.put()
    assert not os.listdir(mounted.folder / 'checkpoints' / mirror.GONE)
    before = contents(mounted.folder)
  assert not [*tmp_path.iterdir()]
  with opened() as mounted:
    assert contents(mounted.folder) == before
    assert sorted(before) == [
      'checkpoints.json',
      'checkpoints/000000002/empty',
      'checkpoints/000000002/state/d',
      'checkpoints/000000003/empty',
      'checkpoints/000000003/state/d',
      'config.flags',
      'run.json',
      *(f'samples/{i}.png' for i in (1, 2, 3)),
      'stats.jsonl',
    ]
    assert not mounted.changed()
  with opened('newest') as mounted:
    assert os.listdir(mounted.folder / 'checkpoints') == ['000000003']
  with opened('2') as mounted:
    assert os.listdir(mounted.folder / 'checkpoints') == ['000000002']
  with opened('none', lambda name: name != 'run.json') as mounted:
    assert sorted(os.listdir(mounted.folder)) == [
      *('checkpoints.json', 'config.flags', 'samples', 'stats.jsonl')
    ]


def calls_of(flaky, work):
  calls = []
  flaky.fault = staticmethod(lambda *call: calls.append(call))
  work()
  flaky.fault = staticmethod(lambda *call: None)
  return [c for c in calls if c[0] in ('put', 'remove')]


def test_the_order_of_a_round(flaky):
  with opened() as mounted:
    save(mounted.folder, 1)
    mounted.put()
    save(mounted.folder, 2, keep=1)
    names = [
      f'{call} {path.removeprefix("/b/run/")}'
      for call, path in calls_of(flaky, mounted.put)
    ]
  ranks = [
    ('put config.flags',),
    ('put samples/2.png', 'put stats.jsonl'),
    ('put checkpoints/000000002/',),
    ('put checkpoints/000000002.manifest.json',),
    ('put checkpoints.json', 'put run.json'),
    ('remove checkpoints/000000001.manifest.json',),
    ('remove checkpoints/000000001/',),
  ]
  order = [
    next(i for i, rank in enumerate(ranks) if name.startswith(rank))
    for name in names
  ]
  assert order == sorted(order) and {*order} == {*range(len(ranks))}


def test_killed_at_any_call_there_is_a_whole_checkpoint(flaky, keep=1):
  """What is fetched is what a kill could have left on a disk."""

  def run(last):
    with opened() as mounted:
      save(mounted.folder, 1, keep)
      mounted.put()
      for step in range(2, last + 1):
        save(mounted.folder, step, keep)
        mounted.put()

  count = len(calls_of(flaky, lambda: run(2)))
  first = len(calls_of(flaky, lambda: (flaky.store.clear(), run(1))))
  for moment in range(count):
    flaky.store.clear()
    left = [moment]

    def fault(call, path, left=left):
      if call in ('put', 'remove'):
        left[0] -= 1
        if left[0] < 0:
          raise Killed

    flaky.fault = staticmethod(fault)
    with contextlib.suppress(Killed):
      run(2)
    flaky.fault = staticmethod(lambda *call: None)
    with opened() as mounted:
      there = contents(mounted.folder)
      assert 'config.flags' in there or not there
      if moment < first:
        continue
      steps = sorted(map(int, os.listdir(mounted.folder / 'checkpoints')))
      assert steps
      for step in steps:
        name = f'checkpoints/{step:09d}/'
        assert there[f'{name}state/d'] == f'arrays of {step}'
        assert there[f'{name}empty'] == ''
      # Logs are never behind the newest, statements never ahead.
      assert int(there['stats.jsonl'].split()[-1]) >= steps[-1]
      assert json.loads(there['checkpoints.json'])[-1] <= steps[-1]
      mounted.put()  # and what is half there goes
      assert not mirror.look(mounted.store).halves


def test_a_store_that_is_away_amid_a_checkpoint_loses_nothing(flaky):
  calls = []

  def fault(call, path):
    if 'checkpoints/' in path and call == 'put':
      calls.append(path)
      if len(calls) in (2, 3, 4, 6):
        raise ConnectionResetError('away')

  with opened() as mounted:
    mounted.begin()
    flaky.fault = staticmethod(fault)
    save(mounted.folder, 1)
    mounted.close()
    before = contents(mounted.folder)
  assert len(calls) == 7
  with opened() as mounted:
    assert contents(mounted.folder) == before


def test_a_checkpoint_is_put_while_the_run_goes_on(flaky):
  with opened() as mounted:
    mounted.begin()
    save(mounted.folder, 7)
    deadline = time.monotonic() + 5
    while 'checkpoints/000000007.manifest.json' not in stores.names():
      assert time.monotonic() < deadline
      time.sleep(0.01)
    assert mounted.failure is None
    mounted.close()


def test_one_that_the_run_deletes_while_it_is_put_is_put_all_the_same(flaky):
  """Else a slow store would never get one."""

  manifests = []

  def fault(call, path):
    if call == 'was put' and path.endswith('manifest.json'):
      manifests.append(path)
    if call == 'put' and path.endswith('000000001/state/d'):
      delete(mounted.folder, 1)

  with opened() as mounted:
    save(mounted.folder, 1)
    flaky.fault = staticmethod(fault)
    mounted.put()
    assert manifests == ['/b/run/checkpoints/000000001.manifest.json']
    save(mounted.folder, 2)
    mounted.put()
  assert whole_steps() == [2]
  assert [n for n in stores.names() if not n.startswith('checkpoints/')] == [
    *('checkpoints.json', 'config.flags', 'run.json', 'samples/1.png'),
    *('samples/2.png', 'stats.jsonl'),
  ]


def test_the_newest_stays_until_a_newer_one_is_whole():
  """A run that saves faster than the store takes it deletes all of those."""
  with opened() as mounted:
    for step in (1, 2):
      save(mounted.folder, step)
    mounted.put()
    for step in (1, 2):
      delete(mounted.folder, step)
    mounted.put()
    assert whole_steps() == [2]
    save(mounted.folder, 3)
    mounted.put()
    assert whole_steps() == [3]


def test_one_that_is_deleted_before_all_of_it_is_held_is_left(monkeypatch):
  """Of part of a checkpoint no manifest may say that it is whole."""
  link = mirror._link

  def linked(source, target):
    link(source, target)
    if (mounted.folder / 'checkpoints' / '000000001').exists():
      delete(mounted.folder, 1)

  monkeypatch.setattr(mirror, '_link', linked)
  with opened() as mounted:
    save(mounted.folder, 1)
    mounted.put()
  assert not [n for n in stores.names() if n.startswith('checkpoints/')]


def test_one_that_cannot_be_read_is_not_passed_over(monkeypatch):
  def denied(source, target):
    raise PermissionError(13, 'denied', source)

  with opened() as mounted:
    mounted.begin()
    monkeypatch.setattr(mirror, '_link', denied)
    save(mounted.folder, 1)
    with pytest.raises(store.StoreAway, match='000000001 could not be read'):
      mounted.close()


def test_another_one_of_the_same_step_takes_the_place_of_a_damaged_one(flaky):
  """As after a restart that has set the newest aside, and made it again."""
  with opened() as mounted:
    save(mounted.folder, 1)
    mounted.put()
  with opened() as mounted:
    place = mounted.folder / 'checkpoints' / '000000001'
    (mounted.folder / 'damaged').mkdir()
    shutil.move(place, mounted.folder / 'damaged' / '000000001')
    save(mounted.folder, 1)
    (place / 'state' / 'd').write_text('made again')
    mounted.put()
    before = contents(mounted.folder)
  with opened() as mounted:
    assert contents(mounted.folder) == before
    name = 'checkpoints/000000001/state/d'
    assert before[name] == 'made again'
    assert before['damaged/000000001/state/d'] == 'arrays of 1'


def test_what_the_store_damages_is_fetched_again_then_left_to_be_found(flaky):
  with opened() as mounted:
    save(mounted.folder, 1)
    mounted.put()
  name = '/b/run/checkpoints/000000001/state/d'
  whole, gets = flaky.cat_file(flaky(), name), []
  flaky().pipe_file(name, b'arrays of X')

  def fault(call, path):
    if call == 'get' and path == name:
      gets.append(path)
      if len(gets) == 2:
        flaky().pipe_file(name, whole)

  flaky.fault = staticmethod(fault)
  with opened() as mounted:
    assert contents(mounted.folder)[name[7:]] == 'arrays of 1'
  flaky.fault = staticmethod(lambda *call: None)
  flaky().pipe_file(name, b'arrays of X')
  with opened() as mounted:
    assert contents(mounted.folder)[name[7:]] == 'arrays of X'


def test_scores_that_others_add_are_joined(flaky):
  with opened() as mounted:
    (mounted.folder / 'metrics.jsonl').write_text('a\n')
    mounted.put()
  part = f'{mirror.ADDED}1.jsonl'
  store.Store(URL).write(part, b'a\nb\n')
  with opened() as mounted:
    assert (mounted.folder / 'metrics.jsonl').read_text() == 'a\nb\n'
    mounted.put()
    assert stores.names() == ['metrics.jsonl']
    assert mounted.store.read('metrics.jsonl') == b'a\nb\n'


def test_scores_of_a_program_are_joined_by_the_whole():
  """Of one of an ablation, scored under its own URL."""
  place = store.Store(URL)
  place.write('programs/003/metrics.jsonl', b'a\n')
  own = store.Store(f'{URL}/programs/003')
  own.write(f'{mirror.ADDED}1.jsonl', b'a\nb\n')
  with opened() as mounted:
    path = mounted.folder / 'programs/003/metrics.jsonl'
    assert path.read_text() == 'a\nb\n'
    mounted.put()
  assert stores.names() == ['programs/003/metrics.jsonl']
  assert own.read('metrics.jsonl') == b'a\nb\n'
  own.write(f'{mirror.ADDED}2.jsonl', b'c\n')  # of another task's program
  with opened(wanted=lambda name: '/003/' not in name) as mounted:
    mounted.put()
  assert own.read(f'{mirror.ADDED}2.jsonl')


def test_a_process_puts_what_is_its_own_beside_the_first():
  with opened() as one, opened() as other:
    save(one.folder, 1)
    one.put()
    before = stores.names()
    other.begin('picks.1/')
    save(other.folder, 2)
    (other.folder / 'picks.1').mkdir()
    (other.folder / 'picks.1' / 'x').write_text('x')
    (other.folder / 'picks.12').write_text('no')
    other.close()
  assert set(stores.names()) == {*before, 'picks.1/x'}


@pytest.mark.parametrize('in_words', [False, True])
def test_a_full_disk_of_this_machine_is_no_store_that_is_away(
  in_words, monkeypatch
):
  def full(source, target, **options):
    error = OSError(errno.ENOSPC, 'No space left on device', str(target))
    raise shutil.Error([(source, target, str(error))]) if in_words else error

  with opened() as mounted:
    save(mounted.folder, 1)
    mounted.begin()
    monkeypatch.setattr(mirror.shutil, 'copytree', full)
    with pytest.raises(
      Error, match='this machine.*[Nn]o space.*make room'
    ) as got:
      mounted.close()
  assert got.value.exit_code == 1


def test_when_the_store_gives_up_the_run_is_stopped(flaky, monkeypatch, capsys):
  monkeypatch.setattr(store, 'PATIENCE', 0.1)

  def fault(call, path):
    raise ConnectionResetError('away')

  with preemption.listen() as listener, opened() as mounted:
    listener.raise_at_once = False
    mounted.begin()
    flaky.fault = staticmethod(fault)
    save(mounted.folder, 1)
    deadline = time.monotonic() + 5
    while not listener.received:
      assert time.monotonic() < deadline
      time.sleep(0.01)
    with pytest.raises(store.StoreAway, match='has not answered'):
      mounted.close()
  assert listener.received == 'SIGINT'
  assert 'run the same command again' in capsys.readouterr().err


def test_a_deadline_holds_though_the_store_hangs(flaky):
  over = threading.Event()
  with opened() as mounted:
    mounted.begin()
    save(mounted.folder, 1)
    flaky.fault = staticmethod(lambda *call: over.wait(30))
    started = time.monotonic()
    with pytest.raises(store.StoreAway, match='within 0 s; what was saved'):
      mounted.close(0.2)
    assert time.monotonic() - started < 10
    over.set()


def test_folders_that_a_kill_left_are_removed(tmp_path):
  old = pathlib.Path(tempfile.mkdtemp(prefix='gan_jax-scratch-'))
  (old / 'x').touch()
  new = pathlib.Path(tempfile.mkdtemp(prefix='gan_jax-scratch-'))
  os.utime(old, (0, 0))
  with opened() as one, opened() as two:
    assert not old.exists() and new.exists()
    assert one.folder.is_dir() and two.folder.is_dir()


def test_a_torn_line_swallows_no_score_that_others_add():
  place = store.Store(URL)
  place.write('metrics.jsonl', b'a\n{"to')
  place.write(f'{mirror.ADDED}1.jsonl', b'b\nc')
  with opened() as mounted:
    lines = (mounted.folder / 'metrics.jsonl').read_text().splitlines()
  assert lines == ['a', '{"to', 'b', 'c']


@pytest.mark.parametrize('most', [2**20, 0])
def test_a_run_renames_what_it_deletes_under_a_mirror(most, monkeypatch):
  """Small checkpoints and large: a copy of one is whole, or there is none."""
  monkeypatch.setattr(small_checkpoint, 'MOST_BYTES', most)
  with opened() as mounted:
    checkpoints = Checkpoints(mounted.folder, keep=1)
    for step in (1, 2):
      checkpoints.save(step, {'x': np.zeros(3)}, {})
      checkpoints.wait()
    checkpoints.close()
    gone = mounted.folder / 'checkpoints' / mirror.GONE
    found = [path.name for path in gone.iterdir()]
  assert found == ['000000001']


def test_logs_go_with_a_state_that_is_put_alone():
  """Else a run that goes on from it had a gap in its log."""
  with opened() as mounted:
    mounted.take((), print)
    save(mounted.folder, 1)
    alone = mounted.folder / 'rescue' / '2.npz'
    alone.parent.mkdir()
    alone.write_text('state')
    mounted.push(alone)
    told = mounted.store.list()
    mounted.close()
  assert {'rescue/2.npz', 'stats.jsonl'} <= told.keys()
  assert 'run.json' not in told
