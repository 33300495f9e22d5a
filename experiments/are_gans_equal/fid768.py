"""Scores the generators of a finished ablation on Inception's 768 dimensions.

  python experiments/are_gans_equal/fid768.py --workdir=runs/equal \
    --weights=WEIGHTS --images=200 --seeds=2 --out=FILE.csv

Nothing is trained: the last checkpoint of every program is read. FID-768 of so
few images is biased upwards, by the same number of images for every run, and is
never to be called FID. A row a run goes to `--out`; runs that have one are not
scored again.
"""

import argparse
import csv
import pathlib
from typing import Any

from gan_jax.ablation import folder as ablation_folder
from gan_jax.ablation.plan import AblationOptions, AblationPlan, make_plan
from gan_jax.ablation.population_run import make_population_run
from gan_jax.ablation.scoring import EvaluatorScorer
from gan_jax.config.schema import Config

COLUMNS = ('dataset', 'label', 'seed', 'images', 'fid768')


def rescored_plan(workdir: pathlib.Path, **scoring: Any) -> AblationPlan:
  """The plan of an ablation's folder, its runs scored otherwise."""
  record = ablation_folder.read_plan(workdir)
  assert record is not None, f'{workdir} holds no ablation'
  config = Config(**record['base'] | {'workdir': str(workdir)} | scoring)
  options = record['options']
  return make_plan(
    AblationOptions(
      config,
      tuple(options['vary']),
      options['seeds'],
      options['search_seed'],
      options['layout'],
    )
  )


def read_scored(path: pathlib.Path) -> set[tuple[str, str, str]]:
  """Dataset, label and seed of the runs that a file has; begins a new one."""
  if not path.is_file():
    path.write_text(','.join(COLUMNS) + '\n', encoding='utf-8')
  with open(path, encoding='utf-8') as file:
    return {
      (row['dataset'], row['label'], row['seed'])
      for row in csv.DictReader(file)
    }


def main() -> None:
  """Scores what the flags say."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--weights', required=True, help='of Inception')
  parser.add_argument('--images', type=int, default=200)
  parser.add_argument('--seeds', type=int, default=2, help='of each cell')
  parser.add_argument('--out', required=True)
  args = parser.parse_args()
  out = pathlib.Path(args.out)
  scored = read_scored(out)
  plan = rescored_plan(
    pathlib.Path(args.workdir),
    features='inception-768',
    weights=args.weights,
    metrics='fid',
    eval_samples=args.images,
  )
  scorer = EvaluatorScorer(plan)
  for number, members in enumerate(plan.programs):
    if not plan.is_finished(number):
      print(f'program {number + 1} has not ended', flush=True)
      continue
    run = make_population_run(plan, number, plan.program_folder(number))
    ends = zip(members, run.outcomes(), run.generators(), strict=True)
    for member, (outcome, _), generator in ends:
      label = plan.cells[member.cell].label
      name = (plan.base.dataset, label, str(member.seed))
      if member.seed >= args.seeds or name in scored or outcome != 'done':
        continue
      scores = scorer.score(member.cell, *generator)['scores']
      value = next(v for k, v in scores.items() if k.startswith('fid@'))
      with open(out, 'a', encoding='utf-8', newline='') as file:
        csv.writer(file).writerow([*name, args.images, round(value, 4)])
      print(*name, value, flush=True)
    run.close()


if __name__ == '__main__':
  main()
