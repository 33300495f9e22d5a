"""What the feed gives and takes: images a CPU second, a step's cost, memory.

`python experiments/scale/feed.py --folder=FOLDER --out=RESULTS.json` on a set
that `make.py` made. Rates are of CPU seconds, user and system, of a process and
its workers; steps of the resident and the streamed feed are measured in turn,
in one process, and their ratio is the median of the rounds.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from gan_jax import data
from gan_jax.config.schema import Config
from gan_jax.training import setup as setup_lib
from gan_jax.training.run_loop import RunLoop

SIDE = 64


def cpu() -> float:
  """CPU seconds of this process and of those that it waited for."""
  used = (
    resource.getrusage(who)
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  )
  return sum(u.ru_utime + u.ru_stime for u in used)


def feed_rates(name: str, **how: Any) -> dict[str, list[int]]:
  """Images a CPU second of the feed alone: the first epoch and two more."""
  found = {}
  for batch in (64, 512):
    images = data.load(name, **how)
    feed = data.make_feed(images, seed=0, batch_size=batch, residence='stream')
    steps, rates = images.size // batch, []
    for epoch in range(3):
      began = cpu()
      for step in range(steps):
        feed.chunk(epoch * steps + step, 1)
      rates.append(round(steps * batch / (cpu() - began)))
    found[f'batch {batch}'] = rates
  return found


def decode_rates(name: str, count: int, **how: Any) -> dict[str, Any]:
  """Images a CPU second, and a second, where files are decoded."""
  images = data.load(name, keep_rows=False, **how)
  feed = data.make_feed(images, seed=0, batch_size=64, residence='stream')
  began, clock = cpu(), time.perf_counter()
  for step in range(count // 64):
    feed.chunk(step, 1)
  clock = time.perf_counter() - clock
  feed._forget()  # ends the workers, so that their seconds are known
  return {
    'images': count,
    'per_cpu_sec': round(count / (cpu() - began)),
    'per_sec': round(count / clock),
  }


def step_ratio(rounds: int, name: str, **how: Any) -> dict[str, Any]:
  """CPU-ms a step of the resident and of the streamed feed, in turn."""
  with tempfile.TemporaryDirectory() as scratch:
    loops, spent = {}, {'device': [], 'stream': []}
    for residence in spent:
      config = Config(
        dataset=name, residence=residence, steps=10**6, report=False, **how
      )
      folder = pathlib.Path(scratch) / residence
      (folder / 'samples').mkdir(parents=True)
      loops[residence] = RunLoop(setup_lib.build(config), folder)
    for _ in range(rounds):
      for residence, loop in loops.items():
        began, first = time.process_time(), loop.step
        for _ in range(6):
          loop.dispatch(loop.pace.count())
        took = time.process_time() - began
        spent[residence].append(1000 * took / (loop.step - first))
    waits = {k: round(v.waited / v.trained_sec, 4) for k, v in loops.items()}
    for loop in loops.values():
      loop.close()
  kept = {k: v[2:] for k, v in spent.items()}  # the first ones compile
  ratios = np.divide(kept['stream'], kept['device'])
  return {
    **{f'cpu_ms_{k}': round(float(np.median(v)), 3) for k, v in kept.items()},
    'ratio': round(float(np.median(ratios)), 4),
    'ratios': [round(float(r), 4) for r in ratios],
    'data_wait': waits,
  }


RESIDENT = """
import sys, jax
from gan_jax import data
from gan_jax.runtime import sharding
images = data.load(sys.argv[1])
x = jax.device_put(data.make_feed(
  images, seed=0, batch_size=8, residence='device').constants)
x.block_until_ready()
peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]
print(int(peak) / 1024, images.nbytes)
"""


def resident_memory(name: str, tiny: str) -> dict[str, float]:
  """Memory of a process by a set on its CPU device, over that of a tiny set."""
  peaks = {}
  for key, which in (('tiny', tiny), ('set', name)):
    line = [sys.executable, '-c', RESIDENT, which]
    text = subprocess.run(line, check=True, capture_output=True, text=True)
    peak, size = map(float, text.stdout.split())
    peaks[key] = peak
  more = (peaks['set'] - peaks['tiny']) * 2**20
  return {
    'peak_mib_tiny': round(peaks['tiny'], 1),
    'peak_mib': round(peaks['set'], 1),
    'times_its_pixels': round(more / size, 3),
  }


def main() -> None:
  """Measures all of it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--folder', type=pathlib.Path, required=True)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--rounds', type=int, default=9)
  args = parser.parse_args()
  found: dict[str, Any] = {'command': ' '.join(sys.argv)}

  def note(name: str, value: Any) -> None:
    found[name] = value
    print(name, value, flush=True)
    args.out.write_text(json.dumps(found, indent=2) + '\n')

  with tempfile.TemporaryDirectory() as scratch:
    place = pathlib.Path(scratch)
    how = {'data_dir': str(place / 'root'), 'image_size': SIDE}
    own = f'folder:{args.folder}'
    data.write_rows(own, place / 'rows', **how)
    name = f'prepared:{place / "rows"}'
    tiny_images = data.load(name).source.gather(np.arange(64))
    tiny = data.as_dataset(tiny_images)
    data.prepared.write(place / 'tiny', lambda: data.prepared.plan_of(tiny, {}))
    note('feed alone, images a CPU second by epoch', feed_rates(name))
    note('decoded, all cores', decode_rates(own, 4096, **how))
    note('resident memory', resident_memory(name, f'prepared:{place / "tiny"}'))
    # An epoch of few images is over, and all checksums compared, at once.
    few = data.load(name).source.gather(np.arange(512))
    few_set = data.as_dataset(few)
    data.prepared.write(
      place / 'few', lambda: data.prepared.plan_of(few_set, {})
    )
    few_name = f'prepared:{place / "few"}'
    mlp = {'network': 'mlp', 'batch_size': 64}
    note('mlp', step_ratio(args.rounds, few_name, **mlp))
    dcgan = {'network': 'dcgan', 'width': 8, 'batch_size': 64}
    note('dcgan', step_ratio(args.rounds, few_name, **dcgan))


if __name__ == '__main__':
  main()
