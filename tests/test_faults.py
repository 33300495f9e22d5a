"""Faults on purpose: the tool, and each of its points and kinds once."""

import os
import pathlib
import random
import subprocess
import sys
import time

import pytest
from helpers import denied, faults

from gan_jax.runtime import provenance
from gan_jax.runtime.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parents[1]
SOAK = ROOT / 'experiments' / 'reliability' / 'soak.py'


@pytest.fixture(autouse=True)
def record(tmp_path, monkeypatch):
  path = tmp_path / 'met'
  monkeypatch.setenv('FAULTS_MET', str(path))
  return path


def test_what_is_written_is_what_is_met(record):
  plan = faults.Plan(faults.parse('lost@store!#2 slow@put+.001 1:kill@store'))
  done = []
  for i in range(3):
    try:
      plan.around('store', lambda i=i: done.append(i))
    except ConnectionResetError:
      done.append('lost')
  assert done == [0, 1, 'lost', 2] and plan.counts == {'store': 3}
  assert record.read_text() == 'lost@store!#2\n'
  assert plan.met == faults.parse(record.read_text())


@pytest.mark.parametrize('text', ['kill', 'bite@step', 'kill@lunch', 'a@b#'])
def test_what_is_no_fault_is_named(text):
  with pytest.raises(ValueError, match=f'{text!r} is no fault'):
    faults.parse(f'kill@step {text}')


def test_a_store_that_is_away_comes_back():
  plan = faults.Plan(faults.parse('away@store+.05'))
  with pytest.raises(ConnectionResetError):
    plan.around('store', list)
  time.sleep(0.06)
  assert plan.around('store', list) == []


def test_the_clock_moves_for_all_that_tells_the_time(monkeypatch):
  for owner, name in ((time, 'time'), (time, 'time_ns')):
    monkeypatch.setattr(owner, name, getattr(owner, name))
  monkeypatch.setattr(
    provenance.datetime, 'datetime', provenance.datetime.datetime
  )
  before, began = time.time(), time.monotonic()
  faults.move_clock(-4e7)
  assert time.time() - before < -3.9e7 and time.monotonic() >= began
  assert provenance.now() < '2026-06-01' or before > 2e9


@pytest.mark.parametrize('kind', ['flip', 'lose'])
def test_a_damage_is_of_the_newest_checkpoint_if_there_is_another(
  kind, tmp_path
):
  def contents():
    return {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}

  for name, text in (('000000001', b'one'), ('000000002', b'')):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'file').write_bytes(text)
    (tmp_path / name / 'more').write_bytes(text * 2)
  rng, before = random.Random(0), contents()
  assert not faults.damage(rng, tmp_path, kind)  # nothing in it
  (tmp_path / '000000002/file').write_bytes(b'two')
  before = contents()
  assert faults.damage(rng, tmp_path, kind)
  after = contents()
  assert {p for p in before if after.get(p) != before[p]} == {
    tmp_path / '000000002/file'
  }
  # Of the store's only one that is whole.
  (tmp_path / '000000001.manifest.json').write_text('{}')
  assert not faults.damage(rng, tmp_path, kind)


@pytest.mark.skipif(not denied.AVAILABLE, reason='Linux on x86_64 alone')
def test_a_full_disk_takes_no_new_file_in_any_library(tmp_path):
  there = tmp_path / 'there'
  there.write_text('kept')
  script = f"""
import os, pathlib, threading, sys
there = pathlib.Path({str(there)!r})
def both():
  for make in (there.with_name('new').touch, there.with_name('f').mkdir):
    try:
      make()
    except OSError as error:
      print(error.errno, flush=True)
  print(there.read_text(), flush=True)
go = threading.Event()
other = threading.Thread(target=lambda: go.wait() and both())
other.start()
from helpers import denied
denied.fill_disk()
both(); go.set(); other.join()
"""
  done = subprocess.run(
    [sys.executable, '-c', script],
    env={**os.environ, 'PYTHONPATH': str(ROOT / 'tests')},
    capture_output=True,
    text=True,
  )
  assert done.stdout.split() == ['28', '28', 'kept'] * 2, done.stderr
  assert [p.name for p in tmp_path.iterdir()] == ['there']


@pytest.mark.slow
def test_each_of_them_leaves_the_bits_of_an_undisturbed_run():
  """Kills and hangs at all points, and all faults: on a disk, in a store."""
  done = subprocess.run(
    [sys.executable, SOAK, '--each'], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stdout.endswith('the same bits\n')
  for word in (*faults.POINTS, *faults.KINDS[2:], 'hung'):
    assert word in done.stdout


@pytest.mark.slow
def test_the_command_meets_them_and_names_what_was_damaged(tmp_path, record):
  workdir = tmp_path / 'run'
  words = ['--dataset=ring', '--network=mlp', '--width=8', '--batch_size=8']
  words += ['--steps=30', '--checkpoint_every=10', '--devices=1', '--noreport']
  words += [f'--workdir={workdir}', f'--compilation_cache={tmp_path / "xla"}']

  def meet(text):
    return subprocess.run(
      [sys.executable, '-m', 'helpers.faults', text, 'gan_jax.train', *words],
      env={
        **os.environ,
        'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')]),
      },
      capture_output=True,
      text=True,
    )

  killed = meet('clock@compile+40000000 kill@save!#3+.5')
  assert killed.returncode in (0, -9), killed.stderr
  content = max(workdir.glob('checkpoints/*/state/**/d/*'))
  data = bytearray(content.read_bytes())
  data[len(data) // 2] ^= 1
  content.write_bytes(data)
  done = meet('clock@restore-80000000')
  assert done.returncode == 0, done.stderr
  newest = int(content.relative_to(workdir).parts[1])
  assert f'checkpoint {newest} in {workdir}' in done.stderr
  assert 'passing over it' in done.stderr
  assert 'clock@restore' in record.read_text()
  checkpoints = Checkpoints(workdir, read_only=True)
  assert checkpoints.steps()[-1] == 30
  checkpoints.close()
