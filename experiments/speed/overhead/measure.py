"""What the trainer costs over a bare scan, beside another version, in turns.

Writes `results.json` beside this file.

  git worktree add /tmp/before COMMIT
  python experiments/speed/overhead/measure.py --against=/tmp/before
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
import timing  # noqa: E402

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]


def run_once(root: pathlib.Path) -> dict[str, float]:
  """One process of one version."""
  done = subprocess.run(
    [sys.executable, HERE / 'one.py'],
    env={**os.environ, 'PYTHONPATH': str(root), 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    check=True,
    timeout=900,
  )
  found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
  return found


def main() -> None:
  """Measures in turns and writes `results.json`."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--against', type=pathlib.Path, required=True)
  parser.add_argument('--rounds', type=int, default=5)
  options = parser.parse_args()
  roots = {'before': options.against.resolve(), 'now': ROOT}
  rows: list[dict[str, Any]] = []
  for _ in range(options.rounds):
    for version, root in roots.items():
      rows.append({'version': version, **run_once(root)})
      print(rows[-1], flush=True)
  table: dict[str, Any] = {}
  for version in roots:
    of = [row for row in rows if row['version'] == version]
    bare = [(row['bare'] + row['bare again']) / 2 for row in of]
    names = [name for name in of[0] if name != 'version']
    table[version] = {
      name: {
        'us_per_step': timing.summary([row[name] for row in of]),
        'over_bare': timing.summary(
          [row[name] / b for row, b in zip(of, bare, strict=True)]
        ),
      }
      for name in names
    }
  results = {
    'machine': f'{platform.system()} {platform.machine()}',
    'cores': len(os.sched_getaffinity(0)),
    'rounds': options.rounds,
    'table': table,
    'rows': rows,
  }
  (HERE / 'results.json').write_text(json.dumps(results, indent=1) + '\n')


if __name__ == '__main__':
  main()
