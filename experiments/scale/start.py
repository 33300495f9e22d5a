"""What a start on a folder costs: the first, killed twice, and later ones.

`python experiments/scale/start.py --folder=FOLDER --out=RESULTS.json` on a set
that `make.py` made; the folder is changed and put back. Seconds are CPU
seconds, user and system, of a process and its workers, from nothing to the
first batch on the host; those of the workers of a process that is killed are
not known.
"""

import argparse
import json
import os
import pathlib
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

START = """
import json, resource, sys, time
from gan_jax import data
began = time.perf_counter()
how = json.loads(sys.argv[2])
images = data.load(f'folder:{sys.argv[1]}', **how)
feed = data.make_feed(images, seed=0, batch_size=8, residence='stream')
feed.chunk(0, 1)
used = [resource.getrusage(who) for who in
        (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({
  'images': images.size, 'fingerprint': images.fingerprint,
  'seconds': time.perf_counter() - began,
  'peak_mib': used[0].ru_maxrss / 1024,
  'peak_mib_worker': used[1].ru_maxrss / 1024,
}))
"""


def start(folder: pathlib.Path, how: dict[str, Any], kill_after: float = 0):
  """Starts a process; its CPU seconds, and what it says."""
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  process = subprocess.Popen(
    [sys.executable, '-c', START, str(folder), json.dumps(how)],
    stdout=subprocess.PIPE,
    text=True,
  )
  if kill_after:
    time.sleep(kill_after)
    process.kill()
  text, _ = process.communicate()
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  cpu = sum(
    getattr(after, name) - getattr(before, name)
    for name in ('ru_utime', 'ru_stime')
  )
  said = json.loads(text) if text else {'killed': True}
  return {'cpu_sec': round(cpu, 2), **said}


def main() -> None:
  """Makes the starts one after another."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--image_size', type=int, default=64)
  parser.add_argument('--kill_after', type=float, action='append')
  parser.add_argument('--repeats', type=int, default=3)
  args = parser.parse_args()
  files = sorted(p for p in args.folder.rglob('*') if p.is_file())
  results: dict[str, Any] = {
    'command': ' '.join(sys.argv),
    'machine': platform.processor() or platform.machine(),
    'cores': os.cpu_count(),
    'starts': {},
  }
  with tempfile.TemporaryDirectory() as scratch:
    how = {'data_dir': scratch, 'image_size': args.image_size}
    tiny = pathlib.Path(scratch) / 'tiny'
    tiny.mkdir()
    for path in files[:8]:
      shutil.copy(path, tiny)

    def note(name: str, folder: pathlib.Path = args.folder, **more: Any) -> Any:
      found = start(folder, how, **more)
      results['starts'].setdefault(name, []).append(found)
      print(name, found, flush=True)
      return found

    for i, seconds in enumerate(args.kill_after or [6, 14], 1):
      note(f'first, killed ({i})', kill_after=seconds)
    note('first, continued')
    for _ in range(args.repeats):
      note('tiny', tiny)
      second = note('second')
    victim, other = files[len(files) // 2], files[len(files) // 3]
    content, times = victim.read_bytes(), os.stat(victim)
    os.utime(other)
    assert note('one touched')['fingerprint'] == second['fingerprint']
    victim.write_bytes(other.read_bytes())
    note('one changed')
    victim.unlink()
    note('one removed')
    added = victim.with_name(f'0-added{victim.suffix}')
    victim.write_bytes(content)
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.copy(files[0], added)
    note('one added')
    added.unlink()
    last = note('as at first')
    assert last['fingerprint'] == second['fingerprint']
  args.out.write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
  main()
