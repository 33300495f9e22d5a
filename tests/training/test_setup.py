"""From options to a run: what is refused, what is warned of, what is drawn."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from absl import flags
from helpers import small
from helpers.untyped import unchecked

from gan_jax import data
from gan_jax.config import app, registry, resolve, schema
from gan_jax.config import help as help_lib
from gan_jax.data import DatasetMetadata
from gan_jax.evaluation.scorer import EvaluationOptions
from gan_jax.game.state import State
from gan_jax.game.streams import stream
from gan_jax.runtime.errors import ArgumentError
from gan_jax.training import export, restore, setup
from gan_jax.training.run_evaluator import make_run_evaluator, sampled_networks
from gan_jax.training.train import train

DIGITS = DatasetMetadata('digits', (8, 8, 1), tuple('0123456789'))
UNLABELLED = DatasetMetadata('folder:x', (8, 8, 1))


def trainer_of(*words, dataset=DIGITS):
  config = schema.from_args(['--width=4', '--batch_size=8', *words])
  return resolve.build_trainer(config, setup.data_spec(dataset))


@pytest.mark.parametrize(
  ('words', 'dataset', 'message'),
  [
    (
      ['--regularizer=clip@real'],
      DIGITS,
      'clip@real: has no place; write clip',
    ),
    (['--regularizer=wgan_gp@reel'], DIGITS, 'interpolates, real, fake'),
    (
      ['--regularizer=wgan_gp,wgan_gp@interpolates'],
      DIGITS,
      'wgan_gp is there twice and would count twice',
    ),
    (
      ['--regularizer=cr', '--network=mlp'],
      data.load('ring'),
      '`regularizer=cr`: .*images',
    ),
    (
      ['--diffaugment=color', '--network=mlp'],
      data.load('ring'),
      '`diffaugment=color`: .*images',
    ),
    (
      ['--conditioning=projection'],
      UNLABELLED,
      '`conditioning=projection`: the data has no classes',
    ),
    (
      ['--conditioning=projection', '--packing=2'],
      DIGITS,
      '`packing=2`: .* use `packing=1`',
    ),
    (
      ['--label_target=0.5'],
      DIGITS,
      '`label_target=0.5`: .* least_squares',
    ),
    (
      ['--network=goodfellow2014', '--width=0', '--norm_d=spectral'],
      DIGITS,
      '`norm_d=spectral`: .*`network=goodfellow2014`',
    ),
  ],
)
def test_what_is_of_no_use_together_is_named_with_its_remedy(
  words, dataset, message
):
  with pytest.raises(ArgumentError, match=message):
    trainer_of(*words, dataset=dataset)


def cautions_of(*words, dataset=None):
  config = schema.from_args(['--width=4', '--batch_size=8', *words])
  if dataset is None:
    images = np.zeros((8, 8, 8, 1), np.uint8)
    dataset = data.as_dataset(images)
    config = schema.from_args(['--network=mlp', *schema.to_args(config)])
  return setup.cautions(setup.build(config, dataset=dataset))


@pytest.mark.parametrize(
  ('words', 'count'),
  [
    (['--regularizer=r1,clip'], 1),
    (['--regularizer=r1,wgan_gp@fake'], 2),
    (['--regularizer=clip,lecam,orthogonal'], 0),
    (['--regularizer=r1', '--norm_d=layer'], 0),
    (['--regularizer=r1', '--norm_d=spectral'], 0),
    ([], 0),
  ],
)
def test_a_slope_through_batch_norm_is_warned_of(words, count):
  found = cautions_of('--network=mlp', '--norm_d=batch', *words)
  assert len(found) == count
  for text in found:
    assert '`regularizer=r1' in text or '`regularizer=wgan_gp' in text
    assert '`norm_d=layer`' in text


@pytest.mark.parametrize(
  ('words', 'part'),
  [
    (['--norm_g=batch', '--accumulate=4'], '`accumulate=4`: .* sees 2 of'),
    (['--norm_d=batch', '--batch_size=2'], '`batch_size=2`: .* sees 2 of'),
    (['--norm_g=batch', '--accumulate=2'], ''),
    (['--norm_g=layer', '--accumulate=4'], ''),
  ],
)
def test_statistics_of_few_samples_are_warned_of(words, part):
  found = cautions_of('--norm_d=none', '--devices=1', *words)
  assert len(found) == bool(part)
  assert re.search(part, ' '.join(found))


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--beta2_g=0.9', '--optimizer_g=sgd'], '`beta2_g=0.9`: .* under `opt'),
    (['--beta2_d=0.9', '--optimizer_d=sgd'], '`beta2_d=0.9`: .* under `opt'),
    (['--beta2_g=0.9', '--optimizer_d=sgd'], ''),
    (['--beta1_final_d=0.5'], '`beta1_final_d=0.5`: has no effect: `beta1_d'),
    (['--beta1_final_d=0.5', '--beta1_d=0.4'], ''),
    (['--reuse_real'], '`reuse_real=true`: has no effect: with `d_steps=1`'),
    (['--reuse_real', '--d_steps=2'], ''),
    (['--reuse_real', '--objective=relativistic'], ''),
    (
      ['--lr_schedule=cosine', '--lr_final=1'],
      '`lr_final=1.0`: has no effect, and neither has `lr_schedule=cosine`',
    ),
    (['--lr_schedule=cosine'], ''),
    (['--lr_warmup=1'], '`lr_warmup=1`: has no effect'),
    (
      ['--metrics=fid', '--eval_every=9000'],
      '`eval_every=9000`: has no effect in a run of `steps=5000`',
    ),
  ],
)
def test_what_is_taken_without_effect_is_warned_of(words, message):
  found = '\n'.join(cautions_of('--network=mlp', *words))
  assert re.search(message, found) if message else not found


def test_a_regularizer_of_noise_that_g_has_no_use_of_is_warned_of():
  words = ['--network=dirac', '--width=0', '--regularizer=zcr_g,clip']
  (found,) = cautions_of(*words, dataset=data.load('delta'))
  assert re.search('zcr_g has no effect .*, which has no use of noise$', found)


@pytest.mark.parametrize(
  ('flag', 'module', 'entries'),
  [
    ('regularizer', 'gan_jax.game.regularizers', 'REGULARIZERS'),
    ('diffaugment', 'gan_jax.game.augment', 'AUGMENTATIONS'),
    ('dataset', 'gan_jax.data.densities', 'DENSITIES'),
  ],
)
def test_help_names_every_entry(flag, module, entries):
  values = flags.FlagValues()
  schema.define_flags(values)
  text = help_lib.search(values, flag, 80)
  for name in registry.names(module, entries):
    assert re.search(rf'\b{name}\b', text)


@pytest.mark.parametrize('dataset', ['ring', 'images'])
def test_each_batch_of_each_step_is_drawn_anew(dataset):
  """Samples of a density, and which images are flipped; a function of both."""
  words = ['--d_steps=2', '--network=mlp', '--width=4', '--batch_size=8']
  own = None
  if dataset == 'images':  # one image, so that flips alone tell
    own = data.as_dataset(
      np.tile(np.arange(64, dtype=np.uint8), (8, 1)).reshape(8, 8, 8, 1)
    )
    words.append('--flip')
  parts = setup.build(schema.from_args(words), dataset=own or data.load('ring'))

  start, draw = parts.init(), jax.jit(parts.batch_of)

  def reals(step):
    item = jax.tree.map(lambda x: x[0], parts.feed.chunk(step, 1))
    state = start.replace(step=jnp.int32(step))
    return np.asarray(draw(parts.feed.constants, item, state))

  batches = [*reals(0), *reals(1)]
  for i, batch in enumerate(batches):
    for other in batches[:i]:
      assert (batch != other).any()
  np.testing.assert_array_equal(reals(1), batches[2:])


CLASSES, COUNTS = 3, [36, 18, 6]


@pytest.fixture(scope='module')
def conditional_run(programs, tmp_path_factory):
  """A short run of three classes of images."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 255, (60, 8, 8, 1)).astype(np.uint8)
  run = train(
    tmp_path_factory.mktemp('conditional'),
    data=(images, np.repeat(np.arange(CLASSES), COUNTS)),
    network='dcgan',
    width=4,
    conditioning='projection',
    objective='hinge',
    batch_size=6,
    steps=2,
    num_samples=10,
    devices=1,
    ema_halflife_kimg=0.0,
    regularizer='r1:0.1',
    compilation_cache=programs,
  )
  assert run.outcome == 'done'
  return restore.open_run(run.workdir)


def test_a_grid_of_a_conditional_run_has_a_column_a_class(conditional_run):
  run = conditional_run
  turn = [0, 1, 2, 0, 1, 2]
  x = export.draw(run, 6, 0, ema=False, interpolate=False, label=turn)
  for c in range(CLASSES):  # each class by itself, of the same noise
    one = export.draw(run, 6, 0, ema=False, interpolate=False, label=c)
    np.testing.assert_allclose(one[c::CLASSES], x[c::CLASSES], atol=1e-6)
    others = [i for i in range(6) if i % CLASSES != c]
    assert np.abs(one[others] - x[others]).max() > 1e-5
  # What training left: 10 samples, filled up to rows of one of each class.
  path = run.workdir / 'samples' / 'step_000000002.png'
  with PIL.Image.open(path) as picture:
    wide, high = picture.size
  assert (wide / 26, high / 35) == (24, 24)  # 3 x 4 of 8 pixels, gaps between


@pytest.mark.slow
def test_a_run_of_a_thousand_classes_draws_few_pictures(programs, tmp_path):
  colours = np.random.default_rng(0).integers(0, 256, (1000, 1, 1, 3), np.uint8)
  images = np.repeat(colours, 2, axis=0) * np.ones((1, 8, 8, 1), np.uint8)
  data = images, np.repeat(np.arange(1000), 2)
  run = train(
    tmp_path / 'run',
    data=data,
    network='mlp',
    width=4,
    conditioning='projection',
    batch_size=8,
    steps=2,
    devices=1,
    compilation_cache=programs,
  )
  run = restore.open_run(run.workdir)
  with PIL.Image.open(run.workdir / 'samples' / 'step_000000002.png') as grid:
    wide, high = grid.size
  assert (wide / 143, high / 35) == (4, 4)  # 16 x 4 of 8 pixels, gaps between
  own = run.sample(3, label=777)
  np.testing.assert_array_equal(own, run.sample(3, label=[777] * 3))
  assert np.unique(run.labels(1000)).size > 800
  assert run.score(['swd'], samples=16, data=data)


def test_a_run_asks_for_classes_as_its_data_has_them(conditional_run, tmp_path):
  run = conditional_run
  assert run.facts['dataset']['class_counts'] == COUNTS
  assert run.facts['generator']['class_counts'] == COUNTS
  assert run.facts['identity']['declared']['class_sampling'] == 'data'
  asked = run.labels(100)
  assert abs(np.bincount(asked) - [60, 30, 10]).max() <= 2
  np.testing.assert_array_equal(
    run.sample(12), run.sample(12, label=asked[:12])
  )
  even = run.sample(12, class_sampling='uniform')
  np.testing.assert_array_equal(even, run.sample(12, label=[0, 1, 2] * 4))
  # Nothing is guessed where run.json is lost.
  lost = dataclasses.replace(
    run, facts={}, dataset=data.DatasetMetadata('x', (8, 8, 1), tuple('abc'))
  )
  with pytest.raises(ArgumentError, match='`class_sampling=data`: .*run.json'):
    lost.sample(4)
  with pytest.raises(ArgumentError, match='`label` names the classes'):
    run.sample(2, label=1, class_sampling='data')
  with pytest.raises(ArgumentError, match='use data or uniform'):
    run.sample(2, class_sampling='even')


def test_grids_show_each_class_and_files_have_the_datas_proportions(
  conditional_run, tmp_path
):
  run = conditional_run
  label, columns = export.lay_out_classes(run, 7, tmp_path / 'a.png')
  assert label.tolist() == [0, 1, 2, 0, 1, 2, 0] and columns == CLASSES
  for name in ('a.npz', 'folder'):
    assert export.lay_out_classes(run, 7, tmp_path / name) == (None, 0)
  x = export.draw(run, 9, 0, ema=False, interpolate=False)
  np.testing.assert_array_equal(x, run.sample(9, label=run.labels(9)))
  with pytest.raises(
    ArgumentError, match='`class_sampling=data`: has no effect'
  ):
    export.draw(run, 8, 0, False, True, class_sampling='data')


def test_scores_of_a_run_say_how_classes_were_drawn(conditional_run):
  run = conditional_run
  for asked, word, counts in (
    ('', 'data', tuple(COUNTS)),
    ('uniform', 'uniform', ()),
  ):
    networks = sampled_networks(run, asked)
    assert networks.class_counts == counts
    options = EvaluationOptions('ms_ssim', samples=4, class_sampling=asked)
    dataset = data.as_dataset(np.zeros((9, 8, 8, 1), np.uint8))
    evaluator = make_run_evaluator(
      run.config, options, networks, dataset=dataset
    )
    assert evaluator.protocol['class_sampling'] == word
    assert ('class_counts' in evaluator.protocol) == bool(counts)


def test_even_classes_of_no_classes_are_refused():
  config = schema.from_args(['--class_sampling=uniform'])
  with pytest.raises(
    ArgumentError, match='`class_sampling=uniform`: has no eff'
  ):
    resolve.build_trainer(config, setup.data_spec(UNLABELLED))


def test_a_class_that_is_not_there_is_refused(conditional_run):
  with pytest.raises(ArgumentError, match='`label=3`: this run has 3 classes'):
    export.draw(conditional_run, 4, 0, ema=False, interpolate=False, label=3)


def initial_g(dataset):
  trainer = trainer_of('--network=goodfellow2014', '--width=0', dataset=dataset)
  params, _ = trainer.game.networks.generator.init(jax.random.key(0))
  return params


def test_a_goodfellow2014_g_starts_at_the_mean_of_the_images(digits):
  mean = digits.array().reshape(-1, 64).astype(float).mean(axis=0) / 255
  kept = np.clip(mean, 1e-5, 1 - 1e-5)
  found = list(initial_g(digits).values())[-1]['bias']
  np.testing.assert_allclose(found, np.log(kept / (1 - kept)), rtol=1e-3)


def test_a_goodfellow2014_g_opens_without_the_images():
  assert not any(layer['bias'].any() for layer in initial_g(DIGITS).values())


@pytest.mark.parametrize('player', ['g', 'd'])
def test_the_flag_of_a_moving_momentum_reaches_the_step(player):
  words = [f'--beta1_final_{player}=0.75', '--steps=10', '--network=mlp']
  hyper = trainer_of(*words).hyperparameters()
  other = {'g': 'd', 'd': 'g'}[player]
  assert hyper[f'optimizer_{player}.beta1_final'] == 0.75
  assert f'optimizer_{other}.beta1_final' not in hyper


def test_a_message_of_the_command_line_has_flags():
  """`as_flags` is what a command prints messages through."""
  with pytest.raises(ArgumentError) as caught:
    trainer_of('--label_target=0.5')
  assert '--label_target=0.5' in app.as_flags(str(caught.value), schema.FIELDS)


@pytest.mark.parametrize('dataset', ['ring', 'digits'])
def test_batches_of_a_step_are_read_in_a_loop(dataset, digits):
  """As many as there are: each is what its own stream and rows say."""
  del digits

  def traced(count):
    config = small.ring(dataset=dataset, flip=dataset == 'digits')
    parts = setup.build(dataclasses.replace(config, d_steps=count))
    item = jax.tree.map(lambda a: a[0], parts.feed.chunk(0, 1))
    state = State(
      *(jnp.int32(5), jax.random.key(3), None, None, None, None, None)
    )
    constants = jax.tree.map(jnp.asarray, parts.feed.constants)
    batches = lambda state: parts.batch_of(constants, item, state)
    program = jax.make_jaxpr(batches)(state)
    single = [
      parts.feed.decode(
        constants,
        jax.tree.map(lambda a, i=i: a[i], item),
        stream(state.key, 'data', 5, i),
        config.batch_size,
      )
      for i in range(3)
    ]
    return str(program).count('\n'), batches(state), single

  few, x, single = traced(3)
  np.testing.assert_allclose(x, np.stack(single), rtol=1e-5, atol=1e-6)
  assert few == traced(30)[0]


def test_a_batch_is_of_whole_packs():
  with pytest.raises(ArgumentError, match='`packing=3`: does not divide'):
    setup.build(
      schema.from_args(['--dataset=ring', '--packing=3', '--width=4'])
    )


def test_the_newest_checkpoint_is_where_a_diverged_run_can_be_looked_at():
  parts = setup.build(schema.from_args(['--dataset=ring', '--width=4']))
  saved = SimpleNamespace(steps=lambda: [3, 9], folder='runs/1')
  with unchecked():
    said = setup.diverged_advice(parts, 12, ['d/loss'], saved)
  assert said.startswith('diverged at step 12: d/loss not finite; ')
  assert 'the last checkpoint, of step 9, is finite (runs/1)' in said
