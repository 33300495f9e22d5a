"""A population: each member its own run; frozen, saved and resumed exactly."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal

import jax
import numpy as np
import PIL.Image
import pytest
from helpers import small

from gan_jax import networks
from gan_jax.config import app, schema
from gan_jax.figures import images
from gan_jax.game import population
from gan_jax.game.game import Game
from gan_jax.game.objectives import Objective
from gan_jax.game.optimizers import Sgd
from gan_jax.game.trainer import Trainer
from gan_jax.runtime import checkpoint, preemption
from gan_jax.runtime.errors import ArgumentError, IdentityError
from gan_jax.training import restore, writers
from gan_jax.training.population_loop import PopulationLoop
from gan_jax.training.population_program import Member, members_of
from gan_jax.training.train import prepare_process, train_config

OFTEN = dict(steps=20, log_every=6, checkpoint_every=8)
# Not Adam for G: a bias before a normalisation has no slope but rounding, of
# which Adam makes full steps.
SGD = dict(norm_g='batch', optimizer_g='sgd')
# What is of no effect is warned of, as of a run.
TOY = small.ring(**OFTEN, **SGD, devices=2, reuse_real=True)
DIGITS = small.digits(**OFTEN, **SGD, beta1_final_d=0.1)
DCGAN = small.dcgan(**OFTEN, **SGD, beta1_final_d=0.1)
PENALTY = 'orthogonal'


@pytest.fixture(scope='module', autouse=True)
def _folders(digits_root, programs):
  """`digits` prepared once; compiled programs kept for the module's tests."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('TFDS_DATA_DIR', str(digits_root))
    prepare_process(dataclasses.replace(TOY, compilation_cache=programs))
    yield


def configs_of(base=TOY):
  """Three, on two devices: each with numbers of its own."""
  light, heavy = (
    dataclasses.replace(base, regularizer=f'{PENALTY}:{weight}')
    for weight in (0.01, 0.1)
  )
  momentum = dict(beta1_final_d=0.9) if base.beta1_final_d else {}
  return [
    dataclasses.replace(light, seed=0, lr_d=1e-3, beta1_g=0.0),
    dataclasses.replace(light, seed=1, lr_g=1e-2, **momentum),
    dataclasses.replace(heavy, lr_d=1e-4, beta2_d=0.9, ema_halflife_kimg=0.1),
  ]


def longer(configs):
  return [dataclasses.replace(config, steps=26) for config in configs]


@contextlib.contextmanager
def opened(configs, path, layout='vmap', **changes):
  """The population of some runs, from where its folder says."""
  shared = dataclasses.replace(configs[0], **changes)
  loop = PopulationLoop(shared, members_of(configs), path, layout)
  try:
    yield loop
  finally:
    loop.close()


def train(configs, path, layout='vmap'):
  with opened(configs, path, layout) as loop:
    assert loop.run(preemption.Listener()) == 'done'
  return loop


def bits(loop):
  return checkpoint.digest(checkpoint.to_host(loop.to_save()))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A finished population, its folder, and what it said."""
  folder, said = tmp_path_factory.mktemp('whole'), io.StringIO()
  with contextlib.redirect_stderr(said):
    loop = train(configs_of(), folder)
  return loop, folder, said.getvalue()


@pytest.fixture
def copied(whole, tmp_path):
  """A copy of its folder."""
  return shutil.copytree(whole[1], tmp_path / 'copy')


@pytest.fixture(scope='module')
def alone(programs, tmp_path_factory):
  """The run of one member's configuration: its exit code and folder."""
  made = {}

  def alone(config):
    if config not in made:
      path = tmp_path_factory.mktemp('alone')
      settings = dataclasses.replace(
        config, workdir=str(path), devices=1, compilation_cache=programs
      )
      made[config] = train_config(settings), path
    return made[config]

  return alone


def close(a, b):
  a, b = checkpoint.to_host(a), checkpoint.to_host(b)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 2e-4, 2e-5), a, b)


def check_members(loop, configs, alone, which=(1, 2)):
  """Same initialisation, data, noise, average and log as the runs alone."""
  for i in which:
    code, folder = alone(configs[i])
    assert code == app.DONE
    run = restore.open_run(folder)
    own = checkpoint.to_host(population.member(loop.population, i))
    close(checkpoint.flatten(own), dict(run.state))
    rows = writers.read_rows(folder / 'stats.jsonl')
    assert [r['step'] for r in rows] == loop.rows['step'].tolist()
    for name in ('d/loss', 'g/loss', f'd/penalty/{PENALTY}', 'g/param_norm'):
      found = loop.rows[name][:, i]
      np.testing.assert_allclose([r[name] for r in rows], found, 2e-4)
    # From the average, and the noise of its own seed's snapshots.
    samples = loop.samples(i, loop.generators()[i])
    drawn = run.sample(len(samples), seed=configs[i].seed)
    np.testing.assert_allclose(samples, drawn, 2e-4, 2e-4)
  losses = loop.rows['d/loss'][-1]
  assert len(set(losses.tolist())) == len(configs)


def test_a_member_is_its_own_run(whole, alone):
  check_members(whole[0], configs_of(), alone)


def test_a_population_is_warned_as_a_run_is(whole):
  assert '`reuse_real=true`: has no effect' in whole[2]


@pytest.mark.parametrize(
  'base', [TOY, pytest.param(DIGITS, marks=pytest.mark.slow)]
)
def test_a_mapped_member_is_its_own_run(base, alone, tmp_path):
  """And leaves a picture of its samples."""
  configs = configs_of(base)
  loop = train(configs, tmp_path, 'map')
  check_members(loop, configs, alone, [1])
  loop.write_samples()
  files = sorted(p.name for p in (tmp_path / 'samples').iterdir())
  assert files == [f'member_{i:04d}.png' for i in range(3)]
  with PIL.Image.open(tmp_path / 'samples' / files[0]) as picture:
    assert picture.size[0] > 16


@pytest.mark.slow
@pytest.mark.parametrize('residence', ['device', 'stream'])
@pytest.mark.parametrize('layout', population.LAYOUTS)
def test_a_convolutional_member_is_its_own_run(
  layout, residence, alone, tmp_path
):
  configs = configs_of(
    dataclasses.replace(DCGAN, residence=residence, devices=2)
  )
  check_members(train(configs, tmp_path, layout), configs, alone)


@pytest.mark.slow
@pytest.mark.parametrize('layout', population.LAYOUTS)
def test_members_that_do_not_fill_four_devices(layout, alone, tmp_path):
  configs = [
    dataclasses.replace(config, seed=3 * i + j, devices=4)
    for i in range(2)
    for j, config in enumerate(configs_of())
  ][:5]
  loop = train(configs, tmp_path, layout)
  assert loop.mesh.size == 4 and len(loop.outcomes()) == 5
  check_members(loop, configs, alone, [1, 4])


@pytest.mark.slow
def test_members_in_blocks(alone, tmp_path, monkeypatch):
  """Each is its own run, and goes on in the blocks that it began with."""
  configs = [
    dataclasses.replace(config, seed=3 * i + j, devices=1)
    for i in range(2)
    for j, config in enumerate(configs_of())
  ]
  monkeypatch.setattr(population, 'choose_block', lambda *args: 3)
  loop = train(configs, tmp_path / 'whole')
  assert loop.code.block == 3
  check_members(loop, configs, alone, [1, 4])
  with opened(configs, tmp_path / 'cut', steps=10) as first:
    assert first.run(preemption.Listener()) == 'done'
  monkeypatch.setattr(population, 'choose_block', lambda *args: 6)
  again = train(configs, tmp_path / 'cut')
  assert again.code.block == 3 and bits(again) == bits(loop)


def with_infinite_moment(state, i):
  """Member i with a second moment under which D stands still, unnoticed."""

  def change(path, x):
    return x.at[i].set(np.inf) if '.nu[' in jax.tree_util.keystr(path) else x

  d = jax.tree_util.tree_map_with_path(change, state.now.members.d)
  members = state.now.members.replace(d=d)
  return state.replace(now=state.now.replace(members=members))


@pytest.mark.parametrize(
  'layout', ['vmap', pytest.param('map', marks=pytest.mark.slow)]
)
def test_the_diverged_are_frozen_and_the_others_go_on(
  layout, whole, alone, tmp_path
):
  configs = configs_of()
  configs[1] = dataclasses.replace(configs[1], lr_g=1e25)
  with opened(configs, tmp_path, layout) as loop:
    loop.state = with_infinite_moment(loop.state, 2)
    assert loop.run(preemption.Listener()) == 'done'
  (kind, step), third = loop.outcomes()[1:]
  assert kind == 'diverged' and 1 < step < 20
  assert third == ('diverged', 6)  # looked for at every row
  # The single run stops after that very step.
  code, folder = alone(configs[1])
  assert code == app.DIVERGED
  facts = json.loads((folder / 'run.json').read_text())
  assert (facts['outcome'], facts['step']) == ('diverged', step)
  frozen = checkpoint.to_host(population.member(loop.population, 1))
  assert frozen.step == step - 1
  for x in jax.tree.leaves(frozen):
    assert np.isfinite(x).all()
  assert loop.rows['alive'][-1].tolist() == [True, False, False]
  assert np.isnan(loop.rows['d/loss'][-1, 1])
  # The first one is what it is among others that live.
  assert loop.outcomes()[0] == ('done', 20)
  found = loop.rows['d/loss'][:, 0]
  np.testing.assert_allclose(found, whole[0].rows['d/loss'][:, 0], 1e-5)
  again = train(longer(configs), tmp_path, layout)  # and so they stay
  assert again.rows['alive'][-1].tolist() == [True, False, False]
  assert again.outcomes() == [('done', 26), *loop.outcomes()[1:]]


def check_resumed(whole, configs, path):
  """Stopped by a signal, killed after a checkpoint: the same bits, and rows."""

  def stop(step, seconds):
    if step == 6:  # where a row is written
      os.kill(os.getpid(), signal.SIGTERM)

  with opened(configs, path) as first, preemption.listen() as listener:
    assert first.run(listener, stop) == 'saved'
    assert first.step == 6

  def kill(step, seconds):
    if step >= 17:
      raise KeyboardInterrupt  # as good as a kill: nothing is saved

  with opened(configs, path) as second, pytest.raises(KeyboardInterrupt):
    assert second.step == 6
    second.run(preemption.Listener(), kill)
  with opened(configs, path) as third:
    assert third.step == 16
    assert third.run(preemption.Listener()) == 'done'
  assert bits(third) == bits(whole)
  assert third.rows.keys() == whole.rows.keys()
  for name, values in whole.rows.items():
    np.testing.assert_array_equal(third.rows[name], values)


def test_interrupted_equals_uninterrupted(whole, tmp_path):
  check_resumed(whole[0], configs_of(), tmp_path)


@pytest.mark.slow
def test_interrupted_equals_uninterrupted_of_images(tmp_path):
  configs = configs_of(DIGITS)
  check_resumed(train(configs, tmp_path / 'a'), configs, tmp_path / 'b')


@pytest.mark.parametrize('devices', [1, 4])
def test_it_restores_on_other_devices(devices, whole, copied):
  with opened(configs_of(), copied, devices=devices) as again:
    assert again.mesh.size == min(devices, 3) and whole[0].mesh.size == 2
    assert again.step == 20
    for i in range(3):
      close(
        population.member(whole[0].population, i),
        population.member(again.population, i),
      )


@pytest.mark.parametrize('damage', ['cut', 'gone'])
def test_a_log_that_is_lost_costs_no_member(damage, whole, copied, capsys):
  """Its rows are: those from its checkpoint on are written."""
  path = copied / 'stats.npz'
  content = path.read_bytes()
  path.unlink()
  if damage == 'cut':
    path.write_bytes(content[: len(content) // 2])
  shutil.rmtree(copied / 'checkpoints' / f'{20:09d}')
  with opened(configs_of(), copied) as loop:
    assert loop.run(preemption.Listener()) == 'done'
    said = capsys.readouterr().err
    assert f'{path} is {"damaged" if damage == "cut" else "gone"}' in said
    assert bits(loop) == bits(whole[0])
    assert loop.rows['step'].tolist() == [18, 20]


def test_other_members_and_layouts_are_refused(copied):
  """A population is restored as what it was begun as, or not at all."""
  a, b, c = configs = configs_of()
  for others in (
    [b, a, c],
    [a, b, dataclasses.replace(c, seed=7)],
    [a, b, dataclasses.replace(c, lr_d=3e-4)],
    [dataclasses.replace(x, batch_size=16) for x in configs],
  ):
    with pytest.raises(IdentityError, match='a population of other members'):
      with opened(others, copied):
        pass
  with pytest.raises(IdentityError, match='was begun with `layout=vmap`'):
    with opened(configs, copied, 'map'):
      pass
  with opened(configs, copied, 'auto', log_every=5) as again:
    assert again.layout == 'vmap'


def test_a_population_is_made_longer(whole, copied):
  loop = train(longer(configs_of()), copied)
  assert loop.rows['step'].tolist() == [6, 12, 18, 20, 24, 26]
  np.testing.assert_array_equal(
    loop.rows['d/loss'][:4], whole[0].rows['d/loss']
  )
  assert loop.outcomes() == [('done', 26)] * 3


def test_a_momentum_that_moves_until_the_end_fixes_it(tmp_path):
  configs = configs_of(DIGITS)
  with opened(configs, tmp_path) as loop:
    loop.save()
  with pytest.raises(IdentityError, match='a population of other members'):
    with opened(longer(configs), tmp_path):
      pass


class Scaled(Objective):
  """Losses of which it is known how often they are traced."""

  scale: float = 1.0
  traced = []

  def d_loss(self, real, fake):
    self.traced.append(1)
    return self.scale * (fake - real).mean()

  def g_loss(self, real, fake):
    return -fake.mean()


def test_one_trace_of_a_step_of_ones_own(tmp_path):
  """However many members, rows, checkpoints and dispatches; swept by path."""
  nets = networks.build('mlp', (2,), bounded=False, width=4, depth=0)
  trainer = Trainer(Game(nets, Scaled), Sgd(1e-3), Sgd(1e-3), ema=None)
  members = [Member(0, {'objective.scale': s}) for s in (1.0, 1.0, 3.0)]
  config = dataclasses.replace(TOY, devices=1)
  loop = PopulationLoop(config, members, tmp_path, 'vmap', trainer=trainer)
  Scaled.traced.clear()
  assert loop.run(preemption.Listener()) == 'done'
  assert len(Scaled.traced) == 1
  one, same, thrice = loop.rows['d/loss'][0]
  assert one == same
  assert thrice == pytest.approx(3 * one, rel=0.2)
  loop.close()


def test_a_dot_lands_where_it_is():
  picture = images.scatter(np.array([[-0.9, 0.9]]), (-1.0, 1.0), 20)
  assert picture.shape == (20, 20, 1)
  assert np.argwhere(picture[..., 0] == 0).tolist() == [[1, 1]]
  bars = images.scatter(np.array([[0.5], [0.5], [-0.5]]), (-1.0, 1.0), 4)
  assert (bars[..., 0] == 0).sum(axis=0).tolist() == [0, 2, 0, 4]


@pytest.mark.parametrize(
  'change, same',
  [
    (dict(seed=3), True),
    (dict(lr_d=0.1, label_smoothing=0.1), True),
    (dict(regularizer='r1:3'), False),
    (dict(beta1_final_d=0.7), False),
    (dict(clip_g=1.0), False),
    (dict(ema_halflife_kimg=0.0), False),
    (dict(objective='minimax'), False),
    (dict(batch_size=16), False),
  ],
)
def test_what_one_program_may_hold(change, same):
  other = dataclasses.replace(TOY, **change)
  assert (schema.static(other) == schema.static(TOY)) == same
  if not same:
    with pytest.raises(ArgumentError, match='population of their own'):
      members_of([TOY, other])


def test_weights_are_traced_and_what_they_weigh_is_not():
  light, heavy, both = (
    schema.static(dataclasses.replace(TOY, regularizer=r))
    for r in ('r1:1', 'r1:10', 'r1:1,r2:1')
  )
  assert light == heavy != both


def test_nobody_is_refused():
  with pytest.raises(ArgumentError, match='`configs=.*give a population one'):
    members_of([])


def test_blocks_are_of_a_divisor_near_what_the_cache_has_room_for():
  def choose(members, parameters=2**11, batch_size=64, platform='cpu'):
    params = {'w': np.zeros(parameters)}
    return population.choose_block(params, batch_size, platform, members)

  assert [choose(n) for n in (1, 8, 16, 64, 256)] == [1, 8, 16, 16, 16]
  assert choose(60) == 15 and choose(97) == 97
  assert choose(256, parameters=8) == 256
  assert choose(64, parameters=2**13) == 4
  assert choose(256, platform='gpu') == 256


def test_layouts_are_chosen_by_size_and_kind_not_by_the_clock():
  def choose(shape, platform='cpu', batch_size=8):
    params = {'w': np.zeros(shape)}
    return population.choose_layout(params, batch_size, platform)

  assert choose((32, 32)) == 'vmap'
  assert choose((1024, 1024)) == 'map'
  assert choose((32, 32), batch_size=2**14) == 'map'
  assert choose((3, 3, 4, 4)) == 'map'
  assert choose((1024, 1024), 'gpu') == 'vmap'
