"""CPU time of the Fréchet distance beside a matrix square root, 2048 wide.

On the same moments: our singular values, SciPy's `sqrtm` of the product (what
pytorch-fid does) and NumPy's eigenvalues of the product (what torch-fidelity
does). Repeated in turns, on one thread. Writes `results.json`.

  OPENBLAS_NUM_THREADS=1 python experiments/metrics/speed_frechet/measure.py
"""

import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy
import scipy.linalg

from gan_jax.metrics import frechet

HERE = pathlib.Path(__file__).parent
DIM, SAMPLES, FEW, REPEATS = 2048, 5000, 1000, 3


def features(n: int, seed: int) -> np.ndarray:
  """Not negative, correlated, of a falling spectrum."""
  rng = np.random.default_rng(seed)
  mix = np.random.default_rng(7).normal(size=(DIM, DIM))
  mix *= np.exp(-4 * np.arange(DIM) / DIM)[:, None] / np.sqrt(DIM)
  x = rng.normal(size=(n, DIM)) @ mix + 0.3 + 0.02 * seed
  return np.maximum(x, 0).astype(np.float32)


def by(root: Callable[[np.ndarray], float], m1, m2) -> float:  # type: ignore[no-untyped-def]
  """The distance with a given trace of the root of the product."""
  s1, s2 = m1.covariance, m2.covariance
  apart = float(np.square(m1.mean - m2.mean).sum())
  return apart + float(np.trace(s1) + np.trace(s2)) - 2 * root(s1 @ s2)


def sqrtm(product: np.ndarray) -> float:
  """Trace of SciPy's square root."""
  return float(np.trace(scipy.linalg.sqrtm(product)).real)


def eigvals(product: np.ndarray) -> float:
  """Sum of the roots of the eigenvalues of a matrix that is not symmetric."""
  return float(np.sqrt(np.linalg.eigvals(product).astype(complex)).real.sum())


def main() -> None:
  """Times each in turns and writes the results."""
  x, y = features(SAMPLES, 0), features(SAMPLES, 1)
  m1, m2 = frechet.Moments.of(x), frechet.Moments.of(y)
  few = frechet.Moments.of(x[:FEW]), frechet.Moments.of(y[:FEW])
  ways: dict[str, Callable[[], float]] = {
    'ours': lambda: frechet.frechet_distance(m1, m2),
    'sqrtm': lambda: by(sqrtm, m1, m2),
    'eigvals': lambda: by(eigvals, m1, m2),
    'moments': lambda: float(frechet.Moments.of(x).count),
    'ours, 1000 samples': lambda: frechet.fid(x[:FEW], y[:FEW])['fid'],
    'ours, 1000 samples, from moments': lambda: frechet.frechet_distance(*few),
  }
  times: dict[str, list[float]] = {way: [] for way in ways}
  values = {}
  for _ in range(REPEATS):
    for way, run in ways.items():
      began = time.process_time()
      values[way] = run()
      times[way].append(time.process_time() - began)
      print(f'{way}: {values[way]:.9g} in {times[way][-1]:.2f} s', flush=True)
  medians = {way: statistics.median(t) for way, t in times.items()}
  results = {
    'numpy': np.__version__,
    'scipy': scipy.__version__,
    'platform': f'{platform.system()} {platform.machine()}',
    'threads': os.environ.get('OPENBLAS_NUM_THREADS', 'all'),
    'dim': DIM,
    'samples': SAMPLES,
    'values': values,
    'cpu_seconds': times,
    'median_cpu_seconds': medians,
    'times_faster_than_sqrtm': medians['sqrtm'] / medians['ours'],
    'times_faster_than_eigvals': medians['eigvals'] / medians['ours'],
  }
  (HERE / 'results.json').write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
  main()
