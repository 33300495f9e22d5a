"""Parzen-window log-likelihood of real MNIST digits in a generator's place.

The 2014 protocol with 10,000 training images as the samples: those of the first
50,000 that seed s draws. Writes `results.json`.

  python experiments/metrics/parzen_true/measure.py --mnist=DIR
"""

import argparse
import gzip
import json
import pathlib
import platform
import time

import jax
import numpy as np

from gan_jax.metrics import parzen

HERE = pathlib.Path(__file__).parent


def images(path: pathlib.Path) -> np.ndarray:
  """Pixels in [0, 1], (n, 784), of an idx file."""
  pixels = np.frombuffer(gzip.decompress(path.read_bytes())[16:], np.uint8)
  return (pixels.reshape(-1, 784) / 255).astype(np.float32)


def main() -> None:
  """Measures each seed and writes the results."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--mnist', type=pathlib.Path, required=True)
  parser.add_argument('--seeds', type=int, default=3)
  args = parser.parse_args()
  train = images(args.mnist / 'train-images-idx3-ubyte.gz')
  test = images(args.mnist / 't10k-images-idx3-ubyte.gz')
  rows = []
  for seed in range(args.seeds):
    rng = np.random.default_rng(seed)
    samples = train[rng.choice(50_000, 10_000, replace=False)]
    began = time.process_time()
    scores = parzen(test, samples, validation=train[50_000:51_000])
    seconds = round(time.process_time() - began, 1)
    rows.append({'seed': seed, **scores, 'cpu_seconds': seconds})
    print(rows[-1], flush=True)
  values = [r['parzen'] for r in rows]
  results = {
    'jax': jax.__version__,
    'device': jax.devices()[0].device_kind,
    'platform': f'{platform.system()} {platform.machine()}',
    'rows': rows,
    'mean': float(np.mean(values)),
    'std': float(np.std(values, ddof=1)),
  }
  (HERE / 'results.json').write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
  main()
