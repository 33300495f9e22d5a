"""An ablation over the processes of one job."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import types

import jax
import numpy as np
import pytest
from helpers import ablations, compiling

from gan_jax.ablation import compile_for, folder, hosts
from gan_jax.config import app
from gan_jax.runtime import multihost, preemption
from gan_jax.runtime.cards import parse_target
from gan_jax.runtime.errors import ArgumentError, Error, IdentityError
from gan_jax.training.remote import PeerFailed

ROOT = pathlib.Path(__file__).parents[2]
WORDS = [
  '--dataset=ring',
  '--network=mlp',
  '--width=384',  # more than a small checkpoint
  '--batch_size=16',
  '--steps=400',
  '--log_every=20',
  '--checkpoint_every=20',
  '--eval_every=200',
  '--eval_samples=64',
  '--metrics=modes',
  '--vary=lr_g=0.001,1e-2',
  '--seeds=3',
  '--devices=1',
  '--noreport',
  '--compilation_cache=off',
]
# What the command does, from Python, where JAX knows the devices of all before,
# as on a slice of a TPU.
SCRIPT = """
import sys
import jax
jax.distributed.initialize()
assert len(jax.devices()) == jax.process_count() == 2
import gan_jax as gj
table = gj.ablate(
  sys.argv[1].removeprefix('--workdir='),
  data=None,
  dataset='ring',
  network='mlp',
  width=384,
  batch_size=16,
  steps=400,
  log_every=20,
  checkpoint_every=20,
  eval_every=200,
  eval_samples=64,
  metrics='modes',
  vary={'lr_g': [1e-3, 1e-2]},
  seeds=3,
  devices=1,
  multihost=True,
)
print('rows', len(table.rows))
"""


class FakeBoard(multihost.Board):
  """What the other of two processes says, by a test's word."""

  def __init__(self):
    self.texts = {}

  def write(self, text):
    self.texts[0] = text

  def read(self):
    return dict(self.texts)


@pytest.fixture
def board(monkeypatch):
  """That of the first of two processes."""
  board = FakeBoard()
  monkeypatch.setattr(multihost, 'Board', lambda: board)
  monkeypatch.setattr(multihost, 'count', lambda: 2)
  monkeypatch.setattr(hosts, '_OFTEN', 0.01)
  return board


@pytest.fixture
def plan(tmp_path):
  return ablations.plan(tmp_path, save_deadline=1)


@pytest.mark.parametrize(
  ('own', 'other', 'job'),
  [(0, 0, 0), (0, 1, 1), (1, 0, 1), (0, 75, 75), (1, 75, 75), (75, 0, 75)],
)
def test_the_job_ends_as_its_processes_do(own, other, job, board, plan):
  """The other one is not done yet when this one is."""

  def end():
    board.texts[1] = str(other)

  timer = threading.Timer(0.05, end)
  timer.start()
  assert hosts.work_apart(plan, lambda: own) == job
  assert board.texts == {0: str(own), 1: str(other)}


def test_processes_are_alone_at_their_work_and_not_after(board, plan):
  board.texts[1] = '0'
  assert hosts.work_apart(plan, lambda: int(not multihost.is_apart())) == 0
  assert not multihost.is_apart()


def wait_for_signal():
  """Work that a signal stops."""
  with preemption.listen() as listener:
    listener.raise_at_once = False
    end = time.monotonic() + 20
    while not listener.received and time.monotonic() < end:
      time.sleep(0.01)
  return app.SAVED if listener.received else app.DONE


def test_one_that_stops_stops_the_others(board, plan, capsys):
  board.texts[1] = '75'
  assert hosts.work_apart(plan, wait_for_signal) == app.SAVED
  assert board.texts[0] == '75'
  assert 'another process of the job has ended' in capsys.readouterr().err


def test_one_that_fails_stops_the_others_which_end_as_it_does(board, plan):
  board.texts[1] = '2 the disk is full'
  message = 'process 2 of the job failed: the disk is full'
  with pytest.raises(PeerFailed, match=message) as caught:
    hosts.work_apart(plan, wait_for_signal)
  assert caught.value.exit_code == 2 and board.texts[0] == '75'


@pytest.mark.parametrize(
  ('error', 'text'),
  [
    (ArgumentError('steps', 1, 'use 2'), '2 `steps=1`: use 2'),
    (Error('no room'), '1 no room'),
    (KeyError('x'), "1 'x'"),
    (MemoryError(), '1 MemoryError'),
  ],
)
def test_a_failure_is_told_and_raised(error, text, board, plan):
  def fail():
    raise error

  board.texts[1] = '75'
  with pytest.raises(type(error)):
    hosts.work_apart(plan, fail)
  assert board.texts[0] == text


def test_a_signal_that_is_raised_is_no_failure(board, plan):
  """As from Python, where there was nothing to save."""

  def stop():
    raise preemption.Stopped('SIGTERM')

  board.texts[1] = '75'
  with pytest.raises(preemption.Stopped):
    hosts.work_apart(plan, stop)
  assert board.texts[0] == '75'


@pytest.mark.parametrize(('other', 'left'), [('0', 1), (None, 0)])
def test_the_job_is_left_when_all_have_ended(
  other, left, board, plan, monkeypatch
):
  calls = []
  monkeypatch.setattr(multihost, 'leave', lambda: calls.append(1))
  board.texts |= {1: other} if other else {}
  hosts.work_apart(plan, lambda: app.SAVED, leave=True)
  assert len(calls) == left


@pytest.mark.parametrize('number', [0, 1])
def test_the_first_process_decides_the_split(number, tmp_path, monkeypatch):
  told = []

  def tell(text):
    told.append(text)
    return told[0] if text is None else text

  monkeypatch.setattr(multihost, 'tell_others', tell)
  monkeypatch.setattr(multihost, 'number', lambda: number)
  monkeypatch.setattr(multihost, 'count', lambda: 3)
  plan = ablations.plan(tmp_path / 'a', seeds=3)
  if number:
    told.append('2')
    assert hosts.agree_on_split(plan).options.split == 2
    told[:] = ['-2 `workdir=a`: plan.json cannot be read']
    with pytest.raises(PeerFailed, match='plan.json cannot') as caught:
      hosts.agree_on_split(plan)
    assert caught.value.exit_code == 2
    return
  assert hosts.agree_on_split(plan).options.split == 3 and told == ['3']
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'plan.json').write_text('{')
  with pytest.raises(ArgumentError, match='plan.json cannot be read'):
    hosts.agree_on_split(plan)
  assert told[1].startswith('-2 `workdir=')


def test_the_others_have_the_time_to_save(board, plan):
  """And no more, if nothing is heard of them."""
  started = time.monotonic()
  assert hosts.work_apart(plan, lambda: app.SAVED) == app.SAVED
  assert 1 <= time.monotonic() - started < 10


def test_a_signal_after_the_work_stops_the_others(board, plan):
  timer = threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM])
  timer.start()
  heard = threading.Timer(0.2, board.texts.update, [{1: '75'}])
  heard.start()
  assert hosts.work_apart(plan, lambda: app.DONE) == app.SAVED
  assert board.texts[0] == '75'


def test_a_first_process_that_is_gone_is_not_waited_for(board, plan):
  def fail(*_):
    raise jax.errors.JaxRuntimeError('UNAVAILABLE')

  board.read = board.write = fail
  assert hosts.work_apart(plan, lambda: app.DONE) == app.SAVED


def parts(plan):
  return [[(m.cell, m.seed) for m in program] for program in plan.programs]


def test_runs_of_a_program_are_split_in_their_order(tmp_path):
  whole = ablations.plan(tmp_path, seeds=3)
  split = ablations.plan(tmp_path, seeds=3, split=4)
  assert [len(p) for p in split.programs] == [2, 2, 1, 1]
  assert sum(parts(split), []) == parts(whole)[0]
  assert split.runs == whole.runs == 6
  many = ablations.plan(tmp_path, split=9)
  assert [len(p) for p in many.programs] == [1] * 4


def test_each_task_has_its_share_of_the_runs(tmp_path):
  """Of two programs of four runs, split in three."""
  grid = ablations.GRID
  plan = folder.decide_split(ablations.plan(tmp_path, *grid, only='2/6'))
  assert plan.options.split == 3 and len(plan.programs) == 6
  assert plan.chosen_programs() == [1]
  assert folder.decide_split(ablations.plan(tmp_path, only='1/1')).runs == 4
  few = folder.decide_split(ablations.plan(tmp_path, *grid, only='1/2'))
  assert len(few.programs) == 2
  joined = folder.decide_split(ablations.plan(tmp_path, *grid), 3)
  assert joined.options.split == 2


def test_a_folder_keeps_the_split_that_it_was_begun_with(tmp_path):
  path = tmp_path / 'a'
  assert ablations.run_fake(ablations.plan(path, split=2)) == 0
  assert len([*(path / 'programs').glob('*/results.json')]) == 2
  again = folder.decide_split(ablations.plan(path, only='1/8'))
  assert again.options.split == 2
  assert ablations.run_fake(ablations.plan(path)) == 0
  with pytest.raises(IdentityError, match='split: 2 there, 4 now'):
    ablations.run_fake(ablations.plan(path, split=4))
  whole = tmp_path / 'whole'
  assert ablations.run_fake(ablations.plan(whole)) == 0
  assert ablations.rows(path) == ablations.rows(whole)


def test_a_number_is_the_same_however_it_is_written(tmp_path):
  assert ablations.run_fake(ablations.plan(tmp_path, 'lr_g=1e-3,1e-2')) == 0
  assert ablations.run_fake(ablations.plan(tmp_path, 'lr_g=0.001,.01')) == 0
  with pytest.raises(IdentityError, match='vary: '):
    ablations.run_fake(ablations.plan(tmp_path, 'lr_g=0.002,.01'))


def test_a_task_without_a_share_is_told(tmp_path, capsys):
  asked = ablations.plan(tmp_path / 'a', split=1, only='2/2')
  assert ablations.run_fake(asked) == 0
  said = capsys.readouterr().err
  assert '`only=2/2`: has nothing to do' in said and '`split=1`' in said


def arrays(workdir):
  found = {}
  for program in sorted((workdir / 'programs').glob('0*')):
    with np.load(program / 'stats.npz') as rows:
      found |= {(program.name, name): rows[name] for name in rows}
  return found


def joined(workdir, module='gan_jax.ablate', words=WORDS):
  launch = [sys.executable, str(ROOT / 'launch' / 'local.py')]
  launch += [f'--module={module}', '--platform=cpu', '--processes=2']
  return ['timeout', '200', *launch, f'--workdir={workdir}', '--', *words]


@pytest.mark.multiprocess
def test_two_processes_end_where_one_does_after_a_signal_too(tmp_path):
  one, two = tmp_path / 'one', tmp_path / 'two'
  env = dict(os.environ, XLA_FLAGS=compiling.of_a_process())
  env['PYTHONPATH'] = f'{tmp_path}:{ROOT}'

  def run(command):
    done = subprocess.run(
      command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout

  command = [sys.executable, '-m', 'gan_jax.ablate', f'--workdir={one}']
  run([*command, *WORDS, '--split=2'])
  process = subprocess.Popen(joined(two), env=env, cwd=ROOT)
  checkpoints = two / 'programs' / '001' / 'checkpoints'
  while process.poll() is None and not [*checkpoints.glob('0*')]:
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  assert process.wait() == 75
  assert '6 of 6 runs ended: 6 done' in run(joined(two))
  (tmp_path / 'table.py').write_text(SCRIPT)
  three = tmp_path / 'three'
  assert run(joined(three, 'table', ())).count('rows 6') == 2  # the whole table
  for workdir in (two, three):
    assert ablations.rows(workdir) == ablations.rows(one)
    own, wanted = arrays(workdir), arrays(one)
    assert own.keys() == wanted.keys() and own['001', 'step'][-1] == 400
    for name, values in wanted.items():
      np.testing.assert_array_equal(own[name], values, err_msg=str(name))


def test_a_program_is_compiled_for_the_devices_of_one_host(monkeypatch):
  devices = [types.SimpleNamespace(process_index=i // 4) for i in range(8)]
  mesh = types.SimpleNamespace(devices=np.array(devices).reshape(2, 4))
  monkeypatch.setattr(compile_for.topology, 'make_mesh', lambda target: mesh)
  by_host = compile_for._devices_by_host(parse_target('v5e:2x4'))
  assert by_host == [devices[:4], devices[4:]]
