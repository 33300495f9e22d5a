"""The Parzen-window log-likelihood of the 2014 paper, for several seeds.

Trains a preset for each seed (a run that is there is continued), scores its
newest checkpoint by the paper's protocol (10,000 samples of the live G, the
kernel's width picked on the first 1,000 images after the training ones, the
mean over the 10,000 test images) and writes `results.json`. Every seed counts.

  python experiments/goodfellow2014/run.py --preset=cpu --out=DIR [--seeds=3]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

HERE = pathlib.Path(__file__).parent
PUBLISHED = {'value': 225.0, 'error': 2.0, 'source': 'arXiv:1406.2661, table 1'}


def command(name: str, *words: str) -> None:
  """Runs a command of the package."""
  subprocess.run([sys.executable, '-m', f'gan_jax.{name}', *words], check=True)


def one(preset: str, seed: int, out: pathlib.Path, scored: bool) -> Any:
  """The row of metrics.jsonl of one seed, and what its run cost."""
  workdir = out / f'{preset}_{seed}'
  flags = HERE / f'{preset}.flags'
  if not scored:
    command(
      'train', f'--flagfile={flags}', f'--seed={seed}', f'--workdir={workdir}'
    )
    command(
      'evaluate', f'--workdir={workdir}', '--metrics=parzen', '--samples=10000'
    )
  rows = (workdir / 'metrics.jsonl').read_text().splitlines()
  facts = json.loads((workdir / 'run.json').read_text())
  by_step = {row['step']: row for row in map(json.loads, rows)}
  row = by_step[max(by_step)]
  return {
    'seed': seed,
    **{k: row[k] for k in ('step', 'parzen', 'parzen_error', 'parzen_sigma')},
    'by_step': {
      step: [row['parzen'], row['parzen_error'], row['parzen_sigma']]
      for step, row in sorted(by_step.items())
    },
    'train_sec': facts['train_sec'],
    'outcome': facts['outcome'],
    'protocol': row['protocol'],
    'versions': row['versions'],
    'devices': row['devices'],
  }


def main() -> None:
  """Trains and scores what the flags say."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--preset', default='cpu', help='cpu or goodfellow2014')
  parser.add_argument('--out', required=True, help='folder of the runs')
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument(
    '--scored', action='store_true', help='only collect what was scored before'
  )
  asked = parser.parse_args()
  out = pathlib.Path(asked.out)
  runs = [
    one(asked.preset, seed, out, asked.scored) for seed in range(asked.seeds)
  ]
  values = [run['parzen'] for run in runs]
  results = {
    'preset': asked.preset,
    'parzen_mean': statistics.mean(values),
    'parzen_std_over_training_seeds': statistics.stdev(values)
    if len(values) > 1
    else None,
    'published': PUBLISHED,
    'runs': runs,
  }
  (HERE / f'results_{asked.preset}.json').write_text(
    json.dumps(results, indent=1) + '\n'
  )
  print(f'{values}: mean {results["parzen_mean"]:.1f}; published 225 +- 2')


if __name__ == '__main__':
  main()
