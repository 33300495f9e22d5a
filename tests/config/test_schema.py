"""Flags: there and back, and every bad value named with its remedy."""

import dataclasses
import importlib
import json
import os
import pathlib
import pwd
import string
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_jax.config import parsing, registry, validate
from gan_jax.config import schema as config_lib
from gan_jax.config.schema import Config, ConfigError

FIELDS = config_lib.FIELDS
ROOT = pathlib.Path(__file__).parents[2]


def values(field):
  """Valid values of one field."""
  limits, kind = field.metadata, type(field.default)
  if field.name == 'regularizer':
    return st.sampled_from(['', 'r1', 'r1:0.5,r2', 'wgan_gp@real:10,clip:1e-2'])
  if field.name in ('diffaugment', 'keep_best'):
    return st.just('')
  if field.name == 'metrics':
    return st.sampled_from(['', 'fid', 'kid,fid', 'parzen'])
  words = config_lib.choices(field.name)
  if words:
    return st.sampled_from(words)
  if kind is bool:
    return st.booleans()
  if kind is str:
    alphabet = string.ascii_letters + string.digits + '/.:_-=#,"\'\\é'
    return st.text(alphabet, max_size=20)
  low = limits['low'] if limits['low'] is not None else limits['above']
  high = limits['high'] if limits['high'] is not None else limits['below']
  if kind is int:
    return st.integers(low, 10**6 if high is None else high)
  return st.floats(
    -1e6 if low is None else low,
    1e6 if high is None else high,
    exclude_min=limits['above'] is not None,
    exclude_max=limits['below'] is not None,
    allow_subnormal=False,
    width=32,
  )


TOGETHER = ('simultaneous', 'optimistic', 'extragradient', 'consensus')


def consistent(kwargs):
  """A configuration of drawn values, less what would contradict the rest."""
  if kwargs['schedule'] in TOGETHER:
    kwargs['d_steps'] = kwargs['g_steps'] = 1
    kwargs['reuse_noise'] = kwargs['reuse_real'] = False
  if kwargs['label_real'] == kwargs['label_fake']:
    kwargs['label_real'], kwargs['label_fake'] = 1.0, 0.0
  for name, schedule in (('unroll_steps', 'unrolled'), ('consensus',) * 2):
    if kwargs['schedule'] != schedule:
      kwargs[name] = FIELDS[name].default
  if not kwargs['regularizer']:
    kwargs['regularizer_every'] = 1
  if not kwargs['metrics']:
    scoring = ('eval_every', 'eval_samples', 'eval_seeds')
    for name in (*scoring, 'features', 'weights'):
      kwargs[name] = FIELDS[name].default
  else:
    kwargs['keep_best'] = kwargs['metrics'].split(',')[0]
  kwargs['packing'] = 1 + kwargs['packing'] % 8
  kwargs['batch_size'] = kwargs['packing'] * (1 + kwargs['batch_size'] % 999)
  if kwargs['lr_schedule'] == 'constant':
    kwargs['lr_final'] = 0.0
  elif kwargs['lr_schedule'] == 'exponential':
    kwargs['lr_final'] = 0.5
  kwargs['lr_warmup'] %= kwargs['steps']
  kwargs['instance_noise_kimg'] *= kwargs['instance_noise'] > 0
  kwargs['channels'] += kwargs['channels'] == 2
  return Config(**kwargs).validate()


VALUES = st.fixed_dictionaries({n: values(f) for n, f in FIELDS.items()})


@settings(deadline=None, max_examples=50)
@given(VALUES)
def test_flags_there_and_back(drawn):
  config = consistent(drawn)
  assert config_lib.from_args(config_lib.to_args(config)) == config


@settings(deadline=None, max_examples=20)
@given(VALUES)
def test_flagfile_there_and_back(tmp_path_factory, drawn):
  config = consistent(drawn)
  path = tmp_path_factory.mktemp('flags') / 'config.flags'
  path.write_text(parsing.format_flagfile(config_lib.to_args(config)))
  assert config_lib.load_flagfile(path) == config


def test_later_flags_override_the_flagfile(tmp_path):
  path = tmp_path / 'preset.flags'
  path.write_text('# a preset\n--batch_size=32\n--lr_g=0.5\n')
  config = config_lib.from_args([f'--flagfile={path}', '--lr_g=0.25'])
  assert (config.batch_size, config.lr_g) == (32, 0.25)


@pytest.mark.parametrize(
  ('words', 'parts'),
  [
    (['--objctive=minimax'], ['objctive', 'objective']),
    (['--objective=minmax'], ['`objective=minmax', 'minimax']),
    (['--optimizer_d=qqq'], ['`optimizer_d=qqq', 'adam', 'sgd']),
    (['--lr_g=-0.1'], ['`lr_g=-0.1', 'more than 0']),
    (['--lr_d=nan'], ['`lr_d=nan', 'finite']),
    (['--lr_d=fast'], ['lr_d', 'fast']),
    (['--d_steps=0'], ['`d_steps=0', '1 or more']),
    (['--steps=0'], ['`steps=0', '1 or more']),
    (['--batch_size=1.5'], ['batch_size', '1.5']),
    (['--beta1_g=1'], ['`beta1_g=1.0', 'less than 1']),
    (['--seed=-1'], ['`seed=-1', '0 or more']),
    (['--precision=float16'], ['`precision=float16', 'float32']),
    (['--lr_final=0.5'], ['`lr_final=0.5', '`lr_schedule=constant']),
    (['--lr_g=1e-40'], ['`lr_g=1e-40`', 'float32']),
    (['--label_smoothing=1'], ['`label_smoothing=1.0`', 'less than 1']),
    ([f'--seed={2**31}'], ['`seed=2147483648`', '2147483647 or less']),
    (['--regularizer=r3'], ['`regularizer=r3`: r3: ', 'r1']),
    (['--regularizer=r1:0'], ["the weight '0' of r1", 'positive']),
    (['--regularizer=r1:x'], ["the weight 'x' of r1", 'positive']),
    (['--regularizer=r1,r1:2'], ['name r1 once']),
    (['--norm_d=btch'], ['`norm_d=btch', 'batch']),
    (['--flagfile=/no/such/file'], ['/no/such/file']),
    (['minimax'], ['minimax', '--name=value']),
  ],
)
def test_bad_values_are_named_with_their_remedy(words, parts):
  with pytest.raises(ConfigError) as caught:
    config_lib.from_args(words)
  for part in parts:
    assert part in str(caught.value)


def test_all_problems_are_reported_together():
  with pytest.raises(ConfigError) as caught:
    config_lib.from_args(['--d_steps=0', '--lr_g=0'])
  lines = str(caught.value).splitlines()
  assert lines == ['`d_steps=0`: use 1 or more', '`lr_g=0.0`: use more than 0']
  fault = caught.value  # the first of them
  assert (fault.argument, fault.value) == ('d_steps', 0)


def test_bounds_themselves_are_accepted():
  words = ['--lr_warmup=8', '--steps=9', f'--seed={2**31 - 1}']
  assert config_lib.from_args(words).seed == 2**31 - 1


BILLIONS = 2**31 - 1
# name -> (what is too low, the least, the most, what is too high); None: of
# numbers as large as they come.
BOUNDS = {
  **dict.fromkeys(
    ('regularizer_every', 'steps', 'log_every', 'sample_every')
    + ('checkpoint_every', 'keep_checkpoints'),
    (0, 1, BILLIONS, BILLIONS + 1),
  ),
  **dict.fromkeys(
    ('lr_warmup', 'dynamics_every', 'eval_every', 'seed'),
    (-1, 0, BILLIONS, BILLIONS + 1),
  ),
  **dict.fromkeys(('d_steps', 'g_steps'), (0, 1, 10**6, 10**6 + 1)),
  **dict.fromkeys(('unroll_steps', 'eval_seeds'), (0, 1, 10**4, 10**4 + 1)),
  **dict.fromkeys(
    ('width', 'latent_dim', 'devices'), (-1, 0, 2**20, 2**20 + 1)
  ),
  'packing': (0, 1, 2**20, 2**20 + 1),
  'depth': (-1, 0, 1000, 1001),
  'save_deadline': (-1, 0, 86_400, 86_401),
  'image_size': (-1, 0, 2**13, 2**13 + 1),
  'channels': (-1, 0, 4, 5),
  'num_samples': (0, 1, 2**16, 2**16 + 1),
  'eval_samples': (0, 1, 10**7, 10**7 + 1),
  **dict.fromkeys(('accumulate', 'batch_size'), (0, 1, 2**24, 2**24 + 1)),
  **dict.fromkeys(
    ('label_smoothing', 'beta1_g', 'beta1_d', 'beta1_final_g')
    + ('beta1_final_d', 'beta2_g', 'beta2_d'),
    (-0.1, 0.0, 0.9999, 1.0),
  ),
  **dict.fromkeys(('lr_g', 'lr_d', 'max_megapixels'), (0.0, 1e-37, 3e38, 1e39)),
  **dict.fromkeys(
    ('consensus', 'instance_noise', 'instance_noise_kimg', 'clip_g', 'clip_d')
    + ('ema_halflife_kimg',),
    (-1e-37, 0.0, 3e38, 1e39),
  ),
  **dict.fromkeys(
    ('label_real', 'label_fake', 'label_target'), (-1e39, -3e38, 3e38, 1e39)
  ),
  'lr_final': (-0.1, 0.0, 1.0, 1.1),
}


def test_who_has_no_home_needs_no_flag_for_it(monkeypatch):
  """`docker --user`: nobody knows the number, and HOME is not set."""

  def getpwuid(number):
    raise KeyError(number)

  monkeypatch.delenv('HOME', raising=False)
  monkeypatch.setattr(pwd, 'getpwuid', getpwuid)
  assert os.path.expanduser('~/x') == '~/x'
  assert Config().compilation_cache.startswith('~/')
  Config().validate()


def test_bounds_of_numbers_are_those_that_they_should_be():
  numbers = {n for n, f in FIELDS.items() if type(f.default) in (int, float)}
  assert numbers == BOUNDS.keys()
  for name, (low, least, most, high) in BOUNDS.items():
    for value, taken in ((low, 0), (least, 1), (most, 1), (high, 0)):
      faults = validate.problems(FIELDS[name], value, ())
      assert len(faults) == 1 - taken, (name, value)
  # What rounds to a bound is beyond it, and what rounds to 0 is no number.
  for name, value in (('beta2_g', 1 - 1e-9), ('lr_g', 1e-39)):
    assert validate.problems(FIELDS[name], value, ())


def test_a_folder_that_was_moved_is_where_it_is(tmp_path):
  (tmp_path / 'new').mkdir()
  text = config_lib.format_flagfile(Config(workdir=str(tmp_path / 'old')))
  (tmp_path / 'new' / 'config.flags').write_text(text)
  moved = config_lib.read_config(tmp_path / 'new')
  assert moved.workdir == str(tmp_path / 'new')
  (tmp_path / 'new' / 'config.flags').write_text(text.replace('64', '65'))
  with pytest.raises(config_lib.DamagedConfig, match='damaged, or edited'):
    config_lib.read_config(tmp_path / 'new')


def test_every_field_is_documented_and_has_a_valid_default():
  assert Config().validate() == Config()
  for name, field in FIELDS.items():
    text = field.metadata['help']
    assert text[0].isupper() and text.endswith('.'), name
    assert field.metadata['group'], name


def test_what_may_change_when_a_run_is_continued():
  """Places, cadences and devices; nothing that the result depends on."""
  free = {name for name, field in FIELDS.items() if field.metadata['free']}
  assert free == {
    *('workdir', 'data_dir', 'compilation_cache', 'weights', 'max_megapixels'),
    *('log_every', 'sample_every', 'dynamics_every', 'checkpoint_every'),
    *('eval_every', 'eval_samples', 'eval_seeds', 'metrics', 'features'),
    *('num_samples', 'keep_checkpoints', 'keep_best', 'report'),
    *('residence', 'devices', 'multihost', 'keep_rows', 'deterministic'),
    *('save_deadline', 'profile'),
  }


def test_difference_ignores_what_does_not_change_the_result():
  base = Config(workdir='a', steps=10)
  assert config_lib.difference(base, base) == []
  free = dataclasses.replace(base, workdir='b', log_every=7, devices=2)
  assert config_lib.difference(base, free) == []
  for was, now in (
    ({'dataset': 'folder:x'}, {'dataset': 'folder:/data/x/'}),
    ({'dataset': 'density:p.txt'}, {'dataset': 'density:./p.txt'}),
    ({'dataset': 'mnist'}, {'dataset': 'mnist[train]'}),
    ({'image_size': 0}, {'image_size': 32}),
    ({'channels': 3}, {'channels': 0}),
  ):  # of which the content decides
    assert config_lib.difference(Config(**was), Config(**now)) == []
  for was, now in (
    ({'dataset': 'mnist'}, {'dataset': 'folder:mnist'}),
    ({'dataset': 'mnist'}, {'dataset': 'digits'}),
    ({'image_size': 16}, {'image_size': 32}),
  ):
    assert len(config_lib.difference(Config(**was), Config(**now))) == 1
  other = dataclasses.replace(base, lr_g=0.5, objective='minimax')
  lines = config_lib.difference(base, other)
  assert len(lines) == 2
  assert any('lr_g' in line and '0.5' in line for line in lines)


def test_steps_may_grow_only_when_nothing_depends_on_them():
  short = Config(steps=10)
  assert config_lib.difference(short, Config(steps=20)) == []
  assert config_lib.difference(Config(steps=20), short)
  for changes in (
    dict(lr_schedule='linear', lr_final=0.1),
    dict(beta1_final_g=0.9),
    dict(beta1_final_d=0.9),
  ):
    moving = dataclasses.replace(short, **changes)
    longer = dataclasses.replace(moving, steps=20)
    assert config_lib.difference(moving, longer)


def test_every_registry_that_a_flag_names_exists():
  """Its names are read off the source, and are those of the imported dict."""
  for name, field in FIELDS.items():
    for module, registry_name in [
      *([field.metadata['registry']] if field.metadata['registry'] else []),
      *field.metadata['words'],
    ]:
      entries = getattr(importlib.import_module(module), registry_name)
      source = registry._keys(module, registry_name)
      assert [*source] == [*entries], name


def test_a_value_may_be_a_reference_to_an_object():
  words = ['--objective=mypkg.losses:Soft', '--steps=3']
  assert config_lib.from_args(words).objective == 'mypkg.losses:Soft'
  terms = validate.penalties('my.terms:Soft:0.5,r1@real:2,my.terms:Hard')
  assert [(p.name, p.place, p.weight) for p in terms] == [
    ('my.terms:Soft', '', 0.5),
    ('r1', 'real', 2.0),
    ('my.terms:Hard', '', None),
  ]


def test_names_of_plugins_and_of_added_entries(tmp_path):
  """An installed package's entry points, and a dict that has grown."""
  info = tmp_path / 'plug-1.dist-info'
  info.mkdir()
  (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: plug\n')
  (info / 'entry_points.txt').write_text(
    '[gan_jax.plugins]\nthings.far = plug:FAR\nthings.gone = plug:NO\n'
  )
  (tmp_path / 'plug').mkdir()
  source = 'FAR = "far"\nTHINGS = {"near": 1}\n'
  (tmp_path / 'plug' / '__init__.py').write_text(source)
  code = """if True:
    import sys
    from gan_jax.config import registry
    place = ('plug', 'THINGS')
    print(*registry.names(*place), 'plug' in sys.modules)
    print(*(registry.load(*place, n) for n in ('near', 'far', 'plug:FAR')))
    sys.modules['plug'].THINGS['added'] = 2
    print(*registry.names(*place))
    for name in ('gone', 'plug:NO', 'nowhere:X', 'nothing'):
      try:
        registry.load(*place, name)
      except LookupError as error:
        print(error)
  """
  done = subprocess.run(
    [sys.executable, '-c', code],
    env=os.environ | {'PYTHONPATH': f'{ROOT}{os.pathsep}{tmp_path}'},
    capture_output=True,
    text=True,
    check=True,
  )
  lines = done.stdout.splitlines()
  assert lines[:3] == [
    'near far gone False',
    '1 far far',
    'near added far gone',
  ]
  faults = ('gone', 'plug:NO', 'nowhere:X', 'nothing')
  assert all(x.startswith(f'{f}: ') for x, f in zip(lines[3:], faults))
  assert len(lines) == 3 + len(faults)


def test_registry_says_what_it_did_not_find():
  with pytest.raises(LookupError, match='NOTHING'):
    registry.names('gan_jax.game.objectives', 'NOTHING')
  with pytest.raises(LookupError, match=r'gan_jax\.nowhere'):
    registry.names('gan_jax.nowhere', 'X')


def test_a_configuration_is_read_without_jax():
  code = (
    'import sys, json; from gan_jax.config import schema;'
    'schema.from_args(["--objective=minimax"]);'
    'print(json.dumps(sorted({"jax", "numpy", "flax"} & set(sys.modules))))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
  'dataset, network',
  [
    ('ring', 'mlp'),
    ('gaussian_1d', 'mlp'),
    ('density:some/file.txt', 'mlp'),
    ('digits', 'dcgan'),
    ('mnist[:50000]', 'dcgan'),
    ('folder:some/ring', 'dcgan'),
  ],
)
def test_the_network_suits_the_data_unless_one_is_named(dataset, network):
  """Once, before anything is written: a run's flags name it."""
  config = config_lib.from_args([f'--dataset={dataset}'])
  assert config.network == network
  assert f'--network={network}' in config_lib.to_args(config)
  assert Config(dataset=dataset) == config
  named = config_lib.from_args([f'--dataset={dataset}', '--network=pacgan'])
  assert named.network == 'pacgan'


def test_spaces_between_metrics_are_no_part_of_them():
  words = ['--metrics=kid, fid', '--keep_best=fid', '--eval_every=5']
  assert config_lib.from_args(words).keep_best == 'fid'


def test_what_is_compiled_is_told_apart_and_what_is_traced_is_not():
  """Places of penalties are compiled in, their weights are not."""

  def static(**changes):
    return config_lib.static(Config(dataset='ring', **changes))

  assert static(regularizer='r1:1') == static(regularizer='r1:2')
  real, fake = (static(regularizer=f'wgan_gp@{x}') for x in ('real', 'fake'))
  assert real != fake != static(regularizer='wgan_gp')
  assert static(lr_g=1.0, seed=3, workdir='a') == static()
  for name in ('clip_g', 'ema_halflife_kimg', 'instance_noise'):
    one, two, none = (static(**{name: x}) for x in (1.0, 2.0, 0.0))
    assert one == two != none


def test_an_entry_comes_before_a_plugin_of_its_name(monkeypatch):
  """And plug-ins are of their registry alone."""

  class Entry:
    def load(self):
      return 'of a plug-in'

  entries = ('objectives.hinge', 'objectives.own', 'schedules.other')
  monkeypatch.setattr(
    registry, '_plugins', lambda: dict.fromkeys(entries, Entry())
  )
  place = ('gan_jax.game.objectives', 'OBJECTIVES')
  names = registry.names(*place)
  assert names.count('hinge') == 1 and names[-1] == 'own'
  assert not [name for name in names if 'other' in name]
  assert registry.load(*place, 'own') == 'of a plug-in'
  assert registry.load(*place, 'hinge').__name__ == 'Hinge'
