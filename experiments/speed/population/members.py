"""What a member of a population costs, by how many there are.

Each case is compiled for several numbers of members on one device; they take
turns, and the least and the median of the rounds are told. `all at once` is
vmap without blocks. Writes `members.json`.

  taskset -c 0 python experiments/speed/population/members.py [--only=mlp]
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import time
from typing import Any

import jax
import numpy as np

from gan_jax.config.schema import Config
from gan_jax.training import setup
from gan_jax.training.population_program import Member, PopulationProgram

HERE = pathlib.Path(__file__).parent
MLP = Config(dataset='ring', network='mlp', width=32, depth=2, latent_dim=2)
DIGITS = Config(dataset='digits', width=16, network='dcgan')
CASES = {
  'mlp': (MLP, (1, 8, 64, 256), 50),
  'dcgan': (DIGITS, (1, 8, 64, 256), 2),
  'infogan': (
    dataclasses.replace(
      DIGITS, network='infogan', image_size=28, width=16, batch_size=16
    ),
    (1, 8, 64),
    1,
  ),
}


class Case:
  """Some members' steps, compiled."""

  def __init__(
    self, config: Config, count: int, steps: int, block: int
  ) -> None:
    """Compiles; `block` 0 leaves the choice to the rule."""
    config = dataclasses.replace(config, devices=1)
    parts = setup.build(config)
    members = [Member(seed) for seed in range(count)]
    code = PopulationProgram(parts, members, jax.devices()[:1])
    if block:
      code.block = block
    self.facts = {'layout': code.layout, 'block': code.block}
    self.count, self.steps = count, steps
    seeds = np.arange(count, dtype=np.int32)
    init = jax.jit(lambda seeds: code.init(seeds, {}, code.names))
    self._state = init(seeds)
    self._constants = parts.feed.constants
    one = parts.feed.chunk(0, steps)
    self._chunk = jax.tree.map(lambda x: np.stack([x] * count), one)
    self._program = code.lower(
      self._state, self._constants, self._chunk
    ).compile()
    self()

  def __call__(self) -> float:
    """CPU-ms of a step of a member."""
    before = time.process_time()
    self._state = self._program(
      self._state, self._constants, self._chunk, np.int32(self.steps)
    )
    jax.block_until_ready(self._state)
    took = time.process_time() - before
    return 1e3 * took / self.steps / self.count


def main() -> None:
  """Measures."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--only', default=','.join(CASES))
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--blocks', default='', help='sizes to try, of 256')
  options = parser.parse_args()
  path = HERE / 'members.json'
  told: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
  for name in options.only.split(','):
    config, counts, steps = CASES[name]
    cases = {str(n): Case(config, n, steps * (1 + 7 // n), 0) for n in counts}
    if name == 'mlp':
      most = counts[-1]
      blocks = [most, *map(int, filter(None, options.blocks.split(',')))]
      for block in blocks:
        cases[f'{most} by {block}'] = Case(config, most, steps, block)
    rounds = [
      {key: case() for key, case in cases.items()}
      for _ in range(options.rounds)
    ]
    rows = {
      key: {
        **case.facts,
        'least_ms': round(min(r[key] for r in rounds), 4),
        'median_ms': round(statistics.median(r[key] for r in rounds), 4),
      }
      for key, case in cases.items()
    }
    told[name] = {'jax': jax.__version__, 'batch': config.batch_size, **rows}
    for key, row in rows.items():
      print(name, key, row, flush=True)
    path.write_text(json.dumps(told, indent=2) + '\n')


if __name__ == '__main__':
  main()
