"""Does D end at 1/2, and G at the data's mean and std, for every seed?

Trains the preset for each objective and seed and measures the live networks:
the largest |D(x) - 1/2| over the data's mean +- 2 std (where 95% of the data
live), the mean and std of 100,000 generated samples against the data's, and the
Wasserstein-1 distance between the two. Every run counts. Writes `results.json`,
and `figure.svg` of the first run.

  python experiments/gaussian_1d/run.py --out=DIR [--seeds=8]
"""

import argparse
import base64
import dataclasses
import json
import pathlib
import platform
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.config import schema
from gan_jax.figures import density as figures
from gan_jax.training import restore
from gan_jax.training.train import train_config

HERE = pathlib.Path(__file__).parent
MEASURES = ('d', 'mean', 'std', 'wasserstein1')
OBJECTIVES = ('non_saturating', 'minimax')


def measure(workdir: pathlib.Path) -> dict[str, float]:
  """D's outputs and G's samples of a finished run, against the data."""
  run = restore.open_run(workdir)
  real = np.asarray(run.dataset.sample(jax.random.key(1), 1_000_000))
  mean, std = float(real.mean()), float(real.std())
  x = jnp.linspace(mean - 2 * std, mean + 2 * std, 401)[:, None]
  assert run.networks is not None
  d = run.discriminator()
  apply = run.networks.discriminator.apply
  logits, _ = apply(d.params, d.stats, x, train=False)
  away = np.abs(np.asarray(jax.nn.sigmoid(logits)) - 0.5)
  fake = run.sample(100_000, seed=2, ema=False)
  return {
    'd_away_from_half_max': float(away.max()),
    'd_away_from_half_mean': float(away.mean()),
    'mean_error_in_std': abs(float(fake.mean()) - mean) / std,
    'mean_error_relative': abs(float(fake.mean()) - mean) / abs(mean),
    'std_error_relative': abs(float(fake.std()) / std - 1),
    'wasserstein1_in_std': wasserstein1(real[:, 0], fake[:, 0]) / std,
  }


def wasserstein1(real: Any, fake: Any) -> float:
  """Mean distance between the quantiles of two sets of samples."""
  at = (np.arange(10_000) + 0.5) / 10_000
  return float(np.abs(np.quantile(real, at) - np.quantile(fake, at)).mean())


def train(objective: str, seed: int, out: pathlib.Path) -> dict[str, Any]:
  """One run of the preset, measured."""
  preset = schema.load_flagfile(HERE / 'gaussian_1d.flags')
  workdir = out / f'{objective}-{seed}'
  started = time.process_time()
  code = train_config(
    dataclasses.replace(
      preset,
      workdir=str(workdir),
      objective=objective,
      seed=seed,
      devices=1,
      report=seed == 0,
    )
  )
  row = {'objective': objective, 'seed': seed, 'exit': code}
  row['cpu_sec'] = round(time.process_time() - started, 1)
  return row | measure(workdir)


def draw(workdir: pathlib.Path, path: pathlib.Path) -> None:
  """The last snapshot of a run, as figure 1 of the paper."""
  last = max((workdir / 'samples').glob('step_*.npz'))
  with np.load(last) as snapshot:
    uri = figures.density_1d(restore.open_run(workdir).dataset, snapshot)
  path.write_bytes(base64.b64decode(uri.partition(',')[2]))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
  """Mean, std over seeds, least and greatest of each measure."""
  names = [n for n in rows[0] if n.split('_')[0] in MEASURES]
  return {
    name: {
      'mean': statistics.mean(r[name] for r in rows),
      'std': statistics.stdev(r[name] for r in rows),
      'min': min(r[name] for r in rows),
      'max': max(r[name] for r in rows),
    }
    for name in names
  }


def main() -> None:
  """Runs everything and writes the results."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--seeds', type=int, default=8)
  args = parser.parse_args()
  rows = [
    train(objective, seed, args.out)
    for objective in OBJECTIVES
    for seed in range(args.seeds)
  ]
  results = {
    'jax': jax.__version__,
    'device': jax.devices()[0].device_kind,
    'platform': f'{platform.system()} {platform.machine()}',
    'runs': rows,
    'summary': {
      o: summary([r for r in rows if r['objective'] == o]) for o in OBJECTIVES
    },
  }
  draw(args.out / 'non_saturating-0', HERE / 'figure.svg')
  (HERE / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
  print(json.dumps(results['summary'], indent=2))


if __name__ == '__main__':
  main()
