"""Plans of ablations: what is refused, and what ranks."""

import pytest
from helpers.ablations import options, plan

from gan_jax.ablation import folder as folder_lib
from gan_jax.ablation import runner
from gan_jax.ablation.plan import choose_primary, make_plan
from gan_jax.runtime.errors import ArgumentError, Error
from gan_jax.training import setup


@pytest.mark.parametrize(
  'vary, changes, message',
  [
    (('regularizer=;r1@fake:0',), {}, 'cell 1 '),
    ((), dict(metrics='fidd'), '^`metrics=fidd`: fidd: did you mean fid'),
    ((), dict(seeds=0), '`seeds=0`: use 1 or more'),
    ((), dict(seed=2**31 - 1, seeds=2), '`seeds=2`: use 1 or more'),
    ((), dict(only='3/2'), '`only=3/2`: write K/N'),
    ((), dict(only='0/2'), '`only=0/2`: write K/N'),
    ((), dict(only='2'), '`only=2`: write K/N'),
    ((), dict(multihost=True, only='1/2'), '`only=1/2`: has no use'),
    ((), dict(split=-1), '`split=-1`: use 1 or more'),
    ((), dict(dynamics_every=5), '`dynamics_every=5`: has no'),
    ((), dict(keep_best='modes'), '`keep_best=modes`: has no'),
    (
      (),
      dict(features='pixel-3'),
      '`features=pixel-3`: did you mean pixels',
    ),
    ((), dict(published='/no.json'), 'cannot be read'),
    ((), dict(better='more'), '`better=more`: use lower or higher'),
    ((), dict(metrics='', dataset='digits'), '`metrics=`: name what'),
    ((), dict(workdir=''), '`workdir=`: name the folder'),
  ],
)
def test_a_plan_of_no_use_is_refused(vary, changes, message, tmp_path):
  path = changes.pop('workdir', tmp_path / 'a')
  with pytest.raises(ArgumentError, match=message) as caught:
    plan(path, *vary, **changes)
  assert caught.value.exit_code == 2


@pytest.mark.parametrize(
  'vary, changes, message',
  [
    (
      ('objective=minimax,hinge',),
      dict(label_smoothing=0.1),
      r'cell 1 .*objective=hinge',
    ),
    (('schedule=alternating,simultaneous', 'd_steps=1,2'), {}, 'cell 3 '),
    (('dataset=ring,no_such',), {}, 'no_such'),
    ((), dict(metrics='ms_ssim'), 'cell 0 .*ms_ssim'),
    ((), dict(primary='nonsense'), '`primary=nonsense`: is none of the scores'),
    (
      (),
      dict(primary='high_qualit', better='lower'),
      'use one of mode_jsd, modes, high_quality',
    ),
    (
      (),
      dict(metrics='modes,c2st', primary='c2st'),
      '`primary=c2st`: neither low nor high',
    ),
    ((), dict(metrics='c2st'), '`better=lower` or `better=higher`'),
  ],
)
def test_cells_of_no_use_are_refused_before_anything_is_trained(
  vary, changes, message, tmp_path
):
  def make_run(*args):
    raise AssertionError('a program is made')

  asked = plan(tmp_path / 'a', *vary, **changes)
  with pytest.raises(Error, match=message):
    runner.ablate(asked, make_run=make_run)
  assert not (tmp_path / 'a' / 'plan.json').exists()
  if changes.get('primary') == 'nonsense':
    with pytest.raises(Error, match=message):
      runner.ablate(asked, dry_run=True, make_run=make_run)


@pytest.mark.parametrize(
  'text', ['[]', '{"rows": {}}', '{"source": "x", "rows": {"hinge": 3}}', 'x']
)
def test_published_values_that_are_none_are_refused(text, tmp_path):
  path = tmp_path / 'published.json'
  path.write_text(text)
  with pytest.raises(ArgumentError, match='give a JSON file {"source"'):
    plan(tmp_path / 'a', published=str(path))


def test_the_folder_of_something_else_is_refused(tmp_path):
  (tmp_path / 'config.flags').touch()
  with pytest.raises(ArgumentError, match='holds no ablation'):
    runner.ablate(plan(tmp_path))


@pytest.mark.parametrize('text', ['[]', '{"base": ', '{}'])
def test_a_damaged_plan_is_named(text, tmp_path):
  (tmp_path / 'plan.json').write_text(text)
  with pytest.raises(ArgumentError, match='plan.json cannot be read'):
    runner.ablate(plan(tmp_path))


def test_the_plan_of_another_version_is_named(tmp_path):
  text = '{"base": {"warp": 9}, "options": {}, "scores": {}}'
  (tmp_path / 'plan.json').write_text(text)
  with pytest.raises(ArgumentError, match='another version, with `warp`'):
    runner.ablate(plan(tmp_path))


def test_a_score_is_found_with_and_without_its_features():
  scores = {'swd': 'lower', 'swd_*': 'lower', 'fid@classifier-x': 'lower'}
  for given, found in (
    ('', 'swd'),
    ('fid', 'fid@classifier-x'),
    ('fid@classifier-x', 'fid@classifier-x'),
    ('swd_16', 'swd_16'),
  ):
    wanted = options('a', primary=given)
    assert choose_primary(wanted, scores) == (found, 'lower')
  for given in ('fid@inception-768', 'fi', 'fid@'):
    with pytest.raises(ArgumentError, match='is none of the scores'):
      choose_primary(options('a', primary=given), scores)


def test_densities_have_a_metric_of_their_own():
  for dataset, metrics in (('ring', 'modes'), ('gaussian_1d', 'density')):
    asked = options('a', metrics='', dataset=dataset)
    assert make_plan(asked).base.metrics == metrics


def test_a_folder_of_images_is_compared_in_one_spelling(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  paths = ('folder:x', 'folder:./x/', f'folder:{tmp_path}/y/../x')
  assert len({folder_lib._full_path(path) for path in paths}) == 1
  assert folder_lib._full_path('folder:y') != folder_lib._full_path('folder:x')
  assert folder_lib._full_path('mnist[:10]') == 'mnist[:10]'


def test_the_last_seed_there_is_can_be_used(tmp_path):
  found = plan(tmp_path / 'a', seed=2**31 - 2, seeds=2)
  assert found.seeds == [2**31 - 2, 2**31 - 1]


def test_data_is_loaded_once_for_all_cells_that_read_it_alike(
  tmp_path, monkeypatch
):
  loaded = []

  def load(config):
    loaded.append((config.dataset, config.image_size, config.channels))
    return loaded[-1]

  monkeypatch.setattr(setup, 'load_dataset', load)
  words = ('dataset=digits,mnist', 'image_size=0,16', 'channels=0,3')
  found = plan(tmp_path / 'a', *words, 'lr_g=1e-3,1e-2', network='dcgan')
  for spec in found.specs:
    read = found.load_dataset(spec.config)
    assert read == (
      spec.config.dataset, spec.config.image_size, spec.config.channels
    )  # fmt: skip
  assert len(loaded) == len({*loaded}) == 8
