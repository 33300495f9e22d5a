"""Whole runs in process: exact resume, refusal, divergence, what is written."""

import contextlib
import dataclasses
import json
import os
import pathlib
import resource
import shutil
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from helpers import small
from helpers.small import final, rows, signal_when

from gan_jax.config import app
from gan_jax.config.schema import Config
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.evaluation.score_file import ScoreFile
from gan_jax.runtime import checkpoint, locks
from gan_jax.runtime.errors import ArgumentError, Error, IdentityError
from gan_jax.training import restore, run_loop, setup, workdir, writers
from gan_jax.training.train import train_config

# Orbax's reading threads outlive its event loop when a file is damaged.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)

OFTEN = dict(steps=24, log_every=5, sample_every=24, checkpoint_every=7)


@pytest.fixture(scope='module', autouse=True)
def _digits(digits_root):
  """`digits` prepared once, away from the user's data."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('TFDS_DATA_DIR', str(digits_root))
    yield


@pytest.fixture
def make(programs):
  """A configuration of a kind of run, in a folder."""
  kinds = {
    'density': small.ring(),
    'resident': small.digits(),
    'streamed': small.digits(residence='stream'),
    'convolutional': small.dcgan(),
  }

  def make(path, kind='density', **changes):
    settings = dict(workdir=str(path), compilation_cache=programs)
    return dataclasses.replace(kinds[kind], **(OFTEN | settings | changes))

  return make


# Interrupted and continued.


@pytest.mark.parametrize(
  'kind',
  [
    'streamed',
    pytest.param('resident', marks=pytest.mark.slow),
    pytest.param('convolutional', marks=pytest.mark.slow),
  ],
)
def test_interrupted_is_uninterrupted(kind, make, tmp_path):
  """Saved after a signal, continued: bitwise the same state and log."""
  whole, parted = (make(tmp_path / name, kind) for name in ('whole', 'parted'))
  assert train_config(whole) == app.DONE
  with signal_when('step 10/24'):
    assert train_config(parted) == app.SAVED
  assert final(parted.workdir)[0] == 10
  assert train_config(parted) == app.DONE
  assert final(parted.workdir) == final(whole.workdir)
  assert_same_rows(rows(parted.workdir), rows(whole.workdir))


def assert_same_rows(parted, whole, rtol=1e-5):
  """Sums are of other dispatches, and so rounded otherwise."""
  assert [r['step'] for r in parted] == [r['step'] for r in whole]
  for a, b in zip(parted, whole, strict=True):
    assert a.keys() == b.keys()
    np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=rtol)


def test_made_longer_and_interrupted_is_whole(ring_run, make, tmp_path, capsys):
  """Whatever is written when, and by how many calls."""
  often = dict(log_every=4, sample_every=10, checkpoint_every=11)
  config = make(tmp_path, steps=9, **often)
  assert train_config(config) == app.DONE
  config = make(tmp_path, **often)
  with signal_when('step 20/24', signal.SIGINT):
    assert train_config(config) == app.SAVED
  facts = json.loads((tmp_path / 'run.json').read_text())
  assert facts['outcome'] == 'saved'
  said = capsys.readouterr().err
  assert f'saved at step 20 of 24 in {tmp_path}; run the same command' in said
  assert 'compiled in' in said and 'left' in said
  assert train_config(config) == app.DONE
  assert 'continuing at step 20\n' in capsys.readouterr().err
  later = json.loads((tmp_path / 'run.json').read_text())
  assert later['started'] == facts['started'] <= facts['finished']
  assert restore.read_config(tmp_path) == config
  assert final(tmp_path) == final(ring_run.workdir)
  table = writers.read_rows(tmp_path / 'stats.jsonl')
  assert [r['step'] for r in table] == [4, 8, 9, 12, 16, 20, 24]
  seconds = [r['time/train_sec'] for r in table]  # of all three together
  assert seconds == sorted(seconds) and seconds[2] > 0


def test_a_finished_run_is_left_as_it_is(finished):
  before = final(finished.workdir), rows(finished.workdir)
  assert train_config(finished) == app.DONE
  assert (final(finished.workdir), rows(finished.workdir)) == before


def test_a_damaged_newest_checkpoint_is_passed_over(finished, capsys):
  """The one before is in the midst of a row of the log."""
  expected, before = final(finished.workdir), rows(finished.workdir)
  newest = pathlib.Path(finished.workdir) / 'checkpoints' / f'{24:09d}'
  for path in (newest / 'state').rglob('*'):
    if path.is_file() and path.stat().st_size > 1000:
      content = bytearray(path.read_bytes())
      content[len(content) // 2] ^= 1
      path.write_bytes(bytes(content))
  assert train_config(finished) == app.DONE
  said = capsys.readouterr().err
  assert 'warning: checkpoint 24' in said
  assert 'continuing at step 21' in said
  assert final(finished.workdir) == expected
  assert_same_rows(rows(finished.workdir), before)


def test_a_damaged_run_json_does_not_end_the_run(finished):
  """Killed while it was written, by a file system that is not atomic."""
  path = pathlib.Path(finished.workdir) / 'run.json'
  path.write_bytes(path.read_bytes()[:100])
  assert restore.open_run(finished.workdir).step == 24
  assert train_config(dataclasses.replace(finished, steps=25)) == app.DONE
  facts = json.loads(path.read_text())
  assert (facts['outcome'], facts['step']) == ('done', 25)


# Signals before there is something to save.


def kill_in(monkeypatch, owner, name):
  """A SIGTERM to this process in the midst of a function."""
  original = getattr(owner, name)

  def killed(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    return original(*args, **kwargs)

  monkeypatch.setattr(owner, name, killed)


def test_a_signal_before_the_first_step(
  ring_run, make, tmp_path, monkeypatch, capsys
):
  """At each stage of a start: nothing is left behind that a start refuses."""
  config = make(tmp_path / 'run', seed=1)
  (tmp_path / 'run').mkdir()
  for name in ('.lock', '.config.flags.x1'):  # of a process that was killed
    (tmp_path / 'run' / name).write_text('')
  for owner, name in [
    (setup, 'load_dataset'),
    (checkpoint.Checkpoints, 'restore_newest'),
  ]:
    with monkeypatch.context() as patch:
      kill_in(patch, owner, name)
      assert train_config(config) == app.SAVED
    assert 'stopped by SIGTERM' in capsys.readouterr().err
    assert not rows(tmp_path / 'run')
  with signal_when('devices: '):  # before it compiles
    assert train_config(config) == app.SAVED
  facts = json.loads((tmp_path / 'run' / 'run.json').read_text())
  assert (facts['outcome'], facts['step']) == ('saved', 0)
  with signal_when('compiled in'):  # from here on it is saved
    assert train_config(config) == app.SAVED
  assert final(tmp_path / 'run')[0] == 0
  assert train_config(config) == app.DONE
  # Another seed is another run.
  other = restore.open_run(ring_run.workdir).state
  for path, x in restore.open_run(tmp_path / 'run').state.items():
    if path.endswith('kernel'):
      assert (x != other[path]).all()


def test_a_folder_says_whose_it_is_before_anything_else(
  make, tmp_path, monkeypatch
):
  def killed(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(checkpoint.Checkpoints, '__init__', killed)
  with pytest.raises(KeyboardInterrupt):
    train_config(make(tmp_path))
  assert restore.read_config(tmp_path) == make(tmp_path)


# Refused.


def test_another_configuration_is_refused(finished):
  before = final(finished.workdir), rows(finished.workdir)
  with pytest.raises(IdentityError) as caught:
    train_config(dataclasses.replace(finished, lr_g=0.5, objective='minimax'))
  assert '`lr_g`: 0.0002 there, 0.5 now' in str(caught.value)
  assert '`objective`: non_saturating there, minimax now' in str(caught.value)
  assert (final(finished.workdir), rows(finished.workdir)) == before


def test_other_data_is_refused_and_does_not_claim_the_folder(make, tmp_path):
  folder = tmp_path / 'images'
  folder.mkdir()
  rng = np.random.default_rng(0)
  for i in range(10):
    pixels = rng.integers(0, 256, (8, 8), np.uint8)
    PIL.Image.fromarray(pixels).save(folder / f'{i}.png')
  run = tmp_path / 'run'
  config = make(run, 'resident', dataset=f'folder:{folder}')
  with signal_when('devices: '):
    assert train_config(config) == app.SAVED
  said = (run / 'config.flags').read_text()
  PIL.Image.fromarray(pixels[::-1].copy()).save(folder / '3.png')
  with pytest.raises(IdentityError, match=r'\n  data: .+ there, .+ now'):
    train_config(dataclasses.replace(config, log_every=3))
  assert (run / 'config.flags').read_text() == said


def test_a_run_that_was_refused_does_not_hold_its_folder(tmp_path):
  """What was begun there, or was there before, stays."""
  folder = tmp_path / 'run'
  refused, corrected = (
    Config(workdir=str(folder), dataset='ring', seed=seed) for seed in (0, 1)
  )

  def refuse(config):
    with pytest.raises(ArgumentError, match='features'):
      with workdir.held(config):
        (folder / 'checkpoints').mkdir(exist_ok=True)
        raise ArgumentError('features', '', 'say what fid sees')

  refuse(refused)
  assert [path.name for path in folder.iterdir()] == ['.lock']
  with workdir.held(corrected):
    assert '--seed=1' in (folder / 'config.flags').read_text()
  refuse(corrected)  # of a folder that was there
  assert (folder / 'config.flags').exists()
  (folder / 'config.flags').unlink()
  (folder / 'stats.jsonl').write_text('{}')
  refuse(refused)
  assert (folder / 'config.flags').exists()


def test_two_processes_do_not_share_a_workdir(finished):
  with workdir.held(finished):
    with pytest.raises(ArgumentError, match='another process is training'):
      train_config(finished)


def test_where_there_are_no_locks_it_trains_alone(
  make, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(locks, 'fcntl', None)
  monkeypatch.setattr(locks, '_BEAT', 0.05)
  config = make(tmp_path)
  with workdir.held(config):
    with pytest.raises(
      ArgumentError, match='is training there .process [0-9]+ on '
    ):
      with workdir.held(config):
        pass
  capsys.readouterr()
  assert train_config(config) == app.DONE
  said = capsys.readouterr().err
  assert said.count('the file system has no locks') == 1
  assert not [*tmp_path.glob('.lease-*')]
  assert restore.open_run(tmp_path).step == 24


def test_a_lock_that_is_no_file_is_named(finished):
  lock = pathlib.Path(finished.workdir) / '.lock'
  lock.unlink()
  os.mkfifo(lock)
  with pytest.raises(Error, match=r'\.lock is no plain file; remove it'):
    train_config(dataclasses.replace(finished, steps=30))


def take_away(monkeypatch, folder, *names):
  """While a process trains, from step 28 on."""
  advance = run_loop.RunLoop.advance

  def taking(self, count):
    for name in names:
      if self.step >= 28 and not (folder.parent / f'away-{name}').exists():
        (folder / name).rename(folder.parent / f'away-{name}')
    return advance(self, count)

  monkeypatch.setattr(run_loop.RunLoop, 'advance', taking)


def test_what_is_taken_away_is_made_again(finished, monkeypatch, capsys):
  folder = pathlib.Path(finished.workdir)
  names = ('samples', 'stats.jsonl', 'tensorboard', 'run.json', 'config.flags')
  take_away(monkeypatch, folder, *names)
  often = dict(steps=40, log_every=4, sample_every=8, checkpoint_every=8)
  assert train_config(dataclasses.replace(finished, **often)) == app.DONE
  said = capsys.readouterr().err
  assert 'stats.jsonl was removed while the run goes on' in said
  assert [row['step'] for row in rows(folder)] == [32, 36, 40]
  assert [path.name for path in (folder / 'samples').iterdir()]
  assert restore.open_run(folder).step == 40


@pytest.mark.parametrize('name', ['checkpoints', ''])
def test_checkpoints_that_are_taken_away_end_it(name, finished, monkeypatch):
  """The folder of them or the whole: nothing is begun in its place."""
  folder = pathlib.Path(finished.workdir)
  take_away(monkeypatch, folder, name)
  often = dict(steps=40, checkpoint_every=8)
  with pytest.raises(checkpoint.NotSaved, match='was removed or ren') as error:
    train_config(dataclasses.replace(finished, **often))
  assert 'MiB' not in str(error.value) and error.value.exit_code == app.ERROR
  assert not (folder / 'checkpoints').exists()


def test_a_full_disk_at_the_start_is_no_fault_of_the_flag(
  finished, monkeypatch
):
  def full(*args, **options):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(locks, 'open_plain', full)
  with pytest.raises(Error, match='No space left.*MiB are free there') as error:
    train_config(dataclasses.replace(finished, steps=30))
  assert error.value.exit_code == app.ERROR


def test_a_signal_ends_a_score_and_the_same_command_takes_it(
  make, tmp_path, monkeypatch, capsys
):
  config = make(tmp_path, metrics='modes', eval_samples=500)
  scored = Evaluator.score

  def interrupted(self, *args, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    pytest.fail('went on')  # pragma: no cover

  monkeypatch.setattr(Evaluator, 'score', interrupted)
  assert train_config(config) == app.SAVED
  assert 'saved at step 24 of 24' in capsys.readouterr().err
  monkeypatch.setattr(Evaluator, 'score', scored)
  assert train_config(config) == app.DONE
  (row,) = ScoreFile(tmp_path / 'metrics.jsonl').rows()
  assert row['step'] == 24
  facts = json.loads((tmp_path / 'run.json').read_text())
  assert facts['outcome'] == 'done'


def test_places_as_people_write_them(make, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  assert make('~/x').workdir == str(tmp_path / 'x')
  monkeypatch.setitem(sys.modules, 'gcsfs', None)
  with pytest.raises(ArgumentError, match=r"workdir=gs://b.*'gan_jax\[gs\]'"):
    train_config(make('gs://b'))
  with pytest.raises(ArgumentError, match='workdir=gs:/b.*lost a slash'):
    restore.open_run(pathlib.Path('gs://b'))
  assert not [*tmp_path.iterdir()]


def test_a_folder_of_something_else_is_not_taken(make, tmp_path):
  (tmp_path / 'thesis.tex').write_text('x')
  with pytest.raises(ArgumentError, match='is not empty and holds no run'):
    train_config(make(tmp_path))
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_an_unwritable_workdir_is_told(make, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ArgumentError, match='cannot write there'):
    train_config(make(tmp_path / 'file' / 'run'))


def test_no_workdir_is_told(make):
  with pytest.raises(ArgumentError, match='`workdir=`: name the folder'):
    train_config(make(''))


def test_a_batch_that_does_not_split_is_refused(make, tmp_path):
  with pytest.raises(ArgumentError, match=r'`batch_size=6`.*4 or 8'):
    train_config(make(tmp_path, devices=4, batch_size=6))
  with pytest.raises(ArgumentError, match='`devices=9`'):
    train_config(make(tmp_path, devices=9))


# What is written.


@pytest.fixture(scope='module')
def digits_run(programs, digits_root, tmp_path_factory):
  """A finished run on images: 12 steps, a row every 5, saved every 6."""
  config = small.digits(
    workdir=str(tmp_path_factory.mktemp('finished') / 'digits'),
    log_every=5,
    sample_every=6,
    lr_d=0.1,
    lr_warmup=10,
    report=True,
    compilation_cache=programs,
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('TFDS_DATA_DIR', str(digits_root))
    assert train_config(config) == app.DONE
  return config


def test_everything_a_run_leaves_behind(digits_run):
  """Of images: log, snapshots, TensorBoard, report, and what run.json says."""
  path = pathlib.Path(digits_run.workdir)
  assert restore.read_config(path) == digits_run
  facts = json.loads((path / 'run.json').read_text())
  assert facts['outcome'] == 'done'
  assert facts['dataset']['size'] == 1797
  assert facts['versions']['jax'] == jax.__version__
  assert facts['compile_sec'] > 0 and facts['train_sec'] > 0
  spent = facts['goodput']
  parts = {k for k, seconds in spent['seconds'].items() if seconds > 0}
  assert parts >= {'train', 'data', 'compile', 'checkpoint', 'start', 'other'}
  assert abs(sum(spent['seconds'].values()) - spent['allocated_sec']) < 0.01
  assert abs(spent['seconds']['compile'] - facts['compile_sec']) < 0.05
  assert 0 < spent['goodput'] < 1 and spent['step_sec']['median'] > 0
  state = restore.open_run(path).state
  assert facts['parameters']['generator'] == sum(
    x.size for path, x in state.items() if path.startswith('g/params/')
  )
  for kind in ('step', 'ema'):
    for step in (0, 6, 12):
      picture = path / 'samples' / f'{kind}_{step:09d}.png'
      with PIL.Image.open(picture) as image:
        assert min(image.size) >= 2 * 8
  names = {
    'd/loss',
    'g/loss',
    'd/prob_real',
    'd/prob_fake',
    'game/value',
    'game/jsd_bound',
    'd/grad_norm',
    'g/grad_norm',
    'd/param_norm',
    'g/param_norm',
    'g/lr',
    'data/wait',
    'speed/images_per_sec',
    'speed/sec_per_kimg',
    'time/train_sec',
  }
  for row in writers.read_rows(path / 'stats.jsonl'):
    assert names <= row.keys()
    assert row['images'] == row['step'] * 8
    bound = (row['game/value'] + np.log(4)) / 2
    assert row['game/jsd_bound'] == pytest.approx(bound, abs=1e-5)
    # That of the last update.
    assert row['d/lr'] == pytest.approx(0.1 * min(row['step'] / 10, 1))
  assert list((path / 'tensorboard').iterdir())
  assert (path / 'report.html').stat().st_size > 10_000


def test_a_density_leaves_the_numbers_of_its_figure(ring_run):
  path = pathlib.Path(ring_run.workdir) / 'samples' / 'step_000000024.npz'
  found = np.load(path)
  assert found['x'].shape == found['x_ema'].shape == found['real'].shape
  assert found['grid'].shape == (96 * 96, 2)
  assert found['prob'].shape == (96 * 96,)
  assert ((found['prob'] >= 0) & (found['prob'] <= 1)).all()
  run = restore.open_run(ring_run.workdir)
  for name, ema in (('x', False), ('x_ema', True)):
    drawn = run.sample(len(found[name]), seed=ring_run.seed, ema=ema)
    np.testing.assert_array_equal(found[name], drawn)


def test_a_logged_row_is_the_mean_of_its_steps(ring_run):
  """Against a plain loop over the same pure step; the last one is shorter."""
  parts = setup.build(ring_run)
  state = parts.init()
  step = jax.jit(parts.trainer.step)
  losses = []
  for _ in range(ring_run.steps):
    state, logs = step(state, parts.batch_of((), ((),), state))
    losses.append(float(logs['d/loss']))
  expected = [np.mean(losses[i : i + 5]) for i in range(0, 24, 5)]
  found = [r['d/loss'] for r in rows(ring_run.workdir)]
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_seconds_of_all_steps_are_those_of_the_run(ring_run):
  """Each row's mean times its steps; images a second are of the same."""
  table = writers.read_rows(pathlib.Path(ring_run.workdir) / 'stats.jsonl')
  assert [row['step'] for row in table] == [5, 10, 15, 20, 24]
  spent = [
    row['speed/sec_per_step'] * n for row, n in zip(table, (5, 5, 5, 5, 4))
  ]
  np.testing.assert_allclose(
    np.cumsum(spent), [r['time/train_sec'] for r in table]
  )
  for row in table:
    each = row['speed/sec_per_step']
    assert row['speed/images_per_sec'] == pytest.approx(8 / each)
    assert row['speed/sec_per_kimg'] == pytest.approx(each * 1000 / 8)


@contextlib.contextmanager
def files_of_at_most(size):
  """Within, what exceeds it fails to be written, as on a full disk."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
  'often', [dict(log_every=1), dict(log_every=90, sample_every=1)]
)
def test_a_log_that_cannot_be_written_ends_the_run(often, digits_run, tmp_path):
  """Told as an error, at once, and what was saved stays saved."""
  shutil.copytree(digits_run.workdir, tmp_path / 'run')
  config = dataclasses.replace(
    digits_run, workdir=str(tmp_path / 'run'), report=False, steps=60, **often
  )
  with files_of_at_most(8 * 1024):
    with pytest.raises(checkpoint.CheckpointError, match='File too large'):
      train_config(dataclasses.replace(config, checkpoint_every=90))
  assert final(config.workdir)[0] == 12
  if 'sample_every' not in often:
    assert train_config(config) == app.DONE
    steps = [r['step'] for r in rows(config.workdir)]
    assert steps == [5, 10, *range(12, 61)]


# The compiled program.


@pytest.mark.parametrize(
  'kind, devices',
  [
    ('density', (4, 1)),
    *[
      pytest.param(kind, devices, marks=pytest.mark.slow)
      for kind in ('density', 'resident', 'streamed', 'convolutional')
      for devices in ((2,), (4, 2))
    ],
  ],
)
def test_devices_see_the_same_noise_and_data(
  kind, devices, ring_run, make, tmp_path
):
  """The losses of one device, on several, and on others from a step on."""
  one = ring_run
  if kind != 'density':
    one = make(tmp_path / 'one', kind)
    train_config(one)
  for number in devices[:-1]:
    with signal_when('step 15/24'):
      several = make(tmp_path / 'several', kind, devices=number)
      assert train_config(several) == app.SAVED
  several = make(tmp_path / 'several', kind, devices=devices[-1])
  assert train_config(several) == app.DONE
  alone, together = rows(one.workdir), rows(several.workdir)
  told = ('d/loss', 'g/loss', 'd/prob_real', 'd/prob_fake', 'game/value')
  for a, b in zip(alone, together, strict=True):
    assert a['step'] == b['step']
    np.testing.assert_allclose(
      [a[name] for name in told], [b[name] for name in told], rtol=2e-3
    )
  # The first steps are before any rounding has been amplified.
  np.testing.assert_allclose(
    list(alone[0].values()), list(together[0].values()), rtol=1e-4, atol=1e-6
  )


def test_devices_share_the_work(make, tmp_path):
  """What a step draws is split as its batch is."""
  flops = []
  for devices in (1, 4):
    config = make(tmp_path / str(devices), devices=devices)
    loop = run_loop.RunLoop(setup.build(config), tmp_path / str(devices))
    flops.append(loop.program.cost_analysis()['flops'])
    loop.close()
  assert flops[1] < 0.6 * flops[0], flops


def test_bfloat16_computes_in_bfloat16_and_keeps_float32(make, tmp_path):
  parts = setup.build(make(tmp_path, 'resident', precision='bfloat16'))
  params = parts.shapes.g.params, parts.shapes.d.params, parts.shapes.ema
  for leaf in jax.tree.leaves(params):
    assert leaf.dtype == jnp.float32
  batch = jax.ShapeDtypeStruct((1, 8, 8, 8, 1), jnp.float32)
  text = jax.jit(parts.trainer.step).lower(parts.shapes, batch).as_text()
  assert 'bf16' in text


@pytest.mark.slow
def test_a_run_in_bfloat16_goes_to_its_end(make, tmp_path):
  config = make(tmp_path, 'convolutional', precision='bfloat16')
  assert train_config(config) == app.DONE


def test_a_program_that_makes_no_steps_is_told(make, tmp_path, monkeypatch):
  def advance(parts):
    del parts
    return lambda state, constants, chunk, count: (
      state,
      {},
      jnp.int32(0),
      jnp.bool_(True),
      {},
    )

  monkeypatch.setattr(run_loop, 'make_advance', advance)
  with pytest.raises(app.Failure, match='made 0 of 1 steps'):
    train_config(make(tmp_path))


# Divergence.


def test_divergence_is_an_outcome(make, tmp_path, capsys):
  config = make(tmp_path, lr_g=1e30, checkpoint_every=1)
  assert train_config(config) == app.DIVERGED
  said = capsys.readouterr().err
  facts = json.loads((tmp_path / 'run.json').read_text())
  assert facts['outcome'] == 'diverged' and 'd/loss' in facts['not_finite']
  assert f'diverged at step {facts["step"]}: {facts["not_finite"][0]}' in said
  assert 'Lower `lr_g` and `lr_d`' in said
  run = restore.open_run(tmp_path)
  assert 0 < run.step < facts['step'] and run.outcome == 'diverged'
  assert f'the last checkpoint, of step {run.step}, is finite' in said
  for leaf in run.state.values():
    assert np.isfinite(leaf).all()
  last = rows(tmp_path)[-1]  # the end is in the log, what is no number as null
  assert last['step'] == facts['step'] and None in last.values()


def test_an_update_that_overflows_is_a_divergence(make, tmp_path, capsys):
  """Finite losses and gradients, parameters that are not any more."""
  config = make(tmp_path, lr_g=3e38, optimizer_g='rmsprop', checkpoint_every=1)
  assert train_config(config) == app.DIVERGED
  said = capsys.readouterr().err
  assert 'diverged at step 1: parameters or optimizer state not finite' in said
  assert not checkpoint.Checkpoints(tmp_path, read_only=True).steps()
