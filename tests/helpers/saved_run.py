"""A run as training leaves it, with checkpoints that cost no training."""

import dataclasses
import pathlib

import jax
import numpy as np

from gan_jax.evaluation.score_file import ScoreFile
from gan_jax.runtime.checkpoint import Checkpoints
from gan_jax.training import setup, workdir
from helpers import small


def write_run(path, saved=(4, 8, 12), outcome='done', **changes):
  """Writes a run of random parameters, of other ones at each step."""
  config = dataclasses.replace(small.ring(depth=0), workdir=str(path))
  config = dataclasses.replace(config, **changes)
  run = setup.build(config)
  path = pathlib.Path(path)
  path.mkdir(parents=True)
  workdir.claim(config)
  workdir.RunFile(path).update(
    **setup.describe(run), outcome=outcome, references={}
  )
  checkpoints = Checkpoints(path, keep=len(saved))
  meta = {'fingerprint': run.feed.fingerprint, 'train_sec': 0.0}
  for step in saved:
    rng = np.random.default_rng(step)

    def draw(x, rng=rng):
      if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
      if not jax.dtypes.issubdtype(x.dtype, np.floating):
        return np.zeros(x.shape, x.dtype)
      return rng.normal(size=x.shape).astype(x.dtype)

    state = jax.tree.map(draw, run.shapes)
    checkpoints.save(step, state, meta)
    checkpoints.wait()
  checkpoints.close()
  return path


def rows(path):
  """The scores of a run."""
  return ScoreFile(pathlib.Path(path) / 'metrics.jsonl').rows()
