"""The folder of an ablation, written without one.

Also a command, to look at the report of one:
  python tests/helpers/ablation_folder.py FOLDER
"""

import csv
import io
import itertools
import json
import pathlib
import sys

import numpy as np
import PIL.Image

OBJECTIVES = {
  'minimax': 0.34,
  'non_saturating': 0.19,
  'hinge': 0.185,
  'least_squares': 0.22,
  'wasserstein': 0.55,
  'relativistic': 0.205,
}
RATES = {0.0001: 1.3, 0.0002: 1.0, 0.001: 1.15}
STEPS = 5000


def plan_of(vary, seeds, **changes):
  """plan.json of a grid."""
  names = list(vary)
  cells = [
    {
      'label': ', '.join(
        f'{n}={v}' for n, v in zip(names, values, strict=True)
      ),
      'values': dict(zip(names, values, strict=True)),
    }
    for values in itertools.product(*vary.values())
  ]
  words = ' '.join(
    f'--vary={name}={",".join(map(str, values))}'
    for name, values in vary.items()
  )
  return {
    'command': f'python -m gan_jax.ablate --workdir=runs/ring {words}'
    f' --seeds={len(seeds)}',
    'base': {
      'dataset': 'ring',
      'network': 'mlp',
      'batch_size': 256,
      'steps': STEPS,
      'lr_g': 0.0002,
      'flip': False,
    },
    'vary': {name: list(values) for name, values in vary.items()},
    'seeds': list(seeds),
    'metrics': ['swd', 'modes'],
    'primary': 'swd',
    'better': 'lower',
    'environment': {
      'command': 'python',
      'versions': {'gan_jax': '0.1.0', 'jax': '0.10.2', 'numpy': '2.4.6'},
      'python': '3.11.7',
      'platform': 'Linux',
      'devices': ['cpu'],
      'processes': 1,
      'commit': 'abc1234',
    },
    'protocol': {
      'samples': 10000,
      'ema': True,
      'evaluation_seeds': 3,
      'swd': {'projections': 512, 'reference': 'exact samples'},
    },
    'published': None,
    'cells': cells,
    **changes,
  }


def row_of(index, cell, seed, outcome, step, scores):
  """A line of results.csv."""
  done = outcome == 'done'
  row = {'cell': index, 'label': cell['label'], **cell['values'], 'seed': seed}
  row |= {'outcome': outcome, 'step': step}
  row |= {name: x if done else '' for name, x in scores.items()}
  for name, x in scores.items():
    row[f'evaluation_std_{name}'] = abs(x) * 0.03 if done else ''
  return row


def write(folder, plan, rows, programs=()):
  """The folder's files; programs: (members, arrays, pictures) of each."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'plan.json').write_text(json.dumps(plan))
  table = io.StringIO()
  writer = csv.DictWriter(table, list(rows[0]) if rows else ['cell', 'seed'])
  writer.writeheader()
  writer.writerows(rows)
  (folder / 'results.csv').write_text(table.getvalue())
  for number, (members, arrays, pictures) in enumerate(programs):
    program = folder / 'programs' / f'{number:03d}'
    (program / 'samples').mkdir(parents=True)
    (program / 'members.json').write_text(json.dumps(members))
    np.savez(program / 'stats.npz', **arrays)
    for place, picture in enumerate(pictures):
      picture.save(program / 'samples' / f'member_{place:04d}.png')
  return folder


def picture(rng, badness, side=120):
  """Samples of a ring of 8 modes, the more of them missing the worse."""
  angles = 2 * np.pi * np.arange(8) / 8
  there = rng.permutation(8)[: max(1, round(8 - 10 * badness))]
  which = rng.choice(there, 600)
  x = np.stack([np.cos(angles[which]), np.sin(angles[which])], axis=1)
  x = x + 0.3 * badness * rng.normal(size=x.shape)
  at = np.clip(((x / 1.4 + 1) / 2 * side).astype(int), 0, side - 1)
  image = np.full((side, side, 3), 255, np.uint8)
  image[at[:, 1], at[:, 0]] = (27, 138, 58)
  return PIL.Image.fromarray(image)


def curves_of(rng, badness, outcomes, ends, count=50):
  """stats.npz of a cell's members."""
  steps = np.linspace(STEPS / count, STEPS, count).astype(int)
  ends = np.array(ends)
  alive = (steps[:, None] < ends) | (np.array(outcomes) == 'done')
  noise = rng.normal(size=(3, count, len(ends)))
  fall = np.exp(-steps[:, None] / (STEPS / 6)) + badness
  return {
    'step': steps,
    'alive': alive,
    'game/jsd_bound': 0.5 * fall + 0.02 * noise[0],
    'd/prob_fake': 0.5 - 0.4 * fall * np.exp(0.1 * noise[1]),
    'g/grad_norm': 0.3 * np.exp(0.5 * noise[2]) + fall,
    'd/loss': 1.3 + 0.1 * noise[0],
  }


def grid(folder, seeds=8, objectives=OBJECTIVES, pictures=True):
  """Objectives by three rates: some runs diverged, one cell failed."""
  rng = np.random.default_rng(0)
  published = {
    'source': 'Somebody et al. 2018, arXiv:0000.00000, table 1',
    'rows': {
      'minimax': [0.41, 0.05],
      'non_saturating': [0.2, None],
      'wasserstein': [0.3, 0.1],
      'began': [0.2, 0.1],
    },
  }
  plan = plan_of(
    {'objective': list(objectives), 'lr_d': list(RATES)},
    range(seeds),
    published=published,
  )
  luck = 0.02 * rng.normal(size=seeds)
  rows, programs = [], {}
  for index, cell in enumerate(plan['cells']):
    objective, lr = cell['values'].values()
    middle = objectives[objective] * RATES[lr]
    for seed in range(seeds):
      outcome, step = 'done', STEPS
      if objective == 'minimax' and lr == 0.001 and seed % 2:
        outcome, step = 'diverged', 317 * (seed + 1)
      if objective == 'wasserstein' and lr == 0.001 and seed != 2:
        outcome, step = 'diverged', 400 + seed
      if objective == 'least_squares' and lr == 0.001 and seed == 3:
        outcome, step = 'diverged', 4100
      if objective == 'relativistic' and lr == 0.001:
        outcome, step = 'failed', ''
      scores = {
        'swd': middle * float(np.exp(0.12 * rng.normal())) + luck[seed],
        'modes': float(rng.binomial(8, 1 - middle / 3)),
      }
      rows.append(row_of(index, cell, seed, outcome, step, scores))
    members = programs.setdefault(objective, ([], [], []))
    ours = rows[-seeds:]
    if ours[0]['outcome'] == 'failed':
      continue
    members[0].extend(
      {'cell': index, 'seed': r['seed'], 'values': cell['values']} for r in ours
    )
    members[1].append(
      curves_of(
        rng, middle, [r['outcome'] for r in ours], [r['step'] for r in ours]
      )
    )
    if pictures:
      members[2].extend(picture(rng, middle) for _ in ours)
  joined = [
    (
      members,
      {
        k: np.concatenate([part[k] for part in parts], axis=1)
        if k != 'step'
        else parts[0][k]
        for k in parts[0]
      },
      images,
    )
    for members, parts, images in programs.values()
  ]
  return write(folder, plan, rows, joined)


def small(
  folder, scores, outcomes=None, better='lower', extra=(), seeds=None, **changes
):
  """An ablation of one flag: scores (cells, seeds), None where none is."""
  seeds = seeds if seeds is not None else range(len(scores[0]))
  vary = {'objective': [f'game_{i}' for i in range(len(scores))]}
  plan = plan_of(vary, seeds, better=better, metrics=['swd'], **changes)
  rows = []
  for index, cell in enumerate(plan['cells']):
    for seed, score in zip(seeds, scores[index], strict=True):
      outcome = (outcomes or {}).get((index, seed), 'done')
      row = row_of(index, cell, seed, 'done', 100, {'swd': 0.0})
      row |= {'outcome': outcome, 'swd': '' if score is None else score}
      rows.append(row)
  return write(folder, plan, [*rows, *extra])


if __name__ == '__main__':
  from gan_jax.ablation.report import write_ablation_report

  print(write_ablation_report(grid(sys.argv[1])))
