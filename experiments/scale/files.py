"""Preparing, killed and in shares; opening what was prepared; its references.

`python experiments/scale/files.py --folder=FOLDER --out=RESULTS.json` on a set
that `make.py` made: as rows and as files, by one command that is killed twice
by SIGKILL and goes on, and by two commands at once that have a share each.
Seconds are CPU seconds, user and system, of a process and its workers.
"""

import argparse
import json
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from record import recorder

OPEN = """
import json, sys, time, resource
from gan_jax import data
images = data.load(sys.argv[1])
feed = data.make_feed(images, seed=0, batch_size=8, residence='stream')
x = feed.chunk(0, 1)
feed._forget()
print(json.dumps([images.fingerprint, int(x.sum())]))
"""
REFERENCE = """
import json, sys, resource
from gan_jax import data
from gan_jax.evaluation import references
images = data.load(sys.argv[1])
x = references.read_samples(images, images.size)
peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]
print(json.dumps([int(peak) * 1024, x.nbytes]))
"""


def cpu() -> float:
  """CPU seconds of the processes that have been waited for."""
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def command(folder: pathlib.Path, out: pathlib.Path, *words: str) -> list[str]:
  """The command that prepares."""
  line = [sys.executable, '-m', 'gan_jax.prepare', f'--dataset=folder:{folder}']
  root = f'--data_dir={out}-root'
  return [*line, '--image_size=64', f'--out={out}', root, *words]


def killed(line: list[str], out: pathlib.Path, drafts: int) -> int:
  """Kills a preparation once it has so many drafts; how many there are then."""
  process = subprocess.Popen(
    line, start_new_session=True, stderr=subprocess.DEVNULL
  )
  while process.poll() is None:
    found = [p for p in out.glob('draft*/*') if p.suffix != '.npz']
    if len(found) >= drafts:
      break
    time.sleep(0.05)
  assert process.poll() is None, 'it has ended before'
  process.send_signal(signal.SIGKILL)
  process.wait()
  return len(found)


def printed(program: str, *words: str) -> tuple[Any, float]:
  """What a process prints, and its CPU seconds."""
  before = cpu()
  line = [sys.executable, '-c', program, *words]
  done = subprocess.run(line, check=True, capture_output=True, text=True)
  return json.loads(done.stdout), round(cpu() - before, 2)


def main() -> None:
  """Prepares in each way."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--drafts', type=int, nargs=2, default=[12, 30])
  args = parser.parse_args()
  note = recorder(args.out)

  with tempfile.TemporaryDirectory() as scratch:
    place, sets = pathlib.Path(scratch), {}
    tiny = place / 'tiny'
    tiny.mkdir()
    for path in sorted(args.folder.rglob('*.jpg'))[:8]:
      (tiny / path.name).write_bytes(path.read_bytes())
    subprocess.run(command(tiny, place / 'few'), check=True)
    for form in ('rows', 'files'):
      out, word = place / form, f'--form={form}'
      line = command(args.folder, out, word)
      done = [killed(line, out, count) for count in args.drafts]
      note(f'{form}: drafts at the kills', done)
      before = cpu()
      subprocess.run([*line, '--verify'], check=True)
      note(f'{form}: gone on with, and verified', round(cpu() - before, 2))
      shared, before = place / f'{form}-shared', cpu()
      started = [
        subprocess.Popen(command(args.folder, shared, word, f'--only={k}/2'))
        for k in (1, 2)
      ]
      assert not any(process.wait() for process in started)
      note(f'{form}: two shares', round(cpu() - before, 2))
      before = cpu()
      subprocess.run(command(args.folder, shared, word), check=True)
      note(f'{form}: joined', round(cpu() - before, 2))
      sums = [
        json.loads((where / 'prepared.json').read_text())
        for where in (out, shared)
      ]
      assert sums[0]['shards'] == sums[1]['shards']  # to the last bit
      sets[form] = f'prepared:{out}'
      size = sum(path.stat().st_size for path in out.iterdir())
      note(f'{form}: MiB', round(size / 2**20, 1))
    opened = {name: [] for name in ('few', *sets)}
    facts = set()
    for _ in range(5):
      for name, where in (('few', f'prepared:{place / "few"}'), *sets.items()):
        what, seconds = printed(OPEN, where)
        opened[name].append(seconds)
        if name != 'few':
          facts.add(tuple(what))
    assert len(facts) == 1  # the same identity and pixels
    note('opened, to the first batch', opened)
    (base, _), _ = printed(REFERENCE, f'prepared:{place / "few"}')
    for form, where in sets.items():
      (peak, size), _ = printed(REFERENCE, where)
      note(
        f'{form}: reference set over its pixels', round((peak - base) / size, 3)
      )


if __name__ == '__main__':
  main()
