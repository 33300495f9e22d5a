"""Ratios of speed beside those last recorded on this machine; warns, no more.

Each ratio is of two things done one after the other in each round, so that a
busy machine slows both: a step over a matrix product, a run over its bare scan,
the imports of `train` over JAX's. A first run records them, in a file of the
user's cache, by processor, cores and versions; later ones compare. It ends with
0 whatever it finds.

  python experiments/speed/guard/measure.py [--record] [--file=PATH]
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'overhead'))
import one  # noqa: E402

from gan_jax.config.resolve import make_trainer  # noqa: E402

Ways = tuple[Callable[[], Any], Callable[[], Any]]
SLOWER = 1.25  # times the last median: what is warned of
CACHE = pathlib.Path(os.environ.get('XDG_CACHE_HOME', '~/.cache')).expanduser()


def judge(now: Sequence[float], last: Sequence[float]) -> str:
  """What to say of the ratios of one thing; empty: nothing.

  The median must be greater by a quarter and every round worse than the last
  median, as rounds scatter by a tenth and more where other work goes on.

  >>> judge([1.0, 1.1, 1.3], [1.0, 1.0, 1.0])
  ''
  >>> judge([1.4, 1.5, 1.6], [1.0, 1.0, 1.0])
  '1.50 times what it was'
  """
  before = statistics.median(last)
  times = statistics.median(now) / before
  if times < SLOWER or min(now) <= before:
    return ''
  return f'{times:.2f} times what it was'


def machine() -> str:
  """What figures depend on besides this code."""
  with contextlib.suppress(OSError):
    lines = pathlib.Path('/proc/cpuinfo').read_text('utf-8').splitlines()
    names = [x.split(':')[1].strip() for x in lines if 'model name' in x]
    return f'{names[0]}, {len(names)} cores, jax {jax.__version__}'
  return f'{platform.processor()}, {os.cpu_count()} cores, {jax.__version__}'


def step(shape: tuple[int, ...], count: int, **options: Any) -> Any:
  """Some steps of a game on noise, compiled."""
  trainer = make_trainer(shape, **options)
  x = np.random.default_rng(0).uniform(-1, 1, (1, 32, *shape))

  def run(state: Any, x: Any) -> Any:
    def body(state: Any, _: Any) -> Any:
      return trainer.step(state, x)[0], None

    return jax.lax.scan(body, state, length=count)[0]

  args = jax.jit(trainer.init)(jax.random.key(0)), jnp.asarray(x, jnp.float32)
  program = jax.jit(run).lower(*args).compile()
  return lambda: jax.block_until_ready(program(*args))


def product() -> Any:
  """A few matrix products."""
  a = jnp.ones((768, 768))
  multiply = jax.jit(lambda a: a @ a @ a)
  return lambda: [multiply(a).block_until_ready() for _ in range(10)]


def imports(words: str) -> Callable[[], float]:
  """CPU seconds of a process with these imports."""

  def run() -> float:
    before = os.times()
    subprocess.run([sys.executable, '-c', f'import {words}'], check=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])

  return run


def cpu(way: Callable[[], Any]) -> float:
  """CPU seconds of a call; what it returns, where it has measured itself."""
  before = time.process_time()
  found = way()
  return found if isinstance(found, float) else time.process_time() - before


def quiet_run() -> float:
  """A toy run that writes everything, microseconds a step."""
  with contextlib.redirect_stderr(io.StringIO()):
    return one.trainer(one.OFTEN['all'])


def measure(rounds: int) -> dict[str, list[float]]:
  """Ratios by name, a number a round."""
  one.STEPS = 3000
  one.TOY = one.TOY.__class__(**{**vars(one.TOY), 'steps': one.STEPS})
  multiply = product()
  ways: Mapping[str, Ways] = {
    'step of mlp over a product': (
      step((2,), 1000, network='mlp', width=32, depth=2),
      multiply,
    ),
    'step of dcgan over a product': (
      step((16, 16, 1), 4, network='dcgan', width=32),
      multiply,
    ),
    'run over bare scan': (quiet_run, one.bare),
    'imports of train over those of jax': (
      imports('gan_jax.training.run_loop, gan_jax.training.train'),
      imports('jax'),
    ),
  }
  for name in ('step of mlp over a product', 'step of dcgan over a product'):
    for way in ways[name]:
      way()
  found: dict[str, list[float]] = {name: [] for name in ways}
  for _ in range(rounds):
    for name, (ours, other) in ways.items():
      found[name].append(round(cpu(ours) / cpu(other), 4))
  return found


def main() -> None:
  """Measures, then records or compares."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--record', action='store_true', help='anew')
  parser.add_argument(
    '--file', type=pathlib.Path, default=CACHE / 'gan_jax' / 'speed.json'
  )
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as cache:
    jax.config.update('jax_compilation_cache_dir', cache)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    now, name = measure(options.rounds), machine()
  records: dict[str, Any] = {}
  with contextlib.suppress(OSError, ValueError):
    records = json.loads(options.file.read_text('utf-8'))
  last = records.get(name, {})
  for key, ratios in now.items():
    text = f'{key}: {statistics.median(ratios):.3g}'
    if key in last:
      text += f', {statistics.median(last[key]):.3g} when it was recorded'
      if slower := judge(ratios, last[key]):
        print(f'warning: {key}: {slower}', flush=True)
    print(text, flush=True)
  if options.record or now.keys() - last.keys():
    records[name] = now if options.record else {**now, **last}
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_text(json.dumps(records, indent=1) + '\n')
    print(f'recorded in {options.file} for {name}')


if __name__ == '__main__':
  main()
