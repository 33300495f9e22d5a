"""CPU seconds and memory from start to first step, beside another version.

For each workload, in turns: this checkout and another one, each with an empty
compilation cache (cold) and then with the one that it has filled (cached). The
whole process counts, all of its threads, as `first_step.py` reports it. Writes
`results.json` beside this file.

  git worktree add /tmp/before COMMIT
  python experiments/speed/start/measure.py --against=/tmp/before
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import PIL.Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
import timing  # noqa: E402

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
TOY = ('--dataset=ring', '--network=mlp', '--width=32', '--depth=2')


def environment(root: pathlib.Path, work: pathlib.Path) -> dict[str, str]:
  """Of a process of that version, whose modules are compiled as Python's are.

  Where PYTHONDONTWRITEBYTECODE is set its sources would be, at each start.
  """
  own = {'PYTHONPATH': str(root), 'JAX_PLATFORMS': 'cpu'}
  own |= {'PYTHONPYCACHEPREFIX': f'{work}/pyc', 'PYTHONDONTWRITEBYTECODE': ''}
  return {**os.environ, **own}


def make_images(folder: pathlib.Path) -> None:
  """A folder of 256 noise images, 32x32."""
  folder.mkdir()
  for i in range(256):
    pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(folder / f'{i:04}.png')


def first_step(
  root: pathlib.Path, flags: tuple[str, ...], work: pathlib.Path
) -> dict[str, dict[str, float]]:
  """What the first step costs, cold and cached."""
  found = {}
  with tempfile.TemporaryDirectory(dir=work) as name:
    for kind in ('cold', 'cached'):
      words = (
        *flags,
        '--steps=1000',
        f'--compilation_cache={name}/xla',
        f'--workdir={name}/{kind}',
      )
      done = subprocess.run(
        [sys.executable, HERE / 'first_step.py', *words],
        env=environment(root, work),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=600,
      )
      found[kind] = json.loads(done.stdout.splitlines()[-1])
  return found


def answer(root: pathlib.Path, work: pathlib.Path, *words: str) -> float:
  """CPU seconds of a Python process."""
  before = os.times()
  subprocess.run(
    [sys.executable, *words],
    env=environment(root, work),
    capture_output=True,
    check=True,
    timeout=60,
  )
  after = os.times()
  return sum(after[2:4]) - sum(before[2:4])


COMMANDS = ('train', 'sample', 'evaluate', 'ablate', 'prepare', 'report')
SHORT = {
  'python -c pass': ('-c', 'pass'),
  'import gan_jax': ('-c', 'import gan_jax'),
  **{f'{c} --help': ('-m', f'gan_jax.{c}', '--help') for c in COMMANDS},
}


def main() -> None:
  """Measures in turns and writes `results.json`."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--against', type=pathlib.Path, required=True)
  parser.add_argument('--rounds', type=int, default=5)
  options = parser.parse_args()
  roots = {'before': options.against.resolve(), 'now': ROOT}
  rows: list[dict[str, Any]] = []
  with tempfile.TemporaryDirectory() as name:
    work = pathlib.Path(name)
    make_images(work / 'images')
    images = f'--dataset=folder:{work}/images'
    for root in roots.values():  # Python's and the libraries' modules, too
      for words in (TOY, (images, '--network=dcgan', '--width=8')):
        first_step(root, words, work)
    cases = {'toy': TOY, 'dcgan 32x32': (images, '--network=dcgan')}
    for round_ in range(options.rounds):
      for case, flags in cases.items():
        for version, root in roots.items():
          began = time.time()
          for kind, facts in first_step(root, flags, work).items():
            row = {'round': round_, 'case': case, 'version': version}
            rows.append(row | {'kind': kind, **facts})
          print(case, version, rows[-2:], round(time.time() - began), 's wall')
      for case, words in SHORT.items():
        row = {'round': round_, 'case': case, 'version': 'now', 'kind': ''}
        rows.append(row | {'cpu_sec': answer(ROOT, work, *words)})
  keys = dict.fromkeys((r['case'], r['version'], r['kind']) for r in rows)
  table = []
  for case, version, kind in keys:
    of = [
      r
      for r in rows
      if (r['case'], r['version'], r['kind']) == (case, version, kind)
    ]
    line = {'case': case, 'version': version, 'kind': kind}
    for name in ('cpu_sec', 'peak_mib'):
      if name in of[0]:
        line[name] = timing.summary([r[name] for r in of])
    table.append(line)
  results = {
    'machine': f'{platform.system()} {platform.machine()}',
    'python': platform.python_version(),
    'cores': len(os.sched_getaffinity(0)),
    'rounds': options.rounds,
    'table': table,
    'rows': rows,
  }
  (HERE / 'results.json').write_text(json.dumps(results, indent=1) + '\n')


if __name__ == '__main__':
  main()
