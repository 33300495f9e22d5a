"""Our metrics beside those of other packages, on the same arrays.

Fréchet distance beside pytorch-fid (a matrix square root) and torch-fidelity
(eigenvalues of the product), KID and Inception Score beside torch-fidelity,
precision and recall beside torch-fidelity and prdc, density and coverage
beside prdc, MS-SSIM beside pytorch-msssim, transport beside POT. Sets: made-up
features of falling spectrum, 2048 and 768 wide, and scikit-learn's digits,
whose pixels are whole numbers, some always 0 (a singular covariance, ties).
Writes `results.json`.

  pip install torch torch-fidelity pytorch-fid prdc pytorch-msssim POT
  python experiments/metrics/independent/compare.py
"""

import importlib.metadata
import json
import pathlib
import sys
import unittest.mock
import warnings
from typing import Any

import numpy as np
import scipy.ndimage
import sklearn.datasets

from gan_jax.metrics import (
  fid,
  inception_score,
  kid,
  known_density,
  prdc,
  similarity,
  transport,
)

# The other packages load networks with torchvision on import. Only functions of
# arrays are called here, and it need not be there.
for name in 'datasets models models.inception transforms'.split():
  sys.modules[f'torchvision.{name}'] = unittest.mock.MagicMock()
for name in ('torchvision', 'torchvision.transforms.functional'):
  sys.modules[name] = unittest.mock.MagicMock()


import ot  # noqa: E402
import prdc as naeem  # noqa: E402
import pytorch_fid.fid_score  # noqa: E402
import pytorch_msssim  # noqa: E402
import torch  # noqa: E402
from torch_fidelity import (  # noqa: E402
  metric_fid,
  metric_isc,
  metric_kid,
  metric_prc,
)

HERE = pathlib.Path(__file__).parent
PACKAGES = (
  'jax numpy scipy torch torch-fidelity pytorch-fid prdc pytorch-msssim POT'
)
# (set, metric, other package): greatest difference, relative or absolute.
LIMITS = {'fid': 1e-4, 'inception_score': 1e-6, 'ms_ssim': 1e-5}
LIMIT = 1e-6

Row = dict[str, Any]


def row(
  data: str, metric: str, package: str, ours: float, theirs: float
) -> Row:
  """One comparison; distances are compared relatively, shares absolutely."""
  relative = metric in ('fid', 'inception_score', 'wasserstein1', 'swd_points')
  away = abs(ours - theirs) / (abs(theirs) if relative else 1)
  limit = LIMITS.get(metric, LIMIT)
  return {
    'data': data,
    'metric': metric,
    'package': package,
    'ours': ours,
    'theirs': float(theirs),
    'difference': float(away),
    'relative': relative,
    'limit': limit,
    'within': bool(away <= limit),
  }


def features(n: int, dim: int, seed: int, shift: float) -> Any:
  """Not negative, correlated, of a spectrum that falls by e every dim / 8."""
  rng = np.random.default_rng(seed)
  mix = np.random.default_rng(7).normal(size=(dim, dim))
  mix *= np.exp(-4 * np.arange(dim) / dim)[:, None]
  x = rng.normal(size=(n, dim)) @ mix / np.sqrt(dim) + 0.3 + shift
  return np.maximum(x, 0).astype(np.float32)


def frechet_rows(data: str, x: Any, y: Any, root: bool) -> list[Row]:
  """Fréchet distances; `root`: by a matrix square root as well (slow)."""
  ours = fid(x, y)['fid']
  moments = [
    (s.mean(0, dtype=np.float64), np.cov(np.float64(s), rowvar=False))
    for s in (x, y)
  ]
  stats = [dict(zip(('mu', 'sigma'), m, strict=True)) for m in moments]
  theirs = metric_fid.fid_statistics_to_metric(*stats, verbose=False)
  theirs = theirs[metric_fid.KEY_METRIC_FID]
  found = [row(data, 'fid', 'torch-fidelity', ours, theirs)]
  if root:
    (m1, s1), (m2, s2) = moments
    theirs = pytorch_fid.fid_score.calculate_frechet_distance(m1, s1, m2, s2)
    found.append(row(data, 'fid', 'pytorch-fid', ours, float(theirs)))
  return found


def kid_rows(data: str, x: Any, y: Any) -> list[Row]:
  """One subset that is the whole set: both packages draw the same."""
  n = min(len(x), len(y), 1000)
  x, y = np.float64(x[:n]), np.float64(y[:n])
  ours = kid(x, y, subsets=1, subset_size=n)['kid']
  theirs = metric_kid.kid_features_to_metric(
    torch.from_numpy(x),
    torch.from_numpy(y),
    kid_subsets=1,
    kid_subset_size=n,
    verbose=False,
  )[metric_kid.KEY_METRIC_KID_MEAN]
  return [row(data, 'kid', 'torch-fidelity', ours, theirs)]


def prdc_rows(data: str, x: Any, y: Any) -> list[Row]:
  """Both with their own k."""
  found = []
  for k in (3, 5):
    ours = prdc(x, y, k_pr=k, k_dc=k)
    theirs = naeem.compute_prdc(np.float64(x), np.float64(y), nearest_k=k)
    found += [
      row(data, f'{name} (k={k})', 'prdc', ours[name], float(theirs[name]))
      for name in ours
    ]
    both = metric_prc.prc_features_to_metric(
      torch.from_numpy(np.float64(y)),
      torch.from_numpy(np.float64(x)),
      prc_neighborhood=k,
      verbose=False,
      save_cpu_ram=False,
    )
    found += [
      row(data, f'{name} (k={k})', 'torch-fidelity', ours[name], both[name])
      for name in ('precision', 'recall')
    ]
  return found


def inception_rows() -> list[Row]:
  """One split: the order in which samples are dealt is each package's own."""
  logits = np.random.default_rng(0).normal(size=(5000, 1008)) * 4
  p = torch.from_numpy(logits).softmax(dim=1).numpy()
  ours = inception_score(p, splits=1)['inception_score']
  theirs = metric_isc.isc_features_to_metric(torch.from_numpy(logits), splits=1)
  theirs = theirs[metric_isc.KEY_METRIC_ISC_MEAN]
  return [
    row('logits', 'inception_score', 'torch-fidelity', ours, float(theirs))
  ]


def ms_ssim_rows() -> list[Row]:
  """Pairs of noisy images of blobs, of five scales."""
  rng = np.random.default_rng(0)
  base = scipy.ndimage.gaussian_filter(
    rng.normal(size=(4, 256, 256, 3)), (0, 8, 8, 0)
  )
  x = 128 + 900 * base + rng.normal(size=base.shape) * 20
  x = np.clip(x, 0, 255).astype(np.uint8)
  ours = similarity.pair_similarity(x[:2], x[2:])
  tensor = torch.from_numpy(np.float64(x)).permute(0, 3, 1, 2)
  theirs = pytorch_msssim.ms_ssim(
    tensor[:2], tensor[2:], data_range=255, size_average=False
  ).numpy()
  return [
    row(f'images {i}', 'ms_ssim', 'pytorch-msssim', float(a), float(b))
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True))
  ]


def transport_rows() -> list[Row]:
  """Sliced and exact transport of points in the plane."""
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) * 1.5 + 1
  d = np.float64(transport.draw_directions(rng, 64, 2))
  d /= np.linalg.norm(d, axis=0)
  theirs = ot.sliced_wasserstein_distance(x, y[:250], projections=d, p=1)
  ours = float(transport.distances_on_lines(x @ d, y[:250] @ d).mean())
  exact = ot.emd2([], [], ot.dist(x, y, metric='euclidean'))
  return [
    row('points', 'swd_points', 'POT', ours, float(theirs)),
    row(
      'points',
      'wasserstein1',
      'POT',
      known_density.wasserstein_2d(x, y),
      float(exact),
    ),
  ]


def main() -> None:
  """Compares everything and writes the results."""
  warnings.simplefilter('ignore')  # of the other packages
  digits = sklearn.datasets.load_digits().data.astype(np.float32)
  wide = features(5000, 2048, 0, 0.0), features(4000, 2048, 1, 0.02)
  few = features(1500, 768, 0, 0.0), features(600, 768, 1, 0.02)
  rows = [
    *frechet_rows('2048-d, 5000/4000', *wide, root=True),
    *frechet_rows('768-d, 1500/600', *few, root=False),
    *frechet_rows('digits, 900/897', digits[:900], digits[900:], root=True),
    *kid_rows('2048-d, 1000/1000', *wide),
    *kid_rows('digits, 897/897', digits[:900], digits[900:]),
    *prdc_rows('2048-d, 2000/1500', wide[0][:2000], wide[1][:1500]),
    *prdc_rows('digits, 900/897', digits[:900], digits[900:]),
    *inception_rows(),
    *ms_ssim_rows(),
    *transport_rows(),
  ]
  versions = {n: importlib.metadata.version(n) for n in PACKAGES.split()}
  results = {'versions': versions, 'rows': rows}
  (HERE / 'results.json').write_text(json.dumps(results, indent=1) + '\n')
  for r in rows:
    print(
      f'{r["data"]:20} {r["metric"]:18} {r["package"]:15} {r["ours"]:<20.12g}'
      f' {r["theirs"]:<20.12g} {r["difference"]:.1e} {r["within"]}'
    )


if __name__ == '__main__':
  main()
