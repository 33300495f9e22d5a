"""Workdirs, data and ablations in S3 and GCS, served on this machine.

Killed, cut off and started again, all ends as on a local disk, bit for bit.
"""

import contextlib
import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from helpers import clouds, compiling

from gan_jax.runtime.checkpoint import Checkpoints
from gan_jax.training import remote

pytestmark = [
  pytest.mark.cloud,
  # Of s3fs and gcsfs, which leave their connections to the end of the process.
  pytest.mark.filterwarnings('ignore::ResourceWarning'),
  pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
]
ROOT = pathlib.Path(__file__).parents[1]
RUN = [
  '--dataset=ring',
  '--network=mlp',
  '--width=8',
  '--batch_size=16',
  '--steps=20000',
  '--log_every=1000',
  '--sample_every=10000',
  '--checkpoint_every=500',
  '--devices=1',
  '--noreport',
]
ABLATION = [
  *('--dataset=ring', '--network=mlp', '--width=8', '--depth=1'),
  *('--batch_size=8', '--steps=200', '--log_every=50', '--devices=1'),
  *('--checkpoint_every=20', '--eval_every=100', '--eval_samples=200'),
  *('--vary=objective=minimax,hinge', '--vary=lr_g+lr_d=1e-3,1e15'),
  *('--seeds=2', '--noreport'),
]


@pytest.fixture(scope='module', params=['s3', 'gs'])
def cloud(request, tmp_path_factory):
  """A store: scheme, port, environment of processes, folder for the rest."""
  scheme = request.param
  for name in clouds.NEEDS[scheme]:
    try:
      found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
      found = None
    if found is None:
      pytest.skip(f"{name} is not installed: pip install -e '.[dev]'")
  with clouds.server(scheme) as port:
    yield Cloud(scheme, port, tmp_path_factory.mktemp(scheme))


class Cloud:
  def __init__(self, scheme, port, folder):
    self.scheme, self.port, self.folder = scheme, port, folder
    self.environment = self.through(port)

  def url(self, name):
    return f'{self.scheme}://bucket/{name}'

  def through(self, port):
    own = clouds.environment(self.scheme, port)
    scratch = self.folder / 'scratch'
    scratch.mkdir(exist_ok=True)
    return dict(
      os.environ,
      **own,
      XLA_FLAGS=compiling.of_a_process(),
      TMPDIR=str(scratch),
      HOME=str(self.folder),
      JAX_PLATFORMS='cpu',
    )

  def command(self, name, workdir, words, cache=True):
    cache = f'--compilation_cache={self.folder / "xla" if cache else "off"}'
    python = [sys.executable, '-m', f'gan_jax.{name}']
    return [*python, f'--workdir={workdir}', *words, cache]

  def run(self, *command, code=0, **options):
    done = subprocess.run(
      ['timeout', '-k', '5', '240', *self.command(*command)],
      env=options.get('environment', self.environment),
      capture_output=True,
      text=True,
      cwd=self.folder,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done

  def kill(self, *command, when):
    """Starts a command, and kills it when the store holds something."""
    process = subprocess.Popen(
      self.command(*command),
      env=self.environment,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      cwd=self.folder,
    )
    deadline = time.monotonic() + 120
    while not any(when(name) for name in self.names(command[1])):
      assert process.poll() is None, process.communicate()[1].decode()
      assert time.monotonic() < deadline
      time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()

  def names(self, url):
    with self.here():
      from gan_jax.runtime.store import Store

      return [*Store(url).list()]

  @contextlib.contextmanager
  def here(self):
    """The store, for this process."""
    before = {n: os.environ.get(n) for n in self.environment}
    os.environ.update(clouds.environment(self.scheme, self.port))
    try:
      yield
    finally:
      for name, value in before.items():
        if value is None:
          os.environ.pop(name, None)
        else:
          os.environ[name] = value

  def state(self, workdir):
    """Every array of every checkpoint that is there, by its path."""
    with self.here(), contextlib.ExitStack() as stack:
      folder = remote.fetched(str(workdir), stack, 'all')
      checkpoints = Checkpoints(folder, read_only=True)
      stack.enter_context(contextlib.closing(checkpoints))
      steps = checkpoints.steps()
      assert steps
      return {
        (step, name): array.tobytes()
        for step in steps
        for name, array in checkpoints.read_flat(step).items()
      }

  def check(self, workdir, local):
    """Whether a run that was killed ended as the one on a local disk.

    A kill between the last save and the deletion of an older checkpoint leaves
    that one: the run that is started again has nothing to save.
    """
    there, here = self.state(workdir), self.state(local)
    oldest = min(step for step, _ in here)
    assert {k: v for k, v in there.items() if k[0] >= oldest} == here

  def text(self, workdir, name):
    with self.here(), contextlib.ExitStack() as stack:
      return (remote.fetched(str(workdir), stack) / name).read_text()

  def local(self):
    """The run on a local disk, undisturbed."""
    workdir = self.folder / 'local'
    if not workdir.exists():
      self.run('train', workdir, RUN)
    return workdir


def saved(step):
  """Whether a name is that of a checkpoint of a step, or of a later one."""

  def is_saved(name):
    match = re.search(r'checkpoints/(\d+)\.manifest\.json', name)
    return match is not None and int(match[1]) >= step

  return is_saved


def test_a_run_that_is_killed(cloud):
  url = cloud.url('runs/killed')
  for step in (1000, 8000):
    cloud.kill('train', url, RUN, when=saved(step))
  done = cloud.run('train', url, RUN)
  assert 'continuing at step' in done.stderr
  assert f'in {url}' in done.stdout
  cloud.check(url, cloud.local())
  assert not [n for n in cloud.names(url) if n.startswith('.lease')]
  done = cloud.run('train', url, [*RUN, '--width=16'], code=2)
  assert f'workdir={url}: holds a run of another configuration' in done.stderr


def test_an_ablation_that_is_killed_and_collected(cloud):
  local, url = cloud.folder / 'ablation', cloud.url('ablation')
  cloud.run('ablate', local, ABLATION)
  one, two = [*ABLATION, '--only=1/2'], [*ABLATION, '--only=2/2']
  cloud.kill('ablate', url, one, when=saved(100))
  # Both at once, as on two machines.
  other = threading.Thread(target=cloud.run, args=('ablate', url, two))
  other.start()
  cloud.run('ablate', url, one)
  other.join()
  cloud.run('ablate', url, [*ABLATION, '--collect'])
  for name in ('results.csv', 'scores.csv'):
    assert cloud.text(url, name) == (local / name).read_text()
  for program in ('000', '001'):
    there = cloud.url(f'ablation/programs/{program}')
    cloud.check(there, local / 'programs' / program)


def run_joined(cloud, name, workdir, words):
  """Two processes of one job; what they print."""
  command = [sys.executable, str(ROOT / 'launch' / 'local.py')]
  command += [f'--module=gan_jax.{name}', '--processes=2']
  command += [f'--workdir={workdir}', '--', '--compilation_cache=off', *words]
  done = subprocess.run(
    ['timeout', '-k', '5', '150', *command],
    env=cloud.environment,
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def test_an_ablation_of_two_joined_processes(cloud):
  """Each of which has its share in a folder of its own."""
  local, url = cloud.folder / 'joined', cloud.url('joined')
  cloud.run('ablate', local, [*ABLATION, '--split=2'])
  words = [*ABLATION, '--split=2']
  run_joined(cloud, 'ablate', url, [*words, '--dry_run'])
  said = run_joined(cloud, 'ablate', url, words)
  assert '8 of 8 runs ended: 4 done, 4 diverged' in said
  # The same, which finds that all is done, by one process.
  cloud.run('ablate', url, ABLATION)
  for name in ('results.csv', 'scores.csv'):
    assert cloud.text(url, name) == (local / name).read_text()
  for program in ('000', '001', '002', '003'):
    there = cloud.state(cloud.url(f'joined/programs/{program}'))
    assert there == cloud.state(local / 'programs' / program)


def test_two_processes_with_a_folder_each(cloud):
  def together(workdir, *words):
    shared = [word for word in RUN if word != '--devices=1']
    return run_joined(cloud, 'train', workdir, [*shared, *words])

  local, url = cloud.folder / 'two', cloud.url('runs/two')
  few = ('--checkpoint_every=20', '--log_every=20')
  together(local, '--steps=80', *few)
  together(url, '--steps=40', *few)
  done = together(url, '--steps=80', *few)
  assert 'continuing at step 40' in done
  there, here = cloud.state(url), cloud.state(local)
  assert {k: v for k, v in there.items() if k[0] == 80} == {
    k: v for k, v in here.items() if k[0] == 80
  }


def test_the_store_is_away_amid_a_save(cloud, tmp_path):
  """For half a minute, from the first bytes of a checkpoint's file on."""
  proxy = clouds.Proxy(cloud.port)
  cut = threading.Event()

  def watch(head):
    if b'checkpoints' in head and b'state' in head and not cut.is_set():
      cut.set()
      proxy.cut()

  proxy.seen = watch
  url = cloud.url('runs/away')
  process = subprocess.Popen(
    cloud.command('train', url, RUN),
    env=cloud.through(proxy.port),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=cloud.folder,
  )
  try:
    assert cut.wait(120)
    there = cloud.names(url)
    time.sleep(30)
    assert process.poll() is None  # it waits with what it has
    assert cloud.names(url) == there
    proxy.mend()
    out, err = process.communicate(timeout=200)
  finally:
    process.kill()
    proxy.close()
  assert process.returncode == 0, out + err
  assert cloud.state(url) == cloud.state(cloud.local())


def test_a_signal_is_answered_within_the_deadline_though_the_store_is_away(
  cloud,
):
  proxy, url = clouds.Proxy(cloud.port), cloud.url('runs/stopped')
  words = [*RUN, '--steps=10000000', '--save_deadline=5']
  process = subprocess.Popen(
    cloud.command('train', url, words),
    env=cloud.through(proxy.port),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=cloud.folder,
  )
  try:
    deadline = time.monotonic() + 120
    while not any(n.endswith('.manifest.json') for n in cloud.names(url)):
      assert process.poll() is None and time.monotonic() < deadline
      time.sleep(0.2)
    proxy.cut()
    started = time.monotonic()
    process.terminate()
    _, err = process.communicate(timeout=60)
  finally:
    process.kill()
    proxy.close()
  assert process.returncode == 75, err
  assert time.monotonic() - started < 15
  assert 'within 5 s' in err or 'has not answered' in err
  assert cloud.state(url)  # what was put before is whole


def test_data_and_compiled_programs_in_the_store(cloud):
  root, cache = cloud.url('data'), cloud.url('xla')
  words = ['--dataset=digits', '--width=4', '--batch_size=16', '--steps=20']
  words += ['--devices=1', '--noreport', '--checkpoint_every=10']
  local = cloud.folder / 'digits'
  cloud.run('train', local, [*words, f'--data_dir={cloud.folder / "data"}'])
  prepare = [sys.executable, '-m', 'gan_jax.prepare', '--dataset=digits']
  subprocess.run(
    [*prepare, f'--data_dir={root}'], env=cloud.environment, check=True
  )
  elsewhere = cloud.folder / 'elsewhere'  # another machine
  elsewhere.mkdir()
  environment = dict(cloud.environment, HOME=str(elsewhere))
  url = cloud.url('runs/digits')
  flags = [f'--data_dir={root}', f'--workdir={url}']
  for steps in (10, 20):
    done = subprocess.run(
      [
        *(sys.executable, '-m', 'gan_jax.train', *words, *flags),
        *(f'--steps={steps}', f'--compilation_cache={cache}'),
      ],
      env=environment,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'preparing' not in done.stderr
  assert cloud.state(url) == cloud.state(local)
  assert [n for n in cloud.names(cache) if n.endswith('-cache')]
  out = cloud.folder / 'samples.npz'
  for name, words in (
    ('sample', [f'--out={out}', '--num=4']),
    ('report', []),
  ):
    subprocess.run(
      [sys.executable, '-m', f'gan_jax.{name}', f'--workdir={url}', *words],
      env=environment,
      check=True,
    )
  assert out.exists() and 'report.html' in cloud.names(url)
