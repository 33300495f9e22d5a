"""Records of TFDS that are streamed: decoded by threads, and by processes.

`python experiments/scale/tfds.py --out=RESULTS.json` on the digits that come
with scikit-learn, prepared by TFDS and resized from 8x8 to 64x64: by the
threads of Grain, which small sets have, and by processes, in turn. Starts are
left out: of the CPU seconds by taking off those of 128 images.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

READ = """
import json, resource, sys, time
from gan_jax import data
from gan_jax.data import tfds_sets
who, steps, root = sys.argv[1], int(sys.argv[2]), sys.argv[3]
tfds_sets._MANY_BYTES = 0 if who == 'processes' else 2**62
images = data.load('digits', data_dir=root, image_size=64, channels=3)
feed = data.make_feed(images, seed=0, batch_size=64, residence='stream')
feed.chunk(0, 1)
began = time.perf_counter()
for step in range(1, steps):
  feed.chunk(step, 1)
wall = time.perf_counter() - began
feed._forget()
used = [resource.getrusage(who) for who in
        (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
cpu = sum(u.ru_utime + u.ru_stime for u in used)
print(json.dumps([cpu, (steps - 1) * 64 / wall]))
"""


def read(*words: str) -> tuple[float, float]:
  """CPU seconds of a process and its workers, and images a second."""
  line = [sys.executable, '-c', READ, *words]
  done = subprocess.run(line, check=True, capture_output=True, text=True)
  cpu, rate = json.loads(done.stdout)
  return cpu, rate


def main() -> None:
  """Reads in turn."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--rounds', type=int, default=5)
  args = parser.parse_args()
  found: dict[str, Any] = {'command': ' '.join(sys.argv)}
  with tempfile.TemporaryDirectory() as root:
    read('threads', '2', root)  # is prepared
    for i in range(args.rounds):
      for who in sorted(('threads', 'processes'), reverse=bool(i % 2)):
        few, (cpu, rate) = read(who, '2', root)[0], read(who, '102', root)
        ms = found.setdefault(f'{who}, CPU-ms an image', [])
        ms.append(round((cpu - few) / 6400 * 1000, 3))
        found.setdefault(f'{who}, images a second', []).append(round(rate))
  for name in [*found][1:]:
    found[f'{name}, median'] = statistics.median(found[name])
  args.out.write_text(json.dumps(found, indent=2) + '\n')
  print(json.dumps(found, indent=2))


if __name__ == '__main__':
  main()
