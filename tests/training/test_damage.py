"""Damaged runs: every damage is named and passed over, or harms nothing.

Each damage is a function of its number alone: `test_many_damages[17]` fails the
same way wherever it is run.
"""

import contextlib
import dataclasses
import os
import pathlib
import random
import shutil
import time

import pytest

from gan_jax.config import app, schema
from gan_jax.runtime import checkpoint, files, records
from gan_jax.runtime.checkpoint import Checkpoints
from gan_jax.runtime.errors import Error
from gan_jax.training import report, restore, run_loop, setup, workdir, writers
from gan_jax.training.train import train_config

# Orbax's reading threads outlive its event loop when a file is damaged.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)

FEW, MANY, PARTS = 12, 400, 8


# How a disk, a copy or a hand damages a file.


def flip(content, rng):
  i = rng.randrange(len(content))
  return (
    content[:i] + bytes([content[i] ^ 1 << rng.randrange(8)]) + content[i + 1 :]
  )


def cut(content, rng):
  return content[: rng.randrange(len(content))]


def zero(content, rng):
  i = rng.randrange(len(content))
  length = min(len(content) - i, 1 + rng.randrange(512))
  return content[:i] + bytes(length) + content[i + length :]


def garble(content, rng):
  i = rng.randrange(len(content))
  return content[:i] + rng.randbytes(64) + content[i + 64 :]


def extend(content, rng):
  return content + rng.randbytes(1 + rng.randrange(64))


def insert_line(content, rng):
  lines = content.split(b'\n')
  lines.insert(
    rng.randrange(len(lines)), rng.choice([b'', b'null', b'\x00' * 7])
  )
  return b'\n'.join(lines)


def empty(content, rng):
  return b''


EDITS = [flip, flip, flip, cut, zero, garble, extend, insert_line, empty]


def remove(path):
  shutil.rmtree(path) if path.is_dir() else path.unlink()


def replace(path):
  """By what a file or folder is not."""
  if path.is_dir():
    shutil.rmtree(path)
    path.write_bytes(b'')
  else:
    path.unlink()
    path.mkdir()


def damage(folder: pathlib.Path, number: int) -> tuple[pathlib.Path, str]:
  """Damages one thing in a folder; which, and how."""
  rng = random.Random(number)
  group = rng.choice(
    ['checkpoints'] * 5 + ['config', 'run', 'stats', 'samples']
  )
  if group == 'checkpoints':
    paths = [*(folder / group).rglob('*'), folder / group]
    if rng.random() < 0.7:  # of the newest
      paths = [p for p in paths if f'{24:09d}' in p.parts]
  else:
    names = {'config': '*.flags', 'run': 'run.json', 'stats': 'stats.jsonl'}
    paths = [*folder.glob(names.get(group, 'samples/*'))]
  path = rng.choice(sorted(paths))
  kind = rng.choice(EDITS)
  if path.is_dir() or rng.random() < 0.15:
    kind = rng.choice([remove, replace])
  if kind in (remove, replace):
    kind(path)
  else:
    content = path.read_bytes()
    path.write_bytes(kind(content, rng) if content else b'x')
  return path, kind.__name__


# What is there afterwards, and what was said.


@dataclasses.dataclass
class Reading:
  """A run as the next process finds it."""

  step: int
  state: str
  config: object
  facts: dict
  rows: list
  samples: dict


def read_samples(folder):
  """Each sample file that can be read, and the names of the others."""
  whole, damaged = {}, []
  for path in sorted((folder / 'samples').iterdir()):
    try:
      arrays = records.read_arrays(path)
      whole[path.name] = {name: x.tobytes() for name, x in arrays.items()}
    except records.DamagedRecord:
      damaged.append(path.name)
  return whole, damaged


def resume(config, parts):
  """What a restart does before its first step."""
  workdir.check(config)
  with workdir.held(config) as folder:
    loop = run_loop.RunLoop(parts, folder)
    try:
      workdir.claim(config)
      state = checkpoint.digest(checkpoint.to_host(loop.to_save()))
      facts = loop.run_file.facts
      rows = writers.read_rows(folder / 'stats.jsonl')
      there = restore.read_config(folder)
    finally:
      loop.close()
  return Reading(loop.step, state, there, facts, rows, read_samples(folder)[0])


@pytest.fixture(scope='module')
def intact(ring_run):
  """A finished run, its parts, and what is read of it."""
  parts = setup.build(ring_run)
  states = {}
  with contextlib.closing(
    Checkpoints(ring_run.workdir, read_only=True)
  ) as checkpoints:
    for step in checkpoints.steps():
      state, _ = checkpoints.restore(step, parts.shapes)
      states[step] = checkpoint.digest(checkpoint.to_host(state))
  return ring_run, parts, states


def check(intact, number, tmp_path, capsys):
  """One damage: never a traceback, never another value without a word."""
  run, parts, states = intact
  folder = tmp_path / f'run{number}'
  shutil.copytree(run.workdir, folder)
  config = dataclasses.replace(run, workdir=str(folder))
  good = {
    'facts': workdir.read_facts(folder),
    'rows': writers.read_rows(folder / 'stats.jsonl'),
    'samples': read_samples(folder)[0],
  }
  path, kind = damage(folder, number)
  what = f'{kind} of {path.relative_to(folder)}'
  capsys.readouterr()
  try:
    found = resume(config, parts)
  except (Error, OSError) as error:
    if isinstance(error, OSError):  # as the trainer does
      error = checkpoint.not_saved(folder, error)
    # The end of it: what is longer than a line is cut in the middle.
    assert str(folder)[-20:] in str(error), f'{what}: {error}'
    shutil.rmtree(folder)
    return 'refused'
  said = capsys.readouterr().err
  # Whatever is restored is what was saved at that step, bit for bit.
  assert found.state == states[found.step], what
  harmed = found.config != config
  if found.step != 24:
    assert f'checkpoint 24 in {folder}' in said, what
    harmed = True
  if found.facts != good['facts']:
    # Facts that are gone as a whole are written again; none is another.
    assert found.facts.items() <= good['facts'].items(), what
    harmed = harmed or bool(found.facts) or path.exists()
  kept = [row for row in good['rows'] if row['step'] <= found.step]
  if found.rows != kept:
    assert all(row in kept for row in found.rows), what
    harmed = True
  for name, arrays in found.samples.items():
    assert arrays == good['samples'][name], what
  assert not harmed or 'warning: ' in said, f'{what} was silent'
  if path.name in ('config.flags', 'run.json', 'stats.jsonl') and harmed:
    assert str(path) in said, what
  shutil.rmtree(folder)
  return 'named' if 'warning: ' in said else 'unharmed'


def test_some_damages(intact, tmp_path, capsys):
  outcomes = [check(intact, n, tmp_path, capsys) for n in range(FEW)]
  assert {'named', 'unharmed'} <= set(outcomes)


@pytest.mark.soak
@pytest.mark.parametrize('part', range(PARTS))
def test_many_damages(part, intact, tmp_path, capsys):
  numbers = range(FEW + part, FEW + MANY, PARTS)
  outcomes = [check(intact, n, tmp_path, capsys) for n in numbers]
  assert outcomes.count('named') > 10, outcomes


# What is made again, end to end.


def test_what_is_damaged_beside_the_checkpoints_is_made_again(finished, capsys):
  """One run with all of it at once: trained on, reported, bitwise the same."""
  folder = pathlib.Path(finished.workdir)
  before = restore.open_run(folder)
  flags, facts = (folder / 'config.flags').read_bytes(), folder / 'run.json'
  program = workdir.read_facts(folder)['identity']['program']
  (folder / 'config.flags').write_bytes(flags.replace(b'lr_g=0', b'lr_g=1'))
  facts.write_text('null')
  lines = (folder / 'stats.jsonl').read_bytes().split(b'\n')
  lines[1:3] = [lines[1].replace(b'5', b'6', 1), b'', b'\x00\x00']
  (folder / 'stats.jsonl').write_bytes(b'\n'.join(lines))
  newest = max((folder / 'samples').iterdir())
  newest.write_bytes(newest.read_bytes()[:-40])
  assert restore.open_run(folder).config == before.config
  assert len(restore.open_run(folder).logs()) == len(lines) - 4
  assert train_config(finished) == app.DONE
  said = capsys.readouterr().err
  assert (
    f'{folder}/config.flags: damaged, or edited by hand; taken from' in said
  )
  assert f'{facts} is damaged (a NoneType' in said
  assert 'stats.jsonl: lines 2, 3, 4 are damaged' in said
  assert schema.load_flagfile(folder / 'config.flags') == finished
  assert workdir.read_facts(folder)['identity']['program'] == program
  after = restore.open_run(folder)
  assert checkpoint.digest(after.state) == checkpoint.digest(before.state)
  page = report.render_report(folder)
  said = capsys.readouterr().err
  assert f'{newest} is damaged (' in said and 'stats.jsonl' not in said
  assert page.count('<svg') or 'data:image' in page


def test_options_that_are_gone_are_those_of_the_checkpoint(finished, capsys):
  path = pathlib.Path(finished.workdir) / 'config.flags'
  path.unlink()
  assert restore.read_config(finished.workdir) == finished
  assert 'taken from the newest checkpoint' in capsys.readouterr().err
  other = dataclasses.replace(finished, lr_g=0.5)
  with pytest.raises(Error, match='`lr_g`: 0.0002 there, 0.5 now'):
    workdir.check(other)


def test_options_that_are_gone_are_those_of_the_newest(finished):
  longer = dataclasses.replace(finished, steps=finished.steps + 4)
  assert train_config(longer) == app.DONE
  (pathlib.Path(finished.workdir) / 'config.flags').unlink()
  assert restore.read_config(finished.workdir) == longer


def test_damaged_options_without_a_checkpoint_are_named(finished):
  folder = pathlib.Path(finished.workdir)
  shutil.rmtree(folder / 'checkpoints')
  path = folder / 'config.flags'
  for content in (b'\xff\xfe', b'--warp=9\n', path.read_bytes()[:-3]):
    path.write_bytes(content)
    with pytest.raises(Error, match='config.flags'):
      workdir.check(finished)


def test_a_deleted_folder_of_checkpoints_does_not_start_afresh(finished):
  folder = pathlib.Path(finished.workdir)
  rows = (folder / 'stats.jsonl').read_bytes()
  shutil.rmtree(folder / 'checkpoints')
  with pytest.raises(Error, match='all checkpoints in .* are gone'):
    train_config(finished)
  with pytest.raises(Error, match='all checkpoints in .* are gone'):
    restore.open_run(folder)
  assert (folder / 'stats.jsonl').read_bytes() == rows


def test_a_shorter_log_is_missed(finished, capsys):
  path = pathlib.Path(finished.workdir) / 'stats.jsonl'
  lines = path.read_text().splitlines(keepends=True)
  path.write_text(''.join(lines[:2]))
  writers.Log(path.parent, 24, 24).close()
  said = capsys.readouterr().err
  assert 'ends at step 10, and had rows up to step 24' in said


def test_leftovers_of_killed_writers_are_removed(finished):
  folder = pathlib.Path(finished.workdir)
  old, new, own = (
    folder / name
    for name in (
      '.report.html.a1b2c3d4.partial',
      '.run.json.a1b2c3d4.partial',
      '.my.settings',
    )
  )
  sample = folder / 'samples' / '.step.npz.a1b2c3d4.partial'
  for path in (old, new, own, sample):
    path.write_text('')
  for path in (old, own, sample):
    os.utime(path, (time.time() - 7200,) * 2)
  with workdir.held(finished):
    assert not old.exists() and not sample.exists()
    assert new.exists() and own.exists()
  with pytest.raises(RuntimeError), files.open_atomic(folder / 'x'):
    assert [*folder.glob('.x.*.partial')]
    raise RuntimeError
  assert not [*folder.glob('.x.*')]
