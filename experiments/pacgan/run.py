"""Ring and grid with PacGAN's own networks, plain and packed, over seeds.

`python experiments/pacgan/run.py [--steps=N] [--seeds=K] [--together=M]`

The protocol of Lin et al. 2018 (arXiv:1712.04086, section 4.1, and their code):
both players move at once from one forward pass, Adam of rate 1e-4 and beta1 .8,
batches of 100 packs, 400 epochs of 100,000 samples (400,000 steps). Measured on
2,500 samples of G in evaluation mode: modes with a sample within three
deviations, the part of the samples that are so near one, and the divergence of
the counts of those from equal ones, KL(generated || uniform), in nats.

Every cell is one compiled program over `--together` seeds. Rows are appended to
results.jsonl as they are known, and those that are there are not run again.
"""

import functools
import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from gan_jax import data, networks, objectives
from gan_jax.game import Game
from gan_jax.metrics import modes
from gan_jax.state import Hyper
from gan_jax.step import Plan, init_state, make_train_step

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / 'results.jsonl'
PACKS, SAMPLES, CHUNK = 100, 2500, 1000
# Modes, high-quality % and reverse KL, each with its standard error of 10 runs.
PUBLISHED = {
  ('ring', 1): ((6.3, 0.5), (98.2, 0.2), (0.45, 0.09)),
  ('ring', 2): ((7.9, 0.1), (95.6, 2.0), (0.07, 0.03)),
  ('ring', 4): ((7.8, 0.1), (95.9, 1.4), (0.07, 0.02)),
  ('grid', 1): ((17.3, 0.8), (94.8, 0.7), (0.70, 0.07)),
  ('grid', 2): ((23.8, 0.7), (91.3, 0.8), (0.13, 0.04)),
  ('grid', 4): ((24.8, 0.2), (93.6, 0.6), (0.04, 0.01)),
}

flags.DEFINE_integer('steps', 400_000, 'steps of each run')
flags.DEFINE_integer('seeds', 10, 'runs of each cell, of seeds 0, 1, ...')
flags.DEFINE_integer('together', 1, 'seeds in one program (10 on a GPU)')
flags.DEFINE_list('datasets', ['ring', 'grid'], 'densities')
flags.DEFINE_list('packings', ['1', '2', '4'], 'samples in a pack')


def measure(density: data.Density, x: Any) -> dict[str, float]:
  """Modes, high-quality part and both KL of samples (n, 2)."""
  # What is no number is near no mode.
  near = np.where(np.isfinite(x), x, np.float32(1e6))
  return modes.modes(None, near, truth=density)


def programs(density: data.Density, packing: int) -> tuple[Any, Any, Any]:
  """Start, chunk of steps and samples of one seed, to be vmapped."""
  nets = networks.build('pacgan', density.shape, bounded=False, packing=packing)
  batch = PACKS * packing
  plan = Plan(
    Game(nets, objectives.OBJECTIVES['non_saturating']),
    batch_size=batch,
    schedule='simultaneous',
    decode=lambda item, key: density.sample(key, batch),
  )
  hyper = Hyper(lr_g=1e-4, lr_d=1e-4, beta1_g=0.8, beta1_d=0.8)
  step = make_train_step(plan)

  def start(seed: Any) -> Any:
    return init_state(jax.random.key(seed), plan, hyper)

  def chunk(state: Any) -> Any:
    def one(state: Any, _: Any) -> Any:
      return step(state, hyper, jnp.zeros((1, 1)))

    state, metrics = jax.lax.scan(one, state, None, length=CHUNK)
    return state, jax.tree.map(jnp.mean, metrics)

  def sample(state: Any) -> Any:
    key = jax.random.fold_in(state.key, 2**31)
    z = nets.sample_latent(key, SAMPLES)
    return nets.generator.apply(state.g.params, state.g.stats, z, train=False)[
      0
    ]

  return start, chunk, sample


@functools.cache
def compiled(name: str, packing: int) -> tuple[Any, Any, Any]:
  """The programs of a cell, over some seeds."""
  start, chunk, sample = programs(data.load(name), packing)
  return (
    jax.jit(jax.vmap(start)),
    jax.jit(jax.vmap(chunk), donate_argnums=0),
    jax.jit(jax.vmap(sample)),
  )


def cell(name: str, packing: int, seeds: list[int], steps: int) -> None:
  """Runs some seeds of one cell to the end and appends their rows."""
  density = data.load(name)
  start, chunk, sample = compiled(name, packing)
  began = time.perf_counter()
  state = start(jnp.asarray(seeds))
  for done in range(CHUNK, steps + 1, CHUNK):
    state, metrics = chunk(state)
    jax.block_until_ready(metrics)
    if done % (20 * CHUNK) == 0 or done == CHUNK:
      each = (time.perf_counter() - began) / done
      left = each * (steps - done) / 60
      print(
        f'{name} x{packing} {done}/{steps}, {left:.1f} min left', flush=True
      )
  for i, x in enumerate(np.asarray(sample(state))):
    row = {
      'dataset': name,
      'packing': packing,
      'seed': seeds[i],
      'steps': steps,
      **measure(density, x),
      'd_loss': float(metrics['d/loss'][i]),
      'finite': bool(np.isfinite(x).all()),
      'seconds': round((time.perf_counter() - began) / len(seeds), 1),
      'device': jax.devices()[0].device_kind,
      'jax': jax.__version__,
    }
    with open(RESULTS, 'a', encoding='utf-8') as file:
      file.write(json.dumps(row) + '\n')


def rows() -> list[dict[str, Any]]:
  """What was measured so far."""
  if not RESULTS.is_file():
    return []
  return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def table() -> str:
  """Mean and standard error over seeds beside the published ones."""
  lines = [
    '| density | pack | steps | seeds | modes | published | high quality, % |'
    ' published | reverse KL | published |',
    '|' + ' --- |' * 10,
  ]
  found = rows()
  for name, packing, steps in sorted(
    {(r['dataset'], r['packing'], r['steps']) for r in found},
    key=lambda c: (c[0] == 'grid', c[1], c[2]),
  ):
    mine = [
      r
      for r in found
      if (r['dataset'], r['packing'], r['steps']) == (name, packing, steps)
    ]
    columns = [name, str(packing), f'{steps:,}', str(len(mine))]
    published = PUBLISHED[name, packing]
    for key, scale, digits, (mean, error) in zip(
      ('modes', 'high_quality', 'reverse_kl'),
      (1, 100, 1),
      (1, 1, 2),
      published,
      strict=True,
    ):
      values = scale * np.array([r[key] for r in mine])
      ours = f'{values.mean():.{digits}f}'
      if len(values) > 1:
        spread = values.std(ddof=1) / np.sqrt(len(values))
        ours += f' ± {spread:.{digits}f}'
      columns += [ours, f'{mean} ± {error}']
    lines.append('| ' + ' | '.join(columns) + ' |')
  return '\n'.join(lines) + '\n'


def main(argv: list[str]) -> None:
  """Runs what is missing and writes the table."""
  del argv
  f = flags.FLAGS
  for name in f.datasets:
    for packing in map(int, f.packings):
      there = {
        r['seed']
        for r in rows()
        if (r['dataset'], r['packing'], r['steps']) == (name, packing, f.steps)
      }
      todo = [seed for seed in range(f.seeds) if seed not in there]
      for i in range(0, len(todo), f.together):
        cell(name, packing, todo[i : i + f.together], f.steps)
  (HERE / 'table.md').write_text(table(), encoding='utf-8')
  print(table())


if __name__ == '__main__':
  app.run(main)
