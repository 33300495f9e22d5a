"""The command `gan_jax.ablate`: errors without JAX, kills and signals."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from helpers import commands, compiling

from gan_jax.ablation import runner
from gan_jax.config import app

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module', autouse=True)
def _programs_kept(tmp_path_factory):
  PLACE['xla'] = str(tmp_path_factory.mktemp('xla'))


PLACE = {}


def command(path, *words):
  return [
    sys.executable,
    '-m',
    'gan_jax.ablate',
    f'--workdir={path}',
    '--dataset=ring',
    '--network=mlp',
    '--width=16',
    '--batch_size=16',
    '--steps=1500',
    '--log_every=100',
    '--checkpoint_every=100',
    '--eval_samples=500',
    '--metrics=modes',
    '--noreport',
    '--vary=objective=minimax,hinge',
    '--vary=lr_g+lr_d=1e-3,1e-2',
    '--seeds=3',
    f'--compilation_cache={PLACE["xla"]}',
    *words,
  ]


ENVIRONMENT = os.environ | {'XLA_FLAGS': compiling.of_a_process()}


REFUSED = (
  ('--vary=lrd=1', 'there is no option `lrd`; did you mean lr_d'),
  ('--vary=lr_d=-1', '--vary=lr_d=-1: --lr_d=-1.0: use more than 0'),
  ('--seeds=0', '--seeds=0: use 1 or more'),
  ('--objective=hinge,minimax', 'use --vary=objective=hinge,minimax'),
  ('--seeds=two', '--seeds=two: use a whole number'),
  ('--vary=nonsense', "--vary=nonsense: there is no '='; write --vary=NAME="),
  ('--metrics=mods', '--metrics=mods: mods: did you mean modes?'),
  ('--features=clasifier', '--features=clasifier: did you mean classifier?'),
  ('--published=/no.json', '--published=/no.json: cannot be read'),
  ('--layout=fast', '--layout=fast: use auto, vmap or map'),
  ('--better=more', '--better=more: use lower or higher'),
  ('--only=0/2', '--only=0/2: write K/N with K from 1 to N'),
)


def test_the_command_refuses_without_jax():
  """All in one process, which must not have imported JAX in the end."""
  calls = [command('/nowhere/a', word)[3:] for word, _ in REFUSED]
  script = f"""
import sys
sys.path.insert(0, {str(ROOT / 'tests')!r})
from helpers import commands
for words in {calls!r}:
  done = commands.run('ablate', *words)
  print(done.returncode, done.stderr.replace(chr(10), ' '))
print('jax' in sys.modules)
"""
  done = subprocess.run(
    [sys.executable, '-c', script],
    env=ENVIRONMENT,
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert done.returncode == 0, done.stderr[-500:]
  *lines, jax = done.stdout.splitlines()
  assert jax == 'False' and len(lines) == len(REFUSED)
  for line, (_, said) in zip(lines, REFUSED):
    assert line.startswith('2 error: ') and said in line


def test_a_dataset_that_is_varied_brings_its_network(capsys, monkeypatch):
  """And the whole of the command's options reaches the engine."""
  seen = []
  monkeypatch.setattr(
    runner,
    'ablate',
    lambda plan, dry_run, prepare: seen.append((plan, dry_run)) or 0,
  )
  done = commands.run(
    'ablate',
    '--workdir=/nowhere/a',
    '--dataset=ring',
    '--metrics=swd',
    '--vary=dataset=ring,digits',
    '--vary=lr_g=uniform(1e-4,1e-3,1)',
    '--seeds=3',
    '--seed=2',
    '--search_seed=4',
    '--layout=map',
    '--primary=swd',
    '--better=lower',
    '--only=2/2',
    '--compilation_cache=off',
    '--dry_run',
  )
  assert done.returncode == 0, done.stderr
  ((plan, dry_run),) = seen
  assert dry_run and plan.chosen_programs() == [1]
  assert [spec.config.network for spec in plan.specs] == ['mlp', 'dcgan']
  assert [m.seed for m in plan.programs[0]] == [2, 3, 4]
  asked = plan.options
  assert (asked.search_seed, asked.layout) == (4, 'map')
  assert (asked.primary, asked.better) == ('swd', 'lower')


@pytest.fixture
def engine(monkeypatch):
  """What is called in the place of all that trains, in its order."""
  called = []

  def note(name):
    return lambda *args, **how: called.append(name) or 0

  monkeypatch.setattr(runner, 'ablate', note('ablate'))
  monkeypatch.setattr(runner, 'collect', note('collect'))
  monkeypatch.setattr(app, 'use_all_cores', note('cores'))
  return called


@pytest.mark.parametrize(
  ('words', 'calls'), [((), ['cores', 'ablate']), (('--collect',), ['collect'])]
)
def test_collecting_trains_nothing(words, calls, engine, tmp_path):
  words = ('--dataset=ring', '--compilation_cache=off', *words)
  done = commands.run('ablate', f'--workdir={tmp_path / "a"}', *words)
  assert done.returncode == 0, done.stderr
  assert engine == calls


def test_a_folder_of_something_else_is_refused_at_once(engine, tmp_path):
  (tmp_path / 'thesis.tex').touch()
  done = commands.run('ablate', f'--workdir={tmp_path}', '--dataset=ring')
  assert done.returncode == app.REFUSED and not engine
  assert 'is not empty and holds no ablation' in done.stderr


def test_all_cores_are_devices_unless_the_user_said_how_many(monkeypatch):
  flag = '--xla_force_host_platform_device_count'
  monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 3, 5})
  for before, after in (
    ('--xla_a=1', f'--xla_a=1 {flag}=3'),
    (f'{flag}=2', f'{flag}=2'),
  ):
    monkeypatch.setenv('XLA_FLAGS', before)
    app.use_all_cores()
    assert os.environ['XLA_FLAGS'] == after


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
  """SIGKILL, six times over the whole of it; then the same table."""
  calm, harried = tmp_path / 'calm', tmp_path / 'harried'

  def run(path, **how):
    return subprocess.run(
      command(path), env=ENVIRONMENT, capture_output=True, cwd=ROOT, **how
    )

  run(tmp_path / 'warm')  # compiles
  started = time.monotonic()
  assert run(calm).returncode == app.DONE
  takes = time.monotonic() - started
  rng, killed = random.Random(0), 0
  for i in range(6):
    process = subprocess.Popen(
      command(harried),
      env=ENVIRONMENT,
      cwd=ROOT,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    time.sleep(takes * (i + rng.random()) / 6)
    process.kill()
    killed += process.wait() == -signal.SIGKILL
  assert killed >= 3
  assert run(harried).returncode == app.DONE
  assert (harried / 'results.csv').read_bytes() == (
    calm / 'results.csv'
  ).read_bytes()


@pytest.mark.slow
def test_a_signal_saves_and_says_run_me_again(tmp_path):
  words = command(tmp_path / 'a', '--steps=100000000')
  process = subprocess.Popen(
    words, env=ENVIRONMENT, cwd=ROOT, stderr=subprocess.PIPE, text=True
  )
  assert process.stderr is not None
  for line in process.stderr:
    if line.startswith('about '):
      break
  time.sleep(1)
  process.send_signal(signal.SIGTERM)
  _, said = process.communicate(timeout=60)
  assert process.returncode == app.SAVED
  assert 'run the same command again' in said
  assert list((tmp_path / 'a/programs/000/checkpoints').glob('0*'))
