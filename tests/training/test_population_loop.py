"""A population: each member its own run; frozen, saved and resumed exactly."""

import dataclasses
import json

import jax
import numpy as np
import PIL.Image
import pytest
from helpers import small

from gan_jax.ablation import grid
from gan_jax.config import app as doors
from gan_jax.config import schema
from gan_jax.config.schema import ConfigError
from gan_jax.figures import images
from gan_jax.game import population, state
from gan_jax.runtime import checkpoint, preemption
from gan_jax.training import loop, population_loop, setup, writers

OFTEN = dict(steps=20, log_every=6, checkpoint_every=8)
TOY = small.ring(**OFTEN, devices=2)
# Not Adam for G: a bias before a normalisation has no slope but rounding, of
# which Adam makes full steps.
SGD = dict(norm_g='batch', optimizer_g='sgd')
DIGITS = small.digits(**OFTEN, **SGD)
DCGAN = small.dcgan(**OFTEN, **SGD)
PENALTY = 'orthogonal'
SINGLE = {}  # runs of one member alone, kept for the tests that want them


@pytest.fixture(scope='module', autouse=True)
def _folders(digits_root, programs, tmp_path_factory):
  """`digits` prepared once; compiled programs kept for the module's tests."""
  SINGLE['root'] = tmp_path_factory.mktemp('population')
  SINGLE['programs'] = programs
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('TFDS_DATA_DIR', str(digits_root))
    loop.setup(dataclasses.replace(TOY, compilation_cache=programs))
    yield


def members(base=TOY):
  """Three, on two devices: each with numbers of its own."""
  light, heavy = (
    dataclasses.replace(
      base, regularizer=f'{PENALTY}:{weight}', beta1_final_g=0.9
    )
    for weight in (0.01, 0.1)
  )
  return [
    dataclasses.replace(light, seed=0, lr_d=1e-3, beta1_g=0.0),
    dataclasses.replace(light, seed=1, lr_g=1e-2, beta1_final_g=0.1),
    dataclasses.replace(heavy, lr_d=1e-4, beta2_d=0.9, ema_halflife_kimg=0.1),
  ]


def trained(configs, path, layout='vmap'):
  made = population_loop.Cohort(configs, path, layout)
  assert made.run(preemption.Listener()) == 'done'
  return made


def bits(made):
  """Of the members, without those that only fill up a device."""
  there = population.taken(made.population, slice(made.members))
  return checkpoint.digest(checkpoint.to_host(there))


def alone(config):
  """The run that the trainer makes of one member's configuration."""
  if config not in SINGLE:
    path = SINGLE['root'] / f'single-{len(SINGLE)}'
    settings = dataclasses.replace(
      config,
      workdir=str(path),
      devices=1,
      compilation_cache=SINGLE['programs'],
    )
    SINGLE[config] = loop.train(settings), path
  return SINGLE[config]


def close(a, b):
  a, b = checkpoint.to_host(a), checkpoint.to_host(b)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 2e-4, 2e-5), a, b)


def test_traced_numbers_are_those_of_hyper():
  names = {f.name for f in dataclasses.fields(state.Hyper)} - {'penalties'}
  assert set(schema.traced()) == names


def check_members(base, layout, path, which=(1, 2)):
  configs = members(base)
  made = trained(configs, path, layout)
  for i in which:
    code, folder = alone(configs[i])
    assert code == doors.DONE
    rows = writers.read_rows(folder / 'stats.jsonl')
    close(
      population.taken(made.population.state, i), setup.open_run(folder).state
    )
    assert [r['step'] for r in rows] == made.rows['step'].tolist()
    for name in ('d/loss', 'g/loss', f'd/penalty/{PENALTY}', 'g/param_norm'):
      found = made.rows[name][:, i]
      np.testing.assert_allclose([r[name] for r in rows], found, 2e-4)
  losses = made.rows['d/loss'][-1]
  assert len(set(losses.tolist())) == 3
  made.close()


@pytest.mark.parametrize(
  'kind, layout', [('ring', 'vmap'), ('ring', 'map'), ('digits', 'map')]
)
def test_a_member_is_its_own_run(kind, layout, tmp_path):
  """Same initialisation, data, noise, average and log, its seed's alone."""
  if kind == 'digits':
    check_members(DIGITS, layout, tmp_path, [1])
  else:
    check_members(TOY, layout, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('residence', ['device', 'stream'])
@pytest.mark.parametrize('layout', population.LAYOUTS)
def test_a_convolutional_member_is_its_own_run(layout, residence, tmp_path):
  base = dataclasses.replace(DCGAN, residence=residence, devices=2)
  check_members(base, layout, tmp_path)


@pytest.mark.parametrize(
  'layout', ['vmap', pytest.param('map', marks=pytest.mark.slow)]
)
def test_the_diverged_are_frozen_and_the_others_go_on(layout, tmp_path):
  configs = members(dataclasses.replace(TOY, objective='wasserstein'))
  configs[1] = dataclasses.replace(configs[1], lr_d=1e8, lr_g=1e8)
  made = trained(configs, tmp_path, layout)
  outcomes = made.outcomes()
  assert outcomes[0] == outcomes[2] == ('done', 20)
  kind, step = outcomes[1]
  assert kind == 'diverged' and 1 < step < 20
  # The single run stops after that very step.
  code, folder = alone(configs[1])
  assert code == doors.DIVERGED
  facts = json.loads((folder / 'run.json').read_text())
  assert (facts['outcome'], facts['step']) == ('diverged', step)
  frozen = checkpoint.to_host(population.taken(made.population.state, 1))
  assert frozen.step == step - 1
  for x in jax.tree.leaves(frozen):
    assert np.isfinite(x).all()
  assert made.rows['alive'][-1].tolist() == [True, False, True]
  assert np.isnan(made.rows['d/loss'][-1, 1])
  assert np.isfinite(made.rows['d/loss'][:, [0, 2]]).all()
  made.close()


def test_a_state_that_is_not_finite_ends_its_member(tmp_path):
  """An infinite second moment makes no loss infinite; D stands still."""
  made = population_loop.Cohort(members(), tmp_path, 'vmap')
  now = made.population
  opt = now.state.d.opt_state
  nu = jax.tree.map(lambda x: x.at[1].set(np.inf), opt.nu)
  d = now.state.d.replace(opt_state=opt._replace(nu=nu))
  made.population = population.put(
    now.replace(state=now.state.replace(d=d)), made.mesh
  )
  assert made.run(preemption.Listener()) == 'done'
  assert made.outcomes() == [('done', 20), ('diverged', 6), ('done', 20)]
  made.close()


class Heard(preemption.Listener):
  """Hears a signal once the cohort has come to a step."""

  def __init__(self, step):
    super().__init__()
    self.at = step
    self.made = None

  @property
  def received(self):
    now = getattr(self, 'made', None)
    return 'SIGTERM' if now is not None and now.step >= self.at else ''

  @received.setter
  def received(self, value):
    pass


@pytest.mark.parametrize(
  'kind', ['ring', pytest.param('digits', marks=pytest.mark.slow)]
)
def test_interrupted_equals_uninterrupted(kind, tmp_path):
  """Stopped by a signal, killed after a checkpoint: the same bits, and rows."""
  base = {'ring': TOY, 'digits': DIGITS}[kind]
  configs = members(base)
  whole = trained(configs, tmp_path / 'whole')
  whole.close()
  first = population_loop.Cohort(configs, tmp_path / 'parted', 'vmap')
  ear = Heard(5)
  ear.made = first
  assert first.run(ear) == 'saved'
  assert 5 <= first.step < 20
  first.close()
  second = population_loop.Cohort(configs, tmp_path / 'parted', 'vmap')
  assert second.step == first.step
  with pytest.raises(KeyboardInterrupt):  # as good as a kill: nothing is saved

    def killed(step, seconds):
      if step >= 17:
        raise KeyboardInterrupt

    second.run(preemption.Listener(), killed)
  second.close()
  third = population_loop.Cohort(configs, tmp_path / 'parted', 'vmap')
  assert third.step == 16
  assert third.run(preemption.Listener()) == 'done'
  third.close()
  assert bits(third) == bits(whole)
  assert third.rows.keys() == whole.rows.keys()
  for name, values in whole.rows.items():
    np.testing.assert_array_equal(third.rows[name], values)


def test_it_restores_on_other_devices(tmp_path):
  configs = members()
  made = trained(configs, tmp_path)
  made.close()
  fewer = [dataclasses.replace(c, devices=1) for c in configs]
  again = population_loop.Cohort(fewer, tmp_path, 'vmap')
  assert again.mesh.size == 1 and made.mesh.size == 2
  close(
    population.taken(made.population.state, slice(3)), again.population.state
  )
  again.close()


def test_other_members_and_layouts_are_refused(tmp_path):
  """A cohort is restored as what it was begun as, or not at all."""
  configs = members()
  made = population_loop.Cohort(configs, tmp_path, 'map')
  made.save()
  made.close()
  a, b, c = configs
  for others in (
    [b, a, c],
    [a, b, dataclasses.replace(c, seed=7)],
    [a, b, dataclasses.replace(c, lr_d=3e-4)],
  ):
    with pytest.raises(ConfigError, match='a population of other members'):
      population_loop.Cohort(others, tmp_path, 'map')
  with pytest.raises(ConfigError, match='was begun with --layout=map'):
    population_loop.Cohort(configs, tmp_path, 'vmap')
  more = [dataclasses.replace(x, steps=40, log_every=5) for x in configs]
  again = population_loop.Cohort(more, tmp_path, 'auto')
  assert again.layout == 'map'
  again.close()


def test_a_population_is_warned_as_a_run_is(tmp_path, capsys):
  base = dataclasses.replace(TOY, norm_d='batch', regularizer='r1:1', steps=1)
  trained([base], tmp_path).close()
  assert '--norm_d=layer or --norm_d=none' in capsys.readouterr().err


def test_one_compile(tmp_path, monkeypatch):
  """However many members, rows, checkpoints and dispatches."""
  traced = []
  step = population_loop.make_train_step

  def counted(plan):
    traced.append(plan)
    return step(plan)

  made = population_loop.Cohort(members(), tmp_path, 'vmap')
  monkeypatch.setattr(population_loop, 'make_train_step', counted)
  assert made.run(preemption.Listener()) == 'done'
  assert len(traced) == 1
  made.close()


def test_samples_of_each_member(tmp_path):
  made = trained(members(DIGITS), tmp_path, 'map')
  made.write_samples()
  files = sorted(p.name for p in (tmp_path / 'samples').iterdir())
  assert files == [f'member_{i:04d}.png' for i in range(3)]
  generators = made.generators()
  for i in (0, 2):
    assert not np.allclose(
      made.samples(i, generators[i]), made.samples(i, generators[1])
    )
  with PIL.Image.open(tmp_path / 'samples' / files[0]) as picture:
    assert picture.size[0] > 16
  made.close()


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
  assert (grid.static(other) == grid.static(TOY)) == same
  if not same:
    with pytest.raises(ConfigError, match='population of their own'):
      population_loop.check([TOY, other])


def test_weights_are_traced_and_what_they_weigh_is_not():
  light, heavy, both = (
    grid.static(dataclasses.replace(TOY, regularizer=r))
    for r in ('r1:1', 'r1:10', 'r1:1,r2:1')
  )
  assert light == heavy != both


def test_nobody_is_refused():
  with pytest.raises(ConfigError, match='0 members'):
    population_loop.check([])


def test_layouts_are_chosen_by_size_and_kind_not_by_the_clock():
  parts = setup.build(dataclasses.replace(TOY, devices=1))

  def chosen(shape, platform='cpu', **change):
    plan = dataclasses.replace(parts.plan, **change)
    return population.suits(plan, {'w': np.zeros(shape)}, platform)

  assert chosen((32, 32)) == 'vmap'
  assert chosen((1024, 1024)) == 'map'
  assert chosen((32, 32), batch_size=2**14) == 'map'
  assert chosen((3, 3, 4, 4)) == 'map'
  assert chosen((1024, 1024), 'gpu') == 'vmap'
