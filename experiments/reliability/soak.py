"""Kills and faults, drawn from a seed: is the end the same bits?

  python experiments/reliability/soak.py --seed=3 --kills=300 --faults=100
  python experiments/reliability/soak.py --each

A run, on a disk or in an object store (a folder served through fsspec, that
fails when told to), is started again and again until it is done. Each attempt
is killed by SIGKILL, at a random moment, before or after a random call of the
store, or at a named point (`helpers.faults`), or hangs there and is killed, or
meets a fault, or several of these; then the next one goes on. Every array of
the last checkpoint is compared with that of a run that nobody disturbed. A row
a run goes to soak.csv, after those of other seeds that are there. Counted is
what has come, not what was drawn. `--each` is no draw: each kind and point
once, and nothing is written.
"""

import argparse
import collections
import contextlib
import csv
import os
import pathlib
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / 'tests'))
import fsspec
from helpers import denied, faults

STEPS, EVERY = 3000, 100
CALLS = 250  # of the store in an attempt, about
SECONDS = 4.0  # of an attempt, about
POINTS = {  # how often an attempt comes there, about
  'compile': 1,
  'step': 60,
  'log': 15,
  'save': 15,
  'write': 15,
  'restore': 2,
  'fetch': 3,
  'put': 12,
}
OFFLINE = ('flip', 'lose')
COLUMNS = (
  *('seed', 'run', 'place', 'attempts', 'kills', 'faults'),
  *('same_bits', 'seconds'),
)
# On a disk, then in a store: an attempt each.
EACH = {
  'disk': (
    'kill@compile+.3',
    'kill@step#2',
    'kill@save#2',
    'hang@step!#9',
    'kill@write#3',
    'kill@restore#2',
    'flip@save!#3 clock@step-86400 kill@save!#3+.05',
    'lose@restore full@write#2',
    'clock@restore+40000000 kill@log#4',
  ),
  'store': (
    'kill@put',
    'kill@put! lost@store#9',
    'away@store#30+1.5 kill@save#6',
    'kill@fetch!',
    'slow@store+.005 flip@save#4 kill@save!#6',
  ),
}
NO_ROOM = re.compile('No space left|no space left|make room')


fsspec.register_implementation('faulty', faults.FaultyStore)


def configure(workdir, cache):
  """The run."""
  from gan_jax.config.schema import Config

  return Config(
    dataset='ring',
    network='mlp',
    width=8,
    batch_size=16,
    steps=STEPS,
    log_every=EVERY,
    sample_every=STEPS,
    checkpoint_every=EVERY,
    devices=1,
    report=False,
    workdir=workdir,
    compilation_cache=str(cache),
  )


def attempt(config, text, log, met=os.devnull):
  """A process that trains and meets faults; its number.

  Made by a fork of this one, which has imported all and computed nothing: half
  of what a start costs.
  """
  process = os.fork()
  if process:
    return process
  code = 1
  try:
    with open(log, 'a') as file:
      os.dup2(file.fileno(), 1)
      os.dup2(file.fileno(), 2)
    print('ATTEMPT', text, flush=True)
    os.environ['FAULTS_MET'] = str(met)
    faults.install(text)
    from gan_jax.training.train import train_config

    code = train_config(config)
  except BaseException as error:
    traceback.print_exc()
    code = getattr(error, 'exit_code', 1)
  finally:
    with contextlib.suppress(Exception):
      sys.stderr.flush()
    os._exit(code)


def draw(rng, in_store, kills, wanted):
  """What an attempt meets: seconds to a kill or None, and a text of faults."""
  words, seconds = [], None
  if kills and rng.random() < 0.9:
    kind = rng.choices(('moment', 'call', 'point', 'hang'), (3, 2, 8, 2))[0]
    if kind == 'moment':
      seconds = rng.uniform(0, SECONDS)
    elif kind == 'call' and in_store:
      number = rng.randrange(1, CALLS)
      words.append(f'kill@store{rng.choice(("", "!"))}#{number}')
    else:
      words.append(draw_point(rng, 'hang' if kind == 'hang' else 'kill'))
  if wanted and rng.random() < 0.6:
    words.append(draw_fault(rng, in_store))
  return seconds, ' '.join(words)


def draw_point(rng, kind):
  """A kill or a hang at a named point, or soon after."""
  point = rng.choice(list(POINTS))
  most = 1.5 if point == 'compile' else 0.05
  after = f'+{rng.uniform(0, most):.4f}' if rng.random() < 0.6 else ''
  end = rng.choice(('', '!'))
  number = 1 + int(POINTS[point] * rng.random() ** 2)  # rather early
  return f'{kind}@{point}{end}#{number}{after}'


def draw_fault(rng, in_store):
  """A fault that is no kill."""
  kinds = ['flip', 'lose', 'clock', *(['full'] if denied.AVAILABLE else [])]
  kind = rng.choice([*kinds, *(faults.OF_STORES if in_store else ())])
  if kind in faults.OF_STORES:
    length = rng.uniform(0.2, 3.0) / (100 if kind == 'slow' else 1)
    return f'{kind}@store#{rng.randrange(1, CALLS // 2)}+{length:.4f}'
  point = rng.choice(('save', 'write', 'restore', 'step'))
  number = rng.randrange(1, 2 if point == 'restore' else 8)
  if kind == 'clock':
    return (
      f'clock@{point}#{number}{rng.choice((-1, 1)) * rng.uniform(1, 1e8):+.0f}'
    )
  return f'{kind}@{point}#{number}'


def wait(process, seconds):
  """Ends a process after some seconds, or when it hangs; its exit code."""
  until = time.monotonic() + (900.0 if seconds is None else seconds)
  while time.monotonic() < until:
    done, status = os.waitpid(process, os.WNOHANG | os.WUNTRACED)
    if done and os.WIFSTOPPED(status):
      time.sleep(0.1)
      seconds = 0
      break
    if done:
      return os.waitstatus_to_exitcode(status)
    time.sleep(0.005)
  os.kill(process, signal.SIGKILL)
  os.waitpid(process, 0)
  if seconds is None:
    raise SystemExit(f'process {process} hung')
  return -signal.SIGKILL


def read_state(folder):
  """Every array of the last checkpoint of a run, as bytes."""
  from gan_jax.runtime.checkpoint import Checkpoints

  checkpoints = Checkpoints(folder, read_only=True)
  step = max(checkpoints.steps())
  flat = checkpoints.read_flat(step)
  checkpoints.close()
  return step, {
    name: (x.dtype, x.shape, x.tobytes()) for name, x in flat.items()
  }


def compare(one, two):
  """Whether two runs ended the same, in a process of its own."""
  process = os.fork()
  if not process:
    code = 1
    try:
      same = read_state(one) == read_state(two)
      code = 0 if same else 2
    except BaseException:
      traceback.print_exc()
    finally:
      os._exit(code)
  return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


class Run:
  """One run, from its first attempt to its end.

  Attributes:
    killed: kills by where they came.
    met: faults by kind.
  """

  def __init__(self, name, place, cache, in_store):
    self.folder, self.log = place / name, place / f'{name}.log'
    self.in_store, self.cache = in_store, cache
    self.killed, self.met = collections.Counter(), collections.Counter()
    self.attempts, self._met = 0, place / f'{name}.met'

  def attempt(self, seconds, text):
    """One attempt; whether the run is done."""
    before = self.log.stat().st_size if self.log.exists() else 0
    self._met.unlink(missing_ok=True)
    # A compilation that is met is one, and none that a cache spares.
    cache = 'off' if '@compile' in text else self.cache
    url = f'faulty://{self.folder}' if self.in_store else str(self.folder)
    self.attempts += 1
    process = attempt(configure(url, cache), text, self.log, self._met)
    code = wait(process, seconds)
    met = faults.parse(self._met.read_text() if self._met.exists() else '')
    strikes = [f for f in met if f.kind in ('kill', 'hang')]
    self.met.update(f.kind for f in met if f not in strikes)
    if code == -signal.SIGKILL:
      where = 'at a moment'
      if strikes:
        (strike,) = strikes
        where = {'kill': '', 'hang': 'hung '}[strike.kind] + strike.point
      self.killed[where] += 1
      return False
    if code and any(f.kind == 'full' for f in met):
      said = self.log.read_text()[before:]
      if code != 1 or not NO_ROOM.search(said):
        raise SystemExit(f'ended with {code} on a full disk: see {self.log}')
      return False
    if code:  # nothing here is a reason to give up
      raise SystemExit(f'ended with {code}: see {self.log}')
    return True

  def row(self, seed, number, same, started):
    """Of soak.csv."""
    return {
      'seed': seed,
      'run': number,
      'place': 'store' if self.in_store else 'disk',
      'attempts': self.attempts,
      'kills': count(self.killed),
      'faults': count(self.met),
      'same_bits': same,
      'seconds': round(time.monotonic() - started, 1),
    }


def count(counter):
  """As text."""
  return '; '.join(f'{n} {kind}' for kind, n in sorted(counter.items()))


def soak_run(rng, run, kills, wanted):
  """Draws attempts until the run is done."""
  while True:
    want_kill = run.killed.total() < kills
    want_fault = run.met.total() < wanted
    seconds, text = draw(rng, run.in_store, want_kill, want_fault)
    if want_fault and run.attempts and rng.random() < 0.2:
      kind = rng.choice(OFFLINE)
      if faults.damage(rng, run.folder / 'checkpoints', kind):
        run.met[kind] += 1
    if run.attempt(seconds, text):
      return
    if run.attempts > 100:
      raise SystemExit(f'does not end: see {run.log}')


def each(place, reference):
  """Each kind and point once; whether all came, and left the same bits."""
  bad = []
  for where, texts in EACH.items():
    run = Run(where, place, place / 'xla', where == 'store')
    for text in texts:
      before = run.killed + run.met
      done = run.attempt(None, text)
      if done or (run.killed + run.met - before).total() < len(text.split()):
        bad.append(f'{where}: not all of {text} came: see {run.log}')
    if not run.attempt(None, ''):
      bad.append(f'{where}: is not done')
    if not compare(run.folder, reference):
      bad.append(f'{where}: other bits: {run.log}')
    print(f'{where}: {count(run.killed)}; {count(run.met)}', flush=True)
  print('\n'.join(bad) or 'the same bits', flush=True)
  return bad


def read_rows(seed):
  """Of other soaks, from soak.csv."""
  path = HERE / 'soak.csv'
  if not path.exists():
    return []
  with path.open(newline='') as file:
    return [row for row in csv.DictReader(file) if row['seed'] != str(seed)]


def write_rows(rows):
  """Writes soak.csv."""
  with (HERE / 'soak.csv').open('w', newline='') as file:
    writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)


def soak(options, place, reference):
  """Draws runs until there is enough; those that ended with other bits."""
  rng, rows = random.Random(options.seed), read_rows(options.seed)
  killed, met = collections.Counter(), collections.Counter()
  until = time.monotonic() + 60 * options.minutes
  number, bad = 0, []
  while time.monotonic() < until and (
    killed.total() < options.kills or met.total() < options.faults
  ):
    left = (options.kills - killed.total(), options.faults - met.total())
    started = time.monotonic()
    run = Run(f'run{number}', place, place / 'xla', rng.random() < 0.5)
    soak_run(rng, run, *(max(x, 0) for x in left))
    same = compare(run.folder, reference)
    rows.append(run.row(options.seed, number, same, started))
    killed, met = killed + run.killed, met + run.met
    print(rows[-1], flush=True)
    write_rows(rows)
    if same:
      shutil.rmtree(run.folder)
      run.log.unlink()
    else:
      bad.append(number)
    number += 1
  print(f'seed {options.seed}: {number} runs, {killed.total()} kills', end='')
  print(f' ({count(killed)}), {met.total()} faults ({count(met)})', end='')
  print(f'; other bits in runs: {bad or "none"}')
  return bad


def main():
  """Soaks."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--kills', type=int, default=300)
  parser.add_argument('--faults', type=int, default=100)
  parser.add_argument('--minutes', type=float, default=60.0)
  parser.add_argument('--each', action='store_true')
  options = parser.parse_args()
  import gan_jax.runtime.storage
  import gan_jax.training.population_loop
  import gan_jax.training.restore
  import gan_jax.training.train  # noqa: F401, before the forks
  from gan_jax.runtime import mirror

  mirror._TICK = 0.05  # attempts are short
  place = pathlib.Path(tempfile.mkdtemp(prefix='soak-'))
  os.environ['TMPDIR'] = str(place)  # scratch folders, and what kills leave
  tempfile.tempdir = str(place)
  reference = place / 'reference'
  undisturbed = Run('reference', place, place / 'xla', False)
  if not undisturbed.attempt(None, ''):
    raise SystemExit(f'the undisturbed run: see {undisturbed.log}')
  if options.each:
    bad = each(place, reference)
  else:
    bad = soak(options, place, reference)
  if not bad:
    shutil.rmtree(place)
  return bool(bad)


if __name__ == '__main__':
  sys.exit(main())
