"""How good is the classifier, and what does it say of real stacks?

Trains the classifier that `--features=classifier` trains, for each seed anew,
and records its accuracy on the test split, its hash and its CPU time. With the
one of seed 0 it then counts the modes of real stacks of three digits, five
times 25,600 of them: no generator can be asked for a better score. Writes
`results.json`.

  python experiments/metrics/classifier/run.py [--data_dir=DIR]
"""

import argparse
import json
import pathlib
import tempfile
import time
from typing import Any

import jax

from gan_jax import data
from gan_jax.evaluation.evaluator import Evaluator
from gan_jax.features import classifier
from gan_jax.metrics import class_modes
from gan_jax.runtime import provenance, sharding
from gan_jax.runtime.checkpoint import digest, to_host

HERE = pathlib.Path(__file__).parent
# Each dataset with the seeds that a classifier of it is trained from.
TRAINED = {'mnist': (0, 1, 2), 'fashion_mnist': (0,), 'digits': (0, 1, 2)}
STACKS, DRAWS = 25_600, 5


def train(name: str, seed: int, data_dir: str) -> dict[str, Any]:
  """Accuracy, hash and cost of a classifier that is trained now."""
  images = data.load(name, data_dir=data_dir)
  assert isinstance(images, data.SampleSet)
  images.array(), images.labels()  # reading them is not its cost
  classifier.RECIPE['seed'] = seed
  began = time.process_time(), time.perf_counter()
  with tempfile.TemporaryDirectory() as empty:
    trained, facts = classifier.trained_on(
      name, images.shape, data_dir, pathlib.Path(empty)
    )
  took = time.process_time() - began[0], time.perf_counter() - began[1]
  classifier.RECIPE['seed'] = 0
  return {
    'dataset': name,
    'seed': seed,
    'accuracy': trained.accuracy,
    'sha256': digest(to_host(trained.params)),
    'fingerprint': facts['fingerprint'],
    'cpu_sec': round(took[0], 1),
    'wall_sec': round(took[1], 1),
  }


def stacks(name: str, data_dir: str) -> list[dict[str, Any]]:
  """Scores of real stacks, by their classified and by their true classes."""
  reference = data.load(name.partition('[')[0], data_dir=data_dir)
  real = data.load(name, data_dir=data_dir)
  assert isinstance(reference, data.SampleSet)
  assert isinstance(real, data.SampleSet)
  evaluator = Evaluator(
    reference,
    None,
    ['class_modes'],
    samples=STACKS,
    features='classifier',
    data_dir=data_dir,
    mesh=sharding.make_mesh(1),
  )
  x, labels = real.array(), real.labels()
  classes = reference.labels()
  rows = []
  for draw in range(DRAWS):
    part = slice(draw * STACKS, (draw + 1) * STACKS)
    rows.append(
      {
        'stacks': name,
        'draw': draw,
        'classified': evaluator.score_samples(x[part]),
        'true': class_modes(labels[part], labels=classes, classes=1000),
      }
    )
  return rows


def main() -> None:
  """Trains, counts and writes `results.json`."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--data_dir', default='')
  data_dir = parser.parse_args().data_dir
  began = time.process_time()
  results: dict[str, Any] = {
    'versions': provenance.versions(),
    'device': jax.devices()[0].device_kind,
    'recipe': dict(classifier.RECIPE),
    'classifiers': [],
    'real_stacks': [],
  }
  for name, seeds in TRAINED.items():
    for seed in seeds:
      results['classifiers'].append(train(name, seed, data_dir))
      print(results['classifiers'][-1], flush=True)
  for name in ('stacked_mnist', 'stacked_mnist[test]', 'stacked_digits'):
    results['real_stacks'] += stacks(name, data_dir)
    print(results['real_stacks'][-1], flush=True)
  results['cpu_sec'] = round(time.process_time() - began, 1)
  (HERE / 'results.json').write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
  main()
