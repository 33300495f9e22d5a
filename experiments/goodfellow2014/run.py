"""The Parzen-window log-likelihood of the 2014 paper, for several seeds.

Trains `goodfellow2014.flags` for each seed (a run that is there is continued),
scores all its checkpoints by the paper's protocol (10,000 samples of the live
G, the kernel's width picked on the first 1,000 images after the training ones,
the mean over the 10,000 test images) and writes `results.json`. Every seed
counts.

  python experiments/goodfellow2014/run.py --out=DIR [--seeds=3]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

HERE = pathlib.Path(__file__).parent
FLAGS = HERE / 'goodfellow2014.flags'
PUBLISHED = {'value': 225.0, 'error': 2.0, 'source': 'arXiv:1406.2661, table 1'}
DIVERGED = 3  # exit code


def command(name: str, *words: str) -> None:
  """Runs a command of the package; a run that diverges is a result."""
  words = (sys.executable, '-m', f'gan_jax.{name}', *words)
  code = subprocess.run(words, check=False).returncode
  if code not in (0, DIVERGED):
    sys.exit(code)


def trained(workdir: pathlib.Path, seed: int) -> None:
  """Trains and scores a run."""
  where = f'--workdir={workdir}'
  command('train', f'--flagfile={FLAGS}', f'--seed={seed}', where)
  command('evaluate', where, '--all', '--metrics=parzen', '--samples=10000')


def scored(workdir: pathlib.Path, seed: int) -> dict[str, Any]:
  """The scores of a run by step, and what it cost."""
  rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  by_step = {row['step']: row for row in rows}
  last = by_step[max(by_step)]
  facts = json.loads((workdir / 'run.json').read_text())
  return {
    'seed': seed,
    **{k: last[k] for k in ('step', 'parzen', 'parzen_error', 'parzen_sigma')},
    'by_step': {
      step: [row['parzen'], row['parzen_error'], row['parzen_sigma']]
      for step, row in sorted(by_step.items())
    },
    'train_sec': facts['train_sec'],
    'outcome': facts['outcome'],
    'protocol': last['protocol'],
    'versions': last['versions'],
    'devices': last['devices'],
  }


def main() -> None:
  """Trains and scores what the flags say."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', required=True, help='folder of the runs')
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument(
    '--scored', action='store_true', help='only collect what was scored before'
  )
  asked = parser.parse_args()
  runs = []
  for seed in range(asked.seeds):
    workdir = pathlib.Path(asked.out) / str(seed)
    if not asked.scored:
      trained(workdir, seed)
    runs.append(scored(workdir, seed))
  found = [run['parzen'] for run in runs]
  results = {
    'published': PUBLISHED,
    'parzen_mean': statistics.mean(found),
    'parzen_std_over_training_seeds': (
      statistics.stdev(found) if len(found) > 1 else None
    ),
    'runs': runs,
  }
  (HERE / 'results.json').write_text(json.dumps(results, indent=1) + '\n')
  for run in runs:
    print(
      f'seed {run["seed"]}, {run["outcome"]} at step {run["step"]}:'
      f' {run["parzen"]:.1f}'
    )
  print(f'mean {results["parzen_mean"]:.1f}; published 225 +- 2')


if __name__ == '__main__':
  main()
