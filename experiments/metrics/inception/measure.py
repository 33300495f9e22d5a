"""The FID Inception and the Fréchet distance beside pytorch-fid's.

With the public weights (taps as far as they are given) and with random ones
(every tap), the relative error of each tap. Then, in turns on the same threads,
the CPU time of features and of the distance: ours, and pytorch-fid's own
network and distance. Needs torch, torchvision and pytorch-fid, which the
project does not. Writes `results.json` beside this file.

  python experiments/metrics/inception/measure.py --weights=PATH
"""

import argparse
import json
import os
import pathlib
import platform
import sys
import tempfile
from typing import Any

# Threads that wait must not be counted as threads that work.
os.environ['OMP_WAIT_POLICY'] = 'passive'

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

# torchvision of PyPI is built against another torch than the CPU's, whose
# compiled operators it does not find; the network needs none of them.
_LIBRARY = torch.library.Library('torchvision', 'DEF')
for _name in ('nms', 'qnms'):
  _LIBRARY.define(f'{_name}(Tensor a, Tensor b, float c) -> Tensor')

import pytorch_fid.inception  # noqa: E402
import scipy  # noqa: E402
from pytorch_fid.fid_score import calculate_frechet_distance  # noqa: E402

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parents[2] / 'tests'), str(HERE.parents[1])]

import timing  # noqa: E402
from helpers import inception_torch  # noqa: E402

from gan_jax import features  # noqa: E402
from gan_jax.features import inception, inception_weights  # noqa: E402
from gan_jax.metrics import frechet  # noqa: E402

THREADS = len(os.sched_getaffinity(0))
IMAGES, TURNS = 32, 7
BATCHES = 8, 32  # of pytorch-fid, whose default is 50; ours has its own
SAMPLES, DISTANCES = 10_000, 2  # features a side, turns, of the distance


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
    lambda w, x: inception.forward(w, inception.scale(x, 'pytorch'), taps)
  )
  found = run(folded, x)
  with torch.inference_mode():
    wanted = net(as_torch(x))
  gaps = {}
  for tap in taps:
    a, b = np.float64(found[tap]), np.float64(wanted[tap].numpy())
    gaps[tap] = float(np.linalg.norm(a - b) / np.linalg.norm(b))
  return gaps


def published(net: Any) -> Any:
  """pytorch-fid's own network with the weights of `net`; nothing downloaded."""
  pytorch_fid.inception.load_state_dict_from_url = lambda *a, **k: (
    net.state_dict()
  )
  return pytorch_fid.inception.InceptionV3().eval()


def speed(net: Any, path: pathlib.Path) -> dict[str, Any]:
  """From the same bytes to 2048 features."""
  ours = features.load(
    'inception-2048-pytorch', weights=str(path), sample_shape=(32, 32, 3)
  )
  theirs, x = published(net), images(IMAGES)

  def run_theirs(batch: int) -> Any:
    found = []
    with torch.no_grad():
      for start in range(0, IMAGES, batch):
        found.append(theirs(as_torch(x[start : start + batch]))[0])
    return np.concatenate([y.flatten(1).numpy() for y in found])

  def run_ours() -> Any:
    return features.extract_features(ours, x)['features']

  a, b = np.float64(run_ours()), np.float64(run_theirs(BATCHES[0]))
  run_theirs(BATCHES[-1])  # all warm
  ways: dict[str, Any] = {'ours': run_ours}
  for batch in BATCHES:
    ways[f'pytorch-fid, batch {batch}'] = lambda batch=batch: run_theirs(batch)
  rows = timing.in_turns(ways, TURNS)
  each = {
    way: [(w * 1e3 / IMAGES, c * 1e3 / IMAGES) for w, c in took]
    for way, took in rows.items()
  }
  found: dict[str, Any] = {
    'images': IMAGES,
    'our_batch': ours.batch,
    'threads': THREADS,
    'relative_difference': float(np.linalg.norm(a - b) / np.linalg.norm(b)),
    'ms_per_image_wall_cpu': each,
    'cpu_ms': {w: timing.summary([c for _, c in t]) for w, t in each.items()},
  }
  for i, name in enumerate(('wall', 'cpu')):
    found[f'ours_over_theirs_{name}'] = {
      way: timing.summary(
        [a[i] / b[i] for a, b in zip(each['ours'], took, strict=True)]
      )
      for way, took in each.items()
      if way != 'ours'
    }
  return found


def distances() -> dict[str, Any]:
  """From features of two sets to the distance, of full rank."""
  rng = np.random.default_rng(0)
  dim = inception.TAPS['2048']
  mix = rng.normal(size=(dim, dim)) / np.sqrt(dim)
  mix *= np.exp(-4 * np.arange(dim) / dim)[:, None]
  x, y = (
    np.maximum(rng.normal(size=(SAMPLES, dim)) @ mix + shift, 0).astype('f4')
    for shift in (0.3, 0.32)
  )
  values = {}

  def ours() -> None:
    values['ours'] = frechet.fid(x, y)['fid']

  def theirs() -> None:
    # It keeps features in float64, and takes moments by these two.
    sets = [np.float64(x), np.float64(y)]
    moments = [f(z) for z in sets for f in (_mean, _covariance)]
    values['pytorch-fid'] = float(calculate_frechet_distance(*moments))

  rows = timing.in_turns({'ours': ours, 'pytorch-fid': theirs}, DISTANCES)
  return {
    'samples': SAMPLES,
    'values': values,
    'sec_wall_cpu': rows,
    'cpu_sec': {w: timing.summary([c for _, c in t]) for w, t in rows.items()},
  }


def _mean(x: Any) -> Any:
  return np.mean(x, axis=0)


def _covariance(x: Any) -> Any:
  return np.cov(x, rowvar=False)


def total(speed: Any, distance: Any) -> dict[str, float]:
  """CPU seconds of a score of SAMPLES images, extrapolated from IMAGES.

  The features of one side, as those of the reference are kept by both, and the
  distance with the moments of both.
  """
  found = {}
  for way, took in speed['cpu_ms'].items():
    rest = distance['cpu_sec'][way.partition(',')[0]]['median']
    found[way] = round(took['median'] * SAMPLES / 1e3 + rest, 1)
  return found


def main() -> None:
  """Measures and writes `results.json`."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--weights', required=True)
  path = pathlib.Path(parser.parse_args().weights)
  torch.set_num_threads(THREADS)
  names = list(inception_weights.LAYERS)
  trunk = inception_weights.load(
    path, names[: names.index(inception.LAST['768']) + 1]
  )
  net = inception_torch.filled(inception_torch.Inception(), trunk)
  results: dict[str, Any] = {
    'jax': jax.__version__,
    'torch': torch.__version__,
    'scipy': scipy.__version__,
    'devices': [d.device_kind for d in jax.devices()],
    'cores': len(os.sched_getaffinity(0)),
    'load_average': os.getloadavg(),
    'platform': platform.machine(),
    'weights_sha256': inception_weights.digest(path),
    'public_weights': inception_weights.is_public(trunk),
    'images': IMAGES,
    'error_public_weights': errors(net, trunk, ['64', '192', 'sfid', '768']),
  }
  print(results['error_public_weights'])
  random = inception_torch.randomise(inception_torch.Inception(), 0)
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, 'random.pth')
    torch.save(random.state_dict(), file)
    folded = inception_weights.load(file, names)
    results['error_random_weights'] = errors(random, folded, [*inception.TAPS])
    print(results['error_random_weights'])
    results['speed'] = speed(random, file)
  print(results['speed']['cpu_ms'], results['speed']['ours_over_theirs_cpu'])
  results['distance'] = distances()
  print(results['distance'])
  results['extrapolated_cpu_sec'] = total(results['speed'], results['distance'])
  print(results['extrapolated_cpu_sec'])
  (HERE / 'results.json').write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
  main()
