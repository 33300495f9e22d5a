"""What logs, samples and checkpoints cost in this process, over a bare scan.

Prints one line of JSON: CPU microseconds a step, of all threads, to the last
byte that is written. `measure.py` runs it for two versions in turns.
"""

import dataclasses
import json
import sys
import tempfile
import time
from typing import Any

import jax

from gan_jax.config.schema import Config
from gan_jax.runtime import preemption
from gan_jax.training import setup, workdir
from gan_jax.training.run_loop import RunLoop

STEPS, EVERY = 10_000, 1_000
# Less often than ever: what is due at the end is outside the clock.
NEVER = 10**9
TOY = Config(
  dataset='ring',
  network='mlp',
  width=32,
  depth=2,
  steps=STEPS,
  log_every=NEVER,
  sample_every=NEVER,
  checkpoint_every=NEVER,
  report=False,
  devices=1,
)
OFTEN = {
  'none': {},
  'log': {'log_every': EVERY},
  'samples': {'sample_every': EVERY},
  'checkpoints': {'checkpoint_every': EVERY},
  'all': dict.fromkeys(
    ('log_every', 'sample_every', 'checkpoint_every'), EVERY
  ),
  'log, every 100': {'log_every': 100},
}


def bare() -> float:
  """A scan over the same step, and nothing else."""
  parts = setup.build(TOY)

  def scan(state: Any) -> Any:
    def body(state: Any, _: Any) -> Any:
      batch = parts.batch_of((), (), state)
      return parts.trainer.step(state, batch)

    state, logs = jax.lax.scan(body, state, length=EVERY)
    return state, jax.tree.map(lambda x: x.mean(), logs)

  program = jax.jit(scan, donate_argnums=0).lower(parts.init()).compile()
  state, _ = jax.block_until_ready(program(parts.init()))
  before = time.process_time()
  for _ in range(STEPS // EVERY):
    state, logs = program(state)
    jax.device_get(logs)
  return (time.process_time() - before) / STEPS * 1e6


def trainer(often: dict[str, int]) -> float:
  """The trainer, from its second moment to the last that is written."""
  with tempfile.TemporaryDirectory() as folder:
    config = dataclasses.replace(TOY, workdir=folder, **often)
    parts = setup.build(config)
    with workdir.held(config) as path:
      loop = RunLoop(parts, path)
      _ = loop.program  # compiled outside the clock, as are
      loop.write_samples()  # what draws the samples
      loop.save()  # and what saves
      loop.checkpoints.wait()
      before = time.process_time()
      loop.run(preemption.Listener())
      loop.close()
      return (time.process_time() - before) / STEPS * 1e6


def main() -> None:
  """All of it, once."""
  with tempfile.TemporaryDirectory() as cache:
    jax.config.update('jax_compilation_cache_dir', cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    trainer(OFTEN['all'])  # warm
    found = {'bare': bare()}
    found |= {name: trainer(often) for name, often in OFTEN.items()}
    found['bare again'] = bare()
  sys.stdout.write(json.dumps(found) + '\n')


if __name__ == '__main__':
  main()
