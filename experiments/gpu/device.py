"""What only a card can tell, the most valuable first, in a quarter of an hour.

    JAX_PLATFORMS=cuda,cpu python experiments/gpu/device.py --out=OUT

Writes a JSON file for each stage into OUT as it ends; one that is there is not
run again, so that an interrupted call goes on. No stage is begun after
`--seconds`. `--rehearse` does all of it on a CPU, in small.

- `resume`: a run with `--deterministic=on`, killed by SIGKILL and continued,
  has the bits of one that was not; what the option costs.
- `exhausted`: what a batch says that does not fit.
- `steps`: measured times beside the estimates of `compile_all.py`.
- `graphs`: a step replayed as CUDA graphs, as XLA has it; launched kernel by
  kernel; with loops in the graphs as well.
- `tests`: those marked `gpu`.
- `rates`: images a second of DCGAN and ResNet, TF32 and bfloat16.
- `members`: 64 seeds of infogan as one program beside one of them.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from compile_all import RGB, ROWS, place_of

HERE = pathlib.Path(__file__).parent
TRAIN = (sys.executable, '-m', 'gan_jax.train')
QUIET = '--sample_every=1000000 --checkpoint_every=1000000 --report=false'
DCGAN = f'{RGB} --network=dcgan'
RESNET = f'{RGB} --network=resnet --width=128 --objective=hinge'


class Bench:
  """Where runs go, and how large they are."""

  def __init__(self, out: pathlib.Path, rehearse: bool) -> None:
    """Makes the folder."""
    self.out, self.small = out, rehearse
    self.runs = out / 'runs'
    self.cache = out / 'programs'
    self.runs.mkdir(parents=True, exist_ok=True)

  def command(self, name: str, flags: str, steps: int) -> list[str]:
    """Of a run in a folder of its own; a rehearsal has few, narrow steps."""
    words = [*TRAIN, f'--workdir={self.runs / name}', *flags.split()]
    words += [f'--compilation_cache={self.cache}']
    if self.small:
      words = [
        w for w in words if not w.startswith(('--width', '--batch_size'))
      ]
      words += ['--width=8', '--batch_size=8']
    return [*words, f'--steps={4 if self.small else steps}']

  def train(
    self, name: str, flags: str, steps: int, xla: str = ''
  ) -> dict[str, Any]:
    """Trains anew; seconds a step of the rows after the first."""
    shutil.rmtree(self.runs / name, ignore_errors=True)
    every = 1 if self.small else max(1, steps // 8)
    flags = f'{QUIET} --log_every={every} {flags}'
    env = dict(os.environ)
    env['XLA_FLAGS'] = f'{env.get("XLA_FLAGS", "")} {xla}'.strip()
    done = subprocess.run(
      self.command(name, flags, steps), capture_output=True, text=True, env=env
    )
    facts: dict[str, Any] = {'code': done.returncode}
    if done.returncode:
      return facts | {'said': done.stderr[-2000:]}
    rows = [
      json.loads(line)
      for line in (self.runs / name / 'stats.jsonl').read_text().splitlines()
    ]
    took = [
      (b['time/train_sec'] - a['time/train_sec']) / (b['step'] - a['step'])
      for a, b in zip(rows[:-1], rows[1:], strict=True)
    ]
    run = json.loads((self.runs / name / 'run.json').read_text())
    return facts | {
      'seconds': statistics.median(took),
      'least': min(took),
      'greatest': max(took),
      'memory': run.get('memory'),
      'machine': run.get('machine'),
      'products': run.get('products'),
    }

  def digest(self, name: str) -> str:
    """Of all arrays of the last checkpoint."""
    code = (
      'import sys; from gan_jax.runtime import checkpoint;'
      'from gan_jax.training import restore;'
      'print(checkpoint.digest(restore.open_run(sys.argv[1]).state))'
    )
    done = subprocess.run(
      [sys.executable, '-c', code, str(self.runs / name)],
      capture_output=True,
      text=True,
      check=True,
    )
    return done.stdout.strip()


def resume(bench: Bench) -> dict[str, Any]:
  """Killed and continued, beside undisturbed and beside unconstrained."""
  steps = 2000
  flags = f'{DCGAN} --batch_size=64 --report=false --log_every=1'
  flags += f' --checkpoint_every={1 if bench.small else 200}'
  found: dict[str, Any] = {}
  for name in ('whole', 'killed'):
    command = bench.command(name, f'{flags} --deterministic=on', steps)
    shutil.rmtree(bench.runs / name, ignore_errors=True)
    if name == 'killed':
      process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
      checkpoints = bench.runs / name / 'checkpoints'
      while len(list(checkpoints.glob('0*'))) < 2 and process.poll() is None:
        time.sleep(0.05)
      process.send_signal(signal.SIGKILL)
      found['killed_with'] = process.wait()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    found[name] = bench.digest(name)
  found['same_bits'] = found['whole'] == found['killed']
  for option in ('on', 'off', 'on', 'off'):
    took = bench.train('cost', f'{DCGAN} --deterministic={option}', 400)
    found.setdefault(f'seconds_{option}', []).append(took.get('seconds'))
  return found


def exhausted(bench: Bench) -> dict[str, Any]:
  """A step that no card holds; its code and its last words."""
  words = bench.command('exhausted', '--dataset=ring --network=mlp', 2)
  words = [w for w in words if not w.startswith(('--width', '--batch_size'))]
  done = subprocess.run(
    [*words, '--width=4096', '--batch_size=16777216'],
    capture_output=True,
    text=True,
    timeout=120,
  )
  return {'code': done.returncode, 'said': done.stderr[-2000:]}


def steps(bench: Bench) -> dict[str, Any]:
  """Measured beside estimated, for each row of the table."""
  found = {}
  for name, flags in ROWS.items():
    measured = bench.train('steps', flags, 400)
    raw = place_of(name, HERE / 'raw' / 'one_pass')
    if raw.exists():
      step = json.loads(raw.read_text())['step']
      measured |= {'estimate': step['seconds'], 'kernels': step['kernels']}
    found[name] = measured
  return found


def graphs(bench: Bench) -> dict[str, Any]:
  """DCGAN, bound by launches, as CUDA graphs and without."""
  option = '--xla_gpu_enable_command_buffer'
  forms = {'default': '', 'none': f'{option}=', 'loops': f'{option}=+WHILE'}
  return {
    name: bench.train('graphs', f'{DCGAN} --batch_size=64', 400, xla)
    for name, xla in forms.items()
  }


def tests(bench: Bench) -> dict[str, Any]:
  """Those that are marked `gpu`; none is picked in a rehearsal."""
  command = [sys.executable, '-m', 'pytest', '-q', '-n', '0', '-m', 'gpu']
  command += ['tests', '--no-header', '-rs']
  if bench.small:
    command += ['--collect-only']
  done = subprocess.run(
    command, cwd=HERE.parents[1], capture_output=True, text=True
  )
  return {'code': done.returncode, 'said': done.stdout[-3000:]}


def rates(bench: Bench) -> dict[str, Any]:
  """Images a second, by network, precision and batch."""
  found = {}
  for network, flags in (('dcgan', DCGAN), ('resnet', RESNET)):
    for precision in ('float32', 'bfloat16'):
      for batch in (64, 512):
        words = f'{flags} --precision={precision} --batch_size={batch}'
        if precision == 'float32':
          words += ' --matmul_precision=tensorfloat32'
        took = bench.train('rates', words, 400 if batch == 64 else 100)
        if 'seconds' in took:
          took['images_a_second'] = batch / took['seconds']
        found[f'{network} {precision} {batch}'] = took
  return found


def members(bench: Bench) -> dict[str, Any]:
  """64 seeds as one program, and one run."""
  flags = ROWS['infogan 28x28, batch 64']
  one = bench.train('one', flags, 400)
  folder = bench.runs / 'members'
  shutil.rmtree(folder, ignore_errors=True)
  count, number = (4, 2) if bench.small else (400, 64)
  words = f'{flags} --log_every={count} --steps={count}'
  if bench.small:
    words += ' --width=8 --batch_size=8'
  command = [sys.executable, '-m', 'gan_jax.ablate', f'--workdir={folder}']
  command += [*words.split(), f'--seeds={number}']
  command += ['--metrics=fid', '--features=pixels']
  done = subprocess.run(command, capture_output=True, text=True)
  runs = [json.loads(p.read_text()) for p in folder.rglob('run.json')]
  return {
    'one': one,
    'code': done.returncode,
    'said': done.stderr[-1000:],
    'members': number,
    'train_sec': [run.get('train_sec') for run in runs][:2],
    'steps': count,
  }


STAGES: dict[str, Callable[[Bench], dict[str, Any]]] = {
  f.__name__: f
  for f in (resume, exhausted, steps, graphs, tests, rates, members)
}


def main() -> None:
  """Runs the stages that are not there yet."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--seconds', type=float, default=800)
  parser.add_argument('--rehearse', action='store_true')
  parser.add_argument('--stage', choices=STAGES, action='append')
  args = parser.parse_args()
  started = time.monotonic()
  bench = Bench(args.out, args.rehearse)
  for name in args.stage or STAGES:
    place = args.out / f'{name}.json'
    if place.exists() or time.monotonic() - started > args.seconds:
      continue
    begun = time.monotonic()
    facts = STAGES[name](bench)
    facts['stage_seconds'] = round(time.monotonic() - begun, 1)
    place.write_text(json.dumps(facts, indent=1))
    print(name, json.dumps(facts)[:300], flush=True)


if __name__ == '__main__':
  main()
