"""Runs and ablations in an object store, here one in this process."""

import contextlib
import json
import pathlib
import tempfile
import threading
import time

import numpy as np
import pytest
from helpers import ablations, commands, stores

import gan_jax as gj
from gan_jax.ablation import folder
from gan_jax.ablation.report import report
from gan_jax.config.schema import Config
from gan_jax.runtime import locks, mirror, multihost, preemption, store
from gan_jax.runtime.errors import ArgumentError, Error, IdentityError
from gan_jax.training import remote
from gan_jax.training.train import train_config

URL = 'flaky://b/run'
TOY = dict(
  dataset='ring',
  network='mlp',
  width=4,
  depth=1,
  batch_size=8,
  steps=8,
  log_every=2,
  sample_every=8,
  checkpoint_every=2,
  devices=1,
)


@pytest.fixture(autouse=True)
def flaky(monkeypatch, tmp_path):
  (tmp_path / 'tmp').mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'tmp'))
  monkeypatch.setattr(mirror, '_TICK', 0.02)
  monkeypatch.setattr(store, '_LOOK', 0.01)
  monkeypatch.setattr(store, '_PAUSES', (0.01, 0.02))
  with stores.flaky() as flaky:
    yield flaky


def toy(workdir, programs, **options):
  options = TOY | {'compilation_cache': programs, 'report': False} | options
  return Config(workdir=str(workdir), **options)


@pytest.mark.slow
def test_a_run_goes_on_and_ends_as_on_a_disk(tmp_path, programs, capsys):
  assert train_config(toy(tmp_path / 'local', programs)) == 0
  assert train_config(toy(URL, programs, steps=4)) == 0
  assert train_config(toy(URL, programs)) == 0
  said = capsys.readouterr()
  assert 'continuing at step 4' in said.err
  assert f'of training, in {URL}' in said.out
  here, there = gj.open(tmp_path / 'local'), gj.open(URL)
  assert there.state.keys() == here.state.keys()
  for name, array in here.state.items():
    np.testing.assert_array_equal(there.state[name], array)
  assert [r['d/loss'] for r in there.logs()] == [
    r['d/loss'] for r in here.logs()
  ]
  assert URL in repr(there) and gj.open(URL, step=6).step == 6
  with pytest.raises(ArgumentError, match='step=3.*there are: 4, 6, 8'):
    gj.open(URL, step=3)
  names = stores.names()
  assert [n for n in names if n.endswith('.manifest.json')] == [
    f'checkpoints/00000000{step}.manifest.json' for step in (4, 6, 8)
  ]
  assert f'--workdir={URL}' in store.Store(URL).read('config.flags').decode()
  assert not [*pathlib.Path('.').glob('flaky*')]
  with pytest.raises(IdentityError, match=f'workdir={URL}.*\n.*batch_size'):
    train_config(toy(URL, programs, batch_size=4))


def test_one_process_at_a_time(programs, flaky):
  owner = {**locks.me(), 'host': 'n7', 'machine': 'n7 x', 'claims': ['*']}
  beats = []

  def fault(call, path):
    if path.endswith('.lease/other.json') and call == 'get':
      beats.append(1)
      facts = owner | {'state': 'held', 'beat': len(beats)}
      flaky().pipe_file(path, json.dumps(facts).encode())

  store.Store(URL).write('.lease/other.json', json.dumps(owner).encode())
  flaky.fault = staticmethod(fault)
  with pytest.raises(
    ArgumentError, match=rf'workdir={URL}.*at work there \(process .* on n7\)'
  ):
    train_config(toy(URL, programs))
  assert [*store.Store(URL).list()] == ['.lease/other.json']


def test_one_deadline_holds_for_the_whole_end(flaky):
  """Of which the run has used up most, with its last checkpoint."""
  over = threading.Event()
  with preemption.listen() as listener:
    listener.raise_at_once, started = False, time.monotonic()
    with pytest.raises(store.StoreAway, match='within 1 s'):
      with remote.held(toy(URL, 'off', save_deadline=30), listener) as here:
        (pathlib.Path(here.workdir) / 'stats.jsonl').write_text('1')
        listener.received, listener.since = 'SIGTERM', started - 29.5
        flaky.fault = staticmethod(
          lambda call, _: call == 'put' and over.wait(40)
        )
    assert time.monotonic() - started < 15
    over.set()


def test_all_processes_end_as_the_first(monkeypatch, flaky):
  """Of which another job took the workdir."""
  told = []
  monkeypatch.setattr(multihost, 'meet_others', lambda reason: None)

  def end(number):
    monkeypatch.setattr(multihost, 'is_first', lambda: number == 0)
    monkeypatch.setattr(multihost, 'number', lambda: number)
    others = iter([*told])
    hear = lambda text: next(others) if number else told.append(text)
    monkeypatch.setattr(multihost, 'tell_others', hear)
    with preemption.listen() as listener:
      with remote.held(toy(URL, 'off'), listener):
        if number == 0:
          mounted = mirror._active[0]
          mounted.failure = store.LeaseLost('another process took it')

  codes = []
  for number in (0, 1):
    with pytest.raises(Error, match='another process took it') as got:
      end(number)
    codes.append(got.value.exit_code)
  assert codes == [2, 2]


@pytest.mark.parametrize('command', ['evaluate', 'report', 'sample'])
def test_where_there_is_no_run(command):
  words = {'evaluate': ['--metrics=modes']}.get(command, [])
  done = commands.run(command, f'--workdir={URL}', *words)
  assert done.returncode == 2
  assert f'--workdir={URL}: no run there (no config.flags)' in done.stderr


@pytest.mark.slow
def test_scores_and_reports_of_a_run_that_may_go_on(programs, tmp_path):
  assert train_config(toy(URL, programs)) == 0
  before = set(stores.names())
  words = ['--metrics=modes', '--samples=100', f'--workdir={URL}']
  done = commands.run('evaluate', *words, '--all')
  assert done.returncode == 0, done.stderr
  assert done.stdout.count('averaged G') == 3
  (part,) = set(stores.names()) - before
  assert part.startswith('metrics.added/')
  done = commands.run('evaluate', *words)
  assert '(scored before)' in done.stdout
  assert report(URL) == f'{URL}/report.html'
  assert 'report.html' in stores.names()
  with contextlib.ExitStack() as stack:
    folder = remote.fetched(URL, stack)
    assert len((folder / 'metrics.jsonl').read_text().splitlines()) == 3
    assert not (folder / 'checkpoints').exists()


@pytest.mark.parametrize(
  ('content', 'split'),
  [
    (None, 2),
    (b'{"options": {"split": 3}}', 3),
    (b'{"options": {}}', 1),
    (b'{"options": {"split": 3}', 2),  # nor a copy of it
  ],
)
def test_an_ablation_is_split_as_its_url_has_it(content, split):
  plan = ablations.plan('flaky://b/table', only='1/2')
  if content:
    store.Store('flaky://b/table').write('plan.json', content)
  assert folder.decide_split(plan).options.split == split


@pytest.mark.slow
def test_an_ablation_in_parts(programs, tmp_path):
  given = dict(
    data='ring',
    vary={'objective': ['minimax', 'hinge']},
    seeds=2,
    metrics='modes',
    eval_samples=100,
    **{k: v for k, v in TOY.items() if k != 'dataset'},
  )
  gj.ablate(tmp_path / 'local', **given)
  for only in ('1/2', '2/2'):
    gj.ablate('flaky://b/table', only=only, **given)
  table = gj.ablate('flaky://b/table', **given)
  assert table.folder == 'flaky://b/table'
  content = store.Store('flaky://b/table').read('results.csv')
  assert content == (tmp_path / 'local' / 'results.csv').read_bytes()
