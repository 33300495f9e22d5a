"""Scores the generators of a finished ablation on Inception's 768 dimensions.

  python experiments/are_gans_equal/fid768.py --workdir=runs/equal \
    --weights=WEIGHTS --images=200 --seeds=2 --out=FILE.csv

Nothing is trained: the last checkpoint of every program is read. FID-768 of so
few images is biased upwards, by the same number of images for every run, and is
never to be called FID. A row a run goes to `--out`; those there are not scored
again.
"""

import argparse
import csv
import dataclasses
import json
import pathlib
from typing import Any

from gan_jax.ablation.scorers import Judges

from gan_jax.ablation import plan as ablation_plan
from gan_jax.config.schema import Config
from gan_jax.training.population_loop import Cohort

COLUMNS = ('dataset', 'label', 'seed', 'images', 'fid768')


def plan_of(folder: pathlib.Path, **scoring: Any) -> ablation_plan.Plan:
  """The plan of an ablation's folder, its runs scored otherwise."""
  told = json.loads((folder / 'plan.json').read_text())
  names = {field.name for field in dataclasses.fields(Config)}
  base = {k: v for k, v in told['base'].items() if k in names}
  config = Config(**base | {'workdir': str(folder)} | scoring)
  asked = told['asked']
  request = ablation_plan.Request(
    config, tuple(asked['vary']), asked['seeds'], asked['search_seed']
  )
  return ablation_plan.make_plan(request)


def main() -> None:
  """Scores what the flags say."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--weights', required=True, help='of Inception')
  parser.add_argument('--images', type=int, default=200)
  parser.add_argument('--seeds', type=int, default=2, help='of each cell')
  parser.add_argument('--out', required=True)
  asked = parser.parse_args()
  out = pathlib.Path(asked.out)
  there: set[tuple[str, str, str]] = set()
  if out.is_file():
    with open(out, encoding='utf-8') as file:
      there = {
        (row['dataset'], row['label'], row['seed'])
        for row in csv.DictReader(file)
      }
  else:
    out.write_text(','.join(COLUMNS) + '\n', encoding='utf-8')
  plan = plan_of(
    pathlib.Path(asked.workdir),
    features='inception-768',
    weights=asked.weights,
    metrics='fid',
    eval_samples=asked.images,
  )
  judges = Judges(plan)
  for number, members in enumerate(plan.programs):
    if not plan.finished(number):
      print(f'program {number + 1} has not ended', flush=True)
      continue
    folder = plan.program_folder(number)
    cohort = Cohort([member.config for member in members], folder)
    ends = zip(members, cohort.outcomes(), cohort.generators(), strict=True)
    for member, (kind, _), generator in ends:
      label = plan.cells[member.cell].label
      name = (plan.base.dataset, label, str(member.seed))
      if member.seed >= asked.seeds or name in there or kind != 'done':
        continue
      scores = judges.scores(member.config, *generator)['scores']
      value = next(v for k, v in scores.items() if k.startswith('fid@'))
      with open(out, 'a', encoding='utf-8', newline='') as file:
        csv.writer(file).writerow([*name, asked.images, round(value, 4)])
      print(*name, value, flush=True)
    cohort.close()


if __name__ == '__main__':
  main()
