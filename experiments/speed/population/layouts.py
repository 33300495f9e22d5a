"""vmap against map: CPU and wall time of a step of one member, by network.

Eight members on as many devices as there are cores. Writes `layouts.json`.

  python experiments/speed/population/layouts.py
"""

import os

os.environ['XLA_FLAGS'] = (
  f'--xla_force_host_platform_device_count={len(os.sched_getaffinity(0))}'
)

import dataclasses
import json
import pathlib
import tempfile
import time
from typing import Any

import jax

from gan_jax.config.schema import Config
from gan_jax.game import population
from gan_jax.game.state import count_parameters
from gan_jax.training import population_loop, population_program

CORES = jax.device_count()
HERE = pathlib.Path(__file__).parent
MEMBERS, DISPATCHES = 8, 5
MLP = Config(dataset='ring', network='mlp', depth=2, latent_dim=2)
CASES = {
  'mlp 32, batch 64': dataclasses.replace(MLP, width=32, batch_size=64),
  'mlp 32, batch 256': dataclasses.replace(MLP, width=32, batch_size=256),
  'mlp 64, batch 256': dataclasses.replace(MLP, width=64, batch_size=256),
  'mlp 128, batch 256': dataclasses.replace(MLP, width=128, batch_size=256),
  'mlp 256, batch 256': dataclasses.replace(MLP, width=256, batch_size=256),
  'dcgan on digits, batch 64': Config(dataset='digits', width=16),
}


def measure(config: Config, layout: str) -> dict[str, Any]:
  """Least milliseconds a member's step, over a few dispatches."""
  configs = [dataclasses.replace(config, seed=i) for i in range(MEMBERS)]
  with tempfile.TemporaryDirectory() as folder:
    members = population_program.members_of(configs)
    loop = population_loop.PopulationLoop(config, members, folder, layout)
    loop.calibrate(0.2)
    count = min(max(1, int(2 * loop.pace.wanted)), loop.pace.capacity)
    times = []
    for _ in range(DISPATCHES):
      cpu, wall = time.process_time(), time.perf_counter()
      loop.advance(count)
      took = time.process_time() - cpu, time.perf_counter() - wall
      times.append(tuple(1e3 * x / (count * MEMBERS) for x in took))
    shapes = loop.setup.shapes
    params = (shapes.g.params, shapes.d.params)
    loop.close()
  cpu, wall = (round(min(x), 4) for x in zip(*times, strict=True))
  work = count_parameters(params) * config.batch_size
  return {'cpu_ms': cpu, 'wall_ms': wall, 'work': work}


def main() -> None:
  """Measures every case under every layout."""
  told: dict[str, Any] = {
    'jax': jax.__version__,
    'cores': CORES,
    'members': MEMBERS,
  }
  for name, config in CASES.items():
    told[name] = {
      layout: measure(config, layout) for layout in population.LAYOUTS
    }
    print(name, told[name], flush=True)
  (HERE / 'layouts.json').write_text(json.dumps(told, indent=2) + '\n')


if __name__ == '__main__':
  main()
