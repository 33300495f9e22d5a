"""The log of a run: what a kill leaves of it, and what a restart writes."""

import contextlib
import subprocess
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from gan_jax.training import writers
from gan_jax.training.writers import Log, read_rows


def read_events(folder):
  """(step, tag) of every event that is shown, in the order of the files."""
  events = []
  for path in sorted((folder / 'tensorboard').iterdir()):
    content = path.read_bytes()
    while content:
      length = int.from_bytes(content[:8], 'little')
      event = Event.FromString(content[12 : 12 + length])
      content = content[16 + length :]
      if event.HasField('session_log'):  # hides what is later
        events = [e for e in events if e[0] < event.step]
      events += [(event.step, value.tag) for value in event.summary.value]
  return events


@pytest.fixture
def start(tmp_path):
  """Starts a log, as a process does that is killed later."""
  with contextlib.ExitStack() as stack:
    yield lambda *at: stack.enter_context(
      contextlib.closing(Log(tmp_path, *at))
    )


@pytest.fixture
def clock(monkeypatch):
  """Each event file has a name of its own, in order."""
  seconds = iter(range(10**9, 2 * 10**9))
  monkeypatch.setattr(writers.time, 'time', lambda: float(next(seconds)))


def test_a_kill_loses_no_row_that_was_written(start, tmp_path):
  """Read before anything is closed."""
  log = start(0)
  log.write({'step': 5, 'd/loss': 0.5})
  assert read_rows(tmp_path / 'stats.jsonl') == [{'step': 5, 'd/loss': 0.5}]
  assert read_events(tmp_path) == [(5, 'd/loss')]


def test_what_was_written_at_the_start_is_written_once(start, tmp_path, clock):
  """Killed before its first checkpoint, twice."""
  for _ in range(3):
    log = start(0)
    log.write({'step': 0, 'x': 1.0}, 'dynamics')
    log.write({'step': 5, 'd/loss': 0.5})
  assert read_rows(tmp_path / 'dynamics.jsonl') == [{'step': 0, 'x': 1.0}]
  assert len(read_rows(tmp_path / 'stats.jsonl')) == 1
  assert sorted(read_events(tmp_path)) == [(0, 'x'), (5, 'd/loss')]


def test_a_restart_keeps_what_its_checkpoint_has(start, tmp_path, clock):
  log = start(0)
  log.write({'step': 0, 'x': 1.0}, 'dynamics')
  for step in (5, 10):
    log.write({'step': step, 'd/loss': 0.5})
  log = start(7, 5)
  log.write({'step': 10, 'd/loss': 0.25})
  steps = [row['step'] for row in read_rows(tmp_path / 'stats.jsonl')]
  assert steps == [5, 10]
  assert read_events(tmp_path) == [(0, 'x'), (5, 'd/loss'), (10, 'd/loss')]
  assert len(read_rows(tmp_path / 'dynamics.jsonl')) == 1


def test_what_is_no_number_is_null(start, tmp_path):
  """Of JSON, in which many readers know no NaN; TensorBoard leaves it out."""
  log = start(0)
  log.write({'step': 5, 'd/loss': float('nan'), 'g/loss': 1.0, 'x': [1.0]})
  text = (tmp_path / 'stats.jsonl').read_text()
  assert '"d/loss": null' in text and 'NaN' not in text
  assert read_events(tmp_path) == [(5, 'g/loss')]


def test_a_log_that_is_taken_away_is_begun_again(start, tmp_path, capsys):
  log = start(0)
  log.write({'step': 5, 'd/loss': 0.5})
  (tmp_path / 'stats.jsonl').rename(tmp_path / 'away')
  for step in (10, 15):
    log.write({'step': step, 'd/loss': 0.5})
  steps = [row['step'] for row in read_rows(tmp_path / 'stats.jsonl')]
  assert steps == [10, 15]
  assert capsys.readouterr().err.count('was removed while the run goes on') == 1


def test_a_line_says_how_far_it_is_and_how_long_it_will_be(capsys):
  row = dict.fromkeys(('d/prob_real', 'd/prob_fake', 'd/loss', 'g/loss'), 0.5)
  speed = {'speed/images_per_sec': 1e4, 'speed/sec_per_step': 2.0}
  writers.Progress(0, 100).row({'step': 60, **row, **speed})
  said = capsys.readouterr().err
  assert said.startswith('step 60/100  D(x) 0.500') and said.endswith(
    '10,000 images/s  1m20s left\n'
  )


def test_a_log_of_nothing_starts_no_event_file(tmp_path):
  Log(tmp_path, 0).close()
  assert not (tmp_path / 'tensorboard').exists()


def test_a_clock_that_was_set_back_hides_no_row(start, tmp_path, monkeypatch):
  """TensorBoard reads files in the order of their names, the oldest first."""
  for step, now in ((0, 2e9), (5, 1e9), (10, 1.5e9)):
    monkeypatch.setattr(writers.time, 'time', lambda now=now: now)
    start(step).write({'step': step + 5, 'd/loss': 0.5})
  assert read_events(tmp_path) == [(step, 'd/loss') for step in (5, 10, 15)]


def test_the_row_of_the_checkpoint_itself_is_kept(start, tmp_path, clock):
  """And none after it."""
  log = start(0)
  for step in (5, 10, 15):
    log.write({'step': step, 'd/loss': 0.5})
  start(10, 10).write({'step': 15, 'd/loss': 0.25})
  table = read_rows(tmp_path / 'stats.jsonl')
  assert [(r['step'], r['d/loss']) for r in table] == [
    (5, 0.5),
    (10, 0.5),
    (15, 0.25),
  ]
  assert read_events(tmp_path) == [(s, 'd/loss') for s in (5, 10, 15)]


@pytest.mark.slow
def test_a_run_imports_no_torch_and_orbax_late(tmp_path):
  """Seconds and hundreds of megabytes; stand-ins that tell."""
  for name in ('torch', 'tensorflow', 'boto3'):
    (tmp_path / f'{name}.py').write_text(f'raise SystemExit("{name}!")')
  code = f"""
import pathlib, sys
sys.path.insert(0, {str(tmp_path)!r})
from gan_jax.training import run_loop, train, writers
log = writers.Log(pathlib.Path({str(tmp_path)!r}), 0)
log.write({{'step': 1, 'd/loss': 0.5}})
log.close()
assert 'orbax' not in sys.modules, 'before anything is saved'
"""
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=60
  )
  assert done.returncode == 0, done.stderr[-500:]
  assert read_events(tmp_path) == [(1, 'd/loss')]
