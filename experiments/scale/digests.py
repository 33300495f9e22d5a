"""The same bits whatever the way that pixels take to the step.

`python experiments/scale/digests.py --folder=FOLDER --out=RESULTS.json` trains
one small MLP for 200 steps on a folder of images: on the device and streamed,
from rows in the data root, from rows that `gan_jax.prepare` wrote and from the
files themselves; with 1, 2 and 4 worker processes that prepare and decode; on
one core; on two devices in one process and in two; and killed by SIGKILL in the
middle of each. Hashes of all parameters and optimizer states are compared among
runs on the same number of cores and devices: XLA itself adds in another order
otherwise, whatever the data.
"""

import argparse
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from gan_jax.runtime import checkpoint
from gan_jax.training import restore

STEPS = 200
FLAGS = (
  *('--network=mlp', '--depth=1', '--width=8', '--batch_size=16', '--seed=1'),
  *(f'--steps={STEPS}', '--checkpoint_every=20', '--log_every=5'),
  *('--sample_every=1000', '--report=false'),
)
LAUNCH = pathlib.Path(__file__).parents[2] / 'launch' / 'local.py'
# As `python -m gan_jax.train`, with another number of workers.
TRAIN = """
import runpy, sys
from gan_jax.runtime import workers
workers.count_cores = lambda: {workers}
sys.argv[0] = 'gan_jax.train'
runpy.run_module('gan_jax.train', run_name='__main__')
"""


class Way(NamedTuple):
  """How a run gets its pixels, and where it runs."""

  kind: str  # kept, direct, prepared, or files: prepared as they are
  residence: str
  workers: int = 2
  cores: int = 2
  devices: int = 1
  processes: int = 1

  def __str__(self) -> str:
    """As the results name it."""
    return (
      f'{self.kind}, {self.residence}, workers {self.workers}, cores'
      f' {self.cores}, devices {self.devices}, processes {self.processes}'
    )


WAYS = (
  *(
    Way(kind, residence)
    for kind in ('kept', 'direct', 'prepared', 'files')
    for residence in ('device', 'stream')
  ),
  *(Way('kept', 'stream', workers=n) for n in (1, 4)),
  *(
    Way(kind, 'stream', workers=n)
    for kind in ('direct', 'files')
    for n in (1, 4)
  ),
  *(Way(kind, 'stream', 1, cores=1) for kind in ('direct', 'prepared')),
  *(
    Way(kind, 'stream', devices=2, processes=n)
    for n in (1, 2)
    for kind in ('direct', 'prepared', 'files')
  ),
)


def command(workdir: pathlib.Path, words: list[str], way: Way) -> list[str]:
  """The command that trains."""
  cores = sorted(os.sched_getaffinity(0))[: way.cores]
  line = ['taskset', '-c', ','.join(map(str, cores)), sys.executable]
  words = [f'--workdir={workdir}', *FLAGS, *words]
  if way.processes > 1:
    return [*line, str(LAUNCH), f'--processes={way.processes}', '--', *words]
  return [*line, '-c', TRAIN.format(workers=way.workers), *words]


def kill(process: subprocess.Popen) -> None:
  """Ends a process, or those that a launcher started: all of its session."""
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def rows(workdir: pathlib.Path) -> int:
  """Lines of the log."""
  path = workdir / 'stats.jsonl'
  return len(path.read_bytes().splitlines()) if path.exists() else 0


def train(workdir: pathlib.Path, words: list[str], way: Way, killed: bool):
  """Trains, killed in the middle if that is asked for; the digest."""
  line, environment = command(workdir, words, way), dict(os.environ)
  if way.devices > way.processes:
    flag = f'--xla_force_host_platform_device_count={way.devices}'
    environment['XLA_FLAGS'] = flag
  quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
  if killed:
    process = subprocess.Popen(
      line, env=environment, start_new_session=True, **quiet
    )
    while rows(workdir) < STEPS // 10 and process.poll() is None:
      time.sleep(0.01)
    assert process.poll() is None, 'it has ended before'
    kill(process)
  with open(workdir.with_suffix('.err'), 'w', encoding='utf-8') as errors:
    done = subprocess.run(line, env=environment, stdout=errors, stderr=errors)
  if done.returncode:
    raise SystemExit(workdir.with_suffix('.err').read_text(encoding='utf-8'))
  run = restore.open_run(workdir)
  assert run.step == STEPS
  return checkpoint.digest(run.state)


def main() -> None:
  """Trains by each way."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--kind', help='of these ways alone, and of direct')
  args = parser.parse_args()
  found: dict[str, str] = {}
  groups: dict[tuple[int, int], set[str]] = {}
  with tempfile.TemporaryDirectory() as scratch:
    place = pathlib.Path(scratch)
    out, kept = place / 'prepared', place / 'files'
    folder = f'--dataset=folder:{args.folder}', '--image_size=64'
    prepare = [sys.executable, '-m', 'gan_jax.prepare', *folder]
    for words in ([f'--out={out}'], [f'--out={kept}', '--form=files']):
      line = [*prepare, f'--data_dir={place / "p"}', *words]
      subprocess.run(line, check=True)
    ways = [w for w in WAYS if args.kind in (None, w.kind) or w == WAYS[2]]
    for i, (way, killed) in enumerate(itertools.product(ways, (False, True))):
      # Each on a data root of its own: the first start, killed amid training.
      words = [*folder, f'--data_dir={place / f"root{i}"}']
      if way.kind == 'direct':
        words.append('--keep_rows=false')
      elif way.kind in ('prepared', 'files'):
        chosen = out if way.kind == 'prepared' else kept
        words = [f'--dataset=prepared:{chosen}']
      words.append(f'--residence={way.residence}')
      key = f'{way}{", killed" * killed}'
      found[key] = train(place / f'run{i}', words, way, killed)
      groups.setdefault((way.cores, way.devices), set()).add(found[key])
      print(key, found[key][:16], flush=True)
      args.out.write_text(json.dumps(found, indent=2) + '\n')
  for (cores, devices), digests in groups.items():
    print(f'{cores} cores, {devices} devices: {len(digests)} digest')
  assert all(len(digests) == 1 for digests in groups.values())


if __name__ == '__main__':
  main()
