"""Kills and faults of storage, drawn from a seed: is the end the same bits?

  python experiments/reliability/soak.py --seed=0 --kills=300 --faults=100

A run whose workdir is in an object store (a folder served through fsspec, that
fails when told to) is started again and again until it is done. Each attempt is
killed by SIGKILL, at a random moment or before or after a random call of the
store, or meets a fault, or both; then the next one goes on. Every array of the
last checkpoint is compared with that of a run that nobody disturbed. A row a
run goes to soak.csv. Faults: the store is away for up to 3 s; an answer is lost
after the deed; every call is slow; between two attempts, a byte of the newest
checkpoint is flipped, or one of its objects is lost.
"""

import argparse
import collections
import contextlib
import csv
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import fsspec
from fsspec.implementations.local import LocalFileSystem

HERE = pathlib.Path(__file__).parent
STEPS, EVERY = 1500, 100
CALLS = 250  # of the store in an attempt, about
SECONDS = 4.0  # of an attempt, about
ONLINE = ('away', 'lost answer', 'slow')
OFFLINE = ('flipped byte', 'lost object')
COLUMNS = ('run', 'attempts', 'kills', 'faults', 'same_bits', 'seconds')


class Faulty(LocalFileSystem):
  """A folder as a store, whose calls are counted and may fail."""

  protocol = 'faulty'
  kill_at = fault_at = calls = 0  # from 1 on; -N: after call N
  fault, until, length = '', 0.0, 0.0

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(str(path).removeprefix('faulty://'))

  def _around(self, work):
    own = type(self)
    own.calls += 1
    if own.calls == own.fault_at and own.fault == 'away':
      own.until = time.monotonic() + own.length
    if time.monotonic() < own.until:
      raise ConnectionResetError('the store is away')
    if own.fault == 'slow':
      time.sleep(own.length / 100)
    if own.calls == own.kill_at:
      os.kill(os.getpid(), signal.SIGKILL)
    done = work()
    if own.calls == -own.kill_at:  # after the deed
      os.kill(os.getpid(), signal.SIGKILL)
    if own.calls == own.fault_at and own.fault == 'lost answer':
      raise ConnectionResetError('the answer was lost')
    return done

  def pipe_file(self, path, value, mode='overwrite', **options):  # noqa: D102
    def put():  # as stores do: whole or not at all
      place = self._strip_protocol(path)
      os.makedirs(os.path.dirname(place), exist_ok=True)
      partial = f'{tempfile.gettempdir()}/put-{os.getpid()}-{random.random()}'
      pathlib.Path(partial).write_bytes(value)
      os.replace(partial, place)

    self._around(put)

  def cat_file(self, path, **options):  # noqa: D102
    return self._around(lambda: super(Faulty, self).cat_file(path, **options))

  def get_file(self, rpath, lpath, **options):  # noqa: D102
    get = super().get_file
    return self._around(lambda: get(rpath, lpath, **options))

  def find(self, path, **options):  # noqa: D102
    return self._around(lambda: super(Faulty, self).find(path, **options))

  def rm_file(self, path):  # noqa: D102
    return self._around(lambda: super(Faulty, self).rm_file(path))


fsspec.register_implementation('faulty', Faulty)


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


def attempt(config, plan, log):
  """A process that trains; its number.

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
    for name, value in plan.items():
      setattr(Faulty, name, value)
    from gan_jax.training.train import train_config

    code = train_config(config)
  except BaseException as error:
    traceback.print_exc()
    code = getattr(error, 'exit_code', 1)
  finally:
    with contextlib.suppress(Exception):
      sys.stderr.flush()
    os._exit(code)


def draw(rng, kills, faults):
  """What an attempt meets: seconds to a kill or None, a plan, its faults."""
  plan, seconds, met = {}, None, []
  if kills and rng.random() < 0.9:
    if rng.random() < 0.5:
      seconds = rng.uniform(0, SECONDS)
    else:
      plan['kill_at'] = rng.choice((-1, 1)) * rng.randrange(1, CALLS)
  if faults and rng.random() < 0.45:
    plan['fault'] = rng.choice(ONLINE)
    plan['fault_at'] = rng.randrange(1, CALLS // 2)
    plan['length'] = rng.uniform(0.2, 3.0)
    met.append(plan['fault'])
  return seconds, plan, met


def damage(rng, folder):
  """Damages the newest of several checkpoints; says how, or ''."""
  manifests = sorted((folder / 'checkpoints').glob('*.manifest.json'))
  if len(manifests) < 2:
    return ''
  bundle = manifests[-1].with_name(manifests[-1].name.partition('.')[0])
  objects = sorted(p for p in bundle.rglob('*') if p.is_file())
  objects = [p for p in objects if p.stat().st_size]
  if not objects:
    return ''
  path, kind = rng.choice(objects), rng.choice(OFFLINE)
  if kind == 'lost object':
    path.unlink()
    return kind
  content = bytearray(path.read_bytes())
  content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
  path.write_bytes(content)
  return kind


def wait(process, seconds):
  """Ends a process after some seconds; how it ended: its code, or a kill."""
  until = time.monotonic() + (120.0 if seconds is None else seconds)
  while time.monotonic() < until:
    done, status = os.waitpid(process, os.WNOHANG)
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


def soak_run(rng, number, place, reference, kills, faults):
  """One run to its end; its row, kills by kind and faults by kind."""
  folder, log = place / f'run{number}', place / f'run{number}.log'
  config = configure(f'faulty://{folder}', place / 'xla')
  killed, met = collections.Counter(), collections.Counter()
  started, attempts = time.monotonic(), 0
  while True:
    want_kill = sum(killed.values()) < kills
    want_fault = sum(met.values()) < faults
    seconds, plan, online = draw(rng, want_kill, want_fault)
    if want_fault and attempts and rng.random() < 0.25:
      online += [kind] if (kind := damage(rng, folder)) else []
    attempts += 1
    code = wait(attempt(config, plan, log), seconds)
    met.update(online)
    if code == -signal.SIGKILL:
      killed['at a call' if seconds is None else 'at a moment'] += 1
    elif code == 0:
      break
    else:  # nothing here is a reason to give up
      raise SystemExit(f'ended with {code}: see {log}')
    if attempts > 100:
      raise SystemExit(f'does not end: see {log}')
  same = compare(folder, reference)
  row = {
    'run': number,
    'attempts': attempts,
    'kills': sum(killed.values()),
    'faults': '; '.join(f'{n} {kind}' for kind, n in sorted(met.items())),
    'same_bits': same,
    'seconds': round(time.monotonic() - started, 1),
  }
  if same:
    shutil.rmtree(folder)
    log.unlink()
  return row, killed, met


def main():
  """Soaks."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--kills', type=int, default=300)
  parser.add_argument('--faults', type=int, default=100)
  parser.add_argument('--minutes', type=float, default=60.0)
  options = parser.parse_args()
  import gan_jax.runtime.storage
  import gan_jax.training.restore
  import gan_jax.training.train  # noqa: F401, before the forks
  from gan_jax.runtime import mirror

  mirror._TICK = 0.05  # attempts are short
  rng = random.Random(options.seed)
  place = pathlib.Path(tempfile.mkdtemp(prefix='soak-'))
  os.environ['TMPDIR'] = str(place)  # scratch folders, and what kills leave
  tempfile.tempdir = str(place)
  reference = place / 'reference'
  code = wait(
    attempt(configure(str(reference), place / 'xla'), {}, place / 'ref.log'),
    None,
  )
  assert code == 0, (place / 'ref.log').read_text()
  killed, met = collections.Counter(), collections.Counter()
  until = time.monotonic() + 60 * options.minutes
  rows, number = [], 0
  while time.monotonic() < until and (
    killed.total() < options.kills or met.total() < options.faults
  ):
    left = (options.kills - killed.total(), options.faults - met.total())
    row, k, m = soak_run(
      rng, number, place, reference, *map(lambda x: max(x, 0), left)
    )
    killed, met, number = killed + k, met + m, number + 1
    rows.append(row)
    print(row, flush=True)
    with open(HERE / 'soak.csv', 'w', newline='') as file:
      writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
      writer.writeheader()
      writer.writerows(rows)
  bad = [row['run'] for row in rows if not row['same_bits']]
  print(f'seed {options.seed}: {len(rows)} runs, {dict(killed)} kills', end='')
  print(f', faults {dict(met)}; other bits in runs: {bad or "none"}')
  if not bad:
    shutil.rmtree(place)
  return bool(bad)


if __name__ == '__main__':
  sys.exit(main())
