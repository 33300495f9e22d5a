"""Resident memory of whole commands: of long runs, and of many samples.

  points    500,000 steps of a small MLP on `ring`, scored on the way
  streamed  20,000 steps of a small DCGAN on a folder, `--residence=stream`
  sample    5,000 and 50,000 samples of that DCGAN, as one .npz

Each part runs the commands as a user would and looks at their memory in /proc
as they go: VmRSS, VmHWM for the peak, and RssAnon, which leaves out the pages
of files (libraries), that a kernel takes back and reads again as it likes.
Writes `memory.csv` beside this file, what other parts wrote there kept, and
prints how far memory grew.

  python experiments/speed/memory/measure.py --work=DIR [--part=points]
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import numpy as np
import PIL.Image

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
COLUMNS = ('part', 'repeat', 'num', 'seconds', 'step')
MEMORY = {'anon_mib': 'RssAnon', 'rss_mib': 'VmRSS', 'peak_mib': 'VmHWM'}
ROWS = 50  # of one run, evenly over its steps
POINTS = [
  '--dataset=ring',
  '--network=mlp',
  '--width=16',
  '--batch_size=16',
  '--steps=500000',
  '--metrics=modes',
  '--eval_every=10000',
  '--eval_samples=1000',
]
STREAMED = [
  '--residence=stream',
  '--width=4',
  '--batch_size=16',
  '--steps=20000',
  '--num_samples=16',
]
NUMS = (5000, 50000)


def memory(pid: int) -> dict[str, float]:
  """MiB of a process, by column."""
  lines = pathlib.Path(f'/proc/{pid}/status').read_text().splitlines()
  facts = dict(line.split(':', 1) for line in lines)
  return {
    name: round(int(facts[key].split()[0]) / 1024, 1)
    for name, key in MEMORY.items()
  }


def last_step(workdir: pathlib.Path) -> int:
  """Of the newest whole row of a log; 0 before there is one."""
  path = workdir / 'stats.jsonl'
  if not path.is_file():
    return 0
  with open(path, 'rb') as file:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
    rows = file.read().split(b'\n')[:-1]
  try:
    return int(json.loads(rows[-1])['step'])
  except (IndexError, ValueError):
    return 0


def watch(
  words: list[str], workdir: pathlib.Path | None = None, every: int = 1
) -> list[dict[str, Any]]:
  """Runs a command; its memory whenever so many steps are done, and at last."""
  started, rows = time.perf_counter(), list[dict[str, Any]]()
  process = subprocess.Popen(
    [sys.executable, '-m', *words],
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  row: dict[str, Any] = {}
  # A process that ended and is not waited for has no memory to look at.
  while process.poll() is None:
    try:
      seen = memory(process.pid)
    except (OSError, KeyError, ValueError):
      break
    step = last_step(workdir) if workdir else 0
    seconds = round(time.perf_counter() - started, 1)
    row = {'seconds': seconds, 'step': step, **seen}
    if workdir and step >= every * (len(rows) + 1):
      rows.append(row)
    time.sleep(0.05)
  if process.wait():
    raise SystemExit(f'failed: {" ".join(words)}')
  return rows if workdir else [row]


def train(work: pathlib.Path, words: list[str]) -> list[dict[str, Any]]:
  """A run, and its memory from step to step."""
  steps = int(dict(w.split('=') for w in words if '=' in w)['--steps'])
  cache = f'--compilation_cache={work.parent / "xla"}'
  command = ['gan_jax.train', f'--workdir={work}', cache, '--noreport', *words]
  return watch(command, work, steps // ROWS)


def make_images(folder: pathlib.Path) -> str:
  """A folder of 500 images of noise, as the name of a dataset."""
  folder.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(0)
  for i in range(500):
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(folder / f'{i:03d}.png')
  return f'--dataset=folder:{folder}'


def measure(part: str, work: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of one part."""
  if part == 'points':
    return train(work / 'points', POINTS)
  words = [make_images(work / 'images'), *STREAMED]
  if part == 'streamed':
    return train(work / 'streamed', words)
  if not (work / 'sampled').exists():
    train(work / 'sampled', [w.replace('20000', '200') for w in words])
  rows = []
  for num in NUMS:
    command = ['gan_jax.sample', f'--workdir={work / "sampled"}']
    command += [f'--num={num}', f'--out={work / "samples.npz"}']
    rows += [row | {'num': num} for row in watch(command)]
  return rows


def describe(rows: list[dict[str, Any]]) -> str:
  """How far memory grew: the last tenth of the steps against the seventh."""
  if 'num' in rows[0]:
    return ', '.join(f'{row["num"]}: {row["peak_mib"]} MiB' for row in rows)
  n = len(rows) // 10
  early, late = (
    sum(row['anon_mib'] for row in part) / n
    for part in (rows[6 * n : 7 * n], rows[9 * n : 10 * n])
  )
  return (
    f'{late - early:+.1f} MiB from {early:.1f}, or'
    f' {rows[-1]["rss_mib"]} with files; at the most {rows[-1]["peak_mib"]}'
  )


def main() -> None:
  """Measures one part, or all."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--part', choices=('points', 'streamed', 'sample'))
  parser.add_argument('--repeats', type=int, default=1)
  parser.add_argument('--work', type=pathlib.Path, required=True)
  options = parser.parse_args()
  parts = [options.part] if options.part else ['points', 'streamed', 'sample']
  path, found = HERE / 'memory.csv', list[dict[str, Any]]()
  if path.is_file():
    with open(path, newline='') as file:
      found = [row for row in csv.DictReader(file) if row['part'] not in parts]
  for part in parts:
    for repeat in range(options.repeats):
      rows = measure(part, options.work.absolute() / f'{part}-{repeat}')
      print(f'{part} {repeat}: {describe(rows)}', flush=True)
      found += [{'part': part, 'repeat': repeat, **row} for row in rows]
      with open(path, 'w', newline='') as file:
        writer = csv.DictWriter(file, [*COLUMNS, *MEMORY], lineterminator='\n')
        writer.writeheader()
        writer.writerows(found)


if __name__ == '__main__':
  main()
