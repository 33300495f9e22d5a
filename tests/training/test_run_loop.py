"""Whole runs in process: one compile, exact resume, refusal, divergence."""

import dataclasses
import json
import os
import pathlib
import signal

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from helpers import small

from gan_jax.config import app as doors
from gan_jax.game.trainer import Trainer
from gan_jax.runtime import checkpoint
from gan_jax.runtime.errors import ArgumentError, IdentityError
from gan_jax.training import restore, run_loop, setup, workdir, writers
from gan_jax.training.train import train_config

# Orbax's reading threads outlive its event loop when a file is damaged.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)

OFTEN = dict(steps=24, log_every=5, sample_every=12, checkpoint_every=7)
TOY = small.ring(**OFTEN)
DIGITS = small.dcgan(**OFTEN)
KINDS = {
  'density': TOY,
  'resident': DIGITS,
  'streamed': dataclasses.replace(DIGITS, residence='stream'),
}
CACHE = []  # folder of compiled programs, shared by the tests below


@pytest.fixture(scope='module', autouse=True)
def _folders(digits_root, programs):
  """`digits` prepared once, away from the user's data; programs kept."""
  CACHE.append(programs)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('TFDS_DATA_DIR', str(digits_root))
    yield


def at(config, path, **changes):
  changes = {'compilation_cache': CACHE[0], **changes}
  return dataclasses.replace(config, workdir=str(path), **changes)


def final(path):
  """Bits of the final state."""
  run = restore.open_run(path)
  return run.step, checkpoint.digest(run.state)


def rows(path):
  return writers.read_rows(pathlib.Path(path) / 'stats.jsonl')


def without_speed(path):
  timed = ('speed/', 'time/')
  return [
    {k: v for k, v in row.items() if not k.startswith(timed)}
    for row in rows(path)
  ]


class _Stop:
  """Stops a trainer after a number of dispatches, as a signal does."""

  def __init__(self, monkeypatch, dispatches):
    self.left = dispatches
    original = run_loop.RunLoop.advance

    def counting(loop, count):
      self.left -= 1
      if self.left == 0:
        os.kill(os.getpid(), signal.SIGTERM)
      return original(loop, count)

    monkeypatch.setattr(run_loop.RunLoop, 'advance', counting)


@pytest.mark.parametrize('kind', sorted(KINDS))
def test_interrupted_is_uninterrupted(kind, tmp_path, monkeypatch):
  """Saved after a signal, continued: bitwise the same state and log."""
  config = KINDS[kind]
  assert train_config(at(config, tmp_path / 'whole')) == doors.DONE
  with monkeypatch.context() as patch:
    _Stop(patch, 4)
    parted = at(config, tmp_path / 'parted')
    assert train_config(parted) == doors.SAVED
  step, _ = final(tmp_path / 'parted')
  assert 0 < step < config.steps
  assert train_config(parted) == doors.DONE
  assert final(tmp_path / 'parted') == final(tmp_path / 'whole')
  whole, parted = (without_speed(tmp_path / n) for n in ('whole', 'parted'))
  assert [r['step'] for r in parted] == [5, 10, 15, 20, 24]
  for a, b in zip(whole, parted):
    assert a.keys() == b.keys()
    np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-5)


def test_two_runs_are_identical(tmp_path):
  for name in ('one', 'two'):
    train_config(at(DIGITS, tmp_path / name))
  assert final(tmp_path / 'one') == final(tmp_path / 'two')
  other = at(DIGITS, tmp_path / 'other', seed=1)
  train_config(other)
  assert final(tmp_path / 'other') != final(tmp_path / 'one')


def test_cadences_do_not_change_the_result(tmp_path):
  train_config(at(TOY, tmp_path / 'one'))
  train_config(
    at(TOY, tmp_path / 'two', log_every=24, sample_every=1, checkpoint_every=11)
  )
  assert final(tmp_path / 'one') == final(tmp_path / 'two')


def test_one_compile_whatever_the_cadences(tmp_path, monkeypatch):
  """The step is traced once a run, its losses with it, and compiled once."""
  traced, compiled = [], []
  original = Trainer.step
  monkeypatch.setattr(
    Trainer, 'step', lambda *args: traced.append(1) or original(*args)
  )
  program = run_loop.RunLoop.compile
  monkeypatch.setattr(
    run_loop.RunLoop,
    'compile',
    lambda loop: compiled.append(1) or program(loop),
  )
  train_config(at(TOY, tmp_path, steps=23, log_every=4, sample_every=9))
  assert (len(traced), len(compiled)) == (1, 1)


def test_everything_a_run_leaves_behind(tmp_path):
  config = at(DIGITS, tmp_path, report=True)
  assert train_config(config) == doors.DONE
  assert restore.read_config(tmp_path) == config
  facts = json.loads((tmp_path / 'run.json').read_text())
  assert facts['outcome'] == 'done'
  assert facts['dataset']['size'] == 1797
  assert facts['versions']['jax'] == jax.__version__
  state = restore.open_run(tmp_path).state
  assert facts['parameters']['generator'] == sum(
    x.size for path, x in state.items() if path.startswith('g/params/')
  )
  for kind in ('step', 'ema'):
    for step in (0, 12, 24):
      picture = tmp_path / 'samples' / f'{kind}_{step:09d}.png'
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
    'd/lr',
    'g/lr',
    'speed/images_per_sec',
    'speed/sec_per_kimg',
    'time/train_sec',
  }
  for row in rows(tmp_path):
    assert names <= row.keys()
    assert row['images'] == row['step'] * 8
    bound = (row['game/value'] + np.log(4)) / 2
    assert row['game/jsd_bound'] == pytest.approx(bound, abs=1e-5)
  assert list((tmp_path / 'tensorboard').iterdir())
  assert (tmp_path / 'report.html').stat().st_size > 10_000


def test_a_density_leaves_the_numbers_of_its_figure(tmp_path):
  train_config(at(TOY, tmp_path))
  found = np.load(tmp_path / 'samples' / 'step_000000024.npz')
  assert found['x'].shape == found['x_ema'].shape == found['real'].shape
  assert found['grid'].shape == (96 * 96, 2)
  assert found['prob'].shape == (96 * 96,)
  assert ((found['prob'] >= 0) & (found['prob'] <= 1)).all()


def test_a_logged_row_is_the_mean_of_its_steps(tmp_path):
  """Against a plain Python loop over the same pure step."""
  config = at(TOY, tmp_path, steps=10, log_every=5)
  train_config(config)
  parts = setup.build(config)
  state = parts.init()
  step = jax.jit(parts.trainer.step)
  losses = []
  for i in range(10):
    chunk = parts.feed.chunk(i, 1)
    item = jax.tree.map(lambda a: a[0], chunk)
    state, logs = step(state, parts.batch_of((), item, state))
    losses.append(float(logs['d/loss']))
  found = [r['d/loss'] for r in rows(tmp_path)]
  expected = np.mean(np.reshape(losses, (2, 5)), axis=1)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_finished_run_is_left_as_it_is(tmp_path):
  config = at(TOY, tmp_path)
  train_config(config)
  before = final(tmp_path), rows(tmp_path)
  assert train_config(config) == doors.DONE
  assert (final(tmp_path), rows(tmp_path)) == before


def test_a_finished_run_can_be_made_longer(tmp_path):
  train_config(at(TOY, tmp_path / 'grown'))
  train_config(at(TOY, tmp_path / 'grown', steps=40))
  train_config(at(TOY, tmp_path / 'whole', steps=40))
  assert final(tmp_path / 'grown') == final(tmp_path / 'whole')


def test_another_configuration_is_refused(tmp_path):
  train_config(at(TOY, tmp_path))
  before = final(tmp_path), rows(tmp_path)
  with pytest.raises(IdentityError) as caught:
    train_config(at(TOY, tmp_path, lr_g=0.5, objective='minimax'))
  assert '`lr_g`: 0.0002 there, 0.5 now' in str(caught.value)
  assert '`objective`: non_saturating there, minimax now' in str(caught.value)
  assert (final(tmp_path), rows(tmp_path)) == before


def test_other_data_is_refused(tmp_path):
  folder = tmp_path / 'images'
  folder.mkdir()
  rng = np.random.default_rng(0)
  for i in range(10):
    pixels = rng.integers(0, 256, (8, 8), np.uint8)
    PIL.Image.fromarray(pixels).save(folder / f'{i}.png')
  config = at(DIGITS, tmp_path / 'run', dataset=f'folder:{folder}')
  train_config(config)
  PIL.Image.fromarray(pixels[::-1].copy()).save(folder / '3.png')
  with pytest.raises(IdentityError, match='data: '):
    train_config(config)


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, capsys):
  config = at(TOY, tmp_path / 'run')
  train_config(config)
  expected = final(tmp_path / 'run')
  newest = tmp_path / 'run' / 'checkpoints' / f'{24:09d}'
  for path in (newest / 'state').rglob('*'):
    if path.is_file() and path.stat().st_size > 1000:
      content = bytearray(path.read_bytes())
      content[len(content) // 2] ^= 1
      path.write_bytes(bytes(content))
  assert train_config(config) == doors.DONE
  assert 'checkpoint 24' in capsys.readouterr().err
  assert final(tmp_path / 'run') == expected
  assert [r['step'] for r in rows(tmp_path / 'run')] == [5, 10, 15, 20, 24]


def test_divergence_is_an_outcome(tmp_path, capsys):
  config = at(
    TOY, tmp_path, lr_g=1e30, optimizer_g='sgd', checkpoint_every=1, steps=50
  )
  assert train_config(config) == doors.DIVERGED
  said = capsys.readouterr().err
  facts = json.loads((tmp_path / 'run.json').read_text())
  assert facts['outcome'] == 'diverged'
  assert f'diverged at step {facts["step"]}' in said
  assert '`lr_g`' in said
  run = restore.open_run(tmp_path)
  assert run.step < facts['step']
  assert f'the last checkpoint, of step {run.step}, is finite' in said
  for leaf in run.state.values():
    assert np.isfinite(leaf).all()
  last = rows(tmp_path)[-1]  # the end is in the log, what is no number as null
  assert last['step'] == facts['step'] and None in last.values()


def test_two_processes_do_not_share_a_workdir(tmp_path):
  config = at(TOY, tmp_path)
  with workdir.held(config):
    with pytest.raises(ArgumentError, match='another process is training'):
      train_config(config)


def test_a_folder_of_something_else_is_not_taken(tmp_path):
  (tmp_path / 'thesis.tex').write_text('x')
  with pytest.raises(ArgumentError, match='is not empty and holds no run'):
    train_config(at(TOY, tmp_path))
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_an_unwritable_workdir_is_told(tmp_path):
  (tmp_path / 'file').write_text('')
  config = at(TOY, tmp_path / 'file' / 'run')
  with pytest.raises(ArgumentError, match='cannot write there'):
    train_config(config)


def test_no_workdir_is_told():
  with pytest.raises(ArgumentError, match='`workdir=`: name the folder'):
    train_config(TOY)


@pytest.mark.parametrize('kind', sorted(KINDS))
@pytest.mark.parametrize('devices', [2, 4])
def test_devices_see_the_same_noise_and_data(kind, devices, tmp_path):
  """The same losses on one device and on several, to float tolerance."""
  config = dataclasses.replace(KINDS[kind], steps=10, log_every=1)
  train_config(at(config, tmp_path / 'one'))
  train_config(at(config, tmp_path / 'many', devices=devices))
  one, many = without_speed(tmp_path / 'one'), without_speed(tmp_path / 'many')
  assert [r['step'] for r in many] == list(range(1, 11))
  told = ('d/loss', 'g/loss', 'd/prob_real', 'd/prob_fake', 'game/value')
  for a, b in zip(one, many):
    np.testing.assert_allclose(
      [a[name] for name in told], [b[name] for name in told], rtol=2e-3
    )
  # The first step is before any rounding has been amplified.
  np.testing.assert_allclose(
    list(one[0].values()), list(many[0].values()), rtol=2e-5, atol=1e-6
  )


def test_a_run_moves_between_numbers_of_devices(tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    _Stop(patch, 3)
    assert train_config(at(TOY, tmp_path, devices=4)) == doors.SAVED
  assert train_config(at(TOY, tmp_path, devices=2)) == doors.DONE
  assert restore.open_run(tmp_path).step == 24


def test_a_batch_that_does_not_split_is_refused(tmp_path):
  with pytest.raises(ArgumentError, match=r'`batch_size=6`.*4 or 8'):
    train_config(at(TOY, tmp_path, devices=4, batch_size=6))
  with pytest.raises(ArgumentError, match='`devices=9`'):
    train_config(at(TOY, tmp_path, devices=9))


def test_bfloat16_computes_in_bfloat16_and_keeps_float32(tmp_path):
  config = at(DIGITS, tmp_path, precision='bfloat16')
  parts = setup.build(config)
  state = parts.init()
  for leaf in jax.tree.leaves((state.g.params, state.d.params, state.ema)):
    assert leaf.dtype == jnp.float32
  program = jax.jit(
    lambda z: parts.networks.generator.apply(
      state.g.params, state.g.stats, z, train=False
    )[0]
  ).lower(jnp.zeros((8, parts.networks.latent_dim)))
  assert 'bf16' in program.as_text()
  assert train_config(config) == doors.DONE


def kill_in(monkeypatch, owner, name):
  """A SIGTERM to this process in the midst of a function."""
  original = getattr(owner, name)

  def killed(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)
    return original(*args, **kwargs)

  monkeypatch.setattr(owner, name, killed)


@pytest.mark.parametrize(
  'owner, name',
  [
    (setup, 'load_dataset'),
    (run_loop.RunLoop, 'template'),  # restoring
    (run_loop, 'make_advance'),  # at the compilation
  ],
)
def test_a_signal_before_the_first_step(
  owner, name, tmp_path, monkeypatch, capsys
):
  config = at(TOY, tmp_path / 'run')
  with monkeypatch.context() as patch:
    kill_in(patch, owner, name)
    assert train_config(config) == doors.SAVED
  assert 'stopped by SIGTERM' in capsys.readouterr().err
  assert not rows(tmp_path / 'run')
  facts = tmp_path / 'run' / 'run.json'
  assert not facts.exists() or json.loads(facts.read_text())['outcome'] == (
    'saved'
  )
  assert train_config(config) == doors.DONE
  assert restore.open_run(tmp_path / 'run').step == TOY.steps


@pytest.mark.parametrize('left', [[], ['.lock'], ['.lock', '.config.flags.x1']])
def test_a_run_killed_at_its_very_start_begins_again(left, tmp_path):
  folder = tmp_path / 'run'
  folder.mkdir()
  for name in left:
    (folder / name).write_text('')
  assert train_config(at(TOY, folder, steps=2)) == doors.DONE


def test_a_folder_says_whose_it_is_before_anything_else(tmp_path, monkeypatch):
  def killed(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr(run_loop.RunLoop, '__init__', killed)
  with pytest.raises(KeyboardInterrupt):
    train_config(at(TOY, tmp_path))
  assert restore.read_config(tmp_path) == at(TOY, tmp_path)


def test_a_refused_run_does_not_claim_the_folder(tmp_path, monkeypatch):
  """What a run says of itself stays when its data turn out to be another."""
  train_config(at(TOY, tmp_path))
  said = (tmp_path / 'config.flags').read_text()
  monkeypatch.setattr(run_loop.RunLoop, 'template', _refuse)
  with pytest.raises(ArgumentError):
    train_config(at(TOY, tmp_path, steps=90, log_every=3))
  assert (tmp_path / 'config.flags').read_text() == said


def _refuse(loop):
  raise ArgumentError('data', 'this', 'another')


@pytest.mark.parametrize('name', ['stats.jsonl', 'tensorboard'])
def test_a_log_that_cannot_be_written_ends_the_run(name, tmp_path, monkeypatch):
  """Told as an error, at once, and what was saved stays saved."""
  config = at(TOY, tmp_path, steps=60, log_every=1)
  original = writers.Log.write

  def full(log, row):
    if row['step'] == 30 and name == 'stats.jsonl':
      log._open['stats'] = log._files.enter_context(open('/dev/full', 'w'))
    elif row['step'] == 30:
      record_writer = log._board._writer._py_recordio_writer
      record_writer._writer = open('/dev/full', 'wb', buffering=0)
    original(log, row)

  with monkeypatch.context() as patch:
    patch.setattr(writers.Log, 'write', full)
    with pytest.raises(checkpoint.CheckpointError, match='No space left'):
      train_config(config)
  assert restore.open_run(tmp_path).step in (28, 56)
  assert train_config(config) == doors.DONE
  assert [r['step'] for r in rows(tmp_path)] == list(range(1, 61))


def test_an_update_that_overflows_is_a_divergence(tmp_path, capsys):
  """Finite losses and gradients, parameters that are not any more."""
  config = at(
    TOY, tmp_path, lr_g=3e38, optimizer_g='adam', checkpoint_every=1, steps=9
  )
  assert train_config(config) == doors.DIVERGED
  said = capsys.readouterr().err
  facts = json.loads((tmp_path / 'run.json').read_text())
  assert f'diverged at step {facts["step"]}' in said
  steps = checkpoint.Checkpoints(tmp_path, read_only=True).steps()
  for step in steps:
    state = restore.open_run(tmp_path, step).state
    for leaf in state.values():
      assert np.isfinite(leaf).all()


def test_a_program_that_makes_no_steps_is_told(tmp_path, monkeypatch):
  def advance(parts):
    del parts
    return lambda state, constants, chunk, count: (
      state,
      {},
      jnp.int32(0),
      jnp.bool_(True),
    )

  monkeypatch.setattr(run_loop, 'make_advance', advance)
  with pytest.raises(doors.Failure, match='made 0 of 1 steps'):
    train_config(at(TOY, tmp_path))
