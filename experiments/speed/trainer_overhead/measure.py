"""What the trainer costs over a bare `lax.scan` of the same step.

For each preset, in turns: the trainer as a user runs it (data order, log,
TensorBoard, sample grids, checkpoints, at their default cadences) and a scan
over the very same train step with its data already in place. Compilation is
outside both. Writes `results.json` beside this file.

  python experiments/speed/trainer_overhead/measure.py
"""

import dataclasses
import json
import os
import pathlib
import platform
import statistics
import tempfile
import time
from typing import Any

import jax

from gan_jax.config.schema import Config
from gan_jax.runtime import preemption
from gan_jax.training import setup, workdir
from gan_jax.training.run_loop import RunLoop

HERE = pathlib.Path(__file__).parent
REPEATS = 10
TOY = Config(
  dataset='ring',
  network='mlp',
  batch_size=256,
  steps=5000,
  log_every=500,
  sample_every=2500,
  checkpoint_every=2500,
)
DIGITS = Config(dataset='digits', network='dcgan', steps=1000)
CASES = {
  'mlp on ring': TOY,
  'dcgan on digits, 8x8': DIGITS,
}


Times = tuple[float, float]


def clock() -> Times:
  """Wall and CPU seconds."""
  return time.perf_counter(), time.process_time()


class Bare:
  """A scan over the step, and nothing else."""

  def __init__(self, config: Config) -> None:
    """Compiles a scan of `block` steps."""
    self.parts = setup.build(config)
    parts = self.parts
    self.block = min(config.steps, 500)

    def scan(state: Any, constants: Any, chunk: Any) -> Any:
      def body(state: Any, item: Any) -> Any:
        batch = parts.batch_of(constants, item, state)
        return parts.trainer.step(state, batch)

      state, metrics = jax.lax.scan(body, state, chunk, length=self.block)
      return state, jax.tree.map(lambda m: m.mean(), metrics)

    self.chunk = jax.device_put(parts.feed.chunk(0, self.block))
    self.constants = jax.device_put(parts.feed.constants)
    jitted = jax.jit(scan, donate_argnums=0)
    self.program = jitted.lower(
      parts.init(), self.constants, self.chunk
    ).compile()

  def run(self) -> Times:
    """Seconds (wall, CPU) a step."""
    state = jax.block_until_ready(self.parts.init())
    blocks = self.parts.config.steps // self.block
    before = clock()
    for _ in range(blocks):
      state, _ = self.program(state, self.constants, self.chunk)
    jax.block_until_ready(state)
    return each(before, clock(), blocks * self.block)


def each(before: Times, after: Times, steps: int) -> Times:
  """Seconds (wall, CPU) a step between two moments."""
  return (after[0] - before[0]) / steps, (after[1] - before[1]) / steps


def run_trainer(config: Config) -> Times:
  """Seconds (wall, CPU) a step of the trainer, to its last checkpoint."""
  with tempfile.TemporaryDirectory() as folder:
    config = dataclasses.replace(config, workdir=folder)
    parts = setup.build(config)
    with workdir.held(config) as path:
      loop = RunLoop(parts, path)
      _ = loop.program  # compiled outside the clock, as is
      loop.write_samples()  # what draws the samples
      before = clock()
      loop.run(preemption.Listener())
      after = clock()
      loop.close()
  return each(before, after, config.steps)


def measure(config: Config) -> dict[str, Any]:
  """Trainer and bare scan in turns; the ratio of each pair."""
  config = dataclasses.replace(config, devices=1)
  bare = Bare(config)
  bare.run()
  run_trainer(config)  # both warm
  rows = []
  for _ in range(REPEATS):
    b, t = bare.run(), run_trainer(config)
    rows.append({'bare': b, 'trainer': t})
  ratio = [[r['trainer'][i] / r['bare'][i] for r in rows] for i in range(2)]
  return {
    'steps': config.steps,
    'pairs_sec_per_step_wall_cpu': rows,
    'ratio_wall': summary(ratio[0]),
    'ratio_cpu': summary(ratio[1]),
  }


def summary(values: list[float]) -> dict[str, float]:
  """Least, median and greatest."""
  return {
    'min': round(min(values), 4),
    'median': round(statistics.median(values), 4),
    'max': round(max(values), 4),
  }


def main() -> None:
  """Measures every case and writes `results.json`."""
  results: dict[str, Any] = {
    'jax': jax.__version__,
    'devices': [d.device_kind for d in jax.devices()],
    'cores': len(os.sched_getaffinity(0)),
    'platform': f'{platform.system()} {platform.machine()}',
    'repeats': REPEATS,
  }
  for name, config in CASES.items():
    results[name] = measure(config)
    print(name, results[name]['ratio_wall'], results[name]['ratio_cpu'])
  (HERE / 'results.json').write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
  main()
