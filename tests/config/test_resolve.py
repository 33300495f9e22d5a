"""From flags to the objects of a game: nothing that is given is ignored."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.untyped import unchecked

from gan_jax.config import resolve, schema
from gan_jax.runtime.errors import ArgumentError

IMAGES = resolve.DataSpec((8, 8, 1), bounded=True)
POINTS = resolve.DataSpec((2,), bounded=False)


def trainer(*words, facts=IMAGES):
  return resolve.build_trainer(schema.from_args(words), facts)


@pytest.mark.parametrize(
  ('words', 'parts'),
  [
    (['--schedule=simultaneous', '--d_steps=2'], ['`d_steps=2`', 'alternat']),
    (['--schedule=extragradient', '--g_steps=2'], ['`g_steps=2`']),
    (['--reuse_noise', '--schedule=simultaneous'], ['`reuse_noise=True`']),
    (['--reuse_real', '--schedule=consensus'], ['`reuse_real=True`']),
    (['--consensus=2'], ['`consensus=2.0`', '`schedule=alternating`']),
    (['--unroll_steps=2'], ['`unroll_steps=2`', 'unrolled']),
    (['--instance_noise_kimg=3'], ['`instance_noise_kimg=3.0`', 'no effect']),
    (['--lr_warmup=9', '--steps=9'], ['`lr_warmup=9`', '`steps=9`']),
    (
      ['--lr_schedule=exponential', '--lr_final=0'],
      ['`lr_final=0.0`', 'positive'],
    ),
    (['--regularizer_every=4'], ['`regularizer_every=4`', 'no effect']),
    (['--label_fake=1'], ['`label_fake=1.0`', 'least_squares']),
    (
      ['--objective=least_squares', '--label_fake=1'],
      ['`label_real=1.0`', 'two numbers'],
    ),
    (
      ['--objective=hinge', '--label_smoothing=.1'],
      ['`label_smoothing=0.1`', '`objective=hinge`', 'minimax'],
    ),
    (['--regularizer=r1@fake'], ['`regularizer=r1@fake`', 'real']),
    (['--regularizer=r1,r1@real'], ['`regularizer=r1,r1@real`', 'r1']),
    (['--conditioning=projection'], ['`conditioning=projection`', 'classes']),
    (['--objective=nowhere:X'], ['`objective=nowhere:X`', 'nowhere']),
  ],
)
def test_what_has_no_effect_is_refused(words, parts):
  with pytest.raises(ArgumentError) as caught:
    trainer(*words)
  for part in parts:
    assert part in str(caught.value)


@pytest.mark.parametrize(
  'option', [dict(dataset='mnist'), dict(batch_size=3), dict(metrics='fid')]
)
def test_what_is_of_a_run_makes_no_trainer(option):
  ((name, value),) = option.items()
  with pytest.raises(ArgumentError, match=f'`{name}={value}`: is of a run'):
    resolve.make_trainer((2,), **option)


@pytest.mark.parametrize('word', ['--diffaugment=cutout', '--regularizer=bcr'])
def test_what_is_for_images_is_refused_on_points(word):
  with pytest.raises(ArgumentError, match=word.strip('-')):
    trainer(word, '--network=mlp', facts=POINTS)


def test_a_warmup_of_all_but_the_last_step():
  assert trainer('--lr_warmup=8', '--steps=9')


def test_a_flag_sets_the_hyper_parameter_that_it_names():
  """Each has a path; given, it is there and has the value."""
  hyper = trainer(
    '--objective=least_squares',
    '--schedule=consensus',
    '--beta1_final_g=0.25',
    '--beta1_final_d=0.25',
    '--clip_g=3',
    '--clip_d=3',
    '--instance_noise=2',
    '--instance_noise_kimg=4',
  ).hyperparameters()
  config = schema.FIELDS
  paths = {name: config[name].metadata['path'] for name in schema.traced()}
  assert set(paths.values()) - {'objective.smoothing'} <= set(hyper)
  assert float(hyper[paths['clip_d']]) == 3
  assert float(hyper[paths['instance_noise_kimg']]) == 4
  assert 'instance_noise.std' not in trainer().hyperparameters()


def test_an_architecture_by_reference_is_built_as_by_name():
  def sizes(network):
    config = schema.from_args([f'--network={network}', '--width=16'])
    built = resolve.build_networks(config, POINTS)
    params, _ = jax.eval_shape(built.generator.init, jax.random.key(0))
    return jax.tree.map(jnp.shape, params)

  assert sizes('gan_jax.networks.mlp:ARCHITECTURE') == sizes('mlp')


def test_a_reference_to_no_networks_is_refused():
  config = schema.from_args(['--network=math:pi'])
  with pytest.raises(ArgumentError, match='`network=math:pi`: is no `Networks'):
    resolve.build_networks(config, POINTS)


def test_each_player_has_the_optimizer_that_was_handed_in():
  def made(**options):
    trainer = resolve.make_trainer((2,), network='mlp', **options)
    return trainer.optimizer_g, trainer.optimizer_d

  g, d = optax.adam(1e-3), optax.sgd(1e-2)
  both = made(optimizer_g=g, optimizer_d=d)
  assert [o.transformation for o in both] == [g, d]
  for name, own in (('optimizer_g', 0), ('optimizer_d', 1)):
    one = made(**{name: g})
    assert one[own].transformation is g
    assert one[1 - own].name == 'adam'


def test_rates_and_momentum_move_over_the_run():
  """Whatever its warm-up; what is given goes where its name says."""
  options = dict(steps=50, lr_warmup=4, lr_schedule='linear', lr_final=0.5)
  trainer = resolve.make_trainer(
    (2,), network='mlp', beta1_final_g=0.9, **options
  )
  assert trainer.optimizer_g.momentum_steps == 50
  for optimizer in (trainer.optimizer_g, trainer.optimizer_d):
    decay = optimizer.decay
    assert (decay.steps, decay.warmup, decay.final) == (50, 4, 0.5)


@pytest.mark.parametrize(
  ('name', 'value'),
  [('steps', True), ('lr_g', True), ('flip', 1), ('steps', 2.0), ('seed', '1')],
)
def test_a_value_of_another_type_is_none(name, value):
  with (
    unchecked(),
    pytest.raises(ArgumentError, match=f'`{name}={value}`: use'),
  ):
    resolve.split_options({name: value})
  config, _ = resolve.split_options({'lr_g': 1, 'steps': np.int64(3)})
  assert (config.lr_g, config.steps) == (1.0, 3)
  assert type(config.lr_g) is float and type(config.steps) is int
