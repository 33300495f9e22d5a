"""What the feed gives and takes: images a CPU second, a step's cost, memory.

`python experiments/scale/feed.py --folder=FOLDER --out=RESULTS.json` on a set
that `make.py` made. Rates are of CPU seconds, user and system, of a process and
its workers. Where files are decoded a torch `DataLoader` is measured in turn
with us, of a torch that lies in `--torch` or is installed. Steps of the
resident and the streamed feed are measured in turn, in one process on one core.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from record import recorder

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


TORCH = """
import json, sys, time
sys.path.append(sys.argv[2])
import torch.utils.data as tud
import numpy as np, PIL.Image
from gan_jax.runtime.workers import _find
resize_and_crop = _find('gan_jax.data.pictures:resize_and_crop')  # without JAX
files = json.load(open(sys.argv[1]))
workers, count = int(sys.argv[3]), int(sys.argv[4])
class Files(tud.Dataset):
  def __len__(self):
    return len(files)
  def __getitem__(self, i):
    with PIL.Image.open(files[i]) as image:
      return resize_and_crop(image, 64, 3)
if __name__ == '__main__':
  how = {'batch_size': 64, 'num_workers': workers, 'shuffle': True}
  loader, seen = iter(tud.DataLoader(Files(), **how, prefetch_factor=4)), 0
  seen += len(next(loader))
  began = time.perf_counter()
  while seen < count:
    seen += len(next(loader))
  print((count - 64) / (time.perf_counter() - began))
"""
OURS = """
import sys, time
from gan_jax import data
from gan_jax.runtime import workers
workers.count_cores = lambda: int(sys.argv[3])
name, root, count = sys.argv[1], sys.argv[2], int(sys.argv[4])
images = data.load(name, keep_rows=False, image_size=64, data_dir=root)
feed = data.make_feed(images, seed=0, batch_size=64, residence='stream')
feed.chunk(0, 1)
began = time.perf_counter()
for step in range(1, count // 64):
  feed.chunk(step, 1)
print((count - 64) / (time.perf_counter() - began))
feed._forget()  # ends the workers, so that their seconds are known
"""


def timed(line: list[str]) -> tuple[float, float]:
  """What a process prints, and CPU seconds of it and of its own."""
  began = cpu()
  done = subprocess.run(line, check=True, capture_output=True, text=True)
  return float(done.stdout), cpu() - began


def decode_rates(
  folder: pathlib.Path,
  kept: str,
  root: str,
  count: int,
  rounds: int,
  site: str,
) -> dict[str, Any]:
  """Images a second where files are decoded, beside a torch DataLoader.

  Those of a folder, and those that are kept as they are (`kept`). In turn, by
  the same number of workers, the same decoder and the same resize. Starts are
  left out: of the CPU seconds by taking off those of 256 images.
  """
  found: dict[str, Any] = {}
  name = f'folder:{folder}'
  data.load(name, data_dir=root, image_size=SIDE)  # is looked at once
  files = [str(path) for path in sorted(folder.rglob('*.jpg'))]
  with tempfile.NamedTemporaryFile('w', suffix='.json') as listing:
    json.dump(files, listing)
    listing.flush()
    for workers in (1, 2):
      spent: dict[str, Any] = {'ours': [], 'kept': [], 'torch': []}
      for i in range(rounds):
        for who in sorted(spent, reverse=bool(i % 2)):
          program, first = OURS, [kept if who == 'kept' else name, root]
          if who == 'torch':
            program, first = TORCH, [listing.name, site]
          runs = [
            timed([sys.executable, '-c', program, *first, str(workers), str(n)])
            for n in (256, count)
          ]
          cpu_ms = 1000 * (runs[1][1] - runs[0][1]) / (count - 256)
          spent[who].append((runs[1][0], cpu_ms))
      rates = {who: np.array(found) for who, found in spent.items()}
      found[f'{workers} workers'] = {
        'images': count,
        **{f'per_sec_{k}': v[:, 0].round(1).tolist() for k, v in rates.items()},
        **{f'cpu_ms_{k}': v[:, 1].round(3).tolist() for k, v in rates.items()},
        **{
          f'{who} over torch: ratio_per_sec, ratio_cpu_ms': np.median(
            rates[who] / rates['torch'], axis=0
          )
          .round(3)
          .tolist()
          for who in ('ours', 'kept')
        },
      }
  return found


def step_ratio(rounds: int, name: str, **how: Any) -> dict[str, Any]:
  """CPU-ms and wall ms a step of the resident and the streamed feed, in turn.

  On one core: of each pair of rounds the ratio, first one and then the other
  being the first; the median, and the interval of 95% of it by resampling.
  """
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  with tempfile.TemporaryDirectory() as scratch:
    loops = {}
    for residence in ('device', 'stream'):
      config = Config(
        dataset=name, residence=residence, steps=10**6, report=False, **how
      )
      folder = pathlib.Path(scratch) / residence
      (folder / 'samples').mkdir(parents=True)
      loops[residence] = RunLoop(setup_lib.build(config), folder)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in loops}
    for i in range(rounds + 2):  # the first ones compile
      for residence in sorted(loops, reverse=bool(i % 2)):
        loop = loops[residence]
        began, clock, first = (
          time.process_time(),
          time.perf_counter(),
          loop.step,
        )
        for _ in range(4):
          loop.dispatch(loop.pace.count())
        steps = loop.step - first
        spent[residence].append(
          (
            1000 * (time.process_time() - began) / steps,
            1000 * (time.perf_counter() - clock) / steps,
          )
        )
    waits = {k: round(v.waited / v.trained_sec, 4) for k, v in loops.items()}
    for loop in loops.values():
      loop.close()
  kept = {k: np.array(v[2:]) for k, v in spent.items()}
  found: dict[str, Any] = {'rounds': rounds, 'data_wait': waits}
  stream = np.random.default_rng(0)
  for i, clock in enumerate(('cpu', 'wall')):
    ratios = kept['stream'][:, i] / kept['device'][:, i]
    drawn = stream.choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    found[clock] = {
      **{
        f'ms_{k}': round(float(np.median(v[:, i])), 3) for k, v in kept.items()
      },
      'ratio': round(float(np.median(ratios)), 4),
      'ratio_95': [round(float(low), 4), round(float(high), 4)],
      'ratios': [round(float(r), 4) for r in ratios],
    }
  return found


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
  parser.add_argument('--torch', default='', help='where torch is')
  parser.add_argument('--steps_only', action='store_true')
  parser.add_argument('--decode_only', action='store_true')
  parser.add_argument('--rounds', type=int, default=24)
  parser.add_argument('--decode_rounds', type=int, default=3)
  args = parser.parse_args()
  note = recorder(args.out)

  with tempfile.TemporaryDirectory() as scratch:
    place = pathlib.Path(scratch)
    how = {'data_dir': str(place / 'root'), 'image_size': SIDE}
    own = f'folder:{args.folder}'
    data.write_rows(own, place / 'rows', **how)
    name = f'prepared:{place / "rows"}'
    tiny_images = data.load(name).source.gather(np.arange(64))
    tiny = data.as_dataset(tiny_images)
    data.prepared.write(place / 'tiny', lambda: data.prepared.plan_of(tiny, {}))
    if not args.steps_only:
      if not args.decode_only:
        note('feed alone, images a CPU second by epoch', feed_rates(name))
      root = how['data_dir']
      data.write_rows(own, place / 'files', 'files', **how)
      kept = f'prepared:{place / "files"}'
      rates = decode_rates(
        args.folder, kept, root, 2048, args.decode_rounds, args.torch
      )
      note('decoded', rates)
      if args.decode_only:
        return
      rows = f'prepared:{place / "tiny"}'
      note('resident memory', resident_memory(name, rows))
    # An epoch of these is over, and all checksums compared, before it counts;
    # they are more than the caches of the processor hold.
    few = data.load(name).source.gather(np.arange(2048))
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
