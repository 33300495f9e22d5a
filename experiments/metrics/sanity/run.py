"""Do distances grow with the damage, on real data?

Holds against MNIST's training images: its test images; the same with normal
noise, blurred, and without some of the classes; and Fashion-MNIST. Fréchet
distance on the features of a classifier of MNIST, and on Inception's
768-dimensional tap where its weights are given. Each set is scored under
several draws of images and noise, the damaged images of a draw being those
that are also scored whole. Writes `results.json`.

  python experiments/metrics/sanity/run.py --inception=WEIGHTS [--data_dir=DIR]
"""

import argparse
import json
import pathlib
import time
from typing import Any

import numpy as np
import scipy.ndimage

from gan_jax import data
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.runtime import provenance, sharding

HERE = pathlib.Path(__file__).parent
METRICS = ['fid']
# Standard deviation of the noise, in pixel values; of the blur, in pixels;
# classes that are left out, of ten.
DAMAGE = {'noise': (10, 25, 60), 'blur': (0.5, 0.8, 1.2), 'dropped': (1, 3, 6)}


def damaged(images: Any, kind: str, level: float, rng: Any) -> Any:
  """Images of a damage."""
  if kind == 'noise':
    noise = rng.normal(0, level, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)
  if kind == 'blur':
    sigma = (0, level, level, 0)
    smooth = scipy.ndimage.gaussian_filter(images.astype(np.float32), sigma)
    return np.rint(smooth).astype(np.uint8)
  return images


def plan() -> list[tuple[str, str, float]]:
  """The sets: name, kind of damage, level."""
  sets = [('MNIST, test', 'none', 0.0), ('Fashion-MNIST, test', 'none', 0.0)]
  for kind, levels in DAMAGE.items():
    sets += [(f'{kind} {level:g}', kind, level) for level in levels]
  return sets


def measure(
  features: str, weights: str, count: int, draws: int, data_dir: str
) -> dict[str, Any]:
  """Scores of every set by one kind of features."""
  reference = data.load('mnist', data_dir=data_dir)
  evaluator = Evaluator(
    reference,
    None,
    METRICS,
    samples=count,
    features=features,
    weights=weights,
    data_dir=data_dir,
    mesh=sharding.make_mesh(1),
  )
  found: dict[str, Any] = {}
  started = time.process_time()
  for name, kind, level in plan():
    fashion = name.startswith('Fashion')
    source = data.load(
      'fashion_mnist[test]' if fashion else 'mnist[test]', data_dir=data_dir
    )
    by_draw = []
    for draw in range(draws):
      rng = np.random.default_rng(draw)
      order = rng.permutation(source.size)
      x, labels = source.array()[order], source.labels()[order]
      if kind == 'dropped':  # others in the place of those that are left out
        x = x[labels >= level]
      x = damaged(x[:count], kind, level, rng)
      by_draw.append(evaluator.score_samples(x, seed=draw))
    found[name] = {
      metric: [scores[evaluator.primary[metric]] for scores in by_draw]
      for metric in METRICS
    }
    print(features, name, found[name], flush=True)
  return {
    'protocol': evaluator.protocol,
    'images': count,
    'draws': draws,
    'scores': found,
    'checks': checks(found),
    'cpu_sec': round(time.process_time() - started, 1),
  }


def checks(found: dict[str, Any]) -> dict[str, bool]:
  """What was to be shown, of every metric and in every draw."""
  told = {}
  for metric in METRICS:
    base = np.array(found['MNIST, test'][metric])
    far = np.array(found['Fashion-MNIST, test'][metric])
    for kind, levels in DAMAGE.items():
      rows = [base] + [
        np.array(found[f'{kind} {level:g}'][metric]) for level in levels
      ]
      told[f'{metric} grows with {kind}'] = bool(
        (np.diff(np.array(rows), axis=0) > 0).all()
      )
    told[f'{metric} of Fashion is 10 times that of test'] = bool(
      (far > 10 * np.abs(base)).all()
    )
  return told


def main() -> None:
  """Measures what the flags say."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data_dir', default='')
  parser.add_argument('--inception', default='', help='file of its weights')
  parser.add_argument(
    '--classifier', default='classifier-mnist', help='empty: not'
  )
  parser.add_argument('--images', type=int, default=3000)
  parser.add_argument('--draws', type=int, default=3)
  parser.add_argument('--inception_images', type=int, default=300)
  parser.add_argument('--inception_draws', type=int, default=1)
  parser.add_argument('--out', default=str(HERE / 'results.json'))
  asked = parser.parse_args()
  out = pathlib.Path(asked.out)
  results: dict[str, Any] = {}
  if out.is_file():  # kinds of features may be measured one after another
    results = json.loads(out.read_text())
  results['environment'] = provenance.versions()
  runs = []
  if asked.classifier:
    runs.append((asked.classifier, '', asked.images, asked.draws))
  if asked.inception:
    runs.append(
      (
        'inception-768',
        asked.inception,
        asked.inception_images,
        asked.inception_draws,
      )
    )
  for features, weights, count, draws in runs:
    results[features] = measure(features, weights, count, draws, asked.data_dir)
    out.write_text(json.dumps(results, indent=1) + '\n')
  for features, *_ in runs:
    for check, held in results[features]['checks'].items():
      print(features, check, 'yes' if held else 'NO')


if __name__ == '__main__':
  main()
