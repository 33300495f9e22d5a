"""Scores of equal features by ours and by other packages: CPU time and memory.

Every score of every package is a process on one pinned core, so that its memory
is its own; they take turns. Features are made up (a falling spectrum), the same
for all; what draws features from images is in `experiments/metrics/inception`.
Writes `results.json`.

  pip install torch torch-fidelity pytorch-fid prdc
  python experiments/speed/evaluation/measure.py [--only=10000] [--rounds=3]
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).resolve()
DIM = {'fid': 2048, 'kid': 2048, 'prdc': 512}
WAYS = {
  'fid': ('ours', 'pytorch-fid', 'torch-fidelity'),
  'kid': ('ours', 'torch-fidelity'),
  'prdc': ('ours', 'prdc'),
}
MOST = 20_000  # rows that prdc's whole matrices of float64 are tried for


def features(count: int, dim: int, seed: int) -> Any:
  """Of falling spectrum, float32."""
  random = np.random.default_rng(seed)
  scale = (1 + np.arange(dim, dtype=np.float32)) ** -0.5
  x = random.standard_normal((count, dim), np.float32)
  return np.abs((x + 0.1 * seed) * scale)


def without_torchvision() -> None:
  """The packages import it for their networks, which are not used here."""
  from unittest import mock

  names = 'datasets models models.inception transforms transforms.functional'
  for name in names.split():
    sys.modules[f'torchvision.{name}'] = mock.MagicMock()
  sys.modules['torchvision'] = mock.MagicMock()


def scorer(metric: str, way: str) -> Any:
  """A function of real and generated features."""
  if way == 'ours':
    import gan_jax as gj

    if metric == 'prdc':  # which takes other neighbours for the first two
      return lambda x, y: gj.metrics.prdc(x, y, k_pr=5, k_dc=5)
    return getattr(gj.metrics, metric)
  without_torchvision()
  if way == 'prdc':
    import joblib
    import prdc

    joblib.parallel_config(n_jobs=1)
    return lambda x, y: prdc.compute_prdc(x, y, nearest_k=5)
  import torch

  torch.set_num_threads(1)
  if way == 'pytorch-fid':
    from pytorch_fid.fid_score import calculate_frechet_distance

    def fid(x: Any, y: Any) -> float:
      moments = [(np.mean(a, 0), np.cov(a, rowvar=False)) for a in (x, y)]
      return float(calculate_frechet_distance(*moments[0], *moments[1]))

    return fid
  from torch_fidelity import metric_fid, metric_kid

  quiet = dict(verbose=False)
  if metric == 'kid':
    return lambda x, y: metric_kid.kid_features_to_metric(
      torch.from_numpy(x), torch.from_numpy(y), **quiet
    )

  def fidelity(x: Any, y: Any) -> Any:
    stats = [
      metric_fid.fid_features_to_statistics(torch.from_numpy(a)) for a in (x, y)
    ]
    return metric_fid.fid_statistics_to_metric(*stats, False)

  return fidelity


def run(metric: str, way: str, count: int) -> None:
  """One process: prints CPU seconds, MiB beyond the features, and the score."""
  x, y = (features(count, DIM[metric], seed) for seed in (0, 1))
  score = scorer(metric, way)
  score(x[:200], y[:200]) if metric == 'prdc' else None  # what is compiled
  before = resource.getrusage(resource.RUSAGE_SELF)
  start = before.ru_utime + before.ru_stime
  wall = time.perf_counter()
  value = score(x, y)
  after = resource.getrusage(resource.RUSAGE_SELF)
  told = {
    'cpu_sec': after.ru_utime + after.ru_stime - start,
    'wall_sec': time.perf_counter() - wall,
    'more_mib': (after.ru_maxrss - before.ru_maxrss) / 1024,
    'peak_mib': after.ru_maxrss / 1024,
    'value': json.loads(json.dumps(value, default=float)),
  }
  print(json.dumps(told), flush=True)


def main() -> None:
  """Measures in turns."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--one', nargs=3, metavar=('METRIC', 'WAY', 'COUNT'))
  parser.add_argument('--only', default='10000,50000')
  parser.add_argument('--metrics', default=','.join(WAYS))
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--core', type=int, default=0)
  options = parser.parse_args()
  if options.one:
    metric, way, count = options.one
    run(metric, way, int(count))
    return
  path = HERE.with_name('results.json')
  told: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
  for count in map(int, options.only.split(',')):
    for metric in options.metrics.split(','):
      rows: dict[str, list[Any]] = {}
      for _ in range(options.rounds):
        for way in WAYS[metric]:
          if way == 'prdc' and count > MOST:
            continue
          words = [
            'taskset',
            '-c',
            str(options.core),
            sys.executable,
            str(HERE),
          ]
          done = subprocess.run(
            [*words, '--one', metric, way, str(count)],
            stdout=subprocess.PIPE,
            env=os.environ | {'JAX_PLATFORMS': 'cpu', 'OMP_NUM_THREADS': '1'},
            text=True,
            check=True,
          )
          rows.setdefault(way, []).append(
            json.loads(done.stdout.split('\n')[-2])
          )
      for way, turns in rows.items():
        seconds = statistics.median(t['cpu_sec'] for t in turns)
        told[f'{metric} {count} {way}'] = {
          'cpu_sec': round(seconds, 2),
          'images_per_cpu_sec': round(2 * count / seconds),
          'more_mib': round(max(t['more_mib'] for t in turns)),
          'peak_mib': round(max(t['peak_mib'] for t in turns)),
          'value': turns[0]['value'],
          'turns': [round(t['cpu_sec'], 2) for t in turns],
        }
        print(metric, count, way, told[f'{metric} {count} {way}'], flush=True)
      path.write_text(json.dumps(told, indent=1) + '\n')


if __name__ == '__main__':
  main()
