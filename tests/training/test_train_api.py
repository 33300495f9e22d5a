"""`gj.train` and `gj.open`: own data, trainers, identity, what is said."""

import contextlib
import logging
import os
import shutil
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import commands
from helpers.pictures import save
from helpers.small import signal_when
from helpers.untyped import unchecked

import gan_jax as gj
from gan_jax.data import samples
from gan_jax.runtime import numerics
from gan_jax.runtime.errors import ArgumentError, IdentityError
from gan_jax.training import identity, report
from gan_jax.training import workdir as workdir_lib

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), np.uint8)
POINTS = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
OFTEN = dict(log_every=4, checkpoint_every=4, sample_every=100)


@pytest.fixture
def train(programs):
  """Trains small networks, or a trainer, for a few steps."""

  def train(workdir, **options):
    small = dict(steps=12, batch_size=8, devices=1, compilation_cache=programs)
    if 'trainer' not in options:
      small |= dict(network='mlp', width=8, depth=1)
    return gj.train(workdir, **(OFTEN | small | options))

  return train


def assert_same(a, b):
  """Bit for bit."""
  assert a.step == b.step and a.state.keys() == b.state.keys()
  for path, x in a.state.items():
    np.testing.assert_array_equal(x, b.state[path], path)


# Networks and trainers of one's own, as plain functions.


def kernel(key, *shape):
  return 0.3 * jax.random.normal(key, shape)


def networks(shift=0.0, latent_dim=3, classes=0):
  """Of points, linear; the shift is an array that nothing names."""
  shift = np.full((1, 2), shift, np.float32)

  def g(params, z, label=None):
    y = z @ params['w'] + shift
    return y if label is None else y + label[:, None]

  def d(params, x, label=None):
    return (jnp.tanh(x) @ params['w'])[:, 0]

  return gj.networks.from_functions(
    (lambda key: {'w': kernel(key, latent_dim, 2)}, g),
    (lambda key: {'w': kernel(key, 2, 1)}, d),
    latent_dim=latent_dim,
    sample_shape=(2,),
    classes=classes,
  )


class Soft(gj.Objective):
  """The hinge, softened."""

  temperature: float = 1.0

  def d_loss(self, real, fake):
    t = self.temperature
    low = jnp.mean(jax.nn.softplus((1 + fake) / t))
    return jnp.mean(jax.nn.softplus((1 - real) / t)) + low

  def g_loss(self, real, fake):
    return -jnp.mean(fake)


def trainer(objective=Soft, rate=1e-2, nets=None, **options):
  game = gj.Game(nets or networks(**options), objective)
  return gj.Trainer(game, optax.adam(rate), optax.adam(1e-2))


@pytest.fixture(scope='module')
def own(programs, tmp_path_factory):
  """A finished run of a trainer of one's own."""
  path = tmp_path_factory.mktemp('own') / 'run'
  options = dict(OFTEN, steps=12, batch_size=8, compilation_cache=programs)
  return gj.train(path, data=POINTS, trainer=trainer(), devices=1, **options)


@pytest.fixture
def copied(own, tmp_path):
  """A copy of its folder."""
  return shutil.copytree(own.workdir, tmp_path / 'copy')


# What it is trained on.


class Source:
  """Records of images and labels."""

  fingerprint = 'mine, version 1'
  classes = 3

  def __len__(self):
    return len(IMAGES)

  def __getitem__(self, i):
    return IMAGES[i], i % 3


def grain_dataset():
  import grain

  return grain.MapDataset.source(IMAGES).map(lambda x: x)


@pytest.mark.parametrize(
  ('data', 'facts'),
  [
    (lambda: IMAGES, dict(size=40, shape=[4, 4, 1], classes=[])),
    (Source, dict(classes=['0', '1', '2'], fingerprint='mine, version 1')),
    (grain_dataset, dict(size=40, shape=[4, 4, 1])),
  ],
)
def test_data_from_python(data, facts, train, tmp_path):
  run = train(tmp_path, data=data(), steps=2)
  assert (run.outcome, run.step) == ('done', 2)
  assert facts.items() <= run.facts['dataset'].items()
  opened = gj.open(tmp_path)
  assert_same(run, opened)
  shape = tuple(run.facts['dataset']['shape'])
  assert opened.sample(3).shape == (3, *shape)
  np.testing.assert_array_equal(run.sample(3, seed=5), opened.sample(3, seed=5))


def test_points_with_labels(train, tmp_path):
  labels = np.arange(40) % 2  # none of the third class
  nets = networks(classes=3)
  run = train(tmp_path, data=(POINTS, labels), trainer=trainer(nets=nets))
  opened = gj.open(tmp_path)
  assert run.classes == opened.classes == 3
  for drawn in (run, opened):  # by the networks, and by the exported G
    one = drawn.sample(6, label=2)
    np.testing.assert_array_equal(one, drawn.sample(6, label=[2] * 6))
    turn = drawn.sample(6, class_sampling='uniform')
    np.testing.assert_array_equal(one[2::3], turn[2::3])
    assert drawn.class_counts() == (20, 20, 0)  # the data's, by default
    asked = drawn.labels(100)
    assert abs(np.bincount(asked, minlength=3) - [50, 50, 0]).max() <= 2
    each = drawn.sample(100, label=asked)
    np.testing.assert_array_equal(drawn.sample(100), each)
    np.testing.assert_allclose(one - drawn.sample(6, label=0), 2, rtol=1e-5)
    np.testing.assert_array_equal(one, run.sample(6, label=2))


def test_a_density_as_an_object(train, tmp_path, ring_run):
  """What the command makes of its name."""
  ring = gj.data.load('ring')
  run = train(tmp_path, data=ring, steps=14)
  assert_same(run, gj.open(ring_run.workdir, step=14))


# Continued, stopped, diverged.


def test_interrupted_and_continued_bit_for_bit(own, train, tmp_path):
  """More steps, then Ctrl-C, then to the end: the state of one that ran on."""
  how = dict(data=POINTS, trainer=trainer())
  assert train(tmp_path, steps=3, **how).outcome == 'done'
  with signal_when('step 8/12', signal.SIGINT):
    run = train(tmp_path, **how)
  assert (run.outcome, run.step) == ('saved', 8)
  assert_same(run, gj.open(tmp_path))
  run = train(tmp_path, **how)
  assert run.outcome == gj.open(tmp_path).outcome == 'done'
  assert_same(run, own)
  assert [row['step'] for row in run.logs()] == [3, 4, 8, 12]
  losses = [row['d/loss'] for row in own.logs()]
  np.testing.assert_allclose(losses[1:], [r['d/loss'] for r in run.logs()][2:])


def test_a_run_that_is_stopped_at_once_is_returned(train, tmp_path):
  with signal_when('devices: '):
    run = train(tmp_path, data=POINTS, trainer=trainer())
  assert (run.outcome, run.step) == ('saved', 0)
  assert run.sample(2).shape == (2, 2)


def test_signals_are_left_to_the_main_thread(own, train, tmp_path):
  """A run in another thread goes on, and the handler is the main thread's."""
  received, runs = [], []
  before = signal.signal(signal.SIGTERM, lambda *args: received.append(1))
  how = dict(data=POINTS, trainer=trainer())
  thread = threading.Thread(target=lambda: runs.append(train(tmp_path, **how)))
  try:
    with signal_when('step 4/12'):
      thread.start()
      thread.join()
  finally:
    signal.signal(signal.SIGTERM, before)
  assert received == [1]
  assert_same(runs[0], own)


def test_a_run_that_diverges_is_returned(train, tmp_path, capsys):
  run = train(tmp_path, data=POINTS, trainer=trainer(rate=1e38))
  assert run.outcome == 'diverged' and 1 < run.step < 12
  assert 'g/loss' in run.facts['not_finite']
  assert not np.isfinite(run.state['g/params/w']).all()
  said = capsys.readouterr().err
  assert f'diverged at step {run.step}: ' in said
  assert 'Lower the rates of the `trainer`, or clip its gradients' in said


def test_a_generator_that_begins_with_nan_is_named(train, tmp_path, capsys):
  run = train(tmp_path, data=POINTS, trainer=trainer(shift=np.nan))
  assert (run.outcome, run.step) == ('diverged', 1)
  said = capsys.readouterr().err
  logs = ', '.join(run.facts['not_finite'])
  assert f'diverged at step 1: {logs} not finite; no checkpoint' in said
  assert 'd/loss' in logs and 'g/loss' in logs
  assert '`trainer`: G returns NaN or infinity from its initial' in said


# Identity.


def difference(train, folder, **options):
  """What is said of another run; nothing is written."""
  before = {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}
  with pytest.raises(IdentityError) as caught:
    train(folder, **(dict(data=POINTS, trainer=trainer()) | options))
  after = {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}
  assert before == after
  return str(caught.value)


def hot():
  return trainer(Soft(temperature=2.0))


def wide():
  return trainer(latent_dim=4)


def other_loss():
  losses = Soft(1.0)
  return trainer(
    gj.objectives.from_losses(losses.d_loss, losses.g_loss, name='soft')
  )


@pytest.mark.parametrize(
  ('make', 'line'),
  [
    (hot, 'objective.temperature: 1.0 there, 2.0 now'),
    (wide, 'latent_dim: 3 there, 4 now'),
    (lambda: trainer(rate=2e-2), 'program: the step is another one'),
    (lambda: trainer(shift=1.0), 'program: the step is another one'),
  ],
)
def test_another_trainer_is_refused(make, line, copied, train):
  assert f'\n  {line}' in difference(train, copied, trainer=make())


SETTINGS = {
  'jax_enable_x64': (True, 'False there, True now (unset JAX_ENABLE_X64)'),
  'jax_default_matmul_precision': (
    'bfloat16',
    'None there, bfloat16 now (unset JAX_DEFAULT_MATMUL_PRECISION)',
  ),
  'jax_default_prng_impl': (
    'rbg',
    'threefry2x32 there, rbg now (unset JAX_DEFAULT_PRNG_IMPL)',
  ),
  'jax_threefry_partitionable': (
    False,
    'True there, False now (unset JAX_THREEFRY_PARTITIONABLE)',
  ),
  'jax_random_seed_offset': (
    1,
    '0 there, 1 now (unset JAX_RANDOM_SEED_OFFSET)',
  ),
}


@contextlib.contextmanager
def setting(name, value):
  before = getattr(jax.config, name)
  jax.config.update(name, value)
  try:
    yield
  finally:
    jax.config.update(name, before)


@pytest.mark.parametrize('name', SETTINGS)
def test_other_settings_of_jax_are_refused(name, copied, train):
  value, line = SETTINGS[name]
  with setting(name, value):
    assert f'\n  {name}: {line}\n' in difference(train, copied)


def test_the_settings_of_jax_are_recorded_with_a_run(own):
  recorded = own.facts['identity']['numerics']
  assert recorded == {name: getattr(jax.config, name) for name in SETTINGS}
  saved = recorded | {'jax_enable_x64': True}
  remedy = 'True there, False now (set JAX_ENABLE_X64=True)'
  assert numerics.differences(saved) == [f'jax_enable_x64: {remedy}']
  assert numerics.differences({}) == numerics.differences(recorded) == []


def test_each_difference_has_a_line(copied, train):
  message = difference(
    train, copied, trainer=trainer(gj.objectives.hinge), data=POINTS[:39]
  )
  assert '\n  objective: soft there, hinge now\n' in message
  assert '\n  objective.temperature: 1.0 there, nothing now\n' in message
  assert '\n  data: ' in message
  message = difference(train, copied, batch_size=4, seed=3)
  assert '\n  `batch_size`: 8 there, 4 now\n  `seed`: 0 there, 3 now' in message


def test_the_same_again_is_the_same(copied, train):
  """Other objects, which say and compute the same."""
  run = train(copied, data=POINTS.copy(), trainer=trainer(), log_every=3)
  assert run.outcome == 'done'


def test_data_is_known_by_its_content_not_its_spelling(
  train, tmp_path, monkeypatch, capsys
):
  """Another spelling, a moved folder, the size that it has anyway."""
  for i in range(16):
    save(tmp_path / 'set' / f'{i}.png', IMAGES[i, ..., 0])
  monkeypatch.chdir(tmp_path)
  workdir, how = tmp_path / 'run', dict(steps=1, batch_size=8)
  first = train(workdir, data='folder:set', **how)
  said = capsys.readouterr().err
  assert 'data: folder:set, 16 images of 4x4x1\n  files: 16 .png;' in said
  (tmp_path / 'set').rename(tmp_path / 'moved')
  again = f'folder:{tmp_path}/./moved/'
  other = dict(image_size=4, channels=1)
  assert_same(train(workdir, data=again, **how, **other), first)
  assert gj.open(workdir).config.dataset == again
  gj.data.write_rows(again, 'rows')
  assert_same(train(workdir, data='prepared:rows', **how), first)
  save(tmp_path / 'moved' / '3.png', IMAGES[20, ..., 0])
  with pytest.raises(IdentityError, match='data: folder:set .* there, folder:'):
    train(workdir, data=again, **how)
  gj.data.write_rows(again, 'others')
  with pytest.raises(IdentityError, match='data: folder:set .* there, prep'):
    train(workdir, data='prepared:others', **how)


def test_copied_files_of_a_large_set_are_warned_of(tmp_path, monkeypatch):
  monkeypatch.setattr(samples, '_HASHED_BYTES', 0)
  save(tmp_path / 'a.png', IMAGES[0, ..., 0])
  was = samples.hash_files([tmp_path / 'a.png'])
  os.utime(tmp_path / 'a.png', (1, 1))
  now = samples.hash_files([tmp_path / 'a.png'])
  said = workdir_lib.check_data('run', was, now)  # which the loop warns of
  assert said.startswith('run: the files of its data have other times than')
  assert workdir_lib.check_data('run', was, was) == ''
  rest = {'declared': {}, 'versions': {}}
  assert identity.check('run', {'data': was} | rest, {'data': now} | rest) == ''
  save(tmp_path / 'a.png', IMAGES[1, ..., 0])
  other = samples.hash_files([tmp_path / 'a.png'])
  with pytest.raises(IdentityError, match='run: its data was another'):
    workdir_lib.check_data('run', was, other)
  with pytest.raises(IdentityError, match=r'\n  data: '):
    identity.check('run', {'data': was} | rest, {'data': other} | rest)


def test_an_identity_that_the_user_vouches_for(copied, train, tmp_path):
  message = difference(train, copied, identity='v3')
  assert "\n  identity: '' there, 'v3' now" in message
  how = dict(data=POINTS, identity='v3', steps=1)
  train(tmp_path / 'vouched', trainer=trainer(), **how)
  # Taken for the same, whatever it computes.
  run = train(tmp_path / 'vouched', trainer=trainer(rate=2e-2), **how)
  assert run.facts['identity']['given'] == 'v3'
  message = difference(train, tmp_path / 'vouched', identity='v4', steps=1)
  assert "\n  identity: 'v3' there, 'v4' now" in message


# Opened.


def test_a_sample_is_a_function_of_the_seed_and_its_number(own):
  many = own.sample(300, seed=7)
  np.testing.assert_array_equal(many[:5], own.sample(5, seed=7))
  assert len(np.unique(many, axis=0)) == 300
  assert (many != own.sample(300, seed=8)).all()
  assert (many != own.sample(300, seed=7, ema=False)).any()
  with pytest.raises(ArgumentError, match='`n=0`: use 1 or more'):
    own.sample(0)


def test_the_command_draws_the_same_bits(own, tmp_path):
  out = tmp_path / 'samples.npz'
  done = commands.run('sample', f'--workdir={own.workdir}', f'--out={out}')
  assert done.returncode == 0, done.stderr
  drawn = np.load(out)['samples']
  np.testing.assert_array_equal(drawn, gj.open(own.workdir).sample(64))


def test_an_exported_generator_is_the_generator(own):
  """By `generator.jax`, and by the networks: the same bits."""
  exported = gj.open(own.workdir)
  assert exported.networks is None
  opened = gj.open(own.workdir, networks=networks())
  for options in (dict(seed=3), dict(seed=3, ema=False)):
    x = exported.sample(300, **options)
    np.testing.assert_array_equal(x, opened.sample(300, **options))


def test_what_only_networks_can_do_says_so(own, copied):
  with pytest.raises(gj.NetworksNeeded, match='hand them in with `networks='):
    gj.open(copied).generate(np.zeros((2, 3)))
  (copied / 'generator.jax').unlink()
  with pytest.raises(gj.NetworksNeeded, match='kept no generator.jax'):
    gj.open(copied).sample(2)
  x = gj.open(copied, networks=networks()).sample(2)
  np.testing.assert_array_equal(x, own.sample(2))
  with pytest.raises(
    ArgumentError, match=r'`networks=.*\(4, 2\)`: .* \(3, 2\)'
  ):
    gj.open(copied, networks=networks(latent_dim=4)).sample(2)


def test_a_damaged_run_json_leaves_the_checkpoint(own, copied):
  (copied / 'run.json').write_text('{')
  with pytest.raises(gj.NetworksNeeded, match='run.json'):
    gj.open(copied)
  opened = gj.open(copied, networks=networks())
  np.testing.assert_array_equal(opened.sample(2), own.sample(2))


def test_scores(own):
  """Against the data at hand, or that is handed in again."""
  scores = own.score(['swd_points'], samples=32)
  opened = gj.open(own.workdir)  # another program: G as it was exported
  again = opened.score('swd_points', data=POINTS, samples=32)
  assert again == pytest.approx(scores, rel=1e-6)
  with pytest.raises(ArgumentError, match='`data=None`: .*from Python'):
    opened.score(['swd_points'])


def test_outcomes_facts_and_logs(own):
  opened = gj.open(own.workdir)
  assert_same(own, opened)
  facts = dict(size=40, shape=[2], classes=[], bounded=False)
  assert facts.items() <= opened.facts['dataset'].items()
  assert own.outcome == opened.outcome == 'done'
  assert [row['step'] for row in opened.logs()] == [4, 8, 12]
  assert all(row['d/loss'] > 0 for row in own.logs())


def test_a_report_names_what_was_handed_in(own):
  page = report.render_report(own.workdir)
  assert '<h1>soft GAN on data</h1>' in page
  assert 'discriminator (own networks) played the soft game on data' in page
  assert 'objective.temperature' in page
  assert '<td class="name">residence</td>' in page
  for option in ('conditioning', 'lr_warmup'):  # nothing was made by these
    assert f'<td class="name">{option}</td>' not in page


# Refused, before a file is written.


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (
      dict(objctive='hinge'),
      '`objctive=hinge`: no such option; did you mean `objective`',
    ),
    (dict(objective='hinges'), '`objective=hinges`: did you mean hinge'),
    (
      dict(optimizer_g=optax.adam(1e-3), clip_g=1.0),
      '`clip_g=1.0`: has no effect beside `optimizer_g`, which was handed in'
      ' whole; give it to that object',
    ),
    (
      dict(trainer=trainer, clip_g=1.0),
      '`clip_g=1.0`: belongs to the trainer, which was handed in; give it to'
      ' that',
    ),
    (
      dict(batch_size=64),
      '`batch_size=64`: data has 40 samples; use as many or fewer',
    ),
    (
      dict(trainer=trainer, data=IMAGES),
      '`data=samples of shape (4, 4, 1)`: the networks have'
      ' `sample_shape=(2,)`; give samples of that shape, or other networks',
    ),
    (
      dict(trainer=trainer, data=(POINTS, np.zeros(40, int))),
      '`data=(x, labels)`: the networks have no classes; give x alone,'
      " networks with `classes=...`, or `conditioning='projection'`",
    ),
    (
      dict(trainer=lambda: trainer(classes=3)),
      '`data=data of 0 classes`: the networks have `classes=3`; give (x,'
      ' labels)',
    ),
    (dict(data=None), '`data=None`: give the data, or name a `dataset`'),
    (
      dict(dataset='ring'),
      '`dataset=ring`: `data` was handed in, too; leave one of them out',
    ),
    *[
      (
        {name: value},
        f'`{name}={value}`: `data` was handed in: convert it before, and leave'
        ' this out',
      )
      for name, value in [
        ('data_dir', 'x'),
        ('image_size', 8),
        ('channels', 3),
        ('max_megapixels', 7.0),
      ]
    ],
    (dict(trainer=lambda: 'hinge'), '`trainer=str`: give a `Trainer`'),
    (dict(steps='many'), '`steps=many`: use a whole number'),
  ],
)
def test_what_is_of_no_use_is_named(options, message, train, tmp_path):
  options = dict(data=POINTS) | options
  if 'trainer' in options:
    options['trainer'] = options['trainer']()
  with unchecked(), pytest.raises(ArgumentError) as caught:
    train(tmp_path / 'run', **options)
  assert str(caught.value).startswith(message)
  assert not (tmp_path / 'run').exists()


# Said.


def test_libraries_are_quiet_and_logging_is_as_it_was(
  own, copied, train, capfd, caplog
):
  logger = logging.getLogger('absl')
  before = logger.level, logger.filters[:], logger.handlers[:]
  train(copied, data=POINTS, trainer=trainer(), steps=13)
  gj.open(copied)
  assert (logger.level, logger.filters, logger.handlers) == before
  assert not caplog.records
  said = capfd.readouterr()
  assert 'WARNING' not in said.err and 'Orbax' not in said.err
  lines = said.err.splitlines()
  assert lines[:5] == [
    'data: data, 40 points in 2 dimensions',
    'networks: own networks, G of 6 and D of 2 parameters',
    'devices: 1 cpu',
    'continuing at step 12',
    lines[4],
  ]
  assert lines[4].startswith('compiled in ')


def test_a_run_that_goes_on_on_another_machine_warns(copied, capsys):
  facts = workdir_lib.RunFile(copied).facts
  assert facts['products'] == 'float32'
  other = facts['machine'] | {'processor': 'Z80'}
  workdir_lib.RunFile(copied).update(machine=other)
  options = dict(OFTEN, steps=12, batch_size=8)
  gj.train(copied, data=POINTS, trainer=trainer(), devices=1, **options)
  said = capsys.readouterr().err
  assert 'on another machine so far (processor: Z80 there' in said
