"""What a long log costs to resume and to report.

`python experiments/scale/rows.py --rows=300000 --out=RESULTS.json` writes a log
of so many rows, drops its last tenth as a resume does, and draws the curves of
the rest as the report does, each in a process of its own.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from gan_jax.runtime import records

NAMES = (
  *('d/loss', 'g/loss', 'd/prob_real', 'd/prob_fake', 'd/logit_real'),
  *('d/logit_fake', 'game/value', 'game/jsd_bound', 'd/grad_norm'),
  *('g/grad_norm', 'd/param_norm', 'g/param_norm', 'd/lr', 'g/lr'),
  *('data/wait', 'speed/images_per_sec', 'speed/sec_per_step', 'images'),
)
CALL = """
import pathlib, sys, time
path, steps, what = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
from gan_jax.runtime import records
from gan_jax.figures import curves
from gan_jax.figures.columns import Columns
began, damaged = time.process_time(), {}
if what == 'resume':
  records.cut_lines(path, steps, damaged)
elif what == 'report':
  log = Columns(records.scan_lines(path, damaged))
  size = sum(len(uri) for *_, uri in curves.curves(log, {}))
assert not damaged
peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]
print(time.process_time() - began, int(peak) / 1024)
"""


def main() -> None:
  """Writes the log, resumes and reports it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rows', type=int, default=300_000)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  args = parser.parse_args()
  found = {'command': ' '.join(sys.argv), 'rows': args.rows}
  with tempfile.TemporaryDirectory() as scratch:
    path = pathlib.Path(scratch) / 'stats.jsonl'
    with open(path, 'w', encoding='utf-8') as file:
      for step in range(1, args.rows + 1):
        row = {name: 0.5 + step % 97 / 1000 for name in NAMES}
        file.write(records.format_line({'step': step, **row}))
    found['log_mib'] = round(path.stat().st_size / 2**20, 1)
    for what in ('nothing', 'resume', 'report'):
      line = [sys.executable, '-c', CALL, str(path), str(args.rows * 9 // 10)]
      done = subprocess.run(
        [*line, what], check=True, capture_output=True, text=True
      )
      seconds, peak = map(float, done.stdout.split())
      found[what] = {'cpu_sec': round(seconds, 2), 'peak_mib': round(peak, 1)}
      print(what, found[what], flush=True)
  args.out.write_text(json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
  main()
