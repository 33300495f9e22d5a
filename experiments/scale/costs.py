"""What each cost does as work grows: images, rows of a log, parameters, runs.

`python experiments/scale/costs.py --out=FOLDER` measures, fits and draws:
starts on folders of 10^3 to 10^6 tiny images (20,000 distinct ones, the rest
hard links), logs of 10^3 to 10^5 rows (and that of `rows.json` in the same
folder), checkpoints of 10^4 to 3 x 10^7 parameters, ablations of 16 to 1,024
runs. Each in a process of its own, whose
CPU seconds (with those of its workers) and peak memory the kernel counts.
What was measured is kept: the same call goes on.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
import PIL.Image

SIDE, DISTINCT = 16, 20_000
START = """
import sys
from gan_jax import data
images = data.load(f'folder:{sys.argv[1]}', data_dir=sys.argv[2])
feed = data.make_feed(images, seed=0, batch_size=64, residence='stream')
feed.chunk(0, 1)
"""
FEED = """
import sys, time
from gan_jax import data
images = data.load(f'folder:{sys.argv[1]}', data_dir=sys.argv[2])
feed = data.make_feed(images, seed=0, batch_size=64, residence='stream')
feed.chunk(0, 1)
began = time.process_time()
for step in range(1, 2001):
  feed.chunk(step, 1)
print((time.process_time() - began) / 128000)
"""
LOG = """
import sys, pathlib
from gan_jax.runtime import records
from gan_jax.figures import curves
from gan_jax.figures.columns import Columns
path, count, what = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if what == 'write':
  names = [f'a/{i}' for i in range(18)]
  with open(path, 'w', encoding='utf-8') as file:
    for step in range(1, count + 1):
      row = {name: 0.5 + step % 97 / 1000 for name in names}
      file.write(records.format_line({'step': step, **row}))
elif what == 'resume':
  records.cut_lines(path, count * 9 // 10, {})
else:
  curves.curves(Columns(records.scan_lines(path, {})), {})
"""
CHECKPOINT = """
import sys
import numpy as np
from gan_jax.runtime.checkpoint import Checkpoints
kept = Checkpoints(sys.argv[1])
if sys.argv[3] == 'save':
  x = np.random.default_rng(0).normal(size=int(sys.argv[2])).astype('f')
  kept.save(1, {'x': x}, {})
  kept.wait()
elif sys.argv[3] == 'read':
  kept.read_flat(1)
kept.close()
"""
ABLATE = (
  *('--dataset=ring', '--network=mlp', '--width=8', '--depth=1'),
  *('--steps=20', '--batch_size=16', '--metrics=modes', '--eval_samples=256'),
  '--vary=objective=non_saturating,minimax',
  '--vary=lr_g=.001,.002,.003,.004',
)
UNITS = {
  'cpu_sec': 'CPU seconds',
  'peak_mib': 'peak memory, MiB',
  'disk_mib': 'disk, MiB',
  'us': 'microseconds an image',
}


def measure(line: list[str]) -> dict[str, float]:
  """CPU seconds and peak memory of a process; what it prints as a number."""
  process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
  text = process.stdout.read()
  _, status, used = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise SystemExit(f'{line}: {process.returncode}')
  found = {
    'cpu_sec': round(used.ru_utime + used.ru_stime, 2),
    'peak_mib': round(used.ru_maxrss / 1024, 1),
  }
  try:
    found['us'] = round(1e6 * float(text), 3)
  except ValueError:
    pass
  return found


def disk(path: pathlib.Path) -> float:
  """MiB of files."""
  files = [path] if path.is_file() else path.rglob('*')
  size = sum(p.stat().st_size for p in files if p.is_file())
  return round(size / 2**20, 3)


def make_folder(place: pathlib.Path, count: int) -> None:
  """So many tiny PNGs in 1,000 folders at the most; a larger one goes on."""
  base = place.parent / 'distinct'
  base.mkdir(exist_ok=True)
  for i in range(count):
    folder = place / f'{i % 1000:03d}'
    if i < 1000:
      folder.mkdir(parents=True, exist_ok=True)
    source = base / f'{i % DISTINCT:05d}.png'
    if i < DISTINCT and not source.exists():
      noise = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
      image = PIL.Image.fromarray(noise).resize((SIDE, SIDE))
      image.save(source, compress_level=1)
    path = folder / f'{i:07d}.png'
    if not path.exists():
      os.link(source, path)


def images(place: pathlib.Path, count: int) -> dict[str, dict[str, float]]:
  """The first start, the second and the feed of a folder of images."""
  folder, root = place / 'images', place / f'root{count}'
  make_folder(folder, count)
  words = [sys.executable, '-c', START, str(folder), str(root)]
  found = {'first start': measure(words), 'second start': measure(words)}
  found['first start']['disk_mib'] = disk(root)
  if count >= 1000:  # else nothing is kept
    feed = measure([sys.executable, '-c', FEED, *words[3:]])
    found['feed, streamed'] = {'us': feed['us']}
  shutil.rmtree(root, ignore_errors=True)  # of few images nothing is kept
  return found


def log_rows(place: pathlib.Path, count: int) -> dict[str, dict[str, float]]:
  """Resume and report of a log."""
  path = place / 'stats.jsonl'
  words = [sys.executable, '-c', LOG, str(path), str(count)]
  written = measure([*words, 'write'])
  found = {'log, report': measure([*words, 'report'])}
  found['log, report']['disk_mib'] = disk(path)
  found['log, resume'] = measure([*words, 'resume'])
  found['log, written'] = {'cpu_sec': written['cpu_sec']}
  return found


def checkpoints(place: pathlib.Path, count: int) -> dict[str, dict[str, float]]:
  """A checkpoint of so many parameters, saved and read."""
  folder = place / f'run{count}'
  words = [sys.executable, '-c', CHECKPOINT, str(folder), str(count)]
  found = {'checkpoint, saved': measure([*words, 'save'])}
  found['checkpoint, saved']['disk_mib'] = disk(folder)
  found['checkpoint, read'] = measure([*words, 'read'])
  shutil.rmtree(folder)
  return found


def ablation(place: pathlib.Path, count: int) -> dict[str, dict[str, float]]:
  """An ablation of so many runs in 8 cells, with its report."""
  workdir = place / f'ablation{count}'
  line = [sys.executable, '-m', 'gan_jax.ablate', f'--workdir={workdir}']
  found = measure([*line, f'--seeds={count // 8}', *ABLATE])
  found['disk_mib'] = disk(workdir)
  shutil.rmtree(workdir)
  return {'ablation': found}


WORK = {
  log_rows: (100, 1000, 10_000, 100_000),
  checkpoints: (100, 10_000, 1_000_000, 10_000_000, 30_000_000),
  ablation: (16, 256, 1024),
  images: (100, 1000, 10_000, 100_000, 1_000_000),
}


def note_rows(results: dict[str, Any], found: dict[str, Any]) -> None:
  """Adds what `rows.py` found of one long log."""
  kept = found['rows'] * 9 // 10
  report = {**found['report'], 'disk_mib': round(found['log_mib'] * 0.9, 3)}
  own = results.setdefault('log_rows', {})
  own[str(kept)] = {'log, report': report}
  own[str(found['rows'])] = {'log, resume': found['resume']}


def fit(counts: list[int], costs: list[float]) -> tuple[float, float, float]:
  """Constant a, slope b and power p of a + b n^p: the least is the constant.

  By a straight line through the logarithms of what exceeds it by a tenth.
  """
  n, cost = np.array(counts, float), np.array(costs)
  constant = float(cost[0])
  more = cost - constant
  far = more > 0.1 * max(constant, 1e-9)
  if far.sum() < 2:  # too few for a power
    return constant, max(0.0, float(more[-1] / n[-1])), 1.0
  power, level = np.polyfit(np.log(n[far]), np.log(more[far]), 1)
  return constant, float(np.exp(level)), float(power)


def table(results: dict[str, Any]) -> dict[str, Any]:
  """Each cost by name: where it was measured, and its fit."""
  found: dict[str, Any] = {}
  for by_count in results.values():
    for count, costs in sorted(by_count.items(), key=lambda x: int(x[0])):
      for what, values in costs.items():
        for unit, value in values.items():
          entry = found.setdefault(
            f'{what}: {UNITS[unit]}', {'n': [], 'cost': []}
          )
          entry['n'].append(int(count))
          entry['cost'].append(value)
  for entry in found.values():
    a, b, p = fit(entry['n'], entry['cost'])
    entry['fit'] = {'constant': a, 'slope': b, 'power': round(p, 3)}
  return found


def draw(found: dict[str, Any], path: pathlib.Path) -> None:
  """One panel a unit, points and fits on logarithmic axes."""
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(2, 2, figsize=(9, 9), layout='constrained')
  for axis, unit in zip(axes.flat, UNITS.values(), strict=True):
    for name, entry in found.items():
      what, _, own = name.partition(': ')
      if own != unit:
        continue
      points = axis.plot(entry['n'], entry['cost'], 'o', ms=4, label=what)
      n = np.geomspace(entry['n'][0], entry['n'][-1])
      f = entry['fit']
      curve = f['constant'] + f['slope'] * n ** f['power']
      axis.plot(n, curve, lw=1, color=points[0].get_color())
    axis.set(xscale='log', yscale='log', title=unit)
    axis.set_xlabel('images, rows, parameters, runs')
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 1.0), max(high, 10.0))
    how = {'loc': 'upper left', 'bbox_to_anchor': (0, -0.16), 'ncols': 2}
    axis.legend(fontsize=8, frameon=False, **how)
    axis.spines[['top', 'right']].set_visible(False)
  figure.savefig(path)


def main() -> None:
  """Measures what has not been measured, fits and draws."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--scratch', default=None, help='where sets are made')
  args = parser.parse_args()
  path = args.out / 'costs.json'
  results = json.loads(path.read_text())['measured'] if path.exists() else {}
  if (args.out / 'rows.json').exists():
    note_rows(results, json.loads((args.out / 'rows.json').read_text()))
  with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
    for work, counts in WORK.items():
      own = results.setdefault(work.__name__, {})
      for count in counts:
        if str(count) not in own:
          own[str(count)] = work(pathlib.Path(scratch), count)
          print(work.__name__, count, own[str(count)], flush=True)
          every = {'measured': results, 'table': table(results)}
          path.write_text(json.dumps(every, indent=2) + '\n')
  found = table(results)
  path.write_text(
    json.dumps({'measured': results, 'table': found}, indent=2) + '\n'
  )
  draw(found, args.out / 'costs.svg')
  for name, entry in found.items():
    f = entry['fit']
    print(
      f'{name}: {f["constant"]:.3g} + {f["slope"]:.3g} n^{f["power"]:.2f};'
      f' at {entry["n"][-1]:,}: {entry["cost"][-1]:,}'
    )


if __name__ == '__main__':
  main()
