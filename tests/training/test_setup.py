"""From flags to a game: what is refused, what is warned of, whose samples."""

import re

import jax
import numpy as np
import PIL.Image
import pytest

from gan_jax import data
from gan_jax.config import schema as config_lib
from gan_jax.config.schema import Config, ConfigError
from gan_jax.data import SampleSet
from gan_jax.game import step
from gan_jax.networks import NetworkError
from gan_jax.training import export, loop, setup

DIGITS = setup.DatasetMetadata('digits', (8, 8, 1), tuple('0123456789'))
UNLABELLED = setup.DatasetMetadata('folder:x', (8, 8, 1))


def plan_of(*words, dataset=DIGITS):
  config = config_lib.from_args(['--width=4', '--batch_size=8', *words])
  return config, setup.make_plan(config, dataset)


@pytest.mark.parametrize(
  ('words', 'dataset', 'told'),
  [
    (['--regularizer=r1@fake'], DIGITS, 'r1@fake: its places are real'),
    (
      ['--regularizer=clip@real'],
      DIGITS,
      'clip@real: has no place; write clip',
    ),
    (['--regularizer=wgan_gp@reel'], DIGITS, 'interpolates, real, fake'),
    (
      ['--regularizer=wgan_gp,wgan_gp@interpolates'],
      DIGITS,
      'wgan_gp@interpolates is wgan_gp, which would count twice',
    ),
    (
      ['--regularizer=r1@real:1,clip,r1'],
      DIGITS,
      'r1 is r1@real, .* leave one',
    ),
    (
      ['--regularizer=cr', '--network=mlp'],
      data.load('ring'),
      'cr flips and shifts images, and ring has none',
    ),
    (
      ['--diffaugment=color', '--network=mlp'],
      data.load('ring'),
      '--diffaugment=color: is for images, and ring has none',
    ),
    (
      ['--conditioning=projection'],
      UNLABELLED,
      '--conditioning=projection: folder:x has no classes',
    ),
    (
      ['--conditioning=projection', '--packing=2'],
      DIGITS,
      '--packing=2: .* use --packing=1 or --conditioning=none',
    ),
    (['--label_target=0.5'], DIGITS, '--label_target=0.5: .* least_squares'),
    (
      ['--objective=wasserstein', '--label_smoothing=0.1'],
      DIGITS,
      '--label_smoothing=0.1: has no effect',
    ),
    (
      ['--network=goodfellow2014', '--width=0', '--norm_d=spectral'],
      DIGITS,
      '--norm_d=spectral: the norm_d of --network=goodfellow2014 is fixed',
    ),
  ],
)
def test_what_is_of_no_use_together_is_named_with_its_remedy(
  words, dataset, told
):
  with pytest.raises((ConfigError, NetworkError), match=told):
    plan_of(*words, dataset=dataset)


@pytest.mark.parametrize(
  ('words', 'told'),
  [
    (['--regularizer=r1,clip'], 1),
    (['--regularizer=r1,wgan_gp@fake'], 2),
    (['--regularizer=clip,lecam,orthogonal'], 0),
    (['--regularizer=r1', '--norm_d=layer'], 0),
    (['--regularizer=r1', '--norm_d=spectral'], 0),
    ([], 0),
  ],
)
def test_a_slope_through_batch_norm_is_warned_of(words, told):
  config, plan = plan_of(*words)
  state = setup.make_template(plan, setup.make_hyper(config))
  found = setup.cautions(config, state)
  assert len(found) == told
  for text in found:
    assert '--regularizer=r1' in text and '--norm_d=layer' in text


@pytest.mark.parametrize(
  ('words', 'told'),
  [
    (['--beta2_g=0.9', '--optimizer_g=sgd'], '--beta2_g=0.9: .* under --opt'),
    (['--beta2_d=0.9', '--optimizer_d=sgd'], '--beta2_d=0.9: .* under --opt'),
    (['--beta2_g=0.9', '--optimizer_d=sgd'], ''),
    (['--beta1_final_d=0.5'], '--beta1_final_d=0.5: has no effect: --beta1_d'),
    (['--beta1_final_d=0.5', '--beta1_d=0.4'], ''),
    (['--reuse_real'], '--reuse_real=true: has no effect: with --d_steps=1'),
    (['--reuse_real', '--d_steps=2'], ''),
    (['--reuse_real', '--objective=relativistic'], ''),
    (['--reuse_real', '--schedule=extragradient'], ''),
    (
      ['--network=dirac', '--width=0', '--regularizer=zcr_g,clip,orthogonal'],
      'zcr_g has .*no use of noise\n.*orthogonal has .*no kernels$',
    ),
  ],
)
def test_what_is_taken_without_effect_is_warned_of(words, told):
  dataset = data.load('delta') if '--network=dirac' in words else DIGITS
  config, plan = plan_of(*words, dataset=dataset)
  state = setup.make_template(plan, setup.make_hyper(config))
  found = '\n'.join(setup.cautions(config, state))
  assert re.search(told, found) if told else not found


def test_help_names_every_regularizer_and_augmentation():
  from absl import flags

  from gan_jax.game.augment import AUGMENTATIONS
  from gan_jax.game.regularizers import REGULARIZERS

  values = flags.FlagValues()
  config_lib.define_flags(values)
  for flag, names in (
    ('regularizer', REGULARIZERS),
    ('diffaugment', AUGMENTATIONS),
  ):
    assert f'<{"|".join(names)}>' in values[flag].help
  for name, make in data.DATASETS.items():
    if make is not None:  # every density
      assert name in values['dataset'].help


CLASSES = 3


@pytest.fixture(scope='module')
def conditional_run(tmp_path_factory):
  """A short run of three classes of images, and the warnings of it."""
  rng = np.random.default_rng(0)
  labels = np.arange(60, dtype=np.int32) % CLASSES
  pictures = rng.integers(0, 255, (60, 8, 8, 1)).astype(np.uint8)
  known = SampleSet(
    'digits',
    (8, 8, 1),
    pictures,
    'none',
    classes=('a', 'b', 'c'),
    read_labels=lambda: labels,
  )
  folder = tmp_path_factory.mktemp('conditional')
  config = Config(
    workdir=str(folder),
    network='dcgan',
    width=4,
    conditioning='projection',
    objective='hinge',
    batch_size=6,
    steps=2,
    num_samples=10,
    devices=1,
    report=False,
    ema_halflife_kimg=0.0,
    regularizer='r1:0.1',
    compilation_cache='off',
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(data, 'load', lambda name, **how: known)
    assert loop.train(config) == 0
  return setup.open_run(folder), folder


def test_a_grid_of_a_conditional_run_has_a_column_a_class(conditional_run):
  run, folder = conditional_run
  x = export.draw(run, 6, 0, ema=False, interpolate=False)
  for c in range(CLASSES):  # each class by itself, of the same noise
    one = export.draw(run, 6, 0, ema=False, interpolate=False, label=c)
    np.testing.assert_allclose(one[c::CLASSES], x[c::CLASSES], atol=1e-6)
    others = [i for i in range(6) if i % CLASSES != c]
    assert np.abs(one[others] - x[others]).max() > 1e-5
  # What training left: 10 samples, filled up to rows of one of each class.
  with PIL.Image.open(folder / 'samples' / 'step_000000002.png') as picture:
    wide, high = picture.size
  assert (wide / 26, high / 35) == (24, 24)  # 3 x 4 of 8 pixels, gaps between


def test_a_class_that_is_not_there_is_refused(conditional_run):
  run, _ = conditional_run
  with pytest.raises(ConfigError, match='--label=3: this run has 3 classes'):
    export.draw(run, 4, 0, ema=False, interpolate=False, label=3)


def test_a_goodfellow2014_g_starts_at_the_mean_of_the_images(digits):
  config, plan = plan_of(
    '--network=goodfellow2014', '--width=0', dataset=digits
  )
  hyper = setup.make_hyper(config)
  params = step.init_state(jax.random.key(0), plan, hyper).g.params
  mean = digits.array().reshape(-1, 64).astype(float).mean(axis=0) / 255
  kept = np.clip(mean, 1e-5, 1 - 1e-5)
  found = list(params.values())[-1]['bias']
  np.testing.assert_allclose(found, np.log(kept / (1 - kept)), rtol=1e-3)


def test_a_goodfellow2014_g_opens_without_the_images():
  config, plan = plan_of('--network=goodfellow2014', '--width=0')
  hyper = setup.make_hyper(config)
  params = step.init_state(jax.random.key(0), plan, hyper).g.params
  assert not any(layer['bias'].any() for layer in params.values())


@pytest.mark.parametrize('player', ['g', 'd'])
def test_the_flag_of_a_moving_momentum_reaches_the_step(player):
  config, plan = plan_of(f'--beta1_final_{player}=0.75', '--steps=10')
  other = {'g': 'd', 'd': 'g'}[player]
  assert getattr(plan, f'beta1_final_{player}')
  assert not getattr(plan, f'beta1_final_{other}')
  assert getattr(setup.make_hyper(config), f'beta1_final_{player}') == 0.75
