"""The same bits whatever the way that pixels take to the step.

`python experiments/scale/digests.py --folder=FOLDER --out=RESULTS.json` trains
one small MLP for some steps on a folder of images: on the device and streamed,
from rows in the data root, from rows that `gan_jax.prepare` wrote and from the
files themselves, with one and with all cores, and killed by SIGKILL in the
middle of each; and compares hashes of all parameters and optimizer states,
those of one core and those of all apart.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from gan_jax.runtime import checkpoint
from gan_jax.training import restore

STEPS = 100
FLAGS = (
  *('--network=mlp', '--depth=1', '--width=8', '--batch_size=16', '--seed=1'),
  *(f'--steps={STEPS}', '--checkpoint_every=10', '--log_every=5'),
  *('--sample_every=1000', '--report=false'),
)


def command(workdir: pathlib.Path, words: list[str], cores: int) -> list[str]:
  """The command that trains, on so many cores."""
  own = sorted(os.sched_getaffinity(0))[: cores or None]
  pin = ['taskset', '-c', ','.join(map(str, own))]
  train = [sys.executable, '-m', 'gan_jax.train', f'--workdir={workdir}']
  return [*pin, *train, *FLAGS, *words]


def rows(workdir: pathlib.Path) -> int:
  """Lines of the log."""
  path = workdir / 'stats.jsonl'
  return len(path.read_bytes().splitlines()) if path.exists() else 0


def train(
  workdir: pathlib.Path, words: list[str], cores: int, killed: bool
) -> str:
  """Trains, killed in the middle if that is asked for; the digest."""
  line = command(workdir, words, cores)
  if killed:
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    while rows(workdir) < STEPS // 10 and process.poll() is None:
      time.sleep(0.01)
    assert process.poll() is None, 'it has ended before'
    process.send_signal(signal.SIGKILL)
    process.wait()
  subprocess.run(line, check=True, stderr=subprocess.DEVNULL)
  run = restore.open_run(workdir)
  assert run.step == STEPS
  return checkpoint.digest(run.state)


def main() -> None:
  """Trains by each way."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  args = parser.parse_args()
  found = {}
  with tempfile.TemporaryDirectory() as scratch:
    place = pathlib.Path(scratch)
    out = place / 'prepared'
    own = [f'--data_dir={place / "root"}', '--image_size=64']
    folder = f'--dataset=folder:{args.folder}'
    prepare = [sys.executable, '-m', 'gan_jax.prepare', f'--out={out}']
    subprocess.run([*prepare, folder, *own], check=True)
    ways = {
      'kept': [folder, *own],
      'direct': [folder, *own, '--keep_rows=false'],
      'prepared': [f'--dataset=prepared:{out}'],
    }
    for name, words in ways.items():
      for residence in ('device', 'stream'):
        for cores in (1, 0):
          for killed in (False, True):
            key = f'{name}, {residence}, {cores or "all"} cores'
            key += ', killed' if killed else ''
            if name == 'direct' and residence == 'device' and killed:
              continue  # decodes all of it twice more
            workdir = place / key.replace(' ', '_')
            more = [f'--residence={residence}']
            found[key] = train(workdir, words + more, cores, killed)
            print(key, found[key][:16], flush=True)
            args.out.write_text(json.dumps(found, indent=2) + '\n')
  # XLA rounds otherwise on another number of cores, whatever the data.
  for cores in ('1', 'all'):
    same = {d for key, d in found.items() if f' {cores} cores' in key}
    assert len(same) == 1, 'they differ'


if __name__ == '__main__':
  main()
