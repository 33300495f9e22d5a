"""Steps of ours beside PyTorch's: CPU time in paired, alternating rounds.

One command makes the table: every form of every row is a process pinned to one
core that makes some steps when it is its turn. Before any is timed, one step's
losses and gradients are compared with ours on shared weights. The ceiling, a
matrix product and a convolution, is measured in the same rounds. A row's raw
results go to `results/ROW.json`; `--table` prints the table of what is there.

  python experiments/speed/peers/measure.py --only=dcgan,infogan --rounds=7
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import tabulate
from rows import ROWS

HERE = pathlib.Path(__file__).parent
FORMS = (
  'eager',
  'channels_last',
  'compiled',
  'compiled_last',
  'wrapper',
  'loader',
)


class Worker:
  """A process on one core that makes some steps for each line."""

  def __init__(self, core: int, *words: str) -> None:
    """Starts it; `told` is what it says of itself once it is ready.

    Raises:
      ChildProcessError: with the last line of its errors.
    """
    self._errors = tempfile.TemporaryFile('w+')
    self._process = subprocess.Popen(
      ['taskset', '-c', str(core), sys.executable, *words],
      cwd=HERE,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      text=True,
    )
    self.told = self._read()

  def _read(self) -> dict[str, Any]:
    line = self._process.stdout.readline() if self._process.stdout else ''
    if not line:
      self._errors.seek(0)
      lines = [x for x in self._errors.read().splitlines() if x.strip()]
      raise ChildProcessError(lines[-1] if lines else 'ended')
    found: dict[str, Any] = json.loads(line)
    return found

  def __call__(self) -> dict[str, Any]:
    """Its turn."""
    assert self._process.stdin
    self._process.stdin.write('\n')
    self._process.stdin.flush()
    return self._read()

  def close(self) -> None:
    """Ends it."""
    self._process.kill()
    self._process.wait()


def measure(
  name: str, forms: list[str], rounds: int, core: int
) -> dict[str, Any]:
  """One row, raw."""
  workers, told, failed = dict[str, Worker](), dict[str, Any](), {}
  with tempfile.TemporaryDirectory() as folder:
    check = f'--check={folder}/check.npz'
    workers['ours'] = Worker(core, 'ours.py', name, check)
    for form in ['eager', *(f for f in forms if f != 'eager')]:
      try:
        workers[form] = Worker(core, 'peer.py', name, form, check)
      except ChildProcessError as error:
        if form == 'eager':  # which compares the step
          raise
        failed[form] = str(error)
      print(name, form, failed.get(form, 'ready'), flush=True)
    workers['ceiling'] = Worker(core, 'ceiling.py')
  times = {way: list[dict[str, float]]() for way in workers}
  for _ in range(rounds):
    for way, worker in workers.items():
      times[way].append(worker())
  for way, worker in workers.items():
    told[way] = worker.told
    worker.close()
  return {
    'row': name,
    'options': ROWS[name].options,
    'batch': ROWS[name].batch,
    'python': platform.python_version(),
    'processor': processor(),
    'load': os.getloadavg(),
    'told': told,
    'failed': failed,
    'rounds': times,
  }


def processor() -> str:
  """The machine's, with its number of cores."""
  lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  names = [x.split(':', 1)[1].strip() for x in lines if 'model name' in x]
  return f'{names[0] if names else platform.machine()}, {len(names)} cores'


def summary(found: dict[str, Any]) -> dict[str, str]:
  """A line of the table: medians, and the median of paired ratios."""
  rounds = found['rounds']
  ms = {
    way: [turn['ms'] for turn in turns]
    for way, turns in rounds.items()
    if way != 'ceiling'
  }
  medians = {way: statistics.median(times) for way, times in ms.items()}
  best = min((way for way in ms if way != 'ours'), key=medians.__getitem__)
  ratios = [a / b for a, b in zip(ms['ours'], ms[best], strict=True)]
  rate = found['told']['ours']['flops'] / medians['ours'] / 1e6
  ceiling = statistics.median(t['product'] for t in rounds['ceiling'])
  conv = statistics.median(t['conv'] for t in rounds['ceiling'])
  return {
    'row': found['row'],
    **{form: f'{medians[form]:.4g}' if form in ms else '' for form in FORMS},
    'ours': f'{medians["ours"]:.4g}',
    'least-most': f'{min(ms["ours"]):.4g}-{max(ms["ours"]):.4g}',
    'ratio': f'{statistics.median(ratios):.2f}',
    'its least-most': f'{min(ratios):.2f}-{max(ratios):.2f}',
    'to': best,
    'GFLOP/s': f'{rate:.0f}',
    'product, conv': f'{ceiling:.0f}, {conv:.0f}',
  }


def main() -> None:
  """Measures rows, and prints the table."""
  parser = argparse.ArgumentParser()
  parser.add_argument('--only', default=','.join(ROWS))
  parser.add_argument('--forms', default=','.join(FORMS))
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--core', type=int, default=0)
  parser.add_argument('--table', action='store_true', help='of what is there')
  options = parser.parse_args()
  results = HERE / 'results'
  results.mkdir(exist_ok=True)
  names = [] if options.table else options.only.split(',')
  for name in names:
    found = measure(
      name, options.forms.split(','), options.rounds, options.core
    )
    path = results / f'{name}.json'
    path.write_text(json.dumps(found, indent=1) + '\n')
    print(json.dumps(summary(found)), flush=True)
  paths = [results / f'{name}.json' for name in ROWS]
  lines = [summary(json.loads(p.read_text())) for p in paths if p.exists()]
  table = tabulate.tabulate(lines, headers='keys', tablefmt='github')
  (HERE / 'table.md').write_text(f'{table}\n')
  print(table)


if __name__ == '__main__':
  main()
