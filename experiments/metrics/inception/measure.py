"""The FID Inception beside pytorch-fid's in PyTorch: errors and speed.

With the public weights (taps as far as they are given) and with random ones
(every tap), the relative error of each tap; and seconds an image of both, in
turns, on the same two threads. Needs torch, which the project does not. Writes
`results.json` beside this file.

  python experiments/metrics/inception/measure.py --weights=PATH
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

# Threads that wait must not be counted as threads that work.
os.environ['OMP_WAIT_POLICY'] = 'passive'

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2] / 'tests'))

import inception_torch  # noqa: E402

from gan_jax import features  # noqa: E402
from gan_jax.features import inception, weights  # noqa: E402
from gan_jax.features.layout import LAYERS  # noqa: E402

THREADS = len(os.sched_getaffinity(0))
BATCH, PAIRS, IMAGES = 8, 8, 32
SPEED_TAP = '2048'


def images(count: int, side: int = 32) -> Any:
  """Noise, smooth enough for every layer to see something."""
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 256, (count, side // 4, side // 4, 3))
  x = coarse.repeat(4, 1).repeat(4, 2) + rng.integers(
    -30, 31, (1, side, side, 3)
  )
  return np.clip(x, 0, 255).astype(np.uint8)


def as_torch(x: Any) -> torch.Tensor:
  """What pytorch-fid is given: [0, 1], channels first."""
  return torch.tensor(x.transpose(0, 3, 1, 2)).float() / 255


def errors(net: Any, folded: Any, taps: list[str]) -> dict[str, float]:
  """Relative error of each tap, of norms."""
  x = images(IMAGES)
  run = jax.jit(
    lambda w, x: inception.forward(w, inception.scaled(x, 'pytorch'), taps)
  )
  found = run(folded, x)
  with torch.inference_mode():
    wanted = net(as_torch(x))
  gaps = {}
  for tap in taps:
    a, b = np.float64(found[tap]), np.float64(wanted[tap].numpy())
    gaps[tap] = float(np.linalg.norm(a - b) / np.linalg.norm(b))
  return gaps


def timed(run: Callable[[], Any]) -> tuple[float, float]:
  """Milliseconds (wall, CPU) an image."""
  wall, cpu = time.perf_counter(), time.process_time()
  run()
  wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
  return wall * 1e3 / IMAGES, cpu * 1e3 / IMAGES


def speed(net: Any, path: pathlib.Path) -> dict[str, Any]:
  """Both on the same bytes, in turns; each from bytes to 2048 features."""
  ours = features.load(
    f'inception-{SPEED_TAP}-pytorch',
    weights=str(path),
    image_shape=(32, 32, 3),
  )
  x = images(IMAGES)

  def run_ours() -> None:
    features.extract_all(ours, x, batch=BATCH)

  def run_torch() -> None:
    with torch.inference_mode():
      for start in range(0, IMAGES, BATCH):
        net(as_torch(x[start : start + BATCH]))

  run_ours()
  run_torch()  # both warm
  rows = [
    {'torch': timed(run_torch), 'ours': timed(run_ours)} for _ in range(PAIRS)
  ]
  return {
    'images': IMAGES,
    'batch': BATCH,
    'threads': THREADS,
    'pairs_ms_per_image_wall_cpu': rows,
    'ours_over_torch_wall': summary(
      [r['ours'][0] / r['torch'][0] for r in rows]
    ),
    'ours_over_torch_cpu': summary(
      [r['ours'][1] / r['torch'][1] for r in rows]
    ),
    'ours_cpu_ms': summary([r['ours'][1] for r in rows]),
    'torch_cpu_ms': summary([r['torch'][1] for r in rows]),
  }


def summary(values: list[float]) -> dict[str, float]:
  """Least, median and greatest."""
  return {
    'min': round(min(values), 4),
    'median': round(statistics.median(values), 4),
    'max': round(max(values), 4),
  }


def main() -> None:
  """Measures and writes `results.json`."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--weights', required=True)
  path = pathlib.Path(parser.parse_args().weights)
  torch.set_num_threads(THREADS)
  names = list(LAYERS)
  trunk = weights.load(path, names[: names.index(inception.LAST['768']) + 1])
  net = inception_torch.filled(inception_torch.Inception(), trunk)
  results: dict[str, Any] = {
    'jax': jax.__version__,
    'torch': torch.__version__,
    'devices': [d.device_kind for d in jax.devices()],
    'cores': len(os.sched_getaffinity(0)),
    'load_average': os.getloadavg(),
    'platform': platform.machine(),
    'weights_sha256': weights.digest(path),
    'public_weights': weights.genuine(trunk),
    'images': IMAGES,
    'error_public_weights': errors(net, trunk, ['64', '192', 'sfid', '768']),
  }
  print(results['error_public_weights'])
  random = inception_torch.randomise(inception_torch.Inception(), 0)
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, 'random.pth')
    torch.save(random.state_dict(), file)
    folded = weights.load(file, names)
    results['error_random_weights'] = errors(random, folded, [*inception.TAPS])
    print(results['error_random_weights'])
    results['speed'] = speed(random, file)
  print({k: v for k, v in results['speed'].items() if 'pairs' not in k})
  (HERE / 'results.json').write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
  main()
