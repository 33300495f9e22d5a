"""A population: each member is the run alone; the diverged stay where they are.

The compiled loop over devices is tested with the trainer of populations.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toygame import (
  BATCH,
  apart,
  at,
  close,
  flat,
  game_of,
  mlp,
  step,
  trainer_of,
)
from helpers.untyped import message

from gan_jax.game import population as population_lib
from gan_jax.game.optimizers import Adam
from gan_jax.game.population import choose_layout, population
from gan_jax.game.regularizers import R1
from gan_jax.game.state import all_finite
from gan_jax.game.trainer import Ema

STEPS, MEMBERS = 5, 3
VARY = {
  'optimizer_g.learning_rate': [1e-3, 1e-2, 1e-1],
  'regularizers.r1.weight': [0.0, 1.0, 10.0],
  'ema.halflife_kimg': [10.0, 0.01, 1.0],
}
LAYOUTS = pytest.mark.parametrize('layout', ['vmap', 'map'])
SHARED = pytest.mark.parametrize('shared', [True, False])


def trainer(nets=None):
  """Lazily regularised, so that not all steps are alike."""
  game = game_of(nets=nets).replace(regularizers=[R1(0.1, every=2)])
  return trainer_of(game=game, optimizer_d=Adam(1e-2), ema=Ema())


def batches(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.float32(rng.normal(size=(STEPS, *shape, 1, BATCH, 2)))


def alone(trainer, seed, numbers, x):
  """The run of one member: its state and its logs, step after step."""
  state, rows = at_start(trainer, seed, numbers), []
  for batch in x:
    state, logs = step(trainer, state, batch)
    rows.append(logs)
  return state, rows


def at_start(trainer, seed, numbers):
  state = trainer.init(jax.random.key(seed))
  hyper = {path: jnp.float32(x) for path, x in numbers.items()}
  return state.replace(hyper=state.hyper | hyper)


def trained(members, x, shared):
  """A population after some steps, in one program; its logs."""

  @jax.jit
  def run(state):
    return jax.lax.scan(
      lambda state, batch: members.step(state, batch, shared=shared), state, x
    )

  return run(members.init())


@LAYOUTS
@SHARED
def test_a_member_is_its_run_alone(layout, shared):
  """Same initialisation, noise, numbers and data: losses, state and samples."""
  played, seeds = trainer(mlp()), [3, 0, 7]
  members = population(played, seeds, VARY, layout=layout)
  x = batches() if shared else batches(MEMBERS)
  state, logs = trained(members, x, shared)
  assert len(members) == MEMBERS and members.layout == layout
  assert state.alive.all() and not state.diverged.any()
  z = jax.random.normal(jax.random.key(9), (4, 8))
  for i, seed in enumerate(seeds):
    numbers = {path: values[i] for path, values in VARY.items()}
    own = x if shared else x[:, i]
    expected, rows = alone(played, seed, numbers, own)
    member = members.member(state, i)
    assert int(member.step) == STEPS
    same_tree = jax.tree.structure(member) == jax.tree.structure(expected)
    assert same_tree
    close(
      member.replace(key=None),
      expected.replace(key=None),
      rtol=2e-4,
      atol=2e-5,
    )
    close(played.generate(member, z), played.generate(expected, z), rtol=1e-4)
    for number, row in enumerate(rows):
      for name, value in row.items():
        found = logs[name][number, i]
        np.testing.assert_allclose(found, value, rtol=2e-4, atol=1e-5)
    # It goes on as that run would.
    further, _ = step(played, member, own[0])
    assert int(further.step) == STEPS + 1
  first, second = (members.member(state, i).g.params for i in (0, 1))
  assert apart(first, second) > 1e-3


@LAYOUTS
def test_the_diverged_stay_where_they_were_and_the_others_go_on(layout):
  """By numbers of its own; its state is that of the step before."""
  played = trainer_of(game=game_of('wasserstein'))
  rates = {'optimizer_d.learning_rate': [1e-2, 1e9, 1e-2]}
  members = population(played, range(MEMBERS), rates, layout=layout)
  x = batches()
  state, logs = trained(members, x, shared=True)
  assert state.alive.tolist() == [True, False, True]
  when = int(state.diverged[1])
  assert state.diverged.tolist() == [0, when, 0] and 1 < when <= STEPS
  losses = np.asarray(logs['d/loss'])
  assert np.isfinite(losses[:, [0, 2]]).all()
  finite = np.isfinite(np.stack([v[:, 1] for v in logs.values()])).all(0)
  assert finite[: when - 1].all() and not finite[when - 1]
  frozen = members.member(state, 1)
  assert int(frozen.step) == when - 1
  numbers = {path: values[1] for path, values in rates.items()}
  expected, _ = alone(played, 1, numbers, x[: when - 1])
  assert np.isfinite(flat((frozen.g, frozen.d))).all()
  close((frozen.g, frozen.d), (expected.g, expected.d), rtol=1e-4)
  # The others are what they are without it.
  others, _ = alone(played, 2, {'optimizer_d.learning_rate': 1e-2}, x)
  close(members.member(state, 2).d, others.d, rtol=2e-4, atol=2e-5)


@LAYOUTS
def test_lazy_penalties_stay_a_branch(layout):
  """The step is one for all members: a select would pay at every step."""
  members = population(trainer(), range(2), layout=layout)
  state = members.init()
  assert jnp.shape(state.members.step) == ()
  x = batches()[0]
  text = str(jax.make_jaxpr(members.step)(state, x))
  assert re.search(r'\bcond\[', text)


def test_a_population_is_one_program_and_may_be_donated():
  members = population(trainer(), range(2), layout='vmap')
  run = jax.jit(members.step, donate_argnums=0)
  state = members.init()
  for batch in batches():
    state, _ = run(state, batch)
  assert int(state.members.step) == STEPS
  assert run._cache_size() == 1


def test_numbers_that_do_not_vary_are_the_trainers():
  members = population(trainer(), range(2), {'optimizer_g.beta1': [0.1, 0.2]})
  hyper = members.init().members.hyper
  np.testing.assert_allclose(hyper['optimizer_g.beta1'], [0.1, 0.2])
  np.testing.assert_allclose(hyper['optimizer_d.beta1'], [0.5, 0.5])
  one = members.member(members.init(), 1)
  close(at(trainer().init(jax.random.key(1)), optimizer_g__beta1=0.2).g, one.g)


def test_another_generator_of_keys_is_refused():
  """Of which `vmap` draws other numbers than a run alone."""
  members = population(trainer(), range(2))
  with jax.default_prng_impl('rbg'):
    said = message(members.init)
  assert said == (
    '`jax_default_prng_impl=rbg`: a population draws the numbers of its runs'
    ' alone with threefry2x32 only'
  )


def counted(members=2):
  """A population of which step i logs i; the second dies at step 2."""

  def step(now, i):
    dies = jnp.arange(members) == 1
    alive = now.alive & ~(dies & (i >= 2))
    logs = {'x': jnp.where(alive, jnp.float32(i), jnp.nan)}
    return now.replace(alive=alive), logs

  now = population_lib.PopulationState(
    jnp.int32(0), jnp.ones(members, bool), jnp.zeros(members, jnp.int32)
  )
  sums, counts = {'x': jnp.zeros(members)}, jnp.zeros(members, jnp.int32)
  progress = population_lib.Progress(now, sums, counts)
  return population_lib._steps(progress, step, jnp.int32(5))


def test_means_are_of_the_steps_that_a_member_has_made():
  progress = counted()
  means = population_lib.mean_logs(progress)['x']
  np.testing.assert_allclose(means, [2.0, 0.5])  # of 0 to 4, of 0 and 1
  assert progress.counted.tolist() == [5, 2]
  fresh = population_lib.reset_sums(progress)
  assert fresh.counted.tolist() == fresh.sums['x'].tolist() == [0, 0]
  assert fresh.now.alive.tolist() == [True, False]


def test_a_state_that_is_not_finite_ends_its_member_alone():
  """Whose losses were; one that ended before keeps its step."""
  state = jax.jit(trainer_of().init)(jax.random.key(0)).replace(key=None)
  many = jax.tree.map(lambda x: jnp.stack([x] * 3), state)
  broken = many.d.params | {'c': many.d.params['c'].at[:2, 1].set(jnp.inf)}
  now = population_lib.PopulationState(
    many.replace(d=many.d.replace(params=broken), step=jnp.int32(7)),
    jnp.array([False, True, True]),
    jnp.array([3, 0, 0], jnp.int32),
  )
  after = population_lib.mark_diverged(now)
  assert after.alive.tolist() == [False, False, True]
  assert after.diverged.tolist() == [3, 7, 0]


def test_one_number_that_is_not_finite_is_enough():
  for dtype in (jnp.float32, jnp.bfloat16):
    fine = {'a': jnp.ones(3, dtype), 'b': jnp.arange(3)}
    assert all_finite(fine)
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
      for name in ('a', 'c'):
        one = jnp.array([0, bad, 0], dtype)
        assert not all_finite(fine | {name: one})
  assert all_finite({'b': jnp.arange(3)})


def test_layouts_are_chosen_by_size_and_kind_not_by_the_clock():
  def chosen(shape, platform='cpu', batch=64):
    return choose_layout({'w': np.zeros(shape)}, batch, platform)

  assert chosen((32, 32)) == 'vmap'
  assert chosen((1024, 1024)) == 'map'
  assert chosen((32, 32), batch=2**14) == 'map'
  assert chosen((3, 3, 4, 4)) == 'map'
  assert chosen((1024, 1024), 'gpu') == 'vmap'
  assert population(trainer(), range(2)).layout == 'vmap'


@pytest.mark.parametrize('seed', [-1, 2**31, 2**32 + 1])
def test_a_seed_beyond_32_bits_is_refused(seed):
  """It would be cut short, to be that of another run."""
  said = message(lambda: population(trainer(), [0, seed]))
  assert said == f'`seeds={seed}`: use 0 to 2147483647'
