"""How much of the movie is its seed? Its game again, for more seeds at once.

Plays `movie.flags` with both objectives, all seeds as one compiled program, and
measures the Wasserstein-1 distance of G (4,001 evenly spaced z) to the data.
Writes `movie_seeds.json`.

  python experiments/gaussian_1d/seeds.py [--seeds=8]
"""

import argparse
import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from gan_jax.config import schema
from gan_jax.training import setup

HERE = pathlib.Path(__file__).parent
POINTS = 4001


def distances(objective: str, seeds: int) -> list[float]:
  """Of each seed's last G, in units of x."""
  preset = schema.load_flagfile(HERE / 'movie.flags')
  preset = dataclasses.replace(preset, objective=objective, devices=1)
  parts = setup.build(preset)
  z = jnp.linspace(-1, 1, POINTS)[:, None]

  def game(seed: Any) -> Any:
    state = parts.trainer.init(jax.random.key(seed))

    def one(state: Any, _: Any) -> Any:
      batch = parts.batch_of(parts.feed.constants, (), state)
      return parts.trainer.step(state, batch)[0], None

    state = jax.lax.scan(one, state, length=preset.steps)[0]
    generator = parts.networks.generator
    return generator.apply(state.g.params, {}, z, train=False)[0][:, 0]

  made = np.sort(jax.jit(jax.vmap(game))(jnp.arange(seeds)), axis=1)
  truth = scipy.stats.norm(4, 1.25).ppf((np.arange(POINTS) + 0.5) / POINTS)
  return [round(float(x), 4) for x in np.abs(made - truth).mean(axis=1)]


def main() -> None:
  """Measures both and the difference on shared seeds."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seeds', type=int, default=8)
  args = parser.parse_args()
  results: dict[str, Any] = {'jax': jax.__version__}
  for objective in ('minimax', 'non_saturating'):
    started = time.process_time()
    away = distances(objective, args.seeds)
    results[objective] = {
      'wasserstein1': away,
      'mean': round(float(np.mean(away)), 4),
      'std': round(float(np.std(away, ddof=1)), 4),
      'cpu_sec': round(time.process_time() - started),
    }
  pair = [results[o]['wasserstein1'] for o in ('minimax', 'non_saturating')]
  less = np.subtract(*pair)
  half = scipy.stats.t.ppf(0.975, len(less) - 1) * scipy.stats.sem(less)
  results['difference'] = {
    'mean': round(float(less.mean()), 4),
    'interval_95': [round(float(less.mean() + s * half), 4) for s in (-1, 1)],
  }
  text = json.dumps(results, indent=2)
  (HERE / 'movie_seeds.json').write_text(text + '\n')
  print(text)


if __name__ == '__main__':
  main()
