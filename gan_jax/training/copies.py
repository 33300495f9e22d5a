"""Generated samples beside their nearest training images: are they copies?"""

import sys
from typing import Any

import jax
import numpy as np

from gan_jax.data import Dataset, Density
from gan_jax.evaluation import references
from gan_jax.evaluation.evaluator import EvaluationError, Evaluator
from gan_jax.figures import images
from gan_jax.metrics import neighbours
from gan_jax.runtime import sharding

NEAREST = 5  # beside each sample
_MOST_BYTES = 2**29  # of training images that are searched


def sheet(
  evaluator: Evaluator, train: Dataset, params: Any, stats: Any, count: int
) -> bytes:
  """A PNG: a row for each sample, followed by what is nearest in pixels.

  Args:
    evaluator: of the run, whose samples are those of its first scores.
    train: what the generator was trained on; of a large set a part, said.
    params: of the generator.
    stats: its running statistics.
    count: samples.

  Raises:
    EvaluationError: of points, or samples that are not finite.
  """
  if isinstance(train, Density):
    raise EvaluationError(
      f'--neighbours={count}: is for images, and {train.name} is a density;'
      ' leave it out'
    )
  key, batches, fine, made = jax.random.key(0), [], True, 0
  params, stats = jax.device_put(
    (params, stats), sharding.replicated(evaluator.mesh)
  )
  while made < count:
    x, ok = evaluator.generate(params, stats, key, np.int32(made))
    fine &= bool(np.asarray(ok)[: count - made].all())
    batches.append(np.asarray(x))
    made += len(x)
  fake = np.concatenate(batches)[:count]
  if not fine:
    raise EvaluationError(
      f'--neighbours={count}: generated samples are not finite; use an earlier'
      ' --step'
    )
  most = max(NEAREST, _MOST_BYTES // int(np.prod(train.shape)))
  if most < train.size:
    text = f'warning: --neighbours: of {most} of {train.size} images'
    print(text, file=sys.stderr)
  known = references.pixels(train, min(most, train.size))
  which, _ = neighbours.neighbours(known, fake, k=min(NEAREST, len(known)))
  found = neighbours.beside(known, fake, which)
  columns = which.shape[1] + 1
  return images.png(images.enlarged(images.grid(found, columns)))
