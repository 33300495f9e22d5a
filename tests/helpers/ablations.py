"""A small ablation on `ring`, and its table, for tests."""

import csv
import dataclasses
import pathlib

from gan_jax.ablation.plan import Request
from helpers import small

TOY = small.ring(eval_samples=64, metrics='modes', devices=2)
# Two programs of two cells.
GRID = ('objective=minimax,hinge', 'lr_g+lr_d=1e-3,1e-2')


def request(
  path, *vary, seeds=2, only='', primary='', better='', published='', **changes
):
  """What `gan_jax.ablate` is asked for."""
  base = dataclasses.replace(TOY, workdir=str(path), **changes)
  return Request(
    base,
    vary or ('lr_g=1e-3,1e-2',),
    seeds,
    only=only,
    primary=primary,
    better=better,
    published=published,
  )


def rows(path):
  """The lines of results.csv."""
  with open(pathlib.Path(path) / 'results.csv', newline='') as file:
    return list(csv.DictReader(file))
